import { InvariantError } from "../base/errors.js";
import type { Steps } from "../base/steps.js";
import type { ChainNode, ChainOverrides, CompiledChain, ResolvedTarget } from "../config/chain.js";
import { compileChain } from "../config/chain.js";
import { customizationHash } from "../config/chain-customization.js";
import type { ConfigEntryKind } from "../model/entry-kinds.js";
import { readShape } from "../model/shape-reader.js";
import { entryShapes, type Field, type Shape } from "../model/shapes.js";
import { durationText } from "../syntax/go-duration.js";
import { firstValueSteps, type GoJson, GoObject, goAny, goMap, isGoObject, readGo } from "../syntax/go-json.js";
import type { Answer } from "./answer.js";
import { onlyChanges } from "./blocking.js";
import type { Call } from "./call.js";
import { ownDatacenter } from "./discovery-options.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import { type Json, writeJson } from "./json.js";
import { basisOf, RECORDS } from "./kept-answers.js";
import type { JsonSchema, Operation, ParameterDoc } from "./operation.js";
import {
  anyObject,
  datacenterParameter,
  flag,
  listOf,
  objectOf,
  readParameters,
  text,
  texts,
  textsByKey,
  textsOrNull,
} from "./operation-docs.js";
import { consistencyOf } from "./query.js";
import { fieldJson, fieldSchema, structSchema } from "./shape-json.js";

// Parts of Consul's entries, such as a route or a split, are written as in the entries themselves.

function memberOf(shape: Shape, name: string): Field {
  const field = shape[name];
  if (field === undefined) throw new InvariantError(`no ${name} in the shape`);
  return field;
}

function elementOf(kind: ConfigEntryKind, name: string): Field {
  const { as } = memberOf(entryShapes[kind], name);
  if (typeof as !== "object") throw new InvariantError(`${name} is no list`);
  return { as: { many: "one", shape: as.shape } };
}

const route = elementOf("service-router", "Routes");
const split = elementOf("service-splitter", "Splits");
const subset = elementOf("service-resolver", "Subsets");
const loadBalancer = memberOf(entryShapes["service-resolver"], "LoadBalancer");
const failoverPolicy = memberOf(entryShapes["proxy-defaults"], "FailoverPolicy");
const extensions = memberOf(entryShapes["proxy-defaults"], "EnvoyExtensions");

const NANOSECONDS = 1_000_000;
const DEFAULT = "default";

function kept(value: unknown, field: Field): Json | undefined {
  return value === undefined ? undefined : fieldJson(value, field, "consul");
}

function absentIf(empty: boolean, json: Json): Json | undefined {
  return empty ? undefined : json;
}

function nodeJson(node: ChainNode): Json {
  const { type: Type, name: Name } = node;
  switch (node.type) {
    case "router":
      return {
        Type,
        Name,
        Routes: node.routes.map(({ definition, next }) => ({
          Definition: fieldJson(definition, route),
          NextNode: next,
        })),
      };
    case "splitter":
      return {
        Type,
        Name,
        Splits: node.splits.map(({ definition, weight, next }) => ({
          Definition: fieldJson(definition, split),
          Weight: absentIf(weight === 0, weight),
          NextNode: next,
        })),
        LoadBalancer: kept(node.loadBalancer, loadBalancer),
      };
    case "resolver":
      return {
        Type,
        Name,
        Resolver: {
          ConnectTimeout: durationText(node.connectTimeoutMs),
          Default: absentIf(!node.isDefault, true),
          // A number of nanoseconds, unlike the other one.
          RequestTimeout: absentIf(node.requestTimeoutMs === 0, node.requestTimeoutMs * NANOSECONDS),
          Target: node.target,
          Failover: node.failover && {
            Targets: node.failover.targets,
            Policy: kept(node.failover.policy, failoverPolicy),
          },
        },
        LoadBalancer: kept(node.loadBalancer, loadBalancer),
      };
  }
}

function targetJson(call: Call, target: ResolvedTarget): Json {
  const { id, service, subset: subsetName, datacenter, peer, externalSni, meshGateway, dialedDirectly } = target;
  const { trustDomain, peerings } = call.host;
  const prefix = subsetName === "" ? "" : `${subsetName}.`;
  const sni = peer === "" ? `${prefix}${service}.${DEFAULT}.${datacenter}.internal.${trustDomain}` : undefined;
  const locality = peer === "" ? undefined : peerings.read(peer)?.remote.locality;
  return {
    ConnectTimeout: durationText(target.connectTimeoutMs),
    ID: id,
    Service: service,
    ServiceSubset: absentIf(subsetName === "", subsetName),
    Namespace: DEFAULT,
    Partition: DEFAULT,
    Datacenter: absentIf(datacenter === "", datacenter),
    Peer: absentIf(peer === "", peer),
    Locality: locality && { Region: locality.region, Zone: locality.zone },
    MeshGateway: { Mode: absentIf(meshGateway === "", meshGateway) },
    Subset: fieldJson(target.subsetDefinition, subset),
    TransparentProxy: { DialedDirectly: absentIf(!dialedDirectly, true) },
    External: absentIf(externalSni === undefined, true),
    SNI: externalSni ?? sni,
    Name: sni,
  };
}

function chainJson(call: Call, chain: CompiledChain, overrides: ChainOverrides): Json {
  const { catalog } = call.host;
  const address = catalog.virtualIp(chain.service);
  const hash = customizationHash(chain, overrides);
  return {
    Chain: {
      ServiceName: chain.service,
      Namespace: DEFAULT,
      Partition: DEFAULT,
      Datacenter: chain.datacenter,
      CustomizationHash: absentIf(hash === "", hash),
      Default: absentIf(!chain.isDefault, true),
      Protocol: chain.protocol,
      ServiceMeta: chain.meta && new Map(Object.entries(chain.meta)),
      EnvoyExtensions: chain.extensions.length === 0 ? undefined : kept(chain.extensions, extensions),
      StartNode: chain.start,
      Nodes: new Map([...chain.nodes].map(([key, node]): [string, Json] => [key, nodeJson(node)])),
      Targets: new Map(chain.targets.map((target): [string, Json] => [target.id, targetJson(call, target)])),
      AutoVirtualIPs: address === undefined ? null : [address],
      ManualVirtualIPs: address === undefined ? null : catalog.manualVirtualIps(chain.service),
    },
  };
}

/** The overrides that a POST may contain. */
const overrideShape: Shape = {
  OverrideMeshGateway: { as: { many: "one", shape: { Mode: { as: "text" } } } },
  OverrideProtocol: { as: "text" },
  OverrideConnectTimeout: { as: "nanoseconds" },
};
const MODES: ReadonlySet<unknown> = new Set(["", "none", "local", "remote"]);

/** @throws {HttpRefusal} 400 with Consul's text. Keys that it does not know are passed over, as by Consul. */
async function overridesIn(call: Call): Promise<ChainOverrides> {
  const refused = (why: string): HttpRefusal => badRequest(`Request decoding failed: ${why}`);
  function* read(body: Buffer): Steps<GoJson> {
    const value = (yield* firstValueSteps(body)) ?? new GoObject([]);
    if (!isGoObject(value)) readGo(value, goMap(goAny));
    return value;
  }
  const given = await call.decoded(read, ({ message }) => refused(message));
  if (!isGoObject(given)) throw refused("not an object");
  const { fields, mismatches } = readShape(given, overrideShape);
  if (mismatches.length > 0) {
    throw refused(`${mismatches.length} error(s) decoding:\n\n${mismatches.map((each) => `* ${each}`).join("\n")}`);
  }
  const { overrideMeshGateway: gateway, overrideProtocol: protocol, overrideConnectTimeout: nanoseconds } = fields;
  const mode = gateway !== null && typeof gateway === "object" && "mode" in gateway ? gateway["mode"] : "";
  if (!MODES.has(mode)) throw badRequest("Invalid OverrideMeshGateway.Mode parameter");
  return {
    ...(typeof mode === "string" && mode !== "" && { meshGateway: mode }),
    ...(typeof protocol === "string" && protocol !== "" && { protocol }),
    ...(typeof nanoseconds === "number" && nanoseconds > 0 && { connectTimeoutMs: nanoseconds / NANOSECONDS }),
  };
}

const CHAIN_KINDS: ReadonlySet<ConfigEntryKind> = new Set([
  "proxy-defaults",
  "service-defaults",
  "service-resolver",
  "service-router",
  "service-splitter",
]);

async function readChain(call: Call): Promise<Answer> {
  const options = call.readOptions();
  const service = call.rest;
  if (service === "") throw badRequest("Missing chain name");
  call.refusePartition();
  call.refuseNamespace();
  const overrides = call.method === "POST" ? await overridesIn(call) : {};
  ownDatacenter(call);
  await call.require({ resource: "service", access: "read", name: service });
  const { configEntries, datacenter } = call.host;
  const from = call.query.get("compile-dc") || datacenter;
  const query = {
    read: () => {
      const chain = compileChain(configEntries.entries, service, from, overrides);
      if (chain.problem !== undefined) {
        throw new HttpRefusal(500, `failed to compile discovery chain: ${chain.problem}`);
      }
      return { index: configEntries.index, result: chainJson(call, chain, overrides) };
    },
    subscribe: (wake: () => void) =>
      configEntries.onChange(({ kind }) => {
        if (CHAIN_KINDS.has(kind)) wake();
      }),
  };
  const changes = onlyChanges(query, options.minIndex, (json) => writeJson(json));
  // Of the catalog it tells the virtual addresses of the service.
  const basis = basisOf(["config-entries", "peerings"], () => [call.host.catalog.index.virtualIps]);
  return call.answer(options, changes, async ({ index, result }) => ({
    json: result,
    read: { index, consistency: consistencyOf(options) },
    basis,
  }));
}

const nodeSchema: JsonSchema = {
  ...objectOf({
    Type: { type: "string", enum: ["router", "splitter", "resolver"] },
    Name: text,
    "Routes?": listOf(objectOf({ Definition: fieldSchema(route), NextNode: text })),
    "Splits?": listOf(objectOf({ Definition: fieldSchema(split), "Weight?": { type: "number" }, NextNode: text })),
    "Resolver?": objectOf({
      ConnectTimeout: text,
      "Default?": flag,
      "RequestTimeout?": { type: "number" },
      Target: text,
      "Failover?": objectOf({ Targets: texts, "Policy?": anyObject }),
    }),
    "LoadBalancer?": anyObject,
  }),
};

const targetSchema: JsonSchema = objectOf({
  ConnectTimeout: text,
  ID: text,
  Service: text,
  "ServiceSubset?": text,
  Namespace: text,
  Partition: text,
  "Datacenter?": text,
  "Peer?": text,
  "Locality?": objectOf({ Region: text, Zone: text }),
  MeshGateway: objectOf({ "Mode?": text }),
  Subset: fieldSchema(subset),
  TransparentProxy: objectOf({ "DialedDirectly?": flag }),
  "External?": flag,
  "SNI?": text,
  "Name?": text,
});

const answer: JsonSchema = objectOf({
  Chain: objectOf({
    ServiceName: text,
    Namespace: text,
    Partition: text,
    Datacenter: text,
    "CustomizationHash?": text,
    "Default?": flag,
    Protocol: text,
    "ServiceMeta?": textsByKey,
    "EnvoyExtensions?": fieldSchema(extensions),
    StartNode: text,
    Nodes: { type: "object", additionalProperties: nodeSchema },
    Targets: { type: "object", additionalProperties: targetSchema },
    AutoVirtualIPs: textsOrNull,
    ManualVirtualIPs: textsOrNull,
  }),
});

const compileParameter: ParameterDoc = {
  name: "compile-dc",
  in: "query",
  description: "From which datacenter the chain is followed. Default: ours.",
};

const PATTERN = "/v1/discovery-chain/";
const PATH = `${PATTERN}{service}`;

/** Where requests for a service go, compiled from its entries: `/v1/discovery-chain`. */
export const discoveryChainOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: PATTERN,
    sources: RECORDS,
    cacheable: true,
    run: readChain,
    docs: [
      {
        path: PATH,
        id: "readDiscoveryChain",
        summary:
          "Where requests for a service go: router, splitters and resolvers, as a graph with the targets it leads to.",
        parameters: [...readParameters, compileParameter, datacenterParameter],
        answer,
      },
    ],
  },
  {
    method: "POST",
    pattern: PATTERN,
    cacheable: true,
    run: readChain,
    docs: [
      {
        path: PATH,
        id: "readOverriddenDiscoveryChain",
        summary: "The same, with protocol, timeout or mesh gateways in place of those of the entries.",
        parameters: [...readParameters, compileParameter, datacenterParameter],
        body: structSchema(overrideShape, "body"),
        answer,
      },
    ],
  },
];
