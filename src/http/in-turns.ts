import { pauses } from "../base/turns.js";
import type { Listing } from "../model/listing.js";
import type { Fields } from "./filter/fields.js";
import { compileFilter } from "./filter/filter.js";
import type { ReadOptions } from "./query.js";

/** The items that a filter holds of, and which may be seen; found in turns. Default: all may. */
export type Filter<Item> = (items: Listing<Item>, isSeen?: (item: Item) => boolean) => Promise<Listing<Item>>;

/** @throws {PeeringError} when it is not one. */
export function filterFor<Item>(options: ReadOptions, fields: Fields<Item>): Filter<Item> {
  const filter = options.filter === "" ? undefined : compileFilter(options.filter, fields);
  return async (items, isSeen) => {
    if (filter === undefined) return isSeen === undefined ? items : kept(items, isSeen);
    return kept(items, (item) => (isSeen?.(item) ?? true) && filter.holds(item));
  };
}

/** The items that a test holds of; others have their turn while they are looked at. */
export async function kept<Item>(items: Listing<Item>, holds: (item: Item) => boolean): Promise<Listing<Item>> {
  const indexes: number[] = [];
  const pause = pauses();
  for (let index = 0; index < items.length; index++) {
    const pausing = pause();
    if (pausing !== undefined) await pausing;
    const item = items.at(index);
    if (item !== undefined && holds(item)) indexes.push(index);
  }
  return indexes.length === items.length ? items : chosen(items, indexes);
}

/** Does something with each; others have their turn in between. */
export async function forEach<Item>(items: Listing<Item>, look: (item: Item) => void): Promise<void> {
  await kept(items, (item) => {
    look(item);
    return false;
  });
}

/** All that is made of each, one after another; others have their turn in between. */
export async function gathered<Source, Item>(
  sources: Iterable<Source>,
  make: (source: Source) => Iterable<Item>,
): Promise<Item[]> {
  const items: Item[] = [];
  const pause = pauses();
  for (const source of sources) {
    const pausing = pause();
    if (pausing !== undefined) await pausing;
    for (const item of make(source)) items.push(item);
  }
  return items;
}

function chosen<Item>(items: Listing<Item>, indexes: readonly number[]): Listing<Item> {
  return {
    length: indexes.length,
    at: (place) => {
      const index = indexes[place];
      return index === undefined ? undefined : items.at(index);
    },
    *[Symbol.iterator]() {
      for (const index of indexes) {
        const item = items.at(index);
        if (item !== undefined) yield item;
      }
    },
  };
}
