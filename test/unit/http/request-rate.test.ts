import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { RequestRate } from "../../../src/http/request-rate.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { runPeerage } from "../../support/command-line.js";
import { serve } from "../../support/http-pair.js";

describe("the rate of requests of a source", () => {
  it("is so many at once, and then so many a second, for each by itself", async () => {
    const clock = testClock();
    const rate = new RequestRate(10, clock);
    const admitted = (source: string, count: number): number =>
      Array.from({ length: count }, () => rate.admit(source)).filter((each) => each).length;
    assert.equal(admitted("10.0.0.1", 100), 10);
    assert.equal(admitted("10.0.0.2", 3), 3);
    await clock.advance(500);
    assert.equal(admitted("10.0.0.1", 100), 5);
    await clock.advance(60_000);
    assert.equal(admitted("10.0.0.1", 100), 10);
    // All of a /64 are one.
    assert.equal(admitted("2001:db8::1", 6) + admitted("2001:db8::2", 6), 10);
    assert.equal(admitted("::ffff:10.0.0.3", 6) + admitted("10.0.0.3", 6), 10);
  });

  it("costs no memory for each of very many sources, and keeps no known one out for them", async () => {
    const clock = testClock();
    const rate = new RequestRate(2, clock);
    for (let index = 0; index < 10_000; index++) rate.admit(`10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`);
    // Those beyond share one allowance.
    assert.deepEqual(
      ["11.0.0.1", "11.0.0.2", "11.0.0.3"].map((source) => rate.admit(source)),
      [true, true, false],
    );
    assert.equal(rate.admit("10.0.0.1"), true);
    await clock.advance(1_000);
    assert.deepEqual(
      ["11.0.0.4", "11.0.0.5", "11.0.0.6"].map((source) => rate.admit(source)),
      [true, true, true],
    );
  });

  it("is answered 429 beyond, and counted", async () => {
    const host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport({}) });
    const clock = testClock();
    await using served = await serve(host, { requestsPerSecond: 2, clock });
    const ask = async (): Promise<readonly [number, string]> => {
      const { status, text } = await served.ask("GET", "/v1/status/leader");
      return [status, text];
    };
    assert.equal((await ask())[0], 200);
    assert.equal((await ask())[0], 200);
    assert.deepEqual(await ask(), [429, "Your address may send 2 requests a second."]);
    assert.equal(host.incidents.counts().get("http-requests-per-source"), 1);
    await clock.advance(500);
    assert.equal((await ask())[0], 200);
  });

  it("of nothing is refused, also as a flag", async () => {
    const host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport({}) });
    await assert.rejects(async () => serve(host, { requestsPerSecond: 0 }), TypeError);
    await host[Symbol.asyncDispose]();
    const { exit, stderr } = await runPeerage(["agent", "-dev", "-requests-per-second=0"]);
    assert.deepEqual([exit, stderr.startsWith('Invalid requests-per-second: "0" is no number')], [1, true], stderr);
  });
});
