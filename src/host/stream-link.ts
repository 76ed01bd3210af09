import type { Clock, Timer } from "../environment.js";
import { asPeeringError, type PeeringError } from "../errors.js";
import type { Session, SessionInput, SessionOutput } from "../replication/types.js";
import type { ReplicationStream } from "../transport/transport.js";
import { decodeMessage, encodeMessages } from "../wire/codec.js";
import type { ReplicationMessage } from "../wire/messages.js";
import type { Status } from "../wire/status.js";

/** About this much is handed to the transport at a time; small enough that a heartbeat never waits long behind it. */
const WRITE_BYTES = 64 * 1024;

/** How long the last words of a stream may wait for a writer that is not getting on. */
const FLUSH_MS = 1_000;

/** What a link cannot do itself: outputs that touch records, storage or status. */
export type LinkEffect = Exclude<
  SessionOutput,
  { readonly type: "send" } | { readonly type: "half-close" } | { readonly type: "close" }
>;

/** How a stream ended. `error` is absent for a graceful end. */
export interface LinkEnd {
  readonly status: Status;
  readonly error: PeeringError | undefined;
}

export interface StreamLinkOptions {
  readonly stream: ReplicationStream;
  readonly session: Session;
  readonly clock: Clock;
  /** Performs an effect; what comes of it returns through {@link StreamLink.feed}. Must not throw. */
  readonly perform: (effect: LinkEffect) => void;
  /** Called after each input, for whoever mirrors the session's status. */
  readonly onProgress?: () => void;
}

/**
 * Runs one session over one stream: a reader, a writer and a timer that never wait for each other. Everything the
 * protocol decides is in the session; here is only what performs it.
 */
export class StreamLink {
  readonly #stream: ReplicationStream;
  readonly #session: Session;
  readonly #clock: Clock;
  readonly #perform: (effect: LinkEffect) => void;
  readonly #onProgress: (() => void) | undefined;
  #unsent: ReplicationMessage[] = [];
  #writing = false;
  #writer: Promise<void> = Promise.resolve();
  #halfCloseWanted = false;
  #timer: Timer | undefined;
  #timerDueMs = Number.POSITIVE_INFINITY;
  #end: LinkEnd | undefined;
  readonly #ended: Promise<LinkEnd>;
  #resolveEnded: (end: LinkEnd) => void = () => {};

  constructor(options: StreamLinkOptions) {
    this.#stream = options.stream;
    this.#session = options.session;
    this.#clock = options.clock;
    this.#perform = options.perform;
    this.#onProgress = options.onProgress;
    this.#ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  get session(): Session {
    return this.#session;
  }

  /** Whether the stream is at its end: nothing that is fed has an effect any more. */
  get closed(): boolean {
    return this.#end !== undefined;
  }

  /** Resolves once the stream is closed and let go of. */
  get ended(): Promise<LinkEnd> {
    return this.#ended;
  }

  /** Starts the session and serves the stream until its end. Never rejects. */
  run(): Promise<LinkEnd> {
    this.feed({ type: "start" });
    void this.#read();
    return this.#ended;
  }

  /** Gives the session an input and performs what comes out of it. Ignored after the end. */
  feed(input: SessionInput): void {
    if (this.#end !== undefined) return;
    for (const output of this.#session.handle(input, this.#clock.now())) this.#handle(output);
    if (this.#end !== undefined) return;
    this.#schedule();
    this.#write();
    this.#onProgress?.();
  }

  #handle(output: SessionOutput): void {
    switch (output.type) {
      case "send":
        this.#unsent.push(output.message);
        break;
      case "half-close":
        this.#halfCloseWanted = true;
        break;
      case "close":
        this.#close({ status: output.status, error: output.error });
        break;
      default:
        this.#perform(output);
    }
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        const batch = await this.#stream.receive();
        if (this.#end !== undefined) return;
        if (batch === undefined) {
          this.feed({ type: "receive-ended" });
          return;
        }
        this.#receive(batch);
      }
    } catch (error) {
      this.feed({ type: "receive-ended", error: asPeeringError(error, "unavailable") });
    }
  }

  #receive(batch: readonly Uint8Array[]): void {
    const messages: ReplicationMessage[] = [];
    let undecodable: PeeringError | undefined;
    for (const bytes of batch) {
      try {
        messages.push(decodeMessage(bytes));
      } catch (error) {
        undecodable = asPeeringError(error, "invalid-message");
        break;
      }
    }
    if (messages.length > 0) this.feed({ type: "received", messages });
    if (undecodable !== undefined) this.feed({ type: "undecodable", error: undecodable });
  }

  #write(): void {
    if (this.#writing || this.#end !== undefined) return;
    if (this.#unsent.length === 0 && !this.#session.wantsToSend && !this.#halfCloseWanted) return;
    this.#writing = true;
    const writer = this.#writeAll();
    this.#writer = writer.catch(() => {});
    void writer.then(
      () => {
        this.#writing = false;
        // Something may have been queued between the last look and now.
        this.#write();
      },
      (error: unknown) => {
        this.#writing = false;
        this.feed({ type: "receive-ended", error: asPeeringError(error, "unavailable") });
      },
    );
  }

  async #writeAll(): Promise<void> {
    while (this.#end === undefined) {
      if (this.#unsent.length === 0 && this.#session.wantsToSend) this.#takeFromSession();
      if (this.#unsent.length > 0) {
        const batch = this.#unsent;
        this.#unsent = [];
        await this.#stream.send(encodeMessages(batch));
      } else if (this.#halfCloseWanted) {
        this.#halfCloseWanted = false;
        await this.#stream.halfClose();
      } else {
        return;
      }
    }
  }

  #takeFromSession(): void {
    for (const output of this.#session.handle({ type: "writable", bytes: WRITE_BYTES }, this.#clock.now())) {
      this.#handle(output);
    }
    if (this.#end === undefined) this.#schedule();
  }

  #schedule(): void {
    const due = this.#session.deadlineMs;
    // A later deadline is found out when the earlier timer fires: cheaper than to move the timer at every message.
    if (due === undefined || due >= this.#timerDueMs) return;
    this.#timer?.cancel();
    this.#timerDueMs = due;
    this.#timer = this.#clock.after(Math.max(0, due - this.#clock.now()), () => {
      this.#timerDueMs = Number.POSITIVE_INFINITY;
      this.feed({ type: "tick" });
    });
  }

  #close(end: LinkEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#timer?.cancel();
    const rest = this.#unsent;
    this.#unsent = [];
    void this.#finish(rest, end.status).then(
      () => this.#resolveEnded(end),
      () => this.#resolveEnded(end),
    );
  }

  /** What the peer must still read, such as `Terminated` or a last NACK, goes ahead of the end: if it reads at all. */
  async #finish(rest: readonly ReplicationMessage[], status: Status): Promise<void> {
    if (rest.length > 0) {
      const flushed = this.#writer.then(() => this.#stream.send(encodeMessages(rest)));
      await Promise.race([
        flushed.catch(() => {}),
        new Promise<void>((resolve) => {
          const timer = this.#clock.after(FLUSH_MS, resolve);
          void flushed.then(
            () => timer.cancel(),
            () => timer.cancel(),
          );
        }),
      ]);
    }
    await this.#stream.close(status);
  }
}
