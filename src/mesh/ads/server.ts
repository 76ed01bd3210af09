import { Http2ServerRequest } from "node:http2";
import { type Authorizer, allowAll } from "../../access/authorizer.js";
import type { Closable } from "../../base/closable.js";
import {
  type Clock,
  type Logger,
  type Random,
  silentLogger,
  systemClock,
  systemRandom,
} from "../../base/environment.js";
import { errorText } from "../../base/errors.js";
import { Incidents } from "../../base/incidents.js";
import { sourceOf } from "../../base/sources.js";
import type { PeeringHost } from "../../host/host.js";
import type { ConnectedProxy } from "../../model/connected-proxy.js";
import { httpServer } from "../../rpc/http-server.js";
import type { ServerTls } from "../../rpc/server-tls.js";
import type { ConnectionLimits } from "../../transport/connection-limits.js";
import type { TlsPlacement } from "../xds/tls.js";
import { defaultXdsLimits, type XdsLimits } from "./limits.js";
import type { ProxyService } from "./proxy-service.js";

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
  const { tlsMaterial: placement = "inline", gatherMs = 200 } = options;
  const serving = { authorizer, allowsByDefault, placement, gatherMs, limits, clock, random, incidents };
  // Loaded with the messages of Envoy when a proxy comes: many agents never have one, and start faster without.
  let loading: Promise<ProxyService> | undefined;
  let service: ProxyService | undefined;
  const load = async (): Promise<ProxyService> => {
    const { ProxyService: Service } = await import("./proxy-service.js");
    service = new Service(host, serving);
    return service;
  };
  let closed: Promise<void> | undefined;
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
      if (!(request instanceof Http2ServerRequest)) {
        response.writeHead(404, { "Content-Type": "text/plain; charset=utf-8" });
        response.end("Not found: gRPC is served here\n");
        return;
      }
      // It may be gone before the service is loaded.
      request.on("error", () => {});
      response.on("error", () => {});
      loading ??= load();
      const serve = async (): Promise<void> => {
        const loaded = await loading;
        if (loaded === undefined || closed !== undefined || request.stream.destroyed) response.destroy();
        else await loaded.serve(request, response);
      };
      serve().catch((error: unknown) => {
        logger.debug("a stream of a proxy ended early", {
          source: sourceOf(request.socket.remoteAddress ?? ""),
          error: errorText(error),
        });
        response.destroy();
      });
    },
  });
  const close = (): Promise<void> => {
    closed ??= (async () => {
      // One that could not be loaded has nothing to close.
      await loading?.catch(() => {});
      await service?.close();
      await server.close();
    })();
    return closed;
  };
  return {
    address: server.address,
    proxies: () => service?.proxies() ?? [],
    replaceCertificates: (tls) => server.replaceCertificates(tls),
    close,
    [Symbol.asyncDispose]: close,
  };
}
