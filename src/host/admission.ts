import { isIPv6 } from "node:net";
import type { Clock } from "../environment.js";
import type { HostLimits } from "./options.js";

type AdmissionLimits = Pick<
  HostLimits,
  "unauthorizedPerSecond" | "unauthorizedPerSecondInAll" | "unauthorizedStreams" | "unauthorizedStreamsInAll"
>;

const WINDOW_MS = 1_000;

/**
 * Opens and exchanges that nobody has authorised yet, counted by where they come from: whoever makes many of them is
 * refused, and nobody else. What is kept is bounded by the limits for all sources together.
 */
export class Admission {
  readonly #clock: Clock;
  readonly #limits: AdmissionLimits;
  #windowBegan = Number.NEGATIVE_INFINITY;
  /** Attempts of this second, by source. */
  #attempts = new Map<string, number>();
  #attemptsInAll = 0;
  /** Streams that wait to be authorised, by source. */
  readonly #waiting = new Map<string, number>();
  #waitingInAll = 0;

  constructor(clock: Clock, limits: AdmissionLimits) {
    this.#clock = clock;
    this.#limits = limits;
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
    const attempts = (this.#attempts.get(source) ?? 0) + 1;
    // Before those in all are counted: what is refused of one source must not use up what is left for the others.
    if (attempts > this.#limits.unauthorizedPerSecond) return false;
    if (this.#attemptsInAll >= this.#limits.unauthorizedPerSecondInAll) return false;
    this.#attempts.set(source, attempts);
    this.#attemptsInAll++;
    return true;
  }

  /**
   * Counts an attempt to open a stream. Undefined: over a limit. Else what is to be called, once or more often, when the
   * stream is authorised or over.
   */
  admitStream(remoteAddress: string): (() => void) | undefined {
    const source = sourceOf(remoteAddress);
    const waiting = this.#waiting.get(source) ?? 0;
    if (waiting >= this.#limits.unauthorizedStreams) return undefined;
    if (this.#waitingInAll >= this.#limits.unauthorizedStreamsInAll) return undefined;
    if (!this.admit(remoteAddress)) return undefined;
    this.#waiting.set(source, waiting + 1);
    this.#waitingInAll++;
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#waitingInAll--;
      const others = (this.#waiting.get(source) ?? 1) - 1;
      if (others === 0) this.#waiting.delete(source);
      else this.#waiting.set(source, others);
    };
  }
}

/** Who is behind an address, `host:port`: the host, and of an IPv6 address the /64, for its owner has all of that. */
export function sourceOf(remoteAddress: string): string {
  const host = remoteAddress.replace(/:\d*$/, "").replace(/^\[(.*)\]$/, "$1");
  if (!isIPv6(host)) return host;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host);
  if (mapped?.[1] !== undefined) return mapped[1];
  const [before = "", after] = host.replace(/%.*$/, "").split("::");
  const groups = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const left = groups(before);
  const right = after === undefined ? [] : groups(after);
  const zeros = Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => "0");
  return [...left, ...zeros, ...right]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":");
}
