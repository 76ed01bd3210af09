import { PeeringError } from "../base/errors.js";
import { cutWrites } from "./limits.js";
import type { DamagedEntry, Storage } from "./storage.js";

/** The remedy where data are lost. */
export const RESTORE = "Restore the directory from a backup, or remove it and peer again.";

/** @param where - the storage, if it has a name. */
export function damagedEntries(entries: readonly DamagedEntry[], where?: string): PeeringError {
  const keys = entries.map(({ key }) => key);
  const names = keys.slice(0, 3).map((key) => key.join("/"));
  const more = keys.length > names.length ? ` and ${keys.length - names.length} more` : "";
  const place = where === undefined ? "stored entries are" : `stored in ${where},`;
  return new PeeringError("storage-damaged", `${place} damaged: ${names.join(", ")}${more}`, {
    remedy: RESTORE,
    damagedKeys: keys,
  });
}

/**
 * Deletes damaged entries that can be fetched again. One that was written again meanwhile stays as it is now.
 * @throws {PeeringError} as `Storage.commit`, but no `conflict`.
 */
export async function deleteDamaged(
  storage: Pick<Storage, "commit" | "limits">,
  damaged: readonly DamagedEntry[],
): Promise<void> {
  const deletions = damaged.map(({ key }) => ({ key, value: undefined }));
  let done = 0;
  for (const writes of cutWrites(deletions, storage.limits)) {
    const entries = damaged.slice(done, done + writes.length);
    done += writes.length;
    if (await isCommitted(storage.commit(writes, entries))) continue;
    // At least one of them is newer: the others are deleted one by one.
    for (const entry of entries) await isCommitted(storage.commit([{ key: entry.key, value: undefined }], [entry]));
  }
}

/** False: an expectation of it failed. */
async function isCommitted(commit: Promise<unknown>): Promise<boolean> {
  try {
    await commit;
    return true;
  } catch (error) {
    if (error instanceof PeeringError && error.code === "conflict") return false;
    throw error;
  }
}
