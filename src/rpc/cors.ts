import type { IncomingHttpHeaders } from "node:http";
import { cors } from "../transport/connect.js";
import { REQUEST_METADATA, RESPONSE_METADATA } from "./rpc-call.js";

/** How long a browser may remember what it was allowed, in seconds; browsers take less where that is too long for them. */
const MAX_AGE_SECONDS = 7_200;

/** What a page of another origin may see of the answer to its request. Nothing for origins that are not allowed. */
export function corsHeaders(
  headers: IncomingHttpHeaders,
  allowedOrigins: readonly string[],
): Readonly<Record<string, string>> {
  if (allowedOrigins.length === 0) return {};
  const origin = allowedOrigin(headers, allowedOrigins);
  if (origin === undefined) return { Vary: "Origin" };
  return {
    Vary: "Origin",
    "Access-Control-Allow-Origin": origin,
    "Access-Control-Expose-Headers": [...cors.exposedHeaders, ...RESPONSE_METADATA].join(", "),
  };
}

/** Whether a browser asks what it may ask. */
export function isPreflight(method: string | undefined, headers: IncomingHttpHeaders): boolean {
  return method === "OPTIONS" && headers.origin !== undefined && headers["access-control-request-method"] !== undefined;
}

/** The answer to that; undefined: nothing. */
export function preflightHeaders(
  headers: IncomingHttpHeaders,
  allowedOrigins: readonly string[],
): Readonly<Record<string, string>> | undefined {
  if (allowedOrigin(headers, allowedOrigins) === undefined) return undefined;
  return {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": [...cors.allowedHeaders, ...REQUEST_METADATA].join(", "),
    "Access-Control-Max-Age": String(MAX_AGE_SECONDS),
  };
}

function allowedOrigin({ origin }: IncomingHttpHeaders, allowedOrigins: readonly string[]): string | undefined {
  if (origin === undefined) return undefined;
  return allowedOrigins.includes(origin) || allowedOrigins.includes("*") ? origin : undefined;
}
