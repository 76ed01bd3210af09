import { compareUtf8 } from "../base/byte-order.js";
import { sortByKeys } from "../base/turns.js";
import { derived, type Listing, listing } from "../model/listing.js";
import type { CatalogIndexes } from "../stores/catalog.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import { answerRead } from "./answer-read.js";
import type { Call } from "./call.js";
import { type CentralRead, centralParameter, centralRead } from "./central-config.js";
import {
  connectInstancesOf,
  connectScope,
  everyImported,
  everyLocal,
  instanceScope,
  nodeMarks,
  nodeOf,
  nodesOf,
  taggedInstancesOf,
  VIEW_BYTES,
  withServices,
} from "./discovery.js";
import {
  discoveryParameters,
  nameListSchema,
  nearParameter,
  nodeMetaParameter,
  tagParameter,
} from "./discovery-docs.js";
import { discoveryOptions, hasNodeMeta, namedOptions } from "./discovery-options.js";
import { filterFor, forEach } from "./in-turns.js";
import { LazyList, LazyMap } from "./json.js";
import { RECORDS } from "./kept-answers.js";
import type { Operation } from "./operation.js";
import { listOf, mapOf, objectOf, orNull } from "./operation-docs.js";
import {
  flatFields,
  flatInstanceSchema,
  flatJson,
  type InstanceView,
  type NodeView,
  nodeFields,
  nodeJson,
  nodeSchema,
  type ServiceView,
  serviceFields,
  serviceJson,
  serviceSchema,
} from "./records.js";
import { Visibility } from "./visibility.js";

async function nodes(call: Call): Promise<Answer> {
  const options = discoveryOptions(call);
  const { peer, nodeMeta } = options;
  const filter = filterFor(options, nodeFields);
  const visible = await Visibility.of(call, peer);
  return answerRead(
    call,
    options,
    { peer, local: (indexes) => indexes.nodes, marks: () => [], everything: visible.everything },
    async () => {
      const all = await nodesOf(call, peer);
      const isSeen = ({ node }: NodeView): boolean => hasNodeMeta(node, nodeMeta) && visible.node(node.name);
      const shown = await filter(all, visible.everything && nodeMeta.length === 0 ? undefined : isSeen);
      return { json: call.list(shown, nodeJson), filtered: visible.filtered };
    },
  );
}

/** About the cost of the tags of a service, by its name. */
const TAGS_BYTES = 200;

async function services(call: Call): Promise<Answer> {
  const options = discoveryOptions(call);
  const { peer, nodeMeta } = options;
  const filter = filterFor(options, flatFields);
  const visible = await Visibility.of(call, peer);
  const byNode = nodeMeta.length > 0;
  const isOfNames = !byNode && visible.everyNode && options.filter === "";
  const scope = {
    peer,
    everything: visible.everything,
    marks: isOfNames ? () => [] : undefined,
    local: ({ nodes, services }: { readonly nodes: bigint; readonly services: bigint }) =>
      byNode && nodes > services ? nodes : services,
  };
  return answerRead(call, options, scope, async () => {
    const { catalog } = call.host;
    if (peer === "" && isOfNames && visible.everything) {
      await call.room(catalog.count().services * TAGS_BYTES);
      const all = await catalog.servicesWithTags();
      const json = await call.map(
        all,
        ({ name }) => name,
        ({ tags }) => tags(),
      );
      return { json, filtered: false };
    }
    if (peer !== "" && isOfNames && visible.everything) {
      await call.room(call.host.imports.count({ peer }).services * TAGS_BYTES);
      const all = await call.host.imports.summaries({ peer });
      // Those that only proxies speak for are no services of the catalog.
      const listed = all.some(({ instances }) => instances === 0) ? all.filter(({ instances }) => instances > 0) : all;
      const json = await call.map(
        derived(listed, (summary) => summary),
        ({ ownName }) => ownName,
        ({ tags }) => tags,
      );
      return { json, filtered: false };
    }
    if (peer === "" && isOfNames) {
      const shown = new Map<string, readonly string[]>();
      await call.room(catalog.count().services * TAGS_BYTES);
      await forEach(await catalog.serviceNames(), (name) => {
        if (visible.service(name)) shown.set(name, catalog.tags(name));
      });
      return { json: shown, filtered: visible.filtered };
    }
    const all = await (peer === "" ? everyLocal(call) : everyImported(call, peer));
    const shown = await filter(all, (view) => hasNodeMeta(view.node, nodeMeta) && visible.instance(view));
    const tags = new Map<string, { readonly name: string; readonly tags: Set<string> }>();
    await forEach(shown, ({ service }) => {
      const key = lowerCase(service.name);
      const known = tags.get(key) ?? { name: service.name, tags: new Set() };
      tags.set(key, known);
      for (const tag of service.tags) known.tags.add(tag);
    });
    // Their lower-cased names differ, so these do.
    const named = await sortByKeys(tags.values(), ({ name }) => [name]);
    const json = LazyMap.inOrder(
      listing(named, (entry) => [entry.name, entry] as const),
      (entry) => [...entry.tags].sort(compareUtf8),
    );
    return { json, filtered: visible.filtered };
  });
}

async function serviceInstances(call: Call): Promise<Answer> {
  const options = namedOptions(call, "service name");
  const service = options.name;
  const scope = instanceScope(call.host, options.peer, service);
  const read = centralRead(call, scope, `service ${service}`, () => call.host.catalog.indexedInstances(service));
  return flatAnswer(call, options, read, () => taggedInstancesOf(call, options.peer, service));
}

async function connectInstances(call: Call): Promise<Answer> {
  const options = namedOptions(call, "service name");
  const service = options.name;
  const scope = connectScope(call.host, options.peer, service);
  // Without the right to read the service, nothing that speaks for it is shown, under any name.
  const access = await call.access();
  const readable = access.readable(options.peer).service(service);
  const read = centralRead(call, scope, `connect ${service}`, () => call.host.gateways.connectInstances(service));
  return flatAnswer(call, options, read, async () => (readable ? connectInstancesOf(call, options.peer, service) : []));
}

async function flatAnswer(
  call: Call,
  options: ReturnType<typeof discoveryOptions>,
  { scope, told }: CentralRead,
  load: () => Promise<Listing<InstanceView>>,
): Promise<Answer> {
  const filter = filterFor(options, flatFields);
  const visible = await Visibility.of(call, options.peer);
  return answerRead(call, options, scope, async () => {
    const shown = await filter(
      withServices(await load(), told),
      (view) => hasNodeMeta(view.node, options.nodeMeta) && visible.instance(view),
    );
    return { json: LazyList.of(shown, flatJson), filtered: visible.filtered };
  });
}

async function node(call: Call): Promise<Answer> {
  const options = namedOptions(call, "node name");
  const { peer, name } = options;
  const filter = filterFor(options, serviceFields);
  const visible = await Visibility.of(call, peer);
  return answerRead(
    call,
    options,
    {
      peer,
      local: (indexes) => indexes.node(name),
      marks: nodeMarks(call.host, name),
      everything: visible.everything,
    },
    async () => {
      const found = await nodeOf(call, peer, name);
      if (found === undefined || !visible.node(found.node.node.name)) return { json: null, filtered: visible.filtered };
      await call.room(found.services.length * VIEW_BYTES);
      const shown = await filter(found.services, ({ service }) => visible.service(service.name));
      const byId = LazyMap.of(
        listing(shown, (view) => [view.service.id, view] as const),
        serviceJson,
      );
      return { json: { Node: nodeJson(found.node), Services: byId }, filtered: visible.filtered };
    },
  );
}

async function nodeServices(call: Call): Promise<Answer> {
  const options = namedOptions(call, "node name");
  const { peer, name } = options;
  const filter = filterFor(options, serviceFields);
  const visible = await Visibility.of(call, peer);
  const marks = nodeMarks(call.host, name);
  const ofNode = { peer, local: (indexes: CatalogIndexes) => indexes.node(name), marks };
  const { scope, told } = centralRead(call, ofNode, `node ${name}`, () => {
    return (call.host.catalog.node(name)?.services ?? []).map((service) => ({ service }));
  });
  return answerRead(call, options, { ...scope, everything: visible.everything }, async () => {
    const found = await nodeOf(call, peer, name);
    if (found === undefined || !visible.node(found.node.node.name)) {
      return { json: { Node: null, Services: null }, filtered: visible.filtered };
    }
    const isSeen = visible.everything ? undefined : ({ service }: ServiceView) => visible.service(service.name);
    const shown = await filter(withServices(found.services, told), isSeen);
    // As in Consul, which writes null for no list, and a list where a filter has left nothing.
    const none = found.services.length === 0 && options.filter === "";
    return {
      json: { Node: nodeJson(found.node), Services: none ? null : LazyList.of(shown, serviceJson) },
      filtered: visible.filtered,
    };
  });
}

/** The reads of `/v1/catalog`. */
export const catalogReads: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/catalog/nodes",
    sources: RECORDS,
    run: nodes,
    docs: [
      {
        path: "/v1/catalog/nodes",
        id: "listNodes",
        summary: "Every node, by name.",
        parameters: [...discoveryParameters, nodeMetaParameter, nearParameter],
        answer: listOf(nodeSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/catalog/services",
    sources: RECORDS,
    cacheable: true,
    run: services,
    docs: [
      {
        path: "/v1/catalog/services",
        id: "listServices",
        summary: "Every service with the tags of its instances.",
        parameters: [...discoveryParameters, nodeMetaParameter],
        answer: nameListSchema,
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/catalog/service/",
    sources: RECORDS,
    cacheable: true,
    run: serviceInstances,
    docs: [
      {
        path: "/v1/catalog/service/{service}",
        id: "listServiceInstances",
        summary: "The instances of a service.",
        parameters: [...discoveryParameters, nodeMetaParameter, tagParameter, nearParameter, centralParameter],
        answer: listOf(flatInstanceSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/catalog/connect/",
    sources: RECORDS,
    cacheable: true,
    run: connectInstances,
    docs: [
      {
        path: "/v1/catalog/connect/{service}",
        id: "listConnectInstances",
        summary: "The instances that speak for a service in the mesh.",
        parameters: [...discoveryParameters, nodeMetaParameter, nearParameter, centralParameter],
        answer: listOf(flatInstanceSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/catalog/node/",
    sources: RECORDS,
    run: node,
    docs: [
      {
        path: "/v1/catalog/node/{node}",
        id: "readNode",
        summary: "A node and its services by id; null when there is none of that name.",
        parameters: discoveryParameters,
        answer: orNull(objectOf({ Node: nodeSchema, Services: mapOf(serviceSchema) })),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/catalog/node-services/",
    sources: RECORDS,
    run: nodeServices,
    docs: [
      {
        path: "/v1/catalog/node-services/{node}",
        id: "readNodeServices",
        summary: "A node and the list of its services.",
        parameters: [...discoveryParameters, centralParameter],
        answer: objectOf({ Node: orNull(nodeSchema), Services: orNull(listOf(serviceSchema)) }),
      },
    ],
  },
];
