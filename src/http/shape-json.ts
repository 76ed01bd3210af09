import { type Field, ownName, type Shape } from "../model/shapes.js";
import type { GoForm } from "../syntax/go-json.js";
import { type Json, LazyList } from "./json.js";
import type { JsonSchema } from "./operation.js";
import { anyObject, texts, textsByKey, time } from "./operation-docs.js";

// Records by their shapes: as Consul prints them, and as the document of the API describes them.

/** Whose names the fields of a record have. */
export type Names = "own" | "consul";

/** A record as Consul prints it. */
export function structJson(
  value: object,
  shape: Shape,
  names: Names = "own",
): { readonly [key: string]: Json | undefined } {
  const fields = new Map<string, unknown>(Object.entries(value));
  const extra = fields.get("extra");
  const extras = new Map<string, unknown>(names === "own" && isRecord(extra) ? Object.entries(extra) : []);
  const written: Record<string, Json | undefined> = {};
  for (const [name, field] of Object.entries(shape)) {
    const from = names === "own" && field.kept === "extra" ? extras : fields;
    const given = from.get(from === fields && names === "own" ? ownName(name) : name);
    // A list of the library's may be there and empty, where Consul has none.
    const isNone =
      given === "" || given === 0 || given === false
        ? field.always === undefined && field.pointer !== true
        : names === "own" && field.kept === undefined && Array.isArray(given) && given.length === 0;
    const member = isNone ? undefined : given;
    written[name] =
      (member === undefined ? undefined : fieldJson(member, field, field.kept === undefined ? names : "consul")) ??
      field.always;
  }
  return written;
}

export function fieldJson(value: unknown, { as }: Field, names: Names = "own"): Json | undefined {
  if (typeof as !== "object")
    return as === "json" || as === "textMap" || as === "textsMap" ? sorted(value) : plain(value);
  const { many, shape } = as;
  if (many === "one") return isRecord(value) ? structJson(value, shape, names) : undefined;
  if (many === "list") {
    return Array.isArray(value)
      ? LazyList.of(value.filter(isRecord), (item) => structJson(item, shape, names))
      : undefined;
  }
  if (!isRecord(value)) return undefined;
  return new Map(
    Object.entries(value).map(([key, item]): [string, Json] => [
      key,
      isRecord(item) ? structJson(item, shape, names) : null,
    ]),
  );
}

/** The body of a request, as it is read. */
export function bodySchema(form: GoForm): JsonSchema {
  switch (form) {
    case "text":
      return { type: "string" };
    case "flag":
      return { type: "boolean" };
    case "integer":
      return { type: "integer" };
    case "duration":
      return { type: ["string", "integer"] };
    case "any":
      return {};
    default:
  }
  if ("list" in form) return { type: "array", items: bodySchema(form.list) };
  if ("map" in form) return { type: "object", additionalProperties: bodySchema(form.map) };
  const properties = Object.entries(form.fields).map(([name, field]): [string, JsonSchema] => [
    name,
    bodySchema(field),
  ]);
  return { type: "object", properties: Object.fromEntries(properties) };
}

/** In answers, members that are always written are required; in bodies no member is, and durations may be texts. */
type Use = "answer" | "body";

export function structSchema(
  shape: Shape,
  use: Use = "answer",
): {
  readonly type: "object";
  readonly properties: Readonly<Record<string, JsonSchema>>;
  readonly required: readonly string[];
} {
  const written = Object.entries(shape).filter(([, { as, always }]) => as !== "ignored" || always !== undefined);
  return {
    type: "object",
    properties: Object.fromEntries(written.map(([name, field]) => [name, fieldSchema(field, use)])),
    required: use === "body" ? [] : written.filter(([, { always }]) => always !== undefined).map(([name]) => name),
  };
}

export function fieldSchema({ as, always }: Field, use: Use = "answer"): JsonSchema {
  if (use === "body" && (as === "duration" || as === "nanoseconds")) return bodySchema("duration");
  const orNull = (type: string): JsonSchema["type"] => (always === null ? [type, "null"] : type);
  if (typeof as === "object") {
    const shape = structSchema(as.shape, use);
    if (as.many === "one") return always === null ? { anyOf: [shape, { type: "null" }] } : shape;
    if (as.many === "map") return { type: orNull("object"), additionalProperties: shape };
    return { type: orNull("array"), items: shape };
  }
  switch (as) {
    case "text":
    case "duration":
    case "bytes":
      return { type: orNull("string") };
    case "time":
      return { ...time, type: orNull("string") };
    case "flag":
      return { type: "boolean" };
    case "number":
      return { type: "number" };
    case "int":
    case "uint32":
    case "uint64":
    case "nanoseconds":
      return { type: "integer" };
    case "texts":
      return { ...texts, type: orNull("array") };
    case "uint32s":
      return { type: orNull("array"), items: { type: "integer" } };
    case "textMap":
      return { ...textsByKey, type: orNull("object") };
    case "textsMap":
      return { type: orNull("object"), additionalProperties: texts };
    case "json":
      return { ...anyObject, type: orNull("object") };
    case "ignored":
      return {};
  }
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** JSON in the order it was given. */
function plain(value: unknown): Json {
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
    return value;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (isRecord(value)) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  return null;
}

/** JSON of Go maps: with sorted keys at every level. */
function sorted(value: unknown): Json {
  if (Array.isArray(value)) return value.map(sorted);
  if (isRecord(value)) return new Map(Object.entries(value).map(([key, item]) => [key, sorted(item)]));
  return plain(value);
}
