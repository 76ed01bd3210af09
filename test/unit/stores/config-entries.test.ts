import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { ConfigEntryInput } from "../../../src/config/config-entry.js";
import { CONFIG_PREFIX } from "../../../src/storage/keys.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { ConfigEntries, type ConfigEntryChange } from "../../../src/stores/config-entries.js";
import { storageWith } from "../../support/storage.js";

const datacenter = "dc1";

function exporting(...names: readonly string[]): ConfigEntryInput {
  return { kind: "exported-services", services: names.map((name) => ({ name, consumers: [{ peer: "b" }] })) };
}

/** A storage whose commits can be made to fail. */
function failing(storage: Storage): Storage & { failure: PeeringError | undefined; commits: number } {
  const self = {
    ...storageWith(storage, {
      async commit(...given) {
        self.commits++;
        if (self.failure !== undefined) throw self.failure;
        return storage.commit(...given);
      },
    }),
    failure: undefined as PeeringError | undefined,
    commits: 0,
  };
  return self;
}

test("an entry is written, read, listed, changed and deleted, with its indexes", async () => {
  const entries = await ConfigEntries.open({ storage: memoryStorage(), datacenter });
  assert.equal(entries.index, 0n);
  assert.equal(await entries.set(exporting("web")), true);
  assert.deepEqual(entries.get("exported-services", "DEFAULT")?.services, [
    { name: "web", consumers: [{ peer: "b" }] },
  ]);
  const first = entries.index;
  assert.equal(await entries.set(exporting("web", "db")), true);
  const stored = entries.stored("exported-services", "default");
  assert.deepEqual([stored?.createIndex, stored?.modifyIndex], [first, entries.index]);
  assert.ok(entries.index > first);
  assert.equal(await entries.set({ kind: "service-defaults", name: "web" }), true);
  assert.deepEqual(
    entries.list().map(({ entry }) => entry.kind),
    ["exported-services", "service-defaults"],
  );
  assert.equal(entries.list("mesh").length, 0);
  assert.equal(await entries.delete("exported-services", "default"), true);
  assert.equal(entries.get("exported-services", "default"), undefined);
});

test("entries survive a restart, with their indexes", async () => {
  const storage = memoryStorage();
  const before = await ConfigEntries.open({ storage, datacenter });
  await before.set(exporting("web"));
  await before.set(exporting("web", "db"));
  await before.set({ kind: "service-resolver", name: "Virtual", failover: { "*": { service: "x" } } });
  const after = await ConfigEntries.open({ storage, datacenter });
  assert.deepEqual(after.list(), before.list());
  assert.equal(after.index, before.index);
});

test("cas writes only over the index that it names, and an equal entry is a success that moves nothing", async () => {
  const entries = await ConfigEntries.open({ storage: memoryStorage(), datacenter });
  assert.equal(await entries.set(exporting("web"), { cas: 7n }), false);
  assert.equal(await entries.set(exporting("web"), { cas: 0n }), true);
  assert.equal(await entries.set(exporting("db"), { cas: 0n }), false);
  const index = entries.index;
  assert.equal(await entries.set(exporting("web"), { cas: 99n }), true);
  assert.equal(entries.index, index);
  assert.equal(await entries.delete("exported-services", "default", { cas: index + 1n }), false);
  assert.equal(await entries.set(exporting("db"), { cas: index }), true);
  assert.equal(await entries.delete("exported-services", "default", { cas: entries.index }), true);
  assert.equal(await entries.delete("exported-services", "default", { cas: 5n }), true);
});

test("input without types is checked like any other", async () => {
  const entries = await ConfigEntries.open({ storage: memoryStorage(), datacenter });
  await assert.rejects(entries.setUntyped({ kind: "exported-services", services: [{ name: "web" }] }), {
    code: "invalid-entry",
    message: "Services[0]: must have at least one consumer",
  });
  await assert.rejects(entries.setUntyped("web"), { code: "invalid-entry" });
  assert.equal(entries.index, 0n);
});

test("guards run before anything is stored, also against writes that wait (ch4 case 25)", async () => {
  const storage = failing(memoryStorage());
  const entries = await ConfigEntries.open({ storage, datacenter });
  const exported = entries.set(exporting("web"));
  const redirected = entries.set({ kind: "service-resolver", name: "web", redirect: { service: "other" } });
  await assert.rejects(redirected, { code: "invalid-entry", message: /cannot introduce new discovery chain targets/ });
  await exported;
  assert.equal(storage.commits, 1);
  assert.equal(entries.get("service-resolver", "web"), undefined);
});

test("a failed commit changes nothing, and the next write goes on", async () => {
  const storage = failing(memoryStorage());
  const entries = await ConfigEntries.open({ storage, datacenter });
  const changes: ConfigEntryChange[] = [];
  entries.onChange((change) => changes.push(change));
  storage.failure = new PeeringError("storage-failed", "disk full");
  await assert.rejects(entries.set(exporting("web")), { code: "storage-failed" });
  assert.equal(entries.get("exported-services", "default"), undefined);
  assert.equal(changes.length, 0);
  storage.failure = undefined;
  await entries.set(exporting("db"));
  assert.deepEqual(
    changes.map(({ kind, name, entry }) => [kind, name, entry?.kind]),
    [["exported-services", "default", "exported-services"]],
  );
});

test("the entries of another writer are taken over, reported, and judged again", async () => {
  const storage = memoryStorage();
  const mine = await ConfigEntries.open({ storage, datacenter });
  const other = await ConfigEntries.open({ storage, datacenter });
  const changes: ConfigEntryChange[] = [];
  mine.onChange((change) => changes.push(change));
  await other.set({ kind: "service-resolver", name: "web", redirect: { datacenter: "dc2" } });
  await other.set(exporting("api"));
  await assert.rejects(mine.set(exporting("web")), { code: "invalid-entry", message: /cross-datacenter/ });
  assert.deepEqual(changes.map(({ kind }) => kind).sort(), ["exported-services", "service-resolver"]);
  assert.deepEqual(mine.list(), other.list());
  await mine.set(exporting("db"));
  await mine.delete("exported-services", "default");
  await other.set({ kind: "exported-services", services: [] });
  assert.equal(other.get("exported-services", "default")?.services.length, 0);
});

test("a damaged entry is named", async () => {
  const storage = memoryStorage();
  const value = new TextEncoder().encode('{"entry":{"kind":"mesh","name":"x"}}');
  await storage.commit([{ key: ["config", "mesh", "mesh"], value }]);
  await assert.rejects(ConfigEntries.open({ storage, datacenter }), {
    code: "storage-failed",
    message: 'stored config entry config/mesh/mesh is damaged: mesh Name must be "mesh"',
  });
});

test("a damaged entry is not quoted: there may be a key in it", async () => {
  const storage = memoryStorage();
  const value = new TextEncoder().encode('{"entry":{"kind":"inline-certificate" "5e0b6a51-secret"}}');
  await storage.commit([{ key: ["config", "inline-certificate", "x"], value }]);
  await assert.rejects(ConfigEntries.open({ storage, datacenter }), {
    code: "storage-failed",
    message: "stored config entry config/inline-certificate/x is damaged: it is not JSON",
    cause: new TypeError("it is not JSON"),
  });
});

test("a write that would make a discovery chain too long is refused, counted, and changes nothing", async () => {
  const incidents = new Incidents();
  const entries = await ConfigEntries.open({
    storage: memoryStorage(),
    datacenter,
    limits: { chainParts: 4 },
    incidents,
  });
  await entries.set({ kind: "proxy-defaults", config: { protocol: "http" } });
  const splitter = (...services: readonly string[]): ConfigEntryInput => ({
    kind: "service-splitter",
    name: "web",
    splits: services.map((service) => ({ weight: 100 / services.length, service })),
  });
  assert.equal(await entries.set(splitter("a", "b")), true);
  await assert.rejects(entries.set(splitter("a", "b", "c", "d")), {
    code: "resource-exhausted",
    message: 'discovery chain "web" has more than 4 routes, splits and targets',
  });
  assert.equal(entries.get("service-splitter", "web")?.splits.length, 2);
  assert.equal(incidents.counts().get("discovery-chain-too-long"), 1);
});

test("a write looks at the chains behind other chains where intentions say who may call (recorded from Consul 1.21.4)", async () => {
  const write: ConfigEntryInput = { kind: "service-defaults", name: "last", protocol: "http" };
  for (const guarded of [false, true]) {
    const entries = await ConfigEntries.open({ storage: memoryStorage(), datacenter });
    // The chain of `mid` itself does not lead to `last`: only its subset does, and `first` alone leads there.
    await entries.set({
      kind: "service-resolver",
      name: "mid",
      subsets: { v2: {} },
      failover: { v2: { service: "last" } },
    });
    await entries.set({ kind: "service-resolver", name: "first", redirect: { service: "mid", serviceSubset: "v2" } });
    if (!guarded) {
      assert.equal(await entries.set(write), true);
      continue;
    }
    await entries.set({ kind: "service-intentions", name: "first", sources: [{ name: "web", action: "allow" }] });
    await assert.rejects(entries.set(write), {
      message: 'discovery chain "first" uses inconsistent protocols; service "last" has "http" which is not "tcp"',
    });
    assert.equal(entries.get("service-defaults", "last"), undefined);
  }
});

test("a subset whose filter is no expression is refused, and one that was stored before is kept", async () => {
  const storage = memoryStorage();
  const entries = await ConfigEntries.open({ storage, datacenter });
  const resolver = (filter: string): ConfigEntryInput => ({
    kind: "service-resolver",
    name: "web",
    subsets: { v1: { filter: "Service.Meta.v == 1" }, v2: { filter } },
  });
  for (const [filter, place] of [
    ["bad", "1:4 (3)"],
    ["(Service.ID == x", "1:17 (16)"],
    ["Service.ID = x", "1:12 (11)"],
    ["Service.ID == x and", "1:20 (19)"],
  ] as const) {
    await assert.rejects(entries.set(resolver(filter)), ({ code, message }: PeeringError) => {
      assert.equal(code, "invalid-entry");
      assert.ok(message.startsWith(`Filter for subset "v2" is not a valid expression: ${place}: `), message);
      return true;
    });
  }
  assert.equal(entries.get("service-resolver", "web"), undefined);
  const value = new TextEncoder().encode(JSON.stringify({ entry: resolver("bad") }));
  await storage.commit([{ key: [...CONFIG_PREFIX, "service-resolver", "web"], value }]);
  const reopened = await ConfigEntries.open({ storage, datacenter });
  assert.equal(reopened.get("service-resolver", "web")?.subsets?.["v2"]?.filter, "bad");
});

test("no other write comes in between while an entry is judged in turns", async () => {
  const entries = await ConfigEntries.open({ storage: memoryStorage(), datacenter });
  await entries.set({ kind: "proxy-defaults", name: "global", config: { protocol: "http" } });
  const others = Array.from({ length: 2_000 }, (_, index) => ({ service: `db${index}`, weight: 0.05 }));
  const written = entries.setUntyped({ kind: "service-splitter", name: "web", splits: others });
  const removed = entries.delete("proxy-defaults", "global");
  assert.equal(await written, true);
  await assert.rejects(removed, /discovery chain "web" uses a protocol "tcp"/);
  assert.deepEqual(entries.get("service-splitter", "web")?.splits.length, others.length);
  assert.ok(entries.get("proxy-defaults", "global"), "the defaults stay");
});

test("a close waits for an entry that is being judged in turns", async () => {
  const storage = memoryStorage();
  const entries = await ConfigEntries.open({ storage, datacenter });
  const listed = Array.from({ length: 4_000 }, (_, index) => ({ name: `db${index}` }));
  const written = entries.setUntyped({ kind: "terminating-gateway", name: "gateway", services: listed });
  await setImmediate();
  await entries.close();
  assert.equal(await written, true);
  const reopened = await ConfigEntries.open({ storage, datacenter });
  assert.equal(reopened.get("terminating-gateway", "gateway")?.services.length, listed.length);
});

test("others have their turn while a long entry is written", async () => {
  const entries = await ConfigEntries.open({ storage: memoryStorage(), datacenter });
  await entries.set({ kind: "proxy-defaults", name: "global", config: { protocol: "http" } });
  const turnsFor = async (services: number): Promise<number> => {
    const stop = new AbortController();
    let turns = 0;
    const others = (async () => {
      for (; !stop.signal.aborted; turns++) await setImmediate();
    })();
    const listed = Array.from({ length: services }, (_, index) => ({ Name: `web${index}` }));
    const entry = { kind: "ingress-gateway", name: `gateway${services}` };
    await entries
      .setUntyped({ ...entry, extra: { Listeners: [{ Port: 80, Protocol: "http", Services: listed }] } })
      .finally(() => stop.abort());
    await others;
    return turns;
  };
  const [few, many] = [await turnsFor(1), await turnsFor(4_000)];
  assert.ok(many >= few + 10, `${few} and ${many} turns`);
});
