import type { Script, ScriptedRequest } from "./scripted.js";

const CHAIN = "/v1/discovery-chain";

function entry(body: {
  readonly Kind: string;
  readonly Name: string;
  readonly [field: string]: unknown;
}): ScriptedRequest {
  return { about: `${body.Kind} ${body.Name}`, method: "PUT", path: "/v1/config", body };
}

function http(...names: readonly string[]): readonly ScriptedRequest[] {
  return names.map((Name) => entry({ Kind: "service-defaults", Name, Protocol: "http" }));
}

function chain(name: string, query = ""): ScriptedRequest {
  return { about: `chain of ${name}${query}`, method: "GET", path: `${CHAIN}/${name}${query}` };
}

function overridden(name: string, body: unknown, query = ""): ScriptedRequest {
  const about = `chain of ${name}${query} with ${typeof body === "string" ? body : JSON.stringify(body)}`;
  return { about, method: "POST", path: `${CHAIN}/${name}${query}`, body };
}

const resolver = (Name: string, fields: object): ScriptedRequest =>
  entry({ Kind: "service-resolver", Name, ...fields });
const splitter = (Name: string, ...Splits: readonly object[]): ScriptedRequest =>
  entry({ Kind: "service-splitter", Name, Splits });
const router = (Name: string, ...Routes: readonly object[]): ScriptedRequest =>
  entry({ Kind: "service-router", Name, Routes });

/** Entries of chains, and the chains that Consul compiles of them. Each set of entries has names of its own. */
export const chainScript: Script = {
  name: "discovery-chains",
  rights: false,
  requests: [
    chain("nothing"),
    chain("nothing", "?compile-dc=dc9"),
    chain(""),
    chain("nothing", "?ns=team"),
    chain("nothing", "?partition=team"),
    chain("a%2Fb"),
    { about: "no such method", method: "PUT", path: `${CHAIN}/nothing` },

    // Virtual addresses.
    {
      about: "a sidecar of vip",
      method: "PUT",
      path: "/v1/catalog/register",
      body: {
        Node: "n1",
        Address: "10.0.0.1",
        Service: {
          Kind: "connect-proxy",
          Service: "vip-sidecar-proxy",
          Port: 1,
          Proxy: { DestinationServiceName: "vip" },
        },
      },
    },
    chain("vip"),
    {
      about: "an address that an operator gives to vip",
      method: "PUT",
      path: "/v1/internal/service-virtual-ip",
      body: { Service: "vip", ManualVIPs: ["10.9.9.9"] },
    },
    chain("vip"),

    // Service-defaults.
    entry({ Kind: "service-defaults", Name: "def1", Protocol: "grpc", Meta: { team: "x" } }),
    chain("def1"),
    entry({
      Kind: "service-defaults",
      Name: "def2",
      MeshGateway: { Mode: "local" },
      TransparentProxy: { DialedDirectly: true, OutboundListenerPort: 1234 },
      EnvoyExtensions: [
        { Name: "builtin/lua", Arguments: { ProxyType: "connect-proxy", Listener: "inbound", Script: "x" } },
      ],
    }),
    chain("def2"),
    entry({ Kind: "service-defaults", Name: "ext", ExternalSNI: "sni.example.com", MeshGateway: { Mode: "remote" } }),
    chain("ext"),
    resolver("ext", { Redirect: { Service: "def1" } }),
    resolver("ext", { Subsets: { v1: {} } }),
    resolver("ext", { Failover: { "*": { Service: "def2" } } }),
    resolver("ext", { ConnectTimeout: "3s" }),
    chain("ext"),

    // Redirects.
    resolver("r1", { Redirect: { Service: "r2" } }),
    resolver("r2", { Redirect: { Service: "r3" } }),
    resolver("r3", { Redirect: { Service: "r1" } }),
    resolver("r3", { Redirect: { Service: "r3" } }),
    resolver("r3", { ConnectTimeout: "1m30s", RequestTimeout: "250ms" }),
    chain("r1"),
    chain("r3"),
    resolver("rd", { Redirect: { Datacenter: "dc2" } }),
    chain("rd"),
    chain("rd", "?compile-dc=dc2"),
    resolver("rp", { Redirect: { Service: "far", Peer: "west" } }),
    chain("rp"),
    resolver("rself", { Redirect: { Service: "rself", Peer: "west" } }),
    chain("rself"),
    resolver("rsub", {
      Subsets: { v1: { Filter: 'Service.Meta.v == "1"' }, v2: { OnlyPassing: true } },
      DefaultSubset: "v1",
    }),
    chain("rsub"),
    resolver("rtosub", { Redirect: { Service: "rsub", ServiceSubset: "v2" } }),
    chain("rtosub"),
    resolver("rtonone", { Redirect: { Service: "rsub", ServiceSubset: "v3" } }),
    resolver("rbare", {}),
    chain("rbare"),
    resolver("rmeta", { Meta: { a: "b" } }),
    chain("rmeta"),
    resolver("rsame", { Redirect: { SamenessGroup: "g" } }),
    resolver("rdefpeer", { Subsets: { v1: {} }, DefaultSubset: "v1", Redirect: { Service: "rdefpeer", Peer: "west" } }),
    chain("rdefpeer"),

    // Failover.
    resolver("f1", { Failover: { "*": { Service: "f2" } } }),
    resolver("f2", { Failover: { "*": { Service: "f3" } } }),
    chain("f1"),
    resolver("f4", { Failover: { "*": { Datacenters: ["dc2", "dc3", "dc1"] } } }),
    chain("f4"),
    resolver("f5", {
      ConnectTimeout: "7s",
      Failover: {
        "*": {
          Targets: [
            { Service: "f6" },
            { Peer: "west" },
            { Service: "far", Peer: "east" },
            { Datacenter: "dc2" },
            { Service: "rsub", ServiceSubset: "v2" },
            { Service: "f5" },
          ],
        },
      },
    }),
    resolver("f6", { Redirect: { Service: "f7" }, ConnectTimeout: "8s" }),
    resolver("f7", { ConnectTimeout: "9s", Failover: { "*": { Service: "f8" } } }),
    chain("f5"),
    resolver("f9", {
      Subsets: { v1: {}, v2: {} },
      DefaultSubset: "v1",
      Failover: { v1: { ServiceSubset: "v2" }, "*": { Service: "f8" } },
    }),
    chain("f9"),
    resolver("f10", { Subsets: { v1: {} }, DefaultSubset: "v1", Failover: { "*": { Targets: [{ Peer: "west" }] } } }),
    chain("f10"),
    resolver("f11", { Failover: { "*": { SamenessGroup: "g" } } }),
    resolver("f11", { Failover: { "*": { Targets: [{ SamenessGroup: "g" }] } } }),
    resolver("f12", { Failover: { "*": { Service: "f12" } } }),
    chain("f12"),
    resolver("f13", {
      LoadBalancer: {
        Policy: "ring_hash",
        RingHashConfig: { MinimumRingSize: 10 },
        HashPolicies: [{ SourceIP: true }],
      },
    }),
    chain("f13"),

    // Protocols, splitters and routers.
    splitter("t1", { Weight: 100, Service: "t2" }),
    router("t1"),
    ...http("s1", "s2", "s3", "s4"),
    splitter("s1", { Weight: 90 }, { Weight: 10, Service: "s2" }),
    chain("s1"),
    splitter("s2", { Weight: 33.33, Service: "s3" }, { Weight: 66.67, Service: "s4" }),
    chain("s1"),
    chain("s2"),
    splitter("s3", { Weight: 50, Service: "s1" }, { Weight: 50 }),
    splitter("s3", { Weight: 50, Service: "s2" }, { Weight: 50 }),
    splitter("s4", { Weight: 99.99 }, { Weight: 0.01, Service: "s3" }),
    chain("s1"),
    splitter("s1", { Weight: 50, Service: "def2" }, { Weight: 50 }),
    ...http("h1", "h2", "h3"),
    splitter(
      "h1",
      { Weight: 50, Service: "h2", RequestHeaders: { Set: { a: "1", b: "1" }, Add: { e: "1" }, Remove: ["x"] } },
      { Weight: 50, Service: "h3", ResponseHeaders: { Set: { a: "1" }, Add: { b: "1" }, Remove: ["y"] } },
    ),
    splitter(
      "h2",
      { Weight: 60, RequestHeaders: { Set: { b: "2" }, Add: { c: "2" }, Remove: ["x", "z"] } },
      { Weight: 40, Service: "h3", ResponseHeaders: { Set: { a: "2" } } },
    ),
    chain("h1"),
    ...http("lb1", "lb2", "lb3"),
    resolver("lb2", { LoadBalancer: { Policy: "maglev" } }),
    resolver("lb3", { LoadBalancer: { Policy: "least_request", LeastRequestConfig: { ChoiceCount: 3 } } }),
    splitter("lb1", { Weight: 50, Service: "lb3" }, { Weight: 50, Service: "lb2" }),
    chain("lb1"),
    entry({ Kind: "service-defaults", Name: "g1", Protocol: "grpc" }),
    entry({ Kind: "service-defaults", Name: "virt", Protocol: "http" }),
    splitter("virt", { Weight: 100, Service: "g1" }),
    chain("virt"),
    splitter("split-subsets", { Weight: 50, ServiceSubset: "v1" }, { Weight: 50, ServiceSubset: "v2" }),
    ...http("sub"),
    resolver("sub", { Subsets: { v1: {}, v2: {} } }),
    splitter("sub", { Weight: 50, ServiceSubset: "v1" }, { Weight: 50, ServiceSubset: "v2" }),
    chain("sub"),
    ...http("ro1", "ro2", "ro3"),
    resolver("ro3", { Subsets: { v2: {} } }),
    splitter("ro2", { Weight: 50 }, { Weight: 50, Service: "ro3" }),
    router(
      "ro1",
      { Match: { HTTP: { PathExact: "/exact", CaseInsensitive: true } }, Destination: { Service: "ro2" } },
      {
        Match: { HTTP: { PathPrefix: "/prefix", Methods: ["get", "PUT"] } },
        Destination: { Service: "ro3", ServiceSubset: "v2" },
      },
      { Match: { HTTP: { PathRegex: "/re.*" } } },
      {
        Match: {
          HTTP: {
            Header: [
              { Name: "a", Present: true },
              { Name: "b", Exact: "x", Invert: true },
              { Name: "c", Prefix: "x" },
              { Name: "d", Suffix: "x" },
              { Name: "e", Regex: "x" },
            ],
          },
        },
        Destination: {
          PrefixRewrite: "",
          RequestTimeout: "10s",
          IdleTimeout: "1m",
          NumRetries: 3,
          RetryOnConnectFailure: true,
          RetryOn: ["reset"],
          RetryOnStatusCodes: [503],
          RequestHeaders: { Set: { a: "b" } },
          ResponseHeaders: { Remove: ["a"] },
        },
      },
      {
        Match: {
          HTTP: {
            PathPrefix: "/q",
            QueryParam: [
              { Name: "a", Present: true },
              { Name: "b", Exact: "x" },
              { Name: "c", Regex: "x" },
            ],
          },
        },
        Destination: { PrefixRewrite: "/" },
      },
      { Destination: { Service: "ro1" } },
      {},
    ),
    chain("ro1"),
    router("ro2", { Destination: { Service: "ro1" } }),
    chain("ro2"),
    router("ro3"),
    chain("ro3"),
    router("ro3", { Destination: { Service: "def2" } }),
    router("ro3", { Destination: { Service: "ro1", ServiceSubset: "none" } }),

    // Proxy-defaults.
    entry({
      Kind: "proxy-defaults",
      Name: "global",
      Config: { protocol: "http" },
      MeshGateway: { Mode: "remote" },
      TransparentProxy: { DialedDirectly: true },
      EnvoyExtensions: [{ Name: "builtin/aws/lambda", Arguments: { ARN: "arn:aws:lambda:us-east-1:1:function:f" } }],
    }),
    chain("nothing"),
    chain("def1"),
    chain("def2"),
    chain("rp"),
    chain("f5"),

    // Overrides.
    overridden("nothing", {}),
    overridden("nothing", { OverrideConnectTimeout: "8s" }),
    overridden("nothing", { OverrideConnectTimeout: "5s" }),
    overridden("nothing", { OverrideConnectTimeout: 8_000_000_000 }),
    overridden("nothing", { OverrideProtocol: "tcp" }),
    overridden("nothing", { OverrideProtocol: "http" }),
    overridden("nothing", { OverrideProtocol: "grpc" }),
    overridden("nothing", { OverrideProtocol: "HTTP" }),
    overridden("nothing", { OverrideMeshGateway: { Mode: "local" } }),
    overridden("nothing", { OverrideMeshGateway: { Mode: "remote" } }),
    overridden("nothing", { OverrideMeshGateway: { Mode: "none" } }),
    overridden("nothing", { OverrideMeshGateway: { Mode: "nope" } }),
    overridden("nothing", {
      override_mesh_gateway: { mode: "local" },
      override_protocol: "tcp",
      override_connect_timeout: "1s",
    }),
    overridden("nothing", {
      OverrideProtocol: "grpc",
      OverrideMeshGateway: { Mode: "local" },
      OverrideConnectTimeout: "6s",
    }),
    overridden("ro1", { OverrideProtocol: "tcp" }),
    overridden("ro1", { OverrideProtocol: "http2" }),
    overridden("s1", { OverrideProtocol: "tcp" }),
    overridden("ext", { OverrideMeshGateway: { Mode: "local" } }),
    overridden("f5", { OverrideConnectTimeout: "9s" }, "?compile-dc=dc2"),
    overridden("nothing", "{"),
    overridden("nothing", ""),
    overridden("nothing", "[]"),
    overridden("nothing", { Nope: 1 }),
    overridden("nothing", { OverrideProtocol: 5 }),
    overridden("nothing", { OverrideConnectTimeout: "soon" }),
    overridden("nothing", { OverrideMeshGateway: "local" }),
    overridden("nothing", { OverrideMeshGateway: [{ Mode: "local" }] }),
    overridden("", {}),

    // Circles are refused, wherever they are closed.
    ...http("c1", "c2", "c3"),
    splitter("c1", { Weight: 50, Service: "c2" }, { Weight: 50 }),
    splitter("c2", { Weight: 50, Service: "c3" }, { Weight: 50 }),
    splitter("c3", { Weight: 50, Service: "c1" }, { Weight: 50 }),
    resolver("c3", { Redirect: { Service: "c1" } }),
    resolver("c1", { Redirect: { Service: "c3" } }),
    chain("c1"),
  ],
};

/** Who may read which chain. */
export const chainRightsScript: Script = {
  name: "discovery-chain-rights",
  rights: true,
  requests: [
    resolver("web", { Redirect: { Service: "db" } }),
    ...["", 'service "web" { policy = "read" }', 'service "db" { policy = "read" }'].flatMap((rules) =>
      [chain("web"), chain("db"), overridden("web", { OverrideConnectTimeout: "8s" })].map((each) => ({
        ...each,
        about: `${rules === "" ? "nobody" : rules}: ${each.about}`,
        rules,
      })),
    ),
  ],
};
