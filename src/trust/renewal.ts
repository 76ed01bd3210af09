import type { Random } from "../base/environment.js";
import { backoffMs } from "../base/retry.js";
import type { IssuedCertificate } from "./authority.js";
import { BACKDATE_MS } from "./leaf.js";

// When a certificate that is kept valid is issued again: one answer for those of servers and of services.

const SECOND_MS = 1_000;
const RENEW_FROM = 0.6;
const RENEW_UNTIL = 0.9;
/** Renewals after a rotation are spread over so long, as in Consul (1.13 to 1.22). */
const ROTATION_SPREAD_MS = 30 * SECOND_MS;
const MAX_RETRY_MS = 300 * SECOND_MS;
const RETRY_JITTER = 0.2;
/** A waiting timer looks at the calendar this often: machines sleep, and clocks are set. */
export const MAX_WAIT_MS: number = 300 * SECOND_MS;
/** From when on a difference between calendar and monotonic clock counts: a certificate begins twice as long before now. */
export const CLOCK_STEP_MS: number = BACKDATE_MS / 2;

/** When to renew, on the calendar: at a random point between 60 and 90 % of its life. */
export function renewalTime({ notBefore, notAfter }: IssuedCertificate, nowMs: number, random: Random): number {
  const share = RENEW_FROM + (RENEW_UNTIL - RENEW_FROM) * random.fraction();
  // Not at once, however short its life: an authority near its own end issues certificates that are almost over.
  return Math.max(notBefore + (notAfter - notBefore) * share, nowMs + SECOND_MS);
}

/** When to renew a certificate whose root has just ceased to be the active one. */
export function rotationTime(nowMs: number, random: Random): number {
  return nowMs + ROTATION_SPREAD_MS * random.fraction();
}

/** How long to wait after so many failures in a row, one at least: 1 s, 2 s, 4 s up to 5 min, each up to 20 % longer. */
export function retryDelay(failures: number, random: Random): number {
  const jitter = { share: RETRY_JITTER, random };
  return backoffMs(failures - 1, { firstMs: SECOND_MS, maxMs: MAX_RETRY_MS, jitter });
}

/** Why a certificate is not valid at this time; undefined: it is. */
export function validityFault({ notBefore, notAfter }: IssuedCertificate, nowMs: number): string | undefined {
  return notAfter <= nowMs ? "had expired" : notBefore > nowMs ? "was not valid yet" : undefined;
}
