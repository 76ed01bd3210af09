import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { CheckStatus } from "../../../src/checks/definition.js";
import { afterResult, noStreak } from "../../../src/checks/thresholds.js";

type Thresholds = Parameters<typeof afterResult>[2];

function run(thresholds: Thresholds, results: readonly CheckStatus[]): readonly (CheckStatus | undefined)[] {
  let streak = noStreak;
  return results.map((status) => {
    const after = afterResult(streak, { status, output: "" }, thresholds);
    streak = after.streak;
    return after.result?.status;
  });
}

const ok = "passing";
const bad = "critical";

describe("thresholds of a check", () => {
  it("each result counts at once without thresholds", () => {
    const none = { successBeforePassing: 0, failuresBeforeWarning: 0, failuresBeforeCritical: 0 };
    assert.deepEqual(run(none, [ok, bad, "warning", ok]), [ok, bad, "warning", ok]);
  });

  it("successes must come in a row, and a warning is one", () => {
    const three = { successBeforePassing: 3, failuresBeforeWarning: 0, failuresBeforeCritical: 0 };
    assert.deepEqual(run(three, [ok, ok, bad, ok, "warning", ok, ok]), [
      undefined,
      undefined,
      bad,
      undefined,
      undefined,
      ok,
      ok,
    ]);
  });

  it("failures warn first where a lower number says so, else the check stays as it is until it is critical", () => {
    const graded = { successBeforePassing: 0, failuresBeforeWarning: 2, failuresBeforeCritical: 4 };
    assert.deepEqual(run(graded, [bad, bad, bad, bad, ok, bad]), [undefined, "warning", "warning", bad, ok, undefined]);
    const plain = { successBeforePassing: 0, failuresBeforeWarning: 0, failuresBeforeCritical: 2 };
    assert.deepEqual(run(plain, [bad, bad, ok, bad, bad]), [undefined, bad, ok, undefined, bad]);
  });
});
