// Reads of the catalog and of health take time in proportion to what they tell.
import { describe, it } from "node:test";
import { createHost, machineryOf } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { assertLinear } from "../../support/growth.js";
import { type ServedHost, serve } from "../../support/http-pair.js";
import { payload, wireInstance } from "../payload/import-fixtures.js";

const numbers = (size: number): readonly number[] => Array.from({ length: size }, (_, index) => index);

async function served(): Promise<ServedHost> {
  const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
  return serve(await createHost({ datacenter: "dc1", storage: memoryStorage(), transport }));
}

async function read(server: ServedHost, path: string): Promise<void> {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`);
  const text = await response.text();
  if (response.status !== 200 || text.length < 1_000) throw new Error(text.slice(0, 200));
}

const dispose = (server: ServedHost): Promise<void> => server[Symbol.asyncDispose]();

describe("the time of a read grows with its answer", () => {
  it("of proxies for one service, and of the gateways in front of it", () =>
    assertLinear<ServedHost>({
      size: 250,
      prepare: async (size) => {
        const server = await served();
        await server.host.catalog.registerAll(
          numbers(size).flatMap((index) => [
            {
              node: `n${index}`,
              address: "10.0.0.1",
              service: {
                id: "proxy",
                name: "proxy",
                kind: "connect-proxy" as const,
                port: 1,
                proxy: { destinationServiceName: "web" },
              },
            },
            {
              node: `n${index}`,
              address: "10.0.0.1",
              service: { id: "tgw", name: "tgw", kind: "terminating-gateway" as const, port: 2 },
            },
          ]),
        );
        await server.host.configEntries.set({ kind: "terminating-gateway", name: "tgw", services: [{ name: "web" }] });
        return server;
      },
      dispose,
      steps: {
        "over health": (server) => read(server, "/v1/health/connect/web"),
        "over the catalog": (server) => read(server, "/v1/catalog/connect/web"),
      },
    }));

  it("of the checks of imported nodes", () =>
    assertLinear<ServedHost>({
      size: 250,
      prepare: async (size) => {
        const server = await served();
        const { records, imports } = machineryOf(server.host);
        await server.host.peerings.generateToken({ peerName: "peer" });
        const id = records.byName("peer")?.id ?? "";
        const instances = numbers(size).map((index) =>
          wireInstance("web", {
            node: `n${index}`,
            id: `web-${index}`,
            status: "passing",
            nodeChecks: { alive: "passing" },
          }),
        );
        await imports.apply(id, [{ type: "service", name: "web", value: payload(...instances) }]);
        return server;
      },
      dispose,
      steps: {
        "in a state": (server) => read(server, "/v1/health/state/any?peer=peer"),
        "of a service": (server) => read(server, "/v1/health/service/web?peer=peer"),
        "of nodes": (server) => read(server, "/v1/catalog/nodes?peer=peer"),
        "of services": (server) => read(server, "/v1/health/checks/web?peer=peer"),
      },
    }));
});
