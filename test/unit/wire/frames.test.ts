import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import { createRegistry, type DescMessage, fromBinary, type JsonValue, toBinary, toJson } from "@bufbuild/protobuf";
import { decodeMessage, encodeMessage } from "../../../src/wire/codec.js";
import { file_hashicorp_consul_internal_peering_peering } from "../../../src/wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import {
  ExchangeSecretRequestSchema,
  ExchangeSecretResponseSchema,
  ExportedServiceSchema,
  file_hashicorp_consul_internal_peerstream_peerstream,
  ReplicationMessageSchema,
} from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import { ResourceUrl } from "../../../src/wire/messages.js";
import {
  decodeExportedServiceList,
  decodeServerAddresses,
  decodeTrustBundle,
  encodeExportedServiceList,
  encodeServerAddresses,
  encodeTrustBundle,
} from "../../../src/wire/resources.js";
import { readGolden } from "../../golden/read.js";

interface Frame {
  readonly origin: string;
  readonly from: string;
  readonly message?: string;
  readonly raw: string;
  readonly json?: JsonValue;
  readonly decodeError?: string;
}

const registry = createRegistry(
  file_hashicorp_consul_internal_peering_peering,
  file_hashicorp_consul_internal_peerstream_peerstream,
);
const exchange: Readonly<Record<string, DescMessage>> = {
  ExchangeSecretRequest: ExchangeSecretRequestSchema,
  ExchangeSecretResponse: ExchangeSecretResponseSchema,
};

function framesOf(version: string): Frame[] {
  const lines = readGolden(`frames/${version}.jsonl`).trimEnd().split("\n");
  return lines.map((line): Frame => JSON.parse(line));
}

/** As the recordings spell it: certificates by their hash, and Operation 2, unknown to the recorder's schema, as a number. */
function recorded(value: JsonValue): JsonValue {
  if (typeof value === "string") {
    if (value === "OPERATION_DELETE") return 2;
    if (!value.startsWith("-----BEGIN CERTIFICATE")) return value;
    return `pem:${createHash("sha256").update(value).digest("hex").slice(0, 12)}`;
  }
  if (Array.isArray(value)) return value.map(recorded);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, recorded(inner)]));
}

describe("messages of running Consul servers", () => {
  for (const version of ["1.13.8", "1.15.4", "1.18.2", "1.21.4", "1.22.0-dev"]) {
    it(`${version}: each decodes and encodes to the same meaning`, () => {
      const frames = framesOf(version);
      assert.ok(frames.length > 150);
      for (const { origin, message, raw, json, decodeError } of frames) {
        const bytes = new Uint8Array(Buffer.from(raw, "base64"));
        const schema = exchange[message ?? ""];
        if (schema !== undefined) {
          const decoded = fromBinary(schema, bytes);
          assert.deepEqual(toJson(schema, decoded), json, origin);
          assert.deepEqual(toBinary(schema, decoded), bytes, origin);
          continue;
        }
        assert.equal(message, undefined, origin);
        const decoded = decodeMessage(bytes);
        const again = encodeMessage(decoded);
        assert.deepEqual(decodeMessage(again), decoded, origin);
        const meaning = fromBinary(ReplicationMessageSchema, again);
        assert.deepEqual(meaning, fromBinary(ReplicationMessageSchema, bytes, { readUnknownFields: false }), origin);
        if (decodeError !== undefined) {
          assert.throws(() => toJson(ReplicationMessageSchema, meaning, { registry }), origin);
        } else if (json !== undefined) {
          assert.deepEqual(recorded(toJson(ReplicationMessageSchema, meaning, { registry })), json, origin);
        }
      }
    });

    it(`${version}: so do the resources inside`, () => {
      let services = 0;
      for (const { origin, message, raw, decodeError } of framesOf(version)) {
        if (message !== undefined || decodeError !== undefined) continue;
        const decoded = decodeMessage(Buffer.from(raw, "base64"));
        if (decoded.type !== "response" || decoded.resource === undefined) continue;
        const { typeUrl, value } = decoded.resource;
        if (typeUrl === ResourceUrl.exportedService) {
          const service = fromBinary(ExportedServiceSchema, value);
          assert.deepEqual(
            fromBinary(ExportedServiceSchema, toBinary(ExportedServiceSchema, service)),
            service,
            origin,
          );
          services += service.Nodes.length;
        } else if (typeUrl === ResourceUrl.exportedServiceList) {
          assert.deepEqual(encodeExportedServiceList(decodeExportedServiceList(value)), value, origin);
        } else if (typeUrl === ResourceUrl.serverAddresses) {
          assert.deepEqual(encodeServerAddresses(decodeServerAddresses(value)), value, origin);
        } else if (typeUrl === ResourceUrl.trustBundle) {
          const bundle = decodeTrustBundle(value);
          assert.deepEqual(decodeTrustBundle(encodeTrustBundle(bundle)), bundle, origin);
        }
      }
      assert.ok(services > 10);
    });
  }

  it("1.21.4: Consul's own envelopes come out byte for byte", () => {
    let compared = 0;
    for (const { origin, from, message, raw } of framesOf("1.21.4")) {
      if (from !== "consul" || message !== undefined) continue;
      const bytes = new Uint8Array(Buffer.from(raw, "base64"));
      assert.deepEqual(new Uint8Array(encodeMessage(decodeMessage(bytes))), bytes, origin);
      compared++;
    }
    assert.ok(compared > 200);
  });
});
