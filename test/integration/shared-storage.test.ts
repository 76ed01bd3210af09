// Two hosts of one cluster on one storage. One leads; the other one follows what it imports, and goes on where it ends.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../src/base/errors.js";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Storage } from "../../src/storage/storage.js";
import { SimLeadership } from "../../src/testing/simulator/sim-leadership.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { acceleratedClock, borrowed, eventually, offerServices } from "../support/hosts.js";
import { storageWith } from "../support/storage.js";

const PEER = "exporter";

/** Everything that a host tells of its imports. */
async function imported(host: PeeringHost): Promise<unknown> {
  const services = host.imports.services({ peer: PEER });
  const instances = [];
  for (const { name } of services) instances.push(await host.imports.instances({ peer: PEER, service: name }));
  return {
    services,
    instances,
    nodes: await host.imports.nodes({ peer: PEER }),
    count: host.imports.count({ peer: PEER }),
    addresses: services.map(({ name }) => host.catalog.virtualIp(name, PEER)),
  };
}

function numberOf(host: PeeringHost): number {
  return host.imports.count({ peer: PEER }).services;
}

for (const end of ["closes", "dies between two commits"] as const) {
  describe(`a leader that ${end}`, () => {
    it("leaves its imports to a host that has followed them, and that one is right", async () => {
      const network = memoryNetwork();
      const clock = acceleratedClock();
      const disk = memoryStorage();
      const hostOn = (storage: Storage, name: string, leadership: SimLeadership): Promise<PeeringHost> =>
        createHost({
          datacenter: "importer",
          storage,
          leadership,
          clock,
          transport: network.transport({ listen: `${name}:8503` }),
        });
      const following = new SimLeadership();
      following.move(false);
      const leading = new SimLeadership();
      await using exporter = await createHost({
        datacenter: PEER,
        storage: memoryStorage(),
        clock,
        transport: network.transport({ listen: `${PEER}:8503` }),
      });
      await offerServices(exporter, "importer", ["web", "db", "cache", "api"]);
      await exporter.catalog.register({
        node: "node-0",
        address: "10.0.0.0",
        service: {
          id: "web-proxy",
          name: "web-proxy",
          kind: "connect-proxy",
          port: 1,
          proxy: { destinationServiceName: "web" },
        },
      });
      // Without one, nothing is exported to the mesh.
      await exporter.catalog.register({
        node: "node-0",
        address: "10.0.0.0",
        service: { id: "gateway", name: "gateway", kind: "mesh-gateway", port: 2 },
      });

      let isDead = false;
      const first = await hostOn(
        storageWith(borrowed(disk), {
          commit: (...given) =>
            isDead ? Promise.reject(new PeeringError("storage-failed", "dead")) : disk.commit(...given),
        }),
        "first",
        leading,
      );
      await using second = await hostOn(borrowed(disk), "second", following);
      const token = await exporter.peerings.generateToken({ peerName: "importer" });
      await first.peerings.establish({ peerName: PEER, token });
      await eventually(() => numberOf(first) >= 4 && numberOf(second) === numberOf(first), "both have all services");
      await exporter.catalog.register({
        node: "node-1",
        address: "10.9.9.9",
        service: { id: "web-1", name: "web", port: 9_999 },
      });
      await exporter.catalog.deregister({ node: "node-3", serviceId: "db-2" });
      const told = async (host: PeeringHost): Promise<boolean> => {
        const ports = (await host.imports.instances({ peer: PEER, service: "web" })).map(({ service }) => service.port);
        return ports.includes(9_999) && host.imports.service({ peer: PEER, service: "db" })?.instances !== 3;
      };
      await eventually(async () => (await told(first)) && (await told(second)), "both have the change");
      assert.deepEqual(await imported(second), await imported(first));

      isDead = end !== "closes";
      if (!isDead) await first[Symbol.asyncDispose]();
      // Writes that are made while no host leads.
      await exporter.catalog.deregister({ node: "node-0", serviceId: "api-2" });
      await offerServices(exporter, "importer", ["new"]);
      const before = numberOf(second);
      leading.move(false);
      following.move(true);
      await eventually(() => second.imports.service({ peer: PEER, service: "new" }) !== undefined, "it goes on");
      await eventually(() => second.peerings.read(PEER)?.status.phase === "connected", "it is in step");
      assert.ok(numberOf(second) >= before);

      const third = new SimLeadership();
      third.move(false);
      await using fresh = await hostOn(borrowed(disk), "third", third);
      await eventually(() => numberOf(fresh) === numberOf(second), "it has followed");
      assert.deepEqual(await imported(second), await imported(fresh));
      assert.notEqual(second.catalog.virtualIp("web", PEER), undefined);
      if (isDead) await first[Symbol.asyncDispose]();
    });
  });
}

describe("the roots of a cluster whose leader rotates them", () => {
  it("are followed by a host that does not lead, and sent to peers when it comes to lead", async () => {
    const network = memoryNetwork();
    const clock = acceleratedClock();
    const disk = memoryStorage();
    const hostOn = (name: string, leadership: SimLeadership): Promise<PeeringHost> =>
      createHost({
        datacenter: "cluster",
        storage: borrowed(disk),
        leadership,
        clock,
        transport: network.transport({ listen: `${name}:8503` }),
      });
    const pems = (host: PeeringHost): readonly string[] =>
      host.authority.roots().map(({ certificatePem }) => certificatePem);
    const leading = new SimLeadership();
    const following = new SimLeadership();
    following.move(false);
    const first = await hostOn("first", leading);
    await using second = await hostOn("second", following);
    await using peer = await createHost({
      datacenter: PEER,
      storage: memoryStorage(),
      clock,
      transport: network.transport({ listen: `${PEER}:8503` }),
    });
    const token = await peer.peerings.generateToken({ peerName: "cluster" });
    await first.peerings.establish({ peerName: PEER, token });
    const sent = (): readonly string[] => peer.trustBundles.read("cluster")?.rootPems ?? [];
    await eventually(() => sent().length === 1, "the peer has the first root");

    const rotated = await first.builtInAuthority?.rotate();
    await eventually(() => second.authority.roots().length === 2, "the other host follows");
    assert.deepEqual(pems(second), pems(first));
    assert.equal((await second.authority.issueServer("cluster")).rootId, rotated?.id);

    await first.close();
    leading.move(false);
    following.move(true);
    const next = await second.builtInAuthority?.rotate();
    assert.equal((await second.authority.issueServer("cluster")).rootId, next?.id);
    await eventually(() => sent().length === 3, "the peer has what the new leader made");
    assert.deepEqual(
      [...sent()].map((pem) => pem.trim()).sort(),
      pems(second)
        .map((pem) => pem.trim())
        .sort(),
    );
  });
});
