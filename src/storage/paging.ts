import type { DamagedEntry, Entry, Key, StoragePage } from "./storage.js";

/** The pages of entries that were read at one revision, as `Storage.pages` cuts them. */
export function* pagesOf(
  entries: readonly Entry[],
  revision: bigint,
  bytes: number,
  isDamaged: (key: Key) => boolean = () => false,
): Generator<StoragePage, void> {
  let page: Entry[] = [];
  let damaged: DamagedEntry[] = [];
  let room = bytes;
  for (const [index, entry] of entries.entries()) {
    if (isDamaged(entry.key)) damaged.push({ key: entry.key, revision: entry.revision });
    else page.push(entry);
    room -= entry.value.length;
    if (room > 0 || index === entries.length - 1) continue;
    yield { entries: page, damaged, revision };
    page = [];
    damaged = [];
    room = bytes;
  }
  yield { entries: page, damaged, revision };
}
