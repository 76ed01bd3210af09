import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { allowAll } from "../../../src/access/authorizer.js";
import { policyAuthorizer } from "../../../src/access/policies.js";
import { permittedSource } from "../../../src/dns/source.js";
import { answerOf, instance, responderOf, sourceOf } from "./setup.js";

const web = instance({ node: { name: "n1", address: "10.0.0.1" }, service: { name: "web", port: 80 } });
const source = sourceOf({
  queries: {
    q1: { service: "web", peer: "", instances: [web], ttl: undefined },
    "two.labels": { service: "web", peer: "east", instances: [web], ttl: 4 },
    none: { service: "web", peer: "east", instances: [], ttl: 4 },
  },
});

describe("prepared queries over DNS", () => {
  it("are answered like a service, with a TTL of their own, or that of the service", async () => {
    const responder = responderOf(source, { serviceTtls: { web: 30 } });
    const answers = async (name: string, type = "A"): Promise<readonly string[]> =>
      (await answerOf(responder, { name, type })).answers;
    assert.deepEqual(await answers("q1.query.consul"), ["q1.query.consul 30 A 10.0.0.1"]);
    assert.deepEqual(await answers("q1.query.dc1.consul"), ["q1.query.dc1.consul 30 A 10.0.0.1"]);
    assert.deepEqual(await answers("_q1._tcp.query.consul"), ["_q1._tcp.query.consul 30 A 10.0.0.1"]);
    assert.deepEqual(await answers("two.labels.query.consul"), ["two.labels.query.consul 4 A 10.0.0.1"]);
    assert.deepEqual(await answers("two.labels.query.consul", "SRV"), [
      "two.labels.query.consul 4 SRV 1 1 80 n1.node.east.peer.consul",
    ]);
  });

  it("are NXDOMAIN where there is none, nothing is found, or in another datacenter", async () => {
    const responder = responderOf(source);
    for (const name of ["nope.query.consul", "none.query.consul", "q1.query.elsewhere.consul", "query.consul"]) {
      assert.equal((await answerOf(responder, { name, type: "A" })).code, "NXDOMAIN", name);
    }
  });

  it("show what may be read without a token", async () => {
    const code = async (authorizer: Parameters<typeof permittedSource>[1]): Promise<string> =>
      (await answerOf(responderOf(permittedSource(source, authorizer)), { name: "q1.query.consul", type: "A" })).code;
    assert.equal(await code(allowAll), "NOERROR");
    assert.equal(await code(policyAuthorizer({})), "NXDOMAIN");
  });
});
