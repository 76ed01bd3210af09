import type { PeeringError } from "../base/errors.js";
import type { OpenMessage, RemoteInfo, ReplicationMessage } from "../wire/messages.js";
import type { Status } from "../wire/status.js";

/** Something we export, encoded once per change and shared by every stream that carries it. */
export interface ExportedResource {
  /** One of the four type URLs; it also decides the lane. */
  readonly resourceUrl: string;
  readonly resourceId: string;
  /** The encoded payload (the value of the `Any`). */
  readonly value: Uint8Array;
  /** Equal digests are equal payloads: a payload that was sent last under this URL and id on this stream is not sent again. */
  readonly digest: string;
  /** For the exported-service list: its names, for status. */
  readonly names?: readonly string[];
}

/** Something the peer exports, checked as far as the envelope goes; the payload is untrusted still. */
export interface ReceivedResource {
  readonly resourceUrl: string;
  readonly resourceId: string;
  readonly value: Uint8Array;
}

/** The outcome of an `apply`. */
export interface AppliedResult {
  readonly id: number;
  /**
   * Why it was not applied. `storage-failed`, `storage-damaged` and `unavailable`: the storage's fault, the stream is closed after the NACK
   * so that the next one re-syncs (D-31). Anything else: the payload's fault, the stream goes on.
   */
  readonly error?: PeeringError;
}

export type SessionInput =
  /** Once, first. A dialer sends its `Open` and subscriptions; an acceptor waits for the peer's. */
  | { readonly type: "start" }
  /** From the peer, in order: untrusted. */
  | { readonly type: "received"; readonly messages: readonly ReplicationMessage[] }
  /** The peer sent bytes that are no message: the stream ends with INTERNAL. */
  | { readonly type: "undecodable"; readonly error: PeeringError }
  /** Nothing more will come: the peer half-closed or ended the call with OK (no `error`), or the stream broke. */
  | { readonly type: "receive-ended"; readonly error?: PeeringError }
  /** Acceptor, answer to `authorize`. */
  | { readonly type: "authorized" }
  /** Acceptor, answer to `authorize`: the call ends with `status`, after a `Terminated` where `terminated` is set. */
  | { readonly type: "refused"; readonly status: Status; readonly terminated: boolean }
  /** Our exports moved: newest state of these resources. Given before the peer subscribes, they wait. */
  | { readonly type: "exported"; readonly resources: readonly ExportedResource[] }
  /**
   * These services are no longer exported: their queued updates are dropped, and nothing is sent (D-26). Consul
   * 1.13, which knows no list, gets a deletion for each.
   */
  | { readonly type: "withdrawn"; readonly resourceIds: readonly string[] }
  | { readonly type: "applied"; readonly results: readonly AppliedResult[] }
  /**
   * The transport took all that was sent so far and can take more: about this many bytes until the next one. Credit that
   * was left from before is void.
   */
  | { readonly type: "writable"; readonly bytes: number }
  | { readonly type: "leadership"; readonly leader: boolean; readonly leaderAddress: string }
  /** The local record was deleted or terminated: `Terminated` is sent, then the stream drains. */
  | { readonly type: "stop" }
  /** Ends the stream at once with this status, never with `Terminated` (replaced, host shut down). */
  | { readonly type: "abort"; readonly status: Status }
  | { readonly type: "tick" };

export type SessionOutput =
  /** Acceptor: judge this `Open` against the records, then say `authorized` or `refused`. */
  | { readonly type: "authorize"; readonly open: OpenMessage }
  | { readonly type: "send"; readonly message: ReplicationMessage }
  /** Commit it, then say `applied` with this id. A newer one of the same URL and id supersedes it. */
  | { readonly type: "apply"; readonly id: number; readonly resource: ReceivedResource }
  /** The peer deleted the peering: mark the record TERMINATED. The session then drains. */
  | { readonly type: "peer-terminated" }
  /** A resource is larger than the peer can receive: it alone is not sent, the peer keeps its last version (D-28). */
  | {
      readonly type: "held-back";
      readonly resourceUrl: string;
      readonly resourceId: string;
      readonly bytes: number;
      readonly limit: number;
    }
  /** Dialer: end our direction after the messages sent so far. */
  | { readonly type: "half-close" }
  /**
   * Last output. Acceptor: end the call with `status`; dialer: close the connection.
   * `error` is absent when the end was graceful (`Terminated` in either direction).
   */
  | { readonly type: "close"; readonly status: Status; readonly error?: PeeringError };

/** Times and limits, in milliseconds and bytes. Defaults follow Consul 1.14 to 1.22, or are ours where marked. */
export interface SessionTimings {
  /** Default 15 000. */
  readonly heartbeatIntervalMs: number;
  /** Silence after which a stream counts as lost; only heartbeats count. Default 120 000. */
  readonly heartbeatTimeoutMs: number;
  /** Ours (D-10): queued and nothing accepted for so long ends the stream. Default 120 000. */
  readonly sendStallMs: number;
  /** Ours (D-2): how long to drain after `Terminated`. Default 5 000. */
  readonly drainMs: number;
}

/** Ours: the most that a stream may hold for a peer that floods us or never reads. Beyond, it ends with `resource-exhausted`. */
export interface SessionLimits {
  /** ACKs and NACKs that wait to be sent, in bytes. Default 64 MiB, room for about 300 000. */
  readonly answerBytes: number;
  /** Responses received and not applied yet. Default 1 000 000. */
  readonly applies: number;
  /** The payloads of those, in bytes. Default 512 MiB. */
  readonly applyBytes: number;
}

export type SessionOptions = {
  /** Default: Consul's, see {@link SessionTimings}. */
  readonly timings?: Partial<SessionTimings>;
  readonly limits?: Partial<SessionLimits>;
  /**
   * Largest message the peer accepts, in bytes: 8 MiB towards a dialer, 50 MiB towards an acceptor. Consul 1.13, and a
   * peer that has not proven newer, is sent no more than 4 MiB whatever this says.
   */
  readonly maxSendBytes: number;
  /** Keeps the stream after a storage failure, as Consul does. Default false. */
  readonly strictConsul?: boolean;
} & (
  | { readonly role: "acceptor" }
  | {
      readonly role: "dialer";
      /** The acceptor's id of the peering: `PeerID` of `Open` and of every subscription. */
      readonly remoteId: string;
      readonly streamSecretId: string;
      readonly remote: RemoteInfo;
    }
);

export type SessionPhase = "opening" | "connected" | "draining" | "closed";

/** Consul 1.13 (`legacy`) or later (`modern`), detected on each stream (D-50). */
export type SessionDialect = "unknown" | "legacy" | "modern";

/**
 * Facts about one stream. Times are on the clock of `nowMs`; undefined means it did not happen yet. The sets and maps are
 * views that go on changing with the session.
 */
export interface SessionStatus {
  /** `connected`: acceptor, from the accepted `Open`; dialer, from the acceptor's first message (D-7). */
  readonly phase: SessionPhase;
  readonly connectedAtMs: number | undefined;
  readonly dialect: SessionDialect;
  /** Type URLs the peer subscribed to. */
  readonly subscriptions: ReadonlySet<string>;
  readonly lastAckMs: number | undefined;
  readonly lastNackMs: number | undefined;
  readonly lastNackMessage: string;
  readonly lastSendSuccessMs: number | undefined;
  readonly lastHeartbeatInMs: number | undefined;
  readonly lastHeartbeatOutMs: number | undefined;
  readonly lastReceiveSuccessMs: number | undefined;
  readonly lastReceiveErrorMs: number | undefined;
  readonly lastReceiveErrorMessage: string;
  /**
   * Names of the last exported-service list sent; undefined before. Consul 1.13 knows no list: the services it was sent
   * instances of, synthetic sidecars included.
   */
  readonly exportedServices: readonly string[] | undefined;
  /** Resources waiting to be sent, with their bytes. */
  readonly queuedResources: number;
  readonly queuedBytes: number;
  /** Resources whose newest sent version the peer has not answered yet. */
  readonly unacknowledged: number;
  /** ACKs and NACKs waiting to be sent, in bytes. */
  readonly answerBytes: number;
  /** Since when the transport has taken nothing although something waits; undefined while nothing waits or all flows. */
  readonly stalledSinceMs: number | undefined;
  /** Responses received and not applied yet, and about their bytes. */
  readonly applying: number;
  readonly applyingBytes: number;
  /** Services too large for the peer, by id (resources of the other types: by type URL), with their size in bytes. */
  readonly heldBack: ReadonlyMap<string, number>;
  /** Resources that the peer refused (NACK), keyed as `heldBack`, with its message; until a newer version is acknowledged. */
  readonly refusedByPeer: ReadonlyMap<string, string>;
}

/**
 * How far the newest version of a service of ours has come: it waits to be sent, was sent, was acknowledged or refused, or
 * is too large for the peer.
 */
export type ExportProgress = "queued" | "sent" | "acknowledged" | "refused" | "held-back";

/** The single services on a stream, by name; copies. */
export interface SessionServices {
  readonly exported: ReadonlyMap<string, ExportProgress>;
  /** The peer's: received and not applied yet. */
  readonly applying: ReadonlySet<string>;
}

/** The protocol of one stream as a value: see `session.ts`. */
export interface Session {
  /**
   * Returns the outputs that the host performs next, in order. A malformed message becomes a NACK or a `close`, never a throw.
   * @param nowMs - monotonic milliseconds, never less than in the call before.
   */
  handle(input: SessionInput, nowMs: number): readonly SessionOutput[];
  /** When the next `tick` is due, on the clock of `nowMs`; undefined once closed. */
  readonly deadlineMs: number | undefined;
  /** Whether something waits for `writable`: to be sent, or to be known as taken by the transport. */
  readonly wantsToSend: boolean;
  readonly status: SessionStatus;
  /** As {@link SessionStatus}, service by service. Its cost grows with their number. */
  services(): SessionServices;
}
