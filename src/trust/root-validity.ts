import { X509Certificate } from "node:crypto";
import type { CertificateAuthority } from "./authority.js";
import { BACKDATE_MS } from "./leaf.js";

/** The remedy where the active root is not valid. */
export const ROOT_REMEDY: string =
  "Set the clock of this machine. If it is right, the root was made while it was wrong, or is old: make a new one with " +
  "`rotate` of the authority, or start the agent once with -rotate-root; then generate new tokens.";

/**
 * Why the active root is not valid at `nowMs`, in milliseconds since the epoch; undefined where it is. One that begins within
 * the next minute counts as valid: clocks differ by as much.
 */
export function activeRootFault(authority: Pick<CertificateAuthority, "roots">, nowMs: number): string | undefined {
  const active = authority.roots().find((root) => root.active);
  if (active === undefined) return "there is none";
  const { validFrom } = new X509Certificate(active.certificatePem);
  const notBefore = Date.parse(validFrom);
  if (notBefore > nowMs + BACKDATE_MS) return `it is not valid before ${new Date(notBefore).toISOString()}`;
  return active.notAfter <= nowMs ? `it has expired on ${new Date(active.notAfter).toISOString()}` : undefined;
}
