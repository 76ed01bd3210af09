import type { SeededRandom } from "../../src/testing/simulator/scheduler.js";
import { changedJson, type JsonForm } from "./json-mutator.js";

/** Numbers at which lengths, counts and signs turn over. */
const EDGES: readonly number[] = [
  0, 1, 0x7f, 0x80, 0xff, 0x3fff, 0x4000, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0xffffffff,
];
/** An input grows no further. */
export const MAX_INPUT_BYTES = 4_096;

/** Changes inputs at random: a bit, a byte, a run of them, a piece of another input, a word of the target's language. */
export class Mutator {
  readonly #random: SeededRandom;
  readonly #words: readonly Buffer[];
  readonly #json: JsonForm | undefined;

  /** @param json - every other input is changed value by value, and stays JSON. */
  constructor(random: SeededRandom, words: readonly string[], json?: JsonForm) {
    this.#random = random;
    this.#words = words.map((word) => Buffer.from(word));
    this.#json = json;
  }

  mutate(input: Buffer, others: readonly Buffer[]): Buffer {
    let made = input;
    const json = this.#json !== undefined && this.#random.chance(0.5) ? this.#json : undefined;
    for (let count = 1 + this.#random.below(4); count > 0; count--) {
      const other = others[this.#random.below(others.length)] ?? input;
      made = (json && changedJson(made, other, json, this.#random)) ?? this.#once(made, other);
    }
    return made.subarray(0, MAX_INPUT_BYTES);
  }

  #once(input: Buffer, other: Buffer): Buffer {
    const random = this.#random;
    const at = random.below(input.length + 1);
    switch (random.below(9)) {
      case 0:
        return changed(input, at, (byte) => byte ^ (1 << random.below(8)));
      case 1:
        return changed(input, at, () => random.below(256));
      case 2: {
        const from = random.below(other.length + 1);
        return splice(input, at, 0, other.subarray(from, from + random.below(64)));
      }
      case 3:
        return splice(input, at, random.below(32), Buffer.alloc(0));
      case 4:
        return splice(input, at, 0, input.subarray(at, at + 1 + random.below(64)));
      case 5:
        return splice(input, at, random.below(8), this.#words[random.below(this.#words.length)] ?? Buffer.from([0]));
      case 6: {
        const bytes = Buffer.alloc(4);
        bytes.writeUInt32BE(EDGES[random.below(EDGES.length)] ?? 0);
        return splice(input, at, 4, bytes.subarray(random.below(4)));
      }
      case 7:
        return Buffer.concat([input.subarray(0, at), other.subarray(random.below(other.length + 1))]);
      default:
        return splice(input, at, 0, Buffer.alloc(1 + random.below(200), input[at] ?? 0x28));
    }
  }
}

function changed(input: Buffer, at: number, change: (byte: number) => number): Buffer {
  const copy = Buffer.from(input);
  if (at < copy.length) copy[at] = change(copy[at] ?? 0);
  return copy;
}

function splice(input: Buffer, at: number, remove: number, insert: Buffer): Buffer {
  return Buffer.concat([input.subarray(0, at), insert, input.subarray(at + remove)]);
}
