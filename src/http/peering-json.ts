import type { PeeringView } from "../host/peerings.js";
import type { PeeringStatus } from "../host/status-board.js";
import type { PeeringState } from "../peering/peering.js";
import type { RemoteInfo } from "../wire/messages.js";
import { type Json, textMapOrAbsent, timeText } from "./json.js";

const STATE_NAMES: Readonly<Record<PeeringState, string>> = {
  initial: "UNDEFINED",
  undefined: "UNDEFINED",
  pending: "PENDING",
  establishing: "ESTABLISHING",
  active: "ACTIVE",
  failing: "FAILING",
  deleting: "DELETING",
  terminated: "TERMINATED",
};

/** A peering as Consul 1.15 and later print it. */
export function peeringJson(view: PeeringView): Json {
  const { stream } = view.status;
  return {
    ID: view.id,
    Name: view.name,
    DeletedAt: view.deletedAt === undefined ? undefined : timeText(view.deletedAt),
    Meta: textMapOrAbsent(view.meta),
    State: STATE_NAMES[view.state],
    PeerID: view.peerId || undefined,
    PeerCAPems: listOrAbsent(view.peerCaPems),
    PeerServerName: view.peerServerName || undefined,
    PeerServerAddresses: listOrAbsent(view.peerServerAddresses),
    StreamStatus: {
      ImportedServices: listOrNull(stream.importedServices),
      ExportedServices: listOrNull(stream.exportedServices),
      LastHeartbeat: timeOrNull(stream.lastHeartbeat),
      LastReceive: timeOrNull(stream.lastReceive),
      LastSend: timeOrNull(stream.lastSend),
    },
    CreateIndex: view.createIndex,
    ModifyIndex: view.modifyIndex,
    Remote: remoteJson(view.remote),
    Peerage: ownJson(view.status),
  };
}

/** Services named in one answer; of more, only their number is given. */
const MAX_NAMED = 100;

/** Fields that Consul does not have, and that its clients ignore; absent while there is nothing wrong. */
function ownJson({
  lastFailure,
  failedAttempts,
  nextAttemptAt,
  withheldServices,
  refusedImports,
  healthy,
}: PeeringStatus): Json | undefined {
  // A failure that is over is history.
  const failure = healthy && failedAttempts === 0 ? undefined : lastFailure;
  if (failure === undefined && withheldServices.size === 0 && refusedImports.size === 0) return undefined;
  return {
    LastFailure: failure && {
      Error: failure.message,
      Code: failure.code,
      Address: failure.address,
      At: timeText(failure.at),
      Since: timeText(failure.since),
      FailedAttempts: failedAttempts,
      NextAttempt: nextAttemptAt === undefined ? undefined : timeText(nextAttemptAt),
    },
    WithheldServices: reasonsOrAbsent(withheldServices),
    WithheldServiceCount: withheldServices.size || undefined,
    RefusedImports: reasonsOrAbsent(refusedImports),
    RefusedImportCount: refusedImports.size || undefined,
  };
}

function reasonsOrAbsent(reasons: ReadonlyMap<string, string>): Json | undefined {
  return reasons.size === 0 ? undefined : new Map([...reasons].slice(0, MAX_NAMED));
}

function remoteJson({ partition, datacenter, locality }: RemoteInfo): Json {
  return {
    Partition: partition,
    Datacenter: datacenter,
    Locality: locality === undefined ? undefined : { Region: locality.region, Zone: locality.zone },
  };
}

function listOrAbsent(values: readonly string[]): readonly string[] | undefined {
  return values.length === 0 ? undefined : values;
}

function listOrNull(values: readonly string[]): readonly string[] | null {
  return values.length === 0 ? null : values;
}

function timeOrNull(milliseconds: number | undefined): string | null {
  return milliseconds === undefined ? null : timeText(milliseconds);
}
