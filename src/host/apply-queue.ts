import type { Clock } from "../base/environment.js";
import { asPeeringError, type PeeringError } from "../base/errors.js";
import { retry } from "../base/retry.js";
import type { AppliedResult, ReceivedResource } from "../replication/types.js";

/** One resource as received, with every `apply` it answers: the newest payload speaks for those it superseded. */
export interface QueuedUpdate {
  readonly resource: ReceivedResource;
  readonly ids: readonly number[];
}

export interface ApplyQueueOptions {
  readonly clock: Clock;
  /**
   * Applies the items, in order, in as few commits as it can. One result per item: undefined, or why that payload is
   * refused. Throws when the storage is at fault; then nothing of the items is applied.
   */
  readonly apply: (items: readonly QueuedUpdate[]) => Promise<readonly (PeeringError | undefined)[]>;
  readonly done: (results: readonly AppliedResult[]) => void;
  /** Bytes of payload committed together at most: so few that nothing that is done to all of them at once takes long. Default 1 MiB. */
  readonly batchBytes?: number;
  /** The same in resources. Default 1 000. */
  readonly batchResources?: number;
}

/** A storage failure is answered after this many tries, 100 ms · 2ⁿ apart (D-31). */
const STORAGE_TRIES = 3;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 1_000;

interface Waiting {
  resource: ReceivedResource;
  readonly ids: number[];
}

/**
 * Received resources that wait for their commit: a table keyed by resource, so its memory is bounded by what the peer
 * exports, not by how often it changes. While one batch is being committed the next one gathers.
 */
export class ApplyQueue {
  readonly #options: ApplyQueueOptions;
  readonly #batchBytes: number;
  readonly #batchResources: number;
  #waiting = new Map<string, Waiting>();
  #running = false;
  /** Beside the signal, which takes longer to ask: it is asked for each resource. */
  #closed = false;
  readonly #closing = new AbortController();

  constructor(options: ApplyQueueOptions) {
    this.#options = options;
    this.#batchBytes = options.batchBytes ?? 1024 * 1024;
    this.#batchResources = options.batchResources ?? 1_000;
  }

  get closed(): boolean {
    return this.#closed;
  }

  add(id: number, resource: ReceivedResource): void {
    if (this.closed) return;
    const key = `${resource.resourceUrl} ${resource.resourceId}`;
    const superseded = this.#waiting.get(key);
    if (superseded === undefined) {
      this.#waiting.set(key, { resource, ids: [id] });
    } else {
      // To the end of the order: it may only take effect after what arrived before it, such as a list.
      this.#waiting.delete(key);
      superseded.resource = resource;
      superseded.ids.push(id);
      this.#waiting.set(key, superseded);
    }
    if (!this.#running) {
      this.#running = true;
      // One microtask later, so that all messages of one read are one batch.
      queueMicrotask(() => void this.#run());
    }
  }

  /** Drops waiting resources and accepts no more. A batch under way may still commit: the fence in storage decides. */
  close(): void {
    this.#closed = true;
    this.#closing.abort();
    this.#waiting.clear();
  }

  async #run(): Promise<void> {
    while (this.#waiting.size > 0 && !this.closed) {
      const batch = this.#take();
      const results = await this.#apply(batch);
      if (!this.closed) this.#options.done(results);
    }
    this.#running = false;
  }

  #take(): readonly QueuedUpdate[] {
    const batch: QueuedUpdate[] = [];
    let bytes = 0;
    for (const [key, item] of this.#waiting) {
      if (bytes > 0 && bytes + item.resource.value.length > this.#batchBytes) break;
      if (batch.length >= this.#batchResources) break;
      bytes += item.resource.value.length;
      batch.push(item);
      this.#waiting.delete(key);
    }
    return batch;
  }

  async #apply(batch: readonly QueuedUpdate[]): Promise<readonly AppliedResult[]> {
    try {
      const results = await retry(() => this.#options.apply(batch), {
        clock: this.#options.clock,
        signal: this.#closing.signal,
        firstMs: FIRST_RETRY_MS,
        maxMs: MAX_RETRY_MS,
        maxAttempts: STORAGE_TRIES,
        onFailure: (error) => {
          const { code } = asPeeringError(error, "storage-failed");
          if (code !== "storage-failed" && code !== "unavailable") throw error;
        },
      });
      return answers(batch, results);
    } catch (error) {
      const failure = asPeeringError(error, "storage-failed");
      return answers(
        batch,
        batch.map(() => failure),
      );
    }
  }
}

function answers(
  batch: readonly QueuedUpdate[],
  errors: readonly (PeeringError | undefined)[],
): readonly AppliedResult[] {
  const results: AppliedResult[] = [];
  batch.forEach((item, index) => {
    const error = errors[index];
    for (const id of item.ids) results.push(error === undefined ? { id } : { id, error });
  });
  return results;
}
