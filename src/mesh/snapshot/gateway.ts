import { compareUtf8 } from "../../base/byte-order.js";
import { ipVersion, isPort, splitHostPort } from "../../base/host-port.js";
import { StepMeter, type Steps } from "../../base/steps.js";
import { withCentralConfig } from "../../config/central-config.js";
import { type CompiledChain, isHttpLike } from "../../config/chain.js";
import type { ServiceInstance } from "../../model/instance.js";
import { member } from "../../model/kept-members.js";
import type { TrustBundle } from "../../peering/peering.js";
import { peeringServerName } from "../../trust/authority.js";
import { peeredServiceSni, serviceSni } from "../../trust/names.js";
import { joinPems, usableBundles } from "./bundles.js";
import { addressOf, type Endpoints } from "./endpoints.js";
import { peerMetaOf, remoteEndpoints } from "./peered.js";
import { type ConnectionThresholds, meshSettings, proxySettings, thresholdsOf } from "./settings.js";
import { type ChainPlace, type NotReady, placesOf, type SnapshotBase } from "./sidecar.js";
import { unservedSettings } from "./unserved.js";
import type { MeshView, ProxyLeaf } from "./view.js";

/** A service that peers reach through the gateway. */
export interface ExportedRoute {
  readonly service: string;
  /** The names that callers of the peers give, in the order of the peers. */
  readonly serverNames: readonly string[];
  readonly chain: CompiledChain;
  readonly places: ReadonlyMap<string, ChainPlace>;
  /** Of the peers that it is exported to. */
  readonly bundles: readonly TrustBundle[];
}

/** A cluster that calls are spliced to by the name that they give. */
export interface SplicedCluster {
  readonly name: string;
  readonly endpoints: Endpoints;
}

/** Where the gateway listens. */
export interface GatewayListener {
  readonly name: string;
  readonly address: string;
  readonly port: number;
}

export interface MeshGatewaySnapshot extends SnapshotBase {
  readonly type: "mesh-gateway";
  /** Undefined: it has none, and carries no HTTP. */
  readonly leaf: ProxyLeaf | undefined;
  readonly listeners: readonly GatewayListener[];
  readonly thresholds: ConnectionThresholds | undefined;
  /** By service. */
  readonly exported: readonly ExportedRoute[];
  /** The local services, for callers of this cluster. */
  readonly local: readonly SplicedCluster[];
  /** The services of peers, for our sidecars. */
  readonly imported: readonly SplicedCluster[];
  /** Our own servers, for those of peers; undefined: peers do not come through gateways. */
  readonly servers: { readonly serverName: string; readonly endpoints: Endpoints | undefined } | undefined;
  /** The servers of peers, for our own. */
  readonly peerServers: readonly SplicedCluster[];
}

/** @param instance - the registration of the gateway, without the settings of config entries. */
export function* meshGatewaySnapshot(instance: ServiceInstance, view: MeshView): Steps<MeshGatewaySnapshot | NotReady> {
  const service = withCentralConfig(instance.service, view.entries);
  const rootPems = view.rootPems();
  if (joinPems(rootPems).trim() === "") return { type: "not-ready", waitsFor: ["the roots of this cluster"] };
  const unserved = unservedSettings(service, view.entries);
  if (unserved.required.length > 0) return { type: "not-ready", waitsFor: unserved.required };
  const merged = { ...instance, service };
  const settings = proxySettings(service);
  const mesh = meshSettings(view.entries);
  const missing = [...unserved.others];
  const problem = (text: string): void => void missing.push(text);
  const bundles = usableBundles(view.bundles(), view.trustDomain, problem);
  const services = yield* exportedRoutes(view, bundles, problem);
  const carriesHttp = services.some(({ chain }) => isHttpLike(chain.protocol));
  const leaf = carriesHttp ? view.gatewayLeaf() : undefined;
  if (typeof leaf === "string")
    problem(`services of HTTP-like protocols: there is no certificate of the mesh gateway: ${leaf}`);
  const known = typeof leaf === "string" ? undefined : leaf;
  const local = yield* localClusters(view);
  const imported = yield* importedClusters(view, bundles, problem);
  return {
    type: "mesh-gateway",
    datacenter: view.datacenter,
    trustDomain: view.trustDomain,
    instance: merged,
    settings,
    mesh,
    entries: view.entries,
    rootPems,
    leaf: known,
    listeners: listenersOf(merged, settings.gateway),
    thresholds: thresholdsOf(
      member(
        member(member(view.entries.get("service-defaults", service.name)?.extra, "UpstreamConfig"), "Defaults"),
        "Limits",
      ),
    ),
    localGateways: { list: [], hostnames: false },
    // Without a certificate of its own the gateway ends no connection, and must not pass them on unlooked at.
    exported: services.filter(({ chain }) => known !== undefined || !isHttpLike(chain.protocol)),
    local,
    imported,
    servers: mesh.peerThroughMeshGateways ? ownServers(view, problem) : undefined,
    peerServers: mesh.peerThroughMeshGateways ? serversOfPeers(view, problem) : [],
    missing: missing.sort(compareUtf8),
  };
}

function listenersOf(
  instance: ServiceInstance,
  {
    bindsDefault,
    bindsTagged,
    bindAddresses,
  }: {
    readonly bindsDefault: boolean;
    readonly bindsTagged: boolean;
    readonly bindAddresses: readonly GatewayListener[];
  },
): readonly GatewayListener[] {
  const found: GatewayListener[] = [];
  if (bindsDefault)
    found.push({ name: "default", address: instance.service.address || "0.0.0.0", port: instance.service.port });
  if (bindsTagged) {
    for (const [name, { address, port }] of Object.entries(instance.service.taggedAddresses))
      found.push({ name, address, port });
  }
  found.push(...bindAddresses);
  const taken = new Set<string>();
  // By name; those without a usable address, and second ones for the same place, do not count.
  return found
    .filter(({ address, port }) => ipVersion(address) !== 0 && isPort(port))
    .sort(
      (left, right) =>
        compareUtf8(left.name, right.name) || compareUtf8(left.address, right.address) || left.port - right.port,
    )
    .filter(({ address, port }) => {
      const place = `${address} ${port}`;
      if (taken.has(place)) return false;
      taken.add(place);
      return true;
    });
}

/** Cost of looking at one service, in the fields of a step. */
const SERVICE_SIZE = 300;

function* exportedRoutes(
  view: MeshView,
  bundles: readonly TrustBundle[],
  problem: (text: string) => void,
): Steps<readonly ExportedRoute[]> {
  const routes: ExportedRoute[] = [];
  const services = [...view.exported()].sort((left, right) => compareUtf8(left.service, right.service));
  const meter = new StepMeter();
  for (const { service, peers } of services) {
    if (meter.isOver(SERVICE_SIZE)) yield;
    if (peers.length === 0) continue;
    const told = (text: string): void => problem(`exported service "${service}": ${text}`);
    const chain = view.chain(service);
    if (chain.problem !== undefined) {
      told(chain.problem);
      continue;
    }
    // A gateway passes no call on to another cluster: a peer would reach another peer's services.
    const own = {
      ...chain,
      targets: chain.targets.filter(({ peer, datacenter }) => peer === "" && datacenter === view.datacenter),
    };
    const places = yield* placesOf(own, view, told);
    if (![...places.values()].some((place) => place.type === "local" && place.endpoints.list.length > 0)) continue;
    if (!isHttpLike(chain.protocol) && chain.nodes.get(chain.start)?.type !== "resolver") {
      told("its chain does not begin with a resolver");
      continue;
    }
    const names = [...peers].sort(compareUtf8);
    routes.push({
      service,
      serverNames: names.map((peer) => peeredServiceSni({ service, peer, trustDomain: view.trustDomain })),
      chain,
      places,
      bundles: bundles.filter(({ peerName }) => names.includes(peerName)),
    });
  }
  return routes;
}

function* localClusters(view: MeshView): Steps<readonly SplicedCluster[]> {
  const clusters: SplicedCluster[] = [];
  const meter = new StepMeter();
  for (const service of [...view.meshServices()].sort(compareUtf8)) {
    const { datacenter, trustDomain } = view;
    const subsets = view.entries.get("service-resolver", service)?.subsets ?? {};
    for (const subset of ["", ...Object.keys(subsets).sort(compareUtf8)]) {
      const subsetDefinition = (subset === "" ? undefined : subsets[subset]) ?? {};
      if (meter.isOver(SERVICE_SIZE)) yield;
      clusters.push({
        name: serviceSni({ service, subset, datacenter, trustDomain }),
        endpoints: yield* view.targetEndpoints({ service, subset, subsetDefinition }),
      });
    }
  }
  return clusters;
}

/**
 * Envoy looks the cluster up by the name of the connection in small letters, so that is what it is called here. Two services whose names
 * differ in capitals alone are one; the first in order counts.
 */
function* importedClusters(
  view: MeshView,
  bundles: readonly TrustBundle[],
  problem: (text: string) => void,
): Steps<readonly SplicedCluster[]> {
  const clusters = new Map<string, SplicedCluster>();
  const meter = new StepMeter();
  for (const { peerName: peer } of bundles) {
    for (const service of [...view.importedServices(peer)].sort(compareUtf8)) {
      if (meter.isOver(SERVICE_SIZE)) yield;
      const told = (text: string): void => problem(`service "${service}" of peer "${peer}": ${text}`);
      const instances = view.imported(peer, service);
      if (instances === undefined) {
        told("its instances are being read");
        continue;
      }
      if (instances.length === 0) continue;
      const sni = peerMetaOf(instances)?.sni[0]?.toLowerCase() ?? "";
      if (sni === "") told("the peer says no name under which to reach it");
      else if (clusters.has(sni)) told("another service is reached under the same name");
      else clusters.set(sni, { name: sni, endpoints: remoteEndpoints(view, peer, instances) });
    }
  }
  return [...clusters.values()].sort((left, right) => compareUtf8(left.name, right.name));
}

/** The metadata in which a server says the port for peers. */
const PORT_FOR_PEERS = "grpc_tls_port";

function ownServers(view: MeshView, problem: (text: string) => void): MeshGatewaySnapshot["servers"] {
  const servers = view.servers().filter(({ service }) => service.meta["read_replica"] !== "true");
  if (servers.length === 0) {
    problem("the servers of this cluster: none is registered");
    return undefined;
  }
  const list = servers.flatMap((instance) => {
    const { address } = addressOf(instance, "lan");
    const port = Number(instance.service.meta[PORT_FOR_PEERS] ?? instance.service.port);
    return address !== "" && isPort(port) ? [{ address, port, healthy: true, weight: 1 }] : [];
  });
  if (list.length === 0) problem("the servers of this cluster: none has a port for peers");
  const serverName = peeringServerName(view.datacenter, view.trustDomain);
  return { serverName, endpoints: list.length === 0 ? undefined : split(list) };
}

function serversOfPeers(view: MeshView, problem: (text: string) => void): readonly SplicedCluster[] {
  const found = new Map<string, { readonly index: bigint; readonly cluster: SplicedCluster }>();
  const own = peeringServerName(view.datacenter, view.trustDomain);
  for (const { serverName, addresses, index } of view.peerServers()) {
    const name = serverName.toLowerCase();
    if (name === "" || name === own) continue;
    const list = addresses.flatMap((address) => {
      const place = splitHostPort(address);
      return place === undefined ? [] : [{ address: place.host, port: place.port, healthy: true, weight: 1 }];
    });
    if (list.length === 0) problem(`the servers of ${name}: none has a usable address`);
    else if ((found.get(name)?.index ?? -1n) < index)
      found.set(name, { index, cluster: { name: serverName, endpoints: split(list) } });
  }
  return [...found.values()].map(({ cluster }) => cluster).sort((left, right) => compareUtf8(left.name, right.name));
}

function split(list: Endpoints["list"]): Endpoints {
  const named = list.filter(({ address }) => ipVersion(address) === 0);
  const kept = named.length > 0 ? named : list;
  return {
    list: [...kept].sort((left, right) => compareUtf8(left.address, right.address) || left.port - right.port),
    hostnames: named.length > 0,
  };
}
