import { NameTable, nameLength } from "./compression.js";
import type { DnsAnswer, DnsRecord } from "./records.js";
import { nameKey } from "./records.js";

/** The limits of a packet. */
export interface SizeLimits {
  /** Of the whole packet, its OPT record included. */
  readonly bytes: number;
  /** Of the whole packet without its OPT record: Consul leaves that out where it cuts. */
  readonly bytesWithoutOption: number;
  readonly answers: number;
  /** Where there are more answers, those that stay are measured as if names were not compressed (Consul 1.13 to 1.22). */
  readonly plainWhenCut: boolean;
  /** The asker can take more than is given over UDP. */
  readonly ours: boolean;
}

/** The parts of a packet besides its records. */
export interface Frame {
  /** The name of the question. */
  readonly name: string;
  readonly headerBytes: number;
  readonly questionBytes: number;
  readonly optionBytes: number;
}

export interface FittedAnswer extends DnsAnswer {
  /** Which records were left out: some answers, or only additional ones. */
  readonly missing: "nothing" | "others" | "answers";
  /** Not even one answer fits: the asker must come again over TCP, whatever the settings say. */
  readonly hopeless: boolean;
}

export interface SizeRequest {
  readonly transport: "udp" | "tcp";
  /** Of the question. */
  readonly questionType: string;
  /** The size in the client's OPT record; undefined without EDNS. */
  readonly ednsBytes: number | undefined;
  /** Answers over UDP without EDNS, or with a size no larger than without. */
  readonly udpAnswerLimit: number;
  /** Most bytes over UDP, whatever the asker can take. */
  readonly maxUdpBytes: number;
}

/** The least bytes of a record: a pointer for its owner, ten bytes for the fixed fields, and one for its data. */
const LEAST_RECORD_BYTES = 13;

/** So many records do not fit: more of them need not be made. */
export function tooManyRecords(bytes: number): number {
  return Math.ceil(bytes / LEAST_RECORD_BYTES);
}

/** The size that every client accepts over UDP (RFC 1035). */
export const UDP_BYTES = 512;
/** Leaves room for the framing of TCP and for the bytes that Consul keeps clear. */
const TCP_BYTES = 65_523;
/** The most bytes that Consul sends over UDP. */
export const UDP_MOST_BYTES = 65_467;
const UDP_MOST_ANSWERS = 8;
/** Consul keeps so much clear for the header of UDP. */
const UDP_RESERVE = 8;

/** The limits of Consul 1.13 to 1.22, and our own one over UDP (D-60). */
export function sizeLimits(request: SizeRequest): SizeLimits {
  const { transport, questionType, ednsBytes = 0, udpAnswerLimit, maxUdpBytes } = request;
  const most = questionType === "SRV" ? 1_024 : 4_096;
  if (transport === "tcp") {
    return { bytes: TCP_BYTES, bytesWithoutOption: TCP_BYTES, answers: most, plainWhenCut: false, ours: false };
  }
  const wanted = Math.min(Math.max(ednsBytes, UDP_BYTES), UDP_MOST_BYTES);
  const bytes = Math.min(wanted, maxUdpBytes);
  const few = wanted === UDP_BYTES;
  return {
    bytes,
    bytesWithoutOption: bytes - UDP_RESERVE,
    answers: few ? Math.min(UDP_MOST_ANSWERS, udpAnswerLimit) : most,
    plainWhenCut: few,
    ours: bytes < wanted,
  };
}

/** How many bytes a record takes whose names are not compressed. */
export function recordLength(record: DnsRecord): number {
  return lengthOf(record, nameLength);
}

/**
 * How many bytes a record takes.
 * @param name - the bytes of a name that begins so far into the record, and that may be compressed or not.
 */
function lengthOf(record: DnsRecord, name: (text: string, offset: number, compress: boolean) => number): number {
  const length = name(record.name, 0, true) + 10;
  switch (record.type) {
    case "A":
      return length + 4;
    case "AAAA":
      return length + 16;
    case "SRV":
      return length + 6 + name(record.data.target, length + 6, false);
    case "TXT":
      return record.data.reduce((sum, text) => sum + 1 + Buffer.byteLength(text), length);
    case "SOA": {
      const { mname, rname } = record.data;
      const first = name(mname, length, true);
      return length + first + name(rname, length + first, true) + 20;
    }
    default:
      return length + name(record.data, length, true);
  }
}

/** How long a message gets, record by record. */
class Measure {
  readonly #names: NameTable | undefined;
  #bytes: number;

  /** @param compress - false: every name is written out. */
  constructor({ name, headerBytes, questionBytes }: Frame, compress: boolean) {
    this.#bytes = headerBytes + questionBytes;
    this.#names = compress ? new NameTable() : undefined;
    this.#names?.place(name, headerBytes);
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(record: DnsRecord): void {
    const names = this.#names;
    this.#bytes += lengthOf(record, (text, offset, compress) => {
      const placed = names?.place(text, this.#bytes + offset);
      return placed === undefined || !compress ? nameLength(text) : placed.length;
    });
  }

  /** False: they do not all fit. Then the length of the rest does not matter. */
  addAll(sections: readonly (readonly DnsRecord[])[], most: number): boolean {
    for (const records of sections) {
      for (const record of records) {
        if (this.#bytes > most) return false;
        this.add(record);
      }
    }
    return this.#bytes <= most;
  }

  /** The most bytes of a record that comes later. */
  lengthOf(record: DnsRecord): number {
    const names = this.#names;
    return lengthOf(record, (text, _, compress) =>
      names === undefined || !compress ? nameLength(text) : names.lengthOf(text),
    );
  }
}

/**
 * Cuts an answer until it fits: first the authorities and the additional records that belong to no answer, then answers from the
 * end, with their additional records.
 */
export function fit(answer: DnsAnswer, frame: Frame, limits: SizeLimits): FittedAnswer {
  const fewEnough = answer.answers.length <= limits.answers;
  if (fewEnough) {
    const { answers, authorities, additionals } = answer;
    const sections = [answers, authorities, additionals];
    const most = limits.bytesWithoutOption - frame.optionBytes;
    // Pointers make it shorter, never longer: most answers are seen to fit without them.
    if (new Measure(frame, false).addAll(sections, most) || new Measure(frame, true).addAll(sections, most)) {
      return { ...answer, missing: "nothing", hopeless: false };
    }
  }
  const room = Math.min(limits.bytesWithoutOption, limits.bytes - frame.optionBytes);
  const measure = new Measure(frame, fewEnough || !limits.plainWhenCut);
  const targets = new Targets(answer.additionals);
  const answers: DnsRecord[] = [];
  const additionals: DnsRecord[] = [];
  let beside = 0;
  for (const record of answer.answers.slice(0, limits.answers)) {
    measure.add(record);
    if (measure.bytes + beside > room) break;
    const served = targets.servedBy(record);
    const length = served.reduce((sum, each) => sum + measure.lengthOf(each), 0);
    const fits = measure.bytes + beside + length <= room;
    // An answer without its additional records is better than none.
    if (!fits && answers.length > 0) break;
    answers.push(record);
    if (!fits) break;
    additionals.push(...served);
    beside += length;
  }
  const { length } = answer.answers;
  if (length === 0) {
    for (const record of answer.additionals) {
      measure.add(record);
      if (measure.bytes > room) break;
      additionals.push(record);
    }
  }
  const hopeless = length > 0 && answers.length === 0;
  const missing = answers.length < length ? "answers" : "others";
  return { ...answer, answers, authorities: [], additionals, missing, hopeless };
}

/** Additional records by their owners, of each the first: the others are its metadata. */
class Targets {
  readonly #byOwner = new Map<string, DnsRecord>();
  readonly #served = new Set<string>();

  constructor(additionals: readonly DnsRecord[]) {
    for (const record of additionals) {
      const owner = nameKey(record.name);
      if (!this.#byOwner.has(owner)) this.#byOwner.set(owner, record);
    }
  }

  /** The additional records of one answer, also through an alias, and of no answer before it. */
  servedBy(answer: DnsRecord): readonly DnsRecord[] {
    const found: DnsRecord[] = [];
    let target = answer.type === "SRV" ? answer.data.target : answer.type === "NS" ? answer.data : undefined;
    while (target !== undefined) {
      const owner = nameKey(target);
      const record = this.#served.has(owner) ? undefined : this.#byOwner.get(owner);
      this.#served.add(owner);
      if (record !== undefined) found.push(record);
      target = record?.type === "CNAME" ? record.data : undefined;
    }
    return found;
  }
}
