import type { ServiceInstance } from "../model/instance.js";

/**
 * Key of the service metadata in which a service that was carried over says which clusters it came through: their trust
 * domains, that of the first one first, with a space between them.
 */
export const TRANSIT_PATH_KEY = "peerage-path";

/** The maximum length of a value of service metadata. */
const MAX_PATH_BYTES = 512;

/** Why a service of one peer is not carried over to another. */
export type TransitObstacle =
  /** A service of the same name is exported to that peer by the exported-services entry. */
  | "local-name"
  /** The other peer exports no service of this name to us, or we are not peered with it. */
  | "not-imported"
  /** Clusters are identified by their trust domains, and the peer has not sent its own yet. */
  | "origin-unknown"
  | "destination-unknown"
  /** It has come through this cluster before. */
  | "came-through-here"
  /** It comes from that peer's cluster, or through it. */
  | "came-through-there"
  | "too-many-hops"
  | "unreadable-path"
  /** Another peer that exports the name to us is nearer to where it comes from, or is named by an earlier rule. */
  | "nearer-elsewhere"
  /** No Consul could take it. */
  | "invalid";

/** The peer that a service is carried over from, and ourselves. */
export interface TransitOrigin {
  /** Our name of the peer. */
  readonly peerName: string;
  readonly trustDomain: string;
  readonly ownTrustDomain: string;
  /** By how many clusters a service may be carried over, us included. */
  readonly mostHops: number;
}

/** A service as it is carried over. */
export interface CarriedInstances {
  readonly instances: readonly ServiceInstance[];
  /** The clusters it came through, us included: of its instances the longest way. */
  readonly path: readonly string[];
  /** Every cluster that any of its instances came through. */
  readonly clusters: ReadonlySet<string>;
}

/**
 * The instances of an imported service as we export them again: marked with the way they came, and on nodes that are
 * called after the peer, for names of nodes are unique within one cluster alone. If one of the instances must not be
 * carried over, none is.
 */
export function carryOver(
  instances: readonly ServiceInstance[],
  origin: TransitOrigin,
): CarriedInstances | TransitObstacle {
  const ours = origin.ownTrustDomain.toLowerCase();
  const theirs = origin.trustDomain.toLowerCase();
  let longest: readonly string[] = [];
  const clusters = new Set<string>();
  const carried: ServiceInstance[] = [];
  for (const instance of instances) {
    const came = pathOf(instance);
    if (came === undefined) return "unreadable-path";
    // A cluster that is no host, and copied it into its own catalog, has not put itself into the path.
    const there = came.at(-1) === theirs ? came : [...came, theirs];
    if (there.includes(ours)) return "came-through-here";
    const path = [...there, ours];
    const text = path.join(" ");
    if (path.length - 1 > origin.mostHops || Buffer.byteLength(text) > MAX_PATH_BYTES) return "too-many-hops";
    if (path.length > longest.length) longest = path;
    for (const cluster of path) clusters.add(cluster);
    const { node, service, checks } = instance;
    carried.push({
      // Ids of nodes are unique in a peer's catalog, too, and the same node may get there in two ways.
      node: { ...node, id: "", name: `${node.name}.${origin.peerName}` },
      service: { ...service, meta: { ...service.meta, [TRANSIT_PATH_KEY]: text } },
      checks,
    });
  }
  return { instances: carried, path: longest, clusters };
}

/** Trust domains, lower-case; none for a service that was registered where it comes from. Undefined: not readable. */
function pathOf({ service }: ServiceInstance): readonly string[] | undefined {
  const text = service.meta[TRANSIT_PATH_KEY];
  if (text === undefined) return [];
  const path = text.toLowerCase().split(" ");
  return path.every((part) => part !== "") ? path : undefined;
}
