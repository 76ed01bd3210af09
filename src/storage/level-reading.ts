import type { PeeringError } from "../base/errors.js";
import { ABOVE_EVERY_KEY, decodeKey } from "./key-encoding.js";
import type { Database, DatabaseIterator } from "./level-engine.js";
import { damagedDirectory } from "./level-files.js";
import { REVISION_KEY, ROW_HEADER_BYTES, readRow } from "./level-rows.js";
import type { DamagedEntry, Entry, StoragePage } from "./storage.js";

/** Read from the disk at a time. */
const READ_AHEAD_BYTES = 1024 * 1024;
const READ_AHEAD_ROWS = 1000;

/** Rows under a prefix, at the revision that the database had when the reading began. */
export class Reading {
  /** Resolves once nothing of the database is held any more. */
  readonly ended: Promise<void>;
  readonly #database: Database;
  readonly #name: string;
  readonly #signal: AbortSignal | undefined;
  readonly #snapshot: ReturnType<Database["snapshot"]>;
  readonly #iterator: DatabaseIterator;
  /** Read ahead; those before `#at` were in pages. */
  #rows: [Buffer, Uint8Array][] = [];
  #at = 0;
  #done = false;
  #busy: Promise<unknown> = Promise.resolve();
  #interrupted: PeeringError | undefined;
  #closing: Promise<void> | undefined;
  #end: () => void = () => {};

  /** @param name - of the directory, for messages. */
  constructor(database: Database, name: string, prefix: string, signal: AbortSignal | undefined) {
    this.#database = database;
    this.#name = name;
    this.#signal = signal;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#snapshot = database.snapshot();
    this.#iterator = database.iterator({
      gte: Buffer.from(prefix, "latin1"),
      lt: Buffer.from(prefix + ABOVE_EVERY_KEY, "latin1"),
      snapshot: this.#snapshot,
      highWaterMarkBytes: READ_AHEAD_BYTES,
    });
  }

  /** The next page; undefined when the one before had the last row. */
  async next(bytes: number): Promise<StoragePage | undefined> {
    if (this.#interrupted !== undefined) throw this.#interrupted;
    if (this.#done) return undefined;
    const reading = this.#read(bytes);
    this.#busy = reading.catch(() => {});
    return reading;
  }

  /** Ends it after a page that is being read. @param error - with which later requests reject. */
  async interrupt(error: PeeringError): Promise<void> {
    this.#interrupted = error;
    await this.#busy;
    await this.close();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.#iterator.close();
      await this.#snapshot.close();
    } finally {
      this.#end();
    }
  }

  async #read(bytes: number): Promise<StoragePage> {
    const revision = revisionOf(this.#name, this.#database.getSync(REVISION_KEY, { snapshot: this.#snapshot }));
    const entries: Entry[] = [];
    const damaged: DamagedEntry[] = [];
    for (let room = bytes; ; ) {
      if (this.#at === this.#rows.length) await this.#readAhead();
      const row = this.#rows[this.#at];
      if (row === undefined) this.#done = true;
      const isFull = room <= 0 && entries.length + damaged.length > 0;
      if (row === undefined || isFull) return { entries, damaged, revision };
      this.#at++;
      const [key, stored] = row;
      const read = readRow(key, stored);
      if (read.state === "unknown") throw damagedDirectory(this.#name, "an entry's key does not match it");
      const decoded = decodeKey(key.toString("latin1"));
      if (read.state === "damaged") damaged.push({ key: decoded, revision: read.revision });
      else entries.push({ key: decoded, value: read.value, revision: read.revision });
      room -= stored.length - ROW_HEADER_BYTES;
    }
  }

  async #readAhead(): Promise<void> {
    this.#rows = await this.#iterator.nextv(READ_AHEAD_ROWS);
    this.#at = 0;
    this.#signal?.throwIfAborted();
  }
}

/** @throws {PeeringError} `storage-damaged` */
export function revisionOf(directory: string, stored: Uint8Array | undefined): bigint {
  const row = stored === undefined ? undefined : readRow(REVISION_KEY, stored);
  if (row?.state !== "sound") throw damagedDirectory(directory, "the row that says how far its commits go");
  return row.revision;
}
