import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ConsulClient } from "../../../src/client/index.js";
import { runPeerage, startAgent } from "../../support/command-line.js";
import { eventually, temporaryDirectory } from "../../support/hosts.js";
import { XdsClient } from "../../support/xds-client.js";

const ports: readonly string[] = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=off", "-node=n1"];
const POLICIES = `
default_policy = "deny"
token "web" {
  secret = "web-secret"
  rules {
    service "web" { policy = "write" }
    service "web-sidecar-proxy" { policy = "write" }
    node_prefix "" { policy = "read" }
    agent_prefix "" { policy = "read" }
  }
}
`;

interface Bootstrap {
  readonly stats_config: { readonly stats_tags: readonly object[] };
}

describe("peerage connect envoy", () => {
  it("prints what Consul's own command printed for the same sidecar of an agent of ours", async () => {
    const stopping = new AbortController();
    const agent = await startAgent(["-dev", ...ports, "-grpc=127.0.0.1:0"], stopping.signal);
    const service = { Name: "web", Port: 80, Connect: { SidecarService: { Port: 21_000 } } };
    const gateway = { Kind: "mesh-gateway", Name: "gateway", Port: 8443 };
    for (const body of [service, gateway]) {
      const resource = `http://${agent.http}/v1/agent/service/register`;
      assert.equal((await fetch(resource, { method: "PUT", body: JSON.stringify(body) })).status, 200);
    }
    const run = (...args: readonly string[]) => runPeerage(["connect", "envoy", `-http-addr=${agent.http}`, ...args]);
    const printed = await run("-sidecar-for=web", "-bootstrap");
    assert.equal(printed.exit, 0, printed.stderr);
    const { stats_config: ours, ...rest } = JSON.parse(printed.stdout) as Bootstrap;
    const text = await readFile("test/golden/envoy/consul-1.21.4-bootstrap.json", "utf8");
    const recorded = JSON.parse(text.replace("8502", agent.grpc.split(":")[1] ?? "")) as Bootstrap;
    const { stats_config: theirs, ...others } = recorded;
    assert.deepEqual(rest, others);
    // Consul labels by more, of which nothing is about peers.
    assert.ok(ours.stats_tags.length >= 9);
    for (const tag of ours.stats_tags) {
      assert.ok(
        theirs.stats_tags.some((other) => JSON.stringify(other) === JSON.stringify(tag)),
        JSON.stringify(tag),
      );
    }
    const { node } = JSON.parse((await run("-gateway=mesh", "-bootstrap")).stdout) as { readonly node: object };
    assert.deepEqual(node, {
      cluster: "gateway",
      id: "gateway",
      metadata: { namespace: "default", partition: "default" },
    });
    const refused: readonly (readonly [readonly string[], RegExp])[] = [
      [["-sidecar-for=web", "-envoy-binary=/no/such/envoy"], /Couldn.t start \/no\/such\/envoy/],
      [["-bootstrap"], /Must specify one of/],
      [["-bootstrap", "-sidecar-for=db"], /No sidecar proxy for db is registered/],
      [["-bootstrap", "-gateway=ingress"], /no other kind is served/],
      [["-bootstrap", "-sidecar-for=web", "-admin-bind=x"], /-admin-bind: no host:port/],
      [["-bootstrap", "-sidecar-for=web", "-grpc-addr=https://127.0.0.1:1"], /Must specify -grpc-ca-file/],
    ];
    for (const [args, why] of refused) {
      const { exit, stderr } = await run(...args);
      assert.equal(exit, 1);
      assert.match(stderr, why);
    }
    stopping.abort();
    await agent.result;
  });
});

describe("an agent with -grpc", () => {
  it("tells its port, serves the sidecars that are registered with it, and lists them", async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, "policies.hcl");
    await writeFile(path, POLICIES);
    const stopping = new AbortController();
    const agent = await startAgent(["-dev", ...ports, "-grpc=127.0.0.1:0", "-acl-policies", path], stopping.signal);
    const ask = (resource: string, init: RequestInit = {}) =>
      fetch(`http://${agent.http}${resource}`, { ...init, headers: { "x-consul-token": "web-secret" } });
    const self = (await (await ask("/v1/agent/self")).json()) as { readonly xDS: object };
    const port = Number(agent.grpc.split(":")[1]);
    assert.deepEqual(self.xDS, { SupportedProxies: {}, Port: port, Ports: { Plaintext: port, TLS: -1 } });
    const service = { Name: "web", Port: 80, Connect: { SidecarService: { Port: 21_000 } } };
    const registered = await ask("/v1/agent/service/register", { method: "PUT", body: JSON.stringify(service) });
    assert.equal(registered.status, 200);
    {
      await using stranger = new XdsClient(agent.grpc, { id: "web-sidecar-proxy" });
      stranger.send("cluster");
      await assert.rejects(stranger.next());
    }
    const listed = (...more: readonly string[]) =>
      runPeerage(["proxies", `-http-addr=${agent.http}`, "-token=web-secret", ...more]);
    assert.match((await listed()).stdout, /no proxy connected/);
    await using proxy = new XdsClient(agent.grpc, { id: "web-sidecar-proxy", token: "web-secret" });
    proxy.send("listener");
    const { nonce } = await proxy.next();
    proxy.send("listener", { responseNonce: nonce, errorDetail: { code: 13, message: "no\u001b[2J such thing" } });
    await eventually(async () => (await listed()).stdout.includes("refused"), "the refusal is listed");
    const { stdout } = await listed();
    assert.match(stdout, /web-sidecar-proxy +n1 +web +connect-proxy +refused/);
    assert.ok(
      stdout.includes("web-sidecar-proxy refused listener public_listener:0.0.0.0:21000: no\\x1b[2J such thing"),
    );
    const [shown] = JSON.parse((await listed("-format=json")).stdout) as readonly Readonly<Record<string, unknown>>[];
    assert.deepEqual(shown?.["Resources"], { secret: 0, cluster: 1, endpoint: 0, listener: 1, route: 0 });
    stopping.abort();
    assert.equal((await agent.result).exit, 0);
  });

  it("is needed for Envoys: without it none are served, and that is said", async () => {
    const stopping = new AbortController();
    const agent = await startAgent(["-dev", ...ports], stopping.signal);
    using client = new ConsulClient({ address: agent.http });
    await assert.rejects(client.connectedProxies(), { status: 501 });
    const self = (await (await fetch(`http://${agent.http}/v1/agent/self`)).json()) as { readonly xDS: object };
    assert.deepEqual(self.xDS, { SupportedProxies: {}, Port: -1, Ports: { Plaintext: -1, TLS: -1 } });
    stopping.abort();
    await agent.result;
  });
});
