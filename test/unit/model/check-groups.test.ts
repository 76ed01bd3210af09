// Checks that many instances share are looked at once, for every reader; with few or many of them, the answer is the same.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { selectedInstances } from "../../../src/config/prepared-query.js";
import { healthy, weightOf } from "../../../src/dns/answer.js";
import { compileFilter } from "../../../src/http/filter/filter.js";
import { instanceFields } from "../../../src/http/records.js";
import { endpointOf } from "../../../src/mesh/snapshot/endpoints.js";
import {
  CheckGroup,
  checksOf,
  flattenedStatus,
  groupsOf,
  healthOf,
  LISTED_AT_ONCE,
  unknownChecks,
  withChecksOf,
  withGroups,
} from "../../../src/model/check-groups.js";
import type { Check, ServiceInstance } from "../../../src/model/instance.js";
import { SummaryMaker } from "../../../src/model/service-summary.js";
import { PayloadEncoder } from "../../../src/payload/exported-payload.js";
import type { IndexedCheck } from "../../../src/stores/catalog.js";
import { check, instance, node, service } from "../config/export-fixtures.js";

const indexes = { createIndex: 1n, modifyIndex: 1n };
const MANY = 10 * LISTED_AT_ONCE;

function indexed(from: Check): IndexedCheck {
  return { ...from, ...indexes };
}

function groupOf<Item extends Check>(checks: readonly Item[]): CheckGroup<Item> {
  return new CheckGroup(checks.length, () => checks);
}

/** Instances that share many checks of their node, and how often the status of one of these was looked at. */
function sharing(count: number) {
  let looks = 0;
  const shared = groupOf(
    Array.from({ length: MANY }, (_, index) => {
      const made = indexed(check(`of-node-${index}`, "passing"));
      return Object.defineProperty({ ...made }, "status", {
        enumerable: true,
        get: () => {
          looks++;
          return "passing";
        },
      });
    }),
  );
  const views = Array.from({ length: count }, (_, index) =>
    withGroups(
      {
        peer: "",
        node: { ...node("n"), ...indexes },
        service: { ...service("web", { id: `web-${index}` }), ...indexes },
      },
      { ofNode: shared, own: groupOf([indexed(check(`own-${index}`, "passing"))]) },
    ),
  );
  return { views, looks: () => looks };
}

type Views = ReturnType<typeof sharing>["views"];

const filters = (expression: string) => (views: Views) => {
  const filter = compileFilter(expression, instanceFields);
  return views.map((view) => filter.holds(view));
};

const questions: Readonly<Record<string, (views: Views) => unknown>> = {
  "an export": (views) => new PayloadEncoder().service("web", views),
  "health over DNS": (views) => [healthy(views, true), healthy(views, false)],
  "weights over DNS": (views) => views.map(weightOf),
  "endpoints of the mesh": (views) => views.map((view) => endpointOf(view, "lan", true)),
  "a prepared query": (views) => selectedInstances({ name: "web", onlyPassing: true }, views),
  "a prepared query that ignores checks": (views) =>
    selectedInstances({ name: "web", onlyPassing: true, ignoreCheckIds: ["x"] }, views),
  "a filter that holds of none": filters('Checks.Status == "critical"'),
  "a filter that holds of all": filters('Checks.Status != "passing" or Checks.CheckID != "x"'),
  "a summary": (views) => {
    const summary = new SummaryMaker("web");
    for (const view of views) summary.add(view);
    return summary.summary();
  },
  "a summary of a proxy": (views) => {
    const summary = new SummaryMaker("web");
    for (const view of views) summary.addProxy(view);
    return summary.summary();
  },
};

describe("checks of a node that many instances share", () => {
  for (const [name, ask] of Object.entries(questions)) {
    it(`are looked at once for ${name}`, () => {
      const few = sharing(2);
      ask(few.views);
      const many = sharing(100);
      ask(many.views);
      assert.equal(many.looks(), few.looks(), "as often for 100 instances as for 2");
      assert.ok(many.looks() >= MANY, "they were looked at");
    });

    it(`give ${name} the same answer as a list of them`, () => {
      const { views } = sharing(20);
      const listed = views.map((view) => ({ ...view }));
      assert.equal(groupsOf(listed[0] ?? views[0] ?? assert.fail()), undefined, "a copy has a list");
      assert.deepEqual(ask(views), ask(listed));
    });
  }

  it("count in what an export takes until they were looked at", () => {
    const [first, second] = sharing(2).views;
    assert.ok(first !== undefined && second !== undefined);
    assert.equal(unknownChecks(first), MANY + 1);
    flattenedStatus(first, false);
    assert.deepEqual([unknownChecks(first), unknownChecks(second)], [0, 1]);
  });
});

const statuses = ["passing", "warning", "critical", "maintenance", "odd", "weird", ""];
const ids = ["a", "b", "_node_maintenance", "_service_maintenance:web"];
const someChecks = fc.array(
  fc
    .record({ id: fc.constantFrom(...ids), status: fc.constantFrom(...statuses) })
    .map(({ id, status }) => check(id, status)),
  { maxLength: 6 },
);

describe("an instance with its checks in groups", () => {
  it("is as healthy as one with the list of them", () => {
    fc.assert(
      fc.property(someChecks, someChecks, (ofNode, own) => {
        const listed: ServiceInstance = { ...instance("web"), checks: [...ofNode, ...own] };
        const grouped: ServiceInstance = withGroups(
          { node: listed.node, service: listed.service },
          { ofNode: groupOf(ofNode), own: groupOf(own) },
        );
        assert.deepEqual(grouped.checks, listed.checks);
        assert.deepEqual([...checksOf(grouped)], listed.checks);
        assert.deepEqual(healthOf(grouped), healthOf(listed));
        for (const strict of [true, false]) {
          assert.equal(flattenedStatus(grouped, strict), flattenedStatus(listed, strict));
          assert.deepEqual(endpointOf(grouped, "lan", strict), endpointOf(listed, "lan", strict));
          assert.equal(healthy([grouped], strict).length, healthy([listed], strict).length);
        }
        assert.equal(weightOf(grouped), weightOf(listed));
        for (const status of statuses.filter((each) => each !== "passing")) {
          const failing = [groupOf(ofNode), groupOf(own)].flatMap((group) => group.failing(status));
          assert.deepEqual(
            failing,
            listed.checks.filter((each) => each.status === status),
          );
        }
      }),
    );
  });

  it("looks like one with a list to copies, comparisons and JSON", () => {
    const listed = { ...instance("web"), checks: [check("a", "passing"), check("b", "critical")] };
    const grouped = withGroups(
      { node: listed.node, service: listed.service },
      { ofNode: groupOf(listed.checks.slice(0, 1)), own: groupOf(listed.checks.slice(1)) },
    );
    assert.deepStrictEqual(grouped, listed);
    assert.deepStrictEqual({ ...grouped }, listed);
    assert.deepStrictEqual(structuredClone(grouped), listed);
    assert.equal(JSON.stringify(grouped), JSON.stringify(listed));
    assert.ok(
      groupsOf(withChecksOf(grouped, (checks) => ({ node: listed.node, checks }))) !== undefined,
      "groups are handed on by name",
    );
  });
});
