import { compareUtf8 } from "../base/byte-order.js";
import { KeptOrder } from "../base/kept-order.js";
import { SortedMap } from "../base/sorted-map.js";
import { SHORT_STEP_FIELDS, StepMeter, type Steps } from "../base/steps.js";
import { sortSteps } from "../base/turns.js";
import { lowerCase } from "../syntax/names.js";
import { CatalogCounts, type CountedCatalog } from "./catalog-counts.js";
import {
  type AppliedDraft,
  CatalogDraft,
  type CommittedCatalog,
  connectName,
  type NodeChanges,
} from "./catalog-draft.js";
import type { CheckRecord, CheckRecords, InstanceRecord, NodeRecord, VirtualIpRecord } from "./catalog-record.js";
import { CheckGroup, LISTED_AT_ONCE, withGroups } from "./check-groups.js";
import type { Check, ServiceInstance, ServiceKind } from "./instance.js";
import { emptyList } from "./record-table.js";
import { VirtualIps, virtualIpAddress, virtualIpKey } from "./virtual-ips.js";

/** Which kinds of instances a service name has. */
export interface ServiceKinds {
  /** As registered. */
  readonly name: string;
  /** Has an instance without a kind. */
  readonly typical: boolean;
  /** Has one that does not speak for itself in the mesh either: gateways to services outside of it front such services. */
  readonly ordinary: boolean;
  /** Has a connect-native instance, or a proxy names it as its destination. */
  readonly connectEnabled: boolean;
  /** Kinds of the instances with this name; empty for a name that only a proxy mentions. */
  readonly kinds: ReadonlySet<string>;
}

/** The services that a commit changed for readers. */
export interface AppliedChange {
  /** Lower-cased name to the name as it is (or was last) registered. */
  readonly services: ReadonlyMap<string, string>;
}

/** One entry to write; an undefined record deletes. */
export type RecordChange =
  | { readonly type: "node"; readonly nodeKey: string; readonly record: NodeRecord | undefined }
  | {
      readonly type: "instance";
      readonly nodeKey: string;
      readonly key: string;
      readonly record: InstanceRecord | undefined;
    }
  | {
      readonly type: "check";
      readonly nodeKey: string;
      /** Of its service; `""`: it is one of the node. */
      readonly owner: string;
      readonly key: string;
      readonly record: CheckRecord | undefined;
    }
  | {
      readonly type: "virtual-ip";
      readonly peer: string;
      readonly service: string;
      readonly record: VirtualIpRecord | undefined;
    };

type CheckChange = RecordChange & { readonly type: "check" };

/** The marks of whole tables, beside those of single nodes and services. A mark is the index of the last change. */
export interface TableMarks {
  readonly nodes: bigint;
  readonly services: bigint;
  readonly checks: bigint;
  readonly lastNodeExtinction: bigint;
  readonly lastServiceExtinction: bigint;
  readonly virtualIps: bigint;
}

/** A node with everything on it: another object after each change of any of it. */
export interface NodeRecords {
  readonly record: NodeRecord;
  /** In byte order of their keys. */
  readonly instances: readonly InstanceRecord[];
  /** In byte order of their keys, those of the node among those of its services. */
  readonly checks: readonly CheckRecord[];
}

/** A service with its instances, and the proxies for it: another object after each change of any of it, or of a node of theirs. */
export interface ServiceRecords {
  /** Lower-cased. */
  readonly key: string;
  /** As registered. */
  readonly name: string;
  /** In byte order of node and service id, as are the proxies. */
  readonly instances: readonly RecordOnNode[];
  readonly proxies: readonly RecordOnNode[];
}

export interface RecordOnNode {
  readonly node: NodeRecord;
  readonly record: InstanceRecord;
}

interface NodeEntry {
  readonly key: string;
  record: NodeRecord;
  mark: bigint;
  readonly instances: Map<string, InstanceRecord>;
  /** Check key to the key of its service, `""` for a check of the node. */
  readonly checkOwners: Map<string, string>;
  /** As they were when somebody looked; undefined: something has changed since. */
  records: NodeRecords | undefined;
  /** How often it has changed, or something on it. */
  changes: number;
}

/** Counts are not kept through more changes than this, if nobody looks. */
const MOST_UNSEEN = 100_000;

/** Counts that are kept, or being made. */
interface Counting {
  readonly counts: CatalogCounts;
  /** The nodes that are counted so far; undefined: all are. */
  done: Set<NodeEntry> | undefined;
  /** Changes since somebody looked. */
  unseen: number;
}

/** With more records than this that came, all are sorted; fewer are put in their places. */
const MANY_ADDED = 32;

/** Of the largest index: it has 64 bits. */
const INDEX_DIGITS = 20;

/**
 * Records in byte order of node and service id. Additions and removals are put in order at the next read, which gets all of them:
 * so a change costs the same however many there are.
 */
class InstanceList {
  #records: InstanceRecord[] = [];
  // Undefined while empty: every service has a list, and few of them have such changes at a time.
  #added: Set<InstanceRecord> | undefined;
  #removed: Set<InstanceRecord> | undefined;

  get length(): number {
    return this.#records.length + (this.#added?.size ?? 0) - (this.#removed?.size ?? 0);
  }

  get sorted(): readonly InstanceRecord[] {
    const [added, removed] = [this.#added, this.#removed];
    if (removed !== undefined) this.#records = this.#records.filter((record) => !removed.has(record));
    if (added !== undefined) {
      if (added.size > MANY_ADDED || this.#records.length === 0) {
        this.#records = this.#records.concat([...added]).sort(compareRecords);
      } else for (const record of added) this.#records.splice(this.#placeOf(record), 0, record);
    }
    this.#added = undefined;
    this.#removed = undefined;
    return this.#records;
  }

  add(record: InstanceRecord): void {
    this.#added ??= new Set();
    this.#added.add(record);
  }

  remove(record: InstanceRecord): void {
    if (this.#added?.delete(record) === true) return;
    this.#removed ??= new Set();
    this.#removed.add(record);
  }

  /** Those of one node. */
  on(nodeKey: string): readonly InstanceRecord[] {
    const { sorted } = this;
    const first = this.#placeOf({ nodeKey, key: "" });
    let end = first;
    while (sorted[end]?.nodeKey === nodeKey) end++;
    return sorted.slice(first, end);
  }

  #placeOf(record: Place): number {
    const records = this.#records;
    let low = 0;
    let high = records.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const probe = records[middle];
      if (probe !== undefined && compareRecords(probe, record) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

type Place = Pick<InstanceRecord, "nodeKey" | "key">;

function compareRecords(left: Place, right: Place): number {
  return compareUtf8(left.nodeKey, right.nodeKey) || compareUtf8(left.key, right.key);
}

/** How often each of some texts occurs. Mostly there is one: it is held without a map. */
class Tally {
  #only: string | undefined;
  #onlyCount = 0;
  /** Where there has been more than one at a time. */
  #counts: Map<string, number> | undefined;

  get values(): Iterable<string> {
    return this.#counts?.keys() ?? (this.#only === undefined ? emptyList : [this.#only]);
  }

  /** How many different ones there are. */
  get size(): number {
    return this.#counts?.size ?? (this.#only === undefined ? 0 : 1);
  }

  /** Returns whether the text has come, or is gone. */
  count(text: string, by: 1 | -1): boolean {
    if (this.#counts === undefined && (this.#only === undefined || this.#only === text)) {
      const before = this.#onlyCount;
      this.#onlyCount = Math.max(0, before + by);
      this.#only = this.#onlyCount > 0 ? text : undefined;
      return before === 0 || this.#onlyCount === 0;
    }
    this.#counts ??= new Map(this.#only === undefined ? [] : [[this.#only, this.#onlyCount]]);
    const before = this.#counts.get(text) ?? 0;
    if (before + by > 0) this.#counts.set(text, before + by);
    else this.#counts.delete(text);
    return before === 0 || before + by === 0;
  }
}

class ServiceEntry {
  readonly key: string;
  name: string;
  mark = 0n;
  readonly instances: InstanceList = new InstanceList();
  readonly #spellings = new Tally();
  readonly #kinds = new Tally();
  #ordinary = 0;
  /** The kinds, as it was asked for last. */
  #knownKinds: ReadonlySet<string> | undefined;
  /** The instances in the order of their last writes, once the name was spelled in more than one way. */
  #written: SortedMap<InstanceRecord> | undefined;

  constructor(key: string, name: string) {
    this.key = key;
    this.name = name;
  }

  get ordinary(): boolean {
    return this.#ordinary > 0;
  }

  get kinds(): ReadonlySet<string> {
    this.#knownKinds ??= new Set(this.#kinds.values);
    return this.#knownKinds;
  }

  /** Undefined: it has no instance without a kind. */
  get typicalName(): string | undefined {
    return this.kinds.has("") ? this.name : undefined;
  }

  add(record: InstanceRecord): void {
    this.instances.add(record);
    this.#count(record, 1);
    this.#written = this.#written?.with(writeKey(record), record);
  }

  remove(record: InstanceRecord): void {
    this.instances.remove(record);
    this.#count(record, -1);
    const key = writeKey(record);
    // A write of its checks alone leaves another record in its place.
    if (this.#written?.get(key) === record) this.#written = this.#written.without(key);
  }

  /**
   * Takes the spelling of the instance that was written last; of two in one commit, of the later in byte order. It follows from
   * the stored instances alone, so that it is the same after a restart.
   */
  respell(): void {
    const [first] = this.#spellings.values;
    if (this.#spellings.size > 1) {
      this.#written ??= SortedMap.of(
        new Map(Array.from(this.instances.sorted, (record) => [writeKey(record), record])),
        compareUtf8,
      );
      this.name = this.#written.last?.service.name ?? this.name;
    } else this.name = first ?? this.name;
  }

  #count({ service }: InstanceRecord, by: 1 | -1): void {
    this.#spellings.count(service.name, by);
    if (service.kind === "" && service.connect?.native !== true) this.#ordinary += by;
    if (this.#kinds.count(service.kind, by)) this.#knownKinds = undefined;
  }
}

/** Orders records by their last writes, then by node and service id. No name holds a NUL. */
function writeKey({ modified, nodeKey, key }: InstanceRecord): string {
  return `${String(modified.index).padStart(INDEX_DIGITS, "0")}\0${nodeKey}\0${key}`;
}

/** The instances that speak for a service in the mesh. */
class ConnectEntry {
  readonly instances: InstanceList = new InstanceList();
  /** Keys of the services that these are instances of. */
  readonly services: Tally = new Tally();

  add(record: InstanceRecord): void {
    this.instances.add(record);
    this.services.count(lowerCase(record.service.name), 1);
  }

  remove(record: InstanceRecord): void {
    this.instances.remove(record);
    this.services.count(lowerCase(record.service.name), -1);
  }
}

/**
 * The committed local catalog, in memory. Changes are made in a {@link CatalogDraft} and
 * taken over as a whole. Records are frozen and shared, and a change costs as much as it touches, not as much as is stored.
 */
export class CatalogState implements CommittedCatalog {
  readonly virtualIps: VirtualIps = new VirtualIps();
  readonly #nodes = new Map<string, NodeEntry>();
  readonly #services = new Map<string, ServiceEntry>();
  readonly #connect = new Map<string, ConnectEntry>();
  readonly #nodeIds = new Map<string, string>();
  /** Keys of the nodes with an address. */
  readonly #nodesAt = new Map<string, Set<string>>();
  readonly #kindMarks = new Map<string, bigint>();
  #marks: TableMarks = {
    nodes: 0n,
    services: 0n,
    checks: 0n,
    lastNodeExtinction: 0n,
    lastServiceExtinction: 0n,
    virtualIps: 0n,
  };
  #kinds: ReadonlyMap<string, ServiceKinds> | undefined;
  /** As it was when somebody looked, unless it has changed since. */
  #typicalNames: ReadonlyMap<string, string> | undefined;
  readonly #nodeOrder = new KeptOrder<NodeEntry>(byKey);
  readonly #serviceOrder = new KeptOrder<ServiceEntry>(byKey);
  /** How many checks there are in a state that is not `passing`, by state and node. */
  readonly #failing = new Map<string, Map<string, number>>();
  readonly #counting = new Set<Counting>();
  /** As they were when somebody looked, by lower-cased name, unless something has changed since. */
  readonly #serviceRecords = new Map<string, ServiceRecords>();
  /** By key, while they are made: gone after a change, so that what was made before it is not kept. */
  readonly #makingRecords = new Map<string, object>();
  readonly #checkGroups = new WeakMap<CheckRecords, CheckGroup>();
  readonly #noGroup: CheckGroup = new CheckGroup<Check>(0, () => emptyList);

  // Reads of a draft.

  nodeRecord(nodeKey: string): NodeRecord | undefined {
    return this.#nodes.get(nodeKey)?.record;
  }

  instanceRecord(nodeKey: string, serviceKey: string): InstanceRecord | undefined {
    return this.#nodes.get(nodeKey)?.instances.get(serviceKey);
  }

  instanceRecordsOn(nodeKey: string): Iterable<InstanceRecord> {
    return this.#nodes.get(nodeKey)?.instances.values() ?? emptyList;
  }

  checkOwner(nodeKey: string, checkKey: string): string | undefined {
    return this.#nodes.get(nodeKey)?.checkOwners.get(checkKey);
  }

  checkRecord(nodeKey: string, checkKey: string): CheckRecord | undefined {
    const owner = this.checkOwner(nodeKey, checkKey);
    if (owner === undefined) return undefined;
    const holder = owner === "" ? this.nodeRecord(nodeKey) : this.instanceRecord(nodeKey, owner);
    return holder?.checks.get(checkKey);
  }

  nodeKeyOfId(id: string): string | undefined {
    return this.#nodeIds.get(id);
  }

  countNamed(serviceKey: string): number {
    return this.#services.get(serviceKey)?.instances.length ?? 0;
  }

  countConnect(serviceKey: string): number {
    return this.#connect.get(serviceKey)?.instances.length ?? 0;
  }

  // Changing.

  draft(): CatalogDraft {
    return new CatalogDraft(this);
  }

  /** The differences between a draft and this, in no particular order; none when the draft changed nothing. */
  *changes(draft: AppliedDraft): Generator<RecordChange> {
    for (const [nodeKey, changes] of draft.nodes) {
      const entry = this.#nodes.get(nodeKey);
      if (changes.recordChanged && !sameNodeRecord(changes.record, entry?.record)) {
        yield { type: "node", nodeKey, record: changes.record };
      }
      for (const [key, record] of changes.instances) {
        if (!sameInstanceRecord(record, entry?.instances.get(key))) yield { type: "instance", nodeKey, key, record };
      }
      yield* this.#checkChanges(draft, nodeKey, changes);
    }
    for (const [key, record] of draft.virtualIps.changes) {
      const before = this.virtualIps.get(key);
      if (record === before) continue;
      const { peer, service } = record ?? before ?? { peer: "", service: "" };
      yield { type: "virtual-ip", peer, service, record };
    }
  }

  *#checkChanges(draft: AppliedDraft, nodeKey: string, changes: NodeChanges): Generator<CheckChange> {
    for (const [key, owner] of changes.checkOwners) {
      const record = draft.checkRecord(nodeKey, key);
      if (record === this.checkRecord(nodeKey, key)) continue;
      const before = this.checkOwner(nodeKey, key);
      if (before !== undefined && before !== owner) {
        yield { type: "check", nodeKey, owner: before, key, record: undefined };
      }
      if (owner !== undefined) yield { type: "check", nodeKey, owner, key, record };
    }
  }

  /** Takes over a draft of this very state; everything it wrote gets `index`. */
  apply(draft: AppliedDraft, index: bigint): AppliedChange {
    draft.stamp.index = index;
    const touched = new Map<string, string>();
    for (const [nodeKey, changes] of draft.nodes) {
      // Before the draft is taken over: the rows of before decide.
      for (const key of changes.checkOwners.keys()) {
        this.#countFailing(nodeKey, this.checkRecord(nodeKey, key), -1);
        this.#countFailing(nodeKey, draft.checkRecord(nodeKey, key), 1);
      }
      const checked = new Set<string>();
      for (const { owner } of this.#checkChanges(draft, nodeKey, changes)) checked.add(owner);
      if (checked.size > 0) this.#raise(index, "checks");
      this.#applyNode(nodeKey, changes, checked, index, touched);
    }
    for (const [key, record] of draft.virtualIps.changes) {
      if (record === this.virtualIps.get(key)) continue;
      this.virtualIps.set(key, record);
      this.#raise(index, "virtualIps");
    }
    for (const key of touched.keys()) {
      const service = this.#services.get(key);
      if (service === undefined) continue;
      if (service.instances.length === 0) {
        this.#services.delete(key);
        this.#serviceOrder.remove(service);
        this.#raise(index, "lastServiceExtinction");
        this.#lookAtName(key, undefined);
        continue;
      }
      service.respell();
      touched.set(key, service.name);
      this.#lookAtName(key, service);
    }
    this.#kinds = undefined;
    return { services: touched };
  }

  #lookAtName(key: string, service: ServiceEntry | undefined): void {
    if (this.#typicalNames?.get(key) !== service?.typicalName) this.#typicalNames = undefined;
  }

  /** @param checked - keys of the services whose checks changed, and `""` when those of the node did. */
  #applyNode(
    nodeKey: string,
    changes: NodeChanges,
    checked: ReadonlySet<string>,
    index: bigint,
    touched: Map<string, string>,
  ): void {
    let entry = this.#nodes.get(nodeKey);
    const before = entry?.record;
    const after = changes.recordChanged ? changes.record : before;
    if (entry === undefined) {
      if (after === undefined) return;
      entry = newNode(nodeKey, after, index);
      this.#addNode(entry);
      for (const { done } of this.#counting) done?.add(entry);
    }
    entry.changes++;
    entry.records = undefined;
    for (const [key, record] of changes.instances) {
      if (checked.has(key) || !sameInstanceRecord(record, entry.instances.get(key))) {
        this.#applyInstance(entry, key, record, index, touched);
      }
    }
    for (const [checkKey, owner] of changes.checkOwners) {
      if (owner === undefined) entry.checkOwners.delete(checkKey);
      else entry.checkOwners.set(checkKey, owner);
    }
    if (!checked.has("") && sameNodeRecord(before, after)) return;
    this.#count(entry, (counts) => {
      counts.node(before, -1);
      counts.node(after, 1);
    });
    if (before?.node !== after?.node) {
      this.#raise(index, "nodes");
      entry.mark = index;
      if (before !== undefined && before.node.id !== "" && this.#nodeIds.get(lowerCase(before.node.id)) === nodeKey) {
        this.#nodeIds.delete(lowerCase(before.node.id));
      }
      if (after !== undefined && after.node.id !== "") this.#nodeIds.set(lowerCase(after.node.id), nodeKey);
      this.#moveNode(nodeKey, before?.node.address, after?.node.address);
    }
    if (after === undefined) {
      this.#nodes.delete(nodeKey);
      this.#nodeOrder.remove(entry);
      this.#raise(index, "lastNodeExtinction");
      return;
    }
    entry.record = after;
    for (const record of entry.instances.values()) this.#touch(record, index, touched);
  }

  #applyInstance(
    entry: NodeEntry,
    key: string,
    after: InstanceRecord | undefined,
    index: bigint,
    touched: Map<string, string>,
  ): void {
    const before = entry.instances.get(key);
    if (after === undefined) entry.instances.delete(key);
    else entry.instances.set(key, after);
    this.#count(entry, (counts) => {
      counts.instance(before, -1);
      counts.instance(after, 1);
    });
    this.#place(before, after);
    if (before !== undefined) this.#touch(before, index, touched);
    if (after !== undefined) this.#touch(after, index, touched);
    if (before?.service !== after?.service) {
      this.#raise(index, "services", "nodes");
      entry.mark = index;
    }
  }

  #moveNode(nodeKey: string, from: string | undefined, to: string | undefined): void {
    if (from !== undefined) {
      const keys = this.#nodesAt.get(from);
      keys?.delete(nodeKey);
      if (keys?.size === 0) this.#nodesAt.delete(from);
    }
    if (to !== undefined) this.#nodesAt.set(to, (this.#nodesAt.get(to) ?? new Set()).add(nodeKey));
  }

  /** Moves an instance from where its old name and destination put it to where the new ones do. */
  #place(before: InstanceRecord | undefined, after: InstanceRecord | undefined): void {
    const oldKey = before && lowerCase(before.service.name);
    const newKey = after && lowerCase(after.service.name);
    const oldEntry = oldKey === undefined ? undefined : this.#services.get(oldKey);
    if (after !== undefined && newKey !== undefined) {
      let entry = this.#services.get(newKey);
      if (entry === undefined) {
        entry = new ServiceEntry(newKey, after.service.name);
        this.#services.set(newKey, entry);
        this.#serviceOrder.add(entry);
      }
      entry.add(after);
    }
    if (before !== undefined) oldEntry?.remove(before);

    const oldConnect = connectKeyOf(before);
    const newConnect = connectKeyOf(after);
    const oldList = oldConnect === undefined ? undefined : this.#connect.get(oldConnect);
    if (after !== undefined && newConnect !== undefined) {
      let list = this.#connect.get(newConnect);
      if (list === undefined) {
        list = new ConnectEntry();
        this.#connect.set(newConnect, list);
      }
      list.add(after);
    }
    if (before !== undefined && oldConnect !== undefined) {
      oldList?.remove(before);
      if (oldList?.instances.length === 0) this.#connect.delete(oldConnect);
    }
  }

  #forgetRecords(serviceKey: string): void {
    this.#serviceRecords.delete(serviceKey);
    this.#makingRecords.delete(serviceKey);
  }

  #touch(record: InstanceRecord, index: bigint, touched: Map<string, string>): void {
    const key = lowerCase(record.service.name);
    const entry = this.#services.get(key);
    if (!touched.has(key)) touched.set(key, entry?.name ?? record.service.name);
    this.#forgetRecords(key);
    const destination = connectKeyOf(record);
    if (destination !== undefined) this.#forgetRecords(destination);
    if (entry !== undefined) entry.mark = index;
    this.#kindMarks.set(record.service.kind, index);
  }

  #raise(index: bigint, ...names: readonly (keyof TableMarks)[]): void {
    if (names.every((name) => this.#marks[name] === index)) return;
    const marks = { ...this.#marks };
    for (const name of names) marks[name] = index;
    this.#marks = marks;
  }

  #addNode(entry: NodeEntry): void {
    this.#nodes.set(entry.key, entry);
    this.#nodeOrder.add(entry);
  }

  #countFailing(nodeKey: string, record: CheckRecord | undefined, by: 1 | -1): void {
    const status = record?.check.status ?? "passing";
    if (status === "passing") return;
    let nodes = this.#failing.get(status);
    if (nodes === undefined) {
      nodes = new Map();
      this.#failing.set(status, nodes);
    }
    const left = (nodes.get(nodeKey) ?? 0) + by;
    if (left !== 0) nodes.set(nodeKey, left);
    else nodes.delete(nodeKey);
    if (nodes.size === 0) this.#failing.delete(status);
  }

  /** Has a change of a node, or on it, counted where the node was counted before. */
  #count(entry: NodeEntry, change: (counts: CatalogCounts) => void): void {
    for (const counting of this.#counting) {
      if (counting.done?.has(entry) === false) continue;
      change(counting.counts);
      if (++counting.unseen > MOST_UNSEEN && counting.done === undefined) this.#counting.delete(counting);
    }
  }

  // Loading, into a new state: nodes, then instances, then `loaded`.

  /** @internal */
  loadNode(nodeKey: string, record: NodeRecord): void {
    const entry = newNode(nodeKey, record, 0n);
    for (const [checkKey, check] of record.checks) {
      entry.checkOwners.set(checkKey, "");
      this.#countFailing(nodeKey, check, 1);
    }
    this.#addNode(entry);
    if (record.node.id !== "") this.#nodeIds.set(lowerCase(record.node.id), nodeKey);
    this.#moveNode(nodeKey, undefined, record.node.address);
  }

  /** False: its node is missing. @internal */
  loadInstance(record: InstanceRecord): boolean {
    const entry = this.#nodes.get(record.nodeKey);
    if (entry === undefined) return false;
    entry.instances.set(record.key, record);
    for (const [checkKey, check] of record.checks) {
      entry.checkOwners.set(checkKey, record.key);
      this.#countFailing(record.nodeKey, check, 1);
    }
    this.#place(undefined, record);
    return true;
  }

  /** Raises every mark to `index`: no reader who waited before the restart may miss what happened meanwhile. @internal */
  loaded(index: bigint): void {
    this.#raise(index, "nodes", "services", "checks", "lastNodeExtinction", "lastServiceExtinction", "virtualIps");
    for (const entry of this.#nodes.values()) entry.mark = index;
    for (const entry of this.#services.values()) {
      entry.mark = index;
      entry.respell();
      for (const record of entry.instances.sorted) this.#kindMarks.set(record.service.kind, index);
    }
  }

  // Reading.

  get marks(): TableMarks {
    return this.#marks;
  }

  nodeMark(nodeKey: string): bigint | undefined {
    return this.#nodes.get(nodeKey)?.mark;
  }

  serviceMark(serviceKey: string): bigint | undefined {
    return this.#services.get(serviceKey)?.mark;
  }

  kindMark(kind: string): bigint {
    return this.#kindMarks.get(kind) ?? 0n;
  }

  /** The first by name of the nodes with an address. */
  nodeRecordAt(address: string): NodeRecord | undefined {
    let first: string | undefined;
    for (const key of this.#nodesAt.get(address) ?? emptyList) {
      if (first === undefined || compareUtf8(key, first) < 0) first = key;
    }
    return first === undefined ? undefined : this.nodeRecord(first);
  }

  /** By key, in no particular order. */
  get count(): { readonly nodes: number; readonly services: number } {
    return { nodes: this.#nodes.size, services: this.#services.size };
  }

  /** In byte order of their keys. */
  nodeRecords(): readonly NodeRecord[] {
    return [...this.#nodes].sort(([left], [right]) => compareUtf8(left, right)).map(([, entry]) => entry.record);
  }

  /** In byte order of their keys. */
  sortedInstancesOn(nodeKey: string): readonly InstanceRecord[] {
    return [...this.instanceRecordsOn(nodeKey)].sort(compareRecords);
  }

  // Lists, in steps. Each thing in them is as it is at some moment between the first step and the last.

  /** Every node, in byte order of their keys. */
  *nodeSteps(): Steps<readonly NodeRecord[]> {
    const entries = yield* this.#sortedNodes();
    return entries.map(({ record }) => record);
  }

  /** Every node with everything on it, in byte order of their keys. */
  *contentsSteps(): Steps<readonly NodeRecords[]> {
    const found: NodeRecords[] = [];
    const meter = new StepMeter(SHORT_STEP_FIELDS);
    for (const entry of yield* this.#sortedNodes()) {
      if (this.#nodes.get(entry.key) === entry) found.push(yield* this.#recordsOf(entry, meter));
      if (meter.isOver(1)) yield;
    }
    return found;
  }

  /** A node with everything on it; undefined: there is none of that key. */
  *nodeRecordsSteps(nodeKey: string): Steps<NodeRecords | undefined> {
    const entry = this.#nodes.get(nodeKey);
    return entry && (yield* this.#recordsOf(entry, new StepMeter(SHORT_STEP_FIELDS)));
  }

  /** The checks in a state, or all of them for `any`, in byte order of node and id. */
  *checkSteps(state: string): Steps<readonly CheckRecord[]> {
    const found: CheckRecord[] = [];
    const meter = new StepMeter(SHORT_STEP_FIELDS);
    const isAny = state === "any";
    const entries = isAny || state === "passing" ? yield* this.#sortedNodes() : yield* this.#nodesFailing(state);
    for (const entry of entries) {
      if (this.#nodes.get(entry.key) !== entry) continue;
      const { checks } = yield* this.#recordsOf(entry, meter);
      for (const record of checks) if (isAny || record.check.status === state) found.push(record);
      if (meter.isOver(1 + checks.length)) yield;
    }
    return found;
  }

  /**
   * Every service, in byte order of their keys.
   * @param isMentioned - also those without instances that proxies mention.
   */
  *serviceSteps(isMentioned = false): Steps<readonly ServiceRecords[]> {
    const found: ServiceRecords[] = [];
    const meter = new StepMeter(SHORT_STEP_FIELDS);
    const entries = yield* this.#serviceOrder.steps(() => this.#services.values());
    const without: { readonly key: string }[] = [];
    if (isMentioned) for (const key of this.#connect.keys()) if (!this.#services.has(key)) without.push({ key });
    const all = without.length === 0 ? entries : yield* sortSteps([...entries, ...without], byKey);
    for (const { key } of all) {
      const records = this.#serviceRecords.get(key) ?? (yield* this.#recordsOfService(key, meter));
      if (records.instances.length + (isMentioned ? records.proxies.length : 0) > 0) found.push(records);
      if (meter.isOver(1)) yield;
    }
    return found;
  }

  /** The names of all services, in byte order of their keys. */
  *serviceNameSteps(): Steps<readonly string[]> {
    const entries = yield* this.#serviceOrder.steps(() => this.#services.values());
    return entries.map(({ name }) => name);
  }

  /** How many nodes, instances and checks there are in each state, by name: kept from then on, while somebody looks now and then. */
  *countSteps(): Steps<CountedCatalog> {
    let [counting] = this.#counting;
    if (counting?.done !== undefined || counting === undefined) {
      counting = { counts: new CatalogCounts(), done: new Set(), unseen: 0 };
      yield* this.#countAll(counting);
    }
    counting.unseen = 0;
    const { nodes, services, checks } = counting.counts;
    return { nodes, services: yield* services.steps(), checks: yield* checks.steps() };
  }

  *#countAll(counting: Counting): Steps<void> {
    const { counts, done = new Set<NodeEntry>() } = counting;
    this.#counting.add(counting);
    const meter = new StepMeter(SHORT_STEP_FIELDS);
    for (const entry of [...this.#nodes.values()]) {
      if (done.has(entry) || this.#nodes.get(entry.key) !== entry) continue;
      counts.node(entry.record, 1);
      for (const record of entry.instances.values()) counts.instance(record, 1);
      done.add(entry);
      if (meter.isOver(2 + 2 * entry.instances.size + 2 * entry.checkOwners.size)) yield;
    }
    counting.done = undefined;
    // One is enough, should several readers have begun at the same time.
    for (const other of this.#counting)
      if (other !== counting && other.done === undefined) this.#counting.delete(other);
  }

  *#sortedNodes(): Steps<readonly NodeEntry[]> {
    return yield* this.#nodeOrder.steps(() => this.#nodes.values());
  }

  *#nodesFailing(state: string): Steps<readonly NodeEntry[]> {
    const found: NodeEntry[] = [];
    for (const nodeKey of this.#failing.get(state)?.keys() ?? emptyList) {
      const entry = this.#nodes.get(nodeKey);
      if (entry !== undefined) found.push(entry);
    }
    return yield* sortSteps(found, byKey);
  }

  *#recordsOf(entry: NodeEntry, meter: StepMeter): Steps<NodeRecords> {
    if (entry.records !== undefined) return entry.records;
    const { record, changes } = entry;
    const instances = [...entry.instances.values()];
    const keyed: { readonly key: string; readonly check: CheckRecord }[] = [];
    for (const { checks } of [record, ...instances]) for (const [key, check] of checks) keyed.push({ key, check });
    const sorted = yield* sortSteps(instances, byKey);
    const checks = (yield* sortSteps(keyed, byKey)).map(({ check }) => check);
    const records: NodeRecords = { record, instances: sorted, checks };
    if (entry.changes === changes) entry.records = records;
    if (meter.isOver(instances.length + keyed.length)) yield;
    return records;
  }

  *#recordsOfService(key: string, meter: StepMeter): Steps<ServiceRecords> {
    const making = {};
    this.#makingRecords.set(key, making);
    const instances = yield* this.#onNodes(this.instanceRecords(key), meter);
    const proxies = yield* this.#onNodes(
      this.connectRecords(key).filter(({ service }) => service.kind === "connect-proxy"),
      meter,
    );
    const [first] = proxies;
    const name = this.serviceName(key) ?? (first && connectName(first.record.service)) ?? key;
    const records = { key, name, instances, proxies };
    if (this.#makingRecords.get(key) === making) {
      this.#makingRecords.delete(key);
      this.#serviceRecords.set(key, records);
    }
    return records;
  }

  *#onNodes(records: readonly InstanceRecord[], meter: StepMeter): Steps<readonly RecordOnNode[]> {
    const found: RecordOnNode[] = [];
    // Its own list, as the one that is kept may change between steps.
    for (const record of records.slice()) {
      const node = this.nodeRecord(record.nodeKey);
      if (node !== undefined) found.push({ node, record });
      if (meter.isOver(2)) yield;
    }
    return found;
  }

  /** Lower-cased names, in no particular order. */
  serviceKeys(): IterableIterator<string> {
    return this.#services.keys();
  }

  /** The name as registered last; undefined when no instance has it. */
  serviceName(serviceKey: string): string | undefined {
    return this.#services.get(serviceKey)?.name;
  }

  /** Whether a service has an instance without a kind that does not speak for itself in the mesh. */
  isOrdinary(serviceKey: string): boolean {
    return this.#services.get(serviceKey)?.ordinary ?? false;
  }

  kindsOf(serviceKey: string): ReadonlySet<string> {
    return this.#services.get(serviceKey)?.kinds ?? noKinds;
  }

  /** Whether anything speaks for a name in the mesh. */
  isConnectEnabled(serviceKey: string): boolean {
    return this.#connect.has(serviceKey);
  }

  /** In byte order of node and service id. */
  instanceRecords(serviceKey: string): readonly InstanceRecord[] {
    return this.#services.get(serviceKey)?.instances.sorted ?? emptyList;
  }

  /** Those on one node. */
  instanceRecordsOf(serviceKey: string, nodeKey: string): readonly InstanceRecord[] {
    return this.#services.get(serviceKey)?.instances.on(nodeKey) ?? emptyList;
  }

  /** Proxies for a name, and connect-native instances of it, in byte order of node and service id. */
  connectRecords(serviceKey: string): readonly InstanceRecord[] {
    return this.#connect.get(serviceKey)?.instances.sorted ?? emptyList;
  }

  /** The latest mark of the services whose instances speak for a name; undefined: none do. */
  connectMark(serviceKey: string): bigint | undefined {
    let latest: bigint | undefined;
    for (const key of this.#connect.get(serviceKey)?.services.values ?? emptyList) {
      const mark = this.#services.get(key)?.mark ?? 1n;
      if (latest === undefined || mark > latest) latest = mark;
    }
    return latest;
  }

  /** The instance with its node and the checks of both, those of the node first. */
  view(record: InstanceRecord): ServiceInstance {
    const node = this.#nodes.get(record.nodeKey)?.record;
    if (record.view !== undefined && record.viewOf === node) return record.view;
    if (node === undefined) throw new TypeError("not an instance of this catalog");
    const { service } = record;
    const ofNode = this.checkGroup(node.checks);
    let view: ServiceInstance;
    if (node.checks.size + record.checks.size > LISTED_AT_ONCE) {
      view = withGroups({ node: node.node, service }, { ofNode, own: this.checkGroup(record.checks) });
    } else {
      const checks = record.checks.size === 0 ? ofNode.list : joinedChecks(ofNode.list, record.checks);
      view = Object.freeze({ node: node.node, service, checks });
    }
    record.view = view;
    record.viewOf = node;
    return view;
  }

  /** Those of a node or of an instance: one group for all who share them, until one of them changes. */
  checkGroup(records: CheckRecords): CheckGroup {
    if (records.size === 0) return this.#noGroup;
    let group = this.#checkGroups.get(records);
    if (group === undefined) {
      group = new CheckGroup(records.size, () => Array.from(records.values(), ({ check }) => check));
      this.#checkGroups.set(records, group);
    }
    return group;
  }

  /** Lower-cased names, also those only proxies mention. */
  kinds(): ReadonlyMap<string, ServiceKinds> {
    if (this.#kinds !== undefined) return this.#kinds;
    const kinds = new Map<string, ServiceKinds>();
    for (const [key, entry] of this.#services) {
      const typical: ServiceKind = "";
      kinds.set(key, {
        name: entry.name,
        typical: entry.kinds.has(typical),
        ordinary: entry.ordinary,
        connectEnabled: this.#connect.has(key),
        kinds: entry.kinds,
      });
    }
    for (const [key, { instances }] of this.#connect) {
      if (kinds.has(key)) continue;
      const proxy = instances.sorted[0];
      const name = (proxy && connectName(proxy.service)) ?? key;
      kinds.set(key, { name, typical: false, ordinary: false, connectEnabled: true, kinds: new Set() });
    }
    this.#kinds = kinds;
    return kinds;
  }

  /** The names of the services with an instance without a kind, by key: the same map until one of them changes. */
  typicalNames(): ReadonlyMap<string, string> {
    if (this.#typicalNames !== undefined) return this.#typicalNames;
    const names = new Map<string, string>();
    for (const [key, service] of this.#services) {
      const { typicalName } = service;
      if (typicalName !== undefined) names.set(key, typicalName);
    }
    this.#typicalNames = names;
    return names;
  }

  virtualIp(peer: string, service: string): string | undefined {
    const record = this.virtualIps.get(virtualIpKey(lowerCase(peer), lowerCase(service)));
    return record && virtualIpAddress(record.offset);
  }
}

function newNode(key: string, record: NodeRecord, mark: bigint): NodeEntry {
  return { key, record, mark, instances: new Map(), checkOwners: new Map(), records: undefined, changes: 0 };
}

function byKey(left: { readonly key: string }, right: { readonly key: string }): number {
  return compareUtf8(left.key, right.key);
}

/** `concat` makes a list without room for more elements, of which there will be none. */
function joinedChecks(ofNode: readonly Check[], own: CheckRecords): readonly Check[] {
  return Object.freeze(ofNode.concat(Array.from(own.values(), ({ check }) => check)));
}

const noKinds: ReadonlySet<string> = new Set();

function connectKeyOf(record: InstanceRecord | undefined): string | undefined {
  const name = record && connectName(record.service);
  return name === undefined ? undefined : lowerCase(name);
}

// Apart from the checks, of which each is a record of its own. A draft may have put one somewhere and taken it away again: then
// the record that held it is new and nothing in it is.

function sameNodeRecord(left: NodeRecord | undefined, right: NodeRecord | undefined): boolean {
  if (left === undefined || right === undefined) return left === right;
  return left.node === right.node && left.modified === right.modified;
}

function sameInstanceRecord(left: InstanceRecord | undefined, right: InstanceRecord | undefined): boolean {
  if (left === undefined || right === undefined) return left === right;
  return left.service === right.service && left.modified === right.modified;
}
