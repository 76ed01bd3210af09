import { Alarm } from "../base/alarm.js";
import type { Clock } from "../base/environment.js";
import type { Incidents } from "../base/incidents.js";
import { type NoPlace, Places } from "../base/sources.js";

export interface HandshakeLimits {
  /** Handshakes of one source that are under way. */
  readonly perSource: number;
  /** Handshakes of all sources that are under way. */
  readonly inAll: number;
  /** How long one is safe, in milliseconds, when another one waits for its place. */
  readonly graceMs: number;
}

interface Waiting {
  readonly begin: () => void;
  readonly displaced: () => void;
  readonly given: (leave: () => void) => void;
}

/**
 * Lets few TLS handshakes of a listener be under way at once: each costs more work than anything else that a stranger can ask
 * for. Others wait, and sources take turns. Callers that never finish one keep no others out: their places are taken away.
 */
export class Handshakes {
  readonly #listener: string;
  readonly #limits: HandshakeLimits;
  readonly #incidents: Incidents;
  readonly #places: Places;
  /** By source, the oldest first. The source whose turn is next stands first. */
  readonly #waiting = new Map<string, Set<Waiting>>();
  readonly #graceOver: Alarm;
  /** Places that are left while others are being given are given with them. */
  #giving = false;

  /** @param listener - for log lines. */
  constructor(listener: string, limits: HandshakeLimits, clock: Clock, incidents: Incidents) {
    this.#listener = listener;
    this.#limits = limits;
    this.#graceOver = new Alarm(clock, () => this.#give());
    this.#incidents = incidents;
    this.#places = new Places({ ...limits, onlyStale: true }, clock);
  }

  /**
   * Calls `begin` when the handshake may begin, which may be at once.
   * @param displaced - ends the connection at once: its place goes to another.
   * @returns the handshake is over, or its connection has gone. May be called more than once.
   */
  enter(source: string, begin: () => void, displaced: () => void): () => void {
    let leave = (): void => this.#remove(source, one);
    const one: Waiting = {
      begin,
      displaced,
      given: (given) => {
        leave = given;
      },
    };
    this.#waiting.set(source, (this.#waiting.get(source) ?? new Set()).add(one));
    this.#give();
    if (this.#waiting.get(source)?.has(one)) this.#reportWait(source);
    return () => leave();
  }

  /** Gives places to waiting handshakes, one to each source in turn, as long as there are any. */
  #give(): void {
    if (this.#giving) return;
    this.#giving = true;
    // A source that is given a place moves to the end, and is visited again.
    for (const source of this.#waiting.keys()) if (this.#giveTo(source) === "all") break;
    this.#giving = false;
    // By then some handshakes have held their place for long enough.
    if (this.#waiting.size > 0) this.#graceOver.set(this.#limits.graceMs);
    else this.#graceOver.cancel();
  }

  /** Why the source was given none. */
  #giveTo(source: string): NoPlace | undefined {
    const [one] = this.#waiting.get(source) ?? [];
    if (one === undefined) return undefined;
    const place = this.#places.take(source, () => {
      const fields = { listener: this.#listener, source };
      this.#incidents.report("handshake-displaced", "a TLS handshake was ended for one of another client", fields);
      one.displaced();
    });
    if (typeof place !== "object") return place;
    const left = this.#waiting.get(source) ?? new Set();
    this.#remove(source, one);
    // To the end: it is the turn of others.
    if (left.size > 0) {
      this.#waiting.delete(source);
      this.#waiting.set(source, left);
    }
    one.given(() => {
      place.leave();
      this.#give();
    });
    one.begin();
    return undefined;
  }

  #remove(source: string, one: Waiting): void {
    const left = this.#waiting.get(source);
    left?.delete(one);
    if (left?.size === 0) this.#waiting.delete(source);
  }

  #reportWait(source: string): void {
    const { perSource, inAll } = this.#limits;
    const fields = { listener: this.#listener, source, perSource, inAll };
    this.#incidents.report("handshake-waits", "as many TLS handshakes are under way as may be: one waits", fields);
  }
}
