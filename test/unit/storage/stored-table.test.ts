import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Key, Storage } from "../../../src/storage/storage.js";
import {
  type RowFormat,
  StoredTable,
  type StoredTableOptions,
  type TableChange,
  type TablePlan,
} from "../../../src/storage/stored-table.js";
import { storageWithDamage } from "../../support/storage.js";
import { ManualClock } from "../trust/support.js";

const PREFIX: Key = ["things"];

/** Rows are texts. Those that begin with `?` are no rows, and those with `old:` are outdated forms of what follows. */
function textFormat(decoded: string[] = []): RowFormat<string> {
  return {
    encode: (row, created) => Buffer.from(created === undefined ? row : `${row}@${created}`),
    decode: (path, value) => {
      const text = Buffer.from(value).toString();
      decoded.push(path.join("/"));
      if (text.startsWith("?")) throw new Error("no row");
      const [row = "", created] = text.replace(/^old:/, "").split("@");
      return { row, ...(created !== undefined && { created: BigInt(created) }), outdated: text.startsWith("old:") };
    },
  };
}

function open(storage: Storage, options: Partial<StoredTableOptions<string>> = {}): Promise<StoredTable<string>> {
  return StoredTable.open({ storage, prefix: PREFIX, rowName: "thing", format: textFormat(), ...options });
}

function put(table: StoredTable<string>, name: string, row: string | undefined): Promise<bigint> {
  return table.write(() => ({
    // To remove what is not there is no change.
    writes: row === undefined && table.get(name) === undefined ? [] : [{ path: [name], row }],
    result: () => table.revision,
  }));
}

function contents(table: StoredTable<string>): readonly string[] {
  return Array.from(table.rows(), ({ row }) => row).sort();
}

/** Resolves once `holds` does, which is asked again after each change of the table. */
function until(table: StoredTable<string>, holds: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const look = (): void => {
      if (!holds()) return;
      stop();
      resolve();
    };
    const stop = table.onChange(look);
    look();
  });
}

type Fault = "refused" | "lost" | "unanswered";

/** A storage of which single operations can be made to fail. */
class FaultyStorage implements Storage {
  /** Of the next commits. */
  readonly faults: Fault[] = [];
  readsFail = false;
  changesFail = false;
  commits = 0;
  reads = 0;
  readonly #inner: Storage;

  constructor(inner: Storage) {
    this.#inner = inner;
  }

  get limits(): Storage["limits"] {
    return this.#inner.limits;
  }

  read: Storage["read"] = async (prefix, signal) => {
    this.reads++;
    if (this.readsFail) throw new PeeringError("storage-failed", "the disk fails");
    return this.#inner.read(prefix, signal);
  };

  pages: Storage["pages"] = (prefix, bytes, signal) => {
    this.reads++;
    return this.#inner.pages(prefix, bytes, signal);
  };

  commit: Storage["commit"] = async (writes, expect, options) => {
    this.commits++;
    const fault = this.faults.shift();
    if (fault === "refused") throw new PeeringError("storage-failed", "disk full");
    if (fault !== "lost") {
      const revision = await this.#inner.commit(writes, expect, options);
      if (fault === undefined) return revision;
    }
    throw new PeeringError("unavailable", "no answer");
  };

  changes: Storage["changes"] = (prefix, after, signal) => {
    if (this.changesFail) throw new PeeringError("unavailable", "no connection");
    return this.#inner.changes(prefix, after, signal);
  };

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }
}

/** A storage that has its readers read all again, once it is released, before it tells them of changes. */
function storageThatResets(storage: Storage): { readonly resetting: Storage; readonly release: () => void } {
  let release: (() => void) | undefined;
  const resetting = new FaultyStorage(storage);
  const inner = resetting.changes;
  resetting.changes = async function* (prefix, after, signal) {
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    yield { type: "reset", revision: 99n };
    yield* inner(prefix, after, signal);
  };
  return { resetting, release: () => release?.() };
}

describe("a stored table", () => {
  it("keeps rows with the revisions of their first and last write, over a restart, too", async () => {
    const storage = memoryStorage();
    const before = await open(storage);
    assert.equal(before.revision, 0n);
    const first = await put(before, "a", "one");
    await put(before, "b", "two");
    const last = await put(before, "a", "three");
    await put(before, "b", undefined);
    const after = await open(storage);
    for (const table of [before, after]) {
      assert.deepEqual(table.get("a"), { row: "three", created: first, revision: last });
      assert.equal(table.get("b"), undefined);
      assert.equal([...table.rows()].length, 1);
    }
    assert.ok(before.revision > last, "the removal counts as a change");
    assert.equal(after.revision, before.revision);
    await before[Symbol.asyncDispose]();
    await after[Symbol.asyncDispose]();
  });

  it("lets readers see a write once it is committed, and nothing of one that failed", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await using table = await open(storage);
    const told: TableChange<string>[] = [];
    table.onChange((change) => told.push(change));
    storage.faults.push("refused");
    await assert.rejects(put(table, "a", "one"), { code: "storage-failed" });
    assert.equal(table.get("a"), undefined);
    assert.equal(told.length, 0);
    const writing = put(table, "a", "two");
    assert.equal(table.get("a"), undefined);
    const revision = await writing;
    assert.deepEqual(told, [
      {
        changes: [{ path: ["a"], before: undefined, after: { row: "two", created: revision, revision } }],
        faults: [],
        revision,
        own: true,
      },
    ]);
  });

  it("commits nothing where a plan writes nothing, and passes on the error of a plan", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await using table = await open(storage);
    assert.equal(await table.write(() => ({ writes: [], result: () => 7 })), 7);
    await assert.rejects(
      table.write(() => {
        throw new RangeError("not today");
      }),
      RangeError,
    );
    assert.equal(storage.commits, 0);
    await put(table, "a", "one");
    assert.equal(storage.commits, 1);
  });

  it("makes one write after the other, each on the rows that the one before left", async () => {
    await using table = await open(memoryStorage());
    const count = (): TablePlan<string, void> => ({
      writes: [{ path: ["n"], row: String(Number(table.get("n")?.row ?? "0") + 1) }],
      result: () => {},
    });
    await Promise.all(Array.from({ length: 20 }, () => table.write(count)));
    assert.equal(table.get("n")?.row, "20");
  });

  it("follows the writes of another process, at the cost of their changes", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await using writer = await open(storage);
    for (let index = 0; index < 500; index++) await put(writer, `row${index}`, "x");
    const decoded: string[] = [];
    await using reader = await open(storage, { format: textFormat(decoded) });
    decoded.length = 0;
    const { reads } = storage;
    const told: TableChange<string>[] = [];
    reader.onChange((change) => told.push(change));
    const revision = await put(writer, "row7", "y");
    await until(reader, () => reader.get("row7")?.row === "y");
    await put(writer, "row8", undefined);
    await until(reader, () => reader.get("row8") === undefined);
    assert.deepEqual(decoded, ["row7"]);
    assert.equal(storage.reads, reads);
    assert.deepEqual(
      told.map(({ own, changes }) => [own, changes.map(({ path, after }) => [path, after?.row])]),
      [
        [false, [[["row7"], "y"]]],
        [false, [[["row8"], undefined]]],
      ],
    );
    assert.deepEqual(reader.get("row7"), writer.get("row7"));
    assert.equal(reader.get("row7")?.revision, revision);
    assert.equal(reader.revision, writer.revision);
  });

  it("decides a write again on newer rows where another process was faster", async () => {
    const storage = memoryStorage();
    const overtaken = new FaultyStorage(storage);
    await using mine = await open(overtaken);
    await using other = await open(storage);
    const { commit } = overtaken;
    overtaken.commit = async (writes, expect) => {
      overtaken.commit = commit;
      await put(other, "a", "theirs");
      return commit(writes, expect);
    };
    const seen: (string | undefined)[] = [];
    const written = await mine.write(() => {
      const row = mine.get("a")?.row;
      seen.push(row);
      return { writes: [{ path: ["b"], row: `after ${row}` }], result: () => mine.get("b")?.row };
    });
    assert.equal(written, "after theirs");
    assert.deepEqual(seen, [undefined, "theirs"]);
    await until(other, () => [...other.rows()].length === 2);
    assert.deepEqual(contents(other), contents(mine));
  });

  it("refuses a write with `conflict` where other processes are always faster", async () => {
    const storage = memoryStorage();
    const overtaken = new FaultyStorage(storage);
    await using mine = await open(overtaken);
    await using other = await open(storage);
    const { commit } = overtaken;
    overtaken.commit = async (writes, expect) => {
      await put(other, "a", "theirs");
      return commit(writes, expect);
    };
    await assert.rejects(put(mine, "b", "mine"), { code: "conflict" });
    assert.ok(overtaken.commits > 3 && overtaken.commits < 100, `${overtaken.commits} attempts`);
    assert.equal(mine.get("b"), undefined);
    assert.equal(mine.get("a")?.row, "theirs");
  });

  it("refuses a write at once where its conditions on other entries do not hold", async () => {
    const storage = memoryStorage();
    await using table = await open(storage);
    let plans = 0;
    const writing = table.write(() => {
      plans++;
      return { writes: [{ path: ["a"], row: "x" }], expect: [{ key: ["fence"], revision: 1n }], result: () => {} };
    });
    await assert.rejects(writing, { code: "conflict" });
    assert.equal(plans, 1);
    assert.equal(table.get("a"), undefined);
  });

  it("finds out what became of a commit that was not answered, before anybody writes again", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await using table = await open(storage);
    storage.faults.push("unanswered");
    await assert.rejects(put(table, "a", "written"), { code: "unavailable" });
    assert.equal(table.get("a")?.row, "written");
    storage.faults.push("lost");
    await assert.rejects(put(table, "b", "not written"), { code: "unavailable" });
    assert.equal(table.get("b"), undefined);
    await put(table, "a", "next");
    assert.deepEqual(contents(table), ["next"]);
  });

  it("answers a plan that writes nothing only once it is known what became of the commit before", async () => {
    const storage = new FaultyStorage(memoryStorage());
    const { changes } = storage;
    // Followers of the storage get no report.
    storage.changes = async function* () {
      storage.changes = changes;
      await new Promise(() => {});
    };
    const table = await open(storage);
    storage.faults.push("unanswered");
    await assert.rejects(put(table, "a", "written"), { code: "unavailable" });
    assert.equal(table.get("a"), undefined);
    assert.equal(await table.write(() => ({ writes: [], result: () => table.get("a")?.row })), "written");
  });

  it("asks again until the storage says what became of it, and reports that it does not", async () => {
    const storage = new FaultyStorage(memoryStorage());
    const clock = new ManualClock(0);
    const incidents = new Incidents({ clock });
    // Nothing is followed, so that only what the write does can find it out.
    storage.changesFail = true;
    await using table = await open(storage, { clock, incidents });
    storage.faults.push("unanswered");
    storage.readsFail = true;
    await assert.rejects(put(table, "a", "written"), { code: "unavailable" });
    assert.equal(table.get("a"), undefined);
    storage.readsFail = false;
    storage.changesFail = false;
    const known = until(table, () => table.get("a")?.row === "written");
    await clock.advance(60_000);
    await known;
    assert.ok((incidents.counts().get("storage-not-followed") ?? 0) > 0);
  });

  it("reads all again where the storage does not remember what changed, and tells only what differs", async () => {
    const storage = memoryStorage();
    await using writer = await open(storage);
    await put(writer, "same", "s");
    await put(writer, "removed", "r");
    const decoded: string[] = [];
    const { resetting, release } = storageThatResets(storage);
    await using reader = await open(resetting, { format: textFormat(decoded) });
    decoded.length = 0;
    const told: TableChange<string>[] = [];
    reader.onChange((change) => told.push(change));
    await put(writer, "removed", undefined);
    await put(writer, "added", "a");
    release();
    await until(reader, () => reader.get("added") !== undefined);
    assert.deepEqual(contents(reader), ["a", "s"]);
    assert.deepEqual(decoded, ["added"]);
    assert.deepEqual(told.flatMap(({ changes }) => changes.map(({ path }) => path.join())).sort(), [
      "added",
      "removed",
    ]);
  });

  it("is not opened with a row that cannot be read, and names it", async () => {
    const storage = memoryStorage();
    await storage.commit([{ key: [...PREFIX, "bad"], value: Buffer.from("?") }]);
    await assert.rejects(open(storage), {
      code: "storage-failed",
      message: "stored thing things/bad is damaged: no row",
    });
    const damaging = new FaultyStorage(storage);
    damaging.pages = async function* () {
      yield { entries: [], damaged: [{ key: [...PREFIX, "bad"], revision: 1n }], revision: 1n };
    };
    await assert.rejects(open(damaging), { code: "storage-damaged", damagedKeys: [[...PREFIX, "bad"]] });
  });

  it("does not delete a damaged row that another process writes again while the table is opened", async () => {
    const storage = memoryStorage();
    for (const name of ["a", "b", "c"]) await storage.commit([{ key: [...PREFIX, name], value: Buffer.from("?") }]);
    const racing = new FaultyStorage(storage);
    racing.pages = async function* (...given) {
      yield* storage.pages(...given);
      await storage.commit([{ key: [...PREFIX, "b"], value: Buffer.from("newer") }]);
    };
    const expendable = { has: () => true, incident: "thing-damaged", message: "a thing is damaged" };
    await using table = await open(racing, { expendable });
    await until(table, () => table.get("b")?.row === "newer");
    assert.deepEqual(contents(table), ["newer"]);
    const { entries } = await storage.read(PREFIX);
    assert.deepEqual(
      entries.map(({ key }) => key.at(-1)),
      ["b"],
    );
  });

  it("keeps the row it has where another process writes one that cannot be read, and reports it", async () => {
    const storage = memoryStorage();
    const incidents = new Incidents();
    await using table = await open(storage, { incidents });
    await put(table, "a", "good");
    const told: TableChange<string>[] = [];
    table.onChange((change) => told.push(change));
    await storage.commit([{ key: [...PREFIX, "a"], value: Buffer.from("?") }]);
    await storage.commit([{ key: [...PREFIX, "b"], value: Buffer.from("fine") }]);
    await until(table, () => table.get("b") !== undefined);
    assert.equal(table.get("a")?.row, "good");
    assert.equal(incidents.counts().get("stored-row-damaged"), 1);
    assert.match(String(table.fault("a")), /no row/);
    assert.equal(table.fault("b"), undefined);
    assert.deepEqual(
      told.flatMap(({ faults }) => faults),
      [["a"]],
    );
    assert.deepEqual(
      told.flatMap(({ changes }) => changes.map(({ path }) => path)),
      [["b"]],
    );
  });

  for (const [what, mend] of [
    ["is written over", (table: StoredTable<string>) => put(table, "a", "new")],
    [
      "is removed by another process",
      (_: StoredTable<string>, storage: Storage) => storage.commit([{ key: [...PREFIX, "a"], value: undefined }]),
    ],
    [
      "can be read again",
      (_: StoredTable<string>, storage: Storage) =>
        storage.commit([{ key: [...PREFIX, "a"], value: Buffer.from("x") }]),
    ],
  ] as const) {
    it(`says of a row that it cannot be read, until it ${what}`, async () => {
      const storage = memoryStorage();
      await storage.commit([{ key: [...PREFIX, "a"], value: Buffer.from("?") }]);
      const incidents = new Incidents();
      const expendable = { has: () => true, mayDelete: () => false, incident: "thing-damaged", message: "damaged" };
      await using table = await open(storage, { incidents, expendable });
      assert.match(String(table.fault("a")), /no row/);
      assert.equal(table.get("a"), undefined);
      await mend(table, storage);
      await storage.commit([{ key: [...PREFIX, "b"], value: Buffer.from("fine") }]);
      await until(table, () => table.get("b") !== undefined);
      assert.equal(table.fault("a"), undefined);
    });
  }

  it("says of a row whose value is not what was stored that it cannot be read", async () => {
    const inner = memoryStorage();
    const damaged = new Set<string>();
    const storage = storageWithDamage(inner, ({ key }) => damaged.has(key.join("/")));
    const expendable = { has: () => true, mayDelete: () => false, incident: "thing-damaged", message: "damaged" };
    await inner.commit([{ key: [...PREFIX, "a"], value: Buffer.from("good") }]);
    damaged.add("things/a");
    const incidents = new Incidents();
    await using table = await open(storage, { incidents, expendable });
    assert.match(String(table.fault("a")), /it is not what was stored/);
    assert.equal(table.get("a"), undefined);
    assert.equal(incidents.counts().get("thing-damaged"), 1);
    assert.equal((await inner.read([...PREFIX, "a"])).entries.length, 1);
    await put(table, "a", "new");
    assert.equal(table.fault("a"), undefined);
    assert.equal(table.get("a")?.row, "new");
  });

  it("keeps the row it has where all is read again and its value is not what was stored", async () => {
    const storage = memoryStorage();
    await using writer = await open(storage);
    await put(writer, "a", "good");
    let isDamaged = false;
    const damaging = storageWithDamage(storage, ({ key }) => isDamaged && key.at(-1) === "a");
    const { resetting, release } = storageThatResets(damaging);
    const expendable = { has: () => true, mayDelete: () => false, incident: "thing-damaged", message: "damaged" };
    await using reader = await open(resetting, { expendable });
    const told: TableChange<string>[] = [];
    reader.onChange((change) => told.push(change));
    await put(writer, "b", "new");
    isDamaged = true;
    release();
    await until(reader, () => reader.get("b") !== undefined);
    assert.equal(reader.get("a")?.row, "good");
    assert.match(String(reader.fault("a")), /it is not what was stored/);
    assert.deepEqual(
      told.map(({ changes, faults }) => [changes.map(({ path }) => path), faults]),
      [[[["b"]], [["a"]]]],
    );
  });

  it("deletes a damaged row that it may delete, which is none that cannot be read then", async () => {
    const inner = memoryStorage();
    await inner.commit([{ key: [...PREFIX, "a"], value: Buffer.from("bad") }]);
    const storage = storageWithDamage(inner, ({ value }) => Buffer.from(value).toString() === "bad");
    const expendable = { has: () => true, incident: "thing-damaged", message: "damaged" };
    await using table = await open(storage, { expendable });
    assert.deepEqual((await inner.read([...PREFIX, "a"])).entries, []);
    await put(table, "b", "good");
    await inner.commit([{ key: [...PREFIX, "c"], value: Buffer.from("good") }]);
    await until(table, () => table.get("c") !== undefined);
    assert.equal(table.fault("a"), undefined);
  });

  it("keeps the rows as they are while a plan takes its time", async () => {
    const storage = memoryStorage();
    await using mine = await open(storage);
    await using other = await open(storage);
    const seen: (string | undefined)[] = [];
    const written = mine.write(async () => {
      seen.push(mine.get("a")?.row);
      if (seen.length === 1) {
        await put(other, "a", "theirs");
        await storage.read([]);
      }
      assert.equal(mine.get("a")?.row, seen.at(-1));
      return { writes: [{ path: ["b"], row: `after ${seen.at(-1)}` }], result: () => mine.get("b")?.row };
    });
    assert.equal(await written, "after theirs");
    assert.deepEqual(seen, [undefined, "theirs"]);
    await assert.rejects(
      mine.write(async () => {
        throw new RangeError("not today");
      }),
      RangeError,
    );
  });

  it("decides on the newest rows where a plan asks for them, also when it writes nothing", async () => {
    const storage = new FaultyStorage(memoryStorage());
    // It is told nothing by itself.
    const deaf = new FaultyStorage(storage);
    deaf.changes = async function* (prefix, after, signal) {
      if (told) yield* storage.changes(prefix, after, signal);
    };
    let told = false;
    await using mine = await open(deaf);
    await using other = await open(storage);
    await put(other, "a", "theirs");
    told = true;
    const read = (): TablePlan<string, string | undefined> => ({ writes: [], result: () => mine.get("a")?.row });
    assert.equal(await mine.write(read), undefined);
    assert.equal(await mine.write(read, { current: true }), "theirs");
    const { reads } = deaf;
    assert.equal(await mine.write(read, { current: true }), "theirs");
    assert.equal(deaf.reads, reads + 1);
  });

  it("writes outdated rows again when it is opened, in commits that the storage takes", async () => {
    const storage = memoryStorage({ limits: { writes: 4 } });
    const names = Array.from({ length: 10 }, (_, index) => `row${index}`);
    for (const name of names) await storage.commit([{ key: [...PREFIX, name], value: Buffer.from("old:x") }]);
    await using table = await open(storage);
    assert.equal([...table.rows()].length, 10);
    const { entries } = await storage.read(PREFIX);
    for (const { value } of entries) assert.doesNotMatch(Buffer.from(value).toString(), /old/);
    assert.equal(table.get("row0")?.created, 1n);
  });

  it("puts rows of callers that wait at the same time into one commit, the last of each row", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await using table = await open(storage);
    const told: TableChange<string>[] = [];
    table.onChange((change) => told.push(change));
    const names = Array.from({ length: 20 }, (_, index) => `row${index}`);
    await Promise.all([
      ...names.map((name) => table.put([{ path: [name], row: "x" }])),
      table.put([
        { path: ["row0"], row: undefined },
        { path: ["row1"], row: "last" },
      ]),
    ]);
    assert.ok(storage.commits <= 2, `${storage.commits} commits`);
    assert.equal(table.get("row0"), undefined);
    assert.equal(table.get("row1")?.row, "last");
    assert.equal([...table.rows()].length, 19);
    await table.put([]);
    assert.ok(storage.commits <= 2);
    await using again = await open(storage);
    assert.deepEqual(contents(again), contents(table));
    for (const { changes } of told) assert.equal(new Set(changes.map(({ path }) => path.join())).size, changes.length);
  });

  it("puts no more into one commit than the storage takes", async () => {
    const limited = new FaultyStorage(memoryStorage({ limits: { writes: 4 } }));
    await using table = await open(limited);
    const rows = Array.from({ length: 10 }, (_, index) => ({ path: [`a${index}`], row: "x" }));
    await Promise.all([
      table.put(rows),
      ...["b", "c", "d", "e"].map((name) => table.put([{ path: [name], row: "y" }])),
    ]);
    assert.equal([...table.rows()].length, 14);
    assert.ok(limited.commits >= 5 && limited.commits <= 7, `${limited.commits} commits`);
  });

  it("tells each of those who share a commit that it failed, and none who comes later", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await using table = await open(storage);
    storage.faults.push("refused");
    const results = await Promise.allSettled(["a", "b"].map((name) => table.put([{ path: [name], row: "x" }])));
    assert.deepEqual(
      results.map(({ status }) => status),
      ["rejected", "rejected"],
    );
    await table.put([{ path: ["c"], row: "x" }]);
    assert.deepEqual(contents(table), ["x"]);
    await table[Symbol.asyncDispose]();
    await assert.rejects(table.put([{ path: ["d"], row: "x" }]), { code: "closed" });
  });

  it("commits with the durability that it was given", async () => {
    for (const durability of ["durable", "relaxed"] as const) {
      const storage = new FaultyStorage(memoryStorage());
      const seen: unknown[] = [];
      const { commit } = storage;
      storage.commit = (writes, expect, options) => {
        seen.push(options?.durability);
        return commit(writes, expect, options);
      };
      await using table = await open(storage, { durability });
      await table.put([{ path: ["a"], row: "x" }]);
      assert.deepEqual(seen, [durability]);
    }
  });

  it("has rows of any name where its head has a name of its own", async () => {
    const storage = memoryStorage();
    await using mine = await open(storage, { head: "" });
    await using other = await open(storage, { head: "" });
    await mine.put([{ path: ["head"], row: "x" }]);
    await until(other, () => other.get("head")?.row === "x");
    await using again = await open(storage, { head: "" });
    assert.deepEqual(contents(again), ["x"]);
    assert.equal(again.revision, mine.revision);
  });

  it("refuses writes once it is closed, and leaves the storage open", async () => {
    const storage = memoryStorage();
    const table = await open(storage);
    const writing = put(table, "a", "one");
    await table[Symbol.asyncDispose]();
    await writing;
    await assert.rejects(put(table, "b", "two"), { code: "closed" });
    assert.equal((await storage.read([...PREFIX, "a"])).entries.length, 1);
  });

  it("tells no listener that was taken back", async () => {
    await using table = await open(memoryStorage());
    let told = 0;
    const stop = table.onChange(() => told++);
    await put(table, "a", "one");
    stop();
    await put(table, "a", "two");
    assert.equal(told, 1);
  });

  it("holds the storage's rows at rest, whatever fails and whichever process writes", async () => {
    const names = fc.constantFrom("a", "b", "c");
    const step = fc.record({
      table: fc.nat(2),
      name: names,
      row: fc.option(fc.constantFrom("x", "y", "z"), { nil: undefined }),
      fault: fc.option(fc.constantFrom<Fault>("refused", "lost", "unanswered"), { nil: undefined, freq: 4 }),
      waits: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const storage = memoryStorage();
        const parts = await Promise.all(
          Array.from({ length: 3 }, async () => {
            const faulty = new FaultyStorage(storage);
            const table = await open(faulty);
            const copy = new Map<string, string>();
            table.onChange(({ changes }) => {
              for (const { path, before, after } of changes) {
                assert.equal(copy.get(path.join()), before?.row, "each change begins where the one before ended");
                assert.notEqual(before?.revision, after?.revision, "none is told twice");
                if (after === undefined) copy.delete(path.join());
                else copy.set(path.join(), after.row);
              }
            });
            return { faulty, table, copy };
          }),
        );
        const writing: Promise<unknown>[] = [];
        for (const { table: index, name, row, fault, waits } of steps) {
          const part = parts[index] ?? assert.fail("no such table");
          if (fault !== undefined) part.faulty.faults.push(fault);
          const written = put(part.table, name, row).catch((error: unknown) => {
            assert.ok(error instanceof PeeringError && ["storage-failed", "unavailable"].includes(error.code));
          });
          if (waits) await written;
          writing.push(written);
        }
        await Promise.all(writing);
        const { entries } = await storage.read(PREFIX);
        const expected = entries
          .filter(({ key }) => key[1] !== "head")
          .map(({ key, value, revision }) => [key[1], Buffer.from(value).toString().split("@")[0], revision]);
        const newest = entries.find(({ key }) => key[1] === "head")?.revision ?? 0n;
        for (const { table, copy } of parts) {
          await until(table, () => table.revision === newest);
          const held = ["a", "b", "c"].flatMap((name) => {
            const stored = table.get(name);
            return stored === undefined ? [] : [[name, stored.row, stored.revision]];
          });
          assert.deepEqual(held, expected);
          assert.deepEqual(
            [...copy].sort(),
            expected.map(([name, row]) => [name, row]),
          );
          await table[Symbol.asyncDispose]();
        }
      }),
      { numRuns: 300 },
    );
  });
});
