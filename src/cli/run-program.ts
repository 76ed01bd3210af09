import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/** A program that takes the place of this one, as far as its caller sees. */
export interface Program {
  /** A path, or a name that is looked for in PATH. */
  readonly command: string;
  readonly args: readonly string[];
  /** A text with secrets, which it reads at {@link CONFIGURATION_PATH}. */
  readonly configuration: string;
}

/** Where a program finds its configuration: no other user, and no other program, can open it. */
export const CONFIGURATION_PATH = "/dev/fd/3";

/** Signals that are handed on. The others stay those of this process. */
const HANDED_ON = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
const SIGNALLED = 128;

/**
 * Runs a program with the input and output of this process, which hands on signals. Its configuration is a file of this user
 * alone, and has no name any more when the program starts.
 * @param umask - for the program.
 * @returns its exit code; after a signal 128 and the number of that.
 * @throws as `spawn`, where it cannot be started.
 */
export async function runProgram({ command, args, configuration }: Program, umask: number): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), "peerage-"));
  const path = join(directory, "configuration.json");
  try {
    await writeFile(path, configuration, { flag: "wx", mode: 0o600 });
    await using file = await open(path, "r");
    await rm(directory, { recursive: true });
    const own = process.umask(umask);
    const child = spawn(command, args, { stdio: ["inherit", "inherit", "inherit", file.fd] });
    process.umask(own);
    const handOn = HANDED_ON.map((signal) => {
      const listener = (): void => void child.kill(signal);
      process.on(signal, listener);
      return () => process.off(signal, listener);
    });
    try {
      const [code, signal]: [number | null, NodeJS.Signals | null] = (await once(child, "exit")) as [number, null];
      return code ?? SIGNALLED + (signal === null ? 0 : constants.signals[signal]);
    } finally {
      for (const stop of handOn) stop();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The output of a program. @throws as `execFile`. */
export async function outputOf(command: string, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(command, args);
  return stdout;
}
