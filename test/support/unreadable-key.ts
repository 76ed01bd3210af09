import { certificatesIn } from "../../src/token/pem.js";

/** The end of a header of a key on P-256, in DER, and the form of the point that follows. */
const POINT = Buffer.from("03420004", "hex");

/** A certificate for a key on P-256 with a point that is not on the curve: it can be parsed, and its key cannot be read. */
export function withUnreadableKey(certificatePem: string): string {
  const der = Buffer.from(certificatesIn(certificatePem)[0]?.certificate.raw ?? []);
  const at = der.indexOf(POINT);
  if (at < 0) throw new TypeError("not for a key on P-256");
  const last = at + POINT.length + 63;
  der.writeUInt8(der.readUInt8(last) ^ 1, last);
  return `-----BEGIN CERTIFICATE-----\n${der.toString("base64")}\n-----END CERTIFICATE-----\n`;
}
