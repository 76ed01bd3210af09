import type { PeeringView } from "../host/peerings.js";
import { type PeeringState, type StoredState, shouldDial, type TrustBundle } from "../peering/peering.js";
import type { PeeringWrite } from "../peering/peering-write.js";
import type { GivenSecrets } from "../stores/records.js";
import {
  type Peering,
  type PeeringSchema,
  type PeeringTrustBundleSchema,
  type SecretsWriteRequest,
  PeeringState as State,
} from "../wire/gen/hashicorp/consul/internal/peering/peering_pb.js";
import { type MessageInit, milliseconds, timestampOrUnset } from "./message.js";

// Between our records and Consul's messages: the one place that knows both.

const STATES: Readonly<Record<PeeringState, State>> = {
  initial: State.UNDEFINED,
  undefined: State.UNDEFINED,
  pending: State.PENDING,
  establishing: State.ESTABLISHING,
  active: State.ACTIVE,
  failing: State.FAILING,
  deleting: State.DELETING,
  terminated: State.TERMINATED,
};

/** A peering as an answer of PeeringService. */
export function peeringMessage(view: PeeringView): MessageInit<typeof PeeringSchema> {
  const { stream } = view.status;
  const { partition, datacenter, locality } = view.remote;
  return {
    ID: view.id,
    Name: view.name,
    DeletedAt: timestampOrUnset(view.deletedAt),
    Meta: { ...view.meta },
    State: STATES[view.state],
    PeerID: view.peerId,
    PeerCAPems: [...view.peerCaPems],
    PeerServerName: view.peerServerName,
    PeerServerAddresses: [...view.peerServerAddresses],
    ManualServerAddresses: [...view.manualServerAddresses],
    CreateIndex: view.createIndex,
    ModifyIndex: view.modifyIndex,
    StreamStatus: {
      ImportedServices: [...stream.importedServices],
      ExportedServices: [...stream.exportedServices],
      LastHeartbeat: timestampOrUnset(stream.lastHeartbeat),
      LastReceive: timestampOrUnset(stream.lastReceive),
      LastSend: timestampOrUnset(stream.lastSend),
    },
    Remote: {
      Partition: partition,
      Datacenter: datacenter,
      Locality: locality === undefined ? undefined : { Region: locality.region, Zone: locality.zone },
    },
  };
}

/** @param index - of its last write, which stands for its creation, too: a bundle is always written as a whole. */
export function trustBundleMessage(bundle: TrustBundle, index: bigint): MessageInit<typeof PeeringTrustBundleSchema> {
  return {
    TrustDomain: bundle.trustDomain,
    PeerName: bundle.peerName,
    RootPEMs: [...bundle.rootPems],
    ExportedPartition: bundle.exportedPartition,
    CreateIndex: index,
    ModifyIndex: index,
  };
}

/** A record as PeeringWrite is given it; callers cannot write indexes and observations of streams. */
export function givenRecord(message: Peering): Omit<PeeringWrite, "id"> {
  const { DeletedAt, Remote } = message;
  const addresses = {
    peerServerAddresses: message.PeerServerAddresses,
    manualServerAddresses: message.ManualServerAddresses,
  };
  const state = givenState(message.State, shouldDial(addresses));
  const locality = Remote?.Locality;
  return {
    name: message.Name,
    ...(state === undefined ? {} : { state }),
    ...(DeletedAt === undefined ? {} : { deletedAt: milliseconds(DeletedAt) }),
    meta: message.Meta,
    peerId: message.PeerID,
    peerCaPems: message.PeerCAPems,
    peerServerName: message.PeerServerName,
    ...addresses,
    remote: {
      partition: Remote?.Partition ?? "",
      datacenter: Remote?.Datacenter ?? "",
      ...(locality === undefined ? {} : { locality: { region: locality.Region, zone: locality.Zone } }),
    },
  };
}

/** ACTIVE and FAILING are never stored: the state of a healthy record of that role stands for them. */
function givenState(state: State, dialer: boolean): StoredState | undefined {
  switch (state) {
    case State.PENDING:
      return "pending";
    case State.ESTABLISHING:
      return "establishing";
    case State.ACTIVE:
    case State.FAILING:
      return dialer ? "establishing" : "pending";
    case State.DELETING:
      return "deleting";
    case State.TERMINATED:
      return "terminated";
    default:
      return undefined;
  }
}

/** The change of the secrets; undefined: none. */
export function givenSecrets(message: SecretsWriteRequest | undefined): GivenSecrets | undefined {
  const request = message?.Request;
  switch (request?.case) {
    case "generateToken":
      return { type: "generate_token", establishmentSecret: request.value.establishmentSecret };
    case "exchangeSecret": {
      const { establishmentSecret, pendingStreamSecret } = request.value;
      return { type: "exchange_secret", establishmentSecret, pendingStreamSecret };
    }
    case "promotePending":
      return { type: "promote_pending", activeStreamSecret: request.value.activeStreamSecret };
    case "establish":
      return { type: "establish", activeStreamSecret: request.value.activeStreamSecret };
    default:
      return undefined;
  }
}
