// The catalog takes time in proportion to its input, however much is on one node or under one name.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Registration, TransactionOperation } from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { assertLinear } from "../../support/growth.js";
import { collectGarbage } from "../../support/heap.js";

type Many = (index: number) => Registration;

const numbers = (size: number): readonly number[] => Array.from({ length: size }, (_, index) => index);
const empty = (): Promise<Catalog> => Catalog.open({ storage: memoryStorage(), datacenter: "dc1" });

/** Written one by one, but without waiting in between, as many clients do. */
async function each(size: number, write: (index: number) => Promise<unknown>): Promise<void> {
  await Promise.all(numbers(size).map(write));
}

const oneNode = (index: number): Registration => ({
  node: "n1",
  address: "10.0.0.1",
  service: { id: `s${index}`, name: `s${index}`, tags: [`t${index}`] },
});
const oneService = (index: number): Registration => ({
  node: `n${index}`,
  address: "10.0.0.1",
  service: { id: "web", name: "web", tags: [`t${index}`] },
});
const spelled = (index: number): Registration => ({
  node: `n${index}`,
  address: "10.0.0.1",
  service: { id: "web", name: index % 2 === 0 ? "web" : "Web" },
});
const nodeCheck = (index: number): Registration => ({
  node: "n1",
  address: "10.0.0.1",
  check: { checkId: `c${index}`, name: "c", status: "passing" },
});
const serviceCheck = (index: number): Registration => ({
  node: "n1",
  address: "10.0.0.1",
  service: { id: "web", name: "web" },
  check: { checkId: `c${index}`, name: "c", status: "passing", serviceId: "web" },
});
const native = (index: number): Registration => ({
  node: "n1",
  address: "10.0.0.1",
  service: { id: `s${index}`, name: `s${index}`, port: 80, connect: { native: true } },
});
const proxy = (index: number): Registration => ({
  node: `n${index}`,
  address: "10.0.0.1",
  service: {
    id: `p${index}`,
    name: "web-proxy",
    port: 80,
    kind: "connect-proxy",
    proxy: { destinationServiceName: "web" },
  },
});

// Of checks more, as each takes little: only then does it show when one takes longer for all the others.
const kinds: readonly [name: string, many: Many, size: number][] = [
  ["services on one node", oneNode, 600],
  ["instances of one service", oneService, 600],
  ["instances of one service spelled in two ways", spelled, 600],
  ["checks of one node", nodeCheck, 2_000],
  ["checks of one service", serviceCheck, 2_000],
  ["services of the mesh", native, 600],
  ["proxies for one service", proxy, 600],
];

const dispose = (catalog: Catalog): Promise<void> => catalog[Symbol.asyncDispose]();

describe("the time of the catalog grows in proportion to its input", () => {
  for (const [name, many, size] of kinds) {
    it(`in ${name}`, () =>
      assertLinear({
        size,
        prepare: empty,
        dispose,
        steps: {
          "register together": (catalog, of) => catalog.registerAll(numbers(of).map(many)),
          "register again": (catalog, of) => each(of, (index) => catalog.register(many(index))),
          "change and read by turns": async (catalog, of) => {
            for (const index of numbers(of)) {
              const { node = "n1", service } = many(index);
              const other = { id: "other", name: "other", tags: [`${index}`] };
              await catalog.register({ node, address: "10.0.0.1", service: other });
              void catalog.index.connect("web");
              void catalog.index.service(service?.name ?? "web");
              void catalog.index.node(node);
              void catalog.virtualIp(service?.name ?? "web");
            }
          },
          "deregister one by one": (catalog, of) =>
            each(of, (index) => {
              const { node = "", service, check } = many(index);
              const checkId = check?.checkId;
              return catalog.deregister(
                checkId === undefined ? { node, serviceId: service?.id ?? "" } : { node, checkId },
              );
            }),
          "register one by one": (catalog, of) => each(of, (index) => catalog.register(many(index))),
          "deregister the nodes": (catalog, of) =>
            each(of, (index) => catalog.deregister({ node: many(index).node ?? "" })),
        },
      }));
  }

  for (const [name, many] of [
    ["one node", nodeCheck],
    ["one service", serviceCheck],
  ] as const) {
    it(`in checks of ${name} that are changed one after another`, () =>
      assertLinear({
        size: 500,
        prepare: async (size) => {
          const catalog = await empty();
          await catalog.registerAll(numbers(size).map(many));
          return catalog;
        },
        dispose,
        steps: {
          "change the status": async (catalog, of) => {
            for (const index of numbers(of)) {
              assert.equal(await catalog.updateCheck("n1", `c${index}`, "critical", ""), true);
            }
          },
          "change the status while a watch is open": async (catalog, of) => {
            const end = new AbortController();
            const watch = catalog.watch({ signal: end.signal });
            await watch.next();
            for (const index of numbers(of)) {
              await catalog.updateCheck("n1", `c${index}`, "warning", "");
              // Of one node there may be no service.
              if (catalog.hasInstances("web")) await watch.next();
            }
            end.abort();
          },
          remove: async (catalog, of) => {
            for (const index of numbers(of)) await catalog.deregister({ node: "n1", checkId: `c${index}` });
            assert.equal(catalog.node("n1")?.checks.length, 0);
          },
        },
      }));
  }

  it("in transactions on one node", () => {
    const operations = (first: number, verb: "set" | "delete"): readonly TransactionOperation[] =>
      numbers(50).map((index) => ({
        type: "service",
        verb,
        node: "n1",
        service: { id: `s${first + index}`, name: `s${first + index}` },
      }));
    return assertLinear({
      size: 30,
      prepare: async () => {
        const catalog = await empty();
        await catalog.register({ node: "n1", address: "10.0.0.1" });
        return catalog;
      },
      dispose,
      steps: {
        set: (catalog, of) => each(of, (index) => catalog.transaction(operations(50 * index, "set"))),
        delete: (catalog, of) => each(of, (index) => catalog.transaction(operations(50 * index, "delete"))),
      },
    });
  });

  it("in virtual addresses that come and go", () => {
    const names = (of: number): readonly string[] => numbers(of).map((index) => `s${index}`);
    return assertLinear({
      size: 1_200,
      prepare: empty,
      dispose,
      steps: {
        "claim together": (catalog, of) => catalog.claimVirtualIps("peer", names(of)),
        "release the lowest and claim it again": async (catalog, of) => {
          for (const index of numbers(of)) {
            await catalog.releaseVirtualIps("peer", [`s${index % 3}`]);
            await catalog.claimVirtualIps("peer", [`s${index % 3}`]);
          }
        },
        "release one by one": (catalog, of) => each(of, (index) => catalog.releaseVirtualIps("peer", [`s${index}`])),
        "claim one by one": (catalog, of) => each(of, (index) => catalog.claimVirtualIps("peer", [`s${index}`])),
        "release together": (catalog, of) => catalog.releaseVirtualIps("peer", names(of)),
      },
    });
  });

  it("in addresses that operators give, and take from others", () => {
    const address = (index: number): string => `10.1.${index >> 8}.${index & 255}`;
    const names = (of: number): readonly string[] => numbers(of).map((index) => `s${index}`);
    return assertLinear({
      size: 400,
      prepare: async (size) => {
        const catalog = await empty();
        await catalog.claimVirtualIps("", names(size));
        for (const peer of names(size)) await catalog.claimVirtualIps(peer, ["web"]);
        return catalog;
      },
      dispose,
      steps: {
        give: async (catalog, of) => {
          for (const index of numbers(of)) await catalog.assignManualVirtualIps(`s${index}`, [address(index)]);
        },
        "take from another": async (catalog, of) => {
          for (const index of numbers(of)) {
            const taken = await catalog.assignManualVirtualIps(`s${index}`, [address((index + 1) % of)]);
            // The first has given its own away when the last takes it.
            assert.deepEqual(taken, index + 1 < of ? [`s${index + 1}`] : []);
          }
        },
        "ask for those of each peer": (catalog, of) => {
          assert.equal(catalog.claimingPeers().length, of + 1);
          for (const peer of names(of)) assert.deepEqual([...catalog.claimedVirtualIps(peer)], ["web"]);
        },
      },
    });
  });

  it("in kinds that are asked for after each change", () =>
    assertLinear({
      size: 300,
      prepare: empty,
      dispose,
      steps: {
        "register and ask": async (catalog, of) => {
          for (const index of numbers(of)) {
            await catalog.register(oneService(index));
            void catalog.kinds();
          }
        },
      },
    }));
});

describe("the memory of one registration grows in proportion to its input", () => {
  const heapNow = (): number => {
    collectGarbage();
    return process.memoryUsage().heapUsed;
  };
  for (const serviceId of ["", "web"]) {
    it(serviceId === "" ? "in checks of a node" : "in checks of a service", async () => {
      const count = 8_000;
      const catalog = await empty();
      const checks = numbers(count).map((index) => ({ checkId: `c${index}`, name: "c", status: "passing", serviceId }));
      let held = 0;
      const before = heapNow();
      await catalog.register(
        { node: "n1", address: "10.0.0.1", service: { id: "web", name: "web" }, checks },
        {
          // All that it takes to take the registration back is held now.
          judge: () => {
            held = heapNow() - before;
          },
        },
      );
      assert.equal(catalog.node("n1")?.checks.length, count);
      assert.ok(held > 0 && held / count < 1_500, `${Math.round(held / count)} bytes for each check`);
      await dispose(catalog);
    });
  }

  it("and a refused one leaves nothing of its checks", async () => {
    const catalog = await empty();
    const checks = (status: string, from: number): readonly object[] =>
      numbers(20).map((index) => ({ checkId: `c${from + index}`, name: "c", status, serviceId: "web" }));
    const registration = { node: "n1", address: "10.0.0.1", service: { id: "web", name: "web" } };
    await catalog.register({ ...registration, checks: checks("passing", 0) });
    const shown = JSON.stringify(catalog.instance("n1", "web")?.checks, (_, value) =>
      typeof value === "bigint" ? `${value}` : value,
    );
    const refused = catalog.register(
      { ...registration, checks: checks("critical", 10) },
      {
        judge: () => {
          throw new TypeError("no");
        },
      },
    );
    await Promise.all([
      assert.rejects(refused, /no/),
      catalog.register({ ...registration, check: { checkId: "c5", name: "c", status: "passing", serviceId: "web" } }),
    ]);
    const after = JSON.stringify(catalog.instance("n1", "web")?.checks, (_, value) =>
      typeof value === "bigint" ? `${value}` : value,
    );
    assert.equal(after, shown);
    await dispose(catalog);
  });
});
