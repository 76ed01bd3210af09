import { type Clock, systemClock } from "../base/environment.js";
import { asPeeringError, errorText, PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { Mutex } from "../base/mutex.js";
import { retry } from "../base/retry.js";
import { damagedEntries, deleteDamaged } from "./damaged-entries.js";
import { bytesOf } from "./limits.js";
import type {
  DamagedEntry,
  Entry,
  Expectation,
  Key,
  Storage,
  StorageChanges,
  StorageLimits,
  Write,
} from "./storage.js";

/** Takes what the storage tells, entry by entry. Memory changes with the last call alone. */
export interface Receiver {
  /** @throws why the entry is damaged; then the receiver goes on without it. */
  put(entry: Entry): void;
  remove(key: Key): void;
  /** That was all. @param revision - of the last commit under the prefix. @throws why the entries do not fit together. */
  done(revision: bigint): void;
}

/** What a process holds in memory of the entries under a prefix. */
export interface ReplicaContents {
  /** All entries follow: they take the place of those that are held. */
  load(): Receiver;
  /** What other processes changed follows. */
  follow(): Receiver;
}

/** One write, decided on the state of this moment. */
export interface Plan<Result> {
  /** None: nothing is committed. */
  readonly writes: readonly Write[];
  /** What must hold besides, of entries that do not lie under the prefix. Default: nothing. */
  readonly expect?: readonly Expectation[] | undefined;
  /** Makes memory what was committed, and the answer. @param revision - of the commit; of the last one, where nothing was to be written. */
  readonly done: (revision: bigint) => Result;
}

/** Entries that can be had again, such as what a peer sent. */
export interface Expendable {
  readonly has: (key: Key) => boolean;
  /** Kind and message of the incident that is reported for each that is deleted. */
  readonly incident: string;
  readonly message: string;
}

export interface ReplicaOptions {
  readonly storage: Storage;
  /** Everything that lies under it belongs to the replica. */
  readonly prefix: Key;
  /** What an entry is, for messages, such as `config entry`. */
  readonly rowName: string;
  readonly contents: ReplicaContents;
  /** Entries that can be had again. Those that are damaged are deleted; other damage keeps the replica from being loaded. */
  readonly expendable?: Expendable | undefined;
  /** For the waits between attempts to read the storage. Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Told of damaged entries and of a storage that cannot be followed. Default: nobody. */
  readonly incidents?: Incidents | undefined;
}

/** Last part of the key of the head. */
const HEAD = "head";

/** The head of a prefix: the entry that each commit of a replica writes and expects. */
export function headKey(prefix: Key): Key {
  return [...prefix, HEAD];
}

/** Read at a time, in bytes of values. */
const PAGE_BYTES = 1024 * 1024;

/** Attempts of one write while other processes are faster. One of those that compete always succeeds. */
const MAX_ATTEMPTS = 20;

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 60_000;

/**
 * Keeps what a process holds in memory equal to what a storage has under a prefix, for all who write there: loading,
 * writing, following other processes, and what to do about conflicts, lost answers and damage.
 *
 * Each commit writes the head of its prefix and expects it as it was. So what a write was decided on still holds when it is
 * committed; else it is decided again on what is newer. And a commit that succeeds shows that nothing was missed before it.
 */
export class Replica implements AsyncDisposable {
  readonly #options: ReplicaOptions;
  readonly #storage: Storage;
  readonly #prefix: Key;
  readonly #headKey: Key;
  readonly #clock: Clock;
  readonly #incidents: Incidents;
  readonly #turns = new Mutex();
  readonly #closing = new AbortController();
  /** Revision of the head; undefined: nobody has committed anything. */
  #head: bigint | undefined;
  #revision = 0n;
  /** Everything that was committed up to this revision is held. */
  #known = 0n;
  /** A commit was not answered: the storage may have more than is held. Looked into before the next write. */
  #doubtful = false;
  #following: Promise<void> = Promise.resolve();

  private constructor(options: ReplicaOptions) {
    this.#options = options;
    this.#storage = options.storage;
    this.#prefix = options.prefix;
    this.#headKey = headKey(options.prefix);
    this.#clock = options.clock ?? systemClock;
    this.#incidents = options.incidents ?? new Incidents();
  }

  /**
   * Loads all entries of one revision, and follows the storage from then on.
   * @throws {PeeringError} `storage-damaged`, `storage-failed`: the storage cannot be read, or an entry is damaged; its key is
   *   named. As `Storage.commit`, where a damaged entry is to be deleted.
   */
  static async open(options: ReplicaOptions): Promise<Replica> {
    const replica = new Replica(options);
    await replica.#load();
    replica.#following = replica.#follow();
    return replica;
  }

  /** Revision of the last commit under the prefix that is held; 0n before the first. It only grows. */
  get revision(): bigint {
    return this.#revision;
  }

  /** What the writes of a plan may be: the storage takes no more together, and the head is one of them. */
  get limits(): StorageLimits {
    const { writes, bytes } = this.#storage.limits;
    return { writes: writes - 1, bytes: bytes - bytesOf({ key: this.#headKey, value: undefined }) };
  }

  /**
   * Makes one write, after those that were begun before.
   * @param plan - decides on the state of now. It is called again where another process was faster.
   * @throws what `plan` throws; {@link PeeringError} `storage-failed`: nothing was changed; `unavailable`: it may have been
   *   written; `conflict`: an expectation of the plan failed, or other processes kept being faster; `closed`.
   */
  async write<Result>(plan: () => Plan<Result>): Promise<Result> {
    if (this.#closing.signal.aborted) throw this.#closed();
    return this.#turns.run(async () => {
      for (let attempt = 1; ; attempt++) {
        if (this.#doubtful) await this.#catchUp();
        const { writes, expect = [], done } = plan();
        if (writes.length === 0) return done(this.#revision);
        let revision: bigint;
        try {
          revision = await this.#commit(writes, expect);
        } catch (error) {
          const code = error instanceof PeeringError ? error.code : undefined;
          if (code === "conflict" && attempt < MAX_ATTEMPTS && (await this.#catchUp())) continue;
          // If it was made after all, the storage tells it like the commit of another process.
          this.#doubtful ||= code === undefined || code === "unavailable";
          throw asPeeringError(error, "storage-failed");
        }
        this.#advance(revision, revision);
        return done(revision);
      }
    });
  }

  /**
   * Waits until it is known what became of a commit that was not answered, if there is one.
   * @throws {PeeringError} as `Storage.read`, `closed`.
   */
  async current(): Promise<void> {
    if (this.#closing.signal.aborted) throw this.#closed();
    if (!this.#doubtful) return;
    await this.#turns.run(async () => {
      if (this.#doubtful) await this.#catchUp();
    });
  }

  /** Refuses further writes, and waits for those that were begun. The storage stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(this.#closed());
    await this.#turns.idle();
    await this.#following;
  }

  #commit(writes: readonly Write[], expect: readonly Expectation[]): Promise<bigint> {
    const head = { key: this.#headKey, value: new Uint8Array() };
    return this.#storage.commit([...writes, head], [{ key: this.#headKey, revision: this.#head }, ...expect]);
  }

  #advance(head: bigint, known: bigint): void {
    this.#head = head;
    if (head > this.#revision) this.#revision = head;
    if (known > this.#known) this.#known = known;
  }

  /** Reads everything. Call it in a turn. */
  async #load(): Promise<void> {
    const receiver = this.#options.contents.load();
    const dropped: DamagedEntry[] = [];
    let head: bigint | undefined;
    let [newest, known] = [0n, 0n];
    for await (const page of this.#storage.pages(this.#prefix, PAGE_BYTES, this.#closing.signal)) {
      const lost = page.damaged.filter(({ key }) => !this.#isExpendable(key));
      if (lost.length > 0) throw damagedEntries(lost);
      for (const entry of page.damaged) this.#drop(entry, "it is not what was stored", dropped);
      for (const entry of page.entries) {
        if (entry.revision > newest) newest = entry.revision;
        if (this.#isHead(entry.key)) {
          head = entry.revision;
          continue;
        }
        try {
          receiver.put(entry);
        } catch (error) {
          if (!this.#isExpendable(entry.key)) throw this.#damage(entry.key, error);
          this.#drop(entry, errorText(error), dropped);
        }
      }
      known = page.revision;
    }
    this.#doubtful = false;
    this.#head = head;
    if (known > this.#known) this.#known = known;
    // A storage of an earlier version has no head.
    const revision = head ?? newest;
    if (revision > this.#revision) this.#revision = revision;
    receiver.done(this.#revision);
    // One that is newer by now is told like the commit of any other process.
    await deleteDamaged(this.#storage, dropped);
  }

  /**
   * Takes over what other processes committed. Call it in a turn.
   * @returns whether there was anything.
   */
  async #catchUp(): Promise<boolean> {
    const { signal } = this.#closing;
    const head = await this.#storedHead();
    if (head === undefined || head === this.#head) {
      this.#doubtful = false;
      return false;
    }
    for await (const change of this.#storage.changes(this.#prefix, this.#known, signal)) {
      await this.#takeOver(change);
      if (this.#head !== undefined && this.#head >= head) {
        this.#doubtful = false;
        return true;
      }
    }
    throw this.#closed();
  }

  async #storedHead(): Promise<bigint | undefined> {
    const { entries } = await this.#storage.read(this.#headKey, this.#closing.signal);
    return entries[0]?.revision;
  }

  /** What the storage tells of commits, some of which are our own. Call it in a turn. */
  async #takeOver(change: StorageChanges): Promise<void> {
    if (change.type === "reset") {
      if ((await this.#storedHead()) !== this.#head) return this.#load();
      if (change.revision > this.#known) this.#known = change.revision;
      return;
    }
    // Most changes are our own.
    if (change.revision <= this.#known) return;
    const receiver = this.#options.contents.follow();
    let head: bigint | undefined;
    let isNews = false;
    for (const { key, revision } of change.removed) {
      if (revision <= this.#known) continue;
      receiver.remove(key);
      isNews = true;
    }
    for (const entry of change.entries) {
      if (entry.revision <= this.#known) continue;
      if (this.#isHead(entry.key)) {
        head = entry.revision;
        continue;
      }
      isNews = true;
      try {
        receiver.put(entry);
      } catch (error) {
        this.#incidents.report("stored-row-damaged", "another process stored an entry that cannot be read", {
          entry: entry.key.join("/"),
          error: errorText(error),
        });
      }
    }
    if (head === undefined) this.#known = change.revision;
    else this.#advance(head, change.revision);
    if (isNews) receiver.done(this.#revision);
  }

  /** Never rejects. */
  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    const followed = async (works: () => void): Promise<void> => {
      for await (const change of this.#storage.changes(this.#prefix, this.#known, signal)) {
        works();
        await this.#turns.run(() => this.#takeOver(change));
      }
      // It says why, if the storage is closed.
      await this.#storedHead();
      throw new PeeringError("unavailable", "the storage told no more changes");
    };
    try {
      await retry(followed, {
        clock: this.#clock,
        signal,
        firstMs: FIRST_RETRY_MS,
        maxMs: MAX_RETRY_MS,
        // Most often a connection was lost that can be made again.
        atOnce: true,
        onFailure: (error) => {
          if (error instanceof PeeringError && error.code === "closed") throw error;
          this.#incidents.report("storage-not-followed", "the storage could not be followed", {
            rows: this.#options.rowName,
            error: errorText(error),
          });
        },
      });
    } catch {
      // The replica or its storage is closed.
    }
  }

  #isHead(key: Key): boolean {
    return key.length === this.#headKey.length && key.at(-1) === HEAD;
  }

  #isExpendable(key: Key): boolean {
    return this.#options.expendable?.has(key) ?? false;
  }

  #drop({ key, revision }: DamagedEntry, why: string, dropped: DamagedEntry[]): void {
    const { expendable } = this.#options;
    if (expendable === undefined) return;
    dropped.push({ key, revision });
    this.#incidents.report(expendable.incident, expendable.message, { entry: key.join("/"), error: why });
  }

  #damage(key: Key, cause: unknown): PeeringError {
    const why = `stored ${this.#options.rowName} ${key.join("/")} is damaged: ${errorText(cause)}`;
    const remedy = cause instanceof PeeringError ? cause.remedy : undefined;
    return new PeeringError("storage-failed", why, { cause, ...(remedy !== undefined && { remedy }) });
  }

  #closed(): PeeringError {
    return new PeeringError("closed", `what holds each ${this.#options.rowName} is closed`);
  }
}
