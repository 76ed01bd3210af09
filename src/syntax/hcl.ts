import { Buffer } from "node:buffer";
import { doAll, StepMeter, type Steps } from "../base/steps.js";
import { goEscape } from "./go-escape.js";
import {
  type GoJson,
  GoJsonError,
  type GoMember,
  GoNumber,
  isGoList,
  isGoObject,
  type PlainJson,
  wholeValueSteps,
} from "./go-json.js";

/** A text that cannot be read; the message begins with the position, `At line:column: ` or `At line n: `. */
export class HclError extends Error {
  override readonly name = "HclError";
}

interface Token {
  readonly kind: "name" | "text" | "number" | "punctuation" | "end";
  readonly text: string;
  readonly value: string | number;
  readonly offset: number;
}

/** The value of a key. */
export type HclValue = null | boolean | number | string | readonly HclValue[] | HclBody;

/** The members between braces, or of a file. */
export class HclBody {
  readonly items: readonly HclItem[];
  constructor(items: readonly HclItem[]) {
    this.items = items;
  }
}

export interface HclItem {
  /** One for an assignment; for a block its type and its labels. */
  readonly keys: readonly [string, ...string[]];
  readonly value: HclValue;
  /** Whether it stands in braces: then it may be given more than once. */
  readonly block: boolean;
  /** The line of the first key, counted from 1. */
  readonly line: number;
}

/** Far beyond any configuration, and far from the end of the stack. */
const MAX_DEPTH = 200;

/**
 * Reads HCL 1, the language of Consul's config entries and ACL rules, or JSON when the text begins with `{`. `${…}` in texts
 * is kept as it stands.
 * @param options - `secret`: errors are not to quote anything of the text but its marks. Default false.
 * @throws {HclError}
 */
export function parseHclBody(text: string, options: { readonly secret?: boolean } = {}): HclBody {
  return doAll(hclBodySteps(text, options));
}

/** As {@link parseHclBody}, in steps. */
export function* hclBodySteps(text: string, options: { readonly secret?: boolean } = {}): Steps<HclBody> {
  const source = text.startsWith("\ufeff") ? text.slice(1) : text;
  if (source.trimStart().startsWith("{")) return yield* jsonBody(source);
  return yield* new Parser(source, options.secret ?? false).file();
}

/**
 * The same as one object. A block (`web { … }`) is an object under its key; labels (`service "web" { … }`) are keys inside
 * of it, and blocks of one key with different labels are one object. A value that is given more than once under the same keys
 * becomes a list: of the blocks in their order, or for plain values the last one alone.
 * @param options - as of {@link parseHclBody}.
 * @throws {HclError}
 */
export function parseHcl(text: string, options: { readonly secret?: boolean } = {}): { [key: string]: PlainJson } {
  return doAll(hclSteps(text, options));
}

/** As {@link parseHcl}, in steps. */
export function* hclSteps(
  text: string,
  options: { readonly secret?: boolean } = {},
): Steps<{ [key: string]: PlainJson }> {
  const body = yield* hclBodySteps(text, options);
  return yield* objectOf(body, new StepMeter());
}

function* jsonBody(source: string): Steps<HclBody> {
  const bytes = Buffer.from(source);
  // One character is one byte, as offsets are counted in bytes.
  const lines = new Lines(bytes.toString("latin1"));
  const meter = new StepMeter();
  function* hclOf(json: GoJson): Steps<HclValue> {
    if (meter.isOver(VALUE_SIZE)) yield;
    if (json instanceof GoNumber) return Number(json.text);
    if (isGoObject(json)) return yield* bodyOf(json.members);
    if (!isGoList(json)) return json;
    const elements: HclValue[] = [];
    for (const element of json) elements.push(yield* hclOf(element));
    return elements;
  }
  function* bodyOf(members: readonly GoMember[]): Steps<HclBody> {
    const items: HclItem[] = [];
    for (const { key, value, offset } of members) {
      const line = lines.at(offset);
      items.push({ keys: [key], value: yield* hclOf(value), block: false, line });
    }
    return new HclBody(items);
  }
  try {
    const json = yield* wholeValueSteps(bytes);
    return yield* bodyOf(isGoObject(json) ? json.members : []);
  } catch (error) {
    if (!(error instanceof GoJsonError)) throw error;
    throw new HclError(`At ${positionText(bytes.toString("latin1"), error.offset ?? 0)}: ${error.message}`);
  }
}

function positionText(source: string, offset: number): string {
  const before = source.slice(0, offset);
  return `${before.split("\n").length}:${offset - before.lastIndexOf("\n")}`;
}

/** Counts lines for offsets that only grow. */
class Lines {
  readonly #text: string;
  #line = 1;
  /** Where the line ends. Kept, as a text of one long line would be searched through for each offset. */
  #end: number;

  constructor(text: string) {
    this.#text = text;
    this.#end = text.indexOf("\n");
  }

  at(offset: number): number {
    while (this.#end >= 0 && this.#end < offset) {
      this.#line++;
      this.#end = this.#text.indexOf("\n", this.#end + 1);
    }
    return this.#line;
  }
}

const NAME_START = /[\p{L}_]/u;
const NAME_PART = /[\p{L}\p{Nd}_.-]/u;
/** Characters of a text that mean themselves. */
const PLAIN = /[^"\\$\n]+/y;
const SPACE = /\s+/y;
const NUMBER = /-?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)/y;
const HEREDOC = /<<(-?)([\p{L}\p{Nd}_]+)\r?\n/uy;
/** Weights in a step: of a character that is read, and of a value that is made into another form. */
const CHARACTER_SIZE = 1;
const VALUE_SIZE = 2;

class Parser {
  readonly #meter = new StepMeter();
  #measured = 0;
  readonly #source: string;
  readonly #lines: Lines;
  readonly #secret: boolean;
  #position = 0;
  #token: Token;

  constructor(source: string, secret: boolean) {
    this.#source = source;
    this.#secret = secret;
    this.#lines = new Lines(source);
    this.#token = this.#scan();
  }

  file(): Steps<HclBody> {
    return this.#items("end", 0);
  }

  *#items(closing: "end" | "}", depth: number): Steps<HclBody> {
    const items: HclItem[] = [];
    while (!this.#at(closing)) {
      if (this.#token.kind === "end") throw this.#error("object expected closing RBRACE got: EOF");
      items.push(yield* this.#item(depth));
      if (this.#at(",")) this.#next();
    }
    return new HclBody(items);
  }

  *#item(depth: number): Steps<HclItem> {
    const line = this.#lines.at(this.#token.offset);
    const names: string[] = [];
    while (this.#token.kind === "name" || this.#token.kind === "text") {
      names.push(this.#token.text);
      this.#next();
    }
    const [key, ...labels] = names;
    if (key === undefined) throw this.#error(`unexpected token ${this.#shown()}, expected a key`);
    if (this.#at("=")) {
      if (labels.length > 0) throw this.#error("only one key may stand in front of an assignment");
      this.#next();
      if (this.#token.kind === "end") throw this.#error("an assignment needs a value");
      const block = this.#at("{");
      return { keys: [key], value: yield* this.#value(depth), block, line };
    }
    if (!this.#at("{")) {
      const what = this.#secret ? "a key" : `key ${JSON.stringify(names.join(" "))}`;
      throw this.#error(`${what} needs '=' or '{', got ${this.#shown()}`);
    }
    // Each label is one more level of the object that is made of it.
    return { keys: [key, ...labels], value: yield* this.#value(depth + labels.length), block: true, line };
  }

  *#value(depth: number): Steps<HclValue> {
    const read = this.#position - this.#measured;
    this.#measured = this.#position;
    if (this.#meter.isOver(CHARACTER_SIZE * read)) yield;
    if (depth >= MAX_DEPTH) throw this.#error(`more than ${MAX_DEPTH} levels of nesting`);
    const token = this.#token;
    if (token.kind === "text" || token.kind === "number") {
      this.#next();
      return token.value;
    }
    if (token.kind === "name" && (token.text === "true" || token.text === "false")) {
      this.#next();
      return token.text === "true";
    }
    if (this.#at("{")) {
      this.#next();
      const object = yield* this.#items("}", depth + 1);
      this.#next();
      return object;
    }
    if (this.#at("[")) return yield* this.#list(depth);
    throw this.#error(`unexpected token ${this.#shown()}, expected a value`);
  }

  *#list(depth: number): Steps<HclValue> {
    const elements: HclValue[] = [];
    this.#next();
    while (!this.#at("]")) {
      elements.push(yield* this.#value(depth + 1));
      if (this.#at(",")) this.#next();
      else if (!this.#at("]"))
        throw this.#error(`error parsing list, expected comma or list end, got ${this.#shown()}`);
    }
    this.#next();
    return elements;
  }

  #at(what: string): boolean {
    const { kind, text } = this.#token;
    return what === "end" ? kind === "end" : kind === "punctuation" && text === what;
  }

  #next(): void {
    this.#token = this.#scan();
  }

  #shown(): string {
    const { kind, text } = this.#token;
    if (kind === "end") return "EOF";
    return this.#secret && kind !== "punctuation" ? `a ${kind}` : JSON.stringify(text);
  }

  #error(text: string, offset = this.#token.offset): HclError {
    return new HclError(`At ${positionText(this.#source, offset)}: ${text}`);
  }

  #scan(): Token {
    this.#skip();
    const offset = this.#position;
    const character = this.#source[offset];
    const token = (kind: Token["kind"], text: string, value: Token["value"] = text): Token => ({
      kind,
      text,
      value,
      offset,
    });
    if (character === undefined) return token("end", "");
    if ("{}[]=,".includes(character)) {
      this.#position++;
      return token("punctuation", character);
    }
    if (character === '"') return token("text", this.#string());
    if (character === "<") return token("text", this.#heredoc());
    if (NAME_START.test(character)) {
      while (NAME_PART.test(this.#source[this.#position] ?? "")) this.#position++;
      return token("name", this.#source.slice(offset, this.#position));
    }
    NUMBER.lastIndex = offset;
    const [number] = NUMBER.exec(this.#source) ?? [];
    if (number === undefined) throw this.#error(`illegal character ${JSON.stringify(character)}`, offset);
    this.#position += number.length;
    return token("number", number, numberOf(number));
  }

  #skip(): void {
    for (;;) {
      const rest = this.#source[this.#position];
      if (rest === undefined) return;
      SPACE.lastIndex = this.#position;
      const [space = ""] = SPACE.exec(this.#source) ?? [];
      if (space !== "") {
        this.#position += space.length;
      } else if (rest === "#" || this.#source.startsWith("//", this.#position)) {
        const end = this.#source.indexOf("\n", this.#position);
        this.#position = end < 0 ? this.#source.length : end;
      } else if (this.#source.startsWith("/*", this.#position)) {
        const end = this.#source.indexOf("*/", this.#position + 2);
        if (end < 0) throw this.#error("comment not terminated", this.#position);
        this.#position = end + 2;
      } else return;
    }
  }

  #string(): string {
    const start = this.#position++;
    const parts: Buffer[] = [];
    let text = "";
    // Inside of `${…}` quotes do not end the text.
    let braces = 0;
    for (;;) {
      if (braces === 0) {
        PLAIN.lastIndex = this.#position;
        const [plain = ""] = PLAIN.exec(this.#source) ?? [];
        text += plain;
        this.#position += plain.length;
      }
      const character = this.#source[this.#position];
      if (character === undefined || (character === "\n" && braces === 0)) {
        throw this.#error("literal not terminated", start);
      }
      if (braces === 0 && character === "\\") {
        const escaped = goEscape(this.#source, this.#position);
        if (escaped === undefined) throw this.#error("illegal char escape", this.#position);
        this.#position += escaped.length;
        // In bytes: a character may be made of several escapes.
        parts.push(Buffer.from(text), escaped.bytes);
        text = "";
        continue;
      }
      this.#position++;
      if (braces === 0 && character === '"') {
        return parts.length === 0 ? text : Buffer.concat([...parts, Buffer.from(text)]).toString();
      }
      if (braces === 0 && character === "$" && this.#source[this.#position] === "{") {
        text += "${";
        this.#position++;
        braces = 1;
        continue;
      }
      if (braces > 0 && character === "{") braces++;
      if (braces > 0 && character === "}") braces--;
      text += character;
    }
  }

  #heredoc(): string {
    const start = this.#position;
    HEREDOC.lastIndex = start;
    const [opening, indented, anchor] = HEREDOC.exec(this.#source) ?? [];
    if (opening === undefined || anchor === undefined) throw this.#error("heredoc expected", start);
    this.#position += opening.length;
    const lines: string[] = [];
    for (;;) {
      const end = this.#source.indexOf("\n", this.#position);
      const line = this.#source.slice(this.#position, end < 0 ? undefined : end);
      this.#position = end < 0 ? this.#source.length : end;
      if (line.trim() === anchor) break;
      if (end < 0) throw this.#error("heredoc not terminated", start);
      lines.push(line);
      this.#position++;
    }
    const text = indented === "-" ? unindented(lines) : lines;
    return text.map((line) => `${line}\n`).join("");
  }
}

/** Without the space that all lines begin with. */
function unindented(lines: readonly string[]): readonly string[] {
  const widths = lines.filter((line) => line.trim() !== "").map((line) => line.length - line.trimStart().length);
  const width = widths.reduce((least, each) => Math.min(least, each), Number.POSITIVE_INFINITY);
  return lines.map((line) => (line.trim() === "" ? line.trimStart() : line.slice(width)));
}

function numberOf(text: string): number {
  const negative = text.startsWith("-");
  const digits = negative ? text.slice(1) : text;
  // A leading zero means octal, as in Go's integers.
  const value = /^0[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number(digits);
  return negative ? -value : value;
}

/** All that stands under one key. */
type Member =
  | { readonly type: "values"; readonly values: HclValue[]; readonly blocks: boolean }
  | { readonly type: "labels"; readonly members: Map<string, Member> };

function add(members: Map<string, Member>, keys: readonly string[], value: HclValue, block: boolean): void {
  const [key = "", ...labels] = keys;
  const present = members.get(key);
  if (labels.length > 0) {
    const labelled = present?.type === "labels" ? present.members : new Map<string, Member>();
    add(labelled, labels, value, block);
    members.set(key, { type: "labels", members: labelled });
  } else if (block && present?.type === "values" && present.blocks) {
    present.values.push(value);
  } else {
    members.set(key, { type: "values", values: [value], blocks: block });
  }
}

function* objectOf({ items }: HclBody, meter: StepMeter): Steps<{ [key: string]: PlainJson }> {
  const members = new Map<string, Member>();
  for (const { keys, value, block } of items) {
    if (meter.isOver(VALUE_SIZE)) yield;
    add(members, keys, value, block);
  }
  return yield* ofMembers(members, meter);
}

function* ofMembers(members: ReadonlyMap<string, Member>, meter: StepMeter): Steps<{ [key: string]: PlainJson }> {
  const entries: [string, PlainJson][] = [];
  for (const [key, member] of members) {
    const value = member.type === "labels" ? ofMembers(member.members, meter) : ofValues(member.values, meter);
    entries.push([key, yield* value]);
  }
  return Object.fromEntries(entries);
}

function* ofValues(values: readonly HclValue[], meter: StepMeter): Steps<PlainJson> {
  return values.length > 1 ? yield* plainList(values, meter) : yield* plain(values[0] ?? null, meter);
}

function* plainList(values: readonly HclValue[], meter: StepMeter): Steps<PlainJson[]> {
  const list: PlainJson[] = [];
  for (const value of values) list.push(yield* plain(value, meter));
  return list;
}

function* plain(value: HclValue, meter: StepMeter): Steps<PlainJson> {
  if (meter.isOver(VALUE_SIZE)) yield;
  if (value instanceof HclBody) return yield* objectOf(value, meter);
  return isHclList(value) ? yield* plainList(value, meter) : value;
}

export function isHclList(value: HclValue): value is readonly HclValue[] {
  return Array.isArray(value);
}
