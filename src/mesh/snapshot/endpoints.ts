import { compareUtf8 } from "../../base/byte-order.js";
import { ipVersion, isPort } from "../../base/host-port.js";
import { healthOf } from "../../model/check-groups.js";
import type { ServiceInstance } from "../../model/instance.js";

/** One address of a load assignment. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
  readonly healthy: boolean;
  /** 1 to 128. */
  readonly weight: number;
}

/** Whether to take the addresses for callers in other clusters (`wan`). */
export type Side = "lan" | "wan";

/** Addresses for a proxy: some, with names, or with addresses alone. */
export interface Endpoints {
  readonly list: readonly Endpoint[];
  /** They are names, which Envoy takes in no load assignment of its own. */
  readonly hostnames: boolean;
}

const MAX_WEIGHT = 128;

/** Where an instance is reached: the address of the service, else of its node; in other clusters the `wan` one of each first. */
export function addressOf(
  { node, service }: ServiceInstance,
  side: Side,
): { readonly address: string; readonly port: number } {
  const wan = side === "wan" ? service.taggedAddresses["wan"] : undefined;
  const port = wan !== undefined && wan.address !== "" && wan.port !== 0 ? wan.port : service.port;
  const nodeWan = side === "wan" ? node.taggedAddresses["wan"] : undefined;
  const address = [wan?.address, service.address, nodeWan, node.address].find(
    (each) => each !== undefined && each !== "",
  );
  return { address: address ?? "", port };
}

/** Health and weight as Envoy is told them; an instance in maintenance gets no calls, also one of a peer. */
export function endpointOf(instance: ServiceInstance, side: Side, onlyPassing = false): Endpoint {
  const { weights } = instance.service;
  const { total, passing, warning, critical, maintenance } = healthOf(instance);
  const healthy = critical === 0 && !maintenance && (!onlyPassing || passing === total);
  const weight = warning > 0 ? weights.warning : weights.passing;
  if (weight < 1) return { ...addressOf(instance, side), healthy: false, weight: 1 };
  return { ...addressOf(instance, side), healthy, weight: Math.min(weight, MAX_WEIGHT) };
}

/**
 * The instances with an address, in a stable order. If one of them has a name in place of an address, those with names alone are kept:
 * one cluster of Envoy takes either names or addresses.
 */
export function endpointsOf(instances: readonly ServiceInstance[], side: Side, onlyPassing = false): Endpoints {
  const all = instances
    .map((instance) => endpointOf(instance, side, onlyPassing))
    .filter(({ address, port }) => address !== "" && isPort(port));
  const named = all.filter(({ address }) => ipVersion(address) === 0);
  const list = (named.length > 0 ? named : all).sort(compareEndpoints);
  return { list, hostnames: named.length > 0 };
}

function compareEndpoints(left: Endpoint, right: Endpoint): number {
  return (
    compareUtf8(left.address, right.address) ||
    left.port - right.port ||
    Number(right.healthy) - Number(left.healthy) ||
    left.weight - right.weight
  );
}
