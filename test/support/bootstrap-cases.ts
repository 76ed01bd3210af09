import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { eventually } from "./hosts.js";

// Command lines of `connect envoy -bootstrap`, which Consul's program and ours must answer alike. `tools/record-bootstraps.ts` records Consul's answers.

export interface BootstrapCase {
  readonly name: string;
  readonly flags: readonly string[];
  /** Settings of the sidecar. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Of `proxy-defaults`. */
  readonly defaults?: Readonly<Record<string, unknown>>;
  readonly environment?: Readonly<Record<string, string>>;
  /** The patterns of labels are kept, and not their digest alone. */
  readonly whole?: true;
  /** The command leaves the catalog to be asked: the registration must have come there. */
  readonly fromCatalog?: true;
}

export interface BootstrapAnswer {
  readonly exit: number;
  readonly bootstrap?: unknown;
  /** The registration that the command made. */
  readonly registered?: unknown;
}

export const BOOTSTRAPS = "envoy/bootstraps-1.21.4.json";

const WEB = "-sidecar-for=web";
const GRPC = "-grpc-addr=127.0.0.1:8502";
const METRICS = { envoy_prometheus_bind_addr: "0.0.0.0:20200" };
const CLUSTER = { name: "tracer", type: "STATIC", connect_timeout: "1s", load_assignment: { cluster_name: "tracer" } };
const LISTENER = {
  name: "extra",
  address: { socket_address: { address: "127.0.0.1", port_value: 20_400 } },
  filter_chains: [
    {
      filters: [
        {
          name: "envoy.filters.network.direct_response",
          typed_config: { "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config" },
        },
      ],
    },
  ],
};
const SINK = {
  name: "envoy.stat_sinks.hystrix",
  typed_config: { "@type": "type.googleapis.com/envoy.config.metrics.v3.HystrixSink" },
};
const TRACING = {
  http: {
    name: "envoy.tracers.zipkin",
    typed_config: {
      "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
      collector_cluster: "tracer",
      collector_endpoint: "/api/v2/spans",
      collector_endpoint_version: "HTTP_JSON",
    },
  },
};
const TLS = ["-prometheus-cert-file={files}/cert.pem", "-prometheus-key-file={files}/key.pem"] as const;

/** Much as templates for Consul's command are made: a part of its own, whose rest is rendered. */
const TEMPLATE = `{
  {{- /* pages of Envoy */}}
  "admin": {
    {{- if (not .AdminAccessLogConfig) }}
    "access_log": [{ "name": "file", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "{{ .AdminAccessLogPath }}" } }],
    {{- end }}
    {{- if .AdminAccessLogConfig }}
    "access_log": [{{ range $index, $element := .AdminAccessLogConfig }}{{ if $index }},{{ end }}{{ $element }}{{ end }}],
    {{- end }}
    "address": { "socket_address": { "address": "{{ .AdminBindAddress }}", "port_value": {{ .AdminBindPort }} } }
  },
  "node": { "cluster": "{{ .ProxyCluster }}", "id": "{{ .ProxyID }}",
    "metadata": { {{ if .NodeName }}"node_name": "{{ .NodeName }}", {{ end }}"namespace": "{{ if ne .Namespace "" }}{{ .Namespace }}{{ else }}default{{ end }}" } },
  "static_resources": {
    "clusters": [{ "name": "{{ .LocalAgentClusterName }}", "type": "STATIC", "connect_timeout": "1s",
      {{- if .AgentTLS -}}
      "transport_socket": { "name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": { "validation_context": { "trusted_ca": { "inline_string": "{{ .AgentCAPEM }}" } } } } },
      {{- end }}
      "load_assignment": { "cluster_name": "{{ .LocalAgentClusterName }}", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
      {{- if .AgentSocket -}} "pipe": { "path": "{{ .AgentSocket }}" }
      {{- else -}} "socket_address": { "address": "{{ .GRPC.AgentAddress }}", "port_value": {{ .AgentPort }} }
      {{- end -}} } } }] }] } }
      {{- with .StaticClustersJSON }}, {{ . }}{{ end }}]
    {{- if .StaticListenersJSON }}, "listeners": [{{ .StaticListenersJSON }}]{{ end }}
    {{- if .StaticSecretsJSON }}, "secrets": [{{ .StaticSecretsJSON }}]{{ end }}
  },
  {{- if .StatsSinksJSON }} "stats_sinks": [{{ .StatsSinksJSON }}],{{ end }}
  {{- if .StatsConfigJSON }} "stats_config": {{ .StatsConfigJSON }},{{ end }}
  {{- if and .StatsFlushInterval (not (eq .StatsFlushInterval "0s")) }} "stats_flush_interval": "{{ .StatsFlushInterval }}",{{ end }}
  {{- if .TracingConfigJSON }} "tracing": {{ .TracingConfigJSON }},{{ end }}
  "dynamic_resources": { "ads_config": { "api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": {
    "initial_metadata": [{ "key": "x-consul-token", "value": "{{ .Token }}" }],
    "envoy_grpc": { "cluster_name": "{{ .LocalAgentClusterName }}" } } } },
  "layered_runtime": { "layers": [{ "name": "{{ .ProxySourceService | print "of-" }}", "static_layer": { "dc": "{{ .Datacenter }}" } }] }
}
`;

type Config = Readonly<Record<string, unknown>>;
const withSettings = (name: string, config: Config, ...flags: readonly string[]): BootstrapCase => ({
  name,
  config,
  flags: [WEB, GRPC, ...flags],
});
const withFlags = (name: string, ...flags: readonly string[]): BootstrapCase => ({ name, flags });
const withLogs = (name: string, AccessLogs: Config, ...flags: readonly string[]): BootstrapCase => ({
  name,
  defaults: { AccessLogs },
  flags: [WEB, GRPC, ...flags],
});

const found: readonly BootstrapCase[] = [
  { ...withFlags("plain", WEB, GRPC), whole: true },
  withFlags("a sidecar in other capitals", "-sidecar-for=WEB", GRPC),
  withFlags("a proxy by its id", "-proxy-id=web-sidecar-proxy", GRPC),
  { name: "a sidecar of the environment", flags: [GRPC], environment: { CONNECT_SIDECAR_FOR: "web" } },
  { name: "a proxy of the environment", flags: [GRPC], environment: { CONNECT_PROXY_ID: "web-sidecar-proxy" } },
  {
    name: "a proxy of a node",
    flags: ["-node-name=n1", "-proxy-id=web-sidecar-proxy", GRPC],
    config: METRICS,
    fromCatalog: true,
  },
  withFlags("a gateway", "-gateway=mesh", GRPC),
  withFlags("a gateway by the former flag", "-mesh-gateway", GRPC),
  withFlags("a gateway by its id", "-proxy-id=gw1", GRPC),
  withFlags("a gateway by its kind and id", "-gateway=mesh", "-proxy-id=gw1", GRPC),
  withFlags("a gateway by its kind, id and service", "-gateway=mesh", "-proxy-id=gw1", "-service=edge", GRPC),
  withFlags("a token", WEB, GRPC, "-token=secret"),
  withFlags("an address for pages", WEB, GRPC, "-admin-bind=127.0.0.1:19001"),
  withFlags("a name for pages", WEB, GRPC, "-admin-bind=localhost:19001"),
  withFlags("a log of pages", WEB, GRPC, "-admin-access-log-path=/var/log/pages"),
  { ...withFlags("no deprecated tags", WEB, GRPC, "-omit-deprecated-tags"), whole: true },
  withFlags("a version of Envoy", WEB, GRPC, "-envoy-version=1.34.1"),
  withFlags("a log of the command", WEB, GRPC, "-enable-config-gen-logging"),
  withFlags("where it is ready", WEB, GRPC, "-envoy-ready-bind-address=127.0.0.1", "-envoy-ready-bind-port=20100"),
];

const connected: readonly BootstrapCase[] = [
  withFlags("an agent with its scheme", WEB, "-grpc-addr=http://127.0.0.1:1234"),
  withFlags("an agent by a name", WEB, "-grpc-addr=localhost:1234"),
  withFlags("an agent of IPv6", WEB, "-grpc-addr=[::1]:1234"),
  { name: "an agent of the environment", flags: [WEB], environment: { CONSUL_GRPC_ADDR: "127.0.0.1:1235" } },
  withFlags("an agent at a socket", WEB, "-grpc-addr=unix:///run/agent.sock"),
  withFlags("an agent at a socket with TLS", WEB, "-grpc-addr=unix:///run/agent.sock", "-grpc-ca-file={files}/ca.pem"),
  withFlags("an agent with TLS", WEB, "-grpc-addr=https://127.0.0.1:8503", "-grpc-ca-file={files}/ca.pem"),
  withFlags("an agent with TLS and a folder", WEB, "-grpc-addr=https://127.0.0.1:8503", "-grpc-ca-path={files}/folder"),
  withFlags(
    "an agent with TLS, a file and a folder",
    WEB,
    "-grpc-addr=https://127.0.0.1:8503",
    "-grpc-ca-path={files}/folder",
    "-grpc-ca-file={files}/ca.pem",
  ),
  withFlags(
    "an agent with TLS and the authority of its API",
    WEB,
    "-grpc-addr=https://127.0.0.1:8503",
    "-ca-file={files}/ca.pem",
  ),
  {
    name: "an agent with TLS and the authority of the environment",
    flags: [WEB],
    environment: { CONSUL_GRPC_ADDR: "https://127.0.0.1:8503", CONSUL_GRPC_CACERT: "{files}/ca.pem" },
  },
  {
    name: "an agent with TLS and the folder of the environment",
    flags: [WEB],
    environment: { CONSUL_GRPC_ADDR: "https://127.0.0.1:8503", CONSUL_GRPC_CAPATH: "{files}/folder" },
  },
  withFlags("an authority without TLS", WEB, GRPC, "-grpc-ca-file={files}/ca.pem"),
];

const settings: readonly BootstrapCase[] = [
  withSettings("prometheus", METRICS),
  withSettings("prometheus in other capitals", { Envoy_Prometheus_Bind_Addr: "[::1]:20200" }),
  withSettings("prometheus with flags", METRICS, "-prometheus-backend-port=20201", "-prometheus-scrape-path=/scrape"),
  withSettings("prometheus over TLS", METRICS, ...TLS, "-prometheus-ca-file={files}/ca.pem"),
  withSettings("prometheus over TLS with a folder", METRICS, ...TLS, "-prometheus-ca-path={files}/folder"),
  withSettings(
    "prometheus over TLS with both",
    METRICS,
    ...TLS,
    "-prometheus-ca-path={files}/folder",
    "-prometheus-ca-file={files}/ca.pem",
  ),
  withSettings(
    "flags of prometheus without it",
    {},
    "-prometheus-backend-port=20201",
    ...TLS,
    "-prometheus-ca-file={files}/ca.pem",
  ),
  withSettings(
    "TLS for other pages",
    { envoy_stats_bind_addr: "127.0.0.1:20300" },
    ...TLS,
    "-prometheus-ca-file={files}/ca.pem",
  ),
  withSettings("statistics", { envoy_stats_bind_addr: "127.0.0.1:20300" }),
  withSettings(
    "all pages",
    { ...METRICS, envoy_stats_bind_addr: "127.0.0.1:20300" },
    "-prometheus-backend-port=20201",
    "-envoy-ready-bind-address=::1",
    "-envoy-ready-bind-port=20100",
  ),
  withSettings("pages of Envoy alone", { ...METRICS, envoy_stats_bind_addr: ":20300" }),
  withSettings("statsd", { envoy_statsd_url: "udp://127.0.0.1:8125" }),
  withSettings("statsd at a socket", { envoy_statsd_url: "unix:///run/statsd.sock" }),
  withSettings("dogstatsd", { envoy_dogstatsd_url: "unix:///run/dog%20statsd.sock" }),
  withSettings("dogstatsd over UDP", { envoy_dogstatsd_url: "UDP://[::1]:8125" }),
  withSettings("all sinks", {
    envoy_statsd_url: "udp://127.0.0.1:8125",
    envoy_dogstatsd_url: "udp://127.0.0.1:8126",
    envoy_extra_stats_sinks_json: JSON.stringify(SINK),
  }),
  {
    ...withSettings("statsd of the environment", { envoy_statsd_url: "$STATSD" }),
    environment: { STATSD: "udp://127.0.0.1:9125" },
  },
  {
    ...withSettings("statsd at the machine", {
      envoy_statsd_url: `udp://\${HOST_IP}:8125`,
      envoy_dogstatsd_url: "udp://$HOST_IP:8126",
    }),
    environment: { HOST_IP: "10.0.0.7" },
  },
  withSettings("tags", {
    envoy_stats_tags: ["canary", "Zone=eu=1", "local_cluster=mine", "consul.source.datacenter="],
  }),
  withSettings("one tag", { envoy_stats_tags: "canary" }),
  withSettings("tags that are no texts", { envoy_stats_tags: [true, 7] }),
  withSettings("an own configuration of statistics", {
    envoy_stats_config_json: '{"stats_tags":[{"tag_name":"a","fixed_value":"b"}]}',
    envoy_stats_tags: ["canary"],
  }),
  withSettings("a flush interval", { envoy_stats_flush_interval: "1.5s" }),
  withSettings("a flush interval that is no text", { envoy_stats_flush_interval: 5 }),
  withSettings("a collector", { envoy_telemetry_collector_bind_socket_dir: "/tmp/collector/" }),
  withSettings("a collector beside others", {
    envoy_telemetry_collector_bind_socket_dir: "/tmp/collector",
    envoy_statsd_url: "udp://127.0.0.1:8125",
    ...METRICS,
  }),
  withSettings("a collector with an interval", {
    envoy_telemetry_collector_bind_socket_dir: "/tmp/collector",
    envoy_stats_flush_interval: "7s",
  }),
  withSettings("own clusters", {
    envoy_extra_static_clusters_json: `${JSON.stringify(CLUSTER)},\n${JSON.stringify({ ...CLUSTER, name: "second" })}`,
  }),
  withSettings("own clusters and pages", {
    ...METRICS,
    envoy_extra_static_clusters_json: JSON.stringify({ ...CLUSTER, name: "self_admin" }),
  }),
  withSettings("own listeners", { envoy_extra_static_listeners_json: JSON.stringify(LISTENER), ...METRICS }),
  withSettings("own tracing", {
    envoy_tracing_json: JSON.stringify(TRACING),
    envoy_extra_static_clusters_json: JSON.stringify(CLUSTER),
  }),
  withSettings(
    "no central configuration",
    { ...METRICS, envoy_statsd_url: "udp://127.0.0.1:8125" },
    "-no-central-config",
  ),
  withSettings("empty settings", { envoy_statsd_url: "", envoy_stats_tags: [], envoy_prometheus_bind_addr: null }),
  {
    name: "settings of proxy-defaults",
    defaults: { Config: { ...METRICS, envoy_stats_tags: ["central"] } },
    flags: [WEB, GRPC],
  },
  withSettings("a template", { envoy_bootstrap_json_tpl: TEMPLATE }),
  withSettings(
    "a template with everything",
    {
      envoy_bootstrap_json_tpl: TEMPLATE,
      ...METRICS,
      envoy_statsd_url: "udp://127.0.0.1:8125",
      envoy_tracing_json: JSON.stringify(TRACING),
      envoy_stats_flush_interval: "3s",
      envoy_extra_static_clusters_json: JSON.stringify(CLUSTER),
    },
    ...TLS,
    "-prometheus-ca-file={files}/ca.pem",
    "-token=secret",
  ),
  {
    ...withSettings("a template with logs", { envoy_bootstrap_json_tpl: TEMPLATE }),
    defaults: { AccessLogs: { Enabled: true } },
  },
  {
    name: "a template with a socket and TLS",
    config: { envoy_bootstrap_json_tpl: TEMPLATE },
    flags: [WEB, "-grpc-addr=unix:///run/agent.sock", "-grpc-ca-file={files}/ca.pem"],
  },
];

const logs: readonly BootstrapCase[] = [
  withLogs("logs", { Enabled: true }),
  withLogs("logs that are off", { Enabled: false, Type: "stderr" }, "-admin-access-log-path=/var/log/pages"),
  withLogs("logs on standard error", { Enabled: true, Type: "stderr", TextFormat: "%START_TIME%" }),
  withLogs("logs in a file", {
    Enabled: true,
    Type: "file",
    Path: "/var/log/envoy",
    JSONFormat: '{"a":"%PROTOCOL%","b":{"c":1}}',
  }),
  withLogs(
    "logs on standard output",
    { Enabled: true, Type: "stdout", TextFormat: "x\n" },
    "-admin-access-log-path=/var/log/pages",
  ),
];

const registered: readonly BootstrapCase[] = [
  withFlags("a registered gateway", "-gateway=mesh", "-register", GRPC),
  withFlags("a registered gateway by the former flag", "-mesh-gateway", "-register", "-service=old", GRPC),
  withFlags(
    "a registered gateway with an address",
    "-gateway=mesh",
    "-register",
    "-service=lan",
    "-address=127.0.0.1:8445",
    GRPC,
  ),
  withFlags(
    "a registered gateway with an address alone",
    "-gateway=mesh",
    "-register",
    "-service=bare",
    "-address=127.0.0.1",
    GRPC,
  ),
  withFlags(
    "a registered gateway with both addresses",
    "-gateway=mesh",
    "-register",
    "-service=both",
    "-address=127.0.0.1:8446",
    "-wan-address=127.0.0.1:8447",
    GRPC,
  ),
  withFlags(
    "a registered gateway with a foreign address",
    "-gateway=mesh",
    "-register",
    "-service=foreign",
    "-address=127.0.0.1:8446",
    "-wan-address=198.51.100.1:8447",
    GRPC,
  ),
  withFlags(
    "a registered gateway with a wide address",
    "-gateway=mesh",
    "-register",
    "-service=wide",
    "-address=127.0.0.1:8446",
    "-wan-address=0.0.0.0:8447",
    GRPC,
  ),
  withFlags(
    "a registered gateway with a WAN address alone",
    "-gateway=mesh",
    "-register",
    "-service=wan",
    "-wan-address=127.0.0.1:8447",
    GRPC,
  ),
  withFlags(
    "a registered gateway that binds elsewhere",
    "-gateway=mesh",
    "-register",
    "-service=bound",
    "-address=198.51.100.1:8443",
    "-bind-address=lan=127.0.0.1:1",
    "-bind-address=wan=[::1]:2",
    "-bind-address=bare=127.0.0.2",
    GRPC,
  ),
  withFlags(
    "a registered gateway with an id",
    "-gateway=mesh",
    "-register",
    "-service=named",
    "-proxy-id=named-1",
    "-deregister-after-critical=5m",
    GRPC,
  ),
];

const refused: readonly BootstrapCase[] = [
  withFlags("nothing that says which", GRPC),
  withFlags("no such sidecar", "-sidecar-for=db", GRPC),
  withFlags("a service that is no proxy", "-proxy-id=web", GRPC),
  withFlags("no such proxy", "-proxy-id=db", GRPC),
  withFlags("an unknown kind of gateway", "-gateway=water", GRPC),
  withFlags("both flags for gateways", "-gateway=mesh", "-mesh-gateway", GRPC),
  withFlags("a node without a proxy", "-node-name=n1", WEB, GRPC),
  { name: "no such proxy at a node", flags: ["-node-name=n1", "-proxy-id=db", GRPC], fromCatalog: true },
  withFlags("a registered sidecar", WEB, "-register", GRPC),
  withFlags("servers without a gateway", WEB, "-expose-servers", GRPC),
  withFlags("a foreign address", "-gateway=mesh", "-register", "-address=198.51.100.1:8443", GRPC),
  withFlags("a wide address", "-gateway=mesh", "-register", "-address=0.0.0.0:8443", GRPC),
  withFlags("no address", "-gateway=mesh", "-register", "-address=nowhere", GRPC),
  withFlags("half of TLS", WEB, GRPC, "-prometheus-cert-file=x"),
  withFlags("TLS without an authority", WEB, GRPC, ...TLS),
  withFlags("TLS without a key", WEB, GRPC, "-prometheus-cert-file=x", "-prometheus-ca-path=y"),
  withFlags("a place for pages without a port", WEB, GRPC, "-admin-bind=x"),
  withFlags("an authority that is not there", WEB, "-grpc-addr=https://127.0.0.1:1", "-grpc-ca-file={files}/none.pem"),
  withFlags("a folder that is empty", WEB, "-grpc-addr=https://127.0.0.1:1", "-grpc-ca-path={files}/empty"),
  withSettings("a sink of another scheme", { envoy_statsd_url: "tcp://127.0.0.1:8125" }),
  withSettings("a sink without a port", { envoy_dogstatsd_url: "udp://127.0.0.1" }),
  withSettings("a sink of an unknown variable", { envoy_statsd_url: `udp://\${HOME}:8125` }),
  withSettings("a sink of a variable that is not there", { envoy_statsd_url: "$NOWHERE" }),
  withSettings("a page without a port", { envoy_stats_bind_addr: "127.0.0.1" }),
  withSettings("a setting that is no text", { envoy_statsd_url: { a: 1 } }),
  withSettings("tags that are objects", { envoy_stats_tags: [{ a: 1 }] }),
  withSettings("clusters that are no JSON", { envoy_extra_static_clusters_json: "{" }),
  withSettings("listeners that are no JSON", { envoy_extra_static_listeners_json: "{}," }),
  withSettings("sinks that are no JSON", { envoy_extra_stats_sinks_json: "x" }),
  withSettings("statistics that are no JSON", { envoy_stats_config_json: "{" }),
  withSettings("tracing that is no JSON", { envoy_tracing_json: "}" }),
  withSettings("a template without an end", { envoy_bootstrap_json_tpl: "{ {{ if .Token }} }" }),
  withSettings("a template of an unknown field", { envoy_bootstrap_json_tpl: '"{{ .NoSuchField }}"' }),
  withSettings("a template of an unknown function", { envoy_bootstrap_json_tpl: '"{{ shell .Token }}"' }),
  withSettings("a template that makes no JSON", { envoy_bootstrap_json_tpl: "{{ .Token }}" }),
];

export const bootstrapCases: readonly BootstrapCase[] = [
  ...found,
  ...connected,
  ...settings,
  ...logs,
  ...registered,
  ...refused,
];

/** Consul's client reads it, so it must be one. */
const AUTHORITY = `-----BEGIN CERTIFICATE-----
MIIBmTCCAT+gAwIBAgIUEMBBpU3f3uGzUWq2+3Ie3CJlivQwCgYIKoZIzj0EAwIw
ITEfMB0GA1UEAwwWYXV0aG9yaXR5IG9mIHRoZSBhZ2VudDAgFw0yNjExMzAxNjE1
MzhaGA8yMTI2MTEwNjE2MTUzOFowITEfMB0GA1UEAwwWYXV0aG9yaXR5IG9mIHRo
ZSBhZ2VudDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABH+Pt383sakOuzE5PgPw
U1BGAxmOkw/Ixm2HPJHHAhy2h4MUkHiFA0R2DSIXKu8fAxNxxHEgNBwW20twK6gY
OcajUzBRMB0GA1UdDgQWBBTHMbWec1bKmL1u3QkwmhxLAFtsajAfBgNVHSMEGDAW
gBTHMbWec1bKmL1u3QkwmhxLAFtsajAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49
BAMCA0gAMEUCIBgqgPmJ+H3DA/TCNZh6uCC71g2ttPz2VuLj/cET49qUAiEAz8Xg
s34Hb+KLXLWStQElGaWbmvEi+kl9MssDcjiJlRg=
-----END CERTIFICATE-----
`;

/** Files for `{files}` in command lines. */
export async function writeBootstrapFiles(folder: string): Promise<void> {
  await mkdir(join(folder, "folder/below"), { recursive: true });
  await mkdir(join(folder, "empty"));
  await writeFile(join(folder, "ca.pem"), AUTHORITY);
  for (const name of ["b.pem", "a.pem", "below/c.pem"]) await writeFile(join(folder, "folder", name), `${name}\n`);
}

export interface Ran {
  readonly exit: number;
  readonly stdout: string;
}

/** Runs a `connect envoy` with these arguments and this environment. */
export type RunsEnvoyCommand = (args: readonly string[], environment: Readonly<Record<string, string>>) => Promise<Ran>;

async function put(address: string, path: string, body: unknown): Promise<void> {
  const answer = await fetch(`http://${address}${path}`, { method: "PUT", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
}

async function prepare(address: string, { config = {}, defaults, fromCatalog }: BootstrapCase): Promise<void> {
  const proxy = { Config: config };
  const Tags = [String(Date.now())];
  await put(address, "/v1/agent/service/register", {
    Name: "web",
    Port: 80,
    Connect: { SidecarService: { Port: 21_000, Proxy: proxy, Tags } },
  });
  await put(address, "/v1/agent/service/register", { Kind: "mesh-gateway", ID: "gw1", Name: "edge", Port: 8443 });
  await fetch(`http://${address}/v1/config/proxy-defaults/global`, { method: "DELETE" });
  if (defaults !== undefined) {
    await put(address, "/v1/config", { Kind: "proxy-defaults", Name: "global", ...defaults });
  }
  if (fromCatalog === undefined) return;
  const services = `http://${address}/v1/catalog/node-services/n1`;
  await eventually(async () => (await (await fetch(services)).text()).includes(Tags[0] ?? ""), "the catalog has it");
}

/** A server that hands everything on, and keeps what is registered. */
async function listeningIn(address: string) {
  const registrations: unknown[] = [];
  const server = createServer((incoming, response) => {
    void text(incoming).then(async (body) => {
      const { method = "", url = "" } = incoming;
      if (url.startsWith("/v1/agent/service/register")) registrations.push(JSON.parse(body));
      const answer = await fetch(`http://${address}${url}`, { method, ...(method === "PUT" && { body }) });
      response.writeHead(answer.status);
      response.end(await answer.text());
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    address: `127.0.0.1:${port}`,
    registrations,
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** The answer of a program to a case at the server of `address`. */
export async function bootstrapAnswer(
  given: BootstrapCase,
  address: string,
  files: string,
  run: RunsEnvoyCommand,
): Promise<BootstrapAnswer> {
  await prepare(address, given);
  await using server = await listeningIn(address);
  const filled = (value: string): string => value.replace("{files}", files);
  const variables = Object.entries(given.environment ?? {}).map(([name, value]) => [name, filled(value)] as const);
  const args = ["connect", "envoy", "-bootstrap", ...given.flags.map(filled)];
  const { exit, stdout } = await run(args, {
    CONSUL_HTTP_ADDR: server.address,
    ...Object.fromEntries(variables),
  });
  for (const registration of server.registrations) {
    const { ID } = registration as { readonly ID: string };
    await put(address, `/v1/agent/service/deregister/${ID}`, undefined);
  }
  if (exit !== 0) return { exit };
  const [registration] = server.registrations;
  const printed: unknown = JSON.parse(stdout.replaceAll(files, "{files}"), given.whole ? undefined : abridged);
  return { exit, bootstrap: printed, ...(registration !== undefined && { registered: withoutEmpty(registration) }) };
}

/** Patterns of labels are many and much the same: their digest stands for them. */
function abridged(key: string, value: unknown): unknown {
  if (key !== "stats_tags" || !Array.isArray(value)) return value;
  const tags: readonly { readonly tag_name: string; readonly regex?: string }[] = value;
  const patterns = tags.filter(({ regex }) => regex !== undefined);
  if (patterns.length === 0) return value;
  const text = JSON.stringify(patterns.map(({ tag_name, regex }) => [tag_name, regex]));
  const digest = createHash("sha256").update(text).digest("hex");
  return tags.flatMap((tag): readonly object[] =>
    tag === patterns[0] ? [{ digest }] : tag.regex === undefined ? [tag] : [],
  );
}

/** Go writes empty members, which mean the same as none. */
function withoutEmpty(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutEmpty);
  if (typeof value !== "object" || value === null) return value;
  const members = Object.entries(value).map(([key, member]) => [key, withoutEmpty(member)] as const);
  return Object.fromEntries(members.filter(([, member]) => !isEmpty(member)));
}

function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === "" || value === 0 || value === false) return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}
