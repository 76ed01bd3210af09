import type { Logger } from "../environment.js";
import { silentLogger } from "../environment.js";
import { PeeringError } from "../errors.js";
import { Incidents } from "../incidents.js";
import type { TrustBundle } from "../peering/peering.js";
import { readExpendable } from "../storage/expendable.js";
import type { Entry, Key, Snapshot, Storage, Write } from "../storage/storage.js";
import { certificatesIn } from "../token/pem.js";
import { defaultIdentityLimits, type IdentityLimits } from "../wire/resources.js";
import type { CertificateAuthority } from "./authority.js";
import { fingerprintOf } from "./pem.js";
import { claimedSince, rootsOf, type StoredClaim, TrustDomains, type WithheldReason } from "./trust-domains.js";

/** Below it, one entry per peering that sent us a bundle. */
export const TRUST_BUNDLES_PREFIX: Key = ["trust-bundles"];

/** Where the bundle of a peering is kept. Peer names compare without case. */
export function trustBundleKey(peerName: string): Key {
  return [...TRUST_BUNDLES_PREFIX, peerName.toLowerCase()];
}

/** Of one entry, whatever is in it: far above what a certificate takes. */
const MOST_ENTRY_CHARACTERS = 64 * 1024;

/**
 * The bundle as it may be stored, if it may be (D-23): it has roots, and each entry holds a certificate. Each certificate is
 * stored once, as its own PEM: other text in an entry would be stored and shown for nothing. Consul
 * stores anything, and dials in plaintext after an empty one.
 * @throws {PeeringError} `invalid-bundle`.
 */
export function validateBundle<Bundle extends Pick<TrustBundle, "rootPems">>(
  bundle: Bundle,
  { rootsPerPeer, trustBundleBytes }: Omit<IdentityLimits, "addressesPerPeer"> = defaultIdentityLimits,
): Bundle {
  const { rootPems } = bundle;
  if (rootPems.length > rootsPerPeer || rootPems.some((pem) => pem.length > MOST_ENTRY_CHARACTERS)) throw tooMuch();
  // Before any is parsed, which takes many times as long as to look for it.
  if (beginnings(rootPems) > 2 * rootsPerPeer) throw tooMuch();
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

function beginnings(texts: readonly string[]): number {
  let count = 0;
  for (const text of texts) count += text.split("-----BEGIN").length - 1;
  return count;
}

function tooMuch(): PeeringError {
  return new PeeringError("invalid-bundle", "trust bundle with too many or too large root certificates");
}

/** The rows of all bundles. Those that are damaged are deleted first: a peer sends its bundle on each stream. */
export function readTrustBundles(storage: Storage, onDropped: (key: Key) => void): Promise<Snapshot> {
  return readExpendable(storage, TRUST_BUNDLES_PREFIX, { isExpendable: () => true, onDropped });
}

/**
 * The write that stores a bundle, for a commit that holds the peering record as well. It is not validated here.
 * @param since - of the claim that it continues.
 */
export function bundleWrite(bundle: TrustBundle, since?: bigint): Write {
  return { key: trustBundleKey(bundle.peerName), value: encodeTrustBundle(bundle, since) };
}

/** The write that deletes the bundle of a peering, also where there is none. */
export function bundleRemoval(peerName: string): Write {
  return { key: trustBundleKey(peerName), value: undefined };
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

/** The bundle that was stored, or undefined where the bytes are not one. */
export function decodeTrustBundle(value: Uint8Array): TrustBundle | undefined {
  return decodeFields(value)?.bundle;
}

/** What an entry holds, or undefined where it is no bundle. */
export function readTrustBundle(entry: Entry): StoredClaim | undefined {
  const fields = decodeFields(entry.value);
  return fields === undefined ? undefined : { bundle: fields.bundle, since: fields.since ?? entry.revision };
}

function decodeFields(value: Uint8Array): { readonly bundle: TrustBundle; readonly since?: bigint } | undefined {
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
  if (since === undefined) return { bundle };
  return typeof since === "string" && /^[1-9][0-9]{0,19}$/.test(since) ? { bundle, since: BigInt(since) } : undefined;
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

export interface TrustBundleStoreOptions {
  readonly storage: Storage;
  /** Our own trust domain and roots. */
  readonly authority: Pick<CertificateAuthority, "trustDomain" | "roots" | "onRootsChanged">;
  /** Default: silent. A warning for a bundle that cannot be read. */
  readonly logger?: Logger;
  /** Told of each bundle that begins to be withheld (`trust-bundle-withheld`). Default: one that writes to `logger`. */
  readonly incidents?: Incidents;
}

/**
 * The trust bundles of all peers, kept in storage and read from memory. A host commits a bundle together with its
 * peering record ({@link bundleWrite}, then {@link TrustBundleStore.committed}); used alone, `write` and `remove` do it.
 */
export class TrustBundleStore implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #authority: TrustBundleStoreOptions["authority"];
  readonly #logger: Logger;
  readonly #incidents: Incidents;
  #domains: TrustDomains;
  readonly #wakers = new Set<() => void>();
  readonly #stopListening: () => void;
  /** Made when somebody asks for it; undefined since the last change. */
  #madeView: TrustBundleView | undefined;
  #version = 0;
  #commits = 0;
  #closed = false;

  private constructor(options: TrustBundleStoreOptions) {
    this.#storage = options.storage;
    this.#authority = options.authority;
    this.#logger = options.logger ?? silentLogger;
    this.#incidents = options.incidents ?? new Incidents({ logger: this.#logger });
    this.#domains = new TrustDomains(options.authority.trustDomain);
    this.#stopListening = options.authority.onRootsChanged(() => this.#changed());
  }

  /** Reads the stored bundles. @throws {PeeringError} `storage-failed`, `closed`: from the storage. */
  static async open(options: TrustBundleStoreOptions): Promise<TrustBundleStore> {
    const store = new TrustBundleStore(options);
    try {
      await store.refresh();
    } catch (error) {
      await store[Symbol.asyncDispose]();
      throw error;
    }
    return store;
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
  async *watch(signal: AbortSignal): AsyncGenerator<TrustBundleView, void, undefined> {
    let seen = -1;
    while (!signal.aborted && !this.#closed) {
      if (seen === this.#version) {
        await this.#nextChange(signal);
      } else {
        seen = this.#version;
        yield this.#view;
      }
    }
  }

  /**
   * Stores a bundle in place of the peer's former one.
   * @throws {PeeringError} `invalid-bundle`: it has no usable roots, or names a trust domain that it may not name (see
   *   {@link WithheldReason}); nothing was changed. `storage-failed`, `unavailable`, `closed`: storage.
   */
  async write(given: TrustBundle): Promise<void> {
    const bundle = validateBundle(given);
    const name = bundle.peerName.toLowerCase();
    this.#domains.requireFree(name, bundle);
    const since = claimedSince(this.#domains.claims.get(name), bundle);
    this.committed(name, bundle, await this.#storage.commit([bundleWrite(bundle, since)]));
  }

  /** Forgets the bundle of a peering. @throws {PeeringError} `storage-failed`, `unavailable`, `closed`: storage. */
  async remove(peerName: string): Promise<void> {
    const revision = await this.#storage.commit([bundleRemoval(peerName)]);
    this.committed(peerName, undefined, revision);
  }

  /** Says that a commit with {@link bundleWrite} or {@link bundleRemoval} (`undefined`) of this peer has become `revision`. */
  committed(peerName: string, bundle: TrustBundle | undefined, revision: bigint): void {
    const name = peerName.toLowerCase();
    const former = this.#domains.claims.get(name);
    const { withheld } = this.#domains.set(name, bundle && { bundle, since: claimedSince(former, bundle) ?? revision });
    this.#commits++;
    this.#reportWithheld(withheld);
    this.#changed();
  }

  /** Reads everything again: for changes made by others on the same storage. */
  async refresh(): Promise<void> {
    let entries: readonly Entry[];
    let commits: number;
    do {
      // A commit during the read may be missing from it.
      commits = this.#commits;
      ({ entries } = await readTrustBundles(this.#storage, (key) => this.#reportDamage(key)));
    } while (commits !== this.#commits);
    const claims = new Map<string, StoredClaim>();
    for (const entry of entries) {
      const name = entry.key[TRUST_BUNDLES_PREFIX.length];
      if (name === undefined) continue;
      const claim = readTrustBundle(entry);
      if (claim === undefined) this.#reportDamage(entry.key);
      else claims.set(name, claim);
    }
    const before = this.#domains;
    this.#domains = new TrustDomains(this.#authority.trustDomain, claims);
    this.#reportWithheld(
      [...this.#domains.allWithheld()].flatMap(([name, { reason }]) =>
        before.withheld(name)?.reason === reason ? [] : [name],
      ),
    );
    this.#changed();
  }

  #reportDamage(key: Key): void {
    const fields = { entry: key.join("/") };
    this.#incidents.report(
      "trust-bundle-damaged",
      "a stored trust bundle is damaged, and awaited from the peer",
      fields,
    );
  }

  /** Ends every watch. The storage is the caller's and stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#stopListening();
    this.#wake();
  }

  #changed(): void {
    this.#madeView = undefined;
    this.#version++;
    this.#wake();
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

  #wake(): void {
    for (const waker of [...this.#wakers]) waker();
  }

  #nextChange(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#wakers.delete(done);
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#wakers.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }
}
