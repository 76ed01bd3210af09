import type { Check } from "./instance.js";

/** Importance of a status when checks are flattened; what Consul does not know comes first (specification 4.3.4). */
const importance: ReadonlyMap<string, number> = new Map([
  ["maintenance", 1],
  ["critical", 2],
  ["warning", 3],
  ["passing", 4],
]);

/**
 * The one status that stands for all checks of an instance on the wire; `undefined` without checks. An unknown status
 * text beats every known one and travels as it is. Follows Consul 1.13.4, 1.14.2 and later.
 */
export function flattenedStatus(checks: readonly Pick<Check, "checkId" | "status">[]): string | undefined {
  if (checks.length === 0) return undefined;
  let status = "passing";
  for (const check of checks) {
    if (check.checkId === "_node_maintenance" || check.checkId.startsWith("_service_maintenance:")) {
      return "maintenance";
    }
    // On a tie the later one wins, which shows between two unknown texts.
    if ((importance.get(check.status) ?? 0) <= (importance.get(status) ?? 0)) status = check.status;
  }
  return status;
}
