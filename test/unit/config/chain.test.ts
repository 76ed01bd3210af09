import assert from "node:assert/strict";
import { test } from "node:test";
import { chainInfo, compileChain } from "../../../src/config/chain.js";
import type { ConfigEntryInput } from "../../../src/config/config-entry.js";
import { entrySet } from "./export-fixtures.js";

function ids(name: string, ...entries: readonly ConfigEntryInput[]): readonly string[] {
  return compileChain(entrySet(...entries), name, "dc1").targets.map((place) => place.id);
}

const http: ConfigEntryInput = { kind: "proxy-defaults", config: { protocol: "http" } };

test("a service without entries leads to itself over tcp", () => {
  const chain = compileChain(entrySet(), "web", "dc1");
  assert.equal(chain.protocol, "tcp");
  assert.deepEqual(chain.targets, [
    {
      id: "web.default.default.dc1",
      service: "web",
      subset: "",
      datacenter: "dc1",
      peer: "",
      connectTimeoutMs: 5_000,
      meshGateway: "",
      dialedDirectly: false,
      subsetDefinition: {},
    },
  ]);
  assert.ok(chain.isDefault);
  assert.equal(chain.problem, undefined);
});

test("service-defaults decide the protocol, and an empty one means tcp (ch4 case 15)", () => {
  assert.equal(entrySet({ kind: "service-defaults", name: "web", protocol: "HTTP" }).protocolOf("web"), "http");
  assert.equal(entrySet({ kind: "service-defaults", name: "web" }, http).protocolOf("web"), "tcp");
});

test("proxy-defaults decide where there are no service-defaults (ch4 case 16)", () => {
  assert.equal(entrySet(http).protocolOf("web"), "http");
});

test("a redirect is followed, a chain of redirects too, and a circle is a problem", () => {
  const to = (name: string, service: string): ConfigEntryInput => ({
    kind: "service-resolver",
    name,
    redirect: { service },
  });
  assert.deepEqual(ids("a", to("a", "b"), to("b", "c")), ["c.default.default.dc1"]);
  const circle = compileChain(entrySet(to("a", "b"), to("b", "a")), "a", "dc1");
  assert.match(circle.problem ?? "", /circular/);
  assert.deepEqual(circle.targets, []);
});

test("failover targets are targets, sorted by id; redirects of failover places are followed (ch4 case 24)", () => {
  assert.deepEqual(
    ids(
      "web",
      {
        kind: "service-resolver",
        name: "web",
        failover: { "*": { targets: [{ service: "web-dr" }, { peer: "alpha" }] } },
      },
      { kind: "service-resolver", name: "web-dr", redirect: { service: "a-place" } },
    ),
    ["a-place.default.default.dc1", "web.default.default.dc1", "web.default.default.external.alpha"],
  );
});

test("failover in other datacenters gives one target each, and a peer's target has no datacenter", () => {
  const chain = compileChain(
    entrySet({ kind: "service-resolver", name: "web", failover: { "*": { datacenters: ["dc3", "dc2"] } } }),
    "web",
    "dc1",
  );
  assert.deepEqual(
    chain.targets.map((place) => place.id),
    ["web.default.default.dc1", "web.default.default.dc2", "web.default.default.dc3"],
  );
  const start = chain.nodes.get(chain.start);
  assert.equal(start?.type === "resolver" && start.target, "web.default.default.dc1");
});

test("subsets are part of ids; the default subset applies; failover is looked up by subset, then *", () => {
  const entry: ConfigEntryInput = {
    kind: "service-resolver",
    name: "web",
    defaultSubset: "v1",
    subsets: { v1: { filter: "x" }, v2: { onlyPassing: true } },
    failover: { v1: { serviceSubset: "v2" }, "*": { service: "never" } },
  };
  assert.deepEqual(ids("web", entry), ["v1.web.default.default.dc1", "v2.web.default.default.dc1"]);
});

test("routers and splitters lead on for HTTP-like protocols", () => {
  assert.deepEqual(
    ids(
      "web",
      http,
      {
        kind: "service-router",
        name: "web",
        routes: [{ destination: { service: "admin" } }, { destination: { service: "api", serviceSubset: "v2" } }, {}],
      },
      {
        kind: "service-splitter",
        name: "web",
        splits: [{ weight: 90 }, { weight: 10, service: "canary" }],
      },
      {
        kind: "service-splitter",
        name: "canary",
        splits: [
          { weight: 50, service: "canary-a" },
          { weight: 50, service: "canary-b" },
        ],
      },
      { kind: "service-resolver", name: "api", subsets: { v2: {} } },
    ),
    [
      "admin.default.default.dc1",
      "canary-a.default.default.dc1",
      "canary-b.default.default.dc1",
      "v2.api.default.default.dc1",
      "web.default.default.dc1",
    ],
  );
});

test("splitters that lead to one another are a problem, and compiling ends", () => {
  const split = (name: string, service: string): ConfigEntryInput => ({
    kind: "service-splitter",
    name,
    splits: [{ weight: 100, service }],
  });
  assert.match(compileChain(entrySet(http, split("a", "b"), split("b", "a")), "a", "dc1").problem ?? "", /circular/);
});

const splits = (name: string, ...services: readonly string[]): ConfigEntryInput => ({
  kind: "service-splitter",
  name,
  splits: services.map((service) => ({ weight: 100 / services.length, service })),
});

test("splits of a splitter behind a splitter take its place, with headers and weights of both", () => {
  const set = { RequestHeaders: { Set: { a: "outer", b: "outer" } }, ResponseHeaders: { Set: { a: "outer" } } };
  const inner = { RequestHeaders: { Set: { b: "inner" } }, ResponseHeaders: { Set: { a: "inner", c: "inner" } } };
  const chain = compileChain(
    entrySet(
      http,
      {
        kind: "service-splitter",
        name: "web",
        splits: [
          { weight: 33.33, service: "canary", extra: set },
          { weight: 66.67, service: "stable" },
        ],
      },
      {
        kind: "service-splitter",
        name: "canary",
        splits: [
          { weight: 50, service: "one", extra: inner },
          { weight: 50, service: "two" },
        ],
      },
    ),
    "web",
    "dc1",
  );
  const start = chain.nodes.get(chain.start);
  assert.ok(start?.type === "splitter");
  assert.deepEqual(
    start.splits.map(({ next, weight }) => [next, weight]),
    [
      ["resolver:one.default.default.dc1", 16.67],
      ["resolver:two.default.default.dc1", 16.67],
      ["resolver:stable.default.default.dc1", 66.67],
    ],
  );
  assert.deepEqual(start.splits[0]?.definition.extra, {
    RequestHeaders: { Set: { a: "outer", b: "inner" } },
    ResponseHeaders: { Set: { a: "outer", c: "inner" } },
  });
  assert.equal(chain.nodes.has("splitter:canary.default.default"), false);
});

test("the protocol of a splitter does not count, those of its targets do", () => {
  const speaks = (name: string, protocol: string): ConfigEntryInput => ({ kind: "service-defaults", name, protocol });
  const virtual = [speaks("virt", "http"), splits("virt", "g1", "g2")];
  const chain = compileChain(entrySet(...virtual, speaks("g1", "grpc"), speaks("g2", "grpc")), "virt", "dc1");
  assert.deepEqual([chain.problem, chain.protocol], [undefined, "grpc"]);
  assert.match(
    compileChain(entrySet(...virtual, speaks("g1", "grpc")), "virt", "dc1").problem ?? "",
    /service "g2" has "tcp" which is not "grpc"/,
  );
  assert.match(
    compileChain(entrySet(...virtual), "virt", "dc1").problem ?? "",
    /a protocol "tcp" that does not permit/,
  );
});

/** Layers of two splitters, each of which leads to both of the next layer: the ways through double with every layer. */
function layered(layers: number): readonly ConfigEntryInput[] {
  const names = (layer: number): readonly [string, string] => [`l${layer}-a`, `l${layer}-b`];
  return Array.from({ length: layers }, (_, layer) =>
    names(layer).map((name) => splits(name, ...names(layer + 1))),
  ).flat();
}

test("a chain has a bounded number of parts, however many ways lead through it", () => {
  const chain = compileChain(entrySet(http, ...layered(8)), "l0-a", "dc1");
  const start = chain.nodes.get(chain.start);
  assert.equal(start?.type === "splitter" && start.splits.length, 2 ** 8);
  const long = compileChain(entrySet(http, ...layered(40)), "l0-a", "dc1");
  assert.ok(long.tooLong);
  assert.equal(long.problem, 'discovery chain "l0-a" has more than 10000 routes, splits and targets');
});

test("a long row of splitters, or of redirects, is walked without recursion", () => {
  const row = (length: number, link: (from: string, to: string) => ConfigEntryInput): readonly ConfigEntryInput[] =>
    Array.from({ length }, (_, index) => link(`s${index}`, `s${index + 1}`));
  const redirect = (name: string, service: string): ConfigEntryInput => ({
    kind: "service-resolver",
    name,
    redirect: { service },
  });
  for (const link of [(from: string, to: string) => splits(from, to), redirect]) {
    const entries = entrySet(http, ...row(3_000, link));
    assert.deepEqual(
      compileChain(entries, "s0", "dc1").targets.map(({ service }) => service),
      ["s3000"],
    );
    assert.ok(compileChain(entrySet(http, ...row(20_000, link)), "s0", "dc1").tooLong);
  }
});

test("protocols of one chain must agree", () => {
  const chain = compileChain(
    entrySet(
      { kind: "service-resolver", name: "web", redirect: { service: "api" } },
      { kind: "service-defaults", name: "api", protocol: "http" },
    ),
    "web",
    "dc1",
  );
  assert.equal(
    chain.problem,
    'discovery chain "web" uses inconsistent protocols; service "api" has "http" which is not "tcp"',
  );
});

test("a subset may bear any name, and one that is not there is a problem", () => {
  const chain = compileChain(
    entrySet({ kind: "service-resolver", name: "web", redirect: { service: "api", serviceSubset: "constructor" } }),
    "web",
    "dc1",
  );
  assert.equal(chain.problem, 'service "api" does not have a subset named "constructor"');
});

test("targets are told for protocols without HTTP semantics alone", () => {
  assert.equal(chainInfo(compileChain(entrySet(), "web", "dc1")).tcpTargets.length, 1);
  for (const protocol of ["http", "http2", "grpc"]) {
    const chain = compileChain(entrySet({ kind: "service-defaults", name: "web", protocol }), "web", "dc1");
    assert.deepEqual(chainInfo(chain), { protocol, tcpTargets: [] });
  }
});
