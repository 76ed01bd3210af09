import { Alarm } from "../base/alarm.js";
import type { Clock } from "../base/environment.js";

/** One call, and whose answers it gets. */
export interface Answerer {
  /** As `sourceOf` tells it. */
  readonly source: string;
  /** The connection: one object for each. */
  readonly connection: object;
  /** Ends its answer, which its client does not read while others wait for that. */
  readonly cutOff: () => void;
}

export interface AnswerLimits {
  /** Answers that are being made. */
  readonly atOnce: number;
  /** Bytes of answers that are made, and that the system has not taken yet, from which on no further one is made. */
  readonly unsentPerConnection: number;
  readonly unsentPerSource: number;
  readonly unsentInAll: number;
  /** How long a client may take to read a piece of an answer while others wait for that, in milliseconds. */
  readonly slowReaderMs: number;
}

/** The scope that has as many bytes of unsent answers as it may. */
export type Unread = "connection" | "source" | "all";

type Start = () => void;
type ByConnection = Map<object, Set<Start>>;

/** Those of one source that wait. */
interface Waiting {
  /** For an answer. */
  readonly fresh: ByConnection;
  /** For the next piece of one. */
  readonly begun: ByConnection;
  /** Whether the last turn was one of `begun`: they take turns, too. */
  begunLast: boolean;
}

/** No source has this name. */
const ALL = "all";

/**
 * Says when the next answer, or piece of one, may be made: few answers at once, one in a turn of the event loop, and none for those
 * who have not read what they were answered before. Sources take turns, and so do the connections of one source. A client that
 * reads nothing for a while, as others wait for that, is cut off.
 */
export class AnswerTurns {
  readonly #limits: AnswerLimits;
  readonly #onUnread: (what: Unread, source: string) => void;
  readonly #clock: Clock;
  readonly #waiting = new Map<string, Waiting>();
  readonly #unsent = new Map<string | object, number>();
  #unsentInAll = 0;
  /** Clients with bytes that are not sent, and since when; the longest first. */
  readonly #readers = new Map<Answerer, { bytes: number; readonly sinceMs: number }>();
  /** The answerers that share an object in memory, by that object. It counts for the first one. */
  readonly #shared = new Map<object, Set<Answerer>>();
  /** Sources and connections of which it was told that something waits until they have read, and `all`. */
  readonly #told = new Set<string | object>();
  #making = 0;
  /** One was begun in this turn of the event loop, or may be in the next one. */
  #scheduled = false;
  /** Comes when the next reader is too slow. */
  readonly #readerIsSlow: Alarm;

  /** @param onUnread - called when an answer waits because others have not been read: once, until they have. */
  constructor(limits: AnswerLimits, onUnread: (what: Unread, source: string) => void, clock: Clock) {
    this.#limits = limits;
    this.#onUnread = onUnread;
    this.#clock = clock;
    this.#readerIsSlow = new Alarm(clock, () => this.#watchReaders());
  }

  /**
   * Calls `start` when an answer may be made, which may be at once. Then {@link done} must be called.
   * @returns gives up waiting. To be called only as long as it waits.
   */
  wait(answerer: Answerer, start: () => void): () => void {
    if (!this.#scheduled && this.#making < this.#limits.atOnce && !this.#isUnread(answerer)) {
      this.#begin(start, true);
      return () => {};
    }
    return this.#add(answerer, "fresh", start);
  }

  /** Whether a source has read enough of its answers to get another one, on a connection that has read all. */
  hasRead(source: string): boolean {
    const { unsentPerSource, unsentInAll } = this.#limits;
    return this.#unsentInAll < unsentInAll && (this.#unsent.get(source) ?? 0) < unsentPerSource;
  }

  /**
   * Calls `start` when the next piece of an answer may be made, within that call: however much others have not read, for its own
   * client has read the piece before.
   * @returns as {@link wait}.
   */
  goOn(answerer: Answerer, start: () => void): () => void {
    if (this.#scheduled) return this.#add(answerer, "begun", start);
    this.#begin(start, false);
    return () => {};
  }

  /** The answer is made, or there is none. */
  done(): void {
    this.#making--;
    this.#schedule();
  }

  /** An answer, or a piece of one, of so many bytes is to be sent. */
  hold(answerer: Answerer, bytes: number): void {
    const reader = this.#readers.get(answerer);
    if (reader !== undefined) reader.bytes += bytes;
    else this.#readers.set(answerer, { bytes, sinceMs: this.#clock.now() });
    this.#count(answerer.connection, bytes);
    this.keep(answerer, bytes);
  }

  /** So many bytes have been sent, or never will be. */
  release(answerer: Answerer, bytes: number): void {
    const reader = this.#readers.get(answerer);
    this.#readers.delete(answerer);
    if (reader !== undefined && reader.bytes > bytes) {
      this.#readers.set(answerer, { bytes: reader.bytes - bytes, sinceMs: this.#clock.now() });
    }
    this.#count(answerer.connection, -bytes);
    this.keep(answerer, -bytes);
  }

  /** So many bytes more, or less, are in memory for an answer that is being sent. */
  keep({ source }: Answerer, bytes: number): void {
    this.#count(source, bytes);
    this.#unsentInAll += bytes;
    if (this.#unsentInAll < this.#limits.unsentInAll) this.#told.delete(ALL);
    if (bytes < 0) this.#schedule();
  }

  /**
   * Something is in memory for an answer, of which there is one for all answers: it counts once, for one of those.
   * @returns the answer has been sent, or never will be.
   */
  share(answerer: Answerer, kept: object, bytes: number): () => void {
    const sharing = this.#shared.get(kept) ?? new Set<Answerer>();
    this.#shared.set(kept, sharing);
    if (sharing.size === 0) this.keep(answerer, bytes);
    sharing.add(answerer);
    return () => {
      const [charged] = sharing;
      sharing.delete(answerer);
      const [next] = sharing;
      if (next === undefined) this.#shared.delete(kept);
      if (charged !== answerer) return;
      this.keep(answerer, -bytes);
      if (next !== undefined) this.keep(next, bytes);
    };
  }

  #count(key: string | object, bytes: number): void {
    const left = (this.#unsent.get(key) ?? 0) + bytes;
    if (left > 0) this.#unsent.set(key, left);
    else this.#unsent.delete(key);
    if (left < this.#limitOf(key)) this.#told.delete(key);
  }

  /** Whether an answer must wait until others have been read. */
  #isUnread({ source, connection }: Pick<Answerer, "source" | "connection">): boolean {
    return (
      this.#isFull(ALL, "all", source) ||
      this.#isFull(source, "source", source) ||
      this.#isFull(connection, "connection", source)
    );
  }

  #isFull(key: string | object, what: Unread, source: string): boolean {
    const unsent = key === ALL ? this.#unsentInAll : (this.#unsent.get(key) ?? 0);
    if (unsent < this.#limitOf(key)) return false;
    if (!this.#told.has(key)) this.#onUnread(what, source);
    this.#told.add(key);
    return true;
  }

  #limitOf(key: string | object): number {
    if (key === ALL) return this.#limits.unsentInAll;
    return typeof key === "string" ? this.#limits.unsentPerSource : this.#limits.unsentPerConnection;
  }

  #add({ source, connection }: Answerer, kind: "fresh" | "begun", start: Start): () => void {
    const waiting = this.#waiting.get(source) ?? { fresh: new Map(), begun: new Map(), begunLast: false };
    this.#waiting.set(source, waiting);
    const connections: ByConnection = waiting[kind];
    connections.set(connection, (connections.get(connection) ?? new Set()).add(start));
    this.#schedule();
    return () => this.#remove(source, kind, connection, start);
  }

  /** Those of the same source and connection that still wait go to the end. */
  #remove(source: string, kind: "fresh" | "begun", connection: object, start: Start): void {
    const waiting = this.#waiting.get(source);
    const starts = waiting?.[kind].get(connection);
    if (waiting === undefined || starts === undefined) return;
    starts.delete(start);
    waiting[kind].delete(connection);
    if (starts.size > 0) waiting[kind].set(connection, starts);
    this.#waiting.delete(source);
    if (waiting.fresh.size + waiting.begun.size > 0) this.#waiting.set(source, waiting);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#next();
    });
  }

  #begin(start: Start, fresh: boolean): void {
    if (fresh) this.#making++;
    this.#schedule();
    start();
  }

  #next(): void {
    let held = false;
    for (const [source, waiting] of this.#waiting) {
      for (const kind of waiting.begunLast ? (["fresh", "begun"] as const) : (["begun", "fresh"] as const)) {
        const isFresh = kind === "fresh";
        if (isFresh && this.#making >= this.#limits.atOnce) continue;
        const found = this.#first(source, waiting[kind], isFresh);
        held ||= found === "unread";
        if (found === undefined || found === "unread") continue;
        waiting.begunLast = !isFresh;
        this.#remove(source, kind, found.connection, found.start);
        this.#begin(found.start, isFresh);
        if (held) this.#watchReaders();
        return;
      }
    }
    if (held) this.#watchReaders();
  }

  /** @returns `unread`: there are some, and others must be read before. */
  #first(
    source: string,
    connections: ByConnection,
    isFresh: boolean,
  ): { readonly connection: object; readonly start: Start } | "unread" | undefined {
    let held = false;
    for (const [connection, [start]] of connections) {
      if (start === undefined) continue;
      if (!isFresh) return { connection, start };
      if (this.#isFull(ALL, "all", source) || this.#isFull(source, "source", source)) return "unread";
      if (!this.#isFull(connection, "connection", source)) return { connection, start };
      held = true;
    }
    return held ? "unread" : undefined;
  }

  /** Cuts off the client, among those that others wait for, that has read nothing for the longest time, as soon as that is too long. */
  #watchReaders(): void {
    if (this.#readerIsSlow.isSet) return;
    const waitedFor = this.#waitedFor();
    if (waitedFor.size === 0) return;
    for (const [answerer, { sinceMs }] of this.#readers) {
      if (!waitedFor.has(answerer.source) && !waitedFor.has(answerer.connection)) continue;
      const leftMs = sinceMs + this.#limits.slowReaderMs - this.#clock.now();
      if (leftMs <= 0) {
        // Its bytes are released when it has ended; the next slow client is looked for then.
        this.#readers.delete(answerer);
        answerer.cutOff();
        return;
      }
      this.#readerIsSlow.set(leftMs);
      return;
    }
  }

  /** The sources and connections that must read before others are answered; of all sources, where all have to, the one with most. */
  #waitedFor(): ReadonlySet<string | object> {
    const keys = new Set<string | object>();
    for (const [source, { fresh }] of this.#waiting) {
      if (fresh.size > 0 && this.#isFull(ALL, "all", source)) keys.add(this.#mostUnread());
      if (fresh.size > 0 && this.#isFull(source, "source", source)) keys.add(source);
      for (const connection of fresh.keys()) if (this.#isFull(connection, "connection", source)) keys.add(connection);
    }
    return keys;
  }

  #mostUnread(): string {
    let most = "";
    for (const { source } of this.#readers.keys()) {
      if ((this.#unsent.get(source) ?? 0) > (this.#unsent.get(most) ?? 0)) most = source;
    }
    return most;
  }
}
