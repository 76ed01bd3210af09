import { PeeringError } from "../../base/errors.js";
import { joinHostPort } from "../../base/host-port.js";
import { doAll } from "../../base/steps.js";
import type { CompiledChain, ResolvedTarget } from "../../config/chain.js";
import type { PeeringHost } from "../../host/host.js";
import { certificatesIn } from "../../token/pem.js";
import { serviceUri } from "../../trust/leaf.js";
import { serviceSni } from "../../trust/names.js";
import { computed } from "../host-view.js";
import { type Endpoint, endpointsOf } from "../snapshot/endpoints.js";
import { type Finding, goesThroughOwnGateways, peeredFindings, remoteEndpoints } from "../snapshot/peered.js";
import { chainOf, gatewayModeOf, upstreamOf } from "../snapshot/sidecar.js";
import type { MeshView } from "../snapshot/view.js";

/** Where a service is reached, and by what it is recognised there. */
export interface MeshRoute {
  /** The service, for messages. */
  readonly place: string;
  /** `host:port`, in the order in which they are to be tried. */
  readonly addresses: readonly string[];
  readonly serverName: string;
  /** SPIFFE ids, one of which the server must show, byte for byte. */
  readonly identities: readonly string[];
  /** Lower-cased: the one that answers for these ids. */
  readonly trustDomain: string;
  /** PEM. The only roots that are trusted for it; never empty. */
  readonly rootPems: readonly string[];
  readonly mayDial: (ip: string) => boolean;
  /** That of the resolver; 0: nothing is said. */
  readonly connectTimeoutMs: number;
}

/** The modes of Consul's `MeshGateway`: how calls to peers go out. */
export type MeshGatewayMode = "local" | "remote" | "none";

export interface MeshTarget {
  readonly service: string;
  /** Our name of the peering; `""`: a service of this cluster. */
  readonly peer: string;
}

export interface MeshCall extends MeshTarget {
  /** The service that calls: its config entries say how. */
  readonly as: string;
  /** `""`: as config entries say. */
  readonly meshGateway: MeshGatewayMode | "";
}

/**
 * The ways to a service: the place that its discovery chain leads to, and after it those that the chain fails over to. Each leads straight
 * to instances here, or to a peer: through its mesh gateways or through ours first, with the names that the peer gave. A place that cannot be
 * used is the reason why.
 * @throws {PeeringError} `not-found`: there is no such peering. `unavailable`: the chain cannot be used.
 */
export async function routesTo(
  host: PeeringHost,
  call: MeshCall,
  fraction: () => number,
): Promise<readonly (MeshRoute | PeeringError)[]> {
  const { peer } = call;
  if (peer !== "" && host.view.peering(peer) === undefined) {
    throw new PeeringError("not-found", `Peering not found for "${peer}"`);
  }
  return await computed(host, { allowsByDefault: false }, (view) => routesOf(view, call, fraction));
}

/** As {@link routesTo}, of a cluster at one moment. */
export function routesOf(
  view: MeshView,
  { service, peer, as, meshGateway }: MeshCall,
  fraction: () => number,
): readonly (MeshRoute | PeeringError)[] {
  const { settings } = upstreamOf(view, { source: as, service, peer, mode: meshGateway });
  if (peer !== "") {
    const { connectTimeoutMs } = settings;
    return [peeredRoute(view, { service, peer }, gatewayModeOf(settings), connectTimeoutMs, fraction)];
  }
  const chain = chainOf(view, service, settings);
  if (chain.problem !== undefined) {
    throw new PeeringError("unavailable", `the discovery chain of "${service}" cannot be used: ${chain.problem}`, {
      remedy: "Mend its service-router, service-splitter, service-resolver and service-defaults.",
    });
  }
  return placesFor(chain, fraction).map(({ target, connectTimeoutMs }) =>
    target.peer === ""
      ? localRoute(view, target, connectTimeoutMs, fraction)
      : peeredRoute(view, target, gatewayModeOf(settings, target), connectTimeoutMs, fraction),
  );
}

/** The target of one connection, and those it fails over to. @throws {PeeringError} `unavailable`: a request would have to decide. */
function placesFor(
  chain: CompiledChain,
  fraction: () => number,
): readonly { readonly target: ResolvedTarget; readonly connectTimeoutMs: number }[] {
  const targets = new Map(chain.targets.map((target) => [target.id, target]));
  let node = chain.nodes.get(chain.start);
  while (node?.type === "splitter") {
    let rest = fraction() * node.splits.reduce((sum, { weight }) => sum + weight, 0);
    const drawn = node.splits.find(({ weight }) => {
      rest -= weight;
      return weight > 0 && rest < 0;
    });
    node = chain.nodes.get((drawn ?? node.splits.at(-1))?.next ?? "");
  }
  if (node?.type === "router") {
    throw new PeeringError("unavailable", `"${chain.service}" has a service-router, which chooses by the request`, {
      remedy: "Routers are followed by sidecars alone. From Node, call the services behind it by their own names.",
    });
  }
  if (node === undefined)
    throw new PeeringError("unavailable", `the discovery chain of "${chain.service}" ends nowhere`);
  const { connectTimeoutMs } = node;
  return [node.target, ...(node.failover?.targets ?? [])].flatMap((id) => {
    const target = targets.get(id);
    return target === undefined ? [] : [{ target, connectTimeoutMs }];
  });
}

function peeredRoute(
  view: MeshView,
  { service, peer }: MeshTarget,
  mode: string,
  connectTimeoutMs: number,
  fraction: () => number,
): MeshRoute | PeeringError {
  const findings = peeredFindings(view, peer, service);
  const place = `"${service}" of the peer "${peer}"`;
  const known = <Part>(
    finding: Finding<Part>,
    code: "not-found" | "unavailable",
    remedy: string,
  ): Part | PeeringError =>
    finding.type === "known" ? finding.part : new PeeringError(code, `${place}: ${finding.text}`, { remedy });
  const instances = known(
    findings.instances,
    "not-found",
    "The peer must export the service, it must have a sidecar there, and the peer a mesh gateway.",
  );
  if (instances instanceof PeeringError) return instances;
  const names = known(
    findings.names,
    "unavailable",
    "Look at the mesh of the peer: it sends the names with the service.",
  );
  if (names instanceof PeeringError) return names;
  const bundle = known(findings.bundle, "unavailable", "See that the stream to the peer stands.");
  if (bundle instanceof PeeringError) return bundle;
  const through = goesThroughOwnGateways(mode)
    ? { list: view.localGateways().list, what: 'a mesh gateway of ours (mode "local")', mayDial: () => true }
    : {
        list: remoteEndpoints(view, peer, instances).list,
        what: `a mesh gateway of the peer "${peer}"`,
        mayDial: (ip: string) => view.mayDial(peer, ip),
      };
  if (through.list.length === 0) {
    const told = goesThroughOwnGateways(mode) ? [] : endpointsOf(instances, "wan").list;
    const why =
      told.length > 0 ? "they must not be dialed (forbiddenAddresses)" : "there is none with an address and a port";
    return new PeeringError("unavailable", `${place} is reached through ${through.what}, and ${why}`);
  }
  const addresses = drawn(through.list, fraction);
  if (addresses.length === 0) {
    return new PeeringError("unavailable", `${place} is reached through ${through.what}, and none is healthy`);
  }
  return {
    place,
    addresses,
    serverName: names.sni,
    identities: names.spiffeIds,
    trustDomain: bundle.trustDomain.toLowerCase(),
    rootPems: pemsIn(bundle.rootPems),
    mayDial: through.mayDial,
    connectTimeoutMs,
  };
}

function localRoute(
  view: MeshView,
  target: ResolvedTarget,
  connectTimeoutMs: number,
  fraction: () => number,
): MeshRoute | PeeringError {
  const { service, subset } = target;
  const { trustDomain, datacenter } = view;
  const place = subset === "" ? `"${service}"` : `subset "${subset}" of "${service}"`;
  if (target.datacenter !== datacenter) {
    return new PeeringError(
      "unavailable",
      `${place} is in the datacenter "${target.datacenter}", and others are not served`,
    );
  }
  const { list } = doAll(view.targetEndpoints(target));
  if (list.length === 0) {
    return new PeeringError("not-found", `there is no service ${place} in the mesh`, {
      remedy: "Register a sidecar for it, or the service itself with `connect: { native: true }`.",
    });
  }
  const rootPems = pemsIn(view.rootPems());
  // Node trusts every public authority where it is given none.
  if (rootPems.length === 0) {
    return new PeeringError(
      "unavailable",
      "no root certificate of this cluster is known: nothing there can be trusted",
    );
  }
  const addresses = drawn(list, fraction);
  if (addresses.length === 0) {
    return new PeeringError("unavailable", `no instance of ${place} is healthy`);
  }
  return {
    place,
    addresses,
    serverName: serviceSni({ service, subset, datacenter, trustDomain }),
    identities: [serviceUri({ service, datacenter, trustDomain })],
    trustDomain: trustDomain.toLowerCase(),
    rootPems,
    mayDial: () => true,
    connectTimeoutMs,
  };
}

function pemsIn(texts: readonly string[]): readonly string[] {
  return texts.flatMap((text) => certificatesIn(text).map(({ pem }) => pem));
}

/** The healthy ones in random order, those with a larger weight rather earlier. */
function drawn(list: readonly Endpoint[], fraction: () => number): readonly string[] {
  const ranked = list
    .filter(({ healthy }) => healthy)
    // Of independent draws, this one comes first with a probability proportional to the weight.
    .map(({ address, port, weight }) => ({
      address: joinHostPort(address, port),
      rank: -Math.log(1 - fraction()) / weight,
    }));
  return [...new Set(ranked.sort((one, other) => one.rank - other.rank).map(({ address }) => address))];
}
