import { isIP } from "node:net";
import { hostname } from "node:os";
import { type AclPolicies, aclPoliciesSteps } from "../access/policies.js";
import { errorText } from "../base/errors.js";
import { withoutBrackets } from "../base/host-port.js";
import { inTurns } from "../base/turns.js";
import { isJsonObject, type Json, type JsonObject } from "../client/json-reader.js";
import type { DnsServerOptions } from "../dns/server.js";
import type { TransitRule } from "../exports/transit.js";
import { defaultExposedPorts, type ExposedPortRange } from "../host/exposed-checks.js";
import type { HostLimits } from "../host/options.js";
import { advertisedAddresses, checkNodeName, datacenterName } from "../host/validate-options.js";
import type { CallLimitsOptions } from "../http/call-limits.js";
import type { HttpHandlerOptions } from "../http/handler.js";
import type { RequestGuardOptions } from "../http/request-guard.js";
import type { ServerTls } from "../rpc/server-tls.js";
import { GoJsonError, plainJson, readWholeValue } from "../syntax/go-json.js";
import type { ConnectionLimitsOptions } from "../transport/connection-limits.js";
import { CommandError, type CommandLineIo } from "./command.js";
import { type ConsulConfig, readConsulConfig } from "./consul-config.js";
import { flagConfig } from "./consul-flags.js";
import { type EncryptionKeys, parseEncryptionKeys, readEncryptionKeys } from "./encryption-keys.js";
import type { Flag, ParsedFlags } from "./flags.js";
import { isLogLevel, LOG_LEVELS, type LogLevel } from "./log.js";
import { defaultFileLimits, type FileLimits } from "./read-file.js";

/** An address to listen on. */
export interface ListenAddress {
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  /** Asked for, and not only the default. */
  readonly given: boolean;
}

/** Files with the certificates of the HTTPS API, in PEM. */
export interface TlsFiles {
  readonly certificate: string;
  readonly key: string;
  /** Undefined: no client is asked for a certificate. */
  readonly ca: string | undefined;
}

export interface AgentOptions {
  readonly datacenter: string;
  readonly node: string;
  /** Undefined: in memory, and gone with the process. */
  readonly dataDirectory: string | undefined;
  /** Undefined: secrets are stored as they are. */
  readonly encryption: EncryptionKeys | undefined;
  /** Undefined: not served. */
  readonly http: ListenAddress | undefined;
  /** Undefined: not served. */
  readonly https: { readonly listen: ListenAddress; readonly verifyIncoming: boolean } | undefined;
  /** There when HTTPS is served. */
  readonly tlsFiles: TlsFiles | undefined;
  /** Undefined: no peer is accepted. */
  readonly grpcTls: ListenAddress | undefined;
  /** Undefined: Envoys are not served. */
  readonly grpc: ListenAddress | undefined;
  /** Where Envoys are served over TLS. */
  readonly xdsTls: ListenAddress | undefined;
  /** Undefined: not served. */
  readonly dns: ListenAddress | undefined;
  readonly advertise: readonly string[];
  readonly transit: readonly TransitRule[];
  /** Which requests of HTTP and calls are taken. */
  readonly requests: RequestGuardOptions;
  /** Bounds on calls; absent: the default. */
  readonly callLimits: CallLimitsOptions;
  readonly bodyLimits: Pick<HttpHandlerOptions, "maxChecks" | "maxRecords" | "maxBodyValues">;
  /** Bytes of answers that are kept; absent: the default. */
  readonly keptAnswers: Pick<HttpHandlerOptions, "keptAnswerBytes" | "keptTextBytes">;
  readonly hostLimits: Partial<HostLimits>;
  /** At which sidecars lead to checks. */
  readonly exposedPorts: ExposedPortRange;
  /** Ranges that checks may connect to; none: every address. */
  readonly checkAddresses: readonly string[];
  /** Ranges at which no peer is dialed; absent: the default. */
  readonly forbiddenAddresses?: readonly string[];
  readonly rotateRoot: boolean;
  readonly allowPeeringWrite: boolean;
  readonly dnsStrict: boolean;
  /** The size of answers over UDP, and of those that are kept; absent: the default. */
  readonly dnsLimits: Pick<DnsServerOptions, "maxUdpBytes" | "largeAnswers" | "keptReplyBytes">;
  readonly connectionLimits: ConnectionLimitsOptions;
  /** Undefined: the default of the server. */
  readonly httpConnectionsPerSource: number | undefined;
  /** The file of policies, or those that Consul's configuration makes; undefined: everyone may do everything. */
  readonly acl: { readonly file: string } | { readonly policies: AclPolicies } | undefined;
  readonly logLevel: LogLevel;
  /** Other settings of Consul's configuration files. */
  readonly consul: ConsulConfig;
  /** The value of each flag, wherever it was given, as a text that is the same for the same value. */
  readonly settings: ReadonlyMap<string, string>;
}

/** Each is also a `PEERAGE_…` variable and a key of the configuration file; the flag comes first, then the variable. */
export const agentFlags: readonly Flag[] = [
  {
    name: "datacenter",
    kind: "text",
    usage: "Name of the datacenter this agent is. Do not change it later. Default: dc1.",
  },
  { name: "node", kind: "text", usage: "Name of this node. Default: the machine's." },
  { name: "data-dir", kind: "text", usage: "Directory for the agent's data. Required, unless -dev is given." },
  {
    name: "encrypt-key-file",
    kind: "text",
    placeholder: "file",
    usage:
      "File with the key that seals private keys and stream secrets in -data-dir: 32 random bytes in base64, as `consul keygen` prints them. Further lines may hold former keys: what they sealed is sealed with the first key at the start. The variable PEERAGE_ENCRYPT_KEY may hold the keys themselves, separated by commas. Without it they are stored as they are.",
  },
  { name: "dev", kind: "boolean", usage: "Keeps everything in memory: nothing outlives the process." },
  {
    name: "bind",
    kind: "text",
    usage: "Address on which peers are accepted, where -grpc-tls does not name one. Default: 127.0.0.1.",
  },
  {
    name: "http",
    kind: "text",
    placeholder: "host:port",
    usage: "Where to serve the HTTP API; off: nowhere. Default: 127.0.0.1:8500.",
  },
  {
    name: "https",
    kind: "text",
    placeholder: "host:port",
    usage: "Where to serve the HTTP API over TLS, with the certificate of -cert and -key. Default: nowhere.",
  },
  {
    name: "cert",
    kind: "text",
    placeholder: "file",
    usage: "Certificate for -https, and those that lead from it to an authority, in PEM. Read again on SIGHUP.",
  },
  { name: "key", kind: "text", placeholder: "file", usage: "Key of that certificate, in PEM. Read again on SIGHUP." },
  {
    name: "ca",
    kind: "text",
    placeholder: "file",
    usage: "Certificates of the authorities of clients, for -verify-incoming, in PEM. Read again on SIGHUP.",
  },
  {
    name: "verify-incoming",
    kind: "boolean",
    usage: "Takes over -https only clients that show a certificate of an authority of -ca.",
  },
  {
    name: "allowed-host",
    kind: "texts",
    placeholder: "host",
    usage:
      "Name or address, without a port, that requests may give as their Host; * stands for every one. An agent that serves the HTTP API on loopback takes these beside loopback names and addresses, so that no web page whose name leads to 127.0.0.1 can use it; any other takes these alone, and everything where there are none. This flag may be specified multiple times; the variable is a list separated by commas.",
  },
  {
    name: "allowed-origin",
    kind: "texts",
    placeholder: "origin",
    usage:
      "Origin, such as https://ui.example.com, whose pages may use the HTTP API from a browser; * stands for every one. Writes from pages of other origins are refused. This flag may be specified multiple times; the variable is a list separated by commas.",
  },
  {
    name: "allow-write-http-from",
    kind: "texts",
    placeholder: "cidr",
    usage:
      "Only allow write endpoint calls from given network. CIDR format, can be specified multiple times; the variable is a list separated by commas. Default: from everywhere.",
  },
  {
    name: "requests-per-second",
    kind: "text",
    placeholder: "count",
    usage:
      "Requests a second that the HTTP API takes from one address, and as many at once; further ones are answered 429. Default: as many as come.",
  },
  {
    name: "http-waiting-per-source",
    kind: "text",
    placeholder: "number",
    usage:
      "Reads and watches of one client address that may wait for a change, or for room for a long answer, at the same time. Raise it where many clients come through one proxy. Default: 2048.",
  },
  {
    name: "http-body-bytes-per-source",
    kind: "text",
    placeholder: "bytes",
    usage:
      "Bytes of request bodies of one client address that may be received or worked on at the same time. Default: 33554432.",
  },
  {
    name: "http-unsent-bytes-per-source",
    kind: "text",
    placeholder: "bytes",
    usage:
      "Bytes of answers that one client address may leave unread; from there on its reads wait until it has read. Default: 67108864.",
  },
  {
    name: "http-long-bytes-per-source",
    kind: "text",
    placeholder: "bytes",
    usage:
      "Bytes of memory that the lists of long answers to one client address may take; from there on its next long answer waits until it has read. Default: 67108864.",
  },
  {
    name: "http-slow-reader-ms",
    kind: "text",
    placeholder: "milliseconds",
    usage:
      "How long a client may take to read 64 KiB of an answer while others wait for it to read; then its answer is cut off. Default: 5000.",
  },
  {
    name: "http-max-checks",
    kind: "text",
    placeholder: "number",
    usage: "Checks that one registration over HTTP may have, those of a sidecar included. Default: 4096.",
  },
  {
    name: "http-max-records",
    kind: "text",
    placeholder: "number",
    usage:
      "Objects, such as upstreams, ports and addresses, that the JSON of one registration, transaction or prepared query may have. Default: 16384.",
  },
  {
    name: "http-max-body-values",
    kind: "text",
    placeholder: "number",
    usage:
      "Values, which are elements of lists and members of objects, that the JSON of a request body may have; a registration, config entry or prepared query may have twice as many with its defaults. Raise it for config entries with very many sources or consumers. Default: 50000.",
  },
  {
    name: "query-template-characters",
    kind: "text",
    placeholder: "number",
    usage: "Characters of all texts of one prepared query that is a template. Default: 65536.",
  },
  {
    name: "subset-filter-characters",
    kind: "text",
    placeholder: "number",
    usage: "Characters of the filters of all subsets of one service-resolver. Default: 65536.",
  },
  {
    name: "inline-certificate-characters",
    kind: "text",
    placeholder: "number",
    usage: "Characters of the certificate and the key of one inline-certificate. Default: 131072.",
  },
  {
    name: "leaf-certificates",
    kind: "text",
    placeholder: "number",
    usage:
      "Certificates of services that are held with their keys; beyond, the one that was not asked for the longest is dropped. Default: 16384.",
  },
  {
    name: "leaf-certificate-unused-ms",
    kind: "text",
    placeholder: "milliseconds",
    usage: "How long an unused certificate of a service is held. Default: 259200000.",
  },
  {
    name: "grpc",
    kind: "text",
    placeholder: "host:port",
    usage:
      "Where to serve the Envoys of sidecars and mesh gateways, in plaintext; keys of services are sent there. Consul's port is 8502. Default: nowhere.",
  },
  {
    name: "xds-tls",
    kind: "text",
    placeholder: "host:port",
    usage:
      "Where to serve the Envoys of sidecars and mesh gateways over TLS: with the certificate of -cert and -key, else with one of the agent's own authority, which is renewed by itself. Default: nowhere.",
  },
  {
    name: "grpc-tls",
    kind: "text",
    placeholder: "host:port",
    usage: "Where to accept peers. Default: port 8503 of the -bind address.",
  },
  {
    name: "dns",
    kind: "text",
    placeholder: "host:port",
    usage: "Where to serve DNS, over UDP and TCP. Default: 127.0.0.1:8600.",
  },
  {
    name: "advertise",
    kind: "texts",
    placeholder: "host:port",
    usage:
      "Where peers reach this agent, as its tokens tell them. This flag may be specified multiple times; the variable is a list separated by commas. Default: where peers are accepted.",
  },
  {
    name: "transit",
    kind: "texts",
    placeholder: "from:to:service",
    usage:
      "Carries a service that peer <from> exports to this agent over to peer <to>; * stands for every service. This flag may be specified multiple times; the variable is a list separated by commas.",
  },
  {
    name: "check-addresses",
    kind: "texts",
    placeholder: "range",
    usage:
      "Range of addresses that the checks of this node may connect to, such as 10.0.0.0/8; also what a name or a redirect leads to. This flag may be specified multiple times; the variable is a list separated by commas. Default: every address.",
  },
  {
    name: "expose-min-port",
    kind: "text",
    placeholder: "number",
    usage:
      "First of the ports at which sidecars with Expose.Checks lead to the checks of their services. Default: 21500.",
  },
  {
    name: "expose-max-port",
    kind: "text",
    placeholder: "number",
    usage: "Last of these ports; 0 for both: no check is led through a sidecar. Default: 21755.",
  },
  {
    name: "forbidden-addresses",
    kind: "texts",
    placeholder: "range",
    usage:
      "Range of addresses, such as 10.0.0.0/8, at which no peer is dialed, whatever a token or a peer says; also what a name leads to. This flag may be specified multiple times; the variable is a list separated by commas; none forbids none. Default: link-local, unspecified, multicast and metadata addresses.",
  },
  {
    name: "rotate-root",
    kind: "boolean",
    usage:
      "Makes a new root certificate at this start, signed by the present one too. For once: when the log says that the root is not valid.",
  },
  {
    name: "allow-peering-write",
    kind: "boolean",
    usage: "Serves the call PeeringWrite, which writes records past the rules of peerings: an aid for tests.",
  },
  {
    name: "dns-strict",
    kind: "boolean",
    usage: "Answers <service>.service.<peer>.consul as Consul does, which is not at all.",
  },
  {
    name: "dns-max-udp-bytes",
    kind: "text",
    placeholder: "bytes",
    usage:
      "Most bytes of a DNS answer over UDP, from 512 to 65467; the rest is to be asked for over TCP. Default: 1232.",
  },
  {
    name: "dns-large-answers",
    kind: "text",
    placeholder: "number",
    usage:
      "DNS answers over UDP, within a second and to one network, that may be more than three times as long as their question; more are to be asked for over TCP. Default: 500.",
  },
  {
    name: "http-kept-answer-bytes",
    kind: "text",
    placeholder: "bytes",
    usage:
      "Bytes of HTTP answers that are kept for those who ask the same again while nothing has changed; 0: none are kept. Default: 33554432.",
  },
  {
    name: "http-kept-text-bytes",
    kind: "text",
    placeholder: "bytes",
    usage:
      "Bytes of the texts of long lists that are kept for later answers, and of whole answers that list imports; 0: none are kept. Default: 67108864.",
  },
  {
    name: "dns-kept-reply-bytes",
    kind: "text",
    placeholder: "bytes",
    usage:
      "Bytes of DNS replies about services that are kept while these do not change; 0: none are kept. Default: 16777216.",
  },
  {
    name: "max-connections",
    kind: "text",
    placeholder: "number",
    usage:
      "Most connections to all ports together. Default: what the descriptors of the process allow, but no more than 4096.",
  },
  {
    name: "reserved-descriptors",
    kind: "text",
    placeholder: "number",
    usage:
      "Descriptors that no connection to a port may use, because storage and dialing need them. Default: a quarter, from 64 to 1024.",
  },
  {
    name: "handshakes-per-source",
    kind: "text",
    placeholder: "number",
    usage:
      "Most TLS handshakes of one IPv4 address, or one /64 of IPv6, that are under way at each port; others wait. Default: 64.",
  },
  {
    name: "http-connections-per-source",
    kind: "text",
    placeholder: "number",
    usage: "Most connections to the HTTP API from one IPv4 address, or one /64 of IPv6. Default: 2048.",
  },
  {
    name: "acl-policies",
    kind: "text",
    placeholder: "file",
    usage:
      "HCL or JSON file that says who may do what: default_policy, policies, tokens, and anonymous. Without it everyone may do everything. Read again on SIGHUP.",
  },
  {
    name: "log-level",
    kind: "text",
    usage: `One of ${LOG_LEVELS.join(", ")}. Default: info. One from the file of -config is read again on SIGHUP.`,
  },
  { name: "config", kind: "text", usage: "JSON file whose keys are the names of these flags." },
  {
    name: "config-file",
    kind: "texts",
    placeholder: "file",
    usage:
      "Consul's configuration file, in HCL or JSON. Flags, variables and the file of -config come first. Keys that ask for what this agent has not are named in the log and passed over; keys that Consul does not know are refused. Definitions of services and checks are registered. Read again on SIGHUP. This flag may be specified multiple times; the variable is a list separated by commas.",
  },
  {
    name: "config-dir",
    kind: "texts",
    placeholder: "directory",
    usage:
      "Directory whose files with the endings .hcl and .json are read as those of -config-file, in the order of their names. This flag may be specified multiple times; the variable is a list separated by commas.",
  },
  {
    name: "config-format",
    kind: "text",
    placeholder: "hcl|json",
    usage: "What files of -config-file and -config-dir are written in. Default: as their names end.",
  },
  {
    name: "max-file-bytes",
    kind: "text",
    placeholder: "bytes",
    usage: `Largest file of configuration, policies, certificates or keys; a larger one is refused, as one that cannot be read. Default: ${defaultFileLimits.bytes}.`,
  },
  {
    name: "pipe-wait-ms",
    kind: "text",
    placeholder: "milliseconds",
    usage: `How long to wait for the end of such a file where it is a pipe. Default: ${defaultFileLimits.pipeMs}.`,
  },
];

/** Flags that say where settings are, and how they are read; a file of settings cannot. */
const SOURCES: ReadonlySet<string> = new Set([
  "config",
  "config-file",
  "config-dir",
  "config-format",
  "max-file-bytes",
  "pipe-wait-ms",
]);

const ENCRYPT_KEY = "PEERAGE_ENCRYPT_KEY";

/** The value of a flag in one source: texts for lists, too. */
type Setting = string | readonly string[] | undefined;

/** Bounds on the files that an agent reads. @throws {CommandError} that names the flag which is wrong. */
export function fileLimits(flags: ParsedFlags, io: CommandLineIo): FileLimits {
  const given = (name: string): number | undefined =>
    wholeNumber(name, flags.text(name) || (variableOf(name, io) ?? ""), 1, Number.MAX_SAFE_INTEGER);
  return {
    bytes: given("max-file-bytes") ?? defaultFileLimits.bytes,
    pipeMs: given("pipe-wait-ms") ?? defaultFileLimits.pipeMs,
  };
}

function variableOf(name: string, { environment }: CommandLineIo): string | undefined {
  return environment[`PEERAGE_${name.toUpperCase().replaceAll("-", "_")}`] || undefined;
}

/** Undefined for `""`. @throws {CommandError} */
function wholeNumber(name: string, value: string, least: number, most: number): number | undefined {
  if (value === "") return undefined;
  if (/^\d{1,16}$/.test(value) && Number(value) >= least && Number(value) <= most) return Number(value);
  throw new CommandError(`Invalid ${name}: ${JSON.stringify(value)} is no number from ${least} to ${most}`);
}

/** @throws {CommandError} that names the flag, variable or key which is wrong. */
export async function readAgentOptions(flags: ParsedFlags, io: CommandLineIo): Promise<AgentOptions> {
  if (flags.rest.length > 0) throw new CommandError(`Unexpected argument: ${flags.rest[0]}`);
  const fromEnvironment = (name: string): string | undefined => variableOf(name, io);
  const configPath = flags.text("config") || fromEnvironment("config");
  const config = configPath === undefined ? new Map<string, Setting>() : await readConfig(configPath, io);

  const pathsOf = (name: string): readonly string[] =>
    flags.given(name) ? flags.texts(name) : listOf(fromEnvironment(name));
  const consul = await readConsulConfig(
    [...pathsOf("config-file"), ...pathsOf("config-dir")],
    flags.text("config-format") || (fromEnvironment("config-format") ?? ""),
    flags.text("node") || fromEnvironment("node"),
    io,
    flagConfig(flags),
  );

  const setting = (name: string): Setting =>
    flags.given(name)
      ? (flags.texts(name).at(-1) ?? "")
      : (fromEnvironment(name) ?? config.get(name) ?? consul.settings.get(name));
  const text = (name: string): string => {
    const value = setting(name) ?? "";
    if (typeof value !== "string") throw new CommandError(`Invalid ${name}: a list, where one value is expected`);
    return value;
  };
  const boolean = (name: string): boolean => {
    const value = text(name);
    if (/^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
    if (/^(?:0|f|F|false|FALSE|False|)$/.test(value)) return false;
    throw new CommandError(`Invalid ${name}: ${JSON.stringify(value)} is no boolean`);
  };

  const number = (name: string, least: number, most: number): number | undefined =>
    wholeNumber(name, text(name), least, most);

  const texts = (name: string): readonly string[] => (flags.given(name) ? flags.texts(name) : listOf(setting(name)));

  for (const { name } of agentFlags) {
    const given = flags.given(name) ? flags.texts(name) : (fromEnvironment(name) ?? config.get(name));
    for (const value of [given ?? []].flat()) checkText(name, value);
  }
  const dev = boolean("dev");
  // As Consul's development mode keeps nothing, whatever its files say.
  const ignored = dev && consul.settings.get("data-dir") === setting("data-dir");
  const dataDirectory = ignored ? undefined : text("data-dir") || undefined;
  if (dev && dataDirectory !== undefined) throw new CommandError("Cannot specify both -dev and -data-dir");
  if (!dev && dataDirectory === undefined) throw new CommandError("Must specify -data-dir, or -dev to keep no data");
  const logLevel = text("log-level") || "info";
  if (!isLogLevel(logLevel)) {
    throw new CommandError(`Invalid log-level: ${JSON.stringify(logLevel)} is none of ${LOG_LEVELS.join(", ")}`);
  }
  const maxUdpBytes = number("dns-max-udp-bytes", 512, 65_467);
  const largeAnswers = number("dns-large-answers", 0, Number.MAX_SAFE_INTEGER);
  const keptReplyBytes = number("dns-kept-reply-bytes", 0, Number.MAX_SAFE_INTEGER);
  const keptAnswerBytes = number("http-kept-answer-bytes", 0, Number.MAX_SAFE_INTEGER);
  const keptTextBytes = number("http-kept-text-bytes", 0, Number.MAX_SAFE_INTEGER);
  const waitingPerSource = number("http-waiting-per-source", 0, Number.MAX_SAFE_INTEGER);
  const bodyBytesPerSource = number("http-body-bytes-per-source", 0, Number.MAX_SAFE_INTEGER);
  const unsentPerSource = number("http-unsent-bytes-per-source", 1, Number.MAX_SAFE_INTEGER);
  const longBytesPerSource = number("http-long-bytes-per-source", 1, Number.MAX_SAFE_INTEGER);
  const maxChecks = number("http-max-checks", 0, Number.MAX_SAFE_INTEGER);
  const maxRecords = number("http-max-records", 1, Number.MAX_SAFE_INTEGER);
  const maxBodyValues = number("http-max-body-values", 1_000, Number.MAX_SAFE_INTEGER);
  const templateCharacters = number("query-template-characters", 0, Number.MAX_SAFE_INTEGER);
  const filterCharacters = number("subset-filter-characters", 0, Number.MAX_SAFE_INTEGER);
  const certificateCharacters = number("inline-certificate-characters", 0, Number.MAX_SAFE_INTEGER);
  const leafCertificates = number("leaf-certificates", 1, Number.MAX_SAFE_INTEGER);
  const leafCertificateUnusedMs = number("leaf-certificate-unused-ms", 1, Number.MAX_SAFE_INTEGER);
  const slowReaderMs = number("http-slow-reader-ms", 1, Number.MAX_SAFE_INTEGER);
  const connections = number("max-connections", 1, Number.MAX_SAFE_INTEGER);
  const reservedDescriptors = number("reserved-descriptors", 1, Number.MAX_SAFE_INTEGER);
  const handshakesPerSource = number("handshakes-per-source", 1, Number.MAX_SAFE_INTEGER);
  const requestsPerSecond = number("requests-per-second", 1, Number.MAX_SAFE_INTEGER);
  const httpConnectionsPerSource = number("http-connections-per-source", 1, Number.MAX_SAFE_INTEGER);
  const node = text("node") || hostname();
  valid("node", () => checkNodeName(node));
  const bind = bindAddress(text("bind"));
  const grpcTls = isOff(text("grpc-tls")) ? undefined : listenAddress("grpc-tls", text("grpc-tls"), bind, 8503);
  const advertise = valid("advertise", () => advertisedAddresses(texts("advertise")));
  if (advertise.length === 0 && grpcTls !== undefined && /^(?:0\.0\.0\.0|\[?::\]?|)$/.test(grpcTls.host)) {
    throw new CommandError(
      "Must specify -advertise: an agent that listens on every address does not know where peers reach it",
    );
  }
  return {
    datacenter: valid("datacenter", () => datacenterName(text("datacenter") || "dc1")),
    node,
    dataDirectory,
    encryption: await readEncryption(text("encrypt-key-file"), io),
    http: isOff(text("http")) ? undefined : listenAddress("http", text("http"), "127.0.0.1", 8500),
    ...httpsOptions(text, boolean("verify-incoming")),
    xdsTls:
      text("xds-tls") === "" || isOff(text("xds-tls"))
        ? undefined
        : listenAddress("xds-tls", text("xds-tls"), "127.0.0.1", 8503),
    grpcTls,
    grpc:
      text("grpc") === "" || isOff(text("grpc")) ? undefined : listenAddress("grpc", text("grpc"), "127.0.0.1", 8502),
    dns: isOff(text("dns")) ? undefined : listenAddress("dns", text("dns"), "127.0.0.1", 8600),
    advertise,
    transit: texts("transit").map(transitRule),
    requests: {
      allowedHosts: texts("allowed-host"),
      allowedOrigins: texts("allowed-origin"),
      allowWriteFrom: texts("allow-write-http-from"),
      ...(requestsPerSecond !== undefined && { requestsPerSecond }),
    },
    callLimits: {
      ...(waitingPerSource !== undefined && { waitingPerSource }),
      ...(bodyBytesPerSource !== undefined && { bodyBytesPerSource }),
      ...(unsentPerSource !== undefined && { unsentPerSource }),
      ...(longBytesPerSource !== undefined && { longBytesPerSource }),
      ...(slowReaderMs !== undefined && { slowReaderMs }),
    },
    bodyLimits: {
      ...(maxChecks !== undefined && { maxChecks }),
      ...(maxRecords !== undefined && { maxRecords }),
      ...(maxBodyValues !== undefined && { maxBodyValues }),
    },
    keptAnswers: {
      ...(keptAnswerBytes !== undefined && { keptAnswerBytes }),
      ...(keptTextBytes !== undefined && { keptTextBytes }),
    },
    hostLimits: {
      ...(maxBodyValues !== undefined && { recordValues: 2 * maxBodyValues }),
      ...(templateCharacters !== undefined && { templateCharacters }),
      ...(filterCharacters !== undefined && { filterCharacters }),
      ...(certificateCharacters !== undefined && { certificateCharacters }),
      ...(leafCertificates !== undefined && { leafCertificates }),
      ...(leafCertificateUnusedMs !== undefined && { leafCertificateUnusedMs }),
    },
    checkAddresses: texts("check-addresses"),
    exposedPorts: exposedPorts(number("expose-min-port", 0, MAX_PORT), number("expose-max-port", 0, MAX_PORT)),
    ...forbiddenAddresses(texts("forbidden-addresses")),
    rotateRoot: boolean("rotate-root"),
    allowPeeringWrite: boolean("allow-peering-write"),
    dnsStrict: boolean("dns-strict"),
    dnsLimits: {
      ...(maxUdpBytes !== undefined && { maxUdpBytes }),
      ...(largeAnswers !== undefined && { largeAnswers: { perSecond: largeAnswers } }),
      ...(keptReplyBytes !== undefined && { keptReplyBytes }),
    },
    connectionLimits: {
      ...(connections !== undefined && { connections }),
      ...(reservedDescriptors !== undefined && { reservedDescriptors }),
      ...(handshakesPerSource !== undefined && { handshakesPerSource }),
    },
    httpConnectionsPerSource,
    acl: aclOf(text("acl-policies"), consul),
    logLevel,
    consul,
    settings: new Map([
      ...agentFlags.map(({ name, kind }) => [name, kind === "texts" ? texts(name).join() : text(name)] as const),
      ["node_id", consul.nodeId ?? ""],
      ["node_meta", JSON.stringify(consul.nodeMeta)],
      ["log_json", String(consul.logJson)],
      ["pid_file", consul.pidFile ?? ""],
      ["peering.enabled", String(consul.peeringEnabled)],
    ]),
  };
}

/** @throws {CommandError} for two sources. */
function aclOf(file: string, { policies }: ConsulConfig): AgentOptions["acl"] {
  if (file !== "" && policies !== undefined) {
    throw new CommandError("Cannot specify both -acl-policies and acl.enabled of Consul's configuration");
  }
  if (file !== "") return { file };
  return policies && { policies };
}

/** As Consul's ports are switched off, too. */
function isOff(address: string): boolean {
  return address === "off" || /^(?:.*:)?-1$/.test(address);
}

/** @throws {CommandError} for settings that have no effect, or are missing. */
function httpsOptions(
  text: (name: string) => string,
  verifyIncoming: boolean,
): Pick<AgentOptions, "https" | "tlsFiles"> {
  const [address, certificate, key, ca] = [text("https"), text("cert"), text("key"), text("ca")];
  if (address === "" || isOff(address)) {
    const forEnvoys = text("xds-tls") !== "" && !isOff(text("xds-tls"));
    if (forEnvoys && certificate !== "" && key !== "" && ca === "" && !verifyIncoming) {
      return { https: undefined, tlsFiles: { certificate, key, ca: undefined } };
    }
    if (certificate + key + ca !== "" || verifyIncoming) {
      throw new CommandError("Must specify -https with -cert, -key, -ca and -verify-incoming");
    }
    return { https: undefined, tlsFiles: undefined };
  }
  if (certificate === "" || key === "") throw new CommandError("Must specify -cert and -key with -https");
  if (verifyIncoming && ca === "") throw new CommandError("Must specify -ca with -verify-incoming");
  return {
    https: { listen: listenAddress("https", address, "127.0.0.1", 8501), verifyIncoming },
    tlsFiles: { certificate, key, ca: ca || undefined },
  };
}

/** @throws {CommandError} that names the flag. */
function valid<Value>(name: string, read: () => Value): Value {
  try {
    return read();
  } catch (error) {
    throw new CommandError(`Invalid ${name}: ${errorText(error)}`, { cause: error });
  }
}

/**
 * Options whose value cannot be meant: `-acl-policies "$FILE"` with a variable that is not set must not start an agent without them.
 * @throws {CommandError}
 */
function checkText(name: string, value: string): void {
  const fail = (problem: string): CommandError => new CommandError(`Invalid ${name}: ${problem}`);
  if (value.trim() === "") throw fail("it cannot be empty");
  if (value !== value.trim()) throw fail(`${JSON.stringify(value)} begins or ends with a space`);
  if (/\p{Cc}/u.test(value)) throw fail(`${JSON.stringify(value)} has control characters`);
}

function bindAddress(given: string): string {
  const address = withoutBrackets(given);
  if (address === "") return "127.0.0.1";
  // Consul's words.
  if (isIP(address) === 0) throw new CommandError(`Invalid bind: invalid ip address: ${given}`);
  return address;
}

function listOf(value: Setting): readonly string[] {
  if (value === undefined) return [];
  return typeof value === "string" ? value.split(",").map((part) => part.trim()) : value;
}

const MAX_PORT = 65_535;

/** @throws {CommandError} with Consul's text. */
function exposedPorts(first = defaultExposedPorts.first, last = defaultExposedPorts.last): ExposedPortRange {
  if (last >= first) return { first, last };
  throw new CommandError("expose_min_port must be less than expose_max_port. To disable, set both to zero.");
}

function forbiddenAddresses(ranges: readonly string[]): Pick<AgentOptions, "forbiddenAddresses"> {
  if (ranges.length === 0) return {};
  return { forbiddenAddresses: ranges.length === 1 && ranges[0] === "none" ? [] : ranges };
}

function transitRule(text: string): TransitRule {
  const [, from, to, service] = /^([^:]+):([^:]+):(.+)$/.exec(text) ?? [];
  if (from === undefined || to === undefined || service === undefined) {
    throw new CommandError(`Invalid transit: ${JSON.stringify(text)} is not from:to:service`);
  }
  return { from, to, services: [service] };
}

function listenAddress(name: string, text: string, defaultHost: string, defaultPort: number): ListenAddress {
  if (text === "") return { host: defaultHost, port: defaultPort, given: false };
  const [, bracketed, plain, digits] = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65_535) {
    throw new CommandError(`Invalid ${name}: ${JSON.stringify(text)} is not host:port`);
  }
  return { host: bracketed ?? plain ?? "", port, given: true };
}

/** @throws {CommandError} that names the file, and the line where it is wrong. */
export async function readPolicies(acl: NonNullable<AgentOptions["acl"]>, io: CommandLineIo): Promise<AclPolicies> {
  if ("policies" in acl) return acl.policies;
  return reading(`the ACL policies ${acl.file}`, async () => inTurns(aclPoliciesSteps(await io.readFile(acl.file))));
}

/** @throws {CommandError} that names the file. Whether they fit together is not looked at. */
export async function readTls({ certificate, key, ca }: TlsFiles, io: CommandLineIo): Promise<ServerTls> {
  const read = (what: string, path: string): Promise<string> => reading(`${what} ${path}`, () => io.readFile(path));
  return {
    certificate: await read("the certificate", certificate),
    key: await read("the key", key),
    ...(ca === undefined ? {} : { ca: await read("the authorities of clients", ca) }),
  };
}

/** A key itself is taken only from the environment: every user can see a command line. */
async function readEncryption(path: string, io: CommandLineIo): Promise<EncryptionKeys | undefined> {
  const keys = io.environment[ENCRYPT_KEY] || undefined;
  if (keys !== undefined && path !== "")
    throw new CommandError(`Cannot specify both ${ENCRYPT_KEY} and a file of keys`);
  if (keys !== undefined) return parseEncryptionKeys(keys, ENCRYPT_KEY);
  return path === "" ? undefined : readEncryptionKeys(path, io);
}

async function reading<Content>(what: string, read: () => Promise<Content>): Promise<Content> {
  try {
    return await read();
  } catch (error) {
    throw new CommandError(`Error reading ${what}: ${errorText(error)}`, { cause: error });
  }
}

async function readConfig(path: string, io: CommandLineIo): Promise<ReadonlyMap<string, Setting>> {
  const fail = (problem: string, cause?: unknown): CommandError =>
    new CommandError(`Error reading the configuration file ${path}: ${problem}`, { cause });
  let json: Json;
  try {
    json = plainJson(readWholeValue(Buffer.from(await io.readFile(path))));
  } catch (error) {
    const place = error instanceof GoJsonError ? ` (at byte ${error.offset})` : "";
    throw fail(errorText(error) + place, error);
  }
  if (!isJsonObject(json)) throw fail("not an object");
  return settingsOf(json, fail);
}

function settingsOf(json: JsonObject, fail: (problem: string) => CommandError): ReadonlyMap<string, Setting> {
  const settings = new Map<string, Setting>();
  for (const [key, value] of Object.entries(json)) {
    // Consul's own files say `data_dir`.
    const name = key.replaceAll("_", "-");
    const flag = agentFlags.find((each) => each.name === name && !SOURCES.has(name));
    if (flag === undefined) throw fail(`unknown key ${JSON.stringify(key)}`);
    if (flag.kind === "texts" && Array.isArray(value) && value.every((element) => typeof element === "string")) {
      settings.set(name, value);
    } else if (flag.kind === "boolean" ? typeof value === "boolean" : typeof value === "string") {
      settings.set(name, String(value));
    } else {
      throw fail(`the value of ${JSON.stringify(key)} is of the wrong type`);
    }
  }
  return settings;
}
