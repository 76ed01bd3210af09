import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ConsulClient } from "../../../src/client/index.js";
import { runPeerage, startAgent } from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";

const ports: readonly string[] = ["-http=127.0.0.1:0", "-grpc-tls=127.0.0.1:0", "-dns=off", "-node=n1"];
const POLICIES = `
default_policy = "deny"
token "operator" {
  secret = "operator-secret"
  rules {
    operator = "read"
    service_prefix "" { policy = "read" }
  }
}
token "writer" {
  secret = "writer-secret"
  rules {
    operator = "write"
    service_prefix "" {
      policy = "write"
      intentions = "write"
    }
    node_prefix "" { policy = "write" }
    agent_prefix "" { policy = "write" }
  }
}
`;

describe("peerage explain connection", () => {
  it("tells each step, and what helps with the first that fails", async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, "policies.hcl");
    await writeFile(path, POLICIES);
    const stopping = new AbortController();
    const agent = await startAgent(["-dev", ...ports, "-acl-policies", path], stopping.signal);
    const run = (...args: readonly string[]) =>
      runPeerage(["explain", "connection", ...args, `-http-addr=${agent.http}`, "-token=operator-secret"]);
    const failing = await run("web", "-source", "client", "-peer", "east");
    assert.equal(failing.exit, 2, failing.stderr);
    assert.match(failing.stdout, /^failed +peering +- +there is no peering "east"$/m);
    assert.match(failing.stdout, /^It fails at peering: there is no peering "east"$/m);
    assert.match(failing.stdout, /^What helps: Generate a token/m);
    const put = async (resource: string, body: unknown): Promise<void> => {
      const headers = { "x-consul-token": "writer-secret" };
      const answer = await fetch(`http://${agent.http}${resource}`, {
        method: "PUT",
        body: JSON.stringify(body),
        headers,
      });
      assert.equal(answer.status, 200, await answer.text());
    };
    await put("/v1/agent/service/register", { Name: "web", Port: 80, Connect: { Native: true } });
    await put("/v1/config", {
      Kind: "service-intentions",
      Name: "web",
      Sources: [{ Name: "client", Action: "allow" }],
    });
    const working = await run("-source=client", "web");
    assert.equal(working.exit, 0, working.stdout + working.stderr);
    assert.match(working.stdout, /^ok +intention +"web" +allowed by its source "client"$/m);
    assert.match(working.stdout, /Nothing that is known here keeps the connection from being made/);
    const denied = await run("web", "-source=other", "-format=json");
    assert.equal(denied.exit, 2);
    const { Failed: failed } = JSON.parse(denied.stdout) as { readonly Failed: Readonly<Record<string, string>> };
    assert.equal(failed["Part"], "intention");
    for (const [args, why] of [
      [["web"], /Missing the required -source flag/],
      [["-source=a"], /Exactly one destination is required/],
      [["-source=a", "web", "db"], /Exactly one destination is required/],
      [
        ["-source=a", "web", "-peer=b", "-source-peer=c"],
        /calls from one peer to another do not come through this cluster/,
      ],
      [["-source=a", "web", "-path=x"], /is no path of a request/],
    ] as const) {
      const { exit, stderr } = await run(...args);
      assert.equal(exit, 1, args.join(" "));
      assert.match(stderr, why);
    }
    using client = new ConsulClient({ address: agent.http, token: "writer-secret" });
    const explained = await client.explainConnection({ source: "client", destination: "web" });
    assert.equal(explained["Failed"], null);
    stopping.abort();
    await agent.result;
  });
});
