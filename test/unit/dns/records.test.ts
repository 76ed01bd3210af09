import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { addressBytes, isEncodable, nameKey } from "../../../src/dns/records.js";

/** Around every limit of a name: 63 bytes a label, 253 in all, characters of one byte and of several, control characters. */
const text = fc
  .array(
    fc.oneof(
      fc.integer({ min: 0, max: 130 }).map((length) => "a".repeat(length)),
      fc.integer({ min: 30, max: 33 }).map((length) => "é".repeat(length)),
      fc.string({ maxLength: 4, unit: "binary" }),
      fc.constantFrom("", ".", "\u007f", "\u001f", " ", "A-Z"),
    ),
    { maxLength: 8 },
  )
  .map((parts) => parts.join("."));

describe("names and addresses in records", () => {
  it("a name is encodable when each label has 1 to 63 bytes, all of it at most 253, and nothing is a control character", () => {
    let encodable = 0;
    fc.assert(
      fc.property(text, (name) => {
        const labels = name.split(".").map((label) => Buffer.byteLength(label));
        const isControl = (character: string): boolean => character < " " || character === "\u007f";
        const expected =
          labels.every((bytes) => bytes >= 1 && bytes <= 63) &&
          Buffer.byteLength(name) <= 253 &&
          ![...name].some(isControl);
        if (expected) encodable++;
        assert.equal(isEncodable(name), expected);
      }),
      { numRuns: 2_000 },
    );
    assert.ok(encodable > 20, `only ${encodable} names were encodable`);
  });

  it("names compare without the case of ASCII letters alone", () => {
    assert.deepEqual(["Web.Node.consul", "web.node.consul", "ÄB.c", "[@`{"].map(nameKey), [
      "web.node.consul",
      "web.node.consul",
      "Äb.c",
      "[@`{",
    ]);
  });

  it("an IPv4 address is its four numbers", () => {
    fc.assert(
      fc.property(fc.ipV4(), (data) => {
        assert.deepEqual([...addressBytes({ type: "A", data })], data.split(".").map(Number));
      }),
    );
  });
});
