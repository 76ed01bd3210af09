import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { decodeMessage, encodeMessage, encodeMessages } from "../../../src/wire/codec.js";
import { ReplicationMessageSchema } from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import { Operation, type ReplicationMessage, ResourceUrl } from "../../../src/wire/messages.js";
import { ProtobufWriter } from "../../../src/wire/protobuf.js";
import { vectors } from "./vectors.js";

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const text = fc.oneof(fc.string({ unit: "binary", maxLength: 40 }), fc.constantFrom(...Object.values(ResourceUrl)));
const int32 = fc.oneof(fc.integer(), fc.integer({ min: -3, max: 3 }));
const plain = { noNullPrototype: true };
const message: fc.Arbitrary<ReplicationMessage> = fc.oneof(
  fc.record(
    {
      type: fc.constant("open" as const),
      peerId: text,
      streamSecretId: text,
      remote: fc.record(
        { partition: text, datacenter: text, locality: fc.record({ region: text, zone: text }, plain) },
        { noNullPrototype: true, requiredKeys: ["partition", "datacenter"] },
      ),
    },
    { noNullPrototype: true, requiredKeys: ["type", "peerId", "streamSecretId"] },
  ),
  fc.record(
    {
      type: fc.constant("request" as const),
      peerId: text,
      responseNonce: text,
      resourceUrl: text,
      error: fc.record({ code: int32, message: text }, plain),
    },
    { noNullPrototype: true, requiredKeys: ["type", "peerId", "responseNonce", "resourceUrl"] },
  ),
  fc.record(
    {
      type: fc.constant("response" as const),
      nonce: text,
      resourceUrl: text,
      resourceId: text,
      operation: int32,
      resource: fc.record({ typeUrl: text, value: fc.uint8Array({ maxLength: 300 }) }, plain),
    },
    { noNullPrototype: true, requiredKeys: ["type", "nonce", "resourceUrl", "resourceId", "operation"] },
  ),
  fc.constant({ type: "terminated" as const }),
  fc.constant({ type: "heartbeat" as const }),
  fc.constant({ type: "unknown" as const }),
);

/** The same message in the generated schema, the oracle. */
function generated(message: ReplicationMessage): MessageInitShape<typeof ReplicationMessageSchema> {
  switch (message.type) {
    case "open": {
      const { remote } = message;
      const Locality = remote?.locality && { Region: remote.locality.region, Zone: remote.locality.zone };
      return {
        Payload: {
          case: "open",
          value: {
            PeerID: message.peerId,
            StreamSecretID: message.streamSecretId,
            ...(remote && {
              Remote: { Partition: remote.partition, Datacenter: remote.datacenter, ...(Locality && { Locality }) },
            }),
          },
        },
      };
    }
    case "request":
      return {
        Payload: {
          case: "request",
          value: {
            PeerID: message.peerId,
            ResponseNonce: message.responseNonce,
            ResourceURL: message.resourceUrl,
            ...(message.error && { Error: message.error }),
          },
        },
      };
    case "response":
      return {
        Payload: {
          case: "response",
          value: {
            Nonce: message.nonce,
            ResourceURL: message.resourceUrl,
            ResourceID: message.resourceId,
            operation: message.operation,
            ...(message.resource && { Resource: message.resource }),
          },
        },
      };
    case "unknown":
      return {};
    default:
      return { Payload: { case: message.type, value: {} } };
  }
}

describe("encodeMessage and decodeMessage", () => {
  for (const { name, message, bytes } of vectors) {
    it(`${name}, byte for byte (ch1 case 117)`, () => {
      assert.equal(hexOf(encodeMessage(message)), bytes);
      assert.deepEqual(decodeMessage(hex(bytes)), message);
    });
  }

  it("agree with the generated schema on every message", () => {
    fc.assert(
      fc.property(message, (message) => {
        const expected = toBinary(ReplicationMessageSchema, create(ReplicationMessageSchema, generated(message)));
        assert.equal(hexOf(encodeMessage(message)), hexOf(expected));
        assert.deepEqual(decodeMessage(expected), message);
      }),
      { numRuns: 500 },
    );
  });

  it("encode a batch as each message alone", () => {
    fc.assert(
      fc.property(fc.array(message), (messages) => {
        assert.deepEqual(encodeMessages(messages).map(hexOf), messages.map(encodeMessage).map(hexOf));
      }),
    );
  });
});

describe("encodeMessage", () => {
  it("replaces lone surrogates, so that the peer can decode it", () => {
    const bytes = encodeMessage({
      type: "request",
      peerId: "",
      responseNonce: "",
      resourceUrl: "",
      error: { code: 3, message: "a\ud800b" },
    });
    const decoded = decodeMessage(bytes);
    assert.equal(decoded.type === "request" && decoded.error?.message, "a\ufffdb");
  });
});

describe("decodeMessage", () => {
  it("gives the value of a resource as a view of the input", () => {
    const vector = vectors.find(({ name }) => name.includes("ServerAddresses"));
    assert.ok(vector !== undefined);
    const bytes = hex(vector.bytes);
    const decoded = decodeMessage(bytes);
    assert.ok(decoded.type === "response" && decoded.resource !== undefined);
    assert.equal(decoded.resource.value.buffer, bytes.buffer);
  });

  it("reads a Node Buffer of a pool like any other bytes", () => {
    assert.deepEqual(decodeMessage(Buffer.from("2a00", "hex")), { type: "heartbeat" });
  });

  it("keeps Operation 2 of 1.13 and numbers no version knows", () => {
    for (const operation of [Operation.Delete, 100_000, -1]) {
      const response = { type: "response", nonce: "", resourceUrl: "", resourceId: "", operation } as const;
      assert.deepEqual(decodeMessage(encodeMessage(response)), response);
    }
  });

  it("tells an absent resource from one with an empty value", () => {
    const response = { type: "response", nonce: "1", resourceUrl: "u", resourceId: "i", operation: 1 } as const;
    assert.deepEqual(decodeMessage(encodeMessage(response)), response);
    const empty = { ...response, resource: { typeUrl: "", value: new Uint8Array() } };
    assert.deepEqual(decodeMessage(encodeMessage(empty)), empty);
  });

  const unknown: readonly [name: string, bytes: string][] = [
    ["an empty message", ""],
    ["a member of a later version", "32020a00"],
    ["a member with another wire type", "0801"],
  ];
  for (const [name, bytes] of unknown) {
    it(`reads ${name} as unknown`, () => assert.deepEqual(decodeMessage(hex(bytes)), { type: "unknown" }));
  }

  it("ignores unknown fields at every depth", () => {
    const response = "0a0131" + "9a0602ffff" + "22" + "06" + "0a0175" + "98" + "0601" + "2801";
    const decoded = decodeMessage(hex(`1a${(response.length / 2).toString(16).padStart(2, "0")}${response}9a0600`));
    assert.deepEqual(decoded, {
      type: "response",
      nonce: "1",
      resourceUrl: "",
      resourceId: "",
      operation: 1,
      resource: { typeUrl: "u", value: new Uint8Array() },
    });
  });

  it("takes the last member of the oneof, and puts together one in pieces", () => {
    assert.deepEqual(decodeMessage(hex("22002a00")), { type: "heartbeat" });
    const pieces = decodeMessage(hex("1203" + "120131" + "2a00" + "1203" + "1a0175" + "1205" + "2a03" + "120162"));
    // A heartbeat in between: the request before it is gone.
    assert.deepEqual(pieces, {
      type: "request",
      peerId: "",
      responseNonce: "",
      resourceUrl: "u",
      error: { code: 0, message: "b" },
    });
  });

  it("agrees with the generated schema on how pieces merge", () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 4 }), (messages) => {
        const bytes = new Uint8Array(Buffer.concat(messages.map(encodeMessage)));
        const expected = create(ReplicationMessageSchema, generated(decodeMessage(bytes)));
        assert.deepEqual(fromBinary(ReplicationMessageSchema, bytes), expected);
      }),
    );
  });

  const broken: readonly [name: string, bytes: string][] = [
    ["a truncated member", "2a05"],
    ["a truncated field inside", "1a020a05"],
    ["invalid UTF-8 in a nonce", "1a030a01ff"],
    ["invalid UTF-8 in the type URL of a resource", "1a0522030a01ff"],
    ["a malformed detail of an error", "12052a031a010a"],
    ["a malformed member that a later one replaces", "1a030a01ff2a00"],
    ["garbage inside a heartbeat", "2a01ff"],
  ];
  for (const [name, bytes] of broken) {
    it(`refuses ${name} with INTERNAL`, () => {
      assert.throws(
        () => decodeMessage(hex(bytes)),
        (error) =>
          error instanceof PeeringError &&
          error.code === "invalid-message" &&
          error.status === 13 &&
          error.message.startsWith("failed to unmarshal the received message: "),
      );
    });
  }

  describe("beyond its limits", () => {
    const limits = { envelopeFields: 20, envelopeTextBytes: 100 };
    const field = (number: number, content: string): string =>
      hexOf(new ProtobufWriter().tag(number, 2).bytes(hex(content)).finish());
    const long = hexOf(Buffer.from("x".repeat(101)));
    const rows: readonly [name: string, bytes: string][] = [
      ["a member given in a million pieces", "1a00".repeat(1_000_000)],
      ["heartbeats in a row", "2a00".repeat(21)],
      ["unknown fields", "9a0600".repeat(21)],
      ["unknown fields in a member", field(3, "9a0600".repeat(21))],
      ["fields in a heartbeat", field(5, "0800".repeat(21))],
      ["fields in a group", `9b06${"0800".repeat(21)}9c06`],
      ["values of a resource", field(3, field(4, "1200".repeat(21)))],
      ["details of an error", field(2, field(5, "1a00".repeat(21)))],
      ["localities", field(1, field(3, "1a00".repeat(21)))],
      ["a nonce", field(3, field(1, long))],
      ["the id of a resource", field(3, field(3, long))],
      ["a type URL", field(3, field(4, field(1, long)))],
      ["a secret", field(1, field(2, long))],
      ["a datacenter", field(1, field(3, field(2, long)))],
    ];
    for (const [name, bytes] of rows) {
      it(`refuses ${name}`, () => {
        assert.throws(
          () => decodeMessage(hex(bytes), limits),
          (error) =>
            error instanceof PeeringError &&
            error.code === "resource-exhausted" &&
            error.status === 13 &&
            error.message.startsWith("failed to unmarshal the received message: "),
        );
      });
    }

    it("reads the beginning of the text of an error, up to a whole character", () => {
      const answer = (message: string): ReplicationMessage => ({
        type: "request",
        peerId: "",
        responseNonce: "1",
        resourceUrl: "u",
        error: { code: 13, message },
      });
      const told = (message: string): string => {
        const decoded = decodeMessage(encodeMessage(answer(message)), limits);
        return decoded.type === "request" ? (decoded.error?.message ?? "") : "";
      };
      assert.equal(told("x".repeat(100)), "x".repeat(100));
      assert.equal(told("x".repeat(1_000)), "x".repeat(100));
      assert.equal(told(`${"x".repeat(99)}\u{1f600} and so on`), "x".repeat(99));
      assert.throws(() => decodeMessage(hex(field(2, field(5, field(2, `${"61".repeat(200)}ff`)))), limits), /UTF-8/);
    });
  });

  it("returns or throws PeeringError on any input", () => {
    const mutated = fc
      .tuple(message, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }), fc.nat())
      .map(([message, changes, cut]) => {
        const bytes = new Uint8Array(encodeMessage(message));
        for (const [offset, byte] of changes) if (bytes.length > 0) bytes[offset % bytes.length] = byte;
        return bytes.subarray(0, cut % (bytes.length + 1));
      });
    fc.assert(
      fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 80 })), (bytes) => {
        try {
          const decoded = decodeMessage(bytes);
          assert.deepEqual(decodeMessage(encodeMessage(decoded)), decoded);
        } catch (error) {
          assert.ok(error instanceof PeeringError, String(error));
        }
      }),
      { numRuns: 500 },
    );
  });
});
