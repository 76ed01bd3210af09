import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
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

export function uri(value: string): { type: "url"; value: string } {
  return { type: "url", value };
}
