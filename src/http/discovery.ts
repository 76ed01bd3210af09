import { setImmediate } from "node:timers/promises";
import type { Access, ReadableNames } from "../access/authorizer.js";
import { compareUtf8 } from "../base/byte-order.js";
import { sortByKeys } from "../base/turns.js";
import { latest, VIRTUAL } from "../host/gateways.js";
import type { PeeringHost } from "../host/host.js";
import { connectName } from "../model/catalog-draft.js";
import type { Check, Node, ServiceInstance } from "../model/instance.js";
import { joined, type Listing, listing } from "../model/listing.js";
import { lowerCase } from "../model/names.js";
import { SIDECAR_SUFFIX } from "../payload/exported-payload.js";
import type { CatalogIndexes, IndexedCheck, IndexedInstance } from "../stores/catalog.js";
import type { ConfigEntryChange } from "../stores/config-entries.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import type { Fields } from "./filter/fields.js";
import { compileFilter } from "./filter/filter.js";
import { badRequest, HttpError } from "./http-error.js";
import type { Json } from "./json.js";
import { consistencyOf, goBoolOf, type ReadOptions } from "./query.js";
import type { CheckView, InstanceView, NodeView, ServiceView } from "./records-json.js";

/** Whose data a read is about, and what it may wait for. */
export interface Scope {
  /** The name of the peering as its record spells it; as asked for when there is none; `""` for local data. */
  readonly peer: string;
  /** The service whose imports the read depends on; undefined: everything of the peer. */
  readonly service?: string;
  /** The index of a read of local data. */
  readonly local: (indexes: CatalogIndexes) => bigint;
  /** Config entries of gateways change the answer, too. Default false. */
  readonly gateways?: boolean;
  /** Whether a change of `proxy-defaults` or `service-defaults` may change the answer. Default: none does. */
  readonly central?: (change: ConfigEntryChange) => boolean;
}

/** The parameters that every read of the catalog and of health shares. */
export interface DiscoveryOptions extends ReadOptions {
  readonly peer: string;
  readonly nodeMeta: readonly (readonly [string, string])[];
}

/** Those of a read about one thing, which the path names. */
export interface NamedOptions extends DiscoveryOptions {
  readonly name: string;
}

/** Those of a read of `/v1/health` about the instances of a service. */
export interface InstanceOptions extends NamedOptions {
  readonly passing: boolean;
  /** `""` when none is asked for. */
  readonly samenessGroup: string;
}

// A request is judged in Consul's order: what its text alone shows to be wrong is told before another datacenter is.

/** @throws {HttpError} with Consul's text, 400 or 500. */
export function discoveryOptions(call: Call): DiscoveryOptions {
  const options = sharedOptions(call);
  ownDatacenter(call);
  return options;
}

/** @param what - the path names. @throws {HttpError} as {@link discoveryOptions}, and 400 without a name. */
export function namedOptions(call: Call, what: string): NamedOptions {
  const options = sharedOptions(call);
  const name = nameInPath(call, what);
  ownDatacenter(call);
  return { ...options, name };
}

/** @throws {HttpError} as {@link namedOptions}, and 400 for a bad `passing`, or a peer together with a sameness group. */
export function instanceOptions(call: Call): InstanceOptions {
  const options = sharedOptions(call);
  const samenessGroup = call.query.get("sameness-group") || call.query.get("sg") || "";
  if (samenessGroup !== "" && options.peer !== "") {
    throw badRequest("peer-name and sameness-group are mutually exclusive");
  }
  const name = nameInPath(call, "service name");
  const passing = onlyPassing(call);
  ownDatacenter(call);
  return { ...options, name, passing, samenessGroup };
}

function sharedOptions(call: Call): DiscoveryOptions {
  call.refuseNamespace();
  call.refusePartition();
  const { query, host } = call;
  const options = call.readOptions();
  const asked = query.get("peer") ?? "";
  const peer = asked === "" ? "" : (host.view.peering(asked)?.name ?? asked);
  return { ...options, peer, nodeMeta: query.getAll("node-meta").map(pair) };
}

/** Present and empty means yes; a word is read as Go reads bools. @throws {HttpError} 400 for another. */
function onlyPassing(call: Call): boolean {
  const given = call.query.get("passing");
  if (given === null) return false;
  const wanted = given === "" ? true : goBoolOf(given);
  if (wanted !== undefined) return wanted;
  throw badRequest("Invalid value for ?passing");
}

/** @throws {HttpError} 500 for the name of another datacenter: names in other capitals are others, as in Consul. */
export function ownDatacenter(call: Call): void {
  const datacenter = call.query.get("datacenter") || call.query.get("dc") || "";
  if (datacenter !== "" && datacenter !== call.host.datacenter) throw new HttpError(500, "No path to datacenter");
}

function pair(given: string): readonly [string, string] {
  const colon = given.indexOf(":");
  return colon < 0 ? [given, ""] : [given.slice(0, colon), given.slice(colon + 1)];
}

/** The name that follows the path of an endpoint. @throws {HttpError} 400 `Missing <what>` when there is none. */
function nameInPath(call: Call, what: string): string {
  if (call.rest === "") throw badRequest(`Missing ${what}`);
  return call.rest;
}

/** The items that a filter holds of, and which may be seen; found in turns. */
export type Filter<Item> = (items: Listing<Item>, isSeen?: (item: Item) => boolean) => Promise<Listing<Item>>;

/** @throws {PeeringError} when it is none. */
export function filterFor<Item>(options: ReadOptions, fields: Fields<Item>): Filter<Item> {
  const filter = options.filter === "" ? undefined : compileFilter(options.filter, fields);
  return (items, isSeen = () => true) => kept(items, (item) => isSeen(item) && (filter?.holds(item) ?? true));
}

/** How long one look at items goes on until others have their turn. */
const TURN_MS = 5;

/** To be called before each part of a long piece of work: lets others have their turn when it is time. */
export function pauses(): () => Promise<void> | undefined {
  let begin = performance.now();
  return () => {
    if (performance.now() - begin <= TURN_MS) return undefined;
    return setImmediate().then(() => {
      begin = performance.now();
    });
  };
}

/** The items that a test holds of; others have their turn while they are looked at. */
export async function kept<Item>(items: Listing<Item>, holds: (item: Item) => boolean): Promise<Listing<Item>> {
  const indexes: number[] = [];
  const pause = pauses();
  for (let index = 0; index < items.length; index++) {
    const pausing = pause();
    if (pausing !== undefined) await pausing;
    const item = items.at(index);
    if (item !== undefined && holds(item)) indexes.push(index);
  }
  return indexes.length === items.length ? items : chosen(items, indexes);
}

/** Does something with each; others have their turn in between. */
export async function forEach<Item>(items: Listing<Item>, look: (item: Item) => void): Promise<void> {
  await kept(items, (item) => {
    look(item);
    return false;
  });
}

function chosen<Item>(items: Listing<Item>, indexes: readonly number[]): Listing<Item> {
  return {
    length: indexes.length,
    at: (place) => {
      const index = indexes[place];
      return index === undefined ? undefined : items.at(index);
    },
    *[Symbol.iterator]() {
      for (const index of indexes) {
        const item = items.at(index);
        if (item !== undefined) yield item;
      }
    },
  };
}

/**
 * Answers a read, at once or when its index has grown. The index is taken before the data: newer records among these are told
 * again, and nothing is missed.
 */
export async function answerRead(
  call: Call,
  options: ReadOptions,
  scope: Scope,
  load: () => Promise<{ readonly json: Json; readonly filtered: boolean }>,
): Promise<Answer> {
  const { catalog, configEntries, imports } = call.host;
  const { peer, service, gateways = false, central } = scope;
  const of = service === undefined ? { peer } : { peer, service };
  const ofRecords = peer === "" ? (): bigint => scope.local(catalog.index) : (): bigint => imports.index(of);
  const index = central === undefined ? ofRecords : (): bigint => latest(ofRecords(), centralIndex(call.host));
  const subscribe = (wake: () => void): (() => void) => {
    const stop = new AbortController();
    // It fails when it is stopped here, and when the host ends: then nothing changes any more.
    if (peer === "") catalog.indexAfter(ofRecords, options.minIndex, stop).then(wake, () => {});
    const forget = [
      ...(peer === "" ? [() => stop.abort()] : [imports.onChange(of, wake)]),
      ...(peer === "" && gateways
        ? [configEntries.onChange(() => void (ofRecords() > options.minIndex && wake()))]
        : []),
      ...(central === undefined ? [] : [configEntries.onChange((change) => void (central(change) && wake()))]),
    ];
    return () => {
      for (const each of forget) each();
    };
  };
  const query = { read: () => ({ index: index(), result: undefined }), index, subscribe };
  return call.answer(options, query, async (reading) => {
    const { json, filtered } = await load();
    return { json, read: { index: reading.index, consistency: consistencyOf(options), filtered } };
  });
}

/** Grows with each write of an entry that says how proxies are told. */
function centralIndex({ configEntries }: PeeringHost): bigint {
  return latest(configEntries.kindIndex("proxy-defaults"), configEntries.kindIndex("service-defaults"));
}

// What the caller may see.

/** Tells what may be shown of one scope's data, and whether something was not. */
export class Visibility {
  readonly #readable: ReadableNames;
  /** No node needs to be looked at: what may be seen of a service does not depend on where it is. */
  readonly everyNode: boolean;
  filtered = false;

  constructor(access: Access, peer: string) {
    this.#readable = access.readable(peer);
    this.everyNode = peer !== "" || access.may({ resource: "node", access: "read", scope: "all" });
  }

  /** @throws {PeeringError} `permission-denied` for an unknown token. */
  static async of(call: Call, peer: string): Promise<Visibility> {
    return new Visibility(await call.access(), peer);
  }

  service(name: string): boolean {
    return this.#seen(this.#readable.service(name));
  }

  node(name: string): boolean {
    return this.#seen(this.#readable.node(name));
  }

  instance({ node, service }: NodeView & ServiceView): boolean {
    return this.#seen(this.#readable.node(node.name) && this.#readable.service(service.name));
  }

  /** A check of a service is where the service is: it takes both rights. */
  check({ check }: CheckView): boolean {
    const service = check.serviceName === "" || this.#readable.service(check.serviceName);
    return this.#seen(service && this.#readable.node(check.node));
  }

  #seen(seen: boolean): boolean {
    if (!seen) this.filtered = true;
    return seen;
  }
}

// What there is, local and imported, in one form. Imported records have the index of the payload that brought them (D-29).

interface Stamped {
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
}

function stamp(revision: bigint): Stamped {
  return { createIndex: revision, modifyIndex: revision };
}

function importedView(host: PeeringHost, peer: string, instance: ServiceInstance, indexes: Stamped): InstanceView {
  const { service } = instance;
  // An instance that speaks for a mesh service shows the virtual address of that service here.
  const destination = connectName(service) ?? "";
  const address = destination === "" ? undefined : host.catalog.virtualIp(destination, peer);
  const virtual = address === undefined ? {} : { [VIRTUAL]: { address, port: service.port } };
  return {
    peer,
    node: { ...instance.node, ...indexes },
    service: { ...service, taggedAddresses: { ...service.taggedAddresses, ...virtual }, ...indexes },
    checks: instance.checks.map((check) => ({ ...check, ...indexes })),
  };
}

async function importedViews(
  { host }: Call,
  peer: string,
  instances: readonly ServiceInstance[],
  indexes: Stamped,
): Promise<Listing<InstanceView>> {
  const sorted = await sortByKeys(instances, ({ node, service }) => [lowerCase(node.name), lowerCase(service.id)]);
  return listing(sorted, (instance) => importedView(host, peer, instance, indexes));
}

function localViews({ gateways }: PeeringHost, instances: Listing<IndexedInstance>): Listing<InstanceView> {
  return listing(instances, (instance) => gateways.withAddresses({ peer: "", ...instance }));
}

/** The instances of a service, by node and id. */
export async function instancesOf(call: Call, peer: string, service: string): Promise<Listing<InstanceView>> {
  const { host } = call;
  if (peer === "") return localViews(host, host.catalog.indexedInstances(service));
  const indexes = stamp(host.imports.service({ peer, service })?.revision ?? 1n);
  const instances = await host.imports.instances({ peer, service });
  call.share(instances, instances.length * IMPORTED_BYTES);
  return importedViews(call, peer, instances, indexes);
}

/** What an instance costs that was read from the storage, about. Local ones are in memory anyway. */
export const IMPORTED_BYTES = 1_500;
/** The same of a check alone. */
const IMPORTED_CHECK_BYTES = 500;

/** The name under which the proxies of a service are imported. */
export function sidecarName(service: string): string {
  return `${service}${SIDECAR_SUFFIX}`;
}

/** What a read of the instances of a service is about. */
export function instanceScope({ gateways, catalog }: PeeringHost, peer: string, service: string): Scope {
  return {
    peer,
    service,
    local: () => gateways.instanceIndex(service),
    gateways: peer === "" && catalog.isOf(service, "terminating-gateway"),
  };
}

/** What a read of {@link connectInstancesOf} is about. */
export function connectScope({ gateways }: PeeringHost, peer: string, service: string): Scope {
  return {
    peer,
    service: sidecarName(service),
    local: () => gateways.connectIndex(service),
    gateways: true,
  };
}

/** The instances that speak for a service in the mesh, and the terminating gateways in front of it. */
export async function connectInstancesOf(call: Call, peer: string, service: string): Promise<Listing<InstanceView>> {
  if (peer !== "") {
    const key = lowerCase(service);
    const proxies = await instancesOf(call, peer, sidecarName(service));
    return kept(proxies, ({ service: { kind, proxy } }) => {
      return kind === "connect-proxy" && lowerCase(proxy?.destinationServiceName ?? "") === key;
    });
  }
  return localViews(call.host, call.host.gateways.connectInstances(service));
}

/** A node with everything on it. */
export interface NodeContents {
  readonly node: NodeView;
  /** By id. */
  readonly services: Listing<InstanceView>;
  /** By id, those of the node among those of its services. */
  readonly checks: Listing<CheckView>;
}

function checkViews(peer: string, checks: readonly IndexedCheck[]): readonly CheckView[] {
  return checks.map((check) => ({ peer, check }));
}

/** The checks on one node by id. */
function byCheckId(checks: readonly IndexedCheck[]): readonly IndexedCheck[] {
  return checks.toSorted((left, right) => compareUtf8(lowerCase(left.checkId), lowerCase(right.checkId)));
}

function stampedNode(peer: string, node: Node, indexes: Stamped): NodeView {
  return { peer, node: { ...node, ...indexes } };
}

function stampedChecks(checks: readonly Check[], indexes: Stamped): readonly IndexedCheck[] {
  return checks.map((check) => ({ ...check, ...indexes }));
}

/** A node by name; undefined when there is none. */
export async function nodeOf(call: Call, peer: string, name: string): Promise<NodeContents | undefined> {
  const { host } = call;
  if (peer === "") return localNode(host, name);
  const key = lowerCase(name);
  const services: InstanceView[] = [];
  for (const service of host.imports.servicesOn({ peer, node: name })) {
    await forEach(await instancesOf(call, peer, service), (view) => {
      if (lowerCase(view.node.name) === key) services.push(view);
    });
  }
  return importedNode(peer, services);
}

export async function localNode(host: PeeringHost, name: string): Promise<NodeContents | undefined> {
  const found = await host.catalog.nodeContents(name);
  if (found === undefined) return undefined;
  const node = { peer: "", node: found.node };
  return {
    node,
    services: listing(found.services, (service) => host.gateways.withAddresses({ ...node, service, checks: [] })),
    checks: listing(found.checks, (check) => ({ peer: "", check })),
  };
}

/** A node from everything that is on it; undefined when that is nothing. */
export function importedNode(peer: string, instances: readonly InstanceView[]): NodeContents | undefined {
  const services = instances.toSorted((left, right) =>
    compareUtf8(lowerCase(left.service.id), lowerCase(right.service.id)),
  );
  const [first] = services;
  if (first === undefined) return undefined;
  const ofNode = first.checks.filter(({ serviceId }) => serviceId === "");
  const ofServices = services.flatMap(({ checks }) => checks.filter(({ serviceId }) => serviceId !== ""));
  return {
    node: { peer, node: newest(services) ?? first.node },
    services,
    checks: checkViews(peer, byCheckId([...ofNode, ...ofServices])),
  };
}

function newest(views: readonly InstanceView[]): InstanceView["node"] | undefined {
  let last: InstanceView["node"] | undefined;
  for (const { node } of views) if (last === undefined || node.modifyIndex > last.modifyIndex) last = node;
  return last;
}

/** Every node, by name. */
export async function nodesOf(host: PeeringHost, peer: string): Promise<Listing<NodeView>> {
  if (peer === "") return listing(await host.catalog.nodeListing(), (node) => ({ peer, node }));
  return listing(await host.imports.nodes({ peer }), ({ node }) => {
    let revision = 1n;
    for (const service of host.imports.servicesOn({ peer, node: node.name })) {
      const found = host.imports.service({ peer, service })?.revision ?? 1n;
      if (found > revision) revision = found;
    }
    return stampedNode(peer, node, stamp(revision));
  });
}

/** Every local instance, by service, node and id. */
export async function everyLocal({ host }: Call): Promise<Listing<InstanceView>> {
  const lists: Listing<InstanceView>[] = [];
  await forEach(await host.catalog.serviceNames(), (name) => {
    lists.push(localViews(host, host.catalog.indexedInstances(name)));
  });
  return joined(lists);
}

/** Every instance that is imported from a peer, by service, node and id, read at one moment. */
export async function everyImported(call: Call, peer: string): Promise<Listing<InstanceView>> {
  const { host } = call;
  const { imports, view } = host;
  if (view.peering(peer) === undefined) return [];
  for await (const change of imports.watch({ peer, signal: call.signal })) {
    if (change.type !== "snapshot") break;
    const sorted = await sortByKeys(change.services, ([service]) => [lowerCase(service)]);
    const lists: Listing<InstanceView>[] = [];
    const pause = pauses();
    for (const [service, instances] of sorted) {
      const indexes = stamp(imports.service({ peer, service })?.revision ?? change.revision);
      lists.push(await importedViews(call, peer, instances, indexes));
      await pause();
    }
    return joined(lists);
  }
  return [];
}

/** The checks of all instances and nodes in a state, or all of them for `any`, by node and id. */
export async function checksInState(call: Call, peer: string, state: string): Promise<Listing<CheckView>> {
  const viewOf = (check: IndexedCheck): CheckView => ({ peer, check });
  if (peer === "") return listing(await call.host.catalog.checksInState(state), viewOf);
  const { imports } = call.host;
  const checks: IndexedCheck[] = [];
  const add = (check: IndexedCheck): void => {
    if (state === "any" || check.status === state) checks.push(check);
  };
  const revisions = new Map<string, bigint>();
  await forEach(await everyImported(call, peer), (view) => {
    for (const check of view.checks) if (check.serviceId !== "") add(check);
    if (!revisions.has(view.node.name)) revisions.set(view.node.name, view.node.modifyIndex);
  });
  await forEach(await imports.nodes({ peer }), ({ node, checks: ofNode }) => {
    for (const check of stampedChecks(ofNode, stamp(revisions.get(node.name) ?? 1n))) add(check);
  });
  call.keep(checks.length * IMPORTED_CHECK_BYTES);
  return listing(await sortByKeys(checks, ({ node, checkId }) => [lowerCase(node), lowerCase(checkId)]), viewOf);
}

export function hasNodeMeta(node: Node, wanted: readonly (readonly [string, string])[]): boolean {
  return wanted.every(([key, value]) => Object.hasOwn(node.meta, key) && node.meta[key] === value);
}

/**
 * The instances of a service that carry each `?tag=`, whatever its case. An empty one is a tag like others: Consul 1.21 finds the
 * instances that carry it, and none else. What speaks for a service in the mesh is not chosen by tags.
 */
export async function taggedInstancesOf(call: Call, peer: string, service: string): Promise<Listing<InstanceView>> {
  const tags = call.query.getAll("tag").map(lowerCase);
  const instances = await instancesOf(call, peer, service);
  if (tags.length === 0) return instances;
  return kept(instances, (view) => {
    const has = new Set(view.service.tags.map(lowerCase));
    return tags.every((tag) => has.has(tag));
  });
}
