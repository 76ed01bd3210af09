import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { decode } from "dns-packet";
import fc from "fast-check";
import type { Authorizer } from "../../../src/access/authorizer.js";
import { Incidents } from "../../../src/base/incidents.js";
import { type DnsSource, hostSource } from "../../../src/dns/index.js";
import type { Responder } from "../../../src/dns/responder.js";
import { permittedSource } from "../../../src/dns/source.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { peered, World } from "../../support/world.js";
import { type Ask, type Asked, query } from "./client.js";
import { answerOf, instance, originOf, responderOf, sourceOf } from "./setup.js";

const WEB = "web.service.consul";
/** So often asked, every reply to a question is a kept one, but for one in sixteen. */
const OFTEN = 24;

function webs(count: number): readonly ServiceInstance[] {
  return Array.from({ length: count }, (_, index) =>
    instance({
      node: { name: `n${index}`, address: `10.0.0.${index}`, meta: { rack: "r1" } },
      service: { name: "web", address: `10.1.0.${index}` },
    }),
  );
}

/** A source whose services have one revision, with the number of its reads. */
class Counted {
  reads = 0;
  revision: string | undefined = "1";
  instances: Readonly<Record<string, readonly ServiceInstance[]>>;
  readonly source: DnsSource;

  constructor(instances: Readonly<Record<string, readonly ServiceInstance[]>>) {
    this.instances = instances;
    const of = (): DnsSource => sourceOf({ instances: this.instances });
    this.source = {
      ...of(),
      isPeering: (name) => of().isPeering(name),
      instances: (peer, service) => {
        this.reads++;
        return of().instances(peer, service);
      },
      revision: () => this.revision,
    };
  }
}

async function asked(responder: Responder, question: Ask, times: number): Promise<readonly Asked[]> {
  const answers: Asked[] = [];
  for (let time = 0; time < times; time++) answers.push(await answerOf(responder, question));
  return answers;
}

/** Without the order, which is random, and the packet, which has it. */
function content({ packet: _, ...answer }: Asked): unknown {
  return answer;
}

describe("kept DNS replies", () => {
  it("say the same as those that are made, and are made once for many questions", async () => {
    for (const type of ["A", "SRV", "ANY", "AAAA"]) {
      const counted = new Counted({ "": webs(3) });
      const made = await answerOf(responderOf(sourceOf({ instances: { "": webs(3) } })), { name: WEB, type });
      for (const answer of await asked(responderOf(counted.source), { name: WEB, type }, 1_000)) {
        assert.deepEqual(content(answer), content(made));
      }
      // An empty answer tells the time in its SOA record.
      assert.equal(type === "AAAA" ? counted.reads === 1_000 : counted.reads < 80, true, `${type}: ${counted.reads}`);
    }
  });

  it("carry the id of their question, and are another buffer each time", async () => {
    const responder = responderOf(new Counted({ "": webs(1) }).source);
    const replies: Buffer[] = [];
    for (let id = 1; id <= OFTEN; id++) {
      const reply = await responder.respond(query({ name: WEB, type: "A" }, id), originOf("udp"));
      assert.ok(reply);
      replies.push(reply);
    }
    assert.deepEqual(
      replies.map((reply) => reply.readUInt16BE(0)),
      replies.map((_, index) => index + 1),
    );
  });

  it("have each instance in the first place as often as another", async () => {
    const responder = responderOf(new Counted({ "": webs(3) }).source);
    const first = new Map<string, number>();
    for (const { packet } of await asked(responder, { name: WEB, type: "A" }, 20_000)) {
      const [answer] = decode(packet).answers ?? [];
      const address = answer?.type === "A" ? answer.data : "none";
      first.set(address, (first.get(address) ?? 0) + 1);
    }
    assert.equal(first.size, 3);
    // With the same eight orders for ever, each would be given a multiple of 2,500 times.
    for (const times of first.values()) assert.ok(times > 5_800 && times < 7_490, `${times} of 20,000`);
  });

  it("are made again after a change, and where a source does not know of changes", async () => {
    const counted = new Counted({ "": webs(1) });
    const responder = responderOf(counted.source);
    await asked(responder, { name: WEB, type: "A" }, OFTEN);
    counted.instances = { "": webs(2) };
    counted.revision = "2";
    for (const { answers } of await asked(responder, { name: WEB, type: "A" }, OFTEN)) assert.equal(answers.length, 2);
    counted.revision = undefined;
    counted.reads = 0;
    await asked(responder, { name: WEB, type: "A" }, OFTEN);
    assert.equal(counted.reads, OFTEN);
  });

  it("are not kept where the service changes while one is made", async () => {
    const counted = new Counted({ "": webs(1) });
    const { instances } = counted.source;
    const responder = responderOf({
      ...counted.source,
      instances: async (peer, service) => {
        const former = await instances(peer, service);
        if (counted.revision === "1") {
          counted.revision = "2";
          counted.instances = { "": webs(2) };
        }
        return former;
      },
    });
    await answerOf(responder, { name: WEB, type: "A" });
    assert.equal((await answerOf(responder, { name: WEB, type: "A" })).answers.length, 2);
  });

  it("are those of one transport, one name as it was written, and one size", async () => {
    const counted = new Counted({ "": webs(5) });
    const responder = responderOf(counted.source);
    const questions: readonly Ask[] = [
      { name: WEB, type: "A" },
      { name: WEB, type: "A", transport: "tcp" },
      { name: "WEB.service.consul", type: "A" },
      { name: WEB, type: "A", edns: 1_232 },
    ];
    for (let time = 0; time < OFTEN; time++) {
      const answers = await Promise.all(questions.map((question) => answerOf(responder, question)));
      assert.deepEqual(
        answers.map(({ answers }) => answers.length),
        [3, 5, 3, 5],
      );
      assert.ok(answers[2]?.answers.every((answer) => answer.startsWith("WEB.")));
    }
  });

  it("are not kept of names that lead to others, nor of absent ones", async () => {
    const alias = instance({ service: { name: "web", address: "db.service.consul" } });
    const db = (address: string): ServiceInstance => instance({ service: { name: "db", address } });
    for (const type of ["A", "SRV"]) {
      const counted = new Counted({ "": [alias, db("10.2.0.1")] });
      const responder = responderOf(counted.source);
      await asked(responder, { name: WEB, type }, OFTEN);
      counted.instances = { "": [alias, db("10.2.0.2")] };
      const { answers, additionals } = await answerOf(responder, { name: WEB, type });
      assert.match([...answers, ...additionals].join(" "), /10\.2\.0\.2/);
    }
    const counted = new Counted({});
    const responder = responderOf(counted.source);
    await asked(responder, { name: WEB, type: "A" }, OFTEN);
    assert.equal(counted.reads, OFTEN);
  });

  it("of a peer go with the peering", async () => {
    const counted = new Counted({ east: webs(1) });
    const responder = responderOf(counted.source);
    const names = ["web.service.east.peer.consul", "web.service.east.consul"];
    for (const name of names) await asked(responder, { name, type: "A" }, OFTEN);
    counted.instances = {};
    counted.revision = undefined;
    for (const name of names) assert.equal((await answerOf(responder, { name, type: "A" })).code, "NXDOMAIN");
  });

  it("go with the rights of those without a token", async () => {
    let mayRead = true;
    let revision: number | undefined = 1;
    const authorizer: Authorizer = {
      defaultPolicy: "deny",
      get revision() {
        return revision;
      },
      resolve: async () => ({ accessorId: undefined }),
      allowed: () => mayRead,
    };
    const counted = new Counted({ "": webs(1) });
    const responder = responderOf(permittedSource(counted.source, authorizer));
    await asked(responder, { name: WEB, type: "A" }, OFTEN);
    assert.equal(counted.reads, 1);
    mayRead = false;
    revision = 2;
    assert.equal((await answerOf(responder, { name: WEB, type: "A" })).code, "NXDOMAIN");
    mayRead = true;
    revision = undefined;
    await asked(responder, { name: WEB, type: "A" }, OFTEN);
    mayRead = false;
    assert.equal((await answerOf(responder, { name: WEB, type: "A" })).code, "NXDOMAIN");
  });

  it("are withheld from a network that has had too many large ones", async () => {
    const responder = responderOf(new Counted({ "": webs(3) }).source, {
      largeAnswers: { perSecond: OFTEN },
      clock: { now: () => 0, wall: () => 0, after: () => ({ cancel: () => {} }) },
    });
    const answers = await asked(responder, { name: WEB, type: "SRV" }, 2 * OFTEN);
    for (const [index, { answers: records, flags, code }] of answers.entries()) {
      assert.deepEqual(
        [records.length > 0, flags, code],
        [index < OFTEN, index < OFTEN ? "aa rd" : "aa tc rd", "NOERROR"],
      );
    }
    assert.equal((await answerOf(responder, { name: WEB, type: "SRV", transport: "tcp" })).flags, "aa rd");
  });

  it("take no more bytes than they may: the one that was asked for longest ago goes, and is counted", async () => {
    const counted = new Counted({ "": [...webs(1), instance({ service: { name: "db" } })] });
    const incidents = new Incidents();
    const responder = responderOf(counted.source, { keptReplyBytes: 4_000, incidents });
    const [web, db] = [WEB, "db.service.consul"].map((name) => ({ name, type: "A" }));
    assert.ok(web && db);
    await answerOf(responder, web);
    await answerOf(responder, db);
    await answerOf(responder, web);
    assert.deepEqual([counted.reads, incidents.counts().get("dns-reply-dropped")], [2, undefined]);
    await answerOf(responder, { ...web, name: "WEB.service.consul" });
    assert.equal(incidents.counts().get("dns-reply-dropped"), 1);
    await answerOf(responder, web);
    assert.equal(counted.reads, 3);
    await answerOf(responder, db);
    assert.equal(counted.reads, 4);
    const none = responderOf(counted.source, { keptReplyBytes: 0 });
    await asked(none, web, 3);
    assert.equal(counted.reads, 7);
  });

  it("do not hide a source that fails, and never throw", async () => {
    const counted = new Counted({ "": webs(1) });
    let fails = false;
    const responder = responderOf({
      ...counted.source,
      revision: () => {
        if (fails) throw new Error("closed");
        return "1";
      },
    });
    await asked(responder, { name: WEB, type: "A" }, OFTEN);
    fails = true;
    assert.equal((await answerOf(responder, { name: WEB, type: "A" })).code, "SERVFAIL");
  });

  it("are those of a host's catalog at any time", async () => {
    const name = fc.constantFrom("web", "db");
    const node = fc.constantFrom("n1", "n2");
    const status = fc.constantFrom("passing", "critical");
    const address = fc.constantFrom("10.0.0.1", "10.0.0.2");
    const change = fc.oneof(
      fc.record({ type: fc.constant("service" as const), name, node, address, port: fc.constantFrom(80, 81) }),
      fc.record({ type: fc.constant("check" as const), name, node, status }),
      fc.record({ type: fc.constant("node check" as const), node, status }),
      fc.record({ type: fc.constant("node" as const), node, address, meta: fc.constantFrom("a", "b") }),
      fc.record({ type: fc.constant("remove" as const), name, node }),
      fc.record({ type: fc.constant("remove node" as const), node }),
    );
    const questions: readonly Ask[] = ["web", "db"].flatMap((service) =>
      ["A", "SRV"].map((type) => ({ name: `${service}.service.consul`, type })),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 12 }), async (changes) => {
        const world = new World();
        const { acceptor } = await peered(world);
        const { catalog } = acceptor.host;
        const source = hostSource(acceptor.host);
        const keeping = responderOf(source);
        const making = responderOf(source, { keptReplyBytes: 0 });
        const known = new Map([
          ["n1", "10.0.0.1"],
          ["n2", "10.0.0.1"],
        ]);
        for (const one of changes) {
          const own = { node: one.node, address: known.get(one.node) ?? "" };
          const check = { name: "alive", checkId: "alive" };
          if (one.type === "service") {
            const service = { name: one.name, address: one.address, port: one.port };
            await world.result(catalog.register({ ...own, service }));
          } else if (one.type === "check" && catalog.instances(one.name).some((each) => each.node.name === one.node)) {
            const ofService = { ...check, checkId: one.name, serviceId: one.name, status: one.status };
            await world.result(catalog.register({ ...own, checks: [ofService] }));
          } else if (one.type === "node check") {
            await world.result(catalog.register({ ...own, checks: [{ ...check, status: one.status }] }));
          } else if (one.type === "node") {
            known.set(one.node, one.address);
            await world.result(catalog.register({ ...own, address: one.address, nodeMeta: { rack: one.meta } }));
          } else if (one.type === "remove") {
            await world.result(catalog.deregister({ node: one.node, serviceId: one.name }));
          } else if (one.type === "remove node") {
            await world.result(catalog.deregister({ node: one.node }));
          }
          for (const question of questions) {
            const made = content(await world.result(answerOf(making, question)));
            assert.deepEqual(content(await world.result(answerOf(keeping, question))), made);
            await world.result(asked(keeping, question, 8));
          }
        }
      }),
      { numRuns: 30 },
    );
  });

  it("are those of a host's imports, and of the peering that has a name now", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const responder = responderOf(hostSource(dialer.host));
    const question = { name: "web.service.acceptor.peer.consul", type: "A" };
    for (const address of ["10.9.0.1", "10.9.0.2"]) {
      const service = { id: "web-1", name: "web", port: 8_080, address };
      await world.result(acceptor.host.catalog.register({ node: "node-1", address: "10.0.0.1", service }));
      await world.settled(acceptor, "dialer", dialer, "acceptor");
      for (const { answers } of await world.result(asked(responder, question, OFTEN))) {
        assert.deepEqual(answers, [`${question.name} 0 A ${address}`]);
      }
    }
    await world.result(dialer.host.peerings.delete("acceptor"));
    await world.until(() => dialer.state("acceptor") === "none", "the peering is gone");
    assert.equal((await world.result(answerOf(responder, question))).code, "NXDOMAIN");
  });
});
