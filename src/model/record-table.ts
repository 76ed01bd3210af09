import type { JsonObject, Proxy as ProxyDefinition, StringMap } from "./instance.js";
import type { Shape } from "./shapes.js";

// The parts of a description of a record. The records themselves are described in `records.ts`.

/** The lists and maps of all records that have nothing in them. */
export const emptyMap: Readonly<Record<string, never>> = Object.freeze({});
export const emptyList: readonly never[] = Object.freeze([]);

/** Answers that show a record: by itself, with its node in one flat object, or as its own agent tells of it. */
export type View = "own" | "flat" | "agent";

/** How a view shows an empty value: as the value, as `null`, not at all; `hidden`: it does not show the field ever. */
export type Emptiness = "written" | "null" | "absent" | "hidden";

/** How views show a field. */
export interface FieldName {
  /** Consul's name. */
  readonly name: string;
  /** Consul's name in a flat record. Default: {@link name}. */
  readonly flat?: string;
  /** How views show an empty value. Default: `written`. */
  readonly empty?: Readonly<Partial<Record<View, Emptiness>>>;
}

/** One field of a record, under the library's name of it. */
export interface Field<Value> extends FieldName {
  readonly kind: Kind<Value>;
}

/** Every field of a record: one that is missing does not compile. */
export type Fields<Item> = { readonly [Key in keyof Item]-?: Field<Item[Key]> };

/** The description of a record. */
export interface Table<Item> {
  /** With every default. Fields that it does not have are optional. */
  readonly empty: Item;
  /** In the order in which Consul writes them. */
  readonly fields: Fields<Item>;
}

/** The use of a field, by the kind of its value. `get` takes the value out of an item. */
export interface Uses<Item, Result> {
  text(get: (item: Item) => string): Result;
  flag(get: (item: Item) => boolean): Result;
  int(get: (item: Item) => number): Result;
  /** An index of the catalog. */
  index(get: (item: Item) => bigint): Result;
  texts(get: (item: Item) => readonly string[]): Result;
  textMap(get: (item: Item) => StringMap): Result;
  one<Inner>(get: (item: Item) => Inner | undefined, table: Table<Inner>): Result;
  list<Inner>(get: (item: Item) => readonly Inner[] | undefined, table: Table<Inner>): Result;
  map<Inner>(get: (item: Item) => Readonly<Record<string, Inner>>, table: Table<Inner>): Result;
  /** In Consul's form, and not interpreted. */
  kept(get: (item: Item) => JsonObject | undefined, shape: Shape): Result;
  proxy(get: (item: Item) => ProxyDefinition | undefined): Result;
}

/** How plain values are read of what a caller gave, or of what was stored. @throws for a value of another type. */
export interface Reading {
  text(given: unknown, path: string): string;
  flag(given: unknown, path: string): boolean;
  int(given: unknown, path: string): number;
  texts(given: unknown, path: string): readonly string[];
  textMap(given: unknown, path: string): StringMap;
}

/** The kind of a value: it knows which use of {@link Uses} is its own. */
export interface Kind<Value> {
  use<Item, Result>(uses: Uses<Item, Result>, get: (item: Item) => Value): Result;
  /** Of plain values alone: others have rules of their own. */
  readonly read?: (reading: Reading, given: unknown, path: string) => Value;
}

export const text: Kind<string> = {
  use: (uses, get) => uses.text(get),
  read: (reading, given, path) => reading.text(given, path),
};
export const flag: Kind<boolean> = {
  use: (uses, get) => uses.flag(get),
  read: (reading, given, path) => reading.flag(given, path),
};
export const int: Kind<number> = {
  use: (uses, get) => uses.int(get),
  read: (reading, given, path) => reading.int(given, path),
};
export const index: Kind<bigint> = { use: (uses, get) => uses.index(get) };
export const texts: Kind<readonly string[]> = {
  use: (uses, get) => uses.texts(get),
  read: (reading, given, path) => reading.texts(given, path),
};
export const textMap: Kind<StringMap> = {
  use: (uses, get) => uses.textMap(get),
  read: (reading, given, path) => reading.textMap(given, path),
};
export const proxy: Kind<ProxyDefinition | undefined> = { use: (uses, get) => uses.proxy(get) };

export function one<Inner>(table: Table<Inner>): Kind<Inner> & Kind<Inner | undefined> {
  return { use: (uses, get) => uses.one(get, table) };
}

export function list<Inner>(table: Table<Inner>): Kind<readonly Inner[] | undefined> {
  return { use: (uses, get) => uses.list(get, table) };
}

export function map<Inner>(table: Table<Inner>): Kind<Readonly<Record<string, Inner>>> {
  return { use: (uses, get) => uses.map(get, table) };
}

export function kept(shape: Shape): Kind<JsonObject> & Kind<JsonObject | undefined> {
  return { use: (uses, get) => uses.kept(get, shape) };
}

/**
 * The uses that `usesOf` makes of the fields of a record, in order.
 * @param except - fields that have no such use. Default: none.
 */
export function useFields<Item, Result>(
  { fields }: Table<Item>,
  usesOf: (field: FieldName, key: keyof Item & string) => Uses<Item, Result>,
  except: ReadonlySet<keyof Item> = new Set(),
): readonly Result[] {
  const use = <Key extends keyof Item & string>(key: Key): Result =>
    fields[key].kind.use(usesOf(fields[key], key), (item: Item): Item[Key] => item[key]);
  return keysOf(fields)
    .filter((key) => !except.has(key))
    .map((key) => use(key));
}

export type Draft<Item> = { -readonly [Key in keyof Item]: Item[Key] };

/** Reads fields of an object with the same names. */
export type DraftReader<Item> = (draft: Draft<Item>, from: { readonly [Key in keyof Item]?: unknown }) => void;

/**
 * Reads the fields of a record from an object with the names of its fields. What is absent has the default.
 * @param path - the name of the record in errors.
 * @param except - fields that are read elsewhere.
 * @throws {TypeError} at once: a field that is not plain.
 */
export function readerOf<Item>(
  table: Table<Item>,
  path: string,
  reading: Reading,
  except: ReadonlySet<keyof Item>,
): DraftReader<Item> {
  const readers = keysOf(table.fields)
    .filter((key) => !except.has(key))
    .map((key) => fieldReader(table, `${path}.${key}`, reading, key));
  return (draft, from) => {
    for (const read of readers) read(draft, from);
  };
}

function fieldReader<Item, Key extends keyof Item & string>(
  table: Table<Item>,
  path: string,
  reading: Reading,
  key: Key,
): DraftReader<Item> {
  const { read } = table.fields[key].kind;
  if (read === undefined) throw new TypeError(`nothing reads ${key}`);
  return (draft, from) => {
    draft[key] = read(reading, from[key], path);
  };
}

/** The plain fields that an object has under Consul's names. */
export function plainFields<Item>(
  table: Table<Item>,
  reading: Reading,
  from: Readonly<Record<string, unknown>>,
): Partial<Item> {
  const draft: Partial<Draft<Item>> = {};
  const read = <Key extends keyof Item & string>(key: Key): void => {
    const { name, kind } = table.fields[key];
    if (kind.read !== undefined) draft[key] = kind.read(reading, from[name], name);
  };
  for (const key of keysOf(table.fields)) read(key);
  return draft;
}

export function keysOf<Named extends object>(named: Named): readonly (keyof Named & string)[] {
  return Object.keys(named).filter((key): key is keyof Named & string => Object.hasOwn(named, key));
}
