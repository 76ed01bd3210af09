import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { coreCases, mentionedCases } from "../support/cases.js";

const rows = [...readFileSync("test/CASES.md", "utf8").matchAll(/^\| (ch\d \w+) \| (.+) \|$/gm)].map(
  ([, name = "", text = ""]) => ({ name, text }),
);

/** Paths of a row that is nothing but paths; a row with words in it gives a reason instead. */
function provingFiles(text: string): readonly string[] {
  return /^`[^`]+`(?:, `[^`]+`)*$/.test(text) ? [...text.matchAll(/`([^`]+)`/g)].map(([, path = ""]) => path) : [];
}

describe("test/CASES.md", () => {
  it("has each case once", () => {
    assert.deepEqual(
      rows.map(({ name }) => name),
      coreCases(),
    );
  });

  it("names files that are there and name the case", () => {
    const wrong: string[] = [];
    const mentions = new Map<string, ReadonlySet<string>>();
    for (const { name, text } of rows) {
      for (const file of provingFiles(text)) {
        const known = mentions.get(file) ?? mentionedCases(existsSync(file) ? readFileSync(file, "utf8") : "");
        mentions.set(file, known);
        if (!known.has(name)) wrong.push(`${name}: ${file}`);
      }
    }
    assert.deepEqual(wrong, []);
    assert.ok(mentions.size > 20);
  });

  it("gives a reason where there is no test", () => {
    const unproven = rows.filter(({ text }) => provingFiles(text).length === 0);
    const reasons = /later issue|by construction|the same as ch\d|does not apply|as a property/;
    assert.deepEqual(
      unproven.filter(({ text }) => !reasons.test(text)).map(({ name }) => name),
      [],
    );
    assert.ok(unproven.length < 20, "most cases are proven");
  });
});
