import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";

describe("the resolved exports", () => {
  it("follow the names of services, and are the same list as long as these stay", async () => {
    await using host = await createHost({
      datacenter: "dc1",
      storage: memoryStorage(),
      transport: memoryNetwork().transport({}),
    });
    const { catalog, exports } = host;
    const register = (name: string, id: string, kind: "" | "connect-proxy" = ""): Promise<unknown> =>
      catalog.register({
        node: "n1",
        address: "10.0.0.1",
        service: { name, id, kind, port: 80, ...(kind !== "" && { proxy: { destinationServiceName: "web" } }) },
      });
    const names = (): readonly string[] => exports.resolved().map(({ service }) => service);
    await exports.set({ services: [{ name: "*", consumers: [{ peer: "east" }] }] });
    assert.deepEqual(names(), []);
    await register("web", "web-1");
    await register("web", "web-2");
    await register("db", "db");
    assert.deepEqual(names(), ["db", "web"]);
    const before = exports.resolved();
    await catalog.register({
      node: "n1",
      address: "10.0.0.1",
      checks: [{ checkId: "up", name: "up", serviceId: "web-1", status: "critical" }],
    });
    await catalog.deregister({ node: "n1", serviceId: "web-2" });
    await register("web-proxy", "web-proxy", "connect-proxy");
    assert.equal(exports.resolved(), before);
    await register("WEB", "web-1");
    assert.deepEqual(names(), ["WEB", "db"]);
    await register("other", "web-1");
    assert.deepEqual(names(), ["db", "other"]);
    await register("db", "db", "connect-proxy");
    assert.deepEqual(names(), ["other"]);
    await exports.set({
      services: [
        { name: "*", consumers: [{ peer: "east" }] },
        { name: "db", consumers: [{ peer: "west" }] },
      ],
    });
    assert.deepEqual(
      exports.resolved().map(({ service, peers }) => [service, peers]),
      [
        ["db", ["west"]],
        ["other", ["east"]],
      ],
    );
    await catalog.deregister({ node: "n1" });
    assert.deepEqual(names(), ["db"]);
  });
});
