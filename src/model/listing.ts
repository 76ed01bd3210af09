import type { Steps } from "../base/steps.js";

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

/**
 * As {@link listing}, of records that never change and that alone decide how an element looks: as long as a list has the same
 * records, its elements are the same.
 */
export function derived<Source extends object, Item>(
  records: Listing<Source>,
  make: (record: Source) => Item,
): Listing<Item> {
  const sources = recordsOf(records) ?? (isArray(records) ? records : undefined);
  return sources === undefined ? new MadeListing(records, make) : new DerivedListing(sources, records, make);
}

/** The records that decide how the elements of a list look, one for each; undefined: something else may decide, too. */
export function recordsOf(list: Listing<unknown>): readonly object[] | undefined {
  if (list instanceof JoinedListing || list instanceof MergedListing) return list.records;
  return list instanceof DerivedListing ? list.records : undefined;
}

function isArray<Item>(list: Listing<Item>): list is readonly Item[] {
  return Array.isArray(list);
}

class DerivedListing<Source, Item> extends MadeListing<Source, Item> {
  readonly records: readonly object[];

  constructor(records: readonly object[], sources: Listing<Source>, make: (source: Source) => Item) {
    super(sources, make);
    this.records = records;
  }
}

/** Elements merged in one step. */
const MERGED_BATCH = 200;

/** Two lists that are in order as one, in steps. Of equal elements the one of the first list comes first. */
export function* mergedSteps<Item extends object>(
  left: Listing<Item>,
  right: Listing<Item>,
  compare: (left: Item, right: Item) => number,
): Steps<Listing<Item>> {
  const places: number[] = [];
  let [i, j] = [0, 0];
  let [first, second] = [left.at(0), right.at(0)];
  while (first !== undefined || second !== undefined) {
    if (second === undefined || (first !== undefined && compare(first, second) <= 0)) {
      places.push(i);
      first = left.at(++i);
    } else {
      places.push(~j);
      second = right.at(++j);
    }
    if (places.length % MERGED_BATCH === 0) yield;
  }
  return new MergedListing(left, right, places);
}

class MergedListing<Item extends object> implements Listing<Item> {
  readonly length: number;
  readonly #left: Listing<Item>;
  readonly #right: Listing<Item>;
  /** Where each element is in the first list, or the complement of where it is in the second one. */
  readonly #places: readonly number[];

  constructor(left: Listing<Item>, right: Listing<Item>, places: readonly number[]) {
    this.length = places.length;
    this.#left = left;
    this.#right = right;
    this.#places = places;
  }

  get records(): readonly object[] | undefined {
    const left = recordsOf(this.#left) ?? (isArray(this.#left) ? this.#left : undefined);
    const right = recordsOf(this.#right) ?? (isArray(this.#right) ? this.#right : undefined);
    if (left === undefined || right === undefined) return undefined;
    const records: object[] = [];
    for (const place of this.#places) {
      const record = place < 0 ? right[~place] : left[place];
      if (record !== undefined) records.push(record);
    }
    return records;
  }

  at(index: number): Item | undefined {
    const place = this.#places[index];
    if (place === undefined) return undefined;
    return place < 0 ? this.#right.at(~place) : this.#left.at(place);
  }

  *[Symbol.iterator](): Generator<Item, void, undefined> {
    for (let index = 0; index < this.length; index++) {
      const item = this.at(index);
      if (item !== undefined) yield item;
    }
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

  /** Those of all lists, where all have some. */
  get records(): readonly object[] | undefined {
    const [first = [], ...others] = this.lists;
    if (others.length === 0) return recordsOf(first);
    const records: object[] = [];
    for (const list of this.lists) {
      const some = list.length === 0 ? [] : recordsOf(list);
      if (some === undefined) return undefined;
      for (const record of some) records.push(record);
    }
    return records;
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
