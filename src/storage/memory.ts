import type { Closable } from "../base/closable.js";
import { PeeringError } from "../base/errors.js";
import { ChangeLog } from "./change-log.js";
import { encodeEntryKey, encodeKey, isUnder } from "./key-encoding.js";
import { mustFit } from "./limits.js";
import { pagesOf } from "./paging.js";
import type {
  Entry,
  Expectation,
  Key,
  Snapshot,
  Storage,
  StorageChanges,
  StorageLimits,
  StoragePage,
  Write,
} from "./storage.js";

export interface MemoryStorageOptions {
  /** The bounds of one commit. Default: no limit. */
  readonly limits?: Partial<StorageLimits>;
  /** The initial content, such as that of another storage. Default: empty, at revision 0. */
  readonly from?: Snapshot;
}

/** A storage that lives and dies with the process: for tests, and for hosts that may start over each time. */
export function memoryStorage(options: MemoryStorageOptions = {}): Storage & Closable {
  return new MemoryStorage(options);
}

class MemoryStorage implements Storage, Closable {
  readonly limits: StorageLimits;
  readonly #entries = new SortedEntries();
  readonly #log: ChangeLog;
  #closed = false;

  constructor({ limits, from }: MemoryStorageOptions) {
    this.#log = new ChangeLog(from?.revision ?? 0n);
    for (const entry of from?.entries ?? []) this.#entries.set(encodeEntryKey(entry.key), entry);
    this.limits = { writes: Number.POSITIVE_INFINITY, bytes: Number.POSITIVE_INFINITY, ...limits };
  }

  async read(prefix: Key, signal?: AbortSignal): Promise<Snapshot> {
    signal?.throwIfAborted();
    this.#mustBeOpen();
    return { entries: this.#entries.under(encodeKey(prefix)), revision: this.#log.revision };
  }

  async *pages(prefix: Key, bytes: number, signal?: AbortSignal): AsyncGenerator<StoragePage, void> {
    const { entries, revision } = await this.read(prefix, signal);
    for (const page of pagesOf(entries, revision, bytes)) {
      yield page;
      signal?.throwIfAborted();
      this.#mustBeOpen();
    }
  }

  // Everything happens during the call itself: so commits have the order of the calls.
  async commit(writes: readonly Write[], expect: readonly Expectation[] = []): Promise<bigint> {
    this.#mustBeOpen();
    mustFit(writes, this.limits);
    const logged = writes.map(({ key, value }) => ({ key, value, encoded: encodeEntryKey(key) }));
    for (const { key, revision } of expect) {
      if (this.#entries.get(encodeEntryKey(key))?.revision === revision) continue;
      throw new PeeringError("conflict", `${key.join("/")} is not at the expected revision`);
    }
    const revision = this.#log.revision + 1n;
    for (const { key, value, encoded } of logged) {
      if (value === undefined) this.#entries.delete(encoded);
      else this.#entries.set(encoded, { key, value, revision });
    }
    this.#log.add(revision, logged);
    return revision;
  }

  changes(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<StorageChanges> {
    return this.#log.changes(prefix, after, signal);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#log.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #mustBeOpen(): void {
    if (this.#closed) throw new PeeringError("closed", "the storage is closed");
  }
}

const CHUNK = 512;

interface Chunk {
  readonly keys: string[];
  readonly entries: Entry[];
}

/** Entries by encoded key, in order: chunks small enough that inserting into one costs next to nothing. */
class SortedEntries {
  readonly #byKey = new Map<string, Entry>();
  readonly #chunks: Chunk[] = [];

  get(key: string): Entry | undefined {
    return this.#byKey.get(key);
  }

  set(key: string, entry: Entry): void {
    const known = this.#byKey.has(key);
    this.#byKey.set(key, entry);
    const position = this.#chunkOf(key);
    const chunk = this.#chunks[position];
    if (chunk === undefined) {
      this.#chunks.push({ keys: [key], entries: [entry] });
      return;
    }
    const index = firstNotBelow(chunk.keys, key);
    chunk.keys.splice(index, known ? 1 : 0, key);
    chunk.entries.splice(index, known ? 1 : 0, entry);
    if (chunk.keys.length <= CHUNK) return;
    const half = CHUNK / 2;
    this.#chunks.splice(position + 1, 0, { keys: chunk.keys.splice(half), entries: chunk.entries.splice(half) });
  }

  delete(key: string): void {
    if (!this.#byKey.delete(key)) return;
    const position = this.#chunkOf(key);
    const chunk = this.#chunks[position];
    if (chunk === undefined) return;
    const index = firstNotBelow(chunk.keys, key);
    chunk.keys.splice(index, 1);
    chunk.entries.splice(index, 1);
    if (chunk.keys.length === 0) this.#chunks.splice(position, 1);
  }

  under(prefix: string): readonly Entry[] {
    const found: Entry[] = [];
    for (let position = this.#chunkOf(prefix); position < this.#chunks.length; position++) {
      const chunk = this.#chunks[position];
      if (chunk === undefined) break;
      for (let index = firstNotBelow(chunk.keys, prefix); index < chunk.keys.length; index++) {
        const entry = chunk.entries[index];
        if (entry === undefined || !isUnder(chunk.keys[index] ?? "", prefix)) return found;
        found.push(entry);
      }
    }
    return found;
  }

  /** The last chunk that begins at `key` or below, else the first. */
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#chunks[middle]?.keys[0] ?? "") <= key) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }
}

function firstNotBelow(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] ?? "") < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
