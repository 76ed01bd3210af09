import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Operation } from "../../../src/wire/messages.js";
import { StatusCode } from "../../../src/wire/status.js";
import {
  ack,
  addresses,
  appliesOf,
  closeOf,
  Driver,
  EL,
  ES,
  exported,
  list,
  MIB,
  nack,
  open,
  PEER_ID,
  response,
  roots,
  SA,
  sent,
  service,
  subscription,
  TB,
  words,
} from "./driver.js";

type Role = "acceptor" | "dialer";
const roles: readonly Role[] = ["acceptor", "dialer"];

/** A session whose peer has opened, or answered, as Consul 1.13 does. */
function legacy(role: Role): Driver {
  const driver = new Driver(role);
  driver.feed({ type: "start" });
  if (role === "acceptor") {
    const { remote: _, ...bare } = open();
    driver.receive(bare);
    driver.feed({ type: "authorized" });
  }
  // Both roles of 1.13 ask for the same three, in this order.
  const peerId = role === "acceptor" ? PEER_ID : "";
  driver.receive(...[ES, TB, SA].map((url) => subscription(url, { peerId })));
  assert.equal(driver.status.dialect, "legacy");
  return driver;
}

/** As 1.13 writes them: without a nonce. */
const bare = (id: string, changes: Parameters<typeof response>[1] = {}) => response(id, { nonce: "", ...changes });

function removal(id: string, resourceUrl = ES) {
  const { resource: _, ...message } = bare(id, { resourceUrl, operation: Operation.Delete });
  return message;
}

function large(id: string, bytes: number) {
  return { ...service(id), value: new Uint8Array(bytes), digest: `${bytes}` };
}

/** The services that were sent, with the operation. */
function operations(outputs: Parameters<typeof sent>[0]): string[] {
  return sent(outputs).flatMap((message) =>
    message.type === "response"
      ? [`${message.resourceId} ${message.operation} ${message.resource === undefined ? "without" : "with"}`]
      : [],
  );
}

for (const role of roles) {
  describe(`1.7: Consul 1.13 at the other end, we are the ${role}`, () => {
    it("no list is asked for and none is sent (ch1 cases 112 and 116)", () => {
      const driver = new Driver(role);
      const { remote: _, ...opening } = open();
      const outputs = driver.feed({ type: "start" }, exported(list("web"), roots(), service("web")));
      if (role === "acceptor") outputs.push(...driver.receive(opening), ...driver.feed({ type: "authorized" }));
      outputs.push(...driver.receive(subscription(ES), subscription(TB), subscription(SA)));
      outputs.push(...driver.feed(exported(list("api", "web"), service("api"))));
      const seen = words(outputs);
      assert.ok(!seen.some((word) => word.includes("ist")), seen.join());
      assert.deepEqual(
        seen.filter((word) => word.includes("=")),
        ["roots=roots", "web=1", "api=1"],
      );
      assert.equal(driver.status.dialect, "legacy");
      assert.equal(closeOf(outputs), undefined);
    });

    it("a DELETE with an empty nonce is a service without instances, and is acknowledged without one (ch1 case 113)", () => {
      const driver = legacy(role);
      const [apply] = appliesOf(driver.receive(removal("web")));
      assert.equal(apply?.resource.resourceUrl, ES);
      assert.equal(apply?.resource.resourceId, "web");
      assert.equal(apply?.resource.value.length, 0);
      const answers = sent(driver.feed({ type: "applied", results: [{ id: apply?.id ?? 0 }] }));
      assert.deepEqual(answers, [ack(ES, "")]);
      assert.equal(driver.status.lastReceiveSuccessMs, driver.now);
    });

    it("a DELETE is taken with a resource as well, and with a nonce", () => {
      const driver = legacy(role);
      const [apply] = appliesOf(driver.receive(response("web", { operation: Operation.Delete })));
      assert.equal(apply?.resource.value.length, 0);
      const answers = sent(driver.feed({ type: "applied", results: [{ id: apply?.id ?? 0 }] }));
      assert.deepEqual(answers, [ack(ES, "0000000a")]);
    });

    it("an UPSERT with an empty nonce is applied", () => {
      const driver = legacy(role);
      const [apply] = appliesOf(driver.receive(bare("web")));
      assert.equal(apply?.resource.value.length, 3);
      assert.deepEqual(sent(driver.feed({ type: "applied", results: [{ id: apply?.id ?? 0 }] })), [ack(ES, "")]);
    });

    it("a DELETE of another type, and other operations, are refused as 1.13 refuses them", () => {
      for (const url of [TB, SA]) {
        const text = `delete error, ResourceURL: "${url}", ResourceID: "roots": unexpected resourceURL: ${url}`;
        const driver = legacy(role);
        assert.deepEqual(sent(driver.receive(removal("roots", url))), [nack(url, "", text)]);
        assert.equal(driver.status.lastReceiveErrorMessage, `delete error: unexpected resourceURL: ${url}`);
      }
      const texts = new Map([
        [0, 'unsupported operation: "OPERATION_UNSPECIFIED"'],
        [99, "unsupported operation: 99"],
      ]);
      for (const [operation, message] of texts) {
        const error = { code: StatusCode.InvalidArgument, message };
        const answers = sent(legacy(role).receive(bare("web", { operation })));
        assert.deepEqual(answers, [{ ...nack(ES, "", message), error }]);
      }
    });

    it("no instances, un-export and a chain withdrawn are operation 2 without a resource (ch1 case 114)", () => {
      const driver = legacy(role);
      driver.feed(exported(service("web"), service("api"), service("web-sidecar-proxy")));
      const gone = driver.feed(exported(service("api", ""), service("web-sidecar-proxy", "")));
      assert.deepEqual(operations(gone), ["api 2 without", "web-sidecar-proxy 2 without"]);
      assert.deepEqual(operations(driver.feed({ type: "withdrawn", resourceIds: ["web"] })), ["web 2 without"]);
    });

    it("a name without instances from the start is a DELETE, once (ch1 case 114)", () => {
      const driver = legacy(role);
      assert.deepEqual(operations(driver.feed(exported(service("soon", "")))), ["soon 2 without"]);
      assert.deepEqual(operations(driver.feed({ type: "withdrawn", resourceIds: ["soon"] })), []);
      assert.deepEqual(operations(driver.feed(exported(service("soon", "1")))), ["soon 1 with"]);
    });

    it("un-exported and exported again, a service is deleted and sent again, or neither (ch1 case 114)", () => {
      const driver = legacy(role);
      driver.feed(exported(service("web")));
      assert.deepEqual(operations(driver.feed({ type: "withdrawn", resourceIds: ["web"] })), ["web 2 without"]);
      assert.deepEqual(operations(driver.feed(exported(service("web")))), ["web 1 with"]);
      driver.reading = false;
      driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
      driver.feed({ type: "withdrawn", resourceIds: ["web"] }, exported(service("web")));
      driver.reading = true;
      assert.deepEqual(operations(driver.feed({ type: "tick" })), [], "the peer has it still");
      driver.reading = false;
      driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
      driver.feed(exported(service("web", "2")), { type: "withdrawn", resourceIds: ["web"] });
      driver.reading = true;
      assert.deepEqual(operations(driver.feed({ type: "tick" })), ["web 2 without"], "the newest state alone");
    });

    it("a service that was never sent is withdrawn without a message (D-26)", () => {
      const driver = legacy(role);
      driver.reading = false;
      driver.session.handle({ type: "writable", bytes: 0 }, driver.now);
      driver.feed(exported(service("web")), { type: "withdrawn", resourceIds: ["web", "never-seen"] });
      assert.equal(driver.status.queuedResources, 0);
    });

    it("a service over 4 MiB is held back alone, and goes out when it shrinks (ch1 case 123)", () => {
      const driver = legacy(role);
      const outputs = driver.feed(exported(large("big", 4 * MIB), service("web")));
      assert.deepEqual(words(outputs), ["web=1"]);
      const [event] = outputs.filter((output) => output.type === "held-back");
      assert.equal(event?.limit, 4 * MIB);
      assert.deepEqual([...driver.status.heldBack], [["big", event?.bytes]]);
      assert.deepEqual(operations(driver.feed(exported(large("big", 3 * MIB)))), ["big 1 with"]);
      assert.equal(driver.status.heldBack.size, 0);
    });

    it("the exported services of the status are those of which it has instances", () => {
      const driver = legacy(role);
      assert.deepEqual(driver.status.exportedServices, []);
      driver.feed(exported(list("api", "db", "web"), service("web"), service("api"), service("db", "")));
      assert.deepEqual(driver.status.exportedServices, ["api", "web"]);
      driver.feed({ type: "withdrawn", resourceIds: ["web"] });
      driver.feed({ type: "receive-ended" });
      assert.deepEqual(driver.status.exportedServices, ["api"], "it outlives the stream");
    });
  });
}

describe("1.7: which dialect a peer belongs to", () => {
  it("a dialer of 1.13 is told our addresses when it asks, an acceptor is not", () => {
    for (const role of roles) {
      const driver = legacy(role);
      const told = role === "acceptor" ? ["server-addrs=addresses"] : [];
      assert.deepEqual(words(driver.feed(exported(addresses()))), told);
    }
  });

  it("a dialer without Remote that asks for the list is newer after all (ch1 case 112)", () => {
    const driver = legacy("acceptor");
    driver.feed(exported(list("big", "web"), large("big", 5 * MIB), service("web")));
    const outputs = driver.receive(subscription(EL));
    assert.deepEqual(operations(outputs), ["exported-service-list 1 with", "big 1 with"], "it bears 8 MiB");
    assert.ok(words(outputs).includes("subscribe ExportedServiceList"));
    assert.equal(driver.status.heldBack.size, 0);
    assert.deepEqual(operations(driver.feed({ type: "withdrawn", resourceIds: ["web"] })), []);
    assert.deepEqual(driver.status.exportedServices, ["big", "web"]);
    const text = `received response without a nonce for: ${ES}:web`;
    assert.equal(sent(driver.receive(bare("web"))).at(-1)?.type, "request");
    assert.equal(driver.status.lastReceiveErrorMessage, text);
  });

  it("a newer peer's DELETE and empty nonce are refused (ch1 case 47)", () => {
    const driver = new Driver("dialer");
    driver.feed({ type: "start" });
    driver.receive(subscription(ES), subscription(EL), subscription(TB));
    assert.deepEqual(appliesOf(driver.receive(removal("web"), response("web", { operation: 2 }), bare("web"))), []);
  });

  it("nothing over 4 MiB goes to an acceptor before it has shown that it is newer, and nothing is said of it", () => {
    const driver = new Driver("dialer");
    driver.feed({ type: "start" });
    const waiting = driver.feed(exported(large("big", 5 * MIB), service("web")));
    assert.deepEqual(
      driver
        .receive(subscription(ES))
        .concat(waiting)
        .map(({ type }) => type),
      ["send"],
    );
    assert.deepEqual(operations(driver.receive(subscription(EL))), ["big 1 with"]);

    const older = new Driver("dialer");
    older.feed({ type: "start" }, exported(large("big", 5 * MIB)));
    const outputs = older.receive(subscription(ES), subscription(TB), subscription(SA));
    assert.deepEqual(
      outputs.map(({ type }) => type),
      ["held-back"],
      "known only now",
    );
  });

  it("too large for any peer is said at once", () => {
    const driver = new Driver("dialer");
    const [event] = driver.feed(exported(large("big", 8 * MIB)));
    assert.equal(event?.type, "held-back");
    assert.equal(event?.type === "held-back" ? event.limit : 0, 8 * MIB);
    driver.feed({ type: "start" });
    assert.deepEqual(
      driver.receive(subscription(ES), subscription(EL)).map(({ type }) => type),
      ["send"],
    );
    assert.deepEqual([...driver.status.heldBack.keys()], ["big"]);
  });

  it("until the dialect is known, what goes is an empty UPSERT, and un-export is told so, too", () => {
    const driver = new Driver("dialer");
    driver.feed({ type: "start" }, exported(list("api", "web"), service("web"), service("api", "")));
    assert.deepEqual(operations(driver.receive(subscription(ES))), ["web 1 with", "api 1 with"]);
    assert.deepEqual(operations(driver.feed({ type: "withdrawn", resourceIds: ["api", "web"] })), ["web 1 with"]);
    driver.receive(subscription(TB), subscription(SA));
    assert.deepEqual(operations(driver.feed(exported(service("web")))), ["web 1 with"]);
    assert.deepEqual(operations(driver.feed({ type: "withdrawn", resourceIds: ["web"] })), ["web 2 without"]);
  });
});
