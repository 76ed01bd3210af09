import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import fc from "fast-check";
import { compareUtf8 } from "../../../src/base/byte-order.js";
import type { Clock } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { sameCheck, sameNode, sameService } from "../../../src/model/equality.js";
import type { Check, Node, Service } from "../../../src/model/instance.js";
import {
  type CheckRegistration,
  type Deregistration,
  parseRegistration,
  type Registration,
  TransactionError,
} from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type {
  Key,
  Snapshot,
  Storage,
  StorageChanges,
  StorageLimits,
  StoragePage,
} from "../../../src/storage/storage.js";
import { Catalog, type CatalogUpdate, type IndexedInstance, type Judge } from "../../../src/stores/catalog.js";
import { lowerCase } from "../../../src/syntax/names.js";
import { instantClock } from "../../support/instant-clock.js";
import { storageWith } from "../../support/storage.js";
import { turnsDuring } from "../../support/turns.js";

const n1 = { node: "n1", address: "10.0.0.1" };
const n2 = { node: "n2", address: "10.0.0.2" };
const never = new AbortController().signal;

/** Runs `action` with a catalog over `storage` and disposes of it. */
async function withCatalog<Result>(
  storage: Storage,
  action: (catalog: Catalog) => Promise<Result>,
  clock?: Clock,
): Promise<Result> {
  await using catalog = await Catalog.open({ storage, datacenter: "dc1", ...(clock && { clock }) });
  return await action(catalog);
}

function proxy(id: string, destinationServiceName: string): Registration["service"] {
  return { kind: "connect-proxy", id, name: `${id}-name`, port: 20_000, proxy: { destinationServiceName } };
}

/** A memory storage whose next steps can be made to fail. */
class FaultyStorage implements Storage {
  readonly #inner: Storage;
  failCommit: Error | undefined;
  /** Fails the commit after it was made, as a lost answer does. */
  failAfterCommit: Error | undefined;
  failRead: Error | undefined;
  #breakWatches = new AbortController();
  commits = 0;

  constructor(inner: Storage) {
    this.#inner = inner;
  }

  get limits(): StorageLimits {
    return this.#inner.limits;
  }

  async read(...given: Parameters<Storage["read"]>): Promise<Snapshot> {
    if (this.failRead !== undefined) throw this.failRead;
    return this.#inner.read(...given);
  }

  async *pages(...given: Parameters<Storage["pages"]>): AsyncGenerator<StoragePage> {
    if (this.failRead !== undefined) throw this.failRead;
    yield* this.#inner.pages(...given);
  }

  async commit(...given: Parameters<Storage["commit"]>): Promise<bigint> {
    if (this.failCommit !== undefined) throw this.failCommit;
    this.commits++;
    const revision = await this.#inner.commit(...given);
    if (this.failAfterCommit !== undefined) throw this.failAfterCommit;
    return revision;
  }

  async *changes(prefix: Key, after: bigint, signal: AbortSignal): AsyncGenerator<StorageChanges> {
    const broken = this.#breakWatches.signal;
    if (broken.aborted) throw new PeeringError("unavailable", "the storage does not answer");
    const stop = new AbortController();
    const abort = (): void => stop.abort();
    signal.addEventListener("abort", abort, { once: true });
    broken.addEventListener("abort", abort, { once: true });
    yield* this.#inner.changes(prefix, after, stop.signal);
    if (broken.aborted) throw new PeeringError("unavailable", "the storage does not answer");
  }

  breakWatches(): void {
    this.#breakWatches.abort();
  }

  mendWatches(): void {
    this.#breakWatches = new AbortController();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]();
  }
}

describe("catalog", () => {
  it("local data are the registrations of this host, and nothing of a peer (ch4 case 2)", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await catalog.register({ ...n1, service: { name: "web", port: 80 } });
      assert.deepEqual(
        catalog.instances("web").map(({ node, service }) => [node.name, service.id, service.port]),
        [["n1", "web", 80]],
      );
      assert.equal(catalog.virtualIp("web", "p"), undefined);
    });
  });

  it("an unchanged registration moves no index; SkipNodeUpdate leaves the address (ch4 case 3)", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await withCatalog(storage, async (catalog) => {
      const registration: Registration = {
        ...n1,
        nodeMeta: { rack: "r1" },
        service: { name: "web", port: 80, tags: ["a"] },
        check: { name: "alive", serviceId: "web", status: "passing" },
      };
      const index = await catalog.register(registration);
      const before = [catalog.node("n1"), catalog.index.nodes, catalog.index.service("web"), storage.commits];
      assert.equal(await catalog.register(structuredClone(registration)), index);
      // The spelling of a node, and equal values in other words, change nothing either.
      await catalog.register({ ...registration, node: "N1", taggedAddresses: {} });
      await catalog.register({ ...n1, address: "10.9.9.9", skipNodeUpdate: true });
      assert.deepEqual(
        [catalog.node("n1"), catalog.index.nodes, catalog.index.service("web"), storage.commits],
        before,
      );
      assert.equal(catalog.node("n1")?.node.address, "10.0.0.1");
    });
  });

  it("a node check moves the services on that node and no other (ch4 case 4)", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await catalog.register({ ...n1, service: { name: "web" } });
      await catalog.register({ ...n1, service: { name: "db" } });
      const other = await catalog.register({ ...n2, service: { name: "cache" } });
      const index = await catalog.register({ ...n1, check: { name: "disk", status: "warning" } });
      assert.ok(index > other);
      assert.equal(catalog.index.service("web"), index);
      assert.equal(catalog.index.service("DB"), index);
      assert.equal(catalog.index.service("cache"), other);
      assert.equal(catalog.index.checks, index);
      assert.equal(catalog.index.node("n1"), other - 1n, "a check is no change of the node");
      assert.deepEqual(
        catalog.instances("web").flatMap(({ checks }) => checks.map((check) => check.checkId)),
        ["disk"],
      );
    });
  });

  it("removing the last instance wakes its readers, who get the extinction index (ch4 case 5)", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const index = await catalog.register({ ...n1, service: { name: "web" } });
      await catalog.register({ ...n2, service: { name: "db" } });
      assert.equal(catalog.index.service("web"), index);
      const woken = catalog.indexAfter(() => catalog.index.service("web"), index);
      const removed = await catalog.deregister({ node: "n1", serviceId: "WEB" });
      assert.equal(await woken, removed);
      await catalog.register({ ...n2, service: { name: "db", port: 1 } });
      assert.equal(catalog.index.service("web"), removed);
      assert.equal(catalog.index.service("never-there"), removed);
      assert.deepEqual(catalog.instances("web"), []);
      assert.deepEqual([...catalog.services().keys()], ["db"]);
    });
  });

  it("a service ID belongs to its node (ch4 case 6)", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await catalog.register({ ...n1, service: { id: "x", name: "web" } });
      await catalog.register({ ...n2, service: { id: "x", name: "web" } });
      await catalog.deregister({ node: "n1", serviceId: "x" });
      assert.deepEqual(
        catalog.instances("web").map(({ node }) => node.name),
        ["n2"],
      );
    });
  });

  it("a check for an unknown service ID stores nothing (ch4 case 7)", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await withCatalog(storage, async (catalog) => {
      await assert.rejects(catalog.register({ ...n1, check: { checkId: "c", serviceId: "web" } }), {
        code: "invalid-registration",
        message: "Unknown service ID 'web' for check ID 'c'",
      });
      assert.equal(storage.commits, 0);
      assert.deepEqual(catalog.nodes(), []);
      await catalog.register({ ...n1, service: { name: "web", tags: ["v1"] } });
      await catalog.register({ ...n1, check: { checkId: "c", serviceId: "web", serviceName: "lie" } });
      await assert.rejects(catalog.register({ ...n1, check: { checkId: "d", serviceId: "WEB" } }), {
        message: "Unknown service ID 'WEB' for check ID 'd'",
      });
      const [check] = catalog.serviceChecks("web");
      assert.deepEqual([check?.serviceName, check?.serviceTags], ["web", ["v1"]]);
    });
  });

  it("removing a missing record succeeds and moves nothing (ch4 case 9)", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await withCatalog(storage, async (catalog) => {
      const index = await catalog.register({ ...n1, service: { name: "web" } });
      const { commits } = storage;
      assert.equal(await catalog.deregister({ node: "nowhere" }), index);
      assert.equal(await catalog.deregister({ node: "n1", serviceId: "no" }), index);
      assert.equal(await catalog.deregister({ node: "n1", checkId: "no" }), index);
      assert.equal(storage.commits, commits);
    });
  });

  it("a transaction whose second operation fails stores nothing (ch4 case 10)", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await withCatalog(storage, async (catalog) => {
      await assert.rejects(
        catalog.transaction([
          { type: "node", verb: "set", node: { name: "n1", address: "10.0.0.1" } },
          { type: "service", verb: "set", node: "n2", service: { name: "web" } },
        ]),
        (error) => {
          assert.ok(error instanceof TransactionError);
          assert.deepEqual(error.errors, [{ operationIndex: 1, what: "Missing node registration" }]);
          return true;
        },
      );
      assert.deepEqual(catalog.nodes(), []);
      assert.equal(storage.commits, 0);
    });
  });

  it("`Web` and `web` are one service, shown as spelled last, also after a restart (ch4 case 11)", async () => {
    const storage = memoryStorage();
    await withCatalog(storage, async (catalog) => {
      await catalog.register({ ...n2, service: { id: "a", name: "Web" } });
      await catalog.register({ ...n1, service: { id: "b", name: "web" } });
      assert.deepEqual([...catalog.services().keys()], ["web"]);
      await catalog.register({ ...n2, service: { id: "a", name: "WEB" } });
      assert.deepEqual([...catalog.services().keys()], ["WEB"]);
      assert.equal(catalog.instances("wEb").length, 2);
    });
    await withCatalog(storage, async (catalog) => {
      assert.deepEqual([...catalog.services().keys()], ["WEB"]);
    });
  });

  describe("a name that is spelled in two ways is shown as it is stored", () => {
    // In the order in which they are written: the name is "web" before the steps of each case.
    const web: Registration = { ...n1, service: { id: "db-1", name: "web" } };
    const upper: Registration = { ...n2, service: { id: "x", name: "Web" } };
    const latest: Registration = { ...n1, service: { id: "web", name: "web" } };
    const check = { checkId: "c", serviceId: "db-1", status: "critical" };
    const cases: readonly [what: string, shown: string, ...steps: ((catalog: Catalog) => Promise<unknown>)[]][] = [
      [
        "once the last write went to another name, with a check for an older instance",
        "Web",
        (catalog) => catalog.register({ ...n1, service: { id: "web", name: "api" }, check }),
      ],
      [
        "once the last write was removed together with a change of an older check",
        "Web",
        async (catalog) => {
          await Promise.all([catalog.deregister({ node: "n1", serviceId: "web" }), catalog.register({ ...n1, check })]);
        },
      ],
      [
        "once the last write was removed, and an older instance is checked later",
        "Web",
        (catalog) => catalog.deregister({ node: "n1", serviceId: "web" }),
        (catalog) => catalog.register({ ...n1, check }),
        (catalog) => catalog.updateCheck("n1", "c", "passing", ""),
      ],
      [
        "once the older spelling was the only one for a time",
        "web",
        (catalog) => catalog.deregister({ node: "n2" }),
        (catalog) => catalog.register(upper),
        (catalog) => catalog.deregister({ node: "n2" }),
        (catalog) => catalog.register({ ...web, check }),
      ],
      [
        "once the older spelling was written again",
        "web",
        (catalog) => catalog.deregister({ node: "n1", serviceId: "web" }),
        (catalog) => catalog.register({ ...n1, service: { id: "db-1", name: "web", tags: ["new"] } }),
      ],
      [
        "which a check does not change",
        "web",
        (catalog) => catalog.register({ ...n1, check: { checkId: "last", serviceId: "web" } }),
        (catalog) => catalog.register({ ...n2, check: { checkId: "older", serviceId: "x" } }),
        (catalog) => catalog.register({ ...n2, check: { checkId: "node" } }),
      ],
      [
        "in one commit with others, by the later in byte order",
        "WEB",
        (catalog) =>
          catalog.registerAll([
            { ...n2, service: { id: "z", name: "WEB" } },
            { ...n2, service: { id: "y", name: "web" } },
          ]),
      ],
    ];
    for (const [what, shown, ...steps] of cases) {
      it(what, async () => {
        const storage = memoryStorage();
        const names = (catalog: Catalog): readonly string[] =>
          [...catalog.services().keys()].filter((name) => lowerCase(name) === "web");
        await withCatalog(storage, async (catalog) => {
          await withCatalog(storage, async (other) => {
            for (const registration of [web, upper, latest]) await catalog.register(registration);
            assert.deepEqual(names(catalog), ["web"]);
            for (const step of steps) {
              await step(catalog);
              await withCatalog(storage, async (reloaded) => {
                assert.deepEqual(names(reloaded), names(catalog));
                assert.deepEqual([...reloaded.kinds()], [...catalog.kinds()]);
              });
            }
            assert.deepEqual(names(catalog), [shown]);
            await until(() => other.revision === catalog.revision);
            assert.deepEqual(names(other), [shown], "of another process of the same storage");
          });
        });
      });
    }
  });

  it("keeps all ports of an instance over a restart", async () => {
    const storage = memoryStorage();
    const ports = [
      { name: "http", port: 8_080, default: true },
      { name: "metrics", port: 9_090, default: false },
    ];
    await withCatalog(storage, (catalog) => catalog.register({ ...n1, service: { name: "web", ports } }));
    await withCatalog(storage, async (catalog) => {
      const [found] = catalog.instances("web");
      assert.deepEqual([found?.service.port, found?.service.ports], [8_080, ports]);
    });
  });

  it("does each verb of a transaction", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const node = { name: "n1", address: "10.0.0.1" };
      const set = await catalog.transaction([
        { type: "node", verb: "cas", node, modifyIndex: 0n },
        { type: "service", verb: "set", node: "n1", service: { name: "web" } },
        { type: "check", verb: "set", check: { node: "n1", checkId: "c", serviceId: "web" } },
        { type: "node", verb: "get", node },
      ]);
      assert.deepEqual(
        set.results.map((result) => result.type),
        ["node", "service", "check", "node"],
      );
      for (const result of set.results) {
        const object = result.type === "node" ? result.node : result.type === "service" ? result.service : result.check;
        assert.deepEqual([object.createIndex, object.modifyIndex], [set.index, set.index]);
      }
      const stale = set.index + 7n;
      const rejected = await catalog
        .transaction([
          { type: "node", verb: "get", node: { name: "n9" } },
          { type: "node", verb: "cas", node, modifyIndex: stale },
          { type: "service", verb: "get", node: "n1", service: { id: "no", name: "no" } },
          { type: "service", verb: "cas", node: "n1", service: { name: "web", port: 1 }, modifyIndex: 0n },
          { type: "check", verb: "get", check: { node: "n1", checkId: "no" } },
          { type: "check", verb: "delete-cas", check: { node: "n1", checkId: "c" }, modifyIndex: stale },
          { type: "check", verb: "set", check: { node: "n1", checkId: "d", serviceId: "no" } },
        ])
        .catch((error: unknown) => error);
      assert.ok(rejected instanceof TransactionError);
      assert.deepEqual(
        rejected.errors.map((error) => error.what),
        [
          'node "n9" doesn\'t exist',
          'failed to set node "n1", index is stale',
          'service "no" on node "n1" doesn\'t exist',
          'failed to set service "web" on node "n1", index is stale',
          'check "no" on node "n1" doesn\'t exist',
          'failed to delete check "c" on node "n1", index is stale',
          "Missing service registration",
        ],
      );
      const removed = await catalog.transaction([
        { type: "check", verb: "delete-cas", check: { node: "n1", checkId: "c" }, modifyIndex: set.index },
        { type: "service", verb: "delete", node: "n1", service: { name: "web" } },
        { type: "node", verb: "delete", node: { name: "N1" } },
        { type: "node", verb: "delete", node: { name: "n1" } },
      ]);
      assert.deepEqual(removed.results, []);
      assert.deepEqual([catalog.nodes(), [...(await catalog.checksInState("any"))]], [[], []]);
    });
  });

  it("renames a node whose UUID arrives under a new name, and drops its services and checks", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const id = "40e4a748-2192-161a-0510-9bf59fe950b5";
      const created = await catalog.register({ ...n1, id, service: { name: "web" } });
      await catalog.register({ ...n1, node: "new", id: id.toUpperCase() });
      assert.deepEqual(
        catalog.nodes().map((node) => [node.name, node.createIndex]),
        [["new", created]],
      );
      assert.deepEqual(catalog.instances("web"), []);
      // The old name is free again, and the UUID still leads to the new one.
      await catalog.register({ ...n1, service: { name: "db" } });
      await catalog.register({ ...n1, node: "newer", id });
      assert.deepEqual(
        catalog.nodes().map((node) => node.name),
        ["n1", "newer"],
      );
    });
  });

  it("keeps a name for the UUID that gossip says is alive", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const first = "11111111-2192-161a-0510-9bf59fe950b5";
      const second = "22222222-2192-161a-0510-9bf59fe950b5";
      const serf = (status: string): CheckRegistration => ({ checkId: "serfHealth", name: "Serf", status });
      await catalog.register({ ...n1, id: first, service: { name: "web" }, check: serf("passing") });
      await assert.rejects(catalog.register({ ...n2, node: "N1", id: second }), {
        message:
          `failed inserting node: Error while renaming Node ID: "${second}": ` +
          `Node name N1 is reserved by node ${first} with name n1 (10.0.0.1)`,
      });
      await catalog.register({ ...n1, skipNodeUpdate: true, check: serf("critical") });
      await catalog.register({ ...n2, node: "N1", id: second });
      assert.equal(catalog.node("n1")?.node.id, second);
      assert.equal(catalog.instances("web").length, 1);
    });
  });

  it("prefixes the errors of the store with their origin", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await assert.rejects(catalog.register({ ...n1, service: { name: "web", meta: { "consul-x": "1" } } }), {
        message:
          "failed inserting service: Invalid Service Meta for node n1 and serviceID web: Couldn't load metadata pair " +
          "('consul-x', '1'): Key prefix 'consul-' is reserved for internal use",
      });
      assert.deepEqual(catalog.nodes(), []);
      await assert.rejects(
        catalog.registerAll([
          { ...n1, service: { name: "web" } },
          { ...n2, check: { name: "c", serviceId: "no" } },
        ]),
        { code: "invalid-registration", message: "registration 1: Unknown service ID 'no' for check ID 'c'" },
      );
      assert.deepEqual(catalog.nodes(), []);
    });
  });

  it("moves a check that is registered for another service", async () => {
    const storage = memoryStorage();
    const expected = [
      ["a", []],
      ["b", ["c"]],
    ];
    const seen = (catalog: Catalog): unknown =>
      ["a", "b"].map((name) => [name, catalog.serviceChecks(name).map((check) => check.checkId)]);
    await withCatalog(storage, async (catalog) => {
      await catalog.register({ ...n1, service: { name: "a" }, check: { name: "c", serviceId: "a" } });
      await catalog.register({ ...n1, service: { name: "b" }, check: { name: "C", checkId: "c", serviceId: "b" } });
      assert.deepEqual(seen(catalog), expected);
    });
    await withCatalog(storage, async (catalog) => assert.deepEqual(seen(catalog), expected));
  });

  it("finds instances by connect name, and knows the kinds of each name", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await catalog.registerAll([
        { ...n1, service: { name: "web" } },
        { ...n1, service: proxy("p1", "Web") },
        { ...n1, service: { name: "api", port: 1, connect: { native: true } } },
        { ...n1, service: { name: "gw", kind: "mesh-gateway", port: 443 } },
        { ...n1, service: proxy("p2", "Ghost") },
      ]);
      assert.deepEqual(
        catalog.connectInstances("web").map(({ service }) => service.id),
        ["p1"],
      );
      assert.deepEqual(
        [...catalog.kinds().values()].map((kinds) => [
          kinds.name,
          kinds.typical,
          kinds.connectEnabled,
          [...kinds.kinds],
        ]),
        [
          ["web", true, true, [""]],
          ["p1-name", false, false, ["connect-proxy"]],
          ["api", true, true, [""]],
          ["gw", false, false, ["mesh-gateway"]],
          ["p2-name", false, false, ["connect-proxy"]],
          ["Ghost", false, true, []],
        ],
      );
      const index = catalog.index.connect("web");
      const moved = await catalog.register({
        ...n1,
        service: { ...proxy("p1", "Web"), name: "p1-name", port: 20_001 },
      });
      assert.ok(
        moved > index && catalog.index.connect("web") === moved && catalog.index.kind("connect-proxy") === moved,
      );
      assert.equal(catalog.index.kind("mesh-gateway"), index);
    });
  });

  it("a long registration is written in steps, and read in steps where its caller wants that", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const long = (node: string): Registration => ({
        node,
        address: "10.0.0.1",
        checks: Array.from({ length: 4_000 }, (_, index) => ({ checkId: `c${index}`, name: "c", status: "passing" })),
      });
      const few = await turnsDuring(catalog.register({ ...n1, service: { name: "web" } }));
      const written = await turnsDuring(catalog.register(long("n2")));
      const read = await turnsDuring(catalog.register(long("n3"), { inTurns: true }));
      assert.ok(written >= few + 3, `${few} and ${written} turns`);
      assert.ok(read >= written + 3, `${written} and ${read} turns`);
      assert.equal(catalog.node("n3")?.checks.length, 4_000);
    });
  });

  it("writes that come while a long one is made come after it, and see it", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await catalog.register(n1);
      const checks = Array.from({ length: 4_000 }, (_, index) => ({
        checkId: `c${index}`,
        name: "c",
        status: "passing",
      }));
      const order: string[] = [];
      const note = (name: string) => () => order.push(name);
      await Promise.all([
        catalog.register({ ...n1, checks }).then(note("long")),
        nextTurn()
          .then(() => catalog.updateCheck("n1", "c3999", "critical", "gone"))
          .then((found) => assert.equal(found, true))
          .then(note("update")),
      ]);
      assert.deepEqual(order, ["long", "update"]);
      assert.equal(catalog.check("n1", "c3999")?.status, "critical");
    });
  });

  it("a close waits for a long write that is being made", async () => {
    const storage = memoryStorage();
    const checks = Array.from({ length: 4_000 }, (_, index) => ({
      checkId: `c${index}`,
      name: "c",
      status: "passing",
    }));
    const catalog = await Catalog.open({ storage, datacenter: "dc1" });
    const written = catalog.register({ ...n1, checks });
    await nextTurn();
    await catalog.close();
    assert.ok((await written) > 0n, "it was written");
    await withCatalog(storage, async (reopened) => {
      assert.equal(reopened.node("n1")?.checks.length, 4_000);
    });
  });

  it("very many virtual IPs are claimed in several commits, with turns for others in between", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const names = Array.from({ length: 5_000 }, (_, index) => `s${index}`);
      const revisions = new Set<bigint>();
      const claimed = catalog.claimVirtualIps("", names);
      for (let isOver = false; !isOver; ) {
        isOver = await Promise.race([claimed.then(() => true), nextTurn().then(() => false)]);
        revisions.add(catalog.revision);
      }
      assert.ok(revisions.size >= 3, `${revisions.size} commits were seen`);
      assert.equal(catalog.claimedVirtualIps("").size, names.length);
    });
  });

  it("virtual IPs are assigned, shown, freed when unused and used again (ch4 case 83)", async () => {
    const storage = memoryStorage();
    await withCatalog(storage, async (catalog) => {
      await catalog.register({ ...n1, service: { name: "web" } });
      assert.equal(catalog.virtualIp("web"), undefined, "an ordinary instance needs none");
      await catalog.register({ ...n1, service: proxy("p1", "web") });
      await catalog.register({ ...n1, service: proxy("p2", "db") });
      assert.deepEqual([catalog.virtualIp("WEB"), catalog.virtualIp("db")], ["240.0.0.1", "240.0.0.2"]);
      assert.deepEqual(catalog.instances("p1-name")[0]?.service.taggedAddresses, {
        "consul-virtual": { address: "240.0.0.1", port: 20_000 },
      });
      // Two peers' `web` are two services.
      for (const peer of ["alpha", "beta"]) await catalog.claimVirtualIps(peer, ["web"]);
      assert.equal(catalog.virtualIp("web", "alpha"), "240.0.0.3");
      assert.equal(catalog.virtualIp("web", "beta"), "240.0.0.4");
      assert.deepEqual(await catalog.assignManualVirtualIps("web", ["10.9.9.9"]), []);
      // Either the proxy or the instance alone keeps the address.
      await catalog.deregister({ node: "n1", serviceId: "p1" });
      assert.equal(catalog.virtualIp("web"), "240.0.0.1");
    });
    await withCatalog(storage, async (catalog) => {
      assert.equal(catalog.virtualIp("web"), "240.0.0.1");
      assert.equal(catalog.virtualIp("web", "beta"), "240.0.0.4");
      assert.deepEqual(catalog.manualVirtualIps("web"), ["10.9.9.9"]);
      await catalog.register({ ...n1, service: proxy("p1", "web") });
      await catalog.deregister({ node: "n1", serviceId: "web" });
      assert.equal(catalog.virtualIp("web"), "240.0.0.1");
      await catalog.deregister({ node: "n1", serviceId: "p1" });
      assert.equal(catalog.virtualIp("web"), undefined);
      await catalog.releaseVirtualIps("alpha", ["web"]);
      await catalog.register({ ...n1, service: { name: "api", port: 1, connect: { native: true } } });
      assert.equal(catalog.virtualIp("api"), "240.0.0.1");
      await catalog.register({ ...n1, service: proxy("p3", "cache") });
      assert.equal(catalog.virtualIp("cache"), "240.0.0.3");
      // A failed registration takes no address.
      await assert.rejects(
        catalog.register({ ...n1, service: proxy("p4", "x"), check: { name: "c", serviceId: "no" } }),
      );
      await catalog.register({ ...n1, service: proxy("p5", "y") });
      assert.equal(catalog.virtualIp("y"), "240.0.0.5");
      // A proxy that changes its destination gives up the old one's.
      await catalog.register({ ...n1, service: proxy("p5", "z") });
      assert.deepEqual([catalog.virtualIp("y"), catalog.virtualIp("z")], [undefined, "240.0.0.6"]);
    });
  });

  it("lets each address that an operator gives belong to the last service that it was given to, over a restart", async () => {
    const names = ["a", "b", "c", "d"];
    const addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    const step = fc.record({ service: fc.constantFrom(...names), given: fc.subarray(addresses) });
    const give = (service: string, address: string) => ({ service, given: [address] });
    // In the second commit b is changed before a, and takes the address of a all the same.
    const takenOver = [
      [give("a", "10.0.0.1")],
      [give("b", "10.0.0.2"), give("b", "10.0.0.1")],
      [give("c", "10.0.0.1")],
    ];
    await fc.assert(
      // Those of one list wait together, and share a commit.
      fc.asyncProperty(fc.array(fc.array(step, { minLength: 1, maxLength: 4 }), { maxLength: 6 }), async (groups) => {
        const storage = memoryStorage();
        const model = new Map<string, readonly string[]>(names.map((name) => [name, []]));
        const isAsInModel = (catalog: Catalog): void => {
          for (const name of names) assert.deepEqual(catalog.manualVirtualIps(name), model.get(name));
        };
        await withCatalog(storage, async (catalog) => {
          await catalog.claimVirtualIps("", names);
          for (const group of groups) {
            const expected = group.map(({ service, given }) => {
              const taken = names.filter(
                (name) => name !== service && model.get(name)?.some((address) => given.includes(address)),
              );
              for (const name of taken) {
                model.set(name, model.get(name)?.filter((address) => !given.includes(address)) ?? []);
              }
              model.set(service, given);
              return taken;
            });
            const answers = await Promise.all(
              group.map(({ service, given }) => catalog.assignManualVirtualIps(service, given)),
            );
            assert.deepEqual(answers, expected);
            isAsInModel(catalog);
          }
        });
        await withCatalog(storage, async (catalog) => isAsInModel(catalog));
      }),
      { numRuns: 60, examples: [[takenOver]] },
    );
  });

  it("commits waiting writes in one commit, and gives each caller its own result", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await withCatalog(storage, async (catalog) => {
      const results = await Promise.allSettled([
        catalog.register({ ...n1, service: { name: "web" } }),
        catalog.register({ ...n2, check: { name: "c", serviceId: "no" } }),
        catalog.register({ ...n2, service: { name: "web" } }),
        catalog.deregister({ node: "n1", serviceId: "web" }),
      ]);
      assert.deepEqual(
        results.map((result) => result.status),
        ["fulfilled", "rejected", "fulfilled", "fulfilled"],
      );
      assert.equal(storage.commits, 1);
      assert.deepEqual(
        catalog.instances("web").map(({ node }) => node.name),
        ["n2"],
      );
    });
  });

  it("names the key of an entry that is corrupt", async () => {
    const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
    const cases: readonly (readonly [Key, string])[] = [
      [["catalog", "node", "n1"], "{"],
      [["catalog", "node", "n1"], "[]"],
      [["catalog", "node", "n1"], '{"node":{"name":"n1","address":7}}'],
      [["catalog", "node", "n1"], '{"node":{"name":"n1"},"c":"x"}'],
      [["catalog", "service", "n1", "web"], '{"service":{"id":"web","name":"web"}}'],
      [["catalog", "check", "n1", "", "c"], "{}"],
      [["catalog", "check", "n1", "", "c"], '{"check":{"checkId":"c","name":"c","status":"passing"}}'],
      [["catalog", "check", "n1", "web", "c"], '{"check":{"checkId":"c","status":"passing","serviceId":"web"}}'],
      [["catalog", "virtual-ip", "~", "web"], "{}"],
      [["catalog", "something"], "{}"],
    ];
    for (const [key, value] of cases) {
      const storage = memoryStorage();
      await storage.commit([{ key, value: bytes(value) }]);
      await assert.rejects(Catalog.open({ storage, datacenter: "dc1" }), (error) => {
        assert.ok(error instanceof PeeringError && error.code === "storage-failed");
        assert.ok(error.message.includes(key.join("/")), error.message);
        return true;
      });
    }
  });

  it("refuses entries that a version before 0.1 wrote, with their checks in them, and says what to do", async () => {
    const checks = [{ check: { checkId: "c", name: "c", status: "passing" } }];
    const node = { key: ["catalog", "node", "n1"], value: Buffer.from(JSON.stringify({ node: { name: "n1" } })) };
    for (const write of [
      { key: node.key, value: Buffer.from(JSON.stringify({ node: { name: "n1" }, checks })) },
      {
        key: ["catalog", "service", "n1", "web"],
        value: Buffer.from(JSON.stringify({ service: { id: "web", name: "web" }, checks })),
      },
    ]) {
      const storage = memoryStorage();
      await storage.commit([node, write]);
      const key = write.key.join("/");
      await assert.rejects(Catalog.open({ storage, datacenter: "dc1" }), {
        code: "storage-failed",
        message: new RegExp(`${key} is damaged: it was written by a version before 0.1, so begin with an empty data`),
      });
    }
  });

  it("writes the check that changes, and nothing else of its node or service", async () => {
    const storage = memoryStorage();
    const commit = mock.method(storage, "commit");
    await withCatalog(storage, async (catalog) => {
      const checks = (serviceId: string, prefix: string): readonly CheckRegistration[] =>
        Array.from({ length: 200 }, (_, index) => ({ checkId: `${prefix}${index}`, name: "c", serviceId }));
      await catalog.register({ ...n1, service: { name: "web" }, checks: [...checks("", "n"), ...checks("web", "s")] });
      const written = (): readonly string[] =>
        (commit.mock.calls.at(-1)?.arguments[0] ?? []).map(
          ({ key, value }) => `${value === undefined ? "delete" : "put"} ${key.join("/")}`,
        );
      assert.equal(written().length, 403);
      await catalog.updateCheck("n1", "n7", "passing", "");
      assert.deepEqual(written(), ["put catalog/check/n1//n7", "put catalog/head"]);
      await catalog.updateCheck("n1", "s7", "passing", "");
      assert.deepEqual(written(), ["put catalog/check/n1/web/s7", "put catalog/head"]);
      await catalog.deregister({ node: "n1", checkId: "s8" });
      assert.deepEqual(written(), ["delete catalog/check/n1/web/s8", "put catalog/head"]);
      // From the node to the service, and nothing is left of it at the node.
      await catalog.register({ ...n1, check: { checkId: "n7", name: "c", status: "passing", serviceId: "web" } });
      assert.deepEqual(written(), ["delete catalog/check/n1//n7", "put catalog/check/n1/web/n7", "put catalog/head"]);
      await catalog.register({ ...n1, address: "10.0.0.9" });
      assert.deepEqual(written(), ["put catalog/node/n1", "put catalog/head"]);
      await catalog.deregister({ node: "n1", serviceId: "web" });
      assert.equal(written().filter((write) => write.startsWith("delete catalog/check/n1/web/")).length, 200);
      assert.equal(written().length, 202);
      await catalog.deregister({ node: "n1" });
      assert.equal(written().length, 201);
    });
    assert.deepEqual(
      (await storage.read(["catalog"])).entries.map(({ key }) => key),
      [["catalog", "head"]],
    );
  });

  it("keeps the name and the tags that a check got from its service, over a change of it and a restart", async () => {
    const storage = memoryStorage();
    const shown = (catalog: Catalog): unknown => catalog.check("n1", "c");
    const before = await withCatalog(storage, async (catalog) => {
      const check = { checkId: "c", name: "c", serviceId: "web" };
      await catalog.register({ ...n1, service: { id: "web", name: "web", tags: ["a"] }, check });
      await catalog.register({ ...n1, service: { id: "WEB", name: "Web2", tags: ["b"] } });
      return shown(catalog);
    });
    assert.deepEqual(await withCatalog(storage, (catalog) => Promise.resolve(shown(catalog))), before);
  });

  it("lists many checks in the order of their ids as UTF-8, also after a restart", async () => {
    const storage = memoryStorage();
    const ids = Array.from({ length: 80 }, (_, index) => [`a${index}`, `\uff5e${index}`, `\u{1f600}${index}`]).flat();
    const sorted = ids.toSorted((left, right) => Buffer.compare(Buffer.from(left), Buffer.from(right)));
    const listed = (catalog: Catalog): readonly (readonly string[])[] => [
      catalog.node("n1")?.checks.map(({ checkId }) => checkId) ?? [],
      catalog.instances("web")[0]?.checks.map(({ checkId }) => checkId) ?? [],
      // An instance with many checks is a plain value as every other.
      { ...catalog.instances("web")[0] }.checks?.map(({ checkId }) => checkId) ?? [],
      structuredClone(catalog.instances("web")[0])?.checks.map(({ checkId }) => checkId) ?? [],
    ];
    await withCatalog(storage, async (catalog) => {
      await catalog.register({ ...n1, service: { name: "web" } });
      await Promise.all(ids.map((checkId) => catalog.register({ ...n1, check: { checkId, name: "c" } })));
      assert.deepEqual(listed(catalog), [sorted, sorted, sorted, sorted]);
    });
    await withCatalog(storage, async (catalog) => {
      assert.deepEqual(listed(catalog), [sorted, sorted, sorted, sorted]);
    });
  });

  it("refuses writes after it was disposed of, and ends its watches", async () => {
    const catalog = await Catalog.open({ storage: memoryStorage(), datacenter: "dc1" });
    const watch = catalog.watch({ signal: never });
    await watch.next();
    const end = watch.next();
    const waiting = catalog.indexAfter(() => catalog.index.nodes, 100n);
    waiting.catch(() => {});
    await catalog[Symbol.asyncDispose]();
    assert.equal((await end).done, true);
    await assert.rejects(waiting, { code: "closed" });
    await assert.rejects(catalog.register(n1), { code: "closed" });
  });
});

// A model that is as simple as possible: lists that are searched from end to end.

interface Stamped<Value> {
  readonly value: Value;
  readonly created: bigint;
  readonly modified: bigint;
}

class Model {
  nodes: Stamped<Node>[] = [];
  services: Stamped<{ node: string; service: Service }>[] = [];
  checks: Stamped<Check>[] = [];

  register(registration: Registration, index: bigint): void {
    const { node, service, checks } = parseRegistration(registration, "dc1");
    const at = node.name.toLowerCase();
    const known = this.nodes.find(({ value }) => value.name.toLowerCase() === at);
    if (known === undefined || (registration.skipNodeUpdate !== true && !sameNode(known.value, node))) {
      this.nodes = this.nodes.filter((entry) => entry !== known);
      this.nodes.push({ value: node, created: known?.created ?? index, modified: index });
    }
    if (service !== undefined) {
      const before = this.service(at, service.id);
      if (before === undefined || !sameService(before.value.service, service)) {
        this.services = this.services.filter((entry) => entry !== before);
        this.services.push({ value: { node: at, service }, created: before?.created ?? index, modified: index });
      }
    }
    for (const given of checks) {
      const owner = given.serviceId === "" ? undefined : this.service(at, given.serviceId)?.value.service;
      const check = owner ? { ...given, serviceName: owner.name, serviceTags: owner.tags } : given;
      const before = this.checks.find(
        ({ value }) => value.node.toLowerCase() === at && value.checkId.toLowerCase() === check.checkId.toLowerCase(),
      );
      if (before !== undefined && sameCheck(before.value, check)) continue;
      this.checks = this.checks.filter((entry) => entry !== before);
      this.checks.push({ value: check, created: before?.created ?? index, modified: index });
    }
  }

  refuses(registration: Registration): boolean {
    const { node, service, checks } = parseRegistration(registration, "dc1");
    return checks.some(
      ({ serviceId }) =>
        serviceId !== "" &&
        serviceId !== service?.id &&
        this.service(node.name.toLowerCase(), serviceId)?.value.service.id !== serviceId,
    );
  }

  deregister({ node, serviceId, checkId }: Deregistration): void {
    const on = (name: string): boolean => name.toLowerCase() === node.toLowerCase();
    const same = (left: string, right: string): boolean => left.toLowerCase() === right.toLowerCase();
    if (serviceId !== undefined) {
      this.services = this.services.filter(({ value }) => !(on(value.node) && same(value.service.id, serviceId)));
      this.checks = this.checks.filter(({ value }) => !(on(value.node) && same(value.serviceId, serviceId)));
    } else if (checkId !== undefined) {
      this.checks = this.checks.filter(({ value }) => !(on(value.node) && same(value.checkId, checkId)));
    } else {
      this.nodes = this.nodes.filter(({ value }) => !on(value.name));
      this.services = this.services.filter(({ value }) => !on(value.node));
      this.checks = this.checks.filter(({ value }) => !on(value.node));
    }
  }

  service(node: string, id: string): Stamped<{ node: string; service: Service }> | undefined {
    return this.services.find(
      ({ value }) => value.node === node && value.service.id.toLowerCase() === id.toLowerCase(),
    );
  }

  instances(name: string): readonly IndexedInstance[] {
    const indexed = <Value extends object>(
      entry: Stamped<Value>,
    ): Value & { createIndex: bigint; modifyIndex: bigint } => ({
      ...entry.value,
      createIndex: entry.created,
      modifyIndex: entry.modified,
    });
    return this.services
      .filter(({ value }) => value.service.name.toLowerCase() === name)
      .sort((left, right) => {
        const key = ({ value }: typeof left): string => `${value.node}/${value.service.id.toLowerCase()}`;
        return key(left) < key(right) ? -1 : 1;
      })
      .map((entry) => {
        const { node, service } = entry.value;
        const [record] = this.nodes.filter(({ value }) => value.name.toLowerCase() === node);
        if (record === undefined) return assert.fail("the model lost a node");
        const checks = (owner: string): readonly Stamped<Check>[] =>
          this.checks
            .filter(
              ({ value }) => value.node.toLowerCase() === node && value.serviceId.toLowerCase() === owner.toLowerCase(),
            )
            .sort((left, right) => (left.value.checkId.toLowerCase() < right.value.checkId.toLowerCase() ? -1 : 1));
        return {
          node: indexed(record),
          service: { ...service, createIndex: entry.created, modifyIndex: entry.modified },
          checks: [...checks(""), ...checks(service.id)].map(indexed),
        };
      });
  }
}

const names = ["web", "db", "api"];
const nodeNames = ["n1", "N1", "n2", "n3"];
const checkIds = ["c1", "C1", "c2"];

const checkArbitrary: fc.Arbitrary<CheckRegistration> = fc.record(
  {
    checkId: fc.constantFrom(...checkIds),
    serviceId: fc.constantFrom("", "", "web", "WEB", "db-1"),
    status: fc.constantFrom("passing", "critical"),
    interval: fc.constantFrom("1s", "2s"),
    definition: fc.constantFrom({}, { http: "x" }),
  },
  { requiredKeys: ["checkId"] },
);

const registrationArbitrary: fc.Arbitrary<Registration> = fc.record(
  {
    node: fc.constantFrom(...nodeNames),
    address: fc.constantFrom("10.0.0.1", "10.0.0.2"),
    nodeMeta: fc.constantFrom({}, { rack: "r1" }),
    skipNodeUpdate: fc.boolean(),
    service: fc.record(
      {
        name: fc.constantFrom("web", "Web", "db", "api"),
        id: fc.constantFrom("web", "WEB", "db-1"),
        tags: fc.constantFrom([], ["a"]),
        port: fc.constantFrom(0, 80),
      },
      { requiredKeys: ["name"] },
    ),
    checks: fc.array(checkArbitrary, { maxLength: 2 }),
  },
  { requiredKeys: ["node", "address"] },
);

type Step = { readonly register: Registration } | { readonly deregister: Deregistration };

const stepArbitrary: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ register: registrationArbitrary }) },
  {
    weight: 2,
    arbitrary: fc.record({
      deregister: fc.record(
        {
          node: fc.constantFrom(...nodeNames),
          serviceId: fc.constantFrom("web", "WEB", "db-1", "api"),
          checkId: fc.constantFrom(...checkIds),
        },
        { requiredKeys: ["node"] },
      ),
    }),
  },
);

async function perform(catalog: Catalog, step: Step): Promise<bigint> {
  return "register" in step ? catalog.register(step.register) : catalog.deregister(step.deregister);
}

/** A listing read bit by bit must equal the same read at once. */
async function listed(catalog: Catalog, name: string): Promise<unknown> {
  const [node, contents] = [catalog.node(name), await catalog.nodeContents(name)];
  const checks = node?.checks.toSorted((left, right) => compareUtf8(lowerCase(left.checkId), lowerCase(right.checkId)));
  const found = contents && { ...contents, services: [...contents.services], checks: [...contents.checks] };
  assert.deepEqual(found, node && { ...node, checks });
  return found;
}

async function everything(catalog: Catalog): Promise<unknown> {
  return {
    nodes: catalog.nodes().map((node) => catalog.node(node.name)),
    services: [...catalog.services()],
    instances: [...catalog.services().keys()].map((name) => [...catalog.indexedInstances(name)]),
    views: [...catalog.services().keys()].map((name) => catalog.instances(name)),
    checks: [...(await catalog.checksInState("any"))],
    listed: await Promise.all([...(await catalog.nodeListing())].map(({ name }) => listed(catalog, name))),
    names: await catalog.serviceNames(),
    kinds: [...catalog.kinds()].sort(([left], [right]) => (left < right ? -1 : 1)),
  };
}

describe("catalog, random writes", () => {
  it("equals a naive model, and moves the index of a read exactly when its answer changed", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(stepArbitrary, { maxLength: 25 }), async (steps) => {
        const storage = memoryStorage();
        await withCatalog(storage, async (catalog) => {
          const model = new Model();
          for (const step of steps) {
            const before = names.map(
              (name) => [catalog.index.service(name), [...catalog.indexedInstances(name)]] as const,
            );
            const { revision } = catalog;
            if ("register" in step && model.refuses(step.register)) {
              await assert.rejects(perform(catalog, step), { code: "invalid-registration" });
            } else {
              const index = await perform(catalog, step);
              if ("register" in step) model.register(step.register, index);
              else model.deregister(step.deregister);
            }
            for (const [position, name] of names.entries()) {
              const instances = [...catalog.indexedInstances(name)];
              assert.deepEqual(instances, model.instances(name));
              const [index, earlier] = before[position] ?? assert.fail();
              if (instances.length === 0 && earlier.length === 0) continue;
              let equal = true;
              try {
                assert.deepEqual(instances, earlier);
              } catch {
                equal = false;
              }
              assert.equal(catalog.index.service(name), equal ? index : catalog.revision, name);
              if (!equal) assert.ok(catalog.revision > revision);
            }
          }
          const live = await everything(catalog);
          await withCatalog(storage, async (reloaded) => {
            assert.deepEqual(await everything(reloaded), live);
            assert.equal(reloaded.revision, catalog.revision);
          });
        });
      }),
      { numRuns: 150 },
    );
  });

  it("gives the same when writes share commits as when each has its own", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(stepArbitrary, { maxLength: 25 }), async (steps) => {
        const shared = memoryStorage();
        const strip = (catalog: Catalog): unknown => names.map((name) => catalog.instances(name));
        await withCatalog(shared, async (together) => {
          const outcomes = await Promise.allSettled(steps.map((step) => perform(together, step)));
          await withCatalog(memoryStorage(), async (apart) => {
            for (const [position, step] of steps.entries()) {
              const fulfilled = await perform(apart, step).then(
                () => true,
                () => false,
              );
              assert.equal(outcomes[position]?.status, fulfilled ? "fulfilled" : "rejected");
            }
            assert.deepEqual(strip(together), strip(apart));
          });
          const live = await everything(together);
          await withCatalog(shared, async (reloaded) => assert.deepEqual(await everything(reloaded), live));
        });
      }),
      { numRuns: 100 },
    );
  });
});

function nextTurn(): Promise<undefined> {
  return new Promise((resolve) => {
    setImmediate(() => resolve(undefined));
  });
}

describe("catalog watch", () => {
  it("begins with everything, also with nothing", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const empty = await catalog.watch({ signal: never }).next();
      assert.deepEqual(empty.value, { services: new Map(), revision: 0n });
      await catalog.register({ ...n1, service: { name: "web" } });
      const first = await catalog.watch({ signal: never }).next();
      assert.deepEqual(first.value, {
        services: new Map([["web", catalog.instances("web")]]),
        revision: catalog.revision,
      });
    });
  });

  it("delivers right after the commit, and says so when a name is gone", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const watch = catalog.watch({ signal: never });
      await watch.next();
      const changed = watch.next();
      await catalog.register({ ...n1, service: { name: "Web" } });
      assert.deepEqual([...((await changed).value?.services.keys() ?? [])], ["Web"]);
      const gone = watch.next();
      await catalog.deregister({ node: "n1" });
      assert.deepEqual((await gone).value?.services, new Map([["Web", []]]));
    });
  });

  it("ends when its signal aborts", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      const stop = new AbortController();
      const watch = catalog.watch({ signal: stop.signal });
      await watch.next();
      const end = watch.next();
      stop.abort();
      assert.equal((await end).done, true);
    });
  });

  it("a slow consumer ends with the final state, and revisions grow (ch4 case 80)", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(stepArbitrary, fc.constant("read" as const)), { maxLength: 40 }),
        async (steps) => {
          await withCatalog(memoryStorage(), async (catalog) => {
            const stop = new AbortController();
            const seen = new Map<string, unknown>();
            let revision = -1n;
            const fold = (update: CatalogUpdate): void => {
              assert.ok(update.revision > revision);
              revision = update.revision;
              for (const [name, instances] of update.services) {
                if (instances.length === 0) seen.delete(name.toLowerCase());
                else seen.set(name.toLowerCase(), instances);
              }
            };
            const watch = catalog.watch({ signal: stop.signal });
            let pending: Promise<IteratorResult<CatalogUpdate, void>> | undefined;
            for (const step of steps) {
              if (step === "read") {
                pending ??= watch.next();
                // Only what is there by now is taken: otherwise this reader would wait for a later write.
                const result = await Promise.race([pending, nextTurn()]);
                if (result === undefined || result.done === true) continue;
                pending = undefined;
                fold(result.value);
              } else await perform(catalog, step).catch(() => {});
            }
            pending ??= watch.next();
            for (;;) {
              const result = await Promise.race([pending, nextTurn()]);
              if (result === undefined || result.done === true) break;
              fold(result.value);
              pending = watch.next();
            }
            stop.abort();
            await pending;
            const final = new Map(
              [...catalog.services().keys()].map((name) => [name.toLowerCase(), catalog.instances(name)]),
            );
            assert.deepEqual(seen, final);
          });
        },
      ),
      { numRuns: 100 },
    );
  });

  it("the writes of one transaction are never seen apart (ch4 case 81)", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 20 }), async (pauses) => {
        await withCatalog(memoryStorage(), async (catalog) => {
          const stop = new AbortController();
          const seen = new Map<string, number | undefined>();
          let updates = 0;
          const reading = (async () => {
            for await (const { services } of catalog.watch({ signal: stop.signal })) {
              updates++;
              for (const [name, instances] of services) seen.set(name, instances[0]?.service.port);
              assert.equal(seen.get("a"), seen.get("b"));
              for (let turns = pauses[updates % pauses.length] ?? 0; turns > 0; turns--) await Promise.resolve();
            }
          })();
          for (const [position, pause] of pauses.entries()) {
            const port = position + 1;
            const writing = catalog.transaction([
              { type: "node", verb: "set", node: { name: "n1", address: "10.0.0.1" } },
              { type: "service", verb: "set", node: "n1", service: { name: "a", port } },
              { type: "service", verb: "set", node: "n1", service: { name: "b", port } },
            ]);
            const port_ = catalog.instances("a")[0]?.service.port;
            assert.equal(catalog.instances("b")[0]?.service.port, port_);
            if (pause > 0) await writing;
          }
          await catalog.register({ ...n1, service: { name: "end" } });
          await nextTurn();
          stop.abort();
          await reading;
          assert.equal(seen.get("a"), pauses.length);
          assert.ok(updates > 0);
        });
      }),
      { numRuns: 50 },
    );
  });
});

async function until(condition: () => boolean): Promise<void> {
  for (let turns = 0; !condition(); turns++) {
    assert.ok(turns < 10_000, "it never came true");
    await nextTurn();
  }
}

describe("catalog over a failing storage", () => {
  it("rejects with `storage-failed` and changes nothing when a commit fails", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await withCatalog(storage, async (catalog) => {
      await catalog.register({ ...n1, service: { name: "web", port: 80 } });
      const before = await everything(catalog);
      const watch = catalog.watch({ signal: never });
      await watch.next();
      storage.failCommit = new PeeringError("storage-failed", "no space left on device");
      const writes = await Promise.allSettled([
        catalog.register({ ...n1, service: { name: "web", port: 81 } }),
        catalog.register({ ...n2, service: proxy("p", "web") }),
        catalog.deregister({ node: "n1" }),
      ]);
      for (const write of writes) {
        assert.ok(write.status === "rejected" && write.reason instanceof PeeringError);
        assert.equal(write.reason.code, "storage-failed");
      }
      assert.deepEqual(await everything(catalog), before);
      assert.equal(catalog.virtualIp("web"), undefined);
      storage.failCommit = undefined;
      const changed = watch.next();
      await catalog.register({ ...n2, service: { name: "db" } });
      assert.deepEqual([...((await changed).value?.services.keys() ?? [])], ["db"]);
    });
  });

  it("readers see nothing of a commit that is under way", async () => {
    const storage = memoryStorage();
    let release: () => void = () => {};
    const slow = storageWith(storage, {
      commit: async (...given) => {
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        return storage.commit(...given);
      },
    });
    await withCatalog(slow, async (catalog) => {
      const writing = catalog.register({ ...n1, service: { name: "web" } });
      await nextTurn();
      assert.deepEqual([catalog.nodes(), catalog.instances("web"), catalog.revision], [[], [], 0n]);
      release();
      await writing;
      assert.equal(catalog.instances("web").length, 1);
    });
  });

  it("reads again what became of a commit that was not answered", async () => {
    const storage = new FaultyStorage(memoryStorage());
    await withCatalog(storage, async (catalog) => {
      storage.failAfterCommit = new PeeringError("unavailable", "no answer");
      await assert.rejects(catalog.register({ ...n1, service: { name: "web" } }), { code: "unavailable" });
      storage.failAfterCommit = undefined;
      await catalog.register({ ...n2, service: { name: "web" } });
      assert.equal(catalog.instances("web").length, 2);
    });
  });

  it("judges a write again when another host wrote first", async () => {
    const storage = memoryStorage();
    await withCatalog(storage, async (one) => {
      await withCatalog(storage, async (other) => {
        const [first, second] = await Promise.allSettled([
          one.register({ ...n1, service: { name: "web" } }),
          other.register({ ...n1, node: "N1", skipNodeUpdate: true, service: { name: "db" } }),
        ]);
        assert.deepEqual([first.status, second.status], ["fulfilled", "fulfilled"]);
        await until(() => one.revision === other.revision);
        assert.deepEqual(await everything(one), await everything(other));
        assert.deepEqual([...one.services().keys()], ["db", "web"]);
        assert.equal(one.nodes().length, 1);
      });
    });
  });

  it("a storage watch that drops is resumed and nothing is lost (ch4 case 82)", async () => {
    const shared = memoryStorage();
    const storage = new FaultyStorage(shared);
    const clock = instantClock();
    await withCatalog(
      storage,
      async (catalog) => {
        const stop = new AbortController();
        const seen: string[] = [];
        const reading = (async () => {
          for await (const { services } of catalog.watch({ signal: stop.signal })) seen.push(...services.keys());
        })();
        await withCatalog(shared, async (other) => {
          await other.register({ ...n1, service: { name: "before" } });
          await until(() => seen.includes("before"));
          storage.failRead = new PeeringError("unavailable", "the storage does not answer");
          storage.breakWatches();
          await other.register({ ...n1, service: { name: "meanwhile" } });
          await until(() => clock.waits.length > 4);
          assert.ok(!seen.includes("meanwhile"));
          storage.failRead = undefined;
          storage.mendWatches();
          await until(() => seen.includes("meanwhile"));
          await other.register({ ...n1, service: { name: "after" } });
          await until(() => seen.includes("after"));
        });
        assert.deepEqual(clock.waits.slice(0, 4), [0, 500, 1000, 2000]);
        stop.abort();
        await reading;
      },
      clock,
    );
  });
});

describe("a judge of a write", () => {
  const judged: Judge = (touched) => {
    for (const each of touched) {
      if (each.type === "node" || each.service !== "mine")
        throw new PeeringError("permission-denied", JSON.stringify(each));
    }
  };
  const mine: Registration = {
    ...n1,
    service: { name: "mine", port: 1 },
    check: { checkId: "c", name: "c", serviceId: "mine", status: "passing" },
  };

  it("sees the catalog of the moment when the write is applied, and not when it was requested", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await catalog.registerAll([{ ...n1, service: { name: "other", port: 1 } }]);
      const check = { checkId: "c", name: "c", serviceId: "other", status: "passing" };
      const [, taken] = await Promise.allSettled([
        catalog.register({ ...n1, check }),
        catalog.register(mine, { judge: judged }),
      ]);
      assert.equal(taken.status, "rejected");
      assert.match(String(taken.reason), /"service":"other","removed":true/);
      assert.deepEqual(
        catalog.node("n1")?.checks.map(({ serviceId }) => serviceId),
        ["other"],
      );
      assert.deepEqual([...catalog.services().keys()], ["other"]);
    });
  });

  it("lets pass what changes nothing, and every write that it allows", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await catalog.register(n1);
      await catalog.register(mine, { judge: judged });
      await catalog.register(n1, { judge: judged });
      await catalog.deregister({ node: "n1", serviceId: "mine" }, { judge: judged });
      assert.equal(catalog.services().size, 0);
      await assert.rejects(catalog.deregister({ node: "n1" }, { judge: judged }), /"type":"node","node":"n1"/);
      assert.equal(catalog.nodes().length, 1);
    });
  });

  it("refuses the one operation of a transaction that it throws for", async () => {
    await withCatalog(memoryStorage(), async (catalog) => {
      await catalog.register({ ...n1, service: { name: "other", port: 1 } });
      const refused = catalog.transaction(
        [
          { type: "service", verb: "set", node: "n1", service: { name: "mine", port: 1 } },
          { type: "service", verb: "delete", node: "n1", service: { name: "other" } },
        ],
        { judge: judged },
      );
      await assert.rejects(refused, (error) => {
        assert.ok(error instanceof TransactionError);
        assert.deepEqual(
          error.errors.map(({ operationIndex }) => operationIndex),
          [1],
        );
        return true;
      });
      assert.deepEqual([...catalog.services().keys()], ["other"]);
    });
  });
});
