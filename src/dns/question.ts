import { nameKey, type QuestionType } from "./records.js";

export interface NameSettings {
  /** Domains answered for, lower-cased and without a dot at the end. */
  readonly domains: readonly string[];
  readonly datacenter: string;
  /** Whether a lone label behind `service` and `node` may name a peering (D-39). Consul reads it as a datacenter only. */
  readonly bareLabelIsPeer: boolean;
  /** Whether there is a peering of that lower-cased name. */
  readonly isPeering: (name: string) => boolean;
}

/** Whose data is asked for. `elsewhere` is a datacenter that is not ours, of which nothing is known. */
export type Scope =
  | { readonly type: "local" }
  | { readonly type: "peer"; readonly peer: string }
  | { readonly type: "elsewhere" };

/** The meaning of a name, lower-cased. */
export type Lookup =
  | {
      readonly type: "service";
      readonly service: string;
      readonly tag: string | undefined;
      /** The name of one of its ports: for SRV (Consul 1.22 and later). */
      readonly port: string | undefined;
      readonly scope: Scope;
    }
  | { readonly type: "connect" | "ingress"; readonly service: string; readonly scope: Scope }
  | { readonly type: "node"; readonly node: string; readonly scope: Scope }
  /** `peer` is `""` for a local service. */
  | { readonly type: "virtual"; readonly service: string; readonly peer: string }
  | { readonly type: "addr"; readonly hex: string }
  /** A prepared query, by name or id. */
  | { readonly type: "query"; readonly query: string; readonly scope: Scope }
  | { readonly type: "malformed" };

export type ParsedName =
  | {
      readonly type: "inside";
      /** The domain as the asker spelled it: names in the answer end in it. */
      readonly domain: string;
      /** The same, lower-cased. */
      readonly zone: string;
      readonly lookup: Lookup;
    }
  /** A reverse lookup; undefined when the name is no whole address. */
  | { readonly type: "reverse"; readonly address: string | undefined }
  | { readonly type: "outside" };

const KINDS: ReadonlySet<string> = new Set(["service", "connect", "virtual", "ingress", "node", "query", "addr"]);
const LOCAL: Scope = { type: "local" };
const ELSEWHERE: Scope = { type: "elsewhere" };

/** The labels after the kind of a name: whose data is asked for, and which of several ports. */
interface Suffix {
  readonly scope: Scope;
  readonly port?: string | undefined;
}

/** Takes a name apart as Consul 1.14.2 to 1.22 does. */
export function parseName(name: string, type: QuestionType, settings: NameSettings): ParsedName {
  const lower = nameKey(name);
  if (lower.endsWith(".in-addr.arpa")) return { type: "reverse", address: reverseIpv4(lower) };
  if (lower.endsWith(".ip6.arpa")) return { type: "reverse", address: reverseIpv6(lower) };
  let zone: string | undefined;
  for (const domain of settings.domains) {
    if (lower !== domain && !lower.endsWith(`.${domain}`)) continue;
    if (zone === undefined || domain.length > zone.length) zone = domain;
  }
  if (zone === undefined) return { type: "outside" };
  const domain = name.slice(name.length - zone.length);
  const rest = lower.slice(0, Math.max(0, lower.length - zone.length - 1));
  return { type: "inside", domain, zone, lookup: parseLookup(rest === "" ? [] : rest.split("."), type, settings) };
}

function parseLookup(labels: readonly string[], type: QuestionType, settings: NameSettings): Lookup {
  for (let index = labels.length - 1; index >= 0; index--) {
    const label = labels[index] ?? "";
    if (KINDS.has(label)) return lookupOf(label, labels.slice(0, index), labels.slice(index + 1), settings);
    if (type === "SRV" && label.startsWith("_")) {
      return lookupOf("service", labels.slice(0, index + 1), labels.slice(index + 1), settings);
    }
  }
  return { type: "malformed" };
}

function lookupOf(kind: string, parts: readonly string[], suffix: readonly string[], settings: NameSettings): Lookup {
  const last = parts.at(-1);
  if (last === undefined) return { type: "malformed" };
  switch (kind) {
    case "addr":
      return parts.length === 1 ? { type: "addr", hex: last } : { type: "malformed" };
    case "virtual": {
      const [bare] = suffix;
      if (suffix.length === 1 && bare !== undefined) return { type: "virtual", service: last, peer: bare };
      const scope = suffixOf(suffix, settings, false)?.scope;
      if (scope === undefined) return { type: "malformed" };
      // A virtual address belongs to this cluster, whatever datacenter is named.
      return { type: "virtual", service: last, peer: scope.type === "peer" ? scope.peer : "" };
    }
    case "query": {
      const scope = suffixOf(suffix, settings, false)?.scope;
      if (scope === undefined) return { type: "malformed" };
      const [first = ""] = parts;
      const rfc2782 = parts.length === 2 && first.startsWith("_") && last.startsWith("_");
      const query = rfc2782 ? first.slice(1) : parts.join(".");
      // Consul takes a peer in the name, and asks the query all the same.
      return { type: "query", query, scope: scope.type === "peer" ? LOCAL : scope };
    }
    case "connect":
    case "ingress": {
      const scope = suffixOf(suffix, settings, false)?.scope;
      if (scope === undefined) return { type: "malformed" };
      // Consul takes a peer in the name and looks at the local services all the same.
      return { type: kind, service: last, scope: scope.type === "peer" ? LOCAL : scope };
    }
    case "node": {
      const scope = suffixOf(suffix, settings, true)?.scope;
      return scope === undefined ? { type: "malformed" } : { type: "node", node: parts.join("."), scope };
    }
    default: {
      const asked = suffixOf(suffix, settings, true);
      if (asked === undefined) return { type: "malformed" };
      const { scope, port } = asked;
      const [first = ""] = parts;
      if (parts.length === 2 && first.startsWith("_") && last.startsWith("_")) {
        const tag = last.slice(1);
        return { type: "service", service: first.slice(1), tag: tag === "tcp" ? undefined : tag, port, scope };
      }
      const tag = parts.slice(0, -1).join(".");
      return { type: "service", service: last, tag: tag === "" ? undefined : tag, port, scope };
    }
  }
}

/** Undefined: malformed. */
function suffixOf(suffix: readonly string[], settings: NameSettings, mayBePeer: boolean): Suffix | undefined {
  const local = nameKey(settings.datacenter);
  const [bare] = suffix;
  if (bare === undefined) return { scope: LOCAL };
  if (suffix.length === 1) {
    if (bare === local) return { scope: LOCAL };
    const isPeer = mayBePeer && settings.bareLabelIsPeer && settings.isPeering(bare);
    return { scope: isPeer ? { type: "peer", peer: bare } : ELSEWHERE };
  }
  if (suffix.length % 2 === 1 || suffix.length > 6) return undefined;
  let datacenter: string | undefined;
  let peer: string | undefined;
  let port: string | undefined;
  for (let index = 0; index < suffix.length; index += 2) {
    const value = suffix[index];
    const keyword = suffix[index + 1];
    if (keyword === "dc") datacenter = value;
    else if (keyword === "peer") peer = value;
    else if (keyword === "port") port = value;
    else return undefined;
  }
  if (peer !== undefined) return datacenter === undefined ? { scope: { type: "peer", peer }, port } : undefined;
  return { scope: datacenter === undefined || datacenter === local ? LOCAL : ELSEWHERE, port };
}

function reverseIpv4(name: string): string | undefined {
  const labels = name.split(".").slice(0, -2);
  if (labels.length !== 4 || !labels.every((label) => /^\d{1,3}$/.test(label) && Number(label) < 256)) return undefined;
  return labels.reverse().map(Number).join(".");
}

function reverseIpv6(name: string): string | undefined {
  const labels = name.split(".").slice(0, -2);
  if (labels.length !== 32 || !labels.every((label) => /^[0-9a-f]$/.test(label))) return undefined;
  const hex = labels.reverse().join("");
  return (hex.match(/.{4}/g) ?? []).join(":");
}
