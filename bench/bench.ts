// npm run bench -- [--sizes 1000,10000,100000] [--updates 500] [--burst 2000] [--peers 1000] [--restart] [--only TEXT] [--json FILE]
//
// Two processes, level storage, TLS on loopback. Beside each row stands the limit: the same bytes, envelopes and frames
// included, through a bare node:http2 stream (TLS, large windows, 64 KiB writes) between two such processes, both ways at
// once where the row goes both ways.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BenchProcess, type Load, type Started, type Usage } from "./calls.js";
import { quantile } from "./figures.js";
import { manyPeers } from "./many-peers.js";

const { values: options } = parseArgs({
  options: {
    sizes: { type: "string", default: "1000,10000,100000" },
    updates: { type: "string", default: "500" },
    burst: { type: "string", default: "2000" },
    peers: { type: "string", default: "0" },
    restart: { type: "boolean", default: false },
    only: { type: "string", default: "" },
    json: { type: "string" },
  },
});

const INSTANCES = 5;
const PER_NODE = 10;
/** Small sizes are measured this often, each time in new processes; the row is the run with the median time. */
const RUNS = 3;
const SMALL = 10_000;
/** Between filling the catalogs and establishing, and before the bare stream. */
const SETTLE_MS = 1_000;

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
  /** The longest turns of the event loop meanwhile. */
  readonly exporterTurnMs: number;
  readonly importerTurnMs: number;
}

interface Pair {
  a: BenchProcess;
  b: BenchProcess;
}

async function withPair<T>(instances: number, use: (pair: Pair, directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "peerage-bench-"));
  const pair: Pair = { a: new BenchProcess(), b: new BenchProcess() };
  try {
    await pair.a.call("start", { directory: join(directory, "a"), datacenter: "dc1", instances });
    await pair.b.call("start", { directory: join(directory, "b"), datacenter: "dc2", instances });
    return await use(pair, directory);
  } finally {
    await Promise.all([pair.a.end(), pair.b.end()]);
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * The median of three, each in two processes that are as cold as those of the rows: they have loaded the library and done
 * nothing else. From `connect` to the last byte, with TCP, TLS and the settings of HTTP/2, and with the certificate checked.
 */
async function bareSeconds(bytes: number, both: boolean): Promise<number> {
  const seconds: number[] = [];
  for (let run = 0; run < 3; run++) {
    const [a, b] = [new BenchProcess(), new BenchProcess()];
    try {
      const [atA, atB] = [await a.call("serveBare"), await b.call("serveBare")];
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      const ways = [a.call("sendBare", { ...atB, bytes })];
      if (both) ways.push(b.call("sendBare", { ...atA, bytes }));
      seconds.push(Math.max(...(await Promise.all(ways))));
    } finally {
      await Promise.all([a.end(), b.end()]);
    }
  }
  return quantile(seconds, 0.5);
}

function loadOf(instances: number, nodes?: number): Load {
  const load = { services: instances / INSTANCES, instances: INSTANCES, perNode: PER_NODE };
  return nodes === undefined ? load : { ...load, nodes };
}

/** A exports the load to B (and B to A): the seconds from the call of establish to the last instance stored. */
async function sync(pair: Pair, load: Load, both: boolean) {
  const count = load.services * load.instances;
  await pair.a.call("fill", { load, consumers: ["b"] });
  if (both) await pair.b.call("fill", { load, consumers: ["a"] });
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const before = { exporter: await pair.a.call("usage"), importer: await pair.b.call("usage") };
  const token = await pair.a.call("token", { peerName: "b" });
  const arrivals = [pair.b.call("imported", { peerName: "a", instances: count })];
  if (both) arrivals.push(pair.a.call("imported", { peerName: "b", instances: count }));
  const began = await pair.b.call("establish", { peerName: "a", token });
  const seconds = (Math.max(...(await Promise.all(arrivals))) - began) / 1_000;
  const after = { exporter: await pair.a.call("usage"), importer: await pair.b.call("usage") };
  return {
    seconds,
    exporterCpu: after.exporter.cpuSeconds - before.exporter.cpuSeconds,
    importerCpu: after.importer.cpuSeconds - before.importer.cpuSeconds,
    exporterRssMiB: after.exporter.rssMiB,
    importerRssMiB: after.importer.rssMiB,
    exporterTurnMs: after.exporter.turnMs,
    importerTurnMs: after.importer.turnMs,
    bytes: await pair.a.call("exportedBytes", { peerName: "b" }),
  };
}

async function syncRow(name: string, load: Load, both: boolean): Promise<Row> {
  const count = load.services * load.instances;
  const runs: Awaited<ReturnType<typeof sync>>[] = [];
  for (let run = 0; run < (count <= SMALL ? RUNS : 1); run++) {
    runs.push(await withPair(count, (pair) => sync(pair, load, both)));
  }
  runs.sort((left, right) => left.seconds - right.seconds);
  const median = runs[Math.floor(runs.length / 2)];
  if (median === undefined) throw new Error("nothing was measured");
  const { bytes, ...measured } = median;
  const bare = await bareSeconds(bytes, both);
  const instances = count * (both ? 2 : 1);
  return {
    row: name,
    instances,
    ...measured,
    bareSeconds: bare,
    ratio: measured.seconds / bare,
    microsecondsPerInstance: (measured.seconds * 1e6) / instances,
  };
}

async function updates(count: number, burst: number) {
  const load = loadOf(Math.max(10_000, burst * INSTANCES));
  return withPair(0, async (pair) => {
    await sync(pair, load, false);
    await pair.b.call("watch", { peerName: "a" });
    const port = await pair.a.call("serveEcho");
    const latencies: number[] = [];
    const syncs: number[] = [];
    const roundTrips: number[] = [];
    for (let update = 0; update < count; update++) {
      const service = update % load.services;
      const tag = `u${update}`;
      const seen = pair.b.call("sees", { count: 1, tag });
      // B expects it before A changes anything.
      await pair.b.call("usage");
      const began = await pair.a.call("update", { load, service, tag });
      latencies.push((await seen) - began);
      // In turn with the updates, as both depend on what else the machine does.
      syncs.push(await pair.a.call("sync"));
      roundTrips.push(await pair.b.call("roundTrip", { port }));
    }
    const before = { a: await pair.a.call("usage"), b: await pair.b.call("usage") };
    const seen = pair.b.call("sees", { count: burst, tag: "burst" });
    await pair.b.call("usage");
    const began = await pair.a.call("burst", { load, count: burst, tag: "burst" });
    const burstSeconds = ((await seen) - began) / 1_000;
    const after = { a: await pair.a.call("usage"), b: await pair.b.call("usage") };
    return {
      updateP50Ms: quantile(latencies, 0.5),
      syncP50Ms: quantile(syncs, 0.5),
      roundTripP50Ms: quantile(roundTrips, 0.5),
      updateP99Ms: quantile(latencies, 0.99),
      burst,
      burstSeconds,
      burstCpuExporter: after.a.cpuSeconds - before.a.cpuSeconds,
      burstCpuImporter: after.b.cpuSeconds - before.b.cpuSeconds,
    };
  });
}

/** A host that starts with so much in its storage, in a new process, and what is left of it once the peering is gone. */
async function restarts(instances: number): Promise<readonly Restarted[]> {
  const load = loadOf(instances);
  return withPair(instances, async (pair, directory) => {
    await sync(pair, load, false);
    const found: Restarted[] = [];
    const again = async (side: "a" | "b", row: string, isThere: (started: Started) => boolean): Promise<void> => {
      await pair[side].end();
      pair[side] = new BenchProcess([...process.execArgv, "--expose-gc"]);
      const datacenter = side === "a" ? "dc1" : "dc2";
      const started = await pair[side].call("start", { directory: join(directory, side), datacenter, instances });
      if (!isThere(started)) throw new Error(`${row}: not everything is there`);
      found.push({ row, instances, seconds: started.seconds, ...(await pair[side].call("usage")) });
    };
    await again("b", "importer started again", ({ imported }) => imported === instances);
    await again("a", "exporter started again", ({ registered }) => registered === load.services);
    const began = performance.now();
    await pair.b.call("forget", { peerName: "a" });
    const seconds = (performance.now() - began) / 1_000;
    found.push({ row: "peering deleted", instances, seconds, ...(await pair.b.call("usage")) });
    return found;
  });
}

interface Restarted extends Usage {
  readonly row: string;
  readonly instances: number;
  readonly seconds: number;
}

function printRestarted({ row, instances, seconds, cpuSeconds, rssMiB, heapMiB, turnMs }: Restarted): void {
  const used = `cpu ${cpuSeconds.toFixed(2)} s in all, rss ${rssMiB.toFixed(0)} MiB, heap ${heapMiB.toFixed(0)} MiB`;
  console.log(`${row}, ${instances}: ${seconds.toFixed(2)} s, ${used}, longest turn ${turnMs.toFixed(0)} ms`);
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
      `${row.exporterTurnMs.toFixed(0)} / ${row.importerTurnMs.toFixed(0)} ms`.padStart(12),
    ].join("  "),
  );
};

console.log(
  [
    `node ${process.version}, ${availableParallelism()} cores`,
    "sync: from the call of establish to the last instance stored, in two processes that have done nothing but to fill",
    `their catalogs and wait ${SETTLE_MS} ms; up to ${SMALL} instances the median of ${RUNS} runs, above one run`,
    "bare: from connect to the last byte, in two new processes; median of 3 runs",
    "update, burst: from the call of register to what a watcher of all services is told on the other side, when warm",
    "",
  ].join("\n"),
);
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
    "longest turn",
  ].join("  "),
);
const isAsked = (row: string): boolean => row.includes(options.only);
const restarted: Restarted[] = [];
for (const size of sizes) {
  for (const [row, load, both] of [
    ["sync one way", loadOf(size), false],
    ["sync one way, five nodes", loadOf(size, 5), false],
    ["sync both ways", loadOf(size), true],
  ] as const) {
    if (isAsked(row)) print(await syncRow(row, load, both));
  }
  if (!options.restart) continue;
  for (const one of await restarts(size)) {
    restarted.push(one);
    printRestarted(one);
  }
}
const updateRow =
  !isAsked("update") || Number(options.updates) === 0
    ? undefined
    : await updates(Number(options.updates), Number(options.burst));
if (updateRow !== undefined) {
  const { updateP50Ms, updateP99Ms, syncP50Ms, roundTripP50Ms } = updateRow;
  const { burst, burstSeconds, burstCpuExporter, burstCpuImporter } = updateRow;
  console.log(
    [
      `update, one in flight: p50 ${updateP50Ms.toFixed(2)} ms, p99 ${updateP99Ms.toFixed(2)} ms (${options.updates} updates)`,
      `beside it: one fdatasync of the same disk p50 ${syncP50Ms.toFixed(2)} ms, one loopback round trip p50 ` +
        `${roundTripP50Ms.toFixed(2)} ms; an update takes ${(updateP50Ms / (syncP50Ms + roundTripP50Ms)).toFixed(1)}x of both`,
      `burst of ${burst} updates: ${burstSeconds.toFixed(3)} s, cpu ${burstCpuExporter.toFixed(2)} / ${burstCpuImporter.toFixed(2)} s`,
    ].join("\n"),
  );
}
const peers = Number(options.peers);
const peersRow = peers === 0 ? undefined : await withPair(0, ({ a, b }) => manyPeers(a, b, peers));
if (peersRow !== undefined) {
  const { services, seconds, exporterCpu, kibPerPeering, idleCpu, updateMs, updateCpuMs } = peersRow;
  console.log(
    [
      `${peers} peers x ${services} services: ${seconds.toFixed(2)} s, cpu of the exporter ${exporterCpu.toFixed(2)} s`,
      `  ${kibPerPeering.toFixed(0)} KiB a peering, idle ${(idleCpu * 100).toFixed(2)} % of a core`,
      `  an update of one service at all peers: ${updateMs.toFixed(1)} ms, cpu of the exporter ${updateCpuMs.toFixed(0)} ms`,
    ].join("\n"),
  );
}
if (options.json !== undefined)
  writeFileSync(options.json, JSON.stringify({ rows, restarted, ...updateRow, peers: peersRow }, undefined, 2));
