import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { dirname, extname, join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { simulate } from "../../src/testing/index.js";

/** Small enough for every change; `npm run simulate -- --runs 2000` looks further. */
const SEEDS = 80;
const SEEDS_PER_TEST = 10;

/** Every kind of trouble that the seeds together must go through, else they prove less than they seem to. */
const KINDS = [
  "crash",
  "crash-before-commit",
  "crash-after-commit",
  "power-loss",
  "commit-failed",
  "commit-lost",
  "commit-unanswered",
  "another-process",
  "lagging-disk",
  "failing-disk",
  "cut",
  "half-open",
  "partition",
  "slow-reader",
  "move",
  "leadership",
  "frozen-long",
  "clock-set",
  "damage",
  "rotate",
  "burst",
  "delete",
  "replace",
  "observer",
  "register-proxy",
  "sent-terminated",
  "script-nack-everything",
  "script-terminated-after-open",
  "script-hot-loop",
  "script-nonsense",
  "script-dropping-acceptor",
  "script-near-miss",
  "script-deaf",
  "script-mute",
  "script-wrong-nonces",
  "script-two-streams",
  "script-order-matters",
  "script-two-faced",
  "script-usurped",
  "script-busy",
  "script-terminated-and-back",
  "script-deleted-while-establishing",
  "script-address-pusher",
  "scene-acceptor deletes",
  "scene-dialer deletes",
  "scene-both delete",
  "scene-a delete into silence",
  "scene-restart",
  "scene-silence",
  "scene-rotate",
  "scene-terminated right after Open",
  "scene-terminated while the disk fails",
  "scene-peered again during the cleanup",
  "scene-established by another process during the cleanup",
  "scene-cleanup without answers",
  "scene-the disk fails for a moment",
  "scene-a follower has to clean",
  "scene-a follower has to dial",
  "scene-deaf",
  "scene-wrong nonces",
  "scene-near-miss",
  "scene-two-faced",
  "scene-the mesh goes",
  "scene-what is sent again is damaged",
  "scene-what is not sent again is damaged",
];

describe("simulated worlds of two to five hosts", () => {
  const counts = new Map<string, number>();

  for (let first = 1; first <= SEEDS; first += SEEDS_PER_TEST) {
    const last = first + SEEDS_PER_TEST - 1;
    it(`the invariants hold at every step, and what is promised in peace comes true (seeds ${first} to ${last}) (ch3 case 99)`, async () => {
      for (let seed = first; seed <= last; seed++) {
        const { failures, counts: seen } = await simulate({ seed });
        assert.deepEqual(failures.slice(0, 3), [], `replay with: npm run simulate -- --seed ${seed}`);
        for (const [kind, count] of Object.entries(seen)) counts.set(kind, (counts.get(kind) ?? 0) + count);
      }
    });
  }

  it("go through every kind of trouble together", () => {
    const missing = KINDS.filter((kind) => (counts.get(kind) ?? 0) === 0);
    assert.deepEqual(missing, []);
  });

  it("replay byte for byte: one seed, one trace", async () => {
    for (const seed of [3, 17, 58]) {
      const first = await simulate({ seed });
      const again = await simulate({ seed });
      assert.deepEqual(again.trace, first.trace);
      assert.equal(again.digest, first.digest);
      const other = await simulate({ seed: seed + 1 });
      assert.notEqual(other.digest, first.digest);
    }
  });

  it("replay in another process, at another pace: `npm run simulate -- --seed N` prints the same trace", async () => {
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

  it("count a stream as accepted that is lost while it is judged: what came behind its Open is followed", async () => {
    const { failures, trace } = await simulate({ seed: 753 });
    const begun = trace.findIndex((line) => line.endsWith("script-busy x1 at h3"));
    const lost = trace.findIndex((line) => line.endsWith("cut x1:8503 h3:8503"));
    assert.ok(begun >= 0 && lost > begun, "the seed plays another world now: look for one in which this happens");
    assert.deepEqual(failures, []);
  });

  it("take any number of hosts from two to five", async () => {
    for (const hosts of [2, 3, 4, 5]) {
      const { failures, trace } = await simulate({ seed: 1_000 + hosts, hosts, steps: 30 });
      assert.deepEqual(failures, []);
      assert.ok(trace.some((line) => line.endsWith(`h${hosts - 1} is up`)));
    }
    await assert.rejects(simulate({ seed: 1, hosts: 6 }), TypeError);
  });
});

describe("a crash at a commit of the caller's choice", () => {
  /** A world in which each of two hosts gives tokens, establishes, imports, is told `Terminated`, deletes and cleans up. */
  const WORLD = { seed: 48, hosts: 2, steps: 60, scenes: 0 };
  /** Of each host, that many are tried: among them are all of these. */
  const COMMITS = 43;

  it("goes through what the comment on its world says", async () => {
    const { trace, counts } = await simulate(WORLD);
    const was = (what: string): boolean => trace.some((line) => new RegExp(`^\\S+ ${what}: done$`).test(line));
    for (const [host, peer] of [
      ["h0", "h1"],
      ["h1", "h0"],
    ]) {
      assert.ok(was(`peer ${host} dials ${peer}: .*`), `${host} establishes with a token of ${peer}`);
      assert.ok(was(`export ${peer} .*>${host}.*`), `${peer} exports to ${host}`);
      assert.ok(was(`delete ${host} ${peer}`), `${host} deletes ${peer}`);
    }
    assert.ok((counts["sent-terminated"] ?? 0) >= 2, "each is told");
  });

  for (const host of [0, 1]) {
    for (const when of ["before", "after"] as const) {
      it(`is survived ${when} each of the first ${COMMITS} commits of host ${host}`, async () => {
        let crashes = 0;
        for (let commit = 1; commit <= COMMITS; commit++) {
          const { failures, counts } = await simulate({ ...WORLD, crashAt: { host, commit, when } });
          assert.deepEqual(failures.slice(0, 3), [], `host ${host}, ${when} commit ${commit}`);
          crashes += counts["crash-at-commit"] ?? 0;
        }
        assert.equal(crashes, COMMITS);
      });
    }
  }
});
