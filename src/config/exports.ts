import { compareUtf8 } from "../base/byte-order.js";
import { PeeringError } from "../base/errors.js";
import type { LocalNames } from "../model/service-index.js";
import { lowerCase } from "../syntax/names.js";
import { type ChainInfo, chainInfo, compileChain } from "./chain.js";
import { type ConfigEntrySet, EVERY_SERVICE } from "./config-entry-set.js";
import { isReserved, type PeerRules } from "./export-rules.js";
import type { TransitObstacle } from "./transit.js";

/** All inputs of the export rules, at one moment. */
export interface ExportInput {
  readonly entries: ConfigEntrySet;
  readonly names: LocalNames;
  /** Ours. Never empty. */
  readonly datacenter: string;
  /** Whether this cluster has a mesh at all; without it there are no chains. */
  readonly connect: boolean;
  /** Keeps names that are exported as chains alone out of the list, as Consul does (D-25). */
  readonly strictConsul: boolean;
}

/** The exports to one peer. */
export interface ResolvedExports {
  /** Names sent as ordinary services, in byte order. */
  readonly services: readonly string[];
  /** Names for the exported-service list, in byte order: `services`, and the chain-only ones unless `strictConsul`. */
  readonly list: readonly string[];
  /** Mesh services by name, in byte order: each is sent as `<name>-sidecar-proxy`. */
  readonly chains: ReadonlyMap<string, ChainInfo>;
}

/** Why `name` has a chain, or undefined when it has none. */
function chainReason(input: ExportInput, key: string): "chain-entry" | "connect-enabled" | "gateway-link" | undefined {
  if (input.entries.chainName(key) !== undefined) return "chain-entry";
  if (input.names.connectEnabled.has(key)) return "connect-enabled";
  const isFronted =
    input.entries.isFronted(key) || (input.names.typical.has(key) && input.entries.isFronted(EVERY_SERVICE));
  return isFronted ? "gateway-link" : undefined;
}

/** Undefined when the chain leads to the servers, which are never exported. */
function compile(input: ExportInput, name: string): ChainInfo | undefined {
  const chain = compileChain(input.entries, name, input.datacenter);
  if (chain.targets.some((place) => isReserved(lowerCase(place.service)))) return undefined;
  return chainInfo(chain);
}

/**
 * Lower-cased names that {@link resolveName} may have something for, some of them more than once. Names may come and go while they are
 * looked at.
 */
export function* candidateNames(input: ExportInput, { exact, wildcard }: PeerRules): Iterable<string> {
  yield* exact.keys();
  if (!wildcard) return;
  yield* input.names.typical.keys();
  yield* input.entries.chainNames.keys();
}

/** The exports to a peer under one name. */
export interface ResolvedName {
  /** As the first block that names it exactly spells it, else as registered, else as its chain's entry does. */
  readonly name: string;
  /** Whether it is sent as an ordinary service. */
  readonly ordinary: boolean;
  readonly chain: ChainInfo | undefined;
}

/** @param key - lower-cased. Undefined when the peer is shown nothing of it. */
export function resolveName(input: ExportInput, rules: PeerRules, key: string): ResolvedName | undefined {
  if (isReserved(key)) return undefined;
  const { entries, names } = input;
  const exported = rules.exact.get(key) ?? (rules.wildcard ? names.typical.get(key) : undefined);
  const name = exported ?? (rules.wildcard ? entries.chainName(key) : undefined);
  if (name === undefined) return undefined;
  const chain = input.connect && chainReason(input, key) !== undefined ? compile(input, name) : undefined;
  return exported === undefined && chain === undefined ? undefined : { name, ordinary: exported !== undefined, chain };
}

/**
 * The export set of the peering named `peerName` (docs/protocol.md, "Exported services: which"). Blocks add up. Names that differ in case alone are
 * one name.
 *
 * @throws {PeeringError} `invalid-argument`: no datacenter.
 */
export function resolveExports(input: ExportInput, peerName: string): ResolvedExports {
  if (input.datacenter === "") throw new PeeringError("invalid-argument", "datacenter cannot be empty");
  const rules = input.entries.exportRules.of(peerName);
  const resolved: ResolvedName[] = [];
  for (const key of new Set(candidateNames(input, rules))) {
    const one = resolveName(input, rules, key);
    if (one !== undefined) resolved.push(one);
  }
  resolved.sort((left, right) => compareUtf8(left.name, right.name));
  const chains = new Map<string, ChainInfo>();
  for (const { name, chain } of resolved) if (chain !== undefined) chains.set(name, chain);
  return {
    services: resolved.flatMap(({ name, ordinary }) => (ordinary ? [name] : [])),
    list: resolved.flatMap((one) => listedName(one, input.strictConsul) ?? []),
    chains,
  };
}

/** The name under which the exported-service list has it, if it does (D-25). */
export function listedName(resolved: ResolvedName | undefined, strictConsul: boolean): string | undefined {
  return resolved !== undefined && (resolved.ordinary || !strictConsul) ? resolved.name : undefined;
}

/** Names of peers that the exported-services entry gives `service` to, sorted: the union of all its blocks (D-33). */
export function peersForService(input: Pick<ExportInput, "entries" | "names">, service: string): readonly string[] {
  const key = lowerCase(service);
  if (isReserved(key)) return [];
  const wildcardCovers = input.names.typical.has(key) || input.entries.chainName(key) !== undefined;
  const rules = input.entries.exportRules;
  const peers = [...rules.peersOf(key), ...(wildcardCovers ? rules.peersOf("*") : [])];
  return [...new Set(peers)].sort(compareUtf8);
}

/**
 * Names of peers whose callers may reach the instances of `service`: of those it is given to, and of those given a service
 * whose discovery chain leads to it, sorted.
 */
export function peersReachingService(input: ExportInput, service: string): readonly string[] {
  const key = lowerCase(service);
  const leadsHere = (name: string): boolean =>
    compileChain(input.entries, name, input.datacenter).targets.some(
      (place) => place.peer === "" && place.datacenter === input.datacenter && lowerCase(place.service) === key,
    );
  // Of all chains, only those are compiled in which it is named.
  const related = input.connect ? [...input.entries.leadingTo(key)] : [];
  const chains = related.flatMap((name) => input.entries.chainName(name) ?? []).filter(leadsHere);
  const peers = [service, ...chains].flatMap((name) => peersForService(input, name));
  return [...new Set(peers)].sort(compareUtf8);
}

/** One line of `GET /v1/exported-services`. */
export interface ExportedServiceView {
  readonly service: string;
  /** Sorted; peers need not exist. */
  readonly peers: readonly string[];
}

/** The exported-services entry with `*` expanded to ordinary services and equal names merged, by name. */
export function exportedServicesView(input: Pick<ExportInput, "entries" | "names">): readonly ExportedServiceView[] {
  const merged = new Map<string, { readonly name: string; readonly peers: Set<string>; everywhere: boolean }>();
  const viewOf = (name: string) => {
    const key = lowerCase(name);
    if (isReserved(key)) return undefined;
    const view = merged.get(key) ?? { name, peers: new Set<string>(), everywhere: false };
    merged.set(key, view);
    return view;
  };
  // One list for all services: there may be many of both.
  const everywhere = [...input.entries.exportRules.peersOf("*")].sort(compareUtf8);
  let isExpanded = false;
  for (const block of input.entries.exportedServices?.services ?? []) {
    const peers = block.consumers.flatMap(({ peer }) => (peer === undefined ? [] : [peer]));
    if (block.name !== "*") {
      const view = viewOf(block.name);
      for (const peer of peers) view?.peers.add(peer);
    } else if (!isExpanded) {
      // Those of all such blocks, once.
      isExpanded = true;
      for (const name of input.names.typical.values()) {
        const view = viewOf(name);
        if (view !== undefined) view.everywhere = true;
      }
    }
  }
  return [...merged.values()]
    .map(({ name, peers, everywhere: isEverywhere }) => ({
      service: name,
      // Made when it is looked at, for the same reason.
      get peers(): readonly string[] {
        if (isEverywhere && peers.size === 0) return everywhere;
        return [...new Set([...peers, ...(isEverywhere ? everywhere : [])])].sort(compareUtf8);
      },
    }))
    .sort((left, right) => compareUtf8(left.service, right.service));
}

/** One fact behind an {@link ExportExplanation}. */
export type ExportReason =
  /** `services[index]` of the entry names the service and this peer. */
  | { readonly type: "named"; readonly block: number }
  /** `services[index]` is `*` with this peer, and covers the service. */
  | { readonly type: "wildcard"; readonly block: number }
  /** It goes out as `<name>-sidecar-proxy` as well. */
  | { readonly type: "mesh"; readonly because: "chain-entry" | "connect-enabled" | "gateway-link" }
  /** `*` covers it as a mesh service alone: it has no ordinary instance. */
  | { readonly type: "mesh-only" }
  /** There is no ordinary instance now: it is announced without instances. */
  | { readonly type: "no-instances" }
  /** `consul` is never exported. */
  | { readonly type: "reserved" }
  | { readonly type: "no-entry" }
  /** No block names the service for any peer. */
  | { readonly type: "not-named" }
  /** Blocks give it to these peers, not to this one. */
  | { readonly type: "other-peers"; readonly peers: readonly string[] }
  /** A block names the peer with other capitals; peer names are compared byte for byte. */
  | { readonly type: "peer-case"; readonly peer: string; readonly block: number }
  /** A `*` block for this peer does not cover it: no ordinary local service has this name. */
  | { readonly type: "not-typical"; readonly block: number }
  /** It would be a mesh service, but its chain leads to `consul`. */
  | { readonly type: "leads-to-consul" }
  /** It would be a mesh service, but this cluster has no mesh. */
  | { readonly type: "connect-disabled" }
  /** An ordinary service named like the sidecars of another exported service: its instances are never sent (D-27). */
  | { readonly type: "sidecar-name" }
  /** Its instances cannot be sent; `problem` names one and its fault (D-28). */
  | { readonly type: "held-back"; readonly problem: string }
  /** It is imported from the peer `from` and carried over; `path`: the trust domains it came through, ours the last. */
  | { readonly type: "carried-over"; readonly from: string; readonly path: readonly string[] }
  /** A rule would carry it over from the peer `from`, and something speaks against it. */
  | { readonly type: "not-carried-over"; readonly from: string; readonly because: TransitObstacle };

export interface ExportExplanation {
  readonly service: string;
  readonly peer: string;
  /** Whether the peer is shown the service in any form. */
  readonly exported: boolean;
  /** Whether its instances are sent as an ordinary service. */
  readonly ordinary: boolean;
  /** Whether it is sent for the mesh. */
  readonly mesh: boolean;
  readonly reasons: readonly ExportReason[];
  /** The reasons as sentences. */
  readonly text: string;
}

/**
 * Why the peering named `peer` sees `service`, or why it does not.
 *
 * @param heldBack - why the payload of the service cannot be sent, where that is so.
 */
export function explainExport(input: ExportInput, peer: string, service: string, heldBack?: string): ExportExplanation {
  const key = lowerCase(service);
  const reasons: ExportReason[] = [];
  let ordinary = false;
  let mesh = false;
  const entry = input.entries.exportedServices;
  if (isReserved(key)) reasons.push({ type: "reserved" });
  else if (entry === undefined) reasons.push({ type: "no-entry" });
  else {
    let covered = false;
    for (const block of input.entries.exportRules.blocksFor(key)) {
      const { name = "", consumers = [] } = entry.services[block] ?? {};
      const wildcard = name === "*";
      if (!consumers.some((consumer) => consumer.peer === peer)) {
        const alike = consumers.find((consumer) => lowerCase(consumer.peer ?? "") === lowerCase(peer))?.peer;
        if (alike !== undefined) reasons.push({ type: "peer-case", peer: alike, block });
        continue;
      }
      if (!wildcard) reasons.push({ type: "named", block });
      else if (input.names.typical.has(key) || input.entries.chainName(key) !== undefined) {
        reasons.push({ type: "wildcard", block });
      } else {
        reasons.push({ type: "not-typical", block });
        continue;
      }
      covered = true;
      if (!wildcard || input.names.typical.has(key)) ordinary = true;
    }
    if (covered) {
      const because = chainReason(input, key);
      if (because !== undefined) {
        if (!input.connect) reasons.push({ type: "connect-disabled" });
        else if (compile(input, service) === undefined) reasons.push({ type: "leads-to-consul" });
        else {
          mesh = true;
          reasons.push({ type: "mesh", because });
        }
      }
      if (!ordinary && mesh) reasons.push({ type: "mesh-only" });
      if (ordinary && !input.names.typical.has(key)) reasons.push({ type: "no-instances" });
      if (ordinary && key.endsWith("-sidecar-proxy")) reasons.push({ type: "sidecar-name" });
      if (ordinary && heldBack !== undefined) reasons.push({ type: "held-back", problem: heldBack });
    } else {
      const peers = peersForService(input, service);
      if (peers.length > 0) reasons.push({ type: "other-peers", peers });
      else if (reasons.length === 0) reasons.push({ type: "not-named" });
    }
  }
  return explanation(service, peer, { ordinary, mesh, reasons });
}

/** `explained`, with the reasons that the rules of transit add. */
export function explainTransit(explained: ExportExplanation, transit: readonly ExportReason[]): ExportExplanation {
  const { service, peer, mesh } = explained;
  const ordinary = explained.ordinary || transit.some(({ type }) => type === "carried-over");
  return explanation(service, peer, { ordinary, mesh, reasons: [...explained.reasons, ...transit] });
}

function explanation(
  service: string,
  peer: string,
  { ordinary, mesh, reasons }: Pick<ExportExplanation, "ordinary" | "mesh" | "reasons">,
): ExportExplanation {
  const exported = ordinary || mesh;
  const head = `${service} is ${exported ? "" : "not "}exported to ${peer}`;
  return { service, peer, exported, ordinary, mesh, reasons, text: `${head}: ${reasons.map(reasonText).join("; ")}.` };
}

const meshReasons = {
  "chain-entry": "it has a router, splitter or resolver",
  "connect-enabled": "it is part of the mesh here",
  "gateway-link": "a terminating gateway fronts it",
} as const;

const transitTexts: Readonly<Record<TransitObstacle, string>> = {
  "local-name": "exported-services gives that name to the peer already",
  "not-imported": "no instance of it is imported from there",
  "origin-unknown": "that peer has not said yet which cluster it is",
  "destination-unknown": "the peer has not said yet which cluster it is",
  "came-through-here": "it came through this cluster before",
  "came-through-there": "it came through the cluster of the peer",
  "too-many-hops": "it came through too many clusters",
  "unreadable-path": "the way it came cannot be read",
  "nearer-elsewhere": "another peer has it that is nearer to where it comes from, or named by an earlier rule",
  invalid: "no Consul could take it",
};

function reasonText(reason: ExportReason): string {
  switch (reason.type) {
    case "named":
      return `block ${reason.block} of exported-services names it for this peer`;
    case "wildcard":
      return `block ${reason.block} of exported-services exports every service to this peer`;
    case "mesh":
      return `for the mesh too, because ${meshReasons[reason.because]}`;
    case "mesh-only":
      return "for the mesh alone, because no ordinary instance has this name";
    case "no-instances":
      return "announced without instances, because no ordinary instance has this name now";
    case "reserved":
      return "consul is never exported";
    case "no-entry":
      return "there is no exported-services entry";
    case "not-named":
      return "no block of exported-services names it";
    case "other-peers":
      return `exported-services gives it to ${reason.peers.join(", ")} alone`;
    case "peer-case":
      return `block ${reason.block} of exported-services spells the peer ${reason.peer}, and capitals count`;
    case "not-typical":
      return `block ${reason.block} of exported-services exports every ordinary service to this peer, but none has this name`;
    case "leads-to-consul":
      return "not for the mesh, because its discovery chain leads to consul";
    case "connect-disabled":
      return "not for the mesh, because this cluster has none";
    case "held-back":
      return `held back, because ${reason.problem}`;
    case "carried-over":
      return `carried over from ${reason.from}`;
    case "not-carried-over":
      return `not carried over from ${reason.from}, because ${transitTexts[reason.because]}`;
    case "sidecar-name":
      return "its instances are not sent, because the name is that of another service's sidecars";
  }
}
