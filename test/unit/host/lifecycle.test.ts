import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { machineryOf } from "../../../src/host/host.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import { Operation, ResourceUrl } from "../../../src/wire/messages.js";
import { exportTo, offer, peer, peered, register, type Site, World } from "../../support/world.js";

/** The token with some of its fields changed. */
function edited(token: string, changes: Partial<ReturnType<typeof TokenCodec.decode>>): string {
  return TokenCodec.encode({ ...TokenCodec.decode(token), ...changes });
}

function tokenFor(world: World, site: Site, peerName: string): Promise<string> {
  return world.result(site.host.peerings.generateToken({ peerName }));
}

describe("peering", () => {
  it("both read ACTIVE, each has what the other exports, and the records tell of each other (LC2, ch3 case 2)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world, {
      acceptor: { locality: { region: "r1", zone: "z1" } },
      dialer: { locality: { region: "r2", zone: "z2" } },
    });
    assert.deepEqual([acceptor.state("dialer"), dialer.state("acceptor")], ["active", "active"]);
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
    assert.deepEqual(acceptor.imported("dialer"), { api: 1 });

    const a = acceptor.peering("dialer");
    const d = dialer.peering("acceptor");
    assert.deepEqual([a.role, a.peerId, a.peerServerName, a.peerServerAddresses], ["acceptor", "", "", []]);
    assert.deepEqual([d.role, d.peerId, d.peerServerAddresses], ["dialer", a.id, [acceptor.address]]);
    assert.equal(d.peerServerName, `server.dc-acceptor.peering.${acceptor.host.trustDomain}`);
    assert.deepEqual(
      d.peerCaPems,
      acceptor.authority.roots().map((root) => root.certificatePem),
    );
    assert.notEqual(a.id, d.id);
    assert.deepEqual(d.remote, { partition: "", datacenter: "dc-acceptor", locality: { region: "r1", zone: "z1" } });
    assert.deepEqual(a.remote, { partition: "", datacenter: "dc-dialer", locality: { region: "r2", zone: "z2" } });
  });

  it("the instances arrive as they were registered, and each change of them follows (LC2)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const sent = acceptor.host.catalog.instances("web");
    const [here] = await world.result(dialer.host.imports.instances({ peer: "acceptor", service: "web" }));
    assert.deepEqual([here?.node.name, here?.node.address], [sent[0]?.node.name, sent[0]?.node.address]);
    assert.deepEqual([here?.service.id, here?.service.port, here?.service.tags], ["web-1", 8080, ["v1"]]);
    await world.result(register(acceptor.host, "web", "2"));
    await world.until(() => dialer.count("acceptor", "web") === 2, "the second instance arrives");
    await world.result(acceptor.host.catalog.deregister({ node: "node-1", serviceId: "web-1" }));
    await world.until(() => dialer.count("acceptor", "web") === 1, "the first one goes");
    const [left] = await world.result(dialer.host.imports.instances({ peer: "acceptor", service: "web" }));
    assert.equal(left?.service.id, "web-2");
  });

  it("status tells phase, streams, lists and times of both directions", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    await world.pass(16_000);
    for (const [view, imported, exported] of [
      [acceptor.peering("dialer"), ["api"], ["db", "web"]],
      [dialer.peering("acceptor"), ["db", "web"], ["api"]],
    ] as const) {
      const { status } = view;
      assert.deepEqual([status.phase, status.healthy, status.lastFailure], ["connected", true, undefined]);
      assert.deepEqual([status.stream.importedServices, status.stream.exportedServices], [imported, exported]);
      assert.deepEqual([status.queuedResources, status.queuedBytes, status.unacknowledged, status.lagMs], [0, 0, 0, 0]);
      assert.deepEqual([status.facts.connected, status.facts.neverConnected], [true, false]);
      const { facts } = status;
      for (const time of [facts.lastAck, facts.lastSendSuccess, facts.lastReceiveResourceSuccess, facts.connectTime]) {
        assert.ok(time !== undefined && time > 0);
      }
      assert.ok(facts.lastReceiveHeartbeat !== undefined && status.lastHeartbeatSent !== undefined);
      assert.ok(Math.abs(facts.lastReceiveHeartbeat - status.lastHeartbeatSent) < 1_000);
    }
  });

  it("a token alone makes a PENDING record without a stream (ch3 case 1)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    await tokenFor(world, acceptor, "dialer");
    await world.pass(60_000);
    const { state, status } = acceptor.peering("dialer");
    assert.equal(state, "pending");
    assert.deepEqual([status.phase, status.facts.neverConnected, status.healthy], ["idle", true, false]);
    assert.deepEqual(status.stream, {
      importedServices: [],
      exportedServices: [],
      lastHeartbeat: undefined,
      lastReceive: undefined,
      lastSend: undefined,
    });
  });

  it("a second token voids the first, and leaves the record but for its index (LC1)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const first = await tokenFor(world, acceptor, "dialer");
    const before = acceptor.peering("dialer");
    const second = await tokenFor(world, acceptor, "dialer");
    const after = acceptor.peering("dialer");
    assert.equal(before.state, "pending");
    assert.ok(after.modifyIndex > before.modifyIndex);
    assert.deepEqual({ ...after, modifyIndex: 0n, status: 0 }, { ...before, modifyIndex: 0n, status: 0 });
    assert.notEqual(first, second);
    const refusal = await world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token: first }));
    assert.equal(refusal.code, "permission-denied");
    assert.equal(refusal.status, 7);
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token: second }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("a used token is refused at once, with what helps (LC3, ch1 cases 14 and 18, ch3 case 33)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const third = await world.site("third");
    const token = await tokenFor(world, acceptor, "dialer");
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    const began = world.scheduler.now;
    const refusal = await world.refusal(third.host.peerings.establish({ peerName: "acceptor", token }));
    assert.ok(world.scheduler.now - began < 300, "without a second attempt");
    assert.equal(refusal.code, "permission-denied");
    assert.equal(refusal.message, "a new peering token must be generated: invalid peering establishment secret");
    assert.match(refusal.remedy ?? "", /Generate a new token/);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("of two establishes at once with one token exactly one succeeds (LC4, ch1 case 15)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const dialers = [await world.site("one"), await world.site("two")];
    const token = await tokenFor(world, acceptor, "dialer");
    const outcomes = await world.result(
      Promise.allSettled(dialers.map((site) => site.host.peerings.establish({ peerName: "acceptor", token }))),
    );
    assert.deepEqual(outcomes.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    await world.until(() => acceptor.state("dialer") === "active", "the winner connects");
  });

  it("nobody answers: after 3 s the error of each attempt; the record stays and is taken over (LC5, ch3 cases 32, 36 and 57)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const token = await tokenFor(world, acceptor, "dialer");
    const dead = edited(token, { serverAddresses: ["nowhere:1"] });
    const began = world.scheduler.now;
    const refusal = await world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token: dead }));
    assert.ok(world.scheduler.now - began > 3_000);
    assert.equal(refusal.code, "unavailable");
    assert.match(
      refusal.message,
      /^1[0-9] errors occurred:\n\t\* failed to exchange peering secret through address "nowhere:1"/,
    );
    const left = dialer.peering("acceptor");
    assert.deepEqual([left.state, left.peerServerAddresses], ["pending", ["nowhere:1"]]);
    await world.pass(120_000);
    assert.deepEqual([dialer.state("acceptor"), dialer.peering("acceptor").status.failedAttempts], ["pending", 0]);
    const view = await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    assert.equal(view.id, left.id);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("a first address that swallows everything does not keep establish from the second (ch3 case 38, D-18)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const token = await tokenFor(world, acceptor, "dialer");
    await world.site("hole");
    world.network.partition("hole:8503", dialer.address);
    const both = edited(token, { serverAddresses: ["hole:8503", "hole:8503", acceptor.address] });
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token: both }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("the exchange was committed and its answer lost: the token is burnt, a new one heals (ch3 case 37)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const token = await tokenFor(world, acceptor, "dialer");
    world.network.onExchange = () => world.network.partition(acceptor.address, dialer.address);
    const outcome = world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    await world.until(() => world.network.isPartitioned(acceptor.address, dialer.address), "the exchange happened");
    await world.pass(100);
    world.network.onExchange = undefined;
    world.network.heal(acceptor.address, dialer.address);
    assert.equal((await outcome).code, "permission-denied");
    assert.equal(dialer.state("acceptor"), "pending");
    await peer(world, acceptor, dialer);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("a name belongs to one role (LC6, ch3 case 35)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const generated = await world.refusal(dialer.host.peerings.generateToken({ peerName: "acceptor" }));
    assert.equal(generated.code, "wrong-role");
    assert.match(
      generated.message,
      /^cannot create peering with name: "acceptor"; there is already an established peering/,
    );
    const other = await world.site("other");
    const token = await tokenFor(world, other, "x");
    const established = await world.refusal(acceptor.host.peerings.establish({ peerName: "dialer", token }));
    assert.equal(established.code, "wrong-role");
    assert.equal(
      established.message,
      'cannot create peering with name: "dialer"; there is an existing peering expecting to be dialed',
    );
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("a token of our own is refused (LC7, ch3 case 34)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const token = await tokenFor(world, acceptor, "dialer");
    const refusal = await world.refusal(acceptor.host.peerings.establish({ peerName: "myself", token }));
    assert.equal(refusal.code, "same-cluster");
    assert.match(refusal.message, /^cannot create a peering within the same cluster "server\.dc-acceptor\.peering\./);
    assert.equal(acceptor.state("myself"), "none");
  });

  it("with the stream up, the token's addresses are not taken, manual ones are (LC8, ch1 case 73, ch3 case 19)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const token = await tokenFor(world, acceptor, "dialer");
    // The exchange must get through, so one address is right; the record keeps the list that works.
    const wrong = edited(token, { serverAddresses: ["bad:1", acceptor.address] });
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token: wrong }));
    assert.deepEqual(dialer.peering("acceptor").peerServerAddresses, [acceptor.address]);
    const manual = edited(await tokenFor(world, acceptor, "dialer"), {
      manualServerAddresses: ["bad:2", acceptor.address],
    });
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token: manual }));
    const view = dialer.peering("acceptor");
    assert.deepEqual(view.manualServerAddresses, ["bad:2", acceptor.address]);
    assert.deepEqual([view.peerServerAddresses, view.state], [[acceptor.address], "active"]);
  });

  it("establishing again over a live stream does not disturb it; its next stream has the new secret (LC9, ch1 case 16, ch3 case 86)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const secrets = (): string[] => world.messages(dialer, "open").map((open) => open.streamSecretId);
    const [old = ""] = secrets();
    const connectedAt = dialer.peering("acceptor").status.facts.connectTime;
    await peer(world, acceptor, dialer);
    assert.deepEqual([acceptor.state("dialer"), dialer.state("acceptor")], ["active", "active"]);
    await world.pass(30_000);
    assert.equal(dialer.peering("acceptor").status.facts.connectTime, connectedAt);
    assert.equal(secrets().length, 1);

    // The old one is good until the new one was used.
    const before = await world.raw(acceptor);
    const peerId = acceptor.peering("dialer").id;
    await before.say({ type: "open", peerId, streamSecretId: old });
    await world.until(() => before.received.length > 0, "the old secret opens a stream");
    await before.close();
    await world.until(() => secrets().length === 2, "the dialer comes again");
    assert.notEqual(secrets()[1], old);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const late = await world.raw(acceptor);
    await late.say({ type: "open", peerId, streamSecretId: old });
    const end = await late.ended();
    assert.ok(end instanceof PeeringError);
    assert.deepEqual([end.status, end.message], [7, "invalid peering stream secret"]);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("a failing establish changes nothing of a peering that works, whatever the token says", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const other = await world.site("other");
    const fresh = await tokenFor(world, other, "dialer");
    const stale = await tokenFor(world, acceptor, "dialer");
    await tokenFor(world, acceptor, "dialer");
    const record = (): unknown => ({ ...machineryOf(dialer.host).records.byName("acceptor"), modifyIndex: 0n });
    const before = record();
    const opened = world.messages(dialer, "open");
    const tokens: readonly (readonly [string, string, string])[] = [
      ["used or superseded", stale, "permission-denied"],
      [
        "of another cluster, superseded",
        edited(fresh, { establishmentSecret: "00000000-0000-0000-0000-000000000000" }),
        "permission-denied",
      ],
      ["nobody answers", edited(fresh, { serverAddresses: ["nowhere:1"] }), "unavailable"],
      ["our peer with another id", edited(stale, { peerId: other.peering("dialer").id }), "permission-denied"],
    ];
    for (const [what, token, code] of tokens) {
      const refusal = await world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token }));
      assert.equal(refusal.code, code, what);
      assert.deepEqual(record(), before, what);
      assert.deepEqual([acceptor.state("dialer"), dialer.state("acceptor")], ["active", "active"], what);
    }
    assert.deepEqual(world.messages(dialer, "open"), opened, "the stream stands");
    await world.result(register(acceptor.host, "web", "2"));
    await world.until(() => dialer.count("acceptor", "web") === 2, "the peering works as before");
  });

  it("a failing establish shows the stream secret to no other cluster, also with the peer down and after a restart", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const other = await world.site("other");
    const token = edited(await tokenFor(world, other, "dialer"), {
      establishmentSecret: "00000000-0000-0000-0000-000000000000",
    });
    acceptor.crash();
    await world.until(() => dialer.state("acceptor") === "failing", "the stream is lost");
    const refusal = await world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    assert.equal(refusal.code, "permission-denied");
    const opened = world.messages(dialer, "open").length;
    await world.pass(120_000);
    await dialer.restart();
    await world.pass(120_000);
    assert.equal(world.messages(dialer, "open").length, opened, "nobody was told the secret");
    await acceptor.start();
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("a crash in the middle of establishing with another cluster leaves the peering with the first one", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const other = await world.site("other");
    const token = await tokenFor(world, other, "dialer");
    const record = (): unknown => ({ ...machineryOf(dialer.host).records.byName("acceptor"), modifyIndex: 0n });
    const before = record();
    let exchanged = false;
    world.network.onExchange = () => {
      exchanged = true;
      dialer.crash();
    };
    dialer.host.peerings.establish({ peerName: "acceptor", token }).catch(() => {});
    await world.until(() => exchanged, "the exchange happened");
    world.network.onExchange = undefined;
    await dialer.start();
    assert.deepEqual(record(), before);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    assert.equal(other.peering("dialer").status.phase, "idle");
  });

  it("while an establish with another cluster runs, the peering goes on, and is dialed with what it was made with", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    acceptor.crash();
    await world.until(() => dialer.state("acceptor") === "failing", "the stream is lost");
    const other = await world.site("other");
    const { id } = acceptor.up ? acceptor.peering("dialer") : dialer.peering("acceptor");
    const peerId = dialer.peering("acceptor").peerId;
    await world.site("slow");
    world.network.partition("slow:8503", dialer.address);
    const slow = Array.from({ length: 10 }, () => "slow:8503");
    const token = edited(await tokenFor(world, other, "dialer"), { serverAddresses: [...slow, other.address] });
    const since = world.scheduler.now;
    const establishing = dialer.host.peerings.establish({ peerName: "acceptor", token });
    await acceptor.start();
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    assert.deepEqual(
      world.messages(dialer, "open", since).map((open) => open.peerId),
      [peerId],
      "the establish has not succeeded yet",
    );
    await world.result(establishing);
    await world.settled(other, "dialer", dialer, "acceptor");
    assert.equal(dialer.peering("acceptor").id, id);
    assert.equal(other.peering("dialer").status.lastFailure, undefined);
    assert.equal(dialer.peering("acceptor").status.failedAttempts, 0, "the end of the former stream is no failure");
    assert.equal(acceptor.state("dialer"), "failing");
  });

  it("of two establishes at once with two clusters, the peering is with the one that succeeds last", async () => {
    const world = new World();
    const dialer = await world.site("dialer");
    const [east, west] = [await world.site("east"), await world.site("west")];
    const far = await world.site("far");
    world.network.partition(far.address, dialer.address);
    const slow = edited(await tokenFor(world, east, "dialer"), { serverAddresses: [far.address, east.address] });
    const quick = await tokenFor(world, west, "dialer");
    const outcomes = await world.result(
      Promise.all([slow, quick].map((token) => dialer.host.peerings.establish({ peerName: "there", token }))),
    );
    assert.equal(new Set(outcomes.map(({ id }) => id)).size, 1);
    await world.settled(east, "dialer", dialer, "there");
    const { peerId, peerServerName } = dialer.peering("there");
    assert.deepEqual(
      [peerId, peerServerName],
      [east.peering("dialer").id, `server.dc-east.peering.${east.host.trustDomain}`],
    );
    const secrets = new Map(world.messages(dialer, "open").map((open) => [open.streamSecretId, open.peerId]));
    const opens = new Set(world.messages(dialer, "open").map((open) => `${open.streamSecretId} ${open.peerId}`));
    assert.equal(secrets.size, opens.size, "no secret was shown to two clusters");
  });

  it("aborting an establish rejects with the signal's reason and leaves a record that can be taken over", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const token = await tokenFor(world, acceptor, "dialer");
    const stop = new AbortController();
    world.network.partition(acceptor.address, dialer.address);
    const establishing = dialer.host.peerings.establish({ peerName: "acceptor", token, signal: stop.signal });
    const outcome = establishing.then(
      () => "resolved",
      (error: unknown) => error,
    );
    await world.pass(500);
    const reason = new Error("enough");
    stop.abort(reason);
    assert.equal(await world.result(outcome), reason);
    assert.equal(dialer.state("acceptor"), "pending");
    world.network.heal(acceptor.address, dialer.address);
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });
});

describe("reported states", () => {
  it("never connected reads ESTABLISHING, however often dialing fails (ch3 case 57)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    acceptor.crash();
    await acceptor.start();
    const token = await tokenFor(world, acceptor, "dialer");
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    acceptor.crash();
    await world.until(() => (dialer.host.peerings.read("acceptor")?.status.failedAttempts ?? 0) >= 4, "dialing fails");
    const { state, status } = dialer.peering("acceptor");
    assert.equal(status.facts.neverConnected, true);
    assert.equal(state, "establishing");
    assert.equal(status.phase, "waiting");
    assert.equal(status.lastFailure?.code, "unavailable");
    assert.equal(status.lastFailure?.address, acceptor.address);
    assert.ok(status.nextAttemptAt !== undefined);
  });

  it("a killed acceptor makes FAILING; back, it reads PENDING until the dialer comes by itself (LC15, ch1 cases 64 and 65, ch3 cases 16, 20 and 57)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const { id } = acceptor.peering("dialer");
    acceptor.crash();
    await world.until(() => dialer.state("acceptor") === "failing", "the dialer notices");
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 }, "imported data survives an outage");
    await acceptor.start();
    assert.equal(acceptor.state("dialer"), "pending");
    assert.deepEqual(acceptor.imported("dialer"), { api: 1 });
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    assert.equal(acceptor.peering("dialer").id, id);
    assert.equal(dialer.peering("acceptor").status.failedAttempts, 0);
  });

  it("a dialer back from a restart connects by itself, and loses services un-exported meanwhile (ch1 case 106, ch3 case 17)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    dialer.crash();
    await world.until(() => acceptor.state("dialer") === "failing", "the acceptor notices");
    await exportTo(world, acceptor, "dialer", "db");
    await dialer.start();
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    await world.until(() => dialer.count("acceptor", "web") === 0, "web goes");
    assert.deepEqual(dialer.imported("acceptor"), { db: 1 });
    assert.equal(world.messages(dialer, "open").length, 2);
  });

  it("after a reconnect both sides are healthy again, without a trace of the failure (ch3 case 56, ch1 case 36, D-8)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    for (const connection of world.network.connections) world.network.cut(connection);
    await world.until(() => acceptor.state("dialer") === "failing", "the acceptor notices");
    assert.equal(dialer.state("acceptor"), "failing");
    assert.notEqual(acceptor.peering("dialer").status.facts.disconnectErrorMessage, "");
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    for (const view of [acceptor.peering("dialer"), dialer.peering("acceptor")]) {
      const { facts, healthy } = view.status;
      assert.equal(healthy, true);
      assert.deepEqual(
        [facts.disconnectTime, facts.disconnectErrorMessage, facts.neverConnected],
        [undefined, "", false],
      );
    }
  });

  it("healthy until the stream has been gone for longer than the window; never connected is not (ch3 case 97, ch1 case 111)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    assert.equal(acceptor.peering("dialer").status.healthy, true);
    dialer.crash();
    await world.pass(110_000);
    assert.deepEqual([acceptor.state("dialer"), acceptor.peering("dialer").status.healthy], ["failing", true]);
    await world.pass(20_000);
    assert.equal(acceptor.peering("dialer").status.healthy, false);
    await tokenFor(world, acceptor, "never");
    assert.equal(acceptor.peering("never").status.healthy, false);
  });

  it("the lists of both sides follow the exports: three by wildcard, none, two, one, two (ch1 case 105, ch3 case 58)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    await world.result(register(acceptor.host, "cache"));
    const wildcard = { services: [{ name: "*", consumers: [{ peer: "dialer" }] }] };
    const steps: readonly (readonly [() => Promise<void>, readonly string[]])[] = [
      [() => world.result(acceptor.host.exports.set(wildcard)), ["cache", "db", "web"]],
      [() => exportTo(world, acceptor, "dialer"), []],
      [() => exportTo(world, acceptor, "dialer", "web", "db"), ["db", "web"]],
      [() => exportTo(world, acceptor, "dialer", "db"), ["db"]],
      [() => exportTo(world, acceptor, "dialer", "db", "cache"), ["cache", "db"]],
    ];
    for (const [change, names] of steps) {
      await change();
      const seen = (): readonly string[] => dialer.peering("acceptor").status.stream.importedServices;
      await world.until(() => seen().join() === names.join(), `the importer lists ${names}`);
      await world.until(() => Object.keys(dialer.imported("acceptor")).join() === names.join(), `it has ${names}`);
      assert.deepEqual(acceptor.peering("dialer").status.stream.exportedServices, names);
      assert.deepEqual(acceptor.host.exports.forPeer("dialer"), names);
      const listed = acceptor.host.peerings.list().find(({ name }) => name === "dialer");
      assert.deepEqual(listed?.status.stream.exportedServices, names);
    }
  });
});

describe("replication", () => {
  it("a new stream brings nothing new, and nothing is written (ch1 case 104)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const before = dialer.host.imports.services({ peer: "acceptor" });
    for (const connection of world.network.connections) world.network.cut(connection);
    await world.until(() => world.messages(dialer, "open").length === 2, "the dialer comes again");
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    await world.pass(1_000);
    assert.deepEqual(dialer.host.imports.services({ peer: "acceptor" }), before);
    assert.ok(world.messages(acceptor, "response").filter(({ resourceId }) => resourceId === "web").length === 2);
  });

  it("the acceptor never subscribes to addresses, the dialer to all four (ch1 cases 33 and 34)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const subscriptions = (site: Site): readonly string[] =>
      world
        .messages(site, "request")
        .flatMap(({ responseNonce, resourceUrl }) => (responseNonce === "" ? [resourceUrl] : []));
    const { exportedService, exportedServiceList, trustBundle, serverAddresses } = ResourceUrl;
    assert.deepEqual(
      subscriptions(acceptor).toSorted(),
      [exportedService, exportedServiceList, trustBundle].toSorted(),
    );
    assert.deepEqual(
      subscriptions(dialer).toSorted(),
      [exportedService, exportedServiceList, trustBundle, serverAddresses].toSorted(),
    );
    const responses = [...world.messages(acceptor, "response"), ...world.messages(dialer, "response")];
    assert.ok(responses.length > 0 && responses.every(({ operation }) => operation === Operation.Upsert));
  });

  it("other peerings and tokens come and go without touching a stream (ch3 case 6, I24, I20)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const third = await world.site("third");
    await offer(world, third, "acceptor", "mail");
    await peer(world, third, acceptor);
    await world.settled(third, "acceptor", acceptor, "third");
    await tokenFor(world, acceptor, "dialer");
    await world.pass(30_000);
    assert.equal(world.sent.filter(({ message }) => message.type === "terminated").length, 0);
    await world.result(acceptor.host.peerings.delete("third"));
    await world.until(() => acceptor.state("third") === "none", "the other peering is deleted");
    assert.deepEqual(acceptor.imported("dialer"), { api: 1 });
    assert.equal(world.messages(dialer, "open").length, 1);
    assert.deepEqual([acceptor.state("dialer"), dialer.state("acceptor")], ["active", "active"]);
  });
});
