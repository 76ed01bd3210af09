// npm run bench:dns -- [--instances 100000] [--questions 1000] [--calm 3000]
//
// Two processes, level storage, TLS on loopback. While one imports all the instances of the other, its DNS is asked so many
// questions a second for one of the services, from this process: how long the answers take, beside those before the sync.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { encode } from "dns-packet";
import { BenchProcess } from "./calls.js";
import { quantile } from "./figures.js";

const { values: options } = parseArgs({
  options: {
    instances: { type: "string", default: "100000" },
    questions: { type: "string", default: "1000" },
    calm: { type: "string", default: "3000" },
  },
});

const INSTANCES = 5;
const PER_NODE = 10;
const TICK_MS = 5;
/** A resolver asks again after some seconds: an answer that takes as long is none. */
const LOST_MS = 2_000;

/** Asks at a steady rate, whether answers come or not. */
class Questions {
  readonly #socket = createSocket("udp4");
  readonly #askedAt = new Map<number, number>();
  #waits: number[] = [];
  #asked = 0;
  #timer: NodeJS.Timeout | undefined;

  async start(port: number, name: string, perSecond: number): Promise<void> {
    this.#socket.connect(port, "127.0.0.1");
    await once(this.#socket, "connect");
    this.#socket.on("message", (answer) => {
      const id = answer.readUInt16BE(0);
      const askedAt = this.#askedAt.get(id);
      if (askedAt === undefined) return;
      this.#waits.push(performance.now() - askedAt);
      this.#askedAt.delete(id);
    });
    const began = performance.now();
    let due = 0;
    this.#timer = setInterval(() => {
      due = ((performance.now() - began) * perSecond) / 1_000;
      while (this.#asked < due) {
        const id = this.#asked++ % 65_536;
        this.#askedAt.set(id, performance.now());
        this.#socket.send(encode({ type: "query", id, flags: 0x0100, questions: [{ type: "A", name }] }));
      }
    }, TICK_MS);
  }

  /** Of the answers since the last call. */
  figures(): string {
    const waits = this.#waits;
    this.#waits = [];
    const now = performance.now();
    let lost = 0;
    for (const [id, askedAt] of this.#askedAt) {
      if (now - askedAt <= LOST_MS) continue;
      this.#askedAt.delete(id);
      lost++;
    }
    const [p50, p99, most] = [0.5, 0.99, 1].map((q) => quantile(waits, q).toFixed(1));
    return `${waits.length} answers, p50 ${p50} ms, p99 ${p99} ms, at most ${most} ms, ${lost} without an answer`;
  }

  end(): void {
    clearInterval(this.#timer);
    this.#socket.close();
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const instances = Number(options.instances);
const load = { services: instances / INSTANCES, instances: INSTANCES, perNode: PER_NODE };
const directory = mkdtempSync(join(tmpdir(), "peerage-bench-"));
const [exporter, importer] = [new BenchProcess(), new BenchProcess()];
const questions = new Questions();
try {
  await exporter.call("start", { directory: join(directory, "a"), datacenter: "dc1" });
  await importer.call("start", { directory: join(directory, "b"), datacenter: "dc2" });
  await exporter.call("fill", { load, consumers: ["b"] });
  const port = await importer.call("serveDns");
  await questions.start(port, "svc-0.service.a.peer.consul", Number(options.questions));
  console.log(`node ${process.version}, ${availableParallelism()} cores; ${options.questions} questions a second`);
  await pause(Number(options.calm));
  console.log(`before the sync      ${questions.figures()}`);
  const token = await exporter.call("token", { peerName: "b" });
  const arrived = importer.call("imported", { peerName: "a", instances });
  const began = await importer.call("establish", { peerName: "a", token });
  const seconds = ((await arrived) - began) / 1_000;
  console.log(`while ${instances} come  ${questions.figures()}; it takes ${seconds.toFixed(2)} s`);
  await pause(Number(options.calm));
  console.log(`after the sync       ${questions.figures()}`);
} finally {
  questions.end();
  await Promise.all([exporter.end(), importer.end()]);
  rmSync(directory, { recursive: true, force: true });
}
