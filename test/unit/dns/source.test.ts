import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type DnsSource, hostSource } from "../../../src/dns/index.js";
import { exportTo, peered, World } from "../../support/world.js";

async function addresses(world: World, source: DnsSource, service: string): Promise<readonly string[]> {
  const instances = await world.result(source.instances("acceptor", service));
  return instances.map(({ service }) => service.address);
}

describe("what DNS reads of a host", () => {
  it("returns the imports of now, however often it was asked before", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const source = hostSource(dialer.host);
    const change = async (address: string): Promise<void> => {
      const service = { id: "web-1", name: "web", port: 8_080, address };
      await world.result(acceptor.host.catalog.register({ node: "node-1", address: "10.0.0.1", service }));
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    };
    for (const address of ["10.9.0.1", "10.9.0.2"]) {
      await change(address);
      assert.deepEqual(await addresses(world, source, "web"), [address]);
      assert.deepEqual(await addresses(world, source, "web"), [address]);
    }
    // A node is in the answer with any of its services.
    const service = { id: "db-1", name: "db" };
    await world.result(acceptor.host.catalog.register({ node: "node-1", address: "10.0.0.77", service }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const [web] = await world.result(source.instances("acceptor", "web"));
    assert.equal(web?.node.address, "10.0.0.77");
    assert.equal((await world.result(source.node("acceptor", "NODE-1")))?.address, "10.0.0.77");
    assert.equal(await world.result(source.node("acceptor", "node-2")), undefined);
    assert.equal(await world.result(source.node("nobody", "node-1")), undefined);

    await exportTo(world, acceptor, "dialer", "db");
    await world.until(() => dialer.count("acceptor", "web") === 0, "web is gone");
    assert.deepEqual(await addresses(world, source, "web"), []);
    assert.equal(source.isPeering("acceptor"), true);
    await world.result(dialer.host.peerings.delete("acceptor"));
    await world.until(() => dialer.state("acceptor") === "none", "the peering is gone");
    assert.deepEqual(await addresses(world, source, "db"), []);
    assert.equal(source.isPeering("acceptor"), false);
  });
});
