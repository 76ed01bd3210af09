import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type CarriedInstances, carryOver, TRANSIT_PATH_KEY, type TransitOrigin } from "../../../src/config/transit.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { instance } from "./export-fixtures.js";

const ORIGIN: TransitOrigin = { peerName: "east", trustDomain: "E.consul", ownTrustDomain: "us.consul", mostHops: 4 };

function came(...path: readonly string[]): ServiceInstance {
  return instance("web", path.length === 0 ? {} : { meta: { team: "x", [TRANSIT_PATH_KEY]: path.join(" ") } });
}

function carried(instances: readonly ServiceInstance[], changes: Partial<TransitOrigin> = {}): CarriedInstances {
  const result = carryOver(instances, { ...ORIGIN, ...changes });
  return typeof result === "string" ? assert.fail(result) : result;
}

describe("an instance that is carried over", () => {
  it("is marked with the cluster it comes from and with ours, and keeps the rest", () => {
    const before = instance("web", { meta: { team: "x" } });
    const { instances, path, clusters } = carried([before]);
    const [after] = instances;
    assert.deepEqual(path, ["e.consul", "us.consul"]);
    assert.deepEqual(clusters, new Set(path));
    assert.deepEqual(after?.service, {
      ...before.service,
      meta: { team: "x", [TRANSIT_PATH_KEY]: "e.consul us.consul" },
    });
    assert.deepEqual(after?.node, { ...before.node, id: "", name: `${before.node.name}.east` });
    assert.equal(after?.checks, before.checks);
  });

  it("has us added to the way it came, whether or not the cluster before us has added itself", () => {
    const path = ["first.consul", "e.consul", "us.consul"];
    assert.deepEqual(carried([came("first.consul", "e.consul")]).path, path);
    assert.deepEqual(carried([came("First.Consul")]).path, path, "a cluster that copied it, capitals and all");
  });

  it("of instances that came in several ways, the longest way is told, and every cluster counts", () => {
    const { path, clusters } = carried([came(), came("x.consul", "y.consul", "e.consul"), came("z.consul")]);
    assert.deepEqual(path, ["x.consul", "y.consul", "e.consul", "us.consul"]);
    assert.deepEqual([...clusters].sort(), ["e.consul", "us.consul", "x.consul", "y.consul", "z.consul"]);
  });
});

describe("an instance that is not carried over", () => {
  it("came through our cluster before: also where a cluster in between copied it", () => {
    assert.equal(carryOver([came(), came("us.consul", "other.consul")], ORIGIN), "came-through-here");
    assert.equal(carryOver([came()], { ...ORIGIN, trustDomain: "US.consul" }), "came-through-here");
  });

  it("came over as many hosts as it may", () => {
    const path = ["a.consul", "b.consul", "c.consul", "e.consul"];
    assert.equal(carried([came(...path)]).path.length, 5);
    assert.equal(carryOver([came("0.consul", ...path)], ORIGIN), "too-many-hops");
    assert.equal(carryOver([came()], { ...ORIGIN, mostHops: 0 }), "too-many-hops");
  });

  it("came over a way too long for a value of metadata", () => {
    const long = Array.from({ length: 13 }, (_, index) => `${index}-3333-4444-5555-6666666666666666.consul`);
    assert.equal(carryOver([came(...long)], { ...ORIGIN, mostHops: 100 }), "too-many-hops");
  });

  it("came over a way that cannot be read", () => {
    for (const text of ["", " ", "a.consul  b.consul", " a.consul"])
      assert.equal(carryOver([came(text)], ORIGIN), "unreadable-path");
  });
});
