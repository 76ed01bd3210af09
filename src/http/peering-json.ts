import type { PeeringView } from "../host/peerings.js";
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

/** A peering as Consul 1.15 and later print it (specification 2.2.1). */
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
  };
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
