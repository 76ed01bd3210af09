// Requests that no honest client sends, byte by byte, to the server that an agent runs: each is refused with a text that says
// why, or answered for what it is; nothing ends the process, and no client is shown an answer that it did not ask for.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import { toldText } from "../../src/base/errors.js";
import { createHost, type PeeringHost } from "../../src/host/host.js";
import { httpHandler } from "../../src/http/index.js";
import { operations } from "../../src/http/routes.js";
import { type HttpServer, httpServer } from "../../src/rpc/http-server.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { placeOf } from "../unit/dns/client.js";

/** In the catalog, and not asked for here. */
const PRIVATE = "10.66.6.6";
const LIMIT_BYTES = 64 * 1024;

interface Response {
  readonly status: number;
  readonly headers: string;
  readonly body: string;
}

let host: PeeringHost;
let server: HttpServer;

before(async () => {
  const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
  host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport });
  await host.catalog.register({ node: "private", address: PRIVATE, service: { name: "private", port: 1 } });
  server = await httpServer({
    listen: "127.0.0.1:0",
    rpc: (_, response, next) => (next === undefined ? response.destroy() : next()),
    http: httpHandler(host, { maxBodyBytes: LIMIT_BYTES, bodyTimeoutMs: 500 }),
    headersTimeoutMs: 500,
  });
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

/** Resolves whether it ends well or is reset. */
function closing(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once("close", () => resolve()));
}

async function open(): Promise<Socket> {
  const { host: name, port } = placeOf(server.address);
  const socket = connect({ host: name, port });
  // A server that refuses what is still being written resets the connection.
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

/**
 * Everything that is answered to these bytes until the server closes the connection.
 * @param ends - whether the client says at once that it sends no more. Node takes this for the end of the client, which gets no answer then
 *   that takes more than a turn to make.
 */
async function exchange(bytes: string | Uint8Array, { ends = true } = {}): Promise<readonly Response[]> {
  const socket = await open();
  let received = "";
  socket.setEncoding("latin1").on("data", (text: string) => (received += text));
  const closed = closing(socket);
  if (ends) socket.end(bytes);
  else socket.write(bytes);
  await closed;
  const found = responses(received);
  for (const { body } of found) assert.ok(!body.includes(PRIVATE), body);
  return found;
}

function responses(text: string): readonly Response[] {
  const found: Response[] = [];
  for (let rest = text; rest !== ""; ) {
    const [head, status, headers = ""] = /^HTTP\/1\.1 (\d{3}) [^\r]*\r\n([\s\S]*?)\r\n\r\n/.exec(rest) ?? [];
    assert.ok(head !== undefined, `no response: ${JSON.stringify(rest.slice(0, 200))}`);
    rest = rest.slice(head.length);
    const length = Number(/^content-length: (\d+)/im.exec(headers)?.[1] ?? 0);
    found.push({ status: Number(status), headers, body: rest.slice(0, length) });
    // A refusal by Node itself has no body, but may be chunked.
    rest = /^transfer-encoding: chunked/im.test(headers) ? rest.replace(/^0\r\n\r\n/, "") : rest.slice(length);
  }
  return found;
}

async function statuses(bytes: string | Uint8Array): Promise<readonly number[]> {
  return (await exchange(bytes)).map(({ status }) => status);
}

function request(method: string, path: string, body?: string | Uint8Array, headers = ""): Buffer {
  const length = body === undefined ? "" : `Content-Length: ${Buffer.byteLength(body)}\r\n`;
  const head = `${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${length}${headers}Connection: close\r\n\r\n`;
  return Buffer.concat([Buffer.from(head, "latin1"), Buffer.from(body ?? "")]);
}

/** A request that must not be answered: it stands where only a body may be. */
const SMUGGLED = "DELETE /v1/peering/kept HTTP/1.1\r\nHost: localhost\r\n\r\n";

describe("one request inside another", { timeout: 60_000 }, () => {
  const token = "POST /v1/peering/token HTTP/1.1\r\nHost: localhost\r\n";
  const hex = SMUGGLED.length.toString(16);
  const refused: readonly (readonly [string, string])[] = [
    ["a length and chunks", `${token}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    ["chunks and a length", `${token}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    ["two lengths", `${token}Content-Length: 0\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    ["two lengths in one", `${token}Content-Length: 0, ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    ["a length with a sign", `${token}Content-Length: +${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    ["a length with a blank in it", `${token}Content-Length: 1 0\r\n\r\n${SMUGGLED}`],
    ["a blank before the colon", `${token}Transfer-Encoding : chunked\r\n\r\n${hex}\r\n${SMUGGLED}\r\n0\r\n\r\n`],
    ["an unknown encoding", `${token}Transfer-Encoding: xchunked\r\n\r\n${SMUGGLED}`],
    ["chunks that are not last", `${token}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    ["a chunk longer than any", `${token}Transfer-Encoding: chunked\r\n\r\n${"f".repeat(20)}\r\n${SMUGGLED}`],
    ["a chunk of no length", `${token}Transfer-Encoding: chunked\r\n\r\n-1\r\n${SMUGGLED}`],
    ["a chunk with 0x", `${token}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n${SMUGGLED}`],
    ["a header on two lines", `${token}X-A: b\r\n\tc: d\r\nContent-Length: x\r\n\r\n${SMUGGLED}`],
    ["a carriage return in a header", `${token}X-A: b\rContent-Length: 0\r\n\r\n`],
    ["a zero byte in a header", `${token}X-A: b\0c\r\n\r\n`],
  ];
  for (const [what, bytes] of refused) {
    it(`${what}: refused, and nothing after it is heard`, async () => {
      await host.peerings.generateToken({ peerName: "kept" });
      assert.deepEqual(await statuses(bytes), [400]);
      assert.equal(host.peerings.read("kept")?.state, "pending");
    });
  }

  it("a body is a body, also of what needs none", async () => {
    await host.peerings.generateToken({ peerName: "kept" });
    for (const [method, path] of [
      ["GET", "/v1/peerings"],
      ["GET", "/v1/nothing"],
      ["OPTIONS", "/v1/peerings"],
      ["PATCH", "/v1/peerings"],
    ] as const) {
      const answers = await exchange(request(method, path, SMUGGLED));
      assert.equal(answers.length, 1, `${method} ${path}`);
    }
    assert.equal(host.peerings.read("kept")?.state, "pending");
  });

  it("many behind one another are answered in their order", async () => {
    const paths = ["/v1/status/leader", "/v1/nothing", "/v1/catalog/datacenters", "/v1/peering/none"];
    const bytes = paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`).join("");
    const answers = await exchange(bytes);
    assert.deepEqual(
      answers.map(({ status, body }) => [status, body]),
      [
        [200, '"127.0.0.1:8503"'],
        [404, "Invalid URL path: not a recognized HTTP API endpoint\n"],
        [200, '["dc1"]'],
        [404, 'Peering not found for "none"'],
      ],
    );
  });
});

describe("invalid requests", { timeout: 60_000 }, () => {
  const cases: readonly (readonly [string, string, number])[] = [
    ["no version, as before there was one", "GET /v1/peerings\r\n\r\n", 200],
    ["another protocol", "GET /v1/peerings HTTP/3.0\r\nHost: localhost\r\n\r\n", 400],
    ["no host", "GET /v1/peerings HTTP/1.1\r\n\r\n", 400],
    ["an unknown method", "STEAL /v1/peerings HTTP/1.1\r\nHost: localhost\r\n\r\n", 400],
    ["a method in small letters", "get /v1/peerings HTTP/1.1\r\nHost: localhost\r\n\r\n", 400],
    ["TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400],
    ["a blank in the path", "GET /v1/peer ings HTTP/1.1\r\nHost: localhost\r\n\r\n", 400],
    ["a header without a colon", "GET /v1/peerings HTTP/1.1\r\nHost: localhost\r\nrubbish\r\n\r\n", 400],
    ["a long header", `GET /v1/peerings HTTP/1.1\r\nHost: localhost\r\nX-A: ${"a".repeat(20_000)}\r\n\r\n`, 431],
    [
      "many headers",
      `GET /v1/peerings HTTP/1.1\r\nHost: localhost\r\n${"X-A: aaaaaaaaaaaaaa\r\n".repeat(2_000)}\r\n`,
      431,
    ],
    ["a long path", `GET /v1/peering/${"a".repeat(20_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`, 431],
    ["a tunnel", "CONNECT other.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 0],
  ];
  for (const [what, bytes, status] of cases) {
    it(`${what}: ${status === 0 ? "hung up on" : status}`, async () => {
      assert.deepEqual(await statuses(Buffer.from(bytes, "latin1")), status === 0 ? [] : [status]);
    });
  }

  it("a request for an unknown upgrade is answered as if it had not asked", async () => {
    const headers = "Upgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    const [answer] = await exchange(
      Buffer.from(`GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n${headers}Connection: upgrade, close\r\n\r\n`),
    );
    assert.deepEqual([answer?.status, answer?.body], [200, '"127.0.0.1:8503"']);
  });
});

describe("paths that lead elsewhere", { timeout: 60_000 }, () => {
  const cases: readonly (readonly [string, number, string])[] = [
    ["/v1/peering/%2e%2e/%2e%2e/etc/passwd", 307, "/etc/passwd"],
    ["/v1/peering/..%2f..%2fetc", 307, "/etc"],
    ["/../../../../v1/peerings", 307, "/v1/peerings"],
    ["//v1//peerings", 307, "/v1/peerings"],
    ["/v1/peering/%00", 400, ""],
    ["/v1/peering/known%00.json", 400, ""],
    ["/v1/peering/%c0%ae%c0%ae", 400, "400 Bad Request"],
    ["/v1/peering/%e0%80%af", 400, "400 Bad Request"],
    ["/v1/peering/%zz", 400, "400 Bad Request"],
    ["/v1/peering/%", 400, "400 Bad Request"],
    ["/v1/peering/%0d%0aX-Evil:%201", 400, ""],
    ["/v1/peering/%5c..%5c", 404, 'Peering not found for "\\\\..\\\\"'],
    ["/v1/peering/__proto__", 404, 'Peering not found for "__proto__"'],
    ["/v1/config/mesh/constructor", 404, 'Config entry not found for "mesh" / "constructor"'],
    ["/v1/health/service/__proto__", 200, "[]"],
    ["/v1/health/service/private%00", 400, ""],
    ["/v1/catalog/service/priv%61te%2f", 200, "[]"],
    ["/v1/catalog/node/toString", 200, "null"],
    ["/v1/health/service/private?peer=__proto__", 200, "[]"],
    ["/v1/health/service/private?peer=%00", 200, "[]"],
    [`/v1/peering/${"a".repeat(8_000)}`, 404, toldText(`Peering not found for "${"a".repeat(8_000)}"`)],
    ["http://other.example/v1/peerings", 400, "400 Bad Request"],
    ["*", 400, "400 Bad Request"],
  ];
  for (const [path, status, text] of cases) {
    it(`${path.slice(0, 60)}: ${status}`, async () => {
      const [answer] = await exchange(request("GET", path));
      assert.equal(answer?.status, status, answer?.body);
      if (status === 307) assert.match(answer?.headers ?? "", new RegExp(`^Location: ${text}\r?$`, "m"));
      else assert.equal(answer?.body, text);
      assert.ok(!/^X-Evil/im.test(answer?.headers ?? ""));
    });
  }
});

describe("parameters", { timeout: 60_000 }, () => {
  for (const [query, status] of [
    ["index=-1", 400],
    ["index=1e3", 400],
    ["index=99999999999999999999999", 400],
    ["wait=forever", 400],
    ["wait=-1", 400],
    [`filter=${encodeURIComponent("(".repeat(4_000))}`, 500],
    [`filter=${encodeURIComponent("not ".repeat(1_300))}`, 500],
    ["filter=%00", 500],
    [`${"node-meta=a:b&".repeat(700)}x`, 200],
    ["dc=..%2f", 500],
    ["token=%00", 200],
    ["stale&consistent", 400],
  ] as const) {
    it(`${query.slice(0, 40)}: ${status}`, async () => {
      const [answer] = await exchange(request("GET", `/v1/health/service/none?${query}`));
      assert.equal(answer?.status, status, answer?.body.slice(0, 200));
    });
  }
});

describe("bodies", { timeout: 120_000 }, () => {
  const taking = operations.filter(({ docs }) => docs.some(({ body }) => body !== undefined));
  const wrong: readonly (readonly [string, string | Uint8Array])[] = [
    ["nothing", ""],
    ["no JSON", "rubbish"],
    ["half of it", '{"PeerName": "x'],
    ["null", "null"],
    ["a number", "1e999"],
    ["a text", '"x"'],
    ["a list", "[1, {}, null]"],
    ["wrong types", '{"PeerName": 1, "Name": [], "Node": {}, "Kind": 5, "Service": "x", "Checks": "y", "Meta": [1]}'],
    ["unknown keys", '{"Unknown": {"deep": [1, 2]}, "__proto__": {"polluted": true}, "constructor": 1}'],
    ["the same key twice", '{"PeerName": "a", "PeerName": "B_", "Node": "n", "Node": ""}'],
    ["a zero byte", '{"PeerName": "a\\u0000b", "Node": "\\u0000", "Address": "\\u0000"}'],
    ["half a character", '{"PeerName": "\\ud800", "Node": "\\ud800", "Address": "x"}'],
    ["no UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d])],
    ["depth", "[".repeat(30_000)],
    ["depth of objects", '{"a":'.repeat(10_000)],
    ["a long text", JSON.stringify({ PeerName: "x".repeat(LIMIT_BYTES - 100) })],
    ["more than is taken", "x".repeat(LIMIT_BYTES + 1)],
  ];
  /** Requests that must be refused before their body is read. */
  const targets: Readonly<Record<string, string>> = {
    "/v1/connect/intentions/exact": "/v1/connect/intentions/exact?source=a&destination=b",
    "/v1/discovery-chain/": "/v1/discovery-chain/web",
  };
  for (const { method, pattern } of taking) {
    it(`${method} ${pattern}: each is refused with a text, or is what it takes`, async () => {
      for (const [what, body] of wrong) {
        const [answer] = await exchange(request(method, targets[pattern] ?? pattern, body), { ends: false });
        assert.ok(answer !== undefined, what);
        // 403: an intention without a destination, as Consul answers it.
        assert.ok([200, 400, 403, 409, 413, 500].includes(answer.status), `${what}: ${answer.status} ${answer.body}`);
        if (what === "more than is taken") assert.equal(answer.status, 413);
        assert.ok(answer.status === 200 || answer.body.length > 0, `${what} says why`);
        // Texts that a program writes for its author must not reach others.
        assert.doesNotMatch(answer.body, /\n +at |TypeError|RangeError|is not a function|\.[jt]s:\d|Cannot read/, what);
      }
    });
  }

  it("none of it has become part of what every object has", () => {
    assert.equal(Object.hasOwn(Object.prototype, "polluted"), false);
  });

  it("chunks that never end are cut off where the limit is", async () => {
    const socket = await open();
    let received = "";
    socket.setEncoding("latin1").on("data", (text: string) => (received += text));
    const closed = closing(socket);
    socket.write("PUT /v1/config HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    const chunk = `1000\r\n${" ".repeat(0x1000)}\r\n`;
    const write = (): void => {
      while (!socket.destroyed && !socket.writableEnded && socket.write(chunk));
    };
    socket.on("drain", write);
    write();
    await closed;
    assert.match(received, /^HTTP\/1\.1 413 /);
  });
});

describe("clients that are slow", { timeout: 60_000 }, () => {
  it("with the head of a request: 408, however they go on", async () => {
    const socket = await open();
    let received = "";
    socket.setEncoding("latin1").on("data", (text: string) => (received += text));
    const closed = closing(socket);
    socket.write("GET /v1/peerings HTTP/1.1\r\nHost: localhost\r\n");
    const drip = setInterval(() => socket.write("X"), 20);
    await closed;
    clearInterval(drip);
    assert.match(received, /^HTTP\/1\.1 408 /);
  });

  it("with the first byte: hung up on", async () => {
    const socket = await open();
    socket.resume();
    await closing(socket);
  });

  it("with a body: 408, though a byte comes now and then", async () => {
    const socket = await open();
    let received = "";
    socket.setEncoding("latin1").on("data", (text: string) => (received += text));
    const closed = closing(socket);
    socket.write("PUT /v1/config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{");
    const drip = setInterval(() => socket.write(" "), 20);
    await closed;
    clearInterval(drip);
    assert.match(received, /^HTTP\/1\.1 408 /);
  });

  it("do not keep others from being served", async () => {
    const slow = await Promise.all(Array.from({ length: 200 }, () => open()));
    for (const socket of slow) socket.write("GET /v1/peerings HT");
    assert.deepEqual(await statuses(request("GET", "/v1/status/leader")), [200]);
    for (const socket of slow) socket.destroy();
  });
});

describe("requests by chance", { timeout: 120_000 }, () => {
  const seeds = [
    request("GET", "/v1/peerings"),
    request("PUT", "/v1/config", '{"Kind":"mesh","Name":"mesh"}'),
    request("POST", "/v1/peering/token", '{"PeerName":"by-chance"}'),
    request("GET", "/v1/catalog/service/none?filter=ServiceName==%22x%22"),
    request("PUT", "/v1/catalog/register", '{"Node":"n9","Address":"10.0.0.9"}', "Expect: 100-continue\r\n"),
  ];

  it("mutated ones are answered with a status or hung up on, and the next good one is served", async () => {
    const mutation = fc.tuple(fc.nat(), fc.constantFrom("flip", "drop", "double", "insert"), fc.nat(255));
    const mutated = fc
      .tuple(fc.constantFrom(...seeds), fc.array(mutation, { minLength: 1, maxLength: 6 }))
      .map(([seed, mutations]) => {
        let bytes = Buffer.from(seed);
        for (const [place, how, value] of mutations) {
          const at = place % bytes.length;
          const [head, tail] = [bytes.subarray(0, at), bytes.subarray(at)];
          if (how === "flip") bytes = Buffer.concat([head, Buffer.from([value]), tail.subarray(1)]);
          else if (how === "drop") bytes = Buffer.concat([head, tail.subarray(1 + (value % 8))]);
          else if (how === "double") bytes = Buffer.concat([bytes, tail]);
          else bytes = Buffer.concat([head, Buffer.from([value]), tail]);
        }
        return bytes;
      });
    await fc.assert(
      fc.asyncProperty(mutated, async (bytes) => {
        for (const status of await statuses(bytes)) assert.ok(status >= 100 && status < 600);
      }),
      { numRuns: 1_500 },
    );
    assert.deepEqual(await statuses(request("GET", "/v1/status/leader")), [200]);
  });
});
