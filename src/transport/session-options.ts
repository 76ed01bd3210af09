import type { SessionOptions } from "node:http2";

/** Window of a whole connection, in bytes. */
export const WINDOW_BYTES: number = 16 * 1024 * 1024;

/** Windows of a connection and of its streams while nobody is authorised on it, in bytes: those that HTTP/2 begins with. */
export const UNAUTHORIZED_WINDOW_BYTES: number = 65_535;

/**
 * What both ends tell node:http2. Its own windows of 64 KiB would allow 64 KiB a round trip, and its 10 MB of session
 * memory would refuse streams beside one large message.
 */
export const sessionOptions: SessionOptions = {
  settings: {
    enablePush: false,
    initialWindowSize: 4 * 1024 * 1024,
    maxFrameSize: 64 * 1024,
    // Of the headers of one call. They are a few hundred bytes.
    maxHeaderListSize: 16 * 1024,
  },
  /** Megabytes. */
  maxSessionMemory: 256,
};

/** The same for one short call: an acceptor has an id to answer. */
export const shortSessionOptions: SessionOptions = {
  settings: { ...sessionOptions.settings, initialWindowSize: UNAUTHORIZED_WINDOW_BYTES },
};
