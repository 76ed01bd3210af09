import { Wake } from "../base/latest.js";
/** Lines on their way to one reader; bounded, so that a reader which does not read costs so many. */
export class LineQueue implements AsyncIterable<string> {
  readonly #most: number;
  readonly #leftOut: () => void;
  readonly #lines: string[] = [];
  #full = false;
  #ended = false;
  readonly #wake = new Wake();

  /** @param leftOut - called when lines are left out, once until there is room again. */
  constructor(most: number, leftOut: () => void) {
    this.#most = most;
    this.#leftOut = leftOut;
  }

  push(line: string): void {
    if (this.#ended) return;
    if (this.#lines.length >= this.#most) {
      if (this.#full) return;
      // First: the report of it may be a line, too.
      this.#full = true;
      this.#leftOut();
      return;
    }
    this.#full = false;
    this.#lines.push(line);
    this.#wake.call();
  }

  /** The reader gets the waiting lines, and then the end. */
  end(): void {
    this.#ended = true;
    this.#wake.call();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<string> {
    for (;;) {
      const lines = this.#lines.splice(0);
      if (lines.length > 0) yield lines.join("");
      else if (this.#ended) return;
      else await this.#wake.wait();
    }
  }
}
