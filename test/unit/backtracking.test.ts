// The patterns in the source are matched against texts of strangers: none may take as long as the square of a text's length.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import ts from "typescript";

const SIZE = 4_000;
const FACTOR = 4;
/** Linear is 4 times as long, quadratic 16 times. */
const MOST = 9;
/** Milliseconds of the processor at the smaller size below which a pattern is not looked at more closely. */
const LEAST = 1;
const TRIES = 3;
const LONGEST_BEGINNING = 40;

interface Pattern {
  readonly place: string;
  readonly source: string;
  readonly flags: string;
}

function patternsIn(file: string): readonly Pattern[] {
  const tree = ts.createSourceFile(file, readFileSync(new URL(file, SOURCE), "utf8"), ts.ScriptTarget.Latest);
  const found: Pattern[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isRegularExpressionLiteral(node)) {
      const end = node.text.lastIndexOf("/");
      const { line } = tree.getLineAndCharacterOfPosition(node.pos);
      found.push({
        place: `src/${file}:${line + 1}`,
        source: node.text.slice(1, end),
        flags: node.text.slice(end + 1),
      });
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return found;
}

/** Beside this file: compiled code where this is compiled. */
const SOURCE = new URL("../../src/", import.meta.url);

const files = readdirSync(SOURCE, { recursive: true, encoding: "utf8" }).filter(
  (name) => /(?<!\.d)\.[jt]s$/.test(name) && !/^(?:wire\/gen|testing)\//.test(name),
);

const pumps = [
  "a",
  "A",
  "0",
  "-",
  "_",
  ".",
  "/",
  " ",
  "\t",
  "\n",
  '"',
  "\\",
  "%",
  "=",
  ",",
  ":",
  "é",
  "a.",
  "0.",
  "a0",
  ". ",
  "\r\n",
];

/** Texts that match a pattern up to one of its repetitions: many of them may be as many beginnings of a match. */
function* beginnings({ source }: Pattern): Generator<string> {
  const letter = source.replace(/\\[dDsSwW]|\[(?:\\.|[^\]])*\]/g, "a");
  for (const { index } of letter.matchAll(/[*+]/g)) {
    const text = letter.slice(0, index).replace(/\(\?[:=!]|\(\?<[=!]|\\[bB\d]|\\|[\^$()[\]?*+|{}]/g, "");
    if (text.length > 1 && text.length < LONGEST_BEGINNING) yield text;
  }
}

/** Texts of about a size that make a pattern try many ways, where it has them. */
function* texts(pattern: Pattern, size: number): Generator<string> {
  const { source } = pattern;
  const literals = new Set(source.replace(/\\[a-zA-Z]|[\^$()[\]?*+|{}\\]/g, ""));
  const several = [...literals].slice(0, 8);
  const begun = [...beginnings(pattern)].slice(0, 4);
  for (const pump of new Set([...pumps, ...several, ...several.map((each) => `a${each}`), ...begun])) {
    // Of longer ones more are needed.
    const length = begun.includes(pump) ? 10 * size : size;
    for (const before of ["", "#", ...several.slice(0, 2)]) {
      for (const after of ["\u0001", ""]) yield before + pump.repeat(length / pump.length) + after;
    }
  }
}

/** Milliseconds of the processor. */
function timeOf(pattern: Pattern, text: string): number {
  const expression = new RegExp(pattern.source, pattern.flags);
  const before = process.cpuUsage();
  if (expression.global) text.replace(expression, "");
  else expression.test(text);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

function fastest(pattern: Pattern, text: string): number {
  return Math.min(...Array.from({ length: TRIES }, () => timeOf(pattern, text)));
}

function isTooSteep(pattern: Pattern, index: number, text: string): boolean {
  if (timeOf(pattern, text) < LEAST) return false;
  const small = fastest(pattern, text);
  if (small < LEAST) return false;
  const [large = ""] = [...texts(pattern, FACTOR * SIZE)].slice(index, index + 1);
  return fastest(pattern, large) > MOST * small;
}

describe("the patterns in the source", { timeout: 120_000 }, () => {
  const patterns = files.flatMap(patternsIn).filter(({ source }) => /[*+{]/.test(source));

  it("are matched in a time that grows with the text", () => {
    assert.ok(patterns.length > 100, `${patterns.length} patterns`);
    const steep = patterns.filter((pattern) =>
      [...texts(pattern, SIZE)].some((text, index) => isTooSteep(pattern, index, text)),
    );
    assert.deepEqual(
      steep.map(({ place, source }) => `${place} ${source}`),
      [],
    );
  });

  it("are found too steep where they are", () => {
    for (const source of [
      "-----BEGIN ([^\\r\\n-]+)-----[\\s\\S]*?-----END \\1-----",
      "0+$",
      "^(?:\\d+\\.?\\d*|\\.\\d+)$",
      "^([ \\t]*)(.*?)([ \\t]*)$",
    ]) {
      const pattern = { place: "", source, flags: "s" };
      const found = [...texts(pattern, SIZE)].some((text, index) => isTooSteep(pattern, index, text));
      assert.ok(found, source);
    }
  });
});
