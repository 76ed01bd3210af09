import { setImmediate } from "node:timers/promises";
import { Alarm } from "../base/alarm.js";
import type { Clock } from "../base/environment.js";
import { asPeeringError, type PeeringError } from "../base/errors.js";
import type { Session, SessionInput, SessionOutput } from "../replication/types.js";
import type { ReplicationStream } from "../transport/transport.js";
import { decodeMessage, defaultEnvelopeLimits, type EnvelopeLimits, encodeMessages } from "../wire/codec.js";
import type { ReplicationMessage } from "../wire/messages.js";
import type { Status } from "../wire/status.js";

/** About this much is handed to the transport at a time; small enough that a heartbeat never waits long behind it. */
const WRITE_BYTES = 64 * 1024;

/** Messages, and about how many bytes of them, that are taken in before others get a turn. */
const TAKEN_BATCH = 150;
const TAKEN_BYTES = 128 * 1024;

/** How long the last words of a stream may wait for a writer that is not getting on. */
const FLUSH_MS = 1_000;

/** Bounds on the messages taken from a stream (D-56). Consul has none. */
export interface ReceiveLimits extends EnvelopeLimits {
  /**
   * Resources that are received and not stored yet. Beyond, nothing more is read of the stream until half of them are, so
   * that the peer waits and no memory grows. Default 20 000.
   */
  readonly unstoredResources: number;
  /** The same in bytes of them. A single message may exceed it. Default 16 MiB. */
  readonly unstoredBytes: number;
}

export const defaultReceiveLimits: ReceiveLimits = {
  ...defaultEnvelopeLimits,
  unstoredResources: 20_000,
  unstoredBytes: 16 * 1024 * 1024,
};

/** Outputs that a link cannot perform itself: they touch records, storage or status. */
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
  readonly limits?: ReceiveLimits;
  /** Performs an effect; its result returns through {@link StreamLink.feed}. Must not throw. */
  readonly perform: (effect: LinkEffect) => void;
  /** Called after each input, to mirror the session's status. */
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
  readonly #limits: ReceiveLimits;
  readonly #perform: (effect: LinkEffect) => void;
  readonly #onProgress: (() => void) | undefined;
  #unsent: ReplicationMessage[] = [];
  #writing = false;
  #writer: Promise<void> = Promise.resolve();
  #halfCloseWanted = false;
  readonly #deadline: Alarm;
  #deadlineMs = Number.POSITIVE_INFINITY;
  /** Lets a reader go on that waits until enough is stored. */
  #readOn: (() => void) | undefined;
  #end: LinkEnd | undefined;
  readonly #ended: Promise<LinkEnd>;
  #resolveEnded: (end: LinkEnd) => void = () => {};

  constructor(options: StreamLinkOptions) {
    this.#stream = options.stream;
    this.#session = options.session;
    this.#clock = options.clock;
    this.#deadline = new Alarm(options.clock, () => {
      this.#deadlineMs = Number.POSITIVE_INFINITY;
      this.feed({ type: "tick" });
    });
    this.#limits = options.limits ?? defaultReceiveLimits;
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

  /** Resolves once the stream is closed and released. */
  get ended(): Promise<LinkEnd> {
    return this.#ended;
  }

  /** Starts the session and serves the stream until its end. Never rejects. */
  run(): Promise<LinkEnd> {
    this.feed({ type: "start" });
    void this.#read();
    return this.#ended;
  }

  /** Gives the session an input and performs its outputs. Ignored after the end. */
  feed(input: SessionInput): void {
    if (this.#end !== undefined) return;
    for (const output of this.#session.handle(input, this.#clock.now())) this.#handle(output);
    if (this.#readOn !== undefined && !this.#hasMuchToStore(0.5)) this.#readOn();
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
        for (let next = this.#receive(batch, 0); next < batch.length; next = this.#receive(batch, next)) {
          await setImmediate();
          if (this.#hasMuchToStore(1)) await this.#untilStored();
          if (this.#isClosed()) return;
        }
        if (this.#hasMuchToStore(1)) await this.#untilStored();
      }
    } catch (error) {
      this.feed({ type: "receive-ended", error: asPeeringError(error, "unavailable") });
    }
  }

  /** Takes as many messages of `batch` as it may from `first` on, and returns where the rest begins. */
  #receive(batch: readonly Uint8Array[], first: number): number {
    const messages: ReplicationMessage[] = [];
    let undecodable: PeeringError | undefined;
    let next = first;
    for (let bytes = 0; next - first < TAKEN_BATCH && bytes < TAKEN_BYTES; ) {
      const message = batch[next];
      if (message === undefined) break;
      try {
        messages.push(decodeMessage(message, this.#limits));
      } catch (error) {
        undecodable = asPeeringError(error, "invalid-message");
        next = batch.length;
        break;
      }
      bytes += message.length;
      next++;
    }
    if (messages.length > 0) this.feed({ type: "received", messages });
    if (undecodable !== undefined) this.feed({ type: "undecodable", error: undecodable });
    return next;
  }

  /** Whether more than this part of the limits is received and not stored yet. */
  #hasMuchToStore(part: number): boolean {
    if (this.#end !== undefined) return false;
    const { applying, applyingBytes } = this.#session.status;
    const { unstoredResources, unstoredBytes } = this.#limits;
    return applying > unstoredResources * part || applyingBytes > unstoredBytes * part;
  }

  /** Storing needs nothing of the peer, so this comes to an end; and a storage that hangs is left to the watchdogs. */
  #untilStored(): Promise<void> {
    return new Promise((resolve) => {
      this.#readOn = () => {
        this.#readOn = undefined;
        resolve();
      };
    });
  }

  /** Through a call, because the compiler takes a field for unchanged across calls of methods. */
  #isClosed(): boolean {
    return this.#end !== undefined;
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
    if (due === undefined || due >= this.#deadlineMs) return;
    this.#deadlineMs = due;
    this.#deadline.set(Math.max(0, due - this.#clock.now()));
  }

  #close(end: LinkEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#readOn?.();
    this.#deadline.cancel();
    const rest = this.#unsent;
    this.#unsent = [];
    void this.#finish(rest, end.status).then(
      () => this.#resolveEnded(end),
      () => this.#resolveEnded(end),
    );
  }

  /** Messages that the peer must still read, such as `Terminated` or a last NACK, go ahead of the end: if it reads at all. */
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
