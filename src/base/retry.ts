import { type Clock, type Random, sleep } from "./environment.js";

/** How long to wait between attempts. */
export interface Backoff {
  /** The wait after a failure, in milliseconds. It doubles with each further one. */
  readonly firstMs: number;
  /** The longest wait, in milliseconds, without the jitter. */
  readonly maxMs: number;
  /** Makes each wait longer by a random share of it, up to `share`, so that many do not come back at once. Default: none. */
  readonly jitter?: { readonly share: number; readonly random: Random };
}

/** The wait after so many doublings of the first one, from 0. */
export function backoffMs(doublings: number, { firstMs, maxMs, jitter }: Backoff): number {
  const waitMs = Math.min(firstMs * 2 ** doublings, maxMs);
  return jitter === undefined ? waitMs : waitMs * (1 + jitter.share * jitter.random.fraction());
}

export interface RetryOptions extends Backoff {
  readonly clock: Clock;
  /** Ends the attempts: `retry` throws its reason. */
  readonly signal: AbortSignal;
  /** Whether the first failure is followed by another attempt at once. Default false. */
  readonly atOnce?: boolean;
  /** So many attempts in a row may fail: the last failure is thrown. Default: any number. */
  readonly maxAttempts?: number;
  /** Called after each failure, with the wait before the next attempt. It may throw to give up. Default: nothing happens. */
  readonly onFailure?: (error: unknown, waitMs: number) => void;
}

/**
 * Attempts a task until it succeeds.
 * @param task - may call `works` once it does what it is for, so that a later failure counts as the first.
 * @throws `signal.reason` once it is aborted, what `onFailure` throws, and the failure of the last of `maxAttempts`.
 */
export async function retry<Result>(
  task: (works: () => void) => Promise<Result>,
  options: RetryOptions,
): Promise<Result> {
  const { clock, signal, atOnce = false, maxAttempts = Number.POSITIVE_INFINITY, onFailure } = options;
  let failures = 0;
  const works = (): void => {
    failures = 0;
  };
  for (;;) {
    signal.throwIfAborted();
    try {
      return await task(works);
    } catch (error) {
      signal.throwIfAborted();
      const doublings = atOnce ? failures - 1 : failures;
      failures++;
      if (failures >= maxAttempts) throw error;
      const waitMs = doublings < 0 ? 0 : backoffMs(doublings, options);
      onFailure?.(error, waitMs);
      await sleep(clock, waitMs, signal);
    }
  }
}
