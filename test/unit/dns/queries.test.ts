import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Answer, decode, encode } from "dns-packet";
import { allowAll } from "../../../src/access/authorizer.js";
import { policyAuthorizer } from "../../../src/access/policies.js";
import { permittedSource } from "../../../src/dns/source.js";
import { query } from "./client.js";
import { answerOf, instance, originOf, responderOf, sourceOf } from "./setup.js";

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

  it("order instances as the source says, which gets the address of the client, or of the one a resolver asks for", async () => {
    const asked: string[] = [];
    const instances = ["n1", "n2", "n3", "n4"].map((name, index) =>
      instance({ node: { name, address: `10.0.0.${index + 1}` }, service: { name: "web", port: 80 } }),
    );
    const responder = responderOf({
      ...sourceOf({}),
      query: async (_, from) => {
        asked.push(from);
        return { service: "web", peer: "", instances, ttl: 0, near: "N3" };
      },
    });
    const packet = query({ name: "q.query.consul", type: "A" });
    for (let count = 0; count < 8; count++) {
      const reply = await responder.respond(packet, { transport: "udp", from: "[::ffff:10.0.0.9]:5353" });
      const { answers = [] } = decode(reply ?? Buffer.alloc(0));
      assert.equal(Object(answers[0]).data, "10.0.0.3");
    }
    await responder.respond(packet, { transport: "tcp", from: "[fd00::1]:99" });
    for (const [family, ip] of [
      [1, "192.0.2.7"],
      [2, "2001:db8::5"],
    ] as const) {
      const option = { type: "CLIENT_SUBNET", code: 8, family, sourcePrefixLength: family === 1 ? 32 : 128, ip };
      const opt = { type: "OPT", name: ".", udpPayloadSize: 1_232, flags: 0, options: [option] };
      const additionals = [opt] as unknown as Answer[];
      const questions = [{ name: "q.query.consul", type: "A" as const }];
      await responder.respond(encode({ type: "query", id: 1, flags: 256, questions, additionals }), originOf("udp"));
    }
    assert.deepEqual(asked.slice(7), ["10.0.0.9", "fd00::1", "192.0.2.7", "2001:db8::5"]);
  });

  it("are NXDOMAIN where there is none, nothing is found, or in another datacenter", async () => {
    const responder = responderOf(source);
    for (const name of ["nope.query.consul", "none.query.consul", "q1.query.elsewhere.consul", "query.consul"]) {
      assert.equal((await answerOf(responder, { name, type: "A" })).code, "NXDOMAIN", name);
    }
  });

  it("show the records that may be read without a token", async () => {
    const code = async (authorizer: Parameters<typeof permittedSource>[1]): Promise<string> =>
      (await answerOf(responderOf(permittedSource(source, authorizer)), { name: "q1.query.consul", type: "A" })).code;
    assert.equal(await code(allowAll), "NOERROR");
    assert.equal(await code(policyAuthorizer({})), "NXDOMAIN");
  });
});
