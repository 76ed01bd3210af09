/**
 * Work that is done in steps of a bounded size: every `next` does one, the last returns the result. So whoever has it done
 * can do other things in between, however much a peer has sent.
 */
export type Steps<Result> = Generator<undefined, Result, undefined>;

/** Fields read in one step, about: a few milliseconds. */
export const STEP_FIELDS = 25_000;

/** All steps one after another. */
export function doAll<Result>(steps: Steps<Result>): Result {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
