import { lowerCase } from "../syntax/names.js";
import type { ExportedServicesEntry } from "./config-entry.js";

/** The servers themselves: in every catalog, never exported. */
const RESERVED = "consul";

export function isReserved(key: string): boolean {
  return key === RESERVED;
}

/** The rules of the exported-services entry for one peer. */
export interface PeerRules {
  /** Lower-cased names to their spelling in the first block that has them. */
  readonly exact: ReadonlyMap<string, string>;
  readonly wildcard: boolean;
}

class Rules implements PeerRules {
  readonly exact = new Map<string, string>();
  wildcard = false;

  add(name: string): void {
    if (name === "*") {
      this.wildcard = true;
      return;
    }
    const key = lowerCase(name);
    if (!isReserved(key) && !this.exact.has(key)) this.exact.set(key, name);
  }
}

const noRules: PeerRules = { exact: new Map(), wildcard: false };
const noPeers: ReadonlySet<string> = new Set();

/** The exported-services entry by peer and by service: made once for each entry, however often it is read. */
export class ExportRules {
  readonly #any = new Rules();
  readonly #ofPeers = new Map<string, Rules>();
  /** By lower-cased name, or `*`. */
  readonly #peers = new Map<string, Set<string>>();
  /** Places of blocks in the entry, by lower-cased name, or `*`. */
  readonly #blocks = new Map<string, number[]>();

  constructor(entry: ExportedServicesEntry | undefined) {
    for (const [block, { name, consumers }] of (entry?.services ?? []).entries()) {
      const key = lowerCase(name);
      const blocks = this.#blocks.get(key);
      if (blocks === undefined) this.#blocks.set(key, [block]);
      else blocks.push(block);
      for (const { peer } of consumers) {
        if (peer === undefined) continue;
        const rules = this.#ofPeers.get(peer) ?? new Rules();
        this.#ofPeers.set(peer, rules);
        rules.add(name);
        this.#any.add(name);
        this.#peers.set(key, (this.#peers.get(key) ?? new Set()).add(peer));
      }
    }
  }

  /** Whether a block stands for all services, for any peer. */
  get hasWildcard(): boolean {
    return this.#blocks.has("*");
  }

  /** Of all peers together. */
  get any(): PeerRules {
    return this.#any;
  }

  /** The blocks that count for the peering of this name. */
  of(peerName: string): PeerRules {
    return this.#ofPeers.get(peerName) ?? noRules;
  }

  /** Places of the blocks that name a service, or stand for all, in their order. @param key - lower-cased. */
  blocksFor(key: string): readonly number[] {
    const blocks = [...(this.#blocks.get(key) ?? []), ...(this.#blocks.get("*") ?? [])];
    return [...new Set(blocks)].sort((left, right) => left - right);
  }

  /** Names of peers that blocks of this very name give it to. @param key - lower-cased; `*`: those of all services. */
  peersOf(key: string): ReadonlySet<string> {
    return this.#peers.get(key) ?? noPeers;
  }
}
