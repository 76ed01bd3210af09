import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { test } from "node:test";
import * as x509 from "@peculiar/x509";
import { memoryStorage } from "../../../src/storage/memory.js";
import { builtInAuthority } from "../../../src/trust/built-in-authority.js";
import { fieldsOf } from "./go-verifier.js";
import { ManualClock } from "./support.js";

const START = Date.UTC(2026, 0, 1);
const DAY = 24 * 3_600_000;

async function request(names: x509.JsonGeneralNames): Promise<string> {
  const keys = await webcrypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const made = await x509.Pkcs10CertificateRequestGenerator.create(
    {
      keys,
      signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
      extensions: [new x509.SubjectAlternativeNameExtension(names)],
    },
    webcrypto,
  );
  return made.toString("pem");
}

function uri(value: string): { type: "url"; value: string } {
  return { type: "url", value };
}

test("ch5 leafs: a service leaf has one URI, no subject and no DNS name", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage(), clock: new ManualClock(START) });
  const id = `spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`;
  const signed = await authority.signRequest(await request([uri(id)]), "dc1");
  const fields = fieldsOf(signed.certificateChainPem);
  assert.equal(fields.subject, "");
  assert.deepEqual([fields.uris, fields.dnsNames, fields.otherNames], [[id], [], 0]);
  assert.equal(fields.namesCritical, true);
  assert.deepEqual(fields.extendedUsages, ["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"]);
  assert.equal(fields.subjectKeyId, fields.keyId);
  assert.deepEqual([fields.notBefore, fields.notAfter], [START - 60_000, START - 60_000 + 3 * DAY]);
});

test("ch5 CA: DNS names lose what follows a colon and repeat no more; an agent gets our trust domain", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const path = "/agent/client/dc/dc1/id/n1";
  const dns = (value: string): { type: "dns"; value: string } => ({ type: "dns", value });
  const csr = await request([uri(`spiffe://dummy.trustdomain${path}`), dns("localhost"), dns("a.b:80"), dns("a.b:81")]);
  const fields = fieldsOf((await authority.signRequest(csr, "dc1")).certificateChainPem);
  assert.deepEqual(fields.uris, [`spiffe://${authority.trustDomain}${path}`]);
  assert.deepEqual(fields.dnsNames, ["localhost", "a.b"]);
});

test("ch5 CA: requests against the rules are refused with Consul's texts", async () => {
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
    await assert.rejects(authority.signRequest(await request([...names]), "dc1"), {
      name: "PeeringError",
      code: "invalid-argument",
      message,
    });
  }
});

test("a request that is none, or whose signature is not its own, is refused", async () => {
  await using authority = await builtInAuthority({ storage: memoryStorage() });
  const csr = await request([uri(`spiffe://${authority.trustDomain}/ns/default/dc/dc1/svc/web`)]);
  const der = Buffer.from(csr.replace(/-----[^-]+-----|\s/g, ""), "base64");
  // Inside the name of the service: still well-formed, but not what was signed.
  const at = der.indexOf("svc/web");
  der[at + 4] = "v".charCodeAt(0);
  const forged = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
  for (const text of ["", "nonsense", csr.slice(0, 200), forged]) {
    await assert.rejects(authority.signRequest(text, "dc1"), { code: "invalid-argument" });
  }
});
