import { isIP } from "node:net";
import { hostname } from "node:os";
import { type AclGrant, type AclPolicies, type AclToken, digestOf } from "../access/policies.js";
import { parseAclRules } from "../access/rules.js";
import { joinHostPort, withoutBrackets } from "../base/host-port.js";
import { isJsonObject, type Json, type JsonObject, memberOf } from "../client/json-reader.js";
import { isUuid } from "../wire/uuid.js";
import { CommandError, type CommandLineIo } from "./command.js";
import { readConsulFiles } from "./consul-files.js";
import type { FlagConfig } from "./consul-flags.js";
import { levelOf } from "./log.js";
import { checkForm, serviceForm } from "./service-definitions.js";

/** The settings of Consul's configuration files that this agent follows. */
export interface ConsulConfig {
  /** By the names of the agent's own flags. */
  readonly settings: ReadonlyMap<string, string | readonly string[]>;
  /** Undefined: made from the node's name. */
  readonly nodeId: string | undefined;
  /** That of a cluster which is founded; one that has been keeps its own. */
  readonly clusterId: string | undefined;
  /** Undefined: the default of the ACLs. */
  readonly defaultIntentionPolicy: "allow" | "deny" | undefined;
  readonly nodeMeta: Readonly<Record<string, string>>;
  readonly logJson: boolean;
  /** File that holds the number of the process while the agent runs; undefined: none. */
  readonly pidFile: string | undefined;
  readonly peeringEnabled: boolean;
  /** Undefined: everyone may do everything. */
  readonly policies: AclPolicies | undefined;
  /** Definitions of services and checks, with the keys of the HTTP API. */
  readonly services: readonly JsonObject[];
  readonly checks: readonly JsonObject[];
  /** Keys that were given and by which this agent does not go. */
  readonly ignored: readonly string[];
}

const NONE: ConsulConfig = {
  settings: new Map(),
  nodeId: undefined,
  clusterId: undefined,
  defaultIntentionPolicy: undefined,
  nodeMeta: {},
  logJson: false,
  pidFile: undefined,
  peeringEnabled: true,
  policies: undefined,
  services: [],
  checks: [],
  ignored: [],
};

/**
 * Reads configuration as Consul 1.21 does.
 * @param paths - of files and directories.
 * @param format - of files with any name; `""`: by their extension.
 * @param node - the name of the node, where something that comes first gives one.
 * @param flags - what Consul's own flags set.
 * @throws {CommandError} with Consul's texts: what cannot be read, has an unknown key or a value of a wrong type, or cannot work
 *   here.
 */
export async function readConsulConfig(
  paths: readonly string[],
  format: string,
  node: string | undefined,
  io: CommandLineIo,
  flags?: FlagConfig,
): Promise<ConsulConfig> {
  const config = await readConsulFiles(paths, format, io, flags);
  return config === undefined ? NONE : configOf(config, node);
}

/** Reads decoded keys, and remembers which of them were read. */
class Taken {
  readonly #config: JsonObject;
  readonly #taken = new Set<string>();

  constructor(config: JsonObject) {
    this.#config = config;
  }

  /** @param path - keys, separated by dots. */
  value(path: string): Json | undefined {
    this.#taken.add(path);
    return this.peek(path);
  }

  peek(path: string): Json | undefined {
    let value: Json | undefined = this.#config;
    for (const key of path.split(".")) value = isJsonObject(value) ? memberOf(value, key) : undefined;
    return value;
  }

  /** The first of several places that says something; a later one is read no less. */
  text(...paths: readonly string[]): string {
    const values = paths.map((path) => this.value(path));
    return values.find((value): value is string => typeof value === "string" && value !== "") ?? "";
  }

  flag(...paths: readonly string[]): boolean | undefined {
    const values = paths.map((path) => this.value(path));
    return values.find((value): value is boolean => typeof value === "boolean");
  }

  number(path: string): number | undefined {
    const value = this.value(path);
    return typeof value === "number" ? value : undefined;
  }

  texts(path: string): readonly string[] {
    const value = this.value(path);
    return Array.isArray(value) ? value.filter((element): element is string => typeof element === "string") : [];
  }

  textMap(path: string): Readonly<Record<string, string>> {
    const value = this.value(path);
    if (!isJsonObject(value)) return {};
    return Object.fromEntries(
      Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === "string"),
    );
  }

  /** Several definitions under one key, and one alone under another. */
  objects(several: string, one: string): readonly JsonObject[] {
    const list = this.value(several);
    return [this.value(one), ...(Array.isArray(list) ? list : [])].filter(isJsonObject);
  }

  /** Says that a key is as it is anyway, where that is so. */
  holds(path: string, ...values: readonly Json[]): void {
    const value = this.peek(path);
    if (value !== undefined && values.includes(value)) this.#taken.add(path);
  }

  /** The keys that were given and not read: of each unread group its most general key. */
  left(): readonly string[] {
    const left: string[] = [];
    const look = (object: JsonObject, path: string): void => {
      for (const [key, value] of Object.entries(object)) {
        const place = path === "" ? key : `${path}.${key}`;
        if (this.#taken.has(place) || isEmpty(value)) continue;
        if (isJsonObject(value) && [...this.#taken].some((taken) => taken.startsWith(`${place}.`))) look(value, place);
        else left.push(place);
      }
    };
    look(this.#config, "");
    return left.sort();
  }
}

function isEmpty(value: Json): boolean {
  if (Array.isArray(value)) return value.length === 0;
  return isJsonObject(value) ? Object.values(value).every(isEmpty) : value === "";
}

const MAX_PORT = 65_535;
const CONSUL_LOG_LEVELS = "[TRACE DEBUG INFO WARN ERR ERROR]";

/** @throws {CommandError} for settings that cannot work. */
function configOf(config: JsonObject, node: string | undefined): ConsulConfig {
  const taken = new Taken(config);
  const settings = new Map<string, string | readonly string[]>();
  const set = (flag: string, value: string): void => {
    if (value !== "") settings.set(flag, value);
  };
  const datacenter = taken.text("datacenter");
  set("datacenter", datacenter);
  const nodeName = taken.text("node_name");
  set("node", nodeName);
  set("data-dir", taken.text("data_dir"));
  set("log-level", logLevel(taken.text("log_level")));
  places(taken, set);
  certificates(taken, set);
  const writers = taken.texts("http_config.allow_write_http_from");
  if (writers.length > 0) settings.set("allow-write-http-from", writers);
  const perClient = taken.number("limits.http_max_conns_per_client");
  if (perClient !== undefined) {
    // As Consul does: anything below 1 is no limit.
    set("http-connections-per-source", String(perClient < 1 ? Number.MAX_SAFE_INTEGER : perClient));
  }
  const nodeId = taken.text("node_id").toLowerCase();
  if (nodeId !== "" && !isUuid(nodeId)) {
    throw new CommandError("failed to setup node ID: specified NodeID is invalid: it is no UUID");
  }
  if (taken.flag("server") === false) {
    throw new CommandError(
      "Invalid server: false: this agent is always the server of its datacenter, and joins no other one",
    );
  }
  const services = taken.objects("services", "service").map(serviceForm);
  const checks = taken.objects("checks", "check").map(checkForm);
  const policies = policiesOf(taken, node ?? (nodeName || hostname()));
  const peeringEnabled = taken.flag("peering.enabled") ?? true;
  asItIs(taken, datacenter || "dc1");
  return {
    settings,
    nodeId: nodeId || undefined,
    clusterId: clusterIdOf(taken),
    defaultIntentionPolicy: intentionPolicyOf(taken),
    nodeMeta: taken.textMap("node_meta"),
    logJson: taken.flag("log_json") ?? false,
    pidFile: taken.text("pid_file") || undefined,
    peeringEnabled,
    policies,
    services,
    checks,
    ignored: taken.left(),
  };
}

/** @throws {CommandError} as Consul refuses it. */
function intentionPolicyOf(taken: Taken): ConsulConfig["defaultIntentionPolicy"] {
  const policy = taken.text("default_intention_policy");
  if (policy === "") return undefined;
  if (policy === "allow" || policy === "deny") return policy;
  throw new CommandError(`Unsupported default intention policy: ${policy}`);
}

function clusterIdOf(taken: Taken): string | undefined {
  const clusterId = taken.value("connect.ca_config.cluster_id");
  if (clusterId === undefined) return undefined;
  if (typeof clusterId !== "string") throw new CommandError("cluster_id was supplied but was not a string");
  if (!isUuid(clusterId)) throw new CommandError("cluster_id was supplied but was not a valid UUID");
  return clusterId;
}

/** Keys that ask for behaviour that is always on. */
function asItIs(taken: Taken, datacenter: string): void {
  taken.holds("bootstrap", true);
  taken.holds("bootstrap_expect", 0, 1);
  taken.holds("connect.enabled", true);
  taken.holds("primary_datacenter", datacenter);
  taken.holds("acl_datacenter", datacenter);
  taken.holds("domain", "consul", "consul.");
  taken.holds("partition", "default");
  taken.holds("disable_update_check", true);
  taken.holds("disable_anonymous_signature", true);
  taken.holds("disable_remote_exec", true);
  taken.holds("enable_script_checks", false);
  taken.holds("enable_local_script_checks", false);
  taken.holds("ui", false);
  taken.holds("ui_config.enabled", false);
}

function logLevel(given: string): string {
  if (given === "") return "";
  const level = levelOf(given);
  if (level === undefined) {
    throw new CommandError(`Invalid log level: ${given}. Valid log levels are: ${CONSUL_LOG_LEVELS}`);
  }
  return level;
}

/** Addresses and ports, as Consul puts them together; a port of 0 or less is off. */
function places(taken: Taken, set: (flag: string, value: string) => void): void {
  const bind = address(taken, "bind_addr");
  const client = address(taken, "client_addr");
  set("bind", bind);
  const port = (name: string, fallback: number): number => {
    const given = taken.number(`ports.${name}`) ?? fallback;
    if (given > MAX_PORT) throw new CommandError(`ports.${name}: invalid port: ${given}`);
    return given;
  };
  const place = (flag: string, name: string, fallback: number, hosts: readonly string[]): void => {
    const own = address(taken, `addresses.${name}`);
    const number = port(name, fallback);
    const host = [own, ...hosts].find((each) => each !== "") ?? "127.0.0.1";
    const said = own !== "" || hosts.some((each) => each !== "") || taken.peek(`ports.${name}`) !== undefined;
    if (said) set(flag, number <= 0 ? "off" : joinHostPort(host, number));
  };
  place("http", "http", 8500, [client]);
  place("dns", "dns", 8600, [client]);
  place("grpc", "grpc", -1, [client]);
  place("grpc-tls", "grpc_tls", 8503, [client, bind]);
  // Consul listens without a certificate, too, and fails every handshake.
  if (keyPair(taken) !== undefined) place("https", "https", -1, [client]);
  for (const end of ["min", "max"]) {
    // As the ports of Consul's servers: a negative one is none.
    if (taken.peek(`ports.expose_${end}_port`) === undefined) continue;
    set(`expose-${end}-port`, String(Math.max(port(`expose_${end}_port`, 0), 0)));
  }
  const advertised = address(taken, "advertise_addr");
  const reachable = advertised || (isEvery(bind) ? "" : bind);
  const grpcTls = port("grpc_tls", 8503);
  if (reachable !== "" && grpcTls > 0) set("advertise", joinHostPort(reachable, grpcTls));
}

function isEvery(host: string): boolean {
  return ["0.0.0.0", "::"].includes(host);
}

/** One address, without brackets. @throws {CommandError} with Consul's text where it has one. */
function address(taken: Taken, path: string): string {
  const given = taken.text(path).trim();
  if (given === "") return "";
  if (given.includes("{{")) {
    throw new CommandError(`${path}: error parsing ${JSON.stringify(given)}: templates of addresses are not read here`);
  }
  const several = given.split(/\s+/);
  if (several.length > 1) throw new CommandError(`${path}: multiple addresses found: ${given}`);
  if (given.startsWith("unix://")) throw new CommandError(`${path} cannot be a unix socket`);
  const plain = withoutBrackets(given);
  if (isIP(plain) === 0) throw new CommandError(`${path}: invalid ip address: ${given}`);
  return plain;
}

/** The places of a setting of HTTPS, the one that counts first. */
function httpsPlaces(name: string): readonly string[] {
  return [`tls.https.${name}`, `tls.defaults.${name}`, name];
}

/** Files of the certificate and key of HTTPS; undefined: there are none. */
function keyPair(taken: Taken): readonly [certificate: string, key: string] | undefined {
  const peek = (name: string): string => {
    const found = httpsPlaces(name).map((path) => taken.peek(path));
    return found.find((value): value is string => typeof value === "string" && value !== "") ?? "";
  };
  const [certificate, key] = [peek("cert_file"), peek("key_file")];
  return certificate === "" || key === "" ? undefined : [certificate, key];
}

/** Certificates of HTTPS, where it is served. */
function certificates(taken: Taken, set: (flag: string, value: string) => void): void {
  const port = taken.peek("ports.https");
  if (keyPair(taken) === undefined || typeof port !== "number" || port <= 0) return;
  set("cert", taken.text(...httpsPlaces("cert_file")));
  set("key", taken.text(...httpsPlaces("key_file")));
  const ca = taken.text(...httpsPlaces("ca_file"));
  const verifies = taken.flag(...httpsPlaces("verify_incoming"), "verify_incoming_https") ?? false;
  if (verifies && ca === "") throw new CommandError("VerifyIncoming set but no CA certificates were provided");
  set("ca", ca);
  if (verifies) set("verify-incoming", "true");
}

/** The rights of `global-management`. */
const MANAGEMENT = `
  acl = "write"
  keyring = "write"
  mesh = "write"
  operator = "write"
  peering = "write"
  agent_prefix "" { policy = "write" }
  event_prefix "" { policy = "write" }
  key_prefix "" { policy = "write" }
  node_prefix "" { policy = "write" }
  query_prefix "" { policy = "write" }
  service_prefix "" { policy = "write" intentions = "write" }
  session_prefix "" { policy = "write" }
`;

/** The tokens that Consul makes at its first start, as an agent's policies. @throws {CommandError} */
function policiesOf(taken: Taken, node: string): AclPolicies | undefined {
  const enabled = taken.flag("acl.enabled") ?? false;
  const byDefault = taken.text("acl.default_policy", "acl_default_policy") || "allow";
  const management = taken.text("acl.tokens.initial_management", "acl.tokens.master", "acl_master_token");
  const recovery = taken.text("acl.tokens.agent_recovery", "acl.tokens.agent_master", "acl_agent_master_token");
  const fallback = taken.text("acl.tokens.default", "acl_token");
  if (!enabled) return undefined;
  if (byDefault !== "allow" && byDefault !== "deny") {
    throw new CommandError(`Invalid acl.default_policy: ${JSON.stringify(byDefault)} is neither allow nor deny`);
  }
  const tokens: AclToken[] = [];
  const add = (accessorId: string, secret: string, rules: string): void => {
    if (secret === "") return;
    tokens.push({ accessorId, secretSha256: digestOf(secret), rules: parseAclRules(rules) });
  };
  add("initial-management", management, MANAGEMENT);
  const own = `agent ${JSON.stringify(node)} { policy = "write" } node_prefix "" { policy = "read" }`;
  if (recovery !== management) add("agent-recovery", recovery, own);
  const grants = new Map([[management, tokens[0]]]);
  const anonymous: AclGrant | undefined = fallback === "" ? undefined : grants.get(fallback);
  if (fallback !== "" && anonymous === undefined) {
    throw new CommandError("Invalid acl.tokens.default: it is not the token of acl.tokens.initial_management");
  }
  return { defaultPolicy: byDefault, tokens, ...(anonymous?.rules && { anonymous: { rules: anonymous.rules } }) };
}
