import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { eventually, inStep, isEqual, type Kind, offerServices, peerThem, twoHosts } from "../support/hosts.js";

for (const kind of ["memory", "grpc and level"] satisfies readonly Kind[]) {
  describe(`two hosts over ${kind}`, () => {
    it("both ends are ACTIVE, both directions imported and equal, counts and facts right (LC2, ch3 case 2)", async () => {
      await using pair = await twoHosts(kind);
      const { acceptor, dialer } = pair;
      await offerServices(acceptor.host, "dialer", ["web", "db", "cache"]);
      await offerServices(dialer.host, "acceptor", ["api"], 2);
      await peerThem(pair);
      await inStep(pair);
      assert.deepEqual(
        dialer.host.imports.services({ peer: "acceptor" }).map(({ name, instances }) => [name, instances]),
        [
          ["cache", 3],
          ["db", 3],
          ["web", 3],
        ],
      );
      for (const [cluster, peer, imported, exported] of [
        [acceptor, "dialer", ["api"], ["cache", "db", "web"]],
        [dialer, "acceptor", ["cache", "db", "web"], ["api"]],
      ] as const) {
        await eventually(() => cluster.host.peerings.read(peer)?.status.lagMs === 0, "everything is acknowledged");
        const status = cluster.host.peerings.read(peer)?.status;
        assert.deepEqual([status?.phase, status?.healthy], ["connected", true]);
        assert.deepEqual([status?.stream.importedServices, status?.stream.exportedServices], [imported, exported]);
        const now = Date.now();
        for (const time of [
          status?.facts.connectTime,
          status?.facts.lastAck,
          status?.facts.lastReceiveResourceSuccess,
        ]) {
          assert.ok(time !== undefined && time > now - 60_000 && time <= now + 1_000);
        }
        assert.equal(cluster.host.trustBundles.read(peer)?.rootPems.length, 1);
      }
    });

    it("a burst of changes ends equal on the other side (LC2)", async () => {
      await using pair = await twoHosts(kind);
      const { acceptor, dialer } = pair;
      await offerServices(acceptor.host, "dialer", ["web", "db"]);
      await offerServices(dialer.host, "acceptor", ["api"]);
      await peerThem(pair);
      await inStep(pair);
      await Promise.all(
        Array.from({ length: 300 }, (_, index) =>
          index % 7 === 0
            ? acceptor.host.catalog.deregister({ node: `node-${index % 5}`, serviceId: `web-${index % 4}` })
            : acceptor.host.catalog.register({
                node: `node-${index % 5}`,
                address: `10.0.0.${index % 5}`,
                service: { id: `web-${index % 4}`, name: "web", port: index + 1 },
              }),
        ),
      );
      await inStep(pair);
    });

    for (const role of ["acceptor", "dialer"] as const) {
      it(`the ${role} deletes; TERMINATED on the other; established again (LC10, LC11, LC12)`, async () => {
        await using pair = await twoHosts(kind);
        const { acceptor, dialer } = pair;
        await offerServices(acceptor.host, "dialer", ["web"]);
        await offerServices(dialer.host, "acceptor", ["api"]);
        await peerThem(pair);
        await inStep(pair);
        const [deleting, other] = role === "acceptor" ? [acceptor, dialer] : [dialer, acceptor];
        await deleting.host.peerings.delete(other.name);
        await eventually(() => deleting.host.peerings.read(other.name) === undefined, "the record goes");
        await eventually(() => other.host.peerings.read(deleting.name)?.state === "terminated", "the other is told");
        await other.host.peerings.deleted(deleting.name);
        assert.deepEqual(other.host.imports.services({ peer: deleting.name }), []);
        if (role === "dialer") {
          await acceptor.host.peerings.delete("dialer");
          await eventually(() => acceptor.host.peerings.read("dialer") === undefined, "the acceptor's name is free");
        }
        await peerThem(pair);
        await inStep(pair);
      });

      it(`a restart of the ${role} goes on by itself, with what it had (LC15)`, async () => {
        await using pair = await twoHosts(kind);
        const { acceptor, dialer } = pair;
        await offerServices(acceptor.host, "dialer", ["web", "db"]);
        await offerServices(dialer.host, "acceptor", ["api"]);
        await peerThem(pair);
        await inStep(pair);
        const [stopped, other] = role === "acceptor" ? [acceptor, dialer] : [dialer, acceptor];
        await stopped.stop();
        await eventually(() => other.host.peerings.read(stopped.name)?.state === "failing", "the other notices");
        assert.notDeepEqual(other.host.imports.services({ peer: stopped.name }), []);
        await other.host.catalog.register({
          node: "node-9",
          address: "10.0.0.9",
          service: { id: "new-1", name: "new", port: 1 },
        });
        await stopped.start();
        assert.equal(await isEqual(other, stopped), true, "the imports survived");
        await inStep(pair);
      });
    }
  });
}
