import type { Access, Authorizer, Right } from "../access/authorizer.js";
import type { Clock, Random } from "../base/environment.js";
import { InvariantError, PeeringError } from "../base/errors.js";
import type { PeeringHost } from "../host/host.js";
import type { Waiting } from "../http/blocking.js";
import type { Caller } from "../http/caller.js";
import { parseUint64 } from "../http/query.js";
import { parseDuration } from "../syntax/go-duration.js";
import {
  type ContextValues,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from "../transport/connect.js";
import { StatusCode } from "../wire/status.js";

/** The parts of the server that every call can reach; one for all of them. */
export interface RpcServer {
  readonly host: PeeringHost;
  readonly authorizer: Authorizer;
  readonly allowPeeringWrite: boolean;
  readonly clock: Clock;
  readonly random: Random;
  /** Silence after which a watch sends a heartbeat, and the longest time between two looks at the caller's token. */
  readonly heartbeatMs: number;
  /** How often a watch of peerings looks at facts that change without a notice. */
  readonly statusIntervalMs: number;
}

/** Metadata that a client may send, as browsers must be told. */
export const REQUEST_METADATA: readonly string[] = [
  "authorization",
  "x-consul-token",
  "min-query-index",
  "max-query-time",
  "allow-stale",
  "require-consistent",
  "use-cache",
  "max-stale-duration",
  "max-age",
  "must-revalidate",
  "stale-if-error",
  "filter",
  "allow-not-modified-response",
];

/** The metadata of every read beside its index (Consul 1.14.8, 1.15.3 and later). */
const READ_METADATA: Readonly<Record<string, string>> = {
  lastcontact: "0s",
  knownleader: "true",
  consistencylevel: "",
  notmodified: "false",
  backend: "blocking-query",
  resultsfilteredbyacls: "false",
};

/** Metadata of answers, as browsers must be told. */
export const RESPONSE_METADATA: readonly string[] = ["index", ...Object.keys(READ_METADATA)];

/** Options of a read that its metadata gives. */
export interface QueryOptions {
  /** 0n: do not wait. */
  readonly minIndex: bigint;
  /** Milliseconds; 0 when not given. */
  readonly waitMs: number;
}

const CALLER = createContextKey<Caller | undefined>(undefined);

/** The parameters of a handler, from which {@link RpcCall} is made. */
export function callContext(caller: Caller): ContextValues {
  return createContextValues().set(CALLER, caller);
}

/** One call. */
export class RpcCall implements Waiting {
  readonly server: RpcServer;
  /** Aborts when the client has gone, its deadline is over, or the server shuts down. */
  readonly signal: AbortSignal;
  readonly #context: HandlerContext;
  readonly #caller: Caller;

  /** @param context - with what {@link callContext} returns. */
  constructor(server: RpcServer, context: HandlerContext) {
    const caller = context.values.get(CALLER);
    if (caller === undefined) throw new InvariantError("a handler is called with its caller");
    this.#caller = caller;
    this.server = server;
    this.signal = context.signal;
    this.#context = context;
  }

  get host(): PeeringHost {
    return this.server.host;
  }

  /** The rights of the caller. @throws {PeeringError} `permission-denied`: `ACL not found`. */
  access(): Promise<Access> {
    return this.#caller.access();
  }

  /** The rights of the caller now, looked up again. @throws {PeeringError} `permission-denied`: `ACL not found`. */
  accessNow(): Promise<Access> {
    return this.#caller.accessNow();
  }

  /** @throws {PeeringError} `permission-denied`, which names the missing right. */
  require(right: Right): Promise<void> {
    return this.#caller.require(right);
  }

  /** Looks again at whom the token belongs to, and at the rights that were required. @throws {PeeringError} as `require`. */
  confirm(): Promise<void> {
    return this.#caller.confirm();
  }

  wait(over: () => void): () => void {
    return this.#caller.allowance.wait(over);
  }

  turn(): Promise<void> {
    return this.#caller.allowance.turn(this.signal);
  }

  pause(): void {
    this.#caller.allowance.rest();
  }

  /** @throws {PeeringError} `invalid-argument` for bytes that cannot be read. */
  queryOptions(): QueryOptions {
    const index = this.#metadata("min-query-index");
    const wait = this.#metadata("max-query-time");
    const minIndex = index === "" ? 0n : parseUint64(index);
    const waitMs = wait === "" ? 0 : parseDuration(wait);
    if (minIndex === undefined) throw invalid("min-query-index", index);
    if (waitMs === undefined) throw invalid("max-query-time", wait);
    return { minIndex, waitMs };
  }

  /** Tells the caller of a read which index to wait for next. */
  tellIndex(index: bigint): void {
    const { responseHeader } = this.#context;
    responseHeader.set("index", String(index));
    for (const [name, value] of Object.entries(READ_METADATA)) responseHeader.set(name, value);
  }

  #metadata(name: string): string {
    return firstValue(this.#context.requestHeader, name);
  }
}

/** `x-consul-token`, else a bearer token; `""` when there is none. */
export function tokenOf(headers: Headers): string {
  const given = firstValue(headers, "x-consul-token");
  if (given !== "") return given;
  const [scheme = "", token = ""] = firstValue(headers, "authorization").split(/\s+/);
  return scheme.toLowerCase() === "bearer" ? token : "";
}

/** Several values of one name come joined by commas. */
function firstValue(headers: Headers, name: string): string {
  return (headers.get(name) ?? "").split(",")[0]?.trim() ?? "";
}

function invalid(name: string, value: string): PeeringError {
  return new PeeringError("invalid-argument", `invalid ${name}: ${JSON.stringify(value)}`, {
    status: StatusCode.InvalidArgument,
  });
}
