import type { Access, Right } from "../access/authorizer.js";
import type { PeeringHost } from "../host/host.js";
import type { Registration, ServiceRegistration } from "../model/registration.js";
import type { Judge } from "../stores/catalog.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { catalogReads } from "./catalog-reads.js";
import { registeredSchema } from "./discovery-docs.js";
import { ownDatacenter } from "./discovery-options.js";
import { HttpRefusal } from "./http-refusal.js";
import type { Operation } from "./operation.js";
import { catalogBody, deregisterType, enterprise, registerType, registrationOf } from "./registration-json.js";
import { bodySchema } from "./shape-json.js";

async function register(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const registration = registrationOf(await catalogBody(call, registerType, enterprise));
  ownDatacenter(call);
  const access = await call.access();
  requireRegistration(access, call.host, registration);
  await call.host.catalog.register(registration, { judge: judgeFor(access), inTurns: true });
  return { json: true };
}

/**
 * Requires the rights on everything that a write changes, whatever its request named. Removing something also takes a right on its node (Consul
 * 1.14 to 1.22).
 */
export function judgeFor(access: Access): Judge {
  return (touched) => {
    for (const change of touched) {
      const node: Right = { resource: "node", access: "write", name: change.node };
      if (change.type === "node") access.require(node);
      else if (!change.removed || !access.may(node)) requireService(access, change.service);
    }
  };
}

function requireService(access: Access, name: string): void {
  access.require({ resource: "service", access: "write", name });
}

/** @throws {HttpRefusal} 403: `service:write` on the named service, `node:write` for a node that is new and for its checks. */
function requireRegistration(access: Access, host: PeeringHost, registration: Registration): void {
  const { node: name, service } = registration;
  if (service !== undefined) requireInstance(access, host, name, service);
  const node: Right = { resource: "node", access: "write", name };
  if (host.catalog.nodeAlone(name) === undefined) access.require(node);
  for (const check of [...(registration.checks ?? []), ...(registration.check ? [registration.check] : [])]) {
    const id = check.serviceId ?? "";
    const owner = id === "" ? undefined : (nameOfInstance(host, name, id) ?? service?.name);
    if (owner === undefined) access.require(node);
    else requireService(access, owner);
  }
}

/**
 * Takes the right on the name of an instance, on the name it has now, for no caller may take over another's, and on the
 * service that a proxy speaks for.
 * @throws {PeeringError} `permission-denied`
 */
export function requireInstance(
  access: Access,
  host: PeeringHost,
  node: string,
  { id, name, kind, proxy }: Pick<ServiceRegistration, "id" | "name" | "kind" | "proxy">,
): void {
  const names = new Set([name, nameOfInstance(host, node, id || name) ?? name]);
  if (kind === "connect-proxy") names.add(proxy?.destinationServiceName ?? "");
  for (const each of names) requireService(access, each);
}

/** The name of the instance that has an id on a node now; ids compare without case. */
export function nameOfInstance({ catalog }: PeeringHost, node: string, id: string): string | undefined {
  return catalog.service(node, id)?.name;
}

async function deregister(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const body = await catalogBody(call, deregisterType, enterprise);
  ownDatacenter(call);
  const target = {
    node: body.Node,
    serviceId: body.ServiceID,
    checkId: body.CheckID,
    datacenter: body.Datacenter,
    peerName: body.PeerName,
  };
  const access = await call.access();
  if (body.Node !== "" && body.PeerName === "") requireDeregistration(access, call.host, target);
  await call.host.catalog.deregister(target, { judge: judgeFor(access) });
  return { json: true };
}

function requireDeregistration(
  access: Access,
  host: PeeringHost,
  { node, serviceId, checkId }: { readonly node: string; readonly serviceId: string; readonly checkId: string },
): void {
  const right: Right = { resource: "node", access: "write", name: node };
  if (access.may(right)) return;
  if (serviceId !== "") {
    const name = nameOfInstance(host, node, serviceId);
    if (name === undefined) throw new HttpRefusal(500, `Unknown service ID '${serviceId}'`);
    requireService(access, name);
    return;
  }
  if (checkId !== "") {
    const check = host.catalog.check(node, checkId);
    if (check === undefined) throw new HttpRefusal(500, `Unknown check ID '${checkId}'`);
    const name = check.serviceId === "" ? undefined : nameOfInstance(host, node, check.serviceId);
    if (name !== undefined) {
      requireService(access, name);
      return;
    }
  }
  access.require(right);
}

/** `/v1/catalog`, apart from its datacenters, which `system.ts` answers. */
export const catalogOperations: readonly Operation[] = [
  {
    method: "PUT",
    pattern: "/v1/catalog/register",
    run: register,
    docs: [
      {
        path: "/v1/catalog/register",
        id: "register",
        summary: "Writes a node with at most one service and any number of checks, all or nothing.",
        body: bodySchema(registerType.form),
        answer: registeredSchema,
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/catalog/deregister",
    run: deregister,
    docs: [
      {
        path: "/v1/catalog/deregister",
        id: "deregister",
        summary: "Removes a service, a check, or a node with everything on it; a missing one is no failure.",
        body: bodySchema(deregisterType.form),
        answer: registeredSchema,
      },
    ],
  },
  ...catalogReads,
];
