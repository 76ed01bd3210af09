import { PeeringError } from "../base/errors.js";
import { StatusCode } from "../wire/status.js";

const FAST_MS = 8;
const FAST_ATTEMPTS = 5;
const FAST_CAP_MS = 8_192;
const SLOW_CAP_MS = 64_000;
const EXCHANGE_GAP_MS = 150;

/** How long a stream must have stood for the count of failures to start over, in milliseconds (D-5). */
export const STABLE_STREAM_MS = 60_000;

/**
 * How long a dial loop waits after its n-th consecutive failure, in milliseconds. All kinds of failure share the count. Consul 1.14 to 1.22, without the
 * overflow that makes those wait 0 from the 63rd failure on (D-5): the wait saturates and is never 0.
 *
 * | gRPC status | Wait |
 * |---|---|
 * | FAILED_PRECONDITION: not the leader | 8 ms for n ≤ 5, then 8 · 2^(n − 5), at most 8 192 |
 * | RESOURCE_EXHAUSTED | 8 192 |
 * | any other, or none | 2^n s, at most 64 s |
 */
export function dialBackoffMs(failures: number, status: number | undefined): number {
  // 2 ** 1024 is Infinity, which the caps below turn into the cap.
  if (status === StatusCode.FailedPrecondition) {
    return failures <= FAST_ATTEMPTS ? FAST_MS : Math.min(FAST_MS * 2 ** (failures - FAST_ATTEMPTS), FAST_CAP_MS);
  }
  if (status === StatusCode.ResourceExhausted) return FAST_CAP_MS;
  return Math.min(1_000 * 2 ** Math.max(failures, 0), SLOW_CAP_MS);
}

/** The gRPC status code of `error`, looking through what wraps it; undefined where there is none. */
export function statusCodeOf(error: unknown): number | undefined {
  // Bounded, because nothing stops a chain of causes from being a ring.
  for (let depth = 0; depth < 32 && error instanceof Error; depth++) {
    if (error instanceof PeeringError && error.status !== undefined) return error.status;
    error = error.cause;
  }
  return undefined;
}

/**
 * The gap between two attempts at a secret exchange, in milliseconds: 150 and up to a quarter more, as in Consul 1.14 to
 * 1.22.
 * @param fraction - a random number in [0, 1).
 */
export function exchangeDelayMs(fraction: number): number {
  return EXCHANGE_GAP_MS * (1 + fraction / 4);
}
