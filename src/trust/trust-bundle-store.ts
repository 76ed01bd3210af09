import { type Abortable, signalOf } from "../base/abortable.js";
import type { Closable } from "../base/closable.js";
import type { Clock, Logger } from "../base/environment.js";
import { silentLogger } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { latest } from "../base/latest.js";
import { Signal } from "../base/signal.js";
import type { TrustBundle } from "../peering/peering.js";
import type { Expendable } from "../storage/replica.js";
import type { Key, Storage } from "../storage/storage.js";
import { type Stored, StoredTable } from "../storage/stored-table.js";
import { blocksAtMost, certificatesIn } from "../token/pem.js";
import { defaultIdentityLimits, type IdentityLimits } from "../wire/resources.js";
import type { CertificateAuthority } from "./authority.js";
import { fingerprintOf } from "./pem.js";
import { claimedSince, rootsOf, type StoredClaim, TrustDomains, type WithheldReason } from "./trust-domains.js";

/** Below it, one entry per peering that sent us a bundle. */
export const TRUST_BUNDLES_PREFIX: Key = ["trust-bundles"];

/** The size limit of one entry: far above that of any certificate. */
const MAX_ENTRY_CHARACTERS = 64 * 1024;

/**
 * The bundle as it may be stored, if it may be (D-23): it has roots, and each entry holds a certificate. Each certificate is
 * stored once, as its own PEM: other text in an entry would be stored and shown for nothing. Consul
 * stores anything, and dials in plaintext after an empty one.
 * @throws {PeeringError} `invalid-bundle`.
 */
export function validateBundle<Bundle extends Pick<TrustBundle, "rootPems">>(
  bundle: Bundle,
  { rootsPerPeer, trustBundleBytes }: Pick<IdentityLimits, "rootsPerPeer" | "trustBundleBytes"> = defaultIdentityLimits,
): Bundle {
  const { rootPems } = bundle;
  if (rootPems.length > rootsPerPeer || rootPems.some((pem) => pem.length > MAX_ENTRY_CHARACTERS)) throw tooMuch();
  // Before any is parsed, which takes many times as long as to look for it.
  if (blocksAtMost(rootPems) > 2 * rootsPerPeer) throw tooMuch();
  const roots = rootsOf(bundle);
  if (roots === undefined) throw new PeeringError("invalid-bundle", "trust bundle without a usable root certificate");
  // A last newline that is missing makes no other entry of it.
  const given = new Set(rootPems);
  const kept = Array.from(roots.values(), (pem) => (given.has(pem.trimEnd()) ? pem.trimEnd() : pem));
  let bytes = 0;
  for (const pem of kept) bytes += pem.length;
  if (kept.length > rootsPerPeer || bytes > trustBundleBytes) throw tooMuch();
  return { ...bundle, rootPems: kept };
}

function tooMuch(): PeeringError {
  return new PeeringError("invalid-bundle", "trust bundle with too many or too large root certificates");
}

/**
 * The stored form of a bundle: JSON, for it is small, rare and worth reading in a dump.
 * @param since - {@link Claim.since}; where it is left out, it is the revision of the entry.
 */
export function encodeTrustBundle(bundle: TrustBundle, since?: bigint): Uint8Array {
  const { trustDomain, peerName, rootPems, exportedPartition } = bundle;
  const claim = since === undefined ? {} : { claimedSince: since.toString() };
  return new TextEncoder().encode(JSON.stringify({ trustDomain, peerName, rootPems, exportedPartition, ...claim }));
}

/** A bundle as stored; `since` is undefined where it is the revision of the entry. */
export interface StoredBundle {
  readonly bundle: TrustBundle;
  readonly since: bigint | undefined;
}

/** The bundle that was stored, or undefined where the bytes are not one. */
export function decodeTrustBundle(value: Uint8Array): StoredBundle | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(value));
  } catch {
    return undefined;
  }
  if (typeof parsed !== "object" || parsed === null) return undefined;
  const fields = new Map<string, unknown>(Object.entries(parsed));
  const trustDomain = fields.get("trustDomain");
  const peerName = fields.get("peerName");
  const rootPems = fields.get("rootPems");
  const exportedPartition = fields.get("exportedPartition");
  const since = fields.get("claimedSince");
  if (typeof trustDomain !== "string" || typeof peerName !== "string" || typeof exportedPartition !== "string") {
    return undefined;
  }
  if (!Array.isArray(rootPems) || !rootPems.every((pem): pem is string => typeof pem === "string")) return undefined;
  const bundle = { trustDomain, peerName, rootPems, exportedPartition };
  if (since === undefined) return { bundle, since };
  return typeof since === "string" && /^[1-9][0-9]{0,19}$/.test(since) ? { bundle, since: BigInt(since) } : undefined;
}

/** A peer sends its bundle on each stream. */
export function expendableBundles(has: (key: Key) => boolean): Expendable {
  return {
    has,
    incident: "trust-bundle-damaged",
    message: "a stored trust bundle is damaged, and awaited from the peer",
  };
}

/** The trusted roots at one moment. */
export interface TrustBundleView {
  /** Every stored bundle that is not withheld, sorted by peer name. */
  readonly bundles: readonly TrustBundle[];
  /** Our own roots, then those of these bundles; distinct, one certificate each, PEM ending in a newline. */
  readonly union: readonly string[];
  /** Bundles that are stored and not handed out, by lower-cased peer name. */
  readonly withheld: ReadonlyMap<string, WithheldReason>;
}

export interface TrustBundlesOptions {
  /** Our own trust domain and roots. */
  readonly authority: Pick<CertificateAuthority, "trustDomain" | "roots" | "onRootsChanged">;
  /** Default: silent. */
  readonly logger?: Logger;
  /** Gets a report of each bundle that begins to be withheld (`trust-bundle-withheld`). Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
}

export interface TrustBundleStoreOptions extends TrustBundlesOptions {
  readonly storage: Storage;
  /** For the waits after the storage failed. Default: the system's. */
  readonly clock?: Clock;
}

/** The trust bundles of all peers as readers see them: those that are not withheld, and every root to trust. */
export class TrustBundles implements Closable {
  readonly #authority: TrustBundlesOptions["authority"];
  readonly #incidents: Incidents;
  readonly #domains: TrustDomains;
  readonly #changes: Signal;
  #closed = false;
  readonly #stopListening: () => void;
  /** Made when it is asked for; undefined since the last change. */
  #madeView: TrustBundleView | undefined;

  /** @internal @param domains - the bundles. The caller calls `changed` after each change of them. */
  constructor(domains: TrustDomains, options: TrustBundlesOptions) {
    const { authority, logger = silentLogger, incidents = new Incidents({ logger }) } = options;
    this.#authority = authority;
    this.#incidents = incidents;
    this.#changes = new Signal(incidents);
    this.#domains = domains;
    this.#stopListening = authority.onRootsChanged(() => this.#changed());
    this.#reportWithheld(domains.allWithheld().keys());
  }

  /** @internal Has watches tell the bundles again. @param withheld - names of peers whose bundles are withheld since the last change. */
  changed(withheld: Iterable<string>): void {
    this.#reportWithheld(withheld);
    this.#changed();
  }

  /** The bundle of a peering; undefined where there is none, or it is withheld. */
  read(peerName: string): TrustBundle | undefined {
    const name = peerName.toLowerCase();
    return this.#domains.withheld(name) === undefined ? this.#domains.claims.get(name)?.bundle : undefined;
  }

  /** Every bundle that is not withheld, sorted by peer name. */
  list(): readonly TrustBundle[] {
    return this.#view.bundles;
  }

  /** Every root to trust: see {@link TrustBundleView.union}. Of all peers together; a proxy gets fewer. */
  union(): readonly string[] {
    return this.#view.union;
  }

  /** The bundles that are stored and not handed out, and why. */
  withheld(): ReadonlyMap<string, WithheldReason> {
    return this.#view.withheld;
  }

  /**
   * The view now, and again after each change of a bundle or of our own roots. Views in between may be skipped, the
   * newest never is. Ends when `signal` aborts or the store is disposed of.
   */
  watch(options: Abortable = {}): AsyncGenerator<TrustBundleView, void, undefined> {
    return latest({
      signal: signalOf(options),
      isClosed: () => this.#closed,
      subscribe: (wake) => this.#changes.on(wake),
      read: () => this.#view,
    });
  }

  /** Ends every watch. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#changes.emit();
    this.#stopListening();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #changed(): void {
    this.#madeView = undefined;
    this.#changes.emit();
  }

  #reportWithheld(peers: Iterable<string>): void {
    for (const peer of peers) {
      const reason = this.#domains.withheld(peer)?.reason;
      const trustDomain = this.#domains.claims.get(peer)?.bundle.trustDomain;
      this.#incidents.report("trust-bundle-withheld", "trust bundle is withheld", { peer, reason, trustDomain });
    }
  }

  get #view(): TrustBundleView {
    this.#madeView ??= this.#viewOfNow();
    return this.#madeView;
  }

  #viewOfNow(): TrustBundleView {
    const reasons = this.#domains.allWithheld();
    const withheld = new Map([...reasons].map(([name, { reason }]) => [name, reason]));
    const served = [...this.#domains.claims]
      .filter(([name]) => !withheld.has(name))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, { bundle }]) => bundle);
    const union = new Map<string, string>();
    for (const { certificatePem } of this.#authority.roots()) {
      for (const { pem, certificate } of certificatesIn(certificatePem)) union.set(fingerprintOf(certificate), pem);
    }
    for (const bundle of served) {
      for (const [fingerprint, pem] of this.#domains.rootsOf(bundle) ?? []) union.set(fingerprint, pem);
    }
    return { bundles: served, union: [...union.values()], withheld };
  }
}

/**
 * The trust bundles of all peers, kept in a storage and read from memory, for applications that keep peerings themselves. A host
 * keeps them with its peerings.
 */
export class TrustBundleStore extends TrustBundles {
  readonly #table: StoredTable<StoredBundle>;
  readonly #stored: TrustDomains;

  private constructor(table: StoredTable<StoredBundle>, stored: TrustDomains, options: TrustBundlesOptions) {
    super(stored, options);
    this.#table = table;
    this.#stored = stored;
    table.onChange(({ changes }) => {
      const withheld: string[] = [];
      for (const { path, after } of changes)
        withheld.push(...stored.set(path.join("/"), after && claimOf(after)).withheld);
      this.changed(withheld);
    });
  }

  /** Reads the stored bundles. @throws {PeeringError} `storage-failed`, `closed`: from the storage. */
  static async open(options: TrustBundleStoreOptions): Promise<TrustBundleStore> {
    const { storage, authority, clock, logger = silentLogger, incidents = new Incidents({ logger }) } = options;
    const table = await StoredTable.open<StoredBundle>({
      storage,
      prefix: TRUST_BUNDLES_PREFIX,
      rowName: "trust bundle",
      format: {
        encode: ({ bundle, since }) => encodeTrustBundle(bundle, since),
        decode: (_path, value) => {
          const row = decodeTrustBundle(value);
          if (row === undefined) throw new TypeError("it is no trust bundle");
          return { row };
        },
      },
      expendable: expendableBundles(() => true),
      clock,
      incidents,
    });
    const claims = Array.from(
      table.rows(),
      (stored) => [stored.row.bundle.peerName.toLowerCase(), claimOf(stored)] as const,
    );
    return new TrustBundleStore(table, new TrustDomains(authority.trustDomain, claims), { ...options, incidents });
  }

  /**
   * Stores a bundle in place of the peer's former one.
   * @throws {PeeringError} `invalid-bundle`: it has no usable roots, or names a trust domain that it may not name (see
   *   {@link WithheldReason}); nothing was changed. `storage-failed`, `unavailable`, `closed`: storage.
   */
  async write(given: TrustBundle): Promise<void> {
    const bundle = validateBundle(given);
    const name = bundle.peerName.toLowerCase();
    await this.#table.write(() => {
      this.#stored.requireFree(name, bundle);
      const since = claimedSince(this.#stored.claims.get(name), bundle);
      return { writes: [{ path: [name], row: { bundle, since } }], result: () => {} };
    });
  }

  /** Forgets the bundle of a peering. @throws {PeeringError} `storage-failed`, `unavailable`, `closed`: storage. */
  async remove(peerName: string): Promise<void> {
    const name = peerName.toLowerCase();
    await this.#table.write(() => ({
      writes: this.#stored.claims.has(name) ? [{ path: [name], row: undefined }] : [],
      result: () => {},
    }));
  }

  /** Ends every watch, and waits for writes that were begun. The storage is the caller's and stays open. */
  override async close(): Promise<void> {
    await super.close();
    await this.#table[Symbol.asyncDispose]();
  }
}

function claimOf({ row, revision }: Stored<StoredBundle>): StoredClaim {
  return { bundle: row.bundle, since: row.since ?? revision };
}
