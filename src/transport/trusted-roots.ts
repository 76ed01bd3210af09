import { createSecureContext, type SecureContext } from "node:tls";
import { PeeringError } from "../base/errors.js";
import { RecentlyUsed } from "../base/recently-used.js";
import { certificatesIn } from "../token/pem.js";
import { StatusCode } from "../wire/status.js";

/** Sets of roots that are kept. The roots of a peer are tens of kilobytes in memory. */
const MAX_KEPT = 256;
/** Characters that an error quotes of a bad certificate. */
const SHOWN_CHARACTERS = 1_024;

/** The only roots that a connection trusts. */
export interface TrustedRoots {
  /** One PEM each. */
  readonly pems: readonly string[];
  /** Undefined: there are none, so that the connection is in plaintext. */
  readonly context: SecureContext | undefined;
}

/**
 * Reads the roots of peers, and keeps those that were dialed with last: a peer is dialed with the same ones again and again. They are
 * kept under their whole text, so that roots of another text are never taken for them.
 */
export class RootsReader {
  readonly #kept = new RecentlyUsed<string, TrustedRoots>(MAX_KEPT, () => 1);

  /** How many sets of roots are kept. */
  get size(): number {
    return this.#kept.size;
  }

  /** @throws {PeeringError} `invalid-argument`: an element without any certificate, with the text that Consul gives. */
  read(caPems: readonly string[]): TrustedRoots {
    const key = JSON.stringify(caPems);
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    const roots = rootsOf(caPems);
    this.#kept.set(key, roots);
    return roots;
  }
}

function rootsOf(caPems: readonly string[]): TrustedRoots {
  const pems = caPems.flatMap((element) => {
    // As Go's AppendCertsFromPEM: entries without a certificate are skipped, as long as one is left.
    const certificates = certificatesIn(element);
    if (certificates.length === 0) {
      const shown = element.includes("PRIVATE KEY") ? "(a private key)" : element.slice(0, SHOWN_CHARACTERS);
      throw new PeeringError("invalid-argument", `failed to parse PEM ${shown}`, { status: StatusCode.Unavailable });
    }
    return certificates.map(({ pem }) => pem);
  });
  if (pems.length === 0) return { pems, context: undefined };
  // Go trusts whatever is in the pool, self-signed or not. Node before 20.18 ignores this.
  const context = createSecureContext({ ca: pems, allowPartialTrustChain: true, minVersion: "TLSv1.2" });
  return { pems, context };
}
