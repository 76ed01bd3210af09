import type { IncomingHttpHeaders, SessionOptions } from "node:http2";

/** Window of a whole connection, in bytes. */
export const WINDOW_BYTES: number = 16 * 1024 * 1024;

/** Windows of an unauthorised connection and of its streams, in bytes: the initial ones of HTTP/2. */
export const UNAUTHORIZED_WINDOW_BYTES: number = 65_535;

/** The largest headers of one call, in bytes, as HTTP/2 counts them: as many as Node takes over HTTP/1.1. */
export const MAX_HEADER_BYTES: number = 16 * 1024;
/** Bytes that an entry of a header list counts beside its texts (RFC 9113, 6.5.2). */
const ENTRY_BYTES = 32;
/** Errors of nghttp2: too many frames that must be answered, and too many of one header list. */
const FLOODS: readonly unknown[] = [-904, -905];

/**
 * Options of node:http2 for both ends. Its own windows of 64 KiB would allow 64 KiB a round trip, and its 10 MB of session
 * memory would refuse streams beside one large message.
 */
export const sessionOptions: SessionOptions = {
  settings: {
    enablePush: false,
    initialWindowSize: 4 * 1024 * 1024,
    maxFrameSize: 64 * 1024,
    maxHeaderListSize: MAX_HEADER_BYTES,
  },
  /** Megabytes. */
  maxSessionMemory: 256,
};

/** The same for one short call: an acceptor has an id to answer. */
export const shortSessionOptions: SessionOptions = {
  settings: { ...sessionOptions.settings, initialWindowSize: UNAUTHORIZED_WINDOW_BYTES },
};

/** Whether a call has more headers than our settings allow: a caller that never acknowledges those is not held to them. */
export function areHeadersTooLarge(headers: IncomingHttpHeaders): boolean {
  let bytes = 0;
  for (const [name, value = ""] of Object.entries(headers)) {
    for (const one of Array.isArray(value) ? value : [value]) bytes += name.length + one.length + ENTRY_BYTES;
  }
  return bytes > MAX_HEADER_BYTES;
}

/** Whether a session has failed because the other side sent more frames than it may. */
export function isFlood(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const tooManyInvalid = "code" in error && error.code === "ERR_HTTP2_TOO_MANY_INVALID_FRAMES";
  return tooManyInvalid || ("errno" in error && FLOODS.includes(error.errno));
}
