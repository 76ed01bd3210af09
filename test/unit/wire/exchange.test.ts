import assert from "node:assert/strict";
import { it } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { decodeExchangeRequest, encodeExchangeResponse } from "../../../src/wire/exchange.js";
import {
  ExchangeSecretRequestSchema,
  ExchangeSecretResponseSchema,
} from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";

const text = fc.string({ unit: "grapheme", maxLength: 60 });

function encoded(peerId: string, establishmentSecret: string): Uint8Array {
  const message = create(ExchangeSecretRequestSchema, { PeerID: peerId, EstablishmentSecret: establishmentSecret });
  return toBinary(ExchangeSecretRequestSchema, message);
}

it("the request of an exchange, as the schema has it", () => {
  fc.assert(
    fc.property(text, text, (peerId, establishmentSecret) => {
      assert.deepEqual(decodeExchangeRequest(encoded(peerId, establishmentSecret)), { peerId, establishmentSecret });
    }),
  );
});

it("the answer, as the schema has it", () => {
  fc.assert(
    fc.property(text, (streamSecret) => {
      const bytes = encodeExchangeResponse(streamSecret);
      assert.equal(fromBinary(ExchangeSecretResponseSchema, bytes).StreamSecret, streamSecret);
    }),
  );
});

it("fields of a later version are ignored; bytes that are no message are refused", () => {
  const later = Buffer.concat([encoded("id", "secret"), Buffer.of(0x1a, 0x01, 0x78, 0x20, 0x05)]);
  assert.deepEqual(decodeExchangeRequest(later), { peerId: "id", establishmentSecret: "secret" });
  assert.throws(
    () => decodeExchangeRequest(Buffer.of(0x0a, 0x05, 0x78)),
    (error) => error instanceof PeeringError && error.code === "invalid-message" && error.status === 13,
  );
});
