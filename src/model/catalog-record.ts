import { compareUtf8 } from "../base/byte-order.js";
import { SortedMap } from "../base/sorted-map.js";
import { unquoted } from "../base/unquoted.js";
import type {
  Check,
  JsonObject,
  Node,
  Proxy as ProxyDefinition,
  Service,
  ServiceInstance,
  StringMap,
} from "./instance.js";
import { isEmptyMap } from "./kept-members.js";
import { type Table, type Uses, useFields } from "./record-table.js";
import {
  checkTable,
  nodeTable,
  serviceTable,
  weightsTable,
  writtenOutOfCheck,
  writtenOutOfNode,
  writtenOutOfService,
} from "./records.js";
import { parseCheckShape, parseNodeShape, parseServiceShape } from "./registration.js";

/** The index of one write; 0 until the commit that carries it is known to have succeeded. */
export interface Stamp {
  index: bigint;
}

export interface CheckRecord {
  readonly check: Check;
  readonly created: Stamp;
  readonly modified: Stamp;
}

/** By key, in byte order. Each is stored by itself, so that a change of one costs the same however many there are. */
export type CheckRecords = SortedMap<CheckRecord>;

export const noChecks: CheckRecords = SortedMap.of(new Map(), compareUtf8);

/** A node with its own checks. */
export interface NodeRecord {
  readonly node: Node;
  readonly checks: CheckRecords;
  readonly created: Stamp;
  readonly modified: Stamp;
}

/** One instance of a service with its own checks. */
export interface InstanceRecord {
  /** Lower-cased node name. */
  readonly nodeKey: string;
  /** Lower-cased service id. */
  readonly key: string;
  readonly service: Service;
  readonly checks: CheckRecords;
  readonly created: Stamp;
  readonly modified: Stamp;
  /** The record as readers get it, built at the first read, and the state of the node it was built from. */
  view: ServiceInstance | undefined;
  viewOf: NodeRecord | undefined;
}

/** A virtual IP of a service: an offset into 240.0.0.0/4. */
export interface VirtualIpRecord {
  /** `""` for local services. */
  readonly peer: string;
  /** Lower-cased service name. */
  readonly service: string;
  readonly offset: number;
  /** Held by something that is not an instance of the catalog (a config entry, an import). */
  readonly claimed: boolean;
  /** Further addresses that an operator gave it; local services alone have any. */
  readonly manual?: readonly string[];
}

// Buffers share memory among small values, which costs far less than an allocation for each.
function utf8(text: string): Uint8Array {
  return Buffer.from(text, "utf8");
}

const decoder = new TextDecoder("utf-8", { fatal: true });

/** Nothing is written for the commit that is being made: its index is the revision of the entry itself. */
function storedIndex(stamp: Stamp, current: Stamp): string | undefined {
  return stamp === current ? undefined : String(stamp.index);
}

/** The fields of a record: what is undefined is not stored. */
type Row = Record<string, unknown>;
type RowOf<Item> = { readonly [Key in keyof Item]?: Item[Key] | undefined };

/** Adds a field to a row, where it has a value. */
type Stored<Item> = (item: Item, row: Row) => void;

/** Values as they are stored: empty ones are left out, and come back as defaults. */
class StoredUses<Item> implements Uses<Item, Stored<Item>> {
  readonly #key: string;

  constructor(key: string) {
    this.#key = key;
  }

  text(get: (item: Item) => string): Stored<Item> {
    return this.#unless(get, (value) => value === "");
  }

  flag(get: (item: Item) => boolean): Stored<Item> {
    return this.#unless(get, (value) => !value);
  }

  int(get: (item: Item) => number): Stored<Item> {
    return this.#unless(get, (value) => value === 0);
  }

  index(get: (item: Item) => bigint): Stored<Item> {
    return (item, row) => {
      row[this.#key] = String(get(item));
    };
  }

  texts(get: (item: Item) => readonly string[]): Stored<Item> {
    return this.#unless(get, (value) => value.length === 0);
  }

  textMap(get: (item: Item) => StringMap): Stored<Item> {
    return this.#unless(get, isEmptyMap);
  }

  one<Inner>(get: (item: Item) => Inner | undefined, { empty }: Table<Inner>): Stored<Item> {
    return this.#unless(get, (value) => value === empty);
  }

  list<Inner>(get: (item: Item) => readonly Inner[] | undefined): Stored<Item> {
    return this.#unless(get, (value) => value === undefined);
  }

  map<Inner>(get: (item: Item) => Readonly<Record<string, Inner>>): Stored<Item> {
    return this.#unless(get, isEmptyMap);
  }

  kept(get: (item: Item) => JsonObject | undefined): Stored<Item> {
    return this.#unless(get, (value) => value === undefined || isEmptyMap(value));
  }

  proxy(get: (item: Item) => ProxyDefinition | undefined): Stored<Item> {
    return this.#unless(get, (value) => value === undefined);
  }

  #unless<Value>(get: (item: Item) => Value, isEmpty: (value: Value) => boolean): Stored<Item> {
    const key = this.#key;
    return (item, row) => {
      const value = get(item);
      if (!isEmpty(value)) row[key] = value;
    };
  }
}

/** @param except - fields that are stored elsewhere. */
function storeOf<Item>(table: Table<Item>, except: ReadonlySet<keyof Item>): (item: Item, row: Row) => void {
  const fields = useFields(table, (_, key) => new StoredUses<Item>(key), except);
  return (item, row) => {
    for (const store of fields) store(item, row);
  };
}

const storeOtherCheckFields = storeOf(checkTable, writtenOutOfCheck);
const storeOtherNodeFields = storeOf(nodeTable, writtenOutOfNode);
const storeOtherServiceFields = storeOf(serviceTable, writtenOutOfService);

/** @param nodeKey - the node that a check has when its row names none. */
function checkRow(check: Check, nodeKey: string): Row {
  const row: Row = {
    node: check.node === nodeKey ? undefined : check.node || undefined,
    checkId: check.checkId || undefined,
    name: check.name || undefined,
    status: check.status || undefined,
    notes: check.notes || undefined,
    output: check.output || undefined,
    serviceId: check.serviceId || undefined,
    serviceName: check.serviceName || undefined,
    serviceTags: check.serviceTags.length === 0 ? undefined : check.serviceTags,
    type: check.type || undefined,
    interval: check.interval || undefined,
    timeout: check.timeout || undefined,
    exposedPort: check.exposedPort || undefined,
    definition: isEmptyMap(check.definition) ? undefined : check.definition,
  } satisfies RowOf<Check>;
  storeOtherCheckFields(check, row);
  return row;
}

function nodeRow(node: Node): Row {
  const row: Row = {
    id: node.id || undefined,
    name: node.name || undefined,
    address: node.address || undefined,
    datacenter: node.datacenter || undefined,
    taggedAddresses: isEmptyMap(node.taggedAddresses) ? undefined : node.taggedAddresses,
    meta: isEmptyMap(node.meta) ? undefined : node.meta,
    locality: node.locality,
  } satisfies RowOf<Node>;
  storeOtherNodeFields(node, row);
  return row;
}

function serviceRow(service: Service): Row {
  const row: Row = {
    kind: service.kind || undefined,
    id: service.id || undefined,
    name: service.name || undefined,
    tags: service.tags.length === 0 ? undefined : service.tags,
    address: service.address || undefined,
    taggedAddresses: isEmptyMap(service.taggedAddresses) ? undefined : service.taggedAddresses,
    meta: isEmptyMap(service.meta) ? undefined : service.meta,
    port: service.port || undefined,
    ports: service.ports,
    socketPath: service.socketPath || undefined,
    weights: service.weights === weightsTable.empty ? undefined : service.weights,
    enableTagOverride: service.enableTagOverride || undefined,
    locality: service.locality,
    proxy: service.proxy,
    connect: service.connect,
  } satisfies RowOf<Service>;
  storeOtherServiceFields(service, row);
  return row;
}

/**
 * @param current - the stamp of the commit that will hold the value.
 */
export function encodeCheckRecord(record: CheckRecord, nodeKey: string, current: Stamp): Uint8Array {
  const { created, modified } = record;
  return utf8(
    JSON.stringify({
      check: checkRow(record.check, nodeKey),
      c: storedIndex(created, current),
      m: storedIndex(modified, current),
    }),
  );
}

/** @param current - the stamp of the commit that will hold the value. */
export function encodeNodeRecord(record: NodeRecord, current: Stamp): Uint8Array {
  const { created, modified } = record;
  return utf8(
    JSON.stringify({ node: nodeRow(record.node), c: storedIndex(created, current), m: storedIndex(modified, current) }),
  );
}

/** @param current - the stamp of the commit that will hold the value. */
export function encodeInstanceRecord(record: InstanceRecord, current: Stamp): Uint8Array {
  const { created, modified } = record;
  return utf8(
    JSON.stringify({
      service: serviceRow(record.service),
      c: storedIndex(created, current),
      m: storedIndex(modified, current),
    }),
  );
}

export function encodeVirtualIpRecord(record: VirtualIpRecord): Uint8Array {
  return utf8(JSON.stringify({ offset: record.offset, claimed: record.claimed || undefined, manual: record.manual }));
}

/** An object as it was stored: which of these it has, and what they hold, is still to be seen. */
interface Json {
  readonly node?: unknown;
  readonly service?: unknown;
  readonly checks?: unknown;
  readonly check?: unknown;
  /** Index of creation, and of the last change; absent: the entry's own revision. */
  readonly c?: unknown;
  readonly m?: unknown;
  readonly offset?: unknown;
  readonly claimed?: unknown;
  readonly manual?: unknown;
}

function isJson(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parsed(value: Uint8Array): Json {
  const json: unknown = unquoted(() => JSON.parse(decoder.decode(value)));
  if (!isJson(json)) throw new TypeError("it is no JSON object");
  return json;
}

/** Stamps of equal indexes are one object: a catalog holds many more records than it saw commits. */
export type StampOf = (index: bigint) => Stamp;

function stampFrom(value: unknown, entryRevision: bigint, stampOf: StampOf): Stamp {
  if (value === undefined) return stampOf(entryRevision);
  if (typeof value !== "string" || !/^\d{1,20}$/.test(value)) throw new TypeError("an index is no number");
  return stampOf(BigInt(value));
}

function stampsFrom(json: Json, entryRevision: bigint, stampOf: StampOf): { created: Stamp; modified: Stamp } {
  return {
    created: stampFrom(json.c, entryRevision, stampOf),
    modified: stampFrom(json.m, entryRevision, stampOf),
  };
}

/** @throws why it is not what {@link encodeCheckRecord} writes. */
export function decodeCheckRecord(nodeKey: string, value: Uint8Array, revision: bigint, stampOf: StampOf): CheckRecord {
  const json = parsed(value);
  const check = parseCheckShape(json.check, nodeKey);
  if (check.checkId === "") throw new TypeError("the check has no id");
  return { check, ...stampsFrom(json, revision, stampOf) };
}

/** Versions before 0.1 stored checks with their node or service; what they stored is not read. */
function requireNoChecks(json: Json): void {
  if (json.checks === undefined) return;
  throw new TypeError("it was written by a version before 0.1, so begin with an empty data directory");
}

/** Services with many checks share one list of tags with them. */
export function withSharedTags(record: CheckRecord, service: Service): CheckRecord {
  const { check } = record;
  if (check.serviceTags === service.tags || !sameTags(check.serviceTags, service.tags)) return record;
  return { ...record, check: Object.freeze({ ...check, serviceTags: service.tags }) };
}

function checkRecords(checks: ReadonlyMap<string, CheckRecord>): CheckRecords {
  return checks.size === 0 ? noChecks : SortedMap.of(checks, compareUtf8);
}

function sameTags(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((tag, index) => tag === right[index]);
}

/**
 * @param checks - those of the node itself, by key.
 * @throws why it is not what {@link encodeNodeRecord} writes.
 */
export function decodeNodeRecord(
  value: Uint8Array,
  revision: bigint,
  stampOf: StampOf,
  checks: ReadonlyMap<string, CheckRecord>,
): NodeRecord {
  const json = parsed(value);
  requireNoChecks(json);
  const node = parseNodeShape(json.node, "");
  if (node.name === "") throw new TypeError("the node has no name");
  return {
    node,
    checks: checkRecords(checks),
    ...stampsFrom(json, revision, stampOf),
  };
}

/**
 * @param checks - those of the instance, by key.
 * @throws why it is not what {@link encodeInstanceRecord} writes.
 */
export function decodeInstanceRecord(
  nodeKey: string,
  serviceKey: string,
  value: Uint8Array,
  revision: bigint,
  stampOf: StampOf,
  checks: ReadonlyMap<string, CheckRecord>,
): InstanceRecord {
  const json = parsed(value);
  requireNoChecks(json);
  const service = parseServiceShape(json.service);
  if (service.name === "" || service.id === "") throw new TypeError("the service has no name or no id");
  return {
    nodeKey,
    key: serviceKey,
    service,
    checks: checkRecords(new Map(Array.from(checks, ([id, record]) => [id, withSharedTags(record, service)]))),
    ...stampsFrom(json, revision, stampOf),
    view: undefined,
    viewOf: undefined,
  };
}

/** @throws why it is not what {@link encodeVirtualIpRecord} writes. */
export function decodeVirtualIpRecord(peer: string, service: string, value: Uint8Array): VirtualIpRecord {
  const { offset, claimed, manual = [] } = parsed(value);
  if (typeof offset !== "number" || !Number.isInteger(offset) || offset < 1) throw new TypeError("no usable offset");
  if (!Array.isArray(manual) || !manual.every((address) => typeof address === "string")) {
    throw new TypeError("no usable addresses");
  }
  return { peer, service, offset, claimed: claimed === true, ...(manual.length > 0 && { manual }) };
}
