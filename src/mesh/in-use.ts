/** Values that several users share, each under a key: one is kept for as long as anything uses it. */
export class InUse<Value> {
  readonly #entries = new Map<string, { readonly value: Value; users: number }>();

  /** @param by - the keys that one user uses, to be given up with {@link InUse.release}. */
  use(key: string, by: Set<string>, make: () => Value): Value {
    const known = this.#entries.get(key);
    const entry = known ?? { value: make(), users: 0 };
    if (known === undefined) this.#entries.set(key, entry);
    if (!by.has(key)) {
      by.add(key);
      entry.users++;
    }
    return entry.value;
  }

  release(by: Set<string>): void {
    for (const key of by) {
      const entry = this.#entries.get(key);
      if (entry !== undefined && --entry.users === 0) this.#entries.delete(key);
    }
    by.clear();
  }

  /** How many are kept. */
  get size(): number {
    return this.#entries.size;
  }
}
