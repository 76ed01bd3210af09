import type { IncomingHttpHeaders } from "node:http";

/** How long a browser may remember its permissions, in seconds; browsers take less where that is too long for them. */
const MAX_AGE_SECONDS = 7_200;

/** Headers that pages of allowed origins may send, and those of answers that they may read. */
export interface CorsHeaders {
  readonly request: readonly string[];
  readonly response: readonly string[];
}

/** The headers of an answer that a page of an allowed origin may see. */
export function corsHeaders(origin: string, { response }: CorsHeaders): Readonly<Record<string, string>> {
  return { "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": response.join(", ") };
}

/** Whether a request is a preflight: a browser asks for permission. */
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
