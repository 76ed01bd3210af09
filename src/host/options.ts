import type { Clock, Logger, Random } from "../base/environment.js";
import type { Incidents } from "../base/incidents.js";
import { type ChainLimits, defaultChainLimits } from "../config/config-entry-set.js";
import type { TransitRule } from "../exports/transit.js";
import type { CatalogSource } from "../model/catalog-source.js";
import type { Locality } from "../model/instance.js";
import { defaultWriteLimits, type WriteLimits } from "../model/write-limits.js";
import { defaultSessionLimits } from "../replication/session.js";
import type { SessionLimits, SessionTimings } from "../replication/types.js";
import type { Storage } from "../storage/storage.js";
import { defaultImportLimits, type ImportLimits } from "../stores/import-store.js";
import type { Transport } from "../transport/transport.js";
import type { CertificateAuthority } from "../trust/authority.js";
import type { SecretBox } from "../trust/secret-box.js";
import { defaultIdentityLimits, type IdentityLimits } from "../wire/resources.js";
import type { CheckLimits } from "./agent-checks.js";
import type { Leadership } from "./leadership.js";
import { defaultLeafLimits, type LeafLimits } from "./leaf-certificates.js";
import { defaultReceiveLimits, type ReceiveLimits } from "./stream-link.js";

/** How a host is composed. Everything it is given it owns from then on, and disposes of with itself. */
export interface HostOptions {
  /** Name of this cluster's datacenter. Default `"dc1"`. It is part of the server name in tokens: do not change it later. */
  readonly datacenter?: string;
  /**
   * Name of the node that this host is: registrations at `/v1/agent` belong to it, and its checks run here. Each of several hosts on
   * one storage that have one name runs them: give them names of their own, or no checks that must run once. Default `"peerage"`.
   */
  readonly nodeName?: string;
  /** Bounds of the checks that this host runs for its node. */
  readonly checks?: CheckLimits;
  /** Where this cluster runs, sent to peers of Consul 1.16 and later. */
  readonly locality?: Locality;
  readonly storage: Storage;
  readonly transport: Transport;
  /** Default: the built-in one, with its root in `storage`. */
  readonly authority?: CertificateAuthority;
  /**
   * Which services of one peer are carried over to another, beside what `exported-services` exports. A service goes to no
   * cluster that it came through, and a local one of the same name goes first. Instances keep their addresses, so
   * the clusters that import them must be able to reach those. Default: none.
   */
  readonly transit?: readonly TransitRule[];
  /** Where our own services come from. Default: the built-in catalog, in `storage`. */
  readonly catalogSource?: CatalogSource;
  /** `host:port` of our gRPC endpoints as peers reach them, for tokens and pushes. Default: where the transport listens. */
  readonly advertise?: readonly string[];
  /**
   * Seals the secrets that are stored: stream secrets of a dialer, CA keys. Secrets that are stored unsealed or with an
   * older key of the box, is sealed with the newest key at the start. Default: stored as they are.
   */
  readonly secretBox?: SecretBox;
  /** Whether exported services can be reached through mesh gateways. Default true, as `connect.enabled` of a Consul server. */
  readonly connect?: boolean;
  /**
   * Ranges of IP addresses, such as `10.0.0.0/8`, that are not dialed, whatever a token or a peer says: a token that holds
   * such an address is refused, and so are server addresses that a peer sends; of a name, those of its addresses. An empty
   * list forbids none. Default: `defaultForbiddenAddresses`, which are link-local, unspecified, multicast and metadata
   * addresses; loopback and private ones may be dialed.
   */
  readonly forbiddenAddresses?: readonly string[];
  /** Off: nothing is accepted, dialed or cleaned up, and every call of `peerings` is refused. Default true. */
  readonly peeringEnabled?: boolean;
  /**
   * Which node runs the streams, where several share one storage. Default: this one. A host reads records and imports when
   * it starts, and not again when it comes to lead: start it then, until this is mended.
   */
  readonly leadership?: Leadership;
  /**
   * Behaves as Consul also where ours is better and it shows on the wire: chain-only names in the list (D-25), the end of a
   * stream whose resources cannot be stored (D-31), no port beside several (D-53), `maintenance` as a status (D-52). For conformance runs. Default false.
   */
  readonly strictConsul?: boolean;
  /** Default: Consul's. */
  readonly timings?: Partial<SessionTimings>;
  readonly limits?: Partial<HostLimits>;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Default: silent. */
  readonly logger?: Logger;
  /** Counts refusals by limits, and failures that no caller sees. Pass one to everything in a process. Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
}

/** Bounds on the data that peers and writers can make a host hold: of a whole host, of the imports from a peer, and of a single stream. */
export interface HostLimits
  extends ImportLimits,
    SessionLimits,
    ReceiveLimits,
    IdentityLimits,
    ChainLimits,
    WriteLimits,
    LeafLimits {
  /** By how many clusters a service may be carried over before it gets to a peer of ours, us included. Default 4. */
  readonly transitHops: number;
  /**
   * Unauthorised opens and exchanges taken per second from one source: an IPv4 address, or the /64 of an IPv6 one.
   * Default 200; beyond this and the next three: RESOURCE_EXHAUSTED.
   */
  readonly unauthorizedPerSecond: number;
  /**
   * The same for all sources together. Default 2 000; of the second half a network, an IPv4 /24 or an IPv6 /56, gets the
   * less, the more it has had.
   */
  readonly unauthorizedPerSecondInAll: number;
  /** Streams of one source that are open and wait to be authorised. Default 100. */
  readonly unauthorizedStreams: number;
  /**
   * The same for all sources together. Default 1 000; beyond this a new one gets the place of one that has said nothing for 2 s, or
   * of the source that has most.
   */
  readonly unauthorizedStreamsInAll: number;
  /** Largest message sent to an acceptor. Default 50 MiB, the most that Consul's accepts. */
  readonly maxSendToAcceptorBytes: number;
  /** Largest message sent to a dialer. Default 8 MiB, the most that Consul's accepts from 1.14.2 on. */
  readonly maxSendToDialerBytes: number;
}

export const defaultLimits: HostLimits = {
  ...defaultImportLimits,
  ...defaultSessionLimits,
  ...defaultReceiveLimits,
  ...defaultIdentityLimits,
  ...defaultChainLimits,
  ...defaultWriteLimits,
  ...defaultLeafLimits,
  transitHops: 4,
  unauthorizedPerSecond: 200,
  unauthorizedPerSecondInAll: 2_000,
  unauthorizedStreams: 100,
  unauthorizedStreamsInAll: 1_000,
  maxSendToAcceptorBytes: 50 * 1024 * 1024,
  maxSendToDialerBytes: 8 * 1024 * 1024,
};
