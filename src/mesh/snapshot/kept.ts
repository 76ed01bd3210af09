/**
 * Values that were made for one proxy, each under a key: one is taken again as long as all that it is made of is the same, compared by
 * identity. So a change costs as much as what it changes, and not as much as the proxy has.
 */
export class Kept<Value> {
  #former: ReadonlyMap<string, Entry<Value>> = new Map();
  #current = new Map<string, Entry<Value>>();

  /** Begins a round: values that the former one did not ask for are dropped. */
  begin(): void {
    this.#former = this.#current;
    this.#current = new Map();
  }

  /** @param parts - all that `make` reads and that may change. */
  of(key: string, parts: readonly unknown[], make: () => Value): Value {
    const known = this.#current.get(key) ?? this.#former.get(key);
    const entry = known !== undefined && areSame(known.parts, parts) ? known : { parts, value: make() };
    this.#current.set(key, entry);
    return entry.value;
  }
}

interface Entry<Value> {
  readonly parts: readonly unknown[];
  readonly value: Value;
}

function areSame(left: readonly unknown[], right: readonly unknown[]): boolean {
  return left.length === right.length && left.every((part, at) => part === right[at]);
}
