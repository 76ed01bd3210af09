import type { ServiceInstance } from "./instance.js";

/** States, not deltas: every named service with all of its instances now; none means the name is gone. */
export interface CatalogChange {
  /** Keyed by the service's name as registered. Names compare without case. */
  readonly services: ReadonlyMap<string, readonly ServiceInstance[]>;
}

/**
 * Where a host's own services come from: the built-in catalog, or a registry of the host's own.
 *
 * The first change of a watch holds every service, also when there are none. Later ones hold at least the services that
 * differ from those delivered before; states in between may be skipped, the newest never.
 */
export interface CatalogSource {
  /** @param options - `signal`, which the host always gives, ends the watch. */
  watch(options: { readonly signal: AbortSignal }): AsyncIterable<CatalogChange>;
}
