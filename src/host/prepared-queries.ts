import { compareUtf8 } from "../catalog/byte-order.js";
import { lowerCase } from "../catalog/names.js";
import {
  checkPreparedQuery,
  isTemplate,
  type PreparedQuery,
  type PreparedQueryInput,
  type QueriedInstance,
  selectedInstances,
} from "../catalog/prepared-query.js";
import { type CompiledTemplate, compileTemplate, templateCharacters } from "../catalog/query-template.js";
import { defaultWriteLimits, type WriteLimits } from "../catalog/write-limits.js";
import { type Random, randomId } from "../environment.js";
import { errorText, PeeringError } from "../errors.js";
import type { Incidents } from "../incidents.js";
import { QUERIES_PREFIX } from "../storage/keys.js";
import type { Storage } from "../storage/storage.js";
import { plainSecretBox, type SecretBox } from "../trust/secret-box.js";
import { isUuid } from "../wire/uuid.js";
import { Mutex } from "./mutex.js";
import { exhausted, requireFewValues } from "./record-limit.js";

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

export interface PreparedQueriesOptions {
  readonly storage: Storage;
  readonly random: Random;
  /** How the tokens of queries are kept. Default: as they are. */
  readonly secretBox?: SecretBox;
  /** Default: `defaultWriteLimits`. */
  readonly limits?: WriteLimits;
  /** Told of each limit that is hit. Default: nobody. */
  readonly incidents?: Incidents;
}

/** What is stored of a query. */
interface QueryRow {
  /** Without its token. */
  readonly query: PreparedQuery;
  /** In base64. */
  readonly sealedToken?: string;
  readonly createIndex?: string;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** The prepared queries of a host: kept in storage, read from memory. */
export class PreparedQueries {
  readonly #storage: Storage;
  readonly #random: Random;
  readonly #secretBox: SecretBox;
  readonly #limits: WriteLimits;
  readonly #incidents: Incidents | undefined;
  readonly #stored = new Map<string, StoredQuery>();
  /** Ids by lower-cased name; that of the template without a name is under `""`. */
  readonly #ids = new Map<string, string>();
  /** By id. */
  readonly #templates = new Map<string, CompiledTemplate>();
  /** How many templates have a name of a length: a name is looked for by as many prefixes. */
  readonly #prefixLengths = new Map<number, number>();
  readonly #listeners = new Set<() => void>();
  /** Held by writers: looking for a name and taking it are one step. */
  readonly #mutex = new Mutex();
  #index = 0n;

  private constructor({
    storage,
    random,
    secretBox = plainSecretBox,
    limits = defaultWriteLimits,
    incidents,
  }: PreparedQueriesOptions) {
    this.#storage = storage;
    this.#random = random;
    this.#secretBox = secretBox;
    this.#limits = limits;
    this.#incidents = incidents;
  }

  /** @throws {PeeringError} `storage-failed`: the storage cannot be read, or an entry in it is damaged; it is named. */
  static async open(options: PreparedQueriesOptions): Promise<PreparedQueries> {
    const queries = new PreparedQueries(options);
    const { entries } = await options.storage.read(QUERIES_PREFIX);
    for (const { key, value, revision } of entries) {
      try {
        const row: QueryRow = JSON.parse(decoder.decode(value));
        const query = queries.#unsealed(row);
        checkPreparedQuery(query);
        const createIndex = row.createIndex === undefined ? revision : BigInt(row.createIndex);
        queries.#put({ query, createIndex, modifyIndex: revision }, queries.#compiled(query));
        if (revision > queries.#index) queries.#index = revision;
        if (!queries.#isCurrent(row)) await queries.#store(query, queries.get(query.id));
      } catch (error) {
        const why = `the stored query ${key.join("/")} is damaged: ${errorText(error)}`;
        throw new PeeringError("storage-failed", why, { cause: error });
      }
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

  /**
   * The query that answers to an id or a name: with that id, with that name, or the template with the longest name that the name
   * begins with, rendered.
   * @throws {PeeringError} `invalid-argument` with Consul's text: the id is that of a template, or it cannot be rendered.
   * @throws {PeeringError} `resource-exhausted`: to render it would take too much.
   */
  find(idOrName: string): StoredQuery | undefined {
    if (idOrName === "") return undefined;
    const stored = this.get(idOrName);
    if (stored !== undefined) {
      if (!isTemplate(stored.query)) return stored;
      const why = "prepared query templates can only be resolved up by name, not by ID";
      throw new PeeringError("invalid-argument", why);
    }
    const found = this.#named(idOrName) ?? this.#longestPrefix(idOrName);
    if (found === undefined) return undefined;
    const template = this.#templates.get(found.query.id);
    return template === undefined ? found : { ...found, query: this.#rendered(template, idOrName) };
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
      this.#drop(known);
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
    const id = this.#ids.get(lowerCase(name));
    return id === undefined ? undefined : this.#stored.get(id);
  }

  #longestPrefix(name: string): StoredQuery | undefined {
    const key = lowerCase(name);
    let best: StoredQuery | undefined;
    let longest = -1;
    for (const length of this.#prefixLengths.keys()) {
      if (length <= longest || length > key.length) continue;
      const found = this.#named(key.slice(0, length));
      if (found === undefined || !isTemplate(found.query)) continue;
      best = found;
      longest = length;
    }
    return best;
  }

  #put(stored: StoredQuery, template: CompiledTemplate | undefined): void {
    const { id, name } = stored.query;
    const before = this.#stored.get(id);
    if (before !== undefined) this.#drop(before);
    this.#stored.set(id, stored);
    this.#ids.set(lowerCase(name), id);
    if (template === undefined) return;
    this.#templates.set(id, template);
    this.#countPrefix(name, 1);
  }

  #drop({ query: { id, name } }: StoredQuery): void {
    this.#stored.delete(id);
    this.#ids.delete(lowerCase(name));
    if (this.#templates.delete(id)) this.#countPrefix(name, -1);
  }

  #countPrefix(name: string, by: 1 | -1): void {
    const { length } = lowerCase(name);
    const count = (this.#prefixLengths.get(length) ?? 0) + by;
    if (count > 0) this.#prefixLengths.set(length, count);
    else this.#prefixLengths.delete(length);
  }

  async #write(query: PreparedQuery, mustExist = false): Promise<void> {
    requireFewValues("a prepared query", query, this.#limits.recordValues, this.#incidents);
    this.#requireShort(query);
    checkPreparedQuery(query);
    await this.#mutex.run(async () => {
      const known = this.get(query.id);
      if (mustExist && known === undefined) throw missing(query.id);
      const other = this.#named(query.name);
      if (other !== undefined && other.query.id !== query.id) {
        throw refused(
          query.name === ""
            ? "a query template with an empty name already exists"
            : `name '${query.name}' aliases an existing query name`,
        );
      }
      if (isUuid(query.name) && this.get(query.name) !== undefined) {
        throw refused(`name '${query.name}' aliases an existing query ID`);
      }
      const template = this.#compiled(query);
      const stored = await this.#store(query, known);
      this.#put(stored, template);
      this.#notify();
    });
  }

  #requireShort(query: PreparedQuery): void {
    const limit = this.#limits.templateCharacters;
    if (!isTemplate(query) || templateCharacters(query) <= limit) return;
    this.#incidents?.report("query-template-too-long", "a query template is longer than one may be", { limit });
    throw exhausted(`the texts of a query template have more than ${limit} characters`);
  }

  #rendered(template: CompiledTemplate, name: string): PreparedQuery {
    try {
      return template.render(name);
    } catch (error) {
      if (error instanceof PeeringError && error.code === "resource-exhausted") {
        const limit = this.#limits.renderedCharacters;
        this.#incidents?.report("query-too-long", "a template would be rendered to a longer query than may be", {
          limit,
        });
      }
      throw error;
    }
  }

  /** @throws {PeeringError} `invalid-argument` with Consul's text. */
  #compiled(query: PreparedQuery): CompiledTemplate | undefined {
    if (!isTemplate(query)) return undefined;
    try {
      return compileTemplate(query, this.#limits.renderedCharacters);
    } catch (error) {
      if (error instanceof PeeringError && error.code === "invalid-argument") throw refused(error.message);
      throw error;
    }
  }

  async #store(query: PreparedQuery, known: StoredQuery | undefined): Promise<StoredQuery> {
    const { token, ...rest } = query;
    const createIndex = known?.createIndex;
    const row: QueryRow = {
      query: rest,
      ...(token !== undefined && {
        sealedToken: Buffer.from(this.#secretBox.seal(encoder.encode(token))).toString("base64"),
      }),
      ...(createIndex !== undefined && { createIndex: String(createIndex) }),
    };
    const key = [...QUERIES_PREFIX, query.id];
    const revision = await this.#storage.commit(
      [{ key, value: encoder.encode(JSON.stringify(row)) }],
      [{ key, revision: known?.modifyIndex }],
    );
    this.#index = revision;
    return { query, createIndex: createIndex ?? revision, modifyIndex: revision };
  }

  #unsealed({ query, sealedToken }: QueryRow): PreparedQuery {
    if (sealedToken === undefined) return query;
    return { ...query, token: decoder.decode(this.#secretBox.open(Buffer.from(sealedToken, "base64"))) };
  }

  #isCurrent({ sealedToken }: QueryRow): boolean {
    return sealedToken === undefined || this.#secretBox.isCurrent(Buffer.from(sealedToken, "base64"));
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

function missing(id: string): PeeringError {
  return new PeeringError("not-found", `Cannot modify non-existent prepared query: '${id}'`);
}

function refused(why: string): PeeringError {
  return new PeeringError("invalid-argument", `raft apply failed: ${why}`);
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
  const instances = selectedInstances(service, await read(first));
  let result: QueryResult<Instance> = {
    instances,
    peer: first,
    datacenter: first === "" ? datacenter : "",
    failovers: 0,
  };
  for (const { peer = "", datacenter: elsewhere = "" } of targets) {
    if (result.instances.length > 0) break;
    // As in Consul 1.21: a target that names a datacenter none of us can reach is no try, and our own is none to fall back to.
    if (peer === "" || elsewhere !== "") continue;
    const found = selectedInstances(service, await read(peer));
    result = { instances: found, peer, datacenter: "", failovers: result.failovers + 1 };
  }
  return result;
}

/** Who asks a query. */
export interface QuerySource {
  /** Name of a node, `_agent` or `_ip`, in place of what the query says; `""`: it is for the query to say. */
  readonly near: string;
  /** Where the question came from. */
  readonly address: string;
}

/** The node whose instances come first in an answer; `""`: none. */
export function nearestNode(
  query: PreparedQuery,
  { near, address }: QuerySource,
  host: { readonly nodeName: string; readonly catalog: { nodeAt(address: string): string | undefined } },
): string {
  const wanted = near || query.service.near || "";
  if (wanted === "_agent") return host.nodeName;
  return wanted === "_ip" ? (host.catalog.nodeAt(address) ?? "") : wanted;
}
