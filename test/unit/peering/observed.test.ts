import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import {
  isHealthy,
  NO_STREAM_FACTS,
  observe,
  reportedState,
  type StreamFacts,
  type StreamObservation,
  StreamTracker,
  streamStatus,
  ZERO_TIME,
} from "../../../src/peering/observed.js";

const ID = "11111111-1111-1111-1111-111111111111";
const T = 120_000;

function facts(changed: Partial<StreamFacts>): StreamFacts {
  return { ...NO_STREAM_FACTS, ...changed };
}

describe("the changes of each observation", () => {
  const before = facts({ connected: true, neverConnected: false, connectTime: 1, lastAck: 2, lastNackMessage: "old" });
  const cases: readonly (readonly [StreamObservation, Partial<StreamFacts>])[] = [
    [{ type: "acknowledged", at: 9 }, { lastAck: 9 }],
    [
      { type: "refused", at: 9, message: "bad bad not good" },
      { lastNack: 9, lastNackMessage: "client peer was unable to apply resource: bad bad not good" },
    ],
    [{ type: "sent", at: 9 }, { lastSendSuccess: 9 }],
    [
      { type: "send-failed", at: 9, message: "broken" },
      { lastSendError: 9, lastSendErrorMessage: "broken" },
    ],
    [{ type: "applied", at: 9 }, { lastReceiveResourceSuccess: 9 }],
    [
      { type: "receive-failed", at: 9, message: 'unsupported operation: "OPERATION_UNSPECIFIED"' },
      { lastReceiveError: 9, lastReceiveErrorMessage: 'unsupported operation: "OPERATION_UNSPECIFIED"' },
    ],
    [{ type: "heartbeat-received", at: 9 }, { lastReceiveHeartbeat: 9 }],
    [{ type: "imported", services: ["web"] }, { importedServices: ["web"] }],
    [{ type: "exported", services: ["db"] }, { exportedServices: ["db"] }],
    [
      { type: "progress", facts: { lastAck: 4, lastSendSuccess: 5 } },
      { lastAck: 4, lastSendSuccess: 5 },
    ],
    [
      { type: "ended", at: 9, error: "stream ended unexpectedly" },
      {
        connected: false,
        connectTime: undefined,
        disconnectTime: 9,
        disconnectErrorMessage: "stream ended unexpectedly",
      },
    ],
    [
      { type: "ended", at: 9 },
      { connected: false, connectTime: undefined, disconnectTime: 9, disconnectErrorMessage: "" },
    ],
  ];
  for (const [observation, changed] of cases) {
    it(`${JSON.stringify(observation)} changes exactly its fields (ch3 case 52)`, () => {
      assert.deepEqual(observe(before, observation), { ...before, ...changed });
    });
  }
});

describe("the tracker", () => {
  it("connects, keeps what it saw over a graceful end and a reconnect, and forgets (ch3 case 49)", () => {
    const tracker = new StreamTracker();
    const first = tracker.connected(ID, 1);
    assert.throws(
      () => tracker.connected(ID, 2),
      (error: unknown) =>
        error instanceof PeeringError && error.message === `there is an active stream for the given PeerID "${ID}"`,
    );
    assert.equal(tracker.facts(ID)?.connected, true, "the refused one has no effect");
    first.observe({ type: "acknowledged", at: 3 });
    first.end(4);
    assert.deepEqual(tracker.facts(ID), facts({ neverConnected: false, disconnectTime: 4, lastAck: 3 }));
    tracker.connected(ID, 5);
    assert.deepEqual(tracker.facts(ID), facts({ connected: true, neverConnected: false, connectTime: 5, lastAck: 3 }));
    tracker.forget(ID);
    assert.equal(tracker.facts(ID), undefined);
    assert.equal(NO_STREAM_FACTS.neverConnected, true);
  });

  it("lists the streams that are up: none, all, some (ch3 case 50)", () => {
    const tracker = new StreamTracker();
    tracker.register("a");
    assert.deepEqual([...tracker.connectedStreams().keys()], []);
    const a = tracker.connected("a", 1);
    tracker.connected("b", 1);
    assert.deepEqual([...tracker.connectedStreams().keys()], ["a", "b"]);
    a.end(2, "broken");
    assert.deepEqual([...tracker.connectedStreams().keys()], ["b"]);
  });

  it("an error leaves time and text, a reconnect clears both (ch3 case 51, ch1 case 36)", () => {
    const tracker = new StreamTracker();
    tracker.connected(ID, 1).end(2, "heartbeat timeout");
    assert.equal(tracker.facts(ID)?.disconnectErrorMessage, "heartbeat timeout");
    assert.equal(tracker.facts(ID)?.disconnectTime, 2);
    const second = tracker.connected(ID, 3);
    assert.equal(tracker.facts(ID)?.disconnectErrorMessage, "");
    assert.equal(tracker.facts(ID)?.disconnectTime, undefined);
    second.end(4, "x");
    tracker.connected(ID, 5).end(6);
    assert.equal(tracker.facts(ID)?.disconnectErrorMessage, "");
  });

  it("observations of a replaced stream change nothing (D-1)", () => {
    const tracker = new StreamTracker();
    const old = tracker.connected(ID, 1);
    const newer = tracker.open(ID);
    newer.connect(2);
    const before = tracker.facts(ID);
    old.observe({ type: "refused", at: 3, message: "late" });
    old.end(4, "replaced by a newer stream");
    assert.equal(old.current, false);
    assert.equal(tracker.facts(ID), before);
    assert.equal(tracker.connectedStreams().get(ID), newer);
  });

  it("a stream that outlives forgotten facts does not bring them back", () => {
    const tracker = new StreamTracker();
    const stream = tracker.connected(ID, 1);
    tracker.forget(ID);
    stream.end(2, "late");
    assert.equal(tracker.facts(ID), undefined);
    tracker.connected(ID, 3);
    stream.observe({ type: "acknowledged", at: 4 });
    assert.equal(tracker.facts(ID)?.lastAck, undefined);
  });
});

describe("the state shown", () => {
  it("as stored without facts; else active, failing after an error, as stored after a graceful end", () => {
    const pending = { state: "pending" } as const;
    assert.equal(reportedState(pending, undefined), "pending");
    assert.equal(reportedState(pending, facts({})), "pending");
    assert.equal(reportedState(pending, facts({ connected: true })), "active");
    assert.equal(reportedState(pending, facts({ disconnectTime: 1, disconnectErrorMessage: "x" })), "failing");
    assert.equal(reportedState(pending, facts({ disconnectTime: 1 })), "pending");
  });

  it("DELETING and TERMINATED are shown as stored, whatever the stream does (ch3 case 57, D-9)", () => {
    for (const state of ["deleting", "terminated"] as const) {
      for (const seen of [undefined, facts({ connected: true }), facts({ disconnectErrorMessage: "x" })]) {
        assert.equal(reportedState({ state }, seen), state);
      }
    }
  });

  it("a dial that never succeeded leaves ESTABLISHING, whatever it met (ch3 case 57)", () => {
    const tracker = new StreamTracker();
    tracker.dialFailed(ID, 1, "connection refused");
    assert.equal(reportedState({ state: "establishing" }, tracker.facts(ID)), "establishing");
    assert.equal(tracker.facts(ID)?.lastSendErrorMessage, "connection refused");
    assert.equal(tracker.facts(ID)?.neverConnected, true);
  });

  it("a refused Open reads FAILING, and never ACTIVE before (D-7)", () => {
    const tracker = new StreamTracker();
    const stream = tracker.open(ID);
    assert.equal(reportedState({ state: "establishing" }, tracker.facts(ID)), "establishing");
    stream.end(2, "invalid peering stream secret");
    assert.equal(reportedState({ state: "establishing" }, tracker.facts(ID)), "failing");
    const next = tracker.open(ID);
    assert.equal(reportedState({ state: "establishing" }, tracker.facts(ID)), "failing", "until it is up");
    next.connect(3);
    assert.equal(reportedState({ state: "establishing" }, tracker.facts(ID)), "active");
  });

  it("the stream status takes the latest of each direction", () => {
    const seen = facts({
      lastReceiveHeartbeat: 5,
      lastReceiveError: 9,
      lastReceiveResourceSuccess: 7,
      lastSendError: 3,
      lastSendSuccess: 2,
      importedServices: ["web"],
    });
    assert.deepEqual(streamStatus(seen), {
      importedServices: ["web"],
      exportedServices: [],
      lastHeartbeat: 5,
      lastReceive: 9,
      lastSend: 3,
    });
  });

  it("everything is unset without facts, and zero times with facts but without events", () => {
    assert.deepEqual(streamStatus(undefined), {
      importedServices: [],
      exportedServices: [],
      lastHeartbeat: undefined,
      lastReceive: undefined,
      lastSend: undefined,
    });
    const { lastHeartbeat, lastReceive, lastSend } = streamStatus(NO_STREAM_FACTS);
    assert.deepEqual([lastHeartbeat, lastReceive, lastSend], [undefined, ZERO_TIME, ZERO_TIME]);
    assert.equal(new Date(ZERO_TIME).toISOString(), "0001-01-01T00:00:00.000Z");
  });
});

describe("health", () => {
  const now = 1_000_000;
  const cases: readonly (readonly [string, Partial<StreamFacts>, boolean])[] = [
    ["nothing happened", {}, true],
    ["disconnected within the timeout", { disconnectTime: now - T }, true],
    ["disconnected past the timeout", { disconnectTime: now - T - 1 }, false],
    ["receive error after success, within", { lastReceiveError: now - T, lastReceiveResourceSuccess: 1 }, true],
    ["receive error after success, past", { lastReceiveError: now - T - 1, lastReceiveResourceSuccess: 1 }, false],
    ["receive error past, success later", { lastReceiveError: 1, lastReceiveResourceSuccess: 2 }, true],
    ["receive error without success, past", { lastReceiveError: now - T - 1 }, false],
    ["NACK after ACK, ACK within", { lastAck: now - T, lastNack: now - T + 1 }, true],
    ["NACK after ACK, ACK past", { lastAck: now - T - 1, lastNack: now }, false],
    ["NACK without any ACK", { lastNack: now }, false],
    ["ACK after NACK, both past", { lastNack: 1, lastAck: 2 }, true],
    ["send errors and silence", { lastSendError: 1, lastReceiveHeartbeat: 1 }, true],
  ];
  for (const [name, changed, healthy] of cases) {
    it(`${name} (ch3 case 55, ch1 case 111)`, () => assert.equal(isHealthy(facts(changed), now), healthy));
  }

  it("healthy after a disconnect and a reconnect (ch3 case 56, D-8)", () => {
    const tracker = new StreamTracker();
    tracker.connected(ID, 1).end(2, "broken");
    tracker.connected(ID, 3);
    const seen = tracker.facts(ID);
    assert.ok(seen !== undefined);
    assert.equal(isHealthy(seen, 3 + 10 * T), true);
  });
});
