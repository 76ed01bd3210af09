import { type Clock, systemClock } from "../base/environment.js";
import { asPeeringError, errorText, PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { Mutex } from "../base/mutex.js";
import { retry } from "../base/retry.js";
import { damagedEntries, deleteDamaged } from "./damaged-entries.js";
import { bytesOf } from "./limits.js";
import type {
  CommitOptions,
  DamagedEntry,
  Entry,
  Expectation,
  Key,
  Removal,
  Storage,
  StorageChanges,
  StorageLimits,
  Write,
} from "./storage.js";

/**
 * Takes the entries that the storage delivers, one by one. Memory changes with the last call alone. Each call may take turns, and is waited
 * for then.
 */
export interface Receiver {
  /** @throws why the entry is damaged; then the receiver goes on without it. */
  put(entry: Entry): void | Promise<void>;
  /** @param revision - of the commit that deleted it. */
  remove(key: Key, revision: bigint): void;
  /** That was all. @param revision - of the last commit under the prefix. @throws why the entries do not fit together. */
  done(revision: bigint): void | Promise<void>;
}

/** Takes all entries of a section. */
export interface Loader extends Receiver {
  /** There is an expendable entry, but its value is not what was stored. */
  damaged(key: Key, why: Error): void;
}

/** The entries under a prefix as a process holds them in memory. */
export interface ReplicaContents {
  /** All entries of a section follow: they replace those that are held. */
  load(section: string): Loader;
  /** The changes that other processes made in a section follow. */
  follow(section: string): Receiver;
}

/** One write, decided on the state of this moment. */
export interface Plan<Result> {
  /** None: nothing is committed. */
  readonly writes: readonly Write[];
  /** Further conditions, on entries outside of the prefix. Default: none. */
  readonly expect?: readonly Expectation[] | undefined;
  /** Default `durable`. */
  readonly durability?: CommitOptions["durability"] | undefined;
  /** Nothing is left of the section after it: its head goes, too. Default false. */
  readonly isLast?: boolean | undefined;
  /** Updates memory to the commit, and makes the answer. @param revision - of the commit; of the last one, where nothing was to be written. */
  readonly done: (revision: bigint) => Result | Promise<Result>;
}

/** A section while no other task of this process writes it or follows changes of it. */
export interface Turn {
  /** As {@link Replica.write}, but where another process was faster, the task that has the turn begins again. */
  commit<Result>(plan: Plan<Result>): Promise<Result>;
  /** Resolves when memory equals the storage. If another process has written since, the task begins again. */
  current(): Promise<void>;
}

/** Entries that can be fetched again, such as those a peer sent, or done without. Damaged ones are ignored. */
export interface Expendable {
  readonly has: (key: Key) => boolean;
  /** Whether this process may delete them now. Never: they are left for a person, or a later version. Default: always. */
  readonly mayDelete?: () => boolean;
  /** Kind and message of the incident that is reported for each that is ignored. */
  readonly incident: string;
  readonly message: string;
}

export interface ReplicaOptions {
  readonly storage: Storage;
  /** Everything that lies under it belongs to the replica. */
  readonly prefix: Key;
  /**
   * Whether the first part of a path below the prefix, which is never empty, names a section: entries that are written and followed
   * by themselves. Default false: there is one section, `""`.
   */
  readonly hasSections?: boolean | undefined;
  /**
   * Last part of the key of the head, where there are no sections: no other entry may have it alone below the prefix. Default
   * `head`.
   */
  readonly head?: string | undefined;
  /** The noun for an entry in messages, such as `config entry`. */
  readonly rowName: string;
  readonly contents: ReplicaContents;
  /** Entries that can be fetched again, or done without; other damage keeps the replica from being loaded. */
  readonly expendable?: Expendable | undefined;
  /** For the waits between attempts to read the storage. Default: the system's. */
  readonly clock?: Clock | undefined;
  /** Gets a report of damaged entries and of a storage that cannot be followed. Default: no reports. */
  readonly incidents?: Incidents | undefined;
}

/** Last part of the key of the head. */
const HEAD = "head";

/** The head of a prefix without sections: the entry that each commit of a replica writes and expects. */
export function headKey(prefix: Key, head: string = HEAD): Key {
  return [...prefix, head];
}

/** First part, below the prefix, of the keys of the heads of sections. The second one is the section. */
const HEADS = "";

/** Read at a time, in bytes of values. */
const PAGE_BYTES = 1024 * 1024;

/** Attempts of one write while other processes are faster. One of those that compete always succeeds. */
const MAX_ATTEMPTS = 20;

const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 60_000;

/** Another process has written: the decision must be made again. */
class Overtaken extends PeeringError {
  constructor(cause?: unknown) {
    super("conflict", "other processes kept being faster", { cause });
  }
}

interface Section {
  readonly name: string;
  readonly turns: Mutex;
  /** Revision of the head; undefined: there is none. */
  head: bigint | undefined;
  /** Of the last commit that is held. It only grows. */
  revision: bigint;
  /** Everything of the section that was committed up to this revision is held. */
  known: bigint;
  /** A commit was not answered: the storage may have more than is held. Looked into before the next write. */
  isDoubtful: boolean;
}

/** The changes of one section. */
interface SectionChange {
  readonly entries: readonly Entry[];
  readonly removed: readonly Removal[];
}

/**
 * Keeps the memory of a process equal to the stored entries under a prefix, for everything that writes there: loading,
 * writing, following other processes, and handling conflicts, lost answers and damage.
 *
 * Each commit writes the head of its section and expects it as it was. So the state that a write was decided on still holds when it is
 * committed; else the write is decided again on the newer state. And a commit that succeeds shows that nothing was missed before it.
 */
export class Replica implements AsyncDisposable {
  readonly #options: ReplicaOptions;
  readonly #storage: Storage;
  readonly #prefix: Key;
  readonly #hasSections: boolean;
  readonly #clock: Clock;
  readonly #incidents: Incidents;
  readonly #sections = new Map<string, Section>();
  readonly #closing = new AbortController();
  /** Everything that was committed up to this revision is held, of all sections. */
  #known = 0n;
  /** Commits that were begun, and whose results are not in memory yet. None of them rejects. */
  readonly #committing = new Set<Promise<void>>();
  #following: Promise<void> = Promise.resolve();

  private constructor(options: ReplicaOptions) {
    this.#options = options;
    this.#storage = options.storage;
    this.#prefix = options.prefix;
    this.#hasSections = options.hasSections ?? false;
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
    await replica.#load(options.prefix, replica.#hasSections ? [] : [replica.#section("")]);
    replica.#following = replica.#follow();
    return replica;
  }

  /** Revision of the last commit under the prefix that is held; 0n before the first. It only grows. */
  get revision(): bigint {
    let newest = 0n;
    for (const { revision } of this.#sections.values()) if (revision > newest) newest = revision;
    return newest;
  }

  /** Everything that was committed up to this revision is held, whatever it was. */
  get known(): bigint {
    return this.#known;
  }

  /** The bounds on the writes of a plan: the storage takes no more together, and the head is one of them. */
  limits(section = ""): StorageLimits {
    const { writes, bytes } = this.#storage.limits;
    return { writes: writes - 1, bytes: bytes - bytesOf({ key: this.#headKey(section), value: undefined }) };
  }

  /**
   * Makes one write, after those of the section that were begun before.
   * @param plan - decides on the state of now. It is called again where another process was faster.
   * @throws what `plan` throws; {@link PeeringError} `storage-failed`: nothing was changed; `unavailable`: it may have been
   *   written; `conflict`: an expectation of the plan failed, or other processes kept being faster; `closed`.
   */
  write<Result>(plan: () => Plan<Result>): Promise<Result> {
    return this.run("", (turn) => turn.commit(plan()));
  }

  /**
   * Runs a task after those of the section that were begun before, once it is known what became of a commit that was not answered.
   * @param task - is run again where another process was faster.
   * @throws the error of the task; {@link PeeringError} as {@link write}, and as `Storage.read`.
   */
  async run<Result>(name: string, task: (turn: Turn) => Promise<Result>): Promise<Result> {
    if (this.#closing.signal.aborted) throw this.#closed();
    const section = this.#section(name);
    const turn: Turn = {
      commit: (plan) => this.#commit(section, plan),
      current: async () => {
        if (await this.#catchUp(section)) throw new Overtaken();
      },
    };
    return section.turns.run(async () => {
      for (let attempt = 1; ; attempt++) {
        if (section.isDoubtful) await this.#catchUp(section);
        try {
          return await task(turn);
        } catch (error) {
          if (!(error instanceof Overtaken) || attempt === MAX_ATTEMPTS) throw error;
        }
      }
    });
  }

  /**
   * Waits until it is known what became of a commit that was not answered, if there is one.
   * @throws {PeeringError} as `Storage.read`, `closed`.
   */
  async current(section = ""): Promise<void> {
    if (this.#closing.signal.aborted) throw this.#closed();
    if (this.#section(section).isDoubtful) await this.run(section, async () => {});
  }

  /** Refuses further writes, and waits for those that were begun. The storage stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(this.#closed());
    for (const { turns } of this.#sections.values()) await turns.idle();
    await this.#following;
  }

  #section(name: string): Section {
    let section = this.#sections.get(name);
    if (section === undefined) {
      section = { name, turns: new Mutex(), head: undefined, revision: 0n, known: 0n, isDoubtful: false };
      this.#sections.set(name, section);
    }
    return section;
  }

  /** Call it in a turn. */
  async #commit<Result>(section: Section, { writes, expect = [], ...plan }: Plan<Result>): Promise<Result> {
    const isOver = plan.isLast === true && section.head !== undefined;
    if (writes.length === 0 && !isOver) return plan.done(section.revision);
    const key = this.#headKey(section.name);
    const head = { key, value: plan.isLast === true ? undefined : new Uint8Array() };
    const expected = [{ key, revision: section.head }, ...expect];
    const committing = this.#storage.commit([...writes, head], expected, { durability: plan.durability ?? "durable" });
    const end = this.#begin();
    let revision: bigint;
    try {
      revision = await committing;
    } catch (error) {
      end();
      const code = error instanceof PeeringError ? error.code : undefined;
      if (code === "conflict" && (await this.#catchUp(section))) throw new Overtaken(error);
      // If it was made after all, the storage tells it like the commit of another process.
      section.isDoubtful ||= code === undefined || code === "unavailable";
      throw asPeeringError(error, "storage-failed");
    }
    this.#advance(section, head.value && revision, revision);
    // Without sections, the head shows that no other process has written. With them, it must be the very next revision.
    if (!this.#hasSections || revision === this.#known + 1n) this.#known = later(this.#known, revision);
    end();
    return plan.done(revision);
  }

  /** A commit was begun. @returns to be called when its end is known. */
  #begin(): () => void {
    let end = (): void => {};
    const committing = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#committing.add(committing);
    return () => {
      this.#committing.delete(committing);
      end();
    };
  }

  #advance(section: Section, head: bigint | undefined, known: bigint): void {
    section.head = head;
    section.revision = later(section.revision, head ?? known);
    section.known = later(section.known, known);
  }

  /**
   * Reads everything under a prefix. Call it in the turns of its sections.
   * @param sections - all whose entries lie there, as far as they are known.
   */
  async #load(prefix: Key, sections: Iterable<Section>): Promise<void> {
    const { contents } = this.#options;
    const loading = new Map<Section, { readonly receiver: Loader; newest: bigint }>();
    const begin = (section: Section): { readonly receiver: Loader; newest: bigint } => {
      const begun = loading.get(section) ?? { receiver: contents.load(section.name), newest: 0n };
      loading.set(section, begun);
      return begun;
    };
    const heads = new Map<Section, bigint>();
    for (const section of sections) begin(section);
    // The heads of sections lie outside of any section's prefix. The changes after them are delivered again.
    let known: bigint | undefined;
    if (prefix !== this.#prefix) {
      for (const section of sections) {
        const { entries, revision } = await this.#storage.read(this.#headKey(section.name), this.#closing.signal);
        for (const entry of entries) heads.set(section, entry.revision);
        known = revision;
      }
    }
    const dropped: DamagedEntry[] = [];
    let newest = 0n;
    for await (const page of this.#storage.pages(prefix, PAGE_BYTES, this.#closing.signal)) {
      const lost = page.damaged.filter(({ key }) => !this.#isExpendable(key));
      if (lost.length > 0) throw damagedEntries(lost);
      for (const entry of page.damaged) {
        const why = new Error("it is not what was stored");
        begin(this.#section(this.#sectionOf(entry.key))).receiver.damaged(entry.key, why);
        this.#drop(entry, why.message, dropped);
      }
      for (const entry of page.entries) {
        const section = this.#section(this.#sectionOf(entry.key));
        const begun = begin(section);
        begun.newest = later(begun.newest, entry.revision);
        if (this.#isHead(entry.key)) {
          heads.set(section, entry.revision);
          continue;
        }
        try {
          const putting = begun.receiver.put(entry);
          if (putting !== undefined) await putting;
        } catch (error) {
          if (!this.#isExpendable(entry.key)) throw this.#damage(entry.key, error);
          this.#drop(entry, errorText(error), dropped);
        }
      }
      newest = page.revision;
    }
    known ??= newest;
    for (const [section, begun] of loading) {
      const head = heads.get(section);
      section.isDoubtful = false;
      section.head = head;
      // A storage of an earlier version has no head.
      section.revision = later(section.revision, head ?? begun.newest);
      section.known = later(section.known, known);
      await begun.receiver.done(section.revision);
    }
    if (prefix === this.#prefix) this.#known = later(this.#known, known);
    if (this.#options.expendable?.mayDelete?.() === false) return;
    // An entry that is newer by now is followed like the commit of any other process.
    await deleteDamaged(this.#storage, dropped);
  }

  /**
   * Takes over the commits of other processes to a section. Call it in a turn.
   * @returns whether there was anything.
   */
  async #catchUp(section: Section): Promise<boolean> {
    const { signal } = this.#closing;
    const before = section.head;
    const head = await this.#storedHead(section);
    if (head === before) {
      section.isDoubtful = false;
      return false;
    }
    const known = later(section.known, this.#known);
    for await (const change of this.#storage.changes(this.#prefix, known, signal)) {
      if (change.type === "reset") await this.#readAgain(section, change.revision);
      else await this.#takeOver(section, this.#bySection(change).get(section.name), change.revision);
      if (section.head === before || (head !== undefined && section.head !== undefined && section.head < head))
        continue;
      section.isDoubtful = false;
      return true;
    }
    throw this.#closed();
  }

  async #storedHead({ name }: Section): Promise<bigint | undefined> {
    const { entries } = await this.#storage.read(this.#headKey(name), this.#closing.signal);
    return entries[0]?.revision;
  }

  /** The storage does not know the changes up to a revision. Call it in a turn. */
  async #readAgain(section: Section, revision: bigint): Promise<void> {
    if ((await this.#storedHead(section)) === section.head) section.known = later(section.known, revision);
    else await this.#load(this.#hasSections ? [...this.#prefix, section.name] : this.#prefix, [section]);
  }

  /** The commits that the storage reports up to a revision, some of which are our own. Call it in a turn. */
  async #takeOver(section: Section, change: SectionChange | undefined, upTo: bigint): Promise<void> {
    const known = later(section.known, this.#known);
    if (upTo <= known) return;
    const receiver = this.#options.contents.follow(section.name);
    let { head } = section;
    let isNews = false;
    for (const { key, revision } of change?.removed ?? []) {
      if (revision <= known) continue;
      if (this.#isHead(key)) {
        head = undefined;
        continue;
      }
      receiver.remove(key, revision);
      isNews = true;
    }
    for (const entry of change?.entries ?? []) {
      if (entry.revision <= known) continue;
      if (this.#isHead(entry.key)) {
        head = entry.revision;
        continue;
      }
      isNews = true;
      try {
        const putting = receiver.put(entry);
        if (putting !== undefined) await putting;
      } catch (error) {
        this.#incidents.report("stored-row-damaged", "another process stored an entry that cannot be read", {
          entry: entry.key.join("/"),
          error: errorText(error),
        });
      }
    }
    section.head = head;
    section.revision = later(section.revision, head ?? 0n);
    section.known = later(section.known, upTo);
    if (isNews) await receiver.done(section.revision);
  }

  /** Never rejects. */
  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    const followed = async (works: () => void): Promise<void> => {
      for await (const change of this.#storage.changes(this.#prefix, this.#known, signal)) {
        works();
        // Most changes are our own.
        await Promise.all(this.#committing);
        if (change.revision > this.#known) await this.#followChange(change);
      }
      // It says why, if the storage is closed.
      await this.#storage.read(this.#headKey(""), signal);
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

  async #followChange(change: StorageChanges): Promise<void> {
    const { revision } = change;
    if (change.type === "reset") {
      const heads = await this.#storage.read(this.#headsKey(), this.#closing.signal);
      for (const { key } of heads.entries) this.#section(this.#sectionOf(key));
      for (const section of this.#sections.values()) {
        await section.turns.run(() => this.#readAgain(section, revision));
      }
    } else if (this.#hasSections) {
      for (const [name, changed] of this.#bySection(change)) {
        const section = this.#section(name);
        await section.turns.run(() => this.#takeOver(section, changed, revision));
      }
    } else {
      const section = this.#section("");
      await section.turns.run(() => this.#takeOver(section, change, revision));
    }
    this.#known = later(this.#known, revision);
  }

  #bySection(change: Extract<StorageChanges, { readonly type: "changed" }>): ReadonlyMap<string, SectionChange> {
    const sections = new Map<string, { readonly entries: Entry[]; readonly removed: Removal[] }>();
    const of = ({ key }: { readonly key: Key }): { readonly entries: Entry[]; readonly removed: Removal[] } => {
      const name = this.#sectionOf(key);
      const known = sections.get(name) ?? { entries: [], removed: [] };
      sections.set(name, known);
      return known;
    };
    for (const entry of change.entries) of(entry).entries.push(entry);
    for (const removal of change.removed) of(removal).removed.push(removal);
    return sections;
  }

  #headsKey(): Key {
    return this.#hasSections ? [...this.#prefix, HEADS] : headKey(this.#prefix, this.#options.head);
  }

  #headKey(section: string): Key {
    return this.#hasSections ? [...this.#headsKey(), section] : this.#headsKey();
  }

  #sectionOf(key: Key): string {
    const { length } = this.#prefix;
    if (!this.#hasSections) return "";
    return (key[length] === HEADS ? key[length + 1] : key[length]) ?? "";
  }

  #isHead(key: Key): boolean {
    const { length } = this.#prefix;
    if (this.#hasSections) return key[length] === HEADS;
    return key.length === length + 1 && key[length] === (this.#options.head ?? HEAD);
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

function later(left: bigint, right: bigint): bigint {
  return left > right ? left : right;
}
