// npm run bench:mesh -- [--proxies 1000] [--rounds 20] [--only proxies]
import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { pause } from "../interop/settles.js";
import { quantile } from "./figures.js";
import { BenchProxy } from "./mesh-clients.js";
import type { HostFigures, HostQuestion } from "./mesh-host.js";

const { values: options } = parseArgs({
  options: {
    proxies: { type: "string", default: "1000" },
    upstreams: { type: "string", default: "1000" },
    rounds: { type: "string", default: "20" },
    only: { type: "string" },
    prof: { type: "boolean", default: false },
  },
});
const ROUNDS = Number(options.rounds);
/** Upstreams of each of many proxies. */
const CALLED = 10;

class Host implements AsyncDisposable {
  readonly #process = fork(fileURLToPath(new URL("./mesh-host.js", import.meta.url)), {
    execArgv: options.prof ? ["--cpu-prof", "--cpu-prof-dir=/tmp/xds/prof"] : [],
  });

  async ask<Answer>(question: HostQuestion): Promise<Answer> {
    this.#process.send(question);
    const [answer]: { readonly value?: Answer; readonly error?: string }[] = await once(this.#process, "message");
    if (answer?.error !== undefined) throw new Error(answer.error);
    return answer?.value as Answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.disconnect();
    await once(this.#process, "exit");
  }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await pause(5);
}

const ms = (value: number): string => value.toFixed(value < 10 ? 2 : 0);

async function manyProxies(): Promise<void> {
  const count = Number(options.proxies);
  for (const signaturesPerSecond of [0, 50]) {
    await using host = new Host();
    const address = await host.ask<string>({ ask: "start", signaturesPerSecond });
    await host.ask({ ask: "services", services: count, upstreams: CALLED });
    const idle = await host.ask<HostFigures>({ ask: "figures" });
    const began = performance.now();
    const proxies = Array.from({ length: count }, (_, number) => new BenchProxy(address, `s${number}`));
    await until(() => proxies.every(({ told }) => (told.get("listener") ?? 0) >= CALLED));
    const toldMs = Math.max(...proxies.map(({ toldAtMs }) => toldAtMs)) - began;
    const after = await host.ask<HostFigures>({ ask: "figures" });
    console.log(
      `${count} proxies, ${signaturesPerSecond} signatures/s: all told in ${ms(toldMs)} ms, CPU ${ms(after.cpuMs - idle.cpuMs)} ms, ` +
        `resident ${ms(idle.residentMiB)} -> ${ms(after.residentMiB)} MiB, longest turn ${ms(after.longestTurnMs)} ms, ` +
        `${(proxies.reduce((sum, { bytes }) => sum + bytes, 0) / 2 ** 20).toFixed(1)} MiB sent`,
    );
    if (signaturesPerSecond === 0) {
      for (const kind of ["instance", "entry"] as const) {
        const times: number[] = [];
        const cpu: number[] = [];
        let longest = 0;
        for (let round = 0; round < Math.min(ROUNDS, 5); round++) {
          const before = proxies.map(({ responses }) => responses);
          const { cpuMs } = await host.ask<HostFigures>({ ask: "figures" });
          const changed = performance.now();
          if (kind === "instance") {
            await host.ask({ ask: "instance", service: "s0", port: 22_000 + round });
            await until(() => proxies.every(({ responses }, at) => at === 0 || responses > (before[at] ?? 0)));
          } else {
            await host.ask({ ask: "entry", value: round + 1 });
            await pause(3_000);
          }
          times.push(Math.max(...proxies.map(({ toldAtMs }) => toldAtMs)) - changed);
          const figures = await host.ask<HostFigures>({ ask: "figures" });
          cpu.push(figures.cpuMs - cpuMs);
          longest = Math.max(longest, figures.longestTurnMs);
        }
        console.log(
          `  ${kind}: told all in ${ms(quantile(times, 0.5))} ms, CPU ${ms(quantile(cpu, 0.5))} ms, longest turn ${ms(longest)} ms`,
        );
      }
      const end = await host.ask<HostFigures>({ ask: "figures" });
      console.log(`  resident ${ms(end.residentMiB)} MiB`);
    }
    await Promise.all(proxies.map((proxy) => proxy[Symbol.asyncDispose]()));
  }
}

const parts: Readonly<Record<string, () => Promise<void>>> = { proxies: manyProxies };
for (const [name, run] of Object.entries(parts)) if (options.only === undefined || options.only === name) await run();
process.exit(0);
