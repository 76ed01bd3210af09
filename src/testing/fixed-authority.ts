import { X509Certificate } from "node:crypto";
import type { Closable } from "../base/closable.js";
import { type Clock, systemClock } from "../base/environment.js";
import { Signal } from "../base/signal.js";
import type { CaRoot, CertificateAuthority, IssuedCertificate } from "../trust/authority.js";
import { rootIdOf } from "../trust/pem.js";
import { fixedRootPems } from "./fixed-roots.js";

const CLUSTERS = 5;

export interface FixedAuthorityOptions {
  /** `<cluster uuid>.consul`. */
  readonly trustDomain: string;
  /** Which cluster of the test this is, 0 to 4: no two of them ever hold the same root. Default 0. */
  readonly cluster?: number;
  /** For the validity of its certificates. Default: the system's. */
  readonly clock?: Clock;
  /** Lifetime of its certificates, in milliseconds. Default 72 hours. */
  readonly leafTtlMs?: number;
}

/** An authority for simulations: see {@link fixedAuthority}. */
export interface FixedAuthority extends CertificateAuthority, Closable {
  /** Makes the next root active and returns it; the former ones stay until {@link FixedAuthority.prune}. */
  rotate(): CaRoot;
  /** Drops every root that is not active, however young. Whether there was one. */
  prune(): boolean;
}

/**
 * A certificate authority without cryptography: real root certificates from a fixed list, always the same in the same
 * order, and all calls done at once, so that a simulation replays exactly. Its certificates prove nothing (the chain is
 * the root, the key is empty): use it with transports that do not verify, such as the memory transport.
 *
 * Disposing of it drops its listeners only: one authority may outlive the hosts of a simulated cluster that restarts.
 */
export function fixedAuthority(options: FixedAuthorityOptions): FixedAuthority {
  const { cluster = 0, clock = systemClock, leafTtlMs = 72 * 3_600_000 } = options;
  if (!Number.isInteger(cluster) || cluster < 0 || cluster >= CLUSTERS) {
    throw new TypeError(`cluster must be a whole number from 0 to ${CLUSTERS - 1}`);
  }
  const rootsChanged = new Signal();
  let next = cluster;
  let active = takeRoot();
  let inactive: readonly CaRoot[] = [];

  function takeRoot(): CaRoot {
    const certificatePem = fixedRootPems[next] ?? "";
    next = (next + CLUSTERS) % fixedRootPems.length;
    const certificate = new X509Certificate(certificatePem);
    return { id: rootIdOf(certificate), certificatePem, active: true, notAfter: Date.parse(certificate.validTo) };
  }

  function issue(): IssuedCertificate {
    const notBefore = clock.wall() - 60_000;
    return {
      certificateChainPem: active.certificatePem,
      privateKeyPem: "",
      notBefore,
      notAfter: notBefore + leafTtlMs,
      rootId: active.id,
    };
  }

  const close = async (): Promise<void> => rootsChanged.clear();

  return {
    trustDomain: options.trustDomain.toLowerCase(),
    roots: () => [...inactive, active],
    onRootsChanged: (listener) => rootsChanged.on(listener),
    issueServer: async () => issue(),
    issueLeaf: async () => issue(),
    signingProblem: () => undefined,
    async signRequest() {
      const { privateKeyPem: _none, ...signed } = issue();
      return signed;
    },
    rotate() {
      const rotatedOut: CaRoot = { ...active, active: false, rotatedOutAt: clock.wall() };
      active = takeRoot();
      // The list of roots is finite: one that comes again is no longer an old one.
      inactive = [...inactive, rotatedOut].filter(({ id }) => id !== active.id);
      rootsChanged.emit();
      return active;
    },
    prune() {
      if (inactive.length === 0) return false;
      inactive = [];
      rootsChanged.emit();
      return true;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
