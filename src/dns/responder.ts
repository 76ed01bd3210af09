import type { Logger } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import { hostOf } from "../base/host-port.js";
import type { KeptReplies } from "./kept-replies.js";
import type { LargeAnswers } from "./large-answers.js";
import { type DnsQuery, decodeQuery, encodeReply, frameOf, subnetAddress } from "./packet.js";
import { type DnsAnswer, emptyAnswer } from "./records.js";
import type { Resolver } from "./resolver.js";
import { fit, type SizeLimits, sizeLimits } from "./size.js";

export interface ResponderParts {
  readonly resolver: Resolver;
  readonly logger: Logger;
  readonly udpAnswerLimit: number;
  readonly maxUdpBytes: number;
  readonly enableTruncate: boolean;
  readonly largeAnswers: LargeAnswers;
  readonly keptReplies: KeptReplies;
}

/** How a question came, and from which `host:port`: over UDP the address may be forged. */
export interface Origin {
  readonly transport: "tcp" | "udp";
  readonly from: string;
}

/** IN, and any. */
const CLASSES: ReadonlySet<number> = new Set([1, 255]);

/** Makes a reply packet from a query packet: the common part of a server's sockets. */
export class Responder {
  readonly #parts: ResponderParts;

  constructor(parts: ResponderParts) {
    this.#parts = parts;
  }

  /** The answer to a packet, at once where one is kept; undefined when there must be none. Never throws or rejects. */
  respond(message: Buffer, origin: Origin): Buffer | Promise<Buffer | undefined> {
    const kept = this.#parts.keptReplies.find(message, origin.transport);
    if (kept === undefined) return this.#make(message, origin);
    return this.#mayHave(message, kept.reply, origin) ? kept.reply : kept.refusal();
  }

  async #make(message: Buffer, origin: Origin): Promise<Buffer | undefined> {
    const decoded = decodeQuery(message);
    if (decoded.type === "ignored") return undefined;
    if (decoded.type === "refused") return Buffer.from(decoded.reply);
    const { query } = decoded;
    const limits = this.#limitsOf(query, origin.transport);
    const answer = await this.#resolve(query, limits, origin);
    try {
      const reply = this.#encode(query, answer, limits, origin.transport);
      const refusal = (): Buffer =>
        encodeReply(query, { ...emptyAnswer(answer.code, answer.authoritative), truncated: true });
      if (answer.of !== undefined) this.#parts.keptReplies.keep(message, origin.transport, answer.of, reply, refusal);
      return this.#mayHave(message, reply, origin) ? reply : refusal();
    } catch (error) {
      this.#failed(query, error);
      return this.#encode(query, emptyAnswer("SERVFAIL", false), limits, origin.transport);
    }
  }

  #mayHave(message: Buffer, reply: Buffer, { transport, from }: Origin): boolean {
    return transport === "tcp" || this.#parts.largeAnswers.admit(from, message.length, reply.length);
  }

  async #resolve(query: DnsQuery, limits: SizeLimits, origin: Origin): Promise<DnsAnswer> {
    if (!CLASSES.has(query.class)) return emptyAnswer("REFUSED", false);
    try {
      const { name, type, edns } = query;
      const from = subnetAddress(edns?.subnet) ?? plainHost(origin.from);
      return await this.#parts.resolver.resolve({ name, type, edns: edns !== undefined, bytes: limits.bytes, from });
    } catch (error) {
      this.#failed(query, error);
      return emptyAnswer("SERVFAIL", false);
    }
  }

  #failed({ name, type }: DnsQuery, error: unknown): void {
    this.#parts.logger.warn("DNS question not answered", { name, type, error: errorText(error) });
  }

  #limitsOf({ type, edns }: DnsQuery, transport: "udp" | "tcp"): SizeLimits {
    const { udpAnswerLimit, maxUdpBytes } = this.#parts;
    return sizeLimits({ transport, questionType: type, ednsBytes: edns?.bytes, udpAnswerLimit, maxUdpBytes });
  }

  #encode(query: DnsQuery, answer: DnsAnswer, limits: SizeLimits, transport: "udp" | "tcp"): Buffer {
    const { enableTruncate } = this.#parts;
    const fitted = fit(answer, frameOf(query), limits);
    // Where the limit is ours, the asker does not know that there is more.
    const missing =
      fitted.missing === "answers"
        ? enableTruncate || limits.ours
        : fitted.missing === "others" && enableTruncate && transport === "tcp";
    return encodeReply(query, { ...fitted, truncated: fitted.hopeless || missing });
  }
}

function plainHost(address: string): string {
  return hostOf(address).replace(/^::ffff:(?=\d+\.)/i, "");
}
