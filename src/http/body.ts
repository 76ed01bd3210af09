import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import type { Clock } from "../base/environment.js";
import type { CallAllowance } from "./call-limits.js";
import { HttpRefusal } from "./http-refusal.js";

/** The size of bodies that a client may send, and the time that it may take. */
export interface BodyLimits {
  readonly maxBytes: number;
  readonly timeoutMs: number;
}

/** The sender of a body. */
export interface BodySender {
  readonly allowance: CallAllowance;
  /** @throws the refusal of a caller that is unknown, or may write nothing. */
  requireWrite(): Promise<void>;
}

/** A request of `node:http`, or of the like interface of `node:http2`. */
export interface RequestWithBody extends Readable {
  readonly headers: IncomingHttpHeaders;
}

/** How much room is made for a body of which nothing is known. */
const FIRST_BYTES = 1_024;

/** The length of a body as its head tells it; undefined where it does not. */
export function announcedLength({ headers }: RequestWithBody): number | undefined {
  const length = headers["content-length"];
  return length === undefined ? undefined : Number(length);
}

/**
 * The body of a request. A caller without any right to write has a short one read, too, so that it is told its mistakes.
 * @throws {HttpRefusal} 413 when it is too long, 408 when it comes too slowly, 429 or 503 when too many bodies are being received,
 *   400 when the client goes away in the middle.
 * @throws as {@link BodySender.requireWrite} when it is too long for such a caller.
 */
export async function readBody(
  request: RequestWithBody,
  limits: BodyLimits,
  sender: BodySender,
  clock: Clock,
): Promise<Buffer> {
  const { allowance } = sender;
  const announced = announcedLength(request);
  const tooLarge = (): HttpRefusal => {
    allowance.report("body-too-large", "a body is longer than a body may be", { limit: limits.maxBytes });
    return new HttpRefusal(413, `Request body too large, max size: ${limits.maxBytes} bytes.`);
  };
  if (announced !== undefined && announced > limits.maxBytes) throw tooLarge();
  const stranger = await sender.requireWrite().then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  const isStranger = stranger !== undefined;
  const maxBytes = isStranger ? Math.min(limits.maxBytes, allowance.strangerBodyBytes) : limits.maxBytes;
  const tooLong = (): unknown => {
    if (!isStranger || maxBytes === limits.maxBytes) return tooLarge();
    const message = "a body is longer than one may be whose sender may write nothing";
    allowance.report("body-of-stranger-too-large", message, { limit: maxBytes });
    return stranger.error;
  };
  if (announced !== undefined && announced > maxBytes) throw tooLong();
  if (request.destroyed) throw endedEarly();
  // All that was announced at once: where not all find room, some of them come to their end.
  if (announced !== undefined) allowance.body(announced, isStranger);
  return new Promise((resolve, reject) => {
    // One piece of memory, for a client may send each byte by itself.
    let body = Buffer.alloc(0);
    let length = 0;
    const makeRoom = (): void => {
      const room = Math.min(Math.max(length, 2 * body.length, FIRST_BYTES), announced ?? maxBytes);
      if (announced === undefined) allowance.body(room - body.length, isStranger);
      const larger = Buffer.allocUnsafe(room);
      body.copy(larger);
      body = larger;
    };
    const timer = clock.after(limits.timeoutMs, () => {
      allowance.report("body-too-slow", "a body did not arrive in time", { limitMs: limits.timeoutMs });
      fail(new HttpRefusal(408, "The request body did not arrive in time.", { Connection: "close" }));
    });
    const leave = (): void => {
      timer.cancel();
      request.off("data", take).off("end", end).off("error", gone).off("close", gone);
    };
    const fail = (error: unknown): void => {
      leave();
      request.pause();
      // A later failure of the connection concerns no call any more.
      request.on("error", () => {});
      reject(error);
    };
    const take = (chunk: Buffer): void => {
      const before = length;
      length += chunk.length;
      try {
        if (length > maxBytes) throw tooLong();
        if (length > body.length) makeRoom();
      } catch (error) {
        fail(error);
        return;
      }
      chunk.copy(body, before);
    };
    const end = (): void => {
      leave();
      resolve(body.subarray(0, length));
    };
    const gone = (): void => fail(endedEarly());
    request.on("data", take).on("end", end).on("error", gone).on("close", gone);
  });
}

function endedEarly(): HttpRefusal {
  return new HttpRefusal(400, "The request body ended too early.");
}
