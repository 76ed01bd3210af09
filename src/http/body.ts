import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import type { Clock } from "../environment.js";
import { HttpError } from "./http-error.js";

/** What a client may send, and how long it may take. */
export interface BodyLimits {
  readonly maxBytes: number;
  readonly timeoutMs: number;
}

/** A request of `node:http`, or of the like interface of `node:http2`. */
export interface RequestWithBody extends Readable {
  readonly headers: IncomingHttpHeaders;
}

/** The body of a request. @throws {HttpError} 413, 408, or 400 when the client went away in the middle. */
export function readBody(request: RequestWithBody, limits: BodyLimits, clock: Clock): Promise<Buffer> {
  const tooLarge = (): HttpError =>
    new HttpError(413, `Request body too large, max size: ${limits.maxBytes} bytes.`, { Connection: "close" });
  if (Number(request.headers["content-length"] ?? 0) > limits.maxBytes) return Promise.reject(tooLarge());
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const timer = clock.after(limits.timeoutMs, () =>
      finish(new HttpError(408, "The request body did not arrive in time.", { Connection: "close" })),
    );
    const finish = (error?: HttpError): void => {
      timer.cancel();
      request.off("data", take).off("end", end).off("error", gone).off("close", gone);
      if (error === undefined) {
        resolve(Buffer.concat(chunks, length));
        return;
      }
      request.pause();
      // A failure of the connection that comes later is nobody's any more.
      request.on("error", () => {});
      reject(error);
    };
    const take = (chunk: Buffer): void => {
      length += chunk.length;
      if (length > limits.maxBytes) finish(tooLarge());
      else chunks.push(chunk);
    };
    const end = (): void => finish();
    const gone = (): void => finish(new HttpError(400, "The request body ended too early."));
    request.on("data", take).on("end", end).on("error", gone).on("close", gone);
  });
}
