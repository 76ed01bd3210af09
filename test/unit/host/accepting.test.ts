import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { machineryOf } from "../../../src/host/host.js";
import { type OpenMessage, type ReplicationMessage, ResourceUrl } from "../../../src/wire/messages.js";
import { encodeServerAddresses, encodeTrustBundle } from "../../../src/wire/resources.js";
import { StatusCode } from "../../../src/wire/status.js";
import {
  exchange,
  exchanged,
  list,
  openAs,
  REMOTE,
  response,
  servicePayload,
  subscribe,
  upsert,
} from "../../support/messages.js";
import { MovableLeadership, offer, peered, type RawStream, register, type Site, World } from "../../support/world.js";

const UNKNOWN_ID = "99999999-8888-7777-6666-555555555555";

/** Status and text that a stream ends with when these are its first messages. */
async function endOf(world: World, site: Site, ...first: readonly ReplicationMessage[]): Promise<[number, string]> {
  const stream = await world.raw(site);
  await stream.say(...first);
  return statusOf(await stream.ended());
}

function statusOf(end: PeeringError | "ok"): [number, string] {
  return end === "ok" ? [0, ""] : [end.status ?? -1, end.message];
}

/** Everything the disk holds, to see that nothing changed. */
async function contentOf(world: World, site: Site): Promise<string> {
  const { entries, revision } = await world.result(site.disk.read([]));
  return JSON.stringify([String(revision), entries.map(({ key, value }) => [key, Buffer.from(value).toString("hex")])]);
}

/** The answer to the response with this nonce. */
async function answerTo(world: World, stream: RawStream, nonce: string): Promise<[number, string]> {
  const answer = (): ReplicationMessage | undefined =>
    stream.received.find(
      (message) =>
        message.type === "request" && message.responseNonce === nonce && (nonce !== "" || message.error !== undefined),
    );
  await world.until(() => answer() !== undefined, `${nonce} is answered`);
  const found = answer();
  if (found?.type !== "request") throw new Error("no answer");
  return found.error === undefined ? [0, ""] : [found.error.code, found.error.message];
}

describe("opening a stream", () => {
  it("a first message that opens nothing ends the stream with its text, and changes nothing (ch1 cases 21 to 24, ch3 case 41)", async () => {
    const world = new World();
    const { acceptor } = await peered(world);
    const before = await contentOf(world, acceptor);
    const open: OpenMessage = { type: "open", peerId: "", streamSecretId: "x" };
    const first = "first message when initiating a peering must be: Open";
    assert.deepEqual(await endOf(world, acceptor, subscribe(ResourceUrl.exportedService)), [3, first]);
    assert.deepEqual(await endOf(world, acceptor, upsert(1, "web", servicePayload("web"))), [3, first]);
    assert.deepEqual(await endOf(world, acceptor, { type: "heartbeat" }), [3, first]);
    assert.deepEqual(await endOf(world, acceptor, { type: "terminated" }), [3, first]);
    assert.deepEqual(await endOf(world, acceptor, { type: "unknown" }), [3, first]);
    assert.deepEqual(await endOf(world, acceptor, open), [3, "initial subscription request must specify a PeerID"]);
    assert.deepEqual(await endOf(world, acceptor, { ...open, peerId: UNKNOWN_ID }), [
      3,
      `initial subscription for unknown PeerID: ${UNKNOWN_ID}`,
    ]);
    assert.deepEqual(await endOf(world, acceptor, { ...open, peerId: "dialer" }), [
      13,
      "failed to find PeerID: dialer",
    ]);
    assert.equal(await contentOf(world, acceptor), before);
    assert.equal(acceptor.state("dialer"), "active", "and the stream that stands is not disturbed");
  });

  it("a secret that is wrong, empty, or the establishment secret itself opens no stream (ch1 cases 26 and 29, ch3 case 43)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { peerId, streamSecretId } = await exchanged(world, acceptor, "dialer");
    const before = await contentOf(world, acceptor);
    for (const wrong of ["", UNKNOWN_ID, peerId, streamSecretId.slice(1)]) {
      assert.deepEqual(await endOf(world, acceptor, { type: "open", peerId, streamSecretId: wrong }), [
        StatusCode.PermissionDenied,
        "invalid peering stream secret",
      ]);
    }
    assert.equal(await contentOf(world, acceptor), before);
    assert.equal(acceptor.state("dialer"), "pending");
  });

  it("a dialer's record refuses streams (ch1 case 32)", async () => {
    const world = new World();
    const { dialer } = await peered(world);
    const { id } = dialer.peering("acceptor");
    const [open] = world.messages(dialer, "open");
    const end = await endOf(world, dialer, { type: "open", peerId: id, streamSecretId: open?.streamSecretId ?? "" });
    assert.deepEqual(end, [
      StatusCode.InvalidArgument,
      "expected PeerID to be empty; the wrong end of peering is being dialed",
    ]);
  });

  it("the pending secret becomes the active one with the Remote; a later Open keeps that (ch1 cases 27, 28 and 30, ch3 case 44)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const remote = { partition: "", datacenter: "east", locality: { region: "r", zone: "z" } };
    const open: OpenMessage = { type: "open", ...(await exchanged(world, acceptor, "dialer")), remote };
    const first = await world.raw(acceptor);
    await first.say(open);
    await world.until(() => acceptor.state("dialer") === "active", "it is taken");
    assert.deepEqual(acceptor.peering("dialer").remote, remote);
    await first.close();
    const before = await contentOf(world, acceptor);
    const second = await world.raw(acceptor);
    await second.say({ ...open, remote: { partition: "", datacenter: "west" } });
    await world.until(() => second.received.length > 0, "the active one opens a stream too");
    assert.deepEqual(acceptor.peering("dialer").remote, remote);
    assert.equal(await contentOf(world, acceptor), before);
  });

  it("exchanges with a wrong id, an empty or an unknown secret are refused (ch1 cases 12 and 13, ch3 cases 45 and 85, D-20)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    const peerId = acceptor.peering("dialer").id;
    const transport = world.network.transport("raw:1", { alive: true });
    const refusal = (id: string, establishmentSecret: string): Promise<PeeringError> =>
      world.refusal(
        transport.exchangeSecret(
          { address: acceptor.address, serverName: "", caPems: [] },
          { peerId: id, establishmentSecret },
          { timeoutMs: 1_000, signal: new AbortController().signal },
        ),
      );
    const before = await contentOf(world, acceptor);
    for (const [id, secret] of [
      [peerId, ""],
      [peerId, UNKNOWN_ID],
      [UNKNOWN_ID, UNKNOWN_ID],
    ] as const) {
      const error = await refusal(id, secret);
      assert.deepEqual([error.status, error.message], [7, "invalid peering establishment secret"]);
    }
    const malformed = await refusal("dialer", UNKNOWN_ID);
    assert.equal(malformed.status, StatusCode.Internal);
    assert.match(malformed.message, /^failed to read peering secret: /);
    assert.equal(await contentOf(world, acceptor), before);
  });

  it("a second authorised stream replaces the first, and the peering stays ACTIVE throughout (ch1 case 35, ch3 case 47, D-1)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream: first, open } = await openAs(world, acceptor, "dialer");
    const states: string[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const { peerings } of acceptor.host.peerings.watch({ signal: stop.signal }))
        states.push(peerings[0]?.state ?? "");
    })();
    const second = await world.raw(acceptor);
    await second.say(open);
    assert.deepEqual(statusOf(await first.ended()), [StatusCode.Unavailable, "replaced by a newer stream"]);
    assert.ok(!first.received.some(({ type }) => type === "terminated"));
    await second.say(upsert(1, "web", servicePayload("web")));
    await world.until(() => acceptor.count("dialer", "web") === 1, "the second one replicates");
    await world.pass(30_000);
    assert.equal(second.end, undefined);
    stop.abort();
    await world.result(watching);
    assert.deepEqual([...new Set(states)], ["active"]);
    assert.equal(acceptor.peering("dialer").status.lastFailure, undefined);
    assert.deepEqual(machineryOf(acceptor.host).streams.contested(), []);
  });

  it("what the first one still says when it has been replaced is not applied (ch3 case 47, I14)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream: first, open } = await openAs(world, acceptor, "dialer");
    const second = await world.raw(acceptor);
    await first.say(upsert(1, "old", servicePayload("old")));
    await second.say(open, upsert(1, "new", servicePayload("new")), list(2, "new"));
    await first.say(upsert(2, "late", servicePayload("late")));
    await first.ended();
    await world.until(() => acceptor.count("dialer", "new") === 1, "the second one replicates");
    await world.pass(1_000);
    assert.deepEqual(acceptor.imported("dialer"), { new: 1 });
  });

  it("a stream that has ended by the time it is authorised takes nobody's place (D-1)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const { connectTime } = acceptor.peering("dialer").status.facts;
    const open: OpenMessage = { type: "open", ...(await exchanged(world, acceptor, "dialer")), remote: REMOTE };
    acceptor.latencyMs = 200;
    const hasty = await world.raw(acceptor);
    await hasty.say(open, ...Array.from({ length: 65 }, () => ({ type: "heartbeat" }) as const));
    assert.deepEqual(statusOf(await hasty.ended()), [
      StatusCode.ResourceExhausted,
      "too many messages before the stream was authorized",
    ]);
    await world.pass(1_000);
    assert.equal(acceptor.peering("dialer").remote.datacenter, "raw", "its secret was promoted");
    assert.deepEqual([acceptor.state("dialer"), dialer.state("acceptor")], ["active", "active"]);
    assert.equal(acceptor.peering("dialer").status.facts.connectTime, connectTime);
  });

  it("a flood of opens is refused cheaply, leaves nothing behind, and lets the others work (ch3 case 48)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const before = await contentOf(world, acceptor);
    const commits = acceptor.commits;
    const ends: Promise<PeeringError | "ok">[] = [];
    for (let index = 0; index < 1_000; index++) {
      const stream = await world.raw(acceptor);
      await stream.say({ type: "open", peerId: UNKNOWN_ID, streamSecretId: UNKNOWN_ID });
      ends.push(stream.ended());
    }
    const codes = new Map<number, number>();
    for (const end of ends) {
      const [code] = statusOf(await end);
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
    assert.equal(
      [...codes.values()].reduce((sum, count) => sum + count),
      1_000,
    );
    assert.deepEqual(
      [...codes.keys()].toSorted(),
      [StatusCode.InvalidArgument, StatusCode.ResourceExhausted].toSorted(),
    );
    assert.equal(acceptor.commits, commits);
    assert.equal(await contentOf(world, acceptor), before);
    assert.deepEqual(
      acceptor.host.peerings.list().map(({ name }) => name),
      ["dialer"],
    );
    assert.deepEqual([acceptor.state("dialer"), dialer.state("acceptor")], ["active", "active"]);
  });

  it("beyond the limit of a second the text is Consul's, for streams and exchanges (ch3 case 48)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor", { limits: { unauthorizedPerSecond: 1 } });
    await world.raw(acceptor);
    const text = "rate limit exceeded, try again later or against a different server";
    const second = await world.raw(acceptor);
    assert.deepEqual(statusOf(await second.ended()), [StatusCode.ResourceExhausted, text]);
    await assert.rejects(exchanged(world, acceptor, "dialer"), { status: StatusCode.ResourceExhausted, message: text });
    await world.pass(1_001);
    const { peerId } = await exchanged(world, acceptor, "dialer");
    assert.equal(peerId, acceptor.peering("dialer").id);
  });
});

describe("leadership", () => {
  it("a follower answers an exchange, takes no stream and names its leader (ch1 cases 17 and 19, ch3 case 39)", async () => {
    const world = new World();
    const leadership = new MovableLeadership();
    const acceptor = await world.site("acceptor", { leadership });
    const token = await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" }));
    leadership.move(false, "10.0.0.9:8300");
    // Any node of a cluster writes to the storage they share.
    const open: OpenMessage = { type: "open", ...(await exchange(world, acceptor, token)) };
    const stream = await world.raw(acceptor);
    const end = await stream.ended();
    assert.ok(end instanceof PeeringError);
    assert.deepEqual(statusOf(end), [
      StatusCode.FailedPrecondition,
      "cannot establish a peering stream on a follower node",
    ]);
    leadership.move(true);
    const again = await world.raw(acceptor);
    await again.say(open);
    await world.until(() => acceptor.state("dialer") === "active", "the leader takes it");
  });

  it("leadership lost while a stream runs ends it at its next message, not before (ch1 case 20, ch3 case 40)", async () => {
    const world = new World();
    const leadership = new MovableLeadership();
    const acceptor = await world.site("acceptor", { leadership });
    const { stream } = await openAs(world, acceptor, "dialer");
    leadership.move(false, "10.0.0.9:8300");
    await world.pass(10_000);
    assert.equal(stream.end, undefined);
    await stream.say({ type: "heartbeat" });
    assert.deepEqual(statusOf(await stream.ended()), [
      StatusCode.FailedPrecondition,
      "node is not a leader anymore; cannot continue streaming",
    ]);
  });

  it("a leader transfer at either side, and replication goes on (ch3 case 21)", async () => {
    for (const side of ["acceptor", "dialer"] as const) {
      const world = new World();
      const leadership = new MovableLeadership();
      const sites = await peered(world, { [side]: { leadership } });
      leadership.move(false);
      await world.until(() => sites.acceptor.state("dialer") === "failing", "the stream ends");
      await world.pass(5_000);
      const opens = world.messages(sites.dialer, "open").length;
      if (side === "dialer") {
        await world.pass(60_000);
        assert.equal(world.messages(sites.dialer, "open").length, opens, "a follower does not dial");
      }
      leadership.move(true);
      await world.settled(sites.acceptor, "dialer", sites.dialer, "acceptor");
      await world.result(sites.acceptor.host.exports.delete());
      await world.until(() => Object.keys(sites.dialer.imported("acceptor")).length === 0, "an un-export arrives");
    }
  });

  it("a follower cleans nothing up; once it leads it does (I26)", async () => {
    const world = new World();
    const leadership = new MovableLeadership();
    const { acceptor } = await peered(world, { acceptor: { leadership } });
    leadership.move(false);
    await world.result(acceptor.host.peerings.delete("dialer"));
    await world.pass(120_000);
    assert.equal(acceptor.state("dialer"), "deleting");
    leadership.move(true);
    await world.until(() => acceptor.state("dialer") === "none", "the new leader finishes it");
  });
});

describe("what we send on an open stream", () => {
  it("sends nothing of a type before it is subscribed to (ch4 case 28)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    await offer(world, acceptor, "dialer", "web");
    const { stream, open } = await openAs(world, acceptor, "dialer");
    const urls = (): readonly string[] =>
      stream.received.flatMap((message) => (message.type === "response" ? [message.resourceUrl] : []));
    await world.pass(10_000);
    assert.deepEqual(urls(), []);
    const { exportedService, exportedServiceList, trustBundle, serverAddresses } = ResourceUrl;
    for (const [url, more] of [
      [serverAddresses, [serverAddresses]],
      [trustBundle, [trustBundle]],
      [exportedService, [exportedServiceList, exportedService]],
    ] as const) {
      const before = urls().length;
      await stream.say(subscribe(url, open.peerId));
      await world.pass(1_000);
      assert.deepEqual([...new Set(urls().slice(before))], more);
    }
  });

  it("a service too large for the peer is held back alone, named, and goes out when it shrinks (ch1 case 123, D-28)", async () => {
    const world = new World();
    const limit = 2_000;
    const { acceptor, dialer } = await peered(world, { acceptor: { limits: { maxSendToDialerBytes: limit } } });
    const service = (filling: string): Promise<unknown> =>
      world.result(
        acceptor.host.catalog.register({
          node: "n9",
          address: "10.0.0.9",
          service: { id: "web-9", name: "web", port: 9, meta: { a: filling, b: filling, c: filling, d: filling } },
        }),
      );
    await service("x".repeat(500));
    const withheld = (): ReadonlyMap<string, string> => acceptor.peering("dialer").status.withheldServices;
    await world.until(() => withheld().has("web"), "it is held back");
    assert.match(withheld().get("web") ?? "", /^2\d\d\d bytes are more than the peer accepts in one message$/);
    assert.ok(acceptor.log.has("warn", "service is too large for the peer and is held back"));
    await world.result(register(acceptor.host, "db", "2"));
    await world.until(() => dialer.count("acceptor", "db") === 2, "others flow");
    assert.equal(dialer.count("acceptor", "web"), 1, "the peer keeps what it had");
    await service("x");
    await world.until(() => dialer.count("acceptor", "web") === 2, "it goes out");
    assert.deepEqual([...withheld()], []);
    assert.equal(world.messages(dialer, "open").length, 1);
  });
});

describe("what a peer sends on an open stream", () => {
  it("each response is answered by itself, the stream stays, and only good ones are stored (ch1 cases 44 to 51, 54, 98, 100 and 110)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream } = await openAs(world, acceptor, "dialer");
    const good = upsert(1, "web", servicePayload("web", 2));
    await stream.say(good);
    assert.deepEqual(await answerTo(world, stream, "00000001"), [0, ""]);
    assert.deepEqual(acceptor.imported("dialer"), { web: 2 });
    const before = await contentOf(world, acceptor);

    const foreign = (nonce: number): ReplicationMessage => response(nonce, "nomad.Job", "x", new Uint8Array());
    const other = { typeUrl: ResourceUrl.trustBundle, value: new Uint8Array() };
    const { resource: _, ...without } = upsert(6, "web", new Uint8Array());
    const cases: readonly (readonly [ReplicationMessage, string, number, RegExp])[] = [
      [foreign(2), "00000002", 3, /^received response for unknown resource type "nomad.Job"$/],
      [{ ...good, nonce: "" }, "", 3, /^received response without a nonce for: .*ExportedService:web$/],
      [{ ...good, nonce: "3", operation: 0 }, "3", 3, /^unsupported operation: "OPERATION_UNSPECIFIED"$/],
      [{ ...good, nonce: "4", operation: 100_000 }, "4", 3, /^unsupported operation: 100000$/],
      [{ ...good, nonce: "5", operation: 2 }, "5", 3, /^unsupported operation: 2$/],
      [without, "00000006", 3, /^received upsert response with no content$/],
      [{ ...good, nonce: "7", resource: other }, "7", 13, /mismatched resourceURL/],
      [upsert(8, "web", Buffer.from("garbage")), "00000008", 13, /failed to unmarshal resource/],
      [upsert(9, "api", servicePayload("web")), "00000009", 13, /web/],
      [
        response(10, ResourceUrl.exportedServiceList, "exported-service-list", Buffer.from([0xff])),
        "0000000a",
        13,
        /unmarshal/,
      ],
      [
        response(11, ResourceUrl.serverAddresses, "server-addrs", encodeServerAddresses(["a:1"])),
        "0000000b",
        13,
        /Cannot switch peering dialing mode from false to true$/,
      ],
      [
        response(
          12,
          ResourceUrl.trustBundle,
          "roots",
          encodeTrustBundle({ trustDomain: "x.consul", rootPems: [], exportedPartition: "" }),
        ),
        "0000000c",
        13,
        /root/,
      ],
    ];
    for (const [message, nonce, code, text] of cases) {
      await stream.say(message);
      const [gotCode, gotText] = await answerTo(world, stream, nonce);
      assert.equal(gotCode, code, gotText);
      assert.match(gotText, text);
    }
    assert.equal(stream.end, undefined);
    assert.equal(await contentOf(world, acceptor), before);
    assert.notEqual(acceptor.peering("dialer").status.facts.lastReceiveErrorMessage, "");

    await stream.say(upsert(20, "api", servicePayload("api")), list(21, "api"));
    assert.deepEqual(await answerTo(world, stream, "00000015"), [0, ""]);
    assert.deepEqual(acceptor.imported("dialer"), { api: 1 });
    await stream.say(upsert(22, "api", new Uint8Array()));
    assert.deepEqual(await answerTo(world, stream, "00000016"), [0, ""]);
    assert.deepEqual(acceptor.imported("dialer"), {});
  });

  it("a request for what does not exist, or a first one that answers, ends the stream (ch1 cases 37 and 38)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const unknown = await openAs(world, acceptor, "one");
    await unknown.stream.say(subscribe("nomad.Job"));
    assert.deepEqual(statusOf(await unknown.stream.ended()), [
      StatusCode.InvalidArgument,
      "subscription request to unknown resource URL: nomad.Job",
    ]);
    const answering = await openAs(world, acceptor, "two");
    await answering.stream.say({ ...subscribe(ResourceUrl.exportedService), responseNonce: "00000001" });
    const [code] = statusOf(await answering.stream.ended());
    assert.equal(code, StatusCode.InvalidArgument);
    assert.deepEqual([acceptor.state("one"), acceptor.state("two")], ["failing", "failing"]);
    assert.notEqual(acceptor.peering("one").status.facts.disconnectErrorMessage, "");
  });

  it("bytes that are no message end the stream with INTERNAL, and the next one works", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream, open } = await openAs(world, acceptor, "dialer");
    await stream.sayBytes(Buffer.from([0x0a, 0x7f, 0x01]));
    const [code] = statusOf(await stream.ended());
    assert.equal(code, StatusCode.Internal);
    const next = await world.raw(acceptor);
    await next.say(open);
    await world.until(() => acceptor.state("dialer") === "active", "the next one is taken");
  });

  it("a message without payload and a second Open are ignored (ch1 case 66)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream, open } = await openAs(world, acceptor, "dialer");
    await stream.sayBytes(new Uint8Array());
    await stream.say(open, { ...open, streamSecretId: "wrong" }, upsert(1, "web", servicePayload("web")));
    assert.deepEqual(await answerTo(world, stream, "00000001"), [0, ""]);
    assert.equal(stream.end, undefined);
  });

  it("without heartbeats the stream ends after 120 s, whatever else arrives (ch1 cases 56 and 59, ch3 case 53)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream } = await openAs(world, acceptor, "dialer");
    const began = world.scheduler.now;
    for (let nonce = 1; stream.end === undefined && nonce < 60; nonce++) {
      await stream.say(upsert(nonce, "web", servicePayload("web", nonce)));
      await world.pass(5_000);
    }
    const [code, text] = statusOf(await stream.ended());
    assert.deepEqual([code, text], [StatusCode.Unknown, "heartbeat timeout"]);
    assert.ok(world.scheduler.now - began >= 120_000);
    assert.deepEqual(
      [acceptor.state("dialer"), acceptor.peering("dialer").status.lastFailure?.code],
      ["failing", "peer-silent"],
    );
  });

  it("a NACK shows in the status with the service it is about (ch1 case 41, ch3 case 52)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const { stream } = await openAs(world, acceptor, "dialer");
    await stream.say(subscribe(ResourceUrl.trustBundle, acceptor.peering("dialer").id));
    await world.until(() => stream.received.some(({ type }) => type === "response"), "our bundle arrives");
    const bundle = stream.received.find((message) => message.type === "response");
    if (bundle?.type !== "response") throw new Error("no bundle");
    const error = { code: 13, message: "bad bad not good" };
    await stream.say({ ...subscribe(ResourceUrl.trustBundle), responseNonce: bundle.nonce, error });
    const { facts } = acceptor.peering("dialer").status;
    await world.until(() => acceptor.peering("dialer").status.facts.lastNack !== undefined, "it is noted");
    assert.equal(facts.lastNackMessage, "");
    assert.equal(
      acceptor.peering("dialer").status.facts.lastNackMessage,
      "client peer was unable to apply resource: bad bad not good",
    );
    assert.equal(stream.end, undefined);
  });
});
