import { compareUtf8 } from "../catalog/byte-order.js";
import type { ExportedServicesEntry } from "../catalog/config-entry.js";
import { type ExportExplanation, explainTransit } from "../catalog/exports.js";
import { PeeringError } from "../errors.js";
import type { ConfigEntries } from "./config-entries.js";
import type { ExportEngine } from "./export-engine.js";
import type { PeeringRecords } from "./records.js";
import type { Transit } from "./transit.js";

/** Which of our services which peers may see: the `exported-services` entry (specification 2.7.3). */
export type ExportedServicesInput = Omit<ExportedServicesEntry, "kind" | "name">;

/** The exports of a host, and why a service is exported or not. */
export class Exports {
  readonly #configEntries: ConfigEntries;
  readonly #engine: ExportEngine;
  readonly #records: PeeringRecords;
  readonly #transit: Transit;

  /** @internal */
  constructor(parts: {
    readonly configEntries: ConfigEntries;
    readonly engine: ExportEngine;
    readonly records: PeeringRecords;
    readonly transit: Transit;
  }) {
    this.#configEntries = parts.configEntries;
    this.#engine = parts.engine;
    this.#records = parts.records;
    this.#transit = parts.transit;
  }

  /** Replaces the whole entry. @throws {PeeringError} `invalid-entry` naming the block and consumer; `storage-failed`. */
  async set(entry: ExportedServicesInput): Promise<void> {
    await this.#configEntries.set({ kind: "exported-services", name: "default", ...entry });
  }

  /** The entry as stored, or undefined. */
  get(): ExportedServicesEntry | undefined {
    const entry = this.#configEntries.get("exported-services", "default");
    return entry?.kind === "exported-services" ? entry : undefined;
  }

  /** Nothing is exported any more. */
  async delete(): Promise<void> {
    await this.#configEntries.delete("exported-services", "default");
  }

  /**
   * The names this peer is told of now, in byte order: chains without instances of their own included (D-25), and what is
   * carried over from other peers.
   */
  forPeer(peerName: string): readonly string[] {
    const { list } = this.#engine.exportsFor(peerName);
    return [...list, ...this.#transit.names(peerName)].sort(compareUtf8);
  }

  /** The names this peer is sent instances of, in byte order: those of {@link forPeer} that are no chains alone. */
  servicesFor(peerName: string): readonly string[] {
    return this.#engine.exportsFor(peerName).services;
  }

  /**
   * The peers whose callers may reach the instances of `service`: those it is exported to, and those to which a service is
   * whose discovery chain leads to it. Sorted; peers need not exist.
   */
  peersReaching(service: string): readonly string[] {
    return this.#engine.peersReaching(service);
  }

  /**
   * Why `service` is, or is not, exported to `peer`: the rule that matched, or each reason that excludes it.
   * @throws {PeeringError} `not-found` when there is no such peering.
   */
  explain(service: string, peer: string): ExportExplanation {
    if (this.#records.byName(peer) === undefined) {
      throw new PeeringError("not-found", `Peering not found for "${peer}"`);
    }
    return explainTransit(this.#engine.explain(service, peer), this.#transit.explain(service, peer));
  }
}
