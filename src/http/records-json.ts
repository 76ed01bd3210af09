import type { Connect, Locality, Proxy as ProxyDefinition, ServiceAddress, ServicePort } from "../model/instance.js";
import { checkDefinitionShape, proxyShape, type Shape, sidecarShape } from "../model/shapes.js";
import type { IndexedCheck, IndexedNode, IndexedService } from "../stores/catalog.js";
import { type Json, LazyList, textMapOrAbsent } from "./json.js";
import { structJson } from "./shape-json.js";

/** A node, and the peer it was imported from; `""` for our own. */
export interface NodeView {
  readonly peer: string;
  readonly node: IndexedNode;
}

export interface ServiceView {
  readonly peer: string;
  readonly service: IndexedService;
}

export interface CheckView {
  readonly peer: string;
  readonly check: IndexedCheck;
}

/** One instance with its node and the checks of both. */
export interface InstanceView extends NodeView, ServiceView {
  readonly checks: readonly IndexedCheck[];
}

/** A Go struct: undefined members are left out. */
export type JsonStruct = { readonly [key: string]: Json | undefined };

// As Consul 1.21: members in its order; a member that it leaves out when empty is undefined here.

export function localityJson(locality: Locality | undefined): Json | undefined {
  return locality && { Region: locality.region || undefined, Zone: locality.zone || undefined };
}

export function addressesJson(addresses: Readonly<Record<string, ServiceAddress>>): Json | undefined {
  const entries = Object.entries(addresses);
  if (entries.length === 0) return undefined;
  return new Map(entries.map(([key, { address, port }]) => [key, { Address: address, Port: port }]));
}

/** Consul 1.22 and later. Left out unless there are any, so that the records are those of Consul 1.21 then. */
export function portsJson(ports: readonly ServicePort[] | undefined): Json | undefined {
  return ports?.map(({ name, port, default: isDefault }) => ({ Name: name, Port: port, Default: isDefault }));
}

const noProxy = structJson({}, proxyShape);

/** @param shape - as the catalog prints it, or an agent. */
export function proxyJson(proxy: ProxyDefinition | undefined, shape: Shape = proxyShape): JsonStruct {
  if (proxy === undefined) return shape === proxyShape ? noProxy : structJson({}, shape);
  const { destinationServiceId, meshGatewayMode, ...rest } = proxy;
  const own = { ...rest, destinationServiceID: destinationServiceId, meshGateway: { mode: meshGatewayMode } };
  return structJson(own, shape);
}

export function connectJson(connect: Connect | undefined): Json {
  const meta = connect?.peerMeta;
  return {
    Native: connect?.native || undefined,
    SidecarService: connect?.sidecarService && structJson(connect.sidecarService, sidecarShape, "consul"),
    PeerMeta: meta && {
      SNI: meta.sni.length === 0 ? undefined : meta.sni,
      SpiffeID: meta.spiffeId.length === 0 ? undefined : meta.spiffeId,
      Protocol: meta.protocol || undefined,
    },
  };
}

/** Consul's `Node`. */
export function nodeJson({ peer, node }: NodeView): Json {
  return {
    ID: node.id,
    Node: node.name,
    Address: node.address,
    Datacenter: node.datacenter,
    PeerName: peer || undefined,
    TaggedAddresses: textMapOrAbsent(node.taggedAddresses) ?? null,
    Meta: textMapOrAbsent(node.meta) ?? null,
    Locality: localityJson(node.locality),
    CreateIndex: node.createIndex,
    ModifyIndex: node.modifyIndex,
  };
}

/** Consul's `NodeService`. `Port` is the default one of several everywhere; in Consul 1.22 only where instances are listed. */
export function serviceJson({ peer, service }: ServiceView): JsonStruct {
  return {
    Kind: service.kind || undefined,
    ID: service.id,
    Service: service.name,
    Tags: service.tags,
    Address: service.address,
    TaggedAddresses: addressesJson(service.taggedAddresses),
    Meta: textMapOrAbsent(service.meta) ?? null,
    Port: service.port || undefined,
    Ports: portsJson(service.ports),
    SocketPath: service.socketPath || undefined,
    Weights: { Passing: service.weights.passing, Warning: service.weights.warning },
    EnableTagOverride: service.enableTagOverride,
    Locality: localityJson(service.locality),
    Proxy: proxyJson(service.proxy),
    Connect: connectJson(service.connect),
    PeerName: peer,
    CreateIndex: service.createIndex,
    ModifyIndex: service.modifyIndex,
  };
}

/** Consul's `HealthCheck`. */
export function checkJson({ peer, check }: CheckView): JsonStruct {
  return {
    Node: check.node,
    CheckID: check.checkId,
    Name: check.name,
    Status: check.status,
    Notes: check.notes,
    Output: check.output,
    ServiceID: check.serviceId,
    ServiceName: check.serviceName,
    ServiceTags: check.serviceTags,
    Type: check.type,
    Interval: check.interval,
    Timeout: check.timeout,
    ExposedPort: check.exposedPort,
    PeerName: peer || undefined,
    Definition: structJson(check.definition, checkDefinitionShape, "consul"),
    CreateIndex: check.createIndex,
    ModifyIndex: check.modifyIndex,
  };
}

/** Consul's `CheckServiceNode`. */
export function instanceJson(view: InstanceView): Json {
  const { peer, checks } = view;
  return {
    Node: nodeJson(view),
    Service: serviceJson(view),
    Checks: LazyList.of(checks, (check) => checkJson({ peer, check })),
  };
}

/** Consul's `ServiceNode`: an instance with its node in one flat object. */
export function flatJson({ peer, node, service }: NodeView & ServiceView): Json {
  return {
    ID: node.id,
    Node: node.name,
    Address: node.address,
    Datacenter: node.datacenter,
    TaggedAddresses: textMapOrAbsent(node.taggedAddresses) ?? null,
    NodeMeta: textMapOrAbsent(node.meta) ?? null,
    ServiceKind: service.kind,
    ServiceID: service.id,
    ServiceName: service.name,
    ServiceTags: service.tags,
    ServiceAddress: service.address,
    ServiceTaggedAddresses: addressesJson(service.taggedAddresses),
    ServiceWeights: { Passing: service.weights.passing, Warning: service.weights.warning },
    ServiceMeta: textMapOrAbsent(service.meta) ?? {},
    ServicePort: service.port,
    ServicePorts: portsJson(service.ports),
    ServiceSocketPath: service.socketPath,
    ServiceEnableTagOverride: service.enableTagOverride,
    ServiceProxy: proxyJson(service.proxy),
    ServiceConnect: connectJson(service.connect),
    ServiceLocality: localityJson(service.locality) ?? null,
    PeerName: peer || undefined,
    CreateIndex: service.createIndex,
    ModifyIndex: service.modifyIndex,
  };
}
