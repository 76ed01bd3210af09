import { PeeringError } from "../base/errors.js";
import { doAll, StepMeter, type Steps } from "../base/steps.js";
import { parseDuration } from "../syntax/go-duration.js";
import { metadataProblem } from "../syntax/metadata.js";
import { lowerCase } from "../syntax/names.js";
import { uuidProblem } from "../wire/uuid.js";
import { listProblems } from "./entry-reader.js";
import {
  type Check,
  type Connect,
  type JsonObject,
  type JsonValue,
  type Locality,
  MAX_JSON_DEPTH,
  type Node,
  type PeerMeta,
  type Proxy as ProxyDefinition,
  type Service,
  type ServiceAddress,
  type ServiceKind,
  type ServicePort,
  type StringMap,
  type Weights,
} from "./instance.js";
import { defaultPort, portsProblem } from "./ports.js";
import { memberOf, proxyProblems, textOf } from "./proxy-rules.js";
import { emptyList, emptyMap, keysOf, type Reading, readerOf } from "./record-table.js";
import {
  checkTable,
  emptyCheck,
  emptyService,
  nodeTable,
  serviceTable,
  weightsTable,
  writtenOutOfCheck,
  writtenOutOfService,
} from "./records.js";
import { KeptShape } from "./shape-reader.js";
import { checkDefinitionShape, proxyExtraShape, sidecarShape, upstreamShape } from "./shapes.js";

/** Fields of a record that a caller may leave out. */
export type Given<Item, Key extends keyof Item> = { readonly [K in Key]?: Item[K] | undefined };

/** One instance of a service, as a caller describes it. Everything absent has the default of {@link Service}. */
export interface ServiceRegistration
  extends Given<Service, Exclude<keyof Service, "name" | "ports" | "taggedAddresses" | "proxy" | "connect">> {
  readonly kind?: ServiceKind | undefined;
  /** Unique per node. Default: the name. */
  readonly id?: string | undefined;
  readonly name: string;
  /** Default `""`: the node's address. */
  readonly address?: string | undefined;
  /** Any whole number; one beyond 65535 is no answer to questions of DNS. Default 0: none. */
  readonly port?: number | undefined;
  /** Instead of `port`: several, with names of their own. One is the default, for readers that take only one. */
  readonly ports?:
    | readonly { readonly name: string; readonly port: number; readonly default?: boolean | undefined }[]
    | undefined;
  readonly taggedAddresses?:
    | Readonly<Record<string, { readonly address: string; readonly port?: number | undefined }>>
    | undefined;
  /** At most 64 pairs; keys of `[A-Za-z0-9_-]`, at most 128 bytes, without prefix `consul-`; values at most 512 bytes. */
  readonly meta?: StringMap | undefined;
  /** `passing` 1 to 65535, `warning` 0 to 65535. Default 1 and 1, which also replaces invalid ones, as in Consul. */
  readonly weights?: Weights | undefined;
  readonly proxy?: { readonly [Key in keyof ProxyDefinition]?: ProxyDefinition[Key] | undefined } | undefined;
  readonly connect?:
    | {
        readonly native?: boolean | undefined;
        readonly peerMeta?: PeerMeta | undefined;
        /** Gateways must not have one. Kept under Consul's names; only an agent makes one of it. */
        readonly sidecarService?: JsonObject | undefined;
      }
    | undefined;
  /** Always refused: imported data is written by replication only. */
  readonly peerName?: string | undefined;
}

/** A health check, as a caller describes it. Give `checkId` or `name`; the id defaults to the name. */
export interface CheckRegistration extends Given<Check, keyof Check> {
  /** Default: the node of the request. Another node is refused. */
  readonly node?: string | undefined;
  readonly checkId?: string | undefined;
  /** `passing`, `warning`, `critical`, or any other text, which is stored as it is. Default `critical`. */
  readonly status?: string | undefined;
  /** The service the check belongs to. Default `""`: a check of the node, which counts for every service on it. */
  readonly serviceId?: string | undefined;
  /** Checks of a service take name and tags from the service when they are written. */
  readonly serviceName?: string | undefined;
  /** Always refused. */
  readonly peerName?: string | undefined;
}

/** A node with at most one service and any number of checks, applied as one: all or nothing. */
export interface Registration {
  /** Name of the node, its key; compares without case. */
  readonly node: string;
  /** UUID of the node. Default `""`: none. A known UUID under a new name renames the node. */
  readonly id?: string | undefined;
  /** Required, unless `skipNodeUpdate` is set. */
  readonly address?: string | undefined;
  readonly taggedAddresses?: StringMap | undefined;
  readonly nodeMeta?: StringMap | undefined;
  /** Default: the catalog's. Another one is refused. */
  readonly datacenter?: string | undefined;
  readonly locality?: Locality | undefined;
  /** Leaves a node that exists as it is. Default false. */
  readonly skipNodeUpdate?: boolean | undefined;
  readonly service?: ServiceRegistration | undefined;
  readonly check?: CheckRegistration | undefined;
  readonly checks?: readonly CheckRegistration[] | undefined;
  /** Always refused. */
  readonly peerName?: string | undefined;
}

/** The record to remove: `serviceId` wins over `checkId`; with neither, the node and everything on it. */
export interface Deregistration {
  readonly node: string;
  readonly serviceId?: string | undefined;
  readonly checkId?: string | undefined;
  readonly datacenter?: string | undefined;
  /** Always refused (D-35). */
  readonly peerName?: string | undefined;
}

/** A node inside a transaction. */
export interface NodeRegistration {
  readonly name: string;
  readonly id?: string | undefined;
  readonly address?: string | undefined;
  readonly datacenter?: string | undefined;
  readonly taggedAddresses?: StringMap | undefined;
  readonly meta?: StringMap | undefined;
  readonly locality?: Locality | undefined;
  /** Always refused (D-35). */
  readonly peerName?: string | undefined;
}

/** `cas` and `delete-cas` act only while the object's `modifyIndex` is the one given; 0 means: does not exist. */
export type TransactionVerb = "get" | "set" | "cas" | "delete" | "delete-cas";

/** One operation of a transaction. */
export type TransactionOperation =
  | {
      readonly type: "node";
      readonly verb: TransactionVerb;
      readonly node: NodeRegistration;
      readonly modifyIndex?: bigint | undefined;
    }
  | {
      readonly type: "service";
      readonly verb: TransactionVerb;
      /** Name of the node. */
      readonly node: string;
      readonly service: ServiceRegistration;
      readonly modifyIndex?: bigint | undefined;
    }
  | {
      readonly type: "check";
      readonly verb: TransactionVerb;
      readonly check: CheckRegistration;
      readonly modifyIndex?: bigint | undefined;
    };

/** Operations a transaction may hold, as in Consul 1.14 to 1.22. */
export const MAX_TRANSACTION_OPERATIONS = 128;

/** A registration that passed every rule which needs no other record. */
export interface ParsedRegistration {
  readonly node: Node;
  readonly skipNodeUpdate: boolean;
  readonly service: Service | undefined;
  readonly checks: readonly Check[];
}

export interface ParsedDeregistration {
  readonly node: string;
  readonly serviceId: string;
  readonly checkId: string;
}

export type ParsedOperation =
  | { readonly type: "node"; readonly verb: TransactionVerb; readonly node: Node; readonly modifyIndex: bigint }
  | {
      readonly type: "service";
      readonly verb: TransactionVerb;
      readonly node: string;
      readonly service: Service;
      readonly modifyIndex: bigint;
    }
  | { readonly type: "check"; readonly verb: TransactionVerb; readonly check: Check; readonly modifyIndex: bigint };

/** The error of one operation of a transaction. */
export interface OperationError {
  /** Position of the operation, from 0. */
  readonly operationIndex: number;
  readonly what: string;
}

/** A transaction of which nothing was stored, with the reason of every operation that failed. */
export class TransactionError extends PeeringError {
  readonly errors: readonly OperationError[];

  constructor(errors: readonly OperationError[]) {
    super("invalid-registration", errors.map((error) => `operation ${error.operationIndex}: ${error.what}`).join("; "));
    this.errors = errors;
  }
}

const defaultWeights: Weights = weightsTable.empty;

const CHECK_STATUS_DEFAULT = "critical";
const PEER_NAME_REFUSED = "cannot register requests with PeerName in them";

/** @internal */
export function invalid(message: string): PeeringError {
  return new PeeringError("invalid-registration", message);
}

type Fields = Readonly<Record<string, unknown>>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An object with no keys but those named; nothing is known of their values yet. */
type Known<Name extends string> = { readonly [Key in Name]?: unknown };

function hasOnly<Name extends string>(value: Fields, path: string, allowed: ReadonlySet<Name>): value is Known<Name> {
  const known: ReadonlySet<string> = allowed;
  for (const key of Object.keys(value)) {
    if (!known.has(key)) throw invalid(`${path} has an unknown field ${JSON.stringify(key)}`);
  }
  return true;
}

function fields<Name extends string>(value: unknown, path: string, allowed: ReadonlySet<Name>): Known<Name> {
  if (isFields(value) && hasOnly(value, path, allowed)) return value;
  throw invalid(`${path} must be an object`);
}

function text(value: unknown, path: string): string {
  if (typeof value === "string") return value;
  if (value === undefined || value === null) return "";
  throw invalid(`${path} must be a string`);
}

const LONE_SURROGATE = /\p{Surrogate}/u;

/** A string that becomes part of a key: two different ones must not become equal when they are written as UTF-8. */
function keyText(value: unknown, path: string): string {
  const key = text(value, path);
  if (LONE_SURROGATE.test(key)) throw invalid(`${path} is not valid Unicode`);
  return key;
}

function flag(value: unknown, path: string): boolean {
  if (typeof value === "boolean") return value;
  if (value === undefined || value === null) return false;
  throw invalid(`${path} must be true or false`);
}

/** Any, as in Consul: an invalid port is stored all the same, and left out where a port is needed. */
function wholeNumber(value: unknown, path: string): number {
  if (value === undefined || value === null) return 0;
  if (typeof value !== "number" || !Number.isSafeInteger(value)) {
    throw invalid(`${path} must be a whole number, not ${describe(value)}`);
  }
  return value === 0 ? 0 : value;
}

function describe(value: unknown): string {
  return typeof value === "number" || typeof value === "boolean" || typeof value === "bigint"
    ? String(value)
    : Array.isArray(value)
      ? "a list"
      : `a ${typeof value}`;
}

/** Unlike `every`, finds places without an element, too. */
function areTexts(list: readonly unknown[]): list is readonly string[] {
  for (const element of list) if (typeof element !== "string") return false;
  return true;
}

function textList(value: unknown, path: string): readonly string[] {
  if (value === undefined || value === null) return emptyList;
  if (!Array.isArray(value)) throw invalid(`${path} must be a list of strings`);
  if (value.length === 0) return emptyList;
  // A copy has no room for more elements: a list that elements are added to keeps four times as much for short ones.
  const list: readonly unknown[] = value.slice();
  if (!areTexts(list)) throw invalid(`${path} must be a list of strings`);
  return Object.freeze(list);
}

/** Assigns as `JSON.parse` does: `__proto__` is a key like any other. */
function assign<Value>(target: Record<string, Value>, key: string, value: Value): void {
  if (key === "__proto__") {
    Object.defineProperty(target, key, { value, enumerable: true, writable: true, configurable: true });
  } else target[key] = value;
}

function mapOf<Value>(
  value: unknown,
  path: string,
  parse: (element: unknown, path: string) => Value,
): Readonly<Record<string, Value>> {
  if (value === undefined || value === null) return emptyMap;
  if (!isFields(value)) throw invalid(`${path} must be an object`);
  const keys = Object.keys(value);
  if (keys.length === 0) return emptyMap;
  const map: Record<string, Value> = {};
  for (const key of keys) assign(map, key, parse(value[key], path));
  return Object.freeze(map);
}

function mapValue(value: unknown, path: string): string {
  if (typeof value !== "string") throw invalid(`${path} must have strings as values`);
  return value;
}

function stringMap(value: unknown, path: string): StringMap {
  return mapOf(value, path, mapValue);
}

function jsonValue(value: unknown, path: string, depth: number): JsonValue {
  if (typeof value === "string" || typeof value === "boolean" || value === null) return value;
  if (typeof value === "number" && Number.isFinite(value)) return value === 0 ? 0 : value;
  if (depth >= MAX_JSON_DEPTH) throw invalid(`${path} is nested too deeply (limit: ${MAX_JSON_DEPTH} levels)`);
  if (Array.isArray(value)) return Object.freeze(value.map((element) => jsonValue(element, path, depth + 1)));
  if (isFields(value)) return jsonFields(value, path, depth);
  throw invalid(`${path} must hold JSON values only, not ${describe(value)}`);
}

function jsonFields(value: Fields, path: string, depth: number): JsonObject {
  const object: Record<string, JsonValue> = {};
  for (const key of Object.keys(value)) {
    const element = value[key];
    if (element !== undefined) assign(object, key, jsonValue(element, path, depth + 1));
  }
  return Object.freeze(object);
}

function jsonObject(value: unknown, path: string): JsonObject {
  if (value === undefined || value === null) return emptyMap;
  if (!isFields(value)) throw invalid(`${path} must be an object`);
  return jsonFields(value, path, 0);
}

const localityFields: ReadonlySet<keyof Locality> = new Set<keyof Locality>(["region", "zone"]);

function parseLocality(value: unknown, path: string): Locality | undefined {
  if (value === undefined || value === null) return undefined;
  const from = fields(value, path, localityFields);
  const region = text(from.region, `${path}.region`);
  const zone = text(from.zone, `${path}.zone`);
  return Object.freeze({ region, zone });
}

const addressFields: ReadonlySet<keyof ServiceAddress> = new Set<keyof ServiceAddress>(["address", "port"]);

function parseServiceAddress(value: unknown, path: string): ServiceAddress {
  const from = fields(value, path, addressFields);
  return Object.freeze({
    address: text(from.address, `${path}.address`),
    port: wholeNumber(from.port, `${path}.port`),
  });
}

const portFields: ReadonlySet<keyof ServicePort> = new Set<keyof ServicePort>(["name", "port", "default"]);

function parsePorts(value: unknown): readonly ServicePort[] | undefined {
  if (value === undefined || value === null) return undefined;
  if (!Array.isArray(value)) throw invalid("service.ports must be a list of ports");
  if (value.length === 0) return undefined;
  const ports = value.map((element: unknown, position) => {
    const path = `service.ports[${position}]`;
    const from = fields(element, path, portFields);
    return Object.freeze({
      name: text(from.name, `${path}.name`),
      port: wholeNumber(from.port, `${path}.port`),
      default: flag(from.default, `${path}.default`),
    });
  });
  return Object.freeze(ports);
}

const weightFields: ReadonlySet<keyof Weights> = new Set<keyof Weights>(["passing", "warning"]);

/** Missing weights, or invalid ones in a catalog registration, are 1 and 1. */
function parseWeights(value: unknown): Weights {
  if (value === undefined || value === null) return defaultWeights;
  const from = fields(value, "service.weights", weightFields);
  const passing = from.passing ?? 0;
  const warning = from.warning ?? 0;
  if (typeof passing !== "number" || typeof warning !== "number") throw invalid("service.weights must hold numbers");
  const usable =
    Number.isInteger(passing) &&
    Number.isInteger(warning) &&
    passing >= 1 &&
    warning >= 0 &&
    passing <= 65_535 &&
    warning <= 65_535;
  if (!usable || (passing === 1 && warning === 1)) return defaultWeights;
  return Object.freeze({ passing, warning: warning === 0 ? 0 : warning });
}

const proxyFields: ReadonlySet<keyof ProxyDefinition> = new Set<keyof ProxyDefinition>([
  "destinationServiceName",
  "destinationServiceId",
  "localServiceAddress",
  "localServicePort",
  "localServiceSocketPath",
  "mode",
  "config",
  "upstreams",
  "meshGatewayMode",
  "extra",
]);

const upstreams = new KeptShape(upstreamShape);
const proxyExtras = new KeptShape(proxyExtraShape);
const sidecars = new KeptShape(sidecarShape);
const checkDefinitions = new KeptShape(checkDefinitionShape);

/** The stored fields, in Consul's form. */
function keptObject(value: unknown, path: string, shape: KeptShape): JsonObject {
  const object = jsonObject(value, path);
  if (object === emptyMap || Object.keys(object).length === 0) return emptyMap;
  try {
    return Object.freeze(shape.kept(object, path));
  } catch (error) {
    throw error instanceof PeeringError ? invalid(error.message) : error;
  }
}

function parseUpstream(value: unknown, path: string): JsonObject {
  const given = upstreams.consulForm(jsonObject(value, path));
  return Object.freeze(upstreams.ownForm(keptObject(given, path, upstreams)));
}

function parseProxy(value: unknown): ProxyDefinition | undefined {
  if (value === undefined || value === null) return undefined;
  const from = fields(value, "service.proxy", proxyFields);
  const config = jsonObject(from.config, "service.proxy.config");
  const extra = keptObject(from.extra, "service.proxy.extra", proxyExtras);
  const given = from.upstreams ?? emptyList;
  if (!Array.isArray(given)) throw invalid("service.proxy.upstreams must be a list");
  const proxy: ProxyDefinition = {
    destinationServiceName: text(from.destinationServiceName, "service.proxy.destinationServiceName"),
    destinationServiceId: text(from.destinationServiceId, "service.proxy.destinationServiceId"),
    localServiceAddress: text(from.localServiceAddress, "service.proxy.localServiceAddress"),
    localServicePort: wholeNumber(from.localServicePort, "service.proxy.localServicePort"),
    localServiceSocketPath: text(from.localServiceSocketPath, "service.proxy.localServiceSocketPath"),
    mode: text(from.mode, "service.proxy.mode"),
    ...(Object.keys(config).length > 0 && { config }),
    ...(given.length > 0 && {
      upstreams: Object.freeze(given.map((each, at) => parseUpstream(each, `service.proxy.upstreams[${at}]`))),
    }),
    meshGatewayMode: text(from.meshGatewayMode, "service.proxy.meshGatewayMode"),
    ...(Object.keys(extra).length > 0 && { extra }),
  };
  return Object.values(proxy).every((field) => field === "" || field === 0) ? undefined : Object.freeze(proxy);
}

const connectFields: ReadonlySet<keyof Connect | "sidecarService"> = new Set<keyof Connect | "sidecarService">([
  "native",
  "peerMeta",
  "sidecarService",
]);
const peerMetaFields: ReadonlySet<keyof PeerMeta> = new Set<keyof PeerMeta>(["sni", "spiffeId", "protocol"]);

function parsePeerMeta(value: unknown): PeerMeta | undefined {
  if (value === undefined || value === null) return undefined;
  const from = fields(value, "service.connect.peerMeta", peerMetaFields);
  return Object.freeze({
    sni: textList(from.sni, "service.connect.peerMeta.sni"),
    spiffeId: textList(from.spiffeId, "service.connect.peerMeta.spiffeId"),
    protocol: text(from.protocol, "service.connect.peerMeta.protocol"),
  });
}

function parseConnect(value: unknown): Connect | undefined {
  if (value === undefined || value === null) return undefined;
  const from = fields(value, "service.connect", connectFields);
  const native = flag(from.native, "service.connect.native");
  const peerMeta = parsePeerMeta(from.peerMeta);
  const sidecar = from.sidecarService;
  const sidecarService =
    sidecar === undefined || sidecar === null
      ? undefined
      : keptObject(sidecar, "service.connect.sidecarService", sidecars);
  if (!native && peerMeta === undefined && sidecarService === undefined) return undefined;
  return Object.freeze({
    native,
    ...(peerMeta !== undefined && { peerMeta }),
    ...(sidecarService !== undefined && { sidecarService }),
  });
}

const kinds: ReadonlySet<string> = new Set<ServiceKind>([
  "",
  "connect-proxy",
  "mesh-gateway",
  "terminating-gateway",
  "ingress-gateway",
  "api-gateway",
  "destination",
]);

/** Plain values, as callers of the library and rows of the storage have them. */
export const plainReading: Reading = { text, flag, int: wholeNumber, texts: textList, textMap: stringMap };

const serviceFields: ReadonlySet<keyof Service | "peerName"> = new Set<keyof Service | "peerName">([
  ...keysOf(serviceTable.fields),
  "peerName",
]);
const readOtherServiceFields = readerOf(serviceTable, "service", plainReading, writtenOutOfService);

/**
 * The shape of a service with every default filled in, none of the rules applied: also how stored records are read.
 * @throws {PeeringError} `invalid-registration`: a field of the wrong type.
 */
export function parseServiceShape(value: unknown): Service {
  const from = fields(value, "service", serviceFields);
  // A literal gives all services one form, which makes them many times faster to look at than copies of an object.
  const service = emptyService();
  service.kind = text(from.kind, "service.kind");
  service.id = keyText(from.id, "service.id");
  service.name = keyText(from.name, "service.name");
  service.tags = textList(from.tags, "service.tags");
  service.address = text(from.address, "service.address");
  service.taggedAddresses = mapOf(from.taggedAddresses, "service.taggedAddresses", parseServiceAddress);
  service.meta = stringMap(from.meta, "service.meta");
  service.port = wholeNumber(from.port, "service.port");
  const ports = parsePorts(from.ports);
  if (ports !== undefined) {
    service.ports = ports;
    if (service.port === 0) service.port = defaultPort(ports);
  }
  service.socketPath = text(from.socketPath, "service.socketPath");
  service.weights = parseWeights(from.weights);
  service.enableTagOverride = flag(from.enableTagOverride, "service.enableTagOverride");
  const locality = parseLocality(from.locality, "service.locality");
  if (locality !== undefined) service.locality = locality;
  const proxy = parseProxy(from.proxy);
  if (proxy !== undefined) service.proxy = proxy;
  const connect = parseConnect(from.connect);
  if (connect !== undefined) service.connect = connect;
  readOtherServiceFields(service, from);
  return Object.freeze(service);
}

const checkFields: ReadonlySet<keyof Check | "peerName"> = new Set<keyof Check | "peerName">([
  ...keysOf(checkTable.fields),
  "peerName",
]);
const readOtherCheckFields = readerOf(checkTable, "check", plainReading, writtenOutOfCheck);

/**
 * The shape of a check with every default filled in; `node` is what an empty node becomes.
 * @throws {PeeringError} `invalid-registration`: a field of the wrong type.
 */
export function parseCheckShape(value: unknown, node: string): Check {
  const from = fields(value, "check", checkFields);
  const check = emptyCheck();
  check.node = keyText(from.node, "check.node") || node;
  check.checkId = keyText(from.checkId, "check.checkId");
  check.name = text(from.name, "check.name");
  check.status = text(from.status, "check.status") || CHECK_STATUS_DEFAULT;
  check.notes = text(from.notes, "check.notes");
  check.output = text(from.output, "check.output");
  check.serviceId = keyText(from.serviceId, "check.serviceId");
  check.serviceName = text(from.serviceName, "check.serviceName");
  check.serviceTags = textList(from.serviceTags, "check.serviceTags");
  check.type = text(from.type, "check.type");
  check.interval = text(from.interval, "check.interval");
  check.timeout = text(from.timeout, "check.timeout");
  check.exposedPort = wholeNumber(from.exposedPort, "check.exposedPort");
  check.definition = keptObject(from.definition, "check.definition", checkDefinitions);
  readOtherCheckFields(check, from);
  check.checkId ||= keyText(check.name, "check.name");
  return Object.freeze(check);
}

const nodeFields: ReadonlySet<keyof NodeRegistration> = new Set<keyof NodeRegistration>([
  ...keysOf(nodeTable.fields),
  "peerName",
]);

/**
 * The shape of a node with every default filled in.
 * @throws {PeeringError} `invalid-registration`: a field of the wrong type.
 */
export function parseNodeShape(value: unknown, datacenter: string): Node {
  const from = fields(value, "node", nodeFields);
  return nodeFrom(from, from.name, "node.name", from.meta, "node.meta", datacenter);
}

function nodeFrom(
  from: Known<"id" | "address" | "datacenter" | "taggedAddresses" | "locality">,
  name: unknown,
  namePath: string,
  meta: unknown,
  metaPath: string,
  datacenter: string,
): Node {
  const locality = parseLocality(from.locality, "locality");
  return Object.freeze({
    id: text(from.id, "id"),
    name: keyText(name, namePath),
    address: text(from.address, "address"),
    datacenter: text(from.datacenter, "datacenter") || datacenter,
    taggedAddresses: stringMap(from.taggedAddresses, "taggedAddresses"),
    meta: stringMap(meta, metaPath),
    ...(locality !== undefined && { locality }),
  });
}

function field(value: unknown, name: string): unknown {
  return isFields(value) ? value[name] : undefined;
}

/** Everything a caller may name as a peer is refused, whatever its type. */
function namesPeer(value: unknown): boolean {
  const peerName = field(value, "peerName");
  return peerName !== undefined && peerName !== null && peerName !== "";
}

function requireNode({ id, name }: Node): void {
  if (name === "") throw invalid("Must provide node");
  const problem = id === "" ? undefined : uuidProblem(id);
  if (problem !== undefined) throw invalid(`Bad node ID: ${problem}`);
}

function requireDatacenter(given: string, own: string): void {
  if (given !== own) throw invalid("No path to datacenter");
}

/** The given port. An answer has the default one of several here, and may be written again (Consul refuses it). */
function givenPort({ port, ports = [] }: Service): number {
  return ports.length > 0 && port === defaultPort(ports) ? 0 : port;
}

/** Broken rules on place and port, which an agent fulfils itself for the sidecars that it makes. */
function placeProblems(service: Service): readonly string[] {
  const { kind, locality, socketPath } = service;
  return [
    ...(locality?.region === "" && locality.zone !== "" ? ["zone cannot be set without region"] : []),
    ...(kind === "connect-proxy" && givenPort(service) === 0 && socketPath === ""
      ? ["Port or SocketPath must be set for a connect-proxy"]
      : []),
  ];
}

/** The rules by kind; all broken ones are collected. */
function kindProblems(service: Service): readonly string[] {
  const problems: string[] = [];
  const { kind, ports = [], socketPath, proxy } = service;
  const port = givenPort(service);
  const native = service.connect?.native === true;
  const sidecar = service.connect?.sidecarService;
  if (ports.length > 0 && (kind === "connect-proxy" || kind.endsWith("-gateway"))) {
    problems.push(`Ports cannot be set for a ${kind}`);
  }
  if (kind === "connect-proxy") {
    const destination = proxy?.destinationServiceName.trim() ?? "";
    if (destination === "") {
      problems.push("Proxy.DestinationServiceName must be non-empty for Connect proxy services");
    }
    if (destination === "*") {
      problems.push("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services");
    }
    if (native) problems.push("A Proxy cannot also be Connect Native, only typical services");
    problems.push(...proxyProblems(proxy));
  }
  if ((kind === "mesh-gateway" || kind === "terminating-gateway") && port === 0) {
    problems.push(`Port must be non-zero for a ${kind}`);
  }
  if (kind.endsWith("-gateway")) {
    if (sidecar !== undefined) problems.push(`A ${kind} cannot have a sidecar service defined`);
    const set: readonly (readonly [string, boolean])[] = [
      ["DestinationServiceName", (proxy?.destinationServiceName ?? "") !== ""],
      ["DestinationServiceID", (proxy?.destinationServiceId ?? "") !== ""],
      ["LocalServiceAddress", (proxy?.localServiceAddress ?? "") !== ""],
      ["LocalServicePort", (proxy?.localServicePort ?? 0) !== 0],
      ["LocalServiceSocketPath", (proxy?.localServiceSocketPath ?? "") !== ""],
      ["Upstreams", proxy?.upstreams !== undefined],
    ];
    for (const [field, given] of set) {
      if (given) problems.push(`The Proxy.${field} configuration is invalid for a ${kind}`);
    }
  }
  if (textOf(sidecar, "ID") !== "") {
    problems.push("A SidecarService cannot specify an ID as this is managed by the agent");
  }
  if (memberOf(memberOf(sidecar, "Connect"), "SidecarService") !== undefined) {
    problems.push("A SidecarService cannot have a nested SidecarService");
  }
  if (native && port === 0 && socketPath === "") {
    problems.push("Port or SocketPath must be set for a Connect native service.");
  }
  if (ports.length > 0 && port !== 0) problems.push("Cannot set both Port and Ports");
  const problem = portsProblem(ports);
  if (problem !== undefined) problems.push(problem);
  return problems;
}

/** @throws {PeeringError} `invalid-registration`: a kind that there is not. */
export function requireKind(kind: string): asserts kind is ServiceKind {
  if (!kinds.has(kind)) throw invalid(`Invalid service kind ${JSON.stringify(kind)}`);
}

function listed(problems: readonly string[]): string | undefined {
  return problems.length === 0 ? undefined : listProblems(problems);
}

/** Weights of the parts of a registration in a step, in fields. @internal */
export const SERVICE_FIELDS = 30;
/** @internal */
export const UPSTREAM_FIELDS = 40;
const CHECK_FIELDS = 30;
const ADDRESS_FIELDS = 4;

/** About how long a service takes in each step of its reading: of some parts one may have thousands. */
function fieldsOf({ tags, taggedAddresses, proxy }: Service): number {
  return (
    SERVICE_FIELDS +
    tags.length +
    ADDRESS_FIELDS * Object.keys(taggedAddresses).length +
    UPSTREAM_FIELDS * (proxy?.upstreams?.length ?? 0)
  );
}

/**
 * The rules that a service breaks, in Consul's words; undefined: none.
 * @param isMade - it is a sidecar that an agent makes, and finds a port for.
 * @throws {PeeringError} `invalid-registration`: a field of the wrong type.
 */
export function* serviceProblem(registration: ServiceRegistration, isMade = false): Steps<string | undefined> {
  const meter = new StepMeter();
  const service = parseServiceShape(registration);
  if (meter.isOver(fieldsOf(service))) yield;
  return listed([...(isMade ? [] : placeProblems(service)), ...kindProblems(service)]);
}

/** The shape and the rules of one service, its id filled in. */
function* serviceSteps(value: unknown, meter: StepMeter): Steps<Service> {
  const service = parseServiceShape(value);
  if (meter.isOver(fieldsOf(service))) yield;
  requireKind(service.kind);
  const problem = listed([...placeProblems(service), ...kindProblems(service)]);
  if (meter.isOver(fieldsOf(service))) yield;
  if (problem !== undefined) throw invalid(problem);
  if (service.name === "") {
    throw invalid(
      service.id === ""
        ? "Must provide service name (Service.Service)"
        : "Must provide service name (Service.Service) when service ID is provided",
    );
  }
  if (service.address === "0.0.0.0" || service.address === "::" || service.address === "[::]") {
    throw invalid("Invalid service address");
  }
  return service.id === "" ? Object.freeze({ ...service, id: service.name }) : service;
}

/** The type of a check whose definition does not name it, the first that fits (Consul 1.21). */
const CHECK_TYPES: readonly (readonly [key: string, type: string])[] = [
  ["GRPC", "grpc"],
  ["HTTP", "http"],
  ["TTL", "ttl"],
  ["TCP", "tcp"],
  ["UDP", "udp"],
  ["AliasNode", "alias"],
  ["AliasService", "alias"],
  ["DockerContainerID", "docker"],
  ["ScriptArgs", "script"],
  ["H2PING", "h2ping"],
  ["OSService", "os_service"],
];
/** These are run again and again, and nothing without an interval. */
const WITH_INTERVAL: ReadonlySet<string> = new Set([
  "GRPC",
  "HTTP",
  "TCP",
  "UDP",
  "H2PING",
  "OSService",
  "DockerContainerID",
]);

/** A check that is registered in the catalog says what it is, as one of an agent does. */
function withType(check: Check): Check {
  const { type, definition } = check;
  if (type !== "") return check;
  const isRepeated = isPositive(definition["Interval"]);
  const { ScriptArgs } = definition;
  const isScript = Array.isArray(ScriptArgs) && ScriptArgs.length > 0;
  const found = CHECK_TYPES.find(([key]) => {
    const value = definition[key];
    if (key === "TTL") return isPositive(value);
    if (key === "ScriptArgs") return isScript;
    if (key === "DockerContainerID" && !isScript) return false;
    return typeof value === "string" && value !== "" && (isRepeated || !WITH_INTERVAL.has(key));
  });
  return found === undefined ? check : Object.freeze({ ...check, type: found[1] });
}

/** Whether a duration, as text or in nanoseconds, is longer than none. */
function isPositive(value: JsonValue | undefined): boolean {
  return (typeof value === "string" ? (parseDuration(value) ?? 0) : typeof value === "number" ? value : 0) > 0;
}

const registrationFields: ReadonlySet<keyof Registration> = new Set<keyof Registration>([
  "node",
  "id",
  "address",
  "taggedAddresses",
  "nodeMeta",
  "datacenter",
  "locality",
  "skipNodeUpdate",
  "service",
  "check",
  "checks",
  "peerName",
]);

/**
 * Checks everything about a registration that needs no other record, and fills in the defaults
 * (Consul 1.21). Takes input from untyped callers too. The caller's objects are copied, never kept.
 * @param datacenter - the catalog's own.
 * @throws {PeeringError} `invalid-registration` with Consul's text.
 */
export function parseRegistration(input: unknown, datacenter: string): ParsedRegistration {
  return doAll(registrationSteps(input, datacenter));
}

/** As {@link parseRegistration}, in steps. */
export function* registrationSteps(input: unknown, datacenter: string): Steps<ParsedRegistration> {
  const meter = new StepMeter();
  const from = fields(input, "registration", registrationFields);
  const given = from.checks ?? emptyList;
  if (!Array.isArray(given)) throw invalid("checks must be a list");
  const check = from.check;
  const checkInputs: readonly unknown[] = check === undefined || check === null ? given : [...given, check];
  if (namesPeer(from) || namesPeer(from.service) || checkInputs.some(namesPeer)) throw invalid(PEER_NAME_REFUSED);

  const skipNodeUpdate = flag(from.skipNodeUpdate, "skipNodeUpdate");
  const node = nodeFrom(from, from.node, "node", from.nodeMeta, "nodeMeta", datacenter);
  requireDatacenter(node.datacenter, datacenter);
  requireNode(node);
  if (node.address === "" && !skipNodeUpdate) throw invalid("Must provide address if SkipNodeUpdate is not set");

  const serviceInput = from.service;
  const service =
    serviceInput === undefined || serviceInput === null ? undefined : yield* serviceSteps(serviceInput, meter);

  const nodeKey = lowerCase(node.name);
  const checks: Check[] = [];
  for (const checkInput of checkInputs) {
    const parsed = withType(parseCheckShape(checkInput, node.name));
    if (lowerCase(parsed.node) !== nodeKey) {
      throw invalid(
        `Node '${parsed.node}' for check '${parsed.checkId}' doesn't match register request node '${node.name}'`,
      );
    }
    checks.push(parsed);
    if (meter.isOver(CHECK_FIELDS)) yield;
  }
  return { node, skipNodeUpdate, service, checks };
}

const deregistrationFields: ReadonlySet<keyof Deregistration> = new Set<keyof Deregistration>([
  "node",
  "serviceId",
  "checkId",
  "datacenter",
  "peerName",
]);

/**
 * @param datacenter - the catalog's own.
 * @throws {PeeringError} `invalid-registration` with Consul's text.
 */
export function parseDeregistration(input: unknown, datacenter: string): ParsedDeregistration {
  const from = fields(input, "deregistration", deregistrationFields);
  requireDatacenter(text(from.datacenter, "datacenter") || datacenter, datacenter);
  const node = text(from.node, "node");
  if (node === "") throw invalid("Must provide node");
  if (namesPeer(from)) throw invalid(PEER_NAME_REFUSED);
  return { node, serviceId: text(from.serviceId, "serviceId"), checkId: text(from.checkId, "checkId") };
}

const operationFields: ReadonlySet<"type" | "verb" | "node" | "service" | "check" | "modifyIndex"> = new Set<
  "type" | "verb" | "node" | "service" | "check" | "modifyIndex"
>(["type", "verb", "node", "service", "check", "modifyIndex"]);

function isVerb(value: unknown): value is TransactionVerb {
  return value === "get" || value === "set" || value === "cas" || value === "delete" || value === "delete-cas";
}

function* operationSteps(input: unknown, datacenter: string, meter: StepMeter): Steps<ParsedOperation> {
  const from = fields(input, "operation", operationFields);
  const type = from.type;
  if (type !== "node" && type !== "service" && type !== "check") throw invalid("operation.type is unknown");
  if (namesPeer(from.node) || namesPeer(from.service) || namesPeer(from.check)) throw invalid(PEER_NAME_REFUSED);
  const verb = from.verb;
  if (!isVerb(verb)) throw invalid(`unknown ${type} operation: ${text(verb, "operation.verb")}`);
  const modifyIndex = from.modifyIndex ?? 0n;
  if (typeof modifyIndex !== "bigint") throw invalid("operation.modifyIndex must be a bigint");
  // A lookup needs the name alone; a node without a name is no node.
  if (type === "node") {
    const node = parseNodeShape(from.node, datacenter);
    if (verb === "get") return { type, verb, node, modifyIndex };
    requireNode(node);
    requireDatacenter(node.datacenter, datacenter);
    return { type, verb, node, modifyIndex };
  }
  if (type === "service") {
    const node = text(from.node, "operation.node");
    const service = verb === "get" ? parseServiceShape(from.service) : yield* serviceSteps(from.service, meter);
    return { type, verb, node, service, modifyIndex };
  }
  return { type, verb, check: parseCheckShape(from.check, ""), modifyIndex };
}

/**
 * Checks one operation of a transaction by itself.
 * @param meter - of all operations.
 * @throws {PeeringError} `invalid-registration` with Consul's text.
 */
export function* checkOperation(operation: TransactionOperation, datacenter: string, meter: StepMeter): Steps<void> {
  yield* operationSteps(operation, datacenter, meter);
}

/**
 * Checks every operation by itself, before any is applied.
 * @throws {TransactionError} when any is invalid.
 * @throws {PeeringError} `invalid-registration`: more than {@link MAX_TRANSACTION_OPERATIONS}.
 */
export function parseTransaction(input: unknown, datacenter: string): readonly ParsedOperation[] {
  return doAll(transactionSteps(input, datacenter));
}

/** As {@link parseTransaction}, in steps. */
export function* transactionSteps(input: unknown, datacenter: string): Steps<readonly ParsedOperation[]> {
  if (!Array.isArray(input)) throw invalid("a transaction must be a list of operations");
  if (input.length > MAX_TRANSACTION_OPERATIONS) {
    throw invalid(`Transaction contains too many operations (${input.length} > ${MAX_TRANSACTION_OPERATIONS})`);
  }
  const meter = new StepMeter();
  const operations: ParsedOperation[] = [];
  const errors: OperationError[] = [];
  const given: readonly unknown[] = input;
  for (const [operationIndex, operation] of given.entries()) {
    try {
      operations.push(yield* operationSteps(operation, datacenter, meter));
    } catch (error) {
      if (!(error instanceof PeeringError)) throw error;
      errors.push({ operationIndex, what: error.message });
    }
  }
  if (errors.length > 0) throw new TransactionError(errors);
  return operations;
}

/**
 * Why metadata breaks Consul's rules for numbers, lengths and characters; undefined when it does not.
 * @param kind - of the service that it is about; `query`: of a query that asks for it.
 */
export function metaProblem(meta: StringMap, kind: string): string | undefined {
  if (meta === emptyMap) return undefined;
  // Consul's own mark on mesh gateways that join datacenters.
  const isFederation = (key: string): boolean => kind === "mesh-gateway" && key === "consul-wan-federation";
  return metadataProblem(meta, (key) => kind === "query" || isFederation(key));
}
