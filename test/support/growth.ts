import assert from "node:assert/strict";
import { collectGarbage } from "./heap.js";

/** The larger size, in smaller ones. */
const FACTOR = 4;
/** What is linear takes 4 times as long then, what is quadratic 16 times; between them there is room for noise. */
const MOST = 9;
/** Milliseconds below which a time says nothing: what takes less at the smaller size is taken for so much. */
const LEAST = 8;
/** What seems to grow too fast is run again: the fastest run of each size counts, as disturbances only add to it. */
const TRIES = 3;

interface Growth<World> {
  /** The smaller size: so large that, were a step quadratic, it would take tens of milliseconds. */
  readonly size: number;
  /** Makes what the steps work on. Not measured. */
  readonly prepare: (size: number) => Promise<World>;
  /** Done one after another, each measured by itself. */
  readonly steps: Readonly<Record<string, (world: World, size: number) => unknown>>;
  /** Not measured. */
  readonly dispose?: (world: World) => Promise<void>;
}

/** Fails when a step takes much more than four times the time of the processor for four times the size. */
export async function assertLinear<World>({ size, prepare, steps, dispose }: Growth<World>): Promise<void> {
  const names = Object.keys(steps);
  const fastest = new Map<string, { small: number; large: number }>(
    names.map((name) => [name, { small: Number.POSITIVE_INFINITY, large: Number.POSITIVE_INFINITY }]),
  );
  const run = async (of: number, count: boolean): Promise<void> => {
    const world = await prepare(of);
    for (const [name, step] of Object.entries(steps)) {
      collectGarbage();
      const before = process.cpuUsage();
      await step(world, of);
      const { user, system } = process.cpuUsage(before);
      const known = fastest.get(name);
      if (!count || known === undefined) continue;
      const which = of === size ? "small" : "large";
      known[which] = Math.min(known[which], (user + system) / 1_000);
    }
    await dispose?.(world);
  };
  // Compiled and warm before it counts.
  await run(size, false);
  let tooSteep: readonly string[] = [];
  for (let attempt = 0; attempt < TRIES; attempt++) {
    await run(size, true);
    await run(FACTOR * size, true);
    tooSteep = [...fastest].flatMap(([name, { small, large }]) =>
      large <= MOST * Math.max(small, LEAST)
        ? []
        : `${name}: ${size} take ${small.toFixed(1)} ms, ${FACTOR * size} take ${large.toFixed(1)} ms`,
    );
    if (tooSteep.length === 0) return;
  }
  assert.fail(tooSteep.join("; "));
}
