import { createHash } from "node:crypto";
import type { Dirent } from "node:fs";
import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Child, Processes } from "../interop/processes.js";
import type { Client } from "./client.js";

/** Time for fetching and building a client: what is compiled from source takes minutes on a small machine. */
const INSTALL_MS = 30 * 60_000;
/** Kept of what a client prints, in characters: a test suite says much, and each of its tests counts. */
const KEPT_OUTPUT = 64 * 1024 * 1024;
/** Time for one command of a client. */
const COMMAND_MS = 10 * 60_000;

export interface CommandOptions {
  /** Default: the directory of the installation. */
  readonly cwd?: string;
  /** Beside those of this process, but for its `CONSUL_…`. */
  readonly env?: Readonly<Record<string, string>>;
  readonly limitMs?: number;
}

export interface CommandResult {
  /** Its output, of both streams. */
  readonly output: string;
  /** 124: its time was over. */
  readonly code: number;
}

/** Where a client is installed: a directory outside of the repository, kept for later runs. */
export class Installation {
  readonly directory: string;
  readonly processes: Processes;
  readonly #sources: readonly URL[];

  private constructor(processes: Processes, directory: string, sources: readonly URL[]) {
    this.processes = processes;
    this.directory = directory;
    this.#sources = sources;
  }

  /** Installs `client`, unless an earlier run has done so. */
  static async of(client: Client, processes: Processes): Promise<Installation> {
    // As compiled, this file lies one folder deeper than what is not compiled: the clients' sources in other languages.
    const compiled = import.meta.url.endsWith(".js");
    const sources = [client.name, ...(client.sources ?? [])].map((name) => {
      return new URL(compiled ? `../../clients/${name}/` : `${name}/`, import.meta.url);
    });
    const directory = join(tmpdir(), "peerage-clients", `${client.name}-${await digestOf(client, sources)}`);
    const installation = new Installation(processes, directory, sources);
    const mark = join(directory, "installed");
    const done = await isThere(mark);
    if (!done) await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    await installation.#copySources();
    if (!done) {
      await client.install(installation);
      await writeFile(mark, `${client.packages.join("\n")}\n`);
    }
    return installation;
  }

  path(...parts: readonly string[]): string {
    return join(this.directory, ...parts);
  }

  /** Runs a command to its end, which it must reach in time. */
  async run(command: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    const { limitMs = COMMAND_MS } = options;
    const child = this.start(command, args, options);
    const timer = setTimeout(() => void child.end("SIGKILL"), limitMs);
    const code = await child.ended();
    clearTimeout(timer);
    // Servers that a test suite has started and left.
    child.signal("SIGKILL");
    return { output: await child.printed(), code: code ?? 124 };
  }

  /** The same for a step of an installation. @throws {Error} when it fails. */
  async must(command: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
    const { output, code } = await this.run(command, args, { limitMs: INSTALL_MS, ...options });
    if (code !== 0) throw new Error(`${command} ${args.join(" ")}: exit code ${code}\n${output.slice(-3_000)}`);
    return output;
  }

  /** Starts a program that goes on until it is ended. */
  start(command: string, args: readonly string[], { cwd = this.directory, env = {} }: CommandOptions = {}): Child {
    const own = Object.entries(process.env).filter(([name]) => !/^(CONSUL|PEERAGE)_/.test(name));
    const environment = { ...Object.fromEntries(own), ...env };
    return this.processes.start(command, args, environment, { cwd, keptOutput: KEPT_OUTPUT, group: true });
  }

  /** The sources of ours that drive the client. */
  async #copySources(): Promise<void> {
    for (const sources of this.#sources) {
      if (await isThere(sources)) await cp(sources, this.directory, { recursive: true });
    }
  }
}

/** Of what an installation is made from: another version, or another source of ours, makes another one. */
async function digestOf(client: Client, directories: readonly URL[]): Promise<string> {
  const digest = createHash("sha256").update(client.packages.join());
  for (const sources of directories) {
    if (!(await isThere(sources))) continue;
    for (const file of (await readdir(sources, { recursive: true, withFileTypes: true })).sort(byPath)) {
      if (file.isFile()) digest.update(file.name).update(await readFile(join(file.parentPath, file.name)));
    }
  }
  return digest.digest("hex").slice(0, 12);
}

function byPath(one: Dirent, other: Dirent): number {
  return join(one.parentPath, one.name) < join(other.parentPath, other.name) ? -1 : 1;
}

async function isThere(path: string | URL): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}

/** Why `command` cannot be run; undefined when it can. */
export async function missingCommand(
  processes: Processes,
  command: string,
  ...args: readonly string[]
): Promise<string | undefined> {
  const child = processes.start(command, args);
  return (await child.ended()) === 0 ? undefined : `${command} cannot be run here`;
}
