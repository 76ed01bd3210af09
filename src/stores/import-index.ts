import { compareUtf8 } from "../base/byte-order.js";
import { doAll, StepMeter, type Steps } from "../base/steps.js";
import { mergeSteps, sortSteps } from "../base/turns.js";

/** A stored service without its payload. */
export interface ServiceHead {
  /** Lower-cased. */
  readonly key: string;
  /** As its instances spell it. */
  readonly name: string;
  /** Of the canonical payload. */
  readonly digest: string;
  readonly instances: number;
  /** Whether each instance is on a node of its own. */
  readonly apart: boolean;
  /** Of the payload. */
  readonly bytes: number;
  /** Services of the mesh for which its instances speak. */
  readonly mesh: readonly string[];
  /** Lower-cased names of its nodes, each once. */
  readonly nodes: readonly string[];
  /** Its description of each of these: a digest in two halves, 32 bits with a sign. */
  readonly digests: readonly number[];
}

/** A service of a peer that has instances. */
export interface StoredService {
  readonly key: string;
  name: string;
  digest: string;
  instances: number;
  apart: boolean;
  bytes: number;
  mesh: readonly string[];
  holds: readonly Hold[];
  /** Of the commit that wrote it. */
  revision: bigint;
  /** Of the last commit that changed how its instances look, be it through a node. */
  mark: bigint;
}

/** That a service has instances on a node. */
export interface Hold {
  readonly service: StoredService;
  readonly node: ImportedNode;
  low: number;
  high: number;
  /** Of the same node, in the order of their commits. */
  older: Hold | undefined;
  newer: Hold | undefined;
}

/** A node of a peer. It exists while a service has an instance on it, and looks as the service stored last describes it. */
export interface ImportedNode {
  readonly name: string;
  /** Undefined once nothing holds it. */
  newest: Hold | undefined;
}

/** Sums over all peers. */
export interface ImportTotals {
  payloadBytes: number;
  indexBytes: number;
}

/** About how many bytes the index uses for a service, a name of the mesh, a hold and a node, beside the texts. */
const SERVICE_BYTES = 400;
const MESH_BYTES = 100;
const HOLD_BYTES = 90;
const NODE_BYTES = 140;

/** A service while it is linked with its nodes. */
interface Linking {
  readonly service: StoredService;
  readonly head: ServiceHead;
  readonly before: readonly Hold[];
  /** Those before by the names of their nodes. Mostly it needs none: they are the same nodes in the same order. */
  others: ReadonlyMap<string, Hold> | undefined;
  readonly holds: Hold[];
  /** How many were there before. */
  kept: number;
}

const noHolds: readonly Hold[] = [];

/** So many services that have come, and so large a part of all, are put in order where that can be done in turns. */
const MANY_UNSORTED = 1_000;
const UNSORTED_PART = 16;

/** Nodes linked in one step. */
export const MANY_NODES = 5_000;

/**
 * The imports from one peer, without payloads: small enough to be in memory for every service there is. Services are
 * linked with the nodes they have instances on, and a node with all that hold it, newest first; so that a change costs what
 * it touches, however many services share a node.
 */
export class PeerIndex {
  readonly #services = new Map<string, StoredService>();
  readonly #nodes = new Map<string, ImportedNode>();
  /** The services that speak for each service of the mesh; none: not in it. Mostly it is one, its sidecar. */
  readonly #mesh = new Map<string, StoredService | Set<StoredService>>();
  readonly #totals: ImportTotals;
  /** Nodes that look otherwise since {@link settle} was called. */
  #changed = new Set<ImportedNode>();
  #sorted: readonly StoredService[] = [];
  #unsorted: StoredService[] = [];
  /** Services that have gone, and how many of them had when the others were put in order. */
  #gone = 0;
  #sortedWith = 0;
  instances = 0;
  payloadBytes = 0;
  indexBytes = 0;
  /** Of the last commit. */
  revision = 0n;
  /** The revision at which the last service went that went. */
  extinction = 0n;

  constructor(totals: ImportTotals) {
    this.#totals = totals;
  }

  get size(): number {
    return this.#services.size;
  }

  get(key: string): StoredService | undefined {
    return this.#services.get(key);
  }

  keys(): IterableIterator<string> {
    return this.#services.keys();
  }

  services(): IterableIterator<StoredService> {
    return this.#services.values();
  }

  /** In byte order of their keys. */
  sorted(): readonly StoredService[] {
    return doAll(this.sortSteps());
  }

  /** Puts the services that have come into the order, which {@link sorted} then need not do. */
  *sortSteps(): Steps<readonly StoredService[]> {
    const { length } = this.#unsorted;
    if (length === 0 && this.#sorted.length <= this.#services.size) return this.#sorted;
    const isThere = (service: StoredService): boolean => this.#services.get(service.key) === service;
    const gone = this.#gone;
    const isWhole = gone === this.#sortedWith;
    const come = yield* sortSteps(this.#unsorted.filter(isThere), byKey);
    this.#sorted = yield* mergeSteps(isWhole ? this.#sorted : this.#sorted.filter(isThere), come, byKey);
    this.#unsorted = this.#unsorted.slice(length);
    this.#sortedWith = gone;
    return this.#sorted;
  }

  /**
   * Whether so many services have come since they were put in order that it is time to do it again: a part of all, or a peer with very
   * many of them would have them merged again and again.
   */
  get isToBeSorted(): boolean {
    return this.#unsorted.length >= Math.max(MANY_UNSORTED, this.#sorted.length / UNSORTED_PART);
  }

  node(name: string): ImportedNode | undefined {
    return this.#nodes.get(name);
  }

  nodes(): IterableIterator<ImportedNode> {
    return this.#nodes.values();
  }

  /** Names that services of the mesh are meant by. */
  meshNames(): IterableIterator<string> {
    return this.#mesh.keys();
  }

  isInMesh(name: string): boolean {
    return this.#mesh.has(name);
  }

  /** The services that have instances of a service of the mesh, or that speak for it, in byte order of their keys. */
  shownWith(name: string): readonly StoredService[] {
    const own = this.#services.get(name);
    const speaking = this.#mesh.get(name);
    if (speaking === undefined || speaking === own) return own === undefined ? [] : [own];
    const found = new Set(speaking instanceof Set ? speaking : [speaking]);
    if (own !== undefined) found.add(own);
    return [...found].sort(byKey);
  }

  /** As {@link putSteps}, at once: without steps, which cost memory and time of their own. */
  put(head: ServiceHead, revision: bigint): StoredService {
    const linking = this.#begin(head, revision);
    for (let index = 0; index < head.nodes.length; index++) this.#link(linking, index);
    return this.#end(linking, revision);
  }

  /** Takes over a write of a commit. To be done in the order of the commits, and followed by {@link settle}. */
  *putSteps(head: ServiceHead, revision: bigint): Steps<StoredService> {
    const linking = this.#begin(head, revision);
    for (let index = 0; index < head.nodes.length; index++) {
      if (index % MANY_NODES === MANY_NODES - 1) yield;
      this.#link(linking, index);
    }
    return this.#end(linking, revision);
  }

  #begin(head: ServiceHead, revision: bigint): Linking {
    const known = this.#services.get(head.key);
    const service = known ?? this.#add(head);
    if (known !== undefined) this.#count(known, -1);
    this.instances += head.instances - service.instances;
    // Mostly the same text, which is kept once then.
    service.name = head.name === service.key ? service.key : head.name;
    service.digest = head.digest;
    service.instances = head.instances;
    service.apart = head.apart;
    service.bytes = head.bytes;
    service.revision = revision;
    service.mark = revision;
    this.#speakFor(service, head.mesh);
    return { service, head, before: service.holds, others: undefined, holds: new Array(head.nodes.length), kept: 0 };
  }

  /** Links the service with one of its nodes. */
  #link(linking: Linking, index: number): void {
    const { service, head, before } = linking;
    const name = head.nodes[index] ?? "";
    let hold = before[index];
    if (hold?.node.name !== name && before.length > 0) {
      linking.others ??= new Map(before.map((one) => [one.node.name, one]));
      hold = linking.others.get(name);
    }
    if (hold === undefined) hold = this.#newHold(service, name);
    else linking.kept++;
    this.#speak(hold, head.digests[2 * index] ?? 0, head.digests[2 * index + 1] ?? 0);
    linking.holds[index] = hold;
  }

  #end({ service, before, holds, kept }: Linking, revision: bigint): StoredService {
    service.holds = holds;
    if (kept < before.length) {
      const still = new Set(holds);
      for (const hold of before) if (!still.has(hold)) this.#letGo(hold);
    }
    this.#count(service, 1);
    if (revision > this.revision) this.revision = revision;
    return service;
  }

  /** Forgets a service. To be followed by {@link settle}. */
  drop(key: string, revision: bigint): void {
    const service = this.#services.get(key);
    if (service === undefined) return;
    this.#count(service, -1);
    this.#services.delete(key);
    this.#gone++;
    this.instances -= service.instances;
    this.#speakFor(service, []);
    for (const hold of service.holds) this.#letGo(hold);
    service.holds = noHolds;
    if (revision > this.revision) this.revision = revision;
    this.extinction = this.revision;
  }

  /**
   * Marks the services on nodes that look otherwise since it was called last.
   * @param each - is called with each of them.
   */
  *settle(each: (service: StoredService) => void): Steps<void> {
    const changed = this.#changed;
    if (changed.size === 0) return;
    this.#changed = new Set();
    let done = 0;
    for (const node of changed) {
      for (const service of holders(node)) {
        service.mark = this.revision;
        each(service);
        if (++done % MANY_NODES === 0) yield;
      }
    }
  }

  /**
   * The nodes that will look otherwise once all of this is put, in this order; undefined: the service goes. Maybe others, too.
   */
  *changedBy(part: ReadonlyMap<string, ServiceHead | undefined>): Steps<ReadonlySet<ImportedNode>> {
    const changed = new Set<ImportedNode>();
    const looked = new Set<ImportedNode>();
    const meter = new StepMeter();
    for (const [key, head] of part) {
      if (meter.isOver(5 * (head?.nodes.length ?? 0))) yield;
      for (const [index, name] of head?.nodes.entries() ?? []) {
        const node = this.#nodes.get(name);
        const newest = node?.newest;
        if (node === undefined || newest === undefined) continue;
        const [low, high] = [head?.digests[2 * index], head?.digests[2 * index + 1]];
        if (newest.low !== low || newest.high !== high) changed.add(node);
      }
      for (const { node } of this.#services.get(key)?.holds ?? noHolds) {
        const { newest } = node;
        if (looked.has(node)) continue;
        looked.add(node);
        // Once the services of the part have released it, the newest of the others describes it.
        let left = newest;
        while (left !== undefined && part.has(left.service.key)) left = left.older;
        if (newest !== undefined && left !== undefined && !sayTheSame(newest, left)) changed.add(node);
      }
    }
    return changed;
  }

  #add({ key }: ServiceHead): StoredService {
    const service: StoredService = {
      key,
      name: "",
      digest: "",
      instances: 0,
      apart: true,
      bytes: 0,
      mesh: [],
      holds: noHolds,
      revision: 0n,
      mark: 0n,
    };
    this.#services.set(key, service);
    this.#unsorted.push(service);
    return service;
  }

  #count({ key, name, mesh, bytes, holds }: StoredService, sign: 1 | -1): void {
    let index = SERVICE_BYTES + key.length + name.length + holds.length * HOLD_BYTES;
    for (const destination of mesh) index += MESH_BYTES + destination.length;
    this.#countIndex(sign * index);
    this.payloadBytes += sign * bytes;
    this.#totals.payloadBytes += sign * bytes;
  }

  #countIndex(bytes: number): void {
    this.indexBytes += bytes;
    this.#totals.indexBytes += bytes;
  }

  #speakFor(service: StoredService, mesh: readonly string[]): void {
    if (service.mesh.length === 0 && mesh.length === 0) return;
    for (const name of service.mesh) {
      const speaking = this.#mesh.get(name);
      if (speaking instanceof Set) speaking.delete(service);
      if (!(speaking instanceof Set) || speaking.size === 0) this.#mesh.delete(name);
    }
    for (const name of mesh) {
      const speaking = this.#mesh.get(name);
      if (speaking instanceof Set) speaking.add(service);
      else this.#mesh.set(name, speaking === undefined ? service : new Set([speaking, service]));
    }
    service.mesh = mesh;
  }

  #newHold(service: StoredService, name: string): Hold {
    let node = this.#nodes.get(name);
    if (node === undefined) {
      node = { name, newest: undefined };
      this.#nodes.set(name, node);
      this.#countIndex(NODE_BYTES + name.length);
    }
    return { service, node, low: 0, high: 0, older: undefined, newer: undefined };
  }

  /** Makes a hold the newest of its node. */
  #speak(hold: Hold, low: number, high: number): void {
    const { node } = hold;
    const { newest } = node;
    const differs = newest !== undefined && (newest.low !== low || newest.high !== high);
    if (newest !== hold) {
      unlink(hold);
      const { newest: current } = node;
      hold.older = current;
      if (current !== undefined) current.newer = hold;
      node.newest = hold;
    }
    hold.low = low;
    hold.high = high;
    if (differs && hold.older !== undefined) this.#changed.add(node);
  }

  #letGo(hold: Hold): void {
    const { node, older } = hold;
    const wasNewest = node.newest === hold;
    unlink(hold);
    if (node.newest === undefined) {
      this.#nodes.delete(node.name);
      this.#changed.delete(node);
      this.#countIndex(-NODE_BYTES - node.name.length);
    } else if (wasNewest && older !== undefined && !sayTheSame(hold, older)) {
      this.#changed.add(node);
    }
  }
}

/** The services that hold a node, the one that describes it first. */
export function* holders({ newest }: ImportedNode): Generator<StoredService> {
  for (let hold = newest; hold !== undefined; hold = hold.older) yield hold.service;
}

function byKey(left: StoredService, right: StoredService): number {
  return compareUtf8(left.key, right.key);
}

function sayTheSame(left: Hold, right: Hold): boolean {
  return left.low === right.low && left.high === right.high;
}

/** Whether another service of the peer says something newer of the node, and something else. */
export function isOutdated(hold: Hold): boolean {
  const { newest } = hold.node;
  return newest !== undefined && newest !== hold && !sayTheSame(newest, hold);
}

/** Takes a hold out of those of its node, if it is among them. */
function unlink(hold: Hold): void {
  const { node, older, newer } = hold;
  if (node.newest === hold) node.newest = older;
  if (newer !== undefined) newer.older = older;
  if (older !== undefined) older.newer = newer;
  hold.older = undefined;
  hold.newer = undefined;
}

/** At most so many bytes of the index does a service take. */
export function indexBytesOf({ key, name, mesh, nodes }: Pick<ServiceHead, "key" | "name" | "mesh" | "nodes">): number {
  let bytes = SERVICE_BYTES + key.length + name.length + nodes.length * (HOLD_BYTES + NODE_BYTES);
  for (const destination of mesh) bytes += MESH_BYTES + destination.length;
  for (const node of nodes) bytes += node.length;
  return bytes;
}
