import { createHash } from "node:crypto";
import { posix } from "node:path";
import type { Json } from "../client/index.js";
import { isJsonObject, memberOf } from "../client/json-reader.js";
import { goTemplate } from "../syntax/go-template.js";
import { CommandError } from "./command.js";
import { type PageParts, pagesOf } from "./envoy-pages.js";
import { clusterOf, socketAddress, typed } from "./envoy-parts.js";
import { type BootstrapSettings, jsonFrom } from "./envoy-settings.js";
import { statsConfig, statsSinks } from "./envoy-stats.js";
import type { Printable } from "./output.js";

// The file that an Envoy starts with: where it is told everything else, and who it is. Like that of `consul connect envoy -bootstrap` (1.21).

/** Where an agent serves Envoys. */
export type GrpcPlace = (
  | { readonly host: string; readonly port: number; readonly isName: boolean }
  | { readonly socket: string }
) & {
  readonly tls: boolean;
  /** With TLS: the authority of the agent's certificate. */
  readonly caPem: string;
};

/** Everything in it that differs from one proxy to another. */
export interface BootstrapParts extends PageParts {
  /** Id of the registration. */
  readonly id: string;
  /** Envoy's name for its own cluster: the service that it stands for, or the gateway. */
  readonly cluster: string;
  /** The service that statistics are about. */
  readonly source: string;
  /** `""`: the agent's own. */
  readonly node: string;
  readonly namespace: string;
  readonly partition: string;
  readonly datacenter: string;
  readonly token: string;
  /** Where requests for Envoy's own pages are logged. */
  readonly accessLogs: readonly Printable[];
  /** For templates alone. */
  readonly accessLogPath: string;
  readonly grpc: GrpcPlace;
  readonly deprecatedTags: boolean;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** The parts that settings of the proxy make. */
interface Made {
  readonly clusters: readonly Printable[];
  readonly listeners: readonly Printable[];
  readonly secrets: readonly Printable[];
  readonly sinks: readonly Printable[];
  readonly stats: Printable;
  readonly flushInterval: string;
  readonly tracing: Json | undefined;
}

const AGENT = "local_agent";
const COLLECTOR = "consul_telemetry_collector_loopback";

/** @throws {CommandError} naming the setting that cannot be taken. */
export function envoyBootstrap(parts: BootstrapParts): Printable {
  const made = madeOf(parts);
  const template = parts.settings.text("envoy_bootstrap_json_tpl");
  return template === "" ? documentOf(parts, made) : fromTemplate(template, parts, made);
}

function madeOf(parts: BootstrapParts): Made {
  const { settings, environment } = parts;
  const givenClusters = settings.jsonList("envoy_extra_static_clusters_json");
  const pages = pagesOf(parts, new Set(givenClusters.map(nameOf)));
  const sinks = statsSinks(settings, environment);
  const collector = collectorOf(settings, parts);
  const flushInterval = settings.text("envoy_stats_flush_interval");
  return {
    clusters: [...givenClusters, ...pages.clusters, ...(collector?.clusters ?? [])],
    listeners: [...settings.jsonList("envoy_extra_static_listeners_json"), ...pages.listeners],
    secrets: pages.secrets,
    sinks: [...sinks, ...(collector?.sinks ?? [])],
    stats: statsConfig({
      settings,
      deprecatedTags: parts.deprecatedTags,
      fixed: {
        local_cluster: parts.cluster,
        "consul.source.service": parts.source,
        "consul.source.namespace": parts.namespace || "default",
        "consul.source.partition": parts.partition || "default",
        "consul.source.datacenter": parts.datacenter,
      },
    }),
    // The collector needs no more than one report a minute.
    flushInterval: flushInterval === "" && sinks.length === 0 && collector !== undefined ? "60s" : flushInterval,
    tracing: settings.json("envoy_tracing_json"),
  };
}

function nameOf(cluster: Json): string {
  const name = isJsonObject(cluster) ? memberOf(cluster, "name") : undefined;
  return typeof name === "string" ? name : "";
}

/** Statistics for Consul's collector: over a socket whose name the agent knows as well. */
function collectorOf(settings: BootstrapSettings, { id, namespace }: BootstrapParts) {
  const directory = settings.text("envoy_telemetry_collector_bind_socket_dir");
  if (directory === "") return undefined;
  const name = createHash("sha1")
    .update(`${namespace || "default"}_${id}`)
    .digest("base64url");
  const service = typed("envoy.config.metrics.v3.MetricsServiceConfig", {
    transport_api_version: "V3",
    grpc_service: { envoy_grpc: { cluster_name: COLLECTOR } },
    emit_tags_as_labels: true,
  });
  return {
    sinks: [{ name: "envoy.stat_sinks.metrics_service", typed_config: service }],
    clusters: [clusterOf(COLLECTOR, { pipe: { path: posix.join(directory, `${name}.sock`) } }, "http2", {})],
  };
}

function documentOf(parts: BootstrapParts, made: Made): Printable {
  const { id, cluster, node, namespace, partition, token, admin, grpc } = parts;
  const source = { ads: {}, initial_fetch_timeout: "0s", resource_api_version: "V3" };
  const tls = typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", {
    common_tls_context: { validation_context: { trusted_ca: { inline_string: grpc.caPem } } },
  });
  const agent = clusterOf(AGENT, "socket" in grpc ? { pipe: { path: grpc.socket } } : socketAddress(grpc), "http2", {
    ignore_health_on_host_removal: false,
    connect_timeout: "1s",
    ...("isName" in grpc && grpc.isName && { type: "STRICT_DNS" }),
    ...(grpc.tls && { transport_socket: { name: "tls", typed_config: tls } }),
  });
  return {
    admin: { access_log: parts.accessLogs, address: socketAddress(admin) },
    node: {
      cluster,
      id,
      metadata: {
        ...(node !== "" && { node_name: node }),
        namespace: namespace || "default",
        partition: partition || "default",
      },
    },
    layered_runtime: { layers: [{ name: "base", static_layer: { "re2.max_program_size.error_level": 1_048_576 } }] },
    static_resources: {
      clusters: [agent, ...made.clusters],
      ...(made.listeners.length > 0 && { listeners: made.listeners }),
      ...(made.secrets.length > 0 && { secrets: made.secrets }),
    },
    ...(made.sinks.length > 0 && { stats_sinks: made.sinks }),
    stats_config: made.stats,
    ...(made.flushInterval !== "" && { stats_flush_interval: made.flushInterval }),
    ...(made.tracing !== undefined && { tracing: made.tracing }),
    dynamic_resources: {
      lds_config: source,
      cds_config: source,
      ads_config: {
        api_type: "DELTA_GRPC",
        transport_api_version: "V3",
        grpc_services: {
          initial_metadata: [{ key: "x-consul-token", value: token }],
          envoy_grpc: { cluster_name: AGENT },
        },
      },
    },
  };
}

/** The names are those that templates for Consul's command use. */
function fromTemplate(template: string, parts: BootstrapParts, made: Made): Json {
  const { grpc, admin, prometheus } = parts;
  const texts = (values: readonly Printable[]): readonly string[] => values.map((value) => JSON.stringify(value));
  const agent = {
    AgentAddress: "socket" in grpc ? "" : grpc.host,
    AgentPort: "socket" in grpc ? "" : String(grpc.port),
    AgentTLS: grpc.tls,
    AgentSocket: "socket" in grpc ? grpc.socket : "",
  };
  const filled = goTemplate("The setting envoy_bootstrap_json_tpl", template, {
    ...agent,
    GRPC: agent,
    ProxyCluster: parts.cluster,
    ProxyID: parts.id,
    NodeName: parts.node,
    ProxySourceService: parts.source,
    // It stands within a text of JSON.
    AgentCAPEM: grpc.caPem.replaceAll("\n", "\\n"),
    AdminAccessLogConfig: parts.accessLogPath === "" ? texts(parts.accessLogs) : [],
    AdminAccessLogPath: parts.accessLogPath || "/dev/null",
    AdminBindAddress: admin.host,
    AdminBindPort: String(admin.port),
    LocalAgentClusterName: AGENT,
    Token: parts.token,
    StaticClustersJSON: texts(made.clusters).join(",\n"),
    StaticListenersJSON: texts(made.listeners).join(",\n"),
    StaticSecretsJSON: texts(made.secrets).join(",\n"),
    StatsSinksJSON: texts(made.sinks).join(",\n"),
    StatsConfigJSON: JSON.stringify(made.stats),
    StatsFlushInterval: made.flushInterval,
    TracingConfigJSON: made.tracing === undefined ? "" : JSON.stringify(made.tracing),
    Namespace: parts.namespace,
    Partition: parts.partition,
    Datacenter: parts.datacenter,
    PrometheusBackendPort: prometheus.backendPort,
    PrometheusScrapePath: prometheus.scrapePath,
    PrometheusCAFile: prometheus.caFile,
    PrometheusCAPath: prometheus.caPath,
    PrometheusCertFile: prometheus.certificateFile,
    PrometheusKeyFile: prometheus.keyFile,
  });
  if (typeof filled !== "string") throw new CommandError(filled.problem);
  return jsonFrom("envoy_bootstrap_json_tpl", filled);
}
