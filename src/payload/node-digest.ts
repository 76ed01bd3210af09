import type { Steps } from "../base/steps.js";
import type { NodePlace, Place } from "./payload-inspection.js";

/** Bytes of nodes digested in one step. */
const DIGESTED_BATCH = 4 * 1024 * 1024;

/** As {@link nodeDigestSteps}, at once. */
export function nodeDigests(value: Uint8Array, nodes: readonly NodePlace[]): readonly number[] {
  const digests = new NodeDigests(value, nodes);
  while (!digests.step());
  return digests.all;
}

/**
 * Digests of the nodes of a payload, two halves of 32 bits each: to see whether two payloads of one peer describe a node alike.
 * Made to be fast. A peer that makes two equal on purpose only has one of its own nodes shown for the other.
 * @param value - the canonical payload, so that the order of maps does not matter.
 */
export function* nodeDigestSteps(value: Uint8Array, nodes: readonly NodePlace[]): Steps<readonly number[]> {
  const digests = new NodeDigests(value, nodes);
  while (!digests.step()) yield;
  return digests.all;
}

/** Two multiplicative hashes with different constants over the same words. */
class NodeDigests {
  readonly #bytes: Uint8Array;
  readonly #nodes: readonly NodePlace[];
  readonly #all: number[];
  #done = 0;
  #low = 0;
  #high = 0;

  constructor(bytes: Uint8Array, nodes: readonly NodePlace[]) {
    this.#bytes = bytes;
    this.#nodes = nodes;
    this.#all = new Array(2 * nodes.length);
  }

  get all(): readonly number[] {
    return this.#all;
  }

  /** Returns whether it was the last one. */
  step(): boolean {
    let bytes = 0;
    for (;;) {
      const node = this.#nodes[this.#done];
      if (node === undefined) return true;
      if (bytes >= DIGESTED_BATCH) return false;
      this.#low = 0x243f6a88;
      this.#high = 0x13198a2e;
      this.#add(node);
      for (const check of node.checks) this.#add(check);
      this.#all[2 * this.#done] = this.#low;
      this.#all[2 * this.#done + 1] = this.#high;
      this.#done++;
      bytes += node.end - node.start;
    }
  }

  #add({ start, end }: Place): void {
    const bytes = this.#bytes;
    // The length separates values that follow each other.
    let low = this.#low ^ (end - start);
    let high = this.#high ^ (end - start);
    let index = start;
    for (; index + 4 <= end; index += 4) {
      const word =
        (bytes[index] ?? 0) |
        ((bytes[index + 1] ?? 0) << 8) |
        ((bytes[index + 2] ?? 0) << 16) |
        ((bytes[index + 3] ?? 0) << 24);
      low = Math.imul(low ^ word, 0x9e3779b1);
      low ^= low >>> 15;
      high = Math.imul((high << 5) ^ (high >>> 27) ^ word, 0x85ebca6b);
      high ^= high >>> 13;
    }
    for (; index < end; index++) {
      const byte = bytes[index] ?? 0;
      low = Math.imul(low ^ byte, 0x9e3779b1);
      low ^= low >>> 15;
      high = Math.imul((high << 5) ^ (high >>> 27) ^ byte, 0x85ebca6b);
      high ^= high >>> 13;
    }
    this.#low = low | 0;
    this.#high = high | 0;
  }
}
