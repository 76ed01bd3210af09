import { Signal } from "../../base/signal.js";
import type { Leadership } from "../../host/leadership.js";

/** The leadership of one life of a simulated process, moved by the adversary. */
export class SimLeadership implements Leadership {
  readonly leaderAddress = "";
  #isLeader = true;
  readonly #moved = new Signal();

  get isLeader(): boolean {
    return this.#isLeader;
  }

  onChange(listener: () => void): () => void {
    return this.#moved.on(listener);
  }

  move(isLeader: boolean): void {
    if (isLeader === this.#isLeader) return;
    this.#isLeader = isLeader;
    this.#moved.emit();
  }
}
