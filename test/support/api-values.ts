import fc from "fast-check";
import { readGolden } from "../golden/read.js";

// Random values of what Consul's own Go client can express, as it sends them.

export type ApiValue = null | boolean | number | string | readonly ApiValue[] | ApiObject;
export interface ApiObject {
  readonly [key: string]: ApiValue;
}

type Fields = Readonly<Record<string, string>>;

/** By the name of the Go type: the fields and their types. */
export const apiShapes: Readonly<Record<string, Fields>> = JSON.parse(readGolden("api-shapes.json")).shapes;

const word = fc.constantFrom("a", "b", "web", "Api", "x-y", "db_1", "café", "<&>", "v 1");
const name = fc.constantFrom("a", "b", "c", "web", "api", "db");
const tls = fc.constantFrom("", "TLS_AUTO", "TLSv1_0", "TLSv1_2");
const certificateReference = fc.record({
  Kind: fc.constantFrom("", "inline-certificate", "file-system-certificate"),
  Name: name,
  SectionName: fc.constant(""),
});
const parents = fc.uniqueArray(
  fc.record({ Kind: fc.constantFrom("", "api-gateway"), Name: name, SectionName: fc.constantFrom("", "s") }),
  { maxLength: 3, selector: ({ Name, SectionName }) => `${Name}/${SectionName}` },
);
const pattern = fc.oneof(
  ...["Exact", "Prefix", "Suffix", "Regex"].map((key) => fc.record({ Name: word, [key]: word })),
  fc.record({ Name: word, Present: fc.constant(true), Invert: fc.boolean() }),
);

/** Opaque maps as people write them. */
const config = fc.option(
  fc.dictionary(
    word,
    fc.oneof(
      word,
      fc.integer(),
      fc.boolean(),
      fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e9, max: 1e9 }),
      fc.constantFrom<ApiValue>(null, [], [1, 2], ["a"], {}, { b: [1], c: { d: "e" } }, [{ x: [1] }]),
    ),
    { maxKeys: 3 },
  ),
);

/** For what is defined further down. */
function later<Value>(make: () => fc.Arbitrary<Value>): fc.Arbitrary<Value> {
  return fc.constant(undefined).chain(make);
}

/** Where any value of the type would be refused, or means something: by type and field, or by field. */
const chosen: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  Namespace: fc.constant(""),
  Partition: fc.constant(""),
  CreateIndex: fc.constant(0),
  ModifyIndex: fc.constant(0),
  SamenessGroup: fc.constant(""),
  Name: name,
  Protocol: fc.constantFrom("", "tcp", "http", "http2", "grpc", "HTTP"),
  "ServiceConfigEntry.MutualTLSMode": fc.constantFrom("", "strict"),
  "ProxyConfigEntry.MutualTLSMode": fc.constantFrom("", "strict"),
  "ServiceConfigEntry.BalanceInboundConnections": fc.constantFrom("", "exact_balance"),
  BalanceOutboundConnections: fc.constantFrom("", "exact_balance"),
  "ServiceConfigEntry.RateLimits": fc.constant(null),
  "DestinationConfig.Addresses": fc.uniqueArray(fc.constantFrom("10.0.0.1", "a.example.com", "::1"), { minLength: 1 }),
  "DestinationConfig.Port": fc.integer({ min: 1, max: 65_535 }),
  "EnvoyExtension.Name": fc.constantFrom("builtin/lua"),
  "EnvoyExtension.ConsulVersion": fc.constantFrom("", ">= 1.2"),
  "EnvoyExtension.EnvoyVersion": fc.constantFrom("", ">= 1.2"),
  "EnvoyExtension.Arguments": fc.record({ Script: word, Listener: fc.constantFrom("inbound", "outbound") }),
  "ProxyConfigEntry.Name": fc.constant("global"),
  "ProxyConfigEntry.PrioritizeByLocality": fc.constant(null),
  "ServiceResolverConfigEntry.PrioritizeByLocality": fc.constant(null),
  "ServiceResolverFailoverPolicy.Mode": fc.constant(""),
  "AccessLogsConfig.Type": fc.constantFrom("", "stderr", "stdout"),
  "AccessLogsConfig.Path": fc.constant(""),
  "AccessLogsConfig.JSONFormat": fc.constantFrom("", "{}"),
  "AccessLogsConfig.TextFormat": fc.constant(""),
  "UpstreamConfiguration.Defaults": fc.option(
    fc.record({ Protocol: fc.constant("HTTP"), ConnectTimeoutMs: fc.nat(5) }),
  ),
  "ServiceConfigEntry.Destination": fc.constant(null),
  EnforcingConsecutive5xx: fc.option(fc.integer({ min: 0, max: 100 })),
  MaxEjectionPercent: fc.option(fc.integer({ min: 0, max: 100 })),
  "ExportedServicesConfigEntry.Name": fc.constant("default"),
  "ExportedService.Consumers": fc.array(fc.record({ Peer: fc.constantFrom("p", "q") }), { minLength: 1, maxLength: 2 }),
  "IngressListener.Services": fc.uniqueArray(
    fc.record(
      { Name: name, Hosts: fc.constant(null), MaxConnections: fc.nat(100), Meta: fc.constant({ a: "b" }) },
      { requiredKeys: ["Name"] },
    ),
    { minLength: 1, maxLength: 1, selector: (service) => service.Name },
  ),
  TLSMinVersion: tls,
  TLSMaxVersion: fc.constantFrom("", "TLS_AUTO", "TLSv1_2", "TLSv1_3"),
  CipherSuites: fc.constantFrom(null, [], ["TLS_RSA_WITH_AES_128_CBC_SHA"]),
  "APIGatewayTLSConfiguration.MinVersion": tls,
  "APIGatewayTLSConfiguration.MaxVersion": fc.constantFrom("", "TLSv1_3"),
  "APIGatewayTLSConfiguration.Certificates": fc.array(certificateReference, { maxLength: 2 }),
  "APIGatewayConfigEntry.Listeners": fc.uniqueArray(
    fc.record({
      Name: fc.constantFrom("a", "b-1", "c.d"),
      Hostname: fc.constant(""),
      Port: fc.integer({ min: 1, max: 65_535 }),
      Protocol: fc.constantFrom("http", "TCP"),
      TLS: fc.record({
        Certificates: fc.option(fc.array(certificateReference, { maxLength: 2 })),
        MinVersion: tls,
        CipherSuites: fc.constantFrom(null, [], ["TLS_RSA_WITH_AES_128_CBC_SHA"]),
      }),
    }),
    { minLength: 1, maxLength: 3, selector: ({ Name }) => Name, comparator: "SameValue" },
  ),
  GatewayTLSSDSConfig: fc.record({}),
  "GatewayTLSConfig.SDS": fc.constantFrom(null, {}, { ClusterName: "c", CertResource: "r" }),
  Status: fc.constant({ Conditions: null }),
  Parents: fc.option(parents),
  JWT: fc.constant(null),
  Hostnames: fc.constantFrom(null, [], ["a.example.com"]),
  "HTTPMatch.Method": fc.constantFrom("", "GET", "post"),
  "HTTPMatch.Path": fc.constantFrom(
    { Match: "", Value: "" },
    { Match: "exact", Value: "/a" },
    { Match: "regex", Value: ".*" },
  ),
  "HTTPHeaderMatch.Match": fc.constantFrom("exact", "prefix", "present", "regex", "suffix"),
  "HTTPQueryMatch.Match": fc.constantFrom("exact", "present", "regex"),
  "TCPRouteConfigEntry.Services": fc.constantFrom(null, [], [{ Name: "a" }]),
  "JSONWebKeySet.Remote": fc.constant(null),
  "JSONWebKeySet.Local": fc.constantFrom({ JWKS: "e30=" }, { Filename: "/keys" }),
  "JWTProviderConfigEntry.JSONWebKeySet": fc.oneof(
    fc.constantFrom({ Local: { JWKS: "e30=" } }, { Local: { Filename: "/keys" } }),
    fc.record({
      Remote: fc.record(
        {
          URI: fc.constantFrom("https://example.com/keys", "/keys"),
          RequestTimeoutMs: fc.nat(1000),
          CacheDuration: fc.constantFrom(0, 1_500_000_000),
          FetchAsynchronously: fc.boolean(),
          UseSNI: fc.boolean(),
          RetryPolicy: fc.constantFrom(
            {},
            { NumRetries: 2, RetryPolicyBackOff: { BaseInterval: 1_000_000, MaxInterval: 2_000_000_000 } },
          ),
          JWKSCluster: fc.constantFrom(
            {},
            { DiscoveryType: "STATIC", ConnectTimeout: 5_000_000_000 },
            { TLSCertificates: { TrustedCA: { InlineString: "abc" } } },
            { TLSCertificates: { CaCertificateProviderInstance: { InstanceName: "i", CertificateName: "c" } } },
          ),
        },
        { requiredKeys: ["URI"] },
      ),
    }),
  ),
  "JWTProviderConfigEntry.Locations": fc.option(
    fc.array(
      fc.constantFrom(
        { Header: { Name: "h", ValuePrefix: "Bearer ", Forward: true } },
        { QueryParam: { Name: "q" } },
        { Cookie: { Name: "c" } },
      ),
      { maxLength: 3 },
    ),
  ),
  "JWTForwardingConfig.HeaderName": fc.constant("h"),
  "InlineCertificateConfigEntry.Certificate": fc.constant(""),
  PathWithEscapedSlashesAction: fc.constantFrom("", "KEEP_UNCHANGED"),
  HeadersWithUnderscoresAction: fc.constantFrom("", "DROP_HEADER"),
  "TerminatingGatewayConfigEntry.Services": fc.option(
    fc.uniqueArray(
      fc.record(
        {
          Name: name,
          CAFile: fc.constant("ca"),
          SNI: word,
          DisableAutoHostRewrite: fc.boolean(),
        },
        { requiredKeys: ["Name"] },
      ),
      { maxLength: 3, selector: (service) => service.Name },
    ),
  ),
  "LoadBalancer.Policy": fc.constant("ring_hash"),
  "LoadBalancer.LeastRequestConfig": fc.constant(null),
  "LoadBalancer.HashPolicies": fc.constantFrom(
    null,
    [],
    [{ Field: "cookie", FieldValue: "c", CookieConfig: { TTL: 5_000_000_000, Path: "/" }, Terminal: true }],
    [{ SourceIP: true }],
  ),
  "ServiceResolverConfigEntry.DefaultSubset": fc.constant(""),
  "ServiceResolverConfigEntry.Subsets": fc.constantFrom(null, {}, { v1: {}, v2: { OnlyPassing: true } }),
  "ServiceResolverConfigEntry.Redirect": fc.constant(null),
  "ServiceResolverConfigEntry.Failover": fc.constantFrom(
    null,
    {},
    { "*": { Datacenters: ["dc2"], Policy: { Regions: ["r"] } } },
    { "*": { Targets: [{ Service: "b" }, { Peer: "p" }] } },
  ),
  // Registrations.
  "CatalogRegistration.ID": fc.constant(""),
  "CatalogRegistration.Node": fc.constant("node"),
  "CatalogRegistration.Address": fc.constant("10.0.0.9"),
  "CatalogRegistration.Datacenter": fc.constant(""),
  "CatalogRegistration.SkipNodeUpdate": fc.constant(false),
  PeerName: fc.constant(""),
  Locality: fc.constantFrom(null, { Region: "r", Zone: "" }, { Region: "r", Zone: "z" }),
  Meta: fc.constantFrom(null, { a: "b", "x-y": "" }),
  NodeMeta: fc.constantFrom(null, {}, { a: "b" }),
  "AgentService.Kind": fc.constantFrom("", "connect-proxy"),
  "AgentServiceRegistration.Kind": fc.constantFrom("", "connect-proxy"),
  "AgentService.ID": fc.constantFrom("", "id-1"),
  "AgentService.Service": name,
  "AgentService.Datacenter": fc.constant(""),
  "AgentService.ContentHash": fc.constant(""),
  "AgentService.Tags": fc.constantFrom(null, [], ["a", "b"]),
  Port: fc.integer({ min: 1, max: 65_535 }),
  "AgentWeights.Passing": fc.integer({ min: 1, max: 9 }),
  "AgentWeights.Warning": fc.integer({ min: 0, max: 9 }),
  "AgentServiceConnectProxyConfig.DestinationServiceName": fc.constant("web"),
  "AgentService.Connect": fc.constant(null),
  "AgentServiceRegistration.Connect": fc.constantFrom(null, {}),
  "AgentService.TaggedAddresses": fc.constantFrom(null, { lan: { Address: "10.0.0.1", Port: 3 } }),
  "AgentServiceRegistration.TaggedAddresses": fc.constantFrom(null, { lan: { Address: "10.0.0.1", Port: 3 } }),
  "AgentService.Address": fc.constantFrom("", "a.example.com"),
  "AgentServiceRegistration.Address": fc.constantFrom("", "a.example.com"),
  "AgentServiceRegistration.Check": fc.constant(null),
  "AgentServiceRegistration.Checks": fc.constant(null),
  "ExposeConfig.Paths": fc.constantFrom(
    null,
    [],
    [
      { ListenerPort: 1, Path: "/a", LocalPathPort: 2, Protocol: "http", ParsedFromCheck: true },
      { ListenerPort: 2, Path: "/b", ParsedFromCheck: false },
    ],
  ),
  "AgentServiceConnectProxyConfig.Upstreams": fc.option(
    fc.uniqueArray(
      fc.record(
        {
          DestinationType: fc.constantFrom("", "service", "prepared_query"),
          DestinationName: name,
          DestinationPeer: fc.constantFrom("", "p"),
          LocalBindAddress: fc.constantFrom("", "127.0.0.2"),
          LocalBindPort: fc.integer({ min: 1, max: 65_535 }),
          LocalBindSocketMode: fc.constantFrom("", "0644"),
          Config: config,
          MeshGateway: fc.constantFrom({}, { Mode: "local" }),
        },
        { requiredKeys: ["DestinationName", "LocalBindPort", "DestinationPeer"] },
      ),
      { maxLength: 3, selector: ({ DestinationName }) => DestinationName },
    ),
  ),
  "CatalogRegistration.Check": fc.constant(null),
  "CatalogRegistration.Checks": fc.option(
    fc.uniqueArray(
      fc.record({
        CheckID: name,
        Name: word,
        Status: fc.constantFrom("", "passing", "warning"),
        Notes: word,
        Output: word,
        Definition: later(() => apiValue("HealthCheckDefinition")),
      }),
      { maxLength: 2, selector: ({ CheckID }) => CheckID },
    ),
  ),
  "HealthCheckDefinition.SessionName": fc.constantFrom("", "s"),
  "ServiceRouterConfigEntry.Name": fc.constant("router"),
  "ServiceSplitterConfigEntry.Name": fc.constant("splitter"),
  "ServiceSplitterConfigEntry.Splits": fc
    .record({
      RequestHeaders: fc.constantFrom(null, {}, { Add: { a: "b" } }),
      ResponseHeaders: fc.constantFrom(null, {}, { Set: { a: "b" }, Remove: ["x"] }),
    })
    .map((headers) => [
      { Weight: 33.33, Service: "a", ...headers },
      { Weight: 66.67, Service: "b" },
    ]),
  "ServiceRouteHTTPMatch.PathExact": fc.constant(""),
  "ServiceRouteHTTPMatch.PathPrefix": fc.constantFrom("/", "/a"),
  "ServiceRouteHTTPMatch.PathRegex": fc.constant(""),
  "ServiceRouteHTTPMatch.Header": fc.option(fc.array(pattern, { maxLength: 2 })),
  "ServiceRouteHTTPMatch.QueryParam": fc.constantFrom(
    null,
    [],
    [{ Name: "q", Exact: "x" }],
    [{ Name: "q", Present: true }],
  ),
  "ServiceRouteHTTPMatch.Methods": fc.constantFrom(null, [], ["get", "PUT"]),
  "ServiceRouteDestination.Service": fc.constantFrom("", "a"),
  "ServiceRouteDestination.ServiceSubset": fc.constant(""),
  "ServiceRouteDestination.PrefixRewrite": fc.constant(""),
  "ServiceRouteDestination.RetryOn": fc.constantFrom(null, [], ["5xx", "reset"]),
  "SourceIntention.Type": fc.constantFrom("", "consul"),
  "SourceIntention.Precedence": fc.constant(0),
  "SourceIntention.LegacyID": fc.constant(""),
  "SourceIntention.LegacyMeta": fc.constant(null),
  "SourceIntention.LegacyCreateTime": fc.constant(null),
  "SourceIntention.LegacyUpdateTime": fc.constant(null),
  "SourceIntention.Action": fc.constantFrom("allow", "deny"),
  "SourceIntention.Permissions": fc.constant(null),
  "ServiceIntentionsConfigEntry.Sources": fc.uniqueArray(
    fc.record(
      { Name: name, Action: fc.constantFrom("allow", "deny"), Description: word, Peer: fc.constantFrom("", "p") },
      { requiredKeys: ["Name", "Action"] },
    ),
    { minLength: 1, maxLength: 3, selector: ({ Name, Peer }) => `${Peer ?? ""}/${Name}` },
  ),
};

function valueOfType(type: string): fc.Arbitrary<unknown> {
  if (type.startsWith("*")) return fc.option(valueOfType(type.slice(1)));
  if (type === "[]uint8") return fc.constantFrom(null, "QUJD");
  if (type.startsWith("[]")) return fc.option(fc.array(valueOfType(type.replace(/^\[\]\*?/, "")), { maxLength: 3 }));
  if (type === "map:any") return config;
  if (type.startsWith("map:"))
    return fc.option(
      fc.dictionary(
        word,
        valueOfType(type.slice(4)).map((value) => value ?? (type.startsWith("map:[]") ? [] : {})),
        { maxKeys: 3 },
      ),
    );
  switch (type) {
    case "string":
      return fc.oneof(fc.constant(""), word);
    case "bool":
      return fc.boolean();
    case "int":
      return fc.oneof(fc.constant(0), fc.nat(65_535));
    case "uint32":
    case "uint64":
      return fc.oneof(fc.constant(0), fc.nat(65_535));
    case "float32":
      return fc.nat(100);
    case "duration":
      return fc.constantFrom(0, 1, 1_500_000_000, "10s", "1h0m1s");
    case "readable":
      return fc.constantFrom("", "10s", "1m30s");
    case "time":
      return fc.constant(null);
    default:
      return apiValue(type);
  }
}

/** A value of a struct of the Go client, as JSON: fields that are empty are left out where the client does so. */
export function apiValue(type: string): fc.Arbitrary<ApiObject> {
  const fields = apiShapes[type];
  if (fields === undefined) throw new TypeError(`the Go client has no ${type}`);
  const members = Object.entries(fields).map(([field, typed]) => {
    const optional = typed.endsWith("?");
    const value = chosen[`${type}.${field}`] ?? chosen[field] ?? valueOfType(typed.replace(/\?$/, ""));
    return value.map((made) => (optional && isEmpty(made) ? [] : [[field, made] as const]));
  });
  return fc.tuple(...members).map((parts) => Object.fromEntries(parts.flat()) as ApiObject);
}

function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === "" || value === 0 || value === false) return true;
  return Array.isArray(value) && value.length === 0;
}

export const entryTypes: Readonly<Record<string, string>> = {
  "api-gateway": "APIGatewayConfigEntry",
  "exported-services": "ExportedServicesConfigEntry",
  "file-system-certificate": "FileSystemCertificateConfigEntry",
  "http-route": "HTTPRouteConfigEntry",
  "ingress-gateway": "IngressGatewayConfigEntry",
  "jwt-provider": "JWTProviderConfigEntry",
  mesh: "MeshConfigEntry",
  "proxy-defaults": "ProxyConfigEntry",
  "service-defaults": "ServiceConfigEntry",
  "service-intentions": "ServiceIntentionsConfigEntry",
  "service-resolver": "ServiceResolverConfigEntry",
  "service-router": "ServiceRouterConfigEntry",
  "service-splitter": "ServiceSplitterConfigEntry",
  "tcp-route": "TCPRouteConfigEntry",
  "terminating-gateway": "TerminatingGatewayConfigEntry",
};

/** A config entry of a kind, as the Go client sends it. */
export function apiEntry(kind: string): fc.Arbitrary<ApiObject> {
  return apiValue(entryTypes[kind] ?? "").map(({ Kind, Namespace, Partition, ...fields }) => ({
    Kind: kind,
    ...fields,
  }));
}
