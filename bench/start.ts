// CONSUL_BIN=/usr/bin/consul npm run bench:start -- [--runs 7]
//
// From the start of a process to its result, ours and that Consul's in turn: the list of peerings, asked of one of our agents, and an
// agent of its own until it answers over HTTP that it leads. Each row prints the medians and their ratio. The seconds of CPU are those
// of the process and its threads, which tell more than the wall clock where others use the machine.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { get } from "node:http";
import { createServer } from "node:net";
import { availableParallelism } from "node:os";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { quantile } from "./figures.js";

const { values: options } = parseArgs({ options: { runs: { type: "string", default: "7" } } });
const RUNS = Number(options.runs);
const consulBin = process.env["CONSUL_BIN"];
const peerage = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const POLL_MS = 5;
/** Linux counts the CPU of processes in these. */
const TICK_MS = 10;

interface Program {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Flags of an agent beside those that both have. */
  readonly agentFlags: (port: () => Promise<number>) => Promise<readonly string[]>;
}

interface Measured {
  readonly wallMs: number;
  readonly cpuMs: number;
}

const programs: readonly Program[] = [
  { name: "Peerage", command: process.execPath, args: [peerage], agentFlags: async () => [] },
  ...(consulBin === undefined
    ? []
    : [
        {
          name: "Consul",
          command: consulBin,
          args: [],
          agentFlags: async (port: () => Promise<number>) => {
            const flags = ["-grpc-tls-port", "-serf-lan-port", "-serf-wan-port", "-server-port"];
            return (await Promise.all(flags.map(async (flag) => [flag, String(await port())]))).flat();
          },
        },
      ]),
];

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port is free");
  return address.port;
}

/** Whether the agent on this port says that it leads. */
function leads(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port, path: "/v1/status/leader" }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (text: string) => {
        body += text;
      });
      response.on("end", () => resolve(response.statusCode === 200 && body.includes(":")));
      response.on("error", () => resolve(false));
    });
    request.on("error", () => resolve(false));
  });
}

/** Of a process that runs. */
function cpuMsOf(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

interface Running extends AsyncDisposable {
  readonly port: number;
  readonly measured: Measured;
}

async function startAgent({ name, command, args, agentFlags }: Program): Promise<Running> {
  const port = await freePort();
  const ports = [
    "-http-port",
    String(port),
    "-grpc-port",
    String(await freePort()),
    "-dns-port",
    String(await freePort()),
  ];
  const flags = ["agent", "-dev", "-bind", "127.0.0.1", ...ports, ...(await agentFlags(freePort))];
  const began = performance.now();
  const child = spawn(command, [...args, ...flags], { stdio: "ignore" });
  const ended = once(child, "exit");
  while (!(await leads(port))) {
    if (child.exitCode !== null) throw new Error(`the agent of ${name} ended with ${child.exitCode}`);
    await wait(POLL_MS);
  }
  const measured = { wallMs: performance.now() - began, cpuMs: cpuMsOf(child.pid) };
  return {
    port,
    measured,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGTERM");
      await ended;
    },
  };
}

async function agentRun(program: Program): Promise<Measured> {
  await using agent = await startAgent(program);
  return agent.measured;
}

async function listRun({ name, command, args }: Program, port: number): Promise<Measured> {
  const began = performance.now();
  // `time` of bash tells the CPU of a process that has ended; Node tells that of none.
  const line = ["TIMEFORMAT='%U %S'; time", quoted(command), ...args.map(quoted), "peering", "list", ">/dev/null"].join(
    " ",
  );
  const child = spawn("bash", ["-c", line], {
    env: { ...process.env, CONSUL_HTTP_ADDR: `127.0.0.1:${port}` },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let told = "";
  child.stderr.setEncoding("utf8");
  child.stderr.on("data", (text: string) => {
    told += text;
  });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${name} peering list ended with ${code}: ${told}`);
  const wallMs = performance.now() - began;
  const [user, system] = told.trim().split(" ").map(Number);
  return { wallMs, cpuMs: ((user ?? 0) + (system ?? 0)) * 1_000 };
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

async function row(name: string, run: (program: Program) => Promise<Measured>): Promise<void> {
  const found = new Map<Program, Measured[]>(programs.map((program) => [program, []]));
  // The first of each reads files that the later ones find in memory.
  for (const program of programs) await run(program);
  for (let count = 0; count < RUNS; count++) {
    for (const [program, measured] of found) measured.push(await run(program));
  }
  const medians = [...found].map(([program, measured]) => ({
    name: program.name,
    wallMs: quantile(
      measured.map(({ wallMs }) => wallMs),
      0.5,
    ),
    cpuMs: quantile(
      measured.map(({ cpuMs }) => cpuMs),
      0.5,
    ),
  }));
  const [ours, theirs] = medians;
  const texts = medians.map((one) => `${one.name} ${one.wallMs.toFixed(0)} ms, cpu ${one.cpuMs.toFixed(0)} ms`);
  const ratio =
    ours === undefined || theirs === undefined
      ? ""
      : `: ${(ours.wallMs / theirs.wallMs).toFixed(2)}x, cpu ${(ours.cpuMs / theirs.cpuMs).toFixed(2)}x`;
  console.log(`${name.padEnd(26)} ${texts.join(" / ")}${ratio}`);
}

console.log(`node ${process.version}, ${availableParallelism()} cores, medians of ${RUNS} runs in turn`);
const [own] = programs;
if (own === undefined) throw new Error("nothing to measure");
{
  await using agent = await startAgent(own);
  await row("peering list", (program) => listRun(program, agent.port));
}
await row("agent -dev until it leads", agentRun);
