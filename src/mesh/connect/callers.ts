import type { X509Certificate } from "node:crypto";
import type { PeeringHost } from "../../host/host.js";
import { certificatesIn, publicKeyOf } from "../../token/pem.js";
import { parseSpiffeId, type SpiffeId } from "../../trust/spiffe.js";
import { ANY_IDENTITY, carriedPattern } from "../identity/carried.js";
import { type MeshTrust, trustDomainOf, type VerifiedIdentity } from "../identity/verify-chain.js";

/** The service that calls, as its certificate says, or a mesh gateway of ours on its behalf. */
export interface MeshCaller {
  /** Its name in its own cluster. */
  readonly service: string;
  /** Our name of the peering that it belongs to; `""`: this cluster. */
  readonly peer: string;
  readonly spiffeId: string;
}

/** A cluster whose services may call. */
export interface CallerCluster {
  /** Lower-cased. */
  readonly trustDomain: string;
  /** Our name of the peering; `""`: this cluster. */
  readonly peer: string;
  /** The one partition that it exports to us from. */
  readonly partition: string;
  /** PEM; an entry may hold several. */
  readonly rootPems: readonly string[];
}

/** The peers that the service, or one whose chain leads to it, is exported to; last, so that no peer takes its place, this cluster. */
export function callingClusters(host: PeeringHost, service: string): readonly CallerCluster[] {
  const peers = host.exports.peersReaching(service).flatMap((peer): readonly CallerCluster[] => {
    const state = host.view.peering(peer)?.state;
    const bundle = host.view.trustBundle(peer);
    if (bundle === undefined || state === undefined || state === "terminated" || state === "deleting") return [];
    const { trustDomain, exportedPartition: partition, rootPems } = bundle;
    return [{ trustDomain: trustDomain.toLowerCase(), peer, partition, rootPems }];
  });
  const rootPems = host.authority.roots().map(({ certificatePem }) => certificatePem);
  return [...peers, { trustDomain: host.trustDomain.toLowerCase(), peer: "", partition: "", rootPems }];
}

/** Whom a service lets in: clusters and their roots by lower-cased trust domain. */
export interface CallerTrust {
  readonly clusters: ReadonlyMap<string, CallerCluster>;
  readonly roots: MeshTrust;
}

export function callerTrust(clusters: readonly CallerCluster[]): CallerTrust {
  const parsed = (pems: readonly string[]): readonly X509Certificate[] =>
    // Roots whose keys are not used verify no certificate.
    pems.flatMap((pem) =>
      certificatesIn(pem).flatMap(({ certificate }) => (publicKeyOf(certificate) ? [certificate] : [])),
    );
  return {
    clusters: new Map(clusters.map((cluster) => [cluster.trustDomain, cluster])),
    roots: new Map(clusters.map(({ trustDomain, rootPems }) => [trustDomain, parsed(rootPems)])),
  };
}

const CARRIED = new RegExp(carriedPattern(`(${ANY_IDENTITY})`));

/**
 * Who calls: the service that the certificate names, or, where it is that of a mesh gateway of this cluster, the service of a peer that the
 * gateway names. Undefined: nobody that could have an intention.
 * @param carriedFor - `x-forwarded-client-cert` of a request; of others than our gateways it is worth nothing.
 */
export function callerOf(
  { id, uri }: VerifiedIdentity,
  { clusters }: CallerTrust,
  own: { readonly trustDomain: string; readonly carriedFor?: string | undefined },
): MeshCaller | undefined {
  if (id.kind === "service") return callerIn(id, uri, clusters);
  if (id.kind !== "mesh-gateway" || trustDomainOf(id) !== own.trustDomain.toLowerCase()) return undefined;
  const [, carried = ""] = CARRIED.exec(own.carriedFor ?? "") ?? [];
  const client = serviceIn(carried);
  // Our gateways carry requests of peers alone.
  if (client === undefined || trustDomainOf(client) === own.trustDomain.toLowerCase()) return undefined;
  return callerIn(client, carried, clusters);
}

function callerIn(
  id: Extract<SpiffeId, { readonly kind: "service" }>,
  uri: string,
  clusters: CallerTrust["clusters"],
): MeshCaller | undefined {
  const owner = clusters.get(trustDomainOf(id));
  if (owner === undefined) return undefined;
  // Intentions speak of the default namespace, and of the one partition that the peer exports from.
  if (id.namespace !== "default" || partitionKey(id.partition) !== partitionKey(owner.partition)) return undefined;
  return { service: id.service, peer: owner.peer, spiffeId: uri };
}

function partitionKey(partition: string): string {
  return partition === "" ? "default" : partition.toLowerCase();
}

function serviceIn(uri: string): Extract<SpiffeId, { readonly kind: "service" }> | undefined {
  try {
    const id = parseSpiffeId(uri);
    return id.kind === "service" ? id : undefined;
  } catch {
    return undefined;
  }
}
