import * as crypto from "node:crypto";
import { compareUtf8 } from "../base/byte-order.js";
import { PeeringError } from "../base/errors.js";
import type { Steps } from "../base/steps.js";
import type { ChainInfo } from "../config/chain.js";
import { flattenedStatus } from "../model/check-groups.js";
import type { Locality, Node, Service, ServiceAddress, ServiceInstance, StringMap } from "../model/instance.js";
import { isEmptyMap } from "../model/kept-members.js";
import { metadataFault } from "../syntax/metadata.js";
import { lowerCase } from "../syntax/names.js";
import { ProtobufWriter, WireType } from "../wire/protobuf.js";
import { isUuid } from "../wire/uuid.js";
import { Field, MapEntry } from "./field-numbers.js";

/** The encoding of one `ExportedService` message. */
export interface EncodedPayload {
  readonly value: Uint8Array;
  /** Equal digests are equal payloads. */
  readonly digest: string;
}

/** Suffix of the names under which mesh services are sent. */
export const SIDECAR_SUFFIX = "-sidecar-proxy";

/** The name under which the proxies of a mesh service are sent and imported. */
export function sidecarName(service: string): string {
  return `${service}${SIDECAR_SUFFIX}`;
}

const nothing = new Uint8Array(0);

/** Came with Node 20.12, and takes half the time. */
const oneShot: typeof crypto.hash | undefined = crypto.hash;

/** Digest of any payload: equal digests mean an unchanged payload. */
export function payloadDigest(value: Uint8Array): string {
  if (oneShot !== undefined) return oneShot("sha256", value, "base64");
  return crypto.createHash("sha256").update(value).digest("base64");
}

/** Bytes hashed in one step. */
const HASHED_BATCH = 2 * 1024 * 1024;

/** As {@link payloadDigest}, in steps. */
export function* payloadDigestSteps(value: Uint8Array): Steps<string> {
  if (value.length <= HASHED_BATCH) return payloadDigest(value);
  const hash = crypto.createHash("sha256");
  for (let start = 0; start < value.length; start += HASHED_BATCH) {
    hash.update(value.subarray(start, start + HASHED_BATCH));
    yield;
  }
  return hash.digest("base64");
}

function refusal(name: string, instance: ServiceInstance, why: string): PeeringError {
  const { node, service } = instance;
  return new PeeringError(
    "invalid-registration",
    `service "${name}" is not sent: instance "${service.id}" on node "${node.name}": ${why}`,
    { remedy: "Register the instance again with valid values; it is sent as soon as it is valid." },
  );
}

function isInt32(value: number): boolean {
  return (value | 0) === value;
}

/** The rules of service metadata at an importer, which takes no reserved key at all. */
function metaProblem(meta: StringMap): string | undefined {
  if (isEmptyMap(meta)) return undefined;
  const fault = metadataFault(meta);
  if (fault === undefined) return undefined;
  // The value stays out of the message: it may be long.
  return fault.type === "pairs" ? `service metadata ${fault.reason}` : `metadata key "${fault.key}": ${fault.reason}`;
}

/** Why no importer could take a node: it needs a name, and an id that is a UUID, if it has one. */
function nodeProblem(node: Node): string | undefined {
  if (node.name === "") return "the node has no name";
  return node.id === "" || isUuid(node.id) ? undefined : `node id "${node.id}" is not a UUID`;
}

/** The reason why no importer could take an instance: numbers that do not fit. */
function numberProblem({ service }: ServiceInstance): string | undefined {
  if (!isInt32(service.port)) return `port ${service.port} is not a 32-bit integer`;
  if (!isInt32(service.weights.passing) || !isInt32(service.weights.warning)) {
    return `weights ${service.weights.passing} and ${service.weights.warning} are not 32-bit integers`;
  }
  for (const { name, port } of service.ports ?? []) {
    if (!isInt32(port)) return `port ${port} named "${name}" is not a 32-bit integer`;
  }
  for (const key in service.taggedAddresses) {
    const port = service.taggedAddresses[key]?.port ?? 0;
    if (!isInt32(port)) return `port ${port} of tagged address "${key}" is not a 32-bit integer`;
  }
  return undefined;
}

function instanceProblem(name: string, key: string, instance: ServiceInstance): string | undefined {
  const { service } = instance;
  if (service.id === "") return "it has no service id";
  if (service.name !== name && lowerCase(service.name) !== key) return `it is named "${service.name}"`;
  return numberProblem(instance) ?? metaProblem(service.meta);
}

interface EncodedNode {
  /** With tag and length. */
  readonly bytes: Uint8Array;
  /** As an importer compares them. */
  readonly id: string;
  readonly name: string;
}

/** The first node whose id a node of another name has too: an importer takes that for a renaming, and drops one. */
function sharedNodeId(nodes: readonly EncodedNode[]): number {
  if (nodes.length <= 16) {
    // Comparing a handful pair by pair is cheaper than a map, and most services have no more.
    return nodes.findIndex((node, index) => {
      if (node.id === "") return false;
      for (let before = 0; before < index; before++) {
        const other = nodes[before];
        if (other !== undefined && other !== node && other.id === node.id && other.name !== node.name) return true;
      }
      return false;
    });
  }
  const names = new Map<string, string>();
  return nodes.findIndex((node) => {
    if (node.id === "") return false;
    const known = names.get(node.id);
    if (known === undefined) names.set(node.id, node.name);
    return known !== undefined && known !== node.name;
  });
}

function compareInstances(left: ServiceInstance, right: ServiceInstance): number {
  const { node: leftNode, service: leftService } = left;
  const { node: rightNode, service: rightService } = right;
  if (leftNode.name === rightNode.name) return compareUtf8(leftService.id, rightService.id);
  // The separators stand for the empty namespace of Community Edition: "<node>/<namespace>/<id>".
  return compareUtf8(`${leftNode.name}//${leftService.id}`, `${rightNode.name}//${rightService.id}`);
}

/** Keys of a map in byte order: equal maps have equal encodings. */
function sortedKeys(map: Readonly<Record<string, unknown>>): readonly string[] {
  const keys = Object.keys(map);
  for (let index = 1; index < keys.length; index++) {
    if (compareUtf8(keys[index - 1] ?? "", keys[index] ?? "") > 0) return keys.sort(compareUtf8);
  }
  return keys;
}

/** Key and value of a map are written also when empty, as Go does. */
function writeKey(writer: ProtobufWriter, key: string): void {
  writer.tag(MapEntry.Key, WireType.LengthDelimited).string(key);
}

function writeTextMap(writer: ProtobufWriter, field: number, map: StringMap): void {
  for (const key of sortedKeys(map)) {
    const mark = writer.beginMessage(field);
    writeKey(writer, key);
    writer.tag(MapEntry.Value, WireType.LengthDelimited).string(map[key] ?? "");
    writer.endMessage(mark);
  }
}

function writeAddressMap(writer: ProtobufWriter, field: number, map: Readonly<Record<string, ServiceAddress>>): void {
  for (const key of sortedKeys(map)) {
    const address = map[key];
    // A virtual address is the exporter's own; importers assign theirs.
    if (address === undefined || key === "consul-virtual") continue;
    const mark = writer.beginMessage(field);
    writeKey(writer, key);
    const inner = writer.beginMessage(MapEntry.Value);
    writer
      .stringField(Field.ServiceAddress.Address, address.address)
      .int32Field(Field.ServiceAddress.Port, address.port);
    writer.endMessage(inner).endMessage(mark);
  }
}

function writeLocality(writer: ProtobufWriter, field: number, locality: Locality | undefined): void {
  if (locality === undefined) return;
  const mark = writer.beginMessage(field);
  writer.stringField(Field.Locality.Region, locality.region).stringField(Field.Locality.Zone, locality.zone);
  writer.endMessage(mark);
}

function encodeNode(node: Node): EncodedNode {
  const writer = new ProtobufWriter();
  const mark = writer.beginMessage(Field.CheckServiceNode.Node);
  writer
    .stringField(Field.Node.ID, node.id)
    .stringField(Field.Node.Node, node.name)
    .stringField(Field.Node.Address, node.address)
    .stringField(Field.Node.Datacenter, node.datacenter);
  writeTextMap(writer, Field.Node.TaggedAddresses, node.taggedAddresses);
  writeTextMap(writer, Field.Node.Meta, node.meta);
  writeLocality(writer, Field.Node.Locality, node.locality);
  return {
    bytes: writer.endMessage(mark).finish(),
    id: lowerCase(node.id),
    name: lowerCase(node.name),
  };
}

function writeWeights(writer: ProtobufWriter, { passing, warning }: Service["weights"]): void {
  const mark = writer.beginMessage(Field.NodeService.Weights);
  writer.int32Field(Field.Weights.Passing, passing).int32Field(Field.Weights.Warning, warning);
  writer.endMessage(mark);
}

/** Present and empty, as Community Edition sends it. */
function writeEnterpriseMeta(writer: ProtobufWriter, field: number): void {
  writer.endMessage(writer.beginMessage(field));
}

function writeCheck(
  writer: ProtobufWriter,
  instance: ServiceInstance,
  status: string | undefined,
  id: string,
  name: string,
): void {
  if (status === undefined) return;
  const mark = writer.beginMessage(Field.CheckServiceNode.Checks);
  writer
    .stringField(Field.HealthCheck.Node, instance.node.name)
    .stringField(Field.HealthCheck.CheckID, `${id}:overall-check`)
    .stringField(Field.HealthCheck.Name, "overall-check")
    .stringField(Field.HealthCheck.Status, status)
    .stringField(Field.HealthCheck.ServiceID, id)
    .stringField(Field.HealthCheck.ServiceName, name);
  writeEnterpriseMeta(writer, Field.HealthCheck.EnterpriseMeta);
  writer.endMessage(mark);
}

export interface SidecarPayloadInput {
  /** The mesh service. */
  readonly name: string;
  readonly chain: ChainInfo;
  /** All local mesh gateways, in catalog order: their places give the instances their ids. */
  readonly gateways: readonly ServiceInstance[];
  /** Our name of the peering it is sent to. */
  readonly peerName: string;
  /** Ours. */
  readonly trustDomain: string;
  /** Ours. */
  readonly datacenter: string;
}

function encodePeerMeta({ name, chain, peerName, trustDomain, datacenter }: SidecarPayloadInput): Uint8Array {
  const identity = (dc: string, service: string): string =>
    `spiffe://${trustDomain}/ns/default/dc/${dc}/svc/${service}`;
  const own = identity(datacenter, name);
  const targets = chain.tcpTargets.map((place) => identity(place.datacenter, place.service));
  return new ProtobufWriter()
    .repeatedStringField(Field.PeeringServiceMeta.SNI, [`${name}.default.default.${peerName}.external.${trustDomain}`])
    .repeatedStringField(Field.PeeringServiceMeta.SpiffeID, [
      own,
      `spiffe://${trustDomain}/gateway/mesh/dc/${datacenter}`,
      ...targets.filter((target) => target !== own),
    ])
    .stringField(Field.PeeringServiceMeta.Protocol, chain.protocol)
    .finish();
}

/**
 * Encodes services as peers are sent them. Equal input gives equal bytes from every encoder; one that is kept works
 * faster, because it knows the nodes it has encoded.
 */
export class PayloadEncoder {
  readonly #strictConsul: boolean;
  readonly #writer = new ProtobufWriter(16 * 1024);
  /** By identity: a node is the same object in all of its instances until it changes. */
  readonly #nodes = new WeakMap<Node, EncodedNode>();

  /**
   * @param options - `strictConsul`: as Consul 1.22 does, tells no port of an instance that has several, beside those, and
   *   `maintenance` of one that is in maintenance.
   */
  constructor(options: { readonly strictConsul?: boolean } = {}) {
    this.#strictConsul = options.strictConsul ?? false;
  }

  /**
   * The payload of the service `name`: its ordinary instances, without the fields that the mesh added to them, each with its
   * checks flattened into one, in a fixed order (docs/protocol.md, "an ordinary instance").
   *
   * @param instances - all that are registered under the name, of any kind and in any order.
   * @throws {PeeringError} `invalid-registration`: an instance that a Consul importer would refuse or not survive; the
   *   error names it and its fault, and nothing of the service may be sent (D-28).
   */
  service(name: string, instances: readonly ServiceInstance[]): EncodedPayload {
    const key = lowerCase(name);
    // Such names are those of synthetic sidecars, with which these instances would collide.
    const sent = key.endsWith(SIDECAR_SUFFIX) ? [] : instances.filter((instance) => instance.service.kind === "");
    for (const instance of sent) {
      const problem = instanceProblem(name, key, instance);
      if (problem !== undefined) throw refusal(name, instance, problem);
    }
    if (sent.length > 1) sent.sort(compareInstances);
    const nodes = this.#nodesOf(name, sent);
    this.#begin();
    for (const [index, instance] of sent.entries()) this.#writeInstance(instance, nodes[index]);
    return this.#finish();
  }

  /**
   * The payload of a mesh service: one instance per mesh gateway under `<name>-sidecar-proxy`, in place of the
   * real sidecars (docs/protocol.md, "sidecars of a mesh service"). Empty without gateways.
   *
   * @throws {PeeringError} `invalid-registration`: a gateway that no importer could take.
   */
  sidecar(input: SidecarPayloadInput): EncodedPayload {
    const { name, gateways } = input;
    const sidecar = sidecarName(name);
    for (const gateway of gateways) {
      const problem = numberProblem(gateway);
      if (problem !== undefined) throw refusal(sidecar, gateway, problem);
    }
    const nodes = this.#nodesOf(sidecar, gateways);
    const peerMeta = encodePeerMeta(input);
    this.#begin();
    for (const [index, gateway] of gateways.entries()) {
      const mark = this.#writer.beginMessage(Field.ExportedService.Nodes);
      this.#writer.raw(nodes[index]?.bytes ?? nothing);
      this.#writeSidecar(name, sidecar, index, gateway, peerMeta);
      this.#writer.endMessage(mark);
    }
    return this.#finish();
  }

  #nodesOf(name: string, instances: readonly ServiceInstance[]): readonly EncodedNode[] {
    const nodes = instances.map((instance) => {
      let encoded = this.#nodes.get(instance.node);
      if (encoded === undefined) {
        const problem = nodeProblem(instance.node);
        if (problem !== undefined) throw refusal(name, instance, problem);
        encoded = encodeNode(instance.node);
        this.#nodes.set(instance.node, encoded);
      }
      return encoded;
    });
    const shared = instances[sharedNodeId(nodes)];
    if (shared !== undefined) throw refusal(name, shared, "its node has the id of another node");
    return nodes;
  }

  /** An earlier call may have thrown half-way, at an instance that breaks its type. */
  #begin(): void {
    if (this.#writer.length > 0) this.#writer.take();
  }

  #finish(): EncodedPayload {
    const value = this.#writer.take();
    return { value, digest: payloadDigest(value) };
  }

  #writeInstance(instance: ServiceInstance, node: EncodedNode | undefined): void {
    const writer = this.#writer;
    const { service } = instance;
    const mark = writer.beginMessage(Field.ExportedService.Nodes);
    writer.raw(node?.bytes ?? nothing);
    const inner = writer.beginMessage(Field.CheckServiceNode.Service);
    writer
      .stringField(Field.NodeService.ID, service.id)
      .stringField(Field.NodeService.Service, service.name)
      .repeatedStringField(Field.NodeService.Tags, service.tags)
      .stringField(Field.NodeService.Address, service.address);
    writeTextMap(writer, Field.NodeService.Meta, service.meta);
    // Consul 1.22 sends 0 beside several, so an importer that knows only one port gets none (D-53).
    const port = this.#strictConsul && service.ports !== undefined ? 0 : service.port;
    writer.int32Field(Field.NodeService.Port, port);
    writeWeights(writer, service.weights);
    writer.boolField(Field.NodeService.EnableTagOverride, service.enableTagOverride);
    writeAddressMap(writer, Field.NodeService.TaggedAddresses, service.taggedAddresses);
    writeEnterpriseMeta(writer, Field.NodeService.EnterpriseMeta);
    writer.stringField(Field.NodeService.SocketPath, service.socketPath);
    writeLocality(writer, Field.NodeService.Locality, service.locality);
    for (const port of service.ports ?? []) {
      const mark = writer.beginMessage(Field.NodeService.Ports);
      writer.int32Field(Field.ServicePort.Port, port.port).stringField(Field.ServicePort.Name, port.name);
      writer.boolField(Field.ServicePort.Default, port.default);
      writer.endMessage(mark);
    }
    writer.endMessage(inner);
    writeCheck(writer, instance, this.#statusOf(instance), service.id, service.name);
    writer.endMessage(mark);
  }

  #writeSidecar(name: string, sidecar: string, index: number, gateway: ServiceInstance, peerMeta: Uint8Array): void {
    const writer = this.#writer;
    const { service } = gateway;
    const suffix = service.id === "" ? "" : `-instance-${index}`;
    const id = `${sidecar}${suffix}`;
    const inner = writer.beginMessage(Field.CheckServiceNode.Service);
    writer
      .stringField(Field.NodeService.Kind, "connect-proxy")
      .stringField(Field.NodeService.ID, id)
      .stringField(Field.NodeService.Service, sidecar)
      .stringField(Field.NodeService.Address, service.address)
      .int32Field(Field.NodeService.Port, service.port);
    writeWeights(writer, service.weights);
    const proxy = writer.beginMessage(Field.NodeService.Proxy);
    writer
      .stringField(Field.ConnectProxyConfig.DestinationServiceName, name)
      .stringField(Field.ConnectProxyConfig.DestinationServiceID, `${name}${suffix}`);
    writer.endMessage(proxy);
    const connect = writer.beginMessage(Field.NodeService.Connect);
    writer.bytesField(Field.ServiceConnect.PeerMeta, peerMeta);
    writer.endMessage(connect);
    writeAddressMap(writer, Field.NodeService.TaggedAddresses, service.taggedAddresses);
    writeEnterpriseMeta(writer, Field.NodeService.EnterpriseMeta);
    writer.stringField(Field.NodeService.SocketPath, service.socketPath);
    writer.endMessage(inner);
    writeCheck(writer, gateway, this.#statusOf(gateway), id, sidecar);
  }

  #statusOf(instance: ServiceInstance): string | undefined {
    return flattenedStatus(instance, this.#strictConsul);
  }
}

/** {@link PayloadEncoder.service} once. @throws {PeeringError} `invalid-registration`. */
export function encodeServicePayload(
  name: string,
  instances: readonly ServiceInstance[],
  options?: { readonly strictConsul?: boolean },
): EncodedPayload {
  return new PayloadEncoder(options).service(name, instances);
}

/** {@link PayloadEncoder.sidecar} once. @throws {PeeringError} `invalid-registration`. */
export function encodeSidecarPayload(input: SidecarPayloadInput): EncodedPayload {
  return new PayloadEncoder().sidecar(input);
}
