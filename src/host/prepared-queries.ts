import { compareUtf8 } from "../catalog/byte-order.js";
import { lowerCase } from "../catalog/names.js";
import {
  checkPreparedQuery,
  type PreparedQuery,
  type PreparedQueryInput,
  type QueriedInstance,
  selectedInstances,
} from "../catalog/prepared-query.js";
import { type Random, randomId } from "../environment.js";
import { errorText, PeeringError } from "../errors.js";
import { QUERIES_PREFIX } from "../storage/keys.js";
import type { Storage } from "../storage/storage.js";
import { Mutex } from "./mutex.js";

/** A query with the revisions of its first and its last write. */
export interface StoredQuery {
  readonly query: PreparedQuery;
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
}

/** What a query found, and where. */
export interface QueryResult<Instance> {
  readonly instances: readonly Instance[];
  /** Our name of the peering they were imported from, or of the last that was asked; `""`: local ones. */
  readonly peer: string;
  /** Ours; `""` for a peer's. */
  readonly datacenter: string;
  /** Targets that were asked, also in vain. */
  readonly failovers: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** The prepared queries of a host: kept in storage, read from memory. */
export class PreparedQueries {
  readonly #storage: Storage;
  readonly #random: Random;
  readonly #stored = new Map<string, StoredQuery>();
  readonly #listeners = new Set<() => void>();
  /** Held by whoever writes: a name is looked for and taken in one go. */
  readonly #mutex = new Mutex();
  #index = 0n;

  private constructor(storage: Storage, random: Random) {
    this.#storage = storage;
    this.#random = random;
  }

  /** @throws {PeeringError} `storage-failed`: the storage cannot be read, or an entry in it is damaged; it is named. */
  static async open(options: { readonly storage: Storage; readonly random: Random }): Promise<PreparedQueries> {
    const queries = new PreparedQueries(options.storage, options.random);
    const { entries } = await options.storage.read(QUERIES_PREFIX);
    for (const { key, value, revision } of entries) {
      try {
        const stored: { readonly query: PreparedQuery; readonly createIndex?: string } = JSON.parse(
          decoder.decode(value),
        );
        checkPreparedQuery(stored.query);
        const createIndex = stored.createIndex === undefined ? revision : BigInt(stored.createIndex);
        queries.#stored.set(key[1] ?? "", { query: stored.query, createIndex, modifyIndex: revision });
      } catch (error) {
        const why = `the stored query ${key.join("/")} is damaged: ${errorText(error)}`;
        throw new PeeringError("storage-failed", why, { cause: error });
      }
      if (revision > queries.#index) queries.#index = revision;
    }
    return queries;
  }

  /** Index of the last write to any query; 0n before the first. */
  get index(): bigint {
    return this.#index;
  }

  /** All of them, by id. */
  list(): readonly StoredQuery[] {
    return [...this.#stored.values()].sort((left, right) => compareUtf8(left.query.id, right.query.id));
  }

  get(id: string): StoredQuery | undefined {
    return this.#stored.get(lowerCase(id));
  }

  /** By id, else by name. */
  find(idOrName: string): StoredQuery | undefined {
    return this.get(idOrName) ?? this.#named(idOrName);
  }

  /** @returns the id it was given. @throws {PeeringError} `invalid-argument` with Consul's text; as `Storage.commit`. */
  async create(input: PreparedQueryInput): Promise<string> {
    const id = randomId(this.#random);
    await this.#write({ ...input, id });
    return id;
  }

  /** Replaces a query. @throws {PeeringError} `not-found` with Consul's text, and as {@link create}. */
  async update(query: PreparedQuery): Promise<void> {
    await this.#write(query, true);
  }

  /** @throws {PeeringError} `not-found` with Consul's text, and as `Storage.commit`. */
  async delete(id: string): Promise<void> {
    await this.#mutex.run(async () => {
      const known = this.get(id);
      if (known === undefined) throw missing(id);
      this.#index = await this.#storage.commit([{ key: [...QUERIES_PREFIX, known.query.id], value: undefined }]);
      this.#stored.delete(known.query.id);
      this.#notify();
    });
  }

  /** Calls `listener` after each write, until the returned function is called. */
  onChange(listener: () => void): () => void {
    const own = (): void => listener();
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  #named(name: string): StoredQuery | undefined {
    const key = lowerCase(name);
    return [...this.#stored.values()].find(({ query }) => lowerCase(query.name) === key);
  }

  async #write(query: PreparedQuery, mustExist = false): Promise<void> {
    checkPreparedQuery(query);
    await this.#mutex.run(async () => {
      const known = this.get(query.id);
      if (mustExist && known === undefined) throw missing(query.id);
      const other = this.#named(query.name);
      if (other !== undefined && other.query.id !== query.id) {
        throw new PeeringError(
          "invalid-argument",
          `raft apply failed: name '${query.name}' aliases an existing query name`,
        );
      }
      const createIndex = known?.createIndex;
      const stored = { query, ...(createIndex === undefined ? {} : { createIndex: String(createIndex) }) };
      const key = [...QUERIES_PREFIX, query.id];
      const revision = await this.#storage.commit(
        [{ key, value: encoder.encode(JSON.stringify(stored)) }],
        [{ key, revision: known?.modifyIndex }],
      );
      this.#index = revision;
      this.#stored.set(query.id, { query, createIndex: createIndex ?? revision, modifyIndex: revision });
      this.#notify();
    });
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

function missing(id: string): PeeringError {
  return new PeeringError("not-found", `Cannot modify non-existent prepared query: '${id}'`);
}

/**
 * Answers a query: with what its own place has, else with what the first of its targets has that has anything.
 * @param read - all instances of the service at a peer, or at home for `""`.
 */
export async function runQuery<Instance extends QueriedInstance>(
  { service }: PreparedQuery,
  datacenter: string,
  read: (peer: string) => Promise<readonly Instance[]>,
): Promise<QueryResult<Instance>> {
  const { peer: first = "", targets = [] } = service;
  const placeOf = (peer: string): string => (peer === "" ? datacenter : "");
  const instances = selectedInstances(service, await read(first));
  if (instances.length > 0) return { instances, peer: first, datacenter: placeOf(first), failovers: 0 };
  let failovers = 0;
  let last = first;
  for (const { peer = "", datacenter: elsewhere = "" } of targets) {
    // No other datacenter can be reached from here, which Consul does not count as a try.
    if (peer === "" && lowerCase(elsewhere) !== lowerCase(datacenter)) continue;
    failovers++;
    last = peer;
    const found = selectedInstances(service, await read(peer));
    if (found.length > 0) return { instances: found, peer, datacenter: placeOf(peer), failovers };
  }
  return { instances: [], peer: last, datacenter: placeOf(last), failovers };
}
