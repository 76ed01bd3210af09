// CONSUL_BIN=/usr/bin/consul npm run bench:consul -- [--loads 500x5,2000x5,2000x10] [--runs 5]
//
// The initial sync with a real Consul on one side, in turn with two of them, and with a peer that only reads: who is the
// limit shows in the ratios. The importer dials, and all that runs is new for each measurement. Linux only: processor time
// is read from /proc.
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { OurAgent } from "../interop/agent.js";
import type { Cluster } from "../interop/cluster.js";
import { type ConsulBinary, ConsulServer, consulBinary } from "../interop/consul.js";
import { complete, fill, type Load } from "../interop/load.js";
import { Processes } from "../interop/processes.js";
import { pause } from "../interop/settles.js";
import { BenchProcess } from "./calls.js";
import { cpuSeconds, quantile } from "./figures.js";

const { values: options } = parseArgs({
  options: {
    loads: { type: "string", default: "500x5,2000x5,2000x10" },
    runs: { type: "string", default: "5" },
  },
});

/** Consul's starting uses up the five passes in which it dials at once; after that they are back. */
const SETTLE_MS = 16_000;
/** Between filling the catalog and establishing, where we dial. */
const QUIET_MS = 2_000;
const ASK_AGAIN_MS = 50;

interface Measured {
  /** From the call of establish until all is there. */
  readonly seconds: number;
  readonly exporterCpu: number;
  readonly importerCpu: number;
}

type Row = (processes: Processes, binary: ConsulBinary, load: Load) => Promise<Measured>;

/** The importer is a Consul, which is asked for each service until it has all of it. */
async function intoConsul(
  exporter: Cluster & { readonly pid: number },
  importer: ConsulServer,
  load: Load,
): Promise<Measured> {
  await fill(exporter, importer, load);
  await pause(SETTLE_MS);
  const token = await exporter.client.peerings.generateToken({ peerName: importer.name });
  const before = [cpuSeconds(exporter.pid), cpuSeconds(importer.pid)] as const;
  const began = performance.now();
  await importer.client.peerings.establish({ peerName: exporter.name, token });
  await complete(exporter, importer, load, ASK_AGAIN_MS);
  return {
    seconds: (performance.now() - began) / 1_000,
    exporterCpu: cpuSeconds(exporter.pid) - before[0],
    importerCpu: cpuSeconds(importer.pid) - before[1],
  };
}

async function consulToConsul(processes: Processes, binary: ConsulBinary, load: Load): Promise<Measured> {
  await using exporter = await ConsulServer.start(processes, binary, { name: "exporter", datacenter: "dc1" });
  await using importer = await ConsulServer.start(processes, binary, { name: "importer", datacenter: "dc2" });
  await Promise.all([exporter.ready(), importer.ready()]);
  // Awaited here, before both are ended.
  return await intoConsul(exporter, importer, load);
}

async function usToConsul(processes: Processes, binary: ConsulBinary, load: Load): Promise<Measured> {
  await using exporter = await OurAgent.start(processes);
  await using importer = await ConsulServer.start(processes, binary, { name: "importer", datacenter: "dc2" });
  await importer.ready();
  // Awaited here, before both are ended.
  return await intoConsul(exporter, importer, load);
}

/** @param use - what the importer, a process of ours, does with the token: the seconds it took. */
async function fromConsul(
  processes: Processes,
  binary: ConsulBinary,
  load: Load,
  use: (importer: BenchProcess, token: string) => Promise<number>,
): Promise<Measured> {
  await using exporter = await ConsulServer.start(processes, binary, { name: "exporter" });
  await exporter.ready();
  await fill(exporter, { name: "importer" }, load);
  const importer = new BenchProcess();
  const directory = mkdtempSync(join(tmpdir(), "peerage-bench-"));
  try {
    await importer.call("start", { directory, datacenter: "dc2" });
    await pause(QUIET_MS);
    const token = await exporter.client.peerings.generateToken({ peerName: "importer" });
    const before = [cpuSeconds(exporter.pid), (await importer.call("usage")).cpuSeconds] as const;
    const seconds = await use(importer, token);
    return {
      seconds,
      exporterCpu: cpuSeconds(exporter.pid) - before[0],
      importerCpu: (await importer.call("usage")).cpuSeconds - before[1],
    };
  } finally {
    await importer.end();
    rmSync(directory, { recursive: true, force: true });
  }
}

const consulToUs: Row = (processes, binary, load) =>
  fromConsul(processes, binary, load, async (importer, token) => {
    const arrived = importer.call("imported", { peerName: "exporter", instances: load.services * load.instances });
    const began = await importer.call("establish", { peerName: "exporter", token });
    return ((await arrived) - began) / 1_000;
  });

const consulToReader: Row = (processes, binary, load) =>
  fromConsul(processes, binary, load, (importer, token) => importer.call("drain", { token, services: load.services }));

const rows = {
  "Consul to a reader": consulToReader,
  "Consul to us": consulToUs,
  "Consul to Consul": consulToConsul,
  "us to Consul": usToConsul,
} as const satisfies Record<string, Row>;

function print(row: string, runs: readonly Measured[]): void {
  const median = (pick: (one: Measured) => number): number => quantile(runs.map(pick), 0.5);
  const seconds = runs.map((one) => one.seconds);
  const [least, most] = [Math.min(...seconds), Math.max(...seconds)].map((one) => one.toFixed(2));
  const cpu = (pick: (one: Measured) => number): string => {
    const share = median((one) => (100 * pick(one)) / one.seconds);
    return `${median(pick).toFixed(2)} s, ${share.toFixed(0)} %`;
  };
  console.log(
    [
      row.padEnd(18),
      `${median((one) => one.seconds).toFixed(2)} s (${least} to ${most})`.padEnd(24),
      `cpu exporter ${cpu((one) => one.exporterCpu)}`.padEnd(30),
      `importer ${cpu((one) => one.importerCpu)}`,
    ].join("  "),
  );
}

async function measure(processes: Processes, binary: ConsulBinary, load: Load): Promise<void> {
  console.log(`\n${load.services} services of ${load.instances} instances`);
  const measured = new Map<string, Measured[]>(Object.keys(rows).map((name) => [name, []]));
  for (let run = 0; run < Number(options.runs); run++) {
    for (const [name, row] of Object.entries(rows)) {
      const one = await row(processes, binary, load);
      measured.get(name)?.push(one);
      console.log(`  run ${run + 1}: ${name} ${one.seconds.toFixed(2)} s`);
    }
  }
  for (const [name, runs] of measured) print(name, runs);
  const ratio = (name: keyof typeof rows, to: keyof typeof rows): void => {
    const pairs =
      measured.get(name)?.map(({ seconds }, run) => seconds / (measured.get(to)?.[run]?.seconds ?? 0)) ?? [];
    const [least, median, most] = [0, 0.5, 1].map((q) => quantile(pairs, q).toFixed(2));
    console.log(`${name}, against ${to}, run by run: ${median} (${least} to ${most})`);
  };
  ratio("Consul to us", "Consul to a reader");
  ratio("us to Consul", "Consul to Consul");
}

async function main(): Promise<void> {
  const [path] = (process.env["CONSUL_BIN"] ?? "").split(":");
  if (path === undefined || path === "") {
    console.log("skipped: CONSUL_BIN names no Consul to measure with");
    return;
  }
  const binary = await consulBinary(path);
  const processes = Processes.untilExit();
  console.log(`Consul ${binary.version}, node ${process.version}, ${availableParallelism()} cores`);
  console.log(`medians of ${options.runs} runs; shares are of the time from establish to the last instance, in cores`);
  for (const load of options.loads.split(",")) {
    const [services = 0, instances = 0] = load.split("x").map(Number);
    await measure(processes, binary, { services, instances });
  }
}

await main();
process.exit(0);
