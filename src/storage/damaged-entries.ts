import { PeeringError } from "../errors.js";
import type { Key } from "./storage.js";

/** What helps where data are lost. */
export const RESTORE = "Restore the directory from a backup, or remove it and peer again.";

/** @param where - the storage, if it has a name. */
export function damagedEntries(keys: readonly Key[], where?: string): PeeringError {
  const names = keys.slice(0, 3).map((key) => key.join("/"));
  const more = keys.length > names.length ? ` and ${keys.length - names.length} more` : "";
  const place = where === undefined ? "stored entries are" : `stored in ${where},`;
  return new PeeringError("storage-damaged", `${place} damaged: ${names.join(", ")}${more}`, {
    remedy: RESTORE,
    damagedKeys: keys,
  });
}
