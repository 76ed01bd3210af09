import { PeeringError } from "../base/errors.js";

/**
 * An identity in a certificate. Trust domains and the partition compare without case; a partition
 * that is missing reads as `default`.
 */
export type SpiffeId =
  | {
      readonly kind: "service";
      readonly trustDomain: string;
      readonly partition: string;
      readonly namespace: string;
      readonly datacenter: string;
      readonly service: string;
    }
  | {
      readonly kind: "agent";
      readonly trustDomain: string;
      readonly partition: string;
      readonly datacenter: string;
      readonly node: string;
    }
  | {
      readonly kind: "mesh-gateway";
      readonly trustDomain: string;
      readonly partition: string;
      readonly datacenter: string;
    }
  /** One for all servers of a datacenter (Consul 1.14 and later). */
  | { readonly kind: "server"; readonly trustDomain: string; readonly datacenter: string }
  /** A certificate authority: `spiffe://<cluster id>.<domain>`. */
  | { readonly kind: "signing"; readonly clusterId: string; readonly domain: string };

/**
 * The URI of an identity as Consul Community Edition writes it (1.13 to 1.22): the namespace is always `default`; a
 * service's partition is lower-cased and left out when empty or `default`; that of gateways and agents is ignored.
 */
export function formatSpiffeId(id: SpiffeId): string {
  switch (id.kind) {
    case "service": {
      const partition = id.partition.toLowerCase();
      const prefix = partition === "" || partition === "default" ? "" : `/ap/${encode(partition)}`;
      return `spiffe://${id.trustDomain}${prefix}/ns/default/dc/${encode(id.datacenter)}/svc/${encode(id.service)}`;
    }
    case "agent":
      return `spiffe://${id.trustDomain}/agent/client/dc/${encode(id.datacenter)}/id/${encode(id.node)}`;
    case "mesh-gateway":
      return `spiffe://${id.trustDomain}/gateway/mesh/dc/${encode(id.datacenter)}`;
    case "server":
      return `spiffe://${id.trustDomain}/agent/server/dc/${encode(id.datacenter)}`;
    case "signing":
      return `spiffe://${id.clusterId}.${id.domain}`.toLowerCase();
  }
}

/**
 * Reads an identity. Names are matched percent-encoded and decoded afterwards.
 * @throws {PeeringError} `invalid-argument`, with Consul's texts: another scheme, an unknown path, a bad encoding.
 */
export function parseSpiffeId(uri: string): SpiffeId {
  const [, scheme = "", trustDomain = "", path = ""] = URI.exec(uri) ?? [];
  if (scheme.toLowerCase() !== "spiffe") {
    throw new PeeringError("invalid-argument", "SPIFFE ID must have 'spiffe' scheme");
  }
  const service = SERVICE.exec(path);
  if (service !== null) {
    const [, partition, namespace, datacenter, name] = service;
    return {
      kind: "service",
      trustDomain,
      partition: decode("admin partition", partition ?? "default"),
      namespace: decode("namespace", namespace),
      datacenter: decode("datacenter", datacenter),
      service: decode("service", name),
    };
  }
  const agent = AGENT.exec(path);
  if (agent !== null) {
    const [, partition, datacenter, node] = agent;
    return {
      kind: "agent",
      trustDomain,
      partition: decode("admin partition", partition ?? "default"),
      datacenter: decode("datacenter", datacenter),
      node: decode("node", node),
    };
  }
  const gateway = MESH_GATEWAY.exec(path);
  if (gateway !== null) {
    const [, partition, datacenter] = gateway;
    return {
      kind: "mesh-gateway",
      trustDomain,
      partition: decode("admin partition", partition ?? "default"),
      datacenter: decode("datacenter", datacenter),
    };
  }
  const server = SERVER.exec(path);
  if (server !== null) return { kind: "server", trustDomain, datacenter: decode("datacenter", server[1]) };
  const dot = trustDomain.indexOf(".");
  if (path === "" && dot > 0) {
    return { kind: "signing", clusterId: trustDomain.slice(0, dot), domain: trustDomain.slice(dot + 1) };
  }
  throw new PeeringError("invalid-argument", `SPIFFE ID is not in the expected format: ${uri}`);
}

/**
 * Whether the authority of a trust domain may sign a certificate for `id`: services, gateways and servers of its own
 * domain, and itself. Agents are not: theirs is rewritten, never signed as given.
 */
export function canSign(authorityTrustDomain: string, id: SpiffeId | undefined): boolean {
  const own = authorityTrustDomain.toLowerCase();
  switch (id?.kind) {
    case "service":
    case "mesh-gateway":
    case "server":
      return id.trustDomain.toLowerCase() === own;
    case "signing":
      return `${id.clusterId}.${id.domain}`.toLowerCase() === own;
    default:
      return false;
  }
}

const URI = /^([^:/?#]*):\/\/([^/?#]*)([^?#]*)$/;
const SERVICE = /^(?:\/ap\/([^/]+))?\/ns\/([^/]+)\/dc\/([^/]+)\/svc\/([^/]+)$/;
const AGENT = /^(?:\/ap\/([^/]+))?\/agent\/client\/dc\/([^/]+)\/id\/([^/]+)$/;
const MESH_GATEWAY = /^(?:\/ap\/([^/]+))?\/gateway\/mesh\/dc\/([^/]+)$/;
const SERVER = /^\/agent\/server\/dc\/([^/]+)$/;

function decode(what: string, segment = ""): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new PeeringError("invalid-argument", `Invalid ${what}: invalid URL escape in "${segment}"`);
  }
}

// Go leaves more characters of a path as they are than encodeURIComponent does, and escapes a few that it does not;
// envoys compare identities byte for byte. A slash inside a name is escaped all the same, so that it reads back.
function encode(segment: string): string {
  return encodeURIComponent(segment)
    .replace(/%(?:24|26|2B|2C|3A|3B|3D|40)/g, (triplet) => decodeURIComponent(triplet))
    .replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}
