import { parseDuration } from "../syntax/go-duration.js";
import { badRequest } from "./http-refusal.js";

/** How fresh an answer must be. */
export interface Consistency {
  readonly stale: boolean;
  readonly consistent: boolean;
  readonly cached: boolean;
}

/** Options of a read, taken from its query and headers. */
export interface ReadOptions extends Consistency {
  /** 0n: do not wait. */
  readonly minIndex: bigint;
  /** Milliseconds; 0 when not given. */
  readonly waitMs: number;
  /** Not parsed yet; `""` when not given. */
  readonly filter: string;
}

/** A word as Go reads bools; undefined when it is not one. */
export function goBoolOf(word: string): boolean | undefined {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(word)) return true;
  return ["0", "f", "F", "FALSE", "false", "False"].includes(word) ? false : undefined;
}

const MAX_UINT64 = 2n ** 64n - 1n;

/** As `X-Consul-Effective-Consistency` tells it. */
export function consistencyOf({ stale, consistent }: Consistency): "leader" | "stale" | "consistent" {
  return stale ? "stale" : consistent ? "consistent" : "leader";
}

/** An unsigned 64-bit decimal; undefined when it is not one. */
export function parseUint64(text: string): bigint | undefined {
  if (!/^\d{1,40}$/.test(text)) return undefined;
  const value = BigInt(text);
  return value > MAX_UINT64 ? undefined : value;
}

/**
 * Reads the options that all reads share.
 * @throws {HttpRefusal} 400 with Consul's text; ours answers nothing else (D-34).
 */
export function parseReadOptions(query: URLSearchParams, cacheControl: string | undefined): ReadOptions {
  const given = (name: string): string => query.get(name) ?? "";
  const index = given("index") === "" ? 0n : parseUint64(given("index"));
  const wait = given("wait") === "" ? 0 : parseDuration(given("wait"));
  // In the order in which Consul looks at them: the first fault is reported.
  const consistency = parseConsistency(query, cacheControl);
  if (wait === undefined) throw badRequest("Invalid wait time");
  if (index === undefined) throw badRequest("Invalid index");
  return { minIndex: index, waitMs: wait, ...consistency, filter: given("filter") };
}

/** The part of {@link parseReadOptions} that reads have, too, which cannot be waited for. @throws {HttpRefusal} 400. */
export function parseConsistency(query: URLSearchParams, cacheControl: string | undefined): Consistency {
  const stale = query.has("stale");
  const consistent = query.has("consistent");
  const cached = query.has("cached");
  const maxStale = query.get("max_stale") ?? "";
  if (maxStale !== "" && parseDuration(maxStale) === undefined) {
    throw badRequest(`Invalid max_stale value ${JSON.stringify(maxStale)}`);
  }
  if (stale && consistent) throw badRequest("Cannot specify ?stale with ?consistent, conflicting semantics.");
  if (cached && consistent) throw badRequest("Cannot specify ?cached with ?consistent, conflicting semantics.");
  checkCacheControl(cacheControl);
  return { stale, consistent, cached };
}

function checkCacheControl(header: string | undefined): void {
  for (const part of (header ?? "").split(",")) {
    const [name = "", value = ""] = part.trim().toLowerCase().split("=");
    if ((name === "max-age" || name === "stale-if-error") && !/^[+-]?\d{1,18}$/.test(value)) {
      throw badRequest("Invalid Cache-Control header.");
    }
  }
}
