import { compareUtf8 } from "../../base/byte-order.js";
import { OLDEST_ENVOY, type Refusal, type ResourceType } from "../../model/connected-proxy.js";
import {
  type DeltaDiscoveryRequest,
  type DeltaDiscoveryResponse,
  DeltaDiscoveryResponseSchema,
} from "../../wire/envoy.js";
import { create } from "../../wire/schema.js";
import { type ResourceSet, TYPE_URLS, type VersionedResource } from "../xds/resources.js";

/** The proxy at the other end, as it says itself. */
export interface ProxyIdentity {
  /** Id of its registration. */
  readonly id: string;
  /** `""`: ours. */
  readonly node: string;
  /** Such as `1.36.2`; `""`: it does not say. */
  readonly envoyVersion: string;
}

export type DeltaInput =
  /** From the proxy: untrusted. */
  | { readonly type: "request"; readonly request: DeltaDiscoveryRequest }
  /** The resources that the proxy is to have now. */
  | { readonly type: "resources"; readonly set: ResourceSet };

export type DeltaOutput =
  | { readonly type: "identified"; readonly proxy: ProxyIdentity }
  | { readonly type: "send"; readonly response: DeltaDiscoveryResponse; readonly resourceType: ResourceType }
  | { readonly type: "acknowledged"; readonly resourceType: ResourceType }
  | { readonly type: "refused"; readonly refusal: Refusal }
  /** Ends the stream. */
  | { readonly type: "close"; readonly code: "invalid-argument" | "resource-exhausted"; readonly message: string };

export interface DeltaLimits {
  /** Names of one type that one proxy may ask for. Default 65 536; a proxy that asks for more is cut off. */
  readonly subscribedNames: number;
  /** Bytes of resources in one response. Default 4 MiB; the others follow in further responses. A larger resource has one for itself. */
  readonly responseBytes: number;
}

export const defaultDeltaLimits: DeltaLimits = { subscribedNames: 65_536, responseBytes: 4 * 1024 * 1024 };

const TYPES = Object.keys(TYPE_URLS) as readonly ResourceType[];
const TOLD_NAMES = 10;
const TOLD_CHARACTERS = 500;
/** The type whose resources a proxy forgets with one of the type. */
const CHILDREN: Partial<Record<ResourceType, ResourceType>> = { cluster: "endpoint", listener: "route" };
/** No proxy has this version, so the resource is sent to it. */
const NONE = "";

/** Parts that were sent and not answered: the version of each name, or undefined where it was removed. */
type Sent = Map<string, string | undefined>;

interface TypeState {
  readonly type: ResourceType;
  wildcard: boolean;
  readonly names: Set<string>;
  /** Versions that the proxy has, by name. */
  readonly acked: Map<string, string>;
  pending: { readonly nonce: string; readonly sent: Sent; readonly isPart: boolean } | undefined;
  /** Versions that the proxy has refused since there were new resources, by name: they are not sent again. */
  readonly refused: Map<string, string>;
  /** Whether the proxy has accepted any response. */
  sentOnce: boolean;
}

/**
 * One delta stream of the aggregated discovery service, to one proxy. A response of a type waits for the answer to the one before it,
 * and is made of the newest resources then: a slow proxy skips states, and holds up nothing.
 */
export class DeltaSession {
  readonly #limits: DeltaLimits;
  readonly #states = new Map<ResourceType, TypeState>();
  #set: ResourceSet | undefined;
  #isIdentified = false;
  #nonces = 0;

  constructor(limits: DeltaLimits = defaultDeltaLimits) {
    this.#limits = limits;
  }

  /** Types of which a response is not answered yet. */
  get unanswered(): readonly ResourceType[] {
    return [...this.#states.values()].flatMap(({ type, pending }) => (pending === undefined ? [] : [type]));
  }

  /** Returns what to do next, in order. Nothing that a proxy sends makes it throw. */
  handle(input: DeltaInput): readonly DeltaOutput[] {
    if (input.type === "resources") {
      this.#set = input.set;
      for (const { refused } of this.#states.values()) refused.clear();
      return this.#pass();
    }
    return this.#receive(input.request);
  }

  #receive(request: DeltaDiscoveryRequest): readonly DeltaOutput[] {
    const outputs: DeltaOutput[] = [];
    if (!this.#isIdentified) {
      const proxy = identityOf(request);
      if (isTooOld(proxy.envoyVersion)) {
        const message = `Envoy ${proxy.envoyVersion} is too old and is not supported by Consul`;
        return [{ type: "close", code: "invalid-argument", message }];
      }
      this.#isIdentified = true;
      outputs.push({ type: "identified", proxy });
    }
    if (request.typeUrl === "") {
      return [{ type: "close", code: "invalid-argument", message: "type URL is required for ADS" }];
    }
    const type = TYPES.find((each) => TYPE_URLS[each] === request.typeUrl);
    // Types that there are none of are asked for in vain, and that is no fault.
    if (type === undefined) return outputs;
    const known = this.#states.get(type);
    const state = known ?? this.#register(type, request);
    const { pending } = state;
    if (request.responseNonce !== "" && pending?.nonce === request.responseNonce) {
      state.pending = undefined;
      if (request.errorDetail !== undefined) {
        outputs.push({ type: "refused", refusal: refusalOf(state.type, pending, request.errorDetail.message) });
        // Sent again at once, it would be refused again: the next state, or another request, is tried.
        if (!pending.isPart) return outputs;
        for (const [name, version] of pending.sent) if (version !== undefined) state.refused.set(name, version);
        return [...outputs, ...this.#pass()];
      }
      accept(state, pending.sent);
      outputs.push({ type: "acknowledged", resourceType: type });
    }
    if (request.responseNonce === "") state.refused.clear();
    if (!state.wildcard) {
      for (const name of request.resourceNamesSubscribe)
        if (known !== undefined || name !== "*") this.#subscribe(state, name);
      for (const name of request.resourceNamesUnsubscribe) state.names.delete(name);
    }
    if (state.names.size > this.#limits.subscribedNames) {
      const message = `more than ${this.#limits.subscribedNames} names are asked for`;
      return [...outputs, { type: "close", code: "resource-exhausted", message }];
    }
    return [...outputs, ...this.#pass()];
  }

  #register(type: ResourceType, request: DeltaDiscoveryRequest): TypeState {
    const { resourceNamesSubscribe: names, initialResourceVersions: versions } = request;
    const state: TypeState = {
      type,
      wildcard: names.length === 0 || names.includes("*"),
      names: new Set(),
      acked: new Map(Object.entries(versions).slice(0, this.#limits.subscribedNames)),
      pending: undefined,
      refused: new Map(),
      sentOnce: false,
    };
    if (!state.wildcard) for (const name of state.acked.keys()) state.names.add(name);
    this.#states.set(type, state);
    return state;
  }

  /** A name that is asked for is sent, whatever the proxy had: it may have forgotten it. */
  #subscribe(state: TypeState, name: string): void {
    state.names.add(name);
    state.acked.delete(name);
    state.refused.delete(name);
    this.#forgetChildren(state.type, name);
  }

  #forgetChildren(type: ResourceType, name: string): void {
    const child = CHILDREN[type];
    const state = child && this.#states.get(child);
    if (state === undefined) return;
    for (const each of this.#set?.resources[type].get(name)?.children ?? []) {
      if (state.acked.has(each)) state.acked.set(each, NONE);
      // A late answer would say that the proxy has what it has just forgotten.
      state.pending?.sent.delete(each);
    }
  }

  /** Everything that can be sent now, in the order in which a proxy never refers to what it does not know. */
  #pass(): readonly DeltaOutput[] {
    if (this.#set === undefined) return [];
    const outputs: DeltaOutput[] = [];
    const step = (type: ResourceType, parts: { readonly upserts: boolean; readonly removals: boolean }): void => {
      const response = this.#response(type, parts);
      if (response !== undefined) outputs.push({ type: "send", response, resourceType: type });
    };
    step("secret", { upserts: true, removals: false });
    step("cluster", { upserts: true, removals: false });
    step("endpoint", { upserts: true, removals: false });
    // A listener may name what is still under way.
    if (this.#isPending("cluster") || this.#isPending("endpoint")) return outputs;
    step("listener", { upserts: true, removals: true });
    step("route", { upserts: true, removals: true });
    step("cluster", { upserts: false, removals: true });
    step("endpoint", { upserts: false, removals: true });
    step("secret", { upserts: false, removals: true });
    return outputs;
  }

  #isPending(type: ResourceType): boolean {
    return this.#states.get(type)?.pending !== undefined;
  }

  #response(
    type: ResourceType,
    { upserts, removals }: { readonly upserts: boolean; readonly removals: boolean },
  ): DeltaDiscoveryResponse | undefined {
    const state = this.#states.get(type);
    const set = this.#set;
    if (state === undefined || state.pending !== undefined || set === undefined) return undefined;
    const current = set.resources[type];
    const mayBeEmpty = set.mayBeEmpty.has(type);
    const changed: [string, VersionedResource][] = [];
    let bytes = 0;
    let isPart = false;
    if (upserts) {
      for (const [name, resource] of current) {
        if (!state.wildcard && !state.names.has(name)) continue;
        const { version } = resource;
        if (state.acked.get(name) === version || state.refused.get(name) === version) continue;
        bytes += resource.bytes.length;
        isPart = changed.length > 0 && bytes > this.#limits.responseBytes;
        if (isPart) break;
        changed.push([name, resource]);
      }
    }
    const removed: string[] = [];
    // Names that were asked for one by one are not withdrawn: the proxy gives them up by itself.
    if (removals && state.wildcard) {
      for (const name of state.acked.keys()) if (!current.has(name)) removed.push(name);
      removed.sort(compareUtf8);
    }
    if (changed.length === 0 && removed.length === 0) {
      const tellsOfNone = upserts && mayBeEmpty && current.size === 0 && !state.sentOnce;
      if (!tellsOfNone) return undefined;
    }
    const nonce = (++this.#nonces).toString(16).padStart(8, "0");
    const sent: Sent = new Map();
    for (const [name, { version }] of changed) sent.set(name, version);
    for (const name of removed) sent.set(name, undefined);
    state.pending = { nonce, sent, isPart };
    for (const [name] of changed) this.#forgetChildren(type, name);
    return create(DeltaDiscoveryResponseSchema, {
      typeUrl: TYPE_URLS[type],
      nonce,
      resources: changed.map(([name, { version, bytes }]) => ({
        name,
        version,
        resource: { typeUrl: TYPE_URLS[type], value: bytes },
      })),
      removedResources: removed,
    });
  }
}

function accept(state: TypeState, sent: Sent): void {
  state.sentOnce = true;
  for (const [name, version] of sent) {
    if (version === undefined) state.acked.delete(name);
    else state.acked.set(name, version);
  }
}

function refusalOf(
  resourceType: ResourceType,
  { nonce, sent }: { readonly nonce: string; readonly sent: Sent },
  message: string,
): Refusal {
  const names = [...sent.keys()].sort(compareUtf8).slice(0, TOLD_NAMES);
  return { resourceType, nonce, names, message: message.slice(0, TOLD_CHARACTERS) };
}

function identityOf({ node }: DeltaDiscoveryRequest): ProxyIdentity {
  const named = node?.metadata?.["node_name"];
  const build = node?.userAgentVersionType;
  const version = build?.case === "userAgentBuildVersion" ? build.value.version : undefined;
  const isEnvoy = node?.userAgentName === "envoy" && version !== undefined;
  return {
    id: node?.id ?? "",
    node: typeof named === "string" ? named : "",
    envoyVersion: isEnvoy ? `${version.majorNumber}.${version.minorNumber}.${version.patch}` : "",
  };
}

function isTooOld(version: string): boolean {
  if (version === "") return false;
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [oldestMajor, oldestMinor] = OLDEST_ENVOY;
  return major < oldestMajor || (major === oldestMajor && minor < oldestMinor);
}
