import type { JsonObject, JsonValue } from "./instance.js";

// What an entry keeps and does not interpret: fields below the first level are spelled as they came.

export function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !isList(value);
}

export function isList(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/** `RequestHeaders`, `requestHeaders` and `request_headers` are one name. */
function folded(name: string): string {
  return name.replaceAll("_", "").toLowerCase();
}

/** A member by Consul's name of it; undefined where there is none, or nothing in it. */
export function member(value: JsonValue | undefined, name: string): JsonValue | undefined {
  if (!isObject(value)) return undefined;
  if (Object.hasOwn(value, name)) return value[name] ?? undefined;
  const key = Object.keys(value).find((other) => folded(other) === folded(name));
  return key === undefined ? undefined : (value[key] ?? undefined);
}

/** `""` where there is no text. */
export function textMember(value: JsonValue | undefined, name: string): string {
  const text = member(value, name);
  return typeof text === "string" ? text : "";
}
