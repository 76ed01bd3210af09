import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { defaultWriteLimits, hasMoreValues } from "../../../src/model/write-limits.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";

const LIMITS = {
  recordValues: 100,
  templateCharacters: 20,
  renderedCharacters: 30,
  filterCharacters: 50,
  certificateCharacters: 60,
};
const texts = (count: number): readonly string[] => Array.from({ length: count }, (_, index) => `t${index}`);

describe("the limits of one write", () => {
  let host: PeeringHost;
  before(async () => {
    host = await createHost({
      storage: memoryStorage(),
      transport: memoryNetwork().transport({}),
      nodeName: "n1",
      limits: LIMITS,
    });
  });
  after(() => host[Symbol.asyncDispose]());

  const refused = (what: string) => ({ code: "resource-exhausted", message: `${what} has more than 100 values` });
  const counted = (kind: string): number => host.incidents.counts().get(kind) ?? 0;

  it("is bounded for each way to write a record, and nothing is written beyond it", async () => {
    const node = { node: "n1", address: "10.0.0.1" };
    const tagged = (count: number) => ({ ...node, service: { name: "web", tags: texts(count) } });
    const addresses = Object.fromEntries(texts(101).map((name) => [name, { address: "10.0.0.1", port: 1 }]));
    const revision = await host.catalog.register(tagged(80));
    const sources = (count: number) => texts(count).map((name) => ({ name, action: "allow" as const }));
    const writes: readonly (readonly [string, () => Promise<unknown>])[] = [
      ["a registration", () => host.catalog.register(tagged(101))],
      [
        "a registration",
        () => host.catalog.register({ ...node, service: { name: "web", taggedAddresses: addresses } }),
      ],
      [
        "an operation of a transaction",
        () =>
          host.catalog.transaction([
            { type: "service", verb: "set", node: "n1", service: { name: "web", tags: texts(101) } },
          ]),
      ],
      [
        "a config entry",
        () => host.configEntries.set({ kind: "service-intentions", name: "web", sources: sources(40) }),
      ],
      [
        "a config entry",
        () =>
          host.configEntries.change("service-intentions", "web", () => ({
            kind: "service-intentions",
            name: "web",
            sources: sources(40),
          })),
      ],
      ["a prepared query", () => host.queries.create({ name: "q", service: { name: "web", tags: texts(101) } })],
    ];
    for (const [what, write] of writes) await assert.rejects(write(), refused(what));
    await assert.rejects(host.catalog.registerAll([tagged(1), tagged(101)]), {
      code: "resource-exhausted",
      message: "registration 1: a registration has more than 100 values",
    });
    assert.equal(counted("record-values"), writes.length + 1);
    assert.deepEqual([host.catalog.revision, host.configEntries.index, host.queries.list()], [revision, 0n, []]);
    assert.equal(await host.configEntries.set({ kind: "service-intentions", name: "web", sources: sources(20) }), true);
  });

  it("is bounded for the filters of all subsets of a resolver together", async () => {
    const resolver = (...filters: readonly string[]) => ({
      kind: "service-resolver" as const,
      name: "filtered",
      subsets: Object.fromEntries(filters.map((filter, index) => [`v${index}`, { filter }])),
    });
    const half = "Service.Meta.v == 1234567";
    const before = host.configEntries.index;
    for (const write of [
      () => host.configEntries.set(resolver(half, half, "Checks is empty")),
      () => host.configEntries.set(resolver(`${half} or ${half}`)),
      () => host.configEntries.setUntyped(resolver(`${half} or ${half}`)),
      () => host.configEntries.change("service-resolver", "filtered", () => resolver(half, half, half)),
      // Not parsed: that it is no filter does not show.
      () => host.configEntries.set(resolver("(".repeat(51))),
    ]) {
      await assert.rejects(write(), {
        code: "resource-exhausted",
        message: "the filters of the subsets have more than 50 characters",
      });
    }
    assert.equal(counted("subset-filters-too-long"), 5);
    assert.equal(host.configEntries.index, before);
    assert.equal(await host.configEntries.set(resolver(half, half)), true);
  });

  it("is bounded for the certificate and the key of an entry together", async () => {
    const entry = (certificate: string, privateKey: string) => ({
      kind: "inline-certificate",
      name: "c",
      extra: { Certificate: certificate, PrivateKey: privateKey },
    });
    for (const [certificate, key] of [
      ["x".repeat(61), ""],
      ["x".repeat(31), "x".repeat(30)],
      ["", "x".repeat(61)],
    ] as const) {
      await assert.rejects(host.configEntries.setUntyped(entry(certificate, key)), {
        code: "resource-exhausted",
        message: "the certificate and its key have more than 60 characters",
      });
    }
    assert.equal(counted("inline-certificate-too-long"), 3);
    await assert.rejects(host.configEntries.setUntyped(entry("x".repeat(30), "x".repeat(30))), {
      code: "invalid-entry",
    });
  });

  it("is bounded for the texts of a template, and for its rendered texts", async () => {
    const template = (text: string) =>
      host.queries.create({ name: "p-", template: { type: "name_prefix_match" }, service: { name: text } });
    await assert.rejects(template(`\${name.suffix}${"x".repeat(10)}`), {
      code: "resource-exhausted",
      message: "the texts of a query template have more than 20 characters",
    });
    assert.equal(counted("query-template-too-long"), 1);
    // Each text alone is within the bound.
    const half = "x".repeat(11);
    const query = { name: "q-", template: { type: "name_prefix_match" }, service: { name: "web" } };
    const service = { name: "w" };
    for (const long of [
      { ...query, template: { ...query.template, regexp: `^${"x".repeat(20)}$` } },
      { ...query, template: { ...query.template, regexp: half }, service: { name: half } },
      { ...query, name: half, service: { name: half } },
      { ...query, service: { ...service, tags: [half, half] } },
      { ...query, service: { ...service, nodeMeta: { [half]: half } } },
      { ...query, service: { ...service, serviceMeta: { ["x".repeat(30)]: "" } } },
    ]) {
      const before = counted("query-template-too-long");
      await assert.rejects(host.queries.create(long), { code: "resource-exhausted" }, JSON.stringify(long));
      assert.equal(counted("query-template-too-long"), before + 1);
    }
    await host.queries.create({ ...query, template: { ...query.template, regexp: "^q-(.*)$" } });
    await template(`\${name.suffix}`);
    assert.equal(host.queries.find(`p-${"x".repeat(30)}`)?.query.service.name.length, 30);
    assert.throws(() => host.queries.find(`p-${"x".repeat(31)}`), { code: "resource-exhausted" });
    assert.equal(counted("query-too-long"), 1);
  });

  it("is counted as elements and members, however deep, and without an end where there is none", () => {
    const ring: Record<string, unknown> = {};
    ring["again"] = ring;
    for (const [value, count] of [
      [{ a: 1, b: [2, { c: true, d: "x" }] }, 7],
      [{ a: 0, b: "", c: false, d: null, e: undefined, f: [], g: {}, h: 1 }, 2],
      [Object.fromEntries(texts(100).map((key) => [key, ""])), 101],
      [[0, "", null, {}], 5],
      [texts(1_000), 1_001],
    ] as const) {
      assert.deepEqual([hasMoreValues(value, count - 1), hasMoreValues(value, count)], [true, false]);
    }
    assert.ok(hasMoreValues(ring, defaultWriteLimits.recordValues));
  });
});
