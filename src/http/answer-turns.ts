/** Whose answers they are. */
export interface Answerer {
  /** As `sourceOf` tells it. */
  readonly source: string;
  /** The connection: one object for each. */
  readonly connection: object;
}

export interface AnswerLimits {
  /** Answers that are being made. */
  readonly atOnce: number;
  /** Bytes of answers that are made, and that the system has not taken yet, from which on no further one is made. */
  readonly unsentPerConnection: number;
  readonly unsentPerSource: number;
  readonly unsentInAll: number;
}

/** What has as many bytes of unsent answers as it may. */
export type Unread = "connection" | "source" | "all";

type Start = () => void;

/** No source has this name. */
const ALL = "all";

/**
 * Says when the next answer may be made: few at once, one in a turn of the event loop, and none for those who have not read
 * what they were answered before. Sources take turns, and so do the connections of one source.
 */
export class AnswerTurns {
  readonly #limits: AnswerLimits;
  readonly #onUnread: (what: Unread, source: string) => void;
  /** By source and by connection. */
  readonly #waiting = new Map<string, Map<object, Set<Start>>>();
  readonly #unsent = new Map<string | object, number>();
  #unsentInAll = 0;
  /** Sources and connections of which it was told that something waits until they have read, and `all`. */
  readonly #told = new Set<string | object>();
  #making = 0;
  /** One was begun in this turn of the event loop, or may be in the next one. */
  #scheduled = false;

  /** @param onUnread - is told when an answer waits because others have not been read: once, until they have. */
  constructor(limits: AnswerLimits, onUnread: (what: Unread, source: string) => void) {
    this.#limits = limits;
    this.#onUnread = onUnread;
  }

  /**
   * Calls `start` when an answer may be made, which may be at once. Then {@link done} must be called.
   * @returns gives up waiting. To be called only as long as it waits.
   */
  wait(answerer: Answerer, start: () => void): () => void {
    if (!this.#scheduled && this.#making < this.#limits.atOnce && !this.#isUnread(answerer)) {
      this.#begin(start);
      return () => {};
    }
    this.#add(answerer, start);
    this.#schedule();
    return () => this.#remove(answerer, start);
  }

  /** The answer is made, or there is none. */
  done(): void {
    this.#making--;
    this.#schedule();
  }

  /** An answer of so many bytes is to be sent. */
  hold({ source, connection }: Answerer, bytes: number): void {
    for (const key of [source, connection]) this.#unsent.set(key, (this.#unsent.get(key) ?? 0) + bytes);
    this.#unsentInAll += bytes;
  }

  /** So many bytes have been sent, or never will be. */
  release({ source, connection }: Answerer, bytes: number): void {
    for (const key of [source, connection]) {
      const left = (this.#unsent.get(key) ?? 0) - bytes;
      if (left > 0) this.#unsent.set(key, left);
      else this.#unsent.delete(key);
      if (left < this.#limitOf(key)) this.#told.delete(key);
    }
    this.#unsentInAll -= bytes;
    if (this.#unsentInAll < this.#limits.unsentInAll) this.#told.delete(ALL);
    this.#schedule();
  }

  /** Whether an answer must wait until others have been read. */
  #isUnread({ source, connection }: Answerer): boolean {
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

  #add({ source, connection }: Answerer, start: Start): void {
    const connections = this.#waiting.get(source) ?? new Map<object, Set<Start>>();
    this.#waiting.set(source, connections);
    connections.set(connection, (connections.get(connection) ?? new Set()).add(start));
  }

  /** Those of the same source and connection that still wait go to the end. */
  #remove({ source, connection }: Answerer, start: Start): void {
    const connections = this.#waiting.get(source);
    const starts = connections?.get(connection);
    if (connections === undefined || starts === undefined) return;
    starts.delete(start);
    connections.delete(connection);
    if (starts.size > 0) connections.set(connection, starts);
    this.#waiting.delete(source);
    if (connections.size > 0) this.#waiting.set(source, connections);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#next();
    });
  }

  #begin(start: Start): void {
    this.#making++;
    this.#schedule();
    start();
  }

  #next(): void {
    if (this.#making >= this.#limits.atOnce) return;
    for (const [source, connections] of this.#waiting) {
      if (this.#isFull(ALL, "all", source)) return;
      if (this.#isFull(source, "source", source)) continue;
      for (const [connection, [start]] of connections) {
        if (start === undefined || this.#isFull(connection, "connection", source)) continue;
        this.#remove({ source, connection }, start);
        this.#begin(start);
        return;
      }
    }
  }
}
