import type { JsonSchema, ParameterDoc } from "./operation.js";

function query(name: string, description: string): ParameterDoc {
  return { name, in: "query", description };
}

/** Every operation takes these. */
export const commonParameters: readonly ParameterDoc[] = [
  { name: "X-Consul-Token", in: "header", description: "The token of the caller; also `Authorization: Bearer`." },
  query("token", "The token of the caller; a header is safer."),
  query("pretty", "Indents the JSON of the answer."),
];

/** Those of every read that can wait. */
export const readParameters: readonly ParameterDoc[] = [
  query("index", "Waits until the index of the answer exceeds this one."),
  query("wait", "How long to wait at most, such as `30s`; default `5m`, at most `10m`."),
  query("stale", "Accepted; every answer is consistent."),
  query("consistent", "Accepted; every answer is consistent."),
  query("cached", "Accepted; nothing is cached."),
];

export const datacenterParameter: ParameterDoc = query("dc", "Accepted; there is one datacenter.");
export const filterParameter: ParameterDoc = query("filter", "An expression of go-bexpr over the records.");
export const casParameter: ParameterDoc = query(
  "cas",
  "Writes only if this is the entry's ModifyIndex; 0: if it is absent.",
);

export const text: JsonSchema = { type: "string" };
export const flag: JsonSchema = { type: "boolean" };
export const index: JsonSchema = { type: "integer", minimum: 0 };
export const texts: JsonSchema = { type: "array", items: text };
export const textsOrNull: JsonSchema = { type: ["array", "null"], items: text };
export const time: JsonSchema = { type: "string", format: "date-time" };
export const timeOrNull: JsonSchema = { type: ["string", "null"], format: "date-time" };
export const textsByKey: JsonSchema = { type: "object", additionalProperties: text };
export const anyObject: JsonSchema = { type: "object" };

export function listOf(items: JsonSchema): JsonSchema {
  return { type: "array", items };
}

export function mapOf(values: JsonSchema): JsonSchema {
  return { type: "object", additionalProperties: values };
}

export function orNull(schema: JsonSchema): JsonSchema {
  return { anyOf: [schema, { type: "null" }] };
}

/** An object; every member is there unless its name ends in `?`. */
export function objectOf(members: Readonly<Record<string, JsonSchema>>): JsonSchema {
  const names = Object.keys(members);
  return {
    type: "object",
    properties: Object.fromEntries(Object.entries(members).map(([name, schema]) => [name.replace(/\?$/, ""), schema])),
    required: names.filter((name) => !name.endsWith("?")),
  };
}
