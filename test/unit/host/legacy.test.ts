import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { encodeSidecarPayload } from "../../../src/payload/exported-payload.js";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { Operation, ResourceId, ResourceUrl, type ResponseMessage } from "../../../src/wire/messages.js";
import { encodeServerAddresses, encodeTrustBundle } from "../../../src/wire/resources.js";
import { exchanged, list, REMOTE, response, servicePayload, subscribe, upsert } from "../../support/messages.js";
import { exportTo, offer, RawStream, type Site, World } from "../../support/world.js";
import { gateway, TRUST_DOMAIN } from "../config/export-fixtures.js";

/** Consul 1.13 as far as it shows on a stream, in the role that our site leaves it. */
interface Legacy {
  readonly site: Site;
  /** The site's name for it. */
  readonly name: string;
  readonly stream: RawStream;
}

const TOKEN_ID = "99999999-8888-7777-6666-555555555555";
const THREE = [ResourceUrl.exportedService, ResourceUrl.trustBundle, ResourceUrl.serverAddresses];

/** Dials a site of ours. */
async function dialing(world: World): Promise<Legacy> {
  const site = await world.site("ours");
  await offer(world, site, "old", "web", "db");
  const open = await exchanged(world, site, "old");
  const stream = await world.raw(site);
  await stream.say({ type: "open", ...open }, ...THREE.map((url) => subscribe(url, open.peerId)));
  await world.until(() => site.peering("old").state === "active", "the stream stands");
  return { site, name: "old", stream };
}

/** Is dialed by a site of ours, with a token that names no CA. */
async function accepting(world: World): Promise<Legacy> {
  const streams: RawStream[] = [];
  await world.rawAcceptor("old:8502", {
    exchangeSecret: async () => ({ streamSecret: "99999999-0000-0000-0000-000000000001" }),
    stream: (stream) => void streams.push(new RawStream(world, stream)),
  });
  const site = await world.site("ours");
  await offer(world, site, "old", "web", "db");
  const token = Buffer.from(
    JSON.stringify({
      CA: null,
      ServerAddresses: ["old:8502"],
      ServerName: "server.dc1.consul",
      PeerID: TOKEN_ID,
      EstablishmentSecret: "99999999-0000-0000-0000-000000000002",
    }),
  ).toString("base64");
  await world.result(site.host.peerings.establish({ peerName: "old", token }));
  await world.until(() => streams.length === 1, "it is dialed");
  const [stream] = streams;
  assert.ok(stream);
  await stream.say(...THREE.map((url) => subscribe(url)));
  return { site, name: "old", stream };
}

const roles = [
  ["acceptor", dialing],
  ["dialer", accepting],
] as const;

/** As 1.13 sends them. */
const bare = (message: ResponseMessage): ResponseMessage => ({ ...message, nonce: "" });

function removal(name: string): ResponseMessage {
  const { resource: _, ...message } = upsert(0, name, new Uint8Array(0));
  return { ...message, nonce: "", operation: Operation.Delete };
}

function bundle(...rootPems: readonly string[]): ResponseMessage {
  const value = encodeTrustBundle({ trustDomain: "old.consul", rootPems, exportedPartition: "" });
  return bare(response(0, ResourceUrl.trustBundle, ResourceId.trustBundle, value));
}

function services({ stream }: Legacy): readonly string[] {
  return stream.received.flatMap((message) =>
    message.type === "response" && message.resourceUrl === ResourceUrl.exportedService
      ? [`${message.operation === Operation.Delete ? "-" : "+"}${message.resourceId}`]
      : [],
  );
}

/** ACKs and NACKs the site gave for services. */
function answers({ stream }: Legacy): readonly string[] {
  return stream.received
    .flatMap((message) =>
      message.type === "request" && message.resourceUrl === ResourceUrl.exportedService ? [message] : [],
    )
    .slice(1)
    .map(({ error }) => error?.message ?? "ack");
}

for (const [role, meet] of roles) {
  describe(`Consul 1.13 at the other end of a host that is the ${role}`, () => {
    it("it gets services and no list, and a DELETE for services that are no longer exported (ch1 cases 112, 114 and 116)", async () => {
      const world = new World();
      const legacy = await meet(world);
      const { site, name, stream } = legacy;
      await world.until(() => services(legacy).length === 2, "both arrive");
      assert.deepEqual(services(legacy).toSorted(), ["+db", "+web"]);
      await exportTo(world, site, name, "web");
      await world.until(() => services(legacy).length === 3, "one goes");
      assert.equal(services(legacy).at(-1), "-db");
      await world.result(site.host.catalog.deregister({ node: "node-1", serviceId: "web-1" }));
      await world.until(() => services(legacy).length === 4, "so does the instance of the other");
      assert.equal(services(legacy).at(-1), "-web");
      const urls = stream.received.flatMap((message) => ("resourceUrl" in message ? [message.resourceUrl] : []));
      assert.ok(!urls.includes(ResourceUrl.exportedServiceList));
      assert.equal(site.peering(name).status.dialect, "legacy");
      assert.deepEqual(site.peering(name).status.stream.exportedServices, []);
    });

    it("what it sends without a nonce is imported, what it deletes is gone (ch1 case 113)", async () => {
      const world = new World();
      const legacy = await meet(world);
      const { site, name, stream } = legacy;
      await stream.say(
        bare(upsert(0, "api", servicePayload("api", 2))),
        bare(upsert(0, "cache", servicePayload("cache"))),
        removal("cache-sidecar-proxy"),
      );
      await world.until(() => answers(legacy).length === 3, "all is answered");
      assert.deepEqual(site.imported(name), { api: 2, cache: 1 });
      assert.deepEqual(site.peering(name).status.stream.importedServices, ["api", "cache"]);
      await stream.say(removal("api"));
      await world.until(() => answers(legacy).length === 4, "that, too");
      assert.deepEqual(site.imported(name), { cache: 1 });
      assert.deepEqual(site.peering(name).status.stream.importedServices, ["cache"]);
      assert.deepEqual(answers(legacy), ["ack", "ack", "ack", "ack"]);
    });

    it("synthetic sidecars are imported and counted as none of its services", async () => {
      const world = new World();
      const { site, name, stream } = await meet(world);
      const { value } = encodeSidecarPayload({
        name: "api",
        chain: { protocol: "tcp", tcpTargets: [] },
        gateways: [gateway("gw", "node-gw")],
        peerName: "ours",
        trustDomain: TRUST_DOMAIN,
        datacenter: "dc1",
      });
      const payloads = { api: servicePayload("api"), "api-sidecar-proxy": value };
      await stream.say(...Object.entries(payloads).map(([id, payload]) => bare(upsert(0, id, payload))));
      await world.until(() => Object.keys(site.imported(name)).length === 2, "both are there");
      assert.deepEqual(site.peering(name).status.stream.importedServices, ["api"]);
    });

    it("its trust bundle is kept, and says nothing of its servers", async () => {
      const world = new World();
      const { site, name, stream } = await meet(world);
      const before = site.peering(name).peerCaPems;
      const rootPems = fixedRootPems.slice(0, 2);
      await stream.say(bundle(...rootPems));
      await world.until(() => site.host.trustBundles.read(name) !== undefined, "it is stored");
      assert.equal(site.host.trustBundles.read(name)?.rootPems.length, 2);
      assert.deepEqual(site.peering(name).peerCaPems, before);
      await site.restart();
      assert.deepEqual(site.peering(name).peerCaPems, before, "not after a restart either");
    });
  });
}

describe("Consul 1.13 and then a later one", () => {
  it("the next stream of an upgraded dialer is a modern one, and its list prunes", async () => {
    const world = new World();
    const site = await world.site("ours");
    const open = await exchanged(world, site, "old");
    const first = await world.raw(site);
    await first.say({ type: "open", ...open }, bare(upsert(0, "api", servicePayload("api"))));
    await first.say(bare(upsert(0, "db", servicePayload("db"))));
    await world.until(() => site.count("old", "db") === 1, "it is imported");
    assert.equal(site.peering("old").status.dialect, "legacy");
    await first.close();
    const second = await world.raw(site);
    await second.say({ type: "open", ...open, remote: REMOTE });
    await world.until(() => site.peering("old").status.dialect === "modern", "it is known as modern");
    assert.deepEqual(site.imported("old"), { api: 1, db: 1 });
    await second.say(list(1, "api"));
    await world.until(() => site.count("old", "db") === 0, "what is not listed goes");
    assert.deepEqual(site.peering("old").status.stream.importedServices, ["api"]);
  });

  it("an acceptor of 1.13 says where it is to be dialed from now on", async () => {
    const world = new World();
    const { site, stream } = await accepting(world);
    const value = encodeServerAddresses(["old:8502", "other:8502"]);
    await stream.say(bare(response(0, ResourceUrl.serverAddresses, ResourceId.serverAddresses, value)));
    await world.until(() => site.peering("old").peerServerAddresses.length === 2, "they are stored");
  });
});
