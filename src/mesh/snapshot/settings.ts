import type { ConfigEntrySet } from "../../config/config-entry-set.js";
import { emptyProxy, type JsonObject, type JsonValue, type Service } from "../../model/instance.js";
import { isList, listMember, member, textMember } from "../../model/kept-members.js";
import { formatUpstreamId, type UpstreamId } from "../../trust/names.js";
import { opaque, opaqueCount, opaqueDuration, opaqueFlag, opaqueNumber, opaqueObject, opaqueText } from "./opaque.js";

/** Limits of Envoy's circuit breakers. */
export interface ConnectionThresholds {
  readonly maxConnections?: number;
  readonly maxPendingRequests?: number;
  readonly maxConcurrentRequests?: number;
}

/** Consul's `PassiveHealthCheck`. */
export interface PassiveHealthCheck {
  readonly intervalMs?: number;
  readonly maxFailures?: number;
  readonly enforcingConsecutive5xx?: number;
  readonly maxEjectionPercent?: number;
  readonly baseEjectionTimeMs?: number;
}

/** Settings of a connection to a service, of one upstream or of all that nothing names. */
export interface UpstreamSettings {
  readonly protocol: string;
  /** 0: nothing is said. */
  readonly connectTimeoutMs: number;
  readonly thresholds: ConnectionThresholds | undefined;
  readonly passiveHealthCheck: PassiveHealthCheck;
  /** `""`: nothing is said. */
  readonly meshGatewayMode: string;
  readonly balancesExactly: boolean;
  /** Envoy's JSON that takes the place of its listener; `""`: none. */
  readonly ownListener: string;
  /** The same for its cluster. */
  readonly ownCluster: string;
}

/** Where a program beside a proxy reaches an upstream. */
export type LocalBind =
  | { readonly type: "port"; readonly address: string; readonly port: number }
  | { readonly type: "socket"; readonly path: string; readonly mode: number };

/** An upstream of a registration, with the settings of config entries. */
export interface Upstream {
  readonly id: UpstreamId;
  /** Key, and Envoy's name of its listener and route. */
  readonly name: string;
  /** Undefined: config entries alone name it. */
  readonly bind: LocalBind | undefined;
  readonly settings: UpstreamSettings;
}

/** Access logs of proxy-defaults; undefined where they are off. */
export interface AccessLogSettings {
  readonly listenerLogs: boolean;
  readonly type: string;
  readonly path: string;
  readonly jsonFormat: string;
  readonly textFormat: string;
}

/** Settings of a proxy, from the opaque fields of its registration and of the config entries for it. */
export interface ProxySettings {
  readonly protocol: string;
  readonly bindAddress: string;
  readonly bindPort: number | undefined;
  readonly localConnectTimeoutMs: number;
  readonly localRequestTimeoutMs: number | undefined;
  readonly localIdleTimeoutMs: number | undefined;
  readonly maxInboundConnections: number;
  readonly balancesInboundExactly: boolean;
  /** Milliseconds; undefined: Envoy's. */
  readonly fetchTimeoutMs: number | undefined;
  readonly accessLogs: AccessLogSettings | undefined;
  readonly gateway: GatewaySettings;
  readonly own: OwnTexts;
  readonly exposedPaths: readonly ExposedPath[];
}

/** A path of the service that may be asked for without a certificate. */
export interface ExposedPath {
  readonly path: string;
  readonly listenerPort: number;
  readonly localPort: number;
  /** `http` or `http2`. */
  readonly protocol: string;
}

/** Resources that operators write themselves, in Envoy's JSON; `""`: none. */
export interface OwnTexts {
  readonly publicListener: string;
  readonly localCluster: string;
  readonly listenerTracing: string;
}

/** Settings of a gateway alone. */
export interface GatewaySettings {
  readonly connectTimeoutMs: number;
  readonly strictDns: boolean;
  readonly bindsDefault: boolean;
  readonly bindsTagged: boolean;
  readonly bindAddresses: readonly { readonly name: string; readonly address: string; readonly port: number }[];
  readonly keepalive: { readonly time?: number; readonly interval?: number; readonly probes?: number } | undefined;
}

const DEFAULT_CONNECT_TIMEOUT_MS = 5_000;

/** @param service - with the settings of config entries merged into it. */
export function proxySettings(service: Service): ProxySettings {
  const { config, extra } = service.proxy ?? emptyProxy;
  const fetchTimeoutMs = opaqueNumber(config, "xds_fetch_timeout_ms");
  return {
    protocol: (opaqueText(config, "protocol") || "tcp").toLowerCase(),
    bindAddress: opaqueText(config, "bind_address"),
    bindPort: opaqueCount(config, "bind_port") || undefined,
    localConnectTimeoutMs: opaqueCount(config, "local_connect_timeout_ms") || DEFAULT_CONNECT_TIMEOUT_MS,
    localRequestTimeoutMs: opaqueCount(config, "local_request_timeout_ms"),
    localIdleTimeoutMs: opaqueCount(config, "local_idle_timeout_ms"),
    maxInboundConnections: opaqueCount(config, "max_inbound_connections") ?? 0,
    balancesInboundExactly: opaqueText(config, "balance_inbound_connections") === EXACT,
    fetchTimeoutMs: fetchTimeoutMs !== undefined && fetchTimeoutMs >= 0 ? fetchTimeoutMs : undefined,
    accessLogs: accessLogSettings(member(extra, "AccessLogs")),
    gateway: gatewaySettings(config),
    own: {
      publicListener: opaqueText(config, "envoy_public_listener_json"),
      localCluster: opaqueText(config, "envoy_local_cluster_json"),
      listenerTracing: opaqueText(config, "envoy_listener_tracing_json"),
    },
    exposedPaths: listMember(member(extra, "Expose"), "Paths").map((path) => ({
      path: opaqueText(path, "Path"),
      listenerPort: opaqueCount(path, "ListenerPort") ?? 0,
      localPort: opaqueCount(path, "LocalPathPort") ?? 0,
      protocol: opaqueText(path, "Protocol") || "http",
    })),
  };
}

const EXACT = "exact_balance";

function accessLogSettings(logs: JsonValue | undefined): AccessLogSettings | undefined {
  if (!opaqueFlag(logs, "Enabled")) return undefined;
  return {
    listenerLogs: !opaqueFlag(logs, "DisableListenerLogs"),
    type: opaqueText(logs, "Type"),
    path: opaqueText(logs, "Path"),
    jsonFormat: opaqueText(logs, "JSONFormat"),
    textFormat: opaqueText(logs, "TextFormat"),
  };
}

/** The name of a setting that has a former one. */
function gatewayKey(config: JsonObject | undefined, name: string): string {
  const key = `envoy_gateway_${name}`;
  return opaque(config, key) === undefined ? `envoy_mesh_gateway_${name}` : key;
}

function gatewaySettings(config: JsonObject | undefined): GatewaySettings {
  const addresses = opaqueObject(config, gatewayKey(config, "bind_addresses"));
  const part = (name: string, key: string): { readonly [key: string]: number } => {
    const value = opaqueCount(config, name);
    return value === undefined || value === 0 ? {} : { [key]: value };
  };
  return {
    connectTimeoutMs: opaqueCount(config, "connect_timeout_ms") || DEFAULT_CONNECT_TIMEOUT_MS,
    strictDns: opaqueText(config, "envoy_dns_discovery_type").toLowerCase() === "strict_dns",
    bindsDefault: !opaqueFlag(config, gatewayKey(config, "no_default_bind")),
    bindsTagged: opaqueFlag(config, gatewayKey(config, "bind_tagged_addresses")),
    bindAddresses: Object.keys(addresses).map((name) => ({
      name,
      address: opaqueText(addresses[name], "Address"),
      port: opaqueCount(addresses[name], "Port") ?? 0,
    })),
    keepalive: opaqueFlag(config, "envoy_gateway_remote_tcp_enable_keepalive")
      ? {
          ...part("envoy_gateway_remote_tcp_keepalive_time", "time"),
          ...part("envoy_gateway_remote_tcp_keepalive_interval", "interval"),
          ...part("envoy_gateway_remote_tcp_keepalive_probes", "probes"),
        }
      : undefined,
  };
}

/** @param config - opaque, as registered or as config entries give it. */
export function upstreamSettings(config: JsonValue | undefined, meshGatewayMode: string): UpstreamSettings {
  const limits = opaque(config, "limits");
  const passive = opaque(config, "passive_health_check");
  return {
    protocol: opaqueText(config, "protocol").toLowerCase(),
    connectTimeoutMs: opaqueCount(config, "connect_timeout_ms") ?? 0,
    thresholds: thresholdsOf(limits),
    passiveHealthCheck: withoutUnset({
      intervalMs: opaqueDuration(passive, "interval"),
      maxFailures: opaqueCount(passive, "max_failures") || undefined,
      enforcingConsecutive5xx: opaqueCount(passive, "enforcing_consecutive_5xx"),
      maxEjectionPercent: opaqueCount(passive, "max_ejection_percent"),
      baseEjectionTimeMs: opaqueDuration(passive, "base_ejection_time"),
    }),
    meshGatewayMode: meshGatewayMode || opaqueText(opaque(config, "mesh_gateway"), "mode"),
    balancesExactly: opaqueText(config, "balance_outbound_connections") === EXACT,
    ownListener: opaqueText(config, "envoy_listener_json"),
    ownCluster: opaqueText(config, "envoy_cluster_json"),
  };
}

/** Undefined where no limit is said. */
export function thresholdsOf(limits: JsonValue | undefined): ConnectionThresholds | undefined {
  const found = withoutUnset({
    maxConnections: opaqueCount(limits, "max_connections"),
    maxPendingRequests: opaqueCount(limits, "max_pending_requests"),
    maxConcurrentRequests: opaqueCount(limits, "max_concurrent_requests"),
  });
  return Object.keys(found).length === 0 ? undefined : found;
}

function withoutUnset<Value extends object>(members: Value): { [Key in keyof Value]?: NonNullable<Value[Key]> } {
  const kept: { [Key in keyof Value]?: NonNullable<Value[Key]> } = {};
  for (const key of Object.keys(members) as (keyof Value)[]) {
    const value = members[key];
    if (value !== undefined && value !== null) kept[key] = value;
  }
  return kept;
}

/** The upstreams of a registration, in byte order of their names once they are sorted by the caller. */
export function upstreamsOf(service: Service): readonly Upstream[] {
  return (service.proxy?.upstreams ?? []).map((upstream): Upstream => {
    const type = textMember(upstream, "destinationType");
    const id: UpstreamId = {
      type: type === "service" ? "" : type,
      name: textMember(upstream, "destinationName"),
      datacenter: textMember(upstream, "datacenter"),
      peer: textMember(upstream, "destinationPeer"),
    };
    return {
      id,
      name: formatUpstreamId(id),
      bind: bindOf(upstream),
      settings: upstreamSettings(
        member(upstream, "config"),
        textMember(member(upstream, "meshGateway"), "mode") || (service.proxy?.meshGatewayMode ?? ""),
      ),
    };
  });
}

function bindOf(upstream: JsonObject): LocalBind | undefined {
  const path = textMember(upstream, "localBindSocketPath");
  if (path !== "") return { type: "socket", path, mode: socketMode(textMember(upstream, "localBindSocketMode")) };
  const port = member(upstream, "localBindPort");
  if (typeof port !== "number" || port <= 0) return undefined;
  return { type: "port", address: textMember(upstream, "localBindAddress") || "127.0.0.1", port };
}

function socketMode(text: string): number {
  return /^0?[0-7]{1,4}$/.test(text) ? Number.parseInt(text, 8) : 0;
}

/** A TLS version and ciphers as the mesh entry names them. */
export interface TlsTerms {
  readonly minVersion: string;
  readonly maxVersion: string;
  readonly cipherSuites: readonly string[];
}

/** Settings of the config entry of the mesh. */
export interface MeshSettings {
  readonly incoming: TlsTerms;
  readonly outgoing: TlsTerms;
  readonly sanitizesClientCertificates: boolean;
  readonly normalizesPaths: boolean;
  readonly mergesSlashes: boolean;
  /** Names of Envoy's actions; `""`: nothing is said. */
  readonly escapedSlashes: string;
  readonly headersWithUnderscores: string;
  readonly destinationsOnly: boolean;
  readonly validatesClusters: boolean;
  readonly peerThroughMeshGateways: boolean;
}

export function meshSettings(entries: ConfigEntrySet): MeshSettings {
  const extra = entries.get("mesh", "mesh")?.extra;
  const tls = member(extra, "TLS");
  const http = member(extra, "HTTP");
  const normalization = opaque(opaque(http, "Incoming"), "RequestNormalization");
  return {
    incoming: tlsTerms(opaque(tls, "Incoming")),
    outgoing: tlsTerms(opaque(tls, "Outgoing")),
    sanitizesClientCertificates: opaqueFlag(http, "SanitizeXForwardedClientCert"),
    normalizesPaths: !opaqueFlag(normalization, "InsecureDisablePathNormalization"),
    mergesSlashes: opaqueFlag(normalization, "MergeSlashes"),
    escapedSlashes: opaqueText(normalization, "PathWithEscapedSlashesAction"),
    headersWithUnderscores: opaqueText(normalization, "HeadersWithUnderscoresAction"),
    destinationsOnly: opaqueFlag(member(extra, "TransparentProxy"), "MeshDestinationsOnly"),
    validatesClusters: opaqueFlag(extra, "ValidateClusters"),
    peerThroughMeshGateways: entries.peerThroughMeshGateways,
  };
}

function tlsTerms(terms: JsonValue | undefined): TlsTerms {
  const suites = opaque(terms, "CipherSuites");
  return {
    minVersion: opaqueText(terms, "TLSMinVersion"),
    maxVersion: opaqueText(terms, "TLSMaxVersion"),
    cipherSuites: isList(suites) ? suites.filter((suite): suite is string => typeof suite === "string") : [],
  };
}

/** A transparent proxy takes over what its program connects to. */
export function transparency(service: Service): { readonly port: number } | undefined {
  if (service.proxy?.mode !== "transparent") return undefined;
  const settings = member(service.proxy.extra, "TransparentProxy");
  return {
    port: opaqueCount(settings, "OutboundListenerPort") || 15_001,
  };
}
