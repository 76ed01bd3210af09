import { ipVersion, isPort } from "../../base/host-port.js";
import { StepMeter, type Steps } from "../../base/steps.js";
import { isHttpLike } from "../../config/chain.js";
import { emptyProxy } from "../../model/instance.js";
import {
  ConnectionLimitSchema,
  FilterSchema,
  ForwardClientCertDetails,
  HeaderToMetadataSchema,
  HttpFilterSchema,
  HttpRbacSchema,
  NetworkRbacSchema,
  TrafficDirection,
  TransportSocketSchema,
} from "../../wire/envoy.js";
import { CARRIED_HEADER } from "../identity/carried.js";
import { joinPems, trustedDomains } from "../snapshot/bundles.js";
import type { PeeredService } from "../snapshot/peered.js";
import type { ExposedPath, Upstream } from "../snapshot/settings.js";
import type { RoutedUpstream, SidecarSnapshot } from "../snapshot/sidecar.js";
import { ChainNames, type Connecting, chainClusters, peeredCluster, peeredTls } from "./chains.js";
import {
  type ClusterInit,
  guarded,
  LOCAL_APP,
  localAppCluster,
  ORIGINAL_DESTINATION,
  originalDestinationCluster,
} from "./clusters.js";
import {
  commonParts,
  type MadeResources,
  type MakingOptions,
  orProblem,
  ownTracing,
  type TransparentOutbound,
  type UpstreamPart,
} from "./kept-parts.js";
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
import type { OwnResource, Protection } from "./own-resources.js";
import { rbacRules } from "./rbac.js";
import { type Assignment, type DraftListener, type EncodedResources, encodedChain } from "./resources.js";
import { chainRoutes, plainRoute, type RouteInit } from "./routes.js";
import { TlsContexts } from "./tls.js";
import { bytesOf, named, pipeAddress, socketAddress } from "./values.js";

const DEFAULT_CONNECT_TIMEOUT_MS = 5_000;
/** Of every upstream of a peer: one instance is one gateway, and all of them may be taken out. */
const MAX_EJECTION_PERCENT = 100;
const PUBLIC_LISTENER = "public_listener";
const OUTBOUND_LISTENER = "outbound_listener";

interface Drafts {
  readonly clusters: ClusterInit[];
  readonly endpoints: Assignment[];
  readonly listeners: DraftListener[];
  readonly routes: RouteInit[];
  readonly own: { readonly clusters: OwnResource[]; readonly listeners: OwnResource[] };
  /** Resources that operators wrote and that cannot be taken, and why. */
  readonly problems: string[];
}

/** The resources of the proxy beside a service. */
export function* sidecarResources(snapshot: SidecarSnapshot, options: MakingOptions): Steps<MadeResources> {
  const { kept, encoder } = options;
  const common = commonParts(snapshot, snapshot.leaf, options);
  const problems: string[] = [];
  const tracing = ownTracing(snapshot, options, (text) => problems.push(text));
  const inner = kept.inbound.of("", inboundParts(snapshot, common), () => inbound(snapshot, tracing, options));
  const made: EncodedResources[] = [inner.resources];
  problems.push(...inner.problems);
  const transparent: UpstreamPart[] = [];
  const meter = new StepMeter();
  for (const upstream of snapshot.upstreams) {
    let size = UPSTREAM_SIZE;
    const part = kept.upstreams.of(upstream.upstream.name, [...common, ...upstreamParts(upstream)], () => {
      size = MADE_UPSTREAM_SIZE;
      return upstreamPart(upstream, snapshot, tracing, options);
    });
    if (meter.isOver(size)) yield;
    made.push(part.resources);
    problems.push(...part.problems);
    if (part.outbound !== undefined) transparent.push(part);
  }
  const { transparentPort } = snapshot;
  if (transparentPort !== undefined) {
    if (transparent.length > UNSTEPPED) yield;
    const drafts = emptyDrafts();
    addOutbound(snapshot, transparentPort, transparent, drafts);
    if (transparent.length > UNSTEPPED) yield;
    made.push(encoder.encode({ ...drafts, secrets: [] }));
  }
  return { parts: made, problems };
}

/** Cost of looking at one upstream, in the fields of a step, and of making its resources. */
const UPSTREAM_SIZE = 100;
const MADE_UPSTREAM_SIZE = 2_000;
/** For so few upstreams a listener is no step of its own. */
const UNSTEPPED = 1_000;

function emptyDrafts(): Drafts {
  return { clusters: [], endpoints: [], listeners: [], routes: [], own: { clusters: [], listeners: [] }, problems: [] };
}

function connectingBy(
  snapshot: SidecarSnapshot,
  tracing: Uint8Array | undefined,
  { placement }: MakingOptions,
): Connecting {
  const { service, trustDomain, rootPems, settings, leaf } = snapshot;
  return {
    snapshot,
    tracing,
    leaf: { name: `leaf/${service}`, leaf },
    tls: new TlsContexts(placement, settings.fetchTimeoutMs),
    roots: { name: `roots/${trustDomain}`, pem: joinPems(rootPems) },
  };
}

/** All that calls from elsewhere meet. */
function inbound(snapshot: SidecarSnapshot, tracing: Uint8Array | undefined, options: MakingOptions): UpstreamPart {
  const connecting = connectingBy(snapshot, tracing, options);
  const drafts = emptyDrafts();
  const { publicListener: ownListener, localCluster: ownCluster } = snapshot.settings.own;
  const { own } = options.encoder;
  const problem = problemOf(drafts);
  if (ownCluster === "") drafts.clusters.push(localApp(snapshot));
  else {
    const instead = "no request gets to the service";
    const cluster = orProblem("envoy_local_cluster_json", instead, problem, () => own.cluster(ownCluster, undefined));
    if (cluster !== undefined) drafts.own.clusters.push(cluster);
  }
  if (ownListener === "") drafts.listeners.push(publicListener(snapshot, connecting));
  else {
    const listener = orProblem(OWN_PUBLIC_LISTENER, "no caller gets to the service", problem, () =>
      own.publicListener(ownListener, protection(snapshot, connecting)),
    );
    if (listener !== undefined) drafts.own.listeners.push(listener);
    if (listener?.byRequests === false && isHttpLike(snapshot.settings.protocol)) {
      problem(`${OWN_PUBLIC_LISTENER}: a filter chain manages no requests, so connections alone are judged`);
    }
  }
  addExposed(snapshot, drafts);
  return partOf(drafts, connecting, options, undefined);
}

const OWN_PUBLIC_LISTENER = "envoy_public_listener_json";

function partOf(
  drafts: Drafts,
  { tls }: Connecting,
  { encoder }: MakingOptions,
  outbound: TransparentOutbound | undefined,
): UpstreamPart {
  return { resources: encoder.encode({ ...drafts, secrets: tls.secrets }), outbound, problems: drafts.problems };
}

/** The parts that judge callers, for a listener that an operator writes. */
function protection(snapshot: SidecarSnapshot, connecting: Connecting): Protection {
  const http = isHttpLike(snapshot.settings.protocol);
  return {
    http: http ? bytesOf(HttpFilterSchema, requestRules(snapshot)) : undefined,
    network: bytesOf(FilterSchema, connectionRules(snapshot)),
    transportSocket: bytesOf(TransportSocketSchema, callersTls(snapshot, connecting)),
  };
}

function requestRules(snapshot: SidecarSnapshot): HttpFilterInit {
  const rules = rbacRules({ ...snapshot, bundles: snapshot.inboundBundles, http: true });
  return named("envoy.filters.http.rbac", HttpRbacSchema, { rules });
}

function connectionRules(snapshot: SidecarSnapshot): FilterInit {
  const rules = rbacRules({ ...snapshot, bundles: snapshot.inboundBundles, http: false });
  return named("envoy.filters.network.rbac", NetworkRbacSchema, { rules, statPrefix: "connect_authz" });
}

function callersTls(snapshot: SidecarSnapshot, { leaf, tls }: Connecting): ReturnType<TlsContexts["downstream"]> {
  const { trustDomain, rootPems, inboundBundles, service, settings, mesh } = snapshot;
  return tls.downstream({
    leaf,
    domains: trustedDomains({ trustDomain, rootPems }, inboundBundles),
    scope: service,
    protocol: settings.protocol,
    terms: mesh.incoming,
  });
}

function inboundParts(snapshot: SidecarSnapshot, common: readonly unknown[]): readonly unknown[] {
  const { instance, entries, inboundBundles, allowsByDefault, checkPaths, checkSources } = snapshot;
  const { address, port, proxy } = instance.service;
  const { localServiceAddress, localServicePort, localServiceSocketPath } = proxy ?? emptyProxy;
  const local = [localServiceAddress, localServicePort, localServiceSocketPath];
  const checks = [checkPaths, checkSources];
  // Intentions come from the entries.
  return [...common, entries, JSON.stringify([inboundBundles, allowsByDefault, address, port, local, checks])];
}

function upstreamParts({ upstream, virtualIps, route }: RoutedUpstream): readonly unknown[] {
  const parts: unknown[] = [JSON.stringify([upstream, virtualIps])];
  if (route.type === "peered") return [...parts, peeredText(route.service)];
  parts.push(route.chain);
  for (const [id, place] of route.places) {
    parts.push(id, place.type === "local" ? place.endpoints : peeredText(place.service));
  }
  return parts;
}

function peeredText(service: PeeredService): string {
  return JSON.stringify({ ...service, instances: [] });
}

function upstreamPart(
  routed: RoutedUpstream,
  snapshot: SidecarSnapshot,
  tracing: Uint8Array | undefined,
  options: MakingOptions,
): UpstreamPart {
  const connecting = connectingBy(snapshot, tracing, options);
  const drafts = emptyDrafts();
  const outbound = addUpstream(routed, connecting, drafts, snapshot, options);
  return partOf(drafts, connecting, options, outbound);
}

function localApp(snapshot: SidecarSnapshot): ClusterInit {
  const { localServicePort = 0 } = snapshot.instance.service.proxy ?? {};
  return localCluster(snapshot, LOCAL_APP, localServicePort, snapshot.settings.protocol);
}

function localCluster(
  { instance, settings }: SidecarSnapshot,
  name: string,
  port: number,
  protocol: string,
): ClusterInit {
  const { localServiceAddress = "", localServiceSocketPath = "" } = instance.service.proxy ?? {};
  return localAppCluster({
    name,
    connectTimeoutMs: settings.localConnectTimeoutMs,
    protocol,
    maxConnections: settings.maxInboundConnections,
    address:
      localServiceSocketPath === ""
        ? socketAddress(localServiceAddress || "127.0.0.1", port)
        : pipeAddress(localServiceSocketPath, 0),
  });
}

/**
 * Paths that are reached without certificates: each has a listener, which leads to no other path. Those that settings name, such as metrics,
 * are open to anyone; those of checks to the machine of the agent.
 */
function addExposed(snapshot: SidecarSnapshot, drafts: Drafts): void {
  const { settings, checkPaths, checkSources } = snapshot;
  addPaths(settings.exposedPaths, undefined, snapshot, drafts);
  addPaths(checkPaths, { sourcePrefixRanges: checkSources.map(cidrRange) }, snapshot, drafts);
}

function cidrRange(text: string): { readonly addressPrefix: string; readonly prefixLen: number } {
  const [addressPrefix = "", length] = text.split("/");
  return { addressPrefix, prefixLen: Number(length) };
}

function addPaths(
  paths: readonly ExposedPath[],
  match: FilterChainInit["filterChainMatch"],
  snapshot: SidecarSnapshot,
  drafts: Drafts,
): void {
  const { settings, instance } = snapshot;
  const { localServicePort = 0 } = instance.service.proxy ?? {};
  for (const { path, listenerPort, localPort, protocol } of paths) {
    if (path === "" || !isPort(listenerPort) || !isPort(localPort)) {
      drafts.problems.push(`exposed path ${JSON.stringify(path)}: it needs a path, ListenerPort and LocalPathPort`);
      continue;
    }
    const ownPort = localPort !== localServicePort;
    const cluster = ownPort ? `exposed_cluster_${localPort}` : LOCAL_APP;
    if (ownPort) drafts.clusters.push(localCluster(snapshot, cluster, localPort, protocol));
    const plain = path.replace(/[^a-zA-Z0-9]+/g, "");
    const name = `exposed_path_filter_${plain}_${listenerPort}`;
    const filter = httpFilter({
      statPrefix: statPrefix("", name),
      protocol,
      routes: plainRoute(name, name, cluster, { path }),
      fetchTimeoutMs: settings.fetchTimeoutMs,
      logs: settings.accessLogs,
    });
    drafts.listeners.push(
      listener(
        `exposed_path_${plain}`,
        { type: "port", address: bindAddressOf(snapshot), port: listenerPort },
        {
          trafficDirection: TrafficDirection.INBOUND,
          filterChains: [{ ...(match !== undefined && { filterChainMatch: match }), filters: [filter] }],
          logs: settings.accessLogs,
        },
      ),
    );
  }
}

function publicListener(snapshot: SidecarSnapshot, connecting: Connecting): ListenerInit {
  const { settings } = snapshot;
  const { protocol } = settings;
  const limit: FilterInit[] =
    settings.maxInboundConnections > 0
      ? [
          named("envoy.filters.network.connection_limit", ConnectionLimitSchema, {
            statPrefix: "inbound_connection_limit",
            maxConnections: BigInt(settings.maxInboundConnections),
          }),
        ]
      : [];
  const filters: FilterInit[] = isHttpLike(protocol)
    ? [...limit, inboundHttp(snapshot, connecting, requestRules(snapshot))]
    : [connectionRules(snapshot), ...limit, tcpProxy(PUBLIC_LISTENER, LOCAL_APP, settings.accessLogs)];
  return listener(
    PUBLIC_LISTENER,
    { type: "port", address: bindAddressOf(snapshot), port: settings.bindPort ?? snapshot.instance.service.port },
    {
      trafficDirection: TrafficDirection.INBOUND,
      filterChains: [{ filters, transportSocket: callersTls(snapshot, connecting) }],
      logs: settings.accessLogs,
      balancesExactly: settings.balancesInboundExactly,
    },
  );
}

function bindAddressOf({ settings, instance }: SidecarSnapshot): string {
  return [settings.bindAddress, instance.service.address].find((each) => ipVersion(each) !== 0) ?? "0.0.0.0";
}

function inboundHttp(snapshot: SidecarSnapshot, { tracing }: Connecting, rbac: HttpFilterInit): FilterInit {
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
    normalization: mesh,
    tracing,
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
  snapshot: SidecarSnapshot,
  options: MakingOptions,
): TransparentOutbound | undefined {
  const { upstream, route, virtualIps } = routed;
  const own = ownOf(routed, drafts);
  const outbound =
    route.type === "peered"
      ? peeredOutbound(upstream, route.service, own, connecting, drafts, options)
      : chainOutbound(upstream, route, own, connecting, drafts, snapshot, options);
  if (outbound === undefined) return undefined;
  if (own.listener !== "") {
    const made = orProblem(
      `envoy_listener_json of upstream "${upstream.name}"`,
      "it is not served",
      problemOf(drafts),
      () => options.encoder.own.listener(own.listener),
    );
    if (made !== undefined) drafts.own.listeners.push(made);
    return undefined;
  }
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
    return undefined;
  }
  // Without a port of its own a transparent proxy knows it by its addresses.
  const addresses = virtualIps.filter((address) => ipVersion(address) !== 0);
  return { addresses, filter, routes, encoded: addresses.length === 0 ? undefined : addressedChain(addresses, filter) };
}

interface Outbound {
  readonly filter: FilterInit;
  /** Names of routes that come by themselves. */
  readonly routes: readonly string[];
}

function peeredOutbound(
  { name, settings }: Upstream,
  service: PeeredService,
  own: { readonly cluster: string },
  connecting: Connecting,
  drafts: Drafts,
  options: MakingOptions,
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
  const transportSocket = peeredTls(service, connecting);
  if (own.cluster !== "") addOwnCluster(name, own.cluster, transportSocket, drafts, options);
  else {
    drafts.clusters.push(
      guarded(cluster, {
        passive: { ...settings.passiveHealthCheck, maxEjectionPercent: MAX_EJECTION_PERCENT },
        thresholds: settings.thresholds,
        protocol: service.protocol,
        transportSocket,
      }),
    );
  }
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
  own: { readonly cluster: string },
  connecting: Connecting,
  drafts: Drafts,
  snapshot: SidecarSnapshot,
  options: MakingOptions,
): Outbound | undefined {
  const names = new ChainNames(chain, places, snapshot);
  const { clusters, assignments } = chainClusters(chain, places, settings, names, connecting);
  const start = chain.nodes.get(chain.start);
  const first = start?.type === "resolver" ? names.of(start) : undefined;
  const filterName = `${id.name}.default.default.${chain.datacenter}`;
  const prefix = statPrefix("upstream.", filterName);
  const add = (): void => {
    if (own.cluster === "") {
      drafts.clusters.push(...clusters);
      drafts.endpoints.push(...assignments);
      return;
    }
    // Of a chain without entries there is one. Its endpoints come under the name that the operator gave it.
    for (const { transportSocket } of clusters) {
      const made = addOwnCluster(name, own.cluster, transportSocket, drafts, options);
      if (made === undefined) continue;
      for (const { endpoints } of assignments) drafts.endpoints.push({ clusterName: made.name, endpoints });
    }
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
  const { snapshot, tracing } = connecting;
  const { accessLogs: logs, fetchTimeoutMs } = snapshot.settings;
  if (!isHttpLike(protocol)) return tcpProxy(prefix, cluster, logs);
  return httpFilter({ statPrefix: prefix, protocol, routes, fetchTimeoutMs, logs, tracing });
}

const problemOf =
  ({ problems }: Drafts) =>
  (text: string): void =>
    void problems.push(text);

/** The texts that operators write for an upstream. Where a chain is configured for it, they do not count, as in Consul. */
function ownOf(
  { upstream, route }: RoutedUpstream,
  drafts: Drafts,
): { readonly listener: string; readonly cluster: string } {
  const { ownListener: listener, ownCluster: cluster } = upstream.settings;
  if (route.type === "peered" || route.chain.isDefault) return { listener, cluster };
  for (const [name, text] of [
    ["envoy_listener_json", listener],
    ["envoy_cluster_json", cluster],
  ] as const) {
    if (text === "") continue;
    drafts.problems.push(
      `${name} of upstream "${upstream.name}": it does not count, because a discovery chain is configured`,
    );
  }
  return { listener: "", cluster: "" };
}

/** Adds a cluster that an operator writes, with the certificate and the identities of the upstream. */
function addOwnCluster(
  name: string,
  text: string,
  transportSocket: ClusterInit["transportSocket"],
  drafts: Drafts,
  { encoder }: MakingOptions,
): OwnResource | undefined {
  if (transportSocket === undefined) return undefined;
  const made = orProblem(`envoy_cluster_json of upstream "${name}"`, "it has no cluster", problemOf(drafts), () =>
    encoder.own.cluster(text, bytesOf(TransportSocketSchema, transportSocket)),
  );
  if (made !== undefined) drafts.own.clusters.push(made);
  return made;
}

/** Each address leads to one upstream, or Envoy refuses the listener: the first one by name that has it. */
function addressed(
  upstreams: readonly UpstreamPart[],
): readonly { readonly chain: Uint8Array; readonly routes: readonly string[] }[] {
  const taken = new Set<string>();
  return upstreams.flatMap(({ outbound }) => {
    if (outbound?.encoded === undefined) return [];
    const { addresses, filter, routes, encoded } = outbound;
    const own = addresses.filter((address) => !taken.has(address));
    for (const address of own) taken.add(address);
    if (own.length === 0) return [];
    return [{ chain: own.length === addresses.length ? encoded : addressedChain(own, filter), routes }];
  });
}

function addressedChain(addresses: readonly string[], filter: FilterInit): Uint8Array {
  const prefixRanges = addresses.map((address) => ({
    addressPrefix: address,
    prefixLen: ipVersion(address) === 6 ? 128 : 32,
  }));
  return encodedChain({ filterChainMatch: { prefixRanges }, filters: [filter] });
}

function addOutbound(
  { settings, mesh }: SidecarSnapshot,
  port: number,
  upstreams: readonly UpstreamPart[],
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
      filterChains: [],
      listenerFilters: [originalDst()],
      logs: settings.accessLogs,
    },
  );
  drafts.listeners.push({
    ...made,
    encodedChains: chains.map(({ chain }) => chain),
    routes: chains.flatMap(({ routes }) => routes),
    ...(passesOn && {
      defaultFilterChain: {
        filters: [tcpProxy(statPrefix("upstream.", ORIGINAL_DESTINATION), ORIGINAL_DESTINATION, settings.accessLogs)],
      },
    }),
  });
}
