import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { JsonValue } from "@bufbuild/protobuf";
import { PeeringError } from "../../../src/base/errors.js";
import { MAX_JSON_DEPTH, type ServiceInstance } from "../../../src/model/instance.js";
import { parseRegistration } from "../../../src/model/registration.js";
import { encodeServicePayload, encodeSidecarPayload } from "../../../src/payload/exported-payload.js";
import { decodeNode, decodePayload, diffInstances } from "../../../src/payload/imported-payload.js";
import { inspectPayload } from "../../../src/payload/payload-inspection.js";
import { ProtobufWriter } from "../../../src/wire/protobuf.js";
import { check, instance, node, service } from "../config/export-fixtures.js";
import { payload, wireInstance } from "./import-fixtures.js";

function only(value: Uint8Array): ServiceInstance {
  const [first, ...rest] = decodePayload(value);
  assert.ok(first !== undefined && rest.length === 0);
  return first;
}

describe("decoding", () => {
  it("gives every field as it was registered, apart from those that are not imported", () => {
    const sent: ServiceInstance = {
      node: node("Node-1", {
        id: "11111111-2222-3333-4444-555555555555",
        taggedAddresses: { lan: "10.0.0.1", wan: "192.0.2.1" },
        meta: { os: "linux", __proto__: "kept" },
        locality: { region: "r", zone: "z" },
      }),
      service: service("web", {
        id: "web-1",
        tags: ["v1", "", "ü"],
        address: "10.0.0.2",
        port: -1,
        socketPath: "/run/web",
        taggedAddresses: { lan: { address: "10.0.0.3", port: 81 }, empty: { address: "", port: 0 } },
        meta: { version: "1", empty: "" },
        weights: { passing: 7, warning: 0 },
        enableTagOverride: true,
        locality: { region: "r", zone: "" },
      }),
      checks: [{ ...check("c", "warning"), node: "Node-1", serviceId: "web-1" }],
    };
    const received = only(encodeServicePayload("web", [sent]).value);
    const { locality: _, ...nodeKept } = sent.node;
    assert.deepEqual(received.node, nodeKept);
    assert.deepEqual(received.service, sent.service);
    assert.deepEqual(received.checks, [
      {
        node: "Node-1",
        checkId: "web-1:overall-check",
        name: "overall-check",
        status: "warning",
        notes: "",
        output: "",
        serviceId: "web-1",
        serviceName: "web",
        serviceTags: ["v1", "", "ü"],
        type: "",
        interval: "",
        timeout: "",
        exposedPort: 0,
        definition: {},
      },
    ]);
  });

  it("gives a synthetic sidecar its destination and how to reach it", () => {
    const { service: sidecar } = only(
      encodeSidecarPayload({
        name: "web",
        chain: { protocol: "tcp", tcpTargets: [] },
        gateways: [instance("gateway", { kind: "mesh-gateway", id: "gw" })],
        peerName: "beta",
        trustDomain: "x.consul",
        datacenter: "dc1",
      }).value,
    );
    assert.equal(sidecar.kind, "connect-proxy");
    assert.equal(sidecar.name, "web-sidecar-proxy");
    assert.equal(sidecar.proxy?.destinationServiceName, "web");
    assert.equal(sidecar.proxy?.destinationServiceId, "web-instance-0");
    assert.equal(sidecar.connect?.native, false);
    assert.equal(sidecar.connect?.peerMeta?.protocol, "tcp");
    assert.deepEqual(sidecar.connect?.peerMeta?.sni, ["web.default.default.beta.external.x.consul"]);
  });

  it("reads a proxy's configuration, whatever JSON it is", () => {
    const config = { a: [1, "two", null, true, { b: { c: -0.5 } }], d: {}, e: [] };
    const { service: proxy } = only(
      payload({
        ...wireInstance("web"),
        Service: {
          ...wireInstance("web").Service,
          Proxy: { LocalServicePort: 90, Mode: "transparent", MeshGateway: { Mode: "local" }, Config: config },
          Connect: { Native: true },
        },
      }),
    );
    assert.deepEqual(proxy.proxy?.config, config);
    assert.equal(proxy.proxy?.localServicePort, 90);
    assert.equal(proxy.proxy?.mode, "transparent");
    assert.equal(proxy.proxy?.meshGatewayMode, "local");
    assert.deepEqual(proxy.connect, { native: true });
  });

  for (const [of, around] of [
    ["objects", (value: JsonValue): JsonValue => ({ a: value })],
    ["lists", (value: JsonValue): JsonValue => [value]],
  ] as const) {
    it(`reads a configuration that nests as deeply as one that is registered here may, and none that nests deeper: ${of}`, () => {
      const configured = (depth: number): Uint8Array => {
        let value: JsonValue = "deep";
        for (let level = 1; level < depth; level++) value = around(value);
        const { Service: given, ...rest } = wireInstance("web");
        return payload({ ...rest, Service: { ...given, Proxy: { Config: { x: value } } } });
      };
      const deepest = configured(MAX_JSON_DEPTH);
      assert.equal(inspectPayload(deepest, "web").instances, 1);
      const { config } = only(deepest).service.proxy ?? {};
      const proxy = { destinationServiceName: "db", config };
      const registered = {
        node: "n",
        address: "192.0.2.1",
        service: { name: "web", kind: "connect-proxy", port: 1, proxy },
      };
      assert.deepEqual(parseRegistration(registered, "dc1").service?.proxy?.config, config);
      const refused = /nested too deeply \(limit: 64 levels\)/;
      assert.throws(() => inspectPayload(configured(MAX_JSON_DEPTH + 1), "web"), refused);
      assert.throws(() => decodePayload(configured(MAX_JSON_DEPTH + 1)), refused);
    });
  }

  it("refuses a configuration nested without end instead of running out of stack", () => {
    let value = new ProtobufWriter().tag(3, 2).string("deep").finish();
    for (let depth = 0; depth < 5000; depth++) {
      const list = new ProtobufWriter().tag(1, 2).bytes(value).finish();
      value = new ProtobufWriter().tag(6, 2).bytes(list).finish();
    }
    const entry = new ProtobufWriter().tag(1, 2).string("x").tag(2, 2).bytes(value).finish();
    const struct = new ProtobufWriter().tag(1, 2).bytes(entry).finish();
    const proxy = new ProtobufWriter().tag(5, 2).bytes(struct).finish();
    const serviceBytes = new ProtobufWriter().tag(11, 2).bytes(proxy).finish();
    const instanceBytes = new ProtobufWriter().tag(2, 2).bytes(serviceBytes).finish();
    const bytes = new ProtobufWriter().tag(1, 2).bytes(instanceBytes).finish();
    assert.throws(
      () => decodePayload(bytes),
      (error) => error instanceof PeeringError && error.code === "invalid-message",
    );
  });

  it("takes absent, empty and default for the same", () => {
    const bare = wireInstance("web");
    const { Weights: _, ...unweighted } = { ...bare.Service };
    const full = { ...bare, Service: { ...bare.Service, Proxy: {}, Connect: {}, Locality: {} } };
    const expected = decodePayload(payload(bare));
    assert.deepEqual(decodePayload(payload({ ...bare, Service: unweighted })), expected);
    assert.deepEqual(decodePayload(payload(full)), expected);
    assert.equal(expected[0]?.service.proxy, undefined);
    assert.deepEqual(expected[0]?.service.weights, { passing: 1, warning: 1 });
  });

  it("of instances that appear twice the first counts, of checks the last", () => {
    const decoded = decodePayload(
      payload(
        wireInstance("web", { id: "a", port: 1, status: "passing", nodeChecks: { disk: "passing" } }),
        wireInstance("web", { node: "N1", id: "A", port: 2, status: "critical", nodeChecks: { disk: "warning" } }),
      ),
    );
    assert.equal(decoded.length, 1);
    assert.equal(decoded[0]?.node.name, "n1");
    assert.equal(decoded[0]?.service.port, 1);
    assert.deepEqual(
      decoded[0]?.checks.map(({ checkId, status }) => [checkId, status]),
      [
        ["disk", "warning"],
        ["A:overall-check", "critical"],
      ],
    );
  });

  it("a check without status is critical", () => {
    const { checks } = only(payload(wireInstance("web", { status: "" })));
    assert.equal(checks[0]?.status, "critical");
  });

  it("a node from another source replaces the node and its checks", () => {
    const record = payloadNode();
    const known = decodeNode({ record, checks: [] });
    const [decoded] = decodePayload(
      payload(wireInstance("web", { address: "old", status: "passing", nodeChecks: { disk: "passing" } })),
      (name) => (name === "n1" ? known : undefined),
    );
    assert.equal(decoded?.node.address, "new");
    assert.deepEqual(
      decoded?.checks.map(({ checkId }) => checkId),
      ["web-1:overall-check"],
    );
  });
});

function payloadNode(): Uint8Array {
  return new ProtobufWriter().tag(2, 2).string("n1").tag(3, 2).string("new").finish();
}

describe("differences", () => {
  const before = decodePayload(
    payload(
      wireInstance("web", { id: "a", status: "passing", nodeChecks: { disk: "passing" } }),
      wireInstance("web", { id: "b", status: "passing" }),
    ),
  );
  const ids = (instances: readonly ServiceInstance[]): readonly string[] => instances.map(({ service }) => service.id);

  it("an instance with a new id on the same node replaces the old one (ch4 case 49)", () => {
    const after = decodePayload(payload(wireInstance("web", { id: "c", status: "passing" })));
    const { added, changed, removed } = diffInstances(before, after);
    assert.deepEqual([ids(added), ids(changed), ids(removed)], [["c"], [], ["a", "b"]]);
  });

  it("spelling of names, order of checks and what Consul does not compare are no difference (ch4 case 58)", () => {
    const [a, b] = before;
    assert.ok(a !== undefined && b !== undefined);
    const respelled: ServiceInstance[] = [
      b,
      {
        node: { ...a.node, name: "N1" },
        service: a.service,
        checks: a.checks.map((each) => ({ ...each, node: "N1", interval: "9s", timeout: "9s", type: "x" })).reverse(),
      },
    ];
    assert.deepEqual(diffInstances(before, respelled), { added: [], changed: [], removed: [] });
  });

  it("any field that counts is a change", () => {
    const [a] = before;
    assert.ok(a !== undefined);
    const changes: ServiceInstance[] = [
      { ...a, node: { ...a.node, meta: { a: "" } } },
      { ...a, node: { ...a.node, address: "" } },
      { ...a, service: { ...a.service, tags: ["x"] } },
      { ...a, service: { ...a.service, weights: { passing: 2, warning: 1 } } },
      { ...a, service: { ...a.service, taggedAddresses: { lan: { address: "", port: 0 } } } },
      { ...a, checks: a.checks.slice(1) },
      { ...a, checks: a.checks.map((each) => ({ ...each, status: "critical" })) },
      { ...a, checks: a.checks.map((each) => ({ ...each, output: "x" })) },
    ];
    for (const changed of changes) assert.deepEqual(diffInstances([a], [changed]).changed, [changed]);
  });
});
