import assert from "node:assert/strict";
import { once } from "node:events";
import {
  type ClientHttp2Session,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from "node:http2";
import { connect as connectTcp, createServer as createTcpServer, type Socket } from "node:net";
import { test } from "node:test";
import { create, createFileRegistry, type DescMethod, type DescMethodUnary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { type GrpcTransportOptions, grpcTransport } from "../../../src/transport/grpc.js";
import { eventually } from "../../support/hosts.js";
import { fixedIdentity, newAuthority, newLeaf, SERVER_NAME } from "./certificates.js";
import { failure, never, plaintext, startAcceptor } from "./grpc-harness.js";
import { startRelay } from "./relay.js";

const SERVICE = "/hashicorp.consul.internal.peerstream.PeerStreamService";
const root = await newAuthority("Root");
const identity = fixedIdentity(await newLeaf(root));
const PLAIN: GrpcTransportOptions = { plaintextListen: "127.0.0.1:0" };

/** A service of the program that peers must not reach. */
function healthMethod(): DescMethodUnary {
  const file = create(FileDescriptorProtoSchema, {
    name: "health.proto",
    package: "grpc.health.v1",
    syntax: "proto3",
    messageType: [{ name: "Empty" }],
    service: [
      {
        name: "Health",
        method: [{ name: "Check", inputType: ".grpc.health.v1.Empty", outputType: ".grpc.health.v1.Empty" }],
      },
    ],
  });
  const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] })).getService(
    "grpc.health.v1.Health",
  );
  const check = service?.methods[0];
  assert.ok(check !== undefined && isUnary(check));
  return check;
}
const isUnary = (method: DescMethod): method is DescMethodUnary => method.methodKind === "unary";
const check = healthMethod();
const routes: GrpcTransportOptions["routes"] = (router) => {
  router.rpc(check, () => ({}));
};

interface Answer {
  readonly http: number | undefined;
  readonly status: string | undefined;
  readonly message: string | undefined;
  readonly body: Uint8Array;
}

/** One call, without any of the code under test. */
async function call(session: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: Uint8Array): Promise<Answer> {
  const stream = session.request({ ":method": "POST", "content-type": "application/grpc", te: "trailers", ...headers });
  stream.on("error", () => {});
  const chunks: Uint8Array[] = [];
  let [first, last]: IncomingHttpHeaders[] = [];
  stream.on("response", (received) => {
    first = received;
  });
  stream.on("trailers", (received) => {
    last = received;
  });
  stream.on("data", (chunk: Uint8Array) => chunks.push(chunk));
  if (body !== undefined) stream.end(body);
  await once(stream, "close");
  const status = (name: string): string | undefined => {
    const value = last?.[name] ?? first?.[name];
    return value === undefined ? undefined : String(value);
  };
  const http = first?.[":status"];
  return {
    http: http === undefined ? undefined : Number(http),
    status: status("grpc-status"),
    message: status("grpc-message"),
    body: new Uint8Array(Buffer.concat(chunks)),
  };
}

async function withSession(
  url: string,
  action: (session: ClientHttp2Session) => Promise<void>,
  options: { readonly servername?: string } = {},
): Promise<void> {
  const session = connect(url, { ca: root.certificatePem, checkServerIdentity: () => undefined, ...options });
  session.on("error", () => {});
  try {
    await action(session);
  } finally {
    session.destroy();
  }
}

const framed = (body: Uint8Array): Uint8Array => {
  const frame = new Uint8Array(5 + body.length);
  new DataView(frame.buffer).setUint32(1, body.length);
  frame.set(body, 5);
  return frame;
};
const empty = framed(new Uint8Array());

test("under the peering SNI only PeerStreamService passes; elsewhere all services do (ch1 case 3)", async () => {
  await using acceptor = await startAcceptor({ listen: "127.0.0.1:0", routes }, identity);
  await using plain = await startAcceptor({ ...PLAIN, routes }, identity);
  const healthCheck = { ":path": "/grpc.health.v1.Health/Check" };
  const exchange = { ":path": `${SERVICE}/ExchangeSecret` };
  await withSession(
    `https://${acceptor.address}`,
    async (session) => {
      const refused = await call(session, healthCheck, empty);
      assert.deepEqual([refused.status, refused.message], ["7", "invalid permissions to the specified endpoint"]);
      assert.equal((await call(session, exchange, empty)).status, "0");
      // A method that exists nowhere is unknown, not forbidden.
      assert.equal((await call(session, { ":path": "/grpc.health.v1.Health/Watch" }, empty)).status, "12");
    },
    { servername: SERVER_NAME },
  );
  await withSession(
    `https://${acceptor.address}`,
    async (session) => {
      assert.equal((await call(session, healthCheck, empty)).status, "0");
      assert.equal((await call(session, exchange, empty)).status, "0");
    },
    { servername: "localhost" },
  );
  await withSession(`http://${plain.address}`, async (session) => {
    assert.deepEqual(await call(session, healthCheck, empty), {
      http: 200,
      status: "0",
      message: undefined,
      body: empty,
    });
  });
});

test("unknown services and methods are UNIMPLEMENTED", async () => {
  await using acceptor = await startAcceptor(PLAIN, identity);
  await withSession(`http://${acceptor.address}`, async (session) => {
    const expected = {
      "/a.B/C": "unknown service a.B",
      [`${SERVICE}/Nothing`]: `unknown method Nothing for service ${SERVICE.slice(1)}`,
      "/nothing": 'malformed method name: "/nothing"',
    };
    for (const [path, message] of Object.entries(expected)) {
      const answer = await call(session, { ":path": path });
      assert.deepEqual([answer.http, answer.status, answer.message], [200, "12", message]);
    }
  });
});

test("a request that is not gRPC is refused as by grpc-go: 405 for another method, 415 for another content type", async () => {
  await using acceptor = await startAcceptor(PLAIN, identity);
  await withSession(`http://${acceptor.address}`, async (session) => {
    const path = { ":path": `${SERVICE}/StreamResources` };
    assert.equal((await call(session, { ...path, ":method": "GET" })).http, 405);
    for (const type of ["application/json", "application/grpc-web", "text/plain"]) {
      const answer = await call(session, { ...path, "content-type": type });
      assert.deepEqual(
        [answer.http, answer.status, answer.message],
        [415, "3", `invalid gRPC request content-type ${JSON.stringify(type)}`],
      );
    }
  });
});

test("a request that is no protobuf, is compressed or is cut short does not reach the handler", async () => {
  let asked = 0;
  await using acceptor = await startAcceptor(PLAIN, identity, async () => {
    asked += 1;
    return { streamSecret: "x" };
  });
  await withSession(`http://${acceptor.address}`, async (session) => {
    const path = { ":path": `${SERVICE}/ExchangeSecret` };
    const compressed = framed(Uint8Array.of(1));
    compressed[0] = 1;
    const two = new Uint8Array(10);
    const bodies = [
      framed(Uint8Array.of(0xff, 0xff)),
      compressed,
      Uint8Array.of(0, 0, 0, 0, 9, 1),
      new Uint8Array(),
      two,
    ];
    for (const body of bodies) assert.match((await call(session, path, body)).status ?? "none", /^(2|3|12|13)$/);
  });
  assert.equal(asked, 0);
});

test("messages of a stream are parsed however the client writes them, and its trailers follow the body", async () => {
  await using acceptor = await startAcceptor(PLAIN, identity);
  await withSession(`http://${acceptor.address}`, async (session) => {
    const stream = session.request({
      ":method": "POST",
      ":path": `${SERVICE}/StreamResources`,
      "content-type": "application/grpc+proto",
    });
    for (const byte of framed(Uint8Array.of(1, 2, 3))) stream.write(Uint8Array.of(byte));
    const accepted = await acceptor.next();
    assert.match(accepted.remoteAddress, /^127\.0\.0\.1:\d+$/);
    assert.deepEqual(await accepted.receive(), [Uint8Array.of(1, 2, 3)]);
    const chunks: Uint8Array[] = [];
    stream.on("data", (chunk: Uint8Array) => chunks.push(chunk));
    const trailers = once(stream, "trailers");
    await accepted.send([Uint8Array.of(4)]);
    await accepted.close({ code: 13, message: "ü" });
    const [headers] = await trailers;
    assert.deepEqual([headers["grpc-status"], headers["grpc-message"]], ["13", "%C3%BC"]);
    assert.deepEqual(new Uint8Array(Buffer.concat(chunks)), framed(Uint8Array.of(4)));
  });
});

test("a body that ends within a message is INTERNAL", async () => {
  await using acceptor = await startAcceptor(PLAIN, identity);
  await withSession(`http://${acceptor.address}`, async (session) => {
    const stream = session.request({
      ":method": "POST",
      ":path": `${SERVICE}/StreamResources`,
      "content-type": "application/grpc",
    });
    stream.on("error", () => {});
    stream.end(Uint8Array.of(0, 0, 0, 0, 5, 1));
    const accepted = await acceptor.next();
    const error = await failure(accepted.receive());
    assert.deepEqual([error.code, error.status, error.message], ["invalid-message", 13, "unexpected EOF"]);
  });
});

test("who is no peer yet can say little: 16 KiB in an exchange or a message, 32 KiB on a stream that was not answered", async () => {
  const incidents = new Incidents();
  await using acceptor = await startAcceptor({ ...PLAIN, incidents }, identity);
  await withSession(`http://${acceptor.address}`, async (session) => {
    const body = framed(new Uint8Array(16 * 1024 + 1));
    const exchange = await call(session, { ":path": `${SERVICE}/ExchangeSecret` }, body);
    assert.deepEqual(
      [exchange.status, exchange.message],
      ["8", "grpc: received message larger than max (16385 vs. 16384)"],
    );
  });
  const large = new Uint8Array(1024 * 1024 + 1);
  await using dialer = grpcTransport();
  const many = Array.from({ length: 5 }, () => new Uint8Array(8 * 1024));
  for (const messages of [[large], [new Uint8Array(16 * 1024 + 1)], many]) {
    const stream = await dialer.openStream(plaintext(acceptor.address), { signal: never });
    const sending = stream.send(messages).catch(() => {});
    const accepted = await acceptor.next();
    const refused = await failure(
      (async () => {
        while ((await accepted.receive()) !== undefined);
      })(),
    );
    assert.deepEqual([refused.code, refused.status], ["resource-exhausted", 8]);
    await stream.close();
    await sending;
  }
  assert.deepEqual(incidents.counts(), new Map([["unauthorized-bytes", 4]]));
  const peer = await dialer.openStream(plaintext(acceptor.address), { signal: never });
  await peer.send([Uint8Array.of(1)]);
  const accepted = await acceptor.next();
  assert.deepEqual(await accepted.receive(), [Uint8Array.of(1)]);
  await accepted.send([Uint8Array.of(2)]);
  assert.deepEqual(await peer.receive(), [Uint8Array.of(2)]);
  const [received] = await Promise.all([accepted.receive(), peer.send([large])]);
  assert.equal(received?.[0]?.length, large.length);
  await peer.close();
});

test("a request that ends at once is a half-closed stream", async () => {
  await using acceptor = await startAcceptor(PLAIN, identity);
  await withSession(`http://${acceptor.address}`, async (session) => {
    const headers = { ":path": `${SERVICE}/StreamResources` };
    const answer = call(session, headers, new Uint8Array());
    const accepted = await acceptor.next();
    assert.equal(await accepted.receive(), undefined);
    await accepted.close({ code: 2, message: "stream ended unexpectedly" });
    assert.deepEqual(await answer, {
      http: 200,
      status: "2",
      message: "stream ended unexpectedly",
      body: new Uint8Array(),
    });
  });
});

test("the settings a caller sees, and the windows that a peer gets with its first answer", async () => {
  await using acceptor = await startAcceptor(PLAIN, identity);
  await withSession(`http://${acceptor.address}`, async (session) => {
    const [settings] = await once(session, "remoteSettings");
    assert.equal(settings.maxConcurrentStreams, 100);
    assert.equal(settings.maxHeaderListSize, 16 * 1024);
    assert.equal(settings.initialWindowSize, 65_535);
    assert.equal((await call(session, { ":path": `${SERVICE}/ExchangeSecret` }, empty)).status, "0");
    assert.ok((session.state.remoteWindowSize ?? 0) < 65_536, "an exchange makes nobody a peer");
    const raised = once(session, "remoteSettings");
    const answer = call(session, { ":path": `${SERVICE}/StreamResources` }, empty);
    const stream = await acceptor.next();
    await stream.send([Uint8Array.of(1)]);
    assert.equal((await raised)[0].initialWindowSize, 4 * 1024 * 1024);
    await eventually(() => (session.state.remoteWindowSize ?? 0) > 15 * 1024 * 1024, "and that of the connection");
    await stream.close();
    await answer;
  });
});

test("connections that say nothing, or no HTTP/2, do not outlive the listener", async () => {
  const acceptor = await startAcceptor({ listen: "127.0.0.1:0", plaintextListen: "127.0.0.1:0" }, identity);
  const [host, port] = acceptor.address.split(":");
  const silent = connectTcp(Number(port), host);
  silent.on("error", () => {});
  await once(silent, "connect");
  const rude = connectTcp(Number(port), host);
  rude.on("error", () => {});
  rude.write("GET / HTTP/1.1\r\n\r\n");
  await once(rude, "close");
  const closed = once(silent, "close");
  await acceptor[Symbol.asyncDispose]();
  await closed;
});

test("a dialer that vanishes without a word is noticed by a PING", async () => {
  await using relay = await startRelay();
  await using acceptor = await startAcceptor(
    { ...PLAIN, acceptorKeepalive: { intervalMs: 20, timeoutMs: 20 } },
    identity,
  );
  relay.forwardTo(acceptor.address);
  await using dialer = grpcTransport();
  const stream = await dialer.openStream(plaintext(relay.address), { signal: never });
  const accepted = await acceptor.next();
  relay.freeze();
  const error = await failure(accepted.receive());
  assert.deepEqual([error.code, error.status], ["unavailable", 14]);
  relay.cut();
  await stream.close();
});

for (const secure of [false, true]) {
  test(`a dialer that never closes its connection is disconnected, ${secure ? "with TLS" : "in plaintext"}`, async () => {
    await using acceptor = await startAcceptor(
      {
        ...(secure ? { listen: "127.0.0.1:0" } : PLAIN),
        acceptorKeepalive: { intervalMs: 20, timeoutMs: 20 },
      },
      identity,
    );
    const [host, port] = acceptor.address.split(":");
    // Whatever is said of an end goes no further than here.
    const hops: Socket[] = [];
    const hop = createTcpServer({ allowHalfOpen: true }, (incoming) => {
      const outgoing = connectTcp({ host, port: Number(port), allowHalfOpen: true });
      for (const socket of [incoming, outgoing]) socket.on("error", () => {});
      outgoing.once("close", () => incoming.destroy());
      incoming.pipe(outgoing, { end: false });
      outgoing.pipe(incoming, { end: false });
      hops.push(outgoing);
    });
    hop.listen(0, "127.0.0.1");
    await once(hop, "listening");
    const bound = hop.address();
    assert.ok(bound !== null && typeof bound === "object");
    await withSession(`${secure ? "https" : "http"}://127.0.0.1:${bound.port}`, async (session) => {
      const answer = call(session, { ":path": `${SERVICE}/StreamResources` });
      const accepted = await acceptor.next();
      await accepted.close({ code: 3, message: "first message when initiating a peering must be: Open" });
      await answer;
      // The acceptor has ended its side and hears nothing more: it gives the connection up, and does not fall over it. Who
      // writes to a connection that is gone is told so.
      await eventually(async () => {
        for (const hop of hops) hop.write("?");
        return hops.length === 1 && hops.every((hop) => hop.destroyed);
      }, "the connection is gone");
    });
    hop.close();
  });
}

test("an acceptor that cannot be bound names the address", async () => {
  await using acceptor = await startAcceptor(PLAIN, identity);
  await using other = grpcTransport({ listen: "127.0.0.1:0", plaintextListen: acceptor.address });
  const handler = { exchangeSecret: async () => ({ streamSecret: "" }), stream() {} };
  const error = await failure(other.listen(handler, identity));
  assert.equal(error.code, "unavailable");
  assert.ok(error.message.includes(acceptor.address), error.message);
  await using wrong = grpcTransport({ listen: "nowhere" });
  assert.equal((await failure(wrong.listen(handler, identity))).code, "invalid-argument");
});

test("a handler that throws where it must not ends that call alone", async () => {
  const transport = grpcTransport(PLAIN);
  let calls = 0;
  const listener = await transport.listen(
    {
      exchangeSecret: async () => ({ streamSecret: "" }),
      stream(stream) {
        calls += 1;
        if (calls === 1) throw new PeeringError("closed", "not now");
        void stream.send([Uint8Array.of(calls)]);
      },
    },
    identity,
  );
  await using dialer = grpcTransport();
  const target = plaintext(listener?.address ?? "");
  const first = await dialer.openStream(target, { signal: never });
  await failure(first.receive());
  const second = await dialer.openStream(target, { signal: never });
  assert.deepEqual(await second.receive(), [Uint8Array.of(2)]);
  await transport[Symbol.asyncDispose]();
});

test("a connection that resets very many calls of the program's own services is closed", {
  timeout: 20_000,
}, async () => {
  const incidents = new Incidents();
  await using acceptor = await startAcceptor({ ...PLAIN, routes, incidents }, identity);
  const session = connect(`http://${acceptor.address}`).on("error", () => {});
  await once(session, "connect");
  // Not `once` of Node, which rejects at an error: how the server says goodbye depends on where it stops reading.
  const closed = new Promise<void>((resolve) => session.once("close", resolve));
  for (let count = 0; count < 2_000 && !session.destroyed; count++) {
    const path = "/grpc.health.v1.Health/Check";
    const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
    stream.on("error", () => {});
    stream.close(constants.NGHTTP2_CANCEL);
    if (count % 100 === 99) await new Promise((resolve) => setImmediate(resolve));
  }
  await closed;
  assert.deepEqual(Object.fromEntries(incidents.counts()), { "session-flooded": 1 });
});
