import type { IncomingHttpHeaders } from "node:http";

/** How long a browser may remember what it was allowed, in seconds; browsers take less where that is too long for them. */
const MAX_AGE_SECONDS = 7_200;

/** Headers that pages of allowed origins may send, and those of answers that they may read. */
export interface CorsHeaders {
  readonly request: readonly string[];
  readonly response: readonly string[];
}

/** What a page of an allowed origin may see of the answer to its request. */
export function corsHeaders(origin: string, { response }: CorsHeaders): Readonly<Record<string, string>> {
  return { "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": response.join(", ") };
}

/** Whether a browser asks what it may ask. */
export function isPreflight(method: string | undefined, headers: IncomingHttpHeaders): boolean {
  return method === "OPTIONS" && headers.origin !== undefined && headers["access-control-request-method"] !== undefined;
}

/** The answer to that, for a page of an allowed origin. */
export function preflightHeaders(
  methods: readonly string[],
  { request }: CorsHeaders,
): Readonly<Record<string, string>> {
  return {
    "Access-Control-Allow-Methods": methods.join(", "),
    "Access-Control-Allow-Headers": request.join(", "),
    "Access-Control-Max-Age": String(MAX_AGE_SECONDS),
  };
}
