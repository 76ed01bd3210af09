import { type Clock, sleep } from "../../base/environment.js";
import { asPeeringError, PeeringError } from "../../base/errors.js";
import { Signal } from "../../base/signal.js";
import type { ReplicationStream } from "../../transport/transport.js";
import { decodeMessage, encodeMessages } from "../../wire/codec.js";
import { Operation, type ReplicationMessage, type ResponseMessage } from "../../wire/messages.js";
import { type Status, StatusCode } from "../../wire/status.js";
import type { Behaviour } from "./behaviour.js";

/** One message, as the two sides of a stream exchanged it. */
export interface TranscriptEntry {
  /** `peer` is the fake one, `host` the host under test. */
  readonly from: "peer" | "host";
  readonly message: ReplicationMessage;
  /** On the clock of the fake peer, in milliseconds. */
  readonly atMs: number;
}

/** How a stream ended: with an error, or as the protocol says. */
export interface FakeStreamEnd {
  readonly error: PeeringError | undefined;
}

/** @internal */
export interface FakeStreamParts {
  readonly stream: ReplicationStream;
  readonly role: "acceptor" | "dialer";
  readonly clock: Clock;
  readonly behaviour: () => Behaviour;
  /** Aborted when the behaviour changes; a new one each time. */
  readonly untilChange: () => AbortSignal;
  readonly onExchanged: (from: "peer" | "host", message: ReplicationMessage) => void;
  /** Something was sent, arrived or ended. */
  readonly onEvent: () => void;
}

/** Messages of one `send` of a flood. */
const FLOOD_BATCH = 64;

/** One stream of a fake peer, as its script sees it. */
export class FakeStream implements AsyncIterable<ReplicationMessage> {
  /** The role of the fake peer on this stream. */
  readonly role: "acceptor" | "dialer";
  /** Everything that was exchanged, in order. It can be played again: see `recordedScript`. */
  readonly transcript: TranscriptEntry[] = [];
  readonly #parts: FakeStreamParts;
  readonly #unread: ReplicationMessage[] = [];
  /** A message or the end has come. */
  readonly #changed = new Signal();
  #end: FakeStreamEnd | undefined;
  #opened = false;
  #closed = false;
  #nonces = 0;
  #writer: Promise<void> = Promise.resolve();

  /** @internal */
  constructor(parts: FakeStreamParts) {
    this.#parts = parts;
    this.role = parts.role;
    void this.#read();
  }

  /** Undefined while the stream stands, as far as this side has noticed: a peer that does not read learns of nothing. */
  get end(): FakeStreamEnd | undefined {
    return this.#end;
  }

  /** Whether its script has opened it: said or judged the `Open`. */
  get opened(): boolean {
    return this.#opened;
  }

  /** Said by a script once the stream is open. */
  markOpened(): void {
    this.#opened = true;
    this.#parts.onEvent();
  }

  /** The host's messages so far. */
  get heard(): readonly ReplicationMessage[] {
    return this.transcript.flatMap(({ from, message }) => (from === "host" ? [message] : []));
  }

  /** A response with the next nonce of this stream, for {@link send}. */
  response(resourceUrl: string, resourceId: string, value: Uint8Array): ResponseMessage {
    this.#nonces += 1;
    return {
      type: "response",
      nonce: this.#nonces.toString(16).padStart(8, "0"),
      resourceUrl,
      resourceId,
      operation: Operation.Upsert,
      resource: { typeUrl: resourceUrl, value },
    };
  }

  /** Sends this, after earlier messages. Resolves once the transport took it: to false where it never will. */
  send(...messages: readonly ReplicationMessage[]): Promise<boolean> {
    return this.sendBytes(...encodeMessages(messages));
  }

  /** As {@link send}, with what need not be a message. */
  sendBytes(...encodings: readonly Uint8Array[]): Promise<boolean> {
    const written = this.#writer.then(() => this.#write(encodings));
    this.#writer = written.then(() => {});
    return written;
  }

  /**
   * Says `count` messages as fast as they are taken, and returns how many were: fewer when the stream ended. Others get
   * their turn after every few of them.
   */
  async flood(count: number, message: (index: number) => ReplicationMessage): Promise<number> {
    for (let sent = 0; sent < count; sent += FLOOD_BATCH) {
      const size = Math.min(FLOOD_BATCH, count - sent);
      const batch = Array.from({ length: size }, (_, index) => message(sent + index));
      if (!(await this.send(...batch))) return sent;
      await new Promise((resolve) => setImmediate(resolve));
    }
    return count;
  }

  /** The next unread message; undefined at the end of the stream. */
  async next(): Promise<ReplicationMessage | undefined> {
    while (this.#unread.length === 0) {
      if (this.#end !== undefined) return undefined;
      await this.#changed.next();
    }
    return this.#unread.shift();
  }

  /**
   * The next message of this type that fits. Others before it are passed over.
   * @throws {PeeringError} `stream-ended`: none came.
   */
  async expect<Type extends ReplicationMessage["type"]>(
    type: Type,
    fits: (message: Extract<ReplicationMessage, { readonly type: Type }>) => boolean = () => true,
  ): Promise<Extract<ReplicationMessage, { readonly type: Type }>> {
    for await (const message of this) {
      if (isOfType(message, type) && fits(message)) return message;
    }
    throw new PeeringError("stream-ended", `the stream ended before the ${type} that was expected`, {
      cause: this.#end?.error,
    });
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ReplicationMessage, void, undefined> {
    for (let message = await this.next(); message !== undefined; message = await this.next()) yield message;
  }

  /** Ends this side after earlier messages: a dialer half-closes, an acceptor ends the call with `status`. */
  async finish(status: Status = { code: StatusCode.Ok, message: "" }): Promise<void> {
    await this.#writer;
    if (this.role === "dialer") await this.#parts.stream.halfClose();
    else await this.close(status);
  }

  /** Ends the stream at once, whatever still waits to be said. Without a status it is lost: UNAVAILABLE, or a cancelled call. */
  async close(status: Status = { code: StatusCode.Unavailable, message: "transport is closing" }): Promise<void> {
    this.#closed = true;
    this.#finished({ error: undefined });
    await this.#parts.stream.close(status);
  }

  async #read(): Promise<void> {
    const { stream } = this.#parts;
    try {
      for (;;) {
        await this.#whileNotReading();
        const batch = await stream.receive();
        if (batch === undefined) break;
        for (const bytes of batch) {
          await this.#whileNotReading();
          await this.#pace(bytes.length);
          if (this.#closed) return;
          this.#heard(decodeMessage(bytes));
        }
      }
      this.#finished({ error: undefined });
    } catch (error) {
      this.#finished({ error: asPeeringError(error, "invalid-message") });
    }
  }

  #heard(message: ReplicationMessage): void {
    this.#note("host", message);
    this.#unread.push(message);
    this.#changed.emit();
  }

  #note(from: "peer" | "host", message: ReplicationMessage): void {
    this.transcript.push({ from, message, atMs: this.#parts.clock.now() });
    this.#parts.onExchanged(from, message);
    this.#parts.onEvent();
  }

  #finished(end: FakeStreamEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#changed.emit();
    this.#parts.onEvent();
  }

  async #write(encodings: readonly Uint8Array[]): Promise<boolean> {
    const { stream, behaviour } = this.#parts;
    let waiting: Uint8Array[] = [];
    const flush = async (): Promise<void> => {
      const batch = waiting;
      waiting = [];
      if (batch.length === 0) return;
      for (const bytes of batch) this.#note("peer", decodedOrUnknown(bytes));
      await stream.send(batch);
    };
    try {
      for (const bytes of encodings) {
        if (this.#closed) return false;
        if (isPaced(behaviour())) {
          await flush();
          await this.#pace(bytes.length);
        }
        // Lost on the way: the sender cannot tell.
        if (behaviour().sends) waiting.push(bytes);
      }
      await flush();
      return true;
    } catch {
      return false;
    }
  }

  async #whileNotReading(): Promise<void> {
    while (!this.#parts.behaviour().reads && !this.#closed) await changed(this.#parts.untilChange());
  }

  /** Waits as long as a message of this size takes at the present pace; cut short when the behaviour changes. */
  async #pace(bytes: number): Promise<void> {
    const { behaviour, clock, untilChange } = this.#parts;
    const { delayMs, bytesPerSecond } = behaviour();
    const waitMs = delayMs + (bytes * 1_000) / bytesPerSecond;
    if (waitMs > 0) await sleep(clock, waitMs, untilChange()).catch(() => {});
  }
}

function isPaced({ delayMs, bytesPerSecond }: Behaviour): boolean {
  return delayMs > 0 || bytesPerSecond < Number.POSITIVE_INFINITY;
}

function changed(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function isOfType<Type extends ReplicationMessage["type"]>(
  message: ReplicationMessage,
  type: Type,
): message is Extract<ReplicationMessage, { readonly type: Type }> {
  return message.type === type;
}

function decodedOrUnknown(bytes: Uint8Array): ReplicationMessage {
  try {
    return decodeMessage(bytes);
  } catch {
    return { type: "unknown" };
  }
}
