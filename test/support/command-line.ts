import { readdir, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import { lookUp } from "../../src/cli/look-up.js";
import { readTextFile } from "../../src/cli/read-file.js";
import { runCommandLine } from "../../src/cli/run.js";
import { outputOf, runProgram } from "../../src/cli/run-program.js";

export interface CommandLineResult {
  readonly exit: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandLineWorld {
  readonly environment?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  readonly signal?: AbortSignal;
  /** Told what a hang-up does, for tests that hang up. */
  readonly onHangUp?: (action: () => void) => void;
  /** Told of all that goes to standard error as it comes. */
  readonly onLog?: (output: string) => void;
  /** Told of all output as it comes. */
  readonly onOutput?: (output: string) => void;
}

/** Runs one command line in this process, with an environment of its own. */
export async function runPeerage(args: readonly string[], world: CommandLineWorld = {}): Promise<CommandLineResult> {
  let stdout = "";
  let stderr = "";
  const exit = await runCommandLine(args, "0.0.0", {
    environment: world.environment ?? {},
    stdout: (output) => {
      stdout += output;
      world.onOutput?.(output);
    },
    stderr: (output) => {
      stderr += output;
      world.onLog?.(output);
    },
    stdin: async () => world.stdin ?? "",
    readFile: readTextFile,
    readDirectory: (path) => readdir(path),
    holdPidFile: async (path) => {
      await writeFile(path, "1");
      return { [Symbol.asyncDispose]: () => rm(path) };
    },
    wall: () => Date.UTC(2026, 0, 1),
    people: false,
    untilStopped: () => world.signal ?? new AbortController().signal,
    onHangUp: (action) => world.onHangUp?.(action),
    onReport: () => {},
    runProgram: (program) => runProgram(program, 0o022),
    lookUp,
    outputOf,
  });
  return { exit, stdout, stderr };
}

/** The line that an agent prints when it serves. */
export const AGENT_READY: RegExp =
  /^Peerage agent ready: datacenter=(\S+) node=(\S+)(?: http=(\S+))?(?: grpc-tls=(\S+))?(?: dns=(\S+?))?(?: https=(\S+))?(?: grpc=(\S+))?(?: xds-tls=(\S+))?$/;

/** An agent in this process that serves; addresses are `host:port`. */
export interface RunningAgent {
  /** `""`: not served. */
  readonly http: string;
  /** `""`: not served. */
  readonly https: string;
  readonly dns: string;
  /** Where Envoys are served; `""`: nowhere. */
  readonly grpc: string;
  readonly xdsTls: string;
  readonly result: Promise<CommandLineResult>;
}

/** @param signal - tells the agent to stop. */
export async function startAgent(
  args: readonly string[],
  signal: AbortSignal,
  world: CommandLineWorld = {},
): Promise<RunningAgent> {
  let result: Promise<CommandLineResult> | undefined;
  const line = await new Promise<string>((resolve, reject) => {
    result = runPeerage(["agent", ...args], { ...world, signal, onOutput: resolve });
    result.then(({ stderr }) => reject(new Error(stderr)), reject);
  });
  const [ready, , , http = "", , dns = "", https = "", grpc = "", xdsTls = ""] = AGENT_READY.exec(line.trim()) ?? [];
  if (ready === undefined || result === undefined) throw new Error(line);
  return { http, https, dns, grpc, xdsTls, result };
}

export interface FakeRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

export interface FakeAnswer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as it is when it is a text, else as JSON. */
  readonly body?: unknown;
}

/** A server that answers as it is told, and remembers what it was asked. */
export interface FakeServer extends AsyncDisposable {
  /** `127.0.0.1:port` */
  readonly address: string;
  readonly requests: FakeRequest[];
}

export async function fakeServer(answer: (request: FakeRequest) => FakeAnswer | undefined): Promise<FakeServer> {
  const requests: FakeRequest[] = [];
  const server = createServer((incoming, response) => {
    void text(incoming).then((body) => {
      const { method = "", headers } = incoming;
      const request = { method, url: new URL(incoming.url ?? "", "http://server"), headers, body };
      requests.push(request);
      const answered = answer(request);
      // Left open: for those who wait.
      if (answered === undefined) return;
      response.writeHead(answered.status ?? 200, answered.headers);
      response.end(typeof answered.body === "string" ? answered.body : JSON.stringify(answered.body));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new TypeError("no port");
  return {
    address: `127.0.0.1:${bound.port}`,
    requests,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
