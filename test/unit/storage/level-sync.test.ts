import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ClassicLevel } from "classic-level";
import { openLevel } from "../../../src/storage/level.js";
import type { Storage } from "../../../src/storage/storage.js";

interface ChainedBatch {
  _write(options: { readonly sync?: boolean }): Promise<void>;
}

/** The batches of every database, as LevelDB is given them. A process that is killed loses none of them; a power cut may. */
async function batchPrototype(directory: string): Promise<ChainedBatch> {
  const database = new ClassicLevel(directory);
  await database.open();
  const batch = database.batch();
  const prototype: ChainedBatch = Object.getPrototypeOf(batch);
  await batch.close();
  await database.close();
  return prototype;
}

describe("a commit of the level storage", () => {
  let directory = "";
  let storage: Storage;
  let prototype: ChainedBatch;
  let original: ChainedBatch["_write"];
  /** What was asked of each write, and lets it go on: LevelDB would write it through to the disk meanwhile. */
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
