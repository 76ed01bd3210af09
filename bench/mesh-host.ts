// The process of a host that serves the proxies of `npm run bench:mesh`. It does what its parent says, and answers with figures of itself.
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createHost } from "../src/host/host.js";
import { xdsServer } from "../src/mesh/index.js";
import { memoryStorage } from "../src/storage/memory.js";
import { memoryNetwork } from "../src/transport/memory.js";
import { bytesInUse } from "../test/support/heap.js";

/** A question to the host. */
export type HostQuestion =
  | { readonly ask: "start"; readonly signaturesPerSecond: number }
  | { readonly ask: "services"; readonly services: number; readonly upstreams: number }
  | { readonly ask: "instance"; readonly service: string; readonly port: number }
  | { readonly ask: "entry"; readonly value: number }
  | { readonly ask: "figures" }
  | { readonly ask: "in-use" };

export interface HostFigures {
  /** Since the process began. */
  readonly cpuMs: number;
  readonly residentMiB: number;
  /** How long the event loop was held up at most, since the last question. */
  readonly longestTurnMs: number;
}

const storage = memoryStorage();
const host = await createHost({ storage, transport: memoryNetwork().transport(), nodeName: "n1" });
const xds = await xdsServer(host, { listen: "127.0.0.1:0" });
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();

async function answer(question: HostQuestion): Promise<unknown> {
  switch (question.ask) {
    case "start":
      await host.builtInAuthority?.configure({
        config: { CSRMaxPerSecond: question.signaturesPerSecond, LeafCertTTL: "72h" },
      });
      return xds.address;
    case "services":
      await registerAll(question.services, question.upstreams);
      return undefined;
    case "instance":
      await register(question.service, question.port);
      return undefined;
    case "entry":
      await host.configEntries.set({
        kind: "service-defaults",
        name: "nobody-calls",
        meta: { value: String(question.value) },
      });
      return undefined;
    case "figures": {
      const { user, system } = process.cpuUsage();
      const residentMiB = process.memoryUsage.rss() / 2 ** 20;
      const longestTurnMs = delay.max / 1e6;
      const figures: HostFigures = { cpuMs: (user + system) / 1_000, residentMiB, longestTurnMs };
      delay.reset();
      return figures;
    }
    case "in-use":
      return (await bytesInUse()) / 2 ** 20;
  }
}

function register(service: string, port: number, upstreams?: readonly string[]): Promise<unknown> {
  const node = { node: `node-${service}`, address: "10.0.0.1" };
  const registered = host.catalog.register({
    ...node,
    service: {
      kind: "connect-proxy",
      id: `${service}-sidecar-proxy`,
      name: `${service}-sidecar-proxy`,
      port,
      proxy: {
        destinationServiceName: service,
        localServicePort: 8080,
        ...(upstreams && {
          upstreams: upstreams.map((destinationName, at) => ({ destinationName, localBindPort: 10_000 + at })),
        }),
      },
    },
  });
  return registered;
}

/** Each of them calls the next ones, and all of them the first. */
async function registerAll(services: number, upstreams: number): Promise<void> {
  const numbers = Array.from({ length: services }, (_, number) => number);
  await Promise.all(
    numbers.map((number) => {
      const called = Array.from({ length: upstreams }, (_, at) => (at === 0 ? 0 : (number + at) % services));
      return register(
        `s${number}`,
        21_000,
        [...new Set(called)].map((each) => `s${each}`),
      );
    }),
  );
}

process.on("message", (question: HostQuestion) => {
  answer(question).then(
    (value) => process.send?.({ value }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
process.on("disconnect", () => process.exit(0));
