import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import fc from "fast-check";
import { Incidents } from "../../../src/base/incidents.js";
import { type Listing, recordsOf } from "../../../src/model/listing.js";
import type { Deregistration, Registration } from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { Storage } from "../../../src/storage/storage.js";
import { Catalog } from "../../../src/stores/catalog.js";

const STATES = ["passing", "warning", "critical", "odd"] as const;

type Step =
  | { readonly type: "register"; readonly registration: Registration }
  | { readonly type: "deregister"; readonly target: Deregistration }
  | { readonly type: "check"; readonly node: string; readonly checkId: string; readonly status: string }
  | { readonly type: "look" };

const nodeName = fc.constantFrom("n1", "N1", "n2", "n3", "a", "b-é");
const serviceName = fc.constantFrom("web", "Web", "api", "db", "zeta");
const status = fc.constantFrom(...STATES);
const isProxy = fc.integer({ min: 0, max: 3 }).map((one) => one === 0);

const registration: fc.Arbitrary<Registration> = fc
  .record({
    node: nodeName,
    address: fc.constantFrom("10.0.0.1", "10.0.0.2"),
    name: serviceName,
    id: fc.integer({ min: 0, max: 3 }),
    isProxy,
    tags: fc.uniqueArray(fc.constantFrom("a", "b", "c"), { maxLength: 2 }),
    ofNode: fc.option(status),
    ofService: fc.option(status),
    checkName: fc.constantFrom("alive", "disk"),
  })
  .map(({ node, address, name, id, isProxy, tags, ofNode, ofService, checkName }) => {
    const serviceId = `${name}-${id}${isProxy ? "-proxy" : ""}`;
    const service = isProxy
      ? {
          kind: "connect-proxy" as const,
          id: serviceId,
          name: `${name}-proxy`,
          port: 2,
          proxy: { destinationServiceName: id === 3 ? "elsewhere" : name },
        }
      : { id: serviceId, name, port: 1, tags };
    const checks = [
      ...(ofNode === null ? [] : [{ checkId: "node-check", name: checkName, status: ofNode }]),
      ...(ofService === null ? [] : [{ checkId: `${serviceId}-check`, name: checkName, status: ofService, serviceId }]),
    ];
    return { node, address, service, checks };
  });

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: registration.map((one): Step => ({ type: "register", registration: one })) },
  {
    weight: 2,
    arbitrary: fc
      .record({
        node: nodeName,
        name: serviceName,
        id: fc.integer({ min: 0, max: 3 }),
        what: fc.integer({ min: 0, max: 3 }),
      })
      .map(({ node, name, id, what }): Step => {
        if (what === 0) return { type: "deregister", target: { node } };
        if (what === 1) return { type: "deregister", target: { node, checkId: "node-check" } };
        return { type: "deregister", target: { node, serviceId: `${name}-${id}${what === 2 ? "-proxy" : ""}` } };
      }),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({ node: nodeName, checkId: fc.constantFrom("node-check", "web-1-check", "api-0-check"), status })
      .map((one): Step => ({ type: "check", ...one })),
  },
  { weight: 2, arbitrary: fc.constant<Step>({ type: "look" }) },
);

async function perform(catalog: Catalog, step: Step): Promise<void> {
  if (step.type === "register") await catalog.register(step.registration);
  else if (step.type === "deregister") await catalog.deregister(step.target);
  else if (step.type === "check") await catalog.updateCheck(step.node, step.checkId, step.status, "seen");
}

/** Everything that lists show. */
async function lists(catalog: Catalog): Promise<unknown> {
  const states = await Promise.all(["any", ...STATES].map((state) => catalog.checksInState(state)));
  return {
    nodes: [...(await catalog.nodeListing())],
    contents: Array.from(await catalog.everyContents(), ({ node, services, checks }) => ({
      node,
      services: [...services],
      checks: [...checks],
    })),
    states: states.map((checks) => [...checks]),
    tags: Array.from(await catalog.servicesWithTags(), ({ name, tags }) => ({ name, tags: tags() })),
    services: [...(await catalog.servicesWithProxies())],
    names: await catalog.serviceNames(),
    counts: await catalog.counts(),
  };
}

const opened = (storage: Storage): Promise<Catalog> => Catalog.open({ storage, datacenter: "dc1" });

describe("the kept lists of a catalog", () => {
  it("are those of a catalog that begins with the same rows, whatever was written and looked at before", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), async (steps) => {
        const storage = memoryStorage();
        await using catalog = await opened(storage);
        await using other = await opened(storage);
        for (const each of steps) {
          await perform(catalog, each);
          if (each.type === "look") await lists(catalog);
        }
        await using fresh = await opened(storage);
        assert.deepEqual(await lists(catalog), await lists(fresh));
        // It follows the rows of another process.
        await other.register({ node: "last", address: "10.0.0.9" });
        assert.deepEqual(await lists(other), await lists(catalog));
      }),
      { numRuns: 60 },
    );
  });

  it("show the changes that come while those of a service with many instances are made", async () => {
    await using catalog = await opened(memoryStorage());
    const of = (number: number, tag: string) => ({
      node: "n",
      address: "10.0.0.1",
      service: { id: `web-${number}`, name: "web", port: 1, tags: [tag] },
    });
    await catalog.registerAll(Array.from({ length: 3_000 }, (_, number) => of(number, "before")));
    // The first step of the list comes before the write, the others after it.
    const clock = mock.method(performance, "now", () => clock.mock.callCount() * 1_000);
    const listing = catalog.servicesWithTags();
    await catalog.register(of(0, "after"));
    await listing;
    clock.mock.restore();
    const [first] = await catalog.servicesWithTags();
    assert.deepEqual(first?.tags(), ["after", "before"]);
    const [one] = await catalog.servicesWithProxies();
    assert.equal(one?.summary.instances, 3_000);
    assert.deepEqual(one?.summary.tags, ["after", "before"]);
  });

  it("agree with one another", async () => {
    await using catalog = await opened(memoryStorage());
    for (let index = 0; index < 30; index++) {
      const service = { id: `web-${index}`, name: `web-${index % 7}`, port: 1, tags: [`t${index % 3}`] };
      const checks = [{ checkId: `c-${index}`, name: "alive", status: STATES[index % 4], serviceId: service.id }];
      await catalog.register({ node: `n${index % 5}`, address: "10.0.0.1", service, checks });
    }
    const { nodes, services, checks } = await catalog.counts();
    assert.deepEqual(nodes, { name: "", total: 5, passing: 5, warning: 0, critical: 0 });
    assert.deepEqual(checks, [{ name: "alive", total: 30, passing: 15, warning: 8, critical: 7 }]);
    assert.deepEqual(
      services.map(({ name, total }) => [name, total]),
      Array.from({ length: 7 }, (_, index) => [`web-${index}`, index < 2 ? 5 : 4]),
    );
    assert.deepEqual(
      Array.from(await catalog.servicesWithTags(), ({ name, tags }) => [name, tags()]),
      [...catalog.services()],
    );
  });

  it("have the same records but where something has changed, so that their texts need not be written again", async () => {
    await using catalog = await opened(memoryStorage());
    for (let index = 0; index < 40; index++) {
      const service = { id: `web-${index}`, name: `web-${index}`, port: 1 };
      const checks = [{ checkId: `c-${index}`, name: "alive", status: "passing", serviceId: service.id }];
      await catalog.register({ node: `n${index % 20}`, address: "10.0.0.1", service, checks });
    }
    const all = async (): Promise<readonly (readonly object[] | undefined)[]> => {
      const found: readonly Listing<unknown>[] = [
        await catalog.nodeListing(),
        await catalog.everyContents(),
        await catalog.checksInState("any"),
        await catalog.servicesWithTags(),
        await catalog.servicesWithProxies(),
        await (async () => (await catalog.counts()).services)(),
      ];
      return found.map((list) => recordsOf(list) ?? [...list].filter((one) => typeof one === "object" && one !== null));
    };
    const before = await all();
    await catalog.updateCheck("n7", "c-7", "critical", "down");
    const after = await all();
    const others = after.map(
      (records, index) => records?.filter((one) => before[index]?.includes(one) === false).length,
    );
    // No node itself; one node with what is on it; one check; one service, three times.
    assert.deepEqual(others, [0, 1, 1, 1, 1, 1]);
    assert.deepEqual(
      Array.from(await catalog.checksInState("critical"), ({ checkId }) => checkId),
      ["c-7"],
    );
  });

  it("keep what they show of a service until that changes, as far as it fits in the memory for it", async () => {
    for (const [summaryBytesInAll, kept, isReported] of [
      [1_000_000, 3, false],
      [1_000, 0, true],
    ] as const) {
      const incidents = new Incidents();
      const limits = { recordValues: 1_000, summaryBytesInAll };
      await using catalog = await Catalog.open({ storage: memoryStorage(), datacenter: "dc1", incidents, limits });
      for (const name of ["api", "db", "web"]) {
        const service = { id: name, name };
        const checks = [{ checkId: name, name: "alive", status: "passing", serviceId: name }];
        await catalog.register({ node: "n1", address: "10.0.0.1", service, checks });
      }
      const summaries = async () => Array.from(await catalog.servicesWithProxies(), ({ summary }) => summary);
      const first = await summaries();
      const second = await summaries();
      assert.deepEqual(second, first);
      assert.equal(second.filter((one, index) => one === first[index]).length, kept);
      await catalog.updateCheck("n1", "db", "critical", "down");
      assert.deepEqual(
        (await summaries()).map(({ name, passing, critical }) => [name, passing, critical]),
        [
          ["api", 1, 0],
          ["db", 0, 1],
          ["web", 1, 0],
        ],
      );
      assert.equal(incidents.counts().has("catalog-summaries-full"), isReported);
    }
  });
});
