import type {
  ConfigEntry,
  ConfigEntryKind,
  ExportedServicesEntry,
  ProxyDefaultsEntry,
  ServiceDefaultsEntry,
} from "./config-entry.js";
import { ingressLinks } from "./ingress.js";
import type { JsonObject } from "./instance.js";
import { lowerCase } from "./names.js";

export interface ChainLimits {
  /**
   * Routes, splits (those of splitters behind splitters counted for each way that leads to them) and places to resolve of one
   * discovery chain. Default 10 000; a write that would make a longer one is refused with `resource-exhausted`.
   */
  readonly chainParts: number;
}

export const defaultChainLimits: ChainLimits = { chainParts: 10_000 };

type EntryOf<Kind extends ConfigEntryKind> = Extract<ConfigEntry, { readonly kind: Kind }>;
type EntryMaps = { readonly [Kind in ConfigEntryKind]: ReadonlyMap<string, EntryOf<Kind>> };

function isOf<Kind extends ConfigEntryKind>(entry: ConfigEntry, kind: Kind): entry is EntryOf<Kind> {
  return entry.kind === kind;
}

/** Lower-cased names of gateways by the lower-cased name of a service that they front; under `*` those that front all there are. */
export type GatewayNames = ReadonlyMap<string, readonly string[]>;

/** All configuration entries of one moment; names compare without case. Immutable: `with` and `without` return another. */
export class ConfigEntrySet {
  static readonly empty: ConfigEntrySet = ConfigEntrySet.of([]);
  /** How long a chain of these entries may get. */
  readonly limits: ChainLimits;
  readonly #maps: EntryMaps;
  #chainNames: ReadonlyMap<string, string> | undefined;
  #terminating: GatewayNames | undefined;
  #ingress: GatewayNames | undefined;
  #links: { readonly names: ReadonlySet<string>; readonly wildcard: boolean } | undefined;

  private constructor(maps: EntryMaps, limits: ChainLimits) {
    this.#maps = maps;
    this.limits = limits;
  }

  /** Later entries replace earlier ones of the same kind and name. */
  static of(entries: readonly ConfigEntry[], limits: ChainLimits = defaultChainLimits): ConfigEntrySet {
    const mapOf = <Kind extends ConfigEntryKind>(kind: Kind): ReadonlyMap<string, EntryOf<Kind>> => {
      const map = new Map<string, EntryOf<Kind>>();
      for (const entry of entries) if (isOf(entry, kind)) map.set(lowerCase(entry.name), entry);
      return map;
    };
    const maps = {
      "api-gateway": mapOf("api-gateway"),
      "bound-api-gateway": mapOf("bound-api-gateway"),
      "exported-services": mapOf("exported-services"),
      "file-system-certificate": mapOf("file-system-certificate"),
      "http-route": mapOf("http-route"),
      "ingress-gateway": mapOf("ingress-gateway"),
      "inline-certificate": mapOf("inline-certificate"),
      "jwt-provider": mapOf("jwt-provider"),
      mesh: mapOf("mesh"),
      "proxy-defaults": mapOf("proxy-defaults"),
      "sameness-group": mapOf("sameness-group"),
      "service-defaults": mapOf("service-defaults"),
      "service-intentions": mapOf("service-intentions"),
      "service-resolver": mapOf("service-resolver"),
      "service-router": mapOf("service-router"),
      "service-splitter": mapOf("service-splitter"),
      "tcp-route": mapOf("tcp-route"),
      "terminating-gateway": mapOf("terminating-gateway"),
    };
    return new ConfigEntrySet(maps, limits);
  }

  get<Kind extends ConfigEntryKind>(kind: Kind, name: string): EntryOf<Kind> | undefined {
    return this.#maps[kind].get(lowerCase(name));
  }

  /** Every entry of a kind, keyed by lower-cased name. */
  all<Kind extends ConfigEntryKind>(kind: Kind): ReadonlyMap<string, EntryOf<Kind>> {
    return this.#maps[kind];
  }

  with(entry: ConfigEntry): ConfigEntrySet {
    const map = new Map<string, ConfigEntry>(this.#maps[entry.kind]).set(lowerCase(entry.name), entry);
    return new ConfigEntrySet({ ...this.#maps, [entry.kind]: map }, this.limits);
  }

  without(kind: ConfigEntryKind, name: string): ConfigEntrySet {
    const map = new Map<string, ConfigEntry>(this.#maps[kind]);
    map.delete(lowerCase(name));
    return new ConfigEntrySet({ ...this.#maps, [kind]: map }, this.limits);
  }

  get exportedServices(): ExportedServicesEntry | undefined {
    return this.get("exported-services", "default");
  }

  /** Whether peers shall dial our mesh gateways instead of our servers. Default false. */
  get peerThroughMeshGateways(): boolean {
    return this.get("mesh", "mesh")?.peering?.peerThroughMeshGateways ?? false;
  }

  /** Names with a router, splitter or resolver: lower-cased to as written. */
  get chainNames(): ReadonlyMap<string, string> {
    if (this.#chainNames === undefined) {
      const names = new Map<string, string>();
      for (const kind of ["service-resolver", "service-splitter", "service-router"] as const) {
        for (const [key, entry] of this.#maps[kind]) names.set(key, entry.name);
      }
      this.#chainNames = names;
    }
    return this.#chainNames;
  }

  /** Lower-cased names that terminating gateways front, and whether one of them fronts every ordinary service. */
  get gatewayLinks(): { readonly names: ReadonlySet<string>; readonly wildcard: boolean } {
    if (this.#links === undefined) {
      const names = new Set<string>();
      for (const gateway of this.#maps["terminating-gateway"].values()) {
        for (const service of gateway.services) names.add(lowerCase(service.name));
      }
      this.#links = { names, wildcard: names.delete("*") };
    }
    return this.#links;
  }

  /** Which terminating gateways front which services. */
  get terminatingGateways(): GatewayNames {
    this.#terminating ??= gatewayNames(this.#maps["terminating-gateway"], ({ services }) =>
      services.map(({ name }) => name),
    );
    return this.#terminating;
  }

  /** Which ingress gateways lead to which services. */
  get ingressGateways(): GatewayNames {
    this.#ingress ??= gatewayNames(this.#maps["ingress-gateway"], (entry) =>
      ingressLinks(entry).map(({ service }) => service),
    );
    return this.#ingress;
  }

  /** Protocol of a service, lower-cased (specification 4.2.3). */
  protocolOf(service: string): string {
    return protocolFrom(this.get("service-defaults", service), this.get("proxy-defaults", "global"));
  }
}

/** Protocol of a service with these entries, lower-cased (specification 4.2.3). */
export function protocolFrom(own: ServiceDefaultsEntry | undefined, all: ProxyDefaultsEntry | undefined): string {
  if (own !== undefined) return lowerCase(own.protocol ?? "tcp");
  const { protocol }: JsonObject = all?.config ?? {};
  return typeof protocol === "string" && protocol !== "" ? lowerCase(protocol) : "tcp";
}

function gatewayNames<Entry>(
  gateways: ReadonlyMap<string, Entry>,
  servicesOf: (entry: Entry) => readonly string[],
): GatewayNames {
  const names = new Map<string, string[]>();
  for (const [gateway, entry] of gateways) {
    for (const key of new Set(servicesOf(entry).map(lowerCase))) {
      const known = names.get(key);
      if (known === undefined) names.set(key, [gateway]);
      else known.push(gateway);
    }
  }
  return names;
}
