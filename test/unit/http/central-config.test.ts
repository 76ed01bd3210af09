// Answers and waits of `?merge-central-config`; the result of merging entries is recorded (test/support/central-config-script.ts).
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ConfigEntryInput } from "../../../src/config/config-entry.js";
import { CentralNames } from "../../../src/http/central-names.js";
import { HttpPair, type RawAnswer, type ServedHost } from "../../support/http-pair.js";

/** Far longer than the tests may take: who is woken by nothing else makes them fail. */
const LIMIT_MS = 30_000;
const MERGED = "merge-central-config";

const serviceDefaults = (name: string, protocol: string): ConfigEntryInput => ({
  kind: "service-defaults",
  name,
  protocol,
});

async function withProxy(served: ServedHost): Promise<void> {
  const proxy = {
    destinationServiceName: "web",
    upstreams: [{ destinationName: "db", localBindPort: 7001 }],
  };
  await served.host.catalog.register({
    node: "n1",
    address: "10.0.0.1",
    nodeMeta: { rack: "r1" },
    service: { kind: "connect-proxy", id: "web-proxy", name: "web-proxy", port: 80, proxy },
  });
}

function jsonOf(answer: RawAnswer): unknown {
  assert.equal(answer.status, 200, answer.text);
  return JSON.parse(answer.text);
}

const PATHS = [
  "/v1/health/service/web-proxy",
  "/v1/health/connect/web",
  "/v1/catalog/service/web-proxy",
  "/v1/catalog/connect/web",
  "/v1/catalog/node-services/n1",
];

describe("a read of instances with merge-central-config", () => {
  for (const path of PATHS) {
    it(`of ${path} waits for the entries that its proxies are told by, and for no others`, async () => {
      const signal = AbortSignal.timeout(LIMIT_MS);
      await using pair = await HttpPair.start(1);
      const { a } = pair;
      await withProxy(a);
      let answer = await a.ask("GET", `${path}?${MERGED}`, { signal });
      const woken = async (protocol: string, entry: ConfigEntryInput): Promise<void> => {
        const index = answer.headers["x-consul-index"];
        let answered = false;
        const waiting = a.ask("GET", `${path}?${MERGED}&index=${index}&wait=10m`, { signal }).finally(() => {
          answered = true;
        });
        // Calls that come later are answered meanwhile, so that this one waits, and has not been woken.
        const passes = (): Promise<RawAnswer> => a.ask("GET", `${path}?${MERGED}`, { signal });
        await passes();
        await a.host.configEntries.set(serviceDefaults("other", protocol));
        await a.host.configEntries.set({ kind: "mesh", extra: { ValidateClusters: protocol === "http" } });
        await passes();
        assert.equal(answered, false, "woken by an entry of others");
        await a.host.configEntries.set(entry);
        answer = await waiting;
        assert.match(answer.text, new RegExp(`"protocol":"${protocol}"`));
      };
      await woken("http", { kind: "proxy-defaults", config: { protocol: "http" } });
      await woken("grpc", serviceDefaults("web", "grpc"));
      await woken("http2", serviceDefaults("db", "http2"));
    });
  }

  it("waits for no entries when it is not asked to merge", async () => {
    const signal = AbortSignal.timeout(LIMIT_MS);
    await using pair = await HttpPair.start(1);
    const { a } = pair;
    await withProxy(a);
    const before = await a.ask("GET", "/v1/health/service/web-proxy", { signal });
    await a.host.configEntries.set(serviceDefaults("web", "grpc"));
    const after = await a.ask("GET", "/v1/health/service/web-proxy", { signal });
    assert.equal(after.headers["x-consul-index"], before.headers["x-consul-index"]);
    assert.equal(after.text, before.text);
  });

  it("tells the node of a proxy, which Consul 1.21 leaves out of its flat form", async () => {
    await using pair = await HttpPair.start(1);
    await withProxy(pair.a);
    const [instance] = [
      jsonOf(await pair.a.ask("GET", `/v1/catalog/service/web-proxy?${MERGED}&node-meta=rack:r1`)),
    ].flat();
    const { Address, Datacenter, NodeMeta } = Object(instance);
    assert.deepEqual({ Address, NodeMeta }, { Address: "10.0.0.1", NodeMeta: { rack: "r1" } });
    assert.equal(Datacenter, pair.a.host.datacenter);
  });
});

describe("who waits for entries", () => {
  it("is asked for the names once for each read and each write, however many wait", () => {
    const names = new CentralNames();
    let looks = 0;
    const find = (): ReadonlySet<string> => {
      looks++;
      return new Set(["web"]);
    };
    for (let write = 0; write < 3; write++) {
      for (let waiting = 0; waiting < 1_000; waiting++) {
        assert.ok(names.of(`1 ${write}`, "service a", find).has("web"));
        assert.ok(!names.of(`1 ${write}`, "connect a", () => new Set()).has("web"));
      }
    }
    assert.equal(looks, 3);
    names.of("2 2", "service a", find);
    assert.equal(looks, 4, "instances are others");
  });
});

describe("a proxy of an agent", () => {
  it("is told as entries make it, and a wait for its hash ends with them", async () => {
    const signal = AbortSignal.timeout(LIMIT_MS);
    await using pair = await HttpPair.start(1);
    const { a } = pair;
    const body = JSON.stringify({
      Name: "web",
      Port: 80,
      Connect: { SidecarService: {} },
    });
    assert.equal((await a.ask("PUT", "/v1/agent/service/register", { body })).status, 200);
    const path = "/v1/agent/service/web-sidecar-proxy";
    const first = await a.ask("GET", path, { signal });
    const hash = first.headers["x-consul-contenthash"];
    const again = await a.ask("GET", path, { signal });
    assert.equal(again.headers["x-consul-contenthash"], hash);
    const waiting = a.ask("GET", `${path}?hash=${hash}&wait=10m`, { signal });
    await a.host.configEntries.set(serviceDefaults("other", "http"));
    await a.host.configEntries.set(serviceDefaults("web", "grpc"));
    const second = await waiting;
    assert.deepEqual(Object(Object(jsonOf(second)).Proxy).Config, { protocol: "grpc" });
    assert.notEqual(second.headers["x-consul-contenthash"], hash);
  });
});
