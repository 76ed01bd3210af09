import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { isDomainName } from "../syntax/names.js";

const SMALLEST_RSA_KEY = 2048;

/** The first block of a text in PEM, and its label. */
function firstBlock(pem: string): { readonly label: string; readonly text: string } | undefined {
  const found = /-----BEGIN ([^\r\n-]+)-----[\s\S]*?-----END \1-----/.exec(pem);
  return found === null ? undefined : { label: found[1] ?? "", text: found[0] };
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
  const keyBlock = firstBlock(keyPem);
  if (keyBlock === undefined) return "failed to parse private key PEM";
  const key: KeyObject | undefined = read(() => createPrivateKey(keyBlock.text));
  if (keyBlock.label === "RSA PRIVATE KEY") {
    if (key === undefined) return "x509: failed to parse private key";
    if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < SMALLEST_RSA_KEY) {
      return `key length must be at least ${SMALLEST_RSA_KEY} bits`;
    }
  }
  const block = firstBlock(certificatePem);
  if (block === undefined) return "failed to parse certificate PEM";
  const certificate = read(() => new X509Certificate(block.text));
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
