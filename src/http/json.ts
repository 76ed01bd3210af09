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
  | KeptList
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
  readonly length: number;
  readonly keyAt: (index: number) => string;
  readonly at: (index: number) => Json;

  private constructor(length: number, keyAt: (index: number) => string, at: (index: number) => Json) {
    this.length = length;
    this.keyAt = keyAt;
    this.at = at;
  }

  /** Of equal keys the last one counts. @param json - must tell the same whenever it is called. */
  static of<Item>(items: Iterable<readonly [string, Item]>, json: (item: Item) => Json): LazyMap {
    const byKey = new Map<string, readonly [string, Item]>();
    for (const item of items) byKey.set(item[0], item);
    const sorted = [...byKey.values()].sort(([left], [right]) => compareUtf8(left, right));
    return LazyMap.inOrder(sorted, json);
  }

  /** The same of items whose keys differ, and are in byte order: nothing is done before they are written. */
  static inOrder<Item>(items: Listing<readonly [string, Item]>, json: (item: Item) => Json): LazyMap {
    const keyAt = (index: number): string => items.at(index)?.[0] ?? "";
    return new LazyMap(items.length, keyAt, (index) => {
      const item = items.at(index);
      return item === undefined ? null : json(item[1]);
    });
  }
}

/** The texts of a list that were written before. */
export interface ElementTexts {
  /** Those of the elements from `index` on, a comma before each; undefined: that of the one at `index` is not known. */
  at(index: number): { readonly text: Buffer; readonly end: number } | undefined;
  /** Whether text that was written up to `end`, of so many bytes, is to be kept by itself. */
  isWhole(end: number, bytes: number): boolean;
  keep(start: number, end: number, text: Buffer): void;
  /** All of the list has been written. */
  over(): void;
}

/** As {@link LazyList}, or a map in the order of its keys, of which each answer writes only what no answer before has written. */
export class KeptList {
  readonly length: number;
  readonly at: (index: number) => Json;
  /** Undefined: it is a list. */
  readonly keyAt: ((index: number) => string) | undefined;
  readonly texts: ElementTexts;

  /** @param at - must tell the same whenever it is called. */
  constructor(
    length: number,
    at: (index: number) => Json,
    texts: ElementTexts,
    keyAt: ((index: number) => string) | undefined = undefined,
  ) {
    this.length = length;
    this.at = at;
    this.texts = texts;
    this.keyAt = keyAt;
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
/** Lists and objects that are written between two looks at the clock. */
const STEPS_A_LOOK = 64;
/** No longer text of an element is kept. */
const KEPT_TEXT_BYTES = 256 * 1_024;
const COMMA = Buffer.from(",");
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
  /** Undefined: a list, a {@link LazyMap} or a {@link KeptList}. Those of a {@link LazyStruct} are as they are written. */
  readonly keys: readonly string[] | undefined;
  readonly isStruct: boolean;
  readonly isList: boolean;
  /** How many elements there are in memory, written ones included. */
  readonly size: number;
  readonly texts: ElementTexts | undefined;
  index = 0;
  /** Whether nothing of it has been written. */
  empty = true;

  constructor(value: Composite) {
    this.value = value;
    this.isStruct = value instanceof LazyStruct;
    if (isList(value) || value instanceof LazyList) {
      this.size = value.length;
      this.isList = true;
      return;
    }
    if (value instanceof KeptList) {
      this.size = value.length;
      this.isList = value.keyAt === undefined;
      this.texts = value.texts;
      return;
    }
    if (value instanceof LazyMap) {
      this.size = value.length;
      this.isList = false;
      return;
    }
    if (value instanceof LazyStruct) this.keys = value.keys;
    else this.keys = isMap(value) ? sortedByBytes(value.keys()) : Object.keys(value);
    this.size = this.keys.length;
    this.isList = false;
  }

  /** The key at `index`; undefined: it is a list. */
  key(): string | undefined {
    const { value, index } = this;
    return value instanceof KeptList || value instanceof LazyMap ? value.keyAt?.(index) : this.keys?.[index];
  }

  /** The element at `index`; undefined: a member that is left out. */
  element(): Json | undefined {
    const { value } = this;
    if (isList(value)) return value[this.index] ?? null;
    if (
      value instanceof LazyList ||
      value instanceof LazyStruct ||
      value instanceof KeptList ||
      value instanceof LazyMap
    ) {
      return value.at(this.index);
    }
    const key = this.keys?.[this.index] ?? "";
    return isMap(value) ? (value.get(key) ?? null) : value[key];
  }
}

/** Elements of a list whose text is to be kept, while they are written. */
interface Recording {
  readonly open: OpenValue;
  readonly start: number;
  /** Whether nothing is before the first, not even a comma. */
  readonly isFirst: boolean;
  readonly parts: Buffer[];
  bytes: number;
}

/** Writes the JSON of a value bit by bit, as {@link writeJson} does at once. */
export class JsonWriter {
  readonly #pretty: boolean;
  readonly #open: OpenValue[] = [];
  #written = "";
  /** Written before that. */
  #parts: Buffer[] = [];
  #partBytes = 0;
  #usesTexts = false;
  #recording: Recording | undefined;
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
    for (const { size, value, keys } of this.#open) {
      bytes += size * (keys === undefined && !(value instanceof LazyMap) ? ELEMENT_BYTES : MEMBER_BYTES);
    }
    return bytes;
  }

  /** Writes on, until there are so many characters at least, or all is written. */
  write(characters: number): string {
    while (this.#written.length < characters && !this.#done) this.#step(characters);
    const written = this.#written;
    this.#written = "";
    return written;
  }

  /** As {@link write}, in bytes, with the texts of each {@link KeptList} that were written before. Not to be changed. */
  piece(bytes: number): Buffer {
    while (!this.writeOn(bytes, Number.POSITIVE_INFINITY));
    return this.taken();
  }

  /**
   * Writes until there are so many bytes at least, all is written, or it is late.
   * @param lateMs - on the clock of `performance`.
   * @returns it was not late.
   */
  writeOn(bytes: number, lateMs: number): boolean {
    this.#usesTexts = !this.#pretty;
    for (let steps = 1; this.#partBytes + this.#written.length < bytes && !this.#done; steps++) {
      if (steps % STEPS_A_LOOK === 0 && performance.now() > lateMs) return false;
      this.#step(bytes);
    }
    return true;
  }

  /** All that was written by {@link writeOn} since the last call. Not to be changed. */
  taken(): Buffer {
    this.#flush();
    const parts = this.#parts;
    this.#parts = [];
    this.#partBytes = 0;
    const [first = Buffer.alloc(0)] = parts;
    return parts.length < 2 ? first : Buffer.concat(parts);
  }

  /** Elements up to the next that is a list or an object, which it begins, or to the end of the one that is open. */
  #step(characters: number): void {
    const open = this.#open.at(-1);
    if (open === undefined) {
      if (this.#pretty) this.#written += "\n";
      this.#done = true;
      return;
    }
    const { size, isStruct, texts } = open;
    const indent = this.#pretty ? this.#lineAt(this.#open.length) : "";
    const colon = this.#pretty ? ": " : ":";
    while (open.index < size) {
      if (this.#partBytes + this.#written.length >= characters) return;
      if (texts !== undefined && this.#usesTexts && this.#takeText(open, texts)) continue;
      const key = open.key();
      const value = open.element();
      open.index++;
      if (value === undefined) continue;
      const before = open.empty ? indent : `,${indent}`;
      this.#written += key === undefined ? before : before + (isStruct ? key : text(key)) + colon;
      open.empty = false;
      if (this.#begin(value)) return;
    }
    if (texts !== undefined && this.#usesTexts) {
      if (this.#recording?.open === open) this.#keep(this.#recording, texts);
      texts.over();
    }
    this.#open.pop();
    const close = open.isList ? "]" : "}";
    this.#written += this.#pretty && !open.empty ? this.#lineAt(this.#open.length) + close : close;
  }

  /** Before an element of a list whose texts are kept. @returns whether it was written, and maybe further ones. */
  #takeText(open: OpenValue, texts: ElementTexts): boolean {
    const recording = this.#recording;
    if (recording?.open === open) {
      if (!texts.isWhole(open.index, recording.bytes + this.#written.length)) return false;
      this.#keep(recording, texts);
    }
    const known = texts.at(open.index);
    if (known !== undefined) {
      this.#flush();
      this.#push(open.empty ? known.text.subarray(COMMA.length) : known.text);
      open.empty = false;
      open.index = known.end;
      return true;
    }
    if (this.#recording === undefined) {
      this.#flush();
      this.#recording = { open, start: open.index, isFirst: open.empty, parts: [], bytes: 0 };
    }
    return false;
  }

  #keep({ open, start, isFirst, parts }: Recording, texts: ElementTexts): void {
    this.#flush();
    this.#recording = undefined;
    if (parts.length === 0) return;
    const [only = COMMA] = parts;
    const isOne = parts.length === 1 && !isFirst;
    texts.keep(start, open.index, isOne ? only : Buffer.concat(isFirst ? [COMMA, ...parts] : parts));
  }

  #flush(): void {
    if (this.#written === "") return;
    const part = Buffer.from(this.#written);
    this.#written = "";
    this.#push(part);
  }

  #push(part: Buffer): void {
    this.#parts.push(part);
    this.#partBytes += part.length;
    const recording = this.#recording;
    if (recording === undefined) return;
    recording.parts.push(part);
    recording.bytes += part.length;
    if (recording.bytes > KEPT_TEXT_BYTES) this.#recording = undefined;
  }

  /** @returns whether it is one that has elements, which are to be written next. */
  #begin(value: Json): boolean {
    if (typeof value === "string") this.#written += text(value);
    else if (typeof value !== "object" || value === null) this.#written += String(value);
    else {
      const open = new OpenValue(value);
      if (open.size === 0) this.#written += open.isList ? "[]" : "{}";
      else {
        this.#written += open.isList ? "[" : "{";
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
