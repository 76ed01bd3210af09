import type { Clock, Random } from "../base/environment.js";
import { Wake } from "../base/latest.js";
import type { ReadOptions } from "./query.js";

/** The call that waits, over HTTP or another protocol. */
export interface Waiting {
  readonly server: { readonly clock: Clock; readonly random: Random };
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
  /** Looks again at the rights that were asked for. @throws {PeeringError} `permission-denied`: they are not there any more. */
  confirm(): Promise<void>;
  /**
   * Takes a place among the calls that wait.
   * @param over - is called when it must not wait any longer.
   * @returns gives the place back.
   * @throws {PeeringError} `resource-exhausted`: it must not wait.
   */
  wait(over: () => void): () => void;
  /**
   * Resolves when an answer may be read and made.
   * @param changed - a change has ended its wait, as that of others who wait for the same.
   * @throws `signal.reason` when the client has gone.
   */
  turn(changed: boolean): Promise<void>;
  /** There is no answer yet: it is the turn of others. */
  pause(): void;
}

/** The result of a query at one moment. */
export interface Reading<Result> {
  readonly index: bigint;
  readonly result: Result;
  /** False: the one thing asked for does not exist. Default true. */
  readonly found?: boolean;
}

/** A query that can be waited for. Its parts are called many times, `index` at any moment, `read` in turn. */
export interface BlockingQuery<Result> {
  /** Reads everything of one moment: without an `await` between one look and the next. */
  readonly read: () => Reading<Result>;
  /** The index that `read` would have, where that is cheaper: `read` is then called only when it has grown. */
  readonly index?: () => bigint;
  /** Its answer changes without its index, too: each call has its own. Default false. */
  readonly unsteady?: boolean;
  /** Calls `wake` whenever the answer may have changed, until the returned function is called. */
  readonly subscribe: (wake: () => void) => () => void;
}

const DEFAULT_WAIT_MS = 300_000;
const MAX_WAIT_MS = 600_000;
/** Up to a sixteenth is added, so that clients do not come back all at once. */
const JITTER_FRACTION = 16;

/**
 * Answers a read at once, or, given an index, once the index exceeds it or the wait is over. A
 * client whose index lies ahead of ours, as after a restore, waits in full and starts again from the index in the answer.
 * @throws `call.signal.reason` when the client has gone.
 * @throws {PeeringError} `permission-denied`: the caller has lost a right while it waited; `resource-exhausted`: too many calls
 *   wait.
 */
export async function blocking<Result>(
  call: Waiting,
  options: Pick<ReadOptions, "minIndex" | "waitMs">,
  query: BlockingQuery<Result>,
): Promise<Reading<Result>> {
  if (options.minIndex === 0n) {
    await call.turn(false);
    return atLeastOne(query.read());
  }
  const { clock, random } = call.server;
  const { signal } = call;
  const wake = new Wake();
  const asked = options.waitMs <= 0 ? DEFAULT_WAIT_MS : Math.min(options.waitMs, MAX_WAIT_MS);
  let over = false;
  const finish = (): void => {
    over = true;
    wake.call();
  };
  const leave = call.wait(finish);
  const timer = clock.after(asked + (asked / JITTER_FRACTION) * random.fraction(), finish);
  // Armed before the first look, so that no write falls between a look and the wait for the next.
  const unsubscribe = query.subscribe(wake.call);
  let minIndex = options.minIndex;
  let missing = false;
  try {
    for (let waited = false; ; waited = true) {
      signal.throwIfAborted();
      wake.clear();
      if (over || query.index === undefined || query.index() > minIndex) {
        // A look at the caller's rights may take a while: where there will be an answer, not in its turn.
        const decided = over || query.index !== undefined;
        if (waited && decided) await call.confirm();
        await call.turn(waited && !over);
        wake.clear();
        const reading = atLeastOne(query.read());
        // A record that is still missing is no change, however much was written beside it.
        if (reading.found === false && missing) minIndex = reading.index;
        missing ||= reading.found === false;
        if (over || reading.index > minIndex) {
          if (waited && !decided) await call.confirm();
          return reading;
        }
        call.pause();
      }
      if (!over) await wake.wait(signal);
    }
  } finally {
    unsubscribe();
    timer.cancel();
    leave();
  }
}

/**
 * The query, changed to wait while its result is the same: entries that it reads are also written for others.
 * For one call.
 *
 * @param minIndex - that of the call.
 * @param form - equal for equal results.
 */
export function onlyChanges<Result>(
  query: Pick<BlockingQuery<Result>, "read" | "subscribe">,
  minIndex: bigint,
  form: (result: Result) => string,
): BlockingQuery<Result> {
  let known: string | undefined;
  return {
    ...query,
    read: () => {
      const reading = query.read();
      // Without a wait it is read once.
      if (minIndex === 0n) return reading;
      const now = form(reading.result);
      const same = now === known;
      known = now;
      return same ? { ...reading, index: minIndex } : reading;
    },
  };
}

function atLeastOne<Result>(reading: Reading<Result>): Reading<Result> {
  return reading.index < 1n ? { ...reading, index: 1n } : reading;
}
