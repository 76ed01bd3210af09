import { PeeringError } from "../base/errors.js";

// Why this is not re2js (2.10.0, tried on 2026-11-30 on two busy cores). It matches as Go does, in at most 13 ns for each
// instruction and character, and about 1 ns more for each group that is asked for: that can be bounded. But a pattern stalls it
// while it is compiled, before its size can be asked for, and no option bounds that:
// - `(?i)` and 4,600 times `[a-\x{1e943}]`, 60 KB: 12.7 s; 290 times, 3.8 KB: 0.7 s;
// - `a{1000}` 1,300 times, 9 KB: 2.4 s and 860 MB;
// - `^` and 495 different characters, each with a `?`, 1 KB: 0.6 s.
// A pattern would have to be shorter than a list of service names may be. Imported with `peerage` it takes 8 ms and 1.1 MB more.

/** Instructions a pattern may take; repetitions are written out. */
const MAX_INSTRUCTIONS = 2_000;
/** Steps of one match, some tens of milliseconds: a long text under a large pattern is refused instead of stalling others. */
const MAX_STEPS = 1_000_000;
/** As in RE2. */
const MAX_REPETITION = 1_000;
const MAX_DEPTH = 100;
/** Repetitions of repetitions without a group around the inner one, such as `a*(?i)*`. */
const MAX_REPEATED = 10;
/** Parts of a pattern written out: also those that take no instruction, such as an empty group. */
const MAX_EMITTED = 20_000;

type CharacterTest = (code: number) => boolean;

type Assertion = "begin" | "end" | "begin-line" | "end-line" | "boundary" | "no-boundary";

interface CharacterNode {
  readonly type: "character";
  readonly test: CharacterTest;
  /** How many parts the test looks at. */
  readonly parts: number;
}

type Instruction =
  | CharacterNode
  | { readonly type: "assert"; readonly assertion: Assertion }
  /** Goes on at each of these; the first is preferred. */
  | { readonly type: "split"; targets: readonly [number, number] }
  | { readonly type: "jump"; target: number }
  /** Remembers where in the text it is: `2n` at the start of group n, `2n + 1` at its end. */
  | { readonly type: "save"; readonly slot: number }
  | { readonly type: "match" };

type Node =
  | { readonly type: "empty" }
  | CharacterNode
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

interface Repetition {
  readonly minimum: number;
  readonly maximum: number;
}

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

/** An attempt at a match, and the positions it has saved. */
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
  readonly #counter: { steps: number } | undefined;

  /**
   * @param counter - gets the steps that matching takes. Patterns that share one share its bound: all of them together may take
   *   no more steps than one. Its owner sets it back. Default: each match has the bound for itself.
   * @throws {SyntaxError} for what RE2 does not know, and for patterns beyond its limits or ours.
   */
  constructor(pattern: string, counter?: { steps: number }) {
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
   * The leftmost match in `text`, of several the one that Perl prefers, and the text of its groups; those without a part in
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
    const before = this.#counter?.steps ?? 0;
    if (before + text.length > MAX_STEPS) throw tooLong();
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
      const code = codes[at];
      for (const { index, saved } of current) {
        const instruction = program[index];
        // A large class is no single step.
        steps += instruction?.type === "character" ? instruction.parts : 1;
        if (before + steps > MAX_STEPS) throw tooLong();
        if (instruction?.type === "match") {
          // Threads later in the list are less preferred.
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
    if (this.#counter !== undefined) this.#counter.steps += steps + codes.length;
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
      if (minimum === 0 && maximum === Number.POSITIVE_INFINITY && !mayBeEmpty(node.node)) {
        // One loop, as in Go; which of several matches is preferred depends on it.
        const split: { type: "split"; targets: readonly [number, number] } = { type: "split", targets: [0, 0] };
        const at = append(program, budget, split);
        emit(node.node, program, budget);
        program.push({ type: "jump", target: at });
        split.targets = preferring(at + 1, program.length, lazy);
        return;
      }
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

/** Whether it matches without taking a character. */
function mayBeEmpty(node: Node): boolean {
  switch (node.type) {
    case "empty":
    case "assert":
      return true;
    case "character":
      return false;
    case "sequence":
      return node.nodes.every(mayBeEmpty);
    case "choice":
      return node.nodes.some(mayBeEmpty);
    case "group":
      return mayBeEmpty(node.node);
    case "repeat":
      return node.minimum === 0 || mayBeEmpty(node.node);
  }
}

/** How often repetitions within repetitions write a part out, at most. */
function timesOf(node: Node): number {
  switch (node.type) {
    case "sequence":
    case "choice":
      return node.nodes.reduce((most, part) => Math.max(most, timesOf(part)), 1);
    case "group":
      return timesOf(node.node);
    case "repeat": {
      const { minimum, maximum } = node;
      if (maximum === 0) return 1;
      // `*`, `+` and `?` do not count, and neither does `{0,}`.
      return Math.max(1, maximum === Number.POSITIVE_INFINITY ? minimum : maximum) * timesOf(node.node);
    }
    default:
      return 1;
  }
}

/** Once more, or on: greedy repetitions try the former first. */
function preferring(again: number, on: number, lazy: boolean): readonly [number, number] {
  return lazy ? [on, again] : [again, on];
}

/** The characters that one part of a class matches, or all others. */
interface Part {
  readonly test: CharacterTest;
  readonly isNegative: boolean;
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

/** Characters that differ in case alone, where JavaScript's upper and lower case of one of them do not lead to all others. */
const FOLDINGS =
  "Kk\u212a Ss\u017f \u00b5\u039c\u03bc \u00c5\u00e5\u212b \u00df\u1e9e \u01c4\u01c5\u01c6 " +
  "\u01c7\u01c8\u01c9 \u01ca\u01cb\u01cc \u01f1\u01f2\u01f3 \u0345\u0399\u03b9\u1fbe \u0390\u1fd3 " +
  "\u0392\u03b2\u03d0 \u0395\u03b5\u03f5 \u0398\u03b8\u03d1\u03f4 \u039a\u03ba\u03f0 \u03a0\u03c0\u03d6 " +
  "\u03a1\u03c1\u03f1 \u03a3\u03c2\u03c3 \u03a6\u03c6\u03d5 \u03a9\u03c9\u2126 \u03b0\u1fe3 " +
  "\u0412\u0432\u1c80 \u0414\u0434\u1c81 \u041e\u043e\u1c82 \u0421\u0441\u1c83 \u0422\u0442\u1c84\u1c85 " +
  "\u042a\u044a\u1c86 \u0462\u0463\u1c87 \u1c88\ua64a\ua64b \u1e60\u1e61\u1e9b \u1f80\u1f88 \u1f81\u1f89 " +
  "\u1f82\u1f8a \u1f83\u1f8b \u1f84\u1f8c \u1f85\u1f8d \u1f86\u1f8e \u1f87\u1f8f \u1f90\u1f98 \u1f91\u1f99 " +
  "\u1f92\u1f9a \u1f93\u1f9b \u1f94\u1f9c \u1f95\u1f9d \u1f96\u1f9e \u1f97\u1f9f \u1fa0\u1fa8 \u1fa1\u1fa9 " +
  "\u1fa2\u1faa \u1fa3\u1fab \u1fa4\u1fac \u1fa5\u1fad \u1fa6\u1fae \u1fa7\u1faf \u1fb3\u1fbc \u1fc3\u1fcc " +
  "\u1ff3\u1ffc \ufb05\ufb06";

/** Every character that differs from `code` in case alone, and itself. */
function foldings(code: number): readonly number[] {
  const character = String.fromCodePoint(code);
  // A space stands between them, and is no letter.
  const at = code === 32 ? -1 : FOLDINGS.indexOf(character);
  if (at >= 0) {
    const end = FOLDINGS.indexOf(" ", at);
    return codePoints(FOLDINGS.slice(FOLDINGS.lastIndexOf(" ", at) + 1, end < 0 ? undefined : end));
  }
  // The dotless i is that of one language: its upper case is an I, and that of an I is not.
  if (code === 0x131) return [code];
  const found = new Set([code]);
  for (const other of [character.toLowerCase(), character.toUpperCase()]) {
    const codes = codePoints(other);
    const [only] = codes;
    if (codes.length === 1 && only !== undefined) found.add(only);
  }
  return [...found];
}

function codePoints(text: string): readonly number[] {
  return Array.from(text, (character) => character.codePointAt(0) ?? 0);
}

class PatternParser {
  readonly #pattern: readonly string[];
  /** Where the last `:]` is. */
  readonly #lastNameEnd: number;
  #position = 0;
  #depth = 0;
  #flags: Flags = { ignoreCase: false, multiLine: false, dotAll: false, swapLazy: false };
  #groups = 0;
  /** Each name is compiled once. */
  readonly #unicodeClasses = new Map<string, CharacterTest>();

  constructor(pattern: string) {
    this.#pattern = Array.from(pattern);
    this.#lastNameEnd = this.#pattern.findLastIndex((next, at, all) => next === ":" && all[at + 1] === "]");
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
    // Where the repetition before begins, if a repetition comes before.
    let repetition: number | undefined;
    // How often the last node has been repeated, with flags or an empty quote in between.
    let repeated = 0;
    for (;;) {
      const next = this.#peek();
      if (next === undefined || next === "|" || next === ")") return { type: "sequence", nodes };
      const start = this.#position;
      const range = this.#repetition();
      if (range === undefined) {
        repetition = undefined;
        const atoms = this.#atoms();
        if (atoms.length > 0) repeated = 0;
        for (const atom of atoms) nodes.push(atom);
        continue;
      }
      const shown = (from: number): string => this.#pattern.slice(from, this.#position).join("");
      const { minimum, maximum } = range;
      const most = maximum === Number.POSITIVE_INFINITY ? minimum : maximum;
      if (most > MAX_REPETITION || minimum > maximum) throw problem("invalid repeat count", shown(start));
      const lazy = this.#take("?") !== this.#flags.swapLazy;
      if (repetition !== undefined) throw problem("invalid nested repetition operator", shown(repetition));
      // It is that of the node before, even if flags stand in between.
      const node = nodes.pop();
      if (node === undefined) throw problem("missing argument to repetition operator", shown(start));
      if (++repeated > MAX_REPEATED) throw problem("expression nests too deeply", this.#pattern.join(""));
      const repeat: Node = { type: "repeat", node, minimum, maximum, lazy };
      if (most >= 2 && timesOf(repeat) > MAX_REPETITION) throw problem("invalid repeat count", shown(start));
      nodes.push(repeat);
      repetition = start;
    }
  }

  #repetition(): Repetition | undefined {
    if (this.#take("*")) return { minimum: 0, maximum: Number.POSITIVE_INFINITY };
    if (this.#take("+")) return { minimum: 1, maximum: Number.POSITIVE_INFINITY };
    if (this.#take("?")) return { minimum: 0, maximum: 1 };
    const begin = this.#position;
    const found = this.#braces();
    // A brace that begins no repetition is an ordinary character.
    if (found === undefined) this.#position = begin;
    return found;
  }

  #braces(): Repetition | undefined {
    if (!this.#take("{")) return undefined;
    const minimum = this.#count();
    if (minimum === undefined) return undefined;
    if (this.#take("}")) return { minimum, maximum: minimum };
    if (!this.#take(",")) return undefined;
    if (this.#take("}")) return { minimum, maximum: Number.POSITIVE_INFINITY };
    const maximum = this.#count();
    return maximum === undefined || !this.#take("}") ? undefined : { minimum, maximum };
  }

  /** Undefined: there is no number, or one that begins with a zero. */
  #count(): number | undefined {
    const begin = this.#position;
    while (/^[0-9]$/.test(this.#peek() ?? "")) this.#position++;
    const digits = this.#pattern.slice(begin, this.#position).join("");
    // A count far too large is still a bound, not infinity.
    return /^(?:0|[1-9][0-9]*)$/.test(digits) ? Math.min(Number(digits), Number.MAX_SAFE_INTEGER) : undefined;
  }

  /** The next element: one node, or none for flags that stand alone, or one for each character of a quote. */
  #atoms(): readonly Node[] {
    if (this.#take("\\Q")) return this.#quoted();
    const next = this.#pattern[this.#position++] ?? "";
    switch (next) {
      case "(": {
        const group = this.#group();
        return group === undefined ? [] : [group];
      }
      case "[":
        return [this.#class()];
      case ".": {
        const { dotAll } = this.#flags;
        return [{ type: "character", test: (code) => dotAll || code !== 10, parts: 1 }];
      }
      case "^":
        return [{ type: "assert", assertion: this.#flags.multiLine ? "begin-line" : "begin" }];
      case "$":
        return [{ type: "assert", assertion: this.#flags.multiLine ? "end-line" : "end" }];
      case "\\":
        return [this.#escape()];
      default:
        return [this.#literal(next.codePointAt(0) ?? 0)];
    }
  }

  #literal(code: number): Node {
    return { type: "character", test: this.#characterTest(code), parts: 1 };
  }

  #characterTest(code: number): CharacterTest {
    if (!this.#flags.ignoreCase) return (other) => other === code;
    const codes = foldings(code);
    return (other) => codes.includes(other);
  }

  /** Undefined: flags that stand alone and hold to the end of the group around them. */
  #group(): Node | undefined {
    const start = this.#position - 1;
    const outside = this.#flags;
    let number: number | undefined;
    if (!this.#take("?")) number = ++this.#groups;
    else if (this.#takeName(start)) number = ++this.#groups;
    else if (this.#takeFlags(start)) return undefined;
    if (++this.#depth > MAX_DEPTH) throw problem("expression nests too deeply", this.#pattern.join(""));
    const node = this.#choice();
    if (!this.#take(")")) throw problem("missing closing )", this.#pattern.join(""));
    this.#flags = outside;
    this.#depth--;
    return number === undefined ? node : { type: "group", node, number };
  }

  /** `<name>` or `P<name>`; false: there is none. */
  #takeName(start: number): boolean {
    const begin = ["<", "P<"].find(
      (text) => this.#pattern.slice(this.#position, this.#position + text.length).join("") === text,
    );
    if (begin === undefined || this.#peek(begin.length) === undefined) return false;
    const end = this.#pattern.indexOf(">", this.#position);
    if (end < 0) throw problem("invalid named capture", this.#rest(start));
    const name = this.#pattern.slice(this.#position + begin.length, end).join("");
    if (!/^[A-Za-z0-9_]+$/.test(name)) {
      throw problem("invalid named capture", this.#pattern.slice(start, end + 1).join(""));
    }
    this.#position = end + 1;
    return true;
  }

  /** `i)` or `i:`; true: nothing but flags. */
  #takeFlags(start: number): boolean {
    let { ignoreCase, multiLine, dotAll, swapLazy } = this.#flags;
    let on = true;
    // A minus must be followed by a flag.
    let complete = true;
    for (;;) {
      const next = this.#pattern[this.#position++];
      if (next === "-" && on) {
        on = false;
        complete = false;
      } else if ((next === ":" || next === ")") && complete) {
        this.#flags = { ignoreCase, multiLine, dotAll, swapLazy };
        return next === ")";
      } else {
        if (next === "i") ignoreCase = on;
        else if (next === "m") multiLine = on;
        else if (next === "s") dotAll = on;
        else if (next === "U") swapLazy = on;
        // Look-around above all is not RE2's.
        else throw problem("invalid or unsupported Perl syntax", this.#pattern.slice(start, this.#position).join(""));
        complete = true;
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
    const part = this.#classEscape();
    return part === undefined ? this.#literal(this.#characterEscape()) : this.#anyOf([part]);
  }

  /** All up to `\E` is meant literally. */
  #quoted(): readonly Node[] {
    const nodes: Node[] = [];
    while (this.#peek() !== undefined && !this.#take("\\E")) {
      nodes.push(this.#literal(this.#pattern[this.#position++]?.codePointAt(0) ?? 0));
    }
    return nodes;
  }

  /** The text after a backslash, when it names a class: `d`, `W`, `pL`, `P{Greek}`. */
  #classEscape(): Part | undefined {
    const next = this.#peek() ?? "";
    const lower = next.toLowerCase();
    if (Object.hasOwn(perlClasses, lower)) {
      this.#position++;
      const test = perlClasses[lower];
      if (test !== undefined) return { test, isNegative: next !== lower };
    }
    if (lower !== "p" || (next !== "p" && next !== "P")) return undefined;
    const start = this.#position - 1;
    const isLong = this.#peek(1) === "{";
    const end = isLong ? this.#pattern.indexOf("}", this.#position) : this.#position + 1;
    if (end < 0) throw problem("invalid character class range", this.#rest(start));
    const text = this.#pattern.slice(this.#position + (isLong ? 2 : 1), isLong ? end : end + 1).join("");
    this.#position = Math.min(end + 1, this.#pattern.length);
    const isNegative = text.startsWith("^");
    const name = isNegative ? text.slice(1) : text;
    const test = this.#unicodeClasses.get(name) ?? unicodeClass(name);
    if (test === undefined) {
      throw problem("invalid character class range", this.#pattern.slice(start, this.#position).join(""));
    }
    this.#unicodeClasses.set(name, test);
    return { test, isNegative: (next === "P") !== isNegative };
  }

  /** The characters that any of the parts matches, or none of them. Case is ignored before a part is negated. */
  #anyOf(parts: readonly Part[], isNegative = false): Node {
    const { ignoreCase } = this.#flags;
    const test: CharacterTest = ignoreCase
      ? (code) => {
          const codes = foldings(code);
          return parts.some((part) => codes.some(part.test) !== part.isNegative) !== isNegative;
        }
      : (code) => parts.some((part) => part.test(code) !== part.isNegative) !== isNegative;
    return { type: "character", test, parts: parts.length };
  }

  /** The text after a backslash, when it stands for one character. */
  #characterEscape(): number {
    const start = this.#position - 1;
    const next = this.#pattern[this.#position++];
    if (next === undefined) throw problem("trailing backslash at end of expression", "");
    const control = Object.hasOwn(controlEscapes, next) ? controlEscapes[next] : undefined;
    if (control !== undefined) return control;
    if (next === "x") {
      const code = this.#hexadecimal();
      if (code !== undefined) return code;
    } else if (next === "0" || (/[1-7]/.test(next) && /[0-7]/.test(this.#peek() ?? ""))) {
      // A digit alone would be a back-reference, which RE2 does not know.
      const digits = /^[0-7]{0,2}/.exec(this.#pattern.slice(this.#position, this.#position + 2).join(""))?.[0] ?? "";
      this.#position += digits.length;
      return Number.parseInt(next + digits, 8);
    } else if (next < "\x80" && !/[0-9A-Za-z]/.test(next)) return next.codePointAt(0) ?? 0;
    throw problem("invalid escape sequence", this.#pattern.slice(start, this.#position).join(""));
  }

  /** `41` or `{1F600}`; undefined: it is no code point, and the text up to the character that does not fit is consumed. */
  #hexadecimal(): number | undefined {
    const isDigitOf16 = (character: string | undefined): boolean => /^[0-9a-fA-F]$/.test(character ?? "");
    if (!this.#take("{")) {
      const digits = this.#pattern.slice(this.#position, this.#position + 2);
      this.#position += digits.length;
      return digits.length === 2 && digits.every(isDigitOf16) ? Number.parseInt(digits.join(""), 16) : undefined;
    }
    let code: number | undefined;
    for (;;) {
      const next = this.#peek();
      if (next === undefined) return undefined;
      this.#position++;
      if (next === "}") return code;
      code = isDigitOf16(next) ? (code ?? 0) * 16 + Number.parseInt(next, 16) : undefined;
      if (code === undefined || code > 0x10ffff) return undefined;
    }
  }

  #class(): Node {
    const start = this.#position - 1;
    const negate = this.#take("^");
    const parts: Part[] = [];
    for (let first = true; ; first = false) {
      const next = this.#peek();
      if (next === undefined) throw problem("missing closing ]", this.#rest(start));
      if (next === "]" && !first) break;
      const named = next === "[" ? this.#namedClass() : undefined;
      if (named !== undefined) {
        parts.push(named);
        continue;
      }
      if (next === "\\") {
        this.#position++;
        const part = this.#classEscape();
        if (part !== undefined) {
          parts.push(part);
          continue;
        }
        this.#position--;
      }
      const from = this.#position;
      const low = this.#classCharacter(start);
      let high = low;
      if (this.#peek() === "-" && this.#peek(1) !== undefined && this.#peek(1) !== "]") {
        this.#position++;
        high = this.#classCharacter(start);
        if (high < low) {
          throw problem("invalid character class range", this.#pattern.slice(from, this.#position).join(""));
        }
      }
      parts.push({ test: (code) => code >= low && code <= high, isNegative: false });
    }
    this.#position++;
    return this.#anyOf(parts, negate);
  }

  #classCharacter(start: number): number {
    if (this.#take("\\")) return this.#characterEscape();
    const next = this.#pattern[this.#position++];
    if (next === undefined) throw problem("missing closing ]", this.#rest(start));
    return next.codePointAt(0) ?? 0;
  }

  /** `[:alpha:]` and `[:^alpha:]`; undefined: a bracket like any other character. */
  #namedClass(): Part | undefined {
    if (this.#peek(1) !== ":") return undefined;
    const start = this.#position;
    let end = start + 2;
    // The end is looked for once in the whole pattern, and not again where there is none.
    if (end > this.#lastNameEnd) return undefined;
    while (this.#pattern[end] !== ":" || this.#pattern[end + 1] !== "]") end++;
    const name = this.#pattern.slice(start + 2, end).join("");
    const isNegative = name.startsWith("^");
    const positive = isNegative ? name.slice(1) : name;
    const test = Object.hasOwn(namedClasses, positive) ? namedClasses[positive] : undefined;
    if (test === undefined) throw problem("invalid character class range", `[:${name}:]`);
    this.#position = end + 2;
    return { test, isNegative };
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
  return new SyntaxError(`error parsing regexp: ${reason}: \`${where}\``);
}
