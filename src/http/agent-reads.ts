import type { Answer, Call } from "./call.js";
import { filterFor, ownDatacenter, Visibility } from "./discovery.js";
import { badRequest } from "./http-error.js";
import { type Json, textMap } from "./json.js";
import { listOf } from "./operation-docs.js";
import { checkSchema, mapOf, ownServiceSchema } from "./record-docs.js";
import { checkFields, serviceFields } from "./record-fields.js";
import {
  addressesJson,
  type CheckView,
  checkJson,
  connectJson,
  localityJson,
  portsJson,
  proxyJson,
  type ServiceView,
} from "./records-json.js";
import type { Operation, ParameterDoc } from "./routes.js";
import { memberJson, memberSchema } from "./system.js";

/** The one node that this cluster has. */
async function members(call: Call): Promise<Answer> {
  const segment = call.query.get("segment") ?? "";
  if (segment !== "" && segment !== "_all") {
    throw badRequest("Network segments are not supported in this version of Consul");
  }
  const visible = await Visibility.of(call, "");
  const json = visible.node(call.server.nodeName) ? [memberJson(call)] : [];
  return { json, filtered: visible.filtered };
}

/** The node's own server is no service that somebody registered at it; Consul does not list it here either. */
const SERVER_ID = "consul";

/** What was registered at this node, by id. */
async function services(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  ownDatacenter(call);
  const filter = filterFor(call.readOptions(), serviceFields);
  const visible = await Visibility.of(call, "");
  const views = (call.host.catalog.node(call.server.nodeName)?.services ?? [])
    .filter(({ id, name }) => id !== SERVER_ID && visible.service(name))
    .map((service): ServiceView => ({ peer: "", service }));
  const kept = await filter(views);
  const { datacenter } = call.host;
  const json = new Map(kept.map(({ service }) => [service.id, agentServiceJson(service, datacenter)]));
  return { json, filtered: visible.filtered };
}

/** The checks of what was registered at this node, by id. */
async function checks(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  ownDatacenter(call);
  const filter = filterFor(call.readOptions(), checkFields);
  const visible = await Visibility.of(call, "");
  const views = (call.host.catalog.node(call.server.nodeName)?.checks ?? [])
    .filter(({ serviceId }) => serviceId !== "" && serviceId !== SERVER_ID)
    .map((check): CheckView => ({ peer: "", check }))
    .filter(({ check }) => visible.service(check.serviceName));
  const json = new Map((await filter(views)).map((view) => [view.check.checkId, checkJson(view)]));
  return { json, filtered: visible.filtered };
}

/** Consul's `AgentService` (1.21). */
function agentServiceJson(service: ServiceView["service"], datacenter: string): Json {
  return {
    Kind: service.kind || undefined,
    ID: service.id,
    Service: service.name,
    Tags: service.tags,
    Meta: textMap(service.meta),
    Port: service.port,
    Ports: portsJson(service.ports),
    Address: service.address,
    SocketPath: service.socketPath || undefined,
    TaggedAddresses: addressesJson(service.taggedAddresses),
    Weights: { Passing: service.weights.passing, Warning: service.weights.warning },
    EnableTagOverride: service.enableTagOverride,
    Proxy: service.kind === "" ? undefined : proxyJson(service.proxy),
    Connect: service.connect?.native === true ? connectJson(service.connect) : undefined,
    Datacenter: datacenter,
    Locality: localityJson(service.locality),
  };
}

const filterParameter: ParameterDoc = {
  name: "filter",
  in: "query",
  description: "An expression of go-bexpr over the records.",
};

/** What Consul's clients ask an agent about itself: this node, and what is registered at it. */
export const agentReadOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/agent/members",
    run: members,
    docs: [
      {
        path: "/v1/agent/members",
        id: "listMembers",
        summary: "The nodes of this cluster: this one.",
        parameters: [{ name: "segment", in: "query", description: "Accepted when it is `_all`." }],
        answer: listOf(memberSchema),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/services",
    run: services,
    docs: [
      {
        path: "/v1/agent/services",
        id: "listOwnServices",
        summary: "The services of this node, by id.",
        parameters: [filterParameter],
        answer: mapOf(ownServiceSchema),
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
