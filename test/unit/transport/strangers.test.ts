import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders } from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { describe, it } from "node:test";
import { Incidents } from "../../../src/base/incidents.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { parseAddress } from "../../../src/transport/address.js";
import { ConnectionLimits } from "../../../src/transport/connection-limits.js";
import { type GrpcLimits, type GrpcTransportOptions, grpcTransport } from "../../../src/transport/grpc.js";
import { eventually } from "../../support/hosts.js";
import { fixedIdentity, newAuthority, newLeaf, SERVER_NAME } from "./certificates.js";
import { type Acceptor, never, plaintext, startAcceptor } from "./grpc-harness.js";

const SERVICE = "/hashicorp.consul.internal.peerstream.PeerStreamService";
const root = await newAuthority("Root");
const identity = fixedIdentity(await newLeaf(root));

interface Served extends Acceptor {
  counts(): Readonly<Record<string, number>>;
}

async function serving(limits: Partial<GrpcLimits>, options: GrpcTransportOptions = {}): Promise<Served> {
  const incidents = new Incidents();
  const listen = options.listen === undefined ? { plaintextListen: "127.0.0.1:0" } : {};
  const acceptor = await startAcceptor({ ...listen, ...options, limits, incidents }, identity);
  return Object.assign(acceptor, { counts: () => Object.fromEntries(incidents.counts()) });
}

/** @param source - the last byte of an address of the loopback interface. */
async function session({ address }: Acceptor, source = 1): Promise<ClientHttp2Session> {
  const { host, port } = parseAddress(address);
  const one = connect(`http://${address}`, {
    createConnection: () => connectTcp({ host, port, localAddress: `127.0.0.${source}` }),
  });
  one.on("error", () => {});
  await once(one, "remoteSettings");
  return one;
}

function request(client: ClientHttp2Session, method: string, body: Uint8Array): ClientHttp2Stream {
  const headers = { ":method": "POST", ":path": `${SERVICE}/${method}`, "content-type": "application/grpc" };
  const stream = client.request(headers);
  stream.on("error", () => {});
  stream.resume();
  stream.write(body);
  return stream;
}

async function statusOf(stream: ClientHttp2Stream): Promise<string | undefined> {
  const [headers]: [IncomingHttpHeaders] = (await once(stream, "response")) as [IncomingHttpHeaders];
  return headers["grpc-status"]?.toString();
}

/** A message of which a part is missing. */
const unfinished: Uint8Array = Uint8Array.of(0, 0, 0, 0x10, 0, 1, 2, 3);

async function tcp({ address }: Acceptor): Promise<Socket> {
  const { host, port } = parseAddress(address);
  const socket = connectTcp({ host, port });
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket.resume();
}

function frame(type: number, flags: number, stream: number, payload: Uint8Array = new Uint8Array(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A header as HPACK writes what is in no table: both texts shorter than 127 bytes. */
function header(name: string, value: string): Buffer {
  const text = (bytes: string): Buffer => Buffer.concat([Buffer.of(bytes.length), Buffer.from(bytes)]);
  return Buffer.concat([Buffer.of(0), text(name), text(value)]);
}

const PREFACE = Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0)]);
const CALL = Buffer.concat([
  header(":method", "POST"),
  header(":scheme", "http"),
  header(":path", `${SERVICE}/ExchangeSecret`),
  header(":authority", "x"),
  header("content-type", "application/grpc"),
]);

describe("strangers at the port for peers", () => {
  it("are cut off without a stream that is authorised in time; who is a peer stays", async () => {
    await using acceptor = await serving({ unauthorizedTimeoutMs: 150 });
    await using dialer = grpcTransport();
    const peer = await dialer.openStream(plaintext(acceptor.address), { signal: never });
    await (await acceptor.next()).send([Uint8Array.of(1)]);
    const silent = await tcp(acceptor);
    const idle = await session(acceptor);
    const slow = await session(acceptor);
    const exchange = request(slow, "ExchangeSecret", unfinished);
    const stream = request(await session(acceptor), "StreamResources", unfinished);
    const trickle = setInterval(() => exchange.write(Uint8Array.of(1)), 20);
    await Promise.all([silent, idle, slow, stream].map((one) => once(one, "close")));
    clearInterval(trickle);
    assert.deepEqual(acceptor.counts(), { "connection-silent": 4 });
    await peer.send([Uint8Array.of(2)]);
    await peer.close();
  });

  it("are cut off when their TLS handshake takes too long", async () => {
    await using acceptor = await serving({ handshakeTimeoutMs: 50 }, { listen: "127.0.0.1:0" });
    const silent = await tcp(acceptor);
    const begun = await tcp(acceptor);
    begun.write(Uint8Array.of(0x16, 3, 1, 2, 0));
    await Promise.all([silent, begun].map((one) => one.closed || once(one, "close")));
    assert.deepEqual(acceptor.counts(), { "handshake-timeout": 2 });
    await using dialer = grpcTransport();
    const target = { address: acceptor.address, serverName: SERVER_NAME, caPems: [root.certificatePem] };
    const stream = await dialer.openStream(target, { signal: never });
    await stream.close();
  });

  it("shake hands a few at once, and keep no peer out by never finishing", { timeout: 20_000 }, async () => {
    const incidents = new Incidents();
    const clock = testClock();
    const connectionLimits = new ConnectionLimits({ clock, incidents, handshakesPerSource: 2 });
    await using acceptor = await serving({}, { listen: "127.0.0.1:0", connectionLimits });
    const silent = [await tcp(acceptor), await tcp(acceptor)];
    await using dialer = grpcTransport();
    const target = { address: acceptor.address, serverName: SERVER_NAME, caPems: [root.certificatePem] };
    const opened = Promise.all([1, 2, 3, 4, 5].map(() => dialer.openStream(target, { signal: never })));
    await eventually(() => (incidents.counts().get("handshake-waits") ?? 0) === 5, "all wait");
    await clock.advance(2_000);
    const streams = await opened;
    await Promise.all(silent.map((one) => one.closed || once(one, "close")));
    assert.equal(incidents.counts().get("handshake-displaced"), 2);
    for (const stream of streams) await stream.close();
  });

  it("have four calls open on a connection, which is closed with the fifth", async () => {
    await using acceptor = await serving({});
    const client = await session(acceptor);
    const calls = Array.from({ length: 4 }, () => request(client, "ExchangeSecret", unfinished));
    await new Promise<void>((resolve) => client.ping(() => resolve()));
    assert.ok(calls.every(({ closed }) => !closed));
    assert.equal(await statusOf(request(client, "StreamResources", unfinished)), "8");
    await once(client, "close");
    assert.deepEqual(acceptor.counts(), { "unauthorized-calls": 1 });
  });

  it("are answered a hundred calls on a connection, and not one more", async () => {
    await using acceptor = await serving({});
    const client = await session(acceptor);
    for (let count = 0; count < 100; count++) {
      const call = request(client, "NoSuchMethod", new Uint8Array(0));
      call.end();
      assert.equal(await statusOf(call), "12");
    }
    assert.deepEqual(acceptor.counts(), {});
    const last = request(client, "ExchangeSecret", unfinished);
    assert.equal(await statusOf(last), "8");
    await once(client, "close");
    assert.deepEqual(acceptor.counts(), { "unauthorized-calls": 1 });
  });

  it("make room for a peer when they hold all connections, and take none from one", async () => {
    await using acceptor = await serving({ unauthorizedConnections: 6, unauthorizedConnectionsPerSource: 3 });
    await using dialer = grpcTransport();
    const peers = [await dialer.openStream(plaintext(acceptor.address), { signal: never })];
    await (await acceptor.next()).send([Uint8Array.of(1)]);
    const strangers: Socket[] = [];
    for (let source = 2; source < 5; source++) {
      const { host, port } = parseAddress(acceptor.address);
      for (let count = 0; count < 4; count++) {
        const socket = connectTcp({ host, port, localAddress: `127.0.0.${source}` });
        socket.on("error", () => {});
        strangers.push(socket.resume());
        await once(socket, "connect");
      }
    }
    const left = (): number => strangers.filter(({ closed }) => !closed).length;
    await eventually(() => left() === 6, "what is too much for one source, and for all, is closed");
    peers.push(await dialer.openStream(plaintext(acceptor.address), { signal: never }));
    await (await acceptor.next()).send([Uint8Array.of(1)]);
    await eventually(() => left() === 5, "one has made room");
    for (const peer of peers) {
      assert.deepEqual(await peer.receive(), [Uint8Array.of(1)]);
      await peer.send([Uint8Array.of(2)]);
    }
    assert.deepEqual(acceptor.counts(), {
      "connection-refused-to-source": 2,
      "connection-displaced": 3,
      "connection-refused": 2,
    });
  });

  it("are refused headers that are too large, also when they never acknowledge how large they may be", async () => {
    await using acceptor = await serving({});
    const client = await tcp(acceptor);
    const filler = Buffer.concat(
      Array.from({ length: 90 }, (_, index) => header(`x-filler-${index}`, "a".repeat(120))),
    );
    client.write(
      Buffer.concat([
        PREFACE,
        frame(1, 0, 1, CALL),
        frame(9, 0, 1, filler),
        frame(9, 4, 1, header("x-last", "a".repeat(120))),
      ]),
    );
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(acceptor.counts(), {});
    const more = Buffer.concat(Array.from({ length: 30 }, (_, index) => header(`x-filler-${index}`, "a".repeat(126))));
    client.write(Buffer.concat([frame(1, 0, 3, CALL), frame(9, 0, 3, filler), frame(9, 4, 3, more)]));
    await eventually(() => acceptor.counts()["headers-too-large"] === 1, "it is refused");
    client.destroy();
  });

  it("are cut off when they flood a connection with frames", async () => {
    await using acceptor = await serving({});
    const continued = await tcp(acceptor);
    const endless = Array.from({ length: 50 }, () => frame(9, 0, 1, header("a", "b")));
    continued.write(Buffer.concat([PREFACE, frame(1, 0, 1, CALL), ...endless]));
    const pinging = await tcp(acceptor);
    pinging.write(Buffer.concat([PREFACE, ...Array.from({ length: 5_000 }, () => frame(6, 0, 0, Buffer.alloc(8)))]));
    await Promise.all([continued, pinging].map((one) => one.closed || once(one, "close")));
    assert.deepEqual(acceptor.counts(), { "session-flooded": 2 });
  });
});
