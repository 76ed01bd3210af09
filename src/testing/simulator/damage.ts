import { PeeringError } from "../../base/errors.js";
import type { Entry, Key, Write } from "../../storage/storage.js";

/**
 * Stored values of one disk that differ from the written ones. Reading one fails and names it, as with a storage that verifies what it
 * reads, until it is written again or deleted.
 */
export class Damage {
  readonly #keys = new Map<string, Key>();

  get keys(): readonly Key[] {
    return [...this.#keys.values()];
  }

  add(key: Key): void {
    this.#keys.set(JSON.stringify(key), key);
  }

  has(key: Key): boolean {
    return this.#keys.has(JSON.stringify(key));
  }

  /** All stored values are right again, as from a backup. */
  mend(): void {
    this.#keys.clear();
  }

  written(writes: readonly Write[]): void {
    for (const { key } of writes) this.#keys.delete(JSON.stringify(key));
  }

  /** @throws {PeeringError} `storage-damaged`: some of these are damaged. */
  verify(entries: readonly Entry[]): void {
    const damagedKeys = entries.map(({ key }) => key).filter((key) => this.has(key));
    if (damagedKeys.length === 0) return;
    const names = damagedKeys.map((key) => key.join("/")).join(", ");
    throw new PeeringError("storage-damaged", `damaged on the simulated disk: ${names}`, { damagedKeys });
  }
}
