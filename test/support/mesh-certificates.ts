import "reflect-metadata";
import { generateKeyPair, randomBytes, webcrypto, X509Certificate } from "node:crypto";
import { promisify } from "node:util";
import * as x509 from "@peculiar/x509";

export { ExtendedKeyUsage, KeyUsageFlags } from "@peculiar/x509";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const RSA = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } as const;
const DAY_MS = 86_400_000;

/** A certificate with its key, to sign others with. */
export interface Issued {
  readonly certificate: X509Certificate;
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly own: x509.X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
}

export interface Wanted {
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  /** Default: a leaf. */
  readonly ca?: boolean;
  readonly pathLength?: number;
  readonly keyUsages?: x509.KeyUsageFlags;
  /** Default: for clients and servers; none: there is no such extension. */
  readonly usages?: readonly x509.ExtendedKeyUsage[];
  readonly notBefore?: number;
  readonly notAfter?: number;
  readonly name?: string;
  /** Whether it has an extension that nobody knows, and that must not be passed over. */
  readonly unknownCritical?: boolean;
  /** An RSA key with this exponent. Default: a key on P-256. */
  readonly rsaExponent?: number;
}

const LEAF_USAGES = x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment;
const CA_USAGES = x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign;

async function keysOf(rsaExponent: number | undefined): Promise<webcrypto.CryptoKeyPair> {
  if (rsaExponent === undefined) return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  // Web Crypto makes no keys with large exponents.
  const made = await promisify(generateKeyPair)("rsa", { modulusLength: 2_048, publicExponent: rsaExponent });
  const privateKey = made.privateKey.export({ type: "pkcs8", format: "der" });
  const publicKey = made.publicKey.export({ type: "spki", format: "der" });
  return {
    privateKey: await webcrypto.subtle.importKey("pkcs8", privateKey, RSA, true, ["sign"]),
    publicKey: await webcrypto.subtle.importKey("spki", publicKey, RSA, true, ["verify"]),
  };
}

/** A certificate of any form, signed by `issuer`, or by itself. */
export async function issue(wanted: Wanted, issuer?: Issued): Promise<Issued> {
  const { uris = [], dnsNames = [], ca = false, name = ca ? `CA ${randomBytes(4).toString("hex")}` : "" } = wanted;
  const { usages = [x509.ExtendedKeyUsage.clientAuth, x509.ExtendedKeyUsage.serverAuth] } = wanted;
  const keys = await keysOf(wanted.rsaExponent);
  const signer = issuer?.keys.privateKey ?? keys.privateKey;
  const subject = name === "" ? {} : { subject: `CN=${name}` };
  const names: x509.JsonGeneralNames = [
    ...uris.map((value) => ({ type: "url" as const, value })),
    ...dnsNames.map((value) => ({ type: "dns" as const, value })),
  ];
  const own = await x509.X509CertificateGenerator.create(
    {
      serialNumber: `01${randomBytes(8).toString("hex")}`,
      ...subject,
      issuer: issuer?.own.subjectName ?? `CN=${name}`,
      notBefore: new Date(wanted.notBefore ?? Date.now() - DAY_MS),
      notAfter: new Date(wanted.notAfter ?? Date.now() + DAY_MS),
      publicKey: keys.publicKey,
      signingKey: signer,
      signingAlgorithm: signer.algorithm.name === ALGORITHM.name ? ALGORITHM : RSA,
      extensions: [
        new x509.BasicConstraintsExtension(ca, wanted.pathLength, true),
        new x509.KeyUsagesExtension(wanted.keyUsages ?? (ca ? CA_USAGES : LEAF_USAGES), true),
        ...(ca || usages.length === 0 ? [] : [new x509.ExtendedKeyUsageExtension([...usages])]),
        ...(wanted.unknownCritical === true ? [new x509.Extension("1.2.3.4.5", true, Uint8Array.of(5, 0))] : []),
        ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names, name === "")]),
      ],
    },
    webcrypto,
  );
  const key = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  const certificatePem = `${own.toString("pem")}\n`;
  return {
    certificate: new X509Certificate(certificatePem),
    certificatePem,
    keyPem: x509.PemConverter.encode(key, "PRIVATE KEY"),
    own,
    keys,
  };
}
