/** A path, most general part first. As a prefix it names the entry with this very key and everything below it. */
export type Key = readonly string[];

export interface Entry {
  readonly key: Key;
  readonly value: Uint8Array;
  /** The revision of the commit that wrote this entry last. */
  readonly revision: bigint;
}

export interface Write {
  readonly key: Key;
  /** `undefined` deletes. */
  readonly value: Uint8Array | undefined;
}

export interface Expectation {
  readonly key: Key;
  /** `undefined`: the key must not exist. */
  readonly revision: bigint | undefined;
}

/** A part of what lies under a prefix, for what may be more than fits into memory. */
export interface Page {
  /** Entries behind this key, which need not exist. Default: from the first on. */
  readonly after?: Key;
  /** Once the values that were read have so many bytes, the page is full. It has one entry at least, if any are left. */
  readonly bytes: number;
}

/** Entries of one moment. */
export interface Snapshot {
  readonly entries: readonly Entry[];
  /** The newest revision at that moment; 0n for a storage that was never written. */
  readonly revision: bigint;
}

/**
 * Where a host keeps what must survive it. Values and keys given to it must not be changed afterwards; what it returns
 * may be shared and must not be changed either.
 */
export interface Storage extends AsyncDisposable {
  /**
   * Entries under `prefix` in key order (parts compared as UTF-8 bytes), all read at one revision.
   * @throws {PeeringError} `storage-failed`, `closed`; `storage-damaged`: what is stored there is not what was committed, and
   *   `damagedKeys` names the entries if it is only that; `signal.reason` when aborted.
   * @param page - reads no more than this of them; each page is of a moment of its own. Default: all.
   */
  read(prefix: Key, signal?: AbortSignal, page?: Page): Promise<Snapshot>;

  /**
   * Applies every write or none, durably, and returns the new revision. Revisions only grow. A key written twice keeps
   * the later write. Commits take effect in the order of the calls.
   * @throws {PeeringError} `conflict`: an expectation failed and nothing was written. Read again, then retry.
   * @throws {PeeringError} `storage-failed`: the backend refused; nothing was written. A damaged entry is written over, or
   *   deleted, as any other.
   * @throws {PeeringError} `unavailable`: the backend did not answer; the writes may or may not have happened.
   */
  commit(writes: readonly Write[], expect?: readonly Expectation[]): Promise<bigint>;

  /**
   * Yields the newest revision each time something under `prefix` changed after revision `after`; changes that fall
   * together may yield once. Ends quietly when `signal` aborts or the storage is closed.
   */
  watch(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<bigint>;
}
