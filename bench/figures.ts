// Helpers with which the benchmarks count.
import { readFileSync } from "node:fs";

/** Of the scheduler, in which the kernel tells how long a process ran. */
const TICKS_PER_SECOND = 100;

/** Processor time of a process so far, all of its threads together. Linux only. */
export function cpuSeconds(pid: number): number {
  // The name of the program in parentheses may hold blanks; what follows does not.
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** @param q - 0 the least, 0.5 the median, 1 the greatest. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
}

/** Milliseconds on the clock that every process of this machine shares. */
export function sharedNow(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
