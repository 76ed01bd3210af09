import { joinHostPort } from "../base/host-port.js";
import type { JsonObject, JsonValue, Proxy as ProxyDefinition } from "./instance.js";

// The rules of Consul (1.21) for the proxy of a service, in its words and order.

/** A member that is a text; `""` where there is none. */
export function textOf(from: JsonValue | undefined, name: string): string {
  const value = memberOf(from, name);
  return typeof value === "string" ? value : "";
}

function numberOf(from: JsonValue | undefined, name: string): number {
  const value = memberOf(from, name);
  return typeof value === "number" ? value : 0;
}

export function memberOf(from: JsonValue | undefined, name: string): JsonValue | undefined {
  return typeof from === "object" && from !== null && !isList(from) && Object.hasOwn(from, name)
    ? from[name]
    : undefined;
}

function listOf(from: JsonValue | undefined, name: string): readonly JsonValue[] {
  const value = memberOf(from, name);
  return value !== undefined && isList(value) ? value : [];
}

function isList(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}

const MAX_SOCKET_DIRECTORY = 70;

/** The rules on the proxy of a `connect-proxy`. */
export function proxyProblems(proxy: ProxyDefinition | undefined): readonly string[] {
  return [
    ...configProblems(proxy?.config),
    ...upstreamProblems(proxy?.upstreams ?? []),
    ...exposeProblems(listOf(memberOf(proxy?.extra, "Expose"), "Paths")),
  ];
}

function configProblems(config: JsonObject | undefined): readonly string[] {
  const { length } = Buffer.from(textOf(config, "envoy_hcp_metrics_bind_socket_dir"));
  return length > MAX_SOCKET_DIRECTORY
    ? [`Proxy.Config: envoy_hcp_metrics_bind_socket_dir length ${length} exceeds max ${MAX_SOCKET_DIRECTORY}`]
    : [];
}

function upstreamProblems(upstreams: readonly JsonObject[]): readonly string[] {
  const targets = new Set<string>();
  const binds = new Set<string>();
  return upstreams.flatMap((upstream) => {
    const problem = upstreamProblem(upstream);
    if (problem !== undefined) return [problem];
    const target = targetOf(upstream);
    if (targets.has(target)) return [`upstreams cannot contain duplicates of ${target}`];
    targets.add(target);
    const bind = bindOf(upstream);
    if (binds.has(bind) && memberOf(upstream, "centrallyConfigured") !== true) {
      return [
        `upstreams cannot contain duplicates by local bind address and port or unix path; ${JSON.stringify(bind)} is specified twice`,
      ];
    }
    binds.add(bind);
    return [];
  });
}

function upstreamProblem(upstream: JsonObject): string | undefined {
  const peer = textOf(upstream, "destinationPeer");
  const partition = textOf(upstream, "destinationPartition");
  const datacenter = textOf(upstream, "datacenter");
  // The Community Edition has one partition, with two spellings.
  const otherPartition = partition !== "" && partition !== "default";
  if (peer !== "" && otherPartition) return "upstreams must target peers in the same partition as the service";
  if (datacenter !== "" && otherPartition) return "upstreams cannot target another datacenter in non default partition";
  const type = textOf(upstream, "destinationType");
  if (!["", "service", "prepared_query"].includes(type)) {
    return `unknown upstream destination type: ${JSON.stringify(type)}`;
  }
  const name = textOf(upstream, "destinationName");
  const central = memberOf(upstream, "centrallyConfigured") === true;
  if (name === "") return "upstream destination name cannot be empty";
  if (name === "*" && !central) return "upstream destination name cannot be a wildcard";
  if (peer !== "" && datacenter !== "") return "upstream cannot specify both destination peer and datacenter";
  const port = numberOf(upstream, "localBindPort");
  const path = textOf(upstream, "localBindSocketPath");
  if (central || (port !== 0) !== (path !== "")) return undefined;
  return port === 0
    ? "upstream local bind port or local socket path must be defined and nonzero"
    : "only one of upstream local bind port or local socket path can be defined and nonzero";
}

function targetOf(upstream: JsonObject): string {
  const named = (
    [
      ["type", "destinationType"],
      ["name", "destinationName"],
      ["partition", "destinationPartition"],
      ["namespace", "destinationNamespace"],
      ["peer", "destinationPeer"],
      ["datacenter", "datacenter"],
    ] as const
  ).map(([called, field]) => `${called}=${JSON.stringify(textOf(upstream, field))}`);
  return `[${named.join(", ")}]`;
}

function bindOf(upstream: JsonObject): string {
  const port = numberOf(upstream, "localBindPort");
  const address = textOf(upstream, "localBindAddress");
  const path = textOf(upstream, "localBindSocketPath");
  if (port === 0 && address === "" && path !== "") return path;
  return joinHostPort(address || "127.0.0.1", port);
}

const EXPOSED_PROTOCOLS = ["http", "http2"];

function exposeProblems(paths: readonly JsonValue[]): readonly string[] {
  const listeners = new Set<number>();
  return paths.flatMap((exposed) => {
    const path = textOf(exposed, "Path");
    const listener = numberOf(exposed, "ListenerPort");
    const protocol = textOf(exposed, "Protocol").toLowerCase();
    const known = listeners.has(listener);
    listeners.add(listener);
    return [
      ...(path === "" ? ["expose.paths: empty path exposed"] : []),
      ...(known ? ["expose.paths: duplicate listener ports exposed"] : []),
      ...(listener <= 0 || listener > 65_535 ? [`expose.paths: invalid listener port: ${listener}`] : []),
      ...(protocol === "" || EXPOSED_PROTOCOLS.includes(protocol)
        ? []
        : [`protocol '${protocol}' not supported for path: ${path}, must be in: [${EXPOSED_PROTOCOLS.join(" ")}]`]),
    ];
  });
}
