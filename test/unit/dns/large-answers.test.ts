import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Clock } from "../../../src/base/environment.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { DnsServerOptions } from "../../../src/dns/index.js";
import { dnsServer } from "../../../src/dns/index.js";
import { LargeAnswers } from "../../../src/dns/large-answers.js";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { type Ask, exchange, query, readAnswer } from "./client.js";
import { instance, originOf, responderOf, sourceOf } from "./setup.js";

/** A clock that a test moves. */
class HandClock implements Clock {
  nowMs = 0;

  now(): number {
    return this.nowMs;
  }

  wall(): number {
    return 1_700_000_000_000 + this.nowMs;
  }

  after(): { cancel(): void } {
    return { cancel: () => {} };
  }
}

const LONGEST = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}`;

/** As many instances as a large service has, whose nodes have much to say. */
function many(count: number): ReturnType<typeof sourceOf> {
  const meta = Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`key-${index}`, "v".repeat(500)]));
  const web = Array.from({ length: count }, (_, index) =>
    instance({
      node: { name: `node-number-${index}`, address: `10.1.${index >> 8}.${index & 255}`, meta },
      service: { name: "web" },
    }),
  );
  const servers = [1, 2, 3].map((index) =>
    instance({ node: { name: `srv${index}`, address: `10.2.0.${index}` }, service: { name: "consul" } }),
  );
  return sourceOf({ instances: { "": [...web, ...servers] } });
}

const QUESTIONS: readonly Ask[] = ["A", "AAAA", "SRV", "TXT", "ANY", "NS", "SOA", "PTR", "CNAME"].flatMap((type) => [
  { name: "web.service.consul", type },
  { name: "node-number-1.node.consul", type },
  { name: "consul", type },
  { name: `${LONGEST}.service.consul`, type },
  { name: "9.9.9.9.in-addr.arpa", type },
]);

describe("answers over UDP", () => {
  it("are no longer than every asker can take, and with EDNS than what fits every network", async () => {
    const responder = responderOf(many(2_000));
    let longest = 0;
    for (const question of QUESTIONS) {
      for (const edns of [undefined, 512, 1_232, 4_096, 65_535]) {
        const packet = query({ ...question, ...(edns !== undefined && { edns }) });
        const reply = await responder.respond(packet, originOf("udp"));
        assert.ok(reply !== undefined);
        const limit = Math.min(Math.max(edns ?? 0, 512), 1_232);
        assert.ok(reply.length <= limit, `${question.name} ${question.type} ${edns}: ${reply.length} bytes`);
        longest = Math.max(longest, reply.length);
      }
    }
    assert.ok(longest > 1_200, `${longest} bytes`);
  });

  it("tell an asker of TCP where the limit is ours, and hold as much as Consul's where it is the asker's", async () => {
    const ask = async (maxUdpBytes: number, edns: number): Promise<ReturnType<typeof readAnswer>> => {
      const responder = responderOf(many(200), { maxUdpBytes, nodeMetaTxt: false });
      const packet = query({ name: "web.service.consul", type: "A", edns });
      const reply = await responder.respond(packet, originOf("udp"));
      assert.ok(reply !== undefined);
      return readAnswer(reply);
    };
    const ours = await ask(1_232, 4_096);
    assert.deepEqual([ours.answers.length, ours.flags], [74, "aa tc rd"]);
    const asked = await ask(4_096, 1_232);
    assert.deepEqual([asked.answers.length, asked.flags], [74, "aa rd"]);
    const whole = await ask(4_096, 4_096);
    assert.deepEqual([whole.answers.length, whole.flags], [200, "aa rd"]);
  });
});

describe("large answers over UDP", () => {
  const srv = query({ name: "web.service.consul", type: "SRV", edns: 1_232 });
  const small = query({ name: "web.service.consul", type: "AAAA" });

  it("go to one network so many times a second; then the TC bit sends it to TCP, with no more bytes than it sent", async () => {
    const clock = new HandClock();
    const incidents = new Incidents({ clock });
    const responder = responderOf(many(100), { largeAnswers: { perSecond: 5 }, clock, incidents });
    const asked = async (from: string, packet = srv): Promise<Buffer> => {
      const reply = await responder.respond(packet, originOf("udp", from));
      assert.ok(reply !== undefined);
      return reply;
    };
    const isShort = (reply: Buffer): boolean => {
      const { answers, additionals, flags, code } = readAnswer(reply);
      if (!flags.includes("tc")) return false;
      assert.deepEqual([answers, additionals, code], [[], [".  OPT 1232"], "NOERROR"]);
      assert.ok(reply.length <= srv.length);
      return true;
    };
    // From wherever in the network: they share its line.
    for (let host = 1; host <= 5; host++) assert.equal(isShort(await asked(`192.0.2.${host}:53`)), false);
    for (let host = 1; host <= 20; host++) assert.equal(isShort(await asked(`192.0.2.${host}:99`)), true);
    assert.equal(incidents.counts().get("dns-large-answers-to-one"), 20);
    // Others, small answers, and TCP are not concerned.
    assert.equal(isShort(await asked("192.0.3.1:53")), false);
    assert.equal(readAnswer(await asked("192.0.2.1:53", small)).flags, "aa rd");
    const tcp = await responder.respond(srv, originOf("tcp"));
    assert.equal(readAnswer(tcp ?? Buffer.alloc(12)).answers.length, 100);
    // The next second begins afresh.
    clock.nowMs += 1_000;
    assert.equal(isShort(await asked("192.0.2.1:53")), false);
  });

  it("are counted for an IPv4 /24 and an IPv6 /56, whatever form the address has", () => {
    const clock = new HandClock();
    const incidents = new Incidents({ clock });
    const admits = (first: string, second: string): boolean => {
      const limit = new LargeAnswers({ factor: 3, perSecond: 1, networks: 10 }, clock, incidents);
      assert.equal(limit.admit(first, 10, 31), true);
      return limit.admit(second, 10, 31);
    };
    assert.equal(admits("192.0.2.1:1", "192.0.2.255:2"), false);
    assert.equal(admits("192.0.2.1:1", "[::ffff:192.0.2.7]:2"), false);
    assert.equal(admits("192.0.2.1:1", "192.0.3.1:1"), true);
    assert.equal(admits("[2001:db8:0:ff01::1]:1", "[2001:db8:0:ffff:1::9]:1"), false);
    assert.equal(admits("[2001:db8:0:ff01::1]:1", "[2001:db8:0:fe01::1]:1"), true);
    assert.equal(admits("[fe80::1%eth0]:1", "[fe80::2]:1"), false);
  });

  it("are those more than so many times as long as their question", () => {
    const clock = new HandClock();
    const limit = new LargeAnswers({ factor: 3, perSecond: 0, networks: 10 }, clock, new Incidents({ clock }));
    assert.equal(limit.admit("192.0.2.1:1", 40, 120), true);
    assert.equal(limit.admit("192.0.2.1:1", 40, 121), false);
  });

  it("go to a limited number of networks a second, so that the memory for them is bounded", async () => {
    const clock = new HandClock();
    const incidents = new Incidents({ clock });
    const limit = new LargeAnswers({ factor: 3, perSecond: 10, networks: 100 }, clock, incidents);
    const admitted = (from: number): boolean => limit.admit(`10.0.${from}.1:53`, 10, 100);
    for (let network = 0; network < 100; network++) assert.equal(admitted(network), true);
    for (let network = 100; network < 200; network++) assert.equal(admitted(network), false);
    assert.equal(incidents.counts().get("dns-large-answers-to-many"), 100);
    // Those that are known go on.
    assert.equal(admitted(5), true);
    clock.nowMs += 1_000;
    assert.equal(admitted(150), true);
  });

  it("cannot make a flood of a trickle: what goes out is bounded, whatever is asked how often", async () => {
    const clock = new HandClock();
    const responder = responderOf(many(2_000), { largeAnswers: { perSecond: 500 }, clock });
    let [sent, received] = [0, 0];
    for (let round = 0; round < 50; round++) {
      for (const question of QUESTIONS) {
        const packet = query({ ...question, edns: 65_535 });
        const reply = await responder.respond(packet, originOf("udp", `192.0.2.${round}:53`));
        sent += packet.length;
        received += reply?.length ?? 0;
      }
    }
    assert.ok(received <= 500 * 1_232 + 3 * sent, `${sent} bytes became ${received}`);
  });

  it("are limited by default, also of a server on its socket", async () => {
    await using host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport() });
    const clock = new HandClock();
    const serve = (options: Partial<DnsServerOptions>): ReturnType<typeof dnsServer> =>
      dnsServer(host, { listen: "127.0.0.1:0", source: many(100), clock, ...options });
    await using server = await serve({ largeAnswers: { perSecond: 1 } });
    const flags = async (transport: "udp" | "tcp"): Promise<string> =>
      readAnswer(await exchange(server.address, srv, transport)).flags;
    assert.deepEqual([await flags("udp"), await flags("udp"), await flags("tcp")], ["aa rd", "aa tc rd", "aa rd"]);
    await using usual = await serve({});
    let cut = 0;
    for (let count = 0; count < 510; count++) {
      if (readAnswer(await exchange(usual.address, srv, "udp")).flags.includes("tc")) cut++;
    }
    assert.equal(cut, 10);
  });

  it("refuses invalid limits", async () => {
    await using host = await createHost({ storage: memoryStorage(), transport: memoryNetwork().transport() });
    for (const options of [
      { maxUdpBytes: 511 },
      { maxUdpBytes: 65_468 },
      { largeAnswers: { perSecond: -1 } },
      { largeAnswers: { factor: 1.5 } },
      { largeAnswers: { networks: Number.NaN } },
    ]) {
      await assert.rejects(dnsServer(host, { listen: "127.0.0.1:0", ...options }), TypeError, JSON.stringify(options));
    }
  });
});
