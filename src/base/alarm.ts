import type { Clock, Timer } from "./environment.js";

/** An action that is due at most once at a time. It can be set again and again, also by the action itself. */
export class Alarm {
  readonly #clock: Clock;
  readonly #action: () => void;
  #timer: Timer | undefined;

  constructor(clock: Clock, action: () => void) {
    this.#clock = clock;
    this.#action = action;
  }

  /** Whether the action is still to come. */
  get isSet(): boolean {
    return this.#timer !== undefined;
  }

  /** Calls the action `delayMs` from now, instead of at the time set before. */
  set(delayMs: number): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.after(delayMs, () => {
      this.#timer = undefined;
      this.#action();
    });
  }

  /** Calls the action `delayMs` from now, unless a time is set already. */
  ensure(delayMs: number): void {
    if (this.#timer === undefined) this.set(delayMs);
  }

  /** The action does not come, until it is set again. */
  cancel(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }
}
