import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { describe, it } from "node:test";
import { plantedFaults } from "./faults.js";
import { occurrences, plantedIn, readSource, transpiled } from "./plant.js";
import { Workshop } from "./workshop.js";

describe("the list of planted faults", () => {
  it("names each fault once, says what is wrong, and which check finds it", () => {
    const names = plantedFaults.map(({ name }) => name);
    assert.ok(names.length >= 40);
    assert.equal(new Set(names).size, names.length);
    for (const { name, what, edits, foundBy } of plantedFaults) {
      assert.match(name, /^[a-z0-9-]+$/);
      assert.ok(what.length > 10 && edits.length > 0 && foundBy.length > 0, name);
      for (const check of foundBy) assert.ok(check === "simulator" || existsSync(check), `${name}: no ${check}`);
    }
  });

  it("fits the source: each snippet is there exactly once", () => {
    const wrong = plantedFaults.flatMap(({ name, edits }) =>
      edits
        .filter((edit) => occurrences(edit, readSource(edit.file)) !== 1)
        .map((edit) => `${name}: ${occurrences(edit, readSource(edit.file))} times in ${edit.file}: ${edit.find}`),
    );
    assert.deepEqual(wrong, [], "the source has changed: adapt test/mutation/faults.ts");
  });

  it("plants code that can be run, and is another one", () => {
    const before = new Map<string, string>();
    for (const { name, edits } of plantedFaults) {
      for (const edit of edits) {
        const source = readSource(edit.file);
        const unchanged = before.get(edit.file) ?? transpiled(source, edit.file);
        before.set(edit.file, unchanged);
        assert.notEqual(transpiled(plantedIn(source, edit), edit.file), unchanged, name);
      }
    }
  });
});

/** Of each kind of guard one, so that the tool itself is known to work; `npm run mutate` plants them all. */
const SAMPLE = [
  "token-works-twice",
  "ack-before-commit",
  "nonce-reused",
  "cleanup-leaves-imports",
  "wildcard-intention",
];

describe("a sample of them", () => {
  it("is found by the checks that are named for them, which find nothing where there is nothing", async () => {
    await using workshop = await Workshop.open({ seeds: 3, folders: ["test/simulation", "test/unit/access"] });
    const faults = SAMPLE.flatMap((name) => plantedFaults.find((fault) => fault.name === name) ?? []);
    const checks = new Set(faults.flatMap(({ foundBy }) => foundBy));
    assert.deepEqual([faults.length, checks.size], [SAMPLE.length, 2]);
    for (const check of checks) await workshop.baseline(check);
    const survivors: string[] = [];
    for (const fault of faults) {
      const findings = await workshop.judge(fault);
      if (!findings.every(({ found }) => found)) survivors.push(fault.name);
    }
    assert.deepEqual(survivors, []);
  });
});
