import { PeeringError } from "../errors.js";

/** Instructions a pattern may take; repetitions are written out, so `(a{1000}){1000}` is refused. */
const MAX_INSTRUCTIONS = 2_000;
/** Steps of one match, some tens of milliseconds: a long text under a large pattern is refused instead of stalling others. */
const MAX_STEPS = 1_000_000;
/** As in RE2. */
const MAX_REPETITION = 1_000;
const MAX_DEPTH = 100;
/** Parts of a pattern written out: also those that take no instruction, such as an empty group. */
const MAX_EMITTED = 20_000;

type CharacterTest = (code: number) => boolean;

type Assertion = "begin" | "end" | "begin-line" | "end-line" | "boundary" | "no-boundary";

type Instruction =
  | { readonly type: "character"; readonly test: CharacterTest }
  | { readonly type: "assert"; readonly assertion: Assertion }
  /** Goes on at each of these; the first is preferred. */
  | { readonly type: "split"; targets: readonly [number, number] }
  | { readonly type: "jump"; target: number }
  /** Remembers where in the text it is: `2n` at the start of group n, `2n + 1` at its end. */
  | { readonly type: "save"; readonly slot: number }
  | { readonly type: "match" };

type Node =
  | { readonly type: "empty" }
  | { readonly type: "character"; readonly test: CharacterTest }
  | { readonly type: "assert"; readonly assertion: Assertion }
  | { readonly type: "sequence" | "choice"; readonly nodes: readonly Node[] }
  | { readonly type: "group"; readonly node: Node; readonly number: number }
  | {
      readonly type: "repeat";
      readonly node: Node;
      readonly minimum: number;
      readonly maximum: number;
      readonly lazy: boolean;
    };

interface Flags {
  readonly ignoreCase: boolean;
  readonly multiLine: boolean;
  readonly dotAll: boolean;
  readonly swapLazy: boolean;
}

/** Where the groups of one attempt began and ended, the latest first: shared between attempts, so that keeping one costs nothing. */
interface Saved {
  readonly slot: number;
  readonly at: number;
  readonly before: Saved | undefined;
}

/** An attempt at a match, and what it has saved. */
interface Thread {
  readonly index: number;
  readonly saved: Saved | undefined;
}

/**
 * A pattern in the syntax of RE2, matched in time linear in the text: JavaScript's own engine backtracks, and a pattern that a
 * caller chose could stall the process. Look-around and back-references are refused, as in RE2.
 */
export class RegularExpression {
  readonly #program: readonly Instruction[];
  readonly #groups: number;
  readonly #counter: { steps: number };

  /**
   * @param counter - gets the steps that matching takes.
   * @throws {SyntaxError} for what RE2 does not know, and for patterns beyond its limits or ours.
   */
  constructor(pattern: string, counter: { steps: number } = { steps: 0 }) {
    const program: Instruction[] = [];
    const parser = new PatternParser(pattern);
    emit(parser.parse(), program, { left: MAX_EMITTED, instructions: MAX_INSTRUCTIONS });
    program.push({ type: "match" });
    this.#program = program;
    this.#groups = parser.groups;
    this.#counter = counter;
  }

  /**
   * Whether it matches anywhere in `text`.
   * @throws {PeeringError} `resource-exhausted`: it takes too long to tell.
   */
  test(text: string): boolean {
    return this.#run(text, true) !== undefined;
  }

  /**
   * The leftmost match in `text`, of several the one that Perl prefers, and what its groups took of it; those without a part in
   * it took `""`, as in Go. Undefined: there is none.
   * @throws {PeeringError} `resource-exhausted`: it takes too long to tell.
   */
  match(text: string): readonly string[] | undefined {
    const found = this.#run(text, false);
    if (found === undefined) return undefined;
    const places = new Map<number, number>();
    for (let saved = found.saved; saved !== undefined; saved = saved.before) {
      if (!places.has(saved.slot)) places.set(saved.slot, saved.at);
    }
    const characters = Array.from(text);
    return Array.from({ length: this.#groups + 1 }, (_, group) => {
      const [from, to] = [places.get(2 * group), places.get(2 * group + 1)];
      return from === undefined || to === undefined ? "" : characters.slice(from, to).join("");
    });
  }

  /** @param any - the first match that is found will do. */
  #run(text: string, any: boolean): Thread | undefined {
    const program = this.#program;
    if (text.length > MAX_STEPS) throw tooLong();
    const codes = Array.from(text, (character) => character.codePointAt(0) ?? 0);
    // The position in the text at which an instruction was put on the list last.
    const seen = new Int32Array(program.length).fill(-1);
    const stack: Thread[] = [];
    let steps = 0;
    const add = (list: Thread[], start: Thread, at: number): void => {
      stack.push(start);
      for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
        const { index, saved } = next;
        if (seen[index] === at) continue;
        seen[index] = at;
        steps++;
        const instruction = program[index];
        if (instruction === undefined) continue;
        if (instruction.type === "character" || instruction.type === "match") list.push(next);
        else if (instruction.type === "jump") stack.push({ index: instruction.target, saved });
        else if (instruction.type === "save") {
          const kept = any ? undefined : { slot: instruction.slot, at, before: saved };
          stack.push({ index: index + 1, saved: kept });
        } else if (instruction.type === "split") {
          const [first, second] = instruction.targets;
          stack.push({ index: second, saved }, { index: first, saved });
        } else if (asserts(instruction.assertion, codes, at)) stack.push({ index: index + 1, saved });
      }
    };
    let current: Thread[] = [];
    let following: Thread[] = [];
    let matched: Thread | undefined;
    for (let at = 0; at <= codes.length; at++) {
      // It may begin at every character, unless it has begun at an earlier one.
      if (matched === undefined) add(current, { index: 0, saved: { slot: 0, at, before: undefined } }, at);
      else if (current.length === 0) break;
      if (steps > MAX_STEPS) throw tooLong();
      const code = codes[at];
      for (const { index, saved } of current) {
        const instruction = program[index];
        steps++;
        if (instruction?.type === "match") {
          // What follows in the list is less preferred.
          matched = { index, saved: { slot: 1, at, before: saved } };
          break;
        }
        if (code !== undefined && instruction?.type === "character" && instruction.test(code)) {
          add(following, { index: index + 1, saved }, at + 1);
        }
      }
      if (matched !== undefined && any) break;
      [current, following] = [following, current];
      following.length = 0;
    }
    this.#counter.steps += steps + codes.length;
    return matched;
  }
}

function asserts(assertion: Assertion, codes: readonly number[], at: number): boolean {
  switch (assertion) {
    case "begin":
      return at === 0;
    case "end":
      return at === codes.length;
    case "begin-line":
      return at === 0 || codes[at - 1] === 10;
    case "end-line":
      return at === codes.length || codes[at] === 10;
    default: {
      const boundary = isWordAt(codes, at - 1) !== isWordAt(codes, at);
      return boundary === (assertion === "boundary");
    }
  }
}

function isWordAt(codes: readonly number[], at: number): boolean {
  const code = codes[at];
  return code !== undefined && isWord(code);
}

function tooLong(): PeeringError {
  return new PeeringError("resource-exhausted", "a regular expression takes too long for a text this long");
}

function tooLarge(): SyntaxError {
  return new SyntaxError("error parsing regexp: expression too large");
}

/** How much of a pattern may still be written out. */
interface Budget {
  left: number;
  instructions: number;
}

function append(program: Instruction[], budget: Budget, instruction: Instruction): number {
  if (budget.instructions-- <= 0) throw tooLarge();
  return program.push(instruction) - 1;
}

function emit(node: Node, program: Instruction[], budget: Budget): void {
  if (budget.left-- <= 0) throw tooLarge();
  switch (node.type) {
    case "empty":
      return;
    case "character":
    case "assert":
      append(program, budget, node);
      return;
    case "sequence":
      for (const part of node.nodes) emit(part, program, budget);
      return;
    case "choice": {
      const ends: { type: "jump"; target: number }[] = [];
      for (const [index, choice] of node.nodes.entries()) {
        if (index === node.nodes.length - 1) {
          emit(choice, program, budget);
          break;
        }
        const split: { type: "split"; targets: [number, number] } = { type: "split", targets: [0, 0] };
        const at = append(program, budget, split);
        emit(choice, program, budget);
        const end: { type: "jump"; target: number } = { type: "jump", target: 0 };
        ends.push(end);
        append(program, budget, end);
        split.targets = [at + 1, program.length];
      }
      for (const end of ends) end.target = program.length;
      return;
    }
    case "group":
      // Not counted: they look at nothing.
      program.push({ type: "save", slot: 2 * node.number });
      emit(node.node, program, budget);
      program.push({ type: "save", slot: 2 * node.number + 1 });
      return;
    case "repeat": {
      const { minimum, maximum, lazy } = node;
      const unbounded = maximum === Number.POSITIVE_INFINITY;
      let last = program.length;
      for (let count = 0; count < minimum; count++) {
        last = program.length;
        emit(node.node, program, budget);
      }
      if (unbounded && minimum > 0) {
        append(program, budget, { type: "split", targets: preferring(last, program.length + 1, lazy) });
        return;
      }
      const splits: { readonly type: "split"; targets: readonly [number, number] }[] = [];
      for (let count = minimum; count < (unbounded ? 1 : maximum); count++) {
        const split: { readonly type: "split"; targets: readonly [number, number] } = {
          type: "split",
          targets: [0, 0],
        };
        splits.push(split);
        last = append(program, budget, split) + 1;
        split.targets = [last, 0];
        emit(node.node, program, budget);
      }
      if (unbounded) append(program, budget, { type: "split", targets: preferring(last, program.length + 1, lazy) });
      for (const split of splits) split.targets = preferring(split.targets[0], program.length, lazy);
    }
  }
}

/** Once more, or on: greedy repetitions try the former first. */
function preferring(again: number, on: number, lazy: boolean): readonly [number, number] {
  return lazy ? [on, again] : [again, on];
}

const isDigit: CharacterTest = (code) => code >= 48 && code <= 57;
const isWord: CharacterTest = (code) =>
  isDigit(code) || (code >= 65 && code <= 90) || code === 95 || (code >= 97 && code <= 122);
const isSpace: CharacterTest = (code) => code === 32 || code === 9 || code === 10 || code === 12 || code === 13;

const isUpper: CharacterTest = (code) => code >= 65 && code <= 90;
const isLower: CharacterTest = (code) => code >= 97 && code <= 122;
const isGraph: CharacterTest = (code) => code > 32 && code < 127;

const perlClasses: Readonly<Record<string, CharacterTest>> = { d: isDigit, w: isWord, s: isSpace };

const namedClasses: Readonly<Record<string, CharacterTest>> = {
  alnum: (code) => isDigit(code) || isUpper(code) || isLower(code),
  alpha: (code) => isUpper(code) || isLower(code),
  ascii: (code) => code < 128,
  blank: (code) => code === 32 || code === 9,
  cntrl: (code) => code < 32 || code === 127,
  digit: isDigit,
  graph: isGraph,
  lower: isLower,
  print: (code) => code === 32 || isGraph(code),
  punct: (code) => isGraph(code) && !isDigit(code) && !isUpper(code) && !isLower(code),
  space: (code) => isSpace(code) || code === 11,
  upper: isUpper,
  word: isWord,
  xdigit: (code) => isDigit(code) || (code >= 65 && code <= 70) || (code >= 97 && code <= 102),
};

const controlEscapes: Readonly<Record<string, number>> = { a: 7, f: 12, t: 9, n: 10, r: 13, v: 11 };

function negated(test: CharacterTest): CharacterTest {
  return (code) => !test(code);
}

/** Every character that differs from `code` in case alone, and itself. */
function foldings(code: number): readonly number[] {
  const character = String.fromCodePoint(code);
  const found = new Set([code]);
  for (const other of [character.toLowerCase(), character.toUpperCase()]) {
    const codes = Array.from(other, (part) => part.codePointAt(0) ?? 0);
    const [only] = codes;
    if (codes.length === 1 && only !== undefined) found.add(only);
  }
  return [...found];
}

function folded(test: CharacterTest): CharacterTest {
  return (code) => foldings(code).some(test);
}

class PatternParser {
  readonly #pattern: readonly string[];
  #position = 0;
  #depth = 0;
  #flags: Flags = { ignoreCase: false, multiLine: false, dotAll: false, swapLazy: false };
  #groups = 0;

  constructor(pattern: string) {
    this.#pattern = Array.from(pattern);
  }

  /** How many groups capture, once it is parsed. */
  get groups(): number {
    return this.#groups;
  }

  parse(): Node {
    const node = this.#choice();
    if (this.#position < this.#pattern.length) throw problem("unexpected )", this.#pattern.join(""));
    return node;
  }

  #peek(offset = 0): string | undefined {
    return this.#pattern[this.#position + offset];
  }

  #take(text: string): boolean {
    for (const [offset, character] of Array.from(text).entries()) if (this.#peek(offset) !== character) return false;
    this.#position += text.length;
    return true;
  }

  #rest(from: number): string {
    return this.#pattern.slice(from).join("");
  }

  #choice(): Node {
    const nodes = [this.#sequence()];
    while (this.#take("|")) nodes.push(this.#sequence());
    return nodes.length === 1 ? (nodes[0] ?? { type: "empty" }) : { type: "choice", nodes };
  }

  #sequence(): Node {
    const nodes: Node[] = [];
    for (;;) {
      const next = this.#peek();
      if (next === undefined || next === "|" || next === ")") return { type: "sequence", nodes };
      const start = this.#position;
      nodes.push(this.#repeated(this.#atom(), start));
    }
  }

  #repeated(atom: Node, start: number): Node {
    const begin = this.#position;
    const range = this.#repetition();
    if (range === undefined) return atom;
    const { swapLazy } = this.#flags;
    const lazy = this.#take("?") !== swapLazy;
    const second = this.#position;
    if (this.#repetition() !== undefined) {
      throw problem("invalid nested repetition operator", this.#pattern.slice(begin, this.#position).join(""));
    }
    this.#position = second;
    const [minimum, maximum] = range;
    const most = maximum === Number.POSITIVE_INFINITY ? minimum : maximum;
    if (most > MAX_REPETITION || minimum > maximum) {
      throw problem("invalid repeat count", this.#pattern.slice(start, this.#position).join(""));
    }
    return { type: "repeat", node: atom, minimum, maximum, lazy };
  }

  #repetition(): readonly [number, number] | undefined {
    if (this.#take("*")) return [0, Number.POSITIVE_INFINITY];
    if (this.#take("+")) return [1, Number.POSITIVE_INFINITY];
    if (this.#take("?")) return [0, 1];
    if (this.#peek() !== "{") return undefined;
    // A brace that begins no repetition is an ordinary character.
    const found = /^\{(\d{1,9})(?:(,)(\d{1,9})?)?\}/.exec(
      this.#pattern.slice(this.#position, this.#position + 24).join(""),
    );
    if (found === null) return undefined;
    const [all, minimum = "0", comma, maximum] = found;
    this.#position += all.length;
    const least = Number(minimum);
    return [least, comma === undefined ? least : maximum === undefined ? Number.POSITIVE_INFINITY : Number(maximum)];
  }

  #atom(): Node {
    const next = this.#pattern[this.#position++] ?? "";
    switch (next) {
      case "(":
        return this.#group();
      case "[":
        return { type: "character", test: this.#class() };
      case ".": {
        const { dotAll } = this.#flags;
        return { type: "character", test: (code) => dotAll || code !== 10 };
      }
      case "^":
        return { type: "assert", assertion: this.#flags.multiLine ? "begin-line" : "begin" };
      case "$":
        return { type: "assert", assertion: this.#flags.multiLine ? "end-line" : "end" };
      case "*":
      case "+":
      case "?":
        throw problem("missing argument to repetition operator", next);
      case "\\":
        return this.#escape();
      default:
        return this.#literal(next.codePointAt(0) ?? 0);
    }
  }

  #literal(code: number): Node {
    return { type: "character", test: this.#characterTest(code) };
  }

  #characterTest(code: number): CharacterTest {
    if (!this.#flags.ignoreCase) return (other) => other === code;
    const codes = foldings(code);
    return (other) => codes.includes(other);
  }

  #group(): Node {
    const start = this.#position - 1;
    if (++this.#depth > MAX_DEPTH) throw problem("expression nests too deeply", this.#pattern.join(""));
    const outside = this.#flags;
    let number: number | undefined;
    if (!this.#take("?")) number = ++this.#groups;
    else {
      const name = /^P?<([A-Za-z0-9_]+)>/.exec(this.#rest(this.#position));
      if (name !== null) {
        this.#position += name[0].length;
        number = ++this.#groups;
      } else if (this.#takeFlags(start)) {
        // The flags stand alone and hold to the end of the group around them.
        this.#depth--;
        return { type: "empty" };
      }
    }
    const node = this.#choice();
    if (!this.#take(")")) throw problem("missing closing )", this.#pattern.join(""));
    this.#flags = outside;
    this.#depth--;
    return number === undefined ? node : { type: "group", node, number };
  }

  /** `i)` or `i:` and the like; true: nothing but flags. */
  #takeFlags(start: number): boolean {
    let { ignoreCase, multiLine, dotAll, swapLazy } = this.#flags;
    let on = true;
    for (;;) {
      const next = this.#pattern[this.#position++];
      if (next === "i") ignoreCase = on;
      else if (next === "m") multiLine = on;
      else if (next === "s") dotAll = on;
      else if (next === "U") swapLazy = on;
      else if (next === "-" && on) on = false;
      else if (next === ":" || next === ")") {
        this.#flags = { ignoreCase, multiLine, dotAll, swapLazy };
        return next === ")";
      } else {
        // Look-around above all is not RE2's.
        throw problem("invalid or unsupported Perl syntax", this.#pattern.slice(start, this.#position).join(""));
      }
    }
  }

  #escape(): Node {
    const next = this.#peek();
    if (next === undefined) throw problem("trailing backslash at end of expression", "");
    const assertions: Readonly<Record<string, Assertion>> = { A: "begin", z: "end", b: "boundary", B: "no-boundary" };
    const assertion = Object.hasOwn(assertions, next) ? assertions[next] : undefined;
    if (assertion !== undefined) {
      this.#position++;
      return { type: "assert", assertion };
    }
    if (this.#take("Q")) return this.#quoted();
    const test = this.#classEscape();
    return test === undefined ? this.#literal(this.#characterEscape()) : { type: "character", test };
  }

  /** All up to `\E` is meant literally. */
  #quoted(): Node {
    const nodes: Node[] = [];
    while (this.#peek() !== undefined && !this.#take("\\E")) {
      nodes.push(this.#literal(this.#pattern[this.#position++]?.codePointAt(0) ?? 0));
    }
    return { type: "sequence", nodes };
  }

  /** What follows a backslash, when it names a class: `d`, `W`, `pL`, `P{Greek}`. */
  #classEscape(): CharacterTest | undefined {
    const next = this.#peek() ?? "";
    const lower = next.toLowerCase();
    if (Object.hasOwn(perlClasses, lower)) {
      this.#position++;
      const test = perlClasses[lower];
      if (test !== undefined) return next === lower ? test : negated(test);
    }
    if (lower !== "p" || (next !== "p" && next !== "P")) return undefined;
    const found = /^[pP](?:\{(\^?)([A-Za-z_]+)\}|([A-Z]))/.exec(this.#rest(this.#position));
    const shown = `\\${this.#pattern.slice(this.#position, this.#position + (found?.[0].length ?? 2)).join("")}`;
    if (found === null) throw problem("invalid character class range", shown);
    this.#position += found[0].length;
    const [, caret, long, short] = found;
    const test = unicodeClass(long ?? short ?? "");
    if (test === undefined) throw problem("invalid character class range", shown);
    const positive = this.#flags.ignoreCase ? folded(test) : test;
    return (next === "P") === (caret === "^") ? positive : negated(positive);
  }

  /** What follows a backslash, when it stands for one character. */
  #characterEscape(): number {
    const start = this.#position - 1;
    const next = this.#pattern[this.#position++];
    if (next === undefined) throw problem("trailing backslash at end of expression", "");
    const control = Object.hasOwn(controlEscapes, next) ? controlEscapes[next] : undefined;
    if (control !== undefined) return control;
    const rest = this.#pattern.slice(this.#position, this.#position + 12).join("");
    if (next === "x") {
      const found = /^(?:([0-9a-fA-F]{2})|\{([0-9a-fA-F]{1,8})\})/.exec(rest);
      const code = Number.parseInt(found?.[1] ?? found?.[2] ?? "", 16);
      if (found !== null && code <= 0x10ffff) {
        this.#position += found[0].length;
        return code;
      }
    } else if (next === "0" || (/[1-7]/.test(next) && /^[0-7]/.test(rest))) {
      // A digit alone would be a back-reference, which RE2 does not know.
      const digits = /^[0-7]{0,2}/.exec(rest)?.[0] ?? "";
      this.#position += digits.length;
      return Number.parseInt(next + digits, 8);
    } else if (/[!-/:-@[-`{-~]/.test(next)) return next.codePointAt(0) ?? 0;
    throw problem("invalid escape sequence", this.#pattern.slice(start, this.#position).join(""));
  }

  #class(): CharacterTest {
    const start = this.#position - 1;
    const negate = this.#take("^");
    const tests: CharacterTest[] = [];
    for (let first = true; ; first = false) {
      const next = this.#peek();
      if (next === undefined) throw problem("missing closing ]", this.#rest(start));
      if (next === "]" && !first) break;
      const named = next === "[" ? this.#namedClass() : undefined;
      if (named !== undefined) {
        tests.push(named);
        continue;
      }
      if (next === "\\") {
        this.#position++;
        const test = this.#classEscape();
        if (test !== undefined) {
          tests.push(test);
          continue;
        }
        this.#position--;
      }
      const low = this.#classCharacter();
      let high = low;
      if (this.#peek() === "-" && this.#peek(1) !== undefined && this.#peek(1) !== "]") {
        this.#position++;
        high = this.#classCharacter();
        if (high < low) {
          throw problem("invalid character class range", `${String.fromCodePoint(low)}-${String.fromCodePoint(high)}`);
        }
      }
      tests.push((code) => code >= low && code <= high);
    }
    this.#position++;
    const any: CharacterTest = (code) => tests.some((test) => test(code));
    const test = this.#flags.ignoreCase ? folded(any) : any;
    return negate ? negated(test) : test;
  }

  #classCharacter(): number {
    if (this.#take("\\")) return this.#characterEscape();
    return this.#pattern[this.#position++]?.codePointAt(0) ?? 0;
  }

  /** `[:alpha:]` and `[:^alpha:]`; undefined: a bracket like any other character. */
  #namedClass(): CharacterTest | undefined {
    const found = /^\[:(\^?)([a-z]+):\]/.exec(this.#pattern.slice(this.#position, this.#position + 16).join(""));
    if (found === null) return undefined;
    const [all, caret, name = ""] = found;
    const test = Object.hasOwn(namedClasses, name) ? namedClasses[name] : undefined;
    if (test === undefined) throw problem("invalid character class range", all);
    this.#position += all.length;
    return caret === "^" ? negated(test) : test;
  }
}

/** A general category or a script, by the name that RE2 and JavaScript share. */
function unicodeClass(name: string): CharacterTest | undefined {
  if (name === "Any") return () => true;
  for (const property of [`gc=${name}`, `sc=${name}`]) {
    let pattern: RegExp;
    try {
      pattern = new RegExp(`^\\p{${property}}$`, "u");
    } catch {
      continue;
    }
    return (code) => pattern.test(String.fromCodePoint(code));
  }
  return undefined;
}

function problem(reason: string, where: string): SyntaxError {
  return new SyntaxError(
    where === "" ? `error parsing regexp: ${reason}` : `error parsing regexp: ${reason}: \`${where}\``,
  );
}
