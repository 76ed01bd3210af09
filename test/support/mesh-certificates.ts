import "reflect-metadata";
import { randomBytes, webcrypto, X509Certificate } from "node:crypto";
import * as x509 from "@peculiar/x509";

export { ExtendedKeyUsage, KeyUsageFlags } from "@peculiar/x509";

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
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
}

const LEAF_USAGES = x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment;
const CA_USAGES = x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign;

/** A certificate of any form, signed by `issuer`, or by itself. */
export async function issue(wanted: Wanted, issuer?: Issued): Promise<Issued> {
  const { uris = [], dnsNames = [], ca = false, name = ca ? `CA ${randomBytes(4).toString("hex")}` : "" } = wanted;
  const { usages = [x509.ExtendedKeyUsage.clientAuth, x509.ExtendedKeyUsage.serverAuth] } = wanted;
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
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
      signingKey: issuer?.keys.privateKey ?? keys.privateKey,
      signingAlgorithm: ALGORITHM,
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
