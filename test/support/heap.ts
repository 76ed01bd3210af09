import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
const gc: unknown = runInNewContext("gc");

/** Collects garbage, so that what is measured next pays for none of what was before. */
export function collectGarbage(): void {
  if (typeof gc !== "function") throw new TypeError("garbage cannot be collected on command");
  gc();
}

/** Bytes that are in use: objects, and what lies outside of the heap for them. */
export async function bytesInUse(): Promise<number> {
  // Objects behind weak references are freed between turns of the loop.
  for (let round = 0; round < 3; round++) {
    await new Promise((resolve) => setImmediate(resolve));
    collectGarbage();
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
