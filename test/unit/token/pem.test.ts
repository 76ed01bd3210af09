import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { certificatesIn, firstPemBlock, isIssuedBy, publicKeyOf } from "../../../src/token/pem.js";
import { readGolden } from "../../golden/read.js";
import { withUnreadableKey } from "../../support/unreadable-key.js";

interface Recorded {
  readonly text: string;
  /** Type, content in base64, and whether it has headers, of each block that Go finds. */
  readonly blocks: readonly (readonly [type: string, content: string, hasHeaders: boolean])[];
}

const recorded = readGolden("tokens/pem.jsonl")
  .trimEnd()
  .split("\n")
  .map((line): Recorded => JSON.parse(line));
const { ec, rsa } = JSON.parse(readGolden("config-entries/certificates.json"));

describe("the first PEM block of a text", () => {
  it("is the one that Go finds, or none", () => {
    assert.ok(recorded.length > 100);
    for (const { text, blocks } of recorded) {
      const block = firstPemBlock(text);
      const found = block === undefined ? undefined : [block.type, block.content.toString("base64"), block.hasHeaders];
      assert.deepEqual(found, blocks[0], JSON.stringify(text));
    }
  });
});

describe("the certificates in a text", () => {
  const [first, second]: readonly string[] = [ec.Certificate, rsa.Certificate];

  it("are all of them, in order, whatever stands between", () => {
    const empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
    const broken = "-----BEGIN CERTIFICATE-----\nMAA*\n-----END CERTIFICATE-----\n";
    const noCertificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    const encrypted = String(first).replace("\n", "\nProc-Type: 4,ENCRYPTED\n\n");
    const other = String(first).replaceAll("CERTIFICATE", "TRUSTED CERTIFICATE");
    // Node would read a text once more where bytes are meant.
    const twice = `-----BEGIN CERTIFICATE-----\n${Buffer.from(String(first)).toString("base64")}\n-----END CERTIFICATE-----\n`;
    const nothing = [empty, broken, noCertificate, encrypted, other, twice, ec.PrivateKey, "text\n"].join("");
    assert.deepEqual(certificatesIn(nothing), []);
    const found = certificatesIn(`${nothing}${first}${nothing}${second}${nothing}`);
    assert.deepEqual(
      found.map(({ pem, certificate }) => [pem, certificate.subject]),
      [
        [first, "CN=ec"],
        [second, "CN=gateway.example.com"],
      ],
    );
  });

  it("end where the text does, also within a marker", () => {
    for (const rest of ["-----BEGIN CERTIFICATE-----", "-----BEGIN ", "-----END CERTIFICATE-----", "-----"]) {
      assert.equal(certificatesIn(`${first}${rest}`).length, 1, rest);
    }
  });

  it("are given back as PEM, however they were written", () => {
    const written = `x\n${first}`
      .replaceAll("\n", " \r\n")
      .replace("BEGIN CERTIFICATE----- ", "BEGIN CERTIFICATE-----");
    assert.deepEqual(
      certificatesIn(written).map(({ pem }) => pem),
      [first],
    );
  });
});

describe("a certificate whose key cannot be read", () => {
  it("has issued none, whatever it says, and no error of OpenSSL tells so", () => {
    const [sound] = certificatesIn(ec.Certificate);
    const [broken] = certificatesIn(withUnreadableKey(ec.Certificate));
    assert.ok(sound !== undefined && broken !== undefined);
    assert.equal(publicKeyOf(sound.certificate)?.asymmetricKeyType, "ec");
    assert.equal(publicKeyOf(broken.certificate), undefined);
    assert.equal(isIssuedBy(sound.certificate, sound.certificate), true);
    assert.equal(isIssuedBy(sound.certificate, broken.certificate), false);
    assert.equal(isIssuedBy(broken.certificate, sound.certificate), false);
  });
});
