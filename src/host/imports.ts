import { type Abortable, signalOf } from "../base/abortable.js";
import { PeeringError } from "../base/errors.js";
import type { Node, ServiceInstance } from "../model/instance.js";
import type {
  ImportChange,
  ImportedService,
  ImportedSummary,
  ImportPart,
  ImportStore,
  ListedNode,
} from "../stores/import-store.js";
import type { PeeringRecords } from "../stores/records.js";
import { lowerCase } from "../syntax/names.js";

/** Names of which the last peering is remembered. */
const MAX_NAMES = 10_000;

export interface WatchImportsOptions extends Abortable {
  readonly peer: string;
  /** Default: all. */
  readonly service?: string;
}

/** The services that peers export to us. Read-only: only the peers' own messages change it. */
export class Imports {
  readonly #records: PeeringRecords;
  readonly #store: ImportStore;
  /** The last peering of each lower-cased name, also of names without one now: readers of its imports must hear of their end. */
  readonly #lastId = new Map<string, string>();

  /** @internal */
  constructor(parts: { readonly records: PeeringRecords; readonly store: ImportStore }) {
    this.#records = parts.records;
    this.#store = parts.store;
    for (const { name, id } of parts.records.list()) this.#lastId.set(lowerCase(name), id);
    // The records end with the host that made both.
    parts.records.onChange(({ peeringId, peering }) => {
      if (peering === undefined) return;
      const key = lowerCase(peering.name);
      this.#lastId.delete(key);
      this.#lastId.set(key, peeringId);
      const [oldest] = this.#lastId.keys();
      if (this.#lastId.size > MAX_NAMES && oldest !== undefined) this.#lastId.delete(oldest);
    });
  }

  #idOf(peer: string): string | undefined {
    return this.#records.byName(peer)?.id ?? this.#lastId.get(lowerCase(peer));
  }

  /**
   * The index a read of imported data has now: it grows whenever the answer may have changed, and for one service hardly
   * ever otherwise. 1 at least; kept when the peering goes.
   */
  index(options: { readonly peer: string; readonly service?: string }): bigint {
    return this.#store.index(this.#idOf(options.peer), options.service);
  }

  /**
   * Calls `listener` after each change of the imports from `peer`, or of one service of it, also when the peering goes
   * or comes back; it must not throw. To be called before the read that the wait begins with.
   * @returns Ends it.
   */
  onChange(options: { readonly peer: string; readonly service?: string }, listener: () => void): () => void {
    const { peer, service } = options;
    const subscribe = (id: string | undefined): (() => void) =>
      id === undefined ? () => {} : this.#store.onChange(id, service, listener);
    let id = this.#idOf(peer);
    let stop = subscribe(id);
    const forget = this.#records.onChange(() => {
      const now = this.#idOf(peer);
      if (now === id) return;
      stop();
      id = now;
      stop = subscribe(id);
      listener();
    });
    return () => {
      stop();
      forget();
    };
  }

  /** The index of a read of the imports from all peers: it grows with every change. 1 at least. */
  get newestIndex(): bigint {
    return this.#store.newestIndex;
  }

  /** Calls `listener` after each change of imports from any peer; it must not throw. @returns Ends it. */
  onAnyChange(listener: () => void): () => void {
    return this.#store.onAnyChange(listener);
  }

  /** One service of `peer`; undefined when nothing of that name is imported. */
  service(options: { readonly peer: string; readonly service: string }): ImportedService | undefined {
    const peering = this.#records.byName(options.peer);
    return peering && this.#store.service(peering.id, options.service);
  }

  /** The lower-cased names of the services of `peer` that have instances on one node. */
  servicesOn(options: { readonly peer: string; readonly node: string }): readonly string[] {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? [] : this.#store.servicesOn(peering.id, options.node);
  }

  /** Every node of `peer`, with the checks of the node itself, by name. */
  async nodes(options: { readonly peer: string }): Promise<readonly ListedNode[]> {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? [] : this.#store.nodes(peering.id);
  }

  /** Names and instance counts of everything imported from `peer`, by name. An unknown peer has none. */
  services(options: { readonly peer: string }): readonly ImportedService[] {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? [] : this.#store.services(peering.id);
  }

  /**
   * Everything imported from `peer` as lists show it, in byte order of the names; also of services that only proxies speak for. Made at most
   * once per change of a service, as far as it fits in `limits.summaryBytesInAll`. An unknown peer has none.
   */
  async summaries(options: { readonly peer: string }): Promise<readonly ImportedSummary[]> {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? [] : this.#store.summaries(peering.id, peering.name);
  }

  /** How many services and instances are imported from `peer`: as cheap to ask as a field. */
  count(options: { readonly peer: string }): { readonly services: number; readonly instances: number } {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? { services: 0, instances: 0 } : this.#store.count(peering.id);
  }

  /** The instances of one service of `peer`; none for an unknown service or peer. */
  async instances(options: { readonly peer: string; readonly service: string }): Promise<readonly ServiceInstance[]> {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? [] : this.#store.instances(peering.id, options.service);
  }

  /** A node of `peer` that holds an imported instance; undefined for an unknown node or peer. */
  async node(options: { readonly peer: string; readonly name: string }): Promise<Node | undefined> {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? undefined : (await this.#store.node(peering.id, options.name))?.node;
  }

  /**
   * Everything imported now (a snapshot), then each change, as differences between instances. A later snapshot takes the place of all
   * that was told: it comes where another host of the cluster wrote. The newest state is never skipped;
   * states in between may be. Ends when the peering is deleted, after the removal of all it had: a later one of the same name
   * is another. One that is TERMINATED may come back, so its watches go on.
   * @throws {PeeringError} `not-found` when there is no such peering.
   */
  watch(options: WatchImportsOptions): AsyncIterable<ImportChange> {
    return this.#store.watch(this.#toWatch(options));
  }

  /**
   * As {@link watch}, in parts of about `size` instances at most, each made when it is asked for: first the present services, then
   * `complete`, then changes. For consumers that are slow, or want little memory.
   */
  watchParts(options: WatchImportsOptions, size: number): AsyncIterable<ImportPart> {
    return this.#store.watchParts(this.#toWatch(options), size);
  }

  #toWatch(options: WatchImportsOptions): Parameters<ImportStore["watch"]>[0] {
    const { peer, service } = options;
    const peering = this.#records.byName(peer);
    if (peering === undefined) throw new PeeringError("not-found", `Peering not found for "${peer}"`);
    return { peeringId: peering.id, signal: signalOf(options), ...(service === undefined ? {} : { service }) };
  }
}
