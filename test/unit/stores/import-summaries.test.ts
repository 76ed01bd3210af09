import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { compareUtf8 } from "../../../src/base/byte-order.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { proxiedName, type ServiceSummary, SummaryMaker } from "../../../src/model/service-summary.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { ImportPayloads } from "../../../src/stores/import-payloads.js";
import { type ImportedSummary, type ImportItem, ImportStore } from "../../../src/stores/import-store.js";
import { lowerCase } from "../../../src/syntax/names.js";
import { storageWith } from "../../support/storage.js";
import { type WireInstance, wireInstance } from "../payload/import-fixtures.js";
import { list, OTHER, PEER, upsert } from "./import-items.js";

/** The same lists, made of every instance there is. */
async function decoded(store: ImportStore, peer: string): Promise<readonly ServiceSummary[]> {
  const makers = new Map<string, SummaryMaker>();
  const of = (name: string): SummaryMaker => {
    const maker = makers.get(lowerCase(name)) ?? new SummaryMaker(name);
    makers.set(lowerCase(name), maker);
    return maker;
  };
  const place = ({ node, service }: ServiceInstance): string => `${lowerCase(node.name)}\0${lowerCase(service.id)}`;
  for (const { name } of store.services(peer)) {
    const instances = await store.instances(peer, name);
    for (const instance of instances.toSorted((left, right) => compareUtf8(place(left), place(right)))) {
      of(instance.service.name).add(instance);
      const proxied = proxiedName(instance.service);
      if (proxied !== "") of(proxied).addProxy(instance);
    }
  }
  const all = Array.from(makers.values(), (maker) => maker.summary());
  return all.sort((left, right) => compareUtf8(left.name, right.name));
}

async function summaries(store: ImportStore, peer: string): Promise<readonly ServiceSummary[]> {
  const listed = await store.summaries(peer, "other-cluster");
  return listed.map(({ peer: name, ...summary }) => {
    assert.equal(name, "other-cluster");
    return summary;
  });
}

/** Nodes as a store has them that has listed none before. */
async function checkNodes(store: ImportStore, peer: string): Promise<void> {
  for (const { node, checks, revision } of await store.nodes(peer)) {
    const found = await store.node(peer, node.name);
    assert.deepEqual({ node, checks }, { node: found?.node, checks: found?.checks });
    let newest = 0n;
    for (const service of store.servicesOn(peer, node.name)) {
      const { revision: of = 0n } = store.service(peer, service) ?? {};
      if (of > newest) newest = of;
    }
    assert.equal(revision, newest);
  }
}

/** Until a store has what another one has committed. */
async function follows(follower: ImportStore, leader: ImportStore): Promise<void> {
  const state = (store: ImportStore): string =>
    store
      .services(PEER)
      .map(({ name, revision }) => `${name} ${revision}`)
      .join();
  for (let turn = 0; turn < 5_000; turn++) {
    if (state(follower) === state(leader)) return;
    await setImmediate();
  }
  assert.fail(`it follows up to ${state(follower)}, not ${state(leader)}`);
}

const NAMES = ["web", "db", "web-sidecar", "api", "aa-proxy"] as const;
const STATUSES = ["passing", "warning", "critical", "maintenance", "odd"] as const;

/** An instance of a service, in some spelling of its name. */
const arbitraryInstance = fc.record({
  capital: fc.boolean(),
  node: fc.constantFrom("n1", "N1", "n2", "n3"),
  id: fc.constantFrom("1", "2"),
  status: fc.constantFrom(...STATUSES),
  ofNode: fc.constantFrom(...STATUSES),
  tags: fc.subarray(["blue", "green", "v2"]),
  source: fc.constantFrom("", "kubernetes", "nomad"),
  proxied: fc.constantFrom(undefined, "web", "WEB", "db", "lonely"),
  transparent: fc.boolean(),
  native: fc.boolean(),
  datacenter: fc.constantFrom("dc1", "dc2"),
});

type Instance = typeof arbitraryInstance extends fc.Arbitrary<infer Value> ? Value : never;

function wire(name: string, one: Instance): WireInstance {
  const spelled = one.capital ? name.toUpperCase() : name;
  const plain = wireInstance(spelled, {
    node: one.node,
    id: `${name}-${one.id}`,
    status: one.status,
    nodeChecks: { disk: one.ofNode },
  });
  return {
    ...plain,
    Node: { ...plain.Node, Datacenter: one.datacenter },
    Service: {
      ...plain.Service,
      Tags: one.tags,
      Meta: one.source === "" ? {} : { "external-source": one.source },
      ...(one.proxied !== undefined && {
        Kind: "connect-proxy",
        Proxy: { DestinationServiceName: one.proxied, Mode: one.transparent ? "transparent" : "" },
      }),
      Connect: { Native: one.native },
    },
  };
}

const arbitraryStep = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constant("apply" as const),
      items: fc.array(arbitraryItem(), { minLength: 1, maxLength: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ type: "remove" as const }) },
);

function arbitraryItem(): fc.Arbitrary<ImportItem> {
  const service = fc.tuple(fc.constantFrom(...NAMES), fc.array(arbitraryInstance, { maxLength: 3 }));
  return fc.oneof(
    {
      weight: 5,
      arbitrary: service.map(([name, instances]) => upsert(name, ...instances.map((one) => wire(name, one)))),
    },
    { weight: 1, arbitrary: fc.subarray([...NAMES]).map((names) => list(...names)) },
  );
}

describe("what lists show of imports", { timeout: 120_000 }, () => {
  it("is what all instances decoded show, after any changes, whatever fits in memory, here and where another process writes", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(arbitraryStep, { minLength: 1, maxLength: 12 }),
        fc.constantFrom(0, 1_200, 64 * 1024),
        async (steps, summaryBytesInAll) => {
          const storage = memoryStorage();
          await using store = await ImportStore.open(storage, { limits: { summaryBytesInAll } });
          await using follower = await ImportStore.open(storage, { limits: { summaryBytesInAll } });
          for (const peer of [PEER, OTHER]) await store.apply(peer, [upsert("web", wireInstance("web"))]);
          for (const step of steps) {
            const before = await decoded(store, PEER);
            const meanwhile = summaries(store, PEER);
            const ahead = summaries(follower, PEER);
            if (step.type === "apply") await store.apply(PEER, step.items);
            else await store.removePeer(PEER);
            const after = await decoded(store, PEER);
            const seen = await meanwhile;
            // At one moment. A commit of several parts has none that is in between.
            assert.deepEqual(seen, JSON.stringify(seen) === JSON.stringify(before) ? before : after);
            assert.deepEqual(await summaries(store, PEER), after);
            await ahead;
            await follows(follower, store);
            assert.deepEqual(await summaries(follower, PEER), after);
            for (const each of [store, follower]) {
              await checkNodes(each, PEER);
              assert.deepEqual(await summaries(each, OTHER), await decoded(each, OTHER));
            }
          }
        },
      ),
      { numRuns: 60, includeErrorInReport: true },
    );
  });

  const many = Array.from({ length: 300 }, (_, index) => `service-${index}`);
  const versioned = (name: string, version: number): ImportItem =>
    upsert(name, { ...wireInstance(name), Service: { ...wireInstance(name).Service, Tags: [`v${version}`] } });
  const opened = async (most?: number): Promise<ImportStore> => {
    const store = await ImportStore.open(memoryStorage(), {
      limits: most === undefined ? {} : { summaryBytesInAll: most },
    });
    await store.apply(
      PEER,
      many.map((name) => versioned(name, 0)),
    );
    return store;
  };
  /** Counts what is decoded until it is disposed. */
  const decoding = (): { readonly count: () => number } & Disposable => {
    const decode = mock.method(ImportPayloads.prototype, "decode");
    return { count: () => decode.mock.callCount(), [Symbol.dispose]: () => decode.mock.restore() };
  };
  const listOf = (store: ImportStore): Promise<readonly ImportedSummary[]> => store.summaries(PEER, "other");

  it("costs the service that has changed, and the others are the same objects", async () => {
    await using store = await opened();
    const first = await listOf(store);
    await store.apply(PEER, [versioned("service-7", 1)]);
    using counted = decoding();
    const second = await listOf(store);
    assert.equal(counted.count(), 1);
    assert.deepEqual(
      second.filter((summary, index) => summary !== first[index]).map(({ name }) => name),
      ["service-7"],
    );
    assert.equal(await listOf(store), second);
    assert.equal(counted.count(), 1);
  });

  it("is made again for all services of a node that looks otherwise, and for those that a proxy was for", async () => {
    await using store = await opened();
    const proxy = (destination: string): ImportItem =>
      upsert("proxy", {
        ...wireInstance("proxy", { node: "n9" }),
        Service: { ID: "p", Service: "proxy", Kind: "connect-proxy", Proxy: { DestinationServiceName: destination } },
      });
    await store.apply(PEER, [proxy("service-1")]);
    const proxied = async (): Promise<readonly string[]> =>
      (await listOf(store)).filter((summary) => summary.proxied).map(({ name }) => name);
    assert.deepEqual(await proxied(), ["service-1"]);
    await store.apply(PEER, [proxy("service-2")]);
    assert.deepEqual(await proxied(), ["service-2"]);
    await store.apply(PEER, [upsert("proxy")]);
    assert.deepEqual(await proxied(), []);
    await store.apply(PEER, [upsert("late", wireInstance("late", { nodeChecks: { disk: "critical" } }))]);
    const listed = await listOf(store);
    assert.equal(listed.filter(({ critical }) => critical === 1).length, many.length + 1);
  });

  it("is of one moment, also while services change together that are read apart", async () => {
    let changing: (() => Promise<void>) | undefined;
    const inner = memoryStorage();
    const storage = storageWith(inner, {
      async *pages(...given) {
        await changing?.();
        yield* inner.pages(...given);
      },
    });
    await using store = await ImportStore.open(storage, { keptBytes: 0, limits: { summaryBytesInAll: 20_000 } });
    // So much that it is not read at once.
    const filler = "x".repeat(60_000);
    await store.apply(
      PEER,
      many.map((name) =>
        upsert(name, {
          ...wireInstance(name),
          Service: {
            ...wireInstance(name).Service,
            Meta: { filler: filler.slice(0, 500), more: filler.slice(0, 500) },
          },
        }),
      ),
    );
    let version = 0;
    const applied: Promise<unknown>[] = [];
    changing = async () => {
      if (applied.length > 200) return;
      const next = ++version;
      applied.push(
        store.apply(
          PEER,
          ["service-0", "service-150", "service-99"].map((name) => versioned(name, next)),
        ),
      );
    };
    for (let round = 0; round < 5; round++) {
      const listed = await listOf(store);
      const tags = new Set(listed.filter(({ name }) => /-(0|150|99)$/.test(name)).map(({ tags }) => tags.join()));
      assert.equal(tags.size, 1, [...tags].join(" "));
      assert.equal(listed.length, many.length);
    }
    changing = undefined;
    await Promise.all(applied);
  });

  it("is kept as far as it fits, which is reported, and goes with the peer", async () => {
    const incidents = new Incidents();
    await using store = await ImportStore.open(memoryStorage(), { incidents, limits: { summaryBytesInAll: 50_000 } });
    await store.apply(
      PEER,
      many.map((name) => versioned(name, 0)),
    );
    const first = await listOf(store);
    assert.equal(incidents.counts().get("import-summaries-full"), 1);
    using counted = decoding();
    const second = await listOf(store);
    const made = counted.count();
    assert.ok(made > 0 && made < many.length, `${made} decoded`);
    assert.equal(second.filter((summary, index) => summary === first[index]).length, many.length - made);
    await store.removePeer(PEER);
    assert.deepEqual(await listOf(store), []);
    // There is room again, for another peer.
    await store.apply(
      OTHER,
      many.slice(0, 50).map((name) => versioned(name, 0)),
    );
    const other = await store.summaries(OTHER, "another");
    assert.equal(await store.summaries(OTHER, "another"), other);
  });

  it("of nodes is made each time where they do not fit, which is reported", async () => {
    for (const [summaryBytesInAll, reports] of [
      [100, 2],
      [1_000_000, undefined],
    ] as const) {
      const incidents = new Incidents();
      await using store = await ImportStore.open(memoryStorage(), { incidents, limits: { summaryBytesInAll } });
      await store.apply(PEER, [versioned("web", 0)]);
      const first = await store.nodes(PEER);
      assert.equal(first.length, 1);
      assert.deepEqual(await store.nodes(PEER), first);
      assert.equal(incidents.counts().get("import-nodes-full"), reports);
    }
  });

  it("gives room to a peer that is listed when others have not been for long", async () => {
    const incidents = new Incidents();
    await using store = await ImportStore.open(memoryStorage(), { incidents, limits: { summaryBytesInAll: 30_000 } });
    const few = many.slice(0, 50).map((name) => versioned(name, 0));
    for (const peer of [PEER, OTHER]) await store.apply(peer, few);
    const isKept = async (peer: string): Promise<boolean> => {
      const first = await store.summaries(peer, "p");
      return (await store.summaries(peer, "p")) === first;
    };
    assert.ok(await isKept(PEER));
    for (let round = 0; round < 20; round++) await store.summaries(OTHER, "p");
    assert.ok(await isKept(OTHER));
    assert.equal((await store.summaries(PEER, "p")).length, 50);
  });
});
