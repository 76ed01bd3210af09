import type { JsonObject, JsonValue } from "../../model/instance.js";
import { isObject } from "../../model/kept-members.js";
import { parseDuration } from "../../syntax/go-duration.js";

// Settings of a proxy that Consul keeps as it gets them: in any capitals, with or without underscores, numbers also as texts.

/** A key as it is compared. */
export const plainKey = (name: string): string => name.replaceAll("_", "").toLowerCase();

/** A member; undefined where there is none, or it is null. */
export function opaque(from: JsonValue | undefined, name: string): JsonValue | undefined {
  if (!isObject(from)) return undefined;
  const asked = plainKey(name);
  for (const key of Object.keys(from).sort()) if (plainKey(key) === asked) return from[key] ?? undefined;
  return undefined;
}

/** `""` where there is no text. */
export function opaqueText(from: JsonValue | undefined, name: string): string {
  const value = opaque(from, name);
  return typeof value === "string" || typeof value === "number" ? String(value) : "";
}

/** Undefined where there is no number. */
export function opaqueNumber(from: JsonValue | undefined, name: string): number | undefined {
  const value = opaque(from, name);
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  return typeof number === "number" && Number.isFinite(number) ? number : undefined;
}

/** A whole number that fits into 32 bits without a sign; undefined for anything else. */
export function opaqueCount(from: JsonValue | undefined, name: string): number | undefined {
  const number = opaqueNumber(from, name);
  if (number === undefined || number < 0 || number > 0xffff_ffff) return undefined;
  return Math.trunc(number);
}

export function opaqueFlag(from: JsonValue | undefined, name: string): boolean {
  const value = opaque(from, name);
  return value === true || value === 1 || (typeof value === "string" && /^(?:1|t|true)$/i.test(value));
}

export function opaqueObject(from: JsonValue | undefined, name: string): JsonObject {
  const value = opaque(from, name);
  return isObject(value) ? value : {};
}

/** Milliseconds of a duration: a text such as `10s`, or nanoseconds. Undefined: there is none. */
export function opaqueDuration(from: JsonValue | undefined, name: string): number | undefined {
  const value = opaque(from, name);
  const milliseconds =
    typeof value === "number" ? value / 1e6 : typeof value === "string" ? parseDuration(value) : undefined;
  return milliseconds !== undefined && milliseconds > 0 ? milliseconds : undefined;
}
