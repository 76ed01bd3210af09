import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { RecentlyUsed } from "../../../src/base/recently-used.js";

interface Sized {
  size: number;
}

describe("values that are kept while they are used", () => {
  it("drops the one that was used longest ago, and tells it", () => {
    let dropped = 0;
    const values = new RecentlyUsed<string, Sized>(
      10,
      ({ size }) => size,
      () => dropped++,
    );
    values.set("a", { size: 4 });
    values.set("b", { size: 4 });
    values.get("a");
    values.set("c", { size: 4 });
    assert.deepEqual([values.get("a")?.size, values.get("b"), values.get("c")?.size, dropped], [4, undefined, 4, 1]);
  });

  it("drops nothing for a value that alone is too large", () => {
    let dropped = 0;
    const values = new RecentlyUsed<string, Sized>(
      10,
      ({ size }) => size,
      () => dropped++,
    );
    values.set("a", { size: 4 });
    values.set("b", { size: 11 });
    assert.deepEqual([values.get("a")?.size, values.get("b"), dropped], [4, undefined, 0]);
  });

  it("never holds more than its limit, and what was used last if that fits", () => {
    const key = fc.constantFrom("a", "b", "c", "d", "e");
    const step = fc.record({ type: fc.constantFrom("set", "get", "grow", "delete"), key, size: fc.nat(12) });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const held = new Map<string, Sized>();
        const values = new RecentlyUsed<string, Sized>(10, ({ size }) => size);
        for (const { type, key, size } of steps) {
          const value = held.get(key);
          if (type === "set") {
            held.set(key, { size });
            values.set(key, held.get(key) ?? { size });
          } else if (type === "grow" && value !== undefined) {
            const isKept = values.get(key) !== undefined;
            value.size += size;
            values.recount(key);
            assert.equal(values.get(key), isKept && value.size <= 10 ? value : undefined);
          } else if (type === "delete") {
            values.delete(key);
            assert.equal(values.get(key), undefined);
          }
          if (type === "set") assert.equal(values.get(key), size <= 10 ? held.get(key) : undefined);
          const found = [...held.keys()].map((each) => values.get(each)?.size ?? 0);
          assert.ok(found.reduce((sum, each) => sum + each, 0) <= 10);
        }
      }),
    );
  });
});
