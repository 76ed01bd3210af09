import type { Incidents } from "../base/incidents.js";
import { RecentlyUsed } from "../base/recently-used.js";
import type { ServiceOfAnswer } from "./records.js";
import type { DnsSource } from "./source.js";

/** Replies to one question, each with its instances in a random order of its own. */
const ORDERS = 8;
/** How often a reply is given before it makes room for one with another order. */
const MOST_GIVEN = 16;
/** Longer ones are made each time. */
const MAX_REPLY_BYTES = 4_096;
/** Longer questions have options of many bytes, which hardly come twice. */
const MAX_QUESTION_BYTES = 512;
/** About the cost of what is noted of a question, and of a reply, beside their bytes. */
const NOTED_BYTES = 400;
const ID_BYTES = 2;

interface Kept {
  readonly of: ServiceOfAnswer;
  /** Of its key, and of its refusal. */
  readonly cost: number;
  /** For an asker who may not have a long reply. */
  readonly refusal: Buffer;
  readonly replies: { readonly bytes: Buffer; given: number }[];
  next: number;
}

/** Both with the id of the question. */
export interface KeptReply {
  readonly reply: Buffer;
  /** For an asker who may not have a long one. */
  readonly refusal: () => Buffer;
}

/**
 * Replies about services by the bytes of their questions, while nothing changes of the service. Several are kept for each
 * question, as instances come in a random order, and none is given often: in the end each order comes as often as another.
 */
export class KeptReplies {
  readonly #source: DnsSource;
  readonly #kept: RecentlyUsed<string, Kept>;

  /** @param maxBytes - of all of them, with their questions; 0: none are kept. */
  constructor(source: DnsSource, incidents: Incidents, maxBytes: number) {
    this.#source = source;
    this.#kept = new RecentlyUsed(maxBytes, costOf, () =>
      incidents.report(
        "dns-reply-dropped",
        "kept DNS replies take all their bytes: one that was not asked for is dropped",
        {
          limit: maxBytes,
        },
      ),
    );
  }

  /** Undefined: one must be made. */
  find(question: Buffer, transport: "tcp" | "udp"): KeptReply | undefined {
    if (question.length > MAX_QUESTION_BYTES) return undefined;
    const key = keyOf(question, transport);
    const kept = this.#kept.get(key);
    if (kept === undefined) return undefined;
    if (!this.#isCurrent(kept.of)) {
      this.#kept.delete(key);
      return undefined;
    }
    const { of, replies, refusal } = kept;
    if (replies.length < ordersOf(of)) return undefined;
    const place = kept.next % replies.length;
    const reply = replies[place];
    if (reply === undefined) return undefined;
    reply.given++;
    kept.next = place + 1;
    if (reply.given === MOST_GIVEN && ordersOf(of) > 1) {
      replies.splice(place, 1);
      kept.next = place;
      this.#kept.recount(key);
    }
    return { reply: withId(reply.bytes, question), refusal: () => withId(refusal, question) };
  }

  /** @param refusal - for askers who may not have a long reply. */
  keep(question: Buffer, transport: "tcp" | "udp", of: ServiceOfAnswer, reply: Buffer, refusal: () => Buffer): void {
    if (question.length > MAX_QUESTION_BYTES || reply.length > MAX_REPLY_BYTES) return;
    const key = keyOf(question, transport);
    const former = this.#kept.get(key);
    const made = { bytes: reply, given: 0 };
    if (former !== undefined && former.of.revision === of.revision) {
      if (former.replies.length >= ordersOf(of)) return;
      former.replies.push(made);
      this.#kept.recount(key);
      return;
    }
    const bytes = refusal();
    const cost = 2 * NOTED_BYTES + 2 * key.length + bytes.length;
    this.#kept.set(key, { of, cost, refusal: bytes, replies: [made], next: 0 });
  }

  #isCurrent({ peer, service, revision }: ServiceOfAnswer): boolean {
    try {
      return this.#source.revision?.(peer, service) === revision;
    } catch {
      // The same error comes where the reply is made, and is told there.
      return false;
    }
  }
}

function keyOf(question: Buffer, transport: "tcp" | "udp"): string {
  return transport + question.toString("latin1", ID_BYTES);
}

/** One instance has one order. */
function ordersOf({ instances }: ServiceOfAnswer): number {
  return instances === 1 ? 1 : ORDERS;
}

function costOf({ cost, replies }: Kept): number {
  return replies.reduce((sum, { bytes }) => sum + NOTED_BYTES + bytes.length, cost);
}

/** A copy: the system may be sending the former one. */
function withId(reply: Buffer, question: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(reply.length);
  bytes.set(reply);
  bytes[0] = question[0] ?? 0;
  bytes[1] = question[1] ?? 0;
  return bytes;
}
