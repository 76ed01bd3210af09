import { readGolden } from "../golden/read.js";

/** A request of a recording: a write, unless it says otherwise; after a write that is taken, the entry is read. */
export interface ConfigCase {
  readonly method?: "GET" | "PUT" | "DELETE";
  readonly path?: string;
  readonly body?: unknown;
}

interface Pair {
  readonly Certificate: string;
  readonly PrivateKey: string;
}

const pairs: Readonly<Record<"ec" | "other" | "host" | "rsa" | "small", Pair>> = JSON.parse(
  readGolden("config-entries/certificates.json"),
);

const write = (kind: string, fields: object, name = "x"): ConfigCase => ({
  body: kind === "mesh" ? { Kind: kind, ...fields } : { Kind: kind, Name: name, ...fields },
});
const get = (path: string): ConfigCase => ({ method: "GET", path });
const remove = (path: string): ConfigCase => ({ method: "DELETE", path });

const ingress = (listener: object, rest: object = {}): ConfigCase =>
  write(
    "ingress-gateway",
    { Listeners: [{ Port: 80, Protocol: "tcp", Services: [{ Name: "s" }], ...listener }], ...rest },
    "in",
  );
const listener = (fields: object, ...more: object[]): ConfigCase =>
  write("api-gateway", { Listeners: [{ Name: "a", Port: 80, Protocol: "http", ...fields }, ...more] });
const rule = (fields: object): ConfigCase => write("http-route", { Rules: [{ Matches: [fields] }] });
const jwt = (fields: object): ConfigCase =>
  write("jwt-provider", { JSONWebKeySet: { Local: { Filename: "/keys" } }, ...fields });
const keys = (set: object): ConfigCase => write("jwt-provider", { JSONWebKeySet: set });
const cluster = (fields: object): ConfigCase => keys({ Remote: { URI: "https://a/k", JWKSCluster: fields } });
const tls = (fields: object): ConfigCase => write("mesh", { TLS: { Incoming: fields } });
const upstream = (fields: object): ConfigCase =>
  write("service-defaults", { UpstreamConfig: { Overrides: [{ Name: "u", ...fields }] } });
const balancer = (fields: object): ConfigCase => write("service-resolver", { LoadBalancer: fields });
const http = (fields: object, destination?: object): ConfigCase =>
  write("service-router", {
    Routes: [{ Match: { HTTP: fields }, ...(destination === undefined ? {} : { Destination: destination }) }],
  });

const KINDS = [
  "api-gateway",
  "bound-api-gateway",
  "control-plane-request-limit",
  "file-system-certificate",
  "http-route",
  "ingress-gateway",
  "inline-certificate",
  "jwt-provider",
  "mesh",
  "proxy-defaults",
  "rate-limit",
  "sameness-group",
  "service-defaults",
  "tcp-route",
  "terminating-gateway",
  "nope",
];

export const configCases: readonly ConfigCase[] = [
  ...KINDS.flatMap((kind) => [
    get(`/v1/config/${kind}`),
    get(`/v1/config/${kind}/none`),
    remove(`/v1/config/${kind}/none`),
  ]),
  write("control-plane-request-limit", {}),
  write("rate-limit", {}),
  write("nope", {}),
  write("sameness-group", { Members: [{ Peer: "p" }] }),
  write("bound-api-gateway", {}),

  // Ingress gateways.
  ingress({}),
  ingress({ Protocol: "" }),
  ingress({ Protocol: "udp" }),
  ingress({ Services: [] }),
  ingress({ Services: [{ Name: "a" }, { Name: "b" }] }),
  ingress({ Services: [{ Name: "*" }] }),
  ingress({ Services: [{ Name: "" }] }),
  ingress({ Services: [{ Name: "a", Hosts: ["h"] }] }),
  ingress({ Services: [{ Name: "a", RequestHeaders: { Add: { a: "b" } } }] }),
  ingress({ Services: [{ Name: "a", ResponseHeaders: { Remove: ["b"] } }] }),
  ingress({ Protocol: "HTTP", Services: [{ Name: "*" }] }),
  ingress({ Protocol: "http", Services: [{ Name: "s" }] }),
  ingress({ Protocol: "http", Services: [{ Name: "*", Hosts: ["h"] }] }),
  ingress({ Protocol: "http", Services: [{ Name: "a" }, { Name: "a" }] }),
  ingress({ Protocol: "http", Services: [{ Name: "a", Hosts: ["h", "h"] }] }),
  ingress({ Protocol: "http", Services: [{ Name: "a", Hosts: ["a..b"] }] }),
  ingress({ Protocol: "http", Services: [{ Name: "a", Hosts: ["a.*.b"] }] }),
  ingress({ Protocol: "http", Services: [{ Name: "a", Hosts: ["*"] }] }, { TLS: { Enabled: true } }),
  ingress({ TLS: { TLSMinVersion: "TLSv1_3", TLSMaxVersion: "TLSv1_2" } }),
  ingress({ TLS: { TLSMinVersion: "x" } }),
  ingress({ TLS: { TLSMinVersion: "TLSv1_3", CipherSuites: ["TLS_RSA_WITH_AES_128_CBC_SHA"] } }),
  ingress({ TLS: { CipherSuites: ["a", "b"] } }),
  ingress({}, { TLS: { SDS: { CertResource: "r" } } }),
  ingress({}, { TLS: { SDS: { ClusterName: "c" } } }),
  ingress({ TLS: { SDS: { ClusterName: "c" } } }),
  ingress({ TLS: { SDS: { CertResource: "r" } } }),
  ingress({ Services: [{ Name: "a", TLS: { SDS: { CertResource: "r" } } }] }),
  write("ingress-gateway", {
    Listeners: [
      { Port: 1, Services: [{ Name: "a" }] },
      { Port: 1, Services: [{ Name: "b" }] },
    ],
  }),
  write("ingress-gateway", {}, ""),
  {
    body: {
      kind: "ingress-gateway",
      name: "snake",
      tls: { enabled: true, tls_min_version: "TLSv1_2", cipher_suites: ["TLS_RSA_WITH_AES_128_CBC_SHA"] },
      listeners: [
        {
          port: "8080",
          services: {
            name: "s",
            max_connections: 3,
            passive_health_check: { interval: "10s", enforcing_consecutive_5xx: 0, base_ejection_time: 0 },
          },
        },
      ],
      defaults: { passive_health_check: { max_failures: 7 } },
    },
  },
  ingress({ Services: [{ Name: "a", nope: 1 }], nope: 2 }, { defaults: { max_connections: 1 } }),
  ingress({}, { Nope: { a: 1 } }),
  write("terminating-gateway", { Services: [{ Name: "s" }] }, "in"),

  // Terminating gateways.
  write("terminating-gateway", {
    Services: [
      { Name: "a", CAFile: "ca", CertFile: "c", KeyFile: "k", SNI: "s", DisableAutoHostRewrite: true },
      { Name: "*" },
    ],
    Meta: { a: "b" },
  }),
  write("terminating-gateway", { Services: [{ Name: "a", CertFile: "c" }] }),
  write("terminating-gateway", { Services: [{ Name: "a", KeyFile: "c", CAFile: "d" }] }),
  write("terminating-gateway", { Services: [{ Name: "" }] }),
  write("terminating-gateway", { Services: [{ Name: "a" }, { Name: "a" }] }),
  write("terminating-gateway", { services: [{ name: "a", ca_file: "ca", disable_auto_host_rewrite: true }] }),
  write("ingress-gateway", { Listeners: [{ Port: 1, Services: [{ Name: "a" }] }] }),

  // Gateways for APIs, and their routes.
  listener({}),
  listener({ Name: "" }),
  listener({ Name: "A" }),
  listener({}, { Name: "a", Port: 81, Protocol: "http" }),
  listener({}, { Name: "b", Port: 80, Protocol: "tcp" }),
  listener({ Protocol: "udp" }),
  listener({ Protocol: "TCP" }),
  listener({ Protocol: "tcp", Hostname: "a" }),
  listener({ Port: 0 }),
  listener({ Hostname: "a.*.b" }),
  listener({ Hostname: "*.b" }),
  listener({
    TLS: { Certificates: [{ Name: "c" }, { Kind: "file-system-certificate", Name: "d", SectionName: "s" }] },
  }),
  listener({ TLS: { Certificates: [{ Kind: "nope", Name: "c" }] } }),
  listener({ TLS: { Certificates: [{ Name: "" }] } }),
  listener({ TLS: { MinVersion: "x" } }),
  listener({ TLS: { MinVersion: "TLSv1_3", MaxVersion: "TLSv1_0" } }),
  listener({ Default: { JWT: {} }, Override: {} }),
  listener({ Default: { JWT: { Providers: [{ Name: "p" }] } } }),
  listener({ TLS: { nope: 1 }, Certificates: [] }),
  write("api-gateway", {}),
  write("http-route", {}),
  write("http-route", { Hostnames: ["a..b"] }),
  write("http-route", { Hostnames: ["*.b"] }),
  write("http-route", { Parents: [{ Kind: "mesh", Name: "a" }] }),
  write("http-route", { Parents: [{ Name: "a" }, { Name: "a", Kind: "api-gateway" }] }),
  write("http-route", {
    Parents: [{ Name: "gw", SectionName: "a" }],
    Rules: [
      {
        Filters: {
          Headers: [{ Add: { a: "b" }, Remove: ["c"], Set: { d: "e" } }],
          URLRewrite: { Path: "/r" },
          RetryFilter: { NumRetries: 2, RetryOn: ["5xx"], RetryOnStatusCodes: [503], RetryOnConnectFailure: true },
          TimeoutFilter: { RequestTimeout: "10s", IdleTimeout: 5 },
        },
        ResponseFilters: { Headers: [{ Add: { x: "y" } }] },
        Matches: [{ Method: "get", Query: [{ Match: "exact", Name: "q", Value: "v" }] }],
        Services: [{ Name: "a" }, { Name: "b", Weight: 3, Filters: { JWT: {} } }],
      },
    ],
    Hostnames: ["a.example.com"],
  }),
  rule({ Method: "nope" }),
  rule({ Query: [{ Match: "exact" }] }),
  rule({ Query: [{ Name: "a", Match: "prefix" }] }),
  rule({ Headers: [{ Match: "exact" }] }),
  rule({ Headers: [{ Name: "a", Match: "nope" }] }),
  rule({ Path: { Match: "exact", Value: "a" } }),
  rule({ Path: { Match: "nope", Value: "/a" } }),
  rule({ Path: { Match: "regex", Value: "a" } }),
  write("http-route", {
    Rules: [{ Filters: { JWT: { Providers: [] } }, url_rewrite: {}, Services: [{ namespace: "n" }] }],
  }),
  write("tcp-route", { Parents: [{ Name: "gw" }], Services: [{ Name: "a" }] }),
  write("tcp-route", { Services: [{ Name: "a" }, { Name: "b" }] }),
  write("tcp-route", { Parents: [{ Name: "a" }, { Name: "a" }] }),
  write("tcp-route", { Services: [{ Name: "a", Weight: 1 }] }),

  // Certificates.
  write("file-system-certificate", { Certificate: "/c", PrivateKey: "/k", Meta: { a: "b" } }),
  write("inline-certificate", {}),
  write("inline-certificate", { ...pairs.ec }),
  write("inline-certificate", { ...pairs.rsa }, "rsa"),
  write("inline-certificate", { ...pairs.small }),
  write("inline-certificate", { ...pairs.host }),
  write("inline-certificate", { Certificate: "x", PrivateKey: pairs.ec.PrivateKey }),
  write("inline-certificate", { Certificate: pairs.ec.Certificate, PrivateKey: pairs.other.PrivateKey }),
  write("inline-certificate", { Certificate: pairs.ec.Certificate, PrivateKey: pairs.rsa.PrivateKey }),
  write("inline-certificate", { Certificate: pairs.ec.Certificate, PrivateKey: pairs.ec.PrivateKey, Chain: [] }),

  // JWT providers.
  jwt({}),
  jwt({
    ClockSkewSeconds: 5,
    CacheConfig: { Size: 3 },
    Issuer: "i",
    Audiences: ["a"],
    Forwarding: { HeaderName: "h" },
  }),
  jwt({ Forwarding: {} }),
  jwt({
    Locations: [
      {},
      { Header: { Name: "a" }, Cookie: { Name: "b" } },
      { Header: {} },
      { Cookie: {} },
      { QueryParam: {} },
    ],
  }),
  jwt({ clock_skew_seconds: 7, locations: [{ query_param: { name: "q" } }], nope: true }),
  write("jwt-provider", {}),
  write("jwt-provider", {}, ""),
  keys({}),
  keys({ Local: {} }),
  keys({ Local: { JWKS: "a", Filename: "b" } }),
  keys({ Local: { JWKS: "?" } }),
  keys({ Local: { JWKS: "e30=" }, Remote: {} }),
  keys({ Remote: {} }),
  keys({ Remote: { URI: "nope" } }),
  keys({
    Remote: {
      uri: "https://a/k",
      retry_policy: { num_retries: 1, retry_policy_back_off: { base_interval: "2s", max_interval: "1s" } },
    },
  }),
  cluster({ DiscoveryType: "nope" }),
  cluster({ TLSCertificates: {} }),
  cluster({ TLSCertificates: { TrustedCA: {} } }),
  cluster({ TLSCertificates: { TrustedCA: { InlineString: "a", InlineBytes: "b" } } }),
  cluster({ DiscoveryType: "EDS", ConnectTimeout: "5s", TLSCertificates: { TrustedCA: { inline_bytes: "abc" } } }),

  // The mesh.
  write("mesh", {}),
  write("mesh", { Name: "mesh" }),
  write("mesh", {
    HTTP: {},
    TLS: {},
    Peering: {},
    transparent_proxy: { mesh_destinations_only: true },
    CreateIndex: 3,
  }),
  tls({ TLSMinVersion: "x" }),
  tls({ tls_min_version: "TLSv1_2", tls_max_version: "TLSv1_1" }),
  tls({ TLSMinVersion: "TLSv1_3", CipherSuites: ["TLS_RSA_WITH_AES_128_CBC_SHA"] }),
  tls({ CipherSuites: ["x"] }),
  write("mesh", { TLS: { Outgoing: { TLSMinVersion: "TLS_NONE" } } }),
  write("mesh", { HTTP: { Incoming: { RequestNormalization: { PathWithEscapedSlashesAction: "x" } } } }),
  write("mesh", { HTTP: { Incoming: { request_normalization: { headers_with_underscores_action: "x" } } } }),
  write("mesh", { HTTP: { sanitize_x_forwarded_client_cert: true, Incoming: { nope: {} } }, Limits: {} }),

  // Services and proxies.
  write("service-defaults", {
    Protocol: "HTTP",
    upstream_config: {
      defaults: {
        limits: { max_connections: 0 },
        mesh_gateway: { mode: "local" },
        connect_timeout_ms: "500",
        protocol: "GRPC",
      },
      overrides: [{ name: "a", peer: "p" }],
    },
    external_sni: "s",
    expose: { paths: [{ path: "/x", local_path_port: 80, listener_port: 1, protocol: "http2" }] },
    max_inbound_connections: 7,
    local_connect_timeout_ms: true,
    envoy_extensions: [
      { name: "builtin/lua", arguments: { Script: "s", Listener: "inbound", ProxyType: ["connect-proxy"] } },
    ],
    mutual_tls_mode: "strict",
    transparent_proxy: { outbound_listener_port: 1, dialed_directly: true },
  }),
  write("service-defaults", { Protocol: "sctp" }),
  write("service-defaults", { BalanceInboundConnections: "x" }),
  write("service-defaults", { UpstreamConfig: {}, Destination: {} }),
  write("service-defaults", { Destination: {} }),
  write("service-defaults", { Destination: { Addresses: ["a", "a", "*.b", "10.0.0.1", "::1"], Port: 80 } }),
  write("service-defaults", { Destination: { Addresses: ["a"], Port: 443 } }),
  write("service-defaults", { RateLimits: { InstanceLevel: { RequestsPerSecond: 1 } } }),
  write("service-defaults", { MutualTLSMode: "x" }),
  write("service-defaults", { MutualTLSMode: "permissive" }),
  write("service-defaults", { EnvoyExtensions: [{ Name: "" }, { Name: "nope" }] }),
  upstream({}),
  upstream({ Name: "" }),
  upstream({ Name: "*" }),
  upstream({ Namespace: "n" }),
  upstream({ PassiveHealthCheck: { Interval: -1 } }),
  upstream({ PassiveHealthCheck: { EnforcingConsecutive5xx: 101 } }),
  upstream({ PassiveHealthCheck: { MaxEjectionPercent: 101 } }),
  upstream({ Limits: { MaxConnections: -1 }, BalanceOutboundConnections: "x", Peer: "p" }),
  upstream({ ConnectTimeoutMs: -5, Protocol: "HTTP" }),
  write("service-defaults", { UpstreamConfig: { Defaults: { Name: "x" } } }),
  write("service-defaults", {
    Name: { a: "x", b: [1, 2.5] },
    Protocol: [1, 2],
    MaxInboundConnections: "1.5",
    TransparentProxy: "x",
    Destination: 7,
    Meta: ["a"],
    Expose: { Checks: "yes", Paths: [3] },
    UpstreamConfig: {
      Defaults: { PassiveHealthCheck: { Interval: "abc", MaxFailures: "-1", MaxEjectionPercent: {} } },
    },
  }),
  write("service-defaults", {
    UpstreamConfig: { Defaults: { PassiveHealthCheck: { MaxFailures: -1, Interval: 1.7, BaseEjectionTime: "0s" } } },
    Meta: { a: [1], b: true, c: null },
  }),
  write("service-defaults", { upstream_config: { defaults: { nope: 1, limits: { nope: 1 } } }, jwt: 1 }),
  write(
    "proxy-defaults",
    {
      Config: {
        a: [1],
        b: [{ c: [2] }],
        d: [1, 2],
        e: {},
        f: [],
        g: [{ x: 1 }, { y: [3] }],
        h: null,
        n: 1.5,
        big: 1e30,
      },
    },
    "global",
  ),
  write("proxy-defaults", { Config: {}, AccessLogs: { Type: "file" } }, "global"),
  write("proxy-defaults", { AccessLogs: { Type: "x" } }, "global"),
  write("proxy-defaults", { AccessLogs: { JSONFormat: "{}", TextFormat: "x" } }, "global"),
  write("proxy-defaults", { AccessLogs: { Path: "/x" } }, "global"),
  write(
    "proxy-defaults",
    { access_logs: { enabled: true, type: "file", path: "/x", json_format: "{}" }, Config: {} },
    "global",
  ),
  write("proxy-defaults", { EnvoyExtensions: [{ Name: "" }] }, "global"),
  write("proxy-defaults", { FailoverPolicy: { Mode: "x" } }, "global"),
  write("proxy-defaults", { PrioritizeByLocality: { Mode: "failover" } }, "global"),
  write("proxy-defaults", { MutualTLSMode: "permissive" }, "global"),
  write("mesh", { AllowEnablingPermissiveMutualTLS: true }),
  write("proxy-defaults", { MutualTLSMode: "permissive", Config: { protocol: "http" } }, "global"),

  // Chains.
  balancer({ Policy: "x" }),
  balancer({ Policy: "random", RingHashConfig: {} }),
  balancer({ LeastRequestConfig: {} }),
  balancer({ HashPolicies: [{ SourceIP: true }] }),
  ...[
    { Field: "x" },
    { Field: "header", SourceIP: true },
    { FieldValue: "v", SourceIP: true },
    { Field: "header" },
    { FieldValue: "v" },
    { Field: "header", FieldValue: "v", CookieConfig: {} },
    { Field: "cookie", FieldValue: "v", CookieConfig: { Session: true, TTL: "5s" } },
    { field: "cookie", field_value: "v", cookie_config: { ttl: "5s", path: "/" }, terminal: true },
  ].map((policy) =>
    balancer({ policy: "ring_hash", hash_policies: [policy], ring_hash_config: { minimum_ring_size: 3 } }),
  ),
  write("service-resolver", { PrioritizeByLocality: { Mode: "failover" } }),
  // Numbers and durations at the ends of what 64 bits hold, and beyond.
  ...[1e300, -1e300, 2 ** 63, -(2 ** 63), 2 ** 63 - 1024, 1e18, 1.5].map((timeout) =>
    write("service-resolver", { ConnectTimeout: timeout }),
  ),
  ...["2562047h47m16.854775808s", "-2562047h47m16.854775808s", "9999999h", "100000h0m0.000000001s"].map((timeout) =>
    write("service-resolver", { ConnectTimeout: timeout }),
  ),
  ...[
    1e300,
    -1e300,
    "99999999999999999999",
    "9223372036854775808",
    "-9223372036854775809",
    "0000000000000000000007",
  ].map((connections) => upstream({ Limits: { MaxConnections: connections } })),
  upstream({ Limits: { MaxConnections: `1${"0".repeat(400)}` } }),
  // A list of one loses its list, once each time it is read.
  write("proxy-defaults", { Config: { a: [[2]], b: [[[3]]], c: [[{ d: [1] }]] } }, "global"),
  http({ PathExact: "a" }),
  http({ PathPrefix: "a" }),
  http({ PathExact: "/a", PathRegex: "b" }),
  http({ Header: [{ Exact: "a" }] }),
  http({ Header: [{ Name: "a" }] }),
  http({ Header: [{ Name: "a", Exact: "b", Present: true }] }),
  http({ QueryParam: [{}] }),
  http({ QueryParam: [{ Name: "a", Exact: "b", Regex: "c" }] }),
  http({ Methods: ["NOPE"] }),
  http({ Methods: ["get", "GET"] }),
  http({}, { PrefixRewrite: "/x" }),
  http({ PathExact: "/a" }, { PrefixRewrite: "/x", RetryOn: ["nope"] }),
  http({ path_prefix: "/a", query_param: [{ name: "q", present: true }], methods: "get", nope: 1 }),
  http(
    { path_prefix: "/a", query_param: [{ name: "q", present: true }], methods: "get" },
    { request_timeout: "5s", retry_on_status_codes: [500], request_headers: { add: { a: "b" } } },
  ),
  // Of several spellings of a key one is taken, and the others are unknown.
  { body: { Kind: "terminating-gateway", Name: "x", Services: [], services: [] } },
  { body: { Kind: "mesh", kind: "foo" } },
  ...[{ KIND: "mesh" }, { Kind: null }, { kind: null }, { Kind: 1 }, { Kind: ["mesh"] }].map((body) => ({ body })),
  ...[{ CreateIndex: {}, ModifyIndex: "x" }, { createindex: 1, MODIFYINDEX: 2 }, { Hash: "x" }, { hash: 1 }].map(
    (more) => write("tcp-route", more),
  ),
  ingress({}, { TLS: { TLSMinVersion: "TLSv1_2", tls_min_version: "TLSv1_1" } }),
  ingress({}, { TLS: { tlsminversion: "TLSv1_2", tls_min_version: "TLSv1_1" } }),
  listener({ TLS: { tls_min_version: "TLSv1_2" } }),
  listener({ TLS: { cipher_suites: [] } }),
  // Fields that are not kept are read all the same.
  ...[
    "x",
    [{}],
    { Bar: 1 },
    { Conditions: [{ Type: 1, Foo: 2 }] },
    { Conditions: [{ Type: {}, Resource: { Kind: {} } }] },
    { Conditions: [{ Type: "t", Reason: "r", LastTransitionTime: "2020-01-02T03:04:05Z" }] },
  ].map((Status) => write("tcp-route", { Status })),
  // Texts of a type of their own.
  write(
    "proxy-defaults",
    { Mode: {}, MutualTLSMode: {}, MeshGateway: { Mode: {} }, AccessLogs: { Type: {} } },
    "global",
  ),
  ingress({}, { TLS: { TLSMinVersion: {}, TLSMaxVersion: {}, CipherSuites: [{}] } }),
  listener({ Name: {}, Protocol: {}, TLS: { MinVersion: {}, CipherSuites: [{}] } }),
  rule({ Method: {}, Path: { Match: {}, Value: {} }, Headers: [{ Match: {} }], Query: [{ Match: {} }] }),
  write("service-intentions", { Sources: [{ Name: "b", Action: {}, Type: {}, Permissions: [{ Action: {} }] }] }),
  // Numbers as texts, durations and texts as they are quoted, and lists of one inside of lists.
  write("service-defaults", {
    Protocol: 1e23,
    Meta: { a: 1e-7, b: 1e21, c: 0.1, d: 1.5e-10, e: 123456789012345680000 },
  }),
  ...[1e23, 1e-7, 1.5e-10, 1e21, 123456789012345680000].map((value) => write("mesh", { Meta: { a: value } })),
  ...["ü", "1x", "1", '"'].map((ConnectTimeout) => write("service-resolver", { ConnectTimeout })),
  upstream({ ConnectTimeoutMs: 'a\u0000b\u00a0é"' }),
  write("service-intentions", { Sources: [["a"]] }),
  write("service-intentions", { Sources: [[{ Name: "a", Action: "allow" }]] }),
  // Lists of maps where one map is meant, and numbers that are printed in complaints.
  ...[[], [{ a: "b" }, { c: 1 }, { a: "d" }], ["a", "b"], [{ a: {} }, { b: [] }], [null, { a: "b" }], 1].map((Meta) =>
    write("mesh", { Meta }),
  ),
  ...[[], [{ a: [1] }, { b: [2, 3] }], [null, { a: 1 }], ["a", "b"]].map((Config) =>
    write("proxy-defaults", { Config }, "global"),
  ),
  write("service-resolver", { Subsets: [], Failover: [{ "*": { Datacenters: ["dc2"] } }, { "*": { Service: "b" } }] }),
  write("mesh", {
    AllowEnablingPermissiveMutualTLS: [1e-7, 0.000012, 1.5e21, 0.0001, 100000, 1000000, 123456789, 1.5, -1e6, 0],
  }),
  ...["a\nb", "http://a\u007fb", "a b"].map((URI) => keys({ Remote: { URI } })),
  write("service-defaults", { Protocol: "x", Meta: { "": "x" } }, "*"),
  write("service-defaults", { Protocol: "x" }, ""),
  ...["Namespace", "Partition"].map((key) => write("terminating-gateway", { Services: [{ Name: "a", [key]: "" }] })),
  { body: { Kind: "proxy-defaults" } },
  remove("/v1/config/proxy-defaults/global"),
  write("proxy-defaults", { Config: { protocol: "http" } }, "global"),
  write("service-splitter", { Splits: [{ Weight: -1 }, { Weight: 66.67, Service: "b" }] }),
  remove("/v1/config/proxy-defaults/global"),
  get("/v1/config/ingress-gateway"),
  get("/v1/config/jwt-provider"),
  get("/v1/config/inline-certificate"),
];
