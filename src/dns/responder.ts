import type { Logger } from "../environment.js";
import { errorText } from "../errors.js";
import { type DnsQuery, decodeQuery, encodeReply, frameOf } from "./packet.js";
import { type DnsAnswer, emptyAnswer } from "./records.js";
import type { Resolver } from "./resolver.js";
import { fit, sizeLimits } from "./size.js";

export interface ResponderParts {
  readonly resolver: Resolver;
  readonly logger: Logger;
  readonly udpAnswerLimit: number;
  readonly maxUdpBytes: number;
  readonly enableTruncate: boolean;
}

/** IN, and any. */
const CLASSES: ReadonlySet<number> = new Set([1, 255]);

/** From one packet to the other: what the sockets of a server have in common. */
export class Responder {
  readonly #parts: ResponderParts;

  constructor(parts: ResponderParts) {
    this.#parts = parts;
  }

  /** The answer to a packet; undefined when there must be none. Never rejects. */
  async respond(message: Buffer, transport: "udp" | "tcp"): Promise<Buffer | undefined> {
    const decoded = decodeQuery(message);
    if (decoded.type === "ignored") return undefined;
    if (decoded.type === "refused") return Buffer.from(decoded.reply);
    const { query } = decoded;
    const answer = await this.#resolve(query);
    try {
      return this.#encode(query, answer, transport);
    } catch (error) {
      this.#failed(query, error);
      return this.#encode(query, emptyAnswer("SERVFAIL", false), transport);
    }
  }

  async #resolve(query: DnsQuery): Promise<DnsAnswer> {
    if (!CLASSES.has(query.class)) return emptyAnswer("REFUSED", false);
    try {
      return await this.#parts.resolver.resolve({ name: query.name, type: query.type, edns: query.edns !== undefined });
    } catch (error) {
      this.#failed(query, error);
      return emptyAnswer("SERVFAIL", false);
    }
  }

  #failed({ name, type }: DnsQuery, error: unknown): void {
    this.#parts.logger.warn("DNS question not answered", { name, type, error: errorText(error) });
  }

  #encode(query: DnsQuery, answer: DnsAnswer, transport: "udp" | "tcp"): Buffer {
    const { udpAnswerLimit, maxUdpBytes, enableTruncate } = this.#parts;
    const limits = sizeLimits({
      transport,
      questionType: query.type,
      ednsBytes: query.edns?.bytes,
      udpAnswerLimit,
      maxUdpBytes,
    });
    const fitted = fit(answer, frameOf(query), limits);
    // Where the limit is ours, the asker does not know that there is more.
    const told = fitted.cut && (enableTruncate || limits.ours);
    return encodeReply(query, { ...fitted, truncated: fitted.hopeless || told });
  }
}
