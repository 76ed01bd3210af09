import { isIP } from "node:net";
import type { Access } from "../access/authorizer.js";
import { PeeringError } from "../base/errors.js";
import { joinHostPort } from "../base/host-port.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import type { JsonObject, StringMap } from "../model/instance.js";
import { isList, isObject } from "../model/kept-members.js";
import { textOf } from "../model/proxy-rules.js";
import { metaProblem, type ServiceRegistration, serviceProblem } from "../model/registration.js";
import type { Judge } from "../stores/catalog.js";
import {
  type GoFields,
  type GoType,
  goBool,
  goDecoded,
  goInt,
  goList,
  goMap,
  goOptional,
  goSteps,
  goString,
  goStruct,
} from "../syntax/go-json.js";
import { lowerCase } from "../syntax/names.js";
import {
  CHECK_FIELDS,
  givenChecks,
  ownNode,
  type PreparedCheck,
  serviceChecks,
  unknownService,
  validateChecks,
} from "./agent-checks.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { judgeFor, requireInstance } from "./catalog.js";
import { type ServiceCheckBody, serviceCheckType } from "./check-json.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import type { Operation } from "./operation.js";
import {
  type AddressBody,
  addressesType,
  catalogBody,
  connectTypeOf,
  fieldsOf,
  type LocalityBody,
  localityType,
  type PortBody,
  plainServiceTypes,
  portsType,
  proxyType,
  type ServiceBody,
  serviceRegistration,
  type WeightsBody,
  weightsType,
} from "./registration-json.js";
import { bodySchema } from "./shape-json.js";

interface Definition {
  readonly Kind: string;
  readonly ID: string;
  readonly Name: string;
  readonly Tags: readonly string[] | undefined;
  readonly Address: string;
  readonly Port: number;
  readonly Ports: readonly PortBody[];
  readonly SocketPath: string;
  readonly Meta: StringMap | undefined;
  readonly TaggedAddresses: Readonly<Record<string, AddressBody>>;
  readonly Weights: WeightsBody | undefined;
  readonly EnableTagOverride: boolean;
  readonly Check: ServiceCheckBody | undefined;
  readonly Checks: readonly ServiceCheckBody[];
  readonly Proxy: JsonObject;
  readonly Connect: ConnectBody;
  readonly Locality: LocalityBody | undefined;
  readonly Token: string;
}

interface ConnectBody {
  readonly Native: boolean;
  readonly SidecarService: Definition | undefined;
}

/** A sidecar is a definition inside a definition; how deep they go is for the parser of JSON to bound. */
const sidecarType: GoType<Definition | undefined> = {
  name: "*structs.ServiceDefinition",
  // That of the definition which it is inside of.
  form: { fields: {} },
  zero: () => undefined,
  steps: (value, path) => goSteps(definitionType, value, path),
};

const definitionFields: GoFields<Definition> = {
  ...plainServiceTypes,
  Kind: goString,
  ID: goString,
  Name: goString,
  Tags: goOptional(goList(goString)),
  Address: goString,
  Port: goInt,
  Ports: portsType,
  SocketPath: goString,
  Meta: goOptional(goMap(goString)),
  TaggedAddresses: addressesType,
  Weights: weightsType,
  EnableTagOverride: goBool,
  Check: goOptional(serviceCheckType),
  Checks: goList(serviceCheckType),
  Proxy: proxyType,
  Connect: connectTypeOf<ConnectBody>({ Native: goBool, SidecarService: sidecarType }),
  Locality: goOptional(localityType),
  Token: goString,
};

const definitionType: GoType<Definition> = goDecoded(
  goStruct<Definition>("structs.ServiceDefinition", definitionFields, {
    aliases: { enable_tag_override: "EnableTagOverride", tagged_addresses: "TaggedAddresses" },
  }),
  (read) => read,
);

const SIDECAR = "-sidecar-proxy";
/** Where Consul looks for a sidecar's port. */
const FIRST_SIDECAR_PORT = 21_000;
const LAST_SIDECAR_PORT = 21_255;
/** How often an agent of Consul looks whether a sidecar listens. */
const SIDECAR_CHECK_MS = 10_000;

async function register(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const body = await catalogBody(call, definitionType);
  if (body.Name === "") throw badRequest("Missing service name");
  if (["0.0.0.0", "::", "[::]"].includes(body.Address)) throw badRequest("Invalid service address");
  const access = await call.access();
  await inTurns(validate(body));
  const { SidecarService: sidecar } = body.Connect;
  const write = (): Promise<void> => writeService(call, body, access);
  // A port that is free is taken before anything else looks for one.
  if (sidecar !== undefined && sidecar.Port === 0) await call.host.checks.choosing(write);
  else await write();
  return {};
}

interface PreparedService {
  readonly registration: ServiceRegistration;
  readonly checks: readonly PreparedCheck[];
}

/** The service with its checks, and its sidecar with its own, made in steps. @throws {HttpRefusal}, and as {@link requireInstance}. */
function* servicesOf(call: Call, body: Definition, access: Access): Steps<readonly PreparedService[]> {
  const meter = new StepMeter();
  const id = body.ID || body.Name;
  const { node } = ownNode(call);
  const own = registrationOf(body, id);
  if (meter.isOver(fieldsOf(body.Proxy))) yield;
  requireInstance(access, call.host, node, own);
  const definitions = [{ definition: { ...body, ID: id }, registration: own }];
  const sidecar = body.Connect.SidecarService;
  if (sidecar !== undefined) {
    const made = sidecarOf(call, body, id, sidecar);
    const registration = registrationOf(made, made.ID);
    if (meter.isOver(fieldsOf(made.Proxy))) yield;
    // It is judged before a port is found for it.
    const problem = yield* serviceProblem({ ...registration, port: sidecar.Port }, true);
    if (problem !== undefined) throw badRequest(`Failed Validation: ${problem}`);
    requireInstance(access, call.host, node, registration);
    definitions.push({ definition: made, registration });
  }
  for (const { definition } of definitions) requireFamilies(definition.TaggedAddresses);
  const services: PreparedService[] = [];
  for (const { definition, registration } of definitions) {
    const { ID, Name: name, Check: check, Checks: checks } = definition;
    services.push({
      registration,
      checks: yield* serviceChecks(call, { id: ID, name }, givenChecks(check, checks), meter),
    });
  }
  return services;
}

async function writeService(call: Call, body: Definition, access: Access): Promise<void> {
  const id = body.ID || body.Name;
  const { catalog } = call.host;
  const node = ownNode(call);
  const services = await inTurns(servicesOf(call, body, access));
  const registrations = services.map(({ registration, checks }) => ({
    ...node,
    service: registration,
    checks: checks.map((each) => each.registration),
  }));
  const judge: Judge = (touched) => {
    // The agent puts its own node there itself, with the first service.
    const made = catalog.nodeAlone(node.node) === undefined;
    judgeFor(access)(made ? touched.filter(({ type }) => type !== "node") : touched);
  };
  const checks = services.flatMap((each) => each.checks);
  const kept = new Set(checks.map(({ registration }) => lowerCase(registration.checkId)));
  // Consul takes nothing else for a yes.
  const replaces = ["", "true"].includes(call.query.get("replace-existing-checks") ?? "false");
  const stale = replaces ? catalog.checksOf(node.node, id).filter(({ checkId }) => !kept.has(lowerCase(checkId))) : [];
  try {
    await call.host.checks.register(
      registrations,
      new Map(checks.map(({ registration, definition }) => [registration.checkId, definition])),
      { judge },
    );
  } catch (error) {
    throw told(error);
  }
  // Together, so that they share commits.
  await Promise.all(stale.map(({ checkId }) => catalog.deregister({ node: node.node, checkId }, { judge })));
  await call.host.checks.forget(stale.map(({ checkId }) => checkId));
}

/** @throws {HttpRefusal} 400 with Consul's text. */
function* validate(body: Definition): Steps<void> {
  const { Weights: weights } = body;
  if (weights !== undefined) {
    const problem = weightsProblem(weights);
    if (problem !== undefined) throw badRequest(`Invalid Weights: ${problem}`);
  }
  const problem = metaProblem(body.Meta ?? {}, body.Kind);
  if (problem !== undefined) throw badRequest(`Invalid Service Meta: ${problem}`);
  const { SidecarService: sidecar } = body.Connect;
  if (sidecar !== undefined && body.Ports.length > 0) {
    throw badRequest("MultiPort cannot be used with Consul Connect.");
  }
  const meter = new StepMeter();
  const registration = registrationOf(body, body.ID || body.Name, sidecar);
  if (meter.isOver(fieldsOf(body.Proxy))) yield;
  const broken = yield* serviceProblem(registration);
  if (broken !== undefined) throw badRequest(`Validation failed: ${broken}`);
  if (meter.isOver(fieldsOf(body.Proxy))) yield;
  validateChecks(givenChecks(body.Check, body.Checks));
  if (meter.isOver(CHECK_FIELDS * body.Checks.length)) yield;
  if (sidecar === undefined) return;
  validateChecks(givenChecks(sidecar.Check, sidecar.Checks), " in sidecar_service");
  const sidecarProblem = metaProblem(sidecar.Meta ?? {}, sidecar.Kind);
  if (sidecarProblem !== undefined) throw badRequest(`Invalid SidecarService: ${sidecarProblem}`);
}

function weightsProblem({ Passing: passing, Warning: warning }: WeightsBody): string | undefined {
  if (passing < 1) return "Passing must be greater than 0";
  if (warning < 0) return "Warning must be greater or equal than 0";
  return passing > 65_535 || warning > 65_535 ? "DNS Weight must be between 0 and 65535" : undefined;
}

/** The form in which the catalog's refusals are answered here. */
function told(error: unknown): unknown {
  if (!(error instanceof PeeringError)) return error;
  const text = error.message.replace(/^registration \d+: /, "");
  if (error.code === "permission-denied") return new PeeringError(error.code, text, { cause: error });
  if (error.code !== "invalid-registration") return error;
  return badRequest(/^\d+ errors? occurred:/.test(text) ? `Validation failed: ${text}` : text);
}

/** The families of addresses by whose tags services are found: an address with such a tag must be of the family. */
const FAMILIES: readonly (readonly [tag: string, family: 4 | 6])[] = [
  ["lan_ipv4", 4],
  ["wan_ipv4", 4],
  ["lan_ipv6", 6],
];

/** @throws {HttpRefusal} 500 with Consul's text: a tag is that of a family, and its address none of it. */
function requireFamilies(addresses: Readonly<Record<string, AddressBody>>): void {
  for (const [tag, family] of FAMILIES) {
    const address = Object.hasOwn(addresses, tag) ? addresses[tag] : undefined;
    if (address === undefined || familyOf(address.Address) === family) continue;
    throw new HttpRefusal(500, `Service tagged address "${tag}" must be a valid ipv${family} address`);
  }
}

/** 0: not an IP address, or one with a zone. */
function familyOf(address: string): number {
  return address.includes("%") ? 0 : isIP(address);
}

/** @param sidecar - to be judged together with its service; the agent registers it afterwards. */
function registrationOf(body: Definition, id: string, sidecar?: Definition): ServiceRegistration {
  const named: ServiceBody & { readonly ID: string } = {
    ...body,
    ID: id,
    Service: body.Name,
    TaggedAddresses: { ...addressesByFamily(body), ...body.TaggedAddresses },
    Proxy: withUpstreamTypes(body.Proxy),
    Connect: {
      Native: body.Connect.Native,
      SidecarService: sidecar && nestedOf(sidecar),
      PeerMeta: undefined,
    },
    PeerName: "",
    CreateIndex: 0n,
    ModifyIndex: 0n,
  };
  return serviceRegistration(named);
}

/** The fields of a sidecar inside its service that have rules. */
function nestedOf(sidecar: Definition): JsonObject {
  return {
    ...(sidecar.ID !== "" && { ID: sidecar.ID }),
    ...(sidecar.Connect.SidecarService !== undefined && { Connect: { SidecarService: {} } }),
  };
}

/** An agent writes the type of each upstream. */
function withUpstreamTypes(proxy: JsonObject): JsonObject {
  const { Upstreams: upstreams } = proxy;
  if (!isList(upstreams)) return proxy;
  return {
    ...proxy,
    Upstreams: upstreams.map((each) => (isObject(each) ? { DestinationType: "service", ...each } : each)),
  };
}

/** The tagged addresses that an agent of Consul adds to a service with an address of its own. */
function addressesByFamily({ Address, Port, Ports }: Definition): Readonly<Record<string, AddressBody>> {
  const family = familyOf(Address);
  if (family === 0) return {};
  const address = { Address, Port: Ports.find((port) => port.Default)?.Port ?? Port };
  return { [`lan_ipv${family}`]: address, [`wan_ipv${family}`]: address };
}

/** The proxy beside a service: fields that it leaves out come from the service, as in Consul 1.21. */
function sidecarOf(call: Call, parent: Definition, parentId: string, sidecar: Definition): Definition {
  const id = `${parentId}${SIDECAR}`;
  const proxy = sidecarProxy(parent, parentId, sidecar.Proxy);
  const address = sidecar.Address || parent.Address;
  const port = sidecar.Port || freeSidecarPort(call, id);
  const checked = givenChecks(sidecar.Check, sidecar.Checks).length > 0;
  return {
    ...sidecar,
    ID: id,
    Kind: sidecar.Kind || "connect-proxy",
    Name: sidecar.Name || `${parent.Name}${SIDECAR}`,
    Tags: sidecar.Tags !== undefined && sidecar.Tags.length > 0 ? sidecar.Tags : parent.Tags,
    Meta: Object.keys(sidecar.Meta ?? {}).length > 0 ? sidecar.Meta : parent.Meta,
    Locality: sidecar.Locality ?? parent.Locality,
    Address: address,
    Port: port,
    Proxy: proxy,
    Checks: checked ? sidecar.Checks : sidecarChecks(parentId, address || textOf(proxy, "LocalServiceAddress"), port),
  };
}

function sidecarProxy(parent: Definition, parentId: string, proxy: JsonObject): JsonObject {
  const address = textOf(proxy, "LocalServiceAddress");
  const { LocalServicePort: port = 0 } = proxy;
  const reached =
    textOf(proxy, "LocalServiceSocketPath") !== "" || (address !== "" && typeof port === "number" && port >= 1);
  const bySocket = parent.SocketPath !== "" && !reached;
  return {
    ...proxy,
    DestinationServiceName: textOf(proxy, "DestinationServiceName") || parent.Name,
    DestinationServiceID: textOf(proxy, "DestinationServiceID") || parentId,
    ...(bySocket && { LocalServiceSocketPath: parent.SocketPath }),
    ...(!reached &&
      !bySocket && { LocalServiceAddress: address || "127.0.0.1", LocalServicePort: port || parent.Port }),
  };
}

/** The default checks of a sidecar without checks in an agent of Consul: that it listens, and an alias of its service. */
function sidecarChecks(parentId: string, address: string, port: number): readonly ServiceCheckBody[] {
  const nothing = serviceCheckType.zero();
  const tcp = joinHostPort(address, port);
  return [
    { ...nothing, Name: "Connect Sidecar Listening", TCP: tcp, Interval: SIDECAR_CHECK_MS },
    { ...nothing, Name: `Connect Sidecar Aliasing ${parentId}`, AliasService: parentId },
  ];
}

/** The port the sidecar has already, else the first one that nothing on the node uses. @throws {HttpRefusal} 400. */
function freeSidecarPort(call: Call, id: string): number {
  const { catalog } = call.host;
  const before = catalog.service(call.server.nodeName, id);
  if (before?.id === id && before.port !== 0) return before.port;
  const taken = new Set(catalog.node(call.server.nodeName)?.services.map(({ port }) => port));
  for (let port = FIRST_SIDECAR_PORT; port <= LAST_SIDECAR_PORT; port++) if (!taken.has(port)) return port;
  throw badRequest(
    `Invalid SidecarService: none left in the configured range [${FIRST_SIDECAR_PORT}, ${LAST_SIDECAR_PORT}]`,
  );
}

async function deregister(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const id = call.rest;
  if (id === "") throw badRequest("Missing service ID");
  const access = await call.access();
  const { catalog } = call.host;
  const node = call.server.nodeName;
  const service = catalog.service(node, id);
  if (service?.id !== id) throw unknownService(id);
  const sidecarId = `${id}${SIDECAR}`;
  const sidecar = catalog.service(node, sidecarId);
  const isItsOwn = sidecar?.id === sidecarId && sidecar.proxy?.destinationServiceId === id;
  const removed = isItsOwn ? [service, sidecar] : [service];
  for (const { name } of removed) access.require({ resource: "service", access: "write", name });
  const judge = judgeFor(access);
  for (const { id: serviceId } of removed) {
    const checks = catalog.checksOf(node, serviceId);
    await catalog.deregister({ node, serviceId }, { judge });
    await call.host.checks.forget(checks.map(({ checkId }) => checkId));
  }
  return {};
}

/** `/v1/agent/service…`: services of this node. */
export const agentServiceOperations: readonly Operation[] = [
  {
    method: "PUT",
    pattern: "/v1/agent/service/register",
    run: register,
    docs: [
      {
        path: "/v1/agent/service/register",
        id: "registerOwnService",
        summary: "Registers a service at this node, with a sidecar proxy if it asks for one.",
        parameters: [
          {
            name: "replace-existing-checks",
            in: "query",
            description: "Removes checks of the service that are not given.",
          },
        ],
        body: bodySchema(definitionType.form),
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/agent/service/deregister/",
    run: deregister,
    docs: [
      {
        path: "/v1/agent/service/deregister/{id}",
        id: "deregisterOwnService",
        summary: "Removes a service of this node, and its sidecar proxy.",
      },
    ],
  },
];
