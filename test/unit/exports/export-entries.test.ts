import assert from "node:assert/strict";
import { it } from "node:test";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import type { ConfigEntryInput } from "../../../src/config/config-entry.js";
import type { ExportEngine } from "../../../src/exports/export-engine.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { ConfigEntries } from "../../../src/stores/config-entries.js";
import { exportEngine } from "./exporting.js";

const NAMES = ["a", "b", "c", "D"] as const;
const name = fc.constantFrom(...NAMES);
/** An entry that is written, or one that is deleted. */
type Change = ConfigEntryInput | { readonly delete: ConfigEntryInput["kind"]; readonly name: string };
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(name, name).map(([from, to]) => ({
    kind: "service-router" as const,
    name: from,
    routes: [{ destination: { service: to } }],
  })),
  fc.tuple(name, name).map(([from, to]) => ({
    kind: "service-splitter" as const,
    name: from,
    splits: [
      { weight: 50, service: to },
      { weight: 50, service: from },
    ],
  })),
  fc
    .tuple(name, name)
    .map(([from, to]) => ({ kind: "service-resolver" as const, name: from, redirect: { service: to } })),
  fc.tuple(name, name).map(([from, to]) => ({
    kind: "service-resolver" as const,
    name: from,
    failover: { "*": { service: to } },
  })),
  fc.record({ kind: fc.constant("service-defaults" as const), name, protocol: fc.constantFrom("tcp", "http") }),
  fc.record({
    kind: fc.constant("service-intentions" as const),
    name,
    sources: fc.constant([{ name: "x", action: "allow" as const }]),
  }),
  fc.record({
    delete: fc.constantFrom(
      "service-defaults" as const,
      "service-router" as const,
      "service-splitter" as const,
      "service-resolver" as const,
    ),
    name,
  }),
);

const changes = fc.array(change, { minLength: 1, maxLength: 10 });

/** The last inputs of a stream of the peer, by resource. */
function follow(catalog: Catalog, configEntries: ConfigEntries): { engine: ExportEngine; given: Map<string, string> } {
  const engine = exportEngine(catalog, configEntries);
  const given = new Map<string, string>();
  engine.attach({ id: "1", name: "peer" }, (input) => {
    if (input.type === "withdrawn") for (const id of input.resourceIds) given.delete(id);
    if (input.type !== "exported") return;
    for (const { resourceId, digest, value } of input.resources) {
      if (value.length === 0) given.delete(resourceId);
      else given.set(resourceId, digest);
    }
  });
  return { engine, given };
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await setImmediate();
  await new Promise((resolve) => setTimeout(resolve, 2));
}

it("after any changes of entries a stream has the same as one that attaches then", async () => {
  let written = 0;
  let compared = 0;
  await fc.assert(
    fc.asyncProperty(changes, changes, fc.constantFrom("*", "a"), async (before, after, all) => {
      const storage = memoryStorage();
      await using catalog = await Catalog.open({ storage, datacenter: "dc1" });
      const configEntries = await ConfigEntries.open({ storage, datacenter: "dc1" });
      const apply = async (each: Change): Promise<void> => {
        try {
          if ("delete" in each) await configEntries.delete(each.delete, each.name);
          else await configEntries.set(each);
          written++;
        } catch (error) {
          assert.ok(error instanceof PeeringError, String(error));
        }
      };
      await catalog.registerAll([
        ...NAMES.map((each) => ({ node: "n1", address: "10.0.0.1", service: { name: each, port: 80 } })),
        { node: "gw", address: "10.0.0.2", service: { name: "gw", kind: "mesh-gateway", port: 1 } },
      ]);
      // Chains of TCP may lead anywhere before they are exported.
      for (const each of before) await apply(each);
      await apply({ kind: "exported-services", services: [{ name: all, consumers: [{ peer: "peer" }] }] });
      const followed = follow(catalog, configEntries);
      await using _ = followed.engine;
      await settled();
      for (const each of after) await apply(each);
      await settled();
      const fresh = follow(catalog, configEntries);
      await using __ = fresh.engine;
      await settled();
      const sorted = (given: ReadonlyMap<string, string>): unknown => [...given].sort();
      assert.deepEqual(sorted(followed.given), sorted(fresh.given));
      if (fresh.given.size > 1) compared++;
    }),
    { numRuns: 200 },
  );
  assert.ok(written > 200 && compared > 50);
});
