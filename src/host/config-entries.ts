import {
  CONFIG_ENTRY_KINDS,
  type ConfigEntry,
  type ConfigEntryInput,
  type ConfigEntryKind,
  isConfigEntryKind,
  parseConfigEntry,
} from "../catalog/config-entry.js";
import { type ChainLimits, ConfigEntrySet, defaultChainLimits } from "../catalog/config-entry-set.js";
import { withConsulExtras } from "../catalog/entry-extras.js";
import { checkNeighbours, settledEntry } from "../catalog/entry-rules.js";
import { checkEntryGuards } from "../catalog/export-guards.js";
import { lowerCase } from "../catalog/names.js";
import { entryShapes } from "../catalog/shapes.js";
import { defaultWriteLimits, type WriteLimits } from "../catalog/write-limits.js";
import { errorText, PeeringError } from "../errors.js";
import type { Incidents } from "../incidents.js";
import { CONFIG_PREFIX } from "../storage/keys.js";
import type { Key, Storage } from "../storage/storage.js";
import { plainSecretBox, type SecretBox } from "../trust/secret-box.js";
import { requireFewValues } from "./record-limit.js";

/** Another writer of the same storage may win a race; each loss costs one reading. */
const CONFLICT_TRIES = 5;

/** An entry with the revisions of its first and its last write. */
export interface StoredConfigEntry {
  readonly entry: ConfigEntry;
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
}

type EntryOf<Kind extends ConfigEntryKind> = Extract<ConfigEntry, { readonly kind: Kind }>;

export interface ConfigEntriesOptions {
  readonly storage: Storage;
  /** Ours: what discovery chains are judged from. */
  readonly datacenter: string;
  readonly limits?: Partial<ChainLimits & WriteLimits>;
  readonly incidents?: Incidents;
  /** How secrets in entries are kept. Default: as they are. */
  readonly secretBox?: SecretBox;
}

export interface ConfigWriteOptions {
  /** Writes only if the entry was last written at this index; `0n`: only if there is none. */
  readonly cas?: bigint;
}

/** What changed; `entry` is undefined when it was deleted. */
export interface ConfigEntryChange {
  readonly kind: ConfigEntryKind;
  readonly name: string;
  /** Undefined: it is gone. */
  readonly entry: ConfigEntry | undefined;
  /** As it was before; undefined: there was none. */
  readonly former: ConfigEntry | undefined;
}

function entryId(kind: ConfigEntryKind, name: string): string {
  return `${kind}/${lowerCase(name)}`;
}

function keyOf(kind: ConfigEntryKind, name: string): Key {
  return [...CONFIG_PREFIX, kind, lowerCase(name)];
}

/** Equal entries have equal texts: members in one order. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === "object" && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).sort(([left], [right]) => (left < right ? -1 : 1)))
      : member,
  );
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** Fields of entries that are secrets: no reader of the storage is to see them. */
const SECRETS: Readonly<Partial<Record<ConfigEntryKind, readonly string[]>>> = Object.fromEntries(
  Object.entries(entryShapes).map(([kind, shape]) => [
    kind,
    Object.keys(shape).filter((name) => shape[name]?.secret === true),
  ]),
);

/** `createIndex` is left out by a first write, whose index is not known before its commit: it is the entry's revision. */
function encode(entry: ConfigEntry, createIndex: bigint | undefined, secretBox: SecretBox): Uint8Array {
  const extra = { ...entry.extra };
  const sealed: Record<string, string> = {};
  for (const name of SECRETS[entry.kind] ?? []) {
    const secret = extra[name];
    if (typeof secret !== "string") continue;
    sealed[name] = Buffer.from(secretBox.seal(encoder.encode(secret))).toString("base64");
    delete extra[name];
  }
  return encoder.encode(
    JSON.stringify({
      entry: Object.keys(sealed).length === 0 ? entry : { ...entry, extra },
      ...(Object.keys(sealed).length === 0 ? {} : { sealed }),
      ...(createIndex === undefined ? {} : { createIndex: createIndex.toString() }),
    }),
  );
}

interface DecodedEntry extends StoredConfigEntry {
  /** Whether its secrets are sealed as they would be today. */
  readonly current: boolean;
}

function decode(key: Key, value: Uint8Array, revision: bigint, secretBox: SecretBox): DecodedEntry {
  try {
    const stored: unknown = JSON.parse(decoder.decode(value));
    if (typeof stored !== "object" || stored === null || !("entry" in stored)) throw new TypeError("no entry in it");
    const createIndex = "createIndex" in stored ? BigInt(String(stored.createIndex)) : revision;
    const entry = parseConfigEntry(stored.entry);
    const secrets: Record<string, string> = {};
    let current = true;
    for (const [name, text] of Object.entries("sealed" in stored ? (stored.sealed ?? {}) : {})) {
      const sealed = Buffer.from(String(text), "base64");
      secrets[name] = decoder.decode(secretBox.open(sealed));
      current &&= secretBox.isCurrent(sealed);
    }
    const whole = Object.keys(secrets).length === 0 ? entry : { ...entry, extra: { ...entry.extra, ...secrets } };
    return { entry: whole, createIndex, modifyIndex: revision, current };
  } catch (error) {
    throw new PeeringError("storage-failed", `stored config entry ${key.join("/")} is damaged: ${errorText(error)}`, {
      cause: error,
    });
  }
}

/** The configuration entries of a host: checked when written, kept in storage, read from memory. */
export class ConfigEntries {
  readonly #storage: Storage;
  readonly #datacenter: string;
  readonly #limits: ChainLimits & Pick<WriteLimits, "recordValues">;
  readonly #incidents: Incidents | undefined;
  readonly #secretBox: SecretBox;
  readonly #listeners = new Set<(change: ConfigEntryChange) => void>();
  #stored = new Map<string, StoredConfigEntry>();
  #entries: ConfigEntrySet;
  #index = 0n;
  readonly #kindIndexes = new Map<ConfigEntryKind, bigint>();
  /** That of kinds of which nothing was written since the start: what was deleted before leaves nothing. */
  #indexAtStart = 0n;
  /** The write that runs or ran last; the next one waits for it. Never rejects. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(options: ConfigEntriesOptions) {
    const { storage, datacenter, incidents, secretBox = plainSecretBox } = options;
    if (datacenter === "") throw new TypeError("datacenter cannot be empty");
    this.#storage = storage;
    this.#datacenter = datacenter;
    const limits = { ...defaultChainLimits, ...defaultWriteLimits, ...options.limits };
    this.#limits = limits;
    this.#incidents = incidents;
    this.#secretBox = secretBox;
    this.#entries = ConfigEntrySet.of([], limits);
  }

  /** @throws {PeeringError} `storage-failed`: the storage cannot be read, or an entry in it is damaged; it is named. */
  static async open(options: ConfigEntriesOptions): Promise<ConfigEntries> {
    const entries = new ConfigEntries(options);
    await entries.#sealAgain(await entries.#load());
    entries.#indexAtStart = entries.#index;
    return entries;
  }

  /** All entries as of now: immutable, a later write makes another set. */
  get entries(): ConfigEntrySet {
    return this.#entries;
  }

  /** Index of the last write to any entry; 0n before the first. */
  get index(): bigint {
    return this.#index;
  }

  /** Index of the last write to any entry of a kind, or of those that cannot be told from it. */
  kindIndex(kind: ConfigEntryKind): bigint {
    return this.#kindIndexes.get(kind) ?? this.#indexAtStart;
  }

  get<Kind extends ConfigEntryKind>(kind: Kind, name: string): EntryOf<Kind> | undefined {
    return this.#entries.get(kind, name);
  }

  /** The entry with its indexes. */
  stored(kind: ConfigEntryKind, name: string): StoredConfigEntry | undefined {
    return this.#stored.get(entryId(kind, name));
  }

  /** Entries of one kind, or of all, by kind and lower-cased name. */
  list(kind?: ConfigEntryKind): readonly StoredConfigEntry[] {
    const kinds = kind === undefined ? CONFIG_ENTRY_KINDS : [kind];
    return kinds.flatMap((each) =>
      [...this.#entries.all(each).keys()].sort().flatMap((name) => this.stored(each, name) ?? []),
    );
  }

  /**
   * Writes an entry, whole. One equal to what is stored is a success that changes nothing, whatever `cas` says, as in
   * Consul 1.21.
   *
   * @param entry - also untyped input: it is checked like any other.
   * @returns false: `cas` did not match and nothing was written.
   * @throws {PeeringError} `invalid-entry`: the entry, or what it would do to an exported service, breaks the rule named.
   * @throws {PeeringError} `resource-exhausted`: it has too many values, or a discovery chain would get too long.
   * @throws {PeeringError} `storage-failed`, `unavailable`: it may have been written only with `unavailable`.
   */
  async set(entry: ConfigEntryInput, options: ConfigWriteOptions = {}): Promise<boolean> {
    requireFewValues("a config entry", entry, this.#limits.recordValues, this.#incidents);
    return this.setUntyped(withConsulExtras(entry), options);
  }

  /** {@link set} for input of unknown shape, of which what is only kept has Consul's form already. */
  async setUntyped(entry: unknown, options: ConfigWriteOptions = {}): Promise<boolean> {
    const parsed = this.#parsed(entry);
    return this.#write(parsed.kind, parsed.name, () => parsed, options.cas);
  }

  /**
   * Deletes an entry; one that does not exist is a success.
   *
   * @returns false: `cas` did not match and nothing was deleted.
   * @throws {PeeringError} `invalid-entry`: without it an exported service or a discovery chain would break.
   */
  async delete(kind: ConfigEntryKind, name: string, options: ConfigWriteOptions = {}): Promise<boolean> {
    if (!isConfigEntryKind(kind)) throw new PeeringError("invalid-entry", `invalid config entry kind: ${String(kind)}`);
    return this.#write(kind, name, () => undefined, options.cas);
  }

  /**
   * Writes what `make` makes of the entry that is there, as one step: no other write comes between. It may be called again when
   * another writer of the storage was faster.
   *
   * @param make - gets the entry, and returns another one of this kind and name, untyped, or undefined: the entry is deleted.
   * @throws what `make` throws, and as {@link set}.
   */
  async change<Kind extends ConfigEntryKind>(
    kind: Kind,
    name: string,
    make: (before: EntryOf<Kind> | undefined) => unknown,
  ): Promise<void> {
    await this.#write(kind, name, () => {
      const made = make(this.get(kind, name));
      return made === undefined ? undefined : this.#parsed(made);
    });
  }

  /** Calls `listener` after each change, once it is stored, until the returned function is called. */
  onChange(listener: (change: ConfigEntryChange) => void): () => void {
    const own = (change: ConfigEntryChange): void => listener(change);
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }

  #parsed(entry: unknown): ConfigEntry {
    requireFewValues("a config entry", entry, this.#limits.recordValues, this.#incidents);
    return settledEntry(parseConfigEntry(entry));
  }

  #write(kind: ConfigEntryKind, name: string, make: () => ConfigEntry | undefined, cas?: bigint): Promise<boolean> {
    // One after the other: the guards of a write judge the entries as the one before left them.
    const written = this.#last.then(() => this.#writeNow(kind, name, make, cas));
    this.#last = written.catch(() => undefined);
    return written;
  }

  async #writeNow(
    kind: ConfigEntryKind,
    name: string,
    make: () => ConfigEntry | undefined,
    cas: bigint | undefined,
  ): Promise<boolean> {
    for (let tries = 1; ; tries++) {
      const before = this.stored(kind, name);
      const entry = make();
      if (entry === undefined ? before === undefined : canonical(entry) === canonical(before?.entry)) return true;
      if (cas !== undefined && cas !== (before?.modifyIndex ?? 0n)) return false;
      const entries = entry === undefined ? this.#entries.without(kind, name) : this.#entries.with(entry);
      if (entry !== undefined) checkNeighbours(this.#entries, entry);
      const written = entry?.name ?? before?.entry.name ?? name;
      this.#check(entries, kind, written);
      const key = keyOf(kind, name);
      const value = entry === undefined ? undefined : encode(entry, before?.createIndex, this.#secretBox);
      try {
        const revision = await this.#storage.commit([{ key, value }], [{ key, revision: before?.modifyIndex }]);
        this.#index = revision;
        this.#entries = entries;
        const id = entryId(kind, name);
        if (entry === undefined) this.#stored.delete(id);
        else this.#stored.set(id, { entry, createIndex: before?.createIndex ?? revision, modifyIndex: revision });
      } catch (error) {
        if (!(error instanceof PeeringError) || error.code !== "conflict" || tries >= CONFLICT_TRIES) throw error;
        await this.#reload();
        continue;
      }
      this.#notify({ kind, name: written, entry, former: before?.entry });
      return true;
    }
  }

  #check(entries: ConfigEntrySet, kind: ConfigEntryKind, name: string): void {
    try {
      checkEntryGuards(this.#entries, entries, kind, name, this.#datacenter);
    } catch (error) {
      if (error instanceof PeeringError && error.code === "resource-exhausted") {
        const fields = { kind, name, limit: this.#limits.chainParts };
        this.#incidents?.report(
          "discovery-chain-too-long",
          "refused an entry: a discovery chain would get too long",
          fields,
        );
      }
      throw error;
    }
  }

  /** @returns the entries whose secrets are sealed in another way than they would be today. */
  async #load(): Promise<readonly DecodedEntry[]> {
    const { entries } = await this.#storage.read(CONFIG_PREFIX);
    const stored = new Map<string, StoredConfigEntry>();
    const stale: DecodedEntry[] = [];
    for (const { key, value, revision } of entries) {
      const decoded = decode(key, value, revision, this.#secretBox);
      const { entry, createIndex, modifyIndex } = decoded;
      stored.set(entryId(entry.kind, entry.name), { entry, createIndex, modifyIndex });
      if (!decoded.current) stale.push(decoded);
      if (revision > this.#index) this.#index = revision;
    }
    this.#stored = stored;
    this.#entries = ConfigEntrySet.of(
      [...stored.values()].map(({ entry }) => entry),
      this.#limits,
    );
    return stale;
  }

  /** With the first key, what another one sealed, or none: a key that is taken out of use must open nothing. */
  async #sealAgain(stale: readonly DecodedEntry[]): Promise<void> {
    if (stale.length === 0) return;
    const rows = stale.map(({ entry, createIndex, modifyIndex }) => ({
      key: keyOf(entry.kind, entry.name),
      value: encode(entry, createIndex, this.#secretBox),
      revision: modifyIndex,
    }));
    try {
      await this.#storage.commit(
        rows.map(({ key, value }) => ({ key, value })),
        rows.map(({ key, revision }) => ({ key, revision })),
      );
    } catch (error) {
      // Another host of the same storage has written them since, sealed in its own way.
      if (!(error instanceof PeeringError) || error.code !== "conflict") throw error;
    }
    await this.#load();
  }

  /** After a conflict: takes over what another writer stored, and tells of it. */
  async #reload(): Promise<void> {
    const before = this.#stored;
    await this.#load();
    for (const [id, { entry, modifyIndex }] of this.#stored) {
      const former = before.get(id);
      if (former?.modifyIndex === modifyIndex) continue;
      this.#notify({ kind: entry.kind, name: entry.name, entry, former: former?.entry });
    }
    for (const [id, { entry }] of before) {
      if (this.#stored.has(id)) continue;
      this.#notify({ kind: entry.kind, name: entry.name, entry: undefined, former: entry });
    }
  }

  #notify(change: ConfigEntryChange): void {
    this.#kindIndexes.set(change.kind, this.#index);
    for (const listener of [...this.#listeners]) listener(change);
  }
}
