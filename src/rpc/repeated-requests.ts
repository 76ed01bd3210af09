import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { RepeatedRequests, UnreadAnswer } from "../http/messages.js";

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
  readonly #begins: () => () => void;
  /** Bytes of a body that are still to come; undefined: where the next request begins is not known any more. */
  #owed: number | undefined = 0;
  /** Of the piece that is being parsed. */
  #begun: IncomingMessage[] = [];
  /** The first request is always parsed: until then Node closes the connection for being silent. */
  #hasParsed = false;
  #isSending = false;
  #unread: UnreadAnswer | undefined;

  /**
   * @param isIdle - whether nothing is under way on it, and requests may be answered.
   * @param begins - is called with each request that is answered here; what it returns is called when that is over.
   */
  constructor(socket: Socket, requests: RepeatedRequests, isIdle: () => boolean, begins: () => () => void) {
    this.#socket = socket;
    this.#requests = requests;
    this.#isIdle = isIdle;
    this.#begins = begins;
    socket.once("close", () => this.#unread?.end());
  }

  /** Whether pieces of an answer are still to be written: nothing else may be until then. */
  get isSending(): boolean {
    return this.#isSending;
  }

  /** Answers what has come, if that is one request which is known. False: it must be parsed. */
  answer(chunk: Buffer): boolean {
    if (this.#owed !== 0 || !this.#hasParsed || this.#isSending || !isShort(chunk) || !this.#isIdle()) return false;
    const socket = this.#socket;
    if (socket.writableLength > 0) return false;
    const pieces = this.#requests.answer(chunk.toString("latin1"), socket);
    if (pieces === undefined) return false;
    this.#send(pieces);
    return true;
  }

  /** Each piece when the system has taken the one before. */
  #send(pieces: readonly Uint8Array[]): void {
    const socket = this.#socket;
    const over = this.#begins();
    let unread: UnreadAnswer | undefined;
    const end = (): void => {
      over();
      unread?.end();
      if (this.#unread === unread) this.#unread = undefined;
      if (!this.#isSending) return;
      this.#isSending = false;
      // Has what came meanwhile be read, also that the client has ended its side.
      socket.pause();
      socket.resume();
    };
    const write = (place: number): void => {
      const piece = pieces[place];
      if (piece === undefined || socket.destroyed) {
        end();
        return;
      }
      let read = (): void => {};
      socket.write(piece, () => {
        read();
        write(place + 1);
      });
      if (socket.writableLength === 0) return;
      unread ??= this.#requests.unread(socket);
      this.#unread = unread;
      read = unread.wait(piece.length);
    };
    this.#isSending = pieces.length > 1;
    write(0);
  }

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
