import type { Clock } from "../base/environment.js";
import { sourceOf } from "../base/sources.js";

/** Sources that are remembered: those beyond share one allowance, so that many addresses cost no memory. */
const MAX_SOURCES = 10_000;
const OTHERS = "";

interface Bucket {
  /** Requests that may come at once. */
  tokens: number;
  filledAtMs: number;
}

/** Lets each source ask so often a second, and as often at once. A source is an IPv4 address or the /64 of an IPv6 one. */
export class RequestRate {
  readonly #perSecond: number;
  readonly #clock: Clock;
  readonly #buckets = new Map<string, Bucket>();

  constructor(perSecond: number, clock: Clock) {
    this.#perSecond = perSecond;
    this.#clock = clock;
  }

  /** Counts a request. False: it is one too many. */
  admit(remoteAddress: string): boolean {
    const now = this.#clock.now();
    const bucket = this.#bucketOf(sourceOf(`${remoteAddress}:0`), now);
    bucket.tokens = Math.min(this.#perSecond, bucket.tokens + ((now - bucket.filledAtMs) / 1_000) * this.#perSecond);
    bucket.filledAtMs = now;
    if (bucket.tokens < 1) return false;
    bucket.tokens--;
    return true;
  }

  #bucketOf(source: string, now: number): Bucket {
    const known = this.#buckets.get(source);
    if (known !== undefined) return known;
    if (this.#buckets.size >= MAX_SOURCES) this.#forgetFull(now);
    const key = this.#buckets.size >= MAX_SOURCES ? OTHERS : source;
    const bucket = this.#buckets.get(key) ?? { tokens: this.#perSecond, filledAtMs: now };
    this.#buckets.set(key, bucket);
    return bucket;
  }

  /** A bucket that has had time to fill up is as good as a new one. */
  #forgetFull(now: number): void {
    for (const [source, { filledAtMs }] of this.#buckets) {
      if (now - filledAtMs >= 1_000) this.#buckets.delete(source);
    }
  }
}
