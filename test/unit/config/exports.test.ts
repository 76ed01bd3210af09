import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ConfigEntryInput } from "../../../src/config/config-entry.js";
import {
  type ExportInput,
  explainExport,
  exportedServicesView,
  peersForService,
  peersReachingService,
  resolveExports,
} from "../../../src/config/exports.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { ServiceIndex } from "../../../src/model/service-index.js";
import { byName, entrySet, exportInput, exporting, gateway, instance, sidecarOf } from "./export-fixtures.js";

const native = instance("native", { connect: { native: true } });
const redirectToConsul: ConfigEntryInput = { kind: "service-resolver", name: "web", redirect: { service: "consul" } };

function chainNames(input: ExportInput, peer = "b"): readonly string[] {
  return [...resolveExports(input, peer).chains.keys()];
}

test("without an exported-services entry nothing is exported (ch4 case 12, ch1 case 74)", () => {
  const input = exportInput(entrySet(), [instance("web"), sidecarOf("web")]);
  assert.deepEqual(resolveExports(input, "b"), { services: [], list: [], chains: new Map() });
});

test("an exact name is exported before it has instances, without a chain (ch4 case 13, ch1 case 94)", () => {
  const resolved = resolveExports(exportInput(entrySet(exporting(["web", "b"])), []), "b");
  assert.deepEqual(resolved, { services: ["web"], list: ["web"], chains: new Map() });
});

test("a sidecar makes a tcp chain whose target is the service (ch4 case 14)", () => {
  const resolved = resolveExports(
    exportInput(entrySet(exporting(["web", "b"])), [instance("web"), sidecarOf("web")]),
    "b",
  );
  assert.deepEqual(resolved.services, ["web"]);
  const chain = resolved.chains.get("web");
  assert.equal(chain?.protocol, "tcp");
  assert.deepEqual(
    chain?.tcpTargets.map((place) => place.id),
    ["web.default.default.dc1"],
  );
});

test("a chain has the protocol of service-defaults, and no targets when it is http (ch4 case 15)", () => {
  const entries = entrySet(exporting(["web", "b"]), { kind: "service-defaults", name: "web", protocol: "http" });
  const chain = resolveExports(exportInput(entries, [sidecarOf("web")]), "b").chains.get("web");
  assert.deepEqual(chain, { protocol: "http", tcpTargets: [] });
});

test("capitals of peer names count (ch4 case 17)", () => {
  const input = exportInput(entrySet(exporting(["web", "P"])), []);
  assert.deepEqual(resolveExports(input, "p").services, []);
  assert.deepEqual(explainExport(input, "p", "web").reasons, [
    { type: "peer-case", peer: "P", block: 0 },
    { type: "other-peers", peers: ["P"] },
  ]);
});

test("a service exported to another peer alone is not exported (ch1 case 78)", () => {
  const input = exportInput(entrySet(exporting(["web", "c"])), [instance("web")]);
  assert.deepEqual(resolveExports(input, "b").services, []);
});

test("* is every ordinary name in byte order, as they come and go (ch4 case 18, ch1 case 92)", () => {
  const names = new ServiceIndex();
  const input: ExportInput = { ...exportInput(entrySet(exporting(["*", "b"])), []), names };
  names.apply(
    byName([
      instance("web"),
      sidecarOf("web"),
      gateway("gw", "node-1"),
      instance("consul"),
      instance("\u{1f600}"),
      instance("\uffee"),
      instance("Zed"),
    ]),
    true,
  );
  // U+FFEE comes before U+1F600 in bytes, and after it in UTF-16.
  assert.deepEqual(resolveExports(input, "b").services, ["Zed", "web", "\uffee", "\u{1f600}"]);
  names.apply(new Map([["api", [instance("api")]]]), false);
  assert.deepEqual(resolveExports(input, "b").services, ["Zed", "api", "web", "\uffee", "\u{1f600}"]);
  names.apply(new Map([["web", []]]), false);
  assert.deepEqual(resolveExports(input, "b").services, ["Zed", "api", "\uffee", "\u{1f600}"]);
});

test("under * a resolver's name is a chain, in our list and not in Consul's (ch4 case 19, ch1 case 121)", () => {
  const entries = entrySet(exporting(["*", "b"]), { kind: "service-resolver", name: "virtual", connectTimeout: "5s" });
  const ours = resolveExports(exportInput(entries, [instance("web")]), "b");
  assert.deepEqual(ours.services, ["web"]);
  assert.deepEqual(ours.list, ["virtual", "web"]);
  assert.deepEqual([...ours.chains.keys()], ["virtual"]);
  const consul = resolveExports(exportInput(entries, [instance("web")], { strictConsul: true }), "b");
  assert.deepEqual(consul.list, ["web"]);
  assert.deepEqual([...consul.chains.keys()], ["virtual"]);
});

test("an exact name that has a resolver alone is in both", () => {
  const entries = entrySet(exporting(["virtual", "b"]), { kind: "service-resolver", name: "virtual" });
  const resolved = resolveExports(exportInput(entries, [], { strictConsul: true }), "b");
  assert.deepEqual(resolved.list, ["virtual"]);
  assert.deepEqual([...resolved.chains.keys()], ["virtual"]);
});

test("a chain that leads to consul is dropped, the list stays (ch4 case 20)", () => {
  const input = exportInput(entrySet(exporting(["web", "b"]), redirectToConsul), [instance("web"), sidecarOf("web")]);
  assert.deepEqual(resolveExports(input, "b"), { services: ["web"], list: ["web"], chains: new Map() });
});

test("consul is never exported (ch4 case 21)", () => {
  for (const name of ["consul", "Consul"]) {
    const input = exportInput(entrySet(exporting([name, "b"])), [instance("consul"), sidecarOf("consul")]);
    assert.deepEqual(resolveExports(input, "b"), { services: [], list: [], chains: new Map() });
  }
});

test("a service behind a terminating gateway is a chain while it is linked (ch4 case 22, ch1 case 93)", () => {
  const linked: ConfigEntryInput = { kind: "terminating-gateway", name: "tgw", services: [{ name: "db" }] };
  assert.deepEqual(chainNames(exportInput(entrySet(exporting(["db", "b"]), linked), [])), ["db"]);
  assert.deepEqual(chainNames(exportInput(entrySet(exporting(["db", "b"])), [])), []);
});

test("a terminating gateway that links * makes chains of ordinary services alone", () => {
  const linked: ConfigEntryInput = { kind: "terminating-gateway", name: "tgw", services: [{ name: "*" }] };
  const entries = entrySet(exporting(["db", "b"], ["ghost", "b"]), linked);
  assert.deepEqual(chainNames(exportInput(entries, [instance("db")])), ["db"]);
});

test("blocks add up (ch4 case 23)", () => {
  const entries = entrySet(exporting(["web", "a-peer"], ["*", "b-peer"]));
  const input = exportInput(entries, [instance("web")]);
  assert.deepEqual(resolveExports(input, "a-peer").services, ["web"]);
  assert.deepEqual(resolveExports(input, "b-peer").services, ["web"]);
  assert.deepEqual(peersForService(input, "web"), ["a-peer", "b-peer"]);
});

test("callers of a service whose chain leads here reach it, too; those of one that leads to a peer do not", () => {
  const entries = entrySet(
    exporting(["web", "a-peer"], ["shop", "b-peer"], ["away", "c-peer"], ["other", "d-peer"]),
    { kind: "service-resolver", name: "shop", redirect: { service: "Web" } },
    { kind: "service-resolver", name: "away", redirect: { service: "web", peer: "far" } },
  );
  const input = exportInput(entries, [instance("web")]);
  assert.deepEqual(peersReachingService(input, "WEB"), ["a-peer", "b-peer"]);
  assert.deepEqual(peersReachingService(input, "shop"), ["b-peer"]);
  assert.deepEqual(peersReachingService({ ...input, connect: false }, "web"), ["a-peer"]);
});

test("targets of a tcp chain hold failover places, sorted by id (ch4 case 24)", () => {
  const entries = entrySet(exporting(["web", "b"]), {
    kind: "service-resolver",
    name: "web",
    failover: { "*": { service: "a-dr" } },
  });
  const chain = resolveExports(exportInput(entries, []), "b").chains.get("web");
  assert.deepEqual(
    chain?.tcpTargets.map((place) => place.id),
    ["a-dr.default.default.dc1", "web.default.default.dc1"],
  );
});

test("without a mesh there are no chains (ch4 case 27)", () => {
  const entries = entrySet(exporting(["*", "b"]), { kind: "service-resolver", name: "virtual" });
  const resolved = resolveExports(exportInput(entries, [native, sidecarOf("web")], { connect: false }), "b");
  assert.deepEqual(resolved, { services: ["native"], list: ["native"], chains: new Map() });
});

test("a connect-native service is a chain", () => {
  assert.deepEqual(chainNames(exportInput(entrySet(exporting(["*", "b"])), [native])), ["native"]);
});

test("names that differ in case alone are one, spelled as the entry does", () => {
  const entries = entrySet(exporting(["Web", "b"], ["web", "b"], ["*", "b"]));
  assert.deepEqual(resolveExports(exportInput(entries, [instance("WEB"), sidecarOf("wEb")]), "b").list, ["Web"]);
  assert.deepEqual(chainNames(exportInput(entries, [instance("WEB"), sidecarOf("wEb")])), ["Web"]);
});

test("no datacenter is an error", () => {
  assert.throws(() => resolveExports(exportInput(entrySet(), [], { datacenter: "" }), "b"), {
    code: "invalid-argument",
    message: "datacenter cannot be empty",
  });
});

test("the view expands *, merges blocks and sorts (HT10)", () => {
  const view = (...blocks: readonly (readonly [string, ...string[]])[]): unknown =>
    exportedServicesView(
      exportInput(entrySet(exporting(...blocks)), [
        instance("web"),
        instance("db"),
        instance("consul"),
        sidecarOf("web"),
      ]),
    );
  assert.deepEqual(exportedServicesView(exportInput(entrySet(), [instance("web")])), []);
  assert.deepEqual(view(["*", "gamma", "beta"], ["web", "alpha"], ["ghost", "beta"]), [
    { service: "db", peers: ["beta", "gamma"] },
    { service: "ghost", peers: ["beta"] },
    { service: "web", peers: ["alpha", "beta", "gamma"] },
  ]);
  const noPeer = entrySet({ kind: "exported-services", services: [{ name: "web", consumers: [{}] }] });
  assert.deepEqual(exportedServicesView(exportInput(noPeer, [])), [{ service: "web", peers: [] }]);
});

test("explaining names the rule or the reason", () => {
  const entries = entrySet(
    exporting(["web", "b"], ["*", "c"], ["x-sidecar-proxy", "b"], ["leads", "b"]),
    { kind: "service-resolver", name: "virtual" },
    { kind: "service-resolver", name: "leads", redirect: { service: "consul" } },
  );
  const input = exportInput(entries, [instance("web"), sidecarOf("web"), instance("x-sidecar-proxy")]);
  const reasons = (service: string, peer: string, more: Partial<ExportInput> = {}): readonly string[] =>
    explainExport({ ...input, ...more }, peer, service).reasons.map((reason) => reason.type);
  assert.deepEqual(reasons("web", "b"), ["named", "mesh"]);
  assert.deepEqual(reasons("web", "b", { connect: false }), ["named", "connect-disabled"]);
  assert.deepEqual(reasons("web", "c"), ["wildcard", "mesh"]);
  assert.deepEqual(reasons("virtual", "c"), ["wildcard", "mesh", "mesh-only"]);
  assert.deepEqual(reasons("virtual", "b"), ["other-peers"]);
  assert.deepEqual(reasons("ghost", "c"), ["not-typical"]);
  assert.deepEqual(reasons("ghost", "b"), ["not-named"]);
  assert.deepEqual(reasons("x-sidecar-proxy", "b"), ["named", "sidecar-name"]);
  assert.deepEqual(reasons("leads", "b"), ["named", "leads-to-consul", "no-instances"]);
  assert.deepEqual(reasons("consul", "c"), ["reserved"]);
  assert.deepEqual(reasons("web", "b", { entries: entrySet() }), ["no-entry"]);
  assert.equal(
    explainExport(input, "b", "web").text,
    "web is exported to b: block 0 of exported-services names it for this peer; for the mesh too, because it is part of the mesh here.",
  );
});

const someName = fc.constantFrom("web", "db", "API", "api", "consul", "virtual", "x-sidecar-proxy");
const somePeer = fc.constantFrom("a", "b", "B");

test("explaining agrees with the exports, and bundles go to the peers that are exported to", () => {
  const instances: fc.Arbitrary<ServiceInstance> = fc.oneof(
    someName.map((name) => instance(name)),
    someName.map((name) => sidecarOf(name)),
    someName.map((name) => instance(name, { connect: { native: true } })),
  );
  const entries: fc.Arbitrary<ConfigEntryInput> = fc.oneof(
    fc
      .array(fc.tuple(fc.oneof(someName, fc.constant("*")), somePeer), { maxLength: 4 })
      .map((blocks) => exporting(...blocks)),
    fc
      .tuple(someName, someName)
      .map(([name, service]): ConfigEntryInput => ({ kind: "service-resolver", name, failover: { "*": { service } } })),
    someName.map((name): ConfigEntryInput => ({ kind: "terminating-gateway", name: "tgw", services: [{ name }] })),
  );
  const options = fc.record({ connect: fc.boolean(), strictConsul: fc.boolean() });
  fc.assert(
    fc.property(fc.array(entries), fc.array(instances), somePeer, options, (written, registered, peer, flags) => {
      const input = exportInput(entrySet(...written), registered, flags);
      const resolved = resolveExports(input, peer);
      const sendable = new Set([...resolved.services, ...resolved.chains.keys()].map((name) => name.toLowerCase()));
      for (const name of ["web", "db", "api", "consul", "virtual", "x-sidecar-proxy", "ghost"]) {
        const explained = explainExport(input, peer, name);
        assert.equal(
          explained.ordinary,
          resolved.services.some((one) => one.toLowerCase() === name),
        );
        assert.equal(
          explained.mesh,
          [...resolved.chains.keys()].some((one) => one.toLowerCase() === name),
        );
        assert.equal(explained.exported, sendable.has(name));
        assert.notEqual(explained.reasons.length, 0);
        assert.ok(!sendable.has(name) || peersForService(input, name).includes(peer));
      }
      assert.deepEqual(resolved.list.toSorted(), [...new Set(resolved.list)].toSorted());
      if (!flags.connect) assert.equal(resolved.chains.size, 0);
    }),
  );
});

test("the index equals one built from scratch of the remaining entries", () => {
  const kinds = fc.constantFrom("", "mesh-gateway", "connect-proxy");
  const change = fc.tuple(
    fc.constantFrom("a", "b", "A", "c"),
    fc.array(fc.tuple(kinds, fc.constantFrom("a", "b", "x"), fc.constantFrom("n1", "n2")), { maxLength: 3 }),
  );
  fc.assert(
    fc.property(fc.array(change), (changes) => {
      const index = new ServiceIndex();
      const left = new Map<string, readonly ServiceInstance[]>();
      for (const [name, parts] of changes) {
        const instances = parts.map(([kind, destination, nodeName], place) => {
          const { proxy } = sidecarOf(destination).service;
          const fields = { kind, id: `${name}-${place}` };
          return instance(
            name,
            kind === "connect-proxy" && proxy !== undefined ? { ...fields, proxy } : fields,
            nodeName,
          );
        });
        const facts = (): readonly string[] =>
          ["a", "b", "c", "x"].map((key) => `${index.typical.get(key)} ${index.connectEnabled.has(key)}`);
        const before = facts();
        const { names } = index.apply(new Map([[name, instances]]), false);
        const moved = ["a", "b", "c", "x"].filter((_, place) => before[place] !== facts()[place]);
        assert.deepEqual([...names].sort(), moved);
        left.set(name.toLowerCase(), instances);
      }
      const fresh = new ServiceIndex();
      fresh.apply(left, true);
      assert.deepEqual([...index.typical.keys()].sort(), [...fresh.typical.keys()].sort());
      for (const name of ["a", "b", "c", "x"]) {
        assert.equal(index.connectEnabled.has(name), fresh.connectEnabled.has(name));
        assert.deepEqual(index.instances(name), fresh.instances(name.toUpperCase()));
      }
      assert.deepEqual(
        index.gateways.map(({ node, service }) => [node.name, service.id]),
        fresh.gateways.map(({ node, service }) => [node.name, service.id]),
      );
      assert.equal(index.apply(new Map(), true).services.length, fresh.apply(new Map(), true).services.length);
      assert.equal(index.typical.size, 0);
    }),
  );
});
