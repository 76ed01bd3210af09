// Certificates of your own CA instead of the built-in one, and a change of its root without losing a peer.
//
//   node build/examples/own-certificates.js
//
// Give `providedAuthority` PEM texts from wherever your CA lives. Here they are made on the spot with @peculiar/x509.
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";
import { createHost, type ProvidedMaterial, providedAuthority } from "peerage";
import { memoryStorage } from "peerage/storage/memory";
import { grpcTransport } from "peerage/transport/grpc";

/** A self-signed root that signs the servers' certificates itself. */
async function makeRoot(commonName: string): Promise<ProvidedMaterial> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${commonName}`,
    keys,
    signingAlgorithm: algorithm,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 365 * 24 * 3_600_000),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const certificatePem = certificate.toString("pem");
  const key = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    rootPems: [certificatePem],
    signingCertificatePem: certificatePem,
    signingKeyPem: x509.PemConverter.encode(key, "PRIVATE KEY"),
  };
}

const subjects = (pems: readonly string[]): string =>
  pems.map((pem) => new x509.X509Certificate(pem).subject).join(" and ");

const first = await makeRoot("Example Root 1");
// The trust domain names the cluster: choose it once and keep it for ever, beside the keys.
const clusterId = "5a3ee1c4-19c5-4a9d-a7ab-6d2e5f2f2e4b";
const authority = providedAuthority({ ...first, trustDomain: `${clusterId}.consul` });

await using north = await createHost({
  datacenter: "north",
  storage: memoryStorage(),
  transport: grpcTransport({ listen: "127.0.0.1:0" }),
  authority,
});
await using south = await createHost({ datacenter: "south", storage: memoryStorage(), transport: grpcTransport() });
const token = await north.peerings.generateToken({ peerName: "south" });
await south.peerings.establish({ peerName: "north", token });

/** Waits until south trusts this many roots of north. */
async function trusted(count: number): Promise<void> {
  for await (const _ of south.trustBundles.watch({ signal: new AbortController().signal })) {
    const roots = south.trustBundles.read("north")?.rootPems ?? [];
    if (roots.length !== count) continue;
    console.log(`south trusts ${subjects(roots)}`);
    return;
  }
}
await trusted(1);

// In three steps, so that a peer that is away in between still comes back: the new root beside the old one,
const second = await makeRoot("Example Root 2");
const both = [...first.rootPems, ...second.rootPems];
authority.update({ ...first, rootPems: both });
await trusted(2);
// then the new key,
authority.update({ ...second, rootPems: both });
// and, when every peer has connected since, the old root may go.
authority.update(second);
await trusted(1);
console.log(`and is ${south.peerings.read("north")?.state} all the while`);
