import type { Steps } from "../base/steps.js";
import type { JsonObject, JsonValue, Locality, Service, StringMap } from "../model/instance.js";
import { isList, isObject } from "../model/kept-members.js";
import { plainFields, type Uses, useFields } from "../model/record-table.js";
import { serviceTable } from "../model/records.js";
import type { CheckRegistration, NodeRegistration, Registration, ServiceRegistration } from "../model/registration.js";
import { plainReading, requireKind, SERVICE_FIELDS, UPSTREAM_FIELDS } from "../model/registration.js";
import { KeptShape } from "../model/shape-reader.js";
import {
  checkDefinitionShape,
  proxyExtraShape,
  proxyShape,
  sidecarShape,
  underscored,
  upstreamShape,
} from "../model/shapes.js";
import {
  firstValueSteps,
  type GoFields,
  type GoJson,
  type GoJsonError,
  type GoType,
  goBool,
  goDecoded,
  goInt,
  goList,
  goMap,
  goMapped,
  goOptional,
  goString,
  goStruct,
  goUint64,
  isGoList,
  isGoObject,
  readGoSteps,
} from "../syntax/go-json.js";
import type { Call } from "./call.js";
import { keptCheck, serviceCheckType } from "./check-json.js";
import { decodeFailed, HttpRefusal } from "./http-refusal.js";
import { goRecord, held, type RecordOptions } from "./shape-go.js";

// The bodies of writes to the catalog, as Consul 1.21 decodes them, and `Ports` of 1.22: what it knows and we do not keep is `goAny`.

export const localityType: GoType<LocalityBody> = goStruct<LocalityBody>("structs.Locality", {
  Region: goString,
  Zone: goString,
});
export interface LocalityBody {
  readonly Region: string;
  readonly Zone: string;
}

const spellings = (...names: readonly string[]): Readonly<Record<string, string>> =>
  Object.fromEntries(names.map((name) => [underscored(name), name]));

/** The spellings with underscores that Consul takes in JSON, where it takes any. */
const proxyOptions: RecordOptions = {
  decoded: true,
  aliases: spellings(
    "DestinationServiceName",
    "DestinationServiceID",
    "LocalServiceAddress",
    "LocalServicePort",
    "LocalServiceSocketPath",
    "MeshGateway",
    "TransparentProxy",
    "AccessLogs",
  ),
  inside: {
    Upstreams: {
      decoded: true,
      aliases: spellings(
        "DestinationType",
        "DestinationPartition",
        "DestinationNamespace",
        "DestinationPeer",
        "DestinationName",
        "LocalBindAddress",
        "LocalBindPort",
        "LocalBindSocketPath",
        "LocalBindSocketMode",
        "MeshGateway",
      ),
    },
    Expose: {
      inside: { Paths: { decoded: true, aliases: spellings("ListenerPort", "LocalPathPort", "ParsedFromCheck") } },
    },
  },
};

/** The proxy of a registration in Consul's form. */
export const proxyType: GoType<JsonObject> = goRecord("structs.ConnectProxyConfig", proxyShape, proxyOptions);

interface ConnectBody {
  readonly Native: boolean;
  readonly SidecarService: JsonObject | undefined;
  readonly PeerMeta: PeerMetaBody | undefined;
}

interface PeerMetaBody {
  readonly SNI: readonly string[];
  readonly SpiffeID: readonly string[];
  readonly Protocol: string;
}

const keptChecks: GoType<JsonValue | undefined> = held(goOptional(goList(goMapped(serviceCheckType, keptCheck))));

/** A sidecar as registered, which the catalog keeps unchanged. */
const sidecarOptions: RecordOptions = {
  decoded: true,
  aliases: spellings("EnableTagOverride", "TaggedAddresses"),
  types: { Check: held(goMapped(serviceCheckType, keptCheck)), Checks: keptChecks },
  inside: { Proxy: proxyOptions },
};
const sidecarType: GoType<JsonObject | undefined> = goOptional(
  goRecord("structs.ServiceDefinition", sidecarShape, {
    ...sidecarOptions,
    inside: {
      ...sidecarOptions.inside,
      Connect: {
        decoded: true,
        strict: false,
        aliases: spellings("SidecarService"),
        inside: { SidecarService: sidecarOptions },
      },
    },
  }),
);

/** As in Consul, which passes over what it does not know here. */
export function connectTypeOf<T extends { readonly SidecarService: unknown }>(fields: GoFields<T>): GoType<T> {
  const aliases = { sidecar_service: "SidecarService" as const };
  const struct = goStruct<T>("structs.ServiceConnect", fields, { strict: false, aliases });
  return goDecoded(struct, (read) => read);
}

const connectType: GoType<ConnectBody> = connectTypeOf<ConnectBody>({
  Native: goBool,
  SidecarService: sidecarType,
  PeerMeta: goOptional(
    goStruct<PeerMetaBody>(
      "structs.PeeringServiceMeta",
      { SNI: goList(goString), SpiffeID: goList(goString), Protocol: goString },
      { strict: false },
    ),
  ),
});

export interface AddressBody {
  readonly Address: string;
  readonly Port: number;
}

export interface WeightsBody {
  readonly Passing: number;
  readonly Warning: number;
}

export const addressesType: GoType<Readonly<Record<string, AddressBody>>> = goMap(
  goStruct<AddressBody>("structs.ServiceAddress", { Address: goString, Port: goInt }),
);
export const weightsType: GoType<WeightsBody | undefined> = goOptional(
  goStruct<WeightsBody>("structs.Weights", { Passing: goInt, Warning: goInt }),
);

export interface PortBody {
  readonly Name: string;
  readonly Port: number;
  readonly Default: boolean;
}

export const portsType: GoType<readonly PortBody[]> = goList(
  goStruct<PortBody>("structs.ServicePort", { Name: goString, Port: goInt, Default: goBool }),
);

type PlainType = GoType<string> | GoType<boolean> | GoType<number> | GoType<readonly string[]> | GoType<StringMap>;

/** How Consul decodes plain values; the others have types of their own. */
class PlainTypes<Item> implements Uses<Item, Readonly<Record<string, PlainType>>> {
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  text = (): Readonly<Record<string, PlainType>> => ({ [this.#name]: goString });
  flag = (): Readonly<Record<string, PlainType>> => ({ [this.#name]: goBool });
  int = (): Readonly<Record<string, PlainType>> => ({ [this.#name]: goInt });
  texts = (): Readonly<Record<string, PlainType>> => ({ [this.#name]: goList(goString) });
  textMap = (): Readonly<Record<string, PlainType>> => ({ [this.#name]: goMap(goString) });
  index = nothing;
  one = nothing;
  list = nothing;
  map = nothing;
  kept = nothing;
  proxy = nothing;
}

function nothing(): Readonly<Record<string, PlainType>> {
  return {};
}

/** The plain fields of a service, which every body of one has. Other bodies call its name in another way. */
export const plainServiceTypes: Readonly<Record<string, PlainType>> = Object.assign(
  {},
  ...useFields(serviceTable, ({ name }) => new PlainTypes<Service>(name), new Set(["name"] as const)),
);

/** Beside what {@link plainServiceTypes} reads. */
export interface ServiceBody {
  readonly Kind: string;
  readonly Service: string;
  readonly TaggedAddresses: Readonly<Record<string, AddressBody>>;
  readonly Ports: readonly PortBody[];
  readonly Weights: WeightsBody | undefined;
  readonly Proxy: JsonObject;
  readonly Connect: ConnectBody;
  readonly Locality: LocalityBody | undefined;
  readonly PeerName: string;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

export const serviceFields: GoFields<ServiceBody> = {
  ...plainServiceTypes,
  Kind: goString,
  Service: goString,
  TaggedAddresses: addressesType,
  Ports: portsType,
  Weights: weightsType,
  Proxy: proxyType,
  Connect: connectType,
  Locality: goOptional(localityType),
  PeerName: goString,
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
};
const serviceType: GoType<ServiceBody> = goStruct<ServiceBody>("structs.NodeService", serviceFields);

export interface CheckBody {
  readonly Node: string;
  readonly CheckID: string;
  readonly Name: string;
  readonly Status: string;
  readonly Notes: string;
  readonly Output: string;
  readonly ServiceID: string;
  readonly ServiceName: string;
  readonly ServiceTags: readonly string[];
  readonly Type: string;
  readonly Interval: string;
  readonly Timeout: string;
  readonly ExposedPort: number;
  readonly PeerName: string;
  readonly Definition: JsonObject;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

export const checkFields: GoFields<CheckBody> = {
  Node: goString,
  CheckID: goString,
  Name: goString,
  Status: goString,
  Notes: goString,
  Output: goString,
  ServiceID: goString,
  ServiceName: goString,
  ServiceTags: goList(goString),
  Type: goString,
  Interval: goString,
  Timeout: goString,
  ExposedPort: goInt,
  PeerName: goString,
  // Consul passes over what it does not know here; its client writes durations twice.
  Definition: goRecord("structs.HealthCheckDefinition", checkDefinitionShape, { strict: false, decoded: true }),
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
};
const checkType: GoType<CheckBody> = goStruct<CheckBody>("structs.HealthCheck", checkFields);

export interface NodeBody {
  readonly ID: string;
  readonly Node: string;
  readonly Address: string;
  readonly Datacenter: string;
  readonly PeerName: string;
  readonly TaggedAddresses: StringMap;
  readonly Meta: StringMap;
  readonly Locality: LocalityBody | undefined;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

export const nodeFields: GoFields<NodeBody> = {
  ID: goString,
  Node: goString,
  Address: goString,
  Datacenter: goString,
  PeerName: goString,
  TaggedAddresses: goMap(goString),
  Meta: goMap(goString),
  Locality: goOptional(localityType),
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
};

export interface RegisterBody {
  readonly ID: string;
  readonly Node: string;
  readonly Address: string;
  readonly TaggedAddresses: StringMap;
  readonly NodeMeta: StringMap;
  readonly Datacenter: string;
  readonly Locality: LocalityBody | undefined;
  readonly SkipNodeUpdate: boolean;
  readonly Service: ServiceBody | undefined;
  readonly Check: CheckBody | undefined;
  readonly Checks: readonly CheckBody[];
  readonly PeerName: string;
  readonly Token: string;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

export const registerType: GoType<RegisterBody> = goStruct<RegisterBody>("structs.RegisterRequest", {
  ID: goString,
  Node: goString,
  Address: goString,
  TaggedAddresses: goMap(goString),
  NodeMeta: goMap(goString),
  Datacenter: goString,
  Locality: goOptional(localityType),
  SkipNodeUpdate: goBool,
  Service: goOptional(serviceType),
  Check: goOptional(checkType),
  Checks: goList(checkType),
  PeerName: goString,
  Token: goString,
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
});

export interface DeregisterBody {
  readonly Datacenter: string;
  readonly Node: string;
  readonly ServiceID: string;
  readonly CheckID: string;
  readonly Address: string;
  readonly PeerName: string;
  readonly Token: string;
}

export const deregisterType: GoType<DeregisterBody> = goDecoded(
  goStruct<DeregisterBody>(
    "struct { Address string; *structs.Alias }",
    {
      Datacenter: goString,
      Node: goString,
      ServiceID: goString,
      CheckID: goString,
      Address: goString,
      PeerName: goString,
      Token: goString,
    },
    { shown: "Alias" },
  ),
  (read) => read,
);

/** A body of the catalog. @throws {HttpRefusal} 400 `Request decode failed: …`. */
export async function catalogBody<T>(call: Call, type: GoType<T>, hint?: (error: GoJsonError) => string): Promise<T> {
  function* read(body: Buffer): Steps<T> {
    const json = yield* firstValueSteps(body);
    yield;
    boundChecks(call, json);
    boundRecords(call, json);
    return yield* readGoSteps(json, type);
  }
  return call.decoded(read, (error) => decodeFailed(error, hint?.(error)));
}

/**
 * Before anything is made of them: a check in memory is many times as large as its text, and each change of one writes the
 * service, or the node, with all of its checks.
 * @throws {HttpRefusal} 413
 */
function boundChecks(call: Call, json: GoJson): void {
  const { maxChecks: limit } = call.server;
  const count = checksIn(json);
  if (count <= limit) return;
  call.report("checks-per-registration", "a registration was refused: it has too many checks", { limit, count });
  throw new HttpRefusal(413, `Registration contains too many checks (${count} > ${limit})`);
}

/**
 * Before anything is made of them: an object becomes a record with all of its fields, however few it names, and so does `null` in
 * a list of records.
 * @throws {HttpRefusal} 413
 */
export function boundRecords(call: Call, json: GoJson): void {
  const { maxRecords: limit } = call.server;
  if (!hasMoreRecords(json, limit)) return;
  call.report("records-per-registration", "a registration was refused: its JSON has too many objects", { limit });
  throw new HttpRefusal(413, `Request body has too many JSON objects, max: ${limit}.`);
}

/** Whether there are more objects than so many, each `null` being one. Looks at no more than that. */
function hasMoreRecords(json: GoJson, limit: number): boolean {
  const open: GoJson[] = [json];
  let count = 0;
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (next === null || isGoObject(next)) count++;
    if (count > limit) return true;
    if (next === null) continue;
    const inside = isGoObject(next) ? next.members.map(({ value }) => value) : isGoList(next) ? next : [];
    for (const each of inside) if (typeof each === "object") open.push(each);
  }
  return false;
}

/** How many checks lists of them have, those of a sidecar included. */
function checksIn(json: GoJson): number {
  if (!isGoObject(json)) return 0;
  let count = 0;
  for (const { key, value } of json.members) {
    if (!isGoList(value)) count += checksIn(value);
    else if (key.toLowerCase() === "checks") count += value.length;
  }
  return count;
}

/** The addition of Consul about a key of another edition, where it knows one. */
export function enterprise({ message }: GoJsonError): string {
  return message === 'json: unknown field "Namespace"' ? " - Namespaces are a Consul Enterprise feature" : "";
}

function locality(body: LocalityBody | undefined): Locality | undefined {
  return body && { region: body.Region, zone: body.Zone };
}

const texted = (from: JsonObject, name: string): string => {
  const value = from[name];
  return typeof value === "string" ? value : "";
};

const upstreamForms = new KeptShape(upstreamShape);

/** About how long a service with this proxy takes in each step on its way into the catalog. */
export function fieldsOf({ Upstreams: upstreams }: JsonObject): number {
  return SERVICE_FIELDS + (isList(upstreams) ? UPSTREAM_FIELDS * upstreams.length : 0);
}

/** The proxy of a registration as the library has it. */
function proxyOf(body: JsonObject): ServiceRegistration["proxy"] {
  const { LocalServicePort: port, Config: config, Upstreams: upstreams, MeshGateway: gateway } = body;
  const extra = Object.entries(body).filter(([name]) => Object.hasOwn(proxyExtraShape, name));
  return {
    destinationServiceName: texted(body, "DestinationServiceName"),
    destinationServiceId: texted(body, "DestinationServiceID"),
    localServiceAddress: texted(body, "LocalServiceAddress"),
    localServicePort: typeof port === "number" ? port : 0,
    localServiceSocketPath: texted(body, "LocalServiceSocketPath"),
    mode: texted(body, "Mode"),
    config: isObject(config) ? config : undefined,
    upstreams: isList(upstreams) ? upstreams.filter(isObject).map((each) => upstreamForms.ownForm(each)) : [],
    meshGatewayMode: isObject(gateway) ? texted(gateway, "Mode") : "",
    extra: Object.fromEntries(extra),
  };
}

/** @throws {PeeringError} `invalid-registration`: a kind that there is not. */
export function serviceRegistration(body: ServiceBody): ServiceRegistration {
  const { Kind: kind, Proxy: proxy, Connect: connect } = body;
  requireKind(kind);
  const addresses = Object.entries(body.TaggedAddresses);
  return {
    ...plainFields(serviceTable, plainReading, { ...body }),
    kind,
    name: body.Service,
    ports: body.Ports.map(({ Name: name, Port: port, Default }) => ({ name, port, default: Default })),
    taggedAddresses: Object.fromEntries(
      addresses.map(([key, { Address: address, Port: port }]) => [key, { address, port }]),
    ),
    weights: body.Weights && { passing: body.Weights.Passing, warning: body.Weights.Warning },
    proxy: proxyOf(proxy),
    connect: {
      native: connect.Native,
      sidecarService: connect.SidecarService,
      peerMeta: connect.PeerMeta && {
        sni: connect.PeerMeta.SNI,
        spiffeId: connect.PeerMeta.SpiffeID,
        protocol: connect.PeerMeta.Protocol,
      },
    },
    locality: locality(body.Locality),
    peerName: body.PeerName,
  };
}

export function checkRegistration(body: CheckBody): CheckRegistration {
  return {
    node: body.Node,
    checkId: body.CheckID,
    name: body.Name,
    status: body.Status,
    notes: body.Notes,
    output: body.Output,
    serviceId: body.ServiceID,
    serviceName: body.ServiceName,
    serviceTags: body.ServiceTags,
    type: body.Type,
    interval: body.Interval,
    timeout: body.Timeout,
    exposedPort: body.ExposedPort,
    definition: body.Definition,
    peerName: body.PeerName,
  };
}

export function nodeRegistration(body: NodeBody): NodeRegistration {
  return {
    name: body.Node,
    id: body.ID,
    address: body.Address,
    datacenter: body.Datacenter,
    taggedAddresses: body.TaggedAddresses,
    meta: body.Meta,
    locality: locality(body.Locality),
    peerName: body.PeerName,
  };
}

/** @throws {HttpRefusal} as {@link serviceRegistration}. */
export function registrationOf(body: RegisterBody): Registration {
  return {
    node: body.Node,
    id: body.ID,
    address: body.Address,
    taggedAddresses: body.TaggedAddresses,
    nodeMeta: body.NodeMeta,
    datacenter: body.Datacenter,
    locality: locality(body.Locality),
    skipNodeUpdate: body.SkipNodeUpdate,
    service: body.Service && serviceRegistration(body.Service),
    check: body.Check && checkRegistration(body.Check),
    checks: body.Checks.map(checkRegistration),
    peerName: body.PeerName,
  };
}
