import { compareUtf8 } from "../base/byte-order.js";
import type { Closable } from "../base/closable.js";
import { type Clock, type Random, randomId } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import { unquoted } from "../base/unquoted.js";
import {
  checkPreparedQuery,
  isTemplate,
  type PreparedQuery,
  type PreparedQueryInput,
  type QueriedInstance,
  selectedInstances,
} from "../config/prepared-query.js";
import { type CompiledTemplate, compileTemplate, templateCharacters } from "../config/query-template.js";
import { defaultWriteLimits, type WriteLimits } from "../model/write-limits.js";
import { QUERIES_PREFIX } from "../storage/keys.js";
import type { Storage } from "../storage/storage.js";
import { type DecodedRow, type Stored, StoredTable, type TablePlan } from "../storage/stored-table.js";
import { lowerCase } from "../syntax/names.js";
import { plainSecretBox, type SecretBox } from "../trust/secret-box.js";
import { isUuid } from "../wire/uuid.js";
import { exhausted, requireFewValues } from "./record-limit.js";

/** A query with the revisions of its first and its last write. */
export interface StoredQuery {
  readonly query: PreparedQuery;
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
}

/** The instances that a query found, and their place. */
export interface QueryResult<Instance> {
  readonly instances: readonly Instance[];
  /** Our name of the peering they were imported from, or of the last one that was searched; `""`: local ones. */
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
  /** Gets a report of each limit that is hit. Default: no reports. */
  readonly incidents?: Incidents;
  /** For the waits after the storage failed. Default: the system's. */
  readonly clock?: Clock;
}

/** The stored form of a query. */
interface StoredForm {
  /** Without its token. */
  readonly query: PreparedQuery;
  /** In base64. */
  readonly sealedToken?: string;
  readonly createIndex?: string;
}

/** A query, ready to be asked. */
interface QueryRow {
  readonly query: PreparedQuery;
  /** Undefined: it is not one. */
  readonly template: CompiledTemplate | undefined;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

function encode(query: PreparedQuery, created: bigint | undefined, secretBox: SecretBox): Uint8Array {
  const { token, ...rest } = query;
  const stored: StoredForm = {
    query: rest,
    ...(token !== undefined && { sealedToken: Buffer.from(secretBox.seal(encoder.encode(token))).toString("base64") }),
    ...(created !== undefined && { createIndex: String(created) }),
  };
  return encoder.encode(JSON.stringify(stored));
}

function decode(value: Uint8Array, secretBox: SecretBox, renderedCharacters: number): DecodedRow<QueryRow> {
  const { query: rest, sealedToken, createIndex }: StoredForm = unquoted(() => JSON.parse(decoder.decode(value)));
  const sealed = sealedToken === undefined ? undefined : Buffer.from(sealedToken, "base64");
  const query = sealed === undefined ? rest : { ...rest, token: decoder.decode(secretBox.open(sealed)) };
  checkPreparedQuery(query);
  return {
    row: { query, template: compiled(query, renderedCharacters) },
    ...(createIndex === undefined ? {} : { created: BigInt(createIndex) }),
    outdated: sealed !== undefined && !secretBox.isCurrent(sealed),
  };
}

/** @throws {PeeringError} `invalid-argument` with Consul's text. */
function compiled(query: PreparedQuery, renderedCharacters: number): CompiledTemplate | undefined {
  if (!isTemplate(query)) return undefined;
  try {
    return compileTemplate(query, renderedCharacters);
  } catch (error) {
    if (error instanceof PeeringError && error.code === "invalid-argument") throw refused(error.message);
    throw error;
  }
}

/** The prepared queries of a host: kept in storage, read from memory. */
export class PreparedQueries implements Closable {
  readonly #random: Random;
  readonly #limits: WriteLimits;
  readonly #incidents: Incidents | undefined;
  readonly #table: StoredTable<QueryRow>;
  /** Ids by lower-cased name; that of the template without a name is under `""`. */
  readonly #ids = new Map<string, string>();
  /** How many templates have a name of a length: a name is looked for by as many prefixes. */
  readonly #prefixLengths = new Map<number, number>();

  private constructor(options: PreparedQueriesOptions, table: StoredTable<QueryRow>) {
    this.#random = options.random;
    this.#limits = options.limits ?? defaultWriteLimits;
    this.#incidents = options.incidents;
    this.#table = table;
    for (const { row } of table.rows()) this.#add(row);
    table.onChange(({ changes }) => {
      for (const { before } of changes) if (before !== undefined) this.#remove(before.row);
      for (const { after } of changes) if (after !== undefined) this.#add(after.row);
    });
  }

  /** @throws {PeeringError} `storage-failed`: the storage cannot be read, or an entry in it is damaged; it is named. */
  static async open(options: PreparedQueriesOptions): Promise<PreparedQueries> {
    const { storage, secretBox = plainSecretBox, limits = defaultWriteLimits, clock, incidents } = options;
    const table = await StoredTable.open<QueryRow>({
      storage,
      prefix: QUERIES_PREFIX,
      rowName: "query",
      format: {
        encode: ({ query }, created) => encode(query, created, secretBox),
        decode: (_path, value) => decode(value, secretBox, limits.renderedCharacters),
      },
      clock,
      incidents,
    });
    return new PreparedQueries(options, table);
  }

  /** Index of the last write to any query; 0n before the first. */
  get index(): bigint {
    return this.#table.revision;
  }

  /** All of them, by id. */
  list(): readonly StoredQuery[] {
    return Array.from(this.#table.rows(), storedQuery).sort((left, right) =>
      compareUtf8(left.query.id, right.query.id),
    );
  }

  get(id: string): StoredQuery | undefined {
    const stored = this.#table.get(lowerCase(id));
    return stored && storedQuery(stored);
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
    const template = this.#table.get(found.query.id)?.row.template;
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
    await this.#table.write((): TablePlan<QueryRow, void> => {
      const known = this.get(id);
      if (known === undefined) throw missing(id);
      return { writes: [{ path: [known.query.id], row: undefined }], result: () => {} };
    });
  }

  /** Calls `listener` after each change, until the returned function is called. */
  onChange(listener: () => void): () => void {
    return this.#table.onChange(() => listener());
  }

  /** Refuses further writes, and waits for those that were begun. The storage stays open. */
  close(): Promise<void> {
    return this.#table[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #named(name: string): StoredQuery | undefined {
    const id = this.#ids.get(lowerCase(name));
    return id === undefined ? undefined : this.get(id);
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

  #add({ query: { id, name }, template }: QueryRow): void {
    this.#ids.set(lowerCase(name), id);
    if (template !== undefined) this.#countPrefix(name, 1);
  }

  #remove({ query: { name }, template }: QueryRow): void {
    this.#ids.delete(lowerCase(name));
    if (template !== undefined) this.#countPrefix(name, -1);
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
    const id = lowerCase(query.id);
    await this.#table.write((): TablePlan<QueryRow, void> => {
      if (mustExist && this.get(id) === undefined) throw missing(query.id);
      const other = this.#named(query.name);
      if (other !== undefined && other.query.id !== id) {
        throw refused(
          query.name === ""
            ? "a query template with an empty name already exists"
            : `name '${query.name}' aliases an existing query name`,
        );
      }
      if (isUuid(query.name) && this.get(query.name) !== undefined) {
        throw refused(`name '${query.name}' aliases an existing query ID`);
      }
      const row = { query: { ...query, id }, template: compiled(query, this.#limits.renderedCharacters) };
      return { writes: [{ path: [id], row }], result: () => {} };
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
}

function storedQuery({ row, created, revision }: Stored<QueryRow>): StoredQuery {
  return { query: row.query, createIndex: created, modifyIndex: revision };
}

function missing(id: string): PeeringError {
  return new PeeringError("not-found", `Cannot modify non-existent prepared query: '${id}'`);
}

function refused(why: string): PeeringError {
  return new PeeringError("invalid-argument", `raft apply failed: ${why}`);
}

/**
 * Answers a query: with the instances of its own place, else with those of the first of its targets that has any.
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

/** The caller of a query. */
export interface QuerySource {
  /** Name of a node, `_agent` or `_ip`, in place of the query's own; `""`: the query decides. */
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
