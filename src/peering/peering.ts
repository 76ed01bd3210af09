import type { RemoteInfo } from "../wire/messages.js";

/** The states of a stored record. ACTIVE and FAILING are observed, never stored: see `reportedState`. */
export type StoredState = "pending" | "establishing" | "deleting" | "terminated";

/**
 * Every state of a peering's life. `initial`: before the first write, never on the wire. `undefined`: a number this
 * version does not know, received from elsewhere.
 */
export type PeeringState = "initial" | StoredState | "active" | "failing" | "undefined";

export type Role = "acceptor" | "dialer";

/** The stored record of one peering. */
export interface Peering {
  /** Our own UUID of it. Immutable. */
  readonly id: string;
  /** Our alias for the peer: a DNS label, unique, immutable. */
  readonly name: string;
  readonly state: StoredState;
  /** Milliseconds since the epoch; set exactly while `deleting`. */
  readonly deletedAt?: number;
  readonly meta: Readonly<Record<string, string>>;
  /** Dialer: the acceptor's UUID of the peering. Acceptor: always `""`. */
  readonly peerId: string;
  readonly peerCaPems: readonly string[];
  readonly peerServerName: string;
  readonly peerServerAddresses: readonly string[];
  readonly manualServerAddresses: readonly string[];
  readonly remote: RemoteInfo;
  readonly createIndex: bigint;
  readonly modifyIndex: bigint;
}

/** A cluster's identity as a peer trusts it. */
export interface TrustBundle {
  readonly trustDomain: string;
  /** Our alias for the cluster it belongs to. */
  readonly peerName: string;
  readonly rootPems: readonly string[];
  /** Enterprise; `""` in Community Edition. */
  readonly exportedPartition: string;
}

/** The role, which nothing else records: a record with addresses to dial is a dialer's. */
export function shouldDial(peering: Pick<Peering, "peerServerAddresses" | "manualServerAddresses">): boolean {
  return peering.peerServerAddresses.length > 0 || peering.manualServerAddresses.length > 0;
}

/** Manual addresses win and are never changed by pushes. */
export function addressesToDial(
  peering: Pick<Peering, "peerServerAddresses" | "manualServerAddresses">,
): readonly string[] {
  return peering.manualServerAddresses.length > 0 ? peering.manualServerAddresses : peering.peerServerAddresses;
}

/** States in which events have different effects; see the table of the state machine. */
export type StateColumn = "initial" | "living" | "deleting" | "terminated" | "undefined";

/** ACTIVE and FAILING behave as the stored state of their role. */
export const COLUMN_OF: Readonly<Record<PeeringState, StateColumn>> = {
  initial: "initial",
  pending: "living",
  establishing: "living",
  active: "living",
  failing: "living",
  deleting: "deleting",
  terminated: "terminated",
  undefined: "undefined",
};

/** Exists, not terminated, not being deleted. Not the same as ACTIVE. */
export function isActive(peering: { readonly state: PeeringState } | undefined): boolean {
  return peering !== undefined && COLUMN_OF[peering.state] === "living";
}

export function roleOf(peering: Pick<Peering, "peerServerAddresses" | "manualServerAddresses">): Role {
  return shouldDial(peering) ? "dialer" : "acceptor";
}

export function isRemoteEmpty(remote: RemoteInfo): boolean {
  const { partition, datacenter, locality } = remote;
  const nowhere = locality === undefined || (locality.region === "" && locality.zone === "");
  return partition === "" && datacenter === "" && nowhere;
}

export function withNewline(pem: string): string {
  return pem.endsWith("\n") ? pem : `${pem}\n`;
}
