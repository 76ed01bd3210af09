import type { IncomingHttpHeaders, OutgoingHttpHeaders } from "node:http";
import type { Socket } from "node:net";
import type { Readable, Writable } from "node:stream";

/** A request of `node:http`, or of the similar interface of `node:http2`. */
export interface HttpRequest extends Readable {
  readonly headers: IncomingHttpHeaders;
  /** Names and values in turn, as they came. */
  readonly rawHeaders: readonly string[];
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  readonly httpVersion: string;
  /** All of it has come. */
  readonly complete: boolean;
  readonly socket: Socket;
}

/** An answer of `node:http`, or of the similar interface of `node:http2`. */
export interface HttpResponse extends Writable {
  setHeader(name: string, value: string): unknown;
  writeHead(status: number, headers: OutgoingHttpHeaders): unknown;
  /** Absent where `writeHead` sends them at once, as with HTTP/2. */
  flushHeaders?(): void;
  addTrailers(trailers: OutgoingHttpHeaders): void;
}

/** A listener for servers of `node:http`, and for those of `node:http2`. */
export interface HttpListener {
  (request: HttpRequest, response: HttpResponse): void;
  /** @internal Knows answers by the bytes of their requests. Absent: each request must be handed to the listener. */
  readonly repeater?: Repeater;
}

/** Has answers that hold for requests of the same bytes. */
export interface Repeater {
  /** Those of one server. @param keepAliveMs - how long it keeps a connection on which nothing is asked. */
  requests(server: { readonly keepAliveMs: number }): RepeatedRequests;
}

/** The requests of one server over HTTP/1.1, whose bodies are empty, and whose connections stay open. */
export interface RepeatedRequests {
  /** These are the bytes of a request that the listener is answering. */
  note(request: HttpRequest, head: string): void;
  /**
   * The whole answer to a request of these bytes, as of now, in pieces that are to be written one after another; undefined: it must be
   * handed to the listener.
   */
  answer(head: string, socket: Socket): readonly Uint8Array[] | undefined;
  /** The client of a connection has not read a piece of an answer at once. It is cut off where it does not read all in time. */
  unread(socket: Socket): UnreadAnswer;
}

/** An answer of which not all is read. */
export interface UnreadAnswer {
  /** The system has not taken so many bytes yet. @returns it has taken them. */
  wait(bytes: number): () => void;
  /** All has been taken, or the connection is closed. */
  end(): void;
}
