// Instances with several ports: Consul 1.22 and later.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { sameService } from "../../../src/model/equality.js";
import type { ServicePort } from "../../../src/model/instance.js";
import { parseRegistration } from "../../../src/model/registration.js";
import { encodeServicePayload } from "../../../src/payload/exported-payload.js";
import { decodePayload, diffInstances } from "../../../src/payload/imported-payload.js";
import { inspectPayload } from "../../../src/payload/payload-inspection.js";
import { decodeMessage } from "../../../src/wire/codec.js";
import { ExportedServiceSchema } from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import { CheckServiceNodeSchema } from "../../../src/wire/gen/hashicorp/consul/internal/service/service_pb.js";
import { instance, service } from "../config/export-fixtures.js";

const http: ServicePort = { name: "http", port: 8_080, default: true };
const metrics: ServicePort = { name: "metrics", port: 9_090, default: false };

/** As Consul 1.22 sends it: without a port of its own. */
function fromConsul(...Ports: readonly { readonly Name: string; readonly Port: number; readonly Default: boolean }[]) {
  const Nodes = [
    create(CheckServiceNodeSchema, {
      Node: { Node: "n1", Address: "10.0.0.1" },
      Service: { ID: "web-1", Service: "web", Ports: [...Ports] },
    }),
  ];
  return toBinary(ExportedServiceSchema, create(ExportedServiceSchema, { Nodes }));
}

/** Payload that servers of Consul 1.22.7 and 2.1.0-dev both sent for a service registered with `ports`. */
const RECORDED =
  "1af9010a0830303030303030321248747970652e676f6f676c65617069732e636f6d2f6861736869636f72702e636f6e73756c2e696e7465" +
  "726e616c2e7065657273747265616d2e4578706f72746564536572766963651a03776562229b010a48747970652e676f6f676c6561706973" +
  "2e636f6d2f6861736869636f72702e636f6e73756c2e696e7465726e616c2e7065657273747265616d2e4578706f72746564536572766963" +
  "65124f0a4d0a1312026e311a0831302e302e302e312203646331123612057765622d311a0377656222027631420408011001820100a2010b" +
  "08903f1204687474701801a2010c08824712076d6574726963732801";

describe("several ports", () => {
  it("come as Consul has sent them, and go so to the byte, where nothing is to be better", () => {
    const message = decodeMessage(Buffer.from(RECORDED, "hex"));
    assert.ok(message.type === "response" && message.resource !== undefined);
    const { value } = message.resource;
    const instances = decodePayload(value);
    assert.deepEqual(
      instances.map(({ service: { port, ports } }) => [port, ports]),
      [[8_080, [http, metrics]]],
    );
    const ours = encodeServicePayload("web", instances, { strictConsul: true }).value;
    assert.deepEqual(Buffer.from(ours), Buffer.from(value));
  });

  it("of Consul are imported, with the default one as the port", () => {
    const value = fromConsul(
      { Name: "metrics", Port: 9_090, Default: false },
      { Name: "http", Port: 8_080, Default: true },
    );
    assert.equal(inspectPayload(value, "web").instances, 1);
    const [found] = decodePayload(value);
    assert.deepEqual([found?.service.port, found?.service.ports], [8_080, [metrics, http]]);
    const [none] = decodePayload(fromConsul());
    assert.deepEqual([none?.service.port, none?.service.ports], [0, undefined]);
  });

  it("are exported with the default one as the port, for importers that know only one", () => {
    const { value } = encodeServicePayload("web", [instance("web", { port: 8_080, ports: [http, metrics] })]);
    const [sent] = fromBinary(ExportedServiceSchema, value).Nodes;
    assert.equal(sent?.Service?.Port, 8_080);
    assert.deepEqual(
      sent.Service.Ports.map(({ Name, Port, Default }) => [Name, Port, Default]),
      [
        ["http", 8_080, true],
        ["metrics", 9_090, false],
      ],
    );
    assert.deepEqual(decodePayload(value)[0]?.service.ports, [http, metrics]);
    assert.throws(
      () => encodeServicePayload("web", [instance("web", { ports: [{ ...http, port: 2 ** 40 }] })]),
      /port 1099511627776 named "http" is not a 32-bit integer/,
    );
  });

  it("with a name that is no text are refused", () => {
    const value = Buffer.from(fromConsul({ Name: "http", Port: 1, Default: true }));
    const at = value.indexOf("http");
    assert.ok(at > 0);
    value[at] = 0xff;
    assert.throws(() => inspectPayload(value, "web"), /failed to unmarshal resource: /);
  });

  it("make another service of it when one of them changes", () => {
    const before = service("web", { port: 8_080, ports: [http, metrics] });
    for (const ports of [
      [http],
      [http, { ...metrics, port: 1 }],
      [http, { ...metrics, name: "m" }],
      [
        { ...http, default: false },
        { ...metrics, default: true },
      ],
    ]) {
      assert.equal(sameService(before, { ...before, ports }), false);
    }
    const { ports: _, ...without } = before;
    assert.equal(sameService(before, without), false);
    assert.equal(sameService(before, { ...before, ports: [{ ...http }, { ...metrics }] }), true);
    const one = instance("web", { ports: [http] });
    const other = instance("web", { ports: [http, metrics] });
    assert.equal(diffInstances([one], [other]).changed.length, 1);
  });
});

describe("registrations with several ports", () => {
  const parse = (fields: object) =>
    parseRegistration({ node: "n1", address: "10.0.0.1", service: { name: "web", ...fields } }, "dc1").service;

  it("take the default one as the port, and an answer may be written again", () => {
    const registered = parse({ ports: [metrics, http] });
    assert.deepEqual([registered?.port, registered?.ports], [8_080, [metrics, http]]);
    assert.deepEqual(parse({ port: 8_080, ports: [metrics, http] }), registered);
    assert.deepEqual(parse({ ports: [{ name: "http", port: 80, default: true }] })?.port, 80);
    assert.equal(parse({ ports: [] })?.ports, undefined);
    assert.deepEqual(
      parse({
        ports: [
          { name: "a", port: 1, default: true },
          { name: "b", port: 2 },
        ],
      })?.ports?.[1],
      {
        ...{ name: "b", port: 2, default: false },
      },
    );
  });

  const refusals: readonly (readonly [object, string])[] = [
    [{ port: 80, ports: [http] }, "Cannot set both Port and Ports"],
    [{ ports: [{ ...http, name: " " }] }, "Ports.Name cannot be empty"],
    [{ ports: [{ ...http, port: 0 }] }, "Ports.Port must be greater than zero"],
    [{ ports: [http, { ...metrics, name: "http" }] }, 'Ports.Name "http" has to be unique'],
    [{ ports: [http, { ...metrics, default: true }] }, "Only one port can be marked as default"],
    [{ ports: [metrics] }, "One of the Ports must be marked as Default"],
    [{ kind: "ingress-gateway", ports: [http] }, "Ports cannot be set for a ingress-gateway"],
    [
      { kind: "connect-proxy", socketPath: "/s", proxy: { destinationServiceName: "api" }, ports: [http] },
      "Ports cannot be set for a connect-proxy",
    ],
    [{ connect: { native: true }, ports: [http] }, "Port or SocketPath must be set for a Connect native service."],
  ];
  for (const [fields, text] of refusals) {
    it(`are refused: ${text}`, () => {
      assert.throws(() => parse(fields), { message: `1 error occurred:\n\t* ${text}\n\n` });
    });
  }

  it("are no port where one is needed", () => {
    assert.throws(() => parse({ kind: "mesh-gateway", ports: [http] }), {
      message:
        "2 errors occurred:\n\t* Ports cannot be set for a mesh-gateway\n\t* Port must be non-zero for a mesh-gateway\n\n",
    });
  });

  it("are refused where the shape is wrong", () => {
    assert.throws(() => parse({ ports: {} }), /service\.ports must be a list of ports/);
    assert.throws(() => parse({ ports: [{ ...http, port: 0.5 }] }), /service\.ports\[0\]\.port must be a whole number/);
    assert.throws(() => parse({ ports: [{ ...http, weight: 1 }] }), /has an unknown field "weight"/);
  });
});
