import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { PlantedFault } from "./faults.js";
import { plantedIn, readSource, sourcesUnder, transpiled } from "./plant.js";

/** The outcome of one check while a fault was planted. */
export interface Finding {
  /** `"simulator"`, or a test file. */
  readonly check: string;
  readonly found: boolean;
  /** How it was found, in a few words: the seed, the time limit. */
  readonly how: string;
  readonly ms: number;
}

export interface WorkshopOptions {
  /** How many seeds the simulator tries. */
  readonly seeds: number;
  /** Folders that the checks need, beside src/. */
  readonly folders: readonly string[];
}

/** Beyond the time that a check takes without a fault, times this, it counts as hanging. */
const PATIENCE = 10;
const LEAST_PATIENCE_MS = 60_000;
const SIMULATE = "test/simulation/simulate.ts";

/**
 * A copy of the tree in a temporary directory, in which faults are planted and checks run. Types are not checked there: a
 * file takes some milliseconds.
 */
export class Workshop implements AsyncDisposable {
  readonly #options: WorkshopOptions;
  readonly #directory: string;
  readonly #patience = new Map<string, number>();

  private constructor(options: WorkshopOptions, directory: string) {
    this.#options = options;
    this.#directory = directory;
  }

  /** Copies the tree that is in the working directory. */
  static async open(options: WorkshopOptions): Promise<Workshop> {
    const directory = await mkdtemp(join(tmpdir(), "peerage-mutate-"));
    const workshop = new Workshop(options, directory);
    // All but what is built: tests read fixtures, documents and the manifest.
    for (const name of await readdir(".")) {
      if (!["build", "dist", ".git"].includes(name)) await symlink(resolve(name), join(directory, name));
    }
    for (const file of sourcesUnder(["src", ...options.folders])) await workshop.#write(file, readSource(file));
    // Tests that start a process start what is built of the faulty source.
    await symlink(join("build", "src"), join(directory, "dist"));
    // Where the program looks for its version.
    await symlink(join("..", "package.json"), join(directory, "build", "package.json"));
    return workshop;
  }

  /**
   * Runs a check on the tree as it is, which must pass, and takes its time.
   * @throws {Error} when it fails without a fault.
   */
  async baseline(check: string): Promise<Finding> {
    const finding = await this.#check(check);
    if (finding.found) throw new Error(`${check} fails without a fault: ${finding.how}`);
    this.#patience.set(check, Math.max(LEAST_PATIENCE_MS, finding.ms * PATIENCE));
    return finding;
  }

  /** Plants the fault, runs its checks, and takes it out again. */
  async judge(fault: PlantedFault): Promise<readonly Finding[]> {
    const planted = new Map<string, string>();
    for (const edit of fault.edits) {
      planted.set(edit.file, plantedIn(planted.get(edit.file) ?? readSource(edit.file), edit));
    }
    try {
      for (const [file, source] of planted) await this.#write(file, source);
      const findings: Finding[] = [];
      for (const check of fault.foundBy) findings.push(await this.#check(check));
      return findings;
    } finally {
      for (const file of planted.keys()) await this.#write(file, readSource(file));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #write(file: string, source: string): Promise<void> {
    const target = join(this.#directory, "build", file.replace(/\.ts$/, ".js"));
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, transpiled(source, file));
  }

  async #check(check: string): Promise<Finding> {
    const simulated = check === "simulator";
    const program = join("build", (simulated ? SIMULATE : check).replace(/\.ts$/, ".js"));
    const options = simulated ? ["--runs", String(this.#options.seeds), "--until-failure"] : [];
    const begun = performance.now();
    const limitMs = this.#patience.get(check) ?? 10 * LEAST_PATIENCE_MS;
    const { code, text } = await runToEnd([program, ...options], this.#directory, limitMs);
    const ms = performance.now() - begun;
    if (code === undefined) return { check, found: true, how: "hangs", ms };
    return { check, found: code !== 0, how: code === 0 ? "" : reasonIn(text, simulated), ms };
  }
}

/** The exit code, undefined after the time limit, and what was printed. */
async function runToEnd(
  args: readonly string[],
  cwd: string,
  limitMs: number,
): Promise<{ readonly code: number | undefined; readonly text: string }> {
  const child = spawn(process.execPath, args, { cwd, stdio: ["ignore", "pipe", "pipe"], env: environment() });
  const text: string[] = [];
  for (const output of [child.stdout, child.stderr]) {
    output.setEncoding("utf8");
    output.on("data", (part: string) => text.push(part));
  }
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, limitMs);
  const code = await new Promise<number>((done, fail) => {
    child.on("error", fail);
    child.on("close", (status) => done(status ?? 1));
  });
  clearTimeout(timer);
  return { code: late ? undefined : code, text: text.join("") };
}

/** A test that is run by another test must not report to that one. */
function environment(): NodeJS.ProcessEnv {
  const { NODE_TEST_CONTEXT: _, ...rest } = process.env;
  return rest;
}

function reasonIn(text: string, simulated: boolean): string {
  const line = simulated
    ? /^seed .*$/m.exec(text)?.[0]
    : (/^not ok .*$/m.exec(text.replace(/^ +/gm, ""))?.[0] ?? /✖ .*$/m.exec(text)?.[0]);
  return (line ?? text.trim().split("\n").at(-1) ?? "").slice(0, 160);
}
