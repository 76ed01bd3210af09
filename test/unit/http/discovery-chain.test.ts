// The content of chains is compared with Consul's answers in scripted.test.ts.
import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import { compileChain } from "../../../src/config/chain.js";
import { customizationHash } from "../../../src/config/chain-customization.js";
import { ConfigEntrySet } from "../../../src/config/config-entry-set.js";
import { eventually, HttpPair } from "../../support/http-pair.js";

describe("discovery chains over HTTP", () => {
  it("are waited for, and writes for others end no wait", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const { configEntries } = a.host;
    await configEntries.set({ kind: "service-resolver", name: "web", redirect: { service: "db" } });
    const { headers } = await a.ask("GET", "/v1/discovery-chain/web");
    const waits = mock.method(configEntries, "onChange");
    const waiting = a.ask("GET", `/v1/discovery-chain/web?index=${headers["x-consul-index"]}&wait=5m`);
    await eventually(() => waits.mock.callCount() > 0, AbortSignal.timeout(20_000));
    await configEntries.set({ kind: "service-resolver", name: "other", redirect: { service: "db" } });
    await configEntries.set({ kind: "service-defaults", name: "unrelated", meta: { a: "b" } });
    // Answers are made in turn: one to what was written before would be under way.
    for (let round = 0; round < 3; round++) await a.ask("GET", "/v1/discovery-chain/other");
    await configEntries.set({ kind: "service-resolver", name: "db", connectTimeout: "8s" });
    const answer = await waiting;
    assert.match(answer.text, /"ConnectTimeout":"8s"/);
    assert.equal(answer.headers["x-consul-index"], String(configEntries.index));
  });

  it("show no member of a map as a member of all objects", async () => {
    await using pair = await HttpPair.start();
    const { text } = await pair.a.ask("GET", "/v1/discovery-chain/__proto__");
    assert.deepEqual(Object.keys(JSON.parse(text).Chain.Targets), ["__proto__.default.default.dc1"]);
  });
});

describe("the digest of overrides", () => {
  const of = (overrides: Parameters<typeof customizationHash>[1]): string =>
    customizationHash(compileChain(ConfigEntrySet.of([]), "web", "dc1", overrides), overrides);

  it("is that of Consul, and empty where they make no difference", () => {
    assert.equal(of({ connectTimeoutMs: 8_000 }), "e50f66eb");
    assert.equal(of({ protocol: "http2" }), "49c19fe6");
    assert.equal(of({ connectTimeoutMs: 5_000, protocol: "tcp" }), "");
    assert.equal(of({ connectTimeoutMs: 5_000, protocol: "http2" }), "49c19fe6");
  });
});
