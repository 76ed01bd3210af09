import type { JsonObject, Locality, ServiceKind, StringMap } from "../catalog/instance.js";
import type {
  CheckRegistration,
  NodeRegistration,
  Registration,
  ServiceRegistration,
} from "../catalog/registration.js";
import {
  decodeGo,
  type GoFields,
  type GoJson,
  GoJsonError,
  type GoType,
  goAliased,
  goAny,
  goBool,
  goInt,
  goList,
  goMap,
  goOptional,
  goString,
  goStruct,
  goUint64,
  isGoObject,
  plainJson,
} from "../syntax/go-json.js";
import type { Call } from "./call.js";
import { badRequest, HttpError } from "./http-error.js";

// The bodies of writes to the catalog, as Consul 1.21 decodes them, and `Ports` of 1.22: what it knows and we do not keep is `goAny`.

export const localityType: GoType<LocalityBody> = goStruct<LocalityBody>("structs.Locality", {
  Region: goString,
  Zone: goString,
});
export interface LocalityBody {
  readonly Region: string;
  readonly Zone: string;
}

export interface ProxyBody {
  readonly DestinationServiceName: string;
  readonly DestinationServiceID: string;
  readonly LocalServiceAddress: string;
  readonly LocalServicePort: number;
  readonly LocalServiceSocketPath: string;
  readonly Mode: string;
  readonly Config: GoJson;
  readonly Upstreams: readonly GoJson[];
  readonly MeshGateway: { readonly Mode: string };
  readonly Expose: GoJson;
  readonly TransparentProxy: GoJson;
  readonly EnvoyExtensions: GoJson;
  readonly AccessLogs: GoJson;
  readonly MutualTLSMode: GoJson;
}

const proxyFields: GoFields<ProxyBody> = {
  DestinationServiceName: goString,
  DestinationServiceID: goString,
  LocalServiceAddress: goString,
  LocalServicePort: goInt,
  LocalServiceSocketPath: goString,
  Mode: goString,
  Config: goAny,
  Upstreams: goList(goAny),
  MeshGateway: goStruct<{ readonly Mode: string }>("structs.MeshGatewayConfig", { Mode: goString }),
  Expose: goAny,
  TransparentProxy: goAny,
  EnvoyExtensions: goAny,
  AccessLogs: goAny,
  MutualTLSMode: goAny,
};

const proxyStruct: GoType<ProxyBody> = goStruct<ProxyBody>("structs.ConnectProxyConfig", proxyFields);

export const proxyType: GoType<ProxyBody> = goAliased(proxyStruct, proxyFields, {
  destination_service_name: "DestinationServiceName",
  destination_service_id: "DestinationServiceID",
  local_service_address: "LocalServiceAddress",
  local_service_port: "LocalServicePort",
  local_service_socket_path: "LocalServiceSocketPath",
  mesh_gateway: "MeshGateway",
  transparent_proxy: "TransparentProxy",
  access_logs: "AccessLogs",
});

interface ConnectBody {
  readonly Native: boolean;
  readonly SidecarService: GoJson;
  readonly PeerMeta: GoJson;
}

const connectType: GoType<ConnectBody> = goStruct<ConnectBody>("structs.ServiceConnect", {
  Native: goBool,
  SidecarService: goAny,
  PeerMeta: goAny,
});

export interface AddressBody {
  readonly Address: string;
  readonly Port: number;
}

export interface WeightsBody {
  readonly Passing: number;
  readonly Warning: number;
}

export const addressesType: GoType<Readonly<Record<string, AddressBody>>> = goMap(
  goStruct<AddressBody>("structs.ServiceAddress", { Address: goString, Port: goInt }),
);
export const weightsType: GoType<WeightsBody | undefined> = goOptional(
  goStruct<WeightsBody>("structs.Weights", { Passing: goInt, Warning: goInt }),
);

export interface PortBody {
  readonly Name: string;
  readonly Port: number;
  readonly Default: boolean;
}

export const portsType: GoType<readonly PortBody[]> = goList(
  goStruct<PortBody>("structs.ServicePort", { Name: goString, Port: goInt, Default: goBool }),
);

export interface ServiceBody {
  readonly Kind: string;
  readonly ID: string;
  readonly Service: string;
  readonly Tags: readonly string[];
  readonly Address: string;
  readonly TaggedAddresses: Readonly<Record<string, AddressBody>>;
  readonly Meta: StringMap;
  readonly Port: number;
  readonly Ports: readonly PortBody[];
  readonly SocketPath: string;
  readonly Weights: WeightsBody | undefined;
  readonly EnableTagOverride: boolean;
  readonly Proxy: ProxyBody;
  readonly Connect: ConnectBody;
  readonly Locality: LocalityBody | undefined;
  readonly PeerName: string;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

export const serviceType: GoType<ServiceBody> = goStruct<ServiceBody>("structs.NodeService", {
  Kind: goString,
  ID: goString,
  Service: goString,
  Tags: goList(goString),
  Address: goString,
  TaggedAddresses: addressesType,
  Meta: goMap(goString),
  Port: goInt,
  Ports: portsType,
  SocketPath: goString,
  Weights: weightsType,
  EnableTagOverride: goBool,
  Proxy: proxyType,
  Connect: connectType,
  Locality: goOptional(localityType),
  PeerName: goString,
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
});

export interface CheckBody {
  readonly Node: string;
  readonly CheckID: string;
  readonly Name: string;
  readonly Status: string;
  readonly Notes: string;
  readonly Output: string;
  readonly ServiceID: string;
  readonly ServiceName: string;
  readonly ServiceTags: readonly string[];
  readonly Type: string;
  readonly Interval: string;
  readonly Timeout: string;
  readonly ExposedPort: number;
  readonly PeerName: string;
  readonly Definition: GoJson;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

export const checkType: GoType<CheckBody> = goStruct<CheckBody>("structs.HealthCheck", {
  Node: goString,
  CheckID: goString,
  Name: goString,
  Status: goString,
  Notes: goString,
  Output: goString,
  ServiceID: goString,
  ServiceName: goString,
  ServiceTags: goList(goString),
  Type: goString,
  Interval: goString,
  Timeout: goString,
  ExposedPort: goInt,
  PeerName: goString,
  Definition: goAny,
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
});

export interface NodeBody {
  readonly ID: string;
  readonly Node: string;
  readonly Address: string;
  readonly Datacenter: string;
  readonly PeerName: string;
  readonly TaggedAddresses: StringMap;
  readonly Meta: StringMap;
  readonly Locality: LocalityBody | undefined;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

export const nodeType: GoType<NodeBody> = goStruct<NodeBody>("structs.Node", {
  ID: goString,
  Node: goString,
  Address: goString,
  Datacenter: goString,
  PeerName: goString,
  TaggedAddresses: goMap(goString),
  Meta: goMap(goString),
  Locality: goOptional(localityType),
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
});

export interface RegisterBody {
  readonly ID: string;
  readonly Node: string;
  readonly Address: string;
  readonly TaggedAddresses: StringMap;
  readonly NodeMeta: StringMap;
  readonly Datacenter: string;
  readonly Locality: LocalityBody | undefined;
  readonly SkipNodeUpdate: boolean;
  readonly Service: ServiceBody | undefined;
  readonly Check: CheckBody | undefined;
  readonly Checks: readonly CheckBody[];
  readonly PeerName: string;
  readonly Token: string;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

export const registerType: GoType<RegisterBody> = goStruct<RegisterBody>("structs.RegisterRequest", {
  ID: goString,
  Node: goString,
  Address: goString,
  TaggedAddresses: goMap(goString),
  NodeMeta: goMap(goString),
  Datacenter: goString,
  Locality: goOptional(localityType),
  SkipNodeUpdate: goBool,
  Service: goOptional(serviceType),
  Check: goOptional(checkType),
  Checks: goList(checkType),
  PeerName: goString,
  Token: goString,
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
});

export interface DeregisterBody {
  readonly Datacenter: string;
  readonly Node: string;
  readonly ServiceID: string;
  readonly CheckID: string;
  readonly Address: string;
  readonly PeerName: string;
  readonly Token: string;
}

export const deregisterType: GoType<DeregisterBody> = goStruct<DeregisterBody>("structs.DeregisterRequest", {
  Datacenter: goString,
  Node: goString,
  ServiceID: goString,
  CheckID: goString,
  Address: goString,
  PeerName: goString,
  Token: goString,
});

/** A body of the catalog. @throws {HttpError} 400 `Request decode failed: …`. */
export async function catalogBody<T>(
  call: Call,
  type: GoType<T>,
  hint: (error: GoJsonError) => string = enterprise,
): Promise<T> {
  const body = await call.body();
  try {
    return decodeGo(body, type);
  } catch (error) {
    if (error instanceof GoJsonError) throw badRequest(`Request decode failed: ${error.message}${hint(error)}`);
    throw error;
  }
}

function enterprise({ message }: GoJsonError): string {
  const field = /^json: unknown field "(namespace|partition)"$/i.exec(message)?.[1];
  if (field === undefined) return "";
  return ` - ${field.charAt(0).toUpperCase()}${field.slice(1).toLowerCase()}s are a Consul Enterprise feature`;
}

function locality(body: LocalityBody | undefined): Locality | undefined {
  return body && { region: body.Region, zone: body.Zone };
}

/** An object as it came, or nothing. */
function objectOrAbsent(value: GoJson): JsonObject | undefined {
  if (!isGoObject(value)) return undefined;
  const plain = plainJson(value);
  return typeof plain === "object" && plain !== null && !Array.isArray(plain) ? plain : undefined;
}

/** The first letter of a key of ours is small. */
function upstream(value: GoJson): JsonObject {
  const members = Object.entries(objectOrAbsent(value) ?? {});
  return Object.fromEntries(members.map(([key, member]) => [key.charAt(0).toLowerCase() + key.slice(1), member]));
}

const kinds: ReadonlySet<string> = new Set<ServiceKind>([
  "",
  "connect-proxy",
  "mesh-gateway",
  "terminating-gateway",
  "ingress-gateway",
  "api-gateway",
  "destination",
]);

function isKind(kind: string): kind is ServiceKind {
  return kinds.has(kind);
}

/** @throws {HttpError} 500: a kind that there is not. */
export function serviceRegistration(body: ServiceBody): ServiceRegistration {
  const { Kind: kind, Proxy: proxy } = body;
  if (!isKind(kind)) throw new HttpError(500, `Invalid service kind ${JSON.stringify(kind)}`);
  const sidecar = objectOrAbsent(body.Connect.SidecarService);
  const addresses = Object.entries(body.TaggedAddresses);
  return {
    kind,
    id: body.ID,
    name: body.Service,
    tags: body.Tags,
    address: body.Address,
    port: body.Port,
    ports: body.Ports.map(({ Name: name, Port: port, Default }) => ({ name, port, default: Default })),
    socketPath: body.SocketPath,
    taggedAddresses: Object.fromEntries(
      addresses.map(([key, { Address: address, Port: port }]) => [key, { address, port }]),
    ),
    meta: body.Meta,
    weights: body.Weights && { passing: body.Weights.Passing, warning: body.Weights.Warning },
    enableTagOverride: body.EnableTagOverride,
    proxy: {
      destinationServiceName: proxy.DestinationServiceName,
      destinationServiceId: proxy.DestinationServiceID,
      localServiceAddress: proxy.LocalServiceAddress,
      localServicePort: proxy.LocalServicePort,
      localServiceSocketPath: proxy.LocalServiceSocketPath,
      mode: proxy.Mode,
      config: objectOrAbsent(proxy.Config),
      upstreams: proxy.Upstreams.map(upstream),
      meshGatewayMode: proxy.MeshGateway.Mode,
    },
    connect: { native: body.Connect.Native, sidecarService: sidecar },
    locality: locality(body.Locality),
    peerName: body.PeerName,
  };
}

export function checkRegistration(body: CheckBody): CheckRegistration {
  return {
    node: body.Node,
    checkId: body.CheckID,
    name: body.Name,
    status: body.Status,
    notes: body.Notes,
    output: body.Output,
    serviceId: body.ServiceID,
    serviceName: body.ServiceName,
    serviceTags: body.ServiceTags,
    type: body.Type,
    interval: body.Interval,
    timeout: body.Timeout,
    exposedPort: body.ExposedPort,
    definition: objectOrAbsent(body.Definition),
    peerName: body.PeerName,
  };
}

export function nodeRegistration(body: NodeBody): NodeRegistration {
  return {
    name: body.Node,
    id: body.ID,
    address: body.Address,
    datacenter: body.Datacenter,
    taggedAddresses: body.TaggedAddresses,
    meta: body.Meta,
    locality: locality(body.Locality),
    peerName: body.PeerName,
  };
}

/** @throws {HttpError} as {@link serviceRegistration}. */
export function registrationOf(body: RegisterBody): Registration {
  return {
    node: body.Node,
    id: body.ID,
    address: body.Address,
    taggedAddresses: body.TaggedAddresses,
    nodeMeta: body.NodeMeta,
    datacenter: body.Datacenter,
    locality: locality(body.Locality),
    skipNodeUpdate: body.SkipNodeUpdate,
    service: body.Service && serviceRegistration(body.Service),
    check: body.Check && checkRegistration(body.Check),
    checks: body.Checks.map(checkRegistration),
    peerName: body.PeerName,
  };
}
