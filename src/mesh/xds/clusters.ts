import type { JsonValue } from "../../model/instance.js";
import {
  AggregateClusterSchema,
  Cluster_DiscoveryType,
  Cluster_DnsLookupFamily,
  Cluster_LbPolicy,
  type ClusterLoadAssignmentSchema,
  type ClusterSchema,
  HealthStatus,
  HttpProtocolOptionsSchema,
  type OutlierDetectionSchema,
  type TransportSocketSchema,
} from "../../wire/envoy.js";
import type { MessageFields } from "../../wire/schema.js";
import type { Endpoint, Endpoints } from "../snapshot/endpoints.js";
import { opaque, opaqueCount, opaqueText } from "../snapshot/opaque.js";
import type { ConnectionThresholds, GatewaySettings, PassiveHealthCheck } from "../snapshot/settings.js";
import { adsSource, duration, named, packed, socketAddress } from "./values.js";

export type ClusterInit = MessageFields<typeof ClusterSchema>;
type AssignmentInit = MessageFields<typeof ClusterLoadAssignmentSchema>;

const HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const DNS_REFRESH_MS = 10_000;

/** A cluster whose endpoints come by themselves. */
export function edsCluster(name: string, connectTimeoutMs: number, fetchTimeoutMs: number | undefined): ClusterInit {
  return {
    name,
    clusterDiscoveryType: { case: "type", value: Cluster_DiscoveryType.EDS },
    edsClusterConfig: { edsConfig: adsSource(fetchTimeoutMs) },
    connectTimeout: duration(connectTimeoutMs),
    outlierDetection: {},
  };
}

/**
 * A cluster of names, which Envoy looks up itself. All healthy ones take part: of several names a cluster of type LOGICAL_DNS, as
 * Consul makes it, takes one alone, and Envoy refuses it with more.
 */
export function dnsCluster(name: string, connectTimeoutMs: number, endpoints: readonly Endpoint[]): ClusterInit {
  const healthy = endpoints.filter((endpoint) => endpoint.healthy);
  const last = endpoints.at(-1);
  const used = healthy.length > 0 || last === undefined ? healthy : [last];
  return {
    name,
    clusterDiscoveryType: {
      case: "type",
      // LOGICAL_DNS takes one name alone (D-69).
      value: used.length > 1 ? Cluster_DiscoveryType.STRICT_DNS : Cluster_DiscoveryType.LOGICAL_DNS,
    },
    dnsRefreshRate: duration(DNS_REFRESH_MS),
    dnsLookupFamily: Cluster_DnsLookupFamily.V4_ONLY,
    connectTimeout: duration(connectTimeoutMs),
    outlierDetection: {},
    loadAssignment: loadAssignment(name, used),
  };
}

/** A cluster for endpoints of either kind. */
export function clusterFor(
  name: string,
  endpoints: Endpoints,
  options: {
    readonly connectTimeoutMs: number;
    readonly fetchTimeoutMs: number | undefined;
    readonly gateway?: GatewaySettings;
  },
): ClusterInit {
  const { connectTimeoutMs, fetchTimeoutMs, gateway } = options;
  if (!endpoints.hostnames) return edsCluster(name, connectTimeoutMs, fetchTimeoutMs);
  const cluster = dnsCluster(name, connectTimeoutMs, endpoints.list);
  if (gateway?.strictDns !== true) return cluster;
  return { ...cluster, clusterDiscoveryType: { case: "type", value: Cluster_DiscoveryType.STRICT_DNS } };
}

/** The parts of a cluster of a sidecar, and of an exported service. */
export function guarded(
  cluster: ClusterInit,
  options: {
    readonly passive?: PassiveHealthCheck;
    readonly thresholds: ConnectionThresholds | undefined;
    readonly protocol: string;
    readonly transportSocket: MessageFields<typeof TransportSocketSchema> | undefined;
  },
): ClusterInit {
  const { passive = {}, thresholds, protocol, transportSocket } = options;
  return {
    ...cluster,
    // Without it Envoy sends calls to endpoints that it knows to be unhealthy when many are.
    commonLbConfig: { healthyPanicThreshold: {} },
    circuitBreakers: circuitBreakers(thresholds),
    outlierDetection: outlierDetection(passive),
    ...http2Options(protocol),
    ...(transportSocket && { transportSocket }),
  };
}

export function circuitBreakers(
  thresholds: ConnectionThresholds | undefined,
): NonNullable<ClusterInit["circuitBreakers"]> {
  if (thresholds === undefined) return {};
  const { maxConnections, maxPendingRequests, maxConcurrentRequests } = thresholds;
  return {
    thresholds: [
      {
        ...(maxConnections !== undefined && { maxConnections }),
        ...(maxPendingRequests !== undefined && { maxPendingRequests }),
        ...(maxConcurrentRequests !== undefined && { maxRequests: maxConcurrentRequests }),
      },
    ],
  };
}

export function outlierDetection(passive: PassiveHealthCheck): MessageFields<typeof OutlierDetectionSchema> {
  const { intervalMs, maxFailures, enforcingConsecutive5xx, maxEjectionPercent, baseEjectionTimeMs } = passive;
  return {
    ...(intervalMs !== undefined && { interval: duration(intervalMs) }),
    ...(maxFailures !== undefined && { consecutive5xx: maxFailures }),
    ...(enforcingConsecutive5xx !== undefined && { enforcingConsecutive5xx }),
    ...(maxEjectionPercent !== undefined && { maxEjectionPercent }),
    ...(baseEjectionTimeMs !== undefined && { baseEjectionTime: duration(baseEjectionTimeMs) }),
  };
}

/** How calls are spread over the endpoints of a cluster, as a resolver says. */
export function loadBalancing(loadBalancer: JsonValue | undefined): Pick<ClusterInit, "lbPolicy" | "lbConfig"> {
  const ring = opaque(loadBalancer, "RingHashConfig");
  const least = opaque(loadBalancer, "LeastRequestConfig");
  switch (opaqueText(loadBalancer, "Policy")) {
    case "least_request":
      return {
        lbPolicy: Cluster_LbPolicy.LEAST_REQUEST,
        ...(least !== undefined && {
          lbConfig: { case: "leastRequestLbConfig", value: { choiceCount: opaqueCount(least, "ChoiceCount") ?? 0 } },
        }),
      };
    case "random":
      return { lbPolicy: Cluster_LbPolicy.RANDOM };
    case "ring_hash":
      return {
        lbPolicy: Cluster_LbPolicy.RING_HASH,
        ...(ring !== undefined && {
          lbConfig: {
            case: "ringHashLbConfig",
            value: {
              minimumRingSize: BigInt(opaqueCount(ring, "MinimumRingSize") ?? 0),
              maximumRingSize: BigInt(opaqueCount(ring, "MaximumRingSize") ?? 0),
            },
          },
        }),
      };
    case "maglev":
      return { lbPolicy: Cluster_LbPolicy.MAGLEV };
    default:
      return {};
  }
}

function http2Options(protocol: string): Pick<ClusterInit, "typedExtensionProtocolOptions"> {
  if (protocol !== "http2" && protocol !== "grpc") return {};
  return {
    typedExtensionProtocolOptions: {
      [HTTP_OPTIONS]: packed(HttpProtocolOptionsSchema, {
        upstreamProtocolOptions: {
          case: "explicitHttpConfig",
          value: { protocolConfig: { case: "http2ProtocolOptions", value: {} } },
        },
      }),
    },
  };
}

/** The program beside a sidecar, or a port of it that is exposed. */
export function localAppCluster(options: {
  readonly name: string;
  readonly connectTimeoutMs: number;
  readonly protocol: string;
  /** 0: no limit. */
  readonly maxConnections: number;
  readonly address: NonNullable<ReturnType<typeof socketAddress>>;
}): ClusterInit {
  const { name, connectTimeoutMs, protocol, address, maxConnections } = options;
  return {
    name,
    clusterDiscoveryType: { case: "type", value: Cluster_DiscoveryType.STATIC },
    connectTimeout: duration(connectTimeoutMs),
    loadAssignment: {
      clusterName: name,
      endpoints: [{ lbEndpoints: [{ hostIdentifier: { case: "endpoint", value: { address } } }] }],
    },
    ...(maxConnections > 0 && { circuitBreakers: circuitBreakers({ maxConnections }) }),
    ...(name !== LOCAL_APP
      ? http2Options(protocol)
      : (protocol === "http2" || protocol === "grpc") && {
          typedExtensionProtocolOptions: {
            [HTTP_OPTIONS]: packed(HttpProtocolOptionsSchema, {
              upstreamProtocolOptions: {
                case: "useDownstreamProtocolConfig",
                value: { httpProtocolOptions: {}, http2ProtocolOptions: {} },
              },
            }),
          },
        }),
  };
}

export const LOCAL_APP = "local_app";
export const ORIGINAL_DESTINATION = "original-destination";

/** Where a transparent proxy sends what it knows no upstream for. */
export function originalDestinationCluster(): ClusterInit {
  return {
    name: ORIGINAL_DESTINATION,
    clusterDiscoveryType: { case: "type", value: Cluster_DiscoveryType.ORIGINAL_DST },
    lbPolicy: Cluster_LbPolicy.CLUSTER_PROVIDED,
    connectTimeout: duration(5_000),
  };
}

/** Several clusters, of which the first with healthy endpoints gets the calls. */
export function aggregateCluster(name: string, connectTimeoutMs: number, clusters: readonly string[]): ClusterInit {
  const { name: type, configType } = named("envoy.clusters.aggregate", AggregateClusterSchema, {
    clusters: [...clusters],
  });
  return {
    name,
    altStatName: name,
    connectTimeout: duration(connectTimeoutMs),
    lbPolicy: Cluster_LbPolicy.CLUSTER_PROVIDED,
    clusterDiscoveryType: { case: "clusterType", value: { name: type, typedConfig: configType.value } },
  };
}

/** @param bare - without health and weight. */
export function loadAssignment(clusterName: string, list: readonly Endpoint[], bare = false): AssignmentInit {
  const lbEndpoints = list.map(({ address, port, healthy, weight }) => ({
    hostIdentifier: { case: "endpoint" as const, value: { address: socketAddress(address, port) } },
    ...(!bare && {
      healthStatus: healthy ? HealthStatus.HEALTHY : HealthStatus.UNHEALTHY,
      loadBalancingWeight: weight,
    }),
  }));
  return { clusterName, endpoints: [{ lbEndpoints }] };
}
