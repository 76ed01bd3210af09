import { compareUtf8 } from "../base/byte-order.js";
import { EVERY_SERVICE } from "../config/config-entry-set.js";
import type { ServiceAddress } from "../model/instance.js";
import { joined, type Listing } from "../model/listing.js";
import type { Catalog, IndexedInstance, IndexedService } from "../stores/catalog.js";
import type { ConfigEntries } from "../stores/config-entries.js";
import { lowerCase } from "../syntax/names.js";

/** Services that are no part of the mesh, of which `*` of a gateway means none. */
const NEVER_FRONTED: ReadonlySet<string> = new Set(["consul"]);

/** Which gateways stand in front of which local services: config entries, joined with the catalog (Consul 1.21). */
export class Gateways {
  readonly #catalog: Catalog;
  readonly #configEntries: ConfigEntries;

  constructor(parts: { readonly catalog: Catalog; readonly configEntries: ConfigEntries }) {
    this.#catalog = parts.catalog;
    this.#configEntries = parts.configEntries;
  }

  /** Lower-cased names of the terminating gateways that front a service, in byte order. */
  terminating(service: string): readonly string[] {
    const { entries } = this.#configEntries;
    return leadingTo(
      (name) => entries.terminatingGateways(name),
      service,
      (key) => this.#isFronted(key),
    );
  }

  /** Whether `*` of a terminating gateway means a service. @param key - lower-cased. */
  #isFronted(key: string): boolean {
    if (NEVER_FRONTED.has(key)) return false;
    return this.#catalog.isOrdinary(key) || this.#configEntries.entries.isDestination(key);
  }

  /** Lower-cased names of the ingress gateways that lead to a service, in byte order. */
  ingress(service: string): readonly string[] {
    const { entries } = this.#configEntries;
    const isOfAll = (key: string): boolean => this.#catalog.isConnectEnabled(key);
    return leadingTo((name) => entries.ingressGateways(name), service, isOfAll);
  }

  /** The instances of the ingress gateways that lead to a service. */
  ingressInstances(service: string): Listing<IndexedInstance> {
    return joined(this.ingress(service).map((gateway) => this.#catalog.indexedInstances(gateway)));
  }

  /** Grows when {@link ingressInstances} may have changed. */
  ingressIndex(service: string): bigint {
    const { index } = this.#catalog;
    const every = this.#configEntries.entries.ingressGateways(EVERY_SERVICE).length > 0;
    return latest(
      this.#configEntries.kindIndex("ingress-gateway"),
      every ? index.connect(service) : 0n,
      index.kind("ingress-gateway"),
      ...this.ingress(service).map((gateway) => index.service(gateway)),
    );
  }

  /** All that leads to a service in the mesh: what speaks for it, then the terminating gateways in front of it. */
  connectInstances(service: string): Listing<IndexedInstance> {
    return joined([
      this.#catalog.indexedConnectInstances(service),
      ...this.terminating(service).map((gateway) => this.#catalog.indexedInstances(gateway)),
    ]);
  }

  /** Grows when {@link connectInstances} may have changed. */
  connectIndex(service: string): bigint {
    const { index } = this.#catalog;
    const every = this.#configEntries.entries.isFronted(EVERY_SERVICE);
    return latest(
      index.connect(service),
      this.#configEntries.kindIndex("terminating-gateway"),
      // With its first instance a service comes to be in front of the gateways of all services.
      every ? index.service(service) : 0n,
      // So does a place outside with its entry.
      every ? this.#configEntries.kindIndex("service-defaults") : 0n,
      ...this.terminating(service).map((gateway) => this.instanceIndex(gateway)),
    );
  }

  /** Grows when the instances of a service may have changed, or the addresses that {@link withAddresses} adds to them. */
  instanceIndex(service: string): bigint {
    const { index } = this.#catalog;
    const entry = this.#configEntries.get("terminating-gateway", service);
    if (entry === undefined && !this.#catalog.isOf(service, "terminating-gateway")) return index.service(service);
    return latest(index.service(service), index.virtualIps, this.#configEntries.kindIndex("terminating-gateway"));
  }

  /** Is another one after each change of the addresses that {@link withAddresses} adds to any service. */
  get addressBasis(): bigint {
    const ofEntries = this.#configEntries.kindIndex("terminating-gateway");
    const none = this.#configEntries.entries.all("terminating-gateway").size === 0;
    return none ? ofEntries : latest(ofEntries, this.#catalog.index.virtualIps);
  }

  /** A service with the virtual addresses of the services that it fronts, when it is a terminating gateway. */
  withAddresses(service: IndexedService): IndexedService {
    if (service.kind !== "terminating-gateway") return service;
    const entry = this.#configEntries.get("terminating-gateway", service.name);
    if (entry === undefined) return service;
    const addresses: Record<string, ServiceAddress> = {};
    for (const { name } of entry.services) {
      const address = this.#catalog.virtualIp(name);
      if (address !== undefined) addresses[`${VIRTUAL}:${name}`] = { address, port: 0 };
    }
    return { ...service, taggedAddresses: { ...service.taggedAddresses, ...addresses } };
  }
}

/** The tag of an address that stands for a service, whatever instance it leads to. */
export const VIRTUAL = "consul-virtual";

/**
 * @param gatewaysOf - the gateways that have a service by this name.
 * @param isOfAll - whether a service is one of those for which `*` stands.
 */
function leadingTo(
  gatewaysOf: (service: string) => readonly string[],
  service: string,
  isOfAll: (key: string) => boolean,
): readonly string[] {
  const key = lowerCase(service);
  const named = gatewaysOf(key);
  const every = gatewaysOf(EVERY_SERVICE);
  if (every.length === 0 || !isOfAll(key)) return named.toSorted(compareUtf8);
  return [...new Set([...named, ...every])].sort(compareUtf8);
}

/** The highest of indexes, which are 1 at least. */
export function latest(...indexes: readonly bigint[]): bigint {
  let high = 1n;
  for (const index of indexes) if (index > high) high = index;
  return high;
}
