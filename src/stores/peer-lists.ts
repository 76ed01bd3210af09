import { compareUtf8 } from "../base/byte-order.js";
import { KeptOrder } from "../base/kept-order.js";
import type { ServiceSummary } from "../model/service-summary.js";
import type { DecodedNode } from "../payload/imported-payload.js";
import type { ImportedNode, StoredService } from "./import-index.js";

// The parts of a peer that are kept for those who list its services or nodes.

/** A service of a peer as a list shows it. */
export interface ImportedSummary extends ServiceSummary {
  /** The name of the peering. */
  readonly peer: string;
}

/** Texts that many services of a peer have in common, such as tags. */
const COMMON_TEXTS = 1_000;
/** MadeSummaries for one list, in parts; undefined: begun. Those that have changed since they were begun are taken out. */
export type MadeSummaries = Map<string, KeptSummary | undefined>;

export interface KeptSummary {
  readonly summary: ImportedSummary;
  /** About its memory. */
  readonly bytes: number;
}

/** The summaries of one peer: those that are kept, and the names of those that must be made for the next list. */
export class PeerSummaries {
  /** By lower-cased name. */
  readonly kept: Map<string, KeptSummary> = new Map();
  /** Lower-cased. */
  readonly missing: Set<string>;
  readonly order: KeptOrder<ImportedSummary> = new KeptOrder(byName);
  /** Of the lists that are being made. */
  readonly making: Set<MadeSummaries> = new Set();
  readonly #texts = new Map<string, string>();
  readonly #count: (bytes: number) => void;
  bytes = 0;
  /** When a list was asked for last, in lists. */
  asked = 0;

  /** @param missing - all names of services, also of those that only proxies speak for. */
  constructor(missing: Set<string>, count: (bytes: number) => void) {
    this.missing = missing;
    this.#count = count;
  }

  /** A service is not as it was, or is about to change: what is shown under its name, and under those it speaks for, is made again. */
  changed({ key, mesh }: StoredService): void {
    this.#forget(key);
    for (const name of mesh) this.#forget(name);
  }

  keep(key: string, kept: KeptSummary): void {
    this.missing.delete(key);
    this.kept.set(key, kept);
    this.order.add(kept.summary);
    this.#grow(kept.bytes);
  }

  /** The same text, kept once for all that have it; undefined: there are too many. */
  common(text: string): string | undefined {
    const known = this.#texts.get(text);
    if (known === undefined && this.#texts.size < COMMON_TEXTS) this.#texts.set(text, text);
    return known ?? this.#texts.get(text);
  }

  #forget(key: string): void {
    const kept = this.kept.get(key);
    if (kept !== undefined) {
      this.kept.delete(key);
      this.order.remove(kept.summary);
      this.#grow(-kept.bytes);
    }
    this.missing.add(key);
    for (const made of this.making) made.delete(key);
  }

  #grow(bytes: number): void {
    this.bytes += bytes;
    this.#count(bytes);
  }
}

export function byName(left: ImportedSummary, right: ImportedSummary): number {
  return compareUtf8(left.name, right.name);
}

/** A node of a peer as lists show it, with the checks of the node itself. */
export interface ListedNode extends DecodedNode {
  /** The storage revision of the last change of a service on it. */
  readonly revision: bigint;
}

/** A node that is kept since the last list of the peer. */
export interface KeptNode {
  /** The digest of its description. */
  readonly low: number;
  readonly high: number;
  readonly listed: ListedNode;
  /** About its memory. */
  readonly bytes: number;
}

/** The nodes of a peer that are kept. */
export interface KeptNodes {
  readonly nodes: Map<ImportedNode, KeptNode>;
  /** In the order of their names. */
  readonly order: readonly ImportedNode[];
  readonly bytes: number;
  /** When the list was asked for, in lists. */
  readonly asked: number;
}
