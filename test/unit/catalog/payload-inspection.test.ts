import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PayloadEncoder, payloadDigest } from "../../../src/catalog/exported-payload.js";
import { decodePayload } from "../../../src/catalog/imported-payload.js";
import { lowerCase } from "../../../src/catalog/names.js";
import { canonicalPayload, inspectPayload, serviceKeys } from "../../../src/catalog/payload-inspection.js";
import { PeeringError } from "../../../src/errors.js";
import { decodeMessage } from "../../../src/wire/codec.js";
import { ResourceUrl } from "../../../src/wire/messages.js";
import { ProtobufWriter } from "../../../src/wire/protobuf.js";
import { readGolden } from "../../golden/read.js";
import { instance, node } from "./export-fixtures.js";
import { payload, type WireInstance, wireInstance } from "./import-fixtures.js";

function refusalOf(value: Uint8Array, resourceId: string): PeeringError {
  try {
    inspectPayload(value, resourceId, { instancesPerService: 3, checksPerInstance: 2 });
  } catch (error) {
    assert.ok(error instanceof PeeringError, String(error));
    assert.equal(error.status, 13);
    return error;
  }
  return assert.fail("not refused");
}

const web = wireInstance("web", { status: "passing" });
const prefix = 'did not increment imported services count for service="web": failed to ';

describe("ch4 case 55, ch1 case 110: what cannot be stored is refused", () => {
  const cases: readonly [name: string, instances: readonly WireInstance[], why: string][] = [
    ["no node", [{ Service: { ...web.Service } }], "instance 1: it has no node"],
    ["no node name", [web, { ...web, Node: { Address: "10.0.0.1" } }], "instance 2: its node has no name"],
    ["no service", [{ Node: { Node: "n1" } }], "instance 1: it has no service"],
    ["no service id", [{ ...web, Service: { Service: "web" } }], "instance 1: its service has no id"],
    ["no service name", [{ ...web, Service: { ID: "web-1" } }], "instance 1: its service has no name"],
    ["no check id", [{ ...web, Checks: [{ Node: "n1", Status: "passing" }] }], "instance 1: a check has no id"],
    ["another name", [wireInstance("api")], 'the service of its instances is named "api"'],
    ["two names", [web, wireInstance("api")], 'instance 2: its service is named "api", that of others "web"'],
  ];
  for (const [name, instances, why] of cases) {
    it(name, () => {
      const error = refusalOf(payload(...instances), "web");
      assert.equal(error.code, "invalid-message");
      assert.equal(error.message, `${prefix}read payload: ${why}`);
    });
  }

  it("a name that differs in case alone is good", () => {
    assert.equal(inspectPayload(payload(wireInstance("web")), "Web").service, "web");
  });

  it("beyond a limit", () => {
    const many = payload(...["a", "b", "c", "d"].map((id) => wireInstance("web", { id })));
    assert.equal(refusalOf(many, "web").code, "resource-exhausted");
    assert.equal(refusalOf(many, "web").message, `${prefix}read payload: more than 3 instances`);
    const checks = payload(wireInstance("web", { nodeChecks: { a: "passing", b: "passing", c: "passing" } }));
    assert.equal(refusalOf(checks, "web").code, "resource-exhausted");
    assert.equal(refusalOf(checks, "web").message, `${prefix}read payload: instance 1: more than 2 checks`);
  });
});

describe("effort", () => {
  it("is that of the bytes, however often a node and its checks are repeated", () => {
    const one = payload(wireInstance("web", { nodeChecks: { disk: "passing" } }));
    const summary = inspectPayload(Buffer.concat(Array.from({ length: 40_000 }, () => one)), "web");
    assert.equal(summary.instances, 1);
    assert.equal(summary.nodes[0]?.checks.length, 1);
    const checks = Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`${index}`, "passing"]));
    const many = wireInstance("web", { nodeChecks: checks });
    assert.equal(inspectPayload(payload(many), "web").nodes[0]?.checks.length, 1000);
    const more = wireInstance("web", { nodeChecks: { another: "passing" } });
    assert.throws(() => inspectPayload(payload(many, more), "web"), /more than 1000 checks of its node/);
  });
});

describe("ch4 case 44: bad bytes", () => {
  const good = payload(
    web,
    wireInstance("web", { node: "nöde", id: "web-2", nodeChecks: { "disk-ü": "warning" }, status: "critical" }),
  );

  it("text that is no UTF-8, in any field", () => {
    const texts = ["n1", "10.0.0.1", "dc1", "web-1", "web", "passing", "overall-check", "web-1:overall-check"];
    for (const text of texts) {
      const bytes = Buffer.from(payload(web));
      const at = bytes.indexOf(text);
      assert.ok(at > 0, text);
      bytes[at] = 0xff;
      const error = refusalOf(bytes, "web");
      assert.equal(error.message, "failed to unmarshal resource: string field contains invalid UTF-8");
    }
  });

  it("malformed bytes count before any other reason", () => {
    const unnamed = payload({ ...web, Node: { Address: "x" } });
    assert.match(refusalOf(Buffer.concat([unnamed, Buffer.of(0x0a, 0x7f)]), "web").message, /^failed to unmarshal/);
    assert.match(refusalOf(Buffer.of(0x00), "web").message, /^failed to unmarshal resource: invalid field number$/);
  });

  it("cut short anywhere, it is refused or a good payload by itself", () => {
    for (let length = 0; length < good.length; length++) {
      try {
        decodePayload(good.subarray(0, length));
        inspectPayload(good.subarray(0, length), "web");
      } catch (error) {
        assert.ok(error instanceof PeeringError, String(error));
      }
    }
  });

  it("whatever is changed in it, it is refused, or can be decoded and put in order", () => {
    const change = fc.record({ at: fc.nat(good.length - 1), byte: fc.nat(255), remove: fc.nat(3) });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = [...good];
        for (const { at, byte, remove } of changes) bytes.splice(at, remove, byte);
        const value = Uint8Array.from(bytes);
        let summary: ReturnType<typeof inspectPayload>;
        try {
          summary = inspectPayload(value, "web");
        } catch (error) {
          assert.ok(error instanceof PeeringError, String(error));
          return;
        }
        assert.equal(decodePayload(value).length, summary.instances);
        assert.equal(decodePayload(canonicalPayload(value)).length, summary.instances);
      }),
      { numRuns: 2000 },
    );
  });

  it("unknown fields and groups are passed over", () => {
    const unknown = Uint8Array.from(
      new ProtobufWriter()
        .tag(99, 2)
        .string("later")
        .tag(98, 0)
        .uint64(2n ** 60n)
        .tag(97, 5)
        .raw(Buffer.alloc(4))
        .finish(),
    );
    const group = Buffer.of(0x83, 0x06, 0x08, 0x01, 0x84, 0x06);
    const value = Buffer.concat([unknown, good, group, unknown]);
    assert.equal(inspectPayload(value, "web").instances, 2);
    assert.equal(decodePayload(value).length, 2);
  });
});

describe("what is known of a payload", () => {
  it("ch1 case 107: each node once by its lower-cased name, each instance once by node and id", () => {
    const value = payload(
      wireInstance("web", { node: "N1", id: "a" }),
      wireInstance("web", { node: "n1", id: "A" }),
      wireInstance("web", { node: "n1", id: "b" }),
      wireInstance("web", { node: "n2", id: "a" }),
    );
    const { instances, nodes } = inspectPayload(value, "web");
    assert.equal(instances, 3);
    assert.deepEqual(
      nodes.map(({ name }) => name),
      ["n1", "n2"],
    );
    assert.equal(decodePayload(value).length, 3);
  });

  it("counts what decoding yields, and places nodes where they are", () => {
    const one = fc.record({
      node: fc.constantFrom("n1", "N1", "n2", "ñ3", "Ñ3"),
      id: fc.constantFrom("a", "A", "b", "ü", "Ü"),
      check: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 8 }), (instances) => {
        const value = payload(
          ...instances.map(({ node, id, check }) =>
            wireInstance("web", { node, id, nodeChecks: check ? { disk: "passing" } : {} }),
          ),
        );
        const summary = inspectPayload(value, "web");
        assert.equal(summary.instances, decodePayload(value).length);
        assert.deepEqual(
          summary.nodes.map(({ name }) => name),
          [...new Set(instances.map(({ node }) => lowerCase(node)))],
        );
        for (const { name, start, end, checks } of summary.nodes) {
          const spelled = instances.filter(({ node }) => lowerCase(node) === name);
          assert.ok(Buffer.from(value.subarray(start, end)).includes(spelled[0]?.node ?? "none"));
          assert.equal(checks.length, spelled.some(({ check }) => check) ? 1 : 0);
        }
      }),
    );
  });

  it("tells for which services of the mesh its instances speak", () => {
    const proxyFor = (id: string, destination: string): WireInstance => {
      const instance = wireInstance("x-proxy", { id });
      return {
        ...instance,
        Service: { ...instance.Service, Kind: "connect-proxy", Proxy: { DestinationServiceName: destination } },
      };
    };
    const native = wireInstance("Web");
    const mesh = (name: string, ...instances: readonly WireInstance[]): readonly string[] =>
      inspectPayload(payload(...instances), name).mesh;
    assert.deepEqual(mesh("web", wireInstance("web")), []);
    assert.deepEqual(mesh("x-proxy", proxyFor("1", "X"), proxyFor("2", "y"), proxyFor("3", "x"), proxyFor("4", "")), [
      "x",
      "y",
    ]);
    assert.deepEqual(
      mesh("Web", native, { ...native, Service: { ...native.Service, ID: "2", Connect: { Native: true } } }),
      ["web"],
    );
  });

  it("without instances it is named as the resource", () => {
    assert.deepEqual(inspectPayload(new Uint8Array(), "Web"), {
      service: "Web",
      instances: 0,
      nodes: [],
      sorted: true,
      mesh: [],
    });
  });

  it("a resource id with partition and namespace names the service by its last part, if its instances do", () => {
    assert.deepEqual(serviceKeys("Part/NS/Web"), ["part/ns/web", "web"]);
    for (const id of ["web", "a/web", "a/b/c/web", "a/b/"]) assert.deepEqual(serviceKeys(id), [id]);
    assert.equal(inspectPayload(payload(web), "part/ns/Web").service, "web");
    assert.equal(inspectPayload(payload(wireInstance("part/ns/web")), "part/ns/web").service, "part/ns/web");
    assert.match(refusalOf(payload(web), "ns/web").message, /is named "web"/);
  });
});

describe("the order of maps", () => {
  const maps = fc.dictionary(fc.string({ minLength: 1, maxLength: 3 }), fc.string({ maxLength: 3 }), { maxKeys: 5 });
  const shuffled = (map: Record<string, string>, seed: number): Record<string, string> =>
    Object.fromEntries(
      Object.entries(map)
        .map((entry, index) => ({ entry, rank: (index * 7 + seed) % 5 }))
        .sort((left, right) => left.rank - right.rank)
        .map(({ entry }) => entry),
    );

  it("does not matter to the digest of the canonical payload; anything else does", () => {
    fc.assert(
      fc.property(maps, maps, maps, fc.nat(4), (tagged, meta, serviceMeta, seed) => {
        const build = (order: number, port = 80): Uint8Array =>
          payload({
            Node: { Node: "n1", TaggedAddresses: shuffled(tagged, order), Meta: shuffled(meta, order + 1) },
            Service: {
              ID: "web-1",
              Service: "web",
              Port: port,
              Meta: shuffled(serviceMeta, order),
              TaggedAddresses: Object.fromEntries(
                Object.entries(shuffled(tagged, order + 2)).map(([key, value]) => [key, { Address: value, Port: 1 }]),
              ),
            },
          });
        const digest = (value: Uint8Array): string => {
          const canonical = canonicalPayload(value);
          if (inspectPayload(value, "web").sorted) assert.deepEqual(Buffer.from(canonical), Buffer.from(value));
          assert.deepEqual(decodePayload(canonical), decodePayload(value));
          assert.ok(inspectPayload(canonical, "web").sorted);
          return payloadDigest(canonical);
        };
        assert.equal(digest(build(0)), digest(build(seed)));
        assert.notEqual(digest(build(0)), digest(build(seed, 81)));
      }),
    );
  });

  it("is the canonical one in what our exporter sends", () => {
    const meta = { b: "1", a: "2", ä: "3", "10": "4", "9": "5", "a-longer-key": "6" };
    const exported = new PayloadEncoder().service("web", [
      {
        ...instance("web", { meta: { b: "1", a: "2", "10": "3", "9": "4" } }),
        node: node("n1", { meta, taggedAddresses: meta }),
      },
    ]);
    assert.ok(inspectPayload(exported.value, "web").sorted);
  });
});

describe("payloads of running Consul servers", () => {
  for (const version of ["1.13.8", "1.15.4", "1.18.2", "1.21.4", "1.22.0-dev"]) {
    it(`${version}: each is good, and decodes to as many instances as were counted`, () => {
      let seen = 0;
      for (const line of readGolden(`frames/${version}.jsonl`).trimEnd().split("\n")) {
        const { from, message, raw }: { from: string; message?: string; raw: string } = JSON.parse(line);
        if (from !== "consul" || message !== undefined) continue;
        const frame = decodeMessage(new Uint8Array(Buffer.from(raw, "base64")));
        if (frame.type !== "response" || frame.resourceUrl !== ResourceUrl.exportedService) continue;
        if (frame.resource === undefined) continue;
        seen++;
        const { instances } = inspectPayload(frame.resource.value, frame.resourceId);
        assert.equal(decodePayload(frame.resource.value).length, instances);
      }
      assert.ok(seen > 50);
    });
  }
});
