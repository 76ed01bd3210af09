import { createHash } from "node:crypto";
import { errorText } from "../../base/errors.js";
import { Adversary } from "./adversary.js";
import { Peace } from "./peace.js";
import { type ForcedCrash, SimWorld } from "./sim-world.js";

export interface SimulationOptions {
  /** Decides everything: the same seed gives the same run, byte for byte. */
  readonly seed: number;
  /** 2 to 5. Default: drawn from the seed. */
  readonly hosts?: number;
  /** Operations and faults before the world is left in peace. Default 60. */
  readonly steps?: number;
  /** Scenes that are played when the faults have stopped. Default 3. */
  readonly scenes?: number;
  /** A crash at a commit of the caller's choice, beside those that the seed draws, while the adversary acts. Default: none. */
  readonly crashAt?: ForcedCrash;
  /** Called with each line of the trace as it is written. */
  readonly onTrace?: (line: string) => void;
}

export interface SimulationResult {
  readonly seed: number;
  /** The conditions that did not hold, in the order they were found; empty for a good run. */
  readonly failures: readonly string[];
  /** The events, one line each, with virtual times. */
  readonly trace: readonly string[];
  /** SHA-256 of the trace: equal for equal runs. */
  readonly digest: string;
  readonly virtualMs: number;
  /** The events of the run, to see that a set of seeds covers the ground. */
  readonly counts: Readonly<Record<string, number>>;
}

/**
 * Runs a world of two to five hosts under a seeded adversary: delays, lost and half-open connections, partitions, slow
 * readers, disks that fail, lag or die before or after a commit, clocks that jump, peers that keep to no protocol. The
 * invariants of docs/invariants.md are checked after every event; when the faults have stopped, every
 * peering that can connect must be ACTIVE, every exported service imported and equal, every deleted peering gone, and then
 * nothing may happen any more.
 */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  const { seed, hosts, crashAt, onTrace, steps = 60, scenes = 3 } = options;
  const world = new SimWorld({ seed, hosts, crashAt, onTrace });
  try {
    await run(world, steps, scenes);
  } catch (error) {
    throw new Error(`seed ${seed}: ${errorText(error)}`, { cause: error });
  }
  const { trace, counts } = world;
  const virtualMs = world.scheduler.now;
  for (const { life } of world.clusters) life.alive = false;
  const digest = createHash("sha256").update(trace.join("\n")).digest("hex");
  return { seed, failures: world.checker.failures, trace, digest, virtualMs, counts };
}

async function run(world: SimWorld, steps: number, scenes: number): Promise<void> {
  const adversary = new Adversary(world);
  for (const cluster of world.clusters) world.start(cluster);
  world.scheduler.after(200, () => adversary.act());
  await world.runUntil(Number.POSITIVE_INFINITY, () => adversary.acts >= steps || world.failed);
  if (world.failed) return;
  world.calmDown();
  const peace = new Peace(world, adversary.observers);
  await peace.converge();
  if (!world.failed) await peace.rest();
  if (!world.failed) await peace.scenes(scenes);
}
