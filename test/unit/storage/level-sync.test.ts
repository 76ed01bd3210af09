import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { openLevel } from "../../../src/storage/level.js";
import type { Storage } from "../../../src/storage/storage.js";
import { batchPrototype, type ChainedBatch } from "../../support/level.js";

describe("a commit of the level storage", () => {
  let directory = "";
  let storage: Storage;
  let prototype: ChainedBatch;
  let original: ChainedBatch["_write"];
  /** Records the options of each write, and lets it go on: LevelDB would write it through to the disk meanwhile. */
  let writes: { readonly sync: boolean; readonly finish: () => void }[] = [];

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "peerage-sync-"));
    storage = await openLevel(join(directory, "data"));
    prototype = await batchPrototype(join(directory, "other"));
    original = prototype._write;
    writes = [];
    prototype._write = async function (options): Promise<void> {
      await new Promise<void>((finish) => writes.push({ sync: options.sync === true, finish }));
      return original.call(this, options);
    };
  });

  afterEach(async () => {
    prototype._write = original;
    for (const { finish } of writes) finish();
    await storage[Symbol.asyncDispose]();
    await rm(directory, { recursive: true, force: true });
  });

  it("is not written through when it is relaxed, but for the first one, which reserves revisions; with a durable one it is", async () => {
    const commit = (name: string, durability: "relaxed" | "durable"): Promise<bigint> =>
      storage.commit([{ key: [name], value: Uint8Array.of(1) }], [], { durability });
    const written = async (count: number): Promise<readonly boolean[]> => {
      while (writes.length < count) await new Promise((resolve) => setImmediate(resolve));
      writes[count - 1]?.finish();
      return writes.map(({ sync }) => sync);
    };
    const first = commit("first", "relaxed");
    assert.deepEqual(await written(1), [true]);
    await first;
    const second = commit("second", "relaxed");
    assert.deepEqual(await written(2), [true, false]);
    await second;
    const group = [commit("third", "relaxed"), commit("fourth", "durable"), commit("fifth", "relaxed")];
    assert.deepEqual(await written(3), [true, false, true]);
    await Promise.all(group);
    const last = storage[Symbol.asyncDispose]();
    assert.deepEqual(await written(4), [true, false, true, true], "so is the end");
    await last;
  });

  it("is put together in turns where it has many rows, and has all of them", async () => {
    const put = prototype._put;
    const inTurn: number[] = [0];
    prototype._put = function (...row): void {
      inTurn.push((inTurn.pop() ?? 0) + 1);
      put.apply(this, row);
    };
    let ticking = setImmediate(function tick() {
      inTurn.push(0);
      ticking = setImmediate(tick);
    });
    const rows = Array.from({ length: 2_600 }, (_, index) => ({ key: [`k${index}`], value: Uint8Array.of(1) }));
    try {
      const committed = storage.commit(rows);
      while (writes.length < 1) await new Promise((resolve) => setImmediate(resolve));
      writes[0]?.finish();
      await committed;
    } finally {
      clearImmediate(ticking);
      prototype._put = put;
    }
    assert.ok(Math.max(...inTurn) <= 260, `${Math.max(...inTurn)} rows in one turn`);
    const { entries } = await storage.read([]);
    assert.equal(entries.length, rows.length);
  });

  it("is written through to the disk before it is answered, whether it goes alone or with others", async () => {
    const answered: string[] = [];
    const commit = (name: string): Promise<unknown> =>
      storage.commit([{ key: [name], value: Uint8Array.of(1) }]).then(() => answered.push(name));
    const first = commit("first");
    while (writes.length < 1) await new Promise((resolve) => setImmediate(resolve));
    const others = [commit("second"), commit("third")];
    assert.deepEqual(answered, []);
    writes[0]?.finish();
    await first;
    while (writes.length < 2) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(answered, ["first"]);
    writes[1]?.finish();
    await Promise.all(others);
    assert.deepEqual(answered, ["first", "second", "third"]);
    assert.deepEqual(
      writes.map(({ sync }) => sync),
      [true, true],
    );
  });
});
