import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { machineryOf } from "../../../src/host/host.js";
import { StatusCode } from "../../../src/wire/status.js";
import { openAs, servicePayload, upsert } from "../../support/messages.js";
import { peer, peered, register, type Site, World } from "../../support/world.js";

/** A removed peering leaves nothing behind. */
async function assertNothingLeft(world: World, site: Site, peerName: string, id: string): Promise<void> {
  assert.equal(site.state(peerName), "none");
  assert.deepEqual(machineryOf(site.host).imports.services(id), []);
  assert.equal(site.host.trustBundles.read(peerName), undefined);
  const { entries } = await world.result(site.disk.read([]));
  const left = entries.filter(({ key }) => key.some((part) => part === id || part === peerName));
  assert.deepEqual(
    left.map(({ key }) => key.join("/")),
    [],
  );
}

describe("deleting", () => {
  for (const role of ["acceptor", "dialer"] as const) {
    it(`the ${role} deletes: its record and imports go, the other reads TERMINATED and is clean (LC10, LC11, ch1 cases 61 to 63, ch3 cases 60 to 64, ch4 case 57)`, async () => {
      const world = new World();
      const sites = await peered(world);
      const [deleting, other] = role === "acceptor" ? [sites.acceptor, sites.dialer] : [sites.dialer, sites.acceptor];
      const { id } = deleting.peering(other.name);
      const before = other.peering(deleting.name);
      const deletedAt = world.scheduler.now;
      await world.result(deleting.host.peerings.delete(other.name));
      const marked = deleting.peering(other.name);
      assert.equal(marked.state, "deleting");
      assert.ok(marked.deletedAt !== undefined);
      await world.until(() => deleting.state(other.name) === "none", "the record goes");
      assert.ok(world.scheduler.now - deletedAt < 5_000, "well within the time that an unreachable peer would take");
      await world.until(() => other.state(deleting.name) === "terminated", "the other is told");
      await world.result(other.host.peerings.deleted(deleting.name));
      await assertNothingLeft(world, deleting, other.name, id);
      assert.equal(world.messages(deleting, "terminated").length, 1);
      assert.equal(world.messages(other, "terminated").length, 0);

      await world.until(() => other.peering(deleting.name).status.phase === "idle", "its stream ends");
      const after = other.peering(deleting.name);
      assert.deepEqual(other.imported(deleting.name), {});
      assert.equal(other.host.trustBundles.read(deleting.name), undefined);
      assert.deepEqual(
        [after.id, after.peerId, after.peerServerAddresses, after.peerCaPems, after.remote],
        [before.id, before.peerId, before.peerServerAddresses, before.peerCaPems, before.remote],
      );
      assert.deepEqual(after.status.stream.exportedServices, before.status.stream.exportedServices);
      assert.deepEqual([after.status.phase, after.status.lastFailure], ["idle", undefined]);
      for (const site of [deleting, other]) {
        const own = site === sites.acceptor ? "web" : "api";
        assert.equal(site.host.catalog.instances(own).length, 1, "local data is untouched");
      }

      const opens = world.messages(sites.dialer, "open").length;
      await world.pass(600_000);
      assert.equal(world.messages(sites.dialer, "open").length, opens, "nobody dials again");
      assert.equal(other.state(deleting.name), "terminated");
      await world.result(other.host.peerings.delete(deleting.name));
      await world.until(() => other.state(deleting.name) === "none", "a TERMINATED record can be deleted");
      await assertNothingLeft(world, other, deleting.name, before.id);
    });

    it(`a DELETING record at the ${role} keeps id, name, times, addresses and Remote, and drops the rest (LC14)`, async () => {
      const world = new World();
      const sites = await peered(world);
      const [site, other] = role === "acceptor" ? [sites.acceptor, sites.dialer] : [sites.dialer, sites.acceptor];
      const before = site.peering(other.name);
      await world.result(site.host.peerings.delete(other.name.toUpperCase()));
      const after = site.peering(other.name);
      assert.deepEqual(
        [after.id, after.name, after.peerServerAddresses, after.remote],
        [before.id, before.name, before.peerServerAddresses, before.remote],
      );
      assert.deepEqual([after.peerId, after.peerCaPems, after.meta], ["", [], {}]);
      await world.result(site.host.peerings.delete(other.name));
      assert.equal(site.peering(other.name).deletedAt, after.deletedAt, "deleting twice changes nothing");
      await world.until(() => site.state(other.name) === "none", "it goes");
    });

    it(`the peer of the deleting ${role} is unreachable: its record goes all the same (ch3 case 69, LC16, L2, L4)`, async () => {
      const world = new World();
      const sites = await peered(world);
      const [site, other] = role === "acceptor" ? [sites.acceptor, sites.dialer] : [sites.dialer, sites.acceptor];
      const { id } = site.peering(other.name);
      world.network.partition(site.address, other.address);
      const began = world.scheduler.now;
      await world.result(site.host.peerings.delete(other.name));
      await world.until(() => site.state(other.name) === "none", "the record goes");
      const took = world.scheduler.now - began;
      assert.ok(took >= 5_000 && took < 6_000, `after the 5 s it may take to reach the peer, here ${took} ms`);
      await assertNothingLeft(world, site, other.name, id);
      world.network.healAll();
      await world.until(() => other.state(site.name) === "failing", "the other side notices that nobody is there");
      await world.pass(300_000);
      assert.equal(other.state(site.name), "failing", "nothing ever tells it");
      assert.notDeepEqual(other.imported(site.name), {}, "and it keeps what it had");
      await world.result(other.host.peerings.delete(site.name));
      await world.until(() => other.state(site.name) === "none", "its operator deletes");
    });
  }

  it("an unknown name is success (LC14)", async () => {
    const world = new World();
    const site = await world.site("alone");
    await world.result(site.host.peerings.delete("nobody"));
    assert.deepEqual(site.host.peerings.list(), []);
  });

  it("the acceptor deleted while the dialer was down: the dialer is refused, FAILING, and waits 2, 4, 8 … 64 s (ch3 case 67, LC16)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    dialer.crash();
    const { id } = acceptor.peering("dialer");
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => acceptor.state("dialer") === "none", "the record goes");
    await dialer.start();
    await world.until(() => dialer.state("acceptor") === "failing", "the dialer is refused");
    const { lastFailure } = dialer.peering("acceptor").status;
    assert.equal(lastFailure?.code, "invalid-argument");
    assert.ok(lastFailure?.message.endsWith(`initial subscription for unknown PeerID: ${id}`));
    await world.pass(600_000);
    const opens = world.sent.flatMap(({ at, message }) => (message.type === "open" ? [at] : [])).slice(1);
    const waits = opens.slice(1).map((at, index) => Math.round((at - (opens[index] ?? 0)) / 1_000));
    assert.deepEqual(waits.slice(0, 8), [2, 4, 8, 16, 32, 64, 64, 64]);
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
    await world.result(dialer.host.peerings.delete("acceptor"));
    await world.until(() => dialer.state("acceptor") === "none", "deleting it here cleans up");
    await world.pass(200_000);
    assert.equal(world.messages(dialer, "open").length, opens.length + 1, "and nobody dials any more");
  });

  it("the dialer deletes while the acceptor is down, and never dials again (ch3 case 68, D-3)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    acceptor.crash();
    await world.until(() => dialer.state("acceptor") === "failing", "the dialer notices");
    const { id } = dialer.peering("acceptor");
    await world.result(dialer.host.peerings.delete("acceptor"));
    await world.until(() => dialer.state("acceptor") === "none", "the record goes at once");
    await assertNothingLeft(world, dialer, "acceptor", id);
    await acceptor.start();
    await world.pass(300_000);
    assert.equal(acceptor.state("dialer"), "pending");
    assert.equal(world.messages(dialer, "open").length, 1);
  });

  it("deleting on both sides at once removes both records, however the messages cross (ch3 cases 72 and 73)", async () => {
    for (let headStartMs = 0; headStartMs < 12; headStartMs += 0.5) {
      const world = new World();
      const { acceptor, dialer } = await peered(world);
      const ids = [acceptor.peering("dialer").id, dialer.peering("acceptor").id] as const;
      const first = acceptor.host.peerings.delete("dialer");
      await world.pass(headStartMs);
      await world.result(Promise.all([first, dialer.host.peerings.delete("acceptor")]));
      await world.until(
        () => acceptor.state("dialer") === "none" && dialer.state("acceptor") === "none",
        `both go, ${headStartMs} ms apart`,
      );
      await assertNothingLeft(world, acceptor, "dialer", ids[0]);
      await assertNothingLeft(world, dialer, "acceptor", ids[1]);
      // The names are free again (L7).
      await peer(world, acceptor, dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    }
  });

  it("what arrives between the deletion and the end of the stream is not stored (ch3 case 70, I17)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    world.network.weather = { lowestDelayMs: 400, highestDelayMs: 400 };
    const { id } = dialer.peering("acceptor");
    const writing = Array.from({ length: 40 }, (_, index) => register(acceptor.host, "web", `${index + 2}`));
    await world.result(Promise.all(writing));
    await world.pass(200);
    await world.result(dialer.host.peerings.delete("acceptor"));
    for (let step = 0; step < 100 && dialer.state("acceptor") !== "none"; step++) {
      await world.result(register(acceptor.host, "web", `${step + 60}`));
      await world.pass(20);
    }
    await world.until(() => dialer.state("acceptor") === "none", "the record goes");
    await world.pass(10_000);
    await assertNothingLeft(world, dialer, "acceptor", id);
  });

  it("a dialer that never ends its side is left alone after 5 s (ch3 case 74, ch1 case 61)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream: dialer } = await openAs(world, acceptor, "dialer");
    const began = world.scheduler.now;
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => dialer.received.at(-1)?.type === "terminated", "it is told");
    assert.equal(dialer.end, undefined);
    assert.equal(await dialer.ended(), "ok");
    assert.ok(Math.abs(world.scheduler.now - began - 5_000) < 100);
    await world.until(() => acceptor.state("dialer") === "none", "the record goes");
  });
});

describe("`Terminated` of the peer", () => {
  it("right after `Open`: TERMINATED, cleaned, and the host lives (ch3 case 75)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream: dialer } = await openAs(world, acceptor, "dialer");
    await dialer.say({ type: "terminated" });
    await world.until(() => acceptor.state("dialer") === "terminated", "it takes effect");
    await world.result(acceptor.host.peerings.deleted("dialer"));
    const refused = await world.refusal(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    assert.equal(refused.code, "invalid-record");
    assert.equal(
      refused.message,
      'cannot create peering with name: "dialer"; the peering was terminated by the peer and must be deleted first',
    );
  });

  it("a TERMINATED record refuses the stream and does not say `Terminated` (LC17, ch1 case 31, ch3 case 46)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream: first, open } = await openAs(world, acceptor, "dialer");
    await first.say({ type: "terminated" });
    await world.until(() => acceptor.state("dialer") === "terminated", "it takes effect");
    const { id } = acceptor.peering("dialer");
    const second = await world.raw(acceptor);
    await second.say({ type: "open", peerId: id, streamSecretId: open.streamSecretId });
    const end = await second.ended();
    assert.ok(end instanceof PeeringError);
    assert.deepEqual([end.status, end.message], [StatusCode.Aborted, `peering is marked as deleted: ${id}`]);
    assert.deepEqual(second.received, []);
  });

  it("a stream that the peer opened after it, before it was stored, is ended", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream: first, open } = await openAs(world, acceptor, "dialer");
    const { id } = acceptor.peering("dialer");
    acceptor.fate = () => "fail";
    await first.say({ type: "terminated" });
    await world.pass(100);
    const second = await world.raw(acceptor);
    await second.say({ type: "open", peerId: id, streamSecretId: open.streamSecretId });
    await world.until(() => second.received.length > 0, "it is let in: the record stands still");
    acceptor.fate = () => "succeed";
    const end = await second.ended();
    assert.ok(end instanceof PeeringError);
    assert.deepEqual([end.status, end.message], [StatusCode.Aborted, `peering is marked as deleted: ${id}`]);
    assert.ok(!second.received.some(({ type }) => type === "terminated"));
    assert.equal(acceptor.state("dialer"), "terminated");
  });

  it("a DELETING record says `Terminated` and then refuses (LC17, ch1 case 31, ch3 case 46)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { open } = await openAs(world, acceptor, "dialer");
    const { id } = acceptor.peering("dialer");
    await world.result(acceptor.host.peerings.delete("dialer"));
    const second = await world.raw(acceptor);
    await second.say({ type: "open", peerId: id, streamSecretId: open.streamSecretId });
    const end = await second.ended();
    assert.ok(end instanceof PeeringError);
    assert.deepEqual([end.status, end.message], [StatusCode.Aborted, `peering is marked as deleted: ${id}`]);
    assert.deepEqual(second.received, [{ type: "terminated" }]);
  });

  it("no token for a DELETING acceptor; afterwards the name has a new id (LC13, ch3 case 69)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    await openAs(world, acceptor, "dialer");
    const { id } = acceptor.peering("dialer");
    await world.result(acceptor.host.peerings.delete("dialer"));
    const refused = await world.refusal(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    assert.deepEqual(
      [refused.code, refused.message],
      ["invalid-record", "failed to write peering: cannot write to peering that is marked for deletion"],
    );
    await world.until(() => acceptor.state("dialer") === "none", "the record goes");
    await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    assert.notEqual(acceptor.peering("dialer").id, id);
  });

  it("sent on the old stream, it does nothing to a record that was established again (ch3 case 71, D-12)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    // The message stays under way for longer than the acceptor waits.
    for (const connection of world.network.connections) connection.pausedUntil = world.scheduler.now + 30_000;
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => acceptor.state("dialer") === "none", "the acceptor gives up waiting");
    await peer(world, acceptor, dialer);
    const { peerId } = dialer.peering("acceptor");
    assert.equal(peerId, acceptor.peering("dialer").id);
    await world.pass(60_000);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    assert.equal(dialer.peering("acceptor").peerId, peerId);
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
  });
});

describe("establishing over TERMINATED", () => {
  it("the dialer keeps its id, gets a new PeerID, and both are ACTIVE (LC12, ch1 case 63, ch3 case 61)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const before = dialer.peering("acceptor");
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => dialer.state("acceptor") === "terminated", "the dialer is told");
    await world.until(() => acceptor.state("dialer") === "none", "the name is free");
    await peer(world, acceptor, dialer);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const after = dialer.peering("acceptor");
    assert.equal(after.id, before.id);
    assert.notEqual(after.peerId, before.peerId);
    await world.until(() => dialer.count("acceptor", "web") === 1, "imports are back");
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
    assert.notEqual(dialer.host.trustBundles.read("acceptor"), undefined);
  });

  it("a hundred times in a row, and the new pairing never terminates itself (ch3 case 76, D-6)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    for (let round = 0; round < 100; round++) {
      await world.result(acceptor.host.peerings.delete("dialer"));
      await world.until(() => dialer.state("acceptor") === "terminated", "the dialer is told");
      await world.until(() => acceptor.state("dialer") === "none", "the name is free");
      await peer(world, acceptor, dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
    }
    await world.pass(30_000);
    assert.deepEqual([acceptor.state("dialer"), dialer.state("acceptor")], ["active", "active"]);
    assert.equal(world.messages(acceptor, "terminated").length, 100);
    assert.equal(world.messages(dialer, "terminated").length, 0);
  });

  it("a delete followed by a new pairing ends ACTIVE, however soon the new pairing comes (L9, ch3 case 76)", async () => {
    for (let waitMs = 0; waitMs < 15; waitMs += 0.75) {
      const world = new World();
      const { acceptor, dialer } = await peered(world);
      await world.result(acceptor.host.peerings.delete("dialer"));
      await world.until(() => acceptor.state("dialer") === "none", "the name is free");
      await world.pass(waitMs);
      await peer(world, acceptor, dialer);
      await world.settled(acceptor, "dialer", dialer, "acceptor");
      await world.pass(20_000);
      assert.deepEqual(
        [acceptor.state("dialer"), dialer.state("acceptor")],
        ["active", "active"],
        `after ${waitMs} ms`,
      );
      assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
      assert.notEqual(dialer.host.trustBundles.read("acceptor"), undefined);
    }
  });

  it("a cleanup that is still under way takes nothing of the new peering (I19)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const count = 3_500;
    const services = Array.from({ length: count }, (_, index) => ({ id: `s${index}`, name: `s${index}` }));
    const node = { node: "node-1", address: "10.0.0.1" };
    await world.result(acceptor.host.catalog.registerAll(services.map((service) => ({ ...node, service }))));
    await world.result(acceptor.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "dialer" }] }] }));
    await world.until(() => Object.keys(dialer.imported("acceptor")).length === count + 2, "all is imported");
    // The four commits of the cleanup take longer than the establishing and the first messages.
    dialer.latencyMs = 200;
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.until(() => acceptor.state("dialer") === "none", "the name is free");
    await world.until(() => dialer.state("acceptor") === "terminated", "the dialer is told");
    await peer(world, acceptor, dialer);
    await world.until(() => acceptor.peering("dialer").status.facts.lastAck !== undefined, "the new stream runs");
    await world.pass(2_000);
    dialer.latencyMs = 0.5;
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    await world.pass(10_000);
    assert.equal(Object.keys(dialer.imported("acceptor")).length, count + 2);
    assert.notEqual(dialer.host.trustBundles.read("acceptor"), undefined);
  });
});

describe("cleaning up", () => {
  it("thousands of imported services go, others stay, and then nothing is done any more (LC21, ch3 case 63)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream: big } = await openAs(world, acceptor, "big");
    const { stream: small } = await openAs(world, acceptor, "small");
    const count = 3_000;
    await big.say(
      ...Array.from({ length: count }, (_, index) => upsert(index + 1, `s${index}`, servicePayload(`s${index}`))),
    );
    await small.say(upsert(1, "keep", servicePayload("keep")));
    await world.until(() => Object.keys(acceptor.imported("big")).length === count, "all is imported");
    await world.until(() => acceptor.count("small", "keep") === 1, "the small one's too");
    await big.say({ type: "terminated" });
    await world.until(() => acceptor.state("big") === "terminated", "the peer terminates");
    await world.result(acceptor.host.peerings.deleted("big"));
    assert.deepEqual(acceptor.imported("big"), {});
    assert.deepEqual(acceptor.imported("small"), { keep: 1 });
    const commits = acceptor.commits;
    await world.pass(60_000);
    assert.equal(acceptor.commits, commits, "a clean TERMINATED record costs nothing");
    assert.equal(acceptor.state("big"), "terminated");
  });

  it("a cleanup that the storage fails is tried again after 1, 2, 4 … 60 s (D-13)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    await world.result(acceptor.host.peerings.delete("dialer"));
    const began = world.scheduler.now;
    const failures: number[] = [];
    acceptor.fate = () => {
      failures.push(world.scheduler.now - began);
      return "fail";
    };
    await world.pass(200_000);
    const waits = failures.slice(1).map((at, index) => Math.round((at - (failures[index] ?? 0)) / 1_000));
    assert.deepEqual(waits.slice(0, 8), [1, 2, 4, 8, 16, 32, 60, 60]);
    assert.equal(acceptor.state("dialer"), "deleting");
    acceptor.fate = () => "succeed";
    await world.until(() => acceptor.state("dialer") === "none", "it is finished in the end");
    await world.until(() => dialer.state("acceptor") === "terminated", "and the dialer was told");
  });
});
