import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { doAll } from "../../../src/base/steps.js";
import { createHost } from "../../../src/host/host.js";
import { computed, hostView } from "../../../src/mesh/host-view.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { turnsDuring } from "../../support/turns.js";

const INSTANCES = 200;
/** Of the longest kind that a resolver may have. Half of the instances are named at its end. */
const FILTER = [
  ...Array.from({ length: 2_000 }, (_, index) => `Service.Meta.v == "no-${index}"`),
  'Service.Meta.v == "even"',
].join(" or ");
const TARGET = { service: "web", subset: "even", subsetDefinition: { filter: FILTER } };

describe("the view of a host", () => {
  it("looks for the instances of a long filter in steps, and once for all that ask", async () => {
    await using host = await createHost({
      storage: memoryStorage(),
      transport: memoryNetwork().transport(),
      nodeName: "n",
    });
    for (let index = 0; index < INSTANCES; index++) {
      await host.catalog.register({
        node: `n${index}`,
        address: "10.0.0.1",
        service: {
          kind: "connect-proxy",
          name: "web-sidecar-proxy",
          port: 1 + index,
          meta: { v: index % 2 === 0 ? "even" : "odd" },
          proxy: { destinationServiceName: "web" },
        },
      });
    }
    const view = hostView(host, {
      allowsByDefault: true,
      depend: () => {},
      exportsMark: () => 0,
      leaf: () => "none",
      imported: () => [],
    });
    const asked = view.targetEndpoints(TARGET);
    let steps = 0;
    let step = asked.next();
    for (; step.done !== true; step = asked.next()) steps++;
    assert.equal(step.value.list.length, INSTANCES / 2);
    // A step is a hundred thousand characters of filter at most.
    const least = (INSTANCES * FILTER.length) / 200_000;
    assert.ok(steps > least, `${steps} steps`);
    assert.equal(view.targetEndpoints(TARGET).next().value, step.value);

    const found = computed(host, { allowsByDefault: true }, (of) => doAll(of.targetEndpoints(TARGET)).list.length);
    const turns = await turnsDuring(found);
    assert.equal(await found, INSTANCES / 2);
    assert.ok(turns > least, `${turns} turns`);
  });
});
