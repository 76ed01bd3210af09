import { PeeringError } from "../base/errors.js";
import { type JsonObject, type JsonValue, MAX_JSON_DEPTH, type StringMap } from "./instance.js";

/** Several complaints in the form Consul gives them. */
export function listProblems(problems: readonly string[]): string {
  const count = `${problems.length} ${problems.length === 1 ? "error" : "errors"} occurred:`;
  return `${count}\n${problems.map((problem) => `\t* ${problem}\n`).join("")}\n`;
}

export function invalidEntry(message: string): PeeringError {
  return new PeeringError("invalid-entry", message);
}

type Fields = Readonly<Record<string, unknown>>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** One object of untyped input: reads its fields, remembers which are known, and complains with their paths. */
export class EntryReader {
  readonly path: string;
  readonly #fields: Fields;
  readonly #known = new Set<string>();
  readonly #unknown: string[];

  constructor(value: unknown, path: string, unknown: string[]) {
    if (!isFields(value))
      throw invalidEntry(path === "" ? "a config entry must be an object" : `${path}: must be an object`);
    this.#fields = value;
    this.path = path;
    this.#unknown = unknown;
  }

  at(key: string): string {
    return this.path === "" ? key : `${this.path}.${key}`;
  }

  #take(key: string): unknown {
    this.#known.add(key);
    const value = Object.hasOwn(this.#fields, key) ? this.#fields[key] : undefined;
    return value === null ? undefined : value;
  }

  /** `""` when absent. */
  text(key: string): string {
    const value = this.#take(key) ?? "";
    if (typeof value !== "string") throw invalidEntry(`${this.at(key)}: must be a string`);
    return value;
  }

  number(key: string): number {
    const value = this.#take(key) ?? 0;
    if (typeof value !== "number" || !Number.isFinite(value)) throw invalidEntry(`${this.at(key)}: must be a number`);
    return value;
  }

  flag(key: string): boolean {
    const value = this.#take(key) ?? false;
    if (typeof value !== "boolean") throw invalidEntry(`${this.at(key)}: must be true or false`);
    return value;
  }

  /** The objects of a list; none when absent. */
  list(key: string): readonly EntryReader[] {
    const value = this.#take(key) ?? [];
    if (!Array.isArray(value)) throw invalidEntry(`${this.at(key)}: must be a list`);
    return value.map((item: unknown, index) => new EntryReader(item, `${this.at(key)}[${index}]`, this.#unknown));
  }

  texts(key: string): readonly string[] {
    const value = this.#take(key) ?? [];
    if (!Array.isArray(value)) throw invalidEntry(`${this.at(key)}: must be a list`);
    return value.map((item: unknown, index) => {
      if (typeof item !== "string") throw invalidEntry(`${this.at(key)}[${index}]: must be a string`);
      return item;
    });
  }

  object(key: string): EntryReader | undefined {
    const value = this.#take(key);
    return value === undefined ? undefined : new EntryReader(value, this.at(key), this.#unknown);
  }

  /** A map of objects, as pairs in the order of the input. */
  objects(key: string): readonly (readonly [string, EntryReader])[] {
    const value = this.#take(key) ?? {};
    if (!isFields(value)) throw invalidEntry(`${this.at(key)}: must be an object`);
    return Object.entries(value).map(([name, item]) => [
      name,
      new EntryReader(item, `${this.at(key)}["${name}"]`, this.#unknown),
    ]);
  }

  textMap(key: string): StringMap {
    const value = this.#take(key) ?? {};
    if (!isFields(value)) throw invalidEntry(`${this.at(key)}: must be an object`);
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => {
        if (typeof item !== "string") throw invalidEntry(`${this.at(key)}["${name}"]: must be a string`);
        return [name, item];
      }),
    );
  }

  /** A JSON object, kept as it is. */
  json(key: string): JsonObject | undefined {
    const value = this.#take(key);
    if (value === undefined) return undefined;
    return toJsonObject(value, this.at(key));
  }

  /** Call when every known field was read: notes the others. */
  end(): void {
    for (const key of Object.keys(this.#fields)) {
      if (!this.#known.has(key) && this.#fields[key] !== undefined) {
        const hint = /namespace$/i.test(key) ? ", namespaces are a consul enterprise feature" : "";
        this.#unknown.push(`invalid config key "${this.at(key)}"${hint}`);
      }
    }
  }
}

function isJsonObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws {PeeringError} `invalid-entry`: it is no object, or holds what JSON does not. */
export function toJsonObject(value: unknown, path: string): JsonObject {
  const json = toJson(value, path, 0);
  if (!isJsonObject(json)) throw invalidEntry(`${path}: must be an object`);
  return json;
}

function toJson(value: unknown, path: string, depth: number): JsonValue {
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number" && Number.isFinite(value)) return value;
  if (depth >= MAX_JSON_DEPTH) throw invalidEntry(`${path}: nested too deeply (limit: ${MAX_JSON_DEPTH} levels)`);
  if (Array.isArray(value)) return value.map((item: unknown, index) => toJson(item, `${path}[${index}]`, depth + 1));
  if (isFields(value)) {
    const pairs = Object.entries(value).filter(([, item]) => item !== undefined);
    return Object.fromEntries(pairs.map(([key, item]) => [key, toJson(item, `${path}.${key}`, depth + 1)]));
  }
  throw invalidEntry(`${path}: must be a JSON value`);
}

/** The given fields without those that are empty: what an entry does not say is not there. */
export function present<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  const kept: { [K in keyof T]?: NonNullable<T[K]> } = {};
  for (const key in fields) {
    const value = fields[key];
    if (value === undefined || value === null || value === "" || value === false) continue;
    if (Array.isArray(value) ? value.length === 0 : isFields(value) && Object.keys(value).length === 0) continue;
    kept[key] = value;
  }
  return kept;
}

/** Community Edition has one partition and one namespace, which may be named or not. */
export function refuseEnterprise(source: EntryReader): void {
  for (const [key, what] of [
    ["partition", "partitions"],
    ["namespace", "namespaces"],
  ] as const) {
    const value = source.text(key);
    if (value !== "" && value !== "default") {
      throw invalidEntry(`${source.at(key)}: ${what} are an enterprise-only feature`);
    }
  }
  if (source.text("samenessGroup") !== "") {
    throw invalidEntry(`${source.path}: sameness-groups are an enterprise-only feature`);
  }
}
