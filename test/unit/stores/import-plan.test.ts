import assert from "node:assert/strict";
import { test } from "node:test";
import { PeerIndex } from "../../../src/stores/import-index.js";
import { defaultImportLimits, type ImportItem, ImportPlan } from "../../../src/stores/import-plan.js";
import { payload, wireInstance } from "../payload/import-fixtures.js";

test("small payloads are planned a few kilobytes in a step, and none is left out", () => {
  const items = Array.from({ length: 500 }, (_, index): ImportItem => {
    const name = `s${index}`;
    return { type: "service", name, value: payload(wireInstance(name, { port: 80 })) };
  });
  const bytes = items.reduce((sum, item) => sum + (item.type === "service" ? item.value.length : 0), 0);
  const totals = { payloadBytes: 0, indexBytes: 0 };
  const plan = new ImportPlan(new PeerIndex(totals), totals, defaultImportLimits, Number.POSITIVE_INFINITY);
  const steps = plan.steps(items);
  let most = 0;
  for (let before = 0, step = steps.next(); ; step = steps.next()) {
    most = Math.max(most, plan.writes.size - before);
    before = plan.writes.size;
    if (step.done === true) break;
  }
  assert.equal(plan.writes.size, items.length);
  // A fifth more, as the last one of a step may go beyond.
  assert.ok(most <= (20_000 / bytes) * items.length, `${most} of ${items.length} in a step, ${bytes} bytes in all`);
});
