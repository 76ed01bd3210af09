import type {
  Connect,
  JsonObject,
  JsonValue,
  Proxy as ProxyDefinition,
  ServiceAddress,
  Weights,
} from "../model/instance.js";
import { isList, isObject } from "../model/kept-members.js";
import { ownName, proxyExtraShape, type Shape, upstreamShape } from "../model/shapes.js";
import type { NodeContents } from "./discovery.js";
import {
  bool,
  type Field,
  type Fields,
  integer,
  struct,
  structList,
  structMap,
  text,
  textList,
  textMap,
} from "./filter/fields.js";
import type { CheckView, InstanceView, NodeView, ServiceView } from "./records-json.js";

// What filters may name in each kind of record (Consul 1.21).

const addressFields: Fields<ServiceAddress> = {
  Address: text(({ address }) => address),
  Port: integer(({ port }) => port),
};

const weightFields: Fields<Weights> = {
  Passing: integer(({ passing }) => passing),
  Warning: integer(({ warning }) => warning),
};

function member(object: JsonObject, key: string): JsonValue | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

function textOf(value: JsonValue | undefined): string {
  return typeof value === "string" ? value : "";
}

function integerOf(value: JsonValue | undefined): number {
  return typeof value === "number" && Number.isSafeInteger(value) ? value : 0;
}

/** The fields of a record by its shape, under the library's names or Consul's; what has no fixed form cannot be named. */
function shapeFields<Item>(
  shape: Shape,
  recordOf: (item: Item) => JsonValue | undefined,
  nameOf: (name: string) => string,
): Fields<Item> {
  const fields: Record<string, Field<Item>> = {};
  for (const [name, { as }] of Object.entries(shape)) {
    const of = (item: Item): JsonValue | undefined => {
      const record = recordOf(item);
      return isObject(record) ? member(record, nameOf(name)) : undefined;
    };
    const itself = (value: JsonValue | undefined): JsonValue | undefined => value;
    if (as === "text") fields[name] = text((item) => textOf(of(item)));
    else if (as === "flag") fields[name] = bool((item) => of(item) === true);
    else if (as === "int") fields[name] = integer((item) => integerOf(of(item)));
    else if (typeof as === "object" && as.many === "one") {
      fields[name] = struct(of, shapeFields(as.shape, itself, nameOf));
    } else if (typeof as === "object" && as.many === "list") {
      fields[name] = structList((item: Item) => listOf(of(item)), shapeFields(as.shape, itself, nameOf));
    }
  }
  return fields;
}

function listOf(value: JsonValue | undefined): readonly JsonValue[] {
  return isList(value) ? value : [];
}

// Filters cannot name the origin of an upstream, in Consul either.
const { CentrallyConfigured: _, ...upstreamFields } = shapeFields(
  upstreamShape,
  (upstream: JsonObject) => upstream,
  ownName,
);

const proxyFields: Fields<ProxyDefinition | undefined> = {
  DestinationServiceName: text((proxy) => proxy?.destinationServiceName ?? ""),
  DestinationServiceID: text((proxy) => proxy?.destinationServiceId ?? ""),
  LocalServiceAddress: text((proxy) => proxy?.localServiceAddress ?? ""),
  LocalServicePort: integer((proxy) => proxy?.localServicePort ?? 0),
  LocalServiceSocketPath: text((proxy) => proxy?.localServiceSocketPath ?? ""),
  Mode: text((proxy) => proxy?.mode ?? ""),
  Upstreams: structList((proxy) => proxy?.upstreams ?? [], upstreamFields),
  MeshGateway: struct((proxy: ProxyDefinition | undefined) => proxy, {
    Mode: text((proxy) => proxy?.meshGatewayMode ?? ""),
  }),
  ...shapeFields(
    proxyExtraShape,
    (proxy: ProxyDefinition | undefined) => proxy?.extra,
    (name) => name,
  ),
};

const connectFields: Fields<Connect | undefined> = { Native: bool((connect) => connect?.native ?? false) };

export const nodeFields: Fields<NodeView> = {
  ID: text(({ node }) => node.id),
  Node: text(({ node }) => node.name),
  Address: text(({ node }) => node.address),
  Datacenter: text(({ node }) => node.datacenter),
  PeerName: text(({ peer }) => peer),
  TaggedAddresses: textMap(({ node }) => node.taggedAddresses),
  Meta: textMap(({ node }) => node.meta),
};

export const serviceFields: Fields<ServiceView> = {
  Kind: text(({ service }) => service.kind),
  ID: text(({ service }) => service.id),
  Service: text(({ service }) => service.name),
  Tags: textList(({ service }) => service.tags),
  Address: text(({ service }) => service.address),
  TaggedAddresses: structMap(({ service }) => service.taggedAddresses, addressFields),
  Meta: textMap(({ service }) => service.meta),
  Port: integer(({ service }) => service.port),
  SocketPath: text(({ service }) => service.socketPath),
  Weights: struct(({ service }) => service.weights, weightFields),
  EnableTagOverride: bool(({ service }) => service.enableTagOverride),
  Proxy: struct(({ service }) => service.proxy, proxyFields),
  Connect: struct(({ service }) => service.connect, connectFields),
  PeerName: text(({ peer }) => peer),
};

export const checkFields: Fields<CheckView> = {
  Node: text(({ check }) => check.node),
  CheckID: text(({ check }) => check.checkId),
  Name: text(({ check }) => check.name),
  Status: text(({ check }) => check.status),
  Notes: text(({ check }) => check.notes),
  Output: text(({ check }) => check.output),
  ServiceID: text(({ check }) => check.serviceId),
  ServiceName: text(({ check }) => check.serviceName),
  ServiceTags: textList(({ check }) => check.serviceTags),
  Type: text(({ check }) => check.type),
  Interval: text(({ check }) => check.interval),
  Timeout: text(({ check }) => check.timeout),
  ExposedPort: integer(({ check }) => check.exposedPort),
  PeerName: text(({ peer }) => peer),
};

export const instanceFields: Fields<InstanceView> = {
  Node: struct((view) => view, nodeFields),
  Service: struct((view) => view, serviceFields),
  Checks: structList(({ peer, checks }) => checks.map((check) => ({ peer, check })), checkFields),
};

export const flatFields: Fields<NodeView & ServiceView> = {
  ID: text(({ node }) => node.id),
  Node: text(({ node }) => node.name),
  Address: text(({ node }) => node.address),
  Datacenter: text(({ node }) => node.datacenter),
  TaggedAddresses: textMap(({ node }) => node.taggedAddresses),
  NodeMeta: textMap(({ node }) => node.meta),
  ServiceKind: text(({ service }) => service.kind),
  ServiceID: text(({ service }) => service.id),
  ServiceName: text(({ service }) => service.name),
  ServiceTags: textList(({ service }) => service.tags),
  ServiceAddress: text(({ service }) => service.address),
  ServiceTaggedAddresses: structMap(({ service }) => service.taggedAddresses, addressFields),
  ServiceWeights: struct(({ service }) => service.weights, weightFields),
  ServiceMeta: textMap(({ service }) => service.meta),
  ServicePort: integer(({ service }) => service.port),
  ServiceSocketPath: text(({ service }) => service.socketPath),
  ServiceEnableTagOverride: bool(({ service }) => service.enableTagOverride),
  ServiceProxy: struct(({ service }) => service.proxy, proxyFields),
  ServiceConnect: struct(({ service }) => service.connect, connectFields),
  PeerName: text(({ peer }) => peer),
};

export const nodeContentsFields: Fields<NodeContents> = {
  ID: text(({ node }) => node.node.id),
  Node: text(({ node }) => node.node.name),
  Address: text(({ node }) => node.node.address),
  PeerName: text(({ node }) => node.peer),
  TaggedAddresses: textMap(({ node }) => node.node.taggedAddresses),
  Meta: textMap(({ node }) => node.node.meta),
  Services: structList(({ services }) => [...services], serviceFields),
  Checks: structList(({ checks }) => [...checks], checkFields),
};
