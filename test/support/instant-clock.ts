import type { Clock } from "../../src/base/environment.js";

/** A clock whose timers fire at once, and are written down. */
export function instantClock(): Clock & { readonly waits: readonly number[] } {
  const waits: number[] = [];
  return {
    waits,
    now: () => 0,
    wall: () => 0,
    after: (delayMs, action) => {
      waits.push(delayMs);
      const timer = setImmediate(action);
      return { cancel: () => clearImmediate(timer) };
    },
  };
}
