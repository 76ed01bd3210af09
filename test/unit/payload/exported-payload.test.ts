import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { compareUtf8 } from "../../../src/base/byte-order.js";
import { PeeringError } from "../../../src/base/errors.js";
import type { ChainInfo, ChainTarget } from "../../../src/config/chain.js";
import { flattenedStatus } from "../../../src/model/check-groups.js";
import type { Check, Locality, Service, ServiceInstance } from "../../../src/model/instance.js";
import { encodeServicePayload, encodeSidecarPayload, PayloadEncoder } from "../../../src/payload/exported-payload.js";
import { ExportedServiceSchema } from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import { CheckServiceNodeSchema } from "../../../src/wire/gen/hashicorp/consul/internal/service/service_pb.js";
import { check, gateway, instance, node, service, TRUST_DOMAIN } from "../config/export-fixtures.js";

type DecodedService = ReturnType<typeof decode>[number];

function decode(value: Uint8Array) {
  return fromBinary(ExportedServiceSchema, value).Nodes;
}

function only<T>(items: readonly T[]): T {
  assert.equal(items.length, 1);
  const [item] = items;
  assert.ok(item !== undefined);
  return item;
}

function refusedBecause(instances: readonly ServiceInstance[], why: RegExp, name = "web"): void {
  assert.throws(
    () => encodeServicePayload(name, instances),
    (error) => {
      assert.ok(error instanceof PeeringError);
      assert.equal(error.code, "invalid-registration");
      assert.match(error.message, why);
      assert.match(error.message, /^service "web" is not sent: instance "[^"]*" on node "[^"]*": /);
      return true;
    },
  );
}

test("the vector of instance X2 byte for byte", () => {
  const x2: ServiceInstance = {
    node: node("node-1", { id: "af913374-68ea-41e5-82e8-6ffd3dffc461" }),
    service: service("web", { id: "web-1", port: 8080, tags: ["v1"] }),
    checks: [check("web-1:http", "passing")],
  };
  const vector =
    "0aa2010a3d0a2461663931333337342d363865612d343165352d383265382d36666664336466666334363112066e6f64" +
    "652d311a0831302e302e302e312203646331121c12057765622d311a037765622202763138903f4204080110" +
    "018201001a430a066e6f64652d3112137765622d313a6f766572616c6c2d636865636b1a0d6f766572616c6c" +
    "2d636865636b220770617373696e673a057765622d3142037765626a00";
  assert.equal(Buffer.from(encodeServicePayload("web", [x2]).value).toString("hex"), vector);
});

test("no instances are an empty payload (ch4 case 29, ch1 case 75)", () => {
  assert.equal(encodeServicePayload("mongo", []).value.length, 0);
});

test("instances of any health are sent, each with one check (ch4 case 30)", () => {
  const sick = instance("web", { id: "web-2" }, "node-2", [check("a", "critical"), check("b", "passing")]);
  const well = instance("web", { id: "web-1" }, "node-1", [check("a", "passing")]);
  const nodes = decode(encodeServicePayload("web", [sick, well]).value);
  assert.deepEqual(
    nodes.map(({ Checks }) => Checks.map((one) => [one.CheckID, one.Name, one.Status, one.Node, one.ServiceID])),
    [
      [["web-1:overall-check", "overall-check", "passing", "node-1", "web-1"]],
      [["web-2:overall-check", "overall-check", "critical", "node-2", "web-2"]],
    ],
  );
  const flattened = only(nodes[1]?.Checks ?? []);
  assert.deepEqual([flattened.Notes, flattened.Output, flattened.Type, flattened.Definition], ["", "", "", undefined]);
  assert.equal(flattened.ServiceName, "web");
});

test("a connect-native instance goes without Connect, Proxy and its virtual address (ch4 case 32, ch1 case 88)", () => {
  const native = instance("web", {
    connect: { native: true },
    taggedAddresses: {
      "consul-virtual": { address: "240.0.0.1", port: 80 },
      wan: { address: "203.0.113.9", port: 443 },
    },
  });
  const sent = only(decode(encodeServicePayload("web", [native]).value)).Service;
  assert.equal(sent?.Connect, undefined);
  assert.equal(sent?.Proxy, undefined);
  assert.deepEqual(Object.keys(sent?.TaggedAddresses ?? {}), ["wan"]);
});

test("a service named like a sidecar is sent without instances (ch4 case 33, ch1 case 89)", () => {
  assert.equal(encodeServicePayload("x-sidecar-proxy", [instance("x-sidecar-proxy")]).value.length, 0);
});

test("proxies and gateways under the name are not sent", () => {
  const others = ["connect-proxy", "mesh-gateway", "terminating-gateway", "api-gateway"].map((kind) =>
    instance("web", { kind }),
  );
  assert.equal(encodeServicePayload("web", others).value.length, 0);
});

test("instances are ordered by the bytes of node and id, and equal instances give equal bytes (ch1 case 80)", () => {
  const instances = [
    instance("web", { id: "b" }, "n2"),
    instance("web", { id: "a" }, "n2"),
    instance("web", { id: "\u{1f600}" }, "n1"),
    instance("web", { id: "\uffee" }, "n1"),
    instance("web", { id: "z" }, "N9"),
  ];
  const payload = encodeServicePayload("web", instances);
  assert.deepEqual(
    decode(payload.value).map((one) => [one.Node?.Node, one.Service?.ID]),
    [
      ["N9", "z"],
      ["n1", "\uffee"],
      ["n1", "\u{1f600}"],
      ["n2", "a"],
      ["n2", "b"],
    ],
  );
  assert.deepEqual(encodeServicePayload("web", instances.toReversed()), payload);
});

test("the order of a map's keys does not show", () => {
  const one = instance("web", {
    meta: { a: "1", b: "2" },
    taggedAddresses: { lan: { address: "l", port: 1 }, wan: { address: "w", port: 2 } },
  });
  const other = instance("web", {
    meta: { b: "2", a: "1" },
    taggedAddresses: { wan: { address: "w", port: 2 }, lan: { address: "l", port: 1 } },
  });
  assert.deepEqual(encodeServicePayload("web", [one]), encodeServicePayload("web", [other]));
});

const refusals: readonly (readonly [string, ServiceInstance | readonly ServiceInstance[], RegExp])[] = [
  ["no node name", { ...instance("web"), node: node("") }, /the node has no name/],
  ["no service id", instance("web", { id: "" }), /it has no service id/],
  ["another name", instance("api"), /it is named "api"/],
  [
    "a node id that is no UUID",
    { ...instance("web"), node: node("n", { id: "nope" }) },
    /node id "nope" is not a UUID/,
  ],
  ["a port beyond int32", instance("web", { port: 2 ** 31 }), /port 2147483648 is not a 32-bit integer/],
  ["a fractional port", instance("web", { port: 80.5 }), /port 80.5/],
  [
    "a weight that is no number",
    instance("web", { weights: { passing: Number.NaN, warning: 1 } }),
    /weights NaN and 1/,
  ],
  [
    "a tagged port beyond int32",
    instance("web", { taggedAddresses: { wan: { address: "", port: -(2 ** 31) - 1 } } }),
    /tagged address "wan"/,
  ],
  ["reserved metadata", instance("web", { meta: { "consul-x": "1" } }), /'consul-' is reserved/],
  ["a blank metadata key", instance("web", { meta: { "": "1" } }), /Key cannot be blank/],
  ["a metadata key with a space", instance("web", { meta: { "a b": "1" } }), /invalid characters/],
  ["a long metadata key", instance("web", { meta: { ["k".repeat(129)]: "1" } }), /Key is too long/],
  ["long metadata", instance("web", { meta: { k: "\u20ac".repeat(171) } }), /Value is too long/],
  [
    "too much metadata",
    instance("web", { meta: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, ""])) }),
    /more than 64/,
  ],
];
for (const [what, given, why] of refusals) {
  test(`an instance with ${what} is not sent (ch1 case 110)`, () => {
    refusedBecause([instance("web", { id: "fine" }, "other"), ...(Array.isArray(given) ? given : [given])], why);
  });
}

test("one node id under two node names is not sent, however many nodes there are", () => {
  const id = "00000000-0000-0000-0000-00000000000a";
  for (const count of [1, 40]) {
    const others = Array.from({ length: count }, (_, i) => ({
      ...instance("web", { id: `o-${i}` }),
      node: node(`other-${i}`, { id: `00000000-0000-0000-0000-1000000000${String(i).padStart(2, "0")}` }),
    }));
    const first = { ...instance("web", { id: "a" }), node: node("a", { id }) };
    const second = { ...instance("web", { id: "b" }), node: node("b", { id: id.toUpperCase() }) };
    refusedBecause([...others, first, second], /id of another node/);
    const respelled = { ...second, node: node("A", { id }) };
    assert.equal(decode(encodeServicePayload("web", [...others, first, respelled]).value).length, count + 2);
  }
});

test("the largest and smallest 32-bit numbers are sent", () => {
  const edge = instance("web", { port: -(2 ** 31), weights: { passing: 2 ** 31 - 1, warning: 0 } });
  const sent = only(decode(encodeServicePayload("web", [edge]).value)).Service;
  assert.equal(sent?.Port, -(2 ** 31));
  assert.equal(sent?.Weights?.Passing, 2 ** 31 - 1);
});

test("an encoder goes on after an instance that is not what its type says", () => {
  const encoder = new PayloadEncoder();
  const broken: ServiceInstance = JSON.parse(
    JSON.stringify(instance("web", { tags: [] })).replace('"tags":[]', '"tags":7'),
  );
  assert.throws(() => encoder.service("web", [instance("web", { id: "a" }, "a"), broken]));
  assert.deepEqual(encoder.service("web", [instance("web")]), encodeServicePayload("web", [instance("web")]));
});

const text = fc.oneof(fc.constant(""), fc.string({ maxLength: 12 }), fc.string({ unit: "grapheme", maxLength: 6 }));
const filled = fc.oneof(
  fc.string({ minLength: 1, maxLength: 12 }),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 6 }),
);
const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const locality: fc.Arbitrary<{ locality?: Locality }> = fc.oneof(
  fc.constant({}),
  fc.record({ locality: fc.record({ region: text, zone: text }) }),
);
const metaKeys = fc.stringMatching(/^[a-z0-9_-]{1,8}$/).filter((key) => !key.startsWith("consul-"));
const someService: fc.Arbitrary<Service> = fc
  .tuple(
    fc.record({
      kind: fc.constantFrom("", "", "", "connect-proxy", "mesh-gateway"),
      id: filled,
      name: fc.constantFrom("web", "WEB"),
      tags: fc.array(text, { maxLength: 3 }),
      address: text,
      port: int32,
      socketPath: text,
      taggedAddresses: fc.dictionary(
        fc.oneof(text, fc.constantFrom("lan", "wan", "consul-virtual")),
        fc.record({ address: text, port: int32 }),
        { maxKeys: 3 },
      ),
      meta: fc.dictionary(metaKeys, text, { maxKeys: 3 }),
      weights: fc.record({ passing: int32, warning: int32 }),
      enableTagOverride: fc.boolean(),
    }),
    locality,
    fc.oneof(fc.constant({}), fc.constant({ connect: { native: true } })),
  )
  .map(([fields, place, connect]) => ({ ...fields, ...place, ...connect }));
const someChecks: fc.Arbitrary<readonly Check[]> = fc.array(
  fc
    .tuple(fc.constantFrom("a", "b", "_node_maintenance"), fc.oneof(text, fc.constantFrom("passing", "critical")))
    .map(([id, status]) => check(id, status)),
  { maxLength: 3 },
);
const someInstance: fc.Arbitrary<ServiceInstance> = fc
  .tuple(
    fc.record({
      id: fc.oneof(fc.constant(""), fc.uuid()),
      name: filled,
      address: text,
      datacenter: text,
      taggedAddresses: fc.dictionary(text, text, { maxKeys: 3 }),
      meta: fc.dictionary(text, text, { maxKeys: 3 }),
    }),
    locality,
    someService,
    someChecks,
  )
  .map(([fields, place, one, checks]) => ({ node: { ...fields, ...place }, service: one, checks }));

function place(value: Locality | undefined) {
  return value === undefined ? {} : { Locality: { Region: value.region, Zone: value.zone } };
}

function bySortedKey<T>(map: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(map).sort(([left], [right]) => compareUtf8(left, right)));
}

/** The same instance in the generated types, written without a look at the encoder. */
function expected({ node: from, service: of, checks }: ServiceInstance) {
  const status = flattenedStatus({ checks }, false);
  const addresses = Object.entries(of.taggedAddresses).filter(([key]) => key !== "consul-virtual");
  return create(CheckServiceNodeSchema, {
    Node: {
      ID: from.id,
      Node: from.name,
      Address: from.address,
      Datacenter: from.datacenter,
      TaggedAddresses: bySortedKey(from.taggedAddresses),
      Meta: bySortedKey(from.meta),
      ...place(from.locality),
    },
    Service: {
      ID: of.id,
      Service: of.name,
      Tags: [...of.tags],
      Address: of.address,
      Meta: bySortedKey(of.meta),
      Port: of.port,
      Weights: { Passing: of.weights.passing, Warning: of.weights.warning },
      EnableTagOverride: of.enableTagOverride,
      TaggedAddresses: Object.fromEntries(
        addresses.map(([key, address]) => [key, { Address: address.address, Port: address.port }]),
      ),
      EnterpriseMeta: {},
      SocketPath: of.socketPath,
      ...place(of.locality),
    },
    Checks:
      status === undefined
        ? []
        : [
            {
              Node: from.name,
              CheckID: `${of.id}:overall-check`,
              Name: "overall-check",
              Status: status,
              ServiceID: of.id,
              ServiceName: of.name,
              EnterpriseMeta: {},
            },
          ],
  });
}

/** Lone surrogates do not survive UTF-8: the generated codec refuses them, ours replaces them. */
function wellFormed(instances: readonly ServiceInstance[]): boolean {
  return JSON.stringify(instances) === JSON.stringify(instances).replace(/\\ud[89a-f]/gi, "");
}

test("the generated code reads the same service, and writes the same bytes", () => {
  const kept = new PayloadEncoder();
  fc.assert(
    fc.property(
      fc.uniqueArray(someInstance, { selector: ({ node: on }) => on.id || on.name, maxLength: 5 }),
      (instances) => {
        fc.pre(wellFormed(instances));
        const { value, digest } = kept.service("web", instances);
        const sent = instances.filter((one) => one.service.kind === "");
        const key = (one: ServiceInstance): string => `${one.node.name}//${one.service.id}`;
        const meant = sent.toSorted((left, right) => compareUtf8(key(left), key(right))).map(expected);
        assert.deepEqual(decode(value), meant);
        const again = toBinary(ExportedServiceSchema, fromBinary(ExportedServiceSchema, value));
        assert.deepEqual(decode(again), decode(value));
        assert.equal(again.length, value.length);
        assert.deepEqual(encodeServicePayload("web", instances.toReversed()), { value, digest });
      },
    ),
  );
});

const chain = (protocol: string, ...targets: readonly Partial<ChainTarget>[]): ChainInfo => ({
  protocol,
  tcpTargets: targets.map((fields) => ({ id: "", service: "", subset: "", datacenter: "dc1", peer: "", ...fields })),
});

function sidecars(name: string, info: ChainInfo, gateways: readonly ServiceInstance[]): DecodedService[] {
  const input = { name, chain: info, gateways, peerName: "my-peering", trustDomain: TRUST_DOMAIN, datacenter: "dc1" };
  return decode(encodeSidecarPayload(input).value);
}

test("a synthetic sidecar has the expected fields, with our name of the peer in its SNI (ch1 case 87, ch4 case 36)", () => {
  const gw: ServiceInstance = {
    node: node("gw", { address: "10.0.0.9", meta: { rack: "1" } }),
    service: service("mesh-gateway", {
      kind: "mesh-gateway",
      id: "gateway",
      address: "10.0.0.99",
      port: 8443,
      tags: ["secret-tag"],
      meta: { version: "1" },
      socketPath: "/sock",
      weights: { passing: 3, warning: 2 },
      enableTagOverride: true,
      taggedAddresses: {
        wan: { address: "203.0.113.9", port: 443 },
        "consul-virtual": { address: "240.0.0.1", port: 1 },
      },
      locality: { region: "r", zone: "z" },
      connect: { native: true },
    }),
    checks: [check("a", "warning"), check("b", "passing")],
  };
  const sent = only(sidecars("mysql", chain("tcp", { service: "failover" }, { service: "mysql" }), [gw]));
  assert.deepEqual(
    sent,
    create(CheckServiceNodeSchema, {
      Node: { Node: "gw", Address: "10.0.0.9", Datacenter: "dc1", Meta: { rack: "1" } },
      Service: {
        Kind: "connect-proxy",
        ID: "mysql-sidecar-proxy-instance-0",
        Service: "mysql-sidecar-proxy",
        Address: "10.0.0.99",
        Port: 8443,
        SocketPath: "/sock",
        Weights: { Passing: 3, Warning: 2 },
        TaggedAddresses: { wan: { Address: "203.0.113.9", Port: 443 } },
        Proxy: { DestinationServiceName: "mysql", DestinationServiceID: "mysql-instance-0" },
        Connect: {
          PeerMeta: {
            SNI: [`mysql.default.default.my-peering.external.${TRUST_DOMAIN}`],
            SpiffeID: [
              `spiffe://${TRUST_DOMAIN}/ns/default/dc/dc1/svc/mysql`,
              `spiffe://${TRUST_DOMAIN}/gateway/mesh/dc/dc1`,
              `spiffe://${TRUST_DOMAIN}/ns/default/dc/dc1/svc/failover`,
            ],
            Protocol: "tcp",
          },
        },
        EnterpriseMeta: {},
      },
      Checks: [
        {
          Node: "gw",
          CheckID: "mysql-sidecar-proxy-instance-0:overall-check",
          Name: "overall-check",
          Status: "warning",
          ServiceID: "mysql-sidecar-proxy-instance-0",
          ServiceName: "mysql-sidecar-proxy",
          EnterpriseMeta: {},
        },
      ],
    }),
  );
});

test("two gateways on one node are distinguished by place, with their own ports (ch4 case 35)", () => {
  const sent = sidecars("web", chain("tcp"), [gateway("a", "n", 1), gateway("b", "n", 2)]);
  assert.deepEqual(
    sent.map((one) => [one.Service?.ID, one.Service?.Proxy?.DestinationServiceID, one.Service?.Port]),
    [
      ["web-sidecar-proxy-instance-0", "web-instance-0", 1],
      ["web-sidecar-proxy-instance-1", "web-instance-1", 2],
    ],
  );
});

test("a gateway without a service id gives names without a place", () => {
  const sent = only(sidecars("web", chain("tcp"), [gateway("", "n")]));
  assert.equal(sent.Service?.ID, "web-sidecar-proxy");
  assert.equal(sent.Service?.Proxy?.DestinationServiceID, "web");
});

test("SPIFFE ids are own, gateway and further targets; a peer's has no datacenter (ch4 case 37, ch1 case 85)", () => {
  const ids = (info: ChainInfo): readonly string[] =>
    only(sidecars("web", info, [gateway("g", "n")])).Service?.Connect?.PeerMeta?.SpiffeID ?? [];
  const own = `spiffe://${TRUST_DOMAIN}/ns/default/dc/dc1/svc/web`;
  const mesh = `spiffe://${TRUST_DOMAIN}/gateway/mesh/dc/dc1`;
  assert.deepEqual(ids(chain("tcp", { service: "web" }, { service: "web", peer: "p", datacenter: "" })), [
    own,
    mesh,
    `spiffe://${TRUST_DOMAIN}/ns/default/dc//svc/web`,
  ]);
  assert.deepEqual(ids(chain("http")), [own, mesh]);
});

test("without gateways a synthetic is empty (ch1 case 86)", () => {
  assert.deepEqual(sidecars("web", chain("tcp"), []), []);
});

test("a gateway that no importer could take is refused", () => {
  assert.throws(() => sidecars("web", chain("tcp"), [gateway("g", "n", 2 ** 40)]), {
    code: "invalid-registration",
    message:
      'service "web-sidecar-proxy" is not sent: instance "g" on node "n": port 1099511627776 is not a 32-bit integer',
  });
});
