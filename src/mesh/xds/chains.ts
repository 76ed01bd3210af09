import { createHash } from "node:crypto";
import type { ChainNode, CompiledChain } from "../../config/chain.js";
import { serviceUri } from "../../trust/leaf.js";
import { serviceSni } from "../../trust/names.js";
import type { Endpoint, Endpoints } from "../snapshot/endpoints.js";
import { goesThroughOwnGateways, type PeeredService } from "../snapshot/peered.js";
import type { UpstreamSettings } from "../snapshot/settings.js";
import type { ChainPlace, SnapshotBase } from "../snapshot/sidecar.js";
import { aggregateCluster, type ClusterInit, clusterFor, edsCluster, guarded, loadBalancing } from "./clusters.js";
import type { Assignment } from "./resources.js";
import type { NamedLeaf, TlsContexts } from "./tls.js";

type Resolver = Extract<ChainNode, { type: "resolver" }>;

/** Clusters with the load assignments of those that have some. */
export interface ClusterSet {
  readonly clusters: readonly ClusterInit[];
  readonly assignments: readonly Assignment[];
}

/** How a proxy connects to others. */
export interface Connecting {
  readonly snapshot: SnapshotBase;
  readonly leaf: NamedLeaf;
  readonly tls: TlsContexts;
  /** How requests are traced, encoded; undefined: where a caller asks for it. */
  readonly tracing: Uint8Array | undefined;
  /** Name among secrets, and PEM. */
  readonly roots: { readonly name: string; readonly pem: string };
}

/** Envoy's name of a local target's cluster; it is the name on the connection, too. */
export function targetSni(
  { datacenter, trustDomain }: Pick<SnapshotBase, "datacenter" | "trustDomain">,
  { service, subset }: { readonly service: string; readonly subset: string },
): string {
  return serviceSni({ service, subset, datacenter, trustDomain });
}

/** A digest of the settings of a caller that change a chain, so that its clusters are others than those of other callers. */
function customization({ customized, protocol, targets }: CompiledChain): string {
  if (customized.size === 0) return "";
  const parts = [
    customized.has("protocol") ? protocol : "",
    customized.has("connectTimeoutMs") ? String(targets[0]?.connectTimeoutMs) : "",
    customized.has("meshGateway") ? targets[0]?.meshGateway : "",
  ];
  return createHash("sha256").update(parts.join("\0")).digest("hex").slice(0, 8);
}

/** The names of a chain's clusters. */
export class ChainNames {
  readonly #chain: CompiledChain;
  readonly #places: ReadonlyMap<string, ChainPlace>;
  readonly #snapshot: SnapshotBase;
  readonly #prefix: string;

  /** @param prefix - of all names. */
  constructor(chain: CompiledChain, places: ReadonlyMap<string, ChainPlace>, snapshot: SnapshotBase, prefix = "") {
    this.#chain = chain;
    this.#places = places;
    this.#snapshot = snapshot;
    const hash = customization(chain);
    this.#prefix = hash === "" ? prefix : `${prefix}${hash}~`;
  }

  /** The cluster that the requests which reach a resolver go to; undefined: it is not known. */
  of(resolver: Resolver): string | undefined {
    const place = this.#places.get(resolver.target);
    return place && this.ofPlace(place);
  }

  ofPlace(place: ChainPlace): string {
    const base = place.type === "local" ? targetSni(this.#snapshot, place.target) : place.service.clusterName;
    return `${this.#prefix}${base}`;
  }

  /** The resolvers that requests may reach, by their keys, and each place of them once. */
  get resolvers(): readonly Resolver[] {
    return [...this.#chain.nodes.values()].filter((node): node is Resolver => node.type === "resolver");
  }
}

/** The clusters of a chain, with those that take over for others. */
export function chainClusters(
  chain: CompiledChain,
  places: ReadonlyMap<string, ChainPlace>,
  settings: UpstreamSettings,
  names: ChainNames,
  connecting: Connecting,
): ClusterSet {
  const clusters: ClusterInit[] = [];
  const assignments: Assignment[] = [];
  for (const resolver of names.resolvers) {
    const primary = places.get(resolver.target);
    if (primary === undefined) continue;
    const base = names.ofPlace(primary);
    const others = (resolver.failover?.targets ?? []).flatMap((id) => places.get(id) ?? []);
    const group = [primary, ...others].map((place, at) => ({
      place,
      name: others.length === 0 ? base : `failover-target~${at}~${base}`,
    }));
    if (others.length > 0) {
      clusters.push(
        aggregateCluster(
          base,
          resolver.connectTimeoutMs,
          group.map(({ name }) => name),
        ),
      );
    }
    for (const { place, name } of group) {
      const { cluster, assignment } = placeCluster(place, name, chain, settings, resolver.connectTimeoutMs, connecting);
      clusters.push({ ...cluster, ...loadBalancing(resolver.loadBalancer) });
      if (assignment !== undefined) assignments.push(assignment);
    }
  }
  return { clusters, assignments };
}

function placeCluster(
  place: ChainPlace,
  name: string,
  { protocol }: CompiledChain,
  settings: UpstreamSettings,
  connectTimeoutMs: number,
  connecting: Connecting,
): { readonly cluster: ClusterInit; readonly assignment: Assignment | undefined } {
  const { snapshot, leaf, tls, roots } = connecting;
  const { fetchTimeoutMs } = snapshot.settings;
  const terms = snapshot.mesh.outgoing;
  const common = { passive: settings.passiveHealthCheck, thresholds: settings.thresholds, protocol };
  if (place.type === "local") {
    const { target, endpoints } = place;
    const transportSocket = tls.upstream({
      leaf,
      roots,
      sni: targetSni(snapshot, target),
      spiffeIds: [serviceUri({ ...snapshot, service: target.service })],
      terms,
    });
    const cluster = clusterFor(name, endpoints, { connectTimeoutMs, fetchTimeoutMs });
    return {
      cluster: { ...guarded(cluster, { ...common, transportSocket }), altStatName: name },
      assignment: endpoints.hostnames ? undefined : { clusterName: name, endpoints: endpoints.list },
    };
  }
  const { service, target } = place;
  const mode = settings.meshGatewayMode || target.meshGateway;
  const { cluster, assignment } = peeredCluster(service, name, mode, connectTimeoutMs, snapshot);
  const transportSocket = peeredTls(service, connecting);
  return { cluster: { ...guarded(cluster, { ...common, transportSocket }), altStatName: name }, assignment };
}

/** Through our own gateways, else straight to those of the peer. */
export function peeredCluster(
  service: PeeredService,
  name: string,
  mode: string,
  connectTimeoutMs: number,
  snapshot: SnapshotBase,
): { readonly cluster: ClusterInit; readonly assignment: Assignment | undefined } {
  const { fetchTimeoutMs } = snapshot.settings;
  if (goesThroughOwnGateways(mode)) {
    return {
      cluster: edsCluster(name, connectTimeoutMs, fetchTimeoutMs),
      assignment: { clusterName: name, endpoints: addresses(snapshot.localGateways) },
    };
  }
  return {
    cluster: clusterFor(name, service.remote, { connectTimeoutMs, fetchTimeoutMs }),
    assignment: service.remote.hostnames ? undefined : { clusterName: name, endpoints: service.remote.list },
  };
}

/** Names cannot be told in a load assignment. */
function addresses({ list, hostnames }: Endpoints): readonly Endpoint[] {
  return hostnames ? [] : list;
}

export function peeredTls(
  { peer, sni, spiffeIds, rootPems }: PeeredService,
  { snapshot, leaf, tls }: Connecting,
): ReturnType<TlsContexts["upstream"]> {
  return tls.upstream({
    leaf,
    roots: { name: `roots/peer/${peer}`, pem: rootPems },
    sni,
    spiffeIds,
    terms: snapshot.mesh.outgoing,
  });
}
