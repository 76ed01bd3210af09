import { compareUtf8 } from "../../base/byte-order.js";
import type { TrustBundle } from "../../peering/peering.js";
import { blocksAtMost } from "../../token/pem.js";

/** Roots of one trust domain. */
export interface TrustedDomain {
  readonly trustDomain: string;
  /** PEM, each with one newline at its end. */
  readonly rootPems: string;
}

export function joinPems(pems: readonly string[]): string {
  return pems.map((pem) => `${pem.trimEnd()}\n`).join("");
}

/** Why the roots of a bundle cannot be given to a proxy: it would refuse all that names them. Undefined: they can. */
export function bundleProblem(bundle: TrustBundle, ownTrustDomain: string): string | undefined {
  if (bundle.trustDomain === "") return "its trust bundle names no trust domain";
  if (bundle.trustDomain.toLowerCase() === ownTrustDomain.toLowerCase())
    return "its trust bundle names our trust domain";
  if (bundle.rootPems.length === 0) return "its trust bundle has no roots";
  // Bundles were parsed when they came, which takes too long to be done for each proxy.
  if (bundle.rootPems.some((pem) => blocksAtMost([pem]) === 0))
    return "its trust bundle has a root that is no certificate";
  return undefined;
}

/** The usable ones, by peer. @param problem - is told of each that is left out. */
export function usableBundles(
  bundles: readonly TrustBundle[],
  ownTrustDomain: string,
  problem: (text: string) => void,
): readonly TrustBundle[] {
  return bundles
    .filter((bundle) => {
      const why = bundleProblem(bundle, ownTrustDomain);
      if (why !== undefined) problem(`peer "${bundle.peerName}": ${why}`);
      return why === undefined;
    })
    .sort((left, right) => compareUtf8(left.peerName, right.peerName));
}

/**
 * Our roots and those of the bundles, by trust domain: each of them once, because Envoy refuses a listener that names one twice. Of
 * several peerings with one cluster, all roots count: none of them may name a root that the first one does not.
 */
export function trustedDomains(
  own: { readonly trustDomain: string; readonly rootPems: readonly string[] },
  bundles: readonly TrustBundle[],
): readonly TrustedDomain[] {
  const domains = new Map<string, { readonly trustDomain: string; readonly pems: Set<string> }>();
  for (const { trustDomain, rootPems } of [own, ...bundles]) {
    const key = trustDomain.toLowerCase();
    const domain = domains.get(key) ?? { trustDomain, pems: new Set() };
    domains.set(key, domain);
    for (const pem of rootPems) domain.pems.add(`${pem.trimEnd()}\n`);
  }
  return [...domains.values()]
    .map(({ trustDomain, pems }) => ({ trustDomain, rootPems: [...pems].join("") }))
    .sort((left, right) => compareUtf8(left.trustDomain, right.trustDomain));
}
