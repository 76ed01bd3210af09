import { compareUtf8 } from "../../base/byte-order.js";
import type { PeerMeta, ServiceInstance } from "../../model/instance.js";
import type { TrustBundle } from "../../peering/peering.js";
import { lowerCase } from "../../syntax/names.js";
import { peeredClusterName } from "../../trust/names.js";
import { bundleProblem, joinPems } from "./bundles.js";
import { type Endpoints, endpointsOf } from "./endpoints.js";
import type { MeshView } from "./view.js";

/** A service of a peer, as a proxy of ours reaches it. */
export interface PeeredService {
  readonly service: string;
  readonly peer: string;
  /** Envoy's name of its cluster in a sidecar. */
  readonly clusterName: string;
  /** Lower-cased. */
  readonly trustDomain: string;
  /** The roots of the peer, PEM. */
  readonly rootPems: string;
  /** As the peer told it, and not to be made from anything else. */
  readonly sni: string;
  readonly spiffeIds: readonly string[];
  readonly protocol: string;
  /** The gateways of the peer. */
  readonly remote: Endpoints;
  readonly instances: readonly ServiceInstance[];
}

const PROTOCOLS: ReadonlySet<string> = new Set(["tcp", "http", "http2", "grpc"]);

/** A part that is known, or why it is not, in words. */
export type Finding<Part> =
  | { readonly type: "known"; readonly part: Part }
  | { readonly type: "problem"; readonly text: string };

/** The parts of a {@link PeeredService}, each by itself. */
export interface PeeredFindings {
  /** The roots by which its certificate is judged. */
  readonly bundle: Finding<TrustBundle>;
  /** The instances that speak for it: one for each gateway of the peer. */
  readonly instances: Finding<readonly ServiceInstance[]>;
  /** By which names it is reached and known. */
  readonly names: Finding<{ readonly sni: string; readonly spiffeIds: readonly string[]; readonly protocol: string }>;
}

/** The decisions on each part of a service of a peer, for proxies, programs, and explanations of either. */
export function peeredFindings(view: MeshView, peer: string, service: string): PeeredFindings {
  const instances = view.imported(peer, service);
  return {
    bundle: bundleOf(view, peer),
    instances:
      instances === undefined
        ? problem("its instances are being read")
        : instances.length === 0
          ? problem("the peer does not export it to the mesh, or it has no instances there")
          : { type: "known", part: instances },
    names: namesOf(peerMetaOf(instances ?? [])),
  };
}

function problem(text: string): Finding<never> {
  return { type: "problem", text };
}

/** The roots of a peer, as far as they can be used. */
export function bundleOf(view: MeshView, peer: string): Finding<TrustBundle> {
  const bundle = view.bundle(peer);
  if (bundle === undefined) return problem("the trust bundle of the peer has not come yet");
  const text = bundleProblem(bundle, view.trustDomain);
  return text === undefined ? { type: "known", part: bundle } : problem(text);
}

function namesOf(meta: PeerMeta | undefined): PeeredFindings["names"] {
  if (meta === undefined) return problem("the peer says nothing of how to reach it in its mesh");
  const [sni = ""] = meta.sni;
  if (sni === "") return problem("the peer says no name under which to reach it");
  const spiffeIds = meta.spiffeId.filter((id) => id !== "");
  if (spiffeIds.length === 0) return problem("the peer says no identity by which to know it");
  return { type: "known", part: { sni, spiffeIds, protocol: meta.protocol } };
}

/**
 * A service of a peer, with all that a proxy needs to reach it and to know that it has reached it. A text says what is missing: a connection
 * without a name to check, or without roots to check it by, is none to make.
 */
export function peeredService(view: MeshView, peer: string, service: string): PeeredService | string {
  const { bundle, instances, names } = peeredFindings(view, peer, service);
  if (bundle.type === "problem") return bundle.text;
  if (instances.type === "problem") return instances.text;
  if (names.type === "problem") return names.text;
  const { sni, spiffeIds, protocol } = names.part;
  return {
    service,
    peer,
    clusterName: clusterNameOf(bundle.part, service, peer),
    trustDomain: bundle.part.trustDomain.toLowerCase(),
    rootPems: joinPems(bundle.part.rootPems),
    sni,
    spiffeIds,
    protocol: carriedProtocol(protocol),
    remote: remoteEndpoints(view, peer, instances.part),
    instances: instances.part,
  };
}

/** Whether calls to a service of a peer go through the gateways of this cluster first. */
export function goesThroughOwnGateways(mode: string): boolean {
  return mode === "local";
}

/** Where a peer says that its services are reached, as far as it may be dialed there. Names are looked up by Envoy. */
export function remoteEndpoints(view: MeshView, peer: string, instances: readonly ServiceInstance[]): Endpoints {
  const { list, hostnames } = endpointsOf(instances, "wan");
  return { list: list.filter(({ address }) => hostnames || view.mayDial(peer, address)), hostnames };
}

function clusterNameOf({ trustDomain }: TrustBundle, service: string, peer: string): string {
  return peeredClusterName({ service, namespace: "default", peer, trustDomain });
}

/** A protocol that is not known is carried as bytes, which opens nothing: the far side still decides who may call. */
export function carriedProtocol(protocol: string): string {
  const told = protocol.toLowerCase();
  return PROTOCOLS.has(told) ? told : "tcp";
}

/** Those of the instances that speak for a service in the mesh of a peer: its gateways. */
export function speakersFor(service: string, instances: readonly ServiceInstance[]): readonly ServiceInstance[] {
  const key = lowerCase(service);
  return instances.filter(
    ({ service: { kind, proxy } }) =>
      kind === "connect-proxy" && lowerCase(proxy?.destinationServiceName ?? "") === key,
  );
}

/** It is the same on all instances of a service; the first of a stable order that has one counts. */
export function peerMetaOf(instances: readonly ServiceInstance[]): PeerMeta | undefined {
  const inOrder = instances.toSorted(
    (left, right) => compareUtf8(left.node.name, right.node.name) || compareUtf8(left.service.id, right.service.id),
  );
  return inOrder.find(({ service }) => service.connect?.peerMeta !== undefined)?.service.connect?.peerMeta;
}
