import "reflect-metadata";
import assert from "node:assert/strict";
import { test } from "node:test";
import * as x509 from "@peculiar/x509";
import { Incidents } from "../../../src/base/incidents.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import type { RequestedIdentity } from "../../../src/trust/authority.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { providedAuthority } from "../../../src/trust/provided-authority.js";
import { givenRoot } from "../../support/given-root.js";
import { fieldsOf } from "./go-verifier.js";
import { request, unsignedRequest, uri } from "./signing-requests.js";
import { ManualClock } from "./support.js";

const START = Date.UTC(2026, 0, 1);
const DAY = 24 * 3_600_000;
const WEB: RequestedIdentity = { kind: "service", datacenter: "dc1", service: "web" };
const GATEWAY: RequestedIdentity = { kind: "mesh-gateway", datacenter: "dc1" };
const SERVERS: RequestedIdentity = { kind: "server", datacenter: "dc1" };
const AGENT: RequestedIdentity = { kind: "agent", datacenter: "dc1", node: "n1" };

/** The one of these that the names are of; `web` where they are of none. */
function identityOf(names: readonly x509.JsonGeneralName[]): RequestedIdentity {
  const has = (path: string): boolean =>
    names.some(({ type, value }) => type === "url" && String(value).endsWith(path));
  if (has("/gateway/mesh/dc/dc1")) return GATEWAY;
  if (has("/agent/server/dc/dc1")) return SERVERS;
  return has("/agent/client/dc/dc1/id/n1") ? AGENT : WEB;
}

test("a service leaf has one URI, no subject and no DNS name", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage(), clock: new ManualClock(START) });
  const id = `spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`;
  const signed = await authority.signRequest(await request([uri(id)]), WEB);
  const fields = fieldsOf(signed.certificateChainPem);
  assert.equal(fields.subject, "");
  assert.deepEqual([fields.uris, fields.dnsNames, fields.otherNames], [[id], [], 0]);
  assert.equal(fields.namesCritical, true);
  assert.deepEqual(fields.extendedUsages, ["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"]);
  assert.equal(fields.subjectKeyId, fields.keyId);
  assert.deepEqual([fields.notBefore, fields.notAfter], [START - 60_000, START - 60_000 + 3 * DAY]);
});

test("DNS names lose what follows a colon and repeat no more; an agent gets our trust domain", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const path = "/agent/client/dc/dc1/id/n1";
  const csr = await request([uri(`spiffe://dummy.trustdomain${path}`), dns("localhost"), dns("a.b:80"), dns("a.b:81")]);
  const fields = fieldsOf((await authority.signRequest(csr, AGENT)).certificateChainPem);
  assert.deepEqual(fields.uris, [`spiffe://${authority.trustDomain}${path}`]);
  assert.deepEqual(fields.dnsNames, ["localhost", "a.b"]);
});

test("requests against the rules are refused with Consul's texts", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const own = authority.trustDomain;
  const other = "99999999-2222-3333-4444-555555555555.consul";
  const web = uri(`spiffe://${own}/ns/default/dc/dc1/svc/web`);
  for (const [names, message] of [
    [[web, uri(`spiffe://${own}/ns/default/dc/dc1/svc/api`)], "CSR SAN contains an invalid number of URIs: 2"],
    [[{ type: "dns", value: "web" }], "CSR SAN contains an invalid number of URIs: 0"],
    [[web, { type: "email", value: "a@b.c" }], "CSR SAN does not allow specifying email addresses"],
    [
      [uri(`spiffe://${own}/ns/default/dc/dc2/svc/web`)],
      "SPIFFE ID in CSR from a different datacenter: dc2, we are dc1",
    ],
    [
      [uri(`spiffe://${other}/ns/default/dc/dc1/svc/web`)],
      `SPIFFE ID in CSR from a different trust domain: ${other}, we are ${own}`,
    ],
    [[uri(`spiffe://${own}`)], "SPIFFE ID in CSR must be a service, mesh-gateway, or agent ID"],
    [[uri("http://web")], "SPIFFE ID must have 'spiffe' scheme"],
  ] as const) {
    await assert.rejects(authority.signRequest(await request([...names]), identityOf(names)), {
      name: "PeeringError",
      code: "invalid-argument",
      message,
    });
  }
});

const dns = (value: string): { type: "dns"; value: string } => ({ type: "dns", value });

test("a request is signed for the identity it asks for, and for no name besides", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const td = authority.trustDomain;
  const server = `server.dc1.peering.${td}`;
  const web = uri(`spiffe://${td}/ns/default/dc/dc1/svc/web`);
  const gateway = uri(`spiffe://${td}/gateway/mesh/dc/dc1`);
  const servers = uri(`spiffe://${td}/agent/server/dc/dc1`);
  const agent = uri(`spiffe://${td}/agent/client/dc/dc1/id/n1`);
  const others: x509.JsonGeneralName[] = [
    { type: "dn", value: `CN=${server}` },
    { type: "id", value: "1.2.3" },
    { type: "upn", value: server },
  ];
  const ip: x509.JsonGeneralName = { type: "ip", value: "127.0.0.1" };
  const refused: readonly (readonly [readonly x509.JsonGeneralName[], RegExp])[] = [
    [[web, dns(server)], /CSR SAN of a service does not allow a DNS name: "server\.dc1\.peering\./],
    [[dns(server), web], /CSR SAN of a service does not allow a DNS name/],
    [[web, dns("localhost")], /CSR SAN of a service does not allow a DNS name: "localhost"/],
    [[web, ip], /CSR SAN of a service does not allow a name of type ip: "127\.0\.0\.1"/],
    [[gateway, dns(server)], /CSR SAN of a mesh gateway does not allow a DNS name/],
    [[servers, dns(`server.dc2.peering.${td}`)], /CSR SAN of a server does not allow another DNS name/],
    [[servers, dns(server), dns("db.example.com")], /CSR SAN of a server does not allow another DNS name/],
    [[servers, ip], /CSR SAN of a server does not allow a name of type ip/],
    ...[
      server,
      server.toUpperCase(),
      `${server}:443`,
      `*.dc1.peering.${td}`,
      `*.peering.${td}`,
      td,
      `x.${td}`,
      `web.default.dc1.internal.${td}`,
    ].map((name) => [[agent, dns(name)], /CSR SAN of an agent does not allow a DNS name of the trust domain/] as const),
    ...[`${server}.`, "", " ", "a b", "a..b", "*", "*.*.a", "a.*", "-", `${"a".repeat(254)}`, "caf\u00e9"].map(
      (name) => [[agent, dns(name)], /CSR SAN of an agent contains an invalid DNS name/] as const,
    ),
    ...others.flatMap((name) =>
      [web, gateway, servers, agent].map((id) => [[id, name], /does not allow a name of type/] as const),
    ),
    [[uri(`spiffe://${td}/ns/default/dc/dc1/svc/web\n`)], /CSR SAN contains an invalid URI/],
    [[uri(`spiffe://${td}/ns/default/dc/dc1/svc/${"w".repeat(2_048)}`)], /CSR SAN contains an invalid URI/],
    [[uri(`spiffe://${td}/ns/default/dc/dc1/svc/web?a`)], /SPIFFE ID must have 'spiffe' scheme/],
  ];
  for (const [names, message] of refused) {
    await assert.rejects(authority.signRequest(await request([...names]), identityOf(names)), {
      code: "invalid-argument",
      message,
    });
  }
  for (const [names, dnsNames] of [
    [[web], []],
    [[gateway], []],
    [[servers], [server]],
    [[servers, dns(server.toUpperCase())], [server]],
    [
      [agent, dns("localhost"), ip, dns("*.nodes.example.com"), dns("x.other.consul")],
      ["localhost", "*.nodes.example.com", "x.other.consul"],
    ],
  ] as const) {
    const fields = fieldsOf(
      (await authority.signRequest(await request([...names]), identityOf(names))).certificateChainPem,
    );
    assert.deepEqual([fields.uris, fields.dnsNames, fields.otherNames], [[names[0].value], dnsNames, 0]);
  }
});

test("subject, usages, constraints and other extensions of a request are not taken over", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const web = uri(`spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`);
  const plain = fieldsOf((await authority.signRequest(await request([web]), WEB)).certificateChainPem);
  const csr = await request([web], {
    subject: `CN=server.dc1.peering.${authority.trustDomain}, O=Admins`,
    extensions: [
      new x509.BasicConstraintsExtension(true, 5, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      new x509.ExtendedKeyUsageExtension(["1.3.6.1.5.5.7.3.3", "2.5.29.37.0"], true),
      new x509.Extension("1.2.3.4.5", true, Uint8Array.of(5, 0)),
    ],
  });
  const { certificateChainPem } = await authority.signRequest(csr, WEB);
  const fields = fieldsOf(certificateChainPem);
  const kept = ({ subject, ca, usages, extendedUsages, dnsNames, uris }: typeof fields): unknown => [
    subject,
    ca,
    usages,
    extendedUsages,
    dnsNames,
    uris,
  ];
  assert.deepEqual(kept(fields), kept(plain));
  assert.deepEqual([fields.subject, fields.ca], ["", false]);
  assert.equal(new x509.X509Certificate(certificateChainPem).getExtension("1.2.3.4.5"), null);
});

test("weak keys, and such as take too long to use, are refused", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const web = uri(`spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`);
  for (const [asked, message] of [
    [{ key: "RSA 1024" }, "CSR key must have 2048 to 8192 bits where it is RSA, not 1024"],
    [{ key: "RSA 2040" }, "CSR key must have 2048 to 8192 bits where it is RSA, not 2040"],
    [
      { key: "RSA 2048", exponent: Uint8Array.of(3) },
      "CSR key must have an odd exponent from 65537 to 2147483647 where it is RSA",
    ],
  ] as const) {
    const csr = await request([web], asked);
    await assert.rejects(authority.signRequest(csr, WEB), { code: "invalid-argument", message });
  }
  for (const key of ["RSA 2048", "EC P-384", "Ed25519"] as const) {
    await authority.signRequest(await request([web], { key }), WEB);
  }
});

test("the key of a request is judged before its signature is verified, which would take long", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  for (const [key, message] of [
    [{ bits: 8_200 }, "CSR key must have 2048 to 8192 bits where it is RSA, not 8200"],
    [{ bits: 16_384 }, "CSR key must have 2048 to 8192 bits where it is RSA, not 16384"],
    [
      { bits: 3_072, exponent: new Uint8Array(380).fill(0x7f) },
      "CSR key must have an odd exponent from 65537 to 2147483647 where it is RSA",
    ],
    [
      { bits: 2_048, exponent: Uint8Array.of(0x80, 0, 0, 1) },
      "CSR key must have an odd exponent from 65537 to 2147483647 where it is RSA",
    ],
    [
      { bits: 2_048, exponent: Uint8Array.of(0x7f, 0xff, 0xff, 0xff) },
      "the certificate signing request is not signed by its own key",
    ],
    [{ bits: 2_048 }, "the certificate signing request is not signed by its own key"],
  ] as const) {
    await assert.rejects(authority.signRequest(unsignedRequest(key), WEB), { code: "invalid-argument", message });
  }
});

test("a request has nothing beside it, in PEM and in DER, and is no larger than allowed", async () => {
  const incidents = new Incidents();
  await using authority = await builtInAuthority({ storage: memoryStorage(), incidents });
  const csr = (await request([uri(`spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`)])).trim();
  const der = Buffer.from(csr.replace(/-----[^-]+-----|\s/g, ""), "base64");
  const pem = (bytes: Uint8Array, type = "CERTIFICATE REQUEST"): string =>
    `-----BEGIN ${type}-----\n${Buffer.from(bytes).toString("base64")}\n-----END ${type}-----\n`;
  await authority.signRequest(pem(der), WEB);
  await authority.signRequest(pem(der, "NEW CERTIFICATE REQUEST"), WEB);
  for (const text of [
    pem(Buffer.concat([der, Buffer.of(0)])),
    pem(Buffer.concat([der, der])),
    pem(der.subarray(0, -1)),
    pem(Buffer.of(0x30, 0xff)),
    pem(Buffer.of(0x30)),
    pem(der, "CERTIFICATE"),
    pem(der, "PRIVATE KEY"),
    csr + csr,
    `${csr}\n${csr}`,
    `junk\n${csr}`,
    `${csr}\njunk`,
    csr.replace("\n", "\nProc-Type: 4,ENCRYPTED\n\n"),
  ]) {
    await assert.rejects(authority.signRequest(text, WEB), { code: "invalid-argument", message: /cannot be read/ });
  }
  assert.equal(incidents.counts().size, 0);
  await assert.rejects(authority.signRequest(csr.padEnd(16_385), WEB), {
    code: "invalid-argument",
    message: "the certificate signing request has 16385 bytes, of which 16384 are allowed",
  });
  assert.equal(incidents.counts().get("signing-request-too-large"), 1);
  await using small = await builtInAuthority({ storage: memoryStorage(), signingRequestBytes: 100 });
  await assert.rejects(small.signRequest(csr, WEB), { message: /of which 100 are allowed/ });
});

test("a request that is invalid, or has the signature of another key, is refused", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const csr = await request([uri(`spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`)]);
  const der = Buffer.from(csr.replace(/-----[^-]+-----|\s/g, ""), "base64");
  // Inside the name of the service: still well-formed, but not what was signed.
  const at = der.indexOf("svc/web");
  der[at + 4] = "v".charCodeAt(0);
  const forged = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
  for (const text of ["", "nonsense", csr.slice(0, 200), forged]) {
    await assert.rejects(authority.signRequest(text, WEB), { code: "invalid-argument" });
  }
});

test("a request is signed for the identity that its caller may have, and for no other one that it names", async () => {
  await using builtIn = await builtInAuthority({ storage: memoryStorage() });
  const root = await givenRoot();
  await using provided = providedAuthority({
    rootPems: [root.certificatePem],
    signingCertificatePem: root.certificatePem,
    signingKeyPem: root.keyPem,
    trustDomain: builtIn.trustDomain,
  });
  const of = (path: string): string => `spiffe://${builtIn.trustDomain}${path}`;
  const requests: readonly (readonly [string, RequestedIdentity])[] = [
    ["/ns/default/dc/dc1/svc/web", WEB],
    ["/ns/default/dc/dc1/svc/api", { kind: "service", datacenter: "dc1", service: "api" }],
    ["/gateway/mesh/dc/dc1", GATEWAY],
    ["/agent/server/dc/dc1", SERVERS],
    ["/agent/client/dc/dc1/id/n1", AGENT],
    ["/agent/client/dc/dc1/id/n2", { kind: "agent", datacenter: "dc1", node: "n2" }],
  ];
  const refused = {
    code: "invalid-argument",
    message: /^CSR SAN is of another identity than the one that was asked for/,
  };
  for (const authority of [builtIn, provided]) {
    for (const [path, own] of requests) {
      const csr = await request([uri(of(path))]);
      for (const [, identity] of requests) {
        if (identity === own)
          assert.deepEqual(fieldsOf((await authority.signRequest(csr, own)).certificateChainPem).uris, [of(path)]);
        else
          await assert.rejects(authority.signRequest(csr, identity), refused, `${path} as ${JSON.stringify(identity)}`);
      }
    }
    // Other spellings of the same identity: verifiers compare bytes.
    for (const path of [
      "/ns/default/dc/dc1/svc/WEB",
      "/ns/default/dc/dc1/svc/%77eb",
      "/ns/other/dc/dc1/svc/web",
      "/ap/default/ns/default/dc/dc1/svc/web",
      "/ap/other/ns/default/dc/dc1/svc/web",
    ]) {
      await assert.rejects(authority.signRequest(await request([uri(of(path))]), WEB), refused, path);
    }
  }
});

test("signed requests of the mesh count among what may be signed in a second", async () => {
  const clock = new ManualClock(START);
  await using authority = await builtInAuthority({ storage: memoryStorage(), clock });
  await authority.configure({ config: { CSRMaxPerSecond: 0.1 } });
  const csr = await request([uri(`spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`)]);
  await authority.signRequest(csr, WEB);
  await assert.rejects(authority.signRequest(csr, WEB), { code: "resource-exhausted" });
});

test("an authority whose root has expired says so, and signs nothing", async () => {
  const clock = new ManualClock(START);
  await using builtIn = await builtInAuthority({ storage: memoryStorage(), clock });
  const root = await givenRoot();
  const later = new ManualClock(Date.now());
  await using provided = providedAuthority({
    rootPems: [root.certificatePem],
    signingCertificatePem: root.certificatePem,
    signingKeyPem: root.keyPem,
    trustDomain: builtIn.trustDomain,
    clock: later,
  });
  for (const [authority, own] of [
    [builtIn, clock],
    [provided, later],
  ] as const) {
    assert.equal(authority.signingProblem(), undefined);
    own.skip(11 * 365 * DAY);
    assert.equal(authority.signingProblem(), "its certificate has expired");
    const identity = { kind: "service", datacenter: "dc1", service: "web" } as const;
    await assert.rejects(authority.issueLeaf(identity), {
      code: "unavailable",
      message: "the certificate authority cannot sign: its certificate has expired",
    });
  }
});
