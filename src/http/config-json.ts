import { type ConfigEntryKind, isConfigEntryKind } from "../model/entry-kinds.js";
import { listProblems } from "../model/entry-reader.js";
import { goKind, membersOf, readShape } from "../model/shape-reader.js";
import { entryShapes, type Shape } from "../model/shapes.js";
import type { StoredConfigEntry } from "../stores/config-entries.js";
import { type GoJson, GoNumber, GoObject, isGoList, isGoObject, type PlainJson } from "../syntax/go-json.js";
import type { Fields } from "./filter/fields.js";
import { badRequest } from "./http-refusal.js";
import type { Json } from "./json.js";
import type { JsonSchema } from "./operation.js";
import { index } from "./operation-docs.js";
import { filterOf } from "./record-members.js";
import { indexMembers } from "./records.js";
import { shapeFields } from "./shape-fields.js";
import { structJson, structSchema } from "./shape-json.js";

// The members of every entry, before and after its own fields.
const meta: Shape = { Meta: { as: "textMap" } };
const common: Shape = { ...meta, Hash: { as: "uint64", written: true } };

/** An entry as read from a request: of the library's form, not checked yet. */
export interface DecodedEntry {
  readonly kind: ConfigEntryKind;
  /** `""` when not given. */
  readonly name: string;
  readonly entry: Readonly<Record<string, PlainJson>>;
}

/** @throws {HttpRefusal} 400 `Request decoding failed: …` */
export function decodeConfigEntry(body: GoJson): DecodedEntry {
  if (body !== null && !isGoObject(body)) throw refused(`'' expected a map, got '${goKind(body)}'`);
  const top = body ?? new GoObject([]);
  const given = membersOf(top);
  const unfit = numberBeyond(top);
  if (unfit !== undefined) throw refused(`json: cannot unmarshal number ${unfit} into Go value of type float64`);
  const kind = given.has("Kind") ? given.get("Kind") : given.get("kind");
  if (kind === undefined) throw refused("Payload does not contain a kind/Kind key at the top level");
  if (typeof kind !== "string") throw refused("Kind value in payload is not a string");
  if (!isConfigEntryKind(kind)) throw refused(`invalid config entry kind: ${kind}`);
  // These are passed over as they are written here, and are unknown in other capitals.
  const own = top.members.filter(({ key }) => !["Kind", "kind", "CreateIndex", "ModifyIndex"].includes(key));
  const { fields, mismatches, unknown } = readShape(new GoObject(own), { ...entryShapes[kind], ...common });
  if (mismatches.length > 0) {
    throw refused(`${mismatches.length} error(s) decoding:\n\n${mismatches.map((text) => `* ${text}`).join("\n")}`);
  }
  if (unknown.length > 0) throw refused(listProblems(unknown));
  const { name } = fields;
  return { kind, name: typeof name === "string" ? name : "", entry: { ...fields, kind } };
}

/** The first number that is none of Go's floats. */
function numberBeyond(value: GoJson): string | undefined {
  if (value instanceof GoNumber) return Number.isFinite(Number(value.text)) ? undefined : value.text;
  const parts = isGoList(value) ? value : isGoObject(value) ? value.members.map((member) => member.value) : [];
  for (const part of parts) {
    const found = numberBeyond(part);
    if (found !== undefined) return found;
  }
  return undefined;
}

function refused(why: string): Error {
  return badRequest(`Request decoding failed: ${why}`);
}

/** An entry as Consul prints it, without `Hash` (D-49). */
export function configEntryJson({ entry, createIndex, modifyIndex }: StoredConfigEntry): Json {
  return {
    ...structJson(entry, entryShapes[entry.kind]),
    ...structJson(entry, meta),
    CreateIndex: createIndex,
    ModifyIndex: modifyIndex,
  };
}

/** The fields that filters may name in entries of a kind: those that {@link configEntryJson} writes. */
export function configEntryFields(kind: ConfigEntryKind): Fields<StoredConfigEntry> {
  return {
    ...shapeFields({ ...entryShapes[kind], ...meta }, ({ entry }: StoredConfigEntry) => entry),
    ...filterOf<StoredConfigEntry>(indexMembers),
  };
}

/** The members that {@link configEntryJson} writes, of whatever kind. */
export const configEntrySchema: JsonSchema = {
  anyOf: Object.entries(entryShapes).map(([kind, shape]) => {
    const { properties, required } = structSchema({ ...shape, ...meta });
    return {
      type: "object",
      properties: { ...properties, Kind: { type: "string", enum: [kind] }, CreateIndex: index, ModifyIndex: index },
      required: ["Kind", ...required, "CreateIndex", "ModifyIndex"],
    };
  }),
};

/** The members that {@link decodeConfigEntry} reads. */
export const configEntryBody: JsonSchema = {
  anyOf: Object.entries(entryShapes).map(([kind, shape]) => {
    const { properties } = structSchema({ ...shape, ...meta }, "body");
    return {
      type: "object",
      properties: { ...properties, Kind: { type: "string", enum: [kind] } },
      required: ["Kind"],
    };
  }),
};
