import {
  type ClientHttp2Stream,
  constants,
  type Http2Stream,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import { asPeeringError, PeeringError } from "../base/errors.js";
import { type Status, StatusCode } from "../wire/status.js";
import { encodeFrames, FrameReader } from "./grpc-framing.js";
import { statusError, statusFromHeaders, statusFromHttp, statusFromReset, statusTrailers } from "./grpc-status.js";
import type { ReplicationStream } from "./transport.js";

/** Received and not yet taken: above this the peer is made to wait. A single message may exceed it. */
const RECEIVE_AHEAD_BYTES = 1024 * 1024;
/** Handed to HTTP/2 and not yet written: up to this `send` resolves without waiting for that, so that the wire never runs dry. */
const SEND_AHEAD_BYTES = 512 * 1024;

export interface GrpcStreamOptions {
  readonly remoteAddress: string;
  readonly maxReceiveBytes: number;
  /** Bounds until something was sent. Default: none. */
  readonly untilAuthorized?: UntilAuthorized;
  /** How long `close` waits for a peer that takes nothing any more, in milliseconds. */
  readonly closeGraceMs: number;
  /** Why the connection is gone, or undefined while it stands. */
  readonly connectionFailure: () => PeeringError | undefined;
}

/** Bounds on an unauthorised caller. The first answer to it lifts them. */
export interface UntilAuthorized {
  /** Largest message. */
  readonly maxMessageBytes: number;
  /** Most of all messages together, their framing included. */
  readonly maxBytes: number;
  /** Called when a caller is over a bound. It is not read any further. */
  readonly refused: (error: PeeringError) => void;
  /** Called before the first message is sent. */
  readonly authorized: () => void;
}

/** Messages over one HTTP/2 stream: the common part of both sides of a call. */
abstract class GrpcStream implements ReplicationStream {
  readonly remoteAddress: string;
  protected readonly options: GrpcStreamOptions;
  readonly #stream: Http2Stream;
  readonly #reader: FrameReader;
  /** Undefined once something was sent. */
  #untilAuthorized: UntilAuthorized | undefined;
  #bytesUntilAuthorized = 0;
  #received: Uint8Array[] = [];
  #receivedBytes = 0;
  #receiveEnd: { readonly error?: PeeringError } | undefined;
  #receiver: { resolve(messages: readonly Uint8Array[] | undefined): void; reject(error: unknown): void } | undefined;
  #waking = false;
  #unsentBytes = 0;
  #sendFailure: PeeringError | undefined;
  #senders: { resolve(): void; reject(error: unknown): void }[] = [];
  #closing: Promise<void> | undefined;

  constructor(stream: Http2Stream, options: GrpcStreamOptions) {
    this.#stream = stream;
    this.options = options;
    this.remoteAddress = options.remoteAddress;
    const { maxReceiveBytes, untilAuthorized } = options;
    this.#untilAuthorized = untilAuthorized;
    this.#reader = new FrameReader(Math.min(maxReceiveBytes, untilAuthorized?.maxMessageBytes ?? maxReceiveBytes));
    // The cause of an error is known when the stream closes; without a listener it would end the process.
    stream.on("error", () => {});
    stream.on("data", (chunk: Uint8Array) => this.#take(chunk));
  }

  receive(): Promise<readonly Uint8Array[] | undefined> {
    if (this.#receiver !== undefined) return Promise.reject(new TypeError("receive() is already waiting"));
    return new Promise((resolve, reject) => {
      this.#receiver = { resolve, reject };
      this.#answerReceiver();
    });
  }

  send(messages: readonly Uint8Array[]): Promise<void> {
    const failure = this.#closing === undefined ? this.#sendFailure : closedError();
    if (failure !== undefined) return Promise.reject(failure);
    if (messages.length === 0) return Promise.resolve();
    this.#untilAuthorized?.authorized();
    this.#untilAuthorized = undefined;
    this.startResponse();
    this.#reader.maxBytes = this.options.maxReceiveBytes;
    const buffers = encodeFrames(messages);
    if (buffers.length > 1) this.#stream.cork();
    for (const buffer of buffers) {
      this.#unsentBytes += buffer.length;
      this.#stream.write(buffer, () => this.#written(buffer.length));
    }
    if (buffers.length > 1) this.#stream.uncork();
    return new Promise((resolve, reject) => {
      // A turn of the loop later: meanwhile the peer can work on these messages while more are made.
      if (this.#unsentBytes <= SEND_AHEAD_BYTES) setImmediate(resolve);
      else this.#senders.push({ resolve, reject });
    });
  }

  abstract halfClose(): Promise<void>;

  close(status: Status = { code: StatusCode.Ok, message: "" }): Promise<void> {
    if (this.#closing === undefined) {
      // A receiver that waits is released; messages it did not take are dropped, so that the peer never waits for us.
      this.#received = [];
      this.endReceiving();
      this.#stream.resume();
      this.#closing = this.finish(status).then(() => this.failSending(closedError()));
    }
    return this.#closing;
  }

  /** Sends the response headers if they are still due. */
  protected abstract startResponse(): void;
  /** Ends the stream; resolves when it is over. Never rejects. */
  protected abstract finish(status: Status): Promise<void>;

  /** Nothing more will arrive, for the reason given or because the other side is done. The first call counts. */
  protected endReceiving(error?: PeeringError): void {
    if (this.#receiveEnd !== undefined) return;
    this.#receiveEnd = error === undefined ? {} : { error };
    this.#answerReceiver();
  }

  /** Nothing more can be sent. The first call counts. */
  protected failSending(error: PeeringError): void {
    this.#sendFailure ??= error;
    for (const sender of this.#senders.splice(0)) sender.reject(this.#sendFailure);
  }

  /** The error of a body that ends in the middle of a message; undefined if it does not. */
  protected truncation(): PeeringError | undefined {
    if (!this.#reader.partial) return undefined;
    return new PeeringError("invalid-message", "unexpected EOF", { status: StatusCode.Internal });
  }

  /** Why a stream that closed early did. */
  protected closeReason(): PeeringError {
    return this.options.connectionFailure() ?? statusError(statusFromReset(this.#stream.rstCode));
  }

  /** Resolves once the stream has closed; after the grace it is reset. */
  protected closed(): Promise<void> {
    const stream = this.#stream;
    if (stream.destroyed) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        stream.close(constants.NGHTTP2_CANCEL);
        // A connection that takes nothing more would keep even a reset stream open.
        stream.destroy();
      }, this.options.closeGraceMs);
      timer.unref();
      stream.once("close", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #take(chunk: Uint8Array): void {
    if (this.#receiveEnd !== undefined) return;
    const messages: Uint8Array[] = [];
    try {
      this.#count(chunk.length);
      this.#reader.push(chunk, messages);
    } catch (thrown) {
      const error = asPeeringError(thrown, "invalid-message");
      this.#queue(messages);
      if (error.code === "resource-exhausted") this.#untilAuthorized?.refused(error);
      this.endReceiving(error);
      // Nothing more is read from a peer that sends this; the owner of the stream closes it.
      this.#stream.pause();
      return;
    }
    this.#queue(messages);
  }

  /** @throws {PeeringError} `resource-exhausted`: more than may be said before the stream is authorised. */
  #count(bytes: number): void {
    if (this.#untilAuthorized === undefined) return;
    this.#bytesUntilAuthorized += bytes;
    const { maxBytes } = this.#untilAuthorized;
    if (this.#bytesUntilAuthorized <= maxBytes) return;
    throw new PeeringError("resource-exhausted", `more than ${maxBytes} bytes before the call was authorized`, {
      status: StatusCode.ResourceExhausted,
    });
  }

  #queue(messages: readonly Uint8Array[]): void {
    if (messages.length === 0) return;
    for (const message of messages) {
      this.#received.push(message);
      this.#receivedBytes += message.length;
    }
    if (this.#receivedBytes > RECEIVE_AHEAD_BYTES) this.#stream.pause();
    if (this.#receiver === undefined || this.#waking) return;
    // After everything else that has arrived in this turn of the loop: larger batches, for microseconds.
    this.#waking = true;
    setImmediate(() => {
      this.#waking = false;
      this.#answerReceiver();
    });
  }

  #answerReceiver(): void {
    const receiver = this.#receiver;
    if (receiver === undefined) return;
    if (this.#received.length > 0) {
      const messages = this.#received;
      this.#received = [];
      this.#receivedBytes = 0;
      if (this.#receiveEnd === undefined) this.#stream.resume();
      this.#receiver = undefined;
      receiver.resolve(messages);
    } else if (this.#receiveEnd !== undefined) {
      this.#receiver = undefined;
      if (this.#receiveEnd.error === undefined) receiver.resolve(undefined);
      else receiver.reject(this.#receiveEnd.error);
    }
  }

  #written(bytes: number): void {
    this.#unsentBytes -= bytes;
    if (this.#unsentBytes > SEND_AHEAD_BYTES || this.#stream.destroyed) return;
    for (const sender of this.#senders.splice(0)) sender.resolve();
  }
}

function closedError(): PeeringError {
  return new PeeringError("closed", "the stream is closed", { status: StatusCode.Canceled });
}

/** The dialer's end of a call. */
export class ClientGrpcStream extends GrpcStream {
  readonly #stream: ClientHttp2Stream;
  readonly #cancel: () => void;
  readonly #closeConnection: () => Promise<void>;
  #status: Status | undefined;

  /**
   * @param connection.cancel - aborts the signal the request was made with. Node's own `close` would end our half
   *   first, and so tell the acceptor that all is well.
   * @param connection.close - closes the connection that carries this stream alone.
   */
  constructor(
    stream: ClientHttp2Stream,
    options: GrpcStreamOptions,
    connection: { cancel(): void; close(): Promise<void> },
  ) {
    super(stream, options);
    this.#stream = stream;
    this.#cancel = () => connection.cancel();
    this.#closeConnection = () => connection.close();
    stream.on("response", (headers: IncomingHttpHeaders & { readonly ":status"?: number }) => {
      // A gRPC status says more than the HTTP status beside it.
      this.#status = statusFromHeaders(headers);
      if (this.#status !== undefined) return;
      this.#status = statusFromHttp(headers[":status"] ?? 0, headers["content-type"]);
      // The rest is not gRPC then, and must not be parsed.
      if (this.#status !== undefined) this.#settle();
    });
    stream.on("trailers", (headers: IncomingHttpHeaders) => {
      this.#status ??= statusFromHeaders(headers);
    });
    stream.on("end", () =>
      // Trailers may be reported after the end of the body. A reset ends it as well: the close that follows tells.
      setImmediate(() => {
        if (this.#status !== undefined || !this.#wasReset()) this.#settle();
      }),
    );
    stream.on("close", () => this.#settle());
  }

  override halfClose(): Promise<void> {
    const stream = this.#stream;
    if (stream.destroyed || stream.writableFinished) return Promise.resolve();
    return new Promise((resolve) => {
      stream.once("close", resolve);
      stream.end(resolve);
    });
  }

  protected override startResponse(): void {}

  protected override async finish(): Promise<void> {
    if (!this.#stream.destroyed) this.#cancel();
    await this.#closeConnection();
  }

  #wasReset(): boolean {
    const { aborted, rstCode, readableEnded } = this.#stream;
    return aborted || rstCode !== 0 || !readableEnded || this.options.connectionFailure() !== undefined;
  }

  #settle(): void {
    const status = this.#status;
    if (status === undefined) {
      const message = "server closed the stream without sending trailers";
      const error = this.#wasReset() ? this.closeReason() : statusError({ code: StatusCode.Internal, message });
      this.endReceiving(error);
      this.failSending(error);
    } else if (status.code !== StatusCode.Ok) {
      const error = statusError(status);
      this.endReceiving(error);
      this.failSending(error);
    } else {
      this.endReceiving(this.truncation());
      this.failSending(new PeeringError("stream-ended", "the acceptor has ended the call", { status: StatusCode.Ok }));
    }
  }
}

/** The acceptor's end of a call. */
export class ServerGrpcStream extends GrpcStream {
  readonly #stream: ServerHttp2Stream;
  #trailers: Status = { code: StatusCode.Ok, message: "" };

  constructor(stream: ServerHttp2Stream, options: GrpcStreamOptions) {
    super(stream, options);
    this.#stream = stream;
    stream.on("end", () => {
      // A reset ends the body as well; the close that follows shows its cause.
      if (!stream.aborted && stream.rstCode === 0) this.endReceiving(this.truncation());
    });
    stream.on("close", () => {
      const error = this.closeReason();
      this.endReceiving(error);
      this.failSending(error);
    });
    // Emitted once the body is out; the trailers were set when it was ended.
    stream.on("wantTrailers", () => this.#sendTrailers());
  }

  override halfClose(): Promise<void> {
    return Promise.resolve();
  }

  protected override startResponse(): void {
    if (this.#stream.headersSent || this.#stream.destroyed || this.#stream.closed) return;
    this.#stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  }

  protected override async finish(status: Status): Promise<void> {
    const stream = this.#stream;
    if (stream.destroyed) return;
    const closed = this.closed();
    this.#trailers = status;
    if (stream.headersSent) stream.end();
    else respondTrailersOnly(stream, status);
    await closed;
  }

  #sendTrailers(): void {
    const stream = this.#stream;
    stream.sendTrailers(statusTrailers(this.#trailers));
    endRequest(stream);
  }
}

/** Answers a call that got no message with its status alone. */
export function respondTrailersOnly(stream: ServerHttp2Stream, status: Status, httpStatus = 200): void {
  if (stream.destroyed || stream.closed || stream.headersSent) return;
  stream.respond(
    { ":status": httpStatus, "content-type": "application/grpc", ...statusTrailers(status) },
    { endStream: true },
  );
  endRequest(stream);
}

/** After the answer is complete, tells a client that still sends that its body is not read (RFC 9113, 8.1). */
export function endRequest(stream: ServerHttp2Stream): void {
  stream.resume();
  if (!stream.readableEnded) setImmediate(() => stream.destroyed || stream.close(constants.NGHTTP2_NO_ERROR));
}
