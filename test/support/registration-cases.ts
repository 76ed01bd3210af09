/** A registration, and where what it made is read when it is taken. */
export interface RegistrationCase {
  readonly path: string;
  readonly body: unknown;
  readonly read?: string;
}

const own = (service: object, read = "/v1/agent/service/own"): RegistrationCase => ({
  path: "/v1/agent/service/register",
  body: { ID: "own", Name: "own", Port: 1, ...service },
  read,
});
const node = (fields: object): RegistrationCase => ({
  path: "/v1/catalog/register",
  body: { Node: "n1", Address: "10.0.0.9", ...fields },
  read: "/v1/catalog/node-services/n1",
});
const service = (fields: object): RegistrationCase => node({ Service: { ID: "s", Service: "s", ...fields } });
const proxy = (fields: object): RegistrationCase =>
  service({ Kind: "connect-proxy", Port: 1, Proxy: { DestinationServiceName: "web", ...fields } });
const upstreams = (...list: object[]): RegistrationCase => proxy({ Upstreams: list });
const paths = (...list: object[]): RegistrationCase => proxy({ Expose: { Paths: list } });
const check = (fields: object): RegistrationCase => ({
  path: "/v1/catalog/register",
  body: { Node: "n2", Address: "10.0.0.9", Check: { CheckID: "c", Name: "c", ...fields } },
  read: "/v1/health/node/n2",
});
const txn = (operation: object): RegistrationCase => ({ path: "/v1/txn", body: [operation] });

const many = {
  destination_service_name: "web",
  destination_service_id: "w",
  local_service_address: "127.0.0.2",
  local_service_port: 8,
  local_service_socket_path: "/l",
  Mode: "transparent",
  mesh_gateway: { Mode: "local" },
  transparent_proxy: { OutboundListenerPort: 3, DialedDirectly: true },
  access_logs: { Enabled: true, Type: "file", Path: "/x" },
  Expose: { Checks: true, Paths: [{ listener_port: 1, local_path_port: 2, Path: "/a", Protocol: "http" }] },
  Config: { a: [1], b: { c: 1.5 } },
  Upstreams: [
    {
      destination_name: "a",
      destination_peer: "p",
      local_bind_port: 1,
      local_bind_address: "127.0.0.3",
      mesh_gateway: { Mode: "remote" },
      Config: { x: [1] },
    },
    { DestinationName: "b", local_bind_socket_path: "/s", local_bind_socket_mode: "0644", Datacenter: "dc2" },
  ],
};

export const registrationCases: readonly RegistrationCase[] = [
  service({
    Kind: "connect-proxy",
    Port: 1,
    SocketPath: "/s",
    Proxy: { ...many, EnvoyExtensions: [{ Name: "x", Arguments: { a: [1] } }] },
  }),
  own({
    Kind: "connect-proxy",
    Proxy: { ...many, Mode: "direct", mesh_gateway: {} },
    tagged_addresses: { lan: { Address: "a", Port: 2 } },
    enable_tag_override: true,
  }),
  proxy({
    DestinationServiceName: "first",
    destination_service_name: "second",
    MeshGateway: {},
    mesh_gateway: { Mode: "x" },
  }),
  ...[
    { envoy_extensions: [] },
    { MutualTLSMode: "x" },
    { TransparentProxy: { outbound_listener_port: 1 } },
    { Upstreams: [{ foo: 1 }] },
    { Expose: { Paths: [{ foo: 1 }] } },
    { AccessLogs: { Foo: 1 } },
    { MeshGateway: { Foo: 1 } },
    { EnvoyExtensions: [{ Foo: 1 }] },
    { MeshGateway: null, Upstreams: null, AccessLogs: null, Expose: null, Config: null },
  ].map(proxy),
  service({ Foo: 1 }),
  service({ Locality: { Foo: 1 } }),
  service({ Weights: { Foo: 1 } }),
  service({ TaggedAddresses: { a: { Foo: 1 } } }),
  service({ Connect: { Foo: 1 } }),
  service({ Connect: { SidecarService: { foo: 1 } } }),
  service({ Port: 1, Connect: { SidecarService: { ID: "x" } } }),
  service({ Port: 1, Connect: { Native: true, PeerMeta: { SNI: ["x"], Protocol: "tcp" } } }),
  service({ Locality: { Zone: "z" } }),
  service({ Locality: { Region: "r", Zone: "z" }, SocketPath: "/s" }),
  node({ Foo: 1 }),
  node({ Locality: { Foo: 1 } }),
  ...[
    {},
    { DestinationName: "*", LocalBindPort: 1 },
    { DestinationName: "a" },
    { DestinationName: "a", LocalBindPort: 1, LocalBindSocketPath: "x" },
    { DestinationName: "a", DestinationType: "x", LocalBindPort: 1 },
    { DestinationName: "a", DestinationPeer: "p", Datacenter: "d", LocalBindPort: 1 },
    { DestinationName: "*", CentrallyConfigured: true },
  ].map((upstream) => upstreams(upstream)),
  upstreams({ DestinationName: "a", LocalBindPort: 1 }, { DestinationName: "a", LocalBindPort: 2 }),
  upstreams({ DestinationName: "a", LocalBindPort: 1 }, { DestinationName: "b", LocalBindPort: 1 }),
  upstreams({ DestinationName: "a", LocalBindSocketPath: "/x" }, { DestinationName: "b", LocalBindSocketPath: "/x" }),
  paths({ ListenerPort: 0 }),
  paths({ Path: "x", ListenerPort: 70_000 }),
  paths({ Path: "/x", ListenerPort: 3 }, { Path: "/y", ListenerPort: 3 }),
  proxy({ Config: { envoy_hcp_metrics_bind_socket_dir: "a".repeat(71) } }),
  proxy({ Config: { envoy_hcp_metrics_bind_socket_dir: "a".repeat(70) } }),
  own({ Foo: 1 }),
  own(
    {
      Connect: {
        sidecar_service: {
          Proxy: {
            Upstreams: [{ DestinationName: "a", LocalBindPort: 3 }],
            TransparentProxy: { DialedDirectly: true },
          },
        },
        foo: 1,
      },
    },
    "/v1/agent/service/own-sidecar-proxy",
  ),
  own({ Connect: { SidecarService: { foo: 1 } } }),
  own({
    Locality: { Region: "r" },
    Weights: { Passing: 2, Warning: 0 },
    SocketPath: "/s",
    TaggedAddresses: { wan: { Address: "b" } },
  }),
  own({ Kind: "connect-proxy", Proxy: { DestinationServiceName: "w", Upstreams: [{ DestinationName: "a" }] } }),
  check({ Foo: 1 }),
  check({
    Definition: {
      Foo: 1,
      HTTP: "http://x",
      Interval: "10s",
      Timeout: 5_000_000_000,
      TTL: "3s",
      Header: { a: ["b"] },
      OutputMaxSize: 3,
      tls_skip_verify: true,
    },
  }),
  check({ Definition: { Interval: "abc" } }),
  check({ Definition: { Interval: true, GRPC: "a" }, Interval: "3s", ExposedPort: 3 }),
  check({
    Type: "mine",
    Definition: { TCP: "a", DeregisterCriticalServiceAfter: "1m", ScriptArgs: ["a"], SessionName: "s" },
  }),
  ...[
    { TTL: "3s" },
    { UDP: "a" },
    { UDP: "a", Interval: "1s" },
    { HTTP: "a", TCP: "b", Interval: "1s" },
    { H2PING: "a", Interval: "1s" },
    { DockerContainerID: "a", ScriptArgs: ["a"], Interval: "1s" },
    { AliasNode: "a" },
    { AliasService: "a" },
    { H2PING: "a" },
    { OSService: "a" },
    { DockerContainerID: "a", Shell: "s", ScriptArgs: ["a"] },
    { ScriptArgs: ["a"], HTTP: "" },
    {},
  ].map((Definition) => check({ Definition })),
  txn({ Foo: {} }),
  txn({ Service: { Verb: "set", Node: "n1", Foo: 1, Service: { Service: "s" } } }),
  txn({ Service: { Verb: "set", Node: "n1", Service: { Service: "s", Foo: 1 } } }),
  txn({ Service: { Verb: "set", Node: "n1", Service: { Service: "s", Proxy: { Foo: 1 } } } }),
  txn({ Node: { Verb: "set", Node: { Node: "n1", Foo: 1 } } }),
  txn({ Check: { Verb: "set", Check: { Node: "n1", CheckID: "c", Foo: 1 } } }),
  // A missing list, invalid indexes, and the rules of the mesh for kinds besides proxies.
  { ...node({ Node: "n3", CreateIndex: 0 }), read: "/v1/catalog/node-services/n3" },
  ...[-1, 1.5, 18_446_744_073_709_552_000, "1", true].map((index) => node({ CreateIndex: index })),
  service({ ModifyIndex: -1 }),
  ...["api-gateway", "ingress-gateway", "mesh-gateway", "terminating-gateway"].map((Kind) =>
    own({ Kind, Connect: { SidecarService: {} } }),
  ),
  own({ Connect: { SidecarService: { ID: "mine" } } }),
  own({ Connect: { SidecarService: { Connect: { SidecarService: {} } } } }),
  ...["", "api-gateway", "ingress-gateway", "mesh-gateway"].flatMap((Kind) => [
    service({ Kind, Connect: { Native: true } }),
    service({ Kind, Connect: { Native: true }, SocketPath: "/s" }),
    own({ Kind, Port: 0, Connect: { Native: true } }),
  ]),
];
