import { createPublicKey, type KeyObject } from "node:crypto";
import { PeeringError } from "../base/errors.js";
import { LARGEST_RSA } from "../token/pem.js";
import { peeringServerName, type RequestedIdentity } from "./authority.js";
import { canSign, formatSpiffeId, parseSpiffeId, type SpiffeId } from "./spiffe.js";

/** The fields of a certificate signing request, once its signature is verified. */
export interface SigningRequest {
  readonly publicKeyPem: string;
  /** Of the subject alternative names, in order: `url`, `dns`, `email`, `ip` and so on. */
  readonly names: readonly { readonly type: string; readonly value: string }[];
}

/** The parts of it that are signed. Everything else of a request is ours to set, or refused. */
export interface SignedNames {
  readonly uri: string;
  readonly dnsNames: readonly string[];
}

/** RSA keys: what verifiers take, and what signatures are still quick with. */
const RSA_BITS = { least: 2_048, most: LARGEST_RSA.bits };
const RSA_EXPONENTS = { least: 65_537n, most: LARGEST_RSA.exponent };
const EC_CURVES = new Set(["prime256v1", "secp384r1", "secp521r1"]);
const DNS_NAME = /^(?=.{1,253}$)(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*$/i;
/** Characters of a URI, of which a certificate can hold no others. */
const URI = /^[\x21-\x7e]{1,2048}$/;
const SHOWN_CHARACTERS = 100;

/**
 * The one identity that is asked for, which the request must name, and the DNS names that go with it: none for a service or a mesh gateway, the name
 * of the servers for a server, and for an agent those it asks for, outside of the trust domain.
 * @throws {PeeringError} `invalid-argument`: the request breaks a rule, with Consul's texts, or names anything else.
 */
export function namesToSign(
  { names }: SigningRequest,
  asked: RequestedIdentity & { readonly trustDomain: string },
): SignedNames {
  const cluster = { trustDomain: asked.trustDomain, datacenter: asked.datacenter };
  const of = (type: string): readonly string[] => names.filter((name) => name.type === type).map(({ value }) => value);
  const [uri, ...more] = of("url");
  if (uri === undefined || more.length > 0) {
    throw refusal(`CSR SAN contains an invalid number of URIs: ${uri === undefined ? 0 : 1 + more.length}`);
  }
  if (of("email").length > 0) throw refusal("CSR SAN does not allow specifying email addresses");
  if (!URI.test(uri)) throw refusal(`CSR SAN contains an invalid URI: ${shown(uri)}`);
  const id = parseSpiffeId(uri);
  if (id.kind === "signing") throw refusal("SPIFFE ID in CSR must be a service, mesh-gateway, or agent ID");
  if (id.datacenter !== cluster.datacenter) {
    throw refusal(`SPIFFE ID in CSR from a different datacenter: ${id.datacenter}, we are ${cluster.datacenter}`);
  }
  if (id.kind !== "agent" && !canSign(cluster.trustDomain, id)) {
    throw refusal(`SPIFFE ID in CSR from a different trust domain: ${id.trustDomain}, we are ${cluster.trustDomain}`);
  }
  for (const { type, value } of names) {
    const fault = nameFault(id, cluster, type, value);
    if (fault !== undefined) throw refusal(`CSR SAN of ${ARTICLES[id.kind]} ${fault}: ${shown(value)}`);
  }
  // An agent cannot know the trust domain before it has its first certificate.
  const named = id.kind === "agent" ? formatSpiffeId({ ...id, trustDomain: cluster.trustDomain }) : uri;
  const expected = formatSpiffeId(spiffeIdOf(asked));
  // Byte for byte, as verifiers compare.
  if (named !== expected) {
    throw refusal(
      `CSR SAN is of another identity than the one that was asked for: ${shown(named)}, not ${shown(expected)}`,
    );
  }
  switch (id.kind) {
    case "agent":
      return { uri: expected, dnsNames: [...new Set(of("dns").map(withoutPort))] };
    case "server":
      return { uri: expected, dnsNames: [peeringServerName(cluster.datacenter, cluster.trustDomain)] };
    default:
      return { uri: expected, dnsNames: [] };
  }
}

function spiffeIdOf(asked: RequestedIdentity & { readonly trustDomain: string }): SpiffeId {
  const partition = "default";
  if (asked.kind === "server") return asked;
  return asked.kind === "service" ? { ...asked, partition, namespace: "default" } : { ...asked, partition };
}

/**
 * Refuses keys that others could break, or that take too long to use.
 * @throws {PeeringError} `invalid-argument`.
 */
export function requireStrongKey(publicKeyPem: string): void {
  const fault = keyFault(createPublicKey(publicKeyPem));
  if (fault !== undefined) throw refusal(`CSR key ${fault}`);
}

/** Why a key is none that others cannot break, or takes too long to use; to be put behind what key it is. */
export function keyFault(publicKey: KeyObject): string | undefined {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details = {} } = publicKey;
  const { namedCurve = "", modulusLength = 0, publicExponent = 0n } = details;
  if (type === "ed25519" || (type === "ec" && EC_CURVES.has(namedCurve))) return undefined;
  if (type !== "rsa") return "must be EC (P-256, P-384, P-521), RSA or Ed25519";
  if (modulusLength < RSA_BITS.least || modulusLength > RSA_BITS.most) {
    return `must have ${RSA_BITS.least} to ${RSA_BITS.most} bits where it is RSA, not ${modulusLength}`;
  }
  const { least, most } = RSA_EXPONENTS;
  if (publicExponent < least || publicExponent > most || publicExponent % 2n === 0n) {
    return `must have an odd exponent from ${least} to ${most} where it is RSA`;
  }
  return undefined;
}

const ARTICLES: Readonly<Record<SpiffeId["kind"], string>> = {
  service: "a service",
  agent: "an agent",
  "mesh-gateway": "a mesh gateway",
  server: "a server",
  signing: "an authority",
};

/** Why a name may not stand beside this identity. */
function nameFault(
  id: SpiffeId,
  cluster: { readonly trustDomain: string; readonly datacenter: string },
  type: string,
  value: string,
): string | undefined {
  if (type === "url") return undefined;
  // Consul's agents ask for the addresses of loopback. They are not signed: nothing dials an agent by them.
  if (type === "ip" && id.kind === "agent") return undefined;
  if (type !== "dns") return `does not allow a name of type ${type}`;
  const name = withoutPort(value).toLowerCase();
  switch (id.kind) {
    case "agent":
      if (!DNS_NAME.test(name)) return "contains an invalid DNS name";
      return `.${name}`.endsWith(`.${cluster.trustDomain.toLowerCase()}`)
        ? "does not allow a DNS name of the trust domain"
        : undefined;
    case "server":
      return name === peeringServerName(cluster.datacenter, cluster.trustDomain).toLowerCase()
        ? undefined
        : "does not allow another DNS name than that of the servers";
    default:
      return "does not allow a DNS name";
  }
}

function withoutPort(name: string): string {
  return name.replace(/:.*$/s, "");
}

function shown(value: string): string {
  return JSON.stringify(value.slice(0, SHOWN_CHARACTERS));
}

function refusal(message: string): PeeringError {
  return new PeeringError("invalid-argument", message);
}
