import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { flattenedStatus } from "../../../src/model/check-groups.js";
import { check } from "../config/export-fixtures.js";

const cases: readonly (readonly [readonly string[], string | undefined])[] = [
  [[], undefined],
  [["passing"], "passing"],
  [["passing", "warning"], "warning"],
  [["warning", "critical"], "critical"],
  [["critical", "warning"], "critical"],
  [["critical", "_node_maintenance"], "maintenance"],
  [["_service_maintenance:x", "passing"], "maintenance"],
  [["weird", "critical"], "weird"],
  [["critical", "weird"], "weird"],
  [["weird", "odd"], "odd"],
  [["critical", "maintenance"], "maintenance"],
  [["weird", "_node_maintenance"], "maintenance"],
  [[""], ""],
];

for (const [statuses, expected] of cases) {
  test(`[${statuses.join(", ")}] flattens to ${expected} where Consul is followed to the letter (ch4 case 31, ch1 case 84)`, () => {
    const checks = statuses.map((status, index) =>
      status.startsWith("_") ? check(status, "critical") : check(`check-${index}`, status),
    );
    assert.equal(flattenedStatus({ checks }, true), expected);
  });
}

test("a check that merely resembles a maintenance check is an ordinary one", () => {
  assert.equal(
    flattenedStatus(
      { checks: [check("_node_maintenance2", "passing"), check("_service_maintenance", "passing")] },
      true,
    ),
    "passing",
  );
});

test("known statuses flatten to the worst, in any order", () => {
  const order = ["maintenance", "critical", "warning", "passing"];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...order), { minLength: 1 }), (statuses) => {
      const worst = order.find((status) => statuses.includes(status));
      const checks = statuses.map((status) => check("c", status));
      assert.equal(flattenedStatus({ checks }, true), worst);
      assert.equal(flattenedStatus({ checks }, false), worst === "maintenance" ? "critical" : worst);
    }),
  );
});

test("instances that this cluster would not hand out are critical for its peers, whatever else the checks say", () => {
  const ids = ["c", "_node_maintenance", "_service_maintenance:x"];
  const statuses = ["maintenance", "critical", "warning", "passing", "weird", ""];
  const checkArbitrary = fc.record({ id: fc.constantFrom(...ids), status: fc.constantFrom(...statuses) });
  fc.assert(
    fc.property(fc.array(checkArbitrary, { minLength: 1 }), (made) => {
      const out = made.some(({ id, status }) => id !== "c" || status === "critical" || status === "maintenance");
      const checks = made.map(({ id, status }) => check(id, status));
      assert.equal(flattenedStatus({ checks }, false) === "critical", out);
    }),
  );
});
