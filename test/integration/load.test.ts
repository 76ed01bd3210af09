import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { startAgent } from "../support/command-line.js";
import { putLoadOn } from "../support/load.js";

// How fast it goes is the benchmark's matter (`npm run bench:load`); here everything must be complete and right.
describe("an agent under load", { timeout: 170_000 }, () => {
  it("wakes 200 who wait for the last state, and answers DNS as it is, while a burst of 2,000 updates replicates", async () => {
    const stopping = new AbortController();
    const ports = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=127.0.0.1:0"];
    const [a, b] = await Promise.all(
      ["dc1", "dc2"].map((datacenter) => startAgent(["-dev", `-datacenter=${datacenter}`, ...ports], stopping.signal)),
    );
    assert.ok(a !== undefined && b !== undefined);
    const figures = await putLoadOn(
      { a: a.http, b: b.http, dnsOfB: b.dns },
      { services: 100, instances: 2, watchers: 200, updates: 2_000, writers: 16, questionsPerSecond: 500 },
    );
    assert.ok(figures.wakes >= 200, `${figures.wakes} wakes`);
    assert.ok(figures.questions > 100, `${figures.questions} questions`);
    stopping.abort();
    assert.deepEqual([(await a.result).exit, (await b.result).exit], [0, 0]);
  });
});
