import { goEscape } from "./go-escape.js";

export type MatchOperator =
  | "equal"
  | "not-equal"
  | "in"
  | "not-in"
  | "is-empty"
  | "is-not-empty"
  | "matches"
  | "not-matches";

export interface MatchExpression {
  readonly type: "match";
  /** Never empty: names of fields and keys of maps. */
  readonly selector: readonly string[];
  readonly operator: MatchOperator;
  /** As written, quotes taken off; undefined for the operators without one. */
  readonly value: string | undefined;
}

/** A filter as written, before anybody knows what fields there are. */
export type Expression =
  | { readonly type: "or" | "and"; readonly operands: readonly Expression[] }
  | { readonly type: "not"; readonly operand: Expression }
  | MatchExpression;

/** Parentheses and negations inside one another: more is refused, as each takes a piece of the stack. */
const MAX_DEPTH = 200;

const WHITESPACE = /[ \t\r\n]+/y;
const IDENTIFIER = /[a-zA-Z][a-zA-Z0-9_]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?/y;
const DOUBLE_QUOTED = /"(?:[^"\\\n]|\\[^\n])*"/y;
const RAW_QUOTED = /`[^`]*`/y;

const valueOperators: readonly (readonly [MatchOperator, readonly string[]])[] = [
  ["in", ["contains"]],
  ["not-in", ["not", "contains"]],
  ["matches", ["matches"]],
  ["not-matches", ["not", "matches"]],
];
const emptyOperators: readonly (readonly [MatchOperator, readonly string[]])[] = [
  ["is-empty", ["is", "empty"]],
  ["is-not-empty", ["is", "not", "empty"]],
];
const selectorOperators: readonly (readonly [MatchOperator, readonly string[]])[] = [
  ["in", ["in"]],
  ["not-in", ["not", "in"]],
];

/**
 * Parses a filter in the language of go-bexpr.
 * @throws {SyntaxError} with where it went wrong: `<line>:<column> (<offset>): no match found, expected: …`.
 */
export function parseExpression(text: string): Expression {
  return new Parser(text).parse();
}

class Parser {
  readonly #text: string;
  #position = 0;
  #depth = 0;
  /** The farthest place at which something was expected that was not there, and what. */
  #farthest = 0;
  readonly #expected = new Set<string>();

  constructor(text: string) {
    this.#text = text;
  }

  parse(): Expression {
    this.#space();
    const expression = this.#or();
    if (expression !== undefined) {
      this.#space();
      if (this.#position === this.#text.length) return expression;
      this.#expect("EOF");
    }
    throw this.#failure();
  }

  #or(): Expression | undefined {
    return this.#chain("or", () => this.#and());
  }

  #and(): Expression | undefined {
    return this.#chain("and", () => this.#not());
  }

  #chain(type: "or" | "and", next: () => Expression | undefined): Expression | undefined {
    const first = next();
    if (first === undefined) return undefined;
    const operands = [first];
    for (;;) {
      const before = this.#position;
      const operand = this.#words([type]) ? next() : undefined;
      if (operand === undefined) {
        this.#position = before;
        return operands.length === 1 ? first : { type, operands };
      }
      operands.push(operand);
    }
  }

  #not(): Expression | undefined {
    if (this.#depth === MAX_DEPTH) throw this.#failure(`nested more than ${MAX_DEPTH} levels deep`);
    this.#depth++;
    try {
      const before = this.#position;
      if (this.#literal("not") && this.#whitespace()) {
        const operand = this.#not();
        if (operand !== undefined) return operand.type === "not" ? operand.operand : { type: "not", operand };
      }
      this.#position = before;
      return this.#grouped() ?? this.#match();
    } finally {
      this.#depth--;
    }
  }

  #grouped(): Expression | undefined {
    const before = this.#position;
    if (!this.#literal("(")) return undefined;
    this.#space();
    const expression = this.#or();
    if (expression !== undefined) {
      this.#space();
      if (this.#literal(")")) return expression;
    }
    this.#position = before;
    return undefined;
  }

  #match(): Expression | undefined {
    const before = this.#position;
    const selector = this.#selector();
    if (selector !== undefined) {
      const after = this.#position;
      const operator = this.#valueOperator();
      const value = operator === undefined ? undefined : this.#value();
      if (operator !== undefined && value !== undefined) return { type: "match", selector, operator, value };
      this.#position = after;
      for (const [operator, words] of emptyOperators) {
        if (this.#words(words, false)) return { type: "match", selector, operator, value: undefined };
      }
    }
    this.#position = before;
    const value = this.#value();
    if (value !== undefined) {
      for (const [operator, words] of selectorOperators) {
        const after = this.#position;
        const target = this.#words(words) ? this.#selector() : undefined;
        if (target !== undefined) return { type: "match", selector: target, operator, value };
        this.#position = after;
      }
    }
    this.#position = before;
    return undefined;
  }

  #valueOperator(): MatchOperator | undefined {
    const before = this.#position;
    this.#space();
    for (const [operator, sign] of [
      ["equal", "=="],
      ["not-equal", "!="],
    ] as const) {
      if (!this.#literal(sign)) continue;
      this.#space();
      return operator;
    }
    this.#position = before;
    for (const [operator, words] of valueOperators) if (this.#words(words)) return operator;
    return undefined;
  }

  /** Words with white space before, between and, unless `after` is false, behind them. */
  #words(words: readonly string[], after = true): boolean {
    const before = this.#position;
    const all = words.every((word) => this.#whitespace() && this.#literal(word));
    if (all && (!after || this.#whitespace())) return true;
    this.#position = before;
    return false;
  }

  #selector(): readonly string[] | undefined {
    const first = this.#token(IDENTIFIER, "[a-zA-Z]");
    if (first === undefined) return undefined;
    const selector = [first];
    for (;;) {
      const before = this.#position;
      let next: string | undefined;
      if (this.#literal(".")) next = this.#token(IDENTIFIER, "[a-zA-Z]");
      else if (this.#literal("[")) {
        this.#space();
        next = this.#string();
        this.#space();
        if (next !== undefined && !this.#literal("]")) next = undefined;
      }
      if (next === undefined) {
        this.#position = before;
        return selector;
      }
      selector.push(next);
    }
  }

  #value(): string | undefined {
    const selector = this.#selector();
    return selector?.join(".") ?? this.#number() ?? this.#string();
  }

  #number(): string | undefined {
    const before = this.#position;
    const number = this.#token(NUMBER, "[0-9]");
    if (number === undefined) return undefined;
    const next = this.#text[this.#position];
    if (next === undefined || next === ")" || /[ \t\r\n]/.test(next)) return number;
    this.#expect("[ \\t\\r\\n]");
    this.#position = before;
    return undefined;
  }

  #string(): string | undefined {
    const before = this.#position;
    const raw = this.#token(RAW_QUOTED, '"`"');
    if (raw !== undefined) return raw.slice(1, -1);
    const quoted = this.#token(DOUBLE_QUOTED, '"\\""');
    const text = quoted === undefined ? undefined : interpreted(quoted.slice(1, -1));
    if (text === undefined) this.#position = before;
    return text;
  }

  #space(): void {
    this.#token(WHITESPACE, "[ \\t\\r\\n]");
  }

  #whitespace(): boolean {
    return this.#token(WHITESPACE, "[ \\t\\r\\n]") !== undefined;
  }

  #token(pattern: RegExp, name: string): string | undefined {
    pattern.lastIndex = this.#position;
    const found = pattern.exec(this.#text)?.[0];
    if (found === undefined) this.#expect(name);
    else this.#position += found.length;
    return found;
  }

  #literal(literal: string): boolean {
    if (this.#text.startsWith(literal, this.#position)) {
      this.#position += literal.length;
      return true;
    }
    this.#expect(JSON.stringify(literal));
    return false;
  }

  #expect(what: string): void {
    if (this.#position < this.#farthest) return;
    if (this.#position > this.#farthest) {
      this.#farthest = this.#position;
      this.#expected.clear();
    }
    this.#expected.add(what);
  }

  #failure(what?: string): SyntaxError {
    const before = this.#text.slice(0, what === undefined ? this.#farthest : this.#position);
    const lines = before.split("\n");
    // Columns count characters, the offset counts bytes.
    const column = [...(lines.at(-1) ?? "")].length + 1;
    const place = `${lines.length}:${column} (${Buffer.byteLength(before)})`;
    if (what !== undefined) return new SyntaxError(`${place}: ${what}`);
    const expected = [...this.#expected].sort();
    const last = expected.pop() ?? "EOF";
    const list = expected.length === 0 ? last : `${expected.join(", ")} or ${last}`;
    return new SyntaxError(`${place}: no match found, expected: ${list}`);
  }
}

/** A text with its escapes resolved; undefined: one of them is none. */
function interpreted(text: string): string | undefined {
  if (!text.includes("\\")) return text;
  const parts: Buffer[] = [];
  for (let at = 0; at < text.length; ) {
    const next = text.indexOf("\\", at);
    const end = next < 0 ? text.length : next;
    parts.push(Buffer.from(text.slice(at, end)));
    if (next < 0) break;
    const escaped = goEscape(text, next);
    if (escaped === undefined) return undefined;
    parts.push(escaped.bytes);
    at = next + escaped.length;
  }
  return Buffer.concat(parts).toString("utf8");
}
