import "reflect-metadata";
import { randomBytes, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

/** A certificate with its key, both in PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 24 * 60 * 60 * 1_000;

/** Signs certificates for servers and clients of TLS. */
export class TestAuthority {
  readonly certificate: string;
  readonly #own: x509.X509Certificate;
  readonly #keys: webcrypto.CryptoKeyPair;

  private constructor(own: x509.X509Certificate, keys: webcrypto.CryptoKeyPair) {
    this.#own = own;
    this.#keys = keys;
    this.certificate = `${own.toString("pem")}\n`;
  }

  static async create(name = "Test CA"): Promise<TestAuthority> {
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const own = await x509.X509CertificateGenerator.createSelfSigned(
      {
        name: `CN=${name}`,
        notBefore: new Date(Date.now() - DAY_MS),
        notAfter: new Date(Date.now() + DAY_MS),
        signingAlgorithm: ALGORITHM,
        keys,
        extensions: [
          new x509.BasicConstraintsExtension(true, undefined, true),
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
        ],
      },
      webcrypto,
    );
    return new TestAuthority(own, keys);
  }

  /** For servers that are reached by these names and addresses, and for clients. */
  async issue(
    commonName: string,
    { names = ["localhost"], addresses = ["127.0.0.1"], notAfter = Date.now() + DAY_MS } = {},
  ): Promise<KeyPair> {
    const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const alternatives: x509.JsonGeneralNames = [
      ...names.map((value) => ({ type: "dns" as const, value })),
      ...addresses.map((value) => ({ type: "ip" as const, value })),
    ];
    const certificate = await x509.X509CertificateGenerator.create(
      {
        serialNumber: randomBytes(8).toString("hex"),
        subject: `CN=${commonName}`,
        issuer: this.#own.subject,
        notBefore: new Date(Math.min(Date.now(), notAfter) - DAY_MS),
        notAfter: new Date(notAfter),
        publicKey: keys.publicKey,
        signingKey: this.#keys.privateKey,
        signingAlgorithm: ALGORITHM,
        extensions: [
          new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
          new x509.SubjectAlternativeNameExtension(alternatives),
        ],
      },
      webcrypto,
    );
    const key = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
    return { certificate: `${certificate.toString("pem")}\n`, key: x509.PemConverter.encode(key, "PRIVATE KEY") };
  }
}
