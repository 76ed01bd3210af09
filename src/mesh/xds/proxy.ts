import { compareUtf8 } from "../../base/byte-order.js";
import type { Steps } from "../../base/steps.js";
import type { ResourceType } from "../../model/connected-proxy.js";
import type { ServiceInstance } from "../../model/instance.js";
import { meshGatewaySnapshot } from "../snapshot/gateway.js";
import { type NotReady, type SnapshotLimits, sidecarSnapshot } from "../snapshot/sidecar.js";
import type { MeshView } from "../snapshot/view.js";
import { meshGatewayResources } from "./gateway.js";
import type { MakingOptions } from "./kept-parts.js";
import { type ResourceSet, resourceSet } from "./resources.js";
import { sidecarResources } from "./sidecar.js";

/** Resources that a proxy is told, and in plain words the parts that they were made without. */
export interface ProxyResources {
  readonly type: "ready";
  readonly set: ResourceSet;
  readonly missing: readonly string[];
}

const OF_SIDECARS: ReadonlySet<ResourceType> = new Set();
const OF_GATEWAYS: ReadonlySet<ResourceType> = new Set(["cluster"]);

/** The kinds of proxies that are served. */
export function isServedKind(kind: string): boolean {
  return kind === "connect-proxy" || kind === "mesh-gateway";
}

export interface ProxyOptions extends MakingOptions {
  readonly limits: SnapshotLimits;
}

/**
 * Everything that the proxy of a registration is told at one moment: the same bytes for the same state, in whichever order its parts come.
 * It is made in steps; a view may change between them, and what was looked at before is not looked at again.
 * @param instance - the registration, without the settings of config entries; of a kind of {@link isServedKind}.
 */
export function* proxyResources(
  instance: ServiceInstance,
  view: MeshView,
  options: ProxyOptions,
): Steps<ProxyResources | NotReady> {
  options.kept.begin();
  const { limits } = options;
  if (instance.service.kind === "mesh-gateway") {
    const snapshot = yield* meshGatewaySnapshot(instance, view);
    if (snapshot.type === "not-ready") return snapshot;
    const { parts, problems } = yield* meshGatewayResources(snapshot, options);
    return {
      type: "ready",
      set: yield* resourceSet(parts, OF_GATEWAYS),
      missing: [...snapshot.missing, ...problems].sort(compareUtf8),
    };
  }
  const snapshot = yield* sidecarSnapshot(instance, view, limits);
  if (snapshot.type === "not-ready") return snapshot;
  // Steps of their own each: with few upstreams none of them has one inside.
  yield;
  const { parts, problems } = yield* sidecarResources(snapshot, options);
  yield;
  return {
    type: "ready",
    set: yield* resourceSet(parts, OF_SIDECARS),
    missing: [...snapshot.missing, ...problems].sort(compareUtf8),
  };
}
