// [CONSUL_BIN=/usr/bin/consul] npm run bench:waits -- [--waits 10000] [--services 1000] [--changes 200]
//
// An agent with so many open blocking queries, each on a connection of its own, on so many services: first one of ours, then, where
// CONSUL_BIN names one, a real Consul in development mode. Services are then changed one after another; each change must end the
// waits for this service and no others, whose clients ask again. The row shows the resident memory of a connection that has asked once and
// of a call that waits on it, the processor time of a write that nobody waits for, and of each call that a write wakes, answers and has
// wait again, and how long it takes from the write until the last of its readers is answered. Both times and memory are those of the agent.
// Needs a few hundred open files more than calls (`ulimit -n`). Linux only: memory and processor time are read from /proc.
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { OurAgent } from "../interop/agent.js";
import type { Cluster } from "../interop/cluster.js";
import { ConsulServer, consulBinary } from "../interop/consul.js";
import { each, loadRegistration, nameOf } from "../interop/load.js";
import { Processes } from "../interop/processes.js";
import { pause } from "../interop/settles.js";
import { cpuSeconds, quantile } from "./figures.js";

const { values: options } = parseArgs({
  options: {
    waits: { type: "string", default: "10000" },
    services: { type: "string", default: "1000" },
    changes: { type: "string", default: "200" },
  },
});

const WAITS = Number(options.waits);
const SERVICES = Number(options.services);
const CHANGES = Number(options.changes);
/** Connections that are opened at once. */
const AT_ONCE = 128;
/** Connections of the clients that write, and more. */
const SPARE = 256;
/** Until what has begun has settled, and memory is looked at. */
const SETTLE_MS = 5_000;

type Target = Cluster & { readonly http: string; readonly pid: number };

function residentBytes(pid: number): number {
  const [, kib = "0"] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return 1024 * Number(kib);
}

/** A client that waits for changes of one service, on a connection of its own. */
class Reader {
  readonly #path: string;
  readonly #socket: Socket;
  readonly #onAnswer: () => void;
  #received = "";
  index = "";

  constructor(http: string, service: number, onAnswer: () => void) {
    const [host = "", port] = http.split(":");
    this.#path = `/v1/health/service/${nameOf(service)}`;
    this.#socket = connect(Number(port), host);
    this.#onAnswer = onAnswer;
    this.#socket.on("error", (error) => {
      throw error;
    });
    this.#socket.on("data", (chunk) => this.#take(chunk.toString("latin1")));
  }

  ask(query: string): void {
    this.#socket.write(`GET ${this.#path}${query} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(text: string): void {
    this.#received += text;
    const head = this.#received.indexOf("\r\n\r\n");
    if (head < 0) return;
    const [, length = ""] = /^content-length: (\d+)/im.exec(this.#received) ?? [];
    if (this.#received.length < head + 4 + Number(length)) return;
    if (!this.#received.startsWith("HTTP/1.1 200")) throw new Error(this.#received);
    this.index = /^x-consul-index: (\d+)/im.exec(this.#received)?.[1] ?? "";
    this.#received = "";
    this.#onAnswer();
  }
}

interface Measured {
  readonly connectionBytes: number;
  readonly waitBytes: number;
  /** Microseconds of the processor. */
  readonly writeMicros: number;
  readonly wakeMicros: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  /** Answers beside those of the readers of the service that was changed. */
  readonly others: number;
}

/** Answers that have come in all, and what waits for more. */
class Answers {
  count = 0;
  #awaited = 0;
  #reached = (): void => {};

  readonly add = (): void => {
    this.count++;
    if (this.count >= this.#awaited) this.#reached();
  };

  async until(count: number): Promise<void> {
    if (this.count >= count) return;
    await new Promise<void>((resolve) => {
      this.#awaited = count;
      this.#reached = resolve;
    });
  }
}

async function write(target: Target, service: number, tag: string): Promise<void> {
  const body = JSON.stringify(loadRegistration({ services: SERVICES, instances: 1 }, service, 0, tag));
  const answer = await fetch(`http://${target.http}/v1/catalog/register`, { method: "PUT", body });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  await answer.arrayBuffer();
}

async function measure(target: Target): Promise<Measured> {
  const answers = new Answers();
  await each(SERVICES, (service) => write(target, service, "r0"));
  await pause(SETTLE_MS);
  const empty = residentBytes(target.pid);
  const readers: Reader[] = [];
  for (let number = 0; number < WAITS; number++) {
    const reader = new Reader(target.http, number % SERVICES, answers.add);
    readers.push(reader);
    reader.ask("");
    if (number % AT_ONCE === AT_ONCE - 1) await answers.until(number + 1 - AT_ONCE);
  }
  await answers.until(WAITS);
  await pause(SETTLE_MS);
  const connected = residentBytes(target.pid);
  const wait = (reader: Reader): void => reader.ask(`?index=${reader.index}&wait=9m`);
  for (const [number, reader] of readers.entries()) {
    wait(reader);
    if (number % AT_ONCE === 0) await pause(1);
  }
  await pause(SETTLE_MS);
  const waiting = residentBytes(target.pid);
  const perService = WAITS / SERVICES;
  const before = answers.count;
  const times: number[] = [];
  const change = async (number: number, woken: number): Promise<void> => {
    const service = number % SERVICES;
    const began = performance.now();
    const from = answers.count;
    await Promise.all([write(target, service, `r${number + 1}`), answers.until(from + woken)]);
    times.push(performance.now() - began);
    if (woken === 0) return;
    for (let reader = service; reader < WAITS; reader += SERVICES) {
      const asking = readers[reader];
      if (asking !== undefined) wait(asking);
    }
  };
  const beganAt = cpuSeconds(target.pid);
  for (let number = 0; number < CHANGES; number++) await change(number, perService);
  const woken = cpuSeconds(target.pid) - beganAt;
  await pause(SETTLE_MS);
  const others = answers.count - before - CHANGES * perService;
  const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
  for (const reader of readers) reader.close();
  await pause(SETTLE_MS);
  const alone = cpuSeconds(target.pid);
  for (let number = 0; number < CHANGES; number++) await change(CHANGES + number, 0);
  const writes = cpuSeconds(target.pid) - alone;
  return {
    connectionBytes: (connected - empty) / WAITS,
    waitBytes: (waiting - connected) / WAITS,
    writeMicros: (1e6 * writes) / CHANGES,
    wakeMicros: (1e6 * (woken - writes)) / (CHANGES * perService),
    p50,
    p99,
    others,
  };
}

function print(name: string, measured: Measured): void {
  const { connectionBytes, waitBytes, writeMicros, wakeMicros, p50, p99, others } = measured;
  console.log(
    [
      name.padEnd(14),
      `${connectionBytes.toFixed(0).padStart(8)} B a connection`,
      `${waitBytes.toFixed(0).padStart(8)} B a waiting call`,
      `${writeMicros.toFixed(0).padStart(6)} us a write`,
      `${wakeMicros.toFixed(0).padStart(6)} us a woken call`,
      `p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms until all are answered`,
      others === 0 ? "nobody else was woken" : `${others} others were woken`,
    ].join("  "),
  );
}

async function main(): Promise<void> {
  const processes = Processes.untilExit();
  const [path = ""] = (process.env["CONSUL_BIN"] ?? "").split(":");
  const binary = path === "" ? undefined : await consulBinary(path);
  console.log(
    `Consul ${binary?.version ?? "not measured: CONSUL_BIN names none"}, node ${process.version}, ` +
      `${availableParallelism()} cores; ${WAITS} waiting calls on ${SERVICES} services, ${CHANGES} changes`,
  );
  const most = String(WAITS + SPARE);
  {
    const flags = ["-http-waiting-per-source", most, "-http-connections-per-source", most, "-max-connections", most];
    await using ours = await OurAgent.start(processes, { flags });
    print("Peerage", await measure(ours));
  }
  if (binary !== undefined) {
    const hcl = `limits { http_max_conns_per_client = ${most} }`;
    await using consul = await ConsulServer.start(processes, binary, { hcl });
    await consul.ready();
    print(`Consul ${binary.version}`, await measure(consul));
  }
}

await main();
process.exit(0);
