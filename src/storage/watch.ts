import { encodeKey, isUnder } from "./key-encoding.js";
import type { Key } from "./storage.js";

/** Keys remembered of past commits, so that a watch knows what changed between a read and its own begin. */
const REMEMBERED_KEYS = 4096;

interface Subscriber {
  readonly prefix: string;
  pending: bigint | undefined;
  wake: () => void;
}

/** Tells watchers of one storage about commits. Each costs one pending revision however slow it is; no timers. */
export class WatchHub {
  readonly #subscribers = new Set<Subscriber>();
  readonly #recent: { readonly revision: bigint; readonly keys: readonly string[] }[] = [];
  #recentKeys = 0;
  /** What changed at this revision or before is not remembered any more. */
  #horizon: bigint;
  #closed = false;

  /** @param revision - the storage's revision now. */
  constructor(revision: bigint) {
    this.#horizon = revision;
  }

  /** @param keys - encoded keys the commit of `revision` wrote or deleted; call it in the order of commits. */
  changed(revision: bigint, keys: readonly string[]): void {
    this.#recent.push({ revision, keys });
    this.#recentKeys += keys.length;
    while (this.#recentKeys > REMEMBERED_KEYS || this.#recent.length > REMEMBERED_KEYS) {
      const oldest = this.#recent.shift();
      if (oldest === undefined) break;
      this.#recentKeys -= oldest.keys.length;
      this.#horizon = oldest.revision;
    }
    for (const subscriber of this.#subscribers) {
      if (!keys.some((key) => isUnder(key, subscriber.prefix))) continue;
      subscriber.pending = revision;
      subscriber.wake();
    }
  }

  /** Ends every watch. */
  close(): void {
    this.#closed = true;
    for (const subscriber of this.#subscribers) subscriber.wake();
  }

  /**
   * As `Storage.watch`. Begun from a revision so old that nobody knows what changed since, it yields once to be safe.
   * @param newest - the revision to yield in that case.
   */
  async *watch(prefix: Key, after: bigint, signal: AbortSignal, newest: () => bigint): AsyncGenerator<bigint, void> {
    const encoded = encodeKey(prefix);
    const subscriber: Subscriber = { prefix: encoded, pending: this.#missed(encoded, after, newest), wake: () => {} };
    const wake = (): void => subscriber.wake();
    this.#subscribers.add(subscriber);
    signal.addEventListener("abort", wake);
    try {
      while (!signal.aborted && !this.#closed) {
        const revision = subscriber.pending;
        if (revision === undefined) {
          await new Promise<void>((resolve) => {
            subscriber.wake = resolve;
          });
        } else {
          subscriber.pending = undefined;
          yield revision;
        }
      }
    } finally {
      this.#subscribers.delete(subscriber);
      signal.removeEventListener("abort", wake);
    }
  }

  #missed(prefix: string, after: bigint, newest: () => bigint): bigint | undefined {
    for (let index = this.#recent.length - 1; index >= 0; index--) {
      const commit = this.#recent[index];
      if (commit === undefined || commit.revision <= after) return undefined;
      if (commit.keys.some((key) => isUnder(key, prefix))) return commit.revision;
    }
    return after < this.#horizon ? newest() : undefined;
  }
}
