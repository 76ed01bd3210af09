// Imports can always be fetched again: one that is damaged stops nothing, and is not taken for stored.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { pagesOf } from "../../../src/storage/paging.js";
import type { Key, Storage } from "../../../src/storage/storage.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { type ImportItem, ImportStore } from "../../../src/stores/import-store.js";
import { storageWith } from "../../support/storage.js";
import { peered, register, World } from "../../support/world.js";
import { payload, wireInstance } from "../payload/import-fixtures.js";

const PEER = "11111111-0000-0000-0000-000000000000";

function upsert(name: string, port = 80): ImportItem {
  return { type: "service", name, value: payload(wireInstance(name, { port })) };
}

async function filled(storage: Storage): Promise<void> {
  const store = await ImportStore.open(storage);
  await store.apply(PEER, [upsert("web"), upsert("db")]);
}

async function rowOf(storage: Storage, key: Key): Promise<Uint8Array | undefined> {
  return (await storage.read(key)).entries[0]?.value;
}

/** A storage of which some entries read as damaged until they are written or deleted. */
function rotten(inner: Storage, ...damaged: readonly Key[]): Storage {
  const bad = new Map(damaged.map((key) => [key.join("/"), key]));
  return storageWith(inner, {
    async read(prefix, signal) {
      const hit = [...bad.values()].filter((key) => prefix.every((part, index) => key[index] === part));
      if (hit.length > 0) throw new PeeringError("storage-damaged", "rotten", { damagedKeys: hit });
      return inner.read(prefix, signal);
    },
    async *pages(prefix, bytes, signal) {
      const { entries, revision } = await inner.read(prefix, signal);
      yield* pagesOf(entries, revision, bytes, (key) => bad.has(key.join("/")));
    },
    commit(...given) {
      for (const { key } of given[0]) bad.delete(key.join("/"));
      return inner.commit(...given);
    },
  });
}

/** A storage that has `now` in place of what was committed as `key`, or nothing, until it is written again. */
function altered(inner: Storage, key: Key, now: Uint8Array | undefined): Storage {
  let isAltered = true;
  return storageWith(inner, {
    async *pages(prefix, bytes, signal) {
      for await (const page of inner.pages(prefix, bytes, signal)) {
        const entries = page.entries.flatMap((entry) => {
          if (!isAltered || entry.key.join("/") !== key.join("/")) return [entry];
          return now === undefined ? [] : [{ ...entry, value: now }];
        });
        yield { ...page, entries };
      }
    },
    commit(...given) {
      if (given[0].some((write) => write.key.join("/") === key.join("/"))) isAltered = false;
      return inner.commit(...given);
    },
  });
}

describe("a damaged import", () => {
  const web: Key = ["imports", PEER, "web"];
  const cases: readonly [name: string, key: Key, damage: (row: Buffer) => Uint8Array][] = [
    ["that is empty", web, () => new Uint8Array()],
    ["that is too short", web, (row) => row.subarray(0, 20)],
    ["that is no payload", web, (row) => Buffer.concat([row.subarray(0, 48), Buffer.of(0x0a, 0x7f)])],
    ["without instances", web, (row) => row.subarray(0, 48)],
    ["of another service", web, (row) => Buffer.concat([row.subarray(0, 48), payload(wireInstance("api"))])],
    [
      "with another payload than its digest is of",
      web,
      (row) => Buffer.concat([row.subarray(0, 48), payload(wireInstance("web", { port: 99 }))]),
    ],
    ["with another digest", web, (row) => Buffer.concat([Buffer.from("x".repeat(44)), row.subarray(44)])],
    ["under an invalid key", ["imports", "x"], (row) => row],
    ["under a key that is longer", [...web, "more"], (row) => row],
  ];
  for (const [name, key, damage] of cases) {
    it(`${name} is dropped at the start and reported; the others are there, and it is stored when it comes again`, async () => {
      const storage = memoryStorage();
      await filled(storage);
      const row = Buffer.from((await rowOf(storage, web)) ?? []);
      await storage.commit([{ key, value: damage(row) }]);
      const incidents = new Incidents();
      const store = await ImportStore.open(storage, { incidents });
      assert.equal(incidents.counts().get("import-damaged"), 1);
      assert.equal(
        (await storage.read(key)).entries.find((entry) => entry.key.length === key.length),
        undefined,
      );
      const others = key === web ? ["db"] : ["db", "web"];
      assert.deepEqual(
        store.services(PEER).map((service) => service.name),
        others,
      );
      await store.apply(PEER, [upsert("web"), upsert("db")]);
      for (const opened of [store, await ImportStore.open(storage)]) {
        assert.equal((await opened.instances(PEER, "web"))[0]?.service.port, 80);
      }
      assert.deepEqual(Buffer.from((await rowOf(storage, web)) ?? []).subarray(48), row.subarray(48));
    });
  }

  it("that the storage itself finds is dropped the same way", async () => {
    const inner = memoryStorage();
    await filled(inner);
    const incidents = new Incidents();
    const store = await ImportStore.open(rotten(inner, web), { incidents });
    assert.equal(incidents.counts().get("import-damaged"), 1);
    assert.deepEqual(
      store.services(PEER).map((service) => service.name),
      ["db"],
    );
    assert.equal(await rowOf(inner, web), undefined);
  });

  for (const [name, value] of [
    ["changes", Uint8Array.of(1, 2, 3)],
    ["is lost", undefined],
  ] as const) {
    it(`that ${name} while the host runs is dropped by the first who reads it, and its peering told to fetch it again`, async () => {
      const inner = memoryStorage();
      let storage: Storage = inner;
      const switched = storageWith(inner, {
        pages: (...given) => storage.pages(...given),
        commit: (...given) => storage.commit(...given),
      });
      const incidents = new Incidents();
      const store = await ImportStore.open(switched, { incidents });
      await store.apply(PEER, [upsert("web"), upsert("db")]);
      const damaged: string[] = [];
      store.onDamage((peeringId) => damaged.push(peeringId));
      storage = altered(inner, web, value);
      assert.deepEqual(await store.instances(PEER, "web"), []);
      assert.deepEqual([damaged, incidents.counts().get("import-damaged")], [[PEER], 1]);
      assert.deepEqual(
        store.services(PEER).map((service) => service.name),
        ["db"],
      );
      assert.equal(await rowOf(storage, web), undefined);
      // The same bytes are not acknowledged without being written.
      await store.apply(PEER, [upsert("web")]);
      assert.equal((await store.instances(PEER, "web"))[0]?.service.port, 80);
      assert.equal((await (await ImportStore.open(storage)).instances(PEER, "web")).length, 1);
    });
  }

  it("that the storage finds while the host runs is dropped, and a read of everything goes on", async () => {
    const inner = memoryStorage();
    await filled(inner);
    let storage: Storage = inner;
    const store = await ImportStore.open(
      storageWith(inner, {
        read: (...given) => storage.read(...given),
        pages: (...given) => storage.pages(...given),
        commit: (...given) => storage.commit(...given),
      }),
    );
    storage = rotten(inner, web);
    const watch = store.watch({ peeringId: PEER, signal: new AbortController().signal })[Symbol.asyncIterator]();
    const { value } = await watch.next();
    assert.ok(value?.type === "snapshot");
    assert.deepEqual([...value.services.keys()], ["db"]);
    await watch.return?.();
  });
});

describe("a damaged virtual address", () => {
  const rowsOf = async (storage: Storage): Promise<readonly Key[]> =>
    (await storage.read(["catalog"])).entries.map(({ key }) => key).filter((key) => key.includes("east"));

  it("of an imported service is dropped and reported, and another one is claimed; a damaged local one refuses the start", async () => {
    const storage = memoryStorage();
    const opened = (incidents?: Incidents): Promise<Catalog> =>
      Catalog.open({ storage, datacenter: "dc1", ...(incidents && { incidents }) });
    const before = await opened();
    await before.register({ node: "n1", address: "10.0.0.1" });
    await before.claimVirtualIps("east", ["web"]);
    await before[Symbol.asyncDispose]();
    const [row, ...others] = await rowsOf(storage);
    assert.ok(row !== undefined && others.length === 0);
    await storage.commit([{ key: row, value: Buffer.from("damaged") }]);
    const incidents = new Incidents();
    const after = await opened(incidents);
    assert.equal(incidents.counts().get("virtual-ip-damaged"), 1);
    assert.equal(after.nodes().length, 1);
    await after.claimVirtualIps("east", ["web"]);
    assert.notEqual(after.virtualIp("web", "east"), undefined);
    await after[Symbol.asyncDispose]();
    const local = (await storage.read(["catalog"])).entries.find(({ key }) => key.includes("n1"));
    assert.ok(local !== undefined);
    await storage.commit([{ key: local.key, value: Buffer.from("damaged") }]);
    await assert.rejects(opened(), PeeringError);
  });
});

describe("a host with damaged imports", () => {
  const damageOf = async (disk: Storage, prefix: Key, name: string): Promise<void> => {
    const { entries } = await disk.read(prefix);
    const entry = entries.find(({ key }) => key.at(-1) === name);
    assert.ok(entry !== undefined);
    await disk.commit([{ key: entry.key, value: Buffer.from("damaged") }]);
  };

  it("starts, and has everything again once its stream is back", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    dialer.crash();
    await damageOf(dialer.disk, ["imports"], "web");
    await damageOf(dialer.disk, ["peerings", "bundle"], "acceptor");
    await dialer.start();
    assert.deepEqual(dialer.imported("acceptor"), { db: 1 });
    assert.equal(dialer.host.incidents.counts().get("import-damaged"), 1);
    assert.ok((dialer.host.incidents.counts().get("trust-bundle-damaged") ?? 0) > 0);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    await world.until(() => dialer.count("acceptor", "web") === 1, "it is sent again");
    await world.until(() => dialer.host.trustBundles.read("acceptor") !== undefined, "so is the bundle");
    assert.equal((await world.result(dialer.host.imports.instances({ peer: "acceptor", service: "web" }))).length, 1);
  });

  it("ends its stream when it finds damage, so that the next one brings everything again", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const opens = world.messages(dialer, "open").length;
    await damageOf(dialer.disk, ["imports"], "web");
    assert.deepEqual(await world.result(dialer.host.imports.instances({ peer: "acceptor", service: "web" })), []);
    await world.until(() => world.messages(dialer, "open").length > opens, "it dials again");
    await world.until(() => dialer.count("acceptor", "web") === 1, "it is sent again");
    assert.equal((await world.result(dialer.host.imports.instances({ peer: "acceptor", service: "web" }))).length, 1);
    await world.result(register(acceptor.host, "web", "2"));
    await world.until(() => dialer.count("acceptor", "web") === 2, "and changes go on");
  });
});
