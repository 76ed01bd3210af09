import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { KeptOrder } from "../../../src/base/kept-order.js";
import { doAll } from "../../../src/base/steps.js";

interface Thing {
  readonly rank: number;
}

const byRank = (left: Thing, right: Thing): number => left.rank - right.rank;

describe("an order that is kept", () => {
  it("has what is there, sorted, whatever comes and goes between two looks, and is the same array while nothing does", () => {
    const arbitraryLook = fc.record({
      come: fc.array(fc.nat(20), { maxLength: 60 }),
      go: fc.array(fc.nat(100), { maxLength: 60 }),
    });
    fc.assert(
      fc.property(fc.array(arbitraryLook, { maxLength: 8 }), (looks) => {
        const order = new KeptOrder<Thing>(byRank);
        const there = new Set<Thing>();
        for (const { come, go } of looks) {
          for (const rank of come) {
            const thing = { rank };
            there.add(thing);
            order.add(thing);
          }
          for (const place of go) {
            const thing = [...there][place];
            if (thing === undefined) continue;
            there.delete(thing);
            order.remove(thing);
          }
          const sorted = doAll(order.steps(() => there));
          // The very things, not others of the same rank.
          for (const thing of sorted) assert.ok(there.has(thing));
          assert.equal(sorted.length, there.size);
          assert.deepEqual(
            sorted.map(({ rank }) => rank),
            Array.from(there, ({ rank }) => rank).sort((left, right) => left - right),
          );
          assert.equal(doAll(order.steps(() => there)), sorted);
        }
      }),
    );
  });
});
