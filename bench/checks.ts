// CONSUL_BIN=/usr/bin/consul npm run bench:checks -- [--checks 20000] [--interval 10] [--seconds 60] [--defined] [--alias 200]
//   [--start-seconds 600] [--settle-seconds 300]
//
// One agent runs so many checks, of all kinds in equal parts, each at the same interval: first an agent of ours with level
// storage, then, where CONSUL_BIN names one, a real Consul as a durable server of its own. The checks are registered over HTTP or,
// by --defined, in a file that the agent reads as it starts: the time that Consul takes to register one grows with how many it
// has. By --alias, so many are alias checks, and TCP checks stand in for the others: each alias check of Consul copies all checks of
// the agent. By --start-seconds, an agent has so long to know all of a file, and by --settle-seconds so long until all of
// them pass. What they probe is one other process. Processor time and memory are those of the agent alone. A row says
// how many checks did not pass afterwards, and how many probes arrived of those that the interval asks for. Linux only: processor
// time is read from /proc.
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { OurAgent } from "../interop/agent.js";
import { ConsulServer, consulBinary } from "../interop/consul.js";
import { Processes } from "../interop/processes.js";
import { settles } from "../interop/settles.js";
import type { ProbedPorts, ProbesSeen } from "./check-targets.js";
import { cpuSeconds } from "./figures.js";

const { values: options } = parseArgs({
  options: {
    checks: { type: "string", default: "20000" },
    interval: { type: "string", default: "10" },
    seconds: { type: "string", default: "60" },
    defined: { type: "boolean", default: false },
    alias: { type: "string" },
    "start-seconds": { type: "string", default: "600" },
    "settle-seconds": { type: "string", default: "300" },
  },
});

const CHECKS = Number(options.checks);
const INTERVAL_S = Number(options.interval);
const SECONDS = Number(options.seconds);
/** Calls at once while services are registered and TTLs are reported. */
const CALLERS = 16;
/** In which all checks must be there, where a file defines them. */
const START_MS = 1_000 * Number(options["start-seconds"]);
/** In which all checks must pass, once they are there. */
const SETTLE_MS = 1_000 * Number(options["settle-seconds"]);
/** Between two looks at all checks, which take time of the agent. */
const LOOK_MS = 3_000;

const kinds = ["http", "tcp", "udp", "grpc", "h2ping", "ttl", "alias"] as const;
const MAX_ALIASES = options.alias === undefined ? Number.POSITIVE_INFINITY : Number(options.alias);

function kindOf(number: number): (typeof kinds)[number] {
  const kind = kinds[number % kinds.length] ?? "tcp";
  return kind === "alias" && number >= MAX_ALIASES * kinds.length ? "tcp" : kind;
}

interface Target {
  readonly label: string;
  readonly http: string;
  readonly pid: number;
}

interface Measured {
  readonly label: string;
  /** After all the time to settle, and the measurement. */
  readonly notPassing: number;
  /** Until all checks were there. */
  readonly startSeconds: number;
  readonly cpuPercent: number;
  readonly residentMiB: number;
  readonly probesPerSecond: number;
}

/** The process that is probed. */
class CheckTargets implements AsyncDisposable {
  readonly #process = fork(fileURLToPath(new URL("./check-targets.js", import.meta.url)));

  ports(): Promise<ProbedPorts> {
    return this.#ask("ports");
  }

  /** Counted since the last call. */
  seen(): Promise<ProbesSeen> {
    return this.#ask("seen");
  }

  async #ask<Answer>(question: string): Promise<Answer> {
    this.#process.send(question);
    const [answer]: Answer[] = await once(this.#process, "message");
    if (answer === undefined) throw new Error("the probed process does not answer");
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.disconnect();
    await once(this.#process, "exit");
  }
}

/** The check of service `number`, as a client of Consul registers it. */
function checkOf(number: number, ports: ProbedPorts): Readonly<Record<string, unknown>> {
  const timed = { Interval: `${INTERVAL_S}s`, Timeout: "5s" };
  switch (kindOf(number)) {
    case "http":
      return { HTTP: `http://127.0.0.1:${ports.http}/health`, ...timed };
    case "tcp":
      return { TCP: `127.0.0.1:${ports.tcp}`, ...timed };
    case "udp":
      return { UDP: `127.0.0.1:${ports.udp}`, ...timed };
    case "grpc":
      return { GRPC: `127.0.0.1:${ports.http2}`, ...timed };
    case "h2ping":
      return { H2PING: `127.0.0.1:${ports.http2}`, H2PingUseTLS: false, ...timed };
    case "ttl":
      return { TTL: `${3 * INTERVAL_S}s` };
    default:
      // The service with the HTTP check of the same round.
      return { AliasService: `service-${number - (number % kinds.length)}` };
  }
}

const agent = new Agent({ keepAlive: true, maxSockets: CALLERS });

async function call(target: Target, method: string, path: string, body?: unknown): Promise<string> {
  const [host, port] = target.http.split(":");
  const sent = request({ agent, host, port, method, path });
  sent.end(body === undefined ? undefined : JSON.stringify(body));
  const [response] = await once(sent, "response");
  const answer = await text(response);
  if (response.statusCode !== 200) throw new Error(`${method} ${path}: ${response.statusCode} ${answer}`);
  return answer;
}

async function each(numbers: Iterable<number>, work: (number: number) => Promise<unknown>): Promise<void> {
  const left = numbers[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (let next = left.next(); next.done !== true; next = left.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: CALLERS }, worker));
}

const all = Array.from({ length: CHECKS }, (_, number) => number);
const ttls = all.filter((number) => kindOf(number) === "ttl");
const probed = all.filter((number) => !["ttl", "alias"].includes(kindOf(number)));

/** Reports every TTL once an interval, evenly, until `signal` aborts. */
async function reportTtls(target: Target, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const began = performance.now();
    for (let index = 0; index < ttls.length && !signal.aborted; index += CALLERS) {
      await each(ttls.slice(index, index + CALLERS), (number) =>
        call(target, "PUT", `/v1/agent/check/pass/service:service-${number}`),
      );
      const due = began + (1_000 * INTERVAL_S * (index + CALLERS)) / ttls.length;
      await pause(Math.max(0, due - performance.now()));
    }
  }
}

/** The statuses of all checks that the agent knows, by the kind of its check. */
async function statusesOf(target: Target): Promise<readonly (readonly [string, string])[]> {
  const checks: Record<string, { Status: string; Type: string }> = JSON.parse(
    await call(target, "GET", "/v1/agent/checks"),
  );
  return Object.values(checks).map(({ Type, Status }) => [Type, Status]);
}

/** How many checks do not pass; told by kind on stderr. */
async function notPassing(target: Target): Promise<number> {
  const kindsLeft = new Map<string, number>();
  let passing = 0;
  for (const [kind, status] of await statusesOf(target)) {
    if (status === "passing") passing++;
    else kindsLeft.set(kind, (kindsLeft.get(kind) ?? 0) + 1);
  }
  if (kindsLeft.size > 0) console.error(`${target.label}: do not pass: ${[...kindsLeft].flat().join(" ")}`);
  return CHECKS - passing;
}

/** The keys of configuration files for those of requests. */
function fileKey(key: string): string {
  return key === "AliasService" ? "alias_service" : key === "H2PingUseTLS" ? "h2ping_use_tls" : key.toLowerCase();
}

/** The flags by which an agent reads the definitions of all checks as it starts. */
async function definitions(directory: string, ports: ProbedPorts): Promise<readonly string[]> {
  const services = all.map((number) => {
    const check = Object.entries(checkOf(number, ports)).map(([key, value]) => [fileKey(key), value] as const);
    return { name: `service-${number}`, port: 8_000, check: Object.fromEntries(check) };
  });
  const file = join(directory, "services.json");
  await writeFile(file, JSON.stringify({ services }));
  return ["-config-file", file];
}

function residentMiB(pid: number): number {
  const [, kibibytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kibibytes) / 1_024;
}

/** @param startedAt - when the agent was started, by `performance.now()`. */
async function measure(target: Target, targets: CheckTargets, startedAt: number): Promise<Measured> {
  let began = startedAt;
  if (options.defined) {
    const allThere = async (): Promise<void> => {
      const { length } = await statusesOf(target);
      if (length < CHECKS) throw new Error(`${length} checks are there`);
    };
    await settles(allThere, "all checks are there", START_MS);
  } else {
    const ports = await targets.ports();
    began = performance.now();
    await each(all, (number) =>
      call(target, "PUT", "/v1/agent/service/register", {
        Name: `service-${number}`,
        Port: 8_000,
        Check: checkOf(number, ports),
      }),
    );
  }
  const startSeconds = (performance.now() - began) / 1_000;
  const stop = new AbortController();
  const reports = reportTtls(target, stop.signal);
  try {
    const deadline = performance.now() + SETTLE_MS;
    while ((await notPassing(target)) > 0 && performance.now() < deadline) await pause(LOOK_MS);
    await targets.seen();
    const before = cpuSeconds(target.pid);
    const from = performance.now();
    await pause(1_000 * SECONDS);
    const seconds = (performance.now() - from) / 1_000;
    const used = cpuSeconds(target.pid) - before;
    const residents = residentMiB(target.pid);
    const seen = await targets.seen();
    return {
      label: target.label,
      notPassing: await notPassing(target),
      startSeconds,
      cpuPercent: (100 * used) / seconds,
      residentMiB: residents,
      probesPerSecond: Object.values(seen).reduce((sum, count) => sum + count, 0) / seconds,
    };
  } finally {
    stop.abort();
    await reports;
  }
}

function print(row: Measured): void {
  console.log(
    [
      row.label.padEnd(14),
      `${options.defined ? "started" : "registered"} in ${row.startSeconds.toFixed(1)} s`.padEnd(24),
      `${row.probesPerSecond.toFixed(0)} of ${(probed.length / INTERVAL_S).toFixed(0)} probes/s`.padEnd(24),
      `cpu ${row.cpuPercent.toFixed(0)} %`.padEnd(12),
      `${row.residentMiB.toFixed(0)} MiB`.padEnd(12),
      row.notPassing === 0 ? "all pass" : `${row.notPassing} do not pass`,
    ].join(""),
  );
}

async function main(): Promise<void> {
  const aliases = all.filter((number) => kindOf(number) === "alias").length;
  console.log(
    `${CHECKS} checks of ${kinds.length} kinds, ${aliases} of them of aliases, every ${INTERVAL_S} s, measured for ${SECONDS} s`,
  );
  const processes = new Processes();
  process.once("exit", () => processes.killAll());
  process.once("SIGTERM", () => process.exit(1));
  await using targets = new CheckTargets();
  const directory = await mkdtemp(join(tmpdir(), "peerage-bench-"));
  process.once("exit", () => rmSync(directory, { recursive: true, force: true }));
  const flags = options.defined ? await definitions(directory, await targets.ports()) : [];
  {
    const startedAt = performance.now();
    await using ours = await OurAgent.start(processes, { flags });
    print(await measure({ label: "Peerage", http: ours.http, pid: ours.pid }, targets, startedAt));
  }
  const path = process.env["CONSUL_BIN"];
  if (path === undefined) {
    console.log("CONSUL_BIN is not set: no Consul beside it");
    return;
  }
  const binary = await consulBinary(path);
  const startedAt = performance.now();
  await using consul = await ConsulServer.start(processes, binary, { durable: true, flags });
  await consul.ready(START_MS);
  print(await measure({ label: `Consul ${binary.version}`, http: consul.http, pid: consul.pid }, targets, startedAt));
}

await main();
agent.destroy();
