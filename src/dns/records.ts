import { isIPv4, isIPv6 } from "node:net";

/** The type of a question, in DNS's own spelling: `A`, `SRV`, `ANY`; `UNKNOWN_65` for a type without a name here. */
export type QuestionType = string;

/** A resource record of class IN. Names carry no dot at their end; the TTL counts seconds. */
export type DnsRecord =
  | {
      readonly type: "A" | "AAAA" | "CNAME" | "NS" | "PTR";
      readonly name: string;
      readonly ttl: number;
      readonly data: string;
    }
  | { readonly type: "SRV"; readonly name: string; readonly ttl: number; readonly data: SrvData }
  | { readonly type: "TXT"; readonly name: string; readonly ttl: number; readonly data: readonly string[] }
  | { readonly type: "SOA"; readonly name: string; readonly ttl: number; readonly data: SoaData };

export interface SrvData {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly target: string;
}

export interface SoaData {
  readonly mname: string;
  readonly rname: string;
  /** Unix seconds. */
  readonly serial: number;
  readonly refresh: number;
  readonly retry: number;
  readonly expire: number;
  readonly minimum: number;
}

export type ResponseCode = "NOERROR" | "FORMERR" | "SERVFAIL" | "NXDOMAIN" | "NOTIMP" | "REFUSED";

/** An answer before it is cut to the size of its transport. */
export interface DnsAnswer {
  readonly code: ResponseCode;
  readonly authoritative: boolean;
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
  readonly additionals: readonly DnsRecord[];
  /** The one service that it is made of, and nothing else that can change. Undefined: of more, or of none. */
  readonly of?: ServiceOfAnswer | undefined;
}

export interface ServiceOfAnswer {
  /** `""`: our own data. */
  readonly peer: string;
  readonly service: string;
  /** Of its data, before it was read ({@link DnsSource.revision}). */
  readonly revision: string;
  /** How many instances are in a random order. */
  readonly instances: number;
}

export function emptyAnswer(code: ResponseCode, authoritative: boolean): DnsAnswer {
  return { code, authoritative, answers: [], authorities: [], additionals: [] };
}

/** Names compare without the case of ASCII letters, and of no others (RFC 4343). */
export function nameKey(name: string): string {
  // Most names are in lower case already, and each question compares several.
  for (let index = 0; index < name.length; index++) {
    if (isCapital(name.charCodeAt(index))) return name.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
  }
  return name;
}

function isCapital(code: number): boolean {
  return code >= 65 && code <= 90;
}

// A peer may name its nodes and addresses as it likes; texts that no packet can carry must not get into one.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const UNPRINTABLE = /[\u0000-\u001f\u007f]/;

/** Whether a name fits the wire: labels of 1 to 63 bytes, 253 bytes in all, no control characters. */
export function isEncodable(name: string): boolean {
  let labelStart = 0;
  for (let index = 0; index < name.length; index++) {
    const code = name.charCodeAt(index);
    if (code > MAX_ASCII) return isEncodableText(name);
    if (code < 0x20 || code === MAX_ASCII) return false;
    if (code !== DOT) continue;
    if (index === labelStart || index - labelStart > MAX_LABEL_BYTES) return false;
    labelStart = index + 1;
  }
  const last = name.length - labelStart;
  return last > 0 && last <= MAX_LABEL_BYTES && name.length <= MAX_NAME_BYTES;
}

const DOT = 0x2e;
/** It is a control character, too. */
const MAX_ASCII = 0x7f;
const MAX_LABEL_BYTES = 63;
const MAX_NAME_BYTES = 253;

/** The same of a name in any characters: bytes count. */
function isEncodableText(name: string): boolean {
  if (UNPRINTABLE.test(name) || Buffer.byteLength(name) > MAX_NAME_BYTES) return false;
  return name.split(".").every((label) => label !== "" && Buffer.byteLength(label) <= MAX_LABEL_BYTES);
}

/** The address record of an IP, in its shortest form; undefined for other text. An IPv4 address in IPv6 form counts as IPv4. */
export function addressOf(text: string): { readonly type: "A" | "AAAA"; readonly data: string } | undefined {
  if (isIPv4(text)) return { type: "A", data: text };
  if (!isIPv6(text) || text.includes("%")) return undefined;
  const bytes = ipv6Bytes(text);
  const mapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 255 && bytes[11] === 255;
  return mapped ? { type: "A", data: bytes.subarray(12).join(".") } : { type: "AAAA", data: ipv6Text(bytes) };
}

/** The label that stands for an IP in names below `addr`. Give it what {@link addressOf} returned. */
export function hexLabel(address: { readonly type: "A" | "AAAA"; readonly data: string }): string {
  return Buffer.from(addressBytes(address)).toString("hex");
}

/** The bytes of an IP, as {@link addressOf} returned it. */
export function addressBytes({ type, data }: { readonly type: "A" | "AAAA"; readonly data: string }): Uint8Array {
  return type === "A" ? ipv4Bytes(data) : ipv6Bytes(data);
}

function ipv4Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(4);
  let place = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === DOT) place++;
    else bytes[place] = (bytes[place] ?? 0) * 10 + code - 0x30;
  }
  return bytes;
}

/** The IP behind a label below `addr`, in its shortest form; undefined for other labels. */
export function addressOfHex(label: string): { readonly type: "A" | "AAAA"; readonly data: string } | undefined {
  if (!/^[0-9a-f]+$/i.test(label)) return undefined;
  const bytes = Uint8Array.from(Buffer.from(label, "hex"));
  if (label.length === 8) return { type: "A", data: bytes.join(".") };
  return label.length === 32 ? { type: "AAAA", data: ipv6Text(bytes) } : undefined;
}

/** One text for all spellings of an address. */
export function canonicalAddress(text: string): string {
  const address = addressOf(text);
  return address === undefined ? text : hexLabel(address);
}

function ipv6Bytes(text: string): Uint8Array {
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  const [, front = "", a, b, c, d] = dotted ?? [];
  const pair = (high: string | undefined, low: string | undefined): string =>
    (Number(high) * 256 + Number(low)).toString(16);
  const groups = dotted === null ? text : `${front}${pair(a, b)}:${pair(c, d)}`;
  const [left = "", right] = groups.split("::");
  const before = left === "" ? [] : left.split(":");
  const after = right === undefined || right === "" ? [] : right.split(":");
  const zeros = new Array<string>(Math.max(0, 8 - before.length - after.length)).fill("0");
  const bytes = new Uint8Array(16);
  for (const [index, group] of [...before, ...zeros, ...after].slice(0, 8).entries()) {
    const value = Number.parseInt(group, 16);
    bytes[index * 2] = value >>> 8;
    bytes[index * 2 + 1] = value & 255;
  }
  return bytes;
}

function ipv6Text(bytes: Uint8Array): string {
  const groups: number[] = [];
  for (let index = 0; index < 16; index += 2) groups.push(((bytes[index] ?? 0) << 8) | (bytes[index + 1] ?? 0));
  // The first of the longest runs of at least two zero groups is left out (RFC 5952).
  let [start, length] = [0, 1];
  for (let from = 0; from < 8; from++) {
    let to = from;
    while (to < 8 && groups[to] === 0) to++;
    if (to - from > length) [start, length] = [from, to - from];
  }
  const text = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(":");
  return length < 2 ? text(groups) : `${text(groups.slice(0, start))}::${text(groups.slice(start + length))}`;
}
