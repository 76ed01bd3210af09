import type { ConfigEntrySet } from "../../config/config-entry-set.js";
import { BOOTSTRAP_KEYS } from "../../model/bootstrap-keys.js";
import type { JsonValue, Service } from "../../model/instance.js";
import { isObject, listMember, member, textMember } from "../../model/kept-members.js";
import { opaqueFlag, opaqueText, plainKey } from "./opaque.js";

// Settings of a proxy that are passed over here. Nobody must take them for done.

export interface Unserved {
  /** Without these the proxy must not run: an extension may be what keeps callers out. */
  readonly required: readonly string[];
  readonly others: readonly string[];
}

/** Keys of the opaque settings of sidecars and mesh gateways that are served. Every other one is named. */
export const SERVED_PROXY_KEYS = [
  "protocol",
  "bind_address",
  "bind_port",
  "local_connect_timeout_ms",
  "local_request_timeout_ms",
  "local_idle_timeout_ms",
  "max_inbound_connections",
  "balance_inbound_connections",
  "xds_fetch_timeout_ms",
  "envoy_public_listener_json",
  "envoy_local_cluster_json",
  "envoy_listener_tracing_json",
  "connect_timeout_ms",
  "envoy_dns_discovery_type",
  "envoy_gateway_no_default_bind",
  "envoy_gateway_bind_tagged_addresses",
  "envoy_gateway_bind_addresses",
  "envoy_mesh_gateway_no_default_bind",
  "envoy_mesh_gateway_bind_tagged_addresses",
  "envoy_mesh_gateway_bind_addresses",
  "envoy_gateway_remote_tcp_enable_keepalive",
  "envoy_gateway_remote_tcp_keepalive_time",
  "envoy_gateway_remote_tcp_keepalive_interval",
  "envoy_gateway_remote_tcp_keepalive_probes",
] as const;

/** The same for the settings of an upstream. */
export const SERVED_UPSTREAM_KEYS = [
  "protocol",
  "connect_timeout_ms",
  "limits",
  "passive_health_check",
  "mesh_gateway",
  "balance_outbound_connections",
  "envoy_listener_json",
  "envoy_cluster_json",
] as const;

const COLLECTOR = "envoy_telemetry_collector_bind_socket_dir";
// `peerage connect envoy` and Consul's command serve those that count when an Envoy starts.
const SERVED_PROXY: ReadonlySet<string> = new Set([...SERVED_PROXY_KEYS, ...BOOTSTRAP_KEYS].map(plainKey));
const SERVED_UPSTREAM: ReadonlySet<string> = new Set(SERVED_UPSTREAM_KEYS.map(plainKey));

/** @param service - with the settings of config entries. */
export function unservedSettings(service: Service, entries: ConfigEntrySet): Unserved {
  const { config, extra, upstreams = [] } = service.proxy ?? {};
  const required: string[] = [];
  const others: string[] = [];
  for (const extension of listMember(extra, "EnvoyExtensions")) {
    const text = `the Envoy extension ${JSON.stringify(textMember(extension, "Name"))}, which is not served`;
    (opaqueFlag(extension, "Required") ? required : others).push(text);
  }
  for (const key of setKeys(config)) {
    if (plainKey(key) === plainKey(COLLECTOR)) others.push(`the listener for ${key}, which is not served`);
    else if (!SERVED_PROXY.has(plainKey(key))) others.push(`the setting ${JSON.stringify(key)}, which is not served`);
  }
  for (const upstream of upstreams) {
    const name = JSON.stringify(textMember(upstream, "destinationName"));
    for (const key of setKeys(member(upstream, "config"))) {
      if (!SERVED_UPSTREAM.has(plainKey(key)))
        others.push(`the setting ${JSON.stringify(key)} of upstream ${name}, which is not served`);
    }
  }
  const own = service.proxy?.destinationServiceName || service.name;
  others.push(...unservedOfProxy(extra), ...unservedOfEntries(own, entries));
  return { required, others };
}

function unservedOfProxy(extra: JsonValue | undefined): readonly string[] {
  const found: string[] = [];
  if (opaqueFlag(member(extra, "TransparentProxy"), "DialedDirectly")) {
    found.push("TransparentProxy.DialedDirectly, which is not served");
  }
  return found;
}

function unservedOfEntries(own: string, entries: ConfigEntrySet): readonly string[] {
  const found: string[] = [];
  const defaults = entries.get("service-defaults", own)?.extra;
  const global = entries.get("proxy-defaults", "global")?.extra;
  if (member(defaults, "RateLimits") !== undefined) found.push("RateLimits of the service, which are not served");
  if ([defaults, global].some((entry) => opaqueText(entry, "MutualTLSMode") === "permissive")) {
    found.push("MutualTLSMode permissive, which is not served: callers need certificates");
  }
  for (const name of ["PrioritizeByLocality", "FailoverPolicy"]) {
    if (member(global, name) !== undefined) found.push(`${name} of proxy-defaults, which is not served`);
  }
  return found;
}

/** Parts of the entries for a service that is called, which change nothing here. */
export function unservedOfTarget(service: string, entries: ConfigEntrySet): readonly string[] {
  const found: string[] = [];
  const resolver = entries.get("service-resolver", service)?.extra;
  if (member(resolver, "PrioritizeByLocality") !== undefined) found.push("PrioritizeByLocality is not served");
  if (opaqueText(entries.get("service-defaults", service)?.extra, "ExternalSNI") !== "") {
    found.push("ExternalSNI is not served");
  }
  return found;
}

function setKeys(config: JsonValue | undefined): readonly string[] {
  if (!isObject(config)) return [];
  return Object.keys(config).filter((key) => config[key] !== null && config[key] !== "" && config[key] !== undefined);
}
