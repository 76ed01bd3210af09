import { PeeringError } from "../base/errors.js";
import { doAll, type Steps } from "../base/steps.js";
import { sameCheck, sameNode, sameService } from "../model/equality.js";
import {
  type Check,
  type Connect,
  emptyProxy,
  type JsonObject,
  type JsonValue,
  type Locality,
  MAX_JSON_DEPTH,
  type Node,
  type Proxy as ProxyDefinition,
  type Service,
  type ServiceAddress,
  type ServiceInstance,
  type ServicePort,
  type StringMap,
  type Weights,
} from "../model/instance.js";
import { defaultPort } from "../model/ports.js";
import {
  addressTable,
  checkTable,
  emptyService,
  localityTable,
  nodeTable,
  portTable,
  serviceTable,
} from "../model/records.js";
import { lowerCase } from "../syntax/names.js";
import { fixed64Tag, lengthTag, ProtobufReader, varintTag } from "../wire/protobuf.js";
import { Field, MapEntry, Struct, StructList, StructValue } from "./field-numbers.js";

/** A node in the form of a payload. */
export interface EncodedNode {
  /** A `Node` message. */
  readonly record: Uint8Array;
  /** `HealthCheck` messages of the node itself; usually none. */
  readonly checks: readonly Uint8Array[];
}

/** A node with its own checks, decoded. */
export interface DecodedNode {
  readonly node: Node;
  readonly checks: readonly Check[];
}

/** @throws {PeeringError} `invalid-message`: never for what `inspectPayload` found good. */
export function decodeNode(encoded: EncodedNode): DecodedNode {
  const node = readNode(new ProtobufReader(encoded.record));
  const checks = new Map<string, Check>();
  for (const bytes of encoded.checks) putCheck(checks, readCheck(new ProtobufReader(bytes), node.name));
  return { node, checks: [...checks.values()] };
}

/**
 * The instances of a payload, normalised: of instances that appear twice the first counts, of checks the last; service
 * checks take the service's name and tags, as in Consul 1.13 to 1.22. Fields of a proxy that only the exporter's mesh uses
 * (upstreams, exposed paths, extensions) and definitions of checks are left out; Consul sends neither.
 *
 * @param nodeOf - the node from another source, by its lower-cased name; without it, or where it answers
 *   undefined, the payload's own copy is taken.
 * @throws {PeeringError} `invalid-message`: never for what `inspectPayload` found good.
 */
export function decodePayload(value: Uint8Array, nodeOf: NodeOf = noNode): readonly ServiceInstance[] {
  return doAll(decodeSteps(value, nodeOf));
}

/** A node from another source, by its lower-cased name. */
export type NodeOf = (name: string) => DecodedNode | undefined;

const noNode: NodeOf = () => undefined;

/** As {@link decodePayload}, in steps. */
export function* decodeSteps(value: Uint8Array, nodeOf: NodeOf = noNode): Steps<readonly ServiceInstance[]> {
  const nodes = new Map<string, PayloadNode>();
  const instances: { readonly of: PayloadNode; readonly id: string; readonly service: Service }[] = [];
  const reader = new ProtobufReader(value);
  let stepAt = DECODED_BYTES;
  while (!reader.done) {
    if (reader.position >= stepAt) {
      stepAt = reader.position + DECODED_BYTES;
      yield;
    }
    const tag = reader.tag();
    if (tag !== lengthTag(Field.ExportedService.Nodes)) {
      reader.skip(tag);
      continue;
    }
    const decoded = readInstance(reader.message());
    const key = lowerCase(decoded.node.name);
    let of = nodes.get(key);
    if (of === undefined) {
      const known = nodeOf(key);
      of = {
        node: known?.node ?? decoded.node,
        nodeChecks: known?.checks,
        services: new Set(),
        checks: new Map(),
        byService: undefined,
      };
      nodes.set(key, of);
    }
    for (const check of decoded.checks) putCheck(of.checks, { ...check, node: of.node.name });
    const id = lowerCase(decoded.service.id);
    if (of.services.has(id)) continue;
    of.services.add(id);
    instances.push({ of, id, service: decoded.service });
  }
  const decoded: ServiceInstance[] = [];
  for (const { of, id, service } of instances) {
    if (decoded.length % DECODED_BATCH === DECODED_BATCH - 1) yield;
    of.byService ??= byService(of.checks);
    const nodeChecks = of.nodeChecks ?? of.byService.get("") ?? [];
    const serviceChecks = of.byService.get(id) ?? [];
    const named = serviceChecks.map((check) => ({ ...check, serviceName: service.name, serviceTags: service.tags }));
    decoded.push({ node: of.node, service, checks: named.length === 0 ? nodeChecks : [...nodeChecks, ...named] });
  }
  return decoded;
}

function byService(checks: ReadonlyMap<string, Check>): ReadonlyMap<string, readonly Check[]> {
  const found = new Map<string, Check[]>();
  for (const check of checks.values()) {
    const id = lowerCase(check.serviceId);
    const known = found.get(id);
    if (known === undefined) found.set(id, [check]);
    else known.push(check);
  }
  return found;
}

/** Decoded in one step: a millisecond, and a few where code runs for the first time. */
const DECODED_BYTES = 32 * 1024;
const DECODED_BATCH = 500;

interface PayloadNode {
  readonly node: Node;
  /** Those known from elsewhere; undefined: the payload's own count. */
  readonly nodeChecks: readonly Check[] | undefined;
  readonly services: Set<string>;
  /** Of the node and of its services, by lower-cased id. */
  readonly checks: Map<string, Check>;
  /** The same by lower-cased service id, once all are there; under `""` those of the node. */
  byService: ReadonlyMap<string, readonly Check[]> | undefined;
}

function putCheck(checks: Map<string, Check>, check: Check): void {
  checks.set(lowerCase(check.checkId), check);
}

function readInstance(reader: ProtobufReader): ServiceInstance {
  let node = nodeTable.empty;
  let service = serviceTable.empty;
  const checks: Check[] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.CheckServiceNode.Node)) node = readNode(reader.message());
    else if (tag === lengthTag(Field.CheckServiceNode.Service)) service = readService(reader.message());
    else if (tag === lengthTag(Field.CheckServiceNode.Checks)) checks.push(readCheck(reader.message(), ""));
    else reader.skip(tag);
  }
  return { node, service, checks };
}

/** Without locality, which an importer does not keep of nodes. */
function readNode(reader: ProtobufReader): Node {
  let { id, name, address, datacenter } = nodeTable.empty;
  const taggedAddresses: [string, string][] = [];
  const meta: [string, string][] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.Node.ID)) id = reader.string();
    else if (tag === lengthTag(Field.Node.Node)) name = reader.string();
    else if (tag === lengthTag(Field.Node.Address)) address = reader.string();
    else if (tag === lengthTag(Field.Node.Datacenter)) datacenter = reader.string();
    else if (tag === lengthTag(Field.Node.TaggedAddresses))
      taggedAddresses.push(readMapEntry(reader.message(), readText, ""));
    else if (tag === lengthTag(Field.Node.Meta)) meta.push(readMapEntry(reader.message(), readText, ""));
    else reader.skip(tag);
  }
  return { id, name, address, datacenter, taggedAddresses: textMap(taggedAddresses), meta: textMap(meta) };
}

function readService(reader: ProtobufReader): Service {
  let { kind, id, name, address, port, socketPath, weights, enableTagOverride } = serviceTable.empty;
  const tags: string[] = [];
  const meta: [string, string][] = [];
  const taggedAddresses: [string, ServiceAddress][] = [];
  const ports: ServicePort[] = [];
  let proxy: ProxyDefinition = emptyProxy;
  let connect: Connect | undefined;
  let locality: Locality | undefined;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.NodeService.Kind)) kind = reader.string();
    else if (tag === lengthTag(Field.NodeService.ID)) id = reader.string();
    else if (tag === lengthTag(Field.NodeService.Service)) name = reader.string();
    else if (tag === lengthTag(Field.NodeService.Tags)) tags.push(reader.string());
    else if (tag === lengthTag(Field.NodeService.Address)) address = reader.string();
    else if (tag === lengthTag(Field.NodeService.Meta)) meta.push(readMapEntry(reader.message(), readText, ""));
    else if (tag === varintTag(Field.NodeService.Port)) port = reader.int32();
    else if (tag === lengthTag(Field.NodeService.Weights)) weights = readWeights(reader.message());
    else if (tag === varintTag(Field.NodeService.EnableTagOverride)) enableTagOverride = reader.bool();
    else if (tag === lengthTag(Field.NodeService.Proxy)) proxy = readProxy(reader.message(), proxy);
    else if (tag === lengthTag(Field.NodeService.Connect)) connect = readConnect(reader.message(), connect);
    else if (tag === lengthTag(Field.NodeService.TaggedAddresses)) {
      taggedAddresses.push(readMapEntry(reader.message(), readAddress, addressTable.empty));
    } else if (tag === lengthTag(Field.NodeService.SocketPath)) socketPath = reader.string();
    else if (tag === lengthTag(Field.NodeService.Locality)) locality = readLocality(reader.message(), locality);
    else if (tag === lengthTag(Field.NodeService.Ports)) ports.push(readPort(reader.message()));
    else reader.skip(tag);
  }
  // Fields that do not cross the wire have their defaults.
  const service = emptyService();
  service.kind = kind;
  service.id = id;
  service.name = name;
  service.tags = tags;
  service.address = address;
  service.port = port === 0 ? defaultPort(ports) : port;
  service.socketPath = socketPath;
  service.taggedAddresses = Object.fromEntries(taggedAddresses);
  service.meta = textMap(meta);
  service.weights = weights;
  service.enableTagOverride = enableTagOverride;
  // Present and empty means the same as absent.
  if (ports.length > 0) service.ports = ports;
  if (!isEmptyProxy(proxy)) service.proxy = proxy;
  if (connect !== undefined && (connect.native || connect.peerMeta !== undefined)) service.connect = connect;
  if (locality !== undefined && (locality.region !== "" || locality.zone !== "")) service.locality = locality;
  return service;
}

function readCheck(reader: ProtobufReader, node: string): Check {
  let { checkId, name, status, notes, output, serviceId, serviceName, type, interval, timeout, exposedPort } =
    checkTable.empty;
  const serviceTags: string[] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.HealthCheck.CheckID)) checkId = reader.string();
    else if (tag === lengthTag(Field.HealthCheck.Name)) name = reader.string();
    else if (tag === lengthTag(Field.HealthCheck.Status)) status = reader.string();
    else if (tag === lengthTag(Field.HealthCheck.Notes)) notes = reader.string();
    else if (tag === lengthTag(Field.HealthCheck.Output)) output = reader.string();
    else if (tag === lengthTag(Field.HealthCheck.ServiceID)) serviceId = reader.string();
    else if (tag === lengthTag(Field.HealthCheck.ServiceName)) serviceName = reader.string();
    else if (tag === lengthTag(Field.HealthCheck.ServiceTags)) serviceTags.push(reader.string());
    else if (tag === lengthTag(Field.HealthCheck.Type)) type = reader.string();
    else if (tag === varintTag(Field.HealthCheck.ExposedPort)) exposedPort = reader.int32();
    else if (tag === lengthTag(Field.HealthCheck.Interval)) interval = reader.string();
    else if (tag === lengthTag(Field.HealthCheck.Timeout)) timeout = reader.string();
    else reader.skip(tag);
  }
  return {
    node,
    checkId,
    name,
    // As the store of Consul does with a check that has none.
    status: status === "" ? "critical" : status,
    notes,
    output,
    serviceId,
    serviceName,
    serviceTags,
    type,
    interval,
    timeout,
    exposedPort,
    definition: {},
  };
}

function readText(reader: ProtobufReader): string {
  return reader.string();
}

function readMapEntry<Value>(
  reader: ProtobufReader,
  readValue: (reader: ProtobufReader) => Value,
  missing: Value,
): [string, Value] {
  let key = "";
  let value = missing;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(MapEntry.Key)) key = reader.string();
    else if (tag === lengthTag(MapEntry.Value)) value = readValue(reader);
    else reader.skip(tag);
  }
  return [key, value];
}

/** Safe for any key: no key collides with a property of objects. */
function textMap(entries: readonly [string, string][]): StringMap {
  return entries.length === 0 ? {} : Object.fromEntries(entries);
}

function readAddress(parent: ProtobufReader): ServiceAddress {
  const reader = parent.message();
  let address = "";
  let port = 0;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.ServiceAddress.Address)) address = reader.string();
    else if (tag === varintTag(Field.ServiceAddress.Port)) port = reader.int32();
    else reader.skip(tag);
  }
  return { address, port };
}

/** @internal */
export function readPort(reader: ProtobufReader): ServicePort {
  let { name, port, default: isDefault } = portTable.empty;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === varintTag(Field.ServicePort.Port)) port = reader.int32();
    else if (tag === lengthTag(Field.ServicePort.Name)) name = reader.string();
    else if (tag === varintTag(Field.ServicePort.Default)) isDefault = reader.bool();
    else reader.skip(tag);
  }
  return { name, port, default: isDefault };
}

function readWeights(reader: ProtobufReader): Weights {
  let passing = 0;
  let warning = 0;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === varintTag(Field.Weights.Passing)) passing = reader.int32();
    else if (tag === varintTag(Field.Weights.Warning)) warning = reader.int32();
    else reader.skip(tag);
  }
  return { passing, warning };
}

/** @internal */
export function readLocality(reader: ProtobufReader, before?: Locality): Locality {
  let { region, zone } = before ?? localityTable.empty;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.Locality.Region)) region = reader.string();
    else if (tag === lengthTag(Field.Locality.Zone)) zone = reader.string();
    else reader.skip(tag);
  }
  return { region, zone };
}

function isEmptyProxy(proxy: ProxyDefinition): boolean {
  return (
    proxy.destinationServiceName === "" &&
    proxy.destinationServiceId === "" &&
    proxy.localServiceAddress === "" &&
    proxy.localServicePort === 0 &&
    proxy.localServiceSocketPath === "" &&
    proxy.mode === "" &&
    proxy.meshGatewayMode === "" &&
    proxy.config === undefined
  );
}

/** @internal What `before` holds and the message does not change is kept: a message that comes twice is merged. */
export function readProxy(reader: ProtobufReader, before: ProxyDefinition = emptyProxy): ProxyDefinition {
  let { destinationServiceName, destinationServiceId, localServiceAddress, localServicePort } = before;
  let { localServiceSocketPath, mode, meshGatewayMode, config } = before;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.ConnectProxyConfig.DestinationServiceName)) destinationServiceName = reader.string();
    else if (tag === lengthTag(Field.ConnectProxyConfig.DestinationServiceID)) destinationServiceId = reader.string();
    else if (tag === lengthTag(Field.ConnectProxyConfig.LocalServiceAddress)) localServiceAddress = reader.string();
    else if (tag === varintTag(Field.ConnectProxyConfig.LocalServicePort)) localServicePort = reader.int32();
    else if (tag === lengthTag(Field.ConnectProxyConfig.Config)) config = readStruct(reader.message(), 0);
    else if (tag === lengthTag(Field.ConnectProxyConfig.MeshGateway)) meshGatewayMode = readFirstText(reader.message());
    else if (tag === lengthTag(Field.ConnectProxyConfig.Mode)) mode = reader.string();
    else if (tag === lengthTag(Field.ConnectProxyConfig.LocalServiceSocketPath))
      localServiceSocketPath = reader.string();
    else reader.skip(tag);
  }
  return {
    destinationServiceName,
    destinationServiceId,
    localServiceAddress,
    localServicePort,
    localServiceSocketPath,
    mode,
    meshGatewayMode,
    ...(config === undefined || Object.keys(config).length === 0 ? {} : { config }),
  };
}

/** A message of which field 1 alone matters. */
function readFirstText(reader: ProtobufReader): string {
  let found = "";
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.MeshGatewayConfig.Mode)) found = reader.string();
    else reader.skip(tag);
  }
  return found;
}

/** @internal */
export function readConnect(reader: ProtobufReader, before?: Connect): Connect {
  let native = before?.native ?? false;
  let peerMeta = before?.peerMeta;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === varintTag(Field.ServiceConnect.Native)) native = reader.bool();
    else if (tag === lengthTag(Field.ServiceConnect.PeerMeta)) peerMeta = readPeerMeta(reader.message());
    else reader.skip(tag);
  }
  return { native, ...(peerMeta === undefined ? {} : { peerMeta }) };
}

function readPeerMeta(reader: ProtobufReader): NonNullable<Connect["peerMeta"]> {
  const sni: string[] = [];
  const spiffeId: string[] = [];
  let protocol = "";
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Field.PeeringServiceMeta.SNI)) sni.push(reader.string());
    else if (tag === lengthTag(Field.PeeringServiceMeta.SpiffeID)) spiffeId.push(reader.string());
    else if (tag === lengthTag(Field.PeeringServiceMeta.Protocol)) protocol = reader.string();
    else reader.skip(tag);
  }
  return { sni, spiffeId, protocol };
}

/** @param depth - lists and objects that it is in. */
function readStruct(reader: ProtobufReader, depth: number): JsonObject {
  boundDepth(depth);
  const fields: [string, JsonValue][] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(Struct.Fields)) {
      fields.push(readMapEntry(reader.message(), (inner) => readJson(inner.message(), depth + 1), null));
    } else reader.skip(tag);
  }
  return Object.fromEntries(fields);
}

/** A `google.protobuf.Value`. */
function readJson(reader: ProtobufReader, depth: number): JsonValue {
  let value: JsonValue = null;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === varintTag(StructValue.Null)) {
      reader.uint32();
      value = null;
    } else if (tag === fixed64Tag(StructValue.Number)) value = reader.double();
    else if (tag === lengthTag(StructValue.Text)) value = reader.string();
    else if (tag === varintTag(StructValue.Flag)) value = reader.bool();
    else if (tag === lengthTag(StructValue.Struct)) value = readStruct(reader.message(), depth);
    else if (tag === lengthTag(StructValue.List)) value = readJsonList(reader.message(), depth);
    else reader.skip(tag);
  }
  return value;
}

function readJsonList(reader: ProtobufReader, depth: number): readonly JsonValue[] {
  boundDepth(depth);
  const values: JsonValue[] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === lengthTag(StructList.Values)) values.push(readJson(reader.message(), depth + 1));
    else reader.skip(tag);
  }
  return values;
}

function boundDepth(depth: number): void {
  if (depth < MAX_JSON_DEPTH) return;
  throw new PeeringError("invalid-message", `a struct is nested too deeply (limit: ${MAX_JSON_DEPTH} levels)`);
}

/** The changes of a service's instances, matched by node name and service id without case. */
export interface InstanceDiff {
  readonly added: readonly ServiceInstance[];
  /** As they are now. */
  readonly changed: readonly ServiceInstance[];
  /** As they were. */
  readonly removed: readonly ServiceInstance[];
}

/** Compared as Consul compares a write with the stored record. */
export function diffInstances(before: readonly ServiceInstance[], after: readonly ServiceInstance[]): InstanceDiff {
  const gone = new Map(before.map((instance) => [instanceKey(instance), instance]));
  const added: ServiceInstance[] = [];
  const changed: ServiceInstance[] = [];
  for (const instance of after) {
    const key = instanceKey(instance);
    const known = gone.get(key);
    gone.delete(key);
    if (known === undefined) added.push(instance);
    else if (known !== instance && !sameInstance(known, instance)) changed.push(instance);
  }
  return { added, changed, removed: [...gone.values()] };
}

function instanceKey(instance: ServiceInstance): string {
  return `${lowerCase(instance.node.name)}\0${lowerCase(instance.service.id)}`;
}

function sameInstance(left: ServiceInstance, right: ServiceInstance): boolean {
  if (!sameNode(left.node, right.node) || !sameService(left.service, right.service)) return false;
  if (left.checks.length !== right.checks.length) return false;
  const checks = new Map(left.checks.map((check) => [lowerCase(check.checkId), check]));
  return right.checks.every((check) => {
    const known = checks.get(lowerCase(check.checkId));
    return known !== undefined && sameCheck(known, check);
  });
}
