import type { DnsAnswer, DnsRecord } from "./records.js";
import { nameKey } from "./records.js";

/** What a packet may hold. */
export interface SizeLimits {
  /** Of the whole packet, uncompressed. */
  readonly bytes: number;
  readonly answers: number;
}

export interface FittedAnswer extends DnsAnswer {
  /** Something was left out. */
  readonly cut: boolean;
  /** Not even one answer fits: the asker must come again over TCP, whatever the settings say. */
  readonly hopeless: boolean;
}

export interface SizeRequest {
  readonly transport: "udp" | "tcp";
  /** Of the question. */
  readonly questionType: string;
  /** What the asker's OPT record says it can take; undefined without EDNS. */
  readonly ednsBytes: number | undefined;
  /** Answers over UDP without EDNS. */
  readonly udpAnswerLimit: number;
}

/** Leaves room for the framing of TCP and what Consul keeps clear. */
const TCP_BYTES = 65_523;
const UDP_BYTES = 512;
const UDP_MOST_BYTES = 65_467;
const UDP_MOST_ANSWERS = 8;
const EDNS_RESERVE = 8;

/** The limits of Consul 1.13 to 1.22 (specification 4.6.8). */
export function sizeLimits({ transport, questionType, ednsBytes, udpAnswerLimit }: SizeRequest): SizeLimits {
  const most = questionType === "SRV" ? 1_024 : 4_096;
  if (transport === "tcp") return { bytes: TCP_BYTES, answers: most };
  if (ednsBytes === undefined) return { bytes: UDP_BYTES, answers: Math.min(UDP_MOST_ANSWERS, udpAnswerLimit) };
  return { bytes: Math.min(Math.max(ednsBytes, UDP_BYTES), UDP_MOST_BYTES) - EDNS_RESERVE, answers: most };
}

/** How many bytes a name takes that is not compressed. */
export function nameLength(name: string): number {
  return name === "" || name === "." ? 1 : Buffer.byteLength(name) + 2;
}

/** How many bytes a record takes that is not compressed. */
export function recordLength(record: DnsRecord): number {
  return nameLength(record.name) + 10 + dataLength(record);
}

function dataLength(record: DnsRecord): number {
  switch (record.type) {
    case "A":
      return 4;
    case "AAAA":
      return 16;
    case "SRV":
      return 6 + nameLength(record.data.target);
    case "TXT":
      return record.data.reduce((sum, text) => sum + 1 + Buffer.byteLength(text), 0);
    case "SOA":
      return nameLength(record.data.mname) + nameLength(record.data.rname) + 20;
    default:
      return nameLength(record.data);
  }
}

/**
 * Cuts an answer until it fits: first the authorities, then answers from the end, but for one; what is additional then
 * serves the answers that are left.
 * @param otherBytes - of the header, the question and the OPT record.
 */
export function fit(answer: DnsAnswer, otherBytes: number, limits: SizeLimits): FittedAnswer {
  const all = [...answer.answers, ...answer.authorities, ...answer.additionals];
  if (answer.answers.length <= limits.answers && otherBytes + lengthOf(all) <= limits.bytes) {
    return { ...answer, cut: false, hopeless: false };
  }
  const room = limits.bytes - otherBytes;
  // Additionals may still be those of all answers here: a few authorities are no reason to leave any of them out.
  const withoutAuthorities = lengthOf(answer.answers) + lengthOf(answer.additionals);
  const fewEnough = answer.answers.length <= limits.answers;
  if (fewEnough && withoutAuthorities <= room) return { ...answer, authorities: [], cut: true, hopeless: false };

  const targets = new Targets(answer.additionals);
  // Running sums, so that the search looks at lengths alone.
  const sums: number[] = [0];
  for (const record of answer.answers) sums.push((sums.at(-1) ?? 0) + recordLength(record));
  const lengthWith = (count: number): number =>
    (sums[count] ?? 0) + lengthOf(targets.neededBy(answer.answers.slice(0, count)));
  const most = Math.min(answer.answers.length, limits.answers);
  let low = Math.min(1, most);
  let high = most;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (lengthWith(middle) <= room) low = middle;
    else high = middle - 1;
  }
  const answers = answer.answers.slice(0, low);
  const additionals = [...(answers.length === 0 ? answer.additionals : targets.neededBy(answers))];
  let length = lengthOf(answers) + lengthOf(additionals);
  while (length > room) {
    const dropped = additionals.pop();
    if (dropped === undefined)
      return { ...answer, answers: [], authorities: [], additionals: [], cut: true, hopeless: true };
    length -= recordLength(dropped);
  }
  return { ...answer, answers, authorities: [], additionals, cut: true, hopeless: false };
}

function lengthOf(records: readonly DnsRecord[]): number {
  let length = 0;
  for (const record of records) length += recordLength(record);
  return length;
}

/** Additional records by their owners. */
class Targets {
  readonly #byOwner = new Map<string, DnsRecord[]>();

  constructor(additionals: readonly DnsRecord[]) {
    for (const record of additionals) {
      const owner = nameKey(record.name);
      const records = this.#byOwner.get(owner);
      if (records === undefined) this.#byOwner.set(owner, [record]);
      else records.push(record);
    }
  }

  /** Those that the targets of `answers` lead to, also through an alias. */
  neededBy(answers: readonly DnsRecord[]): readonly DnsRecord[] {
    const seen = new Set<string>();
    const needed: DnsRecord[] = [];
    const follow = (name: string): void => {
      const owner = nameKey(name);
      if (seen.has(owner)) return;
      seen.add(owner);
      for (const record of this.#byOwner.get(owner) ?? []) {
        needed.push(record);
        if (record.type === "CNAME") follow(record.data);
      }
    };
    for (const record of answers) {
      if (record.type === "SRV") follow(record.data.target);
      else if (record.type === "NS" || record.type === "CNAME") follow(record.data);
    }
    return needed;
  }
}
