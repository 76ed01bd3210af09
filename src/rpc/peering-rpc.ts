import { setMaxListeners } from "node:events";
import { type Authorizer, allowAll } from "../access/authorizer.js";
import { type Clock, type Logger, type Random, silentLogger, systemClock, systemRandom } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import type { PeeringHost } from "../host/host.js";
import { CallLimits } from "../http/call-limits.js";
import { type CorsHeaders, corsHeaders, isPreflight, preflightHeaders } from "../http/cors.js";
import type { HttpRequest, HttpResponse } from "../http/messages.js";
import { Pipeline } from "../http/pipeline.js";
import { RequestGuard, type RequestGuardOptions } from "../http/request-guard.js";
import { Code, ConnectError, cors, createConnectRouter, type UniversalHandler } from "../transport/connect.js";
import { PeeringService } from "../wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import { WatchService } from "../wire/gen/peerage/watch/v1/watch_pb.js";
import { type Carrying, carryCall } from "./node-call.js";
import { peeringService } from "./peering-service.js";
import { REQUEST_METADATA, RESPONSE_METADATA, type RpcServer } from "./rpc-call.js";
import { watchService } from "./watch-service.js";

/** How a host's services are served. */
export interface PeeringRpcOptions extends RequestGuardOptions {
  /** The rights of callers, who are known by `x-consul-token` or a bearer token. Default: everyone may do everything. */
  readonly authorizer?: Authorizer;
  /**
   * Whether `PeeringWrite` is served, which writes a record and its secrets as they are given, past all rules
   * for the states of a peering: an aid for tests. Default false; then it is refused with UNIMPLEMENTED.
   */
  readonly allowPeeringWrite?: boolean;
  /** Longest message of a request. Default 4 MiB; beyond: RESOURCE_EXHAUSTED. */
  readonly maxMessageBytes?: number;
  /** How long a request may take to arrive, in milliseconds. Default 30 000; then DEADLINE_EXCEEDED. */
  readonly bodyTimeoutMs?: number;
  /** How long a client may take to accept one message, in milliseconds. Default 60 000; then its call is cut off. */
  readonly writeTimeoutMs?: number;
  /** Bounds what calls hold. Default: one of its own, with the limits that `CallLimits` of `peerage/http` has by default. */
  readonly limits?: CallLimits;
  /**
   * Silence after which a watch sends a heartbeat, in milliseconds, and the longest a watch goes on with a token that is
   * not valid any more. Default 30 000.
   */
  readonly heartbeatMs?: number;
  /** How often a watch of peerings looks at counts and times, which change without notice, in milliseconds. Default 1 000. */
  readonly statusIntervalMs?: number;
  /** Ends every call that is under way, with UNAVAILABLE. Default: calls end with their clients and with the host. */
  readonly signal?: AbortSignal;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** Default: the system's. */
  readonly random?: Random;
  /** Default: silent. */
  readonly logger?: Logger;
}

/**
 * Answers requests for the services, and leaves all others to `next`; without one they are answered 404. A listener for
 * `node:http`, which takes Connect and gRPC-web, and for `node:http2`, which takes gRPC, too.
 */
export interface RpcListener {
  (request: HttpRequest, response: HttpResponse, next?: () => void): void;
  /** @internal It does nothing with a request that it leaves to `next`, which may be answered without it. */
  readonly leavesOthers?: true;
}

const DEFAULT_MESSAGE_BYTES = 4 * 1024 * 1024;
const DEFAULT_BODY_TIMEOUT_MS = 30_000;
const DEFAULT_WRITE_TIMEOUT_MS = 60_000;
const DEFAULT_HEARTBEAT_MS = 30_000;
const DEFAULT_STATUS_INTERVAL_MS = 1_000;
/** The bytes that streams put before a message. */
const ENVELOPE_BYTES = 5;
const CORS: CorsHeaders = {
  request: [...cors.allowedHeaders, ...REQUEST_METADATA],
  response: [...cors.exposedHeaders, ...RESPONSE_METADATA],
};
/** The headers of a request that Connect reads, and repeats in full where they are wrong. */
const PROTOCOL_HEADERS = [
  "connect-accept-encoding",
  "connect-content-encoding",
  "connect-protocol-version",
  "connect-timeout-ms",
  "content-encoding",
  "content-type",
  "grpc-accept-encoding",
  "grpc-encoding",
  "grpc-timeout",
];
const MAX_PROTOCOL_HEADER = 512;
/** Methods that only read; `allowWriteFrom` is about all others. */
const READS: ReadonlySet<string> = new Set([
  PeeringService.method.peeringRead.name,
  PeeringService.method.peeringList.name,
  PeeringService.method.trustBundleRead.name,
  PeeringService.method.trustBundleListByService.name,
  ...Object.values(WatchService.method).map(({ name }) => name),
]);

/**
 * Consul's `PeeringService` and the watch service of this library (`proto/peerage/watch/v1/watch.proto`) over a host, by
 * Connect, gRPC and gRPC-web. Chained before Consul's HTTP API:
 *
 * ```ts
 * const rpc = peeringRpc(host);
 * const http = httpHandler(host);
 * createServer((request, response) => rpc(request, response, () => http(request, response)));
 * ```
 *
 * A server of `node:http` speaks no HTTP/2, which gRPC needs: {@link httpServer} takes both on one port.
 */
export function peeringRpc(host: PeeringHost, options: PeeringRpcOptions = {}): RpcListener {
  const clock = options.clock ?? systemClock;
  const logger = options.logger ?? silentLogger;
  const { maxMessageBytes = DEFAULT_MESSAGE_BYTES } = options;
  const guard = new RequestGuard(options, host.incidents, clock);
  const server: RpcServer = {
    host,
    authorizer: options.authorizer ?? allowAll,
    allowPeeringWrite: options.allowPeeringWrite ?? false,
    clock,
    random: options.random ?? systemRandom,
    heartbeatMs: options.heartbeatMs ?? DEFAULT_HEARTBEAT_MS,
    statusIntervalMs: options.statusIntervalMs ?? DEFAULT_STATUS_INTERVAL_MS,
  };
  const carrying: Carrying = {
    authorizer: server.authorizer,
    body: {
      maxBytes: maxMessageBytes + ENVELOPE_BYTES,
      timeoutMs: options.bodyTimeoutMs ?? DEFAULT_BODY_TIMEOUT_MS,
    },
    writeTimeoutMs: options.writeTimeoutMs ?? DEFAULT_WRITE_TIMEOUT_MS,
    clock,
  };
  const limits = options.limits ?? new CallLimits({ clock, incidents: host.incidents });
  const pipeline = new Pipeline();
  const router = createConnectRouter({
    acceptCompression: [],
    readMaxBytes: maxMessageBytes,
    ...(options.signal === undefined ? {} : { shutdownSignal: shutdownSignal(options.signal) }),
  });
  router.service(PeeringService, peeringService(server));
  router.service(WatchService, watchService(server));
  const handlers = new Map<string, UniversalHandler>(router.handlers.map((handler) => [handler.requestPath, handler]));

  const answer = (handler: UniversalHandler, request: HttpRequest, response: HttpResponse) => {
    // A client that went away is no failure of ours; the signal of its call ends the work for it.
    request.on("error", () => {});
    response.on("error", () => {});
    const refusal = guard.judge(request);
    if (refusal !== undefined) return refuse(response, refusal.status, refusal.text);
    if (PROTOCOL_HEADERS.some((name) => (request.headers[name]?.length ?? 0) > MAX_PROTOCOL_HEADER)) {
      const fields = { source: request.socket.remoteAddress ?? "", limit: MAX_PROTOCOL_HEADER };
      host.incidents.report("headers-too-large", "a request had too large headers: it was refused", fields);
      return refuse(response, 431, "a header of the protocol is too long\n");
    }
    const origin = guard.allowedOrigin(request.headers);
    const headers = {
      ...(guard.variesByOrigin ? { Vary: "Origin" } : {}),
      ...(origin === undefined ? {} : corsHeaders(origin, CORS)),
    };
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    if (isPreflight(request.method, request.headers)) {
      if (origin === undefined) return refuse(response, 403, "This origin is not allowed\n");
      response.writeHead(204, preflightHeaders(["POST"], CORS));
      response.end();
      return;
    }
    const restricted = READS.has(handler.method.name) ? undefined : guard.judgeWriter(request);
    if (restricted !== undefined) return refuse(response, restricted.status, restricted.text);
    const allowance = limits.allowance(request, response);
    carryCall(handler, request, response, allowance, carrying).catch((error: unknown) => {
      logger.debug("a call ended early", { method: handler.requestPath, error: errorText(error) });
      response.destroy();
    });
  };
  const listener: RpcListener = (request, response, next) => {
    const handler = handlers.get((request.url ?? "").split("?", 1)[0] ?? "");
    if (handler === undefined) {
      if (next === undefined) refuse(response, 404, "Not found: no such method\n");
      else next();
      return;
    }
    pipeline.enter(request, response, () => answer(handler, request, response));
  };
  return Object.assign(listener, { leavesOthers: true } as const);
}

function refuse(response: HttpResponse, status: number, text: string): void {
  response.writeHead(status, { "Content-Type": "text/plain; charset=utf-8" });
  response.end(text);
}

/** Aborts with `signal`, with the reason that callers get. */
function shutdownSignal(signal: AbortSignal): AbortSignal {
  const shutdown = new AbortController();
  // Every call that is under way listens to it, which Node would take for a leak.
  setMaxListeners(0, shutdown.signal);
  const abort = (): void => shutdown.abort(new ConnectError("the server is shutting down", Code.Unavailable));
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  return shutdown.signal;
}
