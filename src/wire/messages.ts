/** Facts about the side that opens a stream (`Open.Remote`, Consul 1.14 and later; locality from 1.16). */
export interface RemoteInfo {
  /** Enterprise only; `""` in Community Edition. */
  readonly partition: string;
  readonly datacenter: string;
  readonly locality?: { readonly region: string; readonly zone: string };
}

/** The first message of a dialer. */
export interface OpenMessage {
  readonly type: "open";
  /** The acceptor's own id of the peering. */
  readonly peerId: string;
  readonly streamSecretId: string;
  /** Absent from 1.13 dialers. */
  readonly remote?: RemoteInfo;
}

/** A subscription, an ACK (`responseNonce`, no `error`) or a NACK (both). */
export interface RequestMessage {
  readonly type: "request";
  readonly peerId: string;
  readonly responseNonce: string;
  readonly resourceUrl: string;
  readonly error?: { readonly code: number; readonly message: string };
}

/** `google.protobuf.Any`: the bytes are not interpreted here. */
export interface AnyResource {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/** One resource. */
export interface ResponseMessage {
  readonly type: "response";
  readonly nonce: string;
  readonly resourceUrl: string;
  readonly resourceId: string;
  /** 0 unspecified, 1 upsert, 2 delete (1.13 only); any other number survives decoding. */
  readonly operation: number;
  /** "Absent" and "present with an empty value" differ. */
  readonly resource?: AnyResource;
}

/**
 * One message of a replication stream. `unknown`: no payload, or a member this version does not know; such a message is
 * ignored.
 */
export type ReplicationMessage =
  | OpenMessage
  | RequestMessage
  | ResponseMessage
  | { readonly type: "terminated" }
  | { readonly type: "heartbeat" }
  | { readonly type: "unknown" };

/** `ResponseMessage.operation`. */
export const Operation = { Unspecified: 0, Upsert: 1, Delete: 2 } as const;

/** The four resource types, compared byte for byte. */
export const ResourceUrl = {
  exportedService: "type.googleapis.com/hashicorp.consul.internal.peerstream.ExportedService",
  /** Since Consul 1.14. */
  exportedServiceList: "type.googleapis.com/hashicorp.consul.internal.peerstream.ExportedServiceList",
  trustBundle: "type.googleapis.com/hashicorp.consul.internal.peering.PeeringTrustBundle",
  serverAddresses: "type.googleapis.com/hashicorp.consul.internal.peering.PeeringServerAddresses",
} as const;

export const LEADER_ADDRESS_URL = "type.googleapis.com/hashicorp.consul.internal.peerstream.LeaderAddress";

/** `ResponseMessage.resourceId` of the types that are not services. */
export const ResourceId = {
  exportedServiceList: "exported-service-list",
  trustBundle: "roots",
  serverAddresses: "server-addrs",
} as const;
