// Requests that a web page sends through the browser of a person who can reach a server, beside those of Consul's clients,
// over real sockets.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { createServer, request } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { createConnection } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { systemClock } from "../../../src/base/environment.js";
import { Incidents } from "../../../src/base/incidents.js";
import { type HttpHandlerOptions, httpHandler } from "../../../src/http/index.js";
import { RequestGuard } from "../../../src/http/request-guard.js";
import type { PeeringRpcOptions } from "../../../src/rpc/index.js";
import { temporaryDirectory } from "../../support/hosts.js";
import { type ServedPort, servePort } from "../../support/served-port.js";
import { lonelyHost } from "../rpc/support.js";

const READ = "/v1/status/leader";
const CALLS = "/hashicorp.consul.internal.peering.PeeringService";
const EVIL = "http://evil.example";

async function served(
  options: HttpHandlerOptions & PeeringRpcOptions = {},
  { listen = "127.0.0.1:0", incidents = new Incidents() } = {},
): Promise<ServedPort> {
  return servePort(await lonelyHost({ incidents }), options, { listen });
}

/** Status and text of the answer to these bytes. */
async function raw(port: number, bytes: string, address = "127.0.0.1"): Promise<readonly [number, string]> {
  const socket = createConnection(port, address);
  socket.end(bytes);
  let text = "";
  for await (const chunk of socket) text += String(chunk);
  const [head = "", body = ""] = text.split("\r\n\r\n", 2);
  return [Number(head.split(" ")[1]), body];
}

function get(host: string, path = READ): string {
  return `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
}

interface Sent {
  readonly method?: string;
  readonly path?: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

async function send(
  port: number,
  { method = "POST", path = "/v1/peering/token", body = '{"PeerName":"west"}', headers = {} }: Sent,
): Promise<{ readonly status: number; readonly text: string; readonly headers: Readonly<Record<string, unknown>> }> {
  const outgoing = request({ host: "127.0.0.1", port, method, path, headers, agent: false });
  outgoing.end(method === "POST" || method === "PUT" ? body : undefined);
  const [incoming] = await once(outgoing, "response");
  let text = "";
  for await (const chunk of incoming) text += String(chunk);
  return { status: incoming.statusCode, text, headers: incoming.headers };
}

async function overHttp2(port: number, headers: Readonly<Record<string, string>>): Promise<number> {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  const stream = session.request({ ":method": "POST", "content-type": "application/json", ...headers });
  stream.end("{}");
  const [answer] = await once(stream, "response");
  stream.resume();
  await once(stream, "close");
  session.close();
  return Number(answer[":status"]);
}

/** An address of this machine that is not loopback. */
const outside = Object.values(networkInterfaces())
  .flat()
  .find((found) => found?.family === "IPv4" && !found.internal)?.address;

describe("the Host of a request", () => {
  let one: ServedPort;
  before(async () => {
    one = await served({ allowedHosts: ["consul.example.com", "10.1.2.3", "2001:db8::7"] });
  });
  after(() => one[Symbol.asyncDispose]());

  const allowed = [
    "localhost",
    "localhost:8500",
    "LocalHost:8500",
    "localhost.:8500",
    "agent.localhost",
    "127.0.0.1:8500",
    "127.9.8.7",
    "127.0.0.1.",
    "[::1]:8500",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]:8500",
    "[::FFFF:7f00:1]",
    // As people type it for short; nothing else is reached by it.
    "127.1:8500",
    "2130706433",
    "0x7f000001",
    // Those of the option.
    "consul.example.com",
    "CONSUL.example.com.:80",
    "10.1.2.3:8500",
    "[2001:db8:0::7]:8500",
  ];
  for (const host of allowed) {
    it(`is taken by a server on loopback: ${host}`, async () => {
      assert.equal((await raw(one.port, get(host)))[0], 200);
    });
  }

  const refused = [
    "evil.example",
    "evil.example:8500",
    "localhost.evil.example",
    "evil-localhost",
    "localhostevil",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io",
    "127.evil",
    "evil.consul.example.com",
    "10.0.0.1",
    "128.0.0.1",
    "0.0.0.0:8500",
    "[::]",
    "[::2]",
    "[::ffff:10.0.0.1]",
    "[2001:db8::1]",
    "167772161",
    "evil.example@localhost",
    "localhost@evil.example",
    "localhost,evil.example",
    "localhost evil.example",
    "localhost/evil.example",
    "localhost:8500:80",
    "localhost:99999",
    "%6cocalhost",
    "xn--a",
    "[::1",
    "",
  ];
  for (const host of refused) {
    it(`is refused by a server on loopback: ${JSON.stringify(host)}`, async () => {
      const [status, text] = await raw(one.port, get(host));
      assert.equal(status, 403);
      assert.ok(text.startsWith(`Host ${JSON.stringify(host)} is not allowed.`), text);
    });
  }

  it("counts whatever is asked for, by whatever method", async () => {
    for (const path of [
      "/",
      "/v1/nothing",
      "/v1//peerings",
      "/v1/catalog/nodes?index=1",
      `${CALLS}/PeeringList`,
      "*",
    ]) {
      for (const method of ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"]) {
        const head = `${method} ${path} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;
        assert.equal((await raw(one.port, head))[0], 403, `${method} ${path}`);
      }
    }
  });

  it("may be left out where HTTP/1.0 lets a client do so, which no browser does", async () => {
    assert.equal((await raw(one.port, `GET ${READ} HTTP/1.0\r\n\r\n`))[0], 200);
    assert.equal((await raw(one.port, `GET ${READ} HTTP/1.0\r\nHost: evil.example\r\n\r\n`))[0], 403);
    assert.equal((await raw(one.port, `GET ${READ} HTTP/1.1\r\nConnection: close\r\n\r\n`))[0], 400);
  });

  it("is one: two are a bad request, whichever comes first, and a target that names another host is, too", async () => {
    const of = (...hosts: readonly string[]): string =>
      `GET ${READ} HTTP/1.1\r\n${hosts.map((host) => `Host: ${host}\r\n`).join("")}Connection: close\r\n\r\n`;
    for (const hosts of [
      ["localhost", "evil.example"],
      ["evil.example", "localhost"],
      ["localhost", "localhost"],
    ]) {
      assert.equal((await raw(one.port, of(...hosts)))[0], 400, hosts.join());
    }
    assert.equal((await raw(one.port, get("localhost", `http://evil.example${READ}`)))[0], 400);
    assert.equal((await raw(one.port, get("evil.example", `http://localhost${READ}`)))[0], 403);
  });

  it("is judged for calls over HTTP/2 by :authority and Host alike", async () => {
    const path = { ":path": `${CALLS}/PeeringList` };
    assert.equal(await overHttp2(one.port, path), 200);
    assert.equal(await overHttp2(one.port, { ...path, ":authority": "localhost" }), 200);
    assert.equal(await overHttp2(one.port, { ...path, ":authority": "evil.example" }), 403);
    assert.equal(await overHttp2(one.port, { ...path, host: "evil.example" }), 403);
  });

  it("is not judged by a server that listens elsewhere, unless the option says what is allowed, and then by that alone", async () => {
    await using open = await served({}, { listen: "0.0.0.0:0" });
    for (const address of ["127.0.0.1", ...(outside === undefined ? [] : [outside])]) {
      for (const host of ["evil.example", "localhost", "10.0.0.1:8500", ""]) {
        assert.equal((await raw(open.port, get(host), address))[0], 200, host);
      }
    }
    await using narrow = await served({ allowedHosts: ["consul.example.com"] }, { listen: "0.0.0.0:0" });
    for (const [host, status] of [
      ["consul.example.com:8500", 200],
      ["evil.example", 403],
      ["localhost", 403],
    ] as const) {
      assert.equal((await raw(narrow.port, get(host)))[0], status, host);
    }
    await using any = await served({ allowedHosts: ["*"] });
    assert.equal((await raw(any.port, get("evil.example")))[0], 200);
  });

  it("is judged by a server that is closing, too", async () => {
    const host = await lonelyHost();
    const handler = httpHandler(host);
    const server = createServer((incoming, outgoing) => {
      server.close();
      handler(incoming, outgoing);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const bound = server.address();
    assert.ok(bound !== null && typeof bound === "object");
    assert.equal((await raw(bound.port, get("evil.example")))[0], 403);
    await host[Symbol.asyncDispose]();
  });

  it("is not judged by a server on a Unix socket, which no page reaches", async () => {
    await using directory = await temporaryDirectory();
    await using host = await lonelyHost();
    const path = join(directory.path, "socket");
    const server = createServer(httpHandler(host)).listen(path);
    await once(server, "listening");
    const outgoing = request({ socketPath: path, path: READ, headers: { Host: path }, agent: false }).end();
    const [incoming] = await once(outgoing, "response");
    assert.equal(incoming.statusCode, 200);
    incoming.resume();
    server.close();
  });
});

describe("the origin of a write", () => {
  const form = { "Content-Type": "text/plain" };
  const browser = { "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:60.0) Gecko/20100101 Firefox/60.0" };
  const own = "http://localhost:8500";
  const cases: readonly (readonly [string, Readonly<Record<string, string>>, number])[] = [
    ["a page of another site without a preflight", { ...form, Origin: EVIL, "Sec-Fetch-Site": "cross-site" }, 403],
    ["the same in a browser that says no more than the origin", { ...form, Origin: EVIL }, 403],
    ["a page in a sandbox, from a file, or after a redirect", { ...form, Origin: "null" }, 403],
    ["a page of another port of this machine", { Origin: "http://localhost:3000", "Sec-Fetch-Site": "same-site" }, 403],
    ["the same, in an older browser", { Origin: "http://localhost:3000" }, 403],
    ["a page of the same name and another scheme", { Origin: "https://localhost" }, 403],
    ["a page whose origin contains an allowed one", { Origin: "https://ui.example.com.evil.example" }, 403],
    ["two origins", { Origin: `https://ui.example.com, ${EVIL}` }, 403],
    ["an invalid origin", { Origin: "localhost:8500" }, 403],
    ["JSON all the same", { Origin: EVIL, "Content-Type": "application/json" }, 403],
    ["a browser that tells the site and no origin", { ...form, "Sec-Fetch-Site": "cross-site" }, 403],
    ["a site that no browser names", { "Sec-Fetch-Site": "elsewhere" }, 403],
    ["a form in a browser that tells neither", { ...form, ...browser }, 403],
    ["a page of the server itself", { Origin: own, "Sec-Fetch-Site": "same-origin" }, 200],
    ["the same, in an older browser", { Origin: own }, 200],
    [
      "the same behind a proxy that names the server otherwise",
      { Origin: "https://a.example", "Sec-Fetch-Site": "same-origin" },
      200,
    ],
    ["a page of an allowed origin", { Origin: "https://ui.example.com", "Sec-Fetch-Site": "cross-site" }, 200],
    ["an extension that is allowed", { Origin: "chrome-extension://abc" }, 200],
    ["a program that says nothing", {}, 200],
    ["curl -d", { "Content-Type": "application/x-www-form-urlencoded", "User-Agent": "curl/8.5.0" }, 200],
    [
      "a text by fetch of Node",
      { "Content-Type": "text/plain;charset=UTF-8", "Sec-Fetch-Mode": "cors", "User-Agent": "node" },
      200,
    ],
    [
      "JSON by Invoke-RestMethod",
      { "Content-Type": "application/json", "User-Agent": "Mozilla/5.0 (Windows NT) WindowsPowerShell/5.1" },
      200,
    ],
  ];
  for (const [what, headers, expected] of cases) {
    it(`${expected === 200 ? "lets through" : "keeps out"} ${what}`, async () => {
      await using one = await served({ allowedOrigins: ["https://ui.example.com/", "chrome-extension://abc"] });
      const { status, text } = await send(one.port, { headers: { Host: "localhost:8500", ...headers } });
      assert.equal(status, expected, text);
      assert.equal(one.host.peerings.list().length, expected === 200 ? 1 : 0);
    });
  }

  it("is judged for every method that writes, and for calls of any kind; a read is answered, and shown to no page", async () => {
    await using one = await served();
    const headers = { Origin: EVIL };
    for (const method of ["POST", "PUT", "DELETE", "PATCH"]) {
      assert.equal((await send(one.port, { method, headers, path: "/v1/peering/west" })).status, 403, method);
    }
    for (const type of ["application/json", "application/grpc-web+proto", "application/grpc-web-text", "text/plain"]) {
      const sent = { headers: { ...headers, "Content-Type": type }, path: `${CALLS}/GenerateToken` };
      assert.equal((await send(one.port, sent)).status, 403, type);
    }
    assert.equal(await overHttp2(one.port, { ":path": `${CALLS}/PeeringList`, origin: EVIL }), 403);
    const read = await send(one.port, { method: "GET", path: READ, headers });
    assert.deepEqual([read.status, read.headers["access-control-allow-origin"]], [200, undefined]);
    const asked = { ...headers, "Access-Control-Request-Method": "PUT" };
    const preflight = await send(one.port, { method: "OPTIONS", path: "/v1/config", headers: asked });
    assert.equal(preflight.headers["access-control-allow-methods"], undefined);
    assert.deepEqual(one.host.peerings.list(), []);
  });

  it("opens the HTTP API to pages of an allowed origin, as it opens calls", async () => {
    const origin = "https://ui.example.com";
    await using one = await served({ allowedOrigins: [origin] });
    const asked = {
      Origin: origin,
      "Access-Control-Request-Method": "PUT",
      "Access-Control-Request-Headers": "content-type,x-consul-token",
    };
    const preflight = await send(one.port, { method: "OPTIONS", path: "/v1/config", headers: asked });
    assert.deepEqual(
      [
        preflight.status,
        preflight.headers["access-control-allow-origin"],
        preflight.headers["access-control-allow-methods"],
      ],
      [200, origin, "PUT"],
    );
    assert.match(String(preflight.headers["access-control-allow-headers"]), /Content-Type.*X-Consul-Token/);
    const read = await send(one.port, { method: "GET", path: "/v1/catalog/nodes", headers: { Origin: origin } });
    assert.deepEqual([read.status, read.headers["access-control-allow-origin"]], [200, origin]);
    assert.match(String(read.headers["access-control-expose-headers"]), /X-Consul-Index/);
    assert.equal(read.headers["vary"], "Accept-Encoding, Origin");
    const plain = await send(one.port, { method: "GET", path: "/v1/catalog/nodes" });
    assert.deepEqual(
      [plain.headers["access-control-allow-origin"], plain.headers["vary"]],
      [undefined, "Accept-Encoding, Origin"],
    );
  });

  it("is counted and logged once when it is refused, as a host is", async () => {
    const incidents = new Incidents();
    await using one = await served({}, { incidents });
    for (let round = 0; round < 3; round++) {
      await send(one.port, { headers: { Origin: EVIL } });
      await send(one.port, { path: `${CALLS}/PeeringDelete`, headers: { Origin: EVIL } });
      await raw(one.port, get("evil.example"));
    }
    assert.deepEqual(
      incidents.counts(),
      new Map([
        ["http-origin-refused", 6],
        ["http-host-refused", 3],
      ]),
    );
  });
});

describe("clients of Consul", () => {
  const run = (command: string, args: readonly string[]): Promise<string | undefined> =>
    new Promise((resolve, reject) => {
      execFile(command, args, (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else if (error.code === "ENOENT") resolve(undefined);
        else reject(new Error(stderr, { cause: error }));
      });
    });
  const python =
    'import sys,urllib.request as u; print(u.urlopen(u.Request(sys.argv[1],b\'{"PeerName":"west"}\')).read().decode())';
  const tools: readonly (readonly [string, (url: string) => readonly string[]])[] = [
    ["curl", (url) => ["-sf", "-d", '{"PeerName":"west"}', url]],
    ["wget", (url) => ["-qO-", '--post-data={"PeerName":"west"}', url]],
    ["python3", (url) => ["-c", python, url]],
  ];
  for (const [tool, args] of tools) {
    it(`${tool} writes as ever`, async (context) => {
      await using one = await served();
      const printed = await run(tool, args(`http://localhost:${one.port}/v1/peering/token`));
      if (printed === undefined) return context.skip(`${tool} is not installed`);
      assert.match(printed, /"PeeringToken"/);
    });
  }

  it("fetch of Node writes as ever, with a text and with JSON", async () => {
    await using one = await served();
    const url = `http://127.0.0.1:${one.port}/v1/peering/token`;
    for (const init of [{}, { headers: { "Content-Type": "application/json" } }]) {
      const { status } = await fetch(url, { method: "POST", body: '{"PeerName":"west"}', ...init });
      assert.equal(status, 200);
    }
  });
});

describe("writes from elsewhere", () => {
  const WRITE = { method: "PUT", path: "/v1/catalog/register", body: '{"Node":"n","Address":"10.0.0.1"}' };

  it("are refused with Consul's words, over HTTP and by calls, while reads are answered", async () => {
    const incidents = new Incidents();
    await using one = await served({ allowWriteFrom: ["10.0.0.0/8", "2001:db8::/32"] }, { incidents });
    for (const sent of [WRITE, { path: "/v1/peering/token" }, { method: "DELETE", path: "/v1/peering/west" }]) {
      const { status, text, headers } = await send(one.port, sent);
      assert.deepEqual(
        [status, text, headers["content-type"]],
        [403, "Access is restricted", "text/plain; charset=utf-8"],
      );
    }
    const call = async (method: string): Promise<number> => {
      const headers = { "Content-Type": "application/json" };
      return (await send(one.port, { path: `${CALLS}/${method}`, body: "{}", headers })).status;
    };
    assert.deepEqual(
      [await call("GenerateToken"), await call("Establish"), await call("PeeringDelete"), await call("PeeringWrite")],
      [403, 403, 403, 403],
    );
    assert.equal(await overHttp2(one.port, { ":path": `${CALLS}/GenerateToken` }), 403);
    assert.equal(await call("PeeringList"), 200);
    assert.equal((await send(one.port, { method: "GET", path: "/v1/catalog/nodes" })).status, 200);
    // As in Consul, a method that the endpoint does not have is refused first.
    assert.equal((await send(one.port, { method: "PUT", path: READ })).status, 405);
    assert.equal((await send(one.port, { method: "PUT", path: "/v1/nothing" })).status, 404);
    assert.equal((await send(one.port, { method: "OPTIONS", path: "/v1/config" })).status, 200);
    assert.equal(incidents.counts().get("http-write-refused"), 8);
    assert.deepEqual(one.host.catalog.nodes(), []);
  });

  it("are taken from the networks that are named, also where IPv4 comes as IPv6", async () => {
    for (const [listen, networks] of [
      ["127.0.0.1:0", ["10.0.0.0/8", "127.0.0.1/32"]],
      ["127.0.0.1:0", ["127.1.2.3/8"]],
      ["127.0.0.1:0", ["0.0.0.0/0"]],
      ["127.0.0.1:0", ["::ffff:127.0.0.0/104"]],
      ["[::]:0", ["127.0.0.0/8"]],
    ] as const) {
      await using one = await served({ allowWriteFrom: networks }, { listen });
      assert.equal((await send(one.port, WRITE)).status, 200, `${networks} at ${listen}`);
    }
    await using one = await served({ allowWriteFrom: ["::1/128"] });
    assert.equal((await send(one.port, WRITE)).status, 403);
  });
});

describe("a guard of requests", () => {
  it("takes no option that would never apply", () => {
    const made = (options: HttpHandlerOptions) => () => new RequestGuard(options, new Incidents(), systemClock);
    for (const host of ["", "a b", "a:80", "http://a", "[::1]:80", "a/b", "*.example.com"]) {
      assert.throws(made({ allowedHosts: [host] }), TypeError, host);
    }
    for (const origin of ["", "ui.example.com", "https://ui.example.com/page", "https://", "http://a?b"]) {
      assert.throws(made({ allowedOrigins: [origin] }), TypeError, origin);
    }
    for (const network of ["", "10.0.0.1", "10.0.0.0/33", "::/129", "a/8", "10.0.0/8", "10.0.0.0/-1"]) {
      assert.throws(made({ allowWriteFrom: [network] }), TypeError, network);
    }
  });
});
