import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
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
