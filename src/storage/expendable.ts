import { PeeringError } from "../errors.js";
import type { Entry, Key, Page, Snapshot, Storage } from "./storage.js";

export interface ExpendableOptions {
  /** Whether a row is one of those that can be had again. */
  readonly isExpendable: (key: Key) => boolean;
  /** Called for each that was damaged, and has been deleted. */
  readonly onDropped: (key: Key) => void;
}

/**
 * Reads rows that can be had again, such as what peers sent: those that are damaged are deleted first, so that they keep no
 * host from starting.
 * @throws {PeeringError} as `Storage.read`, `storage-damaged` only where other rows are damaged as well; as `Storage.commit`.
 */
export async function readExpendable(
  storage: Storage,
  prefix: Key,
  { isExpendable, onDropped }: ExpendableOptions,
  page?: Page,
): Promise<Snapshot> {
  try {
    return await storage.read(prefix, undefined, page);
  } catch (error) {
    const damaged = error instanceof PeeringError && error.code === "storage-damaged" ? error.damagedKeys : [];
    if (damaged.length === 0 || !damaged.every(isExpendable)) throw error;
    await storage.commit(damaged.map((key) => ({ key, value: undefined })));
    for (const key of damaged) onDropped(key);
  }
  return storage.read(prefix, undefined, page);
}

/**
 * As {@link readExpendable}, page by page, for what may be more than fits into memory. It is not of one moment.
 * @param bytes - of a page, about.
 */
export async function* expendablePages(
  storage: Storage,
  prefix: Key,
  options: ExpendableOptions,
  bytes: number,
): AsyncGenerator<Snapshot, void> {
  for (let last: Entry | undefined; ; ) {
    const page = last === undefined ? { bytes } : { after: last.key, bytes };
    const snapshot = await readExpendable(storage, prefix, options, page);
    const next = snapshot.entries.at(-1);
    // A storage that knows no pages gives all of them at once, and again.
    if (next === undefined || (last !== undefined && sameKey(next.key, last.key))) {
      if (last === undefined) yield snapshot;
      return;
    }
    last = next;
    yield snapshot;
  }
}

function sameKey(left: Key, right: Key): boolean {
  return left.length === right.length && left.every((part, index) => part === right[index]);
}
