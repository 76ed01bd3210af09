import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  decodeGo,
  GoJsonError,
  goBool,
  goInt,
  goList,
  goMap,
  goString,
  goStruct,
  plainJson,
  readFirstValue,
} from "../../../src/http/go-json.js";
import { timeText, writeJson } from "../../../src/http/json.js";
import { parseDuration, parseUint64 } from "../../../src/http/query.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("JSON as Go writes it", () => {
  it("sorts maps by bytes, keeps the order of structs, leaves out what is undefined", () => {
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

  it("hides what a browser could take for markup", () => {
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

  it("what is written is what is read", () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), fc.boolean(), (value, pretty) => {
        const text = writeJson(JSON.parse(JSON.stringify(value)), pretty);
        assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
        assert.deepEqual(plainJson(readFirstValue(bytes(text))), JSON.parse(JSON.stringify(value)));
      }),
    );
  });
});

describe("JSON as Go reads it", () => {
  it("takes the first value, and tells where it breaks", () => {
    assert.equal(readFirstValue(bytes(" true x")), true);
    for (const [text, why] of [
      ["", "EOF"],
      [" \n", "EOF"],
      ["{", "unexpected EOF"],
      ['{"a', "unexpected EOF"],
      ["[1,", "unexpected EOF"],
      ["nope", "invalid character 'o' in literal null (expecting 'u')"],
      ["{a}", "invalid character 'a' looking for beginning of object key string"],
      ['{"a" 1}', "invalid character '1' after object key"],
      ['{"a":1 2}', "invalid character '2' after object key:value pair"],
      ["[1 2]", "invalid character '2' after array element"],
      ['"\n"', "invalid character '\\n' in string literal"],
      ["'", "invalid character '\\'' looking for beginning of value"],
    ] as const) {
      assert.throws(() => readFirstValue(bytes(text)), { name: "GoJsonError", message: why }, text);
    }
  });

  it("any bytes are a value or an error of its own", () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array(), fc.string().map(bytes)), (given) => {
        try {
          readFirstValue(given);
        } catch (error) {
          assert.ok(error instanceof GoJsonError, String(error));
        }
      }),
    );
    assert.throws(() => readFirstValue(bytes("[".repeat(100_000))), GoJsonError);
  });

  it("structs take keys in any case, refuse others, and name what does not fit", () => {
    const inner = goStruct<{ readonly Port: number }>("api.Inner", { Port: goInt });
    const type = goStruct<{
      readonly Name: string;
      readonly On: boolean;
      readonly Tags: readonly string[];
      readonly Meta: Readonly<Record<string, string>>;
      readonly Inner: { readonly Port: number };
    }>("api.Outer", { Name: goString, On: goBool, Tags: goList(goString), Meta: goMap(goString), Inner: inner });
    const zero = { Name: "", On: false, Tags: [], Meta: {}, Inner: { Port: 0 } };
    assert.deepEqual(decodeGo(bytes("null"), type), zero);
    assert.deepEqual(decodeGo(bytes('{"nAmE":"x","INNER":{"port":5},"Tags":null}'), type), {
      ...zero,
      Name: "x",
      Inner: { Port: 5 },
    });
    for (const [text, why] of [
      ["[]", "json: cannot unmarshal array into Go value of type api.Outer"],
      ['{"x":1}', 'json: unknown field "x"'],
      ['{"__proto__":1}', 'json: unknown field "__proto__"'],
      ['{"Name":1}', "json: cannot unmarshal number into Go struct field Outer.Name of type string"],
      ['{"Tags":[1]}', "json: cannot unmarshal number into Go struct field Outer.Tags of type string"],
      ['{"Tags":{}}', "json: cannot unmarshal object into Go struct field Outer.Tags of type []string"],
      ['{"Inner":{"Port":"5"}}', "json: cannot unmarshal string into Go struct field Outer.Inner.Port of type int"],
      ['{"Inner":{"Port":1.5}}', "json: cannot unmarshal number 1.5 into Go struct field Outer.Inner.Port of type int"],
    ] as const) {
      assert.throws(() => decodeGo(bytes(text), type), { message: why });
    }
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
