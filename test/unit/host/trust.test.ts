import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { machineryOf } from "../../../src/host/host.js";
import type { Registration } from "../../../src/model/registration.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import { ResourceId, ResourceUrl } from "../../../src/wire/messages.js";
import { decodeServerAddresses, decodeTrustBundle, encodeTrustBundle } from "../../../src/wire/resources.js";
import { openAs, response, subscribe } from "../../support/messages.js";
import { peer, peered, register, type Site, World } from "../../support/world.js";

function rootsOf(site: Site): readonly string[] {
  return site.authority.roots().map((root) => root.certificatePem);
}

/** The other's roots as `site` knows them: its bundle, and for the dialer the roots that it dials with. */
function knownRoots(site: Site, peerName: string): readonly string[] {
  return site.host.trustBundles.read(peerName)?.rootPems ?? [];
}

describe("tokens", () => {
  it("a token has every root, the own name and address, and the manual ones (ch3 case 89, TOK1, TOK2, TOK9)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor", { locality: { region: "r", zone: "z" } });
    acceptor.authority.rotate();
    const { peerings } = acceptor.host;
    const token = TokenCodec.decode(
      await world.result(peerings.generateToken({ peerName: "dialer", serverExternalAddresses: ["32.1.2.3:8502"] })),
    );
    assert.equal(token.ca.length, 2);
    assert.deepEqual(token.ca, rootsOf(acceptor));
    assert.ok(token.ca.every((pem) => pem.endsWith("\n")));
    assert.equal(token.serverName, `server.dc-acceptor.peering.${acceptor.host.trustDomain}`);
    assert.deepEqual([token.serverAddresses, token.manualServerAddresses], [["acceptor:8503"], ["32.1.2.3:8502"]]);
    assert.equal(token.peerId, acceptor.peering("dialer").id);
    assert.deepEqual(token.remote, {
      partition: "",
      datacenter: "dc-acceptor",
      locality: { region: "r", zone: "z" },
    });
  });

  it("a host that listens nowhere refuses before anything is written (D-16)", async () => {
    const world = new World();
    const site = await world.site("alone", { advertise: [] });
    const commits = site.commits;
    const refusal = await world.refusal(site.host.peerings.generateToken({ peerName: "dialer" }));
    assert.deepEqual(
      [refusal.code, refusal.message],
      ["unavailable", "a grpc bind port must be specified in the configuration for all servers"],
    );
    assert.equal(site.commits, commits);
    assert.deepEqual(site.host.peerings.list(), []);
  });

  it("eight first tokens at once are one record, and the last one works (ch3 case 88, D-17)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    const calls = Array.from({ length: 8 }, () => acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    const tokens = await world.result(Promise.all(calls));
    const ids = new Set(tokens.map((token) => TokenCodec.decode(token).peerId));
    assert.deepEqual([...ids], [acceptor.peering("dialer").id]);
    await world.result(dialer.host.peerings.establish({ peerName: "acceptor", token: tokens.at(-1) ?? "" }));
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });
});

describe("roots", () => {
  it("each side has the other's bundle under its local name, the dialer dials with it (ch1 case 108, ch3 case 90)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    for (const [site, other] of [
      [acceptor, dialer],
      [dialer, acceptor],
    ] as const) {
      const bundle = site.host.trustBundles.read(other.name);
      assert.equal(bundle?.trustDomain, other.host.trustDomain);
      assert.deepEqual(bundle?.rootPems, rootsOf(other));
      assert.deepEqual(site.peering(other.name).peerCaPems, rootsOf(other));
      assert.deepEqual(new Set(site.host.trustBundles.union()), new Set([...rootsOf(site), ...rootsOf(other)]));
    }
    const bundles = world
      .messages(acceptor, "response")
      .filter(({ resourceUrl }) => resourceUrl === ResourceUrl.trustBundle);
    assert.deepEqual(
      bundles.map(({ resourceId }) => resourceId),
      [ResourceId.trustBundle],
    );
  });

  for (const role of ["acceptor", "dialer"] as const) {
    it(`a rotation at the ${role} reaches the other over the stream: old and new, then the new one alone (ch1 case 90, ch3 cases 90 and 92, ch4 case 41)`, async () => {
      const world = new World();
      const sites = await peered(world);
      const [site, other] = role === "acceptor" ? [sites.acceptor, sites.dialer] : [sites.dialer, sites.acceptor];
      const [old = ""] = rootsOf(site);
      const { certificatePem } = site.authority.rotate();
      await world.until(() => knownRoots(other, site.name).length === 2, "both are known");
      assert.deepEqual(new Set(knownRoots(other, site.name)), new Set([old, certificatePem]));
      assert.deepEqual(other.peering(site.name).peerCaPems, knownRoots(other, site.name));
      assert.equal(other.host.trustBundles.read(site.name)?.trustDomain, site.host.trustDomain);
      site.authority.prune();
      await world.until(() => knownRoots(other, site.name).length === 1, "the old one goes");
      assert.deepEqual(knownRoots(other, site.name), [certificatePem]);
      assert.equal(world.messages(sites.dialer, "open").length, 1, "no stream was disturbed");
      const imported = other.imported(site.name);
      await site.stop();
      await world.pass(30_000);
      assert.notDeepEqual(imported, {});
      assert.deepEqual(other.imported(site.name), imported, "what was imported is served with nobody there");
    });

    it(`a rotation at the ${role} while the link is down arrives when it is up again (L6)`, async () => {
      const world = new World();
      const sites = await peered(world);
      const [site, other] = role === "acceptor" ? [sites.acceptor, sites.dialer] : [sites.dialer, sites.acceptor];
      world.network.partition(site.address, other.address);
      site.authority.rotate();
      await world.pass(300_000);
      assert.equal(knownRoots(other, site.name).length, 1);
      world.network.healAll();
      await world.until(() => knownRoots(other, site.name).length === 2, "it arrives");
      await world.settled(sites.acceptor, "dialer", sites.dialer, "acceptor");
    });

    it(`a rotation while the ${role} is down is pushed after its restart`, async () => {
      const world = new World();
      const sites = await peered(world);
      const [site, other] = role === "acceptor" ? [sites.acceptor, sites.dialer] : [sites.dialer, sites.acceptor];
      site.crash();
      site.authority.rotate();
      await site.start();
      await world.until(() => knownRoots(other, site.name).length === 2, "it arrives");
      assert.deepEqual(knownRoots(other, site.name), rootsOf(site));
    });
  }

  it("a bundle without roots or with rubbish is refused, the old one stays (ch1 case 122, ch3 case 94, D-23)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream } = await openAs(world, acceptor, "dialer");
    const [good = ""] = rootsOf(await world.site("other"));
    const bundle = (nonce: number, rootPems: readonly string[]): ReturnType<typeof response> =>
      response(
        nonce,
        ResourceUrl.trustBundle,
        ResourceId.trustBundle,
        encodeTrustBundle({ trustDomain: "raw.consul", rootPems, exportedPartition: "" }),
      );
    await stream.say(bundle(1, [good]));
    await world.until(() => knownRoots(acceptor, "dialer").length === 1, "the good one is stored");
    for (const [nonce, pems] of [
      [2, []],
      [3, ["no certificate"]],
      [4, [good, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]],
    ] as const) {
      await stream.say(bundle(nonce, pems));
      const answer = `0000000${nonce}`;
      const found = (): { readonly code: number } | undefined =>
        stream.received.flatMap((message) =>
          message.type === "request" && message.responseNonce === answer && message.error ? [message.error] : [],
        )[0];
      await world.until(() => found() !== undefined, "it is refused");
      assert.equal(found()?.code, 13);
      assert.deepEqual(knownRoots(acceptor, "dialer"), [good]);
      assert.deepEqual(acceptor.peering("dialer").peerCaPems, [good]);
    }
    assert.equal(stream.end, undefined);
  });

  it("a bundle that names our own trust domain, or another peer's, is refused with a reason, and not handed out (D-24)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const { host } = acceptor;
    const [root = ""] = rootsOf(await world.site("other"));
    const { stream } = await openAs(world, acceptor, "raw");
    const told = [host.trustBundles.list(), machineryOf(host).records.trustBundles(), host.trustBundles.union()];
    const cases = [
      [host.trustDomain.toUpperCase(), "trust bundle claims the trust domain of the cluster that receives it"],
      [dialer.host.trustDomain, "trust bundle claims the trust domain of another peering, with other roots"],
      ["", "trust bundle with an invalid trust domain"],
    ] as const;
    for (const [index, [trustDomain, text]] of cases.entries()) {
      const bundle = encodeTrustBundle({ trustDomain, rootPems: [root], exportedPartition: "" });
      await stream.say(response(index + 1, ResourceUrl.trustBundle, ResourceId.trustBundle, bundle));
      const answer = `0000000${index + 1}`;
      const refusal = (): string | undefined =>
        stream.received.flatMap((message) =>
          message.type === "request" && message.responseNonce === answer && message.error ? [message.error] : [],
        )[0]?.message;
      await world.until(() => refusal() !== undefined, "it is refused");
      assert.ok(refusal()?.includes(text), refusal());
      const { facts } = acceptor.peering("raw").status;
      assert.ok(facts.lastReceiveErrorMessage.includes(text), facts.lastReceiveErrorMessage);
      assert.equal(host.incidents.counts().get("trust-bundle-refused"), index + 1);
    }
    assert.ok(acceptor.log.has("warn", "the trust bundle of a peer is refused"));
    assert.deepEqual(
      [host.trustBundles.list(), machineryOf(host).records.trustBundles(), host.trustBundles.union()],
      told,
    );
    assert.deepEqual(acceptor.peering("raw").peerCaPems, [], "nothing of it was taken");
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("once the first peering is deleted, the bundle that was refused because of it is stored, without a new stream (D-24)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const { stream } = await openAs(world, acceptor, "squatter");
    const third = await world.site("third");
    const [root = ""] = rootsOf(await world.site("other"));
    const bundle = encodeTrustBundle({ trustDomain: third.host.trustDomain, rootPems: [root], exportedPartition: "" });
    await stream.say(response(1, ResourceUrl.trustBundle, ResourceId.trustBundle, bundle));
    await world.until(() => knownRoots(acceptor, "squatter").length === 1, "the first one has it");
    await peer(world, acceptor, third);
    await world.until(() => acceptor.host.incidents.counts().get("trust-bundle-refused") === 1, "the other is refused");
    await acceptor.restart();
    await world.until(
      () => acceptor.host.incidents.counts().get("trust-bundle-refused") === 1,
      "and so after a restart",
    );
    assert.deepEqual(knownRoots(acceptor, "third"), []);
    const opened = world.messages(third, "open").length;
    await world.result(acceptor.host.peerings.delete("squatter"));
    await world.until(() => knownRoots(acceptor, "third").length === 1, "the domain is free");
    assert.deepEqual(knownRoots(acceptor, "third"), rootsOf(third));
    assert.equal(world.messages(third, "open").length, opened);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("two peerings with one cluster stay in step through its rotations (D-24)", async () => {
    const world = new World();
    const [acceptor, dialer] = [await world.site("acceptor"), await world.site("dialer")];
    for (const [here, there] of [
      ["east", "one"],
      ["east-again", "two"],
    ] as const) {
      const token = await world.result(acceptor.host.peerings.generateToken({ peerName: there }));
      await world.result(dialer.host.peerings.establish({ peerName: here, token }));
      await world.settled(acceptor, there, dialer, here);
    }
    const both = (): readonly (readonly string[])[] => ["east", "east-again"].map((name) => knownRoots(dialer, name));
    for (const change of ["rotate", "prune", "rotate"] as const) {
      acceptor.authority[change]();
      await world.until(
        () => both().every((roots) => roots.join() === rootsOf(acceptor).join()),
        `both know (${change})`,
      );
    }
    assert.deepEqual([...dialer.host.trustBundles.withheld()], []);
  });

  it("without a mesh no bundle is sent", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor", { connect: false });
    const { stream, open } = await openAs(world, acceptor, "dialer");
    for (const url of Object.values(ResourceUrl)) await stream.say(subscribe(url, open.peerId));
    await world.pass(20_000);
    const urls = stream.received.flatMap((message) => (message.type === "response" ? [message.resourceUrl] : []));
    assert.ok(urls.includes(ResourceUrl.serverAddresses) && !urls.includes(ResourceUrl.trustBundle));
  });
});

describe("server addresses", () => {
  it("those advertised are pushed to the dialer once, and never by it (ch1 case 91)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world, { acceptor: { advertise: ["acceptor:8503", "other:1"] } });
    await world.until(() => dialer.peering("acceptor").peerServerAddresses.length === 2, "they arrive");
    const pushed = (site: Site): readonly (readonly string[])[] =>
      world
        .messages(site, "response")
        .flatMap(({ resourceUrl, resource }) =>
          resourceUrl === ResourceUrl.serverAddresses && resource ? [decodeServerAddresses(resource.value)] : [],
        );
    assert.deepEqual(pushed(acceptor), [["acceptor:8503", "other:1"]]);
    assert.deepEqual(pushed(dialer), []);
  });

  it("an acceptor whose servers are replaced one after another is followed by what each of them pushed (ch3 case 20)", async () => {
    const world = new World();
    const address = (server: number): string => `server-${server}:8503`;
    const { acceptor, dialer } = await peered(world, { acceptor: { advertise: ["acceptor:8503", address(1)] } });
    for (let server = 1; server < 6; server++) {
      await world.until(
        () => dialer.peering("acceptor").peerServerAddresses.includes(address(server)),
        "the next server's address arrives before it is needed",
      );
      await acceptor.stop();
      acceptor.address = address(server);
      await acceptor.start({ advertise: [address(server), address(server + 1)] });
      await world.settled(acceptor, "dialer", dialer, "acceptor");
      await world.result(register(acceptor.host, "web", String(server + 1)));
      await world.until(() => dialer.count("acceptor", "web") === server + 1, "replication goes on");
    }
    assert.ok(!dialer.peering("acceptor").peerServerAddresses.includes("acceptor:8503"));
  });
});

describe("through mesh gateways", () => {
  const gateway = (id: string, wan?: { address: string; port: number }): Registration => ({
    node: `gw-${id}`,
    address: "10.0.0.9",
    service: {
      id,
      name: "mesh-gateway",
      kind: "mesh-gateway",
      address: "10.9.0.1",
      port: 8443,
      ...(wan === undefined ? {} : { taggedAddresses: { wan } }),
    },
  });

  it("without a gateway no token; then its address is in tokens and pushed; off again, the servers' (TOK10, ch1 case 91)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const { peerings, configEntries, catalog } = acceptor.host;
    const throughGateways = (on: boolean): Promise<unknown> =>
      world.result(configEntries.set({ kind: "mesh", name: "mesh", peering: { peerThroughMeshGateways: on } }));
    await throughGateways(true);
    const commits = acceptor.commits;
    const refusal = await world.refusal(peerings.generateToken({ peerName: "new" }));
    assert.deepEqual(
      [refusal.code, refusal.message],
      [
        "unavailable",
        "servers are configured to PeerThroughMeshGateways, but no mesh gateway instances are registered",
      ],
    );
    assert.equal(acceptor.commits, commits);
    await world.pass(1_000);
    const known = (): readonly string[] => dialer.peering("acceptor").peerServerAddresses;
    assert.deepEqual(known(), ["acceptor:8503"], "an empty list is never sent");
    await world.result(catalog.register(gateway("one", { address: "154.238.12.252", port: 8443 })));
    await world.until(() => known().join() === "154.238.12.252:8443", "the gateway's address is pushed");
    const token = TokenCodec.decode(await world.result(peerings.generateToken({ peerName: "new" })));
    assert.deepEqual(token.serverAddresses, ["154.238.12.252:8443"]);
    await world.result(catalog.register(gateway("two")));
    await world.until(() => known().length === 2, "and that of the second one");
    assert.ok(known().includes("10.9.0.1:8443"));
    await throughGateways(false);
    await world.until(() => known().join() === "acceptor:8503", "the servers' are pushed again");
    assert.equal(world.messages(dialer, "open").length, 1);
  });
});

it("bundles are the peer's own: two dialers of one acceptor, each with its roots (ch3 case 91)", async () => {
  const world = new World();
  const { acceptor, dialer } = await peered(world);
  const third = await world.site("third");
  await peer(world, acceptor, third);
  await world.settled(acceptor, "third", third, "acceptor");
  assert.deepEqual(knownRoots(acceptor, "third"), rootsOf(third));
  assert.deepEqual(knownRoots(acceptor, "dialer"), rootsOf(dialer));
  const own = world
    .messages(third, "response")
    .flatMap(({ resourceUrl, resource }) =>
      resourceUrl === ResourceUrl.trustBundle && resource ? [decodeTrustBundle(resource.value).trustDomain] : [],
    );
  assert.deepEqual(own, [third.host.trustDomain]);
});
