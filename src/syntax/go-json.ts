import { Buffer } from "node:buffer";
import { sameValue } from "../base/same-value.js";
import { doAll, StepMeter, type Steps } from "../base/steps.js";
import { goQuote } from "./go-escape.js";

/** A value as parsed: numbers keep their text. */
export type GoJson = null | boolean | string | GoNumber | readonly GoJson[] | GoObject;

/** An object as it was written: members in the order of the text, those of equal keys included. */
export class GoObject {
  readonly members: readonly GoMember[];
  constructor(members: readonly GoMember[]) {
    this.members = members;
  }
}

export interface GoMember {
  readonly key: string;
  readonly value: GoJson;
  /** Where the key begins, in bytes. */
  readonly offset: number;
}

/** The whole number that Go makes of a float: the least one where it does not fit (on amd64). */
export function int64From(value: number): bigint {
  const whole = Math.trunc(value);
  return whole >= -(2 ** 63) && whole < 2 ** 63 ? BigInt(whole) : -(2n ** 63n);
}

/** A number with its text: the reader decides whether it is an integer, and of which size. */
export class GoNumber {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/**
 * The text is what Go's `encoding/json` says. Unlike those of `JSON.parse` these texts quote one character at most, or a
 * number, and so give no secret away.
 */
export class GoJsonError extends Error {
  override readonly name = "GoJsonError";
  /** Where the text breaks, in bytes; undefined when it is valid JSON of the wrong type. */
  readonly offset: number | undefined;
  constructor(text: string, offset?: number) {
    super(text);
    this.offset = offset;
  }
}

/** Lists and objects inside one another. Go's is 10 000. Ours is beyond any request, and far from the end of the stack. */
const MAX_DEPTH = 500;

/**
 * The first JSON value of a stream, as Go's decoder reads it, in steps: text after it is not looked at.
 * @throws {GoJsonError} `EOF` for nothing but space, `unexpected EOF` for half a value, else where it breaks.
 */
export function* firstValueSteps(bytes: Uint8Array): Steps<GoJson> {
  const scanner = new Scanner(bytes, "unexpected EOF");
  if (scanner.atEnd()) throw new GoJsonError("EOF", bytes.length);
  return yield* scanner.value();
}

/** As {@link firstValueSteps}, at once. */
export function readFirstValue(bytes: Uint8Array): GoJson {
  return doAll(firstValueSteps(bytes));
}

/**
 * Exactly one JSON value, as Go's `Unmarshal` takes it.
 * @throws {GoJsonError} `unexpected end of JSON input` for half a value or none, else where it breaks.
 */
export function readWholeValue(bytes: Uint8Array): GoJson {
  return doAll(wholeValueSteps(bytes));
}

/** As {@link readWholeValue}, in steps. */
export function* wholeValueSteps(bytes: Uint8Array): Steps<GoJson> {
  const scanner = new Scanner(bytes, "unexpected end of JSON input");
  const value = yield* scanner.value();
  if (!scanner.atEnd()) throw scanner.invalid("after top-level value");
  return value;
}

/** Characters that may follow a backslash, besides `u`. */
const ESCAPES = '"\\/bfnrt';
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const SPACE = 0x20;
const COMMA = 0x2c;
const OPENING_BRACKET = 0x5b;
const OPENING_BRACE = 0x7b;

/** The most values that some JSON can have, without making any of them: in memory they take many times their text. */
export function valuesAtMost(bytes: Uint8Array): number {
  let count = 1;
  let inString = false;
  for (let position = 0; position < bytes.length; position++) {
    const byte = bytes[position];
    if (byte === QUOTE) inString = !inString;
    else if (inString) {
      if (byte === BACKSLASH) position++;
    } else if (byte === COMMA || byte === OPENING_BRACKET || byte === OPENING_BRACE) count++;
  }
  return count;
}

/** The object whose members are being read. */
interface OpenObject {
  readonly members: GoMember[];
  readonly elements: undefined;
  /** Of the member whose value comes next. */
  key: string;
  offset: number;
}

/** The list whose elements are being read. */
interface OpenList {
  readonly members: undefined;
  readonly elements: GoJson[];
}

type Open = OpenObject | OpenList;

/** Weight of a value of JSON in a step: it takes as long to find as so many fields to read. */
const VALUE_FIELDS = 4;
/** Characters of a string that take as long as one field. */
const FIELD_CHARACTERS = 64;

class Scanner {
  readonly #bytes: Buffer;
  /** One character is one byte: the grammar is ASCII, and strings are decoded as they are found. */
  readonly #text: string;
  readonly #endText: string;
  #position = 0;

  /** @param endText - the error text for an input that ends too early. */
  constructor(bytes: Uint8Array, endText: string) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#text = this.#bytes.toString("latin1");
    this.#endText = endText;
  }

  atEnd(): boolean {
    this.#skipSpace();
    return this.#position >= this.#text.length;
  }

  /** The value here, in steps. */
  *value(): Steps<GoJson> {
    const meter = new StepMeter();
    const outer: Open[] = [];
    let open: Open | undefined;
    for (;;) {
      const start = this.#position;
      if (open?.members !== undefined) this.#key(open);
      const first = this.#significant();
      let value: GoJson;
      if (first === "{" || first === "[") {
        const isObject = first === "{";
        const around = open === undefined ? 0 : outer.length + 1;
        if (around === MAX_DEPTH) throw this.invalid("exceeded max depth");
        this.#position++;
        if (this.#significant() !== (isObject ? "}" : "]")) {
          if (open !== undefined) outer.push(open);
          open = isObject
            ? { members: [], elements: undefined, key: "", offset: 0 }
            : { members: undefined, elements: [] };
          continue;
        }
        this.#position++;
        value = isObject ? new GoObject([]) : [];
      } else value = this.#scalar(first);
      if (meter.isOver(VALUE_FIELDS + (this.#position - start) / FIELD_CHARACTERS)) yield;
      for (;;) {
        if (open === undefined) return value;
        const { members } = open;
        if (members === undefined) open.elements.push(value);
        else members.push({ key: open.key, value, offset: open.offset });
        const next = this.#significant();
        if (next !== "," && next !== (members === undefined ? "]" : "}")) {
          throw this.invalid(members === undefined ? "after array element" : "after object key:value pair");
        }
        this.#position++;
        if (next === ",") break;
        value = members === undefined ? open.elements : new GoObject(members);
        open = outer.pop();
      }
    }
  }

  #scalar(first: string): GoJson {
    switch (first) {
      case '"':
        return this.#string();
      case "t":
        return this.#literal("true", true);
      case "f":
        return this.#literal("false", false);
      case "n":
        return this.#literal("null", null);
      default:
        if (first !== "-" && !isDigit(first)) throw this.invalid("looking for beginning of value");
        return this.#number();
    }
  }

  #key(open: OpenObject): void {
    if (this.#significant() !== '"') throw this.invalid("looking for beginning of object key string");
    open.offset = this.#position;
    open.key = this.#string();
    if (this.#significant() !== ":") throw this.invalid("after object key");
    this.#position++;
  }

  #string(): string {
    const start = ++this.#position;
    const text = this.#text;
    let isEscaped = false;
    for (;;) {
      const code = text.charCodeAt(this.#position);
      if (code === QUOTE) break;
      if (code === BACKSLASH) {
        isEscaped = true;
        this.#position++;
        this.#escape();
      } else if (code >= SPACE) this.#position++;
      else if (Number.isNaN(code)) throw new GoJsonError(this.#endText, this.#position);
      else throw this.invalid("in string literal");
    }
    const written = this.#bytes.toString("utf8", start, this.#position);
    this.#position++;
    if (!isEscaped) return written;
    // Looked at above, so that it is a string of JSON: the engine's own parser is many times faster than code here.
    const meant: unknown = JSON.parse(`"${written}"`);
    return String(meant).toWellFormed();
  }

  #escape(): void {
    const character = this.#character();
    if (character !== "u") {
      if (!ESCAPES.includes(character)) throw this.invalid("in string escape code");
      this.#position++;
      return;
    }
    for (let digit = 0; digit < 4; digit++) {
      this.#position++;
      if (!isHexDigit(this.#text.charCodeAt(this.#position))) {
        throw this.invalid("in \\u hexadecimal character escape");
      }
    }
    this.#position++;
  }

  #literal<Value>(word: string, value: Value): Value {
    for (const expected of word) {
      if (this.#character() !== expected) throw this.invalid(`in literal ${word} (expecting '${expected}')`);
      this.#position++;
    }
    return value;
  }

  #number(): GoNumber {
    const start = this.#position;
    if (this.#peek() === "-") this.#position++;
    if (this.#peek() === "0") this.#position++;
    else this.#digits("in numeric literal");
    if (this.#peek() === ".") {
      this.#position++;
      this.#digits("after decimal point in numeric literal");
    }
    if (this.#peek() === "e" || this.#peek() === "E") {
      this.#position++;
      if (this.#peek() === "+" || this.#peek() === "-") this.#position++;
      this.#digits("in exponent of numeric literal");
    }
    return new GoNumber(this.#text.slice(start, this.#position));
  }

  /** One digit at least. */
  #digits(where: string): void {
    if (!isDigit(this.#character())) throw this.invalid(where);
    while (isDigit(this.#peek())) this.#position++;
  }

  #peek(): string {
    return this.#text.charAt(this.#position);
  }

  /** The character here, which must exist. */
  #character(): string {
    const character = this.#peek();
    if (character === "") throw new GoJsonError(this.#endText, this.#position);
    return character;
  }

  /** The next character that is no space, which must exist. */
  #significant(): string {
    this.#skipSpace();
    return this.#character();
  }

  #skipSpace(): void {
    for (
      let next = this.#peek();
      next === " " || next === "\t" || next === "\r" || next === "\n";
      next = this.#peek()
    ) {
      this.#position++;
    }
  }

  invalid(where: string): GoJsonError {
    return new GoJsonError(`invalid character ${quoted(this.#character())} ${where}`, this.#position);
  }
}

function isDigit(character: string): boolean {
  return character >= "0" && character <= "9";
}

function isHexDigit(code: number): boolean {
  const small = code | 0x20;
  return (code >= 0x30 && code <= 0x39) || (small >= 0x61 && small <= 0x66);
}

const PRINTED: Readonly<Record<string, string>> = {
  "'": "\\'",
  "\\": "\\\\",
  "\u0007": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
};

/** One byte between single quotes, as Go prints it. */
function quoted(character: string): string {
  const printed = Object.hasOwn(PRINTED, character) ? PRINTED[character] : undefined;
  if (printed !== undefined) return `'${printed}'`;
  const code = character.charCodeAt(0);
  if (code < 0x20 || code === 0x7f) return `'\\x${code.toString(16).padStart(2, "0")}'`;
  // No-break space and soft hyphen are Latin-1 that Go does not print.
  if ((code > 0x7f && code <= 0xa0) || code === 0xad) return `'\\u${code.toString(16).padStart(4, "0")}'`;
  return `'${character}'`;
}

// Typed reading.

/**
 * The mistakes in a value that is read to its end all the same. Of several mistakes Go reports the first, unless a type with its
 * own decoder finds one, which ends the reading.
 */
class GoFaults {
  #first: GoJsonError | undefined;

  add(text: string): void {
    this.#first ??= new GoJsonError(text);
  }

  /** @throws {GoJsonError} the first one, if there is any. */
  raise(): void {
    if (this.#first !== undefined) throw this.#first;
  }
}

/** Where a value stands, for the texts of mismatches. */
export interface GoPath {
  /** The outermost struct type. */
  readonly struct: string;
  readonly fields: readonly string[];
  readonly faults: GoFaults;
  /** Of the whole reading. */
  readonly meter: StepMeter;
}

/** The kind of value, for documents: `duration` is a text or a number of nanoseconds. */
export type GoForm =
  | "text"
  | "flag"
  | "integer"
  | "duration"
  | "any"
  | { readonly list: GoForm }
  | { readonly map: GoForm }
  | { readonly fields: Readonly<Record<string, GoForm>> };

/** Reads one Go type. An absent value becomes its zero value, and so does a value of another type, which `path` notes as a fault. */
export type GoType<T> = GoScalar<T> | GoComposite<T>;

interface GoTypeOf<T> {
  /** As Go writes the type, for example `map[string]string`. */
  readonly name: string;
  readonly form: GoForm;
  readonly zero: () => T;
  /** Whether `null` is a value of the type. Default: no, and the value that an equal key had before stays. */
  readonly nullable?: true;
}

/** A type whose values are read at once. */
export interface GoScalar<T> extends GoTypeOf<T> {
  /**
   * @param before - the value that an equal key had before; a struct given twice fills in the first.
   * @throws {GoJsonError} a fault that the type's own decoder finds.
   */
  readonly read: (value: Exclude<GoJson, null>, path: GoPath, before?: T) => T;
}

/** A type whose values consist of others, of which there may be many: they are read in steps. */
export interface GoComposite<T> extends GoTypeOf<T> {
  /** As {@link GoScalar.read}. */
  readonly steps: (value: Exclude<GoJson, null>, path: GoPath, before?: T) => Steps<T>;
}

function kindOf(value: GoJson): string {
  if (value === null) return "null";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "string") return "string";
  if (value instanceof GoNumber) return "number";
  return isGoList(value) ? "array" : "object";
}

export function isGoList(value: GoJson): value is readonly GoJson[] {
  return Array.isArray(value);
}

export function isGoObject(value: GoJson): value is GoObject {
  return value instanceof GoObject;
}

/** Notes that a value is of another type. @returns the value to use instead. */
function mismatched<T>(type: GoType<T>, value: GoJson, path: GoPath, before?: T, what: string = kindOf(value)): T {
  const target = path.fields.length === 0 ? "value" : `struct field ${path.struct}.${path.fields.join(".")}`;
  path.faults.add(`json: cannot unmarshal ${what} into Go ${target} of type ${type.name}`);
  return before ?? type.zero();
}

function ofNull<T>(type: GoType<T>, before?: T): T {
  return type.nullable === true ? type.zero() : (before ?? type.zero());
}

/** Reads a value of any type. */
export function* goSteps<T>(type: GoType<T>, value: GoJson, path: GoPath, before?: T): Steps<T> {
  if (value === null) return ofNull(type, before);
  return "steps" in type ? yield* type.steps(value, path, before) : type.read(value, path, before);
}

/** Reads a value that is no composite: there are many of them, and none needs a step. */
function readNow<T>(type: GoScalar<T>, value: GoJson, path: GoPath, before?: T): T {
  return value === null ? ofNull(type, before) : type.read(value, path, before);
}

/** A string under another name. */
export function goText(name: string): GoScalar<string> {
  return {
    name,
    form: "text",
    zero: () => "",
    read(value, path, before) {
      return typeof value === "string" ? value : mismatched(this, value, path, before);
    },
  };
}

export const goString: GoScalar<string> = goText("string");

export const goBool: GoScalar<boolean> = {
  name: "bool",
  form: "flag",
  zero: () => false,
  read(value, path, before) {
    return typeof value === "boolean" ? value : mismatched(this, value, path, before);
  },
};

export const goInt: GoScalar<number> = {
  name: "int",
  form: "integer",
  zero: () => 0,
  read(value, path, before) {
    if (!(value instanceof GoNumber)) return mismatched(this, value, path, before);
    const number = Number(value.text);
    return /^-?\d+$/.test(value.text) && Number.isSafeInteger(number)
      ? number + 0
      : mismatched(this, value, path, before, `number ${value.text}`);
  },
};

/** No less than 0. */
export const goUint: GoScalar<number> = {
  ...goInt,
  name: "uint",
  read(value, path, before) {
    return value instanceof GoNumber && value.text.startsWith("-")
      ? mismatched(this, value, path, before, `number ${value.text}`)
      : goInt.read.call(this, value, path, before);
  },
};

const MAX_UINT64 = 2n ** 64n - 1n;

/** An integer that may not fit a double: an index. */
export const goUint64: GoScalar<bigint> = {
  name: "uint64",
  form: "integer",
  zero: () => 0n,
  read(value, path, before) {
    if (!(value instanceof GoNumber)) return mismatched(this, value, path, before);
    const number = /^\d{1,20}$/.test(value.text) ? BigInt(value.text) : MAX_UINT64 + 1n;
    return number > MAX_UINT64 ? mismatched(this, value, path, before, `number ${value.text}`) : number;
  },
};

/** Anything, as plain JSON. */
export const goAny: GoScalar<GoJson> = {
  name: "interface {}",
  form: "any",
  zero: () => null,
  nullable: true,
  read: (value) => value,
};

export function goList<T>(element: GoType<T>): GoComposite<readonly T[]> {
  return {
    name: `[]${element.name}`,
    form: { list: element.form },
    zero: () => [],
    nullable: true,
    *steps(value, path, before) {
      if (!isGoList(value)) return mismatched(this, value, path, before);
      const list: T[] = [];
      for (const item of value) {
        list.push("steps" in element ? yield* goSteps(element, item, path) : readNow(element, item, path));
        if (path.meter.isOver(1)) yield;
      }
      return list;
    },
  };
}

/** Weight of a member of an object in a step, in fields. */
const KEY_FIELDS = 4;

/** As `Object.fromEntries` does: `__proto__` is a key like any other. */
function define<T>(map: Record<string, T>, key: string, value: T): void {
  if (key !== "__proto__") map[key] = value;
  else Object.defineProperty(map, key, { value, enumerable: true, writable: true, configurable: true });
}

export function goMap<T>(element: GoType<T>): GoComposite<Readonly<Record<string, T>>> {
  return {
    name: `map[string]${element.name}`,
    form: { map: element.form },
    zero: () => ({}),
    nullable: true,
    *steps(value, path, before) {
      if (!isGoObject(value)) return mismatched(this, value, path, before);
      // That of an equal key is filled in, and not copied: a body may have the key thousands of times.
      const map: Record<string, T> = before ?? {};
      for (const { key, value: item } of value.members) {
        define(map, key, "steps" in element ? yield* goSteps(element, item, path) : readNow(element, item, path));
        if (path.meter.isOver(KEY_FIELDS)) yield;
      }
      return map;
    },
  };
}

/** A pointer to a struct, or a list or map: absent and `null` are distinct from an empty one. */
export function goOptional<T>(type: GoType<T>): GoComposite<T | undefined> {
  return {
    name: type.nullable === true ? type.name : `*${type.name}`,
    form: type.form,
    zero: () => undefined,
    nullable: true,
    steps: (value, path, before) => goSteps(type, value, path, before),
  };
}

/**
 * A type with its own decoder: a mistake inside ends the reading, whatever was found before.
 * @param finish - makes the value from the fields that were read. May throw a {@link GoJsonError}.
 */
export function goDecoded<Read, T>(type: GoType<Read>, finish: (read: Read) => T): GoComposite<T> {
  return {
    name: type.name,
    form: type.form,
    zero: () => finish(type.zero()),
    *steps(value, path) {
      const faults = new GoFaults();
      const read = yield* goSteps(type, value, { ...path, faults });
      faults.raise();
      return finish(read);
    },
  };
}

/** Reads as `type` does, and changes the result. */
export function goMapped<From, To>(type: GoType<From>, change: (from: From) => To): GoType<To> {
  const { name, form } = type;
  const zero = (): To => change(type.zero());
  if ("read" in type) return { name, form, zero, read: (value, path) => change(type.read(value, path)) };
  return {
    name,
    form,
    zero,
    *steps(value, path) {
      return change(yield* type.steps(value, path));
    },
  };
}

export type GoFields<T> = { readonly [Key in keyof T & string]: GoType<T[Key]> };

/**
 * A struct: keys match exactly, else without regard to case; `null` is a struct of zero values.
 * @param name - with its package, as Go prints it: `api.PeeringGenerateTokenRequest`.
 * @param options - `strict`: a key that is no field is an error. Default true. `shown`: how texts call it where it is the
 *   outermost. Default: the name without its package. `aliases`: fields by second keys, which are in small letters; such a one
 *   counts where the field has its zero value, as in Consul.
 */
export function goStruct<T>(
  name: string,
  fields: GoFields<T>,
  options: {
    readonly strict?: boolean;
    readonly shown?: string;
    readonly aliases?: Readonly<Record<string, keyof T & string>>;
  } = {},
): GoComposite<T> {
  const { strict = true, aliases = {} } = options;
  const keys = Object.keys(fields).filter((key): key is keyof T & string => Object.hasOwn(fields, key));
  const exact = new Map<string, keyof T & string>(keys.map((key) => [key, key]));
  const folded = new Map<string, keyof T & string>(keys.map((key) => [key.toLowerCase(), key]));
  const second = new Map<string, keyof T & string>(Object.entries(aliases));
  const bare = options.shown ?? name.slice(name.indexOf(".") + 1);
  type Values = Map<keyof T & string, T[keyof T & string]>;
  const isZero = (key: keyof T & string, value: unknown): boolean => sameValue(value, fields[key].zero());
  const build = (values: Values, before?: T): T => {
    const made: Partial<T> = { ...before };
    for (const key of keys) {
      if (values.has(key)) made[key] = values.get(key) as T[typeof key];
      else if (before === undefined) made[key] = fields[key].zero();
    }
    return made as T;
  };
  return {
    name,
    form: { fields: Object.fromEntries(keys.map((key) => [key, fields[key].form])) },
    zero: () => build(new Map()),
    *steps(value, path, before) {
      if (!isGoObject(value)) return mismatched(this, value, path, before);
      if (path.meter.isOver(keys.length)) yield;
      const values: Values = new Map();
      const others: Values = new Map();
      for (const { key: given, value: item } of value.members) {
        const own = exact.get(given) ?? folded.get(given.toLowerCase());
        const key = own ?? second.get(given.toLowerCase());
        if (key === undefined) {
          if (strict) path.faults.add(`json: unknown field ${goQuote(given)}`);
          continue;
        }
        const inner = {
          struct: path.struct === "" ? bare : path.struct,
          fields: [...path.fields, key],
          faults: path.faults,
          meter: path.meter,
        };
        const said = own === undefined ? others.get(key) : (values.get(key) ?? before?.[key]);
        const type = fields[key];
        const read = "steps" in type ? yield* goSteps(type, item, inner, said) : readNow(type, item, inner, said);
        (own === undefined ? others : values).set(key, read);
        if (path.meter.isOver(KEY_FIELDS)) yield;
      }
      for (const [key, other] of others) if (isZero(key, values.get(key) ?? fields[key].zero())) values.set(key, other);
      return build(values, before);
    },
  };
}

/** A parsed value as `type`, read in steps; `null` is its zero value. @throws {GoJsonError} with Go's text. */
export function* readGoSteps<T>(value: GoJson, type: GoType<T>): Steps<T> {
  const faults = new GoFaults();
  const read = yield* goSteps(type, value, { struct: "", fields: [], faults, meter: new StepMeter() });
  faults.raise();
  return read;
}

/** As {@link readGoSteps}, at once. */
export function readGo<T>(value: GoJson, type: GoType<T>): T {
  return doAll(readGoSteps(value, type));
}

/** The first value of a body as `type`, in steps. @throws {GoJsonError} with Go's text. */
export function* decodeGoSteps<T>(body: Uint8Array, type: GoType<T>): Steps<T> {
  const value = yield* firstValueSteps(body);
  yield;
  return yield* readGoSteps(value, type);
}

/** As {@link decodeGoSteps}, at once. */
export function decodeGo<T>(body: Uint8Array, type: GoType<T>): T {
  return doAll(decodeGoSteps(body, type));
}

/** Parsed input as ordinary JSON values. */
export function plainJson(value: GoJson): PlainJson {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (value instanceof GoNumber) return Number(value.text);
  if (isGoList(value)) return value.map(plainJson);
  return Object.fromEntries(value.members.map((member) => [member.key, plainJson(member.value)]));
}

export type PlainJson = null | boolean | number | string | PlainJson[] | { [key: string]: PlainJson };
