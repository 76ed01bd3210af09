import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import {
  PeeringServerAddressesSchema,
  PeeringTrustBundleSchema,
} from "../../../src/wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import {
  ExchangeSecretRequestSchema,
  ExportedServiceListSchema,
  ExportedServiceSchema,
} from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import {
  decodeExportedServiceList,
  decodeLeaderAddress,
  decodeServerAddresses,
  decodeTrustBundle,
  encodeExportedServiceList,
  encodeLeaderAddress,
  encodeServerAddresses,
  encodeTrustBundle,
} from "../../../src/wire/resources.js";
import { decodeStatusDetails, encodeStatusDetails } from "../../../src/wire/status-details.js";
import { isUuid } from "../../../src/wire/uuid.js";
import { vectorBytes, vectors } from "./vectors.js";

const text = fc.string({ unit: "binary", maxLength: 40 });
const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const invalid = (error: unknown): boolean =>
  error instanceof PeeringError && error.code === "invalid-message" && error.status === 13;

describe("resources", () => {
  it("hold no more texts, and no longer ones, than is bearable", () => {
    const exhausted = (error: unknown): boolean =>
      error instanceof PeeringError && error.code === "resource-exhausted" && error.status === 13;
    assert.equal(decodeExportedServiceList(encodeExportedServiceList(["a", "b"]), 2).length, 2);
    assert.throws(() => decodeExportedServiceList(encodeExportedServiceList(["a", "b", "c"]), 2), exhausted);
    assert.throws(() => decodeExportedServiceList(encodeExportedServiceList(["x".repeat(1_025)])), exhausted);
    const many = Array.from({ length: 1_001 }, (_, index) => `a:${index}`);
    assert.equal(decodeServerAddresses(encodeServerAddresses(many.slice(1))).length, 1_000);
    assert.throws(() => decodeServerAddresses(encodeServerAddresses(many)), exhausted);
    // Two bytes each, and nothing to show for it.
    const unknown = hex("1000".repeat(1_000_000));
    for (const decode of [decodeServerAddresses, (value: Uint8Array) => decodeExportedServiceList(value, 10)]) {
      assert.throws(() => decode(unknown), exhausted);
    }
  });

  it("hold a trust bundle of a bearable size", () => {
    const exhausted = (error: unknown): boolean => error instanceof PeeringError && error.code === "resource-exhausted";
    const bundle = { trustDomain: "x.consul", rootPems: ["root"], exportedPartition: "" };
    const limits = { rootsPerPeer: 2, trustBundleBytes: 2_000 };
    assert.deepEqual(decodeTrustBundle(encodeTrustBundle(bundle), limits), bundle);
    for (const beyond of [
      encodeTrustBundle({ ...bundle, rootPems: ["", "", ""] }),
      encodeTrustBundle({ ...bundle, rootPems: ["x".repeat(2_001)] }),
      encodeTrustBundle({ ...bundle, trustDomain: "x".repeat(1_025) }),
      encodeTrustBundle({ ...bundle, exportedPartition: "x".repeat(1_025) }),
      Buffer.concat([encodeTrustBundle(bundle), hex("3200".repeat(1_000))]),
    ]) {
      assert.throws(() => decodeTrustBundle(beyond, limits), exhausted);
    }
    assert.throws(() => decodeTrustBundle(hex("3800".repeat(300_000))), exhausted);
  });

  it("agree with the generated schemas", () => {
    fc.assert(
      fc.property(fc.array(text), text, text, (texts, trustDomain, exportedPartition) => {
        const list = toBinary(ExportedServiceListSchema, create(ExportedServiceListSchema, { Services: texts }));
        assert.equal(hexOf(encodeExportedServiceList(texts)), hexOf(list));
        assert.deepEqual(decodeExportedServiceList(list), texts);

        const addresses = create(PeeringServerAddressesSchema, { Addresses: texts });
        assert.equal(hexOf(encodeServerAddresses(texts)), hexOf(toBinary(PeeringServerAddressesSchema, addresses)));
        assert.deepEqual(decodeServerAddresses(toBinary(PeeringServerAddressesSchema, addresses)), texts);

        const bundle = { trustDomain, rootPems: texts, exportedPartition };
        const generated = create(PeeringTrustBundleSchema, {
          TrustDomain: trustDomain,
          RootPEMs: texts,
          ExportedPartition: exportedPartition,
        });
        assert.equal(hexOf(encodeTrustBundle(bundle)), hexOf(toBinary(PeeringTrustBundleSchema, generated)));
        const whole = { ...generated, PeerName: "p", Partition: "q", CreateIndex: 1n, ModifyIndex: 2n ** 60n };
        assert.deepEqual(decodeTrustBundle(toBinary(PeeringTrustBundleSchema, whole)), bundle);
      }),
    );
  });

  it("refuse bytes that are no such message", () => {
    for (const decode of [decodeExportedServiceList, decodeServerAddresses, decodeTrustBundle, decodeLeaderAddress]) {
      assert.throws(() => decode(hex("0a05")), invalid, decode.name);
      assert.throws(() => decode(hex("0a01ff")), invalid, decode.name);
    }
    assert.throws(() => decodeTrustBundle(hex("1201ff")), invalid);
  });

  it("LeaderAddress and ExchangeSecretRequest, byte for byte (ch1 case 117)", () => {
    const leader = vectorBytes.get("LeaderAddress 10.0.0.2:8300 (bare message)");
    assert.equal(hexOf(encodeLeaderAddress("10.0.0.2:8300")), leader);
    assert.equal(decodeLeaderAddress(hex(leader ?? "")), "10.0.0.2:8300");
    const request = create(ExchangeSecretRequestSchema, {
      PeerID: "caf067a6-f112-4907-9101-d45857d2b149",
      EstablishmentSecret: "f6569d37-1c5b-4415-aae5-26f4594f7f60",
    });
    const exchange = vectorBytes.get("ExchangeSecretRequest (bare message)") ?? "";
    assert.equal(hexOf(toBinary(ExchangeSecretRequestSchema, request)), exchange);
    assert.deepEqual(fromBinary(ExchangeSecretRequestSchema, hex(exchange)), request);
  });

  it("the instance X2, as the schema reads it (ch1 case 117)", () => {
    const message = vectors.find(({ name }) => name.includes("X2"))?.message;
    assert.ok(message?.type === "response" && message.resource !== undefined);
    const service = fromBinary(ExportedServiceSchema, message.resource.value);
    assert.equal(service.Nodes[0]?.Service?.ID, "web-1");
    assert.equal(service.Nodes[0]?.Node?.Node, "node-1");
    assert.ok(service.Nodes[0]?.Service?.EnterpriseMeta !== undefined);
    assert.equal(hexOf(toBinary(ExportedServiceSchema, service)), hexOf(message.resource.value));
  });
});

describe("status details", () => {
  const name = "grpc-status-details-bin: code 9, follower refusal text, that LeaderAddress";
  const refusal = {
    code: 9,
    message: "cannot establish a peering stream on a follower node",
    leaderAddress: "10.0.0.2:8300",
  };

  it("grpc-status-details-bin, byte for byte (ch1 case 117)", () => {
    assert.equal(encodeStatusDetails(refusal), vectorBytes.get(name));
    assert.deepEqual(decodeStatusDetails(vectorBytes.get(name) ?? ""), refusal);
  });

  it("come back with and without padding", () => {
    fc.assert(
      fc.property(fc.integer(), text, fc.option(text, { nil: undefined }), (code, message, leaderAddress) => {
        const status = leaderAddress === undefined ? { code, message } : { code, message, leaderAddress };
        const trailer = encodeStatusDetails(status);
        assert.ok(!trailer.includes("="));
        assert.deepEqual(decodeStatusDetails(trailer), status);
        const padded = trailer.padEnd(Math.ceil(trailer.length / 4) * 4, "=");
        assert.deepEqual(decodeStatusDetails(padded), status);
      }),
    );
  });

  it("of other types are ignored, malformed ones are no details", () => {
    const other = Buffer.from("08091a050a0175" + "1200", "hex").toString("base64");
    assert.deepEqual(decodeStatusDetails(other), { code: 9, message: "" });
    for (const trailer of ["!", "CAkS", "CA kS"]) assert.equal(decodeStatusDetails(trailer), undefined, trailer);
  });
});

describe("isUuid", () => {
  it("takes any version in either case, and nothing else", () => {
    assert.ok(isUuid("f16ac4b8-9501-0aed-108e-fb1c2b3879c6"));
    assert.ok(isUuid("F16AC4B8-9501-0AED-108E-FB1C2B3879C6"));
    for (const text of [
      "",
      "f16ac4b895010aed108efb1c2b3879c6",
      "f16ac4b8-9501-0aed-108e-fb1c2b3879c6\n",
      "{f16ac4b8-9501-0aed-108e-fb1c2b3879}",
      "g16ac4b8-9501-0aed-108e-fb1c2b3879c6",
    ]) {
      assert.ok(!isUuid(text), text);
    }
  });
});
