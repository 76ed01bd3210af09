import { constants, createPrivateKey } from "node:crypto";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { errorText, PeeringError } from "../base/errors.js";
import { certificatesIn, type ParsedCertificate } from "../token/pem.js";

/** Certificates of a server that is reached over TLS. */
export interface ServerTls {
  /** PEM: the server's certificate, and then the intermediates from it to an authority. */
  readonly certificate: string;
  /** PEM: the key of the first one, not encrypted. */
  readonly key: string;
  /** PEM: authorities of clients. Default: none. */
  readonly ca?: string;
}

/**
 * The options of a server of `node:tls`.
 * @param verifiesClients - whether clients must show a certificate of one of the authorities.
 * @throws {PeeringError} `invalid-argument` that names the part that cannot be used; no key is in it.
 */
export function secureContext({ certificate, key, ca }: ServerTls, verifiesClients: boolean): SecureContextOptions {
  const [own] = certificatesIn(certificate);
  if (own === undefined) throw unusable("the certificate is no PEM of a certificate");
  if (!isKeyOf(own, key)) throw unusable("the key is not that of the certificate");
  const authorities = certificatesIn(ca ?? "");
  if (authorities.length === 0) {
    if (ca !== undefined) throw unusable("there is no certificate among those of authorities");
    if (verifiesClients) throw unusable("no authority is named whose clients are let in");
  }
  const options = {
    cert: certificate,
    key,
    ...(ca === undefined ? {} : { ca: authorities.map(({ pem }) => pem) }),
    minVersion: "TLSv1.2",
    // A resumed session is not verified again, and shows no intermediates.
    ...(verifiesClients && { secureOptions: constants.SSL_OP_NO_TICKET }),
  } as const;
  try {
    createSecureContext(options);
  } catch (error) {
    throw unusable(errorText(error), error);
  }
  return options;
}

function isKeyOf({ certificate }: ParsedCertificate, key: string): boolean {
  try {
    return certificate.checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    throw unusable(`the key cannot be read: ${errorText(error)}`, error);
  }
}

function unusable(why: string, cause?: unknown): PeeringError {
  return new PeeringError("invalid-argument", `TLS: ${why}`, { cause });
}
