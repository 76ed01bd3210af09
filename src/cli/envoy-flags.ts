import type { Flag } from "./flags.js";

/** The flags of `connect envoy`, beside those that name the server: all of Consul 1.21's. */
export const envoyFlags: readonly Flag[] = [
  { name: "bootstrap", kind: "boolean", usage: "Prints the configuration, and starts no Envoy." },
  {
    name: "sidecar-for",
    kind: "text",
    placeholder: "id",
    usage:
      "Id of the service whose sidecar is meant. This can also be specified via the CONNECT_SIDECAR_FOR environment variable.",
  },
  {
    name: "proxy-id",
    kind: "text",
    placeholder: "id",
    usage:
      "Id of the registration of the proxy. This can also be specified via the CONNECT_PROXY_ID environment variable.",
  },
  { name: "gateway", kind: "text", placeholder: "kind", usage: "mesh: a mesh gateway of this agent is meant." },
  {
    name: "service",
    kind: "text",
    placeholder: "name",
    usage: "Name of the gateway, where there are several; with -register, its name. Default then: mesh-gateway.",
  },
  {
    name: "envoy-binary",
    kind: "text",
    placeholder: "path",
    usage: "The Envoy that is started. Default: envoy, as it is found in PATH.",
  },
  {
    name: "ignore-envoy-compatibility",
    kind: "boolean",
    usage: "Starts an Envoy of any version. Default: one that is too old is refused.",
  },
  { name: "register", kind: "boolean", usage: "Registers the mesh gateway with the agent first." },
  {
    name: "address",
    kind: "text",
    placeholder: "host:port",
    usage: "With -register: the address of the gateway for its own cluster.",
  },
  {
    name: "wan-address",
    kind: "text",
    placeholder: "host:port",
    usage: "With -register: its address for other clusters.",
  },
  {
    name: "bind-address",
    kind: "texts",
    placeholder: "name=ip:port",
    usage:
      "With -register: where the gateway listens instead. This flag may be specified multiple times. Default: at both addresses, where it can.",
  },
  {
    name: "deregister-after-critical",
    kind: "text",
    placeholder: "duration",
    fallback: "6h",
    usage: "With -register: how long its check may fail before it is deregistered. Default: 6h.",
  },
  {
    name: "node-name",
    kind: "text",
    placeholder: "name",
    usage: "Node at which the proxy of -proxy-id is registered, in the catalog. Default: that of the agent.",
  },
  {
    name: "admin-bind",
    kind: "text",
    placeholder: "host:port",
    usage: "Where Envoy serves its own pages. Default: localhost:19000.",
  },
  {
    name: "admin-access-log-path",
    kind: "text",
    placeholder: "path",
    usage: "Where Envoy logs requests for them, where AccessLogs of proxy-defaults does not say. Default: /dev/null.",
  },
  {
    name: "grpc-addr",
    kind: "text",
    placeholder: "host:port",
    usage:
      "Where the agent serves Envoys; https:// before it asks for TLS. This can also be specified via the CONSUL_GRPC_ADDR environment variable. Default: the port that the agent tells, at the address of its HTTP API.",
  },
  {
    name: "grpc-ca-file",
    kind: "text",
    placeholder: "file",
    usage:
      "Authority of the agent's certificate, with TLS. This can also be specified via the CONSUL_GRPC_CACERT environment variable. Default: that for the HTTP API.",
  },
  {
    name: "grpc-ca-path",
    kind: "text",
    placeholder: "folder",
    usage:
      "The same as a folder of files; -grpc-ca-file goes before it. This can also be specified via the CONSUL_GRPC_CAPATH environment variable.",
  },
  { name: "mesh-gateway", kind: "boolean", usage: "The same as -gateway mesh." },
  {
    name: "no-central-config",
    kind: "boolean",
    usage: "Leaves out all settings of the proxy, such as envoy_prometheus_bind_addr.",
  },
  {
    name: "omit-deprecated-tags",
    kind: "boolean",
    usage: "Labels statistics without the names that Consul had before 1.9. Default: with both.",
  },
  {
    name: "envoy-ready-bind-address",
    kind: "text",
    placeholder: "ip",
    usage: "Where Envoy tells whether it is ready, at /ready, with -envoy-ready-bind-port. Default: nowhere.",
  },
  { name: "envoy-ready-bind-port", kind: "integer", placeholder: "port", usage: "The port for that." },
  {
    name: "prometheus-backend-port",
    kind: "text",
    placeholder: "port",
    usage:
      "The port of a program on this machine that is asked for statistics instead of Envoy, with the setting envoy_prometheus_bind_addr.",
  },
  {
    name: "prometheus-scrape-path",
    kind: "text",
    placeholder: "path",
    fallback: "/metrics",
    usage: "The path of statistics at envoy_prometheus_bind_addr. Default: /metrics.",
  },
  {
    name: "prometheus-cert-file",
    kind: "text",
    placeholder: "file",
    usage:
      "Certificate that Envoy shows at envoy_prometheus_bind_addr, and wherever else it serves single pages. Default: no TLS.",
  },
  { name: "prometheus-key-file", kind: "text", placeholder: "file", usage: "The key of that certificate." },
  {
    name: "prometheus-ca-file",
    kind: "text",
    placeholder: "file",
    usage: "Authority of the certificates of those who ask there.",
  },
  {
    name: "prometheus-ca-path",
    kind: "text",
    placeholder: "folder",
    usage:
      "Folder of that authority that Envoy watches, as Consul's command writes it. It goes before -prometheus-ca-file.",
  },
  {
    name: "expose-servers",
    kind: "boolean",
    usage: "Refused: it is for federation over the WAN, which is not served here.",
  },
  {
    name: "envoy-version",
    kind: "text",
    placeholder: "version",
    usage: "Does nothing, as in Consul: the Envoy of -envoy-binary is started.",
  },
  {
    name: "enable-config-gen-logging",
    kind: "boolean",
    usage: "Tells on standard error how far the configuration has come.",
  },
];
