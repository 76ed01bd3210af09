import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";

/** Kept of what a process prints, in characters: enough to see why it failed. */
const KEPT_OUTPUT = 64 * 1024;
/** Below the ports that systems hand out by themselves, so that nobody takes one between two uses of it. */
const FIRST_PORT = 20_000;
const LAST_PORT = 31_999;

export interface ChildOptions {
  /** Default: the directory of this process. */
  readonly cwd?: string;
  /** Kept of what it prints, in characters. Default 65,536. */
  readonly keptOutput?: number;
  /** Whether signals go to everything it starts as well. Default: to itself alone. */
  readonly group?: boolean;
}

/** A process of another program, with the end of what it printed. */
export class Child {
  readonly #process: ChildProcess;
  readonly #group: boolean;
  readonly #exited: Promise<void>;
  readonly #closed: Promise<void>;
  #output = "";

  constructor(command: string, args: readonly string[], env: NodeJS.ProcessEnv, options: ChildOptions) {
    const { cwd, keptOutput = KEPT_OUTPUT, group = false } = options;
    this.#group = group;
    this.#process = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env, cwd, detached: group });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.#output = (this.#output + text).slice(-keptOutput);
      });
    }
    this.#closed = new Promise((resolve) => {
      this.#process.once("close", () => resolve());
      this.#process.once("error", () => resolve());
    });
    this.#exited = new Promise((resolve) => {
      this.#process.once("exit", () => resolve());
      this.#process.once("error", (error) => {
        this.#output += `\n${error.message}`;
        resolve();
      });
    });
  }

  /** Undefined when it could not be started. */
  get pid(): number | undefined {
    return this.#process.pid;
  }

  get output(): string {
    return this.#output;
  }

  get running(): boolean {
    return this.pid !== undefined && this.#process.exitCode === null && this.#process.signalCode === null;
  }

  signal(name: NodeJS.Signals): void {
    if (this.#group) this.#signalGroup(name);
    else if (this.running) this.#process.kill(name);
  }

  /** Also when it has ended itself, and others that it started have not. */
  #signalGroup(name: NodeJS.Signals): void {
    if (this.pid === undefined) return;
    try {
      process.kill(-this.pid, name);
    } catch (error) {
      // Nobody is left.
      if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
    }
  }

  /** Resolves to its exit code once it has ended by itself or by a signal, of which the code says nothing. */
  async ended(): Promise<number | undefined> {
    await this.#exited;
    return this.#process.exitCode ?? undefined;
  }

  /** Resolves to what it printed once it, and others that it started, can print no more. */
  async printed(): Promise<string> {
    await this.#closed;
    return this.#output;
  }

  /** Sends `name` and waits for the end of the process. */
  async end(name: "SIGTERM" | "SIGKILL"): Promise<void> {
    // One that is paused hears of nothing else.
    this.signal("SIGCONT");
    this.signal(name);
    await this.#exited;
  }
}

/** Starts processes, and ends them all when the program ends, however it does. */
export class Processes {
  readonly #children = new Set<Child>();
  readonly #ports = new Set<number>();

  /** Those of a program: they end when it does, also by a signal. */
  static untilExit(): Processes {
    const processes = new Processes();
    process.once("exit", () => processes.killAll());
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));
    return processes;
  }

  start(
    command: string,
    args: readonly string[],
    env: NodeJS.ProcessEnv = process.env,
    options: ChildOptions = {},
  ): Child {
    const child = new Child(command, args, env, options);
    this.#children.add(child);
    return child;
  }

  /** For a program that is about to exit: nothing is waited for. */
  killAll(): void {
    for (const child of this.#children) child.signal("SIGKILL");
  }

  /** Ports of 127.0.0.1 on which nobody listens, none of them twice. */
  async ports(count: number): Promise<readonly number[]> {
    const found: number[] = [];
    while (found.length < count) {
      const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT + 1));
      if (this.#ports.has(port) || !(await isFree(port))) continue;
      this.#ports.add(port);
      found.push(port);
    }
    return found;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
