import type { Clock } from "../base/environment.js";
import type { Incidents } from "../base/incidents.js";
import { networkOf, type Place, Places, sourceOf } from "../base/sources.js";
import type { HostLimits } from "./options.js";

type AdmissionLimits = Pick<
  HostLimits,
  "unauthorizedPerSecond" | "unauthorizedPerSecondInAll" | "unauthorizedStreams" | "unauthorizedStreamsInAll"
>;

const WINDOW_MS = 1_000;
/** A dialer opens its stream at once: one that has not for so long may be displaced. */
const GRACE_MS = 2_000;

/**
 * Counts opens and exchanges by source before they are authorised, and refuses those of a source that makes too many
 * (D-58). The limits for all sources together bound the memory for it.
 */
export class Admission {
  readonly #clock: Clock;
  readonly #limits: AdmissionLimits;
  readonly #incidents: Incidents;
  /** Streams that wait to be authorised. */
  readonly #streams: Places;
  #windowBegan = Number.NEGATIVE_INFINITY;
  /** Attempts of this second, by source and by network. */
  #attempts = new Map<string, number>();
  #attemptsInAll = 0;

  constructor(clock: Clock, limits: AdmissionLimits, incidents: Incidents) {
    this.#clock = clock;
    this.#limits = limits;
    this.#incidents = incidents;
    this.#streams = new Places(
      { perSource: limits.unauthorizedStreams, inAll: limits.unauthorizedStreamsInAll, graceMs: GRACE_MS },
      clock,
    );
  }

  /** Counts an attempt. False: over the limit, refuse without looking closer. */
  admit(remoteAddress: string): boolean {
    const now = this.#clock.now();
    if (now - this.#windowBegan >= WINDOW_MS) {
      this.#windowBegan = now;
      this.#attempts = new Map();
      this.#attemptsInAll = 0;
    }
    const source = sourceOf(remoteAddress);
    const network = networkOf(source);
    const attempts = (this.#attempts.get(source) ?? 0) + 1;
    const ofNetwork = (this.#attempts.get(network) ?? 0) + 1;
    const { unauthorizedPerSecond, unauthorizedPerSecondInAll } = this.#limits;
    // Half of the total is open to every network. Of the rest a network gets the less, the more it has had: who
    // comes last finds something left, however many attempts others make, and from however many addresses they can.
    const mostInAll = (unauthorizedPerSecondInAll * (1 + 1 / ofNetwork)) / 2;
    // Before those in all are counted: refused attempts of one source must not use up the others' share.
    if (attempts > unauthorizedPerSecond || this.#attemptsInAll >= mostInAll) {
      this.#incidents.report(
        "unauthorized-rate",
        "refused: too many opens and exchanges of a second nobody authorised",
        {
          source,
        },
      );
      return false;
    }
    this.#attempts.set(source, attempts);
    this.#attempts.set(network, ofNetwork);
    this.#attemptsInAll++;
    return true;
  }

  /**
   * Counts an attempt to open a stream. Undefined: over a limit. Else its place, to be left when it is authorised or over.
   * @param displaced - ends the stream at once: another source gets its place.
   */
  admitStream(remoteAddress: string, displaced: () => void): Place | undefined {
    if (!this.admit(remoteAddress)) return undefined;
    const source = sourceOf(remoteAddress);
    const report = (message: string): void => this.#incidents.report("unauthorized-streams", message, { source });
    const place = this.#streams.take(source, () => {
      report("a stream that nobody authorised was ended for another one");
      displaced();
    });
    if (typeof place === "object") return place;
    report("refused: too many streams wait to be authorised");
    return undefined;
  }
}
