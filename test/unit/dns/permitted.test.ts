import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { allowAll } from "../../../src/access/authorizer.js";
import { policyAuthorizer } from "../../../src/access/policies.js";
import { parseAclRules } from "../../../src/access/rules.js";
import { type DnsSource, permittedSource } from "../../../src/dns/source.js";
import { answerOf, instance, responderOf, sourceOf } from "./setup.js";

const source: DnsSource = sourceOf({
  instances: {
    "": [
      instance({ service: { name: "web" } }),
      instance({ service: { name: "web-proxy", connect: { native: true } } }),
      instance({ node: { name: "n2", address: "10.0.0.2" }, service: { name: "web" } }),
      instance({ node: { name: "n2", address: "10.0.0.2" }, service: { name: "db" } }),
    ],
    east: [instance({ node: { name: "e1", address: "10.1.0.1" }, service: { name: "api" } })],
  },
  virtualIps: { "/web": "240.0.0.1", "east/api": "240.0.0.2" },
  owners: {
    "10.0.0.2": { type: "node", name: "n2" },
    "10.0.0.9": { type: "service", name: "web" },
  },
});

/** Addresses and names answered to each of these, where there are any. */
async function seenBy(rules: string, questions: readonly string[]): Promise<Readonly<Record<string, string>>> {
  const authorizer = policyAuthorizer({ anonymous: { rules: parseAclRules(rules) } });
  const responder = responderOf(permittedSource(source, authorizer));
  const seen: Record<string, string> = {};
  for (const name of questions) {
    const type = name.endsWith("in-addr.arpa") ? "PTR" : "A";
    const { answers } = await answerOf(responder, { name, type });
    if (answers.length > 0) seen[name] = answers.map((answer) => answer.split(" ").at(-1)).join(" ");
  }
  return seen;
}

const web = "web.service.consul";
const questions = [
  web,
  "db.service.consul",
  "web.connect.consul",
  "n1.node.consul",
  "n2.node.consul",
  "web.virtual.consul",
  "2.0.0.10.in-addr.arpa",
  "9.0.0.10.in-addr.arpa",
  "api.service.east.peer.consul",
  "api.service.east.consul",
  "e1.node.east.peer.consul",
  "api.virtual.east.peer.consul",
];
const imported = questions.slice(-4);

describe("what DNS answers under rules (2.10, 4.6)", () => {
  it("is nothing where those without a token may read nothing", async () => {
    assert.deepEqual(await seenBy("", questions), {});
    const responder = responderOf(permittedSource(source, policyAuthorizer({})));
    assert.equal((await answerOf(responder, { name: web, type: "A" })).code, "NXDOMAIN");
    assert.equal((await answerOf(responder, { name: web, type: "SRV" })).code, "NXDOMAIN");
  });

  it("takes the right on the service and that on its node", async () => {
    assert.deepEqual(await seenBy('service "web" { policy = "read" }', questions), {
      "web.virtual.consul": "240.0.0.1",
      "9.0.0.10.in-addr.arpa": "web.service.dc1.consul",
    });
    assert.deepEqual(await seenBy('service "web" { policy = "read" } node "n1" { policy = "read" }', questions), {
      [web]: "10.0.0.1",
      "n1.node.consul": "10.0.0.1",
      "web.virtual.consul": "240.0.0.1",
      "9.0.0.10.in-addr.arpa": "web.service.dc1.consul",
    });
    assert.deepEqual(await seenBy('node_prefix "" { policy = "read" }', questions), {
      "n1.node.consul": "10.0.0.1",
      "n2.node.consul": "10.0.0.2",
      "2.0.0.10.in-addr.arpa": "n2.node.dc1.consul",
      "e1.node.east.peer.consul": "10.1.0.1",
    });
  });

  it("of peers is all or nothing, as over HTTP", async () => {
    assert.deepEqual(await seenBy('service "api" { policy = "read" } node "e1" { policy = "read" }', imported), {});
    const everything = Object.fromEntries(
      imported.map((name) => [name, name.includes("virtual") ? "240.0.0.2" : "10.1.0.1"]),
    );
    assert.deepEqual(await seenBy('service "any" { policy = "write" }', imported), everything);
    const all = 'service_prefix "" { policy = "read" }';
    assert.deepEqual(await seenBy(all, imported), { "api.virtual.east.peer.consul": "240.0.0.2" });
    assert.deepEqual(await seenBy(`${all} node_prefix "" { policy = "read" }`, imported), everything);
  });

  it("is all there is where everything is allowed", async () => {
    const [open, cut] = [responderOf(source), responderOf(permittedSource(source, allowAll))];
    for (const name of questions) {
      const question = { name, type: name.endsWith("in-addr.arpa") ? "PTR" : "ANY" };
      const { packet: _, ...expected } = await answerOf(open, question);
      const { packet: __, ...answer } = await answerOf(cut, question);
      assert.deepEqual(answer, expected);
      assert.ok(answer.answers.length > 0, name);
    }
  });
});
