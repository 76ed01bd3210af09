import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/errors.js";
import { Admission, sourceOf } from "../../../src/host/admission.js";
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
  it("takes an IPv4 address and the /64 of an IPv6 one for a source", () => {
    const sources = [
      ["192.0.2.1:8503", "192.0.2.1"],
      ["[::ffff:192.0.2.1]:8503", "192.0.2.1"],
      ["[2001:db8:0:1::5]:1", "2001:db8:0:1"],
      ["[2001:0db8:0000:0001:ffff::]:2", "2001:db8:0:1"],
      ["[::1]:3", "0:0:0:0"],
      ["[fe80::1%eth0]:3", "fe80:0:0:0"],
      ["peer.example.com:8503", "peer.example.com"],
      ["", ""],
    ] as const;
    for (const [address, source] of sources) assert.equal(sourceOf(address), source, address);
  });

  it("refuses who makes too many attempts a second, and nobody else", async () => {
    const clock = testClock();
    const admission = new Admission(clock, limits);
    const admitted = (address: string, times: number): number =>
      Array.from({ length: times }, () => admission.admit(address)).filter((taken) => taken).length;
    assert.equal(admitted("192.0.2.1:1", 100), 3);
    assert.equal(admitted("192.0.2.2:1", 1), 1, "what was refused does not count against others");
    assert.equal(admitted("192.0.2.3:1", 100), 1, "but all together have a limit, too");
    await clock.advance(1_000);
    assert.equal(admitted("192.0.2.1:2", 100), 3);
  });

  it("bounds the streams of a source that wait to be authorised", async () => {
    const clock = testClock();
    const admission = new Admission(clock, { ...limits, unauthorizedPerSecond: 100, unauthorizedPerSecondInAll: 100 });
    const first = admission.admitStream("192.0.2.1:1");
    assert.ok(first !== undefined && admission.admitStream("192.0.2.1:2") !== undefined);
    await clock.advance(60_000);
    assert.equal(admission.admitStream("192.0.2.1:3"), undefined);
    assert.ok(admission.admit("192.0.2.1:4"), "an exchange waits for nothing");
    assert.ok(admission.admitStream("192.0.2.2:1") !== undefined);
    assert.equal(admission.admitStream("192.0.2.3:1"), undefined, "all together");
    first();
    first();
    assert.ok(admission.admitStream("192.0.2.3:1") !== undefined);
    assert.equal(admission.admitStream("192.0.2.4:1"), undefined, "one left once, however often it says so");
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
