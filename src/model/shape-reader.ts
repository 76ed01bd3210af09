import { Buffer } from "node:buffer";
import { durationProblem, nanosecondsText, parseNanoseconds } from "../syntax/go-duration.js";
import { goQuote } from "../syntax/go-escape.js";
import {
  type GoJson,
  GoNumber,
  GoObject,
  int64From,
  isGoList,
  isGoObject,
  type PlainJson,
  plainJson,
} from "../syntax/go-json.js";
import { invalidEntry } from "./entry-reader.js";
import type { JsonObject, JsonValue } from "./instance.js";
import { type Field, type Nested, ownName, type Scalar, type Shape, underscored } from "./shapes.js";

type Given = Exclude<GoJson, null>;
/** Whose names the fields get: the library's, or Consul's where it does not interpret them. */
type Names = "own" | "consul";

export interface ReadEntry {
  readonly fields: Readonly<Record<string, PlainJson>>;
  /** Why values are not what their fields take, in Consul's words. */
  readonly mismatches: readonly string[];
  /** Complaints about keys that are no fields, in Consul's words. */
  readonly unknown: readonly string[];
}

/**
 * Reads a record with the leniency of Consul's decoder of config entries: keys in any case or with underscores, one object
 * where a list is expected and the reverse, numbers, truth values and texts for each other. A value that is not interpreted has
 * Consul's form then, and no zero value that means the same as nothing.
 */
export function readShape(given: GoObject, shape: Shape): ReadEntry {
  const reader = new Reader(false, new ShapeIndexes());
  const fields = reader.object(given, shape, "", "own");
  return { fields, mismatches: [...reader.mismatches].sort(), unknown: reader.unknown };
}

/** Keeps records of one shape, of which a registration may have thousands: what its keys mean is worked out once. */
export class KeptShape {
  readonly #shape: Shape;
  readonly #indexes = new ShapeIndexes();

  constructor(shape: Shape) {
    this.#shape = shape;
  }

  /**
   * A value that a caller of the library gave to be kept, in Consul's form. Keys are those of Consul alone.
   * @throws {PeeringError} `invalid-entry`: it holds something that Consul's record does not.
   */
  kept(given: JsonObject, path: string): JsonObject {
    const reader = new Reader(true, this.#indexes);
    const object = goJson(given);
    const fields = isGoObject(object) ? reader.object(object, this.#shape, path, "consul") : {};
    const [problem] = [...reader.unknown, ...reader.mismatches];
    if (problem !== undefined) throw invalidEntry(problem);
    return fields;
  }

  /** The fields that a record of the library's form keeps under Consul's names, given under the library's. */
  consulForm(value: JsonObject): JsonObject {
    return this.#renamed(value, this.#shape, (key, { consulNames }) => consulNames.get(key) ?? key);
  }

  /** A record in Consul's form under the library's names. */
  ownForm(value: JsonObject): JsonObject {
    return this.#renamed(value, this.#shape, (key, { ownNames }) => ownNames.get(key) ?? ownName(key));
  }

  #renamed(value: JsonObject, shape: Shape, rename: (key: string, index: ShapeIndex) => string): JsonObject {
    const index = this.#indexes.of(shape);
    const pairs = Object.entries(value).map(([key, item]): [string, JsonValue] => {
      const name = rename(key, index);
      const as = (shape[key] ?? shape[name])?.as;
      const one = (each: JsonValue): JsonValue =>
        typeof as === "object" && typeof each === "object" && each !== null && !isList(each)
          ? this.#renamed(each, as.shape, rename)
          : each;
      return [name, isList(item) ? item.map(one) : one(item)];
    });
    return Object.fromEntries(pairs);
  }
}

/** As {@link KeptShape.kept}, of a single record. */
export function keptExtra(given: JsonObject, shape: Shape, path: string): JsonObject {
  return new KeptShape(shape).kept(given, path);
}

function goJson(value: JsonValue): GoJson {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number") return new GoNumber(String(value));
  if (isList(value)) return value.map(goJson);
  return new GoObject(Object.entries(value).map(([key, item]) => ({ key, value: goJson(item), offset: 0 })));
}

function isList(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/** Of equal keys the last, as in a Go map. */
export function membersOf({ members }: GoObject): ReadonlyMap<string, GoJson> {
  return new Map(members.map(({ key, value }) => [key, value]));
}

function isZero(value: JsonValue): boolean {
  return value === "" || value === 0 || value === false || value === null;
}

/** A member that means a field. The smaller the rank, the better its spelling. */
interface Taken {
  readonly rank: number;
  readonly value: GoJson;
  readonly key: string;
}

/** A number as Go writes it without an exponent. */
function decimalText(value: number): string {
  const text = Object.is(value, -0) ? "-0" : String(value);
  const [, sign = "", whole = "", part = "", exponent = ""] = /^(-?)(\d+)(?:\.(\d*))?e([+-]\d+)$/.exec(text) ?? [];
  if (exponent === "") return text;
  const places = Number(exponent);
  const digits = whole + part;
  return places < 0
    ? `${sign}0.${"0".repeat(-places - 1)}${digits}`
    : `${sign}${digits.padEnd(whole.length + places, "0")}`;
}

class Reader {
  readonly unknown: string[] = [];
  readonly mismatches: string[] = [];
  /** Whether it has Consul's form but for its zeros: bytes in base64, and lists where lists are meant. */
  readonly #encoded: boolean;
  readonly #indexes: ShapeIndexes;

  constructor(encoded: boolean, indexes: ShapeIndexes) {
    this.#encoded = encoded;
    this.#indexes = indexes;
  }

  object(given: GoObject, shape: Shape, path: string, names: Names): Record<string, PlainJson> {
    const index = this.#indexes.of(shape);
    const taken = new Map<string, Taken>();
    const unknown: string[] = [];
    const passOver = (key: string): unknown =>
      unknown.push(`invalid config key "${at(path, key)}"${hint(at(path, key))}`);
    for (const [key, value] of membersOf(given)) {
      const found = index.find(key);
      if (found === undefined) {
        passOver(key);
        continue;
      }
      const { name, rank } = found;
      // Another spelling is put in the place of the name in small letters, unless that is there.
      const one: Taken = { rank, value, key: rank === SPELLED ? name.toLowerCase() : key };
      const before = taken.get(name);
      const [winner, loser] = before === undefined || rank < before.rank ? [one, before] : [before, one];
      taken.set(name, winner);
      if (loser !== undefined && loser.key !== winner.key) passOver(loser.key);
    }
    const fields: Record<string, PlainJson> = {};
    const extra: Record<string, PlainJson> = {};
    for (const { name, own, field } of index.fields) {
      const value = unpacked(taken.get(name)?.value ?? null, field.as);
      if (value === null || field.as === "ignored") continue;
      const inner: Names = field.kept === undefined ? names : "consul";
      const read = this.#field(value, field, at(path, name), inner);
      if (read === undefined || field.written || (inner === "consul" && isNothing(read, field))) continue;
      if (names === "consul") fields[name] = read;
      else if (field.kept === "extra") extra[name] = read;
      else fields[own] = read;
    }
    // Those of inner records are told first.
    this.unknown.push(...unknown);
    return Object.keys(extra).length > 0 ? { ...fields, extra } : fields;
  }

  #field(value: Given, field: Field, path: string, names: Names): PlainJson | undefined {
    const { as } = field;
    if (typeof as === "object") return this.#nested(value, as, path, names);
    switch (as) {
      case "text":
        return this.#text(value, path, field);
      case "flag":
        return this.#flag(value, path, field);
      case "number":
        return this.#number(value, path, "float32", field);
      case "int":
      case "uint32":
      case "uint64":
        return this.#number(value, path, as, field);
      case "duration":
        return this.#duration(value, path, field);
      case "nanoseconds":
        return numberOf(this.#nanoseconds(value, path, field));
      case "time":
        return typeof value === "string" ? value : this.#mismatch(value, path, "time.Time", field);
      case "bytes":
        return this.#bytes(value, path, field);
      case "texts":
        return listed(value).map((item, index) => this.#text(item ?? "", `${path}[${index}]`, field));
      case "uint32s":
        return listed(value).map((item, index) =>
          item === null ? 0 : (this.#number(item, `${path}[${index}]`, "uint32", field) ?? 0),
        );
      case "textMap":
        return this.#map(value, path, (item, at) => this.#text(item, at, field), "");
      case "textsMap":
        return this.#map(
          value,
          path,
          (item, at) => listed(item).map((text, index) => this.#text(text ?? "", `${at}[${index}]`, field)),
          [],
        );
      case "json":
        if (isGoObject(value)) return this.#encoded ? plainJson(value) : freeForm(value);
        return this.#merged(value, path, (item) => freeForm(item));
      case "ignored":
        return undefined;
    }
  }

  #nested(value: Given, { many, shape }: Nested, path: string, names: Names): PlainJson | undefined {
    const struct = (item: GoJson, at: string): Record<string, PlainJson> | undefined => {
      const single = item === null ? null : unpacked(item, "json");
      const only = single ?? new GoObject([]);
      return isGoObject(only) ? this.object(only, shape, at, names) : this.#noMap(only, at);
    };
    if (many === "one") return struct(value, path);
    if (many === "map") return this.#map(value, path, struct, {});
    if (isGoObject(value) && value.members.length === 0) return [];
    return listed(value).flatMap((item, index) => struct(item, `${path}[${index}]`) ?? []);
  }

  #map(
    value: Given,
    path: string,
    read: (item: Given, path: string) => PlainJson | undefined,
    nothing: PlainJson,
  ): Record<string, PlainJson> | undefined {
    if (!isGoObject(value)) return this.#merged(value, path, (item, at) => this.#map(item, at, read, nothing));
    const pairs: [string, PlainJson][] = [];
    for (const [key, item] of membersOf(value)) {
      const only = unpacked(item, "text");
      const member = only === null ? nothing : read(only, `${path}[${key}]`);
      if (member !== undefined) pairs.push([key, member]);
    }
    return Object.fromEntries(pairs);
  }

  /** A list where a map is meant: its maps are put together, as far as they are sound. */
  #merged(
    value: Given,
    path: string,
    read: (item: GoObject, path: string) => Record<string, PlainJson> | undefined,
  ): Record<string, PlainJson> | undefined {
    if (this.#encoded || !isGoList(value)) return this.#noMap(value, path);
    const before = this.mismatches.length;
    const pairs: [string, PlainJson][] = [];
    for (const [index, item] of value.entries()) {
      const place = `${path}[${index}]`;
      const only = item === null ? new GoObject([]) : item;
      const part = isGoObject(only) ? read(only, place) : this.#noMap(only, place);
      if (this.mismatches.length > before) break;
      for (const pair of Object.entries(part ?? {})) pairs.push(pair);
    }
    return Object.fromEntries(pairs);
  }

  #text(given: Given, path: string, field: Field): string {
    const value = unpacked(given, "text");
    if (typeof value === "string") return value;
    if (typeof value === "boolean") return value ? "1" : "0";
    if (value instanceof GoNumber) return decimalText(Number(value.text));
    if (value !== null) this.#mismatch(value, path, field.goType ?? "string", field);
    return "";
  }

  #flag(value: Given, path: string, field: Field): boolean | undefined {
    if (typeof value === "boolean") return value;
    if (value instanceof GoNumber) return Number(value.text) !== 0;
    if (typeof value !== "string") return this.#mismatch(value, path, "bool", field);
    if (/^(?:|0|f|F|false|FALSE|False)$/.test(value)) return false;
    if (/^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
    return this.#unparsed(value, path, "bool", "Bool", "invalid syntax", field);
  }

  #number(given: Given, path: string, type: "float32" | "int" | "uint32" | "uint64", field: Field): number | undefined {
    const value = unpacked(given, "int");
    if (value instanceof GoNumber) return fitted(Number(value.text), type);
    if (typeof value === "boolean") return value ? 1 : 0;
    if (value === null || value === "") return 0;
    if (typeof value !== "string") return this.#mismatch(value, path, type, field);
    const [kind, parser, form] =
      type === "float32"
        ? (["float", "Float", /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$/] as const)
        : type === "int"
          ? (["int", "Int", /^[+-]?\d+$/] as const)
          : (["uint", "Uint", /^\d+$/] as const);
    if (!form.test(value)) return this.#unparsed(value, path, kind, parser, "invalid syntax", field);
    if (type === "int" && !isInt64(value)) {
      return this.#unparsed(value, path, kind, parser, "value out of range", field);
    }
    return fitted(Number(value), type);
  }

  #duration(value: Given, path: string, field: Field): string | undefined {
    const nanoseconds = this.#nanoseconds(value, path, field);
    return nanoseconds === undefined ? undefined : nanosecondsText(nanoseconds);
  }

  #nanoseconds(value: Given, path: string, field: Field): bigint | undefined {
    if (value instanceof GoNumber) return int64From(Number(value.text));
    if (typeof value === "boolean") return value ? 1n : 0n;
    if (typeof value !== "string") return this.#mismatch(value, path, "time.Duration", field);
    const nanoseconds = parseNanoseconds(value);
    if (nanoseconds !== undefined) return nanoseconds;
    this.mismatches.push(`error decoding '${path}': ${durationProblem(value)}`);
    return undefined;
  }

  #bytes(value: Given, path: string, field: Field): string | undefined {
    if (typeof value === "string") return this.#encoded ? value : Buffer.from(value, "utf8").toString("base64");
    const numbers = listed(value).map((item, index) =>
      item === null ? 0 : (this.#number(item, `${path}[${index}]`, "uint32", field) ?? 0),
    );
    return Buffer.from(numbers).toString("base64");
  }

  #unparsed(
    value: string,
    path: string,
    kind: string,
    parser: string,
    problem: "invalid syntax" | "value out of range",
    { secret }: Field,
  ): undefined {
    const quoted = secret ? "" : `parsing ${goQuote(value)}: `;
    this.mismatches.push(`cannot parse '${path}' as ${kind}: strconv.Parse${parser}: ${quoted}${problem}`);
    return undefined;
  }

  #mismatch(value: Given, path: string, type: string, { secret }: Field): undefined {
    const quoted = secret ? "" : `, value: '${goText(value)}'`;
    this.mismatches.push(`'${path}' expected type '${type}', got unconvertible type '${goTypeName(value)}'${quoted}`);
    return undefined;
  }

  #noMap(value: Given, path: string): undefined {
    this.mismatches.push(`'${path}' expected a map, got '${goKind(value)}'`);
    return undefined;
  }
}

/** Whether it means the same as a field that is not there. */
export function isNothing(value: JsonValue, { as, pointer, always }: Field): boolean {
  if (pointer === true) return false;
  if (typeof as === "object" && as.many === "one") return isEmpty(value);
  // Where nothing and an empty list are written in two ways, they are two values.
  return isZero(value) || (always === undefined && isEmpty(value));
}

function isEmpty(value: JsonValue): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}

/** The only item of a list where no list is wanted. */
function unpacked(value: GoJson, as: Scalar | Nested): GoJson {
  const wantsList = typeof as === "object" ? as.many === "list" : ["texts", "uint32s", "bytes"].includes(as);
  return !wantsList && isGoList(value) && value.length === 1 ? (value[0] ?? null) : value;
}

function listed(value: Given): readonly GoJson[] {
  return isGoList(value) ? value : [value];
}

/** As Consul decodes what it gives no type: a list of one item under a key is that item, deeper ones only within such. */
function freeForm(value: GoObject): Record<string, PlainJson> {
  const pairs = [...membersOf(value)].map(([key, item]): [string, PlainJson] => {
    const only = isGoList(item) && item.length === 1 ? item[0] : undefined;
    return [key, only === undefined ? plainJson(item) : unlisted(plainJson(only))];
  });
  return Object.fromEntries(pairs);
}

function unlisted(value: PlainJson): PlainJson {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(unlisted);
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      const [only] = Array.isArray(item) && item.length === 1 ? item : [];
      return [key, unlisted(only ?? item)];
    }),
  );
}

function numberOf(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value);
}

/** Whether a whole number, written in digits, fits into 64 bits. */
function isInt64(text: string): boolean {
  const [, sign = "", digits = ""] = /^([+-]?)0*([1-9]\d*)?$/.exec(text) ?? [];
  // Reading more digits takes its time.
  if (digits.length > 19) return false;
  const value = sign === "-" ? -BigInt(digits) : BigInt(digits);
  return BigInt.asIntN(64, value) === value;
}

function fitted(value: number, type: "float32" | "int" | "uint32" | "uint64"): number {
  if (type === "float32") return value;
  const whole = Math.trunc(value);
  // Go wraps around, too.
  if (type === "uint32") return whole >>> 0;
  if (type === "int") return Number(int64From(value));
  return (whole < 0 ? Number(BigInt.asUintN(64, BigInt(whole))) : whole) + 0;
}

function at(path: string, key: string): string {
  return path === "" ? key : `${path}.${key}`;
}

/** The addition of Consul's Community Edition about keys of another edition. */
function hint(path: string): string {
  const folded = path.toLowerCase();
  if (folded.endsWith("namespace")) return ", namespaces are a consul enterprise feature";
  return folded.includes("jwt") ? ", api-gateway jwt validation is a consul enterprise feature" : "";
}

export function goKind(value: Given): string {
  if (typeof value === "boolean") return "bool";
  if (typeof value === "string") return "string";
  return value instanceof GoNumber ? "float64" : isGoList(value) ? "slice" : "map";
}

function goTypeName(value: Given): string {
  if (isGoList(value)) return "[]interface {}";
  return isGoObject(value) ? "map[string]interface {}" : goKind(value);
}

/** A number as Go prints a value that it knows nothing of: with an exponent if it is small, or of more than six digits. */
function floatText(value: number): string {
  if (Object.is(value, -0)) return "-0";
  const text = value.toExponential();
  const exponent = Number(text.slice(text.indexOf("e") + 1));
  return exponent >= -4 && exponent < 6 ? String(value) : text.replace(/e([+-])(\d)$/, "e$10$2");
}

/** As Go prints a value that it knows nothing of. */
function goText(value: GoJson): string {
  if (value === null) return "<nil>";
  if (value instanceof GoNumber) return floatText(Number(value.text));
  if (isGoList(value)) return `[${value.map(goText).join(" ")}]`;
  if (!isGoObject(value)) return String(value);
  const members = [...membersOf(value)].sort(([left], [right]) => (left < right ? -1 : 1));
  return `map[${members.map(([key, item]) => `${key}:${goText(item)}`).join(" ")}]`;
}

/** The rank of a spelling with underscores. */
const SPELLED = 2;

/** The meanings of the keys of records, also of nested ones: worked out once for all records that are read together. */
class ShapeIndexes {
  readonly #known = new Map<Shape, ShapeIndex>();

  of(shape: Shape): ShapeIndex {
    const known = this.#known.get(shape) ?? new ShapeIndex(shape);
    this.#known.set(shape, known);
    return known;
  }
}

/** The meanings of the keys of a record. */
class ShapeIndex {
  readonly fields: readonly { readonly name: string; readonly own: string; readonly field: Field }[];
  /** The library's names by those of Consul, and the reverse. */
  readonly ownNames: ReadonlyMap<string, string>;
  readonly consulNames: ReadonlyMap<string, string>;
  readonly #folded = new Map<string, string>();
  /** With underscores, or as it is called in other places. */
  readonly #spelled = new Map<string, string>();
  readonly #shape: Shape;

  constructor(shape: Shape) {
    this.#shape = shape;
    this.fields = Object.entries(shape).map(([name, field]) => ({ name, own: ownName(name), field }));
    this.ownNames = new Map(this.fields.map(({ name, own }) => [name, own]));
    this.consulNames = new Map(this.fields.map(({ name, own }) => [own, name]));
    for (const { name, field } of this.fields) {
      this.#folded.set(name.toLowerCase(), name);
      for (const spelling of field.aliases ?? [underscored(name)]) {
        if (!this.#spelled.has(spelling)) this.#spelled.set(spelling, name);
      }
    }
  }

  /** The field that a key means; the smaller the rank, the better the spelling. */
  find(key: string): { readonly name: string; readonly rank: number } | undefined {
    if (Object.hasOwn(this.#shape, key)) return { name: key, rank: 0 };
    const folded = key.toLowerCase();
    const same = this.#folded.get(folded);
    if (same !== undefined) return { name: same, rank: 1 };
    const spelled = this.#spelled.get(folded);
    return spelled === undefined ? undefined : { name: spelled, rank: SPELLED };
  }
}
