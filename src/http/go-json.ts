import { Buffer } from "node:buffer";

/** A value as parsed: numbers keep their text, objects have no prototype, so that no key is special. */
export type GoJson = null | boolean | string | GoNumber | readonly GoJson[] | GoObject;
export interface GoObject {
  readonly [key: string]: GoJson;
}

/** A number with its text: what is an integer, and how large, is for the reader to decide. */
export class GoNumber {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** The text is what Go's `encoding/json` says. */
export class GoJsonError extends Error {
  override readonly name = "GoJsonError";
}

const MAX_DEPTH = 10_000;
/** Ours: beyond any request, and far from the end of the stack. */
const STACK_DEPTH = 1_000;

/**
 * The first JSON value of a stream, as Go's decoder takes it: what follows is not looked at.
 * @throws {GoJsonError} `EOF` for nothing but space, `unexpected EOF` for half a value, else where it breaks.
 */
export function readFirstValue(body: Uint8Array): GoJson {
  // One character is one byte: the grammar is ASCII, and strings are decoded as they are found.
  const scanner = new Scanner(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("latin1"));
  if (scanner.empty) throw new GoJsonError("EOF");
  return scanner.value(0);
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

class Scanner {
  readonly #text: string;
  #position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get empty(): boolean {
    this.#skipSpace();
    return this.#position >= this.#text.length;
  }

  value(depth: number): GoJson {
    const first = this.#significant();
    if (depth > STACK_DEPTH) throw new GoJsonError(`exceeded max depth ${MAX_DEPTH}`);
    switch (first) {
      case "{":
        return this.#object(depth);
      case "[":
        return this.#array(depth);
      case '"':
        return this.#string();
      case "t":
        return this.#literal("true", true);
      case "f":
        return this.#literal("false", false);
      case "n":
        return this.#literal("null", null);
      default:
        if (first !== "-" && !isDigit(first)) throw this.#invalid("looking for beginning of value");
        return this.#number();
    }
  }

  #object(depth: number): GoObject {
    const members: Record<string, GoJson> = Object.create(null);
    this.#position++;
    if (this.#significant() === "}") {
      this.#position++;
      return members;
    }
    for (;;) {
      if (this.#significant() !== '"') throw this.#invalid("looking for beginning of object key string");
      const key = this.#string();
      if (this.#significant() !== ":") throw this.#invalid("after object key");
      this.#position++;
      members[key] = this.value(depth + 1);
      const next = this.#significant();
      if (next !== "," && next !== "}") throw this.#invalid("after object key:value pair");
      this.#position++;
      if (next === "}") return members;
    }
  }

  #array(depth: number): GoJson[] {
    const elements: GoJson[] = [];
    this.#position++;
    if (this.#significant() === "]") {
      this.#position++;
      return elements;
    }
    for (;;) {
      elements.push(this.value(depth + 1));
      const next = this.#significant();
      if (next !== "," && next !== "]") throw this.#invalid("after array element");
      this.#position++;
      if (next === "]") return elements;
    }
  }

  #string(): string {
    this.#position++;
    let text = "";
    // Bytes since the last escape, decoded together: a character may take several.
    let start = this.#position;
    for (;;) {
      const character = this.#character();
      if (character === '"' || character === "\\") {
        text += Buffer.from(this.#text.slice(start, this.#position), "latin1").toString("utf8");
        this.#position++;
        if (character === '"') return text.replace(/\p{Surrogate}/gu, "\ufffd");
        text += this.#escape();
        start = this.#position;
      } else if (character < " ") {
        throw this.#invalid("in string literal");
      } else {
        this.#position++;
      }
    }
  }

  #escape(): string {
    const character = this.#character();
    if (character !== "u") {
      const meaning = Object.hasOwn(ESCAPES, character) ? ESCAPES[character] : undefined;
      if (meaning === undefined) throw this.#invalid("in string escape code");
      this.#position++;
      return meaning;
    }
    let code = 0;
    for (let digit = 0; digit < 4; digit++) {
      this.#position++;
      const hex = this.#character();
      if (!/[0-9a-fA-F]/.test(hex)) throw this.#invalid("in \\u hexadecimal character escape");
      code = code * 16 + Number.parseInt(hex, 16);
    }
    this.#position++;
    return String.fromCharCode(code);
  }

  #literal<Value>(word: string, value: Value): Value {
    for (const expected of word) {
      if (this.#character() !== expected) throw this.#invalid(`in literal ${word} (expecting '${expected}')`);
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
    if (!isDigit(this.#character())) throw this.#invalid(where);
    while (isDigit(this.#peek())) this.#position++;
  }

  #peek(): string {
    return this.#text.charAt(this.#position);
  }

  /** The character here, which must exist. */
  #character(): string {
    const character = this.#peek();
    if (character === "") throw new GoJsonError("unexpected EOF");
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

  #invalid(where: string): GoJsonError {
    return new GoJsonError(`invalid character ${quoted(this.#character())} ${where}`);
  }
}

function isDigit(character: string): boolean {
  return character >= "0" && character <= "9";
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

/** Where a value stands, for the texts of mismatches. */
export interface GoPath {
  /** The outermost struct type. */
  readonly struct: string;
  readonly fields: readonly string[];
}

/** Reads one Go type: what is absent or `null` is its zero value. @throws {GoJsonError} */
export interface GoType<T> {
  /** As Go writes the type, for example `map[string]string`. */
  readonly name: string;
  readonly zero: () => T;
  readonly read: (value: Exclude<GoJson, null>, path: GoPath) => T;
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
  return typeof value === "object" && value !== null && !(value instanceof GoNumber) && !Array.isArray(value);
}

function mismatch(value: GoJson, path: GoPath, type: string, what = kindOf(value)): GoJsonError {
  const target = path.fields.length === 0 ? "value" : `struct field ${path.struct}.${path.fields.join(".")}`;
  return new GoJsonError(`json: cannot unmarshal ${what} into Go ${target} of type ${type}`);
}

function readAs<T>(type: GoType<T>, value: GoJson, path: GoPath): T {
  return value === null ? type.zero() : type.read(value, path);
}

export const goString: GoType<string> = {
  name: "string",
  zero: () => "",
  read: (value, path) => {
    if (typeof value !== "string") throw mismatch(value, path, "string");
    return value;
  },
};

export const goBool: GoType<boolean> = {
  name: "bool",
  zero: () => false,
  read: (value, path) => {
    if (typeof value !== "boolean") throw mismatch(value, path, "bool");
    return value;
  },
};

export const goInt: GoType<number> = {
  name: "int",
  zero: () => 0,
  read: (value, path) => {
    if (!(value instanceof GoNumber)) throw mismatch(value, path, "int");
    const number = Number(value.text);
    if (!/^-?\d+$/.test(value.text) || !Number.isSafeInteger(number)) {
      throw mismatch(value, path, "int", `number ${value.text}`);
    }
    return number;
  },
};

/** Anything, as plain JSON. */
export const goAny: GoType<GoJson> = { name: "interface {}", zero: () => null, read: (value) => value };

export function goList<T>(element: GoType<T>): GoType<readonly T[]> {
  const name = `[]${element.name}`;
  return {
    name,
    zero: () => [],
    read: (value, path) => {
      if (!isGoList(value)) throw mismatch(value, path, name);
      return value.map((item) => readAs(element, item, path));
    },
  };
}

export function goMap<T>(element: GoType<T>): GoType<Readonly<Record<string, T>>> {
  const name = `map[string]${element.name}`;
  return {
    name,
    zero: () => ({}),
    read: (value, path) => {
      if (!isGoObject(value)) throw mismatch(value, path, name);
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, readAs(element, item, path)]));
    },
  };
}

export type GoFields<T> = { readonly [Key in keyof T & string]: GoType<T[Key]> };

/**
 * A struct: keys match exactly, else without regard to case; `null` is a struct of zero values.
 * @param name - with its package, as Go prints it: `api.PeeringGenerateTokenRequest`.
 * @param options - `strict`: a key that is no field is an error. Default true.
 */
export function goStruct<T>(name: string, fields: GoFields<T>, options: { readonly strict?: boolean } = {}): GoType<T> {
  const strict = options.strict ?? true;
  const keys = Object.keys(fields).filter((key): key is keyof T & string => Object.hasOwn(fields, key));
  const exact = new Map<string, keyof T & string>(keys.map((key) => [key, key]));
  const folded = new Map<string, keyof T & string>(keys.map((key) => [key.toLowerCase(), key]));
  const bare = name.slice(name.indexOf(".") + 1);
  const build = (values: ReadonlyMap<string, unknown>): T => {
    const made: Partial<T> = {};
    for (const key of keys) {
      const type = fields[key];
      made[key] = values.has(key) ? (values.get(key) as T[typeof key]) : type.zero();
    }
    return made as T;
  };
  return {
    name,
    zero: () => build(new Map()),
    read: (value, path) => {
      if (!isGoObject(value)) throw mismatch(value, path, name);
      const values = new Map<string, unknown>();
      for (const [given, item] of Object.entries(value)) {
        const key = exact.get(given) ?? folded.get(given.toLowerCase());
        if (key === undefined) {
          if (strict) throw new GoJsonError(`json: unknown field ${JSON.stringify(given)}`);
          continue;
        }
        const inner = { struct: path.struct === "" ? bare : path.struct, fields: [...path.fields, key] };
        values.set(key, readAs(fields[key], item, inner));
      }
      return build(values);
    },
  };
}

/** The first value of a body as `type`; `null` is its zero value. @throws {GoJsonError} with Go's text. */
export function decodeGo<T>(body: Uint8Array, type: GoType<T>): T {
  return readAs(type, readFirstValue(body), { struct: "", fields: [] });
}

/** Parsed input as ordinary JSON values. */
export function plainJson(value: GoJson): PlainJson {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (value instanceof GoNumber) return Number(value.text);
  if (isGoList(value)) return value.map(plainJson);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plainJson(item)]));
}

export type PlainJson = null | boolean | number | string | PlainJson[] | { [key: string]: PlainJson };
