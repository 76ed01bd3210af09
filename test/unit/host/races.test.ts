import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { silentLogger } from "../../../src/base/environment.js";
import { PeeringError } from "../../../src/base/errors.js";
import { Deletion, type DeletionOptions } from "../../../src/host/deletion.js";
import { Dialer } from "../../../src/host/dialer.js";
import { machineryOf } from "../../../src/host/host.js";
import type { Peering } from "../../../src/peering/peering.js";
import { Scheduler, virtualClock } from "../../../src/testing/simulator/scheduler.js";
import { openAs, servicePayload, upsert } from "../../support/messages.js";
import { blankPeering } from "../../support/peerings.js";
import { peered, World } from "../../support/world.js";

describe("a stream that was replaced", () => {
  it("what a disk refused of it is not tried again over what the newer stream said (I14)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream: first, open } = await openAs(world, acceptor, "dialer");
    const failing = acceptor.commits + 1;
    acceptor.fate = (commit) => (commit === failing ? "fail" : "succeed");
    await first.say(upsert(1, "web", servicePayload("web", 1)));
    await world.until(() => acceptor.commits === failing, "the disk refuses");
    const second = await world.raw(acceptor);
    await second.say(open, upsert(1, "web", servicePayload("web", 2)));
    await world.until(() => acceptor.count("dialer", "web") === 2, "the newer stream replicates");
    await world.pass(10_000);
    assert.equal(acceptor.count("dialer", "web"), 2);
  });
});

describe("establishing again with another cluster", () => {
  it("the stream that stands writes no roots into the record of the other, and ends once that is established (I19)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const other = await world.site("other");
    // Server addresses of a token are not taken while a stream is up, manual ones are.
    const asked = { peerName: "dialer", serverExternalAddresses: [other.address] };
    const token = await world.result(other.host.peerings.generateToken(asked));
    dialer.latencyMs = 300;
    const establishing = dialer.host.peerings.establish({ peerName: "acceptor", token });
    await world.until(
      () => dialer.peering("acceptor").peerId === other.peering("dialer").id,
      "the record is rewritten",
    );
    acceptor.authority.rotate();
    await world.result(establishing);
    await world.settled(other, "dialer", dialer, "acceptor");
    assert.equal(dialer.peering("acceptor").peerCaPems.join(""), roots(other));
    assert.equal(acceptor.state("dialer"), "failing");
  });

  it("it is not dialed before the last of several establishes at once has ended (D-19)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const used = await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    acceptor.crash();
    await world.until(() => dialer.state("acceptor") === "failing", "the stream is lost");
    const opens = world.messages(dialer, "open").length;
    const longer = dialer.host.peerings.establish({ peerName: "acceptor", token });
    await world.pass(2_000);
    await acceptor.start();
    acceptor.latencyMs = 1_500;
    await world.refusal(dialer.host.peerings.establish({ peerName: "acceptor", token: used }));
    await world.pass(500);
    assert.equal(world.messages(dialer, "open").length, opens);
    acceptor.latencyMs = 1;
    await world.result(longer);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });
});

describe("cleaning up", () => {
  it("a peering that is active again by the time it is cleaned loses nothing (I20)", async () => {
    const world = new World();
    const { dialer } = await peered(world);
    const { id } = dialer.peering("acceptor");
    const { records, imports } = machineryOf(dialer.host);
    const late = await world.refusal(imports.removePeer(id, records.inactiveExpectation(id)));
    assert.equal(late.code, "conflict");
    await using deletion = deletionOf(new Scheduler(), (...removal) => imports.removePeer(...removal), records);
    deletion.replace(id, ["remove-imports"]);
    await world.pass(10_000);
    deletion.replace(id, []);
    await world.result(records.removeTrustBundle("acceptor"));
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 });
    assert.notEqual(records.trustBundle("acceptor"), undefined);
    await world.result(records.terminate(id));
    await world.until(() => Object.keys(dialer.imported("acceptor")).length === 0, "now it goes");
    await world.until(() => records.trustBundle("acceptor") === undefined, "and so does the bundle");
  });

  it("what is asked for is removed, however close to the end of the last task it is asked for", async () => {
    for (let delay = 0; delay < 24; delay++) {
      let removed = 0;
      await using deletion = deletionOf(new Scheduler(), async () => {
        removed++;
      });
      deletion.replace("p", ["remove-imports"]);
      for (let turn = 0; turn < delay; turn++) await Promise.resolve();
      const before = removed;
      deletion.replace("p", ["remove-imports"]);
      for (let turn = 0; turn < 50; turn++) await Promise.resolve();
      assert.ok(removed > before || (before === 0 && removed === 1), `asked for ${delay} turns later`);
      await deletion.settled("p");
    }
  });

  it("what is asked for no longer is not tried again", async () => {
    const scheduler = new Scheduler();
    let tries = 0;
    await using deletion = deletionOf(scheduler, async () => {
      tries++;
      throw new PeeringError("storage-failed", "disk full");
    });
    const pass = (untilMs: number): Promise<void> =>
      scheduler.run(
        untilMs,
        () => false,
        () => {},
      );
    deletion.replace("p", ["remove-imports"]);
    await pass(2_000);
    assert.equal(tries, 2, "at once, and after a second");
    deletion.replace("p", []);
    await pass(600_000);
    assert.equal(tries, 2);
    await deletion.settled("p");
  });
});

function deletionOf(
  scheduler: Scheduler,
  removePeer: DeletionOptions["imports"]["removePeer"],
  records: Pick<DeletionOptions["records"], "inactiveExpectation"> = { inactiveExpectation: () => [] },
): Deletion {
  return new Deletion({
    clock: virtualClock(scheduler, { alive: true }),
    logger: silentLogger,
    records: {
      byId: () => undefined,
      inactiveExpectation: (id) => records.inactiveExpectation(id),
      removeTrustBundle: async () => {},
      remove: async () => {},
    },
    streams: { drained: async () => {} },
    imports: { removePeer },
    board: { forget: () => {} },
    mayRemove: () => true,
  });
}

describe("the dial loop", () => {
  it("a secret that cannot be read now is asked for again, with the back-off, and shows as the failure it is", async () => {
    const scheduler = new Scheduler();
    const failures: string[] = [];
    const served: number[] = [];
    let reads = 0;
    const peering = { id: "p", peerId: "q", state: "establishing", peerServerAddresses: ["a:1"] };
    const record: Peering = { ...blankPeering, ...peering, state: "establishing" };
    await using dialer = new Dialer({
      transport: new World().network.transport("dialer:1", { alive: true }),
      clock: virtualClock(scheduler, { alive: true }),
      logger: silentLogger,
      places: { of: ({ peerServerAddresses }) => peerServerAddresses.map((address) => ({ address })) },
      plan: async () => {
        reads++;
        if (reads <= 2) throw new PeeringError("storage-failed", "cannot be read");
        return { peering: record, streamSecret: "s" };
      },
      onLost: () => {},
      serve: async () => {
        served.push(scheduler.now);
        return { end: { status: { code: 0, message: "" }, error: undefined }, connectedMs: 0 };
      },
      onFailure: (_id, error, address, waitMs) => failures.push(`${error.message} ${address} ${waitMs}`),
      onStopped: () => failures.push("stopped"),
    });
    dialer.start("p");
    await scheduler.run(
      60_000,
      () => served.length > 0,
      () => {},
    );
    assert.deepEqual(failures, ["cannot be read undefined 2000", "cannot be read undefined 4000", "stopped"]);
    assert.deepEqual(served, [6_000]);
  });

  it("a failure to look again after the loop has ended is owned, and another loop goes on", async () => {
    const scheduler = new Scheduler();
    let served = 0;
    let reads = 0;
    await using dialer = new Dialer({
      transport: new World().network.transport("dialer:1", { alive: true }),
      clock: virtualClock(scheduler, { alive: true }),
      logger: silentLogger,
      places: { of: ({ peerServerAddresses }) => peerServerAddresses.map((address) => ({ address })) },
      plan: async () => {
        reads++;
        // For the loop, for `start` beside it, and then for the loop that begins after its end.
        if (reads === 3) throw new PeeringError("storage-failed", "cannot be read");
        const addresses = { peerId: "q", peerServerAddresses: ["a:1"] };
        return { peering: { ...blankPeering, ...addresses, id: "p", state: "establishing" }, streamSecret: "s" };
      },
      serve: async () => {
        if (++served === 1) dialer.start("p");
        return { end: { status: { code: 0, message: "" }, error: undefined }, connectedMs: 0 };
      },
      onFailure: () => {},
      onLost: () => {},
      onStopped: () => {},
    });
    dialer.start("p");
    await scheduler.run(
      60_000,
      () => served === 2,
      () => {},
    );
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
    assert.equal(served, 2);
  });
});

describe("records that may be behind the storage", () => {
  it("a commit of unknown fate that cannot be read back at once is read back later, and followed", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const unanswered = acceptor.commits + 1;
    let reads = 0;
    acceptor.fate = (commit) => (commit === unanswered ? "unanswered" : "succeed");
    acceptor.failsToRead = () => acceptor.commits >= unanswered && ++reads <= 3;
    await world.refusal(acceptor.host.peerings.delete("dialer"));
    await world.until(() => acceptor.state("dialer") === "none", "the deletion is known and goes on");
    await world.until(() => dialer.state("acceptor") === "terminated", "and the peer is told");
  });
});

function roots(site: { readonly authority: { roots(): readonly { readonly certificatePem: string }[] } }): string {
  return site.authority
    .roots()
    .map((root) => root.certificatePem)
    .join("");
}
