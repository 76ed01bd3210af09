import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { deleteDamaged } from "../../../src/storage/damaged-entries.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { DamagedEntry, Storage } from "../../../src/storage/storage.js";

async function filled(storage: Storage, names: readonly string[]): Promise<readonly DamagedEntry[]> {
  const entries: DamagedEntry[] = [];
  for (const name of names) {
    const key = ["rows", name];
    entries.push({ key, revision: await storage.commit([{ key, value: Buffer.from("damaged") }]) });
  }
  return entries;
}

async function left(storage: Storage): Promise<Readonly<Record<string, string>>> {
  const { entries } = await storage.read(["rows"]);
  return Object.fromEntries(entries.map(({ key, value }) => [key.at(-1), Buffer.from(value).toString()]));
}

describe("deleteDamaged", () => {
  it("deletes the entries, in commits that the storage takes", async () => {
    const storage = memoryStorage({ limits: { writes: 3 } });
    const names = Array.from({ length: 10 }, (_, index) => `row${index}`);
    const damaged = await filled(storage, names);
    await storage.commit([{ key: ["rows", "other"], value: Buffer.from("sound") }]);
    await deleteDamaged(storage, damaged);
    assert.deepEqual(await left(storage), { other: "sound" });
  });

  it("leaves entries that were written again, or are gone, and deletes the others beside them", async () => {
    const storage = memoryStorage({ limits: { writes: 3 } });
    const damaged = await filled(storage, ["a", "b", "c", "d", "e"]);
    await storage.commit([{ key: ["rows", "b"], value: Buffer.from("newer") }]);
    await storage.commit([{ key: ["rows", "e"], value: undefined }]);
    await deleteDamaged(storage, damaged);
    assert.deepEqual(await left(storage), { b: "newer" });
  });

  it("passes on that the storage fails", async () => {
    const storage = memoryStorage();
    const damaged = await filled(storage, ["a"]);
    const failing = {
      limits: storage.limits,
      commit: () => Promise.reject(new PeeringError("storage-failed", "the disk is full")),
    };
    await assert.rejects(deleteDamaged(failing, damaged), { code: "storage-failed" });
    assert.deepEqual(await left(storage), { a: "damaged" });
  });
});
