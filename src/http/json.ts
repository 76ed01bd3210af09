/** What an answer is written from: maps become objects with sorted keys, other objects keep the order they have. */
export type Json =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly Json[]
  | ReadonlyMap<string, Json>
  | { readonly [key: string]: Json | undefined };

const UNSAFE = /[<>&\u2028\u2029]/g;
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
  return pretty ? `${write(value, "\n")}\n` : write(value, undefined);
}

/** @param indent - a newline and the indentation of this level; undefined for compact output. */
function write(value: Json, indent: string | undefined): string {
  if (value === null) return "null";
  switch (typeof value) {
    case "string":
      return text(value);
    case "number":
    case "bigint":
    case "boolean":
      return String(value);
    default:
  }
  // Texts grow by being added to: lists of parts to join cost several times as much.
  const inner = indent === undefined ? undefined : indent + PRETTY_INDENT;
  const first = inner ?? "";
  const next = `,${first}`;
  let written = "";
  if (isList(value)) {
    for (const item of value) written += (written === "" ? first : next) + write(item, inner);
    return enclose("[", written, "]", indent);
  }
  const colon = indent === undefined ? ":" : ": ";
  if (isMap(value)) {
    for (const key of sortedByBytes(value.keys())) {
      written += (written === "" ? first : next) + text(key) + colon + write(value.get(key) ?? null, inner);
    }
    return enclose("{", written, "}", indent);
  }
  for (const key of Object.keys(value)) {
    const member = value[key];
    if (member !== undefined) {
      written += (written === "" ? first : next) + text(key) + colon + write(member, inner);
    }
  }
  return enclose("{", written, "}", indent);
}

function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}

function isMap(value: Json): value is ReadonlyMap<string, Json> {
  return value instanceof Map;
}

function enclose(open: string, members: string, close: string, indent: string | undefined): string {
  return members === "" || indent === undefined ? `${open}${members}${close}` : `${open}${members}${indent}${close}`;
}

function sortedByBytes(keys: Iterable<string>): string[] {
  return [...keys].sort((left, right) => Buffer.compare(Buffer.from(left), Buffer.from(right)));
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
  return new Date(milliseconds).toISOString().replace(/\.?0+Z$/, "Z");
}
