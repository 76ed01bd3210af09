import { setMaxListeners } from "node:events";
import { Http2ServerRequest } from "node:http2";
import { Access, type Authorizer, allowAll, type Right } from "../../access/authorizer.js";
import type { Closable } from "../../base/closable.js";
import {
  type Clock,
  type Logger,
  type Random,
  silentLogger,
  systemClock,
  systemRandom,
} from "../../base/environment.js";
import { errorText, PeeringError } from "../../base/errors.js";
import { Incidents } from "../../base/incidents.js";
import { sourceOf } from "../../base/sources.js";
import type { PeeringHost } from "../../host/host.js";
import type { HttpRequest, HttpResponse } from "../../http/messages.js";
import type { ConnectedProxy } from "../../model/connected-proxy.js";
import type { ServiceInstance } from "../../model/instance.js";
import { httpServer } from "../../rpc/http-server.js";
import type { ServerTls } from "../../rpc/server-tls.js";
import {
  Code,
  ConnectError,
  createConnectRouter,
  fetchHeaders,
  plainHeaders,
  type UniversalHandler,
} from "../../transport/connect.js";
import type { ConnectionLimits } from "../../transport/connection-limits.js";
import { endRequest } from "../../transport/grpc-stream.js";
import { AggregatedDiscoveryService } from "../../wire/envoy.js";
import type { TlsPlacement } from "../xds/tls.js";
import { HostSource } from "./host-source.js";
import { ProxyFeeds } from "./proxy-feed.js";
import { ProxyStream, type StreamEnd, StreamEnded } from "./proxy-stream.js";

/** Bounds on what connected proxies cost. Beyond each of them there is one line of the log now and then, and a counter. */
export interface XdsLimits {
  /** Proxies that are connected at once. Default 4 096; further ones are refused with RESOURCE_EXHAUSTED, and come again by themselves. */
  readonly proxies: number;
  /** Resources of one proxy. Default 65 536; one that would have more keeps those it has. */
  readonly proxyResources: number;
  /** Names of one type that one proxy may ask for. Default 65 536; its stream is ended beyond. */
  readonly subscribedNames: number;
  /** Bytes of resources in one response. Default 4 MiB; the others follow once it is answered. A larger resource has one for itself. */
  readonly responseBytes: number;
  /** Bytes of one message of a proxy. Default 16 MiB; its stream is ended beyond. */
  readonly messageBytes: number;
  /** Upstreams of a transparent proxy that its registration does not name. Default 10 000; further ones are not told to it. */
  readonly implicitUpstreams: number;
  /** How long a response may wait for its answer before that is reported, in milliseconds. Default 60 000. */
  readonly unansweredMs: number;
  /** How long a proxy may take to accept one message, in milliseconds. Default 60 000; its stream is cut off then. */
  readonly writeTimeoutMs: number;
}

export const defaultXdsLimits: XdsLimits = {
  proxies: 4_096,
  proxyResources: 65_536,
  subscribedNames: 65_536,
  responseBytes: 4 * 1024 * 1024,
  messageBytes: 16 * 1024 * 1024,
  implicitUpstreams: 10_000,
  unansweredMs: 60_000,
  writeTimeoutMs: 60_000,
};

export interface XdsServerOptions {
  /** `host:port`. Port 0: any that is free. Consul's is 8502 in plaintext, and 8503 over TLS. */
  readonly listen: string;
  /**
   * The rights of proxies, by the token that they show as `x-consul-token`: each needs `service:write` on the service that it stands
   * for, or on its own name where it is a gateway. Default: everyone may do everything.
   */
  readonly authorizer?: Authorizer;
  /** Serves over TLS 1.2 or 1.3. Default: in plaintext. Keys of services are sent: listen on a loopback address then. */
  readonly tls?: ServerTls;
  /** Whether a call that no intention speaks of is allowed. Default: as the authorizer does where no rule speaks. */
  readonly defaultIntentionPolicy?: "allow" | "deny";
  /**
   * `inline`, the default, writes certificates and roots into clusters and listeners, as Consul does. `sds` sends them by themselves: a
   * rotation then changes no listener.
   */
  readonly tlsMaterial?: TlsPlacement;
  /** How long changes are gathered before proxies are told of them, in milliseconds. Default 200, as in Consul. */
  readonly gatherMs?: number;
  /** Default: {@link defaultXdsLimits}. */
  readonly limits?: Partial<XdsLimits>;
  /** Bounds the connections of all listeners that it is passed to. Default: one of its own. */
  readonly connectionLimits?: ConnectionLimits;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly logger?: Logger;
  readonly incidents?: Incidents;
}

/** A server for Envoys, which runs until it is disposed of. */
export interface XdsServer extends Closable {
  /** `host:port` it really listens on. */
  readonly address: string;
  /** The proxies that are connected, in the order in which they came. */
  proxies(): readonly ConnectedProxy[];
  /** As that of `HttpServer`. */
  replaceCertificates(tls: ServerTls): void;
}

const CODES: Readonly<Record<StreamEnd["code"], Code>> = {
  aborted: Code.Aborted,
  internal: Code.Internal,
  "invalid-argument": Code.InvalidArgument,
  "permission-denied": Code.PermissionDenied,
  "resource-exhausted": Code.ResourceExhausted,
  unauthenticated: Code.Unauthenticated,
  unavailable: Code.Unavailable,
};
const TOO_MANY: StreamEnd = {
  code: "resource-exhausted",
  message: "this server has too many xDS streams open, please try another",
};
/** Proxies on one machine share its address. */
const STREAMS_PER_SOURCE = 8_192;

/**
 * Serves Envoy's aggregated discovery (delta) for the sidecars and mesh gateways that are registered in the catalog of a host: what
 * `consul connect envoy` starts connects to it.
 * @throws {PeeringError} `invalid-argument`, `unavailable`: as `httpServer`. `TypeError`: a limit that is no number of 1 at least.
 */
export async function xdsServer(host: PeeringHost, options: XdsServerOptions): Promise<XdsServer> {
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  const logger = options.logger ?? silentLogger;
  const incidents = options.incidents ?? new Incidents({ clock, logger });
  const authorizer = options.authorizer ?? allowAll;
  const limits = { ...defaultXdsLimits, ...options.limits };
  for (const [name, value] of Object.entries(limits)) {
    if (!Number.isInteger(value) || value < 1)
      throw new TypeError(`limits.${name} must be a whole number of 1 at least`);
  }
  const allowsByDefault = (options.defaultIntentionPolicy ?? authorizer.defaultPolicy) === "allow";
  const source = new HostSource({ host, allowsByDefault, clock, random });
  const { tlsMaterial: placement = "inline", gatherMs = 200 } = options;
  const feeds = new ProxyFeeds({ source, clock, placement, limits, gatherMs });
  const streams = new Set<ProxyStream>();
  const closing = new AbortController();
  setMaxListeners(0, closing.signal);

  const router = createConnectRouter({
    connect: false,
    grpcWeb: false,
    acceptCompression: [],
    readMaxBytes: limits.messageBytes,
  });
  const readingFailed = (error: unknown): StreamEnd => {
    const { code, rawMessage } = ConnectError.from(error);
    if (code !== Code.ResourceExhausted) return { code: "unavailable", message: rawMessage };
    incidents.report("xds-message-too-large", "a proxy sent a message that is too large: its stream was ended", {
      limit: limits.messageBytes,
    });
    return { code: "resource-exhausted", message: rawMessage };
  };
  router.service(AggregatedDiscoveryService, {
    // biome-ignore lint/correctness/useYield: as Consul, it answers every call with an error.
    async *streamAggregatedResources() {
      throw new ConnectError("not implemented", Code.Unimplemented);
    },
    async *deltaAggregatedResources(requests, { signal, requestHeader }) {
      if (streams.size >= limits.proxies) {
        incidents.report("xds-proxies", "more proxies want to connect than may: they are refused", {
          limit: limits.proxies,
        });
        throw endError(TOO_MANY);
      }
      const token = requestHeader.get("x-consul-token") ?? "";
      const authorize = (registration: ServiceInstance | undefined) => authorizeProxy(authorizer, token, registration);
      const stream = new ProxyStream({ feeds, clock, incidents, nodeName: host.nodeName, limits, authorize });
      streams.add(stream);
      const ended = AbortSignal.any([signal, closing.signal]);
      try {
        await authorize(undefined);
        const reading = stream.read(requests, readingFailed);
        yield* stream.responses(ended);
        if (closing.signal.aborted) throw new ConnectError("the server is shutting down", Code.Unavailable);
        void reading;
      } catch (error) {
        throw error instanceof StreamEnded ? endError(error.end) : error;
      } finally {
        stream.close();
        streams.delete(stream);
      }
    },
  });
  const handlers = new Map<string, UniversalHandler>(router.handlers.map((handler) => [handler.requestPath, handler]));
  const carrying = { clock, writeTimeoutMs: limits.writeTimeoutMs, incidents };
  const server = await httpServer({
    listen: options.listen,
    ...(options.tls && { tls: options.tls }),
    ...(options.connectionLimits && { connectionLimits: options.connectionLimits }),
    connectionsPerSource: STREAMS_PER_SOURCE,
    // Streams have no end: none is waited for.
    drainMs: 0,
    clock,
    logger,
    incidents,
    rpc: (request, response) => {
      const handler = handlers.get((request.url ?? "").split("?", 1)[0] ?? "");
      if (handler === undefined || !(request instanceof Http2ServerRequest)) {
        response.writeHead(404, { "Content-Type": "text/plain; charset=utf-8" });
        response.end("Not found: gRPC is served here\n");
        return;
      }
      carry(handler, request, response, carrying).catch((error: unknown) => {
        logger.debug("a stream of a proxy ended early", {
          source: sourceOf(request.socket.remoteAddress ?? ""),
          error: errorText(error),
        });
        response.destroy();
      });
    },
  }).catch(async (error: unknown) => {
    feeds.close();
    await source.close();
    throw error;
  });
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= (async () => {
      closing.abort();
      feeds.close();
      await source.close();
      await server.close();
    })();
    return closed;
  };
  return {
    address: server.address,
    proxies: () => [...streams].map((stream) => stream.shown),
    replaceCertificates: (tls) => server.replaceCertificates(tls),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function endError({ code, message }: StreamEnd): ConnectError {
  return new ConnectError(message, CODES[code]);
}

/** @throws {StreamEnded} the caller may not have what the registration is told. */
async function authorizeProxy(
  authorizer: Authorizer,
  token: string,
  registration: ServiceInstance | undefined,
): Promise<void> {
  let access: Access;
  try {
    access = await Access.of(authorizer, token);
  } catch (error) {
    if (!(error instanceof PeeringError)) throw error;
    if (error.code !== "permission-denied") {
      throw new StreamEnded({ code: "internal", message: `error resolving acl token: ${error.message}` });
    }
    throw new StreamEnded({ code: "unauthenticated", message: `unauthenticated: ${error.message}` });
  }
  if (registration === undefined) return;
  const { service } = registration;
  const name = service.kind === "connect-proxy" ? (service.proxy?.destinationServiceName ?? "") : service.name;
  const right: Right = { resource: "service", access: "write", name };
  try {
    access.require(right);
  } catch (error) {
    throw new StreamEnded({ code: "permission-denied", message: errorText(error) });
  }
}

/** Carries one stream between Node and a handler of Connect: what the client does not read waits, and is waited for. */
async function carry(
  handler: UniversalHandler,
  request: HttpRequest & Http2ServerRequest,
  response: HttpResponse,
  {
    clock,
    writeTimeoutMs,
    incidents,
  }: { readonly clock: Clock; readonly writeTimeoutMs: number; readonly incidents: Incidents },
): Promise<void> {
  request.on("error", () => {});
  response.on("error", () => {});
  const gone = new AbortController();
  response.once("close", () => gone.abort(new ConnectError("the call was cancelled", Code.Canceled)));
  const answer = await handler({
    httpVersion: request.httpVersion,
    method: request.method,
    url: `http://localhost${request.url}`,
    header: fetchHeaders(request.headers),
    // An iterator that is left early would otherwise destroy the stream, and with it the answer that says why.
    body: request.stream.iterator({ destroyOnReturn: false }),
    signal: gone.signal,
  });
  let started = false;
  const start = (): void => {
    if (started) return;
    started = true;
    response.writeHead(answer.status, plainHeaders(answer.header));
  };
  for await (const chunk of answer.body ?? []) {
    if (gone.signal.aborted) return;
    start();
    const late = clock.after(writeTimeoutMs, () => {
      incidents.report("xds-slow-proxy", "a proxy did not take what it was told: its stream was cut off", {
        limitMs: writeTimeoutMs,
      });
      response.destroy();
    });
    try {
      await new Promise<void>((resolve, reject) => {
        const lost = (): void => reject(new PeeringError("aborted", "the proxy has gone"));
        response.once("close", lost);
        response.write(chunk, (error) => {
          response.off("close", lost);
          if (error) reject(error);
          else resolve();
        });
      });
    } finally {
      late.cancel();
    }
  }
  if (gone.signal.aborted) return;
  start();
  if (answer.trailer !== undefined) response.addTrailers(plainHeaders(answer.trailer));
  const { stream } = request;
  // Node sends the trailers at this event; a stream that is closed before loses them.
  stream.once("wantTrailers", () => endRequest(stream));
  response.end();
}
