import { compareUtf8 } from "../base/byte-order.js";
import { inShortTurns, pauses, sortByKeys } from "../base/turns.js";
import { EVERY_SERVICE } from "../config/config-entry-set.js";
import type { PeeringHost } from "../host/host.js";
import { derived, joined, type Listing, mergedSteps } from "../model/listing.js";
import { proxiedName, type ServiceSummary, SummaryMaker } from "../model/service-summary.js";
import type { HealthCounts, ServiceWithProxies } from "../stores/catalog.js";
import type { ImportedSummary } from "../stores/import-store.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import { importBasis } from "./answer-read.js";
import type { Call } from "./call.js";
import { everyImported, everyLocal, everyLocalNode, importedNode, nodeOf, SERVICE_BYTES } from "./discovery.js";
import { discoveryParameters } from "./discovery-docs.js";
import { type DiscoveryOptions, discoveryOptions, namedOptions } from "./discovery-options.js";
import { HttpRefusal } from "./http-refusal.js";
import { filterFor, forEach, kept } from "./in-turns.js";
import { type Json, type JsonStruct, LazyList } from "./json.js";
import { RECORDS } from "./kept-answers.js";
import type { JsonSchema, Operation } from "./operation.js";
import { anyObject, datacenterParameter, flag, index, listOf, objectOf, text, textsOrNull } from "./operation-docs.js";
import {
  type InstanceView,
  instanceFields,
  type NodeContents,
  nodeContentsFields,
  nodeContentsJson,
  nodeContentsSchema,
} from "./records.js";
import { Visibility } from "./visibility.js";

// The reads of Consul's pages (1.21), the only ones that list local and imported services together.

/**
 * Answers a read of local and imported data: the index counts both, where Consul's ignores imports (D-37).
 * These reads tell no consistency.
 * @param kept - whose imports it is about (`""`: all data), and whether its caller may see everything of that: then the answer is kept.
 */
export async function answerFromAll(
  call: Call,
  options: DiscoveryOptions,
  load: () => Promise<{ readonly json: Json; readonly filtered: boolean } | undefined>,
  kept: { readonly peer: string; readonly everything: () => boolean } = { peer: "", everything: () => false },
): Promise<Answer> {
  const { catalog, imports, configEntries } = call.host;
  const indexNow = (): bigint => {
    let newest = catalog.revision;
    for (const other of [configEntries.index, imports.newestIndex]) if (other > newest) newest = other;
    return newest;
  };
  const query = {
    read: () => ({ index: indexNow(), result: undefined }),
    index: indexNow,
    subscribe: (wake: () => void) => {
      const forget = [catalog.onChange(wake), imports.onAnyChange(wake), configEntries.onChange(wake)];
      return () => {
        for (const stop of forget) stop();
      };
    },
  };
  return call.answer(options, query, async ({ index }) => {
    const place = kept.everything() ? call.place(basisOf(call.host, kept.peer)) : undefined;
    if (place?.body !== undefined) return { body: place.body, read: { index, filtered: false } };
    const answer = await load();
    if (answer === undefined) return { status: 404 };
    const { json, filtered } = answer;
    return { json, read: { index, filtered }, ...(place !== undefined && !filtered && { place }) };
  });
}

/** Everything that a read of the imports of a peer depends on; `""`: a read of all data. */
function basisOf(host: PeeringHost, peer: string): readonly (bigint | number)[] {
  if (peer !== "") return importBasis(host, peer);
  const { catalog, configEntries, imports, view } = host;
  const counts = view.peerings().map(({ name }) => imports.count({ peer: name }));
  return [
    view.index,
    catalog.revision,
    configEntries.index,
    imports.newestIndex,
    counts.reduce((sum, { services }) => sum + services, 0),
    counts.reduce((sum, { instances }) => sum + instances, 0),
  ];
}

/** The peers that a read is about; `""` is this cluster. */
function peersOf(call: Call, asked: string): readonly string[] {
  if (asked !== "") return [asked];
  const peers = call.host.view.peerings().map(({ name }) => name);
  return ["", ...peers.sort(compareUtf8)];
}

function everyInstance(call: Call, peer: string): Promise<Listing<InstanceView>> {
  return peer === "" ? everyLocal(call) : everyImported(call, peer);
}

// Services.

/** A service of one cluster, `""`: of ours, and the facts that config entries tell of it. */
interface ShownService {
  readonly summary: ServiceSummary;
  readonly peer: string;
  /** Links of a terminating gateway; undefined for other services. */
  readonly linked: number | undefined;
  readonly behindGateway: boolean;
}

function shownJson({ summary, peer, linked, behindGateway }: ShownService): Json {
  return {
    ...summaryJson(summary, { AssociatedServiceCount: linked || undefined }),
    PeerName: peer || undefined,
    ConnectedWithProxy: summary.proxied,
    ConnectedWithGateway: behindGateway,
  };
}

/** A summary without the ways to the service. @param gateway - the facts of its gateway. */
export function summaryJson(summary: ServiceSummary, gateway: JsonStruct): JsonStruct {
  return {
    Kind: summary.kind || undefined,
    Name: summary.name,
    Datacenter: summary.datacenter,
    Tags: orNullJson(summary.tags),
    Nodes: orNullJson(summary.nodes),
    ExternalSources: orNullJson(summary.sources),
    InstanceCount: summary.instances,
    ChecksPassing: summary.passing,
    ChecksWarning: summary.warning,
    ChecksCritical: summary.critical,
    GatewayConfig: gateway,
    TransparentProxy: summary.transparent,
    ConnectNative: summary.native,
  };
}

function orNullJson(texts: readonly string[]): Json {
  return texts.length === 0 ? null : texts;
}

/** Services by name, those of one name by peer; a service that only a proxy names is one, too. */
async function shownServices(call: Call, instances: Listing<InstanceView>): Promise<readonly ShownService[]> {
  const byKey = new Map<string, { readonly maker: SummaryMaker; readonly peer: string }>();
  const of = (name: string, peer: string): SummaryMaker => {
    const key = `${lowerCase(name)}\0${peer}`;
    const known = byKey.get(key) ?? { maker: new SummaryMaker(name), peer };
    byKey.set(key, known);
    return known.maker;
  };
  await forEach(instances, (view) => {
    of(view.service.name, view.peer).add(view);
    const destination = proxiedName(view.service);
    if (destination !== "") of(destination, view.peer).addProxy(view);
  });
  const shown: ShownService[] = [];
  await forEach([...byKey.values()], ({ maker, peer }) => {
    shown.push(fronted(call, maker.summary(), peer));
  });
  return sortByKeys(shown, ({ summary, peer }) => [summary.name, peer]);
}

/** Adds the facts that config entries tell of gateways. They are another {@link gatewayBasis} after each change. */
function fronted({ host }: Call, summary: ServiceSummary, peer: string): ShownService {
  if (peer !== "") return { summary, peer, linked: undefined, behindGateway: false };
  const { entries } = host.configEntries;
  const key = lowerCase(summary.name);
  const isEveryFronted = entries.isFronted(EVERY_SERVICE);
  return {
    summary,
    peer,
    linked:
      summary.kind === "terminating-gateway" ? entries.all("terminating-gateway").get(key)?.services.length : undefined,
    behindGateway: entries.isFronted(key) || (isEveryFronted && summary.kind === "" && summary.instances > 0),
  };
}

function gatewayBasis({ host }: Call): bigint {
  return host.configEntries.kindIndex("terminating-gateway");
}

/** A service that is not summarised before it is written, or one that is. */
type ListedService = ServiceWithProxies | ImportedSummary;

/** The services of clusters of which the caller may see everything, in the order of a list. */
async function listedServices(call: Call, peers: readonly string[]): Promise<Listing<ShownService>> {
  const { catalog, imports } = call.host;
  let listed: Listing<ListedService> = [];
  for (const peer of peers) {
    await call.room((peer === "" ? catalog.count() : imports.count({ peer })).services * SERVICE_BYTES);
    const more = peer === "" ? await catalog.servicesWithProxies() : await imports.summaries({ peer });
    listed = listed.length === 0 ? more : await inShortTurns(mergedSteps(listed, more, byName));
  }
  return derived(listed, (service) => {
    return "peer" in service ? fronted(call, service, service.peer) : fronted(call, service.summary, "");
  });
}

function byName(left: ListedService, right: ListedService): number {
  return compareUtf8(left.name, right.name);
}

async function services(call: Call): Promise<Answer> {
  const options = discoveryOptions(call);
  const filter = filterFor(options, instanceFields);
  const visible = new Map<string, Visibility>();
  for (const peer of peersOf(call, options.peer)) visible.set(peer, await Visibility.of(call, peer));
  const everything = (): boolean => peersOf(call, options.peer).every((peer) => visible.get(peer)?.everything === true);
  const load = async (): Promise<{ readonly json: Json; readonly filtered: boolean }> => {
    const peers = peersOf(call, options.peer);
    if (options.filter === "" && everything()) {
      const json = call.list(await listedServices(call, peers), shownJson, gatewayBasis(call));
      return { json, filtered: false };
    }
    const shown: Listing<InstanceView>[] = [];
    for (const peer of peers) {
      const seen = visible.get(peer) ?? (await Visibility.of(call, peer));
      visible.set(peer, seen);
      shown.push(await filter(await everyInstance(call, peer), (view) => seen.instance(view)));
    }
    const filtered = [...visible.values()].some((seen) => seen.filtered);
    return { json: LazyList.of(await shownServices(call, joined(shown)), shownJson), filtered };
  };
  return answerFromAll(call, options, load, { peer: options.peer, everything });
}

async function exportedServices(call: Call): Promise<Answer> {
  const options = discoveryOptions(call);
  const { peer } = options;
  if (peer === "") throw new HttpRefusal(500, "must provide PeerName");
  const visible = await Visibility.of(call, "");
  return answerFromAll(call, options, async () => {
    const known = call.host.view.peering(peer) !== undefined;
    const names = known ? call.host.exports.servicesFor(peer) : [];
    const shown = await kept(names, (name) => visible.service(name));
    const { datacenter } = call.host;
    const json = LazyList.of(shown, (name) => {
      const summary = { ...new SummaryMaker(name).summary(), datacenter };
      return shownJson({ summary, peer: "", linked: undefined, behindGateway: false });
    });
    return { json, filtered: visible.filtered };
  });
}

// All of it in numbers.

function countsJson({ name, total, passing, warning, critical }: HealthCounts): Json {
  return { Name: name || undefined, Total: total, Passing: passing, Warning: warning, Critical: critical };
}

/** Local nodes by their own checks, instances by theirs, and checks by name. */
async function overview(call: Call): Promise<Answer> {
  discoveryOptions(call);
  await call.require({ resource: "operator", access: "read" });
  await call.turn();
  const { nodes, services, checks } = await call.host.catalog.counts();
  const list = (form: string, counts: readonly HealthCounts[]): Json =>
    call.server.keptTexts.list(
      `overview ${form}`,
      derived(counts, (one) => one),
      countsJson,
    );
  return {
    json: { Nodes: [countsJson(nodes)], Services: list("services", services), Checks: list("checks", checks) },
  };
}

// Nodes.

async function visibleContents(contents: NodeContents, visible: Visibility): Promise<NodeContents | undefined> {
  if (visible.everything) return contents;
  if (!visible.node(contents.node.node.name)) return undefined;
  return {
    node: contents.node,
    services: await kept(contents.services, ({ service }) => visible.service(service.name)),
    checks: await kept(contents.checks, (view) => visible.check(view)),
  };
}

/** About the cost of a node and its lists. */
const NODE_BYTES = 1_024;

/** Those nodes that may be seen. */
async function visibleNodes(nodes: Listing<NodeContents>, visible: Visibility): Promise<Listing<NodeContents>> {
  if (visible.everything) return nodes;
  const found: NodeContents[] = [];
  const pause = pauses();
  for (const contents of nodes) {
    await pause();
    const seen = await visibleContents(contents, visible);
    if (seen !== undefined) found.push(seen);
  }
  return found;
}

/** Every node of a cluster that may be seen, by name. */
async function everyNode(call: Call, peer: string, visible: Visibility): Promise<Listing<NodeContents>> {
  if (peer === "") {
    await call.room(call.host.catalog.count().nodes * NODE_BYTES);
    return visibleNodes(await everyLocalNode(call), visible);
  }
  const found: NodeContents[] = [];
  const byNode = new Map<string, InstanceView[]>();
  await forEach(await everyImported(call, peer), (view) => {
    const key = lowerCase(view.node.name);
    const known = byNode.get(key);
    if (known === undefined) byNode.set(key, [view]);
    else known.push(view);
  });
  const pause = pauses();
  for (const [, views] of await sortByKeys(byNode, ([key]) => [key])) {
    await pause();
    const contents = await importedNode(peer, views);
    if (contents !== undefined) found.push(contents);
  }
  return visibleNodes(found, visible);
}

/** Local ones and those of every peer, whatever the parameter `peer` is, as in Consul. */
async function nodes(call: Call): Promise<Answer> {
  const options = discoveryOptions(call);
  const filter = filterFor(options, nodeContentsFields);
  const access = await call.access();
  const everything = (): boolean => peersOf(call, "").every((peer) => new Visibility(access, peer).everything);
  const load = async (): Promise<{ readonly json: Json; readonly filtered: boolean }> => {
    const shown: Listing<NodeContents>[] = [];
    let filtered = false;
    for (const peer of peersOf(call, "")) {
      const visible = await Visibility.of(call, peer);
      shown.push(await everyNode(call, peer, visible));
      filtered ||= visible.filtered;
    }
    const basis = call.host.gateways.addressBasis;
    const json = (contents: NodeContents): Json => nodeContentsJson(contents, call.server.keptTexts, basis);
    return { json: call.list(await filter(joined(shown)), json, basis), filtered };
  };
  return answerFromAll(call, options, load, { peer: "", everything });
}

async function node(call: Call): Promise<Answer> {
  const options = namedOptions(call, "node name");
  const { peer, name } = options;
  const visible = await Visibility.of(call, peer);
  return answerFromAll(call, options, async () => {
    const found = await nodeOf(call, peer, name);
    const seen = found && (await visibleContents(found, visible));
    const { gateways } = call.host;
    return (
      seen && {
        json: nodeContentsJson(seen, call.server.keptTexts, gateways.addressBasis),
        filtered: visible.filtered,
      }
    );
  });
}

/** The values that {@link summaryJson} writes. */
export const ownSummaryFields: Readonly<Record<string, JsonSchema>> = {
  "Kind?": text,
  Name: text,
  Datacenter: text,
  Tags: textsOrNull,
  Nodes: textsOrNull,
  ExternalSources: textsOrNull,
  InstanceCount: index,
  ChecksPassing: index,
  ChecksWarning: index,
  ChecksCritical: index,
  GatewayConfig: anyObject,
  TransparentProxy: flag,
  ConnectNative: flag,
};

const summarySchema: JsonSchema = objectOf({
  ...ownSummaryFields,
  "PeerName?": text,
  ConnectedWithProxy: flag,
  ConnectedWithGateway: flag,
});

const tallySchema: JsonSchema = objectOf({
  "Name?": text,
  Total: index,
  Passing: index,
  Warning: index,
  Critical: index,
});

/** `/v1/internal/ui` as far as it tells of imports. */
export const uiOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/internal/ui/services",
    sources: RECORDS,
    run: services,
    docs: [
      {
        path: "/v1/internal/ui/services",
        id: "summariseServices",
        summary: "One summary for each service, local and of every peer; of one peer where `peer` is given.",
        parameters: discoveryParameters,
        answer: listOf(summarySchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/internal/ui/exported-services",
    run: exportedServices,
    docs: [
      {
        path: "/v1/internal/ui/exported-services",
        id: "summariseExportedServices",
        summary: "The services that the peer named by `peer` is sent instances of.",
        parameters: discoveryParameters,
        answer: listOf(summarySchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/internal/ui/catalog-overview",
    sources: ["catalog"],
    run: overview,
    docs: [
      {
        path: "/v1/internal/ui/catalog-overview",
        id: "countCatalog",
        summary: "How many local nodes, instances and checks there are, and in which state.",
        parameters: [datacenterParameter],
        answer: objectOf({ Nodes: listOf(tallySchema), Services: listOf(tallySchema), Checks: listOf(tallySchema) }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/internal/ui/nodes",
    sources: RECORDS,
    run: nodes,
    docs: [
      {
        path: "/v1/internal/ui/nodes",
        id: "listNodesWithServices",
        summary: "Every node with its services and checks, local and of every peer.",
        parameters: discoveryParameters,
        answer: listOf(nodeContentsSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/internal/ui/node/",
    sources: RECORDS,
    run: node,
    docs: [
      {
        path: "/v1/internal/ui/node/{node}",
        id: "readNodeWithServices",
        summary: "A node with its services and checks; 404 when there is none of that name.",
        parameters: discoveryParameters,
        answer: nodeContentsSchema,
      },
    ],
  },
];
