import { PeeringError } from "../base/errors.js";
import { StatusCode } from "../wire/status.js";

/** Compression flag and length in front of every gRPC message. */
const HEADER_BYTES = 5;
/** Up to this size messages are copied together, which costs less than a write each; larger ones are passed on uncopied. */
const COPY_BYTES = 64 * 1024;

function writeHeader(target: Uint8Array, offset: number, length: number): void {
  target[offset] = 0;
  target[offset + 1] = length >>> 24;
  target[offset + 2] = length >>> 16;
  target[offset + 3] = length >>> 8;
  target[offset + 4] = length;
}

/** The gRPC frames of `messages`, in order, as few buffers as sensible. */
export function encodeFrames(messages: readonly Uint8Array[]): Uint8Array[] {
  const buffers: Uint8Array[] = [];
  for (let first = 0; first < messages.length; ) {
    let end = first;
    let bytes = 0;
    for (let message = messages[end]; message !== undefined && message.length <= COPY_BYTES; message = messages[end]) {
      if (end > first && bytes + message.length > 4 * COPY_BYTES) break;
      bytes += HEADER_BYTES + message.length;
      end += 1;
    }
    if (end === first) {
      const message = messages[end];
      if (message === undefined) break;
      const header = new Uint8Array(HEADER_BYTES);
      writeHeader(header, 0, message.length);
      buffers.push(header, message);
      first = end + 1;
      continue;
    }
    const block = new Uint8Array(bytes);
    let offset = 0;
    for (; first < end; first += 1) {
      const message = messages[first];
      if (message === undefined) break;
      writeHeader(block, offset, message.length);
      block.set(message, offset + HEADER_BYTES);
      offset += HEADER_BYTES + message.length;
    }
    buffers.push(block);
  }
  return buffers;
}

/** First allocation for a message that spans chunks; doubled as its bytes arrive. */
const INITIAL_BODY_BYTES = 64 * 1024;

/**
 * Cuts gRPC messages out of a byte stream, however it is chunked. A message that lies within one chunk is a view of it;
 * only one that spans several is copied. Memory grows with the bytes received, never with the length announced.
 */
export class FrameReader {
  /** Larger messages are refused. */
  maxBytes: number;
  readonly #header = new DataView(new ArrayBuffer(HEADER_BYTES));
  #headerBytes = 0;
  #length = 0;
  /** The bytes that have arrived of a message that spans chunks. */
  #body: Uint8Array | undefined;
  #bodyBytes = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** Whether the bytes so far end in the middle of a message. */
  get partial(): boolean {
    return this.#headerBytes > 0;
  }

  /**
   * Appends the messages completed by `chunk` to `messages`.
   * @throws {PeeringError} `resource-exhausted` (status 8) for a message over the limit, `invalid-message` (status 13)
   *   for one that is marked as compressed. The reader is useless afterwards; `messages` holds the messages before it.
   */
  push(chunk: Uint8Array, messages: Uint8Array[]): void {
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#headerBytes < HEADER_BYTES) {
        const end = Math.min(chunk.length, offset + HEADER_BYTES - this.#headerBytes);
        while (offset < end) {
          this.#header.setUint8(this.#headerBytes, chunk[offset] ?? 0);
          this.#headerBytes += 1;
          offset += 1;
        }
        if (this.#headerBytes < HEADER_BYTES) return;
        this.#readHeader();
      }
      const end = Math.min(chunk.length, offset + this.#length - this.#bodyBytes);
      // A plain Uint8Array, not a Buffer: what leaves the transport is the same whatever carried it.
      const part = new Uint8Array(chunk.buffer, chunk.byteOffset + offset, end - offset);
      offset = end;
      if (part.length === this.#length) {
        this.#headerBytes = 0;
        messages.push(part);
        continue;
      }
      // A chunk that ends with a header leaves nothing to keep, and the message may still come whole.
      if (part.length === 0) return;
      const body = this.#append(part);
      if (this.#bodyBytes < this.#length) return;
      messages.push(body);
      this.#headerBytes = 0;
      this.#body = undefined;
      this.#bodyBytes = 0;
    }
  }

  #readHeader(): void {
    const flag = this.#header.getUint8(0);
    this.#length = this.#header.getUint32(1);
    if (flag === 1) {
      throw new PeeringError("invalid-message", "grpc: compressed flag set with identity or empty encoding", {
        status: StatusCode.Internal,
      });
    }
    if (flag !== 0) {
      throw new PeeringError("invalid-message", `grpc: received unexpected payload format ${flag}`, {
        status: StatusCode.Internal,
      });
    }
    if (this.#length > this.maxBytes) {
      throw new PeeringError(
        "resource-exhausted",
        `grpc: received message larger than max (${this.#length} vs. ${this.maxBytes})`,
        { status: StatusCode.ResourceExhausted },
      );
    }
  }

  #append(part: Uint8Array): Uint8Array {
    const bytes = this.#bodyBytes + part.length;
    let body = this.#body ?? new Uint8Array(Math.min(this.#length, Math.max(bytes, INITIAL_BODY_BYTES)));
    if (body.length < bytes) {
      const larger = new Uint8Array(Math.min(this.#length, Math.max(bytes, 2 * body.length)));
      larger.set(body.subarray(0, this.#bodyBytes));
      body = larger;
    }
    body.set(part, this.#bodyBytes);
    this.#body = body;
    this.#bodyBytes = bytes;
    // Whole at the last part: the capacity never exceeds the length, so a full body is exactly the message.
    return body;
  }
}
