import { setImmediate } from "node:timers/promises";
import { STEP_FIELDS, type Steps } from "../wire/steps.js";

/** Does all steps; between two of them whatever else waits gets its turn. */
export async function inTurns<Result>(steps: Steps<Result>): Promise<Result> {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    await setImmediate();
  }
}

/** Of work that consists of many small pieces: says when enough was done that whatever else waits gets its turn. */
export class Turns {
  #left = STEP_FIELDS;

  /**
   * Counts a piece of work.
   * @param size - in fields of messages, or what takes about as long.
   * @returns Whether {@link next} is due.
   */
  isOver(size: number): boolean {
    this.#left -= size;
    return this.#left <= 0;
  }

  async next(): Promise<void> {
    this.#left = STEP_FIELDS;
    await setImmediate();
  }
}
