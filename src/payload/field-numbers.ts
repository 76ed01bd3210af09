/**
 * The numbers of the fields that we write or read of a service, by message, under the names of `proto/` (packages
 * hashicorp.consul.internal.peerstream, .service and .common). They are what reading and writing by hand share, because
 * the generated code takes several times as long for each instance; the generated schemas stay the oracle of the tests.
 */
export const Field = {
  ExportedService: { Nodes: 1 },
  CheckServiceNode: { Node: 1, Service: 2, Checks: 3 },
  Node: {
    ID: 1,
    Node: 2,
    Address: 3,
    Datacenter: 4,
    TaggedAddresses: 5,
    Meta: 6,
    Partition: 8,
    PeerName: 9,
    Locality: 10,
  },
  NodeService: {
    Kind: 1,
    ID: 2,
    Service: 3,
    Tags: 4,
    Address: 5,
    Meta: 6,
    Port: 7,
    Weights: 8,
    EnableTagOverride: 9,
    Proxy: 11,
    Connect: 12,
    TaggedAddresses: 15,
    EnterpriseMeta: 16,
    SocketPath: 17,
    PeerName: 18,
    Locality: 19,
    Ports: 20,
  },
  HealthCheck: {
    Node: 1,
    CheckID: 2,
    Name: 3,
    Status: 4,
    Notes: 5,
    Output: 6,
    ServiceID: 7,
    ServiceName: 8,
    ServiceTags: 9,
    Type: 12,
    EnterpriseMeta: 13,
    ExposedPort: 14,
    Interval: 15,
    Timeout: 16,
    PeerName: 17,
  },
  ConnectProxyConfig: {
    DestinationServiceName: 1,
    DestinationServiceID: 2,
    LocalServiceAddress: 3,
    LocalServicePort: 4,
    Config: 5,
    MeshGateway: 7,
    Mode: 9,
    LocalServiceSocketPath: 11,
  },
  MeshGatewayConfig: { Mode: 1 },
  ServiceConnect: { Native: 1, PeerMeta: 4 },
  PeeringServiceMeta: { SNI: 1, SpiffeID: 2, Protocol: 3 },
  ServiceAddress: { Address: 1, Port: 2 },
  ServicePort: { Port: 1, Name: 2, Default: 3 },
  Weights: { Passing: 1, Warning: 2 },
  Locality: { Region: 1, Zone: 2 },
} as const;

/** An entry of any map. */
export const MapEntry = { Key: 1, Value: 2 } as const;

/** Of google.protobuf: JSON of any form. */
export const Struct = { Fields: 1 } as const;
export const StructValue = { Null: 1, Number: 2, Text: 3, Flag: 4, Struct: 5, List: 6 } as const;
export const StructList = { Values: 1 } as const;
