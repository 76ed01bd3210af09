// [CONSUL_BIN=/usr/bin/consul] npm run bench:reads -- [--services 2000] [--instances 5] [--seconds 3] [--rounds 3]
//   [--connections 16] [--writes 0] [--gzip] [--only TEXT] [--json FILE]
//
// Answers a second to reads that users poll, over HTTP and DNS, of two agents that are peered, and in turn of two real
// Consuls where CONSUL_BIN names one. The reads of the exporter are of its own services, those of the importer of imported
// ones. The figure of a row is the median of its rounds, the ratio that of the rounds' ratios. Each answer is compared
// before it is measured: the ratio of a row whose answers show different numbers of things says so. With `--writes` so many
// registrations a second change other services of the exporter than the one that is read, at most 64 of them under way; a row shows
// how many were answered. With `--only "exporter /"` nothing is imported. With `--gzip` answers are asked for compressed, as Consul's own clients do.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import autocannon from "autocannon";
import { encode } from "dns-packet";
import { OurAgent } from "../interop/agent.js";
import type { Cluster } from "../interop/cluster.js";
import { ConsulServer, consulBinary } from "../interop/consul.js";
import { complete, fill, type Load, loadRegistration } from "../interop/load.js";
import { Processes } from "../interop/processes.js";
import { pause } from "../interop/settles.js";
import { quantile } from "./figures.js";

const { values: options } = parseArgs({
  options: {
    services: { type: "string", default: "2000" },
    instances: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
    rounds: { type: "string", default: "3" },
    connections: { type: "string", default: "16" },
    writes: { type: "string", default: "0" },
    gzip: { type: "boolean", default: false },
    only: { type: "string", default: "" },
    json: { type: "string" },
  },
});

const load: Load = { services: Number(options.services), instances: Number(options.instances) };
const seconds = Number(options.seconds);
const connections = Number(options.connections);
const writes = Number(options.writes);

/** Between the last import and the first read. */
const SETTLE_MS = 3_000;
/** The first of the services that are written: it shares no node with the one that is read. */
const WRITTEN = 10;
const WRITE_EVERY_MS = 10;
const WRITES_AT_ONCE = 64;
/** A question over DNS that is not answered by then is asked again, and counted as lost. */
const LOST_MS = 1_000;

/** An agent or a server: reads are asked of it. */
type Server = Cluster & { readonly http: string; readonly dns: string };

interface Pair {
  readonly exporter: Server;
  readonly importer: Server;
}

type Side = keyof Pair;

interface HttpRead {
  readonly type: "http";
  readonly side: Side;
  readonly path: string;
}

interface DnsRead {
  readonly type: "dns";
  readonly side: Side;
  readonly name: string;
  readonly record: "A" | "SRV";
}

type Read = HttpRead | DnsRead;

const SERVICE = "load-7";
const NODE = "load-node-0";
const PEER = "peer=exporter";

const ofExporter: readonly string[] = [
  `/v1/health/service/${SERVICE}`,
  `/v1/health/service/${SERVICE}?passing`,
  `/v1/health/checks/${SERVICE}`,
  `/v1/health/node/${NODE}`,
  "/v1/health/state/any",
  `/v1/catalog/service/${SERVICE}`,
  "/v1/catalog/services",
  "/v1/catalog/nodes",
  `/v1/catalog/node/${NODE}`,
  `/v1/catalog/node-services/${NODE}`,
  "/v1/catalog/datacenters",
  "/v1/internal/ui/services",
  "/v1/internal/ui/nodes",
  "/v1/internal/ui/catalog-overview",
  "/v1/peerings",
  "/v1/peering/importer",
  "/v1/config/exported-services",
  "/v1/exported-services",
  `/v1/discovery-chain/${SERVICE}`,
  "/v1/connect/ca/roots",
  "/v1/agent/self",
  "/v1/agent/members",
  "/v1/agent/services",
  "/v1/status/leader",
];

const ofImporter: readonly string[] = [
  `/v1/health/service/${SERVICE}?${PEER}`,
  `/v1/health/service/${SERVICE}?${PEER}&passing`,
  `/v1/health/checks/${SERVICE}?${PEER}`,
  `/v1/health/node/${NODE}?${PEER}`,
  `/v1/catalog/service/${SERVICE}?${PEER}`,
  `/v1/catalog/services?${PEER}`,
  `/v1/catalog/nodes?${PEER}`,
  `/v1/catalog/node-services/${NODE}?${PEER}`,
  `/v1/internal/ui/services?${PEER}`,
  `/v1/internal/ui/nodes?${PEER}`,
  "/v1/peerings",
  "/v1/peering/exporter",
];

const asHttp =
  (side: Side) =>
  (path: string): Read => ({ type: "http", side, path });

const dnsReads: readonly Read[] = (["A", "SRV"] as const).flatMap((record): Read[] => [
  { type: "dns", side: "exporter", record, name: `${SERVICE}.service.consul` },
  { type: "dns", side: "importer", record, name: `${SERVICE}.service.exporter.peer.consul` },
]);

const reads: readonly Read[] = [
  ...ofExporter.map(asHttp("exporter")),
  ...ofImporter.map(asHttp("importer")),
  ...dnsReads,
].filter((read) => titleOf(read).includes(options.only));

function titleOf(read: Read): string {
  return read.type === "http" ? `${read.side} ${read.path}` : `${read.side} DNS ${read.record} ${read.name}`;
}

interface Measured {
  readonly perSecond: number;
  /** Milliseconds. */
  readonly p99: number;
  /** Writes of other services that were answered meanwhile, a second. */
  readonly written: number;
}

/** Changes other services than the one that is read, until it is stopped. */
class Writer {
  readonly #server: Server;
  readonly #began = performance.now();
  readonly #timer: NodeJS.Timeout;
  readonly #underWay = new Set<Promise<void>>();
  #begun = 0;
  #answered = 0;

  constructor(server: Server) {
    this.#server = server;
    this.#timer = setInterval(() => this.#writeDue(), WRITE_EVERY_MS);
  }

  #writeDue(): void {
    const due = ((performance.now() - this.#began) * writes) / 1_000;
    while (this.#begun < due && this.#underWay.size < WRITES_AT_ONCE) {
      const service = WRITTEN + (this.#begun % (load.services - WRITTEN));
      const write = this.#write(service, `r${this.#begun++}`).finally(() => this.#underWay.delete(write));
      this.#underWay.add(write);
    }
  }

  async #write(service: number, tag: string): Promise<void> {
    const body = JSON.stringify(loadRegistration(load, service, 0, `${tag}-${this.#began}`));
    const answer = await fetch(`http://${this.#server.http}/v1/catalog/register`, { method: "PUT", body });
    const told = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status} ${told}`);
    this.#answered++;
  }

  /** @returns how many writes a second were answered. */
  async stop(): Promise<number> {
    clearInterval(this.#timer);
    await Promise.all(this.#underWay);
    return this.#answered / ((performance.now() - this.#began) / 1_000);
  }
}

type Rate = Omit<Measured, "written">;

async function measureHttp(server: Server, path: string): Promise<Rate> {
  const headers = options.gzip ? { "accept-encoding": "gzip" } : {};
  const result = await autocannon({ url: `http://${server.http}${path}`, connections, duration: seconds, headers });
  if (result.errors > 0 || result.non2xx > 0) {
    throw new Error(`${path} of ${server.name}: ${result.errors} errors, ${result.non2xx} other statuses`);
  }
  return { perSecond: result.requests.total / result.duration, p99: result.latency.p99 };
}

/** As many sockets as connections over HTTP, each with one question under way. */
async function measureDns(server: Server, { name, record }: DnsRead): Promise<Rate> {
  const port = Number(server.dns.split(":").at(-1));
  const question = encode({ type: "query", id: 1, flags: 0x0100, questions: [{ type: record, name }] });
  const end = performance.now() + 1_000 * seconds;
  const waits: number[] = [];
  let lost = 0;
  const ask = async (): Promise<void> => {
    const socket = createSocket("udp4");
    // A connected socket looks up no address for each question: the load is to cost less than what it measures.
    socket.connect(port, "127.0.0.1");
    await once(socket, "connect");
    await new Promise<void>((resolve) => {
      let began = performance.now();
      const next = (): void => {
        began = performance.now();
        timer.refresh();
        if (began < end) socket.send(question);
        else resolve();
      };
      const timer = setTimeout(() => {
        lost++;
        next();
      }, LOST_MS);
      socket.on("message", () => {
        waits.push(performance.now() - began);
        next();
      });
      socket.once("close", () => clearTimeout(timer));
      next();
    });
    socket.close();
  };
  await Promise.all(Array.from({ length: connections }, ask));
  if (lost > 0) throw new Error(`${name} of ${server.name}: ${lost} questions without an answer`);
  return { perSecond: waits.length / seconds, p99: quantile(waits, 0.99) };
}

async function measure(pair: Pair, read: Read): Promise<Measured> {
  const server = pair[read.side];
  const writer = writes === 0 ? undefined : new Writer(pair.exporter);
  const rate = await (read.type === "http" ? measureHttp(server, read.path) : measureDns(server, read));
  return { ...rate, written: (await writer?.stop()) ?? 0 };
}

/** How many things an answer shows. */
async function shown(pair: Pair, read: Read): Promise<number> {
  if (read.type === "dns") return load.instances;
  const answer = await fetch(`http://${pair[read.side].http}${read.path}`);
  if (!answer.ok) throw new Error(`${read.path} of ${pair[read.side].name}: ${answer.status} ${await answer.text()}`);
  const value: unknown = await answer.json();
  if (Array.isArray(value)) return value.length;
  return typeof value === "object" && value !== null ? Object.keys(value).length : 1;
}

async function peer({ exporter, importer }: Pair): Promise<void> {
  await fill(exporter, importer, load);
  const token = await exporter.client.peerings.generateToken({ peerName: importer.name });
  // Consul takes too long to import tens of thousands of services.
  if (!reads.some(({ side }) => side === "importer")) return;
  await importer.client.peerings.establish({ peerName: exporter.name, token });
  await complete(exporter, importer, load);
}

interface Row {
  readonly read: string;
  readonly ours: Measured;
  readonly consul: Measured | undefined;
  /** Answers a second of ours to one of Consul's: the median of the rounds. */
  readonly ratio: number | undefined;
  /** How many things each shows, where that differs. */
  readonly differs: string | undefined;
}

const medianOf = (runs: readonly Measured[]): Measured => ({
  perSecond: quantile(
    runs.map((one) => one.perSecond),
    0.5,
  ),
  p99: quantile(
    runs.map((one) => one.p99),
    0.5,
  ),
  written: quantile(
    runs.map((one) => one.written),
    0.5,
  ),
});

async function rowOf(read: Read, ours: Pair, consul: Pair | undefined): Promise<Row> {
  const [shownByUs, shownByConsul] = [await shown(ours, read), consul && (await shown(consul, read))];
  const runs: { readonly ours: Measured; readonly consul: Measured | undefined }[] = [];
  for (let round = 0; round < Number(options.rounds); round++) {
    runs.push({ consul: consul && (await measure(consul, read)), ours: await measure(ours, read) });
  }
  const ofConsul = runs.flatMap((run) => run.consul ?? []);
  const ratios = runs.flatMap((run) => (run.consul === undefined ? [] : run.ours.perSecond / run.consul.perSecond));
  return {
    read: titleOf(read),
    ours: medianOf(runs.map((run) => run.ours)),
    consul: consul && medianOf(ofConsul),
    ratio: consul && quantile(ratios, 0.5),
    differs:
      shownByConsul === undefined || shownByConsul === shownByUs
        ? undefined
        : `shows ${shownByUs}, Consul's ${shownByConsul}`,
  };
}

/** A ratio to none is not one. */
const textOf = (ratio: number): string => (Number.isFinite(ratio) ? `${ratio.toFixed(2)}x` : "-").padStart(8);

function print({ read, ours, consul, ratio, differs }: Row): void {
  const figure = ({ perSecond, p99, written }: Measured): string =>
    `${perSecond.toFixed(perSecond < 100 ? 1 : 0).padStart(8)}/s ${p99.toFixed(1).padStart(7)} ms` +
    (writes === 0 ? "" : ` ${written.toFixed(0).padStart(4)} writes/s`);
  console.log(
    [
      read.padEnd(66),
      consul === undefined ? "" : figure(consul),
      figure(ours),
      ratio === undefined ? "" : textOf(ratio),
      differs ?? "",
    ].join("  "),
  );
}

async function main(): Promise<void> {
  const processes = Processes.untilExit();
  const [path = ""] = (process.env["CONSUL_BIN"] ?? "").split(":");
  const binary = path === "" ? undefined : await consulBinary(path);
  console.log(
    `Consul ${binary?.version ?? "not measured: CONSUL_BIN names none"}, node ${process.version}, ` +
      `${availableParallelism()} cores; ${load.services} services of ${load.instances} instances, ` +
      `${connections} connections, median of ${options.rounds} rounds of ${seconds} s, p99 of one answer`,
  );
  // All questions come from one network: whole answers are compared, as Consul bounds none.
  const flags = ["-dns-large-answers", "1000000000"];
  await using exporter = await OurAgent.start(processes, { name: "exporter", datacenter: "dc1", flags });
  await using importer = await OurAgent.start(processes, { name: "importer", datacenter: "dc2", flags });
  const ours: Pair = { exporter, importer };
  await peer(ours);
  let consul: Pair | undefined;
  if (binary !== undefined) {
    const [consulExporter, consulImporter] = await Promise.all([
      ConsulServer.start(processes, binary, { name: "exporter", datacenter: "dc1" }),
      ConsulServer.start(processes, binary, { name: "importer", datacenter: "dc2" }),
    ]);
    await Promise.all([consulExporter.ready(), consulImporter.ready()]);
    consul = { exporter: consulExporter, importer: consulImporter };
    await peer(consul);
  }
  await pause(SETTLE_MS);
  const rows: Row[] = [];
  for (const read of reads) {
    const row = await rowOf(read, ours, consul);
    rows.push(row);
    print(row);
  }
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(rows, undefined, 2)}\n`);
}

await main();
process.exit(0);
