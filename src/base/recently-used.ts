interface Used<Value> {
  readonly value: Value;
  cost: number;
}

/** Values by key that together cost no more than a limit. Beyond it, the one that was used longest ago is dropped. */
export class RecentlyUsed<Key, Value> {
  readonly #limit: number;
  readonly #costOf: (value: Value) => number;
  readonly #onDropped: () => void;
  /** The one that was used longest ago comes first. */
  readonly #used = new Map<Key, Used<Value>>();
  #cost = 0;

  /** @param onDropped - is called for each value that makes room for others. */
  constructor(limit: number, costOf: (value: Value) => number, onDropped: () => void = () => {}) {
    this.#limit = limit;
    this.#costOf = costOf;
    this.#onDropped = onDropped;
  }

  /** How many there are. */
  get size(): number {
    return this.#used.size;
  }

  /** Counts as a use. */
  get(key: Key): Value | undefined {
    const used = this.#used.get(key);
    if (used === undefined) return undefined;
    this.#used.delete(key);
    this.#used.set(key, used);
    return used.value;
  }

  /** One that alone costs more than the limit is not kept, and nothing is dropped for it. */
  set(key: Key, value: Value): void {
    this.delete(key);
    this.#add(key, { value, cost: this.#costOf(value) });
  }

  /** To be called when the cost of a value has changed. Counts as a use. */
  recount(key: Key): void {
    const used = this.#used.get(key);
    if (used === undefined) return;
    this.delete(key);
    used.cost = this.#costOf(used.value);
    this.#add(key, used);
  }

  delete(key: Key): void {
    this.#cost -= this.#used.get(key)?.cost ?? 0;
    this.#used.delete(key);
  }

  #add(key: Key, used: Used<Value>): void {
    if (used.cost > this.#limit) return;
    this.#used.set(key, used);
    this.#cost += used.cost;
    for (const oldest of this.#used.keys()) {
      if (this.#cost <= this.#limit) break;
      this.delete(oldest);
      this.#onDropped();
    }
  }
}
