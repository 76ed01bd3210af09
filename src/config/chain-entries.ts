import { relatedServices } from "./chain-links.js";
import type {
  ProxyDefaultsEntry,
  ServiceDefaultsEntry,
  ServiceResolverEntry,
  ServiceRouterEntry,
  ServiceSplitterEntry,
} from "./config-entry.js";
import type { ConfigEntrySet } from "./config-entry-set.js";

/** The entries that the chain of one service is made of, by the names under which it refers to them. */
export interface ChainEntries {
  readonly router: ServiceRouterEntry | undefined;
  readonly splitters: ReadonlyMap<string, ServiceSplitterEntry>;
  readonly resolvers: ReadonlyMap<string, ServiceResolverEntry>;
  readonly defaults: ReadonlyMap<string, ServiceDefaultsEntry>;
  readonly proxyDefaults: ProxyDefaultsEntry | undefined;
}

/** All entries that the chain of `name` may use, whatever its protocol turns out to be. */
export function readChain(entries: ConfigEntrySet, name: string): ChainEntries {
  const router = entries.get("service-router", name);
  const splitters = new Map<string, ServiceSplitterEntry>();
  const resolvers = new Map<string, ServiceResolverEntry>();
  const defaults = new Map<string, ServiceDefaultsEntry>();
  const toSplit = new Set(router === undefined ? [name] : relatedServices(router));
  const toResolve = new Set<string>();
  // A set that grows while it is walked is walked to its new end.
  for (const service of toSplit) {
    toResolve.add(service);
    const splitter = entries.get("service-splitter", service);
    if (splitter === undefined) continue;
    splitters.set(service, splitter);
    for (const next of relatedServices(splitter)) toSplit.add(next);
  }
  for (const service of toResolve) {
    const resolver = entries.get("service-resolver", service);
    if (resolver === undefined) continue;
    resolvers.set(service, resolver);
    for (const next of relatedServices(resolver)) toResolve.add(next);
  }
  for (const service of new Set([name, ...toResolve])) {
    const own = entries.get("service-defaults", service);
    if (own !== undefined) defaults.set(service, own);
  }
  return { router, splitters, resolvers, defaults, proxyDefaults: entries.get("proxy-defaults", "global") };
}
