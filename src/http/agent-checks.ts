import type { Access } from "../access/authorizer.js";
import { PeeringError } from "../base/errors.js";
import { hostOf } from "../base/host-port.js";
import type { StepMeter, Steps } from "../base/steps.js";
import { type CheckDefinition, type CheckStatus, isCheckStatus } from "../checks/definition.js";
import { NODE_MAINTENANCE, SERVICE_MAINTENANCE } from "../model/health.js";
import type { CheckRegistration } from "../model/registration.js";
import type { IndexedCheck } from "../stores/catalog.js";
import { durationText } from "../syntax/go-duration.js";
import { goQuote } from "../syntax/go-escape.js";
import { goString, goStruct } from "../syntax/go-json.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { judgeFor } from "./catalog.js";
import {
  type CheckBody,
  checkDefinition,
  checkProblem,
  checkTypeOf,
  isEmptyCheck,
  loneCheckType,
  type ServiceCheckBody,
} from "./check-json.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import type { Operation, ParameterDoc } from "./operation.js";
import { catalogBody } from "./registration-json.js";
import { bodySchema } from "./shape-json.js";

/** A check in the form of the catalog, and the definition that the agent runs for it. */
export interface PreparedCheck {
  readonly registration: CheckRegistration & { readonly checkId: string };
  readonly definition: CheckDefinition;
}

/** The host's own node: created with the first registration on it, left alone afterwards. */
export function ownNode({ server }: Call): {
  readonly node: string;
  readonly address: string;
  readonly skipNodeUpdate: true;
} {
  return { node: server.nodeName, address: hostOf(server.address) || "127.0.0.1", skipNodeUpdate: true };
}

/** The checks of a service: a `Check` that says nothing is none. */
export function givenChecks(
  check: ServiceCheckBody | undefined,
  checks: readonly ServiceCheckBody[],
): readonly ServiceCheckBody[] {
  return check === undefined || isEmptyCheck(check) ? checks : [check, ...checks];
}

/** @param where - names the check in the text of a problem. @throws {HttpRefusal} 400 with Consul's text. */
export function validateChecks(checks: readonly ServiceCheckBody[], where = ""): void {
  for (const body of checks) {
    const problem = checkProblem(body);
    if (problem !== undefined) throw badRequest(`Invalid check${where}: ${problem}`);
  }
  if (checks.some(({ Status: status }) => status !== "" && !isCheckStatus(status))) {
    throw badRequest("Status for checks must 'passing', 'warning', 'critical'");
  }
}

/**
 * The checks of a service that is being registered, made in steps. One that exists already keeps its last result.
 * @throws {HttpRefusal} as {@link checkDefinition}.
 */
export function* serviceChecks(
  call: Call,
  service: { readonly id: string; readonly name: string },
  checks: readonly ServiceCheckBody[],
  meter: StepMeter,
): Steps<readonly PreparedCheck[]> {
  const all: PreparedCheck[] = [];
  for (const [index, body] of checks.entries()) {
    const place = checks.length > 1 ? `:${index + 1}` : "";
    const check = prepared(call, body, {
      checkId: body.CheckID || `service:${service.id}${place}`,
      name: body.Name || `Service '${service.name}' check`,
      status: body.Status,
      notes: body.Notes,
      serviceId: service.id,
      interval: durationText(body.Interval),
      timeout: durationText(body.Timeout),
    });
    all.push(check);
    if (meter.isOver(CHECK_FIELDS)) yield;
  }
  return all;
}

/** Weight of a check in a step: it takes as long to make as so many fields to read. */
export const CHECK_FIELDS = 50;

function prepared(
  call: Call,
  body: CheckBody,
  registration: CheckRegistration & { readonly checkId: string },
): PreparedCheck {
  const definition = checkDefinition(body);
  const { host, server } = call;
  const known = host.catalog.check(server.nodeName, registration.checkId);
  const before = known && (host.checks.result(registration.checkId) ?? known);
  return {
    definition,
    registration: {
      ...registration,
      type: checkTypeOf(body, definition),
      ...(before && { status: before.status, output: before.output }),
      // Where its proxy leads to it; the agent takes the port back where there is none any more.
      ...(known && { exposedPort: known.exposedPort }),
    },
  };
}

async function register(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const body = await catalogBody(call, loneCheckType);
  if (body.Name === "") throw badRequest("Missing check name");
  if (body.Status !== "" && !isCheckStatus(body.Status)) throw badRequest("Bad check status");
  const problem = checkProblem(body);
  if (problem !== undefined) throw badRequest(`Invalid check: ${problem}`);
  const { host, server } = call;
  const serviceId = body.ServiceID || body.service_id;
  const service = serviceId === "" ? undefined : host.catalog.service(server.nodeName, serviceId);
  // The catalog finds an id in any case, and an agent's own services as they are written alone.
  if (serviceId !== "" && service?.id !== serviceId) {
    throw new HttpRefusal(404, `ServiceID ${goQuote(serviceId)} does not exist`);
  }
  const check = prepared(call, body, {
    checkId: body.ID || body.Name,
    name: body.Name,
    status: body.Status,
    notes: body.Notes,
    serviceId: service?.id ?? "",
    interval: durationText(body.Interval) || "0s",
    timeout: durationText(body.Timeout) || "0s",
  });
  const access = await call.access();
  requireOwner(access, server.nodeName, service?.name ?? "");
  const existing = host.catalog.check(server.nodeName, check.registration.checkId);
  if (existing !== undefined) requireOwner(access, server.nodeName, existing.serviceName);
  await host.checks.register(
    [{ ...ownNode(call), checks: [check.registration] }],
    new Map([[check.registration.checkId, check.definition]]),
    { judge: judgeFor(access) },
  );
  return {};
}

/** @param serviceName - `""` for a check of the node. @throws {PeeringError} `permission-denied`. */
function requireOwner(access: Access, node: string, serviceName: string): void {
  access.require(
    serviceName === ""
      ? { resource: "node", access: "write", name: node }
      : { resource: "service", access: "write", name: serviceName },
  );
}

/** A check of this node that the caller may change. @throws {HttpRefusal} 404, {@link PeeringError} `permission-denied`. */
async function ownCheck(call: Call, id: string): Promise<IndexedCheck> {
  call.refuseNamespace();
  call.refusePartition();
  const access = await call.access();
  const { nodeName } = call.server;
  const check = call.host.catalog.check(nodeName, id);
  if (check === undefined) {
    const hint = "Ensure that the check ID is passed, not the check name.";
    throw new HttpRefusal(404, `Unknown check ID ${goQuote(id)}. ${hint}`);
  }
  requireOwner(access, nodeName, check.serviceName);
  return check;
}

async function deregister(call: Call): Promise<Answer> {
  const { checkId } = await ownCheck(call, call.rest);
  const judge = judgeFor(await call.access());
  await call.host.catalog.deregister({ node: call.server.nodeName, checkId }, { judge });
  await call.host.checks.forget([checkId]);
  return {};
}

function report(status: CheckStatus): (call: Call) => Promise<Answer> {
  return (call) => reportResult(call, status, call.query.get("note") ?? "");
}

const updateType = goStruct<{ readonly Status: string; readonly Output: string }>("agent.checkUpdate", {
  Status: goString,
  Output: goString,
});

async function update(call: Call): Promise<Answer> {
  const { Status: status, Output: output } = await catalogBody(call, updateType);
  if (!isCheckStatus(status)) throw badRequest(`Invalid check status: '${status}'`);
  return reportResult(call, status, output);
}

async function reportResult(call: Call, status: CheckStatus, output: string): Promise<Answer> {
  const { checkId } = await ownCheck(call, call.rest);
  try {
    await call.host.checks.report(checkId, status, output);
  } catch (error) {
    if (error instanceof PeeringError && error.code === "not-found") throw new HttpRefusal(500, error.message);
    throw error;
  }
  return {};
}

// Maintenance: a critical check that stands for the operator's word.

const NO_REASON = "but no reason was provided. This is a default message.";

/** The query's `enable`. @throws {HttpRefusal} 400 with Consul's text. */
function enabled(call: Call): boolean {
  const value = call.query.get("enable");
  if (value === null) throw badRequest("Missing value for enable");
  if (/^(?:1|t|T|true|TRUE|True)$/.test(value)) return true;
  if (/^(?:0|f|F|false|FALSE|False)$/.test(value)) return false;
  throw badRequest(`Invalid value for enable: ${JSON.stringify(value)}`);
}

async function nodeMaintenance(call: Call): Promise<Answer> {
  const enable = enabled(call);
  await call.require({ resource: "node", access: "write", name: call.server.nodeName });
  await maintain(call, enable, {
    checkId: NODE_MAINTENANCE,
    name: "Node Maintenance Mode",
    notes: call.query.get("reason") || `Maintenance mode is enabled for this node, ${NO_REASON}`,
  });
  return {};
}

async function serviceMaintenance(call: Call): Promise<Answer> {
  const id = call.rest;
  if (id === "") throw badRequest("Missing service ID");
  const enable = enabled(call);
  call.refuseNamespace();
  call.refusePartition();
  const access = await call.access();
  const service = call.host.catalog.service(call.server.nodeName, id);
  if (service === undefined) throw unknownService(id);
  access.require({ resource: "service", access: "write", name: service.name });
  await maintain(call, enable, {
    checkId: `${SERVICE_MAINTENANCE}${service.id}`,
    name: "Service Maintenance Mode",
    notes: call.query.get("reason") || `Maintenance mode is enabled for this service, ${NO_REASON}`,
    serviceId: service.id,
  });
  return {};
}

/** A service in maintenance already keeps its reason, as in Consul. */
async function maintain(
  call: Call,
  enable: boolean,
  check: CheckRegistration & { readonly checkId: string },
): Promise<void> {
  const { catalog } = call.host;
  const { nodeName } = call.server;
  const before = catalog.check(nodeName, check.checkId);
  if (!enable) await catalog.deregister({ node: nodeName, checkId: check.checkId });
  else if (before === undefined) {
    await catalog.register({ ...ownNode(call), checks: [{ ...check, status: "critical", type: "maintenance" }] });
  }
}

export function unknownService(id: string): HttpRefusal {
  const hint = "Ensure that the service ID is passed, not the service name.";
  return new HttpRefusal(404, `Unknown service ID ${goQuote(id)}. ${hint}`);
}

const noteParameter: ParameterDoc = { name: "note", in: "query", description: "Becomes the output of the check." };
const maintenanceParameters: readonly ParameterDoc[] = [
  { name: "enable", in: "query", description: "Whether it is in maintenance: `true` or `false`. Required." },
  { name: "reason", in: "query", description: "Becomes the notes of the check that stands for it." },
];

function reportOperation(word: string, status: CheckStatus): Operation {
  return {
    method: "PUT",
    pattern: `/v1/agent/check/${word}/`,
    run: report(status),
    docs: [
      {
        path: `/v1/agent/check/${word}/{id}`,
        id: `${word}OwnCheck`,
        summary: `Reports that a TTL check is ${status}.`,
        parameters: [noteParameter],
      },
    ],
  };
}

/** Checks of this very node, and maintenance (Consul 1.21). */
export const agentCheckOperations: readonly Operation[] = [
  {
    method: "PUT",
    pattern: "/v1/agent/check/register",
    run: register,
    docs: [
      {
        path: "/v1/agent/check/register",
        id: "registerOwnCheck",
        summary:
          "Registers a check of this node or of a service on it, and runs it: TTL, HTTP, TCP, UDP, gRPC, H2 ping, alias.",
        body: bodySchema(loneCheckType.form),
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/agent/check/deregister/",
    run: deregister,
    docs: [
      { path: "/v1/agent/check/deregister/{id}", id: "deregisterOwnCheck", summary: "Removes a check of this node." },
    ],
  },
  reportOperation("pass", "passing"),
  reportOperation("warn", "warning"),
  reportOperation("fail", "critical"),
  {
    method: "PUT",
    pattern: "/v1/agent/check/update/",
    run: update,
    docs: [
      {
        path: "/v1/agent/check/update/{id}",
        id: "updateOwnCheck",
        summary: "Reports the status and output of a TTL check.",
        body: bodySchema(updateType.form),
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/agent/maintenance",
    run: nodeMaintenance,
    docs: [
      {
        path: "/v1/agent/maintenance",
        id: "setNodeMaintenance",
        summary: "Puts this node into maintenance, or takes it out.",
        parameters: maintenanceParameters,
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/agent/service/maintenance/",
    run: serviceMaintenance,
    docs: [
      {
        path: "/v1/agent/service/maintenance/{id}",
        id: "setServiceMaintenance",
        summary: "Puts a service of this node into maintenance, or takes it out.",
        parameters: maintenanceParameters,
      },
    ],
  },
];
