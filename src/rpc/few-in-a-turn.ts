/**
 * Begins things that came together a few in each turn of the event loop, in their order: what is begun at once where little comes would else hold
 * up everything for as long as all of it takes.
 */
export class FewInATurn {
  readonly #most: number;
  readonly #waiting: (() => void)[] = [];
  /** Begun in this turn. */
  #begun = 0;
  #next: NodeJS.Immediate | undefined;

  /** @param most - that are begun in one turn. */
  constructor(most: number) {
    this.#most = most;
  }

  /** Calls `begin` now, or in a later turn. It must not throw. */
  run(begin: () => void): void {
    this.#next ??= setImmediate(() => this.#turn());
    if (this.#begun < this.#most) {
      this.#begun++;
      begin();
    } else this.#waiting.push(begin);
  }

  #turn(): void {
    this.#next = undefined;
    const due = this.#waiting.splice(0, this.#most);
    this.#begun = due.length;
    // A turn for those that come now, and those that still wait.
    if (due.length > 0) this.#next = setImmediate(() => this.#turn());
    for (const begin of due) begin();
  }
}
