import { crc32c } from "./crc32c.js";
import { ABOVE_EVERY_KEY } from "./key-encoding.js";

/** Says how the database is laid out; the one row that is no {@link Row}, so that every version can read it. */
export const FORMAT_KEY: Buffer = Buffer.from(`${ABOVE_EVERY_KEY}format`, "latin1");
/** Written in the batch of every commit, so that any snapshot of the database knows its own revision. */
export const REVISION_KEY: Buffer = Buffer.from(`${ABOVE_EVERY_KEY}revision`, "latin1");

/** No revision above this one was ever given. Behind a clean end it is the newest one; else the next start goes on above it. */
export const RESERVED_KEY: Buffer = Buffer.from(`${ABOVE_EVERY_KEY}reserved`, "latin1");

/** One byte of form, seven of revision, the checksum of these and the key, and that of the value. */
export const ROW_HEADER_BYTES = 16;
/** Rows of 0.1 begin with the revision, whose first byte is 0, and have no checksums. */
const FORM_CHECKED = 1;
const REVISION_BYTES = 8;
const KEY_CHECK_AT = 8;
const VALUE_CHECK_AT = 12;

/** A stored value, as far as its checksums vouch for it. */
export type Row =
  | { readonly state: "sound"; readonly revision: bigint; readonly value: Uint8Array }
  /** Key and revision are right, the value is not. */
  | { readonly state: "damaged"; readonly revision: bigint }
  /** Not even the key is certain: another row may be missing. */
  | { readonly state: "unknown" };

/** Writes rows, one after the other, into the same memory. */
export class RowWriter {
  #scratch: Buffer = Buffer.allocUnsafeSlow(4096);

  /** A view that holds until the next call. */
  row(key: Uint8Array, revision: bigint, value: Uint8Array): Uint8Array {
    const size = ROW_HEADER_BYTES + value.length;
    if (this.#scratch.length < size) this.#scratch = Buffer.allocUnsafeSlow(size * 2);
    const row = this.#scratch;
    row.writeBigUInt64BE(revision);
    row[0] = FORM_CHECKED;
    const keyCheck = checkKey(key, row);
    row.writeUInt32BE(keyCheck, KEY_CHECK_AT);
    row.writeUInt32BE(crc32c(value, 0, value.length, keyCheck), VALUE_CHECK_AT);
    row.set(value, ROW_HEADER_BYTES);
    return row.subarray(0, size);
  }
}

export function readRow(key: Uint8Array, stored: Uint8Array): Row {
  const revision = rowRevision(key, stored);
  if (revision === undefined) return { state: "unknown" };
  const check = crc32c(stored, ROW_HEADER_BYTES, stored.length, uint32(stored, KEY_CHECK_AT));
  if (check !== uint32(stored, VALUE_CHECK_AT)) return { state: "damaged", revision };
  // Not `subarray`: the engine's bytes are a Buffer, and values are plain arrays.
  const value = new Uint8Array(stored.buffer, stored.byteOffset + ROW_HEADER_BYTES, stored.length - ROW_HEADER_BYTES);
  return { state: "sound", revision, value };
}

/** The revision of a row, whose value may be damaged; undefined when it is not certain. */
export function rowRevision(key: Uint8Array, stored: Uint8Array): bigint | undefined {
  if (stored.length < ROW_HEADER_BYTES || stored[0] !== FORM_CHECKED) return undefined;
  if (checkKey(key, stored) !== uint32(stored, KEY_CHECK_AT)) return undefined;
  const high = uint32(stored, 0) - FORM_CHECKED * 2 ** 24;
  const low = BigInt(uint32(stored, 4));
  return high === 0 ? low : (BigInt(high) << 32n) | low;
}

/** A row as 0.1 wrote it; undefined when it is no such. */
export function readUncheckedRow(stored: Uint8Array): { revision: bigint; value: Uint8Array } | undefined {
  if (stored.length < REVISION_BYTES || stored[0] !== 0) return undefined;
  const revision = (BigInt(uint32(stored, 0)) << 32n) | BigInt(uint32(stored, 4));
  return { revision, value: stored.subarray(REVISION_BYTES) };
}

/** The bytes before the row of the revision where a batch ends with it: the kind of the write, the key, how long the row is. */
const REVISION_WRITE = Buffer.from([1, REVISION_KEY.length, ...REVISION_KEY, ROW_HEADER_BYTES]);

/** The revision that a batch in the log leads to; undefined: the batch is not a commit. */
export function batchRevision(batch: Buffer): bigint | undefined {
  const rowAt = batch.length - ROW_HEADER_BYTES;
  if (rowAt < REVISION_WRITE.length) return undefined;
  if (!batch.subarray(rowAt - REVISION_WRITE.length, rowAt).equals(REVISION_WRITE)) return undefined;
  return rowRevision(REVISION_KEY, batch.subarray(rowAt));
}

function checkKey(key: Uint8Array, row: Uint8Array): number {
  return crc32c(row, 0, REVISION_BYTES, crc32c(key));
}

/** Without a view of the bytes, which costs more than the checksum of a small row. */
function uint32(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16);
  return (high | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)) >>> 0;
}
