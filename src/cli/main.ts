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
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
}

process.exitCode = await runCommandLine(process.argv.slice(2), packageVersion(), {
  environment: process.env,
  stdout: (output) => process.stdout.write(output),
  stderr: (output) => process.stderr.write(output),
  stdin: () => text(process.stdin),
  readFile: (path) => readFile(path, "utf8"),
  readDirectory: (path) => readdir(path),
  wall: () => Date.now(),
  people: process.stderr.isTTY === true,
  untilStopped,
});
