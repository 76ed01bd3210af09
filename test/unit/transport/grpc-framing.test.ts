import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { encodeFrames, FrameReader } from "../../../src/transport/grpc-framing.js";

const messagesOf = (maxLength: number) => fc.array(fc.uint8Array({ maxLength }), { maxLength: 20 });

function concat(buffers: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(buffers));
}

function read(reader: FrameReader, chunks: readonly Uint8Array[]): Uint8Array[] {
  const messages: Uint8Array[] = [];
  for (const chunk of chunks) reader.push(chunk, messages);
  return messages;
}

function frame(flag: number, length: number, body: Uint8Array = new Uint8Array(length)): Uint8Array {
  const header = new Uint8Array(5);
  header[0] = flag;
  new DataView(header.buffer).setUint32(1, length);
  return concat([header, body]);
}

test("encoded messages are read back, however they are chunked", () => {
  fc.assert(
    fc.property(messagesOf(200), fc.array(fc.nat(60), { maxLength: 200 }), (messages, cuts) => {
      const bytes = concat(encodeFrames(messages));
      const chunks: Uint8Array[] = [];
      let offset = 0;
      for (const cut of cuts) {
        chunks.push(bytes.slice(offset, offset + cut));
        offset = Math.min(bytes.length, offset + cut);
      }
      chunks.push(bytes.slice(offset));
      const reader = new FrameReader(200);
      assert.deepEqual(read(reader, chunks), messages);
      assert.equal(reader.partial, false);
    }),
  );
});

test("the encoding is five bytes of header and the message, nothing else", () => {
  fc.assert(
    fc.property(messagesOf(50), (messages) => {
      assert.deepEqual(concat(encodeFrames(messages)), concat(messages.map((one) => frame(0, one.length, one))));
    }),
  );
});

test("small messages share a buffer, large ones are not copied", () => {
  const small = Array.from({ length: 100 }, () => new Uint8Array(2000));
  assert.equal(encodeFrames(small).length, 1);
  const large = new Uint8Array(1024 * 1024);
  assert.equal(encodeFrames([large])[1], large);
  const mixed = [new Uint8Array(3), large, new Uint8Array(3), new Uint8Array(3)];
  assert.deepEqual(concat(encodeFrames(mixed)), concat(mixed.map((one) => frame(0, one.length, one))));
});

test("a message within one chunk is a view of it", () => {
  const bytes = concat([frame(0, 3, new Uint8Array([1, 2, 3])), frame(0, 2)]);
  const [first, second] = read(new FrameReader(10), [bytes]);
  assert.equal(first?.buffer, bytes.buffer);
  assert.equal(second?.buffer, bytes.buffer);
});

test("large messages over many chunks", () => {
  const message = new Uint8Array(3_000_001).map((_, index) => index % 251);
  const bytes = concat(encodeFrames([message, new Uint8Array(1)]));
  const chunks = Array.from({ length: Math.ceil(bytes.length / 16_384) }, (_, index) =>
    bytes.subarray(index * 16_384, (index + 1) * 16_384),
  );
  const messages = read(new FrameReader(4_000_000), chunks);
  assert.equal(messages.length, 2);
  assert.ok(Buffer.from(message).equals(messages[0] ?? new Uint8Array()));
});

test("an announced length costs no memory before its bytes come", () => {
  const before = process.memoryUsage().arrayBuffers;
  const readers = Array.from({ length: 100 }, () => {
    const reader = new FrameReader(50 * 1024 * 1024);
    reader.push(frame(0, 50 * 1024 * 1024, new Uint8Array(10)), []);
    return reader;
  });
  assert.ok(readers.every((reader) => reader.partial));
  assert.ok(process.memoryUsage().arrayBuffers - before < 20 * 1024 * 1024);
});

test("a message over the limit is refused at its header, with the text of grpc-go; those before it are delivered", () => {
  const messages: Uint8Array[] = [];
  const reader = new FrameReader(100);
  const bytes = concat([frame(0, 100), frame(0, 101).subarray(0, 5)]);
  assert.throws(
    () => reader.push(bytes, messages),
    (error) =>
      error instanceof PeeringError &&
      error.code === "resource-exhausted" &&
      error.status === 8 &&
      error.message === "grpc: received message larger than max (101 vs. 100)",
  );
  assert.equal(messages.length, 1);
  assert.throws(() => new FrameReader(100).push(frame(0, 0xffffffff, new Uint8Array()), []), /\(4294967295 vs\. 100\)/);
});

test("a compressed message and an unknown flag are INTERNAL", () => {
  for (const [flag, text] of [
    [1, "grpc: compressed flag set with identity or empty encoding"],
    [7, "grpc: received unexpected payload format 7"],
  ] as const) {
    assert.throws(
      () => new FrameReader(100).push(frame(flag, 1), []),
      (error) => error instanceof PeeringError && error.status === 13 && error.message === text,
    );
  }
});

test("the middle of a message is partial", () => {
  const reader = new FrameReader(100);
  assert.equal(reader.partial, false);
  for (const byte of frame(0, 2)) {
    reader.push(Uint8Array.of(byte), []);
  }
  assert.equal(reader.partial, false);
  reader.push(Uint8Array.of(0), []);
  assert.equal(reader.partial, true);
});
