import type { PreparedQuery, PreparedQueryInput, QueryTarget } from "../catalog/prepared-query.js";
import { runQuery, type StoredQuery } from "../host/prepared-queries.js";
import { parseDuration } from "../syntax/go-duration.js";
import {
  type GoJson,
  type GoType,
  goAny,
  goBool,
  goInt,
  goList,
  goMap,
  goString,
  goStruct,
} from "../syntax/go-json.js";
import { isUuid } from "../wire/uuid.js";
import type { Answer, Call } from "./call.js";
import { connectInstancesOf, instancesOf, ownDatacenter, Visibility } from "./discovery.js";
import { badRequest, HttpError } from "./http-error.js";
import type { Json } from "./json.js";
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
import { checkJson, type InstanceView, nodeJson, serviceJson } from "./records-json.js";
import { catalogBody } from "./registration-json.js";
import type { JsonSchema, Operation } from "./routes.js";

// Prepared queries (specification 4.5.6, Consul 1.21): questions kept under a name, which may fall back to peers.

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
      readonly Datacenters: readonly string[];
      readonly Targets: readonly TargetBody[];
      readonly SkipLocalDatacenter: boolean;
    };
    readonly IncludeAll: boolean;
    readonly OnlyPassing: boolean;
    readonly IgnoreCheckIDs: readonly string[];
    readonly Near: string;
    readonly Tags: readonly string[];
    readonly NodeMeta: Readonly<Record<string, string>>;
    readonly ServiceMeta: Readonly<Record<string, string>>;
    readonly Connect: boolean;
    readonly Peer: string;
  };
  readonly DNS: { readonly TTL: string };
  readonly CreateIndex: GoJson;
  readonly ModifyIndex: GoJson;
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
      Datacenters: goList(goString),
      Targets: goList(goStruct<TargetBody>("structs.QueryFailoverTarget", { Peer: goString, Datacenter: goString })),
      SkipLocalDatacenter: goBool,
    }),
    IncludeAll: goBool,
    OnlyPassing: goBool,
    IgnoreCheckIDs: goList(goString),
    Near: goString,
    Tags: goList(goString),
    NodeMeta: goMap(goString),
    ServiceMeta: goMap(goString),
    Connect: goBool,
    Peer: goString,
  }),
  DNS: goStruct<QueryBody["DNS"]>("structs.QueryDNSOptions", { TTL: goString }),
  CreateIndex: goAny,
  ModifyIndex: goAny,
});

/** @throws {HttpError} 500 with Consul's text, or ours for what is not served. */
function queryInput({ Name: name, Session, Token, Template, Service, DNS }: QueryBody): PreparedQueryInput {
  const refuse = (why: string): HttpError => new HttpError(500, `Invalid prepared query: ${why}`);
  if (Session !== "") throw refuse("sessions are not supported");
  if (Token !== "") throw refuse("a token of its own is not supported");
  if (Template.Type !== "") throw refuse("templates are not supported");
  if (Service.SamenessGroup !== "") throw refuse("sameness groups are not supported in consul CE");
  const { NearestN, Datacenters, Targets } = Service.Failover;
  if (NearestN < 0) throw refuse(`Bad NearestN '${NearestN}', must be >= 0`);
  if (Targets.length > 0 && (NearestN !== 0 || Datacenters.length > 0)) {
    throw refuse("Targets cannot be populated with NearestN or Datacenters");
  }
  const ttl = DNS.TTL === "" ? 0 : parseDuration(DNS.TTL);
  if (ttl === undefined) throw refuse(`Bad DNS TTL '${DNS.TTL}': time: invalid duration ${JSON.stringify(DNS.TTL)}`);
  if (ttl < 0) throw refuse(`DNS TTL '${Math.round(ttl * 1e6)}', must be >=0`);
  return {
    name,
    service: {
      name: Service.Service,
      ...(Service.Peer !== "" && { peer: Service.Peer }),
      targets: [
        ...Datacenters.map((datacenter) => ({ datacenter })),
        ...Targets.map(
          ({ Peer: peer, Datacenter: datacenter }): QueryTarget => ({
            ...(peer !== "" && { peer }),
            ...(datacenter !== "" && { datacenter }),
          }),
        ),
      ],
      onlyPassing: Service.OnlyPassing,
      ignoreCheckIds: Service.IgnoreCheckIDs,
      tags: Service.Tags,
      nodeMeta: Service.NodeMeta,
      serviceMeta: Service.ServiceMeta,
      connect: Service.Connect,
    },
    ...(DNS.TTL !== "" && { ttl: { text: DNS.TTL, seconds: Math.floor(ttl / 1_000) } }),
  };
}

function orNull<Item extends Json>(items: readonly Item[] = []): Json {
  return items.length === 0 ? null : items;
}

function mapOrNull(values: Readonly<Record<string, string>> = {}): Json {
  const entries = Object.entries(values);
  return entries.length === 0 ? null : new Map(entries);
}

function queryJson({ query, createIndex, modifyIndex }: StoredQuery): Json {
  const { id, name, service, ttl } = query;
  const targets = (service.targets ?? []).map(({ peer = "", datacenter = "" }) => ({
    Peer: peer,
    Datacenter: datacenter,
  }));
  return {
    ID: id,
    Name: name,
    Session: "",
    Token: "",
    Template: { Type: "", Regexp: "", RemoveEmptyTags: false },
    Service: {
      Service: service.name,
      SamenessGroup: "",
      Failover: { SkipLocalDatacenter: false, NearestN: 0, Datacenters: null, Targets: orNull(targets) },
      IncludeAll: false,
      OnlyPassing: service.onlyPassing ?? false,
      IgnoreCheckIDs: orNull(service.ignoreCheckIds),
      Near: "",
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
  const body = await catalogBody(call, bodyType);
  ownDatacenter(call);
  if (body.ID !== "") throw new HttpError(500, "ID must be empty when creating a new prepared query");
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
      json: visible.map(queryJson),
      read: { index, consistency: "leader", filtered: visible.length < result.length },
    };
  });
}

/** `<id>`, `<id or name>/execute`, `<id or name>/explain`. */
async function readOne(call: Call): Promise<Answer> {
  ownDatacenter(call);
  const executed = /^(.+)\/(execute|explain)$/s.exec(call.rest);
  const [, idOrName = "", what] = executed ?? [];
  if (what === "execute") return execute(call, idOrName);
  if (what === "explain") return explain(call, idOrName);
  const options = call.readOptions();
  const id = call.rest;
  if (!isUuid(id)) {
    throw new HttpError(500, "failed prepared query lookup: index error: UUID must be 36 characters");
  }
  const { queries } = call.host;
  const query = {
    read: () => ({ index: queries.index, result: queries.get(id), found: queries.get(id) !== undefined }),
    subscribe: (wake: () => void) => queries.onChange(wake),
  };
  return call.answer(options, query, async ({ index, result }) => {
    if (result === undefined) throw unknown();
    await call.require({ resource: "query", access: "read", name: result.query.name });
    return { json: [queryJson(result)], read: { index, consistency: "leader" } };
  });
}

function unknown(): HttpError {
  return new HttpError(404, "Query not found");
}

async function execute(call: Call, idOrName: string): Promise<Answer> {
  const limit = limitOf(call);
  await call.access();
  await call.turn();
  const { host, server } = call;
  const query = host.queries.find(idOrName)?.query;
  if (query === undefined) throw unknown();
  const { name, connect = false } = query.service;
  let filtered = false;
  const result = await runQuery(query, host.datacenter, async (peer) => {
    const visible = await Visibility.of(call, peer);
    const instances = await (connect ? connectInstancesOf(host, peer, name) : instancesOf(host, peer, name));
    const shown = instances.filter((view) => visible.instance(view));
    filtered ||= visible.filtered;
    return shown;
  });
  const order = result.instances.map((view) => ({ view, at: server.random.fraction() }));
  const nodes = order.sort((left, right) => left.at - right.at).map(({ view }) => instanceJson(view));
  return {
    json: {
      Service: name,
      Nodes: limit === 0 ? nodes : nodes.slice(0, limit),
      DNS: { TTL: query.ttl?.text ?? "" },
      Datacenter: result.datacenter,
      PeerName: result.peer,
      Failovers: result.failovers,
      ...readJson(filtered),
    },
    read: { index: 1n, consistency: "leader", filtered },
  };
}

async function explain(call: Call, idOrName: string): Promise<Answer> {
  await call.access();
  const stored = call.host.queries.find(idOrName);
  if (stored === undefined) throw unknown();
  await call.require({ resource: "query", access: "read", name: stored.query.name });
  return { json: { Query: queryJson(stored), ...readJson(false) }, read: { index: 1n, consistency: "leader" } };
}

function readJson(filtered: boolean): { readonly [key: string]: Json } {
  return {
    Index: 1,
    LastContact: 0,
    KnownLeader: true,
    ConsistencyLevel: "leader",
    NotModified: false,
    Backend: 0,
    ResultsFilteredByACLs: filtered,
  };
}

/** As in health, but that lists without items are null. */
function instanceJson(view: InstanceView): Json {
  const { peer, service, checks } = view;
  return {
    Node: nodeJson(view),
    Service: { ...serviceJson(view), Tags: orNull(service.tags) },
    Checks: orNull(checks.map((check) => ({ ...checkJson({ peer, check }), ServiceTags: orNull(check.serviceTags) }))),
  };
}

/** 0: none. @throws {HttpError} 500 with Consul's text. */
function limitOf(call: Call): number {
  const given = call.query.get("limit") ?? "";
  if (given === "") return 0;
  const limit = /^[+-]?\d{1,15}$/.test(given) ? Number(given) : undefined;
  if (limit === undefined) {
    throw new HttpError(500, `Bad limit: strconv.Atoi: parsing ${JSON.stringify(given)}: invalid syntax`);
  }
  return Math.max(limit, 0);
}

async function update(call: Call): Promise<Answer> {
  const body = await catalogBody(call, bodyType);
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

/** Of the query as it is. What does not exist is told to whoever may write its likes. */
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

/** `/v1/query` (specification 4.5.6). */
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
        body: anyObject,
        answer: objectOf({ ID: text }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/query/",
    run: readOne,
    docs: [
      {
        path: "/v1/query/{query}/execute",
        id: "executeQuery",
        summary: "What a query, by id or name, finds now, at home or at the first of its targets that has anything.",
        parameters: [datacenterParameter, { name: "limit", in: "query", description: "So many instances at most." }],
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
      {
        path: "/v1/query/{query}/explain",
        id: "explainQuery",
        summary: "The query that a name or an id stands for.",
        parameters: [datacenterParameter],
        answer: objectOf({ Query: anyObject, ...readMembers }),
      },
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
        body: anyObject,
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
