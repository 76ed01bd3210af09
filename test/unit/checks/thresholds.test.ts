import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { CheckStatus } from "../../../src/checks/definition.js";
import { afterResult, firstStreak } from "../../../src/checks/thresholds.js";

type Thresholds = Parameters<typeof afterResult>[2];

function run(thresholds: Thresholds, results: readonly CheckStatus[]): readonly (CheckStatus | undefined)[] {
  let streak = firstStreak(thresholds);
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

  it("the first result counts at once, as in Consul: nothing is known yet that could be kept", () => {
    const many = { successBeforePassing: 5, failuresBeforeWarning: 1, failuresBeforeCritical: 3 };
    assert.deepEqual(run(many, [ok, ok]), [ok, ok]);
    assert.deepEqual(run(many, [bad, bad, ok]), [bad, bad, undefined]);
    assert.deepEqual(run(many, [ok, bad, bad, bad]), [ok, "warning", "warning", bad]);
  });

  it("successes must come in a row, and a warning is one", () => {
    const three = { successBeforePassing: 3, failuresBeforeWarning: 0, failuresBeforeCritical: 0 };
    assert.deepEqual(run(three, [bad, ok, ok, bad, ok, "warning", ok, ok]), [
      bad,
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
    assert.deepEqual(run(graded, [ok, bad, bad, bad, bad, ok, bad]), [
      ok,
      undefined,
      "warning",
      "warning",
      bad,
      ok,
      undefined,
    ]);
    const plain = { successBeforePassing: 0, failuresBeforeWarning: 0, failuresBeforeCritical: 2 };
    assert.deepEqual(run(plain, [ok, bad, bad, ok, bad, bad]), [ok, undefined, bad, ok, undefined, bad]);
  });
});
