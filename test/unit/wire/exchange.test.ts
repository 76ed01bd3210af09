import assert from "node:assert/strict";
import { it } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import {
  decodeExchangeRequest,
  decodeExchangeResponse,
  encodeExchangeRequest,
  encodeExchangeResponse,
} from "../../../src/wire/exchange.js";
import {
  ExchangeSecretRequestSchema,
  ExchangeSecretResponseSchema,
} from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";

const text = fc.string({ unit: "grapheme", maxLength: 60 });

it("the request of an exchange, as the schema has it", () => {
  fc.assert(
    fc.property(text, text, (peerId, establishmentSecret) => {
      const bytes = encodeExchangeRequest(peerId, establishmentSecret);
      const message = create(ExchangeSecretRequestSchema, { PeerID: peerId, EstablishmentSecret: establishmentSecret });
      assert.deepEqual(Buffer.from(bytes), Buffer.from(toBinary(ExchangeSecretRequestSchema, message)));
      assert.deepEqual(decodeExchangeRequest(bytes), { peerId, establishmentSecret });
    }),
  );
});

it("the answer, as the schema has it", () => {
  fc.assert(
    fc.property(text, (streamSecret) => {
      const bytes = encodeExchangeResponse(streamSecret);
      assert.equal(fromBinary(ExchangeSecretResponseSchema, bytes).StreamSecret, streamSecret);
      assert.equal(decodeExchangeResponse(bytes), streamSecret);
    }),
  );
});

it("fields of a later version are ignored; bytes that are no message are refused", () => {
  const later = Buffer.concat([encodeExchangeRequest("id", "secret"), Buffer.of(0x1a, 0x01, 0x78, 0x20, 0x05)]);
  assert.deepEqual(decodeExchangeRequest(later), { peerId: "id", establishmentSecret: "secret" });
  assert.equal(decodeExchangeResponse(Buffer.of(0x12, 0x01, 0x78)), "");
  for (const decode of [decodeExchangeRequest, decodeExchangeResponse]) {
    assert.throws(
      () => decode(Buffer.of(0x0a, 0x05, 0x78)),
      (error) => error instanceof PeeringError && error.code === "invalid-message" && error.status === 13,
    );
  }
});
