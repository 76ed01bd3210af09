import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { type Json, JsonWriter, LazyList, timeText, writeJson } from "../../../src/http/json.js";
import { parseUint64 } from "../../../src/http/query.js";
import { parseDuration } from "../../../src/syntax/go-duration.js";
import { plainJson, readFirstValue } from "../../../src/syntax/go-json.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** The same, each part made when it is written. */
function lazy(value: Json): Json {
  if (Array.isArray(value)) return LazyList.of<Json>(value, lazy);
  return value;
}

describe("JSON as Go writes it", () => {
  it("sorts maps by bytes, keeps the order of structs, leaves out undefined members", () => {
    const map = new Map([
      ["b", 1],
      ["10", 2],
      ["9", 3],
      ["B", 4],
    ]);
    assert.equal(
      writeJson({ Z: map, A: undefined, List: [], Big: 2n ** 60n }),
      '{"Z":{"10":2,"9":3,"B":4,"b":1},"List":[],"Big":1152921504606846976}',
    );
  });

  it("escapes characters that a browser could take for markup", () => {
    assert.equal(writeJson("<a&b>\u2028"), '"\\u003ca\\u0026b\\u003e\\u2028"');
  });

  it("indents by four spaces and ends the line, and leaves empty lists as they are", () => {
    assert.equal(
      writeJson({ A: [1, { B: null }], C: [], D: {} }, true),
      '{\n    "A": [\n        1,\n        {\n            "B": null\n        }\n    ],\n    "C": [],\n    "D": {}\n}\n',
    );
  });

  it("drops the zeros at the end of times", () => {
    assert.equal(timeText(Date.UTC(2026, 0, 2, 3, 4, 50, 120)), "2026-01-02T03:04:50.12Z");
    assert.equal(timeText(Date.UTC(2026, 0, 2, 3, 4, 50)), "2026-01-02T03:04:50Z");
    assert.equal(timeText(-62_135_596_800_000), "0001-01-01T00:00:00Z");
  });

  it("is the same bit by bit, and where parts are made only when they are written", () => {
    fc.assert(
      fc.property(
        fc.jsonValue({ noUnicodeString: false }),
        fc.boolean(),
        fc.integer({ min: 1, max: 20 }),
        (value, pretty, size) => {
          const json: Json = JSON.parse(JSON.stringify(value));
          const writer = new JsonWriter(lazy(json), pretty);
          let written = "";
          while (!writer.done) written += writer.write(size);
          assert.equal(written, writeJson(json, pretty));
        },
      ),
    );
  });

  it("is made of no more than is written", () => {
    let made = 0;
    const items = Array.from({ length: 1_000 }, (_, index) => index);
    const writer = new JsonWriter(
      LazyList.of(items, (item) => {
        made++;
        return { item };
      }),
    );
    assert.equal(writer.write(30), '[{"item":0},{"item":1},{"item":2}');
    assert.deepEqual([made, writer.done, writer.openBytes], [3, false, 32_000]);
  });

  it("writing and reading gives the same value", () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), fc.boolean(), (value, pretty) => {
        const text = writeJson(JSON.parse(JSON.stringify(value)), pretty);
        assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
        assert.deepEqual(plainJson(readFirstValue(bytes(text))), JSON.parse(JSON.stringify(value)));
      }),
    );
  });
});

describe("parameters", () => {
  it("durations are Go's", () => {
    assert.deepEqual(
      ["0", "10s", "1h30m", "1.5s", "500ms", ".5m", "250us", "3µs", "-1s", "1m1m"].map(parseDuration),
      [0, 10_000, 5_400_000, 1_500, 500, 30_000, 0.25, 0.003, -1_000, 120_000],
    );
    for (const text of ["", "10", "s", "1x", "1 s", "1s ", "+", "9999999h"])
      assert.equal(parseDuration(text), undefined, text);
  });

  it("indexes are unsigned and have 64 bits", () => {
    assert.equal(parseUint64("18446744073709551615"), 2n ** 64n - 1n);
    for (const text of ["", "-1", "+1", "1.0", "18446744073709551616", "x"])
      assert.equal(parseUint64(text), undefined, text);
  });
});
