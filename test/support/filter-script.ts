// Filters over config entries and intentions: which names and operators Consul 1.21.4 takes, and what they find.
import type { Script, ScriptedRequest } from "./scripted.js";

const DEFAULTS = "/v1/config/service-defaults";
const INTENTIONS = "/v1/connect/intentions";

function filtered(path: string, expression: string, when = ""): ScriptedRequest {
  const about = `${path} of which ${expression}${when && `, ${when}`}`;
  // Ids stay as they are, to be filled in.
  const encoded = encodeURIComponent(expression).replace(/%7B(\w+)%7D/g, "{$1}");
  return { about, method: "GET", path: `${path}?filter=${encoded}` };
}

/** Every operator on a name. Its value is one for any type. */
function operators(path: string, name: string): readonly ScriptedRequest[] {
  const expressions = ["== 1", "!= 1", "contains 1", "is empty", "matches `1`"].map((rest) => `${name} ${rest}`);
  return expressions.map((expression) => filtered(path, expression, "of none"));
}

function found(when: string, ...expressions: readonly string[]): readonly ScriptedRequest[] {
  return expressions.map((expression) => ({ ...filtered(DEFAULTS, expression, when), only: "Name" }));
}

function foundIntentions(...expressions: readonly string[]): readonly ScriptedRequest[] {
  return expressions.map((expression) => ({ ...filtered(INTENTIONS, expression), only: "SourceName" }));
}

function entry(about: string, body: object): ScriptedRequest {
  return { about, method: "PUT", path: "/v1/config", body: { Kind: "service-defaults", ...body } };
}

function removed(name: string): ScriptedRequest {
  return { about: `without ${name}`, method: "DELETE", path: `${DEFAULTS}/${name}` };
}

function below(path: string, ...names: readonly string[]): readonly string[] {
  return [path, ...names.map((name) => `${path}.${name}`)];
}

const upstream = [
  ...["Name", "Peer", "EnvoyListenerJSON", "EnvoyClusterJSON", "Protocol", "ConnectTimeoutMs"],
  ...below("Limits", "MaxConnections", "MaxPendingRequests", "MaxConcurrentRequests"),
  ...below(
    "PassiveHealthCheck",
    ...["Interval", "MaxFailures", "EnforcingConsecutive5xx", "MaxEjectionPercent", "BaseEjectionTime"],
  ),
  ...below("MeshGateway", "Mode"),
  ...["BalanceOutboundConnections", "Namespace", "Partition"],
];
const rates = ["RequestsPerSecond", "RequestsMaxBurst"];

const names = [
  ...["Kind", "Name", "Protocol", "Mode", "MutualTLSMode", "ExternalSNI", "BalanceInboundConnections"],
  ...["MaxInboundConnections", "LocalConnectTimeoutMs", "LocalRequestTimeoutMs"],
  ...below("TransparentProxy", "OutboundListenerPort", "DialedDirectly"),
  ...below("MeshGateway", "Mode"),
  ...["Expose", "Expose.Checks"],
  ...below("Expose.Paths", "ListenerPort", "Path", "LocalPathPort", "Protocol", "ParsedFromCheck"),
  "UpstreamConfig",
  ...below("UpstreamConfig.Overrides", ...upstream),
  ...below("UpstreamConfig.Defaults", ...upstream),
  ...below("Destination", "Addresses", "Port"),
  "RateLimits",
  ...below("RateLimits.InstanceLevel", ...rates),
  ...below("RateLimits.InstanceLevel.Routes", "PathExact", "PathPrefix", "PathRegex", ...rates),
  ...below("EnvoyExtensions", "Name", "Required", "Arguments", "ConsulVersion", "EnvoyVersion"),
  ...below("Meta", "k", "k.k"),
  ...["Namespace", "Partition", "Nope", "mode", "UpstreamConfig.Nope", "constructor"],
];

const intentionNames = [
  ...["ID", "Description", "SourceNS", "SourceName", "SourcePartition", "SourcePeer", "SourceSamenessGroup"],
  ...["SourceType", "DestinationNS", "DestinationName", "DestinationPartition", "Action", "Precedence"],
  ...below("Meta", "k"),
  ...["DefaultAddr", "DefaultPort", "Nope"],
];

const D = "UpstreamConfig.Defaults";
const O = "UpstreamConfig.Overrides";
const health = (Interval: string, MaxFailures: number): object => ({
  ...{ Interval, MaxFailures, EnforcingConsecutive5xx: 9, MaxEjectionPercent: 0, BaseEjectionTime: "3s" },
});
const full = {
  Name: "full",
  Protocol: "HTTP",
  Mode: "transparent",
  MutualTLSMode: "strict",
  TransparentProxy: { OutboundListenerPort: 5, DialedDirectly: true },
  MeshGateway: { Mode: "local" },
  Expose: { Checks: true, Paths: [{ ListenerPort: 1, Path: "/p", LocalPathPort: 2, Protocol: "http" }] },
  ExternalSNI: "sni.example",
  UpstreamConfig: {
    Overrides: [
      {
        ...{ Name: "db", EnvoyListenerJSON: "l", EnvoyClusterJSON: "c", Protocol: "grpc", ConnectTimeoutMs: 7 },
        Limits: { MaxConnections: 3, MaxPendingRequests: 0, MaxConcurrentRequests: 4 },
        PassiveHealthCheck: health("10s", 5),
        MeshGateway: { Mode: "remote" },
        BalanceOutboundConnections: "exact_balance",
      },
    ],
    Defaults: {
      ...{ Protocol: "http2", ConnectTimeoutMs: 6 },
      Limits: { MaxConnections: 2, MaxPendingRequests: 1, MaxConcurrentRequests: 3 },
      PassiveHealthCheck: health("5s", 6),
      MeshGateway: { Mode: "none" },
    },
  },
  MaxInboundConnections: 11,
  LocalConnectTimeoutMs: 12,
  LocalRequestTimeoutMs: 13,
  BalanceInboundConnections: "exact_balance",
  EnvoyExtensions: [
    {
      ...{ Name: "builtin/lua", Required: true, ConsulVersion: ">= 1.0.0", EnvoyVersion: ">= 1.1.0" },
      Arguments: { ProxyType: "connect-proxy", Listener: "inbound", Script: "x" },
    },
  ],
  Meta: { k: "v", "a-b": "" },
};

const whole = [
  ...["Kind == `service-defaults`", "Protocol == http", "Protocol == HTTP", "Mode contains trans", "Mode == direct"],
  ...["MutualTLSMode == strict", "MeshGateway.Mode == local", "ExternalSNI matches `^sni[.]`"],
  ...["TransparentProxy.OutboundListenerPort == 5", "TransparentProxy.DialedDirectly == true"],
  ...["Expose.Checks == true", "Expose.Paths.Path == `/p`", "Expose.Paths.ParsedFromCheck == false"],
  ...["Expose.Paths.ListenerPort == 1", "Expose.Paths.LocalPathPort == 2", "Expose.Paths.Protocol != http"],
  ...["MaxInboundConnections == 11", "MaxInboundConnections == `0x0b`", "MaxInboundConnections == -1"],
  ...["MaxInboundConnections == 9223372036854775807", "MaxInboundConnections == 9223372036854775808"],
  ...["LocalConnectTimeoutMs == 12", "LocalRequestTimeoutMs != 13", "BalanceInboundConnections == exact_balance"],
  ...["EnvoyExtensions is not empty", "EnvoyExtensions.Name == `builtin/lua`", "EnvoyExtensions.Required == true"],
  ...["EnvoyExtensions.ConsulVersion contains 0", "EnvoyExtensions.EnvoyVersion == `>= 1.1.0`"],
  ...["Meta.k == v", 'Meta["a-b"] == ""', 'Meta["a-b"] != x', 'Meta.none == ""', 'Meta.none != ""', "k in Meta"],
];
const upstreams = [
  ...[`${O} is empty`, `${O} is not empty`, `${O}.Name == db`, `${O}.Name != db`, `${O}.EnvoyListenerJSON == l`],
  ...[`${O}.EnvoyClusterJSON == c`, `${O}.Protocol == grpc`, `${O}.ConnectTimeoutMs == 7`, `${O}.Peer == ""`],
  ...[`${O}.Limits.MaxConnections == 3`, `${O}.Limits.MaxPendingRequests == 0`, `${D}.Limits.MaxConnections != 3`],
  ...[`${O}.MeshGateway.Mode == remote`, `${O}.BalanceOutboundConnections == exact_balance`],
  ...[`${D}.Protocol == http2`, `${D}.ConnectTimeoutMs == 6`, `${D}.MeshGateway.Mode == none`, `${D}.Name == ""`],
  ...["10000000000", "10s", "-1", "1.5", "9223372036854775808"].map(
    (value) => `${O}.PassiveHealthCheck.Interval == "${value}"`,
  ),
  ...["5", "0x5", "0b101", "05", "+5", "-1", "4294967295", "4294967296", "4294967301", "x", "", "1_0"].map(
    (value) => `${O}.PassiveHealthCheck.MaxFailures == "${value}"`,
  ),
  ...[`${D}.PassiveHealthCheck.EnforcingConsecutive5xx == 9`, `${D}.PassiveHealthCheck.EnforcingConsecutive5xx == -9`],
  ...[`${D}.PassiveHealthCheck.MaxEjectionPercent == 0`, `${D}.PassiveHealthCheck.BaseEjectionTime == 3000000000`],
  ...[`${D}.PassiveHealthCheck.BaseEjectionTime == "3s"`],
];
const beside = [
  ...['Mode == ""', "Mode != transparent", 'Protocol == ""', 'ExternalSNI == ""', "MaxInboundConnections == 0"],
  ...["EnvoyExtensions is empty", "EnvoyExtensions.Name != x", "Expose.Paths is empty", "Expose.Paths.Path != x"],
  ...["Expose.Checks != true", "TransparentProxy.DialedDirectly != true", 'MeshGateway.Mode == ""'],
  ...["Meta is empty", "Meta.k != v", "Meta.k == v", "v not in Meta.k", "Meta.k not matches `v`"],
  ...[`Name != bare and ${O}.Name == db`, `Name == bare or ${O}.Name == db`],
];

const allow = { SourceName: "web", DestinationName: "db", Action: "allow" };

export const filterScript: Script = {
  name: "filters",
  rights: false,
  requests: [
    ...names.flatMap((name) => operators(DEFAULTS, name)),
    ...intentionNames.flatMap((name) => operators(INTENTIONS, name)),

    // No filters, or for no other kind.
    ...["proxy-defaults", "service-resolver", "exported-services", "service-intentions", "", "nope"].map((kind) =>
      filtered(`/v1/config/${kind}`, "Name == x"),
    ),
    filtered("/v1/exported-services", "Nope == x"),
    filtered("/v1/peerings", "Nope == x"),
    filtered("/v1/peerings", "(("),

    entry("an entry with every field", full),
    ...found("of one", ...whole, ...upstreams),
    filtered(`${DEFAULTS}/full`, "Nope == x"),
    entry("an entry with another upstream", {
      Name: "part",
      UpstreamConfig: { Overrides: [{ Name: "x", Peer: "p" }] },
    }),
    ...found("with another upstream", `${O}.Name == x`, `${O}.Peer == p`, `${O}.Name != x`, `${O}.Protocol == ""`),
    entry("an entry without upstreams", { Name: "part", UpstreamConfig: { Defaults: { Protocol: "tcp" } } }),
    ...found("beside one without", `${O} is empty`, `${O} is not empty`, `${O}.Name != db`, `${D}.Protocol != tcp`),
    removed("part"),
    entry("an entry without any field", { Name: "bare" }),
    ...found("beside a bare one", ...beside),
    removed("full"),
    removed("bare"),
    entry("a destination", {
      ...{ Name: "dest", Protocol: "tcp" },
      Destination: { Addresses: ["a.example", "b.example"], Port: 443 },
    }),
    ...found("of a destination", "Destination.Port == 443", "Destination.Port != 443"),
    ...found("of a destination", "`a.example` in Destination.Addresses", "a in Destination.Addresses"),
    ...found("of a destination", "Destination.Addresses is empty", "Destination.Addresses not contains `b.example`"),

    {
      ...{ about: "an intention with an id", method: "POST", path: INTENTIONS, keep: "first" },
      body: { ...allow, Description: "first", Meta: { k: "v" } },
    },
    {
      ...{ about: "an intention from a peer", method: "PUT", path: "/v1/config" },
      body: { Kind: "service-intentions", Name: "api", Sources: [{ Name: "far", Peer: "west", Action: "deny" }] },
    },
    ...foundIntentions("ID == `{first}`", 'ID == ""', "Description == first", 'Description != ""'),
    ...foundIntentions("SourceName == web", "SourceName matches `^f`", "DestinationName == api", "SourceNS == default"),
    ...foundIntentions("DestinationNS != default", "SourceType == consul", 'SourcePeer == ""', "SourcePeer == west"),
    ...foundIntentions('SourcePartition == ""', 'DestinationPartition != ""', 'SourceSamenessGroup == ""'),
    ...foundIntentions("Action == deny", "Precedence == 9", "Precedence != 9", "Precedence == -1", "Precedence == x"),
    ...foundIntentions("Meta.k == v", "Meta is empty", "k in Meta", "Meta.k != v"),
  ],
};
