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
  if (list instanceof JoinedListing) return list.records;
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
