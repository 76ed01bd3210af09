import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { writtenFiles } from "../support/citations.js";

// CONTRIBUTING.md says why, and gives examples. A match is no reason to swap one word: say the sentence in another way.
const RIDDLES: readonly RegExp[] = [
  /\b(?:whoever|whomever|whosoever|anew|amid|amidst|upon|shall|herein|thereof|hereby|hitherto|heretofore)\b/i,
  /\bof whom\b|\bto nobody\b|\bthat (?:is|are) none\b(?! of)|\bwhat is none\b|\bwhat is no [a-z]/i,
  /\blet go of\b|\btold apart\b|\bsees to it\b|\bhad again\b|\bwhat there (?:is|was|are)\b|\bDefault: nobody\b/i,
  // A comment that begins with it makes its reader wait for the noun.
  /(?:\/\/|\*) What [^?]*$/,
  /\b(?:[Hh]e|[Hh]is|[Hh]im|[Hh]imself|[Ss]he)\b/,
];
/** They hold the list itself. */
const EXAMPLES: readonly string[] = ["CONTRIBUTING.md", "test/unit/plain-words.test.ts"];

it("comments, texts, pages and test names are in plain English", () => {
  const files = writtenFiles().filter((file) => !EXAMPLES.includes(file));
  assert.ok(files.length > 700, `${files.length} files`);
  const found = files.flatMap((file) =>
    readFileSync(file, "utf8")
      .split("\n")
      .flatMap((line, index) => {
        const [riddle] = RIDDLES.flatMap((each) => each.exec(line)?.[0] ?? []);
        return riddle === undefined ? [] : [`${file}:${index + 1}: ${riddle}`];
      }),
  );
  assert.deepEqual(found, []);
});
