export type FlagSection = "http" | "command" | "consul";

/** A flag of a command, described once, for parsing and for the help. */
export interface Flag {
  readonly name: string;
  readonly kind: "text" | "boolean" | "unsigned" | "integer" | "texts" | "pairs";
  /** The placeholder for the value in a list of flags. Default: by its kind, as Go's flag package has it. */
  readonly placeholder?: string;
  readonly usage: string;
  /** For a text. Default `""`. */
  readonly fallback?: string;
  /** The part of the help that lists it. `http`: shared by the commands that ask a server. Default `command`. */
  readonly section?: FlagSection;
}

/** A mistake in the flags of a command. */
export class FlagError extends Error {
  override readonly name = "FlagError";
  /** The flags of the command, in several lines. */
  readonly usage: string;

  constructor(message: string, usage: string) {
    super(message);
    this.usage = usage;
  }
}

/** Arguments of a command, taken apart. */
export class ParsedFlags {
  readonly #values: ReadonlyMap<string, readonly string[]>;
  readonly #fallbacks: ReadonlyMap<string, string>;
  /** The arguments after the flags. */
  readonly rest: readonly string[];

  constructor(flags: readonly Flag[], values: ReadonlyMap<string, readonly string[]>, rest: readonly string[]) {
    this.#values = values;
    this.#fallbacks = new Map(flags.map(({ name, fallback }) => [name, fallback ?? ""]));
    this.rest = rest;
  }

  given(name: string): boolean {
    return this.#values.has(name);
  }

  /** The last one given. */
  text(name: string): string {
    return this.#values.get(name)?.at(-1) ?? this.#fallbacks.get(name) ?? "";
  }

  boolean(name: string): boolean {
    return TRUE.has(this.text(name));
  }

  unsigned(name: string): bigint {
    return BigInt(this.text(name) || "0");
  }

  texts(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  /** `key=value` each, split at the first `=`; the last of equal keys wins. */
  pairs(name: string): Readonly<Record<string, string>> {
    return Object.fromEntries(
      this.texts(name).map((pair) => {
        const equals = pair.indexOf("=");
        return [pair.slice(0, equals), pair.slice(equals + 1)];
      }),
    );
  }
}

const TRUE: ReadonlySet<string> = new Set(["1", "t", "T", "true", "TRUE", "True"]);
const FALSE: ReadonlySet<string> = new Set(["0", "f", "F", "false", "FALSE", "False"]);

/**
 * Takes arguments apart as Go's flag package does: `-x v`, `-x=v`, one dash or two, up to the first argument that is no
 * flag, or to `--`.
 * @param anywhere - flags are also taken behind arguments.
 * @throws {FlagError}
 */
export function parseFlags(flags: readonly Flag[], args: readonly string[], anywhere = false): ParsedFlags {
  const byName = new Map(flags.map((flag) => [flag.name, flag]));
  const values = new Map<string, string[]>();
  const fail = (text: string): FlagError => new FlagError(text, flagUsage(flags));
  const before: string[] = [];
  let position = 0;
  for (; position < args.length; position++) {
    const argument = args[position] ?? "";
    if (argument.length < 2 || !argument.startsWith("-")) {
      if (!anywhere) break;
      before.push(argument);
      continue;
    }
    if (argument === "--") {
      position++;
      break;
    }
    const body = argument.slice(argument.startsWith("--") ? 2 : 1);
    if (body === "" || body.startsWith("-") || body.startsWith("=")) throw fail(`bad flag syntax: ${argument}`);
    const equals = body.indexOf("=");
    const name = equals < 0 ? body : body.slice(0, equals);
    const flag = byName.get(name);
    if (flag === undefined) throw fail(`flag provided but not defined: -${name}`);
    let value = equals < 0 ? undefined : body.slice(equals + 1);
    if (value === undefined) {
      if (flag.kind === "boolean") value = "true";
      else {
        position++;
        value = args[position];
        if (value === undefined) throw fail(`flag needs an argument: -${name}`);
      }
    }
    const problem = problemOf(flag, value);
    if (problem !== undefined) throw fail(problem);
    values.set(name, [...(values.get(name) ?? []), value]);
  }
  return new ParsedFlags(flags, values, [...before, ...args.slice(position)]);
}

function problemOf({ name, kind }: Flag, value: string): string | undefined {
  const quoted = JSON.stringify(value);
  const invalid = `invalid value ${quoted} for flag -${name}`;
  switch (kind) {
    case "boolean":
      return TRUE.has(value) || FALSE.has(value)
        ? undefined
        : `invalid boolean value ${quoted} for -${name}: parse error`;
    case "unsigned":
      if (!/^\d{1,20}$/.test(value)) return `${invalid}: parse error`;
      return BigInt(value) < 2n ** 64n ? undefined : `${invalid}: value out of range`;
    case "integer":
      if (!/^[+-]?\d+$/.test(value)) return `${invalid}: strconv.Atoi: parsing ${quoted}: invalid syntax`;
      return Number.isSafeInteger(Number(value))
        ? undefined
        : `${invalid}: strconv.Atoi: parsing ${quoted}: value out of range`;
    case "pairs":
      return value.includes("=") ? undefined : `${invalid}: Missing "=" value in argument: ${value}`;
    default:
      return undefined;
  }
}

const PLACEHOLDERS: Readonly<Record<Flag["kind"], string>> = {
  text: "string",
  boolean: "",
  unsigned: "uint",
  integer: "int",
  texts: "value",
  pairs: "value",
};

function placeholderOf({ placeholder, kind }: Flag): string {
  return placeholder ?? PLACEHOLDERS[kind];
}

function sorted(flags: readonly Flag[]): readonly Flag[] {
  return [...flags].sort((left, right) => (left.name < right.name ? -1 : 1));
}

/** All flags in the form that Go's flag package prints when one is wrong. */
function flagUsage(flags: readonly Flag[]): string {
  const lines = sorted(flags).map((flag) => {
    const placeholder = placeholderOf(flag);
    const fallback = flag.fallback === undefined ? "" : ` (default ${JSON.stringify(flag.fallback)})`;
    return `  -${flag.name}${placeholder === "" ? "" : ` ${placeholder}`}\n    \t${flag.usage}${fallback}`;
  });
  return ["Usage:", ...lines].join("\n");
}

const HELP_WIDTH = 67;

/** As the help lists them. */
const SECTIONS: readonly (readonly [section: FlagSection, title: string])[] = [
  ["http", "HTTP API Options"],
  ["command", "Command Options"],
  ["consul", "Options of consul agent"],
];

/** The flags as a command's help lists them: those shared with other commands first. */
export function flagHelp(flags: readonly Flag[]): string {
  const sections: string[] = [];
  for (const [section, title] of SECTIONS) {
    const members = flags.filter((flag) => (flag.section ?? "command") === section);
    if (members.length === 0) continue;
    const entries = sorted(members).map((flag) => {
      const placeholder = placeholderOf(flag);
      return `  -${flag.name}${placeholder === "" ? "" : `=<${placeholder}>`}\n${wrap(flag.usage)}`;
    });
    sections.push(`${title}\n\n${entries.join("\n\n")}`);
  }
  return sections.join("\n\n");
}

function wrap(text: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > HELP_WIDTH) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].map((each) => `     ${each}`).join("\n");
}
