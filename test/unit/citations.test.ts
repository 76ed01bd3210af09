import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { describe, it } from "node:test";
import { citations, writtenFiles } from "../support/citations.js";

const files = writtenFiles();

/** Numbers that have a heading in `page`: `## D-n: text`. */
function defined(page: string, prefix: string): readonly string[] {
  const headings = readFileSync(page, "utf8").matchAll(new RegExp(`^##+ (${prefix}\\d+): .`, "gm"));
  return [...headings].map(([, number = ""]) => number);
}

describe("docs/deviations.md", () => {
  const page = "docs/deviations.md";
  const numbers = defined(page, "D-");
  const cited = citations(
    files.filter((file) => file !== page),
    /\bD-\d+\b/g,
  );

  it("defines each number that is cited, once", () => {
    assert.ok(cited.size > 30, "citations are found");
    assert.deepEqual(numbers, [...new Set(numbers)]);
    assert.deepEqual(
      [...cited].filter(([number]) => !numbers.includes(number)),
      [],
    );
    const inPage = citations([page], /\bD-\d+\b/g);
    assert.deepEqual(
      [...inPage.keys()].filter((number) => !numbers.includes(number)),
      [],
    );
  });

  it("defines no number that no code cites", () => {
    const inCode = citations(
      files.filter((file) => file.endsWith(".ts")),
      /\bD-\d+\b/g,
    );
    assert.deepEqual(
      numbers.filter((number) => !inCode.has(number)),
      [],
    );
  });
});

describe("docs/invariants.md", () => {
  const page = "docs/invariants.md";
  const numbers = defined(page, "[IL]");
  const inSimulator = files.filter((file) => file.startsWith("src/testing/simulator/"));
  const cited = citations(
    [...inSimulator, ...files.filter((file) => /^(?:src\/host|test)\/.*\.ts$/.test(file))],
    // Neither "L4" and "L7" of networks, nor a type parameter.
    /\b(?:I[1-9]\d?|L[1-9])\b(?! intention| protocol)/g,
  );

  it("has one paragraph for each number that is cited", () => {
    assert.ok(cited.size > 30, "citations are found");
    assert.deepEqual(numbers, [...new Set(numbers)]);
    assert.deepEqual(
      [...cited].filter(([number]) => !numbers.includes(number)),
      [],
    );
  });

  it("has no paragraph that the simulator does not cite", () => {
    const inCode = citations(inSimulator, /\b(?:I[1-9]\d?|L[1-9])\b/g);
    assert.deepEqual(
      numbers.filter((number) => !inCode.has(number)),
      [],
    );
  });
});

describe("texts outside of the repository", () => {
  // "hostname specification" and "the gRPC specification" are no citations.
  const outside =
    /\b[Ss]pecifications?[\s*/]+(?:[Cc]hapter )?\d|§ ?\d|\b[Cc]hapter \d+, section|\bDEV-\d|\bQ-\d|\bch\d (?:§|\d+\.\d)/g;

  it("are cited nowhere", () => {
    const cited = citations(
      files.filter((file) => file !== "test/unit/citations.test.ts"),
      outside,
    );
    assert.deepEqual([...cited], []);
  });

  it("are not pages that do not exist", () => {
    const pages = citations(files, /\bdocs\/[\w-]+\.md\b/g);
    assert.ok(pages.size > 5);
    assert.deepEqual(
      [...pages].filter(([page]) => !existsSync(page)),
      [],
    );
  });
});
