import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { memoryStorage } from "../../../src/storage/memory.js";
import { PeerIndex } from "../../../src/stores/import-index.js";
import { ImportStore } from "../../../src/stores/import-store.js";
import { payload, type WireInstance, wireInstance } from "../payload/import-fixtures.js";

const PEER = "11111111-0000-0000-0000-000000000000";
const OTHER = "22222222-0000-0000-0000-000000000000";

async function upsert(store: ImportStore, name: string, ...instances: readonly WireInstance[]): Promise<void> {
  const { results } = await store.apply(PEER, [{ type: "service", name, value: payload(...instances) }]);
  assert.deepEqual(results, [undefined]);
}

describe("the index of imports", () => {
  it("grows for the service that changed, and for absent ones with the last instance of any", async () => {
    const store = await ImportStore.open(memoryStorage());
    assert.equal(store.index(undefined, "web"), 1n);
    await upsert(store, "web", wireInstance("web", { node: "n1" }));
    const web = store.index(PEER, "WEB");
    await upsert(store, "db", wireInstance("db", { node: "n2" }));
    assert.equal(store.index(PEER, "web"), web);
    assert.ok(store.index(PEER, "db") > web);
    const absent = store.index(PEER, "absent");
    await upsert(store, "db");
    assert.ok(store.index(PEER, "absent") > absent);
    assert.equal(store.index(PEER, "db"), store.index(PEER, "absent"));
    assert.equal(store.index(PEER, "web"), web);
    assert.equal(store.index(OTHER, "absent"), 1n);
  });

  it("grows for all services on a node that another payload changed, and tells their listeners", async () => {
    const store = await ImportStore.open(memoryStorage());
    for (const name of ["web", "db"])
      await upsert(store, name, wireInstance(name, { node: "n1", address: "10.0.0.1" }));
    await upsert(store, "api", wireInstance("api", { node: "n2" }));
    assert.deepEqual(store.servicesOn(PEER, "N1"), ["db", "web"]);
    const [web, api] = [store.index(PEER, "web"), store.index(PEER, "api")];
    const told: string[] = [];
    const stops = ["web", "api"].map((name) => store.onChange(PEER, name, () => told.push(name)));
    await upsert(store, "db", wireInstance("db", { node: "n1", address: "10.0.0.9" }));
    assert.ok(store.index(PEER, "web") > web);
    assert.equal(store.index(PEER, "api"), api);
    assert.ok(told.length > 0);
    assert.deepEqual([...new Set(told)], ["web"]);
    for (const stop of stops) stop();
    told.length = 0;
    await upsert(store, "web", wireInstance("web", { node: "n3" }));
    assert.deepEqual(told, []);
  });

  it("lists services in order, without those that have gone", async () => {
    const store = await ImportStore.open(memoryStorage());
    const names = (): readonly string[] => store.services(PEER).map(({ name }) => name);
    for (const name of ["b", "d", "a"]) await upsert(store, name, wireInstance(name));
    assert.deepEqual(names(), ["a", "b", "d"]);
    await upsert(store, "a");
    await upsert(store, "c", wireInstance("c"));
    assert.deepEqual(names(), ["b", "c", "d"]);
    await upsert(store, "c");
    await upsert(store, "c", wireInstance("c"));
    assert.deepEqual(names(), ["b", "c", "d"]);
  });

  it("is put in order a few times while very many services come, not once for each thousand", () => {
    const index = new PeerIndex({ payloadBytes: 0, indexBytes: 0 });
    let times = 0;
    for (let count = 0; count < 200_000; count++) {
      const key = `s${count}`;
      index.put(
        { key, name: key, digest: "", instances: 1, apart: true, bytes: 1, mesh: [], nodes: [], digests: [] },
        1n,
      );
      if (!index.isToBeSorted) continue;
      index.sorted();
      times++;
    }
    assert.ok(times < 100, `${times} times`);
  });

  it("does not fall with a restart, whatever went before it", async () => {
    const storage = memoryStorage();
    const before = await ImportStore.open(storage);
    await upsert(before, "web", wireInstance("web", { node: "n1" }));
    await upsert(before, "db", wireInstance("db", { node: "n2" }));
    await upsert(before, "db");
    const known = ["web", "db"].map((name) => before.index(PEER, name));
    const after = await ImportStore.open(storage);
    for (const [position, name] of ["web", "db"].entries()) {
      assert.ok(after.index(PEER, name) >= (known[position] ?? 0n), name);
    }
  });
});
