import { groupsOf, healthOf } from "../model/check-groups.js";
import type { Listing } from "../model/listing.js";
import type { CatalogIndexes } from "../stores/catalog.js";
import type { Answer } from "./answer.js";
import { answerRead, type Scope } from "./answer-read.js";
import type { Call } from "./call.js";
import { type CentralRead, centralParameter, centralRead } from "./central-config.js";
import {
  checksInState,
  connectInstancesOf,
  connectScope,
  instanceScope,
  instancesOf,
  localViews,
  nodeMarks,
  nodeOf,
  nodesOf,
  taggedInstancesOf,
  VIEW_BYTES,
  withServices,
} from "./discovery.js";
import {
  discoveryParameters,
  nearParameter,
  nodeMetaParameter,
  passingParameter,
  tagParameter,
} from "./discovery-docs.js";
import {
  type DiscoveryOptions,
  hasNodeMeta,
  type InstanceOptions,
  instanceOptions,
  namedOptions,
} from "./discovery-options.js";
import { HttpRefusal } from "./http-refusal.js";
import { filterFor, forEach, kept } from "./in-turns.js";
import { LazyList } from "./json.js";
import { type Marks, RECORDS } from "./kept-answers.js";
import type { Operation } from "./operation.js";
import { listOf } from "./operation-docs.js";
import {
  type CheckView,
  checkFields,
  checkJson,
  checkSchema,
  type InstanceView,
  instanceFields,
  instanceJson,
  instanceSchema,
} from "./records.js";
import { Visibility } from "./visibility.js";

async function service(call: Call): Promise<Answer> {
  const options = instanceOptions(call);
  const { peer, name } = options;
  const read = centralRead(call, instanceScope(call.host, peer, name), `service ${name}`, () =>
    call.host.catalog.indexedInstances(name),
  );
  return instancesAnswer(call, options, read, () => taggedInstancesOf(call, peer, name));
}

async function connect(call: Call): Promise<Answer> {
  const options = instanceOptions(call);
  const { peer, name } = options;
  await requireService(call, peer, name);
  const read = centralRead(call, connectScope(call.host, peer, name), `connect ${name}`, () =>
    call.host.gateways.connectInstances(name),
  );
  return instancesAnswer(call, options, read, () => connectInstancesOf(call, peer, name));
}

/** @throws {PeeringError} `permission-denied`: a caller that asks for the mesh of a service must be able to read the service. */
async function requireService(call: Call, peer: string, name: string): Promise<void> {
  const access = await call.access();
  if (access.readable(peer).service(name)) return;
  // Imports are all readable or none are.
  access.require({ resource: "service", access: "read", ...(peer === "" ? { name } : { scope: "all" }) });
}

/** Gateways are our own: a peer in the query changes nothing, as in Consul. */
async function ingress(call: Call): Promise<Answer> {
  const asked = instanceOptions(call);
  const options = { ...asked, peer: "" };
  const { gateways } = call.host;
  const { name } = options;
  await requireService(call, asked.peer, name);
  const scope = { peer: "", local: () => gateways.ingressIndex(name), gateways: true };
  const read = centralRead(call, scope, `ingress ${name}`, () => gateways.ingressInstances(name));
  return instancesAnswer(call, options, read, async () => localViews(call.host, gateways.ingressInstances(name)));
}

async function instancesAnswer(
  call: Call,
  options: InstanceOptions,
  { scope, told }: CentralRead,
  load: () => Promise<Listing<InstanceView>>,
): Promise<Answer> {
  const { passing, samenessGroup } = options;
  const filter = filterFor(options, instanceFields);
  if (samenessGroup !== "") throw new HttpRefusal(500, "sameness groups are not supported in consul CE");
  const visible = await Visibility.of(call, options.peer);
  return answerRead(call, options, scope, async () => {
    const shown = await filter(
      withServices(await load(), told),
      (view) => hasNodeMeta(view.node, options.nodeMeta) && visible.instance(view),
    );
    const passes = (view: InstanceView): boolean => {
      const { total, passing } = healthOf(view);
      return passing === total;
    };
    const wanted = passing ? await kept(shown, passes) : shown;
    return { json: LazyList.of(wanted, instanceJson), filtered: visible.filtered };
  });
}

async function checksOfService(call: Call): Promise<Answer> {
  const options = namedOptions(call, "service name");
  const { peer, name } = options;
  const marks = (): Marks => [call.host.catalog.index.service(name)];
  const scope = { peer, service: name, local: (indexes: CatalogIndexes) => checksIndex(options, indexes), marks };
  return checksAnswer(call, options, scope, async () => {
    const found: CheckView[] = [];
    const instances = await instancesOf(call, peer, name);
    await call.room(instances.length * VIEW_BYTES);
    await forEach(instances, (view) => {
      if (!hasNodeMeta(view.node, options.nodeMeta)) return;
      for (const check of groupsOf(view)?.own.list ?? view.checks) {
        if (check.serviceId !== "") found.push({ peer, check });
      }
    });
    return found;
  });
}

async function checksOfNode(call: Call): Promise<Answer> {
  const options = namedOptions(call, "node name");
  const { peer, name } = options;
  const marks = nodeMarks(call.host, name);
  const scope = { peer, local: (indexes: CatalogIndexes) => indexes.checks, marks };
  return checksAnswer(call, options, scope, async () => (await nodeOf(call, peer, name))?.checks ?? []);
}

async function state(call: Call): Promise<Answer> {
  const options = namedOptions(call, "check state");
  const { peer, nodeMeta, name: wanted } = options;
  const scope = { peer, local: (indexes: CatalogIndexes) => checksIndex(options, indexes) };
  return checksAnswer(call, options, scope, async () => {
    const checks = await checksInState(call, peer, wanted);
    if (nodeMeta.length === 0) return checks;
    const matching = new Set<string>();
    await forEach(await nodesOf(call, peer), ({ node }) => {
      if (hasNodeMeta(node, nodeMeta)) matching.add(node.name);
    });
    return kept(checks, ({ check }) => matching.has(check.node));
  });
}

/** Changes of nodes count where the read asks for metadata of nodes. */
function checksIndex({ nodeMeta }: DiscoveryOptions, { checks, nodes }: CatalogIndexes): bigint {
  return nodeMeta.length > 0 && nodes > checks ? nodes : checks;
}

async function checksAnswer(
  call: Call,
  options: DiscoveryOptions,
  scope: Scope,
  load: () => Promise<Listing<CheckView>>,
): Promise<Answer> {
  const filter = filterFor(options, checkFields);
  const visible = await Visibility.of(call, options.peer);
  const { everything } = visible;
  return answerRead(call, options, { ...scope, everything }, async () => {
    const shown = await filter(await load(), visible.everything ? undefined : (view) => visible.check(view));
    return { json: call.list(shown, checkJson), filtered: visible.filtered };
  });
}

const instanceParameters = [
  ...discoveryParameters,
  nodeMetaParameter,
  passingParameter,
  nearParameter,
  centralParameter,
] as const;
const checkParameters = [...discoveryParameters, nodeMetaParameter, nearParameter] as const;

/** `/v1/health`. */
export const healthOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/health/service/",
    sources: RECORDS,
    cacheable: true,
    run: service,
    docs: [
      {
        path: "/v1/health/service/{service}",
        id: "listHealthyInstances",
        summary: "The instances of a service with their nodes and checks.",
        parameters: [...instanceParameters, tagParameter],
        answer: listOf(instanceSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/health/connect/",
    sources: RECORDS,
    cacheable: true,
    run: connect,
    docs: [
      {
        path: "/v1/health/connect/{service}",
        id: "listHealthyConnectInstances",
        summary: "The instances that speak for a service in the mesh, with their nodes and checks.",
        parameters: instanceParameters,
        answer: listOf(instanceSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/health/ingress/",
    sources: RECORDS,
    cacheable: true,
    run: ingress,
    docs: [
      {
        path: "/v1/health/ingress/{service}",
        id: "listHealthyIngressInstances",
        summary: "The ingress gateways that lead to a service, with their nodes and checks.",
        parameters: instanceParameters,
        answer: listOf(instanceSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/health/checks/",
    sources: RECORDS,
    run: checksOfService,
    docs: [
      {
        path: "/v1/health/checks/{service}",
        id: "listServiceChecks",
        summary: "The checks of the instances of a service.",
        parameters: checkParameters,
        answer: listOf(checkSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/health/node/",
    sources: RECORDS,
    run: checksOfNode,
    docs: [
      {
        path: "/v1/health/node/{node}",
        id: "listNodeChecks",
        summary: "The checks of a node and of the services on it.",
        parameters: discoveryParameters,
        answer: listOf(checkSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/health/state/",
    sources: RECORDS,
    run: state,
    docs: [
      {
        path: "/v1/health/state/{state}",
        id: "listChecksInState",
        summary: "The checks in a state, or all of them for `any`.",
        parameters: checkParameters,
        answer: listOf(checkSchema),
      },
    ],
  },
];
