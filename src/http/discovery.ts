import { pauses, sortByKeys } from "../base/turns.js";
import { VIRTUAL } from "../host/gateways.js";
import type { PeeringHost } from "../host/host.js";
import { connectName } from "../model/catalog-draft.js";
import { withChecksOf } from "../model/check-groups.js";
import type { Check, Node, ServiceInstance } from "../model/instance.js";
import { derived, joined, type Listing, listing } from "../model/listing.js";
import { sidecarName } from "../payload/exported-payload.js";
import type { IndexedCheck, IndexedInstance, NodeListings } from "../stores/catalog.js";
import { lowerCase } from "../syntax/names.js";
import type { Scope } from "./answer-read.js";
import type { Call } from "./call.js";
import { forEach, kept } from "./in-turns.js";
import type { Marks } from "./kept-answers.js";
import type { CheckView, InstanceView, NodeContents, NodeView } from "./records.js";

// Local and imported records in one form. Imported records have the index of the payload that brought them (D-29).

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

/** Local instances as answers show them. */
export function localViews({ gateways }: PeeringHost, instances: Listing<IndexedInstance>): Listing<InstanceView> {
  return listing(instances, (instance) => {
    const { node, service } = instance;
    const shown = gateways.withAddresses(service);
    return withChecksOf(instance, (checks): InstanceView => ({ peer: "", node, service: shown, checks }));
  });
}

/** Instances whose services are shown in another way. */
export function withServices(
  instances: Listing<InstanceView>,
  shown: (service: InstanceView["service"]) => InstanceView["service"],
): Listing<InstanceView> {
  return listing(instances, (view) => {
    const service = shown(view.service);
    if (service === view.service) return view;
    const { peer, node } = view;
    return withChecksOf(view, (checks): InstanceView => ({ peer, node, service, checks }));
  });
}

/** The instances of a service, by node and id. */
export async function instancesOf(call: Call, peer: string, service: string): Promise<Listing<InstanceView>> {
  const { host } = call;
  if (peer === "") return localViews(host, host.catalog.indexedInstances(service));
  const indexes = stamp(host.imports.service({ peer, service })?.revision ?? 1n);
  const instances = await host.imports.instances({ peer, service });
  await call.room(instances.length * IMPORTED_BYTES, instances);
  return importedViews(call, peer, instances, indexes);
}

/** About the cost of an instance that was read from the storage. Local ones are in memory anyway. */
const IMPORTED_BYTES = 1_500;
/** About the cost of a record that is made of another one, and kept until it is written. */
export const VIEW_BYTES = 500;
/** About the cost of a place in a list of records that is sorted. */
const SORTED_BYTES = 64;
/** About the cost of the list of a local service, and of what is told of it as a whole. */
export const SERVICE_BYTES = 1_024;
/** About the cost of what is noted of each local instance: a reference, its node and its checks. */
const INSTANCE_BYTES = 160;
/** The same of a check alone. */
const IMPORTED_CHECK_BYTES = 500;

/** The parameters of a read of the instances of a service. */
export function instanceScope({ gateways, catalog }: PeeringHost, peer: string, service: string): Scope {
  const isGateway = (): boolean => catalog.isOf(service, "terminating-gateway");
  return {
    peer,
    service,
    local: () => gateways.instanceIndex(service),
    marks: () => [catalog.index.service(service), isGateway() ? catalog.index.virtualIps : 0n],
    gateways: peer === "" && isGateway(),
  };
}

/** The parameters of {@link connectInstancesOf}. */
export function connectScope({ gateways, catalog }: PeeringHost, peer: string, service: string): Scope {
  // The index is that of the service changed last: it does not tell that an instance of another one is gone.
  const marks = (): Marks => [catalog.index.connect(service), catalog.countConnect(service)];
  return {
    peer,
    service: sidecarName(service),
    local: () => gateways.connectIndex(service),
    marks: marks,
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

function checkViews(peer: string, checks: readonly IndexedCheck[]): readonly CheckView[] {
  return checks.map((check) => ({ peer, check }));
}

function stampedNode(peer: string, node: Node, indexes: Stamped): NodeView {
  return { peer, node: { ...node, ...indexes } };
}

function stampedChecks(checks: readonly Check[], indexes: Stamped): readonly IndexedCheck[] {
  return checks.map((check) => ({ ...check, ...indexes }));
}

/** Others after each change of a local node, or of the services on it, as answers show them. */
export function nodeMarks({ catalog }: PeeringHost, name: string): () => Marks {
  return () => [catalog.index.node(name), catalog.index.virtualIps];
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
  return contentsOf(host, found);
}

/** Every local node with everything on it, by name. */
export async function everyLocalNode({ host }: Call): Promise<Listing<NodeContents>> {
  return derived(await host.catalog.everyContents(), (found) => contentsOf(host, found));
}

/** The services are shown with addresses that {@link addressBasis} changes with. */
function contentsOf(host: PeeringHost, { node, services, checks }: NodeListings): NodeContents {
  const view = { peer: "", node };
  return {
    node: view,
    services: derived(services, (service) => ({ ...view, service: host.gateways.withAddresses(service), checks: [] })),
    checks: derived(checks, (check) => ({ peer: "", check })),
  };
}

/** A node from everything that is on it; undefined when that is nothing. Others have their turn while it is made. */
export async function importedNode(
  peer: string,
  instances: readonly InstanceView[],
): Promise<NodeContents | undefined> {
  const services = await sortByKeys(instances, ({ service }) => [lowerCase(service.id)]);
  const [first] = services;
  if (first === undefined) return undefined;
  const checks = first.checks.filter(({ serviceId }) => serviceId === "");
  await forEach(services, (view) => {
    for (const check of view.checks) if (check.serviceId !== "") checks.push(check);
  });
  const byId = await sortByKeys(checks, ({ checkId }) => [lowerCase(checkId)]);
  return {
    node: { peer, node: newest(services) ?? first.node },
    services,
    checks: checkViews(peer, byId),
  };
}

function newest(views: readonly InstanceView[]): InstanceView["node"] | undefined {
  let last: InstanceView["node"] | undefined;
  for (const { node } of views) if (last === undefined || node.modifyIndex > last.modifyIndex) last = node;
  return last;
}

/** Every node, by name. */
export async function nodesOf(call: Call, peer: string): Promise<Listing<NodeView>> {
  const { host } = call;
  if (peer === "") {
    await call.room(host.catalog.count().nodes * SORTED_BYTES);
    return derived(await host.catalog.nodeListing(), (node) => ({ peer, node }));
  }
  await call.room(host.imports.count({ peer }).instances * VIEW_BYTES);
  const nodes = await host.imports.nodes({ peer });
  return derived(nodes, ({ node, revision }) => stampedNode(peer, node, stamp(revision)));
}

/** Every local instance, by service, node and id. */
export async function everyLocal(call: Call): Promise<Listing<InstanceView>> {
  const { host } = call;
  const lists: Listing<InstanceView>[] = [];
  await call.room(host.catalog.count().services * SERVICE_BYTES);
  await forEach(await host.catalog.serviceNames(), (name) => {
    lists.push(localViews(host, host.catalog.indexedInstances(name)));
  });
  const all = joined(lists);
  await call.room(all.length * INSTANCE_BYTES);
  return all;
}

/** Every instance that is imported from a peer, by service, node and id, read at one moment. */
export async function everyImported(call: Call, peer: string): Promise<Listing<InstanceView>> {
  const { host } = call;
  const { imports, view } = host;
  if (view.peering(peer) === undefined) return [];
  await call.room(imports.count({ peer }).instances * IMPORTED_BYTES);
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
  const { imports, catalog } = call.host;
  if (peer === "") {
    const { nodes, services } = catalog.count();
    await call.room((nodes + services) * SORTED_BYTES);
    return derived(await catalog.checksInState(state), viewOf);
  }
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
  await call.room(checks.length * IMPORTED_CHECK_BYTES);
  return listing(await sortByKeys(checks, ({ node, checkId }) => [lowerCase(node), lowerCase(checkId)]), viewOf);
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
