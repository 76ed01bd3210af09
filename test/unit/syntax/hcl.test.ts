import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { HclBody, HclError, parseHcl, parseHclBody } from "../../../src/syntax/hcl.js";

const INTERPOLATION = `$${"{"}f("y", {z})}`;

const parsed: readonly (readonly [string, string, unknown])[] = [
  ["nothing", " \n# only a comment", {}],
  ["values", 'a = "x"\nb = 1\nc = true\nd = false', { a: "x", b: 1, c: true, d: false }],
  ["numbers", "a = -3\nb = 0x1F\nc = 1.5e3\nd = 010\ne = 0", { a: -3, b: 31, c: 1500, d: 8, e: 0 }],
  ["all comments", "a = 1 # x\n// y\n/* z\n= */ b = 2", { a: 1, b: 2 }],
  ["escapes", String.raw`a = "\"\\\n\t\u00e9\U0001F600\x41\101"`, { a: '"\\\n\t\u00e9\u{1F600}AA' }],
  ["characters of several escapes", String.raw`a = "\xc3\xa9\303\251"`, { a: "\u00e9\u00e9" }],
  ["quotes inside of an interpolation", `a = "x ${INTERPOLATION} w"`, { a: `x ${INTERPOLATION} w` }],
  ["lists, with a comma at the end or none", 'a = ["x", 1,\n true,]\nb = []', { a: ["x", 1, true], b: [] }],
  ["objects", "a = { b = { c = 1 }, d = 2 }", { a: { b: { c: 1 }, d: 2 } }],
  ["an empty object", "a = {}", { a: {} }],
  ["blocks", "a { b = 1 }", { a: { b: 1 } }],
  ["a block given twice", "a { b = 1 }\na { b = 2 }", { a: [{ b: 1 }, { b: 2 }] }],
  [
    "labels",
    'service "web" { policy = "read" }\nservice "db" { policy = "write" }',
    { service: { web: { policy: "read" }, db: { policy: "write" } } },
  ],
  ["a label given twice", 'a "x" { b = 1 }\na "x" { b = 2 }', { a: { x: [{ b: 1 }, { b: 2 }] } }],
  ["a value given twice: the last", "a = 1\na = 2", { a: 2 }],
  ["keys in quotes, with dashes and dots", '"a b" = 1\nc-d.e = 2', { "a b": 1, "c-d.e": 2 }],
  [
    "keys that are special elsewhere",
    "__proto__ = 1\nconstructor { a = 1 }",
    JSON.parse('{"__proto__":1,"constructor":{"a":1}}'),
  ],
  ["a heredoc", "a = <<EOF\nx\n  y\nEOF\nb = 1", { a: "x\n  y\n", b: 1 }],
  ["an indented heredoc", "a = <<-EOF\n    x\n\n      y\n    EOF\n", { a: "x\n\n  y\n" }],
  ["JSON", ' {"a": [1, {"b": null}]}', { a: [1, { b: null }] }],
  ["items on one line", 'a { b = "x" c = "y" }', { a: { b: "x", c: "y" } }],
  ["carriage returns", "a = 1\r\nb {\r\n c = 2\r\n}\r\n", { a: 1, b: { c: 2 } }],
];

const refused: readonly (readonly [string, string, string | RegExp])[] = [
  ["a value instead of a key", "= 1", 'At 1:1: unexpected token "=", expected a key'],
  ["an assignment of nothing", "a =", "At 1:4: an assignment needs a value"],
  ["a second assignment", 'Kind = "mesh" = 2', 'At 1:15: unexpected token "=", expected a key'],
  ["a key alone", "a", "At 1:2: key \"a\" needs '=' or '{', got EOF"],
  ["a text that does not end", 'x = 1\na = "b\n', "At 2:5: literal not terminated"],
  ["an object that does not end", "a {\n b = 1", "At 2:7: object expected closing RBRACE got: EOF"],
  ["a list that does not end", "a = [1", "At 1:7: error parsing list, expected comma or list end, got EOF"],
  ["a list without commas", "a = [1 2]", 'At 1:8: error parsing list, expected comma or list end, got "2"'],
  ["a comment that does not end", "/* a", "At 1:1: comment not terminated"],
  ["a heredoc that does not end", "a = <<EOF\nx", "At 1:5: heredoc not terminated"],
  ["an invalid escape", String.raw`a = "\q"`, "At 1:6: illegal char escape"],
  ["a character beyond all", String.raw`a = "\UFFFFFFFF"`, "At 1:6: illegal char escape"],
  ["half a character", String.raw`a = "\ud800"`, "At 1:6: illegal char escape"],
  ["an octal number that is no byte", String.raw`a = "\777"`, "At 1:6: illegal char escape"],
  ["a character of no meaning", "a = ;", 'At 1:5: illegal character ";"'],
  ["a bare word", "a = b", 'At 1:5: unexpected token "b", expected a value'],
  ["labels in front of an assignment", 'a "b" = 1', "At 1:7: only one key may stand in front of an assignment"],
  ["endless nesting", "a { ".repeat(10_000), /more than 200 levels of nesting$/],
  ["endless labels", `a ${'"b" '.repeat(10_000)}{}`, /more than 200 levels of nesting$/],
  ["labels in nested blocks", `${'a "b" "c" { '.repeat(67)}${"}".repeat(67)}`, /more than 200 levels of nesting$/],
  ["broken JSON", '{"a":\n "b",}', "At 2:6: invalid character '}' looking for beginning of object key string"],
  ["half of a JSON object", '{"a":', "At 1:6: unexpected end of JSON input"],
];

describe("HCL", () => {
  for (const [what, text, expected] of parsed) {
    it(`reads ${what}`, () => assert.deepEqual(parseHcl(text), expected));
  }
  for (const [what, text, expected] of refused) {
    it(`refuses ${what}, with its position`, () => {
      assert.throws(
        () => parseHcl(text),
        (error) =>
          error instanceof HclError &&
          (typeof expected === "string" ? error.message === expected : expected.test(error.message)),
      );
    });
  }

  it("reads a config entry as Consul's documentation writes it", () => {
    const text = `Kind = "exported-services"
Name = "default"
Services = [ { Name = "web", Consumers = [ { Peer = "b-peer" } ] } ]`;
    assert.deepEqual(parseHcl(text), {
      Kind: "exported-services",
      Name: "default",
      Services: [{ Name: "web", Consumers: [{ Peer: "b-peer" }] }],
    });
  });

  it("reads any JSON value that is written as HCL", () => {
    const key = fc.string({ minLength: 1 }).filter((text) => !text.includes("$"));
    const scalar = fc.oneof(
      fc.string().filter((text) => !text.includes("$")),
      fc.integer(),
      fc.boolean(),
    );
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof({ maxDepth: 4 }, scalar, tie("list"), tie("object")),
      list: fc.array(tie("value"), { maxLength: 4 }),
      object: fc.dictionary(key, tie("value"), { maxKeys: 4 }),
    }));
    const text = (each: unknown): string => {
      // JSON's escapes are HCL's, but for these two.
      if (typeof each === "string") return JSON.stringify(each).replaceAll("\u2028", "\\u2028");
      if (Array.isArray(each)) return `[${each.map(text).join(", ")}]`;
      if (typeof each === "object" && each !== null) return `{ ${members(each)} }`;
      return String(each);
    };
    const members = (object: object): string =>
      Object.entries(object)
        .map(([name, each]) => `${JSON.stringify(name)} = ${text(each)}`)
        .join("\n");
    fc.assert(
      fc.property(value, (each) => {
        assert.deepEqual(JSON.stringify(parseHcl(`value = ${text(each)}`)), JSON.stringify({ value: each }));
      }),
    );
  });

  it("tells the line of each item, in HCL and in JSON", () => {
    const lines = (text: string): unknown => {
      const walk = ({ items }: HclBody): unknown =>
        items.map(({ keys, line, value }) => [
          keys.join(" "),
          line,
          ...(value instanceof HclBody ? [walk(value)] : []),
        ]);
      return walk(parseHclBody(text));
    };
    assert.deepEqual(lines('# x\na = 1\nb "c" {\n\n d = <<E\nx\nE\n e = 2\n}\nf = "\u00e9"'), [
      ["a", 2],
      [
        "b c",
        3,
        [
          ["d", 5],
          ["e", 8],
        ],
      ],
      ["f", 10],
    ]);
    assert.deepEqual(lines('{\n"a": "\u00e9",\n\n"b": {"c": 1,\n"d": 2}, "e": 3}'), [
      ["a", 2],
      [
        "b",
        4,
        [
          ["c", 4],
          ["d", 5],
        ],
      ],
      ["e", 5],
    ]);
  });

  it("takes any text, or refuses it", () => {
    const fragment = fc.constantFrom(
      "a",
      '"',
      "{",
      "}",
      "[",
      "]",
      "=",
      ",",
      "<<E\n",
      "E\n",
      "\n",
      "#",
      "/*",
      "\\",
      "${",
      "1",
      " ",
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(fragment).map((parts) => parts.join("")),
        ),
        (text) => {
          try {
            parseHcl(text);
          } catch (error) {
            assert.ok(error instanceof HclError, String(error));
          }
        },
      ),
    );
  });
});
