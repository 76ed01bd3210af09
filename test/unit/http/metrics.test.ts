import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { eventually, HttpPair, serve } from "../../support/http-pair.js";

const PATH = "/v1/agent/metrics";

describe("GET /v1/agent/metrics", () => {
  let pair: HttpPair;
  before(async () => {
    pair = await HttpPair.start();
    const { a, b } = pair;
    await a.host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
    await a.host.exports.set({ services: [{ name: "web", consumers: [{ peer: "west" }] }] });
    await b.host.peerings.establish({
      peerName: "east",
      token: await a.host.peerings.generateToken({ peerName: "west" }),
    });
    await eventually(() => b.host.imports.services({ peer: "east" }).length === 1, AbortSignal.timeout(30_000));
    for (let round = 0; round < 3; round++) a.host.incidents.report("too-many", "refused");
    a.host.incidents.report('odd "kind"', "refused");
  });
  after(() => pair[Symbol.asyncDispose]());

  it("is Consul's JSON: gauges of peerings, and a counter for each kind of incident", async () => {
    const { text, headers } = await pair.a.ask("GET", PATH);
    assert.equal(headers["content-type"], "application/json");
    const { Timestamp, ...rest } = JSON.parse(text);
    assert.match(Timestamp, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC$/);
    const Labels = { peer_name: "west", peer_id: pair.a.host.peerings.read("west")?.id };
    const counter = (kind: string, count: number) => ({
      Name: "consul.peerage.incident",
      ...{ Count: count, Sum: count, Min: 1, Max: 1, Mean: 1, Stddev: 0 },
      Labels: { kind },
    });
    const gauges = rest.Gauges.slice(0, -2);
    const [alloc, sys] = rest.Gauges.slice(-2);
    assert.deepEqual([alloc.Name, sys.Name], ["consul.runtime.alloc_bytes", "consul.runtime.sys_bytes"]);
    assert.ok(alloc.Value > 0 && sys.Value > 0);
    assert.deepEqual(
      { ...rest, Gauges: gauges },
      {
        Gauges: [
          { Name: "consul.peering.exported_services", Value: 1, Labels },
          { Name: "consul.peering.healthy", Value: 1, Labels },
        ],
        Points: [],
        Counters: [counter("too-many", 3), counter('odd "kind"', 1)],
        Samples: [],
      },
    );
  });

  it("is what Prometheus reads, where that is asked for", async () => {
    const { id } = pair.a.host.peerings.read("west") ?? {};
    const url = `http://127.0.0.1:${pair.a.port}${PATH}`;
    const labels = `{peer_id="${id}",peer_name="west"}`;
    const expected = [
      "# HELP consul_peering_exported_services How many services are exported for the peering.",
      "# TYPE consul_peering_exported_services gauge",
      `consul_peering_exported_services${labels} 1`,
      "# HELP consul_peering_healthy Whether the peering is healthy (1) or not (0).",
      "# TYPE consul_peering_healthy gauge",
      `consul_peering_healthy${labels} 1`,
      "# HELP consul_peerage_incident Refusals by limits, and failures that no caller sees, by their kind, since the start.",
      "# TYPE consul_peerage_incident counter",
      'consul_peerage_incident{kind="too-many"} 3',
      'consul_peerage_incident{kind="odd \\"kind\\""} 1',
      "",
    ].join("\n");
    for (const [query, accept] of [
      ["?format=prometheus", "*/*"],
      ["", "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"],
    ] as const) {
      const answer = await fetch(url + query, { headers: { accept } });
      assert.equal(answer.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
      const text = await answer.text();
      assert.match(text, /^consul_runtime_alloc_bytes \d+$/m);
      assert.equal(text.replace(/.*consul_runtime_.*\n/g, ""), expected);
    }
  });

  it("counts what limits refuse, and tells it where peering is switched off, too", async () => {
    const transport = memoryNetwork().transport();
    const host = await createHost({ storage: memoryStorage(), transport, peeringEnabled: false });
    await using served = await serve(host, { maxBodyBytes: 10 });
    await served.ask("GET", "/v1/status/leader", { headers: { Host: "evil.example" } });
    const { Gauges, Counters } = JSON.parse((await served.ask("GET", PATH)).text);
    assert.deepEqual(
      Gauges.map(({ Name }: { Name: string }) => Name),
      ["consul.runtime.alloc_bytes", "consul.runtime.sys_bytes"],
    );
    assert.deepEqual(
      Counters.map(({ Count, Labels }: { Count: number; Labels: { kind: string } }) => [Labels.kind, Count]),
      [["http-host-refused", 1]],
    );
  });
});
