import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type QueriedInstance, type QueriedService, selectedInstances } from "../../../src/catalog/prepared-query.js";
import { systemRandom } from "../../../src/environment.js";
import { PreparedQueries, runQuery } from "../../../src/host/prepared-queries.js";
import { QUERIES_PREFIX } from "../../../src/storage/keys.js";
import { memoryStorage } from "../../../src/storage/memory.js";

interface Named extends QueriedInstance {
  readonly name: string;
}

function instance(
  name: string,
  input: Partial<{ tags: string[]; meta: Record<string, string>; node: Record<string, string>; status: string }> = {},
): Named {
  const { tags = [], meta = {}, node = {}, status } = input;
  return {
    name,
    node: { meta: node },
    service: { tags, meta },
    checks: status === undefined ? [] : [{ checkId: "c", status }],
  };
}

describe("the selection of a query", () => {
  const instances = [
    instance("plain"),
    instance("tagged", { tags: ["A", "b"] }),
    instance("meta", { meta: { x: "y" }, node: { rack: "r1" } }),
    instance("warning", { status: "warning" }),
    instance("critical", { status: "critical" }),
    instance("maintenance", { status: "maintenance" }),
  ];
  const names = (service: Omit<QueriedService, "name">): readonly string[] =>
    selectedInstances({ name: "web", ...service }, instances).map(({ name }) => name);

  it("takes what is not critical, or what passes, but for checks it does not look at", () => {
    assert.deepEqual(names({}), ["plain", "tagged", "meta", "warning"]);
    assert.deepEqual(names({ onlyPassing: true }), ["plain", "tagged", "meta"]);
    assert.equal(names({ onlyPassing: true, ignoreCheckIds: ["c"] }).length, 6);
  });

  it("looks at tags in any case, those it wants and those it does not, and at metadata", () => {
    assert.deepEqual(names({ tags: ["a"] }), ["tagged"]);
    assert.deepEqual(names({ tags: ["a", "!B"] }), []);
    assert.deepEqual(names({ tags: ["!b"] }), ["plain", "meta", "warning"]);
    assert.deepEqual(names({ nodeMeta: { rack: "r1" }, serviceMeta: { x: "y" } }), ["meta"]);
    assert.deepEqual(names({ nodeMeta: { constructor: "" } }), []);
  });
});

describe("ch4 case 65: where a query looks", () => {
  const run = async (
    service: Omit<QueriedService, "name">,
    places: Readonly<Record<string, readonly Named[]>>,
  ): Promise<unknown> => {
    const query = { id: "1", name: "q", service: { name: "web", ...service } };
    const { instances, ...rest } = await runQuery(query, "dc1", async (peer) => places[peer] ?? []);
    return { ...rest, names: instances.map(({ name }) => name) };
  };
  const targets = [{ peer: "nobody" }, { peer: "p" }];
  const here = instance("here");
  const there = instance("there");

  it("is at home first, then at its targets in order, counting those that were asked", async () => {
    assert.deepEqual(await run({ targets }, { "": [here], p: [there] }), {
      names: ["here"],
      peer: "",
      datacenter: "dc1",
      failovers: 0,
    });
    const away = { names: ["there"], peer: "p", datacenter: "", failovers: 2 };
    assert.deepEqual(await run({ targets }, { p: [there] }), away);
    assert.deepEqual(await run({ targets }, { "": [instance("x", { status: "critical" })], p: [there] }), away);
    assert.deepEqual(await run({ targets }, {}), { names: [], peer: "p", datacenter: "", failovers: 2 });
  });

  it("is a peer right away when the query says so, and never another datacenter", async () => {
    assert.deepEqual(await run({ peer: "p" }, { "": [here], p: [there] }), {
      names: ["there"],
      peer: "p",
      datacenter: "",
      failovers: 0,
    });
    const elsewhere = [{ datacenter: "dc9" }, { datacenter: "DC1" }];
    assert.deepEqual(await run({ peer: "p", targets: elsewhere }, { "": [here] }), {
      names: ["here"],
      peer: "",
      datacenter: "dc1",
      failovers: 1,
    });
  });
});

describe("prepared queries of a host", () => {
  const web = { name: "web", service: { name: "web", peer: "p" }, ttl: { text: "4s", seconds: 4 } };

  it("are kept, found by id and by name in any case, changed and deleted", async () => {
    const storage = memoryStorage();
    const queries = await PreparedQueries.open({ storage, random: systemRandom });
    const woken: bigint[] = [];
    const stop = queries.onChange(() => woken.push(queries.index));
    const id = await queries.create(web);
    await queries.update({ ...web, id, name: "Web2" });
    const reopened = await PreparedQueries.open({ storage, random: systemRandom });
    for (const each of [queries, reopened]) {
      assert.deepEqual(each.find(id)?.query, { ...web, id, name: "Web2" });
      assert.equal(each.find("wEB2")?.query.id, id);
      assert.equal(each.find("web"), undefined);
      const [stored] = each.list();
      assert.deepEqual([stored?.createIndex, stored?.modifyIndex], woken);
    }
    await queries.delete(id);
    stop();
    assert.deepEqual(queries.list(), []);
    assert.equal(woken.length, 3);
    assert.deepEqual((await PreparedQueries.open({ storage, random: systemRandom })).list(), []);
  });

  it("have one name each, and must be there to be changed", async () => {
    const queries = await PreparedQueries.open({ storage: memoryStorage(), random: systemRandom });
    const made = await Promise.allSettled([queries.create(web), queries.create({ ...web, name: "WEB" })]);
    assert.deepEqual(
      made.map(({ status }) => status),
      ["fulfilled", "rejected"],
    );
    const missing = { code: "not-found", message: "Cannot modify non-existent prepared query: 'x'" };
    await assert.rejects(queries.delete("x"), missing);
    await assert.rejects(queries.update({ ...web, id: "x", name: "other" }), missing);
    const invalid = { code: "invalid-argument" };
    await assert.rejects(queries.create({ ...web, name: "" }), { ...invalid, message: /Must be bound to a session$/ });
    await assert.rejects(queries.create({ name: "n", service: { name: "" } }), invalid);
  });

  it("that are damaged keep a host from starting, and are named", async () => {
    const storage = memoryStorage();
    await storage.commit([{ key: [...QUERIES_PREFIX, "x"], value: Buffer.from("{}") }]);
    await assert.rejects(PreparedQueries.open({ storage, random: systemRandom }), {
      code: "storage-failed",
      message: /the stored query queries\/x is damaged/,
    });
  });
});
