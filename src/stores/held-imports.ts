import { Signal } from "../base/signal.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns, sortSteps } from "../base/turns.js";
import { IMPORTS_PREFIX } from "../storage/keys.js";
import type { Loader, Receiver, ReplicaContents } from "../storage/replica.js";
import type { Entry, Key } from "../storage/storage.js";
import { holders, type ImportTotals, MANY_NODES, type ServiceHead, type StoredService } from "./import-index.js";
import { type Former, ImportPeer } from "./import-peer.js";
import { type PlannedWrite, storedHeadSteps } from "./import-plan.js";
import { decodeRow } from "./import-rows.js";
import { KeptViews } from "./import-views.js";

/** The rows of one commit; undefined: the service goes. */
export type Part = ReadonlyMap<string, PlannedWrite | undefined>;

/** A row without its payload. */
interface StoredHead {
  readonly head: ServiceHead;
  readonly revision: bigint;
  /** Among the rows of its commit. */
  readonly place: number;
}

/** Effects of a commit on services and names that it did not write. */
export interface Taken {
  /** Other services that look otherwise. */
  readonly others: readonly string[];
  /** Names that may need no address any more. */
  readonly released: readonly string[];
}

/**
 * The imports in memory: an index of each peer, without payloads, which is made of the rows as they are committed, by this
 * process or by others. A section of the storage holds the exports of one peer.
 */
export class HeldImports implements ReplicaContents {
  readonly totals: ImportTotals = { payloadBytes: 0, indexBytes: 0 };
  readonly peers: Map<string, ImportPeer> = new Map();
  /** The present views of services, of those that were asked for last. */
  readonly views: KeptViews;
  /** Called after every change of imports of any peer. */
  readonly changed: Signal = new Signal();

  /** @param keptBytes - of payloads. */
  constructor(keptBytes: number) {
    this.views = new KeptViews(keptBytes);
  }

  /** By our id of the peering. */
  peer(id: string): ImportPeer {
    let peer = this.peers.get(id);
    if (peer === undefined) {
      peer = new ImportPeer(id, this.totals);
      this.peers.set(id, peer);
    }
    return peer;
  }

  load(section: string): Loader {
    const peer = this.peer(section);
    const gone = new Set(peer.index.keys());
    const rows: StoredHead[] = [];
    const put = addTo(rows, peer);
    return {
      put: (entry) => {
        const putting = put(entry);
        if (putting === undefined) gone.delete(keyOf(entry.key));
        return putting?.then(() => void gone.delete(keyOf(entry.key)));
      },
      damaged: () => {},
      remove: () => {},
      done: async (revision) => this.#takeForeign(peer, rows, new Map(Array.from(gone, (key) => [key, revision]))),
    };
  }

  follow(section: string): Receiver {
    const peer = this.peer(section);
    const gone = new Map<string, bigint>();
    const rows: StoredHead[] = [];
    return {
      put: addTo(rows, peer),
      remove: (key, revision) => {
        gone.set(keyOf(key), revision);
      },
      done: async () => this.#takeForeign(peer, rows, gone),
    };
  }

  /** Brings the index up to a commit of this process. Listeners are to be notified then. */
  *take(peer: ImportPeer, part: Part, revision: bigint): Steps<Taken> {
    const { index } = peer;
    const released: string[] = [];
    const meter = new StepMeter();
    for (const [key, write] of part) {
      const known = index.get(key);
      if (peer.addressed.size > 0) released.push(key, ...(known?.mesh ?? []));
      if (known !== undefined) this.#changes(peer, known);
      const isAskedFor = peer.isKnown(key) || peer.isAwaited(key);
      if (write === undefined) index.drop(key, revision);
      else {
        const { head } = write;
        const isLarge = head.nodes.length > MANY_NODES;
        const service = isLarge ? yield* index.putSteps(head, revision) : index.put(head, revision);
        peer.summaries?.changed(service);
        if (isAskedFor) this.views.keepWritten(service, write.value);
      }
      if (meter.isOver(50 + 20 * (write?.head.nodes ?? known?.holds ?? []).length)) yield;
    }
    return { others: yield* this.#settle(peer), released };
  }

  /** Forgets a service that is stored no more. */
  async drop(peer: ImportPeer, service: StoredService): Promise<void> {
    this.#changes(peer, service);
    peer.index.drop(service.key, peer.index.revision);
    this.notify(peer, new Map([[service.key, undefined]]), await inTurns(this.#settle(peer)));
  }

  notify(peer: ImportPeer, changed: ReadonlyMap<string, Former>, others: readonly string[]): void {
    peer.notify(changed, others);
    this.changed.emit();
  }

  /** The known services that a part changes in the eyes of readers; undefined: the service is not there. */
  *known(
    peer: ImportPeer,
    part: ReadonlyMap<string, ServiceHead | undefined>,
  ): Steps<ReadonlyMap<string, StoredService | undefined>> {
    const services = new Map<string, StoredService | undefined>();
    if (!peer.isWatched) return services;
    for (const key of part.keys()) {
      const service = peer.index.get(key);
      if (service === undefined || peer.isKnown(key)) services.set(key, service);
    }
    for (const node of yield* peer.index.changedBy(part)) {
      for (const service of holders(node)) if (peer.isKnown(service.key)) services.set(service.key, service);
    }
    return services;
  }

  /** Takes over stored rows, in the order of the commits, because the last one describes its nodes. */
  async #takeForeign(peer: ImportPeer, rows: readonly StoredHead[], gone: ReadonlyMap<string, bigint>): Promise<void> {
    if (rows.length === 0 && gone.size === 0) return;
    const sorted = await inTurns(sortSteps(rows, compareCommits));
    const changed = new Map<string, Former>();
    if (peer.isFollowed) {
      const part = new Map<string, ServiceHead | undefined>();
      for (const key of gone.keys()) part.set(key, undefined);
      for (const { head } of sorted) part.set(head.key, head);
      for (const key of part.keys()) changed.set(key, undefined);
      // The payloads from before are stored no more.
      for (const [key, service] of await inTurns(this.known(peer, part))) {
        changed.set(key, service && (this.views.get(service) ?? "lost"));
      }
    }
    this.notify(peer, changed, await inTurns(this.#putAll(peer, sorted, gone)));
  }

  *#putAll(peer: ImportPeer, rows: readonly StoredHead[], gone: ReadonlyMap<string, bigint>): Steps<readonly string[]> {
    const { index } = peer;
    const meter = new StepMeter();
    for (const [key, revision] of gone) {
      const known = index.get(key);
      if (known !== undefined) this.#changes(peer, known);
      index.drop(key, revision);
      if (meter.isOver(10 + (known?.holds.length ?? 0))) yield;
    }
    for (const { head, revision } of rows) {
      const known = index.get(head.key);
      if (known !== undefined) this.#changes(peer, known);
      const isLarge = head.nodes.length > MANY_NODES;
      const service = isLarge ? yield* index.putSteps(head, revision) : index.put(head, revision);
      peer.summaries?.changed(service);
      if (meter.isOver(5 + 3 * head.nodes.length)) yield;
    }
    return yield* this.#settle(peer);
  }

  /** Nothing that was made of a service is true any more. To be called before its names in the mesh change, too. */
  #changes(peer: ImportPeer, service: StoredService): void {
    this.views.drop(service);
    peer.summaries?.changed(service);
  }

  /** Returns the services that look otherwise through their nodes. */
  *#settle(peer: ImportPeer): Steps<readonly string[]> {
    const changed: string[] = [];
    yield* peer.index.settle((service) => {
      this.#changes(peer, service);
      changed.push(service.key);
    });
    if (peer.index.isToBeSorted) yield* peer.index.sortSteps();
    return changed;
  }
}

/** The part of a key that names the service. */
function keyOf(key: Key): string {
  return key[IMPORTS_PREFIX.length + 1] ?? "";
}

/** Collects the rows that a peer does not have as they are stored. Most are small, and waited for by nobody. */
function addTo(rows: StoredHead[], { index }: ImportPeer): (entry: Entry) => Promise<void> | undefined {
  return (entry) => {
    if (index.get(keyOf(entry.key))?.revision === entry.revision) return undefined;
    const steps = storedHead(entry);
    const first = steps.next();
    if (first.done !== true) return inTurns(steps).then((row) => void rows.push(row));
    rows.push(first.value);
    return undefined;
  };
}

/** The facts about a row that the index needs. @throws why it is damaged. */
function* storedHead(entry: Entry): Steps<StoredHead> {
  const key = keyOf(entry.key);
  if (entry.key.length !== IMPORTS_PREFIX.length + 2) throw new Error("unknown key");
  const row = decodeRow(entry);
  if (row === undefined) throw new Error("it is too short");
  const head = yield* storedHeadSteps(key, row.payload);
  if (head.digest !== row.digest) throw new Error("its digest is not that of its payload");
  return { head, revision: entry.revision, place: row.place };
}

/** The order in which rows were committed. */
function compareCommits(left: StoredHead, right: StoredHead): number {
  if (left.revision !== right.revision) return left.revision < right.revision ? -1 : 1;
  return left.place - right.place;
}
