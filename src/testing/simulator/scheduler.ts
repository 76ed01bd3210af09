import type { Clock, Random, Timer } from "../../base/environment.js";

/** Reproducible random numbers: the same seed draws the same sequence on every machine (splitmix32). */
export class SeededRandom implements Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  fraction(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  }

  /** A whole number in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.fraction() * bound);
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  between(low: number, high: number): number {
    return low + this.fraction() * (high - low);
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items[this.below(items.length)];
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}

interface Event {
  readonly at: number;
  readonly order: number;
  readonly action: () => void;
  cancelled: boolean;
}

/** More events without any time between them are no work but a loop that does not wait. */
const MAX_AT_ONCE = 50_000;

/**
 * Virtual time. Events happen one after another, at their time, in the order they were made; between two of them every
 * promise that can settle has settled. Nothing else moves, so a run is a function of its seed.
 */
export class Scheduler {
  #now = 0;
  #order = 0;
  readonly #heap: Event[] = [];

  /** Virtual milliseconds since the run began. */
  get now(): number {
    return this.#now;
  }

  after(delayMs: number, action: () => void): Timer {
    const event: Event = { at: this.#now + Math.max(0, delayMs), order: this.#order++, action, cancelled: false };
    this.#push(event);
    return {
      cancel: () => {
        event.cancelled = true;
      },
    };
  }

  /**
   * Runs events until `done` holds or virtual time would pass `untilMs`. `afterEach` is called when all that an event set
   * off has settled.
   */
  async run(untilMs: number, done: () => boolean, afterEach: () => void): Promise<void> {
    await settle();
    let atOnce = 0;
    while (!done()) {
      const event = this.#pop();
      if (event === undefined) return;
      if (event.cancelled) continue;
      if (event.at > untilMs) {
        this.#push(event);
        this.#now = Math.max(this.#now, untilMs);
        return;
      }
      atOnce = event.at > this.#now ? 0 : atOnce + 1;
      if (atOnce > MAX_AT_ONCE) throw new Error(`virtual time stands still at ${this.#now} ms`);
      this.#now = event.at;
      event.action();
      await settle();
      afterEach();
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const parent = (index - 1) >>> 1;
      const above = heap[parent];
      if (above === undefined || !isBefore(event, above)) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      let below = heap[child];
      const right = heap[child + 1];
      if (right !== undefined && below !== undefined && isBefore(right, below)) {
        child++;
        below = right;
      }
      if (below === undefined || !isBefore(below, last)) break;
      heap[index] = below;
      index = child;
    }
    heap[index] = last;
    return top;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Everything in a simulated world waits by promises only, and those have all settled once the event loop comes round. */
function settle(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** One life of a simulated process. After a crash nothing it still holds may have an effect on the world. */
export interface Life {
  readonly alive: boolean;
  /** A process that is stopped, not dead: until this virtual time nothing of it moves. */
  readonly frozenUntil?: number;
  /** How far its wall clock is ahead of the others', in milliseconds. */
  readonly wallAheadMs?: number;
}

/** Does `action` in a life: at once, when it thaws, or never. */
export function whenAwake(scheduler: Scheduler, life: Life, action: () => void): void {
  if (!life.alive) return;
  const wait = (life.frozenUntil ?? 0) - scheduler.now;
  if (wait <= 0) action();
  else scheduler.after(wait, () => whenAwake(scheduler, life, action));
}

/** 2026-01-01T00:00:00Z: what the wall clocks of a simulated world show at its beginning. */
const EPOCH = 1_767_225_600_000;

/** The clock of one life: its timers die with it. */
export function virtualClock(scheduler: Scheduler, life: Life): Clock {
  return {
    now: () => scheduler.now,
    wall: () => EPOCH + scheduler.now + (life.wallAheadMs ?? 0),
    after: (delayMs, action) => {
      let cancelled = false;
      const timer = scheduler.after(delayMs, () => {
        whenAwake(scheduler, life, () => {
          if (!cancelled) action();
        });
      });
      return {
        cancel: () => {
          cancelled = true;
          timer.cancel();
        },
      };
    },
  };
}
