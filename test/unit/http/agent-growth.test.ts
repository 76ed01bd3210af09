// Calls to the agent take as long as what they name, however much else is on its node. A check of the node itself is part of
// the health of all its services, so its changes do take longer with more of them.
import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { createHost } from "../../../src/host/host.js";
import { CallLimits } from "../../../src/http/index.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { assertLinear } from "../../support/growth.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

/** Services that are on the node already, for each one that is called for: so many that the cost of a look at all shows. */
const OTHERS = 60;
/** The same of checks, of which a look at one takes less. */
const OTHER_CHECKS = 200;

type Call = (index: number) => readonly [path: string, body?: unknown];

/** Sixteen clients at once. */
async function each(served: ServedHost, size: number, call: Call): Promise<void> {
  let next = 0;
  const client = async (): Promise<void> => {
    for (let index = next++; index < size; index = next++) {
      const [path, body] = call(index);
      const { status, text } = await served.ask("PUT", path, body === undefined ? {} : { body: JSON.stringify(body) });
      assert.equal(status, 200, text);
    }
  };
  await Promise.all(Array.from({ length: 16 }, client));
}

const kinds: Readonly<Record<string, Call>> = {
  "services with a TTL": (index) => ["/v1/agent/service/register", { Name: `s${index}`, Check: { TTL: "60s" } }],
  "services with an alias": (index) => [
    "/v1/agent/service/register",
    { Name: `s${index}`, Check: { AliasService: `s${Math.max(0, index - 1)}` } },
  ],
};

describe("the time of calls to the agent grows with the services that they name", () => {
  for (const [name, register] of Object.entries(kinds)) {
    it(name, () =>
      assertLinear({
        size: 30,
        prepare: async (size) => {
          const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
          const host = await createHost({ storage: memoryStorage(), transport, nodeName: "n0" });
          const service = (index: number) => ({ id: `other${index}`, name: "other" });
          await host.catalog.registerAll(
            Array.from({ length: OTHERS * size }, (_, index) => ({
              node: "n0",
              address: "127.0.0.1",
              service: service(index),
            })),
          );
          return serve(host);
        },
        dispose: (served) => served[Symbol.asyncDispose](),
        steps: {
          register: (served, size) => each(served, size, register),
          "register again": (served, size) => each(served, size, register),
          ...(name !== "services with an alias" && {
            report: (served: ServedHost, size: number) =>
              each(served, size, (index) => [`/v1/agent/check/pass/service:s${index}`]),
          }),
          deregister: (served, size) => each(served, size, (index) => [`/v1/agent/service/deregister/s${index}`]),
        },
      }),
    );
  }
});

describe("the time of calls about one check does not grow with how many there are", () => {
  for (const [name, serviceId] of [
    ["on its node", ""],
    ["of its service", "web"],
  ] as const) {
    it(name, () =>
      assertLinear({
        size: 20,
        prepare: async (size) => {
          const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
          const host = await createHost({ storage: memoryStorage(), transport, nodeName: "n0" });
          const node = { node: "n0", address: "127.0.0.1" };
          await host.catalog.register({ ...node, service: { id: "web", name: "web" } });
          await host.catalog.registerAll(
            Array.from({ length: OTHER_CHECKS * size }, (_, index) => ({
              ...node,
              check: { checkId: `other${index}`, name: "other", serviceId },
            })),
          );
          return serve(host);
        },
        dispose: (served) => served[Symbol.asyncDispose](),
        steps: {
          register: (served, size) =>
            each(served, size, (index) => [
              "/v1/agent/check/register",
              { ID: `c${index}`, Name: "c", TTL: "60s", ServiceID: serviceId },
            ]),
          report: (served, size) => each(served, size, (index) => [`/v1/agent/check/pass/c${index}`]),
          deregister: (served, size) => each(served, size, (index) => [`/v1/agent/check/deregister/c${index}`]),
        },
      }),
    );
  }
});

describe("a registration with many checks", () => {
  const many = (count: number, prefix: string): object => ({
    Name: "web",
    Checks: Array.from({ length: count }, (_, index) => ({ CheckID: `${prefix}${index}`, TTL: "60s" })),
  });

  it("replaces them in few commits", async () => {
    const storage = memoryStorage();
    const commit = mock.method(storage, "commit");
    const host = await createHost({ storage, transport: memoryNetwork().transport({}), nodeName: "n1" });
    await using served = await serve(host);
    const register = async (query: string, body: object): Promise<void> => {
      const path = `/v1/agent/service/register${query}`;
      assert.equal((await served.ask("PUT", path, { body: JSON.stringify(body) })).status, 200);
    };
    await register("", many(500, "old"));
    const before = commit.mock.callCount();
    await register("?replace-existing-checks", many(500, "new"));
    assert.ok(commit.mock.callCount() - before < 30, `${commit.mock.callCount() - before} commits`);
    const checks = host.catalog.instance("n1", "web")?.checks ?? [];
    assert.equal(checks.length, 500);
    assert.ok(checks.every(({ checkId }) => checkId.startsWith("new")));
  });

  it("is refused beyond the limit, wherever it is sent to, and counted", async () => {
    const host = await createHost({
      storage: memoryStorage(),
      transport: memoryNetwork().transport({}),
      nodeName: "n1",
    });
    const incidents = new Incidents();
    await using served = await serve(host, { maxChecks: 10, limits: new CallLimits({ incidents }) });
    const register = async (path: string, body: object): Promise<readonly [number, string]> => {
      const { status, text } = await served.ask("PUT", path, { body: JSON.stringify(body) });
      return [status, text];
    };
    const agent = "/v1/agent/service/register";
    const catalog = "/v1/catalog/register";
    const node = { Node: "n2", Address: "10.0.0.2" };
    const nodeChecks = (count: number): object => ({
      ...node,
      checks: Array.from({ length: count }, (_, index) => ({ CheckID: `c${index}`, Name: "c" })),
    });
    assert.equal((await register(agent, many(10, "c")))[0], 200);
    assert.equal((await register(catalog, nodeChecks(10)))[0], 200);
    const refused = [413, "Registration contains too many checks (11 > 10)"] as const;
    assert.deepEqual(await register(agent, many(11, "d")), refused);
    assert.deepEqual(await register(catalog, nodeChecks(11)), refused);
    const sidecar = { ...many(6, "d"), Connect: { sidecar_service: many(5, "e") } };
    assert.deepEqual(await register(agent, sidecar), refused);
    assert.equal(incidents.counts().get("checks-per-registration"), 3);
    assert.equal(host.catalog.instance("n1", "web")?.checks.length, 10);
  });

  it("is refused when its JSON has too many objects, each null being one, and counted", async () => {
    const host = await createHost({
      storage: memoryStorage(),
      transport: memoryNetwork().transport({}),
      nodeName: "n1",
    });
    const incidents = new Incidents();
    await using served = await serve(host, { maxRecords: 20, limits: new CallLimits({ incidents }) });
    const ask = async (method: string, path: string, body: object): Promise<readonly [number, string]> => {
      const { status, text } = await served.ask(method, path, { body: JSON.stringify(body) });
      return [status, text];
    };
    const node = { Node: "n2", Address: "10.0.0.2" };
    const addresses = (count: number): object => ({
      TaggedAddresses: Object.fromEntries(
        Array.from({ length: count }, (_, index) => [`a${index}`, { Address: "10.0.0.1", Port: 1 }]),
      ),
    });
    const withAddresses = (count: number): object => ({ ...node, Service: { Service: "web", ...addresses(count) } });
    assert.equal((await ask("PUT", "/v1/catalog/register", withAddresses(17)))[0], 200);
    const refused = [413, "Request body has too many JSON objects, max: 20."] as const;
    const upstreams = { Upstreams: Array.from({ length: 20 }, () => null) };
    for (const [method, path, body] of [
      ["PUT", "/v1/catalog/register", withAddresses(18)],
      ["PUT", "/v1/agent/service/register", { Name: "web", Connect: { SidecarService: { Proxy: upstreams } } }],
      ["PUT", "/v1/txn", [{ Service: { Verb: "set", Node: "n2", Service: { Service: "web", ...addresses(18) } } }]],
      [
        "POST",
        "/v1/query",
        { Service: { Service: "web", Failover: { Targets: Array.from({ length: 19 }, () => ({})) } } },
      ],
    ] as const) {
      assert.deepEqual(await ask(method, path, body), refused, path);
    }
    assert.equal(incidents.counts().get("records-per-registration"), 4);
    assert.equal(Object.keys(host.catalog.instance("n2", "web")?.service.taggedAddresses ?? {}).length, 17);
  });

  it("is refused when its JSON has too many values, as is every other body", async () => {
    const host = await createHost({
      storage: memoryStorage(),
      transport: memoryNetwork().transport({}),
      nodeName: "n1",
    });
    const incidents = new Incidents();
    await using served = await serve(host, { maxBodyValues: 1_000, limits: new CallLimits({ incidents }) });
    const tags = (count: number): string =>
      JSON.stringify({ Name: "w", Tags: Array.from({ length: count }, () => "t") });
    const agent = "/v1/agent/service/register";
    assert.equal((await served.ask("PUT", agent, { body: tags(900) })).status, 200);
    // Brackets within a text count as no value.
    const text = JSON.stringify({ Name: "w", Address: "[,".repeat(1_000) });
    assert.equal((await served.ask("PUT", agent, { body: text })).status, 200);
    const requests = [
      [agent, tags(1_001)],
      ["/v1/txn", JSON.stringify(Array.from({ length: 1_001 }, () => 0))],
      ["/v1/config", JSON.stringify({ Kind: "mesh", Meta: Array.from({ length: 1_001 }, () => ({})) })],
    ] as const;
    for (const [path, body] of requests) {
      const answer = await served.ask("PUT", path, { body });
      assert.deepEqual([answer.status, answer.text], [413, "Request body has too many JSON values, max: 1000."], path);
    }
    assert.equal(incidents.counts().get("body-values"), requests.length);
  });

  it("of a transaction beyond its limit nothing is made", async () => {
    const host = await createHost({
      storage: memoryStorage(),
      transport: memoryNetwork().transport({}),
      nodeName: "n1",
    });
    await using served = await serve(host);
    const body = JSON.stringify(Array.from({ length: 129 }, () => ({ Service: "no object" })));
    const answer = await served.ask("PUT", "/v1/txn", { body });
    assert.deepEqual([answer.status, answer.text], [413, "Transaction contains too many operations (129 > 128)"]);
  });
});
