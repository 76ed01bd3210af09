import type { Steps } from "./steps.js";
import { sortSteps } from "./turns.js";

/** With more changes than this since the last look, and more than a fourth of all, everything is sorted again. */
const MANY_CHANGES = 1_000;
const PART = 4;
/** So few changes are put in their places one by one. */
const FEW_CHANGES = 32;

/**
 * Things in an order that is made when somebody looks, and kept as they come and go, as long as somebody looks now and then: what
 * nobody reads costs nothing.
 */
export class KeptOrder<Item extends object> {
  readonly #compare: (left: Item, right: Item) => number;
  /** As it was at the last look; undefined: the order is not kept. */
  #sorted: readonly Item[] | undefined;
  readonly #added = new Set<Item>();
  readonly #removed = new Set<Item>();
  /** The last look that found no order, while it makes one: changes since it began are noted. */
  #making: object | undefined;

  /** @param compare - must not change for things that are there. */
  constructor(compare: (left: Item, right: Item) => number) {
    this.#compare = compare;
  }

  add(item: Item): void {
    this.#note(item, this.#removed, this.#added);
  }

  remove(item: Item): void {
    this.#note(item, this.#added, this.#removed);
  }

  /** All there are at the moment of the first step. The same array until something comes or goes. @param all - the things there are. */
  *steps(all: () => Iterable<Item>): Steps<readonly Item[]> {
    if (this.#sorted === undefined) {
      const making = {};
      this.#making = making;
      this.#added.clear();
      this.#removed.clear();
      const sorted = yield* sortSteps([...all()], this.#compare);
      if (this.#making === making) {
        this.#making = undefined;
        this.#sorted = sorted;
      }
      return sorted;
    }
    if (this.#added.size + this.#removed.size > 0) this.#sorted = this.#merged(this.#sorted);
    return this.#sorted;
  }

  #merged(sorted: readonly Item[]): readonly Item[] {
    if (this.#added.size + this.#removed.size <= FEW_CHANGES) return this.#moved(sorted);
    const added = [...this.#added].sort(this.#compare);
    const merged: Item[] = [];
    let next = 0;
    for (const item of sorted) {
      if (this.#removed.has(item)) continue;
      for (let come = added[next]; come !== undefined && this.#compare(come, item) < 0; come = added[++next]) {
        merged.push(come);
      }
      merged.push(item);
    }
    for (; next < added.length; next++) {
      const come = added[next];
      if (come !== undefined) merged.push(come);
    }
    this.#added.clear();
    this.#removed.clear();
    return merged;
  }

  /** Of few changes: each has its place looked for, and the others are moved. */
  #moved(sorted: readonly Item[]): readonly Item[] {
    const moved = sorted.slice();
    for (const item of this.#removed) {
      let place = this.#placeOf(item, moved);
      while (place < moved.length && moved[place] !== item) place++;
      moved.splice(place, 1);
    }
    for (const item of this.#added) moved.splice(this.#placeOf(item, moved), 0, item);
    this.#added.clear();
    this.#removed.clear();
    return moved;
  }

  /** The first place with nothing before it that does not come before the item. */
  #placeOf(item: Item, sorted: readonly Item[]): number {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const there = sorted[middle];
      if (there !== undefined && this.#compare(there, item) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #note(item: Item, undone: Set<Item>, done: Set<Item>): void {
    if (this.#sorted === undefined && this.#making === undefined) return;
    if (!undone.delete(item)) done.add(item);
    const changes = this.#added.size + this.#removed.size;
    if (this.#sorted === undefined || changes <= MANY_CHANGES || changes * PART <= this.#sorted.length) return;
    this.#sorted = undefined;
    this.#added.clear();
    this.#removed.clear();
  }
}
