import assert from "node:assert/strict";
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ClassicLevel } from "classic-level";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { openLevel } from "../../../src/storage/level.js";
import type { Entry, Key, Snapshot, Write } from "../../../src/storage/storage.js";

async function withDirectory(action: (directory: string) => Promise<void>): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), "peerage-damage-"));
  try {
    await action(join(root, "data"));
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

function put(key: Key, text: string): Write {
  return { key, value: Buffer.from(text) };
}

/** One life of a storage for each list of commits. What earlier lives wrote is in tables, what the last one wrote in the log. */
async function fill(directory: string, ...lives: readonly (readonly Write[])[][]): Promise<Snapshot> {
  let snapshot: Snapshot | undefined;
  for (const commits of lives) {
    await using storage = await openLevel(directory);
    for (const writes of commits) await storage.commit(writes);
    snapshot = await storage.read([]);
  }
  return snapshot ?? assert.fail("no life was given");
}

/** The files of a process that is killed after these commits, before its last writes. */
async function fillAndKill(directory: string, commits: readonly (readonly Write[])[]): Promise<readonly Entry[]> {
  const living = `${directory}-living`;
  await using storage = await openLevel(living);
  for (const writes of commits) await storage.commit(writes);
  // A mark names the process and the directory, and the number of the directory is used again.
  cpSync(living, directory, { recursive: true, filter: (path) => !path.includes("in-use-") });
  const { entries } = await storage.read([]);
  await storage[Symbol.asyncDispose]();
  rmSync(living, { recursive: true });
  return entries;
}

async function readAll(directory: string, incidents = new Incidents()): Promise<Snapshot> {
  await using storage = await openLevel(directory, { incidents });
  return await storage.read([]);
}

/** The one file of that kind; where there are several, the one that holds the text. */
function fileOf(directory: string, kind: string, text = ""): string {
  const files = readdirSync(directory)
    .filter((name) => name.endsWith(kind) || name.startsWith(kind))
    .map((name) => join(directory, name))
    .filter((file) => readFileSync(file).includes(text));
  assert.equal(files.length, 1, `${files.length} files are ${kind}`);
  return files[0] ?? "";
}

function flip(file: string, at: number, bit = 0): void {
  const bytes = readFileSync(file);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
  writeFileSync(file, bytes);
}

/** Where the text is in the file, which holds it once. */
function placeOf(file: string, text: string): number {
  const bytes = readFileSync(file);
  const at = bytes.indexOf(text);
  assert.ok(at >= 0, `${text} is not in ${file}`);
  assert.equal(bytes.indexOf(text, at + 1), -1, `${text} is twice in ${file}`);
  return at;
}

/** Each file with what it holds, but for what the engine logs of itself and what says which process is in there. */
function contentsOf(directory: string): ReadonlyMap<string, string> {
  const names = readdirSync(directory).filter((name) => !/^LOG|^LOCK$|^in-use-/.test(name));
  return new Map(names.map((name) => [name, readFileSync(join(directory, name), "latin1")]));
}

/** @returns The error, for more to be asked of it. */
async function refused(directory: string, code: string, ...texts: readonly string[]): Promise<PeeringError> {
  const error = await readAll(directory).then(
    () => assert.fail("it was opened and read"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof PeeringError, String(error));
  assert.equal(error.code, code, error.message);
  for (const text of [directory, ...texts]) assert.ok(error.message.includes(text), error.message);
  assert.ok(error.remedy !== undefined, error.message);
  return error;
}

const record = (index: number): Write => put(["records", `${index}`], `value of record ${index}.`);

describe("level, damaged log", () => {
  it("one flipped bit among 300 commits: refused before anything is changed, naming the log", () =>
    withDirectory(async (directory) => {
      await fill(
        directory,
        Array.from({ length: 300 }, (_, index) => [record(index)]),
      );
      const log = fileOf(directory, ".log");
      flip(log, placeOf(log, "value of record 200."));
      const before = contentsOf(directory);
      const error = await refused(directory, "storage-damaged", log.slice(directory.length + 1), "cannot be read");
      assert.match(error.remedy ?? "", /backup/);
      assert.deepEqual(contentsOf(directory), before);
    }));

  it("a record that spans blocks, damaged anywhere: refused", () =>
    withDirectory(async (directory) => {
      const large = (text: string): Write[] => [put(["large", text], text.repeat(50_000))];
      await fill(directory, [large("a"), large("b"), large("c")]);
      const log = fileOf(directory, ".log");
      const sound = readFileSync(log);
      for (let at = 100; at < sound.length; at += 9_973) {
        flip(log, at);
        await refused(directory, "storage-damaged");
        writeFileSync(log, sound);
      }
      assert.equal((await readAll(directory)).entries.length, 3);
    }));

  for (const [which, index, lives] of [
    ["the first", 0, 1],
    ["the first since the tables were written", 0, 2],
    ["one in the middle", 10, 1],
    ["one in the middle, of a log behind tables", 10, 2],
  ] as const) {
    it(`${which} of its records is cut out whole: refused, though each that is left is sound`, () =>
      withDirectory(async (directory) => {
        const life = (first: number) => Array.from({ length: 20 }, (_, offset) => [record(first + offset)]);
        await fill(directory, ...(lives === 1 ? [life(0)] : [life(100), life(0)]));
        const log = fileOf(directory, ".log");
        const bytes = readFileSync(log);
        const at = placeOf(log, `value of record ${index}.`);
        // Each is smaller than a block: four bytes of a checksum, two of its length, one of its type, and what it holds.
        let begin = 0;
        const endOf = (start: number): number => start + 7 + bytes.readUInt16LE(start + 4);
        while (index > 0 && endOf(begin) < at) begin = endOf(begin);
        writeFileSync(log, Buffer.concat([bytes.subarray(0, begin), bytes.subarray(endOf(begin))]));
        await refused(directory, "storage-damaged", "are missing");
      }));
  }

  it("a block in the middle that became zeros: refused", () =>
    withDirectory(async (directory) => {
      await fill(
        directory,
        Array.from({ length: 30 }, (_, index) => [put(["large", `${index}`], `${index}`.repeat(3_000))]),
      );
      const log = fileOf(directory, ".log");
      const bytes = readFileSync(log);
      writeFileSync(log, bytes.fill(0, 32_768, 65_536));
      await refused(directory, "storage-damaged", "cannot be read");
    }));

  it("missing: refused, though the engine would go on without", () =>
    withDirectory(async (directory) => {
      await fill(directory, [[record(1)]], [[record(2)]]);
      const log = fileOf(directory, ".log");
      rmSync(log);
      await refused(directory, "storage-damaged", `${log.slice(directory.length + 1)} is missing`);
    }));

  it("cut, or damaged, in its last commit, which was not acknowledged: opened without it, and reported", () =>
    withDirectory(async (directory) => {
      const commits = [[record(1)], [record(2)], [record(3)]];
      const before = `${directory}-before`;
      const expected = await fillAndKill(before, commits);
      const known = statSync(fileOf(before, ".log")).size;
      // The log of a process that wrote one commit more and died before it said so.
      await fillAndKill(directory, [...commits, [record(4)]]);
      const whole = readFileSync(fileOf(directory, ".log"));
      assert.deepEqual(whole.subarray(0, known), readFileSync(fileOf(before, ".log")));
      const damaged = Buffer.from(whole);
      damaged[known + 30] = 255 - (damaged[known + 30] ?? 0);
      const logs = [
        damaged,
        Buffer.concat([whole.subarray(0, known), Buffer.alloc(100_000)]),
        Buffer.concat([whole.subarray(0, known + 20), Buffer.alloc(40_000)]),
      ];
      for (let length = known + 1; length < whole.length; length += 7) logs.push(whole.subarray(0, length));
      for (const log of logs) {
        rmSync(directory, { recursive: true });
        cpSync(before, directory, { recursive: true });
        writeFileSync(fileOf(directory, ".log"), log);
        const incidents = new Incidents();
        const found = await readAll(directory, incidents);
        assert.deepEqual(found.entries, expected);
        assert.equal(incidents.counts().get("storage-write-cut-short"), 1);
        assert.deepEqual(await readAll(directory), found, "and again");
      }
    }));

  it("cut, or damaged, in commits that were acknowledged: refused, and opened without them by who accepts the loss", () =>
    withDirectory(async (directory) => {
      await fillAndKill(directory, [[record(1)], [record(2)], [record(3)], [record(4)]]);
      const log = fileOf(directory, ".log");
      const bytes = readFileSync(log);
      const last = placeOf(log, "value of record 4.");
      const damaged = Buffer.from(bytes);
      damaged[last] = 0;
      // In the midst of the last, in the midst of the third, and between two; and damaged where it is not cut.
      const cuts = [last, placeOf(log, "value of record 3."), bytes.lastIndexOf("revision", last) + 24];
      for (const content of [...cuts.map((at) => bytes.subarray(0, at)), damaged]) {
        writeFileSync(log, content);
        cpSync(directory, `${directory}2`, { recursive: true });
        const error = await refused(`${directory}2`, "storage-damaged", "up to revision 4 were acknowledged");
        assert.match(error.remedy ?? "", /remove the file acknowledged/);
        await refused(`${directory}2`, "storage-damaged", "up to revision 4 were acknowledged");
        rmSync(join(`${directory}2`, "acknowledged"));
        const { entries, revision } = await readAll(`${directory}2`);
        assert.ok(entries.length === 2 || entries.length === 3);
        assert.ok(revision > 4n, "what was given is not given again");
        rmSync(`${directory}2`, { recursive: true });
      }
    }));

  it("what says which revision was acknowledged is damaged or missing: the data are not", () =>
    withDirectory(async (directory) => {
      const expected = await fill(directory, [[record(1)], [record(2)]]);
      const file = join(directory, "acknowledged");
      for (const text of ["", "nonsense", "00000000000000000009 00000000\n", `${readFileSync(file, "latin1")}more`]) {
        writeFileSync(file, text);
        assert.deepEqual(await readAll(directory), expected);
      }
      const sound = readFileSync(file, "latin1");
      rmSync(file);
      assert.deepEqual(await readAll(directory), expected);
      assert.equal(readFileSync(file, "latin1"), sound);
    }));
});

describe("level, damaged table", () => {
  const life = [
    [put(["imports", "p", "web"], "address 10.0.0.1"), put(["imports", "p", "db"], "address 10.0.0.2")],
    [put(["peerings", "1"], "the record of a peering")],
  ];

  it("one flipped bit of a value: reads that would show it name it, others go on, and it can be written again", () =>
    withDirectory(async (directory) => {
      await fill(directory, life, []);
      const table = fileOf(directory, ".ldb", "10.0.0.1");
      flip(table, placeOf(table, "10.0.0.1"));
      const incidents = new Incidents();
      {
        await using storage = await openLevel(directory, { incidents });
        assert.equal(incidents.counts().get("storage-entry-damaged"), 1);
        assert.equal((await storage.read(["peerings"])).entries.length, 1);
        assert.equal((await storage.read(["imports", "p", "db"])).entries.length, 1);
        for (const prefix of [["imports", "p", "web"], ["imports"], []]) {
          const error = await storage.read(prefix).catch((reason: unknown) => reason);
          assert.ok(error instanceof PeeringError);
          assert.equal(error.code, "storage-damaged");
          assert.ok(error.message.includes("imports/p/web"), error.message);
          assert.deepEqual(error.damagedKeys, [["imports", "p", "web"]]);
          assert.ok(!error.message.includes("address"), "values are nobody's business");
        }
        for await (const page of storage.pages(["imports"], 1_000_000)) {
          assert.deepEqual(page.damaged, [{ key: ["imports", "p", "web"], revision: 1n }]);
        }
        // Its revision is certain, so expectations are judged as ever.
        const key = ["imports", "p", "web"];
        await assert.rejects(storage.commit([{ key, value: undefined }], [{ key, revision: 2n }]), {
          code: "conflict",
        });
        await storage.commit([{ key, value: Buffer.from("address 10.0.0.3") }], [{ key, revision: 1n }]);
        const { entries } = await storage.read(["imports", "p", "web"]);
        assert.equal(Buffer.from(entries[0]?.value ?? []).toString(), "address 10.0.0.3");
      }
      const again = new Incidents();
      assert.equal((await readAll(directory, again)).entries.length, 3);
      assert.deepEqual([...again.counts()], []);
    }));

  it("while it is open: the same", () =>
    withDirectory(async (directory) => {
      await fill(directory, life, []);
      await using storage = await openLevel(directory);
      const table = fileOf(directory, ".ldb", "10.0.0.1");
      flip(table, placeOf(table, "10.0.0.1"));
      await assert.rejects(storage.read([]), { code: "storage-damaged", damagedKeys: [["imports", "p", "web"]] });
      await storage.commit([{ key: ["imports", "p", "web"], value: undefined }]);
      assert.equal((await storage.read([])).entries.length, 2);
    }));

  it("outside of any value: refused, naming the file", () =>
    withDirectory(async (directory) => {
      await fill(directory, life, []);
      const table = fileOf(directory, ".ldb", "peerings");
      const name = table.slice(directory.length + 1);
      const sound = readFileSync(table);
      const keyAt = sound.indexOf("peerings");
      assert.ok(keyAt > 0);
      // A key; what says that it is no deletion; the index; the end.
      const kindAt = sound.indexOf("\0\u0001", keyAt + 8, "latin1") + 1;
      for (const at of [keyAt, kindAt, sound.length - 60, sound.length - 1]) {
        flip(table, at);
        await refused(directory, "storage-damaged", name);
        writeFileSync(table, sound);
      }
      truncateSync(table, sound.length - 1);
      await refused(directory, "storage-damaged", name, `${sound.length}`);
      rmSync(table);
      await refused(directory, "storage-damaged", `${name} is missing`);
    }));

  it("in a former version of an entry: opened, and rid of it", () =>
    withDirectory(async (directory) => {
      await fill(directory, life, [[put(["imports", "p", "web"], "address 10.0.0.3")]]);
      const table = fileOf(directory, ".ldb", "10.0.0.1");
      flip(table, placeOf(table, "10.0.0.1"));
      const incidents = new Incidents();
      const { entries } = await readAll(directory, incidents);
      assert.equal(entries.length, 3);
      assert.deepEqual([...incidents.counts()], []);
      assert.ok(!existsSync(table) || !readFileSync(table).includes("10.0.0.0"));
    }));
});

describe("level, what leads to the tables", () => {
  const lives = [[[record(1)], [record(2)]], [[record(3)]]];

  for (const [title, damage] of [
    ["missing", (file: string) => rmSync(file)],
    ["empty", (file: string) => writeFileSync(file, "")],
    ["without its line break", (file: string) => writeFileSync(file, readFileSync(file, "latin1").trimEnd())],
    ["of something else", (file: string) => writeFileSync(file, "MANIFEST-999999\n")],
  ] as const) {
    it(`CURRENT is ${title}: refused, no table is touched, and the remedy works`, () =>
      withDirectory(async (directory) => {
        const expected = await fill(directory, ...lives);
        damage(join(directory, "CURRENT"));
        const before = contentsOf(directory);
        const error = await refused(directory, "storage-damaged", "CURRENT");
        assert.deepEqual(contentsOf(directory), before);
        const manifest = /(MANIFEST-\d+)$/.exec(error.remedy ?? "")?.[1] ?? assert.fail(error.remedy);
        writeFileSync(join(directory, "CURRENT"), `${manifest}\n`);
        assert.deepEqual(await readAll(directory), expected);
      }));
  }

  it("the manifest is missing, empty, cut, damaged, or an older one: refused, and nothing is touched", () =>
    withDirectory(async (directory) => {
      await fill(directory, ...lives);
      const manifest = fileOf(directory, "MANIFEST-");
      const sound = readFileSync(manifest);
      const faults: readonly (() => void)[] = [
        () => rmSync(manifest),
        () => writeFileSync(manifest, ""),
        () => writeFileSync(manifest, "not a manifest"),
        () => truncateSync(manifest, 60),
        () => flip(manifest, sound.length - 3),
        // The length of the last entry: it ends behind the end of the file then.
        () => flip(manifest, sound.lastIndexOf("\u0001", -1, "latin1") - 2, 6),
      ];
      for (const fault of faults) {
        fault();
        const before = contentsOf(directory);
        await refused(directory, "storage-damaged");
        assert.deepEqual(contentsOf(directory), before);
        writeFileSync(manifest, sound);
      }
      assert.equal((await readAll(directory)).entries.length, 3);
    }));

  it("a process that died while it made the database leaves nothing in the way", () =>
    withDirectory(async (directory) => {
      await fill(directory, [[]]);
      for (const name of readdirSync(directory)) if (!name.startsWith("LO")) rmSync(join(directory, name));
      writeFileSync(join(directory, "MANIFEST-000001"), "");
      assert.deepEqual(await readAll(directory), { entries: [], revision: 0n });
    }));
});

describe("level, data of other versions", () => {
  const FORMAT = Buffer.from("\u00ffformat", "latin1");
  const REVISION = Buffer.from("\u00ffrevision", "latin1");

  function uncheckedRow(revision: bigint, text: string): Buffer {
    const row = Buffer.alloc(8);
    row.writeBigUInt64BE(revision);
    return Buffer.concat([row, Buffer.from(text)]);
  }

  async function write(directory: string, rows: readonly (readonly [key: Buffer, value: Buffer])[]): Promise<void> {
    const database = new ClassicLevel<Buffer, Buffer>(directory, {
      keyEncoding: "buffer",
      valueEncoding: "buffer",
      compression: false,
    });
    await database.open();
    for (const [key, value] of rows) await database.batch().put(key, value).write({ sync: true });
    await database.close();
  }

  /** As 0.1 left it. */
  const unchecked: readonly (readonly [key: Buffer, value: Buffer])[] = [
    [FORMAT, Buffer.from("peerage storage 1")],
    [Buffer.from("a\0"), uncheckedRow(1n, "one")],
    [Buffer.from("b\0c\0"), uncheckedRow(2n, "")],
    [REVISION, uncheckedRow(3n, "")],
  ];
  const adopted: Snapshot = {
    entries: [
      { key: ["a"], value: new Uint8Array(Buffer.from("one")), revision: 1n },
      { key: ["b", "c"], value: new Uint8Array(), revision: 2n },
    ],
    revision: 3n,
  };

  it("0.1: taken over with its revisions, and protected from then on", () =>
    withDirectory(async (directory) => {
      await write(directory, unchecked);
      assert.deepEqual(await readAll(directory), adopted);
      const table = fileOf(directory, ".ldb");
      flip(table, placeOf(table, "one"));
      const error = await refused(directory, "storage-damaged");
      assert.deepEqual(error.damagedKeys, [["a"]]);
    }));

  it("0.1, never written", () =>
    withDirectory(async (directory) => {
      await write(directory, unchecked.slice(0, 1));
      assert.deepEqual(await readAll(directory), { entries: [], revision: 0n });
    }));

  it("0.1, when a start that took it over was interrupted", () =>
    withDirectory(async (directory) => {
      await write(directory, unchecked);
      await readAll(directory);
      // The row that was to be the last to change, and one that 0.1 wrote.
      await write(directory, [
        [FORMAT, Buffer.from("peerage storage 1 to 2")],
        [Buffer.from("b\0c\0"), uncheckedRow(2n, "")],
      ]);
      assert.deepEqual(await readAll(directory), adopted);
    }));

  it("0.1, damaged: refused", () =>
    withDirectory(async (directory) => {
      await write(directory, unchecked);
      await write(directory, []);
      const table = fileOf(directory, ".ldb");
      flip(table, placeOf(table, "one"));
      await refused(directory, "storage-damaged", table.slice(directory.length + 1));
    }));

  it("a later one, and another program's: refused", () =>
    withDirectory(async (directory) => {
      await write(directory, [[FORMAT, Buffer.from("peerage storage 3")]]);
      await refused(directory, "storage-failed", "a later version");
      await write(`${directory}2`, [[Buffer.from("key"), Buffer.from("value")]]);
      await refused(`${directory}2`, "storage-failed", "another program");
    }));
});
