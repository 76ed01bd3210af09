import assert from "node:assert/strict";
import { collectGarbage } from "./heap.js";

/** The larger size, in smaller ones. */
const FACTOR = 8;
/**
 * Linear work takes 8 times as long then, quadratic work 64 times. The bound is three times the one and three eighths of the
 * other: so much may disturbances, and a heap that no longer fits into the caches, add.
 */
const MOST = 24;
/** Milliseconds below which a time says nothing: what takes less at the smaller size is taken for so much. */
const LEAST = 4;
/**
 * How often a step is run that seems to grow too fast. Of each size the fastest run counts, as disturbances only add to it: a step
 * fails when it was disturbed each time, or when it is too slow.
 */
const TRIES = 4;
/**
 * Work that still seems too fast then is measured again with so many times as much: the time that the garbage collector and the caches add to the
 * larger size alone is then added to both, and what is quadratic stays so.
 */
const CLOSER = 2;

interface Growth<World> {
  /** The smaller size: so large that, were a step quadratic, the larger one would take hundreds of milliseconds. */
  readonly size: number;
  /** Makes what the steps work on. Not measured. */
  readonly prepare: (size: number) => Promise<World>;
  /** Done one after another, each measured by itself. */
  readonly steps: Readonly<Record<string, (world: World, size: number) => unknown>>;
  /** Not measured. */
  readonly dispose?: (world: World) => Promise<void>;
}

/** Fails when a step takes much more than eight times the time of the processor for eight times the size. */
export async function assertLinear<World>(growth: Growth<World>): Promise<void> {
  if ((await tooSteep(growth)).length === 0) return;
  assert.deepEqual(await tooSteep({ ...growth, size: CLOSER * growth.size }), []);
}

/** The steps that seem to grow too fast, in words. */
async function tooSteep<World>({ size, prepare, steps, dispose }: Growth<World>): Promise<readonly string[]> {
  const all = Object.entries(steps).map(([name, step]) => ({
    name,
    step,
    small: Number.POSITIVE_INFINITY,
    large: Number.POSITIVE_INFINITY,
  }));
  /** Runs the first of the steps and returns how long each took, in milliseconds. */
  const run = async (of: number, count: number): Promise<readonly number[]> => {
    const world = await prepare(of);
    const times: number[] = [];
    try {
      for (const { step } of all.slice(0, count)) {
        collectGarbage();
        const before = process.cpuUsage();
        await step(world, of);
        const { user, system } = process.cpuUsage(before);
        times.push((user + system) / 1_000);
      }
    } finally {
      // Also after a failure: what goes on would keep the process alive.
      await dispose?.(world);
    }
    return times;
  };
  const isTooSteep = ({ small, large }: { small: number; large: number }): boolean =>
    large > MOST * Math.max(small, LEAST);

  // Compiled and warm before it counts.
  await run(size, all.length);
  // Only what seemed too steep is looked at again, with the steps before it, which make what it works on.
  let count = all.length;
  for (let tries = 0; count > 0 && tries < TRIES; tries++) {
    // The smaller one before and after: were it slow by chance, what is quadratic could seem to be linear.
    for (const of of [size, FACTOR * size, size]) {
      const which = of === size ? "small" : "large";
      for (const [index, taken] of (await run(of, count)).entries()) {
        const each = all[index];
        if (each !== undefined) each[which] = Math.min(each[which], taken);
      }
    }
    count = all.findLastIndex(isTooSteep) + 1;
  }
  return all
    .filter(isTooSteep)
    .map(
      ({ name, small, large }) =>
        `${name}: ${size} take ${small.toFixed(1)} ms, ${FACTOR * size} take ${large.toFixed(1)} ms`,
    );
}
