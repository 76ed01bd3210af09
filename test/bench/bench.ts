// npm run bench -- [--sizes 1000,10000,100000] [--updates 500] [--burst 2000] [--json FILE]
//
// Two processes, level storage, TLS on loopback. Beside each row stands the limit: the same bytes through a bare
// node:http2 stream (TLS, large windows, 64 KiB writes) between two such processes.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BenchProcess, type Load } from "./calls.js";

const { values: options } = parseArgs({
  options: {
    sizes: { type: "string", default: "1000,10000,100000" },
    updates: { type: "string", default: "500" },
    burst: { type: "string", default: "2000" },
    json: { type: "string" },
  },
});

const INSTANCES = 5;
const PER_NODE = 10;

interface Row {
  readonly row: string;
  readonly instances: number;
  readonly seconds: number;
  readonly bareSeconds: number;
  readonly ratio: number;
  readonly microsecondsPerInstance: number;
  readonly exporterCpu: number;
  readonly importerCpu: number;
  readonly exporterRssMiB: number;
  readonly importerRssMiB: number;
}

interface Pair {
  readonly a: BenchProcess;
  readonly b: BenchProcess;
}

async function withPair<T>(use: (pair: Pair) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "peerage-bench-"));
  const pair = { a: new BenchProcess(), b: new BenchProcess() };
  try {
    await pair.a.call("start", { directory: join(directory, "a"), datacenter: "dc1" });
    await pair.b.call("start", { directory: join(directory, "b"), datacenter: "dc2" });
    return await use(pair);
  } finally {
    await Promise.all([pair.a.end(), pair.b.end()]);
    rmSync(directory, { recursive: true, force: true });
  }
}

async function bareSeconds(bytes: number): Promise<number> {
  const server = new BenchProcess();
  const client = new BenchProcess();
  try {
    const port = await server.call("serveBare");
    const seconds: number[] = [];
    for (let run = 0; run < 3; run++) seconds.push(await client.call("sendBare", { port, bytes }));
    return seconds.sort((x, y) => x - y)[1] ?? 0;
  } finally {
    await Promise.all([server.end(), client.end()]);
  }
}

function loadOf(instances: number, nodes?: number): Load {
  const load = { services: instances / INSTANCES, instances: INSTANCES, perNode: PER_NODE };
  return nodes === undefined ? load : { ...load, nodes };
}

/** A exports the load to B (and B to A); resolves with the seconds from establish to the last instance stored. */
async function sync(pair: Pair, load: Load, both: boolean): Promise<number> {
  const count = load.services * load.instances;
  await pair.a.call("fill", { load, consumer: "b" });
  if (both) await pair.b.call("fill", { load, consumer: "a" });
  const token = await pair.a.call("token", { peerName: "b" });
  const arrivals = [pair.b.call("imported", { peerName: "a", instances: count })];
  if (both) arrivals.push(pair.a.call("imported", { peerName: "b", instances: count }));
  const began = await pair.b.call("establish", { peerName: "a", token });
  return (Math.max(...(await Promise.all(arrivals))) - began) / 1_000;
}

async function syncRow(name: string, load: Load, both: boolean): Promise<Row> {
  return withPair(async (pair) => {
    const count = load.services * load.instances;
    const seconds = await syncMeasured(pair, load, both);
    const bytes = (await pair.a.call("exportedBytes", { peerName: "b" })) * (both ? 2 : 1);
    const bare = await bareSeconds(bytes);
    return {
      row: name,
      instances: count * (both ? 2 : 1),
      seconds: seconds.seconds,
      bareSeconds: bare,
      ratio: seconds.seconds / bare,
      microsecondsPerInstance: (seconds.seconds * 1e6) / (count * (both ? 2 : 1)),
      exporterCpu: seconds.exporter.cpuSeconds,
      importerCpu: seconds.importer.cpuSeconds,
      exporterRssMiB: seconds.exporter.rssMiB,
      importerRssMiB: seconds.importer.rssMiB,
    };
  });
}

async function syncMeasured(pair: Pair, load: Load, both: boolean) {
  const exporterBefore = await pair.a.call("usage");
  const importerBefore = await pair.b.call("usage");
  const seconds = await sync(pair, load, both);
  const exporter = await pair.a.call("usage");
  const importer = await pair.b.call("usage");
  return {
    seconds,
    // The exporter's figure includes filling its catalog.
    exporter: { ...exporter, cpuSeconds: exporter.cpuSeconds - exporterBefore.cpuSeconds },
    importer: { ...importer, cpuSeconds: importer.cpuSeconds - importerBefore.cpuSeconds },
  };
}

function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
}

async function updates(count: number, burst: number) {
  return withPair(async (pair) => {
    const load = loadOf(Math.max(10_000, burst * INSTANCES));
    await sync(pair, load, false);
    const latencies: number[] = [];
    for (let update = 0; update < count; update++) {
      const service = update % load.services;
      const tag = `u${update}`;
      const seen = pair.b.call("sees", { peerName: "a", service, tag });
      // The watch is set up at B before A changes anything.
      await pair.b.call("usage");
      const began = await pair.a.call("update", { load, service, tag });
      latencies.push((await seen) - began);
    }
    const before = { a: await pair.a.call("usage"), b: await pair.b.call("usage") };
    const seen = pair.b.call("seesAll", { peerName: "a", count: burst, tag: "burst" });
    await pair.b.call("usage");
    const began = await pair.a.call("burst", { load, count: burst, tag: "burst" });
    const burstSeconds = ((await seen) - began) / 1_000;
    const after = { a: await pair.a.call("usage"), b: await pair.b.call("usage") };
    return {
      updateP50Ms: quantile(latencies, 0.5),
      updateP99Ms: quantile(latencies, 0.99),
      burst,
      burstSeconds,
      burstCpuExporter: after.a.cpuSeconds - before.a.cpuSeconds,
      burstCpuImporter: after.b.cpuSeconds - before.b.cpuSeconds,
    };
  });
}

const sizes = options.sizes
  .split(",")
  .filter((size) => size !== "")
  .map(Number);
const rows: Row[] = [];
const print = (row: Row): void => {
  rows.push(row);
  console.log(
    [
      row.row.padEnd(26),
      String(row.instances).padStart(8),
      `${row.seconds.toFixed(3)} s`.padStart(10),
      `${row.bareSeconds.toFixed(3)} s`.padStart(10),
      `${row.ratio.toFixed(1)}x`.padStart(8),
      `${row.microsecondsPerInstance.toFixed(1)} us`.padStart(9),
      `${row.exporterCpu.toFixed(2)} / ${row.importerCpu.toFixed(2)} s`.padStart(16),
      `${row.exporterRssMiB.toFixed(0)} / ${row.importerRssMiB.toFixed(0)} MiB`.padStart(16),
    ].join("  "),
  );
};

console.log(
  [
    "row".padEnd(26),
    "   count",
    "      time",
    "      bare",
    "   ratio",
    " each    ",
    "cpu exp / imp   ",
    "rss exp / imp   ",
  ].join("  "),
);
for (const size of sizes) {
  print(await syncRow("sync one way", loadOf(size), false));
  print(await syncRow("sync one way, five nodes", loadOf(size, 5), false));
  print(await syncRow("sync both ways", loadOf(size), true));
}
const updateRow = await updates(Number(options.updates), Number(options.burst));
console.log(
  `update, one in flight: p50 ${updateRow.updateP50Ms.toFixed(2)} ms, p99 ${updateRow.updateP99Ms.toFixed(2)} ms (${options.updates} updates)`,
);
console.log(
  `burst of ${updateRow.burst} updates: ${updateRow.burstSeconds.toFixed(3)} s, cpu ${updateRow.burstCpuExporter.toFixed(2)} / ${updateRow.burstCpuImporter.toFixed(2)} s`,
);
if (options.json !== undefined) writeFileSync(options.json, JSON.stringify({ rows, ...updateRow }, undefined, 2));
