import { memoryStorage } from "../../storage/memory.js";
import type {
  CommitOptions,
  Entry,
  Expectation,
  Key,
  Snapshot,
  Storage,
  StorageChanges,
  StorageLimits,
  StoragePage,
  Write,
} from "../../storage/storage.js";

/** A storage that reserves revisions syncs when they are used up, and skips so many at most when its process ends. */
const RESERVED_AHEAD = 10_000n;

interface RelaxedCommit {
  readonly writes: readonly Write[];
  readonly revision: bigint;
}

/**
 * The data that survive the crashes of a cluster: after a crash all, after a loss of power the durable ones and a beginning of the
 * relaxed commits since. No revision is given twice.
 */
export class SimDisk implements Storage {
  #storage: Storage = memoryStorage();
  /** By key: data that no loss of power takes. */
  readonly #durable = new Map<string, Entry>();
  #revision = 0n;
  /** Since the last durable commit, in their order. */
  #relaxed: RelaxedCommit[] = [];
  #reserved = 0n;

  get limits(): StorageLimits {
    return this.#storage.limits;
  }

  /** Commits that a loss of power may take. */
  get relaxed(): number {
    return this.#relaxed.length;
  }

  read(prefix: Key, signal?: AbortSignal): Promise<Snapshot> {
    return this.#storage.read(prefix, signal);
  }

  pages(prefix: Key, bytes: number, signal?: AbortSignal): AsyncIterable<StoragePage> {
    return this.#storage.pages(prefix, bytes, signal);
  }

  async commit(
    writes: readonly Write[],
    expect?: readonly Expectation[],
    { durability = "durable" }: CommitOptions = {},
  ): Promise<bigint> {
    const revision = await this.#storage.commit(writes, expect);
    this.#relaxed.push({ writes, revision });
    const reserves = revision > this.#reserved;
    if (reserves) this.#reserved = revision + RESERVED_AHEAD;
    if (reserves || durability === "durable") this.#keep(this.#relaxed.length);
    return revision;
  }

  changes(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<StorageChanges> {
    return this.#storage.changes(prefix, after, signal);
  }

  /**
   * The process that has it open ends; the next one finds the remaining data.
   * @param kept - so many of the relaxed commits are left. Default: all, as where the power does not fail.
   */
  crashed(kept: number = this.#relaxed.length): readonly Entry[] {
    // Readers of changes end with it.
    void this.#storage[Symbol.asyncDispose]();
    this.#keep(kept);
    this.#relaxed = [];
    if (this.#reserved > this.#revision) this.#revision = this.#reserved + 1n;
    this.#reserved = this.#revision;
    const entries = [...this.#durable.values()];
    this.#storage = memoryStorage({ from: { entries, revision: this.#revision } });
    return entries;
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#storage[Symbol.asyncDispose]();
  }

  /** Makes the first of the relaxed commits durable. */
  #keep(count: number): void {
    for (const { writes, revision } of this.#relaxed.splice(0, count)) {
      this.#revision = revision;
      for (const { key, value } of writes) {
        const name = JSON.stringify(key);
        if (value === undefined) this.#durable.delete(name);
        else this.#durable.set(name, { key, value, revision });
      }
    }
  }
}
