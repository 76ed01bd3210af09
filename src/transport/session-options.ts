import type { SessionOptions } from "node:http2";

/** Window of a whole connection, in bytes. */
export const WINDOW_BYTES: number = 16 * 1024 * 1024;

/**
 * What both ends tell node:http2. Its own windows of 64 KiB would allow 64 KiB a round trip, and its 10 MB of session
 * memory would refuse streams beside one large message.
 */
export const sessionOptions: SessionOptions = {
  settings: {
    enablePush: false,
    initialWindowSize: 4 * 1024 * 1024,
    maxFrameSize: 64 * 1024,
  },
  /** Megabytes. */
  maxSessionMemory: 256,
};
