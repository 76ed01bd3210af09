import { doAll, type Steps } from "../base/steps.js";
import type { ConfigEntryKind } from "../model/entry-kinds.js";
import { EntryReader, invalidEntry, listProblems, present, refuseEnterprise } from "../model/entry-reader.js";
import type { JsonObject, StringMap } from "../model/instance.js";
import { textMember } from "../model/kept-members.js";
import { isLabel, lowerCase } from "../syntax/names.js";
import { checkedIntentions, type IntentionJwt, type IntentionSource, readIntentions } from "./intentions.js";

/** Which cluster, by our name of the peering, may see a service. */
export interface ExportConsumer {
  /** Name of the peering, compared byte for byte. */
  readonly peer?: string;
  /** Enterprise only: accepted and without effect, as in Community Edition. */
  readonly partition?: string;
  /** Enterprise only: refused, as in Community Edition. */
  readonly samenessGroup?: string;
}

export interface ExportedServiceBlock {
  /** A service name, or `*`: every ordinary service, and every router, splitter or resolver for the mesh. */
  readonly name: string;
  /** Enterprise only. */
  readonly namespace?: string;
  readonly consumers: readonly ExportConsumer[];
}

interface EntryBase {
  /** At most 64 pairs; keys of at most 128, values of at most 512 bytes. */
  readonly meta?: StringMap;
  /** Fields of Consul's entry that this library keeps and does not interpret. */
  readonly extra?: JsonObject;
}

/** Which services are exported to which peers; one entry per cluster. */
export interface ExportedServicesEntry extends EntryBase {
  readonly kind: "exported-services";
  readonly name: "default";
  readonly services: readonly ExportedServiceBlock[];
}

export interface ServiceDefaultsEntry extends EntryBase {
  readonly kind: "service-defaults";
  readonly name: string;
  /** Compared without case; absent means `tcp`, whatever proxy-defaults say. */
  readonly protocol?: string;
}

export interface ProxyDefaultsEntry extends EntryBase {
  readonly kind: "proxy-defaults";
  readonly name: "global";
  /** `protocol` is the protocol of services without a service-defaults entry. */
  readonly config?: JsonObject;
}

export interface ResolverSubset {
  readonly filter?: string;
  readonly onlyPassing?: boolean;
}

export interface ResolverRedirect {
  readonly service?: string;
  readonly serviceSubset?: string;
  readonly namespace?: string;
  readonly partition?: string;
  readonly datacenter?: string;
  readonly peer?: string;
  readonly samenessGroup?: string;
}

export interface FailoverTarget {
  readonly service?: string;
  readonly serviceSubset?: string;
  readonly partition?: string;
  readonly namespace?: string;
  readonly datacenter?: string;
  readonly peer?: string;
}

export interface ResolverFailover {
  readonly service?: string;
  readonly serviceSubset?: string;
  readonly namespace?: string;
  readonly datacenters?: readonly string[];
  readonly targets?: readonly FailoverTarget[];
  readonly samenessGroup?: string;
  readonly policy?: JsonObject;
}

export interface ServiceResolverEntry extends EntryBase {
  readonly kind: "service-resolver";
  readonly name: string;
  readonly defaultSubset?: string;
  readonly subsets?: Readonly<Record<string, ResolverSubset>>;
  readonly redirect?: ResolverRedirect;
  /** Keyed by subset, or `*` for all. */
  readonly failover?: Readonly<Record<string, ResolverFailover>>;
  /** Duration text such as `5s`. */
  readonly connectTimeout?: string;
  readonly requestTimeout?: string;
}

export interface RouteDestination {
  readonly service?: string;
  readonly serviceSubset?: string;
  readonly namespace?: string;
  readonly partition?: string;
  /** Kept and not interpreted. */
  readonly extra?: JsonObject;
}

export interface ServiceRoute {
  /** Kept and not interpreted. */
  readonly match?: JsonObject;
  readonly destination?: RouteDestination;
}

export interface ServiceRouterEntry extends EntryBase {
  readonly kind: "service-router";
  readonly name: string;
  readonly routes: readonly ServiceRoute[];
}

export interface ServiceSplit {
  /** Per cent, down to 0.01; all of an entry sum to 100. */
  readonly weight: number;
  readonly service?: string;
  readonly serviceSubset?: string;
  readonly namespace?: string;
  readonly partition?: string;
  /** Kept and not interpreted. */
  readonly extra?: JsonObject;
}

export interface ServiceSplitterEntry extends EntryBase {
  readonly kind: "service-splitter";
  readonly name: string;
  readonly splits: readonly ServiceSplit[];
}

/** The rights to call a service, or for `*` any service, through the mesh. Enforced where the service runs; nothing of it is replicated. */
export interface ServiceIntentionsEntry extends EntryBase {
  readonly kind: "service-intentions";
  readonly name: string;
  /** By precedence, highest first. */
  readonly sources: readonly IntentionSource[];
  /** For all sources. */
  readonly jwt?: IntentionJwt;
}

export interface LinkedService {
  /** A service name, or `*`: every ordinary local service. */
  readonly name: string;
  /** Fields that are kept and not interpreted, such as TLS files. */
  readonly extra?: JsonObject;
}

export interface TerminatingGatewayEntry extends EntryBase {
  readonly kind: "terminating-gateway";
  readonly name: string;
  readonly services: readonly LinkedService[];
}

export interface MeshEntry extends EntryBase {
  readonly kind: "mesh";
  readonly name: "mesh";
  readonly peering?: { readonly peerThroughMeshGateways?: boolean };
}

/** Kinds that the library keeps, and judges as Consul does, but does not interpret. */
export type KeptKind =
  | "api-gateway"
  /** Written by Consul's own controller alone: listed, and refused. */
  | "bound-api-gateway"
  | "file-system-certificate"
  | "http-route"
  | "ingress-gateway"
  | "inline-certificate"
  | "jwt-provider"
  /** Enterprise only: listed, and refused. */
  | "sameness-group"
  | "tcp-route";

/** All of its own fields are in `extra`, by Consul's names. */
export interface KeptEntry<Kind extends KeptKind> extends EntryBase {
  readonly kind: Kind;
  readonly name: string;
}

/** A checked configuration entry; absent and empty fields are left out. */
export type ConfigEntry =
  | { readonly [Kind in KeptKind]: KeptEntry<Kind> }[KeptKind]
  | ExportedServicesEntry
  | ServiceDefaultsEntry
  | ProxyDefaultsEntry
  | ServiceIntentionsEntry
  | ServiceResolverEntry
  | ServiceRouterEntry
  | ServiceSplitterEntry
  | TerminatingGatewayEntry
  | MeshEntry;

type OptionalName<Entry extends ConfigEntry> = Omit<Entry, "name"> & Partial<Pick<Entry, "name">>;

/** The input of a write: a {@link ConfigEntry}; the name of kinds that exist once may be left out. */
export type ConfigEntryInput =
  | Exclude<ConfigEntry, ExportedServicesEntry | ProxyDefaultsEntry | MeshEntry>
  | OptionalName<ExportedServicesEntry>
  | OptionalName<ProxyDefaultsEntry>
  | OptionalName<MeshEntry>;

/** The protocol of a service. `""` stands for tcp. */
const PROTOCOLS: ReadonlySet<string> = new Set(["", "grpc", "http", "http2", "tcp"]);

function checkMeta(meta: StringMap): void {
  const problems: string[] = [];
  const pairs = Object.entries(meta);
  if (pairs.length > 64) problems.push("Meta exceeds maximum element count 64");
  for (const [key, value] of pairs) {
    if (Buffer.byteLength(key) > 128) problems.push(`Meta key "${key}" exceeds maximum length 128`);
    if (Buffer.byteLength(value) > 512) problems.push(`Meta value for key "${key}" exceeds maximum length 512`);
  }
  if (problems.length > 0) throw invalidEntry(listProblems(problems));
}

function requireName(source: EntryReader): string {
  const name = source.text("name");
  if (name === "") throw invalidEntry("Name is required");
  return name;
}

function parseExportedServices(source: EntryReader, unknown: string[]): ExportedServicesEntry {
  const name = source.text("name");
  const meta = source.textMap("meta");
  const extra = source.json("extra");
  const blocks = source.list("services").map((block) => {
    const consumers = block.list("consumers").map((consumer) => {
      const fields = {
        peer: consumer.text("peer"),
        partition: consumer.text("partition"),
        samenessGroup: consumer.text("samenessGroup"),
      };
      consumer.end();
      return fields;
    });
    const fields = { name: block.text("name"), namespace: block.text("namespace"), consumers };
    block.end();
    return fields;
  });
  finish(source, unknown);
  // The order of these checks is Consul's: a caller sees only the first failure.
  if (name !== "" && name !== "default") throw invalidEntry('exported-services Name must be "default"');
  checkMeta(meta);
  for (const [i, block] of blocks.entries()) {
    for (const [j, consumer] of block.consumers.entries()) {
      if (consumer.samenessGroup !== "") {
        throw invalidEntry(`Services[${i}].Consumers[${j}]: sameness-groups are an enterprise-only feature`);
      }
    }
  }
  for (const [i, block] of blocks.entries()) {
    if (block.name === "") throw invalidEntry(`Services[${i}]: service name cannot be empty`);
    if (block.namespace === "*" && block.name !== "*") {
      throw invalidEntry(`Services[${i}]: service name must be wildcard if namespace is wildcard`);
    }
    if (block.consumers.length === 0) throw invalidEntry(`Services[${i}]: must have at least one consumer`);
    for (const [j, { peer, partition }] of block.consumers.entries()) {
      const at = `Services[${i}].Consumers[${j}]`;
      if (peer !== "" && partition !== "") {
        throw invalidEntry(`${at}: must define at most one of Peer, Partition, or SamenessGroup`);
      }
      if (partition === "*") throw invalidEntry(`${at}: exporting to all partitions (wildcard) is not supported`);
      if (peer === "*") throw invalidEntry(`${at}: exporting to all peers (wildcard) is not supported`);
    }
  }
  return {
    kind: "exported-services",
    name: "default",
    services: blocks.map((block) => ({
      name: block.name,
      consumers: block.consumers.map((consumer) => present(consumer)),
      ...present({ namespace: block.namespace }),
    })),
    ...present({ meta, extra }),
  };
}

function parseResolver(source: EntryReader, unknown: string[]): ServiceResolverEntry {
  const name = requireName(source);
  const meta = source.textMap("meta");
  const subsets = new Map(
    source.objects("subsets").map(([subset, fields]) => {
      const parsed = { filter: fields.text("filter"), onlyPassing: fields.flag("onlyPassing") };
      fields.end();
      return [subset, present(parsed)];
    }),
  );
  const redirectSource = source.object("redirect");
  const redirect = redirectSource === undefined ? undefined : readRedirect(redirectSource);
  const failover = source.objects("failover").map(([subset, fields]) => [subset, readFailover(fields)] as const);
  const rest = {
    defaultSubset: source.text("defaultSubset"),
    connectTimeout: source.text("connectTimeout"),
    requestTimeout: source.text("requestTimeout"),
    extra: source.json("extra"),
  };
  finish(source, unknown);
  // In Consul's order, as a caller sees the first fault alone.
  checkMeta(meta);
  for (const subset of subsets.keys()) {
    if (subset === "") throw invalidEntry("Subset defined with empty name");
    const fault = subsetFault(subset);
    if (fault !== undefined) throw invalidEntry(`Subset "${subset}" is invalid: ${fault}`);
  }
  if (rest.defaultSubset !== "" && !subsets.has(rest.defaultSubset)) {
    throw invalidEntry(`DefaultSubset "${rest.defaultSubset}" is not a valid subset`);
  }
  const ownSubset = { name, has: (subset: string) => subsets.has(subset) };
  if (redirect !== undefined) {
    refuseEnterpriseFields("Redirect", redirect);
    if (failover.length > 0) throw invalidEntry("Redirect and Failover cannot both be set");
    checkRedirect(redirect, ownSubset);
  }
  for (const [subset, places] of failover) checkFailover(subset, places, ownSubset);
  for (const [field, duration] of [
    ["ConnectTimeout", rest.connectTimeout],
    ["RequestTimeout", rest.requestTimeout],
  ] as const) {
    if (duration.startsWith("-")) throw invalidEntry(`Bad ${field} '${duration}', must be >= 0`);
  }
  return {
    kind: "service-resolver",
    name,
    ...present({
      ...rest,
      subsets: Object.fromEntries(subsets),
      redirect: redirect && present(redirect),
      failover: Object.fromEntries(
        failover.map(([subset, places]) => [
          subset,
          present({ ...places, targets: places.targets.map((target) => present(target)) }),
        ]),
      ),
      meta,
    }),
  };
}

/** Subsets are labels of a server name. */
function subsetFault(subset: string): string | undefined {
  if (Buffer.byteLength(subset) > 63) return "must be non-empty and 63 characters or fewer";
  if (isLabel(subset)) return undefined;
  return "must be 63 characters or fewer, begin or end with lower case alphanumeric characters, and contain lower case alphanumeric characters or '-' in between";
}

type AllFields<Entry> = { readonly [Key in keyof Entry]-?: NonNullable<Entry[Key]> };
type ReadFailover = Omit<AllFields<ResolverFailover>, "policy" | "targets"> & {
  readonly policy: JsonObject | undefined;
  readonly targets: readonly AllFields<FailoverTarget>[];
};
/** The subsets that the entry itself defines. */
type OwnSubsets = { readonly name: string; readonly has: (subset: string) => boolean };

function readRedirect(source: EntryReader): AllFields<ResolverRedirect> {
  const fields = {
    service: source.text("service"),
    serviceSubset: source.text("serviceSubset"),
    namespace: source.text("namespace"),
    partition: source.text("partition"),
    datacenter: source.text("datacenter"),
    peer: source.text("peer"),
    samenessGroup: source.text("samenessGroup"),
  };
  source.end();
  return fields;
}

function readFailover(source: EntryReader): ReadFailover {
  const fields = {
    service: source.text("service"),
    serviceSubset: source.text("serviceSubset"),
    namespace: source.text("namespace"),
    datacenters: source.texts("datacenters"),
    samenessGroup: source.text("samenessGroup"),
    policy: source.json("policy"),
  };
  const targets = source.list("targets").map((target) => {
    const parsed = {
      service: target.text("service"),
      serviceSubset: target.text("serviceSubset"),
      partition: target.text("partition"),
      namespace: target.text("namespace"),
      datacenter: target.text("datacenter"),
      peer: target.text("peer"),
    };
    target.end();
    return parsed;
  });
  source.end();
  return { ...fields, targets };
}

/** A resolver of Community Edition names no partition and no namespace, not even its own. */
function refuseEnterpriseFields(
  at: string,
  { partition = "", namespace = "", samenessGroup = "" }: Partial<ResolverRedirect>,
): void {
  for (const [field, value] of [
    ["Partition", partition],
    ["Namespace", namespace],
    ["SamenessGroup", samenessGroup],
  ] as const) {
    if (value !== "") throw invalidEntry(`${at}: Setting ${field} requires Consul Enterprise`);
  }
}

function checkRedirect(redirect: AllFields<ResolverRedirect>, own: OwnSubsets): void {
  const { service, serviceSubset, datacenter, peer } = redirect;
  if (Object.values(redirect).every((value) => value === "")) throw invalidEntry("Redirect is empty");
  if (peer !== "" && serviceSubset !== "") {
    throw invalidEntry("Redirect.Peer cannot be set with Redirect.ServiceSubset");
  }
  if (peer !== "" && datacenter !== "") throw invalidEntry("Redirect.Peer cannot be set with Redirect.Datacenter");
  if (service === "") {
    if (serviceSubset !== "") throw invalidEntry("Redirect.ServiceSubset defined without Redirect.Service");
    if (peer !== "") throw invalidEntry("Redirect.Peer defined without Redirect.Service");
  } else if (serviceSubset !== "" && service === own.name && !own.has(serviceSubset)) {
    throw invalidEntry(`Redirect.ServiceSubset "${serviceSubset}" is not a valid subset of "${own.name}"`);
  }
}

function checkFailover(subset: string, failover: ReadFailover, own: OwnSubsets): void {
  const bad = `Bad Failover["${subset}"]`;
  const { service, serviceSubset, datacenters, targets, policy } = failover;
  refuseEnterpriseFields(bad, failover);
  // The word stands there twice in Consul, too.
  if (subset !== "*" && !own.has(subset)) throw invalidEntry(`${bad}: not a valid subset subset`);
  if (service === "" && serviceSubset === "" && datacenters.length === 0 && targets.length === 0) {
    throw invalidEntry(
      `${bad}: one of Service, ServiceSubset, Namespace, Targets, SamenessGroup, or Datacenters is required`,
    );
  }
  if (textMember(policy, "Mode") !== "") {
    throw invalidEntry(`${bad}: Setting failover policies requires Consul Enterprise`);
  }
  if (serviceSubset !== "" && (service === "" || service === own.name) && !own.has(serviceSubset)) {
    throw invalidEntry(`${bad}: ServiceSubset "${serviceSubset}" is not a valid subset of "${service}"`);
  }
  if (targets.length > 0) {
    if (datacenters.length > 0) throw invalidEntry(`${bad}: Targets cannot be set with Datacenters`);
    if (serviceSubset !== "") throw invalidEntry(`${bad}: Targets cannot be set with ServiceSubset`);
    if (service !== "") throw invalidEntry(`${bad}: Targets cannot be set with Service`);
  }
  for (const [index, target] of targets.entries()) checkFailoverTarget(`${bad}.Targets[${index}]`, target, own);
  if (datacenters.includes("")) throw invalidEntry(`${bad}.Datacenters: found empty datacenter`);
}

function checkFailoverTarget(at: string, target: AllFields<FailoverTarget>, own: OwnSubsets): void {
  const { service, serviceSubset, datacenter, peer } = target;
  refuseEnterpriseFields(at, target);
  if (peer !== "" && serviceSubset !== "") throw invalidEntry(`${at}: Peer cannot be set with ServiceSubset`);
  if (peer !== "" && datacenter !== "") throw invalidEntry(`${at}: Peer cannot be set with Datacenter`);
  if (serviceSubset !== "" && (service === "" || service === own.name) && !own.has(serviceSubset)) {
    throw invalidEntry(`${at}: ServiceSubset "${serviceSubset}" is not a valid subset of "${own.name}"`);
  }
}

function parseRouter(source: EntryReader, unknown: string[]): ServiceRouterEntry {
  const name = requireName(source);
  const routes = source.list("routes").map((route): ServiceRoute => {
    const match = route.json("match");
    const destination = route.object("destination");
    route.end();
    return {
      ...(match === undefined ? {} : { match }),
      ...(destination === undefined ? {} : { destination: parseDestination(destination) }),
    };
  });
  const common = parseCommon(source, unknown);
  return { kind: "service-router", name, routes, ...common };
}

function parseDestination(source: EntryReader): RouteDestination {
  const fields = {
    service: source.text("service"),
    serviceSubset: source.text("serviceSubset"),
    namespace: source.text("namespace"),
    partition: source.text("partition"),
    extra: source.json("extra"),
  };
  source.end();
  refuseEnterprise(source);
  return present(fields);
}

function parseSplitter(source: EntryReader, unknown: string[]): ServiceSplitterEntry {
  const name = requireName(source);
  const splits = source.list("splits").map((split): ServiceSplit => {
    const weight = split.number("weight");
    const fields = {
      service: split.text("service"),
      serviceSubset: split.text("serviceSubset"),
      namespace: split.text("namespace"),
      partition: split.text("partition"),
      extra: split.json("extra"),
    };
    split.end();
    refuseEnterprise(split);
    return { weight, ...present(fields) };
  });
  const common = parseCommon(source, unknown);
  if (splits.length === 0) throw invalidEntry("no splits configured");
  const seen = new Set<string>();
  for (const { weight: _, service = name, ...rest } of splits) {
    const key = JSON.stringify([service, rest]);
    if (seen.has(key)) {
      const { serviceSubset = "", namespace = "", partition = "" } = rest;
      const of = { service, subset: serviceSubset, namespace, partition };
      const shown = Object.entries(of).map(([field, value]) => `${field}=${JSON.stringify(value)}`);
      throw invalidEntry(`split destination occurs more than once: ${shown.join(", ")}`);
    }
    seen.add(key);
  }
  // Hundredths of a per cent are the finest step; sums of doubles would miss 100 by a hair.
  const hundredths = splits.map((split) => Math.round(split.weight * 100));
  const sum = hundredths.reduce((total, weight) => total + weight, 0);
  if (sum !== 10_000) {
    throw invalidEntry(`the sum of all split weights must be 100, not ${Math.fround(sum / 100).toFixed(6)}`);
  }
  // Consul takes them; there is nothing that such a weight could mean.
  if (hundredths.some((weight) => weight < 0)) throw invalidEntry("split weights must lie between 0 and 100");
  return { kind: "service-splitter", name, splits, ...common };
}

function parseTerminatingGateway(source: EntryReader, unknown: string[]): TerminatingGatewayEntry {
  const name = source.text("name");
  const services = source.list("services").map((service): LinkedService => {
    const linked = { name: service.text("name"), extra: service.json("extra") };
    service.end();
    if (linked.name === "") throw invalidEntry("Service name cannot be blank.");
    return { name: linked.name, ...present({ extra: linked.extra }) };
  });
  const common = parseCommon(source, unknown);
  const seen = new Set<string>();
  for (const service of services) {
    if (seen.has(service.name)) {
      throw invalidEntry(`Service "${service.name}" was specified more than once within a namespace`);
    }
    seen.add(service.name);
  }
  return { kind: "terminating-gateway", name, services, ...common };
}

function parseCommon(source: EntryReader, unknown: string[]): { meta?: StringMap; extra?: JsonObject } {
  const meta = source.textMap("meta");
  const extra = source.json("extra");
  finish(source, unknown);
  checkMeta(meta);
  return present({ meta, extra });
}

/** Unknown keys of the whole entry are reported together, before its content is judged. */
function finish(source: EntryReader, unknown: readonly string[]): void {
  source.end();
  if (unknown.length > 0) throw invalidEntry(listProblems(unknown));
}

/** One name is allowed, and may be left out. */
function onlyName(source: EntryReader, kind: ConfigEntryKind, only: string): void {
  const name = source.text("name");
  if (name === "" || name === only) return;
  throw invalidEntry(
    kind === "proxy-defaults"
      ? `invalid name ("${name}"), only "${only}" is supported`
      : `${kind} Name must be "${only}"`,
  );
}

/**
 * A checked copy of an entry from anywhere, typed or not. Keys are those of {@link ConfigEntry}; texts follow Consul 1.21.
 *
 * @throws {PeeringError} `invalid-entry`: the message names the field and the rule it breaks.
 */
export function parseConfigEntry(input: unknown): ConfigEntry {
  return doAll(configEntrySteps(input));
}

/** As {@link parseConfigEntry}, in steps. */
export function* configEntrySteps(input: unknown): Steps<ConfigEntry> {
  const unknown: string[] = [];
  const source = new EntryReader(input, "", unknown);
  const kind = source.text("kind");
  switch (kind) {
    case "exported-services":
      return parseExportedServices(source, unknown);
    case "service-resolver":
      return parseResolver(source, unknown);
    case "service-router":
      return parseRouter(source, unknown);
    case "service-splitter":
      return parseSplitter(source, unknown);
    case "terminating-gateway":
      return parseTerminatingGateway(source, unknown);
    case "service-intentions": {
      const name = requireName(source);
      const read = readIntentions(source);
      yield;
      const common = parseCommon(source, unknown);
      const { jwt } = read;
      return { kind, name, sources: checkedIntentions(name, read), ...(jwt && { jwt }), ...common };
    }
    case "service-defaults": {
      const name = requireName(source);
      if (name === "*") {
        throw invalidEntry("service-defaults name must be the name of a service, and not a wildcard");
      }
      const protocol = lowerCase(source.text("protocol"));
      const common = parseCommon(source, unknown);
      if (!PROTOCOLS.has(protocol)) throw invalidEntry(listProblems([`invalid value for protocol: ${protocol}`]));
      return { kind, name, ...present({ protocol }), ...common };
    }
    case "proxy-defaults": {
      onlyName(source, kind, "global");
      const config = source.json("config");
      const common = parseCommon(source, unknown);
      const { protocol }: JsonObject = config ?? {};
      if (protocol !== undefined && protocol !== null && typeof protocol !== "string") {
        throw invalidEntry("config.protocol: must be a string");
      }
      return { kind, name: "global", ...(config === undefined ? {} : { config }), ...common };
    }
    case "mesh": {
      onlyName(source, kind, "mesh");
      const peeringSource = source.object("peering");
      const peering =
        peeringSource === undefined
          ? undefined
          : present({ peerThroughMeshGateways: peeringSource.flag("peerThroughMeshGateways") });
      peeringSource?.end();
      return { kind, name: "mesh", ...(peering === undefined ? {} : { peering }), ...parseCommon(source, unknown) };
    }
    case "api-gateway":
    case "bound-api-gateway":
    case "file-system-certificate":
    case "http-route":
    case "ingress-gateway":
    case "inline-certificate":
    case "jwt-provider":
    case "sameness-group":
    case "tcp-route": {
      const name = source.text("name");
      return { kind, name, ...parseCommon(source, unknown) };
    }
    case "":
      throw invalidEntry("Payload does not contain a kind/Kind key at the top level");
    default:
      throw invalidEntry(`invalid config entry kind: ${kind}`);
  }
}
