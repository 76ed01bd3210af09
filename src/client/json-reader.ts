import { PeeringError } from "../base/errors.js";

/** JSON as `JSON.parse` gives it. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

function mismatch(what: string, expected: string): PeeringError {
  return new PeeringError("invalid-message", `${what} is not ${expected}`);
}

/** @param what - names the value in the error. @throws {PeeringError} `invalid-message` when it is no JSON. */
export function parseJson(text: string, what: string): Json {
  try {
    const value: Json = JSON.parse(text);
    return value;
  } catch {
    // Without the cause: its text quotes a piece of the answer, in which there may be a secret.
    throw new PeeringError("invalid-message", `${what} is not JSON`);
  }
}

export function isJsonObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isJsonList(value: Json): value is readonly Json[] {
  return Array.isArray(value);
}

export function asObject(value: Json | undefined, what: string): JsonObject {
  if (!isJsonObject(value)) throw mismatch(what, "an object");
  return value;
}

/** The elements; `null` is the empty list, as Go writes it. */
export function asList(value: Json, what: string): readonly Json[] {
  if (value === null) return [];
  if (!isJsonList(value)) throw mismatch(what, "a list");
  return value;
}

export function asTexts(value: Json, what: string): readonly string[] {
  return asList(value, what).map((element) => {
    if (typeof element !== "string") throw mismatch(`an element of ${what}`, "a text");
    return element;
  });
}

/** The member; undefined for `null`, too. */
export function memberOf(object: JsonObject, key: string): Json | undefined {
  return (Object.hasOwn(object, key) ? object[key] : undefined) ?? undefined;
}

export function textOf(object: JsonObject, key: string): string {
  const value = memberOf(object, key) ?? "";
  if (typeof value !== "string") throw mismatch(key, "a text");
  return value;
}

export function numberOf(object: JsonObject, key: string): number {
  const value = memberOf(object, key) ?? 0;
  if (typeof value !== "number") throw mismatch(key, "a number");
  return value;
}

export function booleanOf(object: JsonObject, key: string): boolean {
  const value = memberOf(object, key) ?? false;
  if (typeof value !== "boolean") throw mismatch(key, "a boolean");
  return value;
}

export function objectOf(object: JsonObject, key: string): JsonObject {
  return asObject(memberOf(object, key) ?? {}, key);
}

export function membersOf(object: JsonObject, key: string): readonly Json[] {
  return asList(memberOf(object, key) ?? null, key);
}

export function textsOf(object: JsonObject, key: string): readonly string[] {
  return asTexts(memberOf(object, key) ?? null, key);
}

export function textMapOf(object: JsonObject, key: string): Readonly<Record<string, string>> {
  return mapValues(objectOf(object, key), (value, name) => {
    if (typeof value !== "string") throw mismatch(`${key}[${JSON.stringify(name)}]`, "a text");
    return value;
  });
}

/** The object with each of its values read. Keys are data: none of them is special. */
export function mapValues<Value>(
  object: JsonObject,
  read: (value: Json, key: string) => Value,
): Readonly<Record<string, Value>> {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, read(value, key)]));
}
