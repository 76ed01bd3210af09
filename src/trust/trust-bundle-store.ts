import type { Logger } from "../environment.js";
import { silentLogger } from "../environment.js";
import { PeeringError } from "../errors.js";
import type { TrustBundle } from "../peering/peering.js";
import type { Entry, Key, Storage, Write } from "../storage/storage.js";
import { certificatesIn } from "../token/pem.js";
import { defaultIdentityLimits, type IdentityLimits } from "../wire/resources.js";
import type { CertificateAuthority } from "./authority.js";
import { fingerprintOf } from "./pem.js";

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
 * kept once, encoded anew: what else an entry holds would stay with the peering, and be shown with it, for nothing. Consul
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

/** The write that stores a bundle, for a commit that holds the peering record as well. It is not validated here. */
export function bundleWrite(bundle: TrustBundle): Write {
  return { key: trustBundleKey(bundle.peerName), value: encodeTrustBundle(bundle) };
}

/** The write that deletes the bundle of a peering, also where there is none. */
export function bundleRemoval(peerName: string): Write {
  return { key: trustBundleKey(peerName), value: undefined };
}

/** The stored form of a bundle: JSON, for it is small, rare and worth reading in a dump. */
export function encodeTrustBundle(bundle: TrustBundle): Uint8Array {
  const { trustDomain, peerName, rootPems, exportedPartition } = bundle;
  return new TextEncoder().encode(JSON.stringify({ trustDomain, peerName, rootPems, exportedPartition }));
}

/** The bundle that was stored, or undefined where the bytes are not one. */
export function decodeTrustBundle(value: Uint8Array): TrustBundle | undefined {
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
  if (typeof trustDomain !== "string" || typeof peerName !== "string" || typeof exportedPartition !== "string") {
    return undefined;
  }
  if (!Array.isArray(rootPems) || !rootPems.every((pem): pem is string => typeof pem === "string")) return undefined;
  return { trustDomain, peerName, rootPems, exportedPartition };
}

/** Why a stored bundle is not offered to anyone who verifies with the union. */
export type WithheldReason =
  /** It announces our own trust domain: its roots would speak for our services (D-24). */
  | "own-trust-domain"
  /** Another peering announces the same trust domain with other roots; neither is believed (D-24). */
  | "trust-domain-of-another-peering"
  /** An entry of it holds no certificate. Such a bundle is refused on receipt; older data may hold one. */
  | "no-usable-root";

/** What is trusted at one moment. */
export interface TrustBundleView {
  /** Every stored bundle, sorted by peer name. */
  readonly bundles: readonly TrustBundle[];
  /** Our own roots, then those of every bundle not withheld; distinct, one certificate each, PEM ending in a newline. */
  readonly union: readonly string[];
  /** Bundles that are stored but not in the union, by lower-cased peer name. */
  readonly withheld: ReadonlyMap<string, WithheldReason>;
}

export interface TrustBundleStoreOptions {
  readonly storage: Storage;
  /** Who we are: its trust domain and its roots. */
  readonly authority: Pick<CertificateAuthority, "trustDomain" | "roots" | "onRootsChanged">;
  /** Default: silent. A warning for each bundle that begins to be withheld, or cannot be read. */
  readonly logger?: Logger;
}

/**
 * The trust bundles of all peers, kept in storage and read from memory. A host commits a bundle together with its
 * peering record ({@link bundleWrite}, then {@link TrustBundleStore.committed}); used alone, `write` and `remove` do it.
 */
export class TrustBundleStore implements AsyncDisposable {
  readonly #storage: Storage;
  readonly #authority: TrustBundleStoreOptions["authority"];
  readonly #logger: Logger;
  readonly #bundles = new Map<string, StoredBundle>();
  readonly #wakers = new Set<() => void>();
  readonly #stopListening: () => void;
  #view: TrustBundleView = { bundles: [], union: [], withheld: new Map() };
  #version = 0;
  #commits = 0;
  #closed = false;

  private constructor(options: TrustBundleStoreOptions) {
    this.#storage = options.storage;
    this.#authority = options.authority;
    this.#logger = options.logger ?? silentLogger;
    this.#stopListening = options.authority.onRootsChanged(() => this.#changed());
  }

  /** Reads what is stored. @throws {PeeringError} `storage-failed`, `closed`: from the storage. */
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

  /** The bundle of a peering, also where it is withheld from the union. */
  read(peerName: string): TrustBundle | undefined {
    return this.#bundles.get(peerName.toLowerCase())?.bundle;
  }

  /** Every stored bundle, sorted by peer name. */
  list(): readonly TrustBundle[] {
    return this.#view.bundles;
  }

  /** Every root to trust: see {@link TrustBundleView.union}. Scoped to all peers; a proxy gets fewer (specification 5.18). */
  union(): readonly string[] {
    return this.#view.union;
  }

  /** The bundles not in the union, and why. */
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
   * @throws {PeeringError} `invalid-bundle`: nothing was changed. `storage-failed`, `unavailable`, `closed`: storage.
   */
  async write(given: TrustBundle): Promise<void> {
    const bundle = validateBundle(given);
    await this.#storage.commit([bundleWrite(bundle)]);
    this.committed(bundle.peerName, bundle);
  }

  /** Forgets the bundle of a peering. @throws {PeeringError} `storage-failed`, `unavailable`, `closed`: storage. */
  async remove(peerName: string): Promise<void> {
    await this.#storage.commit([bundleRemoval(peerName)]);
    this.committed(peerName, undefined);
  }

  /** Says that a commit with {@link bundleWrite} or {@link bundleRemoval} (`undefined`) of this peer has succeeded. */
  committed(peerName: string, bundle: TrustBundle | undefined): void {
    const name = peerName.toLowerCase();
    if (bundle === undefined) {
      this.#bundles.delete(name);
    } else {
      this.#bundles.set(name, { bundle, roots: rootsOf(bundle) });
    }
    this.#commits++;
    this.#changed();
  }

  /** Reads everything again: for changes made by others on the same storage. */
  async refresh(): Promise<void> {
    let entries: readonly Entry[];
    let commits: number;
    do {
      // What is committed while we read may not be in what we read.
      commits = this.#commits;
      ({ entries } = await this.#storage.read(TRUST_BUNDLES_PREFIX));
    } while (commits !== this.#commits);
    this.#bundles.clear();
    for (const { key, value } of entries) {
      const name = key[TRUST_BUNDLES_PREFIX.length];
      if (name === undefined) continue;
      const bundle = decodeTrustBundle(value);
      if (bundle === undefined) this.#logger.warn("stored trust bundle cannot be read, left out", { peer: name });
      else this.#bundles.set(name, { bundle, roots: rootsOf(bundle) });
    }
    this.#changed();
  }

  /** Ends every watch. The storage is the caller's and stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#stopListening();
    this.#wake();
  }

  #changed(): void {
    const before = this.#view.withheld;
    this.#view = viewOf(this.#bundles, this.#authority.trustDomain, this.#authority.roots());
    for (const [peer, reason] of this.#view.withheld) {
      if (before.get(peer) !== reason) this.#logger.warn("trust bundle is withheld", { peer, reason });
    }
    this.#version++;
    this.#wake();
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

interface StoredBundle {
  readonly bundle: TrustBundle;
  /** Its distinct certificates by fingerprint; undefined where it would not be accepted today. */
  readonly roots: ReadonlyMap<string, string> | undefined;
}

function viewOf(
  stored: ReadonlyMap<string, StoredBundle>,
  ownTrustDomain: string,
  ownRoots: readonly { readonly certificatePem: string }[],
): TrustBundleView {
  const sorted = [...stored].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  // Two peerings may lead to one cluster, and then agree about its roots. Where they differ one of them lies.
  const identities = new Map<string, Set<string>>();
  for (const [, { bundle, roots }] of sorted) {
    if (roots === undefined) continue;
    const domain = bundle.trustDomain.toLowerCase();
    const known = identities.get(domain) ?? new Set<string>();
    identities.set(domain, known.add([...roots.keys()].sort().join()));
  }
  const withheld = new Map<string, WithheldReason>();
  const union = new Map<string, string>();
  for (const { certificatePem } of ownRoots) for (const [id, pem] of byFingerprint(certificatePem)) union.set(id, pem);
  for (const [name, { bundle, roots }] of sorted) {
    const domain = bundle.trustDomain.toLowerCase();
    if (roots === undefined) withheld.set(name, "no-usable-root");
    else if (domain === ownTrustDomain.toLowerCase()) withheld.set(name, "own-trust-domain");
    else if ((identities.get(domain)?.size ?? 0) > 1) withheld.set(name, "trust-domain-of-another-peering");
    else for (const [id, pem] of roots) union.set(id, pem);
  }
  return { bundles: sorted.map(([, { bundle }]) => bundle), union: [...union.values()], withheld };
}

function rootsOf(bundle: Pick<TrustBundle, "rootPems">): StoredBundle["roots"] {
  const roots = new Map<string, string>();
  for (const entry of bundle.rootPems) {
    const certificates = byFingerprint(entry);
    if (certificates.length === 0) return undefined;
    for (const [id, pem] of certificates) roots.set(id, pem);
  }
  return roots.size > 0 ? roots : undefined;
}

function byFingerprint(text: string): readonly (readonly [string, string])[] {
  return certificatesIn(text).map(({ certificate }) => [fingerprintOf(certificate), certificate.toString()] as const);
}
