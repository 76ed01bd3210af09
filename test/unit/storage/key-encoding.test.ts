import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import { decodeKey, encodeEntryKey, encodeKey, isUnder } from "../../../src/storage/key-encoding.js";
import type { Key } from "../../../src/storage/storage.js";

const part = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 6 }),
  fc.string({ unit: fc.constantFrom("\0", "\u0001", "a", "ÿ", "\uffff", "\u{10ffff}"), maxLength: 4 }),
);
const anyKey = fc.array(part, { maxLength: 4 });

function compare(left: Key, right: Key): number {
  for (const [index, each] of left.entries()) {
    const other = right[index];
    if (other === undefined) return 1;
    const order = Buffer.compare(Buffer.from(each), Buffer.from(other));
    if (order !== 0) return order;
  }
  return Math.sign(left.length - right.length);
}

it("an encoded key decodes to itself", () => {
  fc.assert(fc.property(anyKey, (key) => assert.deepEqual(decodeKey(encodeKey(key)), key)));
});

it("encoded keys compare as their parts do as UTF-8", () => {
  fc.assert(
    fc.property(anyKey, anyKey, (left, right) => {
      const [a, b] = [encodeKey(left), encodeKey(right)];
      assert.equal(a < b ? -1 : a > b ? 1 : 0, compare(left, right));
    }),
  );
});

it("a key is under a prefix exactly when it begins with its parts", () => {
  fc.assert(
    fc.property(anyKey, anyKey, (key, prefix) => {
      const expected = prefix.every((each, index) => key[index] === each);
      assert.equal(isUnder(encodeKey(key), encodeKey(prefix)), expected);
      assert.ok(isUnder(encodeKey([...prefix, ...key]), encodeKey(prefix)));
    }),
  );
});

it("a key that would be stored as another, or names nothing, is a TypeError", () => {
  assert.throws(() => encodeKey(["a", "\ud800"]), TypeError);
  assert.throws(() => encodeEntryKey([]), TypeError);
  assert.throws(() => decodeKey("no end"), TypeError);
});
