import type { Socket } from "node:net";
import type { Clock } from "../base/environment.js";
import type { RepeatingConnection } from "./repeated-requests.js";

/** The least that is parsed at a time, unless nothing more has come, and the most. */
const PIECE_BYTES = 1_024;
const MAX_PIECE_BYTES = 4_096;
const END_OF_HEAD = "\r\n\r\n";
/** How long a connection is parsed in one turn of the event loop: a body may come in chunks of one byte. */
const TURN_MS = 1;

/**
 * Has a server of `node:http` parse the bytes of a connection in pieces that end where a request may end, and nothing while
 * the connection is held up. By itself it makes a request of each of the thousands that 64 KiB can hold, which cost a hundred
 * times as much, however little it has answered.
 * @param socket - a socket that the server has just been given.
 * @param isHeldUp - whether requests of this connection wait already.
 * @param repeating - answers requests that need not be parsed.
 */
export function feedInPieces(
  socket: Socket,
  isHeldUp: () => boolean,
  clock: Clock,
  repeating?: Pick<RepeatingConnection, "answer" | "isSending" | "parsed">,
): void {
  const parsers = socket.listeners("data");
  const mayNotParse = (): boolean => isHeldUp() || repeating?.isSending === true;
  let turnIsOver = false;
  const feed = (chunk: Buffer): void => {
    if (repeating?.answer(chunk) === true) return;
    const beganAt = clock.now();
    for (let start = 0; start < chunk.length; ) {
      // It was refused, or the last answer is on its way.
      if (!socket.writable) return;
      if (!turnIsOver && start > 0 && clock.now() - beganAt > TURN_MS) {
        turnIsOver = true;
        setImmediate(() => {
          turnIsOver = false;
          if (!mayNotParse()) socket.resume();
        });
      }
      if (turnIsOver || mayNotParse() || socket.isPaused()) {
        socket.pause();
        socket.unshift(chunk.subarray(start));
        return;
      }
      const most = chunk.subarray(start, start + MAX_PIECE_BYTES);
      const found = most.indexOf(END_OF_HEAD, PIECE_BYTES - END_OF_HEAD.length);
      const piece = found < 0 ? most : most.subarray(0, found + END_OF_HEAD.length);
      for (const parse of parsers) parse.call(socket, piece);
      repeating?.parsed(piece, piece.length === chunk.length);
      start += piece.length;
    }
  };
  const enders = socket.listeners("end");
  let ended = false;
  // Node ends our side of the connection with the client's, and with it the answers to requests that still wait.
  const end = (): void => {
    if (!ended || mayNotParse()) return;
    ended = false;
    for (const ender of enders) ender.call(socket);
  };
  for (const event of ["data", "end"]) socket.removeAllListeners(event);
  socket.on("data", feed);
  socket.on("end", () => {
    ended = true;
    end();
  });
  socket.on("resume", end);
}
