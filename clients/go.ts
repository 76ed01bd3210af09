import type { Processes } from "../interop/processes.js";
import { type Installation, missingCommand } from "./installation.js";

/** One package at a time: compilers of Go take all that a small machine has. */
const GO_ENV = { GOFLAGS: "-p=1 -buildvcs=false", GOTOOLCHAIN: "local" };

/** The common part of our programs in Go. */
export const GO_PROGRAMS = "go-programs";

/** The missing tools for building a client that is written in Go. */
export function missingGo(processes: Processes): Promise<string | undefined> {
  return missingCommand(processes, "go", "version");
}

/** Builds a program from a module's name and version, into the directory of the installation. */
export async function installGoProgram(installation: Installation, program: string): Promise<void> {
  const env = { ...GO_ENV, GOBIN: installation.directory };
  await installation.must("nice", ["-n", "10", "go", "install", program], { env });
}

/** Builds the module of ours that was copied into the directory, which imports the client. */
export async function buildGoModule(installation: Installation, ...args: readonly string[]): Promise<void> {
  await installation.must("nice", ["-n", "10", "go", ...args], { env: GO_ENV });
}
