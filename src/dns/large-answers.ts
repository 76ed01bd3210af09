import type { Clock } from "../base/environment.js";
import type { Incidents } from "../base/incidents.js";
import { networkOf, sourceOf } from "../base/sources.js";

export interface LargeAnswerLimits {
  /** An answer is large when it is longer than so many times its question. */
  readonly factor: number;
  /** Large answers to one network within a second. */
  readonly perSecond: number;
  /** Networks that get large answers within a second. */
  readonly networks: number;
}

/**
 * Bounds the large answers over UDP that go to one network (D-60). Over UDP the address of the asker can be forged: short
 * questions with long answers would flood the network of that address.
 */
export class LargeAnswers {
  readonly #limits: LargeAnswerLimits;
  readonly #clock: Clock;
  readonly #incidents: Incidents;
  /** Large answers within this second. */
  readonly #sent = new Map<string, number>();
  #second = 0;

  constructor(limits: LargeAnswerLimits, clock: Clock, incidents: Incidents) {
    this.#limits = limits;
    this.#clock = clock;
    this.#incidents = incidents;
  }

  /**
   * Whether an answer may be sent as it is.
   * @param to - `host:port`.
   */
  admit(to: string, questionBytes: number, answerBytes: number): boolean {
    const { factor, perSecond, networks } = this.#limits;
    if (answerBytes <= factor * questionBytes) return true;
    const second = Math.floor(this.#clock.now() / 1_000);
    if (second !== this.#second) this.#sent.clear();
    this.#second = second;
    const network = networkOf(sourceOf(to));
    const sent = this.#sent.get(network);
    if (sent === undefined && this.#sent.size >= networks) {
      this.#incidents.report(
        "dns-large-answers-to-many",
        "large DNS answers to very many networks: more are told to ask over TCP",
        { network, limit: networks },
      );
      return false;
    }
    if ((sent ?? 0) >= perSecond) {
      this.#incidents.report(
        "dns-large-answers-to-one",
        "too many large DNS answers to one network: it is told to ask over TCP",
        { network, limit: perSecond },
      );
      return false;
    }
    this.#sent.set(network, (sent ?? 0) + 1);
    return true;
  }
}
