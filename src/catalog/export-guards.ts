import { PeeringError } from "../errors.js";
import { compileChain, isHttpLike } from "./chain.js";
import type { ConfigEntryKind, ServiceResolverEntry } from "./config-entry.js";
import type { ConfigEntrySet } from "./config-entry-set.js";
import { lowerCase } from "./names.js";

/** Kinds that decide where chains lead, which protocol they have, or who sees them. */
const chainKinds: ReadonlySet<ConfigEntryKind> = new Set([
  "exported-services",
  "proxy-defaults",
  "service-defaults",
  "service-resolver",
  "service-router",
  "service-splitter",
]);

/** Names exported to any peer by block, lower-cased to as written; and whether `*` exports every other one. */
function exportedNames(entries: ConfigEntrySet): { names: Map<string, string>; wildcard: boolean } {
  const names = new Map<string, string>();
  let wildcard = false;
  for (const block of entries.exportedServices?.services ?? []) {
    if (!block.consumers.some((consumer) => consumer.peer !== undefined)) continue;
    if (block.name === "*") wildcard = true;
    else names.set(lowerCase(block.name), block.name);
  }
  if (wildcard) for (const [key, name] of entries.chainNames) names.set(key, names.get(key) ?? name);
  names.delete("consul");
  return { names, wildcard };
}

/** Why a resolver may not be part of an exported chain; undefined when it may. */
function unsafeResolver({ redirect, failover }: ServiceResolverEntry): string | undefined {
  if (redirect?.datacenter !== undefined) return "contains cross-datacenter resolver redirect";
  if (redirect?.peer !== undefined) return "contains cross-peer resolver redirect";
  for (const places of Object.values(failover ?? {})) {
    const crosses =
      (places.datacenters ?? []).length > 0 || (places.targets ?? []).some((place) => place.datacenter !== undefined);
    if (crosses) return "contains cross-datacenter failover";
  }
  return undefined;
}

function unsafeExport(entries: ConfigEntrySet, name: string, datacenter: string): string | undefined {
  for (const resolver of compileChain(entries, name, datacenter).resolvers.values()) {
    const problem = unsafeResolver(resolver);
    if (problem !== undefined) return `peer exported service "${name}" ${problem}`;
  }
  return undefined;
}

/** A SPIFFE id names service and datacenter; subsets share it. */
function identity(place: { readonly service: string; readonly datacenter: string }): string {
  return `${place.datacenter}/${place.service}`;
}

/**
 * Callers of a TCP service check the identity they reach against the list they were sent; a redirect of a service that
 * is exported already would fail them until that list arrives.
 */
function newTarget(
  before: ConfigEntrySet,
  after: ConfigEntrySet,
  name: string,
  datacenter: string,
): string | undefined {
  const chain = compileChain(after, name, datacenter);
  if (isHttpLike(chain.protocol)) return undefined;
  const known = new Set(compileChain(before, name, datacenter).targets.map(identity));
  const added = chain.targets.find((place) => chain.primary.has(place.id) && !known.has(identity(place)));
  return added === undefined
    ? undefined
    : `peer exported service "${name}" uses protocol="${chain.protocol}" and cannot introduce new discovery chain targets like "${added.id}"`;
}

/** Permissions look at requests, which only some protocols have. */
function checkPermissions(before: ConfigEntrySet, after: ConfigEntrySet): void {
  const wrong = (entries: ConfigEntrySet, name: string): boolean =>
    (entries.get("service-intentions", name)?.sources ?? []).some(({ permissions }) => permissions !== undefined) &&
    !isHttpLike(entries.protocolOf(name));
  for (const { name } of after.all("service-intentions").values()) {
    if (!wrong(after, name) || wrong(before, name)) continue;
    throw new PeeringError(
      "invalid-entry",
      `service "${name}" has protocol "${after.protocolOf(name)}", which is incompatible with L7 intentions permissions`,
    );
  }
}

/**
 * The rules between entries (specification 4.2.5 and 4.9.3), for a write that turns `before` into `after`. What was wrong before is
 * not held against the write.
 *
 * @param kind - of the entry that is written or deleted.
 * @throws {PeeringError} `invalid-entry` with Consul's text; nothing may be stored then.
 */
export function checkEntryGuards(
  before: ConfigEntrySet,
  after: ConfigEntrySet,
  kind: ConfigEntryKind,
  datacenter: string,
): void {
  checkPermissions(before, after);
  if (!chainKinds.has(kind)) return;
  if (kind !== "exported-services") {
    for (const name of new Map([...before.chainNames, ...after.chainNames]).values()) {
      const { problem } = compileChain(after, name, datacenter);
      if (problem !== undefined && problem !== compileChain(before, name, datacenter).problem) {
        throw new PeeringError("invalid-entry", problem);
      }
    }
  }
  const exported = exportedNames(after);
  const exportedBefore = exportedNames(before);
  for (const [key, name] of exported.names) {
    // A name without entries has no chain but itself.
    if (!after.chainNames.has(key) && !before.chainNames.has(key)) continue;
    const unsafe = unsafeExport(after, name, datacenter);
    const wasExported = exportedBefore.wildcard || exportedBefore.names.has(key);
    if (unsafe !== undefined && !(wasExported && unsafe === unsafeExport(before, name, datacenter))) {
      throw new PeeringError("invalid-entry", unsafe);
    }
    if (kind !== "service-resolver" || !wasExported) continue;
    const added = newTarget(before, after, name, datacenter);
    if (added !== undefined) throw new PeeringError("invalid-entry", added);
  }
}
