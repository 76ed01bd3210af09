import { compareUtf8 } from "../base/byte-order.js";
import type { Incidents } from "../base/incidents.js";
import { SHORT_STEP_FIELDS, StepMeter, type Steps } from "../base/steps.js";
import { inShortTurns, sortSteps } from "../base/turns.js";
import { decodeNode, type EncodedNode } from "../payload/imported-payload.js";
import type { Turn } from "../storage/replica.js";
import type { ImportedNode, PeerIndex } from "./import-index.js";
import type { ImportPayloads } from "./import-payloads.js";
import type { ImportPeer } from "./import-peer.js";
import type { KeptNode, ListedNode } from "./peer-lists.js";

/** About as many fields as decoding a node costs. */
const NODE_FIELDS = 20;
/** About the memory of a node beside what it is decoded from, and how many times as much as that the decoded one takes. */
const NODE_BYTES = 600;
const DECODED = 3;
/** A peer whose nodes were listed among so many last ones keeps them when others want their place. */
const LATELY = 16;

/** The nodes of imports, decoded at most once per change of a node, as far as they fit in the memory for them. */
export class ImportNodes {
  readonly #payloads: ImportPayloads;
  readonly #incidents: Incidents;
  readonly #most: number;
  /** Those with nodes that are kept, the one that was asked for last comes last. */
  readonly #peers = new Set<ImportPeer>();
  #bytes = 0;
  #asked = 0;

  /** @param most - bytes of nodes that are kept, of all peers. */
  constructor(payloads: ImportPayloads, incidents: Incidents, most: number) {
    this.#payloads = payloads;
    this.#incidents = incidents;
    this.#most = most;
  }

  /** Of all peers. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Every node of a peer by name. Call it in a turn of the peer. */
  async list(peer: ImportPeer, turn: Turn): Promise<readonly ListedNode[]> {
    const { index } = peer;
    const nodes = peer.nodes?.nodes ?? new Map<ImportedNode, KeptNode>();
    let { order = [] } = peer.nodes ?? {};
    for (;;) {
      const { missing, isSame } = await inShortTurns(knownSteps(index, nodes));
      // Should this list fail, the next one makes an order of its own.
      if (missing.length > 0 || !isSame) this.release(peer);
      if (missing.length === 0) {
        if (!isSame || order.length !== nodes.size) order = await inShortTurns(orderSteps(nodes));
        this.#keep(peer, nodes, order);
        return inShortTurns(listedSteps(nodes, order));
      }
      order = [];
      // Where a service turns out to be damaged, another one describes its nodes then.
      const encoded = await this.#payloads.newestNodes(peer, missing, turn);
      await inShortTurns(decodedSteps(index, encoded, nodes));
    }
  }

  /** Forgets the nodes of a peer. */
  release(peer: ImportPeer): void {
    this.#bytes -= peer.nodes?.bytes ?? 0;
    peer.nodes = undefined;
    this.#peers.delete(peer);
  }

  #keep(peer: ImportPeer, nodes: Map<ImportedNode, KeptNode>, order: readonly ImportedNode[]): void {
    this.release(peer);
    const asked = ++this.#asked;
    let bytes = 0;
    for (const { bytes: more } of nodes.values()) bytes += more;
    for (const other of this.#peers) {
      if (this.#bytes + bytes <= this.#most || asked - (other.nodes?.asked ?? 0) < LATELY) break;
      this.release(other);
    }
    if (this.#bytes + bytes > this.#most) {
      this.#incidents.report(
        "import-nodes-full",
        "the nodes of a peer do not fit in the memory for those of lists: they are made for each list",
        { limit: this.#most },
      );
      return;
    }
    peer.nodes = { nodes, order, bytes, asked };
    this.#bytes += bytes;
    this.#peers.add(peer);
  }
}

/** Brings nodes up to the index. @returns those that are not known as they are, and whether none has come or gone. */
function* knownSteps(
  index: PeerIndex,
  nodes: Map<ImportedNode, KeptNode>,
): Steps<{ readonly missing: readonly ImportedNode[]; readonly isSame: boolean }> {
  const missing: ImportedNode[] = [];
  const meter = new StepMeter(SHORT_STEP_FIELDS);
  let known = 0;
  for (const node of index.nodes()) {
    if (meter.isOver(4)) yield;
    const { newest } = node;
    if (newest === undefined) continue;
    const kept = nodes.get(node);
    if (kept !== undefined) known++;
    if (kept?.low !== newest.low || kept.high !== newest.high) {
      missing.push(node);
      continue;
    }
    // The newest of those that hold a node was committed last.
    const { revision } = newest.service;
    if (kept.listed.revision !== revision) nodes.set(node, { ...kept, listed: { ...kept.listed, revision } });
  }
  const isSame = known === nodes.size;
  for (const node of isSame ? [] : nodes.keys()) {
    if (node.newest === undefined) nodes.delete(node);
    if (meter.isOver(2)) yield;
  }
  return { missing, isSame };
}

/** Nodes in the order of their names. */
function* orderSteps(nodes: ReadonlyMap<ImportedNode, KeptNode>): Steps<readonly ImportedNode[]> {
  const named = Array.from(nodes, ([node, { listed }]) => ({ node, name: listed.node.name }));
  const sorted = yield* sortSteps(named, (left, right) => compareUtf8(left.name, right.name));
  return sorted.map(({ node }) => node);
}

function* listedSteps(
  nodes: ReadonlyMap<ImportedNode, KeptNode>,
  order: readonly ImportedNode[],
): Steps<readonly ListedNode[]> {
  const all: ListedNode[] = [];
  const meter = new StepMeter(SHORT_STEP_FIELDS);
  for (const node of order) {
    const kept = nodes.get(node);
    if (kept !== undefined) all.push(kept.listed);
    if (meter.isOver(2)) yield;
  }
  return all;
}

function* decodedSteps(
  index: PeerIndex,
  encoded: ReadonlyMap<string, EncodedNode>,
  nodes: Map<ImportedNode, KeptNode>,
): Steps<void> {
  const meter = new StepMeter(SHORT_STEP_FIELDS);
  for (const [name, one] of encoded) {
    const node = index.node(name);
    const newest = node?.newest;
    if (node === undefined || newest === undefined) continue;
    const { low, high, service } = newest;
    nodes.set(node, { low, high, listed: { ...decodeNode(one), revision: service.revision }, bytes: memoryOf(one) });
    if (meter.isOver(NODE_FIELDS)) yield;
  }
}

function memoryOf({ record, checks }: EncodedNode): number {
  let bytes = record.length;
  for (const check of checks) bytes += check.length;
  return NODE_BYTES + DECODED * bytes;
}
