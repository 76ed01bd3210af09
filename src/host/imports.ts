import type { ServiceInstance } from "../catalog/instance.js";
import { PeeringError } from "../errors.js";
import type { ImportChange, ImportedService, ImportStore } from "./import-store.js";
import type { PeeringRecords } from "./records.js";

/** What peers export to us. Read-only: only the peers' own messages change it. */
export class Imports {
  readonly #records: PeeringRecords;
  readonly #store: ImportStore;

  /** @internal */
  constructor(parts: { readonly records: PeeringRecords; readonly store: ImportStore }) {
    this.#records = parts.records;
    this.#store = parts.store;
  }

  /** Names and instance counts of everything imported from `peer`, by name. An unknown peer has none. */
  services(options: { readonly peer: string }): readonly ImportedService[] {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? [] : this.#store.services(peering.id);
  }

  /** How many services and instances are imported from `peer`: as cheap to ask as a field. */
  count(options: { readonly peer: string }): { readonly services: number; readonly instances: number } {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? { services: 0, instances: 0 } : this.#store.count(peering.id);
  }

  /** The instances of one service of `peer`; none for what is unknown. */
  async instances(options: { readonly peer: string; readonly service: string }): Promise<readonly ServiceInstance[]> {
    const peering = this.#records.byName(options.peer);
    return peering === undefined ? [] : this.#store.instances(peering.id, options.service);
  }

  /**
   * Everything imported now (a snapshot), then each change, as differences between instances. The newest state is never skipped; states
   * in between may be.
   * @throws {PeeringError} `not-found` when there is no such peering.
   */
  watch(options: {
    readonly peer: string;
    readonly service?: string;
    readonly signal: AbortSignal;
  }): AsyncIterable<ImportChange> {
    const peering = this.#records.byName(options.peer);
    if (peering === undefined) throw new PeeringError("not-found", `Peering not found for "${options.peer}"`);
    const { service, signal } = options;
    return this.#store.watch({ peeringId: peering.id, signal, ...(service === undefined ? {} : { service }) });
  }
}
