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

function escapeUnsafe(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Unit and record separators aside, these are what Go's encoder hides from browsers. */
function text(value: string): string {
  return JSON.stringify(value).replace(UNSAFE, escapeUnsafe);
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
  const inner = indent === undefined ? undefined : indent + PRETTY_INDENT;
  if (isList(value)) {
    return enclose(
      "[",
      value.map((item) => write(item, inner)),
      "]",
      indent,
    );
  }
  const colon = indent === undefined ? ":" : ": ";
  const members: string[] = [];
  if (value instanceof Map) {
    for (const key of sortedByBytes(value.keys())) {
      members.push(`${text(key)}${colon}${write(value.get(key) ?? null, inner)}`);
    }
  } else {
    for (const [key, member] of Object.entries(value)) {
      if (member !== undefined) members.push(`${text(key)}${colon}${write(member, inner)}`);
    }
  }
  return enclose("{", members, "}", indent);
}

function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}

function enclose(open: string, parts: readonly string[], close: string, indent: string | undefined): string {
  if (parts.length === 0 || indent === undefined) return `${open}${parts.join(",")}${close}`;
  const inner = indent + PRETTY_INDENT;
  return `${open}${inner}${parts.join(`,${inner}`)}${indent}${close}`;
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
