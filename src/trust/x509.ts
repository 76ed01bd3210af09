// The one file that knows how certificates are built. It is imported lazily, when one is to be issued: the library
// below it is large and wants a global Reflect polyfill. To read certificates node:crypto's X509Certificate is enough.
import "reflect-metadata";
import { createHash, createPrivateKey, createPublicKey, type KeyObject, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { PeeringError } from "../base/errors.js";
import { requireStrongKey, type SigningRequest } from "./signing-request.js";

/** Certificates of authorities, and those of servers and services. */
export type CertificateUsage = "authority" | "leaf";

export interface CertificateRequest {
  readonly usage: CertificateUsage;
  readonly serialNumber: bigint;
  /** Undefined: none, and the SAN extension is critical. */
  readonly subject: { readonly commonName: string } | undefined;
  /** The key to certify, PEM: public, or private of which only the public half is used. */
  readonly keyPem: string;
  /** Who signs: its certificate, PEM; absent for a self-signed one. */
  readonly issuerPem?: string;
  readonly issuerKeyPem: string;
  /** Milliseconds since the epoch; certificates count in seconds, so fractions are cut off. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** The SPIFFE id: the one URI SAN. */
  readonly uri: string;
  readonly dnsNames: readonly string[];
}

/** An authority that is ready to sign: reading its certificate and its key takes as long as half of what a signature takes. */
export interface Issuer {
  /** Undefined: it signs for itself. */
  readonly signed: { readonly name: x509.Name; readonly keyId: x509.AuthorityKeyIdentifierExtension } | undefined;
  readonly signingKey: webcrypto.CryptoKey;
}

/**
 * @param certificatePem - absent for a certificate that is to be signed by its own key.
 * @throws {PeeringError} `invalid-argument`: a signing key of a kind that cannot sign certificates here.
 */
export async function readIssuer(certificatePem: string | undefined, keyPem: string): Promise<Issuer> {
  const certificate = certificatePem === undefined ? undefined : new x509.X509Certificate(certificatePem);
  return {
    signed: certificate && {
      name: certificate.subjectName,
      keyId: new x509.AuthorityKeyIdentifierExtension(authorityKeyId(certificate)),
    },
    signingKey: await signingKey(keyPem),
  };
}

/**
 * A signed certificate (with SHA-256), PEM ending in a newline. Key ids are the SHA-256 of the SubjectPublicKeyInfo, as Consul's are
 * (1.13 to 1.22); the authority's key id is taken from its certificate where that has one.
 * @throws {PeeringError} as {@link readIssuer}.
 */
export async function issueCertificate(request: CertificateRequest): Promise<string> {
  return issueBy(await readIssuer(request.issuerPem, request.issuerKeyPem), request);
}

/** As {@link issueCertificate}, by an authority that was read already. */
export async function issueBy(
  { signed, signingKey }: Issuer,
  request: Omit<CertificateRequest, "issuerPem" | "issuerKeyPem">,
): Promise<string> {
  const publicKey = createPublicKey(request.keyPem).export({ type: "spki", format: "der" });
  const subjectKeyId = keyIdOf(publicKey);
  const commonName = request.subject?.commonName;
  const subject = commonName === undefined ? undefined : new x509.Name([{ CN: [{ printableString: commonName }] }]);
  const names: x509.JsonGeneralNames = [
    ...request.dnsNames.map((value) => ({ type: "dns" as const, value })),
    { type: "url" as const, value: request.uri },
  ];
  const issuerName = signed?.name ?? subject;
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: serialHex(request.serialNumber),
      ...(subject === undefined ? {} : { subject }),
      ...(issuerName === undefined ? {} : { issuer: issuerName }),
      notBefore: wholeSeconds(request.notBefore),
      notAfter: wholeSeconds(request.notAfter),
      publicKey,
      signingKey,
      extensions: [
        ...(request.usage === "leaf" ? LEAF_EXTENSIONS : AUTHORITY_EXTENSIONS),
        new x509.SubjectKeyIdentifierExtension(subjectKeyId),
        signed?.keyId ?? new x509.AuthorityKeyIdentifierExtension(subjectKeyId),
        new x509.SubjectAlternativeNameExtension(names, subject === undefined),
      ],
    },
    webcrypto,
  );
  return `${certificate.toString("pem")}\n`;
}

const AUTHORITY_USAGES =
  x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign | x509.KeyUsageFlags.digitalSignature;
const LEAF_USAGES =
  x509.KeyUsageFlags.digitalSignature |
  x509.KeyUsageFlags.keyEncipherment |
  x509.KeyUsageFlags.dataEncipherment |
  x509.KeyUsageFlags.keyAgreement;
/** The same in every certificate. */
const AUTHORITY_EXTENSIONS: readonly x509.Extension[] = [
  new x509.KeyUsagesExtension(AUTHORITY_USAGES, true),
  new x509.BasicConstraintsExtension(true, undefined, true),
];
const LEAF_EXTENSIONS: readonly x509.Extension[] = [
  new x509.KeyUsagesExtension(LEAF_USAGES, true),
  new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth, x509.ExtendedKeyUsage.serverAuth]),
  new x509.BasicConstraintsExtension(false, undefined, true),
];

/** A certificate that another authority is to sign, too. */
export interface CrossSigningRequest {
  /** PEM. */
  readonly certificatePem: string;
  readonly serialNumber: bigint;
  readonly issuerPem: string;
  readonly issuerKeyPem: string;
  /** Milliseconds since the epoch; certificates count in seconds, so fractions are cut off. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/**
 * The same certificate, signed by another authority: verifiers that trust that one accept everything the certificate's key has signed. Its
 * names, its key id and its limits are taken over as they are encoded, for verifiers compare them byte for byte.
 * @throws {PeeringError} as {@link issueCertificate}.
 */
export async function crossSign(request: CrossSigningRequest): Promise<string> {
  const certificate = new x509.X509Certificate(request.certificatePem);
  const issuer = new x509.X509Certificate(request.issuerPem);
  const issuerKeyId = new x509.AuthorityKeyIdentifierExtension(authorityKeyId(issuer));
  const copy = await x509.X509CertificateGenerator.create(
    {
      serialNumber: serialHex(request.serialNumber),
      subject: certificate.subjectName,
      issuer: issuer.subjectName,
      notBefore: wholeSeconds(request.notBefore),
      notAfter: wholeSeconds(request.notAfter),
      publicKey: certificate.publicKey.rawData,
      signingKey: await signingKey(request.issuerKeyPem),
      extensions: [...certificate.extensions.filter(({ type }) => type !== issuerKeyId.type), issuerKeyId],
    },
    webcrypto,
  );
  return `${copy.toString("pem")}\n`;
}

function authorityKeyId(issuer: x509.X509Certificate): string {
  return (
    issuer.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId ?? keyIdOf(new Uint8Array(issuer.publicKey.rawData))
  );
}

function keyIdOf(subjectPublicKeyInfo: Uint8Array): string {
  return createHash("sha256").update(subjectPublicKeyInfo).digest("hex");
}

function serialHex(serial: bigint): string {
  const hex = serial.toString(16);
  return hex.length % 2 === 0 ? hex : `0${hex}`;
}

function wholeSeconds(milliseconds: number): Date {
  return new Date(Math.floor(milliseconds / 1000) * 1000);
}

const CURVES: ReadonlyMap<string, string> = new Map([
  ["prime256v1", "P-256"],
  ["secp384r1", "P-384"],
  ["secp521r1", "P-521"],
]);

async function signingKey(pem: string): Promise<webcrypto.CryptoKey> {
  const key = createPrivateKey(pem);
  return webcrypto.subtle.importKey(
    "pkcs8",
    key.export({ type: "pkcs8", format: "der" }),
    importAlgorithm(key),
    false,
    ["sign"],
  );
}

function importAlgorithm(
  key: KeyObject,
): webcrypto.EcKeyImportParams | webcrypto.RsaHashedImportParams | webcrypto.Algorithm {
  switch (key.asymmetricKeyType) {
    case "ec": {
      const namedCurve = CURVES.get(key.asymmetricKeyDetails?.namedCurve ?? "");
      if (namedCurve !== undefined) return { name: "ECDSA", namedCurve };
      break;
    }
    case "rsa":
      return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
    case "ed25519":
      return { name: "Ed25519" };
  }
  throw new PeeringError(
    "invalid-argument",
    "a certificate authority's key must be EC (P-256, P-384, P-521), RSA or Ed25519",
  );
}

/** DER holds no more than its header announces, and PEM nothing beside it: the signed bytes are the ones that were checked. */
function certificateRequestIn(pem: string): Buffer {
  const block = /^\s*-----BEGIN ((?:NEW )?CERTIFICATE REQUEST)-----([A-Za-z0-9+/=\s]+)-----END \1-----\s*$/.exec(pem);
  const der = Buffer.from(block?.[2] ?? "", "base64");
  const longForm = (der[1] ?? 0) & 0x80 ? (der[1] ?? 0) & 0x7f : 0;
  const length = longForm === 0 ? der[1] : der.readUIntBE(2, longForm);
  if (der[0] !== 0x30 || der.length !== 2 + longForm + (length ?? 0)) throw new TypeError("not one PEM block of DER");
  return der;
}

/**
 * Reads a request and checks its key, and then its signature: with a key that takes too long to use that would take long, too.
 * @throws {PeeringError} `invalid-argument`: not one, with a weak key or such a one, or not signed by its key.
 */
export async function readCertificateRequest(pem: string): Promise<SigningRequest> {
  const { request, publicKeyPem, names } = readable(() => parsedRequest(pem));
  readable(() => requireStrongKey(publicKeyPem));
  let isSigned: boolean;
  try {
    isSigned = await request.verify(webcrypto);
  } catch (error) {
    throw unreadable(error);
  }
  if (!isSigned)
    throw new PeeringError("invalid-argument", "the certificate signing request is not signed by its own key");
  return { publicKeyPem, names };
}

function parsedRequest(pem: string): SigningRequest & { readonly request: x509.Pkcs10CertificateRequest } {
  const request = new x509.Pkcs10CertificateRequest(certificateRequestIn(pem));
  const extensions = request.extensions.filter((found) => found instanceof x509.SubjectAlternativeNameExtension);
  if (extensions.length > 1) throw new TypeError("more than one list of names");
  const names = (extensions[0]?.names.items ?? []).map(({ type, value }) => ({ type, value }));
  return { request, publicKeyPem: request.publicKey.toString("pem"), names };
}

function readable<Part>(read: () => Part): Part {
  try {
    return read();
  } catch (error) {
    throw error instanceof PeeringError ? error : unreadable(error);
  }
}

function unreadable(cause: unknown): PeeringError {
  return new PeeringError("invalid-argument", "the certificate signing request cannot be read", { cause });
}
