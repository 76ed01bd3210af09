import type { Clock } from "../base/environment.js";
import { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";
import { encodeKey } from "./key-encoding.js";
import { cutWrites, fits, sizeOf } from "./limits.js";
import { type Expendable, type Loader, type Receiver, Replica, type ReplicaContents } from "./replica.js";
import type { CommitOptions, Entry, Expectation, Key, Storage, StorageLimits, Write } from "./storage.js";

/** A row as it is stored, with the revisions of its first and of its last write. */
export interface Stored<Row> {
  readonly row: Row;
  readonly created: bigint;
  readonly revision: bigint;
}

/** The content of an entry's bytes. */
export interface DecodedRow<Row> {
  readonly row: Row;
  /** Revision of the first write. Default: that of the entry. */
  readonly created?: bigint;
  /** It would be stored otherwise today, such as sealed with another key: it is written again when the table is opened. */
  readonly outdated?: boolean;
}

/** How the rows of a table are stored. A path is the part of a row's key below the prefix of the table. */
export interface RowFormat<Row> {
  /** @param created - undefined at the first write: its revision is not known before the commit. */
  encode(row: Row, created: bigint | undefined): Uint8Array;
  /** @throws why the bytes are no row. */
  decode(path: Key, value: Uint8Array): DecodedRow<Row>;
}

/** A row before and after a commit. Undefined: there was none, or there is none. */
export interface RowChange<Row> {
  readonly path: Key;
  readonly before: Stored<Row> | undefined;
  readonly after: Stored<Row> | undefined;
}

/** The changes of one commit, or of several that this process did not make. */
export interface TableChange<Row> {
  readonly changes: readonly RowChange<Row>[];
  /** Paths of rows that another process wrote and that cannot be read; see {@link StoredTable.fault}. */
  readonly faults: readonly Key[];
  /** Of the table afterwards. */
  readonly revision: bigint;
  /** Whether it is the write of this table that is under way. */
  readonly own: boolean;
}

export interface RowWrite<Row> {
  readonly path: Key;
  /** Undefined deletes. */
  readonly row: Row | undefined;
}

/** One write of a table, decided on the rows of this moment. */
export interface TablePlan<Row, Result> {
  /** None: nothing is committed. */
  readonly writes: readonly RowWrite<Row>[];
  /** Further conditions, on entries that belong to no row of this table. Default: none. */
  readonly expect?: readonly Expectation[];
  /** Makes the answer once the writes are committed, and the rows are those. */
  readonly result: () => Result;
}

export interface TableWriteOptions {
  /**
   * Whether the plan is to decide on no older rows than the storage has now. It takes a read, and is for plans that may refuse, or
   * write nothing: a commit shows by itself that the rows were the newest. Default false.
   */
  readonly current?: boolean;
}

export interface StoredTableOptions<Row> {
  readonly storage: Storage;
  /** Every entry below it belongs to the table. */
  readonly prefix: Key;
  /** See {@link ReplicaOptions.head}: for rows whose paths are one part that a user chooses. */
  readonly head?: string | undefined;
  /** Of every write. `relaxed` is for rows that can be fetched again. Default `durable`. */
  readonly durability?: CommitOptions["durability"] | undefined;
  /** The noun for a row in messages, such as `config entry`. */
  readonly rowName: string;
  readonly format: RowFormat<Row>;
  /** Rows that can be fetched again, or done without. Default: there are none. */
  readonly expendable?: Expendable | undefined;
  /** For the waits between attempts to read the storage. Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Gets a report of damaged rows, of a storage that cannot be followed, and of listeners that throw. Default: no reports. */
  readonly incidents?: Incidents | undefined;
}

/**
 * Rows under one prefix of a storage, all in memory: the one copy that this process has of them. Reads are synchronous. A
 * write is decided on the rows as they are, committed, and only then seen by readers. Writes of other processes to the
 * same storage is followed change by change; see {@link Replica}.
 *
 * A row that cannot be decoded keeps the table from being opened. One that another process writes later is reported, and
 * the row before it stays in memory; {@link StoredTable.fault} says so to those who must not decide on it.
 */
export class StoredTable<Row> implements AsyncDisposable {
  readonly #options: StoredTableOptions<Row>;
  readonly #held: HeldRows<Row>;
  readonly #replica: Replica;
  /** Of {@link put}, until a commit takes them. */
  readonly #waiting: WaitingPut<Row>[] = [];

  private constructor(options: StoredTableOptions<Row>, held: HeldRows<Row>, replica: Replica) {
    this.#options = options;
    this.#held = held;
    this.#replica = replica;
  }

  /**
   * Loads all rows of one revision.
   * @throws {PeeringError} `storage-damaged`, `storage-failed`: the storage cannot be read, or a row cannot be decoded; its
   *   key is named. Also what `Storage.commit` throws, where outdated rows are to be written again.
   */
  static async open<Row>(options: StoredTableOptions<Row>): Promise<StoredTable<Row>> {
    const { incidents = new Incidents() } = options;
    const held = new HeldRows(options.prefix, options.format, incidents);
    const replica = await Replica.open({ ...options, contents: held, incidents });
    const table = new StoredTable(options, held, replica);
    try {
      await table.#writeAgain(held.outdated.splice(0));
    } catch (error) {
      await table[Symbol.asyncDispose]();
      throw error;
    }
    return table;
  }

  /** The row of a path; undefined: there is none. */
  get(...path: Key): Stored<Row> | undefined {
    return this.#held.rows.get(encodeKey(path))?.stored;
  }

  /** All rows, in no order. */
  *rows(): Iterable<Stored<Row>> {
    for (const { stored } of this.#held.rows.values()) yield stored;
  }

  /**
   * Why the row of a path cannot be read as it is stored: another process wrote it so, or it is expendable and was left so. What
   * {@link get} returns is older then. Undefined: it can be read, or there is none.
   */
  fault(...path: Key): unknown {
    return this.#held.faults.get(encodeKey(path));
  }

  /** Revision of the last commit that changed the table; 0n before the first. It only grows. */
  get revision(): bigint {
    return this.#replica.revision;
  }

  /**
   * Makes one write, after the writes that began before.
   * @param plan - decides on the rows as they are now, which stay so until it is done. It is called again where another process
   *   was faster.
   * @throws what `plan` throws; {@link PeeringError} `storage-failed`: nothing was changed; `unavailable`: it may have been
   *   written; `conflict`: an expectation of the plan failed, or other processes kept being faster; `closed`.
   */
  write<Result>(
    plan: () => TablePlan<Row, Result> | Promise<TablePlan<Row, Result>>,
    { current = false }: TableWriteOptions = {},
  ): Promise<Result> {
    return this.#replica.run("", async (turn) => {
      if (current) await turn.current();
      const { writes, expect, result } = await plan();
      return turn.commit({
        writes: writes.map((write) => this.#entryOf(write)),
        expect,
        durability: this.#options.durability,
        done: (revision) => {
          this.#held.write(writes, revision);
          return result();
        },
      });
    });
  }

  /**
   * Writes rows, whatever they are at the time. It is one commit if the storage takes as much together, else several, in the order
   * of the rows. Callers that wait at the same time share commits, and their failures; of a row, the last write counts.
   * @throws {PeeringError} as {@link write}. What was written in an earlier one of several commits stays.
   */
  async put(writes: readonly RowWrite<Row>[]): Promise<void> {
    const entries = writes.map((write) => this.#entryOf(write));
    let done = 0;
    for (const together of cutWrites(entries, this.#replica.limits())) {
      const rows = writes.slice(done, done + together.length);
      done += together.length;
      await new Promise<void>((resolve, reject) => {
        this.#waiting.push({ writes: rows, size: sizeOf(together), resolve, reject });
        if (this.#waiting.length === 1) this.#commitWaiting();
      });
    }
  }

  /**
   * Calls `listener` after each change, in the order in which they were given, until the returned function is called.
   */
  onChange(listener: (change: TableChange<Row>) => void): () => void {
    return this.#held.changed.on(listener);
  }

  /** Refuses further writes, and waits for those that were begun. The storage stays open. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#replica[Symbol.asyncDispose]();
  }

  #entryOf({ path, row }: RowWrite<Row>): Write {
    const { prefix, format } = this.#options;
    const value = row === undefined ? undefined : format.encode(row, this.get(...path)?.created);
    return { key: [...prefix, ...path], value };
  }

  #commitWaiting(): void {
    let taken: readonly WaitingPut<Row>[] = [];
    const written = this.write((): TablePlan<Row, void> => {
      if (taken.length === 0) {
        taken = this.#takeWaiting();
        if (this.#waiting.length > 0) this.#commitWaiting();
      }
      const last = new Map<string, RowWrite<Row>>();
      for (const { writes } of taken) for (const write of writes) last.set(encodeKey(write.path), write);
      return { writes: [...last.values()], result: () => {} };
    });
    written.then(
      () => {
        for (const { resolve } of taken) resolve();
      },
      (error: unknown) => {
        for (const { reject } of taken.length === 0 ? this.#waiting.splice(0) : taken) reject(error);
      },
    );
  }

  /** Those that wait, or as many of them as one commit may hold. */
  #takeWaiting(): readonly WaitingPut<Row>[] {
    const limits = this.#replica.limits();
    let count = 0;
    let writes = 0;
    let bytes = 0;
    for (const { size } of this.#waiting) {
      writes += size.writes;
      bytes += size.bytes;
      if (count > 0 && !fits({ writes, bytes }, limits)) break;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  /** So that a key that is taken out of use opens nothing that is stored. */
  async #writeAgain(outdated: readonly Key[]): Promise<void> {
    const { prefix } = this.#options;
    const now = outdated.flatMap((path): readonly Write[] => {
      const stored = this.get(...path);
      return stored === undefined ? [] : [this.#entryOf({ path, row: stored.row })];
    });
    for (const together of cutWrites(now, this.#replica.limits())) {
      await this.write(() => ({
        writes: together.flatMap(({ key }) => {
          const path = key.slice(prefix.length);
          const stored = this.get(...path);
          return stored === undefined ? [] : [{ path, row: stored.row }];
        }),
        result: () => undefined,
      }));
    }
  }
}

/** Rows that wait to be written. */
interface WaitingPut<Row> {
  readonly writes: readonly RowWrite<Row>[];
  readonly size: StorageLimits;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Held<Row> {
  readonly path: Key;
  readonly stored: Stored<Row>;
}

interface RowReceiver<Row> extends Receiver {
  readonly changes: RowChange<Row>[];
  /** The row cannot be read. */
  readonly lose: (path: Key, why: unknown) => void;
  put(entry: Entry): void;
  done(revision: bigint): void;
}

/** The rows in memory. */
class HeldRows<Row> implements ReplicaContents {
  readonly rows: Map<string, Held<Row>> = new Map();
  /** Why rows cannot be read as they are stored. */
  readonly faults: Map<string, unknown> = new Map();
  /** Paths of rows that were loaded and would be stored otherwise today. */
  readonly outdated: Key[] = [];
  readonly changed: Signal<[TableChange<Row>]>;
  readonly #prefix: Key;
  readonly #format: RowFormat<Row>;

  constructor(prefix: Key, format: RowFormat<Row>, incidents: Incidents) {
    this.changed = new Signal(incidents);
    this.#prefix = prefix;
    this.#format = format;
  }

  load(): Loader {
    const missing = new Map(this.rows);
    this.faults.clear();
    const { changes, put, lose, done } = this.#receiver(this.outdated);
    return {
      put: (entry) => {
        const id = encodeKey(this.#pathOf(entry.key));
        missing.delete(id);
        if (this.rows.get(id)?.stored.revision !== entry.revision) put(entry);
      },
      damaged: (key, why) => {
        const path = this.#pathOf(key);
        missing.delete(encodeKey(path));
        lose(path, why);
      },
      remove: () => {},
      done: (revision) => {
        for (const { path, stored } of missing.values()) changes.push({ path, before: stored, after: undefined });
        done(revision);
      },
    };
  }

  follow(): Receiver {
    return this.#receiver();
  }

  /** Takes over the commit of `revision`. */
  write(writes: readonly RowWrite<Row>[], revision: bigint): void {
    const changes = writes.map(({ path, row }): RowChange<Row> => {
      const before = this.#at(path);
      return {
        path,
        before,
        after: row === undefined ? undefined : { row, created: before?.created ?? revision, revision },
      };
    });
    this.#take({ changes, faults: [], revision, own: true });
  }

  #receiver(outdatedPaths: Key[] = []): RowReceiver<Row> {
    const changes: RowChange<Row>[] = [];
    const faults: Key[] = [];
    const lose = (path: Key, why: unknown): void => {
      this.faults.set(encodeKey(path), why);
      faults.push(path);
    };
    return {
      changes,
      lose,
      put: ({ key, value, revision }: Entry) => {
        const path = this.#pathOf(key);
        let decoded: DecodedRow<Row>;
        try {
          decoded = this.#format.decode(path, value);
        } catch (error) {
          lose(path, error);
          throw error;
        }
        const { row, created = revision, outdated = false } = decoded;
        changes.push({ path, before: this.#at(path), after: { row, created, revision } });
        if (outdated) outdatedPaths.push(path);
      },
      remove: (key) => {
        const path = this.#pathOf(key);
        this.faults.delete(encodeKey(path));
        const before = this.#at(path);
        if (before !== undefined) changes.push({ path, before, after: undefined });
      },
      done: (revision) => this.#take({ changes, faults, revision, own: false }),
    };
  }

  #take(change: TableChange<Row>): void {
    if (change.changes.length + change.faults.length === 0) return;
    for (const { path, after } of change.changes) {
      const id = encodeKey(path);
      this.faults.delete(id);
      if (after === undefined) this.rows.delete(id);
      else this.rows.set(id, { path, stored: after });
    }
    this.changed.emit(change);
  }

  #at(path: Key): Stored<Row> | undefined {
    return this.rows.get(encodeKey(path))?.stored;
  }

  #pathOf(key: Key): Key {
    return key.slice(this.#prefix.length);
  }
}
