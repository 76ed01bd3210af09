import "reflect-metadata";
import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { certificatesIn } from "../../../src/token/pem.js";

/** A certificate read by another route than the one that built it is checked by: node for signatures, this for fields. */
export function fieldsOf(pem: string) {
  const parsed = new x509.X509Certificate(pem);
  const extension = <T extends x509.Extension>(type: new (...args: never[]) => T): T | undefined =>
    parsed.extensions.find((found): found is T => found instanceof type);
  const names = extension(x509.SubjectAlternativeNameExtension);
  const constraints = extension(x509.BasicConstraintsExtension);
  const usages = extension(x509.KeyUsagesExtension);
  const extendedUsages = extension(x509.ExtendedKeyUsageExtension);
  return {
    subject: parsed.subject,
    issuer: parsed.issuer,
    serialNumber: BigInt(`0x${parsed.serialNumber}`),
    notBefore: parsed.notBefore.getTime(),
    notAfter: parsed.notAfter.getTime(),
    uris: (names?.names.items ?? []).filter(({ type }) => type === "url").map(({ value }) => value),
    dnsNames: (names?.names.items ?? []).filter(({ type }) => type === "dns").map(({ value }) => value),
    otherNames: (names?.names.items ?? []).filter(({ type }) => type !== "dns" && type !== "url").length,
    namesCritical: names?.critical,
    ca: constraints?.ca,
    pathLength: constraints?.pathLength,
    constraintsCritical: constraints?.critical,
    usages: usages?.usages,
    usagesCritical: usages?.critical,
    extendedUsages: extendedUsages === undefined ? undefined : Array.from(extendedUsages.usages, String),
    subjectKeyId: extension(x509.SubjectKeyIdentifierExtension)?.keyId,
    authorityKeyId: extension(x509.AuthorityKeyIdentifierExtension)?.keyId,
    keyId: createHash("sha256").update(new Uint8Array(parsed.publicKey.rawData)).digest("hex"),
    curve: new X509Certificate(pem).publicKey.asymmetricKeyDetails?.namedCurve,
  };
}

/**
 * The demands of Go's verifier on an acceptor's certificate, one by one.
 * @param serverName - undefined: the certificate of a service, which is known by its SPIFFE id.
 * @returns the chain it found, leaf first.
 */
export function verifyAsGo(
  chainPem: string,
  roots: readonly string[],
  serverName: string | undefined,
  nowMs: number,
): readonly X509Certificate[] {
  const [leaf, ...intermediates] = certificatesIn(chainPem).map(({ certificate }) => certificate);
  assert.ok(leaf, "a certificate is presented");
  const anchors = roots.flatMap((pem) => certificatesIn(pem)).map(({ certificate }) => certificate);
  assert.ok(anchors.length > 0, "the pool has roots");

  const fields = fieldsOf(leaf.toString());
  assert.ok(
    serverName === undefined || fields.dnsNames.some((name) => name.toLowerCase() === serverName.toLowerCase()),
    `a DNS SAN is ${serverName}`,
  );
  const serverAuth = "1.3.6.1.5.5.7.3.1";
  assert.ok(fields.extendedUsages === undefined || fields.extendedUsages.includes(serverAuth), "serverAuth");

  const chain = findChain(leaf, intermediates, anchors, nowMs);
  assert.ok(chain, "the leaf leads to one of the roots");
  for (const certificate of chain) {
    const { serialNumber } = fieldsOf(certificate.toString());
    assert.ok(serialNumber > 0n && serialNumber < 1n << 159n, "the serial number is positive");
  }
  return chain;
}

const KEY_CERT_SIGN = x509.KeyUsageFlags.keyCertSign;

function findChain(
  child: X509Certificate,
  intermediates: readonly X509Certificate[],
  anchors: readonly X509Certificate[],
  nowMs: number,
): readonly X509Certificate[] | undefined {
  if (!isValidAt(child, nowMs)) return undefined;
  for (const anchor of anchors) {
    if (maySign(anchor) && isValidAt(anchor, nowMs) && isIssuedBy(child, anchor)) return [child, anchor];
  }
  for (const candidate of intermediates) {
    if (!maySign(candidate) || !isIssuedBy(child, candidate)) continue;
    const others = intermediates.filter((other) => other !== candidate);
    const rest = findChain(candidate, others, anchors, nowMs);
    if (rest !== undefined) return [child, ...rest];
  }
  return undefined;
}

function isIssuedBy(child: X509Certificate, parent: X509Certificate): boolean {
  const { authorityKeyId, issuer } = fieldsOf(child.toString());
  const { subjectKeyId, subject } = fieldsOf(parent.toString());
  return issuer === subject && authorityKeyId === subjectKeyId && child.verify(parent.publicKey);
}

function isValidAt(certificate: X509Certificate, nowMs: number): boolean {
  return Date.parse(certificate.validFrom) <= nowMs && nowMs <= Date.parse(certificate.validTo);
}

function maySign(certificate: X509Certificate): boolean {
  const { ca, usages } = fieldsOf(certificate.toString());
  return ca === true && (usages === undefined || (usages & KEY_CERT_SIGN) !== 0);
}
