// Services with several ports, which Consul knows since 1.22, over the HTTP API.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

const ports = [
  { Name: "http", Port: 8_080, Default: true },
  { Name: "metrics", Port: 9_090, Default: false },
];

describe("services with several ports", () => {
  let served: ServedHost;
  before(async () => {
    const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
    const host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport, nodeName: "n0" });
    served = await serve(host);
  });
  after(async () => {
    await served[Symbol.asyncDispose]();
  });

  async function put(path: string, body: unknown): Promise<readonly [number, string]> {
    const { status, text } = await served.ask("PUT", path, { body: JSON.stringify(body) });
    return [status, text];
  }

  async function get(path: string) {
    const { status, text } = await served.ask("GET", path);
    assert.equal(status, 200, text);
    return JSON.parse(text);
  }

  it("are registered at the catalog and read everywhere, the default port beside all of them", async () => {
    const registration = { Node: "n1", Address: "10.0.0.1", Service: { ID: "web-1", Service: "web", Ports: ports } };
    assert.deepEqual(await put("/v1/catalog/register", registration), [200, "true"]);
    const [{ Service }] = await get("/v1/health/service/web");
    assert.deepEqual([Service.Port, Service.Ports], [8_080, ports]);
    const [flat] = await get("/v1/catalog/service/web");
    assert.deepEqual([flat.ServicePort, flat.ServicePorts], [8_080, ports]);
    const node = await get("/v1/catalog/node/n1");
    assert.deepEqual(node.Services["web-1"].Ports, ports);
  });

  it("are registered at the agent, and by a transaction", async () => {
    assert.deepEqual(await put("/v1/agent/service/register", { Name: "api", Ports: ports }), [200, ""]);
    const { api } = await get("/v1/agent/services");
    assert.deepEqual([api.Port, api.Ports], [8_080, ports]);
    const operations = [{ Service: { Verb: "set", Node: "n1", Service: { ID: "db-1", Service: "db", Ports: ports } } }];
    assert.equal((await put("/v1/txn", operations))[0], 200);
    assert.deepEqual((await get("/v1/health/service/db"))[0].Service.Ports, ports);
  });

  it("leave no trace where there is one port", async () => {
    await put("/v1/catalog/register", { Node: "n1", Address: "10.0.0.1", Service: { Service: "one", Port: 80 } });
    assert.ok(!("Ports" in (await get("/v1/health/service/one"))[0].Service));
    assert.ok(!("ServicePorts" in (await get("/v1/catalog/service/one"))[0]));
  });

  it("are refused with Consul's texts", async () => {
    const both = { Node: "n1", Address: "10.0.0.1", Service: { Service: "web", Port: 80, Ports: ports } };
    const text = "1 error occurred:\n\t* Cannot set both Port and Ports\n\n";
    assert.deepEqual(await put("/v1/catalog/register", both), [500, text]);
    assert.deepEqual(await put("/v1/agent/service/register", { Name: "web", Port: 80, Ports: ports }), [
      400,
      `Validation failed: ${text}`,
    ]);
    const sidecar = { Name: "web", Ports: ports, Connect: { SidecarService: {} } };
    assert.deepEqual(await put("/v1/agent/service/register", sidecar), [
      400,
      "MultiPort cannot be used with Consul Connect.",
    ]);
  });
});
