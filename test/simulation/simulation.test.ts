import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { simulate } from "../../src/testing/index.js";

/** Small enough for every change; `npm run simulate -- --runs 2000` looks further. */
const SEEDS = 120;

describe("simulated worlds of two to five hosts", () => {
  it("ch3 case 99: the invariants hold at every step, and when the faults stop everything exported is imported", async () => {
    const counts = new Map<string, number>();
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { failures, counts: seen } = await simulate({ seed });
      assert.deepEqual(failures, [], `replay with: npm run simulate -- --seed ${seed}`);
      for (const [kind, count] of Object.entries(seen)) counts.set(kind, (counts.get(kind) ?? 0) + count);
    }
    // The seeds together must go through every kind of trouble, else they prove less than they seem to.
    for (const kind of [
      "crash",
      "crash-before-commit",
      "crash-after-commit",
      "commit-failed",
      "cut",
      "half-open",
      "partition",
      "slow-reader",
      "lagging-disk",
      "failing-disk",
      "rotate",
      "delete",
      "sent-terminated",
    ]) {
      assert.ok((counts.get(kind) ?? 0) > 0, `no run had: ${kind}`);
    }
  });

  it("replays byte for byte: one seed, one trace", async () => {
    for (const seed of [3, 17, 58]) {
      const first = await simulate({ seed });
      const again = await simulate({ seed });
      assert.deepEqual(again.trace, first.trace);
      assert.equal(again.digest, first.digest);
      const other = await simulate({ seed: seed + 1 });
      assert.notEqual(other.digest, first.digest);
    }
  });

  it("takes any number of hosts from two to five", async () => {
    for (const hosts of [2, 3, 4, 5]) {
      const { failures, trace } = await simulate({ seed: 1_000 + hosts, hosts, steps: 30 });
      assert.deepEqual(failures, []);
      assert.ok(trace.some((line) => line.endsWith(`h${hosts - 1} is up`)));
    }
    await assert.rejects(simulate({ seed: 1, hosts: 6 }), TypeError);
  });
});
