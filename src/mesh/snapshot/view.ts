import type { Steps } from "../../base/steps.js";
import type { ChainOverrides, CompiledChain, ResolvedTarget } from "../../config/chain.js";
import type { ConfigEntrySet } from "../../config/config-entry-set.js";
import type { ServiceInstance } from "../../model/instance.js";
import type { TrustBundle } from "../../peering/peering.js";
import type { Endpoints } from "./endpoints.js";

/** A certificate of a proxy with its key, PEM. */
export interface ProxyLeaf {
  /** The certificate, then the intermediates. */
  readonly certificateChainPem: string;
  readonly privateKeyPem: string;
}

/** An exported mesh service. */
export interface ExportedMeshService {
  readonly service: string;
  /** In byte order. */
  readonly peers: readonly string[];
}

/** Where to dial the servers of a peer. */
export interface PeerServers {
  /** SNI and name in the certificate. */
  readonly serverName: string;
  /** `host:port` each. */
  readonly addresses: readonly string[];
  /** Grows with each change of the peering. */
  readonly index: bigint;
}

/** A check of a service that its proxy leads to. */
export type CheckAtProxy =
  | {
      readonly checkId: string;
      readonly path: string;
      /** `http` or `http2`. */
      readonly protocol: string;
      readonly localPort: number;
      readonly listenerPort: number;
    }
  /** It goes to the service directly. */
  | { readonly checkId: string; readonly problem: string };

/**
 * A cluster at one moment, as its proxies see it. A part that is undefined is not known yet: a snapshot is made without it, and says
 * so. A part that has not changed is best the same object for all proxies: what was made of it then serves again.
 */
export interface MeshView {
  readonly datacenter: string;
  readonly trustDomain: string;
  /** Whether a call that no intention speaks of is allowed. */
  readonly allowsByDefault: boolean;
  readonly entries: ConfigEntrySet;
  /** Of this cluster, PEM. */
  rootPems(): readonly string[];
  /** A text says why there is none. */
  leaf(service: string): ProxyLeaf | string;
  /** That of the mesh gateways. A text says why there is none. */
  gatewayLeaf(): ProxyLeaf | string;
  /** Where calls of a service may go. */
  chain(service: string, overrides?: ChainOverrides): CompiledChain;
  /** Local instances that speak for the service of a target in the mesh, by the filter of its subset. */
  targetEndpoints(target: Pick<ResolvedTarget, "service" | "subset" | "subsetDefinition">): Steps<Endpoints>;
  /** Names of the local services that anything speaks for in the mesh. */
  meshServices(): readonly string[];
  localGateways(): Endpoints;
  /** The checks of a service that its proxy is to expose; undefined: those of this node are not run here. */
  exposedChecks(node: string, serviceId: string): readonly CheckAtProxy[] | undefined;
  /** Whether the machine of this agent, and so of the proxies beside it, has addresses of IPv6. */
  hasIpv6(): boolean;
  /** Those that run a server of this cluster. */
  servers(): readonly ServiceInstance[];
  bundle(peer: string): TrustBundle | undefined;
  /** Of all peers. */
  bundles(): readonly TrustBundle[];
  /** Of the peers whose callers may reach a service. */
  bundlesReaching(service: string): readonly TrustBundle[];
  /** The instances that speak for a service of a peer in the mesh; undefined: they are not read yet. */
  imported(peer: string, service: string): readonly ServiceInstance[] | undefined;
  /** Whether an IP address that a peer names may be dialed. */
  mayDial(peer: string, address: string): boolean;
  /** Names of the mesh services of a peer. */
  importedServices(peer: string): readonly string[];
  exported(): readonly ExportedMeshService[];
  /** Of the peers that are dialed. */
  peerServers(): readonly PeerServers[];
  /** The virtual address of a service, or of a peer's; undefined: it has none. */
  virtualIp(service: string, peer: string): string | undefined;
}
