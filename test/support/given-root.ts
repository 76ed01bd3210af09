import "reflect-metadata";
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  webcrypto,
} from "node:crypto";
import * as x509 from "@peculiar/x509";

const DAY_MS = 24 * 3_600_000;

export interface GivenRootOptions {
  /** A curve, or the bits of an RSA key. Default P-256. */
  readonly key?: string | number;
  /** Default true. */
  readonly ca?: boolean;
  /** Milliseconds since the epoch. Default: a day ago, and in a year. */
  readonly notBefore?: number;
  readonly notAfter?: number;
  /** Who signs. Default: itself. */
  readonly issuer?: GivenRoot;
}

/** A root as an operator brings one. */
export interface GivenRoot {
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly subject: string;
}

export function newKey(kind: string | number = "P-256"): KeyObject {
  const { privateKey } =
    typeof kind === "number"
      ? generateKeyPairSync("rsa", { modulusLength: kind })
      : generateKeyPairSync("ec", { namedCurve: kind });
  return privateKey;
}

export function pemOf(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" }).toString();
}

/** As OpenSSL makes it: a key id of 20 bytes that is not Consul's, a long serial number, and no SPIFFE id. */
export async function givenRoot(options: GivenRootOptions = {}): Promise<GivenRoot> {
  const { key: kind = "P-256", ca = true, issuer } = options;
  const key = newKey(kind);
  const subject = `CN=given ${randomBytes(4).toString("hex")}`;
  const certificate = await x509.X509CertificateGenerator.create(
    {
      serialNumber: `7f${randomBytes(18).toString("hex")}01`,
      subject,
      issuer: issuer?.subject ?? subject,
      notBefore: new Date(options.notBefore ?? Date.now() - DAY_MS),
      notAfter: new Date(options.notAfter ?? Date.now() + 365 * DAY_MS),
      publicKey: createPublicKey(key).export({ type: "spki", format: "der" }),
      signingKey: await importKey(issuer === undefined ? pemOf(key) : issuer.keyPem),
      extensions: [
        new x509.BasicConstraintsExtension(ca, undefined, true),
        new x509.SubjectKeyIdentifierExtension(randomBytes(20).toString("hex")),
      ],
    },
    webcrypto,
  );
  return { certificatePem: `${certificate.toString("pem")}\n`, keyPem: pemOf(key), subject };
}

async function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  const key = createPrivateKey(pem);
  const { namedCurve = "" } = key.asymmetricKeyDetails ?? {};
  const algorithm =
    key.asymmetricKeyType === "rsa"
      ? { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }
      : { name: "ECDSA", namedCurve: CURVES[namedCurve] ?? "" };
  return webcrypto.subtle.importKey("pkcs8", key.export({ type: "pkcs8", format: "der" }), algorithm, false, ["sign"]);
}

const CURVES: Readonly<Record<string, string>> = { prime256v1: "P-256", secp384r1: "P-384", secp521r1: "P-521" };
