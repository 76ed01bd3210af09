import { joinHostPort } from "../base/host-port.js";
import type { ServiceInstance } from "./instance.js";

/** Where the outside reaches a gateway: its own `wan` address, its address, its node's `wan` address, its node's address. */
function outsideAddress({ node, service }: ServiceInstance): string {
  const { wan } = service.taggedAddresses;
  const { wan: nodeWan } = node.taggedAddresses;
  if (wan !== undefined && wan.address !== "")
    return joinHostPort(wan.address, wan.port === 0 ? service.port : wan.port);
  const host = [service.address, nodeWan, node.address].find((address) => address !== undefined && address !== "");
  return joinHostPort(host ?? "", service.port);
}

/** Where this cluster reaches a gateway of its own. */
export function insideAddress({ node, service }: ServiceInstance): string {
  return joinHostPort(service.address === "" ? node.address : service.address, service.port);
}

/**
 * The server addresses an acceptor sends its peers: those of the servers, or of the mesh gateways
 * where peers come in through them. Undefined when there are none: an empty list is never sent.
 */
export function serverAddressesToSend(
  servers: readonly string[],
  gateways: readonly ServiceInstance[],
  throughGateways: boolean,
): readonly string[] | undefined {
  const addresses = throughGateways ? gateways.map(outsideAddress) : servers;
  return addresses.length === 0 ? undefined : addresses;
}
