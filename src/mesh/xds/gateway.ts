import { isHttpLike } from "../../config/chain.js";
import { serviceUri } from "../../trust/leaf.js";
import { ForwardClientCertDetails, TrafficDirection } from "../../wire/envoy.js";
import { joinPems, trustedDomains } from "../snapshot/bundles.js";
import type { ExportedRoute, MeshGatewaySnapshot, SplicedCluster } from "../snapshot/gateway.js";
import { upstreamSettings } from "../snapshot/settings.js";
import { ChainNames, targetSni } from "./chains.js";
import {
  type AssignmentInit,
  type ClusterInit,
  circuitBreakers,
  clusterFor,
  guarded,
  loadAssignment,
} from "./clusters.js";
import {
  type FilterChainInit,
  httpFilter,
  listener,
  sniCluster,
  statPrefix,
  tcpProxy,
  tlsInspector,
} from "./listeners.js";
import type { DraftResources } from "./resources.js";
import { chainRoutes, type RouteInit } from "./routes.js";
import { type NamedLeaf, TlsContexts, type TlsPlacement } from "./tls.js";

const EXPORTED = "exported~";
const LEAF_NAME = "leaf/mesh-gateway";

interface Drafts {
  readonly clusters: ClusterInit[];
  readonly endpoints: AssignmentInit[];
  readonly routes: RouteInit[];
}

/** The resources of a mesh gateway. */
export function meshGatewayResources(snapshot: MeshGatewaySnapshot, placement: TlsPlacement): DraftResources {
  const { settings, exported } = snapshot;
  const tls = new TlsContexts(placement, settings.fetchTimeoutMs);
  const drafts: Drafts = { clusters: [], endpoints: [], routes: [] };
  for (const cluster of snapshot.local) addPlain(cluster, snapshot, drafts);
  for (const cluster of snapshot.imported) addPlain(cluster, snapshot, drafts, true);
  const chains: { readonly chain: FilterChainInit; readonly route: string | undefined }[] = [];
  for (const route of exported) {
    const added = addExported(route, snapshot, tls, drafts);
    if (added !== undefined) chains.push(added);
  }
  addServers(snapshot, drafts);
  const listeners = snapshot.listeners.map(({ name, address, port }) => {
    const made = listener(
      name,
      { type: "port", address, port },
      {
        trafficDirection: TrafficDirection.UNSPECIFIED,
        filterChains: [...chains.map(({ chain }) => chain), ...serverChains(snapshot, name), spliced(snapshot, name)],
        listenerFilters: [tlsInspector()],
        logs: settings.accessLogs,
      },
    );
    return { ...made, routes: chains.flatMap(({ route }) => route ?? []) };
  });
  return { ...drafts, listeners, secrets: tls.secrets };
}

function addPlain(
  { name, endpoints }: SplicedCluster,
  { settings, thresholds }: MeshGatewaySnapshot,
  drafts: Drafts,
  remote = false,
): void {
  const { gateway, fetchTimeoutMs } = settings;
  const cluster = clusterFor(name, endpoints, { connectTimeoutMs: gateway.connectTimeoutMs, fetchTimeoutMs, gateway });
  const { keepalive } = gateway;
  drafts.clusters.push({
    ...cluster,
    ...(thresholds !== undefined && { circuitBreakers: circuitBreakers(thresholds) }),
    ...(remote &&
      keepalive !== undefined && {
        upstreamConnectionOptions: {
          tcpKeepalive: {
            ...(keepalive.time !== undefined && { keepaliveTime: keepalive.time }),
            ...(keepalive.interval !== undefined && { keepaliveInterval: keepalive.interval }),
            ...(keepalive.probes !== undefined && { keepaliveProbes: keepalive.probes }),
          },
        },
      }),
  });
  if (!endpoints.hostnames) drafts.endpoints.push(loadAssignment(name, [endpoints.list]));
}

/** Connections of the callers of peers: of HTTP-like protocols they end here, others are passed on as they are. */
function addExported(
  { service, serverNames, chain, places, bundles }: ExportedRoute,
  snapshot: MeshGatewaySnapshot,
  tls: TlsContexts,
  drafts: Drafts,
): { readonly chain: FilterChainInit; readonly route: string | undefined } | undefined {
  const { settings, mesh, trustDomain, rootPems, datacenter, leaf } = snapshot;
  const { fetchTimeoutMs, gateway, accessLogs: logs } = settings;
  const http = isHttpLike(chain.protocol);
  if (http && leaf === undefined) return undefined;
  const own: NamedLeaf | undefined = leaf && { name: LEAF_NAME, leaf };
  const names = new ChainNames(chain, places, snapshot, EXPORTED);
  const plain = upstreamSettings(undefined, "");
  const clusters: ClusterInit[] = [];
  const assignments: AssignmentInit[] = [];
  for (const resolver of names.resolvers) {
    const place = places.get(resolver.target);
    if (place?.type !== "local") continue;
    const name = names.ofPlace(place);
    const transportSocket =
      http && own !== undefined
        ? tls.upstream({
            leaf: own,
            roots: { name: `roots/${trustDomain}`, pem: joinPems(rootPems) },
            sni: targetSni(snapshot, place.target),
            spiffeIds: [serviceUri({ trustDomain, datacenter, service: place.target.service })],
            terms: mesh.outgoing,
          })
        : undefined;
    const connectTimeoutMs = resolver.connectTimeoutMs || gateway.connectTimeoutMs;
    const cluster = clusterFor(name, place.endpoints, { connectTimeoutMs, fetchTimeoutMs, gateway });
    const { passiveHealthCheck: passive } = plain;
    const { thresholds } = snapshot;
    clusters.push({
      ...guarded(cluster, { passive, thresholds, protocol: http ? chain.protocol : "tcp", transportSocket }),
      altStatName: name,
    });
    if (!place.endpoints.hostnames) assignments.push(loadAssignment(name, [place.endpoints.list]));
  }
  const prefix = statPrefix("mesh_gateway_local_peered.", `${service}.default.default.${datacenter}`);
  const match = { filterChainMatch: { serverNames: [...serverNames] } };
  const add = (): void => {
    drafts.clusters.push(...clusters);
    drafts.endpoints.push(...assignments);
  };
  if (!http || own === undefined) {
    const start = chain.nodes.get(chain.start);
    const cluster = start?.type === "resolver" ? names.of(start) : undefined;
    if (cluster === undefined) return undefined;
    add();
    return { chain: { ...match, filters: [tcpProxy(prefix, cluster, logs)] }, route: undefined };
  }
  const routes = chainRoutes(service, chain, (resolver) => names.of(resolver), mesh.validatesClusters);
  if (routes === undefined) return undefined;
  add();
  drafts.routes.push(routes);
  const transportSocket = tls.downstream({
    leaf: own,
    domains: trustedDomains({ trustDomain, rootPems }, bundles),
    scope: `exported/${service}`,
    protocol: settings.protocol,
    terms: mesh.incoming,
  });
  const filter = httpFilter({
    statPrefix: prefix,
    protocol: chain.protocol,
    routes: service,
    fetchTimeoutMs,
    logs,
    forwarding: ForwardClientCertDetails.SANITIZE_SET,
  });
  return { chain: { ...match, filters: [filter], transportSocket }, route: service };
}

/** All others: the name on the connection is that of the cluster. */
function spliced({ settings }: MeshGatewaySnapshot, base: string): FilterChainInit {
  return { filters: [sniCluster(), tcpProxy(statPrefix("mesh_gateway_local.", base), "", settings.accessLogs)] };
}

function serverChains(
  { servers, peerServers, settings, datacenter }: MeshGatewaySnapshot,
  base: string,
): readonly FilterChainInit[] {
  const chain = (name: string, prefix: string): FilterChainInit => ({
    filterChainMatch: { serverNames: [name] },
    filters: [tcpProxy(prefix, name, settings.accessLogs)],
  });
  return [
    ...(servers === undefined
      ? []
      : [chain(servers.serverName, statPrefix("mesh_gateway_local_peering_server.", `${base}.${datacenter}`))]),
    ...peerServers.map(({ name }) => chain(name, statPrefix("mesh_gateway_remote_peering_servers.", name))),
  ];
}

function addServers({ servers, peerServers, settings }: MeshGatewaySnapshot, drafts: Drafts): void {
  const { gateway, fetchTimeoutMs } = settings;
  const own =
    servers === undefined
      ? []
      : [{ name: servers.serverName, endpoints: servers.endpoints ?? { list: [], hostnames: false } }];
  for (const { name, endpoints } of [...own, ...peerServers]) {
    const strict = { ...gateway, strictDns: true };
    drafts.clusters.push(
      clusterFor(name, endpoints, { connectTimeoutMs: gateway.connectTimeoutMs, fetchTimeoutMs, gateway: strict }),
    );
    if (!endpoints.hostnames && endpoints.list.length > 0)
      drafts.endpoints.push(loadAssignment(name, [endpoints.list], true));
  }
}
