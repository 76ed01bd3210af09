import type { PeeringView } from "../host/peerings.js";
import type { PeeringFailure, PeeringStatus } from "../host/status-board.js";
import type { Check, Locality, Node, Service, ServiceInstance } from "../model/instance.js";
import type { PeeringState, Role } from "../peering/peering.js";
import {
  type CheckSchema,
  Dialect,
  type FailureSchema,
  type InstanceKeySchema,
  type InstanceSchema,
  type LocalitySchema,
  type NodeSchema,
  type PeeringSchema,
  Phase,
  Role as RoleNumber,
  type ServiceSchema,
  State,
  type StatusSchema,
} from "../wire/gen/peerage/watch/v1/watch_pb.js";
import { type MessageInit, timestamp, timestampOrUnset } from "./message.js";

// Converts views of a host to messages of the watch service, field by field, so that no secret can slip in.

const STATES: Readonly<Record<PeeringState, State>> = {
  initial: State.UNSPECIFIED,
  undefined: State.UNSPECIFIED,
  pending: State.PENDING,
  establishing: State.ESTABLISHING,
  active: State.ACTIVE,
  failing: State.FAILING,
  deleting: State.DELETING,
  terminated: State.TERMINATED,
};

const ROLES: Readonly<Record<Role, RoleNumber>> = { acceptor: RoleNumber.ACCEPTOR, dialer: RoleNumber.DIALER };

const PHASES: Readonly<Record<PeeringStatus["phase"], Phase>> = {
  idle: Phase.IDLE,
  waiting: Phase.WAITING,
  opening: Phase.OPENING,
  connected: Phase.CONNECTED,
  draining: Phase.DRAINING,
  closed: Phase.CLOSED,
};

const DIALECTS: Readonly<Record<NonNullable<PeeringStatus["dialect"]>, Dialect>> = {
  unknown: Dialect.UNSPECIFIED,
  legacy: Dialect.LEGACY,
  modern: Dialect.MODERN,
};

/** A status is sent whenever a number in it has changed: it names no more services than a person would read. */
const WITHHELD_NAMED = 100;

/** A peering with its status, as a watch tells it. */
export function peeringMessage(view: PeeringView): MessageInit<typeof PeeringSchema> {
  const { partition, datacenter, locality } = view.remote;
  return {
    id: view.id,
    name: view.name,
    role: ROLES[view.role],
    state: STATES[view.state],
    deletedAt: timestampOrUnset(view.deletedAt),
    meta: { ...view.meta },
    peerId: view.peerId,
    peerServerName: view.peerServerName,
    peerServerAddresses: [...view.peerServerAddresses],
    manualServerAddresses: [...view.manualServerAddresses],
    peerCaPems: [...view.peerCaPems],
    remote: { datacenter, partition, locality: localityMessage(locality) },
    createIndex: view.createIndex,
    modifyIndex: view.modifyIndex,
    status: statusMessage(view.status),
  };
}

function statusMessage(status: PeeringStatus): MessageInit<typeof StatusSchema> {
  const { facts, lagMs } = status;
  return {
    phase: PHASES[status.phase],
    dialect: status.dialect === undefined ? Dialect.UNSPECIFIED : DIALECTS[status.dialect],
    healthy: status.healthy,
    importedServices: facts.importedServices.length,
    exportedServices: facts.exportedServices.length,
    connectedAt: timestampOrUnset(facts.connectTime),
    disconnectedAt: timestampOrUnset(facts.disconnectTime),
    lastHeartbeatReceived: timestampOrUnset(facts.lastReceiveHeartbeat),
    lastHeartbeatSent: timestampOrUnset(status.lastHeartbeatSent),
    lastApplied: timestampOrUnset(facts.lastReceiveResourceSuccess),
    lastSent: timestampOrUnset(facts.lastSendSuccess),
    lastAcknowledged: timestampOrUnset(facts.lastAck),
    lastRefused: timestampOrUnset(facts.lastNack),
    lastRefusal: facts.lastNackMessage,
    lastReceiveFailed: timestampOrUnset(facts.lastReceiveError),
    lastReceiveFailure: facts.lastReceiveErrorMessage,
    lastFailure: status.lastFailure === undefined ? undefined : failureMessage(status.lastFailure),
    failedAttempts: status.failedAttempts,
    nextAttempt: timestampOrUnset(status.nextAttemptAt),
    queuedResources: status.queuedResources,
    queuedBytes: BigInt(status.queuedBytes),
    unacknowledged: status.unacknowledged,
    lagMs: lagMs === undefined ? undefined : BigInt(Math.trunc(lagMs)),
    withheldServices: Object.fromEntries([...status.withheldServices].slice(0, WITHHELD_NAMED)),
    withheldServiceCount: status.withheldServices.size,
    applying: status.applying,
  };
}

function failureMessage({ at, code, message, address }: PeeringFailure): MessageInit<typeof FailureSchema> {
  return { at: timestamp(at), code, message, address: address ?? "" };
}

/** An imported instance, as a watch tells it. */
export function instanceMessage({ node, service, checks }: ServiceInstance): MessageInit<typeof InstanceSchema> {
  return { node: nodeMessage(node), service: serviceMessage(service), checks: checks.map(checkMessage) };
}

/** The key of an instance. */
export function instanceKey({ node, service }: ServiceInstance): MessageInit<typeof InstanceKeySchema> {
  return { node: node.name, serviceId: service.id };
}

function nodeMessage(node: Node): MessageInit<typeof NodeSchema> {
  return {
    id: node.id,
    name: node.name,
    address: node.address,
    datacenter: node.datacenter,
    taggedAddresses: { ...node.taggedAddresses },
    meta: { ...node.meta },
    locality: localityMessage(node.locality),
  };
}

function serviceMessage(service: Service): MessageInit<typeof ServiceSchema> {
  const peerMeta = service.connect?.peerMeta;
  const { passing, warning } = service.weights;
  return {
    kind: service.kind,
    id: service.id,
    name: service.name,
    tags: [...service.tags],
    address: service.address,
    port: service.port,
    ports: (service.ports ?? []).map(({ name, port, default: isDefault }) => ({ name, port, default: isDefault })),
    socketPath: service.socketPath,
    taggedAddresses: Object.fromEntries(
      Object.entries(service.taggedAddresses).map(([key, { address, port }]) => [key, { address, port }]),
    ),
    meta: { ...service.meta },
    weights: { passing, warning },
    destinationService: service.proxy?.destinationServiceName ?? "",
    peerMeta:
      peerMeta === undefined
        ? undefined
        : { sni: [...peerMeta.sni], spiffeId: [...peerMeta.spiffeId], protocol: peerMeta.protocol },
    locality: localityMessage(service.locality),
  };
}

function checkMessage({ checkId, name, status, output, serviceId }: Check): MessageInit<typeof CheckSchema> {
  return { checkId, name, status, output, serviceId };
}

function localityMessage(locality: Locality | undefined): MessageInit<typeof LocalitySchema> | undefined {
  return locality === undefined ? undefined : { region: locality.region, zone: locality.zone };
}
