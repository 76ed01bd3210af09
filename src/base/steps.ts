/**
 * Work that is done in steps of a bounded size: every `next` does one, the last returns the result. So the caller
 * can do other things in between, however much a peer has sent.
 */
export type Steps<Result> = Generator<undefined, Result, undefined>;

/** About how many fields are read in one step, or other work that takes as long: a few milliseconds. */
export const STEP_FIELDS = 25_000;
/** The same where turns are as long as the clock says, as those of `inShortTurns`: a fraction of a turn, also where code runs for the first time. */
export const SHORT_STEP_FIELDS = 500;

/** All steps one after another. */
export function doAll<Result>(steps: Steps<Result>): Result {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** Work that is over already. */
// biome-ignore lint/correctness/useYield: there is no step left.
export function* atOnce<Result>(result: Result): Steps<Result> {
  return result;
}

/** Of work that consists of many small pieces: says when a step of it is over. */
export class StepMeter {
  readonly #fields: number;
  #left: number;

  /** @param fields - of a step. */
  constructor(fields: number = STEP_FIELDS) {
    this.#fields = fields;
    this.#left = fields;
  }

  /** Counts a piece. @param size - in fields, or in other work that takes as long as reading so many. */
  isOver(size: number): boolean {
    this.#left -= size;
    if (this.#left > 0) return false;
    this.#left = this.#fields;
    return true;
  }
}
