#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { chmod, readdir, rm, writeFile } from "node:fs/promises";
import { constants } from "node:os";
import { readTextFile } from "./read-file.js";
import { runCommandLine } from "./run.js";

/** That of the package this file is part of. */
function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return typeof manifest === "object" && manifest !== null && "version" in manifest ? String(manifest.version) : "";
}

/** The actions of those signals of the agent that neither stop it nor kill it. */
const actions: Record<"SIGHUP" | "SIGUSR1", () => void> = { SIGHUP: () => {}, SIGUSR1: () => {} };
// From the first moment and for every command: without a listener Node opens a port for debuggers, and a program that
// connects to it can run any code.
process.on("SIGUSR1", () => actions.SIGUSR1());

/** Signals that end a process without a listener, and do not end a Consul either: log rotation sends them, and limits. */
const PASSED_OVER = ["SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGXFSZ", "SIGIO", "SIGPWR"] as const;
/** Consul's exit code after SIGQUIT. */
const QUIT_CODE = 2;

function untilStopped(): AbortSignal {
  const stopping = new AbortController();
  const stop = (): void => {
    // A second one of either kind kills the process at once.
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, stop);
    stopping.abort();
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  // Not where a system has no such signal.
  for (const signal of PASSED_OVER) if (signal in constants.signals) process.on(signal, () => {});
  // At once, as Consul ends, and without the image of the memory that the system would write, which holds secrets.
  process.on("SIGQUIT", () => {
    actions.SIGUSR1();
    process.exit(QUIT_CODE);
  });
  return stopping.signal;
}

// The reader of the output may have gone, as `head` does.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") process.exitCode ||= 1;
});
// A line that cannot be logged, because the disk is full or the terminal has gone, is no reason to end an agent that works.
process.stderr.on("error", () => {});

function log(output: string): void {
  try {
    process.stderr.write(output);
  } catch {
    // As above: some versions of Node throw instead of telling the listener.
  }
}

async function holdPidFile(path: string): Promise<AsyncDisposable> {
  await writeFile(path, String(process.pid));
  // For supervisors that run as another user.
  await chmod(path, 0o644);
  return { [Symbol.asyncDispose]: () => rm(path, { force: true }) };
}

// Only its user may read its files: an agent's data hold keys, and the database makes files when it likes.
const umask = process.umask(0o077);
const exitCode = await runCommandLine(process.argv.slice(2), packageVersion(), {
  environment: process.env,
  stdout: (output) => process.stdout.write(output),
  stderr: log,
  // Loaded when they are needed: most commands need none of them.
  stdin: async () => (await import("node:stream/consumers")).text(process.stdin),
  readFile: readTextFile,
  readDirectory: (path) => readdir(path),
  holdPidFile,
  wall: () => Date.now(),
  people: process.stderr.isTTY === true,
  untilStopped,
  onHangUp: (action) => {
    actions.SIGHUP = action;
    process.on("SIGHUP", () => actions.SIGHUP());
  },
  onReport: (action) => {
    actions.SIGUSR1 = action;
  },
  runProgram: async (program) => (await import("./run-program.js")).runProgram(program, umask),
  lookUp: async (host) => (await import("./look-up.js")).lookUp(host),
  outputOf: async (command, args) => (await import("./run-program.js")).outputOf(command, args),
});
process.exitCode ||= exitCode;
