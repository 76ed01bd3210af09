import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import type { JsonObject } from "../../../src/model/instance.js";
import {
  metaProblem,
  parseDeregistration,
  parseRegistration,
  parseTransaction,
  TransactionError,
} from "../../../src/model/registration.js";

const node = { node: "n1", address: "10.0.0.1" };

function refusal(input: unknown): string {
  try {
    parseRegistration(input, "dc1");
  } catch (error) {
    assert.ok(error instanceof PeeringError, String(error));
    assert.equal(error.code, "invalid-registration");
    return error.message;
  }
  return assert.fail("nothing was refused");
}

describe("registration", () => {
  it("a PeerName anywhere is refused (ch4 case 1)", () => {
    const text = "cannot register requests with PeerName in them";
    assert.equal(refusal({ ...node, peerName: "p" }), text);
    assert.equal(refusal({ ...node, service: { name: "web", peerName: "p" } }), text);
    assert.equal(refusal({ ...node, check: { name: "alive", peerName: "p" } }), text);
    assert.equal(refusal({ ...node, checks: [{ name: "alive" }, { name: "ready", peerName: "p" }] }), text);
    assert.throws(
      () => parseTransaction([{ type: "node", verb: "set", node: { name: "n1", peerName: "p" } }], "dc1"),
      (error) => error instanceof TransactionError && error.errors[0]?.what === text,
    );
    assert.throws(() => parseDeregistration({ node: "n1", peerName: "p" }, "dc1"), { message: text });
    assert.equal(refusal({ peerName: "p" }), text, "it comes before every other rule");
    assert.equal(parseRegistration({ ...node, peerName: "" }, "dc1").node.name, "n1");
  });

  it("asks for node and address, in that order", () => {
    assert.equal(refusal({}), "Must provide node");
    assert.equal(refusal({ node: "n1" }), "Must provide address if SkipNodeUpdate is not set");
    assert.equal(parseRegistration({ node: "n1", skipNodeUpdate: true }, "dc1").node.address, "");
    assert.throws(() => parseDeregistration({ serviceId: "web" }, "dc1"), { message: "Must provide node" });
  });

  it("refuses an invalid UUID, with the parser's reason", () => {
    const id = "40e4a748-2192-161a-0510-9bf59fe950b5";
    assert.equal(parseRegistration({ ...node, id }, "dc1").node.id, id);
    assert.equal(refusal({ ...node, id: "x" }), "Bad node ID: uuid string is wrong length");
    assert.equal(refusal({ ...node, id: id.replace("-", "0") }), "Bad node ID: uuid is improperly formatted");
    assert.equal(refusal({ ...node, id: id.replace("e", "z") }), "Bad node ID: encoding/hex: invalid byte: U+007A 'z'");
  });

  it("refuses another datacenter", () => {
    assert.equal(parseRegistration({ ...node, datacenter: "dc1" }, "dc1").node.datacenter, "dc1");
    for (const datacenter of ["dc2", "DC1"]) assert.equal(refusal({ ...node, datacenter }), "No path to datacenter");
  });

  it("asks for a service name and a usable address", () => {
    const service = (value: object): string => refusal({ ...node, service: value });
    assert.equal(service({}), "Must provide service name (Service.Service)");
    assert.equal(service({ id: "w" }), "Must provide service name (Service.Service) when service ID is provided");
    for (const address of ["0.0.0.0", "::", "[::]"]) {
      assert.equal(service({ name: "web", address }), "Invalid service address");
    }
    assert.equal(service({ name: "web", kind: "sidecar" }), 'Invalid service kind "sidecar"');
  });

  it("a proxy without port and destination has two errors (ch4 case 8)", () => {
    assert.equal(
      refusal({ ...node, service: { name: "web-proxy", kind: "connect-proxy" } }),
      "2 errors occurred:\n" +
        "\t* Port or SocketPath must be set for a connect-proxy\n" +
        "\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services\n\n",
    );
  });

  it("has rules for each kind", () => {
    const one = (service: object): string => {
      const message = refusal({ ...node, service: { name: "x", ...service } });
      const match = /^1 error occurred:\n\t\* (.*)\n\n$/.exec(message);
      return match?.[1] ?? assert.fail(message);
    };
    const proxy = { destinationServiceName: "web" };
    assert.equal(
      one({ kind: "connect-proxy", port: 1, proxy: { destinationServiceName: "*" } }),
      "Proxy.DestinationServiceName must not be a wildcard for Connect proxy services",
    );
    assert.equal(
      one({ kind: "connect-proxy", port: 1, proxy, connect: { native: true } }),
      "A Proxy cannot also be Connect Native, only typical services",
    );
    assert.equal(
      one({
        kind: "connect-proxy",
        port: 1,
        proxy: { ...proxy, upstreams: [{ destinationPeer: "p", destinationPartition: "other" }] },
      }),
      "upstreams must target peers in the same partition as the service",
    );
    for (const kind of ["mesh-gateway", "terminating-gateway"]) {
      assert.equal(one({ kind }), `Port must be non-zero for a ${kind}`);
    }
    for (const kind of ["mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway"]) {
      assert.equal(
        one({ kind, port: 1, connect: { sidecarService: {} } }),
        `A ${kind} cannot have a sidecar service defined`,
      );
      const fields: readonly (readonly [string, object])[] = [
        ["DestinationServiceName", { destinationServiceName: "web" }],
        ["DestinationServiceID", { destinationServiceId: "web" }],
        ["LocalServiceAddress", { localServiceAddress: "10.0.0.1" }],
        ["LocalServicePort", { localServicePort: 1 }],
        ["LocalServiceSocketPath", { localServiceSocketPath: "/s" }],
        ["Upstreams", { upstreams: [{}] }],
      ];
      for (const [field, value] of fields) {
        assert.equal(one({ kind, port: 1, proxy: value }), `The Proxy.${field} configuration is invalid for a ${kind}`);
      }
    }
    assert.equal(one({ connect: { native: true } }), "Port or SocketPath must be set for a Connect native service.");
    for (const kind of ["ingress-gateway", "api-gateway", "destination"]) {
      assert.equal(parseRegistration({ ...node, service: { name: "x", kind } }, "dc1").service?.kind, kind);
    }
  });

  it("takes any whole number for a port, as Consul does, and refuses others", () => {
    const port = (value: unknown): string => refusal({ ...node, service: { name: "web", port: value } });
    const rule = "service.port must be a whole number, not";
    for (const value of [-1, 65_536, 2 ** 31, -(2 ** 31) - 1]) {
      const service = { name: "web", port: value, taggedAddresses: { lan: { address: "a", port: value } } };
      const parsed = parseRegistration({ ...node, service, check: { name: "c", exposedPort: value } }, "dc1");
      assert.equal(parsed.service?.port, value);
      assert.equal(parsed.service.taggedAddresses["lan"]?.port, value);
      assert.equal(parsed.checks[0]?.exposedPort, value);
    }
    assert.equal(port(1.5), `${rule} 1.5`);
    assert.equal(port(2 ** 53), `${rule} ${2 ** 53}`);
    assert.equal(port(Number.NaN), `${rule} NaN`);
    assert.equal(port("80"), `${rule} a string`);
    assert.match(
      refusal({ ...node, service: { name: "web", taggedAddresses: { lan: { address: "a", port: 0.1 } } } }),
      /^service\.taggedAddresses\.port must be/,
    );
    assert.match(refusal({ ...node, check: { name: "c", exposedPort: 0.5 } }), /^check\.exposedPort must be/);
  });

  it("replaces weights that are missing or invalid by 1 and 1", () => {
    const weights = (value: unknown): unknown =>
      parseRegistration({ ...node, service: { name: "web", weights: value } }, "dc1").service?.weights;
    for (const value of [undefined, { passing: 0, warning: 1 }, { passing: 65_536, warning: 1 }, { warning: 1 }]) {
      assert.deepEqual(weights(value), { passing: 1, warning: 1 });
    }
    assert.deepEqual(weights({ passing: 5, warning: 0 }), { passing: 5, warning: 0 });
  });

  it("appends the single check, fills in node and id, refuses another node", () => {
    const { checks } = parseRegistration(
      { ...node, check: { name: "b" }, checks: [{ checkId: "a", node: "N1" }] },
      "dc1",
    );
    assert.deepEqual(
      checks.map((check) => [check.node, check.checkId, check.name, check.status]),
      [
        ["N1", "a", "", "critical"],
        ["n1", "b", "b", "critical"],
      ],
    );
    assert.equal(
      refusal({ ...node, check: { node: "n2", checkId: "c" } }),
      "Node 'n2' for check 'c' doesn't match register request node 'n1'",
    );
  });

  it("names fields that do not exist", () => {
    assert.equal(refusal({ ...node, meta: {} }), 'registration has an unknown field "meta"');
    assert.equal(refusal({ ...node, service: { name: "web", Port: 1 } }), 'service has an unknown field "Port"');
  });

  it("keeps no object of the caller, and `__proto__` is a key like any other", () => {
    const meta: unknown = JSON.parse('{"__proto__":"x","a":"b"}');
    const tags = ["v1"];
    const { node: parsed, service } = parseRegistration(
      { ...node, nodeMeta: meta, service: { name: "web", tags } },
      "dc1",
    );
    tags.push("v2");
    assert.deepEqual(service?.tags, ["v1"]);
    assert.deepEqual(Object.keys(parsed.meta), ["__proto__", "a"]);
    assert.ok(Object.isFrozen(parsed) && Object.isFrozen(service));
  });

  it("answers any value with a registration or with `invalid-registration`", () => {
    const odd = fc.oneof(fc.anything(), fc.constant(null), fc.string(), fc.constantFrom("n1", "web", 80, [], {}));
    const record = (...keys: readonly string[]): fc.Arbitrary<unknown> =>
      fc.record(Object.fromEntries(keys.map((key) => [key, odd])), { requiredKeys: [] });
    const service = record(
      "kind",
      "id",
      "name",
      "tags",
      "address",
      "port",
      "taggedAddresses",
      "meta",
      "weights",
      "proxy",
      "connect",
      "locality",
    );
    const check = record("node", "checkId", "name", "status", "serviceId", "serviceTags", "definition", "exposedPort");
    const input = fc.record(
      {
        node: fc.oneof(fc.constant("n1"), odd),
        address: fc.oneof(fc.constant("a"), odd),
        id: odd,
        nodeMeta: odd,
        service: fc.oneof(service, odd),
        check: fc.oneof(check, odd),
        checks: fc.oneof(fc.array(check), odd),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.oneof(input, fc.anything()), (value) => {
        try {
          parseRegistration(value, "dc1");
        } catch (error) {
          assert.ok(error instanceof PeeringError, String(error));
          assert.equal(error.code, "invalid-registration");
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("service metadata", () => {
  const pair = (key: string, value: string, kind = ""): string | undefined => metaProblem({ [key]: value }, kind);

  it("follows Consul's rules of metadata", () => {
    const loading = (key: string, value: string): string => `Couldn't load metadata pair ('${key}', '${value}'): `;
    assert.equal(pair("", "v"), `${loading("", "v")}Key cannot be blank`);
    assert.equal(pair("a b", "v"), `${loading("a b", "v")}Key contains invalid characters`);
    const long = "k".repeat(129);
    assert.equal(pair(long, "v"), `${loading(long, "v")}Key is too long (limit: 128 characters)`);
    assert.equal(pair("consul-x", "1"), `${loading("consul-x", "1")}Key prefix 'consul-' is reserved for internal use`);
    const value = "é".repeat(257);
    assert.equal(pair("k", value), `${loading("k", value)}Value is too long (limit: 512 characters)`);
    assert.equal(pair("k".repeat(128), "é".repeat(256)), undefined);
    assert.equal(pair("consul-wan-federation", "1", "mesh-gateway"), undefined);
    const pairs = (count: number): Record<string, string> =>
      Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, "v"]));
    assert.equal(metaProblem(pairs(65), ""), "Node metadata cannot contain more than 64 key/value pairs");
    assert.equal(metaProblem(pairs(64), ""), undefined);
  });
});

describe("transaction", () => {
  it("holds at most 128 operations", () => {
    const operations = Array.from({ length: 129 }, () => ({ type: "node", verb: "get", node: { name: "n1" } }));
    assert.throws(() => parseTransaction(operations, "dc1"), {
      message: "Transaction contains too many operations (129 > 128)",
    });
    assert.equal(parseTransaction(operations.slice(1), "dc1").length, 128);
  });

  it("names every operation that is invalid", () => {
    const operations = [
      { type: "node", verb: "fly", node: { name: "n1" } },
      { type: "node", verb: "set", node: { name: "n1", address: "10.0.0.1" } },
      { type: "service", verb: "delete", node: "n1", service: { id: "web", name: "" } },
      { type: "check", verb: "set", check: { name: "c" } },
    ];
    assert.throws(
      () => parseTransaction(operations, "dc1"),
      (error) => {
        assert.ok(error instanceof TransactionError);
        assert.deepEqual(error.errors, [
          { operationIndex: 0, what: "unknown node operation: fly" },
          { operationIndex: 2, what: "Must provide service name (Service.Service) when service ID is provided" },
        ]);
        return true;
      },
    );
  });
});

describe("a check that does not say its type", () => {
  // The records that Consul 1.21.4 made of each.
  const types: readonly (readonly [definition: JsonObject, type: string])[] = [
    [{}, ""],
    [{ HTTP: "http://x", Interval: "10s" }, "http"],
    [{ HTTP: "http://x", Interval: 10_000_000_000 }, "http"],
    [{ HTTP: "http://x" }, ""],
    [{ TCP: "a:1", Interval: "5s" }, "tcp"],
    [{ TCP: "a:1", Interval: "0s" }, ""],
    [{ GRPC: "a:1", HTTP: "http://x", Interval: "5s" }, "grpc"],
    [{ TTL: "10s" }, "ttl"],
    [{ AliasService: "web" }, "alias"],
    [{ UDP: "a:1", Interval: "5s" }, "udp"],
  ];
  for (const [definition, type] of types) {
    it(`is of type ${JSON.stringify(type)} with ${JSON.stringify(definition)}`, () => {
      const input = { node: "n1", address: "10.0.0.1", check: { checkId: "c", name: "c", definition } };
      assert.equal(parseRegistration(input, "dc1").checks[0]?.type, type);
      const said = { ...input, check: { ...input.check, type: "mine" } };
      assert.equal(parseRegistration(said, "dc1").checks[0]?.type, "mine");
    });
  }
});
