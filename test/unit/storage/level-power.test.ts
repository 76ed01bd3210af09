import assert from "node:assert/strict";
import { chmodSync, cpSync, readdirSync, readlinkSync, rmSync, statSync, truncateSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { openLevel } from "../../../src/storage/level.js";
import type { Storage } from "../../../src/storage/storage.js";
import { batchPrototype } from "../../support/level.js";

async function withRoot(action: (root: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "peerage-power-"));
  try {
    await action(root);
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

function relaxed(storage: Storage, name: string, bytes = 1): Promise<bigint> {
  return storage.commit([{ key: [name], value: new Uint8Array(bytes) }], [], { durability: "relaxed" });
}

function newestLog(directory: string): string {
  const logs = readdirSync(directory).filter((name) => name.endsWith(".log"));
  return join(directory, logs.toSorted().at(-1) ?? "");
}

it("when the power goes after all revisions that were reserved, the next start goes on above them", () =>
  withRoot(async (root) => {
    const directory = join(root, "data");
    const copy = join(root, "copy");
    let given = 0n;
    {
      await using storage = await openLevel(directory);
      const first = await relaxed(storage, "first");
      cpSync(directory, copy, { recursive: true });
      // The one behind the last of them would be synced.
      await Promise.all(
        Array.from({ length: 10_000 }, async (_, index) => {
          given = await relaxed(storage, `${index}`);
        }),
      );
      assert.equal(given, first + 10_000n);
    }
    await using storage = await openLevel(copy);
    const { entries, revision } = await storage.read([]);
    assert.deepEqual(
      entries.map(({ key }) => key),
      [["first"]],
    );
    assert.ok(revision > given, "it was given with other content");
    assert.ok((await relaxed(storage, "next")) > revision);
  }));

it(
  "a log that the engine has left is synced before a commit in the next one is answered",
  { skip: process.platform !== "linux" },
  () =>
    withRoot(async (root) => {
      const synced = new Set<string>();
      const handle = await open(root);
      const prototype: { sync(): Promise<void> } = Object.getPrototypeOf(handle);
      await handle.close();
      const original = prototype.sync;
      prototype.sync = function (this: { readonly fd: number; sync(): Promise<void> }) {
        synced.add(basename(readlinkSync(`/proc/self/fd/${this.fd}`)));
        return original.call(this);
      };
      try {
        await using storage = await openLevel(join(root, "data"), { writeBufferBytes: 64 * 1024 });
        const logs = new Set<string>();
        for (let index = 0; index < 200; index++) {
          await relaxed(storage, `${index}`, 5_000);
          const present = readdirSync(join(root, "data"))
            .filter((name) => name.endsWith(".log"))
            .toSorted();
          const left = [...present, ...logs].filter((name) => name !== present.at(-1));
          for (const name of left) assert.ok(synced.has(name) || !present.includes(name), `${name} may be lost`);
          for (const name of present) logs.add(name);
        }
        assert.ok(logs.size > 5, "there were several");
        assert.ok(synced.size > 2, "some were there long enough to be seen");
      } finally {
        prototype.sync = original;
      }
    }),
);

it("commits behind one that was answered as durable are dropped after a loss of power, and that is reported", () =>
  withRoot(async (root) => {
    const directory = join(root, "data");
    const copy = join(root, "copy");
    await using storage = await openLevel(directory, { writeBufferBytes: 64 * 1024 });
    await storage.commit([{ key: ["durable"], value: new Uint8Array() }]);
    const log = newestLog(directory);
    const size = statSync(log).size;
    for (let index = 0; newestLog(directory) === log; index++) {
      rmSync(copy, { recursive: true, force: true });
      cpSync(directory, copy, { recursive: true });
      await relaxed(storage, `${index}`, 5_000);
    }
    // Node 22 and later do not copy the mode.
    chmodSync(copy, 0o700);
    // As long as the engine has made no table of the first log, both are needed.
    const next = newestLog(directory);
    cpSync(next, join(copy, basename(next)));
    truncateSync(join(copy, basename(log)), size);
    const incidents = new Incidents();
    await using left = await openLevel(copy, { incidents });
    assert.deepEqual(
      (await left.read([])).entries.map(({ key }) => key),
      [["durable"]],
    );
    assert.deepEqual([...incidents.counts()], [["storage-write-cut-short", 1]]);
  }));

it("relaxed commits that a failing disk loses while it is open: readers read again, and no revision is given twice", () =>
  withRoot(async (root) => {
    const directory = join(root, "data");
    const prototype = await batchPrototype(join(root, "other"));
    const original = prototype._write;
    await using storage = await openLevel(directory);
    await storage.commit([{ key: ["durable"], value: new Uint8Array() }]);
    const log = newestLog(directory);
    const size = statSync(log).size;
    const given = [await relaxed(storage, "1"), await relaxed(storage, "2")];
    const changes = storage.changes([], given[1] ?? 0n, new AbortController().signal)[Symbol.asyncIterator]();
    const told = changes.next();
    try {
      prototype._write = async () => {
        truncateSync(log, size);
        prototype._write = original;
        throw new Error("IO error: the disk has gone");
      };
      await assert.rejects(
        relaxed(storage, "3"),
        (error) => error instanceof PeeringError && error.code === "storage-failed",
      );
    } finally {
      prototype._write = original;
    }
    const { entries, revision } = await storage.read([]);
    assert.deepEqual(
      entries.map(({ key }) => key),
      [["durable"]],
    );
    assert.ok(!given.includes(revision));
    assert.deepEqual(await told, { done: false, value: { type: "reset", revision } });
    assert.ok((await relaxed(storage, "4")) > revision);
    await changes.return?.();
  }));
