import type { Node, ServiceInstance } from "../catalog/instance.js";
import type { PeeringHost } from "../host/host.js";
import { canonicalAddress, isEncodable } from "./records.js";

/**
 * What DNS reads. A peer of `""` means our own data. Names compare without case. A read that is refused throws, and the
 * asker gets SERVFAIL.
 */
export interface DnsSource {
  /** Of this cluster. */
  readonly datacenter: string;
  isPeering(name: string): boolean;
  /** All instances of a service, whatever their health; none for what is unknown. */
  instances(peer: string, service: string): Promise<readonly ServiceInstance[]>;
  /** Our own instances that speak for a service in the mesh. */
  connectInstances(service: string): Promise<readonly ServiceInstance[]>;
  node(peer: string, name: string): Promise<Node | undefined>;
  virtualIp(peer: string, service: string): Promise<string | undefined>;
  /** Which of our own nodes, or else services, has that address. */
  ownerOf(address: string): Promise<AddressOwner | undefined>;
}

export type AddressOwner =
  | { readonly type: "node"; readonly name: string }
  | { readonly type: "service"; readonly name: string };

/** Reads a host: its own catalog, and what it imports. */
export function hostSource(host: PeeringHost): DnsSource {
  let owners: { readonly revision: bigint; readonly byAddress: ReadonlyMap<string, AddressOwner> } | undefined;
  return {
    datacenter: host.datacenter,
    isPeering: (name) => host.peerings.read(name) !== undefined,
    instances: async (peer, service) =>
      peer === "" ? host.catalog.instances(service) : host.imports.instances({ peer, service }),
    connectInstances: async (service) => host.catalog.connectInstances(service),
    node: async (peer, name) => (peer === "" ? host.catalog.node(name)?.node : host.imports.node({ peer, name })),
    virtualIp: async (peer, service) => host.catalog.virtualIp(service, peer),
    ownerOf: async (address) => {
      const { revision } = host.catalog;
      if (owners?.revision !== revision) owners = { revision, byAddress: addressOwners(host) };
      return owners.byAddress.get(canonicalAddress(address));
    },
  };
}

function addressOwners(host: PeeringHost): ReadonlyMap<string, AddressOwner> {
  const owners = new Map<string, AddressOwner>();
  const add = (address: string, owner: AddressOwner): void => {
    const key = canonicalAddress(address);
    if (address !== "" && isEncodable(owner.name) && !owners.has(key)) owners.set(key, owner);
  };
  for (const { name, address } of host.catalog.nodes()) add(address, { type: "node", name });
  for (const name of host.catalog.services().keys()) {
    for (const { service } of host.catalog.instances(name))
      add(service.address, { type: "service", name: service.name });
  }
  return owners;
}
