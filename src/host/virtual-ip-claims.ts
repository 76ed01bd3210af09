import { type ConfigEntrySet, EVERY_SERVICE, frontedBy } from "../catalog/config-entry-set.js";
import { lowerCase } from "../catalog/names.js";
import type { Logger } from "../environment.js";
import { errorText } from "../errors.js";
import type { Catalog } from "./catalog.js";
import type { ConfigEntries, ConfigEntryChange } from "./config-entries.js";
import type { ImportedAddresses, ImportStore } from "./import-store.js";
import type { Leadership } from "./leadership.js";
import type { PeeringRecords } from "./records.js";

export interface VirtualIpClaimsOptions {
  readonly catalog: Catalog;
  readonly configEntries: ConfigEntries;
  readonly records: PeeringRecords;
  readonly leadership: Leadership;
  readonly logger: Logger;
}

/** Kinds of entries whose name is that of a service which then has a virtual address, as in Consul 1.16 and later. */
const NAMING_KINDS = [
  "service-defaults",
  "service-intentions",
  "service-resolver",
  "service-router",
  "service-splitter",
] as const;

/**
 * Holds virtual addresses in the catalog for services without an instance in it: those that peers export to the mesh, and local
 * ones that configuration entries name. Whatever a crash leaves between an entry or an import and its
 * address is put right by {@link repair}.
 */
export class VirtualIpClaims implements ImportedAddresses, AsyncDisposable {
  readonly #options: VirtualIpClaimsOptions;
  /** The work on local names that runs or ran last. Never rejects. */
  #last: Promise<void> = Promise.resolve();
  readonly #forget: () => void;
  #ended = false;
  /** A change failed: the next one looks at all names. */
  #behind = false;

  constructor(options: VirtualIpClaimsOptions) {
    this.#options = options;
    this.#forget = options.configEntries.onChange((change) => {
      this.#last = this.#last.then(() => this.#follow(change));
    });
  }

  async claim(peeringId: string, services: readonly string[]): Promise<void> {
    const { records, catalog } = this.#options;
    const peering = records.byId(peeringId);
    if (peering !== undefined) await catalog.claimVirtualIps(peering.name, services);
  }

  async release(peeringId: string, services: readonly string[]): Promise<void> {
    const { records, catalog } = this.#options;
    const peering = records.byId(peeringId);
    if (peering === undefined) return;
    await this.#attempt(() => catalog.releaseVirtualIps(peering.name, services));
  }

  /** To be called when this node begins to lead. Never rejects. */
  async repair(imports: ImportStore): Promise<void> {
    const { records, catalog, leadership } = this.#options;
    if (!leadership.isLeader) return;
    const known = new Set<string>();
    for (const { id, name } of records.list()) {
      const peer = lowerCase(name);
      known.add(peer);
      await this.#attempt(() => imports.repairAddresses(id, catalog.claimedVirtualIps(peer)));
    }
    for (const peer of catalog.claimingPeers()) {
      if (peer === "" || known.has(peer)) continue;
      await this.#attempt(() => catalog.releaseVirtualIps(peer, [...catalog.claimedVirtualIps(peer)]));
    }
    await this.#syncLocal();
  }

  /** Resolves when all that was written before has the addresses that belong to it. Never rejects. */
  settled(): Promise<void> {
    return this.#last;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    this.#forget();
    await this.#last;
  }

  /** A change of an entry moves the address of its own name; of a gateway, those of what it fronts. */
  async #follow({ kind, name, former, entry }: ConfigEntryChange): Promise<void> {
    const { catalog, configEntries, leadership } = this.#options;
    if (this.#ended || !leadership.isLeader) return;
    if (this.#behind) return this.#syncLocal();
    const isGateway = kind === "terminating-gateway";
    if (!isGateway && !NAMING_KINDS.some((naming) => naming === kind)) return;
    const keys = new Set(isGateway ? [...frontedBy(former), ...frontedBy(entry)] : [lowerCase(name)]);
    const isGiven = (key: string): boolean => isNamed(configEntries.entries, key);
    const named = [...keys].filter(isGiven);
    const others = [...keys].filter((key) => !isGiven(key));
    if (named.length > 0) await this.#attempt(() => catalog.claimVirtualIps("", named));
    if (others.length > 0) await this.#attempt(() => catalog.releaseVirtualIps("", others));
  }

  async #syncLocal(): Promise<void> {
    const { catalog, configEntries, leadership } = this.#options;
    if (this.#ended || !leadership.isLeader) return;
    this.#behind = false;
    const wanted = namedServices(configEntries.entries);
    const claimed = catalog.claimedVirtualIps("");
    const missing = [...wanted].filter((name) => !claimed.has(name));
    const unused = [...claimed].filter((name) => !wanted.has(name));
    if (missing.length > 0) await this.#attempt(() => catalog.claimVirtualIps("", missing));
    if (unused.length > 0) await this.#attempt(() => catalog.releaseVirtualIps("", unused));
  }

  /** What fails is left for the next change or start: an address too many, or too few for a while, is no harm. */
  async #attempt(action: () => Promise<unknown>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.#behind = true;
      if (!this.#ended)
        this.#options.logger.warn("virtual addresses were not brought up to date", { error: errorText(error) });
    }
  }
}

/** Lower-cased names of local services that have an address whether there are instances or not. */
function namedServices(entries: ConfigEntrySet): ReadonlySet<string> {
  const names = NAMING_KINDS.flatMap((kind) => [...entries.all(kind).keys()]);
  const fronted = [...entries.all("terminating-gateway").values()].flatMap((gateway) => [...frontedBy(gateway)]);
  return new Set([...names, ...fronted].filter((key) => isNamed(entries, key)));
}

/** Whether a lower-cased name has one. As in Consul, a gateway of all services has an address for that. */
function isNamed(entries: ConfigEntrySet, key: string): boolean {
  if (entries.isFronted(key)) return true;
  return key !== EVERY_SERVICE && NAMING_KINDS.some((kind) => entries.get(kind, key) !== undefined);
}
