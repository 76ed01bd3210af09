import { Access } from "../access/authorizer.js";
import { inShortTurns, sortSteps } from "../base/turns.js";
import {
  checkPreparedQuery,
  HIDDEN_TOKEN,
  nearFirst,
  type PreparedQuery,
  type PreparedQueryInput,
  type QueryTarget,
} from "../config/prepared-query.js";
import { checksOf } from "../model/check-groups.js";
import { nearestNode, runQuery, type StoredQuery } from "../stores/prepared-queries.js";
import { durationProblem, parseDuration } from "../syntax/go-duration.js";
import {
  type GoType,
  goBool,
  goInt,
  goList,
  goMap,
  goOptional,
  goString,
  goStruct,
  goUint64,
} from "../syntax/go-json.js";
import { isUuid } from "../wire/uuid.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { connectInstancesOf, instancesOf, VIEW_BYTES } from "./discovery.js";
import { ownDatacenter } from "./discovery-options.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import { forEach } from "./in-turns.js";
import { type Json, LazyList } from "./json.js";
import type { JsonSchema, Operation } from "./operation.js";
import {
  anyObject,
  datacenterParameter,
  flag,
  index,
  listOf,
  objectOf,
  readParameters,
  text,
} from "./operation-docs.js";
import { consistencyOf, goBoolOf } from "./query.js";
import { type InstanceView, looseCheckJson, looseServiceJson, nodeJson } from "./records.js";
import { catalogBody } from "./registration-json.js";
import { bodySchema } from "./shape-json.js";
import { Visibility } from "./visibility.js";

// Prepared queries (Consul 1.21): stored under a name, they may fall back to peers.

interface TargetBody {
  readonly Peer: string;
  readonly Datacenter: string;
}

interface QueryBody {
  readonly ID: string;
  readonly Name: string;
  readonly Session: string;
  readonly Token: string;
  readonly Template: { readonly Type: string; readonly Regexp: string; readonly RemoveEmptyTags: boolean };
  readonly Service: {
    readonly Service: string;
    readonly SamenessGroup: string;
    readonly Failover: {
      readonly NearestN: number;
      readonly Datacenters: readonly string[] | undefined;
      readonly Targets: readonly TargetBody[] | undefined;
    };
    readonly OnlyPassing: boolean;
    readonly IgnoreCheckIDs: readonly string[] | undefined;
    readonly Near: string;
    readonly Tags: readonly string[] | undefined;
    readonly NodeMeta: Readonly<Record<string, string>> | undefined;
    readonly ServiceMeta: Readonly<Record<string, string>> | undefined;
    readonly Connect: boolean;
    readonly Peer: string;
  };
  readonly DNS: { readonly TTL: string };
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

const bodyType: GoType<QueryBody> = goStruct<QueryBody>("structs.PreparedQuery", {
  ID: goString,
  Name: goString,
  Session: goString,
  Token: goString,
  Template: goStruct<QueryBody["Template"]>("structs.QueryTemplateOptions", {
    Type: goString,
    Regexp: goString,
    RemoveEmptyTags: goBool,
  }),
  Service: goStruct<QueryBody["Service"]>("structs.ServiceQuery", {
    Service: goString,
    SamenessGroup: goString,
    Failover: goStruct<QueryBody["Service"]["Failover"]>("structs.QueryFailoverOptions", {
      NearestN: goInt,
      Datacenters: goOptional(goList(goString)),
      Targets: goOptional(
        goList(goStruct<TargetBody>("structs.QueryFailoverTarget", { Peer: goString, Datacenter: goString })),
      ),
    }),
    OnlyPassing: goBool,
    IgnoreCheckIDs: goOptional(goList(goString)),
    Near: goString,
    Tags: goOptional(goList(goString)),
    NodeMeta: goOptional(goMap(goString)),
    ServiceMeta: goOptional(goMap(goString)),
    Connect: goBool,
    Peer: goString,
  }),
  DNS: goStruct<QueryBody["DNS"]>("structs.QueryDNSOptions", { TTL: goString }),
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
});

/** Absent or `null` stays that in answers, and an empty list stays an empty list. @throws {HttpRefusal} 500 with Consul's text. */
function queryInput({ Name: name, Session, Token, Template, Service, DNS }: QueryBody): PreparedQueryInput {
  const refuse = (why: string): HttpRefusal => new HttpRefusal(500, `Invalid prepared query: ${why}`);
  const { NearestN, Datacenters, Targets } = Service.Failover;
  const ttl = DNS.TTL === "" ? 0 : parseDuration(DNS.TTL);
  const template = { type: Template.Type, regexp: Template.Regexp, removeEmptyTags: Template.RemoveEmptyTags };
  const input: PreparedQueryInput = {
    name,
    ...((Template.Type !== "" || Template.Regexp !== "" || Template.RemoveEmptyTags) && { template }),
    ...(Token !== "" && { token: Token }),
    service: {
      name: Service.Service,
      ...(Service.Peer !== "" && { peer: Service.Peer }),
      ...(Service.Near !== "" && { near: Service.Near }),
      ...(NearestN !== 0 && { nearestDatacenters: NearestN }),
      ...(Datacenters !== undefined && { datacenters: Datacenters }),
      ...(Targets !== undefined && {
        targets: Targets.map(
          ({ Peer: peer, Datacenter: datacenter }): QueryTarget => ({
            ...(peer !== "" && { peer }),
            ...(datacenter !== "" && { datacenter }),
          }),
        ),
      }),
      onlyPassing: Service.OnlyPassing,
      ...(Service.IgnoreCheckIDs !== undefined && { ignoreCheckIds: Service.IgnoreCheckIDs }),
      ...(Service.Tags !== undefined && { tags: Service.Tags }),
      ...(Service.NodeMeta !== undefined && { nodeMeta: Service.NodeMeta }),
      ...(Service.ServiceMeta !== undefined && { serviceMeta: Service.ServiceMeta }),
      connect: Service.Connect,
    },
    ...(ttl !== undefined && DNS.TTL !== "" && { ttl: { text: DNS.TTL, seconds: Math.floor(ttl / 1_000) } }),
  };
  checkPreparedQuery({ ...input, name: name || Session });
  if (Service.SamenessGroup !== "") throw refuse("sameness-groups are an enterprise-only feature");
  if (ttl === undefined) throw refuse(`Bad DNS TTL '${DNS.TTL}': ${durationProblem(DNS.TTL)}`);
  if (ttl < 0) throw refuse(`DNS TTL '${Math.round(ttl * 1e6)}', must be >=0`);
  // There are no sessions here, so no id is one.
  if (Session !== "") throw new HttpRefusal(500, `raft apply failed: invalid session ${JSON.stringify(Session)}`);
  return input;
}

function orNull<Item extends Json>(items: readonly Item[] | undefined): Json {
  return items ?? null;
}

function mapOrNull(values: Readonly<Record<string, string>> | undefined): Json {
  return values === undefined ? null : new Map(Object.entries(values));
}

/** @param access - of the caller: tokens are shown only to callers that may write ACLs, as in Consul. */
function queryJson({ query, createIndex, modifyIndex }: StoredQuery, access: Access): Json {
  const { id, name, template, token = "", service, ttl } = query;
  const shown = token === "" || access.may({ resource: "acl", access: "write" });
  return {
    ID: id,
    Name: name,
    Session: "",
    Token: shown ? token : HIDDEN_TOKEN,
    Template: {
      Type: template?.type ?? "",
      Regexp: template?.regexp ?? "",
      RemoveEmptyTags: template?.removeEmptyTags ?? false,
    },
    Service: {
      Service: service.name,
      SamenessGroup: "",
      Failover: {
        NearestN: service.nearestDatacenters ?? 0,
        Datacenters: orNull(service.datacenters),
        Targets: orNull(
          service.targets?.map(({ peer = "", datacenter = "" }) => ({ Peer: peer, Datacenter: datacenter })),
        ),
      },
      OnlyPassing: service.onlyPassing ?? false,
      IgnoreCheckIDs: orNull(service.ignoreCheckIds),
      Near: service.near ?? "",
      Tags: orNull(service.tags),
      NodeMeta: mapOrNull(service.nodeMeta),
      ServiceMeta: mapOrNull(service.serviceMeta),
      Connect: service.connect ?? false,
      Peer: service.peer ?? "",
    },
    DNS: { TTL: ttl?.text ?? "" },
    CreateIndex: createIndex,
    ModifyIndex: modifyIndex,
  };
}

async function create(call: Call): Promise<Answer> {
  const body = await catalogBody(call, bodyType, () => "");
  ownDatacenter(call);
  if (body.ID !== "") throw new HttpRefusal(500, "ID must be empty when creating a new prepared query");
  const input = queryInput(body);
  await call.require({ resource: "query", access: "write", name: input.name });
  return { json: { ID: await call.host.queries.create(input) } };
}

async function list(call: Call): Promise<Answer> {
  const options = call.readOptions();
  ownDatacenter(call);
  const access = await call.access();
  const { queries } = call.host;
  const query = {
    read: () => ({ index: queries.index, result: queries.list() }),
    subscribe: (wake: () => void) => queries.onChange(wake),
  };
  return call.answer(options, query, async ({ index, result }) => {
    const visible = result.filter(({ query }) => access.may({ resource: "query", access: "read", name: query.name }));
    return {
      json: LazyList.of(visible, (stored) => queryJson(stored, access)),
      read: { index, consistency: consistencyOf(options), filtered: visible.length < result.length },
    };
  });
}

async function readOne(call: Call): Promise<Answer> {
  ownDatacenter(call);
  const options = call.readOptions();
  const id = call.rest;
  if (!isUuid(id)) {
    throw new HttpRefusal(500, "failed prepared query lookup: index error: UUID must be 36 characters");
  }
  const { queries } = call.host;
  const query = {
    read: () => ({ index: queries.index, result: queries.get(id), found: queries.get(id) !== undefined }),
    subscribe: (wake: () => void) => queries.onChange(wake),
  };
  return call.answer(options, query, async ({ index, result }) => {
    if (result === undefined) throw unknown();
    await call.require({ resource: "query", access: "read", name: result.query.name });
    return { json: [queryJson(result, await call.access())], read: { index, consistency: consistencyOf(options) } };
  });
}

const NO_QUERY = "Query not found";

function unknown(): HttpRefusal {
  return new HttpRefusal(404, NO_QUERY);
}

async function execute(call: Call): Promise<Answer> {
  ownDatacenter(call);
  const options = call.readOptions();
  const consistency = consistencyOf(options);
  const limit = limitOf(call);
  const forced = connectOf(call);
  const caller = await call.access();
  await call.turn();
  const { host, server } = call;
  const query = host.queries.find(call.rest)?.query;
  // Consul's cache tells the failure, and no longer which one it was.
  if (query === undefined) throw options.cached ? new HttpRefusal(500, NO_QUERY) : unknown();
  const { name, connect = false } = query.service;
  const access = query.token === undefined ? caller : await Access.of(server.authorizer, query.token);
  let filtered = false;
  const result = await runQuery(query, host.datacenter, async (peer) => {
    const visible = new Visibility(access, peer);
    const instances = await (connect || forced ? connectInstancesOf(call, peer, name) : instancesOf(call, peer, name));
    await call.room(instances.length * VIEW_BYTES);
    const shown: InstanceView[] = [];
    await forEach(instances, (view) => {
      if (visible.instance(view)) shown.push(view);
    });
    filtered ||= visible.filtered;
    return shown;
  });
  const order = result.instances.map((view) => ({ view, at: server.random.fraction() }));
  const sorted = await inShortTurns(sortSteps(order, (left, right) => left.at - right.at));
  const shuffled = sorted.map(({ view }) => view);
  const source = { near: call.query.get("near") ?? "", address: call.source };
  const nearest = result.peer === "" ? nearFirst(shuffled, nearestNode(query, source, host)) : shuffled;
  return {
    json: {
      Service: name,
      Nodes: LazyList.of(limit === 0 ? nearest : nearest.slice(0, limit), instanceJson),
      DNS: { TTL: query.ttl?.text ?? "" },
      Datacenter: result.datacenter,
      PeerName: result.peer,
      Failovers: result.failovers,
      ...readJson(consistency, filtered),
    },
    read: { index: 1n, consistency, filtered },
  };
}

async function explain(call: Call): Promise<Answer> {
  ownDatacenter(call);
  const consistency = consistencyOf(call.readOptions());
  limitOf(call);
  const access = await call.access();
  const stored = call.host.queries.find(call.rest);
  if (stored === undefined) throw unknown();
  await call.require({ resource: "query", access: "read", name: stored.query.name });
  return {
    json: { Query: queryJson(stored, access), ...readJson(consistency, false) },
    read: { index: 1n, consistency },
  };
}

function readJson(consistency: string, filtered: boolean): { readonly [key: string]: Json } {
  return {
    Index: 1,
    LastContact: 0,
    KnownLeader: true,
    ConsistencyLevel: consistency,
    NotModified: false,
    Backend: 0,
    ResultsFilteredByACLs: filtered,
  };
}

/** As in health, but that lists without items are null. */
function instanceJson(view: InstanceView): Json {
  const { peer } = view;
  const checks = checksOf(view);
  return {
    Node: nodeJson(view),
    Service: looseServiceJson(view),
    Checks: checks.length === 0 ? null : LazyList.of(checks, (check) => looseCheckJson({ peer, check })),
  };
}

/** 0: none. @throws {HttpRefusal} 500 with Consul's text. */
function limitOf(call: Call): number {
  const given = call.query.get("limit") ?? "";
  if (given === "") return 0;
  const limit = /^[+-]?\d{1,15}$/.test(given) ? Number(given) : undefined;
  if (limit === undefined) {
    throw new HttpRefusal(500, `Bad limit: strconv.Atoi: parsing ${JSON.stringify(given)}: invalid syntax`);
  }
  return Math.max(limit, 0);
}

/** Whether the caller wants who speaks for the service in the mesh, whatever the query says. @throws {HttpRefusal} 500 with Consul's text. */
function connectOf(call: Call): boolean {
  const given = call.query.get("connect") ?? "";
  const wanted = given === "" ? false : goBoolOf(given);
  if (wanted !== undefined) return wanted;
  const problem = `strconv.ParseBool: parsing ${JSON.stringify(given)}: invalid syntax`;
  throw new HttpRefusal(500, `Error parsing 'connect' value: ${problem}`);
}

async function update(call: Call): Promise<Answer> {
  const body = await catalogBody(call, bodyType, () => "");
  ownDatacenter(call);
  const id = idInPath(call);
  // Ids compare without case.
  const query: PreparedQuery = { ...queryInput(body), id: call.host.queries.get(id)?.query.id ?? id };
  await requireWrite(call, query.id);
  await call.require({ resource: "query", access: "write", name: query.name });
  await call.host.queries.update(query);
  return {};
}

async function remove(call: Call): Promise<Answer> {
  ownDatacenter(call);
  const id = idInPath(call);
  await requireWrite(call, id);
  await call.host.queries.delete(id);
  return {};
}

/** The right to write the stored query. That a query is missing is shown only to callers that could write it. */
async function requireWrite(call: Call, id: string): Promise<void> {
  const known = call.host.queries.get(id);
  await call.require({ resource: "query", access: "write", name: known?.query.name ?? "" });
}

function idInPath(call: Call): string {
  if (call.rest === "") throw badRequest("Missing query ID");
  return call.rest;
}

const readMembers: Readonly<Record<string, JsonSchema>> = {
  Index: index,
  LastContact: index,
  KnownLeader: flag,
  ConsistencyLevel: text,
  NotModified: flag,
  Backend: index,
  ResultsFilteredByACLs: flag,
};

/** `/v1/query`. */
export const queryOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/query",
    run: list,
    docs: [
      {
        path: "/v1/query",
        id: "listQueries",
        summary: "The prepared queries.",
        parameters: [...readParameters, datacenterParameter],
        answer: listOf(anyObject),
      },
    ],
  },
  {
    method: "POST",
    pattern: "/v1/query",
    run: create,
    docs: [
      {
        path: "/v1/query",
        id: "createQuery",
        summary: "Keeps a query under a name.",
        parameters: [datacenterParameter],
        body: bodySchema(bodyType.form),
        answer: objectOf({ ID: text }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/query/*/execute",
    cacheable: true,
    run: execute,
    docs: [
      {
        path: "/v1/query/{query}/execute",
        id: "executeQuery",
        summary:
          "The instances that a query, by id or name, finds now, at home or at the first of its targets that has any.",
        parameters: [
          ...readParameters,
          datacenterParameter,
          { name: "near", in: "query", description: "The node whose instances come first: a name, `_agent` or `_ip`." },
          { name: "limit", in: "query", description: "So many instances at most." },
          { name: "connect", in: "query", description: "Whether to look for the proxies of the service." },
        ],
        answer: objectOf({
          Service: text,
          Nodes: listOf(anyObject),
          DNS: objectOf({ TTL: text }),
          Datacenter: text,
          PeerName: text,
          Failovers: index,
          ...readMembers,
        }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/query/*/explain",
    run: explain,
    docs: [
      {
        path: "/v1/query/{query}/explain",
        id: "explainQuery",
        summary: "The query that a name or an id stands for; a template as it is rendered for the name.",
        parameters: [...readParameters, datacenterParameter],
        answer: objectOf({ Query: anyObject, ...readMembers }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/query/",
    run: readOne,
    docs: [
      {
        path: "/v1/query/{query}",
        id: "readQuery",
        summary: "A prepared query, by id, as the one item of a list.",
        parameters: [...readParameters, datacenterParameter],
        answer: listOf(anyObject),
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/query/",
    run: update,
    docs: [
      {
        path: "/v1/query/{query}",
        id: "updateQuery",
        summary: "Replaces a prepared query.",
        parameters: [datacenterParameter],
        body: bodySchema(bodyType.form),
      },
    ],
  },
  {
    method: "DELETE",
    pattern: "/v1/query/",
    run: remove,
    docs: [
      {
        path: "/v1/query/{query}",
        id: "deleteQuery",
        summary: "Deletes a prepared query.",
        parameters: [datacenterParameter],
      },
    ],
  },
];
