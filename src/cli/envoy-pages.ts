import { readHostPort } from "../base/host-port.js";
import { CommandError } from "./command.js";
import { clusterOf, socketAddress, typed } from "./envoy-parts.js";
import type { BootstrapSettings } from "./envoy-settings.js";
import type { Printable } from "./output.js";

// Listeners that show single pages of an Envoy's own server to others: its statistics, and whether it is ready.

/** How an Envoy serves its statistics to Prometheus. */
export interface PrometheusParts {
  /** The port of a program that is asked instead of Envoy; `""`: none. */
  readonly backendPort: string;
  readonly scrapePath: string;
  /** `""`: no TLS. */
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly caFile: string;
  /** Goes before `caFile`. */
  readonly caPath: string;
}

export interface PageParts {
  readonly settings: BootstrapSettings;
  readonly admin: { readonly host: string; readonly port: number };
  readonly prometheus: PrometheusParts;
  /** `host:port`; `""`: it is not served. */
  readonly readyBind: string;
}

interface Pages {
  readonly clusters: readonly Printable[];
  readonly listeners: readonly Printable[];
  readonly secrets: readonly Printable[];
}

interface Page {
  readonly name: string;
  readonly setting: string;
  readonly bind: string;
  readonly match: Readonly<Record<string, string>>;
  readonly rewrite: string;
  readonly cluster: string;
}

const OWN = "self_admin";
const PROGRAM = "prometheus_backend";

/** @param taken - names of clusters that an operator gives. */
export function pagesOf({ settings, admin, prometheus, readyBind }: PageParts, taken: ReadonlySet<string>): Pages {
  const statistics = settings.text("envoy_prometheus_bind_addr");
  const all = [
    {
      name: "envoy_prometheus_metrics",
      setting: "envoy_prometheus_bind_addr",
      bind: statistics,
      match: { path: prometheus.scrapePath },
      rewrite: "/stats/prometheus",
      cluster: prometheus.backendPort === "" ? OWN : PROGRAM,
    },
    {
      name: "envoy_metrics",
      setting: "envoy_stats_bind_addr",
      bind: settings.text("envoy_stats_bind_addr"),
      match: { prefix: "/stats" },
      rewrite: "/stats",
      cluster: OWN,
    },
    {
      name: "envoy_ready",
      setting: "-envoy-ready-bind-address",
      bind: readyBind,
      match: { path: "/ready" },
      rewrite: "/ready",
      cluster: OWN,
    },
  ] satisfies readonly Page[];
  const shown = all.filter(({ bind }) => bind !== "");
  const ports = new Map([
    [PROGRAM, prometheus.backendPort],
    [OWN, String(admin.port)],
  ]);
  const names = new Set(shown.map(({ cluster }) => cluster).filter((name) => !taken.has(name)));
  const tls = prometheus.certificateFile !== "";
  return {
    clusters: [...names].map((name) => {
      const address = socketAddress({ host: admin.host, port: Number(ports.get(name)) });
      return clusterOf(name, address, "http", { ignore_health_on_host_removal: false, connect_timeout: "5s" });
    }),
    listeners: shown.map((page) => listenerOf(page, tls)),
    // Once, however many listeners show them: Envoy takes no two secrets of one name (D-71).
    secrets: tls && shown.length > 0 ? secretsOf(prometheus) : [],
  };
}

function listenerOf({ name, setting, bind, match, rewrite, cluster }: Page, tls: boolean): Printable {
  const place = readHostPort(bind);
  if (typeof place === "string") throw new CommandError(`${setting}: no host:port: ${bind}: ${place}`);
  const manager = typed("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", {
    stat_prefix: name,
    codec_type: "HTTP1",
    route_config: {
      name: "self_admin_route",
      virtual_hosts: [
        {
          name: "self_admin",
          domains: ["*"],
          routes: [
            { match, route: { cluster, prefix_rewrite: rewrite } },
            { match: { prefix: "/" }, direct_response: { status: 404 } },
          ],
        },
      ],
    },
    http_filters: [
      {
        name: "envoy.filters.http.router",
        typedConfig: typed("envoy.extensions.filters.http.router.v3.Router", {}),
      },
    ],
  });
  return {
    name: `${name}_listener`,
    address: socketAddress(place),
    filter_chains: [
      {
        filters: [{ name: "envoy.filters.network.http_connection_manager", typedConfig: manager }],
        ...(tls && { transportSocket: { name: "tls", typedConfig: DOWNSTREAM_TLS } }),
      },
    ],
  };
}

const CERTIFICATE = "prometheus_cert";
const VALIDATION = "prometheus_validation_context";

const DOWNSTREAM_TLS = typed("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", {
  commonTlsContext: {
    tlsCertificateSdsSecretConfigs: [{ name: CERTIFICATE }],
    validationContextSdsSecretConfig: { name: VALIDATION },
  },
});

function secretsOf({ certificateFile, keyFile, caFile, caPath }: PrometheusParts): readonly Printable[] {
  return [
    {
      name: CERTIFICATE,
      tlsCertificate: { certificateChain: { filename: certificateFile }, privateKey: { filename: keyFile } },
    },
    {
      name: VALIDATION,
      validationContext: caPath === "" ? { trustedCa: { filename: caFile } } : { watchedDirectory: { path: caPath } },
    },
  ];
}
