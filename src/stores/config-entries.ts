import type { Closable } from "../base/closable.js";
import type { Clock } from "../base/environment.js";
import { InvariantError, PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { sameValue } from "../base/same-value.js";
import { atOnce, doAll, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import { unquoted } from "../base/unquoted.js";
import { type ConfigEntry, type ConfigEntryInput, configEntrySteps, parseConfigEntry } from "../config/config-entry.js";
import { type ChainLimits, ConfigEntrySet, defaultChainLimits } from "../config/config-entry-set.js";
import { withConsulExtras } from "../config/entry-extras.js";
import { checkNeighbours, settledEntry } from "../config/entry-rules.js";
import { checkEntryGuards } from "../config/export-guards.js";
import { CONFIG_ENTRY_KINDS, type ConfigEntryKind, isConfigEntryKind } from "../model/entry-kinds.js";
import { entryShapes } from "../model/shapes.js";
import { defaultWriteLimits, type WriteLimits } from "../model/write-limits.js";
import { CONFIG_PREFIX } from "../storage/keys.js";
import type { Key, Storage } from "../storage/storage.js";
import {
  type DecodedRow,
  type RowChange,
  StoredTable,
  type TableChange,
  type TablePlan,
} from "../storage/stored-table.js";
import { lowerCase } from "../syntax/names.js";
import { plainSecretBox, type SecretBox } from "../trust/secret-box.js";
import { exhausted, requireFewValues } from "./record-limit.js";

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
  /** For the waits after the storage failed. Default: the system's. */
  readonly clock?: Clock;
}

export interface ConfigWriteOptions {
  /** Writes only if the entry was last written at this index; `0n`: only if there is none. */
  readonly cas?: bigint;
}

/** The changed entry; `entry` is undefined when it was deleted. */
export interface ConfigEntryChange {
  readonly kind: ConfigEntryKind;
  readonly name: string;
  /** Undefined: it is gone. */
  readonly entry: ConfigEntry | undefined;
  /** As it was before; undefined: there was none. */
  readonly former: ConfigEntry | undefined;
}

/** The entry to write; without it, the one of the name is to be deleted. */
interface EntryWrite {
  readonly kind: ConfigEntryKind;
  readonly name: string;
  readonly entry: ConfigEntry | undefined;
}

function pathOf(kind: ConfigEntryKind, name: string): Key {
  return [kind, lowerCase(name)];
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

function decode(value: Uint8Array, secretBox: SecretBox): DecodedRow<ConfigEntry> {
  const stored: unknown = unquoted(() => JSON.parse(decoder.decode(value)));
  if (typeof stored !== "object" || stored === null || !("entry" in stored)) throw new TypeError("no entry in it");
  const created = "createIndex" in stored ? { created: BigInt(String(stored.createIndex)) } : {};
  const entry = parseConfigEntry(stored.entry);
  const secrets: Record<string, string> = {};
  let outdated = false;
  for (const [name, text] of Object.entries("sealed" in stored ? (stored.sealed ?? {}) : {})) {
    const sealed = Buffer.from(String(text), "base64");
    secrets[name] = decoder.decode(secretBox.open(sealed));
    outdated ||= !secretBox.isCurrent(sealed);
  }
  const row = Object.keys(secrets).length === 0 ? entry : { ...entry, extra: { ...entry.extra, ...secrets } };
  return { row, ...created, outdated };
}

/** The configuration entries of a host: checked when written, kept in storage, read from memory. */
export class ConfigEntries implements Closable {
  readonly #datacenter: string;
  readonly #limits: ChainLimits & Pick<WriteLimits, "recordValues" | "filterCharacters" | "certificateCharacters">;
  readonly #incidents: Incidents | undefined;
  readonly #table: StoredTable<ConfigEntry>;
  #entries: ConfigEntrySet;
  /** The entries after the write that is under way, as its guards judged them. */
  #judged: ConfigEntrySet | undefined;
  readonly #kindIndexes = new Map<ConfigEntryKind, bigint>();
  /** The index of kinds without a write since the start: earlier deletions leave no trace. */
  readonly #indexAtStart: bigint;

  private constructor(
    options: ConfigEntriesOptions,
    limits: ChainLimits & WriteLimits,
    table: StoredTable<ConfigEntry>,
  ) {
    this.#datacenter = options.datacenter;
    this.#limits = limits;
    this.#incidents = options.incidents;
    this.#table = table;
    this.#entries = ConfigEntrySet.of(
      Array.from(table.rows(), ({ row }) => row),
      limits,
    );
    this.#indexAtStart = table.revision;
    // The first of all listeners: others read its results.
    table.onChange((change) => this.#follow(change));
  }

  /** @throws {PeeringError} `storage-failed`: the storage cannot be read, or an entry in it is damaged; it is named. */
  static async open(options: ConfigEntriesOptions): Promise<ConfigEntries> {
    const { storage, datacenter, incidents, clock, secretBox = plainSecretBox } = options;
    if (datacenter === "") throw new TypeError("datacenter cannot be empty");
    const table = await StoredTable.open<ConfigEntry>({
      storage,
      prefix: CONFIG_PREFIX,
      rowName: "config entry",
      format: {
        encode: (entry, created) => encode(entry, created, secretBox),
        decode: (_path, value) => decode(value, secretBox),
      },
      clock,
      incidents,
    });
    return new ConfigEntries(options, { ...defaultChainLimits, ...defaultWriteLimits, ...options.limits }, table);
  }

  /** All entries as of now: immutable, a later write makes another set. */
  get entries(): ConfigEntrySet {
    return this.#entries;
  }

  /** Index of the last write to any entry; 0n before the first. */
  get index(): bigint {
    return this.#table.revision;
  }

  /** Index of the last write to any entry of a kind, or of kinds that share its index. */
  kindIndex(kind: ConfigEntryKind): bigint {
    return this.#kindIndexes.get(kind) ?? this.#indexAtStart;
  }

  get<Kind extends ConfigEntryKind>(kind: Kind, name: string): EntryOf<Kind> | undefined {
    return this.#entries.get(kind, name);
  }

  /** The entry with its indexes. */
  stored(kind: ConfigEntryKind, name: string): StoredConfigEntry | undefined {
    const stored = this.#table.get(...pathOf(kind, name));
    return stored && { entry: stored.row, createIndex: stored.created, modifyIndex: stored.revision };
  }

  /** Entries of one kind, or of all, by kind and lower-cased name. */
  list(kind?: ConfigEntryKind): readonly StoredConfigEntry[] {
    const kinds = kind === undefined ? CONFIG_ENTRY_KINDS : [kind];
    return kinds.flatMap((each) =>
      [...this.#entries.all(each).keys()].sort().flatMap((name) => this.stored(each, name) ?? []),
    );
  }

  /**
   * Writes an entry, whole. One equal to the stored entry is a success that changes nothing, whatever `cas` says, as in
   * Consul 1.21. A long one is checked in turns, and so are the chains of others that may change with it; writes that are begun
   * meanwhile come after it.
   *
   * @param entry - also untyped input: it is checked like any other.
   * @returns false: `cas` did not match and nothing was written.
   * @throws {PeeringError} `invalid-entry`: the entry, or its effect on an exported service, breaks the rule named.
   * @throws {PeeringError} `resource-exhausted`: it has too many values, or a discovery chain would get too long.
   * @throws {PeeringError} `storage-failed`, `unavailable`: it may have been written only with `unavailable`.
   */
  async set(entry: ConfigEntryInput, { cas }: ConfigWriteOptions = {}): Promise<boolean> {
    requireFewValues("a config entry", entry, this.#limits.recordValues, this.#incidents);
    // At once: the caller's object is copied, never kept.
    const parsed = doAll(this.#parsed(withConsulExtras(entry)));
    return this.#write(() => this.#replacing(atOnce(parsed)), cas);
  }

  /**
   * {@link set} for input of unknown shape, whose uninterpreted fields have Consul's form already. It is parsed in turns, too.
   * @param entry - is not to be changed before the write is over.
   */
  async setUntyped(entry: unknown, { cas }: ConfigWriteOptions = {}): Promise<boolean> {
    return this.#write(() => this.#replacing(this.#parsed(entry)), cas);
  }

  /**
   * Deletes an entry; deleting a missing one is a success.
   *
   * @returns false: `cas` did not match and nothing was deleted.
   * @throws {PeeringError} `invalid-entry`: without it an exported service or a discovery chain would break.
   */
  async delete(kind: ConfigEntryKind, name: string, options: ConfigWriteOptions = {}): Promise<boolean> {
    if (!isConfigEntryKind(kind)) throw new PeeringError("invalid-entry", `invalid config entry kind: ${String(kind)}`);
    return this.#write(() => atOnce({ kind, name, entry: undefined }), options.cas);
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
    await this.#write(() => this.#changing(kind, name, make));
  }

  /** Calls `listener` for each change, once it is stored, until the returned function is called. */
  onChange(listener: (change: ConfigEntryChange) => void): () => void {
    return this.#table.onChange(({ changes }) => {
      for (const change of changes) listener(changeOf(change));
    });
  }

  /** Refuses further writes, and waits for those that were begun. The storage stays open. */
  close(): Promise<void> {
    return this.#table[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  *#parsed(entry: unknown): Steps<ConfigEntry> {
    requireFewValues("a config entry", entry, this.#limits.recordValues, this.#incidents);
    yield;
    const parsed = yield* configEntrySteps(entry);
    this.#requireShort(parsed);
    yield;
    return settledEntry(parsed);
  }

  /** Before texts are looked at that are parsed in one go. @throws {PeeringError} `resource-exhausted` */
  #requireShort(entry: ConfigEntry): void {
    const { filterCharacters, certificateCharacters } = this.#limits;
    const longer = (texts: readonly unknown[], limit: number): boolean =>
      texts.reduce((sum: number, text) => sum + (typeof text === "string" ? text.length : 0), 0) > limit;
    const { kind } = entry;
    if (kind === "service-resolver") {
      const filters = Object.values(entry.subsets ?? {}).map(({ filter }) => filter);
      if (!longer(filters, filterCharacters)) return;
      const what = "the filters of a resolver's subsets are longer than they may be";
      this.#incidents?.report("subset-filters-too-long", what, { limit: filterCharacters });
      throw exhausted(`the filters of the subsets have more than ${filterCharacters} characters`);
    }
    if (kind === "inline-certificate") {
      const { Certificate, PrivateKey } = entry.extra ?? {};
      if (!longer([Certificate, PrivateKey], certificateCharacters)) return;
      const what = "the certificate of an entry, with its key, is longer than it may be";
      this.#incidents?.report("inline-certificate-too-long", what, { limit: certificateCharacters });
      throw exhausted(`the certificate and its key have more than ${certificateCharacters} characters`);
    }
  }

  *#replacing(parsing: Steps<ConfigEntry>): Steps<EntryWrite> {
    const entry = yield* parsing;
    return { kind: entry.kind, name: entry.name, entry };
  }

  *#changing<Kind extends ConfigEntryKind>(
    kind: Kind,
    name: string,
    make: (before: EntryOf<Kind> | undefined) => unknown,
  ): Steps<EntryWrite> {
    const made = make(this.get(kind, name));
    return { kind, name, entry: made === undefined ? undefined : yield* this.#parsed(made) };
  }

  /**
   * Writes an entry. Others have their turn between the steps, but no other write comes in between.
   * @param make - makes the entry, from those of the moment.
   */
  #write(make: () => Steps<EntryWrite>, cas?: bigint): Promise<boolean> {
    return this.#table.write(() => inTurns(this.#planOf(make(), cas)));
  }

  *#planOf(making: Steps<EntryWrite>, cas: bigint | undefined): Steps<TablePlan<ConfigEntry, boolean>> {
    const { kind, name, entry } = yield* making;
    yield;
    const before = this.stored(kind, name);
    if (sameValue(entry, before?.entry)) return { writes: [], result: () => true };
    if (cas !== undefined && cas !== (before?.modifyIndex ?? 0n)) return { writes: [], result: () => false };
    if (entry !== undefined) checkNeighbours(this.#entries, entry);
    yield;
    const entries = entry === undefined ? this.#entries.without(kind, name) : this.#entries.with(entry);
    yield;
    yield* this.#check(entries, kind, entry?.name ?? before?.entry.name ?? name);
    this.#judged = entries;
    return { writes: [{ path: pathOf(kind, name), row: entry }], result: () => true };
  }

  /** Brings the values derived from the rows up to date. */
  #follow({ changes, revision, own }: TableChange<ConfigEntry>): void {
    // They hold the results of the guards already.
    const judged = own ? this.#judged : undefined;
    let entries = judged ?? this.#entries;
    for (const change of changes) {
      const { kind, name, entry } = changeOf(change);
      if (judged === undefined) entries = entry === undefined ? entries.without(kind, name) : entries.with(entry);
      this.#kindIndexes.set(kind, revision);
    }
    this.#entries = entries;
    this.#judged = undefined;
  }

  *#check(entries: ConfigEntrySet, kind: ConfigEntryKind, name: string): Steps<void> {
    try {
      yield* checkEntryGuards(this.#entries, entries, kind, name, this.#datacenter);
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
}

function changeOf({ before, after }: RowChange<ConfigEntry>): ConfigEntryChange {
  const entry = after?.row ?? before?.row;
  if (entry === undefined) throw new InvariantError("a change of no config entry");
  return { kind: entry.kind, name: entry.name, entry: after?.row, former: before?.row };
}
