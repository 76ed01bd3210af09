import type { ConfigEntrySet } from "../../config/config-entry-set.js";
import type { Service } from "../../model/instance.js";
import { listMember, member, textMember } from "../../model/kept-members.js";
import { opaqueFlag, opaqueText } from "./opaque.js";

// Settings of a proxy that are passed over here. Nobody must take them for done.

export interface Unserved {
  /** Without these the proxy must not run: an extension may be what keeps callers out. */
  readonly required: readonly string[];
  readonly others: readonly string[];
}

/** Texts in which Consul takes resources of one's own. */
const OWN_RESOURCES = [
  "envoy_public_listener_json",
  "envoy_local_cluster_json",
  "envoy_extra_static_clusters_json",
  "envoy_extra_static_listeners_json",
  "envoy_tracing_json",
  "envoy_listener_tracing_json",
] as const;

/** @param service - with the settings of config entries. */
export function unservedSettings(service: Service, entries: ConfigEntrySet): Unserved {
  const { config, extra, upstreams = [] } = service.proxy ?? {};
  const required: string[] = [];
  const others: string[] = [];
  for (const extension of listMember(extra, "EnvoyExtensions")) {
    const text = `the Envoy extension ${JSON.stringify(textMember(extension, "Name"))}, which is not served`;
    (opaqueFlag(extension, "Required") ? required : others).push(text);
  }
  for (const name of OWN_RESOURCES) if (opaqueText(config, name) !== "") others.push(`${name}, which is not served`);
  for (const upstream of upstreams) {
    for (const name of ["envoy_listener_json", "envoy_cluster_json"]) {
      if (opaqueText(member(upstream, "config"), name) === "") continue;
      others.push(
        `${name} of upstream ${JSON.stringify(textMember(upstream, "destinationName"))}, which is not served`,
      );
    }
  }
  const expose = member(extra, "Expose");
  if (listMember(expose, "Paths").length > 0 || opaqueFlag(expose, "Checks"))
    others.push("exposed paths, which are not served");
  const own = service.proxy?.destinationServiceName || service.name;
  if (member(entries.get("service-defaults", own)?.extra, "RateLimits") !== undefined) {
    others.push("rate limits of the service, which are not served");
  }
  return { required, others };
}
