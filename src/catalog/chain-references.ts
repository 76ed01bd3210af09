import { relatedServices } from "./chain-entries.js";
import type { ConfigEntry, ConfigEntryKind } from "./config-entry.js";
import { lowerCase } from "./names.js";

/** Which services name which others in the entries of their chains, kept up to date at the cost of what changes. Lower-cased. */
export class ChainReferences {
  /** By kind and name of the entry. */
  readonly #named = new Map<string, readonly string[]>();
  /** How many entries of a service name another, by the latter. */
  readonly #namedBy = new Map<string, Map<string, number>>();

  /** @param entry - as it is now; undefined: it is gone. */
  set(kind: ConfigEntryKind, name: string, entry: ConfigEntry | undefined): void {
    const key = lowerCase(name);
    const id = `${kind}/${key}`;
    const after = entry === undefined ? [] : referencesOf(entry);
    for (const service of this.#named.get(id) ?? []) this.#count(service, key, -1);
    for (const service of after) this.#count(service, key, 1);
    if (after.length === 0) this.#named.delete(id);
    else this.#named.set(id, after);
  }

  /** A service, and all whose chains may lead to it. */
  leadingTo(name: string): ReadonlySet<string> {
    // A set that grows while it is walked is walked to its new end.
    const found = new Set([lowerCase(name)]);
    for (const key of found) for (const by of this.#namedBy.get(key)?.keys() ?? []) found.add(by);
    return found;
  }

  #count(service: string, by: string, step: 1 | -1): void {
    const counts = this.#namedBy.get(service) ?? new Map<string, number>();
    const count = (counts.get(by) ?? 0) + step;
    if (count > 0) counts.set(by, count);
    else counts.delete(by);
    if (counts.size > 0) this.#namedBy.set(service, counts);
    else this.#namedBy.delete(service);
  }
}

function referencesOf(entry: ConfigEntry): readonly string[] {
  switch (entry.kind) {
    case "service-resolver":
    case "service-router":
    case "service-splitter":
      return [...new Set(relatedServices(entry).map(lowerCase))];
    default:
      return [];
  }
}
