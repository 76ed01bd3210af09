import type { JsonObject, JsonValue } from "../catalog/instance.js";
import { isNothing } from "../catalog/shape-reader.js";
import type { Field, Shape } from "../catalog/shapes.js";
import { nanosecondsText, parseNanoseconds } from "../syntax/go-duration.js";
import {
  GoJsonError,
  GoNumber,
  type GoType,
  goAliased,
  goAny,
  goBool,
  goInt,
  goList,
  goMap,
  goOptional,
  goString,
  goStruct,
  int64From,
  plainJson,
} from "../syntax/go-json.js";

// Records by their shapes as Go's own decoder takes them: keys in any case, values of exactly their type.

export interface RecordOptions {
  /** Second spellings of keys, with what they stand for: such a one counts where the first says nothing. */
  readonly aliases?: Readonly<Record<string, string>>;
  /** Whether a key that is no field is an error. Default true. */
  readonly strict?: boolean;
  /** Of records inside, by the names of their fields. */
  readonly inside?: Readonly<Record<string, RecordOptions>>;
}

/** Nanoseconds from a text or a number; other values are passed over, as in Consul. */
const goNanoseconds: GoType<bigint> = {
  name: "time.Duration",
  form: "duration",
  zero: () => 0n,
  read: (value) => {
    if (value instanceof GoNumber) return int64From(Number(value.text));
    if (typeof value !== "string") return 0n;
    const nanoseconds = parseNanoseconds(value);
    if (nanoseconds === undefined) throw new GoJsonError(`time: invalid duration ${JSON.stringify(value)}`);
    return nanoseconds;
  },
};

function mapped<From, To>(type: GoType<From>, change: (from: From) => To): GoType<To> {
  return {
    name: type.name,
    form: type.form,
    zero: () => change(type.zero()),
    read: (value, path) => change(type.read(value, path)),
  };
}

/** Whatever it reads, as one of the values that a record may hold. */
function held<Value extends JsonValue | undefined>(type: GoType<Value>): GoType<JsonValue | undefined> {
  return mapped(type, (value): JsonValue | undefined => value);
}

function fieldType(name: string, { as, pointer }: Field, options: RecordOptions): GoType<JsonValue | undefined> {
  if (typeof as === "object") {
    const record = goRecord(`structs.${name}`, as.shape, options);
    if (as.many === "list") return held(goList(record));
    if (as.many === "map") return held(goMap(record));
    return pointer === true ? held(goOptional(record)) : held(record);
  }
  switch (as) {
    case "flag":
      return held(goBool);
    case "number":
    case "int":
    case "uint32":
    case "uint64":
      return held(goInt);
    case "nanoseconds":
      return held(mapped(goNanoseconds, Number));
    case "duration":
      return held(mapped(goNanoseconds, nanosecondsText));
    case "texts":
      return held(goList(goString));
    case "textMap":
      return held(goMap(goString));
    case "textsMap":
      return held(goMap(goList(goString)));
    case "json":
      return held(goMap(mapped(goAny, plainJson)));
    default:
      return held(goString);
  }
}

/** A record in Consul's form: under Consul's names, without what means the same as nothing. */
export function goRecord(name: string, shape: Shape, options: RecordOptions = {}): GoType<JsonObject> {
  const { aliases = {}, inside = {}, strict = true } = options;
  const types: Record<string, GoType<JsonValue | undefined>> = {};
  for (const [key, field] of Object.entries(shape)) types[key] = fieldType(key, field, inside[key] ?? {});
  const read = goAliased(goStruct<Record<string, JsonValue | undefined>>(name, types, { strict }), types, aliases);
  return mapped(read, (values) => {
    const record: Record<string, JsonValue> = {};
    for (const [key, field] of Object.entries(shape)) {
      const said = values[key];
      if (said !== undefined && !isNothing(said, field)) record[key] = said;
    }
    return record;
  });
}
