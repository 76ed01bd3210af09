/** A root certificate of a cluster. */
export interface CaRoot {
  /** SHA-1 of the DER as lower-case hex pairs joined by `:`. */
  readonly id: string;
  /** PEM, ending in a newline. */
  readonly certificatePem: string;
  /** Exactly one root is active; the others were rotated out and are still trusted. */
  readonly active: boolean;
  /** Milliseconds since the epoch. */
  readonly notAfter: number;
  readonly rotatedOutAt?: number;
  /** Intermediates that are sent between leaf and root, PEM, such as the root cross-signed by the former one. Default: none. */
  readonly intermediatePems?: readonly string[];
}

/** A certificate with its key. */
export interface IssuedCertificate {
  /** Leaf first, then the active root's intermediates. */
  readonly certificateChainPem: string;
  readonly privateKeyPem: string;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** The root that signed it; a leaf whose root is not active any more is to be renewed. */
  readonly rootId: string;
}

/** The certificate authority of a cluster: the built-in one, or a host's own roots and keys. */
export interface CertificateAuthority extends AsyncDisposable {
  /** `<cluster uuid>.consul`, lower-case; never changes. */
  readonly trustDomain: string;
  /** Every root that peers must trust, the active one included. Never empty. */
  roots(): readonly CaRoot[];
  /** Calls `listener` after each change of the roots, until the returned function is called. */
  onRootsChanged(listener: () => void): () => void;
  /** A certificate for the servers of a datacenter (docs/protocol.md, "The connection"). */
  issueServer(datacenter: string): Promise<IssuedCertificate>;
  /**
   * A certificate for a service of a datacenter. The caller decides whether its own caller may have it.
   * @throws {PeeringError} `resource-exhausted`: more than the authority is to sign at the moment.
   */
  issueService(datacenter: string, service: string): Promise<IssuedCertificate>;
  /**
   * A certificate for the mesh gateways of a datacenter, with which they take over the requests of peers. The caller decides whether its own
   * caller may have it.
   * @throws {PeeringError} as {@link CertificateAuthority.issueService}.
   */
  issueMeshGateway(datacenter: string): Promise<IssuedCertificate>;
}

/** `server.<datacenter>.peering.<trust domain>`: SNI and DNS SAN of the control plane. */
export function peeringServerName(datacenter: string, trustDomain: string): string {
  return `server.${datacenter}.peering.${trustDomain}`;
}
