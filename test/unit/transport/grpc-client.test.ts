import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import { createServer as createTcpServer, type Socket } from "node:net";
import { test } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { grpcTransport } from "../../../src/transport/grpc.js";
import type { ReplicationStream } from "../../../src/transport/transport.js";
import { fixedIdentity, newAuthority, newLeaf } from "./certificates.js";
import { failure, never, plaintext, startAcceptor } from "./grpc-harness.js";
import { startRelay } from "./relay.js";

const GRPC = { ":status": 200, "content-type": "application/grpc" };
const identity = fixedIdentity(await newLeaf(await newAuthority("Root")));
const request = { peerId: "id", establishmentSecret: "secret" };

const frame = (...body: number[]): Uint8Array => Uint8Array.of(0, 0, 0, 0, body.length, ...body);

/** An acceptor that does what `onStream` says, as no implementation of ours would. */
async function withServer(
  onStream: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
  action: (open: () => Promise<ReplicationStream>, address: string) => Promise<void>,
  onSession: (session: ServerHttp2Session) => void = () => {},
): Promise<void> {
  const server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session: ServerHttp2Session) => {
    sessions.add(session);
    session.on("error", () => {});
    onSession(session);
  });
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    stream.on("error", () => {});
    stream.resume();
    onStream(stream, headers);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  const address = `127.0.0.1:${bound.port}`;
  const dialer = grpcTransport();
  try {
    await action(() => dialer.openStream(plaintext(address), { signal: never }), address);
  } finally {
    await dialer[Symbol.asyncDispose]();
    for (const session of sessions) session.destroy();
    server.close();
    await once(server, "close");
  }
}

/** The outcome of `receive`: the messages, then the status, or 0 for the end without error. */
async function outcome(
  stream: ReplicationStream,
): Promise<{ messages: number; status: number | undefined; text: string }> {
  let messages = 0;
  try {
    for (;;) {
      const batch = await stream.receive();
      if (batch === undefined) return { messages, status: 0, text: "" };
      messages += batch.length;
    }
  } catch (error) {
    assert.ok(error instanceof PeeringError, String(error));
    return { messages, status: error.status, text: error.message };
  }
}

test("the request is what gRPC asks for", async () => {
  let seen: IncomingHttpHeaders = {};
  await withServer(
    (stream, headers) => {
      seen = headers;
      stream.respond({ ...GRPC, "grpc-status": "0" }, { endStream: true });
    },
    async (open, address) => {
      await (await open()).receive();
      assert.equal(seen[":method"], "POST");
      assert.equal(seen[":scheme"], "http");
      assert.equal(seen[":authority"], address);
      assert.equal(seen[":path"], "/hashicorp.consul.internal.peerstream.PeerStreamService/StreamResources");
      assert.equal(seen["content-type"], "application/grpc");
      const { te } = seen;
      assert.equal(te, "trailers");
      assert.equal(seen["user-agent"], "peerage");
    },
  );
});

test("a status in the headers alone", async () => {
  await withServer(
    (stream) => stream.respond({ ...GRPC, "grpc-status": "10", "grpc-message": "gone%21" }, { endStream: true }),
    async (open) => {
      assert.deepEqual(await outcome(await open()), { messages: 0, status: 10, text: "gone!" });
    },
  );
});

test("an answer without a gRPC status is mapped from HTTP, for both calls", async () => {
  for (const [http, status] of [
    [404, 12],
    [503, 14],
    [403, 7],
    [500, 2],
  ] as const) {
    await withServer(
      (stream) => {
        stream.respond({ ":status": http, "content-type": "text/html" });
        stream.end("<html>");
      },
      async (open, address) => {
        assert.equal((await outcome(await open())).status, status);
        await using dialer = grpcTransport();
        const call = dialer.exchangeSecret(plaintext(address), request, { timeoutMs: 10_000, signal: never });
        assert.equal((await failure(call)).status, status);
      },
    );
  }
});

test("a body without trailers is INTERNAL, after its messages", async () => {
  await withServer(
    (stream) => {
      stream.respond(GRPC);
      stream.end(frame(1));
    },
    async (open) => {
      const text = "server closed the stream without sending trailers";
      assert.deepEqual(await outcome(await open()), { messages: 1, status: 13, text });
    },
  );
});

test("status OK within a message is INTERNAL, another status stands", async () => {
  for (const [status, expected] of [
    ["0", 13],
    ["9", 9],
  ] as const) {
    await withServer(
      (stream) => {
        stream.respond(GRPC, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": status }));
        stream.end(frame(1, 2, 3).subarray(0, 6));
      },
      async (open) => {
        assert.deepEqual((await outcome(await open())).status, expected);
      },
    );
  }
});

test("resets are mapped as by grpc-go, before and after the headers", async () => {
  for (const [code, status] of [
    [0, 13],
    [2, 13],
    [7, 14],
    [8, 1],
    [11, 8],
  ] as const) {
    for (const late of [false, true]) {
      await withServer(
        (stream) => {
          if (late) {
            stream.respond(GRPC);
            stream.write(frame(1), () => stream.close(code));
          } else {
            stream.close(code);
          }
        },
        async (open) => {
          const stream = await open();
          assert.equal((await outcome(stream)).status, status, `code ${code}, ${late ? "late" : "early"}`);
          assert.equal((await failure(stream.send([Uint8Array.of(1)]))).status, status);
        },
      );
    }
  }
});

test("a server that goes away with an error is UNAVAILABLE, with its reason", async () => {
  await withServer(
    (stream) => {
      stream.respond(GRPC);
      stream.session?.goaway(11, 0, Buffer.from("too_many_pings"));
    },
    async (open) => {
      const { status, text } = await outcome(await open());
      assert.equal(status, 14);
      assert.match(text, /received prior goaway: code: ENHANCE_YOUR_CALM, debug data: "too_many_pings"/);
    },
  );
});

test("a server that goes away in peace lets the stream end", async () => {
  await withServer(
    (stream) => {
      stream.respond(GRPC, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.session?.close();
      stream.write(frame(1));
      stream.on("end", () => stream.end(frame(2)));
    },
    async (open) => {
      const stream = await open();
      assert.deepEqual(await stream.receive(), [Uint8Array.of(1)]);
      await stream.halfClose();
      assert.deepEqual(await outcome(stream), { messages: 1, status: 0, text: "" });
    },
  );
});

test("a session destroyed at once, before and within the stream, is an error and nothing else", async () => {
  await withServer(
    () => {},
    async (open) => {
      const error = await failure(open().then((stream) => stream.receive()));
      assert.equal(error.status, 14);
    },
    (session) => session.destroy(),
  );
  await withServer(
    (stream) => {
      stream.respond(GRPC);
      stream.session?.destroy();
    },
    async (open) => {
      assert.equal((await outcome(await open())).status, 14);
    },
  );
});

test("garbage after the settings is an error and nothing else", async () => {
  const settings = Uint8Array.of(0, 0, 0, 4, 0, 0, 0, 0, 0);
  for (const garbage of [Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), Buffer.alloc(200, 0xff)]) {
    for (const preface of [settings, new Uint8Array()]) {
      const sockets: Socket[] = [];
      const server = createTcpServer((socket) => {
        sockets.push(socket);
        socket.on("error", () => {});
        socket.write(Buffer.concat([preface, garbage]));
      });
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      const bound = server.address();
      assert.ok(bound !== null && typeof bound === "object");
      {
        await using dialer = grpcTransport();
        const error = await failure(
          dialer.openStream(plaintext(`127.0.0.1:${bound.port}`), { signal: never }).then((stream) => stream.receive()),
        );
        assert.equal(error.status, 14);
      }
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    }
  }
});

test("an acceptor that takes the connection and says nothing is given up (ch3 case 26)", async () => {
  const sockets: Socket[] = [];
  const server = createTcpServer((socket) => sockets.push(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  const address = `127.0.0.1:${bound.port}`;
  const root = await newAuthority("Root");
  {
    await using dialer = grpcTransport({ limits: { connectTimeoutMs: 50 } });
    for (const target of [plaintext(address), { address, serverName: "x", caPems: [root.certificatePem] }]) {
      const error = await failure(dialer.openStream(target, { signal: never }));
      assert.deepEqual([error.code, error.status], ["unavailable", 14]);
      assert.match(error.message, /no connection within 50 ms/);
      const call = dialer.exchangeSecret(target, request, { timeoutMs: 20, signal: never });
      assert.equal((await failure(call)).code, "timeout");
      const reason = new Error("enough");
      const controller = new AbortController();
      const aborted = assert.rejects(dialer.openStream(target, { signal: controller.signal }), reason);
      controller.abort(reason);
      await aborted;
    }
  }
  for (const socket of sockets) socket.destroy();
  server.close();
  await once(server, "close");
});

test("an acceptor that freezes is noticed by a PING (ch3 case 26)", async () => {
  await using relay = await startRelay();
  await using acceptor = await startAcceptor({ plaintextListen: "127.0.0.1:0" }, identity);
  relay.forwardTo(acceptor.address);
  await using dialer = grpcTransport({ dialerKeepalive: { intervalMs: 20, timeoutMs: 20 } });
  const stream = await dialer.openStream(plaintext(relay.address), { signal: never });
  await (await acceptor.next()).send([Uint8Array.of(1)]);
  assert.deepEqual(await stream.receive(), [Uint8Array.of(1)]);
  relay.freeze();
  const error = await failure(stream.receive());
  assert.deepEqual([error.code, error.status], ["unavailable", 14]);
  assert.match(error.message, /keepalive ping failed to receive ACK within timeout/);
  relay.cut();
});

test("PINGs that are answered keep a silent stream open", async () => {
  await using acceptor = await startAcceptor({ plaintextListen: "127.0.0.1:0" }, identity);
  await using dialer = grpcTransport({ dialerKeepalive: { intervalMs: 1, timeoutMs: 1000 } });
  const stream = await dialer.openStream(plaintext(acceptor.address), { signal: never });
  const accepted = await acceptor.next();
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setTimeout(resolve, 1));
  await accepted.send([Uint8Array.of(1)]);
  assert.deepEqual(await stream.receive(), [Uint8Array.of(1)]);
});

test("messages sent before the status are delivered first, however many they are and however late they are read", async () => {
  await using acceptor = await startAcceptor({ plaintextListen: "127.0.0.1:0" }, identity);
  await using dialer = grpcTransport();
  const stream = await dialer.openStream(plaintext(acceptor.address), { signal: never });
  const accepted = await acceptor.next();
  const message = new Uint8Array(64 * 1024);
  for (let index = 0; index < 48; index += 1) await accepted.send([message]);
  await accepted.close({ code: 10, message: "peering is marked as deleted: x" });
  // Long enough for the end of the connection to arrive as well.
  await acceptor[Symbol.asyncDispose]();
  for (let turn = 0; turn < 1000; turn += 1) await new Promise(setImmediate);
  const expected = { messages: 48, status: 10, text: "peering is marked as deleted: x" };
  assert.deepEqual(await outcome(stream), expected);
});

test("disposing of the dialer while it connects gives up the attempt", async () => {
  const server = createTcpServer((socket) => socket.on("error", () => {}));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  const dialer = grpcTransport();
  const attempt = failure(dialer.openStream(plaintext(`127.0.0.1:${bound.port}`), { signal: never }));
  const [socket] = (await once(server, "connection")) as [Socket];
  await dialer[Symbol.asyncDispose]();
  assert.equal((await attempt).code, "closed");
  socket.destroy();
  server.close();
  await once(server, "close");
});

test("an acceptor's close does not wait for ever for a dialer that takes nothing", async () => {
  await using relay = await startRelay();
  await using acceptor = await startAcceptor(
    { plaintextListen: "127.0.0.1:0", limits: { closeGraceMs: 30 } },
    identity,
  );
  relay.forwardTo(acceptor.address);
  await using dialer = grpcTransport();
  const stream = await dialer.openStream(plaintext(relay.address), { signal: never });
  const accepted = await acceptor.next();
  relay.freeze();
  const message = new Uint8Array(1024 * 1024);
  const sending = failure(
    (async () => {
      for (;;) await accepted.send([message]);
    })(),
  );
  await accepted.close({ code: 0, message: "" });
  assert.equal((await sending).code, "closed");
  relay.cut();
  await failure(stream.receive());
});
