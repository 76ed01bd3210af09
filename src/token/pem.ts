import { X509Certificate } from "node:crypto";

/** The first PEM block of a text. */
export interface PemBlock {
  /** `CERTIFICATE`, `EC PRIVATE KEY` and so on. */
  readonly type: string;
  readonly content: Buffer;
}

const BEGIN = "-----BEGIN ";
const END = "-----END ";
const DASHES = "-----";

/**
 * The first well-formed PEM block, by the rules of Go's `pem.Decode`: markers on lines of their own, headers ignored,
 * strict base64 between. Malformed blocks are passed over. `undefined` where there is none.
 */
export function firstPemBlock(text: string): PemBlock | undefined {
  let end = -1;
  for (let start = lineStarting(text, BEGIN, 0); start >= 0; ) {
    const lineEnd = text.indexOf("\n", start);
    if (lineEnd < 0) return undefined;
    // Kept while it lies ahead, so that the time grows with the length of the text only.
    if (end < lineEnd) end = lineStarting(text, END, lineEnd);
    if (end < 0) return undefined;
    const next = lineStarting(text, BEGIN, lineEnd);
    if (next < 0 || next > end) {
      const type = markedType(text.slice(start, lineEnd), BEGIN);
      const content = contentOf(text.slice(lineEnd + 1, end));
      if (type !== undefined && type === markedType(lineAt(text, end), END) && content !== undefined) {
        return { type, content };
      }
    }
    start = next;
  }
  return undefined;
}

function markedType(line: string, marker: string): string | undefined {
  const trimmed = line.trimEnd();
  return trimmed.length >= marker.length + DASHES.length && trimmed.endsWith(DASHES)
    ? trimmed.slice(marker.length, -DASHES.length)
    : undefined;
}

function lineAt(text: string, start: number): string {
  const end = text.indexOf("\n", start);
  return end < 0 ? text.slice(start) : text.slice(start, end);
}

function contentOf(body: string): Buffer | undefined {
  const lines = body.split("\n");
  while (lines[0]?.includes(":")) lines.shift();
  const base64 = lines.join("").replace(/\s/g, "");
  if (base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(base64)) return undefined;
  return Buffer.from(base64, "base64");
}

/** Offset of the next line that starts with `marker`, -1 without one. */
function lineStarting(text: string, marker: string, from: number): number {
  if (from === 0 && text.startsWith(marker)) return 0;
  const found = text.indexOf(`\n${marker}`, Math.max(from - 1, 0));
  return found < 0 ? -1 : found + 1;
}

const BEGIN_CERTIFICATE = "-----BEGIN CERTIFICATE-----";
const END_CERTIFICATE = "-----END CERTIFICATE-----";

/**
 * The certificates in a text, each a PEM of its own that ends in a newline, in order. What is no parsable certificate
 * is left out, as Go's pool does. The time it takes grows with the length of the text only, whatever a peer sends.
 */
export function certificatesIn(text: string): readonly ParsedCertificate[] {
  const found: ParsedCertificate[] = [];
  let position = 0;
  for (;;) {
    const first = text.indexOf(BEGIN_CERTIFICATE, position);
    const end = first < 0 ? -1 : text.indexOf(END_CERTIFICATE, first);
    if (end < 0) return found;
    // A marker that was begun and not ended does not spoil the certificate after it.
    const certificate = parse(`${text.slice(text.lastIndexOf(BEGIN_CERTIFICATE, end), end)}${END_CERTIFICATE}\n`);
    if (certificate !== undefined) found.push(certificate);
    position = end + END_CERTIFICATE.length;
  }
}

/** One certificate of a text. */
export interface ParsedCertificate {
  /** Ends in a newline; nothing before or after the certificate. */
  readonly pem: string;
  readonly certificate: X509Certificate;
}

function parse(pem: string): ParsedCertificate | undefined {
  try {
    return { pem, certificate: new X509Certificate(pem) };
  } catch {
    return undefined;
  }
}
