import type { Access } from "../access/authorizer.js";
import { InvariantError, PeeringError, toldText } from "../base/errors.js";
import { StepMeter, type Steps } from "../base/steps.js";
import { inTurns } from "../base/turns.js";
import type { PeeringHost } from "../host/host.js";
import {
  checkOperation,
  MAX_TRANSACTION_OPERATIONS,
  TransactionError,
  type TransactionOperation,
  type TransactionVerb,
} from "../model/registration.js";
import type { TransactionResult } from "../stores/catalog.js";
import { firstValueSteps, type GoType, goList, goOptional, isGoList, readGoSteps } from "../syntax/go-json.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { judgeFor, nameOfInstance, requireInstance } from "./catalog.js";
import { ownDatacenter } from "./discovery-options.js";
import { badRequest, HttpRefusal, refusalOf } from "./http-refusal.js";
import type { Json } from "./json.js";
import type { Operation } from "./operation.js";
import { flag, index, listOf, objectOf, text } from "./operation-docs.js";
import {
  looseCheckJson,
  looseCheckSchema,
  looseServiceJson,
  looseServiceSchema,
  nodeJson,
  nodeSchema,
} from "./records.js";
import {
  boundRecords,
  checkRegistration,
  fieldsOf,
  nodeRegistration,
  serviceRegistration,
} from "./registration-json.js";
import { bodySchema } from "./shape-json.js";
import { type OperationBody, operationType } from "./txn-json.js";

const verbs: ReadonlySet<string> = new Set<TransactionVerb>(["get", "set", "cas", "delete", "delete-cas"]);

function isVerb(verb: string): verb is TransactionVerb {
  return verbs.has(verb);
}

function verbOf(type: string, verb: string): TransactionVerb {
  if (isVerb(verb)) return verb;
  throw new PeeringError("invalid-registration", `unknown ${type} operation: ${verb}`);
}

const operationsType: GoType<readonly (OperationBody | undefined)[]> = {
  ...goList(goOptional(operationType)),
  name: "api.TxnOps",
};

/** An empty operation does not count, and has no number. @throws {HttpRefusal} 400: there is nothing at all, on which Consul crashes. */
function withContent(body: OperationBody | undefined): readonly OperationBody[] {
  if (body === undefined) throw badRequest("Failed to parse body: an operation is null");
  return Object.values(body).every((part) => part === undefined) ? [] : [body];
}

/** @throws {PeeringError} `invalid-registration`: it is not an operation of a catalog. */
function operationOf({ KV: pair, Node: node, Service: service, Check: check }: OperationBody): TransactionOperation {
  if (pair !== undefined)
    throw new PeeringError("invalid-registration", "only node, service and check operations are supported");
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
  if (check === undefined) throw new InvariantError("an operation without any was to be left out");
  const verb = verbOf("check", check.Verb);
  return { type: "check", verb, check: checkRegistration(check.Check), modifyIndex: check.Check.ModifyIndex };
}

interface Fault {
  readonly OpIndex: number;
  readonly What: string;
}

/** The operations, and what is wrong with those that are not allowed or break a rule. */
function* operationsOf(
  bodies: readonly OperationBody[],
  host: PeeringHost,
  access: Access,
): Steps<{ readonly operations: readonly TransactionOperation[]; readonly faults: readonly Fault[] }> {
  const operations: TransactionOperation[] = [];
  const faults: Fault[] = [];
  const meter = new StepMeter();
  for (const [index, body] of bodies.entries()) {
    try {
      const operation = operationOf(body);
      if (meter.isOver(fieldsOf(body.Service?.Service.Proxy ?? {}))) yield;
      yield* checkOperation(operation, host.datacenter, meter);
      requireOperation(access, host, operation, operations);
      operations.push(operation);
    } catch (error) {
      faults.push({ OpIndex: index, What: refusalOf(error).text });
    }
  }
  return { operations, faults };
}

async function transaction(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  function* read(body: Buffer): Steps<{ readonly count: number; readonly bodies: readonly OperationBody[] }> {
    const json = yield* firstValueSteps(body);
    yield;
    const count = isGoList(json) ? json.length : 0;
    // Of too many nothing is made: they are refused below.
    if (count > MAX_TRANSACTION_OPERATIONS) return { count, bodies: [] };
    boundRecords(call, json);
    return { count, bodies: (yield* readGoSteps(json, operationsType)).flatMap(withContent) };
  }
  const { count, bodies } = await call.decoded(read, ({ message }) => badRequest(`Failed to parse body: ${message}`));
  ownDatacenter(call);
  if (count > MAX_TRANSACTION_OPERATIONS) {
    throw new HttpRefusal(413, `Transaction contains too many operations (${count} > ${MAX_TRANSACTION_OPERATIONS})`);
  }
  const access = await call.access();
  const { operations, faults } = await inTurns(operationsOf(bodies, call.host, access));
  if (faults.length > 0) return conflict(faults);
  const readOnly = operations.every(({ verb }) => verb === "get");
  try {
    const { index, results } = await call.host.catalog.transaction(operations, {
      judge: judgeFor(access),
      inTurns: true,
    });
    const shown = results.filter((result) => mayRead(access, result));
    const json = { Results: shown.map(resultJson), Errors: null };
    if (!readOnly) return { json };
    const filtered = shown.length < results.length;
    return { json: { ...json, ...queryMeta(index, filtered && call.token !== "") }, read: { index } };
  } catch (error) {
    if (!(error instanceof TransactionError)) throw error;
    const told = error.errors.map(({ operationIndex, what }) => ({ OpIndex: operationIndex, What: toldText(what) }));
    return conflict(told, readOnly ? queryMeta(call.host.catalog.revision, false) : {});
  }
}

function conflict(faults: readonly Fault[], meta: Readonly<Record<string, Json>> = {}): Answer {
  return { status: 409, json: { Results: null, Errors: faults.map((fault) => ({ ...fault })), ...meta } };
}

/**
 * Reads need no right: records that may not be read are left out of the results.
 * @param before - the operations before this one, whose rights were taken.
 * @throws {PeeringError} `permission-denied`
 */
function requireOperation(
  access: Access,
  host: PeeringHost,
  operation: TransactionOperation,
  before: readonly TransactionOperation[],
): void {
  if (operation.verb === "get") return;
  switch (operation.type) {
    case "node":
      access.require({ resource: "node", access: "write", name: operation.node.name });
      break;
    case "service":
      requireInstance(access, host, operation.node, operation.service);
      break;
    case "check": {
      const { node = "", serviceId = "" } = operation.check;
      const owner =
        serviceId === "" ? undefined : (nameOfInstance(host, node, serviceId) ?? nameIn(before, node, serviceId));
      const resource = owner === undefined ? "node" : "service";
      access.require({ resource, access: "write", name: owner ?? node });
    }
  }
}

/** The name of the instance that one of these operations writes. */
function nameIn(operations: readonly TransactionOperation[], node: string, serviceId: string): string | undefined {
  for (const operation of operations) {
    if (operation.type !== "service" || lowerCase(operation.node) !== lowerCase(node)) continue;
    const { id, name } = operation.service;
    if (lowerCase(id || name) === lowerCase(serviceId)) return name;
  }
  return undefined;
}

function mayRead(access: Access, result: TransactionResult): boolean {
  const readable = access.readable("");
  switch (result.type) {
    case "node":
      return readable.node(result.node.name);
    case "service":
      return readable.service(result.service.name);
    case "check":
      return result.check.serviceName === ""
        ? readable.node(result.check.node)
        : readable.service(result.check.serviceName);
  }
}

/** A transaction tells none where others tell that there are none. */
function resultJson(result: TransactionResult): Json {
  switch (result.type) {
    case "node":
      return { Node: nodeJson({ peer: "", node: result.node }) };
    case "service":
      return { Service: looseServiceJson({ peer: "", service: result.service }) };
    case "check":
      return { Check: looseCheckJson({ peer: "", check: result.check }) };
  }
}

function queryMeta(index: bigint, filtered: boolean): Readonly<Record<string, Json>> {
  return {
    Index: index,
    LastContact: 0,
    KnownLeader: true,
    ConsistencyLevel: "",
    NotModified: false,
    Backend: 0,
    ResultsFilteredByACLs: filtered,
  };
}

/** `/v1/txn` for the records of a catalog. */
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
        body: listOf(bodySchema(operationType.form)),
        answer: objectOf({
          Results: listOf(
            objectOf({ "Node?": nodeSchema, "Service?": looseServiceSchema, "Check?": looseCheckSchema }),
          ),
          Errors: { type: "null" },
          "Index?": index,
          "LastContact?": index,
          "KnownLeader?": flag,
          "ConsistencyLevel?": text,
          "NotModified?": flag,
          "Backend?": index,
          "ResultsFilteredByACLs?": flag,
        }),
      },
    ],
  },
];
