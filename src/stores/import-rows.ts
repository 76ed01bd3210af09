import { IMPORTS_PREFIX } from "../storage/keys.js";
import type { Entry, Key } from "../storage/storage.js";

/**
 * Before a payload: the digest of the canonical payload, base64; and the place of the row among those of its commit, 32 bits.
 */
const DIGEST_BYTES = 44;
const HEADER_BYTES = DIGEST_BYTES + 4;

/** The stored row of a service of a peer. */
export interface ImportRow {
  readonly digest: string;
  readonly place: number;
  /** As it came. */
  readonly payload: Uint8Array;
}

export function rowKey(peeringId: string, service: string): Key {
  return [...IMPORTS_PREFIX, peeringId, service];
}

export function encodeRow({ digest, place, payload }: ImportRow): Uint8Array {
  const row = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
  row.write(digest, "latin1");
  row.writeUInt32BE(place, DIGEST_BYTES);
  row.set(payload, HEADER_BYTES);
  return row;
}

/** Undefined: it is too short to be one. */
export function decodeRow({ value }: Pick<Entry, "value">): ImportRow | undefined {
  if (value.length < HEADER_BYTES) return undefined;
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return {
    digest: bytes.toString("latin1", 0, DIGEST_BYTES),
    place: bytes.readUInt32BE(DIGEST_BYTES),
    payload: value.subarray(HEADER_BYTES),
  };
}
