import type { ConfigEntryKind } from "./entry-kinds.js";
import type { JsonValue } from "./instance.js";

// The shapes of Consul's records (1.21), once for all code that reads, writes, judges and documents them.

/** How a value is read and written. */
export type Scalar =
  | "text"
  | "flag"
  | "number"
  | "int"
  | "uint32"
  | "uint64"
  /** Held and written as Go prints it. */
  | "duration"
  /** Held and written as a number, read from a text, too. */
  | "nanoseconds"
  | "time"
  /** Held and written in base64. */
  | "bytes"
  | "texts"
  | "uint32s"
  | "textMap"
  | "textsMap"
  /** An object of any content. */
  | "json"
  /** Read, and neither kept nor written. */
  | "ignored";

export interface Nested {
  readonly many: "one" | "list" | "map";
  readonly shape: Shape;
}

/** One field, by Consul's name of it. The library's name is the same with a small first letter. */
export interface Field {
  readonly as: Scalar | Nested;
  /** Written where the record does not have it; absent: nothing is written then. */
  readonly always?: JsonValue;
  /** A pointer in Go: a zero that was given is another thing than nothing. */
  readonly pointer?: true;
  /** Not interpreted by the library: kept under Consul's names, in `extra` or in its own place. */
  readonly kept?: "extra" | "here";
  /** Written, and passed over where it is read: others decide about it. */
  readonly written?: true;
  /** Never quoted. */
  readonly secret?: true;
  /** The Go type of a text, where texts of mismatches name it. Default `string`. */
  readonly goType?: string;
  /** Other spellings of the key in config entries. Default: the one with underscores. */
  readonly aliases?: readonly string[];
}

/** Consul's names in the order in which it writes them. */
export type Shape = Readonly<Record<string, Field>>;

function zeroOf(as: Scalar | Nested): JsonValue {
  if (typeof as === "object") return as.many === "one" ? zeroStruct(as.shape) : null;
  switch (as) {
    case "text":
    case "duration":
      return "";
    case "flag":
      return false;
    case "number":
    case "int":
    case "uint32":
    case "uint64":
    case "nanoseconds":
      return 0;
    default:
      return null;
  }
}

function zeroStruct(shape: Shape): JsonValue {
  const written = Object.entries(shape).filter(([, { always }]) => always !== undefined);
  return Object.fromEntries(written.map(([name, { always }]) => [name, always ?? null]));
}

/** The zero value is written as any other. */
function always(field: Field): Field {
  return { ...field, always: zeroOf(field.as) };
}

function pointer(field: Field): Field {
  return { ...field, pointer: true };
}

/** No spelling with underscores. */
function oneSpelling(field: Field, ...aliases: readonly string[]): Field {
  return { ...field, aliases };
}

function kept(shape: Shape): Shape {
  return Object.fromEntries(Object.entries(shape).map(([name, field]) => [name, { ...field, kept: "extra" }]));
}

const text: Field = { as: "text" };

/** A text with a Go type of its own. */
function textOf(goType: string): Field {
  return { as: "text", goType };
}

const flag: Field = { as: "flag" };
const int: Field = { as: "int" };
const uint32: Field = { as: "uint32" };
const duration: Field = { as: "duration" };
const nanoseconds: Field = { as: "nanoseconds" };
const texts: Field = { as: "texts" };
const textMap: Field = { as: "textMap" };
const json: Field = { as: "json" };
const ignored: Field = { as: "ignored" };
const writtenText: Field = { as: "text", written: true };

/** A struct behind a pointer. */
function one(shape: Shape): Field {
  return { as: { many: "one", shape }, pointer: true };
}

/** A struct that is always there. */
function value(shape: Shape): Field {
  return always({ as: { many: "one", shape } });
}

function list(shape: Shape): Field {
  return { as: { many: "list", shape } };
}

function map(shape: Shape): Field {
  return { as: { many: "map", shape } };
}

// Proxies.

const meshGateway: Shape = { Mode: textOf("structs.MeshGatewayMode") };

const envoyExtensions = list({
  Name: always(text),
  Required: always(flag),
  Arguments: always(json),
  ConsulVersion: oneSpelling(always(text)),
  EnvoyVersion: oneSpelling(always(text)),
});

const expose: Shape = {
  Checks: flag,
  Paths: list({ ListenerPort: int, Path: text, LocalPathPort: int, Protocol: text, ParsedFromCheck: flag }),
};

const transparentProxy: Shape = { OutboundListenerPort: int, DialedDirectly: flag };

const accessLogs: Shape = {
  Enabled: flag,
  DisableListenerLogs: flag,
  Type: textOf("structs.LogSinkType"),
  Path: text,
  JSONFormat: text,
  TextFormat: text,
};

/** The upstreams of a proxy. */
export const upstreamShape: Shape = {
  DestinationType: always(text),
  DestinationNamespace: text,
  DestinationPartition: text,
  DestinationPeer: text,
  DestinationName: always(text),
  Datacenter: always(text),
  LocalBindAddress: text,
  LocalBindPort: int,
  LocalBindSocketPath: text,
  LocalBindSocketMode: text,
  Config: json,
  MeshGateway: value(meshGateway),
  CentrallyConfigured: flag,
};

/** The members that a registered proxy keeps in `extra`, where it has any. */
export const proxyExtraShape: Shape = {
  EnvoyExtensions: envoyExtensions,
  Expose: { as: { many: "one", shape: expose } },
  TransparentProxy: { as: { many: "one", shape: transparentProxy } },
  AccessLogs: { as: { many: "one", shape: accessLogs } },
};

/** The proxy of a registration, as the catalog prints it. */
export const proxyShape: Shape = {
  ...kept({
    TransparentProxy: { as: { many: "one", shape: transparentProxy } },
    AccessLogs: { as: { many: "one", shape: accessLogs } },
    EnvoyExtensions: envoyExtensions,
  }),
  DestinationServiceName: text,
  DestinationServiceID: text,
  LocalServiceAddress: text,
  LocalServicePort: int,
  LocalServiceSocketPath: text,
  Mode: always(text),
  Config: json,
  Upstreams: list(upstreamShape),
  MeshGateway: value(meshGateway),
  ...kept({ Expose: value(expose) }),
};

/** The same as an agent prints it. */
export const agentProxyShape: Shape = {
  ...kept({ EnvoyExtensions: envoyExtensions }),
  DestinationServiceName: text,
  DestinationServiceID: text,
  LocalServiceAddress: text,
  LocalServicePort: int,
  LocalServiceSocketPath: text,
  Mode: text,
  ...kept({ TransparentProxy: { as: { many: "one", shape: transparentProxy } } }),
  Config: json,
  Upstreams: list({
    ...upstreamShape,
    DestinationType: text,
    DestinationPartition: text,
    DestinationNamespace: text,
    DestinationName: always(text),
    Datacenter: text,
  }),
  MeshGateway: value(meshGateway),
  ...kept({
    Expose: value({
      Checks: flag,
      Paths: list({ ListenerPort: int, Path: text, LocalPathPort: int, Protocol: text, ParsedFromCheck: always(flag) }),
    }),
    AccessLogs: { as: { many: "one", shape: accessLogs } },
  }),
};

/** A check in the definition of a service. */
const serviceCheckShape: Shape = {
  CheckID: always(text),
  Name: always(text),
  Status: always(text),
  Notes: always(text),
  ScriptArgs: always(texts),
  HTTP: always(text),
  H2PING: always(text),
  H2PingUseTLS: always(flag),
  Header: always({ as: "textsMap" }),
  Method: always(text),
  Body: always(text),
  DisableRedirects: always(flag),
  TCP: always(text),
  TCPUseTLS: always(flag),
  UDP: always(text),
  Interval: always(nanoseconds),
  AliasNode: always(text),
  AliasService: always(text),
  DockerContainerID: always(text),
  Shell: always(text),
  GRPC: always(text),
  GRPCUseTLS: always(flag),
  OSService: always(text),
  TLSServerName: always(text),
  TLSSkipVerify: always(flag),
  Timeout: always(nanoseconds),
  TTL: always(nanoseconds),
  SuccessBeforePassing: always(int),
  FailuresBeforeWarning: always(int),
  FailuresBeforeCritical: always(int),
  ProxyHTTP: always(text),
  ProxyGRPC: always(text),
  DeregisterCriticalServiceAfter: always(nanoseconds),
  OutputMaxSize: always(int),
};

const innerSidecarShape: Shape = {
  Kind: text,
  ID: always(text),
  Name: always(text),
  Tags: always(texts),
  Address: always(text),
  TaggedAddresses: always(map({ Address: always(text), Port: always(int) })),
  Meta: always(textMap),
  Port: always(int),
  SocketPath: always(text),
  Check: value(serviceCheckShape),
  Checks: always(list(serviceCheckShape)),
  Weights: { ...one({ Passing: always(int), Warning: always(int) }), always: null },
  Token: always(text),
  EnableTagOverride: always(flag),
  Locality: { ...one({ Region: text, Zone: text }), always: null },
  Proxy: { ...one(proxyShape), always: null },
};

/** A sidecar that a registration asks an agent for. The catalog keeps what it was told, and makes none. */
export const sidecarShape: Shape = {
  ...innerSidecarShape,
  Connect: { ...one({ Native: flag, SidecarService: one(innerSidecarShape) }), always: null },
};

/** How a check is made, as the catalog stores it for the program that makes it. */
export const checkDefinitionShape: Shape = {
  Interval: duration,
  OutputMaxSize: uint32,
  Timeout: duration,
  DeregisterCriticalServiceAfter: duration,
  HTTP: text,
  TLSServerName: text,
  TLSSkipVerify: flag,
  Header: { as: "textsMap" },
  Method: text,
  Body: text,
  DisableRedirects: flag,
  TCP: text,
  TCPUseTLS: flag,
  UDP: text,
  H2PING: text,
  OSService: text,
  H2PingUseTLS: flag,
  ScriptArgs: texts,
  DockerContainerID: text,
  Shell: text,
  GRPC: text,
  GRPCUseTLS: flag,
  AliasNode: text,
  AliasService: text,
  SessionName: text,
  TTL: nanoseconds,
};

// The members that a transaction may have, which are those of Consul's client in Go.

const DEFINED_BY_AGENTS_ALONE = new Set([
  "OutputMaxSize",
  "DisableRedirects",
  "H2PING",
  "H2PingUseTLS",
  "ScriptArgs",
  "DockerContainerID",
  "Shell",
  "AliasNode",
  "AliasService",
  "TTL",
]);
const CHECKS_OF_AGENTS_ALONE = new Set(["DisableRedirects", "ProxyHTTP", "ProxyGRPC", "OutputMaxSize"]);

/** A check of a sidecar as a transaction may say it: durations are texts. */
export const transactionCheckShape: Shape = Object.fromEntries(
  Object.entries(serviceCheckShape)
    .filter(([name]) => !CHECKS_OF_AGENTS_ALONE.has(name))
    .map(([name, field]) => [name, field.as === "nanoseconds" ? text : field]),
);

/** How a check is made, as a transaction may say it. */
export const transactionCheckDefinitionShape: Shape = Object.fromEntries(
  Object.entries(checkDefinitionShape).filter(([name]) => !DEFINED_BY_AGENTS_ALONE.has(name)),
);

/** A sidecar as a transaction may say it, which Consul does not keep. */
export const transactionSidecarShape: Shape = {
  ...Object.fromEntries(Object.entries(innerSidecarShape).filter(([name]) => name !== "Token")),
  Check: ignored,
  Checks: ignored,
  Namespace: ignored,
  Partition: ignored,
};

// Config entries.

const passiveHealthCheck = one({
  Interval: nanoseconds,
  MaxFailures: uint32,
  EnforcingConsecutive5xx: { ...pointer(uint32), aliases: ["enforcing_consecutive_5xx"] },
  MaxEjectionPercent: pointer(uint32),
  BaseEjectionTime: pointer(nanoseconds),
});

const headerModifiers = one({ Add: textMap, Set: textMap, Remove: texts });

const upstreamConfig: Shape = {
  Name: text,
  Peer: always(text),
  EnvoyListenerJSON: text,
  EnvoyClusterJSON: text,
  Protocol: text,
  ConnectTimeoutMs: int,
  Limits: one({
    MaxConnections: pointer(int),
    MaxPendingRequests: pointer(int),
    MaxConcurrentRequests: pointer(int),
  }),
  PassiveHealthCheck: passiveHealthCheck,
  MeshGateway: value(meshGateway),
  BalanceOutboundConnections: text,
};

const rateLimits = one({
  InstanceLevel: value({
    RequestsPerSecond: always(int),
    RequestsMaxBurst: always(int),
    Routes: always(
      list({
        PathExact: always(text),
        PathPrefix: always(text),
        PathRegex: always(text),
        RequestsPerSecond: always(int),
        RequestsMaxBurst: always(int),
      }),
    ),
  }),
});

const failoverPolicy: Shape = { Mode: text, Regions: texts };
const prioritizeByLocality = one({ Mode: text });

const proxyEntryShape: Shape = {
  Mode: textOf("structs.ProxyMode"),
  TransparentProxy: value(transparentProxy),
  MutualTLSMode: textOf("structs.MutualTLSMode"),
  MeshGateway: value(meshGateway),
  Expose: value(expose),
};

const target: Shape = {
  Service: text,
  ServiceSubset: text,
  Partition: text,
  Namespace: text,
  Datacenter: text,
  Peer: text,
};

/** Of an intention, or one of its permissions. */
export const jwtField: Field = one({
  Providers: list({ Name: text, VerifyClaims: list({ Path: texts, Value: text }) }),
});

/** Of an intention's source. */
export const permissionsField: Field = list({
  Action: textOf("structs.IntentionAction"),
  HTTP: one({
    PathExact: text,
    PathPrefix: text,
    PathRegex: text,
    Header: list({
      Name: text,
      Present: flag,
      Exact: text,
      Prefix: text,
      Suffix: text,
      Contains: text,
      Regex: text,
      Invert: flag,
      IgnoreCase: flag,
    }),
    Methods: texts,
  }),
  JWT: jwtField,
});

const httpMatch: Shape = {
  PathExact: text,
  PathPrefix: text,
  PathRegex: text,
  CaseInsensitive: flag,
  Header: list({
    Name: always(text),
    Present: flag,
    Exact: text,
    Prefix: text,
    Suffix: text,
    Regex: text,
    Invert: flag,
  }),
  QueryParam: list({ Name: always(text), Present: flag, Exact: text, Regex: text }),
  Methods: texts,
};

const loadBalancer = one({
  Policy: text,
  RingHashConfig: one({ MinimumRingSize: { as: "uint64" }, MaximumRingSize: { as: "uint64" } }),
  LeastRequestConfig: one({ ChoiceCount: uint32 }),
  HashPolicies: list({
    Field: text,
    FieldValue: text,
    CookieConfig: one({ Session: flag, TTL: nanoseconds, Path: text }),
    SourceIP: flag,
    Terminal: flag,
  }),
});

// Gateways and their routes.

const tlsVersion = textOf("types.TLSVersion");
const cipherSuites: Field = { as: "texts", goType: "types.TLSCipherSuite" };
const tlsParameters: Shape = { TLSMinVersion: tlsVersion, TLSMaxVersion: tlsVersion, CipherSuites: cipherSuites };
const sds = one({ ClusterName: text, CertResource: text });
const gatewayTls: Shape = { Enabled: always(flag), SDS: sds, ...tlsParameters };

const reference: Shape = { Kind: always(text), Name: always(text), SectionName: oneSpelling(always(text)) };

/** Told by Consul's controller of API gateways alone, whatever is written. */
const status: Field = {
  ...value({
    Conditions: always(
      list({
        Type: text,
        Status: text,
        Reason: text,
        Message: text,
        Resource: one(reference),
        LastTransitionTime: { as: "time" },
      }),
    ),
  }),
  written: true,
};

/** Community Edition knows none of their fields. */
const jwtPolicy = one({ JWT: one({}) });

const headerFilters = always(list({ Add: always(textMap), Remove: always(texts), Set: always(textMap) }));

const filters = value({
  Headers: headerFilters,
  URLRewrite: oneSpelling({ ...one({ Path: always(text) }), always: null }),
  RetryFilter: oneSpelling({
    ...one({
      NumRetries: oneSpelling(always(uint32)),
      RetryOn: oneSpelling(always(texts)),
      RetryOnStatusCodes: oneSpelling(always({ as: "uint32s" })),
      RetryOnConnectFailure: oneSpelling(always(flag)),
    }),
    always: null,
  }),
  TimeoutFilter: oneSpelling({
    ...one({
      RequestTimeout: oneSpelling(always(nanoseconds)),
      IdleTimeout: oneSpelling(always(nanoseconds)),
    }),
    always: null,
  }),
  JWT: { ...one({}), always: null },
});

const responseFilters = oneSpelling(value({ Headers: headerFilters }));

/** The members of each kind of config entry, besides `Meta` and its indexes. */
export const entryShapes: Readonly<Record<ConfigEntryKind, Shape>> = {
  "api-gateway": {
    Kind: text,
    Name: text,
    ...kept({
      Listeners: always(
        list({
          Name: always(text),
          Hostname: always(text),
          Port: always(int),
          Protocol: always(textOf("structs.APIGatewayListenerProtocol")),
          TLS: value({
            Certificates: always(list(reference)),
            MaxVersion: oneSpelling(always(tlsVersion)),
            MinVersion: oneSpelling(always(tlsVersion)),
            CipherSuites: oneSpelling(always(cipherSuites)),
          }),
          Override: jwtPolicy,
          Default: jwtPolicy,
        }),
      ),
      Status: status,
    }),
  },
  "bound-api-gateway": {
    Kind: text,
    Name: text,
    ...kept({
      Listeners: always(
        list({
          Name: always(text),
          Routes: always(list(reference)),
          Certificates: always(list(reference)),
        }),
      ),
    }),
  },
  "exported-services": {
    Kind: text,
    Name: text,
    Services: list({
      Name: text,
      // One namespace in Community Edition: which one is said has no effect.
      Namespace: ignored,
      Consumers: {
        ...list({ Partition: text, Peer: { as: "text", aliases: ["peer_name"] }, SamenessGroup: text }),
        always: null,
      },
    }),
  },
  "file-system-certificate": {
    Kind: text,
    Name: text,
    ...kept({ Certificate: always(text), PrivateKey: always(text) }),
  },
  "http-route": {
    Kind: text,
    Name: text,
    ...kept({
      Parents: always(list(reference)),
      Rules: always(
        list({
          Filters: filters,
          ResponseFilters: responseFilters,
          Matches: always(
            list({
              Headers: always(
                list({ Match: always(textOf("structs.HTTPHeaderMatchType")), Name: always(text), Value: always(text) }),
              ),
              Method: always(textOf("structs.HTTPMatchMethod")),
              Path: value({ Match: always(textOf("structs.HTTPPathMatchType")), Value: always(text) }),
              Query: always(
                list({ Match: always(textOf("structs.HTTPQueryMatchType")), Name: always(text), Value: always(text) }),
              ),
            }),
          ),
          Services: always(
            list({ Name: always(text), Weight: always(int), Filters: filters, ResponseFilters: responseFilters }),
          ),
        }),
      ),
      Hostnames: always(texts),
    }),
    Meta: textMap,
    Status: status,
  },
  "ingress-gateway": {
    Kind: text,
    Name: text,
    ...kept({
      TLS: value(gatewayTls),
      Listeners: always(
        list({
          Port: always(int),
          Protocol: always(text),
          TLS: one(gatewayTls),
          Services: always(
            list({
              Name: always(text),
              Hosts: always(texts),
              TLS: one({ SDS: sds }),
              RequestHeaders: headerModifiers,
              ResponseHeaders: headerModifiers,
              MaxConnections: uint32,
              MaxPendingRequests: uint32,
              MaxConcurrentRequests: uint32,
              PassiveHealthCheck: passiveHealthCheck,
              Meta: textMap,
            }),
          ),
        }),
      ),
      Defaults: one({
        MaxConnections: oneSpelling(always(uint32)),
        MaxPendingRequests: oneSpelling(always(uint32)),
        MaxConcurrentRequests: oneSpelling(always(uint32)),
        PassiveHealthCheck: passiveHealthCheck,
      }),
    }),
  },
  "inline-certificate": {
    Kind: text,
    Name: text,
    ...kept({ Certificate: always(text), PrivateKey: { ...always(text), secret: true } }),
  },
  "jwt-provider": {
    Kind: text,
    Name: text,
    ...kept({
      JSONWebKeySet: one({
        Local: one({ JWKS: text, Filename: text }),
        Remote: one({
          URI: text,
          RequestTimeoutMs: int,
          CacheDuration: nanoseconds,
          FetchAsynchronously: flag,
          UseSNI: flag,
          RetryPolicy: one({
            NumRetries: int,
            RetryPolicyBackOff: one({ BaseInterval: nanoseconds, MaxInterval: nanoseconds }),
          }),
          JWKSCluster: one({
            DiscoveryType: text,
            TLSCertificates: one({
              CaCertificateProviderInstance: one({ InstanceName: text, CertificateName: text }),
              TrustedCA: one({
                Filename: text,
                EnvironmentVariable: text,
                InlineString: text,
                InlineBytes: { as: "bytes" },
              }),
            }),
            ConnectTimeout: nanoseconds,
          }),
        }),
      }),
      Issuer: text,
      Audiences: texts,
      Locations: list({
        Header: one({ Name: text, ValuePrefix: text, Forward: flag }),
        QueryParam: one({ Name: text }),
        Cookie: one({ Name: text }),
      }),
      Forwarding: one({ HeaderName: text, PadForwardPayloadHeader: always(flag) }),
      ClockSkewSeconds: int,
      CacheConfig: one({ Size: int }),
    }),
  },
  mesh: {
    Kind: text,
    ...kept({
      TransparentProxy: value({ MeshDestinationsOnly: always(flag) }),
      AllowEnablingPermissiveMutualTLS: flag,
      ValidateClusters: flag,
      TLS: one({ Incoming: one(tlsParameters), Outgoing: one(tlsParameters) }),
      HTTP: one({
        SanitizeXForwardedClientCert: always(flag),
        Incoming: one({
          RequestNormalization: one({
            InsecureDisablePathNormalization: always(flag),
            MergeSlashes: always(flag),
            PathWithEscapedSlashesAction: always(text),
            HeadersWithUnderscoresAction: always(text),
          }),
        }),
      }),
    }),
    Peering: one({ PeerThroughMeshGateways: always(flag) }),
  },
  "proxy-defaults": {
    Kind: text,
    Name: text,
    Config: { as: "json", always: null },
    ...kept({
      ...proxyEntryShape,
      AccessLogs: value(accessLogs),
      EnvoyExtensions: envoyExtensions,
      FailoverPolicy: one(failoverPolicy),
      PrioritizeByLocality: prioritizeByLocality,
    }),
  },
  "sameness-group": {
    Kind: text,
    Name: text,
    ...kept({
      DefaultForFailover: flag,
      IncludeLocal: flag,
      Members: always(list({ Partition: text, Peer: text })),
    }),
  },
  "service-defaults": {
    Kind: text,
    Name: text,
    Protocol: always(text),
    ...kept({
      ...proxyEntryShape,
      ExternalSNI: text,
      UpstreamConfig: one({ Overrides: list(upstreamConfig), Defaults: one(upstreamConfig) }),
      Destination: one({ Addresses: texts, Port: int }),
      MaxInboundConnections: int,
      LocalConnectTimeoutMs: int,
      LocalRequestTimeoutMs: int,
      BalanceInboundConnections: text,
      RateLimits: rateLimits,
      EnvoyExtensions: envoyExtensions,
      // Consul 1.22.
      MaxRequestHeadersKB: pointer(uint32),
    }),
  },
  "service-intentions": {
    Kind: text,
    Name: text,
    JWT: jwtField,
    Sources: {
      ...list({
        Name: text,
        Action: textOf("structs.IntentionAction"),
        Permissions: permissionsField,
        Precedence: { as: "number" },
        LegacyID: writtenText,
        Type: { ...textOf("structs.IntentionSourceType"), always: "consul" },
        Description: text,
        LegacyMeta: textMap,
        LegacyCreateTime: writtenText,
        LegacyUpdateTime: writtenText,
        Peer: text,
        SamenessGroup: text,
      }),
      always: null,
    },
  },
  "service-resolver": {
    ConnectTimeout: duration,
    RequestTimeout: duration,
    Kind: text,
    Name: text,
    DefaultSubset: text,
    Subsets: map({ Filter: text, OnlyPassing: flag }),
    Redirect: one({ ...target, SamenessGroup: text }),
    Failover: map({
      Service: text,
      ServiceSubset: text,
      Namespace: text,
      SamenessGroup: text,
      Datacenters: texts,
      Targets: list(target),
      Policy: { ...one(failoverPolicy), kept: "here" },
    }),
    ...kept({ PrioritizeByLocality: prioritizeByLocality }),
    ...kept({ LoadBalancer: loadBalancer }),
  },
  "service-router": {
    Kind: text,
    Name: text,
    Routes: {
      ...list({
        Match: { ...one({ HTTP: one(httpMatch) }), kept: "here" },
        Destination: one({
          ...kept({ RequestTimeout: duration, IdleTimeout: duration }),
          Service: text,
          ServiceSubset: text,
          Namespace: text,
          Partition: text,
          ...kept({
            PrefixRewrite: text,
            NumRetries: uint32,
            RetryOnConnectFailure: flag,
            RetryOn: texts,
            RetryOnStatusCodes: { as: "uint32s" },
            RequestHeaders: headerModifiers,
            ResponseHeaders: headerModifiers,
          }),
        }),
      }),
      always: null,
    },
  },
  "service-splitter": {
    Kind: text,
    Name: text,
    Splits: {
      ...list({
        Weight: { as: "number", always: 0 },
        Service: text,
        ServiceSubset: text,
        Namespace: text,
        Partition: text,
        ...kept({ RequestHeaders: headerModifiers, ResponseHeaders: headerModifiers }),
      }),
      always: null,
    },
  },
  "tcp-route": {
    Kind: text,
    Name: text,
    ...kept({ Parents: always(list(reference)), Services: always(list({ Name: always(text) })) }),
    Meta: textMap,
    Status: status,
  },
  "terminating-gateway": {
    Kind: text,
    Name: text,
    Services: {
      ...list({
        Name: text,
        ...kept({
          CAFile: text,
          CertFile: text,
          KeyFile: text,
          SNI: text,
          DisableAutoHostRewrite: oneSpelling(flag),
        }),
      }),
      always: null,
    },
  },
};

/** The library's name: an abbreviation at the front is small as a whole, `jwt`, `http`, `pathExact`. */
export function ownName(name: string): string {
  return name.replace(/^(?:[A-Z]+$|[A-Z])/, (front) => front.toLowerCase());
}

/** The spelling with underscores. */
export function underscored(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replace(/([A-Z])([A-Z][a-z])/g, "$1_$2")
    .toLowerCase();
}
