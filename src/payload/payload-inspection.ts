import { isUtf8 } from "node:buffer";
import { asPeeringError, errorText, PeeringError } from "../base/errors.js";
import { doAll, STEP_FIELDS, type Steps } from "../base/steps.js";
import { lowerCase } from "../syntax/names.js";
import { lengthTag, ProtobufReader, ReadBudget, WireType } from "../wire/protobuf.js";
import { StatusCode } from "../wire/status.js";
import { Field, MapEntry } from "./field-numbers.js";
import { readConnect, readLocality, readPort, readProxy } from "./imported-payload.js";

/**
 * Bounds on one payload, looked at before the work is done; what exceeds them is refused, and the stream goes on. Ours;
 * Consul has none.
 */
export interface PayloadLimits {
  /** Instances of one service, those that come twice included. Default 50 000. */
  readonly instancesPerService: number;
  /** Checks that come with one instance. Default 1 000. */
  readonly checksPerInstance: number;
  /** Checks of a node itself, which Consul does not send: each shows at all instances on the node. Default 64. */
  readonly checksPerNode: number;
  /** Checks of all instances of a service as readers see them, those of nodes at each instance. Default 200 000. */
  readonly checksPerService: number;
  /**
   * Tags, also as each check repeats them, entries of maps (metadata, tagged addresses), ports, and fields that the mesh
   * needs (proxies and their configuration), of all instances of a service. Default 1 000 000.
   */
  readonly entriesPerService: number;
  /** Protobuf fields of one instance with all that is in it, unknown ones included. Default 20 000. */
  readonly fieldsPerInstance: number;
  /** Bytes of one instance. Default 4 MiB. */
  readonly bytesPerInstance: number;
  /** Bytes of the name of a service or of a node. Default 256. */
  readonly nameBytes: number;
  /** Services of the mesh for which the instances of one service speak. Default 1 000. */
  readonly destinationsPerService: number;
}

export const defaultPayloadLimits: PayloadLimits = {
  instancesPerService: 50_000,
  checksPerInstance: 1_000,
  checksPerNode: 64,
  checksPerService: 200_000,
  entriesPerService: 1_000_000,
  fieldsPerInstance: 20_000,
  bytesPerInstance: 4 * 1024 * 1024,
  nameBytes: 256,
  destinationsPerService: 1_000,
};

/** For stored payloads, which were within the limits of their time. */
export const noPayloadLimits: PayloadLimits = {
  instancesPerService: Number.POSITIVE_INFINITY,
  checksPerInstance: Number.POSITIVE_INFINITY,
  checksPerNode: Number.POSITIVE_INFINITY,
  checksPerService: Number.POSITIVE_INFINITY,
  entriesPerService: Number.POSITIVE_INFINITY,
  fieldsPerInstance: Number.POSITIVE_INFINITY,
  bytesPerInstance: Number.POSITIVE_INFINITY,
  nameBytes: Number.POSITIVE_INFINITY,
  destinationsPerService: Number.POSITIVE_INFINITY,
};

/** Where one payload has a node: its own fields and its own checks, as offsets of encoded messages. */
export interface NodePlace {
  /** Lower-cased. */
  readonly name: string;
  /** The `Node` message. */
  readonly start: number;
  readonly end: number;
  /** `HealthCheck` messages without service id; usually none. */
  readonly checks: readonly Place[];
}

export interface Place {
  readonly start: number;
  readonly end: number;
}

/** The facts that must be known of a payload that is stored as it came. */
export interface PayloadSummary {
  /** The service as its instances spell it; of a payload without instances, the resource id. */
  readonly service: string;
  readonly instances: number;
  /** Instances as they come: one that comes twice counts twice. */
  readonly read: number;
  /** Each node once, in order of appearance. */
  readonly nodes: readonly NodePlace[];
  /** Whether every map comes in order of its keys; where not, {@link canonicalPayload} puts it so. */
  readonly sorted: boolean;
  /** Services of the mesh for which an instance speaks, lower-cased: the destinations of proxies, a native service itself. */
  readonly mesh: readonly string[];
}

/**
 * The names, lower-cased, under which a resource id may be meant: the id itself, and where it may be qualified by an
 * Enterprise partition and namespace, its last part.
 */
export function serviceKeys(resourceId: string): readonly [string, ...string[]] {
  const key = lowerCase(resourceId);
  if (!key.includes("/")) return [key];
  const [, , last = "", ...rest] = key.split("/");
  return last === "" || rest.length > 0 ? [key] : [key, last];
}

/**
 * Judges the payload of an `ExportedService` without building its instances: whether it is well-formed and names what
 * must be named (D-30). Values are not judged: unknown kinds, statuses, ports are stored as they come.
 *
 * @param resourceId - the name the peer gave the resource.
 * @throws {PeeringError} `invalid-message`, or `resource-exhausted` beyond a limit, status INTERNAL: nothing of the payload
 *   may be applied. The message is the cause a NACK names.
 */
export function inspectPayload(
  value: Uint8Array,
  resourceId: string,
  limits: PayloadLimits = defaultPayloadLimits,
): PayloadSummary {
  const inspection = new Inspection(value, limits);
  while (!readOn(inspection));
  return summaryOf(inspection, resourceId);
}

/** As {@link inspectPayload}, in steps. */
export function* inspectionSteps(
  value: Uint8Array,
  resourceId: string,
  limits: PayloadLimits = defaultPayloadLimits,
): Steps<PayloadSummary> {
  const inspection = new Inspection(value, limits);
  while (!readOn(inspection)) yield;
  return summaryOf(inspection, resourceId);
}

/** Does a step. Returns whether it was the last one. */
function readOn(inspection: Inspection): boolean {
  try {
    return inspection.step();
  } catch (error) {
    // Beyond a limit nothing more is read: further reasons to refuse it do not matter.
    if (inspection.problem?.exhausted === true) return true;
    throw new PeeringError("invalid-message", `failed to unmarshal resource: ${errorText(error)}`, {
      cause: error,
      status: StatusCode.Internal,
    });
  }
}

function summaryOf(inspection: Inspection, resourceId: string): PayloadSummary {
  const { service = resourceId, serviceKey } = inspection;
  if (serviceKey !== undefined && !serviceKeys(resourceId).includes(serviceKey)) {
    inspection.refuse(`the service of its instances is named ${JSON.stringify(service)}`);
  }
  if (inspection.problem !== undefined) {
    const { reason, exhausted } = inspection.problem;
    throw new PeeringError(
      exhausted ? "resource-exhausted" : "invalid-message",
      `did not increment imported services count for service=${JSON.stringify(resourceId)}: failed to read payload: ${reason}`,
      { status: StatusCode.Internal },
    );
  }
  const { instances, read, nodes, sorted, mesh } = inspection;
  return {
    service,
    instances,
    read,
    nodes,
    sorted,
    mesh: meshOf(mesh, serviceKey),
  };
}

// As constants, so that a switch over them is one over numbers: it runs for every field of every instance.
const NODES = lengthTag(Field.ExportedService.Nodes);
const MAP_KEY = lengthTag(MapEntry.Key);
const MAP_VALUE = lengthTag(MapEntry.Value);
const INSTANCE_NODE = lengthTag(Field.CheckServiceNode.Node);
const INSTANCE_SERVICE = lengthTag(Field.CheckServiceNode.Service);
const INSTANCE_CHECK = lengthTag(Field.CheckServiceNode.Checks);
const NODE_ID = lengthTag(Field.Node.ID);
const NODE_NAME = lengthTag(Field.Node.Node);
const NODE_ADDRESS = lengthTag(Field.Node.Address);
const NODE_DATACENTER = lengthTag(Field.Node.Datacenter);
const NODE_TAGGED_ADDRESSES = lengthTag(Field.Node.TaggedAddresses);
const NODE_META = lengthTag(Field.Node.Meta);
const NODE_PARTITION = lengthTag(Field.Node.Partition);
const NODE_PEER_NAME = lengthTag(Field.Node.PeerName);
const NODE_LOCALITY = lengthTag(Field.Node.Locality);
const SERVICE_KIND = lengthTag(Field.NodeService.Kind);
const SERVICE_ID = lengthTag(Field.NodeService.ID);
const SERVICE_NAME = lengthTag(Field.NodeService.Service);
const SERVICE_TAGS = lengthTag(Field.NodeService.Tags);
const SERVICE_ADDRESS = lengthTag(Field.NodeService.Address);
const SERVICE_META = lengthTag(Field.NodeService.Meta);
const SERVICE_WEIGHTS = lengthTag(Field.NodeService.Weights);
const SERVICE_PROXY = lengthTag(Field.NodeService.Proxy);
const SERVICE_CONNECT = lengthTag(Field.NodeService.Connect);
const SERVICE_TAGGED_ADDRESSES = lengthTag(Field.NodeService.TaggedAddresses);
const SERVICE_SOCKET_PATH = lengthTag(Field.NodeService.SocketPath);
const SERVICE_PEER_NAME = lengthTag(Field.NodeService.PeerName);
const SERVICE_LOCALITY = lengthTag(Field.NodeService.Locality);
const SERVICE_PORTS = lengthTag(Field.NodeService.Ports);
const ADDRESS_ADDRESS = lengthTag(Field.ServiceAddress.Address);
const CHECK_NODE = lengthTag(Field.HealthCheck.Node);
const CHECK_ID = lengthTag(Field.HealthCheck.CheckID);
const CHECK_NAME = lengthTag(Field.HealthCheck.Name);
const CHECK_STATUS = lengthTag(Field.HealthCheck.Status);
const CHECK_NOTES = lengthTag(Field.HealthCheck.Notes);
const CHECK_OUTPUT = lengthTag(Field.HealthCheck.Output);
const CHECK_SERVICE_ID = lengthTag(Field.HealthCheck.ServiceID);
const CHECK_SERVICE_NAME = lengthTag(Field.HealthCheck.ServiceName);
const CHECK_SERVICE_TAGS = lengthTag(Field.HealthCheck.ServiceTags);
const CHECK_TYPE = lengthTag(Field.HealthCheck.Type);
const CHECK_INTERVAL = lengthTag(Field.HealthCheck.Interval);
const CHECK_TIMEOUT = lengthTag(Field.HealthCheck.Timeout);
const CHECK_PEER_NAME = lengthTag(Field.HealthCheck.PeerName);

/** A node while it is read. */
interface ReadNode extends NodePlace {
  /** Filled in at the end. */
  checks: readonly Place[];
  /** By lower-cased id, the last of each. */
  checksById: Map<string, Place> | undefined;
  /** The service id that came first, and once there are several all of them, lower-cased. */
  readonly idStart: number;
  readonly idEnd: number;
  ids: Set<string> | undefined;
  /** Checks that came with its instances, and the most tags that one of these has. */
  checkCount: number;
  mostTags: number;
}

/** Bytes read in one step, where they hold few fields. */
const STEP_BYTES = 1024 * 1024;
/** Bytes put in order in one step. */
const SORTED_BATCH = 64 * 1024;

/** So many are found by looking at each. */
const FEW_NODES = 8;

const none: readonly Place[] = [];
const noMesh: readonly string[] = [];

/** @param names - undefined: of none; `""` stands for the service itself. */
function meshOf(names: ReadonlySet<string> | undefined, serviceKey: string | undefined): readonly string[] {
  if (names === undefined || serviceKey === undefined) return noMesh;
  return [...new Set(Array.from(names, (name) => (name === "" ? serviceKey : lowerCase(name))))];
}

/**
 * One pass over the bytes, for hundreds of thousands of instances a second: no object per message or text. Fields that do not
 * occur in payloads of Consul go through {@link ProtobufReader}.
 */
class Inspection {
  readonly #bytes: Buffer;
  readonly #limits: PayloadLimits;
  #position = 0;
  /** Content of the text read last. */
  #textStart = 0;
  #textEnd = 0;
  /** Key of the map entry read last, and the tag of its map; 0: none. */
  #keyStart = 0;
  #keyEnd = 0;
  #mapTag = 0;
  /** Of the service read last; the name as first seen, to be compared with. */
  #idStart = 0;
  #idEnd = 0;
  #serviceNameStart = 0;
  #serviceNameEnd = 0;
  #tags = 0;
  /** Checks of the node among those of the instance, by lower-cased id. */
  #nodeChecks: Map<string, Place> | undefined;
  /** Fields read, at every depth; and how many that may be by the end of the instance that is read. */
  #fields = 0;
  #mostFields = Number.POSITIVE_INFINITY;
  #checksLeft: number;
  #entriesLeft: number;
  /** Instances read, duplicates too. */
  read = 0;
  instances = 0;
  sorted = true;
  /** In order of appearance. */
  readonly nodes: ReadNode[] = [];
  /** The same by name, once they are many: most services are on few. */
  #byName: Map<string, ReadNode> | undefined;
  service: string | undefined;
  /** Lower-cased. */
  serviceKey: string | undefined;
  /** Destinations of proxies, and `""` when an instance is native; undefined: what most payloads have. */
  mesh: Set<string> | undefined;
  problem: { readonly reason: string; readonly exhausted: boolean } | undefined;

  constructor(value: Uint8Array, limits: PayloadLimits) {
    this.#bytes = Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    this.#limits = limits;
    this.#checksLeft = limits.checksPerService;
    this.#entriesLeft = limits.entriesPerService;
  }

  /** Reads on. Returns whether all is read. */
  step(): boolean {
    const end = this.#bytes.length;
    const { instancesPerService, fieldsPerInstance, bytesPerInstance } = this.#limits;
    const mostFields = this.#fields + STEP_FIELDS;
    const mostPosition = this.#position + STEP_BYTES;
    while (this.#position < end) {
      if (this.#fields >= mostFields || this.#position >= mostPosition) return false;
      this.#mostFields = Number.POSITIVE_INFINITY;
      const tag = this.#tag(end);
      if (tag !== NODES) {
        this.#skip(tag, end);
        continue;
      }
      if (this.read >= instancesPerService) this.#exhaust(`more than ${instancesPerService} instances`);
      const instanceEnd = this.#message(end);
      const bytes = instanceEnd - this.#position;
      if (bytes > bytesPerInstance) this.#exhaustInstance(`${bytes} bytes`);
      this.#mostFields = this.#fields + fieldsPerInstance;
      this.#instance(instanceEnd);
      this.read++;
    }
    this.#finish();
    return true;
  }

  #finish(): void {
    for (const node of this.nodes) {
      const { checksById, ids, checkCount, mostTags } = node;
      this.#countEntries(checkCount * mostTags);
      if (checksById === undefined) continue;
      this.#countChecks(checksById.size * (ids?.size ?? 1));
      node.checks = [...checksById.values()];
    }
  }

  /** The first reason counts. Reading goes on, since bytes that are malformed are a reason before any other. */
  refuse(reason: string): void {
    this.problem ??= { reason, exhausted: false };
  }

  #refuseInstance(why: string): void {
    this.refuse(`instance ${this.read + 1}: ${why}`);
  }

  /** Beyond a limit: nothing more is read. */
  #exhaust(reason: string): never {
    this.problem = { reason, exhausted: true };
    throw malformed(reason);
  }

  #exhaustInstance(why: string): never {
    return this.#exhaust(`instance ${this.read + 1}: ${why}`);
  }

  #countEntries(count: number): void {
    this.#entriesLeft -= count;
    if (this.#entriesLeft < 0) {
      this.#exhaust(`more than ${this.#limits.entriesPerService} tags, metadata and the like`);
    }
  }

  #countChecks(count: number): void {
    this.#checksLeft -= count;
    if (this.#checksLeft < 0) this.#exhaust(`more than ${this.#limits.checksPerService} checks`);
  }

  #instance(end: number): void {
    let nodes = 0;
    let services = 0;
    let checks = 0;
    let name = "";
    let nodeStart = 0;
    let nodeEnd = 0;
    this.#idEnd = this.#idStart;
    this.#tags = 0;
    this.#nodeChecks = undefined;
    while (this.#position < end) {
      const tag = this.#tag(end);
      if (tag === INSTANCE_NODE) {
        nodes++;
        nodeEnd = this.#message(end);
        nodeStart = this.#position;
        name = this.#node(nodeEnd);
      } else if (tag === INSTANCE_SERVICE) {
        services++;
        this.#service(this.#message(end));
      } else if (tag === INSTANCE_CHECK) {
        const most = this.#limits.checksPerInstance;
        if (++checks > most) this.#exhaustInstance(`more than ${most} checks`);
        this.#countChecks(1);
        this.#check(this.#message(end));
      } else {
        this.#skip(tag, end);
      }
    }
    if (nodes !== 1) this.#refuseInstance(nodes === 0 ? "it has no node" : "it has several nodes");
    else if (name === "") this.#refuseInstance("its node has no name");
    if (services !== 1) this.#refuseInstance(services === 0 ? "it has no service" : "it has several services");
    else if (this.#idStart === this.#idEnd) this.#refuseInstance("its service has no id");
    this.#add(lowerCase(name), nodeStart, nodeEnd, checks);
  }

  /** The first copy of a node counts, and an instance once. */
  #add(name: string, start: number, end: number, checkCount: number): void {
    const known = this.#find(name);
    const checksById = this.#nodeChecks;
    const [idStart, idEnd, mostTags] = [this.#idStart, this.#idEnd, this.#tags];
    if (known === undefined) {
      const ids = undefined;
      const node = { name, start, end, checks: none, checksById, idStart, idEnd, ids, checkCount, mostTags };
      this.nodes.push(node);
      this.#byName?.set(name, node);
      this.instances++;
      return;
    }
    known.checkCount += checkCount;
    known.mostTags = Math.max(known.mostTags, mostTags);
    if (checksById !== undefined) this.#addChecks(known, checksById);
    // Several instances of a service on one node are not so common that their ids were worth building beforehand.
    known.ids ??= new Set([this.#id(known.idStart, known.idEnd)]);
    const before = known.ids.size;
    known.ids.add(this.#id(idStart, idEnd));
    this.instances += known.ids.size - before;
  }

  #find(name: string): ReadNode | undefined {
    const { nodes } = this;
    if (nodes.length > FEW_NODES) this.#byName ??= new Map(nodes.map((node) => [node.name, node]));
    if (this.#byName !== undefined) return this.#byName.get(name);
    for (const node of nodes) if (node.name === name) return node;
    return undefined;
  }

  #addChecks(node: ReadNode, checks: ReadonlyMap<string, Place>): void {
    node.checksById ??= new Map();
    for (const [id, place] of checks) node.checksById.set(id, place);
    this.#boundNodeChecks(node.checksById.size);
  }

  #boundNodeChecks(count: number): void {
    const most = this.#limits.checksPerNode;
    if (count > most) this.#exhaustInstance(`more than ${most} checks of its node`);
  }

  #id(start: number, end: number): string {
    return lowerCase(this.#bytes.toString("utf8", start, end));
  }

  #node(end: number): string {
    let name = "";
    this.#mapTag = 0;
    while (this.#position < end) {
      const tag = this.#tag(end);
      switch (tag) {
        case NODE_NAME:
          name = this.#name(end);
          break;
        case NODE_ID:
        case NODE_ADDRESS:
        case NODE_DATACENTER:
        case NODE_PARTITION:
        case NODE_PEER_NAME:
          this.#text(end);
          break;
        case NODE_META:
        case NODE_TAGGED_ADDRESSES:
          this.#countEntries(1);
          this.#mapEntry(tag, this.#message(end), false);
          break;
        case NODE_LOCALITY:
          this.#inFull(end, readLocality);
          break;
        default:
          this.#skip(tag, end);
      }
    }
    return name;
  }

  #service(end: number): void {
    let nameStart = 0;
    let nameEnd = 0;
    this.#mapTag = 0;
    while (this.#position < end) {
      const tag = this.#tag(end);
      switch (tag) {
        case SERVICE_ID:
          this.#text(end);
          this.#idStart = this.#textStart;
          this.#idEnd = this.#textEnd;
          break;
        case SERVICE_NAME:
          this.#text(end);
          nameStart = this.#textStart;
          nameEnd = this.#textEnd;
          break;
        case SERVICE_TAGS:
          this.#tags++;
          this.#countEntries(1);
          this.#text(end);
          break;
        case SERVICE_KIND:
        case SERVICE_ADDRESS:
        case SERVICE_SOCKET_PATH:
        case SERVICE_PEER_NAME:
          this.#text(end);
          break;
        case SERVICE_META:
          this.#countEntries(1);
          this.#mapEntry(tag, this.#message(end), false);
          break;
        case SERVICE_TAGGED_ADDRESSES:
          this.#countEntries(1);
          this.#mapEntry(tag, this.#message(end), true);
          break;
        case SERVICE_WEIGHTS:
          this.#passOver(this.#message(end));
          break;
        // Rare enough to be read in full, which checks them as well.
        case SERVICE_PROXY:
          this.#speaksFor(this.#inFull(end, readProxy).destinationServiceName || undefined);
          break;
        case SERVICE_CONNECT:
          this.#speaksFor(this.#inFull(end, readConnect).native ? "" : undefined);
          break;
        case SERVICE_LOCALITY:
          this.#inFull(end, readLocality);
          break;
        case SERVICE_PORTS:
          this.#countEntries(1);
          this.#inFull(end, readPort);
          break;
        default:
          this.#skip(tag, end);
      }
    }
    this.#serviceName(nameStart, nameEnd);
  }

  /** @param destination - `""`: the service itself; undefined: for none. */
  #speaksFor(destination: string | undefined): void {
    if (destination === undefined) return;
    this.mesh ??= new Set();
    this.mesh.add(destination);
    const most = this.#limits.destinationsPerService;
    if (this.mesh.size > most) this.#exhaust(`they speak for more than ${most} services`);
  }

  #serviceName(start: number, end: number): void {
    const firstStart = this.#serviceNameStart;
    const firstEnd = this.#serviceNameEnd;
    if (this.service !== undefined && this.#compare(firstStart, firstEnd, start, end) === 0) return;
    const most = this.#limits.nameBytes;
    if (end - start > most) this.#exhaustInstance(`the name of its service has more than ${most} bytes`);
    const name = this.#bytes.toString("utf8", start, end);
    if (name === "") {
      this.#refuseInstance("its service has no name");
    } else if (this.service === undefined) {
      this.service = name;
      this.serviceKey = lowerCase(name);
      this.#serviceNameStart = start;
      this.#serviceNameEnd = end;
    } else if (lowerCase(name) !== this.serviceKey) {
      this.#refuseInstance(
        `its service is named ${JSON.stringify(name)}, that of others ${JSON.stringify(this.service)}`,
      );
    }
  }

  #check(end: number): void {
    const start = this.#position;
    let idStart = 0;
    let idEnd = 0;
    let ofNode = true;
    while (this.#position < end) {
      const tag = this.#tag(end);
      switch (tag) {
        case CHECK_ID:
          this.#text(end);
          idStart = this.#textStart;
          idEnd = this.#textEnd;
          break;
        case CHECK_SERVICE_ID:
          this.#text(end);
          ofNode = this.#textEnd === this.#textStart;
          break;
        case CHECK_SERVICE_TAGS:
          this.#countEntries(1);
          this.#text(end);
          break;
        case CHECK_NODE:
        case CHECK_NAME:
        case CHECK_STATUS:
        case CHECK_NOTES:
        case CHECK_OUTPUT:
        case CHECK_SERVICE_NAME:
        case CHECK_TYPE:
        case CHECK_INTERVAL:
        case CHECK_TIMEOUT:
        case CHECK_PEER_NAME:
          this.#text(end);
          break;
        default:
          this.#skip(tag, end);
      }
    }
    if (idStart === idEnd) this.#refuseInstance("a check has no id");
    if (!ofNode) return;
    this.#nodeChecks ??= new Map();
    this.#nodeChecks.set(this.#id(idStart, idEnd), { start, end });
    this.#boundNodeChecks(this.#nodeChecks.size);
  }

  #mapEntry(map: number, end: number, ofAddresses: boolean): void {
    let keyStart = 0;
    let keyEnd = 0;
    while (this.#position < end) {
      const tag = this.#tag(end);
      if (tag === MAP_KEY) {
        this.#text(end);
        keyStart = this.#textStart;
        keyEnd = this.#textEnd;
      } else if (tag !== MAP_VALUE) {
        this.#skip(tag, end);
      } else if (ofAddresses) {
        this.#address(this.#message(end));
      } else {
        this.#text(end);
      }
    }
    if (this.#mapTag === map && this.#compare(this.#keyStart, this.#keyEnd, keyStart, keyEnd) > 0) this.sorted = false;
    this.#mapTag = map;
    this.#keyStart = keyStart;
    this.#keyEnd = keyEnd;
  }

  #address(end: number): void {
    while (this.#position < end) {
      const tag = this.#tag(end);
      if (tag === ADDRESS_ADDRESS) this.#text(end);
      else this.#skip(tag, end);
    }
  }

  /** Passes over a message without text. */
  #passOver(end: number): void {
    while (this.#position < end) this.#skip(this.#tag(end), end);
  }

  #compare(leftStart: number, leftEnd: number, rightStart: number, rightEnd: number): number {
    const bytes = this.#bytes;
    const length = Math.min(leftEnd - leftStart, rightEnd - rightStart);
    for (let index = 0; index < length; index++) {
      const difference = (bytes[leftStart + index] ?? 0) - (bytes[rightStart + index] ?? 0);
      if (difference !== 0) return difference;
    }
    return leftEnd - leftStart - (rightEnd - rightStart);
  }

  /** Passes over a text. True: it is all ASCII. */
  #text(end: number): boolean {
    const textEnd = this.#message(end);
    const bytes = this.#bytes;
    const start = this.#position;
    this.#textStart = start;
    this.#textEnd = textEnd;
    this.#position = textEnd;
    for (let index = start; index < textEnd; index++) {
      if ((bytes[index] ?? 0) < 0x80) continue;
      if (!isUtf8(bytes.subarray(index, textEnd))) throw malformed("string field contains invalid UTF-8");
      return false;
    }
    return true;
  }

  /** The name of a node. */
  #name(end: number): string {
    const encoding = this.#text(end) ? "latin1" : "utf8";
    const most = this.#limits.nameBytes;
    const length = this.#textEnd - this.#textStart;
    if (length > most) this.#exhaustInstance(`the name of its node has more than ${most} bytes`);
    return this.#bytes.toString(encoding, this.#textStart, this.#textEnd);
  }

  /** The end of the length-delimited field whose content begins at the position now. */
  #message(end: number): number {
    const length = this.#varint(end);
    const position = this.#position + length;
    if (position > end) throw malformed("unexpected end of the message");
    return position;
  }

  /** Reads a message that begins here as whatever decodes it does. */
  #inFull<Result>(end: number, read: (reader: ProtobufReader) => Result): Result {
    const messageEnd = this.#message(end);
    const before = this.#fields;
    const result = this.#within(messageEnd, read);
    this.#position = messageEnd;
    this.#countEntries(this.#fields - before);
    return result;
  }

  /** Counts the fields that are read by another reader, and leaves it no more of them than an instance may have. */
  #within<Result>(end: number, read: (reader: ProtobufReader) => Result): Result {
    const most = Math.min(this.#limits.fieldsPerInstance, this.#mostFields - this.#fields);
    const budget = new ReadBudget(most, Number.POSITIVE_INFINITY);
    const reader = new ProtobufReader(this.#bytes, this.#position, end, budget);
    try {
      const result = read(reader);
      this.#position = reader.position;
      return result;
    } catch (error) {
      if (asPeeringError(error, "invalid-message").code === "resource-exhausted") this.#tooManyFields();
      throw error;
    } finally {
      this.#fields += budget.fieldsRead;
    }
  }

  #tooManyFields(): never {
    return this.#exhaustInstance(`more than ${this.#limits.fieldsPerInstance} fields`);
  }

  /** The tag of the next field, which is counted. */
  #tag(end: number): number {
    if (++this.#fields > this.#mostFields) this.#tooManyFields();
    return this.#varint(end);
  }

  #varint(end: number): number {
    const bytes = this.#bytes;
    const position = this.#position;
    const first = bytes[position] ?? 0;
    if (first < 0x80 && position < end) {
      this.#position = position + 1;
      return first;
    }
    const second = bytes[position + 1] ?? 0;
    if (second < 0x80 && position + 1 < end) {
      this.#position = position + 2;
      return (first & 0x7f) | (second << 7);
    }
    const reader = new ProtobufReader(bytes, position, end);
    const value = reader.uint64();
    this.#position = reader.position;
    return value > 0xffff_ffffn ? Number.POSITIVE_INFINITY : Number(value);
  }

  #skip(tag: number, end: number): void {
    const type = tag & 7;
    if (tag < 8 || tag === Number.POSITIVE_INFINITY) throw malformed("invalid field number");
    if (type === WireType.Varint) {
      this.#varint(end);
    } else if (type === WireType.LengthDelimited) {
      this.#position = this.#message(end);
    } else {
      this.#within(end, (reader) => reader.skip(tag));
    }
  }
}

function malformed(why: string): PeeringError {
  return new PeeringError("invalid-message", why, { status: StatusCode.Internal });
}

/**
 * The payload with the entries of every map in order of their keys: equal bytes are equal content. Consul's maps come in
 * another order each time it sends them (1.13 to 1.22), ours in this one. Nothing else moves.
 *
 * @param value - what {@link inspectPayload} found good.
 */
export function canonicalPayload(value: Uint8Array): Uint8Array {
  return doAll(canonicalSteps(value));
}

/** As {@link canonicalPayload}, in steps. */
export function* canonicalSteps(value: Uint8Array): Steps<Uint8Array> {
  const sorted = Buffer.allocUnsafe(value.length);
  const reader = new ProtobufReader(value);
  for (let copied = 0, start = 0; start < value.length; start = reader.position) {
    const tag = reader.tag();
    const instance = tag === NODES ? reader.message() : undefined;
    if (instance === undefined) reader.skip(tag);
    sorted.set(value.subarray(start, reader.position), start);
    if (instance !== undefined) sortInstance(instance, value, sorted);
    if (reader.position - copied < SORTED_BATCH) continue;
    copied = reader.position;
    yield;
  }
  return sorted;
}

function sortInstance(reader: ProtobufReader, value: Uint8Array, sorted: Buffer): void {
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === INSTANCE_NODE) sortMaps(reader.message(), [NODE_META, NODE_TAGGED_ADDRESSES], value, sorted);
    else if (tag === INSTANCE_SERVICE)
      sortMaps(reader.message(), [SERVICE_META, SERVICE_TAGGED_ADDRESSES], value, sorted);
    else reader.skip(tag);
  }
}

interface KeyedPlace extends Place {
  readonly key: Uint8Array;
}

/** Entries that stand together change places within the room they have together, so that no length changes. */
function sortMaps(reader: ProtobufReader, maps: readonly number[], value: Uint8Array, sorted: Buffer): void {
  let entries: KeyedPlace[] = [];
  let map = 0;
  const endMap = (): void => {
    let position = entries[0]?.start ?? 0;
    for (const { start, end } of entries.sort((left, right) => Buffer.compare(left.key, right.key))) {
      sorted.set(value.subarray(start, end), position);
      position += end - start;
    }
    entries = [];
  };
  while (!reader.done) {
    const start = reader.position;
    const tag = reader.tag();
    if (tag !== map) endMap();
    map = tag;
    if (!maps.includes(tag)) {
      reader.skip(tag);
      continue;
    }
    const key = readKey(reader.message());
    entries.push({ start, end: reader.position, key });
  }
  endMap();
}

function readKey(reader: ProtobufReader): Uint8Array {
  let key: Uint8Array = new Uint8Array();
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === MAP_KEY) key = reader.bytes();
    else reader.skip(tag);
  }
  return key;
}
