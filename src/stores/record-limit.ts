import { PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { hasMoreValues } from "../model/write-limits.js";
import { StatusCode } from "../wire/status.js";

/**
 * Looks at something before anything is made of it: that takes time for each value.
 * @param what - it is: `a registration`.
 * @throws {PeeringError} `resource-exhausted`
 */
export function requireFewValues(what: string, value: unknown, limit: number, incidents: Incidents | undefined): void {
  if (!hasMoreValues(value, limit)) return;
  incidents?.report("record-values", "a registration, a config entry or a query has more values than it may", {
    what,
    limit,
  });
  throw exhausted(`${what} has more than ${limit} values`);
}

export function exhausted(why: string): PeeringError {
  return new PeeringError("resource-exhausted", why, { status: StatusCode.ResourceExhausted });
}
