import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { Closable } from "../base/closable.js";
import { asPeeringError, errorCode, errorText, PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { ChangeLog, type LoggedWrite } from "./change-log.js";
import { damagedEntries } from "./damaged-entries.js";
import { ABOVE_EVERY_KEY, decodeKey, encodeEntryKey, encodeKey } from "./key-encoding.js";
import { AcknowledgedRevision, cannotOpen, DataDirectory, inUse } from "./level-directory.js";
import { causeOf, type Database, databaseAt, type EngineOptions, isInUse } from "./level-engine.js";
import { damagedDirectory, type FilesVerified, type LogPart, verifyFiles } from "./level-files.js";
import type { TableRow } from "./level-format.js";
import { FORMER_KEY, FormerSecrets, isSecret, type Surroundings } from "./level-former.js";
import { LevelLogs } from "./level-logs.js";
import { Reading, revisionOf } from "./level-reading.js";
import {
  batchRevision,
  FORMAT_KEY,
  RESERVED_KEY,
  REVISION_KEY,
  RowWriter,
  readRow,
  readUncheckedRow,
  rowRevision,
} from "./level-rows.js";
import { mustFit } from "./limits.js";
import type {
  CommitOptions,
  Expectation,
  Key,
  Snapshot,
  Storage,
  StorageChanges,
  StorageLimits,
  StoragePage,
  Write,
} from "./storage.js";

export interface LevelOptions {
  /** Writes kept in memory, and in the log on disk, before they are sorted into tables, in bytes. Default 16 MiB. */
  readonly writeBufferBytes?: number;
  /** Blocks of tables kept in memory, in bytes. Default 8 MiB. */
  readonly cacheBytes?: number;
  /**
   * The bounds of one commit, for it is several times in memory while it is written, and those behind it wait: 1,000,000 writes
   * and 256 MiB. Beyond, it is refused with `resource-exhausted`.
   */
  readonly limits?: Partial<StorageLimits>;
  /**
   * How long to wait, after former values of secrets were removed from the files, before such of later commits are, in milliseconds:
   * each time, tables are rewritten. Closing the storage does not wait. Default 5 000.
   */
  readonly removalPauseMs?: number;
  /**
   * Counts and logs faults that were found and mended: a write that was cut short, a damaged entry, a directory that others could
   * read. Default: silent.
   */
  readonly incidents?: Incidents;
}

/**
 * Opens, or creates, the storage in `directory`: embedded, durable (each commit is on disk before it resolves, if it is not a
 * relaxed one), for one process at a time. Commits that wait while one is written go to disk together.
 *
 * Before anything is opened, the checksums of all files are verified. A write that was cut short, as by a loss of power, is
 * dropped, and all that follow it, unless one of them was acknowledged as durable. Other damage refuses the directory, except
 * for values of entries: reads name these. After a process that did not close the storage, revisions go on above all that it may
 * have given.
 *
 * After a failed write the storage first proves that the disk takes writes again, then goes on; until then every commit
 * is refused with `storage-failed` while reads are still answered.
 * @throws {PeeringError} `locked`: another process, or this one, has it open. `storage-damaged`: a commit
 *   is missing, or cannot be distinguished from an unfinished write; nothing is changed. `storage-failed`: the directory cannot be
 *   used, belongs to another user, or holds something else.
 */
export async function openLevel(directory: string, options: LevelOptions = {}): Promise<Storage & Closable> {
  const { writeBufferBytes = 16 * 1024 * 1024, cacheBytes = 8 * 1024 * 1024, incidents = new Incidents() } = options;
  const { removalPauseMs = 5_000 } = options;
  const place = await DataDirectory.claim(directory, incidents);
  let opened: Opened | undefined;
  try {
    const openDatabase = (given?: bigint): Promise<Opened> =>
      openAt(place, incidents, { writeBufferBytes, cacheBytes }, given);
    opened = await openDatabase();
    await place.sweep();
    const acknowledged = await AcknowledgedRevision.open(place, opened.revision, incidents);
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    return new LevelStorage(
      place,
      limits,
      { writeBufferBytes, removalPauseMs },
      acknowledged,
      incidents,
      openDatabase,
      opened,
    );
  } catch (error) {
    await opened?.database.close();
    await place.release();
    throw openError(directory, error);
  }
}

type Batch = ReturnType<Database["batch"]>;

/** Of rows that are a revision and nothing else. */
const NO_VALUE = new Uint8Array();

interface Opened {
  readonly database: Database;
  readonly revision: bigint;
  /** As it was found: nothing that was given before is missing. */
  readonly isWhole: boolean;
}

const FORMAT = "peerage storage 2";
/** Of 0.1: rows without checksums. */
const UNCHECKED_FORMAT = "peerage storage 1";
/** While rows of the former format are rewritten: a version that knows one format only refuses to open the mixture. */
const CHANGING_FORMAT = "peerage storage 1 to 2";

/** Enough for 100,000 instances that are registered together. */
const DEFAULT_LIMITS: StorageLimits = { writes: 1_000_000, bytes: 256 * 1024 * 1024 };

/** So many revisions are reserved at a time: that costs one sync, and so many are skipped when the process did not end well. */
const RESERVED_AHEAD = 10_000n;

/** Bytes of writes that go to disk in one batch; a single larger commit goes alone. */
const GROUP_BYTES = 8 * 1024 * 1024;
/** Rows put into a batch before others have their turn. */
const PUT_IN_A_TURN = 250;

/** @param given - the newest revision that was given; undefined: that is not known, because another process did. */
async function openAt(
  place: DataDirectory,
  incidents: Incidents,
  engine: EngineOptions,
  given?: bigint,
): Promise<Opened> {
  const { acknowledged, cut, damagedKeys } = await verify(place);
  if (cut !== undefined) await dropLost(place, cut.lost);
  const database = databaseAt(place.path, engine);
  try {
    await database.open();
    await adoptFormat(place, database);
    const found = revisionOf(place.name, database.getSync(REVISION_KEY));
    // It may all have been in the log, and that may be gone.
    mustReach(place, acknowledged, found);
    const mayBeGiven = given ?? reservedOf(place, database.getSync(RESERVED_KEY));
    const isWhole = mayBeGiven <= found;
    const revision = isWhole ? found : mayBeGiven + 1n;
    if (cut !== undefined) {
      incidents.report("storage-write-cut-short", "the end of the log is dropped: its write was cut short", {
        directory: place.name,
        file: cut.file,
        at: cut.at,
        bytes: cut.bytes,
      });
    }
    // Every log begins with it, so that it says how far it goes though the first commit in it is damaged.
    const batch = database.batch();
    const writer = new RowWriter();
    for (const key of [RESERVED_KEY, REVISION_KEY]) batch.put(key, writer.row(key, revision, NO_VALUE));
    await batch.write({ sync: true });
    await dropDamaged(place, database, damagedKeys, incidents);
    await place.tighten();
    return { database, revision, isWhole };
  } catch (error) {
    await database.close();
    throw openError(place.name, error);
  }
}

/** No revision above it was given. @throws {PeeringError} `storage-damaged` */
function reservedOf(place: DataDirectory, stored: Uint8Array | undefined): bigint {
  // Before there were reservations, each commit was on disk before its revision was given.
  if (stored === undefined) return 0n;
  const revision = rowRevision(RESERVED_KEY, stored);
  if (revision === undefined) throw damagedDirectory(place.name, "the row that says which revisions were given");
  return revision;
}

/** @throws {PeeringError} `storage-damaged`: the data end before the last acknowledged commit. */
function mustReach(place: DataDirectory, acknowledged: bigint | undefined, revision: bigint | undefined): void {
  if (acknowledged === undefined || revision === undefined || acknowledged <= revision) return;
  throw damagedDirectory(
    place.name,
    `commits up to revision ${acknowledged} were acknowledged, and it holds them up to ${revision}`,
    "Restore the directory from a backup. To go on without the commits that are missing, remove the file acknowledged in it.",
  );
}

/**
 * Looks for damage before the engine opens the files: it drops unreadable bytes, and the log with them.
 * @throws {PeeringError} `storage-damaged`; `locked`; `storage-failed`.
 */
async function verify(place: DataDirectory): Promise<FilesVerified & { readonly acknowledged: bigint | undefined }> {
  try {
    const acknowledged = await AcknowledgedRevision.read(place);
    const files = await verifyFiles(place.path, { isDamaged, revisionOf: batchRevision, acknowledged });
    if (files.cut !== undefined && files.cut.lost.length > 0 && (await isInUse(place.path))) throw inUse(place.name);
    mustReach(place, acknowledged, files.revision);
    return { ...files, acknowledged };
  } catch (error) {
    // Files that another process writes meanwhile look damaged.
    if (await isInUse(place.path)) throw inUse(place.name, error);
    throw openError(place.name, error);
  }
}

/** The engine would read on behind unreadable bytes, and show writes without those before them. */
async function dropLost(place: DataDirectory, lost: readonly LogPart[]): Promise<void> {
  // The last one first, so that the rest is always a log without its end.
  for (const { file, at } of lost.toReversed()) {
    const log = await open(join(place.path, file), "r+");
    try {
      await log.truncate(at);
      await log.sync();
    } finally {
      await log.close();
    }
  }
}

function isDamaged({ key, value }: TableRow): boolean | undefined {
  if (value === undefined) return false;
  if (key.equals(FORMAT_KEY)) return Buffer.from(value).toString() === FORMAT ? false : undefined;
  const { state } = readRow(key, value);
  return state === "unknown" ? undefined : state === "damaged";
}

/** Marks a new database, and gives the rows of 0.1 their checksums. @throws {PeeringError} `storage-failed`: foreign data. */
async function adoptFormat(place: DataDirectory, database: Database): Promise<void> {
  const stored = database.getSync(FORMAT_KEY);
  const format = stored === undefined ? undefined : Buffer.from(stored).toString();
  if (format === FORMAT) return;
  if (format === UNCHECKED_FORMAT || format === CHANGING_FORMAT) return addChecksums(place, database);
  if (format === undefined && (await database.keys({ limit: 1 }).all()).length === 0) {
    const first = new RowWriter().row(REVISION_KEY, 0n, NO_VALUE);
    await database.batch().put(FORMAT_KEY, Buffer.from(FORMAT)).put(REVISION_KEY, first).write({ sync: true });
    return;
  }
  const later = /^peerage storage \d+$/.test(format ?? "");
  throw new PeeringError(
    "storage-failed",
    `${place.name} holds data of ${later ? "a later version" : "another program"}`,
    {
      remedy: later
        ? "Run the version that wrote it, or a later one; or name another directory."
        : "Name another directory.",
    },
  );
}

async function addChecksums(place: DataDirectory, database: Database): Promise<void> {
  await database.put(FORMAT_KEY, Buffer.from(CHANGING_FORMAT), { sync: true });
  const writer = new RowWriter();
  let batch = database.batch();
  let bytes = 0;
  let revision: Uint8Array | undefined;
  for await (const [key, value] of database.iterator()) {
    if (key.equals(FORMAT_KEY)) continue;
    if (key.equals(REVISION_KEY)) revision = value;
    // A start that was interrupted has done some already.
    if (readRow(key, value).state === "sound") continue;
    const row = readUncheckedRow(value);
    if (row === undefined) throw damagedDirectory(place.name, "a row is neither of this version nor of 0.1");
    batch.put(key, writer.row(key, row.revision, row.value));
    bytes += key.length + value.length;
    if (bytes < GROUP_BYTES) continue;
    await batch.write();
    batch = database.batch();
    bytes = 0;
  }
  if (revision === undefined) batch.put(REVISION_KEY, writer.row(REVISION_KEY, 0n, NO_VALUE));
  await batch.put(FORMAT_KEY, Buffer.from(FORMAT)).write({ sync: true });
  // The rows without checksums are still in tables, where damage to them could not be distinguished from damage to these.
  await database.compactRange(Buffer.alloc(0), Buffer.from(`${ABOVE_EVERY_KEY}${ABOVE_EVERY_KEY}`, "latin1"));
}

/** Reports entries whose values are damaged, and drops rows that hold only older versions of entries. */
async function dropDamaged(
  place: DataDirectory,
  database: Database,
  keys: readonly Buffer[],
  incidents: Incidents,
): Promise<void> {
  for (const key of keys) {
    const stored = database.getSync(key);
    if (stored === undefined || readRow(key, stored).state === "sound") {
      await database.compactRange(key, key);
      continue;
    }
    incidents.report("storage-entry-damaged", "the value of a stored entry is damaged", {
      directory: place.name,
      entry: nameOf(key),
    });
  }
}

function openError(directory: string, error: unknown): PeeringError {
  if (error instanceof PeeringError) return error;
  const cause = causeOf(error);
  if (errorCode(cause) === "LEVEL_LOCKED") return inUse(directory, cause);
  if (errorCode(cause) === "LEVEL_CORRUPTION") return damagedDirectory(directory, errorText(cause));
  return cannotOpen(directory, cause);
}

/** Of an entry, or of a row of the storage's own. */
function nameOf(key: Uint8Array): string {
  const encoded = Buffer.from(key).toString("latin1");
  return encoded.startsWith(ABOVE_EVERY_KEY) ? encoded.slice(1) : decodeKey(encoded).join("/");
}

/** The write did not go through as a whole, so that nothing of it is found again. */
const REFUSED = /No space left|quota|File too large/i;

interface PendingCommit {
  readonly writes: readonly LoggedWrite[];
  readonly expect: readonly { readonly key: string; readonly expectation: Expectation }[];
  readonly bytes: number;
  readonly isDurable: boolean;
  readonly resolve: (revision: bigint) => void;
  readonly reject: (error: unknown) => void;
}

/** Keys that belong to no owner. */
interface PendingDeletion {
  readonly keys: readonly Buffer[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface NumberedCommit {
  readonly commit: PendingCommit;
  readonly revision: bigint;
}

class LevelStorage implements Storage, Closable {
  readonly limits: StorageLimits;
  readonly #place: DataDirectory;
  readonly #writeBufferBytes: number;
  readonly #removalPauseMs: number;
  readonly #acknowledged: AcknowledgedRevision;
  readonly #incidents: Incidents;
  readonly #openDatabase: (given: bigint) => Promise<Opened>;
  readonly #logs: LevelLogs;
  #database: Database;
  #former: FormerSecrets;
  readonly #log: ChangeLog;
  #revision: bigint;
  /** No revision above this one is given until a higher one is on disk. */
  #reserved: bigint;
  #queue: PendingCommit[] = [];
  readonly #deletions: PendingDeletion[] = [];
  #writing: Promise<void> | undefined;
  readonly #readings = new Set<Reading>();
  /** Set while the database is closed and opened again; readings wait for it. */
  #reopening: Promise<unknown> | undefined;
  /** Why commits are refused since a write failed. */
  #broken: unknown;
  /** The writes of the failed commit. They may turn out to be on disk. */
  #doubtful: readonly NumberedCommit[] = [];
  #closing: Promise<void> | undefined;
  readonly #writer = new RowWriter();
  /** Written since permissions of files were last set. */
  #looseBytes = 0;
  #tightening: Promise<void> = Promise.resolve();

  constructor(
    place: DataDirectory,
    limits: StorageLimits,
    { writeBufferBytes, removalPauseMs }: Required<Pick<LevelOptions, "writeBufferBytes" | "removalPauseMs">>,
    acknowledged: AcknowledgedRevision,
    incidents: Incidents,
    openDatabase: (given: bigint) => Promise<Opened>,
    opened: Opened,
  ) {
    this.#place = place;
    this.limits = limits;
    this.#writeBufferBytes = writeBufferBytes;
    this.#removalPauseMs = removalPauseMs;
    this.#acknowledged = acknowledged;
    this.#incidents = incidents;
    this.#openDatabase = openDatabase;
    this.#database = opened.database;
    this.#former = this.#formerSecretsOf(opened.database);
    this.#logs = new LevelLogs(place.path, writeBufferBytes);
    this.#revision = opened.revision;
    this.#reserved = opened.revision;
    this.#log = new ChangeLog(opened.revision);
  }

  async read(prefix: Key, signal?: AbortSignal): Promise<Snapshot> {
    for await (const { entries, damaged, revision } of this.pages(prefix, Number.POSITIVE_INFINITY, signal)) {
      if (damaged.length > 0) throw damagedEntries(damaged, this.#place.name);
      return { entries, revision };
    }
    throw new Error("a reading without a page");
  }

  async *pages(prefix: Key, bytes: number, signal?: AbortSignal): AsyncGenerator<StoragePage, void> {
    signal?.throwIfAborted();
    this.#mustBeOpen();
    const encoded = encodeKey(prefix);
    while (this.#reopening !== undefined) await this.#reopening;
    this.#mustBeOpen();
    const reading = new Reading(this.#database, this.#place.name, encoded, signal);
    this.#readings.add(reading);
    try {
      for (let page = await reading.next(bytes); page !== undefined; page = await reading.next(bytes)) {
        yield page;
        signal?.throwIfAborted();
      }
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#failureOf(error);
    } finally {
      await reading.close();
      this.#readings.delete(reading);
    }
  }

  async commit(
    writes: readonly Write[],
    expect: readonly Expectation[] = [],
    { durability = "durable" }: CommitOptions = {},
  ): Promise<bigint> {
    this.#mustBeOpen();
    const bytes = mustFit(writes, this.limits);
    const encodedWrites = writes.map(({ key, value }) => ({ key, value, encoded: encodeEntryKey(key) }));
    const encodedExpect = expect.map((expectation) => ({ key: encodeEntryKey(expectation.key), expectation }));
    return new Promise((resolve, reject) => {
      const isDurable = durability === "durable";
      this.#queue.push({ writes: encodedWrites, expect: encodedExpect, bytes, isDurable, resolve, reject });
      this.#writing ??= this.#writeAll();
    });
  }

  changes(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<StorageChanges> {
    return this.#log.changes(prefix, after, signal);
  }

  /** Commits begun before are still written, pages are still read; then the directory is free. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#log.close();
    await this.#writing;
    await this.#interrupt(new PeeringError("closed", "the storage is closed"));
    await this.#former.finish();
    await this.#finish();
    await this.#database.close();
    this.#acknowledged.close();
    await this.#tightening;
    // The engine may have written in the background until now.
    await this.#tighten();
    await this.#place.release();
  }

  /** All is on disk then, and the next start need not skip revisions. */
  async #finish(): Promise<void> {
    const batch = this.#database.batch();
    if (this.#former.takeDone()) batch.del(FORMER_KEY);
    this.#mark(batch, RESERVED_KEY, this.#revision);
    this.#mark(batch, REVISION_KEY, this.#revision);
    try {
      if (this.#broken !== undefined) throw this.#broken;
      await this.#write(batch, { sync: true, bytes: 0, rows: 3 });
      this.#acknowledged.write(this.#revision);
    } catch (error) {
      this.#incidents.report("storage-end-unwritten", "the storage was closed without its last write", {
        directory: this.#place.name,
        error: errorText(error),
      });
    }
  }

  #formerSecretsOf(database: Database): FormerSecrets {
    const surroundings: Surroundings = {
      readsEnded: () => Promise.all(Array.from(this.#readings, ({ ended }) => ended)),
      deleteBetweenCommits: (keys) => this.#deleteBetweenCommits(keys),
      mergeTables: (first, last) => this.#logs.merging(() => database.compactRange(first, last)),
      incidents: this.#incidents,
    };
    return new FormerSecrets(surroundings, database.getSync(FORMER_KEY) !== undefined, this.#removalPauseMs);
  }

  /** In the order of commits, because a commit behind a failed write would be lost with it. */
  async #deleteBetweenCommits(keys: readonly Buffer[]): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    return new Promise((resolve, reject) => {
      this.#deletions.push({ keys, resolve, reject });
      this.#writing ??= this.#writeAll();
    });
  }

  async #delete({ keys, resolve, reject }: PendingDeletion): Promise<void> {
    try {
      if (this.#broken !== undefined) throw this.#broken;
      const batch = this.#database.batch();
      for (const key of keys) batch.del(key);
      await batch.write({ sync: true });
      resolve();
    } catch (error) {
      this.#broken ??= error;
      reject(error);
    }
  }

  /** Ends all reads. A page that is being read is still delivered. */
  async #interrupt(error: PeeringError): Promise<void> {
    await Promise.all(Array.from(this.#readings, (reading) => reading.interrupt(error)));
  }

  #mustBeOpen(): void {
    if (this.#closing !== undefined) throw new PeeringError("closed", "the storage is closed");
  }

  async #writeAll(): Promise<void> {
    // Commits of the same turn of the event loop go out together.
    await undefined;
    while (this.#queue.length > 0 || this.#deletions.length > 0) {
      const deletion = this.#deletions.shift();
      if (deletion !== undefined) {
        await this.#delete(deletion);
        continue;
      }
      const group = this.#takeGroup();
      try {
        await this.#writeGroup(group);
      } catch (error) {
        const failure = this.#failureOf(error);
        for (const commit of group) commit.reject(failure);
      }
      for (const { bytes } of group) this.#looseBytes += bytes;
      if (this.#looseBytes >= this.#writeBufferBytes / 4) {
        this.#looseBytes = 0;
        this.#tightening = this.#tightening.then(() => this.#tighten());
      }
    }
    this.#writing = undefined;
  }

  /** Once the engine may have made a new log or table. The directory is closed to others all the time. */
  async #tighten(): Promise<void> {
    try {
      await this.#place.tighten();
    } catch (error) {
      this.#incidents.report("storage-file-open", "the permissions of a file of the data directory cannot be set", {
        directory: this.#place.name,
        error: errorText(error),
      });
    }
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
    let isOnDisk: boolean;
    try {
      isOnDisk = await this.#writeBatch(numbered, newest);
    } catch (error) {
      this.#broken = error;
      this.#doubtful = numbered;
      let isThere: boolean;
      try {
        isThere = await this.#repair();
      } catch {
        const code = REFUSED.test(errorText(error)) ? "storage-failed" : "unavailable";
        throw new PeeringError(code, this.#failureText(error), { cause: error });
      }
      if (!isThere) throw new PeeringError("storage-failed", this.#failureText(error), { cause: error });
      for (const { commit, revision } of numbered) commit.resolve(revision);
      return;
    }
    this.#revision = newest;
    if (isOnDisk) this.#acknowledged.write(newest);
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
      for (const { encoded, value } of commit.writes) written.set(encoded, value === undefined ? undefined : revision);
    }
    return numbered;
  }

  #currentRevision(key: string): bigint | undefined {
    const encoded = Buffer.from(key, "latin1");
    const stored = this.#database.getSync(encoded);
    if (stored === undefined) return undefined;
    const revision = rowRevision(encoded, stored);
    if (revision === undefined) throw damagedDirectory(this.#place.name, "an entry's key does not match it");
    return revision;
  }

  /** @returns Whether all up to this is on disk; else it may still be lost with the power. */
  async #writeBatch(numbered: readonly NumberedCommit[], newest: bigint): Promise<boolean> {
    const batch = this.#database.batch();
    let replaces = false;
    let rows = 3;
    let bytes = 0;
    let put = 0;
    for (const { commit, revision } of numbered) {
      rows += commit.writes.length;
      bytes += commit.bytes;
      for (const { encoded, value } of commit.writes) {
        const key = Buffer.from(encoded, "latin1");
        replaces ||= isSecret(encoded) && this.#database.getSync(key) !== undefined;
        if (value === undefined) batch.del(key);
        else batch.put(key, this.#writer.row(key, revision, value));
        if (++put % PUT_IN_A_TURN === 0) await setImmediate();
      }
    }
    if (replaces) this.#mark(batch, FORMER_KEY, newest);
    else if (this.#former.takeDone()) batch.del(FORMER_KEY);
    const reserved = newest > this.#reserved ? newest + RESERVED_AHEAD : this.#reserved;
    if (reserved > this.#reserved) this.#mark(batch, RESERVED_KEY, reserved);
    // The last one: that is where it is looked for in a log.
    this.#mark(batch, REVISION_KEY, newest);
    // The writes that remove a former secret may not be lost before the secret is.
    const sync = replaces || reserved > this.#reserved || numbered.some(({ commit }) => commit.isDurable);
    await this.#write(batch, { sync, bytes, rows });
    this.#reserved = reserved;
    if (replaces) this.#former.remove();
    return sync;
  }

  #mark(batch: Batch, key: Buffer, revision: bigint): void {
    batch.put(key, this.#writer.row(key, revision, NO_VALUE));
  }

  async #write(
    batch: Batch,
    { sync, bytes, rows }: { readonly sync: boolean; readonly bytes: number; readonly rows: number },
  ): Promise<void> {
    await batch.write({ sync });
    await this.#logs.written(bytes, rows);
  }

  #announce(numbered: readonly NumberedCommit[]): void {
    for (const { commit, revision } of numbered) this.#log.add(revision, commit.writes);
  }

  #failureOf(error: unknown): PeeringError {
    const damaged = errorCode(causeOf(error)) === "LEVEL_CORRUPTION";
    return damaged ? damagedDirectory(this.#place.name, errorText(error)) : asPeeringError(error, "storage-failed");
  }

  #failureText(error: unknown): string {
    return `the data directory ${this.#place.name} cannot be written: ${errorText(error)}`;
  }

  /**
   * Makes the database usable after a failed write. The log may then end in half a record, and writes appended to it
   * would be lost on recovery, so it is closed and opened again; but first the disk must accept the writes of that, for until then the
   * open one still answers reads.
   * @returns Whether the doubtful commit was written.
   * @throws {PeeringError} `storage-failed` when it is not usable yet.
   */
  async #repair(): Promise<boolean> {
    try {
      // Opening again sorts the log into a table, which takes about as much.
      await probe(join(this.#place.path, "probe"), this.#writeBufferBytes + 1024 * 1024);
      const reopening = this.#reopen();
      this.#reopening = reopening;
      return await reopening;
    } catch (error) {
      throw new PeeringError("storage-failed", this.#failureText(error), { cause: error });
    } finally {
      this.#reopening = undefined;
    }
  }

  async #reopen(): Promise<boolean> {
    await this.#interrupt(new PeeringError("unavailable", "the database was opened again meanwhile"));
    // It waits for the queued commits, which are refused now.
    for (const deletion of this.#deletions.splice(0)) await this.#delete(deletion);
    await this.#former.leave();
    await this.#database.close();
    const { database, revision, isWhole } = await this.#openDatabase(this.#revision);
    this.#database = database;
    this.#former = this.#formerSecretsOf(database);
    this.#broken = undefined;
    const doubtful = this.#doubtful;
    this.#doubtful = [];
    const isThere = isWhole && revision > this.#revision;
    if (!isWhole) this.#log.reset(revision);
    this.#revision = revision;
    this.#reserved = revision;
    this.#acknowledged.write(revision);
    if (isThere) this.#announce(doubtful);
    return isThere;
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
