import assert from "node:assert/strict";
import { test } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { StatusCode } from "../../../src/wire/status.js";
import {
  ack,
  appliesOf,
  closeOf,
  connected,
  Driver,
  ES,
  exported,
  response,
  sent,
  service,
  subscription,
  TB,
  words,
} from "./driver.js";

const roles = ["acceptor", "dialer"] as const;
const ok = { code: StatusCode.Ok, message: "" };
const timings = { heartbeatIntervalMs: 10, heartbeatTimeoutMs: 50, sendStallMs: 1_000, drainMs: 5_000 };

test("no heartbeat within the timeout ends the stream (ch1 case 56, ch3 case 53)", () => {
  for (const role of roles) {
    const driver = connected(role, { timings });
    assert.equal(closeOf(driver.pass(49)), undefined);
    const close = closeOf(driver.pass(1));
    assert.deepEqual(close?.status, { code: StatusCode.Unknown, message: "heartbeat timeout" });
    assert.equal(close?.error?.code, "peer-silent");
    assert.equal(driver.session.deadlineMs, undefined);
  }
});

test("heartbeats in time keep the stream (ch1 case 57, ch3 case 53)", () => {
  for (const role of roles) {
    const driver = connected(role, { timings });
    for (let count = 0; count < 6; count++) {
      assert.equal(closeOf(driver.pass(49)), undefined);
      driver.receive({ type: "heartbeat" });
    }
    assert.equal(driver.status.phase, "connected");
  }
});

test("heartbeats are sent at the interval, repeatedly, the first after one interval (ch1 case 58, ch3 case 54)", () => {
  for (const role of roles) {
    const driver = connected(role);
    const times: number[] = [];
    const start = driver.now;
    for (let second = 0; second < 100; second++) {
      if (words(driver.pass(1_000)).includes("heartbeat")) times.push(driver.now - start);
    }
    assert.deepEqual(times, [15_000, 30_000, 45_000, 60_000, 75_000, 90_000]);
    assert.equal(driver.status.lastHeartbeatOutMs, start + 90_000);
  }
});

test("one heartbeat at most waits for a transport that is busy", () => {
  const driver = connected("acceptor");
  driver.reading = false;
  driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
  driver.pass(100_000);
  driver.reading = true;
  assert.deepEqual(words(driver.feed({ type: "tick" })), ["heartbeat"]);
});

test("responses, ACKs and subscriptions do not stand in for heartbeats (ch1 case 59)", () => {
  const driver = connected("acceptor", { timings });
  for (let count = 0; count < 4; count++) {
    driver.pass(10);
    driver.receive(response("web"), ack(ES, "1"), subscription(TB), { type: "unknown" });
  }
  assert.equal(closeOf(driver.pass(10))?.error?.message, "heartbeat timeout");
});

test("a heartbeat that arrives late, but before the timer was served, counts", () => {
  const driver = connected("acceptor", { timings });
  driver.now += 500;
  assert.equal(closeOf(driver.receive(response("web"), { type: "heartbeat" })), undefined);
  assert.equal(driver.status.phase, "connected");
});

test("a heartbeat is noted (ch1 case 60)", () => {
  const driver = connected("acceptor");
  driver.now += 7;
  driver.receive({ type: "heartbeat" });
  assert.equal(driver.status.lastHeartbeatInMs, driver.now);
});

test("a local deletion sends one Terminated and ends within 5 s (ch1 case 61, ch3 cases 62 and 74)", () => {
  const dialer = connected("dialer");
  dialer.receive(response("web"));
  const stopped = dialer.feed({ type: "stop" }, { type: "stop" });
  assert.deepEqual(
    stopped.map((output) => (output.type === "send" ? output.message.type : output.type)),
    ["terminated", "half-close"],
  );
  assert.equal(dialer.status.phase, "draining");
  const later = [
    ...dialer.receive(response("api"), { type: "heartbeat" }, { type: "terminated" }),
    ...dialer.feed({ type: "applied", results: [{ id: 1 }] }, exported(service("web"))),
    ...dialer.pass(4_999),
  ];
  assert.deepEqual(later, [], "nothing is sent, applied or acknowledged while draining");
  assert.equal(dialer.status.queuedResources, 0, "nor kept");
  assert.deepEqual(dialer.pass(1), [{ type: "close", status: ok }]);

  const acceptor = connected("acceptor");
  assert.deepEqual(words(acceptor.feed({ type: "stop" })), ["terminated"]);
  assert.deepEqual(acceptor.pass(4_999), []);
  assert.deepEqual(acceptor.pass(1), [{ type: "close", status: ok }]);
});

test("an acceptor answers the half-close at once, a dialer closes at the status (ch1 case 61)", () => {
  for (const role of roles) {
    const driver = connected(role);
    driver.feed({ type: "stop" });
    assert.deepEqual(driver.feed({ type: "receive-ended" }), [{ type: "close", status: ok }]);
    const broken = connected(role);
    broken.feed({ type: "stop" });
    const error = new PeeringError("unavailable", "reset", { status: StatusCode.Unavailable });
    assert.deepEqual(broken.feed({ type: "receive-ended", error }), [{ type: "close", status: ok }]);
  }
});

test("Terminated received by an acceptor: noted, then drained until the dialer half-closes (ch1 case 62)", () => {
  const driver = connected("acceptor");
  const outputs = driver.receive({ type: "terminated" }, response("web"), { type: "terminated" });
  assert.deepEqual(outputs, [{ type: "peer-terminated" }]);
  assert.deepEqual(driver.feed({ type: "stop" }), [], "no Terminated is sent back");
  assert.deepEqual(driver.feed({ type: "receive-ended" }), [{ type: "close", status: ok }]);
});

test("Terminated received by a dialer: noted, half-closed at once, closed at the status or after 5 s (ch1 case 63)", () => {
  const driver = connected("dialer");
  driver.reading = false;
  driver.feed(exported(service("web")));
  assert.deepEqual(driver.receive({ type: "terminated" }), [{ type: "peer-terminated" }, { type: "half-close" }]);
  driver.reading = true;
  assert.deepEqual(driver.feed({ type: "tick" }), [], "nothing is sent after a half-close");
  assert.deepEqual(driver.pass(4_999), []);
  assert.deepEqual(driver.pass(1), [{ type: "close", status: ok }]);
});

test("a dialer that never said Open has nothing to say after Terminated", () => {
  const driver = new Driver("dialer");
  driver.reading = false;
  driver.feed({ type: "start" });
  driver.receive({ type: "terminated" });
  driver.reading = true;
  assert.deepEqual(sent(driver.feed({ type: "tick" })), []);
});

test("a dialer stopped before its Open was sent says Open, Terminated and no more", () => {
  const driver = new Driver("dialer");
  driver.reading = false;
  driver.feed({ type: "start" });
  driver.feed({ type: "stop" });
  driver.reading = true;
  const outputs = driver.feed({ type: "tick" });
  assert.deepEqual(words(outputs), ["open", "terminated"]);
  assert.equal(outputs.at(-1)?.type, "half-close");
});

test("a dialer stopped before its start, or an acceptor before the judgement, just ends", () => {
  assert.deepEqual(new Driver("dialer").feed({ type: "stop" }), [{ type: "close", status: ok }]);
  const acceptor = new Driver("acceptor");
  acceptor.feed({ type: "start" });
  const outputs = acceptor.feed({ type: "stop" });
  assert.deepEqual(words(outputs), []);
  assert.equal(closeOf(outputs)?.status.code, StatusCode.Aborted);
});

test("a Terminated that cannot be sent is told to the host: the peer does not know", () => {
  for (const role of roles) {
    const stuck = connected(role);
    stuck.reading = false;
    stuck.session.handle({ type: "writable", bytes: 0 }, stuck.now);
    assert.deepEqual(stuck.feed({ type: "stop" }), []);
    assert.equal(closeOf(stuck.pass(5_000))?.error?.message, "failed to send to stream: peer accepts no data");

    const broken = connected(role);
    broken.reading = false;
    broken.session.handle({ type: "writable", bytes: 0 }, broken.now);
    broken.feed({ type: "stop" });
    const error = new PeeringError("unavailable", "reset", { status: StatusCode.Unavailable });
    const text = "failed to send to stream: rpc error: code = Unavailable desc = reset";
    assert.equal(closeOf(broken.feed({ type: "receive-ended", error }))?.error?.message, text);
  }
  const halfClosed = connected("acceptor");
  halfClosed.reading = false;
  halfClosed.session.handle({ type: "writable", bytes: 0 }, halfClosed.now);
  halfClosed.feed({ type: "stop" });
  const outputs = halfClosed.feed({ type: "receive-ended" });
  assert.deepEqual(words(outputs), ["terminated"], "a dialer that half-closed listens still");
  assert.deepEqual(outputs.at(-1), { type: "close", status: ok });
});

test("an end without Terminated is an error (ch1 case 64)", () => {
  for (const role of roles) {
    const driver = connected(role);
    const close = closeOf(driver.feed({ type: "receive-ended" }));
    assert.deepEqual(close?.status, { code: StatusCode.Unknown, message: "stream ended unexpectedly" });
    assert.equal(close?.error?.code, "stream-ended");
    assert.equal(driver.status.lastReceiveErrorMessage, "stream ended unexpectedly");
    assert.equal(driver.status.lastReceiveErrorMs, driver.now);
  }
});

test("a receive error keeps its status, for the back-off, and gets Consul's text", () => {
  const rows: readonly (readonly [number | undefined, string])[] = [
    [StatusCode.FailedPrecondition, "rpc error: code = FailedPrecondition desc = boom"],
    [StatusCode.ResourceExhausted, "rpc error: code = ResourceExhausted desc = boom"],
    [99, "rpc error: code = Code(99) desc = boom"],
    [undefined, "boom"],
  ];
  for (const [status, text] of rows) {
    const driver = connected("dialer");
    const error = new PeeringError("unavailable", "boom", status === undefined ? {} : { status });
    const close = closeOf(driver.feed({ type: "receive-ended", error }));
    assert.equal(close?.error?.message, `unexpected error receiving from the stream: ${text}`);
    assert.equal(close?.error?.status, status ?? StatusCode.Unknown);
    assert.equal(driver.status.lastReceiveErrorMessage, close?.error?.message);
  }
});

test("1.3.10: an undecodable message ends the stream with INTERNAL", () => {
  const text = "grpc: failed to unmarshal the received message: truncated";
  const error = new PeeringError("invalid-message", text);
  for (const role of roles) {
    const close = closeOf(connected(role).feed({ type: "undecodable", error }));
    assert.deepEqual(close?.status, { code: StatusCode.Internal, message: text });
    assert.equal(close?.error?.status, StatusCode.Internal);
    const draining = connected(role);
    draining.feed({ type: "stop" });
    assert.deepEqual(draining.feed({ type: "undecodable", error }), [{ type: "close", status: ok }]);
  }
});

test("an aborted stream ends with its status and never with Terminated (ch1 case 35)", () => {
  const status = { code: StatusCode.Unavailable, message: "replaced by a newer stream" };
  for (const role of roles) {
    const driver = connected(role);
    driver.reading = false;
    driver.feed(exported(service("web")));
    const outputs = driver.feed({ type: "abort", status });
    assert.deepEqual(words(outputs), []);
    assert.deepEqual(closeOf(outputs)?.status, status);
    assert.equal(closeOf(outputs)?.error?.code, "unavailable");
    const draining = connected(role);
    draining.feed({ type: "stop" });
    assert.deepEqual(draining.feed({ type: "abort", status }), [{ type: "close", status }], "graceful stays graceful");
  }
});

test("after the end the session gives no outputs, and its state is freed", () => {
  const driver = connected("acceptor");
  driver.reading = false;
  driver.feed(exported(service("web"), service("api")));
  driver.receive(response("web"));
  driver.feed({ type: "receive-ended" });
  const { queuedResources, queuedBytes, applying, unacknowledged } = driver.status;
  assert.deepEqual([queuedResources, queuedBytes, applying, unacknowledged], [0, 0, 0, 0]);
  assert.equal(driver.session.wantsToSend, false);
  assert.deepEqual(driver.receive(response("web"), { type: "terminated" }), []);
  assert.deepEqual(driver.feed({ type: "stop" }, { type: "writable", bytes: 1_000 }, exported(service("db"))), []);
  assert.deepEqual(driver.pass(1_000_000), []);
});

test("what follows a violation in the same batch is not looked at", () => {
  const driver = connected("acceptor");
  const outputs = driver.receive(subscription("nomad.Job"), response("web"), { type: "terminated" });
  assert.deepEqual(appliesOf(outputs), []);
  assert.deepEqual(
    outputs.map((output) => output.type),
    ["close"],
  );
});

test("a peer that takes nothing for 120 s ends the stream, heartbeats or not (ch1 case 119)", () => {
  for (const role of roles) {
    const driver = connected(role);
    driver.reading = false;
    driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
    driver.feed(exported(service("web")));
    for (let second = 1; second < 120; second++) {
      assert.equal(closeOf(driver.pass(1_000)), undefined);
      driver.receive({ type: "heartbeat" });
    }
    const close = closeOf(driver.pass(1_000));
    assert.deepEqual(close?.status, { code: StatusCode.Unknown, message: "peer accepts no data" });
    assert.equal(close?.error?.code, "peer-stalled");
  }
});

test("also when all of it was given out, and the transport never says that it took it (ch1 case 119)", () => {
  const driver = connected("acceptor");
  driver.reading = false;
  driver.session.handle({ type: "writable", bytes: 1_000_000 }, driver.now);
  assert.deepEqual(words(driver.feed(exported(service("web")))), ["web=1"]);
  assert.equal(driver.session.wantsToSend, true);
  for (let second = 1; second < 120; second++) {
    assert.equal(closeOf(driver.pass(1_000)), undefined);
    driver.receive({ type: "heartbeat" });
  }
  assert.equal(closeOf(driver.pass(1_000))?.error?.message, "peer accepts no data");
});

test("a peer that takes little at a time is none (ch1 case 119)", () => {
  const driver = connected("acceptor");
  driver.reading = false;
  driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
  driver.feed(exported(...Array.from({ length: 10 }, (_, index) => service(`s${index}`))));
  let count = 0;
  while (driver.status.queuedResources > 0) {
    driver.pass(110_000);
    driver.receive({ type: "heartbeat" });
    // Room for the heartbeat that waits and one resource.
    count += words(driver.feed({ type: "writable", bytes: 201 })).length;
  }
  assert.ok(count >= 10);
  assert.equal(driver.status.phase, "connected");
});

test("an idle stream has nothing to be accepted", () => {
  const driver = connected("acceptor");
  for (let count = 0; count < 50; count++) {
    driver.pass(14_000);
    driver.receive({ type: "heartbeat" });
  }
  assert.equal(driver.status.phase, "connected");
  assert.deepEqual(driver.feed(exported({ ...service("web") })).length, 1);
});
