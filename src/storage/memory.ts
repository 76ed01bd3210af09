import { PeeringError } from "../errors.js";
import { encodeEntryKey, encodeKey, isUnder } from "./key-encoding.js";
import type { Entry, Expectation, Key, Page, Snapshot, Storage, Write } from "./storage.js";
import { WatchHub } from "./watch.js";

/** A storage that lives and dies with the process: for tests, and for hosts that may start anew each time. */
export function memoryStorage(): Storage {
  return new MemoryStorage();
}

class MemoryStorage implements Storage {
  readonly #entries = new SortedEntries();
  readonly #hub = new WatchHub(0n);
  #revision = 0n;
  #closed = false;

  async read(prefix: Key, signal?: AbortSignal, page?: Page): Promise<Snapshot> {
    signal?.throwIfAborted();
    this.#mustBeOpen();
    const after = page?.after && encodeEntryKey(page.after);
    return { entries: this.#entries.under(encodeKey(prefix), after, page?.bytes), revision: this.#revision };
  }

  // Everything happens during the call itself: that is what makes the order of the commits that of the calls.
  async commit(writes: readonly Write[], expect: readonly Expectation[] = []): Promise<bigint> {
    this.#mustBeOpen();
    const keys = writes.map((write) => encodeEntryKey(write.key));
    for (const { key, revision } of expect) {
      if (this.#entries.get(encodeEntryKey(key))?.revision === revision) continue;
      throw new PeeringError("conflict", `${key.join("/")} is not at the expected revision`);
    }
    const revision = ++this.#revision;
    for (const [index, { key, value }] of writes.entries()) {
      const encoded = keys[index] ?? "";
      if (value === undefined) this.#entries.delete(encoded);
      else this.#entries.set(encoded, { key, value, revision });
    }
    this.#hub.changed(revision, keys);
    return revision;
  }

  watch(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<bigint> {
    return this.#hub.watch(prefix, after, signal, () => this.#revision);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#hub.close();
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

  /** @param after - only what comes behind it. @param bytes - no more values than make so many. */
  under(prefix: string, after = "", bytes: number = Number.POSITIVE_INFINITY): readonly Entry[] {
    const found: Entry[] = [];
    const first = after < prefix ? prefix : after;
    let room = bytes;
    for (let position = this.#chunkOf(first); position < this.#chunks.length; position++) {
      const chunk = this.#chunks[position];
      if (chunk === undefined) break;
      for (let index = firstNotBelow(chunk.keys, first); index < chunk.keys.length; index++) {
        const entry = chunk.entries[index];
        const key = chunk.keys[index] ?? "";
        if (key === after) continue;
        if (entry === undefined || !isUnder(key, prefix)) return found;
        found.push(entry);
        room -= entry.value.length;
        if (room <= 0) return found;
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
