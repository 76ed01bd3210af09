import type { Leadership } from "../../host/leadership.js";

/** The leadership of one life of a simulated process, moved by the adversary. */
export class SimLeadership implements Leadership {
  readonly leaderAddress = "";
  #isLeader = true;
  readonly #listeners = new Set<() => void>();

  get isLeader(): boolean {
    return this.#isLeader;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  move(isLeader: boolean): void {
    if (isLeader === this.#isLeader) return;
    this.#isLeader = isLeader;
    for (const listener of [...this.#listeners]) listener();
  }
}
