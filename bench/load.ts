// npm run bench:load -- [--watchers 200] [--questions 1000] [--updates 2000] [--services 400] [--calm 3000] [--json FILE]
//
// Two agents as processes of their own, level storage, TLS on loopback; where `taskset` is there, the importing one has one
// core to itself and everything else the others. So many clients wait for changes at the importing agent, and so many
// questions a second are asked of its DNS, before, during and after a burst of updates at the exporting one. Every answer is
// checked, and every watcher must see the last state: a figure is printed only when nothing was wrong or missing.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { AGENT_READY } from "../test/support/command-line.js";
import { putLoadOn } from "../test/support/load.js";
import { cpuSeconds, quantile } from "./figures.js";

const { values: options } = parseArgs({
  options: {
    services: { type: "string", default: "400" },
    watchers: { type: "string", default: "200" },
    questions: { type: "string", default: "1000" },
    updates: { type: "string", default: "2000" },
    calm: { type: "string", default: "3000" },
    json: { type: "string" },
  },
});

const INSTANCES = 5;
const WRITERS = 16;

interface Agent {
  readonly process: ChildProcess;
  readonly http: string;
  readonly dns: string;
}

/** Counted now: later this process keeps to fewer. */
const cores = availableParallelism();
/** Whether the importing agent has a core to itself. */
const pinned = spawnSync("taskset", ["-c", "0", "true"]).status === 0 && cores > 1;

async function startAgent(directory: string, datacenter: string, alone: boolean): Promise<Agent> {
  const [command = "", ...args] = [
    ...(pinned ? ["taskset", "-c", alone ? "0" : `1-${cores - 1}`] : []),
    ...[process.execPath, "dist/cli/main.js", "agent", "-data-dir", join(directory, datacenter)],
    ...["-datacenter", datacenter, "-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"],
  ];
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [line]: unknown[] = await once(createInterface({ input: child.stdout }), "line");
  const [, , , http, , dns] = AGENT_READY.exec(String(line)) ?? [];
  if (http === undefined || dns === undefined) throw new Error(String(line));
  return { process: child, http, dns };
}

function residentMiB({ process: { pid } }: Agent): number {
  const [, kibibytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kibibytes) / 1_024;
}

const directory = mkdtempSync(join(tmpdir(), "peerage-load-"));
const agents: Agent[] = [];
try {
  const a = await startAgent(directory, "dc1", false);
  agents.push(a);
  const b = await startAgent(directory, "dc2", true);
  agents.push(b);
  if (pinned) spawnSync("taskset", ["-a", "-p", "-c", `1-${cores - 1}`, String(process.pid)]);
  const usage = (): readonly number[] => agents.map(({ process: { pid } }) => cpuSeconds(pid ?? 0));
  let before = usage();
  const figures = await putLoadOn(
    { a: a.http, b: b.http, dnsOfB: b.dns },
    {
      services: Number(options.services),
      instances: INSTANCES,
      watchers: Number(options.watchers),
      updates: Number(options.updates),
      writers: WRITERS,
      questionsPerSecond: Number(options.questions),
      calmMs: Number(options.calm),
      onLoad: () => {
        before = usage();
      },
    },
  );
  const [exporterCpu = 0, importerCpu = 0] = usage().map((seconds, agent) => seconds - (before[agent] ?? 0));
  const { answerMs, ...counted } = figures;
  const result = {
    ...counted,
    answerP50Ms: quantile(answerMs, 0.5),
    answerP99Ms: quantile(answerMs, 0.99),
    answerMaxMs: answerMs.at(-1) ?? 0,
    exporterCpu,
    importerCpu,
    importerRssMiB: residentMiB(b),
  };
  console.log(
    [
      `node ${process.version}, ${cores} cores; the importing agent ${pinned ? "has one of them" : "shares them"}`,
      `${options.services} services of ${INSTANCES} instances; ${options.watchers} wait; ${options.questions} questions a second for ${result.questionSeconds.toFixed(1)} s`,
      `burst of ${options.updates} updates over HTTP: ${result.burstSeconds.toFixed(2)} s until the last of those who wait has seen the last state; ${result.wakes} were woken`,
      `${result.questions} questions, all answered right; ${result.askedAgain} were asked twice; p50 ${result.answerP50Ms.toFixed(2)} ms, p99 ${result.answerP99Ms.toFixed(1)} ms, at most ${result.answerMaxMs.toFixed(0)} ms`,
      `cpu, exporter ${result.exporterCpu.toFixed(2)} s, importer ${result.importerCpu.toFixed(2)} s; importer ${result.importerRssMiB.toFixed(0)} MiB`,
    ].join("\n"),
  );
  if (options.json !== undefined) writeFileSync(options.json, JSON.stringify(result, undefined, 2));
} finally {
  await Promise.all(
    agents.map(async ({ process: child }) => {
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    }),
  );
  rmSync(directory, { recursive: true, force: true });
}
