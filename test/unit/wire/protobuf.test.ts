import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { ProtobufReader, ProtobufWriter, WireType } from "../../../src/wire/protobuf.js";

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
const malformed = (why: RegExp) => (error: unknown) =>
  error instanceof PeeringError && error.code === "invalid-message" && error.status === 13 && why.test(error.message);

describe("ProtobufWriter and ProtobufReader", () => {
  it("give back every value they were given", () => {
    const field = fc.oneof(
      fc.record({ kind: fc.constant("string" as const), value: fc.string({ unit: "binary", maxLength: 300 }) }),
      fc.record({ kind: fc.constant("bytes" as const), value: fc.uint8Array({ maxLength: 300 }) }),
      fc.record({ kind: fc.constant("int32" as const), value: fc.integer() }),
      fc.record({ kind: fc.constant("uint32" as const), value: fc.nat(0xffffffff) }),
      fc.record({ kind: fc.constant("uint64" as const), value: fc.bigInt(0n, 2n ** 64n - 1n) }),
      fc.record({ kind: fc.constant("int64" as const), value: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n) }),
      fc.record({ kind: fc.constant("bool" as const), value: fc.boolean() }),
      fc.record({ kind: fc.constant("double" as const), value: fc.double() }),
    );
    const numbered = fc.record({ number: fc.integer({ min: 1, max: 2 ** 29 - 1 }), field });
    fc.assert(
      fc.property(fc.array(numbered), fc.nat(64), (fields, capacity) => {
        const writer = new ProtobufWriter(capacity);
        const wireTypeOf = { string: 2, bytes: 2, double: 1, int32: 0, uint32: 0, uint64: 0, int64: 0, bool: 0 };
        for (const { number, field } of fields) {
          writer.tag(number, wireTypeOf[field.kind]);
          if (field.kind === "string") writer.string(field.value);
          else if (field.kind === "bytes") writer.bytes(field.value);
          else if (field.kind === "int32") writer.int32(field.value);
          else if (field.kind === "uint32") writer.uint32(field.value);
          else if (field.kind === "uint64") writer.uint64(field.value);
          else if (field.kind === "int64") writer.int64(field.value);
          else if (field.kind === "bool") writer.bool(field.value);
          else writer.double(field.value);
        }
        const written = writer.finish();
        // A reader must not depend on where in its buffer the message lies.
        const shifted = new Uint8Array([9, ...written, 9]).subarray(1, 1 + written.length);
        const reader = new ProtobufReader(shifted);
        const skipping = new ProtobufReader(shifted);
        for (const { number, field } of fields) {
          assert.equal(reader.tag(), ((number << 3) | wireTypeOf[field.kind]) >>> 0);
          assert.deepEqual(reader[field.kind](), field.value);
          skipping.skip(skipping.tag());
        }
        assert.ok(reader.done);
        assert.ok(skipping.done);
      }),
    );
  });

  it("nest messages of any length", () => {
    for (const size of [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152]) {
      const content = new Uint8Array(size).fill(7);
      const writer = new ProtobufWriter(8);
      const mark = writer.beginMessage(3);
      writer.raw(content).endMessage(mark);
      writer.stringField(1, "after");
      const reader = new ProtobufReader(writer.finish());
      assert.equal(reader.tag(), (3 << 3) | WireType.LengthDelimited);
      assert.deepEqual(reader.bytes(), content);
      assert.equal(reader.tag(), (1 << 3) | WireType.LengthDelimited);
      assert.equal(reader.string(), "after");
      assert.ok(reader.done);
    }
  });

  it("leave proto3 zero values out, but no element of a list", () => {
    const writer = new ProtobufWriter();
    writer.stringField(1, "").bytesField(2, new Uint8Array()).int32Field(3, 0).uint32Field(4, 0).uint64Field(5, 0n);
    writer.boolField(6, false).repeatedStringField(7, ["", "a"]);
    assert.deepEqual(writer.finish(), hex("3a003a0161"));
  });
});

describe("ProtobufWriter", () => {
  it("takes ten bytes for a negative int32", () => {
    assert.deepEqual(new ProtobufWriter().int32Field(14, -1).finish(), hex("70ffffffffffffffffff01"));
  });

  it("writes valid UTF-8 for lone surrogates", () => {
    assert.deepEqual(new ProtobufWriter().string("a\ud800").finish(), hex("0461efbfbd"));
  });

  it("starts over after take, without touching the taken bytes", () => {
    const writer = new ProtobufWriter(2);
    const first = writer.string("first").take();
    const second = writer.string("other").take();
    assert.deepEqual([first, second], [hex("056669727374"), hex("056f74686572")]);
    assert.equal(writer.length, 0);
  });

  it("returns bytes that keep no larger buffer alive", () => {
    const bytes = new ProtobufWriter(10_000).string("abc").finish();
    assert.equal(bytes.buffer.byteLength, bytes.length);
  });
});

describe("ProtobufReader", () => {
  it("returns bytes as a view, and a byte order mark as text", () => {
    const input = hex("0a03efbbbf");
    const reader = new ProtobufReader(input);
    reader.tag();
    assert.equal(reader.bytes().buffer, input.buffer);
    const again = new ProtobufReader(input, 1);
    assert.equal(again.string(), "\ufeff");
  });

  it("reads a message within its bounds only", () => {
    const outer = new ProtobufReader(hex("0a020a05ffffffffff"));
    outer.tag();
    const inner = outer.message();
    inner.tag();
    assert.throws(() => inner.string(), malformed(/unexpected end/));
  });

  it("skips unknown fields of every wire type", () => {
    for (const field of ["0801", "090102030405060708", "0a0161", "0d01020304", "0b1001131802140c"]) {
      const reader = new ProtobufReader(hex(field));
      reader.skip(reader.tag());
      assert.ok(reader.done, field);
    }
  });

  const broken: readonly [name: string, bytes: string, why: RegExp][] = [
    ["an empty tag", "80", /unexpected end/],
    ["field number 0", "0201", /invalid field number/],
    ["a field number over 2^29 - 1", "8080808010", /invalid field number/],
    ["a varint of eleven bytes", "088080808080808080808000", /overflows/],
    ["a varint over 64 bits", "08ffffffffffffffffff02", /overflows/],
    ["a length beyond the end", "0a05", /unexpected end/],
    ["a length over 32 bits", "0a8080808080808001", /unexpected end/],
    ["a truncated fixed64", "0901", /unexpected end/],
    ["an end of group alone", "0c", /never began/],
    ["a group without end", "0b0801", /unexpected end/],
    ["a group with another's end", "0b14", /mismatching end/],
    ["a group with another's end inside", "0b131c0c", /mismatching end/],
    ["wire type 6", "0e", /invalid wire type/],
    ["groups nested 200 deep", "0b".repeat(200), /too deep/],
  ];
  for (const [name, bytes, why] of broken) {
    it(`refuses ${name}`, () => {
      assert.throws(() => {
        const reader = new ProtobufReader(hex(bytes));
        while (!reader.done) reader.skip(reader.tag());
      }, malformed(why));
    });
  }

  it("refuses invalid UTF-8", () => {
    assert.throws(() => new ProtobufReader(hex("02c328")).string(), malformed(/UTF-8/));
  });

  it("ends or throws PeeringError on any input", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        const reader = new ProtobufReader(bytes);
        try {
          while (!reader.done) {
            const tag = reader.tag();
            if ((tag & 7) === WireType.LengthDelimited) reader.string();
            else reader.skip(tag);
          }
        } catch (error) {
          assert.ok(error instanceof PeeringError);
        }
      }),
    );
  });
});
