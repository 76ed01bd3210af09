import { compareUtf8 } from "../base/byte-order.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns, sortSteps } from "../base/turns.js";
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
  readonly #most: number;
  /** Those with nodes that are kept, the one that was asked for last comes last. */
  readonly #peers = new Set<ImportPeer>();
  #bytes = 0;
  #asked = 0;

  /** @param most - bytes of nodes that are kept, of all peers. */
  constructor(payloads: ImportPayloads, most: number) {
    this.#payloads = payloads;
    this.#most = most;
  }

  /** Of all peers. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Every node of a peer by name. Call it in a turn of the peer. */
  async list(peer: ImportPeer, turn: Turn): Promise<readonly ListedNode[]> {
    const { index } = peer;
    let known = peer.nodes?.nodes ?? new Map<ImportedNode, KeptNode>();
    for (;;) {
      const { nodes, missing } = await inTurns(knownSteps(index, known));
      if (missing.length === 0) {
        this.#keep(peer, nodes);
        const all = Array.from(nodes.values(), ({ listed }) => listed);
        return inTurns(sortSteps(all, (left, right) => compareUtf8(left.node.name, right.node.name)));
      }
      // Where a service turns out to be damaged, another one describes its nodes then.
      const encoded = await this.#payloads.newestNodes(peer, missing, turn);
      known = await inTurns(decodedSteps(index, encoded, nodes));
    }
  }

  /** Forgets the nodes of a peer. */
  release(peer: ImportPeer): void {
    this.#bytes -= peer.nodes?.bytes ?? 0;
    peer.nodes = undefined;
    this.#peers.delete(peer);
  }

  #keep(peer: ImportPeer, nodes: ReadonlyMap<ImportedNode, KeptNode>): void {
    this.release(peer);
    const asked = ++this.#asked;
    let bytes = 0;
    for (const { bytes: more } of nodes.values()) bytes += more;
    for (const other of this.#peers) {
      if (this.#bytes + bytes <= this.#most || asked - (other.nodes?.asked ?? 0) < LATELY) break;
      this.release(other);
    }
    if (this.#bytes + bytes > this.#most) return;
    peer.nodes = { nodes, bytes, asked };
    this.#bytes += bytes;
    this.#peers.add(peer);
  }
}

/** The nodes that are known as they are, and those that are not. */
function* knownSteps(
  index: PeerIndex,
  known: ReadonlyMap<ImportedNode, KeptNode>,
): Steps<{ readonly nodes: Map<ImportedNode, KeptNode>; readonly missing: readonly ImportedNode[] }> {
  const nodes = new Map<ImportedNode, KeptNode>();
  const missing: ImportedNode[] = [];
  const meter = new StepMeter();
  for (const node of index.nodes()) {
    if (meter.isOver(4)) yield;
    const { newest } = node;
    const kept = known.get(node);
    if (newest === undefined) continue;
    if (kept?.low !== newest.low || kept.high !== newest.high) {
      missing.push(node);
      continue;
    }
    // The newest of those that hold a node was committed last.
    const { revision } = newest.service;
    const isSame = kept.listed.revision === revision;
    nodes.set(node, isSame ? kept : { ...kept, listed: { ...kept.listed, revision } });
  }
  return { nodes, missing };
}

function* decodedSteps(
  index: PeerIndex,
  encoded: ReadonlyMap<string, EncodedNode>,
  nodes: Map<ImportedNode, KeptNode>,
): Steps<Map<ImportedNode, KeptNode>> {
  const meter = new StepMeter();
  for (const [name, one] of encoded) {
    const node = index.node(name);
    const newest = node?.newest;
    if (node === undefined || newest === undefined) continue;
    const { low, high, service } = newest;
    nodes.set(node, { low, high, listed: { ...decodeNode(one), revision: service.revision }, bytes: memoryOf(one) });
    if (meter.isOver(NODE_FIELDS)) yield;
  }
  return nodes;
}

function memoryOf({ record, checks }: EncodedNode): number {
  let bytes = record.length;
  for (const check of checks) bytes += check.length;
  return NODE_BYTES + DECODED * bytes;
}
