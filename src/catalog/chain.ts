import { compareUtf8 } from "./byte-order.js";
import type { FailoverTarget, ServiceResolverEntry } from "./config-entry.js";
import type { ConfigEntrySet } from "./config-entry-set.js";
import { lowerCase } from "./names.js";

/** Where a discovery chain may lead. */
export interface ChainTarget {
  /** `[<subset>.]<service>.default.default.<datacenter>`, or `<service>.default.default.external.<peer>`. */
  readonly id: string;
  readonly service: string;
  readonly subset: string;
  /** `""` for a peer's. */
  readonly datacenter: string;
  readonly peer: string;
}

/** What the importer of a mesh service must know of its chain (specification 4.2.2). */
export interface ChainInfo {
  /** Lower-case. */
  readonly protocol: string;
  /** All targets by id, failover included; empty for HTTP-like protocols. */
  readonly tcpTargets: readonly ChainTarget[];
}

export interface CompiledChain {
  readonly protocol: string;
  /** All targets, failover included, in byte order of their ids. */
  readonly targets: readonly ChainTarget[];
  /** Ids of the targets that are not failover alone. */
  readonly primary: ReadonlySet<string>;
  /** Resolvers that decide where the chain leads, by lower-cased name. */
  readonly resolvers: ReadonlyMap<string, ServiceResolverEntry>;
  /** Why a proxy could not use this chain; what was found until then is in the other fields. */
  readonly problem: string | undefined;
}

/** Whether routers, splitters and per-request rules apply to a protocol. */
export function isHttpLike(protocol: string): boolean {
  return protocol === "http" || protocol === "http2" || protocol === "grpc";
}

function targetId(service: string, subset: string, datacenter: string, peer: string): string {
  if (peer !== "") return `${service}.default.default.external.${peer}`;
  return `${subset === "" ? "" : `${subset}.`}${service}.default.default.${datacenter}`;
}

function target(service: string, subset: string, datacenter: string, peer = ""): ChainTarget {
  return {
    id: targetId(service, subset, peer === "" ? datacenter : "", peer),
    service,
    subset,
    datacenter: peer === "" ? datacenter : "",
    peer,
  };
}

/** Subsets are named by users: `constructor` is a name like any other. */
function own<T>(map: Readonly<Record<string, T>> | undefined, key: string): T | undefined {
  return map !== undefined && Object.hasOwn(map, key) ? map[key] : undefined;
}

class Compiler {
  readonly targets = new Map<string, ChainTarget>();
  readonly primary = new Set<string>();
  readonly resolvers = new Map<string, ServiceResolverEntry>();
  problem: string | undefined;
  readonly #entries: ConfigEntrySet;
  readonly #name: string;
  readonly #protocol: string;
  readonly #datacenter: string;
  readonly #splitting = new Set<string>();

  constructor(entries: ConfigEntrySet, name: string, protocol: string, datacenter: string) {
    this.#entries = entries;
    this.#name = name;
    this.#protocol = protocol;
    this.#datacenter = datacenter;
  }

  compile(): void {
    const name = this.#name;
    const httpLike = isHttpLike(this.#protocol);
    const router = this.#entries.get("service-router", name);
    if (!httpLike && (router ?? this.#entries.get("service-splitter", name)) !== undefined) {
      this.#fail(
        `discovery chain "${name}" uses a protocol "${this.#protocol}" that does not permit advanced routing or splitting behavior`,
      );
    }
    if (httpLike && router !== undefined) {
      for (const { destination } of router.routes) {
        const service = destination?.service ?? name;
        const subset = destination?.serviceSubset ?? "";
        if (subset === "") this.#split(service, httpLike);
        else this.#resolve(target(service, subset, this.#datacenter), false);
      }
    }
    // What no route matches goes to the service itself.
    this.#split(name, httpLike);
  }

  #split(service: string, httpLike: boolean): void {
    const splitter = httpLike ? this.#entries.get("service-splitter", service) : undefined;
    if (splitter === undefined) {
      this.#resolve(target(service, "", this.#datacenter), false);
      return;
    }
    const key = lowerCase(service);
    if (this.#splitting.has(key)) {
      this.#fail(`discovery chain "${this.#name}" contains a circular reference at splitter "${service}"`);
      return;
    }
    this.#splitting.add(key);
    for (const split of splitter.splits) {
      const next = split.service ?? service;
      const subset = split.serviceSubset ?? "";
      if (subset === "" && lowerCase(next) !== key) this.#split(next, httpLike);
      else this.#resolve(target(next, subset, this.#datacenter), false);
    }
    this.#splitting.delete(key);
  }

  /** Follows redirects to the place where instances are; with its failover places unless it is one itself. */
  #resolve(from: ChainTarget, isFailover: boolean): void {
    const seen = new Set<string>();
    let at = from;
    let resolver: ServiceResolverEntry | undefined;
    for (;;) {
      if (seen.has(at.id)) {
        this.#fail(`discovery chain "${this.#name}" contains a circular resolver redirect at "${at.service}"`);
        return;
      }
      seen.add(at.id);
      resolver = at.peer === "" ? this.#entries.get("service-resolver", at.service) : undefined;
      if (resolver === undefined) break;
      this.resolvers.set(lowerCase(resolver.name), resolver);
      const { redirect } = resolver;
      if (redirect === undefined) break;
      const service = redirect.service ?? at.service;
      // A subset belongs to its service: it does not follow to another one.
      const subset = redirect.serviceSubset ?? (service === at.service ? at.subset : "");
      const next = target(service, subset, redirect.datacenter ?? at.datacenter, redirect.peer);
      // A redirect to another place of the same service has arrived there.
      if (next.id === at.id) break;
      at = next;
    }
    if (resolver !== undefined && at.subset === "" && resolver.defaultSubset !== undefined) {
      at = target(at.service, resolver.defaultSubset, at.datacenter);
    }
    this.#add(at, isFailover);
    if (at.subset !== "" && own(resolver?.subsets, at.subset) === undefined) {
      this.#fail(`service "${at.service}" does not have a subset named "${at.subset}"`);
    }
    if (isFailover || resolver?.failover === undefined) return;
    const failover = own(resolver.failover, at.subset) ?? own(resolver.failover, "*");
    if (failover === undefined) return;
    const places: readonly FailoverTarget[] =
      failover.targets ??
      (failover.datacenters ?? [undefined]).map((datacenter) => ({
        ...(failover.service === undefined ? {} : { service: failover.service }),
        ...(failover.serviceSubset === undefined ? {} : { serviceSubset: failover.serviceSubset }),
        ...(datacenter === undefined ? {} : { datacenter }),
      }));
    for (const place of places) {
      const service = place.service ?? at.service;
      const subset = place.serviceSubset ?? (service === at.service && place.peer === undefined ? at.subset : "");
      this.#resolve(target(service, subset, place.datacenter ?? at.datacenter, place.peer), true);
    }
  }

  #add(place: ChainTarget, isFailover: boolean): void {
    this.targets.set(place.id, place);
    if (!isFailover) this.primary.add(place.id);
    if (place.peer !== "") return;
    const protocol = this.#entries.protocolOf(place.service);
    if (protocol !== this.#protocol) {
      this.#fail(
        `discovery chain "${this.#name}" uses inconsistent protocols; service "${place.service}" has "${protocol}" which is not "${this.#protocol}"`,
      );
    }
  }

  #fail(problem: string): void {
    this.problem ??= problem;
  }
}

/**
 * Where requests for `name` may go from `datacenter`: router, splitters, resolvers with redirects and failover. Total:
 * what makes a chain unusable is told in `problem`.
 */
export function compileChain(entries: ConfigEntrySet, name: string, datacenter: string): CompiledChain {
  const protocol = entries.protocolOf(name);
  const compiler = new Compiler(entries, name, protocol, datacenter);
  compiler.compile();
  return {
    protocol,
    targets: [...compiler.targets.values()].sort((left, right) => compareUtf8(left.id, right.id)),
    primary: compiler.primary,
    resolvers: compiler.resolvers,
    problem: compiler.problem,
  };
}

/** What is told of a chain to importers: targets matter for protocols without HTTP semantics alone. */
export function chainInfo(chain: CompiledChain): ChainInfo {
  return { protocol: chain.protocol, tcpTargets: isHttpLike(chain.protocol) ? [] : chain.targets };
}

/** Same protocol, same target ids in order. */
export function equalChainInfo(left: ChainInfo, right: ChainInfo): boolean {
  return (
    left.protocol === right.protocol &&
    left.tcpTargets.length === right.tcpTargets.length &&
    left.tcpTargets.every((place, index) => place.id === right.tcpTargets[index]?.id)
  );
}
