import { PeeringError } from "../../base/errors.js";
import { joinHostPort } from "../../base/host-port.js";
import type { PeeringHost } from "../../host/host.js";
import type { ServiceInstance } from "../../model/instance.js";
import { sidecarName } from "../../payload/exported-payload.js";
import { certificatesIn } from "../../token/pem.js";
import { serviceUri } from "../../trust/leaf.js";
import { serviceSni } from "../../trust/names.js";
import { endpointOf, type Side } from "../snapshot/endpoints.js";
import { peerMetaOf, speakersFor } from "../snapshot/peered.js";

/** Where a service is reached, and by what it is recognised there. */
export interface MeshRoute {
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
}

export interface MeshTarget {
  readonly service: string;
  /** Our name of the peering; `""`: a service of this cluster. */
  readonly peer: string;
}

/**
 * The way to a service: through the mesh gateways of its peer, with the names that the peer gave, or straight to its instances
 * here.
 * @throws {PeeringError} `not-found`: there is no such service, or none in the mesh. `unavailable`: none that is healthy, or no
 *   roots are known for it.
 */
export async function routeTo(
  host: PeeringHost,
  { service, peer }: MeshTarget,
  fraction: () => number,
): Promise<MeshRoute> {
  return peer === "" ? localRoute(host, service, fraction) : await peeredRoute(host, service, peer, fraction);
}

async function peeredRoute(
  host: PeeringHost,
  service: string,
  peer: string,
  fraction: () => number,
): Promise<MeshRoute> {
  if (host.view.peering(peer) === undefined) throw new PeeringError("not-found", `Peering not found for "${peer}"`);
  const gateways = speakersFor(service, await host.imports.instances({ peer, service: sidecarName(service) }));
  if (gateways.length === 0) {
    throw new PeeringError("not-found", `the peer "${peer}" offers no service "${service}" in its mesh`, {
      remedy: "The peer must export the service, it must have a sidecar there, and the peer a mesh gateway.",
    });
  }
  const meta = peerMetaOf(gateways);
  const [serverName = ""] = meta?.sni ?? [];
  const identities = meta?.spiffeId ?? [];
  if (serverName === "" || identities.length === 0) {
    throw new PeeringError("unavailable", `the peer "${peer}" has not said by which names "${service}" is reached`);
  }
  const bundle = host.view.trustBundle(peer);
  const rootPems = pemsIn(bundle?.rootPems ?? []);
  if (bundle === undefined || rootPems.length === 0) throw noRoots(`the peer "${peer}"`);
  return {
    addresses: addressesOf(gateways, "wan", fraction, `a mesh gateway of the peer "${peer}"`),
    serverName,
    identities,
    trustDomain: bundle.trustDomain.toLowerCase(),
    rootPems,
    mayDial: (ip) => host.view.mayDial(peer, ip),
  };
}

function localRoute(host: PeeringHost, service: string, fraction: () => number): MeshRoute {
  const instances = [...host.gateways.connectInstances(service)];
  if (instances.length === 0) {
    throw new PeeringError("not-found", `there is no service "${service}" in the mesh`, {
      remedy: "Register a sidecar for it, or the service itself with `connect: { native: true }`.",
    });
  }
  const { trustDomain, datacenter } = host;
  const rootPems = pemsIn(host.authority.roots().map(({ certificatePem }) => certificatePem));
  if (rootPems.length === 0) throw noRoots("this cluster");
  return {
    addresses: addressesOf(instances, "lan", fraction, `the service "${service}"`),
    serverName: serviceSni({ service, datacenter, trustDomain }),
    identities: [serviceUri({ service, datacenter, trustDomain })],
    trustDomain,
    rootPems,
    mayDial: () => true,
  };
}

/** Node trusts every public authority where it is given none. */
function noRoots(owner: string): PeeringError {
  return new PeeringError("unavailable", `no root certificate of ${owner} is known: nothing there can be trusted`);
}

function pemsIn(texts: readonly string[]): readonly string[] {
  return texts.flatMap((text) => certificatesIn(text).map(({ pem }) => pem));
}

/** Healthy ones in random order, those with a larger weight rather earlier. @throws {PeeringError} `unavailable`: none is. */
function addressesOf(
  instances: readonly ServiceInstance[],
  side: Side,
  fraction: () => number,
  what: string,
): readonly string[] {
  const healthy = instances.flatMap((instance) => {
    const { address, port, healthy: isHealthy, weight } = endpointOf(instance, side);
    // Of independent draws, this one comes first with a probability proportional to the weight.
    return isHealthy && address !== "" && port !== 0
      ? [{ address: joinHostPort(address, port), rank: -Math.log(1 - fraction()) / weight }]
      : [];
  });
  if (healthy.length === 0) throw new PeeringError("unavailable", `no instance of ${what} is healthy`);
  return [...new Set(healthy.sort((one, other) => one.rank - other.rank).map(({ address }) => address))];
}
