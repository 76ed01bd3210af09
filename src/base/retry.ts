import { type Clock, sleep } from "./environment.js";

export interface RetryOptions {
  readonly clock: Clock;
  /** Ends the attempts: `retry` throws its reason. */
  readonly signal: AbortSignal;
  /** The wait after a failure, in milliseconds. It doubles with each further one. */
  readonly firstMs: number;
  /** The longest wait, in milliseconds. */
  readonly maxMs: number;
  /** Whether the first failure is followed by another attempt at once. Default false. */
  readonly atOnce?: boolean;
  /** Called after each failure, with the wait before the next attempt. It may throw to give up. Default: nothing happens. */
  readonly onFailure?: (error: unknown, waitMs: number) => void;
}

/**
 * Attempts a task until it succeeds.
 * @param task - may call `works` once it does what it is for, so that a later failure counts as the first.
 * @throws `signal.reason` once it is aborted, and what `onFailure` throws.
 */
export async function retry<Result>(
  task: (works: () => void) => Promise<Result>,
  { clock, signal, firstMs, maxMs, atOnce = false, onFailure }: RetryOptions,
): Promise<Result> {
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
      const waitMs = doublings < 0 ? 0 : Math.min(firstMs * 2 ** doublings, maxMs);
      failures++;
      onFailure?.(error, waitMs);
      await sleep(clock, waitMs, signal);
    }
  }
}
