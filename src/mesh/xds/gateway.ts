import { StepMeter, type Steps } from "../../base/steps.js";
import { isHttpLike } from "../../config/chain.js";
import { serviceUri } from "../../trust/leaf.js";
import { ForwardClientCertDetails, TrafficDirection } from "../../wire/envoy.js";
import { joinPems, trustedDomains } from "../snapshot/bundles.js";
import type { ExportedRoute, MeshGatewaySnapshot, SplicedCluster } from "../snapshot/gateway.js";
import { upstreamSettings } from "../snapshot/settings.js";
import { ChainNames, targetSni } from "./chains.js";
import { type ClusterInit, circuitBreakers, clusterFor, guarded, loadBalancing } from "./clusters.js";
import { commonParts, type ExportedPart, type MadeResources, type MakingOptions, ownTracing } from "./kept-parts.js";
import {
  type FilterChainInit,
  httpFilter,
  listener,
  sniCluster,
  statPrefix,
  tcpProxy,
  tlsInspector,
} from "./listeners.js";
import { type Assignment, type EncodedResources, encodedChain } from "./resources.js";
import { chainRoutes, type RouteInit } from "./routes.js";
import { type NamedLeaf, TlsContexts } from "./tls.js";

const EXPORTED = "exported~";
const LEAF_NAME = "leaf/mesh-gateway";

interface Drafts {
  readonly clusters: ClusterInit[];
  readonly endpoints: Assignment[];
  readonly routes: RouteInit[];
}

/** The resources of a mesh gateway. */
export function* meshGatewayResources(snapshot: MeshGatewaySnapshot, options: MakingOptions): Steps<MadeResources> {
  const { settings, exported, local, imported } = snapshot;
  const { kept, encoder } = options;
  const common = [...commonParts(snapshot, snapshot.leaf, options), JSON.stringify(snapshot.thresholds)];
  const problems: string[] = [];
  const tracing = ownTracing(snapshot, options, (text) => problems.push(text));
  const made: EncodedResources[] = [];
  const meter = new StepMeter();
  for (const [clusters, remote] of [
    [local, false],
    [imported, true],
  ] as const) {
    for (const cluster of clusters) {
      let size = CLUSTER_SIZE;
      // Endpoints of imports are found again each time; those of local services are the same until they change.
      const endpoints = remote ? JSON.stringify(cluster.endpoints) : cluster.endpoints;
      const make = (): EncodedResources => {
        size = MADE_CLUSTER_SIZE;
        const drafts = emptyDrafts();
        addPlain(cluster, snapshot, drafts, remote);
        return encoder.encode({ ...drafts, listeners: [], secrets: [] });
      };
      made.push(kept.plain.of(`${remote} ${cluster.name}`, [...common, endpoints], make));
      if (meter.isOver(size)) yield;
    }
  }
  const chains: ExportedPart[] = [];
  for (const route of exported) {
    let size = CLUSTER_SIZE;
    const part = kept.exported.of(route.service, [...common, ...exportedParts(route)], () => {
      size = MADE_CLUSTER_SIZE;
      return exportedPart(route, snapshot, tracing, options);
    });
    if (meter.isOver(size)) yield;
    if (part === undefined) continue;
    chains.push(part);
    made.push(part.resources);
  }
  if (chains.length > 0) yield;
  const drafts = emptyDrafts();
  addServers(snapshot, drafts);
  const listeners = snapshot.listeners.map(({ name, address, port }) => {
    const parts = {
      trafficDirection: TrafficDirection.UNSPECIFIED,
      filterChains: [...serverChains(snapshot, name), spliced(snapshot, name)],
      listenerFilters: [tlsInspector()],
      logs: settings.accessLogs,
    };
    return {
      ...listener(name, { type: "port", address, port }, parts),
      encodedChains: chains.map(({ chain }) => chain),
      routes: chains.flatMap(({ route }) => route ?? []),
    };
  });
  made.push(encoder.encode({ ...drafts, listeners, secrets: [] }));
  return { parts: made, problems };
}

/** Cost of looking at one cluster, in the fields of a step, and of making one. */
const CLUSTER_SIZE = 100;
const MADE_CLUSTER_SIZE = 1_000;

function emptyDrafts(): Drafts {
  return { clusters: [], endpoints: [], routes: [] };
}

function exportedParts({ serverNames, chain, places, bundles }: ExportedRoute): readonly unknown[] {
  const parts: unknown[] = [chain, JSON.stringify([serverNames, bundles])];
  // A gateway leads to no other cluster.
  for (const [id, place] of places) if (place.type === "local") parts.push(id, place.endpoints);
  return parts;
}

function exportedPart(
  route: ExportedRoute,
  snapshot: MeshGatewaySnapshot,
  tracing: Uint8Array | undefined,
  options: MakingOptions,
): ExportedPart | undefined {
  const tls = new TlsContexts(options.placement, snapshot.settings.fetchTimeoutMs);
  const drafts = emptyDrafts();
  const added = addExported(route, snapshot, tracing, tls, drafts);
  if (added === undefined) return undefined;
  const resources = options.encoder.encode({ ...drafts, listeners: [], secrets: tls.secrets });
  return { resources, chain: encodedChain(added.chain), route: added.route };
}

function addPlain(
  { name, endpoints }: SplicedCluster,
  { settings, thresholds }: MeshGatewaySnapshot,
  drafts: Drafts,
  remote: boolean,
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
  if (!endpoints.hostnames) drafts.endpoints.push({ clusterName: name, endpoints: endpoints.list });
}

/** Connections of the callers of peers: of HTTP-like protocols they end here, others are passed on as they are. */
function addExported(
  { service, serverNames, chain, places, bundles }: ExportedRoute,
  snapshot: MeshGatewaySnapshot,
  tracing: Uint8Array | undefined,
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
  const assignments: Assignment[] = [];
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
      ...loadBalancing(resolver.loadBalancer),
    });
    if (!place.endpoints.hostnames) assignments.push({ clusterName: name, endpoints: place.endpoints.list });
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
    tracing,
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
      drafts.endpoints.push({ clusterName: name, endpoints: endpoints.list, bare: true });
  }
}
