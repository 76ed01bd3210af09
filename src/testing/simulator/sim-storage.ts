import { PeeringError } from "../../base/errors.js";
import { pagesOf } from "../../storage/paging.js";
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
} from "../../storage/storage.js";
import type { Damage } from "./damage.js";
import { type Life, type Scheduler, whenAwake } from "./scheduler.js";

/** Ways in which the world's adversary may harm one commit. A lost one was not made, an unanswered one was: both look the same. */
export type CommitFate = "succeed" | "fail" | "lost" | "unanswered" | "crash-before" | "crash-after";

export interface SimStorageOptions {
  readonly scheduler: Scheduler;
  readonly life: Life;
  /** The data that survive crashes. */
  readonly disk: Storage;
  /** Its damaged values. Default: none. */
  readonly damage?: Damage;
  /** Decided at each commit. */
  readonly fate: (writes: readonly Write[]) => CommitFate;
  /** Whether the next read fails. Default: never. */
  readonly failsToRead?: () => boolean;
  /** Sees every commit that took effect, and the virtual time at which its owner began it. */
  readonly onCommit?: (writes: readonly Write[], begunAt: number, revision: bigint) => void;
  /** How long the next operation takes, in virtual milliseconds. */
  readonly latencyMs: () => number;
  readonly crash: () => void;
}

/**
 * A disk as one life of a process sees it: slow, failing now and then, and the place where crashes happen: just before a
 * commit takes effect, or just after, before the caller gets its answer.
 */
export class SimStorage implements Storage {
  readonly #options: SimStorageOptions;
  #lastEffect = 0;
  #closed = false;

  constructor(options: SimStorageOptions) {
    this.#options = options;
  }

  get limits(): StorageLimits {
    return this.#options.disk.limits;
  }

  async read(prefix: Key, signal?: AbortSignal): Promise<Snapshot> {
    const snapshot = await this.#read(prefix, signal);
    this.#options.damage?.verify(snapshot.entries);
    return snapshot;
  }

  async *pages(prefix: Key, bytes: number, signal?: AbortSignal): AsyncGenerator<StoragePage, void> {
    const { entries, revision } = await this.#read(prefix, signal);
    yield* pagesOf(entries, revision, bytes, (key) => this.#options.damage?.has(key) === true);
  }

  async commit(writes: readonly Write[], expect?: readonly Expectation[], options?: CommitOptions): Promise<bigint> {
    const { fate, crash, scheduler } = this.#options;
    const begunAt = scheduler.now;
    await this.#turn();
    switch (fate(writes)) {
      case "fail":
        throw new PeeringError("storage-failed", "the simulated disk refuses to write");
      case "lost":
        throw new PeeringError("unavailable", "the simulated disk did not answer");
      case "unanswered":
        await this.#take(begunAt, writes, expect, options);
        throw new PeeringError("unavailable", "the simulated disk did not answer");
      case "crash-before":
        crash();
        return never();
      case "crash-after":
        await this.#take(begunAt, writes, expect, options);
        crash();
        return never();
      default:
        return this.#take(begunAt, writes, expect, options);
    }
  }

  changes(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<StorageChanges> {
    return this.#options.disk.changes(prefix, after, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
  }

  async #read(prefix: Key, signal: AbortSignal | undefined): Promise<Snapshot> {
    await this.#turn();
    signal?.throwIfAborted();
    if (this.#options.failsToRead?.() === true) throw new PeeringError("storage-failed", "the simulated disk fails");
    return this.#options.disk.read(prefix);
  }

  async #take(begunAt: number, ...[writes, ...rest]: Parameters<Storage["commit"]>): Promise<bigint> {
    const revision = await this.#options.disk.commit(writes, ...rest);
    this.#options.onCommit?.(writes, begunAt, revision);
    this.#options.damage?.written(writes);
    return revision;
  }

  /** Operations take effect in the order of the calls, each after its latency. */
  #turn(): Promise<void> {
    if (this.#closed) return Promise.reject(new PeeringError("closed", "the storage is closed"));
    const { scheduler, life, latencyMs } = this.#options;
    this.#lastEffect = Math.max(this.#lastEffect, scheduler.now + latencyMs());
    return new Promise((resolve) => {
      scheduler.after(this.#lastEffect - scheduler.now, () => whenAwake(scheduler, life, resolve));
    });
  }
}

/** The answer that a process that crashed still waits for. */
function never(): Promise<never> {
  return new Promise(() => {});
}
