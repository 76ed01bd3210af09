import { decode, type PacketOpt } from "dns-packet";
import type { DnsRecord, QuestionType, ResponseCode } from "./records.js";
import { isEncodable } from "./records.js";
import { type Frame, recordLength } from "./size.js";
import { MessageWriter } from "./writer.js";

/** A question as it came. */
export interface DnsQuery {
  readonly id: number;
  readonly recursionDesired: boolean;
  readonly checkingDisabled: boolean;
  /** Without a dot at the end; `.` is the root. */
  readonly name: string;
  readonly type: QuestionType;
  /** 1 is IN. */
  readonly class: number;
  /** The question section, byte for byte: an answer repeats it so. */
  readonly question: Uint8Array;
  readonly edns: Edns | undefined;
}

export interface Edns {
  /** The size that the client accepts over UDP. */
  readonly bytes: number;
  /** Its client-subnet option, with the scope set to 0. */
  readonly subnet: Uint8Array | undefined;
}

export type DecodedQuery =
  | { readonly type: "query"; readonly query: DnsQuery }
  /** No question to work on: `reply` says so. */
  | { readonly type: "refused"; readonly reply: Uint8Array }
  /** An answer, or no DNS at all: a server that replies to these can be made to talk to itself. */
  | { readonly type: "ignored" };

export interface Reply {
  readonly code: ResponseCode;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
  readonly additionals: readonly DnsRecord[];
}

const CODES: Readonly<Record<ResponseCode, number>> = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
};

const HEADER_BYTES = 12;
const RESPONSE = 0x8000;
const AUTHORITATIVE = 0x0400;
const TRUNCATED = 0x0200;
const RECURSION_DESIRED = 0x0100;
const CHECKING_DISABLED = 0x0010;
const OPCODE = 0x7800;

/** A question with its options is far below; more is not worth the work of reading it. */
export const MAX_QUERY_BYTES = 4_096;

const OPT = 41;
const CLIENT_SUBNET = 8;
const OPT_BYTES = 11;
const OPTION_BYTES = 4;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Reads a packet from anybody. Never throws. */
export function decodeQuery(packet: Buffer): DecodedQuery {
  if (packet.length < HEADER_BYTES) return { type: "ignored" };
  const flags = packet.readUInt16BE(2);
  if ((flags & RESPONSE) !== 0) return { type: "ignored" };
  const refuse = (code: ResponseCode): DecodedQuery => ({ type: "refused", reply: headerOnly(packet, flags, code) });
  if ((flags & OPCODE) !== 0) return refuse("NOTIMP");
  // One question, and no more of the rest than the options that come with one; as Consul's server judges them.
  const counts = [4, 6, 8, 10].map((offset) => packet.readUInt16BE(offset));
  const [questions = 0, answers = 0, authorities = 0, additionals = 0] = counts;
  if (packet.length > MAX_QUERY_BYTES || questions !== 1 || answers > 1 || authorities > 1 || additionals > 2) {
    return refuse("FORMERR");
  }
  try {
    const name = readName(packet);
    if (name === undefined) return refuse("FORMERR");
    const decoded = decode(packet);
    const [question] = decoded.questions ?? [];
    const options = (decoded.additionals ?? []).filter((record) => record.type === "OPT");
    const [option] = options;
    if (question === undefined || options.length > 1) return refuse("FORMERR");
    return {
      type: "query",
      query: {
        id: packet.readUInt16BE(0),
        recursionDesired: (flags & RECURSION_DESIRED) !== 0,
        checkingDisabled: (flags & CHECKING_DISABLED) !== 0,
        name: name.text,
        type: question.type,
        class: packet.readUInt16BE(name.end + 2),
        question: new Uint8Array(packet.subarray(HEADER_BYTES, name.end + 4)),
        edns: option === undefined ? undefined : { bytes: option.udpPayloadSize, subnet: subnetOf(option.options) },
      },
    };
  } catch {
    return refuse("FORMERR");
  }
}

/** The parts of a reply besides its records. */
export function frameOf({ name, question, edns }: DnsQuery): Frame {
  const subnetBytes = edns?.subnet === undefined ? 0 : OPTION_BYTES + edns.subnet.length;
  return {
    name: name === "." ? "" : name,
    headerBytes: HEADER_BYTES,
    questionBytes: question.length,
    optionBytes: edns === undefined ? 0 : OPT_BYTES + subnetBytes,
  };
}

export function encodeReply(query: DnsQuery, reply: Reply): Buffer {
  const { answers, authorities, additionals } = reply;
  const records = [...answers, ...authorities, ...additionals];
  const { name, headerBytes, questionBytes, optionBytes } = frameOf(query);
  const room = headerBytes + questionBytes + optionBytes;
  const writer = new MessageWriter(records.reduce((sum, record) => sum + recordLength(record), room));
  writer.bytes(headerOf(query, reply));
  writer.question(query.question, name);
  for (const record of records) writer.record(record);
  if (query.edns !== undefined) writer.bytes(optRecord(query.edns));
  return writer.end();
}

function headerOf(query: DnsQuery, reply: Reply): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(query.id, 0);
  const flags =
    RESPONSE |
    (reply.authoritative ? AUTHORITATIVE : 0) |
    (reply.truncated ? TRUNCATED : 0) |
    (query.recursionDesired ? RECURSION_DESIRED : 0) |
    (query.checkingDisabled ? CHECKING_DISABLED : 0) |
    CODES[reply.code];
  header.writeUInt16BE(flags, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(reply.answers.length, 6);
  header.writeUInt16BE(reply.authorities.length, 8);
  header.writeUInt16BE(reply.additionals.length + (query.edns === undefined ? 0 : 1), 10);
  return header;
}

function headerOnly(packet: Buffer, flags: number, code: ResponseCode): Uint8Array {
  const reply = Buffer.alloc(HEADER_BYTES);
  reply.writeUInt16BE(packet.readUInt16BE(0), 0);
  reply.writeUInt16BE(RESPONSE | (flags & (OPCODE | RECURSION_DESIRED)) | CODES[code], 2);
  return reply;
}

/**
 * The name of the question; undefined for a name that no text can express: compressed, too long, cut off, not UTF-8, or with
 * a dot or a control character within a label.
 */
function readName(packet: Buffer): { readonly text: string; readonly end: number } | undefined {
  const labels: string[] = [];
  let offset = HEADER_BYTES;
  for (;;) {
    const length = packet[offset];
    if (length === undefined || length > 63) return undefined;
    offset++;
    if (length === 0) break;
    const label = utf8.decode(packet.subarray(offset, offset + length));
    if (label.includes(".")) return undefined;
    labels.push(label);
    offset += length;
  }
  const text = labels.join(".");
  if (offset + 4 > packet.length || (text !== "" && !isEncodable(text))) return undefined;
  return { text: text === "" ? "." : text, end: offset };
}

function subnetOf(options: readonly PacketOpt[]): Uint8Array | undefined {
  const data = options.find(({ code }) => code === CLIENT_SUBNET)?.data;
  // Family, two prefix lengths, and at most an IPv6 address.
  if (data === undefined || data.length < 4 || data.length > 20) return undefined;
  const echoed = new Uint8Array(data);
  echoed[3] = 0;
  return echoed;
}

/** The address in a client-subnet option, which names whom a resolver asks for; undefined: there is none. */
export function subnetAddress(option: Uint8Array | undefined): string | undefined {
  if (option === undefined || option[0] !== 0) return undefined;
  const size = option[1] === 1 ? 4 : option[1] === 2 ? 16 : 0;
  const bytes = option.subarray(4);
  if (size === 0 || bytes.length > size) return undefined;
  const whole = [...bytes, ...new Array<number>(size - bytes.length).fill(0)];
  if (size === 4) return whole.join(".");
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((whole[2 * index] ?? 0) << 8) | (whole[2 * index + 1] ?? 0)).toString(16),
  );
  return shortestIpv6(groups);
}

/** The longest run of zeros is left out, as everybody writes addresses (RFC 5952). */
function shortestIpv6(groups: readonly string[]): string {
  const text = groups.join(":");
  const runs = [...text.matchAll(/(?<![0-9a-f])0(?::0)+(?![0-9a-f])/g)];
  let longest = runs[0];
  for (const run of runs) if (longest !== undefined && run[0].length > longest[0].length) longest = run;
  if (longest === undefined) return text;
  const before = text.slice(0, longest.index).replace(/:$/, "");
  return `${before}::${text.slice(longest.index + longest[0].length).replace(/^:/, "")}`;
}

function optRecord({ bytes, subnet }: Edns): Buffer {
  const options = subnet === undefined ? 0 : OPTION_BYTES + subnet.length;
  const record = Buffer.alloc(OPT_BYTES + options);
  record.writeUInt16BE(OPT, 1);
  record.writeUInt16BE(bytes, 3);
  record.writeUInt16BE(options, 9);
  if (subnet !== undefined) {
    record.writeUInt16BE(CLIENT_SUBNET, OPT_BYTES);
    record.writeUInt16BE(subnet.length, OPT_BYTES + 2);
    record.set(subnet, OPT_BYTES + OPTION_BYTES);
  }
  return record;
}
