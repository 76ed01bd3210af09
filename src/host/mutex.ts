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
