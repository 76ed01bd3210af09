import type { Clock } from "../../base/environment.js";
import { type Life, Scheduler, virtualClock } from "../simulator/scheduler.js";

/** A clock that stands still until the test moves it. */
export interface TestClock extends Clock {
  /**
   * Lets time pass: timers fire at their time and in their order, and what each sets off settles before the next. One call
   * at a time.
   */
  advance(milliseconds: number): Promise<void>;
  /** The process is stopped for so long, as a laptop that sleeps: every timer that falls due meanwhile fires at the end. */
  suspend(milliseconds: number): Promise<void>;
  /** Sets the calendar forward, or back, as an administrator does. No time passes: `now()` stays. */
  jump(milliseconds: number): void;
}

/**
 * A clock for tests with a memory transport, where nothing else takes time. It begins on 2026-01-01; `now()` at 0.
 */
export function testClock(): TestClock {
  const scheduler = new Scheduler();
  const life: Life & { frozenUntil: number } = { alive: true, frozenUntil: 0 };
  const clock = virtualClock(scheduler, life);
  let jumpedMs = 0;
  const pass = (milliseconds: number): Promise<void> => {
    const end = scheduler.now + milliseconds;
    scheduler.after(milliseconds, () => {});
    return scheduler.run(
      end,
      () => false,
      () => {},
    );
  };
  return {
    now: () => clock.now(),
    wall: () => clock.wall() + jumpedMs,
    after: (delayMs, action) => clock.after(delayMs, action),
    advance: pass,
    async suspend(milliseconds) {
      life.frozenUntil = scheduler.now + milliseconds;
      await pass(milliseconds);
    },
    jump(milliseconds) {
      jumpedMs += milliseconds;
    },
  };
}
