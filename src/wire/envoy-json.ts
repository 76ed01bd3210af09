import { ENVOY_TYPES } from "./gen/envoy-types.js";
import { BinaryWriter } from "./schema.js";

// Envoy's messages as operators write them: the JSON of protobuf, with every field that Envoy knows, made into bytes.

/** A message that is encoded already, in the place of one in JSON. */
export class EncodedMessage {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

export interface EnvoyFields {
  readonly [name: string]: EnvoyValue;
}

export type EnvoyValue = null | boolean | number | string | EncodedMessage | readonly EnvoyValue[] | EnvoyFields;

/** A JSON that is no message of Envoy's: says where, and why. */
export class EnvoyJsonError extends Error {
  override readonly name = "EnvoyJsonError";
}

interface Field {
  readonly name: string;
  readonly number: number;
  /** A scalar, or a line of the table. */
  readonly type: string;
  readonly isList: boolean;
  /** Of the keys, where it is a map. */
  readonly keyType: string | undefined;
  readonly oneof: string | undefined;
}

type Declared =
  | { readonly kind: "enum"; readonly name: string; readonly values: ReadonlyMap<string, number> }
  | { readonly kind: "message"; readonly name: string; readonly fields: ReadonlyMap<string, Field> };

const MAX_DEPTH = 100;
const DURATION = /^(-?)(\d{1,12})(?:\.(\d{1,9}))?s$/;
const TYPE_PREFIX = "type.googleapis.com/";
const WRAPPERS: ReadonlySet<string> = new Set(
  ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"].map(
    (type) => `google.protobuf.${type}Value`,
  ),
);
/** Those whose JSON is no object of their fields. */
const SPECIAL: ReadonlySet<string> = new Set([
  ...WRAPPERS,
  ...["Any", "Duration", "Timestamp", "Struct", "Value", "ListValue"].map((type) => `google.protobuf.${type}`),
]);

/** Encodes messages. The table of their types is read when the first one is. */
export class EnvoyJson {
  readonly #declared = new Map<string, Declared>();
  #lines: readonly string[] | undefined;

  /** A message that says its own type, as `@type`. @throws {EnvoyJsonError} */
  readAny(value: EnvoyValue, expected: string): Uint8Array {
    const fields = objectOf(value, "");
    const name = typeName(fields["@type"], "");
    if (name !== expected) throw new EnvoyJsonError(`@type is ${name}, and not ${expected}`);
    return this.encode(name, withoutType(fields));
  }

  /** @throws {EnvoyJsonError} */
  encode(name: string, value: EnvoyValue): Uint8Array {
    const writer = new BinaryWriter();
    this.#message(writer, this.#named(name, ""), value, "", 0);
    return writer.finish();
  }

  #table(): readonly string[] {
    this.#lines ??= ENVOY_TYPES.split("\n");
    return this.#lines;
  }

  #named(name: string, path: string): Declared {
    const lines = this.#table();
    const at = lines.findIndex((line) => line.startsWith(`${name} `) || line.startsWith(`${name}=`));
    if (at < 0) throw new EnvoyJsonError(`${where(path)}there is no type ${JSON.stringify(name)}`);
    return this.#at(String(at));
  }

  #at(type: string): Declared {
    const known = this.#declared.get(type);
    if (known !== undefined) return known;
    const line = this.#table()[Number(type)] ?? "";
    const [, name = "", kind, rest = ""] = /^([^ =]+)([ =])(.*)$/.exec(line) ?? [];
    const parts = rest === "" ? [] : rest.split(",").map((part) => part.split(":"));
    const declared: Declared =
      kind === "="
        ? { kind: "enum", name, values: new Map(parts.map(([value = "", number]) => [value, Number(number)])) }
        : { kind: "message", name, fields: fieldsOf(parts) };
    this.#declared.set(type, declared);
    return declared;
  }

  #message(writer: BinaryWriter, declared: Declared, value: EnvoyValue, path: string, depth: number): void {
    if (depth > MAX_DEPTH) throw new EnvoyJsonError(`${where(path)}it is nested too deeply`);
    if (value instanceof EncodedMessage) {
      writer.raw(value.bytes);
      return;
    }
    if (declared.kind === "enum") throw new EnvoyJsonError(`${where(path)}a message is expected`);
    if (SPECIAL.has(declared.name)) this.#special(writer, declared, value, path, depth);
    else this.#fields(writer, declared, objectOf(value, path), path, depth);
  }

  #fields(
    writer: BinaryWriter,
    { name: type, fields }: Extract<Declared, { kind: "message" }>,
    value: EnvoyFields,
    path: string,
    depth: number,
  ): void {
    const seen = new Map<string, string>();
    for (const [key, member] of Object.entries(value)) {
      const field = fields.get(key);
      const place = path === "" ? key : `${path}.${key}`;
      if (field === undefined) throw new EnvoyJsonError(`${where(place)}${type} has no such field`);
      // A null stands for a field that is not there.
      if (member === null && this.#nameOf(field.type) !== "google.protobuf.Value") continue;
      const taken = field.oneof === undefined ? field.name : `oneof ${field.oneof}`;
      const other = seen.get(taken);
      if (other !== undefined) throw new EnvoyJsonError(`${where(place)}${JSON.stringify(other)} is given as well`);
      seen.set(taken, key);
      this.#field(writer, field, member, place, depth);
    }
  }

  #nameOf(type: string): string {
    return isScalar(type) ? type : this.#at(type).name;
  }

  #field(writer: BinaryWriter, field: Field, value: EnvoyValue, path: string, depth: number): void {
    if (field.keyType !== undefined) {
      for (const [key, member] of Object.entries(objectOf(value, path))) {
        writer.tag(field.number, LENGTH_DELIMITED).fork();
        this.#value(writer, 1, field.keyType, field.keyType === "bool" ? key === "true" : key, path, depth);
        this.#value(writer, 2, field.type, member, `${path}[${JSON.stringify(key)}]`, depth);
        writer.join();
      }
      return;
    }
    if (!field.isList) {
      this.#value(writer, field.number, field.type, value, path, depth);
      return;
    }
    if (!isListValue(value)) throw new EnvoyJsonError(`${where(path)}a list is expected`);
    for (const [at, member] of value.entries()) {
      this.#value(writer, field.number, field.type, member, `${path}[${at}]`, depth);
    }
  }

  #value(writer: BinaryWriter, number: number, type: string, value: EnvoyValue, path: string, depth: number): void {
    if (isScalar(type)) {
      writeScalar(writer, number, type, value, path);
      return;
    }
    const declared = this.#at(type);
    if (declared.kind === "message") {
      writer.tag(number, LENGTH_DELIMITED).fork();
      this.#message(writer, declared, value, path, depth + 1);
      writer.join();
      return;
    }
    const chosen =
      typeof value === "number" ? value : typeof value === "string" ? declared.values.get(value) : undefined;
    const isNull = value === null && declared.name === "google.protobuf.NullValue";
    if (!isNull && (chosen === undefined || !Number.isInteger(chosen))) {
      throw new EnvoyJsonError(`${where(path)}${shown(value)} is no value of ${declared.name}`);
    }
    writer.tag(number, VARINT).int32(chosen ?? 0);
  }

  #special(
    writer: BinaryWriter,
    declared: Extract<Declared, { kind: "message" }>,
    value: EnvoyValue,
    path: string,
    depth: number,
  ): void {
    const { name, fields } = declared;
    if (WRAPPERS.has(name)) {
      const field = fields.get("value");
      if (field !== undefined) this.#field(writer, field, value, path, depth);
      return;
    }
    const write = (members: EnvoyFields): void => this.#fields(writer, declared, members, path, depth);
    switch (name) {
      case "google.protobuf.Any": {
        const inner = objectOf(value, path);
        const type = typeName(inner["@type"], path);
        writer.tag(1, LENGTH_DELIMITED).string(`${TYPE_PREFIX}${type}`);
        const message = SPECIAL.has(type) ? (inner["value"] ?? null) : withoutType(inner);
        writer.tag(2, LENGTH_DELIMITED).fork();
        this.#message(writer, this.#named(type, path), message, path, depth + 1);
        writer.join();
        return;
      }
      case "google.protobuf.Duration": {
        const [match, sign = "", seconds = "", fraction = ""] =
          DURATION.exec(typeof value === "string" ? value : "") ?? [];
        if (match === undefined)
          throw new EnvoyJsonError(`${where(path)}${shown(value)} is no duration such as "1.5s"`);
        const nanos = fraction.padEnd(9, "0");
        write({ seconds: `${sign}${seconds}`, nanos: Number(`${sign}${nanos}`) });
        return;
      }
      case "google.protobuf.Timestamp": {
        const time = typeof value === "string" ? Date.parse(value) : Number.NaN;
        if (Number.isNaN(time)) throw new EnvoyJsonError(`${where(path)}${shown(value)} is no time`);
        const seconds = Math.floor(time / 1_000);
        write({ seconds: String(seconds), nanos: (time - seconds * 1_000) * 1e6 });
        return;
      }
      case "google.protobuf.Struct":
        write({ fields: objectOf(value, path) });
        return;
      case "google.protobuf.ListValue":
        write({ values: value });
        return;
      default:
        write(freeValue(value));
    }
  }
}

function freeValue(value: EnvoyValue): EnvoyFields {
  if (value === null) return { nullValue: 0 };
  if (typeof value === "boolean") return { boolValue: value };
  if (typeof value === "number") return { numberValue: value };
  if (typeof value === "string") return { stringValue: value };
  return isListValue(value) ? { listValue: value } : { structValue: value };
}

const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

function writeScalar(writer: BinaryWriter, number: number, type: string, value: EnvoyValue, path: string): void {
  const refuse = (): EnvoyJsonError => new EnvoyJsonError(`${where(path)}${shown(value)} is no ${type}`);
  switch (type) {
    case "string":
      if (typeof value !== "string" || !value.isWellFormed()) throw refuse();
      writer.tag(number, LENGTH_DELIMITED).string(value);
      return;
    case "bytes":
      if (typeof value !== "string" || !/^[A-Za-z0-9+/_-]*={0,2}$/.test(value)) throw refuse();
      writer.tag(number, LENGTH_DELIMITED).bytes(Buffer.from(value, "base64"));
      return;
    case "bool":
      if (typeof value !== "boolean") throw refuse();
      writer.tag(number, VARINT).bool(value);
      return;
    case "double":
    case "float": {
      const given = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
      if (typeof given !== "number" || (Number.isNaN(given) && value !== "NaN")) throw refuse();
      if (type === "double") writer.tag(number, FIXED64).double(given);
      else writer.tag(number, FIXED32).float(given);
      return;
    }
    default: {
      const whole = wholeNumber(value);
      const [least, most] = RANGES[type] ?? [0n, -1n];
      if (whole === undefined || whole < least || whole > most) throw refuse();
      if (type === "int32" || type === "uint32") {
        writer.tag(number, VARINT)[type](Number(whole));
      } else if (type === "int64" || type === "uint64") writer.tag(number, VARINT)[type](whole);
      else throw refuse();
    }
  }
}

const RANGES: Readonly<Record<string, readonly [bigint, bigint]>> = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
};

function wholeNumber(value: EnvoyValue): bigint | undefined {
  if (typeof value === "number") return Number.isSafeInteger(value) ? BigInt(value) : undefined;
  return typeof value === "string" && /^-?\d{1,20}$/.test(value) ? BigInt(value) : undefined;
}

function isScalar(type: string): boolean {
  return /^[a-z]/.test(type);
}

/** By both of their names: that of the files, and that of JSON. */
function fieldsOf(parts: readonly (readonly string[])[]): ReadonlyMap<string, Field> {
  const fields = new Map<string, Field>();
  for (const [name = "", number, kind = "", oneof] of parts) {
    const [, star, keyType, type = ""] = /^(\*?)(?:\{(\w+) )?(\w+)$/.exec(kind) ?? [];
    const field = { name, number: Number(number), type, isList: star === "*", keyType, oneof };
    fields.set(name, field);
    fields.set(
      name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()),
      field,
    );
  }
  return fields;
}

function isListValue(value: EnvoyValue): value is readonly EnvoyValue[] {
  return Array.isArray(value);
}

function objectOf(value: EnvoyValue, path: string): EnvoyFields {
  if (typeof value !== "object" || value === null || isListValue(value) || value instanceof EncodedMessage) {
    throw new EnvoyJsonError(`${where(path)}an object is expected`);
  }
  return value;
}

function typeName(value: EnvoyValue | undefined, path: string): string {
  if (typeof value !== "string" || !value.includes("/")) throw new EnvoyJsonError(`${where(path)}@type says no type`);
  return value.slice(value.lastIndexOf("/") + 1);
}

function withoutType(fields: EnvoyFields): EnvoyFields {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => name !== "@type"));
}

function where(path: string): string {
  return path === "" ? "" : `${path}: `;
}

/** Not whole: it may hold keys. */
function shown(value: EnvoyValue): string {
  return typeof value === "number" || typeof value === "boolean" || value === null
    ? String(value)
    : `a ${typeof value}`;
}
