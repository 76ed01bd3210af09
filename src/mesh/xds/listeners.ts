import {
  type FilterChainSchema,
  type FilterSchema,
  type ForwardClientCertDetails,
  GrpcHttp1BridgeSchema,
  GrpcStatsSchema,
  HttpConnectionManagerSchema,
  type ListenerFilterSchema,
  type ListenerSchema,
  OriginalDstSchema,
  RouterSchema,
  SniClusterSchema,
  TcpProxySchema,
  TlsInspectorSchema,
  type TrafficDirection,
} from "../../wire/envoy.js";
import type { MessageFields } from "../../wire/schema.js";
import type { AccessLogSettings, LocalBind } from "../snapshot/settings.js";
import { filterLogs, listenerLogs } from "./access-logs.js";
import type { RouteInit } from "./routes.js";
import { adsSource, named, pipeAddress, socketAddress } from "./values.js";

export type ListenerInit = MessageFields<typeof ListenerSchema>;
export type FilterChainInit = MessageFields<typeof FilterChainSchema>;
export type FilterInit = MessageFields<typeof FilterSchema>;
type Hcm = MessageFields<typeof HttpConnectionManagerSchema>;
export type HttpFilterInit = NonNullable<Hcm["httpFilters"]>[number];

/** Envoy takes `:` for a separator in the names of statistics. */
export function statPrefix(prefix: string, name: string): string {
  return `${prefix}${name.replaceAll(":", "_")}`;
}

export function tcpProxy(prefix: string, cluster: string, logs: AccessLogSettings | undefined): FilterInit {
  return named("envoy.filters.network.tcp_proxy", TcpProxySchema, {
    statPrefix: prefix,
    // Set although it may be empty: the name of the connection is the cluster then.
    clusterSpecifier: { case: "cluster", value: cluster },
    accessLog: filterLogs(logs),
  });
}

export function sniCluster(): FilterInit {
  return named("envoy.filters.network.sni_cluster", SniClusterSchema, {});
}

/** How requests are taken over. */
export interface HttpFilterOptions {
  readonly statPrefix: string;
  readonly protocol: string;
  /** Routes in place, or the name of routes that come by themselves. */
  readonly routes: RouteInit | string;
  readonly fetchTimeoutMs: number | undefined;
  readonly logs: AccessLogSettings | undefined;
  /** Before the router. */
  readonly filters?: readonly HttpFilterInit[];
  readonly normalizesPaths?: boolean;
  /** Says how to tell about the certificate of the caller; default: nothing is told, and such headers of the caller are dropped. */
  readonly forwarding?: ForwardClientCertDetails;
}

export function httpFilter(options: HttpFilterOptions): FilterInit {
  const { protocol, routes, fetchTimeoutMs, logs, filters = [], normalizesPaths = false, forwarding } = options;
  const grpc: HttpFilterInit[] =
    protocol === "grpc"
      ? [
          named("envoy.filters.http.grpc_stats", GrpcStatsSchema, {
            perMethodStatSpecifier: { case: "statsForAllMethods", value: { value: true } },
          }),
          named("envoy.filters.http.grpc_http1_bridge", GrpcHttp1BridgeSchema, {}),
        ]
      : [];
  return named("envoy.filters.network.http_connection_manager", HttpConnectionManagerSchema, {
    statPrefix: options.statPrefix,
    routeSpecifier:
      typeof routes === "string"
        ? { case: "rds", value: { routeConfigName: routes, configSource: adsSource(fetchTimeoutMs) } }
        : { case: "routeConfig", value: routes },
    httpFilters: [...grpc, ...filters, named("envoy.filters.http.router", RouterSchema, {})],
    tracing: { randomSampling: {} },
    upgradeConfigs: [{ upgradeType: "websocket" }],
    ...((protocol === "http2" || protocol === "grpc") && { http2ProtocolOptions: {} }),
    ...(normalizesPaths && { normalizePath: true }),
    ...(forwarding !== undefined && {
      forwardClientCertDetails: forwarding,
      setCurrentClientCertDetails: { subject: true, cert: true, chain: true, dns: true, uri: true },
    }),
    accessLog: filterLogs(logs),
  });
}

export function tlsInspector(): MessageFields<typeof ListenerFilterSchema> {
  return named("envoy.filters.listener.tls_inspector", TlsInspectorSchema, {});
}

export function originalDst(): MessageFields<typeof ListenerFilterSchema> {
  return named("envoy.filters.listener.original_dst", OriginalDstSchema, {});
}

/** A listener at a place, which is part of its name: Envoy cannot move one. */
export function listener(
  base: string,
  bind: LocalBind,
  parts: {
    readonly trafficDirection: TrafficDirection;
    readonly filterChains: readonly FilterChainInit[];
    readonly logs: AccessLogSettings | undefined;
    readonly balancesExactly?: boolean;
    readonly listenerFilters?: NonNullable<ListenerInit["listenerFilters"]>;
  },
): ListenerInit {
  const { trafficDirection, filterChains, logs, balancesExactly = false, listenerFilters = [] } = parts;
  const place = bind.type === "socket" ? bind.path : `${bind.address}:${bind.port}`;
  return {
    name: `${base}:${place}`,
    address: bind.type === "socket" ? pipeAddress(bind.path, bind.mode) : socketAddress(bind.address, bind.port),
    trafficDirection,
    filterChains: [...filterChains],
    listenerFilters,
    accessLog: listenerLogs(logs),
    ...(balancesExactly && {
      connectionBalanceConfig: { balanceType: { case: "exactBalance" as const, value: {} } },
    }),
  };
}
