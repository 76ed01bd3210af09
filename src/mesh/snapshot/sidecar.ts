import { compareUtf8 } from "../../base/byte-order.js";
import { ipVersion } from "../../base/host-port.js";
import { StepMeter, type Steps } from "../../base/steps.js";
import { withCentralConfig } from "../../config/central-config.js";
import type { CompiledChain, ResolvedTarget } from "../../config/chain.js";
import type { ConfigEntrySet } from "../../config/config-entry-set.js";
import { compareIntentions, type Intention } from "../../config/intentions.js";
import { emptyProxy, type ServiceInstance } from "../../model/instance.js";
import { member } from "../../model/kept-members.js";
import { emptyService } from "../../model/records.js";
import type { TrustBundle } from "../../peering/peering.js";
import { joinPems, usableBundles } from "./bundles.js";
import type { Endpoints } from "./endpoints.js";
import { opaqueFlag } from "./opaque.js";
import { type PeeredService, peeredService } from "./peered.js";
import {
  type ExposedPath,
  type MeshSettings,
  meshSettings,
  type ProxySettings,
  proxySettings,
  transparency,
  type Upstream,
  type UpstreamSettings,
  upstreamSettings,
  upstreamsOf,
} from "./settings.js";
import { unservedOfTarget, unservedSettings } from "./unserved.js";
import type { MeshView, ProxyLeaf } from "./view.js";

/** The parts of all kinds of snapshots. */
export interface SnapshotBase {
  readonly datacenter: string;
  readonly trustDomain: string;
  /** The registration, with the settings of config entries. */
  readonly instance: ServiceInstance;
  readonly settings: ProxySettings;
  readonly mesh: MeshSettings;
  /** The source of settings, chains and intentions. */
  readonly entries: ConfigEntrySet;
  /** Each one PEM. */
  readonly rootPems: readonly string[];
  /** Where a call may be sent on its way to another cluster. */
  readonly localGateways: Endpoints;
  /** Parts that this snapshot was made without, and why, in plain words. */
  readonly missing: readonly string[];
}

/** A place that a chain leads to. */
export type ChainPlace =
  | { readonly type: "local"; readonly target: ResolvedTarget; readonly endpoints: Endpoints }
  | { readonly type: "peered"; readonly target: ResolvedTarget; readonly service: PeeredService };

export type UpstreamRoute =
  | { readonly type: "peered"; readonly service: PeeredService }
  | {
      readonly type: "chain";
      readonly chain: CompiledChain;
      /** By the ids of the targets; those that are not known are missing. */
      readonly places: ReadonlyMap<string, ChainPlace>;
    };

/** An upstream that calls can be sent to. */
export interface RoutedUpstream {
  readonly upstream: Upstream;
  /** Virtual addresses by which a transparent proxy knows it. */
  readonly virtualIps: readonly string[];
  readonly route: UpstreamRoute;
}

export interface SidecarSnapshot extends SnapshotBase {
  readonly type: "sidecar";
  /** The service that the proxy stands for. */
  readonly service: string;
  readonly leaf: ProxyLeaf;
  readonly allowsByDefault: boolean;
  /** Those for the service, in the order in which they count. */
  readonly intentions: readonly Intention[];
  /** The destinations, the service or `*`, whose intentions ask for JSON Web Tokens, which are not looked at here. */
  readonly asksForTokens: ReadonlySet<string>;
  /** Of the peers whose callers may reach the service. */
  readonly inboundBundles: readonly TrustBundle[];
  /** By name. */
  readonly upstreams: readonly RoutedUpstream[];
  /** Paths of checks, for the machine of the agent alone. */
  readonly checkPaths: readonly ExposedPath[];
  /** The ranges of addresses from which checks come, such as `10.0.0.1/32`. */
  readonly checkSources: readonly string[];
  /** Undefined: the proxy is not transparent. */
  readonly transparentPort: number | undefined;
}

/** There is nothing yet that a proxy could be told. */
export interface NotReady {
  readonly type: "not-ready";
  readonly waitsFor: readonly string[];
}

/** How many upstreams without a port of their own a transparent proxy may have, and chains lead to places. */
export interface SnapshotLimits {
  /** Upstreams of one proxy that nothing registers, of a transparent proxy. */
  readonly implicitUpstreams: number;
}

/** @param instance - the registration of the proxy, without the settings of config entries. */
export function* sidecarSnapshot(
  instance: ServiceInstance,
  view: MeshView,
  limits: SnapshotLimits,
): Steps<SidecarSnapshot | NotReady> {
  const service = withCentralConfig(instance.service, view.entries);
  const own = service.proxy?.destinationServiceName ?? "";
  if (own === "")
    return { type: "not-ready", waitsFor: ["the registration names no service that the proxy stands for"] };
  const rootPems = view.rootPems();
  const leaf = view.leaf(own);
  const unserved = unservedSettings(service, view.entries);
  const waitsFor = [...unserved.required];
  if (joinPems(rootPems).trim() === "") waitsFor.push("the roots of this cluster");
  if (typeof leaf === "string") waitsFor.push(`the certificate of service "${own}": ${leaf}`);
  if (waitsFor.length > 0 || typeof leaf === "string") return { type: "not-ready", waitsFor };
  const missing = [...unserved.others];
  const intentions = intentionsFor(own, view);
  const upstreams = yield* routedUpstreams({ ...instance, service }, view, limits, missing);
  return {
    type: "sidecar",
    service: own,
    datacenter: view.datacenter,
    trustDomain: view.trustDomain,
    instance: { ...instance, service },
    settings: proxySettings(service),
    mesh: meshSettings(view.entries),
    entries: view.entries,
    rootPems,
    leaf,
    allowsByDefault: view.allowsByDefault,
    intentions,
    asksForTokens: asksForTokens(own, view),
    inboundBundles: usableBundles(view.bundlesReaching(own), view.trustDomain, (text) => missing.push(text)),
    localGateways: view.localGateways(),
    upstreams,
    ...exposedChecks({ ...instance, service }, view, missing),
    transparentPort: transparency(service)?.port,
    missing: missing.sort(compareUtf8),
  };
}

/** As Consul writes it. */
const LOOPBACK = "127.0.0.1/8";

/** The checks that `Expose.Checks` leads through the proxy. */
function exposedChecks(
  { node, service }: ServiceInstance,
  view: MeshView,
  missing: string[],
): Pick<SidecarSnapshot, "checkPaths" | "checkSources"> {
  const { extra, destinationServiceId = "" } = service.proxy ?? {};
  if (!opaqueFlag(member(extra, "Expose"), "Checks") || destinationServiceId === "") {
    return { checkPaths: [], checkSources: [] };
  }
  const checks = view.exposedChecks(node.name, destinationServiceId);
  if (checks === undefined) missing.push(`Expose.Checks: the checks of node "${node.name}" are not run by this agent`);
  const checkPaths: ExposedPath[] = [];
  for (const check of checks ?? []) {
    if ("problem" in check) missing.push(`Expose.Checks: check "${check.checkId}": ${check.problem}`);
    else checkPaths.push(check);
  }
  const own = ipVersion(node.address);
  const checkSources = [
    LOOPBACK,
    ...(own === 0 ? [] : [`${node.address}/${own === 4 ? 32 : 128}`]),
    ...(view.hasIpv6() ? ["::1/128"] : []),
  ];
  return { checkPaths, checkSources };
}

function intentionsFor(service: string, view: MeshView): readonly Intention[] {
  const found: Intention[] = [];
  for (const destination of [service, "*"]) {
    for (const source of view.entries.get("service-intentions", destination)?.sources ?? []) {
      found.push({ destination, source });
    }
  }
  return found.sort(compareIntentions);
}

function asksForTokens(service: string, view: MeshView): ReadonlySet<string> {
  const asks = (destination: string): boolean =>
    (view.entries.get("service-intentions", destination)?.jwt?.providers ?? []).length > 0;
  return new Set([service, "*"].filter(asks));
}

/** Cost of looking at one upstream, in the fields of a step. */
const UPSTREAM_SIZE = 300;
/** The same for a service that is no upstream in the end. */
const SERVICE_SIZE = 50;

function* routedUpstreams(
  instance: ServiceInstance,
  view: MeshView,
  limits: SnapshotLimits,
  missing: string[],
): Steps<readonly RoutedUpstream[]> {
  const transparent = transparency(instance.service) !== undefined;
  const upstreams = new Map<string, Upstream>();
  for (const upstream of upstreamsOf(instance.service)) {
    if (upstream.id.name === "*" || (upstream.bind === undefined && !transparent)) continue;
    upstreams.set(upstream.name, upstream);
  }
  if (transparent) yield* addImplicit(upstreams, instance, view, limits, missing);
  const routed: RoutedUpstream[] = [];
  const meter = new StepMeter();
  for (const name of [...upstreams.keys()].sort(compareUtf8)) {
    const upstream = upstreams.get(name);
    if (upstream === undefined) continue;
    if (meter.isOver(UPSTREAM_SIZE)) yield;
    const route = yield* routeOf(upstream, view, missing);
    if (typeof route === "string") missing.push(`upstream "${name}": ${route}`);
    else routed.push({ upstream, virtualIps: virtualIpsOf(upstream, view), route });
  }
  return routed;
}

function* addImplicit(
  upstreams: Map<string, Upstream>,
  instance: ServiceInstance,
  view: MeshView,
  limits: SnapshotLimits,
  missing: string[],
): Steps<void> {
  const every = upstreamsOf(instance.service).find(({ id }) => id.name === "*")?.settings;
  const settings = every ?? upstreamSettings(undefined, instance.service.proxy?.meshGatewayMode ?? "");
  const own = instance.service.proxy?.destinationServiceName.toLowerCase();
  let added = 0;
  const add = (service: string, peer: string): void => {
    const name = peer === "" ? service : `${service}?peer=${peer}`;
    if (upstreams.has(name) || view.virtualIp(service, peer) === undefined) return;
    if (++added > limits.implicitUpstreams) return;
    const id = { type: "", name: service, datacenter: "", peer };
    upstreams.set(name, { id, name, bind: undefined, settings });
  };
  const meter = new StepMeter();
  for (const peer of view
    .bundles()
    .map(({ peerName }) => peerName)
    .sort(compareUtf8)) {
    for (const service of [...view.importedServices(peer)].sort(compareUtf8)) {
      if (meter.isOver(SERVICE_SIZE)) yield;
      add(service, peer);
    }
  }
  for (const service of [...view.meshServices()].sort(compareUtf8)) {
    if (meter.isOver(SERVICE_SIZE)) yield;
    if (service.toLowerCase() !== own && mayBeCalled(instance, service, view)) add(service, "");
  }
  if (added > limits.implicitUpstreams) {
    missing.push(
      `${added - limits.implicitUpstreams} upstreams beyond the ${limits.implicitUpstreams} that a transparent proxy may have`,
    );
  }
}

/** Whether some intention lets the proxy's service call another one; its own proxy decides in the end. */
function mayBeCalled(instance: ServiceInstance, service: string, view: MeshView): boolean {
  const caller = instance.service.proxy?.destinationServiceName ?? "";
  const decisive = intentionsFor(service, view).find(
    ({ source }) => (source.peer ?? "") === "" && (source.name === caller || source.name === "*"),
  );
  if (decisive === undefined) return view.allowsByDefault;
  return decisive.source.permissions !== undefined || decisive.source.action === "allow";
}

function virtualIpsOf({ id }: Upstream, view: MeshView): readonly string[] {
  const found = new Set<string>();
  const instances = id.peer === "" ? [] : (view.imported(id.peer, id.name) ?? []);
  for (const { service } of instances) {
    for (const tag of ["consul-virtual", "virtual"]) {
      const address = service.taggedAddresses[tag]?.address;
      if (address !== undefined && address !== "") found.add(address);
    }
  }
  const own = view.virtualIp(id.name, id.peer);
  if (own !== undefined) found.add(own);
  return [...found].sort(compareUtf8);
}

/**
 * The upstream of a program that calls in the name of `source` without a proxy: with the settings that a sidecar of it would have.
 * @param mode - for mesh gateways; `""`: as config entries say.
 */
export function upstreamOf(
  view: MeshView,
  call: { readonly source: string; readonly service: string; readonly peer: string; readonly mode: string },
): Upstream {
  const { source, service, peer, mode } = call;
  const proxy = {
    ...emptyProxy,
    destinationServiceName: source,
    upstreams: [{ destinationName: service, destinationPeer: peer, ...(mode !== "" && { meshGateway: { mode } }) }],
  };
  const [upstream] = upstreamsOf(withCentralConfig({ ...emptyService(), kind: "connect-proxy", proxy }, view.entries));
  if (upstream === undefined) throw new TypeError("a registration with an upstream has one");
  return upstream;
}

/** How calls to a service of a peer go out; a target of a chain has its own say. `""`: nothing is said. */
export function gatewayModeOf(
  { meshGatewayMode }: Pick<UpstreamSettings, "meshGatewayMode">,
  target?: Pick<ResolvedTarget, "meshGateway">,
): string {
  return meshGatewayMode || (target?.meshGateway ?? "");
}

/** The discovery chain of a service of this cluster, for a caller with these settings. */
export function chainOf(view: MeshView, service: string, settings: UpstreamSettings): CompiledChain {
  return view.chain(service, {
    ...(settings.protocol === "" ? {} : { protocol: settings.protocol }),
    ...(settings.connectTimeoutMs > 0 ? { connectTimeoutMs: settings.connectTimeoutMs } : {}),
    ...(settings.meshGatewayMode === "" ? {} : { meshGateway: settings.meshGatewayMode }),
  });
}

/** Where an upstream leads. A text says why it leads nowhere. @param missing - is told of each place that is left out. */
export function* routeOf({ id, settings }: Upstream, view: MeshView, missing: string[]): Steps<UpstreamRoute | string> {
  if (id.type !== "") return `upstreams of type ${JSON.stringify(id.type)} are not served`;
  if (id.peer !== "") {
    const service = peeredService(view, id.peer, id.name);
    return typeof service === "string" ? service : { type: "peered", service };
  }
  if (id.datacenter !== "" && id.datacenter !== view.datacenter) return "other datacenters are not served";
  const chain = chainOf(view, id.name, settings);
  if (chain.problem !== undefined) return chain.problem;
  for (const target of new Set(chain.targets.map(({ service }) => service))) {
    for (const text of unservedOfTarget(target, view.entries)) missing.push(`upstream "${id.name}": ${text}`);
  }
  return {
    type: "chain",
    chain,
    places: yield* placesOf(chain, view, (text) => missing.push(`upstream "${id.name}": ${text}`)),
  };
}

/** The places that a chain leads to, by the ids of its targets. @param problem - is told of each that is left out. */
export function* placesOf(
  chain: CompiledChain,
  view: MeshView,
  problem: (text: string) => void,
): Steps<ReadonlyMap<string, ChainPlace>> {
  const places = new Map<string, ChainPlace>();
  for (const target of chain.targets) {
    if (target.peer !== "") {
      const service = peeredService(view, target.peer, target.service);
      if (typeof service === "string") problem(`service "${target.service}" of peer "${target.peer}": ${service}`);
      else places.set(target.id, { type: "peered", target, service });
    } else if (target.datacenter !== view.datacenter) {
      problem(`target "${target.id}": other datacenters are not served`);
    } else {
      places.set(target.id, { type: "local", target, endpoints: yield* view.targetEndpoints(target) });
    }
  }
  return places;
}
