import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { DialFailures } from "../../../src/host/dial-failures.js";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { runPeerage } from "../../support/command-line.js";
import { eventually } from "../../support/hosts.js";
import { HttpPair } from "../../support/http-pair.js";
import { LogRecorder } from "../../support/log-recorder.js";

describe("the log of failed dials", () => {
  it("has the first failure, each other one, and one a minute of those that stay the same", async () => {
    const clock = testClock();
    const logger = new LogRecorder();
    const failures = new DialFailures(clock, logger);
    const fail = (message: string, address = "a:1"): void =>
      failures.failed("p", new PeeringError("unavailable", message), address, 2_000);
    for (let attempt = 0; attempt < 50; attempt++) {
      fail("refused");
      fail("refused", "b:1");
    }
    fail("unknown authority", "b:1");
    await clock.advance(59_999);
    fail("unknown authority", "b:1");
    await clock.advance(1);
    fail("unknown authority", "b:1");
    failures.failed("q", new PeeringError("unavailable", "refused"), undefined, 8);
    failures.stopped("p");
    fail("unknown authority", "b:1");
    assert.deepEqual(
      logger.lines.map(({ level, fields: { peer, address, error, retryMs, others } }) =>
        [level, peer, address, error, retryMs, others].join(" "),
      ),
      [
        "warn p a:1 refused 2000 ",
        "warn p b:1 refused 2000 ",
        "warn p b:1 unknown authority 2000 49",
        "warn p b:1 unknown authority 2000 1",
        "warn q  refused 8 ",
        "warn p b:1 unknown authority 2000 ",
      ],
    );
  });
});

describe("a peering that does not work says why, and since when", () => {
  it("over HTTP, in the command line, and in the log", async () => {
    await using pair = await HttpPair.start();
    const { a, b } = pair;
    const token = await a.host.peerings.generateToken({ peerName: "b" });
    await b.host.peerings.establish({ peerName: "a", token });
    await eventually(() => b.host.peerings.read("a")?.status.healthy === true, "the peering works");
    const flags = ["-http-addr", `127.0.0.1:${b.port}`];
    const working = await runPeerage(["peering", "read", "-name=a", ...flags]);
    assert.ok(!working.stdout.includes("Last Failure"), working.stdout);
    assert.equal(JSON.parse((await b.ask("GET", "/v1/peering/a")).text).Peerage, undefined);
    await a[Symbol.asyncDispose]();
    await eventually(() => (b.host.peerings.read("a")?.status.failedAttempts ?? 0) > 1, "dials fail");
    const { Peerage } = JSON.parse((await b.ask("GET", "/v1/peering/a")).text);
    const { Error: text, Address, Since, At, FailedAttempts } = Peerage.LastFailure;
    assert.match(text, /refused/);
    assert.equal(Address, "127.0.0.11:8503");
    assert.ok(Date.parse(Since) <= Date.parse(At) && FailedAttempts > 1);
    const read = await runPeerage(["peering", "read", "-name=a", ...flags]);
    assert.match(read.stdout, /^Last Failure: {6}127\.0\.0\.11:8503: .*refused/m);
    assert.match(read.stdout, /^Failing Since: {5}\d{4}-/m);
    const list = await runPeerage(["peering", "list", "-detailed", ...flags]);
    assert.match(list.stdout, /Failing Since +Last Failure\na .*refused/s);
    const plain = await runPeerage(["peering", "list", ...flags]);
    assert.ok(!plain.stdout.includes("refused"));
    const json = await runPeerage(["peering", "read", "-name=a", "-format=json", ...flags]);
    assert.equal(JSON.parse(json.stdout).Peerage.LastFailure.Address, "127.0.0.11:8503");
  });

  it("names services that the peer does not get", async () => {
    const network = memoryNetwork();
    const logger = new LogRecorder();
    const host = (listen: string, limits = {}): ReturnType<typeof createHost> =>
      createHost({ storage: memoryStorage(), transport: network.transport({ listen }), limits, logger });
    await using a = await host("127.0.0.11:8503", { maxSendToDialerBytes: 100 });
    await using b = await host("127.0.0.12:8503");
    await a.catalog.register({
      node: "n",
      address: "10.0.0.1",
      service: { name: "big", meta: { k: "x".repeat(500) } },
    });
    await a.exports.set({ services: [{ name: "big", consumers: [{ peer: "b" }] }] });
    await b.peerings.establish({ peerName: "a", token: await a.peerings.generateToken({ peerName: "b" }) });
    await eventually(() => a.peerings.read("b")?.status.withheldServices.has("big") === true, "it is held back");
  });
});
