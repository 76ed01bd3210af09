import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { durationText, nanosecondsText, parseDuration, parseNanoseconds } from "../../../src/syntax/go-duration.js";

const MOST = 2n ** 63n - 1n;

describe("a duration as Go writes it", () => {
  /** What `time.Duration.String` of Go 1.26 says, but for none. */
  const written: readonly (readonly [bigint, string])[] = [
    [1n, "1ns"],
    [-999n, "-999ns"],
    [1_000n, "1µs"],
    [1_001n, "1.001µs"],
    [999_999n, "999.999µs"],
    [1_500_000n, "1.5ms"],
    [999_999_999n, "999.999999ms"],
    [1_000_000_000n, "1s"],
    [60_000_000_001n, "1m0.000000001s"],
    [3_600_000_000_000n, "1h0m0s"],
    [MOST, "2562047h47m16.854775807s"],
    [-MOST - 1n, "-2562047h47m16.854775808s"],
  ];

  it("is told and read to the last nanosecond", () => {
    for (const [nanoseconds, text] of written) {
      assert.equal(nanosecondsText(nanoseconds), text);
      assert.equal(parseNanoseconds(text), nanoseconds, text);
    }
    fc.assert(
      fc.property(fc.bigInt(-MOST - 1n, MOST), (nanoseconds) => {
        assert.equal(parseNanoseconds(nanosecondsText(nanoseconds) || "0"), nanoseconds);
      }),
    );
  });

  it("is none beyond 64 bits, and one nanosecond more where it is negative", () => {
    for (const text of ["2562047h47m16.854775808s", "-2562047h47m16.854775809s", "9999999h", `${"9".repeat(40)}ns`]) {
      assert.equal(parseNanoseconds(text), undefined, text);
    }
  });

  it("is read in parts and fractions, of which less than a nanosecond is cut off", () => {
    const read: readonly (readonly [string, bigint])[] = [
      ["0", 0n],
      ["+5s", 5_000_000_000n],
      ["-1.5h", -5_400_000_000_000n],
      [".5s", 500_000_000n],
      ["1.s", 1_000_000_000n],
      ["1h2m3s4ms5us6ns", 3_723_004_005_006n],
      ["0.3ns", 0n],
      ["0.3333333333333333333h", 1_200_000_000_000n],
      ["1µs1μs", 2_000n],
    ];
    for (const [text, nanoseconds] of read) assert.equal(parseNanoseconds(text), nanoseconds, text);
    for (const text of ["", "1", "s", ".s", "1e3s", "1 s", "--1s", "1x", "-", "1s-1s"]) {
      assert.equal(parseNanoseconds(text), undefined, text);
    }
  });

  it("is in milliseconds where that is enough", () => {
    assert.deepEqual([parseDuration("1m30s"), parseDuration("1.5ms"), parseDuration("x")], [90_000, 1.5, undefined]);
    assert.deepEqual([durationText(90_000), durationText(0.25), durationText(0)], ["1m30s", "250µs", ""]);
  });
});
