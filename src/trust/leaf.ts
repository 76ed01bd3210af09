import { generateKeyPair } from "node:crypto";
import { promisify } from "node:util";
import { PeeringError } from "../base/errors.js";
import type { Incidents } from "../base/incidents.js";
import {
  type IssuedCertificate,
  type LeafIdentity,
  peeringServerName,
  type RequestedIdentity,
  type SignedLeaf,
} from "./authority.js";
import { namesToSign } from "./signing-request.js";
import { formatSpiffeId } from "./spiffe.js";
import type { Issuer } from "./x509.js";

/** How far back a certificate begins, for verifiers whose clock is behind. */
export const BACKDATE_MS = 60_000;

/** Keeps the authority that signed last ready to sign. */
export class SignerMemory {
  #last: { readonly certificatePem: string; readonly issuer: Promise<Issuer> } | undefined;

  /**
   * @throws {PeeringError} `invalid-argument`: a signing key of a kind that cannot sign certificates here.
   * @internal
   */
  async issuer({ certificatePem, keyPem }: Pick<LeafSigner, "certificatePem" | "keyPem">): Promise<Issuer> {
    const known = this.#last;
    if (known?.certificatePem === certificatePem) return known.issuer;
    const { readIssuer } = await import("./x509.js");
    const read = { certificatePem, issuer: readIssuer(certificatePem, keyPem) };
    this.#last = read;
    read.issuer.catch(() => {
      if (this.#last === read) this.#last = undefined;
    });
    return read.issuer;
  }
}

/** The current signer of leafs. */
export interface LeafSigner {
  readonly memory: SignerMemory;
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Sent after the leaf, in order. */
  readonly intermediatePems: readonly string[];
  readonly rootId: string;
  /** Milliseconds since the epoch. No leaf outlives its signer or its root. */
  readonly notAfter: number;
}

export interface LeafRequest {
  readonly signer: LeafSigner;
  readonly serialNumber: bigint;
  /** The key to certify, PEM. */
  readonly keyPem: string;
  readonly uri: string;
  readonly dnsNames: readonly string[];
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
  /** Counted from a minute before now, where the certificate begins. */
  readonly ttlMs: number;
}

/** A kind of key, as Consul names it: `ec` with the bits of its curve, or `rsa`. */
export interface KeyKind {
  readonly type: "ec" | "rsa";
  readonly bits: number;
}

const LEAF_KEY: KeyKind = { type: "ec", bits: 256 };

/** A new key: PEM `EC PRIVATE KEY` or `RSA PRIVATE KEY`, as Consul writes them. Default EC P-256. */
export async function generatePrivateKey({ type, bits }: KeyKind = LEAF_KEY): Promise<string> {
  if (type === "rsa") {
    const { privateKey } = await promisify(generateKeyPair)("rsa", { modulusLength: bits });
    return privateKey.export({ type: "pkcs1", format: "pem" }).toString();
  }
  const { privateKey } = await promisify(generateKeyPair)("ec", { namedCurve: `P-${bits}` });
  return privateKey.export({ type: "sec1", format: "pem" }).toString();
}

/** Why nothing can be signed; undefined: it can. */
export function signerProblem({ notAfter }: LeafSigner, nowMs: number): string | undefined {
  return notAfter <= nowMs ? "its certificate has expired" : undefined;
}

/** The error for a reason of `signingProblem`. */
export function cannotSign(problem: string): PeeringError {
  const remedy = "Rotate to a new root, or mend what the certificate authority says.";
  return new PeeringError("unavailable", `the certificate authority cannot sign: ${problem}`, { remedy });
}

/** Signs a leaf: no subject, so that the SAN extension is critical. @throws {PeeringError} `unavailable`: see there. */
export async function signLeaf(request: LeafRequest): Promise<SignedLeaf> {
  const { signer, nowMs } = request;
  const problem = signerProblem(signer, nowMs);
  if (problem !== undefined) throw cannotSign(problem);
  // Certificates count in whole seconds; the times that we return are those of the certificate.
  const notBefore = Math.floor((nowMs - BACKDATE_MS) / 1000) * 1000;
  const notAfter = Math.min(notBefore + request.ttlMs, signer.notAfter);
  const issuer = await signer.memory.issuer(signer);
  const { issueBy } = await import("./x509.js");
  const leafPem = await issueBy(issuer, {
    usage: "leaf",
    serialNumber: request.serialNumber,
    subject: undefined,
    keyPem: request.keyPem,
    notBefore,
    notAfter,
    uri: request.uri,
    dnsNames: request.dnsNames,
  });
  return {
    certificateChainPem: [leafPem, ...signer.intermediatePems].join(""),
    notBefore,
    notAfter,
    rootId: signer.rootId,
  };
}

/** Default of the largest certificate signing request that is read, in bytes. */
export const DEFAULT_SIGNING_REQUEST_BYTES = 16_384;

/**
 * Signs a certificate signing request for an identity, as `signRequest` of an authority.
 * @param terms - asked for once the request is found to be good.
 */
export async function signRequestedLeaf(
  requestPem: string,
  asked: RequestedIdentity & { readonly trustDomain: string },
  { signingRequestBytes, incidents }: { readonly signingRequestBytes: number; readonly incidents: Incidents },
  terms: () => Promise<Omit<LeafRequest, "keyPem" | "uri" | "dnsNames">>,
): Promise<SignedLeaf> {
  if (requestPem.length > signingRequestBytes) {
    incidents.report("signing-request-too-large", "a certificate signing request is too large and is refused", {
      bytes: requestPem.length,
      limit: signingRequestBytes,
    });
    throw new PeeringError(
      "invalid-argument",
      `the certificate signing request has ${requestPem.length} bytes, of which ${signingRequestBytes} are allowed`,
    );
  }
  const { readCertificateRequest } = await import("./x509.js");
  const request = await readCertificateRequest(requestPem);
  const names = namesToSign(request, asked);
  return signLeaf({ ...(await terms()), keyPem: request.publicKeyPem, ...names });
}

/** Everything that a leaf with a key of its own is issued from. */
export type OwnKeyLeafRequest = Omit<LeafRequest, "keyPem" | "uri" | "dnsNames"> & {
  readonly datacenter: string;
  readonly trustDomain: string;
};

/** A leaf for the servers of a datacenter, with a key of its own (docs/protocol.md, "The connection"). */
export async function issueServerLeaf(request: OwnKeyLeafRequest): Promise<IssuedCertificate> {
  const { datacenter, trustDomain } = request;
  const uri = formatSpiffeId({ kind: "server", trustDomain, datacenter });
  return issueLeaf(request, uri, [peeringServerName(datacenter, trustDomain)]);
}

/** A leaf for a service or the mesh gateways, with a key of its own. Its SPIFFE id is the one name in it. */
export async function issueMeshLeaf(identity: LeafIdentity, request: OwnKeyLeafRequest): Promise<IssuedCertificate> {
  const { trustDomain } = request;
  const uri =
    identity.kind === "service"
      ? serviceUri({ ...identity, trustDomain })
      : meshGatewayUri({ ...identity, trustDomain });
  return issueLeaf(request, uri, []);
}

/** The SPIFFE id of the mesh gateways of a datacenter. */
export function meshGatewayUri(id: { readonly trustDomain: string; readonly datacenter: string }): string {
  return formatSpiffeId({ kind: "mesh-gateway", partition: "default", ...id });
}

/** The SPIFFE id of a service of this cluster. */
export function serviceUri(id: {
  readonly trustDomain: string;
  readonly datacenter: string;
  readonly service: string;
}): string {
  return formatSpiffeId({ kind: "service", partition: "default", namespace: "default", ...id });
}

async function issueLeaf(
  request: OwnKeyLeafRequest,
  uri: string,
  dnsNames: readonly string[],
): Promise<IssuedCertificate> {
  if (request.datacenter === "") throw new TypeError("a certificate needs the name of its datacenter");
  const keyPem = await generatePrivateKey();
  return new CertificateWithKey(await signLeaf({ ...request, keyPem, uri, dnsNames }), keyPem);
}

/** Keeps the key out of JSON, of logs that print objects, and of copies made by spreading. */
class CertificateWithKey implements IssuedCertificate {
  readonly certificateChainPem: string;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly rootId: string;
  readonly #privateKeyPem: string;

  constructor(signed: SignedLeaf, privateKeyPem: string) {
    this.certificateChainPem = signed.certificateChainPem;
    this.notBefore = signed.notBefore;
    this.notAfter = signed.notAfter;
    this.rootId = signed.rootId;
    this.#privateKeyPem = privateKeyPem;
  }

  get privateKeyPem(): string {
    return this.#privateKeyPem;
  }
}
