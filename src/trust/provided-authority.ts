import { createPrivateKey, type X509Certificate } from "node:crypto";
import type { Closable } from "../base/closable.js";
import { type Clock, type Random, systemClock, systemRandom } from "../base/environment.js";
import { PeeringError } from "../base/errors.js";
import { Incidents } from "../base/incidents.js";
import { Signal } from "../base/signal.js";
import { certificatesIn, isIssuedBy, type ParsedCertificate, publicKeyOf } from "../token/pem.js";
import type { CaRoot, CertificateAuthority } from "./authority.js";
import { DEFAULT_LEAF_TTL_MS } from "./built-in-authority.js";
import {
  DEFAULT_SIGNING_REQUEST_BYTES,
  issueMeshLeaf,
  issueServerLeaf,
  type LeafSigner,
  type OwnKeyLeafRequest,
  SignerMemory,
  signerProblem,
  signRequestedLeaf,
} from "./leaf.js";
import { fingerprintOf, rootIdOf } from "./pem.js";

/** Roots and a signing key of a host's own. */
export interface ProvidedMaterial {
  /** Every root that peers must trust, PEM; an entry may hold several. Self-signed: dialers on OpenSSL need that. */
  readonly rootPems: readonly string[];
  /**
   * PEM: the certificate of the signing key, which may be one of the roots; after it the intermediates that lead from it
   * to a root, and cross-signed ones, in the order in which they are to be sent.
   */
  readonly signingCertificatePem: string;
  /** PEM: EC (P-256, P-384, P-521), RSA or Ed25519. */
  readonly signingKeyPem: string;
}

export interface ProvidedAuthorityOptions extends ProvidedMaterial {
  /** `<cluster uuid>.consul`; it must never change for the life of a cluster. Lower-cased. */
  readonly trustDomain: string;
  /** Lifetime of the certificates it issues, in milliseconds. Default 72 hours, as in Consul. */
  readonly leafTtlMs?: number;
  /** Largest certificate signing request that is read, in bytes. Default 16 384; a larger one is refused. */
  readonly signingRequestBytes?: number;
  /** Gets a report of each request that is too large. Default: no reports. */
  readonly incidents?: Incidents;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** A certificate authority made of a host's own roots and keys: see {@link providedAuthority}. */
export interface ProvidedAuthority extends CertificateAuthority, Closable {
  /**
   * Replaces roots and signing key. Peers then get the roots, and server certificates are renewed.
   *
   * A peer that is not connected must still be able to come back with the roots it has. So rotate in three steps: the new
   * root beside the old one; then the new signing key; then, when every peer has connected, without the old root. Or
   * give a certificate of the new key signed by the old root among the intermediates.
   * @param options - `force`: also where verifiers that trust only the present roots would refuse the new key. Default false.
   * @throws {PeeringError} `invalid-argument`: certificates and key do not fit together, or `force` is needed; nothing was
   *   changed.
   */
  update(material: ProvidedMaterial, options?: { readonly force?: boolean }): void;
}

/**
 * A certificate authority of a host's own roots and signing key, held in memory only.
 * @throws {PeeringError} `invalid-argument`: there is no root, a PEM is none, the key does not belong to the certificate,
 *   or the certificate is no authority, not valid now, or does not lead to a root.
 */
export function providedAuthority(options: ProvidedAuthorityOptions): ProvidedAuthority {
  const { leafTtlMs = DEFAULT_LEAF_TTL_MS, clock = systemClock, random = systemRandom } = options;
  const trustDomain = options.trustDomain.toLowerCase();
  if (!/^[a-z0-9][a-z0-9-]*(\.[a-z0-9-]+)+$/.test(trustDomain)) {
    throw refusal("the trust domain must be a name such as <cluster uuid>.consul");
  }
  const rootsChanged = new Signal();
  let checked = check(options, clock.wall());
  const { signingRequestBytes = DEFAULT_SIGNING_REQUEST_BYTES, incidents = new Incidents() } = options;
  const terms = () => ({
    signer: checked.signer,
    serialNumber: randomSerial(random),
    nowMs: clock.wall(),
    ttlMs: leafTtlMs,
  });
  const leafTerms = (datacenter: string): OwnKeyLeafRequest => ({ ...terms(), datacenter, trustDomain });

  const close = async (): Promise<void> => rootsChanged.clear();

  return {
    trustDomain,
    roots: () => checked.roots,
    onRootsChanged: (listener) => rootsChanged.on(listener),
    issueServer: (datacenter) => issueServerLeaf(leafTerms(datacenter)),
    signingProblem: () => signerProblem(checked.signer, clock.wall()),
    issueLeaf: (identity) => issueMeshLeaf(identity, leafTerms(identity.datacenter)),
    signRequest: (requestPem, identity) =>
      signRequestedLeaf(requestPem, { ...identity, trustDomain }, { signingRequestBytes, incidents }, async () =>
        terms(),
      ),
    update(material, { force = false } = {}) {
      const next = check(material, clock.wall());
      if (!force && rootOf(next.chain, checked.anchors) === undefined) {
        throw refusal(
          "The current CA Provider does not support cross-signing. You can try again with " +
            "ForceWithoutCrossSigningSet but this may cause disruption - see documentation for more.",
          "Add the new root beside the present ones first, or cross-sign the new key, or update with `force`.",
        );
      }
      checked = next;
      rootsChanged.emit();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

const CLOCK_REMEDY = "Check the clock of this machine; if it is right, give other certificates.";

interface CheckedMaterial {
  readonly roots: readonly CaRoot[];
  readonly signer: LeafSigner;
  /** The roots, parsed. */
  readonly anchors: readonly ParsedCertificate[];
  /** The signing certificate and the intermediates sent after it. */
  readonly chain: readonly ParsedCertificate[];
}

function check(material: ProvidedMaterial, nowMs: number): CheckedMaterial {
  const anchors = distinct(
    material.rootPems.flatMap((entry) => {
      const certificates = certificatesIn(entry);
      if (certificates.length === 0) throw refusal("an entry of the roots holds no certificate");
      return certificates;
    }),
  );
  if (anchors.length === 0) throw refusal("no root was given");
  if (!anchors.every(({ certificate }) => certificate.ca)) throw refusal("a root is not a certificate authority");
  if (!anchors.every(({ certificate }) => publicKeyOf(certificate) !== undefined)) {
    throw refusal("a root has a key that cannot be read, or takes too long to use");
  }
  const chain = certificatesIn(material.signingCertificatePem);
  const [signing] = chain;
  if (signing === undefined) throw refusal("the signing certificate is not one");
  if (!signing.certificate.ca) throw refusal("the signing certificate is not a certificate authority");
  if (!ownsKey(signing.certificate, material.signingKeyPem)) {
    throw refusal("the signing key is not the one of the signing certificate");
  }
  const root = rootOf(chain, anchors);
  if (root === undefined) throw refusal("the signing certificate does not lead to one of the roots");
  const notAfter = Math.min(notAfterOf(signing.certificate), notAfterOf(root.certificate));
  if (notAfter <= nowMs) throw refusal("the signing certificate or its root has expired", CLOCK_REMEDY);
  if (Date.parse(signing.certificate.validFrom) > nowMs || Date.parse(root.certificate.validFrom) > nowMs) {
    throw refusal("the signing certificate or its root is not valid yet", CLOCK_REMEDY);
  }
  // Verifiers have the roots; they lack all certificates in between.
  const isAnchor = new Set(anchors.map(({ certificate }) => fingerprintOf(certificate)));
  const intermediatePems = chain
    .filter(({ certificate }) => !isAnchor.has(fingerprintOf(certificate)))
    .map(({ pem }) => pem);
  return {
    anchors,
    chain,
    roots: anchors.map(({ pem, certificate }) => ({
      id: rootIdOf(certificate),
      certificatePem: pem,
      active: certificate === root.certificate,
      notAfter: notAfterOf(certificate),
      ...(certificate === root.certificate ? { intermediatePems } : {}),
    })),
    signer: {
      memory: new SignerMemory(),
      certificatePem: signing.pem,
      keyPem: material.signingKeyPem,
      intermediatePems,
      rootId: rootIdOf(root.certificate),
      notAfter,
    },
  };
}

/** The anchor to which the first certificate of a chain leads, through any of the others. */
function rootOf(
  chain: readonly ParsedCertificate[],
  anchors: readonly ParsedCertificate[],
): ParsedCertificate | undefined {
  const [signing, ...intermediates] = chain;
  const open = signing === undefined ? [] : [signing.certificate];
  const unused = new Set(intermediates.map(({ certificate }) => certificate));
  for (let certificate = open.shift(); certificate !== undefined; certificate = open.shift()) {
    const child = certificate;
    const found = anchors.find(
      (anchor) => anchor.certificate.raw.equals(child.raw) || isIssuedBy(child, anchor.certificate),
    );
    if (found !== undefined) return found;
    for (const candidate of unused) {
      if (!candidate.ca || !isIssuedBy(child, candidate)) continue;
      unused.delete(candidate);
      open.push(candidate);
    }
  }
  return undefined;
}

function ownsKey(certificate: X509Certificate, keyPem: string): boolean {
  try {
    return certificate.checkPrivateKey(createPrivateKey(keyPem));
  } catch {
    // Why a text is no key is not worth an error that might quote it.
    return false;
  }
}

function distinct(certificates: readonly ParsedCertificate[]): readonly ParsedCertificate[] {
  return [...new Map(certificates.map((parsed) => [fingerprintOf(parsed.certificate), parsed])).values()];
}

/** 15 random bytes behind a 1: positive, never zero, and within the 20 bytes allowed. */
function randomSerial(random: Random): bigint {
  return BigInt(`0x01${Buffer.from(random.bytes(15)).toString("hex")}`);
}

function notAfterOf(certificate: X509Certificate): number {
  return Date.parse(certificate.validTo);
}

function refusal(message: string, remedy?: string): PeeringError {
  return new PeeringError("invalid-argument", message, remedy === undefined ? {} : { remedy });
}
