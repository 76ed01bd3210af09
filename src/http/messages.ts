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
export type HttpListener = (request: HttpRequest, response: HttpResponse) => void;
