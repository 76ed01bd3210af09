import { damagedEntries, deleteDamaged } from "./damaged-entries.js";
import type { DamagedEntry, Entry, Key, Snapshot, Storage, StoragePage } from "./storage.js";

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
  const damaged: DamagedEntry[] = [];
  for await (const page of storage.pages(prefix, bytes)) {
    if (!page.damaged.every(({ key }) => isExpendable(key))) throw damagedEntries(page.damaged);
    damaged.push(...page.damaged);
    yield page;
  }
  if (damaged.length === 0) return;
  await deleteDamaged(storage, damaged);
  for (const { key } of damaged) onDropped(key);
}
