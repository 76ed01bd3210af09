import { joinPems } from "../snapshot/bundles.js";
import { Kept } from "../snapshot/kept.js";
import type { SnapshotBase } from "../snapshot/sidecar.js";
import type { ProxyLeaf } from "../snapshot/view.js";
import type { FilterInit } from "./listeners.js";
import type { EncodedResources, ResourceEncoder } from "./resources.js";
import type { TlsPlacement } from "./tls.js";

/** How a transparent proxy sends calls to an upstream. */
export interface TransparentOutbound {
  readonly addresses: readonly string[];
  readonly filter: FilterInit;
  /** Names of routes that come by themselves. */
  readonly routes: readonly string[];
  /** The filter chain for all of the addresses; undefined: there are none. */
  readonly encoded: Uint8Array | undefined;
}

/** The resources of one upstream. */
export interface UpstreamPart {
  readonly resources: EncodedResources;
  /** Undefined: it has a listener of its own, or nothing leads to it. */
  readonly outbound: TransparentOutbound | undefined;
}

/** The resources of one exported service. */
export interface ExportedPart {
  readonly resources: EncodedResources;
  readonly chain: Uint8Array;
  readonly route: string | undefined;
}

/** The parts that were made last for one proxy, to be taken again where nothing about them has changed. */
export class KeptParts {
  readonly upstreams: Kept<UpstreamPart> = new Kept();
  readonly plain: Kept<EncodedResources> = new Kept();
  readonly exported: Kept<ExportedPart | undefined> = new Kept();

  begin(): void {
    this.upstreams.begin();
    this.plain.begin();
    this.exported.begin();
  }
}

export interface MakingOptions {
  readonly placement: TlsPlacement;
  readonly encoder: ResourceEncoder;
  readonly kept: KeptParts;
}

/** The parts that all resources of a proxy may be made of. */
export function commonParts(
  snapshot: SnapshotBase,
  leaf: ProxyLeaf | undefined,
  { placement }: MakingOptions,
): readonly unknown[] {
  const { datacenter, trustDomain, settings, mesh, rootPems, localGateways } = snapshot;
  return [
    JSON.stringify([placement, datacenter, trustDomain, settings, mesh]),
    leaf,
    joinPems(rootPems),
    localGateways,
  ];
}
