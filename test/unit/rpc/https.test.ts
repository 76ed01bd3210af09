import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { request } from "node:https";
import { createConnection } from "node:net";
import { after, before, describe, it } from "node:test";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Incidents } from "../../../src/base/incidents.js";
import { type HttpServerOptions, httpServer } from "../../../src/rpc/index.js";
import { testClock } from "../../../src/testing/fake-peer/test-clock.js";
import { ConnectionLimits } from "../../../src/transport/connection-limits.js";
import { PeeringService } from "../../../src/wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import { type KeyPair, TestAuthority } from "../../support/certificates.js";
import { eventually } from "../../support/hosts.js";
import { type ServedPort, servePort } from "../../support/served-port.js";
import { lonelyHost } from "./support.js";

let authority: TestAuthority;
let own: KeyPair;
let client: KeyPair;

before(async () => {
  authority = await TestAuthority.create();
  own = await authority.issue("server");
  client = await authority.issue("client");
});

async function served(options: Partial<HttpServerOptions> = {}, listen = "127.0.0.1:0"): Promise<ServedPort> {
  return servePort(await lonelyHost(), {}, { listen, tls: own, ...options });
}

/** A connection whose handshake is over, or the failure. */
async function secured(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = connect({ port, host: "127.0.0.1", ca: authority.certificate, ...options });
  await once(socket, "secureConnect");
  return socket;
}

async function ask(
  port: number,
  options: ConnectionOptions & { readonly path?: string; readonly headers?: object } = {},
): Promise<number> {
  const { path = "/v1/status/leader", headers = {}, ...rest } = options;
  const outgoing = request({
    port,
    host: "127.0.0.1",
    path,
    headers: { ...headers },
    agent: false,
    ca: authority.certificate,
    ...rest,
  }).end();
  const [incoming] = await once(outgoing, "response");
  incoming.resume();
  return incoming.statusCode;
}

describe("the server of HTTP over TLS", () => {
  it("serves the HTTP API and calls, over HTTP/1.1 and, for clients that offer it, HTTP/2", async () => {
    await using one = await served();
    assert.equal(await ask(one.port), 200);
    const sessionManager = new Http2SessionManager(`https://127.0.0.1:${one.port}`, {}, { ca: authority.certificate });
    const transport = createGrpcTransport({ baseUrl: `https://127.0.0.1:${one.port}`, sessionManager });
    await createClient(PeeringService, transport).generateToken({ PeerName: "west" });
    sessionManager.abort();
    assert.deepEqual(
      one.host.peerings.list().map(({ name }) => name),
      ["west"],
    );
    for (const [offered, agreed] of [
      [["h2", "http/1.1"], "h2"],
      [["http/1.1"], "http/1.1"],
      [undefined, false],
    ] as const) {
      const socket = await secured(one.port, offered === undefined ? {} : { ALPNProtocols: [...offered] });
      assert.equal(socket.alpnProtocol, agreed);
      socket.destroy();
    }
  });

  it("speaks TLS 1.2 and 1.3, and nothing older", async () => {
    await using one = await served();
    for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
      const socket = await secured(one.port, { minVersion: version, maxVersion: version });
      assert.equal(socket.getProtocol(), version);
      socket.destroy();
    }
    const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" } as const;
    await assert.rejects(secured(one.port, old), /alert protocol version|unsupported protocol/);
  });

  it("lets in, where clients are verified, only those of its authorities", async () => {
    await using one = await served({ tls: { ...own, ca: authority.certificate }, verifiesClients: true });
    const stranger = await (await TestAuthority.create("Stranger")).issue("client");
    const expired = await authority.issue("late", { notAfter: Date.now() - 60_000 });
    const show = ({ certificate, key }: KeyPair) => ({ cert: certificate, key });
    assert.equal(await ask(one.port, show(client)), 200);
    for (const options of [{}, show(stranger), show(expired)]) await assert.rejects(ask(one.port, options));
    const session = connectHttp2(`https://127.0.0.1:${one.port}`, { ca: authority.certificate });
    session.on("error", () => {});
    await assert.rejects(once(session.request({ ":path": "/v1/status/leader" }), "response"), /certificate required/);
    session.destroy();
    assert.deepEqual(one.host.peerings.list(), []);
  });

  it("judges requests as in plaintext: by Host where it listens on loopback, and nowhere else", async () => {
    await using one = await served();
    const evil = { servername: "localhost", headers: { Host: "evil.example" } };
    assert.equal(await ask(one.port, evil), 403);
    const session = connectHttp2(`https://127.0.0.1:${one.port}`, { ca: authority.certificate });
    const path = "/hashicorp.consul.internal.peering.PeeringService/PeeringList";
    const stream = session.request({ ":method": "POST", ":path": path, ":authority": "evil.example" });
    stream.end("{}");
    const [answer] = await once(stream, "response");
    assert.equal(answer[":status"], 403);
    session.close();
    await using open = await served({}, "0.0.0.0:0");
    assert.equal(await ask(open.port, evil), 200);
  });

  it("shows another certificate from the next connection on, and keeps those that are open", async () => {
    await using one = await served({ tls: { ...own, ca: authority.certificate }, verifiesClients: true });
    const shown = async (options: ConnectionOptions = {}): Promise<string | undefined> => {
      const socket = await secured(one.port, { cert: client.certificate, key: client.key, ...options });
      const { CN } = socket.getPeerCertificate().subject;
      socket.destroy();
      return CN;
    };
    const old = await secured(one.port, { cert: client.certificate, key: client.key });
    const session = once(old, "session");
    old.write("GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const [ticket]: Buffer[] = await session;
    assert.equal(await shown(), "server");

    const next = await authority.issue("next");
    const other = await TestAuthority.create("Other CA");
    one.server.replaceCertificates({ ...next, ca: other.certificate });
    const theirs = await other.issue("client");
    assert.equal(await shown({ cert: theirs.certificate, key: theirs.key }), "next");
    // Also a client that was let in before, and resumes its session.
    await assert.rejects(
      ask(one.port, { cert: client.certificate, key: client.key, ...(ticket && { session: ticket }) }),
    );
    old.write("GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let text = "";
    old.on("data", (chunk) => (text += String(chunk)));
    await eventually(() => text.includes("200 OK"), "the open connection is served");
    old.destroy();
  });

  it("takes no certificate that cannot be used, names the fault, and keeps the one it has", async () => {
    await using one = await served({ tls: { ...own, ca: authority.certificate }, verifiesClients: true });
    const other = await authority.issue("other");
    const { ca: _, ...alone } = { ...other, ca: "" };
    for (const [tls, why] of [
      [{ ...other, certificate: "" }, /the certificate is no PEM of a certificate/],
      [{ ...other, certificate: other.key }, /the certificate is no PEM of a certificate/],
      [{ ...other, key: "" }, /the key cannot be read/],
      [{ ...other, key: own.key }, /the key is not that of the certificate/],
      [{ ...other, ca: "rubbish" }, /there is no certificate among those of authorities/],
      [alone, /no authority is named whose clients are let in/],
    ] as const) {
      const refused = { code: "invalid-argument", message: why };
      assert.throws(() => one.server.replaceCertificates(tls), refused);
      const options = { listen: "127.0.0.1:0", rpc: () => {}, tls, verifiesClients: true };
      await assert.rejects(httpServer(options), refused);
    }
    assert.equal(await ask(one.port, { cert: client.certificate, key: client.key }), 200);
    await using plain = await httpServer({ listen: "127.0.0.1:0", rpc: () => {} });
    assert.throws(() => plain.replaceCertificates(own), TypeError);
  });

  describe("with clients of any kind", () => {
    let one: ServedPort;
    before(async () => {
      one = await served({ headersTimeoutMs: 200 });
    });
    after(() => one[Symbol.asyncDispose]());

    it("ends connections that never finish a handshake, or are silent afterwards, and survives broken handshakes", async () => {
      const bytes = [
        "",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x00\x05hello",
      ];
      const sockets = bytes.map((text) => {
        const socket = createConnection(one.port, "127.0.0.1")
          .on("error", () => {})
          .resume();
        if (text !== "") socket.write(text, "latin1");
        return socket;
      });
      const silent = await secured(one.port);
      const half = await secured(one.port);
      half.write("GET / HT");
      for (const socket of [silent, half]) socket.on("error", () => {}).resume();
      await Promise.all([...sockets, silent, half].map((socket) => socket.closed || once(socket, "close")));
      const reset = createConnection(one.port, "127.0.0.1").on("error", () => {});
      await once(reset, "connect");
      reset.resetAndDestroy();
      assert.equal(await ask(one.port), 200);
    });
  });

  it("shakes hands with few at once, and lets none who never finishes keep others out", {
    timeout: 20_000,
  }, async () => {
    const incidents = new Incidents();
    const clock = testClock();
    const connectionLimits = new ConnectionLimits({ clock, incidents, handshakesPerSource: 2 });
    await using one = await served({ connectionLimits, incidents, headersTimeoutMs: 60_000 });
    const silent = [1, 2].map(() =>
      createConnection(one.port, "127.0.0.1")
        .on("error", () => {})
        .resume(),
    );
    await Promise.all(silent.map((socket) => once(socket, "connect")));
    // Their first bytes wait until their handshake begins.
    const answers = Promise.all(Array.from({ length: 20 }, () => ask(one.port)));
    await eventually(() => (incidents.counts().get("handshake-waits") ?? 0) === 20, "all wait");
    await clock.advance(2_000);
    assert.deepEqual(new Set(await answers), new Set([200]));
    await Promise.all(silent.map((socket) => socket.closed || once(socket, "close")));
    assert.equal(incidents.counts().get("handshake-displaced"), 2);
  });

  it("closes everything when it is disposed of, also connections in their handshake", async () => {
    const one = await served({ drainMs: 20 });
    const raw = createConnection(one.port, "127.0.0.1")
      .on("error", () => {})
      .resume();
    await once(raw, "connect");
    const silent = (await secured(one.port)).on("error", () => {}).resume();
    const closed = [raw, silent].map((socket) => once(socket, "close"));
    await one[Symbol.asyncDispose]();
    await Promise.all(closed);
  });
});
