import { compareUtf8 } from "../base/byte-order.js";
import { PeeringError } from "../base/errors.js";
import { StepMeter, type Steps } from "../base/steps.js";
import type { ConfigEntryKind } from "../model/entry-kinds.js";
import { listProblems } from "../model/entry-reader.js";
import { listMember, textMember } from "../model/kept-members.js";
import { goQuote } from "../syntax/go-escape.js";
import { lowerCase } from "../syntax/names.js";
import { type CompiledChain, compileChain, isHttpLike } from "./chain.js";
import { readChain } from "./chain-entries.js";
import { isChainEntry, relatedServices } from "./chain-links.js";
import type { ConfigEntry, ServiceResolverEntry } from "./config-entry.js";
import type { ConfigEntrySet } from "./config-entry-set.js";
import { type IntentionSource, jwtProviders } from "./intentions.js";

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

function refused(message: string): PeeringError {
  return new PeeringError("invalid-entry", message);
}

/** Looks at all entries that the chain may use, whether they count for its protocol or not. */
function checkExport(entries: ConfigEntrySet, name: string): void {
  for (const resolver of readChain(entries, name).resolvers.values()) {
    const problem = unsafeResolver(resolver);
    if (problem !== undefined) throw refused(`peer exported service ${goQuote(name)} ${problem}`);
  }
}

/** Names with their SPIFFE ids, which are those of service and datacenter or peer: subsets share it, failover does not count. */
function identities({ nodes, targets }: CompiledChain): ReadonlyMap<string, string> {
  const failover = new Set(
    [...nodes.values()].flatMap((node) => (node.type === "resolver" ? (node.failover?.targets ?? []) : [])),
  );
  return new Map(
    targets
      .filter(({ id }) => !failover.has(id))
      .map(({ id, service, datacenter, peer }) => [JSON.stringify([service, datacenter, peer]), id]),
  );
}

/**
 * Callers of a TCP service check the identity they reach against the list they were sent; a redirect of a service that
 * is exported already would fail them until that list arrives.
 */
function checkTargets(before: CompiledChain, after: CompiledChain): void {
  if (isHttpLike(after.protocol)) return;
  if (before.problem !== undefined) {
    throw refused(`error compiling current discovery chain for ${goQuote(before.service)}: ${before.problem}`);
  }
  const known = identities(before);
  for (const [identity, id] of identities(after)) {
    if (known.has(identity)) continue;
    throw refused(
      `peer exported service ${goQuote(after.service)} uses protocol=${goQuote(after.protocol)} and cannot introduce new discovery chain targets like ${goQuote(id)}`,
    );
  }
}

interface Listened {
  readonly service: string;
  readonly protocol: string;
}

/** The services that the listeners of an ingress gateway lead to, `*` aside. */
function listened(gateway: ConfigEntry): readonly Listened[] {
  return listMember(gateway.extra, "Listeners").flatMap((listener) =>
    listMember(listener, "Services").flatMap((served) => {
      const service = textMember(served, "Name");
      return service === "*" ? [] : [{ service, protocol: textMember(listener, "Protocol") }];
    }),
  );
}

/** The ingress gateways that a write of this entry may break, as Consul 1.21 picks them. */
function affectedGateways(
  before: ConfigEntrySet,
  after: ConfigEntrySet,
  kind: ConfigEntryKind,
  name: string,
): readonly ConfigEntry[] {
  if (kind === "service-intentions") return [];
  if (kind === "ingress-gateway") return [after.get(kind, name)].flatMap((gateway) => gateway ?? []);
  if (kind === "proxy-defaults") return [...before.all("ingress-gateway").values()];
  return [...before.referring("service", name)].filter(
    (entry) => entry.kind === "ingress-gateway" && listened(entry).some(({ service }) => service === name),
  );
}

/**
 * A listener of TCP takes traffic of any protocol, unless requests have to be looked at. Where the gateway's own entry is written,
 * the protocols must be equal.
 */
function checkListeners(gateway: ConfigEntry, chains: ReadonlyMap<string, CompiledChain>, strict: boolean): void {
  for (const { service, protocol } of listened(gateway)) {
    const chain = chains.get(service);
    if (chain === undefined || chain.protocol === protocol) continue;
    const passesThrough = !strict && protocol === "tcp" && chain.nodes.get(chain.start)?.type === "resolver";
    if (passesThrough) continue;
    throw refused(
      `service "${service}" has protocol "${chain.protocol}", which does not match defined listener protocol "${protocol}"`,
    );
  }
}

/**
 * The chains that a write of this entry may change, as Consul 1.21 picks them: those that lead to it directly, and of those that
 * lead to it indirectly the chains of services with intentions. Consul looks at all services with intentions; the others were
 * right before, and are.
 */
function affectedChains(
  before: ConfigEntrySet,
  after: ConfigEntrySet,
  kind: ConfigEntryKind,
  name: string,
): ReadonlySet<string> {
  if (kind === "service-intentions") return new Set(after.get(kind, name) === undefined ? [] : [name]);
  if (kind === "ingress-gateway") return new Set();
  if (kind === "proxy-defaults") {
    return new Set([...after.chainNames.values(), ...judged(after, after.all("service-intentions").keys())]);
  }
  const names = new Set<string>([name]);
  for (const entry of before.referring("service", name)) {
    const chain = after.chainName(entry.name);
    // Where its own entry is there in another spelling, it is looked at already.
    if (chain === undefined || lowerCase(chain) === lowerCase(name)) continue;
    if (isChainEntry(entry) && relatedServices(entry).includes(name)) names.add(chain);
  }
  for (const destination of judged(after, after.leadingTo(name))) names.add(destination);
  return names;
}

/** Of these services, as written in their intentions, those whose chains intentions ask something of. */
function judged(entries: ConfigEntrySet, keys: Iterable<string>): readonly string[] {
  return [...keys].flatMap((key) => {
    const intentions = entries.get("service-intentions", key);
    if (intentions === undefined) return [];
    // A chain without entries of its own cannot be wrong.
    const counts = entries.chainName(key) !== undefined || intentions.sources.some(hasPermissions);
    return counts ? [intentions.name] : [];
  });
}

/** JWT providers and the intentions that name them come and go in order. */
function checkProviders(after: ConfigEntrySet, kind: ConfigEntryKind, name: string): void {
  const intentions = kind === "service-intentions" ? after.get(kind, name) : undefined;
  if (intentions !== undefined) {
    const missing = [...jwtProviders(intentions)].filter((each) => after.get("jwt-provider", each) === undefined);
    const problems = missing.map((each) => `Referenced JWT Provider does not exist. Provider Name: ${each}`);
    if (problems.length > 0) throw refused(listProblems(problems));
  }
  if (kind !== "jwt-provider" || after.get(kind, name) !== undefined) return;
  for (const entry of after.referring("jwt-provider", name)) {
    if (entry.kind !== "service-intentions" || !jwtProviders(entry).has(name)) continue;
    throw refused(
      `cannot delete jwt provider config entry referenced by an intention. Provider name: ${name}, intention name: ${entry.name}`,
    );
  }
}

/** Weight of a node or a target of a chain in a step: it takes as long to make as so many fields to read. */
const CHAIN_FIELDS = 50;

function hasPermissions({ permissions }: IntentionSource): boolean {
  return permissions !== undefined;
}

/** Permissions look at requests, which only some protocols have. */
function checkPermissions(entries: ConfigEntrySet, { service, protocol }: CompiledChain): void {
  const { sources = [] } = (service === "*" ? undefined : entries.get("service-intentions", service)) ?? {};
  if (isHttpLike(protocol) || !sources.some(hasPermissions)) return;
  throw refused(
    `service "${service}" has protocol "${protocol}", which is incompatible with L7 intentions permissions`,
  );
}

/**
 * The rules between entries, for a write that turns `before` into `after`. As in Consul, every
 * chain that the write may touch must be right afterwards, also where it was not before. There may be many: they are compiled in
 * steps.
 *
 * @param kind - of the entry that is written or deleted.
 * @param name - of this entry.
 * @throws {PeeringError} `invalid-entry` with Consul's text, `resource-exhausted`: a chain would get too long; nothing may be
 *   stored then.
 */
export function* checkEntryGuards(
  before: ConfigEntrySet,
  after: ConfigEntrySet,
  kind: ConfigEntryKind,
  name: string,
  datacenter: string,
): Steps<void> {
  if (kind === "mesh") return;
  checkProviders(after, kind, name);
  const meter = new StepMeter();
  if (kind === "exported-services") {
    for (const exported of after.exportedNames.toSorted(compareUtf8)) {
      checkExport(after, exported);
      if (meter.isOver(CHAIN_FIELDS)) yield;
    }
    return;
  }
  const gateways = affectedGateways(before, after, kind, name);
  const led = gateways.flatMap((gateway) => listened(gateway).map(({ service }) => service));
  const chains = new Map<string, CompiledChain>();
  for (const affected of new Set([...affectedChains(before, after, kind, name), ...led])) {
    const chain = compileChain(after, affected, datacenter);
    if (chain.tooLong) throw new PeeringError("resource-exhausted", chain.problem ?? "");
    if (chain.problem !== undefined) throw refused(chain.problem);
    if (after.isExported(affected)) {
      checkExport(after, affected);
      checkTargets(compileChain(before, affected, datacenter), chain);
    }
    chains.set(affected, chain);
    if (meter.isOver(CHAIN_FIELDS * (chain.nodes.size + chain.targets.length))) yield;
  }
  for (const gateway of gateways) checkListeners(gateway, chains, kind === "ingress-gateway");
  if (kind === "ingress-gateway") return;
  for (const chain of chains.values()) checkPermissions(after, chain);
}
