import {
  MAX_TRANSACTION_OPERATIONS,
  TransactionError,
  type TransactionOperation,
  type TransactionVerb,
} from "../catalog/registration.js";
import { PeeringError } from "../errors.js";
import type { TransactionResult } from "../host/catalog.js";
import {
  decodeGo,
  type GoJson,
  GoJsonError,
  type GoType,
  goAny,
  goList,
  goOptional,
  goString,
  goStruct,
} from "../syntax/go-json.js";
import type { Answer, Call } from "./call.js";
import { ownDatacenter } from "./discovery.js";
import { badRequest, HttpError, refusalOf } from "./http-error.js";
import type { Json } from "./json.js";
import { anyObject, listOf, objectOf } from "./operation-docs.js";
import { checkJson, nodeJson, serviceJson } from "./records-json.js";
import {
  type CheckBody,
  checkRegistration,
  checkType,
  type NodeBody,
  nodeRegistration,
  nodeType,
  type ServiceBody,
  serviceRegistration,
  serviceType,
} from "./registration-json.js";
import type { Operation } from "./routes.js";

interface OperationBody {
  readonly Node: { readonly Verb: string; readonly Node: NodeBody } | undefined;
  readonly Service: { readonly Verb: string; readonly Node: string; readonly Service: ServiceBody } | undefined;
  readonly Check: { readonly Verb: string; readonly Check: CheckBody } | undefined;
  readonly KV: GoJson;
  readonly Intention: GoJson;
}

const operationType: GoType<OperationBody> = goStruct<OperationBody>("api.TxnOp", {
  Node: goOptional(
    goStruct<{ readonly Verb: string; readonly Node: NodeBody }>("api.NodeTxnOp", { Verb: goString, Node: nodeType }),
  ),
  Service: goOptional(
    goStruct<{ readonly Verb: string; readonly Node: string; readonly Service: ServiceBody }>("api.ServiceTxnOp", {
      Verb: goString,
      Node: goString,
      Service: serviceType,
    }),
  ),
  Check: goOptional(
    goStruct<{ readonly Verb: string; readonly Check: CheckBody }>("api.CheckTxnOp", {
      Verb: goString,
      Check: checkType,
    }),
  ),
  KV: goAny,
  Intention: goAny,
});

const verbs: ReadonlySet<string> = new Set<TransactionVerb>(["get", "set", "cas", "delete", "delete-cas"]);

function isVerb(verb: string): verb is TransactionVerb {
  return verbs.has(verb);
}

function verbOf(type: string, verb: string): TransactionVerb {
  if (isVerb(verb)) return verb;
  throw new PeeringError("invalid-registration", `unknown ${type} operation: ${verb}`);
}

/** @throws {PeeringError} `invalid-registration`, {@link HttpError}: what is no operation of a catalog. */
function operationOf({ Node: node, Service: service, Check: check }: OperationBody): TransactionOperation {
  if (node !== undefined) {
    const verb = verbOf("node", node.Verb);
    return { type: "node", verb, node: nodeRegistration(node.Node), modifyIndex: node.Node.ModifyIndex };
  }
  if (service !== undefined) {
    return {
      type: "service",
      verb: verbOf("service", service.Verb),
      node: service.Node,
      service: serviceRegistration(service.Service),
      modifyIndex: service.Service.ModifyIndex,
    };
  }
  if (check !== undefined) {
    const verb = verbOf("check", check.Verb);
    return { type: "check", verb, check: checkRegistration(check.Check), modifyIndex: check.Check.ModifyIndex };
  }
  throw new PeeringError("invalid-registration", "only node, service and check operations are supported");
}

interface Fault {
  readonly OpIndex: number;
  readonly What: string;
}

async function transaction(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const body = await call.body();
  let bodies: readonly OperationBody[];
  try {
    bodies = decodeGo(body, goList(operationType));
  } catch (error) {
    if (error instanceof GoJsonError) throw badRequest(`Failed to parse body: ${error.message}`);
    throw error;
  }
  ownDatacenter(call);
  if (bodies.length > MAX_TRANSACTION_OPERATIONS) {
    const count = `${bodies.length} > ${MAX_TRANSACTION_OPERATIONS}`;
    throw new HttpError(413, `Transaction contains too many operations (${count})`);
  }
  const operations: TransactionOperation[] = [];
  const faults: Fault[] = [];
  for (const [index, operation] of bodies.entries()) {
    try {
      const parsed = operationOf(operation);
      await requireOperation(call, parsed);
      operations.push(parsed);
    } catch (error) {
      faults.push({ OpIndex: index, What: refusalOf(error).text });
    }
  }
  if (faults.length > 0) return conflict(faults);
  const readOnly = operations.every(({ verb }) => verb === "get");
  try {
    const { index, results } = await call.host.catalog.transaction(operations);
    const json = { Results: results.map(resultJson), Errors: null };
    if (!readOnly) return { json };
    return { json: { ...json, ...queryMeta(index) }, read: { index } };
  } catch (error) {
    if (!(error instanceof TransactionError)) throw error;
    return conflict(error.errors.map(({ operationIndex, what }) => ({ OpIndex: operationIndex, What: what })));
  }
}

function conflict(faults: readonly Fault[]): Answer {
  return { status: 409, json: { Results: null, Errors: faults.map((fault) => ({ ...fault })) } };
}

/** @throws {HttpError} 403 that names the missing right. */
async function requireOperation(call: Call, operation: TransactionOperation): Promise<void> {
  const access = operation.verb === "get" ? "read" : "write";
  const { catalog } = call.host;
  switch (operation.type) {
    case "node":
      return call.require({ resource: "node", access, name: operation.node.name });
    case "service": {
      // Also the name that it has now: nobody may take over another's instance.
      const { id, name } = operation.service;
      const known = catalog.node(operation.node)?.services.find((service) => service.id === id)?.name;
      for (const right of new Set([name, known ?? name])) {
        await call.require({ resource: "service", access, name: right });
      }
      return;
    }
    case "check": {
      const { node = "", serviceId = "" } = operation.check;
      const owner =
        serviceId === "" ? undefined : catalog.node(node)?.services.find((service) => service.id === serviceId)?.name;
      if (owner === undefined) return call.require({ resource: "node", access, name: node });
      return call.require({ resource: "service", access, name: owner });
    }
  }
}

function resultJson(result: TransactionResult): Json {
  switch (result.type) {
    case "node":
      return { Node: nodeJson({ peer: "", node: result.node }) };
    case "service":
      return { Service: serviceJson({ peer: "", service: result.service }) };
    case "check":
      return { Check: checkJson({ peer: "", check: result.check }) };
  }
}

function queryMeta(index: bigint): Readonly<Record<string, Json>> {
  return {
    Index: index,
    LastContact: 0,
    KnownLeader: true,
    ConsistencyLevel: "",
    NotModified: false,
    Backend: 0,
    ResultsFilteredByACLs: false,
  };
}

/** `/v1/txn` for what a catalog holds (specification 4.1.6). */
export const txnOperations: readonly Operation[] = [
  {
    method: "PUT",
    pattern: "/v1/txn",
    run: transaction,
    docs: [
      {
        path: "/v1/txn",
        id: "transaction",
        summary: "Operations on nodes, services and checks, all or nothing; 409 names those that failed.",
        body: listOf(anyObject),
        answer: objectOf({ Results: listOf(anyObject), Errors: { type: "null" } }),
      },
    ],
  },
];
