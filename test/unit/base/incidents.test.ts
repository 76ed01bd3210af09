import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { LogRecorder } from "../../support/log-recorder.js";

describe("incidents", () => {
  it("counts each incident, and logs the first of a kind and then one every 10 s with the number in between", async () => {
    const clock = testClock();
    const logger = new LogRecorder();
    const incidents = new Incidents({ clock, logger });
    const report = (): void => incidents.report("too-many", "refused: too many", { source: "10.0.0.1" });
    for (let round = 0; round < 1_000; round++) report();
    incidents.report("other", "something else");
    await clock.advance(9_999);
    report();
    assert.deepEqual(logger.lines, [
      { level: "warn", message: "refused: too many", fields: { incident: "too-many", source: "10.0.0.1" } },
      { level: "warn", message: "something else", fields: { incident: "other" } },
    ]);
    await clock.advance(1);
    report();
    assert.deepEqual(logger.lines.slice(2), [
      {
        level: "warn",
        message: "refused: too many",
        fields: { incident: "too-many", source: "10.0.0.1", others: 1_000 },
      },
    ]);
    assert.deepEqual(
      incidents.counts(),
      new Map([
        ["too-many", 1_002],
        ["other", 1],
      ]),
    );
  });
});
