import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { ClassicLevel } from "classic-level";
import { asPeeringError, errorText, PeeringError } from "../errors.js";
import { ABOVE_EVERY_KEY, decodeKey, encodeEntryKey, encodeKey } from "./key-encoding.js";
import type { Entry, Expectation, Key, Snapshot, Storage, Write } from "./storage.js";
import { WatchHub } from "./watch.js";

export interface LevelOptions {
  /** Writes kept in memory, and in the log on disk, before they are sorted into tables, in bytes. Default 16 MiB. */
  readonly writeBufferBytes?: number;
  /** Blocks of tables kept in memory, in bytes. Default 8 MiB. */
  readonly cacheBytes?: number;
}

/**
 * Opens, or creates, the storage in `directory`: embedded, durable (each commit is on disk before it resolves), for one
 * process at a time. Commits that wait while one is written go to disk together.
 *
 * After a failed write the storage first proves that the disk takes writes again, then goes on; until then every commit
 * is refused with `storage-failed` while reads are still answered.
 * @throws {PeeringError} `locked`: another process, or this one, has it open. `storage-failed`: the directory cannot be
 *   used, is damaged, or holds something else.
 */
export async function openLevel(directory: string, options: LevelOptions = {}): Promise<Storage> {
  const { writeBufferBytes = 16 * 1024 * 1024, cacheBytes = 8 * 1024 * 1024 } = options;
  const openDatabase = async (): Promise<Opened> => openAt(directory, writeBufferBytes, cacheBytes);
  return new LevelStorage(directory, writeBufferBytes, openDatabase, await openDatabase());
}

type Database = ClassicLevel<Buffer, Uint8Array>;
interface Opened {
  readonly database: Database;
  readonly revision: bigint;
}

const FORMAT_KEY = Buffer.from(`${ABOVE_EVERY_KEY}format`, "latin1");
const FORMAT = "peerage storage 1";
/** Written in the batch of every commit, so that any snapshot of the database knows its own revision. */
const REVISION_KEY = Buffer.from(`${ABOVE_EVERY_KEY}revision`, "latin1");
const REVISION_BYTES = 8;

/** Bytes of writes that go to disk in one batch; a single larger commit goes alone. */
const GROUP_BYTES = 8 * 1024 * 1024;

async function openAt(directory: string, writeBufferSize: number, cacheSize: number): Promise<Opened> {
  const database: Database = new ClassicLevel<Buffer, Uint8Array>(directory, {
    keyEncoding: "buffer",
    valueEncoding: "view",
    // Compressing costs more time than it saves here: what is written is read back rarely.
    compression: false,
    writeBufferSize,
    cacheSize,
  });
  try {
    // Readable by nobody else: it may hold keys.
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await database.open();
  } catch (error) {
    throw openError(directory, error);
  }
  try {
    const format = database.getSync(FORMAT_KEY);
    if (format !== undefined && Buffer.from(format).toString() === FORMAT) {
      const revision = database.getSync(REVISION_KEY);
      return { database, revision: revision === undefined ? 0n : readRevision(revision) };
    }
    if (format !== undefined || (await database.keys({ limit: 1 }).all()).length > 0) {
      throw new PeeringError("storage-failed", `${directory} holds data of another program or version`);
    }
    await database.batch().put(FORMAT_KEY, Buffer.from(FORMAT)).write({ sync: true });
    return { database, revision: 0n };
  } catch (error) {
    await database.close();
    throw error instanceof PeeringError ? error : openError(directory, error);
  }
}

function openError(directory: string, error: unknown): PeeringError {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (code === "LEVEL_LOCKED") {
    return new PeeringError("locked", `the data directory ${directory} is in use by another process`, {
      cause,
      remedy: "Stop the other process, or give this one a directory of its own.",
    });
  }
  if (code === "LEVEL_CORRUPTION") {
    return new PeeringError("storage-failed", `the data directory ${directory} is damaged: ${errorText(cause)}`, {
      cause,
      remedy: "Restore the directory from a backup, or remove it and peer again.",
    });
  }
  return new PeeringError("storage-failed", `cannot open the data directory ${directory}: ${errorText(cause)}`, {
    cause,
  });
}

/** The write did not go through as a whole, so that nothing of it is found again. */
const REFUSED = /No space left|quota|File too large/i;

interface EncodedWrite {
  readonly key: string;
  readonly value: Uint8Array | undefined;
}

interface PendingCommit {
  readonly writes: readonly EncodedWrite[];
  readonly expect: readonly { readonly key: string; readonly expectation: Expectation }[];
  readonly bytes: number;
  readonly resolve: (revision: bigint) => void;
  readonly reject: (error: unknown) => void;
}

interface NumberedCommit {
  readonly commit: PendingCommit;
  readonly revision: bigint;
}

class LevelStorage implements Storage {
  readonly #directory: string;
  readonly #probeBytes: number;
  readonly #openDatabase: () => Promise<Opened>;
  #database: Database;
  readonly #hub: WatchHub;
  #revision: bigint;
  #queue: PendingCommit[] = [];
  #writing: Promise<void> | undefined;
  readonly #reads = new Set<Promise<unknown>>();
  /** Set while the database is closed and opened again; reads wait for it. */
  #reopening: Promise<void> | undefined;
  /** Why commits are refused since a write failed. */
  #broken: unknown;
  /** What the failed write held. It may turn out to be on disk. */
  #doubtful: readonly NumberedCommit[] = [];
  #closing: Promise<void> | undefined;
  #scratch: Buffer = Buffer.allocUnsafeSlow(4096);

  constructor(directory: string, writeBufferBytes: number, openDatabase: () => Promise<Opened>, opened: Opened) {
    this.#directory = directory;
    // Opening again sorts the log into a table, which takes about as much.
    this.#probeBytes = writeBufferBytes + 1024 * 1024;
    this.#openDatabase = openDatabase;
    this.#database = opened.database;
    this.#revision = opened.revision;
    this.#hub = new WatchHub(opened.revision);
  }

  async read(prefix: Key, signal?: AbortSignal): Promise<Snapshot> {
    signal?.throwIfAborted();
    this.#mustBeOpen();
    const encoded = encodeKey(prefix);
    await this.#reopening;
    this.#mustBeOpen();
    const reading = this.#readNow(encoded, signal);
    this.#reads.add(reading);
    try {
      return await reading;
    } catch (error) {
      signal?.throwIfAborted();
      throw asPeeringError(error, "storage-failed");
    } finally {
      this.#reads.delete(reading);
    }
  }

  async #readNow(prefix: string, signal: AbortSignal | undefined): Promise<Snapshot> {
    const database = this.#database;
    const snapshot = database.snapshot();
    try {
      const iterator = database.iterator({
        gte: Buffer.from(prefix, "latin1"),
        lt: Buffer.from(prefix + ABOVE_EVERY_KEY, "latin1"),
        snapshot,
        highWaterMarkBytes: 1024 * 1024,
      });
      try {
        const revision = database.getSync(REVISION_KEY, { snapshot });
        const entries: Entry[] = [];
        for (;;) {
          const batch = await iterator.nextv(1000);
          signal?.throwIfAborted();
          for (const [key, value] of batch) {
            entries.push({
              key: decodeKey(key.toString("latin1")),
              value: new Uint8Array(value.buffer, value.byteOffset + REVISION_BYTES, value.length - REVISION_BYTES),
              revision: readRevision(value),
            });
          }
          if (batch.length === 0) break;
        }
        return { entries, revision: revision === undefined ? 0n : readRevision(revision) };
      } finally {
        await iterator.close();
      }
    } finally {
      await snapshot.close();
    }
  }

  async commit(writes: readonly Write[], expect: readonly Expectation[] = []): Promise<bigint> {
    this.#mustBeOpen();
    let bytes = 0;
    const encodedWrites = writes.map(({ key, value }) => {
      const encoded = encodeEntryKey(key);
      bytes += encoded.length + REVISION_BYTES + (value?.length ?? 0);
      return { key: encoded, value };
    });
    const encodedExpect = expect.map((expectation) => ({ key: encodeEntryKey(expectation.key), expectation }));
    return new Promise((resolve, reject) => {
      this.#queue.push({ writes: encodedWrites, expect: encodedExpect, bytes, resolve, reject });
      this.#writing ??= this.#writeAll();
    });
  }

  watch(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<bigint> {
    return this.#hub.watch(prefix, after, signal, () => this.#revision);
  }

  /** Commits begun before are still written; watches end; then the directory is free. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#hub.close();
    await this.#writing;
    await Promise.allSettled(this.#reads);
    await this.#database.close();
  }

  #mustBeOpen(): void {
    if (this.#closing !== undefined) throw new PeeringError("closed", "the storage is closed");
  }

  async #writeAll(): Promise<void> {
    // Commits of the same turn of the event loop go out together.
    await undefined;
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      try {
        await this.#writeGroup(group);
      } catch (error) {
        for (const commit of group) commit.reject(asPeeringError(error, "storage-failed"));
      }
    }
    this.#writing = undefined;
  }

  #takeGroup(): readonly PendingCommit[] {
    let bytes = 0;
    let count = 0;
    for (const commit of this.#queue) {
      bytes += commit.bytes;
      if (count > 0 && bytes > GROUP_BYTES) break;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  async #writeGroup(group: readonly PendingCommit[]): Promise<void> {
    if (this.#broken !== undefined) await this.#repair();
    const numbered = this.#judge(group);
    const newest = numbered.at(-1)?.revision;
    if (newest === undefined) return;
    try {
      await this.#writeBatch(numbered, newest);
    } catch (error) {
      this.#broken = error;
      this.#doubtful = numbered;
      try {
        await this.#repair();
      } catch {
        const code = REFUSED.test(errorText(error)) ? "storage-failed" : "unavailable";
        throw new PeeringError(code, this.#failureText(error), { cause: error });
      }
      if (this.#revision !== newest) {
        throw new PeeringError("storage-failed", this.#failureText(error), { cause: error });
      }
      for (const { commit, revision } of numbered) commit.resolve(revision);
      return;
    }
    this.#revision = newest;
    this.#announce(numbered);
    for (const { commit, revision } of numbered) commit.resolve(revision);
  }

  /** Rejects the commits of the group whose expectations do not hold; each sees the writes of those before it. */
  #judge(group: readonly PendingCommit[]): readonly NumberedCommit[] {
    const written = new Map<string, bigint | undefined>();
    const track = group.length > 1 && group.some((commit) => commit.expect.length > 0);
    const numbered: NumberedCommit[] = [];
    let revision = this.#revision;
    for (const commit of group) {
      const failed = commit.expect.find(({ key, expectation }) => {
        const current = written.has(key) ? written.get(key) : this.#currentRevision(key);
        return current !== expectation.revision;
      });
      if (failed !== undefined) {
        const name = failed.expectation.key.join("/");
        commit.reject(new PeeringError("conflict", `${name} is not at the expected revision`));
        continue;
      }
      revision++;
      numbered.push({ commit, revision });
      if (!track) continue;
      for (const { key, value } of commit.writes) written.set(key, value === undefined ? undefined : revision);
    }
    return numbered;
  }

  #currentRevision(key: string): bigint | undefined {
    const value = this.#database.getSync(Buffer.from(key, "latin1"));
    return value === undefined ? undefined : readRevision(value);
  }

  async #writeBatch(numbered: readonly NumberedCommit[], newest: bigint): Promise<void> {
    const batch = this.#database.batch();
    for (const { commit, revision } of numbered) {
      for (const { key, value } of commit.writes) {
        const encoded = Buffer.from(key, "latin1");
        if (value === undefined) batch.del(encoded);
        else batch.put(encoded, this.#withRevision(revision, value));
      }
    }
    batch.put(REVISION_KEY, this.#withRevision(newest, new Uint8Array()));
    await batch.write({ sync: true });
  }

  /** A view that holds until the next call; the batch copies what it is given. */
  #withRevision(revision: bigint, value: Uint8Array): Uint8Array {
    const size = REVISION_BYTES + value.length;
    if (this.#scratch.length < size) this.#scratch = Buffer.allocUnsafeSlow(size * 2);
    this.#scratch.writeBigUInt64BE(revision);
    this.#scratch.set(value, REVISION_BYTES);
    return this.#scratch.subarray(0, size);
  }

  #announce(numbered: readonly NumberedCommit[]): void {
    for (const { commit, revision } of numbered) {
      this.#hub.changed(
        revision,
        commit.writes.map((write) => write.key),
      );
    }
  }

  #failureText(error: unknown): string {
    return `the data directory ${this.#directory} cannot be written: ${errorText(error)}`;
  }

  /**
   * Makes the database usable after a failed write. The log may end in half a record then, and what were appended to it
   * would be lost on recovery, so it is opened anew; but first the disk must take what that needs, for until then the
   * open one still answers reads.
   * @throws {PeeringError} `storage-failed` when it is not usable yet.
   */
  async #repair(): Promise<void> {
    try {
      await probe(join(this.#directory, "probe"), this.#probeBytes);
      this.#reopening = this.#reopen();
      await this.#reopening;
    } catch (error) {
      throw new PeeringError("storage-failed", this.#failureText(error), { cause: error });
    } finally {
      this.#reopening = undefined;
    }
  }

  async #reopen(): Promise<void> {
    await Promise.allSettled(this.#reads);
    await this.#database.close();
    const { database, revision } = await this.#openDatabase();
    this.#database = database;
    this.#broken = undefined;
    if (revision > this.#revision) {
      this.#revision = revision;
      this.#announce(this.#doubtful);
    }
    this.#doubtful = [];
  }
}

async function probe(path: string, bytes: number): Promise<void> {
  try {
    const file = await open(path, "w");
    try {
      await file.writeFile(Buffer.alloc(bytes));
      await file.sync();
    } finally {
      await file.close();
    }
  } finally {
    await rm(path, { force: true });
  }
}

function readRevision(value: Uint8Array): bigint {
  return Buffer.from(value.buffer, value.byteOffset, REVISION_BYTES).readBigUInt64BE();
}
