// One host that exports to many peers, which acknowledge and keep nothing.
import { setTimeout as wait } from "node:timers/promises";
import type { BenchProcess, Load } from "./calls.js";

const SERVICES = 200;
const IDLE_MS = 10_000;
/** So that garbage of the measurement before is not counted as memory of a peering. */
const SETTLE_MS = 2_000;

export interface ManyPeers {
  readonly peers: number;
  readonly services: number;
  /** From the first exchange of secrets until each peer has been sent every service. */
  readonly seconds: number;
  readonly exporterCpu: number;
  readonly kibPerPeering: number;
  /** Part of a core that the exporter takes while nothing changes. */
  readonly idleCpu: number;
  /** From the call of register until each peer has been sent the service. */
  readonly updateMs: number;
  readonly updateCpuMs: number;
}

export async function manyPeers(host: BenchProcess, others: BenchProcess, peers: number): Promise<ManyPeers> {
  const load: Load = { services: SERVICES, instances: 1, perNode: 10 };
  const names = Array.from({ length: peers }, (_, index) => `peer-${index}`);
  await host.call("fill", { load, consumers: names });
  const tokens: string[] = [];
  for (const peerName of names) tokens.push(await host.call("token", { peerName }));
  await wait(SETTLE_MS);
  const before = await host.call("usage");
  const began = await host.call("now");
  const ended = await others.call("becomePeers", { tokens, services: SERVICES });
  const after = await host.call("usage");
  await wait(SETTLE_MS);
  const idleFrom = await host.call("usage");
  await wait(IDLE_MS);
  const idleTo = await host.call("usage");
  const service = 7;
  const seen = others.call("peersSee", { service: `svc-${service}` });
  // The peers expect it before the host changes anything.
  await others.call("usage");
  const updated = await host.call("update", { load, service, tag: "changed" });
  const updateMs = (await seen) - updated;
  const updatedUsage = await host.call("usage");
  return {
    peers,
    services: SERVICES,
    seconds: (ended - began) / 1_000,
    exporterCpu: after.cpuSeconds - before.cpuSeconds,
    kibPerPeering: ((idleTo.rssMiB - before.rssMiB) * 1_024) / peers,
    idleCpu: ((idleTo.cpuSeconds - idleFrom.cpuSeconds) * 1_000) / IDLE_MS,
    updateMs,
    updateCpuMs: (updatedUsage.cpuSeconds - idleTo.cpuSeconds) * 1_000,
  };
}
