import { Http2ServerRequest } from "node:http2";
import type { Socket } from "node:net";
import { type Clock, type LogFields, systemClock } from "../base/environment.js";
import { joinHostPort } from "../base/host-port.js";
import { Incidents } from "../base/incidents.js";
import { Places, sourceOf } from "../base/sources.js";
import { exhausted } from "../stores/record-limit.js";

import { type Answerer, AnswerTurns, type Unread } from "./answer-turns.js";
import { HttpRefusal } from "./http-refusal.js";
import type { HttpRequest } from "./messages.js";
import { Quota } from "./quota.js";

/** Bounds on calls, of one source and together. A source is an IPv4 address, or the /64 of an IPv6 one. */
export interface CallLimitsOptions {
  /**
   * Reads and watches of one source that wait for a change, or for room for a long answer. Default 2 048, for many clients may come
   * through one proxy; beyond: 429, RESOURCE_EXHAUSTED.
   */
  readonly waitingPerSource?: number;
  /**
   * The same of all sources. Default 16 384; beyond, the longest wait of the source that has most ends as if its time were over (one for
   * room: 429), or the newcomer is answered 429, RESOURCE_EXHAUSTED, where no source has more than its own.
   */
  readonly waitingInAll?: number;
  /**
   * Longest body that is taken from callers that may write nothing, such as those without a token where the default is to deny,
   * in bytes. Default 64 KiB; beyond: 403, RESOURCE_EXHAUSTED.
   */
  readonly strangerBodyBytes?: number;
  /**
   * Bytes of the bodies of one source that are being received or worked on. A quarter of it, at most, is for callers that may
   * write nothing. Default 32 MiB; beyond: 429, RESOURCE_EXHAUSTED.
   */
  readonly bodyBytesPerSource?: number;
  /** The same for all sources together. Default 64 MiB; beyond: 503, RESOURCE_EXHAUSTED. */
  readonly bodyBytesInAll?: number;
  /**
   * Bytes of answers that a connection of HTTP/2 has not read. From there on no call of it begins, and no message of a watch is
   * made, until it has read. Default 64 KiB. A connection of HTTP/1.1 has one answer at a time.
   */
  readonly unsentPerConnection?: number;
  /** Bytes of answers that a source has not read. From there on no read of it is answered, until it has. Default 64 MiB. */
  readonly unsentPerSource?: number;
  /** The same for all sources together. Default 256 MiB. */
  readonly unsentInAll?: number;
  /**
   * How long a client may take to read a piece of an answer, 64 KiB at most, while others wait because its source, its connection or
   * all together have as many bytes unread as they may, in milliseconds. Default 5 000; then its answer is cut off. Clients for
   * whom nobody waits have as long as `writeTimeoutMs` says.
   */
  readonly slowReaderMs?: number;
  /** Answers to reads that are made at the same time; others wait for their turn. Default 8. */
  readonly answersAtOnce?: number;
  /**
   * The same of long ones, which are made of many records: they wait for one another, and no short one waits for them. Default 2.
   */
  readonly longAnswersAtOnce?: number;
  /**
   * Bytes in memory, about, of which the long answers of a source are being written. From there on no further one of it is made, until
   * these have been read; it waits with the calls that wait for a change. Reads that ask the same count once. Default 64 MiB.
   */
  readonly longBytesPerSource?: number;
  /** The same for all sources together. Default 256 MiB. */
  readonly longBytesInAll?: number;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** Gets a report of each limit that is hit. Default: no reports. */
  readonly incidents?: Incidents;
}

const KIB = 1_024;
const MIB = 1_024 * KIB;
/** An answer that holds less is a short one. */
const SHORT_BYTES = 512 * KIB;
/** Callers without write rights may use one part in so many of the bounds on bodies. */
const STRANGERS = 4;

/** Bounds on the calls of a process. Pass one to `httpHandler` and to `peeringRpc`, or each bounds its own. */
export class CallLimits {
  /** @internal */
  readonly strangerBodyBytes: number;
  /** @internal */
  readonly incidents: Incidents;
  readonly #slowReaderMs: number;
  readonly #turns: AnswerTurns;
  readonly #longTurns: AnswerTurns;
  readonly #waiting: Places;
  readonly #bodies: Quota;
  readonly #bodiesOfStrangers: Quota;
  readonly #sources = new WeakMap<Socket, string>();
  readonly #limits: {
    readonly [Limit in "waitingPerSource" | "waitingInAll" | "bodyBytesPerSource" | "bodyBytesInAll"]: number;
  };

  constructor(options: CallLimitsOptions = {}) {
    const { waitingPerSource = 2_048, waitingInAll = 16_384 } = options;
    const { bodyBytesPerSource = 32 * MIB, bodyBytesInAll = 64 * MIB } = options;
    const clock = options.clock ?? systemClock;
    this.#limits = { waitingPerSource, waitingInAll, bodyBytesPerSource, bodyBytesInAll };
    this.incidents = options.incidents ?? new Incidents();
    this.strangerBodyBytes = options.strangerBodyBytes ?? 64 * KIB;
    this.#slowReaderMs = options.slowReaderMs ?? 5_000;
    this.#turns = new AnswerTurns(
      {
        atOnce: options.answersAtOnce ?? 8,
        unsentPerConnection: options.unsentPerConnection ?? 64 * KIB,
        unsentPerSource: options.unsentPerSource ?? 64 * MIB,
        unsentInAll: options.unsentInAll ?? 256 * MIB,
        slowReaderMs: this.#slowReaderMs,
      },
      (what, source) => this.#unread(what, source),
      clock,
    );
    this.#longTurns = new AnswerTurns(
      {
        atOnce: options.longAnswersAtOnce ?? 2,
        unsentPerConnection: Number.POSITIVE_INFINITY,
        unsentPerSource: options.longBytesPerSource ?? 64 * MIB,
        unsentInAll: options.longBytesInAll ?? 256 * MIB,
        slowReaderMs: this.#slowReaderMs,
      },
      (what, source) => this.#longUnread(what, source),
      clock,
    );
    // None of them is stale, however long it waits: it is meant to wait.
    const graceMs = Number.POSITIVE_INFINITY;
    this.#waiting = new Places({ perSource: waitingPerSource, inAll: waitingInAll, graceMs }, clock);
    const quota = (part: number): Quota =>
      new Quota({ perSource: bodyBytesPerSource / part, inAll: bodyBytesInAll / part });
    this.#bodies = quota(1);
    this.#bodiesOfStrangers = quota(STRANGERS);
  }

  /**
   * The share of one call; to be ended with the call.
   * @param response - is destroyed when others wait for its client to read.
   * @internal
   */
  allowance(request: Pick<HttpRequest, "socket">, response: { destroy(): unknown }): CallAllowance {
    const source = this.#sourceOf(request.socket);
    const isHttp2 = request instanceof Http2ServerRequest;
    const connection = isHttp2 ? (request.stream.session ?? request.stream) : request.socket;
    const cutOff = (): void => {
      const fields = { source, limitMs: this.#slowReaderMs };
      this.incidents.report(
        "reader-cut-off",
        "a client did not read, and others waited for that: it was cut off",
        fields,
      );
      response.destroy();
    };
    const turns = { short: this.#turns, long: this.#longTurns };
    return new CallAllowance(this, turns, { source, connection, cutOff }, isHttp2);
  }

  /**
   * Whether the client of a connection, which has read all that was answered on it, may be answered again at once.
   * @internal
   */
  mayAnswer(socket: Socket): boolean {
    return this.#turns.hasRead(this.#sourceOf(socket));
  }

  #sourceOf(socket: Socket): string {
    let source = this.#sources.get(socket);
    if (source === undefined) {
      const { remoteAddress = "", remotePort = 0 } = socket;
      source = sourceOf(joinHostPort(remoteAddress, remotePort));
      this.#sources.set(socket, source);
    }
    return source;
  }

  /** @internal */
  takeWait(source: string, over: () => void): () => void {
    const place = this.#waiting.take(source, () => {
      this.incidents.report("wait-cut-short", "too many calls wait: the oldest one waits no longer", {
        source,
      });
      over();
    });
    if (typeof place === "object") return () => place.leave();
    const { waitingPerSource: perSource, waitingInAll: inAll } = this.#limits;
    if (place === "source") {
      const fields = { source, limit: perSource };
      this.incidents.report("wait-refused-to-source", "too many calls of one source wait", fields);
      throw exhausted(`too many calls from ${source} wait: at most ${perSource} may`);
    }
    this.incidents.report("wait-refused", "too many calls wait", { source, limit: inAll });
    throw exhausted(`too many calls wait: at most ${inAll} may`);
  }

  /** @internal */
  takeBody(source: string, bytes: number, isStranger: boolean): () => void {
    const quota = isStranger ? this.#bodiesOfStrangers : this.#bodies;
    const full = quota.take(source, bytes);
    if (full === undefined) return () => quota.give(source, bytes);
    const { bodyBytesPerSource: perSource, bodyBytesInAll: inAll } = this.#limits;
    const fields = { source, limit: full === "source" ? perSource : inAll, stranger: isStranger };
    if (full === "source") {
      this.incidents.report("body-refused-to-source", "one source sends too many bodies at the same time", fields);
      throw new HttpRefusal(429, `too many bodies from ${source} are being received`);
    }
    this.incidents.report("body-refused", "too many bodies are being received at the same time", fields);
    throw new HttpRefusal(503, "too many bodies are being received");
  }

  #longUnread(what: Unread, source: string): void {
    if (what === "all") {
      this.incidents.report("long-answers-unread", "too many long answers are held that nobody reads", { source });
      return;
    }
    this.incidents.report("long-answers-unread-by-source", "a source asks for more long answers than it reads", {
      source,
    });
  }

  #unread(what: Unread, source: string): void {
    switch (what) {
      case "connection":
        this.incidents.report("answers-unread-by-connection", "a client asks for more, and does not read", { source });
        return;
      case "source":
        this.incidents.report("answers-unread-by-source", "a source asks for more, and does not read", { source });
        return;
      case "all":
        this.incidents.report("answers-unread", "too many answers have been made that nobody reads", { source });
    }
  }
}

/** @param wait - calls `start`, or what it returns is called. @throws `signal.reason` */
function unlessAborted(signal: AbortSignal, wait: (start: () => void) => () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    let giveUp = (): void => {};
    const abort = (): void => {
      giveUp();
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    giveUp = wait(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    });
  });
}

/** The shares of the limits that one call holds. */
export class CallAllowance {
  readonly #limits: CallLimits;
  readonly #turns: AnswerTurns;
  /** Of long answers. */
  readonly #longTurns: AnswerTurns;
  readonly #answerer: Answerer;
  readonly #isHttp2: boolean;
  readonly #bodies: (() => void)[] = [];
  #making = false;
  #makingLong = false;
  /** It has had its turn, and holds what a long answer is written from. */
  #isLong = false;
  /** Held while it was a short one. */
  #shortBytes = 0;
  #unsentBytes = 0;
  #keptBytes = 0;
  readonly #whenSent: (() => void)[] = [];
  #ended = false;

  /** @internal */
  constructor(
    limits: CallLimits,
    turns: { readonly short: AnswerTurns; readonly long: AnswerTurns },
    answerer: Answerer,
    isHttp2: boolean,
  ) {
    this.#limits = limits;
    this.#isHttp2 = isHttp2;
    this.#turns = turns.short;
    this.#longTurns = turns.long;
    this.#answerer = answerer;
  }

  /**
   * Resolves when the call may begin: over HTTP/2 not before its connection has read its former answers. Over HTTP/1.1 it has
   * when a call gets here.
   * @throws `signal.reason`
   */
  async begin(signal: AbortSignal): Promise<void> {
    if (!this.#isHttp2) return;
    await this.turn(signal);
    this.rest();
  }

  /** Resolves when the call may make an answer, until {@link made}, {@link rest} or {@link end}. @throws `signal.reason` */
  async turn(signal: AbortSignal): Promise<void> {
    if (this.#making) return;
    await unlessAborted(signal, (start) => {
      return this.#turns.wait(this.#answerer, () => {
        this.#making = true;
        start();
      });
    });
  }

  /**
   * Resolves when the call may make an answer of which it holds so many bytes more; then they count until it ends. For few bytes that
   * is at once. It waits for other long answers at most once, and not in the place of a short one.
   * @returns the answer is a long one.
   * @throws `signal.reason`; {@link PeeringError} `resource-exhausted`: too many calls wait.
   */
  async long(bytes: number, signal: AbortSignal): Promise<boolean> {
    if (this.#isLong) return true;
    this.#shortBytes += bytes;
    if (this.#shortBytes <= SHORT_BYTES) return false;
    this.rest();
    const cut = new AbortController();
    const leave = this.wait(() => cut.abort(exhausted("too many calls wait: the oldest end")));
    try {
      await unlessAborted(AbortSignal.any([signal, cut.signal]), (start) => {
        return this.#longTurns.wait(this.#answerer, () => {
          this.#makingLong = true;
          this.#isLong = true;
          start();
        });
      });
    } finally {
      leave();
    }
    return true;
  }

  /** Resolves when the call may make the next piece of its answer, whose client has read the ones before. @throws `signal.reason` */
  goOn(signal: AbortSignal): Promise<void> {
    return unlessAborted(signal, (start) => this.#turns.goOn(this.#answerer, start));
  }

  /** There is no answer yet: it is the turn of others. */
  rest(): void {
    if (this.#makingLong) {
      this.#makingLong = false;
      this.#longTurns.done();
    }
    if (!this.#making) return;
    this.#making = false;
    this.#turns.done();
  }

  /** An answer, or a message of one, is made and will be sent. */
  made(bytes: number): void {
    if (!this.#ended) {
      this.#unsentBytes += bytes;
      this.#turns.hold(this.#answerer, bytes);
      if (this.#isLong) this.#longTurns.hold(this.#answerer, bytes);
    }
    this.rest();
  }

  /** Notes so many bytes in memory until the call ends, beside those that are made. */
  keep(bytes: number): void {
    if (this.#ended) return;
    this.#keptBytes += bytes;
    this.#turns.keep(this.#answerer, bytes);
  }

  /**
   * Something is in memory until the call ends, for all calls that have the same one.
   * @param long - counts it with the long answers, of which this is one then.
   */
  share(kept: object, bytes: number, long = false): void {
    if (this.#ended) return;
    // From then on its client is one that others wait for.
    if (long) this.#isLong = true;
    this.whenSent((long ? this.#longTurns : this.#turns).share(this.#answerer, kept, bytes));
  }

  /** Calls `action` when the call ends. */
  whenSent(action: () => void): void {
    if (this.#ended) action();
    else this.#whenSent.push(action);
  }

  /** So much of it has been sent. */
  sent(bytes: number): void {
    if (this.#ended) return;
    this.#unsentBytes -= bytes;
    this.#turns.release(this.#answerer, bytes);
    if (this.#isLong) this.#longTurns.release(this.#answerer, bytes);
  }

  /**
   * Takes a place among the calls that wait. Its body was read by then, and counts no more.
   * @param over - is called when it must not wait any longer.
   * @returns gives the place back.
   * @throws {PeeringError} `resource-exhausted`
   */
  wait(over: () => void): () => void {
    this.#giveBodies();
    return this.#limits.takeWait(this.#answerer.source, over);
  }

  /** Room for a part of a body, until the call ends. @throws {HttpRefusal} 429, 503 */
  body(bytes: number, isStranger: boolean): void {
    if (!this.#ended) this.#bodies.push(this.#limits.takeBody(this.#answerer.source, bytes, isStranger));
  }

  get strangerBodyBytes(): number {
    return this.#limits.strangerBodyBytes;
  }

  /** Counts a limit that the call has hit. The kind is a literal, as for {@link Incidents.report}. */
  report(kind: string, message: string, fields: LogFields): void {
    this.#limits.incidents.report(kind, message, { source: this.#answerer.source, ...fields });
  }

  /** The client did not read an answer, or a message of one, in time. */
  readTooSlowly(limitMs: number): void {
    this.report("answer-read-too-slowly", "a client did not read in time what it was answered", { limitMs });
  }

  /** Gives everything back. */
  end(): void {
    this.#giveBodies();
    this.sent(this.#unsentBytes);
    this.keep(-this.#keptBytes);
    this.#ended = true;
    for (const action of this.#whenSent.splice(0)) action();
    this.rest();
  }

  #giveBodies(): void {
    for (const give of this.#bodies.splice(0)) give();
  }
}
