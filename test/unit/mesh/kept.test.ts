import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { atOnce, doAll } from "../../../src/base/steps.js";
import { KeptParts } from "../../../src/mesh/xds/kept-parts.js";
import { proxyResources } from "../../../src/mesh/xds/proxy.js";
import { ResourceEncoder, type ResourceSet } from "../../../src/mesh/xds/resources.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { A_DOMAIN, bundle, instance, LEAF, resourcesOf, root, sidecar, viewOf } from "../../support/mesh-view.js";

const NAMES = Array.from({ length: 50 }, (_, at) => `s${at}`);

function calling(names: readonly string[], config: Record<string, never> = {}): ServiceInstance {
  const upstreams = names.map((destinationName, at) => ({ destinationName, localBindPort: 1_000 + at }));
  return sidecar("web", { upstreams, config });
}

function instances(names: readonly string[]): Record<string, readonly ServiceInstance[]> {
  return Object.fromEntries(names.map((name) => [name, [instance({ name, port: 80 })]]));
}

function setOf(told: ReturnType<typeof resourcesOf>): ResourceSet {
  assert.equal(told.type, "ready");
  if (told.type !== "ready") throw new Error("it is ready");
  return told.set;
}

/** A view in which unchanged parts are the same objects, as those of a host are. */
function steady(parts: Parameters<typeof viewOf>[0]): ReturnType<typeof viewOf> {
  const view = viewOf(parts);
  const kept = new Map<string, unknown>();
  const once = <Value>(key: string, make: () => Value): Value => {
    if (!kept.has(key)) kept.set(key, make());
    return kept.get(key) as Value;
  };
  return {
    ...view,
    chain: (service, overrides) =>
      once(`chain ${service} ${JSON.stringify(overrides)}`, () => view.chain(service, overrides)),
    targetEndpoints: (target) => atOnce(once(`endpoints ${target.service}`, () => doAll(view.targetEndpoints(target)))),
    localGateways: () => once("gateways", () => view.localGateways()),
  };
}

/** Resources of `after` that are not the same objects as those of `before`. */
function madeAgain(before: ResourceSet, after: ResourceSet): readonly string[] {
  return (["secret", "cluster", "endpoint", "listener", "route"] as const).flatMap((type) =>
    Array.from(after.resources[type]).flatMap(([name, resource]) =>
      before.resources[type].get(name) === resource ? [] : [`${type} ${name}`],
    ),
  );
}

describe("parts of a proxy that are kept", () => {
  it("makes again what has changed alone, and the same bytes as from nothing", () => {
    const kept = new KeptParts();
    const encoder = new ResourceEncoder();
    const proxy = calling(NAMES);
    const view = steady({ instances: instances(NAMES) });
    const before = setOf(resourcesOf(proxy, view, "inline", { kept, encoder }));
    assert.deepEqual(madeAgain(before, setOf(resourcesOf(proxy, view, "inline", { kept, encoder }))), []);
    const moved = viewOf({ instances: { s7: [instance({ name: "s7", port: 81 })] } }).targetEndpoints;
    const changed = {
      ...view,
      targetEndpoints: (target: Parameters<typeof moved>[0]) =>
        target.service === "s7" ? moved(target) : view.targetEndpoints(target),
    };
    const after = setOf(resourcesOf(proxy, changed, "inline", { kept, encoder }));
    assert.deepEqual(madeAgain(before, after), [
      "cluster s7.default.dc1.internal.11111111-2222-3333-4444-555555555555.consul",
      "endpoint s7.default.dc1.internal.11111111-2222-3333-4444-555555555555.consul",
      "listener s7:127.0.0.1:1007",
    ]);
    assert.deepEqual(after, setOf(resourcesOf(proxy, changed)));
  });

  it("makes everything that holds a certificate again with another one", () => {
    const kept = new KeptParts();
    const view = steady({ instances: instances(NAMES) });
    const before = setOf(resourcesOf(calling(NAMES), view, "inline", { kept }));
    const leaf = { ...LEAF, certificateChainPem: "another one" };
    const after = setOf(resourcesOf(calling(NAMES), { ...view, leaf: () => leaf }, "inline", { kept }));
    const clusters = madeAgain(before, after).filter((name) => name.startsWith("cluster s"));
    assert.equal(clusters.length, NAMES.length);
    assert.deepEqual(after, setOf(resourcesOf(calling(NAMES), { ...view, leaf: () => leaf })));
  });

  it("makes the listener of callers again with intentions, bundles and settings", () => {
    const kept = new KeptParts();
    const options = { kept };
    const gateways = viewOf({}).localGateways();
    const viewWith = (parts: Parameters<typeof viewOf>[0]) => ({ ...viewOf(parts), localGateways: () => gateways });
    const plain = viewWith({});
    const before = setOf(resourcesOf(calling([]), plain, "inline", options));
    assert.deepEqual(madeAgain(before, setOf(resourcesOf(calling([]), { ...plain }, "inline", options))), []);
    const sources = [{ name: "db", action: "allow" as const }];
    for (const view of [
      viewWith({ entries: [{ kind: "service-intentions", name: "web", sources }] }),
      viewWith({ inbound: [bundle("east", A_DOMAIN)] }),
      viewWith({ inbound: [bundle("east", A_DOMAIN, [root(2)])] }),
      viewWith({ allowsByDefault: true }),
      viewWith({ rootPems: [root(0), root(1)] }),
    ]) {
      const told = setOf(resourcesOf(calling([]), view, "inline", options));
      assert.deepEqual(told, setOf(resourcesOf(calling([]), view)));
    }
    const http = calling([], { protocol: "http" } as never);
    assert.deepEqual(setOf(resourcesOf(http, plain, "inline", options)), setOf(resourcesOf(http, plain)));
  });

  it("encodes the endpoints of a service once for all proxies", () => {
    const encoder = new ResourceEncoder();
    const view = steady({ instances: instances(["s0"]) });
    const of = (name: string) => {
      const proxy = sidecar(name, { upstreams: [{ destinationName: "s0", localBindPort: 80 }] });
      return [...setOf(resourcesOf(proxy, view, "inline", { encoder })).resources.endpoint.values()][0]?.bytes;
    };
    assert.equal(of("web"), of("api"));
  });

  it("makes a transparent proxy of thousands of upstreams in steps, each of them bounded", () => {
    const steps = (count: number): number => {
      const names = Array.from({ length: count }, (_, at) => `s${at}`);
      const virtualIps = Object.fromEntries(names.map((name, at) => [name, `240.0.${at >> 8}.${at & 255}`]));
      const view = viewOf({ instances: instances(names), virtualIps, allowsByDefault: true });
      const kept = new KeptParts();
      const options = {
        placement: "inline",
        limits: { implicitUpstreams: count },
        kept,
        encoder: new ResourceEncoder(),
      } as const;
      const making = proxyResources(sidecar("web", { mode: "transparent" }), view, options);
      let done = 0;
      for (;;) {
        const step = making.next();
        if (step.done !== true) {
          done++;
          continue;
        }
        assert.equal(step.value.type === "ready" && step.value.set.resources.cluster.size, count + 2);
        return done;
      }
    };
    const [some, twice] = [steps(1_500), steps(3_000)];
    assert.ok(some >= 100, `${some} steps for 1,500 upstreams`);
    assert.ok(twice >= 1.8 * some, `${some} steps, and ${twice} for twice as many upstreams`);
  });
});
