/** Runs tasks one after another, in the order they came. A task that fails does not hold up the next one. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task, task);
    // The caller owns the failure; the queue only needs to know that it is over.
    this.#last = result.catch(() => {});
    return result;
  }

  /** Resolves when everything that was given so far is over. */
  async idle(): Promise<void> {
    await this.#last;
  }
}

/** Runs tasks at once, but those with a key in common one after another, in the order they came. */
export class KeyedMutex {
  readonly #last = new Map<string, Promise<void>>();

  /** @param keys - without any, the task waits for no other one. */
  run<T>(keys: readonly string[], task: () => Promise<T>): Promise<T> {
    const before = new Set<Promise<void>>();
    for (const key of keys) {
      const last = this.#last.get(key);
      if (last !== undefined) before.add(last);
    }
    const result = Promise.all(before).then(task);
    const over: Promise<void> = result.then(
      () => this.#end(keys, over),
      () => this.#end(keys, over),
    );
    for (const key of keys) this.#last.set(key, over);
    return result;
  }

  /** Resolves when everything that was given a key so far is over. */
  async idle(): Promise<void> {
    await Promise.all(this.#last.values());
  }

  #end(keys: readonly string[], over: Promise<void>): void {
    for (const key of keys) if (this.#last.get(key) === over) this.#last.delete(key);
  }
}
