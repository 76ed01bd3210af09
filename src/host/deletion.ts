import type { Clock, Logger } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import { retry } from "../base/retry.js";
import type { HostEffect } from "../peering/state-machine.js";
import type { ImportStore } from "../stores/import-store.js";
import type { PeeringRecords } from "../stores/records.js";
import type { StatusBoard } from "./status-board.js";
import type { Streams } from "./streams.js";

/** A part of an ended peering that is to be removed. */
export type Removal = Extract<HostEffect["type"], `remove-${string}`>;

export interface DeletionOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly records: Pick<PeeringRecords, "inactiveExpectation" | "byId" | "removeTrustBundle" | "remove">;
  readonly streams: Pick<Streams, "drained">;
  readonly imports: Pick<ImportStore, "removePeer">;
  readonly board: Pick<StatusBoard, "forget">;
  /** Whether this host may: a follower leaves it to the leader, which resumes it. */
  readonly mayRemove: () => boolean;
}

const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;

/** The remaining removals of one peering, in order. */
interface Rest {
  readonly steps: Removal[];
}

/**
 * Removes what deleted and terminated peerings leave behind: one task per peering, which waits until its stream is gone,
 * retries failed removals with back-off, and rests when nothing is left (D-11, D-13).
 */
export class Deletion implements AsyncDisposable {
  readonly #options: DeletionOptions;
  readonly #stop = new AbortController();
  readonly #rests = new Map<string, Rest>();
  readonly #tasks = new Map<string, Promise<void>>();

  constructor(options: DeletionOptions) {
    this.#options = options;
  }

  /** Removes these of `peeringId` from now on, in order, and nothing that was asked for before. */
  replace(peeringId: string, steps: readonly Removal[]): void {
    if (this.#stop.signal.aborted) return;
    if (steps.length === 0) {
      this.#rests.delete(peeringId);
      return;
    }
    this.#rests.set(peeringId, { steps: [...steps] });
    if (!this.#tasks.has(peeringId)) this.#begin(peeringId);
  }

  /** Resolves when nothing is left to remove of `peeringId`. */
  async settled(peeringId: string): Promise<void> {
    for (let task = this.#tasks.get(peeringId); task !== undefined; task = this.#tasks.get(peeringId)) await task;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#tasks.values());
  }

  #begin(peeringId: string): void {
    const task = this.#run(peeringId).finally(() => {
      this.#tasks.delete(peeringId);
      // Asked for after the last look of the task and before its end.
      if (this.#rests.has(peeringId) && !this.#stop.signal.aborted) this.#begin(peeringId);
    });
    this.#tasks.set(peeringId, task);
  }

  async #run(peeringId: string): Promise<void> {
    const { clock, logger } = this.#options;
    try {
      await retry(() => this.#removeAll(peeringId), {
        clock,
        signal: this.#stop.signal,
        firstMs: FIRST_RETRY_MS,
        maxMs: MAX_RETRY_MS,
        onFailure: (error, retryMs) =>
          logger.error("failed to clean up after peering", { peering: peeringId, error: errorText(error), retryMs }),
      });
    } catch {
      // The host is closed.
    }
  }

  async #removeAll(peeringId: string): Promise<void> {
    const { streams, mayRemove } = this.#options;
    // Imports that its stream still brings would come back.
    await streams.drained(peeringId);
    while (!this.#stop.signal.aborted) {
      const rest = this.#rests.get(peeringId);
      const step = rest?.steps[0];
      if (rest === undefined || step === undefined || !mayRemove()) {
        this.#rests.delete(peeringId);
        return;
      }
      try {
        await this.#remove(peeringId, step);
        rest.steps.shift();
      } catch (error) {
        if (rest === this.#rests.get(peeringId)) throw error;
        // Such as a record that was established again meanwhile: the imports of now belong to the new stream.
        await streams.drained(peeringId);
      }
    }
  }

  /** Each of them changes nothing where it is done already. */
  async #remove(peeringId: string, step: Removal): Promise<void> {
    const { records, imports, board } = this.#options;
    switch (step) {
      case "remove-imports":
        return imports.removePeer(peeringId, records.inactiveExpectation(peeringId));
      case "remove-trust-bundle": {
        const peering = records.byId(peeringId);
        if (peering !== undefined) await records.removeTrustBundle(peering.name);
        return;
      }
      case "remove-record":
        await records.remove(peeringId);
        board.forget(peeringId);
        return;
      default:
        return step satisfies never;
    }
  }
}
