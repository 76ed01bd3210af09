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

/** An entry whose value is not the committed one. */
export interface DamagedEntry {
  readonly key: Key;
  /** The revision of the commit that wrote it last. A commit that deletes it expects this revision, so that no newer value is lost. */
  readonly revision: bigint;
}

/** Entries of one moment. */
export interface Snapshot {
  readonly entries: readonly Entry[];
  /** The newest revision at that moment. */
  readonly revision: bigint;
}

/** A part of a {@link Snapshot}, for content that may not fit into memory. */
export interface StoragePage {
  readonly entries: readonly Entry[];
  /** Entries whose values are damaged. They are not among the others. */
  readonly damaged: readonly DamagedEntry[];
  /** The same for all pages of one reading. */
  readonly revision: bigint;
}

/** The bounds of one commit. A caller with more writes makes several commits, or refuses it where it must be all or nothing. */
export interface StorageLimits {
  readonly writes: number;
  /** Bytes of keys and values. A key has the bytes of its parts. */
  readonly bytes: number;
}

export interface CommitOptions {
  /**
   * `relaxed`: survives the end of the process, but a loss of power may take it back, and every relaxed commit after it too.
   * A later durable commit makes it durable. Default `durable`.
   */
  readonly durability?: "durable" | "relaxed";
}

/** A key that was deleted. */
export interface Removal {
  readonly key: Key;
  /** The revision of the commit that deleted it last. */
  readonly revision: bigint;
}

/** Changes under a prefix. With them a reader knows everything up to `revision`, also where they are older. */
export type StorageChanges =
  | {
      readonly type: "changed";
      /** Each key once, in no particular order: here as it is now, or among `removed`. */
      readonly entries: readonly Entry[];
      readonly removed: readonly Removal[];
      readonly revision: bigint;
    }
  /** The storage does not remember the changes: read again. `revision` is the newest one. */
  | { readonly type: "reset"; readonly revision: bigint };

/**
 * Where a host keeps everything that must survive it. Values and keys given to it must not be changed afterwards; what it returns
 * may be shared and must not be changed either.
 *
 * Revisions may begin above 0 and may jump. A revision is never used again with other content, also where a
 * loss of power took its commit back.
 */
export interface Storage extends AsyncDisposable {
  readonly limits: StorageLimits;

  /**
   * Entries under `prefix` in key order (parts compared as UTF-8 bytes), all read at one revision.
   * @throws {PeeringError} `storage-failed`, `closed`; `storage-damaged`: the stored bytes are not the committed ones, and
   *   `damagedKeys` names the entries if nothing else is damaged; `signal.reason` when aborted.
   */
  read(prefix: Key, signal?: AbortSignal): Promise<Snapshot>;

  /**
   * The same in pages, all of one revision, while others write. There is at least one page, also where there is no entry.
   * The reader finishes soon or returns the iterator: the storage may keep overwritten values meanwhile.
   * @param bytes - a page is full once its values have so many bytes; it holds one entry at least, if any are left.
   * @throws {PeeringError} as `read`, but names damaged entries in the page; `unavailable`: the reading was interrupted, read
   *   again.
   */
  pages(prefix: Key, bytes: number, signal?: AbortSignal): AsyncIterable<StoragePage>;

  /**
   * Applies every write or none, and returns the new revision. Revisions only grow. A key written twice keeps the later
   * write. Commits take effect in the order of the calls.
   * @throws {PeeringError} `conflict`: an expectation failed and nothing was written. Read again, then retry.
   * @throws {PeeringError} `resource-exhausted`: there is more in it than the limits allow; nothing was written.
   * @throws {PeeringError} `storage-failed`: the backend refused; nothing was written. A damaged entry is written over, or
   *   deleted, as any other.
   * @throws {PeeringError} `unavailable`: the backend did not answer; the writes may or may not have happened.
   */
  commit(writes: readonly Write[], expect?: readonly Expectation[], options?: CommitOptions): Promise<bigint>;

  /**
   * Yields each change under `prefix` with a revision above `after`, also those of other processes. Changes that fall
   * together come as one, with the newest of each key. Ends quietly when `signal` aborts or the storage is closed.
   */
  changes(prefix: Key, after: bigint, signal: AbortSignal): AsyncIterable<StorageChanges>;
}
