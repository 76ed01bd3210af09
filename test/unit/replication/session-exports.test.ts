import assert from "node:assert/strict";
import { test } from "node:test";
import type { SessionOutput } from "../../../src/replication/types.js";
import { Operation } from "../../../src/wire/messages.js";
import {
  ack,
  addresses,
  closeOf,
  connected,
  type Driver,
  EL,
  ES,
  exported,
  list,
  nack,
  response,
  roots,
  SA,
  sent,
  service,
  subscription,
  TB,
  words,
} from "./driver.js";

/** Takes what waits in one go, for a driver that does not read by itself. */
function drain(driver: Driver): SessionOutput[] {
  driver.reading = true;
  const outputs = driver.feed({ type: "tick" });
  driver.reading = false;
  driver.feed({ type: "writable", bytes: 0 });
  return outputs;
}

/** A session whose transport takes nothing until `drain`. */
function stuck(urls?: readonly string[]): Driver {
  const driver = connected("acceptor", {}, urls);
  driver.reading = false;
  driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
  return driver;
}

test("a resource is sent as an UPSERT with its URL inside and outside", () => {
  const driver = connected("acceptor");
  const resource = service("web", "payload");
  assert.deepEqual(sent(driver.feed(exported(resource))), [
    {
      type: "response",
      nonce: "00000001",
      resourceUrl: ES,
      resourceId: "web",
      operation: Operation.Upsert,
      resource: { typeUrl: ES, value: resource.value },
    },
  ]);
  assert.equal(driver.status.lastSendSuccessMs, driver.now);
  assert.equal(driver.status.unacknowledged, 1);
});

test("the same payload is sent once, a changed one again (ch1 case 82)", () => {
  const driver = connected("acceptor");
  assert.deepEqual(words(driver.feed(exported(service("web", "1"), service("web", "1")))), ["web=1"]);
  assert.deepEqual(words(driver.feed(exported(service("web", "1"), service("api", "1")))), ["api=1"]);
  assert.deepEqual(words(driver.feed(exported(service("web", "2"), service("api", "1")))), ["web=2"]);
  assert.deepEqual(words(driver.feed(exported(roots(), roots(), list("web"), list("web")))), [
    "roots=roots",
    "exported-service-list=web",
  ]);
  assert.deepEqual(words(driver.feed(exported(service("db", "")))), ["db="], "the first one also when it is empty");
});

test("a change that is taken back before it was sent is not sent (ch1 case 82)", () => {
  const driver = stuck();
  driver.feed(exported(service("web", "1")));
  drain(driver);
  driver.feed(exported(service("web", "2")), exported(service("api", "1")));
  driver.feed(exported(service("web", "1")));
  assert.equal(driver.status.queuedResources, 1);
  assert.deepEqual(words(drain(driver)), ["api=1"]);
});

test("un-export, then re-export without a change sends it again (ch1 case 83)", () => {
  const driver = connected("acceptor");
  driver.feed(exported(list("web"), service("web", "1")));
  assert.deepEqual(words(driver.feed({ type: "withdrawn", resourceIds: ["web"] }, exported(list()))), [
    "exported-service-list=",
  ]);
  assert.deepEqual(words(driver.feed(exported(list("web"), service("web", "1")))), [
    "exported-service-list=web",
    "web=1",
  ]);
});

test("an update that waits when its name is withdrawn is dropped (ch1 case 95)", () => {
  const driver = stuck();
  driver.feed(exported(list("api", "web"), service("api"), service("web", "1"), service("db")));
  drain(driver);
  driver.feed(exported(service("api", "2"), service("web", "2"), service("db", "2")));
  driver.feed({ type: "withdrawn", resourceIds: ["web", "never-seen"] }, exported(list("api")));
  assert.deepEqual(words(drain(driver)), ["exported-service-list=api", "api=2", "db=2"]);
  assert.equal(driver.status.unacknowledged, 3, "the dropped service's answer is not waited for");
});

test("the first, the last and the only one in the queue can be withdrawn", () => {
  for (const gone of [["a"], ["c"], ["b"], ["b", "c"], ["a", "b", "c"], ["c", "a"], ["a", "b"]]) {
    const driver = stuck();
    driver.feed(exported(service("a"), service("b"), service("c")));
    driver.feed({ type: "withdrawn", resourceIds: gone });
    driver.feed(exported(service("d")));
    const rest = ["a", "b", "c", "d"].filter((id) => !gone.includes(id));
    assert.equal(driver.status.queuedResources, rest.length);
    assert.deepEqual(
      words(drain(driver)),
      rest.map((id) => `${id}=1`),
    );
    assert.equal(driver.status.queuedBytes, 0);
  }
});

test("nothing of a type is sent before the peer subscribed to it", () => {
  const driver = connected("acceptor", {}, []);
  driver.feed(exported(addresses(), service("web"), list("web"), roots()));
  assert.equal(driver.session.wantsToSend, false);
  assert.equal(driver.status.queuedResources, 4);
  assert.deepEqual(words(driver.receive(subscription(EL))), [], "the list comes with the services");
  assert.deepEqual(words(driver.receive(subscription(SA))), ["server-addrs=addresses"]);
  assert.deepEqual(words(driver.receive(subscription(ES))), ["exported-service-list=web", "web=1"]);
  assert.deepEqual(words(driver.receive(subscription(TB))), ["roots=roots"]);
});

test("what a peer did not ask for does not count as waiting to be accepted", () => {
  const driver = connected("acceptor", {}, []);
  driver.feed(exported(service("web")));
  for (let count = 0; count < 20; count++) {
    driver.pass(14_000);
    driver.receive({ type: "heartbeat" });
  }
  assert.equal(driver.status.phase, "connected");
});

test("a dialer never sends addresses", () => {
  const driver = connected("dialer");
  driver.receive(subscription(SA));
  assert.deepEqual(words(driver.feed(exported(addresses()))), []);
});

test("the lanes: heartbeat, answers, roots and addresses, list, services first in first out", () => {
  const driver = stuck();
  driver.feed(exported(service("b"), service("a"), list("a", "b"), addresses(), roots(), service("b", "2")));
  driver.receive(response("web", { operation: 0 }));
  driver.pass(15_000);
  assert.deepEqual(words(drain(driver)), [
    "heartbeat",
    "nack ExportedService",
    "roots=roots",
    "server-addrs=addresses",
    "exported-service-list=a,b",
    "b=2",
    "a=1",
  ]);
});

test("a heartbeat and an answer overtake services that wait for credit", () => {
  const driver = stuck();
  driver.feed(exported(...Array.from({ length: 100 }, (_, index) => service(`s${index}`))));
  assert.deepEqual(words(driver.feed({ type: "writable", bytes: 1 })), ["s0=1"]);
  driver.receive(response("web", { operation: 0 }));
  driver.pass(15_000);
  assert.deepEqual(words(driver.feed({ type: "writable", bytes: 500 })), ["heartbeat", "nack ExportedService", "s1=1"]);
});

test("nothing is given out without credit, and credit does not add up", () => {
  const driver = stuck();
  driver.feed(exported(...Array.from({ length: 10 }, (_, index) => service(`s${index}`))));
  assert.equal(words(driver.feed({ type: "writable", bytes: 0 })).length, 0);
  assert.equal(words(driver.feed({ type: "writable", bytes: 401 })).length, 2);
  assert.equal(words(driver.feed({ type: "tick" })).length, 0);
  assert.equal(words(driver.feed({ type: "writable", bytes: 10_000 })).length, 8);
  assert.equal(words(driver.feed({ type: "writable", bytes: 201 })).length, 0);
  assert.equal(words(driver.feed(exported(...["a", "b", "c"].map((id) => service(id))))).length, 1);
});

test("credit that is left serves what comes next at once", () => {
  const driver = stuck();
  driver.feed({ type: "writable", bytes: 1_000 });
  assert.deepEqual(words(driver.feed(exported(service("web")))), ["web=1"]);
});

test("what waits is bounded by the number of resources, not of events", () => {
  const driver = stuck();
  for (let version = 0; version < 1_000; version++) {
    driver.feed(exported(service("web", `${version}`), service("api", `${version}`), roots(`${version}`)));
    driver.feed({ type: "withdrawn", resourceIds: ["api"] });
  }
  assert.equal(driver.status.queuedResources, 2);
  assert.equal(driver.status.queuedBytes, 6);
  assert.deepEqual(words(drain(driver)), ["roots=999", "web=999"]);
  const silent = connected("acceptor");
  for (let version = 0; version < 1_000; version++) silent.feed(exported(service("web", `${version}`)));
  assert.equal(silent.status.unacknowledged, 1, "a peer that never answers makes nothing grow");
});

test("the answer to a version that was superseded says nothing of the newer one", () => {
  const driver = connected("acceptor");
  driver.feed(exported(service("web", "1")));
  driver.feed(exported(service("web", "2")));
  driver.receive(nack(ES, "00000001", "bad"));
  assert.equal(driver.status.refusedByPeer.size, 0);
  assert.equal(driver.status.unacknowledged, 1);
  driver.receive(ack(ES, "00000002"));
  assert.equal(driver.status.unacknowledged, 0);
});

test("the exported services of the status are those of the list last sent, not of the one that waits", () => {
  const driver = stuck();
  assert.equal(driver.status.exportedServices, undefined);
  driver.feed(exported(list("web")));
  assert.equal(driver.status.exportedServices, undefined);
  drain(driver);
  assert.deepEqual(driver.status.exportedServices, ["web"]);
  driver.feed(exported(list("api", "web")));
  assert.deepEqual(driver.status.exportedServices, ["web"]);
  drain(driver);
  driver.feed({ type: "receive-ended" });
  assert.deepEqual(driver.status.exportedServices, ["api", "web"], "it outlives the stream");
});

test("a service larger than the peer's limit is held back alone, and goes out when it shrinks (ch1 case 123)", () => {
  const driver = connected("acceptor", { maxSendBytes: 1_000 });
  const large = (size: number) => ({ ...service("big"), value: new Uint8Array(size), digest: `${size}` });
  driver.feed(exported(service("big", "1")));
  const outputs = driver.feed(exported(large(1_000), service("web")));
  assert.deepEqual(words(outputs), ["web=1"]);
  const [event] = outputs.filter((output) => output.type === "held-back");
  assert.equal(event?.resourceId, "big");
  assert.equal(event?.resourceUrl, ES);
  assert.equal(event?.limit, 1_000);
  assert.ok((event?.bytes ?? 0) > 1_000);
  assert.deepEqual([...driver.status.heldBack], [["big", event?.bytes]]);
  assert.deepEqual(driver.feed(exported(large(1_000))), [], "known already");
  assert.deepEqual(words(driver.feed(exported({ ...list("big"), value: new Uint8Array(2_000), digest: "x" }))), []);
  assert.equal(driver.status.heldBack.size, 2);
  assert.ok(driver.status.heldBack.has(EL));
  assert.equal(words(driver.feed(exported(large(500)))).length, 1);
  assert.deepEqual([...driver.status.heldBack.keys()], [EL]);
  driver.feed(exported(large(2_000)));
  driver.feed({ type: "withdrawn", resourceIds: ["big"] });
  assert.deepEqual([...driver.status.heldBack.keys()], [EL]);
  assert.equal(closeOf(outputs), undefined);
});

test("a version that waits is not sent when the newest one is too large (ch1 case 123)", () => {
  const driver = connected("acceptor", { maxSendBytes: 1_000 });
  driver.reading = false;
  driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
  driver.feed(exported(service("big", "1"), service("web")));
  driver.feed(exported({ ...service("big"), value: new Uint8Array(1_000), digest: "large" }));
  assert.deepEqual(words(drain(driver)), ["web=1"]);
  assert.deepEqual(words(driver.feed(exported(service("big", "1")))), []);
  assert.deepEqual(words(drain(driver)), ["big=1"]);
});

test("a resource of a type that does not exist is the caller's mistake", () => {
  const driver = connected("acceptor");
  assert.throws(() => driver.feed(exported({ ...service("web"), resourceUrl: "nomad.Job" })), TypeError);
});

test("20,000 services at once leave once each, in order, whatever the credit", () => {
  const driver = stuck([ES, TB]);
  const ids = Array.from({ length: 20_000 }, (_, index) => `s${index}`);
  driver.feed(exported(...ids.map((id) => service(id))));
  const seen: string[] = [];
  while (driver.session.wantsToSend) {
    for (const message of sent(driver.feed({ type: "writable", bytes: 10_000 }))) {
      if (message.type === "response") seen.push(message.resourceId);
    }
  }
  assert.deepEqual(seen, ids);
});
