import { errorText } from "../base/errors.js";
import { invalidEntry, listProblems } from "../model/entry-reader.js";
import type { JsonObject, JsonValue } from "../model/instance.js";
import { parseExpression } from "../syntax/filter-expression.js";
import { goQuote } from "../syntax/go-escape.js";
import { isDomainName } from "../syntax/names.js";
import type { ConfigEntry, ServiceResolverEntry, ServiceRoute } from "./config-entry.js";
import type { ConfigEntrySet } from "./config-entry-set.js";
import { certificateProblem } from "./entry-certificate.js";

// The rules of Consul (1.21) for fields that the library keeps and does not interpret, in Consul's words and order.

type Kept = JsonObject;

function member(from: JsonValue | undefined, name: string): JsonValue | undefined {
  return isObject(from) && Object.hasOwn(from, name) ? from[name] : undefined;
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(from: JsonValue | undefined, name: string): string {
  const value = member(from, name);
  return typeof value === "string" ? value : "";
}

function number(from: JsonValue | undefined, name: string): number {
  const value = member(from, name);
  return typeof value === "number" ? value : 0;
}

function isTrue(from: JsonValue | undefined, name: string): boolean {
  return member(from, name) === true;
}

function object(from: JsonValue | undefined, name: string): Kept | undefined {
  const value = member(from, name);
  return isObject(value) ? value : undefined;
}

function list(from: JsonValue | undefined, name: string): readonly JsonValue[] {
  const value = member(from, name);
  return Array.isArray(value) ? value : [];
}

function texts(from: JsonValue | undefined, name: string): readonly string[] {
  return list(from, name).filter((item) => typeof item === "string");
}

/** The items of a list, each as `change` makes it. */
function eachOf(from: Kept, name: string, change: (item: Kept) => Kept): Kept {
  if (member(from, name) === undefined) return from;
  return { ...from, [name]: list(from, name).map((item) => (isObject(item) ? change(item) : item)) };
}

function inside(from: Kept, name: string, change: (item: Kept) => Kept): Kept {
  const inner = object(from, name);
  return inner === undefined ? from : { ...from, [name]: change(inner) };
}

function lowered(from: Kept, name: string): Kept {
  const value = text(from, name);
  return value === "" ? from : { ...from, [name]: value.toLowerCase() };
}

function orElse(from: Kept, name: string, value: JsonValue): Kept {
  const before = member(from, name);
  return before === undefined || before === "" || before === 0 ? { ...from, [name]: value } : from;
}

// Defaults that Consul fills in.

function settledUpstream(upstream: Kept): Kept {
  const { ConnectTimeoutMs, ...rest } = lowered(upstream, "Protocol");
  return typeof ConnectTimeoutMs === "number" && ConnectTimeoutMs > 0 ? { ...rest, ConnectTimeoutMs } : rest;
}

function settledMatch(match: Kept): Kept {
  const method = text(match, "Method");
  const path = object(match, "Path") ?? {};
  return {
    ...match,
    ...(method === "" ? {} : { Method: method.toUpperCase() }),
    Path: text(path, "Match") === "" ? { Match: "prefix", Value: "/" } : path,
  };
}

function settledRouteService(service: Kept): Kept {
  return number(service, "Weight") > 0 ? service : { ...service, Weight: 1 };
}

function settled(kind: ConfigEntry["kind"], kept: Kept): Kept {
  switch (kind) {
    case "service-defaults":
      return inside(kept, "UpstreamConfig", (config) =>
        inside(eachOf(config, "Overrides", settledUpstream), "Defaults", settledUpstream),
      );
    case "ingress-gateway":
      return eachOf(kept, "Listeners", (listener) => lowered(orElse(listener, "Protocol", "tcp"), "Protocol"));
    case "api-gateway":
      return eachOf(kept, "Listeners", (listener) =>
        inside(lowered(listener, "Protocol"), "TLS", (tls) =>
          eachOf(tls, "Certificates", (certificate) => orElse(certificate, "Kind", "inline-certificate")),
        ),
      );
    case "http-route":
      return eachOf(
        eachOf(kept, "Parents", (parent) => orElse(parent, "Kind", "api-gateway")),
        "Rules",
        (rule) => eachOf(eachOf(rule, "Matches", settledMatch), "Services", settledRouteService),
      );
    case "tcp-route":
      return eachOf(kept, "Parents", (parent) => orElse(parent, "Kind", "api-gateway"));
    case "jwt-provider":
      return orElse(kept, "ClockSkewSeconds", 30);
    default:
      return kept;
  }
}

// Rules.

/** Says why something is refused; undefined: it is not. */
type Problem = string | undefined;

function firstOf<Item>(items: readonly Item[], problem: (item: Item, index: number) => Problem): Problem {
  for (const [index, item] of items.entries()) {
    const found = problem(item, index);
    if (found !== undefined) return found;
  }
  return undefined;
}

function prefixed(prefix: string, problem: Problem): Problem {
  return problem === undefined ? undefined : prefix + problem;
}

const TLS_VERSIONS = ["TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"];
const NEWEST_TLS = "TLSv1_3";
const CIPHER_SUITES: ReadonlySet<string> = new Set([
  "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
  "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
  "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
  "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
  "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
  "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
  "TLS_RSA_WITH_AES_128_GCM_SHA256",
  "TLS_RSA_WITH_AES_128_CBC_SHA",
  "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
  "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
  "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
  "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
  "TLS_RSA_WITH_AES_256_GCM_SHA384",
  "TLS_RSA_WITH_AES_256_CBC_SHA",
]);

function tlsProblem(least: string, most: string, suites: readonly string[]): Problem {
  for (const version of [least, most]) {
    if (version !== "" && !TLS_VERSIONS.includes(version)) {
      return `no matching TLS version found for ${version}, please specify one of [${TLS_VERSIONS.join(", ")}]`;
    }
  }
  // `TLS_AUTO` compares with nothing.
  if (least.startsWith("TLSv") && most.startsWith("TLSv") && most < least) {
    return `configuring max version ${most} less than the configured min version ${least} is invalid`;
  }
  if (suites.length === 0) return undefined;
  if (least === NEWEST_TLS) {
    return `configuring CipherSuites is only applicable to connections negotiated with TLS 1.2 or earlier, TLSMinVersion is set to ${least}`;
  }
  const unknown = suites.filter((suite) => !CIPHER_SUITES.has(suite));
  return unknown.length === 0 ? undefined : `no matching Envoy TLS cipher suite found for ${unknown.join(",")}`;
}

function tlsParametersProblem(tls: Kept | undefined): Problem {
  return tlsProblem(text(tls, "TLSMinVersion"), text(tls, "TLSMaxVersion"), texts(tls, "CipherSuites"));
}

function hasOuterWildcard(host: string): boolean {
  return host.replace(/^\*\./, "").includes("*");
}

const HTTP_PROTOCOLS = ["http", "http2", "grpc"];

function headersProblem(headers: Kept | undefined, protocol: string): Problem {
  const empty = headers === undefined || Object.keys(headers).length === 0;
  return empty || HTTP_PROTOCOLS.includes(protocol) ? undefined : "only valid for http, http2 and grpc protocols";
}

/** Certificates from a secret discovery service, at the gateway, its listener and the service. */
function sdsProblem(gateway: Kept, listener: Kept, service: Kept): Problem {
  const port = number(listener, "Port");
  const name = goQuote(text(service, "Name"));
  const sds = (from: Kept): Kept | undefined => object(object(from, "TLS"), "SDS");
  const cluster = (from: Kept): boolean => text(sds(from), "ClusterName") !== "";
  const certificate = (from: Kept): boolean => text(sds(from), "CertResource") !== "";
  if (!cluster(gateway) && certificate(gateway)) return "TLS.SDS.ClusterName is required if CertResource is set";
  if (cluster(gateway) && !certificate(gateway) && !certificate(listener)) {
    return `TLS.SDS.CertResource is required if ClusterName is set for gateway (listener on port ${port})`;
  }
  if (cluster(listener) && !certificate(listener)) {
    return `TLS.SDS.CertResource is required if ClusterName is set for listener (listener on port ${port})`;
  }
  if (certificate(listener) && !cluster(listener) && !cluster(gateway)) {
    return `TLS.SDS.ClusterName is required if CertResource is set (listener on port ${port})`;
  }
  if (!certificate(service)) return undefined;
  if (texts(service, "Hosts").length === 0) {
    return `A service specifying TLS.SDS.CertResource must have at least one item in Hosts (service ${name} on listener on port ${port})`;
  }
  return cluster(service) || cluster(listener) || cluster(gateway)
    ? undefined
    : `TLS.SDS.ClusterName is required if CertResource is set (service ${name} on listener on port ${port})`;
}

function hostProblem(host: string, tls: boolean): Problem {
  if (host === "*") {
    return tls
      ? "Host '*' is not allowed when TLS is enabled, all hosts must be valid DNS records to add as a DNSSAN"
      : undefined;
  }
  if (!isDomainName(host)) return `Host ${goQuote(host)} must be a valid DNS hostname`;
  return hasOuterWildcard(host)
    ? `Host ${goQuote(host)} is not valid, a wildcard specifier is only allowed as the leftmost label`
    : undefined;
}

function objects(from: Kept, name: string): readonly Kept[] {
  return list(from, name).filter(isObject);
}

function ingressServiceProblem(gateway: Kept, listener: Kept, service: Kept, names: Set<string>): Problem {
  const where = `(listener on port ${number(listener, "Port")})`;
  const protocol = text(listener, "Protocol");
  const name = text(service, "Name");
  const hosts = texts(service, "Hosts");
  for (const [field, called] of [
    ["RequestHeaders", "request headers"],
    ["ResponseHeaders", "response headers"],
  ] as const) {
    const problem = headersProblem(object(service, field), protocol);
    if (problem !== undefined) {
      return `${called} ${problem} (service ${goQuote(name)} on listener on port ${number(listener, "Port")})`;
    }
  }
  if (protocol === "tcp") {
    if (name === "*") return `Wildcard service name is only valid for protocol = 'http' ${where}`;
    if (hosts.length > 0) return `Associating hosts to a service is not supported for the tcp protocol ${where}`;
  }
  if (name === "") return `Service name cannot be blank ${where}`;
  if (name === "*" && hosts.length > 0) return `Associating hosts to a wildcard service is not supported ${where}`;
  if (names.has(name)) return `Service ${name} cannot be added multiple times ${where}`;
  names.add(name);
  return sdsProblem(gateway, listener, service);
}

function ingressProblem(gateway: Kept): Problem {
  const ports = new Set<number>();
  return (
    tlsParametersProblem(object(gateway, "TLS")) ??
    firstOf(objects(gateway, "Listeners"), (listener) => {
      const port = number(listener, "Port");
      const protocol = text(listener, "Protocol");
      const services = objects(listener, "Services");
      if (ports.has(port)) return `port ${port} declared on two listeners`;
      ports.add(port);
      if (protocol !== "tcp" && !HTTP_PROTOCOLS.includes(protocol)) {
        return `protocol must be 'tcp', 'http', 'http2', or 'grpc'. '${protocol}' is an unsupported protocol`;
      }
      if (services.length === 0) return `No service declared for listener with port ${port}`;
      if (protocol === "tcp" && services.length > 1) {
        return `Multiple services per listener are only supported for L7 protocols, 'http', 'grpc' and 'http2' (listener on port ${port})`;
      }
      const names = new Set<string>();
      const hosts = new Set<string>();
      return (
        tlsParametersProblem(object(listener, "TLS")) ??
        firstOf(
          services,
          (service) =>
            ingressServiceProblem(gateway, listener, service, names) ??
            firstOf(texts(service, "Hosts"), (host) => {
              if (hosts.has(host)) {
                return `Hosts must be unique within a specific listener (listener on port ${port})`;
              }
              hosts.add(host);
              return hostProblem(host, isTrue(object(gateway, "TLS"), "Enabled"));
            }),
        )
      );
    })
  );
}

const LISTENER_NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

function apiListenerProblem(listener: Kept): Problem {
  const protocol = text(listener, "Protocol");
  const hostname = text(listener, "Hostname");
  const port = number(listener, "Port");
  const tls = object(listener, "TLS") ?? {};
  if (protocol !== "http" && protocol !== "tcp") {
    return `unsupported listener protocol ${goQuote(protocol)}, must be one of 'tcp', or 'http'`;
  }
  if (protocol === "tcp" && hostname !== "") return "hostname specification is not supported when using TCP";
  if (port <= 0 || port > 65_535) return `listener port ${port} not in the range 1-65535`;
  if (hasOuterWildcard(hostname)) {
    return `host ${goQuote(hostname)} is not valid, a wildcard specifier is only allowed as the left-most label`;
  }
  return (
    firstOf(objects(tls, "Certificates"), (certificate) => {
      const kind = text(certificate, "Kind");
      if (kind !== "file-system-certificate" && kind !== "inline-certificate") {
        return `unsupported certificate kind: ${goQuote(kind)}, must be 'file-system-certificate' or 'inline-certificate'`;
      }
      return text(certificate, "Name") === "" ? "certificate reference must have a name" : undefined;
    }) ?? tlsProblem(text(tls, "MinVersion"), text(tls, "MaxVersion"), texts(tls, "CipherSuites"))
  );
}

function apiGatewayProblem(gateway: Kept): Problem {
  const listeners = objects(gateway, "Listeners");
  if (listeners.length === 0) return "api gateway must have at least one listener";
  const names = new Set<string>();
  const byPort = new Map<number, Kept>();
  return (
    firstOf(listeners, (listener) => {
      const name = text(listener, "Name");
      if (!LISTENER_NAME.test(name)) {
        return `listener name ${goQuote(name)} is invalid, must be at least 1 character and contain only letters, numbers, or dashes`;
      }
      if (names.has(name)) return `found multiple listeners with the name ${goQuote(name)}`;
      names.add(name);
      return undefined;
    }) ??
    firstOf(listeners, (listener) => {
      const other = byPort.get(number(listener, "Port"));
      byPort.set(number(listener, "Port"), listener);
      const differs = ["Hostname", "Protocol"].some((name) => text(other, name) !== text(listener, name));
      return other !== undefined && differs
        ? `listeners ${goQuote(text(other, "Name"))} and ${goQuote(text(listener, "Name"))} cannot be merged`
        : undefined;
    }) ??
    firstOf(listeners, apiListenerProblem)
  );
}

function parentsProblem(route: Kept): Problem {
  const seen = new Set<string>();
  return firstOf(objects(route, "Parents"), (parent) => {
    const kind = text(parent, "Kind");
    if (kind !== "api-gateway") return `unsupported parent kind: ${goQuote(kind)}, must be 'api-gateway'`;
    const id = JSON.stringify([text(parent, "Name"), text(parent, "SectionName")]);
    if (seen.has(id)) return "route parents must be unique";
    seen.add(id);
    return undefined;
  });
}

const HTTP_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

function namedMatchProblem(match: Kept, types: readonly string[], said: string): Problem {
  if (text(match, "Name") === "") return "missing required Name field";
  return types.includes(text(match, "Match")) ? undefined : `match type should be one of ${said}`;
}

function routeMatchProblem(match: Kept): Problem {
  const method = text(match, "Method");
  if (method !== "" && !HTTP_METHODS.includes(method)) return `Method contains an invalid method ${goQuote(method)}`;
  const path = object(match, "Path");
  const type = text(path, "Match");
  const value = text(path, "Value");
  return (
    firstOf(objects(match, "Query"), (query, index) =>
      prefixed(
        `Query[${index}], `,
        namedMatchProblem(query, ["exact", "present", "regex"], "present, exact, or regex"),
      ),
    ) ??
    firstOf(objects(match, "Headers"), (header, index) =>
      prefixed(
        `Headers[${index}], `,
        namedMatchProblem(
          header,
          ["exact", "prefix", "regex", "suffix", "present"],
          "present, exact, prefix, suffix, or regex",
        ),
      ),
    ) ??
    (type === "regex"
      ? undefined
      : type !== "exact" && type !== "prefix"
        ? "Path, match type should be one of exact, prefix, or regex"
        : value.startsWith("/")
          ? undefined
          : `Path, ${type} type match doesn't start with '/': ${goQuote(value)}`)
  );
}

function httpRouteProblem(route: Kept): Problem {
  return (
    firstOf(texts(route, "Hostnames"), (host) => {
      if (!isDomainName(host)) return `host ${goQuote(host)} must be a valid DNS hostname`;
      return host.includes("*") ? `host ${goQuote(host)} must not be a wildcard` : undefined;
    }) ??
    parentsProblem(route) ??
    firstOf(objects(route, "Rules"), (rule, at) =>
      firstOf(objects(rule, "Matches"), (match, index) =>
        prefixed(`Rule[${at}], Match[${index}], `, routeMatchProblem(match)),
      ),
    )
  );
}

function terminatingServiceProblem(name: string, kept: Kept): Problem {
  const given = (field: string): boolean => text(kept, field) !== "";
  const whole = ["CAFile", "CertFile", "KeyFile"].every(given);
  return (given("CertFile") || given("KeyFile")) && !whole
    ? `Service ${goQuote(name)} must have a CertFile, CAFile, and KeyFile specified for TLS origination`
    : undefined;
}

const PATH_ACTIONS = [
  "IMPLEMENTATION_SPECIFIC_DEFAULT",
  "KEEP_UNCHANGED",
  "REJECT_REQUEST",
  "UNESCAPE_AND_REDIRECT",
  "UNESCAPE_AND_FORWARD",
];
const HEADER_ACTIONS = ["ALLOW", "REJECT_REQUEST", "DROP_HEADER"];

function actionProblem(from: Kept | undefined, name: string, actions: readonly string[]): Problem {
  const action = text(from, name);
  return action === "" || actions.includes(action)
    ? undefined
    : `no matching ${name} value found for ${action}, please specify one of [${actions.join(", ")}]`;
}

function meshProblem(mesh: Kept): Problem {
  const tls = object(mesh, "TLS");
  const requests = object(object(object(mesh, "HTTP"), "Incoming"), "RequestNormalization");
  return (
    prefixed("error in incoming TLS configuration: ", tlsParametersProblem(object(tls, "Incoming"))) ??
    prefixed("error in outgoing TLS configuration: ", tlsParametersProblem(object(tls, "Outgoing"))) ??
    prefixed(
      "error in HTTP incoming request normalization configuration: ",
      actionProblem(requests, "PathWithEscapedSlashesAction", PATH_ACTIONS) ??
        actionProblem(requests, "HeadersWithUnderscoresAction", HEADER_ACTIONS),
    )
  );
}

const DISCOVERY_TYPES = ["STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST"];

function given(from: Kept | undefined, names: readonly string[]): number {
  return names.filter((name) => member(from, name) !== undefined).length;
}

function isBase64(value: string): boolean {
  const joined = value.replace(/[\r\n]/g, "");
  return joined.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(joined);
}

function remoteKeysProblem(remote: Kept): Problem {
  const uri = text(remote, "URI");
  if (uri === "") return "Remote JWKS URI is required";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are looked for.
  if (/[\x00-\x1f\x7f]/.test(uri)) {
    return `Remote JWKS URI is invalid: parse ${goQuote(uri)}: net/url: invalid control character in URL, uri: ${uri}`;
  }
  if (!uri.startsWith("/") && !/^[a-zA-Z][a-zA-Z0-9+.-]*:/.test(uri)) {
    return `Remote JWKS URI is invalid: parse ${goQuote(uri)}: invalid URI for request, uri: ${uri}`;
  }
  const backOff = object(object(remote, "RetryPolicy"), "RetryPolicyBackOff");
  const longest = number(backOff, "MaxInterval");
  if (longest !== 0 && number(backOff, "BaseInterval") > longest) {
    return "retry policy backoff's MaxInterval should be greater or equal to BaseInterval";
  }
  const cluster = object(remote, "JWKSCluster");
  const type = text(cluster, "DiscoveryType");
  if (type !== "" && !DISCOVERY_TYPES.includes(type)) {
    return `unsupported jwks cluster discovery type: ${goQuote(type)}`;
  }
  const certificates = object(cluster, "TLSCertificates");
  if (certificates === undefined) return undefined;
  if (given(certificates, ["CaCertificateProviderInstance", "TrustedCA"]) !== 1) {
    return "must specify exactly one of: CaCertificateProviderInstance or TrustedCA for JKWS' TLSCertificates";
  }
  const trusted = object(certificates, "TrustedCA");
  const places = ["Filename", "EnvironmentVariable", "InlineString", "InlineBytes"];
  return trusted !== undefined && given(trusted, places) !== 1
    ? "must specify exactly one of: Filename, EnvironmentVariable, InlineString or InlineBytes for JWKS' TrustedCA"
    : undefined;
}

function keySetProblem(keys: Kept): Problem {
  const local = object(keys, "Local");
  const remote = object(keys, "Remote");
  if ((local === undefined) === (remote === undefined)) {
    return "must specify exactly one of Local or Remote JSON Web key set";
  }
  if (remote !== undefined) return remoteKeysProblem(remote);
  if (given(local, ["JWKS", "Filename"]) !== 1) {
    return "must specify exactly one of String or filename for local keyset";
  }
  return isBase64(text(local, "JWKS")) ? undefined : "JWKS must be valid base64 encoded string";
}

const LOCATIONS = { Header: "header", Cookie: "cookie", QueryParam: "query param" } as const;

function jwtProviderProblem(provider: Kept): Problem {
  const keys = object(provider, "JSONWebKeySet");
  if (keys === undefined) return "JSONWebKeySet is required";
  const problem = keySetProblem(keys);
  if (problem !== undefined) return problem;
  const places = objects(provider, "Locations").flatMap((location) => {
    if (given(location, Object.keys(LOCATIONS)) !== 1) {
      return ["must set exactly one of: JWT location header, query param or cookie"];
    }
    return Object.entries(LOCATIONS)
      .filter(([name]) => member(location, name) !== undefined && text(object(location, name), "Name") === "")
      .map(([, called]) => `JWT location ${called} name must be specified`);
  });
  if (places.length > 0) return listProblems(places);
  const forwarding = object(provider, "Forwarding");
  return forwarding !== undefined && text(forwarding, "HeaderName") === ""
    ? "Header name required for forwarding config"
    : undefined;
}

// Proxies.

const MTLS_MODES = ["", "strict", "permissive"];

function mutualTlsProblem(kept: Kept): Problem {
  const mode = text(kept, "MutualTLSMode");
  if (MTLS_MODES.includes(mode)) return undefined;
  return `Invalid MutualTLSMode ${goQuote(mode)}. Must be one of "", "strict", or "permissive".`;
}

const EXTENSIONS = ["aws/lambda", "ext-authz", "lua", "otel-access-logging", "property-override", "wasm"].map(
  (name) => `builtin/${name}`,
);

/** The arguments are not judged here: the proxy does that. */
function extensionProblems(kept: Kept): readonly string[] {
  return objects(kept, "EnvoyExtensions").flatMap((extension, index) => {
    const name = text(extension, "Name");
    if (name === "") return [`invalid EnvoyExtensions[${index}]: Name is required`];
    if (EXTENSIONS.includes(name)) return [];
    return [`invalid EnvoyExtensions[${index}][${name}]: name ${goQuote(name)} is not a built-in extension`];
  });
}

function balanceProblem(value: string, field: string): readonly string[] {
  return value === "" || value === "exact_balance" ? [] : [`invalid value for ${field}: ${value}`];
}

function upstreamProblems(upstream: Kept): readonly string[] {
  const check = object(upstream, "PassiveHealthCheck");
  const limits = object(upstream, "Limits");
  const of = "passive health check";
  const percentage = (name: string): boolean => number(check, name) > 100;
  const health =
    number(check, "Interval") < 0
      ? [`${of} interval cannot be negative`]
      : percentage("EnforcingConsecutive5xx")
        ? [`${of} enforcing_consecutive_5xx must be a percentage between 0 and 100`]
        : percentage("MaxEjectionPercent")
          ? [`${of} max_ejection_percent must be a percentage between 0 and 100`]
          : number(check, "BaseEjectionTime") < 0
            ? [`${of} base_ejection_time cannot be negative`]
            : [];
  const negative = (
    [
      ["MaxConnections", "max connections"],
      ["MaxPendingRequests", "max pending requests"],
      ["MaxConcurrentRequests", "max concurrent requests"],
    ] as const
  ).find(([name]) => number(limits, name) < 0);
  return [
    ...health,
    ...(negative === undefined ? [] : [`${negative[1]} cannot be negative`]),
    ...balanceProblem(text(upstream, "BalanceOutboundConnections"), "balance_outbound_connections"),
  ];
}

function upstreamConfigProblems(config: Kept): readonly string[] {
  const overrides = objects(config, "Overrides").flatMap((override) => {
    const name = text(override, "Name");
    const peer = text(override, "Peer");
    const of = `error in upstream override for ${name}:${peer}: `;
    if (name === "") return [`${of}Name is required`];
    if (name === "*") return [`${of}Wildcard name is not supported`];
    const problems = upstreamProblems(override);
    return problems.length === 0 ? [] : [of + listProblems(problems)];
  });
  const defaults = object(config, "Defaults");
  if (defaults === undefined) return overrides;
  const problems = upstreamProblems(defaults);
  const problem =
    text(defaults, "Name") === "" ? (problems.length === 0 ? undefined : listProblems(problems)) : "Name must be empty";
  return [...overrides, ...(problem === undefined ? [] : [`error in upstream defaults: ${problem}`])];
}

const ADDRESS = /^(?:\d{1,3}(?:\.\d{1,3}){3}|(?=[^:]*:)[0-9a-fA-F:.]+)$/;

function destinationProblems(destination: Kept): readonly string[] {
  const addresses = texts(destination, "Addresses");
  const seen = new Set<string>();
  const port = number(destination, "Port");
  return [
    ...(addresses.length === 0 ? ["Destination must contain at least one valid address"] : []),
    ...addresses.flatMap((address) => {
      if (seen.has(address)) return [`Duplicate address '${address}' is not allowed`];
      seen.add(address);
      if (ADDRESS.test(address) || (isDomainName(address) && !address.includes("*"))) return [];
      return [`Destination address '${address}' is invalid Could not validate address ${address} as an IP or Hostname`];
    }),
    ...(port < 1 || port > 65_535 ? [`Invalid Port number ${port}`] : []),
  ];
}

function serviceDefaultsProblem(kept: Kept): Problem {
  const upstreams = object(kept, "UpstreamConfig");
  const destination = object(kept, "Destination");
  const first = balanceProblem(text(kept, "BalanceInboundConnections"), "balance_inbound_connections");
  if (upstreams !== undefined && destination !== undefined) {
    return listProblems([...first, "UpstreamConfig and Destination are mutually exclusive for service defaults"]);
  }
  const problems = [
    ...first,
    ...(upstreams === undefined ? [] : upstreamConfigProblems(upstreams)),
    ...(destination === undefined ? [] : destinationProblems(destination)),
    ...(member(kept, "RateLimits") === undefined
      ? []
      : ["invalid rate_limits config. Rate limiting is a consul enterprise feature"]),
    ...extensionProblems(kept),
  ];
  return mutualTlsProblem(kept) ?? (problems.length === 0 ? undefined : listProblems(problems));
}

function accessLogsProblem(logs: Kept | undefined): Problem {
  const type = text(logs, "Type");
  const path = text(logs, "Path");
  const format = text(logs, "JSONFormat");
  if (type === "file" && path === "") return "path must be specified when using file type access logs";
  if (!["", "file", "stderr", "stdout"].includes(type)) return `invalid access log type: ${type}`;
  if (format !== "" && text(logs, "TextFormat") !== "") {
    return "cannot specify both access log JSONFormat and TextFormat";
  }
  if (type !== "file" && path !== "") return "path is only valid for file type access logs";
  if (format === "") return undefined;
  try {
    JSON.parse(format);
    return undefined;
  } catch {
    return "invalid access log json for JSON format: it is not JSON";
  }
}

const FAILOVER_MODES = ["", "sequential", "order-by-locality"];

function localityProblem(kept: Kept): Problem {
  return text(object(kept, "PrioritizeByLocality"), "Mode") === ""
    ? undefined
    : "Prioritize-by-locality requires Consul Enterprise ";
}

function proxyDefaultsProblem(kept: Kept): Problem {
  const extensions = extensionProblems(kept);
  return (
    accessLogsProblem(object(kept, "AccessLogs")) ??
    (extensions.length === 0 ? undefined : listProblems(extensions)) ??
    (FAILOVER_MODES.includes(text(object(kept, "FailoverPolicy"), "Mode"))
      ? undefined
      : "Failover-policy mode must be one of '', 'sequential', or 'order-by-locality'") ??
    localityProblem(kept) ??
    mutualTlsProblem(kept)
  );
}

// Discovery chains.

/** Whether the fields of a filter exist is not asked: it may be written before there are services to try it on. */
function subsetsProblem({ subsets = {} }: ServiceResolverEntry): Problem {
  return firstOf(Object.entries(subsets), ([subset, { filter = "" }]) => {
    if (filter === "") return undefined;
    try {
      parseExpression(filter);
    } catch (error) {
      return `Filter for subset ${goQuote(subset)} is not a valid expression: ${errorText(error)}`;
    }
    return undefined;
  });
}

const RETRY_CONDITIONS = [
  "5xx",
  "gateway-error",
  "reset",
  "connect-failure",
  "envoy-ratelimited",
  "retriable-4xx",
  "refused-stream",
  "cancelled",
  "deadline-exceeded",
  "internal",
  "resource-exhausted",
  "unavailable",
];

/** How many of the fields say something. */
function said(from: Kept, names: readonly string[]): number {
  return names.filter((name) => text(from, name) !== "" || isTrue(from, name)).length;
}

function routeProblem({ match, destination }: ServiceRoute, index: number): Problem {
  const route = `Route[${index}]`;
  const http = object(match, "HTTP") ?? {};
  const paths = ["PathExact", "PathPrefix", "PathRegex"];
  for (const name of ["PathExact", "PathPrefix"]) {
    const value = text(http, name);
    if (value !== "" && !value.startsWith("/")) return `${route} ${name} doesn't start with '/': ${goQuote(value)}`;
  }
  if (said(http, paths) > 1) {
    return `${route} should only contain at most one of PathExact, PathPrefix, or PathRegex`;
  }
  const matcher = (called: string, kinds: readonly string[], listed: string) => (each: Kept, at: number) => {
    if (text(each, "Name") === "") return `${route} ${called}[${at}] missing required Name field`;
    return said(each, kinds) === 1 ? undefined : `${route} ${called}[${at}] should only contain one of ${listed}`;
  };
  const header = matcher(
    "Header",
    ["Present", "Exact", "Regex", "Prefix", "Suffix"],
    "Present, Exact, Prefix, Suffix, or Regex",
  );
  const parameter = matcher("QueryParam", ["Present", "Exact", "Regex"], "Present, Exact, or Regex");
  const methods = texts(http, "Methods");
  return (
    firstOf(objects(http, "Header"), header) ??
    firstOf(objects(http, "QueryParam"), parameter) ??
    firstOf(methods, (method, at) => {
      if (!HTTP_METHODS.includes(method)) return `${route} Methods contains an invalid method ${goQuote(method)}`;
      return methods.indexOf(method) < at ? `${route} Methods contains ${goQuote(method)} more than once` : undefined;
    }) ??
    (text(destination?.extra, "PrefixRewrite") !== "" && said(http, ["PathExact", "PathPrefix"]) === 0
      ? `${route} cannot make use of PrefixRewrite without configuring either PathExact or PathPrefix`
      : undefined) ??
    firstOf(texts(destination?.extra, "RetryOn"), (condition) =>
      RETRY_CONDITIONS.includes(condition)
        ? undefined
        : `${route} contains an invalid retry condition: ${goQuote(condition)}`,
    )
  );
}

const BALANCERS = ["", "random", "round_robin", "least_request", "ring_hash", "maglev"];
const HASHED = ["header", "cookie", "query_parameter"];

function hashProblem(policy: Kept, index: number): Problem {
  const bad = `Bad LoadBalancer HashPolicy[${index}]:`;
  const field = text(policy, "Field");
  const value = text(policy, "FieldValue");
  const source = isTrue(policy, "SourceIP");
  const cookie = object(policy, "CookieConfig");
  if (field !== "" && !HASHED.includes(field)) return `${bad} ${goQuote(field)} is not a supported field`;
  if (source && field !== "") {
    return `${bad} A single hash policy cannot hash both a source address and a ${goQuote(field)}`;
  }
  if (source && value !== "") return `${bad} A FieldValue cannot be specified when hashing SourceIP`;
  if (field !== "" && value === "") return `${bad} Field ${goQuote(field)} was specified without a FieldValue`;
  if (value !== "" && field === "") return `${bad} FieldValue requires a Field to apply to`;
  if (cookie === undefined) return undefined;
  if (field !== "cookie") return `${bad} cookie_config provided for ${goQuote(field)}`;
  return isTrue(cookie, "Session") && number(cookie, "TTL") !== 0
    ? `${bad} a session cookie cannot have an associated TTL`
    : undefined;
}

function balancerProblem(balancer: Kept | undefined): Problem {
  if (balancer === undefined) return undefined;
  const policy = text(balancer, "Policy");
  if (!BALANCERS.includes(policy)) return `Bad LoadBalancer policy: ${goQuote(policy)} is not supported`;
  for (const [field, only] of [
    ["RingHashConfig", "ring_hash"],
    ["LeastRequestConfig", "least_request"],
  ] as const) {
    if (policy !== only && member(balancer, field) !== undefined) {
      return `Bad LoadBalancer configuration. ${field} specified for incompatible load balancing policy ${goQuote(policy)}`;
    }
  }
  const policies = objects(balancer, "HashPolicies");
  return policies.length > 0 && policy !== "ring_hash" && policy !== "maglev"
    ? `Bad LoadBalancer configuration: HashPolicies specified for non-hash-based Policy: ${goQuote(policy)}`
    : firstOf(policies, hashProblem);
}

function keptProblem(entry: ConfigEntry, kept: Kept): Problem {
  switch (entry.kind) {
    case "api-gateway":
      return apiGatewayProblem(kept);
    case "bound-api-gateway":
      return "only writeable by controller";
    case "http-route":
      return httpRouteProblem(kept);
    case "ingress-gateway":
      return ingressProblem(kept);
    case "inline-certificate":
      return certificateProblem(text(kept, "Certificate"), text(kept, "PrivateKey"));
    case "jwt-provider":
      return entry.name === "" ? "Name is required" : jwtProviderProblem(kept);
    case "mesh":
      return meshProblem(kept);
    case "proxy-defaults":
      return proxyDefaultsProblem(kept);
    case "sameness-group":
      return "sameness-groups are an enterprise-only feature";
    case "service-defaults":
      return serviceDefaultsProblem(kept);
    case "service-resolver":
      return subsetsProblem(entry) ?? localityProblem(kept) ?? balancerProblem(object(kept, "LoadBalancer"));
    case "service-router":
      return firstOf(entry.routes, routeProblem);
    case "tcp-route":
      return list(kept, "Services").length > 1 ? "tcp-route currently only supports one service" : parentsProblem(kept);
    case "terminating-gateway":
      return firstOf(entry.services, ({ name, extra }) => terminatingServiceProblem(name, extra ?? {}));
    default:
      return undefined;
  }
}

/** The error of Consul's store for a record that it has no key for. */
const NO_KEY = "failed inserting config entry: object missing primary index";

function withLargeMethods(entry: ConfigEntry): ConfigEntry {
  if (entry.kind !== "service-router") return entry;
  const routes = entry.routes.map((route) =>
    route.match === undefined
      ? route
      : {
          ...route,
          match: inside(route.match, "HTTP", (http) =>
            member(http, "Methods") === undefined
              ? http
              : { ...http, Methods: texts(http, "Methods").map((method) => method.toUpperCase()) },
          ),
        },
  );
  return { ...entry, routes };
}

/**
 * The entry as Consul stores it: with defaults filled in.
 * @throws {PeeringError} `invalid-entry` in Consul's words.
 */
export function settledEntry(entry: ConfigEntry): ConfigEntry {
  const { extra, ...given } = entry;
  const kept = settled(entry.kind, extra ?? {});
  const rest = withLargeMethods(given);
  const problem = keptProblem(rest, kept);
  if (problem !== undefined) throw invalidEntry(problem);
  if (entry.name === "") throw invalidEntry(entry.kind === "ingress-gateway" ? NO_KEY : "serviceName is required");
  return Object.keys(kept).length === 0 ? rest : { ...rest, extra: kept };
}

const CLASHES = { "ingress-gateway": "terminating-gateway", "terminating-gateway": "ingress-gateway" } as const;

/**
 * The rules between an entry that is to be written and the stored ones.
 * @throws {PeeringError} `invalid-entry` in Consul's words.
 */
export function checkNeighbours(before: ConfigEntrySet, entry: ConfigEntry): void {
  const { kind, name } = entry;
  if (kind === "ingress-gateway" || kind === "terminating-gateway") {
    const other = CLASHES[kind];
    if (before.get(other, name) !== undefined) {
      throw invalidEntry(
        `cannot create a "${kind}" config entry with name ${goQuote(name)}, a "${other}" config entry with that name already exists`,
      );
    }
  }
  if (kind === "service-defaults" || kind === "proxy-defaults") {
    const mode = (each: ConfigEntry | undefined): string => text(each?.extra, "MutualTLSMode");
    const allowed = isTrue(before.get("mesh", "mesh")?.extra, "AllowEnablingPermissiveMutualTLS");
    if (mode(entry) === "permissive" && mode(before.get(kind, name)) !== "permissive" && !allowed) {
      throw invalidEntry(
        "cannot set MutualTLSMode=permissive because AllowEnablingPermissiveMutualTLS=false in the mesh config entry",
      );
    }
  }
}
