import { isUtf8 } from "node:buffer";
import { errorText, PeeringError } from "../errors.js";
import { ProtobufReader, WireType } from "../wire/protobuf.js";
import { StatusCode } from "../wire/status.js";
import { readConnect, readLocality, readPort, readProxy } from "./imported-payload.js";
import { lowerCase } from "./names.js";

/** Bounds on one payload; what exceeds them is refused, and the stream goes on. Ours; Consul has none. */
export interface PayloadLimits {
  /** Instances of one service. Default 50 000. */
  readonly instancesPerService: number;
  /** Checks of one instance. Default 1 000. */
  readonly checksPerInstance: number;
}

export const defaultPayloadLimits: PayloadLimits = { instancesPerService: 50_000, checksPerInstance: 1_000 };

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

/** What must be known of a payload that is stored as it came. */
export interface PayloadSummary {
  /** The service as its instances spell it; of a payload without instances, the resource id. */
  readonly service: string;
  readonly instances: number;
  /** Each node once, in order of appearance. */
  readonly nodes: readonly NodePlace[];
  /** Whether every map comes in order of its keys; where not, {@link canonicalPayload} puts it so. */
  readonly sorted: boolean;
  /** Services of the mesh for which an instance speaks, lower-cased: the destinations of proxies, a native service itself. */
  readonly mesh: readonly string[];
}

/**
 * The names, lower-cased, under which a resource id may be meant: the id itself, and where it may be qualified by an
 * Enterprise partition and namespace, its last part (specification 4.3.2).
 */
export function serviceKeys(resourceId: string): readonly [string, ...string[]] {
  const key = lowerCase(resourceId);
  if (!key.includes("/")) return [key];
  const [, , last = "", ...rest] = key.split("/");
  return last === "" || rest.length > 0 ? [key] : [key, last];
}

/**
 * Judges the payload of an `ExportedService` without building what it describes: whether it is well-formed and names what
 * must be named (specification 4.4.2, D-30). Values are not judged: unknown kinds, statuses, ports are stored as they come.
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
  try {
    inspection.run();
  } catch (error) {
    throw new PeeringError("invalid-message", `failed to unmarshal resource: ${errorText(error)}`, {
      cause: error,
      status: StatusCode.Internal,
    });
  }
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
  const { instances, nodes, sorted, mesh } = inspection;
  return { service, instances, nodes: Array.from(nodes.values(), placeOf), sorted, mesh: meshOf(mesh, serviceKey) };
}

// The numbers of package hashicorp.consul.internal.service, by message, as tags. Written out, so that a switch over them is
// one over numbers.
const NODES = 0x0a;
const MAP_KEY = 0x0a;
const MAP_VALUE = 0x12;
const INSTANCE_NODE = 0x0a;
const INSTANCE_SERVICE = 0x12;
const INSTANCE_CHECK = 0x1a;
const NODE_ID = 0x0a;
const NODE_NAME = 0x12;
const NODE_ADDRESS = 0x1a;
const NODE_DATACENTER = 0x22;
const NODE_TAGGED_ADDRESSES = 0x2a;
const NODE_META = 0x32;
const NODE_PARTITION = 0x42;
const NODE_PEER_NAME = 0x4a;
const SERVICE_KIND = 0x0a;
const SERVICE_ID = 0x12;
const SERVICE_NAME = 0x1a;
const SERVICE_TAGS = 0x22;
const SERVICE_ADDRESS = 0x2a;
const SERVICE_META = 0x32;
const SERVICE_WEIGHTS = 0x42;
const SERVICE_PROXY = 0x5a;
const SERVICE_CONNECT = 0x62;
const SERVICE_TAGGED_ADDRESSES = 0x7a;
const SERVICE_SOCKET_PATH = 0x8a;
const SERVICE_PEER_NAME = 0x92;
const SERVICE_LOCALITY = 0x9a;
const SERVICE_PORTS = 0xa2;
const ADDRESS_ADDRESS = 0x0a;
const CHECK_NODE = 0x0a;
const CHECK_ID = 0x12;
const CHECK_NAME = 0x1a;
const CHECK_STATUS = 0x22;
const CHECK_NOTES = 0x2a;
const CHECK_OUTPUT = 0x32;
const CHECK_SERVICE_ID = 0x3a;
const CHECK_SERVICE_NAME = 0x42;
const CHECK_SERVICE_TAGS = 0x4a;
const CHECK_TYPE = 0x62;
const CHECK_INTERVAL = 0x7a;
const CHECK_TIMEOUT = 0x82;
const CHECK_PEER_NAME = 0x8a;

interface MutablePlace {
  readonly name: string;
  readonly start: number;
  readonly end: number;
  /** By lower-cased id, the last of each. */
  checks: Map<string, Place> | undefined;
  /** The service id that came first, and once there are several all of them, lower-cased. */
  readonly firstId: Place;
  ids: Set<string> | undefined;
}

const none: readonly Place[] = [];
const noMesh: readonly string[] = [];

/** @param names - undefined: of none; `""` stands for the service itself. */
function meshOf(names: ReadonlySet<string> | undefined, serviceKey: string | undefined): readonly string[] {
  if (names === undefined || serviceKey === undefined) return noMesh;
  return [...new Set(Array.from(names, (name) => (name === "" ? serviceKey : lowerCase(name))))];
}

function placeOf({ name, start, end, checks }: MutablePlace): NodePlace {
  return { name, start, end, checks: checks === undefined ? none : [...checks.values()] };
}

/**
 * One pass over the bytes, for hundreds of thousands of instances a second: no object per message or text. What does not
 * occur in what Consul sends goes through {@link ProtobufReader}.
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
  /** Checks of the node among those of the instance, by lower-cased id. */
  #nodeChecks: Map<string, Place> | undefined;
  /** Instances read, duplicates too. */
  #read = 0;
  instances = 0;
  sorted = true;
  readonly nodes = new Map<string, MutablePlace>();
  service: string | undefined;
  /** Lower-cased. */
  serviceKey: string | undefined;
  /** Destinations of proxies, and `""` when an instance is native; undefined: what most payloads have. */
  mesh: Set<string> | undefined;
  problem: { readonly reason: string; readonly exhausted: boolean } | undefined;

  constructor(value: Uint8Array, limits: PayloadLimits) {
    this.#bytes = Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    this.#limits = limits;
  }

  run(): void {
    const end = this.#bytes.length;
    while (this.#position < end) {
      const tag = this.#varint(end);
      if (tag !== NODES) {
        this.#skip(tag, end);
        continue;
      }
      this.#instance(this.#message(end));
      this.#read++;
    }
    const most = this.#limits.instancesPerService;
    if (this.#read > most) this.refuse(`more than ${most} instances`, true);
  }

  /** The first reason counts. Reading goes on, since bytes that are malformed are a reason before any other. */
  refuse(reason: string, exhausted = false): void {
    this.problem ??= { reason, exhausted };
  }

  #refuseInstance(why: string, exhausted = false): void {
    this.refuse(`instance ${this.#read + 1}: ${why}`, exhausted);
  }

  #instance(end: number): void {
    let nodes = 0;
    let services = 0;
    let checks = 0;
    let name = "";
    let nodeStart = 0;
    let nodeEnd = 0;
    this.#idEnd = this.#idStart;
    this.#nodeChecks = undefined;
    while (this.#position < end) {
      const tag = this.#varint(end);
      if (tag === INSTANCE_NODE) {
        nodes++;
        nodeEnd = this.#message(end);
        nodeStart = this.#position;
        name = this.#node(nodeEnd);
      } else if (tag === INSTANCE_SERVICE) {
        services++;
        this.#service(this.#message(end));
      } else if (tag === INSTANCE_CHECK) {
        checks++;
        this.#check(this.#message(end));
      } else {
        this.#skip(tag, end);
      }
    }
    if (nodes !== 1) this.#refuseInstance(nodes === 0 ? "it has no node" : "it has several nodes");
    else if (name === "") this.#refuseInstance("its node has no name");
    if (services !== 1) this.#refuseInstance(services === 0 ? "it has no service" : "it has several services");
    else if (this.#idStart === this.#idEnd) this.#refuseInstance("its service has no id");
    const most = this.#limits.checksPerInstance;
    if (checks > most) this.#refuseInstance(`more than ${most} checks`, true);
    this.#add(lowerCase(name), nodeStart, nodeEnd);
  }

  /** The first copy of a node counts, and an instance once. */
  #add(name: string, start: number, end: number): void {
    const firstId = { start: this.#idStart, end: this.#idEnd };
    const known = this.nodes.get(name);
    if (known === undefined) {
      this.nodes.set(name, { name, start, end, checks: this.#nodeChecks, firstId, ids: undefined });
      this.instances++;
      return;
    }
    if (this.#nodeChecks !== undefined) this.#addChecks(known, this.#nodeChecks);
    // Several instances of a service on one node are not so common that their ids were worth building beforehand.
    known.ids ??= new Set([this.#id(known.firstId)]);
    const before = known.ids.size;
    known.ids.add(this.#id(firstId));
    this.instances += known.ids.size - before;
  }

  #addChecks(node: MutablePlace, checks: ReadonlyMap<string, Place>): void {
    node.checks ??= new Map();
    for (const [id, place] of checks) node.checks.set(id, place);
    const most = this.#limits.checksPerInstance;
    if (node.checks.size > most) this.#refuseInstance(`more than ${most} checks of its node`, true);
  }

  #id({ start, end }: Place): string {
    return lowerCase(this.#bytes.toString("utf8", start, end));
  }

  #node(end: number): string {
    let name = "";
    this.#mapTag = 0;
    while (this.#position < end) {
      const tag = this.#varint(end);
      switch (tag) {
        case NODE_NAME:
          name = this.#text(end) ? this.#ascii() : this.#utf8();
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
          this.#mapEntry(tag, this.#message(end), false);
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
      const tag = this.#varint(end);
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
        case SERVICE_KIND:
        case SERVICE_TAGS:
        case SERVICE_ADDRESS:
        case SERVICE_SOCKET_PATH:
        case SERVICE_PEER_NAME:
          this.#text(end);
          break;
        case SERVICE_META:
          this.#mapEntry(tag, this.#message(end), false);
          break;
        case SERVICE_TAGGED_ADDRESSES:
          this.#mapEntry(tag, this.#message(end), true);
          break;
        case SERVICE_WEIGHTS:
          this.#fields(this.#message(end));
          break;
        // Rare enough to be read in full, which checks them as well.
        case SERVICE_PROXY:
          this.#speaksFor(readProxy(this.#reader(this.#message(end))).destinationServiceName || undefined);
          break;
        case SERVICE_CONNECT:
          this.#speaksFor(readConnect(this.#reader(this.#message(end))).native ? "" : undefined);
          break;
        case SERVICE_LOCALITY:
          readLocality(this.#reader(this.#message(end)));
          break;
        case SERVICE_PORTS:
          readPort(this.#reader(this.#message(end)));
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
  }

  #serviceName(start: number, end: number): void {
    const firstStart = this.#serviceNameStart;
    const firstEnd = this.#serviceNameEnd;
    if (this.service !== undefined && this.#compare(firstStart, firstEnd, start, end) === 0) return;
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
      const tag = this.#varint(end);
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
        case CHECK_NODE:
        case CHECK_NAME:
        case CHECK_STATUS:
        case CHECK_NOTES:
        case CHECK_OUTPUT:
        case CHECK_SERVICE_NAME:
        case CHECK_SERVICE_TAGS:
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
    this.#nodeChecks.set(this.#id({ start: idStart, end: idEnd }), { start, end });
  }

  #mapEntry(map: number, end: number, ofAddresses: boolean): void {
    let keyStart = 0;
    let keyEnd = 0;
    while (this.#position < end) {
      const tag = this.#varint(end);
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
      const tag = this.#varint(end);
      if (tag === ADDRESS_ADDRESS) this.#text(end);
      else this.#skip(tag, end);
    }
  }

  /** Passes over a message without text. */
  #fields(end: number): void {
    while (this.#position < end) this.#skip(this.#varint(end), end);
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

  #ascii(): string {
    return this.#bytes.toString("latin1", this.#textStart, this.#textEnd);
  }

  #utf8(): string {
    return this.#bytes.toString("utf8", this.#textStart, this.#textEnd);
  }

  /** The end of the length-delimited field whose content begins at the position now. */
  #message(end: number): number {
    const length = this.#varint(end);
    const position = this.#position + length;
    if (position > end) throw malformed("unexpected end of the message");
    return position;
  }

  /** A reader of a message that begins here; the position goes behind it. */
  #reader(end: number): ProtobufReader {
    const reader = new ProtobufReader(this.#bytes, this.#position, end);
    this.#position = end;
    return reader;
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
      const reader = new ProtobufReader(this.#bytes, this.#position, end);
      reader.skip(tag);
      this.#position = reader.position;
    }
  }
}

function malformed(why: string): PeeringError {
  return new PeeringError("invalid-message", why, { status: StatusCode.Internal });
}

/**
 * The payload with the entries of every map in order of their keys: equal bytes are equal content. Consul's maps come in
 * another order each time it sends them (1.13 to 1.22), ours in this one.
 *
 * @param value - what {@link inspectPayload} found good.
 */
export function canonicalPayload(value: Uint8Array): Uint8Array {
  const sorted = Buffer.from(value);
  const reader = new ProtobufReader(value);
  while (!reader.done) {
    const tag = reader.tag();
    if (tag === NODES) sortInstance(reader.message(), value, sorted);
    else reader.skip(tag);
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

interface MapEntry extends Place {
  readonly key: Uint8Array;
}

/** Entries that stand together change places within the room they have together, so that no length changes. */
function sortMaps(reader: ProtobufReader, maps: readonly number[], value: Uint8Array, sorted: Buffer): void {
  let entries: MapEntry[] = [];
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
