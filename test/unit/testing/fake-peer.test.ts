import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import type { HostOptions } from "../../../src/host/options.js";
import type { Registration } from "../../../src/model/registration.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import {
  type FakePeer,
  type FakePeerOptions,
  fakePeer,
  keepProtocol,
  openStream,
  recordedScript,
} from "../../../src/testing/fake-peer/index.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { grpcTransport } from "../../../src/transport/grpc.js";
import { type MemoryNetwork, memoryNetwork } from "../../../src/transport/memory.js";
import { ResourceUrl } from "../../../src/wire/messages.js";
import { StatusCode } from "../../../src/wire/status.js";
import { eventually } from "../../support/hosts.js";

type Kind = "memory" | "grpc";
type Role = "acceptor" | "dialer";

interface Pair extends AsyncDisposable {
  readonly network: MemoryNetwork;
  readonly host: PeeringHost;
  readonly peer: FakePeer;
}

function web(node: string, status = "passing"): Registration {
  return {
    node,
    address: "10.0.0.1",
    service: { name: "web", port: 80 },
    check: { name: "alive", status, serviceId: "web" },
  };
}

/** A host and a fake peer of the given role that have established. The host calls it `fake`. */
async function pair(
  kind: Kind,
  role: Role,
  options: { readonly host?: Partial<HostOptions>; readonly peer?: Partial<FakePeerOptions> } = {},
): Promise<Pair> {
  const network = memoryNetwork();
  const transport = (name: string) =>
    kind === "memory" ? network.transport({ listen: `${name}:0` }) : grpcTransport({ listen: "127.0.0.1:0" });
  const host = await createHost({ storage: memoryStorage(), transport: transport("host"), ...options.host });
  const peer = await fakePeer({ transport: transport("fake"), ...options.peer });
  if (role === "acceptor") await host.peerings.establish({ peerName: "fake", token: peer.token() });
  else await peer.establish(await host.peerings.generateToken({ peerName: "fake" }));
  return {
    network,
    host,
    peer,
    async [Symbol.asyncDispose]() {
      await host[Symbol.asyncDispose]();
      await peer[Symbol.asyncDispose]();
    },
  };
}

describe("a fake peer", () => {
  for (const kind of ["memory", "grpc"] as const) {
    for (const role of ["acceptor", "dialer"] as const) {
      it(`replicates both ways as ${role} over ${kind}`, async () => {
        await using both = await pair(kind, role);
        const { host, peer } = both;
        await host.catalog.registerAll([web("n1"), web("n2")]);
        await host.exports.set({ services: [{ name: "*", consumers: [{ peer: "fake" }] }] });
        peer.offer({ node: "f1", address: "10.9.0.1", service: { name: "db", port: 5432 } });
        await peer.until(() => peer.imported.get("web")?.length === 2 && peer.acknowledged());
        assert.deepEqual(peer.listed, ["web"]);
        assert.equal(peer.trustBundle?.trustDomain, host.authority.trustDomain);
        assert.deepEqual(peer.serverAddresses, role === "dialer" ? [host.listenAddress] : undefined);
        const [db] = await host.imports.instances({ peer: "fake", service: "db" });
        assert.deepEqual([db?.node.address, db?.service.port], ["10.9.0.1", 5432]);
        await eventually(() => host.peerings.read("fake")?.status.lagMs === 0, "the peer has acknowledged everything");

        peer.withdraw("db");
        await host.catalog.deregister({ node: "n1" });
        await peer.until(() => peer.imported.get("web")?.length === 1 && peer.acknowledged());
        assert.deepEqual(host.imports.services({ peer: "fake" }), []);
      });
    }
  }

  it("takes a token once, and no secret but those it gave out", async () => {
    const network = memoryNetwork();
    await using peer = await fakePeer({ transport: network.transport({ listen: "fake:1" }) });
    await using host = await createHost({ storage: memoryStorage(), transport: network.transport() });
    const token = peer.token();
    await host.peerings.establish({ peerName: "one", token });
    const stream = await peer.connected();
    await assert.rejects(host.peerings.establish({ peerName: "two", token }), { code: "permission-denied" });
    assert.deepEqual([peer.streams.length, stream.end], [1, undefined]);
  });

  it("gives each of two readers that wait a message of its own", async () => {
    const network = memoryNetwork();
    await using peer = await fakePeer({
      transport: network.transport({ listen: "fake:1" }),
      script: async (stream) => {
        await stream.expect("open");
        stream.markOpened();
        const read = await Promise.all([stream.next(), stream.next()]);
        assert.equal(new Set(read).size, 2);
        await stream.close();
      },
    });
    await using host = await createHost({ storage: memoryStorage(), transport: network.transport() });
    await host.peerings.establish({ peerName: "fake", token: peer.token() });
    const stream = await peer.connected();
    await eventually(() => stream.end !== undefined, "both have read, and the script has closed the stream");
  });

  it("says what the host answered to whom", async () => {
    await using both = await pair("memory", "dialer");
    const { peer } = both;
    peer.offer(web("n1"));
    await peer.until(() => peer.acknowledged("web"));
    assert.deepEqual(peer.answers.get("web")?.refusal, "");
    const junk = Uint8Array.of(255, 255);
    await peer.stream.send(peer.stream.response(ResourceUrl.exportedService, "junk", junk));
    await peer.until(() => peer.answers.get("junk")?.refusal !== undefined);
    assert.match(peer.answers.get("junk")?.refusal ?? "", /failed to unmarshal resource/);
    assert.equal(peer.acknowledged(), false);
  });

  it("plays a script, and throws what the script threw", async () => {
    const network = memoryNetwork();
    const host = await createHost({ storage: memoryStorage(), transport: network.transport({ listen: "host:1" }) });
    const peer = await fakePeer({
      transport: network.transport(),
      script: async (stream, self) => {
        await stream.send(self.openMessage());
        const { resourceUrl } = await stream.expect("request");
        assert.equal(resourceUrl, "something else");
      },
    });
    await peer.establish(await host.peerings.generateToken({ peerName: "fake" }));
    await assert.rejects(
      peer.until(() => false),
      /something else/,
    );
    await peer[Symbol.asyncDispose]();
    await host[Symbol.asyncDispose]();
  });

  it("throws at its disposal what nobody waited for", async () => {
    const network = memoryNetwork();
    await using host = await createHost({
      storage: memoryStorage(),
      transport: network.transport({ listen: "host:1" }),
    });
    const failure = new Error("unheard");
    const peer = await fakePeer({ transport: network.transport(), script: () => Promise.reject(failure) });
    await peer.establish(await host.peerings.generateToken({ peerName: "fake" }));
    await assert.rejects(async () => peer[Symbol.asyncDispose](), failure);
  });

  for (const role of ["acceptor", "dialer"] as const) {
    it(`plays a recording, as ${role}`, async () => {
      await using first = await pair("memory", role);
      first.peer.offer(web("n1"), web("n2"));
      await first.peer.until(() => first.peer.acknowledged("web"));
      const recording = first.peer.stream.transcript;

      await using second = await pair("memory", role, { peer: { script: recordedScript(recording) } });
      const { host, peer } = second;
      await eventually(() => host.imports.services({ peer: "fake" }).length === 1, "the service is imported again");
      const heard = (of: FakePeer): readonly unknown[] =>
        of.stream.heard.flatMap((message) =>
          message.type === "request" ? [[message.resourceUrl, message.responseNonce, message.error]] : [],
        );
      await peer.until(() => heard(peer).length === heard(first.peer).length);
      assert.deepEqual(heard(peer).map(String).sort(), heard(first.peer).map(String).sort());
    });
  }
});

describe("a fake peer's behaviour", () => {
  it("delays what it says by as much as it is told, until it is told otherwise", async () => {
    const clock = testClock();
    await using both = await pair("memory", "acceptor", { host: { clock }, peer: { clock } });
    const { peer } = both;
    const { transcript } = await peer.connected();
    await clock.advance(1_000);
    peer.behave({ delayMs: 700 });
    const began = clock.now();
    peer.offer(web("n1"));
    await clock.advance(10_000);
    const said = transcript.find(({ from, message }) => {
      return from === "peer" && message.type === "response" && message.resourceId === "web";
    });
    assert.equal((said?.atMs ?? 0) - began, 700);
    assert.ok(peer.acknowledged("web"));

    peer.behave({ delayMs: 3_600_000 });
    peer.offer(web("n2"));
    await clock.advance(60_000);
    peer.behave({ delayMs: 0 });
    await peer.until(() => peer.acknowledged("web"));
    assert.equal((await both.host.imports.instances({ peer: "fake", service: "web" })).length, 2);
  });

  it("refuses secrets and streams with the status it is given", async () => {
    const network = memoryNetwork();
    const refuses = { code: StatusCode.FailedPrecondition, message: "not here" };
    await using peer = await fakePeer({
      transport: network.transport({ listen: "fake:1" }),
      behaviour: { refuses },
    });
    await using host = await createHost({ storage: memoryStorage(), transport: network.transport() });
    const token = peer.token();
    const establishing = host.peerings.establish({ peerName: "fake", token });
    await assert.rejects(establishing, /not here/);
    peer.behave({ refuses: undefined });
    await host.peerings.establish({ peerName: "fake", token });
    await peer.connected();
  });

  it("lets a script go on as the protocol says", async () => {
    await using both = await pair("memory", "dialer", {
      peer: {
        script: async (stream, peer) => {
          await openStream(stream, peer);
          await stream.send({ type: "unknown" });
          await keepProtocol(stream, peer);
        },
      },
    });
    both.peer.offer(web("n1"));
    await both.peer.until(() => both.peer.acknowledged("web"));
  });

  for (const role of ["acceptor", "dialer"] as const) {
    it(`deletes the peering on its side, as ${role}`, async () => {
      await using both = await pair("memory", role);
      const { host, peer } = both;
      peer.offer(web("n1"));
      await peer.until(() => peer.acknowledged("web"));
      await peer.terminate();
      await eventually(() => host.imports.services({ peer: "fake" }).length === 0, "its services are gone");
      assert.equal(host.peerings.read("fake")?.state, "terminated");
      assert.equal(peer.streams.length, 1);
    });
  }

  it("stops waiting when the test does, and when it is disposed of", async () => {
    const peer = await fakePeer({ transport: memoryNetwork().transport() });
    const reason = new Error("enough");
    await assert.rejects(
      peer.until(() => false, { signal: AbortSignal.abort(reason) }),
      reason,
    );
    const waiting = peer.until(() => false);
    await peer[Symbol.asyncDispose]();
    await assert.rejects(waiting, { code: "closed" });
    assert.throws(() => peer.token(), TypeError);
    assert.throws(() => peer.openMessage(), TypeError);
    await assert.rejects(peer.connect(), TypeError);
  });
});

describe("the clock of a test", () => {
  it("moves a host and its peer as far as the test says", async () => {
    const clock = testClock();
    await using both = await pair("memory", "acceptor", { host: { clock }, peer: { clock } });
    const { host, peer } = both;
    await peer.until(() => peer.acknowledged());
    const before = peer.stream.heard.filter(({ type }) => type === "heartbeat").length;
    await clock.advance(60_000);
    assert.equal(peer.stream.heard.filter(({ type }) => type === "heartbeat").length - before, 4);
    peer.behave({ heartbeats: false });
    await clock.advance(120_000);
    const view = host.peerings.read("fake");
    assert.deepEqual([view?.state, view?.status.lastFailure?.code], ["failing", "peer-silent"]);
    peer.behave({ heartbeats: true });
    await clock.advance(2_000);
    assert.equal(host.peerings.read("fake")?.state, "active");
  });

  it("jumps, and no timer fires", async () => {
    const clock = testClock();
    let fired = 0;
    clock.after(1_000, () => fired++);
    const wall = clock.wall();
    clock.jump(3_600_000);
    await clock.advance(999);
    assert.deepEqual([clock.wall() - wall, clock.now(), fired], [3_600_999, 999, 0]);
    clock.jump(-7_200_000);
    await clock.advance(1);
    assert.deepEqual([clock.wall() - wall, fired], [-3_599_000, 1]);
  });

  it("suspends: what fell due meanwhile comes at the end, in order", async () => {
    const clock = testClock();
    const fired: number[] = [];
    for (const at of [300, 100, 200]) clock.after(at, () => fired.push(at, clock.now()));
    await clock.suspend(1_000);
    assert.deepEqual(fired, [100, 1_000, 200, 1_000, 300, 1_000]);
  });
});
