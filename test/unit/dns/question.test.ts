import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Lookup, type NameSettings, parseName } from "../../../src/dns/question.js";

const settings: NameSettings = {
  domains: ["consul"],
  datacenter: "dc1",
  bareLabelIsPeer: true,
  isPeering: (name) => name === "p" || name === "dc1",
};
const strict: NameSettings = { ...settings, bareLabelIsPeer: false };

function lookup(name: string, type = "A", using: NameSettings = settings): Lookup {
  const parsed = parseName(`${name}.consul`, type, using);
  assert.ok(parsed.type === "inside");
  return parsed.lookup;
}

const local = { type: "local" } as const;
const elsewhere = { type: "elsewhere" } as const;
const p = { type: "peer", peer: "p" } as const;
const web = { type: "service", service: "web", tag: undefined, port: undefined } as const;
const malformed = { type: "malformed" } as const;

describe("names", () => {
  it("a bare label is a peering's name, unless it is our datacenter's, or names are strict (ch4 case 69)", () => {
    assert.deepEqual(lookup("web.service.p"), { ...web, scope: p });
    assert.deepEqual(lookup("n1.node.p"), { type: "node", node: "n1", scope: p });
    assert.deepEqual(lookup("web.service.dc1"), { ...web, scope: local });
    assert.deepEqual(lookup("web.service.unknown"), { ...web, scope: elsewhere });
    assert.deepEqual(lookup("web.service.p", "A", strict), { ...web, scope: elsewhere });
    assert.deepEqual(lookup("n1.node.p", "A", strict), { type: "node", node: "n1", scope: elsewhere });
    // Neither has ever been looked up at a peer.
    assert.deepEqual(lookup("web.connect.p"), { type: "connect", service: "web", scope: elsewhere });
  });

  it("reads each suffix as Consul does (ch4 case 71)", () => {
    assert.deepEqual(lookup("web.service"), { ...web, scope: local });
    assert.deepEqual(lookup("web.service.dc1.dc"), { ...web, scope: local });
    assert.deepEqual(lookup("web.service.dc2.dc"), { ...web, scope: elsewhere });
    assert.deepEqual(lookup("web.service.p.peer"), { ...web, scope: p });
    assert.deepEqual(lookup("web.service.unknown.peer"), { ...web, scope: { type: "peer", peer: "unknown" } });
    assert.deepEqual(lookup("web.service.q.peer.p.peer"), { ...web, scope: p });
    assert.deepEqual(lookup("web.virtual.p"), { type: "virtual", service: "web", peer: "p" });
    assert.deepEqual(lookup("web.virtual.p.peer"), { type: "virtual", service: "web", peer: "p" });
    assert.deepEqual(lookup("web.virtual"), { type: "virtual", service: "web", peer: "" });
    for (const suffix of [
      "p.peer.dc1.dc",
      "dc1.dc.p.peer",
      "default.ns",
      "default.ap",
      "g.sg",
      "a.b.c",
      "a.peer.b",
      "x.peer.y.peer.z",
    ]) {
      assert.deepEqual(lookup(`web.service.${suffix}`), malformed, suffix);
    }
    for (const name of ["service", "p.peer", "peer", "web", "service.p.peer"])
      assert.deepEqual(lookup(name), malformed, name);
  });

  it("name one of several ports, beside or without a datacenter or a peer", () => {
    const http = { ...web, port: "http" };
    assert.deepEqual(lookup("_web._tcp.service.HTTP.port", "SRV"), { ...http, scope: local });
    assert.deepEqual(lookup("web.service.dc1.dc.http.port"), { ...http, scope: local });
    assert.deepEqual(lookup("web.service.http.port.dc2.dc"), { ...http, scope: elsewhere });
    assert.deepEqual(lookup("web.service.p.peer.http.port"), { ...http, scope: p });
    assert.deepEqual(lookup("web.service.http.port.p.peer"), { ...http, scope: p });
    assert.deepEqual(lookup("n1.node.http.port"), { type: "node", node: "n1", scope: local });
    for (const suffix of ["p.peer.dc1.dc.http.port", "http.port.x", "a.port.b.port.c.port.d.port"]) {
      assert.deepEqual(lookup(`web.service.${suffix}`), malformed, suffix);
    }
  });

  it("reads tags with dots, and RFC 2782 with and without `service`, `_tcp` (ch4 case 72)", () => {
    assert.deepEqual(lookup("a.b.web.service"), { ...web, tag: "a.b", scope: local });
    assert.deepEqual(lookup("_web._v1.service"), { ...web, tag: "v1", scope: local });
    assert.deepEqual(lookup("_web._tcp.service.p.peer"), { ...web, scope: p });
    assert.deepEqual(lookup("_web._v1", "SRV"), { ...web, tag: "v1", scope: local });
    assert.deepEqual(lookup("_web._tcp.p.peer", "SRV"), { ...web, scope: p });
    assert.deepEqual(lookup("_web._tcp", "A"), malformed);
  });

  it("of nodes may hold dots; connect and ingress take the last label; a query is of no peer", () => {
    assert.deepEqual(lookup("n1.rack.node"), { type: "node", node: "n1.rack", scope: local });
    assert.deepEqual(lookup("x.web.connect.p.peer"), { type: "connect", service: "web", scope: local });
    assert.deepEqual(lookup("web.ingress"), { type: "ingress", service: "web", scope: { type: "local" } });
    for (const name of ["q.query", "_q._tcp.query", "q.query.p.peer"]) {
      assert.deepEqual(lookup(name), { type: "query", query: "q", scope: local });
    }
    assert.deepEqual(lookup("a.b.query"), { type: "query", query: "a.b", scope: local });
  });

  it("below addr stand for the address in them, whatever follows", () => {
    assert.deepEqual(lookup("0a000001.addr"), { type: "addr", hex: "0a000001" });
    assert.deepEqual(lookup("0a000001.addr.what.ever"), { type: "addr", hex: "0a000001" });
    assert.deepEqual(lookup("x.0a000001.addr"), malformed);
  });

  it("keep the domain as it was spelled, and belong to the longest that fits", () => {
    const two = { ...settings, domains: ["consul", "eu.consul"] };
    const parsed = parseName("WEB.Service.Eu.Consul", "A", two);
    assert.deepEqual(parsed, {
      type: "inside",
      domain: "Eu.Consul",
      zone: "eu.consul",
      lookup: { ...web, scope: local },
    });
    assert.deepEqual(parseName("web.notconsul", "A", settings), { type: "outside" });
    assert.deepEqual(parseName(".", "A", settings), { type: "outside" });
  });

  it("in reverse give the address, or none when they are not a whole one", () => {
    assert.deepEqual(parseName("4.3.2.1.in-addr.arpa", "PTR", settings), { type: "reverse", address: "1.2.3.4" });
    assert.deepEqual(parseName("3.2.1.in-addr.arpa", "PTR", settings), { type: "reverse", address: undefined });
    const nibbles = `${"1.".repeat(31)}2.ip6.arpa`;
    const parsed = parseName(nibbles, "PTR", settings);
    assert.deepEqual(parsed, { type: "reverse", address: "2111:1111:1111:1111:1111:1111:1111:1111" });
  });
});
