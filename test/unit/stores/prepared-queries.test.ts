import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { systemRandom } from "../../../src/base/environment.js";
import {
  type PreparedQuery,
  type QueriedInstance,
  type QueriedService,
  selectedInstances,
} from "../../../src/config/prepared-query.js";
import { QUERIES_PREFIX } from "../../../src/storage/keys.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { PreparedQueries, runQuery } from "../../../src/stores/prepared-queries.js";
import { sealedSecretBox } from "../../../src/trust/secret-box.js";
import { assertLinear } from "../../support/growth.js";

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

  it("takes instances that are not critical, or that pass, ignoring the checks it is told to ignore", () => {
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

describe("where a query looks (ch4 case 65)", () => {
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
    // As in Consul: neither another datacenter, nor our own, nor a peer under the name of a datacenter is a try.
    const elsewhere = [{ datacenter: "dc9" }, { datacenter: "dc1" }, { peer: "p", datacenter: "dc1" }, {}];
    for (const service of [{ targets: elsewhere }, { datacenters: ["dc9", "dc1"] }, { nearestDatacenters: 3 }]) {
      assert.deepEqual(await run({ peer: "other", ...service }, { "": [here], p: [there] }), {
        names: [],
        peer: "other",
        datacenter: "",
        failovers: 0,
      });
    }
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

  it("have one name each also where two hosts write at the same time", async () => {
    const storage = memoryStorage();
    await using one = await PreparedQueries.open({ storage, random: systemRandom });
    await using other = await PreparedQueries.open({ storage, random: systemRandom });
    const made = await Promise.allSettled([one.create(web), other.create({ ...web, name: "WEB" })]);
    assert.deepEqual(made.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    const refusal = made.find((each) => each.status === "rejected");
    assert.match(String(refusal?.reason), /aliases an existing query name/);
    for (const queries of [one, other]) assert.equal(queries.list().length, 1);
  });

  const template = (name: string, regexp = ""): Omit<PreparedQuery, "id"> => ({
    name,
    template: { type: "name_prefix_match", regexp },
    service: { name: `\${match(1)}-of-${name}`, tags: [`\${name.suffix}`] },
  });

  it("that are templates answer to all names with their prefix, the longest first, over a restart, too", async () => {
    const storage = memoryStorage();
    const queries = await PreparedQueries.open({ storage, random: systemRandom });
    const ids: string[] = [];
    for (const name of ["", "a", "abc", "ab"]) ids.push(await queries.create(template(name, "(.)$")));
    await queries.create({ name: "abcd", service: { name: "plain" } });
    const reopened = await PreparedQueries.open({ storage, random: systemRandom });
    for (const each of [queries, reopened]) {
      const found = (name: string): unknown => each.find(name)?.query.service.name;
      assert.deepEqual(["x", "a", "ABx", "abcx", "ABCD", "abcde", ""].map(found), [
        "x-of-",
        "a-of-a",
        "x-of-ab",
        "x-of-abc",
        "plain",
        "e-of-abc",
        undefined,
      ]);
    }
    await queries.delete(ids[2] ?? "");
    await queries.update({ ...template("other"), id: ids[3] ?? "" });
    assert.equal(queries.find("abcx")?.query.service.name, "x-of-a");
    assert.equal(queries.find("others")?.query.service.name, "-of-other");
  });

  it("that are templates are bounded, in matching and in their results", async () => {
    const queries = await PreparedQueries.open({ storage: memoryStorage(), random: systemRandom });
    await queries.create({ ...template("re", "^(a+)+$"), service: { name: "x" } });
    await queries.create({ ...template("large", "(a?){900}b"), service: { name: "x" } });
    await queries.create({ ...template("long"), service: { name: `\${name.full}`.repeat(1_000) } });
    assert.equal(queries.find(`re${"a".repeat(50_000)}!`)?.query.service.name, "x");
    assert.throws(() => queries.find(`large${"a".repeat(50_000)}`), { code: "resource-exhausted" });
    assert.throws(() => queries.find(`long${"a".repeat(50_000)}`), { code: "resource-exhausted" });
    assert.equal(queries.find("longer")?.query.service.name.length, 6_000);
  });

  it("keep their tokens sealed, and seal them again when there is another key", async () => {
    const storage = memoryStorage();
    const boxes = [[1], [2, 1], [2]].map((keys) =>
      sealedSecretBox(
        keys.map((key) => new Uint8Array(32).fill(key)),
        systemRandom,
      ),
    );
    const [first, both, second] = boxes;
    assert.ok(first !== undefined && both !== undefined && second !== undefined);
    const queries = await PreparedQueries.open({ storage, random: systemRandom, secretBox: first });
    const id = await queries.create({ ...web, token: "a-secret-token" });
    const { entries } = await storage.read(QUERIES_PREFIX);
    assert.equal(Buffer.from(entries[0]?.value ?? []).includes("a-secret-token"), false);
    await PreparedQueries.open({ storage, random: systemRandom, secretBox: both });
    const reopened = await PreparedQueries.open({ storage, random: systemRandom, secretBox: second });
    assert.equal(reopened.get(id)?.query.token, "a-secret-token");
    await assert.rejects(PreparedQueries.open({ storage, random: systemRandom, secretBox: first }), {
      code: "storage-failed",
      message: /cannot be opened/,
    });
  });

  it("are found in a time that does not grow with how many there are", () =>
    assertLinear({
      size: 600,
      prepare: async (size) => {
        const queries = await PreparedQueries.open({ storage: memoryStorage(), random: systemRandom });
        for (let index = 0; index < size; index++) {
          await queries.create(template(`t${index}-`));
          await queries.create({ name: `q${index}`, service: { name: "x" } });
        }
        return queries;
      },
      steps: {
        "asking each by its name": (queries, size) => {
          for (let index = 0; index < size; index++) assert.ok(queries.find(`q${index}`));
        },
        "asking each template": (queries, size) => {
          for (let index = 0; index < size; index++) assert.ok(queries.find(`t${index}-x`));
        },
        "writing one more for each": async (queries, size) => {
          for (let index = 0; index < size; index++)
            await queries.create({ name: `r${index}`, service: { name: "x" } });
        },
        "changing, reading and deleting one for each": async (queries, size) => {
          for (let index = 0; index < size; index++) {
            const { query } = queries.find(`r${index}`) ?? assert.fail("it is not found");
            await queries.update({ ...query, service: { ...query.service, name: "y" } });
            assert.equal(queries.get(query.id)?.query.service.name, "y");
            await queries.delete(query.id);
          }
        },
      },
    }));

  it("that are damaged keep a host from starting, and are named", async () => {
    const storage = memoryStorage();
    await storage.commit([{ key: [...QUERIES_PREFIX, "x"], value: Buffer.from("{}") }]);
    await assert.rejects(PreparedQueries.open({ storage, random: systemRandom }), {
      code: "storage-failed",
      message: /stored query queries\/x is damaged/,
    });
    await storage.commit([{ key: [...QUERIES_PREFIX, "x"], value: Buffer.from('{"sealedToken":"5e0b6a51-sec') }]);
    await assert.rejects(PreparedQueries.open({ storage, random: systemRandom }), {
      message: "stored query queries/x is damaged: it is not JSON",
    });
  });
});
