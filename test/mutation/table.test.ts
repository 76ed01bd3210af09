import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { occurrences, readSource } from "./plant.js";
import { cells, mutants, TABLE_TEST, tripwire } from "./table.js";
import { Workshop } from "./workshop.js";

/** `npm run mutate:table` changes them all. */
const SAMPLE = 3;
const FOLDERS = ["test/unit", "test/support", "test/simulation"];

describe("changes of the table of the state machine", () => {
  it("are made of every cell but those that say why not", () => {
    const changed = new Set(mutants().map(({ event, column, role }) => `${event}/${column}/${role}`));
    for (const { event, column, role, cell } of cells()) {
      const why = cell.unreachable ?? cell.redundant;
      // The type of what is only seen leaves nothing else to be written into an empty cell.
      const isFixed = cell.outcome === "unchanged" && cell.effects.length === 0 && event === "establish-failed";
      const name = `${event}/${column}/${role}`;
      assert.equal(changed.has(name), why === undefined && !isFixed, name);
    }
  });

  it("fit the source", () => {
    for (const { edits, name } of [tripwire, ...mutants().map(({ fault }) => fault)]) {
      for (const edit of edits) assert.equal(occurrences(edit, readSource(edit.file)), 1, name);
    }
  });

  it("are found by a host: a sample of them; and no host reaches the cells that say so", async () => {
    await using workshop = await Workshop.open({ seeds: 3, folders: FOLDERS });
    await workshop.baseline(TABLE_TEST);
    const all = mutants();
    const survivors: string[] = [];
    for (let index = 0; index < SAMPLE; index++) {
      const mutant = all[Math.floor(((index + 0.5) * all.length) / SAMPLE)];
      assert.ok(mutant !== undefined);
      const findings = await workshop.judge(mutant.fault);
      if (!findings.some(({ found }) => found)) survivors.push(mutant.fault.name);
    }
    assert.deepEqual(survivors, []);
    const reached = await workshop.judge({ ...tripwire, foundBy: [TABLE_TEST, "simulator"] });
    assert.deepEqual(
      reached.filter(({ found }) => found).map(({ check, how }) => `${check}: ${how}`),
      [],
    );
  });
});
