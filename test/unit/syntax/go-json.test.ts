import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Steps } from "../../../src/base/steps.js";
import {
  decodeGo,
  decodeGoSteps,
  firstValueSteps,
  GoJsonError,
  goBool,
  goDecoded,
  goInt,
  goList,
  goMap,
  goOptional,
  goString,
  goStruct,
  plainJson,
  readFirstValue,
  readGoSteps,
  readWholeValue,
  valuesAtMost,
} from "../../../src/syntax/go-json.js";

import { assertLinear } from "../../support/growth.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

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

  it("strings mean the same as to JSON.parse, and a lone surrogate is replaced", () => {
    const piece = fc.oneof(
      fc.constantFrom(
        "\\u0061",
        "\\ud83d\\ude00",
        "\\ud83d",
        "\\ude00\\ud83d",
        "\\uD83Dx",
        "\\n",
        '\\"',
        "\\\\",
        "\\/",
        "\u2028",
        "é",
      ),
      fc.string({ unit: "grapheme" }).map((text) => JSON.stringify(text).slice(1, -1)),
    );
    fc.assert(
      fc.property(fc.array(piece), (pieces) => {
        const text = `"${pieces.join("")}"`;
        const meant: unknown = JSON.parse(text);
        assert.equal(readWholeValue(bytes(text)), String(meant).replace(/\p{Surrogate}/gu, "\ufffd"));
      }),
    );
    const notUtf8 = Uint8Array.of(0x22, 0xc3, 0x5c, 0x6e, 0xa9, 0xff, 0x5c, 0x75, 0x30, 0x30, 0x36, 0x31, 0x22);
    assert.equal(readWholeValue(notUtf8), "\ufffd\n\ufffd\ufffda");
    for (const [text, why] of [
      ['"\\x"', "invalid character 'x' in string escape code"],
      ['"\\u00g0"', "invalid character 'g' in \\u hexadecimal character escape"],
      ['"\\u00', "unexpected EOF"],
      ['"\\', "unexpected EOF"],
    ] as const) {
      assert.throws(() => readFirstValue(bytes(text)), { name: "GoJsonError", message: why }, text);
    }
  });

  it("reads escapes about as fast as the characters that they stand for", () => {
    const length = 4 * 1024 * 1024;
    const fastest = (text: string): number => {
      const body = bytes(text);
      const times = [1, 2, 3].map(() => {
        const before = process.cpuUsage();
        readWholeValue(body);
        const { user, system } = process.cpuUsage(before);
        return (user + system) / 1_000;
      });
      return Math.min(...times);
    };
    const plain = Math.max(fastest(`"${"a".repeat(length)}"`), 10);
    for (const written of ["\\u0061", "\\ud800", '\\"', "\\u0061é"]) {
      const time = fastest(`"${written.repeat(length / written.length)}"`);
      assert.ok(time < 8 * plain, `${written} takes ${time.toFixed()} ms, plain text ${plain.toFixed()} ms`);
    }
  });

  it("values are counted without being made, and never too few", () => {
    const actual = (value: unknown): number =>
      1 +
      (typeof value === "object" && value !== null
        ? Object.values(value).reduce((sum: number, each) => sum + actual(each), 0)
        : 0);
    fc.assert(
      fc.property(fc.json(), (text) => {
        assert.ok(valuesAtMost(bytes(text)) >= actual(JSON.parse(text)));
      }),
    );
    assert.equal(valuesAtMost(bytes('"[{,\\",[{"')), 1);
    assert.equal(valuesAtMost(bytes('["a,b",2,{"c":3}]')), 5);
  });

  it("structs take keys in any case, refuse others, and name values that do not fit", () => {
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

  it("takes the last of equal keys, and of structs given twice what either says", () => {
    const inner = goStruct<{ readonly A: string; readonly B: string }>("api.Inner", { A: goString, B: goString });
    const type = goStruct<{
      readonly Name: string;
      readonly Inner: { readonly A: string; readonly B: string };
      readonly Pointer: { readonly A: string; readonly B: string } | undefined;
    }>("api.Outer", { Name: goString, Inner: inner, Pointer: goOptional(inner) });
    const text =
      '{"Name":"x","name":"y","Inner":{"A":"1","B":"1"},"inner":{"B":"2"},"Pointer":{"A":"3"},"Pointer":null}';
    assert.deepEqual(decodeGo(bytes(text), type), { Name: "y", Inner: { A: "1", B: "2" }, Pointer: undefined });
    assert.deepEqual(
      plainJson(readFirstValue(bytes('{"a":1,"__proto__":2,"a":3}'))),
      JSON.parse('{"a":3,"__proto__":2}'),
    );
  });

  it("tells the first of several mistakes, unless a decoder of its own finds one further inside", () => {
    const inner = goDecoded(
      goStruct<{ readonly N: number; readonly Wait: string }>("x.Inner", { N: goInt, Wait: goString }),
      (read) => {
        if (read.Wait === "bad") throw new GoJsonError("a bad wait");
        return read;
      },
    );
    const outer = goStruct<{
      readonly A: string;
      readonly List: readonly string[];
      readonly Inner: { readonly N: number; readonly Wait: string };
    }>("x.Outer", { A: goString, List: goList(goString), Inner: inner }, { aliases: { second: "A" } });
    const told = (text: string): string => {
      try {
        decodeGo(Buffer.from(text), outer);
      } catch (error) {
        assert.ok(error instanceof GoJsonError);
        return error.message;
      }
      return "";
    };
    const number = "json: cannot unmarshal number into Go struct field Outer.A of type string";
    assert.equal(told('{"A":1,"Foo":2,"List":3}'), number);
    assert.equal(told('{"Foo":2,"A":1}'), 'json: unknown field "Foo"');
    assert.equal(
      told('{"List":["a",1,{}]}'),
      "json: cannot unmarshal number into Go struct field Outer.List of type string",
    );
    assert.equal(told('{"A":1,"Inner":{"Wait":"bad"}}'), "a bad wait");
    assert.equal(
      told('{"A":1,"Inner":{"Wait":"bad","N":"x"}}'),
      "json: cannot unmarshal string into Go struct field Outer.Inner.N of type int",
    );
    assert.equal(told('{"A":1,"Inner":{"N":1,"Foo":2}}'), 'json: unknown field "Foo"');
    assert.equal(told('{"A":"x","second":1}'), number);
    assert.equal(told('{"A":"x","second":"y","Inner":null}'), "");
    assert.equal(decodeGo(Buffer.from('{"A":"x","second":"y"}'), outer).A, "x");
    assert.equal(decodeGo(Buffer.from('{"second":"y","A":""}'), outer).A, "y");
  });

  it("keeps with `null` the value of an equal key before, and does not take it for a list or a map", () => {
    const type = goStruct<{
      readonly A: string;
      readonly L: readonly string[];
      readonly M: Readonly<Record<string, string>>;
    }>("x.T", { A: goString, L: goList(goString), M: goMap(goString) });
    const read = (text: string): unknown => decodeGo(Buffer.from(text), type);
    assert.deepEqual(read('{"A":"x","A":null,"L":["a"],"L":null,"M":{"a":"b"},"M":null}'), { A: "x", L: [], M: {} });
    assert.deepEqual(read('{"M":{"a":"b","c":"d"},"m":{"c":"e"}}'), { A: "", L: [], M: { a: "b", c: "e" } });
  });

  it("as deep as it may be, a value is read", () => {
    for (const [open, inner, close] of [
      ["[", "", "]"],
      ["[", "1", "]"],
      ['{"a":', '"x"', "}"],
      ['{"a":', "{}", "}"],
    ] as const) {
      const depth = inner === "{}" ? 499 : 500;
      readWholeValue(bytes(open.repeat(depth) + inner + close.repeat(depth)));
    }
  });

  it("a whole value is one and no more", () => {
    assert.equal(readWholeValue(bytes(" true\n")), true);
    for (const [text, why, offset] of [
      ["", "unexpected end of JSON input", 0],
      [" {", "unexpected end of JSON input", 2],
      ["{} x", "invalid character 'x' after top-level value", 3],
      ['{"\u00e9": x}', "invalid character 'x' looking for beginning of value", 7],
      ["[".repeat(1_000), "invalid character '[' exceeded max depth", 500],
      ["[".repeat(501) + "]".repeat(501), "invalid character '[' exceeded max depth", 500],
      ['{"a":'.repeat(1_000), "invalid character '{' exceeded max depth", 2_500],
      ['[{"a":'.repeat(1_000), "invalid character '[' exceeded max depth", 1_500],
    ] as const) {
      assert.throws(() => readWholeValue(bytes(text)), { name: "GoJsonError", message: why, offset }, text);
    }
  });
});

describe("equal keys", () => {
  const inner = goStruct<{ readonly Meta: Readonly<Record<string, string>> }>("api.Inner", { Meta: goMap(goString) });
  const outer = goStruct<{ readonly Inner: { readonly Meta: Readonly<Record<string, string>> } }>("api.Outer", {
    Inner: inner,
  });
  const members = (count: number): string => Array.from({ length: count }, (_, index) => `"k${index}":"v"`).join(",");

  it("fill in one map, with the last value of each", () => {
    const text = '{"Inner":{"Meta":{"a":"1","b":"1"}},"Inner":{"Meta":{"b":"2","__proto__":"3"}}}';
    assert.deepEqual(
      Object.entries(decodeGo(bytes(text), outer).Inner.Meta),
      Object.entries({ a: "1", b: "2", ["__proto__"]: "3" }),
    );
  });

  it("take a time that grows with the text, however large the map is", () =>
    assertLinear({
      size: 500,
      prepare: async (size) => bytes(`{"Inner":{"Meta":{${members(size)}}}${',"Inner":{"Meta":{}}'.repeat(size)}}`),
      steps: { read: (body) => decodeGo(body, outer) },
    }));
});

describe("long JSON", () => {
  const record = goStruct<{ readonly A: string; readonly B: readonly string[] }>("api.Record", {
    A: goString,
    B: goList(goString),
  });
  const body = (count: number): Uint8Array =>
    bytes(JSON.stringify(Array.from({ length: count }, (_, index) => ({ A: `a${index}`, B: ["b", "c"] }))));

  /** How many steps there are, and what comes of them. */
  function counted<Result>(work: Steps<Result>): { readonly steps: number; readonly result: Result } {
    for (let steps = 1; ; steps++) {
      const step = work.next();
      if (step.done === true) return { steps, result: step.value };
    }
  }

  for (const [name, work] of Object.entries({
    parsed: (count: number): Steps<unknown> => firstValueSteps(body(count)),
    read: (count: number): Steps<unknown> => readGoSteps(readFirstValue(body(count)), goList(record)),
  })) {
    it(`is ${name} in steps, of which there are more where it is longer`, () => {
      assert.equal(counted(work(10)).steps, 1);
      const few = counted(work(8_000)).steps;
      assert.ok(few >= 4, `${few} steps`);
      const many = counted(work(16_000)).steps;
      assert.ok(many >= 2 * few - 2, `${few} and ${many} steps`);
    });
  }

  it("is the same in steps and at once", () => {
    const { result } = counted(decodeGoSteps(body(8_000), goList(record)));
    assert.deepEqual(result, decodeGo(body(8_000), goList(record)));
    assert.deepEqual(result[7_999], { A: "a7999", B: ["b", "c"] });
  });

  it("counts the characters of its strings", () => {
    const texts = Array.from({ length: 100 }, () => "x".repeat(100_000));
    const { steps } = counted(firstValueSteps(bytes(JSON.stringify(texts))));
    assert.ok(steps >= 5, `${steps} steps`);
  });
});
