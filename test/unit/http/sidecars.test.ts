import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

// Each registration was sent to a Consul 1.21.4 as well; what is expected is what it answered.
describe("a sidecar registered with its service", () => {
  let served: ServedHost;
  before(async () => {
    const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
    served = await serve(await createHost({ storage: memoryStorage(), transport, nodeName: "n0" }));
  });
  after(() => served[Symbol.asyncDispose]());

  async function register(body: object): Promise<void> {
    const { status, text } = await served.ask("PUT", "/v1/agent/service/register", { body: JSON.stringify(body) });
    assert.deepEqual([status, text], [200, ""]);
  }

  async function service(id: string): Promise<Record<string, unknown> & { readonly Proxy: Record<string, unknown> }> {
    const { status, text } = await served.ask("GET", `/v1/agent/service/${id}`);
    assert.equal(status, 200, text);
    return JSON.parse(text);
  }

  async function checksOf(id: string): Promise<readonly unknown[]> {
    const { text } = await served.ask("GET", "/v1/agent/checks");
    const checks: readonly Record<string, unknown>[] = Object.values(JSON.parse(text));
    return checks
      .filter(({ ServiceID }) => ServiceID === id)
      .map(({ CheckID, Name, Type, Interval }) => [CheckID, Name, Type, Interval]);
  }

  it("is checked for listening, and as the service it stands beside, where it says nothing of checks", async () => {
    for (const [name, SidecarService] of [
      ["mesh", {}],
      ["empty", { Check: {} }],
    ] as const) {
      await register({ Name: name, Port: 80, Connect: { SidecarService } });
      assert.deepEqual(await checksOf(`${name}-sidecar-proxy`), [
        [`service:${name}-sidecar-proxy:1`, "Connect Sidecar Listening", "tcp", "10s"],
        [`service:${name}-sidecar-proxy:2`, `Connect Sidecar Aliasing ${name}`, "alias", ""],
      ]);
    }
    const { text } = await served.ask("GET", "/v1/health/connect/mesh?passing");
    assert.equal(text, "[]", "nothing listens there");
  });

  it("has the checks that it names, and no others", async () => {
    await register({ Name: "own", Port: 80, Connect: { SidecarService: { Port: 8, Check: { TTL: "10s" } } } });
    assert.deepEqual(await checksOf("own-sidecar-proxy"), [
      ["service:own-sidecar-proxy", "Service 'own-sidecar-proxy' check", "ttl", ""],
    ]);
  });

  it("takes missing and empty fields from its service", async () => {
    const weights = { Passing: 3, Warning: 2 };
    await register({
      ...{ Name: "parent", Port: 80, Tags: ["v1"], Meta: { a: "b" }, Weights: weights },
      Connect: { SidecarService: { Tags: [], Meta: {} } },
    });
    const { Tags, Meta, Weights, Proxy: proxy } = await service("parent-sidecar-proxy");
    // Weights are not among it: they are copied by a fork of Consul alone.
    assert.deepEqual([Tags, Meta, Weights], [["v1"], { a: "b" }, { Passing: 1, Warning: 1 }]);
    assert.deepEqual([proxy["LocalServiceAddress"], proxy["LocalServicePort"]], ["127.0.0.1", 80]);
  });

  it("keeps the destination that it names", async () => {
    const proxy = { DestinationServiceName: "other", LocalServicePort: 9 };
    await register({ Name: "guard", Port: 80, Connect: { SidecarService: { Proxy: proxy } } });
    const found = (await service("guard-sidecar-proxy")).Proxy;
    assert.deepEqual([found["DestinationServiceName"], found["DestinationServiceID"]], ["other", "guard"]);
    assert.deepEqual([found["LocalServiceAddress"], found["LocalServicePort"]], ["127.0.0.1", 9]);
  });

  it("reaches a service by its socket, where it has one", async () => {
    const SidecarService = { Address: "2001:db8::1", Port: 7 };
    await register({ Name: "local", SocketPath: "/run/s.sock", Connect: { SidecarService } });
    const { Proxy: found } = await service("local-sidecar-proxy");
    assert.equal(found["LocalServiceSocketPath"], "/run/s.sock");
    assert.equal(found["LocalServicePort"], undefined);
  });

  it("takes the second spellings of keys", async () => {
    const proxy = { destination_service_name: "other", local_service_port: 9, mesh_gateway: { mode: "local" } };
    await register({
      ...{ Name: "second", Port: 80, enable_tag_override: true },
      tagged_addresses: { lan: { address: "192.0.2.4", port: 5 } },
      connect: { sidecar_service: { proxy } },
    });
    const { EnableTagOverride, TaggedAddresses } = await service("second");
    assert.deepEqual([EnableTagOverride, TaggedAddresses], [true, { lan: { Address: "192.0.2.4", Port: 5 } }]);
    const { Proxy: found } = await service("second-sidecar-proxy");
    assert.deepEqual([found["DestinationServiceName"], found["LocalServicePort"]], ["other", 9]);
    assert.deepEqual(found["MeshGateway"], { Mode: "local" });
  });

  it("takes the first spelling where both are there, and an override where either asks for it", async () => {
    await register({
      ...{ Name: "both", Port: 80, EnableTagOverride: false, enable_tag_override: true },
      TaggedAddresses: { wan: { Address: "192.0.2.9", Port: 1 } },
      tagged_addresses: { lan: { address: "192.0.2.4", port: 5 } },
    });
    const { EnableTagOverride, TaggedAddresses } = await service("both");
    assert.deepEqual([EnableTagOverride, TaggedAddresses], [true, { wan: { Address: "192.0.2.9", Port: 1 } }]);
  });
});
