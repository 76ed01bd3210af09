import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { PeeringTransition } from "../../../src/host/transitions.js";
import { peer, type Site, World } from "../../support/world.js";
import { elsewhere } from "../stores/records-fixture.js";

function follow(site: Site): readonly PeeringTransition[] {
  const seen: PeeringTransition[] = [];
  site.host.peerings.onTransition((transition) => seen.push(transition));
  return seen;
}

/** `event before>after: fields`. */
function told(transitions: readonly PeeringTransition[]): readonly string[] {
  return transitions.map(
    ({ event = "?", before, after, changed }) => `${event} ${before}>${after}: ${changed.join(" ")}`,
  );
}

describe("peerings.onTransition", () => {
  it("tells each stored step of both ends, from the token to the removal, with the fields that changed", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const [accepting, dialing] = [follow(acceptor), follow(dialer)];
    await peer(world, acceptor, dialer);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const cluster = "peerCaPems peerId peerServerAddresses peerServerName remote";
    assert.deepEqual(told(accepting), [
      "generate-token initial>pending: id manualServerAddresses meta name peerCaPems peerId peerServerAddresses peerServerName remote secrets state",
      "secret-exchanged pending>pending: secrets",
      "opened-with-pending-secret pending>pending: remote secrets",
      "trust-bundle-received pending>pending: peerCaPems trustBundle",
    ]);
    assert.deepEqual(told(dialing), [
      `establish-begun initial>pending: id manualServerAddresses meta name ${cluster} state`,
      "establish-finished pending>establishing: secrets state",
      "trust-bundle-received establishing>establishing: trustBundle",
      "server-addresses-received establishing>establishing: ",
    ]);
    const before = dialing.length;
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => acceptor.state("dialer") === "none", "the record goes");
    await world.until(() => dialer.state("acceptor") === "terminated", "the other is told");
    assert.deepEqual(told(accepting.slice(4)), [
      "delete-requested pending>deleting: deletedAt peerCaPems secrets state",
      "cleanup-finished deleting>initial: deletedAt id manualServerAddresses meta name peerCaPems peerId peerServerAddresses peerServerName remote state",
    ]);
    assert.deepEqual(told(dialing.slice(before)), ["peer-terminated establishing>terminated: state"]);
    const { id } = dialer.peering("acceptor");
    for (const transition of dialing) assert.deepEqual([transition.name, transition.id], ["acceptor", id]);
    const revisions = dialing.map(({ revision }) => revision);
    assert.deepEqual(revisions, [...revisions].sort(compare), "in the order of the commits");
  });

  it("says nothing of what another process did but what became of the record", async () => {
    const world = new World();
    const site = await world.site("site");
    const seen = follow(site);
    await elsewhere(world, site, (records) => records.generateToken({ peerName: "west", meta: { team: "a" } }));
    await elsewhere(world, site, (records) => records.markDeleting("west"));
    assert.deepEqual(told(seen).slice(0, 2), [
      "? initial>pending: id manualServerAddresses meta name peerCaPems peerId peerServerAddresses peerServerName remote state",
      "? pending>deleting: deletedAt meta state",
    ]);
    await world.until(() => site.state("west") === "none", "this host removes it");
    assert.equal(told(seen).at(-1)?.split(":")[0], "cleanup-finished deleting>initial");
  });

  it("tells no value of a field, so that no secret and no certificate can be among them", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const seen = [follow(acceptor), follow(dialer)];
    const request = { peerName: "dialer", meta: { team: "confidential" } };
    const token = await world.result(acceptor.host.peerings.generateToken(request));
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const { peerCaPems } = dialer.peering("acceptor");
    assert.ok(peerCaPems.length > 0);
    const text = JSON.stringify(seen, (_key, value: unknown) => (typeof value === "bigint" ? String(value) : value));
    assert.ok(seen.every((transitions) => transitions.length > 0));
    for (const value of ["BEGIN", "confidential", acceptor.address, ...peerCaPems]) assert.ok(!text.includes(value));
  });

  it("goes on after a listener has thrown, and ends when it is told to", async () => {
    const world = new World();
    const site = await world.site("site");
    let calls = 0;
    const stop = site.host.peerings.onTransition(() => {
      calls++;
      throw new Error("a fault of the application");
    });
    await world.result(site.host.peerings.generateToken({ peerName: "a" }));
    await world.result(site.host.peerings.generateToken({ peerName: "b" }));
    assert.equal(calls, 2);
    assert.equal(site.host.incidents.counts().get("event-listener-failed"), 2);
    assert.ok(site.log.has("warn", "a listener threw an error"));
    stop();
    await world.result(site.host.peerings.generateToken({ peerName: "c" }));
    assert.equal(calls, 2);
  });
});

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
