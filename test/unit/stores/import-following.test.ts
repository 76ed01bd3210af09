// Several processes import into one storage: one of them leads, the others follow, and any of them may come to lead.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { type ImportItem, ImportStore } from "../../../src/stores/import-store.js";
import { storageWith } from "../../support/storage.js";
import { wireInstance } from "../payload/import-fixtures.js";
import { list, OTHER, PEER, upsert } from "./import-items.js";

/** Nothing here waits for anything but the others. */
async function soon(condition: () => boolean, what: string): Promise<void> {
  for (let turn = 0; turn < 5_000; turn++) {
    if (condition()) return;
    await setImmediate();
  }
  assert.fail(`it did not happen that ${what}`);
}

/** Waits until a store holds what another one has committed. */
function follows(follower: ImportStore, leader: ImportStore): Promise<void> {
  const indexes = (store: ImportStore): string =>
    [PEER, OTHER].map((peer) => `${store.index(peer)} ${store.count(peer).services}`).join();
  return soon(() => indexes(follower) === indexes(leader), "the follower has it");
}

/** Everything that a store tells its readers. */
async function contents(store: ImportStore): Promise<unknown> {
  const peers = [];
  for (const peer of [PEER, OTHER]) {
    const services = store.services(peer);
    const instances = [];
    for (const { name } of services) instances.push(await store.instances(peer, name));
    const nodes = await store.nodes(peer);
    const servicesOn = nodes.map(({ node }) => [node.name, store.servicesOn(peer, node.name)]);
    peers.push({ services, instances, nodes, servicesOn, count: store.count(peer) });
  }
  return peers;
}

/** Counts what is read of a storage, and commits. */
function counted(inner: Storage): Storage & { readonly work: { reads: number; entries: number; commits: number } } {
  const work = { reads: 0, entries: 0, commits: 0 };
  const counting = storageWith(inner, {
    async read(...given) {
      const snapshot = await inner.read(...given);
      work.reads++;
      work.entries += snapshot.entries.length;
      return snapshot;
    },
    async *pages(...given) {
      work.reads++;
      for await (const page of inner.pages(...given)) {
        work.entries += page.entries.length;
        yield page;
      }
    },
    commit: (...given) => {
      work.commits++;
      return inner.commit(...given);
    },
  });
  return { ...counting, work };
}

/** A watch of all services of a peer, and what its follower knows from it. */
function watched(
  store: ImportStore,
  signal: AbortSignal,
): { readonly known: ReadonlyMap<string, ServiceInstance>; readonly over: Promise<void> } {
  const known = new Map<string, ServiceInstance>();
  const keyOf = ({ node, service }: ServiceInstance): string =>
    `${service.name}/${node.name}/${service.id}`.toLowerCase();
  const watch = async (): Promise<void> => {
    for await (const change of store.watch({ peeringId: PEER, signal })) {
      if (change.type === "snapshot") {
        known.clear();
        for (const instances of change.services.values()) for (const one of instances) known.set(keyOf(one), one);
      } else {
        for (const one of change.removed) assert.ok(known.delete(keyOf(one)), "what is removed was there");
        for (const one of change.added) known.set(keyOf(one), one);
        for (const one of change.changed) {
          assert.ok(known.has(keyOf(one)), "what changed was there");
          known.set(keyOf(one), one);
        }
      }
    }
  };
  const over = watch();
  over.catch(() => {});
  return { known, over };
}

const service = fc.constantFrom("a", "b", "c", "Head", "head");
const instance = fc.record({
  node: fc.constantFrom("n1", "n2", "n3"),
  address: fc.constantFrom("10.0.0.1", "10.0.0.2"),
  id: fc.constantFrom("1", "2"),
  status: fc.constantFrom("passing", "critical"),
});
const item: fc.Arbitrary<ImportItem> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .record({
        name: service,
        instances: fc.uniqueArray(instance, { maxLength: 3, selector: ({ node, id }) => `${node}/${id}` }),
      })
      .map(({ name, instances }) =>
        upsert(name, ...instances.map(({ id, ...rest }) => wireInstance(name, { ...rest, id: `${name}-${id}` }))),
      ),
  },
  { weight: 1, arbitrary: fc.subarray(["a", "b", "head"]).map((names) => list(...names)) },
);
const step = fc.record({
  peer: fc.constantFrom(PEER, PEER, OTHER),
  leads: fc.nat({ max: 1 }),
  items: fc.array(item, { minLength: 1, maxLength: 4 }),
  fate: fc.constantFrom("made", "made", "made", "lost", "unanswered"),
  removes: fc.constantFrom(false, false, false, false, true),
});

describe("imports of several processes on one storage", () => {
  it("are followed by those that do not write, and right where another one comes to write", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const inner = memoryStorage();
        let fate = "made";
        const storage = storageWith(inner, {
          async commit(...given) {
            const was = fate;
            fate = "made";
            if (was === "lost") throw new PeeringError("unavailable", "no answer");
            const revision = await inner.commit(...given);
            if (was === "unanswered") throw new PeeringError("unavailable", "no answer");
            return revision;
          },
        });
        const end = new AbortController();
        const stores = [await ImportStore.open(storage), await ImportStore.open(storage)] as const;
        const watches = stores.map((store) => watched(store, end.signal));
        for (const { peer, leads, items, removes, ...given } of steps) {
          const store = stores[leads] ?? stores[0];
          fate = given.fate;
          try {
            if (removes) await store.removePeer(peer);
            else await store.apply(peer, items);
          } catch (error) {
            assert.equal(error instanceof PeeringError && error.code, "unavailable");
          }
        }
        fate = "made";
        const fresh = await ImportStore.open(inner);
        for (const store of stores) {
          await soon(
            () => [PEER, OTHER].every((peer) => store.count(peer).instances === fresh.count(peer).instances),
            "it has followed",
          );
          await store.apply(PEER, []);
          await store.apply(OTHER, []);
          assert.deepEqual(await contents(store), await contents(fresh));
        }
        const there = (await Promise.all(fresh.services(PEER).map(({ name }) => fresh.instances(PEER, name)))).flat();
        for (const { known } of watches) {
          const sort = (all: Iterable<ServiceInstance>): string[] =>
            Array.from(all, (one) =>
              JSON.stringify(one, (_, value) => (typeof value === "bigint" ? `${value}` : value)),
            ).sort();
          await soon(
            () => JSON.stringify(sort(known.values())) === JSON.stringify(sort(there)),
            "the watch has told it",
          );
        }
        end.abort();
        for (const { over } of watches) await over;
        for (const store of [...stores, fresh]) await store[Symbol.asyncDispose]();
      }),
      { numRuns: 60 },
    );
  });

  it("cost a follower the same per write, however much is imported, and no payload is read", async () => {
    const costs: string[] = [];
    for (const size of [100, 400]) {
      const inner = memoryStorage();
      const leader = await ImportStore.open(inner);
      const storage = counted(inner);
      const names = Array.from({ length: size }, (_, index) => `service-${index}`);
      await leader.apply(
        PEER,
        names.map((name, index) => upsert(name, wireInstance(name, { node: `n${index}` }))),
      );
      await using follower = await ImportStore.open(storage);
      assert.equal(storage.work.entries, size + 1, "all rows and one head are read once");
      Object.assign(storage.work, { reads: 0, entries: 0 });
      for (let port = 1; port <= 10; port++) {
        await leader.apply(PEER, [upsert("service-7", wireInstance("service-7", { node: "n7", port }))]);
        await follows(follower, leader);
      }
      costs.push(JSON.stringify(storage.work));
      const [found] = await follower.instances(PEER, "service-7");
      assert.equal(found?.service.port, 10);
      assert.equal(storage.work.entries, 1, "the payload is read when it is asked for");
    }
    assert.deepEqual(costs, Array(2).fill(JSON.stringify({ reads: 0, entries: 0, commits: 0 })));
  });

  it("are not looked at again by the one that wrote them", async () => {
    const inner = memoryStorage();
    let [told, looks] = [0, 0];
    const storage = storageWith(inner, {
      async *changes(...given) {
        for await (const change of inner.changes(...given)) {
          told++;
          if (change.type === "reset") yield change;
          else {
            yield {
              type: "changed",
              revision: change.revision,
              get entries() {
                looks++;
                return change.entries;
              },
              get removed() {
                return change.removed;
              },
            };
          }
        }
      },
    });
    await using store = await ImportStore.open(storage);
    for (let port = 1; port <= 20; port++) {
      const { results } = await store.apply(PEER, [upsert("web", wireInstance("web", { port }))]);
      assert.deepEqual(results, [undefined]);
      await setImmediate();
    }
    assert.ok(told > 0);
    assert.equal(looks, 0);
    const other = await ImportStore.open(inner);
    await other.apply(PEER, [upsert("web", wireInstance("web", { port: 99 }))]);
    await soon(() => store.index(PEER) === other.index(PEER), "it has followed");
    assert.equal(looks, 1, "it does look at what others wrote");
  });

  it("are not decided on stale memory: a service that seems to be stored is looked for in the storage", async () => {
    const inner = memoryStorage();
    // It hears of nothing by itself.
    const deaf = storageWith(inner, {
      changes: (prefix, after, signal) =>
        signal.aborted || isDeaf ? forever(signal) : inner.changes(prefix, after, signal),
    });
    let isDeaf = true;
    const next = await ImportStore.open(deaf);
    const [one, two] = [1, 2].map((port) => upsert("web", wireInstance("web", { port })));
    assert.ok(one !== undefined && two !== undefined);
    await next.apply(PEER, [one]);
    const leader = await ImportStore.open(inner);
    await leader.apply(PEER, [two, upsert("db", wireInstance("db"))]);
    isDeaf = false;
    // The exporter says again what it said first.
    await next.apply(PEER, [one, list("web")]);
    assert.deepEqual(await contents(next), await contents(await ImportStore.open(inner)));
    assert.equal((await next.instances(PEER, "web"))[0]?.service.port, 1);
    assert.deepEqual(next.count(PEER), { services: 1, instances: 1 });
  });

  it("count against the limits of a follower once it writes, and what goes is free again", async () => {
    const storage = memoryStorage();
    const limits = { servicesPerPeer: 2 };
    const leader = await ImportStore.open(storage, { limits });
    await using next = await ImportStore.open(storage, { limits });
    await leader.apply(PEER, [upsert("a", wireInstance("a")), upsert("b", wireInstance("b"))]);
    await follows(next, leader);
    const c = upsert("c", wireInstance("c"));
    const [refusal] = (await next.apply(PEER, [c])).results;
    assert.equal(refusal?.code, "resource-exhausted");
    await leader.apply(PEER, [upsert("a")]);
    await follows(next, leader);
    assert.deepEqual((await next.apply(PEER, [c])).results, [undefined]);
  });

  it("go with their peering for a follower, too, and nothing of them stays in the storage", async () => {
    const storage = memoryStorage();
    const leader = await ImportStore.open(storage);
    await using follower = await ImportStore.open(storage);
    await leader.apply(PEER, [upsert("a", wireInstance("a"))]);
    await leader.apply(OTHER, [upsert("a", wireInstance("a"))]);
    await follows(follower, leader);
    await leader.removePeer(PEER);
    await soon(() => follower.count(PEER).services === 0, "they are gone");
    assert.equal(follower.count(OTHER).services, 1);
    await follower.removePeer(PEER);
    // It may come back under the same id.
    await follower.apply(PEER, [upsert("b", wireInstance("b"))]);
    await follows(leader, follower);
    assert.deepEqual(await contents(leader), await contents(await ImportStore.open(storage)));
    for (const peer of [PEER, OTHER]) await leader.removePeer(peer);
    assert.deepEqual((await storage.read([])).entries, []);
  });

  it("that are newer in the storage than in memory are no damage", async () => {
    const inner = memoryStorage();
    const incidents = new Incidents();
    let hold = Promise.resolve();
    let readers = 0;
    const follower = await ImportStore.open(
      storageWith(inner, {
        async *changes(...given) {
          const isFollowing = ++readers === 1;
          for await (const change of inner.changes(...given)) {
            if (isFollowing) await hold;
            yield change;
          }
        },
      }),
      { incidents },
    );
    const leader = await ImportStore.open(inner);
    await leader.apply(PEER, [upsert("web", wireInstance("web", { port: 1 }))]);
    await follows(follower, leader);
    let release = (): void => {};
    hold = new Promise((resolve) => {
      release = resolve;
    });
    await leader.apply(PEER, [upsert("web", wireInstance("web", { port: 2 }))]);
    const [found] = await follower.instances(PEER, "web");
    assert.equal(found?.service.port, 2);
    release();
    assert.deepEqual([...incidents.counts()], []);
  });

  it("are sent from the beginning where the former state is not known, and as changes where it is", async () => {
    for (const keptBytes of [0, 1024 * 1024]) {
      const storage = memoryStorage();
      const leader = await ImportStore.open(storage);
      const end = new AbortController();
      await using follower = await ImportStore.open(storage, { keptBytes });
      await leader.apply(PEER, [upsert("a", wireInstance("a", { port: 1 })), upsert("b", wireInstance("b"))]);
      await follows(follower, leader);
      const told: string[] = [];
      const watching = (async () => {
        for await (const change of follower.watch({ peeringId: PEER, signal: end.signal })) {
          if (change.type === "snapshot") told.push(`snapshot ${[...change.services.keys()].sort().join()}`);
          else told.push(`${change.service} ${change.added.length} ${change.changed.length} ${change.removed.length}`);
        }
      })();
      await soon(() => told.length === 1, "it begins");
      await leader.apply(PEER, [upsert("a", wireInstance("a", { port: 2 }))]);
      await soon(() => told.length === 2, "it tells the change");
      await leader.apply(PEER, [upsert("c", wireInstance("c"))]);
      await soon(() => told.length === 3, "it tells what is new");
      await leader.apply(PEER, [upsert("b")]);
      await soon(() => told.length === 4, "it tells what is gone");
      const parts: string[] = [];
      for await (const part of follower.watchParts({ peeringId: PEER, signal: end.signal }, 10)) {
        parts.push(part.type);
        if (part.type === "complete" && parts.length <= 3) {
          await leader.apply(PEER, [upsert("a", wireInstance("a", { port: 3 }))]);
        } else if (part.type === "complete" || parts.length === 4) break;
      }
      assert.deepEqual(
        parts.slice(3),
        keptBytes === 0 ? ["again"] : ["part"],
        "in parts, what was told is taken back, or changed",
      );
      end.abort();
      await watching;
      assert.deepEqual(
        told.slice(0, 4),
        keptBytes === 0
          ? ["snapshot a,b", "snapshot a,b", "c 1 0 0", "snapshot a,c"]
          : ["snapshot a,b", "a 0 1 0", "c 1 0 0", "b 0 0 1"],
      );
    }
  });

  it("that are damaged are left to the one that fetches them again", async () => {
    const storage = memoryStorage();
    const filled = await ImportStore.open(storage);
    await filled.apply(PEER, [upsert("web", wireInstance("web"))]);
    await filled[Symbol.asyncDispose]();
    const key = ["imports", PEER, "web"];
    await storage.commit([{ key, value: Buffer.from("damaged") }]);
    const incidents = new Incidents();
    await using follower = await ImportStore.open(storage, { incidents, mayDelete: () => false });
    assert.deepEqual([follower.count(PEER).services, incidents.counts().get("import-damaged")], [0, 1]);
    assert.equal((await storage.read(key)).entries.length, 1);
    const other = memoryStorage({ from: await storage.read([]) });
    await using cleaning = await ImportStore.open(other, { mayDelete: () => false });
    await cleaning.removePeer(PEER);
    assert.deepEqual((await other.read([])).entries, [], "they go with their peering");
    await using leader = await ImportStore.open(storage);
    assert.equal(leader.count(PEER).services, 0);
    assert.equal((await storage.read(key)).entries.length, 0);
  });

  it("of an earlier version, which had no head, are held and followed", async () => {
    const storage = memoryStorage();
    const former = memoryStorage();
    const filled = await ImportStore.open(former);
    await filled.apply(PEER, [upsert("head", wireInstance("head")), upsert("web", wireInstance("web"))]);
    const rows = (await former.read(["imports", PEER])).entries;
    await storage.commit(rows.map(({ key, value }) => ({ key, value })));
    const stores = [await ImportStore.open(storage), await ImportStore.open(storage)] as const;
    await stores[0].apply(PEER, [list("head")]);
    await soon(() => stores[1].count(PEER).services === 1, "it is followed");
    assert.deepEqual(await contents(stores[1]), await contents(await ImportStore.open(storage)));
  });
});

async function* forever(signal: AbortSignal): AsyncGenerator<never, void> {
  await new Promise((resolve) => signal.addEventListener("abort", resolve));
}
