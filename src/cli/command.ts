import type { ConsulClient } from "../client/index.js";
import type { Flag, ParsedFlags } from "./flags.js";

/** The world as commands see it. */
export interface CommandLineIo {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Written as given. */
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  readonly stdin: () => Promise<string>;
  readonly readFile: (path: string) => Promise<string>;
  readonly readDirectory: (path: string) => Promise<readonly string[]>;
  /** Milliseconds since the epoch. */
  readonly wall: () => number;
  /** Whether people read the standard error as it comes, and not a file or a program. */
  readonly people: boolean;
  /** For what runs until it is told to end: from the first call on SIGTERM and SIGINT abort this, instead of killing. */
  readonly untilStopped: () => AbortSignal;
}

export interface CommandContext {
  readonly io: CommandLineIo;
  readonly flags: ParsedFlags;
  /** The server the shared flags name; connected to when first used, closed after the command. */
  readonly client: () => Promise<ConsulClient>;
  /** One line, or several, of result. */
  readonly print: (text: string) => void;
  /** As `print`, on the standard error: something to know that is no failure. */
  readonly note: (text: string) => void;
}

/** Something that is run. */
export interface Command {
  readonly summary: string;
  /** First lines of its help. */
  readonly help: string;
  readonly flags: readonly Flag[];
  readonly run: (context: CommandContext) => Promise<void>;
}

/** Commands under one name. */
export interface CommandGroup {
  readonly summary: string;
  readonly help: string;
  readonly commands: Readonly<Record<string, Command | CommandGroup>>;
}

/** Why a command failed: its message is all that is printed, and the exit code is 1. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}
