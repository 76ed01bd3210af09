// Exports take time in proportion to the number of exported services, or of changes.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import type { ExportEngine } from "../../../src/exports/export-engine.js";
import type { Registration } from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { ConfigEntries } from "../../../src/stores/config-entries.js";
import { assertLinear } from "../../support/growth.js";
import { exportEngine } from "./exporting.js";

interface Exporting {
  readonly catalog: Catalog;
  readonly configEntries: ConfigEntries;
  readonly engine: ExportEngine;
  /** Ids of what the stream was given last, and is not withdrawn. */
  readonly given: Map<string, string>;
  /** Those of them that are services, not their sidecars, nor the list of them. */
  readonly services: Set<string>;
}

const numbers = (size: number): readonly number[] => Array.from({ length: size }, (_, index) => index);
const service = (index: number, port = 80): Registration => ({
  node: `n${index}`,
  address: "10.0.0.1",
  service: { id: `s${index}`, name: `s${index}`, port },
});
const proxy = (index: number): Registration => ({
  node: `n${index}`,
  address: "10.0.0.1",
  service: {
    id: `p${index}`,
    name: `s${index}-proxy`,
    port: 1,
    kind: "connect-proxy",
    proxy: { destinationServiceName: `s${index}` },
  },
});

async function prepare(): Promise<Exporting> {
  const storage = memoryStorage();
  const catalog = await Catalog.open({ storage, datacenter: "dc1" });
  const configEntries = await ConfigEntries.open({ storage, datacenter: "dc1" });
  const engine = exportEngine(catalog, configEntries);
  const gateway = { id: "gw", name: "gw", port: 8_443, kind: "mesh-gateway" as const };
  await catalog.register({ node: "gw", address: "10.0.0.2", service: gateway });
  const given = new Map<string, string>();
  const services = new Set<string>();
  const take = (id: string, digest: string | undefined): void => {
    if (digest === undefined) given.delete(id);
    else given.set(id, digest);
    if (!/^s\d+$/.test(id)) return;
    if (digest === undefined) services.delete(id);
    else services.add(id);
  };
  while (!engine.known) await setImmediate();
  engine.attach({ id: "1", name: "peer" }, (input) => {
    if (input.type === "withdrawn") for (const id of input.resourceIds) take(id, undefined);
    if (input.type !== "exported") return;
    for (const { resourceId, digest, value } of input.resources) {
      // Mesh services are not withdrawn, but left without instances.
      take(resourceId, value.length === 0 ? undefined : digest);
    }
  });
  return { catalog, configEntries, engine, given, services };
}

async function dispose({ catalog, engine }: Exporting): Promise<void> {
  await engine[Symbol.asyncDispose]();
  await catalog[Symbol.asyncDispose]();
}

/** Fails where it would wait for ever. */
async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    if (turns > 200_000) throw new Error("it never comes to be so");
    await setImmediate();
  }
}

const consumers = [{ peer: "peer" }];
const exportAll = ({ configEntries }: Exporting): Promise<boolean> =>
  configEntries.set({ kind: "exported-services", services: [{ name: "*", consumers }] });
const exportEach = ({ configEntries }: Exporting, of: number): Promise<boolean> => {
  const services = numbers(of).map((index) => ({ name: `s${index}`, consumers }));
  return configEntries.set({ kind: "exported-services", services });
};
const has = ({ services }: Exporting, count: number): Promise<void> => until(() => services.size === count);

describe("the time of exports grows with their number", () => {
  for (const [name, set] of [
    ["all services", exportAll],
    ["services that are named", exportEach],
  ] as const) {
    it(`in ${name}`, () =>
      assertLinear<Exporting>({
        size: 250,
        prepare,
        dispose,
        steps: {
          "write the entry": set,
          register: async (world, of) => {
            await world.catalog.registerAll(numbers(of).map((index) => service(index)));
            await has(world, of);
          },
          "change one by one": async (world, of) => {
            for (const index of numbers(of)) {
              const before = world.given.get(`s${index}`);
              await world.catalog.register(service(index, 81));
              await until(() => world.given.get(`s${index}`) !== before);
            }
          },
          "attach another stream": async ({ engine }, of) => {
            let resources = 0;
            const detach = engine.attach({ id: "2", name: "peer" }, (input) => {
              if (input.type === "exported") resources += input.resources.length;
            });
            // The list, and all that is in it.
            await until(() => resources > of);
            detach();
          },
          resolve: ({ engine }) => engine.exportsFor("peer"),
          "write the entry again": async (world, of) => {
            await world.configEntries.delete("exported-services", "default");
            await has(world, 0);
            await set(world, of);
            await has(world, of);
          },
          "bring them to the mesh": async (world, of) => {
            await world.catalog.registerAll(numbers(of).map(proxy));
            await until(() => world.given.has(`s${of - 1}-sidecar-proxy`));
          },
          "change entries of each": async ({ configEntries }, of) => {
            for (const index of numbers(of / 2)) {
              await configEntries.set({ kind: "service-defaults", name: `s${index}`, protocol: "http" });
            }
          },
          "write intentions of each": async ({ configEntries }, of) => {
            for (const index of numbers(of / 2)) {
              const sources = [{ name: "api", action: "allow" as const }];
              await configEntries.set({ kind: "service-intentions", name: `s${index}`, sources });
            }
          },
          "write gateways in front of each": async ({ configEntries }, of) => {
            for (const index of numbers(of / 2)) {
              await configEntries.set({
                kind: "terminating-gateway",
                name: `g${index}`,
                services: [{ name: `s${index}` }],
              });
            }
          },
          "ask who gets each": ({ engine }, of) => {
            for (const index of numbers(of)) {
              assert.deepEqual(engine.peersFor(`s${index}`), ["peer"]);
              assert.deepEqual(engine.peersReaching(`s${index}`), ["peer"]);
              assert.equal(engine.explain(`s${index}`, "peer").ordinary, true);
            }
          },
          "deregister one by one": async ({ catalog }, of) => {
            await Promise.all(
              numbers(of).map((index) => catalog.deregister({ node: `n${index}`, serviceId: `s${index}` })),
            );
          },
          withdraw: async (world) => {
            await world.configEntries.delete("exported-services", "default");
            await has(world, 0);
          },
        },
      }));
  }
});
