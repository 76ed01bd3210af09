import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import type { Leadership } from "../../../src/host/leadership.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { fixedAuthority } from "../../../src/testing/index.js";
import { memoryNetwork } from "../../../src/transport/memory.js";

const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
};

function compose(name: string, cluster: number, network = memoryNetwork(), more = {}) {
  const digit = String(cluster + 1).repeat(8);
  return createHost({
    datacenter: name,
    storage: memoryStorage(),
    transport: network.transport({ listen: `${name}:8503` }),
    authority: fixedAuthority({ trustDomain: `${digit}-2222-3333-4444-555555555555.consul`, cluster }),
    ...more,
  });
}

describe("metrics of peerings", () => {
  it("exported services and health per peering, labelled; 0 for one that never connected (ch3 case 97)", async () => {
    const network = memoryNetwork();
    await using a = await compose("a", 0, network);
    await using b = await compose("b", 1, network);
    for (const name of ["api", "db", "web"]) {
      await a.catalog.register({ node: "n1", address: "10.0.0.1", service: { id: name, name, port: 80 } });
    }
    await a.exports.set({ services: [{ name: "*", consumers: [{ peer: "b" }] }] });
    await b.peerings.establish({ peerName: "a", token: await a.peerings.generateToken({ peerName: "b" }) });
    await a.peerings.generateToken({ peerName: "nobody" });
    await until(() => b.imports.count({ peer: "a" }).services === 3);
    const [connected, never] = [a.peerings.read("b"), a.peerings.read("nobody")];
    assert.deepEqual(a.peerings.metrics(), [
      { name: "peering.exported_services", value: 3, labels: { peer_name: "b", peer_id: connected?.id } },
      { name: "peering.healthy", value: 1, labels: { peer_name: "b", peer_id: connected?.id } },
      { name: "peering.healthy", value: 0, labels: { peer_name: "nobody", peer_id: never?.id } },
    ]);
  });

  it("a node that does not lead reports no exports, without labels (ch3 case 98)", async () => {
    const follower: Leadership = { isLeader: false, leaderAddress: "10.0.0.2:8300", onChange: () => () => {} };
    await using host = await compose("a", 0, memoryNetwork(), { leadership: follower });
    assert.deepEqual(host.peerings.metrics(), [{ name: "peering.exported_services", value: 0, labels: {} }]);
  });
});

describe("a host whose peering is switched off", () => {
  it("refuses every call with FAILED_PRECONDITION and listens nowhere (LC20)", async () => {
    await using host = await compose("a", 0, memoryNetwork(), { peeringEnabled: false });
    const refused = { code: "invalid-argument", status: 9, message: "peering must be enabled to use this endpoint" };
    await assert.rejects(host.peerings.generateToken({ peerName: "b" }), refused);
    await assert.rejects(host.peerings.establish({ peerName: "b", token: "e30K" }), refused);
    await assert.rejects(host.peerings.delete("b"), refused);
    assert.throws(() => host.peerings.list(), refused);
    assert.equal(host.listenAddress, undefined);
  });
});
