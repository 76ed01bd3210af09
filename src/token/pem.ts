import { type KeyObject, X509Certificate } from "node:crypto";

/** The first PEM block of a text. */
export interface PemBlock {
  /** `CERTIFICATE`, `EC PRIVATE KEY` and so on. */
  readonly type: string;
  readonly content: Buffer;
  /** Whether lines such as `Proc-Type: 4,ENCRYPTED` stand before the content. */
  readonly hasHeaders: boolean;
}

const BEGIN = "-----BEGIN ";
const END = "-----END ";
const DASHES = "-----";

/** The first well-formed PEM block; `undefined` where there is none. */
export function firstPemBlock(text: string): PemBlock | undefined {
  for (const block of pemBlocks(text)) return block;
  return undefined;
}

/**
 * The well-formed PEM blocks, in order, by the rules of Go's `pem.Decode`: markers on lines of their own, strict base64
 * between. Malformed blocks are passed over. The time it takes grows with the length of the text only.
 */
function* pemBlocks(text: string): Generator<PemBlock> {
  let end = -1;
  for (let start = lineStarting(text, BEGIN, 0); start >= 0; ) {
    const lineEnd = text.indexOf("\n", start);
    if (lineEnd < 0) return;
    // Kept while it lies ahead, so that nothing is searched twice.
    if (end < lineEnd) end = lineStarting(text, END, lineEnd);
    if (end < 0) return;
    const next = lineStarting(text, BEGIN, lineEnd);
    if (next < 0 || next > end) {
      const type = markedType(lineAt(text, start), BEGIN);
      const lines = text.slice(lineEnd + 1, end).split("\n");
      // The text before the END line ends in a line break, so that there is a last line, which is empty.
      const headers = lines.findIndex((line) => !line.includes(":"));
      // Behind headers the END line comes after another line, be it an empty one.
      const isCut = headers > 0 && headers === lines.length - 1;
      const content = isCut ? undefined : contentOf(lines.slice(headers));
      if (type !== undefined && type === markedType(lineAt(text, end), END) && content !== undefined) {
        yield { type, content, hasHeaders: headers > 0 };
      }
    }
    start = next;
  }
}

function markedType(line: string, marker: string): string | undefined {
  let length = line.length;
  while (line[length - 1] === " " || line[length - 1] === "\t") length--;
  const trimmed = line.slice(0, length);
  return trimmed.endsWith(DASHES) ? trimmed.slice(marker.length, -DASHES.length) : undefined;
}

/** Without its line break, which may be one of two characters. */
function lineAt(text: string, start: number): string {
  const end = text.indexOf("\n", start);
  if (end < 0) return text.slice(start);
  return text.slice(start, text[end - 1] === "\r" ? end - 1 : end);
}

function contentOf(lines: readonly string[]): Buffer | undefined {
  const base64 = lines.join("").replace(/[ \t\r]/g, "");
  if (base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(base64)) return undefined;
  return Buffer.from(base64, "base64");
}

/** Offset of the next line that starts with `marker`, -1 without one. */
function lineStarting(text: string, marker: string, from: number): number {
  if (from === 0 && text.startsWith(marker)) return 0;
  const found = text.indexOf(`\n${marker}`, Math.max(from - 1, 0));
  return found < 0 ? -1 : found + 1;
}

/** The certificates in a text, in order. Text that cannot be parsed as a certificate is left out, as Go's pool does. */
export function certificatesIn(text: string): readonly ParsedCertificate[] {
  const found: ParsedCertificate[] = [];
  for (const { type, content, hasHeaders } of pemBlocks(text)) {
    const certificate = type === "CERTIFICATE" && !hasHeaders ? certificateOf(content) : undefined;
    if (certificate !== undefined) found.push({ pem: certificate.toString(), certificate });
  }
  return found;
}

/** One certificate of a text. */
export interface ParsedCertificate {
  /** Ends in a newline; nothing before or after the certificate. */
  readonly pem: string;
  readonly certificate: X509Certificate;
}

/** The first byte of every certificate: a sequence. Node would take text here as PEM once more. */
const SEQUENCE = 0x30;

/** The certificate that a block holds; undefined: it holds none. */
export function certificateOf(der: Buffer): X509Certificate | undefined {
  if (der[0] !== SEQUENCE) return undefined;
  try {
    return new X509Certificate(der);
  } catch {
    return undefined;
  }
}

/** The largest RSA keys that are used. Verifiers in Go take none beyond, and each signature takes up to a thousand times as long to verify. */
export const LARGEST_RSA = { bits: 8_192, exponent: 2_147_483_647n };

/**
 * The key of a certificate; undefined where it cannot be read, such as a point that is not on its curve: Node parses that. Also where
 * its signatures take too long to verify.
 */
export function publicKeyOf(certificate: X509Certificate): KeyObject | undefined {
  try {
    const { publicKey } = certificate;
    const { modulusLength = 0, publicExponent = 0n } = publicKey.asymmetricKeyDetails ?? {};
    return modulusLength > LARGEST_RSA.bits || publicExponent > LARGEST_RSA.exponent ? undefined : publicKey;
  } catch {
    return undefined;
  }
}

/** How many certificates, or other blocks, texts can hold, without looking at any of them. */
export function blocksAtMost(texts: readonly string[]): number {
  let count = 0;
  for (const text of texts) count += text.split(BEGIN).length - 1;
  return count;
}

/** Whether `issuer`, which may be the certificate itself, has signed a certificate. */
export function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  const key = publicKeyOf(issuer);
  return key !== undefined && certificate.checkIssued(issuer) && certificate.verify(key);
}
