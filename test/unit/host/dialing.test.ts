import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { machineryOf } from "../../../src/host/host.js";
import { TokenCodec } from "../../../src/token/token-codec.js";
import type { ReplicationStream, Transport } from "../../../src/transport/transport.js";
import { decodeMessage, encodeMessages } from "../../../src/wire/codec.js";
import { type ReplicationMessage, ResourceUrl } from "../../../src/wire/messages.js";
import { encodeServerAddresses } from "../../../src/wire/resources.js";
import { type Status, StatusCode } from "../../../src/wire/status.js";
import { response, subscribe } from "../../support/messages.js";
import { peer, peered, type Site, World } from "../../support/world.js";

/** An acceptor that is no host: takes every secret, and answers an Open as it is told. */
class ScriptedAcceptor {
  readonly opens: { readonly at: number; readonly address: string }[] = [];
  readonly streams: ReplicationStream[] = [];
  readonly received: ReplicationMessage[] = [];
  /** Called for each stream after its Open. */
  onOpen: (stream: ReplicationStream) => void = () => {};
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  async listen(address: string): Promise<void> {
    await this.#world.rawAcceptor(address, {
      exchangeSecret: async () => ({ streamSecret: "99999999-0000-0000-0000-000000000001" }),
      stream: (stream) => {
        this.streams.push(stream);
        void this.#serve(stream, address).catch(() => {});
      },
    });
  }

  /** Ends every stream at once with this status. */
  refuse(status: Status): void {
    this.onOpen = (stream) => void stream.close(status);
  }

  /** Speaks, as an acceptor does that takes the stream. */
  accept(): void {
    this.onOpen = (stream) =>
      void stream.send(encodeMessages([subscribe(ResourceUrl.exportedService)])).catch(() => {});
  }

  async #serve(stream: ReplicationStream, address: string): Promise<void> {
    let opened = false;
    for (let batch = await stream.receive(); batch !== undefined; batch = await stream.receive()) {
      for (const bytes of batch) this.received.push(decodeMessage(bytes));
      if (opened) continue;
      opened = true;
      this.opens.push({ at: this.#world.scheduler.now, address });
      this.onOpen(stream);
    }
  }
}

const TRUST_DOMAIN = "aaaaaaaa-2222-3333-4444-555555555555.consul";

function tokenOf(addresses: readonly string[], manual: readonly string[] = [], ca: readonly string[] = []): string {
  return TokenCodec.encode({
    ca,
    manualServerAddresses: manual,
    serverAddresses: addresses,
    serverName: `server.dc1.peering.${TRUST_DOMAIN}`,
    peerId: "99999999-8888-7777-6666-555555555555",
    establishmentSecret: "99999999-0000-0000-0000-000000000002",
    remote: { partition: "", datacenter: "dc1" },
  });
}

async function establish(world: World, dialer: Site, token: string, name = "acceptor"): Promise<void> {
  await world.result(dialer.host.peerings.establish({ peerName: name, token }));
}

/** Rounded waits between one Open and the next. */
function waits(acceptor: ScriptedAcceptor, unitMs: number): readonly number[] {
  return acceptor.opens.slice(1).map(({ at }, index) => Math.round((at - (acceptor.opens[index]?.at ?? 0)) / unitMs));
}

describe("the dial loop", () => {
  it("waits 2, 4, 8 … 64 s after any other error, for ever, and the status shows the attempts and the next one (ch3 case 11)", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("a:1");
    acceptor.refuse({ code: StatusCode.PermissionDenied, message: "invalid peering stream secret" });
    const dialer = await world.site("dialer");
    await establish(world, dialer, tokenOf(["a:1"]));
    await world.until(() => acceptor.opens.length === 4, "it was tried four times");
    const { status, state } = dialer.peering("acceptor");
    assert.equal(state, "failing", "the acceptor has answered, so the refusal shows");
    assert.equal(status.lastFailure?.code, "permission-denied");
    assert.ok(status.lastFailure?.message.endsWith("invalid peering stream secret"));
    await world.until(() => acceptor.opens.length === 10, "it goes on");
    assert.deepEqual(waits(acceptor, 1_000), [2, 4, 8, 16, 32, 64, 64, 64, 64]);
    assert.equal(dialer.peering("acceptor").status.facts.neverConnected, true);
  });

  it("a follower is left for the next address within 8 ms, and slowly when nobody leads for long (ch3 case 10)", async () => {
    const world = new World();
    world.network.weather = { lowestDelayMs: 0, highestDelayMs: 0 };
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("a:1");
    await acceptor.listen("b:1");
    acceptor.refuse({
      code: StatusCode.FailedPrecondition,
      message: "cannot establish a peering stream on a follower node",
      leaderAddress: "10.0.0.9:8300",
    });
    const dialer = await world.site("dialer");
    dialer.latencyMs = 0;
    await establish(world, dialer, tokenOf(["a:1", "b:1"]));
    await world.until(() => acceptor.opens.length === 20, "all is tried");
    assert.deepEqual(waits(acceptor, 8).slice(0, 8), [1, 1, 1, 1, 1, 2, 4, 8]);
    assert.deepEqual(waits(acceptor, 1_024).slice(-3), [8, 8, 8]);
    assert.deepEqual(
      acceptor.opens.slice(0, 4).map(({ address }) => address),
      ["a:1", "b:1", "a:1", "b:1"],
      "the leader's own address is a hint that is never dialed",
    );
  });

  it("waits 8192 ms after RESOURCE_EXHAUSTED, each time (ch3 case 12)", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("a:1");
    acceptor.refuse({ code: StatusCode.ResourceExhausted, message: "rate limit exceeded" });
    const dialer = await world.site("dialer");
    await establish(world, dialer, tokenOf(["a:1"]));
    await world.until(() => acceptor.opens.length === 6, "it goes on");
    assert.deepEqual(waits(acceptor, 1_024), [8, 8, 8, 8, 8]);
  });

  it("after a stream of a minute the count starts over, after a short one it goes on (D-5)", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("a:1");
    acceptor.refuse({ code: StatusCode.Internal, message: "no" });
    const dialer = await world.site("dialer");
    await establish(world, dialer, tokenOf(["a:1"]));
    await world.until(() => acceptor.opens.length === 5, "five failures");
    acceptor.accept();
    for (const [upMs, waitS] of [
      [30_000, 64],
      [61_000, 2],
    ] as const) {
      const opens = acceptor.opens.length;
      await world.until(() => acceptor.opens.length > opens, "it comes again");
      await world.until(() => dialer.state("acceptor") === "active", "it is connected");
      await world.pass(upMs);
      const cutAt = world.scheduler.now;
      for (const connection of world.network.connections) world.network.cut(connection);
      await world.until(() => acceptor.opens.length === opens + 2, "it comes again");
      const again = acceptor.opens.at(-1)?.at ?? 0;
      assert.equal(Math.round((again - cutAt) / 1_000), waitS);
      await acceptor.streams.at(-1)?.close({ code: StatusCode.Internal, message: "no" });
      await world.until(() => dialer.state("acceptor") === "failing", "it is down");
    }
  });

  it("is connected from the acceptor's first message, and a refused Open never reads ACTIVE (D-7, ch3 case 57)", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("a:1");
    const dialer = await world.site("dialer");
    const states: string[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const { peerings } of dialer.host.peerings.watch({ signal: stop.signal }))
        states.push(peerings[0]?.state ?? "");
    })();
    await establish(world, dialer, tokenOf(["a:1"]));
    await world.until(() => acceptor.opens.length === 1, "it is dialed");
    await world.pass(1_000);
    assert.equal(dialer.state("acceptor"), "establishing");
    await acceptor.streams[0]?.close({ code: StatusCode.Internal, message: "no" });
    await world.until(() => acceptor.opens.length === 2, "it is dialed again");
    stop.abort();
    await world.result(watching);
    assert.ok(!states.includes("active"));
    await acceptor.streams[1]?.send(encodeMessages([subscribe(ResourceUrl.exportedService)]));
    await world.until(() => dialer.state("acceptor") === "active", "the first message connects it");
  });

  it("an invalid address shows in the status, and the next one is tried (ch1 case 72, ch3 case 18)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    acceptor.crash();
    await world.until(() => dialer.state("acceptor") === "failing", "the stream is lost");
    const { id } = dialer.peering("acceptor");
    const records = machineryOf(dialer.host).records;
    await world.result(records.writeServerAddresses(id, ["gone:1", acceptor.address]));
    await world.until(
      () => dialer.peering("acceptor").status.lastFailure?.address === "gone:1",
      "the new list is begun at its head",
    );
    assert.equal(dialer.peering("acceptor").status.facts.connected, false);
    assert.match(dialer.peering("acceptor").status.facts.lastSendErrorMessage, /gone:1/);
    await acceptor.start();
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("1.1.2: an address of IPv6 that was pushed without brackets, as Consul does, is dialed", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("first:1");
    await acceptor.listen("[fd00::1]:8503");
    acceptor.accept();
    const dialer = await world.site("dialer");
    await establish(world, dialer, tokenOf(["first:1"]));
    await world.until(() => dialer.state("acceptor") === "active", "it is connected");
    const push = response(1, ResourceUrl.serverAddresses, "server-addrs", encodeServerAddresses(["fd00::1:8503"]));
    await acceptor.streams[0]?.send(encodeMessages([push]));
    await world.until(() => dialer.peering("acceptor").peerServerAddresses[0] === "fd00::1:8503", "it is stored");
    for (const connection of world.network.connections) world.network.cut(connection);
    await world.until(() => acceptor.opens.length === 2, "it comes again");
    assert.equal(acceptor.opens[1]?.address, "[fd00::1]:8503");
  });

  it("manual addresses win over pushed ones, which are stored all the same (ch3 case 23, ch1 case 53, LC19, I27)", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("manual:1");
    await acceptor.listen("pushed:1");
    acceptor.accept();
    const dialer = await world.site("dialer");
    await establish(world, dialer, tokenOf(["pushed:1"], ["manual:1"]));
    await world.until(() => dialer.state("acceptor") === "active", "it is connected");
    const push = response(1, ResourceUrl.serverAddresses, "server-addrs", encodeServerAddresses(["pushed:1", "p:2"]));
    await acceptor.streams[0]?.send(encodeMessages([push]));
    await world.until(() => dialer.peering("acceptor").peerServerAddresses.length === 2, "they are stored");
    assert.deepEqual(dialer.peering("acceptor").manualServerAddresses, ["manual:1"]);
    for (let round = 2; round < 5; round++) {
      for (const connection of world.network.connections) world.network.cut(connection);
      await world.until(() => acceptor.opens.length === round, "it comes again");
    }
    assert.deepEqual([...new Set(acceptor.opens.map(({ address }) => address))], ["manual:1"]);
  });

  it("invalid addresses are refused by name, and those known stay", async () => {
    for (const address of ["nonsense", "host:0", "host:x"]) {
      const world = new World();
      const acceptor = new ScriptedAcceptor(world);
      await acceptor.listen("a:1");
      acceptor.accept();
      const dialer = await world.site("dialer");
      await establish(world, dialer, tokenOf(["a:1"]));
      await world.until(() => dialer.state("acceptor") === "active", "it is connected");
      const push = response(1, ResourceUrl.serverAddresses, "server-addrs", encodeServerAddresses(["a:1", address]));
      await acceptor.streams[0]?.send(encodeMessages([push]));
      const refusal = (): string | undefined =>
        acceptor.received.flatMap((message) => (message.type === "request" ? (message.error?.message ?? []) : []))[0];
      await world.until(() => refusal() !== undefined, "it is refused");
      assert.ok(refusal()?.includes(`${address} is not a valid peering server address`), refusal());
      assert.deepEqual(dialer.peering("acceptor").peerServerAddresses, ["a:1"]);
    }
  });

  it("an empty list of addresses is refused, with and without manual ones (ch1 case 55, D-32)", async () => {
    for (const manual of [[], ["a:1"]]) {
      const world = new World();
      const acceptor = new ScriptedAcceptor(world);
      await acceptor.listen("a:1");
      acceptor.accept();
      const dialer = await world.site("dialer");
      await establish(world, dialer, tokenOf(["a:1"], manual));
      await world.until(() => dialer.state("acceptor") === "active", "it is connected");
      const push = response(1, ResourceUrl.serverAddresses, "server-addrs", encodeServerAddresses([]));
      await acceptor.streams[0]?.send(encodeMessages([push]));
      const refusals = (): readonly (string | undefined)[] =>
        acceptor.received.flatMap((message) =>
          message.type === "request" && message.error ? [message.error.message] : [],
        );
      await world.until(() => refusals().length === 1, "it is refused");
      assert.match(refusals()[0] ?? "", /Cannot switch peering dialing mode from true to false$/);
      assert.deepEqual(dialer.peering("acceptor").peerServerAddresses, ["a:1"]);
    }
  });

  it("a change of the dialed cluster or addresses restarts the wait, the count and the ring (ch3 cases 8 and 24)", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    for (const address of ["a:1", "b:1", "c:1"]) await acceptor.listen(address);
    acceptor.refuse({ code: StatusCode.Internal, message: "no" });
    const dialer = await world.site("dialer");
    await establish(world, dialer, tokenOf(["a:1", "b:1"]));
    await world.until(() => acceptor.opens.length === 6, "the wait is 64 s by now");
    await world.pass(1_000);
    const { id } = dialer.peering("acceptor");
    const changedAt = world.scheduler.now;
    await world.result(machineryOf(dialer.host).records.writeServerAddresses(id, ["c:1", "a:1"]));
    await world.until(() => acceptor.opens.length === 9, "it is tried again");
    const after = acceptor.opens.slice(6);
    assert.deepEqual(
      after.map(({ address }) => address),
      ["c:1", "a:1", "c:1"],
    );
    assert.deepEqual(
      after.map(({ at }) => Math.round((at - changedAt) / 1_000)),
      [0, 2, 6],
    );
  });

  it("an acceptor that pushes another address on each stream and hangs up is not dialed without a pause (I25)", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("a:1");
    let pushed = 0;
    acceptor.onOpen = (stream) => {
      const addresses = encodeServerAddresses(["a:1", `b:${++pushed}`]);
      const push = response(1, ResourceUrl.serverAddresses, "server-addrs", addresses);
      void stream.send(encodeMessages([subscribe(ResourceUrl.exportedService), push])).then(() => {
        // Once it is stored, or while it is still being stored: neither makes the next attempt come any sooner.
        const hangUp = (): void => void stream.close({ code: StatusCode.Unknown, message: "hung up" });
        world.scheduler.after(pushed % 2 === 0 ? 5 : 50, hangUp);
      });
    };
    const dialer = await world.site("dialer");
    dialer.latencyMs = 20;
    await establish(world, dialer, tokenOf(["a:1"]));
    await world.until(() => acceptor.opens.length === 1, "it is dialed");
    await world.pass(30_000);
    assert.ok(acceptor.opens.length > 5, `${acceptor.opens.length} opens`);
    assert.ok(acceptor.opens.length <= 31, `${acceptor.opens.length} opens in 30 s`);
  });

  it("a change of the record does not touch a stream that stands (ch3 case 7)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const { id } = dialer.peering("acceptor");
    const { connectTime } = dialer.peering("acceptor").status.facts;
    await world.result(machineryOf(dialer.host).records.writeServerAddresses(id, ["elsewhere:1", acceptor.address]));
    acceptor.authority.rotate();
    await peer(world, acceptor, dialer);
    await world.pass(60_000);
    assert.equal(dialer.peering("acceptor").status.facts.connectTime, connectTime);
    assert.equal(world.messages(dialer, "open").length, 1);
  });

  it("a record that cannot be dialed does not keep another one from it (ch3 case 9)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const other = new ScriptedAcceptor(world);
    await other.listen("o:1");
    other.refuse({ code: StatusCode.Unavailable, message: "authentication handshake failed" });
    await establish(world, dialer, tokenOf(["o:1"]), "other");
    for (const connection of world.network.connections) world.network.cut(connection);
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    assert.notEqual(dialer.state("other"), "active");
    assert.equal(dialer.peering("other").status.lastFailure?.code, "unavailable");
  });

  it("a record without a stream secret is not dialed; once it has one it is (ch3 case 5)", async () => {
    const world = new World();
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("a:1");
    acceptor.accept();
    const dialer = await world.site("dialer");
    const { records } = machineryOf(dialer.host);
    const begun = await world.result(
      records.beginEstablish({
        peerName: "acceptor",
        connected: false,
        token: {
          ca: [],
          manualServerAddresses: [],
          serverAddresses: ["a:1"],
          serverName: "",
          peerId: "99999999-8888-7777-6666-555555555555",
          remote: { partition: "", datacenter: "" },
        },
      }),
    );
    await world.pass(300_000);
    assert.equal(acceptor.opens.length, 0);
    await world.result(records.finishEstablish(begun, "99999999-0000-0000-0000-000000000001"));
    await world.until(() => dialer.state("acceptor") === "active", "it is dialed by itself");
  });

  it("with peering switched off nothing is dialed, accepted or cleaned up, and each call says so (ch3 cases 3 and 4, LC20)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    await world.result(dialer.host.peerings.delete("acceptor"));
    dialer.crash();
    await acceptor.restart();
    const opens = world.messages(dialer, "open").length;
    await dialer.start({ peeringEnabled: false });
    await world.pass(300_000);
    assert.equal(world.messages(dialer, "open").length, opens);
    const { records } = machineryOf(dialer.host);
    assert.equal(records.byName("acceptor")?.state, "deleting");
    assert.equal(dialer.host.listenAddress, undefined);
    const { peerings } = dialer.host;
    for (const call of [
      () => peerings.delete("acceptor"),
      () => peerings.generateToken({ peerName: "x" }),
      () => peerings.establish({ peerName: "x", token: tokenOf(["a:1"]) }),
    ]) {
      const refusal = await world.refusal(call());
      assert.equal(refusal.status, StatusCode.FailedPrecondition);
      assert.match(refusal.message, /peering must be enabled/i);
    }
    assert.throws(() => dialer.host.peerings.list(), { status: StatusCode.FailedPrecondition });
    await dialer.restart({ peeringEnabled: true });
    await world.until(() => dialer.state("acceptor") === "none", "switched on, it is cleaned up");
  });

  it("nothing in any path waits zero milliseconds: an acceptor that slams the door costs few attempts (I25)", async () => {
    const world = new World();
    world.network.weather = { lowestDelayMs: 0, highestDelayMs: 0 };
    const acceptor = new ScriptedAcceptor(world);
    await acceptor.listen("a:1");
    acceptor.refuse({ code: StatusCode.Ok, message: "" });
    const dialer = await world.site("dialer");
    await establish(world, dialer, tokenOf(["a:1"]));
    await world.pass(60_000);
    assert.ok(acceptor.opens.length <= 6, `${acceptor.opens.length} attempts in a minute`);
    assert.match(dialer.peering("acceptor").status.lastFailure?.message ?? "", /stream ended unexpectedly/);
  });
});

describe("silence", () => {
  it("a half-open stream reads FAILING on both sides after 120 s, and heals (L8, ch1 case 56, ch3 case 53)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    for (const connection of world.network.connections) world.network.freeze(connection);
    const frozenAt = world.scheduler.now;
    await world.until(() => dialer.state("acceptor") === "failing", "the dialer gives it up");
    assert.ok(world.scheduler.now - frozenAt <= 121_000);
    assert.equal(dialer.peering("acceptor").status.lastFailure?.code, "peer-silent");
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    assert.equal(world.messages(dialer, "open").length, 2);
  });

  it("the stream of a peer that reads nothing while messages wait is ended, although it sends heartbeats (ch1 case 119, D-10)", async () => {
    const world = new World();
    const acceptor = await world.site("acceptor");
    const transport: Transport = world.network.transport("raw:1", { alive: true });
    const token = TokenCodec.decode(await world.result(acceptor.host.peerings.generateToken({ peerName: "dialer" })));
    const { peerId, establishmentSecret } = token;
    const signal = new AbortController().signal;
    const target = { address: acceptor.address, serverName: "", caPems: [] };
    const { streamSecret } = await world.result(
      transport.exchangeSecret(target, { peerId, establishmentSecret }, { timeoutMs: 5_000, signal }),
    );
    const services = Array.from({ length: 200 }, (_, index) => ({
      node: "n1",
      address: "10.0.0.1",
      service: { id: `s${index}`, name: `s${index}`, port: 1, meta: { filling: "x".repeat(500) } },
    }));
    await world.result(acceptor.host.catalog.registerAll(services));
    await world.result(acceptor.host.exports.set({ services: [{ name: "*", consumers: [{ peer: "dialer" }] }] }));
    const stream = await world.result(transport.openStream(target, { signal }));
    const remote = { partition: "", datacenter: "raw" };
    await world.result(
      stream.send(
        encodeMessages([
          { type: "open", peerId, streamSecretId: streamSecret, remote },
          subscribe(ResourceUrl.exportedService, peerId),
        ]),
      ),
    );
    await world.until(() => acceptor.state("dialer") === "active", "it is taken");
    const began = world.scheduler.now;
    for (let beat = 0; beat < 20 && acceptor.state("dialer") === "active"; beat++) {
      await world.result(stream.send(encodeMessages([{ type: "heartbeat" }])).catch(() => {}));
      await world.pass(10_000);
    }
    const { status, state } = acceptor.peering("dialer");
    assert.equal(state, "failing");
    assert.deepEqual([status.lastFailure?.code, status.lastFailure?.message], ["peer-stalled", "peer accepts no data"]);
    assert.ok(world.scheduler.now - began >= 120_000);
  });

  it("a frozen acceptor that thaws: the attempt under way succeeds, or the next one (ch3 case 26)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    world.network.partition(acceptor.address, dialer.address);
    await world.until(() => dialer.state("acceptor") === "failing", "the dialer notices");
    await world.pass(200_000);
    assert.ok(dialer.peering("acceptor").status.failedAttempts >= 3);
    const healedAt = world.scheduler.now;
    world.network.healAll();
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    assert.ok(world.scheduler.now - healedAt <= 64_000 + 20_000, "L1: within the longest wait and one connect bound");
  });

  it("heartbeats leave every 15 s on both sides (ch3 case 54)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    await world.pass(151_000);
    for (const site of [acceptor, dialer]) {
      const beats = world.sent.filter(({ from, message }) => from === site.address && message.type === "heartbeat");
      assert.equal(beats.length, 10);
    }
  });
});

describe("a storage that fails", () => {
  it("an import that cannot be stored is tried three times, refused, the stream closed; the next one brings it all (ch1 case 118, D-31)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    const commitsBefore = dialer.commits;
    dialer.fate = () => "fail";
    const answered = world.messages(dialer, "request").length;
    await world.result(
      acceptor.host.catalog.register({
        node: "n9",
        address: "10.0.0.9",
        service: { id: "web-9", name: "web", port: 9 },
      }),
    );
    await world.until(() => dialer.state("acceptor") === "failing", "the stream is closed");
    assert.equal(dialer.commits - commitsBefore, 3);
    const answers = world.messages(dialer, "request").slice(answered);
    assert.deepEqual(
      answers.map(({ error }) => error?.code),
      [13],
      "one NACK and no ACK",
    );
    assert.deepEqual(dialer.imported("acceptor"), { db: 1, web: 1 }, "nothing half there");
    dialer.fate = () => "succeed";
    await world.until(() => dialer.count("acceptor", "web") === 2, "the next stream brings it");
    await world.settled(acceptor, "dialer", dialer, "acceptor");
  });

  it("with strictConsul the stream stays (ch1 case 118)", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world, { dialer: { strictConsul: true } });
    dialer.fate = () => "fail";
    await world.result(
      acceptor.host.catalog.register({
        node: "n9",
        address: "10.0.0.9",
        service: { id: "web-9", name: "web", port: 9 },
      }),
    );
    await world.until(() => acceptor.peering("dialer").status.facts.lastNack !== undefined, "it is refused");
    dialer.fate = () => "succeed";
    await world.pass(60_000);
    assert.deepEqual([dialer.state("acceptor"), dialer.count("acceptor", "web")], ["active", 1]);
    assert.deepEqual([...acceptor.peering("dialer").status.withheldServices.keys()], ["web"]);
    await world.result(
      acceptor.host.catalog.register({
        node: "n8",
        address: "10.0.0.8",
        service: { id: "web-8", name: "web", port: 8 },
      }),
    );
    await world.until(() => dialer.count("acceptor", "web") === 3, "the next change brings it");
  });

  it("a storage that lags does not keep heartbeats, answers and other streams from flowing", async () => {
    const world = new World();
    const { acceptor, dialer } = await peered(world);
    dialer.latencyMs = 30_000;
    for (let port = 1; port < 20; port++) {
      await world.result(
        acceptor.host.catalog.register({
          node: "n9",
          address: "10.0.0.9",
          service: { id: "web-9", name: "web", port },
        }),
      );
      await world.pass(10_000);
    }
    assert.deepEqual([acceptor.state("dialer"), dialer.state("acceptor")], ["active", "active"]);
    assert.ok((acceptor.peering("dialer").status.lagMs ?? 0) > 0, "it shows");
    dialer.latencyMs = 0.5;
    await world.settled(acceptor, "dialer", dialer, "acceptor");
    const seen = await world.result(dialer.host.imports.instances({ peer: "acceptor", service: "web" }));
    assert.ok(seen.some(({ service }) => service.port === 19));
  });
});
