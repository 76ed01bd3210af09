import { compareUtf8 } from "../base/byte-order.js";
import { type Clock, systemClock } from "../base/environment.js";
import { errorText, PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { retry } from "../base/retry.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns, sortSteps } from "../base/turns.js";
import type { ServiceInstance } from "../model/instance.js";
import { lowerCase } from "../model/names.js";
import { type DecodedNode, decodeNode, type EncodedNode } from "../payload/imported-payload.js";
import type { PayloadView } from "../payload/payload-parts.js";
import { IMPORTS_PREFIX } from "../storage/keys.js";
import { cutWrites, fits } from "../storage/limits.js";
import type { CommitOptions, Entry, Expectation, Key, Storage, StorageLimits, Write } from "../storage/storage.js";
import { holders, type ImportTotals, type PeerIndex, type ServiceHead, type StoredService } from "./import-index.js";
import { ImportPayloads } from "./import-payloads.js";
import { ALL, ImportPeer } from "./import-peer.js";
import {
  defaultImportLimits,
  type ImportItem,
  type ImportLimits,
  ImportPlan,
  type PlannedWrite,
  storedHeadSteps,
} from "./import-plan.js";
import { decodeRow, encodeRow, rowKey } from "./import-rows.js";
import { type FollowOptions, type ImportChange, type ImportPart, watchParts, watchWhole } from "./import-watch.js";

export { defaultImportLimits, type ImportItem, type ImportLimits } from "./import-plan.js";
export type { ImportChange, ImportDifference, ImportPart, ImportSnapshot } from "./import-watch.js";

/** A service that has instances. */
export interface ImportedService {
  /** As its instances spell it. */
  readonly name: string;
  readonly instances: number;
  /** The storage revision of its last change: create and modify index of its instances (D-29). */
  readonly revision: bigint;
}

/**
 * The virtual addresses of services that peers export to the mesh. Names are lower-cased. Claiming or releasing twice
 * is a no-op.
 */
export interface ImportedAddresses {
  /** Gives each an address, before anyone sees the proxies that show it. @throws {PeeringError} as `Storage.commit`. */
  claim(peeringId: string, services: readonly string[]): Promise<void>;
  /** Frees the addresses of those that have one. What fails is repaired by the next start; it never throws. */
  release(peeringId: string, services: readonly string[]): Promise<void>;
}

const noAddresses: ImportedAddresses = { claim: async () => {}, release: async () => {} };

/** Services committed together at most. */
const COMMITTED: StorageLimits = { writes: 2_500, bytes: 16 * 1024 * 1024 };
/** Deleted with one commit when a peer goes. */
const REMOVED: StorageLimits = { writes: 1_000, bytes: 1024 * 1024 };
/** Of a row beside its payload: its header, and its key with the longest name. */
const ROW_BYTES = 512;
/** With so many services that have come, they are put in order where that can be done in turns. */
const MANY_UNSORTED = 1_000;
/** Nodes that were asked for last and are kept, of all peers. */
const KEPT_NODES = 1_000;
/** About what a node takes to be decoded, in fields. */
const NODE_FIELDS = 20;

/** The rows of one commit; undefined: the service goes. */
type Part = Map<string, PlannedWrite | undefined>;

/** A row without its payload. */
interface StoredHead {
  readonly peeringId: string;
  readonly head: ServiceHead;
  readonly revision: bigint;
  /** Among the rows of its commit. */
  readonly place: number;
}

/** What a node was when it was asked for last. */
interface KeptNode {
  /** Of what was said of it then. */
  readonly low: number;
  readonly high: number;
  readonly node: DecodedNode;
}

interface WatchOptions {
  readonly peeringId: string;
  /** Default: all. */
  readonly service?: string;
  readonly signal: AbortSignal;
}

export interface ImportStoreOptions {
  /** Default: {@link defaultImportLimits}. */
  readonly limits?: Partial<ImportLimits>;
  /** Gives imported services of the mesh their virtual addresses. Default: they get none. */
  readonly addresses?: ImportedAddresses;
  /** Told of limits that are hit and of damaged imports. Default: nobody. */
  readonly incidents?: Incidents;
  /** For the waits after the storage failed. Default: the system's. */
  readonly clock?: Clock;
}

/** Waits after a commit was not answered and the storage could not be read. */
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 60_000;

/**
 * What peers export to us: one storage entry per peer and service that holds the payload as received (design, decision 2).
 * In memory there is only an index; payloads are read, and instances decoded, when somebody reads or watches them.
 *
 * Peers are told apart by our id of the peering and share nothing but the limits; local data lies elsewhere. Everything can be
 * fetched again from the peers, so damaged rows are dropped.
 */
export class ImportStore implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #limits: ImportLimits;
  readonly #addresses: ImportedAddresses;
  readonly #payloads: ImportPayloads;
  readonly #totals: ImportTotals = { payloadBytes: 0, indexBytes: 0 };
  readonly #peers = new Map<string, ImportPeer>();
  readonly #listeners = new Set<() => void>();
  readonly #damageListeners = new Set<(peeringId: string) => void>();
  /** By peer and name; the one asked for last comes last. */
  readonly #keptNodes = new Map<string, KeptNode>();
  readonly #clock: Clock;
  readonly #closing = new AbortController();
  /** Attempts to find out what became of commits that were not answered. None of them rejects. */
  readonly #settling = new Set<Promise<void>>();
  /** The revision that was read when it was opened: no reader who waited before may miss what happened meanwhile. */
  #floor = 0n;

  private constructor(storage: Storage, options: ImportStoreOptions) {
    const { limits, addresses = noAddresses, incidents = new Incidents(), clock = systemClock } = options;
    this.#storage = storage;
    this.#limits = { ...defaultImportLimits, ...limits };
    this.#addresses = addresses;
    this.#clock = clock;
    this.#payloads = new ImportPayloads({
      storage,
      incidents,
      onDamaged: (peer, service) => this.#dropDamaged(peer, service),
    });
  }

  /**
   * Makes the index of the stored rows. Damaged ones are dropped and reported: the peers send everything again.
   * @throws {PeeringError} as `Storage.read` and `Storage.commit`.
   */
  static async open(storage: Storage, options: ImportStoreOptions = {}): Promise<ImportStore> {
    const store = new ImportStore(storage, options);
    const stored: StoredHead[] = [];
    for await (const { entries, revision } of store.#payloads.pages(IMPORTS_PREFIX)) {
      store.#floor = revision;
      for (const entry of entries) stored.push(...(await store.#headOf(entry)));
    }
    await store.#adopt(stored);
    return store;
  }

  /**
   * Applies what a peer sent, in this order, all that is valid; in one commit unless that were too large. A service that is stored already
   * is not written again, also when its maps come in another order.
   *
   * @param expect - what must hold for each commit, such as a record that is still active.
   * @returns for each item undefined, or why nothing of it was applied: `invalid-message`, or `resource-exhausted` beyond a
   *   limit, both with the cause a NACK names.
   * @throws {PeeringError} `conflict` when an expectation failed; as `Storage.commit`. Items that were not committed before are not
   *   applied then; all of it can be tried again.
   */
  async apply(
    peeringId: string,
    items: readonly ImportItem[],
    expect: readonly Expectation[] = [],
  ): Promise<{ readonly results: readonly (PeeringError | undefined)[] }> {
    const peer = this.#peer(peeringId);
    return peer.mutex.run(async () => {
      await this.#settleDoubt(peer);
      const payloadBytes = this.#storage.limits.bytes - ROW_BYTES;
      const plan = new ImportPlan(peer.index, this.#totals, this.#limits, payloadBytes);
      const results = await inTurns(plan.steps(items));
      await this.#commit(peer, plan, expect);
      return { results };
    });
  }

  /** How many services of a peer have instances, and how many those are: kept, not counted. */
  count(peeringId: string): { readonly services: number; readonly instances: number } {
    const index = this.#peers.get(peeringId)?.index;
    return { services: index?.size ?? 0, instances: index?.instances ?? 0 };
  }

  /** Every service of a peer that has instances, by lower-cased name. */
  services(peeringId: string): readonly ImportedService[] {
    return (this.#peers.get(peeringId)?.index.sorted() ?? []).map(asImported);
  }

  /** One service of a peer; undefined when it has no instances. */
  service(peeringId: string, name: string): ImportedService | undefined {
    const service = this.#peers.get(peeringId)?.index.get(lowerCase(name));
    return service && asImported(service);
  }

  /** The lower-cased names of the services that have instances on a node of a peer, in byte order. */
  servicesOn(peeringId: string, node: string): readonly string[] {
    const found = this.#peers.get(peeringId)?.index.node(lowerCase(node));
    return found === undefined ? [] : Array.from(holders(found), ({ key }) => key).sort(compareUtf8);
  }

  /**
   * The index of a read: it grows whenever its answer may have changed, and for a service hardly ever otherwise. 1 at least.
   * @param peeringId - undefined: of a peer that was never heard of.
   * @param service - undefined: everything of the peer.
   */
  index(peeringId: string | undefined, service?: string): bigint {
    const floor = later(this.#floor, 1n);
    const index = peeringId === undefined ? undefined : this.#peers.get(peeringId)?.index;
    if (index === undefined) return floor;
    if (service === undefined) return later(floor, index.revision);
    const absent = index.extinction === 0n ? index.revision : index.extinction;
    return later(floor, index.get(lowerCase(service))?.mark ?? absent);
  }

  /** The index of a read of all that is imported. 1 at least. */
  get newestIndex(): bigint {
    let newest = this.index(undefined);
    for (const { index } of this.#peers.values()) newest = later(newest, index.revision);
    return newest;
  }

  /** Calls `listener` after every commit of imports of any peer; it must not throw. @returns Ends it. */
  onAnyChange(listener: () => void): () => void {
    const own = (): void => listener();
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  /**
   * Calls `listener` after every commit that raises the index of a service, or of anything of the peer; it must not throw.
   * @returns Ends it.
   */
  onChange(peeringId: string, service: string | undefined, listener: () => void): () => void {
    return this.#peer(peeringId).follow(keyOf(service), listener).end;
  }

  /**
   * Calls `listener` with the peering of which something was damaged and has been dropped: it is to be fetched again. It must
   * not throw. @returns Ends it.
   */
  onDamage(listener: (peeringId: string) => void): () => void {
    this.#damageListeners.add(listener);
    return () => this.#damageListeners.delete(listener);
  }

  /**
   * The instances of one service of a peer, as they came and each with its node's newest record; none for an unknown service or peer.
   * @throws {PeeringError} as `Storage.read`.
   */
  async instances(peeringId: string, service: string): Promise<readonly ServiceInstance[]> {
    const peer = this.#peers.get(peeringId);
    const view = peer === undefined ? undefined : await this.#view(peer, lowerCase(service));
    return view === undefined ? [] : this.#payloads.decode(view);
  }

  /**
   * Every node that holds an imported instance, with the checks of the node itself, by name.
   * @throws {PeeringError} as `Storage.read`.
   */
  async nodes(peeringId: string): Promise<readonly DecodedNode[]> {
    const peer = this.#peers.get(peeringId);
    if (peer === undefined) return [];
    const found = await peer.mutex.run(async () => {
      await this.#settleDoubt(peer);
      return this.#payloads.newestNodes(peer, peer.index.nodes());
    });
    const nodes = await inTurns(decodeAll(found.values()));
    return inTurns(sortSteps(nodes, (left, right) => compareUtf8(left.node.name, right.node.name)));
  }

  /**
   * A node that holds an imported instance, with the checks of the node itself; undefined for an unknown node or peer.
   * @throws {PeeringError} as `Storage.read`.
   */
  async node(peeringId: string, name: string): Promise<DecodedNode | undefined> {
    const peer = this.#peers.get(peeringId);
    const newest = peer?.index.node(lowerCase(name))?.newest;
    if (peer === undefined || newest === undefined) return undefined;
    const { node, low, high } = newest;
    const key = `${peeringId}/${node.name}`;
    let kept = this.#keptNodes.get(key);
    if (kept?.low !== low || kept.high !== high) {
      const found = await peer.mutex.run(async () => {
        await this.#settleDoubt(peer);
        return this.#payloads.newestNodes(peer, [node]);
      });
      const encoded = found.get(node.name);
      if (encoded === undefined) return undefined;
      kept = { low, high, node: decodeNode(encoded) };
    }
    this.#keptNodes.delete(key);
    this.#keptNodes.set(key, kept);
    const [oldest] = this.#keptNodes.keys();
    if (this.#keptNodes.size > KEPT_NODES && oldest !== undefined) this.#keptNodes.delete(oldest);
    return kept.node;
  }

  /**
   * Removes everything imported from a peer, in commits of bounded size; what failed half-way is finished by the next
   * call, and a call with nothing left to do writes nothing.
   * @param expect - what must hold for each commit, such as a record that is not active.
   * @throws {PeeringError} `conflict` when an expectation failed; as `Storage.commit`.
   */
  async removePeer(peeringId: string, expect: readonly Expectation[] = []): Promise<void> {
    const peer = this.#peer(peeringId);
    await peer.mutex.run(async () => {
      for (const part of partsOf(deletionsIn(peer.index), within(REMOVED, this.#storage.limits))) {
        await this.#commitPart(peer, part, expect, { durability: "durable" });
      }
      peer.doubt = undefined;
      // A commit whose answer was lost may have been made all the same.
      for await (const { entries } of this.#payloads.pages([...IMPORTS_PREFIX, peeringId])) {
        const writes = deletionsOf(entries.map(({ key }) => key));
        for (const together of cutWrites(writes, within(REMOVED, this.#storage.limits))) {
          await this.#storage.commit(together, expect);
        }
      }
      // What was claimed for a commit that was refused.
      await this.#release(peer, [...peer.addressed]);
    });
  }

  /**
   * The imports from a peer now, or one service of it, then the changes of each service, until `signal` aborts, the
   * store is closed or the peering's imports {@link end}. The newest state is never skipped; states in between may be. However
   * slow its consumer is, a watch costs what that has not been told, and shares it with others.
   * @throws {PeeringError} as `Storage.read`.
   */
  watch(options: WatchOptions): AsyncIterable<ImportChange> {
    return watchWhole(this.#followOptions(options));
  }

  /**
   * As {@link watch}, in parts: what there is, then `complete`, then changes, each of about `size` instances at most; so that
   * what is told takes no more memory than its consumer has use for.
   */
  watchParts(options: WatchOptions, size: number): AsyncIterable<ImportPart> {
    return watchParts(this.#followOptions(options), size);
  }

  /**
   * Makes the addresses of a peer agree with its imports: a crash may have come between the two.
   * @param claimed - lower-cased names that have one.
   * @throws {PeeringError} as `Storage.commit`.
   */
  async repairAddresses(peeringId: string, claimed: ReadonlySet<string>): Promise<void> {
    const peer = this.#peer(peeringId);
    await peer.mutex.run(async () => {
      peer.addressed.clear();
      for (const name of claimed) peer.addressed.add(name);
      await this.#claim(peer, peer.index.meshNames());
      await this.#release(peer, claimed);
    });
  }

  /** Ends the watches of a peering that is no more, after the last change of it. */
  end(peeringId: string): void {
    const peer = this.#peers.get(peeringId);
    if (peer === undefined) return;
    peer.over = true;
    peer.wake();
  }

  /** Ends every watch. The storage stays open: it is the host's. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    for (const peer of this.#peers.values()) peer.wake();
    await Promise.all(this.#settling);
  }

  #peer(peeringId: string): ImportPeer {
    let peer = this.#peers.get(peeringId);
    if (peer === undefined) {
      peer = new ImportPeer(peeringId, this.#totals);
      this.#peers.set(peeringId, peer);
    }
    return peer;
  }

  #followOptions({ peeringId, service, signal }: WatchOptions): FollowOptions {
    const peer = this.#peer(peeringId);
    return {
      peer,
      key: keyOf(service),
      payloads: this.#payloads,
      signal,
      isClosed: () => this.#closing.signal.aborted,
      settle: () => this.#settleDoubt(peer),
    };
  }

  /** A service as it is now; undefined: it has no instances. */
  async #view(peer: ImportPeer, key: string): Promise<PayloadView | undefined> {
    if (peer.doubt === undefined) {
      const service = peer.index.get(key);
      const view = service && (await this.#payloads.quickView(peer, service));
      if (service === undefined || view !== undefined) return view;
    }
    return peer.mutex.run(async () => {
      await this.#settleDoubt(peer);
      const service = peer.index.get(key);
      return service && (await this.#payloads.views(peer, [service])).get(key);
    });
  }

  // Agreeing with the storage.

  /** What the index needs of a row; none: it is damaged, and was dropped. */
  async #headOf(entry: Entry): Promise<readonly StoredHead[]> {
    const [, peeringId, key] = entry.key;
    try {
      if (peeringId === undefined || key === undefined || entry.key.length !== 3) throw new Error("unknown key");
      const row = decodeRow(entry);
      if (row === undefined) throw new Error("it is too short");
      const head = await inTurns(storedHeadSteps(key, row.payload));
      if (head.digest !== row.digest) throw new Error("its digest is not that of its payload");
      return [{ peeringId, head, revision: entry.revision, place: row.place }];
    } catch (error) {
      this.#payloads.reportDamage(entry.key, errorText(error));
      await this.#storage.commit(deletionsOf([entry.key]));
      return [];
    }
  }

  /** Adds the stored rows to the index, in the order of their commits, because the last one describes its nodes. */
  async #adopt(stored: readonly StoredHead[]): Promise<void> {
    const sorted = await inTurns(sortSteps(stored, compareCommits));
    await inTurns(this.#adoptSteps(sorted));
  }

  *#adoptSteps(stored: readonly StoredHead[]): Steps<void> {
    const meter = new StepMeter();
    const touched = new Set<ImportPeer>();
    for (const { peeringId, head, revision } of stored) {
      const peer = this.#peer(peeringId);
      touched.add(peer);
      const known = peer.index.get(head.key);
      if (known !== undefined) this.#payloads.drop(known);
      yield* peer.index.put(head, revision);
      if (meter.isOver(5 + 3 * head.nodes.length)) yield;
    }
    for (const { index } of touched) yield* index.settle((service) => this.#payloads.drop(service));
  }

  /** Drops a service whose row is missing, or is not the one that was written. Call it with the mutex held. */
  async #dropDamaged(peer: ImportPeer, service: StoredService): Promise<void> {
    if (peer.index.get(service.key) !== service) return;
    const key = rowKey(peer.id, service.key);
    this.#payloads.reportDamage(key, "it is missing, or not what was committed");
    this.#payloads.drop(service);
    peer.index.drop(service.key, peer.index.revision);
    const others = await inTurns(this.#settle(peer));
    this.#notify(peer, new Map([[service.key, undefined]]), others);
    try {
      await this.#storage.commit(deletionsOf([key]));
    } catch (error) {
      // Else the peer sends it again, and it is written over.
      if (error instanceof PeeringError && error.code === "closed") throw error;
    }
    for (const listener of [...this.#damageListeners]) listener(peer.id);
  }

  /** Where a commit was not answered, makes the index say what the storage does. Call it with the mutex held. */
  async #settleDoubt(peer: ImportPeer): Promise<void> {
    const { doubt, index } = peer;
    if (doubt === undefined) return;
    const stored = new Set<string | undefined>();
    const newer: StoredHead[] = [];
    for await (const { entries } of this.#payloads.pages([...IMPORTS_PREFIX, peer.id])) {
      for (const entry of entries) {
        stored.add(entry.key[2]);
        if (index.get(entry.key[2] ?? "")?.revision !== entry.revision) newer.push(...(await this.#headOf(entry)));
      }
    }
    const changed = new Map(doubt);
    for (const service of [...index.services()]) {
      if (stored.has(service.key)) continue;
      changed.set(service.key, doubt.get(service.key));
      this.#payloads.drop(service);
      index.drop(service.key, index.revision);
    }
    for (const { head } of newer) changed.set(head.key, doubt.get(head.key));
    await this.#adopt(newer);
    const others = await inTurns(this.#settle(peer));
    peer.doubt = undefined;
    this.#notify(peer, changed, others);
  }

  /** What was written after all is to be known soon, not only when somebody reads or writes next. */
  #settleSoon(peer: ImportPeer): void {
    const settled = retry(() => peer.mutex.run(() => this.#settleDoubt(peer)), {
      clock: this.#clock,
      signal: this.#closing.signal,
      firstMs: FIRST_RETRY_MS,
      maxMs: MAX_RETRY_MS,
      onFailure: (error) => {
        if (error instanceof PeeringError && error.code === "closed") throw error;
      },
    }).catch(() => {
      // The store or its storage is closed.
    });
    this.#settling.add(settled);
    void settled.then(() => this.#settling.delete(settled));
  }

  // Writing.

  /** Call it with the mutex held. */
  async #commit(peer: ImportPeer, plan: ImportPlan, expect: readonly Expectation[]): Promise<void> {
    const changes = [...plan.writes].filter(([key, write]) => write !== undefined || peer.index.get(key) !== undefined);
    for (const part of partsOf(changes, within(COMMITTED, this.#storage.limits))) {
      // The peer sends everything again on its next stream, so a loss of power loses nothing.
      await this.#commitPart(peer, part, expect, { durability: "relaxed" });
    }
  }

  async #commitPart(
    peer: ImportPeer,
    part: Part,
    expect: readonly Expectation[],
    options: CommitOptions,
  ): Promise<void> {
    const writes = await inTurns(rowSteps(peer.id, part));
    const claims = await this.#claim(peer, meshNames(part));
    const before = await this.#viewsBefore(peer, part);
    let revision: bigint;
    try {
      revision = await this.#storage.commit(writes, expect, options);
    } catch (error) {
      const code = error instanceof PeeringError ? error.code : undefined;
      if (code === "conflict") await this.#release(peer, claims);
      else if (code !== "storage-failed") {
        peer.doubt = new Map([...before, ...(peer.doubt ?? [])]);
        this.#settleSoon(peer);
      }
      throw error;
    }
    const { others, released } = await inTurns(this.#takeOver(peer, part, revision));
    const changed = new Map<string, PayloadView | undefined>();
    if (peer.isFollowed) {
      for (const key of part.keys()) changed.set(key, before.get(key));
      for (const [key, view] of before) changed.set(key, view);
    }
    this.#notify(peer, changed, others);
    if (released.length > 0) await this.#release(peer, released);
  }

  /** Brings the index up to the commit. Returns other services that look otherwise, and names that may need no address. */
  *#takeOver(
    peer: ImportPeer,
    part: Part,
    revision: bigint,
  ): Steps<{ readonly others: readonly string[]; readonly released: readonly string[] }> {
    const { index } = peer;
    const released: string[] = [];
    const meter = new StepMeter();
    for (const [key, write] of part) {
      const known = index.get(key);
      if (peer.addressed.size > 0) released.push(key, ...(known?.mesh ?? []));
      if (known !== undefined) this.#payloads.drop(known);
      const isKnown = peer.isKnown(key);
      if (write === undefined) index.drop(key, revision);
      else {
        const service = yield* index.put(write.head, revision);
        if (isKnown) this.#payloads.keepWritten(service, write.value);
      }
      if (meter.isOver(10 + 4 * (write?.head.nodes ?? known?.holds ?? []).length)) yield;
    }
    const others = yield* this.#settle(peer);
    if (index.unsorted >= MANY_UNSORTED) yield* index.sortSteps();
    return { others, released };
  }

  /** Returns the services that look otherwise through their nodes. */
  *#settle(peer: ImportPeer): Steps<readonly string[]> {
    const changed: string[] = [];
    yield* peer.index.settle((service) => {
      this.#payloads.drop(service);
      changed.push(service.key);
    });
    return changed;
  }

  #notify(peer: ImportPeer, changed: ReadonlyMap<string, PayloadView | undefined>, others: readonly string[]): void {
    peer.notify(changed, others);
    for (const listener of this.#listeners) listener();
  }

  /** The versions that watchers saw of the services that a commit changes, by key. Call it with the mutex held. */
  async #viewsBefore(peer: ImportPeer, part: Part): Promise<ReadonlyMap<string, PayloadView | undefined>> {
    const before = new Map<string, PayloadView | undefined>();
    if (!peer.isWatched) return before;
    const services = new Set<StoredService>();
    const add = (service: StoredService): void => {
      if (peer.isKnown(service.key)) services.add(service);
    };
    const heads = new Map<string, ServiceHead | undefined>();
    for (const [key, write] of part) {
      const service = peer.index.get(key);
      if (service === undefined) before.set(key, undefined);
      else add(service);
      heads.set(key, write?.head);
    }
    for (const node of await inTurns(peer.index.changedBy(heads))) for (const service of holders(node)) add(service);
    for (const [key, view] of await this.#payloads.views(peer, [...services])) before.set(key, view);
    return before;
  }

  /** Returns those that had no address before. */
  async #claim(peer: ImportPeer, names: Iterable<string>): Promise<readonly string[]> {
    const missing = [...names].filter((name) => !peer.addressed.has(name));
    if (missing.length === 0) return missing;
    await this.#addresses.claim(peer.id, missing);
    for (const name of missing) peer.addressed.add(name);
    return missing;
  }

  /** Frees the addresses of those that neither an instance of the name nor a proxy for it needs (D-38). */
  async #release(peer: ImportPeer, names: Iterable<string>): Promise<void> {
    const unused: string[] = [];
    for (const name of names) {
      const isUsed = peer.index.get(name) !== undefined || peer.index.isInMesh(name);
      if (!isUsed && peer.addressed.delete(name)) unused.push(name);
    }
    if (unused.length > 0) await this.#addresses.release(peer.id, unused);
  }
}

function asImported({ name, instances, revision }: StoredService): ImportedService {
  return { name, instances, revision };
}

function keyOf(service: string | undefined): string {
  return service === undefined ? ALL : lowerCase(service);
}

function later(left: bigint, right: bigint): bigint {
  return left > right ? left : right;
}

function deletionsOf(keys: readonly Key[]): readonly Write[] {
  return keys.map((key) => ({ key, value: undefined }));
}

/** Of all services, which may be dropped one after the other meanwhile. */
function* deletionsIn(index: PeerIndex): Generator<readonly [string, undefined], void> {
  for (const key of index.keys()) yield [key, undefined];
}

function within(most: StorageLimits, limits: StorageLimits): StorageLimits {
  return { writes: Math.min(most.writes, limits.writes), bytes: Math.min(most.bytes, limits.bytes) };
}

/** Cuts what is to be written into commits, in its order. */
function* partsOf(
  changes: Iterable<readonly [string, PlannedWrite | undefined]>,
  limits: StorageLimits,
): Generator<Part, void> {
  let part: Part = new Map();
  let bytes = 0;
  for (const [key, write] of changes) {
    const more = ROW_BYTES + (write?.value.length ?? 0);
    if (part.size > 0 && !fits({ writes: part.size + 1, bytes: bytes + more }, limits)) {
      yield part;
      part = new Map();
      bytes = 0;
    }
    part.set(key, write);
    bytes += more;
  }
  if (part.size > 0) yield part;
}

/** Services of the mesh for which the written instances speak. */
function meshNames(part: Part): ReadonlySet<string> {
  const names = new Set<string>();
  for (const write of part.values()) for (const name of write?.head.mesh ?? []) names.add(name);
  return names;
}

function* rowSteps(peeringId: string, part: Part): Steps<readonly Write[]> {
  const writes: Write[] = [];
  const meter = new StepMeter();
  for (const [key, write] of part) {
    const place = writes.length;
    const value = write && encodeRow({ digest: write.head.digest, place, payload: write.value });
    writes.push({ key: rowKey(peeringId, key), value });
    if (meter.isOver(10 + ((value?.length ?? 0) >>> 8))) yield;
  }
  return writes;
}

/** The order in which rows were committed. */
function compareCommits(left: StoredHead, right: StoredHead): number {
  return Number(left.revision - right.revision) || left.place - right.place;
}

function* decodeAll(nodes: Iterable<EncodedNode>): Steps<readonly DecodedNode[]> {
  const decoded: DecodedNode[] = [];
  const meter = new StepMeter();
  for (const encoded of nodes) {
    decoded.push(decodeNode(encoded));
    if (meter.isOver(NODE_FIELDS)) yield;
  }
  return decoded;
}
