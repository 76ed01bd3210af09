import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { HilError, parseHil } from "../../../src/syntax/hil.js";
import { compileHil } from "../../../src/syntax/hil-evaluation.js";
import { readGolden } from "../../golden/read.js";

const matches = ["geo-1", "1", "x"];
const scope = {
  variables: new Map([
    ["name.full", "geo-1"],
    ["name.prefix", "geo-"],
    ["name.suffix", "1"],
    ["agent.segment", ""],
  ]),
  functions: new Map([["match", (index: bigint) => matches[Number(index)] ?? ""]]),
};

/** As the recording has it: `ok` and the text, else when it failed, and why. */
function outcome(text: string): readonly [string, string] {
  let stage = "bad";
  try {
    const node = parseHil(text);
    stage = "eval";
    return ["ok", compileHil(node, scope)(scope)];
  } catch (error) {
    assert.ok(error instanceof HilError, String(error));
    return [stage, error.message];
  }
}

describe("HIL", () => {
  // The result of hashicorp/hil of Consul 1.21.4 for each text, with the same variables and function.
  it("gives the texts, and refuses with the words, of HashiCorp's own", () => {
    const recorded = readGolden("hil.jsonl").trim().split("\n");
    const seen = new Set<string>();
    for (const line of recorded) {
      const [text, stage, result]: [string, string, string] = JSON.parse(line);
      assert.deepEqual(outcome(text), [stage, result], text);
      seen.add(stage);
    }
    assert.ok(recorded.length > 400);
    assert.deepEqual([...seen].sort(), ["bad", "eval", "ok"]);
  });

  it("is computed again and again with other values", () => {
    const program = compileHil(parseHil(`\${"<\${name.full}>"}\${1 + 2}`), scope);
    assert.equal(program(scope), "<geo-1>3");
    assert.equal(program({ ...scope, variables: new Map([["name.full", "other"]]) }), "<other>3");
  });

  it("converts texts to numbers and truth values as Go does", () => {
    const value = (text: string): string => outcome(`\${${text}}`).join(" ");
    assert.equal(value('"0x10" + 0'), "ok 16");
    assert.equal(value('"010" + 0'), "ok 8");
    assert.equal(value('"-5" + 0'), "ok -5");
    assert.equal(value('"1_000" + 0'), "ok 1000");
    assert.equal(value('"2.5e1" + 0.5'), "ok 25.5");
    assert.equal(value('!"t"'), "ok false");
    assert.match(value('"9223372036854775808" + 0'), /value out of range$/);
    assert.match(value('"08" + 0'), /invalid syntax$/);
    assert.match(value('"x" ? 1 : 2'), /strconv.ParseBool: parsing "x": invalid syntax$/);
    assert.match(value('"x" + 0.5'), /strconv.ParseFloat: parsing "x": invalid syntax$/);
  });

  it("is refused before it nests so deeply that the stack ends", () => {
    for (const [open, close] of [
      ["(", ")"],
      ["-", ""],
      ["match(", ")"],
      [`"\${`, '}"'],
      ["1 ? ", " : 2"],
    ] as const) {
      const nested = `\${${open.repeat(100_000)}1${close.repeat(100_000)}}`;
      assert.match(outcome(nested)[1], /nests too deeply$/, open);
      assert.equal(outcome(`\${${open.repeat(20)}1${close.repeat(20)}}`)[1].includes("nests"), false, open);
    }
  });
});
