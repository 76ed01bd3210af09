import type { Clock, Logger } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import { retry } from "../base/retry.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import { type ConfigEntrySet, EVERY_SERVICE, frontedBy } from "../config/config-entry-set.js";
import type { Peering } from "../peering/peering.js";
import type { Catalog } from "../stores/catalog.js";
import type { ConfigEntries, ConfigEntryChange } from "../stores/config-entries.js";
import type { ImportedAddresses, ImportStore } from "../stores/import-store.js";
import { lowerCase } from "../syntax/names.js";
import type { Leadership } from "./leadership.js";

/** All peerings by their local ids and names, such as the records. */
export interface NamedPeerings {
  list(): readonly Pick<Peering, "id" | "name">[];
  byId(id: string): Pick<Peering, "name"> | undefined;
}

export interface VirtualIpClaimsOptions {
  readonly catalog: Catalog;
  readonly configEntries: ConfigEntries;
  readonly records: NamedPeerings;
  readonly leadership: Pick<Leadership, "isLeader">;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Waits after an address could not be claimed or released. */
const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;

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
 * ones that configuration entries name. Whatever a crash or a failure leaves between an entry or an import and its
 * address is put right: after a crash by {@link repair}, after a failure by attempts with growing waits.
 */
export class VirtualIpClaims implements ImportedAddresses, AsyncDisposable {
  readonly #options: VirtualIpClaimsOptions;
  #imports: Pick<ImportStore, "repairAddresses"> | undefined;
  /** The work on local names that runs or ran last. Never rejects. */
  #last: Promise<void> = Promise.resolve();
  readonly #forget: () => void;
  readonly #end = new AbortController();
  /** A change failed: all names are to be looked at. */
  #behind = false;
  /** Attempts to put right what failed. Never rejects. */
  #mending: Promise<void> | undefined;

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
  async repair(imports: Pick<ImportStore, "repairAddresses">): Promise<void> {
    this.#imports = imports;
    await this.#repairAll();
  }

  async #repairAll(): Promise<void> {
    const { records, catalog, leadership } = this.#options;
    if (!leadership.isLeader) return;
    this.#behind = false;
    for (const { id, name } of records.list()) {
      await this.#attempt(async () => this.#imports?.repairAddresses(id, catalog.claimedVirtualIps(lowerCase(name))));
    }
    // Claims that were removed meanwhile are among the others.
    const known = new Set(records.list().map(({ name }) => lowerCase(name)));
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
    this.#end.abort();
    this.#forget();
    await this.#last;
    await this.#mending;
  }

  /** A change of an entry moves the address of its own name; of a gateway, those of the services behind it. */
  async #follow({ kind, name, former, entry }: ConfigEntryChange): Promise<void> {
    const { catalog, configEntries, leadership } = this.#options;
    if (this.#end.signal.aborted || !leadership.isLeader) return;
    const isGateway = kind === "terminating-gateway";
    if (!isGateway && !NAMING_KINDS.some((naming) => naming === kind)) return;
    const keys = new Set(isGateway ? [...frontedBy(former), ...frontedBy(entry)] : [lowerCase(name)]);
    const { named, others } = await inTurns(separated(keys, configEntries.entries));
    if (named.length > 0) await this.#attempt(() => catalog.claimVirtualIps("", named));
    if (others.length > 0) await this.#attempt(() => catalog.releaseVirtualIps("", others));
  }

  async #syncLocal(): Promise<void> {
    const { catalog, configEntries, leadership } = this.#options;
    if (this.#end.signal.aborted || !leadership.isLeader) return;
    const wanted = namedServices(configEntries.entries);
    const claimed = catalog.claimedVirtualIps("");
    const missing = [...wanted].filter((name) => !claimed.has(name));
    const unused = [...claimed].filter((name) => !wanted.has(name));
    if (missing.length > 0) await this.#attempt(() => catalog.claimVirtualIps("", missing));
    if (unused.length > 0) await this.#attempt(() => catalog.releaseVirtualIps("", unused));
  }

  /** An address too many, or too few for a while, is no harm: it does not keep an import or an entry from being written. */
  async #attempt(action: () => Promise<unknown>): Promise<void> {
    const { signal } = this.#end;
    try {
      await action();
    } catch (error) {
      this.#behind = true;
      if (signal.aborted) return;
      this.#options.logger.warn("virtual addresses were not brought up to date", { error: errorText(error) });
      this.#mending ??= this.#mend().finally(() => {
        this.#mending = undefined;
      });
    }
  }

  async #mend(): Promise<void> {
    const mended = async (): Promise<void> => {
      await this.#repairAll();
      if (this.#behind) throw new Error("an address could not be claimed or released");
    };
    const { clock } = this.#options;
    try {
      await retry(mended, { clock, signal: this.#end.signal, firstMs: FIRST_RETRY_MS, maxMs: MAX_RETRY_MS });
    } catch {
      // The host is closed.
    }
  }
}

/** Weight of a look at the entries of a name in a step, in fields. */
const LOOK_FIELDS = 10;

/** The names that have an address with these entries, and the others. */
function* separated(
  keys: Iterable<string>,
  entries: ConfigEntrySet,
): Steps<{ readonly named: readonly string[]; readonly others: readonly string[] }> {
  const named: string[] = [];
  const others: string[] = [];
  const meter = new StepMeter();
  for (const key of keys) {
    (isNamed(entries, key) ? named : others).push(key);
    if (meter.isOver(LOOK_FIELDS)) yield;
  }
  return { named, others };
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
