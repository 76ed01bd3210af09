import { createHash, X509Certificate } from "node:crypto";

const BEGIN = "-----BEGIN CERTIFICATE-----";
const END = "-----END CERTIFICATE-----";

/**
 * The certificates in a text, each a PEM of its own that ends in a newline, in order. What is no parsable certificate
 * is left out, as Go's pool does. The time it takes grows with the length of the text only, whatever a peer sends.
 */
export function certificatesIn(text: string): readonly ParsedCertificate[] {
  const found: ParsedCertificate[] = [];
  let position = 0;
  for (;;) {
    const first = text.indexOf(BEGIN, position);
    const end = first < 0 ? -1 : text.indexOf(END, first);
    if (end < 0) return found;
    // A marker that was begun and not ended does not spoil the certificate after it.
    const certificate = parse(`${text.slice(text.lastIndexOf(BEGIN, end), end)}${END}\n`);
    if (certificate !== undefined) found.push(certificate);
    position = end + END.length;
  }
}

/** One certificate of a text. */
export interface ParsedCertificate {
  /** Ends in a newline; nothing before or after the certificate. */
  readonly pem: string;
  readonly certificate: X509Certificate;
}

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

function colonHex(bytes: Buffer): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

function parse(pem: string): ParsedCertificate | undefined {
  try {
    return { pem, certificate: new X509Certificate(pem) };
  } catch {
    return undefined;
  }
}
