import { setImmediate } from "node:timers/promises";
import { compareUtf8 } from "../catalog/byte-order.js";
import { payloadDigest, SIDECAR_SUFFIX } from "../catalog/exported-payload.js";
import {
  type DecodedNode,
  type DecodedPayload,
  decodeNextPayload,
  decodeNode,
  decodePayload,
  diffInstances,
} from "../catalog/imported-payload.js";
import type { ServiceInstance } from "../catalog/instance.js";
import { lowerCase } from "../catalog/names.js";
import {
  canonicalPayload,
  defaultPayloadLimits,
  inspectPayload,
  type NodePlace,
  type PayloadLimits,
  type PayloadSummary,
  type Place,
  serviceKeys,
} from "../catalog/payload-inspection.js";
import { asPeeringError, errorText, PeeringError } from "../errors.js";
import { IMPORTS_PREFIX } from "../storage/keys.js";
import type { Entry, Expectation, Key, Storage, Write } from "../storage/storage.js";
import { StatusCode } from "../wire/status.js";
import { Mutex } from "./mutex.js";

/** Bounds on what one peer can make us hold. */
export interface ImportLimits extends PayloadLimits {
  /** Default 500 000. */
  readonly servicesPerPeer: number;
}

export const defaultImportLimits: ImportLimits = { ...defaultPayloadLimits, servicesPerPeer: 500_000 };

/** What a peer sent: all instances of one service, or the names of all services it exports now. */
export type ImportItem =
  | { readonly type: "service"; readonly name: string; readonly value: Uint8Array }
  | { readonly type: "list"; readonly names: readonly string[] };

/** A service that has instances. */
export interface ImportedService {
  /** As its instances spell it. */
  readonly name: string;
  readonly instances: number;
  /** The storage revision of its last change: create and modify index of its instances (D-29). */
  readonly revision: bigint;
}

/** Everything imported at one revision, by service name: the first thing a watch yields, also when there is nothing. */
export interface ImportSnapshot {
  readonly type: "snapshot";
  readonly revision: bigint;
  readonly services: ReadonlyMap<string, readonly ServiceInstance[]>;
}

/** What became of one service since a watch said the last thing about it. */
export interface ImportDifference {
  readonly type: "difference";
  readonly service: string;
  /** The storage revision this leads to; within a watch it never falls. */
  readonly revision: bigint;
  readonly added: readonly ServiceInstance[];
  /** As they are now. */
  readonly changed: readonly ServiceInstance[];
  /** As they were. */
  readonly removed: readonly ServiceInstance[];
}

export type ImportChange = ImportSnapshot | ImportDifference;

/**
 * The virtual addresses of services that peers export to the mesh (specification 4.8). Names are lower-cased; a service may
 * be claimed, or released, that is so already.
 */
export interface ImportedAddresses {
  /** Gives each an address, before anyone sees the proxies that show it. @throws {PeeringError} as `Storage.commit`. */
  claim(peeringId: string, services: readonly string[]): Promise<void>;
  /** Frees the addresses of those that have one. What fails is repaired by the next start; it never throws. */
  release(peeringId: string, services: readonly string[]): Promise<void>;
}

const noAddresses: ImportedAddresses = { claim: async () => {}, release: async () => {} };

/** What the index knows of a stored entry. */
interface StoredService {
  readonly key: string;
  name: string;
  digest: string;
  revision: bigint;
  instances: number;
  nodes: readonly ImportedNode[];
  /** Services of the mesh for which its instances speak. */
  mesh: readonly string[];
  /** Grows with every write of this process. */
  order: number;
}

/** A node of a peer: it exists while an entry holds it, and is as the last committed of these says (§4.4.3). */
interface ImportedNode {
  readonly name: string;
  readonly holders: Set<StoredService>;
  latest: StoredService | undefined;
  /** What `latest` says; undefined when that let go of the node and nobody has asked the others yet. */
  encoded: EncodedNode | undefined;
  /** The revision at which it last became another one. */
  mark: bigint;
}

interface EncodedNode {
  readonly record: Uint8Array;
  readonly checks: readonly Uint8Array[];
  decoded: DecodedNode | undefined;
}

interface Peer {
  readonly id: string;
  readonly services: Map<string, StoredService>;
  readonly nodes: Map<string, ImportedNode>;
  /** How many entries speak for each service of the mesh; none: not in it. */
  readonly mesh: Map<string, number>;
  /** Names that have a virtual address, as far as we know: kept while an instance of the name or a proxy for it is left. */
  readonly addressed: Set<string>;
  readonly watchers: Set<Watcher>;
  /** Nothing comes any more: its peering was deleted. */
  over: boolean;
  /** Held by whoever writes, and by readers that need storage and index to agree. */
  readonly mutex: Mutex;
  revision: bigint;
  /** The revision at which the last service went that went. */
  extinction: bigint;
  /** Of all services together. */
  instances: number;
}

interface Watcher {
  /** undefined: all. */
  readonly service: string | undefined;
  /**
   * Keys of services that changed since they were last looked at: at most one each, however slow the consumer is. With
   * each the payload as committed, unless that is to be read from storage.
   */
  readonly pending: Map<string, Uint8Array | undefined>;
  /** Of payloads in `pending`. */
  heldBytes: number;
  wake: () => void;
}

interface PlannedWrite {
  readonly summary: PayloadSummary;
  readonly value: Uint8Array;
  readonly digest: string;
}

/** undefined: the service goes. */
type Plan = Map<string, PlannedWrite | undefined>;

/**
 * An entry's value: the digest of the canonical payload, base64; the entry's place among those of its commit, 32 bits; then
 * the payload as it came.
 */
const DIGEST_BYTES = 44;
const HEADER_BYTES = DIGEST_BYTES + 4;

/** Deleted with one commit when a peer goes. */
const REMOVED_TOGETHER = 1_000;
/** Read together for one watcher. */
const WATCHED_TOGETHER = 64;
/** Payloads kept for one watcher until it looks at them; beyond that it reads them from storage. */
const HELD_BYTES = 8 * 1024 * 1024;
/** Decoded before others get a turn. */
const DECODED_TOGETHER = 500;

/**
 * What peers export to us: one storage entry per peer and service that holds the payload as received (design, decision 2).
 * In memory there is only an index; instances are decoded when somebody reads or watches them.
 *
 * Peers are told apart by our id of the peering and share nothing; local data lies elsewhere.
 */
export class ImportStore implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #limits: ImportLimits;
  readonly #addresses: ImportedAddresses;
  readonly #peers = new Map<string, Peer>();
  readonly #listeners = new Set<() => void>();
  #order = 0;
  #closed = false;
  /** The revision that was read when it was opened: no reader who waited before may miss what happened meanwhile. */
  #floor = 0n;

  private constructor(storage: Storage, limits: ImportLimits, addresses: ImportedAddresses) {
    this.#storage = storage;
    this.#limits = limits;
    this.#addresses = addresses;
  }

  /** @throws {PeeringError} `storage-failed` when an entry is damaged, naming it; and as `Storage.read`. */
  static async open(
    storage: Storage,
    limits: Partial<ImportLimits> = {},
    addresses: ImportedAddresses = noAddresses,
  ): Promise<ImportStore> {
    const store = new ImportStore(storage, { ...defaultImportLimits, ...limits }, addresses);
    const { entries, revision } = await storage.read(IMPORTS_PREFIX);
    store.#floor = revision;
    // In the order of their commits, for the last one speaks for its nodes.
    for (const entry of entries.toSorted(compareCommits)) store.#adopt(entry);
    return store;
  }

  /**
   * Applies what a peer sent, in this order, all that is valid in one commit. What is stored already is not written again,
   * also when its maps come in another order.
   *
   * @param expect - what must hold for the commit, such as a record that is still active.
   * @returns for each item undefined, or why nothing of it was applied: `invalid-message`, or `resource-exhausted` beyond a
   *   limit, both with the cause a NACK names.
   * @throws {PeeringError} `conflict` when an expectation failed; as `Storage.commit`. Nothing was applied then.
   */
  async apply(
    peeringId: string,
    items: readonly ImportItem[],
    expect: readonly Expectation[] = [],
  ): Promise<{ readonly results: readonly (PeeringError | undefined)[] }> {
    const peer = this.#peer(peeringId);
    return peer.mutex.run(async () => {
      const plan: Plan = new Map();
      const results = items.map((item) => {
        if (item.type === "list") this.#planList(peer, plan, item.names);
        else return this.#planService(peer, plan, item.name, item.value);
        return undefined;
      });
      await this.#commit(peer, plan, expect);
      return { results };
    });
  }

  /** How many services of a peer have instances, and how many those are: kept, not counted. */
  count(peeringId: string): { readonly services: number; readonly instances: number } {
    const peer = this.#peers.get(peeringId);
    return { services: peer?.services.size ?? 0, instances: peer?.instances ?? 0 };
  }

  /** Every service of a peer that has instances, by name. */
  services(peeringId: string): readonly ImportedService[] {
    const services = [...(this.#peers.get(peeringId)?.services.values() ?? [])];
    return services
      .map(({ name, instances, revision }) => ({ name, instances, revision }))
      .sort((left, right) => compareUtf8(left.name, right.name));
  }

  /** One service of a peer; undefined when it has no instances. */
  service(peeringId: string, name: string): ImportedService | undefined {
    const state = this.#peers.get(peeringId)?.services.get(lowerCase(name));
    return state && { name: state.name, instances: state.instances, revision: state.revision };
  }

  /** The lower-cased names of the services that have instances on a node of a peer, in byte order. */
  servicesOn(peeringId: string, node: string): readonly string[] {
    const holders = this.#peers.get(peeringId)?.nodes.get(lowerCase(node))?.holders ?? [];
    return [...holders].map(({ key }) => key).sort(compareUtf8);
  }

  /**
   * The index of a read: it grows whenever its answer may have changed, and for a service hardly ever otherwise. 1 at least.
   * @param peeringId - undefined: of a peer that was never heard of.
   * @param service - undefined: everything of the peer.
   */
  index(peeringId: string | undefined, service?: string): bigint {
    let index = this.#floor > 1n ? this.#floor : 1n;
    const raise = (mark: bigint): void => {
      if (mark > index) index = mark;
    };
    const peer = peeringId === undefined ? undefined : this.#peers.get(peeringId);
    if (peer === undefined) return index;
    const state = service === undefined ? undefined : peer.services.get(lowerCase(service));
    if (service === undefined) raise(peer.revision);
    else if (state === undefined) raise(peer.extinction === 0n ? peer.revision : peer.extinction);
    else {
      raise(state.revision);
      for (const node of state.nodes) raise(node.mark);
    }
    return index;
  }

  /** The index of a read of all that is imported. 1 at least. */
  get newestIndex(): bigint {
    let index = this.index(undefined);
    for (const { revision } of this.#peers.values()) if (revision > index) index = revision;
    return index;
  }

  /** Calls `listener` after every commit of imports, whoever they are from; it must not throw. @returns Ends it. */
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
    const { watchers } = this.#peer(peeringId);
    const watcher: Watcher = {
      service: service === undefined ? undefined : lowerCase(service),
      pending: new Map(),
      heldBytes: Number.POSITIVE_INFINITY,
      wake: () => {
        watcher.pending.clear();
        listener();
      },
    };
    watchers.add(watcher);
    return () => {
      watchers.delete(watcher);
    };
  }

  /**
   * The instances of one service of a peer, as they came and each with its node's newest record; none for what is unknown.
   * @throws {PeeringError} as `Storage.read`.
   */
  async instances(peeringId: string, service: string): Promise<readonly ServiceInstance[]> {
    const peer = this.#peers.get(peeringId);
    return peer === undefined ? [] : (await this.#view(peer, lowerCase(service))).instances;
  }

  /**
   * Every node that holds an imported instance, with the checks of the node itself, by name.
   * @throws {PeeringError} as `Storage.read`.
   */
  async nodes(peeringId: string): Promise<readonly DecodedNode[]> {
    const peer = this.#peers.get(peeringId);
    if (peer === undefined) return [];
    const decoded = await peer.mutex.run(async () => {
      for (const node of peer.nodes.values()) await this.#resolve(peer, node);
      return [...peer.nodes.values()].flatMap(({ encoded }) => (encoded === undefined ? [] : [decodeNode(encoded)]));
    });
    return decoded.sort((left, right) => compareUtf8(left.node.name, right.node.name));
  }

  /**
   * A node that holds an imported instance, with the checks of the node itself; undefined for what is unknown.
   * @throws {PeeringError} as `Storage.read`.
   */
  async node(peeringId: string, name: string): Promise<DecodedNode | undefined> {
    const peer = this.#peers.get(peeringId);
    const key = lowerCase(name);
    if (peer === undefined) return undefined;
    const known = peer.nodes.get(key)?.encoded;
    if (known !== undefined) return decodeNode(known);
    return peer.mutex.run(async () => {
      const node = peer.nodes.get(key);
      if (node !== undefined) await this.#resolve(peer, node);
      return node?.encoded === undefined ? undefined : decodeNode(node.encoded);
    });
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
      while (peer.services.size > 0) {
        const plan: Plan = new Map();
        for (const key of peer.services.keys()) {
          plan.set(key, undefined);
          if (plan.size === REMOVED_TOGETHER) break;
        }
        await this.#commit(peer, plan, expect);
      }
      // A commit whose answer was lost may have been made all the same.
      const { entries } = await this.#storage.read([...IMPORTS_PREFIX, peeringId]);
      if (entries.length === 0) return;
      await this.#storage.commit(
        entries.map(({ key }) => ({ key, value: undefined })),
        expect,
      );
    });
  }

  /**
   * What is imported from a peer now, or one service of it, then what becomes of each service, until `signal` aborts, the
   * store is closed or the peering's imports {@link end}. The newest state is never skipped; states in between may be.
   * @throws {PeeringError} as `Storage.read`.
   */
  watch(options: {
    readonly peeringId: string;
    readonly service?: string;
    readonly signal: AbortSignal;
  }): AsyncIterable<ImportChange> {
    const { peeringId, service, signal } = options;
    return this.#watch(this.#peer(peeringId), service === undefined ? undefined : lowerCase(service), signal);
  }

  /**
   * Makes the addresses of a peer agree with what is imported from it: a crash may have come between the two.
   * @param claimed - lower-cased names that have one.
   * @throws {PeeringError} as `Storage.commit`.
   */
  async repairAddresses(peeringId: string, claimed: ReadonlySet<string>): Promise<void> {
    const peer = this.#peer(peeringId);
    await peer.mutex.run(async () => {
      peer.addressed.clear();
      for (const name of claimed) peer.addressed.add(name);
      await this.#claim(peer, [...peer.mesh.keys()]);
      await this.#release(peer, claimed);
    });
  }

  /** Ends the watches of a peering that is no more, after the last change of it. */
  end(peeringId: string): void {
    const peer = this.#peers.get(peeringId);
    if (peer === undefined) return;
    peer.over = true;
    for (const watcher of peer.watchers) watcher.wake();
  }

  /** Ends every watch. The storage stays open: it is the host's. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const peer of this.#peers.values()) for (const watcher of peer.watchers) watcher.wake();
  }

  #peer(peeringId: string): Peer {
    let peer = this.#peers.get(peeringId);
    if (peer === undefined) {
      peer = {
        id: peeringId,
        services: new Map(),
        nodes: new Map(),
        mesh: new Map(),
        addressed: new Set(),
        watchers: new Set(),
        over: false,
        mutex: new Mutex(),
        revision: 0n,
        extinction: 0n,
        instances: 0,
      };
      this.#peers.set(peeringId, peer);
    }
    return peer;
  }

  #planService(peer: Peer, plan: Plan, name: string, value: Uint8Array): PeeringError | undefined {
    let summary: PayloadSummary;
    try {
      summary = inspectPayload(value, name, this.#limits);
    } catch (error) {
      return asPeeringError(error, "invalid-message");
    }
    if (summary.instances === 0) {
      const key = serviceKeys(name).find((candidate) => planned(peer, plan, candidate) !== undefined);
      if (key !== undefined) plan.set(key, undefined);
      return undefined;
    }
    const key = lowerCase(summary.service);
    const known = planned(peer, plan, key);
    const digest = payloadDigest(summary.sorted ? value : canonicalPayload(value));
    if (known?.digest === digest) return undefined;
    if (known === undefined && this.#isFull(peer, plan)) {
      const reason = `more than ${this.#limits.servicesPerPeer} services of one peer`;
      return new PeeringError(
        "resource-exhausted",
        `did not increment imported services count for service=${JSON.stringify(name)}: failed to store payload: ${reason}`,
        { status: StatusCode.Internal },
      );
    }
    // The later one speaks for its nodes, so it comes last.
    plan.delete(key);
    plan.set(key, { summary, value, digest });
    return undefined;
  }

  #isFull(peer: Peer, plan: Plan): boolean {
    const most = this.#limits.servicesPerPeer;
    // Counting exactly takes a look at the whole plan.
    return peer.services.size + plan.size >= most && serviceCount(peer, plan) >= most;
  }

  /** A list creates nothing: it removes what it does not name (specification 1.6.3). */
  #planList(peer: Peer, plan: Plan, names: readonly string[]): void {
    // The first list of a stream comes ahead of the services, and removes nothing.
    if (plan.size === 0 && peer.services.size === 0) return;
    const allowed = new Set(names.flatMap(serviceKeys));
    const isAllowed = (key: string): boolean =>
      allowed.has(key) || (key.endsWith(SIDECAR_SUFFIX) && allowed.has(key.slice(0, -SIDECAR_SUFFIX.length)));
    for (const key of [...plan.keys(), ...peer.services.keys()]) if (!isAllowed(key)) plan.set(key, undefined);
  }

  /** Call it with the mutex held. */
  async #commit(peer: Peer, plan: Plan, expect: readonly Expectation[]): Promise<void> {
    const writes: Write[] = [];
    for (const [key, write] of plan) {
      if (write === undefined && !peer.services.has(key)) plan.delete(key);
      else
        writes.push({
          key: entryKey(peer, key),
          value: write === undefined ? undefined : encodeValue(write, writes.length),
        });
    }
    if (writes.length === 0) return;
    const claims = await this.#claim(peer, meshNames(plan));
    let revision: bigint;
    try {
      revision = await this.#storage.commit(writes, expect);
    } catch (error) {
      // Where it may have been written, the next attempt or the next start finds out what is needed.
      if (error instanceof PeeringError && error.code === "conflict") await this.#release(peer, claims);
      throw error;
    }
    const touched: string[] = [];
    for (const [key, write] of plan) {
      if (peer.addressed.size > 0) touched.push(key, ...(peer.services.get(key)?.mesh ?? []));
      if (write === undefined) this.#drop(peer, key, revision);
      else this.#put(peer, key, write, revision);
    }
    for (const listener of this.#listeners) listener();
    if (touched.length > 0) await this.#release(peer, touched);
  }

  /** Returns those that had no address before. */
  async #claim(peer: Peer, names: Iterable<string>): Promise<readonly string[]> {
    const missing = [...names].filter((name) => !peer.addressed.has(name));
    if (missing.length === 0) return missing;
    await this.#addresses.claim(peer.id, missing);
    for (const name of missing) peer.addressed.add(name);
    return missing;
  }

  /** Frees the addresses of those that neither an instance of the name nor a proxy for it needs (D-38). */
  async #release(peer: Peer, names: Iterable<string>): Promise<void> {
    const unused: string[] = [];
    for (const name of names) {
      if (peer.services.has(name) || peer.mesh.has(name) || !peer.addressed.delete(name)) continue;
      unused.push(name);
    }
    if (unused.length > 0) await this.#addresses.release(peer.id, unused);
  }

  #speakFor(peer: Peer, state: StoredService, mesh: readonly string[]): void {
    if (state.mesh.length === 0 && mesh.length === 0) return;
    for (const name of mesh) peer.mesh.set(name, (peer.mesh.get(name) ?? 0) + 1);
    for (const name of state.mesh) {
      const others = (peer.mesh.get(name) ?? 0) - 1;
      if (others > 0) peer.mesh.set(name, others);
      else peer.mesh.delete(name);
    }
    state.mesh = mesh;
  }

  #put(peer: Peer, key: string, { summary, value, digest }: PlannedWrite, revision: bigint): void {
    const known = peer.services.get(key);
    const before = known?.nodes ?? [];
    const state: StoredService = known ?? {
      key,
      name: "",
      digest: "",
      revision,
      instances: 0,
      nodes: [],
      mesh: [],
      order: 0,
    };
    state.name = summary.service;
    state.digest = digest;
    state.revision = revision;
    peer.instances += summary.instances - state.instances;
    state.instances = summary.instances;
    this.#speakFor(peer, state, summary.mesh);
    state.order = ++this.#order;
    if (revision > peer.revision) peer.revision = revision;
    state.nodes = summary.nodes.map((place) => this.#hold(peer, state, place, value));
    peer.services.set(key, state);
    if (before.length > 0) {
      const kept = new Set(state.nodes);
      for (const node of before) if (!kept.has(node)) this.#letGo(peer, state, node);
    }
    if (peer.watchers.size > 0) this.#changed(peer, state, new Uint8Array(value));
  }

  #drop(peer: Peer, key: string, revision: bigint): void {
    const state = peer.services.get(key);
    if (state === undefined) return;
    peer.services.delete(key);
    this.#speakFor(peer, state, []);
    peer.instances -= state.instances;
    if (revision > peer.revision) peer.revision = revision;
    peer.extinction = peer.revision;
    for (const node of state.nodes) this.#letGo(peer, state, node);
    this.#changed(peer, state, undefined);
  }

  #hold(peer: Peer, state: StoredService, place: NodePlace, value: Uint8Array): ImportedNode {
    let node = peer.nodes.get(place.name);
    if (node === undefined) {
      node = { name: place.name, holders: new Set(), latest: undefined, encoded: undefined, mark: 0n };
      peer.nodes.set(place.name, node);
    }
    node.holders.add(state);
    node.latest = state;
    if (!saysTheSame(node, place, value)) {
      node.encoded = copyNode(place, value);
      this.#nodeChanged(peer, node);
    }
    return node;
  }

  #letGo(peer: Peer, state: StoredService, node: ImportedNode): void {
    node.holders.delete(state);
    if (node.holders.size === 0) {
      peer.nodes.delete(node.name);
    } else if (node.latest === state) {
      node.latest = undefined;
      node.encoded = undefined;
      this.#nodeChanged(peer, node);
    }
  }

  #nodeChanged(peer: Peer, node: ImportedNode): void {
    node.mark = peer.revision;
    if (peer.watchers.size === 0) return;
    for (const holder of node.holders) this.#wake(peer, holder, ({ pending }) => pending.get(holder.key));
  }

  /** @param value - what was committed; undefined: it went. */
  #changed(peer: Peer, state: StoredService, value: Uint8Array | undefined): void {
    this.#wake(peer, state, () => value);
  }

  #wake(peer: Peer, { key }: StoredService, valueFor: (watcher: Watcher) => Uint8Array | undefined): void {
    for (const watcher of peer.watchers) {
      if (watcher.service !== undefined && watcher.service !== key) continue;
      const value = valueFor(watcher);
      const bytes = watcher.heldBytes - (watcher.pending.get(key)?.length ?? 0) + (value?.length ?? 0);
      const hold = bytes <= HELD_BYTES;
      watcher.heldBytes = hold ? bytes : bytes - (value?.length ?? 0);
      watcher.pending.set(key, hold ? value : undefined);
      watcher.wake();
    }
  }

  /** What a watcher was kept, if the index is complete for it; else as {@link #view}. */
  #heldView(
    peer: Peer,
    key: string,
    held: Uint8Array | undefined,
    before: DecodedPayload | undefined,
  ): View | Promise<View> {
    const state = peer.services.get(key);
    if (state === undefined || held === undefined || !complete(state)) return this.#view(peer, key);
    return { value: held, instances: decode(peer, held, before), revision: peer.revision };
  }

  /** Makes the index say of an entry what the storage does. */
  #adopt(entry: Entry): void {
    const [, peeringId, key] = entry.key;
    const value = entry.value.subarray(HEADER_BYTES);
    try {
      if (peeringId === undefined || key === undefined || entry.key.length !== 3) throw new Error("unknown key");
      const digest = Buffer.from(entry.value.subarray(0, DIGEST_BYTES)).toString("latin1");
      const summary = inspectPayload(value, key, unlimited);
      this.#put(this.#peer(peeringId), key, { summary, value, digest }, entry.revision);
    } catch (error) {
      const name = entry.key.join("/");
      throw new PeeringError("storage-failed", `the stored entry ${name} is damaged: ${errorText(error)}`, {
        cause: error,
      });
    }
  }

  /** The instances of a service, and the revision of the peer's view they are taken from. */
  async #view(peer: Peer, key: string): Promise<View> {
    const state = peer.services.get(key);
    if (state === undefined) return { ...nothing, revision: peer.revision };
    const entry = await this.#read(peer, key);
    const unchanged = peer.services.get(key) === state && entry?.revision === state.revision;
    if (unchanged && complete(state)) {
      return { ...decoded(peer, entry), revision: peer.revision };
    }
    // Something is being written, or a node must be read from another entry.
    return peer.mutex.run(async () => {
      const current = await this.#refresh(peer, key);
      for (const node of peer.services.get(key)?.nodes ?? []) await this.#resolve(peer, node);
      return { ...(current === undefined ? nothing : decoded(peer, current)), revision: peer.revision };
    });
  }

  async #read(peer: Peer, key: string): Promise<Entry | undefined> {
    const { entries } = await this.#storage.read(entryKey(peer, key));
    return entries[0];
  }

  /**
   * The entry as stored. The index says the same afterwards: it may be behind where a commit was answered with
   * `unavailable`. Call it with the mutex held.
   */
  async #refresh(peer: Peer, key: string): Promise<Entry | undefined> {
    const entry = await this.#read(peer, key);
    const known = peer.services.get(key)?.revision;
    if (entry === undefined) this.#drop(peer, key, peer.revision);
    else if (known !== entry.revision) this.#adopt(entry);
    return entry;
  }

  /** As {@link #refresh}, with all entries of a peer. */
  #reconcile(peer: Peer, entries: readonly Entry[]): void {
    const stored = new Set<string>();
    for (const entry of entries) {
      const key = entry.key[2] ?? "";
      stored.add(key);
      if (peer.services.get(key)?.revision !== entry.revision) this.#adopt(entry);
    }
    for (const key of [...peer.services.keys()]) if (!stored.has(key)) this.#drop(peer, key, peer.revision);
  }

  /** Asks the last committed of the entries that hold the node. Call it with the mutex held. */
  async #resolve(peer: Peer, node: ImportedNode): Promise<void> {
    while (node.encoded === undefined && node.holders.size > 0) {
      let latest: StoredService | undefined;
      for (const holder of node.holders) if (latest === undefined || holder.order > latest.order) latest = holder;
      if (latest === undefined) return;
      const entry = await this.#refresh(peer, latest.key);
      if (entry === undefined || node.encoded !== undefined) continue;
      const value = entry.value.subarray(HEADER_BYTES);
      const place = inspectPayload(value, latest.key, unlimited).nodes.find(({ name }) => name === node.name);
      node.latest = latest;
      node.encoded =
        place === undefined ? { record: new Uint8Array(), checks: [], decoded: undefined } : copyNode(place, value);
    }
  }

  async *#watch(peer: Peer, service: string | undefined, signal: AbortSignal): AsyncGenerator<ImportChange, void> {
    const watcher: Watcher = { service, pending: new Map(), heldBytes: 0, wake: () => {} };
    const wake = (): void => watcher.wake();
    const ended = (): boolean => signal.aborted || this.#closed;
    if (ended()) return;
    peer.watchers.add(watcher);
    signal.addEventListener("abort", wake);
    try {
      const delivered = new Map<string, DecodedPayload>();
      const revision = await this.#snapshot(peer, watcher, delivered);
      if (ended()) return;
      const byName = Array.from(
        delivered,
        ([key, { instances }]) => [instances[0]?.service.name ?? key, instances] as const,
      );
      yield { type: "snapshot", revision, services: new Map(byName) };
      while (!ended()) {
        if (watcher.pending.size === 0) {
          if (peer.over) return;
          await new Promise<void>((resolve) => {
            watcher.wake = resolve;
          });
          continue;
        }
        const looks: (View | Promise<View>)[] = [];
        const keys: string[] = [];
        for (const [key, held] of watcher.pending) {
          watcher.pending.delete(key);
          watcher.heldBytes -= held?.length ?? 0;
          looks.push(this.#heldView(peer, key, held, delivered.get(key)));
          if (keys.push(key) === WATCHED_TOGETHER) break;
        }
        const seen = await Promise.all(looks);
        const views = seen.map((view, index) => ({ key: keys[index] ?? "", ...view }));
        views.sort((left, right) => Number(left.revision - right.revision));
        for (const view of views) {
          if (ended()) return;
          const difference = differenceOf(delivered, view);
          if (difference !== undefined) yield difference;
        }
      }
    } catch (error) {
      // Whoever closed the storage is not interested any more.
      if (!(error instanceof PeeringError && error.code === "closed")) throw error;
    } finally {
      peer.watchers.delete(watcher);
      signal.removeEventListener("abort", wake);
    }
  }

  /** Fills `delivered` with what there is, and returns the revision it is of. */
  async #snapshot(peer: Peer, watcher: Watcher, delivered: Map<string, DecodedPayload>): Promise<bigint> {
    const { service } = watcher;
    const forget = (): void => {
      watcher.pending.clear();
      watcher.heldBytes = 0;
    };
    if (service !== undefined) {
      forget();
      const view = await this.#view(peer, service);
      if (view.instances.length > 0) delivered.set(service, view);
      return view.revision;
    }
    const { entries, nodeOf, revision } = await peer.mutex.run(async () => {
      forget();
      const { entries } = await this.#storage.read([...IMPORTS_PREFIX, peer.id]);
      this.#reconcile(peer, entries);
      for (const node of peer.nodes.values()) await this.#resolve(peer, node);
      // Decoding takes a while; what the nodes say meanwhile is for the differences.
      return { entries, nodeOf: nodesNow(peer), revision: peer.revision };
    });
    for (const [index, entry] of entries.entries()) {
      if (index % DECODED_TOGETHER === DECODED_TOGETHER - 1) await setImmediate();
      const value = entry.value.subarray(HEADER_BYTES);
      delivered.set(entry.key[2] ?? "", { value, instances: decodePayload(value, nodeOf) });
    }
    return revision;
  }
}

/** The instances of a service, and the revision of the peer's view they are taken from. */
interface View extends DecodedPayload {
  readonly revision: bigint;
}

const nothing: DecodedPayload = { value: new Uint8Array(), instances: [] };

/** Whether all nodes of an entry are known without a look at other entries. */
function complete({ nodes }: StoredService): boolean {
  return nodes.every((node) => node.encoded !== undefined);
}

/** For what is stored already: it was within the limits of its time. */
const unlimited: PayloadLimits = {
  instancesPerService: Number.POSITIVE_INFINITY,
  checksPerInstance: Number.POSITIVE_INFINITY,
};

function entryKey(peer: Peer, service: string): Key {
  return [...IMPORTS_PREFIX, peer.id, service];
}

function encodeValue({ digest, value }: PlannedWrite, place: number): Uint8Array {
  const encoded = Buffer.allocUnsafe(HEADER_BYTES + value.length);
  encoded.write(digest, "latin1");
  encoded.writeUInt32BE(place, DIGEST_BYTES);
  encoded.set(value, HEADER_BYTES);
  return encoded;
}

/** The order in which they were committed. */
function compareCommits(left: Entry, right: Entry): number {
  return Number(left.revision - right.revision) || placeOf(left) - placeOf(right);
}

function placeOf({ value }: Entry): number {
  const header = new DataView(value.buffer, value.byteOffset, value.byteLength);
  return value.length < HEADER_BYTES ? 0 : header.getUint32(DIGEST_BYTES);
}

/** What is planned for a service, else what is stored of it. */
function planned(peer: Peer, plan: Plan, key: string): { readonly digest: string } | undefined {
  return plan.has(key) ? plan.get(key) : peer.services.get(key);
}

function serviceCount(peer: Peer, plan: Plan): number {
  let count = peer.services.size;
  for (const [key, write] of plan) count += (write === undefined ? 0 : 1) - (peer.services.has(key) ? 1 : 0);
  return count;
}

/** Services of the mesh for which what a plan writes speaks. */
function meshNames(plan: Plan): ReadonlySet<string> {
  const names = new Set<string>();
  for (const write of plan.values()) for (const name of write?.summary.mesh ?? []) names.add(name);
  return names;
}

function saysTheSame({ encoded }: ImportedNode, place: NodePlace, value: Uint8Array): boolean {
  if (encoded === undefined || encoded.checks.length !== place.checks.length) return false;
  if (!isAt(value, place, encoded.record)) return false;
  return place.checks.length === 0 || place.checks.every((check, index) => isAt(value, check, encoded.checks[index]));
}

function isAt(value: Uint8Array, { start, end }: Place, bytes: Uint8Array | undefined): boolean {
  if (bytes?.length !== end - start) return false;
  for (let index = 0; index < bytes.length; index++) if (bytes[index] !== value[start + index]) return false;
  return true;
}

/** Copied, so that a few bytes do not keep a whole payload alive. */
function copyNode(place: NodePlace, value: Uint8Array): EncodedNode {
  return {
    record: new Uint8Array(value.subarray(place.start, place.end)),
    checks: place.checks.map(({ start, end }) => new Uint8Array(value.subarray(start, end))),
    decoded: undefined,
  };
}

/** @param before - what came before it, for what did not change. */
function decode(peer: Peer, value: Uint8Array, before?: DecodedPayload): readonly ServiceInstance[] {
  const nodeOf = (name: string): DecodedNode | undefined => {
    const encoded = peer.nodes.get(name)?.encoded;
    return encoded === undefined ? undefined : decodedOnce(encoded);
  };
  return before === undefined ? decodePayload(value, nodeOf) : decodeNextPayload(before, value, nodeOf);
}

function decoded(peer: Peer, entry: Entry): DecodedPayload {
  const value = entry.value.subarray(HEADER_BYTES);
  return { value, instances: decode(peer, value) };
}

/** Decoded at the first read: the instances of ten services on a node then share one object, which compares fast, too. */
function decodedOnce(encoded: EncodedNode): DecodedNode {
  encoded.decoded ??= decodeNode(encoded);
  return encoded.decoded;
}

/** The nodes as they are now, decoded when asked for and once each. */
function nodesNow(peer: Peer): (name: string) => DecodedNode | undefined {
  const encoded = new Map([...peer.nodes.values()].map((node) => [node.name, node.encoded]));
  const decoded = new Map<string, DecodedNode>();
  return (name) => {
    let node = decoded.get(name);
    const bytes = encoded.get(name);
    if (node === undefined && bytes !== undefined) {
      node = decodedOnce(bytes);
      decoded.set(name, node);
    }
    return node;
  };
}

/** What a view adds to what was delivered, which then holds it. Undefined: nothing. */
function differenceOf(
  delivered: Map<string, DecodedPayload>,
  view: View & { readonly key: string },
): ImportDifference | undefined {
  const { key, value, instances, revision } = view;
  const before = delivered.get(key)?.instances ?? [];
  if (instances.length > 0) delivered.set(key, { value, instances });
  else delivered.delete(key);
  const { added, changed, removed } = diffInstances(before, instances);
  if (added.length + changed.length + removed.length === 0) return undefined;
  const service = instances[0]?.service.name ?? before[0]?.service.name ?? key;
  return { type: "difference", service, revision, added, changed, removed };
}
