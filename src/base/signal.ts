import { errorText } from "./errors.js";
import type { Incidents } from "./incidents.js";

/**
 * The listeners of one kind of event. All of them are called, in the order in which they were added, whatever another one
 * throws. A listener that is added while the others are called hears the next event; one that is removed hears nothing more.
 */
export class Signal<Values extends readonly unknown[] = []> {
  readonly #listeners = new Set<{ readonly call: (...values: Values) => void }>();
  readonly #incidents: Pick<Incidents, "report"> | undefined;

  /**
   * @param incidents - gets a report of each listener that throws (`event-listener-failed`). Without it, `emit` throws its error,
   *   once all of them have been called.
   */
  constructor(incidents?: Pick<Incidents, "report">) {
    this.#incidents = incidents;
  }

  get size(): number {
    return this.#listeners.size;
  }

  /** Adds a listener; one that is added twice is called twice. @returns removes it; calling that again is a no-op. */
  on(listener: (...values: Values) => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }

  /** Resolves when it is emitted the next time. Any number of callers may wait. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      const remove = this.on(() => {
        remove();
        resolve();
      });
    });
  }

  /** Calls all listeners before it returns. */
  emit(...values: Values): void {
    const failures: unknown[] = [];
    for (const listener of [...this.#listeners]) {
      if (!this.#listeners.has(listener)) continue;
      try {
        listener.call(...values);
      } catch (error) {
        if (this.#incidents === undefined) failures.push(error);
        else this.#incidents.report("event-listener-failed", "a listener threw an error", { error: errorText(error) });
      }
    }
    if (failures.length === 1) throw failures[0];
    if (failures.length > 1) throw new AggregateError(failures, "several listeners threw an error");
  }

  /** Removes all listeners. */
  clear(): void {
    this.#listeners.clear();
  }
}
