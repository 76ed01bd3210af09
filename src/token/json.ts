import { PeeringError } from "../errors.js";

/** A JSON value with its object members in the order of the text, duplicates included. */
export type TokenJson = null | boolean | string | TokenJson[] | TokenNumber | TokenObject;

/** Numbers are never wanted in a token; that it is one suffices. */
export interface TokenNumber {
  readonly type: "number";
}

export interface TokenObject {
  readonly type: "object";
  readonly members: readonly (readonly [key: string, value: TokenJson])[];
}

/** Deeper than any token, and far from the end of the stack. */
const MAX_DEPTH = 500;

/**
 * Parses exactly one JSON value, strictly, with the error texts of Go's `encoding/json`. Unlike those of `JSON.parse`
 * they quote one character at most and so give no secret away.
 *
 * @throws {PeeringError} `invalid-token`
 */
export function parseJson(bytes: Uint8Array): TokenJson {
  // One character is one byte: the grammar is ASCII, and strings are decoded as they are found.
  const scanner = new Scanner(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1"));
  const value = scanner.value(0);
  scanner.end();
  return value;
}

const escapes: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);

class Scanner {
  readonly #text: string;
  #position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(depth: number): TokenJson {
    const first = this.#significant();
    if (depth > MAX_DEPTH) throw new PeeringError("invalid-token", "exceeded max depth");
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

  end(): void {
    this.#skipSpace();
    if (this.#position < this.#text.length) throw this.#invalid("after top-level value");
  }

  #object(depth: number): TokenObject {
    const members: [string, TokenJson][] = [];
    this.#position++;
    if (this.#significant() === "}") {
      this.#position++;
      return { type: "object", members };
    }
    for (;;) {
      if (this.#significant() !== '"') throw this.#invalid("looking for beginning of object key string");
      const key = this.#string();
      if (this.#significant() !== ":") throw this.#invalid("after object key");
      this.#position++;
      members.push([key, this.value(depth + 1)]);
      const next = this.#significant();
      if (next !== "," && next !== "}") throw this.#invalid("after object key:value pair");
      this.#position++;
      if (next === "}") return { type: "object", members };
    }
  }

  #array(depth: number): TokenJson[] {
    const elements: TokenJson[] = [];
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
      const meaning = escapes.get(character);
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

  #number(): TokenNumber {
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
    return { type: "number" };
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
    if (character === "") throw new PeeringError("invalid-token", "unexpected end of JSON input");
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

  #invalid(where: string): PeeringError {
    return new PeeringError("invalid-token", `invalid character ${quoted(this.#character())} ${where}`);
  }
}

function isDigit(character: string): boolean {
  return character >= "0" && character <= "9";
}

/** One byte between single quotes, as Go prints it. */
function quoted(character: string): string {
  if (character === "'") return "'\\''";
  if (character === '"') return "'\"'";
  if (character === "\\") return "'\\\\'";
  for (const [letter, meaning] of escapes) if (meaning === character) return letter === "/" ? "'/'" : `'\\${letter}'`;
  const code = character.charCodeAt(0);
  if (code === 0x07) return "'\\a'";
  if (code === 0x0b) return "'\\v'";
  if (code < 0x20 || code === 0x7f) return `'\\x${code.toString(16).padStart(2, "0")}'`;
  // No-break space and soft hyphen are Latin-1 that Go does not print.
  if ((code > 0x7f && code <= 0xa0) || code === 0xad) return `'\\u${code.toString(16).padStart(4, "0")}'`;
  return `'${character}'`;
}
