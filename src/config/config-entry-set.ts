import { SortedMap } from "../base/sorted-map.js";
import type { ConfigEntryKind } from "../model/entry-kinds.js";
import type { JsonObject } from "../model/instance.js";
import { isObject, member } from "../model/kept-members.js";
import { lowerCase } from "../syntax/names.js";
import { relatedServices } from "./chain-links.js";
import type { ConfigEntry, ExportedServicesEntry, ProxyDefaultsEntry, ServiceDefaultsEntry } from "./config-entry.js";
import { ExportRules } from "./export-rules.js";
import { ingressLinks } from "./ingress.js";
import { jwtProviders } from "./intentions.js";

export interface ChainLimits {
  /**
   * Routes, splits (those of splitters behind splitters counted for each way that leads to them) and places to resolve of one
   * discovery chain. Default 10 000; a write that would make a longer one is refused with `resource-exhausted`.
   */
  readonly chainParts: number;
}

export const defaultChainLimits: ChainLimits = { chainParts: 10_000 };

type EntryOf<Kind extends ConfigEntryKind> = Extract<ConfigEntry, { readonly kind: Kind }>;
type EntryMaps = { readonly [Kind in ConfigEntryKind]: SortedMap<EntryOf<Kind>> };

function isOf<Kind extends ConfigEntryKind>(entry: ConfigEntry, kind: Kind): entry is EntryOf<Kind> {
  return entry.kind === kind;
}

/** The name by which a gateway has all the services that there are. */
export const EVERY_SERVICE = "*";

/**
 * The names by which entries can be looked up: a service that their chain leads to or they listen for, one that they front, a JWT provider,
 * the source of intentions, and the id of one.
 */
export type Referred = "service" | "fronted" | "jwt-provider" | "source" | "intention-id";

interface Reference {
  readonly kind: ConfigEntryKind;
  /** Lower-cased. */
  readonly name: string;
}

/** Which services are exported to any peer, lower-cased to as written; `*` is every service with a chain of its own. */
interface ExportedNames {
  readonly names: ReadonlyMap<string, string>;
  readonly wildcard: boolean;
}

/**
 * All configuration entries of one moment; names compare without case. Immutable: `with` and `without` return another, at the
 * cost of the entry that changes.
 */
export class ConfigEntrySet {
  /** How long a chain of these entries may get. */
  readonly limits: ChainLimits;
  readonly #maps: EntryMaps;
  /** The entries by the names that they refer to, and by their own kind and name. */
  readonly #references: SortedMap<Reference>;
  #chainNames: ReadonlyMap<string, string> | undefined;
  #exportedNames: ExportedNames | undefined;
  #exportRules: ExportRules | undefined;

  private constructor(maps: EntryMaps, references: SortedMap<Reference>, limits: ChainLimits) {
    this.#maps = maps;
    this.#references = references;
    this.limits = limits;
  }

  /** Without any entry. */
  static get empty(): ConfigEntrySet {
    return noEntries;
  }

  /** Later entries replace earlier ones of the same kind and name. */
  static of(entries: readonly ConfigEntry[], limits: ChainLimits = defaultChainLimits): ConfigEntrySet {
    const mapOf = <Kind extends ConfigEntryKind>(kind: Kind): SortedMap<EntryOf<Kind>> => {
      const map = new Map<string, EntryOf<Kind>>();
      for (const entry of entries) if (isOf(entry, kind)) map.set(lowerCase(entry.name), entry);
      return SortedMap.of(map);
    };
    const maps = {
      "api-gateway": mapOf("api-gateway"),
      "bound-api-gateway": mapOf("bound-api-gateway"),
      "exported-services": mapOf("exported-services"),
      "file-system-certificate": mapOf("file-system-certificate"),
      "http-route": mapOf("http-route"),
      "ingress-gateway": mapOf("ingress-gateway"),
      "inline-certificate": mapOf("inline-certificate"),
      "jwt-provider": mapOf("jwt-provider"),
      mesh: mapOf("mesh"),
      "proxy-defaults": mapOf("proxy-defaults"),
      "sameness-group": mapOf("sameness-group"),
      "service-defaults": mapOf("service-defaults"),
      "service-intentions": mapOf("service-intentions"),
      "service-resolver": mapOf("service-resolver"),
      "service-router": mapOf("service-router"),
      "service-splitter": mapOf("service-splitter"),
      "tcp-route": mapOf("tcp-route"),
      "terminating-gateway": mapOf("terminating-gateway"),
    };
    const references = new Map<string, Reference>();
    for (const map of Object.values(maps)) {
      for (const entry of map.values()) for (const [key, own] of referencesOf(entry)) references.set(key, own);
    }
    return new ConfigEntrySet(maps, SortedMap.of(references), limits);
  }

  get<Kind extends ConfigEntryKind>(kind: Kind, name: string): EntryOf<Kind> | undefined {
    return this.#maps[kind].get(lowerCase(name));
  }

  /** Every entry of a kind, keyed by lower-cased name and in the order of it. */
  all<Kind extends ConfigEntryKind>(kind: Kind): SortedMap<EntryOf<Kind>> {
    return this.#maps[kind];
  }

  with(entry: ConfigEntry): ConfigEntrySet {
    return this.#changed(entry.kind, entry.name, entry);
  }

  without(kind: ConfigEntryKind, name: string): ConfigEntrySet {
    return this.#changed(kind, name, undefined);
  }

  #changed(kind: ConfigEntryKind, name: string, entry: ConfigEntry | undefined): ConfigEntrySet {
    const key = lowerCase(name);
    const map: SortedMap<ConfigEntry> = this.#maps[kind];
    const before = map.get(key);
    const [old, now] = [referencesOf(before), referencesOf(entry)];
    const moved = new Map<string, Reference | undefined>();
    for (const each of old.keys()) if (!now.has(each)) moved.set(each, undefined);
    for (const [each, own] of now) if (!old.has(each)) moved.set(each, own);
    const references = this.#references.withAll(moved);
    const maps = { ...this.#maps, [kind]: entry === undefined ? map.without(key) : map.with(key, entry) };
    const changed = new ConfigEntrySet(maps, references, this.limits);
    // Facts that follow from entries of other kinds alone do not change.
    if (kind !== "exported-services") {
      changed.#exportedNames = this.#exportedNames;
      changed.#exportRules = this.#exportRules;
    }
    return changed;
  }

  /** The entries that name something, spelled in any way. */
  *referring(what: Referred, name: string): Generator<ConfigEntry> {
    for (const [, own] of this.#references.under(referencePrefix(what, name))) {
      const entry = this.get(own.kind, own.name);
      if (entry !== undefined) yield entry;
    }
  }

  /** Lower-cased names: a service, and all whose chains may lead to it. */
  leadingTo(name: string): ReadonlySet<string> {
    // A set that grows while it is walked is walked to its new end.
    const found = new Set([lowerCase(name)]);
    for (const key of found) {
      for (const { kind, name: by } of this.referring("service", key)) {
        if (kind !== "ingress-gateway") found.add(lowerCase(by));
      }
    }
    return found;
  }

  /** Whether a service, spelled in any way, is exported to any peer. */
  isExported(name: string): boolean {
    const { names, wildcard } = this.#exported;
    return names.has(lowerCase(name)) || (wildcard && this.chainName(name) !== undefined);
  }

  /** All that is exported to any peer, as written: by block, and with `*` all that have a chain of their own. */
  get exportedNames(): readonly string[] {
    const { names, wildcard } = this.#exported;
    return [...(wildcard ? new Map([...this.chainNames, ...names]) : names).values()];
  }

  get #exported(): ExportedNames {
    if (this.#exportedNames === undefined) {
      const names = new Map<string, string>();
      let wildcard = false;
      for (const block of this.exportedServices?.services ?? []) {
        if (!block.consumers.some((consumer) => consumer.peer !== undefined)) continue;
        if (block.name === "*") wildcard = true;
        else names.set(lowerCase(block.name), block.name);
      }
      this.#exportedNames = { names, wildcard };
    }
    return this.#exportedNames;
  }

  /** The rules of {@link exportedServices}. */
  get exportRules(): ExportRules {
    this.#exportRules ??= new ExportRules(this.exportedServices);
    return this.#exportRules;
  }

  get exportedServices(): ExportedServicesEntry | undefined {
    return this.get("exported-services", "default");
  }

  /** Whether peers are to dial our mesh gateways instead of our servers. Default false. */
  get peerThroughMeshGateways(): boolean {
    return this.get("mesh", "mesh")?.peering?.peerThroughMeshGateways ?? false;
  }

  /** Names with a router, splitter or resolver: lower-cased to as written. */
  get chainNames(): ReadonlyMap<string, string> {
    if (this.#chainNames === undefined) {
      const names = new Map<string, string>();
      for (const kind of CHAIN_KINDS) {
        for (const [key, entry] of this.#maps[kind]) names.set(key, entry.name);
      }
      this.#chainNames = names;
    }
    return this.#chainNames;
  }

  /** {@link chainNames} of one service, spelled in any way. */
  chainName(service: string): string | undefined {
    let name: string | undefined;
    for (const kind of CHAIN_KINDS) name = this.get(kind, service)?.name ?? name;
    return name;
  }

  /** Whether a terminating gateway fronts a service by its name, or with `*` all there are. */
  isFronted(service: string): boolean {
    // Asked for each service that is exported, mostly where there are no such gateways.
    if (this.#maps["terminating-gateway"].size === 0) return false;
    return this.referring("fronted", service).next().done !== true;
  }

  /** Lower-cased names of the terminating gateways that front a service by its name, or with `*` all there are. */
  terminatingGateways(service: string): readonly string[] {
    return Array.from(this.referring("fronted", service), ({ name }) => lowerCase(name));
  }

  /** The same of the ingress gateways that lead to it. */
  ingressGateways(service: string): readonly string[] {
    return [...this.referring("service", service)].flatMap(({ kind, name }) =>
      kind === "ingress-gateway" ? [lowerCase(name)] : [],
    );
  }

  /** Whether a service is a place outside of the mesh, which `service-defaults` name. */
  isDestination(service: string): boolean {
    return isObject(member(this.get("service-defaults", service)?.extra, "Destination"));
  }

  /** Protocol of a service, lower-cased: `service-defaults` decide, then `proxy-defaults`, else tcp. */
  protocolOf(service: string): string {
    return protocolFrom(this.get("service-defaults", service), this.get("proxy-defaults", "global"));
  }
}

/**
 * Not a static field: the class makes itself in a private method, and TypeScript 6.0 then emits code in which the class has no
 * name yet when its static fields are set.
 */
const noEntries = ConfigEntrySet.of([]);

/** Kinds of entries that make a chain; of names that differ in spelling, that of the last counts. */
const CHAIN_KINDS = ["service-resolver", "service-splitter", "service-router"] as const;

/** No name has a NUL in it that an entry could be looked for by. */
function referencePrefix(what: Referred, name: string): string {
  return `${what}\0${lowerCase(name)}\0`;
}

/** By their keys. */
function referencesOf(entry: ConfigEntry | undefined): ReadonlyMap<string, Reference> {
  const references = new Map<string, Reference>();
  if (entry === undefined) return references;
  const own = { kind: entry.kind, name: lowerCase(entry.name) };
  for (const [what, name] of referred(entry)) {
    references.set(`${referencePrefix(what, name)}${own.kind}\0${own.name}`, own);
  }
  return references;
}

function referred(entry: ConfigEntry): readonly (readonly [Referred, string])[] {
  switch (entry.kind) {
    case "service-resolver":
    case "service-router":
    case "service-splitter":
      return relatedServices(entry).map((name) => ["service", name]);
    case "ingress-gateway":
      return ingressLinks(entry).map(({ service }) => ["service", service]);
    case "terminating-gateway":
      return frontedBy(entry).map((name) => ["fronted", name]);
    case "service-intentions":
      return [
        ...[...jwtProviders(entry)].map((name) => ["jwt-provider", name] as const),
        ...entry.sources.map(({ name }) => ["source", name] as const),
        ...entry.sources.flatMap(({ legacyID }) =>
          legacyID === undefined ? [] : [["intention-id", legacyID] as const],
        ),
      ];
    default:
      return [];
  }
}

/** Lower-cased names of the services that a terminating gateway fronts; of other entries there are none. */
export function frontedBy(entry: ConfigEntry | undefined): readonly string[] {
  return entry?.kind === "terminating-gateway" ? entry.services.map(({ name }) => lowerCase(name)) : [];
}

/** Protocol of a service with these entries, lower-cased. */
export function protocolFrom(own: ServiceDefaultsEntry | undefined, all: ProxyDefaultsEntry | undefined): string {
  if (own !== undefined) return lowerCase(own.protocol ?? "tcp");
  const { protocol }: JsonObject = all?.config ?? {};
  return typeof protocol === "string" && protocol !== "" ? lowerCase(protocol) : "tcp";
}
