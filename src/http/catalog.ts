import type { Access } from "../access/authorizer.js";
import { lowerCase } from "../catalog/names.js";
import type { Registration } from "../catalog/registration.js";
import type { PeeringHost } from "../host/host.js";
import type { Answer, Call } from "./call.js";
import { catalogReads } from "./catalog-reads.js";
import { ownDatacenter } from "./discovery.js";
import { registeredSchema } from "./discovery-docs.js";
import { HttpError } from "./http-error.js";
import { anyObject } from "./operation-docs.js";
import { catalogBody, deregisterType, registerType, registrationOf } from "./registration-json.js";
import type { Operation } from "./routes.js";

async function register(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const registration = registrationOf(await catalogBody(call, registerType));
  ownDatacenter(call);
  await requireRegistration(call, registration);
  await call.host.catalog.register(registration);
  return { json: true };
}

/** @throws {HttpError} 403: `node:write` if the node would change, `service:write` on what is registered. */
export async function requireRegistration(call: Call, registration: Registration): Promise<void> {
  const access = await call.access();
  const { node: name, service } = registration;
  if (service !== undefined) requireInstance(access, call.host, name, service);
  const known = call.host.catalog.node(name);
  const node = { resource: "node", access: "write", name } as const;
  if (!access.may(node) && (known === undefined || !isUnchanged(registration, known.node))) access.require(node);
  for (const check of [...(registration.checks ?? []), ...(registration.check ? [registration.check] : [])]) {
    const id = check.serviceId ?? "";
    if (id === "") {
      access.require(node);
      continue;
    }
    const owner = nameOfInstance(call.host, name, id) ?? service?.name;
    if (owner !== undefined) access.require({ resource: "service", access: "write", name: owner });
  }
}

/**
 * Takes the right on the name of an instance, and on the name it has now: nobody may take over another's.
 * @throws {PeeringError} `permission-denied`
 */
export function requireInstance(
  access: Access,
  host: PeeringHost,
  node: string,
  { id, name }: { readonly id?: string | undefined; readonly name: string },
): void {
  for (const each of new Set([name, nameOfInstance(host, node, id || name) ?? name])) {
    access.require({ resource: "service", access: "write", name: each });
  }
}

/** The name of the instance that has an id on a node now; ids compare without case. */
export function nameOfInstance({ catalog }: PeeringHost, node: string, id: string): string | undefined {
  const key = lowerCase(id);
  return catalog.node(node)?.services.find((service) => lowerCase(service.id) === key)?.name;
}

interface NodeFacts {
  readonly id: string;
  readonly address: string;
  readonly taggedAddresses: Readonly<Record<string, string>>;
  readonly meta: Readonly<Record<string, string>>;
}

function isUnchanged(registration: Registration, node: NodeFacts): boolean {
  if (registration.skipNodeUpdate === true) return true;
  const { id = "", address = "", taggedAddresses = {}, nodeMeta = {} } = registration;
  return (
    (id === "" || id === node.id) &&
    address === node.address &&
    sameMap(taggedAddresses, node.taggedAddresses) &&
    sameMap(nodeMeta, node.meta)
  );
}

function sameMap(left: Readonly<Record<string, string>>, right: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(left);
  return keys.length === Object.keys(right).length && keys.every((key) => left[key] === right[key]);
}

async function deregister(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const body = await catalogBody(call, deregisterType);
  ownDatacenter(call);
  const target = {
    node: body.Node,
    serviceId: body.ServiceID,
    checkId: body.CheckID,
    datacenter: body.Datacenter,
    peerName: body.PeerName,
  };
  if (body.Node !== "" && body.PeerName === "") await requireDeregistration(call, target);
  await call.host.catalog.deregister(target);
  return { json: true };
}

async function requireDeregistration(
  call: Call,
  { node, serviceId, checkId }: { readonly node: string; readonly serviceId: string; readonly checkId: string },
): Promise<void> {
  const access = await call.access();
  const right = { resource: "node", access: "write", name: node } as const;
  if (access.may(right)) return;
  if (serviceId !== "") {
    const name = nameOfInstance(call.host, node, serviceId);
    if (name === undefined) throw new HttpError(500, `Unknown service ID '${serviceId}'`);
    return access.require({ resource: "service", access: "write", name });
  }
  if (checkId !== "") {
    const key = lowerCase(checkId);
    const check = call.host.catalog.node(node)?.checks.find((candidate) => lowerCase(candidate.checkId) === key);
    if (check === undefined) throw new HttpError(500, `Unknown check ID '${checkId}'`);
    const name = check.serviceId === "" ? undefined : nameOfInstance(call.host, node, check.serviceId);
    if (name !== undefined) return access.require({ resource: "service", access: "write", name });
  }
  return access.require(right);
}

/** `/v1/catalog` (specification 4.1.4, 4.1.5 and 4.5.3); its datacenters are told by the system's operations. */
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
        body: anyObject,
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
        body: anyObject,
        answer: registeredSchema,
      },
    ],
  },
  ...catalogReads,
];
