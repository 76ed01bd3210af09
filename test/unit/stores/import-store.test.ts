import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { openLevel } from "../../../src/storage/level.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { type ImportChange, type ImportItem, ImportStore } from "../../../src/stores/import-store.js";
import { storageWith } from "../../support/storage.js";
import { type WireInstance, wireInstance } from "../payload/import-fixtures.js";
import { ManualClock } from "../trust/support.js";
import { list, OTHER, PEER, upsert } from "./import-items.js";

async function applied(store: ImportStore, ...items: readonly ImportItem[]): Promise<void> {
  const { results } = await store.apply(PEER, items);
  assert.deepEqual(
    results,
    items.map(() => undefined),
  );
}

/** Every instance of a peer, in few words: `node/id@address:port` and its checks. */
async function view(store: ImportStore, peer = PEER): Promise<Record<string, readonly string[]>> {
  const found: Record<string, readonly string[]> = {};
  for (const { name, instances } of store.services(peer)) {
    const decoded = await store.instances(peer, name);
    assert.equal(decoded.length, instances);
    found[name] = decoded.map(describeInstance).sort();
  }
  return found;
}

function describeInstance({ node, service, checks }: ServiceInstance): string {
  const states = checks.map(({ checkId, status }) => `${checkId}=${status}`).sort();
  return [`${node.name}/${service.id}@${node.address}:${service.port}`, ...states].join(" ");
}

async function nodeNames(store: ImportStore, peer = PEER): Promise<readonly string[]> {
  return (await store.nodes(peer)).map(({ node }) => node.name);
}

/** Counts commits, and fails them when told to. */
function observed(inner: Storage): Storage & { commits: number; fail: PeeringError | undefined } {
  const self = {
    ...storageWith(inner, {
      async commit(...given) {
        if (self.fail !== undefined) throw self.fail;
        self.commits++;
        return inner.commit(...given);
      },
    }),
    commits: 0,
    fail: undefined as PeeringError | undefined,
  };
  return self;
}

describe("applying", () => {
  it("two instances on one node, and on two (ch1 cases 96, 97)", async () => {
    const store = await ImportStore.open(memoryStorage());
    await applied(store, upsert("web", wireInstance("web", { id: "a" }), wireInstance("web", { id: "b" })));
    await applied(store, upsert("api", wireInstance("api", { node: "n1" }), wireInstance("api", { node: "n2" })));
    assert.deepEqual(await view(store), {
      api: ["n1/api-1@10.0.0.1:80", "n2/api-1@10.0.0.1:80"],
      web: ["n1/a@10.0.0.1:80", "n1/b@10.0.0.1:80"],
    });
    assert.deepEqual(await nodeNames(store), ["n1", "n2"]);
  });

  it("an empty payload takes that name's instances, and nodes nothing else is on (ch4 cases 45, 46, ch1 cases 98, 99)", async () => {
    const store = await ImportStore.open(memoryStorage());
    const nodeChecks = { disk: "passing" };
    await applied(
      store,
      upsert("api", wireInstance("api", { nodeChecks }), wireInstance("api", { node: "n2", nodeChecks })),
      upsert("redis", wireInstance("redis", { nodeChecks })),
    );
    await applied(store, upsert("api"));
    assert.deepEqual(await view(store), { redis: ["n1/redis-1@10.0.0.1:80 disk=passing"] });
    assert.deepEqual(await nodeNames(store), ["n1"]);
    await applied(store, upsert("redis"));
    assert.deepEqual(await nodeNames(store), []);
    assert.deepEqual(store.services(PEER), []);
  });

  it("instances and checks that are missing are gone, the rest stays (ch4 cases 47, 49, ch1 cases 101, 103)", async () => {
    const store = await ImportStore.open(memoryStorage());
    const nodeChecks = { disk: "passing" };
    await applied(
      store,
      upsert(
        "web",
        wireInstance("web", { id: "a", status: "passing", nodeChecks }),
        wireInstance("web", { id: "b", status: "passing", nodeChecks }),
      ),
    );
    await applied(store, upsert("web", wireInstance("web", { id: "a", nodeChecks })));
    assert.deepEqual(await view(store), { web: ["n1/a@10.0.0.1:80 disk=passing"] });
    await applied(store, upsert("web", wireInstance("web", { id: "c", status: "warning", nodeChecks })));
    assert.deepEqual(await view(store), { web: ["n1/c@10.0.0.1:80 c:overall-check=warning disk=passing"] });
  });

  it("a node check absent from one payload is gone for every service of the node (ch4 case 48, ch1 case 102)", async () => {
    const store = await ImportStore.open(memoryStorage());
    const nodeChecks = { disk: "passing" };
    await applied(
      store,
      upsert("web", wireInstance("web", { status: "passing", nodeChecks })),
      upsert("db", wireInstance("db", { status: "passing", nodeChecks })),
    );
    await applied(store, upsert("web", wireInstance("web", { status: "passing" })));
    assert.deepEqual(await view(store), {
      db: ["n1/db-1@10.0.0.1:80 db-1:overall-check=passing"],
      web: ["n1/web-1@10.0.0.1:80 web-1:overall-check=passing"],
    });
  });

  it("a node is as the last committed entry that holds it describes it", async () => {
    const storage = memoryStorage();
    const store = await ImportStore.open(storage);
    await applied(store, upsert("a", wireInstance("a", { address: "1" })));
    await applied(store, upsert("b", wireInstance("b", { address: "2", nodeChecks: { disk: "warning" } })));
    await applied(store, upsert("c", wireInstance("c", { address: "3" })));
    const expectAddress = async (address: string, checks = ""): Promise<void> => {
      for (const opened of [store, await ImportStore.open(storage)]) {
        for (const { name } of opened.services(PEER)) {
          const [found] = await opened.instances(PEER, name);
          assert.equal(found && describeInstance(found), `n1/${name}-1@${address}:80${checks}`);
        }
        assert.deepEqual(
          (await opened.nodes(PEER)).map(({ node }) => node.address),
          [address],
        );
      }
    };
    await expectAddress("3");
    await applied(store, upsert("c"));
    await expectAddress("2", " disk=warning");
    await applied(store, upsert("b", wireInstance("b", { node: "n2" })));
    await applied(store, upsert("b"));
    await expectAddress("1");
  });

  it("peers, and local data, never touch each other (ch4 case 50)", async () => {
    const storage = memoryStorage();
    const local = { key: ["catalog", "node", "n1"], value: Uint8Array.of(1) };
    await storage.commit([local]);
    const store = await ImportStore.open(storage);
    await store.apply(OTHER, [upsert("web", wireInstance("web", { address: "other" }))]);
    await applied(store, upsert("web", wireInstance("web", { address: "ours" })));
    assert.deepEqual(await view(store, OTHER), { web: ["n1/web-1@other:80"] });
    await applied(store, list());
    await store.removePeer(PEER);
    assert.deepEqual(await view(store), {});
    assert.deepEqual(await view(store, OTHER), { web: ["n1/web-1@other:80"] });
    assert.equal((await storage.read(["catalog"])).entries.length, 1);
  });

  it("a list removes the services that it does not name, and spares its sidecars (ch4 case 51, ch1 cases 100, 105)", async () => {
    const store = await ImportStore.open(memoryStorage());
    const names = ["web", "web-sidecar-proxy", "DB", "db-sidecar-proxy"];
    await applied(store, ...names.map((name) => upsert(name, wireInstance(name))));
    await applied(store, list("Db", "unknown"));
    assert.deepEqual(Object.keys(await view(store)), ["DB", "db-sidecar-proxy"]);
    await applied(store, list());
    assert.deepEqual(await view(store), {});
    assert.deepEqual(await nodeNames(store), []);
  });

  it("the list before the services, after them, or among them gives the same (ch4 case 52)", async () => {
    const services = ["web", "db", "api"].map((name) => upsert(name, wireInstance(name)));
    const names = list("web", "db", "api");
    const orders = [[names, ...services], [...services, names], services.flatMap((service) => [service, names])];
    for (const items of orders) {
      const store = await ImportStore.open(memoryStorage());
      await applied(store, ...items);
      assert.deepEqual(Object.keys(await view(store)), ["api", "db", "web"]);
    }
  });

  it("an unchanged service is not written, also after a restart and with maps in another order (ch4 cases 53, 56, ch1 cases 104, 106)", async () => {
    const storage = observed(memoryStorage());
    const store = await ImportStore.open(storage);
    const withMeta = (...keys: readonly string[]): WireInstance => {
      const plain = wireInstance("web", { status: "passing" });
      return { ...plain, Service: { ...plain.Service, Meta: Object.fromEntries(keys.map((key) => [key, key])) } };
    };
    await applied(store, upsert("web", withMeta("a", "b", "c")), upsert("db", wireInstance("db")));
    const before = store.services(PEER);
    assert.equal(storage.commits, 1);
    for (const opened of [store, await ImportStore.open(storage)]) {
      await applied(
        opened,
        list("web", "db"),
        upsert("web", withMeta("a", "b", "c")),
        upsert("db", wireInstance("db")),
      );
      await applied(opened, upsert("web", withMeta("c", "a", "b")), upsert("none"));
      assert.deepEqual(opened.services(PEER), before);
    }
    assert.equal(storage.commits, 1);
    await applied(store, list("db"));
    assert.deepEqual(Object.keys(await view(store)), ["db"]);
    assert.equal(storage.commits, 2);
  });

  it("a node and a service spelled in another way stay one (ch4 case 58)", async () => {
    const store = await ImportStore.open(memoryStorage());
    await applied(store, upsert("Web", wireInstance("web", { node: "Node" })));
    await applied(store, upsert("web", wireInstance("WEB", { node: "NODE", id: "WEB-1" })));
    assert.deepEqual(await view(store), { WEB: ["NODE/WEB-1@10.0.0.1:80"] });
    assert.deepEqual(await nodeNames(store), ["NODE"]);
    assert.equal((await store.instances(PEER, "weB")).length, 1);
  });

  it("a refused payload is not stored; those that came with it are (ch4 cases 54, 55)", async () => {
    const storage = observed(memoryStorage());
    const store = await ImportStore.open(storage);
    await applied(store, upsert("web", wireInstance("web", { address: "before" })));
    const { results } = await store.apply(PEER, [
      upsert("db", wireInstance("db")),
      upsert("web", wireInstance("web", { id: "good" }), { Node: { Node: "n1" } }),
      { type: "service", name: "web", value: Uint8Array.of(0x0a, 0x7f) },
      upsert("api", wireInstance("api")),
    ]);
    assert.deepEqual(
      results.map((error) => error?.code),
      [undefined, "invalid-message", "invalid-message", undefined],
    );
    assert.match(results[1]?.message ?? "", /^did not increment imported services count for service="web": failed to /);
    assert.match(results[2]?.message ?? "", /^failed to unmarshal resource: /);
    assert.deepEqual(await view(store), {
      api: ["n1/api-1@10.0.0.1:80"],
      db: ["n1/db-1@10.0.0.1:80"],
      web: ["n1/web-1@10.0.0.1:80"],
    });
    assert.equal(storage.commits, 2);
  });

  it("beyond the services of one peer, a new one is refused and known ones go on", async () => {
    const store = await ImportStore.open(memoryStorage(), { limits: { servicesPerPeer: 2 } });
    const { results } = await store.apply(
      PEER,
      ["a", "b", "c"].map((name) => upsert(name, wireInstance(name))),
    );
    assert.deepEqual(
      results.map((error) => error?.code),
      [undefined, undefined, "resource-exhausted"],
    );
    await applied(store, upsert("a", wireInstance("a", { port: 81 })), upsert("b"), upsert("c", wireInstance("c")));
    assert.deepEqual(Object.keys(await view(store)), ["a", "c"]);
  });

  it("a qualified resource id is the service its instances name; emptied, it finds it again", async () => {
    const store = await ImportStore.open(memoryStorage());
    await applied(store, upsert("part/ns/web", wireInstance("web")), upsert("a/b/c", wireInstance("a/b/c")));
    await applied(store, list("part/ns/web", "a/b/c"));
    assert.deepEqual(Object.keys(await view(store)), ["a/b/c", "web"]);
    await applied(store, upsert("part/ns/web"), upsert("a/b/c"));
    assert.deepEqual(await view(store), {});
  });
});

describe("storage at fault", () => {
  it("a failed expectation is a conflict, and changes nothing", async () => {
    const storage = memoryStorage();
    const store = await ImportStore.open(storage);
    await applied(store, upsert("web", wireInstance("web")));
    const before = await storage.read([]);
    const gone = { key: ["gate"], revision: 1n };
    await assert.rejects(
      store.apply(PEER, [upsert("db", wireInstance("db")), list()], [gone]),
      (error) => error instanceof PeeringError && error.code === "conflict",
    );
    assert.deepEqual(await storage.read([]), before);
    assert.deepEqual(Object.keys(await view(store)), ["web"]);
  });

  it("a failed commit throws, changes nothing, and can be tried again", async () => {
    const storage = observed(memoryStorage());
    const store = await ImportStore.open(storage);
    await applied(store, upsert("web", wireInstance("web")));
    storage.fail = new PeeringError("storage-failed", "no room");
    await assert.rejects(store.apply(PEER, [upsert("web"), upsert("db", wireInstance("db"))]), storage.fail);
    await assert.rejects(store.removePeer(PEER), storage.fail);
    assert.deepEqual(Object.keys(await view(store)), ["web"]);
    storage.fail = undefined;
    await applied(store, upsert("web"), upsert("db", wireInstance("db")));
    assert.deepEqual(Object.keys(await view(store)), ["db"]);
  });

  it("a commit of unknown fate that did happen is seen by the next reader, and no harm to the next writer", async () => {
    const inner = memoryStorage();
    const store = await ImportStore.open({
      ...observed(inner),
      async commit(writes, expect) {
        await inner.commit(writes, expect);
        throw new PeeringError("unavailable", "no answer");
      },
    });
    const healthy = await ImportStore.open(inner);
    await applied(healthy, upsert("web", wireInstance("web", { address: "1" })));
    const known = await ImportStore.open({
      ...observed(inner),
      async commit(writes, expect) {
        await inner.commit(writes, expect);
        throw new PeeringError("unavailable", "no answer");
      },
    });
    await assert.rejects(known.apply(PEER, [upsert("web", wireInstance("web", { address: "2" }))]));
    const [found] = await known.instances(PEER, "web");
    assert.equal(found?.node.address, "2");
    await assert.rejects(known.apply(PEER, [upsert("web")]));
    assert.deepEqual(await known.instances(PEER, "web"), []);
    assert.deepEqual(known.services(PEER), []);
    assert.deepEqual(store.services(PEER), []);
  });

  it("a commit of unknown fate is found out without a reader, as soon as the storage can be read", async () => {
    const inner = memoryStorage();
    const clock = new ManualClock(0);
    let fails = false;
    const storage = storageWith(inner, {
      async commit(...given) {
        await inner.commit(...given);
        fails = true;
        throw new PeeringError("unavailable", "no answer");
      },
      async *changes(...given) {
        for await (const change of inner.changes(...given)) {
          if (fails) throw new PeeringError("storage-failed", "it cannot be read");
          yield change;
        }
      },
    });
    await using store = await ImportStore.open(storage, { clock });
    await assert.rejects(store.apply(PEER, [upsert("web", wireInstance("web"))]), { code: "unavailable" });
    await clock.advance(10_000);
    assert.equal(store.count(PEER).services, 0);
    fails = false;
    for (let second = 0; second < 60; second++) await clock.advance(1_000);
    assert.equal(store.count(PEER).services, 1);
    assert.equal(clock.pending, 0);
  });

  it("removing a peer also removes imports of a commit whose answer was lost (I17)", async () => {
    const inner = memoryStorage();
    const lost = new PeeringError("unavailable", "the answer was lost");
    let losing = false;
    const storage = storageWith(inner, {
      async commit(...given) {
        const revision = await inner.commit(...given);
        if (losing) throw lost;
        return revision;
      },
    });
    const store = await ImportStore.open(storage);
    await applied(store, upsert("web", wireInstance("web")));
    losing = true;
    await assert.rejects(store.apply(PEER, [upsert("db", wireInstance("db"))]), lost);
    losing = false;
    await store.removePeer(PEER);
    assert.deepEqual((await inner.read([])).entries, []);
  });

  it("removing a peer takes bounded commits, goes on where it stopped, and is nothing when there is nothing", async () => {
    const storage = observed(memoryStorage());
    const store = await ImportStore.open(storage);
    const names = Array.from({ length: 2500 }, (_, index) => `service-${index}`);
    await applied(store, ...names.map((name) => upsert(name, wireInstance(name))));
    assert.equal(storage.commits, 1);
    await store.removePeer(PEER);
    assert.equal(storage.commits, 5);
    await store.removePeer(PEER);
    await store.removePeer("unknown");
    assert.equal(storage.commits, 5);
    assert.deepEqual((await storage.read([])).entries, []);
    assert.deepEqual(await nodeNames(store), []);
  });

  it("on disk: opened again, it is as it was", async () => {
    const directory = await mkdtemp(join(tmpdir(), "peerage-imports-"));
    try {
      const items = [
        upsert("web", wireInstance("web", { status: "passing", nodeChecks: { disk: "passing" } })),
        upsert("db", wireInstance("db", { node: "n2" }), wireInstance("db", { node: "n1", id: "x" })),
      ];
      let before: unknown;
      {
        await using storage = await openLevel(directory);
        const store = await ImportStore.open(storage);
        await applied(store, ...items);
        before = [store.services(PEER), await view(store), await store.nodes(PEER)];
      }
      await using storage = await openLevel(directory);
      const store = await ImportStore.open(storage);
      assert.deepEqual([store.services(PEER), await view(store), await store.nodes(PEER)], before);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});

describe("watching", () => {
  function watching(
    store: ImportStore,
    service?: string,
  ): { next(): Promise<ImportChange | undefined>; abort(): void; iterator: AsyncIterator<ImportChange> } {
    const controller = new AbortController();
    const options = { peeringId: PEER, signal: controller.signal, ...(service === undefined ? {} : { service }) };
    const iterator = store.watch(options)[Symbol.asyncIterator]();
    return {
      iterator,
      async next() {
        const { value, done } = await iterator.next();
        return done === true ? undefined : value;
      },
      abort: () => controller.abort(),
    };
  }

  function summary(change: ImportChange | undefined): unknown {
    if (change === undefined) return undefined;
    const texts = (instances: readonly ServiceInstance[]): readonly string[] => instances.map(describeInstance).sort();
    if (change.type === "snapshot") {
      return Object.fromEntries([...change.services].map(([name, instances]) => [name, texts(instances)]));
    }
    const { service, added, changed, removed } = change;
    return { service, added: texts(added), changed: texts(changed), removed: texts(removed) };
  }

  it("yields the present services first, also when there are none, then differences", async () => {
    const store = await ImportStore.open(memoryStorage());
    const watch = watching(store);
    assert.deepEqual(summary(await watch.next()), {});
    const added = watch.next();
    await applied(store, upsert("web", wireInstance("web", { id: "a" }), wireInstance("web", { id: "b" })));
    assert.deepEqual(summary(await added), {
      service: "web",
      added: ["n1/a@10.0.0.1:80", "n1/b@10.0.0.1:80"],
      changed: [],
      removed: [],
    });
    const later = watching(store);
    assert.deepEqual(summary(await later.next()), { web: ["n1/a@10.0.0.1:80", "n1/b@10.0.0.1:80"] });
    const changes = [watch.next(), later.next()];
    await applied(store, upsert("web", wireInstance("web", { id: "a", port: 81 }), wireInstance("web", { id: "c" })));
    for (const change of changes) {
      assert.deepEqual(summary(await change), {
        service: "web",
        added: ["n1/c@10.0.0.1:80"],
        changed: ["n1/a@10.0.0.1:81"],
        removed: ["n1/b@10.0.0.1:80"],
      });
    }
    const gone = watch.next();
    await applied(store, list());
    assert.deepEqual(summary(await gone), {
      service: "web",
      added: [],
      changed: [],
      removed: ["n1/a@10.0.0.1:81", "n1/c@10.0.0.1:80"],
    });
  });

  it("of one service, yields nothing of others", async () => {
    const store = await ImportStore.open(memoryStorage());
    await applied(store, upsert("web", wireInstance("web")), upsert("db", wireInstance("db", { node: "n2" })));
    const watch = watching(store, "WEB");
    assert.deepEqual(summary(await watch.next()), { web: ["n1/web-1@10.0.0.1:80"] });
    const change = watch.next();
    await applied(store, upsert("db", wireInstance("db", { node: "n2", port: 81 })));
    await store.apply(OTHER, [upsert("web", wireInstance("web", { port: 82 }))]);
    await applied(store, upsert("web", wireInstance("web", { port: 83 })));
    assert.deepEqual(summary(await change), {
      service: "web",
      added: [],
      changed: ["n1/web-1@10.0.0.1:83"],
      removed: [],
    });
  });

  it("a node that changes with one service changes the others on it", async () => {
    const store = await ImportStore.open(memoryStorage());
    await applied(store, upsert("web", wireInstance("web")), upsert("db", wireInstance("db")));
    const watch = watching(store, "db");
    await watch.next();
    const change = watch.next();
    await applied(store, upsert("web", wireInstance("web", { address: "moved" })));
    assert.deepEqual(summary(await change), {
      service: "db",
      added: [],
      changed: ["n1/db-1@moved:80"],
      removed: [],
    });
  });

  it("a slow consumer gets the newest state, and of states that came and went nothing", async () => {
    const store = await ImportStore.open(memoryStorage());
    const watch = watching(store);
    await watch.next();
    await applied(store, upsert("brief", wireInstance("brief")));
    for (let port = 1; port <= 50; port++) await applied(store, upsert("web", wireInstance("web", { port })));
    await applied(store, upsert("brief"));
    assert.deepEqual(summary(await watch.next()), {
      service: "web",
      added: ["n1/web-1@10.0.0.1:50"],
      changed: [],
      removed: [],
    });
    const next = watch.next();
    await applied(store, upsert("last", wireInstance("last")));
    assert.deepEqual(summary(await next), {
      service: "last",
      added: ["n1/last-1@10.0.0.1:80"],
      changed: [],
      removed: [],
    });
  });

  it("whatever happens meanwhile, snapshot and differences add up to the newest state, in order of revisions", async () => {
    const store = await ImportStore.open(memoryStorage());
    const seen = new Map<string, Map<string, string>>();
    const watch = watching(store);
    let revision = -1n;
    const take = (change: ImportChange | undefined): void => {
      assert.ok(change !== undefined, "the watch ended");
      assert.ok(change.revision >= revision);
      revision = change.revision;
      const keyOf = ({ node, service }: ServiceInstance): string => `${node.name}/${service.id}`;
      if (change.type === "snapshot") {
        for (const [name, instances] of change.services) {
          seen.set(name, new Map(instances.map((each) => [keyOf(each), describeInstance(each)])));
        }
        return;
      }
      const known = seen.get(change.service) ?? new Map<string, string>();
      for (const each of change.removed) assert.ok(known.delete(keyOf(each)));
      for (const each of change.added) assert.ok(!known.has(keyOf(each)));
      for (const each of change.changed) assert.ok(known.has(keyOf(each)));
      for (const each of [...change.added, ...change.changed]) known.set(keyOf(each), describeInstance(each));
      if (known.size === 0) seen.delete(change.service);
      else seen.set(change.service, known);
    };
    const reading = (async () => {
      for (;;) {
        take(await watch.next());
        if (seen.has("end")) return;
      }
    })();
    for (let round = 0; round < 200; round++) {
      const name = `s${(round * 7) % 5}`;
      const instances = Array.from({ length: round % 4 }, (_, index) =>
        wireInstance(name, {
          node: `n${(round + index) % 3}`,
          id: `${name}-${index}`,
          port: round,
          address: `${round % 6}`,
        }),
      );
      await applied(store, upsert(name, ...instances), ...(round % 50 === 49 ? [list("s1", "s2")] : []));
    }
    await applied(store, upsert("end", wireInstance("end", { node: "last" })));
    await reading;
    const found = Object.fromEntries([...seen].map(([name, instances]) => [name, [...instances.values()].sort()]));
    assert.deepEqual(found, await view(store));
  });

  it("ends when aborted, waiting or not, and when the store or the storage is closed", async () => {
    const storage = memoryStorage();
    const store = await ImportStore.open(storage);
    const aborted = watching(store);
    await aborted.next();
    const waiting = aborted.next();
    aborted.abort();
    assert.equal(await waiting, undefined);
    const before = watching(store);
    before.abort();
    assert.equal(await before.next(), undefined);

    const unread = watching(store);
    await unread.next();
    await applied(store, upsert("web", wireInstance("web")));
    const open = watching(store);
    await open.next();
    const last = open.next();
    const cold = await ImportStore.open(storage);
    await storage[Symbol.asyncDispose]();
    // Views that were kept for it need no storage.
    assert.equal((await unread.next())?.type, "difference");
    const nothing = unread.next();
    assert.equal(await watching(cold).next(), undefined);
    await store[Symbol.asyncDispose]();
    assert.equal(await last, undefined);
    assert.equal(await nothing, undefined);
    assert.equal(await watching(store).next(), undefined);
  });
});

describe("against a catalog that registers and deregisters record by record", () => {
  /** An importer as Consul's: it writes record by record. */
  class RecordByRecord {
    readonly nodes = new Map<string, string>();
    /** By node, then id: name and port. */
    readonly instances = new Map<string, { node: string; id: string; name: string; port: number }>();
    /** By node, then check id: the service id, empty for the node's own, and status. */
    readonly checks = new Map<string, { node: string; id: string; serviceId: string; status: string }>();

    applyService(name: string, sent: readonly Sent[]): void {
      const stored = [...this.instances.values()].filter((instance) => instance.name === name);
      const seenChecks = new Map(
        stored.map(({ node, id }) => [
          `${node}/${id}`,
          [...this.checks.values()].filter((check) => check.node === node),
        ]),
      );
      for (const { node, address, id, port, checks } of sent) {
        this.nodes.set(node, address);
        this.instances.set(`${node}/${id}`, { node, id, name, port });
        for (const [check, { serviceId, status }] of Object.entries(checks)) {
          this.checks.set(`${node}/${check}`, { node, id: check, serviceId, status });
        }
      }
      const unused = new Set<string>();
      const nodeChecks = new Set<string>();
      for (const { node, id } of stored) {
        const onNode = sent.filter((instance) => instance.node === node);
        const still = onNode.find((instance) => instance.id === id);
        if (still === undefined) {
          this.instances.delete(`${node}/${id}`);
          for (const [key, check] of this.checks)
            if (check.node === node && check.serviceId === id) this.checks.delete(key);
          if (onNode.length === 0) unused.add(node);
          continue;
        }
        for (const check of seenChecks.get(`${node}/${id}`) ?? []) {
          if (Object.hasOwn(still.checks, check.id)) continue;
          if (check.serviceId === "") nodeChecks.add(`${node}/${check.id}`);
          else if (check.serviceId === id) this.checks.delete(`${node}/${check.id}`);
        }
      }
      for (const key of nodeChecks) this.checks.delete(key);
      for (const node of unused) {
        if ([...this.instances.values()].some((instance) => instance.node === node)) continue;
        this.nodes.delete(node);
        for (const [key, check] of this.checks) if (check.node === node) this.checks.delete(key);
      }
    }

    applyList(names: readonly string[]): void {
      const allowed = new Set(names.flatMap((name) => [name, `${name}-sidecar-proxy`]));
      for (const name of new Set([...this.instances.values()].map((instance) => instance.name))) {
        if (!allowed.has(name)) this.applyService(name, []);
      }
    }

    view(): Record<string, readonly string[]> {
      const view: Record<string, string[]> = {};
      for (const { node, id, name, port } of this.instances.values()) {
        const checks = [...this.checks.values()]
          .filter((check) => check.node === node && (check.serviceId === "" || check.serviceId === id))
          .map((check) => `${check.id}=${check.status}`)
          .sort();
        view[name] ??= [];
        view[name].push([`${node}/${id}@${this.nodes.get(node)}:${port}`, ...checks].join(" "));
      }
      return Object.fromEntries(Object.entries(view).map(([name, texts]) => [name, texts.sort()]));
    }
  }

  interface Sent {
    readonly node: string;
    readonly address: string;
    readonly id: string;
    readonly port: number;
    readonly checks: Readonly<Record<string, { readonly serviceId: string; readonly status: string }>>;
  }

  const status = fc.constantFrom("passing", "warning", "critical");
  const placement = fc.record({
    node: fc.constantFrom("n1", "n2", "n3"),
    number: fc.nat(2),
    port: fc.integer({ min: 1, max: 3 }),
    check: fc.option(status, { nil: undefined }),
  });
  const serviceName = fc.constantFrom("web", "db", "web-sidecar-proxy", "api");
  /** Changes at the exporter; it sends each service it concerns, in any order and split into batches in any way. */
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        type: fc.constant("service" as const),
        name: serviceName,
        placements: fc.array(placement, { maxLength: 4 }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        type: fc.constant("node" as const),
        node: fc.constantFrom("n1", "n2", "n3"),
        address: fc.constantFrom("1", "2"),
        checks: fc.dictionary(fc.constantFrom("disk", "load"), status, { maxKeys: 2 }),
        rotate: fc.nat(3),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ type: fc.constant("list" as const), names: fc.subarray(["web", "db", "api"]) }),
    },
    { weight: 1, arbitrary: fc.record({ type: fc.constant("again" as const), rotate: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant("restart" as const) }) },
  );

  it("any sequence of payloads and lists ends in the same records", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 15 }), async (steps) => {
        const storage = memoryStorage();
        let store = await ImportStore.open(storage);
        const reference = new RecordByRecord();
        const nodes = new Map<string, { address: string; checks: Readonly<Record<string, string>> }>();
        const services = new Map<
          string,
          Map<string, { node: string; number: number; port: number; check: string | undefined }>
        >();
        const sentOf = (name: string): readonly Sent[] =>
          [...(services.get(name)?.values() ?? [])].map(({ node, number, port, check }) => {
            const id = `${name}-${number}`;
            const { address = "1", checks = {} } = nodes.get(node) ?? {};
            const nodeChecks = Object.entries(checks).map(
              ([check, status]) => [check, { serviceId: "", status }] as const,
            );
            const own = check === undefined ? [] : [[`${id}:overall-check`, { serviceId: id, status: check }] as const];
            return { node, address, id, port, checks: Object.fromEntries([...nodeChecks, ...own]) };
          });
        const send = async (names: readonly string[], rotate: number): Promise<void> => {
          const order = [...names.slice(rotate), ...names.slice(0, rotate)];
          const items = order.map((name) =>
            upsert(
              name,
              ...sentOf(name).map(({ node, address, id, port, checks }) => ({
                Node: { Node: node, Address: address },
                Service: { ID: id, Service: name, Port: port },
                Checks: Object.entries(checks).map(([CheckID, { serviceId, status }]) => ({
                  Node: node,
                  CheckID,
                  ServiceID: serviceId,
                  Status: status,
                })),
              })),
            ),
          );
          for (const name of order) reference.applyService(name, sentOf(name));
          const half = Math.floor(items.length / 2);
          await applied(store, ...items.slice(0, half));
          await applied(store, ...items.slice(half));
        };
        for (const each of steps) {
          if (each.type === "service") {
            services.set(each.name, new Map(each.placements.map((one) => [`${one.node}/${one.number}`, one])));
            await send([each.name], 0);
          } else if (each.type === "node") {
            nodes.set(each.node, each);
            const on = [...services].filter(([, placed]) =>
              [...placed.values()].some(({ node }) => node === each.node),
            );
            await send(
              on.map(([name]) => name),
              each.rotate,
            );
          } else if (each.type === "list") {
            for (const name of services.keys()) {
              if (!each.names.some((listed) => name === listed || name === `${listed}-sidecar-proxy`))
                services.delete(name);
            }
            reference.applyList(each.names);
            await applied(store, list(...each.names));
          } else if (each.type === "again") {
            await send([...services.keys()], each.rotate);
          } else {
            store = await ImportStore.open(storage);
          }
          assert.deepEqual(await view(store), reference.view());
          assert.deepEqual(await nodeNames(store), [...reference.nodes.keys()].sort());
        }
      }),
      { numRuns: 300 },
    );
  });
});
