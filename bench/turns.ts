// npm run bench:turns -- [--instances 100000] [--rounds 3] [--only TEXT] [--json FILE]
//
// The longest turn of the event loop while one call is answered over HTTP, at two hosts that are peered: level storage, TLS on
// loopback. Of the instances, a tenth is one service, the others are services of five. A row has the longest turns of the first answer after
// a change of something else in the data, and of the same answer when asked for again, the median of the rounds and the longest one. A
// collection of garbage counts. Beside them stands the longest turn of a process that was asked nothing for as long.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BenchProcess, type Load } from "./calls.js";
import { quantile } from "./figures.js";

const { values: options } = parseArgs({
  options: {
    instances: { type: "string", default: "100000" },
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
    json: { type: "string" },
  },
});

const INSTANCES = 5;
const PER_NODE = 10;
const LARGE_PART = 10;
/** Between the last import and the first read, and of a process that is asked nothing. */
const SETTLE_MS = 3_000;
/** Once the change has gone through, and after an answer: a turn is counted when it is over. */
const CALM_MS = 100;

type Side = "exporter" | "importer";

const instances = Number(options.instances);
const large: Load = { prefix: "large", services: 1, instances: instances / LARGE_PART, perNode: 1 };
const small: Load = {
  services: (instances - large.instances) / INSTANCES,
  instances: INSTANCES,
  perNode: PER_NODE,
};

const local: readonly string[] = [
  "/v1/health/service/svc-7",
  "/v1/health/service/large-0",
  "/v1/health/service/large-0?passing",
  "/v1/health/service/large-0?filter=Service.Port!=1",
  "/v1/health/checks/large-0",
  "/v1/health/connect/large-0",
  "/v1/health/node/node-0",
  "/v1/health/state/any",
  "/v1/health/state/critical",
  "/v1/catalog/service/large-0",
  "/v1/catalog/services",
  "/v1/catalog/services?filter=ServicePort!=1",
  "/v1/catalog/nodes",
  "/v1/catalog/node/node-0",
  "/v1/catalog/node-services/node-0",
  "/v1/internal/ui/services",
  "/v1/internal/ui/services?filter=Service.Port!=1",
  "/v1/internal/ui/nodes",
  "/v1/internal/ui/node/node-0",
  "/v1/internal/ui/catalog-overview",
  "/v1/internal/ui/exported-services?peer=b",
  "/v1/internal/ui/gateway-services-nodes/none",
  "/v1/peerings",
  "/v1/exported-services",
  "/v1/config/exported-services",
  "/v1/discovery-chain/svc-7",
  "/v1/connect/intentions/match?by=destination&name=svc-7",
  "/v1/connect/intentions",
  "/v1/agent/services",
  "/v1/agent/checks",
  "/v1/agent/self",
  "/v1/agent/metrics",
];

const imported: readonly string[] = [
  "/v1/health/service/svc-7?peer=a",
  "/v1/health/service/large-0?peer=a",
  "/v1/health/service/large-0?peer=a&passing",
  "/v1/health/checks/svc-7?peer=a",
  "/v1/health/checks/large-0?peer=a",
  "/v1/health/node/node-0?peer=a",
  "/v1/health/state/any?peer=a",
  "/v1/catalog/service/large-0?peer=a",
  "/v1/catalog/services?peer=a",
  "/v1/catalog/services?peer=a&filter=ServicePort!=1",
  "/v1/catalog/nodes?peer=a",
  "/v1/catalog/node-services/node-0?peer=a",
  "/v1/internal/ui/services?peer=a",
  "/v1/internal/ui/services",
  "/v1/internal/ui/nodes?peer=a",
  "/v1/internal/ui/node/node-0?peer=a",
  "/v1/peerings",
];

const reads = [
  ...local.map((path) => ({ side: "exporter", path }) as const),
  ...imported.map((path) => ({ side: "importer", path }) as const),
].filter(({ side, path }) => `${side} ${path}`.includes(options.only));

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Reads an answer and throws it away. @returns its bytes. */
function read(port: number, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    get({ host: "127.0.0.1", port, path }, (response) => {
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
      });
      response.on("end", () => {
        if (response.statusCode === 200 || response.statusCode === 404) resolve(bytes);
        else reject(new Error(`${path}: ${response.statusCode}`));
      });
      response.on("error", reject);
    }).on("error", reject);
  });
}

interface Turns {
  readonly median: number;
  readonly most: number;
}

interface Row {
  readonly row: string;
  readonly bytes: number;
  readonly first: Turns;
  readonly again: Turns;
  readonly firstMs: number;
}

const turnsOf = (all: readonly number[]): Turns => ({ median: quantile(all, 0.5), most: quantile(all, 1) });
const told = ({ median, most }: Turns): string => `${median.toFixed(1)} (${most.toFixed(1)})`.padStart(16);

const directory = mkdtempSync(join(tmpdir(), "peerage-bench-"));
const processes: Readonly<Record<Side, BenchProcess>> = { exporter: new BenchProcess(), importer: new BenchProcess() };
const { exporter, importer } = processes;
const rows: Row[] = [];
try {
  await exporter.call("start", { directory: join(directory, "a"), datacenter: "dc1", instances });
  await importer.call("start", { directory: join(directory, "b"), datacenter: "dc2", instances });
  await exporter.call("fill", { load: small, consumers: ["b"] });
  await exporter.call("fill", { load: large, consumers: ["b"] });
  const token = await exporter.call("token", { peerName: "b" });
  await importer.call("establish", { peerName: "a", token });
  await importer.call("imported", { peerName: "a", instances });
  const ports = { exporter: await exporter.call("serveHttp"), importer: await importer.call("serveHttp") };
  await pause(SETTLE_MS);
  let changes = 0;
  const change = async (): Promise<void> => {
    const tag = `t${++changes}`;
    const service = 11;
    await exporter.call("update", { load: small, service, tag });
    const path = `/v1/health/service/svc-${service}?peer=a&filter=${encodeURIComponent(`${tag} in Service.Tags`)}`;
    // Its answer is an empty list until the change has come.
    while ((await read(ports.importer, path)) < tag.length + 2) await pause(CALM_MS);
  };
  const turnOf = async (side: Side, path: string): Promise<{ turnMs: number; bytes: number; ms: number }> => {
    await pause(CALM_MS);
    await processes[side].call("usage");
    const began = performance.now();
    const bytes = await read(ports[side], path);
    const ms = performance.now() - began;
    await pause(CALM_MS);
    return { turnMs: (await processes[side].call("usage")).turnMs, bytes, ms };
  };
  console.log(`node ${process.version}, ${availableParallelism()} cores; longest turns in ms, median (most)`);
  for (const side of ["exporter", "importer"] as const) {
    await processes[side].call("usage");
    await pause(SETTLE_MS);
    console.log(`${side} asked nothing: ${(await processes[side].call("usage")).turnMs.toFixed(1)}`);
  }
  console.log(`${"".padEnd(66)}${"bytes".padStart(10)}${"first".padStart(16)}${"again".padStart(16)}   first took`);
  for (const { side, path } of reads) {
    const first: number[] = [];
    const again: number[] = [];
    const times: number[] = [];
    let bytes = 0;
    for (let round = 0; round < Number(options.rounds); round++) {
      await change();
      const cold = await turnOf(side, path);
      first.push(cold.turnMs);
      times.push(cold.ms);
      bytes = cold.bytes;
      again.push((await turnOf(side, path)).turnMs);
    }
    const row = {
      row: `${side} ${path}`,
      bytes,
      first: turnsOf(first),
      again: turnsOf(again),
      firstMs: quantile(times, 0.5),
    };
    rows.push(row);
    const took = `${row.firstMs.toFixed(0)} ms`.padStart(13);
    console.log(`${row.row.padEnd(66)}${String(bytes).padStart(10)}${told(row.first)}${told(row.again)}${took}`);
  }
} finally {
  await Promise.all([exporter.end(), importer.end()]);
  rmSync(directory, { recursive: true, force: true });
}
if (options.json !== undefined) writeFileSync(options.json, JSON.stringify({ rows }, undefined, 2));
