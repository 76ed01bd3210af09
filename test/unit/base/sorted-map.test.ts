import assert from "node:assert/strict";
import { test } from "node:test";
import { compareUtf8 } from "../../../src/base/byte-order.js";
import { SortedMap } from "../../../src/base/sorted-map.js";

/** The next of a row of numbers that look random, and are the same in each run. */
function next(seed: number): number {
  return (seed * 16_807) % 2_147_483_647;
}

test("a sorted map says what a map says, and an older one stays as it was", () => {
  const model = new Map<string, number>();
  let map = SortedMap.of<number>(new Map());
  let seed = 1;
  for (let step = 0; step < 3_000; step++) {
    seed = next(seed);
    const key = `k${seed % 700}`;
    const before = map;
    const [size, value] = [before.size, before.get(key)];
    if (seed % 3 === 0) {
      model.delete(key);
      map = map.without(key);
    } else {
      model.set(key, step);
      map = map.with(key, step);
    }
    assert.equal(map.size, model.size);
    assert.equal(map.get(key), model.get(key));
    assert.equal(map.has(key), model.has(key));
    assert.equal(map.last, [...map.values()].at(-1));
    assert.deepEqual([before.size, before.get(key)], [size, value]);
  }
  const sorted = [...model].sort(([left], [right]) => (left < right ? -1 : 1));
  assert.ok(sorted.length > 300, "more than one chunk");
  assert.deepEqual([...map], sorted);
  assert.deepEqual([...SortedMap.of(model)], sorted);
  assert.deepEqual(
    [...map.under("k12")],
    sorted.filter(([key]) => key.startsWith("k12")),
  );
  assert.deepEqual([...map.under("x")], []);
  for (const key of model.keys()) map = map.without(key);
  assert.deepEqual([map.size, [...map], map.last], [0, [], undefined]);
});

test("a sorted map with one entry says what one with several says", () => {
  const none = SortedMap.of<number>(new Map());
  const one = none.with("kb", 1);
  for (const map of [one, SortedMap.of(new Map([["kb", 1]])), none.withAll(new Map([["kb", 1]]))]) {
    assert.deepEqual([map.size, map.last, map.get("kb"), map.has("kb")], [1, 1, 1, true]);
    assert.deepEqual([map.get("k"), map.has("k"), map.get("kbc"), map.has("")], [undefined, false, undefined, false]);
    assert.deepEqual([[...map], [...map.under("k")], [...map.under("kb")]], [[["kb", 1]], [["kb", 1]], [["kb", 1]]]);
    assert.deepEqual([[...map.under("ka")], [...map.under("kbc")]], [[], []]);
    assert.deepEqual([...map.with("kb", 2)], [["kb", 2]]);
    assert.deepEqual([...map.with("ka", 2).values()], [2, 1]);
    assert.deepEqual([...map.with("kc", 2).values()], [1, 2]);
    const changes = new Map([
      ["ka", 0],
      ["kb", undefined],
      ["kc", 2],
    ]);
    assert.deepEqual([...map.withAll(changes).values()], [0, 2]);
    assert.equal(map.without("k"), map);
    assert.deepEqual([map.without("kb").size, [...map.without("kb")]], [0, []]);
    assert.deepEqual([...map.with("kc", 2).without("kb")], [["kc", 2]]);
  }
  // An entry may have an undefined value.
  const absent = SortedMap.of<number | undefined>(new Map()).with("k", undefined);
  assert.deepEqual([absent.size, absent.has("k"), absent.get("k")], [1, true, undefined]);
});

test("a sorted map keeps another order of its keys", () => {
  // By UTF-16 units the astral one comes before the last two, by UTF-8 bytes behind them.
  const keys = ["a", "aa", "\u{1f600}", "\uff00", "\ue000", "z", "\u00e4"];
  const sorted = keys.toSorted(compareUtf8);
  assert.notDeepEqual(sorted, keys.toSorted());
  let map = SortedMap.of<number>(new Map([["z", 0]]), compareUtf8);
  for (const [index, key] of keys.entries()) map = map.with(key, index);
  // More of each, so that there are several chunks.
  const many = keys.flatMap((key) => Array.from({ length: 40 }, (_, index) => `${key}${index}`));
  for (const key of many) map = map.with(key, 1);
  const all = [...keys, ...many].sort(compareUtf8);
  assert.deepEqual([...map.keys()], all);
  assert.deepEqual([...SortedMap.of(new Map(all.map((key) => [key, 1])), compareUtf8).keys()], all);
  assert.deepEqual(
    [...map.under("\u{1f600}")].map(([key]) => key),
    all.filter((key) => key.startsWith("\u{1f600}")),
  );
  for (const key of many) map = map.without(key);
  assert.deepEqual([...map.keys()], sorted);
  for (const [index, key] of keys.entries()) assert.equal(map.get(key), index);
});

test("many changes of a sorted map at once are the same as one after another", () => {
  let seed = 7;
  const random = (below: number): number => {
    seed = next(seed);
    return seed % below;
  };
  let map = SortedMap.of<number>(new Map());
  for (let round = 0; round < 60; round++) {
    const changes = new Map<string, number | undefined>();
    const count = random(round % 2 === 0 ? 5 : 900);
    for (let each = 0; each < count; each++) {
      changes.set(`k${random(3_000)}`, random(3) === 0 ? undefined : random(1_000));
    }
    let expected = map;
    for (const [key, value] of changes)
      expected = value === undefined ? expected.without(key) : expected.with(key, value);
    const before = [...map];
    const changed = map.withAll(changes);
    assert.deepEqual([...map], before, "the older one stays as it was");
    assert.deepEqual([...changed], [...expected]);
    assert.equal(changed.size, expected.size);
    for (const key of changes.keys()) assert.equal(changed.get(key), expected.get(key));
    map = changed;
  }
  assert.ok(map.size > 500, "several chunks");
  const none = map.withAll(new Map(Array.from(map.keys(), (key) => [key, undefined])));
  assert.deepEqual([none.size, [...none], none.last], [0, [], undefined]);
});
