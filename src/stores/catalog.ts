import { type Abortable, signalOf } from "../base/abortable.js";
import { compareUtf8 } from "../base/byte-order.js";
import type { Closable } from "../base/closable.js";
import type { Clock } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { latest } from "../base/latest.js";
import { RecentlyUsed } from "../base/recently-used.js";
import { Signal } from "../base/signal.js";
import { doAll, StepMeter, type Steps } from "../base/steps.js";
import { inShortTurns, inTurns, sortSteps } from "../base/turns.js";
import type { CountedCatalog } from "../model/catalog-counts.js";
import type { CatalogDraft, CheckExposure, Judge, OperationRecord } from "../model/catalog-draft.js";
import {
  type CheckRecord,
  type CheckRecords,
  type InstanceRecord,
  type NodeRecord,
  noChecks,
  type Stamp,
} from "../model/catalog-record.js";
import type { CatalogChange, CatalogSource } from "../model/catalog-source.js";
import type { CatalogState, NodeRecords, RecordOnNode, ServiceKinds, ServiceRecords } from "../model/catalog-state.js";
import { CheckGroup, type CheckGroups, LISTED_AT_ONCE, withGroups } from "../model/check-groups.js";
import type { Check, Node, Service, ServiceInstance, ServiceKind } from "../model/instance.js";
import { derived, type Listing } from "../model/listing.js";
import {
  type Deregistration,
  type ParsedOperation,
  type ParsedRegistration,
  parseDeregistration,
  type Registration,
  registrationSteps,
  type TransactionOperation,
  transactionSteps,
} from "../model/registration.js";
import { type ServiceSummary, SummaryMaker } from "../model/service-summary.js";
import { virtualIpKey } from "../model/virtual-ips.js";
import { defaultWriteLimits, type WriteLimits } from "../model/write-limits.js";
import { CATALOG_PREFIX } from "../storage/keys.js";
import { fits, sizeOf } from "../storage/limits.js";
import { type Plan, Replica } from "../storage/replica.js";
import type { Storage, StorageLimits } from "../storage/storage.js";
import { lowerCase } from "../syntax/names.js";
import { expendableAddresses, HeldCatalog } from "./held-catalog.js";
import { defaultImportLimits, type ImportLimits } from "./import-plan.js";
import { requireFewValues } from "./record-limit.js";
import { ServiceListeners } from "./service-listeners.js";

export type { CountedCatalog, HealthCounts } from "../model/catalog-counts.js";
export type { CheckExposure, Judge, Touched } from "../model/catalog-draft.js";
export type { ServiceKinds } from "../model/catalog-state.js";

export interface CatalogOptions {
  readonly storage: Storage;
  /** The datacenter of every node. */
  readonly datacenter: string;
  /** Gets a report of each damaged virtual address of an import. Default: no reports. */
  readonly incidents?: Incidents;
  /** Default: `defaultWriteLimits`. */
  readonly limits?: Pick<WriteLimits, "recordValues"> & Partial<Pick<ImportLimits, "summaryBytesInAll">>;
  /** For the waits after a storage watch broke. Default: the system's. */
  readonly clock?: Clock;
}

interface KeptSummary {
  /** Those it was made of. */
  readonly records: ServiceRecords;
  readonly summary: ServiceSummary;
}

/** About the memory of a summary, and of a place in its lists. */
const SUMMARY_BYTES = 400;
const PLACE_BYTES = 8;

/** When an object was first written and last changed: revisions of the storage. */
export interface Indexes {
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
}

export type IndexedNode = Node & Indexes;
export type IndexedService = Service & Indexes;
export type IndexedCheck = Check & Indexes;

/** A {@link ServiceInstance} with the indexes of its parts. */
export interface IndexedInstance {
  readonly node: IndexedNode;
  readonly service: IndexedService;
  /** Those of the node first. */
  readonly checks: readonly IndexedCheck[];
}

/** A node with everything on it, to be told bit by bit. */
export interface NodeListings {
  readonly node: IndexedNode;
  readonly services: Listing<IndexedService>;
  readonly checks: Listing<IndexedCheck>;
}

/** A service, and the tags that its instances have, in byte order. */
export interface TaggedService {
  readonly name: string;
  readonly tags: () => readonly string[];
}

/** A service with its instances and the proxies for it, by node and id. Each part is made when it is looked at. */
export interface ServiceWithProxies {
  readonly name: string;
  /** As a list of services shows it. */
  readonly summary: ServiceSummary;
  readonly instances: readonly IndexedInstance[];
  readonly proxies: readonly IndexedInstance[];
}

/** A node with everything on it. */
export interface CatalogNode {
  readonly node: IndexedNode;
  /** In byte order of their ids. */
  readonly services: readonly IndexedService[];
  /** Those of the node first, then those of its services. */
  readonly checks: readonly IndexedCheck[];
}

/** The record that one operation of a transaction read or wrote. Deletions give none. */
export type TransactionResult =
  | { readonly type: "node"; readonly node: IndexedNode }
  | { readonly type: "service"; readonly node: string; readonly service: IndexedService }
  | { readonly type: "check"; readonly check: IndexedCheck };

export interface TransactionAnswer {
  readonly index: bigint;
  readonly results: readonly TransactionResult[];
}

/** A change of the catalog and the revision it was read at; revisions grow from one to the next. */
export interface CatalogUpdate extends CatalogChange {
  readonly revision: bigint;
}

/**
 * The index a read has now: it grows when the answer of that read may have changed, and mostly only then
 * (Consul 1.21). Never 0. A restart raises all of them to the last commit.
 */
export interface CatalogIndexes {
  readonly nodes: bigint;
  readonly services: bigint;
  readonly checks: bigint;
  node(name: string): bigint;
  /** Instances of a service, also of one without instances (any more). */
  service(name: string): bigint;
  /** Instances by connect name. */
  connect(name: string): bigint;
  /** Virtual addresses. */
  readonly virtualIps: bigint;
  /** Instances of a kind; `""` is the typical one. */
  kind(kind: string): bigint;
}

export interface CatalogWriteOptions {
  /**
   * Judges the write at the moment it is applied, and refuses it by throwing. The records that a request names and
   * those it changes differ: a check may have belonged to another service, a node's id may be that of another node. Default: all
   * are allowed.
   */
  readonly judge?: Judge;
  /**
   * Whether what is given is read in turns, for it may be long. It is not to be changed meanwhile, and writes that are begun later may
   * be made before it. Default false.
   */
  readonly inTurns?: boolean;
}

/** The summary of a service with so many instances is made in turns before a list is written, and kept. Few are looked at in one step. */
const MANY_INSTANCES = 500;
const SUMMED_UP = 50;

type Finish = (index: bigint) => void;

interface QueuedWrite {
  /** Applies it to the draft and returns the work to do after the commit. @throws the error for its caller. */
  readonly apply: (draft: CatalogDraft) => Finish;
  readonly reject: (error: unknown) => void;
  /** Must not share a commit: it cannot be taken back from a draft. */
  readonly alone: boolean;
  /** About how long it takes to apply, as many fields. */
  readonly fields: number;
}

/** Weight of a record that a write puts into the draft in a step, in fields. */
const RECORD_FIELDS = 30;

function fieldsOf({ checks }: ParsedRegistration): number {
  return RECORD_FIELDS * (2 + checks.length);
}

/** The most that the claim of a virtual address adds to a commit. */
const CLAIM: StorageLimits = { writes: 2, bytes: 1_024 };

/** Addresses that are claimed or released in one turn: a terminating gateway may front tens of thousands of services. */
const CLAIMED_BATCH = 2_000;

/** Writes of one commit: while it is on its way to disk, followers of the catalog work on the one before. */
const WRITTEN_BATCH = 256;

/**
 * The built-in catalog of a cluster's own nodes, services and checks. All of it is in memory; every write is committed
 * to the storage before readers see it. Writes that wait are committed together, each still all or nothing.
 *
 * Reads are synchronous: whatever is read without an `await` in between belongs to one moment.
 */
export class Catalog implements CatalogSource, Closable {
  readonly #datacenter: string;
  readonly #recordValues: number;
  readonly #incidents: Incidents;
  readonly #closing = new AbortController();
  readonly #held: HeldCatalog;
  readonly #replica: Replica;
  readonly #indexedGroups = new WeakMap<CheckRecords, CheckGroup<IndexedCheck>>();

  #queue: QueuedWrite[] = [];
  /** How many of the queue are being written already: they are taken off it later, many at once. */
  #begun = 0;
  #running: Promise<void> | undefined;
  /** With lower-cased names of the services that may look otherwise, and their spelling. */
  readonly #ofServices: ServiceListeners;
  readonly #changes: Signal<[services: ReadonlyMap<string, string>]>;
  readonly #ended: Signal;
  /** By key: those that lists have shown. */
  readonly #summaries: RecentlyUsed<string, KeptSummary>;

  /**
   * Loads the catalog that `storage` holds, or begins an empty one.
   * @throws {PeeringError} `storage-failed`: an entry cannot be read; the message names its key. Also the errors of the storage
   *   itself.
   */
  static async open(options: CatalogOptions): Promise<Catalog> {
    const { storage, clock, incidents } = options;
    const held = new HeldCatalog();
    const replica = await Replica.open({
      storage,
      prefix: CATALOG_PREFIX,
      rowName: "catalog entry",
      contents: held,
      expendable: expendableAddresses,
      clock,
      incidents,
    });
    return new Catalog(options, held, replica);
  }

  private constructor(options: CatalogOptions, held: HeldCatalog, replica: Replica) {
    this.#datacenter = options.datacenter;
    this.#incidents = options.incidents ?? new Incidents();
    this.#changes = new Signal(this.#incidents);
    this.#ended = new Signal(this.#incidents);
    this.#recordValues = (options.limits ?? defaultWriteLimits).recordValues;
    const limit = options.limits?.summaryBytesInAll ?? defaultImportLimits.summaryBytesInAll;
    this.#summaries = new RecentlyUsed(limit, bytesOfSummary, () => {
      this.#incidents.report(
        "catalog-summaries-full",
        "what lists show of services does not fit in the memory for it: some of it is made for each list",
        { limit },
      );
    });
    this.#held = held;
    this.#replica = replica;
    this.#ofServices = new ServiceListeners(this.#incidents, (key) => held.state.serviceMark(key) !== undefined);
    held.onChange = (services) => {
      this.#changes.emit(services);
      this.#ofServices.emit(services);
    };
  }

  get #state(): CatalogState {
    return this.#held.state;
  }

  // Writing.

  /**
   * Writes a node with at most one service and any number of checks, all or nothing. An equal record that is stored already
   * stays unchanged, with its indexes.
   * @returns the index at which it is visible.
   * @throws {PeeringError} `invalid-registration` with Consul's text; `storage-failed`, `unavailable`, `conflict`,
   *   `closed`: nothing was changed (after `unavailable` it may have been).
   */
  async register(registration: Registration, options: CatalogWriteOptions = {}): Promise<bigint> {
    const { judge } = options;
    const reading = this.#parsed(registration);
    // Without an `await`, so that writes keep their order.
    const parsed = options.inTurns === true ? await inTurns(reading) : doAll(reading);
    return this.#write(
      (draft) => {
        draft.register(parsed, judge);
        return (index) => index;
      },
      { fields: fieldsOf(parsed) },
    );
  }

  *#parsed(registration: Registration): Steps<ParsedRegistration> {
    requireFewValues("a registration", registration, this.#recordValues, this.#incidents);
    yield;
    return yield* registrationSteps(registration, this.#datacenter);
  }

  *#allParsed(registrations: Iterable<Registration>): Steps<readonly ParsedRegistration[]> {
    const parsed: ParsedRegistration[] = [];
    for (const registration of registrations) {
      try {
        parsed.push(yield* this.#parsed(registration));
      } catch (error) {
        throw atPosition(error, parsed.length);
      }
    }
    return parsed;
  }

  /**
   * Many registrations in order, all of them or none, in one commit.
   * @throws {PeeringError} as {@link register}; an invalid one is named by its position from 0. `resource-exhausted`: the
   *   storage does not take so much in one commit (`Storage.limits`).
   */
  async registerAll(registrations: Iterable<Registration>, options: CatalogWriteOptions = {}): Promise<bigint> {
    const { judge } = options;
    const reading = this.#allParsed(registrations);
    const parsed = options.inTurns === true ? await inTurns(reading) : doAll(reading);
    return this.#write(
      (draft) => {
        for (const [position, registration] of parsed.entries()) {
          try {
            draft.register(registration, judge);
          } catch (error) {
            throw atPosition(error, position);
          }
        }
        return (index) => index;
      },
      { alone: true, fields: parsed.reduce((sum, registration) => sum + fieldsOf(registration), 0) },
    );
  }

  /**
   * Removes a service with its checks, a check, or a node with everything on it. A missing target is no failure.
   * @throws {PeeringError} as {@link register}.
   */
  async deregister(target: Deregistration, { judge }: CatalogWriteOptions = {}): Promise<bigint> {
    const parsed = parseDeregistration(target, this.#datacenter);
    return this.#write((draft) => {
      draft.deregister(parsed, judge);
      return (index) => index;
    });
  }

  /**
   * Changes the status and output of a check, and nothing else of it.
   * @returns false when there is no such check: it is not made again.
   * @throws {PeeringError} as {@link register}.
   */
  updateCheck(node: string, checkId: string, status: string, output: string): Promise<boolean> {
    return this.#write((draft) => {
      const found = draft.updateCheck(node, checkId, status, output);
      return () => found;
    });
  }

  /**
   * Gives checks of a node the ports by which their proxies lead to them, or takes them.
   * @returns the ids of those for which no port is left.
   * @throws {PeeringError} as {@link register}.
   */
  exposeChecks(node: string, exposure: CheckExposure): Promise<readonly string[]> {
    return this.#write(
      (draft) => {
        const left = draft.exposeChecks(node, exposure);
        return () => left;
      },
      { fields: RECORD_FIELDS * (exposure.exposed.length + exposure.hidden.length) },
    );
  }

  /**
   * At most 128 operations, all or nothing (Consul 1.14 to 1.22).
   * @throws {TransactionError} (`invalid-registration`) with the text of every operation that failed.
   * @throws {PeeringError} as {@link register}.
   */
  async transaction(
    operations: readonly TransactionOperation[],
    options: CatalogWriteOptions = {},
  ): Promise<TransactionAnswer> {
    const { judge } = options;
    const reading = this.#transactionParsed(operations);
    const parsed = options.inTurns === true ? await inTurns(reading) : doAll(reading);
    return this.#write(
      (draft) => {
        const records = draft.transaction(parsed, judge);
        return (index) => ({ index, results: records.map(resultOf) });
      },
      { fields: RECORD_FIELDS * parsed.length },
    );
  }

  *#transactionParsed(operations: readonly TransactionOperation[]): Steps<readonly ParsedOperation[]> {
    for (const operation of operations) {
      requireFewValues("an operation of a transaction", operation, this.#recordValues, this.#incidents);
    }
    yield;
    return yield* transactionSteps(operations, this.#datacenter);
  }

  /**
   * Assigns virtual IPs to services and holds them until {@link releaseVirtualIps}, for services without an instance in this
   * catalog: those that config entries name, or the imports of a peer. Many are claimed in several commits, so not all or nothing.
   * @param peer - `""` for local services.
   * @throws {PeeringError} as {@link register}.
   */
  claimVirtualIps(peer: string, services: readonly string[]): Promise<bigint> {
    return this.#setClaims(peer, services, true);
  }

  /** Ends claims; an address is freed when no instance uses it either. @throws {PeeringError} as {@link register}. */
  releaseVirtualIps(peer: string, services: readonly string[]): Promise<bigint> {
    return this.#setClaims(peer, services, false);
  }

  async #setClaims(peer: string, services: readonly string[], isClaimed: boolean): Promise<bigint> {
    const { writes, bytes } = this.#replica.limits();
    const together = Math.max(1, Math.floor(Math.min(CLAIMED_BATCH, writes / CLAIM.writes, bytes / CLAIM.bytes)));
    let index = atLeastOne(this.#replica.revision);
    for (let begun = 0; begun < services.length; begun += together) {
      const part = services.slice(begun, begun + together);
      index = await this.#write(
        (draft) => {
          for (const service of part) draft.claimVirtualIp(peer, service, isClaimed);
          return (written) => written;
        },
        { fields: RECORD_FIELDS * part.length },
      );
    }
    return index;
  }

  /**
   * Gives a local service that has a virtual IP these IPv4 addresses besides, at most 8, in place of those it had, and takes
   * them from whichever service had them.
   * @returns the services they were taken from, lower-cased; undefined: the service has no virtual IP, and nothing was done.
   * @throws {PeeringError} as {@link register}.
   */
  assignManualVirtualIps(service: string, addresses: readonly string[]): Promise<readonly string[] | undefined> {
    return this.#write((draft) => {
      const taken = draft.setManualVirtualIps(service, addresses);
      return () => taken;
    });
  }

  /** The addresses an operator gave a local service. */
  manualVirtualIps(service: string): readonly string[] {
    return this.#state.virtualIps.get(virtualIpKey("", lowerCase(service)))?.manual ?? [];
  }

  /** Peers with claimed services, lower-cased; `""`: some local ones are claimed. */
  claimingPeers(): readonly string[] {
    return this.#state.virtualIps.claimingPeers();
  }

  /** The claimed services of a peer, or the claimed local ones, lower-cased. */
  claimedVirtualIps(peer: string): ReadonlySet<string> {
    return this.#state.virtualIps.claimedOf(lowerCase(peer));
  }

  #write<Result>(
    apply: (draft: CatalogDraft) => (index: bigint) => Result,
    { alone = false, fields = RECORD_FIELDS }: Partial<Pick<QueuedWrite, "alone" | "fields">> = {},
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      if (this.#closing.signal.aborted) return reject(closed());
      const queued: QueuedWrite = {
        apply: (draft) => {
          const finish = apply(draft);
          return (index) => resolve(finish(index));
        },
        reject,
        alone,
        fields,
      };
      this.#queue.push(queued);
      this.#run();
    });
  }

  /** Starts working off the queue in a microtask, so that writes of one turn are committed together. */
  #run(): void {
    if (this.#running !== undefined) return;
    this.#running = this.#workOff();
  }

  /** Never rejects: every failure belongs to a caller. */
  async #workOff(): Promise<void> {
    await undefined;
    for (;;) {
      const group = this.#nextGroup();
      if (group.length === 0) {
        // In the same turn as the look into the queue, or writes that come in between would wait for ever.
        this.#running = undefined;
        return;
      }
      for (let begun = 0; begun < group.length; ) begun += await this.#commit(group.slice(begun));
    }
  }

  #nextGroup(): readonly QueuedWrite[] {
    const next = this.#queue.slice(this.#begun, this.#begun + WRITTEN_BATCH);
    const lonely = next.findIndex((write) => write.alone);
    const group = lonely < 0 ? next : next.slice(0, Math.max(lonely, 1));
    this.#begun += group.length;
    // Now and then only: it costs as much as the writes that are kept.
    if (this.#begun * 2 >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#begun);
      this.#begun = 0;
    }
    return group;
  }

  /**
   * Commits the first of the group: as many as the storage takes together.
   * @returns how many those were. Each is answered; never rejects.
   */
  async #commit(group: readonly QueuedWrite[]): Promise<number> {
    const limits = this.#replica.limits();
    let count = group.length;
    try {
      await this.#replica.run("", async (turn) => {
        let plan = await inTurns(this.#planOf(group));
        // A write that is too large alone is left to the storage, which refuses it.
        for (count = group.length; count > 1 && !fits(sizeOf(plan.writes), limits); ) {
          count = Math.ceil(count / 2);
          plan = await inTurns(this.#planOf(group.slice(0, count)));
        }
        await turn.commit(plan);
      });
    } catch (error) {
      for (const write of group.slice(0, count)) write.reject(error);
    }
    return count;
  }

  /** In steps: nothing else changes the state in between. */
  *#planOf(group: readonly QueuedWrite[]): Steps<Plan<void>> {
    const draft = this.#state.draft();
    const settle: Finish[] = [];
    const meter = new StepMeter();
    for (const write of group) {
      try {
        settle.push(write.apply(draft));
      } catch (error) {
        if (write.alone) throw error;
        settle.push(() => write.reject(error));
      }
      if (meter.isOver(write.fields)) yield;
    }
    const writes = yield* this.#held.writesOf(draft, meter);
    return {
      writes,
      done: (revision) => {
        if (writes.length > 0) this.#held.take(draft, revision);
        for (const finish of settle) finish(atLeastOne(revision));
      },
    };
  }

  // Reading.

  /** Every node, in byte order of the lower-cased names. */
  nodes(): readonly IndexedNode[] {
    return this.#state.nodeRecords().map(indexedNode);
  }

  /**
   * A node with its services and checks, by id each, found in turns, and each made when it is looked at; undefined when there is
   * none of that name.
   */
  async nodeContents(name: string): Promise<NodeListings | undefined> {
    const records = await inShortTurns(this.#state.nodeRecordsSteps(lowerCase(name)));
    return records && nodeListings(records);
  }

  /** Every node as {@link nodeContents} shows it, in byte order of the lower-cased names. */
  async everyContents(): Promise<Listing<NodeListings>> {
    return derived(await inShortTurns(this.#state.contentsSteps()), nodeListings);
  }

  /** As {@link nodes}, found in turns, each made when it is looked at. */
  async nodeListing(): Promise<Listing<IndexedNode>> {
    return derived(await inShortTurns(this.#state.nodeSteps()), indexedNode);
  }

  /** A node without its services, at the same cost however many there are; undefined: there is none of that name. */
  nodeAlone(name: string): IndexedNode | undefined {
    const record = this.#state.nodeRecord(lowerCase(name));
    return record && indexedNode(record);
  }

  /** A node with its services and checks; undefined when there is none of that name. */
  node(name: string): CatalogNode | undefined {
    const nodeKey = lowerCase(name);
    const record = this.#state.nodeRecord(nodeKey);
    if (record === undefined) return undefined;
    const instances = this.#state.sortedInstancesOn(nodeKey);
    return {
      node: indexedNode(record),
      services: instances.map(indexedService),
      checks: [record, ...instances].flatMap(indexedChecks),
    };
  }

  /** Name of the node with exactly this address, of several the first by name; undefined: there is none. */
  nodeAt(address: string): string | undefined {
    return this.#state.nodeRecordAt(address)?.node.name;
  }

  /** One instance by its node and id; undefined: there is none. */
  instance(node: string, serviceId: string): IndexedInstance | undefined {
    const record = this.#state.instanceRecord(lowerCase(node), lowerCase(serviceId));
    return record && this.#indexedInstance(record);
  }

  /** The service of one instance, without its node and its checks; undefined: there is none. */
  service(node: string, serviceId: string): IndexedService | undefined {
    const record = this.#state.instanceRecord(lowerCase(node), lowerCase(serviceId));
    return record && indexedService(record);
  }

  /** The instances of a service on one node, in byte order of their ids. */
  instancesOn(node: string, service: string): readonly IndexedService[] {
    return this.#state.instanceRecordsOf(lowerCase(service), lowerCase(node)).map(indexedService);
  }

  /** The checks of one instance, without those of its node. */
  checksOf(node: string, serviceId: string): readonly IndexedCheck[] {
    const record = this.#state.instanceRecord(lowerCase(node), lowerCase(serviceId));
    return record === undefined ? [] : indexedChecks(record);
  }

  /** One check by its node and id; undefined: there is none. */
  check(node: string, checkId: string): IndexedCheck | undefined {
    const record = this.#state.checkRecord(lowerCase(node), lowerCase(checkId));
    return record && indexedCheck(record);
  }

  /** Whether there is a check of this id on a node. */
  hasCheck(node: string, checkId: string): boolean {
    return this.#state.checkOwner(lowerCase(node), lowerCase(checkId)) !== undefined;
  }

  /**
   * The checks that decide the health of an instance, those of its node first; with `serviceId` `""` those that decide that of the
   * node. Undefined: there is no such instance.
   * @internal
   */
  healthOf(node: string, serviceId: string): CheckGroups | undefined {
    const nodeKey = lowerCase(node);
    const ofNode = this.#state.checkGroup(this.#state.nodeRecord(nodeKey)?.checks ?? noChecks);
    if (serviceId === "") return { ofNode, own: this.#state.checkGroup(noChecks) };
    const record = this.#state.instanceRecord(nodeKey, lowerCase(serviceId));
    return record && { ofNode, own: this.#state.checkGroup(record.checks) };
  }

  /** Every service name, in byte order of the lower-cased names, with the tags its instances have, in byte order. */
  services(): ReadonlyMap<string, readonly string[]> {
    const services = new Map<string, readonly string[]>();
    for (const key of this.#sortedServiceKeys()) {
      services.set(this.#state.serviceName(key) ?? key, this.tags(key));
    }
    return services;
  }

  /** How many nodes, and names of services, there are: as cheap to ask as a field. */
  count(): { readonly nodes: number; readonly services: number } {
    return this.#state.count;
  }

  /** The names, as in {@link services}, found in turns. */
  async serviceNames(): Promise<readonly string[]> {
    return inShortTurns(this.#state.serviceNameSteps());
  }

  /** The tags that the instances of a service have, in byte order. */
  tags(service: string): readonly string[] {
    return tagsOf(this.#state.instanceRecords(lowerCase(service)));
  }

  /** The instances of a service, whatever their kind and health, in byte order of node and id; none: empty. */
  instances(service: string): readonly ServiceInstance[] {
    return this.#views(this.#state.instanceRecords(lowerCase(service)));
  }

  /** The same with the index of every part, each made when it is looked at. */
  indexedInstances(service: string): Listing<IndexedInstance> {
    return this.#indexed(this.#state.instanceRecords(lowerCase(service)));
  }

  /** The instances that speak for a service in the mesh: proxies for it, and its connect-native instances. */
  connectInstances(service: string): readonly ServiceInstance[] {
    return this.#views(this.#state.connectRecords(lowerCase(service)));
  }

  /** The same with the index of every part, each made when it is looked at. */
  indexedConnectInstances(service: string): Listing<IndexedInstance> {
    return this.#indexed(this.#state.connectRecords(lowerCase(service)));
  }

  /** Whether a service has an instance without a kind that does not speak for itself in the mesh. */
  isOrdinary(service: string): boolean {
    return this.#state.isOrdinary(lowerCase(service));
  }

  /** Whether a service has any instance. */
  hasInstances(service: string): boolean {
    return this.#state.kindsOf(lowerCase(service)).size > 0;
  }

  /** Whether a service has an instance of a kind. */
  isOf(service: string, kind: ServiceKind): boolean {
    return this.#state.kindsOf(lowerCase(service)).has(kind);
  }

  /** How many instances speak for a service in the mesh. @internal */
  countConnect(service: string): number {
    return this.#state.countConnect(lowerCase(service));
  }

  /** Whether anything speaks for a service in the mesh. */
  isConnectEnabled(service: string): boolean {
    return this.#state.isConnectEnabled(lowerCase(service));
  }

  /** The checks of all instances of a service, without those of their nodes. */
  serviceChecks(service: string): readonly IndexedCheck[] {
    return this.#state.instanceRecords(lowerCase(service)).flatMap(indexedChecks);
  }

  /**
   * The checks in a state (`passing`, `warning`, `critical` …), or all of them for `any`, by node and id. Found in turns, each
   * made when it is looked at.
   */
  async checksInState(state: string): Promise<Listing<IndexedCheck>> {
    return derived(await inShortTurns(this.#state.checkSteps(state)), indexedCheck);
  }

  /** Every service with the tags of its instances, as in {@link services}, found in turns. */
  async servicesWithTags(): Promise<Listing<TaggedService>> {
    return derived(await inShortTurns(this.#state.serviceSteps()), ({ name, instances }) => ({
      name,
      tags: () => tagsOf(instances.map(({ record }) => record)),
    }));
  }

  /**
   * Every service with its instances and the proxies for it, also services that only a proxy mentions, in byte order of their
   * names; found in turns.
   */
  async servicesWithProxies(): Promise<Listing<ServiceWithProxies>> {
    const views = (records: readonly RecordOnNode[]): readonly IndexedInstance[] =>
      records.map(({ record, node }) => this.#indexedInstance(record, node));
    const records = await inShortTurns(byNameSteps(this.#state.serviceSteps(true)));
    const large = new Map<ServiceRecords, ServiceSummary>();
    for (const one of records) {
      if (one.instances.length + one.proxies.length < MANY_INSTANCES) continue;
      large.set(one, await this.#summaryInTurns(one, views));
    }
    const summaryOf = (one: ServiceRecords): ServiceSummary => large.get(one) ?? this.#summaryOf(one, views);
    // Who merges lists looks at the names alone.
    return derived(records, (one) => ({
      name: shownName(one),
      get summary() {
        return summaryOf(one);
      },
      get instances() {
        return views(one.instances);
      },
      get proxies() {
        return views(one.proxies);
      },
    }));
  }

  /** Made once for the records of a service, which are others after each change of it. */
  #summaryOf(
    records: ServiceRecords,
    views: (records: readonly RecordOnNode[]) => readonly IndexedInstance[],
  ): ServiceSummary {
    const known = this.#knownSummary(records);
    if (known !== undefined) return known;
    const summary = doAll(summarySteps(records, views));
    this.#summaries.set(records.key, { records, summary });
    return summary;
  }

  #knownSummary(records: ServiceRecords): ServiceSummary | undefined {
    const kept = this.#summaries.get(records.key);
    return kept?.records === records ? kept.summary : undefined;
  }

  /** The same in turns, for a service with many instances. */
  async #summaryInTurns(
    records: ServiceRecords,
    views: (records: readonly RecordOnNode[]) => readonly IndexedInstance[],
  ): Promise<ServiceSummary> {
    const known = this.#knownSummary(records);
    if (known !== undefined) return known;
    const summary = await inShortTurns(summarySteps(records, views));
    this.#summaries.set(records.key, { records, summary });
    return summary;
  }

  /** How many nodes, instances and checks there are in each state, in byte order of their names; found in turns. */
  counts(): Promise<CountedCatalog> {
    return inShortTurns(this.#state.countSteps());
  }

  /** The kinds of each name, keyed lower-cased; also names that only a proxy mentions. */
  kinds(): ReadonlyMap<string, ServiceKinds> {
    return this.#state.kinds();
  }

  /** The names of the services with an instance without a kind, by lower-cased name: the same map until one of them changes. @internal */
  typicalNames(): ReadonlyMap<string, string> {
    return this.#state.typicalNames();
  }

  /** The virtual IP of a service, or of a peer's; undefined when it has none. */
  virtualIp(service: string, peer = ""): string | undefined {
    return this.#state.virtualIp(peer, service);
  }

  /** Revision of the last commit that changed the catalog; 0 before the first. */
  get revision(): bigint {
    return this.#replica.revision;
  }

  /** The indexes of this moment. */
  get index(): CatalogIndexes {
    const state = this.#state;
    const { marks } = state;
    const absent = (extinction: bigint): bigint =>
      atLeastOne(extinction > 0n ? extinction : highest(marks.checks, marks.services, marks.nodes));
    return {
      nodes: atLeastOne(marks.nodes),
      services: atLeastOne(marks.services),
      checks: atLeastOne(marks.checks),
      virtualIps: atLeastOne(marks.virtualIps),
      node: (name) => atLeastOne(state.nodeMark(lowerCase(name)) ?? absent(marks.lastNodeExtinction)),
      service: (name) => atLeastOne(state.serviceMark(lowerCase(name)) ?? absent(marks.lastServiceExtinction)),
      connect: (name) => state.connectMark(lowerCase(name)) ?? absent(marks.lastServiceExtinction),
      kind: (kind) => atLeastOne(state.kindMark(kind)),
    };
  }

  /**
   * Resolves with the index of a read once that exceeds `after`, as a blocking query needs it.
   * @param read - takes the index from the catalog, for example `() => catalog.index.service("web")`.
   * @throws `signal.reason` when aborted, {@link PeeringError} `closed` when the catalog is disposed of.
   */
  indexAfter(read: () => bigint, after: bigint, options: Abortable = {}): Promise<bigint> {
    const signal = signalOf(options);
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      if (this.#closing.signal.aborted) return reject(closed());
      const end = (reason: unknown): void => {
        stop();
        reject(reason);
      };
      const aborted = (): void => end(signal.reason);
      const check = (): void => {
        try {
          const index = read();
          if (index <= after) return;
          stop();
          resolve(index);
        } catch (error) {
          end(error);
        }
      };
      const forget = [this.#changes.on(check), this.#ended.on(() => end(closed()))];
      const stop = (): void => {
        for (const each of forget) each();
        signal.removeEventListener("abort", aborted);
      };
      signal.addEventListener("abort", aborted, { once: true });
      check();
    });
  }

  /**
   * Calls `listener` at once after each commit that changed the catalog, until the returned function is called.
   * @param listener - gets the services that may look otherwise: lower-cased names, and their spelling.
   */
  onChange(listener: (services: ReadonlyMap<string, string>) => void): () => void {
    return this.#changes.on(listener);
  }

  /**
   * As {@link onChange}, after each change that raises `index.service(name)`, and after few others: for the many who wait for single
   * services.
   */
  onServiceChange(service: string, listener: () => void): () => void {
    return this.#ofServices.on(lowerCase(service), listener);
  }

  /**
   * The local services as states, first all of them, then those that changed. Each update is what
   * the catalog's content when it is asked for: a slow consumer costs one set of names and skips states in between. Ends
   * when `signal` aborts or the catalog is disposed of.
   */
  watch(options: Abortable = {}): AsyncGenerator<CatalogUpdate, void, void> {
    /** Lower-cased names to the spelling they had last; undefined: everything, as nothing was delivered yet. */
    let pending: Map<string, string> | undefined;
    return latest({
      signal: signalOf(options),
      isClosed: () => this.#closing.signal.aborted,
      subscribe: (wake) => {
        const forget = [
          this.#changes.on((services) => {
            if (pending !== undefined) for (const [key, name] of services) pending.set(key, name);
            wake();
          }),
          this.#ended.on(wake),
        ];
        return () => {
          for (const each of forget) each();
        };
      },
      read: () => {
        if (pending?.size === 0) return undefined;
        const names = pending;
        pending = new Map();
        return this.#updateOf(names);
      },
    });
  }

  /** @param names - lower-cased, with the spelling they had last; undefined: of all services. */
  #updateOf(names: ReadonlyMap<string, string> | undefined): CatalogUpdate {
    const services = new Map<string, readonly ServiceInstance[]>();
    for (const key of names?.keys() ?? this.#sortedServiceKeys()) {
      const name = this.#state.serviceName(key) ?? names?.get(key) ?? key;
      services.set(name, this.#views(this.#state.instanceRecords(key)));
    }
    return { services, revision: this.revision };
  }

  #sortedServiceKeys(): readonly string[] {
    return [...this.#state.serviceKeys()].sort(compareUtf8);
  }

  #views(records: readonly InstanceRecord[]): readonly ServiceInstance[] {
    return Object.freeze(records.map((record) => this.#state.view(record)));
  }

  /** Their present state, whatever becomes of them until they are looked at. */
  #indexed(records: readonly InstanceRecord[]): Listing<IndexedInstance> {
    const nodes = records.map((record) => this.#nodeOf(record));
    const kept = records.slice();
    const at = (index: number): IndexedInstance | undefined => {
      const [record, node] = [kept[index], nodes[index]];
      return record && node && this.#indexedInstance(record, node);
    };
    return {
      length: kept.length,
      at,
      *[Symbol.iterator]() {
        for (let index = 0; index < kept.length; index++) {
          const instance = at(index);
          if (instance !== undefined) yield instance;
        }
      },
    };
  }

  #nodeOf(record: InstanceRecord): NodeRecord {
    const node = this.#state.nodeRecord(record.nodeKey);
    if (node === undefined) throw new TypeError("not an instance of this catalog");
    return node;
  }

  #indexedInstance(record: InstanceRecord, node = this.#nodeOf(record)): IndexedInstance {
    const [shownNode, service] = [indexedNode(node), indexedService(record)];
    if (node.checks.size + record.checks.size <= LISTED_AT_ONCE) {
      return { node: shownNode, service, checks: [node, record].flatMap(indexedChecks) };
    }
    return withGroups(
      { node: shownNode, service },
      { ofNode: this.#indexedGroup(node), own: this.#indexedGroup(record) },
    );
  }

  /** One group for all who share it, as long as none of its checks changes. */
  #indexedGroup(holder: NodeRecord | InstanceRecord): CheckGroup<IndexedCheck> {
    const { checks } = holder;
    let group = this.#indexedGroups.get(checks);
    if (group === undefined) {
      group = new CheckGroup(checks.size, () => indexedChecks(holder));
      this.#indexedGroups.set(checks, group);
    }
    return group;
  }

  /** Refuses new writes, waits for the commit that is under way, ends every watch. The storage stays open. */
  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#closing.abort(closed());
      this.#ended.emit();
    }
    await this.#running;
    await this.#replica[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** About the memory of a summary: its texts are those of the records. */
function bytesOfSummary({ summary: { nodes, tags, sources } }: KeptSummary): number {
  return SUMMARY_BYTES + PLACE_BYTES * (nodes.length + tags.length + sources.length);
}

function closed(): PeeringError {
  return new PeeringError("closed", "the catalog is closed");
}

function atPosition(error: unknown, position: number): unknown {
  if (!(error instanceof PeeringError)) return error;
  return new PeeringError(error.code, `registration ${position}: ${error.message}`, { cause: error });
}

function highest(...indexes: readonly bigint[]): bigint {
  let high = 0n;
  for (const index of indexes) if (index > high) high = index;
  return high;
}

/** Consul never answers index 0: a client would take it for "no index". */
function atLeastOne(index: bigint): bigint {
  return index > 0n ? index : 1n;
}

function tagsOf(records: readonly InstanceRecord[]): readonly string[] {
  const tags = new Set<string>();
  for (const { service } of records) for (const tag of service.tags) tags.add(tag);
  return [...tags].sort(compareUtf8);
}

/** As its first instance spells it, else as the first proxy does. */
function shownName({ name, instances }: ServiceRecords): string {
  return instances[0]?.record.service.name ?? name;
}

function* summarySteps(
  one: ServiceRecords,
  views: (records: readonly RecordOnNode[]) => readonly IndexedInstance[],
): Steps<ServiceSummary> {
  const maker = new SummaryMaker(shownName(one));
  for (let start = 0; start < one.instances.length; start += SUMMED_UP) {
    for (const instance of views(one.instances.slice(start, start + SUMMED_UP))) maker.add(instance);
    yield;
  }
  for (let start = 0; start < one.proxies.length; start += SUMMED_UP) {
    for (const proxy of views(one.proxies.slice(start, start + SUMMED_UP))) maker.addProxy(proxy);
    yield;
  }
  return maker.summary();
}

/** In byte order of the names as they are shown. Mostly they are in it: it is that of the keys. */
function* byNameSteps(making: Steps<readonly ServiceRecords[]>): Steps<readonly ServiceRecords[]> {
  const records = yield* making;
  let last = "";
  for (const one of records) {
    const name = shownName(one);
    if (compareUtf8(name, last) < 0) {
      return yield* sortSteps(records, (left, right) => compareUtf8(shownName(left), shownName(right)));
    }
    last = name;
  }
  return records;
}

function nodeListings({ record, instances, checks }: NodeRecords): NodeListings {
  return {
    node: indexedNode(record),
    services: derived(instances, indexedService),
    checks: derived(checks, indexedCheck),
  };
}

function indexes(record: { readonly created: Stamp; readonly modified: Stamp }): Indexes {
  return { createIndex: record.created.index, modifyIndex: record.modified.index };
}

function indexedNode(record: NodeRecord): IndexedNode {
  return { ...record.node, ...indexes(record) };
}

function indexedService(record: InstanceRecord): IndexedService {
  return { ...record.service, ...indexes(record) };
}

function indexedCheck(record: CheckRecord): IndexedCheck {
  return { ...record.check, ...indexes(record) };
}

function indexedChecks({ checks }: NodeRecord | InstanceRecord): readonly IndexedCheck[] {
  return Array.from(checks.values(), indexedCheck);
}

function resultOf(operation: OperationRecord): TransactionResult {
  switch (operation.type) {
    case "node":
      return { type: "node", node: indexedNode(operation.record) };
    case "service":
      return { type: "service", node: operation.node, service: indexedService(operation.record) };
    case "check":
      return { type: "check", check: indexedCheck(operation.record) };
  }
}
