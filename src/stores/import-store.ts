import { compareUtf8 } from "../base/byte-order.js";
import type { Clock } from "../base/environment.js";
import { isStorageFault, PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import type { ServiceInstance } from "../model/instance.js";
import { type DecodedNode, decodeNode } from "../payload/imported-payload.js";
import type { PayloadView } from "../payload/payload-parts.js";
import { IMPORTS_PREFIX } from "../storage/keys.js";
import { cutWrites, fits } from "../storage/limits.js";
import { type Plan, Replica, type Turn } from "../storage/replica.js";
import type { Expectation, Key, Storage, StorageLimits, Write } from "../storage/storage.js";
import { lowerCase } from "../syntax/names.js";
import { HeldImports, type Part } from "./held-imports.js";
import { holders, type PeerIndex, type StoredService } from "./import-index.js";
import { ImportNodes } from "./import-nodes.js";
import { ImportPayloads } from "./import-payloads.js";
import { ALL, type ImportPeer } from "./import-peer.js";
import {
  defaultImportLimits,
  type ImportItem,
  type ImportLimits,
  ImportPlan,
  type PlannedWrite,
} from "./import-plan.js";
import { encodeRow, rowKey } from "./import-rows.js";
import { ImportSummaries } from "./import-summaries.js";
import { type FollowOptions, type ImportChange, type ImportPart, watchParts, watchWhole } from "./import-watch.js";
import type { ImportedSummary, ListedNode } from "./peer-lists.js";

export { defaultImportLimits, type ImportItem, type ImportLimits } from "./import-plan.js";
export type { ImportChange, ImportDifference, ImportPart, ImportSnapshot } from "./import-watch.js";
export type { ImportedSummary, ListedNode } from "./peer-lists.js";

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
  /** Frees the addresses of services that have one. Failures are repaired by the next start; it never throws. */
  release(peeringId: string, services: readonly string[]): Promise<void>;
}

const noAddresses: ImportedAddresses = { claim: async () => {}, release: async () => {} };

/** Services committed together at most. */
const COMMITTED: StorageLimits = { writes: 2_500, bytes: 16 * 1024 * 1024 };
/** Deleted with one commit when a peer goes. */
const REMOVED: StorageLimits = { writes: 1_000, bytes: 1024 * 1024 };
/** Rows read at a time, in bytes. */
const PAGE_BYTES = 1024 * 1024;
const KEPT_BYTES = 16 * 1024 * 1024;
/** Of a row beside its payload: its header, and its key with the longest name. */
const ROW_BYTES = 512;
/** Nodes that were asked for last and are kept, of all peers. */
const KEPT_NODES = 1_000;
const DAMAGED = {
  incident: "import-damaged",
  message: "a stored import is damaged: it is dropped, and fetched again",
};

/** A node as it was when it was asked for last. */
interface KeptNode {
  /** The digest of its description then. */
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
  /** Gets a report of limits that are hit and of damaged imports. Default: no reports. */
  readonly incidents?: Incidents;
  /** For the waits after the storage failed. Default: the system's. */
  readonly clock?: Clock;
  /** Whether damaged rows may be deleted: where several hosts share a storage, only by the one that fetches them again. Default: always. */
  readonly mayDelete?: () => boolean;
  /** Payloads that were asked for last and are kept in memory, of all peers, in bytes. Default 16 MiB. */
  readonly keptBytes?: number;
}

/**
 * The services that peers export to us: one storage entry per peer and service that holds the payload as received.
 * In memory there is only an index ({@link HeldImports}); payloads are read, and instances decoded, for readers and
 * watches. Writes of other processes to the same storage are followed change by change.
 *
 * Peers are identified by our id of the peering and share nothing but the limits; local data lies elsewhere. Everything can be
 * fetched again from the peers, so damaged rows are dropped.
 */
export class ImportStore implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #replica: Replica;
  readonly #held: HeldImports;
  readonly #limits: ImportLimits;
  readonly #addresses: ImportedAddresses;
  readonly #incidents: Incidents;
  readonly #mayDelete: () => boolean;
  readonly #payloads: ImportPayloads;
  readonly #summaries: ImportSummaries;
  readonly #nodes: ImportNodes;
  readonly #damaged = new Signal<[peeringId: string]>();
  /** By peer and name; the one asked for last comes last. */
  readonly #keptNodes = new Map<string, KeptNode>();
  #isClosed = false;
  /** The revision that was read when it was opened: a reader that waited before must not miss a change since. */
  readonly #floor: bigint;

  private constructor(storage: Storage, held: HeldImports, replica: Replica, options: ImportStoreOptions) {
    this.#storage = storage;
    this.#held = held;
    this.#replica = replica;
    this.#floor = replica.known;
    this.#limits = { ...defaultImportLimits, ...options.limits };
    this.#addresses = options.addresses ?? noAddresses;
    this.#incidents = options.incidents ?? new Incidents();
    this.#mayDelete = options.mayDelete ?? (() => true);
    this.#payloads = new ImportPayloads({
      storage,
      views: held.views,
      onDamaged: (peer, service, turn) => this.#dropDamaged(peer, service, turn),
    });
    this.#summaries = new ImportSummaries({
      payloads: this.#payloads,
      most: this.#limits.summaryBytesInAll,
      incidents: this.#incidents,
    });
    this.#nodes = new ImportNodes(this.#payloads, this.#incidents, this.#limits.summaryBytesInAll);
  }

  /**
   * Makes the index of the stored rows. Damaged ones are dropped and reported: the peers send everything again.
   * @throws {PeeringError} as `Storage.read` and `Storage.commit`.
   */
  static async open(storage: Storage, options: ImportStoreOptions = {}): Promise<ImportStore> {
    const { incidents, clock, mayDelete = () => true, keptBytes = KEPT_BYTES } = options;
    const held = new HeldImports(keptBytes);
    const replica = await Replica.open({
      storage,
      prefix: IMPORTS_PREFIX,
      hasSections: true,
      rowName: "import",
      contents: held,
      expendable: { has: () => true, mayDelete, ...DAMAGED },
      clock,
      incidents,
    });
    return new ImportStore(storage, held, replica, options);
  }

  /**
   * Applies messages of a peer, in this order, all that are valid; in one commit unless that were too large. A service that is stored already
   * is not written again, also when its maps come in another order.
   *
   * @param expect - conditions on each commit, such as a record that is still active.
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
    const peer = this.#held.peer(peeringId);
    return this.#replica.run(peeringId, async (turn) => {
      const limits = this.#replica.limits(peeringId);
      const plan = new ImportPlan(peer.index, this.#held.totals, this.#limits, limits.bytes - ROW_BYTES);
      const results = await inTurns(plan.steps(items));
      const changes = [...plan.writes].filter(
        ([key, write]) => write !== undefined || peer.index.get(key) !== undefined,
      );
      // Without a commit nothing shows that the plan was decided on the stored state.
      if (changes.length === 0) await turn.current();
      for (const part of partsOf(changes, within(COMMITTED, limits))) {
        // The peer sends everything again on its next stream, so a loss of power loses nothing. A service that was withdrawn stays
        // away: nobody is shown it again while that stream is not there.
        const durability = removesAny(part) ? "durable" : "relaxed";
        await this.#commitPart(peer, turn, part, { expect, durability });
      }
      return { results };
    });
  }

  /** How many services of a peer have instances, and how many those are: kept, not counted. */
  count(peeringId: string): { readonly services: number; readonly instances: number } {
    const index = this.#held.peers.get(peeringId)?.index;
    return { services: index?.size ?? 0, instances: index?.instances ?? 0 };
  }

  /** Every service of a peer that has instances, by lower-cased name. */
  services(peeringId: string): readonly ImportedService[] {
    return (this.#held.peers.get(peeringId)?.index.sorted() ?? []).map(asImported);
  }

  /**
   * Every service of a peer as lists show it, in byte order of the names; also services that only proxies speak for. A summary is the
   * same object until anything of its service changes, as far as they fit in the memory for them.
   * @param peer - the name of the peering.
   * @throws {PeeringError} as `Storage.read`.
   */
  async summaries(peeringId: string, peer: string): Promise<readonly ImportedSummary[]> {
    const held = this.#held.peers.get(peeringId);
    if (held === undefined) return [];
    return this.#summaries.list(held, peer, (task) => this.#replica.run(peeringId, task));
  }

  /** One service of a peer; undefined when it has no instances. */
  service(peeringId: string, name: string): ImportedService | undefined {
    const service = this.#held.peers.get(peeringId)?.index.get(lowerCase(name));
    return service && asImported(service);
  }

  /** The lower-cased names of the services that have instances on a node of a peer, in byte order. */
  servicesOn(peeringId: string, node: string): readonly string[] {
    const found = this.#held.peers.get(peeringId)?.index.node(lowerCase(node));
    return found === undefined ? [] : Array.from(holders(found), ({ key }) => key).sort(compareUtf8);
  }

  /**
   * The index of a read: it grows whenever its answer may have changed, and for a service hardly ever otherwise. 1 at least.
   * @param peeringId - undefined: of a peer that was never heard of.
   * @param service - undefined: everything of the peer.
   */
  index(peeringId: string | undefined, service?: string): bigint {
    const floor = later(this.#floor, 1n);
    const index = peeringId === undefined ? undefined : this.#held.peers.get(peeringId)?.index;
    if (index === undefined) return floor;
    if (service === undefined) return later(floor, index.revision);
    const absent = index.extinction === 0n ? index.revision : index.extinction;
    return later(floor, index.get(lowerCase(service))?.mark ?? absent);
  }

  /** The index of a read of all that is imported. 1 at least. */
  get newestIndex(): bigint {
    let newest = this.index(undefined);
    for (const { index } of this.#held.peers.values()) newest = later(newest, index.revision);
    return newest;
  }

  /** Calls `listener` after every commit of imports of any peer; it must not throw. @returns Ends it. */
  onAnyChange(listener: () => void): () => void {
    return this.#held.changed.on(listener);
  }

  /**
   * Calls `listener` after every commit that raises the index of a service, or of anything of the peer; it must not throw.
   * @returns Ends it.
   */
  onChange(peeringId: string, service: string | undefined, listener: () => void): () => void {
    return this.#held.peer(peeringId).follow(keyOf(service), listener).end;
  }

  /**
   * Calls `listener` with the peering of which something was damaged and has been dropped: it is to be fetched again. It must
   * not throw. @returns Ends it.
   */
  onDamage(listener: (peeringId: string) => void): () => void {
    return this.#damaged.on(listener);
  }

  /**
   * The instances of one service of a peer, as they came and each with its node's newest record; none for an unknown service or peer.
   * @throws {PeeringError} as `Storage.read`.
   */
  async instances(peeringId: string, service: string): Promise<readonly ServiceInstance[]> {
    const peer = this.#held.peers.get(peeringId);
    const view = peer === undefined ? undefined : await this.#view(peer, lowerCase(service));
    return view === undefined ? [] : this.#payloads.decode(view);
  }

  /**
   * Every node that holds an imported instance, with the checks of the node itself, by name. Each is the same object until it or a
   * service on it changes, as far as they fit in the memory for them.
   * @throws {PeeringError} as `Storage.read`.
   */
  async nodes(peeringId: string): Promise<readonly ListedNode[]> {
    const peer = this.#held.peers.get(peeringId);
    return peer === undefined ? [] : this.#replica.run(peeringId, (turn) => this.#nodes.list(peer, turn));
  }

  /**
   * A node that holds an imported instance, with the checks of the node itself; undefined for an unknown node or peer.
   * @throws {PeeringError} as `Storage.read`.
   */
  async node(peeringId: string, name: string): Promise<DecodedNode | undefined> {
    const peer = this.#held.peers.get(peeringId);
    const newest = peer?.index.node(lowerCase(name))?.newest;
    if (peer === undefined || newest === undefined) return undefined;
    const { node, low, high } = newest;
    const key = `${peeringId}/${node.name}`;
    let kept = this.#keptNodes.get(key);
    if (kept?.low !== low || kept.high !== high) {
      const found = await this.#replica.run(peeringId, (turn) => this.#payloads.newestNodes(peer, [node], turn));
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
   * @param expect - conditions on each commit, such as a record that is not active.
   * @throws {PeeringError} `conflict` when an expectation failed; as `Storage.commit`.
   */
  async removePeer(peeringId: string, expect: readonly Expectation[] = []): Promise<void> {
    const peer = this.#held.peer(peeringId);
    await this.#replica.run(peeringId, async (turn) => {
      await turn.current();
      const limits = within(REMOVED, this.#replica.limits(peeringId));
      for (const part of partsOf(deletionsIn(peer.index), limits)) {
        await this.#commitPart(peer, turn, part, { expect, durability: "durable" });
      }
      // Rows that are not in the index, such as damaged ones.
      const left: Key[] = [];
      for await (const page of this.#storage.pages([...IMPORTS_PREFIX, peeringId], PAGE_BYTES)) {
        for (const { key } of [...page.entries, ...page.damaged]) left.push(key);
      }
      const done = (): void => {};
      for (const writes of cutWrites(deletionsOf(left), limits)) await turn.commit({ writes, expect, done });
      await turn.commit({ writes: [], expect, isLast: true, done });
      this.#forgetLists(peer);
      // Addresses that were claimed for a commit that was refused.
      await this.#release(peer, [...peer.addressed]);
    });
  }

  /**
   * The imports from a peer now, or one service of it, then the changes of each service, until `signal` aborts, the
   * store is closed or the peering's imports {@link end}. The newest state is never skipped; states in between may be. However
   * slow its consumer is, a watch costs as much as its unseen changes, and shares them with others.
   * @throws {PeeringError} as `Storage.read`.
   */
  watch(options: WatchOptions): AsyncIterable<ImportChange> {
    return watchWhole(this.#followOptions(options));
  }

  /**
   * As {@link watch}, in parts: the present services, then `complete`, then changes, each of about `size` instances at most; so that
   * it takes no more memory than its consumer has use for.
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
    const peer = this.#held.peer(peeringId);
    await this.#replica.run(peeringId, async (turn) => {
      await turn.current();
      peer.addressed.clear();
      for (const name of claimed) peer.addressed.add(name);
      await this.#claim(peer, peer.index.meshNames());
      await this.#release(peer, claimed);
    });
  }

  /** Ends the watches of a peering that is no more, after the last change of it. Never rejects. */
  async end(peeringId: string): Promise<void> {
    const peer = this.#held.peers.get(peeringId);
    if (peer === undefined) return;
    try {
      await this.#replica.run(peeringId, (turn) => turn.current());
    } catch {
      // Nothing more can be told.
    }
    peer.over = true;
    this.#forgetLists(peer);
    peer.wake();
  }

  /** Ends every watch. The storage stays open: it is the host's. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const peer of this.#held.peers.values()) peer.wake();
    await this.#replica[Symbol.asyncDispose]();
  }

  #followOptions({ peeringId, service, signal }: WatchOptions): FollowOptions {
    const peer = this.#held.peer(peeringId);
    return {
      peer,
      key: keyOf(service),
      payloads: this.#payloads,
      signal,
      isClosed: () => this.#isClosed,
      run: (task) => this.#replica.run(peeringId, task),
    };
  }

  #forgetLists(peer: ImportPeer): void {
    this.#summaries.release(peer);
    this.#nodes.release(peer);
  }

  /** A service as it is now; undefined: it has no instances. */
  async #view(peer: ImportPeer, key: string): Promise<PayloadView | undefined> {
    await this.#replica.current(peer.id);
    const found = peer.index.get(key);
    if (found === undefined) return undefined;
    const view = await this.#payloads.quickView(peer, found);
    if (view !== undefined) return view;
    return this.#replica.run(peer.id, async (turn) => {
      const service = peer.index.get(key);
      return service && (await this.#payloads.views(peer, [service], turn)).get(key);
    });
  }

  /** Drops a service whose row is missing, or is not the one that was written. */
  async #dropDamaged(peer: ImportPeer, service: StoredService, turn: Turn): Promise<void> {
    if (peer.index.get(service.key) !== service) return;
    const key = rowKey(peer.id, service.key);
    const error = "it is missing, or not what was committed";
    this.#incidents.report(DAMAGED.incident, DAMAGED.message, { entry: key.join("/"), error });
    await this.#held.drop(peer, service);
    if (this.#mayDelete()) {
      try {
        await turn.commit({ writes: deletionsOf([key]), done: () => {} });
      } catch (error) {
        // Else the peer sends it again, and it is written over.
        if (!(error instanceof PeeringError && isStorageFault(error))) throw error;
      }
    }
    this.#damaged.emit(peer.id);
  }

  // Writing.

  async #commitPart(
    peer: ImportPeer,
    turn: Turn,
    part: Part,
    { expect, durability }: Pick<Plan<void>, "expect" | "durability">,
  ): Promise<void> {
    const writes = await inTurns(rowSteps(peer.id, part));
    const before = await this.#viewsBefore(peer, part, turn);
    const claims = await this.#claim(peer, meshNames(part));
    const done = async (revision: bigint): Promise<void> => {
      const { others, released } = await inTurns(this.#held.take(peer, part, revision));
      const changed = new Map<string, PayloadView | undefined>();
      if (peer.isFollowed) {
        for (const key of part.keys()) changed.set(key, before.get(key));
        for (const [key, view] of before) changed.set(key, view);
      }
      this.#held.notify(peer, changed, others);
      if (released.length > 0) await this.#release(peer, released);
    };
    try {
      await turn.commit({ writes, expect, durability, done });
    } catch (error) {
      if (error instanceof PeeringError && error.code === "conflict") await this.#release(peer, claims);
      throw error;
    }
  }

  /** The versions that watchers saw of the services that a commit changes, by key. */
  async #viewsBefore(peer: ImportPeer, part: Part, turn: Turn): Promise<ReadonlyMap<string, PayloadView | undefined>> {
    const before = new Map<string, PayloadView | undefined>();
    if (!peer.isWatched) return before;
    const heads = new Map(Array.from(part, ([key, write]) => [key, write?.head]));
    const services: StoredService[] = [];
    for (const [key, service] of await inTurns(this.#held.known(peer, heads))) {
      if (service === undefined) before.set(key, undefined);
      else services.push(service);
    }
    for (const [key, view] of await this.#payloads.views(peer, services, turn)) before.set(key, view);
    return before;
  }

  /** Returns the services that had no address before. */
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

/** Cuts the writes into commits, in their order. */
function* partsOf(
  changes: Iterable<readonly [string, PlannedWrite | undefined]>,
  limits: StorageLimits,
): Generator<Part, void> {
  let part = new Map<string, PlannedWrite | undefined>();
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

function removesAny(part: Part): boolean {
  for (const write of part.values()) if (write === undefined) return true;
  return false;
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
    if (meter.isOver(50 + ((value?.length ?? 0) >>> 8))) yield;
  }
  return writes;
}
