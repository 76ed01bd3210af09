import { ownName, type Shape, type Field as ShapeField } from "../model/shapes.js";
import {
  bool,
  elementsOf,
  type Field,
  type Fields,
  group,
  ifThere,
  integer,
  map,
  structList,
  structMap,
  text,
  textList,
  within,
} from "./filter/fields.js";
import { isRecord, type Names } from "./shape-json.js";

// Records by their shapes, as filters see them: what is written of them can be named, except what has no fixed form.

/**
 * The fields of a record. Those of an object that is behind a pointer in Go match nothing where it is missing; other missing
 * values are the zero values of Go.
 */
export function shapeFields<Item>(shape: Shape, recordOf: (item: Item) => unknown, names: Names = "own"): Fields<Item> {
  const fields: Record<string, Field<Item>> = {};
  for (const [name, described] of Object.entries(shape)) {
    const isExtra = names === "own" && described.kept === "extra";
    const own = names === "own" && !isExtra ? ownName(name) : name;
    const of = (item: Item): unknown => {
      const record = recordOf(item);
      return member(isExtra ? member(record, "extra") : record, own);
    };
    const field = shapeField(described, of, described.kept === undefined ? names : "consul");
    if (field !== undefined) fields[name] = field;
  }
  return fields;
}

/** A field of a record; undefined: it has no fixed form, and cannot be named. */
export function shapeField<Item>(
  { as, pointer }: ShapeField,
  of: (item: Item) => unknown,
  names: Names = "own",
): Field<Item> | undefined {
  const field = valueField(as, names);
  return field && (pointer === true ? ifThere(of, field) : within(of, field));
}

function valueField(as: ShapeField["as"], names: Names): Field<unknown> | undefined {
  if (typeof as === "object") {
    const inside = shapeFields<unknown>(as.shape, (value) => value, names);
    if (as.many === "one") return group(inside);
    return as.many === "list" ? structList(elementsOf(listIn), inside) : structMap(recordIn, inside);
  }
  switch (as) {
    case "text":
    case "duration":
    case "time":
      return text(textIn);
    case "flag":
      return bool((value) => value === true);
    case "int":
    case "nanoseconds":
      return integer(numberIn);
    case "uint32":
    case "uint64":
      return integer(numberIn, as);
    case "texts":
      return textList(textsIn);
    case "textMap":
      return map(recordIn, text(textIn));
    case "textsMap":
      return map(recordIn, textList(textsIn));
    default:
      return undefined;
  }
}

/** Undefined where there is none, or nothing in it. */
function member(value: unknown, name: string): unknown {
  return isRecord(value) && Object.hasOwn(value, name) ? (value[name] ?? undefined) : undefined;
}

function textIn(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function numberIn(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function listIn(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function textsIn(value: unknown): readonly string[] {
  return listIn(value).map(textIn);
}

function recordIn(value: unknown): Readonly<Record<string, unknown>> {
  return isRecord(value) ? value : {};
}
