import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { type ConfigEntry, parseConfigEntry } from "../../../src/config/config-entry.js";
import { ConfigEntrySet } from "../../../src/config/config-entry-set.js";

function refused(input: unknown, message: string): void {
  assert.throws(
    () => parseConfigEntry(input),
    (error) => {
      assert.ok(error instanceof PeeringError);
      assert.equal(error.code, "invalid-entry");
      assert.equal(error.message, message);
      return true;
    },
  );
}

const block = (consumers: unknown, name: unknown = "web"): unknown => ({
  kind: "exported-services",
  name: "default",
  services: [{ name, consumers }],
});

const exportedServices: readonly (readonly [string, unknown, string])[] = [
  ["a name", { kind: "exported-services", name: "other" }, 'exported-services Name must be "default"'],
  ["an empty service name", block([{ peer: "b" }], ""), "Services[0]: service name cannot be empty"],
  [
    "a wildcard namespace",
    { kind: "exported-services", services: [{ name: "web", namespace: "*", consumers: [{ peer: "b" }] }] },
    "Services[0]: service name must be wildcard if namespace is wildcard",
  ],
  ["no consumer", block([]), "Services[0]: must have at least one consumer"],
  ["absent consumers", block(undefined), "Services[0]: must have at least one consumer"],
  [
    "a peer and a partition",
    block([{ peer: "a" }, { peer: "b", partition: "c" }]),
    "Services[0].Consumers[1]: must define at most one of Peer, Partition, or SamenessGroup",
  ],
  [
    "all partitions",
    block([{ partition: "*" }]),
    "Services[0].Consumers[0]: exporting to all partitions (wildcard) is not supported",
  ],
  ["all peers", block([{ peer: "*" }]), "Services[0].Consumers[0]: exporting to all peers (wildcard) is not supported"],
  [
    "a sameness group",
    block([{ samenessGroup: "g" }]),
    "Services[0].Consumers[0]: sameness-groups are an enterprise-only feature",
  ],
  [
    "an unknown key",
    { kind: "exported-services", services: [{ name: "web", consumers: [{ peerName: "b" }] }] },
    '1 error occurred:\n\t* invalid config key "services[0].consumers[0].peerName"\n\n',
  ],
  [
    "two unknown keys",
    { kind: "exported-services", peers: [], Namespace: "x" },
    '2 errors occurred:\n\t* invalid config key "peers"\n\t* invalid config key "Namespace", namespaces are a consul enterprise feature\n\n',
  ],
  [
    "too much metadata",
    {
      kind: "exported-services",
      meta: { ...Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, "v"])) },
    },
    "1 error occurred:\n\t* Meta exceeds maximum element count 64\n\n",
  ],
  [
    "long metadata",
    { kind: "exported-services", meta: { ["k".repeat(129)]: "v", key: "é".repeat(257) } },
    `2 errors occurred:\n\t* Meta key "${"k".repeat(129)}" exceeds maximum length 128\n\t* Meta value for key "key" exceeds maximum length 512\n\n`,
  ],
  ["a list for an object", [], "a config entry must be an object"],
  ["nothing", undefined, "a config entry must be an object"],
  ["no kind", { name: "default" }, "Payload does not contain a kind/Kind key at the top level"],
  ["an unknown kind", { kind: "constructor" }, "invalid config entry kind: constructor"],
  ["a wrong type", { kind: "exported-services", services: "web" }, "services: must be a list"],
  ["a wrong type inside", block([{ peer: 7 }]), "services[0].consumers[0].peer: must be a string"],
];
for (const [what, input, message] of exportedServices) {
  test(`exported-services with ${what} is refused`, () => refused(input, message));
}

test("an exported-services entry is taken unchanged, without empty values", () => {
  const input = {
    kind: "exported-services",
    services: [
      { name: "web", consumers: [{ peer: "b" }, {}, { partition: "p" }], namespace: "" },
      { name: "consul", consumers: [{ peer: "unknown" }] },
    ],
    meta: {},
  };
  assert.deepEqual(parseConfigEntry(input), {
    kind: "exported-services",
    name: "default",
    services: [
      { name: "web", consumers: [{ peer: "b" }, {}, { partition: "p" }] },
      { name: "consul", consumers: [{ peer: "unknown" }] },
    ],
  });
});

const resolver = (fields: object): unknown => ({ kind: "service-resolver", name: "web", ...fields });
const resolvers: readonly (readonly [unknown, string])[] = [
  [resolver({ redirect: {} }), "Redirect is empty"],
  [
    resolver({ redirect: { service: "a" }, failover: { "*": { service: "b" } } }),
    "Redirect and Failover cannot both be set",
  ],
  [resolver({ redirect: { peer: "p" } }), "Redirect.Peer defined without Redirect.Service"],
  [
    resolver({ redirect: { peer: "p", service: "a", serviceSubset: "v" } }),
    "Redirect.Peer cannot be set with Redirect.ServiceSubset",
  ],
  [
    resolver({ redirect: { peer: "p", service: "a", datacenter: "d" } }),
    "Redirect.Peer cannot be set with Redirect.Datacenter",
  ],
  [
    resolver({ redirect: { peer: "p", service: "a", partition: "q" } }),
    "Redirect: Setting Partition requires Consul Enterprise",
  ],
  [
    resolver({ failover: { "*": { targets: [{ peer: "p", serviceSubset: "v" }] } } }),
    'Bad Failover["*"].Targets[0]: Peer cannot be set with ServiceSubset',
  ],
  [
    resolver({ failover: { "*": { targets: [{}, { peer: "p", datacenter: "d" }] } } }),
    'Bad Failover["*"].Targets[1]: Peer cannot be set with Datacenter',
  ],
  [
    resolver({ failover: { "*": { targets: [{ peer: "p", partition: "d" }] } } }),
    'Bad Failover["*"].Targets[0]: Setting Partition requires Consul Enterprise',
  ],
  [
    resolver({ failover: { "*": { targets: [{ peer: "p" }], datacenters: ["d"] } } }),
    'Bad Failover["*"]: Targets cannot be set with Datacenters',
  ],
  [
    resolver({ subsets: { d: {} }, failover: { "*": { targets: [{ peer: "p" }], serviceSubset: "d" } } }),
    'Bad Failover["*"]: Targets cannot be set with ServiceSubset',
  ],
  [
    resolver({ failover: { "*": { targets: [{ peer: "p" }], service: "d" } } }),
    'Bad Failover["*"]: Targets cannot be set with Service',
  ],
  [resolver({ defaultSubset: "v1" }), 'DefaultSubset "v1" is not a valid subset'],
  [resolver({ failover: { v1: { service: "d" } } }), 'Bad Failover["v1"]: not a valid subset subset'],
  [
    resolver({ failover: { "*": { serviceSubset: "d" } } }),
    'Bad Failover["*"]: ServiceSubset "d" is not a valid subset of ""',
  ],
  [
    resolver({ failover: { "*": { targets: [{ serviceSubset: "d" }] } } }),
    'Bad Failover["*"].Targets[0]: ServiceSubset "d" is not a valid subset of "web"',
  ],
  [
    resolver({ failover: { "*": {} } }),
    'Bad Failover["*"]: one of Service, ServiceSubset, Namespace, Targets, SamenessGroup, or Datacenters is required',
  ],
  [
    resolver({ failover: { "*": { service: "a", policy: { Mode: "sequential" } } } }),
    'Bad Failover["*"]: Setting failover policies requires Consul Enterprise',
  ],
  [
    resolver({ failover: { "*": { samenessGroup: "g" } } }),
    'Bad Failover["*"]: Setting SamenessGroup requires Consul Enterprise',
  ],
  [resolver({ redirect: { samenessGroup: "g" } }), "Redirect: Setting SamenessGroup requires Consul Enterprise"],
  [
    resolver({ redirect: { serviceSubset: "d" }, subsets: { d: {} } }),
    "Redirect.ServiceSubset defined without Redirect.Service",
  ],
  [
    resolver({ redirect: { service: "web", serviceSubset: "d" } }),
    'Redirect.ServiceSubset "d" is not a valid subset of "web"',
  ],
  [
    resolver({ subsets: { A: {} } }),
    "Subset \"A\" is invalid: must be 63 characters or fewer, begin or end with lower case alphanumeric characters, and contain lower case alphanumeric characters or '-' in between",
  ],
  [resolver({ connectTimeout: "-1s" }), "Bad ConnectTimeout '-1s', must be >= 0"],
  [resolver({ name: "" }), "Name is required"],
];
for (const [input, message] of resolvers) {
  test(`service-resolver is refused with ${message} (ch4 case 84)`, () => refused(input, message));
}

test("splits must sum to 100, and differ", () => {
  const splitter = (...weights: number[]): unknown => ({
    kind: "service-splitter",
    name: "web",
    splits: weights.map((weight, index) => ({ weight, service: index === 0 ? "web" : `x${index}` })),
  });
  refused(splitter(50, 49.5), "the sum of all split weights must be 100, not 99.500000");
  refused(splitter(), "no splits configured");
  refused(splitter(150, -50), "split weights must lie between 0 and 100");
  refused(
    { kind: "service-splitter", name: "web", splits: [{ weight: 50 }, { weight: 50, service: "web" }] },
    'split destination occurs more than once: service="web", subset="", namespace="", partition=""',
  );
  assert.equal(parseConfigEntry(splitter(33.33, 33.33, 33.34)).kind, "service-splitter");
});

test("a service speaks one of five protocols", () => {
  refused(
    { kind: "service-defaults", name: "web", protocol: "sctp" },
    "1 error occurred:\n\t* invalid value for protocol: sctp\n\n",
  );
  assert.deepEqual(parseConfigEntry({ kind: "service-defaults", name: "web", protocol: "HTTP" }), {
    kind: "service-defaults",
    name: "web",
    protocol: "http",
  });
});

test("proxy-defaults and mesh exist once", () => {
  refused({ kind: "proxy-defaults", name: "web" }, 'invalid name ("web"), only "global" is supported');
  assert.deepEqual(parseConfigEntry({ kind: "proxy-defaults", config: { protocol: "http" } }), {
    kind: "proxy-defaults",
    name: "global",
    config: { protocol: "http" },
  });
  assert.deepEqual(parseConfigEntry({ kind: "mesh", peering: { peerThroughMeshGateways: true } }), {
    kind: "mesh",
    name: "mesh",
    peering: { peerThroughMeshGateways: true },
  });
});

test("fields that are not interpreted stay under extra", () => {
  const entry = {
    kind: "service-defaults",
    name: "web",
    protocol: "http",
    extra: { MeshGateway: { Mode: "local" }, list: [1, null] },
  };
  assert.deepEqual(parseConfigEntry(entry), entry);
});

test("anything at all is taken or refused with a typed error, and an accepted entry is accepted again unchanged", () => {
  const kinds = fc.constantFrom(
    "exported-services",
    "service-resolver",
    "service-router",
    "mesh",
    "terminating-gateway",
  );
  const keys = fc.constantFrom("name", "services", "redirect", "failover", "routes", "peering", "meta", "subsets", "x");
  const json = fc.jsonValue({ maxDepth: 3 });
  fc.assert(
    fc.property(kinds, fc.dictionary(keys, json), (kind, fields) => {
      try {
        const entry = parseConfigEntry({ ...fields, kind });
        assert.deepEqual(parseConfigEntry(entry), entry);
      } catch (error) {
        assert.ok(error instanceof PeeringError);
        assert.equal(error.code, "invalid-entry");
      }
    }),
  );
});

test("entries are found without case and replaced by name; a set never changes", () => {
  const first = ConfigEntrySet.of([parseConfigEntry({ kind: "service-defaults", name: "Web", protocol: "HTTP" })]);
  const second = first.with(parseConfigEntry({ kind: "service-defaults", name: "web", protocol: "grpc" }));
  assert.equal(first.protocolOf("wEB"), "http");
  assert.equal(second.protocolOf("wEB"), "grpc");
  assert.equal(second.all("service-defaults").size, 1);
  assert.equal(second.without("service-defaults", "WEB").protocolOf("web"), "tcp");
});

test("a set finds the entries that name something, as they are after each change", () => {
  const intentions = (name: string, sources: readonly { name: string; legacyID?: string }[]): ConfigEntry =>
    parseConfigEntry({
      kind: "service-intentions",
      name,
      sources: sources.map((source) => ({ ...source, action: "allow" })),
    });
  const found = (entries: ConfigEntrySet, what: Parameters<ConfigEntrySet["referring"]>[0], name: string) =>
    [...entries.referring(what, name)].map(({ kind, name: own }) => `${kind}/${own}`);
  const id = "11111111-2222-3333-4444-555555555555";
  const first = ConfigEntrySet.of([
    intentions("Web", [{ name: "api" }, { name: "Db" }]),
    parseConfigEntry({ kind: "service-resolver", name: "a", redirect: { service: "B" } }),
  ]);
  assert.deepEqual(found(first, "source", "API"), ["service-intentions/Web"]);
  assert.deepEqual(found(first, "service", "b"), ["service-resolver/a"]);
  assert.deepEqual([...first.leadingTo("B")], ["b", "a"]);
  const second = first.with(intentions("web", [{ name: "db", legacyID: id }])).with(intentions("x", [{ name: "db" }]));
  assert.deepEqual(found(second, "source", "api"), []);
  assert.deepEqual(found(second, "source", "db"), ["service-intentions/web", "service-intentions/x"]);
  assert.deepEqual(found(second, "intention-id", id), ["service-intentions/web"]);
  const third = second.without("service-intentions", "WEB").without("service-resolver", "A");
  assert.deepEqual(found(third, "source", "db"), ["service-intentions/x"]);
  assert.deepEqual(found(third, "intention-id", id), []);
  assert.deepEqual([...third.leadingTo("b")], ["b"]);
  assert.deepEqual(found(first, "source", "api"), ["service-intentions/Web"], "an older set stays as it was");
});
