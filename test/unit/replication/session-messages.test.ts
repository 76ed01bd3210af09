import assert from "node:assert/strict";
import { test } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import type { SessionStatus } from "../../../src/replication/types.js";
import type { RequestMessage, ResponseMessage } from "../../../src/wire/messages.js";
import { StatusCode } from "../../../src/wire/status.js";
import {
  ack,
  appliesOf,
  bytes,
  closeOf,
  connected,
  type Driver,
  EL,
  ES,
  exported,
  list,
  nack,
  open,
  response,
  roots,
  SA,
  sent,
  service,
  subscription,
  TB,
  words,
} from "./driver.js";

const roles = ["acceptor", "dialer"] as const;

/** The fields of the status that differ after `action`, with their new values. */
function changes(driver: Driver, action: () => void): Partial<SessionStatus> {
  const before = { ...driver.status };
  action();
  const after = driver.status;
  return Object.fromEntries(
    Object.entries(after).filter(([name, value]) => Reflect.get(before, name) !== value),
  ) as Partial<SessionStatus>;
}

// --- Requests ----------------------------------------------------------------------------------------------------------

test("a request for an unknown resource URL ends the stream (ch1 case 37)", () => {
  for (const role of roles) {
    const close = closeOf(connected(role).receive(subscription("nomad.Job")));
    const text = "subscription request to unknown resource URL: nomad.Job";
    assert.deepEqual(close?.status, { code: StatusCode.InvalidArgument, message: text });
    assert.equal(close?.error?.code, "invalid-message");
  }
});

test("a first request with a nonce, an error or a foreign PeerID ends the stream (ch1 case 38)", () => {
  const nonce = "initial subscription requests for a resource type must not contain a nonce";
  const error = "initial subscription request for a resource type must not contain an error";
  const foreign =
    "initial subscription requests for a resource type must have consistent PeerID values: " +
    'got="other" expected="caf067a6-f112-4907-9101-d45857d2b149"';
  const rows: readonly (readonly [RequestMessage, string])[] = [
    [ack(TB, "00000001"), nonce],
    [nack(TB, "00000001", "bad"), nonce],
    [nack(TB, "", "bad"), error],
  ];
  for (const role of roles) {
    for (const [request, text] of rows) {
      const close = closeOf(connected(role, {}, [ES]).receive(request));
      assert.deepEqual(close?.status, { code: StatusCode.InvalidArgument, message: text });
    }
  }
  const other = subscription(TB, { peerId: "other", responseNonce: "1" });
  assert.equal(closeOf(connected("dialer", {}, []).receive(other))?.error?.message, foreign);
  const accepted = connected("acceptor", {}, []);
  assert.deepEqual(accepted.receive(subscription(TB, { peerId: "other" })), [], "an acceptor never looks at it");
  assert.deepEqual([...accepted.status.subscriptions], [TB]);
});

test("a duplicate subscription is a no-op: no second snapshot (ch1 case 39)", () => {
  const driver = connected("acceptor", {}, []);
  driver.feed(exported(list("web"), service("web")));
  assert.deepEqual(words(driver.receive(subscription(ES))), ["exported-service-list=web", "web=1"]);
  assert.deepEqual(driver.receive(subscription(ES)), []);
});

test("an ACK moves lastAck and nothing is sent (ch1 case 40)", () => {
  const driver = connected("acceptor");
  driver.feed(exported(service("web")));
  driver.now += 5;
  const changed = changes(driver, () => assert.deepEqual(driver.receive(ack(ES, "00000001")), []));
  assert.deepEqual(changed, { lastAckMs: driver.now, unacknowledged: 0 });
});

test("a NACK is noted; the stream stays and nothing is resent (ch1 case 41)", () => {
  const driver = connected("acceptor");
  driver.feed(exported(service("web"), service("api"), roots()));
  driver.now += 5;
  const changed = changes(driver, () => assert.deepEqual(driver.receive(nack(ES, "00000002", "bad")), []));
  assert.deepEqual(changed, {
    lastNackMs: driver.now,
    lastNackMessage: "client peer was unable to apply resource: bad",
    unacknowledged: 2,
  });
  assert.deepEqual([...driver.status.refusedByPeer], [["web", "bad"]]);
  assert.equal(driver.status.phase, "connected");
  assert.deepEqual(driver.feed(exported(service("web"))), [], "the refused version is not sent again");
  driver.receive(ack(ES, "00000003"));
  assert.equal(driver.status.refusedByPeer.size, 1, "another service's ACK says nothing of it");
  driver.feed(exported(service("web", "2")));
  assert.equal(driver.status.refusedByPeer.size, 1, "still what the peer said last");
  driver.receive(ack(ES, "00000004"));
  assert.equal(driver.status.refusedByPeer.size, 0);
  driver.receive(nack(TB, "00000001", "no root"));
  assert.deepEqual([...driver.status.refusedByPeer], [[TB, "no root"]]);
});

test("an ACK with an unknown, repeated or missing nonce is accepted on a subscribed type (ch1 case 42)", () => {
  const driver = connected("acceptor");
  driver.feed(exported(service("web")));
  for (const nonce of ["ffffffff", "", "not a nonce", "00000001", "00000001"]) {
    assert.deepEqual(driver.receive(ack(ES, nonce)), []);
  }
  assert.deepEqual(driver.receive(nack(ES, "ffffffff", "bad")), []);
  assert.equal(driver.status.refusedByPeer.size, 0);
});

test("the list follows the subscription to the services; to answer it one must have subscribed to it (ch1 case 43)", () => {
  const driver = connected("acceptor", {}, []);
  driver.feed(exported(list("web"), roots()));
  const [message] = sent(driver.receive(subscription(ES)));
  assert.equal(message?.type === "response" && message.resourceUrl, EL);
  const text = "initial subscription requests for a resource type must not contain a nonce";
  assert.equal(closeOf(driver.receive(ack(EL, "00000001")))?.error?.message, text);
});

test("texts of the peer are kept up to a length", () => {
  const driver = connected("acceptor");
  driver.feed(exported(service("web")));
  driver.receive(nack(ES, "00000001", "x".repeat(100_000)));
  assert.ok(driver.status.lastNackMessage.length < 2_000);
  assert.ok((driver.status.refusedByPeer.get("web")?.length ?? 0) < 2_000);
});

// --- Responses ---------------------------------------------------------------------------------------------------------

test("a valid UPSERT is acknowledged with its URL and nonce, once it is applied (ch1 case 44)", () => {
  for (const role of roles) {
    for (const url of [ES, EL, TB, SA]) {
      const driver = connected(role);
      const outputs = driver.receive(response("web", { resourceUrl: url }));
      const resource = { resourceUrl: url, resourceId: "web", value: bytes("web") };
      assert.deepEqual(outputs, [{ type: "apply", id: 1, resource }], "nothing is answered before the commit");
      assert.equal(driver.status.applying, 1);
      driver.now += 5;
      const answer = driver.feed({ type: "applied", results: [{ id: 1 }] });
      assert.deepEqual(sent(answer), [ack(url, "0000000a")]);
      assert.equal(driver.status.lastReceiveSuccessMs, driver.now);
      assert.equal(driver.status.applying, 0);
    }
  }
});

const refusals: readonly (readonly [string, Partial<ResponseMessage>, RequestMessage, string?])[] = [
  [
    "an unknown URL (ch1 case 45)",
    { resourceUrl: "nomad.Job" },
    {
      ...ack("nomad.Job", "0000000a"),
      error: { code: 3, message: 'received response for unknown resource type "nomad.Job"' },
    },
  ],
  [
    "an empty nonce (ch1 case 46)",
    { nonce: "" },
    { ...ack(ES, ""), error: { code: 3, message: `received response without a nonce for: ${ES}:web` } },
  ],
  [
    "operation 0 (ch1 case 47)",
    { operation: 0 },
    { ...ack(ES, "0000000a"), error: { code: 3, message: 'unsupported operation: "OPERATION_UNSPECIFIED"' } },
  ],
  [
    "operation 100000 (ch1 case 47)",
    { operation: 100_000 },
    { ...ack(ES, "0000000a"), error: { code: 3, message: "unsupported operation: 100000" } },
  ],
  [
    "operation 2 (ch1 case 47)",
    { operation: 2 },
    { ...ack(ES, "0000000a"), error: { code: 3, message: "unsupported operation: 2" } },
  ],
  [
    "the type URL inside is another one (ch1 case 49)",
    { resource: { typeUrl: TB, value: new Uint8Array() } },
    {
      ...ack(ES, "0000000a"),
      error: {
        code: 13,
        message: `upsert error, ResourceURL: "${ES}", ResourceID: "web": mismatched resourceURL "${ES}" and Any typeUrl "${TB}"`,
      },
    },
    `upsert error: mismatched resourceURL "${ES}" and Any typeUrl "${TB}"`,
  ],
];
for (const [name, malformation, answer, reason] of refusals) {
  test(`${name} is refused, and the stream stays`, () => {
    for (const role of roles) {
      const driver = connected(role);
      const outputs = driver.receive(response("web", malformation));
      assert.deepEqual(sent(outputs), [answer]);
      assert.deepEqual(appliesOf(outputs), []);
      assert.equal(driver.status.lastReceiveErrorMessage, reason ?? answer.error?.message);
      assert.equal(driver.status.lastReceiveErrorMs, driver.now);
      assert.equal(appliesOf(driver.receive(response("web"))).length, 1);
    }
  });
}

test("an UPSERT without a resource is refused, one with an empty resource is not (ch1 case 48)", () => {
  const driver = connected("acceptor");
  const { resource: _, ...empty } = response("web");
  const error = { code: 3, message: "received upsert response with no content" };
  assert.deepEqual(sent(driver.receive(empty)), [{ ...ack(ES, "0000000a"), error }]);
  assert.equal(
    appliesOf(driver.receive(response("web", { resource: { typeUrl: ES, value: new Uint8Array() } }))).length,
    1,
  );
});

test("what the payload's reader says is the reason of the NACK, and the stream stays (ch1 case 50)", () => {
  const driver = connected("dialer");
  driver.receive(response("web"));
  const error = new PeeringError("invalid-message", "failed to unmarshal resource: truncated");
  const [answer] = sent(driver.feed({ type: "applied", results: [{ id: 1, error }] }));
  const message = `upsert error, ResourceURL: "${ES}", ResourceID: "web": failed to unmarshal resource: truncated`;
  assert.deepEqual(answer, { ...ack(ES, "0000000a"), error: { code: 13, message } });
  assert.equal(driver.status.lastReceiveErrorMessage, "upsert error: failed to unmarshal resource: truncated");
  assert.equal(driver.status.lastReceiveSuccessMs, undefined);
  assert.equal(driver.status.phase, "connected");
});

test("ACK and NACK carry the nonce of their response, in whatever order they are applied (ch1 case 51)", () => {
  const driver = connected("acceptor");
  driver.receive(response("web", { nonce: "1234" }), response("api", { nonce: "5678" }));
  const refusal = new PeeringError("invalid-message", "bad");
  const answers = sent(driver.feed({ type: "applied", results: [{ id: 2, error: refusal }, { id: 1 }] }));
  assert.deepEqual(
    answers.map((answer) => answer.type === "request" && [answer.responseNonce, answer.error !== undefined]),
    [
      ["5678", true],
      ["1234", false],
    ],
  );
});

test("every response sent has a distinct, increasing nonce from 00000001 on (ch1 case 52)", () => {
  const driver = connected("acceptor");
  const resources = Array.from({ length: 300 }, (_, index) => service(`s${index}`));
  const nonces = sent(driver.feed(exported(roots(), list("web"), ...resources))).map((message) =>
    message.type === "response" ? message.nonce : "",
  );
  assert.equal(nonces[0], "00000001");
  assert.equal(nonces[9], "0000000a");
  assert.equal(nonces[255], "00000100");
  assert.deepEqual(nonces, [...new Set(nonces)].sort());
});

test("what a record refuses reaches the peer with its text (ch1 cases 53 to 55)", () => {
  const driver = connected("acceptor");
  driver.receive(response("server-addrs", { resourceUrl: SA }));
  const error = new PeeringError("invalid-record", "Cannot switch peering dialing mode from false to true");
  const [answer] = sent(driver.feed({ type: "applied", results: [{ id: 1, error }] }));
  const message = `upsert error, ResourceURL: "${SA}", ResourceID: "server-addrs": Cannot switch peering dialing mode from false to true`;
  assert.deepEqual(answer, { ...ack(SA, "0000000a"), error: { code: 13, message } });
});

test("each response is answered once, however often the host says it was applied", () => {
  const driver = connected("acceptor");
  driver.receive(response("web"));
  assert.equal(sent(driver.feed({ type: "applied", results: [{ id: 1 }, { id: 1 }, { id: 7 }] })).length, 1);
  assert.deepEqual(driver.feed({ type: "applied", results: [{ id: 1 }] }), []);
});

test("a message without payload and a second Open are ignored (ch1 case 66)", () => {
  for (const role of roles) {
    const driver = connected(role);
    assert.deepEqual(driver.receive({ type: "unknown" }, open()), []);
    assert.equal(appliesOf(driver.receive(response("web"))).length, 1);
  }
});

test("after a storage failure comes the NACK, then the end of the stream (ch1 case 118)", () => {
  for (const role of roles) {
    const driver = connected(role);
    driver.receive(response("web", { nonce: "1" }), response("api", { nonce: "2" }), response("db", { nonce: "3" }));
    const error = new PeeringError("storage-failed", "disk full");
    driver.reading = false;
    const outputs = driver.feed({ type: "applied", results: [{ id: 1 }, { id: 2, error }] });
    assert.deepEqual(words(outputs), ["ack ExportedService", "nack ExportedService"]);
    const [, refused] = sent(outputs);
    const message = `upsert error, ResourceURL: "${ES}", ResourceID: "api": disk full`;
    assert.deepEqual(refused, { ...ack(ES, "2"), error: { code: 13, message } });
    const close = outputs.at(-1);
    assert.equal(close?.type, "close");
    const text = "failed to store a replicated resource: disk full";
    assert.deepEqual(closeOf(outputs)?.status, { code: StatusCode.Unavailable, message: text });
    assert.equal(closeOf(outputs)?.error?.code, "storage-failed");
    assert.equal(closeOf(outputs)?.error?.cause, error);
  }
  for (const code of ["unavailable", "storage-damaged"] as const) {
    const driver = connected("acceptor");
    driver.receive(response("web"));
    const error = new PeeringError(code, "no answer");
    assert.ok(closeOf(driver.feed({ type: "applied", results: [{ id: 1, error }] })));
  }
});

test("with strictConsul the stream stays after a storage failure (ch1 case 118)", () => {
  const driver = connected("acceptor", { strictConsul: true });
  driver.receive(response("web"));
  const error = new PeeringError("storage-failed", "disk full");
  const outputs = driver.feed({ type: "applied", results: [{ id: 1, error }] });
  assert.deepEqual(words(outputs), ["nack ExportedService"]);
  assert.equal(driver.status.phase, "connected");
});

test("each event changes exactly its fields of the status (ch3 case 52)", () => {
  const driver = connected("acceptor");
  driver.feed(exported(service("web")));
  const rows: readonly (readonly [() => void, (now: number) => Partial<SessionStatus>])[] = [
    [() => driver.receive(ack(ES, "00000001")), (now) => ({ lastAckMs: now, unacknowledged: 0 })],
    [
      () => driver.receive(nack(ES, "00000001", "bad bad not good")),
      (now) => ({
        lastNackMs: now,
        lastNackMessage: "client peer was unable to apply resource: bad bad not good",
      }),
    ],
    [() => driver.receive(response("web")), () => ({ applying: 1, applyingBytes: 214 })],
    [
      () => driver.feed({ type: "applied", results: [{ id: 1 }] }),
      (now) => ({ applying: 0, applyingBytes: 0, lastReceiveSuccessMs: now }),
    ],
    [
      () => driver.receive(response("web", { operation: 0 })),
      (now) => ({
        lastReceiveErrorMs: now,
        lastReceiveErrorMessage: 'unsupported operation: "OPERATION_UNSPECIFIED"',
      }),
    ],
    [() => driver.receive({ type: "heartbeat" }), (now) => ({ lastHeartbeatInMs: now })],
    [
      () => driver.feed({ type: "receive-ended" }),
      (now) => ({
        phase: "closed" as const,
        lastReceiveErrorMs: now,
        lastReceiveErrorMessage: "stream ended unexpectedly",
      }),
    ],
  ];
  for (const [action, expected] of rows) {
    driver.now += 10;
    assert.deepEqual(changes(driver, action), expected(driver.now));
  }
});

test("a peer that floods us with what storage cannot take ends its own stream", () => {
  const few = connected("acceptor", { limits: { applies: 3 } });
  assert.equal(closeOf(few.receive(response("a"), response("b"), response("c"))), undefined);
  const close = closeOf(few.receive(response("d")));
  assert.equal(close?.error?.code, "resource-exhausted");
  assert.match(close?.error?.message ?? "", /^too much received and not stored yet: 4 resources, \d+ bytes$/);

  const small = connected("acceptor", { limits: { applyBytes: 10_000 } });
  const large = response("a", { resource: { typeUrl: ES, value: new Uint8Array(9_000) } });
  assert.equal(closeOf(small.receive(large)), undefined);
  small.feed({ type: "applied", results: [{ id: 1 }] });
  assert.equal(closeOf(small.receive(large)), undefined, "what is applied does not count any more");
  assert.equal(closeOf(small.receive(large))?.status.code, StatusCode.ResourceExhausted);
});

test("a peer that never reads our answers ends its own stream", () => {
  const driver = connected("acceptor", { limits: { answerBytes: 10_000 } });
  driver.reading = false;
  driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
  let received = 0;
  while (driver.status.phase === "connected" && received < 1_000) {
    received += 1;
    driver.receive(response("web", { operation: 0 }));
  }
  assert.equal(driver.status.phase, "closed");
  assert.ok(received > 10 && received < 100);
});

test("answers that were sent do not count as waiting, also while others wait", () => {
  const driver = connected("acceptor", { limits: { answerBytes: 10_000 } });
  driver.reading = false;
  driver.feed({ type: "writable", bytes: 0 });
  const malformed = response("web", { operation: 0 });
  driver.receive(malformed, malformed);
  for (let count = 0; count < 1_000; count++) {
    driver.receive(malformed);
    assert.deepEqual(words(driver.feed({ type: "writable", bytes: 1 })), ["nack ExportedService"]);
  }
  assert.equal(driver.status.phase, "connected");
});

test("answers leave in the order in which they were given", () => {
  const driver = connected("acceptor");
  driver.reading = false;
  driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
  const nonces = Array.from({ length: 5_000 }, (_, index) => String(index + 1));
  driver.receive(...nonces.map((nonce) => response("web", { nonce, operation: 0 })));
  const seen: string[] = [];
  while (driver.session.wantsToSend) {
    for (const message of sent(driver.session.handle({ type: "writable", bytes: 3_000 }, driver.now))) {
      if (message.type === "request") seen.push(message.responseNonce);
    }
  }
  assert.deepEqual(seen, nonces);
});
