import type { ConsulClient } from "../client/index.js";
import type { Flag, ParsedFlags } from "./flags.js";
import type { JsonForm, Printable } from "./output.js";
import type { FileLimits } from "./read-file.js";
import type { Program } from "./run-program.js";

/** The world as commands see it. */
export interface CommandLineIo {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Written as given. */
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  readonly stdin: () => Promise<string>;
  /** @throws {Error} for a file over the limits, too. Default: `defaultFileLimits`. */
  readonly readFile: (path: string, limits?: FileLimits) => Promise<string>;
  readonly readDirectory: (path: string) => Promise<readonly string[]>;
  /** Writes the number of this process to a file, and removes the file when disposed. */
  readonly holdPidFile: (path: string) => Promise<AsyncDisposable>;
  /** Milliseconds since the epoch. */
  readonly wall: () => number;
  /** Whether people read the standard error as it comes, and not a file or a program. */
  readonly people: boolean;
  /** For commands that run until they are stopped: from the first call on SIGTERM and SIGINT abort this, instead of killing. */
  readonly untilStopped: () => AbortSignal;
  /** For commands that can read their files again: from then on SIGHUP calls `action`, instead of killing. */
  readonly onHangUp: (action: () => void) => void;
  /** For commands that can report on themselves: from then on SIGUSR1 calls `action`; before, it does nothing. */
  readonly onReport: (action: () => void) => void;
  /** Runs a program with the input and output of this one, and tells its exit code. */
  readonly runProgram: (program: Program) => Promise<number>;
  /** An address of a host, an IPv4 one before others. */
  readonly lookUp: (host: string) => Promise<string>;
  /** The output of a program. */
  readonly outputOf: (command: string, args: readonly string[]) => Promise<string>;
}

export interface CommandContext {
  readonly io: CommandLineIo;
  readonly flags: ParsedFlags;
  /** Of this program. */
  readonly version: string;
  /** The server the shared flags name; connected to when first used, closed after the command. */
  readonly client: () => Promise<ConsulClient>;
  /** Result, line by line: invisible characters in a line, a line break included, are escaped. */
  readonly print: (lines: string | readonly string[]) => void;
  readonly printJson: (value: Printable, form: JsonForm) => void;
  /** As `print`, on the standard error: something to know that is no failure. */
  readonly note: (lines: string | readonly string[]) => void;
  /** The exit code of a result that is no failure. Default 0. */
  readonly exit: (code: number) => void;
}

/** Something that is run. */
export interface Command {
  readonly summary: string;
  /** First lines of its help. */
  readonly help: string;
  readonly flags: readonly Flag[];
  /** Flags are also taken behind arguments. Default: as Consul's, where they stand before. */
  readonly flagsAnywhere?: true;
  /** Exit codes, where they differ from Consul's usual 1: for wrong flags, and for other failures. */
  readonly failureCodes?: { readonly flags: number; readonly others: number };
  readonly run: (context: CommandContext) => Promise<void>;
}

/** Commands under one name. */
export interface CommandGroup {
  readonly summary: string;
  readonly help: string;
  readonly commands: Readonly<Record<string, Member>>;
}

/** A function loads it: what is run loads its own command alone. */
export type Member = Command | CommandGroup | (() => Promise<Command | CommandGroup>);

export async function loaded(member: Member): Promise<Command | CommandGroup> {
  return typeof member === "function" ? await member() : member;
}

export interface CommandErrorOptions extends ErrorOptions {
  readonly remedy?: string | undefined;
  /** The exit code. Default: that of the command's failures. */
  readonly exit?: number | undefined;
}

/** Why a command failed: its message, one line, is all that is printed, with a remedy below it where there is one. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly remedy: string | undefined;
  readonly exit: number | undefined;

  constructor(message: string, { remedy, exit, ...options }: CommandErrorOptions = {}) {
    super(message, options);
    this.remedy = remedy;
    this.exit = exit;
  }
}
