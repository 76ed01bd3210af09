import assert from "node:assert/strict";
import { it } from "node:test";
import { HttpPair } from "../../support/http-pair.js";

it("manual virtual IPs go to one service at a time, as Consul 1.21.4 answered", async () => {
  await using pair = await HttpPair.start();
  const { a } = pair;
  const path = "/v1/internal/service-virtual-ip";
  const put = async (body: unknown): Promise<readonly [number, unknown]> => {
    const { status, text } = await a.ask("PUT", path, { body: typeof body === "string" ? body : JSON.stringify(body) });
    return [status, status === 200 ? JSON.parse(text) : text];
  };
  for (const name of ["web", "db"]) {
    await a.host.catalog.register({
      node: "n1",
      address: "10.0.0.1",
      service: { kind: "connect-proxy", name: `${name}-proxy`, port: 80, proxy: { destinationServiceName: name } },
    });
  }
  const done = [200, { Found: true, UnassignedFrom: null }];
  assert.deepEqual(await put({ Service: "nosuch", ManualVIPs: ["1.2.3.4"] }), [
    200,
    { Found: false, UnassignedFrom: null },
  ]);
  assert.deepEqual(await put({ Service: "Web", ManualVIPs: ["1.2.3.4", "10.0.0.1"] }), done);
  const before = a.host.catalog.revision;
  assert.deepEqual(await put({ Service: "web", ManualVIPs: ["1.2.3.4", "10.0.0.1"] }), done);
  assert.equal(a.host.catalog.revision, before, "nothing changed");
  assert.deepEqual(await put({ Service: "db", ManualVIPs: ["1.2.3.4"] }), [
    200,
    { Found: true, UnassignedFrom: [{ ServiceName: { Name: "web" }, Peer: "" }] },
  ]);
  assert.deepEqual(a.host.catalog.manualVirtualIps("web"), ["10.0.0.1"]);
  assert.deepEqual(a.host.catalog.manualVirtualIps("DB"), ["1.2.3.4"]);
  assert.deepEqual(await put({ Service: "web" }), done);
  assert.deepEqual(a.host.catalog.manualVirtualIps("web"), []);
  for (const address of ["::1", "x", "1.2.3", "1.2.3.4.", "256.1.1.1", "01.2.3.4", ""]) {
    assert.deepEqual(await put({ Service: "web", ManualVIPs: [address] }), [
      500,
      `"${address}" is not a valid IPv4 address`,
    ]);
  }
  assert.deepEqual(await put({ Service: "web", ManualVIPs: Array.from({ length: 9 }, (_, i) => `1.1.1.${i}`) }), [
    500,
    "cannot associate more than 8 manual virtual IPs with the same service",
  ]);
  assert.deepEqual(await put(""), [400, "Request decode failed: EOF"]);
  assert.deepEqual(await put({ Peer: "x" }), [400, 'Request decode failed: json: unknown field "Peer"']);
  // The assigned address stays when the service is registered again.
  await a.host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "db", port: 81 } });
  assert.deepEqual(a.host.catalog.manualVirtualIps("db"), ["1.2.3.4"]);
});
