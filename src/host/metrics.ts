import type { PeeringStatus } from "./status-board.js";

/** One reading of a gauge, named as Consul names it (without its `consul.` prefix). */
export interface Metric {
  readonly name: "peering.exported_services" | "peering.healthy";
  readonly value: number;
  readonly labels: Readonly<Record<string, string>>;
}

interface MeasuredPeering {
  readonly id: string;
  readonly name: string;
  readonly status: PeeringStatus;
}

/**
 * Consul's gauges of peerings (Consul 1.14 to 1.22), as the leader emits them every 9 s. A node that
 * does not lead reports that it exports nothing, without labels, as Consul does once when it loses the lead.
 */
export function peeringMetrics(peerings: readonly MeasuredPeering[], isLeader: boolean): readonly Metric[] {
  if (!isLeader) return [{ name: "peering.exported_services", value: 0, labels: {} }];
  return peerings.flatMap((peering) => {
    const labels = { peer_name: peering.name, peer_id: peering.id };
    const { facts, healthy, stream } = peering.status;
    const health: Metric = { name: "peering.healthy", value: healthy ? 1 : 0, labels };
    // Consul reports a count only for peerings it has seen a stream of.
    if (facts.neverConnected) return [health];
    return [{ name: "peering.exported_services", value: stream.exportedServices.length, labels }, health];
  });
}
