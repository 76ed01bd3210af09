import { damagedEntries } from "./damaged-entries.js";
import { cutWrites } from "./limits.js";
import type { Entry, Key, Snapshot, Storage, StoragePage } from "./storage.js";

export interface ExpendableOptions {
  /** Whether a row is one of those that can be had again. */
  readonly isExpendable: (key: Key) => boolean;
  /** Called for each that was damaged, and has been deleted. */
  readonly onDropped: (key: Key) => void;
}

/**
 * Reads rows that can be had again, such as what peers sent: those that are damaged are deleted, so that they keep no host
 * from starting.
 * @throws {PeeringError} as `Storage.read`, `storage-damaged` only where other rows are damaged as well; as `Storage.commit`.
 */
export async function readExpendable(storage: Storage, prefix: Key, options: ExpendableOptions): Promise<Snapshot> {
  let entries: readonly Entry[] = [];
  let revision = 0n;
  for await (const page of expendablePages(storage, prefix, options, Number.POSITIVE_INFINITY)) {
    entries = entries.length === 0 ? page.entries : [...entries, ...page.entries];
    revision = page.revision;
  }
  return { entries, revision };
}

/** As {@link readExpendable}, in pages. Damaged entries are deleted when all are read. */
export async function* expendablePages(
  storage: Storage,
  prefix: Key,
  { isExpendable, onDropped }: ExpendableOptions,
  bytes: number,
): AsyncGenerator<StoragePage, void> {
  const damaged: Key[] = [];
  for await (const page of storage.pages(prefix, bytes)) {
    if (!page.damaged.every(isExpendable)) throw damagedEntries(page.damaged);
    damaged.push(...page.damaged);
    yield page;
  }
  if (damaged.length === 0) return;
  const deletions = damaged.map((key) => ({ key, value: undefined }));
  for (const writes of cutWrites(deletions, storage.limits)) await storage.commit(writes);
  for (const key of damaged) onDropped(key);
}
