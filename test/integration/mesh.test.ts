// Two peered hosts in one process: programs call services through mesh gateways, and serve them.
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { type Agent, type IncomingMessage, type RequestOptions, request } from "node:http";
import { connect as connectTcp, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import { connect, createServer as createTlsServer } from "node:tls";
import { splitHostPort } from "../../src/base/host-port.js";
import {
  type MeshConnection,
  type MeshDialOptions,
  type MeshHttpListenerOptions,
  type MeshListener,
  meshAgent,
  meshDial,
  meshHttp2,
  meshListener,
} from "../../src/mesh/index.js";
import { eventually } from "../support/hosts.js";
import { intend, type MeshPair, meshPair, registerGateway, registerNative, serverName } from "../support/mesh.js";
import { type Issued, issue } from "../support/mesh-certificates.js";
import { SniGateway } from "../support/sni-gateway.js";

async function textOf(stream: AsyncIterable<unknown>): Promise<string> {
  let text = "";
  for await (const chunk of stream) text += String(chunk);
  return text;
}

function countOf({ exporter }: MeshPair, incident: string): number {
  return exporter.host.incidents.counts().get(incident) ?? 0;
}

function dial(pair: MeshPair, options: Partial<MeshDialOptions> = {}): Promise<MeshConnection> {
  return meshDial(pair.importer.host, { service: "web", peer: pair.exporter.name, as: "client", ...options });
}

/** Says who calls, and ends. */
function greet(pair: MeshPair, options: { readonly service?: string; readonly connectionsPerSource?: number } = {}) {
  return meshListener(pair.exporter.host, {
    service: "web",
    listen: "127.0.0.1:0",
    onConnection: (connection, { service, peer }) => connection.end(`hello ${service} of ${peer || "us"}`),
    ...options,
  });
}

/** Answers with the request as it arrives. */
async function serveApi(pair: MeshPair, options: Partial<MeshHttpListenerOptions> = {}): Promise<MeshListener> {
  const { exporter } = pair;
  await exporter.host.configEntries.set({ kind: "service-defaults", name: "api", protocol: "http" });
  const listener = await meshListener(exporter.host, {
    service: "api",
    listen: "127.0.0.1:0",
    onRequest: ({ httpVersion, method, url }, response, { service, peer }) =>
      response.end(`${httpVersion} ${method} ${url} ${service} of ${peer || "us"}`),
    ...options,
  });
  await pair.offer("api", listener.address);
  return listener;
}

async function send(agent: Agent, host: string, options: RequestOptions): Promise<readonly [number, string]> {
  const sent = request({ host, agent, ...options });
  sent.end();
  const [response]: IncomingMessage[] = await once(sent, "response");
  assert.ok(response !== undefined);
  return [response.statusCode ?? 0, await textOf(response)];
}

describe("a service of TCP of a peer", () => {
  let pair: MeshPair;
  let listener: MeshListener;
  before(async () => {
    pair = await meshPair();
    listener = await greet(pair);
    await pair.offer("web", listener.address);
  });
  after(async () => {
    await listener.close();
    await pair[Symbol.asyncDispose]();
  });

  it("ends the connection of a caller that no intention allows, without a byte", async () => {
    const before = countOf(pair, "mesh-intention-denied");
    await assert.rejects(textOf(await dial(pair)), {
      code: "unavailable",
      message: /before its first byte: perhaps it is denied by an intention/,
    });
    // Also where something has been written, of which nothing has come of.
    const connection = await dial(pair);
    connection.end("something");
    await assert.rejects(textOf(connection), /perhaps it is denied by an intention/);
    assert.equal(countOf(pair, "mesh-intention-denied"), before + 2);
  });

  it("serves callers that an intention allows, and no others, from the next connection on (ch4 case 85)", async () => {
    const { exporter, importer } = pair;
    await intend(exporter.host, "web", [{ name: "client", peer: importer.name, action: "allow" }]);
    const connection = await dial(pair);
    assert.equal(connection.identity, `spiffe://${exporter.host.trustDomain}/ns/default/dc/${exporter.name}/svc/web`);
    assert.equal(await textOf(connection), `hello client of ${importer.name}`);
    await assert.rejects(textOf(await dial(pair, { as: "other" })), /perhaps it is denied/);
    await intend(exporter.host, "web", [{ name: "client", peer: importer.name, action: "deny" }]);
    await assert.rejects(textOf(await dial(pair)), /perhaps it is denied/);
    // Of a local service of the same name it is not.
    await intend(exporter.host, "web", [{ name: "client", action: "allow" }]);
    await assert.rejects(textOf(await dial(pair)), /perhaps it is denied/);
    const local = await meshDial(exporter.host, { service: "web", as: "client" });
    assert.equal(await textOf(local), "hello client of us");
  });

  it("is asked for by the name that its peer gave, at the gateway", () => {
    const expected = serverName("web", pair.exporter.host, pair.importer.name);
    assert.ok(pair.gateway.asked.length > 0);
    assert.deepEqual([...new Set(pair.gateway.asked)], [expected]);
  });

  it("is not found where there is none", async () => {
    await assert.rejects(dial(pair, { service: "absent" }), { code: "not-found" });
    await assert.rejects(dial(pair, { peer: "nobody" }), { code: "not-found" });
    await assert.rejects(meshDial(pair.exporter.host, { service: "absent", as: "client" }), { code: "not-found" });
    await assert.rejects(dial(pair, { as: "" }), { code: "invalid-argument" });
    for (const wrong of [{ attempts: 0 }, { connectTimeoutMs: 0 }, { attempts: Number.NaN }]) {
      await assert.rejects(dial(pair, wrong), TypeError);
    }
  });

  it("is dialed no longer than the caller wants", async () => {
    await assert.rejects(dial(pair, { signal: AbortSignal.abort(new Error("enough")) }), { message: "enough" });
  });

  it("carries bytes both ways, and each end", async () => {
    const { exporter, importer } = pair;
    await using echo = await meshListener(exporter.host, {
      service: "echo",
      listen: "127.0.0.1:0",
      defaultIntention: "allow",
      onConnection: (connection) => connection.pipe(connection),
    });
    await pair.offer("echo", echo.address);
    const connection = await meshDial(importer.host, { service: "echo", peer: exporter.name, as: "client" });
    const sent = "x".repeat(3_000_000);
    connection.end(sent);
    assert.equal((await textOf(connection)) === sent, true);
    await eventually(() => connection.destroyed && pair.gateway.connections === 0, "nothing of it is left");
  });
});

describe("a service of HTTP of a peer", () => {
  let pair: MeshPair;
  let listener: MeshListener;
  let agent: Agent;
  before(async () => {
    pair = await meshPair();
    listener = await serveApi(pair);
    agent = meshAgent(pair.importer.host, { as: "client" });
    const permissions = [
      { action: "deny", http: { pathPrefix: "/v1/secret" } },
      { action: "allow", http: { pathPrefix: "/v1/", methods: ["GET"] } },
      { action: "allow", http: { pathExact: "/v2", header: [{ name: "x-kind", exact: "good,fine" }] } },
    ];
    await intend(pair.exporter.host, "api", [{ name: "client", peer: pair.importer.name, permissions }]);
  });
  after(async () => {
    agent.destroy();
    await listener.close();
    await pair[Symbol.asyncDispose]();
  });

  const asked = (options: RequestOptions): Promise<readonly [number, string]> =>
    send(agent, `api.virtual.${pair.exporter.name}.consul`, options);
  const DENIED = [403, "RBAC: access denied"] as const;

  it("lets in the requests that a permission allows, by path, method and header", async () => {
    const client = `client of ${pair.importer.name}`;
    assert.deepEqual(await asked({ path: "/v1/x?y=1" }), [200, `1.1 GET /v1/x?y=1 ${client}`]);
    assert.deepEqual(await asked({ path: "/v1/x", method: "DELETE" }), DENIED);
    assert.deepEqual(await asked({ path: "/v2" }), DENIED);
    assert.deepEqual(await asked({ path: "/v2", headers: { "X-Kind": ["good", "fine"] } }), [
      200,
      `1.1 GET /v2 ${client}`,
    ]);
    assert.deepEqual(await asked({ path: "/v1/secret" }), DENIED);
    assert.ok(countOf(pair, "mesh-intention-denied") >= 3);
  });

  it("judges and hands on the path that a request means", async () => {
    for (const path of [
      "/v1/../v3",
      "/v1/%2e%2e/v3",
      "/v1/x/../secret",
      "/v1/%73ecret",
      "/v1\\secret",
      "/v1/./secret",
    ]) {
      assert.deepEqual(await asked({ path }), DENIED, path);
    }
    const [, text] = await asked({ path: "/v1/a/../%62/./c?d=%2e%2e/" });
    assert.match(text, /^1\.1 GET \/v1\/b\/c\?d=%2e%2e\/ /);
    assert.equal((await asked({ path: "v1/x" }))[0], 400);
  });

  it("does not believe a client that another is speaking through it", async () => {
    const other = meshAgent(pair.importer.host, { as: "other" });
    const headers = {
      "x-forwarded-client-cert": `By=x;URI=spiffe://${pair.importer.host.trustDomain}/ns/default/dc/dc1/svc/client`,
    };
    const name = `api.virtual.${pair.exporter.name}.consul`;
    assert.deepEqual(await send(other, name, { path: "/v1/x", headers }), DENIED);
    other.destroy();
  });

  it("is reached over HTTP/2 as well", async () => {
    const session = await meshHttp2(pair.importer.host, { service: "api", peer: pair.exporter.name, as: "client" });
    for (const [path, expected] of [
      ["/v1/x", `2.0 GET /v1/x client of ${pair.importer.name}`],
      ["/v1/a/../%62?c", `2.0 GET /v1/b?c client of ${pair.importer.name}`],
      ["/v1/../v3", "RBAC: access denied"],
    ] as const) {
      const stream = session.request({ ":path": path });
      stream.end();
      assert.equal(await textOf(stream), expected);
    }
    session.close();
    await once(session, "close");
  });

  it("names what is wrong with the name of a request", async () => {
    for (const host of ["example.com", "api.service.consul", `api.${pair.exporter.name}.consul`, "virtual.consul"]) {
      await assert.rejects(send(agent, host, {}), { code: "invalid-argument", message: /is no name of a service/ });
    }
    await assert.rejects(send(agent, "absent.virtual.consul", {}), { code: "not-found" });
  });

  it("keeps connections for further requests", async () => {
    const own = meshAgent(pair.importer.host, { as: "client", agent: { maxSockets: 1 } });
    const before = pair.gateway.asked.length;
    const name = `api.virtual.${pair.exporter.name}.consul`;
    for (let call = 0; call < 5; call++) assert.equal((await send(own, name, { path: "/v1/x" }))[0], 200);
    assert.equal(pair.gateway.asked.length, before + 1);
    own.destroy();
  });
});

describe("certificates in the mesh", () => {
  let pair: MeshPair;
  /** The root of the importer, with its key: what a hostile peer has. */
  let root: Issued;
  before(async () => {
    pair = await meshPair();
    const { exporter, importer } = pair;
    root = await issue({ ca: true, uris: [`spiffe://${importer.host.trustDomain}`] });
    await importer.authority.configure({ config: { PrivateKey: root.keyPem, RootCert: root.certificatePem } });
    await eventually(
      () => exporter.host.view.trustBundle(importer.name)?.rootPems.includes(root.certificatePem) === true,
      "the exporter trusts that root",
    );
  });
  after(() => pair[Symbol.asyncDispose]());

  /** Everything that the listener answers to a client with this certificate. */
  async function answerTo(address: string, shown: Issued, say = ""): Promise<string> {
    const socket = connect({
      ...(splitHostPort(address) ?? { port: 0 }),
      servername: "any",
      cert: shown.certificatePem,
      key: shown.keyPem,
      rejectUnauthorized: false,
    });
    socket.on("error", () => {});
    if (say !== "") socket.write(say);
    let text = "";
    socket.on("data", (chunk) => {
      text += String(chunk);
    });
    await once(socket, "close");
    return text;
  }

  it("that a peer has signed for others are refused by listeners, and those for its own services taken", async () => {
    const { exporter, importer } = pair;
    const options = { listen: "127.0.0.1:0", defaultIntention: "allow" } as const;
    await using web = await meshListener(exporter.host, {
      ...options,
      service: "web",
      onConnection: (connection, { spiffeId }) => connection.end(spiffeId),
    });
    await pair.offer("web", web.address);
    await using api = await meshListener(exporter.host, {
      ...options,
      service: "api",
      onRequest: (_, response, { spiffeId }) => response.end(spiffeId),
    });
    await pair.offer("api", api.address);
    const get = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    const good = `spiffe://${importer.host.trustDomain}/ns/default/dc/${importer.name}/svc/client`;
    const shown = await issue({ uris: [good] }, root);
    await eventually(async () => (await answerTo(web.address, shown)) === good, "the root is trusted by the listener");
    assert.match(await answerTo(api.address, shown, get), new RegExp(`^HTTP/1.1 200 OK[^]*${good}$`));
    const before = countOf(pair, "mesh-certificate-refused");
    const { trustDomain } = exporter.host;
    const forged = [
      { uris: [`spiffe://${trustDomain}/ns/default/dc/${exporter.name}/svc/client`] },
      { uris: [`spiffe://${trustDomain}/gateway/mesh/dc/${exporter.name}`] },
      { uris: ["spiffe://dddddddd-0000-0000-0000-000000000000.consul/ns/default/dc/dc3/svc/client"] },
      { uris: [good, `spiffe://${trustDomain}/ns/default/dc/${exporter.name}/svc/client`] },
      { uris: [] },
      { uris: [good], unknownCritical: true },
    ];
    for (const wanted of forged) {
      const certificate = await issue({ name: "forged", ...wanted }, root);
      assert.equal(await answerTo(web.address, certificate), "", String(wanted.uris));
      assert.equal(await answerTo(api.address, certificate, get), "", String(wanted.uris));
    }
    assert.equal(countOf(pair, "mesh-certificate-refused"), before + 2 * forged.length);
  });

  it("of others than the service are refused by callers", async () => {
    const { exporter, importer, gateway } = pair;
    const name = serverName("web", exporter.host, importer.name);
    const uri = `spiffe://${exporter.host.trustDomain}/ns/default/dc/${exporter.name}/svc/web`;
    const other = await exporter.host.leafCertificates.current("other");
    for (const [shown, why] of [
      // Signed by our own root, which is trusted for our own services alone.
      [await issue({ uris: [uri] }, root), /its certificate is not trusted/],
      [
        { certificatePem: other.certificate.certificateChainPem, keyPem: other.certificate.privateKeyPem },
        /svc\/other, and not spiffe:.*svc\/web or spiffe:/,
      ],
    ] as const) {
      const server = createTlsServer({ cert: shown.certificatePem, key: shown.keyPem }, (socket) => socket.end("evil"));
      await using evil = await listening(server);
      gateway.routes.set(name, evil.address);
      await assert.rejects(dial(pair), { code: "unauthenticated", message: why });
    }
  });

  it("of our mesh gateway carry the requests of peers, each in the name of its caller", async () => {
    const { exporter, importer } = pair;
    const { trustDomain } = exporter.host;
    const own = await issue({ ca: true, uris: [`spiffe://${trustDomain}`] });
    await exporter.authority.configure({ config: { PrivateKey: own.keyPem, RootCert: own.certificatePem } });
    await using api = await serveApi(pair, {
      service: "api",
      onRequest: (_, response, { service, peer }) => response.end(`${service} of ${peer}`),
    });
    await intend(exporter.host, "api", [{ name: "client", peer: importer.name, action: "allow" }]);
    const gateway = await issue({ uris: [`spiffe://${trustDomain}/gateway/mesh/dc/${exporter.name}`] }, own);
    const carried = (domain: string, service: string): string =>
      `By=x;Hash=0a;Subject="";URI=spiffe://${domain}/ns/default/dc/dc2/svc/${service}`;
    const get = (header: string): Promise<string> =>
      answerTo(api.address, gateway, `GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${header}\r\n`);
    const peer = importer.host.trustDomain;
    const allowed = `x-forwarded-client-cert: ${carried(peer, "client")}\r\n`;
    assert.match(await get(allowed), new RegExp(`^HTTP/1.1 200 OK[^]*client of ${importer.name}`));
    for (const header of [
      "",
      `x-forwarded-client-cert: ${carried(peer, "other")}\r\n`,
      `x-forwarded-client-cert: ${carried(trustDomain, "client")}\r\n`,
      `x-forwarded-client-cert: ${carried(peer, "other")}\r\n${allowed}`,
    ]) {
      assert.match(await get(header), /^HTTP\/1.1 403 /, header);
    }
  });

  it("are shown on every connection: no session is resumed, which would be one that was verified before", async () => {
    const { exporter } = pair;
    await using web = await greet(pair, { service: "again" });
    const { certificate } = await exporter.host.leafCertificates.current("client");
    await intend(exporter.host, "again", [{ name: "client", action: "allow" }]);
    for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
      let session: Buffer | undefined;
      for (const isFirst of [true, false]) {
        const socket = connect({
          ...(splitHostPort(web.address) ?? { port: 0 }),
          cert: certificate.certificateChainPem,
          key: certificate.privateKeyPem,
          rejectUnauthorized: false,
          minVersion: version,
          maxVersion: version,
          ...(session === undefined ? {} : { session }),
        });
        socket.on("session", (given) => {
          session = given;
        });
        await once(socket, "secureConnect");
        assert.equal(socket.isSessionReused(), false);
        if (isFirst) session = socket.getSession();
        assert.equal(await textOf(socket), "hello client of us");
      }
    }
  });

  it("that no root leads to are refused, too, and counted", async () => {
    const { exporter, importer } = pair;
    await using web = await greet(pair, { service: "guarded" });
    const before = countOf(pair, "mesh-certificate-refused");
    const unknown = await issue({ ca: true });
    const uri = `spiffe://${importer.host.trustDomain}/ns/default/dc/${importer.name}/svc/client`;
    assert.equal(await answerTo(web.address, await issue({ uris: [uri] }, unknown)), "");
    const none = connect({ ...(splitHostPort(web.address) ?? { port: 0 }), rejectUnauthorized: false });
    none.on("error", () => {});
    await once(none.resume(), "close");
    assert.equal(countOf(pair, "mesh-certificate-refused"), before + 2);
    // A peer to which the service is not exported is as unknown.
    assert.equal(await answerTo(web.address, await issue({ uris: [uri] }, root)), "");
    assert.equal(countOf(pair, "mesh-certificate-refused"), before + 3);
    assert.deepEqual(exporter.host.exports.peersReaching("guarded"), []);
  });
});

/** Has a server listen, until the end of the test. */
async function listening(
  server: Server,
): Promise<AsyncDisposable & { readonly address: string; readonly port: number }> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  const port = typeof bound === "object" && bound !== null ? bound.port : 0;
  return {
    port,
    address: `127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

describe("a rotation of the roots of both sides", () => {
  it("fails no call, and ends no connection", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    await using listener = await meshListener(exporter.host, {
      service: "web",
      listen: "127.0.0.1:0",
      onConnection: (connection) => connection.pipe(connection),
    });
    await pair.offer("web", listener.address);
    await intend(exporter.host, "web", [{ name: "client", peer: importer.name, action: "allow" }]);
    const standing = await dial(pair);
    const echoed = async (connection: MeshConnection, word: string): Promise<void> => {
      connection.write(word);
      assert.equal(String((await once(connection, "data"))[0]), word);
    };
    await echoed(standing, "before");
    let calls = 0;
    const call = async (): Promise<void> => {
      const connection = await dial(pair);
      connection.end("word");
      assert.equal(await textOf(connection), "word");
      calls++;
    };
    const rootOf = async (): Promise<string> => {
      const socket = connect({ ...(splitHostPort(listener.address) ?? { port: 0 }), rejectUnauthorized: false });
      socket.on("error", () => {});
      await once(socket, "secureConnect");
      const issuer = new X509Certificate(socket.getPeerCertificate().raw).issuer;
      socket.destroy();
      return issuer;
    };
    const before = await rootOf();
    for (const side of [importer, exporter]) {
      const other = side === importer ? exporter : importer;
      await side.authority.rotate();
      const known = (): number => other.host.view.trustBundle(side.name)?.rootPems.length ?? 0;
      do await call();
      while (known() < 2);
      for (let more = 0; more < 5; more++) await call();
    }
    for (let renewed = false; !renewed; renewed = (await rootOf()) !== before) await call();
    for (let more = 0; more < 5; more++) await call();
    assert.ok(calls > 10);
    await echoed(standing, "after");
    standing.destroy();
  });
});

describe("mesh gateways of a peer", () => {
  it("are tried one after the other, as many as may be", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    await using listener = await greet(pair);
    // Nobody listens there; and one that accepts and says nothing.
    const gone = await listening(createTcpServer());
    await gone[Symbol.asyncDispose]();
    await using silent = await listening(createTcpServer((socket) => socket.on("error", () => {}).resume()));
    await registerGateway(exporter.host, "gateway-0", gone.port);
    await registerGateway(exporter.host, "gateway-2", silent.port);
    await intend(exporter.host, "web", [{ name: "client", peer: importer.name, action: "allow" }]);
    await pair.offer("web", listener.address);
    const proxies = { peer: exporter.name, service: "web-sidecar-proxy" };
    await eventually(
      async () => (await importer.host.imports.instances(proxies)).length === 3,
      "all gateways are known",
    );
    for (let draw = 0; draw < 6; draw++) {
      const connection = await dial(pair, { connectTimeoutMs: 200 });
      assert.equal(connection.address, `127.0.0.1:${pair.gateway.port}`);
      assert.equal(await textOf(connection), `hello client of ${importer.name}`);
    }
    // Without the good one, all are named.
    pair.gateway.routes.clear();
    await assert.rejects(dial(pair, { connectTimeoutMs: 200 }), (error: Error & { readonly code?: string }) => {
      assert.equal(error.code, "unavailable");
      assert.match(error.message, /ECONNREFUSED/);
      assert.match(error.message, /there was no connection within 200 ms/);
      assert.match(error.message, /ECONNRESET|closed during its handshake/);
      return true;
    });
    await assert.rejects(dial(pair, { connectTimeoutMs: 200, attempts: 1 }), /\(2 more were not tried\)$/);
    assert.equal(importer.host.incidents.counts().get("mesh-dial-failed"), 2);
  });

  it("are not dialed in a range that must not be", async () => {
    await using pair = await meshPair({ forbiddenAddresses: ["127.0.0.0/8"] });
    await using listener = await greet(pair);
    await pair.offer("web", listener.address);
    await assert.rejects(dial(pair), { code: "unavailable", message: /must not be dialed/ });
    assert.deepEqual(pair.gateway.asked, []);
    assert.equal(pair.importer.host.incidents.counts().get("dial-forbidden"), 1);
  });
});

describe("a listener of the mesh", () => {
  it("closes connections that do not finish their handshake, and those of callers that are denied and stay", async () => {
    await using pair = await meshPair();
    const { host } = pair.exporter;
    await using listener = await meshListener(host, {
      service: "web",
      listen: "127.0.0.1:0",
      handshakeTimeoutMs: 1_500,
      onConnection: () => assert.fail("nobody may call"),
    });
    const address = splitHostPort(listener.address) ?? { host: "", port: 0 };
    const silent = connectTcp(address.port, address.host).resume();
    const { certificate } = await host.leafCertificates.current("client");
    // It keeps its side open.
    const halfOpen = { allowHalfOpen: true };
    const denied = connect({
      ...address,
      ...halfOpen,
      cert: certificate.certificateChainPem,
      key: certificate.privateKeyPem,
      rejectUnauthorized: false,
    }).resume();
    denied.on("error", () => {});
    const counts = (): readonly number[] =>
      ["mesh-intention-denied", "connection-silent"].map((kind) => host.incidents.counts().get(kind) ?? 0);
    await eventually(() => counts().join() === "1,2", "both are closed");
    for (const socket of [silent, denied]) socket.destroy();
  });

  it("holds so many connections of one source", async () => {
    await using pair = await meshPair();
    const { host } = pair.exporter;
    await using listener = await meshListener(host, {
      service: "web",
      listen: "127.0.0.1:0",
      defaultIntention: "allow",
      connectionsPerSource: 2,
      handshakeTimeoutMs: 2_000,
      onConnection: (connection) => connection.write("hello"),
    });
    await registerNative(host, "web", listener.address);
    const held = await Promise.all([1, 2].map(() => meshDial(host, { service: "web", as: "client" })));
    for (const connection of held) await once(connection, "data");
    await assert.rejects(meshDial(host, { service: "web", as: "client" }), { code: "unavailable" });
    assert.ok((host.incidents.counts().get("connection-refused-to-source") ?? 0) > 0);
    for (const connection of held) connection.destroy();
  });

  it("ends all connections when it is closed, and may be closed again", async () => {
    await using pair = await meshPair();
    const { host } = pair.exporter;
    const listener = await meshListener(host, {
      service: "web",
      listen: "127.0.0.1:0",
      defaultIntention: "allow",
      onConnection: (connection) => connection.write("hello"),
    });
    await registerNative(host, "web", listener.address);
    const connection = await meshDial(host, { service: "web", as: "client" });
    await once(connection, "data");
    connection.on("error", () => {});
    await Promise.all([once(connection, "close"), listener.close()]);
    await listener.close();
    await assert.rejects(meshDial(host, { service: "web", as: "client" }), /ECONNREFUSED/);
  });

  it("needs a service that a certificate can name, and an address that is free", async () => {
    await using pair = await meshPair();
    const { host } = pair.exporter;
    const onConnection = (): void => {};
    await assert.rejects(meshListener(host, { service: "", listen: "127.0.0.1:0", onConnection }), {
      code: "invalid-argument",
    });
    await assert.rejects(meshListener(host, { service: "web", listen: "nowhere", onConnection }), {
      code: "invalid-argument",
    });
    await using first = await meshListener(host, { service: "web", listen: "127.0.0.1:0", onConnection });
    await assert.rejects(meshListener(host, { service: "web", listen: first.address, onConnection }), {
      code: "unavailable",
    });
  });
});

describe("a service whose chain leads elsewhere, called from Node", () => {
  it("is redirected to a peer, and fails over to it and back", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    await using remote = await greet(pair);
    await pair.offer("web", remote.address);
    await intend(exporter.host, "web", [{ name: "*", peer: importer.name, action: "allow" }]);
    const call = async (service: string): Promise<string> =>
      textOf(await meshDial(importer.host, { service, as: "client" }));
    const there = `hello client of ${importer.name}`;
    await assert.rejects(call("web"), { code: "not-found" });
    await importer.host.configEntries.set({
      kind: "service-resolver",
      name: "moved",
      redirect: { service: "web", peer: exporter.name },
    });
    assert.equal(await call("moved"), there);
    await importer.host.configEntries.set({
      kind: "service-resolver",
      name: "web",
      failover: { "*": { targets: [{ peer: exporter.name }] } },
    });
    assert.equal(await call("web"), there);
    await using near = await meshListener(importer.host, {
      service: "web",
      listen: "127.0.0.1:0",
      defaultIntention: "allow",
      onConnection: (connection) => connection.end("hello from near"),
    });
    await registerNative(importer.host, "web", near.address);
    assert.equal(await call("web"), "hello from near");
    // Also where its instance is said to be healthy, and takes no connection.
    await near.close();
    assert.equal(await call("web"), there);
    await importer.host.catalog.deregister({ node: "node-1" });
    assert.equal(await call("web"), there);
    await assert.rejects(
      meshDial(importer.host, { service: "moved", as: "client", signal: AbortSignal.abort(new Error("enough")) }),
      { message: "enough" },
    );
  });

  it("is told with each place that failed", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    await registerNative(importer.host, "web", "127.0.0.1:1");
    await importer.host.configEntries.set({
      kind: "service-resolver",
      name: "web",
      failover: { "*": { targets: [{ peer: exporter.name }] } },
    });
    await assert.rejects(meshDial(importer.host, { service: "web", as: "client" }), {
      code: "unavailable",
      message: /127\.0\.0\.1:1: the connection was lost: .*; "web" of the peer ".*": the peer does not export it/,
    });
  });

  it("goes through our own gateway first, by mode, and the peer's is not dialed by us", async () => {
    await using pair = await meshPair();
    const { exporter, importer } = pair;
    await using listener = await greet(pair);
    await pair.offer("web", listener.address);
    await intend(exporter.host, "web", [{ name: "*", peer: importer.name, action: "allow" }]);
    await using own = await SniGateway.open();
    own.routes.set(serverName("web", exporter.host, importer.name), `127.0.0.1:${pair.gateway.port}`);
    const options = { meshGateway: "local" } as const;
    await assert.rejects(dial(pair, options), /a mesh gateway of ours \(mode "local"\), and there is none/);
    await registerGateway(importer.host, "own", own.port);
    await eventually(() => importer.host.exports.meshGateways.length === 1, "the gateway is known");
    const connection = await dial(pair, options);
    assert.equal(connection.address, `127.0.0.1:${own.port}`);
    assert.equal(connection.identity, `spiffe://${exporter.host.trustDomain}/ns/default/dc/${exporter.name}/svc/web`);
    assert.equal(await textOf(connection), `hello client of ${importer.name}`);
    assert.equal((await dial(pair)).address, `127.0.0.1:${pair.gateway.port}`);
    const api = await serveApi(pair);
    own.routes.set(serverName("api", exporter.host, importer.name), `127.0.0.1:${pair.gateway.port}`);
    await intend(exporter.host, "api", [{ name: "*", peer: importer.name, action: "allow" }]);
    const agent = meshAgent(importer.host, { as: "client", ...options });
    const before = own.asked.length;
    const [status] = await send(agent, `api.virtual.${exporter.name}.consul`, { path: "/" });
    assert.deepEqual([status, own.asked.length], [200, before + 1]);
    agent.destroy();
    await api.close();
  });
});
