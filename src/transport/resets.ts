import { constants, type Http2Session, type ServerHttp2Stream } from "node:http2";
import type { Clock } from "../base/environment.js";

/** Streams that a client may reset at once, and in a second: fewer than nghttp2 takes, which then neither reads on nor tells. */
const AT_ONCE = 900;
const PER_SECOND = 30;

/**
 * Has a session closed whose client opens streams and resets them, again and again: much work for us, next to none for it.
 * @param close - is called at most once.
 */
export function closeAfterResets(session: Http2Session, clock: Clock, close: () => void): void {
  let left = AT_ONCE;
  let countedAtMs = clock.now();
  const count = ({ rstCode }: ServerHttp2Stream): void => {
    // A stream that we refuse is not reset by the client.
    if (rstCode === constants.NGHTTP2_NO_ERROR || rstCode === constants.NGHTTP2_REFUSED_STREAM) return;
    const now = clock.now();
    left = Math.min(AT_ONCE, left + ((now - countedAtMs) / 1_000) * PER_SECOND) - 1;
    countedAtMs = now;
    if (left >= 0) return;
    session.off("stream", look);
    left = Number.POSITIVE_INFINITY;
    // Node 22 and later end the process when a session is destroyed while it reads: streams that arrive then have no reader.
    setImmediate(close);
  };
  const look = (stream: ServerHttp2Stream): void => {
    // Node may tell of a stream after it was reset.
    if (stream.destroyed) count(stream);
    else stream.once("close", () => count(stream));
  };
  session.on("stream", look);
}
