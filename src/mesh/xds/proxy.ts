import type { ResourceType } from "../../model/connected-proxy.js";
import type { ServiceInstance } from "../../model/instance.js";
import { meshGatewaySnapshot } from "../snapshot/gateway.js";
import { type NotReady, type SnapshotLimits, sidecarSnapshot } from "../snapshot/sidecar.js";
import type { MeshView } from "../snapshot/view.js";
import { meshGatewayResources } from "./gateway.js";
import { encodeResources, type ResourceSet } from "./resources.js";
import { sidecarResources } from "./sidecar.js";
import type { TlsPlacement } from "./tls.js";

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

/**
 * Everything that the proxy of a registration is told at one moment: the same bytes for the same state, in whichever order its parts come.
 * @param instance - the registration, without the settings of config entries; of a kind of {@link isServedKind}.
 */
export function proxyResources(
  instance: ServiceInstance,
  view: MeshView,
  options: { readonly placement: TlsPlacement; readonly limits: SnapshotLimits },
): ProxyResources | NotReady {
  const { placement, limits } = options;
  if (instance.service.kind === "mesh-gateway") {
    const snapshot = meshGatewaySnapshot(instance, view);
    if (snapshot.type === "not-ready") return snapshot;
    const set = encodeResources(meshGatewayResources(snapshot, placement), OF_GATEWAYS);
    return { type: "ready", set, missing: snapshot.missing };
  }
  const snapshot = sidecarSnapshot(instance, view, limits);
  if (snapshot.type === "not-ready") return snapshot;
  const set = encodeResources(sidecarResources(snapshot, placement), OF_SIDECARS);
  return { type: "ready", set, missing: snapshot.missing };
}
