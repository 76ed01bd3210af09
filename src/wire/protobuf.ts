import { isUtf8 } from "node:buffer";
import { PeeringError } from "../base/errors.js";
import { StatusCode } from "./status.js";

/** The low three bits of a tag. */
export const WireType = { Varint: 0, Fixed64: 1, LengthDelimited: 2, StartGroup: 3, EndGroup: 4, Fixed32: 5 } as const;

/** The tag of a text, of bytes and of a message. */
export function lengthTag(field: number): number {
  return (field << 3) | WireType.LengthDelimited;
}

/** The tag of an integer and of a bool. */
export function varintTag(field: number): number {
  return (field << 3) | WireType.Varint;
}

/** The tag of a double. */
export function fixed64Tag(field: number): number {
  return (field << 3) | WireType.Fixed64;
}

/** Groups are long gone from the language; nested deeper than this, they are an attack and no unknown field. */
const MAX_GROUP_DEPTH = 100;

// A leading byte order mark is part of the text: stripping it would change names.
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function malformed(why: string): PeeringError {
  return new PeeringError("invalid-message", why, { status: StatusCode.Internal });
}

function exhausted(why: string): PeeringError {
  return new PeeringError("resource-exhausted", why, { status: StatusCode.Internal });
}

/**
 * Bounds on reading a message and all messages in it. The memory and time that a field costs do not depend on how few
 * bytes it takes, so a bound on bytes alone bounds neither.
 */
export class ReadBudget {
  /** Bytes that a single text may have. */
  readonly textBytes: number;
  readonly #fields: number;
  #left: number;

  constructor(fields: number, textBytes: number) {
    this.#fields = fields;
    this.#left = fields;
    this.textBytes = textBytes;
  }

  /** Fields read so far. */
  get fieldsRead(): number {
    return this.#fields - this.#left;
  }

  /** Counts one field. @throws {PeeringError} `resource-exhausted` when it is one too many. */
  takeField(): void {
    if (--this.#left < 0) throw exhausted(`more than ${this.#fields} fields`);
  }
}

/** For {@link ProtobufReader.oneOf}. */
export interface KnownText {
  readonly text: string;
  readonly bytes: Uint8Array;
}

/**
 * Reads the protobuf encoding of one message, field by field:
 *
 * ```ts
 * while (!reader.done) {
 *   const tag = reader.tag();
 *   if (tag === ((1 << 3) | WireType.LengthDelimited)) name = reader.string();
 *   else reader.skip(tag);
 * }
 * ```
 *
 * A known field number with another wire type is an unknown field, as in Go: compare whole tags.
 * Every method throws PeeringError `invalid-message` (status INTERNAL) when the bytes are malformed or end too early.
 */
export class ProtobufReader {
  /** Offset of the next byte to read. */
  position: number;
  // A Buffer, for it turns bytes into text fastest.
  readonly #bytes: Buffer;
  readonly #end: number;
  readonly #budget: ReadBudget | undefined;
  #high = 0;

  /**
   * Reads `bytes` from `start` up to, not including, `end`. Nothing is copied; `bytes` must not change meanwhile.
   * @param budget - bounds the fields and bytes read here, and in messages that are read through {@link message}. Default: no bounds.
   */
  constructor(bytes: Uint8Array, start = 0, end: number = bytes.length, budget?: ReadBudget) {
    this.#bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.position = start;
    this.#end = end;
    this.#budget = budget;
  }

  /** Whether every byte was read. */
  get done(): boolean {
    return this.position >= this.#end;
  }

  /** The next `field number << 3 | wire type`, as an unsigned number. */
  tag(): number {
    this.#budget?.takeField();
    const tag = this.#varint();
    if (this.#high !== 0 || tag < 8) throw malformed("invalid field number");
    return tag;
  }

  /** A varint cut to 32 bits, unsigned. */
  uint32(): number {
    return this.#varint();
  }

  /** A varint cut to 32 bits, signed: `int32` and open enums. */
  int32(): number {
    return this.#varint() | 0;
  }

  uint64(): bigint {
    const low = this.#varint();
    return this.#high === 0 ? BigInt(low) : (BigInt(this.#high) << 32n) | BigInt(low);
  }

  int64(): bigint {
    return BigInt.asIntN(64, this.uint64());
  }

  bool(): boolean {
    return this.#varint() !== 0 || this.#high !== 0;
  }

  double(): number {
    const start = this.#advance(8);
    return this.#bytes.readDoubleLE(start);
  }

  /** Length-delimited bytes: a view of the input, not a copy. */
  bytes(): Uint8Array {
    const length = this.#varint();
    const start = this.#advance(this.#high === 0 ? length : Number.POSITIVE_INFINITY);
    return new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + start, length);
  }

  /** A reader of the length-delimited message that follows; this reader goes on after it. */
  message(): ProtobufReader {
    const length = this.#varint();
    const start = this.#advance(this.#high === 0 ? length : Number.POSITIVE_INFINITY);
    return new ProtobufReader(this.#bytes, start, start + length, this.#budget);
  }

  /** Length-delimited text; invalid UTF-8 is malformed. Text that is longer than the budget allows is not looked at. */
  string(): string {
    const length = this.#varint();
    const start = this.#advance(this.#high === 0 ? length : Number.POSITIVE_INFINITY);
    if (length === 0) return "";
    if (this.#budget !== undefined && length > this.#budget.textBytes) throw exhausted(`a text of ${length} bytes`);
    const bytes = this.#bytes;
    const end = start + length;
    // Nearly all text here is ASCII, where checking and copying is several times faster than decoding.
    for (let index = start; index < end; index++) {
      if ((bytes[index] ?? 0) >= 0x80) return this.#decodeUtf8(start, end);
    }
    return bytes.toString("latin1", start, end);
  }

  /** As {@link string}, but of text that is longer than the budget allows the beginning. */
  beginning(): string {
    const length = this.#varint();
    const start = this.#advance(this.#high === 0 ? length : Number.POSITIVE_INFINITY);
    const bytes = this.#bytes.subarray(start, start + length);
    if (!isUtf8(bytes)) throw malformed("string field contains invalid UTF-8");
    let end = Math.min(length, this.#budget?.textBytes ?? length);
    // Not within a character.
    while (end < length && end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
    return bytes.toString("utf8", 0, end);
  }

  /**
   * As {@link string}, for text that is mostly one of a few: those are compared, which costs less than to build them.
   * @param known - in ASCII.
   */
  oneOf(known: readonly KnownText[]): string {
    const start = this.position;
    const length = this.#varint();
    const from = this.position;
    for (const { text, bytes } of known) {
      if (bytes.length !== length || this.#high !== 0 || length > this.#end - from) continue;
      if (this.#bytes.compare(bytes, 0, length, from, from + length) !== 0) continue;
      this.position = from + length;
      return text;
    }
    this.position = start;
    return this.string();
  }

  /** Passes over the value of an unknown field; `tag` is what {@link tag} returned for it. */
  skip(tag: number): void {
    this.#skip(tag, 0);
  }

  #skip(tag: number, depth: number): void {
    switch (tag & 7) {
      case WireType.Varint:
        this.#varint();
        return;
      case WireType.Fixed64:
        this.#advance(8);
        return;
      case WireType.LengthDelimited: {
        const length = this.#varint();
        this.#advance(this.#high === 0 ? length : Number.POSITIVE_INFINITY);
        return;
      }
      case WireType.StartGroup:
        if (depth >= MAX_GROUP_DEPTH) throw malformed("groups nested too deep");
        for (let inner = this.tag(); ; inner = this.tag()) {
          if ((inner & 7) !== WireType.EndGroup) this.#skip(inner, depth + 1);
          else if (inner >>> 3 === tag >>> 3) return;
          else throw malformed("mismatching end of group");
        }
      case WireType.Fixed32:
        this.#advance(4);
        return;
      case WireType.EndGroup:
        throw malformed("end of a group that never began");
      default:
        throw malformed("invalid wire type");
    }
  }

  /** The offset before `length` more bytes. */
  #advance(length: number): number {
    const start = this.position;
    if (length > this.#end - start) throw malformed("unexpected end of the message");
    this.position = start + length;
    return start;
  }

  #byte(): number {
    if (this.position >= this.#end) throw malformed("unexpected end of the message");
    return this.#bytes[this.position++] ?? 0;
  }

  /** Returns the low 32 bits, unsigned, and leaves the high ones in `#high`. */
  #varint(): number {
    this.#high = 0;
    let byte = this.#byte();
    if (byte < 0x80) return byte;
    let low = byte & 0x7f;
    for (let shift = 7; shift < 28; shift += 7) {
      byte = this.#byte();
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) return low;
    }
    byte = this.#byte();
    low |= (byte & 0x0f) << 28;
    let high = (byte & 0x70) >> 4;
    for (let shift = 3; byte >= 0x80; shift += 7) {
      byte = this.#byte();
      // The tenth byte holds bit 63 alone.
      if (shift > 24 && byte > 1) throw malformed("varint overflows 64 bits");
      high |= (byte & 0x7f) << shift;
    }
    this.#high = high >>> 0;
    return low >>> 0;
  }

  #decodeUtf8(start: number, end: number): string {
    try {
      return strictUtf8.decode(this.#bytes.subarray(start, end));
    } catch {
      throw malformed("string field contains invalid UTF-8");
    }
  }
}

/** Code units of a text whose size in UTF-8 takes one byte for sure. */
const MAX_SHORT = 42;

/** Bytes a varint takes. */
export function varintSize(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x200000 ? 3 : value < 0x10000000 ? 4 : 5;
}

/**
 * Writes the protobuf encoding of one message. The `…Field` methods write a field with its tag and leave proto3 zero
 * values out; the others write exactly what they are given.
 */
export class ProtobufWriter {
  #buffer: Buffer;
  #length = 0;

  /**
   * @param capacity - bytes to begin with. A writer grows when it must, but a large enough one is faster. Default 256.
   */
  constructor(capacity = 256) {
    this.#buffer = Buffer.allocUnsafe(capacity);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  tag(field: number, wireType: number): this {
    return this.uint32(((field << 3) | wireType) >>> 0);
  }

  uint32(value: number): this {
    this.#reserve(5);
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.#buffer[this.#length++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#buffer[this.#length++] = rest;
    return this;
  }

  /** Negative numbers take ten bytes, as everywhere in protobuf. */
  int32(value: number): this {
    return value < 0 ? this.uint64(BigInt.asUintN(64, BigInt(value | 0))) : this.uint32(value);
  }

  uint64(value: bigint): this {
    this.#reserve(10);
    let rest = BigInt.asUintN(64, value);
    while (rest >= 0x80n) {
      this.#buffer[this.#length++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#buffer[this.#length++] = Number(rest);
    return this;
  }

  int64(value: bigint): this {
    return this.uint64(value);
  }

  bool(value: boolean): this {
    return this.uint32(value ? 1 : 0);
  }

  double(value: number): this {
    this.#reserve(8);
    this.#length = this.#buffer.writeDoubleLE(value, this.#length);
    return this;
  }

  /** Length-delimited. Lone surrogates become U+FFFD, so that the result is always valid UTF-8. */
  string(value: string): this {
    const { length } = value;
    if (length > MAX_SHORT) {
      const size = Buffer.byteLength(value, "utf8");
      this.uint32(size);
      this.#reserve(size);
      this.#buffer.write(value, this.#length, size, "utf8");
      this.#length += size;
      return this;
    }
    // Whatever it holds, its size takes one byte. The call into native code costs more than a short copy.
    this.#reserve(1 + 3 * length);
    const start = this.#length + 1;
    const buffer = this.#buffer;
    let size = 0;
    while (size < length) {
      const unit = value.charCodeAt(size);
      if (unit >= 0x80) break;
      buffer[start + size++] = unit;
    }
    if (size < length) size = buffer.write(value, start, "utf8");
    buffer[start - 1] = size;
    this.#length = start + size;
    return this;
  }

  /** Length-delimited. */
  bytes(value: Uint8Array): this {
    return this.uint32(value.length).raw(value);
  }

  /** Bytes that are encoded already. */
  raw(value: Uint8Array): this {
    this.#reserve(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  /** Begins a message field; give the result to {@link endMessage} when its fields are written. */
  beginMessage(field: number): number {
    this.tag(field, WireType.LengthDelimited);
    this.#reserve(1);
    return this.#length++;
  }

  endMessage(mark: number): this {
    const start = mark + 1;
    const size = this.#length - start;
    if (size < 0x80) {
      this.#buffer[mark] = size;
      return this;
    }
    // One byte was kept free for the length; move the content to make room for the others.
    const extra = varintSize(size) - 1;
    this.#reserve(extra);
    this.#buffer.copyWithin(start + extra, start, this.#length);
    const end = this.#length + extra;
    this.#length = mark;
    this.uint32(size);
    this.#length = end;
    return this;
  }

  stringField(field: number, value: string): this {
    return value === "" ? this : this.tag(field, WireType.LengthDelimited).string(value);
  }

  /** Every element, also empty ones. */
  repeatedStringField(field: number, values: readonly string[]): this {
    for (const value of values) this.tag(field, WireType.LengthDelimited).string(value);
    return this;
  }

  bytesField(field: number, value: Uint8Array): this {
    return value.length === 0 ? this : this.tag(field, WireType.LengthDelimited).bytes(value);
  }

  int32Field(field: number, value: number): this {
    return value === 0 ? this : this.tag(field, WireType.Varint).int32(value);
  }

  uint32Field(field: number, value: number): this {
    return value === 0 ? this : this.tag(field, WireType.Varint).uint32(value);
  }

  uint64Field(field: number, value: bigint): this {
    return value === 0n ? this : this.tag(field, WireType.Varint).uint64(value);
  }

  boolField(field: number, value: boolean): this {
    return value ? this.tag(field, WireType.Varint).bool(value) : this;
  }

  /** The written bytes, in memory of their own: right for bytes that are kept. The writer must not be used any more. */
  finish(): Uint8Array {
    return new Uint8Array(this.#buffer.subarray(0, this.#length));
  }

  /**
   * The written bytes, as a view of memory that may be larger and shared: faster, and right for bytes that are sent and
   * forgotten. The writer must not be used any more.
   */
  finishView(): Uint8Array {
    return new Uint8Array(this.#buffer.buffer, this.#buffer.byteOffset, this.#length);
  }

  /** A copy of the written bytes. The writer starts over and keeps its buffer: for many messages in a row. */
  take(): Uint8Array {
    // Small buffers share memory that Node has ready, which costs a fraction of an allocation for each.
    const copy = Buffer.allocUnsafe(this.#length);
    this.#buffer.copy(copy, 0, 0, this.#length);
    this.#length = 0;
    return new Uint8Array(copy.buffer, copy.byteOffset, copy.length);
  }

  #reserve(size: number): void {
    const needed = this.#length + size;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}
