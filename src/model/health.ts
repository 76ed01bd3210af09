import type { Check } from "./instance.js";

/** Importance of a status when checks are flattened; a status that Consul does not know comes first. */
const importance: ReadonlyMap<string, number> = new Map([
  ["maintenance", 1],
  ["critical", 2],
  ["warning", 3],
  ["passing", 4],
]);

type CheckState = Pick<Check, "checkId" | "status">;

/** Whether a check stands for maintenance of its node or service. */
export function isMaintenance(checkId: string): boolean {
  return checkId === NODE_MAINTENANCE || checkId.startsWith(SERVICE_MAINTENANCE);
}

/** Consul's servers write it for each agent, beside the agent's own checks. */
export const MEMBERSHIP_CHECK = "serfHealth";
export const NODE_MAINTENANCE = "_node_maintenance";
/** The id of the service follows. */
export const SERVICE_MAINTENANCE = "_service_maintenance:";

/**
 * Whether a status keeps an instance from being handed out. Consul hands out instances of peers in `maintenance`; here the
 * importer's readers get only what the exporter's own readers get (D-52).
 */
export function isCritical(status: string): boolean {
  return status === "critical" || status === "maintenance";
}

/**
 * The one status that stands for all checks of an instance on the wire; `undefined` without checks. Anything that keeps
 * the instance out here is `critical`, so that no importer hands it out (D-52); else an unknown status text beats every known one and
 * travels as it is.
 * @param strictConsul - as Consul 1.13.4, 1.14.2 and later. Maintenance is `maintenance`, which its importers hand out, and an
 *   unknown text beats `critical`.
 */
export function flattenedStatus(checks: readonly CheckState[], strictConsul: boolean): string | undefined {
  if (checks.length === 0) return undefined;
  if (!strictConsul && checks.some(({ checkId, status }) => isCritical(status) || isMaintenance(checkId))) {
    return "critical";
  }
  let status = "passing";
  for (const check of checks) {
    if (isMaintenance(check.checkId)) return "maintenance";
    // On a tie the later one wins, which shows between two unknown texts.
    if ((importance.get(check.status) ?? 0) <= (importance.get(status) ?? 0)) status = check.status;
  }
  return status;
}
