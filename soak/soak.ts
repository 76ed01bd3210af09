// npm run soak -- [--minutes 10] [--heap 192] [--services 200] [--json FILE]
//
// Two agents as processes of their own, peered, on level storage, each with a small heap, while a hostile client does to the
// first one all at once what it must bear: answers that nobody reads, requests that are never finished, connections that say
// nothing, on every port; waiting reads by the hundred; floods of malformed DNS and HTTP/2; token requests that are wrong.
// Meanwhile a client that means well registers services, which must all reach the second agent, and asks for small things.
// Resident memory and descriptors of both agents, and how long the small things took, are sampled; at the end all must be as it
// should: nothing lost, nothing stuck, and what strangers held is free again.
import { type ChildProcess, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once, setMaxListeners } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { ConsulClient } from "../src/client/index.js";
import { SeededRandom } from "../src/testing/simulator/scheduler.js";
import { AGENT_READY } from "../test/support/command-line.js";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    heap: { type: "string", default: "192" },
    services: { type: "string", default: "200" },
    json: { type: "string" },
  },
});
const minutes = Number(values.minutes);
const services = Number(values.services);

interface Agent {
  readonly process: ChildProcess;
  readonly http: string;
  readonly grpc: string;
  readonly dns: string;
  /** Its log. */
  readonly log: string[];
}

async function startAgent(directory: string, datacenter: string): Promise<Agent> {
  const child = spawn(
    process.execPath,
    [
      `--max-old-space-size=${values.heap}`,
      ...["dist/cli/main.js", "agent", "-data-dir", join(directory, datacenter), "-datacenter", datacenter],
      ...["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"],
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  const log: string[] = [];
  createInterface({ input: child.stderr }).on("line", (line) => log.push(line));
  const [line]: unknown[] = await once(createInterface({ input: child.stdout }), "line");
  const [, , , http, grpc, dns] = AGENT_READY.exec(String(line)) ?? [];
  if (http === undefined || grpc === undefined || dns === undefined) throw new Error(String(line));
  return { process: child, http, grpc, dns, log };
}

const stop = new AbortController();
// Every attack that waits listens to it.
setMaxListeners(0, stop.signal);
const random = new SeededRandom(20_261_129);
let attacks = 0;

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(":") + 1));
}

/** The hostile client's own address: what one source may do is bounded, so others must not share it. */
const HOSTILE_ADDRESS = "127.0.0.66";

/** A connection of the hostile client, which ends with the run at the latest. */
function open(address: string): Socket {
  const socket = connect({ port: portOf(address), host: "127.0.0.1", localAddress: HOSTILE_ADDRESS });
  socket.on("error", () => {});
  const end = (): void => void socket.destroy();
  stop.signal.addEventListener("abort", end, { once: true });
  socket.once("close", () => stop.signal.removeEventListener("abort", end));
  return socket;
}

/** Repeats `attack` in so many places at once until the end. */
function attackers(places: number, attack: () => Promise<void>): readonly Promise<void>[] {
  return Array.from({ length: places }, async () => {
    while (!stop.signal.aborted) {
      attacks++;
      await attack().catch(() => {});
      // Some kinds are refused at once; even an attacker has to connect each time.
      await delay(20 * random.fraction());
    }
  });
}

async function untilClosed(socket: Socket, mostMs: number): Promise<void> {
  await Promise.race([once(socket, "close"), delay(mostMs * random.fraction())]);
  socket.destroy();
}

function hostility(agent: Agent): readonly Promise<void>[] {
  const { http, grpc, dns } = agent;
  const request = (target: string, more = ""): string => `GET ${target} HTTP/1.1\r\nHost: localhost\r\n${more}\r\n`;
  return [
    // Answers that nobody reads.
    ...attackers(4, async () => {
      const socket = open(http);
      socket.pause();
      socket.write(request("/v1/openapi.json?pretty").repeat(500));
      await untilClosed(socket, 8_000);
    }),
    ...attackers(2, async () => {
      const session = connectHttp2(`http://${http}`, {
        settings: { initialWindowSize: 0 },
        createConnection: () => open(http),
      });
      session.on("error", () => {});
      for (let stream = 0; stream < 100; stream++) {
        session
          .request({
            ":method": "POST",
            ":path": "/peerage.watch.v1.WatchService/WatchImportedServices",
            "content-type": "application/grpc",
          })
          .on("error", () => {})
          .end(Buffer.alloc(5));
      }
      await Promise.race([once(session, "close"), delay(5_000 * random.fraction())]);
      session.destroy();
    }),
    // Requests that are never finished.
    ...attackers(8, async () => {
      const socket = open(http);
      const length = 8 * 1_024 * 1_024;
      socket.write(`PUT /v1/catalog/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${length}\r\n\r\n`);
      socket.write(Buffer.alloc(length - 1, 0x20));
      await untilClosed(socket, 8_000);
    }),
    ...attackers(2, async () => {
      const session = connectHttp2(`http://${http}`, { createConnection: () => open(http) });
      session.on("error", () => {});
      const head = Buffer.from([0, 0x7f, 0xff, 0xff, 0xff]);
      for (let stream = 0; stream < 50; stream++) {
        const path = "/hashicorp.consul.internal.peering.PeeringService/PeeringList";
        const call = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
        call.on("error", () => {}).write(Buffer.concat([head, Buffer.alloc(60_000)]));
      }
      await Promise.race([once(session, "close"), delay(5_000 * random.fraction())]);
      session.destroy();
    }),
    // Connections that say nothing, or too little, on each port.
    ...[http, grpc, dns].flatMap((address) =>
      attackers(40, async () => {
        const socket = open(address);
        if (random.chance(0.5)) socket.write(Buffer.from(random.bytes(1 + random.below(20))));
        await untilClosed(socket, 20_000);
      }),
    ),
    // Reads that wait.
    ...attackers(100, async () => {
      const socket = open(http);
      socket.write(request(`/v1/health/service/s${random.below(services)}?index=100000000&wait=5s`));
      await untilClosed(socket, 6_000);
    }),
    // Invalid requests and packets.
    ...attackers(4, async () => {
      const socket = open(random.chance(0.5) ? http : grpc);
      socket.write(Buffer.from(random.bytes(1 + random.below(60_000))));
      await untilClosed(socket, 1_000);
    }),
    ...attackers(2, async () => {
      const socket = createSocket("udp4");
      socket.on("error", () => {});
      for (let packet = 0; packet < 500; packet++) {
        socket.send(Buffer.from(random.bytes(1 + random.below(200))), portOf(dns), "127.0.0.1");
        if (packet % 50 === 0) await delay(1);
      }
      socket.close();
    }),
    ...attackers(2, async () => {
      await fetch(`http://${http}/v1/peering/establish`, {
        method: "POST",
        body: JSON.stringify({ PeerName: "evil", PeeringToken: Buffer.from(random.bytes(500)).toString("base64") }),
        signal: stop.signal,
      });
    }),
  ];
}

interface Sample {
  readonly residentMiB: number;
  readonly descriptors: number;
}

function sampleOf({ process: { pid } }: Agent): Sample {
  const [, kibibytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return { residentMiB: Number(kibibytes) / 1_024, descriptors: readdirSync(`/proc/${pid}/fd`).length };
}

const directory = mkdtempSync(join(tmpdir(), "peerage-soak-"));
const agents: Agent[] = [];
const problems: string[] = [];
try {
  const a = await startAgent(directory, "dc1");
  agents.push(a);
  const b = await startAgent(directory, "dc2");
  agents.push(b);
  for (const agent of agents) agent.process.once("exit", (code) => problems.push(`an agent ended with ${code}`));
  using atA = new ConsulClient({ address: a.http });
  using atB = new ConsulClient({ address: b.http });
  await atA.config.write({
    Kind: "exported-services",
    Name: "default",
    Services: [{ Name: "*", Consumers: [{ Peer: "dc2" }] }],
  });
  await atB.peerings.establish({ peerName: "dc1", token: await atA.peerings.generateToken({ peerName: "dc2" }) });
  const idle = agents.map(sampleOf);
  const underWay = hostility(a);
  const samples: Sample[][] = [[], []];
  const small: number[] = [];
  const end = performance.now() + minutes * 60_000;
  const version = new Map<string, number>();
  let writes = 0;
  let refused = 0;
  let round = 0;
  while (performance.now() < end && problems.length === 0) {
    round++;
    for (const [index, agent] of agents.entries()) samples[index]?.push(sampleOf(agent));
    const name = `s${random.below(services)}`;
    const begun = performance.now();
    try {
      await atA.catalog.register({
        Node: "n",
        Address: "10.0.0.1",
        Service: { Service: name, Port: 1 + (round % 65_000) },
      });
      version.set(name, 1 + (round % 65_000));
      writes++;
      await atA.peerings.read("dc2");
      small.push(performance.now() - begun);
    } catch (error) {
      refused++;
      if (refused > 50) problems.push(`a client that means well is refused: ${String(error)}`);
    }
    await delay(50);
  }
  stop.abort();
  await Promise.all(underWay);
  // Everything that strangers held is free again, and all writes have arrived.
  const calmAt = performance.now() + 60_000;
  const missing = async (): Promise<readonly string[]> => {
    const lacking: string[] = [];
    for (const [name, port] of version) {
      const { value } = await atB.health.service(name, { peer: "dc1" });
      if (value[0]?.Service.Port !== port) lacking.push(name);
    }
    return lacking;
  };
  let left = await missing();
  while (left.length > 0 && performance.now() < calmAt) {
    await delay(200);
    left = await missing();
  }
  if (left.length > 0) problems.push(`${left.length} services have not arrived`);
  while (
    agents.some((agent, index) => sampleOf(agent).descriptors > (idle[index]?.descriptors ?? 0) + 20) &&
    performance.now() < calmAt
  ) {
    await delay(500);
  }
  const last = agents.map(sampleOf);
  for (const [index, { descriptors }] of last.entries()) {
    if (descriptors > (idle[index]?.descriptors ?? 0) + 20) problems.push(`${descriptors} descriptors are left open`);
  }
  small.sort((left_, right) => left_ - right);
  const at = (fraction: number): number =>
    small[Math.min(small.length - 1, Math.floor(fraction * small.length))] ?? Number.NaN;
  const figures = {
    minutes,
    attacks,
    writes,
    refused,
    smallP50Ms: Math.round(at(0.5) * 10) / 10,
    smallP99Ms: Math.round(at(0.99) * 10) / 10,
    smallMaxMs: Math.round(at(1) * 10) / 10,
    residentMiB: samples.map((of, index) => ({
      idle: Math.round(idle[index]?.residentMiB ?? 0),
      most: Math.round(Math.max(...of.map(({ residentMiB }) => residentMiB))),
      last: Math.round(last[index]?.residentMiB ?? 0),
    })),
    descriptors: samples.map((of, index) => ({
      idle: idle[index]?.descriptors,
      most: Math.max(...of.map(({ descriptors }) => descriptors)),
      last: last[index]?.descriptors,
    })),
    logLines: agents.map(({ log }) => log.length),
    problems,
  };
  console.log(JSON.stringify(figures, undefined, 2));
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(figures)}\n`);
  // A log that strangers fill is a fault, too.
  if (a.log.length > 100 * minutes + 500) problems.push(`${a.log.length} log lines`);
} finally {
  stop.abort();
  for (const { process: child } of agents) {
    child.removeAllListeners("exit");
    child.kill("SIGKILL");
  }
  rmSync(directory, { recursive: true, force: true });
}
for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);
