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

/** The wait after the n-th failure in a row, from 1, in milliseconds. */
export type WaitRule = (failures: number, error: unknown) => number;

export interface RetryOptions {
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

function doubling(backoff: Backoff): WaitRule {
  return (failures) => backoffMs(failures - 1, backoff);
}

/**
 * Attempts a task until it succeeds.
 * @param task - may call `works` once it succeeds at its purpose, so that a later failure counts as the first.
 * @throws `signal.reason` once it is aborted, what `onFailure` throws, and the failure of the last of `maxAttempts`.
 */
export async function retry<Result>(
  task: (works: () => void) => Promise<Result>,
  options: RetryOptions & (Backoff | { readonly waitMs: WaitRule }),
): Promise<Result> {
  const { clock, signal, atOnce = false, maxAttempts = Number.POSITIVE_INFINITY, onFailure } = options;
  const waitAfter = "waitMs" in options ? options.waitMs : doubling(options);
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
      failures++;
      if (failures >= maxAttempts) throw error;
      const counted = atOnce ? failures - 1 : failures;
      const waitMs = counted === 0 ? 0 : waitAfter(counted, error);
      onFailure?.(error, waitMs);
      await sleep(clock, waitMs, signal);
    }
  }
}
