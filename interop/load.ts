import assert from "node:assert/strict";
import type { JsonObject } from "../src/client/index.js";
import type { Cluster } from "./cluster.js";
import { exportTo } from "./services.js";
import { pause } from "./settles.js";

const COMPLETE_MS = 180_000;
const AT_A_TIME = 16;
const ASK_AGAIN_MS = 200;
/** Services that share a node. One shared by thousands is the worst case of Consul, not the usual one. */
const PER_NODE = 10;
/** Instances in one transaction, which may have 128 operations: two of each. */
const PER_TRANSACTION = 64;

export interface Load {
  readonly services: number;
  readonly instances: number;
}

export const nameOf = (service: number): string => `load-${service}`;

export interface LoadRegistration extends JsonObject {
  readonly Node: string;
  readonly Address: string;
  readonly Service: JsonObject;
  readonly Check: JsonObject;
}

export function loadRegistration(
  { instances }: Load,
  service: number,
  instance: number,
  tag: string,
): LoadRegistration {
  const node = Math.floor(service / PER_NODE) * instances + instance;
  const id = `${nameOf(service)}-${instance}`;
  return {
    Node: `load-node-${node}`,
    Address: `10.${node >> 16}.${(node >> 8) & 255}.${node & 255}`,
    Service: { ID: id, Service: nameOf(service), Port: 8_000 + instance, Tags: [tag], Meta: { rev: tag } },
    Check: { CheckID: `${id}-alive`, Name: "alive", ServiceID: id, Status: "passing" },
  };
}

/** Does `work` for each number below `count`, several at a time. */
export async function each(count: number, work: (number: number) => Promise<void>): Promise<void> {
  const numbers = Array.from({ length: count }, (_, number) => number).values();
  const worker = async (): Promise<void> => {
    for (const number of numbers) await work(number);
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
}

/** As {@link loadRegistration}, in transactions: a server of 2.1 knows a service only after the one that has made it. */
function loadOperations(load: Load, service: number, instance: number) {
  const { Node, Address, Service, Check } = loadRegistration(load, service, instance, "r0");
  return {
    instance: [{ Node: { Verb: "set", Node: { Node, Address } } }, { Service: { Verb: "set", Node, Service } }],
    checks: [{ Check: { Verb: "set", Check: { ...Check, Node } } }],
  };
}

/** Many instances in each of its writes: how they came is not what a load is about. */
export async function fill(cluster: Cluster, peer: Pick<Cluster, "name">, load: Load): Promise<void> {
  const { services, instances } = load;
  const all = Array.from({ length: services * instances }, (_, number) =>
    loadOperations(load, Math.floor(number / instances), number % instances),
  );
  await each(Math.ceil(all.length / PER_TRANSACTION), async (number) => {
    const together = all.slice(number * PER_TRANSACTION, (number + 1) * PER_TRANSACTION);
    await cluster.client.catalog.transaction(together.flatMap((one) => one.instance));
    await cluster.client.catalog.transaction(together.flatMap((one) => one.checks));
  });
  await exportTo(cluster, peer, ["*"]);
}

/** Of the services of `exporter`, those that `importer` does not have whole. */
export async function missing(
  exporter: Cluster,
  importer: Cluster,
  load: Load,
  among: readonly number[],
): Promise<number[]> {
  const found: number[] = [];
  await each(among.length, async (position) => {
    const service = among[position] ?? 0;
    const { value } = await importer.client.health.service(nameOf(service), { peer: exporter.name });
    if (value.length !== load.instances) found.push(service);
  });
  return found;
}

/** Asks for one service until it is whole, then for the next, so that asking is not what everybody is busy with. */
export async function complete(
  exporter: Cluster,
  importer: Cluster,
  load: Load,
  askAgainMs: number = ASK_AGAIN_MS,
): Promise<void> {
  const end = performance.now() + COMPLETE_MS;
  await each(load.services, async (service) => {
    while ((await missing(exporter, importer, load, [service])).length > 0) {
      assert.ok(performance.now() < end, `${importer.name} does not have all services of ${exporter.name}`);
      await pause(askAgainMs);
    }
  });
}
