// Instances of a node share its checks: what is asked of all of them costs the sum of both, not the product.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { healthy, weightOf } from "../../../src/dns/answer.js";
import { createHost } from "../../../src/host/host.js";
import { endpointsOf } from "../../../src/mesh/snapshot/endpoints.js";
import { groupsOf } from "../../../src/model/check-groups.js";
import { PayloadEncoder } from "../../../src/payload/exported-payload.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { assertLinear } from "../../support/growth.js";
import { bytesInUse } from "../../support/heap.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

const numbers = (size: number): readonly number[] => Array.from({ length: size }, (_, index) => index);

const NODE = "shared";

/** A host with so many instances of `web`, and of other services, on a node with as many checks. The last check of it warns. */
async function served(size: number): Promise<ServedHost> {
  const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
  const host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport, nodeName: NODE });
  const node = { node: NODE, address: "10.0.0.1" };
  await host.catalog.registerAll([
    {
      ...node,
      checks: numbers(size).map((index) => ({
        checkId: `node-${String(index).padStart(6, "0")}`,
        name: "of the node",
        status: index === size - 1 ? "warning" : "passing",
      })),
    },
    ...numbers(size).map((index) => ({
      ...node,
      service: { id: `web-${index}`, name: "web", port: 80, connect: { native: true } },
      checks: [{ checkId: `own-${index}`, name: "own", status: "passing", serviceId: `web-${index}` }],
    })),
    ...numbers(size).map((index) => ({ ...node, service: { id: `other-${index}`, name: `other-${index}`, port: 81 } })),
  ]);
  await host.configEntries.set({ kind: "terminating-gateway", name: "tgw", services: [{ name: "*" }] });
  await host.queries.create({ name: "any", service: { name: "web" } });
  await host.queries.create({ name: "none", service: { name: "web", onlyPassing: true } });
  await host.queries.create({
    name: "ignoring",
    service: { name: "web", onlyPassing: true, ignoreCheckIds: ["node-0"] },
  });
  return serve(host);
}

async function text(server: ServedHost, path: string, status = 200): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`);
  const body = await response.text();
  assert.equal(response.status, status, body.slice(0, 200));
  return body;
}

async function list(server: ServedHost, path: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
  return JSON.parse(await text(server, path));
}

/** Reads the first bytes of an answer that shows every check at every instance. */
async function begin(server: ServedHost, path: string): Promise<void> {
  const gone = new AbortController();
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, { signal: gone.signal });
  assert.equal(response.status, 200);
  const first = await response.body?.getReader().read();
  assert.ok((first?.value?.length ?? 0) > 0, "it begins");
  gone.abort();
}

const filtered = (filter: string): string => `/v1/health/service/web?filter=${encodeURIComponent(filter)}`;

describe("many checks of a node with many instances", () => {
  it("cost the sum of both, whatever is asked", () =>
    assertLinear<ServedHost>({
      size: 300,
      prepare: served,
      dispose: (server) => server[Symbol.asyncDispose](),
      steps: {
        "as an export": ({ host }, size) => {
          const { value } = new PayloadEncoder().service("web", host.catalog.instances("web"));
          assert.ok(value.length > 10 * size);
        },
        "as services of the catalog": async (server, size) => {
          assert.equal((await list(server, "/v1/catalog/service/web")).length, size);
          assert.equal((await list(server, "/v1/catalog/connect/web")).length, size);
        },
        "as names of the catalog": (server) => text(server, "/v1/catalog/services?filter=ServicePort==80"),
        "as passing instances": async (server) =>
          assert.equal((await list(server, "/v1/health/service/web?passing")).length, 0),
        "as instances chosen by their checks": async (server) => {
          assert.equal((await list(server, filtered('Checks.Status == "critical"'))).length, 0);
          assert.equal((await list(server, filtered('not Checks.Status == "warning"'))).length, 0);
          assert.equal((await list(server, filtered("Checks is empty"))).length, 0);
        },
        "as instances with all their checks, of which some are read": (server) =>
          begin(server, "/v1/health/service/web"),
        "as checks of the service": async (server, size) =>
          assert.equal((await list(server, "/v1/health/checks/web")).length, size),
        "as services of Consul's pages": async (server, size) => {
          const services = await list(server, "/v1/internal/ui/services");
          assert.equal(services.length, size + 1);
          for (const { ChecksPassing, ChecksWarning, Name } of services) {
            assert.deepEqual([ChecksPassing, ChecksWarning], [Name === "web" ? 2 * size - 1 : size - 1, 1]);
          }
        },
        "as services behind a gateway": async (server, size) =>
          assert.equal((await list(server, "/v1/internal/ui/gateway-services-nodes/tgw")).length, size),
        "as answers of prepared queries": async (server) => {
          await begin(server, "/v1/query/any/execute");
          for (const name of ["none", "ignoring"]) {
            assert.equal(JSON.parse(await text(server, `/v1/query/${name}/execute`)).Nodes.length, 0);
          }
        },
        "as health of this agent's services": async (server) => {
          assert.equal(await text(server, "/v1/agent/health/service/name/web?format=text", 429), "warning");
        },
        "over DNS": ({ host }, size) => {
          const instances = host.catalog.instances("web");
          assert.equal(healthy(instances, false).length, size);
          assert.equal(healthy(instances, true).length, 0);
          for (const instance of instances) assert.equal(weightOf(instance), 1);
        },
        "as endpoints of the mesh": ({ host }, size) => {
          assert.equal(endpointsOf(host.catalog.instances("web"), "lan").list.length, size);
        },
      },
    }));

  it("are one group for all instances, and those of an instance stay one when the node changes", async () => {
    await using server = await served(100);
    const { catalog } = server.host;
    const held = () => [
      ...catalog.instances("web").map((each) => groupsOf(each)),
      ...Array.from(catalog.indexedInstances("web"), (each) => groupsOf(each)),
    ];
    const before = held();
    assert.equal(new Set(before.map((groups) => groups?.ofNode)).size, 2, "one with indexes, one without");
    await catalog.register({
      node: NODE,
      address: "10.0.0.1",
      checks: [{ checkId: "node-000000", name: "of the node", status: "critical" }],
    });
    const after = held();
    assert.deepEqual(
      after.map((groups) => groups?.ofNode.health.critical),
      before.map(() => 1),
    );
    for (const [index, groups] of after.entries()) assert.equal(groups?.own, before[index]?.own);
    assert.equal((await list(server, "/v1/health/service/web?passing")).length, 0);
  });

  it("are held once, also after each instance was read", async () => {
    const size = 2_000;
    await using server = await served(size);
    const { catalog } = server.host;
    const before = await bytesInUse();
    let seen = 0;
    for (const instance of catalog.instances("web")) seen += instance.checks.length;
    for (const instance of catalog.indexedInstances("web")) seen += instance.checks.length;
    assert.equal(seen, 2 * size * (size + 1));
    // Lists of so many references for each instance were 32 MB.
    const more = (await bytesInUse()) - before;
    assert.ok(more < 8_000_000, `${more} bytes more`);
  });
});
