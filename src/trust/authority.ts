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
  /**
   * Why it can sign no certificates for the mesh at the moment, such as "the key is kept elsewhere"; undefined: nothing speaks against it.
   * Proxies and programs of the mesh wait, with this reason, while there is one.
   */
  signingProblem(): string | undefined;
  /** A certificate for the servers of a datacenter (docs/protocol.md, "The connection"). */
  issueServer(datacenter: string): Promise<IssuedCertificate>;
  /**
   * A certificate for the mesh, with a key of its own: of a service, or of the mesh gateways, which take over the requests of peers. The
   * caller decides whether its own caller may have it.
   * @throws {PeeringError} `resource-exhausted`: more than the authority is to sign at the moment. `unavailable`: it cannot sign.
   */
  issueLeaf(identity: LeafIdentity): Promise<IssuedCertificate>;
  /**
   * Signs a certificate signing request (PEM) whose key stays with the one who asks. The request may name this identity, the DNS names
   * that go with it, and nothing besides; subject, usages and constraints are those of every leaf. The caller decides whether its own caller may have it.
   * @throws {PeeringError} `invalid-argument`: it is not one PEM block that its own key has signed, it is too large, names anything else, or
   *   has a weak key. Others as {@link CertificateAuthority.issueLeaf}.
   */
  signRequest(requestPem: string, identity: RequestedIdentity): Promise<SignedLeaf>;
}

/** Whose certificate is issued for the mesh. */
export type LeafIdentity =
  | { readonly kind: "service"; readonly datacenter: string; readonly service: string }
  | { readonly kind: "mesh-gateway"; readonly datacenter: string };

/** Whose certificate can be asked for with a signing request. */
export type RequestedIdentity =
  | LeafIdentity
  | { readonly kind: "agent"; readonly datacenter: string; readonly node: string }
  | { readonly kind: "server"; readonly datacenter: string };

/** A certificate whose key stays with the one who asked for it. */
export type SignedLeaf = Omit<IssuedCertificate, "privateKeyPem">;

/** `server.<datacenter>.peering.<trust domain>`: SNI and DNS SAN of the control plane. */
export function peeringServerName(datacenter: string, trustDomain: string): string {
  return `server.${datacenter}.peering.${trustDomain}`;
}
