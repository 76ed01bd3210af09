import { createHash, type X509Certificate } from "node:crypto";

/** SHA-1 of the DER as lower-case hex pairs joined by `:`, how Consul names a root (1.13 to 1.22). Not for trust. */
export function rootIdOf(certificate: X509Certificate): string {
  return colonHex(createHash("sha1").update(certificate.raw).digest());
}

/** SHA-256 of the DER: equal exactly for equal certificates. */
export function fingerprintOf(certificate: X509Certificate): string {
  return createHash("sha256").update(certificate.raw).digest("hex");
}

/** The text with a newline at its end. */
export function withNewline(pem: string): string {
  return pem.endsWith("\n") ? pem : `${pem}\n`;
}

/** Lower-case hex pairs joined by `:`, how Consul writes ids and serial numbers. */
export function colonHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
