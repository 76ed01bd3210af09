import { compareUtf8 } from "../base/byte-order.js";
import type { JsonValue, StringMap } from "../model/instance.js";
import { listMember, member, textMember } from "../model/kept-members.js";
import { parseDuration } from "../syntax/go-duration.js";
import { goQuote } from "../syntax/go-escape.js";
import { type ChainEntries, readChain } from "./chain-entries.js";
import type {
  ResolverFailover,
  ResolverSubset,
  ServiceResolverEntry,
  ServiceRoute,
  ServiceSplit,
  ServiceSplitterEntry,
} from "./config-entry.js";
import { type ChainLimits, type ConfigEntrySet, protocolFrom } from "./config-entry-set.js";
import { mergedSplit } from "./split-headers.js";

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

/** A target with the settings of its service's entries. */
export interface ResolvedTarget extends ChainTarget {
  readonly connectTimeoutMs: number;
  /** A proxy connects outside of the mesh: under this name. */
  readonly externalSni?: string;
  /** `""`: nothing is said. */
  readonly meshGateway: string;
  readonly dialedDirectly: boolean;
  readonly subsetDefinition: ResolverSubset;
}

/** The facts that the importer of a mesh service must know of its chain. */
export interface ChainInfo {
  /** Lower-case. */
  readonly protocol: string;
  /** All targets by id, failover included; empty for HTTP-like protocols. */
  readonly tcpTargets: readonly ChainTarget[];
}

export interface ChainRoute {
  readonly definition: ServiceRoute;
  /** Key of a node. */
  readonly next: string;
}

export interface ChainSplit {
  readonly definition: ServiceSplit;
  /** Per cent of the requests that reach the node, with those splitters counted that were between. */
  readonly weight: number;
  /** Key of a node. */
  readonly next: string;
}

interface RouterNode {
  readonly type: "router";
  readonly name: string;
  readonly routes: readonly ChainRoute[];
}

interface SplitterNode {
  readonly type: "splitter";
  readonly name: string;
  readonly splits: readonly ChainSplit[];
  readonly loadBalancer: JsonValue | undefined;
}

interface ResolverNode {
  readonly type: "resolver";
  readonly name: string;
  /** Whether no entry concerns the service. */
  readonly isDefault: boolean;
  /** Id of a target. */
  readonly target: string;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly failover: { readonly targets: readonly string[]; readonly policy: JsonValue | undefined } | undefined;
  readonly loadBalancer: JsonValue | undefined;
}

export type ChainNode = RouterNode | SplitterNode | ResolverNode;

/** Settings of a caller that override the entries. */
export interface ChainOverrides {
  /** Routers and splitters are passed over where it is not HTTP-like. */
  readonly protocol?: string;
  readonly connectTimeoutMs?: number;
  readonly meshGateway?: string;
}

export interface CompiledChain {
  readonly service: string;
  readonly datacenter: string;
  /** Lower-case, but as given where it was overridden. */
  readonly protocol: string;
  /** Metadata of the service-defaults of the service. */
  readonly meta: StringMap | undefined;
  /** Extensions of Envoy, of all services and then of this one. */
  readonly extensions: readonly JsonValue[];
  /** Key of the node where a request begins; `""` with a problem. */
  readonly start: string;
  readonly nodes: ReadonlyMap<string, ChainNode>;
  /** All targets, failover included, in byte order of their ids. */
  readonly targets: readonly ResolvedTarget[];
  /** The chain leads to the service itself, and no entry concerns the way. */
  readonly isDefault: boolean;
  /** Which overrides made a difference. */
  readonly customized: ReadonlySet<keyof ChainOverrides>;
  /** Why a proxy could not use this chain, in Consul's words; the other fields hold the chain as far as it was compiled. */
  readonly problem: string | undefined;
  /** The problem is that it has more parts than {@link ChainLimits} allow. */
  readonly tooLong: boolean;
}

const DEFAULT_CONNECT_TIMEOUT_MS = 5_000;
const HASH_POLICIES: readonly JsonValue[] = ["maglev", "ring_hash"];

/** Whether routers, splitters and per-request rules apply to a protocol. */
export function isHttpLike(protocol: string): boolean {
  return protocol === "http" || protocol === "http2" || protocol === "grpc";
}

function nodeName(service: string): string {
  return `${service}.default.default`;
}

function targetId({ service, subset, datacenter, peer }: Omit<ChainTarget, "id">): string {
  if (peer !== "") return `${nodeName(service)}.external.${peer}`;
  return `${subset === "" ? "" : `${subset}.`}${nodeName(service)}.${datacenter}`;
}

/** Subsets are named by users: `constructor` is a name like any other. */
function own<T>(map: Readonly<Record<string, T>> | undefined, key: string): T | undefined {
  return map !== undefined && Object.hasOwn(map, key) ? map[key] : undefined;
}

/** Consul counts weights in single precision, in steps of a hundredth. */
function normalizedWeight(weight: number): number {
  return Math.round(Math.fround(Math.fround(weight) * 100)) / 100;
}

function mergedWeight(outer: number, inner: number): number {
  return normalizedWeight(Math.fround(Math.fround(Math.fround(outer) * Math.fround(inner)) / 100));
}

function milliseconds(duration: string | undefined): number {
  return duration === undefined ? 0 : (parseDuration(duration) ?? 0);
}

/** Ends compiling. */
class ChainProblem extends Error {
  readonly tooLong: boolean;

  constructor(problem: string, tooLong = false) {
    super(problem);
    this.tooLong = tooLong;
  }
}

type Draft<Node> = { -readonly [Key in keyof Node]: Node[Key] };
/** Where a request would go next; missing parts stay unchanged. */
type Rewrite = Partial<Pick<ChainTarget, "service" | "subset" | "datacenter" | "peer">>;

class Compiler {
  readonly nodes = new Map<string, ChainNode>();
  readonly customized = new Set<keyof ChainOverrides>();
  readonly retained = new Map<string, ResolvedTarget>();
  protocol = "";
  readonly #service: string;
  readonly #datacenter: string;
  readonly #overrides: ChainOverrides;
  readonly #entries: ChainEntries;
  readonly #plain: boolean;
  readonly #known = new Map<string, ChainTarget>();
  readonly #maxParts: number;
  #parts = 0;

  constructor(
    service: string,
    datacenter: string,
    overrides: ChainOverrides,
    entries: ChainEntries,
    { chainParts }: ChainLimits,
  ) {
    this.#maxParts = chainParts;
    this.#service = service;
    this.#datacenter = datacenter;
    this.#overrides = overrides;
    this.#entries = entries;
    this.#plain = overrides.protocol !== undefined && !isHttpLike(overrides.protocol);
  }

  /** @returns the key of the node where a request begins. @throws {ChainProblem} */
  compile(): string {
    const start = this.#assemble();
    this.#flatten(this.#order(start));
    const advanced = [...this.nodes.values()].some(({ type }) => type !== "resolver");
    if (advanced && !isHttpLike(this.protocol)) {
      this.#fail(
        `discovery chain ${goQuote(this.#service)} uses a protocol ${goQuote(this.protocol)} that does not permit advanced routing or splitting behavior`,
      );
    }
    this.#removeUnused(start);
    const { protocol } = this.#overrides;
    if (protocol !== undefined && protocol !== this.protocol) {
      this.protocol = protocol;
      this.customized.add("protocol");
    }
    return start;
  }

  #fail(problem: string): never {
    throw new ChainProblem(problem);
  }

  #count(parts: number): void {
    this.#parts += parts;
    if (this.#parts <= this.#maxParts) return;
    const problem = `discovery chain ${goQuote(this.#service)} has more than ${this.#maxParts} routes, splits and targets`;
    throw new ChainProblem(problem, true);
  }

  /** Routers and splitters do not count where the protocol is overridden by one without requests, such as tcp. */
  #unlessPlain<Entry>(entry: Entry | undefined): Entry | undefined {
    if (entry === undefined || !this.#plain) return entry;
    this.customized.add("protocol");
    return undefined;
  }

  #assemble(): string {
    const router = this.#unlessPlain(this.#entries.router);
    if (router === undefined) return this.#splitOrResolve(this.#service);
    this.#recordProtocol(router.name);
    this.#count(router.routes.length + 1);
    const routes = router.routes.map((definition): ChainRoute => {
      const { service = this.#service, serviceSubset = "" } = definition.destination ?? {};
      const next =
        serviceSubset === ""
          ? this.#splitOrResolve(service)
          : this.#resolve(this.#target({ service, subset: serviceSubset })).key;
      return { definition, next };
    });
    // A request that no route matches goes to the service itself.
    const rest: ServiceRoute = {
      match: { HTTP: { PathPrefix: "/" } },
      destination: { service: router.name, namespace: "default", partition: "default" },
    };
    routes.push({ definition: rest, next: this.#splitOrResolve(router.name) });
    return this.#add({ type: "router", name: nodeName(router.name), routes });
  }

  #add(node: ChainNode): string {
    const key = `${node.type}:${node.name}`;
    this.nodes.set(key, node);
    return key;
  }

  #splitOrResolve(service: string): string {
    return this.#split(service) ?? this.#resolve(this.#target({ service })).key;
  }

  #splitterOf(service: string): ServiceSplitterEntry | undefined {
    return this.#unlessPlain(this.#entries.splitters.get(service));
  }

  /** The node of a splitter, and those of all splitters behind it; undefined where the service has none. */
  #split(service: string): string | undefined {
    const open: {
      readonly service: string;
      readonly rest: ServiceSplit[];
      readonly node: Draft<SplitterNode>;
      readonly splits: ChainSplit[];
    }[] = [];
    // Recorded before its successors are compiled, so that a circle ends.
    const enter = (of: string): string | undefined => {
      const key = `splitter:${nodeName(of)}`;
      if (this.nodes.has(key)) return key;
      const entry = this.#splitterOf(of);
      if (entry === undefined) return undefined;
      this.#count(entry.splits.length);
      const splits: ChainSplit[] = [];
      const node: Draft<SplitterNode> = { type: "splitter", name: nodeName(of), splits, loadBalancer: undefined };
      open.push({ service: of, rest: entry.splits.toReversed(), node, splits });
      return this.#add(node);
    };
    const first = enter(service);
    for (let frame = open.at(-1); frame !== undefined; frame = open.at(-1)) {
      const definition = frame.rest.pop();
      if (definition === undefined) {
        open.pop();
        continue;
      }
      const { service: to = frame.service, serviceSubset: subset = "", weight } = definition;
      const further = to !== frame.service && subset === "" ? enter(to) : undefined;
      if (further !== undefined) {
        frame.splits.push({ definition, weight: normalizedWeight(weight), next: further });
        continue;
      }
      const { key, node } = this.#resolve(this.#target({ service: to, subset }));
      frame.splits.push({ definition, weight: normalizedWeight(weight), next: key });
      // A proxy can hash in one way alone: the first one counts.
      if (frame.node.loadBalancer === undefined && isHashBased(node.loadBalancer)) {
        frame.node.loadBalancer = node.loadBalancer;
      }
    }
    return first;
  }

  /** Ours, unless a peer is named. */
  #target({ service = "", subset = "", datacenter = "", peer = "" }: Rewrite): ChainTarget {
    const place = { service, subset, peer, datacenter: peer !== "" ? "" : datacenter || this.#datacenter };
    const id = targetId(place);
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const target = { id, ...place };
    this.#known.set(id, target);
    return target;
  }

  #rewrite(from: ChainTarget, { service = "", subset = "", datacenter = "", peer = "" }: Rewrite): ChainTarget {
    const same = service === "" || service === from.service;
    return this.#target({
      service: same ? from.service : service,
      // A subset belongs to its service: it does not follow to another one.
      subset: subset || (same ? from.subset : ""),
      datacenter: datacenter || from.datacenter,
      peer,
    });
  }

  /** Follows redirects to the place where instances are; with its failover places unless it is one itself. */
  #resolve(from: ChainTarget, isFailover = false): { readonly key: string; readonly node: ResolverNode } {
    const seen = new Set<string>();
    let at = from;
    let resolver: ServiceResolverEntry | undefined;
    for (;;) {
      const known = this.nodes.get(`resolver:${at.id}`);
      if (known?.type === "resolver") return { key: `resolver:${at.id}`, node: known };
      if (at.peer === "") this.#recordProtocol(at.service);
      // Also for the service of a peer: a resolver speaks of a name, wherever it is (Consul 1.21).
      resolver = this.#entries.resolvers.get(at.service);
      if (seen.has(at.id)) {
        this.#fail(`detected circular resolver redirect: [${[...seen, at.id].join(" -> ")}]`);
      }
      seen.add(at.id);
      this.#count(1);
      if (resolver?.redirect !== undefined) {
        const { serviceSubset: subset, ...redirect } = resolver.redirect;
        const next = this.#rewrite(at, { ...redirect, ...(subset === undefined ? {} : { subset }) });
        if (next.id !== at.id) {
          at = next;
          continue;
        }
      }
      if (at.subset !== "" || resolver?.defaultSubset === undefined) break;
      at = this.#rewrite(at, { subset: resolver.defaultSubset });
    }
    const subset = own(resolver?.subsets, at.subset);
    if (at.subset !== "" && subset === undefined) {
      this.#fail(`service "${at.service}" does not have a subset named "${at.subset}"`);
    }
    const connectTimeoutMs = this.#connectTimeout(resolver);
    this.#retain(at, resolver, subset, connectTimeoutMs);
    const node: Draft<ResolverNode> = {
      type: "resolver",
      name: at.id,
      isDefault: isDefaultResolver(resolver),
      target: at.id,
      connectTimeoutMs,
      requestTimeoutMs: milliseconds(resolver?.requestTimeout),
      failover: undefined,
      loadBalancer: member(resolver?.extra, "LoadBalancer"),
    };
    const key = `resolver:${at.id}`;
    if (isFailover) return { key, node };
    this.#add(node);
    const failover = own(resolver?.failover, at.subset) ?? own(resolver?.failover, "*");
    if (failover === undefined) return { key, node };
    const targets = this.#failoverTargets(at, failover).filter(({ id }) => id !== at.id);
    if (targets.length === 0) return { key, node };
    node.failover = {
      targets: targets.map((target) => this.#resolve(target, true).node.target),
      policy: failover.policy ?? member(this.#entries.proxyDefaults?.extra, "FailoverPolicy"),
    };
    return { key, node };
  }

  #failoverTargets(at: ChainTarget, failover: ResolverFailover): readonly ChainTarget[] {
    if (failover.targets !== undefined) {
      return failover.targets.map(({ serviceSubset = "", service = "", datacenter = "", peer = "" }) =>
        this.#rewrite(at, { service, subset: serviceSubset, datacenter, peer }),
      );
    }
    const { service = "", serviceSubset = "", datacenters = [""] } = failover;
    return datacenters.map((datacenter) => this.#rewrite(at, { service, subset: serviceSubset, datacenter }));
  }

  #connectTimeout(resolver: ServiceResolverEntry | undefined): number {
    const said = milliseconds(resolver?.connectTimeout) || DEFAULT_CONNECT_TIMEOUT_MS;
    const { connectTimeoutMs = 0 } = this.#overrides;
    if (connectTimeoutMs <= 0 || connectTimeoutMs === said) return said;
    this.customized.add("connectTimeoutMs");
    return connectTimeoutMs;
  }

  /** Adds a target, with the settings of its service. */
  #retain(
    at: ChainTarget,
    resolver: ServiceResolverEntry | undefined,
    subset: ResolverSubset | undefined,
    connectTimeoutMs: number,
  ): void {
    const defaults = this.#entries.defaults.get(at.service);
    const common = { ...at, connectTimeoutMs, subsetDefinition: subset ?? {} };
    const externalSni = textMember(defaults?.extra, "ExternalSNI");
    if (externalSni !== "") {
      for (const [what, there] of [
        ["redirects", resolver?.redirect !== undefined],
        ["subsets", resolver?.subsets !== undefined],
        ["failover", resolver?.failover !== undefined],
      ] as const) {
        if (there) {
          this.#fail(`service "${at.service}" has an external SNI set; cannot define ${what} for external services`);
        }
      }
      this.retained.set(at.id, { ...common, externalSni, meshGateway: "", dialedDirectly: false });
      return;
    }
    const said = [defaults?.extra, this.#entries.proxyDefaults?.extra];
    let meshGateway =
      said.map((extra) => textMember(member(extra, "MeshGateway"), "Mode")).find((mode) => mode !== "") ?? "";
    const { meshGateway: override = "" } = this.#overrides;
    if (override !== "" && override !== meshGateway) {
      meshGateway = override;
      this.customized.add("meshGateway");
    }
    const dialedDirectly = said.some((extra) => member(member(extra, "TransparentProxy"), "DialedDirectly") === true);
    this.retained.set(at.id, { ...common, meshGateway, dialedDirectly });
  }

  #recordProtocol(service: string): void {
    const { defaults, proxyDefaults } = this.#entries;
    const protocol = protocolFrom(defaults.get(service), proxyDefaults);
    if (this.protocol === "") this.protocol = protocol;
    else if (protocol !== this.protocol) {
      this.#fail(
        `discovery chain ${goQuote(this.#service)} uses inconsistent protocols; service ${goQuote(service)} has ${goQuote(protocol)} which is not ${goQuote(this.protocol)}`,
      );
    }
  }

  /**
   * Keys of all nodes that are reached from `start`, each one after the nodes that it leads to.
   * @throws {ChainProblem} a node leads to itself.
   */
  #order(start: string): readonly string[] {
    const done = new Set<string>();
    const way = new Set<string>();
    const open: { readonly key: string; readonly leave: boolean }[] = [{ key: start, leave: false }];
    for (let visit = open.pop(); visit !== undefined; visit = open.pop()) {
      const { key, leave } = visit;
      if (leave) {
        way.delete(key);
        done.add(key);
        continue;
      }
      if (way.has(key)) this.#fail(`detected circular reference: [${[...way, key].join(" -> ")}]`);
      if (done.has(key)) continue;
      way.add(key);
      open.push({ key, leave: true }, ...this.#nextOf(key).map((next) => ({ key: next, leave: false })));
    }
    return [...done];
  }

  #nextOf(key: string): readonly string[] {
    const node = this.nodes.get(key);
    if (node?.type === "router") return node.routes.map(({ next }) => next);
    if (node?.type === "splitter") return node.splits.map(({ next }) => next);
    return [];
  }

  /** Puts the splits of splitters behind a splitter in its place. */
  #flatten(order: readonly string[]): void {
    for (const key of order) {
      const node = this.nodes.get(key);
      if (node?.type !== "splitter") continue;
      const splits = node.splits.flatMap((split) => {
        const next = this.nodes.get(split.next);
        if (next?.type !== "splitter") return [split];
        this.#count(next.splits.length);
        return next.splits.map(
          (inner): ChainSplit => ({
            definition: mergedSplit(inner.definition, split.definition),
            weight: mergedWeight(split.weight, inner.weight),
            next: inner.next,
          }),
        );
      });
      this.nodes.set(key, { ...node, splits });
    }
  }

  #removeUnused(start: string): void {
    const used = new Set([start]);
    for (const key of used) for (const next of this.#nextOf(key)) used.add(next);
    for (const key of this.nodes.keys()) if (!used.has(key)) this.nodes.delete(key);
  }
}

function isHashBased(loadBalancer: JsonValue | undefined): boolean {
  return HASH_POLICIES.includes(member(loadBalancer, "Policy") ?? "");
}

function isDefaultResolver(resolver: ServiceResolverEntry | undefined): boolean {
  if (resolver === undefined) return true;
  const { defaultSubset, subsets, redirect, failover, connectTimeout, requestTimeout, extra } = resolver;
  return (
    defaultSubset === undefined &&
    subsets === undefined &&
    redirect === undefined &&
    failover === undefined &&
    milliseconds(connectTimeout) === 0 &&
    milliseconds(requestTimeout) === 0 &&
    member(extra, "LoadBalancer") === undefined &&
    member(extra, "PrioritizeByLocality") === undefined
  );
}

/**
 * Where requests for `service` may go from `datacenter`: router, splitters, resolvers with redirects and failover, as Consul
 * 1.21 finds it. Never throws: `problem` says why a chain is unusable.
 */
export function compileChain(
  entries: ConfigEntrySet,
  service: string,
  datacenter: string,
  overrides: ChainOverrides = {},
): CompiledChain {
  const read = readChain(entries, service);
  const compiler = new Compiler(service, datacenter, overrides, read, entries.limits);
  let start = "";
  let problem: string | undefined;
  let tooLong = false;
  try {
    start = compiler.compile();
  } catch (error) {
    if (!(error instanceof ChainProblem)) throw error;
    problem = error.message;
    tooLong = error.tooLong;
  }
  const { nodes, retained, customized } = compiler;
  const first = nodes.get(start);
  const defaults = read.defaults.get(service);
  return {
    service,
    datacenter,
    protocol: compiler.protocol || entries.protocolOf(service),
    meta: defaults?.meta,
    extensions: [read.proxyDefaults, defaults].flatMap((entry) => listMember(entry?.extra, "EnvoyExtensions")),
    start,
    nodes,
    targets: [...retained.values()].sort((left, right) => compareUtf8(left.id, right.id)),
    isDefault: first?.type === "resolver" && first.isDefault && retained.get(first.target)?.service === service,
    customized,
    problem,
    tooLong,
  };
}

/** The part of a chain that importers get. Targets matter only for protocols without HTTP semantics. */
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
