import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { dirname, extname, join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { simulate } from "../../src/testing/index.js";

/** Small enough for every change; `npm run simulate -- --runs 2000` looks further. */
const SEEDS = 100;

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
      "commit-lost",
      "commit-unanswered",
      "leadership",
      "frozen-long",
      "burst",
      "replace",
      "script-nack-everything",
      "script-terminated-after-open",
      "script-hot-loop",
      "script-nonsense",
      "script-dropping-acceptor",
      "epilogue-acceptor deletes",
      "epilogue-dialer deletes",
      "epilogue-both delete",
      "epilogue-a delete into silence",
      "epilogue-restart",
      "epilogue-silence",
      "epilogue-rotate",
      "epilogue-terminated right after Open",
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

  it("replays in another process, at another pace: `npm run simulate -- --seed N` prints the same trace", async () => {
    const own = fileURLToPath(import.meta.url);
    const program = join(dirname(own), `simulate${extname(own)}`);
    const loader = process.execArgv.filter((argument) => !argument.startsWith("--test"));
    const ran = spawnSync(process.execPath, [...loader, program, "--seed", "5"], { encoding: "utf8" });
    const lines = ran.stdout.trimEnd().split("\n");
    const last = lines.pop() ?? "";
    // Turns of the event loop that have nothing to do with the run, such as a busy process has.
    const other = setInterval(() => {}, 1);
    const { trace, digest } = await simulate({ seed: 5 });
    clearInterval(other);
    assert.equal(ran.status, 0, ran.stderr);
    assert.deepEqual(lines, trace);
    assert.match(last, new RegExp(digest));
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
