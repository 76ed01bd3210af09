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
