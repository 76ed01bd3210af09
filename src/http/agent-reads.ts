import { createHash } from "node:crypto";
import { toldText } from "../base/errors.js";
import { withCentralConfig } from "../config/central-config.js";
import { VIRTUAL } from "../host/gateways.js";
import type { PeeringHost } from "../host/host.js";
import { connectName } from "../model/catalog-draft.js";
import { CheckGroup, groupsOf } from "../model/check-groups.js";
import { MEMBERSHIP_CHECK } from "../model/health.js";
import { joined, listing } from "../model/listing.js";
import type { IndexedCheck, IndexedService } from "../stores/catalog.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import { blocking } from "./blocking.js";
import type { Call } from "./call.js";
import { nodeMarks, VIEW_BYTES } from "./discovery.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import { filterFor, gathered } from "./in-turns.js";
import { type Json, LazyList, LazyMap, type LazyStruct, writeJson } from "./json.js";
import { type Basis, basisOf } from "./kept-answers.js";
import type { JsonSchema, Operation, ParameterDoc } from "./operation.js";
import { filterParameter, listOf, mapOf, objectOf, orNull, text } from "./operation-docs.js";
import {
  type AgentServiceView,
  agentServiceFields,
  agentServiceJson,
  agentServiceSchema,
  type CheckView,
  checkFields,
  checkJson,
  checkSchema,
} from "./records.js";
import { isOwnCheck, memberFields, memberJson, memberOf, memberSchema, SERVER_ID } from "./system.js";
import { Visibility } from "./visibility.js";

function isTrue(value: string | null): boolean {
  return value !== null && /^(?:1|t|true)$/i.test(value);
}

/** The one node that this cluster has. */
async function members(call: Call): Promise<Answer> {
  const segment = call.query.get("segment") ?? "";
  if (segment !== "" && segment !== "_all") {
    throw new HttpRefusal(500, "Network segments are not supported in this version of Consul");
  }
  const visible = await Visibility.of(call, "");
  const wide = isTrue(call.query.get("wan"));
  const filter = filterFor(call.readOptions(), memberFields);
  const basis = basisOf([], () => [call.host.catalog.index.node(call.server.nodeName)]);
  const members = await filter(visible.node(call.server.nodeName) ? [memberOf(call, wide)] : []);
  return { json: LazyList.of(members, memberJson), filtered: visible.filtered, basis };
}

/** The services registered at this node, by id. */
async function services(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const filter = filterFor(call.readOptions(), agentServiceFields);
  const visible = await Visibility.of(call, "");
  await call.turn();
  const basis = ownBasis(call);
  const own = (await call.host.catalog.nodeContents(call.server.nodeName))?.services ?? [];
  await call.room(own.length * VIEW_BYTES);
  const views = listing(own, (service) => agentView(call, service));
  const shown = await filter(views, ({ service: { id, name } }) => id !== SERVER_ID && visible.service(name));
  const byId = listing(shown, ({ service }) => [service.id, service] as const);
  const json = LazyMap.of(byId, (service) => ownServiceJson(call, service));
  return { json, filtered: visible.filtered, basis };
}

/** All that answers about services of this node are made of. */
function ownBasis({ host, server }: Call): Basis {
  return basisOf(["config-entries"], nodeMarks(host, server.nodeName));
}

/** With the last result, which the catalog may not have yet. */
function withResult(call: Call, check: IndexedCheck): IndexedCheck {
  const result = call.host.checks.result(check.checkId);
  return result === undefined ? check : { ...check, ...result };
}

/** The checks that were registered at this node, by id. */
async function checks(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const filter = filterFor(call.readOptions(), checkFields);
  const visible = await Visibility.of(call, "");
  await call.turn();
  const onNode = (await call.host.catalog.nodeContents(call.server.nodeName))?.checks ?? [];
  await call.room(onNode.length * VIEW_BYTES);
  const views = listing(onNode, (check) => agentCheck(withResult(call, check)));
  const isSeen = ({ node, serviceId, serviceName }: IndexedCheck): boolean =>
    serviceId === "" ? visible.node(node) : visible.service(serviceName);
  const shown = await filter(views, ({ check }) => isOwnCheck(check) && isSeen(check));
  const byId = listing(shown, (view) => [view.check.checkId, view] as const);
  const json = LazyMap.of(byId, checkJson);
  return { json, filtered: visible.filtered };
}

/** One service of this node. Waits, given a `hash`, until its content is another one. */
async function service(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const options = call.readOptions();
  const access = await call.access();
  const { catalog, configEntries } = call.host;
  const { nodeName } = call.server;
  const id = call.rest;
  const asked = call.query.get("hash") ?? "";
  const basis = ownBasis(call);
  const read = (): { readonly hash: string; readonly json: LazyStruct } => {
    const found = catalog.service(nodeName, id);
    if (found === undefined) throw new HttpRefusal(404, `unknown service ID: ${id}`);
    access.require({ resource: "service", access: "read", name: found.name });
    const json = ownServiceJson(call, found);
    const hash = createHash("sha256").update(writeJson(json)).digest("hex").slice(0, HASH_DIGITS);
    return { hash, json: json.with("ContentHash", hash) };
  };
  const { result } = await blocking(
    call,
    { minIndex: asked === "" ? 0n : 1n, waitMs: options.waitMs },
    {
      // There is no index here: 2 stands for news.
      read: () => {
        const result = read();
        return { index: result.hash === asked ? 1n : 2n, result };
      },
      subscribe: (wake) => {
        const forget = [catalog.onChange(wake), configEntries.onChange(wake)];
        return () => {
          for (const stop of forget) stop();
        };
      },
    },
  );
  return { json: result.json, headers: { "X-Consul-Contenthash": result.hash }, basis };
}

const HASH_DIGITS = 16;

interface ServiceHealth {
  readonly status: string;
  readonly json: Json;
}

/** Tells of services of this node with their checks and those of the node, each with its last result. */
function healthReader(call: Call): (id: string) => ServiceHealth | undefined {
  const newest = (checks: readonly IndexedCheck[]): CheckGroup<IndexedCheck> => {
    const own = checks.filter(({ checkId }) => checkId !== MEMBERSHIP_CHECK).map((each) => withResult(call, each));
    return new CheckGroup(own.length, () => own);
  };
  // Those of the node are looked at once for all its services.
  const known = new Map<CheckGroup<IndexedCheck>, CheckGroup<IndexedCheck>>();
  const ofNode = (group: CheckGroup<IndexedCheck>): CheckGroup<IndexedCheck> => {
    const found = known.get(group) ?? newest(group.list);
    known.set(group, found);
    return found;
  };
  return (id) => {
    const instance = call.host.catalog.instance(call.server.nodeName, id);
    if (instance === undefined) return undefined;
    const held = groupsOf(instance);
    const groups = held === undefined ? [newest(instance.checks)] : [ofNode(held.ofNode), newest(held.own.list)];
    const status = aggregated(groups);
    const json = {
      AggregatedStatus: status,
      Service: ownServiceJson(call, instance.service),
      Checks: LazyList.of(joined(groups.map(({ list }) => list)), (check) => checkJson(agentCheck(check))),
    };
    return { status, json };
  };
}

/** Consul's order: maintenance, critical, warning, passing; a service without checks passes. */
function aggregated(groups: readonly CheckGroup<IndexedCheck>[]): string {
  if (groups.some(({ health }) => health.maintenance)) return "maintenance";
  return (
    ["critical", "warning"].find((status) => groups.some((group) => group.failing(status).length > 0)) ?? "passing"
  );
}

const HEALTH_STATUS: Readonly<Record<string, number>> = { passing: 200, warning: 429 };
const UNHEALTHY = 503;

/** A check status as a status of HTTP, for load balancers that look no further. */
function healthAnswer(call: Call, status: number, reason: string, json: Json): Answer {
  const accepted = call.header("accept") ?? "";
  const asText = accepted.startsWith("text/plain") || call.query.get("format") === "text";
  return {
    status,
    ...(asText ? { text: reason, textType: "text/plain" } : { json }),
    headers: { "X-Consul-Reason": toldText(reason) },
  };
}

async function healthById(call: Call): Promise<Answer> {
  const id = call.rest;
  if (id === "") throw badRequest("Missing serviceID");
  call.refuseNamespace();
  call.refusePartition();
  const access = await call.access();
  const found = call.host.catalog.service(call.server.nodeName, id);
  if (found !== undefined) access.require({ resource: "service", access: "read", name: found.name });
  const health = healthReader(call)(id);
  if (health === undefined) {
    const nothing = { AggregatedStatus: "critical", Service: null, Checks: null };
    return healthAnswer(call, 404, `ServiceId ${id} not found`, nothing);
  }
  return healthAnswer(call, HEALTH_STATUS[health.status] ?? UNHEALTHY, health.status, health.json);
}

async function healthByName(call: Call): Promise<Answer> {
  const name = call.rest;
  if (name === "") throw badRequest("Missing service Name");
  call.refuseNamespace();
  call.refusePartition();
  await call.require({ resource: "service", access: "read", name });
  await call.turn();
  const { catalog } = call.host;
  const own = catalog.instances(name).filter(({ node }) => lowerCase(node.name) === lowerCase(call.server.nodeName));
  await call.room(own.length * VIEW_BYTES);
  const read = healthReader(call);
  const all = await gathered(own, ({ service: { id } }) => {
    const health = read(id);
    return health === undefined ? [] : [health];
  });
  const statusOf = ({ status }: ServiceHealth): number => HEALTH_STATUS[status] ?? UNHEALTHY;
  const [worst] = [...all].sort((left, right) => statusOf(right) - statusOf(left));
  const json = all.map((each) => each.json);
  if (worst === undefined) return healthAnswer(call, 404, `ServiceName ${name} Not Found`, json);
  return healthAnswer(call, statusOf(worst), worst.status, json);
}

/** An agent has no index of its own services and checks. */
function agentCheck(check: IndexedCheck): CheckView {
  return { peer: "", check: { ...check, createIndex: 0n, modifyIndex: 0n } };
}

function agentView({ host }: Call, service: IndexedService): AgentServiceView {
  return { peer: "", service, datacenter: host.datacenter };
}

/** Of a proxy, what config entries make of it. */
function ownServiceJson(call: Call, registered: IndexedService): LazyStruct {
  const { host } = call;
  return agentServiceJson(
    agentView(call, withCentralConfig(asRegistered(host, registered), host.configEntries.entries)),
  );
}

/** Without the virtual address that the catalog adds: an agent does not know it. */
function asRegistered({ catalog }: PeeringHost, service: IndexedService): IndexedService {
  const { [VIRTUAL]: virtual, ...others } = service.taggedAddresses;
  const given = catalog.virtualIp(connectName(service) ?? "");
  return virtual === undefined || virtual.address !== given ? service : { ...service, taggedAddresses: others };
}

const formatParameter: ParameterDoc = {
  name: "format",
  in: "query",
  description: "`text`: the status alone. Also asked for by `Accept: text/plain`.",
};
const serviceHealthSchema: JsonSchema = objectOf({
  AggregatedStatus: text,
  Service: orNull(agentServiceSchema),
  Checks: orNull(listOf(checkSchema)),
});

/** The reads of Consul's clients about an agent: this node, its services and its checks. */
export const agentReadOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/agent/members",
    sources: ["catalog"],
    run: members,
    docs: [
      {
        path: "/v1/agent/members",
        id: "listMembers",
        summary: "The nodes of this cluster: this one.",
        parameters: [
          filterParameter,
          { name: "segment", in: "query", description: "Accepted when it is `_all`." },
          { name: "wan", in: "query", description: "`1`: as other datacenters know it, `<node>.<datacenter>`." },
        ],
        answer: listOf(memberSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/services",
    sources: ["catalog", "config-entries"],
    run: services,
    docs: [
      {
        path: "/v1/agent/services",
        id: "listOwnServices",
        summary: "The services of this node, by id.",
        parameters: [filterParameter],
        answer: mapOf(agentServiceSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/service/",
    sources: ["catalog", "config-entries"],
    run: service,
    docs: [
      {
        path: "/v1/agent/service/{id}",
        id: "readOwnService",
        summary: "One service of this node.",
        parameters: [
          { name: "hash", in: "query", description: "Waits until the content has another hash." },
          { name: "wait", in: "query", description: "How long to wait at most." },
        ],
        answer: agentServiceSchema,
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/health/service/id/",
    run: healthById,
    docs: [
      {
        path: "/v1/agent/health/service/id/{id}",
        id: "readOwnServiceHealth",
        summary: "How healthy one service of this node is: 200 passing, 429 warning, 503 critical or in maintenance.",
        parameters: [formatParameter],
        answer: serviceHealthSchema,
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/health/service/name/",
    run: healthByName,
    docs: [
      {
        path: "/v1/agent/health/service/name/{name}",
        id: "listOwnServiceHealth",
        summary: "How healthy the services of this node are that have a name; the worst of them decides.",
        parameters: [formatParameter],
        answer: listOf(serviceHealthSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/checks",
    run: checks,
    docs: [
      {
        path: "/v1/agent/checks",
        id: "listOwnChecks",
        summary: "The checks of the services of this node, by id.",
        parameters: [filterParameter],
        answer: mapOf(checkSchema),
      },
    ],
  },
];
