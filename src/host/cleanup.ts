import type { Clock, Logger } from "../environment.js";
import { sleep } from "../environment.js";
import { errorText } from "../errors.js";

export interface CleanupOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Removes what a peering that is not active any more must leave behind. Idempotent; throws when the storage fails. */
  readonly clean: (peeringId: string) => Promise<void>;
}

const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 60_000;

/**
 * Cleans up after deleted and terminated peerings: event-driven, one task per peering, retried with back-off, at rest
 * when there is nothing to do (D-13).
 */
export class Cleanup implements AsyncDisposable {
  readonly #options: CleanupOptions;
  readonly #stop = new AbortController();
  readonly #tasks = new Map<string, Promise<void>>();
  /** Asked for while a task of theirs ran: that one may have looked at the record before. */
  readonly #again = new Set<string>();

  constructor(options: CleanupOptions) {
    this.#options = options;
  }

  /** Cleans `peeringId`; where that is under way, once more afterwards. */
  request(peeringId: string): void {
    if (this.#stop.signal.aborted) return;
    if (this.#tasks.has(peeringId)) {
      this.#again.add(peeringId);
      return;
    }
    const task = this.#run(peeringId).finally(() => {
      this.#tasks.delete(peeringId);
      // Asked for after the last look of the task and before its end.
      if (this.#again.delete(peeringId)) this.request(peeringId);
    });
    this.#tasks.set(peeringId, task);
  }

  /** Resolves when the cleanup of `peeringId` that runs now, if any, is over. */
  async settled(peeringId: string): Promise<void> {
    await this.#tasks.get(peeringId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#tasks.values());
  }

  async #run(peeringId: string): Promise<void> {
    const { clock, logger, clean } = this.#options;
    for (let waitMs = FIRST_RETRY_MS; !this.#stop.signal.aborted; waitMs = Math.min(waitMs * 2, LONGEST_RETRY_MS)) {
      try {
        do {
          this.#again.delete(peeringId);
          await clean(peeringId);
        } while (this.#again.has(peeringId));
        return;
      } catch (error) {
        logger.error("failed to clean up after peering", { peeringId, error: errorText(error), retryMs: waitMs });
      }
      try {
        await sleep(clock, waitMs, this.#stop.signal);
      } catch {
        return;
      }
    }
  }
}
