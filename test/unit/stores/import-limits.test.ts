// Bounds on the data and work that an authorised peer, hostile or huge, can cause at a host.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fixedRootPems } from "../../../src/testing/fixed-roots.js";
import { type ReplicationMessage, ResourceId, ResourceUrl } from "../../../src/wire/messages.js";
import { encodeTrustBundle } from "../../../src/wire/resources.js";
import { list, openAs, response, servicePayload, upsert } from "../../support/messages.js";
import { peered, type RawStream, World } from "../../support/world.js";

/** The answer to the response with this nonce: `""` for an ACK, else the text of the NACK. */
async function answerTo(world: World, stream: RawStream, nonce: number): Promise<string> {
  const text = nonce.toString(16).padStart(8, "0");
  const find = (): ReplicationMessage | undefined =>
    stream.received.find((message) => message.type === "request" && message.responseNonce === text);
  await world.until(() => find() !== undefined, `${nonce} is answered`);
  const found = find();
  return found?.type === "request" ? (found.error?.message ?? "") : "";
}

function bundle(nonce: number, ...rootPems: readonly string[]): ReplicationMessage {
  const value = encodeTrustBundle({ trustDomain: "raw.consul", rootPems, exportedPartition: "" });
  return response(nonce, ResourceUrl.trustBundle, ResourceId.trustBundle, value);
}

describe("a peer's description of itself", () => {
  it("stays in a record without what stands beside its certificates", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream } = await openAs(world, acceptor, "raw");
    const [root = ""] = fixedRootPems;
    await stream.say(bundle(1, `${root}${"x".repeat(60_000)}`, `${"y".repeat(60_000)}\n${root}`));
    assert.equal(await answerTo(world, stream, 1), "");
    assert.deepEqual(acceptor.peering("raw").peerCaPems, [root]);
    assert.deepEqual(acceptor.host.trustBundles.read("raw")?.rootPems, [root]);
  });

  it("is refused beyond a limit, by name, and shown and counted; earlier imports stay, and so does the stream", async () => {
    const world = new World();
    const limits = { rootsPerPeer: 1, trustBundleBytes: 5_000, servicesPerPeer: 2 };
    const acceptor = await world.site("acceptor", { limits });
    const { stream } = await openAs(world, acceptor, "raw");
    const [root = "", other = ""] = fixedRootPems;
    await stream.say(bundle(1, root), list(2, "a", "b"));
    assert.equal(await answerTo(world, stream, 2), "");
    await stream.say(bundle(3, root, other));
    assert.match(await answerTo(world, stream, 3), /more than 1 root certificates/);
    await stream.say(bundle(4, `${root}${"x".repeat(6_000)}`), list(5, "a", "b", "c"));
    assert.match(await answerTo(world, stream, 4), /a trust bundle of \d+ bytes/);
    assert.match(await answerTo(world, stream, 5), /more than 2 texts/);
    assert.deepEqual(acceptor.peering("raw").peerCaPems, [root]);
    const { status } = acceptor.peering("raw");
    assert.deepEqual([...status.refusedImports.keys()].sort(), [
      ResourceUrl.trustBundle,
      ResourceUrl.exportedServiceList,
    ]);
    assert.match(status.refusedImports.get(ResourceUrl.exportedServiceList) ?? "", /more than 2 texts/);
    assert.equal(acceptor.host.incidents.counts().get("import-over-limit"), 3);
    await stream.say(bundle(6, other), list(7, "a"));
    assert.equal(await answerTo(world, stream, 6), "");
    assert.equal(await answerTo(world, stream, 7), "");
    assert.equal(acceptor.peering("raw").status.refusedImports.size, 0);
  });

  it("addresses beyond the limit are refused", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world, { dialer: { limits: { addressesPerPeer: 2 } } });
    const before = dialer.peering("acceptor").peerServerAddresses;
    await acceptor.stop();
    await acceptor.start({ advertise: ["a:1", "b:2", "c:3"] });
    await world.until(() => dialer.host.incidents.counts().get("import-over-limit") === 1, "they are refused");
    assert.deepEqual(dialer.peering("acceptor").peerServerAddresses, before);
    assert.equal(dialer.peering("acceptor").status.refusedImports.size, 1);
  });
});

describe("refused services", () => {
  it("are in the status of the peering until they are accepted, or listed no more", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor", { limits: { instancesPerService: 2 } });
    const { stream } = await openAs(world, acceptor, "raw");
    await stream.say(list(1, "web", "db"), upsert(2, "web", servicePayload("web", 2)));
    await stream.say(upsert(3, "web", servicePayload("web", 3)), upsert(4, "db", servicePayload("db", 3)));
    assert.match(await answerTo(world, stream, 3), /more than 2 instances/);
    assert.match(await answerTo(world, stream, 4), /more than 2 instances/);
    const refused = (): readonly string[] => [...acceptor.peering("raw").status.refusedImports.keys()].sort();
    assert.deepEqual(refused(), ["db", "web"]);
    const sync = acceptor.host.peerings.services("raw")?.imported;
    assert.deepEqual([sync?.get("web")?.progress, sync?.get("web")?.instances], ["refused", 2]);
    assert.equal(acceptor.host.incidents.counts().get("import-over-limit"), 2);
    await stream.say(upsert(5, "web", servicePayload("web", 1)));
    assert.equal(await answerTo(world, stream, 5), "");
    assert.deepEqual(refused(), ["db"]);
    await stream.say(list(6, "web"));
    assert.equal(await answerTo(world, stream, 6), "");
    assert.deepEqual(refused(), []);
  });
});

describe("a message with more in its envelope than any has", () => {
  it("ends the stream, which is counted", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream } = await openAs(world, acceptor, "raw");
    await stream.sayBytes(Buffer.from("2a00".repeat(2_000), "hex"));
    const end = await stream.ended();
    assert.notEqual(end, "ok");
    assert.match(end === "ok" ? "" : end.message, /more than 1000 fields/);
    assert.equal(acceptor.host.incidents.counts().get("peer-stream-over-limit"), 1);
  });
});
