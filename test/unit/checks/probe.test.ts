import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { getEventListeners, once } from "node:events";
import { createServer as createHttp, type RequestListener } from "node:http";
import { createServer as createHttp2, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer as createTcp } from "node:net";
import { describe, it } from "node:test";
import { createServer as createTls } from "node:tls";
import type { CheckResult, ProbeMethod } from "../../../src/checks/definition.js";
import { type ProbeOptions, probe } from "../../../src/checks/probe.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";

const tls = { serverName: "", skipVerify: false };

function run(method: ProbeMethod, options: Partial<ProbeOptions> = {}): Promise<CheckResult> {
  return probe(method, {
    timeoutMs: 5_000,
    outputMaxBytes: 4_096,
    allows: () => true,
    signal: new AbortController().signal,
    ...options,
  });
}

/** A certificate that no system trusts. */
async function untrusted(): Promise<{ readonly cert: string; readonly key: string }> {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const { certificateChainPem, privateKeyPem } = await authority.issueServer("dc1");
  return { cert: certificateChainPem, key: privateKeyPem };
}

interface Listening extends AsyncDisposable {
  readonly address: string;
}

interface Closable {
  listen(port: number, host: string): unknown;
  address(): AddressInfo | string | null;
  close(): unknown;
  once(event: string, listener: () => void): unknown;
}

async function listening(server: Closable): Promise<Listening> {
  server.listen(0, "127.0.0.1");
  await new Promise<void>((resolve) => server.once("listening", resolve));
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  return {
    address: `127.0.0.1:${bound.port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
    },
  };
}

function serveHttp(listener: RequestListener): Promise<Listening> {
  return listening(createHttp({ keepAlive: false }, listener));
}

/** An address without a listener. */
async function closedAddress(): Promise<string> {
  const server = await listening(createTcp());
  await server[Symbol.asyncDispose]();
  return server.address;
}

function http(url: string, fields: Partial<Extract<ProbeMethod, { type: "http" }>> = {}): ProbeMethod {
  return { type: "http", url, method: "GET", headers: {}, body: "", followRedirects: true, tls, ...fields };
}

describe("an HTTP probe", () => {
  for (const [code, status] of [
    [200, "passing"],
    [204, "passing"],
    [429, "warning"],
    [404, "critical"],
    [503, "critical"],
  ] as const) {
    it(`takes ${code} as ${status}, and tells the answer`, async () => {
      await using server = await serveHttp((_, response) => {
        response.statusCode = code;
        response.end(code === 204 ? undefined : "body");
      });
      const result = await run(http(`http://${server.address}/x`));
      assert.equal(result.status, status);
      assert.match(result.output, new RegExp(`^HTTP GET http://${server.address}/x: ${code} [A-Za-z ]+ Output: `));
      if (code !== 204) assert.match(result.output, /Output: body$/);
    });
  }

  it("sends the method, headers, host and body it is given, and Consul's own headers where none are given", async () => {
    const seen: unknown[] = [];
    await using server = await serveHttp(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const { host, accept, "user-agent": agent, "x-two": two } = request.headers;
      seen.push([request.method, host, accept, agent, two, Buffer.concat(chunks).toString()]);
      response.end();
    });
    await run(
      http(`http://${server.address}/`, { method: "PUT", headers: { Host: ["a.b"], "X-Two": ["1", "2"] }, body: "hé" }),
    );
    await run(http(`http://${server.address}/`, { headers: { "User-Agent": ["mine"] } }));
    assert.deepEqual(seen, [
      ["PUT", "a.b", "text/plain, text/*, */*", "Consul Health Check", "1, 2", "hé"],
      ["GET", server.address, "text/plain, text/*, */*", "mine", undefined, ""],
    ]);
  });

  it("keeps the last bytes of a body, and reads no body for ever", async () => {
    await using server = await serveHttp((request, response) => {
      if (request.url === "/long") response.end(`${"x".repeat(10_000)}end`);
      else {
        const more = (): void => {
          while (!response.destroyed && response.write("y".repeat(65_536)));
        };
        response.on("drain", more);
        more();
      }
    });
    const long = await run(http(`http://${server.address}/long`), { outputMaxBytes: 5 });
    assert.match(long.output, /Output: xxend$/);
    const endless = await run(http(`http://${server.address}/endless`), { outputMaxBytes: 5 });
    assert.deepEqual([endless.status, endless.output.slice(-5)], ["passing", "yyyyy"]);
  });

  it("follows redirects unless told not to, without the secrets of another host, and not for ever", async () => {
    const seen: (string | undefined)[] = [];
    await using other = await serveHttp((request, response) => {
      seen.push(request.headers.authorization);
      response.end("there");
    });
    await using server = await serveHttp((request, response) => {
      const location = request.url === "/loop" ? "/loop" : `http://localhost:${other.address.split(":")[1]}/`;
      response.writeHead(302, { Location: location }).end();
    });
    const headers = { Authorization: ["Bearer secret"] };
    const followed = await run(http(`http://${server.address}/`, { headers }), {
      allows: (address) => address === "127.0.0.1",
    });
    assert.deepEqual([followed.status, seen], ["passing", [undefined]]);
    const stayed = await run(http(`http://${server.address}/`, { followRedirects: false }));
    assert.deepEqual([stayed.status, /: 302 Found/.test(stayed.output)], ["critical", true]);
    const looped = await run(http(`http://${server.address}/loop`));
    assert.match(looped.output, /stopped after 10 redirects/);
  });

  it("connects to no address that is not allowed: literal, by name, or by a redirect", async () => {
    let asked = 0;
    await using server = await serveHttp((_, response) => {
      asked++;
      response.writeHead(302, { Location: "http://[::1]:1/" }).end();
    });
    const port = server.address.split(":")[1];
    for (const url of [
      `http://${server.address}/`,
      `http://localhost:${port}/`,
      `http://[::ffff:127.0.0.1]:${port}/`,
    ]) {
      const { status, output } = await run(http(url), { allows: () => false });
      assert.deepEqual([status, /is not one that checks may connect to/.test(output)], ["critical", true], output);
    }
    assert.equal(asked, 0);
    const redirected = await run(http(`http://${server.address}/`), { allows: (address) => address === "127.0.0.1" });
    assert.match(redirected.output, /the address ::1 is not one that checks may connect to/);
    assert.equal(asked, 1);
  });

  it("verifies the certificate unless told not to", async () => {
    const certificate = await untrusted();
    await using server = await listening(createTls(certificate, (socket) => socket.end("HTTP/1.1 200 OK\r\n\r\n")));
    const url = `https://${server.address}/`;
    const verified = await run(http(url));
    assert.deepEqual(
      [verified.status, /unable to (?:get|verify)|self-signed/.test(verified.output)],
      ["critical", true],
    );
    assert.equal((await run(http(url, { tls: { serverName: "", skipVerify: true } }))).status, "passing");
  });

  it("is critical, with the reason, when there is no listener, when the URL is none, and when no answer comes in time", async () => {
    const closed = await closedAddress();
    const refused = (await run(http(`http://${closed}/`))).output;
    assert.equal(refused, `Get "http://${closed}/": dial tcp ${closed}: connect: connection refused`);
    assert.match((await run(http("not a url"))).output, /Invalid URL/);
    assert.match((await run(http("ftp://127.0.0.1/"))).output, /unsupported protocol scheme "ftp"/);
    await using silent = await serveHttp(() => {});
    const late = await run(http(`http://${silent.address}/`), { timeoutMs: 50 });
    assert.deepEqual([late.status, /timed out after 0.05 s/.test(late.output)], ["critical", true]);
  });
});

describe("other probes", () => {
  it("TCP passes when the connection is accepted", async () => {
    await using server = await listening(createTcp((socket) => socket.on("error", () => {})));
    const { address } = server;
    assert.deepEqual(await run({ type: "tcp", address, tls: undefined }), {
      status: "passing",
      output: `TCP connect ${address}: Success`,
    });
    const closed = await closedAddress();
    const dial = `dial tcp ${closed}: connect: connection refused`;
    // As Consul 1.21 tells it of each.
    for (const [method, output] of [
      [{ type: "tcp", address: closed, tls: undefined }, dial],
      [{ type: "h2ping", address: closed, tls: undefined }, `Failed to dial to ${closed}: ${dial}`],
      [
        { type: "grpc", target: `${closed}/web`, tls: undefined },
        `rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: ${dial}"`,
      ],
    ] as const) {
      assert.deepEqual(await run(method), { status: "critical", output });
    }
    const nobody = await run({ type: "tcp", address: "nobody.invalid:1", tls: undefined });
    assert.equal(nobody.output, "dial tcp: lookup nobody.invalid: no such host");
    const refused = await run({ type: "tcp", address, tls: undefined }, { allows: () => false });
    assert.match(refused.output, /may connect to/);
  });

  it("TCP with TLS passes when the handshake does", async () => {
    const certificate = await untrusted();
    await using server = await listening(createTls(certificate, (socket) => socket.on("error", () => {})));
    const { address } = server;
    assert.equal((await run({ type: "tcp", address, tls })).status, "critical");
    assert.deepEqual(await run({ type: "tcp", address, tls: { serverName: "", skipVerify: true } }), {
      status: "passing",
      output: `TCP+TLS connect ${address}: Success`,
    });
  });

  it("UDP passes on an answer and on silence, and is critical when there is no listener", async () => {
    const socket = createSocket("udp4");
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    const address = `127.0.0.1:${socket.address().port}`;
    const passing = { status: "passing", output: `UDP connect ${address}: Success` };
    assert.deepEqual(await run({ type: "udp", address }, { timeoutMs: 50 }), passing);
    socket.on("message", (_, from) => socket.send("x", from.port, from.address));
    assert.deepEqual(await run({ type: "udp", address }), passing);
    socket.close();
    await once(socket, "close");
    const gone = await run({ type: "udp", address });
    assert.deepEqual([gone.status, /ECONNREFUSED/.test(gone.output)], ["critical", true]);
  });

  it("HTTP/2 passes when a ping comes back", async () => {
    await using server = await listening(createHttp2());
    assert.deepEqual(await run({ type: "h2ping", address: server.address, tls: undefined }), {
      status: "passing",
      output: "HTTP2 ping was successful",
    });
    await using silent = await listening(createTcp((socket) => socket.on("error", () => {})));
    const late = await run({ type: "h2ping", address: silent.address, tls: undefined }, { timeoutMs: 50 });
    assert.equal(late.status, "critical");
  });

  it("gRPC asks the health service for the service that is named", async () => {
    const asked: string[] = [];
    const serving = new Map([
      ["", 1],
      ["up", 1],
      ["down", 2],
    ]);
    const server = createHttp2();
    server.on("stream", async (stream: ServerHttp2Stream, headers) => {
      const chunks: Buffer[] = [];
      for await (const chunk of stream) chunks.push(chunk);
      const service = Buffer.concat(chunks).subarray(7).toString();
      asked.push(`${headers[":path"]} ${service}`);
      const status = serving.get(service);
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () =>
        stream.sendTrailers(
          status === undefined ? { "grpc-status": "5", "grpc-message": "unknown service" } : { "grpc-status": "0" },
        ),
      );
      stream.end(status === undefined ? undefined : Buffer.from([0, 0, 0, 0, 2, 8, status]));
    });
    await using listener = await listening(server);
    const { address } = listener;
    const ask = (suffix: string): Promise<CheckResult> =>
      run({ type: "grpc", target: `${address}${suffix}`, tls: undefined });
    assert.deepEqual(await ask(""), { status: "passing", output: `gRPC check ${address}: success` });
    assert.deepEqual(await ask("/up"), { status: "passing", output: `gRPC check ${address}/up: success` });
    assert.deepEqual(await ask("/down"), {
      status: "critical",
      output: `gRPC ${address}/down serving status: NOT_SERVING`,
    });
    assert.match((await ask("/other")).output, /code = 5 desc = unknown service/);
    assert.deepEqual(
      asked,
      ["", "up", "down", "other"].map((service) => `/grpc.health.v1.Health/Check ${service}`),
    );
  });

  it("no garbage, reset or silence ends the process or outlives the time of a probe", async () => {
    const answers = [
      "",
      "\0",
      "HTTP/1.1 abc\r\n\r\n",
      "x".repeat(100_000),
      "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    ];
    for (const answer of answers) {
      await using server = await listening(
        createTcp((socket) => {
          socket.on("error", () => {});
          socket.write(answer, () => socket.resetAndDestroy());
        }),
      );
      const { address } = server;
      for (const method of [
        http(`http://${address}/`),
        http(`https://${address}/`),
        { type: "tcp", address, tls },
        { type: "grpc", target: address, tls: undefined },
        { type: "grpc", target: address, tls },
        { type: "h2ping", address, tls: undefined },
      ] satisfies readonly ProbeMethod[]) {
        assert.ok((await run(method, { timeoutMs: 2_000 })).output.length > 0);
      }
    }
  });

  it("leaves nothing at the signal of its check, whatever it found, and ends with it", async () => {
    await using server = await serveHttp((_, response) => response.end("ok"));
    await using silent = await listening(createTcp(() => {}));
    const check = new AbortController();
    const { signal } = check;
    await run(http(`http://${server.address}/`), { signal });
    await run(http(`http://${silent.address}/`), { signal, timeoutMs: 20 });
    await run({ type: "tcp", address: server.address, tls: undefined }, { signal });
    assert.equal(getEventListeners(signal, "abort").length, 0);
    const last = run(http(`http://${silent.address}/`), { signal, timeoutMs: 60_000 });
    check.abort();
    assert.equal((await last).status, "critical");
    assert.equal((await run(http(`http://${server.address}/`), { signal })).status, "critical");
  });
});
