import { compareUtf8 } from "../base/byte-order.js";
import { PeeringError } from "../base/errors.js";
import type { ExportedServicesEntry } from "../config/config-entry.js";
import type { ExportRules } from "../config/export-rules.js";
import {
  type ExportExplanation,
  type ExportedServiceView,
  explainTransit,
  exportedServicesView,
} from "../config/exports.js";
import type { ServiceInstance } from "../model/instance.js";
import type { Catalog } from "../stores/catalog.js";
import type { ConfigEntries } from "../stores/config-entries.js";
import type { PeeringRecords } from "../stores/records.js";
import type { ExportEngine } from "./export-engine.js";
import type { Transit } from "./transit.js";

/** Which of our services which peers may see: the `exported-services` entry. */
export type ExportedServicesInput = Omit<ExportedServicesEntry, "kind" | "name">;

const noNames: ReadonlyMap<string, string> = new Map();

/** The exports of a host, and why a service is exported or not. */
export class Exports {
  readonly #configEntries: ConfigEntries;
  readonly #engine: ExportEngine;
  readonly #records: PeeringRecords;
  readonly #transit: Transit;
  /** Undefined where the host has a catalog source of its own, which has no indexes. */
  readonly #catalog: Catalog | undefined;
  /** Counts changes, other than the catalog's, that may have changed the answer. */
  #changes: bigint;
  /** The last answer of {@link resolved}, and all that it follows from. */
  #resolved:
    | {
        readonly rules: ExportRules;
        readonly typical: ReadonlyMap<string, string>;
        readonly view: readonly ExportedServiceView[];
      }
    | undefined;

  /** @internal */
  constructor(parts: {
    readonly configEntries: ConfigEntries;
    readonly engine: ExportEngine;
    readonly records: PeeringRecords;
    readonly transit: Transit;
    readonly catalog: Catalog | undefined;
    /** Where counting begins: above every count before a restart. */
    readonly firstIndex: bigint;
  }) {
    this.#configEntries = parts.configEntries;
    this.#engine = parts.engine;
    this.#records = parts.records;
    this.#transit = parts.transit;
    this.#catalog = parts.catalog;
    this.#changes = parts.firstIndex;
    // Both end with the host that made them.
    if (parts.catalog === undefined) {
      this.onResolvedChange(() => {
        this.#changes++;
      });
    }
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
   * The names that are exported to this peer now, in byte order: chains without instances of their own included (D-25), and services
   * carried over from other peers.
   */
  forPeer(peerName: string): readonly string[] {
    const { list } = this.#engine.exportsFor(peerName);
    return [...list, ...this.#transit.names(peerName)].sort(compareUtf8);
  }

  /**
   * Which services are exported to which peers, with `*` resolved to the ordinary services, by name: the same list until one of them
   * changes.
   */
  resolved(): readonly ExportedServiceView[] {
    const { entries } = this.#configEntries;
    if (this.#catalog === undefined) return exportedServicesView({ entries, names: this.#engine.names });
    // From the catalog of this moment, so that no change falls between the index and the names.
    const typical = this.#exportsAll ? this.#catalog.typicalNames() : noNames;
    const { exportRules: rules } = entries;
    if (this.#resolved?.rules !== rules || this.#resolved.typical !== typical) {
      const view = exportedServicesView({ entries, names: { typical, connectEnabled: new Set<string>() } });
      this.#resolved = { rules, typical, view };
    }
    return this.#resolved.view;
  }

  /** The index of {@link resolved}: it grows whenever that may have changed. */
  get resolvedIndex(): bigint {
    if (this.#catalog === undefined) return this.#changes;
    const { index } = this.#configEntries;
    // That of the entries and, where `*` stands for all of them, of the ordinary services.
    const services = this.#exportsAll ? this.#catalog.index.kind("") : 0n;
    return services > index ? services : index;
  }

  /** Whether a block stands for all services. */
  get #exportsAll(): boolean {
    return this.#configEntries.entries.exportRules.hasWildcard;
  }

  /** Calls `listener` after each change that may be one of {@link resolved}, until the returned function is called. */
  onResolvedChange(listener: () => void): () => void {
    const forget = [
      this.#configEntries.onChange(listener),
      this.#catalog === undefined ? this.#engine.onNamesChanged(listener) : this.#catalog.onChange(listener),
    ];
    return () => {
      for (const stop of forget) stop();
    };
  }

  /** The names this peer is sent instances of, in byte order: those of {@link forPeer} that are no chains alone. */
  servicesFor(peerName: string): readonly string[] {
    return this.#engine.servicesFor(peerName);
  }

  /**
   * The peers whose callers may reach the instances of `service`: those it is exported to, and those to which a service is
   * whose discovery chain leads to it. Sorted; peers need not exist.
   */
  peersReaching(service: string): readonly string[] {
    return this.#engine.peersReaching(service);
  }

  /** Calls `listener` after each change that may be one of {@link peersReaching}, until the returned function is called. */
  onReachingChange(listener: () => void): () => void {
    const forget = [this.#configEntries.onChange(listener), this.#engine.onNamesChanged(listener)];
    return () => {
      for (const stop of forget) stop();
    };
  }

  /** All mesh gateways of this cluster, healthy or not, ordered by node and service id. */
  get meshGateways(): readonly ServiceInstance[] {
    return this.#engine.meshGateways;
  }

  /** Calls `listener` after each change of {@link meshGateways}, until the returned function is called. */
  onGatewaysChange(listener: () => void): () => void {
    return this.#engine.onGatewaysChanged(listener);
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
