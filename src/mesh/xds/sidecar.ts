import { ipVersion } from "../../base/host-port.js";
import { isHttpLike } from "../../config/chain.js";
import {
  ConnectionLimitSchema,
  ForwardClientCertDetails,
  HeaderToMetadataSchema,
  HttpRbacSchema,
  NetworkRbacSchema,
  TrafficDirection,
} from "../../wire/envoy.js";
import { CARRIED_HEADER } from "../identity/carried.js";
import { joinPems, trustedDomains } from "../snapshot/bundles.js";
import type { PeeredService } from "../snapshot/peered.js";
import type { Upstream } from "../snapshot/settings.js";
import type { RoutedUpstream, SidecarSnapshot } from "../snapshot/sidecar.js";
import { ChainNames, type Connecting, chainClusters, peeredCluster, peeredTls } from "./chains.js";
import {
  type AssignmentInit,
  type ClusterInit,
  guarded,
  LOCAL_APP,
  localAppCluster,
  ORIGINAL_DESTINATION,
  originalDestinationCluster,
} from "./clusters.js";
import {
  type FilterChainInit,
  type FilterInit,
  type HttpFilterInit,
  httpFilter,
  type ListenerInit,
  listener,
  originalDst,
  statPrefix,
  tcpProxy,
} from "./listeners.js";
import { rbacRules } from "./rbac.js";
import type { DraftResources } from "./resources.js";
import { chainRoutes, plainRoute, type RouteInit } from "./routes.js";
import { TlsContexts, type TlsPlacement } from "./tls.js";
import { named, pipeAddress, socketAddress } from "./values.js";

const DEFAULT_CONNECT_TIMEOUT_MS = 5_000;
/** Of every upstream of a peer: one instance is one gateway, and all of them may be taken out. */
const MAX_EJECTION_PERCENT = 100;
const PUBLIC_LISTENER = "public_listener";
const OUTBOUND_LISTENER = "outbound_listener";

interface Drafts {
  readonly clusters: ClusterInit[];
  readonly endpoints: AssignmentInit[];
  readonly listeners: (ListenerInit & { readonly routes?: readonly string[] })[];
  readonly routes: RouteInit[];
}

/** The resources of the proxy beside a service. */
export function sidecarResources(snapshot: SidecarSnapshot, placement: TlsPlacement): DraftResources {
  const { service, trustDomain, rootPems, settings } = snapshot;
  const tls = new TlsContexts(placement, settings.fetchTimeoutMs);
  const connecting: Connecting = {
    snapshot,
    leaf: { name: `leaf/${service}`, leaf: snapshot.leaf },
    tls,
    roots: { name: `roots/${trustDomain}`, pem: joinPems(rootPems) },
  };
  const drafts: Drafts = { clusters: [localApp(snapshot)], endpoints: [], listeners: [], routes: [] };
  drafts.listeners.push(publicListener(snapshot, connecting));
  const transparent: Transparent[] = [];
  for (const upstream of snapshot.upstreams) addUpstream(upstream, connecting, drafts, transparent, snapshot);
  if (snapshot.transparentPort !== undefined) addOutbound(snapshot, snapshot.transparentPort, transparent, drafts);
  return { ...drafts, secrets: tls.secrets };
}

function localApp({ instance, settings }: SidecarSnapshot): ClusterInit {
  const { localServiceAddress = "", localServicePort = 0, localServiceSocketPath = "" } = instance.service.proxy ?? {};
  return localAppCluster({
    connectTimeoutMs: settings.localConnectTimeoutMs,
    protocol: settings.protocol,
    address:
      localServiceSocketPath === ""
        ? socketAddress(localServiceAddress || "127.0.0.1", localServicePort)
        : pipeAddress(localServiceSocketPath, 0),
  });
}

function publicListener(snapshot: SidecarSnapshot, { leaf, tls }: Connecting): ListenerInit {
  const { settings, mesh, instance, inboundBundles, trustDomain, rootPems } = snapshot;
  const { protocol } = settings;
  const http = isHttpLike(protocol);
  const rules = rbacRules({ ...snapshot, bundles: inboundBundles, http });
  const limit: FilterInit[] =
    settings.maxInboundConnections > 0
      ? [
          named("envoy.filters.network.connection_limit", ConnectionLimitSchema, {
            statPrefix: "inbound_connection_limit",
            maxConnections: BigInt(settings.maxInboundConnections),
          }),
        ]
      : [];
  const filters: FilterInit[] = http
    ? [...limit, inboundHttp(snapshot, named("envoy.filters.http.rbac", HttpRbacSchema, { rules }))]
    : [
        named("envoy.filters.network.rbac", NetworkRbacSchema, { rules, statPrefix: "connect_authz" }),
        ...limit,
        tcpProxy(PUBLIC_LISTENER, LOCAL_APP, settings.accessLogs),
      ];
  const transportSocket = tls.downstream({
    leaf,
    domains: trustedDomains({ trustDomain, rootPems }, inboundBundles),
    scope: snapshot.service,
    protocol,
    terms: mesh.incoming,
  });
  const address = [settings.bindAddress, instance.service.address].find((each) => ipVersion(each) !== 0) ?? "0.0.0.0";
  const port = settings.bindPort ?? instance.service.port;
  return listener(
    PUBLIC_LISTENER,
    { type: "port", address, port },
    {
      trafficDirection: TrafficDirection.INBOUND,
      filterChains: [{ filters, transportSocket }],
      logs: settings.accessLogs,
      balancesExactly: settings.balancesInboundExactly,
    },
  );
}

function inboundHttp(snapshot: SidecarSnapshot, rbac: HttpFilterInit): FilterInit {
  const { settings, mesh } = snapshot;
  const peered =
    snapshot.intentions.some(({ source }) => source.peer !== undefined) && snapshot.inboundBundles.length > 0;
  // Without it the rules for callers of peers would fit none. Consul leaves it out for gRPC, and such rules are void there.
  const forwards = !mesh.sanitizesClientCertificates && (settings.protocol !== "grpc" || peered);
  return httpFilter({
    statPrefix: PUBLIC_LISTENER,
    protocol: settings.protocol,
    routes: plainRoute(PUBLIC_LISTENER, PUBLIC_LISTENER, LOCAL_APP, {
      timeoutMs: settings.localRequestTimeoutMs,
      idleTimeoutMs: settings.localIdleTimeoutMs,
    }),
    fetchTimeoutMs: settings.fetchTimeoutMs,
    logs: settings.accessLogs,
    filters: [rbac, ...(forwards && settings.protocol !== "grpc" ? [headerToMetadata()] : [])],
    normalizesPaths: mesh.normalizesPaths,
    ...(forwards && { forwarding: ForwardClientCertDetails.APPEND_FORWARD }),
  });
}

const CALLER = ".*URI=spiffe://([^/]+.[^/]+)(?:/ap/([^/]+))?/ns/([^/]+)/dc/([^/]+)/svc/([^/;,]+).*";

function headerToMetadata(): HttpFilterInit {
  const keys = ["trust-domain", "partition", "namespace", "datacenter", "service"];
  return named("envoy.filters.http.header_to_metadata", HeaderToMetadataSchema, {
    requestRules: keys.map((key, index) => ({
      header: CARRIED_HEADER,
      onHeaderPresent: {
        metadataNamespace: "consul",
        key,
        regexValueRewrite: { pattern: { regex: CALLER }, substitution: `\\${index + 1}` },
      },
    })),
  });
}

function addUpstream(
  routed: RoutedUpstream,
  connecting: Connecting,
  drafts: Drafts,
  transparent: Transparent[],
  snapshot: SidecarSnapshot,
): void {
  const { upstream, route, virtualIps } = routed;
  const outbound =
    route.type === "peered"
      ? peeredOutbound(upstream, route.service, connecting, drafts)
      : chainOutbound(upstream, route, connecting, drafts, snapshot);
  if (outbound === undefined) return;
  const { filter, routes } = outbound;
  const { settings } = snapshot;
  if (upstream.bind !== undefined) {
    const made = listener(upstream.name, upstream.bind, {
      trafficDirection: TrafficDirection.OUTBOUND,
      filterChains: [{ filters: [filter] }],
      logs: settings.accessLogs,
      balancesExactly: upstream.settings.balancesExactly,
    });
    drafts.listeners.push({ ...made, routes });
  } else transparent.push({ addresses: virtualIps, filter, routes });
}

/** An upstream without a port of its own: a transparent proxy knows it by its addresses. */
interface Transparent extends Outbound {
  readonly addresses: readonly string[];
}

interface Outbound {
  readonly filter: FilterInit;
  /** Names of routes that come by themselves. */
  readonly routes: readonly string[];
}

function peeredOutbound(
  { name, settings }: Upstream,
  service: PeeredService,
  connecting: Connecting,
  drafts: Drafts,
): Outbound {
  const { snapshot } = connecting;
  const { clusterName } = service;
  const connectTimeoutMs = settings.connectTimeoutMs || DEFAULT_CONNECT_TIMEOUT_MS;
  const { cluster, assignment } = peeredCluster(
    service,
    clusterName,
    settings.meshGatewayMode,
    connectTimeoutMs,
    snapshot,
  );
  drafts.clusters.push(
    guarded(cluster, {
      passive: { ...settings.passiveHealthCheck, maxEjectionPercent: MAX_EJECTION_PERCENT },
      thresholds: settings.thresholds,
      protocol: service.protocol,
      transportSocket: peeredTls(service, connecting),
    }),
  );
  if (assignment !== undefined) drafts.endpoints.push(assignment);
  const filterName = `${service.service}.default.${service.peer}`;
  const filter = outboundFilter({
    prefix: statPrefix("upstream_peered.", filterName),
    protocol: service.protocol,
    cluster: clusterName,
    routes: plainRoute(name, filterName, clusterName),
    connecting,
  });
  return { filter, routes: [] };
}

function chainOutbound(
  { name, id, settings }: Upstream,
  { chain, places }: Extract<RoutedUpstream["route"], { readonly type: "chain" }>,
  connecting: Connecting,
  drafts: Drafts,
  snapshot: SidecarSnapshot,
): Outbound | undefined {
  const names = new ChainNames(chain, places, snapshot);
  const { clusters, assignments } = chainClusters(chain, places, settings, names, connecting);
  const start = chain.nodes.get(chain.start);
  const first = start?.type === "resolver" ? names.of(start) : undefined;
  const filterName = `${id.name}.default.default.${chain.datacenter}`;
  const prefix = statPrefix("upstream.", filterName);
  const add = (): void => {
    drafts.clusters.push(...clusters);
    drafts.endpoints.push(...assignments);
  };
  if (!isHttpLike(chain.protocol) || (chain.isDefault && first !== undefined)) {
    if (first === undefined) return undefined;
    add();
    const routes = plainRoute(name, filterName, first);
    return {
      filter: outboundFilter({ prefix, protocol: chain.protocol, cluster: first, routes, connecting }),
      routes: [],
    };
  }
  const routes = chainRoutes(name, chain, (resolver) => names.of(resolver), snapshot.mesh.validatesClusters);
  if (routes === undefined) return undefined;
  add();
  drafts.routes.push(routes);
  return {
    filter: outboundFilter({ prefix, protocol: chain.protocol, cluster: "", routes: name, connecting }),
    routes: [name],
  };
}

function outboundFilter(options: {
  readonly prefix: string;
  readonly protocol: string;
  readonly cluster: string;
  readonly routes: RouteInit | string;
  readonly connecting: Connecting;
}): FilterInit {
  const { prefix, protocol, cluster, routes, connecting } = options;
  const { accessLogs: logs, fetchTimeoutMs } = connecting.snapshot.settings;
  if (!isHttpLike(protocol)) return tcpProxy(prefix, cluster, logs);
  return httpFilter({ statPrefix: prefix, protocol, routes, fetchTimeoutMs, logs });
}

/** Each address leads to one upstream, or Envoy refuses the listener: the first one by name that has it. */
function addressed(
  upstreams: readonly Transparent[],
): readonly { readonly chain: FilterChainInit; readonly routes: readonly string[] }[] {
  const taken = new Set<string>();
  return upstreams.flatMap(({ addresses, filter, routes }) => {
    const own = addresses.filter((address) => ipVersion(address) !== 0 && !taken.has(address));
    for (const address of own) taken.add(address);
    if (own.length === 0) return [];
    const prefixRanges = own.map((address) => ({
      addressPrefix: address,
      prefixLen: ipVersion(address) === 6 ? 128 : 32,
    }));
    return [{ chain: { filterChainMatch: { prefixRanges }, filters: [filter] }, routes }];
  });
}

function addOutbound(
  { settings, mesh }: SidecarSnapshot,
  port: number,
  upstreams: readonly Transparent[],
  drafts: Drafts,
): void {
  const passesOn = !mesh.destinationsOnly;
  const chains = addressed(upstreams);
  if (chains.length === 0 && !passesOn) return;
  if (passesOn) drafts.clusters.push(originalDestinationCluster());
  const made = listener(
    OUTBOUND_LISTENER,
    { type: "port", address: "127.0.0.1", port },
    {
      trafficDirection: TrafficDirection.OUTBOUND,
      filterChains: chains.map(({ chain }) => chain),
      listenerFilters: [originalDst()],
      logs: settings.accessLogs,
    },
  );
  drafts.listeners.push({
    ...made,
    routes: chains.flatMap(({ routes }) => routes),
    ...(passesOn && {
      defaultFilterChain: {
        filters: [tcpProxy(statPrefix("upstream.", ORIGINAL_DESTINATION), ORIGINAL_DESTINATION, settings.accessLogs)],
      },
    }),
  });
}
