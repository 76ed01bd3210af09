import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { PeeringError } from "../base/errors.js";
import { cutWrites } from "../storage/limits.js";
import type {
  Entry,
  Expectation,
  Key,
  Snapshot,
  Storage,
  StorageChanges,
  StoragePage,
  Write,
} from "../storage/storage.js";

/** So often each file is damaged. */
const DAMAGES = 12;
/** Commits that a loss of power may take. */
const RELAXED = 20;

export interface StorageSuiteOptions {
  /** Whether commits are found again when the same directory is opened again. Default false. */
  readonly durable?: boolean;
  /**
   * Whether what it keeps lies in files of the directory. Then no other user may read these, a second one is `locked` by
   * whatever path it comes, and damage is noticed: a read gives the committed bytes or fails. Default false.
   */
  readonly files?: boolean;
  /**
   * Whether relaxed commits lie in files that grow and are not synced: then a loss of power leaves the directory as it was at the
   * last durable commit, or with some of what was appended since. Default false: relaxed commits are as durable as others.
   */
  readonly losesRelaxed?: boolean;
}

/**
 * Registers with `node:test` what every {@link Storage} must do, for the one `open` returns.
 * @param open - a storage never written to, for a directory that exists, is empty, and is removed after the test;
 *   storages that need none ignore it. The suite disposes of the storages it opens.
 */
export function storageSuite(
  name: string,
  open: (directory: string) => Promise<Storage>,
  options: StorageSuiteOptions = {},
): void {
  const withDirectory = async (action: (directory: string) => Promise<void>): Promise<void> => {
    const directory = await mkdtemp(join(tmpdir(), "peerage-storage-"));
    try {
      await action(directory);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  };
  const test = (title: string, action: (storage: Storage) => Promise<void>): void => {
    it(title, () =>
      withDirectory(async (directory) => {
        await using storage = await open(directory);
        await action(storage);
      }),
    );
  };

  describe(`${name} storage`, () => {
    test("never written: no entries, and a revision below that of the first commit", async (storage) => {
      const { entries, revision } = await storage.read([]);
      assert.deepEqual(entries, []);
      assert.ok(revision >= 0n);
      assert.ok((await storage.commit([put(["a"], "1")])) > revision);
    });

    test("a commit is read back, each entry with the revision that wrote it", async (storage) => {
      const first = await storage.commit([put(["a"], "1"), put(["b"], "1")]);
      const second = await storage.commit([put(["b"], "2")]);
      assert.ok(second > first && first > 0n);
      const { entries, revision } = await storage.read([]);
      assert.equal(revision, second);
      assert.deepEqual(entries, [
        { key: ["a"], value: bytes("1"), revision: first },
        { key: ["b"], value: bytes("2"), revision: second },
      ]);
    });

    test("a prefix names its own entry and everything below it, whole parts only", async (storage) => {
      const below: Key[] = [["a"], ["a", ""], ["a", "", "x"], ["a", "\0"], ["a", "b"], ["a", "b", "c"], ["a", "ü"]];
      const beside: Key[] = [[""], ["", "a"], ["a\0"], ["a\0", "b"], ["a\u00ff"], ["a/b"], ["aa"], ["A"], ["b", "a"]];
      await storage.commit([...below, ...beside].map((key) => put(key, "")));
      assert.deepEqual(keys((await storage.read(["a"])).entries), below);
      assert.deepEqual(keys((await storage.read(["a", "b"])).entries), [
        ["a", "b"],
        ["a", "b", "c"],
      ]);
      assert.deepEqual((await storage.read(["a", "b", "c", "d"])).entries, []);
      assert.equal((await storage.read([])).entries.length, below.length + beside.length);
    });

    test("pages hold each entry once, in order, and no more bytes than are asked for", async (storage) => {
      const all: Key[] = [
        ["a"],
        ["a", ""],
        ["a", "\0"],
        ["a", "b"],
        ["a", "b", "c"],
        ["a", "c"],
        ["a", "ü"],
        ["a", "ü", ""],
      ];
      const beside: Key[] = [[""], ["a\0"], ["aa"], ["b"]];
      const sizes = [0, 10, 3, 0, 7, 25, 1, 2];
      const revision = await storage.commit([
        ...all.map((key, index) => put(key, "x".repeat(sizes[index] ?? 0))),
        ...beside.map((key) => put(key, "y")),
      ]);
      for (const [bytes, count] of [
        [1, 6],
        [10, 4],
        [100, 1],
        [Number.POSITIVE_INFINITY, 1],
      ] as const) {
        const found: Entry[] = [];
        let pages = 0;
        for await (const page of storage.pages(["a"], bytes)) {
          const before = page.entries.slice(0, -1).reduce((sum, { value }) => sum + value.length, 0);
          assert.ok(before < bytes, "the page was full before its last entry");
          assert.ok(page.entries.length > 0, "a page has an entry as long as any are left");
          assert.deepEqual({ ...page, entries: [] }, { entries: [], damaged: [], revision });
          found.push(...page.entries);
          pages++;
        }
        assert.deepEqual(found, (await storage.read(["a"])).entries);
        assert.deepEqual(keys(found), all);
        assert.equal(pages, count, "a page is full no sooner");
      }
    });

    test("there is a page of nothing", async (storage) => {
      const revision = await storage.commit([put(["a"], "1")]);
      assert.deepEqual(await pagesOf(storage, ["b"], 10), [{ entries: [], damaged: [], revision }]);
    });

    test("all pages are of one revision, while others write", async (storage) => {
      const count = 12;
      const value = (round: number): string => `${round}`.padStart(10, "0");
      const all = Array.from({ length: count }, (_, index): Key => ["a", `${index}`]);
      const revision = await storage.commit(all.map((key) => put(key, value(0))));
      const before = await storage.read(["a"]);
      const found: Entry[] = [];
      let round = 0;
      for await (const page of storage.pages(["a"], 50)) {
        round++;
        await storage.commit([
          ...all.map((key) => put(key, value(round))),
          remove(["a", `${round}`]),
          put(["a", "0", "x"], ""),
        ]);
        assert.equal(page.revision, revision);
        found.push(...page.entries);
      }
      assert.ok(round > 2, "it was more than a page");
      assert.deepEqual(found, before.entries);
    });

    test("a reading that is left early, or aborted, or of a storage that closes, ends", async (storage) => {
      await storage.commit(Array.from({ length: 12 }, (_, index) => put(["a", `${index}`], "1")));
      for await (const _ of storage.pages(["a"], 1)) break;
      const reason = new Error("enough");
      await assert.rejects(pagesOf(storage, ["a"], 1, AbortSignal.abort(reason)), (error) => error === reason);
      const controller = new AbortController();
      const aborting = async (): Promise<void> => {
        for await (const _ of storage.pages(["a"], 1, controller.signal)) controller.abort(reason);
      };
      await assert.rejects(aborting(), (error) => error === reason);
      const left = storage.pages(["a"], 1)[Symbol.asyncIterator]();
      await left.next();
      await storage[Symbol.asyncDispose]();
      await assert.rejects(async () => {
        while ((await left.next()).done !== true);
      }, withCode("closed"));
      await assert.rejects(pagesOf(storage, ["a"], 1), withCode("closed"));
    });

    test("entries come in key order, parts compared as UTF-8 bytes", async (storage) => {
      // U+FF61 sorts before U+1F600 in UTF-8 and after it in UTF-16.
      const parts = [
        "",
        "\0",
        "\0\0",
        "\0a",
        "\u0001",
        "-",
        "0",
        "A",
        "a",
        "a\0",
        "a b",
        "aa",
        "ü",
        "\uff61",
        "\u{1f600}",
      ];
      const expected = parts.flatMap((part) => [[part], [part, ""], [part, "a"], [part, "\u{1f600}"]]);
      await commitAll(storage, expected.map((key) => put(key, "")).reverse());
      assert.deepEqual(keys((await storage.read([])).entries), expected);
    });

    test("an empty value is a value", async (storage) => {
      const revision = await storage.commit([put(["a"], "")]);
      assert.deepEqual((await storage.read(["a"])).entries, [{ key: ["a"], value: new Uint8Array(), revision }]);
    });

    test("values keep every byte", async (storage) => {
      const length = Math.min(100_000, storage.limits.bytes - 1);
      const value = new Uint8Array(length).map((_, index) => (index * 31) % 256);
      await storage.commit([{ key: ["a"], value }]);
      assert.deepEqual((await storage.read(["a"])).entries[0]?.value, value);
    });

    test("undefined deletes, also a missing key", async (storage) => {
      await storage.commit([put(["a"], "1"), put(["a", "b"], "1")]);
      const revision = await storage.commit([remove(["a"]), remove(["z"])]);
      const snapshot = await storage.read([]);
      assert.deepEqual(keys(snapshot.entries), [["a", "b"]]);
      assert.equal(snapshot.revision, revision);
    });

    test("a key written twice keeps the later write", async (storage) => {
      await storage.commit([put(["a"], "1"), put(["a"], "2"), put(["b"], "1"), remove(["b"])]);
      await storage.commit([remove(["c"]), put(["c"], "3")]);
      assert.deepEqual(contents((await storage.read([])).entries), { a: "2", c: "3" });
    });

    test("expectations that hold let the commit through", async (storage) => {
      const first = await storage.commit([put(["a"], "1")], [{ key: ["a"], revision: undefined }]);
      const second = await storage.commit(
        [put(["a"], "2"), put(["b"], "2")],
        [
          { key: ["a"], revision: first },
          { key: ["b"], revision: undefined },
        ],
      );
      await storage.commit([remove(["a"])], [{ key: ["a"], revision: second }]);
      await storage.commit([put(["a"], "3")], [{ key: ["a"], revision: undefined }]);
      assert.deepEqual(contents((await storage.read([])).entries), { a: "3", b: "2" });
    });

    test("an expectation that fails rejects with conflict and writes nothing", async (storage) => {
      const first = await storage.commit([put(["a"], "1")]);
      const second = await storage.commit([put(["a"], "2"), put(["a", "b"], "2")]);
      const before = await storage.read([]);
      const refused: Expectation[] = [
        { key: ["a"], revision: first },
        { key: ["a"], revision: undefined },
        { key: ["a"], revision: second + 1n },
        { key: ["z"], revision: second },
      ];
      for (const expectation of refused) {
        const held = { key: ["a", "b"], revision: second };
        await assert.rejects(
          storage.commit([put(["x"], "9"), put(["a"], "9"), remove(["a", "b"])], [held, expectation]),
          withCode("conflict"),
        );
      }
      assert.deepEqual(await storage.read([]), before);
    });

    test("an expectation is of one entry, not of the keys below it", async (storage) => {
      await storage.commit([put(["a", "b"], "1")]);
      await storage.commit([put(["c"], "1")], [{ key: ["a"], revision: undefined }]);
      assert.deepEqual(contents((await storage.read(["c"])).entries), { c: "1" });
    });

    test("of commits that expect the same, made at once, exactly one goes through", async (storage) => {
      const revision = await storage.commit([put(["a"], "start")]);
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, index) =>
          storage.commit([put(["a"], `${index}`), put(["by", `${index}`], "")], [{ key: ["a"], revision }]),
        ),
      );
      const winners = outcomes.flatMap((outcome, index) => (outcome.status === "fulfilled" ? [`${index}`] : []));
      assert.equal(winners.length, 1);
      for (const outcome of outcomes) if (outcome.status === "rejected") withCode("conflict")(outcome.reason);
      assert.deepEqual(contents((await storage.read([])).entries), { a: winners[0], [`by/${winners[0]}`]: "" });
    });

    test("commits take effect in the order of the calls, and each sees those before it", async (storage) => {
      const order: number[] = [];
      const revisions = await Promise.all(
        Array.from({ length: 50 }, async (_, index) => {
          const expect = { key: [`${index - 1}`], revision: undefined };
          const write = storage.commit([put([`${index}`], ""), put(["last"], `${index}`)]);
          // The one before is written by the time this one is judged.
          if (index > 0) await assert.rejects(storage.commit([put(["never"], "")], [expect]), withCode("conflict"));
          const revision = await write;
          order.push(index);
          return revision;
        }),
      );
      assert.deepEqual(
        revisions,
        revisions.toSorted((a, b) => (a < b ? -1 : 1)),
      );
      assert.equal(new Set(revisions).size, revisions.length);
      assert.equal(order.length, 50);
      assert.deepEqual(contents((await storage.read(["last"])).entries), { last: "49" });
      assert.deepEqual((await storage.read(["never"])).entries, []);
    });

    test("a refused commit does not touch those beside it", async (storage) => {
      const outcomes = await Promise.allSettled([
        storage.commit([put(["a"], "1")]),
        storage.commit([put(["b"], "1"), remove(["a"])], [{ key: ["a"], revision: undefined }]),
        storage.commit([put(["c"], "1")]),
      ]);
      assert.deepEqual(
        outcomes.map((outcome) => outcome.status),
        ["fulfilled", "rejected", "fulfilled"],
      );
      assert.deepEqual(contents((await storage.read([])).entries), { a: "1", c: "1" });
    });

    test("reads show one moment while commits run", async (storage) => {
      const writing = (async () => {
        for (let round = 1; round <= 100; round++) {
          const value = `${round}`;
          await storage.commit([put(["x", "first"], value), put(["x", "last"], value), remove(["x", `${round - 1}`])]);
          await storage.commit([put(["x", value], value)]);
        }
      })();
      const { revision: first } = await storage.read([]);
      let newest = first;
      for (let read = 0; read < 100; read++) {
        const { entries, revision } = await storage.read(["x"]);
        assert.ok(revision >= newest, "revisions only grow");
        newest = revision;
        const found = contents(entries);
        assert.equal(found["x/first"], found["x/last"]);
        assert.ok(entries.length <= 3);
        const newestEntry = entries.some((entry) => entry.revision === revision);
        assert.ok(
          newestEntry || revision === first,
          "every commit wrote here, so the snapshot's revision is an entry's",
        );
      }
      await writing;
    });

    test("the writes of a commit are in every read begun after it resolved", async (storage) => {
      for (let round = 0; round < 20; round++) {
        const revision = await storage.commit([put(["a"], `${round}`)]);
        const snapshot = await storage.read(["a"]);
        assert.equal(snapshot.revision, revision);
        assert.deepEqual(contents(snapshot.entries), { a: `${round}` });
      }
    });

    test("a read whose signal is aborted rejects with the reason", async (storage) => {
      const reason = new Error("enough");
      await assert.rejects(storage.read(["a"], AbortSignal.abort(reason)), (error) => error === reason);
    });

    test("changes yields writes and deletions under its prefix, and nothing else", async (storage) => {
      const { revision } = await storage.read([]);
      await using following = follow(storage, ["a"], revision);
      const next = following.next();
      await storage.commit([put(["b"], "1")]);
      await storage.commit([put(["aa"], "1"), put(["a\0"], "1")]);
      const changed = await storage.commit([put(["b"], "2"), put(["a", "x"], "1"), put(["a"], "")]);
      assert.deepEqual(await next, {
        type: "changed",
        entries: [
          { key: ["a"], value: bytes(""), revision: changed },
          { key: ["a", "x"], value: bytes("1"), revision: changed },
        ],
        removed: [],
        revision: changed,
      });
      const removing = following.next();
      const removed = await storage.commit([remove(["b"]), remove(["a", "x"])]);
      assert.deepEqual(await removing, {
        type: "changed",
        entries: [],
        removed: [{ key: ["a", "x"], revision: removed }],
        revision: removed,
      });
    });

    test("changes delivers the changes between the read and its own begin: of each key the newest", async (storage) => {
      await storage.commit([put(["a", "gone"], "1"), put(["a", "same"], "1")]);
      const { revision } = await storage.read(["a"]);
      await storage.commit([put(["a", "again"], "1"), put(["a", "twice"], "1"), remove(["a", "back"])]);
      await storage.commit([put(["a", "twice"], "2"), remove(["a", "gone"]), remove(["a", "again"])]);
      await storage.commit([put(["a", "back"], "3"), put(["b"], "1")]);
      await using following = follow(storage, ["a"], revision);
      const copy = new Replica();
      copy.take(await following.next());
      assert.deepEqual(copy.told, [
        ["a/again", undefined],
        ["a/back", "3"],
        ["a/gone", undefined],
        ["a/twice", "2"],
      ]);
      assert.ok((await storage.read(["b"])).revision === copy.revision, "it knows everything up to the newest one");
    });

    test("changes begun at the newest revision tells nothing older", async (storage) => {
      await storage.commit([put(["a"], "1")]);
      const { revision } = await storage.read(["a"]);
      await using following = follow(storage, ["a"], revision);
      const next = following.next();
      const changed = await storage.commit([put(["a"], "2")]);
      assert.deepEqual(await next, {
        type: "changed",
        entries: [{ key: ["a"], value: bytes("2"), revision: changed }],
        removed: [],
        revision: changed,
      });
    });

    test("changes that fall together come as one, with the newest of each key", async (storage) => {
      await using following = follow(storage, ["a"], (await storage.read([])).revision);
      const copy = new Replica();
      const first = following.next();
      await storage.commit([put(["a"], "0")]);
      copy.take(await first);
      let newest = 0n;
      for (let round = 1; round <= 50; round++) {
        newest = await storage.commit([put(["a"], `${round}`), put(["a", `${round % 3}`], `${round}`)]);
        if (round % 5 === 0) newest = await storage.commit([remove(["a", "0"])]);
      }
      while (copy.revision < newest) copy.take(await following.next());
      assert.deepEqual(copy.contents, contents((await storage.read(["a"])).entries));
      const next = following.next();
      const later = await storage.commit([put(["a"], "later")]);
      assert.equal((await next)?.revision, later);
    });

    test("a key that one commit writes and deletes is delivered in its last state", async (storage) => {
      await using following = follow(storage, ["a"], (await storage.read([])).revision);
      const next = following.next();
      await storage.commit([put(["a", "1"], "x"), remove(["a", "1"]), remove(["a", "2"]), put(["a", "2"], "y")]);
      const copy = new Replica();
      copy.take(await next);
      assert.deepEqual(copy.told, [
        ["a/1", undefined],
        ["a/2", "y"],
      ]);
    });

    test("a reader that has taken all changes has the same state as a read", async (storage) => {
      const following = follow(storage, ["n"], (await storage.read([])).revision);
      const copy = new Replica();
      const reading = (async () => {
        await using _ = following;
        while (copy.contents["n/last"] !== "200") copy.take(await following.next());
      })();
      for (let round = 1; round <= 200; round++) {
        await storage.commit([
          put(["n", `${round % 7}`], `${round}`),
          remove(["n", `${round % 5}`]),
          put(["n", "last"], `${round}`),
        ]);
      }
      await reading;
      assert.deepEqual(copy.contents, contents((await storage.read(["n"])).entries));
    });

    test("a reader far behind gets the changes, or has to read again; either way it then knows all", async (storage) => {
      const { revision } = await storage.commit([put(["a", "first"], "1")]).then(() => storage.read([]));
      const slow = follow(storage, ["a"], revision);
      await using _ = slow;
      const copy = new Replica();
      const first = slow.next();
      await storage.commit([put(["a", "second"], "1"), remove(["a", "first"])]);
      copy.take(await first);
      // More than any storage remembers, if it forgets at all.
      for (let round = 0; round < 12; round++) {
        const others = Array.from({ length: 500 }, (_, index) => put(["c", `${index}`], "x".repeat(2_000)));
        await commitAll(storage, others);
        await storage.commit([put(["a", `${round}`], "1"), remove(["a", `${round - 2}`])]);
      }
      const { entries } = await storage.read(["a"]);
      const late = follow(storage, ["a"], revision);
      await using __ = late;
      for (const reader of [slow, late]) {
        const changes = (await reader.next()) ?? assert.fail("it ended");
        if (changes.type === "changed" && reader === slow) {
          copy.take(changes);
          assert.deepEqual(copy.contents, contents(entries));
        }
        assert.equal(changes.revision, (await storage.read([])).revision);
      }
      const next = slow.next();
      const later = await storage.commit([put(["a", "later"], "1")]);
      assert.deepEqual(await next, {
        type: "changed",
        entries: [{ key: ["a", "later"], value: bytes("1"), revision: later }],
        removed: [],
        revision: later,
      });
    });

    test("a commit is delivered whole, however large, to every watcher", async (storage) => {
      await using following = follow(storage, ["a"], (await storage.read([])).revision);
      const next = following.next();
      const { limits } = storage;
      const count = Math.min(5_000, limits.writes);
      const size = Math.min(1_000, Math.floor(limits.bytes / count) - 5);
      const writes = Array.from({ length: count }, (_, index) => put(["a", `${index}`], "x".repeat(size)));
      const revision = await storage.commit(writes);
      const changes = (await next) ?? assert.fail("it ended");
      assert.ok(changes.type === "changed");
      assert.equal(changes.entries.length, writes.length);
      assert.equal(changes.revision, revision);
    });

    test("several readers of one prefix are each told every change", async (storage) => {
      const { revision } = await storage.read([]);
      await using one = follow(storage, ["a"], revision);
      await using two = follow(storage, [], revision);
      const waiting = Promise.all([one.next(), two.next()]);
      const changed = await storage.commit([put(["a"], "1")]);
      for (const changes of await waiting) assert.deepEqual([changes?.type, changes?.revision], ["changed", changed]);
    });

    test("changes ends quietly when aborted: before, while waiting, and with something to tell", async (storage) => {
      for await (const _ of storage.changes([], 0n, AbortSignal.abort())) assert.fail("aborted before");
      const { revision } = await storage.read([]);
      const waiting = follow(storage, ["a"], revision);
      const next = waiting.next();
      waiting.abort();
      assert.equal(await next, undefined);
      const telling = follow(storage, ["a"], revision);
      const first = telling.next();
      await storage.commit([put(["a"], "1")]);
      await first;
      await storage.commit([put(["a"], "2")]);
      telling.abort();
      assert.equal(await telling.next(), undefined);
    });

    test("a commit over the limits is refused and writes nothing", async (storage) => {
      const { limits } = storage;
      assert.ok(limits.writes >= 16 && limits.bytes >= 64 * 1024, "too little for any host");
      const before = await storage.commit([put(["a"], "1")]);
      const over: (readonly Write[])[] = [];
      if (limits.writes <= 100_000) {
        over.push(Array.from({ length: limits.writes + 1 }, (_, index) => put([`${index}`], "")));
      }
      if (limits.bytes <= 64 * 1024 * 1024)
        over.push([put(["a"], "2"), { key: ["b"], value: new Uint8Array(limits.bytes) }]);
      for (const writes of over) await assert.rejects(storage.commit(writes), withCode("resource-exhausted"));
      assert.deepEqual(contents((await storage.read([])).entries), { a: "1" });
      assert.equal((await storage.read([])).revision, before);
    });

    test("closed: changes end, calls reject with closed, closing twice is fine", async (storage) => {
      const following = follow(storage, ["a"], (await storage.read([])).revision);
      const next = following.next();
      await storage[Symbol.asyncDispose]();
      assert.equal(await next, undefined);
      for await (const _ of storage.changes([], 0n, new AbortController().signal)) assert.fail("closed before");
      await assert.rejects(storage.read([]), withCode("closed"));
      await assert.rejects(storage.commit([put(["a"], "1")]), withCode("closed"));
      await storage[Symbol.asyncDispose]();
    });

    test("closing while reads and commits run: each is answered", async (storage) => {
      await commitAll(
        storage,
        Array.from({ length: 2000 }, (_, index) => put(["a", `${index}`], "1")),
      );
      const running = Promise.allSettled([
        storage.read([]),
        storage.commit([put(["b"], "1")]),
        storage.commit([put(["b"], "2")], [{ key: ["b"], revision: undefined }]),
        storage.read(["a"]),
      ]);
      await storage[Symbol.asyncDispose]();
      for (const outcome of await running) {
        if (outcome.status === "rejected") withCode("closed", "conflict")(outcome.reason);
      }
    });

    for (const seed of [1, 2, 3, 4, 5]) {
      test(`any sequence of commits and reads agrees with a simple model (seed ${seed})`, (storage) =>
        compareWithModel(storage, seed));
    }

    if (options.durable === true) durableTests();
    if (options.files === true) fileTests();
    if (options.losesRelaxed === true) powerLossTests();
  });

  function durableTests(): void {
    it("opened again, it has every commit, and revisions go on growing", () =>
      withDirectory(async (directory) => {
        let before: Awaited<ReturnType<Storage["read"]>>;
        {
          await using storage = await open(directory);
          await storage.commit([put(["a"], "1"), put(["b", "\0ü\u{1f600}"], "2"), put(["c"], "")]);
          await storage.commit([remove(["a"]), put(["c"], "3")]);
          before = await storage.read([]);
        }
        await using storage = await open(directory);
        assert.deepEqual(await storage.read([]), before);
        await assert.rejects(storage.commit([], [{ key: ["c"], revision: 1n }]), withCode("conflict"));
        await using following = follow(storage, [], before.revision);
        const next = following.next();
        const revision = await storage.commit([put(["d"], "1")]);
        assert.ok(revision > before.revision);
        assert.equal((await next)?.revision, revision);
        // The changes of the last process may be forgotten, but not that there were some.
        await using early = follow(storage, ["c"], before.revision - 1n);
        assert.ok(((await early.next())?.revision ?? 0n) >= before.revision);
      }));

    it("a relaxed commit is delivered and read as others are, and found when it is opened again", () =>
      withDirectory(async (directory) => {
        let before: Snapshot;
        {
          await using storage = await open(directory);
          await using following = follow(storage, [], (await storage.read([])).revision);
          const next = following.next();
          const [relaxed, durable] = await Promise.all([
            storage.commit([put(["a"], "1")], [{ key: ["a"], revision: undefined }], { durability: "relaxed" }),
            storage.commit([put(["b"], "1")]),
          ]);
          const last = await storage.commit([put(["a"], "2")], [{ key: ["a"], revision: relaxed }], {
            durability: "relaxed",
          });
          assert.ok(relaxed < durable && durable < last);
          assert.equal((await next)?.type, "changed");
          before = await storage.read([]);
          assert.deepEqual(contents(before.entries), { a: "2", b: "1" });
        }
        await using storage = await open(directory);
        assert.deepEqual(await storage.read([]), before, "it was closed, so no revision need be skipped");
      }));

    it("in use, the directory is refused with locked, and the user is not disturbed", () =>
      withDirectory(async (directory) => {
        await using storage = await open(directory);
        await storage.commit([put(["a"], "1")]);
        await assert.rejects(open(directory), withCode("locked"));
        await storage.commit([put(["a"], "2")]);
        assert.deepEqual(contents((await storage.read([])).entries), { a: "2" });
      }));
  }

  function powerLossTests(): void {
    it("after a loss of power it has the durable commits, a beginning of the rest, and gives no revision twice", () =>
      withDirectory(async (root) => {
        const directory = join(root, "data");
        const copy = join(root, "copy");
        await mkdir(directory);
        /** By revision: how many relaxed commits there were. */
        const given = new Map<bigint, number>();
        {
          await using storage = await open(directory);
          await storage.commit([put(["durable", "1"], "1"), put(["count"], "0")]);
          await storage.commit([put(["early"], "")], [], { durability: "relaxed" });
          given.set(await storage.commit([put(["durable", "2"], "2")]), 0);
          await cp(directory, join(root, "before"), { recursive: true });
          for (let count = 1; count <= RELAXED; count++) {
            const writes = [put(["count"], `${count}`), put(["relaxed", `${count}`], relaxedText(count))];
            given.set(await storage.commit(writes, [], { durability: "relaxed" }), count);
          }
          await cp(directory, join(root, "after"), { recursive: true });
        }
        const counts = new Set<number>();
        for await (const loss of losses(root, copy)) {
          const count = await afterLoss(() => open(copy), given, loss);
          counts.add(count);
        }
        assert.ok(counts.has(0) && counts.has(RELAXED) && counts.size > 3, "nothing, all and something was left");
      }));

    it("a durable commit makes those before it durable", () =>
      withDirectory(async (root) => {
        const directory = join(root, "data");
        await mkdir(directory);
        await using storage = await open(directory);
        for (let count = 1; count <= 5; count++) {
          await storage.commit([put(["relaxed", `${count}`], "")], [], { durability: "relaxed" });
        }
        const last = storage.commit([put(["relaxed", "6"], "")], [], { durability: "relaxed" });
        const revision = await storage.commit([put(["durable"], "")]);
        await last;
        await cp(directory, join(root, "copy"), { recursive: true });
        await using copy = await open(join(root, "copy"));
        assert.deepEqual((await copy.read([])).entries, (await storage.read([])).entries);
        assert.ok((await copy.read([])).revision >= revision);
      }));
  }

  function fileTests(): void {
    it("in use, the directory is refused with locked by every other path, too", () =>
      withDirectory(async (root) => {
        const directory = join(root, "data");
        await mkdir(directory);
        await symlink(directory, join(root, "link"), "junction");
        await using storage = await open(directory);
        const paths = [`${directory}/`, `${directory}/.`, `${directory}/../data`, join(root, "link")];
        for (const path of paths) await assert.rejects(open(path), withCode("locked"), path);
        await storage.commit([put(["a"], "1")]);
        assert.deepEqual(contents((await storage.read([])).entries), { a: "1" });
      }));

    it("its files are closed to other users", { skip: process.getuid === undefined }, () =>
      withDirectory(async (directory) => {
        const files = async (): Promise<void> => {
          const names = await readdir(directory);
          assert.ok(names.length > 0, "it keeps files there");
          for (const name of names) assert.equal((await stat(join(directory, name))).mode & 0o077, 0, name);
        };
        {
          await using storage = await open(directory);
          await storage.commit([put(["a"], "1")]);
          await files();
        }
        await files();
      }),
    );

    it("with any byte changed, or any file cut short, it shows the committed data, or refuses", () =>
      withDirectory(async (root) => {
        const directory = join(root, "data");
        const expected = await fillForDamage(() => open(directory), directory);
        let refused = 0;
        for await (const damaged of damages(directory, join(root, "damaged"))) {
          const shown = await readDamaged(() => open(join(root, "damaged")));
          if (shown === undefined) refused++;
          else {
            assert.deepEqual(shown.entries, expected.entries, damaged);
            // The mark of a clean end may be lost; then it goes on above all revisions that it may have given.
            assert.ok(shown.revision >= expected.revision, damaged);
          }
        }
        assert.ok(refused > 0, "some of it mattered");
      }));
  }
}

/** Commits that write, replace and delete, by two lives of a storage: some are in tables, some in the log. */
async function fillForDamage(open: () => Promise<Storage>, directory: string): Promise<Snapshot> {
  await mkdir(directory);
  for (const life of ["first", "second"]) {
    await using storage = await open();
    for (let index = 0; index < 8; index++) {
      await storage.commit([put(["entry", `${index}`], `${life} value ${index}`), put([life, `${index}`], "")]);
    }
    await storage.commit([remove([life, "0"]), remove(["entry", "3"])]);
  }
  await using storage = await open();
  return await storage.read([]);
}

/** Makes one damaged copy after the other, each with a description of the damage. */
async function* damages(directory: string, copy: string): AsyncGenerator<string, void> {
  const random = randomNumbers(1);
  for (const name of await readdir(directory)) {
    const sound = await readFile(join(directory, name));
    for (let count = 0; count < Math.min(DAMAGES, sound.length); count++) {
      await rm(copy, { recursive: true, force: true });
      await cp(directory, copy, { recursive: true });
      // Spread over the file, and at its end, which is the easiest to lose.
      const at = Math.max(0, sound.length - 1 - Math.floor(((count + random()) * sound.length) / DAMAGES));
      const bit = 1 << Math.floor(random() * 8);
      if (count % 4 === 3) {
        await writeFile(join(copy, name), sound.subarray(0, at));
        yield `${name} cut at byte ${at}`;
      } else {
        const damaged = Uint8Array.from(sound);
        damaged[at] = (damaged[at] ?? 0) ^ bit;
        await writeFile(join(copy, name), damaged);
        yield `${name} with bit ${bit} of byte ${at} changed`;
      }
    }
  }
}

/** Everything there is; undefined: it is refused, as it must be. Entries that are named as damaged can be written over. */
async function readDamaged(open: () => Promise<Storage>): Promise<Snapshot | undefined> {
  const known = withCode("storage-damaged", "storage-failed");
  let storage: Storage;
  try {
    storage = await open();
  } catch (error) {
    known(error);
    return undefined;
  }
  await using opened = storage;
  try {
    return await opened.read([]);
  } catch (error) {
    known(error);
    const keys = error instanceof PeeringError ? error.damagedKeys : [];
    if (keys.length > 0) {
      await opened.commit(keys.map(remove));
      const { entries } = await opened.read([]);
      assert.ok(!entries.some(({ key }) => keys.some((damaged) => isDeepStrictEqual(damaged, key))));
    }
    return undefined;
  }
}

/** Many together are more than a storage reads, or checks, at a time. */
function relaxedText(count: number): string {
  return "x".repeat(4_000 + count);
}

/** Copies as a loss of power may leave the directory: nothing that was appended since, all of it, or some in any order. */
async function* losses(root: string, copy: string): AsyncGenerator<string, void> {
  const fresh = async (from: string): Promise<void> => {
    await rm(copy, { recursive: true, force: true });
    await cp(join(root, from), copy, { recursive: true });
  };
  await fresh("before");
  yield "all that was not synced is gone";
  await fresh("after");
  yield "nothing is gone";
  const grown: { readonly name: string; readonly whole: Buffer; readonly synced: number }[] = [];
  for (const name of await readdir(join(root, "after"))) {
    const whole = await readFile(join(root, "after", name));
    const before = await readFile(join(root, "before", name)).catch(() => Buffer.alloc(0));
    if (before.length > 0 && whole.length > before.length && whole.subarray(0, before.length).equals(before)) {
      grown.push({ name, whole, synced: before.length });
    }
  }
  assert.ok(grown.length > 0, "relaxed commits are appended to a file");
  const random = randomNumbers(1);
  for (const { name, whole, synced } of grown) {
    const pick = (from: number): number => from + Math.floor(random() * (whole.length - from));
    for (let count = 0; count < DAMAGES; count++) {
      await fresh("after");
      const first = pick(synced);
      const last = pick(first);
      if (count % 2 === 0) {
        await writeFile(join(copy, name), whole.subarray(0, first));
        yield `${name} is cut at byte ${first}`;
      } else {
        await writeFile(join(copy, name), Buffer.from(whole).fill(0, first, last));
        yield `${name} has zeros from byte ${first} to ${last}`;
      }
    }
  }
}

/** How many relaxed commits are left. Then the storage is used, and closed. */
async function afterLoss(
  open: () => Promise<Storage>,
  given: ReadonlyMap<bigint, number>,
  loss: string,
): Promise<number> {
  await using storage = await open();
  const { entries, revision } = await storage.read([]);
  const { count = "", early, ...rest } = contents(entries);
  const left = Number(count);
  const expected = Array.from({ length: left }, (_, index) => [`relaxed/${index + 1}`, relaxedText(index + 1)]);
  assert.deepEqual(rest, { "durable/1": "1", "durable/2": "2", ...Object.fromEntries(expected) }, loss);
  assert.equal(early, "", "it was before a durable one");
  assert.equal(given.get(revision) ?? left, left, `${loss}: revision ${revision} was given with other content`);
  const next = await storage.commit([put(["next"], "")], [], { durability: "relaxed" });
  assert.ok(!given.has(next) && next > revision, `${loss}: revision ${next} is given again`);
  for (const [known, content] of given) {
    if (content === left) continue;
    await using following = follow(storage, [], known);
    const changes = await following.next();
    // A reader that knew less may get the changes; one that knew a lost commit must read again.
    if (content > left) assert.equal(changes?.type, "reset", loss);
    assert.equal(changes?.revision, next);
  }
  return left;
}

async function compareWithModel(storage: Storage, seed: number): Promise<void> {
  const random = randomNumbers(seed);
  const pick = <T>(values: readonly [T, ...T[]]): T => values[Math.floor(random() * values.length)] ?? values[0];
  const part = (): string => pick(["a", "b", "", "\0", "a\0", "ÿ", "aa"]);
  const key = (): Key => Array.from({ length: 1 + Math.floor(random() * 3) }, part);
  const model = new Map<string, Entry>();
  const modelled = (prefix: Key): readonly Entry[] =>
    [...model.values()]
      .filter((entry) => prefix.every((each, index) => entry.key[index] === each))
      .toSorted((left, right) => compareKeys(left.key, right.key));
  let { revision } = await storage.read([]);
  for (let step = 0; step < 150; step++) {
    const writes = Array.from({ length: Math.floor(random() * 5) }, () =>
      random() < 0.3 ? remove(key()) : put(key(), `${step}`),
    );
    const expect = Array.from({ length: Math.floor(random() * 2) }, (): Expectation => {
      const known = key();
      const current = model.get(JSON.stringify(known))?.revision;
      return { key: known, revision: random() < 0.7 ? current : pick([undefined, revision, 1n]) };
    });
    const holds = expect.every((each) => model.get(JSON.stringify(each.key))?.revision === each.revision);
    if (holds) {
      const next = await storage.commit(writes, expect);
      assert.ok(next >= revision);
      revision = next;
      for (const write of writes) {
        const name = JSON.stringify(write.key);
        if (write.value === undefined) model.delete(name);
        else model.set(name, { key: write.key, value: write.value, revision });
      }
    } else {
      await assert.rejects(storage.commit(writes, expect), withCode("conflict"));
    }
    const prefix = key().slice(0, Math.floor(random() * 3));
    assert.deepEqual(await storage.read(prefix), { entries: modelled(prefix), revision });
  }
}

/** In as few commits as the storage takes. */
async function commitAll(storage: Storage, writes: readonly Write[]): Promise<void> {
  for (const together of cutWrites(writes, storage.limits)) await storage.commit(together);
}

/** A small generator with a seed, so that a failure can be repeated. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function compareKeys(left: Key, right: Key): number {
  for (const [index, part] of left.entries()) {
    const other = right[index];
    if (other === undefined) return 1;
    const order = Buffer.compare(Buffer.from(part), Buffer.from(other));
    if (order !== 0) return order;
  }
  return left.length - right.length;
}

interface Following extends AsyncDisposable {
  /** The next changes, those of an entry in key order; undefined when they ended. */
  next(): Promise<StorageChanges | undefined>;
  abort(): void;
}

function follow(storage: Storage, prefix: Key, after: bigint): Following {
  const controller = new AbortController();
  const iterator = storage.changes(prefix, after, controller.signal)[Symbol.asyncIterator]();
  return {
    async next() {
      const result = await iterator.next();
      if (result.done === true) return undefined;
      if (result.value.type === "reset") return result.value;
      const { entries, removed, ...rest } = result.value;
      const byKey = (left: { readonly key: Key }, right: { readonly key: Key }): number =>
        compareKeys(left.key, right.key);
      return { ...rest, entries: entries.toSorted(byKey), removed: removed.toSorted(byKey) };
    },
    abort: () => controller.abort(),
    async [Symbol.asyncDispose]() {
      controller.abort();
      await iterator.return?.();
    },
  };
}

/** The state that a reader knows which only takes changes. */
class Replica {
  readonly #contents = new Map<string, string>();
  #told: [string, string | undefined][] = [];
  #revision = 0n;

  take(changes: StorageChanges | undefined): void {
    assert.ok(changes?.type === "changed", `${changes?.type ?? "the end"} instead of changes`);
    const { entries, removed, revision } = changes;
    assert.ok(revision > this.#revision, "each time it knows more");
    for (const each of [...entries, ...removed]) assert.ok(each.revision > this.#revision && each.revision <= revision);
    const told = [...entries, ...removed].map(({ key }) => JSON.stringify(key));
    assert.equal(new Set(told).size, told.length, "no key comes twice");
    this.#revision = revision;
    this.#told = Object.entries(contents(entries));
    for (const [key, value] of this.#told) this.#contents.set(key, value ?? "");
    for (const { key } of removed) {
      this.#told.push([key.join("/"), undefined]);
      this.#contents.delete(key.join("/"));
    }
    this.#told.sort(([left], [right]) => (left < right ? -1 : 1));
  }

  get contents(): Record<string, string> {
    return Object.fromEntries(this.#contents);
  }

  /** The changes taken last. */
  get told(): readonly (readonly [string, string | undefined])[] {
    return this.#told;
  }

  get revision(): bigint {
    return this.#revision;
  }
}

async function pagesOf(
  storage: Storage,
  prefix: Key,
  bytes: number,
  signal?: AbortSignal,
): Promise<readonly StoragePage[]> {
  const pages: StoragePage[] = [];
  for await (const page of storage.pages(prefix, bytes, signal)) pages.push(page);
  return pages;
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function put(key: Key, text: string): Write {
  return { key, value: bytes(text) };
}

function remove(key: Key): Write {
  return { key, value: undefined };
}

function keys(entries: readonly Entry[]): readonly Key[] {
  return entries.map((entry) => entry.key);
}

function contents(entries: readonly Entry[]): Record<string, string> {
  const text = new TextDecoder();
  return Object.fromEntries(entries.map((entry) => [entry.key.join("/"), text.decode(entry.value)]));
}

function withCode(...codes: readonly string[]): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof PeeringError, `not a PeeringError: ${String(error)}`);
    assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`);
    return true;
  };
}
