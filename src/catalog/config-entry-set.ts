import type { ConfigEntry, ConfigEntryKind, ExportedServicesEntry } from "./config-entry.js";
import type { JsonObject } from "./instance.js";

type EntryOf<Kind extends ConfigEntryKind> = Extract<ConfigEntry, { readonly kind: Kind }>;
type EntryMaps = { readonly [Kind in ConfigEntryKind]: ReadonlyMap<string, EntryOf<Kind>> };

/** All configuration entries of one moment; names compare without case. Immutable: `with` and `without` return another. */
export class ConfigEntrySet {
  static readonly empty: ConfigEntrySet = new ConfigEntrySet({
    "exported-services": new Map(),
    mesh: new Map(),
    "proxy-defaults": new Map(),
    "service-defaults": new Map(),
    "service-resolver": new Map(),
    "service-router": new Map(),
    "service-splitter": new Map(),
    "terminating-gateway": new Map(),
  });
  readonly #maps: EntryMaps;
  #chainNames: ReadonlyMap<string, string> | undefined;
  #links: { readonly names: ReadonlySet<string>; readonly wildcard: boolean } | undefined;

  private constructor(maps: EntryMaps) {
    this.#maps = maps;
  }

  static of(entries: Iterable<ConfigEntry>): ConfigEntrySet {
    let set = ConfigEntrySet.empty;
    for (const entry of entries) set = set.with(entry);
    return set;
  }

  get<Kind extends ConfigEntryKind>(kind: Kind, name: string): EntryOf<Kind> | undefined {
    return this.#maps[kind].get(name.toLowerCase());
  }

  /** Every entry of a kind, keyed by lower-cased name. */
  all<Kind extends ConfigEntryKind>(kind: Kind): ReadonlyMap<string, EntryOf<Kind>> {
    return this.#maps[kind];
  }

  with(entry: ConfigEntry): ConfigEntrySet {
    const map = new Map<string, ConfigEntry>(this.#maps[entry.kind]).set(entry.name.toLowerCase(), entry);
    return new ConfigEntrySet({ ...this.#maps, [entry.kind]: map });
  }

  without(kind: ConfigEntryKind, name: string): ConfigEntrySet {
    const map = new Map<string, ConfigEntry>(this.#maps[kind]);
    map.delete(name.toLowerCase());
    return new ConfigEntrySet({ ...this.#maps, [kind]: map });
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
        for (const service of gateway.services) names.add(service.name.toLowerCase());
      }
      this.#links = { names, wildcard: names.delete("*") };
    }
    return this.#links;
  }

  /** Protocol of a service, lower-cased (specification 4.2.3). */
  protocolOf(service: string): string {
    const own = this.get("service-defaults", service);
    if (own !== undefined) return (own.protocol ?? "tcp").toLowerCase();
    const { protocol }: JsonObject = this.get("proxy-defaults", "global")?.config ?? {};
    return typeof protocol === "string" && protocol !== "" ? protocol.toLowerCase() : "tcp";
  }
}
