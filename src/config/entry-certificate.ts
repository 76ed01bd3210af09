import { createPrivateKey, type KeyObject, type X509Certificate } from "node:crypto";
import { isDomainName } from "../syntax/names.js";
import { certificateOf, firstPemBlock, type PemBlock } from "../token/pem.js";

const SMALLEST_RSA_KEY = 2048;

/** The forms of a key that Go tries, in its order. */
const KEY_FORMS = ["pkcs1", "pkcs8", "sec1"] as const;

function keyOf({ type, content }: PemBlock): KeyObject | undefined {
  if (!/^(?:.* )?PRIVATE KEY$/.test(type)) return undefined;
  for (const form of KEY_FORMS) {
    const key = read(() => createPrivateKey({ key: content, format: "der", type: form }));
    if (key !== undefined) return key;
  }
  return undefined;
}

function read<Value>(make: () => Value): Value | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}

function hostsOf(certificate: X509Certificate): readonly string[] {
  const common = /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? "";
  const names = (certificate.subjectAltName ?? "").split(", ").flatMap((name) => /^DNS:(.*)$/.exec(name)?.[1] ?? []);
  return [common, ...names];
}

/** Why a certificate and its key are no pair that a gateway could show; never quotes the key. Texts follow Consul 1.21. */
export function certificateProblem(certificatePem: string, keyPem: string): string | undefined {
  const keyBlock = firstPemBlock(keyPem);
  if (keyBlock === undefined) return "failed to parse private key PEM";
  const key = keyOf(keyBlock);
  if (keyBlock.type === "RSA PRIVATE KEY") {
    if (key === undefined) return "x509: failed to parse private key";
    if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < SMALLEST_RSA_KEY) {
      return `key length must be at least ${SMALLEST_RSA_KEY} bits`;
    }
  }
  const block = firstPemBlock(certificatePem);
  if (block === undefined) return "failed to parse certificate PEM";
  const certificate = certificateOf(block.content);
  // Node reads the key lazily. Go refuses an invalid one, such as a point that is not on its curve, at once.
  const publicKey = read(() => certificate?.publicKey);
  if (certificate === undefined || publicKey === undefined)
    return "failed to parse certificate: x509: malformed certificate";
  if (key === undefined) return "tls: failed to parse private key";
  if (publicKey.asymmetricKeyType !== key.asymmetricKeyType) {
    return "tls: private key type does not match public key type";
  }
  if (!certificate.checkPrivateKey(key)) return "tls: private key does not match public key";
  const wrong = hostsOf(certificate).find((host) => !isDomainName(host));
  return wrong === undefined ? undefined : `host ${JSON.stringify(wrong)} must be a valid DNS hostname`;
}
