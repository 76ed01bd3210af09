/** Settings of a proxy that count when its Envoy starts: `connect envoy` reads them for the bootstrap (Consul 1.13 to 1.22). */
export const BOOTSTRAP_KEYS = [
  "envoy_statsd_url",
  "envoy_dogstatsd_url",
  "envoy_stats_tags",
  "envoy_telemetry_collector_bind_socket_dir",
  "envoy_prometheus_bind_addr",
  "envoy_stats_bind_addr",
  "envoy_bootstrap_json_tpl",
  "envoy_extra_static_clusters_json",
  "envoy_extra_static_listeners_json",
  "envoy_extra_stats_sinks_json",
  "envoy_stats_config_json",
  "envoy_stats_flush_interval",
  "envoy_tracing_json",
] as const;

export type BootstrapKey = (typeof BOOTSTRAP_KEYS)[number];
