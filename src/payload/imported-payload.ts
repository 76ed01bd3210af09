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
  type Node,
  type Proxy as ProxyDefinition,
  type Service,
  type ServiceAddress,
  type ServiceInstance,
  type ServicePort,
  type StringMap,
  type Weights,
} from "../model/instance.js";
import { lowerCase } from "../model/names.js";
import { defaultPort } from "../model/ports.js";
import { addressTable, checkTable, localityTable, nodeTable, portTable, serviceTable } from "../model/records.js";
import { ProtobufReader, WireType } from "../wire/protobuf.js";

const text = (field: number): number => (field << 3) | WireType.LengthDelimited;
const varint = (field: number): number => (field << 3) | WireType.Varint;

// The numbers of package hashicorp.consul.internal.service, by message, as tags.
const NODES = text(1);
const MAP_KEY = text(1);
const MAP_VALUE = text(2);
const INSTANCE_NODE = text(1);
const INSTANCE_SERVICE = text(2);
const INSTANCE_CHECK = text(3);
const NODE_NAME = text(2);
const NODE_TAGGED_ADDRESSES = text(5);
const NODE_META = text(6);
const SERVICE_ID = text(2);
const SERVICE_NAME = text(3);
const SERVICE_META = text(6);
const SERVICE_PROXY = text(11);
const SERVICE_CONNECT = text(12);
const SERVICE_TAGGED_ADDRESSES = text(15);
const SERVICE_LOCALITY = text(19);
const CHECK_ID = text(2);
const CHECK_SERVICE_ID = text(7);

/** A node as a payload has it. */
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
 * checks take the service's name and tags, as in Consul 1.13 to 1.22. What the mesh of the exporter alone uses of a proxy
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
    if (tag !== NODES) {
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

/** Decoded in one step: a few milliseconds. */
const DECODED_BYTES = 128 * 1024;
const DECODED_BATCH = 2_000;

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
    if (tag === INSTANCE_NODE) node = readNode(reader.message());
    else if (tag === INSTANCE_SERVICE) service = readService(reader.message());
    else if (tag === INSTANCE_CHECK) checks.push(readCheck(reader.message(), ""));
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
    if (tag === text(1)) id = reader.string();
    else if (tag === NODE_NAME) name = reader.string();
    else if (tag === text(3)) address = reader.string();
    else if (tag === text(4)) datacenter = reader.string();
    else if (tag === NODE_TAGGED_ADDRESSES) taggedAddresses.push(readMapEntry(reader.message(), readText, ""));
    else if (tag === NODE_META) meta.push(readMapEntry(reader.message(), readText, ""));
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
    if (tag === text(1)) kind = reader.string();
    else if (tag === SERVICE_ID) id = reader.string();
    else if (tag === SERVICE_NAME) name = reader.string();
    else if (tag === text(4)) tags.push(reader.string());
    else if (tag === text(5)) address = reader.string();
    else if (tag === SERVICE_META) meta.push(readMapEntry(reader.message(), readText, ""));
    else if (tag === varint(7)) port = reader.int32();
    else if (tag === text(8)) weights = readWeights(reader.message());
    else if (tag === varint(9)) enableTagOverride = reader.bool();
    else if (tag === SERVICE_PROXY) proxy = readProxy(reader.message(), proxy);
    else if (tag === SERVICE_CONNECT) connect = readConnect(reader.message(), connect);
    else if (tag === SERVICE_TAGGED_ADDRESSES) {
      taggedAddresses.push(readMapEntry(reader.message(), readAddress, addressTable.empty));
    } else if (tag === text(17)) socketPath = reader.string();
    else if (tag === SERVICE_LOCALITY) locality = readLocality(reader.message(), locality);
    else if (tag === text(20)) ports.push(readPort(reader.message()));
    else reader.skip(tag);
  }
  return {
    kind,
    id,
    name,
    tags,
    address,
    port: port === 0 ? defaultPort(ports) : port,
    ...(ports.length === 0 ? {} : { ports }),
    socketPath,
    taggedAddresses: Object.fromEntries(taggedAddresses),
    meta: textMap(meta),
    weights,
    enableTagOverride,
    // Present and empty means the same as absent.
    ...(isEmptyProxy(proxy) ? {} : { proxy }),
    ...(connect === undefined || (!connect.native && connect.peerMeta === undefined) ? {} : { connect }),
    ...(locality === undefined || (locality.region === "" && locality.zone === "") ? {} : { locality }),
  };
}

function readCheck(reader: ProtobufReader, node: string): Check {
  let { checkId, name, status, notes, output, serviceId, serviceName, type, interval, timeout, exposedPort } =
    checkTable.empty;
  const serviceTags: string[] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === CHECK_ID) checkId = reader.string();
    else if (tag === text(3)) name = reader.string();
    else if (tag === text(4)) status = reader.string();
    else if (tag === text(5)) notes = reader.string();
    else if (tag === text(6)) output = reader.string();
    else if (tag === CHECK_SERVICE_ID) serviceId = reader.string();
    else if (tag === text(8)) serviceName = reader.string();
    else if (tag === text(9)) serviceTags.push(reader.string());
    else if (tag === text(12)) type = reader.string();
    else if (tag === varint(14)) exposedPort = reader.int32();
    else if (tag === text(15)) interval = reader.string();
    else if (tag === text(16)) timeout = reader.string();
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
    if (tag === MAP_KEY) key = reader.string();
    else if (tag === MAP_VALUE) value = readValue(reader);
    else reader.skip(tag);
  }
  return [key, value];
}

/** Safe for any key: none is taken for a property of objects. */
function textMap(entries: readonly [string, string][]): StringMap {
  return entries.length === 0 ? {} : Object.fromEntries(entries);
}

function readAddress(parent: ProtobufReader): ServiceAddress {
  const reader = parent.message();
  let address = "";
  let port = 0;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === text(1)) address = reader.string();
    else if (tag === varint(2)) port = reader.int32();
    else reader.skip(tag);
  }
  return { address, port };
}

/** @internal */
export function readPort(reader: ProtobufReader): ServicePort {
  let { name, port, default: isDefault } = portTable.empty;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === varint(1)) port = reader.int32();
    else if (tag === text(2)) name = reader.string();
    else if (tag === varint(3)) isDefault = reader.bool();
    else reader.skip(tag);
  }
  return { name, port, default: isDefault };
}

function readWeights(reader: ProtobufReader): Weights {
  let passing = 0;
  let warning = 0;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === varint(1)) passing = reader.int32();
    else if (tag === varint(2)) warning = reader.int32();
    else reader.skip(tag);
  }
  return { passing, warning };
}

/** @internal */
export function readLocality(reader: ProtobufReader, before?: Locality): Locality {
  let { region, zone } = before ?? localityTable.empty;
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === text(1)) region = reader.string();
    else if (tag === text(2)) zone = reader.string();
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
    if (tag === text(1)) destinationServiceName = reader.string();
    else if (tag === text(2)) destinationServiceId = reader.string();
    else if (tag === text(3)) localServiceAddress = reader.string();
    else if (tag === varint(4)) localServicePort = reader.int32();
    else if (tag === text(5)) config = readStruct(reader.message(), 0);
    else if (tag === text(7)) meshGatewayMode = readFirstText(reader.message());
    else if (tag === text(9)) mode = reader.string();
    else if (tag === text(11)) localServiceSocketPath = reader.string();
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
    if (tag === text(1)) found = reader.string();
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
    if (tag === varint(1)) native = reader.bool();
    else if (tag === text(4)) peerMeta = readPeerMeta(reader.message());
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
    if (tag === text(1)) sni.push(reader.string());
    else if (tag === text(2)) spiffeId.push(reader.string());
    else if (tag === text(3)) protocol = reader.string();
    else reader.skip(tag);
  }
  return { sni, spiffeId, protocol };
}

/** Deeper than any configuration is, and than a peer may make us recurse. */
const MAX_STRUCT_DEPTH = 64;

function readStruct(reader: ProtobufReader, depth: number): JsonObject {
  if (depth > MAX_STRUCT_DEPTH) throw new PeeringError("invalid-message", "struct nested too deep");
  const fields: [string, JsonValue][] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === text(1)) {
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
    if (tag === varint(1)) {
      reader.uint32();
      value = null;
    } else if (tag === ((2 << 3) | WireType.Fixed64)) value = reader.double();
    else if (tag === text(3)) value = reader.string();
    else if (tag === varint(4)) value = reader.bool();
    else if (tag === text(5)) value = readStruct(reader.message(), depth + 1);
    else if (tag === text(6)) value = readJsonList(reader.message(), depth + 1);
    else reader.skip(tag);
  }
  return value;
}

function readJsonList(reader: ProtobufReader, depth: number): readonly JsonValue[] {
  if (depth > MAX_STRUCT_DEPTH) throw new PeeringError("invalid-message", "struct nested too deep");
  const values: JsonValue[] = [];
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === text(1)) values.push(readJson(reader.message(), depth + 1));
    else reader.skip(tag);
  }
  return values;
}

/** What became of a service's instances, matched by node name and service id without case. */
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
