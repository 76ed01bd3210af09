import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { createConnection, type Socket } from "node:net";
import { describe, it } from "node:test";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import type { HttpHandlerOptions } from "../../../src/http/index.js";
import { type HttpServerOptions, httpServer, type RpcListener } from "../../../src/rpc/index.js";
import { type ServedPort, servePort } from "../../support/served-port.js";
import { lonelyHost } from "./support.js";

const LIMIT = { timeout: 20_000 };

async function served(
  options: Partial<HttpServerOptions> = {},
  handling: HttpHandlerOptions = {},
): Promise<ServedPort & { connect(): Promise<Socket> }> {
  const one = await servePort(await lonelyHost(), handling, options);
  return {
    ...one,
    async connect() {
      const socket = createConnection(one.port, "127.0.0.1");
      socket.on("error", () => {});
      await once(socket, "connect");
      return socket;
    },
  };
}

/** All that comes until the other side ends the connection. */
async function rest(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  // A server that has refused what it read so far reads no more: the client may learn that by a reset.
  socket.on("error", () => {});
  await new Promise<void>((resolve) => socket.once("close", () => resolve()));
  return text;
}

const CALL = "/hashicorp.consul.internal.peering.PeeringService/PeeringList";

function call(body: string, headers = ""): string {
  return (
    `POST ${CALL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n` +
    `${headers}\r\n${body}`
  );
}

describe("the server of both versions of HTTP", () => {
  it("serves calls and Consul's API over HTTP/1.1, one after the other on one connection", async () => {
    await using one = await served();
    const socket = await one.connect();
    const text = rest(socket);
    const get = (last: string): string => `GET /v1/status/peers HTTP/1.1\r\nHost: localhost\r\n${last}\r\n`;
    socket.write(`${get("")}${call("{}")}${get("Connection: close\r\n")}`);
    const answers = (await text).split("HTTP/1.1 ").slice(1);
    assert.deepEqual(
      answers.map((answer) => answer.slice(0, 3)),
      ["200", "200", "200"],
    );
    assert.match(answers[1] ?? "", /"OBSOLETEIndex":"\d+"/);
  });

  it("takes a request of HTTP/1.1 that comes byte by byte, also one that begins as HTTP/2 does", async () => {
    await using one = await served();
    for (const method of ["POST", "PUT", "PRI", "PR"]) {
      const socket = await one.connect();
      socket.setNoDelay(true);
      const text = rest(socket);
      for (const byte of `${method} ${CALL} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`) {
        await new Promise<void>((resolve) => socket.write(byte, () => resolve()));
      }
      assert.match(await text, method.startsWith("PR") ? /^HTTP\/1.1 400 / : /^HTTP\/1.1 4(15|05) /, method);
    }
  });

  it("takes HTTP/2 that begins byte by byte", async () => {
    await using one = await served();
    const socket = await one.connect();
    const preface = Buffer.concat([
      Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
      Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
    ]);
    for (const byte of preface) {
      await new Promise<void>((resolve) => socket.write(Buffer.from([byte]), () => resolve()));
    }
    const [answer]: Buffer[] = await once(socket, "data");
    assert.equal(answer?.[3], 4, "the first frame of a server is SETTINGS");
    socket.destroy();
  });

  it("serves Consul's API over HTTP/2, too: reads beside one that waits, writes, and refusals", async () => {
    await using one = await served({}, { maxBodyBytes: 1_000_000 });
    const session = connectHttp2(`http://${one.server.address}`);
    const ask = async (method: string, path: string, body?: Buffer | string, headers = {}) => {
      const stream = session.request({ ":method": method, ":path": path, ...headers });
      stream.on("error", () => {});
      stream.end(body);
      const [head] = await once(stream, "response");
      const chunks: Buffer[] = [];
      for await (const chunk of stream) chunks.push(chunk);
      if (!stream.closed) await once(stream, "close");
      return { status: head[":status"], head, body: Buffer.concat(chunks) };
    };
    const waiting = ask("GET", "/v1/catalog/nodes?index=1000000&wait=10m");
    const again = ask("GET", "/v1/health/service/web?index=1");
    assert.deepEqual((await ask("GET", "/v1/status/peers")).body.toString(), '["alone:8503"]');
    const node = JSON.stringify({
      Node: "n1",
      Address: "10.0.0.1",
      Service: { Service: "web", Meta: Object.fromEntries(["a", "b", "c", "d"].map((key) => [key, "v".repeat(500)])) },
    });
    assert.equal((await ask("PUT", "/v1/catalog/register", node)).status, 200);
    assert.match((await again).body.toString(), /"Service":"web"/);
    const packed = await ask("GET", "/v1/health/service/web", undefined, { "accept-encoding": "gzip" });
    assert.equal(packed.head["content-encoding"], "gzip");
    assert.match(gunzipSync(packed.body).toString(), /"Service":"web"/);
    assert.equal((await ask("GET", "/v1/nothing/of/this/kind")).status, 404);
    assert.equal((await ask("PUT", "/v1/status/leader", "{}")).status, 405);
    const long = await ask("PUT", "/v1/config", Buffer.alloc(2_000_000, " "));
    assert.deepEqual([long.status, long.head["connection"]], [413, undefined]);
    assert.equal(session.closed, false, "one refusal does not end the connection");
    const failed = assert.rejects(waiting, /the test is over/);
    session.on("error", () => {});
    session.destroy(new Error("the test is over"));
    await failed;
  });

  it("closes connections that send nothing, or too little to detect their protocol", async () => {
    await using one = await served({ headersTimeoutMs: 20 });
    const half = await one.connect();
    half.write("PRI * HT");
    const idle = [await one.connect(), half];
    await Promise.all(idle.map((each) => each.closed || new Promise((resolve) => each.once("close", resolve))));
  });

  it("takes a client of HTTP/2 that ends its side of the connection for gone", async () => {
    await using one = await served();
    const socket = await one.connect();
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.write(
      Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]),
    );
    await once(socket, "data");
    socket.end();
    await closed;
  });

  it("lets a client go that resets its connection at any point", async () => {
    await using one = await served();
    for (const start of ["", "PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", call("{}").slice(0, -1)]) {
      const socket = await one.connect();
      socket.write(start);
      socket.resetAndDestroy();
      await once(socket, "close");
    }
    const socket = await one.connect();
    const text = rest(socket);
    socket.write(call("{}", "Connection: close\r\n"));
    assert.match(await text, /^HTTP\/1.1 200 /);
  });

  it("outlives whatever bytes come", async () => {
    await using one = await served();
    const starts = ["", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", call("").slice(0, -4)].map((start) => Buffer.from(start));
    const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...starts, Buffer.concat([starts[1] ?? settings, settings])),
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 60 }), { maxLength: 3 }),
        async (start, chunks) => {
          const socket = await one.connect();
          socket.write(start);
          for (const chunk of chunks) socket.write(chunk);
          socket.resume();
          await new Promise<void>((resolve) => socket.end(() => resolve()));
          socket.destroy();
        },
      ),
      { numRuns: 200 },
    );
    const socket = await one.connect();
    const text = rest(socket);
    socket.write(call("{}", "Connection: close\r\n"));
    assert.match(await text, /^HTTP\/1.1 200 /);
  });

  it("lets go at once of a client that ends its side before it has asked anything", async () => {
    await using one = await served({ headersTimeoutMs: 60_000 });
    for (const text of ["", "P", "PRI * HTTP/2.0"]) {
      const socket = await one.connect();
      const text1 = rest(socket);
      socket.end(text);
      assert.equal(await text1, "");
    }
  });

  it("closes a connection that makes no first request in time, or none for long, however it goes on otherwise", async () => {
    const incidents = new Incidents();
    await using one = await served({ headersTimeoutMs: 100, keepAliveTimeoutMs: 200, incidents });
    const silent = await one.connect();
    const idle = connectHttp2(`http://${one.server.address}`);
    const head = connectHttp2(`http://${one.server.address}`);
    const used = connectHttp2(`http://${one.server.address}`);
    for (const session of [idle, head, used]) session.on("error", () => {});
    const answer = used.request({ ":path": "/nothing" }).resume();
    await once(answer, "close");
    // Half a header of HTTP/2, byte by byte, is no request.
    const half = await one.connect();
    half.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    const bytes = [0, 0, 100, 1, 4, 0, 0, 0, 1, ...Array.from({ length: 90 }, () => 0x82)];
    const trickle = setInterval(() => half.write(Uint8Array.of(bytes.shift() ?? 0x82)), 5);
    for (const socket of [silent, half]) socket.resume();
    await Promise.all([silent, idle, head, half, used].map((each) => once(each, "close")));
    clearInterval(trickle);
    assert.deepEqual(Object.fromEntries(incidents.counts()), { "connection-silent": 4 });
  });

  it("counts no stream that has been answered as a request, while its client goes on sending", LIMIT, async () => {
    const rpc: RpcListener = (request, response) => {
      request.once("data", () => {
        response.writeHead(200, {});
        response.end();
      });
    };
    await using server = await httpServer({ listen: "127.0.0.1:0", rpc, keepAliveTimeoutMs: 50 });
    const session = connectHttp2(`http://${server.address}`);
    session.on("error", () => {});
    const stream = session.request({ ":method": "POST" }, { endStream: false });
    stream.on("error", () => {});
    const sending = setInterval(() => stream.writable && stream.write("more"), 5);
    await once(session, "close");
    clearInterval(sending);
  });

  it("keeps a connection on which a request waits for its answer, over either version", async () => {
    await using one = await served({ headersTimeoutMs: 50, keepAliveTimeoutMs: 50 });
    const waiting = await one.connect();
    waiting.write("GET /v1/catalog/services?index=1000000&wait=400ms HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    const [chunk]: unknown[] = await once(waiting, "data");
    assert.match(String(chunk), /^HTTP\/1.1 200 /);
    const session = connectHttp2(`http://${one.server.address}`);
    session.on("error", () => {});
    const watch = session.request({
      ":method": "POST",
      ":path": CALL,
      "content-type": "application/json",
      "min-query-index": "1000000",
      "max-query-time": "400ms",
    });
    watch.end("{}");
    const [headers]: { readonly ":status"?: number }[] = await once(watch, "response");
    assert.equal(headers?.[":status"], 200);
    session.destroy();
    waiting.destroy();
  });

  it("takes hundreds of connections from one address", async () => {
    const incidents = new Incidents();
    await using one = await served({ incidents });
    const sockets = await Promise.all(Array.from({ length: 500 }, () => one.connect()));
    for (const socket of sockets) socket.write(call("{}"));
    await Promise.all(sockets.map((socket) => once(socket, "data")));
    assert.deepEqual(incidents.counts(), new Map());
    for (const socket of sockets) socket.destroy();
  });

  it("takes no more connections from one address than it may, and counts refusals", async () => {
    const incidents = new Incidents();
    await using one = await served({ connectionsPerSource: 2, incidents });
    const sockets = [await one.connect(), await one.connect()];
    const refused = await one.connect();
    await rest(refused);
    for (const socket of sockets) {
      socket.write(call("{}"));
      await once(socket, "data");
    }
    assert.deepEqual(Object.fromEntries(incidents.counts()), { "connection-refused-to-source": 1 });
    for (const socket of sockets) socket.destroy();
  });

  it("refuses headers that are too large, and a request that takes too long, and counts them", async () => {
    const incidents = new Incidents();
    await using one = await served({ headersTimeoutMs: 40, requestTimeoutMs: 80, incidents });
    const large = await one.connect();
    large.write(`GET / HTTP/1.1\r\nX: ${"a".repeat(17_000)}\r\n\r\n`);
    assert.match(await rest(large), /^HTTP\/1.1 431 /);
    const slow = await one.connect();
    slow.write("GET / HTTP/1.1\r\n");
    await rest(slow);
    assert.equal(incidents.counts().get("headers-too-large"), 1);
    const late = (incidents.counts().get("request-timeout") ?? 0) + (incidents.counts().get("connection-silent") ?? 0);
    assert.ok(late >= 1, "one of the clocks, or both where they are so fast");
  });

  it("closes idle connections when it is disposed of, and cuts off calls that take too long", async () => {
    const one = await served({ drainMs: 20 });
    const silent = await one.connect();
    const session = connectHttp2(`http://${one.server.address}`);
    session.on("error", () => {});
    await once(session, "connect");
    const waiting = request(`http://${one.server.address}/v1/peerings?index=1000000`).end();
    waiting.on("error", () => {});
    const stream = session.request({
      ":method": "POST",
      ":path": CALL,
      "content-type": "application/json",
      "min-query-index": "1000000",
    });
    stream.on("error", () => {});
    stream.end("{}");
    await new Promise<void>((resolve) => session.ping(() => resolve()));
    // Not `once` of events, which takes the reset for a failure.
    const closed = [silent, session, waiting].map((each) => new Promise((resolve) => each.once("close", resolve)));
    await one[Symbol.asyncDispose]();
    await Promise.all(closed);
  });

  it("does not wait for a client that leaves its connection open when it is disposed of", async () => {
    const one = await served({ drainMs: 20 });
    const { port } = new URL(`http://${one.server.address}`);
    const socket = createConnection({ host: "127.0.0.1", port: Number(port), allowHalfOpen: true });
    socket.on("error", () => {});
    // Says that it speaks HTTP/2, and nothing more, whatever it hears.
    socket.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    await once(socket, "data");
    socket.pause();
    await one[Symbol.asyncDispose]();
    socket.destroy();
  });

  it("says which address it cannot listen on", async () => {
    await using one = await served();
    const rpc = (): void => {};
    const again = httpServer({ listen: one.server.address, rpc });
    await assert.rejects(again, (error) => error instanceof PeeringError && error.code === "unavailable");
    await assert.rejects(httpServer({ listen: "nowhere", rpc }), { name: "PeeringError", code: "invalid-argument" });
  });
});
