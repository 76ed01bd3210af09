import type { X509Certificate } from "node:crypto";

// Node tells neither the usages of a key nor the length of a path, and the alternative names as one text. They are read from
// the certificate itself, element by element: a search for their bytes could find some that stand in a name.

/** The parts of a certificate that the rules of SPIFFE speak of, and that Node does not show. */
export interface CertificateExtensions {
  /** URIs among the alternative names, in order. */
  readonly uris: readonly string[];
  /** Whether its key may sign certificates or revocation lists; undefined: usages are not limited. */
  readonly signs: boolean | undefined;
  /** Most authorities below this one; undefined: any number. */
  readonly pathLength: number | undefined;
}

interface Element {
  readonly tag: number;
  readonly content: Buffer;
}

const SEQUENCE = 0x30;
const OBJECT_ID = 0x06;
const OCTETS = 0x04;
const BITS = 0x03;
const INTEGER = 0x02;
/** Of the signed part of a certificate, the field with its extensions. */
const EXTENSIONS = 0xa3;
/** Of alternative names, a URI. */
const URI_NAME = 0x86;

const KEY_USAGE = "551d0f";
const ALTERNATIVE_NAMES = "551d11";
const BASIC_CONSTRAINTS = "551d13";
/** Bits 5 and 6, `keyCertSign` and `cRLSign`, of the first byte. */
const SIGNS = 0x06;

/** @throws {TypeError} for a certificate whose extensions cannot be read, or has one of these twice. */
export function extensionsOf({ raw }: Pick<X509Certificate, "raw">): CertificateExtensions {
  const [certificate] = elements(raw);
  const [signed] = elements(contentOf(certificate, SEQUENCE));
  const field = elements(contentOf(signed, SEQUENCE)).find(({ tag }) => tag === EXTENSIONS);
  const found = new Map<string, Buffer>();
  for (const extension of field === undefined ? [] : elements(contentOf(elements(field.content)[0], SEQUENCE))) {
    const parts = elements(contentOf(extension, SEQUENCE));
    const id = contentOf(parts[0], OBJECT_ID).toString("hex");
    // Between the two may stand whether it is critical.
    const value = contentOf(parts.at(-1), OCTETS);
    if (found.has(id)) throw new TypeError("an extension stands in it twice");
    found.set(id, value);
  }
  return {
    uris: urisIn(found.get(ALTERNATIVE_NAMES)),
    signs: signsBy(found.get(KEY_USAGE)),
    pathLength: pathLengthIn(found.get(BASIC_CONSTRAINTS)),
  };
}

function urisIn(names: Buffer | undefined): readonly string[] {
  if (names === undefined) return [];
  const uris = elements(contentOf(elements(names)[0], SEQUENCE)).filter(({ tag }) => tag === URI_NAME);
  return uris.map(({ content }) => content.toString("latin1"));
}

function signsBy(usages: Buffer | undefined): boolean | undefined {
  if (usages === undefined) return undefined;
  // The first byte says how many bits of the last one are none.
  const [, first = 0] = contentOf(elements(usages)[0], BITS);
  return (first & SIGNS) !== 0;
}

function pathLengthIn(constraints: Buffer | undefined): number | undefined {
  if (constraints === undefined) return undefined;
  const length = elements(contentOf(elements(constraints)[0], SEQUENCE)).find(({ tag }) => tag === INTEGER);
  if (length === undefined) return undefined;
  // Longer numbers are beyond every chain.
  return length.content.length === 1 ? (length.content[0] ?? 0) : Number.POSITIVE_INFINITY;
}

function contentOf(element: Element | undefined, tag: number): Buffer {
  if (element?.tag !== tag) throw new TypeError("its encoding is not that of a certificate");
  return element.content;
}

/** The elements of DER that stand one behind the other. Tags of several bytes stand in no certificate. */
function elements(bytes: Buffer): readonly Element[] {
  const found: Element[] = [];
  for (let at = 0; at < bytes.length; ) {
    const [tag = 0, first = 0] = bytes.subarray(at, at + 2);
    const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
    const begin = at + 2 + lengthBytes;
    if (lengthBytes > 4 || first === 0x80 || begin > bytes.length) throw new TypeError("its encoding is cut off");
    const length = lengthBytes === 0 ? first : bytes.readUIntBE(at + 2, lengthBytes);
    if (begin + length > bytes.length) throw new TypeError("its encoding is cut off");
    found.push({ tag, content: bytes.subarray(begin, begin + length) });
    at = begin + length;
  }
  return found;
}
