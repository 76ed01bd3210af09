import { PeeringError } from "../../errors.js";
import type { Expectation, Key, Snapshot, Storage, Write } from "../../storage/storage.js";
import type { Life, Scheduler, SeededRandom } from "./scheduler.js";

/** What the world's adversary may do to one commit. */
export type CommitFate = "succeed" | "fail" | "crash-before" | "crash-after";

export interface SimStorageOptions {
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  readonly life: Life;
  /** What survives crashes. */
  readonly disk: Storage;
  /** Decided anew at each commit. */
  readonly fate: () => CommitFate;
  /** How long the next operation takes, in virtual milliseconds. */
  readonly latencyMs: () => number;
  readonly crash: () => void;
}

/**
 * A disk as one life of a process sees it: slow, failing now and then, and the place where crashes happen: just before a
 * commit takes effect, or just after, when nobody has been told yet.
 */
export class SimStorage implements Storage {
  readonly #options: SimStorageOptions;
  #lastEffect = 0;
  #closed = false;

  constructor(options: SimStorageOptions) {
    this.#options = options;
  }

  async read(prefix: Key, signal?: AbortSignal): Promise<Snapshot> {
    await this.#turn();
    signal?.throwIfAborted();
    return this.#options.disk.read(prefix);
  }

  async commit(writes: readonly Write[], expect?: readonly Expectation[]): Promise<bigint> {
    const { disk, fate, crash } = this.#options;
    await this.#turn();
    switch (fate()) {
      case "fail":
        throw new PeeringError("storage-failed", "the simulated disk refuses to write");
      case "crash-before":
        crash();
        return never();
      case "crash-after":
        await disk.commit(writes, expect);
        crash();
        return never();
      default:
        return disk.commit(writes, expect);
    }
  }

  watch(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<bigint> {
    return this.#options.disk.watch(prefix, after, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
  }

  /** Operations take effect in the order of the calls, each after its latency. */
  #turn(): Promise<void> {
    if (this.#closed) return Promise.reject(new PeeringError("closed", "the storage is closed"));
    const { scheduler, life, latencyMs } = this.#options;
    this.#lastEffect = Math.max(this.#lastEffect, scheduler.now + latencyMs());
    return new Promise((resolve) => {
      scheduler.after(this.#lastEffect - scheduler.now, () => {
        if (life.alive) resolve();
      });
    });
  }
}

/** What a process that crashed is still waiting for. */
function never(): Promise<never> {
  return new Promise(() => {});
}
