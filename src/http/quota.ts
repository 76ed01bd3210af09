import type { NoPlace } from "../base/sources.js";

/** An amount of something, such as bytes, of which each source may have a part. */
export class Quota {
  readonly #perSource: number;
  readonly #inAll: number;
  readonly #taken = new Map<string, number>();
  #takenInAll = 0;

  constructor(limits: { readonly perSource: number; readonly inAll: number }) {
    this.#perSource = limits.perSource;
    this.#inAll = limits.inAll;
  }

  /** @returns why it was not taken; undefined: it was. */
  take(source: string, amount: number): NoPlace | undefined {
    const taken = (this.#taken.get(source) ?? 0) + amount;
    if (taken > this.#perSource) return "source";
    if (this.#takenInAll + amount > this.#inAll) return "all";
    this.#taken.set(source, taken);
    this.#takenInAll += amount;
    return undefined;
  }

  /** Gives the taken part back. */
  give(source: string, amount: number): void {
    const left = (this.#taken.get(source) ?? 0) - amount;
    if (left > 0) this.#taken.set(source, left);
    else this.#taken.delete(source);
    this.#takenInAll -= amount;
  }
}
