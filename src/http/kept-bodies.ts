import type { Incidents } from "../base/incidents.js";
import { type BodyPlace, bytesOf, type Gathering, WholeBody } from "./answer-body.js";

interface KeptBody {
  /** As it was before the answer was made. */
  readonly basis: string;
  readonly body: WholeBody;
}

/**
 * Whole answers to questions about imports, which must be read from the storage and decoded: another call that asks the same gets
 * the same bytes, until anything changes that they depend on. The one that was asked for longest ago goes first.
 */
export class KeptBodies {
  readonly #most: number;
  readonly #incidents: Incidents;
  /** By question. */
  readonly #bodies = new Map<string, KeptBody>();
  readonly #gathered = new Set<string>();
  /** Of all answers, and of the pieces that are being gathered. */
  #bytes = 0;

  constructor(most: number, incidents: Incidents) {
    this.#most = most;
    this.#incidents = incidents;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** @param basis - is another one after each change of anything that the answer depends on beside the question. */
  at(question: string, basis: string): BodyPlace {
    const kept = this.#bodies.get(question);
    if (kept !== undefined) {
      this.#forget(question);
      if (kept.basis === basis) this.#put(question, kept);
    }
    return {
      body: kept?.basis === basis ? kept.body : undefined,
      gather: () => this.#gather(question, basis),
    };
  }

  #gather(question: string, basis: string): Gathering | undefined {
    if (this.#gathered.has(question)) return undefined;
    this.#gathered.add(question);
    let pieces: Buffer[] | undefined = [];
    const end = (): readonly Buffer[] | undefined => {
      const gathered = pieces;
      if (gathered === undefined) return undefined;
      pieces = undefined;
      this.#gathered.delete(question);
      this.#bytes -= bytesOf(gathered);
      return gathered;
    };
    return {
      add: (piece) => {
        if (pieces === undefined) return;
        pieces.push(piece);
        this.#bytes += piece.length;
        for (const oldest of this.#bodies.keys()) {
          if (this.#bytes <= this.#most) break;
          this.#forget(oldest);
        }
        if (this.#bytes <= this.#most) return;
        const fields = { limit: this.#most };
        this.#incidents.report(
          "kept-bodies-full",
          "a long answer is too long to be kept: it is made each time",
          fields,
        );
        end();
      },
      done: () => {
        const gathered = end();
        if (gathered === undefined) return;
        this.#forget(question);
        this.#put(question, { basis, body: new WholeBody(gathered) });
      },
      giveUp: () => void end(),
    };
  }

  #put(question: string, kept: KeptBody): void {
    this.#bodies.set(question, kept);
    this.#bytes += kept.body.bytes;
  }

  #forget(question: string): void {
    this.#bytes -= this.#bodies.get(question)?.body.bytes ?? 0;
    this.#bodies.delete(question);
  }
}
