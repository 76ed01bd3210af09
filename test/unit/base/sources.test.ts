import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { networkOf, Places, sourceOf } from "../../../src/base/sources.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";

describe("sources", () => {
  it("are an IPv4 address, and the /64 of an IPv6 one", () => {
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
});

describe("networks", () => {
  it("are the /24 of an IPv4 address, and the /56 of an IPv6 one", () => {
    assert.equal(networkOf(sourceOf("192.0.2.77:1")), "192.0.2.0/24");
    assert.equal(networkOf(sourceOf("[2001:db8:1:2ff::9]:1")), networkOf(sourceOf("[2001:db8:1:200::1]:2")));
    assert.notEqual(networkOf(sourceOf("[2001:db8:1:2ff::9]:1")), networkOf(sourceOf("[2001:db8:1:300::9]:1")));
  });
});

describe("places", () => {
  const setup = (limits: { readonly inAll: number; readonly perSource: number }) => {
    const clock = testClock();
    const places = new Places({ ...limits, graceMs: 1_000 }, clock);
    const displaced: string[] = [];
    return {
      clock,
      displaced,
      take: (source: string, name: string = source) => places.take(source, () => displaced.push(name)),
    };
  };

  it("are taken from the source that holds most, its oldest that waits first", () => {
    const { displaced, take } = setup({ inAll: 4, perSource: 10 });
    const [first] = [take("a", "a1"), take("a", "a2"), take("a", "a3"), take("b")];
    if (typeof first === "object") first.work();
    assert.equal(typeof take("c"), "object");
    assert.deepEqual(displaced, ["a2"]);
    assert.equal(typeof take("d"), "object");
    assert.deepEqual(displaced, ["a2", "a3"]);
    assert.equal(typeof take("e"), "object", "each holds one: they give way to one that has none");
    assert.deepEqual(displaced, ["a2", "a3", "b"], "not the one that works");
    assert.equal(take("e"), "all", "nobody holds more than it does");
  });

  it("are taken first from who has waited for longer than the grace", async () => {
    const { clock, displaced, take } = setup({ inAll: 3, perSource: 10 });
    const [worker] = [take("a", "worker")];
    if (typeof worker === "object") worker.work();
    await clock.advance(500);
    take("b");
    await clock.advance(999);
    assert.equal(typeof take("a", "a2"), "object");
    assert.equal(take("a", "a3"), "all", "nobody has waited for long");
    await clock.advance(1);
    assert.equal(typeof take("a", "a4"), "object");
    assert.deepEqual(displaced, ["b"]);
    if (typeof worker === "object") worker.wait();
    await clock.advance(999);
    assert.equal(typeof take("c"), "object");
    assert.deepEqual(displaced, ["b", "a2"], "the worker has begun to wait later");
  });

  it("of a source that has all it may go to another of its own once they waited for long", async () => {
    const { clock, displaced, take } = setup({ inAll: 10, perSource: 2 });
    const second = [take("a", "a1"), take("a", "a2")][1];
    assert.equal(take("a", "a3"), "source");
    assert.equal(typeof take("b"), "object");
    await clock.advance(1_000);
    assert.equal(typeof take("a", "a3"), "object");
    assert.deepEqual(displaced, ["a1"]);
    if (typeof second === "object") {
      second.leave();
      second.leave();
      second.wait();
    }
    assert.equal(typeof take("a", "a4"), "object");
  });
});
