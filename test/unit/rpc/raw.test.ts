// Requests of clients of any kind, byte for byte: browsers, and hostile ones.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import { connect as connectHttp2, constants } from "node:http2";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { peeringRpc } from "../../../src/rpc/index.js";
import { lonelyHost, serveRpc, tokens } from "./support.js";

const SERVICE = "/hashicorp.consul.internal.peering.PeeringService";
const WATCH = "/peerage.watch.v1.WatchService/WatchPeerings";

function envelope(body: string | Uint8Array | readonly number[], flags = 0): Buffer {
  const bytes = typeof body === "string" ? Buffer.from(body) : Uint8Array.from(body);
  const head = Buffer.alloc(5);
  head.writeUInt8(flags);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

function post(
  url: string,
  path: string,
  body: string | Uint8Array,
  headers: Record<string, string> = {},
): Promise<Response> {
  return fetch(url + path, { method: "POST", headers: { "content-type": "application/json", ...headers }, body });
}

/** One call of gRPC: the status of HTTP, and that of gRPC. */
async function grpc(url: string, path: string, body: Uint8Array, headers = {}): Promise<readonly unknown[]> {
  const session = connectHttp2(url);
  const stream = session.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    te: "trailers",
    ...headers,
  });
  let tail: IncomingHttpHeaders = {};
  stream.once("trailers", (trailers: IncomingHttpHeaders) => {
    tail = trailers;
  });
  stream.end(body);
  const [head]: IncomingHttpHeaders[] = await once(stream, "response");
  stream.resume();
  await once(stream, "close");
  const status = { ...head, ...tail };
  session.close();
  return [status[":status"], status["grpc-status"]];
}

describe("a browser", () => {
  const origin = "https://ui.example.com";
  const preflight = (url: string, path: string, from = origin): Promise<Response> =>
    fetch(url + path, {
      method: "OPTIONS",
      headers: {
        origin: from,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,connect-protocol-version,x-consul-token",
      },
    });

  it("calls with JSON and fetch alone, from a page of an allowed origin", async () => {
    await using served = await serveRpc(await lonelyHost(), { allowedOrigins: [origin, "http://localhost:3000"] });
    const asked = await preflight(served.url, `${SERVICE}/PeeringList`);
    assert.deepEqual([asked.status, asked.headers.get("access-control-allow-origin")], [204, origin]);
    assert.equal(asked.headers.get("access-control-allow-methods"), "POST");
    assert.equal(asked.headers.get("vary"), "Origin");
    const allowed = (asked.headers.get("access-control-allow-headers") ?? "").toLowerCase().split(", ");
    for (const header of [
      "content-type",
      "connect-protocol-version",
      "x-grpc-web",
      "x-consul-token",
      "min-query-index",
    ]) {
      assert.ok(allowed.includes(header), header);
    }
    const generated = await post(served.url, `${SERVICE}/GenerateToken`, '{"PeerName":"west","Meta":{"a":"b"}}', {
      origin,
    });
    assert.equal(generated.status, 200);
    const listed = await post(served.url, `${SERVICE}/PeeringList`, "{}", { origin });
    assert.equal(listed.headers.get("access-control-allow-origin"), origin);
    const exposed = (listed.headers.get("access-control-expose-headers") ?? "").toLowerCase().split(", ");
    assert.ok(exposed.includes("index") && exposed.includes("grpc-status"));
    assert.match(listed.headers.get("index") ?? "", /^\d+$/);
    const { Peerings } = JSON.parse(await listed.text());
    assert.deepEqual([Peerings[0].Name, Peerings[0].State, Peerings[0].Meta], ["west", "PENDING", { a: "b" }]);

    const watched = await post(served.url, WATCH, envelope("{}"), {
      origin,
      "content-type": "application/connect+json",
    });
    assert.equal(watched.headers.get("access-control-allow-origin"), origin);
    assert.ok(watched.body !== null);
    let received = Buffer.alloc(0);
    const events: string[] = [];
    for await (const chunk of watched.body) {
      received = Buffer.concat([received, chunk]);
      while (received.length >= 5 && received.length >= 5 + received.readUInt32BE(1)) {
        const end = 5 + received.readUInt32BE(1);
        events.push(...Object.keys(JSON.parse(received.toString("utf8", 5, end))));
        received = received.subarray(end);
      }
      if (events.length >= 2) break;
    }
    assert.deepEqual(events, ["peering", "snapshotComplete"]);
  });

  it("is told nothing from pages of other origins, and by default of any", async () => {
    await using some = await serveRpc(await lonelyHost(), { allowedOrigins: [origin] });
    await using none = await serveRpc(await lonelyHost());
    for (const [url, from] of [
      [some.url, "https://evil.example.com"],
      [some.url, "null"],
      [some.url, `${origin}.evil.example.com`],
      [none.url, origin],
    ] as const) {
      const asked = await preflight(url, `${SERVICE}/PeeringList`, from);
      assert.deepEqual([asked.status, asked.headers.get("access-control-allow-origin")], [403, null]);
      const listed = await post(url, `${SERVICE}/PeeringList`, "{}", { origin: from });
      assert.equal(listed.headers.get("access-control-allow-origin"), null);
    }
    // A request that a browser sends without a preflight is not a call.
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]) {
      const answer = await post(none.url, `${SERVICE}/PeeringDelete`, '{"Name":"x"}', { "content-type": type });
      assert.equal(answer.status, 415, type);
    }
    assert.equal((await fetch(`${none.url}${SERVICE}/PeeringDelete`)).status, 405);
  });

  it("may call from everywhere where that is allowed", async () => {
    await using served = await serveRpc(await lonelyHost(), { allowedOrigins: ["*"] });
    const asked = await preflight(served.url, WATCH, "null");
    assert.deepEqual([asked.status, asked.headers.get("access-control-allow-origin")], [204, "null"]);
  });

  it("is told failures as JSON with the status of HTTP that fits", async () => {
    await using served = await serveRpc(await lonelyHost(), { authorizer: tokens({}) });
    const read = await post(served.url, `${SERVICE}/PeeringList`, '{"Partition":"test"}');
    assert.deepEqual(
      [read.status, await read.json()],
      [400, { code: "invalid_argument", message: "Partitions are a Consul Enterprise feature" }],
    );
    const denied = await post(served.url, `${SERVICE}/PeeringList`, "{}", { "x-consul-token": "nobody" });
    assert.deepEqual([denied.status, await denied.json()], [500, { code: "unknown", message: "ACL not found" }]);
  });
});

describe("bad input", () => {
  it("is refused by Connect with a code", async () => {
    await using served = await serveRpc(await lonelyHost(), { maxMessageBytes: 1_000 });
    const path = `${SERVICE}/GenerateToken`;
    const refused = async (body: string | Uint8Array, headers = {}): Promise<readonly unknown[]> => {
      const answer = await post(served.url, path, body, headers);
      const { code } = JSON.parse(await answer.text());
      return [answer.status, code];
    };
    for (const body of ["", "{", "[]", '"x"', '{"PeerName":1}', '{"Meta":{"a":{}}}', "\u0000", '{"PeerName":"a"}{}']) {
      assert.deepEqual(await refused(body), [400, "invalid_argument"], body);
    }
    const proto = { "content-type": "application/proto" };
    for (const body of [
      [0xff],
      [0x0a, 0x7f],
      [0x0a, 2, 0xc3, 0x28],
      [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    ]) {
      const [status, code] = await refused(Uint8Array.from(body), proto);
      assert.deepEqual([status, code], [500, "internal"], `as grpc-go: ${body}`);
    }
    assert.deepEqual(await refused(`{"PeerName":"${"x".repeat(1_000)}"}`), [429, "resource_exhausted"]);
    assert.deepEqual(await refused(new Uint8Array(100_000), proto), [429, "resource_exhausted"]);
    assert.deepEqual(await refused("{}", { "content-encoding": "gzip" }), [501, "unimplemented"]);
    assert.deepEqual(await refused("{}", { "connect-timeout-ms": "soon" }), [400, "invalid_argument"]);
    const unknown = await post(served.url, path, '{"PeerName":"a","Unknown":[1,{"x":null}]}');
    assert.equal(unknown.status, 200);
    const unknownField = await post(
      served.url,
      `${SERVICE}/PeeringList`,
      Uint8Array.from([0xfa, 0x3f, 1, 0x78]),
      proto,
    );
    assert.equal(unknownField.status, 200);
  });

  it("is refused by gRPC with a code", async () => {
    await using served = await serveRpc(await lonelyHost(), { maxMessageBytes: 1_000 });
    const path = `${SERVICE}/PeeringRead`;
    const refused = async (body: Uint8Array, headers = {}): Promise<unknown> =>
      (await grpc(served.url, path, body, headers))[1];
    const [ok, invalid, exhausted, unimplemented, internal] = ["0", "3", "8", "12", "13"];
    assert.equal(await refused(envelope("")), ok);
    assert.equal(await refused(envelope([0xfa, 0x3f, 1, 0x78])), ok, "unknown fields are ignored");
    assert.equal(await refused(envelope([0xff])), internal, "as grpc-go");
    assert.equal(await refused(envelope(new Uint8Array(1_001))), exhausted);
    assert.equal(await refused(envelope(new Uint8Array(100_000))), exhausted);
    assert.equal(await refused(Buffer.from([0, 0xff, 0xff, 0xff, 0xff])), exhausted);
    assert.equal(await refused(envelope("", 1)), internal, "compressed, though nothing was said of how");
    assert.equal(await refused(Buffer.concat([envelope(""), envelope("")])), unimplemented, "two messages");
    assert.equal(await refused(Buffer.alloc(0)), unimplemented, "none");
    assert.equal(await refused(envelope("").subarray(0, 3)), invalid);
    assert.equal(await refused(envelope(""), { "grpc-timeout": "soon" }), invalid);
    const unknown = `${SERVICE}/Nothing`;
    assert.equal((await grpc(served.url, unknown, envelope("")))[0], 404);
  });

  it("that comes too slowly ends with DEADLINE_EXCEEDED, over HTTP/1.1 and HTTP/2", async () => {
    await using served = await serveRpc(await lonelyHost(), { bodyTimeoutMs: 20 });
    const never = new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode("{")) });
    const answer = await fetch(`${served.url}${SERVICE}/PeeringList`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: never,
      duplex: "half",
    } as RequestInit);
    assert.deepEqual(JSON.parse(await answer.text()).code, "deadline_exceeded");
    const session = connectHttp2(served.url);
    const stream = session.request({
      ":method": "POST",
      ":path": `${SERVICE}/PeeringList`,
      "content-type": "application/grpc",
    });
    stream.write(envelope("").subarray(0, 2));
    const trailers = once(stream, "trailers");
    stream.resume();
    const [tail] = await trailers;
    assert.equal(tail["grpc-status"], "4");
    // The call is over for the server though its client never ended it.
    await once(stream, "close");
    assert.equal(stream.rstCode, constants.NGHTTP2_NO_ERROR);
    session.close();
  });

  it("does not harm who calls next", async () => {
    await using served = await serveRpc(await lonelyHost());
    const session = connectHttp2(served.url);
    session.on("error", () => {});
    for (let index = 0; index < 200; index++) {
      const stream = session.request({ ":method": "POST", ":path": WATCH, "content-type": "application/grpc" });
      stream.on("error", () => {});
      stream.write(envelope("").subarray(0, index % 6));
      stream.close(constants.NGHTTP2_CANCEL);
    }
    assert.equal((await grpc(served.url, `${SERVICE}/PeeringList`, envelope("")))[1], "0");
    session.destroy();
  });
});

describe("the listener", () => {
  it("leaves other paths to the next handler, and answers 404 without one", async () => {
    await using host = await lonelyHost();
    const rpc = peeringRpc(host);
    const server = createServer((request, response) =>
      rpc(request, response, request.url === "/alone" ? undefined : () => response.end("next")),
    );
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    assert.equal(await (await fetch(`${url}/v1/peerings`)).text(), "next");
    assert.equal(await (await fetch(`${url}${SERVICE}/PeeringList/`)).text(), "next");
    assert.equal((await fetch(`${url}/alone`)).status, 404);
    assert.equal((await post(url, `${SERVICE}/PeeringList?x`, "{}")).status, 200);
    server.close();
    server.closeAllConnections();
  });
});
