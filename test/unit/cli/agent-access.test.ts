import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { ConsulClient } from "../../../src/client/index.js";
import { type CommandLineWorld, runPeerage, startAgent } from "../../support/command-line.js";
import { temporaryDirectory } from "../../support/hosts.js";
import { ask } from "../dns/client.js";

const ports: readonly string[] = ["-http=127.0.0.1:0", "--grpc-tls", "127.0.0.1:0", "-dns=127.0.0.1:0"];
const SECRET = "6f1e3d8a-operator";

const POLICIES = `
policy "reader" {
  service_prefix "" { policy = "read" }
  node_prefix ""    { policy = "read" }
}
token "operator" {
  secret   = "${SECRET}"
  policies = ["reader"]
  rules {
    peering = "write"
    service_prefix "" { policy = "write" }
    node_prefix "" { policy = "write" }
  }
}
anonymous {
  policies = ["reader"]
}
`;

async function fileOf(directory: { readonly path: string }, name: string, text: string): Promise<string> {
  const path = join(directory.path, name);
  await writeFile(path, text);
  return path;
}

const ANONYMOUS = /Permission denied: anonymous token lacks permission 'peering:read'/;

describe("peerage agent -acl-policies", () => {
  it("serves each caller as its token allows, over HTTP, calls, command line and DNS", async () => {
    await using directory = await temporaryDirectory();
    const stopping = new AbortController();
    const path = await fileOf(directory, "policies.hcl", POLICIES);
    const agent = await startAgent(["-dev", ...ports, "-acl-policies", path], stopping.signal);
    using operator = new ConsulClient({ address: agent.http, token: SECRET });
    using nobody = new ConsulClient({ address: agent.http });
    using stranger = new ConsulClient({ address: agent.http, token: "stranger" });
    const web = { Node: "n1", Address: "10.0.0.1", Service: { Service: "web", Port: 80 } };
    await assert.rejects(nobody.catalog.register(web), /lacks permission 'service:write' on "web"/);
    await assert.rejects(stranger.catalog.register(web), /ACL not found/);
    await operator.catalog.register(web);
    assert.equal((await nobody.health.service("web")).value.length, 1);
    await assert.rejects(nobody.peerings.list(), ANONYMOUS);
    await operator.peerings.generateToken({ peerName: "west" });
    assert.deepEqual(
      (await operator.peerings.list()).value.map(({ Name }) => Name),
      ["west"],
    );

    const environment = { CONSUL_HTTP_ADDR: agent.http };
    const denied = await runPeerage(["peering", "list"], { environment });
    assert.equal(denied.exit, 1);
    assert.match(denied.stderr, ANONYMOUS);
    const listed = await runPeerage(["peering", "list", "-token", SECRET], { environment });
    assert.match(listed.stdout, /\nwest /);

    const called = await fetch(`http://${agent.http}/hashicorp.consul.internal.peering.PeeringService/PeeringList`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: "{}",
    });
    assert.match(await called.text(), ANONYMOUS);

    const { answers } = await ask(agent.dns, { name: "web.service.consul", type: "A" });
    assert.deepEqual(answers, ["web.service.consul 0 A 10.0.0.1"]);
    stopping.abort();
    const { exit, stderr } = await agent.result;
    assert.equal(exit, 0);
    assert.ok(!stderr.includes(SECRET));
  });

  it("answers DNS no more than those without a token may read", async () => {
    await using directory = await temporaryDirectory();
    const stopping = new AbortController();
    const closed = POLICIES.slice(0, POLICIES.indexOf("anonymous"));
    const path = await fileOf(directory, "policies.hcl", closed);
    const agent = await startAgent(["-dev", ...ports, "-acl-policies", path], stopping.signal);
    using operator = new ConsulClient({ address: agent.http, token: SECRET });
    await operator.catalog.register({ Node: "n1", Address: "10.0.0.1", Service: { Service: "web", Port: 80 } });
    assert.equal((await operator.health.service("web")).value.length, 1);
    const { code, answers } = await ask(agent.dns, { name: "web.service.consul", type: "A" });
    assert.deepEqual([code, answers], ["NXDOMAIN", []]);
    stopping.abort();
    assert.equal((await agent.result).exit, 0);
  });

  it("takes the file from the environment and from the configuration, and reads JSON", async () => {
    await using directory = await temporaryDirectory();
    const digest = createHash("sha256").update(SECRET).digest("hex");
    const path = await fileOf(
      directory,
      "policies.json",
      JSON.stringify({ token: { operator: { secret_sha256: digest, rules: { operator: "read" } } } }),
    );
    const config = await fileOf(directory, "agent.json", JSON.stringify({ acl_policies: path }));
    for (const environment of [{ PEERAGE_ACL_POLICIES: path }, { PEERAGE_CONFIG: config }]) {
      const stopping = new AbortController();
      const agent = await startAgent(["-dev", ...ports], stopping.signal, { environment });
      using operator = new ConsulClient({ address: agent.http, token: SECRET });
      using nobody = new ConsulClient({ address: agent.http });
      assert.deepEqual((await operator.peerings.list()).value, []);
      await assert.rejects(nobody.peerings.list(), ANONYMOUS);
      stopping.abort();
      assert.equal((await agent.result).exit, 0);
    }
  });

  const wrong: readonly (readonly [string, string, RegExp])[] = [
    ["an invalid rule", 'policy "a" {\n  servcie "web" {}\n}', /At line 2: unknown rule "servcie"\n$/],
    ["a token without a secret", 'token "a" {\n}', /At line 1: token "a" has neither secret nor secret_sha256\n$/],
    ["invalid HCL", `token "a" {\n  secret "${SECRET}"\n}`, /At 3:1: a key needs '=' or '\{', got "\}"\n$/],
    ["invalid JSON", `{\n"token": {"a": {"secret": "${SECRET}",}}}`, /At 2:\d+: invalid character '\}' looking for/],
  ];
  for (const [what, text, expected] of wrong) {
    it(`refuses ${what} with exit code 1, the file, the line, and no secret`, async () => {
      await using directory = await temporaryDirectory();
      const path = await fileOf(directory, "policies.hcl", text);
      const { exit, stdout, stderr } = await refused({}, `-acl-policies=${path}`);
      assert.deepEqual([exit, stdout], [1, ""]);
      assert.ok(stderr.startsWith(`Error reading the ACL policies ${path}: `), stderr);
      assert.match(stderr, expected);
      assert.ok(!stderr.includes(SECRET), stderr);
    });
  }

  it("refuses a file that is not there", async () => {
    const { exit, stderr } = await refused({ environment: { PEERAGE_ACL_POLICIES: "/nowhere.hcl" } });
    assert.equal(exit, 1);
    assert.match(stderr, /^Error reading the ACL policies \/nowhere\.hcl: ENOENT/);
  });
});

/** An agent that would be told to stop at once, if it started. */
function refused(world: CommandLineWorld, ...args: readonly string[]): ReturnType<typeof runPeerage> {
  return runPeerage(["agent", "-dev", ...ports, ...args], { signal: AbortSignal.abort(), ...world });
}
