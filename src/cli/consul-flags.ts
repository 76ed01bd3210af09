import type { Json, JsonObject } from "../client/json-reader.js";
import { CommandError } from "./command.js";
import { configKeys, type Shape } from "./consul-keys.js";
import type { Flag, ParsedFlags } from "./flags.js";

/** Flags of `consul agent` that are not flags of this agent, and the keys of Consul's configuration that they set. */
const KEYS: Readonly<Record<string, string>> = {
  "advertise-wan": "advertise_addr_wan",
  "alt-domain": "alt_domain",
  "auto-reload-config": "auto_reload_config",
  bootstrap: "bootstrap",
  "bootstrap-expect": "bootstrap_expect",
  check_output_max_size: "check_output_max_size",
  client: "client_addr",
  "default-query-time": "default_query_time",
  "disable-host-node-id": "disable_host_node_id",
  "disable-keyring-file": "disable_keyring_file",
  "dns-port": "ports.dns",
  domain: "domain",
  "enable-local-script-checks": "enable_local_script_checks",
  "enable-script-checks": "enable_script_checks",
  encrypt: "encrypt",
  "grpc-port": "ports.grpc",
  "grpc-tls-port": "ports.grpc_tls",
  "http-port": "ports.http",
  "https-port": "ports.https",
  join: "start_join",
  "join-wan": "start_join_wan",
  "log-file": "log_file",
  "log-json": "log_json",
  "log-rotate-bytes": "log_rotate_bytes",
  "log-rotate-duration": "log_rotate_duration",
  "log-rotate-max-files": "log_rotate_max_files",
  "max-query-time": "max_query_time",
  "node-id": "node_id",
  "node-meta": "node_meta",
  "non-voting-server": "non_voting_server",
  "pid-file": "pid_file",
  "primary-gateway": "primary_gateways",
  protocol: "protocol",
  "raft-protocol": "raft_protocol",
  "read-replica": "read_replica",
  recursor: "recursors",
  rejoin: "rejoin_after_leave",
  "retry-interval": "retry_interval",
  "retry-interval-wan": "retry_interval_wan",
  "retry-join": "retry_join",
  "retry-join-wan": "retry_join_wan",
  "retry-max": "retry_max",
  "retry-max-wan": "retry_max_wan",
  segment: "segment",
  "serf-lan-allowed-cidrs": "serf_lan_allowed_cidrs",
  "serf-lan-bind": "serf_lan",
  "serf-lan-port": "ports.serf_lan",
  "serf-wan-allowed-cidrs": "serf_wan_allowed_cidrs",
  "serf-wan-bind": "serf_wan",
  "serf-wan-port": "ports.serf_wan",
  server: "server",
  "server-port": "ports.server",
  syslog: "enable_syslog",
  ui: "ui_config.enabled",
  "ui-content-path": "ui_config.content_path",
  "ui-dir": "ui_config.dir",
};

interface ConsulFlag {
  readonly flag: Flag;
  /** The groups that the key stands in, and the key. */
  readonly path: readonly [group: string, member: string | undefined];
  readonly shape: Shape | undefined;
}

const ALL: readonly ConsulFlag[] = Object.entries(KEYS).map(([name, key]) => {
  const [first = "", second] = key.split(".");
  const shape = second === undefined ? memberOf(configKeys, first) : memberOf(memberOf(configKeys, first), second);
  const usage = `As ${key} in Consul's configuration.`;
  return { flag: { name, kind: kindOf(shape), section: "consul", usage }, path: [first, second], shape };
});

export const consulFlags: readonly Flag[] = [
  ...ALL.map(({ flag }) => flag),
  {
    name: "hcl",
    kind: "texts",
    placeholder: "text",
    section: "consul",
    usage: "A piece of Consul's configuration, in HCL, which comes after its files and these flags.",
  },
];

/** The part of Consul's configuration that flags give; it comes after all files. */
export interface FlagConfig {
  readonly keys: JsonObject;
  /** HCL, which comes after the keys. */
  readonly pieces: readonly string[];
}

export const NO_FLAGS: FlagConfig = { keys: {}, pieces: [] };

/** @throws {CommandError} for a flag whose value is empty. */
export function flagConfig(flags: ParsedFlags): FlagConfig {
  return { keys: keysOf(flags), pieces: flags.texts("hcl") };
}

function keysOf(flags: ParsedFlags): JsonObject {
  const config = new Map<string, Json>();
  const groups = new Map<string, Map<string, Json>>();
  for (const { flag, path, shape } of ALL) {
    if (!flags.given(flag.name)) continue;
    const value = givenValue(flag, shape, flags);
    const [first, second] = path;
    if (second === undefined) config.set(first, value);
    else groups.set(first, (groups.get(first) ?? new Map<string, Json>()).set(second, value));
  }
  for (const [group, members] of groups) config.set(group, Object.fromEntries(members));
  return Object.fromEntries(config);
}

function givenValue({ name, kind }: Flag, shape: Shape | undefined, flags: ParsedFlags): Json {
  if (kind === "boolean") return flags.boolean(name);
  if (kind === "integer") return Number(flags.text(name));
  const values = flags.texts(name);
  // `-client "$ADDRESS"` with a variable that is not set must not start an agent at another address.
  if (values.some((value) => value.trim() === "")) throw new CommandError(`Invalid ${name}: it cannot be empty`);
  if (kind === "text") return values.at(-1) ?? "";
  return isMap(shape) ? Object.fromEntries(values.map(pairOf)) : [...values];
}

/** Consul splits at the first colon, and takes a key without a value. */
function pairOf(text: string): readonly [key: string, value: string] {
  const colon = text.indexOf(":");
  return colon < 0 ? [text, ""] : [text.slice(0, colon), text.slice(colon + 1)];
}

function memberOf(shape: Shape | undefined, key: string): Shape | undefined {
  return typeof shape === "object" && shape.kind === "keys" ? shape.keys().get(key) : undefined;
}

function isMap(shape: Shape | undefined): boolean {
  return typeof shape === "object" && shape.kind === "map";
}

function kindOf(shape: Shape | undefined): Flag["kind"] {
  if (shape === "flag") return "boolean";
  if (shape === "integer") return "integer";
  return typeof shape === "object" ? "texts" : "text";
}
