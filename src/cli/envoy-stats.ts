import { splitHostPort } from "../base/host-port.js";
import { CommandError } from "./command.js";
import { typed } from "./envoy-parts.js";
import type { BootstrapSettings } from "./envoy-settings.js";
import type { Printable } from "./output.js";

// How an Envoy labels its statistics, and where it sends them. Names and patterns are those of Consul 1.21, by which dashboards for Consul tell
// services apart.

const LABEL = "[^.]+";

/** The labels of the name of a cluster, in their order. */
const CLUSTER_LABELS: readonly { readonly name: string; readonly end: "~" | "."; readonly optional: boolean }[] = [
  { name: "custom_hash", end: "~", optional: true },
  { name: "service_subset", end: ".", optional: true },
  { name: "service", end: ".", optional: false },
  { name: "namespace", end: ".", optional: false },
  { name: "partition", end: ".", optional: true },
  { name: "datacenter", end: ".", optional: false },
  { name: "routing_type", end: ".", optional: false },
  { name: "trust_domain", end: ".", optional: false },
];

/** Names that stand for the first labels together. */
const CLUSTER_TARGETS = [
  { name: "target", labels: 6 },
  { name: "full_target", labels: 8 },
] as const;

function clusterLabels(from: number, to: number, captured?: string): string {
  // Peers are no datacenters, and have no partitions.
  const internal = captured === "partition" || captured === "datacenter";
  return CLUSTER_LABELS.slice(from, to)
    .map(({ name, end, optional }) => {
      const label = name === "routing_type" && internal ? "internal[^.]*" : LABEL;
      const one = `${name === captured ? `(${label})` : label}${end === "." ? "\\." : end}`;
      return optional ? `(?:${one})?` : one;
    })
    .join("");
}

/** The pattern that captures one label; its outer group is what is taken off the name of a statistic. */
function labelPattern(prefix: string, name: string): string {
  return `^cluster\\.${prefix}(${clusterLabels(0, CLUSTER_LABELS.length, name)}consul\\.)`;
}

function targetPattern(prefix: string, labels: number): string {
  const target = clusterLabels(0, labels).replace(/\\\.$/, "");
  return `^cluster\\.${prefix}((${target})\\.${clusterLabels(labels, CLUSTER_LABELS.length)}consul\\.)`;
}

type Tag = readonly [name: string, pattern: string];

/** @param leftOut - a label that has none here. */
function clusterTags(namePrefix: string, prefix: string, leftOut = ""): readonly Tag[] {
  return [
    ...CLUSTER_LABELS.filter(({ name }) => name !== leftOut).map(
      ({ name }): Tag => [`${namePrefix}${name}`, labelPattern(prefix, name)],
    ),
    ...CLUSTER_TARGETS.map(({ name, labels }): Tag => [`${namePrefix}${name}`, targetPattern(prefix, labels)]),
  ];
}

const PEER_TAG: Tag = [
  "consul.destination.peer",
  `^cluster\\.(${LABEL}\\.(?:${LABEL}\\.)?(${LABEL})\\.external\\.${LABEL}\\.consul\\.)`,
];

const UPSTREAM_TAGS: readonly Tag[] = [
  [
    "consul.upstream.service",
    `^(?:tcp|http)\\.upstream(?:_peered)?\\.((${LABEL})(?:\\.${LABEL})?(?:\\.${LABEL})?\\.${LABEL}\\.)`,
  ],
  [
    "consul.upstream.datacenter",
    `^(?:tcp|http)\\.upstream\\.(${LABEL}(?:\\.${LABEL})?(?:\\.${LABEL})?\\.(${LABEL})\\.)`,
  ],
  ["consul.upstream.peer", `^(?:tcp|http)\\.upstream_peered\\.(${LABEL}(?:\\.${LABEL})?\\.(${LABEL})\\.)`],
  [
    "consul.upstream.namespace",
    `^(?:tcp|http)\\.upstream(?:_peered)?\\.(${LABEL}(?:\\.(${LABEL}))?(?:\\.${LABEL})?\\.${LABEL}\\.)`,
  ],
  [
    "consul.upstream.partition",
    `^(?:tcp|http)\\.upstream\\.(${LABEL}(?:\\.${LABEL})?(?:\\.(${LABEL}))?\\.${LABEL}\\.)`,
  ],
];

/** @param deprecated - also the names of Consul before 1.9. */
function resourceTags(deprecated: boolean): readonly Tag[] {
  const destination = clusterTags("consul.destination.", "(?:passthrough~)?");
  const peerAt = destination.findIndex(([name]) => name === "consul.destination.routing_type");
  return [
    ...destination.slice(0, peerAt),
    PEER_TAG,
    ...destination.slice(peerAt),
    ...UPSTREAM_TAGS,
    ...(deprecated ? clusterTags("consul.", "", "partition") : []),
  ];
}

export interface StatsParts {
  readonly settings: BootstrapSettings;
  readonly deprecatedTags: boolean;
  /** Labels with one value each; those with `""` are left out. */
  readonly fixed: Readonly<Record<string, string>>;
}

export function statsConfig({ settings, deprecatedTags, fixed }: StatsParts): Printable {
  const whole = settings.json("envoy_stats_config_json");
  if (whole !== undefined) return whole;
  const given = settings.texts("envoy_stats_tags").map((text): readonly [string, string] => {
    const equals = text.indexOf("=");
    return equals < 0 ? [text.toLowerCase(), "1"] : [text.slice(0, equals).toLowerCase(), text.slice(equals + 1)];
  });
  const names = new Set(given.map(([name]) => name));
  const others = Object.entries(fixed).filter(([name, value]) => value !== "" && !names.has(name));
  const value = ([tag_name, fixed_value]: readonly [string, string]): Printable => ({ tag_name, fixed_value });
  return {
    stats_tags: [
      ...given.map(value),
      ...resourceTags(deprecatedTags).map(([tag_name, regex]) => ({ regex, tag_name })),
      ...others.map(value),
    ],
    use_all_default_tags: true,
  };
}

const SINKS = [
  ["envoy_statsd_url", "envoy.stat_sinks.statsd", "envoy.config.metrics.v3.StatsdSink"],
  ["envoy_dogstatsd_url", "envoy.stat_sinks.dog_statsd", "envoy.config.metrics.v3.DogStatsdSink"],
] as const;

/** Where the statistics are sent. */
export function statsSinks(
  settings: BootstrapSettings,
  environment: Readonly<Record<string, string | undefined>>,
): readonly Printable[] {
  const made = SINKS.flatMap(([key, name, type]): readonly Printable[] => {
    const text = settings.text(key);
    if (text === "") return [];
    return [{ name, typedConfig: typed(type, { address: sinkAddress(key, text, expanded(text, environment)) }) }];
  });
  return [...made, ...settings.jsonList("envoy_extra_stats_sinks_json")];
}

/** `$NAME` stands for a whole address in the environment; within an address only the IP of the machine is put in. */
function expanded(text: string, environment: Readonly<Record<string, string | undefined>>): string {
  if (/^\$../s.test(text)) return environment[text.slice(1)] ?? "";
  return text.replace(/\$\{HOST_IP\}|\$HOST_IP\b/g, () => environment["HOST_IP"] ?? "");
}

/** @param given - as the setting has it: what the environment says is quoted nowhere. */
function sinkAddress(key: string, given: string, text: string): Printable {
  const [, scheme, authority = "", path = ""] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)/i.exec(text) ?? [];
  switch (scheme?.toLowerCase()) {
    case "udp": {
      const place = splitHostPort(authority.slice(authority.lastIndexOf("@") + 1));
      if (place === undefined || /^$|[\s{}$]/.test(place.host)) break;
      return { socket_address: { address: place.host, port_value: place.port } };
    }
    case "unix": {
      const decoded = decodedPath(path);
      if (decoded === undefined) break;
      return { pipe: { path: decoded } };
    }
    default:
  }
  throw new CommandError(`The setting ${key} is no address of udp://ip:port or unix:///path: ${given}`);
}

function decodedPath(path: string): string | undefined {
  try {
    return path === "" ? undefined : decodeURIComponent(path);
  } catch {
    return undefined;
  }
}
