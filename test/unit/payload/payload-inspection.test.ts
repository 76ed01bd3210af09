import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { PayloadEncoder, payloadDigest } from "../../../src/payload/exported-payload.js";
import { decodePayload } from "../../../src/payload/imported-payload.js";
import {
  canonicalPayload,
  defaultPayloadLimits,
  inspectionSteps,
  inspectPayload,
  type PayloadLimits,
  serviceKeys,
} from "../../../src/payload/payload-inspection.js";
import { lowerCase } from "../../../src/syntax/names.js";
import { decodeMessage } from "../../../src/wire/codec.js";
import { ResourceUrl } from "../../../src/wire/messages.js";
import { ProtobufWriter } from "../../../src/wire/protobuf.js";
import { readGolden } from "../../golden/read.js";
import { instance, node } from "../config/export-fixtures.js";
import { payload, type WireInstance, wireInstance } from "./import-fixtures.js";

function refusalOf(
  value: Uint8Array,
  resourceId: string,
  limits: Partial<PayloadLimits> = { instancesPerService: 3, checksPerInstance: 2 },
): PeeringError {
  try {
    inspectPayload(value, resourceId, { ...defaultPayloadLimits, ...limits });
  } catch (error) {
    assert.ok(error instanceof PeeringError, String(error));
    assert.equal(error.status, 13);
    return error;
  }
  return assert.fail("not refused");
}

const web = wireInstance("web", { status: "passing" });
const prefix = 'did not increment imported services count for service="web": failed to ';

describe("what cannot be stored is refused (ch4 case 55, ch1 case 110)", () => {
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

describe("limits on payloads that are cheap to send and expensive to hold", () => {
  const text = (field: number, content: string): Buffer => message(field, Buffer.from(content));
  const message = (field: number, ...content: readonly Uint8Array[]): Buffer =>
    Buffer.from(new ProtobufWriter().tag(field, 2).bytes(Buffer.concat(content)).finish());
  const times = (count: number, one: Uint8Array): Buffer => Buffer.concat(Array.from({ length: count }, () => one));
  /** One instance with more in its node, in its service and beside them. */
  const one = (parts: {
    node?: Uint8Array;
    service?: Uint8Array;
    beside?: Uint8Array;
    name?: string;
    id?: string;
  }): Buffer => {
    const { node = Buffer.of(), service = Buffer.of(), beside = Buffer.of(), name = "n1", id = "web-1" } = parts;
    return message(1, message(1, text(2, name), node), message(2, text(2, id), text(3, "web"), service), beside);
  };
  const check = (id: string, serviceId = ""): Buffer => message(3, text(2, id), text(7, serviceId));
  const many = <Item>(count: number, make: (index: number) => Item): Item[] =>
    Array.from({ length: count }, (_, at) => make(at));
  const entries = { entriesPerService: 100 };
  const fields = { fieldsPerInstance: 1_000 };
  const cases: readonly [name: string, value: Uint8Array, limits: Partial<PayloadLimits>, why: RegExp][] = [
    [
      "empty instances",
      Buffer.from("0a00".repeat(200), "hex"),
      { instancesPerService: 100 },
      /more than 100 instances$/,
    ],
    ["empty metadata of nodes", one({ node: Buffer.from("3200".repeat(101), "hex") }), entries, /more than 100 tags/],
    ["empty metadata", one({ service: Buffer.from("3200".repeat(101), "hex") }), entries, /more than 100 tags/],
    ["empty tagged addresses", one({ service: Buffer.from("7a00".repeat(101), "hex") }), entries, /more than 100 tags/],
    [
      "empty tagged addresses of nodes",
      one({ node: Buffer.from("2a00".repeat(101), "hex") }),
      entries,
      /more than 100 tags/,
    ],
    ["empty tags", one({ service: Buffer.from("2200".repeat(101), "hex") }), entries, /more than 100 tags/],
    ["empty ports", one({ service: Buffer.from("a20100".repeat(101), "hex") }), entries, /more than 100 tags/],
    [
      "empty tags of checks",
      one({ beside: message(3, text(2, "c"), Buffer.from("4a00".repeat(101), "hex")) }),
      entries,
      /more than 100 tags/,
    ],
    [
      "tags, in many instances",
      Buffer.concat(many(51, (at) => one({ id: `${at}`, service: times(2, text(4, "t")) }))),
      entries,
      /more than 100 tags/,
    ],
    [
      "a proxy's configuration",
      one({ service: message(11, message(5, times(60, message(1, text(1, "k"))))) }),
      entries,
      /more than 100 tags/,
    ],
    [
      "proxies in a row, as one that comes in pieces",
      one({ service: times(1_001, message(11)) }),
      fields,
      /more than 1000 fields$/,
    ],
    ["weights in a row", one({ service: times(1_001, message(8)) }), fields, /more than 1000 fields$/],
    ["ids in a row", one({ service: times(1_001, text(2, "a")) }), fields, /more than 1000 fields$/],
    ["unknown fields", one({ beside: Buffer.from("9a0600".repeat(1_001), "hex") }), fields, /more than 1000 fields$/],
    [
      "unknown fields in a proxy",
      one({ service: message(11, Buffer.from("9a0600".repeat(1_001), "hex")) }),
      fields,
      /more than 1000 fields$/,
    ],
    ["a group", one({ node: Buffer.from(`9b06${"0800".repeat(1_001)}9c06`, "hex") }), fields, /more than 1000 fields$/],
    [
      "a group beside the instances",
      Buffer.from(`9b06${"0800".repeat(1_001)}9c06`, "hex"),
      fields,
      /more than 1000 fields$/,
    ],
    [
      "a long text",
      one({ service: text(5, "x".repeat(5_000)) }),
      { bytesPerInstance: 5_000 },
      /instance 1: \d+ bytes$/,
    ],
    [
      "a long name of a node",
      one({ name: "x".repeat(101) }),
      { nameBytes: 100 },
      /name of its node has more than 100 bytes$/,
    ],
    [
      "checks of many instances",
      Buffer.concat(
        many(11, (at) => one({ id: `${at}`, beside: Buffer.concat(many(10, (n) => check(`${at}-${n}`, `${at}`))) })),
      ),
      { checksPerService: 100 },
      /more than 100 checks$/,
    ],
    [
      "checks of a node",
      one({ beside: Buffer.concat(many(11, (at) => check(`c${at}`))) }),
      { checksPerNode: 10 },
      /more than 10 checks of its node$/,
    ],
    [
      "checks of a node, from many instances",
      Buffer.concat(many(11, (at) => one({ id: `${at}`, beside: check(`c${at}`) }))),
      { checksPerNode: 10 },
      /more than 10 checks of its node$/,
    ],
    [
      "checks of a node that all instances on it show",
      Buffer.concat(
        many(21, (at) =>
          one({ id: `${at}`, beside: at === 0 ? Buffer.concat(many(5, (n) => check(`c${n}`))) : Buffer.of() }),
        ),
      ),
      { checksPerService: 100 },
      /more than 100 checks$/,
    ],
    [
      "tags that all checks repeat",
      one({ service: times(20, text(4, "t")), beside: Buffer.concat(many(6, (n) => check(`c${n}`, "web-1"))) }),
      entries,
      /more than 100 tags/,
    ],
    [
      "services of the mesh",
      Buffer.concat(
        many(11, (at) =>
          one({ id: `${at}`, service: Buffer.concat([text(1, "connect-proxy"), message(11, text(1, `d${at}`))]) }),
        ),
      ),
      { destinationsPerService: 10 },
      /they speak for more than 10 services$/,
    ],
  ];
  for (const [name, value, limits, why] of cases) {
    it(name, () => {
      const error = refusalOf(value, "web", limits);
      assert.equal(error.code, "resource-exhausted");
      assert.match(error.message, why);
      assert.ok(error.message.startsWith(`${prefix}read payload: `));
    });
  }

  it("a long name of a service", () => {
    const name = "x".repeat(101);
    const value = message(1, message(1, text(2, "n1")), message(2, text(2, "a"), text(3, name)));
    assert.match(
      refusalOf(value, name, { nameBytes: 100 }).message,
      /the name of its service has more than 100 bytes$/,
    );
  });

  it("a payload at a limit is good", () => {
    const value = Buffer.concat(
      ["a", "b"].map((id) =>
        one({
          id,
          node: message(6, text(1, "k")),
          service: Buffer.concat([text(4, "t"), message(11, text(1, "d"))]),
          beside: Buffer.concat([check("node"), check(`${id}1`, id), check(`${id}2`, id)]),
        }),
      ),
    );
    const limits: PayloadLimits = {
      ...defaultPayloadLimits,
      instancesPerService: 2,
      checksPerInstance: 3,
      checksPerNode: 1,
      // Both instances show the check of the node once more.
      checksPerService: 8,
      // Each of six checks repeats the tag.
      entriesPerService: 12,
      nameBytes: 3,
      destinationsPerService: 1,
    };
    const { instances, mesh } = inspectPayload(value, "web", limits);
    assert.deepEqual([instances, mesh], [2, ["d"]]);
    for (const limit of ["instancesPerService", "checksPerInstance", "checksPerNode", "checksPerService"] as const) {
      assert.equal(refusalOf(value, "web", { ...limits, [limit]: limits[limit] - 1 }).code, "resource-exhausted");
    }
    for (const limit of ["entriesPerService", "nameBytes", "destinationsPerService"] as const) {
      assert.equal(refusalOf(value, "web", { ...limits, [limit]: limits[limit] - 1 }).code, "resource-exhausted");
    }
  });

  it("ordinary services are far below all of them, however large", () => {
    const web = wireInstance("web", { status: "passing" });
    const instance = (at: number): WireInstance => ({
      ...web,
      Node: { ...web.Node, Node: `node-${at}`, Meta: { rack: "r1", "consul-version": "1.21.4" } },
      Service: {
        ...web.Service,
        ID: `web-${at}`,
        Tags: ["v1", "blue"],
        Meta: Object.fromEntries(many(10, (n) => [`key-${n}`, "value"])),
      },
    });
    assert.equal(inspectPayload(payload(...many(5_000, instance)), "web").instances, 5_000);
    const tenth = Object.fromEntries(Object.entries(defaultPayloadLimits).map(([name, limit]) => [name, limit / 10]));
    inspectPayload(payload(...many(5_000, instance)), "web", { ...defaultPayloadLimits, ...tenth, nameBytes: 256 });
  });
});

describe("effort", () => {
  it("is that of the bytes, however often a node and its checks are repeated", () => {
    const one = payload(wireInstance("web", { nodeChecks: { disk: "passing" } }));
    const summary = inspectPayload(Buffer.concat(Array.from({ length: 40_000 }, () => one)), "web");
    assert.equal(summary.instances, 1);
    assert.equal(summary.nodes[0]?.checks.length, 1);
  });

  it("comes in steps of a bounded number of fields, and ends at the first limit", () => {
    const stepsOf = (value: Uint8Array): number => {
      const steps = inspectionSteps(value, "web", { ...defaultPayloadLimits, instancesPerService: 3_000_000 });
      let count = 1;
      try {
        while (steps.next().done !== true) count++;
      } catch {
        // It is refused in the end.
      }
      return count;
    };
    // Two bytes a field, and one field a step in which a long text is looked at.
    assert.ok(stepsOf(Buffer.from("1000".repeat(1_000_000), "hex")) >= 40);
    assert.ok(stepsOf(Buffer.from("0a00".repeat(1_000_000), "hex")) >= 40);
    const long = payload({ Node: { Node: "n", Address: "x".repeat(3_000_000) }, Service: { ID: "a", Service: "web" } });
    assert.ok(stepsOf(Buffer.concat([long, long, long])) >= 3);
    const meta = new ProtobufWriter();
    for (let index = 0; index < 1_000_000; index++) meta.uint32(0x32).uint32(0);
    const service = new ProtobufWriter().tag(2, 2).bytes(meta.finish()).finish();
    assert.equal(stepsOf(new ProtobufWriter().tag(1, 2).bytes(service).finish()), 1);
  });
});

describe("bad bytes are refused (ch4 case 44)", () => {
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

describe("the summary of a payload", () => {
  it("counts each node once by its lower-cased name, each instance once by node and id (ch1 case 107)", () => {
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
      // Few nodes are found otherwise than many.
      node: fc.oneof(
        fc.constantFrom("n1", "N1", "n2", "ñ3", "Ñ3"),
        fc.nat(20).map((n) => `m${n}`),
      ),
      id: fc.constantFrom("a", "A", "b", "ü", "Ü"),
      check: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 40, size: "max" }), (instances) => {
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
      read: 0,
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
