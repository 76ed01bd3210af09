import type {
  Check,
  Connect,
  Locality,
  Node,
  PeerMeta,
  Service,
  ServiceAddress,
  ServicePort,
  Weights,
} from "./instance.js";
import {
  type Draft,
  emptyList,
  emptyMap,
  flag,
  index,
  int,
  kept,
  list,
  map,
  one,
  proxy,
  type Table,
  text,
  textMap,
  texts,
} from "./record-table.js";
import { checkDefinitionShape, sidecarShape } from "./shapes.js";

/*
 * The records of the catalog, once for all who write, filter, document and read them. Names, order and what is left out are
 * those of Consul 1.21; `Ports` is of 1.22.
 */

export const localityTable: Table<Locality> = {
  empty: { region: "", zone: "" },
  fields: {
    region: { name: "Region", kind: text, empty: { own: "absent", flat: "absent" } },
    zone: { name: "Zone", kind: text, empty: { own: "absent", flat: "absent" } },
  },
};

export const addressTable: Table<ServiceAddress> = {
  empty: { address: "", port: 0 },
  fields: { address: { name: "Address", kind: text }, port: { name: "Port", kind: int } },
};

export const portTable: Table<ServicePort> = {
  empty: { name: "", port: 0, default: false },
  fields: {
    name: { name: "Name", kind: text },
    port: { name: "Port", kind: int },
    default: { name: "Default", kind: flag },
  },
};

export const weightsTable: Table<Weights> = {
  empty: Object.freeze({ passing: 1, warning: 1 }),
  fields: { passing: { name: "Passing", kind: int }, warning: { name: "Warning", kind: int } },
};

/** Left out of every view where it is empty. */
const absent = { own: "absent", flat: "absent", agent: "absent" } as const;

export const peerMetaTable: Table<PeerMeta> = {
  empty: { sni: [], spiffeId: [], protocol: "" },
  fields: {
    sni: { name: "SNI", kind: texts, empty: absent },
    spiffeId: { name: "SpiffeID", kind: texts, empty: absent },
    protocol: { name: "Protocol", kind: text, empty: absent },
  },
};

export const connectTable: Table<Connect> = {
  empty: { native: false },
  fields: {
    native: { name: "Native", kind: flag, empty: absent },
    sidecarService: { name: "SidecarService", kind: kept(sidecarShape), empty: absent },
    peerMeta: { name: "PeerMeta", kind: one(peerMetaTable), empty: absent },
  },
};

/** With every default. */
export function emptyService(): Draft<Service> {
  return {
    kind: "",
    id: "",
    name: "",
    tags: emptyList,
    address: "",
    port: 0,
    socketPath: "",
    taggedAddresses: emptyMap,
    meta: emptyMap,
    weights: weightsTable.empty,
    enableTagOverride: false,
  };
}

export const serviceTable: Table<Service> = {
  empty: emptyService(),
  fields: {
    kind: { name: "Kind", flat: "ServiceKind", kind: text, empty: { own: "absent", agent: "absent" } },
    id: { name: "ID", flat: "ServiceID", kind: text },
    name: { name: "Service", flat: "ServiceName", kind: text },
    tags: { name: "Tags", flat: "ServiceTags", kind: texts },
    address: { name: "Address", flat: "ServiceAddress", kind: text },
    taggedAddresses: {
      name: "TaggedAddresses",
      flat: "ServiceTaggedAddresses",
      kind: map(addressTable),
      empty: absent,
    },
    meta: { name: "Meta", flat: "ServiceMeta", kind: textMap, empty: { own: "null" } },
    port: { name: "Port", flat: "ServicePort", kind: int, empty: { own: "absent" } },
    // Left out unless there are any, so that the records are those of Consul 1.21 then.
    ports: { name: "Ports", flat: "ServicePorts", kind: list(portTable), empty: absent },
    socketPath: {
      name: "SocketPath",
      flat: "ServiceSocketPath",
      kind: text,
      empty: { own: "absent", agent: "absent" },
    },
    weights: { name: "Weights", flat: "ServiceWeights", kind: one(weightsTable) },
    enableTagOverride: { name: "EnableTagOverride", flat: "ServiceEnableTagOverride", kind: flag },
    locality: {
      name: "Locality",
      flat: "ServiceLocality",
      kind: one(localityTable),
      empty: { own: "absent", flat: "null", agent: "absent" },
    },
    proxy: { name: "Proxy", flat: "ServiceProxy", kind: proxy },
    connect: { name: "Connect", flat: "ServiceConnect", kind: one(connectTable) },
  },
};

export const nodeTable: Table<Node> = {
  empty: { id: "", name: "", address: "", datacenter: "", taggedAddresses: {}, meta: {} },
  fields: {
    id: { name: "ID", kind: text },
    name: { name: "Node", kind: text },
    address: { name: "Address", kind: text },
    datacenter: { name: "Datacenter", kind: text },
    taggedAddresses: { name: "TaggedAddresses", kind: textMap, empty: { own: "null", flat: "null" } },
    meta: { name: "Meta", flat: "NodeMeta", kind: textMap, empty: { own: "null", flat: "null" } },
    locality: { name: "Locality", kind: one(localityTable), empty: { own: "absent", flat: "hidden" } },
  },
};

/** With every default. */
export function emptyCheck(): Draft<Check> {
  return {
    node: "",
    checkId: "",
    name: "",
    status: "",
    notes: "",
    output: "",
    serviceId: "",
    serviceName: "",
    serviceTags: emptyList,
    type: "",
    interval: "",
    timeout: "",
    exposedPort: 0,
    definition: emptyMap,
  };
}

export const checkTable: Table<Check> = {
  empty: emptyCheck(),
  fields: {
    node: { name: "Node", kind: text },
    checkId: { name: "CheckID", kind: text },
    name: { name: "Name", kind: text },
    status: { name: "Status", kind: text },
    notes: { name: "Notes", kind: text },
    output: { name: "Output", kind: text },
    serviceId: { name: "ServiceID", kind: text },
    serviceName: { name: "ServiceName", kind: text },
    serviceTags: { name: "ServiceTags", kind: texts },
    type: { name: "Type", kind: text },
    interval: { name: "Interval", kind: text },
    timeout: { name: "Timeout", kind: text },
    exposedPort: { name: "ExposedPort", kind: int },
    definition: { name: "Definition", kind: kept(checkDefinitionShape) },
  },
};

/*
 * Fields of records that are read, stored and compared by the million are written out one by one where that is done
 * (`registration.ts`, `catalog-record.ts`, `equality.ts`): a function for each field takes two to eight times as long. A new field
 * need not be among them, since all others are handled as their kind says.
 */

export const writtenOutOfService: ReadonlySet<keyof Service> = new Set<keyof Service>([
  "kind",
  "id",
  "name",
  "tags",
  "address",
  "taggedAddresses",
  "meta",
  "port",
  "ports",
  "socketPath",
  "weights",
  "enableTagOverride",
  "locality",
  "proxy",
  "connect",
]);

export const writtenOutOfNode: ReadonlySet<keyof Node> = new Set<keyof Node>([
  "id",
  "name",
  "address",
  "datacenter",
  "taggedAddresses",
  "meta",
  "locality",
]);

export const writtenOutOfCheck: ReadonlySet<keyof Check> = new Set<keyof Check>([
  "node",
  "checkId",
  "name",
  "status",
  "notes",
  "output",
  "serviceId",
  "serviceName",
  "serviceTags",
  "type",
  "interval",
  "timeout",
  "exposedPort",
  "definition",
]);

/** When a record was first written, and last changed. */
export interface Indexes {
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
}

export const indexesTable: Table<Indexes> = {
  empty: { createIndex: 0n, modifyIndex: 0n },
  fields: { createIndex: { name: "CreateIndex", kind: index }, modifyIndex: { name: "ModifyIndex", kind: index } },
};
