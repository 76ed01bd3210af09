import { createHash, type X509Certificate } from "node:crypto";

/** SHA-1 of the DER as lower-case hex pairs joined by `:`, how Consul names a root (1.13 to 1.22). Not for trust. */
export function rootIdOf(certificate: X509Certificate): string {
  return colonHex(createHash("sha1").update(certificate.raw).digest());
}

/** SHA-256 of the DER: equal exactly for equal certificates. */
export function fingerprintOf(certificate: X509Certificate): string {
  return createHash("sha256").update(certificate.raw).digest("hex");
}

const SUBJECT_KEY_ID = Buffer.from("0603551d0e", "hex");
const CRITICAL = Buffer.from("0101ff", "hex");
const OCTETS = 0x04;
const MAX_KEY_ID = 64;

/** The id that a certificate gives its key; empty where it gives none. */
export function subjectKeyIdOf({ raw }: X509Certificate): Uint8Array {
  for (let at = raw.indexOf(SUBJECT_KEY_ID); at >= 0; at = raw.indexOf(SUBJECT_KEY_ID, at + 1)) {
    const rest = raw.subarray(at + SUBJECT_KEY_ID.length);
    const [outer, outerLength = 0, inner, length = 0, ...id] = rest.subarray(
      rest.subarray(0, CRITICAL.length).equals(CRITICAL) ? CRITICAL.length : 0,
    );
    const fits = length <= MAX_KEY_ID && outerLength === length + 2 && id.length >= length;
    if (outer === OCTETS && inner === OCTETS && fits) return Uint8Array.from(id.slice(0, length));
  }
  return new Uint8Array();
}

/** The text with a newline at its end. */
export function withNewline(pem: string): string {
  return pem.endsWith("\n") ? pem : `${pem}\n`;
}

/** Lower-case hex pairs joined by `:`, how Consul writes ids and serial numbers. */
export function colonHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
