import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { RepeatedRequests } from "../http/messages.js";

/** A longer request is parsed each time. */
const MAX_HEAD_BYTES = 2_048;
const END_OF_HEAD = "\r\n\r\n";
const FIRST_BYTE = "G".charCodeAt(0);

/**
 * One connection of HTTP/1.1, whose requests are answered without being parsed where their bytes are those of requests that have
 * been answered before. It follows where requests begin: only there do the same bytes mean the same.
 */
export class RepeatingConnection {
  readonly #socket: Socket;
  readonly #requests: RepeatedRequests;
  readonly #isIdle: () => boolean;
  readonly #answered: () => void;
  /** Bytes of a body that are still to come; undefined: where the next request begins is not known any more. */
  #owed: number | undefined = 0;
  /** Of the piece that is being parsed. */
  #begun: IncomingMessage[] = [];
  /** The first request is always parsed: until then Node closes the connection for being silent. */
  #hasParsed = false;
  #read = (): void => {};

  /**
   * @param isIdle - whether nothing is under way on it, and requests may be answered.
   * @param answered - is called with each request that is answered here.
   */
  constructor(socket: Socket, requests: RepeatedRequests, isIdle: () => boolean, answered: () => void) {
    this.#socket = socket;
    this.#requests = requests;
    this.#isIdle = isIdle;
    this.#answered = answered;
    socket.once("close", () => this.#read());
  }

  /** Answers what has come, if that is one request which is known. False: it must be parsed. */
  answer(chunk: Buffer): boolean {
    if (this.#owed !== 0 || !this.#hasParsed || !isShort(chunk) || !this.#isIdle()) return false;
    const socket = this.#socket;
    if (socket.writableLength > 0) return false;
    const answer = this.#requests.answer(chunk.toString("latin1"), socket);
    if (answer === undefined) return false;
    this.#answered();
    socket.write(answer, this.#written);
    if (socket.writableLength > 0) this.#read = this.#requests.unread(socket, answer.length);
    return true;
  }

  readonly #written = (): void => {
    this.#read();
    this.#read = () => {};
  };

  /** A request has been parsed. */
  begin(request: IncomingMessage): void {
    this.#begun.push(request);
  }

  /** A piece of what has come was parsed. @param isAll - nothing else had come. */
  parsed(piece: Buffer, isAll: boolean): void {
    const begun = this.#begun;
    if (begun.length > 0) this.#begun = [];
    const owed = this.#owed;
    if (owed === undefined) return;
    const [request] = begun;
    if (owed > 0) {
      this.#owed = request === undefined && piece.length <= owed ? owed - piece.length : undefined;
      return;
    }
    const head = piece.indexOf(END_OF_HEAD) + END_OF_HEAD.length;
    const body = request === undefined || begun.length > 1 ? undefined : bodyOf(request);
    const left = body === undefined ? -1 : head + body - piece.length;
    this.#owed = left < 0 ? undefined : left;
    if (request === undefined || this.#owed === undefined) return;
    this.#hasParsed = true;
    if (isAll && body === 0 && isShort(piece) && isPlain(request))
      this.#requests.note(request, piece.toString("latin1"));
  }
}

function isShort(chunk: Buffer): boolean {
  return chunk.length <= MAX_HEAD_BYTES && chunk[0] === FIRST_BYTE;
}

/** How many bytes follow the head of a request; undefined: that is not known before they come. */
function bodyOf({ headers }: IncomingMessage): number | undefined {
  if (headers["transfer-encoding"] !== undefined || headers.upgrade !== undefined) return undefined;
  const length = Number(headers["content-length"] ?? 0);
  return Number.isSafeInteger(length) ? length : undefined;
}

/** Whether Node says nothing of its own in the answer, and keeps the connection. */
function isPlain({ method, httpVersion, headers }: IncomingMessage): boolean {
  const { connection = "keep-alive", expect } = headers;
  return method === "GET" && httpVersion === "1.1" && connection.toLowerCase() === "keep-alive" && expect === undefined;
}
