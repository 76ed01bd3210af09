/** A list whose elements may be made when they are looked at. An array is one, too. */
export interface Listing<Item> extends Iterable<Item> {
  readonly length: number;
  /** @param index - from 0; undefined beyond the end. */
  at(index: number): Item | undefined;
}

/**
 * Elements made of records. Records stay unchanged, and are much smaller than the elements, so that a long list that
 * is told bit by bit costs little until the end of it.
 */
export function listing<Source, Item>(sources: Listing<Source>, make: (source: Source) => Item): Listing<Item> {
  return new MadeListing(sources, make);
}

/** A class, because one is made for every record of an answer. */
class MadeListing<Source, Item> implements Listing<Item> {
  readonly length: number;
  readonly #sources: Listing<Source>;
  readonly #make: (source: Source) => Item;

  constructor(sources: Listing<Source>, make: (source: Source) => Item) {
    this.length = sources.length;
    this.#sources = sources;
    this.#make = make;
  }

  at(index: number): Item | undefined {
    const source = this.#sources.at(index);
    return source === undefined ? undefined : this.#make(source);
  }

  *[Symbol.iterator](): Generator<Item, void, undefined> {
    for (const source of this.#sources) yield this.#make(source);
  }
}

/** One list after another. */
export function joined<Item>(lists: readonly Listing<Item>[]): Listing<Item> {
  return new JoinedListing(lists);
}

/** The lists of which a list is made up; of most that is the list itself. */
export function partsOf<Item>(list: Listing<Item>): readonly Listing<Item>[] {
  return list instanceof JoinedListing ? list.lists : [list];
}

class JoinedListing<Item> implements Listing<Item> {
  readonly length: number;
  readonly lists: readonly Listing<Item>[];
  readonly #starts: readonly number[];

  constructor(lists: readonly Listing<Item>[]) {
    const starts: number[] = [];
    let length = 0;
    for (const list of lists) {
      starts.push(length);
      length += list.length;
    }
    this.lists = lists;
    this.length = length;
    this.#starts = starts;
  }

  at(index: number): Item | undefined {
    const place = lastAtMost(this.#starts, index);
    return this.lists[place]?.at(index - (this.#starts[place] ?? 0));
  }

  *[Symbol.iterator](): Generator<Item, void, undefined> {
    for (const list of this.lists) yield* list;
  }
}

/** Where in sorted numbers, of which the first is 0, the last is that is not more than `value`. */
function lastAtMost(sorted: readonly number[], value: number): number {
  let low = 0;
  let high = sorted.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? 0) <= value) low = middle;
    else high = middle;
  }
  return low;
}
