import { createHash } from "node:crypto";
import { compareUtf8 } from "../../base/byte-order.js";
import type { Steps } from "../../base/steps.js";
import { sortSteps } from "../../base/turns.js";
import type { ResourceType } from "../../model/connected-proxy.js";
import {
  type Cluster,
  type ClusterLoadAssignment,
  ClusterLoadAssignmentSchema,
  ClusterSchema,
  FilterChainSchema,
  type Listener,
  ListenerSchema,
  type RouteConfiguration,
  RouteConfigurationSchema,
  SecretSchema,
} from "../../wire/envoy.js";
import { create, type DescMessage, type MessageFields, toBinary } from "../../wire/schema.js";
import type { Endpoint } from "../snapshot/endpoints.js";
import { loadAssignment } from "./clusters.js";
import { type OwnResource, OwnResources } from "./own-resources.js";
import { withMembers } from "./values.js";

export const TYPE_URLS: Readonly<Record<ResourceType, string>> = {
  secret: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
  cluster: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
  endpoint: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
  listener: "type.googleapis.com/envoy.config.listener.v3.Listener",
  route: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
};

/** A resource as it is sent. */
export interface VersionedResource {
  /** Digest of the bytes. */
  readonly version: string;
  readonly bytes: Uint8Array;
  /** Names of the resources of the next type that Envoy forgets when this one is replaced. */
  readonly children: readonly string[];
}

/** Everything that one proxy is told: by type, then by name in byte order. */
export interface ResourceSet {
  readonly resources: Readonly<Record<ResourceType, ReadonlyMap<string, VersionedResource>>>;
  /** Types of which a proxy is told that there are none. */
  readonly mayBeEmpty: ReadonlySet<ResourceType>;
}

/** A load assignment as it is made. */
export interface Assignment {
  readonly clusterName: string;
  /** An empty list is told, too, or Envoy waits for it. */
  readonly endpoints: readonly Endpoint[];
  /** Without health and weight. */
  readonly bare?: boolean;
}

/** Messages as they are made, by type. */
export interface DraftResources {
  readonly clusters: readonly MessageFields<typeof ClusterSchema>[];
  readonly endpoints: readonly Assignment[];
  readonly listeners: readonly DraftListener[];
  readonly routes: readonly MessageFields<typeof RouteConfigurationSchema>[];
  readonly secrets: readonly MessageFields<typeof SecretSchema>[];
  /** Those that operators write. */
  readonly own?: { readonly clusters: readonly OwnResource[]; readonly listeners: readonly OwnResource[] };
}

export type DraftListener = MessageFields<typeof ListenerSchema> & {
  /** Names of the routes that it asks for. */
  readonly routes?: readonly string[];
  /** Filter chains in front of those that it has, encoded. */
  readonly encodedChains?: readonly Uint8Array[];
};

export type { Cluster, ClusterLoadAssignment, Listener, RouteConfiguration };

export type Entry = readonly [name: string, resource: VersionedResource];

/** Resources as they are sent, in any order. */
export type EncodedResources = Readonly<Record<ResourceType, readonly Entry[]>>;

/** Encodes the resources of all proxies: load assignments of the same endpoints once for all of them. */
export class ResourceEncoder {
  readonly own: OwnResources = new OwnResources();
  readonly #assignments = new WeakMap<readonly Endpoint[], Map<string, VersionedResource>>();

  encode(draft: DraftResources): EncodedResources {
    const { own = { clusters: [], listeners: [] } } = draft;
    return {
      secret: draft.secrets.map((init) => entry(SecretSchema, init, init.name)),
      // Envoy forgets the endpoints of a cluster that is replaced.
      cluster: [
        ...draft.clusters.map((init) =>
          entry(ClusterSchema, init, init.name, init.name === undefined ? [] : [init.name]),
        ),
        ...own.clusters.map(({ name, bytes }) => entryOf(name, bytes, [name])),
      ],
      endpoint: draft.endpoints.map((assignment) => this.#assignment(assignment)),
      listener: [
        ...draft.listeners.map(({ routes = [], encodedChains = [], ...init }) => {
          const bytes = toBinary(ListenerSchema, create(ListenerSchema, init));
          const { field } = ListenerSchema;
          return entryOf(init.name, withMembers(bytes, field.filterChains.number, encodedChains), routes);
        }),
        ...own.listeners.map(({ name, bytes, routes }) => entryOf(name, bytes, routes)),
      ],
      route: draft.routes.map((init) => entry(RouteConfigurationSchema, init, init.name)),
    };
  }

  #assignment({ clusterName, endpoints, bare = false }: Assignment): Entry {
    const known = this.#assignments.get(endpoints) ?? new Map<string, VersionedResource>();
    this.#assignments.set(endpoints, known);
    const key = JSON.stringify([clusterName, bare]);
    const made =
      known.get(key) ??
      entry(ClusterLoadAssignmentSchema, loadAssignment(clusterName, endpoints, bare), clusterName)[1];
    known.set(key, made);
    return [clusterName, made];
  }
}

/** All resources of one proxy. Of several with one name the first one counts. */
export function* resourceSet(
  parts: readonly EncodedResources[],
  mayBeEmpty: ReadonlySet<ResourceType>,
): Steps<ResourceSet> {
  const resources: Record<ResourceType, ReadonlyMap<string, VersionedResource>> = {
    secret: yield* sorted(parts, "secret"),
    cluster: yield* sorted(parts, "cluster"),
    endpoint: yield* sorted(parts, "endpoint"),
    listener: yield* sorted(parts, "listener"),
    route: yield* sorted(parts, "route"),
  };
  return { resources, mayBeEmpty };
}

function* sorted(
  parts: readonly EncodedResources[],
  type: ResourceType,
): Steps<ReadonlyMap<string, VersionedResource>> {
  const entries = parts.flatMap((part) => part[type]);
  if (entries.length > UNSTEPPED) yield;
  const inOrder = yield* sortSteps(entries, ([left], [right]) => compareUtf8(left, right));
  if (entries.length > UNSTEPPED) yield;
  const found = new Map<string, VersionedResource>();
  for (const [name, resource] of inOrder) if (!found.has(name)) found.set(name, resource);
  return found;
}

/** So few resources are no step of their own. */
const UNSTEPPED = 1_000;

function entry<Desc extends DescMessage>(
  schema: Desc,
  init: MessageFields<Desc>,
  name: string | undefined,
  children: readonly string[] = [],
): Entry {
  return entryOf(name, toBinary(schema, create(schema, init)), children);
}

function entryOf(name: string | undefined, bytes: Uint8Array, children: readonly string[]): Entry {
  return [name ?? "", { bytes, version: createHash("sha256").update(bytes).digest("hex"), children }];
}

/** A filter chain for {@link DraftListener.encodedChains}. */
export function encodedChain(init: MessageFields<typeof FilterChainSchema>): Uint8Array {
  return toBinary(FilterChainSchema, create(FilterChainSchema, init));
}
