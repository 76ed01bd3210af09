import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { ServiceInstance } from "../../../src/model/instance.js";
import {
  decodePayload,
  diffInstances,
  type EncodedNode,
  type InstanceDiff,
} from "../../../src/payload/imported-payload.js";
import { inspectPayload } from "../../../src/payload/payload-inspection.js";
import {
  differenceParts,
  instanceParts,
  nodesOf,
  type Parts,
  type PayloadView,
} from "../../../src/payload/payload-parts.js";
import { payload, type WireInstance, wireInstance } from "./import-fixtures.js";

function viewOf(instances: readonly WireInstance[], nodes: ReadonlyMap<string, EncodedNode> = new Map()): PayloadView {
  const value = payload(...instances);
  const summary = inspectPayload(value, "web");
  return { value, nodes, apart: summary.read === summary.nodes.length };
}

/** Nodes as a payload has them, encoded. */
function nodesIn(instances: readonly WireInstance[]): ReadonlyMap<string, EncodedNode> {
  const value = payload(...instances);
  const { nodes } = inspectPayload(value, "web");
  return new Map(
    nodes.map(({ name, start, end, checks }) => [
      name,
      { record: value.subarray(start, end), checks: checks.map((check) => value.subarray(check.start, check.end)) },
    ]),
  );
}

function wholeOf(view: PayloadView): readonly ServiceInstance[] {
  return decodePayload(view.value, nodesOf(view));
}

function partsOf<Item>(parts: Parts<Item>): readonly Item[] {
  const found: Item[] = [];
  for (const part of parts) if (part !== undefined) found.push(part);
  return found;
}

const keyOf = ({ node, service }: ServiceInstance): string => `${node.name.toLowerCase()}/${service.id.toLowerCase()}`;
const byKey = (instances: readonly ServiceInstance[]): ReadonlyMap<string, ServiceInstance> =>
  new Map(instances.map((one) => [keyOf(one), one]));

const wire = fc
  .record({
    node: fc.constantFrom("n1", "n2", "n3", "N1"),
    id: fc.constantFrom("a", "b", "A"),
    port: fc.constantFrom(1, 2),
    status: fc.constantFrom("passing", "critical"),
    nodeChecks: fc.constantFrom({}, { disk: "passing" }, { disk: "warning" }),
  })
  .map((options) => wireInstance("web", options));
const some = fc.array(wire, { maxLength: 5 });
const size = fc.constantFrom(1, 2, 100);

describe("a payload in parts", () => {
  it("is what it is as a whole", () => {
    fc.assert(
      fc.property(some, some, size, (instances, others, most) => {
        const view = viewOf(instances, nodesIn(others));
        const parts = partsOf(instanceParts(view, most));
        assert.deepEqual(parts.flat(), wholeOf(view));
        for (const part of parts) assert.ok(part.length > 0 && part.length <= most);
      }),
      { numRuns: 1_000 },
    );
  });

  it("each is made when it is asked for", () => {
    const many = Array.from({ length: 2_000 }, (_, index) => wireInstance("web", { node: `n${index}` }));
    const view = viewOf(many);
    const broken = { ...view, value: Buffer.concat([view.value, Buffer.of(0x0a, 0x7f)]) };
    const parts = instanceParts(broken, 50);
    assert.equal((parts.next().value ?? []).length, 50);
    assert.equal((parts.next().value ?? []).length, 50);
  });
});

describe("a difference in parts", () => {
  const gathered = (parts: readonly InstanceDiff[]): InstanceDiff => ({
    added: parts.flatMap(({ added }) => added),
    changed: parts.flatMap(({ changed }) => changed),
    removed: parts.flatMap(({ removed }) => removed),
  });

  it("is the difference of the wholes, whatever the nodes have become", () => {
    const change = fc.option(some, { nil: undefined });
    fc.assert(
      fc.property(change, change, some, some, fc.boolean(), size, (then, now, nodesThen, nodesNow, moved, most) => {
        const known = nodesIn(nodesThen);
        const before = then && viewOf(then, known);
        const after = now && viewOf(now, moved ? nodesIn(nodesNow) : known);
        const expected = diffInstances(before ? wholeOf(before) : [], after ? wholeOf(after) : []);
        const found = gathered(partsOf(differenceParts(before, after, most)));
        for (const kind of ["added", "changed", "removed"] as const) {
          assert.deepEqual(byKey(found[kind]), byKey(expected[kind]), kind);
          assert.equal(found[kind].length, expected[kind].length);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it("decodes no unchanged part", () => {
    const many = Array.from({ length: 1_000 }, (_, index) => wireInstance("web", { node: `n${index}` }));
    const before = viewOf(many);
    const after = viewOf([...many.slice(1), wireInstance("web", { node: "n0", port: 81 })]);
    const parts = partsOf(differenceParts(before, after, 50));
    assert.equal(parts.length, 1);
    assert.deepEqual(
      parts[0]?.changed.map(({ service }) => service.port),
      [81],
    );
    assert.deepEqual(partsOf(differenceParts(before, before, 50)), []);
    assert.deepEqual(partsOf(differenceParts(undefined, undefined, 50)), []);
  });
});
