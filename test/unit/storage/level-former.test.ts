import assert from "node:assert/strict";
import { cpSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { openLevel } from "../../../src/storage/level.js";
import { FormerSecrets } from "../../../src/storage/level-former.js";
import type { Key, Storage, Write } from "../../../src/storage/storage.js";

async function withDirectory(action: (directory: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "peerage-former-"));
  try {
    await action(join(root, "data"));
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

const open = (directory: string): Promise<Storage> => openLevel(directory, { writeBufferBytes: 65_536 });
const put = (key: Key, text: string): Write => ({ key, value: Buffer.from(text) });

/** Files that hold the text anywhere. */
function holding(directory: string, text: string): readonly string[] {
  return readdirSync(directory).filter((name) => readFileSync(join(directory, name)).includes(text));
}

/** Enough for several tables and levels around the secrets. */
async function bulk(storage: Storage, round: number): Promise<void> {
  for (const part of ["a", "cb", "peering", "peering-secretss", "z"]) {
    for (let index = 0; index < 4; index++) {
      await storage.commit([put([part, `${index}`], `${round}`.repeat(20_000))]);
    }
  }
}

const secrets: readonly Key[] = [
  ["ca", "state"],
  ["peerings", "secrets", "1"],
];

describe("level, former values of secrets", () => {
  for (const key of secrets) {
    const name = key.join("/");

    it(`${name}, written over at once: in no file`, () =>
      withDirectory(async (directory) => {
        {
          await using storage = await open(directory);
          await storage.commit([put(key, "the former"), put(["other"], "value")]);
          assert.notDeepEqual(holding(directory, "the former"), []);
          await storage.commit([put(key, "the newer")]);
        }
        assert.deepEqual(holding(directory, "the former"), []);
        assert.notDeepEqual(holding(directory, "the newer"), []);
        await using storage = await open(directory);
        assert.equal((await storage.read([])).entries.length, 2);
        assert.equal((await storage.read(key)).entries.length, 1);
      }));

    it(`${name}, deleted: in no file`, () =>
      withDirectory(async (directory) => {
        {
          await using storage = await open(directory);
          await storage.commit([put(key, "the former")]);
          await storage.commit([{ key, value: undefined }]);
        }
        assert.deepEqual(holding(directory, "the former"), []);
      }));

    it(`${name}, among tables of several levels, while others read and write: in no file`, () =>
      withDirectory(async (directory) => {
        for (let life = 0; life < 3; life++) {
          await using storage = await open(directory);
          await bulk(storage, life);
          await storage.commit([put(key, `the former ${life}`)]);
          await bulk(storage, life);
        }
        assert.equal(holding(directory, "the former 0").length, 0, "it was written over");
        assert.notDeepEqual(holding(directory, "the former 2"), []);
        {
          await using storage = await open(directory);
          const before = storage.read([]);
          const replaced = storage.commit([put(key, "the newer")]);
          const writing = bulk(storage, 4);
          await replaced;
          for (let index = 0; index < 20; index++) await storage.read(["z"]);
          await Promise.all([before, writing]);
        }
        assert.deepEqual(holding(directory, "the former"), []);
        await using storage = await open(directory);
        assert.equal(Buffer.from((await storage.read(key)).entries[0]?.value ?? []).toString(), "the newer");
        assert.equal((await storage.read([])).entries.length, 21);
      }));

    it(`${name}, when the process ended before it was done: in no file after the next start`, () =>
      withDirectory(async (directory) => {
        const copy = `${directory}-copy`;
        {
          await using storage = await open(directory);
          await storage.commit([put(key, "the former")]);
          await storage.commit([put(key, "the newer")]);
          // The files of a process that is killed now.
          cpSync(directory, copy, { recursive: true });
        }
        assert.notDeepEqual(holding(copy, "the former"), []);
        {
          await using storage = await open(copy);
          assert.equal((await storage.read([])).entries.length, 1);
        }
        assert.deepEqual(holding(copy, "the former"), []);
      }));
  }

  it("values that are not secrets are not looked for", () =>
    withDirectory(async (directory) => {
      {
        await using storage = await open(directory);
        for (const value of ["the former", "the newer"]) {
          await storage.commit([put(["ca", "serial"], value), put(["peerings", "1"], value)]);
        }
      }
      // One log and nothing else: no table was written.
      assert.deepEqual(
        readdirSync(directory).filter((name) => name.endsWith(".ldb")),
        [],
      );
    }));
});

describe("removals of former secrets", () => {
  const PAUSE_MS = 3_600_000;

  function counted() {
    let merges = 0;
    const surroundings = {
      readsEnded: async () => {},
      deleteBetweenCommits: async () => {},
      mergeTables: async () => {
        merges++;
      },
      incidents: new Incidents(),
    };
    return { former: new FormerSecrets(surroundings, false, PAUSE_MS), merges: () => merges };
  }

  /** Of all that runs without a timer. */
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  it("are made at once, then together after a pause, which the end of the storage cuts short", async () => {
    const { former, merges } = counted();
    former.remove();
    await settled();
    const once = merges();
    assert.ok(once > 0);
    assert.equal(former.takeDone(), true);
    for (let secret = 0; secret < 3; secret++) {
      former.remove();
      await settled();
      assert.equal(merges(), once);
      assert.equal(former.takeDone(), false, "the mark stays");
    }
    await former.finish();
    assert.equal(merges(), 2 * once);
    assert.equal(former.takeDone(), true);
  });

  it("are left, with the mark, where the database is opened again", async () => {
    const { former, merges } = counted();
    former.remove();
    await settled();
    const once = merges();
    assert.equal(former.takeDone(), true);
    former.remove();
    await former.leave();
    assert.equal(merges(), once);
    assert.equal(former.takeDone(), false);
  });
});
