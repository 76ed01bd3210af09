import { SIDECAR_SUFFIX } from "../catalog/exported-payload.js";
import { lowerCase } from "../catalog/names.js";
import type { ExportProgress, SessionServices } from "../replication/types.js";
import type { ImportedService } from "./import-store.js";

/**
 * How far a service of the peer's has come on the stream there is, or was last: the peer has listed it; it was received
 * and waits for its commit; its newest version was applied; or it was refused. `unknown`: nothing was heard of it on that
 * stream, and what is stored is from an older one.
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
  /** What the peer exports to us. */
  readonly imported: ReadonlyMap<string, ImportSync>;
  /** What we export to the peer; empty without a stream, but for what no peer could take. */
  readonly exported: ReadonlyMap<string, ExportSync>;
}

/** A peer can make us remember so many names that it never listed. */
const MOST_UNLISTED = 100_000;

/** What became of the services that arrived on a stream. */
export class ImportOutcomes {
  /** By lower-cased name: the name as it came, and why it was refused, if it was. */
  readonly #outcomes = new Map<string, { readonly name: string; readonly reason: string | undefined }>();
  #names: readonly string[] = [];
  /** Of the names, made when it is asked for: on a first sync nobody does. */
  #listed: ReadonlySet<string> | undefined;

  note(name: string, reason: string | undefined): void {
    const key = lowerCase(name);
    if (!this.#outcomes.has(key) && this.#outcomes.size >= 2 * this.#names.length + MOST_UNLISTED) return;
    this.#outcomes.set(key, { name, reason });
  }

  /** A list was applied: what is not on it is no service of the peer's any more. */
  list(names: readonly string[]): void {
    this.#names = names;
    this.#listed = undefined;
    if (this.#outcomes.size === 0) return;
    const there = this.#there();
    for (const key of this.#outcomes.keys()) if (!there.has(key)) this.#outcomes.delete(key);
  }

  /** What belongs to the listed names, lower-cased. */
  #there(): ReadonlySet<string> {
    this.#listed ??= new Set(this.#names.flatMap((name) => [lowerCase(name), lowerCase(name + SIDECAR_SUFFIX)]));
    return this.#listed;
  }

  /** @param listed - names of the last list there was, also on an older stream. */
  sync(
    listed: readonly string[],
    applying: ReadonlySet<string>,
    stored: readonly ImportedService[],
  ): ReadonlyMap<string, ImportSync> {
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
    for (const { name, reason } of this.#outcomes.values())
      put(name, reason === undefined ? "applied" : "refused", reason);
    for (const name of applying) put(name, "received");
    return new Map([...found.values()].map(({ name, ...sync }) => [name, sync]));
  }
}

/**
 * @param heldBack - what is held back from whatever stream there is, by name, with the reason.
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
