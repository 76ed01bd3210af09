import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import type { DnsSource } from "../../../src/dns/index.js";
import { type Asked, query } from "./client.js";
import { answerOf, instance, originOf, type ResponderInput, responderOf, type SourceInput, sourceOf } from "./setup.js";

const SOA = "consul 0 SOA ns.consul hostmaster.consul time 3600 600 86400 0";
const WEB = "web.service.p.peer.consul";

async function asked(input: SourceInput, name: string, type: string, settings: ResponderInput = {}): Promise<Asked> {
  return answerOf(responderOf(sourceOf(input), settings), { name, type });
}

describe("DNS answers", () => {
  it("answers A, AAAA, SRV, ANY and TXT for a peer's service; the owner keeps the asker's case (ch4 case 67)", async () => {
    const input = {
      instances: { p: [instance({ service: { name: "web", port: 8_080, weights: { passing: 3, warning: 1 } } })] },
    };
    const plain = { code: "NOERROR", flags: "aa rd", authorities: [], additionals: [] };
    for (const type of ["A", "ANY", "TXT"]) {
      const { packet: _, ...answer } = await asked(input, WEB, type);
      assert.deepEqual(answer, { ...plain, answers: [`${WEB} 0 A 10.0.0.1`] }, type);
    }
    const { packet: _, ...none } = await asked(input, WEB, "AAAA");
    assert.deepEqual(none, { ...plain, answers: [], authorities: [SOA] });
    const { packet: __, ...srv } = await asked(input, WEB, "SRV");
    const target = "n1.node.p.peer.consul";
    assert.deepEqual(srv, {
      ...plain,
      answers: [`${WEB} 0 SRV 1 3 8080 ${target}`],
      additionals: [`${target} 0 A 10.0.0.1`],
    });
    const upper = await asked(input, "WEB.Service.P.Peer.CONSUL", "SRV");
    assert.deepEqual(upper.answers, ["WEB.Service.P.Peer.CONSUL 0 SRV 1 3 8080 n1.node.p.peer.CONSUL"]);
  });

  it("SRV of a named port, which every instance has; addresses are those of the service whatever the port", async () => {
    const ports = [
      { name: "http", port: 8_080, default: true },
      { name: "Metrics", port: 9_090, default: false },
    ];
    const input = {
      instances: {
        p: [
          instance({ service: { name: "web", port: 8_080, ports } }),
          instance({ service: { name: "one", port: 80 } }),
          instance({ service: { name: "mixed", port: 8_080, ports } }),
          instance({ node: { name: "n2" }, service: { name: "mixed", port: 80 } }),
        ],
      },
    };
    const srv = async (service: string, suffix: string): Promise<readonly string[] | string> => {
      const { code, answers } = await asked(input, `_${service}._tcp.service.p.peer${suffix}.consul`, "SRV");
      return code === "NOERROR" ? answers.map((answer) => answer.split(" ")[5] ?? "") : code;
    };
    assert.deepEqual(await srv("web", ""), ["8080"]);
    assert.deepEqual(await srv("web", ".http.port"), ["8080"]);
    assert.deepEqual(await srv("web", ".metrics.port"), ["9090"]);
    assert.equal(await srv("web", ".nope.port"), "NXDOMAIN");
    assert.equal(await srv("one", ".http.port"), "NXDOMAIN");
    assert.equal(await srv("mixed", ".http.port"), "NXDOMAIN");
    const { answers } = await asked(input, "web.service.p.peer.nope.port.consul", "A");
    assert.equal(answers.length, 1);
  });

  it("SRV targets are the service's address, the node's name, or the name it goes by (ch4 case 68)", async () => {
    const input = {
      instances: {
        p: [
          instance({
            node: { name: "n1", meta: { rack: "r1" } },
            service: { name: "web", address: "10.9.0.1", port: 1 },
          }),
          instance({ node: { name: "n2", address: "fd00::2" }, service: { name: "web", port: 2 } }),
          instance({ node: { name: "n3" }, service: { name: "web", address: "db.example.com", port: 3 } }),
          instance({ node: { name: "n4" }, service: { name: "web", address: "api.service.consul", port: 4 } }),
          instance({ node: { name: "n5", address: "" }, service: { name: "web", port: 5 } }),
        ],
        "": [instance({ node: { name: "l1", address: "10.2.0.1" }, service: { name: "api" } })],
      },
    };
    const { answers, additionals } = await answerOf(responderOf(sourceOf(input)), {
      name: WEB,
      type: "SRV",
      edns: 4_096,
    });
    assert.deepEqual(answers, [
      `${WEB} 0 SRV 1 1 1 0a090001.addr.consul`,
      `${WEB} 0 SRV 1 1 2 n2.node.p.peer.consul`,
      `${WEB} 0 SRV 1 1 3 db.example.com`,
      `${WEB} 0 SRV 1 1 4 api.service.consul`,
    ]);
    assert.deepEqual(additionals, [
      ".  OPT 4096",
      "0a090001.addr.consul 0 A 10.9.0.1",
      "api.service.consul 0 A 10.2.0.1",
      'n1.node.p.peer.consul 0 TXT "rack=r1"',
      "n2.node.p.peer.consul 0 AAAA fd00::2",
    ]);
    const own = await asked(
      { instances: { "": [instance({ service: { name: "web", address: "10.9.0.1" } })] } },
      "web.service.consul",
      "SRV",
    );
    assert.deepEqual(own.answers, ["web.service.consul 0 SRV 1 1 80 0a090001.addr.dc1.consul"]);
  });

  it("a bare peer name is answered, and NXDOMAIN when strict; our own datacenter comes first (ch4 case 69)", async () => {
    const input = {
      instances: {
        p: [instance({ node: { address: "10.1.0.1" }, service: { name: "web" } })],
        dc1: [instance({ node: { address: "10.6.6.6" }, service: { name: "web" } })],
        "": [instance({ node: { address: "10.2.0.1" }, service: { name: "web" } })],
      },
    };
    assert.deepEqual((await asked(input, "web.service.p.consul", "A")).answers, ["web.service.p.consul 0 A 10.1.0.1"]);
    assert.deepEqual((await asked(input, "n1.node.p.consul", "A")).answers, ["n1.node.p.consul 0 A 10.1.0.1"]);
    const strict = await asked(input, "web.service.p.consul", "A", { bareLabelIsPeer: false });
    assert.deepEqual([strict.code, strict.authorities], ["NXDOMAIN", [SOA]]);
    assert.deepEqual((await asked(input, "web.service.dc1.consul", "A")).answers, [
      "web.service.dc1.consul 0 A 10.2.0.1",
    ]);
  });

  it("both forms of a virtual name are the same; an unknown one is NOERROR without SOA (ch4 case 70)", async () => {
    const input = { instances: { p: [] }, virtualIps: { "p/web": "240.0.0.7", "/web": "240.0.0.8" } };
    for (const name of ["web.virtual.p.consul", "web.virtual.p.peer.consul"]) {
      for (const type of ["A", "AAAA", "SRV"])
        assert.deepEqual((await asked(input, name, type)).answers, [`${name} 0 A 240.0.0.7`]);
    }
    assert.deepEqual((await asked(input, "WEB.virtual.consul", "A")).answers, ["web.virtual.consul 0 A 240.0.0.8"]);
    const { code, answers, authorities } = await asked(input, "nope.virtual.p.consul", "A");
    assert.deepEqual([code, answers, authorities], ["NOERROR", [], []]);
  });

  it("tags are looked for whatever their case (ch4 case 72)", async () => {
    const input = { instances: { p: [instance({ service: { name: "web", tags: ["A.b"] } })] } };
    const name = "a.B.web.service.p.peer.consul";
    assert.deepEqual((await asked(input, name, "A")).answers, [`${name} 0 A 10.0.0.1`]);
    assert.equal((await asked(input, "b.web.service.p.peer.consul", "A")).code, "NXDOMAIN");
    assert.equal((await asked(input, "_web._tcp.p.peer.consul", "SRV")).answers.length, 1);
  });

  it("neither maintenance nor critical is answered, and other states are unless only passing is wanted (ch4 case 73)", async () => {
    const at = (address: string, ...checks: readonly string[]): ReturnType<typeof instance> =>
      instance({ node: { name: address, address }, service: { name: "web" }, checks });
    const input = {
      instances: {
        p: [
          at("10.0.0.1", "maintenance"),
          at("10.0.0.2", "critical", "passing"),
          at("10.0.0.3", "warning"),
          at("10.0.0.4"),
        ],
      },
    };
    const all = await asked(input, WEB, "A", { udpAnswerLimit: 8 });
    assert.deepEqual(all.answers, [`${WEB} 0 A 10.0.0.3`, `${WEB} 0 A 10.0.0.4`]);
    const passing = await asked(input, WEB, "A", { onlyPassing: true });
    assert.deepEqual(passing.answers, [`${WEB} 0 A 10.0.0.4`]);
  });

  it("weights follow the worst status; 1 for an unknown status, 0 for a maintenance check (ch4 case 74)", async () => {
    const weights = { passing: 10, warning: 5 };
    const cases: readonly (readonly [Parameters<typeof instance>[0]["checks"], number])[] = [
      [[], 10],
      [["passing"], 10],
      [["passing", "warning"], 5],
      [["weird", "warning"], 1],
      [[{ checkId: "_node_maintenance", status: "passing" }], 0],
    ];
    for (const [checks, weight] of cases) {
      const input = { instances: { p: [instance({ service: { name: "web", weights }, checks: checks ?? [] })] } };
      const { answers } = await asked(input, WEB, "SRV");
      assert.deepEqual(answers, [`${WEB} 0 SRV 1 ${weight} 80 n1.node.p.peer.consul`]);
    }
  });

  it("TTLs are those of the name, of the longest prefix, of `*`, or 0; nodes, virtual IPs and addr have their own (ch4 case 75)", async () => {
    const of = async (serviceTtls: Readonly<Record<string, number>>): Promise<readonly string[]> => {
      const input = { instances: { p: [instance({ service: { name: "web" } })] } };
      return (await asked(input, WEB, "A", { serviceTtls, nodeTtl: 9 })).answers;
    };
    assert.deepEqual(await of({ Web: 1, "we*": 2, "*": 3 }), [`${WEB} 1 A 10.0.0.1`]);
    assert.deepEqual(await of({ "w*": 1, "we*": 2, "*": 3, "x*": 4 }), [`${WEB} 2 A 10.0.0.1`]);
    assert.deepEqual(await of({ "*": 3, api: 4 }), [`${WEB} 3 A 10.0.0.1`]);
    assert.deepEqual(await of({}), [`${WEB} 0 A 10.0.0.1`]);
    const input = { instances: { p: [instance({ service: { name: "web" } })] }, virtualIps: { "p/web": "240.0.0.7" } };
    for (const name of ["n1.node.p.peer.consul", "web.virtual.p.consul", "0a000001.addr.consul"]) {
      const { answers } = await asked(input, name, "A", { serviceTtls: { "*": 3 }, nodeTtl: 9 });
      assert.match(answers[0] ?? "", / 9 A /, name);
    }
  });

  it("answers WAN addresses of a peer's service always, of a node when it is of another datacenter (ch4 case 76)", async () => {
    const wan = { wan: { address: "198.51.100.22", port: 9_081 }, wan_ipv4: { address: "198.51.100.23", port: 0 } };
    const service = { name: "web", address: "10.9.0.1", port: 81, taggedAddresses: wan };
    const node = (datacenter: string) => ({ datacenter, taggedAddresses: { wan: "203.0.113.1" } });
    const on = { translateWanAddresses: true };
    const input = {
      instances: { p: [instance({ node: node("dc1"), service })], "": [instance({ node: node("dc1"), service })] },
    };
    assert.deepEqual((await asked(input, WEB, "SRV", on)).answers, [`${WEB} 0 SRV 1 1 9081 c6336417.addr.consul`]);
    assert.deepEqual((await asked(input, WEB, "A", on)).answers, [`${WEB} 0 A 198.51.100.23`]);
    assert.deepEqual((await asked(input, WEB, "A")).answers, [`${WEB} 0 A 10.9.0.1`]);
    assert.deepEqual((await asked(input, "web.service.consul", "A", on)).answers, ["web.service.consul 0 A 10.9.0.1"]);
    const nodes = (datacenter: string) => ({
      instances: { p: [instance({ node: node(datacenter), service: { name: "web" } })] },
    });
    assert.deepEqual((await asked(nodes("dc1"), WEB, "SRV", on)).answers, [
      `${WEB} 0 SRV 1 1 80 n1.node.p.peer.consul`,
    ]);
    const translated = await asked(nodes("dc9"), WEB, "SRV", on);
    assert.deepEqual(translated.answers, [`${WEB} 0 SRV 1 1 80 cb007101.addr.consul`]);
    assert.deepEqual(translated.additionals, ["cb007101.addr.consul 0 A 203.0.113.1"]);
  });

  it("of another datacenter: addresses of the family before `wan`, which alone has a port, and `lan` where it has no `wan`", async () => {
    const service = (
      taggedAddresses: Readonly<Record<string, { readonly address: string; readonly port: number }>>,
    ) => ({
      instances: {
        p: [instance({ service: { name: "web", address: "10.9.0.1", port: 81, taggedAddresses } })],
      },
    });
    const on = { translateWanAddresses: true };
    const wan = { address: "198.51.100.22", port: 9_081 };
    const lan = { lan_ipv4: { address: "10.9.9.9", port: 70 }, wan };
    assert.deepEqual((await asked(service(lan), WEB, "A", on)).answers, [`${WEB} 0 A 10.9.9.9`]);
    assert.deepEqual((await asked(service(lan), WEB, "SRV", on)).answers, [
      `${WEB} 0 SRV 1 1 9081 0a090909.addr.consul`,
    ]);
    const family = { wan_ipv4: { address: "198.51.100.23", port: 9_999 } };
    assert.deepEqual((await asked(service(family), WEB, "SRV", on)).answers, [
      `${WEB} 0 SRV 1 1 81 c6336417.addr.consul`,
    ]);
    assert.deepEqual((await asked(service(family), WEB, "A")).answers, [`${WEB} 0 A 10.9.0.1`]);
  });

  it("answers 100 instances: 3 over UDP, more with EDNS, all over TCP; TC only when it is enabled (ch4 case 77)", async () => {
    const many = Array.from({ length: 100 }, (_, index) =>
      instance({ node: { name: `n${index}`, address: `10.3.0.${index}` }, service: { name: "web" } }),
    );
    const source = sourceOf({ instances: { p: many } });
    const responder = responderOf(source);
    for (const type of ["A", "SRV"]) {
      const plain = await answerOf(responder, { name: WEB, type });
      assert.deepEqual([plain.answers.length, plain.flags], [3, "aa rd"]);
      assert.equal(plain.additionals.length, type === "SRV" ? 3 : 0);
      const edns = await answerOf(responder, { name: WEB, type, edns: 1_232 });
      assert.ok(edns.answers.length > 3 && edns.answers.length < 100 && edns.packet.length <= 1_232);
      const tcp = await answerOf(responder, { name: WEB, type, transport: "tcp" });
      assert.equal(tcp.answers.length, 100);
      const cut = await answerOf(responderOf(source, { enableTruncate: true }), { name: WEB, type });
      assert.equal(cut.flags, "aa tc rd");
      const whole = await answerOf(responderOf(source, { enableTruncate: true }), {
        name: WEB,
        type,
        transport: "tcp",
      });
      assert.equal(whole.flags, "aa rd");
    }
  });

  it("who asks below the other domain is answered below it (ch4 case 78)", async () => {
    const settings: ResponderInput = { domains: ["consul", "alt.example"] };
    const input = { instances: { p: [instance({ service: { name: "web" } })] } };
    const { answers } = await asked(input, "web.service.p.peer.alt.example", "SRV", settings);
    assert.deepEqual(answers, ["web.service.p.peer.alt.example 0 SRV 1 1 80 n1.node.p.peer.alt.example"]);
    const none = await asked(input, "nope.service.p.peer.alt.example", "A", settings);
    assert.deepEqual(none.authorities, [
      "alt.example 0 SOA ns.alt.example hostmaster.alt.example time 3600 600 86400 0",
    ]);
  });

  it("a refused or failed read is SERVFAIL, a transfer NOTIMP, a foreign name REFUSED (ch4 case 79)", async () => {
    const refusing: DnsSource = {
      ...sourceOf({}),
      instances: () => Promise.reject(new PeeringError("permission-denied", "Permission denied")),
    };
    const denied = await answerOf(responderOf(refusing), { name: "web.service.consul", type: "A" });
    assert.deepEqual([denied.code, denied.answers, denied.authorities], ["SERVFAIL", [], []]);
    const transfer = await asked({}, "consul", "AXFR");
    assert.deepEqual([transfer.code, transfer.answers], ["NOTIMP", []]);
    const foreign = await asked({}, "www.example.com", "A");
    assert.deepEqual([foreign.code, foreign.flags], ["REFUSED", "rd"]);
  });

  it("an alias is answered when there is no address, and followed within our domains, not round in circles", async () => {
    const input = {
      instances: {
        "": [
          instance({ service: { name: "api", address: "web.service.p.peer.consul" } }),
          instance({ service: { name: "loop", address: "loop.service.consul." } }),
          instance({ service: { name: "x", address: "y.service.consul" } }),
          instance({ service: { name: "y", address: "x.service.consul" } }),
          instance({ node: { name: "n2", address: "10.0.0.2" }, service: { name: "mixed" } }),
          instance({ node: { name: "n3" }, service: { name: "mixed", address: "else.example.com" } }),
        ],
        p: [instance({ node: { address: "10.1.0.1" }, service: { name: "web" } })],
      },
    };
    assert.deepEqual((await asked(input, "api.service.consul", "A")).answers, [
      "api.service.consul 0 CNAME web.service.p.peer.consul",
      "web.service.p.peer.consul 0 A 10.1.0.1",
    ]);
    assert.deepEqual((await asked(input, "mixed.service.consul", "A")).answers, ["mixed.service.consul 0 A 10.0.0.2"]);
    const circle = await asked(input, "x.service.consul", "A");
    assert.ok(circle.answers.length <= 5, String(circle.answers));
    assert.equal((await asked(input, "loop.service.consul", "SRV")).code, "NOERROR");
  });

  it("records that no packet can carry are left out: names too long, ports out of range, control characters", async () => {
    const input = {
      instances: {
        p: [
          instance({ node: { name: "a".repeat(64) }, service: { name: "web", port: 1 } }),
          instance({ node: { name: "n2" }, service: { name: "web", port: 70_000 } }),
          instance({ node: { name: "n3" }, service: { name: "web", address: "a\u0000b", port: 3 } }),
          instance({ node: { name: "n4" }, service: { name: "web", address: "fe80::1%eth0", port: 4 } }),
          instance({ node: { name: "n5", meta: { long: "x".repeat(400) } }, service: { name: "web", port: 5 } }),
        ],
      },
    };
    const { answers, additionals } = await answerOf(responderOf(sourceOf(input)), {
      name: WEB,
      type: "SRV",
      edns: 4_096,
    });
    assert.deepEqual(answers, [`${WEB} 0 SRV 1 1 5 n5.node.p.peer.consul`]);
    const text = additionals.find((record) => record.includes("TXT"));
    assert.equal(text, `n5.node.p.peer.consul 0 TXT "long=${"x".repeat(250)}" "${"x".repeat(150)}"`);
  });

  it("metadata goes by RFC 1464, or raw behind `rfc1035-`", async () => {
    const meta = { "a=b`": "c", " x ": "y", "rfc1035-spf": "v=spf1 -all" };
    const input = { instances: { p: [instance({ node: { meta }, service: { name: "web" } })] } };
    assert.deepEqual((await asked(input, "n1.node.p.peer.consul", "TXT")).answers, [
      'n1.node.p.peer.consul 0 TXT "` x` =y"',
      'n1.node.p.peer.consul 0 TXT "a`=b``=c"',
      'n1.node.p.peer.consul 0 TXT "v=spf1 -all"',
    ]);
    const off = await asked(input, "n1.node.p.peer.consul", "A", { nodeMetaTxt: false });
    assert.deepEqual(off.additionals, []);
  });

  it("a reverse lookup names the node, else the service", async () => {
    const owners = { "10.0.0.1": { type: "node", name: "n1" }, "10.9.0.1": { type: "service", name: "web" } } as const;
    assert.deepEqual((await asked({ owners }, "1.0.0.10.in-addr.arpa", "PTR")).answers, [
      "1.0.0.10.in-addr.arpa 0 PTR n1.node.dc1.consul",
    ]);
    assert.deepEqual((await asked({ owners }, "1.0.9.10.in-addr.arpa", "PTR")).answers, [
      "1.0.9.10.in-addr.arpa 0 PTR web.service.dc1.consul",
    ]);
    assert.equal((await asked({ owners }, "2.0.9.10.in-addr.arpa", "PTR")).code, "NXDOMAIN");
  });

  it("a client subnet comes back with scope 0; two questions, compressed ones and trailing rubbish are FORMERR", async () => {
    const responder = responderOf(sourceOf({ instances: { p: [instance({ service: { name: "web" } })] } }));
    const plain = query({ name: WEB, type: "A", edns: 4_096 });
    const subnet = Buffer.concat([plain, Buffer.from([0, 8, 0, 7, 0, 1, 24, 24, 10, 0, 0])]);
    subnet.writeUInt16BE(11, plain.length - 2);
    const reply = await responder.respond(subnet, originOf("udp"));
    assert.deepEqual(reply?.subarray(-11), Buffer.from([0, 8, 0, 7, 0, 1, 24, 0, 10, 0, 0]));
    const two = query({ name: WEB, type: "A" });
    two.writeUInt16BE(2, 4);
    const pointer = Buffer.concat([plain.subarray(0, 12), Buffer.from([0xc0, 12, 0, 1, 0, 1])]);
    for (const bad of [two, pointer, plain.subarray(0, 20)]) {
      const refusal = await responder.respond(bad, originOf("udp"));
      assert.deepEqual([refusal?.length, (refusal?.readUInt16BE(2) ?? 0) & 15], [12, 1]);
    }
    const response = query({ name: WEB, type: "A" });
    response[2] = 0x81;
    assert.equal(await responder.respond(response, originOf("udp")), undefined);
    assert.equal(await responder.respond(Buffer.alloc(5), originOf("udp")), undefined);
  });
});
