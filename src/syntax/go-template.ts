// Templates as Go's package text/template has them, as far as configuration is made of them: fields, variables, `if`, `range`, `with`, comparisons,
// and space that is cut off. Everything else is refused by its name.

/** A value that a template can show. */
export type TemplateValue =
  | string
  | number
  | boolean
  | undefined
  | readonly TemplateValue[]
  | { readonly [name: string]: TemplateValue };

/** Why a template cannot be filled. */
export interface TemplateProblem {
  readonly problem: string;
}

class TemplateError extends Error {}

/** Blocks and parentheses inside of each other. */
const MAX_DEPTH = 100;

function requireDepth(depth: number): void {
  if (depth > MAX_DEPTH)
    throw new TemplateError(`more than ${MAX_DEPTH} blocks or parentheses are inside of each other`);
}

/** @param what - names the template in the problem. */
export function goTemplate(what: string, template: string, data: TemplateValue): string | TemplateProblem {
  try {
    const nodes = new Parser(piecesOf(template)).whole();
    return filled(nodes, { dot: data, variables: new Map([["$", data]]) });
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error;
    return { problem: `${what}: ${error.message}` };
  }
}

type Piece = { readonly text: string } | { readonly action: string };

/** Text and actions in turn; space beside `{{- ` and ` -}}` is cut off, and comments are gone. */
function piecesOf(template: string): readonly Piece[] {
  const pieces: Piece[] = [];
  let trims = false;
  let at = 0;
  for (;;) {
    const start = template.indexOf("{{", at);
    let text = template.slice(at, start < 0 ? undefined : start);
    if (trims) text = text.replace(/^[ \t\r\n]+/, "");
    const trimsBefore = start >= 0 && /^-[ \t\r\n]/.test(template.slice(start + 2, start + 4));
    if (trimsBefore) text = text.trimEnd();
    if (text !== "") pieces.push({ text });
    if (start < 0) return pieces;
    const end = endOfAction(template, start + 2);
    const inner = template.slice(start + (trimsBefore ? 3 : 2), end);
    trims = /[ \t\r\n]-$/.test(inner);
    const action = (trims ? inner.slice(0, -1) : inner).trim();
    if (!/^\/\*.*\*\/$/s.test(action)) pieces.push({ action });
    at = end + 2;
  }
}

/** Where `}}` stands outside of texts and comments. */
function endOfAction(template: string, from: number): number {
  const skipped = /\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"|`[^`]*`|\}\}/g;
  skipped.lastIndex = from;
  for (let match = skipped.exec(template); match !== null; match = skipped.exec(template)) {
    if (match[0] === "}}") return match.index;
  }
  throw new TemplateError("an action has no end");
}

type Expression =
  | { readonly kind: "constant"; readonly value: TemplateValue }
  /** `.A.B`, `$x.A`, `(…).A`. */
  | { readonly kind: "fields"; readonly of: Expression | string; readonly names: readonly string[] }
  | { readonly kind: "call"; readonly name: string; readonly args: readonly Expression[] };

type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "print"; readonly value: Expression }
  | { readonly kind: "assign"; readonly variable: string; readonly value: Expression }
  | {
      readonly kind: "if" | "with" | "range";
      readonly variables: readonly string[];
      readonly value: Expression;
      readonly then: readonly Node[];
      readonly otherwise: readonly Node[];
    };

const BLOCKS = /^(if|with|range)\b(.*)$/s;

class Parser {
  readonly #pieces: readonly Piece[];
  #next = 0;
  #depth = 0;

  constructor(pieces: readonly Piece[]) {
    this.#pieces = pieces;
  }

  whole(): readonly Node[] {
    const { nodes, end } = this.#list();
    if (end !== undefined) throw new TemplateError(`unexpected {{${end}}}`);
    return nodes;
  }

  /** Up to `else` or `end`, which is returned. */
  #list(): { readonly nodes: readonly Node[]; readonly end: string | undefined } {
    const nodes: Node[] = [];
    for (;;) {
      const piece = this.#pieces[this.#next++];
      if (piece === undefined) return { nodes, end: undefined };
      if ("text" in piece) nodes.push({ kind: "text", text: piece.text });
      else if (/^(?:end$|else\b)/.test(piece.action)) return { nodes, end: piece.action };
      else nodes.push(this.#node(piece.action));
    }
  }

  #node(action: string): Node {
    const [, block, rest = ""] = BLOCKS.exec(action) ?? [];
    if (block === "if" || block === "with" || block === "range") return this.#block(block, rest);
    const [, variable, value] = /^(\$\w+)\s*:=\s*(.*)$/s.exec(action) ?? [];
    if (variable !== undefined && value !== undefined) return { kind: "assign", variable, value: expression(value) };
    return { kind: "print", value: expression(action) };
  }

  #block(kind: "if" | "with" | "range", rest: string): Node {
    const [, first, second, given] = /^\s*(\$\w+)(?:\s*,\s*(\$\w+))?\s*:=(.*)$/s.exec(rest) ?? [];
    if (second !== undefined && kind !== "range") throw new TemplateError(`two variables in {{${kind}${rest}}}`);
    const variables = [first, second].filter((name) => name !== undefined);
    const value = expression(given ?? rest);
    requireDepth(++this.#depth);
    const { nodes: then, end } = this.#list();
    const otherwise = this.#otherwise(end);
    this.#depth--;
    return { kind, variables, value, then, otherwise };
  }

  #otherwise(end: string | undefined): readonly Node[] {
    if (end === undefined) throw new TemplateError("a block has no {{end}}");
    if (end === "end") return [];
    const rest = end.slice("else".length).trim();
    const [, block, condition = ""] = BLOCKS.exec(rest) ?? [];
    if (block === "if" || block === "with") return [this.#block(block, condition)];
    if (rest !== "") throw new TemplateError(`unexpected {{${end}}}`);
    const { nodes, end: last } = this.#list();
    if (last !== "end") throw new TemplateError("a block has no {{end}}");
    return nodes;
  }
}

const TOKEN =
  /\s*(?:("(?:[^"\\\n]|\\.)*"|`[^`]*`)|(\$\w*(?:\.\w+)*|(?:\.\w+)+|\.)|(-?\d+)(?![\w.])|([a-zA-Z_]\w*)|([()|]))/y;

/** `a b | c`, where the value before a bar is the last argument behind it. */
function expression(text: string): Expression {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  const whole = text.trimEnd();
  while (TOKEN.lastIndex < whole.length) {
    const match = TOKEN.exec(whole);
    if (match === null) throw new TemplateError(`this is not known here: {{${text.trim()}}}`);
    tokens.push(match[0].trim());
  }
  const reader = { tokens, at: 0, depth: 0 };
  const found = pipeline(reader);
  if (reader.at < tokens.length) throw new TemplateError(`unexpected ${tokens[reader.at]} in {{${text.trim()}}}`);
  return found;
}

interface TokenReader {
  readonly tokens: readonly string[];
  at: number;
  depth: number;
}

function pipeline(reader: TokenReader): Expression {
  let found = command(reader);
  while (reader.tokens[reader.at] === "|") {
    reader.at++;
    found = command(reader, found);
  }
  return found;
}

function command(reader: TokenReader, last?: Expression): Expression {
  const operands: Expression[] = [];
  let called: string | undefined;
  for (;;) {
    const token = reader.tokens[reader.at];
    if (token === undefined || token === "|" || token === ")") break;
    reader.at++;
    if (/^[a-z]\w*$/i.test(token) && !/^(?:true|false|nil)$/.test(token)) {
      if (!Object.hasOwn(FUNCTIONS, token)) throw new TemplateError(`the function "${token}" is not known here`);
      // A function without arguments there would be another call.
      if (called !== undefined || operands.length > 0) throw new TemplateError(`unexpected ${token}`);
      called = token;
    } else operands.push(operand(token, reader));
  }
  if (called !== undefined) {
    return { kind: "call", name: called, args: last === undefined ? operands : [...operands, last] };
  }
  const [only, ...more] = operands;
  if (only === undefined) throw new TemplateError("a value is missing");
  if (more.length > 0 || last !== undefined) throw new TemplateError("only functions take arguments");
  return only;
}

function operand(token: string, reader: TokenReader): Expression {
  if (token === "(") {
    requireDepth(++reader.depth);
    const inner = pipeline(reader);
    reader.depth--;
    if (reader.tokens[reader.at++] !== ")") throw new TemplateError("a parenthesis has no end");
    const fields = reader.tokens[reader.at];
    if (fields === undefined || !/^\.\w/.test(fields)) return inner;
    reader.at++;
    return { kind: "fields", of: inner, names: fields.slice(1).split(".") };
  }
  if (token.startsWith('"')) {
    try {
      const value: unknown = JSON.parse(token);
      return { kind: "constant", value: String(value) };
    } catch {
      throw new TemplateError(`the text ${token} is not known here`);
    }
  }
  if (token.startsWith("`")) return { kind: "constant", value: token.slice(1, -1) };
  if (/^-?\d/.test(token)) return { kind: "constant", value: Number(token) };
  if (token === "true" || token === "false") return { kind: "constant", value: token === "true" };
  if (token === "nil") return { kind: "constant", value: undefined };
  const [variable = "", ...names] = token.split(".");
  return { kind: "fields", of: variable, names: names.filter((name) => name !== "") };
}

interface Scope {
  readonly dot: TemplateValue;
  readonly variables: Map<string, TemplateValue>;
}

function filled(nodes: readonly Node[], scope: Scope): string {
  return nodes.map((node) => filledNode(node, scope)).join("");
}

function filledNode(node: Node, scope: Scope): string {
  switch (node.kind) {
    case "text":
      return node.text;
    case "print":
      return printed(evaluated(node.value, scope));
    case "assign":
      scope.variables.set(node.variable, evaluated(node.value, scope));
      return "";
    default:
      return filledBlock(node, scope);
  }
}

function filledBlock(node: Extract<Node, { readonly kind: "if" | "with" | "range" }>, scope: Scope): string {
  const value = evaluated(node.value, scope);
  const within = (dot: TemplateValue, ...values: readonly TemplateValue[]): Scope => {
    const variables = new Map(scope.variables);
    for (const [index, name] of node.variables.entries()) variables.set(name, values[index]);
    return { dot, variables };
  };
  if (!isTrue(value)) return filled(node.otherwise, within(scope.dot, value));
  if (node.kind !== "range") return filled(node.then, within(node.kind === "with" ? value : scope.dot, value));
  if (!isList(value)) throw new TemplateError("range takes lists alone here");
  const both = node.variables.length > 1;
  return value.map((each, index) => filled(node.then, both ? within(each, index, each) : within(each, each))).join("");
}

function evaluated(from: Expression, scope: Scope): TemplateValue {
  switch (from.kind) {
    case "constant":
      return from.value;
    case "fields": {
      const start = typeof from.of === "string" ? named(from.of, scope) : evaluated(from.of, scope);
      return from.names.reduce((value, name) => {
        if (typeof value !== "object" || isList(value) || !Object.hasOwn(value, name)) {
          throw new TemplateError(`there is no field "${name}"`);
        }
        return value[name];
      }, start);
    }
    default:
      return (FUNCTIONS[from.name] ?? not)(from.args.map((each) => evaluated(each, scope)));
  }
}

function named(variable: string, { dot, variables }: Scope): TemplateValue {
  if (variable === "") return dot;
  if (!variables.has(variable)) throw new TemplateError(`there is no variable ${variable}`);
  return variables.get(variable);
}

function isList(value: TemplateValue): value is readonly TemplateValue[] {
  return Array.isArray(value);
}

function isTrue(value: TemplateValue): boolean {
  return isList(value) ? value.length > 0 : Boolean(value);
}

function printed(value: TemplateValue): string {
  if (value === undefined) return "<no value>";
  if (typeof value === "object") throw new TemplateError("a list or an object cannot be printed here");
  return String(value);
}

type Builtin = (args: readonly TemplateValue[]) => TemplateValue;

const not: Builtin = ([value]) => !isTrue(value);

const FUNCTIONS: Readonly<Record<string, Builtin>> = {
  not,
  and: (args) => args.find((value) => !isTrue(value)) ?? args.at(-1),
  or: (args) => args.find(isTrue) ?? args.at(-1),
  eq: ([value, ...others]) => others.some((other) => other === value),
  ne: ([value, other]) => value !== other,
  len: ([value]) => {
    if (typeof value === "string") return Buffer.byteLength(value);
    if (isList(value)) return value.length;
    throw new TemplateError("len takes texts and lists alone here");
  },
  print: (args) => args.map(printed).join(""),
};
