import { ipVersion } from "../../base/host-port.js";
import { StepMeter, type Steps } from "../../base/steps.js";
import { isHttpLike } from "../../config/chain.js";
import { emptyProxy } from "../../model/instance.js";
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
  type ClusterInit,
  guarded,
  LOCAL_APP,
  localAppCluster,
  ORIGINAL_DESTINATION,
  originalDestinationCluster,
} from "./clusters.js";
import { commonParts, type MakingOptions, type TransparentOutbound, type UpstreamPart } from "./kept-parts.js";
import {
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
import { type Assignment, type DraftListener, type EncodedResources, encodedChain } from "./resources.js";
import { chainRoutes, plainRoute, type RouteInit } from "./routes.js";
import { TlsContexts } from "./tls.js";
import { named, pipeAddress, socketAddress } from "./values.js";

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
}

/** The resources of the proxy beside a service. */
export function* sidecarResources(
  snapshot: SidecarSnapshot,
  options: MakingOptions,
): Steps<readonly EncodedResources[]> {
  const { kept, encoder } = options;
  const common = commonParts(snapshot, snapshot.leaf, options);
  const made: EncodedResources[] = [
    kept.plain.of("inbound", inboundParts(snapshot, common), () => inbound(snapshot, options)),
  ];
  const transparent: UpstreamPart[] = [];
  const meter = new StepMeter();
  for (const upstream of snapshot.upstreams) {
    let size = UPSTREAM_SIZE;
    const part = kept.upstreams.of(upstream.upstream.name, [...common, ...upstreamParts(upstream)], () => {
      size = MADE_UPSTREAM_SIZE;
      return upstreamPart(upstream, snapshot, options);
    });
    if (meter.isOver(size)) yield;
    made.push(part.resources);
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
  return made;
}

/** Cost of looking at one upstream, in the fields of a step, and of making its resources. */
const UPSTREAM_SIZE = 100;
const MADE_UPSTREAM_SIZE = 2_000;
/** For so few upstreams a listener is no step of its own. */
const UNSTEPPED = 1_000;

function emptyDrafts(): Drafts {
  return { clusters: [], endpoints: [], listeners: [], routes: [] };
}

function connectingBy(snapshot: SidecarSnapshot, { placement }: MakingOptions): Connecting {
  const { service, trustDomain, rootPems, settings, leaf } = snapshot;
  return {
    snapshot,
    leaf: { name: `leaf/${service}`, leaf },
    tls: new TlsContexts(placement, settings.fetchTimeoutMs),
    roots: { name: `roots/${trustDomain}`, pem: joinPems(rootPems) },
  };
}

/** All that calls from elsewhere meet. */
function inbound(snapshot: SidecarSnapshot, options: MakingOptions): EncodedResources {
  const connecting = connectingBy(snapshot, options);
  const drafts = emptyDrafts();
  drafts.clusters.push(localApp(snapshot));
  drafts.listeners.push(publicListener(snapshot, connecting));
  return options.encoder.encode({ ...drafts, secrets: connecting.tls.secrets });
}

function inboundParts(snapshot: SidecarSnapshot, common: readonly unknown[]): readonly unknown[] {
  const { instance, entries, inboundBundles, allowsByDefault } = snapshot;
  const { address, port, proxy } = instance.service;
  const { localServiceAddress, localServicePort, localServiceSocketPath } = proxy ?? emptyProxy;
  const local = [localServiceAddress, localServicePort, localServiceSocketPath];
  // Intentions come from the entries.
  return [...common, entries, JSON.stringify([inboundBundles, allowsByDefault, address, port, local])];
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

function upstreamPart(routed: RoutedUpstream, snapshot: SidecarSnapshot, options: MakingOptions): UpstreamPart {
  const connecting = connectingBy(snapshot, options);
  const drafts = emptyDrafts();
  const outbound = addUpstream(routed, connecting, drafts, snapshot);
  return { resources: options.encoder.encode({ ...drafts, secrets: connecting.tls.secrets }), outbound };
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
  snapshot: SidecarSnapshot,
): TransparentOutbound | undefined {
  const { upstream, route, virtualIps } = routed;
  const outbound =
    route.type === "peered"
      ? peeredOutbound(upstream, route.service, connecting, drafts)
      : chainOutbound(upstream, route, connecting, drafts, snapshot);
  if (outbound === undefined) return undefined;
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
