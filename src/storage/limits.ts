import { PeeringError } from "../errors.js";
import type { Key, StorageLimits, Write } from "./storage.js";

/** What a write counts towards {@link StorageLimits.bytes}. */
export function bytesOf({ key, value }: Write): number {
  return keyBytes(key) + (value?.length ?? 0);
}

/**
 * The bytes of a commit of these writes.
 * @throws {PeeringError} `resource-exhausted`: it is over the limits.
 */
export function mustFit(writes: readonly Write[], limits: StorageLimits): number {
  let bytes = 0;
  for (const write of writes) bytes += bytesOf(write);
  if (writes.length <= limits.writes && bytes <= limits.bytes) return bytes;
  throw new PeeringError(
    "resource-exhausted",
    `a commit of ${writes.length} writes and ${bytes} bytes is over the limits of the storage (${limits.writes} writes, ${limits.bytes} bytes)`,
  );
}

function keyBytes(key: Key): number {
  let bytes = 0;
  for (const part of key) bytes += Buffer.byteLength(part);
  return bytes;
}
