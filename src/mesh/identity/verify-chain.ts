import { X509Certificate } from "node:crypto";
import type { DetailedPeerCertificate, TLSSocket } from "node:tls";
import { PeeringError } from "../../base/errors.js";
import { isIssuedBy } from "../../token/pem.js";
import { parseSpiffeId, type SpiffeId } from "../../trust/spiffe.js";
import { type CertificateExtensions, extensionsOf } from "./extensions.js";

/** Roots by lower-cased trust domain. A certificate is judged by the roots of the domain that it names, and no others. */
export type MeshTrust = ReadonlyMap<string, readonly X509Certificate[]>;

/** An identity whose certificate was verified. */
export interface VerifiedIdentity {
  readonly id: SpiffeId;
  /** As it stands in the certificate. */
  readonly uri: string;
}

/** The part of the other side in a TLS handshake. */
export type MeshRole = "client" | "server";

/** Certificates that a chain may hold, the leaf included. Consul's have two or three. */
const MAX_CHAIN = 10;
/** Signatures that are verified for a chain: a bundle may hold any number of roots with one name. */
const MAX_SIGNATURES = 20;
const MAX_URI = 2_048;
const SHOWN_CHARACTERS = 200;
/** RFC 5280, 4.2.1.12. */
const USAGES: Readonly<Record<MeshRole, string>> = { client: "1.3.6.1.5.5.7.3.2", server: "1.3.6.1.5.5.7.3.1" };
/** No user, no port, no query and no fragment: a SPIFFE id has none. */
const SPIFFE_URI = /^spiffe:\/\/[a-z0-9._-]+(?:\/[\x21-\x7e]*)?$/i;

/** The chain that the other side has shown, the leaf first. What a resumed session shows is not verified, and is none. */
export function shownChain(
  socket: Pick<TLSSocket, "getPeerCertificate" | "isSessionReused">,
): readonly X509Certificate[] {
  if (socket.isSessionReused()) return [];
  const chain: X509Certificate[] = [];
  const seen = new Set<string>();
  let next: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true);
  // The last one is its own issuer, or has none. Node gives an empty object where nothing was shown.
  while (next?.raw !== undefined && !seen.has(next.fingerprint256) && chain.length < MAX_CHAIN) {
    seen.add(next.fingerprint256);
    chain.push(new X509Certificate(next.raw));
    next = next.issuerCertificate;
  }
  return chain;
}

/**
 * The identity of a chain, the leaf first, as X.509-SVID has it: exactly one SPIFFE id, no authority, and signed through the chain by a
 * root of the trust domain in that id. That other roots, such as those of another peer, lead to the same leaf is of no use:
 * their cluster could sign any identity.
 * @throws {PeeringError} `unauthenticated`: why the chain is refused.
 */
export function verifyChain(
  chain: readonly X509Certificate[],
  { trust, role, nowMs }: { readonly trust: MeshTrust; readonly role: MeshRole; readonly nowMs: number },
): VerifiedIdentity {
  const [leaf] = chain;
  if (leaf === undefined) throw refusal("no certificate was shown");
  const extensions = readExtensions(leaf);
  const identity = identityIn(extensions);
  if (leaf.ca || extensions.signs === true) throw refusal("it is that of a certificate authority");
  const usages: readonly string[] | undefined = leaf.keyUsage;
  if (usages !== undefined && !usages.includes(USAGES[role])) throw refusal(`it is not for a TLS ${role}`);
  requireValid(leaf, nowMs);
  const trustDomain = trustDomainOf(identity.id);
  const roots = trust.get(trustDomain) ?? [];
  if (roots.length === 0) throw refusal(`nothing is trusted for the trust domain ${trustDomain}`);
  if (!leadsTo(roots, chain, nowMs)) throw refusal(`no root of its trust domain ${trustDomain} has signed it`);
  return identity;
}

function identityIn({ uris }: CertificateExtensions): VerifiedIdentity {
  const [uri = "", ...more] = uris;
  if (uris.length === 0 || more.length > 0) throw refusal(`it holds ${uris.length} URIs, and one SPIFFE id is needed`);
  const shown = JSON.stringify(uri.slice(0, SHOWN_CHARACTERS));
  if (uri.length > MAX_URI || !SPIFFE_URI.test(uri)) throw refusal(`its URI is no SPIFFE id: ${shown}`);
  let id: SpiffeId;
  try {
    id = parseSpiffeId(uri);
  } catch (error) {
    throw refusal(`its URI is no SPIFFE id of Consul: ${shown}`, error);
  }
  // An empty path is that of an authority.
  if (id.kind === "signing") throw refusal(`its SPIFFE id is that of an authority: ${shown}`);
  return { id, uri };
}

/** Lower-cased. */
export function trustDomainOf(id: SpiffeId): string {
  return (id.kind === "signing" ? `${id.clusterId}.${id.domain}` : id.trustDomain).toLowerCase();
}

/** Whether each certificate is issued by the next one, and one of them by a root. */
function leadsTo(roots: readonly X509Certificate[], chain: readonly X509Certificate[], nowMs: number): boolean {
  let certificate = chain[0];
  let signatures = 0;
  const signs = (issuer: X509Certificate, child: X509Certificate): boolean => {
    if (!child.checkIssued(issuer)) return false;
    if (++signatures > MAX_SIGNATURES) throw refusal(`more than ${MAX_SIGNATURES} authorities could have signed it`);
    return isIssuedBy(child, issuer);
  };
  for (let below = 0; certificate !== undefined; below++) {
    const child = certificate;
    if (roots.some((root) => isValid(root, nowMs) && maySign(root, below) && signs(root, child))) return true;
    const issuer = chain[below + 1];
    if (issuer === undefined || !maySign(issuer, below) || !signs(issuer, child)) return false;
    requireValid(issuer, nowMs);
    certificate = issuer;
  }
  return false;
}

/** @param below - authorities between it and the leaf. */
function maySign(issuer: X509Certificate, below: number): boolean {
  return issuer.ca && below <= (readExtensions(issuer).pathLength ?? Number.POSITIVE_INFINITY);
}

function readExtensions(certificate: X509Certificate): CertificateExtensions {
  try {
    return extensionsOf(certificate);
  } catch (error) {
    throw refusal("it cannot be read", error);
  }
}

function isValid({ validFrom, validTo }: X509Certificate, nowMs: number): boolean {
  return Date.parse(validFrom) <= nowMs && nowMs < Date.parse(validTo);
}

function requireValid(certificate: X509Certificate, nowMs: number): void {
  if (isValid(certificate, nowMs)) return;
  throw refusal(`it or one of its authorities is valid from ${certificate.validFrom} to ${certificate.validTo} alone`);
}

function refusal(why: string, cause?: unknown): PeeringError {
  const options = cause === undefined ? {} : { cause };
  return new PeeringError("unauthenticated", `the certificate of the other side is refused: ${why}`, options);
}
