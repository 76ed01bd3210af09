import { ipVersion } from "../base/host-port.js";
import type { Printable } from "./output.js";

// The file that an Envoy starts with: where it is told everything else, and who it is. Like that of `consul connect envoy -bootstrap`.

/** Everything in it that differs from one proxy to another. */
export interface BootstrapParts {
  /** Id of the registration. */
  readonly id: string;
  /** The service that it stands for, or the name of the gateway. */
  readonly service: string;
  /** Undefined: the agent's own. */
  readonly node: string | undefined;
  readonly datacenter: string;
  readonly token: string;
  readonly admin: { readonly host: string; readonly port: number; readonly accessLog: string };
  readonly grpc: { readonly host: string; readonly port: number; readonly tls: boolean; readonly caPem: string };
}

const HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const LABEL = "[^.]+";

/** Labels of statistics, by which dashboards for Consul tell upstreams apart. */
const TAGS: readonly (readonly [name: string, pattern: string])[] = [
  ["consul.destination.peer", `^cluster\\.(${LABEL}\\.(?:${LABEL}\\.)?(${LABEL})\\.external\\.${LABEL}\\.consul\\.)`],
  ["consul.upstream.peer", `^(?:tcp|http)\\.upstream_peered\\.(${LABEL}(?:\\.${LABEL})?\\.(${LABEL})\\.)`],
  [
    "consul.upstream.service",
    `^(?:tcp|http)\\.upstream(?:_peered)?\\.((${LABEL})(?:\\.${LABEL})?(?:\\.${LABEL})?\\.${LABEL}\\.)`,
  ],
  [
    "consul.upstream.namespace",
    `^(?:tcp|http)\\.upstream(?:_peered)?\\.(${LABEL}(?:\\.(${LABEL}))?(?:\\.${LABEL})?\\.${LABEL}\\.)`,
  ],
];

function typed(name: string, fields: Readonly<Record<string, Printable>>): Printable {
  return { "@type": `type.googleapis.com/${name}`, ...fields };
}

function address({ host, port }: { readonly host: string; readonly port: number }): Printable {
  return { socket_address: { address: host, port_value: port } };
}

export function envoyBootstrap(parts: BootstrapParts): Printable {
  const { id, service, node, datacenter, token, admin, grpc } = parts;
  const source = { ads: {}, initial_fetch_timeout: "0s", resource_api_version: "V3" };
  const fixed = {
    local_cluster: service,
    "consul.source.service": service,
    "consul.source.namespace": "default",
    "consul.source.partition": "default",
    "consul.source.datacenter": datacenter,
  };
  const log = typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", { path: admin.accessLog });
  const tls = typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", {
    common_tls_context: { validation_context: { trusted_ca: { inline_string: grpc.caPem } } },
  });
  return {
    admin: { access_log: [{ name: "envoy.access_loggers.file", typed_config: log }], address: address(admin) },
    node: {
      cluster: service,
      id,
      metadata: { ...(node !== undefined && { node_name: node }), namespace: "default", partition: "default" },
    },
    layered_runtime: { layers: [{ name: "base", static_layer: { "re2.max_program_size.error_level": 1_048_576 } }] },
    static_resources: {
      clusters: [
        {
          name: "local_agent",
          ignore_health_on_host_removal: false,
          connect_timeout: "1s",
          type: ipVersion(grpc.host) === 0 ? "STRICT_DNS" : "STATIC",
          typed_extension_protocol_options: {
            [HTTP_OPTIONS]: typed(HTTP_OPTIONS, { explicit_http_config: { http2_protocol_options: {} } }),
          },
          ...(grpc.tls && { transport_socket: { name: "tls", typed_config: tls } }),
          loadAssignment: {
            clusterName: "local_agent",
            endpoints: [{ lbEndpoints: [{ endpoint: { address: address(grpc) } }] }],
          },
        },
      ],
    },
    stats_config: {
      stats_tags: [
        ...TAGS.map(([tag_name, regex]) => ({ regex, tag_name })),
        ...Object.entries(fixed).map(([tag_name, fixed_value]) => ({ tag_name, fixed_value })),
      ],
      use_all_default_tags: true,
    },
    dynamic_resources: {
      lds_config: source,
      cds_config: source,
      ads_config: {
        api_type: "DELTA_GRPC",
        transport_api_version: "V3",
        grpc_services: {
          initial_metadata: [{ key: "x-consul-token", value: token }],
          envoy_grpc: { cluster_name: "local_agent" },
        },
      },
    },
  };
}
