import { type Clock, type LogFields, type Logger, silentLogger, systemClock } from "./environment.js";

/** How often one kind of incident is logged at most. */
const LOG_INTERVAL_MS = 10_000;

interface Tally {
  total: number;
  /** Counted since the last line, and not logged. */
  unlogged: number;
  loggedAtMs: number;
}

/**
 * Counts failures that operators must see and that reach no caller: a limit that refuses, a commit that fails, a
 * descriptor that is missing. Each kind is logged as a warning at once, and then at most every 10 s, however often a
 * stranger causes it.
 */
export class Incidents {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #tallies = new Map<string, Tally>();

  constructor(options: { readonly clock?: Clock; readonly logger?: Logger } = {}) {
    this.#clock = options.clock ?? systemClock;
    this.#logger = options.logger ?? silentLogger;
  }

  /**
   * @param kind - in kebab case, such as `http-body-too-large`. A literal: it becomes the name of a counter, so
   *   nothing that a peer or client sent may be part of it.
   * @param message - the log line. The same for each incident of a kind.
   * @param fields - of this incident: who, how much, and the limit.
   */
  report(kind: string, message: string, fields: LogFields = {}): void {
    const now = this.#clock.now();
    const tally = this.#tallies.get(kind) ?? { total: 0, unlogged: 0, loggedAtMs: Number.NEGATIVE_INFINITY };
    this.#tallies.set(kind, tally);
    tally.total++;
    if (now - tally.loggedAtMs < LOG_INTERVAL_MS) {
      tally.unlogged++;
      return;
    }
    const others = tally.unlogged === 0 ? {} : { others: tally.unlogged };
    tally.unlogged = 0;
    tally.loggedAtMs = now;
    this.#logger.warn(message, { incident: kind, ...fields, ...others });
  }

  /** How often each kind has happened since the start, by its name. */
  counts(): ReadonlyMap<string, number> {
    return new Map([...this.#tallies].map(([kind, { total }]) => [kind, total]));
  }
}
