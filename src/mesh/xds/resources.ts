import { createHash } from "node:crypto";
import { compareUtf8 } from "../../base/byte-order.js";
import type { ResourceType } from "../../model/connected-proxy.js";
import {
  type Cluster,
  type ClusterLoadAssignment,
  ClusterLoadAssignmentSchema,
  ClusterSchema,
  type Listener,
  ListenerSchema,
  type RouteConfiguration,
  RouteConfigurationSchema,
  SecretSchema,
} from "../../wire/envoy.js";
import { create, type DescMessage, type MessageFields, toBinary } from "../../wire/schema.js";

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

/** Messages as they are made, by type. */
export interface DraftResources {
  readonly clusters: readonly MessageFields<typeof ClusterSchema>[];
  readonly endpoints: readonly MessageFields<typeof ClusterLoadAssignmentSchema>[];
  readonly listeners: readonly (MessageFields<typeof ListenerSchema> & { readonly routes?: readonly string[] })[];
  readonly routes: readonly MessageFields<typeof RouteConfigurationSchema>[];
  readonly secrets: readonly MessageFields<typeof SecretSchema>[];
}

export type { Cluster, ClusterLoadAssignment, Listener, RouteConfiguration };

/** Encodes all of them. Of several resources with one name the first one counts. */
export function encodeResources(draft: DraftResources, mayBeEmpty: ReadonlySet<ResourceType>): ResourceSet {
  return {
    resources: {
      secret: encoded(draft.secrets.map((init) => entry(SecretSchema, init, init.name))),
      // Envoy forgets the endpoints of a cluster that is replaced.
      cluster: encoded(
        draft.clusters.map((init) => entry(ClusterSchema, init, init.name, init.name === undefined ? [] : [init.name])),
      ),
      endpoint: encoded(draft.endpoints.map((init) => entry(ClusterLoadAssignmentSchema, init, init.clusterName))),
      listener: encoded(
        draft.listeners.map(({ routes = [], ...init }) => entry(ListenerSchema, init, init.name, routes)),
      ),
      route: encoded(draft.routes.map((init) => entry(RouteConfigurationSchema, init, init.name))),
    },
    mayBeEmpty,
  };
}

type Entry = readonly [name: string, resource: VersionedResource];

function entry<Desc extends DescMessage>(
  schema: Desc,
  init: MessageFields<Desc>,
  name: string | undefined,
  children: readonly string[] = [],
): Entry {
  const bytes = toBinary(schema, create(schema, init));
  return [name ?? "", { bytes, version: createHash("sha256").update(bytes).digest("hex"), children }];
}

function encoded(entries: readonly Entry[]): ReadonlyMap<string, VersionedResource> {
  const found = new Map<string, VersionedResource>();
  for (const [name, resource] of entries.toSorted(([left], [right]) => compareUtf8(left, right))) {
    if (!found.has(name)) found.set(name, resource);
  }
  return found;
}
