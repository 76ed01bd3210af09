import { InvariantError } from "./errors.js";

/**
 * Lets one loop wait until something calls it. A call while the loop does not wait is kept, so none is lost between a look and the wait
 * for the next one; many of them end one wait.
 */
export class Wake {
  #isCalled = false;
  #resolve: (() => void) | undefined;

  /** Ends the wait there is, or the next one. Bound, so that it can be given as a listener. */
  readonly call = (): void => {
    if (this.#resolve === undefined) this.#isCalled = true;
    else this.#resolve();
  };

  /** Forgets a call that came while the loop did not wait: to be called before a look at the state that the call was about. */
  clear(): void {
    this.#isCalled = false;
  }

  /** Resolves once it was called since the last wait, or `signal` is aborted. One caller waits at a time. */
  wait(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#resolve !== undefined) {
        reject(new InvariantError("two callers wait for one wake-up"));
        return;
      }
      const done = (): void => {
        this.#resolve = undefined;
        signal?.removeEventListener("abort", done);
        resolve();
      };
      this.#resolve = done;
      signal?.addEventListener("abort", done);
      if (!this.#isCalled && signal?.aborted !== true) return;
      this.#isCalled = false;
      done();
    });
  }
}

export interface LatestOptions<Value> {
  /** Calls `wake` whenever there may be news, and once it `isClosed`, until the returned function is called. */
  readonly subscribe: (wake: () => void) => () => void;
  /** The present state, asked for when the consumer can take it. Undefined: nothing that it does not know. */
  readonly read: () => Value | undefined;
  /** Whether the watched source has ended. Asked, since a signal that many watches share would get a listener from each. Default: never. */
  readonly isClosed?: () => boolean;
  readonly signal: AbortSignal;
}

/**
 * The present state, and again after each change. The newest state is never skipped; states in between are, while the consumer
 * is busy, so a slow one costs no more than a fast one. Ends quietly when `signal` is aborted or
 * the source is closed.
 */
export async function* latest<Value>(options: LatestOptions<Value>): AsyncGenerator<Value, void, undefined> {
  const { subscribe, read, isClosed = () => false, signal } = options;
  const isOver = (): boolean => signal.aborted || isClosed();
  if (isOver()) return;
  const wake = new Wake();
  const unsubscribe = subscribe(wake.call);
  try {
    while (!isOver()) {
      wake.clear();
      const value = read();
      if (value === undefined) await wake.wait(signal);
      else {
        yield value;
        if (!isOver()) await wake.wait(signal);
      }
    }
  } finally {
    unsubscribe();
  }
}
