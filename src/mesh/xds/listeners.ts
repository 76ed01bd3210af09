import {
  EscapedSlashes,
  type FilterChainSchema,
  type FilterSchema,
  type ForwardClientCertDetails,
  GrpcHttp1BridgeSchema,
  GrpcStatsSchema,
  HeadersWithUnderscores,
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
import type { AccessLogSettings, LocalBind, MeshSettings } from "../snapshot/settings.js";
import { filterLogs, listenerLogs } from "./access-logs.js";
import type { RouteInit } from "./routes.js";
import { adsSource, named, namedWith, pipeAddress, socketAddress } from "./values.js";

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
  readonly normalization?: RequestNormalization;
  /** Says how to tell about the certificate of the caller; default: nothing is told, and such headers of the caller are dropped. */
  readonly forwarding?: ForwardClientCertDetails;
  /** How requests are traced, encoded; default: where a caller asks for it. */
  readonly tracing?: Uint8Array | undefined;
}

export function httpFilter(options: HttpFilterOptions): FilterInit {
  const { protocol, routes, fetchTimeoutMs, logs, filters = [], normalization, forwarding, tracing } = options;
  const grpc: HttpFilterInit[] =
    protocol === "grpc"
      ? [
          named("envoy.filters.http.grpc_stats", GrpcStatsSchema, {
            perMethodStatSpecifier: { case: "statsForAllMethods", value: { value: true } },
          }),
          named("envoy.filters.http.grpc_http1_bridge", GrpcHttp1BridgeSchema, {}),
        ]
      : [];
  const init: Hcm = {
    statPrefix: options.statPrefix,
    routeSpecifier:
      typeof routes === "string"
        ? { case: "rds", value: { routeConfigName: routes, configSource: adsSource(fetchTimeoutMs) } }
        : { case: "routeConfig", value: routes },
    httpFilters: [...grpc, ...filters, named("envoy.filters.http.router", RouterSchema, {})],
    ...(tracing === undefined && { tracing: { randomSampling: {} } }),
    upgradeConfigs: [{ upgradeType: "websocket" }],
    ...((protocol === "http2" || protocol === "grpc") && { http2ProtocolOptions: {} }),
    ...(normalization !== undefined && normalized(normalization)),
    ...(forwarding !== undefined && {
      forwardClientCertDetails: forwarding,
      setCurrentClientCertDetails: { subject: true, cert: true, chain: true, dns: true, uri: true },
    }),
    accessLog: filterLogs(logs),
  };
  const { number } = HttpConnectionManagerSchema.field.tracing;
  return namedWith(HTTP_CONNECTION_MANAGER, HttpConnectionManagerSchema, init, number, tracing);
}

/** How requests are made the same before they are judged; names of Envoy's actions, `""` for its default. */
export type RequestNormalization = Pick<
  MeshSettings,
  "normalizesPaths" | "mergesSlashes" | "escapedSlashes" | "headersWithUnderscores"
>;

function normalized(normalization: RequestNormalization): Partial<Hcm> {
  const { normalizesPaths, mergesSlashes, escapedSlashes, headersWithUnderscores } = normalization;
  const action = ESCAPED_SLASHES[escapedSlashes];
  const headers = UNDERSCORES[headersWithUnderscores];
  return {
    ...(normalizesPaths && { normalizePath: true }),
    mergeSlashes: mergesSlashes,
    ...(action !== undefined && { pathWithEscapedSlashesAction: action }),
    ...(headers !== undefined && { commonHttpProtocolOptions: { headersWithUnderscoresAction: headers } }),
  };
}

const ESCAPED_SLASHES: Readonly<Record<string, EscapedSlashes>> = {
  KEEP_UNCHANGED: EscapedSlashes.KEEP_UNCHANGED,
  REJECT_REQUEST: EscapedSlashes.REJECT_REQUEST,
  UNESCAPE_AND_REDIRECT: EscapedSlashes.UNESCAPE_AND_REDIRECT,
  UNESCAPE_AND_FORWARD: EscapedSlashes.UNESCAPE_AND_FORWARD,
};
const UNDERSCORES: Readonly<Record<string, HeadersWithUnderscores>> = {
  REJECT_REQUEST: HeadersWithUnderscores.REJECT_REQUEST,
  DROP_HEADER: HeadersWithUnderscores.DROP_HEADER,
};

const HTTP_CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager";

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
