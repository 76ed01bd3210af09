import type { JsonObject, JsonValue } from "../model/instance.js";
import { isNothing } from "../model/shape-reader.js";
import type { Field, Shape } from "../model/shapes.js";
import { durationProblem, nanosecondsText, parseNanoseconds } from "../syntax/go-duration.js";
import {
  GoJsonError,
  GoNumber,
  type GoType,
  goAny,
  goBool,
  goDecoded,
  goInt,
  goList,
  goMap,
  goMapped,
  goOptional,
  goString,
  goStruct,
  goUint,
  int64From,
  plainJson,
} from "../syntax/go-json.js";

// Records by their shapes as Go's own decoder takes them: keys in any case, values of exactly their type.

export interface RecordOptions {
  /** Whether Consul has a decoder of its own for it, which tells of mistakes inside at once. Default false. */
  readonly decoded?: boolean;
  /** Second spellings of keys, with their first ones: a second one counts where the first is missing. */
  readonly aliases?: Readonly<Record<string, string>>;
  /** Whether a key that is no field is an error. Default true. */
  readonly strict?: boolean;
  /** Of fields that are not read as the shape says. */
  readonly types?: Readonly<Record<string, GoType<JsonValue | undefined>>>;
  /** Of records inside, by the names of their fields. */
  readonly inside?: Readonly<Record<string, RecordOptions>>;
}

/** Of a text or a number; other values are passed over, as in Consul. @throws {GoJsonError} */
function nanosecondsOf(value: JsonValue | undefined): bigint {
  if (typeof value === "number") return int64From(value);
  if (typeof value !== "string") return 0n;
  const nanoseconds = parseNanoseconds(value);
  if (nanoseconds === undefined) throw new GoJsonError(durationProblem(value));
  return nanoseconds;
}

/** Whatever it reads, as one of the values that a record may hold. */
export function held<Value extends JsonValue | undefined>(type: GoType<Value>): GoType<JsonValue | undefined> {
  return goMapped(type, (value): JsonValue | undefined => value);
}

/** As it was written: it is read when everything else was. */
const writtenDuration: GoType<JsonValue | undefined> = {
  ...held(
    goMapped(goAny, (value) =>
      value instanceof GoNumber ? Number(value.text) : typeof value === "string" ? value : 0,
    ),
  ),
  name: "time.Duration",
  form: "duration",
};

function fieldType(name: string, { as, pointer }: Field, options: RecordOptions): GoType<JsonValue | undefined> {
  if (typeof as === "object") {
    const record = goRecord(`structs.${name}`, as.shape, options);
    if (as.many === "list") return held(goOptional(goList(record)));
    if (as.many === "map") return held(goOptional(goMap(record)));
    return pointer === true ? held(goOptional(record)) : held(record);
  }
  switch (as) {
    case "flag":
      return held(goBool);
    case "number":
    case "int":
      return held(goInt);
    case "uint32":
    case "uint64":
      return held(goUint);
    case "nanoseconds":
    case "duration":
      return writtenDuration;
    case "texts":
      return held(goOptional(goList(goString)));
    case "textMap":
      return held(goOptional(goMap(goString)));
    case "textsMap":
      return held(goOptional(goMap(goList(goString))));
    case "json":
      return held(goOptional(goMap(goMapped(goAny, plainJson))));
    default:
      return held(goString);
  }
}

/** A record in Consul's form: under Consul's names, without what means the same as nothing. */
export function goRecord(name: string, shape: Shape, options: RecordOptions = {}): GoType<JsonObject> {
  const { aliases = {}, inside = {}, types: given = {}, strict = true, decoded = false } = options;
  const types: Record<string, GoType<JsonValue | undefined>> = {};
  for (const [key, field] of Object.entries(shape)) types[key] = given[key] ?? fieldType(key, field, inside[key] ?? {});
  const struct = goStruct<Record<string, JsonValue | undefined>>(name, types, { strict, aliases });
  const finish = (values: Readonly<Record<string, JsonValue | undefined>>): JsonObject => {
    const record: Record<string, JsonValue> = {};
    for (const [key, field] of Object.entries(shape)) {
      const said = finished(values[key], field);
      if (said !== undefined && !isNothing(said, field)) record[key] = said;
    }
    return record;
  };
  return decoded ? goDecoded(struct, finish) : goMapped(struct, finish);
}

/** @throws {GoJsonError} it is not a duration. */
function finished(value: JsonValue | undefined, { as }: Field): JsonValue | undefined {
  if (as === "ignored") return undefined;
  if (as !== "nanoseconds" && as !== "duration") return value;
  const nanoseconds = nanosecondsOf(value);
  return as === "duration" ? nanosecondsText(nanoseconds) : Number(nanoseconds);
}
