import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  durationProblem,
  durationText,
  nanosecondsText,
  parseDuration,
  parseNanoseconds,
} from "../../../src/syntax/go-duration.js";

const MOST = 2n ** 63n - 1n;

describe("a duration as Go writes it", () => {
  /** The text of `time.Duration.String` of Go 1.26, but for none. */
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

  it("is none for the reason that Go 1.26 tells", () => {
    const told: readonly (readonly [string, string])[] = [
      ["", 'time: invalid duration ""'],
      ["1", 'time: missing unit in duration "1"'],
      [".s", 'time: invalid duration ".s"'],
      ["1e3s", 'time: unknown unit "e" in duration "1e3s"'],
      ["1s-1s", 'time: unknown unit "s-" in duration "1s-1s"'],
      ["1..5s", 'time: missing unit in duration "1..5s"'],
      ["1s2", 'time: missing unit in duration "1s2"'],
      ["1s..", 'time: invalid duration "1s.."'],
      ["ü", 'time: invalid duration "\\xc3\\xbc"'],
      ["1.5é2", 'time: unknown unit "\\xc3\\xa9" in duration "1.5\\xc3\\xa92"'],
      ['a"b', 'time: invalid duration "a\\"b"'],
      ["1\\", 'time: unknown unit "\\\\" in duration "1\\\\"'],
      ["1h\n", 'time: unknown unit "h\\x0a" in duration "1h\\x0a"'],
      ["1s99999999999999999999x", 'time: invalid duration "1s99999999999999999999x"'],
      ["9999999999999999999x", 'time: invalid duration "9999999999999999999x"'],
    ];
    for (const [text, problem] of told) assert.equal(durationProblem(text), problem);
    assert.equal(durationProblem("1s"), "");
    assert.equal(parseNanoseconds(`${"0".repeat(30)}1s`), 1_000_000_000n);
  });

  it("is looked at once, however many ways there are to take its digits apart", () => {
    for (const text of [`${"1".repeat(900)}..`, `${"1".repeat(5_000_000)}..`, "1s".repeat(2_000_000)]) {
      assert.equal(durationProblem(text), `time: invalid duration "${text}"`);
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
