import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TRANSIT_PATH_KEY } from "../../../src/config/transit.js";
import type { TransitRule } from "../../../src/exports/transit.js";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { Operation, ResourceId, ResourceUrl } from "../../../src/wire/messages.js";
import { encodeTrustBundle } from "../../../src/wire/resources.js";
import { exchanged, response, servicePayload, subscribe, upsert } from "../../support/messages.js";
import {
  exportTo,
  offer,
  peer,
  type RawStream,
  register,
  type Site,
  type SiteOptions,
  World,
} from "../../support/world.js";

function all(from: string, to: string): TransitRule {
  return { from, to, services: ["*"] };
}

/** Sites `a`, `b` and so on, and a peering for each pair of letters, of which the first is the acceptor. */
async function sites(
  world: World,
  pairs: string,
  options: Readonly<Record<string, SiteOptions>> = {},
): Promise<(name: string) => Site> {
  const made = new Map<string, Site>();
  const site = (name: string): Site => {
    const found = made.get(name);
    if (found === undefined) throw new Error(`there is no ${name}`);
    return found;
  };
  for (const name of new Set(pairs.replaceAll(" ", ""))) made.set(name, await world.site(name, options[name]));
  for (const pair of pairs.split(" ")) {
    const [acceptor = "", dialer = ""] = pair;
    await peer(world, site(acceptor), site(dialer));
    await world.settled(site(acceptor), dialer, site(dialer), acceptor);
  }
  return site;
}

/** Waits until no resource was sent for 20 s, and fails where that does not come in two minutes. */
async function quiet(world: World): Promise<void> {
  const talk = (): number => world.sent.filter(({ message }) => message.type === "response").length;
  for (let round = 0; round < 6; round++) {
    const before = talk();
    await world.pass(20_000);
    if (talk() === before) return;
  }
  assert.fail("it does not come to rest");
}

async function instances(world: World, site: Site, from: string, service: string): Promise<readonly ServiceInstance[]> {
  return world.result(site.host.imports.instances({ peer: from, service }));
}

/** The way each of its instances came, as names of sites. */
async function paths(world: World, at: Site, from: string, service: string, among: readonly Site[]): Promise<string[]> {
  const name = (domain: string): string => among.find((one) => one.host.trustDomain === domain)?.name ?? domain;
  const found = await instances(world, at, from, service);
  return found.map((instance) => (instance.service.meta[TRANSIT_PATH_KEY] ?? "").split(" ").map(name).join(">"));
}

describe("transit: a chain of hosts", () => {
  it("carries a service with its instances and checks, marked with the way it came", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
    await offer(world, site("a"), "b", "web");
    await world.until(() => site("c").count("b", "web") === 1, "it arrives");
    const [instance] = await instances(world, site("c"), "b", "web");
    assert.equal(instance?.node.name, "node-1.a");
    assert.equal(instance?.node.id, "");
    assert.equal(instance?.node.address, "10.0.0.1");
    assert.deepEqual([instance?.service.port, instance?.service.tags], [8080, ["v1"]]);
    assert.deepEqual(
      instance?.checks.map(({ status, node }) => [status, node]),
      [["passing", "node-1.a"]],
    );
    const path = `${site("a").host.trustDomain} ${site("b").host.trustDomain}`;
    assert.equal(instance?.service.meta[TRANSIT_PATH_KEY], path);
    assert.deepEqual(site("b").host.exports.forPeer("c"), ["web"]);
    assert.deepEqual(site("a").imported("b"), {}, "nothing goes back");
    await quiet(world);
  });

  it("follows every change, and the end of the export", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
    await offer(world, site("a"), "b", "web", "db");
    await world.until(() => Object.keys(site("c").imported("b")).length === 2, "both arrive");
    await world.result(register(site("a").host, "web", "2"));
    await world.until(() => site("c").count("b", "web") === 2, "the second instance follows");
    await world.result(site("a").host.catalog.deregister({ node: "node-1", serviceId: "web-1" }));
    await world.until(() => site("c").count("b", "web") === 1, "one goes");
    await exportTo(world, site("a"), "b", "web");
    await world.until(() => site("c").count("b", "db") === 0, "what is exported no more goes");
    assert.deepEqual(site("c").imported("b"), { web: 1 });
    await exportTo(world, site("a"), "b");
    await world.until(() => site("c").count("b", "web") === 0, "the last one goes");
    assert.deepEqual(site("b").host.exports.forPeer("c"), []);
  });

  it("carries the services that a rule names and no more, in its direction", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [{ from: "A", to: "C", services: ["WEB"] }] } });
    await offer(world, site("a"), "b", "web", "db");
    await offer(world, site("c"), "b", "api");
    await world.until(() => site("c").count("b", "web") === 1, "it arrives");
    await quiet(world);
    assert.deepEqual(site("c").imported("b"), { web: 1 });
    assert.deepEqual(site("a").imported("b"), {});
  });

  it("goes on over further hosts, up to the limit of hops", async () => {
    const world = new World();
    const site = await sites(world, "ab bc cd de", {
      b: { transit: [all("a", "c")] },
      c: { transit: [all("b", "d")] },
      d: { transit: [all("c", "e")], limits: { transitHops: 2 } },
    });
    await offer(world, site("a"), "b", "web");
    await world.until(() => site("d").count("c", "web") === 1, "it comes as far as d");
    await quiet(world);
    assert.deepEqual(await paths(world, site("d"), "c", "web", ["a", "b", "c"].map(site)), ["a>b>c"]);
    assert.deepEqual(site("e").imported("d"), {});
    assert.match(
      site("d").host.exports.explain("web", "e").text,
      /not carried over from c, because it came through too many/,
    );
  });

  it("many services are told together, and each once", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
    const names = Array.from({ length: 300 }, (_, index) => `service-${index}`);
    const one = { node: "n", address: "10.0.0.1" };
    await world.result(site("a").host.catalog.registerAll(names.map((name) => ({ ...one, service: { name } }))));
    await exportTo(world, site("a"), "b", ...names);
    await world.until(() => Object.keys(site("c").imported("b")).length === names.length, "all arrive");
    const sent = world.messages(site("b"), "response");
    const lists = sent.filter(({ resourceUrl }) => resourceUrl === ResourceUrl.exportedServiceList);
    const services = sent.filter(({ resourceUrl }) => resourceUrl === ResourceUrl.exportedService);
    assert.equal(services.length, names.length);
    assert.ok(lists.length < 20, `${lists.length} lists were sent`);
  });

  it("an instance more, one changed and one fewer come to the same instances", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
    await offer(world, site("a"), "b", "web");
    await world.until(() => site("c").count("b", "web") === 1, "it arrives");
    const seen = async (): Promise<string> => {
      const found = await instances(world, site("c"), "b", "web");
      return found
        .map(({ service, checks }) => `${service.id} ${checks[0]?.status}`)
        .sort()
        .join();
    };
    const { catalog } = site("a").host;
    const check = { checkId: "web-1", name: "alive", status: "critical", serviceId: "web-1" };
    await world.result(register(site("a").host, "web", "2"));
    await world.result(register(site("a").host, "web", "3"));
    await world.result(catalog.register({ node: "node-1", address: "10.0.0.1", check }));
    await world.result(catalog.deregister({ node: "node-3", serviceId: "web-3" }));
    await quiet(world);
    assert.equal(await seen(), "web-1 critical,web-2 passing");
    await world.result(catalog.deregister({ node: "node-1", serviceId: "web-1" }));
    await world.result(catalog.deregister({ node: "node-2", serviceId: "web-2" }));
    await world.result(register(site("a").host, "web", "4"));
    await quiet(world);
    assert.equal(await seen(), "web-4 passing");
  });

  it("a host in between that restarts carries on, and one that was away learns of removals meanwhile", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
    await offer(world, site("a"), "b", "web", "db");
    await world.until(() => Object.keys(site("c").imported("b")).length === 2, "both arrive");
    site("b").crash();
    await exportTo(world, site("a"), "b", "db");
    await world.pass(60_000);
    assert.deepEqual(site("c").imported("b"), { web: 1, db: 1 });
    await site("b").start();
    await world.until(() => site("c").count("b", "web") === 0, "it goes");
    assert.deepEqual(site("c").imported("b"), { db: 1 });
  });
});

describe("transit: when a peering ends", () => {
  for (const by of ["a", "b"]) {
    it(`what came from a peer goes with the peering that ${by} deletes, and comes with a new one`, async () => {
      const world = new World();
      const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
      await offer(world, site("a"), "b", "web");
      await world.until(() => site("c").count("b", "web") === 1, "it arrives");
      const [from, to] = by === "a" ? ["a", "b"] : ["b", "a"];
      await world.result(site(from).host.peerings.delete(to));
      await world.until(() => site("c").count("b", "web") === 0, "it goes");
      assert.equal(site("c").state("b"), "active");
      await world.until(() => site(from).state(to) === "none", "the record is gone");
      await world.until(() => site(to).state(from) === "terminated", "the other side knows");
      await world.result(site(to).host.peerings.delete(from));
      await world.until(() => site(to).state(from) === "none", "that one, too");
      await peer(world, site("a"), site("b"));
      await world.until(() => site("c").count("b", "web") === 1, "it is carried over again");
    });
  }
});

describe("transit: rings", () => {
  it("three hosts that carry everything everywhere come to rest, and none gets its own back", async () => {
    const world = new World();
    const site = await sites(world, "ab bc ca", {
      a: { transit: [all("b", "c"), all("c", "b")] },
      b: { transit: [all("a", "c"), all("c", "a")] },
      c: { transit: [all("a", "b"), all("b", "a")] },
    });
    await offer(world, site("a"), "b", "of-a");
    await offer(world, site("b"), "c", "of-b");
    await offer(world, site("c"), "a", "of-c");
    await quiet(world);
    // Each one's service is exported to one neighbour, and gets to the other one through that.
    assert.deepEqual(site("b").imported("a"), { "of-a": 1, "of-c": 1 });
    assert.deepEqual(site("c").imported("b"), { "of-a": 1, "of-b": 1 });
    assert.deepEqual(site("a").imported("c"), { "of-b": 1, "of-c": 1 });
    for (const [at, from] of ["ac", "ba", "cb"]) assert.deepEqual(site(from ?? "").imported(at ?? ""), {}, "not back");
    assert.match(site("c").host.exports.explain("of-a", "a").text, /because it came through the cluster of the peer/);
    await exportTo(world, site("a"), "b");
    await quiet(world);
    assert.deepEqual(site("c").imported("b"), { "of-b": 1 });
    assert.deepEqual(site("b").imported("a"), { "of-c": 1 });
  });

  it("where each prefers its neighbour's way to its own, the shorter way is taken, and all come to rest", async () => {
    const world = new World();
    // Every rule that goes round the ring stands before the one that goes straight: without distances they never rest.
    const site = await sites(world, "da db dc ab bc ca", {
      a: { transit: [all("b", "c"), all("d", "c"), all("d", "b")] },
      b: { transit: [all("c", "a"), all("d", "a"), all("d", "c")] },
      c: { transit: [all("a", "b"), all("d", "b"), all("d", "a")] },
    });
    await world.result(register(site("d").host, "web"));
    const consumers = ["a", "b", "c"].map((name) => ({ peer: name }));
    await world.result(site("d").host.exports.set({ services: [{ name: "web", consumers }] }));
    await quiet(world);
    const known = ["a", "b", "c", "d"].map(site);
    for (const [at, from] of ["ab", "bc", "ca", "ac", "ba", "cb"]) {
      assert.deepEqual(await paths(world, site(at ?? ""), from ?? "", "web", known), [`d>${from}`]);
    }
    assert.match(
      site("a").host.exports.explain("web", "c").text,
      /not carried over from b, because another peer has it/,
    );
  });

  it("two hosts in transit between the same clusters, and peered with each other", async () => {
    const world = new World();
    const rules = (other: string) => ({
      transit: [all("x", "y"), all("y", "x"), all("x", other), all("y", other), all(other, "x"), all(other, "y")],
    });
    const site = await sites(world, "xg gy xh hy gh", { g: rules("h"), h: rules("g") });
    await world.result(register(site("x").host, "web"));
    const consumers = ["g", "h"].map((name) => ({ peer: name }));
    await world.result(site("x").host.exports.set({ services: [{ name: "web", consumers }] }));
    await quiet(world);
    const known = ["x", "y", "g", "h"].map(site);
    assert.deepEqual(await paths(world, site("y"), "g", "web", known), ["x>g"]);
    assert.deepEqual(await paths(world, site("y"), "h", "web", known), ["x>h"]);
    assert.deepEqual(await paths(world, site("g"), "h", "web", known), ["x>h"]);
    assert.deepEqual({ ...site("x").imported("g"), ...site("x").imported("h") }, {});
    // One of them loses its own way, and has the other's.
    await world.result(site("g").host.peerings.delete("x"));
    await quiet(world);
    assert.deepEqual(await paths(world, site("y"), "g", "web", known), ["x>h>g"]);
    await world.result(site("h").host.peerings.delete("x"));
    await quiet(world);
    assert.deepEqual({ ...site("y").imported("g"), ...site("y").imported("h"), ...site("g").imported("h") }, {});
  });

  it("two peerings with one cluster are no way from it to itself", async () => {
    const world = new World();
    const site = await sites(world, "ab", { b: { transit: [all("a", "again"), all("again", "a")] } });
    await offer(world, site("a"), "b", "web");
    const token = await world.result(site("a").host.peerings.generateToken({ peerName: "b-again" }));
    await world.result(site("b").host.peerings.establish({ peerName: "again", token }));
    await world.settled(site("a"), "b-again", site("b"), "again");
    await world.until(() => site("b").count("a", "web") === 1, "it is imported");
    await quiet(world);
    assert.deepEqual(site("a").imported("b-again"), {});
    assert.match(site("b").host.exports.explain("web", "again").text, /it came through the cluster of the peer/);
  });
});

describe("transit: local services of the same name", () => {
  it("the local one goes, and the other one when it is exported no more", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
    await offer(world, site("a"), "b", "web");
    await world.until(() => site("c").count("b", "web") === 1, "it arrives");
    const meta = async () => (await instances(world, site("c"), "b", "web")).map(({ service }) => service.meta);
    await world.result(register(site("b").host, "web", "7"));
    await quiet(world);
    assert.equal((await meta()).length, 1, "a service that is not exported to the peer is no reason");
    await exportTo(world, site("b"), "c", "web");
    await quiet(world);
    assert.deepEqual(await meta(), [{}]);
    const explained = site("b").host.exports.explain("web", "c");
    assert.match(explained.text, /^web is exported to c: .*not carried over from a, because exported-services gives/);
    assert.deepEqual(site("b").host.exports.forPeer("c"), ["web"]);
    await exportTo(world, site("b"), "c");
    await quiet(world);
    assert.ok((await meta())[0]?.[TRANSIT_PATH_KEY]);
    assert.match(site("b").host.exports.explain("web", "c").text, /^web is exported to c: .*carried over from a\.$/);
  });

  it("a local name without instances takes its place all the same", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
    await offer(world, site("a"), "b", "web");
    await world.until(() => site("c").count("b", "web") === 1, "it arrives");
    await exportTo(world, site("b"), "c", "web");
    await world.until(() => site("c").count("b", "web") === 0, "there is none");
    await exportTo(world, site("b"), "c", "WEB");
    await quiet(world);
    assert.deepEqual(site("c").imported("b"), {}, "capitals do not count");
  });

  it("services of nodes that are called the same, and of node ids that are, do not touch", async () => {
    const world = new World();
    const site = await sites(world, "ab bc", { b: { transit: [all("a", "c")] } });
    await offer(world, site("a"), "b", "web");
    await offer(world, site("b"), "c", "api");
    await world.until(() => Object.keys(site("c").imported("b")).length === 2, "both arrive");
    const nodes = [
      ...(await instances(world, site("c"), "b", "web")),
      ...(await instances(world, site("c"), "b", "api")),
    ];
    assert.deepEqual(nodes.map(({ node }) => node.name).sort(), ["node-1", "node-1.a"]);
  });
});

describe("transit: rules", () => {
  it("from a peer to itself, or without services, are a programmer's mistake", async () => {
    const world = new World();
    for (const rule of [all("a", "A"), { from: "a", to: "b", services: [] }]) {
      await assert.rejects(world.site("wrong", { transit: [rule] }), TypeError);
    }
  });

  it("for peers that are not there are kept for when they come, and explain themselves", async () => {
    const world = new World();
    const site = await sites(world, "bc", { b: { transit: [all("a", "c")] } });
    const { text, exported } = site("b").host.exports.explain("web", "c");
    assert.equal(exported, false);
    assert.match(text, /not carried over from a, because no instance of it is imported from there/);
    assert.deepEqual(site("b").host.exports.explain("web", "c").reasons.at(-1), {
      type: "not-carried-over",
      from: "a",
      because: "not-imported",
    });
  });
});

describe("transit: with Consul 1.13", () => {
  const value = encodeTrustBundle({
    trustDomain: "99999999-2222-3333-4444-555555555555.consul",
    rootPems: fixedRootPems.slice(0, 1),
    exportedPartition: "",
  });
  const OLD_BUNDLE = { ...response(0, ResourceUrl.trustBundle, ResourceId.trustBundle, value), nonce: "" };

  /** A 1.13 that dials `site`, where it is called `old`. */
  async function older(world: World, site: Site): Promise<RawStream> {
    const open = await exchanged(world, site, "old");
    const stream = await world.raw(site);
    const urls = [ResourceUrl.exportedService, ResourceUrl.trustBundle, ResourceUrl.serverAddresses];
    await stream.say({ type: "open", ...open }, ...urls.map((url) => subscribe(url, open.peerId)));
    return stream;
  }

  it("exports of a 1.13 get to a later one, except its servers and synthetic sidecars", async () => {
    const world = new World();
    const site = await sites(world, "bc", { b: { transit: [all("old", "c")] } });
    const stream = await older(world, site("b"));
    const bare = (name: string, value: Uint8Array) => ({ ...upsert(0, name, value), nonce: "" });
    await stream.say(bare("web", servicePayload("web")), bare("consul", servicePayload("consul")));
    await world.until(() => site("b").count("old", "consul") === 1, "both are imported");
    await world.pass(10_000);
    assert.deepEqual(site("c").imported("b"), {}, "which cluster it is, it has not said");
    assert.match(site("b").host.exports.explain("web", "c").text, /because that peer has not said yet which cluster/);
    await stream.say(OLD_BUNDLE);
    await world.until(() => site("c").count("b", "web") === 1, "now it is known");
    await world.pass(10_000);
    assert.deepEqual(site("c").imported("b"), { web: 1 });
    const { resource: _, ...gone } = { ...bare("web", new Uint8Array(0)), operation: Operation.Delete };
    await stream.say(gone);
    await world.until(() => site("c").count("b", "web") === 0, "it goes");
  });

  it("to a 1.13 it goes without a list, and with a DELETE", async () => {
    const world = new World();
    const site = await sites(world, "ab", { b: { transit: [all("a", "old")] } });
    await offer(world, site("a"), "b", "web");
    const stream = await older(world, site("b"));
    await stream.say(OLD_BUNDLE);
    const said = (): readonly string[] =>
      stream.received.flatMap((message) =>
        message.type === "response" && message.resourceUrl !== ResourceUrl.trustBundle
          ? [`${message.operation} ${message.resourceId}`]
          : [],
      );
    await world.until(() => said().includes("1 web"), "it gets there");
    await exportTo(world, site("a"), "b");
    await world.until(() => said().includes("2 web"), "it goes");
    assert.deepEqual(
      said().filter((text) => !text.endsWith("server-addrs")),
      ["1 web", "2 web"],
    );
  });
});
