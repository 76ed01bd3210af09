import type { Clock, Logger } from "../base/environment.js";
import type { PeeringError } from "../base/errors.js";

/** How often a failure that stays the same is logged. */
const REPEAT_MS = 60_000;

interface Logged {
  readonly message: string;
  readonly at: number;
  /** Attempts since, which were not logged. */
  unlogged: number;
}

/** Addresses of one peer that are remembered. */
const MAX_ADDRESSES = 64;

/**
 * Logs attempts to dial that fail: the first one at an address, each one that fails otherwise than the one before, and one
 * a minute of those that stay the same. A peering that reads FAILING and nothing else leaves its operator to guess.
 */
export class DialFailures {
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** By peer, then by address. */
  readonly #logged = new Map<string, Map<string, Logged>>();

  constructor(clock: Clock, logger: Logger) {
    this.#clock = clock;
    this.#logger = logger;
  }

  /** @param address - undefined: it failed before one was dialed. */
  failed(peer: string, error: PeeringError, address: string | undefined, waitMs: number): void {
    const logged = this.#logged.get(peer) ?? new Map<string, Logged>();
    this.#logged.set(peer, logged);
    const before = logged.get(address ?? "");
    const at = this.#clock.now();
    if (before?.message === error.message && at - before.at < REPEAT_MS) {
      before.unlogged++;
      return;
    }
    if (logged.size >= MAX_ADDRESSES) logged.clear();
    logged.set(address ?? "", { message: error.message, at, unlogged: 0 });
    this.#logger.warn("dialing a peer failed", {
      peer,
      address,
      error: error.message,
      remedy: error.remedy,
      retryMs: Math.round(waitMs),
      ...(before !== undefined && before.unlogged > 0 && { others: before.unlogged }),
    });
  }

  /** The dial loop of the peer has ended: the next failure is news. */
  stopped(peer: string): void {
    this.#logged.delete(peer);
  }
}
