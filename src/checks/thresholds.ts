import type { CheckDefinition, CheckResult } from "./definition.js";

type Thresholds = Pick<CheckDefinition, "successBeforePassing" | "failuresBeforeWarning" | "failuresBeforeCritical">;

/** How many results of one kind came in a row. */
export interface Streak {
  readonly successes: number;
  readonly failures: number;
}

/** Before the first result, which counts at once whatever the thresholds are (Consul 1.21). */
export function firstStreak({ successBeforePassing, failuresBeforeCritical }: Thresholds): Streak {
  return { successes: successBeforePassing, failures: failuresBeforeCritical };
}

/** The streak after a result, and the new status of the check; undefined: it does not change (Consul 1.21). */
export function afterResult(
  streak: Streak,
  result: CheckResult,
  thresholds: Thresholds,
): { readonly streak: Streak; readonly result: CheckResult | undefined } {
  const { successBeforePassing, failuresBeforeCritical } = thresholds;
  // A warning counts as a success: whatever was probed has answered.
  if (result.status !== "critical") {
    const successes = streak.successes + 1;
    return { streak: { successes, failures: 0 }, result: successes >= successBeforePassing ? result : undefined };
  }
  const failures = streak.failures + 1;
  const next: Streak = { successes: 0, failures };
  if (failures >= failuresBeforeCritical) return { streak: next, result };
  const failuresBeforeWarning = thresholds.failuresBeforeWarning || failuresBeforeCritical;
  return { streak: next, result: failures >= failuresBeforeWarning ? { ...result, status: "warning" } : undefined };
}
