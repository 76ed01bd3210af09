import {
  asList,
  asObject,
  asTexts,
  booleanOf,
  type Json,
  type JsonObject,
  mapValues,
  memberOf,
  membersOf,
  numberOf,
  objectOf,
  textMapOf,
  textOf,
  textsOf,
} from "./json-reader.js";

// Records are spelled as the API spells them, so that its documentation is theirs. A list or map that the server left
// out, or gave as null, is empty here; what it left out of single values is `""`, 0 or false, but for times.

/** A peering as `/v1/peering/:name` shows it. */
export interface PeeringRecord {
  readonly ID: string;
  readonly Name: string;
  readonly Partition: string;
  /** RFC 3339; undefined for a peering that is not marked for deletion. */
  readonly DeletedAt: string | undefined;
  readonly Meta: Readonly<Record<string, string>>;
  /** `PENDING`, `ESTABLISHING`, `ACTIVE`, `FAILING`, `DELETING`, `TERMINATED` or `UNDEFINED`. */
  readonly State: string;
  /** Id of the peering at the other side; `""` at an acceptor. */
  readonly PeerID: string;
  readonly PeerCAPems: readonly string[];
  readonly PeerServerName: string;
  readonly PeerServerAddresses: readonly string[];
  readonly StreamStatus: PeeringStreamStatus;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
  readonly Remote: PeeringRemote;
  /** Further fields of a server of this library; undefined from Consul, and while there is nothing wrong. */
  readonly Peerage: PeeringTroubles | undefined;
}

/** Why a peering does not work, or not for all of its services. */
export interface PeeringTroubles {
  readonly LastFailure: PeeringFailure | undefined;
  /** Of our services that the peer does not get, up to 100: why. */
  readonly WithheldServices: Readonly<Record<string, string>>;
  readonly WithheldServiceCount: number;
  /** Of the peer's services that were refused, up to 100: why. */
  readonly RefusedImports: Readonly<Record<string, string>>;
  readonly RefusedImportCount: number;
}

/** The last failure of a stream, or of an attempt at one. Times are RFC 3339. */
export interface PeeringFailure {
  readonly Error: string;
  readonly Code: string;
  /** The one dialed; `""` for none. */
  readonly Address: string;
  readonly At: string | undefined;
  /** When the first of an unbroken row of failures came. */
  readonly Since: string | undefined;
  readonly FailedAttempts: number;
  readonly NextAttempt: string | undefined;
}

/** Names of services, and RFC 3339 times; undefined: never. */
export interface PeeringStreamStatus {
  readonly ImportedServices: readonly string[];
  readonly ExportedServices: readonly string[];
  readonly LastHeartbeat: string | undefined;
  readonly LastReceive: string | undefined;
  readonly LastSend: string | undefined;
}

export interface PeeringRemote {
  readonly Partition: string;
  readonly Datacenter: string;
  readonly Locality: { readonly Region: string; readonly Zone: string } | undefined;
}

/** One service of `/v1/exported-services`: wildcards are expanded, equal names are one. */
export interface ExportedServiceRecord {
  readonly Service: string;
  readonly Consumers: { readonly Peers: readonly string[] };
}

/** A config entry of any kind. Its `Hash` is left out: it is larger than a number can hold. */
export interface ConfigEntryRecord extends JsonObject {
  readonly Kind: string;
}

/** The configuration of a cluster's certificate authority. */
export interface CaConfigurationRecord {
  readonly Provider: string;
  readonly Config: JsonObject;
  readonly State: Readonly<Record<string, string>> | null;
  readonly ForceWithoutCrossSigning: boolean;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}

export interface NodeRecord {
  readonly ID: string;
  readonly Node: string;
  readonly Address: string;
  readonly Datacenter: string;
  readonly TaggedAddresses: Readonly<Record<string, string>>;
  readonly Meta: Readonly<Record<string, string>>;
  /** The peer it was imported from; `""` for our own. */
  readonly PeerName: string;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}

export interface AddressRecord {
  readonly Address: string;
  readonly Port: number;
}

/** One of several ports of a service (Consul 1.22 and later). */
export interface PortRecord {
  readonly Name: string;
  readonly Port: number;
  readonly Default: boolean;
}

export interface ServiceRecord {
  readonly ID: string;
  readonly Service: string;
  /** `""` for ordinary services. */
  readonly Kind: string;
  readonly Tags: readonly string[];
  /** `""`: that of the node. */
  readonly Address: string;
  readonly TaggedAddresses: Readonly<Record<string, AddressRecord>>;
  readonly Meta: Readonly<Record<string, string>>;
  /** Where there are several, the default one. */
  readonly Port: number;
  /** Empty unless it was registered with named ports. */
  readonly Ports: readonly PortRecord[];
  /** `""`: it listens at a port. */
  readonly SocketPath: string;
  /** Where it runs, as the server gave it; empty: nothing was said. */
  readonly Locality: JsonObject;
  readonly Weights: { readonly Passing: number; readonly Warning: number };
  readonly EnableTagOverride: boolean;
  /** As the server gave it: sidecars and gateways say here whom they stand for. */
  readonly Proxy: JsonObject;
  readonly Connect: JsonObject;
  readonly PeerName: string;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}

export interface CheckRecord {
  readonly Node: string;
  readonly CheckID: string;
  readonly Name: string;
  /** `passing`, `warning`, `critical` or `maintenance`. */
  readonly Status: string;
  readonly Notes: string;
  readonly Output: string;
  readonly ServiceID: string;
  readonly ServiceName: string;
  readonly ServiceTags: readonly string[];
  readonly Type: string;
  readonly PeerName: string;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}

/** An instance with its node and all checks of both, as `/v1/health/service/:name` lists them. */
export interface InstanceRecord {
  readonly Node: NodeRecord;
  readonly Service: ServiceRecord;
  readonly Checks: readonly CheckRecord[];
}

/** An instance with its node in one flat record, as `/v1/catalog/service/:name` lists them. */
export interface CatalogServiceRecord {
  readonly ID: string;
  readonly Node: string;
  readonly Address: string;
  readonly Datacenter: string;
  readonly TaggedAddresses: Readonly<Record<string, string>>;
  readonly NodeMeta: Readonly<Record<string, string>>;
  readonly ServiceKind: string;
  readonly ServiceID: string;
  readonly ServiceName: string;
  readonly ServiceTags: readonly string[];
  readonly ServiceAddress: string;
  readonly ServiceTaggedAddresses: Readonly<Record<string, AddressRecord>>;
  readonly ServiceWeights: { readonly Passing: number; readonly Warning: number };
  readonly ServiceMeta: Readonly<Record<string, string>>;
  readonly ServicePort: number;
  /** Empty unless it was registered with named ports. */
  readonly ServicePorts: readonly PortRecord[];
  readonly ServiceSocketPath: string;
  readonly ServiceEnableTagOverride: boolean;
  /** As they came; empty for services outside of the mesh. */
  readonly ServiceProxy: JsonObject;
  readonly ServiceConnect: JsonObject;
  /** `Region` and `Zone` (Consul 1.16 and later); empty where it says nothing. */
  readonly ServiceLocality: JsonObject;
  readonly PeerName: string;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}

/** A node with the services on it, by id. */
export interface CatalogNodeRecord {
  readonly Node: NodeRecord;
  readonly Services: Readonly<Record<string, ServiceRecord>>;
}

/** A node and its services, each as the API documents it. */
export interface NodeServicesRecord {
  /** Empty: there is no such node. */
  readonly Node: JsonObject;
  readonly Services: readonly JsonObject[];
}

function optionalTime(record: JsonObject, key: string): string | undefined {
  return textOf(record, key) || undefined;
}

export function readPeering(json: Json): PeeringRecord {
  const record = asObject(json, "the peering");
  const status = objectOf(record, "StreamStatus");
  const remote = objectOf(record, "Remote");
  const locality = memberOf(remote, "Locality");
  return {
    ID: textOf(record, "ID"),
    Name: textOf(record, "Name"),
    Partition: textOf(record, "Partition"),
    DeletedAt: optionalTime(record, "DeletedAt"),
    Meta: textMapOf(record, "Meta"),
    State: textOf(record, "State"),
    PeerID: textOf(record, "PeerID"),
    PeerCAPems: textsOf(record, "PeerCAPems"),
    PeerServerName: textOf(record, "PeerServerName"),
    PeerServerAddresses: textsOf(record, "PeerServerAddresses"),
    StreamStatus: {
      ImportedServices: textsOf(status, "ImportedServices"),
      ExportedServices: textsOf(status, "ExportedServices"),
      LastHeartbeat: optionalTime(status, "LastHeartbeat"),
      LastReceive: optionalTime(status, "LastReceive"),
      LastSend: optionalTime(status, "LastSend"),
    },
    CreateIndex: numberOf(record, "CreateIndex"),
    ModifyIndex: numberOf(record, "ModifyIndex"),
    Remote: {
      Partition: textOf(remote, "Partition"),
      Datacenter: textOf(remote, "Datacenter"),
      Locality: locality === undefined ? undefined : readLocality(asObject(locality, "Locality")),
    },
    Peerage: memberOf(record, "Peerage") === undefined ? undefined : readTroubles(objectOf(record, "Peerage")),
  };
}

function readTroubles(troubles: JsonObject): PeeringTroubles {
  return {
    LastFailure:
      memberOf(troubles, "LastFailure") === undefined ? undefined : readFailure(objectOf(troubles, "LastFailure")),
    WithheldServices: textMapOf(troubles, "WithheldServices"),
    WithheldServiceCount: numberOf(troubles, "WithheldServiceCount"),
    RefusedImports: textMapOf(troubles, "RefusedImports"),
    RefusedImportCount: numberOf(troubles, "RefusedImportCount"),
  };
}

function readFailure(failure: JsonObject): PeeringFailure {
  return {
    Error: textOf(failure, "Error"),
    Code: textOf(failure, "Code"),
    Address: textOf(failure, "Address"),
    At: optionalTime(failure, "At"),
    Since: optionalTime(failure, "Since"),
    FailedAttempts: numberOf(failure, "FailedAttempts"),
    NextAttempt: optionalTime(failure, "NextAttempt"),
  };
}

function readLocality(locality: JsonObject): { readonly Region: string; readonly Zone: string } {
  return { Region: textOf(locality, "Region"), Zone: textOf(locality, "Zone") };
}

export function readExportedService(json: Json): ExportedServiceRecord {
  const record = asObject(json, "the exported service");
  const consumers = objectOf(record, "Consumers");
  return { Service: textOf(record, "Service"), Consumers: { Peers: textsOf(consumers, "Peers") } };
}

export function readConfigEntry(json: Json): ConfigEntryRecord {
  const { Hash: _, ...entry } = asObject(json, "the config entry");
  return { ...entry, Kind: textOf(entry, "Kind") };
}

export function readCaConfiguration(json: Json): CaConfigurationRecord {
  const record = asObject(json, "the configuration");
  return {
    Provider: textOf(record, "Provider"),
    Config: objectOf(record, "Config"),
    State: memberOf(record, "State") === undefined ? null : textMapOf(record, "State"),
    ForceWithoutCrossSigning: booleanOf(record, "ForceWithoutCrossSigning"),
    CreateIndex: numberOf(record, "CreateIndex"),
    ModifyIndex: numberOf(record, "ModifyIndex"),
  };
}

export function readNode(json: Json): NodeRecord {
  const record = asObject(json, "the node");
  return {
    ID: textOf(record, "ID"),
    Node: textOf(record, "Node"),
    Address: textOf(record, "Address"),
    Datacenter: textOf(record, "Datacenter"),
    TaggedAddresses: textMapOf(record, "TaggedAddresses"),
    Meta: textMapOf(record, "Meta"),
    PeerName: textOf(record, "PeerName"),
    CreateIndex: numberOf(record, "CreateIndex"),
    ModifyIndex: numberOf(record, "ModifyIndex"),
  };
}

function readAddresses(record: JsonObject, key: string): Readonly<Record<string, AddressRecord>> {
  return mapValues(objectOf(record, key), (value) => {
    const address = asObject(value, key);
    return { Address: textOf(address, "Address"), Port: numberOf(address, "Port") };
  });
}

function readPort(json: Json): PortRecord {
  const port = asObject(json, "the port");
  return { Name: textOf(port, "Name"), Port: numberOf(port, "Port"), Default: booleanOf(port, "Default") };
}

function readWeights(record: JsonObject, key: string): { readonly Passing: number; readonly Warning: number } {
  const weights = objectOf(record, key);
  return { Passing: numberOf(weights, "Passing"), Warning: numberOf(weights, "Warning") };
}

export function readService(json: Json): ServiceRecord {
  const record = asObject(json, "the service");
  return {
    ID: textOf(record, "ID"),
    Service: textOf(record, "Service"),
    Kind: textOf(record, "Kind"),
    Tags: textsOf(record, "Tags"),
    Address: textOf(record, "Address"),
    TaggedAddresses: readAddresses(record, "TaggedAddresses"),
    Meta: textMapOf(record, "Meta"),
    Port: numberOf(record, "Port"),
    Ports: membersOf(record, "Ports").map(readPort),
    SocketPath: textOf(record, "SocketPath"),
    Locality: objectOf(record, "Locality"),
    Weights: readWeights(record, "Weights"),
    EnableTagOverride: booleanOf(record, "EnableTagOverride"),
    Proxy: objectOf(record, "Proxy"),
    Connect: objectOf(record, "Connect"),
    PeerName: textOf(record, "PeerName"),
    CreateIndex: numberOf(record, "CreateIndex"),
    ModifyIndex: numberOf(record, "ModifyIndex"),
  };
}

export function readCheck(json: Json): CheckRecord {
  const record = asObject(json, "the check");
  return {
    Node: textOf(record, "Node"),
    CheckID: textOf(record, "CheckID"),
    Name: textOf(record, "Name"),
    Status: textOf(record, "Status"),
    Notes: textOf(record, "Notes"),
    Output: textOf(record, "Output"),
    ServiceID: textOf(record, "ServiceID"),
    ServiceName: textOf(record, "ServiceName"),
    ServiceTags: textsOf(record, "ServiceTags"),
    Type: textOf(record, "Type"),
    PeerName: textOf(record, "PeerName"),
    CreateIndex: numberOf(record, "CreateIndex"),
    ModifyIndex: numberOf(record, "ModifyIndex"),
  };
}

export function readInstance(json: Json): InstanceRecord {
  const record = asObject(json, "the instance");
  return {
    Node: readNode(objectOf(record, "Node")),
    Service: readService(objectOf(record, "Service")),
    Checks: membersOf(record, "Checks").map(readCheck),
  };
}

export function readCatalogService(json: Json): CatalogServiceRecord {
  const record = asObject(json, "the service");
  return {
    ID: textOf(record, "ID"),
    Node: textOf(record, "Node"),
    Address: textOf(record, "Address"),
    Datacenter: textOf(record, "Datacenter"),
    TaggedAddresses: textMapOf(record, "TaggedAddresses"),
    NodeMeta: textMapOf(record, "NodeMeta"),
    ServiceKind: textOf(record, "ServiceKind"),
    ServiceID: textOf(record, "ServiceID"),
    ServiceName: textOf(record, "ServiceName"),
    ServiceTags: textsOf(record, "ServiceTags"),
    ServiceAddress: textOf(record, "ServiceAddress"),
    ServiceTaggedAddresses: readAddresses(record, "ServiceTaggedAddresses"),
    ServiceWeights: readWeights(record, "ServiceWeights"),
    ServiceMeta: textMapOf(record, "ServiceMeta"),
    ServicePort: numberOf(record, "ServicePort"),
    ServicePorts: membersOf(record, "ServicePorts").map(readPort),
    ServiceSocketPath: textOf(record, "ServiceSocketPath"),
    ServiceEnableTagOverride: booleanOf(record, "ServiceEnableTagOverride"),
    ServiceProxy: objectOf(record, "ServiceProxy"),
    ServiceConnect: objectOf(record, "ServiceConnect"),
    ServiceLocality: objectOf(record, "ServiceLocality"),
    PeerName: textOf(record, "PeerName"),
    CreateIndex: numberOf(record, "CreateIndex"),
    ModifyIndex: numberOf(record, "ModifyIndex"),
  };
}

/** Undefined for the `null` that an unknown node is answered with. */
export function readCatalogNode(json: Json): CatalogNodeRecord | undefined {
  if (json === null) return undefined;
  const record = asObject(json, "the node");
  const node = memberOf(record, "Node");
  if (node === undefined) return undefined;
  return {
    Node: readNode(node),
    Services: mapValues(objectOf(record, "Services"), readService),
  };
}

export function readNodeServices(json: Json): NodeServicesRecord {
  const record = asObject(json, "the answer");
  return {
    Node: objectOf(record, "Node"),
    Services: membersOf(record, "Services").map((service) => asObject(service, "a service")),
  };
}

/** A list whose elements are all read by `read`. */
export function listOf<Value>(read: (json: Json) => Value): (json: Json) => readonly Value[] {
  return (json) => asList(json, "the answer").map((element) => read(element));
}

export function readTagsByName(json: Json): Readonly<Record<string, readonly string[]>> {
  return mapValues(asObject(json ?? {}, "the answer"), (tags, name) => asTexts(tags, name));
}

/** Who may call whom: an intention. */
export interface IntentionRecord {
  /** `""` for one that was not written with an id. */
  readonly ID: string;
  readonly Description: string;
  readonly SourceNS: string;
  readonly SourceName: string;
  /** `""` for a local service. */
  readonly SourcePeer: string;
  readonly DestinationNS: string;
  readonly DestinationName: string;
  /** `allow` or `deny`; `""` where permissions decide. */
  readonly Action: string;
  /** As they came. */
  readonly Permissions: readonly Json[];
  readonly Meta: Readonly<Record<string, string>>;
  readonly Precedence: number;
  /** RFC 3339; undefined for one without an id. */
  readonly CreatedAt: string | undefined;
  readonly UpdatedAt: string | undefined;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}

export function readIntention(json: Json): IntentionRecord {
  const record = asObject(json, "the intention");
  return {
    ID: textOf(record, "ID"),
    Description: textOf(record, "Description"),
    SourceNS: textOf(record, "SourceNS"),
    SourceName: textOf(record, "SourceName"),
    SourcePeer: textOf(record, "SourcePeer"),
    DestinationNS: textOf(record, "DestinationNS"),
    DestinationName: textOf(record, "DestinationName"),
    Action: textOf(record, "Action"),
    Permissions: membersOf(record, "Permissions"),
    Meta: textMapOf(record, "Meta"),
    Precedence: numberOf(record, "Precedence"),
    CreatedAt: optionalTime(record, "CreatedAt"),
    UpdatedAt: optionalTime(record, "UpdatedAt"),
    CreateIndex: numberOf(record, "CreateIndex"),
    ModifyIndex: numberOf(record, "ModifyIndex"),
  };
}

export function readIntentionsByName(json: Json): Readonly<Record<string, readonly IntentionRecord[]>> {
  return mapValues(asObject(json, "the answer"), listOf(readIntention));
}
