import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Steps } from "../../../src/base/steps.js";
import { mergeSteps, sortByKeys, sortSteps } from "../../../src/base/turns.js";
import { turnsDuring } from "../../support/turns.js";

const COUNT = 100_000;
/** About a millisecond or two. */
const MOST_COMPARISONS = 10_000;

const shuffled = (count: number): readonly { readonly key: number }[] =>
  Array.from({ length: count }, (_, index) => ({ key: (index * 7_919) % count }));

/** The result, and the most comparisons of one step. */
function measured<Result>(make: (compare: (left: Key, right: Key) => number) => Steps<Result>): [Result, number] {
  let [comparisons, most] = [0, 0];
  const steps = make((left, right) => {
    comparisons++;
    return left.key - right.key;
  });
  for (;;) {
    comparisons = 0;
    const step = steps.next();
    most = Math.max(most, comparisons);
    if (step.done === true) return [step.value, most];
  }
}

interface Key {
  readonly key: number;
}

describe("long lists", () => {
  it("are sorted in steps, none of which compares many", () => {
    const [sorted, most] = measured((compare) => sortSteps(shuffled(COUNT), compare));
    assert.ok(sorted.every(({ key }, index) => key === index));
    assert.ok(most <= MOST_COMPARISONS, `${most} comparisons in one step`);
  });

  it("are merged in steps, none of which compares many", () => {
    const sorted = Array.from({ length: COUNT }, (_, key) => ({ key }));
    const [left, right] = [sorted.filter(({ key }) => key % 3 === 0), sorted.filter(({ key }) => key % 3 !== 0)];
    const [merged, most] = measured((compare) => mergeSteps(left, right, compare));
    assert.deepEqual(merged, sorted);
    assert.ok(most <= MOST_COMPARISONS, `${most} comparisons in one step`);
  });

  it("are sorted by keys in turns, by the second key where the first is the same", async () => {
    let made = 0;
    const sorting = sortByKeys(shuffled(COUNT), ({ key }) => {
      made++;
      return [String(key % 10), String(key).padStart(6, "0")];
    });
    const turns = await turnsDuring(sorting);
    assert.equal(made, COUNT);
    assert.ok(turns > COUNT / 1_000, `${turns} turns`);
    const sorted = await sorting;
    assert.deepEqual(sorted.slice(0, 2), [{ key: 0 }, { key: 10 }]);
    assert.deepEqual(sorted.at(-1), { key: COUNT - 1 });
  });
});
