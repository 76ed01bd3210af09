import { latest } from "../base/latest.js";
import { encodeKey, isUnder } from "./key-encoding.js";
import type { Entry, Key, Removal, StorageChanges, Write } from "./storage.js";

/**
 * So many keys, and bytes of values, of past commits are remembered. A reader that falls behind them must read everything
 * again, so it is what a busy host writes in some seconds; the values are held in memory, so it is no more than that.
 */
const REMEMBERED_KEYS = 4096;
const REMEMBERED_BYTES = 4 * 1024 * 1024;

/** A write of a commit, with its encoded key. */
export interface LoggedWrite extends Write {
  readonly encoded: string;
}

interface Commit {
  readonly revision: bigint;
  readonly writes: readonly LoggedWrite[];
  readonly bytes: number;
}

/** Knows everything up to `revision`, and holds no changes itself: being slow and starting late are the same. */
interface Reader {
  readonly prefix: string;
  revision: bigint;
  /** Whether something under the prefix changed after `revision`. */
  behind: boolean;
  readonly wake: () => void;
}

/** The recent commits of one storage, and the readers that follow them. A reader costs the same however slow it is. */
export class ChangeLog {
  readonly #readers = new Set<Reader>();
  #commits: Commit[] = [];
  /** The oldest that is remembered. Those before it are taken off later, many at once. */
  #first = 0;
  #keys = 0;
  #bytes = 0;
  /** Changes up to this revision are not remembered. */
  #horizon: bigint;
  #revision: bigint;
  #closed = false;

  /** @param revision - the storage's revision now. */
  constructor(revision: bigint) {
    this.#horizon = revision;
    this.#revision = revision;
  }

  /** The newest revision. */
  get revision(): bigint {
    return this.#revision;
  }

  /** Call it for every commit, in their order, once reads show it. */
  add(revision: bigint, writes: readonly LoggedWrite[]): void {
    this.#revision = revision;
    let bytes = 0;
    for (const { value } of writes) bytes += value?.length ?? 0;
    this.#commits.push({ revision, writes, bytes });
    this.#keys += writes.length;
    this.#bytes += bytes;
    for (const reader of this.#readers) {
      if (reader.behind) continue;
      if (writes.some(({ encoded }) => isUnder(encoded, reader.prefix))) {
        reader.behind = true;
        reader.wake();
      } else reader.revision = revision;
    }
    this.#forget();
  }

  /** Something changed that cannot be told: all read again. @param revision - the newest one now. */
  reset(revision: bigint): void {
    this.#revision = revision;
    this.#horizon = revision;
    this.#commits = [];
    this.#first = 0;
    this.#keys = 0;
    this.#bytes = 0;
    for (const reader of this.#readers) {
      reader.behind = true;
      reader.wake();
    }
  }

  /** Ends the reads of all readers. */
  close(): void {
    this.#closed = true;
    for (const reader of this.#readers) reader.wake();
  }

  /** As `Storage.changes`. */
  changes(prefix: Key, after: bigint, signal: AbortSignal): AsyncGenerator<StorageChanges, void> {
    const encoded = encodeKey(prefix);
    let reader: Reader | undefined;
    return latest({
      signal,
      isClosed: () => this.#closed,
      subscribe: (wake) => {
        const own = { prefix: encoded, revision: after, behind: after < this.#revision, wake };
        reader = own;
        this.#readers.add(own);
        return () => this.#readers.delete(own);
      },
      read: () => (reader?.behind ? this.#since(reader) : undefined),
    });
  }

  /** The newest commit is kept, whatever its size, for the readers that are woken for it: they need not read everything again. */
  #forget(): void {
    const isAwaited = [...this.#readers].some(({ behind }) => behind);
    const last = isAwaited ? this.#commits.length - 1 : this.#commits.length;
    while (this.#first < last && this.#isFull()) {
      const commit = this.#commits[this.#first];
      if (commit === undefined) break;
      this.#keys -= commit.writes.length;
      this.#bytes -= commit.bytes;
      this.#horizon = commit.revision;
      this.#first++;
    }
    // Now and then only: it costs as much as the commits that are kept.
    if (this.#first * 2 < this.#commits.length) return;
    this.#commits = this.#commits.slice(this.#first);
    this.#first = 0;
  }

  #isFull(): boolean {
    const commits = this.#commits.length - this.#first;
    return commits > REMEMBERED_KEYS || this.#keys > REMEMBERED_KEYS || this.#bytes > REMEMBERED_BYTES;
  }

  /** The changes under the reader's prefix, which it knows afterwards; undefined: none. */
  #since(reader: Reader): StorageChanges | undefined {
    const after = reader.revision;
    const revision = this.#revision;
    reader.revision = revision;
    reader.behind = false;
    if (after < this.#horizon) return { type: "reset", revision };
    const { prefix } = reader;
    const commits = this.#commits
      .slice(this.#firstAfter(after))
      .filter(({ writes }) => writes.some(({ encoded }) => isUnder(encoded, prefix)));
    this.#forget();
    if (commits.length === 0) return undefined;
    // Looked at by those alone who have not made the commits themselves.
    let changes: Changes | undefined;
    const made = (): Changes => {
      changes ??= changesIn(commits, prefix);
      return changes;
    };
    return {
      type: "changed",
      get entries() {
        return made().entries;
      },
      get removed() {
        return made().removed;
      },
      revision,
    };
  }

  /** Where the commits begin that came after a revision. */
  #firstAfter(revision: bigint): number {
    let low = this.#first;
    let high = this.#commits.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#commits[middle]?.revision ?? 0n) <= revision) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

interface Changes {
  readonly entries: readonly Entry[];
  readonly removed: readonly Removal[];
}

/** The changes of commits under a prefix: the newest of each key. */
function changesIn(commits: readonly Commit[], prefix: string): Changes {
  const newest = new Map<string, Entry | Removal>();
  for (const { revision, writes } of commits) {
    for (const { encoded, key, value } of writes) {
      if (!isUnder(encoded, prefix)) continue;
      newest.set(encoded, value === undefined ? { key, revision } : { key, value, revision });
    }
  }
  const entries: Entry[] = [];
  const removed: Removal[] = [];
  for (const change of newest.values()) {
    if ("value" in change) entries.push(change);
    else removed.push(change);
  }
  return { entries, removed };
}
