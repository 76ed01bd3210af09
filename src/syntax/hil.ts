/** A text in HIL, the language of `${…}` in Consul's query templates, that cannot be read or computed. Messages follow HIL's own. */
export class HilError extends Error {
  override readonly name = "HilError";
}

/** Counted from 1; columns count characters. */
export interface HilPosition {
  readonly line: number;
  readonly column: number;
}

export type HilOperator = "+" | "-" | "*" | "/" | "%" | "&&" | "||" | "==" | "!=" | "<" | "<=" | ">" | ">=";

/** Integers are those of Go, of 64 bits. */
export type HilValue =
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "int"; readonly value: bigint }
  | { readonly type: "float"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean };

export type HilNode = { readonly at: HilPosition } & (
  | { readonly kind: "literal"; readonly value: HilValue }
  /** Texts and expressions one behind the other. */
  | { readonly kind: "output"; readonly parts: readonly HilNode[] }
  | { readonly kind: "operation"; readonly operator: HilOperator; readonly operands: readonly [HilNode, HilNode] }
  | { readonly kind: "conditional"; readonly condition: HilNode; readonly yes: HilNode; readonly no: HilNode }
  | { readonly kind: "call"; readonly name: string; readonly parameters: readonly HilNode[] }
  | { readonly kind: "variable"; readonly name: string }
  | { readonly kind: "index"; readonly target: HilNode; readonly key: HilNode }
);

/** Far beyond any template, and far from the end of the stack. */
const MAX_DEPTH = 100;

/** Lowest precedence first. */
const PRECEDENCE: readonly (readonly HilOperator[])[] = [
  ["||"],
  ["&&"],
  ["==", "!="],
  [">", ">=", "<", "<="],
  ["+", "-"],
  ["*", "/", "%"],
];

type TokenType = "literal" | "begin" | "end" | "quote" | "int" | "float" | "bool" | "name" | "mark" | "invalid" | "eof";

interface Token {
  readonly type: TokenType;
  readonly text: string;
  readonly at: HilPosition;
}

const MARKS = ["!=", "<=", ">=", "==", "&&", "||", ..."()[],.+-*/%?:!<>"];

/** @throws {HilError} `parse error at line:column: reason`. */
export function parseHil(text: string): HilNode {
  return new Parser(text).template();
}

function parseError({ line, column }: HilPosition, why: string): HilError {
  return new HilError(`parse error at ${line}:${column}: ${why}`);
}

function shown({ type, text }: Token): string {
  switch (type) {
    case "eof":
      return "end of string";
    case "invalid":
      return `invalid sequence ${JSON.stringify(text)}`;
    case "int":
      return `integer ${text}`;
    case "float":
      return `float ${text}`;
    case "quote":
      return "opening quote";
    case "mark":
      return text.length === 2 && text !== "==" ? text : JSON.stringify(text);
    default:
      return JSON.stringify(text);
  }
}

class Parser {
  readonly #characters: readonly string[];
  #position = 0;
  #line = 1;
  #column = 1;
  #depth = 0;
  /** The next token of an expression, when it was looked at. */
  #peeked: Token | undefined;

  constructor(text: string) {
    this.#characters = Array.from(text);
  }

  template(): HilNode {
    return this.#sequence(this.#at, false);
  }

  get #at(): HilPosition {
    return { line: this.#line, column: this.#column };
  }

  /** Texts and `${…}` up to the end, or up to the closing quote. */
  #sequence(start: HilPosition, quoted: boolean): HilNode {
    const parts: HilNode[] = [];
    for (;;) {
      const at = this.#at;
      const text = this.#text(quoted);
      if (text !== "") parts.push({ kind: "literal", value: { type: "string", value: text }, at });
      // The end of the text: `${`, the quote, or the end of the input.
      if (!this.#skip("${")) {
        this.#skip('"');
        break;
      }
      parts.push(this.#expression());
      this.#expect("end", '"}"');
    }
    const [only = { kind: "literal", value: { type: "string", value: "" }, at: start }] = parts;
    const plain = parts.length < 2 && only.kind === "literal" && only.value.type === "string";
    return plain ? only : { kind: "output", parts, at: start };
  }

  /** `$$` stands for `$`; in quotes `\"`, `\\` and `\n` are escapes, too. */
  #text(quoted: boolean): string {
    const start = this.#position;
    const at = this.#at;
    let text = "";
    let problem: HilError | undefined;
    for (;;) {
      const next = this.#characters[this.#position];
      const following = this.#characters[this.#position + 1];
      if (next === undefined) {
        if (!quoted) return text;
        throw parseError(at, `expected "\${" but found ${shown({ type: "invalid", text: this.#from(start), at })}`);
      }
      if ((quoted && next === '"') || (next === "$" && following === "{")) {
        if (problem !== undefined) throw problem;
        return text;
      }
      if (next === "$" && following === "$") {
        this.#advance(2);
        text += "$";
      } else if (quoted && next === "\\") {
        const escaped = following === undefined ? -1 : 'n"\\'.indexOf(following);
        if (escaped < 0) {
          const isLast = following === "$" && this.#characters[this.#position + 2] === "{";
          // Told once the end of the text is found: a text without one is another mistake.
          problem ??= parseError(this.#at, `${isLast ? "unfinished" : "invalid"} backslash escape sequence`);
        }
        this.#advance(escaped < 0 ? 1 : 2);
        text += '\n"\\'.charAt(escaped);
      } else {
        this.#advance(1);
        text += next;
      }
    }
  }

  #from(start: number): string {
    return this.#characters.slice(start).join("");
  }

  #advance(count: number): void {
    for (let left = count; left > 0; left--) {
      if (this.#characters[this.#position++] === "\n") {
        this.#line++;
        this.#column = 1;
      } else this.#column++;
    }
  }

  #skip(text: string): boolean {
    if (!this.#startsWith(text)) return false;
    this.#advance(text.length);
    return true;
  }

  #startsWith(text: string): boolean {
    return text === this.#characters.slice(this.#position, this.#position + text.length).join("");
  }

  #expression(): HilNode {
    if (++this.#depth > MAX_DEPTH) throw parseError(this.#at, "expression nests too deeply");
    const { at } = this.#peek();
    const condition = this.#operation(0);
    let node = condition;
    if (this.#takeMark("?")) {
      const yes = this.#expression();
      if (!this.#takeMark(":")) throw this.#unexpected(":");
      node = { kind: "conditional", condition, yes, no: this.#expression(), at };
    }
    this.#depth--;
    return node;
  }

  /** Operators of one precedence associate to the left. */
  #operation(level: number): HilNode {
    const operators = PRECEDENCE[level];
    if (operators === undefined) return this.#term();
    const { at } = this.#peek();
    let node = this.#operation(level + 1);
    for (;;) {
      const next = this.#peek();
      const operator = next.type === "mark" ? operators.find((known) => known === next.text) : undefined;
      if (operator === undefined) return node;
      this.#take();
      node = { kind: "operation", operator, operands: [node, this.#operation(level + 1)], at };
    }
  }

  #term(): HilNode {
    const token = this.#peek();
    const { type, text, at } = token;
    switch (type) {
      case "quote":
        this.#take();
        return this.#nested(() => this.#sequence(at, true));
      case "int":
        this.#take();
        return { kind: "literal", value: { type: "int", value: integerOf(token) }, at };
      case "float":
        this.#take();
        return { kind: "literal", value: { type: "float", value: Number(text) }, at };
      case "bool":
        this.#take();
        return { kind: "literal", value: { type: "bool", value: text === "true" }, at };
      case "name":
        return this.#named();
      case "mark":
        if (this.#takeMark("(")) {
          const inside = this.#expression();
          if (!this.#takeMark(")")) throw this.#unexpected('")"');
          return inside;
        }
        // As in HIL: `-x` is `0 - x`, and `!x` is `false == x`.
        if (this.#takeMark("-")) return this.#signed("-", { type: "int", value: 0n }, at);
        if (this.#takeMark("!")) return this.#signed("==", { type: "bool", value: false }, at);
    }
    throw this.#unexpected("expression");
  }

  #signed(operator: HilOperator, value: HilValue, at: HilPosition): HilNode {
    const operand = this.#nested(() => this.#term());
    return { kind: "operation", operator, operands: [{ kind: "literal", value, at }, operand], at };
  }

  #nested<Node>(read: () => Node): Node {
    if (++this.#depth > MAX_DEPTH) throw parseError(this.#at, "expression nests too deeply");
    const node = read();
    this.#depth--;
    return node;
  }

  #named(): HilNode {
    const { text: name, at } = this.#take();
    if (this.#takeMark("(")) {
      const parameters: HilNode[] = [];
      while (!this.#isMark(")")) {
        parameters.push(this.#expression());
        if (!this.#takeMark(",")) break;
      }
      if (!this.#takeMark(")")) throw this.#unexpected('")"');
      return { kind: "call", name, parameters, at };
    }
    const variable: HilNode = { kind: "variable", name, at };
    const bracket = this.#peek().at;
    if (!this.#takeMark("[")) return variable;
    const key = this.#expression();
    if (!this.#takeMark("]")) throw this.#unexpected('"]"');
    return { kind: "index", target: variable, key, at: bracket };
  }

  #unexpected(wanted: string): HilError {
    const found = this.#peek();
    return parseError(found.at, `expected ${wanted} but found ${shown(found)}`);
  }

  #expect(type: TokenType, wanted: string): void {
    if (this.#peek().type !== type) throw this.#unexpected(wanted);
    this.#take();
  }

  #isMark(text: string): boolean {
    const { type, text: found } = this.#peek();
    return type === "mark" && found === text;
  }

  #takeMark(text: string): boolean {
    if (!this.#isMark(text)) return false;
    this.#take();
    return true;
  }

  #take(): Token {
    const token = this.#peek();
    this.#peeked = undefined;
    this.#advance(Array.from(token.text).length);
    return token;
  }

  /** The next token. Blanks before it are consumed; the token itself is not. */
  #peek(): Token {
    if (this.#peeked !== undefined) return this.#peeked;
    while (/^[ \t\r\n]$/.test(this.#characters[this.#position] ?? "")) this.#advance(1);
    this.#peeked = this.#scan();
    return this.#peeked;
  }

  #scan(): Token {
    const at = this.#at;
    const next = this.#characters[this.#position];
    if (next === undefined) return { type: "eof", text: "", at };
    if (next === "}") return { type: "end", text: next, at };
    if (next === '"') return { type: "quote", text: next, at };
    const mark = MARKS.find((known) => this.#startsWith(known));
    if (mark !== undefined) return { type: "mark", text: mark, at };
    if (/^\d$/.test(next)) {
      const text = this.#run(
        (character, before) => /^\d$/.test(character) || (character === "." && !before.includes(".")),
      );
      // A period that no digit follows does not belong to it, unless it is the last of all.
      const isLast = this.#characters.length === this.#position + text.length;
      const number = text.endsWith(".") && !isLast ? text.slice(0, -1) : text;
      return { type: number.includes(".") ? "float" : "int", text: number, at };
    }
    if (/^[\p{L}_]$/u.test(next)) {
      const text = identifierAt(this.#characters, this.#position);
      return { type: text === "true" || text === "false" ? "bool" : "name", text, at };
    }
    return { type: "invalid", text: next, at };
  }

  #run(belongs: (character: string, before: string) => boolean): string {
    let text = "";
    for (let index = 0; ; index++) {
      const character = this.#characters[this.#position + index];
      if (character === undefined || !belongs(character, text)) return text;
      text += character;
    }
  }
}

/** Letters, digits, `_`, `-` and periods; a star may stand behind a period, when no letter follows it. */
function identifierAt(characters: readonly string[], start: number): string {
  let end = start;
  for (; ; end++) {
    const character = characters[end];
    if (character === undefined || !/^[\p{L}\p{N}\p{M}_.*-]$/u.test(character)) break;
    if (character === "*" && characters[end - 1] !== ".") break;
    if (end > start && characters[end - 1] === "*" && character !== ".") {
      end -= 2;
      break;
    }
  }
  return characters.slice(start, end).join("");
}

function integerOf({ text, at }: Token): bigint {
  const value = BigInt(text);
  if (value < 2n ** 63n) return value;
  throw parseError(at, `invalid integer: strconv.Atoi: parsing ${JSON.stringify(text)}: value out of range`);
}
