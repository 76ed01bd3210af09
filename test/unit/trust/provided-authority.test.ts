import assert from "node:assert/strict";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { test } from "node:test";
import { inspect } from "node:util";
import { PeeringError } from "../../../src/base/errors.js";
import { Incidents } from "../../../src/base/incidents.js";
import { certificatesIn } from "../../../src/token/pem.js";
import { peeringServerName } from "../../../src/trust/authority.js";
import { type ProvidedMaterial, providedAuthority } from "../../../src/trust/provided-authority.js";
import { crossSign, issueCertificate } from "../../../src/trust/x509.js";
import { withUnreadableKey } from "../../support/unreadable-key.js";
import { fieldsOf, verifyAsGo } from "./go-verifier.js";
import { request, uri } from "./signing-requests.js";
import { handshake } from "./support.js";

const DAY = 24 * 3_600_000;
const trustDomain = "11111111-2222-3333-4444-555555555555.consul";
const servername = peeringServerName("dc1", trustDomain);

interface Pair {
  readonly certificatePem: string;
  readonly keyPem: string;
}

let serial = 0n;

/** An authority's certificate: signed by `issuer`, or by itself; for a key of its own, or that of `like`. */
async function authorityCertificate(
  commonName: string,
  options: { issuer?: Pair; like?: Pair; keyPem?: string; notBefore?: number; notAfter?: number } = {},
): Promise<Pair> {
  const keyPem = options.keyPem ?? options.like?.keyPem ?? ecKey("P-256");
  const terms = {
    serialNumber: ++serial,
    issuerKeyPem: options.issuer?.keyPem ?? keyPem,
    notBefore: options.notBefore ?? Date.now() - DAY,
    notAfter: options.notAfter ?? Date.now() + 365 * DAY,
  };
  const issuer = options.issuer === undefined ? {} : { issuerPem: options.issuer.certificatePem };
  const certificatePem =
    options.like !== undefined && options.issuer !== undefined
      ? await crossSign({
          ...terms,
          certificatePem: options.like.certificatePem,
          issuerPem: options.issuer.certificatePem,
        })
      : await issueCertificate({
          ...terms,
          ...issuer,
          usage: "authority",
          subject: { commonName },
          keyPem,
          uri: `spiffe://${trustDomain}`,
          dnsNames: [],
        });
  return { certificatePem, keyPem };
}

function ecKey(namedCurve: string): string {
  return generateKeyPairSync("ec", { namedCurve }).privateKey.export({ type: "pkcs8", format: "pem" }).toString();
}

function signedBy(root: Pair, more: Partial<ProvidedMaterial> = {}): ProvidedMaterial {
  return {
    rootPems: [root.certificatePem],
    signingCertificatePem: root.certificatePem,
    signingKeyPem: root.keyPem,
    ...more,
  };
}

test("a host's own root signs server leafs of the same profile", async () => {
  const root = await authorityCertificate("own");
  const authority = providedAuthority({ trustDomain: trustDomain.toUpperCase(), ...signedBy(root) });
  assert.equal(authority.trustDomain, trustDomain);
  assert.deepEqual(
    authority.roots().map(({ certificatePem, active }) => [certificatePem, active]),
    [[root.certificatePem, true]],
  );
  const issued = await authority.issueServer("dc1");
  assert.equal(issued.rootId, authority.roots()[0]?.id);
  assert.equal(certificatesIn(issued.certificateChainPem).length, 1);
  assert.deepEqual(fieldsOf(issued.certificateChainPem).uris, [`spiffe://${trustDomain}/agent/server/dc/dc1`]);
  verifyAsGo(issued.certificateChainPem, [root.certificatePem], servername, Date.now());
  await handshake(issued, { ca: [root.certificatePem], servername });
});

test("keys of every kind sign, with SHA-256 where the kind leaves a choice", async () => {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ type: "pkcs1", format: "pem" });
  const ed25519 = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" });
  for (const keyPem of [ecKey("P-384"), ecKey("P-521"), rsa.toString(), ed25519.toString()]) {
    const root = await authorityCertificate("own", { keyPem });
    const authority = providedAuthority({ trustDomain, ...signedBy(root) });
    const issued = await authority.issueServer("dc1");
    verifyAsGo(issued.certificateChainPem, [root.certificatePem], servername, Date.now());
    await handshake(issued, { ca: [root.certificatePem], servername });
  }
});

test("intermediates are sent after the leaf, roots are not", async () => {
  const root = await authorityCertificate("own");
  const upper = await authorityCertificate("upper", { issuer: root });
  const lower = await authorityCertificate("lower", { issuer: upper });
  const authority = providedAuthority({
    trustDomain,
    rootPems: [root.certificatePem],
    signingCertificatePem: lower.certificatePem + upper.certificatePem + root.certificatePem,
    signingKeyPem: lower.keyPem,
  });
  const issued = await authority.issueServer("dc1");
  const [, ...sent] = certificatesIn(issued.certificateChainPem);
  assert.deepEqual(
    sent.map(({ pem }) => pem),
    [lower.certificatePem, upper.certificatePem],
  );
  verifyAsGo(issued.certificateChainPem, [root.certificatePem], servername, Date.now());
  await handshake(issued, { ca: [root.certificatePem], servername });
});

test("rotation in three steps: every certificate issued on the way verifies for who is one step behind", async () => {
  const [o, n] = [await authorityCertificate("o"), await authorityCertificate("n")];
  const both = [o.certificatePem, n.certificatePem];
  const steps = [
    signedBy(o),
    signedBy(o, { rootPems: both }),
    signedBy(n, { rootPems: both }),
    signedBy(n, { rootPems: [n.certificatePem] }),
  ];
  const authority = providedAuthority({ trustDomain, ...signedBy(o) });
  let changes = 0;
  authority.onRootsChanged(() => changes++);
  for (const [index, step] of steps.entries()) {
    const known = authority.roots().map(({ certificatePem }) => certificatePem);
    if (index > 0) authority.update(step);
    const issued = await authority.issueServer("dc1");
    verifyAsGo(issued.certificateChainPem, known, servername, Date.now());
    assert.equal(issued.rootId, authority.roots().find(({ active }) => active)?.id);
  }
  assert.equal(changes, 3);
});

test("a change that nobody with the old roots could follow is refused, unless forced", async () => {
  const [o, n] = [await authorityCertificate("o"), await authorityCertificate("n")];
  const authority = providedAuthority({ trustDomain, ...signedBy(o) });
  const before = authority.roots();
  assert.throws(() => authority.update(signedBy(n)), {
    code: "invalid-argument",
    message:
      "The current CA Provider does not support cross-signing. You can try again with ForceWithoutCrossSigningSet but this may cause disruption - see documentation for more.",
  });
  assert.equal(authority.roots(), before);
  authority.update(signedBy(n), { force: true });
  assert.deepEqual(
    authority.roots().map(({ certificatePem }) => certificatePem),
    [n.certificatePem],
  );
});

test("a cross-signed certificate makes one step enough", async () => {
  const [o, n] = [await authorityCertificate("o"), await authorityCertificate("n")];
  const crossSigned = await authorityCertificate("n", { like: n, issuer: o });
  const authority = providedAuthority({ trustDomain, ...signedBy(o) });
  authority.update(signedBy(n, { signingCertificatePem: n.certificatePem + crossSigned.certificatePem }));
  const issued = await authority.issueServer("dc1");
  for (const root of [o, n]) {
    verifyAsGo(issued.certificateChainPem, [root.certificatePem], servername, Date.now());
    await handshake(issued, { ca: [root.certificatePem], servername });
  }
});

test("material that does not fit together is refused by name, and no key is quoted", async () => {
  const [root, other] = [await authorityCertificate("own"), await authorityCertificate("other")];
  const expired = await authorityCertificate("expired", { notAfter: Date.now() - 1_000 });
  const early = await authorityCertificate("early", { notBefore: Date.now() + DAY });
  const leaf = await providedAuthority({ trustDomain, ...signedBy(root) }).issueServer("dc1");
  const impostor = await authorityCertificate("own");
  const cases: readonly [Partial<ProvidedMaterial> & { trustDomain?: string }, RegExp][] = [
    [{ trustDomain: "" }, /trust domain/],
    [{ trustDomain: "spiffe://a.consul" }, /trust domain/],
    [{ trustDomain: "nodot" }, /trust domain/],
    [{ rootPems: [] }, /no root/],
    [{ rootPems: [root.certificatePem, "nonsense"] }, /holds no certificate/],
    [{ rootPems: [root.certificatePem, leaf.certificateChainPem] }, /root is not a certificate authority/],
    [
      { rootPems: [root.certificatePem, withUnreadableKey(other.certificatePem)] },
      /a root has a key that cannot be read/,
    ],
    [
      { signingCertificatePem: withUnreadableKey(root.certificatePem), signingKeyPem: root.keyPem },
      /signing key is not the one/,
    ],
    [{ rootPems: [other.certificatePem] }, /does not lead to one of the roots/],
    [{ rootPems: [impostor.certificatePem] }, /does not lead to one of the roots/],
    [{ signingCertificatePem: "nonsense" }, /signing certificate is not one/],
    [
      { signingCertificatePem: leaf.certificateChainPem, signingKeyPem: leaf.privateKeyPem },
      /signing certificate is not a certificate authority/,
    ],
    [{ signingKeyPem: other.keyPem }, /signing key is not the one/],
    [{ signingKeyPem: "nonsense" }, /signing key is not the one/],
    [{ signingKeyPem: root.keyPem.replace(/\n.{8}/, "\nAAAAAAAA") }, /signing key is not the one/],
    [signedBy(expired), /expired/],
    [signedBy(early), /not valid yet/],
  ];
  for (const [change, message] of cases) {
    assert.throws(
      () => providedAuthority({ trustDomain, ...signedBy(root), ...change }),
      (error) => {
        assert.ok(error instanceof PeeringError);
        assert.equal(error.code, "invalid-argument");
        assert.match(error.message, message);
        assert.doesNotMatch(inspect(error), /PRIVATE|MII|MIG|AAAAAAAA/);
        return true;
      },
    );
  }
});

test("no leaf outlives its signing certificate, and serial numbers are positive and distinct", async () => {
  const root = await authorityCertificate("own");
  const signing = await authorityCertificate("signing", { issuer: root, notAfter: Date.now() + DAY });
  const authority = providedAuthority({
    trustDomain,
    rootPems: [root.certificatePem],
    signingCertificatePem: signing.certificatePem,
    signingKeyPem: signing.keyPem,
  });
  const leafs = await Promise.all(Array.from({ length: 8 }, () => authority.issueServer("dc1")));
  const end = Date.parse(new X509Certificate(signing.certificatePem).validTo);
  assert.equal(new Set(leafs.map((leaf) => fieldsOf(leaf.certificateChainPem).serialNumber)).size, 8);
  for (const leaf of leafs) assert.equal(leaf.notAfter, end);
});

const GATEWAY = { kind: "mesh-gateway", datacenter: "dc1" } as const;

test("signs the identity that a request asks for, with its own roots, and nothing besides", async () => {
  const root = await authorityCertificate("Root");
  const incidents = new Incidents();
  const material = {
    rootPems: [root.certificatePem],
    signingCertificatePem: root.certificatePem,
    signingKeyPem: root.keyPem,
  };
  await using authority = providedAuthority({ ...material, trustDomain, signingRequestBytes: 2_000, incidents });
  const id = `spiffe://${trustDomain}/gateway/mesh/dc/dc1`;
  const signed = await authority.signRequest(await request([uri(id)]), GATEWAY);
  const [leaf] = certificatesIn(signed.certificateChainPem);
  assert.equal(leaf?.certificate.verify(new X509Certificate(root.certificatePem).publicKey), true);
  assert.deepEqual(fieldsOf(signed.certificateChainPem).uris, [id]);
  for (const [names, key, message] of [
    [[uri(id.replace(trustDomain, "other.consul"))], undefined, /from a different trust domain/],
    [[uri(id.replace("dc1", "dc2"))], undefined, /from a different datacenter/],
    [[uri(id), { type: "dns" as const, value: "web" }], undefined, /does not allow a DNS name/],
    [[uri(id)], "RSA 1024" as const, /must have 2048 to 8192 bits/],
  ] as const) {
    const csr = await request([...names], key === undefined ? {} : { key });
    await assert.rejects(authority.signRequest(csr, GATEWAY), { code: "invalid-argument", message });
  }
  await assert.rejects(authority.signRequest("x".repeat(2_001), GATEWAY), { message: /of which 2000 are allowed/ });
  assert.equal(incidents.counts().get("signing-request-too-large"), 1);
});
