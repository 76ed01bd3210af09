import { sidecarName } from "../payload/exported-payload.js";
import type { ExportProgress, SessionServices } from "../replication/types.js";
import type { ImportedService } from "../stores/import-store.js";
import { lowerCase } from "../syntax/names.js";

/**
 * How far a service of the peer's has come on the stream there is, or was last: the peer has listed it; it was received
 * and waits for its commit; its newest version was applied; or it was refused. `unknown`: nothing was heard of it on that
 * stream, and the stored version is from an older one.
 */
export type ImportProgress = "listed" | "received" | "applied" | "refused" | "unknown";

export interface ImportSync {
  readonly progress: ImportProgress;
  /** Instances stored now: of the newest version that was applied. */
  readonly instances: number;
  /** Why it was refused. */
  readonly reason: string | undefined;
}

export interface ExportSync {
  readonly progress: ExportProgress;
  /** Why the peer refused it, or why it is held back. */
  readonly reason: string | undefined;
}

/** Both directions of a peering, service by service. */
export interface ServiceSync {
  /** The services that the peer exports to us. */
  readonly imported: ReadonlyMap<string, ImportSync>;
  /** The services that we export to the peer; empty without a stream, except those that no peer could take. */
  readonly exported: ReadonlyMap<string, ExportSync>;
}

/** A peer can make us remember so many names that it never listed. */
const MAX_UNLISTED = 10_000;

interface Outcome {
  /** As it came; undefined: in lower case. */
  readonly name: string | undefined;
  /** Why it was refused, if it was. */
  readonly reason: string | undefined;
  /** How many lists had been applied before. */
  readonly lists: number;
}

/** The outcomes of the services that arrived on a stream. */
export class ImportOutcomes {
  /** By lower-cased name. */
  readonly #outcomes = new Map<string, Outcome>();
  /** Of other resources, by type URL: why they were refused. */
  readonly #refusedResources = new Map<string, string>();
  #refused = 0;
  #applied: Outcome = { name: undefined, reason: undefined, lists: 0 };
  #names: readonly string[] = [];
  /** A set of the names, made when it is needed: not during a first sync. */
  #listed: ReadonlySet<string> | undefined;
  /** How many lists were applied, and how many of them the outcomes have been compared with. */
  #lists = 0;
  #compared = 0;

  note(name: string, reason: string | undefined): void {
    const key = lowerCase(name);
    const known = this.#outcomes.get(key);
    if (known === undefined) {
      const most = 2 * this.#names.length + MAX_UNLISTED;
      if (this.#outcomes.size >= most) this.#prune();
      if (this.#outcomes.size >= most) return;
    }
    this.#refused += (reason === undefined ? 0 : 1) - (known?.reason === undefined ? 0 : 1);
    const lists = this.#lists;
    // Mostly a service was applied, and that is all: these share one object.
    if (this.#applied.lists !== lists) this.#applied = { name: undefined, reason: undefined, lists };
    const isPlain = name === key && reason === undefined;
    this.#outcomes.set(key, isPlain ? this.#applied : { name, reason, lists });
  }

  noteResource(resourceUrl: string, reason: string | undefined): void {
    if (reason === undefined) this.#refusedResources.delete(resourceUrl);
    else this.#refusedResources.set(resourceUrl, reason);
  }

  /** A list was applied: services that it does not name are gone. */
  list(names: readonly string[]): void {
    this.#names = names;
    this.#listed = undefined;
    this.#lists++;
  }

  /** Why services were refused, by name, and resources of other types, by type URL; of very many the first. */
  refused(): ReadonlyMap<string, string> {
    const refused = new Map(this.#refusedResources);
    if (this.#refused === 0) return refused;
    this.#prune();
    for (const [key, { name = key, reason }] of this.#outcomes) {
      if (refused.size >= MAX_UNLISTED) break;
      if (reason !== undefined) refused.set(name, reason);
    }
    return refused;
  }

  /** Put off until the state is read, because each list names everything. */
  #prune(): void {
    if (this.#compared === this.#lists) return;
    this.#compared = this.#lists;
    const there = this.#there();
    for (const [key, { reason, lists }] of this.#outcomes) {
      if (lists === this.#lists || there.has(key)) continue;
      this.#outcomes.delete(key);
      if (reason !== undefined) this.#refused--;
    }
  }

  /** All services of the listed names, lower-cased. */
  #there(): ReadonlySet<string> {
    this.#listed ??= new Set(this.#names.flatMap((name) => [lowerCase(name), lowerCase(sidecarName(name))]));
    return this.#listed;
  }

  /** @param listed - names of the last list there was, also on an older stream. */
  sync(
    listed: readonly string[],
    applying: ReadonlySet<string>,
    stored: readonly ImportedService[],
  ): ReadonlyMap<string, ImportSync> {
    this.#prune();
    const found = new Map<string, ImportSync & { readonly name: string }>();
    const put = (name: string, progress: ImportProgress, reason?: string): void => {
      const key = lowerCase(name);
      const known = found.get(key);
      found.set(key, { name: known?.name ?? name, progress, instances: known?.instances ?? 0, reason });
    };
    for (const { name, instances } of stored) {
      found.set(lowerCase(name), { name, progress: "unknown", instances, reason: undefined });
    }
    const there = this.#there();
    for (const name of listed) put(name, there.has(lowerCase(name)) ? "listed" : "unknown");
    for (const [key, { name = key, reason }] of this.#outcomes)
      put(name, reason === undefined ? "applied" : "refused", reason);
    for (const name of applying) put(name, "received");
    return new Map([...found.values()].map(({ name, ...sync }) => [name, sync]));
  }
}

/**
 * @param heldBack - services that are held back from the stream, if there is one, by name, with the reason.
 * @param reasons - why services are held back from this stream, or were refused on it.
 */
export function exportSync(
  services: SessionServices | undefined,
  heldBack: ReadonlyMap<string, string>,
  reasons: ReadonlyMap<string, string>,
): ReadonlyMap<string, ExportSync> {
  const found = new Map<string, ExportSync>();
  for (const [name, progress] of services?.exported ?? []) found.set(name, { progress, reason: reasons.get(name) });
  for (const [name, reason] of heldBack) found.set(name, { progress: "held-back", reason });
  return found;
}
