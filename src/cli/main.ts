#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { runCommandLine } from "./run.js";

/** That of the package this file is part of. */
function packageVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
  return typeof manifest === "object" && manifest !== null && "version" in manifest ? String(manifest.version) : "";
}

function untilStopped(): AbortSignal {
  const stopping = new AbortController();
  // The second one kills: whoever is in a hurry need not wait.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stopping.abort());
  return stopping.signal;
}

// Whoever reads the output may have gone, as `head` does.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") process.exitCode ||= 1;
});
// What cannot be logged, for a disk that is full or a terminal that has gone, is no reason to end an agent that works.
process.stderr.on("error", () => {});

function log(output: string): void {
  try {
    process.stderr.write(output);
  } catch {
    // As above: some versions of Node throw instead of telling the listener.
  }
}

// What it writes is its user's alone: an agent's data hold keys, and the database makes files when it likes.
process.umask(0o077);
const exitCode = await runCommandLine(process.argv.slice(2), packageVersion(), {
  environment: process.env,
  stdout: (output) => process.stdout.write(output),
  stderr: log,
  stdin: () => text(process.stdin),
  readFile: (path) => readFile(path, "utf8"),
  readDirectory: (path) => readdir(path),
  wall: () => Date.now(),
  people: process.stderr.isTTY === true,
  untilStopped,
  onHangUp: (action) => process.on("SIGHUP", action),
});
process.exitCode ||= exitCode;
