import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { grpcTransport } from "../../../src/transport/grpc.js";
import { KeptConnections } from "../../../src/transport/kept-connections.js";
import type { DialTarget, Transport } from "../../../src/transport/transport.js";
import { RootsReader } from "../../../src/transport/trusted-roots.js";
import { fixedIdentity, newAuthority, newLeaf, SERVER_NAME } from "./certificates.js";
import { type Acceptor, failure, never, startAcceptor } from "./grpc-harness.js";

const root = await newAuthority("Root");
const otherRoot = await newAuthority("Other Root");
const identity = fixedIdentity(await newLeaf(root));
const request = { peerId: "id", establishmentSecret: "secret" };

interface Pair {
  readonly target: DialTarget;
  readonly dialer: Transport;
  /** Exchanges a secret. @returns the dialer's end of the connection, as the acceptor sees it. */
  exchange(target?: DialTarget): Promise<string>;
  /** The same of a stream. */
  stream(target?: DialTarget): Promise<string>;
}

async function withPair(action: (pair: Pair) => Promise<void>, refusal?: PeeringError): Promise<void> {
  const from: string[] = [];
  await using acceptor: Acceptor = await startAcceptor(
    { listen: "127.0.0.1:0" },
    identity,
    async (_, remoteAddress) => {
      from.push(remoteAddress);
      if (refusal !== undefined) throw refusal;
      return { streamSecret: "granted" };
    },
  );
  await using dialer = grpcTransport();
  const target = { address: acceptor.address, serverName: SERVER_NAME, caPems: [root.certificatePem] };
  await action({
    target,
    dialer,
    exchange: async (given = target) => {
      await dialer.exchangeSecret(given, request, { timeoutMs: 10_000, signal: never });
      return from.at(-1) ?? "";
    },
    stream: async (given = target) => {
      const stream = await dialer.openStream(given, { signal: never });
      await stream.send([Uint8Array.of(1)]);
      const accepted = await acceptor.next();
      const large = new Uint8Array(512 * 1024);
      await accepted.send([large]);
      assert.deepEqual(await stream.receive(), [large]);
      return accepted.remoteAddress;
    },
  });
}

describe("the connection over which a secret was exchanged", () => {
  it("carries the stream that follows, and no other one", async () => {
    await withPair(async ({ exchange, stream }) => {
      const used = await exchange();
      assert.equal(await stream(), used);
      assert.notEqual(await stream(), used);
    });
  });

  it("carries none that trusts other roots, goes by another name, or leads elsewhere", async () => {
    await withPair(async ({ target, dialer, exchange, stream }) => {
      const used = await exchange();
      const both = { ...target, caPems: [otherRoot.certificatePem, root.certificatePem] };
      assert.notEqual(await stream(both), used);
      for (const other of [
        { ...target, caPems: [otherRoot.certificatePem] },
        { ...target, serverName: "server.dc2.peering.x.consul" },
      ]) {
        assert.equal((await failure(dialer.openStream(other, { signal: never }))).code, "unauthenticated");
      }
      const elsewhere = { ...target, address: target.address.replace("127.0.0.1", "localhost") };
      assert.notEqual(await stream(elsewhere), used);
      assert.equal(await stream(), used);
    });
  });

  it("carries none to an address that must not be dialed any more", async () => {
    await withPair(async ({ target, dialer, exchange }) => {
      await exchange();
      const opening = dialer.openStream({ ...target, mayDial: () => false }, { signal: never });
      assert.match((await failure(opening)).message, /must not be dialed/);
    });
  });

  it("carries none where the exchange was refused", async () => {
    const refusal = new PeeringError("permission-denied", "used up", { status: 7 });
    await withPair(async ({ exchange, stream, dialer, target }) => {
      assert.equal((await failure(exchange())).status, 7);
      const used = await stream();
      assert.equal(
        (await failure(dialer.exchangeSecret(target, request, { timeoutMs: 10_000, signal: never }))).status,
        7,
      );
      assert.notEqual(await stream(), used);
    }, refusal);
  });

  it("is closed with the transport", async () => {
    await withPair(async ({ exchange, dialer, target }) => {
      await exchange();
      await dialer[Symbol.asyncDispose]();
      assert.equal((await failure(dialer.openStream(target, { signal: never }))).code, "closed");
    });
  });
});

describe("kept connections", () => {
  const targetOf = (peer: number): DialTarget => ({ address: `10.0.0.1:${peer}`, serverName: "a", caPems: [] });
  function fake() {
    const lost: (() => void)[] = [];
    const connection = {
      remoteAddress: "10.0.0.1:1",
      isClosed: false,
      failure: (): PeeringError | undefined => undefined,
      close: async () => {
        connection.isClosed = true;
      },
      session: { closed: false, once: (_: "close", listener: () => void) => lost.push(listener) },
      lose: () => {
        connection.session.closed = true;
        for (const listener of lost) listener();
      },
    };
    return connection;
  }

  it("are closed after two seconds", async () => {
    const clock = testClock();
    const kept = new KeptConnections<ReturnType<typeof fake>>(clock);
    const [unused, used] = [fake(), fake()];
    kept.keep(targetOf(1), unused);
    kept.keep(targetOf(2), used);
    await clock.advance(1_999);
    assert.equal(kept.take(targetOf(2)), used);
    await clock.advance(1);
    assert.deepEqual([unused.isClosed, used.isClosed, kept.size], [true, false, 0]);
    assert.equal(kept.take(targetOf(1)), undefined);
  });

  it("are sixteen at most, and one of each target: the oldest is closed", () => {
    const kept = new KeptConnections<ReturnType<typeof fake>>(testClock());
    const connections = Array.from({ length: 17 }, fake);
    for (const [peer, connection] of connections.entries()) kept.keep(targetOf(peer), connection);
    assert.equal(kept.size, 16);
    assert.deepEqual(
      connections.map(({ isClosed }) => isClosed),
      connections.map((_, peer) => peer === 0),
    );
    const newer = fake();
    kept.keep(targetOf(5), newer);
    assert.equal(connections[5]?.isClosed, true);
    assert.equal(kept.take(targetOf(5)), newer);
  });

  it("are not handed on once they are lost", () => {
    const kept = new KeptConnections<ReturnType<typeof fake>>(testClock());
    const [lost, failed] = [fake(), fake()];
    kept.keep(targetOf(1), lost);
    lost.lose();
    assert.equal(kept.size, 0);
    kept.keep(targetOf(2), failed);
    failed.failure = () => new PeeringError("unavailable", "gone");
    assert.equal(kept.take(targetOf(2)), undefined);
    assert.equal(failed.isClosed, true);
  });
});

describe("roots that peers are dialed with", () => {
  it("are read once, and again where their text is another one", () => {
    const reader = new RootsReader();
    const first = reader.read([root.certificatePem]);
    assert.equal(reader.read([root.certificatePem]), first);
    for (const other of [
      [otherRoot.certificatePem],
      [root.certificatePem, otherRoot.certificatePem],
      [otherRoot.certificatePem, root.certificatePem],
      [root.certificatePem + otherRoot.certificatePem],
    ]) {
      assert.notEqual(reader.read(other).context, first.context);
    }
    assert.equal(reader.read([root.certificatePem]), first);
  });

  it("are kept of a bounded number of peers: those that were dialed last", () => {
    const reader = new RootsReader();
    const textOf = (peer: number): readonly string[] => [`peer ${peer}\n${root.certificatePem}`];
    const first = reader.read(textOf(0));
    const second = reader.read(textOf(1));
    for (let peer = 2; peer < 300; peer++) {
      assert.equal(reader.read(textOf(0)), first);
      reader.read(textOf(peer));
    }
    assert.equal(reader.size, 256);
    assert.notEqual(reader.read(textOf(1)), second);
  });

  it("are refused each time where they hold no certificate", () => {
    const reader = new RootsReader();
    for (let time = 0; time < 2; time++) {
      assert.throws(() => reader.read(["none"]), { code: "invalid-argument", message: "failed to parse PEM none" });
    }
    assert.equal(reader.size, 0);
  });

  it("are none for plaintext", () => {
    assert.equal(new RootsReader().read([]).context, undefined);
  });
});
