import { setImmediate } from "node:timers/promises";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import type { ServiceInstance } from "../model/instance.js";
import { decodeSteps, type EncodedNode, type InstanceDiff } from "../payload/imported-payload.js";
import { inspectionSteps, type NodePlace, noPayloadLimits } from "../payload/payload-inspection.js";
import { differenceParts, nodesOf, type PayloadView } from "../payload/payload-parts.js";
import { IMPORTS_PREFIX } from "../storage/keys.js";
import type { Turn } from "../storage/replica.js";
import type { Entry, Key, Storage } from "../storage/storage.js";
import { type ImportedNode, isOutdated, type StoredService } from "./import-index.js";
import type { ImportPeer } from "./import-peer.js";
import { decodeRow, rowKey } from "./import-rows.js";
import { type KeptViews, noNodes } from "./import-views.js";

/** Rows read at the same time. */
export const READ_BATCH = 64;
/** Of a peer that has no more than this all is read at once, where most of it is needed. */
export const READ_WHOLE_BYTES: number = 16 * 1024 * 1024;
/** Read at a time where all of a peer is read page by page, in bytes. */
const PAGE_BYTES = 256 * 1024;

export interface ImportPayloadsOptions {
  readonly storage: Storage;
  readonly views: KeptViews;
  /** Drops a service whose row is missing, or is not the one that was written. Called in a turn of the peer. */
  readonly onDamaged: (peer: ImportPeer, service: StoredService, turn: Turn) => Promise<void>;
}

/** Reads payloads from the storage and keeps the ones used last. A payload is decoded only when a reader asks for it. */
export class ImportPayloads {
  readonly #options: ImportPayloadsOptions;
  readonly #kept: KeptViews;
  /** By view, for all who have it at the same time. */
  readonly #decoded = new WeakMap<PayloadView, Promise<WeakRef<readonly ServiceInstance[]>>>();

  /** By the later view: the difference that was asked for last. */
  readonly #differences = new WeakMap<PayloadView, KnownDifference>();

  constructor(options: ImportPayloadsOptions) {
    this.#options = options;
    this.#kept = options.views;
  }

  /** A service as it is now, if nothing is being written and no other service describes its nodes; else undefined. */
  async quickView(peer: ImportPeer, service: StoredService): Promise<PayloadView | undefined> {
    const kept = this.#kept.get(service);
    if (kept !== undefined) return kept;
    const { mark } = service;
    if (service.holds.some(isOutdated)) return undefined;
    const value = await this.#payload(peer, service);
    if (value === undefined || peer.index.get(service.key) !== service || service.mark !== mark) return undefined;
    return this.#kept.keep(service, { value, nodes: noNodes, apart: service.apart });
  }

  /** Services as they are now, by key. Call it in a turn of the peer. */
  async views(
    peer: ImportPeer,
    services: readonly StoredService[],
    turn: Turn,
  ): Promise<ReadonlyMap<string, PayloadView>> {
    const views = new Map<string, PayloadView>();
    const others: StoredService[] = [];
    for (const service of services) {
      const kept = this.#kept.get(service);
      if (kept === undefined) others.push(service);
      else views.set(service.key, kept);
    }
    if (others.length === 0) return views;
    const outdated = await inTurns(outdatedNodes(others));
    const newest = outdated.length === 0 ? noNodes : await this.newestNodes(peer, outdated, turn);
    const payloads = await this.#payloads(peer, others, turn);
    const steps = function* (this: ImportPayloads): Steps<void> {
      const meter = new StepMeter();
      for (const [service, value] of payloads) {
        const nodes = new Map<string, EncodedNode>();
        for (const hold of newest.size === 0 ? [] : service.holds) {
          const encoded = isOutdated(hold) ? newest.get(hold.node.name) : undefined;
          if (encoded !== undefined) nodes.set(hold.node.name, encoded);
        }
        const view = { value, nodes: nodes.size === 0 ? noNodes : nodes, apart: service.apart };
        views.set(service.key, this.#kept.keep(service, view));
        if (meter.isOver(10 + service.holds.length)) yield;
      }
    };
    await inTurns(steps.call(this));
    return views;
  }

  /**
   * Services as they are now, a page of the storage at a time, but for those that are being written, or of whose nodes another service
   * says something newer. None of it is kept.
   */
  async *pages(peer: ImportPeer): AsyncGenerator<ReadonlyMap<StoredService, PayloadView>, void> {
    for await (const { entries } of this.#options.storage.pages([...IMPORTS_PREFIX, peer.id], PAGE_BYTES)) {
      const views = new Map<StoredService, PayloadView>();
      for (const entry of entries) {
        const service = peer.index.get(entry.key[2] ?? "");
        const value = service && payloadIn(entry, service);
        if (service === undefined || value === undefined || service.holds.some(isOutdated)) continue;
        views.set(service, { value, nodes: noNodes, apart: service.apart });
      }
      yield views;
    }
  }

  /** Nodes as the services that speak for them have them, by name. Call it in a turn of the peer. */
  async newestNodes(
    peer: ImportPeer,
    nodes: Iterable<ImportedNode>,
    turn: Turn,
  ): Promise<ReadonlyMap<string, EncodedNode>> {
    const wanted = await inTurns(bySpeaker(nodes));
    const found = new Map<string, EncodedNode>();
    const speakers = [...wanted.keys()];
    const together = peer.index.payloadBytes <= READ_WHOLE_BYTES ? speakers.length : READ_BATCH;
    for (let start = 0; start < speakers.length; start += together) {
      const payloads = await this.#payloads(peer, speakers.slice(start, start + together), turn);
      await inTurns(nodesIn(payloads, wanted, found));
    }
    return found;
  }

  /**
   * The payloads of several services. A row that is not the one the index was made of has been written by another process
   * since, or is damaged, and dropped then.
   */
  async #payloads(
    peer: ImportPeer,
    services: readonly StoredService[],
    turn: Turn,
  ): Promise<ReadonlyMap<StoredService, Uint8Array>> {
    const found = new Map<StoredService, Uint8Array>();
    const damaged: StoredService[] = [];
    const take = (service: StoredService, payload: Uint8Array | undefined): void => {
      if (payload === undefined) damaged.push(service);
      else found.set(service, payload);
    };
    if (services.length > READ_BATCH && peer.index.payloadBytes <= READ_WHOLE_BYTES) {
      const rows = new Map<string | undefined, Entry>();
      for await (const { entries } of this.#options.storage.pages([...IMPORTS_PREFIX, peer.id], PAGE_BYTES)) {
        for (const entry of entries) rows.set(entry.key[2], entry);
      }
      const steps = function* (): Steps<void> {
        const meter = new StepMeter();
        for (const service of services) {
          take(service, payloadIn(rows.get(service.key), service));
          if (meter.isOver(10)) yield;
        }
      };
      await inTurns(steps());
    } else {
      for (let start = 0; start < services.length; start += READ_BATCH) {
        const group = services.slice(start, start + READ_BATCH);
        const payloads = await Promise.all(group.map((service) => this.#payload(peer, service)));
        for (const [index, service] of group.entries()) take(service, payloads[index]);
      }
    }
    if (damaged.length > 0) await turn.current();
    for (const service of damaged) await this.#options.onDamaged(peer, service, turn);
    return found;
  }

  /** Decoded in turns, and once for all who have the same view at the same time. */
  async decode(view: PayloadView): Promise<readonly ServiceInstance[]> {
    const known = (await this.#decoded.get(view))?.deref();
    if (known !== undefined) return known;
    const decoding = inTurns(decodeSteps(view.value, nodesOf(view)));
    const reference = decoding.then((instances) => new WeakRef(instances));
    // Callers that wait for it get the failure; later ones try again.
    reference.catch(() => this.#decoded.delete(view));
    this.#decoded.set(view, reference);
    return decoding;
  }

  /** The difference of a service from one view to the other; undefined: it had no instances. Made once for all, too. */
  async difference(before: PayloadView | undefined, after: PayloadView | undefined): Promise<InstanceDiff> {
    if (before === undefined || after === undefined) {
      return {
        added: after === undefined ? [] : await this.decode(after),
        changed: [],
        removed: before === undefined ? [] : await this.decode(before),
      };
    }
    const known = this.#differences.get(after);
    const alive = known?.before.deref() === before ? (await known.difference).deref() : undefined;
    if (alive !== undefined) return alive;
    const making = wholeDifference(before, after);
    const difference = making.then((made) => new WeakRef(made));
    difference.catch(() => this.#differences.delete(after));
    this.#differences.set(after, { before: new WeakRef(before), difference });
    return making;
  }

  async #payload(peer: ImportPeer, service: StoredService): Promise<Uint8Array | undefined> {
    const kept = this.#kept.get(service);
    if (kept !== undefined) return kept.value;
    const [entry] = await this.#read(rowKey(peer.id, service.key));
    return payloadIn(entry, service);
  }

  /** Rows that are not damaged. @throws {PeeringError} as `Storage.read`. */
  async #read(prefix: Key): Promise<readonly Entry[]> {
    let entries: readonly Entry[] = [];
    for await (const page of this.#options.storage.pages(prefix, Number.POSITIVE_INFINITY)) {
      entries = entries.length === 0 ? page.entries : [...entries, ...page.entries];
    }
    return entries;
  }
}

interface KnownDifference {
  readonly before: WeakRef<PayloadView>;
  readonly difference: Promise<WeakRef<InstanceDiff>>;
}

async function wholeDifference(before: PayloadView, after: PayloadView): Promise<InstanceDiff> {
  const added: ServiceInstance[] = [];
  const changed: ServiceInstance[] = [];
  const removed: ServiceInstance[] = [];
  for (const part of differenceParts(before, after, Number.POSITIVE_INFINITY)) {
    if (part === undefined) await setImmediate();
    for (const one of part?.added ?? []) added.push(one);
    for (const one of part?.changed ?? []) changed.push(one);
    for (const one of part?.removed ?? []) removed.push(one);
  }
  return { added, changed, removed };
}

/** The payload in a row, if it is the one that the index was made of. */
function payloadIn(entry: Entry | undefined, service: StoredService): Uint8Array | undefined {
  if (entry?.key.length !== 3 || entry.revision !== service.revision) return undefined;
  const row = decodeRow(entry);
  return row?.digest === service.digest && row.payload.length === service.bytes ? row.payload : undefined;
}

/** Nodes of which another service says something newer. */
function* outdatedNodes(services: readonly StoredService[]): Steps<readonly ImportedNode[]> {
  const nodes: ImportedNode[] = [];
  const meter = new StepMeter();
  for (const { holds } of services) {
    for (const hold of holds) if (isOutdated(hold)) nodes.push(hold.node);
    if (meter.isOver(5 + holds.length)) yield;
  }
  return nodes;
}

/** The names of nodes, by the service that speaks for them. */
function* bySpeaker(nodes: Iterable<ImportedNode>): Steps<ReadonlyMap<StoredService, ReadonlySet<string>>> {
  const found = new Map<StoredService, Set<string>>();
  const meter = new StepMeter();
  for (const { name, newest } of nodes) {
    if (newest === undefined) continue;
    const names = found.get(newest.service);
    if (names === undefined) found.set(newest.service, new Set([name]));
    else names.add(name);
    if (meter.isOver(4)) yield;
  }
  return found;
}

function* nodesIn(
  payloads: ReadonlyMap<StoredService, Uint8Array>,
  wanted: ReadonlyMap<StoredService, ReadonlySet<string>>,
  found: Map<string, EncodedNode>,
): Steps<void> {
  const meter = new StepMeter();
  for (const [service, payload] of payloads) {
    const names = wanted.get(service);
    const { nodes } = yield* inspectionSteps(payload, service.key, noPayloadLimits);
    for (const place of nodes) {
      if (names?.has(place.name) === true) found.set(place.name, copyNode(place, payload));
      if (meter.isOver(20)) yield;
    }
    if (meter.isOver(payload.length >>> 3)) yield;
  }
}

/** Copied, so that a few bytes do not keep a whole payload alive. */
function copyNode(place: NodePlace, value: Uint8Array): EncodedNode {
  return {
    record: new Uint8Array(value.subarray(place.start, place.end)),
    checks: place.checks.map(({ start, end }) => new Uint8Array(value.subarray(start, end))),
  };
}
