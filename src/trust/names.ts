/** The local key of a service. An empty or missing namespace or partition reads as `default`. */
export interface ServiceName {
  readonly service: string;
  readonly namespace?: string;
  readonly partition?: string;
}

/** SNI of a service of this mesh: `[<subset>.]<service>.<ns>.[<partition>.]<dc>.internal[-v1].<trust domain>`. */
export function serviceSni(
  name: ServiceName & { readonly subset?: string; readonly datacenter: string; readonly trustDomain: string },
): string {
  const { service, datacenter, trustDomain } = name;
  const subset = name.subset === undefined || name.subset === "" ? [] : [name.subset];
  const namespace = orDefault(name.namespace);
  const partition = orDefault(name.partition);
  const scope =
    partition === "default"
      ? [datacenter, "internal", trustDomain]
      : [partition, datacenter, "internal-v1", trustDomain];
  return [...subset, service, namespace, ...scope].join(".");
}

/** SNI of the mesh gateways of a datacenter. */
export function gatewaySni(datacenter: string, trustDomain: string, partition?: string): string {
  return orDefault(partition) === "default"
    ? `${datacenter}.internal.${trustDomain}`
    : `${partition}.${datacenter}.internal-v1.${trustDomain}`;
}

/**
 * SNI under which a service is reached from another cluster, written from the exporter's view: its partition and trust
 * domain, and the name under which it knows the importer. To everybody else this is opaque data.
 * @throws {TypeError} Without a peer.
 */
export function peeredServiceSni(name: ServiceName & { readonly peer: string; readonly trustDomain: string }): string {
  if (name.peer === "") throw new TypeError("the SNI of a peered service needs the name of the peer");
  const { service, peer, trustDomain } = name;
  return [service, orDefault(name.namespace), orDefault(name.partition), peer, "external", trustDomain].join(".");
}

/**
 * Name of the cluster through which an importer's sidecar reaches a peered service: the importer's name for the exporter,
 * and the trust domain of its bundle. It has no partition; never derive the SNI from it.
 */
export function peeredClusterName(
  name: Pick<ServiceName, "service" | "namespace"> & { readonly peer: string; readonly trustDomain: string },
): string {
  return [name.service, orDefault(name.namespace), name.peer, "external", name.trustDomain].join(".");
}

/** SNI of a prepared query. */
export function querySni(query: string, datacenter: string, trustDomain: string): string {
  return `${query}.default.${datacenter}.query.${trustDomain}`;
}

/** Something a proxy connects to (Community Edition form). `peer` wins over `datacenter`. */
export interface UpstreamId {
  /** `""` for services; the only other type is `prepared_query`. */
  readonly type: string;
  readonly name: string;
  readonly datacenter: string;
  readonly peer: string;
}

/** `[<type>:]<name>[?peer=<peer>]`, or with `?dc=<dc>`. It is also the Envoy name of listener and route. */
export function formatUpstreamId(id: UpstreamId): string {
  const type = id.type === "" ? "" : `${id.type}:`;
  const where = id.peer !== "" ? `?peer=${id.peer}` : id.datacenter !== "" ? `?dc=${id.datacenter}` : "";
  return `${type}${id.name}${where}`;
}

/** The inverse of {@link formatUpstreamId}. */
export function parseUpstreamId(text: string): UpstreamId {
  const query = text.indexOf("?");
  const before = query < 0 ? text : text.slice(0, query);
  const where = query < 0 ? "" : text.slice(query + 1);
  const colon = before.indexOf(":");
  const peer = where.startsWith("peer=") ? where.slice("peer=".length) : "";
  const datacenter = where.startsWith("dc=") ? where.slice("dc=".length) : "";
  return {
    type: colon < 0 ? "" : before.slice(0, colon),
    name: before.slice(colon + 1),
    datacenter,
    peer,
  };
}

/**
 * The upstream of a discovery chain's target: `[<subset>.]<service>.<ns>.<partition>.<dc>`, or with `external.<peer>` in
 * place of the datacenter. The subset is dropped. Undefined for a text of another form.
 */
export function upstreamIdOfTarget(targetId: string): UpstreamId | undefined {
  const labels = targetId.split(".");
  const external = labels.at(-2) === "external";
  const last = labels.at(-1) ?? "";
  const name = labels.at(external ? -5 : -4);
  const subsets = labels.length - (external ? 5 : 4);
  if (name === undefined || subsets < 0 || subsets > 1) return undefined;
  return { type: "", name, datacenter: external ? "" : last, peer: external ? last : "" };
}

function orDefault(name: string | undefined): string {
  return name === undefined || name === "" ? "default" : name;
}
