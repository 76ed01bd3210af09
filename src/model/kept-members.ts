import type { JsonObject, JsonValue } from "./instance.js";

// Members that an entry keeps and does not interpret, under Consul's names.

export function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !isList(value);
}

export function isList(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/** A member; undefined where there is none, or nothing in it. */
export function member(value: JsonValue | undefined, name: string): JsonValue | undefined {
  return isObject(value) && Object.hasOwn(value, name) ? (value[name] ?? undefined) : undefined;
}

/** `""` where there is no text. */
export function textMember(value: JsonValue | undefined, name: string): string {
  const text = member(value, name);
  return typeof text === "string" ? text : "";
}

/** Empty where there is no list. */
export function listMember(value: JsonValue | undefined, name: string): readonly JsonValue[] {
  const list = member(value, name);
  return isList(list) ? list : [];
}

/** As `Object.keys(map).length === 0`, without the list: it is asked for every record of an answer. */
export function isEmptyMap(map: Readonly<Record<string, unknown>>): boolean {
  for (const _ in map) return false;
  return true;
}
