import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { mentionedCases, provesCases, readCases } from "../support/cases.js";
import { writtenFiles } from "../support/citations.js";

const rows = readCases();

/** Paths of a proof that is nothing but paths; one with words in it gives a reason instead. */
function provingFiles(proof: string): readonly string[] {
  return /^`[^`]+`(?:, `[^`]+`)*$/.test(proof) ? [...proof.matchAll(/`([^`]+)`/g)].map(([, path = ""]) => path) : [];
}

describe("test/CASES.md", () => {
  it("has each case once, with a text", () => {
    const names = rows.map(({ name }) => name);
    assert.deepEqual(names, [...new Set(names)]);
    assert.ok(names.length > 350);
    assert.deepEqual(
      rows.filter(({ text }) => !/^[A-Z`0-9].{15,}\.$/.test(text)).map(({ name }) => name),
      [],
    );
  });

  it("has every case that a test names", () => {
    const known = new Set(rows.map(({ name }) => name));
    const proofs = writtenFiles().filter(provesCases);
    for (const kind of [/^test\//, /^interop\/scenarios\//, /^src\/testing\//]) {
      assert.ok(
        proofs.some((file) => kind.test(file) && mentionedCases(readFileSync(file, "utf8")).size > 0),
        `${kind} names cases`,
      );
    }
    const unknown = proofs
      .flatMap((file) => [...mentionedCases(readFileSync(file, "utf8"))].map((name) => ({ file, name })))
      .filter(({ name }) => !known.has(name));
    assert.deepEqual(unknown, []);
  });

  it("names files that are there and name the case", () => {
    const wrong: string[] = [];
    const mentions = new Map<string, ReadonlySet<string>>();
    for (const { name, proof } of rows) {
      for (const file of provingFiles(proof)) {
        const known = mentions.get(file) ?? mentionedCases(existsSync(file) ? readFileSync(file, "utf8") : "");
        mentions.set(file, known);
        if (!known.has(name)) wrong.push(`${name}: ${file}`);
      }
    }
    assert.deepEqual(wrong, []);
    assert.ok(mentions.size > 20);
  });

  it("gives a reason where there is no test", () => {
    const unproven = rows.filter(({ proof }) => provingFiles(proof).length === 0);
    const reasons = /not built yet|by construction|the same as ch\d|does not apply|as a property/;
    assert.deepEqual(
      unproven.filter(({ proof }) => !reasons.test(proof)).map(({ name }) => name),
      [],
    );
    assert.ok(unproven.length < 20, "most cases are proven");
  });
});

describe("tests", () => {
  it("name their behaviour first, and the case behind it in brackets", () => {
    const named = writtenFiles()
      .filter((file) => file.endsWith(".test.ts"))
      .flatMap((file) => {
        const names = readFileSync(file, "utf8").matchAll(
          /\b(?:it|test|describe)\(\s*["`]((?:ch\d|D-\d|[A-Z]{1,3}\d+).*)/g,
        );
        return [...names].map(([, name = ""]) => ({ file, name }));
      })
      .filter(({ name }) => /^(?:ch\d cases? \d|D-\d|(?:CL|HT|LC|RPC|ST|TOK|I|L)\d+\b)/.test(name));
    assert.deepEqual(named, []);
  });
});
