import { compareUtf8 } from "../base/byte-order.js";
import { withoutTrailing } from "../base/trailing.js";
import type { Listing } from "../model/listing.js";

/** The values that an answer is written from: maps become objects with sorted keys, other objects keep the order they have. */
export type Json =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly Json[]
  | ReadonlyMap<string, Json>
  | LazyList
  | LazyMap
  | LazyStruct
  | { readonly [key: string]: Json | undefined };

/** A Go struct: undefined members are left out. */
export type JsonStruct = { readonly [key: string]: Json | undefined };

/** A list whose elements are made one by one, when they are written: so that a long one is never there as a whole. */
export class LazyList {
  readonly length: number;
  readonly at: (index: number) => Json;

  private constructor(length: number, at: (index: number) => Json) {
    this.length = length;
    this.at = at;
  }

  /** @param json - must tell the same whenever it is called. */
  static of<Item>(items: Listing<Item>, json: (item: Item) => Json): LazyList {
    return new LazyList(items.length, (index) => {
      const item = items.at(index);
      return item === undefined ? null : json(item);
    });
  }
}

/** A map whose values are made one by one, when they are written. */
export class LazyMap {
  readonly #items: ReadonlyMap<string, () => Json>;

  private constructor(items: ReadonlyMap<string, () => Json>) {
    this.#items = items;
  }

  /** @param json - must tell the same whenever it is called. */
  static of<Item>(items: Iterable<readonly [string, Item]>, json: (item: Item) => Json): LazyMap {
    const made = new Map<string, () => Json>();
    for (const [key, item] of items) made.set(key, () => json(item));
    return new LazyMap(made);
  }

  keys(): Iterable<string> {
    return this.#items.keys();
  }

  get(key: string): Json {
    return this.#items.get(key)?.() ?? null;
  }
}

/** How a Go struct is written: its keys, and the function that makes the value of each. */
export class StructForm<Item> {
  /** As they are written, with their quotes. */
  readonly keys: readonly string[];
  readonly members: readonly StructMember<Item>[];

  constructor(members: readonly (readonly [key: string, member: StructMember<Item>])[]) {
    this.keys = members.map(([key]) => text(key));
    this.members = members.map(([, member]) => member);
  }
}

/** A Go struct whose members are made one by one, when they are written; undefined: it is left out. */
export class LazyStruct {
  /** As they are written. */
  readonly keys: readonly string[];
  readonly at: (index: number) => Json | undefined;

  private constructor(keys: readonly string[], at: (index: number) => Json | undefined) {
    this.keys = keys;
    this.at = at;
  }

  /** @param form - its members must tell the same whenever they are called. */
  static of<Item>(item: Item, { keys, members }: StructForm<Item>): LazyStruct {
    return new LazyStruct(keys, (index) => members[index]?.(item));
  }

  /** With one more member, at the end. */
  with(key: string, value: Json): LazyStruct {
    const { at, keys } = this;
    return new LazyStruct([...keys, text(key)], (index) => (index < keys.length ? at(index) : value));
  }
}

export type StructMember<Item> = (item: Item) => Json | undefined;

const UNSAFE = /[<>&\u2028\u2029]/g;
/** About the cost of an element of a list that is in memory until it is written, beside its record. */
const ELEMENT_BYTES = 32;
/** The same of one with a key. */
const MEMBER_BYTES = 160;
const PRETTY_INDENT = "    ";
const SPACE = 0x20;
const QUOTE = 0x22;
const AMPERSAND = 0x26;
const LESS = 0x3c;
const GREATER = 0x3e;
const BACKSLASH = 0x5c;
const TILDE = 0x7e;

function escapeUnsafe(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Whether nothing of it is escaped, as of most texts. A loop, because it runs for every key and text of every answer. */
function isPlain(value: string): boolean {
  for (let position = 0; position < value.length; position++) {
    const code = value.charCodeAt(position);
    if (code < SPACE || code > TILDE) return false;
    if (code === QUOTE || code === BACKSLASH || code === AMPERSAND || code === LESS || code === GREATER) return false;
  }
  return true;
}

/** Unit and record separators aside, these are what Go's encoder hides from browsers. */
function text(value: string): string {
  return isPlain(value) ? `"${value}"` : JSON.stringify(value).replace(UNSAFE, escapeUnsafe);
}

/**
 * JSON as Go's encoder writes it: keys of maps sorted by their bytes, members that are undefined left out, `<`, `>` and
 * `&` escaped. A `Map` is a Go map; an object is a Go struct.
 * @param pretty - indents by four spaces and ends in a newline, as `?pretty` asks for.
 */
export function writeJson(value: Json, pretty = false): string {
  return new JsonWriter(value, pretty).write(Number.POSITIVE_INFINITY);
}

type Composite = Exclude<Json, null | boolean | number | bigint | string>;

/** A list or an object of which a part is written. */
class OpenValue {
  readonly value: Composite;
  /** Undefined: a list. Those of a {@link LazyStruct} are as they are written. */
  readonly keys: readonly string[] | undefined;
  readonly isStruct: boolean;
  /** How many elements there are in memory, written ones included. */
  readonly size: number;
  index = 0;
  /** Whether nothing of it has been written. */
  empty = true;

  constructor(value: Composite) {
    this.value = value;
    this.isStruct = value instanceof LazyStruct;
    if (isList(value) || value instanceof LazyList) {
      this.size = value.length;
      return;
    }
    if (value instanceof LazyStruct) this.keys = value.keys;
    else this.keys = isMap(value) || value instanceof LazyMap ? sortedByBytes(value.keys()) : Object.keys(value);
    this.size = this.keys.length;
  }

  /** The element at `index`; undefined: a member that is left out. */
  element(): Json | undefined {
    const { value } = this;
    if (isList(value)) return value[this.index] ?? null;
    if (value instanceof LazyList || value instanceof LazyStruct) return value.at(this.index);
    const key = this.keys?.[this.index] ?? "";
    return isMap(value) || value instanceof LazyMap ? (value.get(key) ?? null) : value[key];
  }
}

/** Writes the JSON of a value bit by bit, as {@link writeJson} does at once. */
export class JsonWriter {
  readonly #pretty: boolean;
  readonly #open: OpenValue[] = [];
  #written = "";
  #done = false;

  constructor(value: Json, pretty = false) {
    this.#pretty = pretty;
    this.#begin(value);
  }

  /** All has been written. */
  get done(): boolean {
    return this.#done;
  }

  /** About the bytes in memory of the lists and objects that it is in the midst of, beside the records of their elements. */
  get openBytes(): number {
    let bytes = 0;
    for (const { size, keys } of this.#open) bytes += size * (keys === undefined ? ELEMENT_BYTES : MEMBER_BYTES);
    return bytes;
  }

  /** Writes on, until there are so many characters at least, or all is written. */
  write(characters: number): string {
    while (this.#written.length < characters && !this.#done) this.#step(characters);
    const written = this.#written;
    this.#written = "";
    return written;
  }

  /** Elements up to the next that is a list or an object, which it begins, or to the end of the one that is open. */
  #step(characters: number): void {
    const open = this.#open.at(-1);
    if (open === undefined) {
      if (this.#pretty) this.#written += "\n";
      this.#done = true;
      return;
    }
    const { keys, size, isStruct } = open;
    const indent = this.#pretty ? this.#lineAt(this.#open.length) : "";
    const colon = this.#pretty ? ": " : ":";
    while (open.index < size) {
      if (this.#written.length >= characters) return;
      const key = keys?.[open.index];
      const value = open.element();
      open.index++;
      if (value === undefined) continue;
      const before = open.empty ? indent : `,${indent}`;
      this.#written += key === undefined ? before : before + (isStruct ? key : text(key)) + colon;
      open.empty = false;
      if (this.#begin(value)) return;
    }
    this.#open.pop();
    const close = keys === undefined ? "]" : "}";
    this.#written += this.#pretty && !open.empty ? this.#lineAt(this.#open.length) + close : close;
  }

  /** @returns whether it is one that has elements, which are to be written next. */
  #begin(value: Json): boolean {
    if (typeof value === "string") this.#written += text(value);
    else if (typeof value !== "object" || value === null) this.#written += String(value);
    else {
      const open = new OpenValue(value);
      if (open.size === 0) this.#written += open.keys === undefined ? "[]" : "{}";
      else {
        this.#written += open.keys === undefined ? "[" : "{";
        this.#open.push(open);
        return true;
      }
    }
    return false;
  }

  #lineAt(depth: number): string {
    return `\n${PRETTY_INDENT.repeat(depth)}`;
  }
}

function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}

function isMap(value: Json): value is ReadonlyMap<string, Json> {
  return value instanceof Map;
}

function sortedByBytes(keys: Iterable<string>): string[] {
  const all = [...keys];
  if (all.length < 2) return all;
  return all.sort(compareUtf8);
}

/** A Go map of texts: written with sorted keys. */
export function textMap(values: Readonly<Record<string, string>>): ReadonlyMap<string, string> {
  return new Map(Object.entries(values));
}

/** The map, or undefined when there is nothing in it: for members that Go leaves out when empty. */
export function textMapOrAbsent(values: Readonly<Record<string, string>>): ReadonlyMap<string, string> | undefined {
  const map = textMap(values);
  return map.size === 0 ? undefined : map;
}

/** Milliseconds since the epoch as RFC 3339 in UTC, without trailing zeros of the fraction. */
export function timeText(milliseconds: number): string {
  const text = new Date(milliseconds).toISOString().slice(0, -1);
  return `${withoutTrailing(withoutTrailing(text, "0"), ".")}Z`;
}
