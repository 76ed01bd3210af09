import { generateKeyPairSync, randomBytes } from "node:crypto";
import type { ServerIdentity } from "../../../src/transport/transport.js";
import { issueCertificate } from "../../../src/trust/x509.js";

const DAY_MS = 86_400_000;

export interface TestAuthority {
  readonly certificatePem: string;
  readonly keyPem: string;
}

export interface LeafOptions {
  readonly dnsNames?: readonly string[];
  readonly uri?: string;
  readonly notBefore?: number;
  readonly notAfter?: number;
}

export const TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul";
export const SERVER_NAME = `server.dc1.peering.${TRUST_DOMAIN}`;

function newKey(): string {
  return generateKeyPairSync("ec", { namedCurve: "P-256" })
    .privateKey.export({ type: "pkcs8", format: "pem" })
    .toString();
}

function serial(): bigint {
  return BigInt(`0x${randomBytes(8).toString("hex")}`) >> 1n;
}

/** A root, or an intermediate where `parent` is given. */
export async function newAuthority(
  commonName: string,
  parent?: TestAuthority,
  validity: { readonly notBefore?: number; readonly notAfter?: number } = {},
): Promise<TestAuthority> {
  const keyPem = newKey();
  const certificatePem = await issueCertificate({
    usage: "authority",
    serialNumber: serial(),
    subject: { commonName },
    keyPem,
    ...(parent === undefined ? {} : { issuerPem: parent.certificatePem }),
    issuerKeyPem: parent?.keyPem ?? keyPem,
    notBefore: validity.notBefore ?? Date.now() - DAY_MS,
    notAfter: validity.notAfter ?? Date.now() + DAY_MS,
    uri: `spiffe://${TRUST_DOMAIN}`,
    dnsNames: [],
  });
  return { certificatePem, keyPem };
}

/** A server certificate as Consul's acceptors have it, and its key. */
export async function newLeaf(
  authority: TestAuthority,
  options: LeafOptions = {},
): Promise<{ readonly certificateChainPem: string; readonly privateKeyPem: string }> {
  const privateKeyPem = newKey();
  const certificateChainPem = await issueCertificate({
    usage: "leaf",
    serialNumber: serial(),
    subject: undefined,
    keyPem: privateKeyPem,
    issuerPem: authority.certificatePem,
    issuerKeyPem: authority.keyPem,
    notBefore: options.notBefore ?? Date.now() - 60_000,
    notAfter: options.notAfter ?? Date.now() + DAY_MS,
    uri: options.uri ?? `spiffe://${TRUST_DOMAIN}/agent/server/dc/dc1`,
    dnsNames: options.dnsNames ?? [SERVER_NAME],
  });
  return { certificateChainPem, privateKeyPem };
}

/** Shows one certificate for ever. */
export function fixedIdentity(
  certificate: { readonly certificateChainPem: string; readonly privateKeyPem: string },
  serverName: string = SERVER_NAME,
): ServerIdentity {
  return { serverName, current: () => certificate };
}
