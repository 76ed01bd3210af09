import { PeeringError } from "../base/errors.js";
import type { TrustBundle } from "../peering/peering.js";
import { certificatesIn } from "../token/pem.js";
import { fingerprintOf } from "./pem.js";

/** Why a trust bundle may not speak for the trust domain that it names. */
export type WithheldReason =
  /** It names no trust domain, or a text that cannot be one, such as one with spaces or with a dot at its end. */
  | "invalid-trust-domain"
  /** It names our own: its roots would speak for our services. */
  | "own-trust-domain"
  /** Another peering has named it before, and this bundle has a root which that one has not. */
  | "trust-domain-of-another-peering"
  /** An entry of it holds no certificate. Such a bundle is refused on receipt; older data may hold one. */
  | "no-usable-root";

/** A stored bundle, and since when its peering names its trust domain. */
export interface StoredClaim {
  readonly bundle: TrustBundle;
  /** Revision of the commit that began it. */
  readonly since: bigint;
}

/** A bundle that is withheld. */
export interface Withheld {
  readonly reason: WithheldReason;
  /** The other peering that owns the trust domain, if there is one. */
  readonly owner?: string;
}

/** SPIFFE's, of at most 255 characters; Consul's are `<uuid>.consul`. */
const TRUST_DOMAIN = /^(?=.{1,255}$)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/i;
const SHOWN_CHARACTERS = 100;

/** Since when the peering of `former` will have named the trust domain of `bundle`: as long as it goes on naming it. */
export function claimedSince(former: StoredClaim | undefined, bundle: TrustBundle): bigint | undefined {
  return former?.bundle.trustDomain.toLowerCase() === bundle.trustDomain.toLowerCase() ? former.since : undefined;
}

/** The bundles that name one trust domain. */
interface Domain {
  /** By lower-cased peer name, the earliest claim first. */
  readonly claims: Map<string, StoredClaim>;
  owner: Owner | undefined;
  readonly withheld: Map<string, Withheld>;
}

interface Owner {
  readonly name: string;
  readonly roots: ReadonlyMap<string, string>;
}

/**
 * The trust bundles that are stored, and which peering owns which trust domain (D-24): ours none, any other one the peering that names it
 * first, until its bundle is removed or names another one. Several peerings may lead to one cluster: a later bundle may name the same domain
 * when each root of it is one of the first one's, because it adds no trust then. A change takes as long as there are
 * bundles that it may decide about, however many there are.
 */
export class TrustDomains {
  readonly #own: string;
  /** By lower-cased peer name. */
  readonly #claims = new Map<string, StoredClaim>();
  /** By lower-cased trust domain. */
  readonly #domains = new Map<string, Domain>();
  /** Parsed once. */
  readonly #roots = new WeakMap<TrustBundle, ReadonlyMap<string, string> | undefined>();

  /** @param own - our trust domain. */
  constructor(own: string, stored: Iterable<readonly [string, StoredClaim]> = []) {
    this.#own = own.toLowerCase();
    for (const [name, claim] of [...stored].sort(byAge)) this.set(name, claim);
  }

  /** By lower-cased peer name. */
  get claims(): ReadonlyMap<string, StoredClaim> {
    return this.#claims;
  }

  /** Why the bundle of a peer, by its lower-cased name, may not be served; undefined where it may, or there is none. */
  withheld(name: string): Withheld | undefined {
    const domain = this.#claims.get(name)?.bundle.trustDomain.toLowerCase() ?? "";
    return this.#domains.get(domain)?.withheld.get(name);
  }

  /** Bundles that may not be served, by lower-cased peer name. */
  allWithheld(): ReadonlyMap<string, Withheld> {
    return new Map([...this.#domains.values()].flatMap(({ withheld }) => [...withheld]));
  }

  /**
   * Takes over what became of the bundle of a peer; undefined: it is gone. A claim that is new is the latest of all.
   * @param name - lower-cased.
   * @returns the peers, it and others, whose bundles are withheld since then, and those whose bundles are not any more.
   */
  set(
    name: string,
    claim: StoredClaim | undefined,
  ): { readonly withheld: Iterable<string>; readonly served: Iterable<string> } {
    const before = this.#claims.get(name)?.bundle.trustDomain.toLowerCase();
    const after = claim?.bundle.trustDomain.toLowerCase();
    const wasWithheld = this.withheld(name) !== undefined;
    if (claim === undefined) this.#claims.delete(name);
    else this.#claims.set(name, claim);
    const changes = { withheld: new Set<string>(), served: new Set<string>() };
    if (before !== undefined && before !== after) this.#change(before, name, undefined, changes);
    if (after !== undefined) this.#change(after, name, claim, changes);
    // It may have gone from one domain to another.
    for (const names of [changes.withheld, changes.served]) names.delete(name);
    const isWithheld = this.withheld(name) !== undefined;
    if (!wasWithheld && isWithheld) changes.withheld.add(name);
    if (wasWithheld && !isWithheld && claim !== undefined) changes.served.add(name);
    return changes;
  }

  #change(
    key: string,
    name: string,
    claim: StoredClaim | undefined,
    changes: { readonly withheld: Set<string>; readonly served: Set<string> },
  ): void {
    const domain = this.#domains.get(key) ?? { claims: new Map(), owner: undefined, withheld: new Map() };
    const before = domain.owner;
    // A peer that names the same domain again keeps its place.
    if (claim === undefined) domain.claims.delete(name);
    else domain.claims.set(name, claim);
    domain.owner = this.#ownerOf(domain.claims);
    // With the roots of the former owner nothing changes for others, but the name of the owner where they are withheld.
    const isSame = before !== undefined && domain.owner !== undefined && sameKeys(before.roots, domain.owner.roots);
    const judged = isSame ? new Set([name, ...domain.withheld.keys()]) : new Set([name, ...domain.claims.keys()]);
    for (const each of judged) {
      const { bundle } = domain.claims.get(each) ?? {};
      const reason = bundle && this.#judge(key, each, bundle, domain.owner);
      const was = domain.withheld.has(each);
      if (reason === undefined) domain.withheld.delete(each);
      else domain.withheld.set(each, reason);
      if (was && reason === undefined) changes.served.add(each);
      if (!was && reason !== undefined) changes.withheld.add(each);
    }
    if (domain.claims.size === 0) this.#domains.delete(key);
    else this.#domains.set(key, domain);
  }

  /** The first with roots that can be used. */
  #ownerOf(claims: Iterable<readonly [string, Pick<StoredClaim, "bundle">]>): Owner | undefined {
    for (const [name, { bundle }] of claims) {
      const roots = this.rootsOf(bundle);
      if (roots !== undefined) return { name, roots };
    }
    return undefined;
  }

  #judge(domain: string, name: string, bundle: TrustBundle, owner: Owner | undefined): Withheld | undefined {
    if (!TRUST_DOMAIN.test(domain)) return { reason: "invalid-trust-domain" };
    if (domain === this.#own) return { reason: "own-trust-domain" };
    const roots = this.rootsOf(bundle);
    if (roots === undefined) return { reason: "no-usable-root" };
    if (owner === undefined || owner.name === name) return undefined;
    if ([...roots.keys()].every((fingerprint) => owner.roots.has(fingerprint))) return undefined;
    return { reason: "trust-domain-of-another-peering", owner: owner.name };
  }

  /**
   * That `bundle` may be stored as that of the peer `name`, beside the others.
   * @throws {PeeringError} `invalid-bundle`.
   */
  requireFree(name: string, bundle: TrustBundle): void {
    const key = bundle.trustDomain.toLowerCase();
    const claims = this.#domains.get(key)?.claims;
    const refused = this.#judge(key, name, bundle, this.#ownerOf(withReplaced(claims ?? [], name, bundle)));
    if (refused !== undefined) throw new PeeringError("invalid-bundle", textOf(refused.reason, bundle.trustDomain));
  }

  /** The distinct certificates of a bundle by fingerprint; undefined where it would not be accepted today. */
  rootsOf(bundle: TrustBundle): ReadonlyMap<string, string> | undefined {
    if (!this.#roots.has(bundle)) this.#roots.set(bundle, rootsOf(bundle));
    return this.#roots.get(bundle);
  }
}

/** Claims with another bundle of the peer `name`, which keeps its place; without one the bundle is the last. */
function* withReplaced(
  claims: Iterable<readonly [string, Pick<StoredClaim, "bundle">]>,
  name: string,
  bundle: TrustBundle,
): Generator<readonly [string, Pick<StoredClaim, "bundle">]> {
  const replaced = { bundle };
  let found = false;
  for (const [each, claim] of claims) {
    found ||= each === name;
    yield [each, each === name ? replaced : claim];
  }
  if (!found) yield [name, replaced];
}

function sameKeys(left: ReadonlyMap<string, unknown>, right: ReadonlyMap<string, unknown>): boolean {
  return left.size === right.size && [...left.keys()].every((key) => right.has(key));
}

/** For the peer, which must not learn which other peerings there are. */
function textOf(reason: WithheldReason, trustDomain: string): string {
  const shown = JSON.stringify(trustDomain.slice(0, SHOWN_CHARACTERS));
  switch (reason) {
    case "invalid-trust-domain":
      return `trust bundle with an invalid trust domain: ${shown}`;
    case "own-trust-domain":
      return `trust bundle claims the trust domain of the cluster that receives it: ${shown}; clusters that peer must have different ones: create one of the two again, with its own cluster id`;
    case "trust-domain-of-another-peering":
      return `trust bundle claims the trust domain of another peering, with other roots: ${shown}`;
    case "no-usable-root":
      return "trust bundle without a usable root certificate";
  }
}

/** The earliest claim first. */
function byAge(
  [a, { since: first }]: readonly [string, StoredClaim],
  [b, { since: second }]: readonly [string, StoredClaim],
): number {
  if (first === second) return a < b ? -1 : 1;
  return first < second ? -1 : 1;
}

/** The distinct certificates of a bundle by fingerprint, each as its own PEM; undefined where an entry holds none. */
export function rootsOf(bundle: Pick<TrustBundle, "rootPems">): ReadonlyMap<string, string> | undefined {
  const roots = new Map<string, string>();
  for (const entry of bundle.rootPems) {
    const certificates = certificatesIn(entry);
    if (certificates.length === 0) return undefined;
    for (const { certificate } of certificates) roots.set(fingerprintOf(certificate), certificate.toString());
  }
  return roots.size > 0 ? roots : undefined;
}
