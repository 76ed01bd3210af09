import { PeeringError } from "../base/errors.js";
import type { Key, StorageLimits, Write } from "./storage.js";

/** How many bytes a write counts towards {@link StorageLimits.bytes}. */
export function bytesOf({ key, value }: Write): number {
  return keyBytes(key) + (value?.length ?? 0);
}

/** The size of writes that are committed together, as the limits count it. */
export function sizeOf(writes: readonly Write[]): StorageLimits {
  let bytes = 0;
  for (const write of writes) bytes += bytesOf(write);
  return { writes: writes.length, bytes };
}

export function fits(size: StorageLimits, limits: StorageLimits): boolean {
  return size.writes <= limits.writes && size.bytes <= limits.bytes;
}

/**
 * Cuts writes, in their order, into commits that the storage takes. One that is over the limits alone comes alone, for the
 * storage to refuse it.
 */
export function* cutWrites(writes: Iterable<Write>, limits: StorageLimits): Generator<readonly Write[], void> {
  let together: Write[] = [];
  let bytes = 0;
  for (const write of writes) {
    const more = bytesOf(write);
    if (together.length > 0 && !fits({ writes: together.length + 1, bytes: bytes + more }, limits)) {
      yield together;
      together = [];
      bytes = 0;
    }
    together.push(write);
    bytes += more;
  }
  if (together.length > 0) yield together;
}

/**
 * The bytes of a commit of these writes.
 * @throws {PeeringError} `resource-exhausted`: it is over the limits.
 */
export function mustFit(writes: readonly Write[], limits: StorageLimits): number {
  const size = sizeOf(writes);
  if (fits(size, limits)) return size.bytes;
  throw new PeeringError(
    "resource-exhausted",
    `a commit of ${size.writes} writes and ${size.bytes} bytes is over the limits of the storage (${limits.writes} writes, ${limits.bytes} bytes)`,
  );
}

function keyBytes(key: Key): number {
  let bytes = 0;
  for (const part of key) bytes += Buffer.byteLength(part);
  return bytes;
}
