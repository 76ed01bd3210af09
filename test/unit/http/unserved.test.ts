import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { parseAclPolicies, policyAuthorizer } from "../../../src/access/policies.js";
import { createHost } from "../../../src/host/host.js";
import type { HttpHandlerOptions } from "../../../src/http/index.js";
import { operations } from "../../../src/http/routes.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { type ServedHost, serve } from "../../support/http-pair.js";

async function alone(options: HttpHandlerOptions = {}): Promise<ServedHost> {
  const host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport({}) });
  return serve(host, options);
}

describe("parts of Consul's API that this library does not serve", () => {
  const clock = testClock();
  let served: ServedHost;
  before(async () => {
    served = await alone({ clock });
  });
  after(() => served[Symbol.asyncDispose]());

  const reads: readonly (readonly [string, number, string])[] = [
    ["/v1/kv/a/b", 404, ""],
    ["/v1/kv/?recurse", 404, ""],
    ["/v1/kv/a?keys&separator=/", 404, ""],
    ["/v1/session/list", 200, "[]"],
    ["/v1/session/info/x", 200, "[]"],
    ["/v1/session/node/x", 200, "[]"],
    ["/v1/event/list?name=x", 200, "[]"],
    ["/v1/coordinate/datacenters", 200, "[]"],
    ["/v1/coordinate/nodes", 200, "[]"],
    ["/v1/coordinate/node/x", 404, ""],
  ];
  for (const [path, status, text] of reads) {
    it(`${path} answers as an empty store does, and waits as it is asked to`, async () => {
      const first = await served.ask("GET", path);
      assert.deepEqual([first.status, first.text, first.headers["x-consul-index"]], [status, text, "1"]);
      let answered = false;
      const waiting = served.ask("GET", `${path}${path.includes("?") ? "&" : "?"}index=1&wait=10s`).then((answer) => {
        answered = true;
        return answer;
      });
      // A call that comes later has been answered by then, so that this one waits.
      await served.ask("GET", path);
      await clock.advance(9_999);
      await served.ask("GET", path);
      assert.equal(answered, false);
      await clock.advance(10_000);
      assert.deepEqual([(await waiting).status, (await waiting).text], [status, text]);
    });
  }

  it("a key without a name is refused as by Consul", async () => {
    const answer = await served.ask("GET", "/v1/kv/");
    assert.deepEqual([answer.status, answer.text], [400, "Missing key name"]);
  });

  const writes: readonly (readonly [string, string, string])[] = [
    ["PUT", "/v1/kv/a", "The key-value store is not served by this agent."],
    ["DELETE", "/v1/kv/a?recurse", "The key-value store is not served by this agent."],
    ["PUT", "/v1/session/create", "Sessions are not served by this agent."],
    ["PUT", "/v1/session/destroy/x", "Sessions are not served by this agent."],
    ["PUT", "/v1/session/renew/x", "Sessions are not served by this agent."],
    ["PUT", "/v1/event/fire/x", "Events are not served by this agent."],
    ["PUT", "/v1/snapshot", "Snapshots are not served by this agent."],
    ["GET", "/v1/operator/keyring", "This part of the operator API is not served by this agent."],
    ["PUT", "/v1/agent/join/10.0.0.1", "Gossip and its members are not served by this agent."],
  ];
  for (const [method, path, text] of writes) {
    it(`${method} ${path} is refused with 501`, async () => {
      const answer = await served.ask(method, path);
      assert.deepEqual([answer.status, answer.text], [501, text]);
    });
  }

  it("parts of the operator API that only Consul's enterprise edition has are not found, as in the other", async () => {
    for (const [method, path] of [
      ["PUT", "license"],
      ["POST", "area"],
      ["GET", "area/x/members"],
      ["GET", "segment"],
    ] as const) {
      const { status, text } = await served.ask(method, `/v1/operator/${path}`);
      assert.deepEqual([status, text.trim()], [404, "Invalid URL path: not a recognized HTTP API endpoint"]);
    }
  });

  it("no path that writes and is not served answers as if it had been done, or as if nothing were there", async () => {
    for (const { method, pattern } of operations.filter((each) => each.unserved === true && each.method !== "GET")) {
      const { status } = await served.ask(method, `${pattern}${pattern.endsWith("/") ? "x" : ""}`);
      assert.ok(status === 501 || status === 401, `${method} ${pattern}: ${status}`);
    }
  });

  it("ACLs are off without a policy file, and not changed over HTTP with one", async () => {
    const off = await served.ask("GET", "/v1/acl/tokens");
    assert.deepEqual([off.status, off.text], [401, "ACL support disabled"]);
    const authorizer = policyAuthorizer(parseAclPolicies('default_policy = "deny"'));
    await using guarded = await alone({ authorizer });
    assert.equal((await guarded.ask("PUT", "/v1/acl/token")).status, 501);
    const key = await guarded.ask("GET", "/v1/kv/a");
    assert.deepEqual([key.status, /lacks permission 'key:read' on "a"/.test(key.text)], [403, true]);
  });
});
