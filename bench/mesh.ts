// npm run bench:mesh -- [--proxies 1000] [--upstreams 1000] [--rounds 20] [--only proxies|push|snapshot|dial]
//
// Four measurements of the mesh, each with something beside it in the same run. `proxies`: so many sidecars with ten upstreams each
// connect at once to one host, first without a bound on signatures and then with the default of 50 a second; then one instance changes that
// all of them call, and a config entry that concerns none. `push`: from the change of one instance until one sidecar is told, with
// so many upstreams and with ten; changes are gathered for 200 ms before. `snapshot`: the resources of one sidecar with 100, 1,000 and
// 10,000 upstreams, from nothing and after a change of one instance. `dial`: `meshDial` beside `tls.connect` to the same listener,
// in turn. Hosts are processes of their own, with storage in memory; proxies are clients in this process.
import { fork } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:tls";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { pause } from "../interop/settles.js";
import { meshDial, meshListener } from "../src/mesh/index.js";
import type { MeshView } from "../src/mesh/snapshot/view.js";
import { KeptParts } from "../src/mesh/xds/kept-parts.js";
import { ResourceEncoder } from "../src/mesh/xds/resources.js";
import { intend, meshPair, serverName } from "../test/support/mesh.js";
import { instance, resourcesOf, sidecar, viewOf } from "../test/support/mesh-view.js";
import { quantile } from "./figures.js";
import { BenchProxy } from "./mesh-clients.js";
import type { HostFigures, HostQuestion } from "./mesh-host.js";

const { values: options } = parseArgs({
  options: {
    proxies: { type: "string", default: "1000" },
    upstreams: { type: "string", default: "1000" },
    rounds: { type: "string", default: "20" },
    only: { type: "string" },
  },
});
const ROUNDS = Number(options.rounds);
/** Upstreams of a usual proxy. */
const FEW = 10;

/** A host in a process of its own. */
class Host implements AsyncDisposable {
  readonly #process = fork(fileURLToPath(new URL("./mesh-host.js", import.meta.url)));

  async ask<Answer>(question: HostQuestion): Promise<Answer> {
    this.#process.send(question);
    const [answer]: { readonly value: Answer; readonly error?: string }[] = await once(this.#process, "message");
    if (answer === undefined) throw new Error("the host does not answer");
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.disconnect();
    await once(this.#process, "exit");
  }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await pause(2);
}

/** Three digits that mean something. */
function figure(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

const median = (values: readonly number[]): number => quantile(values, 0.5);

async function manyProxies(): Promise<void> {
  for (const signaturesPerSecond of [0, 50]) {
    await using host = new Host();
    const count = Number(options.proxies);
    const address = await host.ask<string>({ ask: "start", signaturesPerSecond });
    await host.ask({ ask: "services", services: count, upstreams: FEW });
    const idle = await host.ask<HostFigures>({ ask: "figures" });
    const began = performance.now();
    const proxies = Array.from({ length: count }, (_, number) => new BenchProxy(address, `s${number}`));
    await until(() => proxies.every(({ told }) => (told.get("listener") ?? 0) >= FEW));
    const toldMs = Math.max(...proxies.map(({ toldAtMs }) => toldAtMs)) - began;
    const after = await host.ask<HostFigures>({ ask: "figures" });
    const inUseMiB = await host.ask<number>({ ask: "in-use" });
    const bound = signaturesPerSecond === 0 ? "no bound on signatures" : `${signaturesPerSecond} signatures a second`;
    console.log(
      `${count} proxies, ${bound}: all told in ${figure(toldMs / 1_000)} s, processor ${figure((after.cpuMs - idle.cpuMs) / 1_000)} s, ` +
        `resident ${figure(idle.residentMiB)} and then ${figure(after.residentMiB)} MiB, in use ${figure(inUseMiB)} MiB, ` +
        `longest turn ${figure(after.longestTurnMs)} ms, ${figure(proxies.reduce((sum, { bytes }) => sum + bytes, 0) / 2 ** 20)} MiB of resources`,
    );
    if (signaturesPerSecond === 0) {
      await changeForAll(host, proxies);
      await changeForNone(host, proxies);
    }
    await Promise.all(proxies.map((proxy) => proxy[Symbol.asyncDispose]()));
  }
}

/** All proxies but the first call the first service. */
async function changeForAll(host: Host, [, ...proxies]: readonly BenchProxy[]): Promise<void> {
  const rounds: { readonly toldMs: number; readonly cpuMs: number; readonly longestTurnMs: number }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const before = proxies.map(({ responses }) => responses);
    const { cpuMs } = await host.ask<HostFigures>({ ask: "figures" });
    const changed = performance.now();
    await host.ask({ ask: "instance", service: "s0", port: 22_000 + round });
    await until(() => proxies.every(({ responses }, at) => responses > (before[at] ?? 0)));
    const toldMs = Math.max(...proxies.map(({ toldAtMs }) => toldAtMs)) - changed;
    const figures = await host.ask<HostFigures>({ ask: "figures" });
    rounds.push({ toldMs, cpuMs: figures.cpuMs - cpuMs, longestTurnMs: figures.longestTurnMs });
  }
  console.log(
    `  an instance that all call changes: all told in ${figure(median(rounds.map(({ toldMs }) => toldMs)))} ms, ` +
      `processor ${figure(median(rounds.map(({ cpuMs }) => cpuMs)))} ms, ` +
      `longest turn ${figure(median(rounds.map(({ longestTurnMs }) => longestTurnMs)))} ms`,
  );
}

/** A config entry that concerns none of them: everything is looked at, and nobody is told. */
async function changeForNone(host: Host, proxies: readonly BenchProxy[]): Promise<void> {
  const responses = (): number => proxies.reduce((sum, proxy) => sum + proxy.responses, 0);
  const before = responses();
  const spent: number[] = [];
  for (let round = 0; round < 3; round++) {
    const { cpuMs } = await host.ask<HostFigures>({ ask: "figures" });
    await host.ask({ ask: "entry", value: round });
    await pause(3_000);
    spent.push((await host.ask<HostFigures>({ ask: "figures" })).cpuMs - cpuMs);
  }
  const told = responses() - before;
  console.log(
    `  a config entry that concerns none changes: processor ${figure(median(spent))} ms, ${told} responses sent`,
  );
}

async function push(): Promise<void> {
  for (const upstreams of [FEW, Number(options.upstreams)]) {
    await using host = new Host();
    const address = await host.ask<string>({ ask: "start", signaturesPerSecond: 0 });
    await host.ask({ ask: "services", services: upstreams + 1, upstreams });
    const proxy = new BenchProxy(address, "s0");
    await until(() => (proxy.told.get("listener") ?? 0) >= upstreams);
    const times: number[] = [];
    const cpu: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const before = proxy.responses;
      const { cpuMs } = await host.ask<HostFigures>({ ask: "figures" });
      const changed = performance.now();
      await host.ask({ ask: "instance", service: "s1", port: 22_000 + round });
      await until(() => proxy.responses > before);
      times.push(proxy.toldAtMs - changed);
      cpu.push((await host.ask<HostFigures>({ ask: "figures" })).cpuMs - cpuMs);
    }
    console.log(
      `a sidecar with ${upstreams} upstreams, one instance changes: told after ${figure(median(times))} ms (p50), ` +
        `${figure(quantile(times, 0.95))} ms (p95), 200 of them gathered; processor ${figure(median(cpu))} ms`,
    );
    await proxy[Symbol.asyncDispose]();
  }
}

async function snapshot(): Promise<void> {
  for (const count of [100, 1_000, 10_000]) {
    const names = Array.from({ length: count }, (_, at) => `s${at}`);
    const upstreams = names.map((destinationName, at) => ({ destinationName, localBindPort: 1_000 + at }));
    const proxy = sidecar("web", { upstreams });
    const view = steady(names);
    const moved = viewOf({ instances: { s7: [instance({ name: "s7", port: 81 })] } });
    const changed: MeshView = {
      ...view,
      targetEndpoints: (target) => (target.service === "s7" ? moved : view).targetEndpoints(target),
    };
    const fresh: number[] = [];
    const again: number[] = [];
    for (let round = 0; round < 5; round++) {
      const kept = new KeptParts();
      const encoder = new ResourceEncoder();
      fresh.push(cpuOf(() => resourcesOf(proxy, view, "inline", { kept, encoder })));
      again.push(cpuOf(() => resourcesOf(proxy, changed, "inline", { kept, encoder })));
    }
    const [whole, part] = [Math.min(...fresh), Math.min(...again)];
    console.log(
      `a snapshot with ${count} upstreams: ${figure(whole)} ms, ${figure((1_000 * whole) / count)} µs an upstream; ` +
        `after a change of one instance ${figure(part)} ms, ${figure((1_000 * part) / count)} µs an upstream`,
    );
  }
}

/** A view in which unchanged parts are the same objects, as those of a host are. */
function steady(names: readonly string[]): MeshView {
  const view = viewOf({ instances: Object.fromEntries(names.map((name) => [name, [instance({ name, port: 80 })]])) });
  const chains = new Map(names.map((name) => [name, view.chain(name)]));
  const endpoints = new Map(
    names.map((service) => [service, view.targetEndpoints({ service, subset: "", subsetDefinition: {} })]),
  );
  const gateways = view.localGateways();
  return {
    ...view,
    chain: (service) => chains.get(service) ?? view.chain(service),
    targetEndpoints: (target) => endpoints.get(target.service) ?? view.targetEndpoints(target),
    localGateways: () => gateways,
  };
}

function cpuOf(work: () => unknown): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

async function dial(): Promise<void> {
  await using pair = await meshPair();
  const { exporter, importer } = pair;
  await intend(exporter.host, "echo", [{ name: "client", peer: importer.name, action: "allow" }]);
  await using listener = await meshListener(exporter.host, {
    service: "echo",
    listen: "127.0.0.1:0",
    onConnection: (connection) => connection.end("hello"),
  });
  await pair.offer("echo", listener.address);
  const { certificate } = await importer.host.leafCertificates.current("client");
  const ends = async (stream: AsyncIterable<unknown>): Promise<void> => {
    let text = "";
    for await (const chunk of stream) text += String(chunk);
    if (text !== "hello") throw new Error(`"${text}" is not what the service says`);
  };
  const ways = {
    meshDial: async () => ends(await meshDial(importer.host, { service: "echo", peer: exporter.name, as: "client" })),
    "tls.connect": () => {
      const { certificateChainPem: cert, privateKeyPem: key } = certificate;
      const servername = serverName("echo", exporter.host, importer.name);
      return ends(
        connect({ host: "127.0.0.1", port: pair.gateway.port, servername, cert, key, rejectUnauthorized: false }),
      );
    },
  };
  const times = { meshDial: [] as number[], "tls.connect": [] as number[] };
  for (let round = 0; round < 10 * ROUNDS; round++) {
    for (const way of ["meshDial", "tls.connect"] as const) {
      const began = performance.now();
      await ways[way]();
      times[way].push(performance.now() - began);
    }
  }
  const [mesh, plain] = [median(times.meshDial), median(times["tls.connect"])];
  console.log(
    `a connection through a gateway, to its end: meshDial ${figure(mesh)} ms, tls.connect without verification ${figure(plain)} ms (p50): ` +
      `${(mesh / plain).toFixed(2)} times as long`,
  );
}

const parts = { proxies: manyProxies, push, snapshot, dial };
for (const [name, run] of Object.entries(parts)) {
  if (options.only === undefined || options.only === name) await run();
}
process.exit(0);
