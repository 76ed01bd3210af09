import { compareUtf8 } from "../base/byte-order.js";
import {
  emptyProxy,
  type JsonObject,
  type JsonValue,
  type Proxy as ProxyDefinition,
  type Service,
} from "../model/instance.js";
import { isList, isObject, listMember, member, textMember } from "../model/kept-members.js";
import { lowerCase } from "../syntax/names.js";
import type { ServiceDefaultsEntry } from "./config-entry.js";
import type { ConfigEntrySet } from "./config-entry-set.js";

// Proxies as proxy-defaults and service-defaults configure them, and `?merge-central-config` of Consul 1.21 shows them.

const GATEWAYS: ReadonlySet<string> = new Set([
  "mesh-gateway",
  "terminating-gateway",
  "ingress-gateway",
  "api-gateway",
]);
const TRANSPARENT = "transparent";
/** Stands for upstreams that nothing names. */
const EVERY_UPSTREAM = "*";
const GATEWAY_KEY = "mesh_gateway";

/** A service that something is sent to, here or in the cluster of a peer. Names in other capitals are others. */
interface Target {
  readonly peer: string;
  readonly name: string;
}

const targetKey = ({ peer, name }: Target): string => `${peer}\0${name}`;

/** Whether config entries change how an instance is shown. */
function isMerged({ kind, proxy = emptyProxy }: Service): boolean {
  if (GATEWAYS.has(kind)) return true;
  return kind === "connect-proxy" && (proxy.destinationServiceId !== "" || proxy.destinationServiceName !== "");
}

/** The service whose defaults count for an instance. */
function configuredBy({ kind, name, proxy }: Service): string {
  return kind === "connect-proxy" ? (proxy?.destinationServiceName ?? "") : name;
}

/** Upstreams that are services: prepared queries have no defaults. */
function targetOf(upstream: JsonObject): Target | undefined {
  const type = textMember(upstream, "destinationType");
  if (type !== "" && type !== "service") return undefined;
  return { peer: textMember(upstream, "destinationPeer"), name: textMember(upstream, "destinationName") };
}

function overridesOf(defaults: ServiceDefaultsEntry | undefined): readonly JsonObject[] {
  return listMember(member(defaults?.extra, "UpstreamConfig"), "Overrides").filter(isObject);
}

/** Lower-cased names of the services whose defaults may change how an instance is shown. */
export function centralNames(service: Service, entries: ConfigEntrySet): readonly string[] {
  if (!isMerged(service)) return [];
  const own = configuredBy(service);
  const upstreams = (service.proxy?.upstreams ?? []).flatMap((upstream) => targetOf(upstream)?.name ?? []);
  const overrides = overridesOf(entries.get("service-defaults", own)).map((override) => textMember(override, "Name"));
  return [own, ...upstreams, ...overrides].map(lowerCase);
}

/** An instance as config entries make it; an instance that is not a proxy is returned unchanged. */
export function withCentralConfig<Instance extends Service>(service: Instance, entries: ConfigEntrySet): Instance {
  if (!isMerged(service)) return service;
  const proxy = service.proxy ?? emptyProxy;
  const own = centralConfig(entries, configuredBy(service), proxy);
  const mode = proxy.mode || own.mode;
  const upstreams = mergedUpstreams(proxy.upstreams ?? [], own.upstreams, mode);
  const merged: ProxyDefinition = {
    ...proxy,
    mode,
    config: filled(proxy.config ?? {}, own.config),
    upstreams,
    meshGatewayMode: proxy.meshGatewayMode || own.meshGatewayMode,
    extra: {
      ...proxy.extra,
      // Those of the registration itself do not count.
      EnvoyExtensions: own.extensions,
      Expose: filled(object(proxy.extra, "Expose"), own.expose),
      TransparentProxy: filled(object(proxy.extra, "TransparentProxy"), own.transparentProxy),
      AccessLogs: filled(object(proxy.extra, "AccessLogs"), own.accessLogs),
    },
  };
  return { ...service, proxy: withoutNothing(merged) };
}

/** Leaves out empty values. */
function withoutNothing(proxy: ProxyDefinition): ProxyDefinition {
  const { config, upstreams = [], extra = {}, ...rest } = proxy;
  const kept = Object.entries(extra).filter(([, value]) => !isEmpty(value));
  return {
    ...rest,
    ...(isEmpty(config) ? {} : { config }),
    ...(upstreams.length === 0 ? {} : { upstreams }),
    ...(kept.length === 0 ? {} : { extra: Object.fromEntries(kept) }),
  };
}

interface CentralConfig {
  readonly config: JsonObject;
  readonly mode: string;
  readonly meshGatewayMode: string;
  readonly transparentProxy: JsonObject;
  readonly expose: JsonObject;
  readonly accessLogs: JsonObject;
  readonly extensions: readonly JsonValue[];
  /** The settings of each upstream, by {@link targetKey}. */
  readonly upstreams: ReadonlyMap<string, Target & { readonly config: JsonObject }>;
}

function centralConfig(entries: ConfigEntrySet, service: string, proxy: ProxyDefinition): CentralConfig {
  const all = entries.get("proxy-defaults", "global");
  const defaults = defaultsOf(entries, service);
  const kept = defaults?.extra;
  const mode = textMember(kept, "Mode") || textMember(all?.extra, "Mode");
  const meshGatewayMode = gatewayMode(kept) || gatewayMode(all?.extra);
  return {
    config: { ...all?.config, ...serviceConfig(defaults) },
    mode,
    meshGatewayMode,
    transparentProxy: filled(object(kept, "TransparentProxy"), object(all?.extra, "TransparentProxy")),
    expose: exposeOf(kept, all?.extra),
    accessLogs: object(all?.extra, "AccessLogs"),
    extensions: [...listMember(all?.extra, "EnvoyExtensions"), ...listMember(kept, "EnvoyExtensions")].map(extension),
    upstreams: upstreamConfigs(entries, { configured: service, defaults, proxy, mode, meshGatewayMode }),
  };
}

function exposeOf(kept: JsonValue | undefined, all: JsonValue | undefined): JsonObject {
  const paths = listMember(member(kept, "Expose"), "Paths");
  return {
    ...object(all, "Expose"),
    ...(member(member(kept, "Expose"), "Checks") === true && { Checks: true }),
    ...(paths.length > 0 && { Paths: paths }),
  };
}

/** The exposed parts of a proxy as config entries make them: the same as in {@link withCentralConfig}, at a small part of the cost. */
export function centralExpose(service: Service, entries: ConfigEntrySet): JsonObject {
  const own = object(service.proxy?.extra, "Expose");
  if (!isMerged(service)) return own;
  const kept = defaultsOf(entries, configuredBy(service))?.extra;
  return filled(own, exposeOf(kept, entries.get("proxy-defaults", "global")?.extra));
}

/** Consul 1.21 finds an entry in any capitals, and counts it only in those that were asked for. */
function defaultsOf(entries: ConfigEntrySet, service: string): ServiceDefaultsEntry | undefined {
  const entry = entries.get("service-defaults", service);
  return entry?.name === service ? entry : undefined;
}

/** The settings of service-defaults that a proxy finds in its opaque configuration. */
function serviceConfig(defaults: ServiceDefaultsEntry | undefined): JsonObject {
  const { extra } = defaults ?? {};
  return said({
    protocol: defaults?.protocol,
    balance_inbound_connections: member(extra, "BalanceInboundConnections"),
    max_inbound_connections: positive(member(extra, "MaxInboundConnections")),
    local_connect_timeout_ms: positive(member(extra, "LocalConnectTimeoutMs")),
    local_request_timeout_ms: positive(member(extra, "LocalRequestTimeoutMs")),
  });
}

/** The settings of both for all upstreams, and for each that the proxy or an override names. */
function upstreamConfigs(
  entries: ConfigEntrySet,
  of: {
    readonly configured: string;
    readonly defaults: ServiceDefaultsEntry | undefined;
    readonly proxy: ProxyDefinition;
    readonly mode: string;
    readonly meshGatewayMode: string;
  },
): CentralConfig["upstreams"] {
  const { configured, defaults, proxy, meshGatewayMode } = of;
  const named = (proxy.upstreams ?? []).flatMap((upstream) => targetOf(upstream) ?? []);
  const configs = new Map<string, Target & { readonly config: JsonObject }>();
  if (named.length === 0 && proxy.mode !== TRANSPARENT && of.mode !== TRANSPARENT) return configs;
  const all = entries.get("proxy-defaults", "global");
  const gateways = (mode: string): JsonObject => (mode === "" ? {} : { [GATEWAY_KEY]: { Mode: mode } });
  const registered = gateways(proxy.meshGatewayMode);
  const given = member(defaults?.extra, "UpstreamConfig");
  const common = member(given, "Defaults");
  const commonConfig = isObject(common)
    ? upstreamConfig({ ...common, MeshGateway: { Mode: gatewayMode(common) || meshGatewayMode } })
    : {};
  const opaque = all?.config?.[GATEWAY_KEY];
  const wildcard = {
    ...(opaque === undefined ? {} : { [GATEWAY_KEY]: opaque }),
    ...gateways(gatewayMode(all?.extra)),
    ...gateways(gatewayMode(defaults?.extra)),
    ...commonConfig,
    ...registered,
  };
  const put = (target: Target, config: JsonObject): void => {
    if (Object.keys(config).length > 0) configs.set(targetKey(target), { ...target, config });
  };
  const every = { peer: "", name: EVERY_UPSTREAM };
  // Defaults that say nothing are defaults, too.
  if (common === undefined) put(every, wildcard);
  else configs.set(targetKey(every), { ...every, config: wildcard });
  const overrides = new Map<string, JsonObject>();
  for (const override of overridesOf(defaults)) {
    const target = { peer: textMember(override, "Peer"), name: textMember(override, "Name") };
    named.push(target);
    overrides.set(targetKey(target), override);
  }
  const ours = [configured, ...named.filter(({ peer }) => peer === "").map(({ name }) => name)];
  const found = new Set(ours.map((name) => entries.get("service-defaults", name)?.name));
  const protocol = opaqueText(all?.config, "protocol").toLowerCase();
  for (const target of named) {
    // Of a service of a peer nothing is known here, unless one of ours that is named as well has its name.
    const its = found.has(target.name) ? defaultsOf(entries, target.name)?.protocol : undefined;
    put(target, {
      ...said({ protocol }),
      ...wildcard,
      ...said({ protocol: its }),
      ...gateways(meshGatewayMode),
      ...commonConfig,
      ...registered,
      ...upstreamConfig(overrides.get(targetKey(target)) ?? {}),
    });
  }
  return configs;
}

/** Settings of an upstream as a proxy finds them in its opaque configuration. */
function upstreamConfig(from: JsonObject): JsonObject {
  const mode = gatewayMode(from);
  return said({
    envoy_listener_json: member(from, "EnvoyListenerJSON"),
    envoy_cluster_json: member(from, "EnvoyClusterJSON"),
    protocol: member(from, "Protocol"),
    connect_timeout_ms: positive(member(from, "ConnectTimeoutMs")),
    [GATEWAY_KEY]: mode === "" ? undefined : { Mode: mode },
    limits: member(from, "Limits"),
    passive_health_check: member(from, "PassiveHealthCheck"),
    balance_outbound_connections: member(from, "BalanceOutboundConnections"),
  });
}

function mergedUpstreams(
  own: readonly JsonObject[],
  configs: CentralConfig["upstreams"],
  mode: string,
): readonly JsonObject[] {
  const named = new Set<string>();
  const merged = own.map((upstream) => {
    const target = targetOf(upstream);
    if (target === undefined) return upstream;
    named.add(targetKey(target));
    const central = configs.get(targetKey(target));
    return central === undefined ? upstream : mergedUpstream(upstream, target, central.config);
  });
  if (mode !== TRANSPARENT) return merged;
  // Consul's order is another with each answer.
  const others = [...configs].filter(([key]) => !named.has(key)).sort(([left], [right]) => compareUtf8(left, right));
  return [...merged, ...others.map(([, { peer, name, config }]) => addedUpstream(peer, name, config))];
}

function mergedUpstream(upstream: JsonObject, { peer }: Target, central: JsonObject): JsonObject {
  const before = object(upstream, "config");
  // Limits, like other nested settings, are one value each: those of the registration count whole.
  const given = Object.entries(before).filter(([name, value]) => !isEmpty(value) || !Object.hasOwn(central, name));
  const { [GATEWAY_KEY]: _, protocol, ...others }: JsonObject = { ...central, ...Object.fromEntries(given) };
  // The peer tells the protocol of its service.
  const spoken = peer === "" ? protocol : before["protocol"];
  const config = { ...others, ...(spoken === undefined ? {} : { protocol: spoken }) };
  const mode = textMember(member(upstream, "meshGateway"), "mode") || opaqueGatewayMode(central);
  const { config: __, ...rest } = upstream;
  return {
    ...rest,
    ...(isEmpty(config) ? {} : { config }),
    meshGateway: mode === "" ? {} : { mode },
  };
}

/** An upstream that only config entries name: a transparent proxy reaches it without a registration of its own. */
function addedUpstream(peer: string, name: string, config: JsonObject): JsonObject {
  const mode = opaqueGatewayMode(config);
  return {
    destinationNamespace: "default",
    destinationPartition: "default",
    ...(peer !== "" && { destinationPeer: peer }),
    destinationName: name,
    ...(isEmpty(config) ? {} : { config }),
    meshGateway: mode === "" ? {} : { mode },
    centrallyConfigured: true,
  };
}

/** Consul tells of an extension no more than this. */
function extension(value: JsonValue): JsonValue {
  if (!isObject(value)) return value;
  const { Name = "", Required = false, Arguments = null } = value;
  return { Name, Required, Arguments };
}

function object(from: JsonValue | undefined, name: string): JsonObject {
  const value = member(from, name);
  return isObject(value) ? value : {};
}

function gatewayMode(from: JsonValue | undefined): string {
  return textMember(member(from, "MeshGateway"), "Mode");
}

/** A member of an opaque configuration, whose keys Consul takes in any capitals, as a text. */
function opaqueText(from: JsonObject | undefined, name: string): string {
  const found = opaqueMember(from, name);
  return typeof found === "string" || typeof found === "number" ? String(found) : "";
}

function opaqueMember(from: JsonObject | undefined, ...names: readonly string[]): JsonValue | undefined {
  return Object.entries(from ?? {}).find(([key]) => names.includes(key.toLowerCase()))?.[1];
}

function opaqueGatewayMode(config: JsonObject): string {
  const gateway = opaqueMember(config, GATEWAY_KEY, "meshgateway");
  return isObject(gateway) ? opaqueText(gateway, "mode") : "";
}

function positive(value: JsonValue | undefined): JsonValue | undefined {
  return typeof value === "number" && value > 0 ? value : undefined;
}

/** Without what says nothing. */
function said(members: Readonly<Record<string, JsonValue | undefined>>): JsonObject {
  const kept: Record<string, JsonValue> = {};
  for (const [name, value] of Object.entries(members)) if (value !== undefined && value !== "") kept[name] = value;
  return kept;
}

function isEmpty(value: JsonValue | undefined): boolean {
  if (value === undefined || value === null || value === "" || value === 0 || value === false) return true;
  return isList(value) ? value.length === 0 : isObject(value) && Object.keys(value).length === 0;
}

/** `own`, with the members of `defaults` where it has none or an empty one; objects in objects likewise. */
function filled(own: JsonObject, defaults: JsonObject): JsonObject {
  const merged: Record<string, JsonValue> = { ...own };
  for (const [name, value] of Object.entries(defaults)) {
    const before = Object.hasOwn(own, name) ? own[name] : undefined;
    if (value === null) continue;
    if (isEmpty(before)) merged[name] = value;
    else if (isObject(before) && isObject(value)) merged[name] = filled(before, value);
  }
  return merged;
}
