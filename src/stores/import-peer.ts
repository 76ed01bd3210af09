import { ChangeFeed } from "../base/change-feed.js";
import { Signal } from "../base/signal.js";
import type { PayloadView } from "../payload/payload-parts.js";
import { type ImportTotals, PeerIndex } from "./import-index.js";
import type { KeptNodes, PeerSummaries } from "./peer-lists.js";

/** A former service; undefined: it had no instances; `lost`: another process wrote over it before it was read here. */
export type Former = PayloadView | undefined | "lost";

export type ImportFeed = ChangeFeed<Former>;

/** The followers of one service of a peer, or of all. */
export interface Following {
  readonly feed: ImportFeed;
  /** Called after each change; watchers take the former value from the feed. */
  readonly changed: Signal;
}

/** In place of a service, which has a name. */
export const ALL = "";

/** The imports from one peer, and their listeners. */
export class ImportPeer {
  /** Our id of the peering. */
  readonly id: string;
  readonly index: PeerIndex;
  /** Names that have a virtual address, as far as we know: kept while an instance of the name or a proxy for it is left. */
  readonly addressed: Set<string> = new Set();
  /** Nothing comes any more: its peering was deleted. */
  over = false;
  /** There once somebody has asked for a list of its services. */
  summaries: PeerSummaries | undefined;
  /** There once somebody has asked for a list of its nodes. */
  nodes: KeptNodes | undefined;
  /** By service; {@link ALL}. */
  readonly #following = new Map<string, Following>();

  constructor(id: string, totals: ImportTotals) {
    this.id = id;
    this.index = new PeerIndex(totals);
  }

  /** Calls `listener` after each change of a service, or of any. @returns the listeners of the same, and a function that ends it. */
  follow(key: string, listener: () => void): { readonly feed: ImportFeed; readonly end: () => void } {
    let following = this.#following.get(key);
    if (following === undefined) {
      following = { feed: new ChangeFeed(), changed: new Signal() };
      this.#following.set(key, following);
    }
    const { feed, changed } = following;
    const forget = changed.on(listener);
    return {
      feed,
      end: () => {
        forget();
        if (changed.size === 0 && this.#following.get(key) === following) this.#following.delete(key);
      },
    };
  }

  /** Whether any listener waits for changes. */
  get isFollowed(): boolean {
    return this.#following.size > 0;
  }

  /** Whether any watch needs the state before a change. */
  get isWatched(): boolean {
    for (const { feed } of this.#following.values()) if (feed.followers > 0) return true;
    return false;
  }

  /** Whether some follower has the present state of a service. */
  isKnown(key: string): boolean {
    return this.#following.get(ALL)?.feed.isKnown(key) === true || this.#following.get(key)?.feed.isKnown(key) === true;
  }

  /** Whether anyone waits for a change of this very service, and so asks for it after that. */
  isAwaited(key: string): boolean {
    return this.#following.has(key);
  }

  /**
   * Notifies the listeners.
   * @param changed - with the state before, where some follower {@link isKnown knows} it.
   * @param others - that may look otherwise, for listeners.
   */
  notify(changed: ReadonlyMap<string, Former>, others: readonly string[]): void {
    const all = this.#following.get(ALL);
    const woken = new Set<Following>();
    if (all !== undefined && changed.size + others.length > 0) woken.add(all);
    for (const [key, before] of changed) {
      all?.feed.changed(key, before);
      this.#following.get(key)?.feed.changed(key, before);
    }
    for (const keys of [changed.keys(), others]) {
      for (const key of keys) {
        const own = this.#following.get(key);
        if (own !== undefined) woken.add(own);
      }
    }
    for (const { changed } of woken) changed.emit();
  }

  /** Wakes all who follow, for a reason that is no change. */
  wake(): void {
    for (const { changed } of [...this.#following.values()]) changed.emit();
  }
}
