import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { sameValue } from "../../../src/base/same-value.js";

describe("sameValue", () => {
  it("says of JSON what Node's comparison says", () => {
    const pair = fc.oneof(
      fc.tuple(fc.jsonValue({ maxDepth: 3 }), fc.jsonValue({ maxDepth: 3 })),
      fc.jsonValue().map((value) => [value, structuredClone(value)] as const),
    );
    fc.assert(
      fc.property(pair, ([left, right]) => {
        // Minus zero is zero in JSON.
        const [one, other] = [JSON.parse(JSON.stringify(left)), JSON.parse(JSON.stringify(right))];
        assert.equal(sameValue(one, other), isDeepStrictEqual(one, other));
      }),
    );
  });

  it("takes a member that is undefined for none", () => {
    assert.equal(sameValue({ a: 1, b: undefined }, { a: 1 }), true);
    assert.equal(sameValue({ a: 1 }, { a: 1, b: undefined }), true);
    assert.equal(sameValue({ a: undefined }, { a: null }), false);
    assert.equal(sameValue({ a: undefined }, { a: 1 }), false);
  });

  it("takes no inherited member for one of its own", () => {
    assert.equal(sameValue({}, { toString: "x" }), false);
    assert.equal(sameValue({ toString: "x" }, {}), false);
    assert.equal(sameValue({}, []), false);
  });

  it("looks at each value once, however deep it lies", () => {
    const nested = (depth: number, end: number): unknown =>
      Array.from({ length: depth }).reduce<unknown>((inside) => ({ inside }), end);
    assert.equal(sameValue(nested(500, 1), nested(500, 1)), true);
    assert.equal(sameValue(nested(500, 1), nested(500, 2)), false);
  });
});
