import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import type { Registration, TransactionOperation } from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { Catalog } from "../../../src/stores/catalog.js";
import { storageWith } from "../../support/storage.js";

function open(storage: Storage): Promise<Catalog> {
  return Catalog.open({ storage, datacenter: "dc1" });
}

/** Waits until a catalog holds what another one has committed. */
async function follows(catalog: Catalog, leader: Catalog): Promise<void> {
  const { revision } = leader;
  await catalog.indexAfter(() => catalog.revision, revision - 1n);
}

/** Everything that a catalog tells its readers. */
function contents(catalog: Catalog): unknown {
  const services = [...catalog.services()];
  const names = [...services.map(([name]) => name), "db", "gone"];
  return {
    nodes: catalog.nodes().map(({ name }) => catalog.node(name)),
    services,
    kinds: [...catalog.kinds()].map(([key, kinds]) => [key, { ...kinds, kinds: [...kinds.kinds].sort() }]).sort(),
    instances: names.map((name) => catalog.instances(name)),
    connect: names.map((name) => catalog.connectInstances(name)),
    checks: names.map((name) => catalog.serviceChecks(name)),
    addresses: names.map((name) => [
      catalog.virtualIp(name),
      catalog.virtualIp(name, "p"),
      catalog.manualVirtualIps(name),
    ]),
    byAddress: ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map((address) => catalog.nodeAt(address)),
    claims: [...catalog.claimingPeers()].sort().map((peer) => [peer, [...catalog.claimedVirtualIps(peer)].sort()]),
  };
}

const node = fc.constantFrom("n1", "N2", "n3");
const serviceId = fc.constantFrom("s1", "S2", "s3");
const checkId = fc.constantFrom("c1", "c2", "C3");
const status = fc.constantFrom("passing", "warning", "critical");

const registration: fc.Arbitrary<Registration> = fc
  .record({
    node,
    address: fc.constantFrom("10.0.0.1", "10.0.0.2", "10.0.0.3"),
    id: serviceId,
    name: fc.constantFrom("web", "Web", "db"),
    kind: fc.constantFrom("", "", "connect-proxy"),
    native: fc.boolean(),
    tags: fc.subarray(["a", "b"]),
    withService: fc.boolean(),
    checks: fc.uniqueArray(fc.record({ checkId, status, ofService: fc.boolean() }), {
      maxLength: 3,
      selector: (check) => check.checkId.toLowerCase(),
    }),
  })
  .map(({ node: name, address, id, name: service, kind, native, tags, withService, checks }) => ({
    node: name,
    address,
    ...(withService && {
      service: {
        id,
        name: service,
        tags,
        ...(kind === "" ? { connect: { native } } : { kind, port: 1, proxy: { destinationServiceName: "db" } }),
      },
    }),
    checks: checks.map((check) => ({
      checkId: check.checkId,
      name: "check",
      status: check.status,
      serviceId: check.ofService && withService ? id : "",
    })),
  }));

type Step = (catalog: Catalog) => Promise<unknown>;

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: registration.map(
      (given): Step =>
        (catalog) =>
          catalog.register(given),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.array(registration, { maxLength: 3 }).map(
      (given): Step =>
        (catalog) =>
          catalog.registerAll(given),
    ),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({
        node,
        what: fc.oneof(
          serviceId.map((id) => ({ serviceId: id })),
          checkId.map((id) => ({ checkId: id })),
          fc.constant({}),
        ),
      })
      .map(
        ({ node: name, what }): Step =>
          (catalog) =>
            catalog.deregister({ node: name, ...what }),
      ),
  },
  {
    weight: 2,
    arbitrary: fc.record({ node, checkId, status }).map(
      (given): Step =>
        (catalog) =>
          catalog.updateCheck(given.node, given.checkId, given.status, "told"),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.record({ node, checkId, serviceId, status }).map((given): Step => {
      const operation: TransactionOperation = {
        type: "check",
        verb: "set",
        check: { ...given, checkId: given.checkId, name: "moved" },
      };
      return (catalog) => catalog.transaction([operation]);
    }),
  },
  {
    weight: 1,
    arbitrary: fc
      .record({ peer: fc.constantFrom("", "p"), service: fc.constantFrom("web", "db", "gone"), claims: fc.boolean() })
      .map(
        ({ peer, service, claims }): Step =>
          (catalog) =>
            claims ? catalog.claimVirtualIps(peer, [service]) : catalog.releaseVirtualIps(peer, [service]),
      ),
  },
  {
    weight: 1,
    arbitrary: fc.record({ service: fc.constantFrom("web", "db"), addresses: fc.subarray(["1.1.1.1", "2.2.2.2"]) }).map(
      ({ service, addresses }): Step =>
        (catalog) =>
          catalog.assignManualVirtualIps(service, addresses),
    ),
  },
);

describe("a catalog that another process writes", () => {
  it("is the same to readers of both processes, and after a restart", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(step, fc.nat(1), fc.boolean()), { maxLength: 25 }), async (steps) => {
        const storage = memoryStorage();
        await using first = await open(storage);
        await using second = await open(storage);
        const catalogs = [first, second];
        for (const [write, writer, waits] of steps) {
          const catalog = catalogs[writer] ?? assert.fail("no such catalog");
          await write(catalog).catch((error: unknown) => {
            assert.ok(error instanceof PeeringError && error.code === "invalid-registration", String(error));
          });
          const other = catalogs[1 - writer] ?? assert.fail("no such catalog");
          if (waits) await follows(other, catalog);
        }
        await follows(first, second);
        await follows(second, first);
        assert.deepEqual(contents(second), contents(first));
        await using third = await open(storage);
        assert.deepEqual(contents(third), contents(first));
      }),
      { numRuns: 200 },
    );
  });

  it("keeps a check that went from one service to another, whatever else was removed with it", async () => {
    const storage = memoryStorage();
    await using writer = await open(storage);
    await using reader = await open(storage);
    const check = (id: string, service: string) => ({
      node: "n1",
      checkId: id,
      name: "c",
      status: "passing",
      serviceId: service,
    });
    await writer.registerAll([
      { node: "n1", address: "10.0.0.1", service: { id: "s1", name: "web" }, checks: [check("c1", "s1")] },
      { node: "n1", address: "10.0.0.1", service: { id: "s2", name: "web" }, checks: [check("c2", "s2")] },
    ]);
    await writer.transaction([
      { type: "check", verb: "delete", check: check("c2", "s2") },
      { type: "check", verb: "set", check: check("c1", "s2") },
    ]);
    await follows(reader, writer);
    assert.deepEqual(contents(reader), contents(writer));
    assert.equal(reader.check("n1", "c1")?.serviceId, "s2");
  });

  it("reads only the written rows, and reports only the services that changed", async () => {
    const storage = memoryStorage();
    let reads = 0;
    const counted = storageWith(storage, {
      read: (...given) => {
        reads++;
        return storage.read(...given);
      },
      pages: (...given) => {
        reads++;
        return storage.pages(...given);
      },
    });
    await using writer = await open(storage);
    await writer.registerAll(
      Array.from({ length: 3_000 }, (_, index) => ({
        node: `n${index % 300}`,
        address: "10.0.0.1",
        service: { id: `i${index}`, name: `s${index % 100}` },
        checks: [{ checkId: `c${index}`, name: "c", status: "passing", serviceId: `i${index}` }],
      })),
    );
    await using reader = await open(counted);
    const before = reads;
    const stop = new AbortController();
    const told: string[] = [];
    const updates = reader.watch({ signal: stop.signal });
    await updates.next();
    const next = updates.next();
    await writer.updateCheck("n5", "c5", "critical", "down");
    const { value } = await next;
    told.push(...(value?.services.keys() ?? []));
    stop.abort();
    assert.deepEqual(told, ["s5"]);
    assert.equal(value?.services.get("s5")?.find(({ service }) => service.id === "i5")?.checks[0]?.status, "critical");
    assert.equal(reads, before);
    assert.equal(reader.index.service("s5"), writer.index.service("s5"));
    assert.equal(reader.index.service("s6"), writer.revision - 1n);
  });
});
