import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { Handshakes } from "../../../src/transport/handshakes.js";

function setup(limits: { readonly perSource: number; readonly inAll: number }) {
  const clock = testClock();
  const incidents = new Incidents({ clock });
  const handshakes = new Handshakes("http", { graceMs: 2_000, ...limits }, clock, incidents);
  const begun: string[] = [];
  const displaced: string[] = [];
  return {
    clock,
    begun,
    displaced,
    counts: () => Object.fromEntries(incidents.counts()),
    /** @param name - its first letter is its source. */
    enter: (name: string): (() => void) =>
      handshakes.enter(
        name.charAt(0),
        () => begun.push(name),
        () => displaced.push(name),
      ),
  };
}

describe("TLS handshakes of a listener", () => {
  it("begin at once, as many as may be under way, and then in the order in which others are over", () => {
    const { enter, begun, counts } = setup({ perSource: 2, inAll: 10 });
    const [first, second] = [enter("a1"), enter("a2")];
    assert.deepEqual(counts(), {});
    for (const name of ["a3", "a4", "a5", "b1"]) enter(name);
    assert.deepEqual(begun, ["a1", "a2", "b1"]);
    assert.deepEqual(counts(), { "handshake-waits": 3 });
    first();
    first();
    assert.deepEqual(begun, ["a1", "a2", "b1", "a3"]);
    second();
    assert.deepEqual(begun, ["a1", "a2", "b1", "a3", "a4"]);
  });

  it("begin for each source in turn when all are under way that may be", () => {
    const { enter, begun, displaced } = setup({ perSource: 4, inAll: 4 });
    const overs = ["a1", "b1", "c1", "d1"].map(enter);
    for (const name of ["a2", "a3", "a4", "b2", "c2"]) enter(name);
    for (const over of overs) over();
    assert.deepEqual(begun, ["a1", "b1", "c1", "d1", "a2", "b2", "c2", "a3"]);
    assert.deepEqual(displaced, []);
  });

  it("leave out one whose connection has gone while it waited", () => {
    const { enter, begun } = setup({ perSource: 1, inAll: 1 });
    const first = enter("a1");
    const gone = enter("a2");
    enter("a3");
    gone();
    first();
    assert.deepEqual(begun, ["a1", "a3"]);
  });

  it("give the place of one that takes longer than the grace to one that waits", async () => {
    const { clock, enter, begun, displaced, counts } = setup({ perSource: 1, inAll: 2 });
    enter("a1");
    enter("b1");
    enter("a2");
    enter("c1");
    await clock.advance(1_999);
    assert.deepEqual([begun, displaced], [["a1", "b1"], []]);
    await clock.advance(1);
    assert.deepEqual(displaced, ["a1", "b1"]);
    assert.deepEqual(begun, ["a1", "b1", "a2", "c1"]);
    assert.deepEqual(counts(), { "handshake-waits": 2, "handshake-displaced": 2 });
  });
});
