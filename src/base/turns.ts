import { setImmediate } from "node:timers/promises";
import { compareUtf8 } from "./byte-order.js";
import type { Steps } from "./steps.js";

/**
 * Does all steps; between two of them whatever else waits gets its turn.
 * @param signal - ends the work before its next step.
 * @throws `signal.reason`
 */
export async function inTurns<Result>(steps: Steps<Result>, signal?: AbortSignal): Promise<Result> {
  for (;;) {
    signal?.throwIfAborted();
    const step = steps.next();
    if (step.done === true) return step.value;
    await setImmediate();
  }
}

/**
 * How long a read goes on in one turn, by the clock, in milliseconds: steps of a fixed size take twenty times as long where code runs for
 * the first time.
 */
const TURN_MS = 2;

/** When a turn that begins now has taken as long as one may, on the clock of `performance`. */
export function turnEnd(): number {
  return performance.now() + TURN_MS;
}

/** To be called before each part of a long read: lets others have their turn when it is time. */
export function pauses(): () => Promise<void> | undefined {
  let end = turnEnd();
  return () => {
    if (performance.now() <= end) return undefined;
    return setImmediate().then(() => {
      end = turnEnd();
    });
  };
}

/** As {@link inTurns}, for reads: as many short steps in each turn as there is time for. Their number differs from run to run. */
export async function inShortTurns<Result>(steps: Steps<Result>): Promise<Result> {
  const pause = pauses();
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    const pausing = pause();
    if (pausing !== undefined) await pausing;
  }
}

/**
 * Sorts in steps: runs that are sorted at once, then merged.
 * @returns a new array.
 */
export function* sortSteps<Item extends NonNullable<unknown>>(
  items: readonly Item[],
  compare: (left: Item, right: Item) => number,
): Steps<Item[]> {
  let runs: Item[][] = [];
  for (let start = 0; start < items.length; start += SORTED_BATCH) {
    if (start > 0) yield;
    runs.push(items.slice(start, start + SORTED_BATCH).sort(compare));
  }
  // Short runs are merged in no steps of their own.
  let done = 0;
  while (runs.length > 1) {
    const merged: Item[][] = [];
    for (let index = 0; index < runs.length; index += 2) {
      const [left = [], right = []] = [runs[index], runs[index + 1]];
      merged.push(yield* mergeSteps(left, right, compare));
      done += left.length + right.length;
      if (done < MERGED_BATCH) continue;
      done = 0;
      yield;
    }
    runs = merged;
  }
  return runs[0] ?? [];
}

/**
 * Sorts in turns, by keys that are made once for each item: by the first ones in byte order, of equal ones by the next.
 * @returns a new array.
 */
export async function sortByKeys<Item>(
  items: Iterable<Item>,
  keysOf: (item: Item) => readonly string[],
): Promise<readonly Item[]> {
  // At once, as they may change between turns.
  const all = [...items];
  const sorted = await inShortTurns(sortKeyedSteps(all, keysOf));
  return sorted.map(({ item }) => item);
}

interface Keyed<Item> {
  readonly item: Item;
  readonly keys: readonly string[];
}

function* sortKeyedSteps<Item>(
  items: readonly Item[],
  keysOf: (item: Item) => readonly string[],
): Steps<readonly Keyed<Item>[]> {
  const keyed: Keyed<Item>[] = [];
  for (const item of items) {
    keyed.push({ item, keys: keysOf(item) });
    if (keyed.length % KEYED_BATCH === 0) yield;
  }
  return yield* sortSteps(keyed, (left, right) => compareKeys(left.keys, right.keys));
}

function compareKeys(left: readonly string[], right: readonly string[]): number {
  for (let index = 0; index < left.length; index++) {
    const order = compareUtf8(left[index] ?? "", right[index] ?? "");
    if (order !== 0) return order;
  }
  return 0;
}

/** Items of which the keys are made in one step, which are sorted at once, and which are merged in one step. */
const KEYED_BATCH = 100;
const SORTED_BATCH = 100;
const MERGED_BATCH = 1_000;

/** Merges two sorted arrays in steps, into a new one. */
export function* mergeSteps<Item extends NonNullable<unknown>>(
  left: readonly Item[],
  right: readonly Item[],
  compare: (left: Item, right: Item) => number,
): Steps<Item[]> {
  const [last, first] = [left.at(-1), right[0]];
  if (last === undefined || first === undefined || compare(last, first) <= 0) return left.concat(right);
  const merged: Item[] = [];
  let [i, j] = [0, 0];
  for (;;) {
    const [a, b] = [left[i], right[j]];
    if (a === undefined || b === undefined) break;
    if (compare(a, b) <= 0) {
      merged.push(a);
      i++;
    } else {
      merged.push(b);
      j++;
    }
    if (merged.length % MERGED_BATCH === 0) yield;
  }
  for (const rest of [left.slice(i), right.slice(j)]) for (const item of rest) merged.push(item);
  return merged;
}
