import { PeeringError } from "../errors.js";
import type { TrustBundle } from "../peering/peering.js";
import { certificatesIn } from "../token/pem.js";
import { fingerprintOf } from "./pem.js";

/** Why a trust bundle may not speak for the trust domain that it names. */
export type WithheldReason =
  /** It names none, or what cannot be one, such as a text with spaces or with a dot at its end. */
  | "invalid-trust-domain"
  /** It names our own: its roots would speak for our services. */
  | "own-trust-domain"
  /** Another peering has named it before, and this bundle has a root which that one has not. */
  | "trust-domain-of-another-peering"
  /** An entry of it holds no certificate. Such a bundle is refused on receipt; older data may hold one. */
  | "no-usable-root";

/** A bundle, and since when its peering names its trust domain. */
export interface Claim {
  readonly bundle: TrustBundle;
  /** Revision of the commit that began it; undefined for a bundle that is not stored yet. */
  readonly since: bigint | undefined;
}

/** That of a bundle which is stored. */
export interface StoredClaim extends Claim {
  readonly since: bigint;
}

/** A bundle that is withheld. */
export interface Withheld {
  readonly reason: WithheldReason;
  /** Who has the trust domain, where it is another peering. */
  readonly owner?: string;
}

/** SPIFFE's, of at most 255 characters; Consul's are `<uuid>.consul`. */
const TRUST_DOMAIN = /^(?=.{1,255}$)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/i;
const SHOWN_CHARACTERS = 100;

/** Since when the peering of `former` will have named the trust domain of `bundle`: as long as it goes on naming it. */
export function claimedSince(former: Claim | undefined, bundle: TrustBundle): bigint | undefined {
  return former?.bundle.trustDomain.toLowerCase() === bundle.trustDomain.toLowerCase() ? former.since : undefined;
}

/**
 * Who may claim which trust domain: ours nobody, any other one whoever names it first, until its bundle is removed or names
 * another one. Several peerings may lead to one cluster: a later bundle may name the same domain when each root of it is one
 * of the first one's, for it adds nothing to what is trusted then.
 */
export class TrustDomains {
  readonly #own: string;
  /** Parsed once. */
  readonly #roots = new WeakMap<TrustBundle, ReadonlyMap<string, string> | undefined>();

  constructor(own: string) {
    this.#own = own.toLowerCase();
  }

  /** Those of these bundles, by lower-cased peer name, that may not be served. */
  withheld(claims: Iterable<readonly [string, Claim]>): ReadonlyMap<string, Withheld> {
    const owners = new Map<string, { readonly name: string; readonly roots: ReadonlyMap<string, string> }>();
    const withheld = new Map<string, Withheld>();
    for (const [name, { bundle }] of [...claims].sort(byAge)) {
      const domain = bundle.trustDomain.toLowerCase();
      const roots = this.rootsOf(bundle);
      const owner = owners.get(domain);
      if (!TRUST_DOMAIN.test(domain)) withheld.set(name, { reason: "invalid-trust-domain" });
      else if (domain === this.#own) withheld.set(name, { reason: "own-trust-domain" });
      else if (roots === undefined) withheld.set(name, { reason: "no-usable-root" });
      else if (owner === undefined) owners.set(domain, { name, roots });
      else if (![...roots.keys()].every((fingerprint) => owner.roots.has(fingerprint))) {
        withheld.set(name, { reason: "trust-domain-of-another-peering", owner: owner.name });
      }
    }
    return withheld;
  }

  /**
   * That `bundle` may be stored as that of the peer `name`, beside the stored ones.
   * @throws {PeeringError} `invalid-bundle`.
   */
  requireFree(stored: ReadonlyMap<string, Claim>, name: string, bundle: TrustBundle): void {
    const claim = { bundle, since: claimedSince(stored.get(name), bundle) };
    const refused = this.withheld(new Map(stored).set(name, claim)).get(name);
    if (refused !== undefined) throw new PeeringError("invalid-bundle", textOf(refused.reason, bundle.trustDomain));
  }

  /** The distinct certificates of a bundle by fingerprint; undefined where it would not be accepted today. */
  rootsOf(bundle: TrustBundle): ReadonlyMap<string, string> | undefined {
    if (!this.#roots.has(bundle)) this.#roots.set(bundle, rootsOf(bundle));
    return this.#roots.get(bundle);
  }
}

/** Of the peer, who is not told who else peers with us. */
function textOf(reason: WithheldReason, trustDomain: string): string {
  const shown = JSON.stringify(trustDomain.slice(0, SHOWN_CHARACTERS));
  switch (reason) {
    case "invalid-trust-domain":
      return `trust bundle with an invalid trust domain: ${shown}`;
    case "own-trust-domain":
      return `trust bundle claims the trust domain of the cluster that receives it: ${shown}`;
    case "trust-domain-of-another-peering":
      return `trust bundle claims the trust domain of another peering, with other roots: ${shown}`;
    case "no-usable-root":
      return "trust bundle without a usable root certificate";
  }
}

/** The earliest claim first; one that is not stored yet is the latest. */
function byAge(
  [a, { since: first }]: readonly [string, Claim],
  [b, { since: second }]: readonly [string, Claim],
): number {
  if (first === second) return a < b ? -1 : 1;
  if (first === undefined || second === undefined) return first === undefined ? 1 : -1;
  return first < second ? -1 : 1;
}

/** The distinct certificates of a bundle by fingerprint, each encoded anew; undefined where an entry holds none. */
export function rootsOf(bundle: Pick<TrustBundle, "rootPems">): ReadonlyMap<string, string> | undefined {
  const roots = new Map<string, string>();
  for (const entry of bundle.rootPems) {
    const certificates = certificatesIn(entry);
    if (certificates.length === 0) return undefined;
    for (const { certificate } of certificates) roots.set(fingerprintOf(certificate), certificate.toString());
  }
  return roots.size > 0 ? roots : undefined;
}
