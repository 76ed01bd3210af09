import { isConfigEntryKind } from "../model/entry-kinds.js";
import { toJsonObject } from "../model/entry-reader.js";
import { keptExtra } from "../model/shape-reader.js";
import { entryShapes, ownName, type Shape } from "../model/shapes.js";

type Fields = Readonly<Record<string, unknown>> & { readonly extra?: unknown };

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function keptShape(shape: Shape): Shape {
  return Object.fromEntries(Object.entries(shape).filter(([, { kept }]) => kept === "extra"));
}

/** `fields` with their stored values in Consul's form. */
function withKept(fields: Fields, shape: Shape, path: string): Fields {
  const result: Record<string, unknown> & { extra?: unknown } = { ...fields };
  if (fields.extra !== undefined && fields.extra !== null) {
    result.extra = keptExtra(toJsonObject(fields.extra, at(path, "extra")), keptShape(shape), at(path, "extra"));
  }
  for (const [name, { as, kept }] of Object.entries(shape)) {
    const own = ownName(name);
    const value = fields[own];
    if (typeof as !== "object" || kept === "extra" || value === undefined || value === null) continue;
    const inner = at(path, own);
    const each = (item: unknown, place: string): unknown => (isFields(item) ? withKept(item, as.shape, place) : item);
    if (kept === "here") result[own] = keptExtra(toJsonObject(value, inner), as.shape, inner);
    else if (as.many === "one") result[own] = each(value, inner);
    else if (as.many === "list" && Array.isArray(value)) {
      result[own] = value.map((item: unknown, index) => each(item, `${inner}[${index}]`));
    } else if (as.many === "map" && isFields(value)) {
      const pairs = Object.entries(value).map(([key, item]) => [key, each(item, `${inner}[${JSON.stringify(key)}]`)]);
      result[own] = Object.fromEntries(pairs);
    }
  }
  return result;
}

function at(path: string, key: string): string {
  return path === "" ? key : `${path}.${key}`;
}

/**
 * An entry of the library's form, typed or not, with all that it only keeps in Consul's form.
 * @throws {PeeringError} `invalid-entry`: something is to be kept that Consul's entry does not have.
 */
export function withConsulExtras(input: unknown): unknown {
  if (!isFields(input)) return input;
  const kind = "kind" in input ? input["kind"] : undefined;
  return typeof kind === "string" && isConfigEntryKind(kind) ? withKept(input, entryShapes[kind], "") : input;
}
