import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { Admission } from "../../../src/host/admission.js";
import { defaultLimits } from "../../../src/host/options.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { StatusCode } from "../../../src/wire/status.js";
import { exchanged, REMOTE } from "../../support/messages.js";
import { World } from "../../support/world.js";

const limits = {
  unauthorizedPerSecond: 3,
  unauthorizedPerSecondInAll: 5,
  unauthorizedStreams: 2,
  unauthorizedStreamsInAll: 3,
};

describe("admission", () => {
  it("refuses who makes too many attempts a second, and nobody else", async () => {
    const clock = testClock();
    const admission = new Admission(clock, limits, new Incidents());
    const admitted = (address: string, times: number): number =>
      Array.from({ length: times }, () => admission.admit(address)).filter((taken) => taken).length;
    assert.equal(admitted("192.0.2.1:1", 100), 3);
    assert.equal(admitted("198.51.100.2:1", 1), 1, "what was refused does not count against others");
    assert.equal(admitted("203.0.113.3:1", 100), 1, "but all together have a limit, too");
    await clock.advance(1_000);
    assert.equal(admitted("192.0.2.1:2", 100), 3);
  });

  it("leaves attempts to the last source, whichever way the others use up theirs", async () => {
    for (const [sources, each] of [
      [10, 200],
      [20, 200],
      [200, 20],
      [1_000, 2],
      [1_900, 1],
      [8_000, 1],
    ] as const) {
      const clock = testClock();
      const incidents = new Incidents({ clock });
      const admission = new Admission(clock, defaultLimits, incidents);
      let taken = 0;
      for (let round = 0; round < each; round++) {
        for (let source = 0; source < sources; source++) {
          if (admission.admit(`10.0.${source >> 8}.${source & 255}:1`)) taken++;
        }
      }
      assert.ok(taken <= defaultLimits.unauthorizedPerSecondInAll);
      assert.ok(admission.admit("192.0.2.1:1"), `an exchange, beside ${sources} sources with ${each} attempts`);
      assert.equal(incidents.counts().get("unauthorized-rate") ?? 0, sources * each - taken);
    }
  });

  it("leaves attempts to others when one holder of very many addresses of IPv6 uses up all that it can", () => {
    const admission = new Admission(testClock(), defaultLimits, new Incidents());
    for (let source = 0; source < 0x10000; source++) admission.admit(`[2001:db8:1:${source.toString(16)}::1]:1`);
    assert.ok(admission.admit("[2001:db8:2::1]:1"));
    assert.ok(admission.admit("192.0.2.1:1"));
  });

  it("bounds the streams of a source that wait to be authorised", async () => {
    const clock = testClock();
    const incidents = new Incidents({ clock });
    const rates = { unauthorizedPerSecond: 100, unauthorizedPerSecondInAll: 1_000 };
    const admission = new Admission(clock, { ...limits, ...rates }, incidents);
    const ended: string[] = [];
    const open = (address: string): ReturnType<Admission["admitStream"]> =>
      admission.admitStream(address, () => ended.push(address));
    const first = open("192.0.2.1:1");
    assert.ok(first !== undefined && open("192.0.2.1:2") !== undefined);
    assert.equal(open("192.0.2.1:3"), undefined);
    assert.ok(admission.admit("192.0.2.1:4"), "an exchange waits for nothing");
    first.leave();
    first.leave();
    assert.ok(open("192.0.2.1:5") !== undefined, "one left once, however often it says so");
    assert.equal(open("192.0.2.1:6"), undefined);
    assert.deepEqual(ended, []);
    await clock.advance(2_000);
    assert.ok(open("192.0.2.1:7") !== undefined);
    assert.deepEqual(ended, ["192.0.2.1:2"], "of those that have said nothing for 2 s the oldest goes");
    assert.equal(incidents.counts().get("unauthorized-streams"), 3);
  });

  it("gives a new source a place when others hold all of them, and that of who holds most", async () => {
    for (const [sources, each] of [
      [10, 100],
      [500, 2],
      [1_000, 1],
    ] as const) {
      const clock = testClock();
      const admission = new Admission(
        clock,
        { ...defaultLimits, unauthorizedPerSecond: 10_000, unauthorizedPerSecondInAll: 1_000_000 },
        new Incidents(),
      );
      const ended: string[] = [];
      for (let round = 0; round < each; round++) {
        for (let source = 0; source < sources; source++) {
          const address = `10.0.${source >> 8}.${source & 255}:${round}`;
          assert.ok(admission.admitStream(address, () => ended.push(address)) !== undefined);
        }
      }
      const peer = admission.admitStream("192.0.2.1:1", () => ended.push("the peer"));
      assert.ok(peer !== undefined);
      assert.deepEqual(ended, ["10.0.0.0:0"]);
      // Its Open is being judged: it stays, however many streams others open meanwhile.
      peer.work();
      await clock.advance(10_000);
      for (let source = 0; source < 2_000; source++)
        admission.admitStream(`10.1.${source >> 8}.${source & 255}:1`, () => {});
      assert.ok(!ended.includes("the peer"));
    }
  });

  it("lets a peer in while another source opens as fast as it can", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const dialer = await world.site("dialer");
    const streams = await Promise.all(Array.from({ length: 300 }, () => world.raw(acceptor)));
    const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const refused = streams.filter(
      ({ end }) => end instanceof PeeringError && end.status === StatusCode.ResourceExhausted,
    );
    assert.equal(refused.length, 300 - defaultLimits.unauthorizedStreams);
    assert.equal(dialer.peering("acceptor").status.lastFailure, undefined);
  });

  it("counts no stream that is authorised, and none that has ended", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor", { limits: { unauthorizedStreams: 1 } });
    const open = { type: "open", ...(await exchanged(world, acceptor, "dialer")), remote: REMOTE } as const;
    const authorized = await world.raw(acceptor);
    await authorized.say(open);
    await world.until(() => acceptor.state("dialer") === "active", "it is taken");
    const silent = await world.raw(acceptor);
    assert.equal(silent.end, undefined);
    const third = await world.raw(acceptor);
    assert.ok((await third.ended()) instanceof PeeringError);
    await silent.close();
    await world.pass(1_000);
    const fourth = await world.raw(acceptor);
    await world.pass(1_000);
    assert.equal(fourth.end, undefined);
  });
});
