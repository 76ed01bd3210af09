import type { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";

/** Listeners to changes of single services: a change calls those of its services, however many there are of others. */
export class ServiceListeners {
  readonly #incidents: Incidents;
  readonly #exists: (key: string) => boolean;
  readonly #signals = new Map<string, Signal>();
  /** Keys of services that are listened to and did not exist when that was last looked at: their index grows with that of others. */
  readonly #absent = new Set<string>();

  /** @param exists - whether there is a service now, by its lower-cased name. */
  constructor(incidents: Incidents, exists: (key: string) => boolean) {
    this.#incidents = incidents;
    this.#exists = exists;
  }

  /** @param key - the lower-cased name of the service. @returns removes the listener. */
  on(key: string, listener: () => void): () => void {
    const signal = this.#signals.get(key) ?? new Signal(this.#incidents);
    if (signal.size === 0) {
      this.#signals.set(key, signal);
      this.#look(key);
    }
    const remove = signal.on(listener);
    return () => {
      remove();
      if (signal.size > 0 || this.#signals.get(key) !== signal) return;
      this.#signals.delete(key);
      this.#absent.delete(key);
    };
  }

  /** Calls the listeners of these services, and of those that do not exist. @param changed - by their keys. */
  emit(changed: ReadonlyMap<string, unknown>): void {
    const absent = [...this.#absent].filter((key) => !changed.has(key));
    for (const key of [...changed.keys(), ...absent]) {
      const signal = this.#signals.get(key);
      if (signal === undefined) continue;
      this.#look(key);
      signal.emit();
    }
  }

  #look(key: string): void {
    if (this.#exists(key)) this.#absent.delete(key);
    else this.#absent.add(key);
  }
}
