import { labelEnd, NameTable } from "./compression.js";
import { addressBytes, type DnsRecord } from "./records.js";

const POINTER = 0xc000;
const ROOT = Uint8Array.of(0);
const CLASS_IN = 1;
const MAX_LABEL_BYTES = 63;
const MAX_TEXT_BYTES = 255;
const TYPES: Readonly<Record<DnsRecord["type"], number>> = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
};

/** Writes a message whose names point to those before them. */
export class MessageWriter {
  readonly #buffer: Buffer;
  readonly #names = new NameTable();
  #at = 0;

  /** @param room - at least the size of the message without pointers. */
  constructor(room: number) {
    this.#buffer = Buffer.allocUnsafe(room);
  }

  bytes(bytes: Uint8Array): void {
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** The question section as it came, which begins with this name. */
  question(section: Uint8Array, name: string): void {
    this.#names.place(name, this.#at);
    this.bytes(section);
  }

  record(record: DnsRecord): void {
    this.#name(record.name, true);
    this.#uint16(TYPES[record.type]);
    this.#uint16(CLASS_IN);
    this.#uint32(record.ttl);
    const lengthAt = this.#at;
    this.#uint16(0);
    this.#data(record);
    this.#buffer.writeUInt16BE(this.#at - lengthAt - 2, lengthAt);
  }

  /** The written bytes. */
  end(): Buffer {
    return this.#buffer.subarray(0, this.#at);
  }

  #data(record: DnsRecord): void {
    switch (record.type) {
      case "A":
      case "AAAA":
        this.bytes(addressBytes({ type: record.type, data: record.data }));
        break;
      case "SRV":
        this.#uint16(record.data.priority);
        this.#uint16(record.data.weight);
        this.#uint16(record.data.port);
        // RFC 2782: not compressed. But other names may point to it.
        this.#name(record.data.target, false);
        break;
      case "TXT":
        for (const text of record.data) this.#text(text, MAX_TEXT_BYTES);
        break;
      case "SOA": {
        const { mname, rname, serial, refresh, retry, expire, minimum } = record.data;
        this.#name(mname, true);
        this.#name(rname, true);
        for (const value of [serial, refresh, retry, expire, minimum]) this.#uint32(value);
        break;
      }
      default:
        this.#name(record.data, true);
    }
  }

  #name(name: string, compress: boolean): void {
    const placed = this.#names.place(name, this.#at);
    const pointer = compress ? placed.pointer : undefined;
    const written = pointer === undefined ? name.length : placed.end;
    for (let start = 0; start < written; ) {
      const end = labelEnd(name, start);
      this.#text(name.slice(start, end), MAX_LABEL_BYTES);
      start = end + 1;
    }
    if (pointer === undefined) this.bytes(ROOT);
    else this.#uint16(POINTER | pointer);
  }

  /** Behind its length in one byte. @throws {RangeError} for one that is too long. */
  #text(text: string, most: number): void {
    const length = this.#buffer.write(text, this.#at + 1);
    if (length > most) throw new RangeError(`${length} bytes do not fit where ${most} do`);
    this.#buffer[this.#at] = length;
    this.#at += 1 + length;
  }

  #uint16(value: number): void {
    this.#at = this.#buffer.writeUInt16BE(value, this.#at);
  }

  #uint32(value: number): void {
    this.#at = this.#buffer.writeUInt32BE(value, this.#at);
  }
}
