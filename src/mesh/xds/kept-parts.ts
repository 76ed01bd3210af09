import { EnvoyJsonError } from "../../wire/envoy-json.js";
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

/** The resources of one upstream, or of all that callers meet. */
export interface UpstreamPart {
  readonly resources: EncodedResources;
  /** Undefined: it has a listener of its own, or nothing leads to it. */
  readonly outbound: TransparentOutbound | undefined;
  /** Resources that operators wrote and that cannot be taken, and why. */
  readonly problems: readonly string[];
}

/** The resources of one exported service. */
export interface ExportedPart {
  readonly resources: EncodedResources;
  readonly chain: Uint8Array;
  readonly route: string | undefined;
}

/** The parts that were made last for one proxy, to be taken again where nothing about them has changed. */
export class KeptParts {
  readonly inbound: Kept<UpstreamPart> = new Kept();
  readonly upstreams: Kept<UpstreamPart> = new Kept();
  readonly plain: Kept<EncodedResources> = new Kept();
  readonly exported: Kept<ExportedPart | undefined> = new Kept();

  begin(): void {
    this.inbound.begin();
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

/** The resources of one proxy, and what could not be made of those that operators wrote. */
export interface MadeResources {
  readonly parts: readonly EncodedResources[];
  readonly problems: readonly string[];
}

/** How requests are traced, as an operator writes it, encoded; undefined where nothing is written, or nothing that can be taken. */
export function ownTracing(
  { settings }: SnapshotBase,
  { encoder }: MakingOptions,
  problem: (text: string) => void,
): Uint8Array | undefined {
  const { listenerTracing } = settings.own;
  if (listenerTracing === "") return undefined;
  return orProblem("envoy_listener_tracing_json", "requests are traced where callers ask for it", problem, () =>
    encoder.own.tracing(listenerTracing),
  );
}

/** Returns what `make` does; undefined where the text of an operator cannot be taken. @param instead - tells what happens then. */
export function orProblem<Value>(
  setting: string,
  instead: string,
  problem: (text: string) => void,
  make: () => Value,
): Value | undefined {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof EnvoyJsonError)) throw error;
    problem(`${setting}: ${error.message}; ${instead}`);
    return undefined;
  }
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
