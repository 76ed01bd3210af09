import type { Peering, TrustBundle } from "../peering/peering.js";
import type { PeeringRecords } from "../stores/records.js";
import type { DialRule } from "./dial-rule.js";
import type { VirtualIpClaims } from "./virtual-ip-claims.js";

/** The changed part of a {@link HostView}. */
export type HostChange =
  | {
      readonly type: "peering";
      /** Our own id of the peering. */
      readonly id: string;
      /** Its record now; undefined once it is removed. */
      readonly peering: Peering | undefined;
    }
  | { readonly type: "trust-bundles" };

/**
 * The stored peerings of a host and the trust bundles of its peers, for programs that serve a host to clients: for reads with
 * an index, and for waits until that grows.
 *
 * Everything is in memory and is read without waiting. Reads without an `await` between them see one moment, that of
 * {@link index}. A change is seen by readers before {@link onChange} tells it. Where the state of a peering
 * is asked for, with its stream, read `host.peerings`.
 */
export class HostView {
  readonly #records: PeeringRecords;
  readonly #virtualIps: Pick<VirtualIpClaims, "settled">;
  readonly #dialRule: DialRule;

  /** @internal */
  constructor(parts: {
    readonly records: PeeringRecords;
    readonly virtualIps: Pick<VirtualIpClaims, "settled">;
    readonly dialRule: DialRule;
  }) {
    this.#records = parts.records;
    this.#virtualIps = parts.virtualIps;
    this.#dialRule = parts.dialRule;
  }

  /** Of the last change of any record; after a start, of the storage. It only grows. */
  get index(): bigint {
    return this.#records.index;
  }

  /** The record of a peering, by its name without regard to case; undefined where there is none. */
  peering(name: string): Peering | undefined {
    return this.#records.byName(name);
  }

  /** All records, by name. */
  peerings(): readonly Peering[] {
    return this.#records.list();
  }

  /** Of the last change of any trust bundle; after a start, of the storage. It only grows. */
  get trustBundlesIndex(): bigint {
    return this.#records.bundleIndex;
  }

  /** When the trust bundle of a peer last changed; where there is none, {@link trustBundlesIndex}. */
  trustBundleIndex(peerName: string): bigint {
    return this.#records.trustBundleIndex(peerName);
  }

  /** The trust bundle of a peer; undefined where there is none, or it names a trust domain that it may not name. */
  trustBundle(peerName: string): TrustBundle | undefined {
    return this.#records.trustBundle(peerName);
  }

  /** All trust bundles that {@link trustBundle} gives, by the name of the peer. */
  trustBundles(): readonly TrustBundle[] {
    return this.#records.trustBundles();
  }

  /**
   * Calls `listener` at once after each stored change, before the call that made it returns. It must not throw. To be called
   * before the read that a wait begins with.
   * @returns Ends it.
   */
  onChange(listener: (change: HostChange) => void): () => void {
    const forget = [
      this.#records.onChange(({ peeringId, peering }) => listener({ type: "peering", id: peeringId, peering })),
      this.#records.onBundlesChange(() => listener({ type: "trust-bundles" })),
    ];
    return () => {
      for (const stop of forget) stop();
    };
  }

  /** As {@link onChange}, for changes of the record of that name alone, compared without case. @returns Ends it. */
  onChangeOf(name: string, listener: () => void): () => void {
    return this.#records.onChangeOf(name, () => listener());
  }

  /**
   * Whether an IP address that a peer named, such as that of a mesh gateway, may be dialed (`HostOptions.forbiddenAddresses`). A
   * refusal is reported.
   */
  mayDial(peerName: string, ip: string): boolean {
    return this.#dialRule.mayDial(peerName)(ip);
  }

  /**
   * Resolves when reads of the catalog show the effects of the config entries written before: the virtual addresses of the
   * services that they name. Never rejects.
   */
  settled(): Promise<void> {
    return this.#virtualIps.settled();
  }
}
