// Registrations of proxies, the entries that say how they are told, and reads with `?merge-central-config`.
import type { Script, ScriptedRequest } from "./scripted.js";

type Body = Readonly<Record<string, unknown>>;

const entry = (about: string, body: Body): ScriptedRequest => ({ about, method: "PUT", path: "/v1/config", body });
const remove = (kind: string, name: string): ScriptedRequest => ({
  about: `${kind} ${name} is deleted`,
  method: "DELETE",
  path: `/v1/config/${kind}/${name}`,
});
const instance = (kind: string, id: string, proxy?: Body): ScriptedRequest => ({
  about: `${id} is registered`,
  method: "PUT",
  path: "/v1/catalog/register",
  body: {
    Node: "n1",
    Address: "10.0.0.1",
    NodeMeta: { rack: "r1" },
    Service: { Kind: kind, ID: id, Service: id, Port: 80, ...(proxy === undefined ? {} : { Proxy: proxy }) },
  },
});
const read = (about: string, path: string): ScriptedRequest => ({ about, method: "GET", path });
const MERGED = "merge-central-config";
const reads = (when: string, ...names: readonly string[]): readonly ScriptedRequest[] =>
  names.map((name) => read(`${name} ${when}`, `/v1/health/service/${name}?${MERGED}`));

const lua = (script: string): Body => ({
  Name: "builtin/lua",
  Required: true,
  Arguments: { ProxyType: "connect-proxy", Listener: "inbound", Script: script },
  ConsulVersion: ">= 1.0",
});

const everywhere: Body = {
  Kind: "proxy-defaults",
  Name: "global",
  Config: { protocol: "http", nested: { own: 1, both: 2, zero: 3 }, list: [1, 2], other: { a: [1] } },
  MeshGateway: { Mode: "local" },
  Expose: { Checks: true, Paths: [{ ListenerPort: 1, Path: "/all", LocalPathPort: 2 }] },
  TransparentProxy: { OutboundListenerPort: 15001 },
  AccessLogs: { Enabled: true, Type: "file", Path: "/tmp/access" },
  EnvoyExtensions: [lua("everywhere")],
};

const ofWeb: Body = {
  Kind: "service-defaults",
  Name: "web",
  Protocol: "grpc",
  MeshGateway: { Mode: "remote" },
  Expose: { Paths: [{ ListenerPort: 3, Path: "/web", LocalPathPort: 4, Protocol: "http2" }] },
  TransparentProxy: { DialedDirectly: true },
  MaxInboundConnections: 5,
  LocalConnectTimeoutMs: 6,
  LocalRequestTimeoutMs: 7,
  BalanceInboundConnections: "exact_balance",
  EnvoyExtensions: [lua("web")],
  UpstreamConfig: {
    Defaults: { ConnectTimeoutMs: 8, Limits: { MaxConnections: 0, MaxPendingRequests: 9 } },
    Overrides: [
      {
        Name: "db",
        Protocol: "HTTP2",
        MeshGateway: { Mode: "none" },
        PassiveHealthCheck: { Interval: 10, MaxFailures: 11, EnforcingConsecutive5xx: 0 },
      },
      { Name: "far", Peer: "west", ConnectTimeoutMs: 12, BalanceOutboundConnections: "exact_balance" },
    ],
  },
};

export const centralConfigScript: Script = {
  name: "central-config",
  rights: false,
  requests: [
    instance("connect-proxy", "plain-proxy", { DestinationServiceName: "web" }),
    instance("connect-proxy", "said-proxy", {
      DestinationServiceName: "web",
      DestinationServiceID: "web-1",
      Mode: "direct",
      MeshGateway: { Mode: "none" },
      Config: {
        protocol: "",
        nested: { both: 20, zero: 0, more: 21 },
        list: [],
        other: "text",
        max_inbound_connections: 22,
      },
      Expose: { Paths: [{ ListenerPort: 23, Path: "/own", LocalPathPort: 24 }] },
      TransparentProxy: { OutboundListenerPort: 25 },
      AccessLogs: { DisableListenerLogs: true, Path: "/tmp/own" },
      EnvoyExtensions: [{ Name: "builtin/lua", Arguments: { Script: "registered" } }],
      Upstreams: [
        { DestinationName: "db", LocalBindPort: 7001, Config: { limits: { max_connections: 1 }, protocol: "" } },
        { DestinationName: "cache", LocalBindPort: 7002, MeshGateway: { Mode: "remote" } },
        { DestinationType: "prepared_query", DestinationName: "query", LocalBindPort: 7003 },
        { DestinationName: "far", DestinationPeer: "west", LocalBindPort: 7004, Config: { protocol: "http" } },
        { DestinationName: "db", DestinationPeer: "west", LocalBindPort: 7005 },
        { DestinationName: "DB", LocalBindPort: 7006, Config: { mesh_gateway: { mode: "local" }, limits: {} } },
      ],
    }),
    instance("connect-proxy", "capital-proxy", { DestinationServiceName: "Web" }),
    instance("mesh-gateway", "gate"),
    instance("terminating-gateway", "exit", { Config: { protocol: "tcp" } }),
    instance("", "web"),
    ...reads("without entries", "plain-proxy", "said-proxy", "gate"),
    entry("proxy-defaults alone", everywhere),
    ...reads("with proxy-defaults", "plain-proxy", "said-proxy", "capital-proxy", "gate", "exit", "web"),
    entry("service-defaults of web", ofWeb),
    ...reads("with both", "plain-proxy", "said-proxy", "capital-proxy", "gate"),
    entry("service-defaults of an upstream", { Kind: "service-defaults", Name: "db", Protocol: "tcp" }),
    entry("service-defaults of a gateway", { Kind: "service-defaults", Name: "exit", Mode: "transparent" }),
    ...reads("with defaults of an upstream", "said-proxy", "exit"),
    read("who speaks for web", `/v1/health/connect/web?${MERGED}`),
    read("those told to be direct", `/v1/health/connect/web?${MERGED}&filter=Service.Proxy.Mode==direct`),
    read("the services of a node", `/v1/catalog/node-services/n1?${MERGED}`),
    read("the services of a node as they are registered", "/v1/catalog/node-services/n1"),
    read("the same by the word false", `/v1/health/service/plain-proxy?${MERGED}=false`),
    remove("proxy-defaults", "global"),
    ...reads("with service-defaults alone", "plain-proxy", "said-proxy", "exit"),
    remove("service-defaults", "web"),
    entry("transparent everywhere", {
      Kind: "proxy-defaults",
      Name: "global",
      Mode: "transparent",
      Config: { mesh_gateway: { mode: "remote" }, Protocol: "HTTP" },
    }),
    ...reads("transparent", "plain-proxy", "said-proxy", "gate"),
    entry("empty defaults of upstreams", { Kind: "service-defaults", Name: "gate", UpstreamConfig: { Defaults: {} } }),
    entry("proxy-defaults of no content", { Kind: "proxy-defaults", Name: "global", Mode: "transparent" }),
    ...reads("with empty defaults", "gate", "plain-proxy"),
  ],
};
