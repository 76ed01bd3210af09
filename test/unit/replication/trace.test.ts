import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { PeeringError } from "../../../src/base/errors.js";
import { redactMessage } from "../../../src/replication/trace.js";
import { connected, Driver, open, SECRET, sent, subscription, TB } from "./driver.js";

test("a trace never contains the stream secret (ch1 case 67)", () => {
  const message = open();
  const shown = redactMessage(message);
  assert.deepEqual(shown, { ...message, streamSecretId: "hidden" });
  assert.equal(message.streamSecretId, SECRET, "the message itself is unchanged");
  for (const other of [subscription(TB), { type: "heartbeat" } as const]) assert.equal(redactMessage(other), other);
});

test("neither does a session, its status or its errors (ch1 case 67)", () => {
  const dialer = new Driver("dialer");
  const outputs = dialer.feed({ type: "start" });
  assert.ok(JSON.stringify(sent(outputs)).includes(SECRET), "the wire needs it");
  const accepted = connected("acceptor");
  const judging = new Driver("acceptor");
  judging.feed({ type: "start" });
  judging.receive(open());
  for (const { session } of [dialer, accepted, judging, new Driver("dialer")]) {
    for (const value of [session, session.status]) {
      assert.ok(!inspect(value, { depth: 10, showHidden: true }).includes(SECRET));
      assert.ok(!JSON.stringify(value).includes(SECRET));
    }
    const end = session.handle(
      { type: "undecodable", error: new PeeringError("invalid-message", "no message") },
      2_000,
    );
    assert.ok(!inspect(end, { depth: 10 }).includes(SECRET));
  }
});
