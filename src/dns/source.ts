import { Access, type Authorizer } from "../access/authorizer.js";
import { RecentlyUsed } from "../base/recently-used.js";
import type { PeeringHost } from "../host/host.js";
import type { Node, ServiceInstance } from "../model/instance.js";
import { sidecarName } from "../payload/exported-payload.js";
import { nearestNode, runQuery } from "../stores/prepared-queries.js";
import { lowerCase } from "../syntax/names.js";
import { canonicalAddress, isEncodable } from "./records.js";

/**
 * The data that DNS reads. A peer of `""` means our own data. Names compare without case. A read that is refused throws, and the
 * asker gets SERVFAIL.
 */
export interface DnsSource {
  /** Of this cluster. */
  readonly datacenter: string;
  isPeering(name: string): boolean;
  /** All instances of a service, whatever their health; none for an unknown service. */
  instances(peer: string, service: string): Promise<readonly ServiceInstance[]>;
  /**
   * Another text after any change of what {@link DnsSource.instances} gives, as from then on. Replies about the service are kept
   * while it is the same. Undefined: they are not; so they are where a source has no such method.
   */
  revision?(peer: string, service: string): string | undefined;
  /** Our own instances that speak for a service in the mesh, and the terminating gateways in front of it. */
  connectInstances(service: string): Promise<readonly ServiceInstance[]>;
  /** Those of the ingress gateways that lead to a service. */
  ingressInstances(service: string): Promise<readonly ServiceInstance[]>;
  node(peer: string, name: string): Promise<Node | undefined>;
  virtualIp(peer: string, service: string): Promise<string | undefined>;
  /**
   * The result of the prepared query with this name or id; undefined: there is none.
   * @param from - the address of the asker, or of the client that it asks for.
   * @param visible - the instances of a place that may be shown; hidden ones are not found. Default: all.
   */
  query(nameOrId: string, from: string, visible?: VisibleInstances): Promise<QueryAnswer | undefined>;
  /** Which of our own nodes, or else services, has that address. */
  ownerOf(address: string): Promise<AddressOwner | undefined>;
}

export interface QueryAnswer {
  /** Lower-cased. */
  readonly service: string;
  /** Where its instances were found; `""`: here. */
  readonly peer: string;
  readonly instances: readonly ServiceInstance[];
  /** In seconds; undefined: as that of the service. */
  readonly ttl: number | undefined;
  /** The node whose instances come first. Default: none. */
  readonly near?: string;
}

/** @param token - whose rights count; `""`: the anonymous token. */
export type VisibleInstances = (
  peer: string,
  instances: readonly ServiceInstance[],
  token: string,
) => Promise<readonly ServiceInstance[]>;

export type AddressOwner =
  | { readonly type: "node"; readonly name: string }
  | { readonly type: "service"; readonly name: string };

/** Decoded instances kept in memory: about 20 MB. */
const MAX_KEPT = 10_000;

/** Reads a host: its own catalog, and its imports. */
export function hostSource(host: PeeringHost): DnsSource {
  const decoded = new DecodedImports(host);
  let owners: { readonly revision: bigint; readonly byAddress: ReadonlyMap<string, AddressOwner> } | undefined;
  const instances = async (peer: string, service: string): Promise<readonly ServiceInstance[]> =>
    peer === "" ? host.catalog.instances(service) : decoded.instances(peer, service);
  return {
    datacenter: host.datacenter,
    isPeering: (name) => host.view.peering(name) !== undefined,
    instances,
    revision: (peer, service) => {
      if (peer === "") return `${host.catalog.index.service(service)}`;
      const peering = host.view.peering(peer);
      return peering && `${peering.id} ${host.imports.index({ peer, service })}`;
    },
    connectInstances: async (service) => [...host.gateways.connectInstances(service)],
    ingressInstances: async (service) => [...host.gateways.ingressInstances(service)],
    node: async (peer, name) => (peer === "" ? host.catalog.nodeAlone(name) : host.imports.node({ peer, name })),
    virtualIp: async (peer, service) => host.catalog.virtualIp(service, peer),
    query: async (nameOrId, from, visible = async (_, all) => all) => {
      const query = host.queries.find(nameOrId)?.query;
      if (query === undefined) return undefined;
      const { name, connect = false } = query.service;
      const all = async (peer: string): Promise<readonly ServiceInstance[]> => {
        if (!connect) return instances(peer, name);
        return peer === "" ? [...host.gateways.connectInstances(name)] : instances(peer, sidecarName(name));
      };
      const token = query.token ?? "";
      const found = await runQuery(query, host.datacenter, async (peer) => visible(peer, await all(peer), token));
      return {
        service: lowerCase(name),
        peer: found.peer,
        instances: found.instances,
        ttl: query.ttl?.seconds,
        ...(found.peer === "" && { near: nearestNode(query, { near: "", address: from }, host) }),
      };
    },
    ownerOf: async (address) => {
      const { revision } = host.catalog;
      if (owners?.revision !== revision) owners = { revision, byAddress: addressOwners(host) };
      return owners.byAddress.get(canonicalAddress(address));
    },
  };
}

/** The part of a source that callers without a token may see: a question cannot carry one. */
export function permittedSource(source: DnsSource, authorizer: Authorizer): DnsSource {
  const anonymous = (): Promise<Access> => Access.of(authorizer, "");
  const visible: VisibleInstances = async (peer, instances, token) => {
    const readable = (await Access.of(authorizer, token)).readable(peer);
    return instances.filter(({ node, service }) => readable.node(node.name) && readable.service(service.name));
  };
  return {
    datacenter: source.datacenter,
    isPeering: (name) => source.isPeering(name),
    instances: async (peer, service) => visible(peer, await source.instances(peer, service), ""),
    revision: (peer, service) => {
      const rights = authorizer.revision;
      const ofService = rights === undefined ? undefined : source.revision?.(peer, service);
      return ofService && `${rights} ${authorizer.defaultPolicy} ${ofService}`;
    },
    connectInstances: async (service) => visible("", await source.connectInstances(service), ""),
    ingressInstances: async (service) => visible("", await source.ingressInstances(service), ""),
    node: async (peer, name) => {
      const node = await source.node(peer, name);
      return node !== undefined && (await anonymous()).readable(peer).node(node.name) ? node : undefined;
    },
    query: (nameOrId, from) => source.query(nameOrId, from, visible),
    virtualIp: async (peer, service) =>
      (await anonymous()).readable(peer).service(service) ? source.virtualIp(peer, service) : undefined,
    ownerOf: async (address) => {
      const owner = await source.ownerOf(address);
      return owner !== undefined && (await anonymous()).readable("")[owner.type](owner.name) ? owner : undefined;
    },
  };
}

interface KeptInstances {
  readonly index: bigint;
  readonly instances: readonly ServiceInstance[];
}

/**
 * Imported instances as they were decoded last: what resolvers ask for, they ask for again, while decoding costs more than
 * the whole answer.
 */
class DecodedImports {
  readonly #host: PeeringHost;
  readonly #kept = new RecentlyUsed<string, KeptInstances>(MAX_KEPT, ({ instances }) => instances.length);

  constructor(host: PeeringHost) {
    this.#host = host;
  }

  async instances(peer: string, service: string): Promise<readonly ServiceInstance[]> {
    // By id: a peering that was created again under the name has nothing of the former one.
    const peering = this.#host.view.peering(peer);
    if (peering === undefined) return [];
    const key = `${peering.id}/${service}`;
    // Taken before the read: whatever changes meanwhile makes it too low.
    const index = this.#host.imports.index({ peer, service });
    const kept = this.#kept.get(key);
    if (kept?.index === index) return kept.instances;
    const instances = await this.#host.imports.instances({ peer, service });
    // Names that there is nothing of are anybody's invention.
    if (instances.length > 0) this.#kept.set(key, { index, instances });
    else this.#kept.delete(key);
    return instances;
  }
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
