import "reflect-metadata";
import assert from "node:assert/strict";
import { createPublicKey, randomBytes, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

/** The form of a request, besides its names. */
export interface Asked {
  readonly subject?: string;
  readonly extensions?: x509.Extension[];
  readonly key?: "EC P-256" | "EC P-384" | "Ed25519" | `RSA ${number}`;
  readonly exponent?: Uint8Array;
}

/** A certificate signing request, signed by a key of its own. */
export async function request(names: x509.JsonGeneralNames, asked: Asked = {}): Promise<string> {
  const { subject, extensions = [], key = "EC P-256", exponent = Uint8Array.of(1, 0, 1) } = asked;
  const [type, detail = ""] = key.split(" ");
  const hash = "SHA-256";
  const algorithm =
    type === "RSA"
      ? { name: "RSASSA-PKCS1-v1_5", hash, modulusLength: Number(detail), publicExponent: exponent }
      : type === "EC"
        ? { name: "ECDSA", namedCurve: detail }
        : { name: "Ed25519" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  assert.ok("privateKey" in keys);
  const made = await x509.Pkcs10CertificateRequestGenerator.create(
    {
      keys,
      ...(subject === undefined ? {} : { name: subject }),
      signingAlgorithm: type === "EC" ? { name: "ECDSA", hash } : algorithm,
      extensions: [new x509.SubjectAlternativeNameExtension(names), ...extensions],
    },
    webcrypto,
  );
  return made.toString("pem");
}

/**
 * A request with an RSA key of this form, which is nobody's: its modulus are random bytes, and its signature is none.
 * @param attributes - DER of further ones.
 */
export function unsignedRequest(
  { bits, exponent = Uint8Array.of(1, 0, 1) }: { readonly bits: number; readonly exponent?: Uint8Array },
  attributes: readonly Uint8Array[] = [],
): string {
  const modulus = randomBytes(bits / 8);
  modulus.writeUInt8(0x80 | modulus.readUInt8(0), 0);
  modulus.writeUInt8(1 | modulus.readUInt8(modulus.length - 1), modulus.length - 1);
  const [n, e] = [modulus, Buffer.from(exponent)].map((bytes) => bytes.toString("base64url"));
  const publicKey = createPublicKey({ format: "jwk", key: { kty: "RSA", n, e } }).export({
    type: "spki",
    format: "der",
  });
  const information = der(0x30, Uint8Array.of(2, 1, 0), der(0x30), publicKey, der(0xa0, ...attributes));
  const sha256WithRsa = der(0x30, Buffer.from("06092a864886f70d01010b0500", "hex"));
  const request = der(0x30, information, sha256WithRsa, der(0x03, Buffer.alloc(1 + modulus.length)));
  return x509.PemConverter.encode(request, "CERTIFICATE REQUEST");
}

/** A value of ASN.1. */
export function der(tag: number, ...contents: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  const bytes = content.length.toString(16).length + 1;
  const length = Buffer.from(content.length.toString(16).padStart(bytes - (bytes % 2), "0"), "hex");
  const header = content.length < 0x80 ? [tag, content.length] : [tag, 0x80 | length.length, ...length];
  return Buffer.concat([Uint8Array.from(header), content]);
}

export function uri(value: string): { type: "url"; value: string } {
  return { type: "url", value };
}
