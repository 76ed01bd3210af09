import assert from "node:assert/strict";
import { test } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { ReplicationSession } from "../../../src/replication/session.js";
import type { ReplicationMessage } from "../../../src/wire/messages.js";
import { StatusCode } from "../../../src/wire/status.js";
import {
  ack,
  appliesOf,
  closeOf,
  connected,
  Driver,
  EL,
  ES,
  exported,
  list,
  MIB,
  open,
  PEER_ID,
  response,
  SA,
  SECRET,
  sent,
  service,
  subscription,
  TB,
  words,
} from "./driver.js";

function accepting(): Driver {
  const driver = new Driver("acceptor");
  driver.feed({ type: "start" });
  return driver;
}

test("leadership lost after the opening ends the stream at the next message, on both roles (ch1 case 20)", () => {
  for (const role of ["acceptor", "dialer"] as const) {
    const driver = connected(role);
    assert.deepEqual(driver.feed({ type: "leadership", leader: false, leaderAddress: "10.0.0.2:8300" }), []);
    const close = closeOf(driver.receive({ type: "heartbeat" }));
    const message = "node is not a leader anymore; cannot continue streaming";
    assert.deepEqual(close?.status, { code: StatusCode.FailedPrecondition, message, leaderAddress: "10.0.0.2:8300" });
    assert.equal(close?.error?.code, "not-leader");
    assert.equal(close?.error?.status, StatusCode.FailedPrecondition);
  }
});

test("a follower takes no stream, before the first message or at it (ch1 case 19)", () => {
  const lost = { type: "leadership", leader: false, leaderAddress: "" } as const;
  const status = {
    code: StatusCode.FailedPrecondition,
    message: "cannot establish a peering stream on a follower node",
    leaderAddress: "",
  };
  assert.deepEqual(closeOf(new Driver("acceptor").feed(lost, { type: "start" }))?.status, status);
  const later = accepting();
  later.feed(lost);
  assert.deepEqual(closeOf(later.receive(open()))?.status, status);
});

test("a leader that becomes one again before the next message goes on", () => {
  const driver = connected("acceptor");
  driver.feed({ type: "leadership", leader: false, leaderAddress: "" });
  driver.feed({ type: "leadership", leader: true, leaderAddress: "" });
  assert.deepEqual(driver.receive({ type: "heartbeat" }), []);
});

test("a first message other than Open ends the stream (ch1 case 21)", () => {
  const others: readonly ReplicationMessage[] = [
    response("web"),
    subscription(ES),
    { type: "heartbeat" },
    { type: "terminated" },
    { type: "unknown" },
  ];
  for (const message of others) {
    const close = closeOf(accepting().receive(message));
    const text = "first message when initiating a peering must be: Open";
    assert.deepEqual(close?.status, { code: StatusCode.InvalidArgument, message: text });
    assert.equal(close?.error?.code, "invalid-message");
  }
});

test("an Open without PeerID ends the stream (ch1 case 22)", () => {
  const close = closeOf(accepting().receive(open({ peerId: "" })));
  const text = "initial subscription request must specify a PeerID";
  assert.deepEqual(close?.status, { code: StatusCode.InvalidArgument, message: text });
});

test("an accepted Open is answered with three subscriptions, without PeerID (ch1 case 33)", () => {
  const driver = accepting();
  assert.deepEqual(driver.receive(open()), [{ type: "authorize", open: open() }]);
  assert.equal(driver.status.phase, "opening");
  assert.deepEqual(sent(driver.feed({ type: "authorized" })), [subscription(ES), subscription(EL), subscription(TB)]);
  assert.equal(driver.status.phase, "connected");
  assert.equal(driver.status.connectedAtMs, driver.now);
  assert.equal(driver.status.dialect, "modern");
});

test("a dialer sends Open and three subscriptions at once, the list's when the acceptor asked for it (ch1 case 34)", () => {
  const driver = new Driver("dialer");
  const own = (url: string) => subscription(url, { peerId: PEER_ID });
  const first = sent(driver.feed({ type: "start" }));
  assert.deepEqual(first, [open(), own(ES), own(TB), own(SA)]);
  assert.equal(driver.status.phase, "opening", "D-7: nothing is known before the acceptor has spoken");
  assert.deepEqual(driver.receive(subscription(ES)), []);
  assert.equal(driver.status.phase, "connected");
  assert.equal(driver.status.dialect, "unknown");
  assert.deepEqual(sent(driver.receive(subscription(EL))), [own(EL)]);
  assert.equal(driver.status.dialect, "modern");
  assert.deepEqual(driver.receive(subscription(EL)), [], "only once");
});

test("1.3.5: our subscription to the list goes ahead of the answer to the first one, however little there is room for", () => {
  const driver = new Driver("dialer");
  driver.feed({ type: "start" });
  driver.reading = false;
  driver.feed({ type: "writable", bytes: 0 });
  assert.deepEqual(driver.receive(subscription(ES)), []);
  // Both arrive together, and the list is applied before anything can be sent.
  const [apply] = appliesOf(driver.receive(subscription(EL), response("exported-service-list", { resourceUrl: EL })));
  assert.ok(apply !== undefined);
  driver.feed({ type: "applied", results: [{ id: apply.id }] });
  const order: ReplicationMessage[] = [];
  // Room for one message at a time.
  while (order.length < 2) order.push(...sent(driver.session.handle({ type: "writable", bytes: 1 }, driver.now)));
  assert.deepEqual(order, [subscription(EL, { peerId: PEER_ID }), ack(EL, "0000000a")]);
});

test("1.7: an acceptor that asks for addresses is 1.13: the list is neither asked for nor sent", () => {
  const driver = new Driver("dialer");
  driver.feed({ type: "start" }, exported(list("web"), service("web")));
  assert.deepEqual(words(driver.receive(subscription(ES), subscription(TB), subscription(SA))), ["web=1"]);
  assert.equal(driver.status.dialect, "legacy");
});

test("1.7: a dialer without Remote is asked for no list, until it asks for ours", () => {
  const driver = accepting();
  const { remote: _, ...bare } = open();
  driver.receive(bare);
  assert.deepEqual(sent(driver.feed({ type: "authorized" })), [subscription(ES), subscription(TB)]);
  assert.equal(driver.status.dialect, "legacy");
  assert.deepEqual(words(driver.receive(subscription(ES))), []);
  assert.deepEqual(words(driver.feed(exported(list("web"), service("web")))), ["web=1"]);
  assert.deepEqual(words(driver.receive(subscription(EL))), [
    "subscribe ExportedServiceList",
    "exported-service-list=web",
  ]);
  assert.equal(driver.status.dialect, "modern");
});

test("what arrives behind an Open waits for the judgement, in order", () => {
  const driver = accepting();
  const outputs = driver.receive(open(), subscription(ES), { type: "heartbeat" }, response("web"));
  assert.deepEqual(outputs, [{ type: "authorize", open: open() }]);
  driver.feed(exported(service("web")));
  const after = driver.feed({ type: "authorized" });
  assert.deepEqual(
    after.map((output) => output.type),
    ["apply", "send", "send", "send", "send"],
  );
  assert.deepEqual(words(after).at(-1), "web=1");
  assert.equal(driver.status.lastHeartbeatInMs, driver.now);
});

test("a refused Open ends with the host's status, after Terminated where the record is being deleted", () => {
  const status = { code: StatusCode.Aborted, message: `peering is marked as deleted: ${PEER_ID}` };
  for (const terminated of [true, false]) {
    const driver = accepting();
    driver.receive(open(), subscription(ES), response("web"));
    const outputs = driver.feed({ type: "refused", status, terminated });
    assert.deepEqual(words(outputs), terminated ? ["terminated"] : []);
    assert.deepEqual(closeOf(outputs)?.status, status);
    assert.equal(closeOf(outputs)?.error?.code, "aborted");
    assert.equal(outputs.at(-1)?.type, "close");
    assert.ok(!JSON.stringify(outputs).includes(SECRET));
  }
});

test("the messages behind an Open are bounded, in number and in bytes", () => {
  const heartbeats = Array.from({ length: 65 }, () => ({ type: "heartbeat" }) as const);
  const many = accepting();
  assert.equal(closeOf(many.receive(open(), ...heartbeats.slice(0, 64))), undefined);
  for (const messages of [
    heartbeats,
    [response("web", { resource: { typeUrl: ES, value: new Uint8Array(MIB + 1) } })],
  ]) {
    const close = closeOf(accepting().receive(open(), ...messages));
    assert.equal(close?.status.code, StatusCode.ResourceExhausted);
    assert.equal(close?.error?.message, "too many messages before the stream was authorized");
  }
});

test("an end behind an Open comes after what arrived before it", () => {
  const driver = accepting();
  driver.receive(open(), { type: "terminated" });
  assert.deepEqual(driver.feed({ type: "receive-ended" }), []);
  assert.deepEqual(driver.feed({ type: "authorized" }), [
    { type: "peer-terminated" },
    { type: "close", status: { code: StatusCode.Ok, message: "" } },
  ]);
  const cut = accepting();
  cut.receive(open(), subscription(ES));
  cut.feed({ type: "receive-ended" });
  cut.receive(subscription(TB));
  assert.equal(closeOf(cut.feed({ type: "authorized" }))?.error?.message, "stream ended unexpectedly");
  assert.deepEqual([...cut.status.subscriptions], [ES]);
});

test("an acceptor passes on the receive error of the first message as it is", () => {
  const driver = accepting();
  const error = new PeeringError("unavailable", "connection lost", { status: StatusCode.Unavailable });
  const close = closeOf(driver.feed({ type: "receive-ended", error }));
  assert.deepEqual(close?.status, { code: StatusCode.Unavailable, message: "connection lost" });
});

test("a peer that never says Open does not keep its stream", () => {
  const driver = accepting();
  assert.equal(closeOf(driver.pass(119_999)), undefined);
  assert.equal(closeOf(driver.pass(1))?.error?.code, "peer-silent");
});

test("a dialer without the acceptor's id does not dial", () => {
  const session = new ReplicationSession({
    role: "dialer",
    maxSendBytes: MIB,
    remoteId: "",
    streamSecretId: SECRET,
    remote: { partition: "", datacenter: "dc2" },
  });
  const outputs = session.handle({ type: "start" }, 0);
  assert.deepEqual(sent(outputs), []);
  const text = "expected PeerID to be non empty; the wrong end of peering is being dialed";
  assert.equal(closeOf(outputs)?.error?.message, text);
});

test("a first message other than the subscriptions connects a dialer too", () => {
  for (const message of [{ type: "heartbeat" } as const, { type: "unknown" } as const, response("web")]) {
    const driver = new Driver("dialer");
    driver.feed({ type: "start" });
    driver.receive(message);
    assert.equal(driver.status.phase, "connected");
  }
});

test("a dialer whose peering is gone is never connected", () => {
  const driver = new Driver("dialer");
  driver.feed({ type: "start" });
  const outputs = driver.receive({ type: "terminated" });
  assert.deepEqual(
    outputs.map((output) => output.type),
    ["peer-terminated", "half-close"],
  );
  assert.equal(driver.status.connectedAtMs, undefined);
  const aborted = new PeeringError("aborted", "peering is marked as deleted", { status: StatusCode.Aborted });
  const end = driver.feed({ type: "receive-ended", error: aborted });
  assert.deepEqual(end, [{ type: "close", status: { code: StatusCode.Ok, message: "" } }]);
});

test("a refused dialer fails with the acceptor's status, as Consul words it", () => {
  const driver = new Driver("dialer");
  driver.feed({ type: "start" });
  const error = new PeeringError("permission-denied", "invalid peering stream secret", {
    status: StatusCode.PermissionDenied,
    remedy: "Generate a new token.",
  });
  const close = closeOf(driver.feed({ type: "receive-ended", error }));
  const message =
    "unexpected error receiving from the stream: rpc error: code = PermissionDenied desc = invalid peering stream secret";
  assert.equal(close?.error?.message, message);
  assert.equal(close?.error?.code, "permission-denied");
  assert.equal(close?.error?.status, StatusCode.PermissionDenied);
  assert.equal(close?.error?.remedy, "Generate a new token.");
  assert.equal(close?.error?.cause, error);
  assert.equal(driver.status.connectedAtMs, undefined);
});

test("nothing is said twice, and nothing before the start", () => {
  const driver = new Driver("dialer");
  assert.equal(driver.session.wantsToSend, false);
  assert.equal(driver.session.deadlineMs, undefined);
  assert.deepEqual(driver.feed({ type: "writable", bytes: 1_000 }), []);
  assert.equal(words(driver.feed({ type: "start" })).length, 4);
  assert.deepEqual(driver.feed({ type: "start" }), []);
  assert.deepEqual(driver.feed({ type: "authorized" }), []);
  assert.deepEqual(driver.feed({ type: "refused", status: { code: 7, message: "" }, terminated: true }), []);
});
