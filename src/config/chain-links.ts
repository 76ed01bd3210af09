import type { ConfigEntry, ServiceResolverEntry, ServiceRouterEntry, ServiceSplitterEntry } from "./config-entry.js";

/** An entry that decides where a discovery chain leads. */
type ChainEntry = ServiceRouterEntry | ServiceSplitterEntry | ServiceResolverEntry;

export function isChainEntry(entry: ConfigEntry): entry is ChainEntry {
  return entry.kind === "service-router" || entry.kind === "service-splitter" || entry.kind === "service-resolver";
}

/** Local services, as written, that an entry leads to besides its own; a router always leads to its own, too. */
export function relatedServices(entry: ChainEntry): readonly string[] {
  const names = new Set<string>();
  switch (entry.kind) {
    case "service-router":
      for (const { destination } of entry.routes) if (destination !== undefined) names.add(destination.service ?? "");
      break;
    case "service-splitter":
      for (const split of entry.splits) names.add(split.service ?? "");
      break;
    case "service-resolver":
      // A redirect to a peer counts, a failover target of a peer does not (Consul 1.21).
      names.add(entry.redirect?.service ?? "");
      for (const failover of Object.values(entry.failover ?? {})) {
        if (failover.targets === undefined) names.add(failover.service ?? "");
        else for (const target of failover.targets) if (target.peer === undefined) names.add(target.service ?? "");
      }
  }
  names.delete("");
  names.delete(entry.name);
  return entry.kind === "service-router" ? [entry.name, ...names] : [...names];
}
