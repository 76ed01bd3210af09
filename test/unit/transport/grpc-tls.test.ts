import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { performServerHandshake } from "node:http2";
import { test } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";
import { grpcTransport } from "../../../src/transport/grpc.js";
import type { DialTarget, ServerIdentity } from "../../../src/transport/transport.js";
import { fixedIdentity, newAuthority, newLeaf, SERVER_NAME, TRUST_DOMAIN } from "./certificates.js";
import { failure, never, plaintext, startAcceptor } from "./grpc-harness.js";

const root = await newAuthority("Root");
const otherRoot = await newAuthority("Other Root");
const identity = fixedIdentity(await newLeaf(root));
const TLS = { listen: "127.0.0.1:0" };

const trusting = (address: string, ...caPems: string[]): DialTarget => ({ address, serverName: SERVER_NAME, caPems });

/** Both calls to an acceptor that shows `identity`; resolves with what went wrong, or undefined. */
async function dial(
  shown: ServerIdentity,
  target: (address: string) => DialTarget,
  asked: string[] = [],
): Promise<string | undefined> {
  await using acceptor = await startAcceptor(TLS, shown, async ({ establishmentSecret }) => {
    asked.push(establishmentSecret);
    return { streamSecret: "granted" };
  });
  await using dialer = grpcTransport();
  const request = { peerId: "id", establishmentSecret: "secret" };
  const calls = [
    dialer.openStream(target(acceptor.address), { signal: never }),
    dialer.exchangeSecret(target(acceptor.address), request, { timeoutMs: 10_000, signal: never }),
  ];
  const [stream, exchange] = await Promise.allSettled(calls);
  assert.equal(stream?.status, exchange?.status);
  if (stream?.status !== "rejected") return undefined;
  for (const call of calls) {
    const error = await failure(call);
    assert.deepEqual([error.code, error.status], ["unauthenticated", 14]);
  }
  return (await failure(Promise.reject(stream.reason))).message;
}

/** The certificate a server shows, to a client that checks nothing. */
async function shownBy(address: string, options: object = {}): Promise<{ serial: string; socket: TLSSocket }> {
  const [host, port] = address.split(":");
  const socket = connect({ host, port: Number(port), rejectUnauthorized: false, ALPNProtocols: ["h2"], ...options });
  socket.on("error", () => {});
  await once(socket, "secureConnect");
  const serial = socket.getPeerX509Certificate()?.serialNumber ?? "";
  return { serial, socket };
}

test("a certificate as Consul's acceptors have it, trusted by its root", async () => {
  assert.equal(await dial(identity, (address) => trusting(address, root.certificatePem)), undefined);
});

test("the name is compared without regard to case", async () => {
  const target = (address: string): DialTarget => ({
    ...trusting(address, root.certificatePem),
    serverName: SERVER_NAME.toUpperCase(),
  });
  assert.equal(await dial(identity, target), undefined);
});

test("a wrong server name fails, naming the real SAN (ch1 case 4, ch3 case 22)", async () => {
  const target = (address: string): DialTarget => ({
    ...trusting(address, root.certificatePem),
    serverName: "server.dc2.peering.x.consul",
  });
  const message = await dial(identity, target);
  assert.match(message ?? "", /x509: certificate is valid for /);
  assert.ok(message?.includes(`${SERVER_NAME}, not server.dc2.peering.x.consul`), message);
});

test("a certificate without any DNS name is valid for none", async () => {
  const nameless = fixedIdentity(await newLeaf(root, { dnsNames: [] }));
  const message = await dial(nameless, (address) => trusting(address, root.certificatePem));
  assert.match(message ?? "", /certificate is valid for no name, not server\.dc1/);
});

test("a foreign CA fails with an unknown authority (ch1 case 5, ch3 case 22)", async () => {
  const message = await dial(identity, (address) => trusting(address, otherRoot.certificatePem));
  assert.match(message ?? "", /x509: certificate signed by unknown authority/);
  assert.ok(message?.includes(SERVER_NAME), message);
});

test("a service, gateway or agent with the name of the servers in its certificate is not taken for one, and is told nothing", async () => {
  for (const path of [
    "/ns/default/dc/dc1/svc/web",
    "/ns/default/dc/dc1/svc/a,b",
    "/ns/default/dc/dc1/svc/web/agent/server/dc/dc1",
    "/gateway/mesh/dc/dc1",
    "/agent/client/dc/dc1/id/n1",
    "",
  ]) {
    const uri = `spiffe://${TRUST_DOMAIN}${path}`;
    const impostor = fixedIdentity(await newLeaf(root, { uri }));
    const asked: string[] = [];
    const message = await dial(impostor, (address) => trusting(address, root.certificatePem), asked);
    assert.ok(message?.includes(`x509: certificate is one of ${uri}, not of a server`), message);
    assert.deepEqual(asked, []);
  }
  for (const uri of ["https://example.com/", `SPIFFE://other.consul/agent/server/dc/dc2`]) {
    const server = fixedIdentity(await newLeaf(root, { uri }));
    assert.equal(await dial(server, (address) => trusting(address, root.certificatePem)), undefined);
  }
});

test("the system's roots do not count, and any one of several given ones does", async () => {
  const target = (address: string): DialTarget => trusting(address, otherRoot.certificatePem, root.certificatePem);
  assert.equal(await dial(identity, target), undefined);
  const bundle = (address: string): DialTarget => trusting(address, otherRoot.certificatePem + root.certificatePem);
  assert.equal(await dial(identity, bundle), undefined);
});

test("an expired certificate and one of the future fail, naming the time", async () => {
  const day = 86_400_000;
  const expired = fixedIdentity(await newLeaf(root, { notBefore: Date.now() - 2 * day, notAfter: Date.now() - day }));
  const early = fixedIdentity(await newLeaf(root, { notBefore: Date.now() + day, notAfter: Date.now() + 2 * day }));
  const target = (address: string): DialTarget => trusting(address, root.certificatePem);
  assert.match((await dial(expired, target)) ?? "", /certificate has expired or is not yet valid: expired at /);
  assert.match((await dial(early, target)) ?? "", /certificate has expired or is not yet valid: valid from /);
});

test("a root that has expired or is of the future fails, and is named rather than the certificate below it", async () => {
  const hour = 3_600_000;
  for (const [validity, text] of [
    [{ notBefore: Date.now() - 2 * hour, notAfter: Date.now() - hour }, /its authority CN=Wrong Clock expired at /],
    [{ notBefore: Date.now() + hour }, /its authority CN=Wrong Clock valid from /],
  ] as const) {
    const wrong = await newAuthority("Wrong Clock", undefined, validity);
    const shown = fixedIdentity(await newLeaf(wrong));
    const message = await dial(shown, (address) => trusting(address, wrong.certificatePem));
    assert.match(message ?? "", /x509: certificate has expired or is not yet valid: /);
    assert.match(message ?? "", text);
  }
});

test("a chain with an intermediate, trusted by its root", async () => {
  const intermediate = await newAuthority("Intermediate", root);
  const leaf = await newLeaf(intermediate);
  const withChain = fixedIdentity({
    ...leaf,
    certificateChainPem: leaf.certificateChainPem + intermediate.certificatePem,
  });
  assert.equal(await dial(withChain, (address) => trusting(address, root.certificatePem)), undefined);
  const without = await dial(fixedIdentity(leaf), (address) => trusting(address, root.certificatePem));
  assert.match(without ?? "", /unknown authority/);
});

test("an anchor that is not self-signed is trusted, as by Go", async () => {
  const intermediate = await newAuthority("Intermediate", root);
  const leaf = fixedIdentity(await newLeaf(intermediate));
  assert.equal(await dial(leaf, (address) => trusting(address, intermediate.certificatePem)), undefined);
});

test("without roots plaintext HTTP/2 is used (ch1 case 6)", async () => {
  await using acceptor = await startAcceptor({ plaintextListen: "127.0.0.1:0" }, identity);
  await using dialer = grpcTransport();
  const stream = await dialer.openStream(plaintext(acceptor.address), { signal: never });
  const accepted = await acceptor.next();
  await accepted.send([Uint8Array.of(1)]);
  assert.deepEqual(await stream.receive(), [Uint8Array.of(1)]);
});

test("plaintext to a TLS port and TLS to a plaintext port fail as unavailable", async () => {
  await using secure = await startAcceptor(TLS, identity);
  await using plain = await startAcceptor({ plaintextListen: "127.0.0.1:0" }, identity);
  await using dialer = grpcTransport();
  for (const target of [plaintext(secure.address), trusting(plain.address, root.certificatePem)]) {
    const error = await failure(dialer.openStream(target, { signal: never }));
    assert.deepEqual([error.code, error.status], ["unavailable", 14]);
  }
});

test("an element that is not PEM fails with its text, a private key without (ch1 case 7)", async () => {
  await using dialer = grpcTransport();
  const broken = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydA==\n-----END CERTIFICATE-----\n";
  for (const element of ["not a pem", "", broken]) {
    const target = trusting("127.0.0.1:1", root.certificatePem, element);
    const error = await failure(dialer.openStream(target, { signal: never }));
    assert.deepEqual([error.code, error.message], ["invalid-argument", `failed to parse PEM ${element}`]);
  }
  const error = await failure(dialer.openStream(trusting("127.0.0.1:1", root.keyPem), { signal: never }));
  assert.equal(error.message, "failed to parse PEM (a private key)");
  // As Go's AppendCertsFromPEM: what stands beside a certificate does not matter.
  await using acceptor = await startAcceptor(TLS, identity);
  const mixed = `some words\n${broken}${root.certificatePem}`;
  await (await dialer.openStream(trusting(acceptor.address, mixed), { signal: never })).close();
  // Markers that are begun and not ended neither spoil a certificate nor take time that grows with their square.
  const begun = "-----BEGIN CERTIFICATE-----\n";
  const endless = `${begun}${root.certificatePem}${begun.repeat(200_000)}`;
  await (await dialer.openStream(trusting(acceptor.address, endless), { signal: never })).close();
});

test("an acceptor that selects no ALPN protocol can be dialed (ch1 case 8)", async () => {
  const { certificateChainPem, privateKeyPem } = identity.current();
  const server = createServer({ cert: certificateChainPem, key: privateKeyPem }, (socket) => {
    assert.equal(socket.alpnProtocol, false);
    const session = performServerHandshake(socket);
    session.on("error", () => {});
    session.on("stream", (stream) => {
      stream.on("error", () => {});
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.pipe(stream);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const bound = server.address();
  assert.ok(bound !== null && typeof bound === "object");
  {
    await using dialer = grpcTransport();
    const stream = await dialer.openStream(trusting(`127.0.0.1:${bound.port}`, root.certificatePem), { signal: never });
    await stream.send([Uint8Array.of(7, 8, 9)]);
    assert.deepEqual(await stream.receive(), [Uint8Array.of(7, 8, 9)]);
    await stream.halfClose();
    assert.equal(await stream.receive(), undefined);
    await stream.close();
  }
  server.close();
  await once(server, "close");
});

test("each handshake asks for the certificate, with any SNI and none, and wants none back (ch1 cases 1 and 2)", async () => {
  const [first, second] = [await newLeaf(root), await newLeaf(root)];
  let shown = first;
  await using acceptor = await startAcceptor(TLS, { serverName: SERVER_NAME, current: () => shown });
  for (const expected of [first, second, first]) {
    shown = expected;
    const serial = new X509Certificate(expected.certificateChainPem).serialNumber;
    for (const options of [{ servername: SERVER_NAME }, { servername: "localhost" }, {}]) {
      const { serial: seen, socket } = await shownBy(acceptor.address, options);
      assert.equal(seen, serial);
      assert.equal(socket.alpnProtocol, "h2");
      socket.destroy();
    }
  }
});

test("no certificate yet: the handshake fails, and works once there is one", async () => {
  let ready = false;
  const late: ServerIdentity = {
    serverName: SERVER_NAME,
    current() {
      if (!ready) throw new Error("Connect CA is not yet initialized");
      return identity.current();
    },
  };
  await using acceptor = await startAcceptor(TLS, late);
  await using dialer = grpcTransport();
  const target = trusting(acceptor.address, root.certificatePem);
  const error = await failure(dialer.openStream(target, { signal: never }));
  assert.deepEqual([error.code, error.status], ["unavailable", 14]);
  ready = true;
  await (await dialer.openStream(target, { signal: never })).close();
});

test("TLS below 1.2 is refused", async () => {
  await using acceptor = await startAcceptor(TLS, identity);
  const [host, port] = acceptor.address.split(":");
  const options = { host, port: Number(port), rejectUnauthorized: false, ciphers: "DEFAULT@SECLEVEL=0" };
  const socket = connect({ ...options, minVersion: "TLSv1", maxVersion: "TLSv1.1" });
  const [error] = await once(socket, "error");
  assert.match(String(error), /protocol|handshake|alert/i);
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    const { socket: open } = await shownBy(acceptor.address, { minVersion: version, maxVersion: version });
    assert.equal(open.getProtocol(), version);
    open.destroy();
  }
});
