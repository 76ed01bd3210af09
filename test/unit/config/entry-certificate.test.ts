import assert from "node:assert/strict";
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { describe, it, test } from "node:test";
import { certificateProblem } from "../../../src/config/entry-certificate.js";
import { readGolden } from "../../golden/read.js";
import { assertLinear } from "../../support/growth.js";
import { withUnreadableKey } from "../../support/unreadable-key.js";

const { ec, rsa } = JSON.parse(readGolden("config-entries/certificates.json"));

test("a certificate whose key cannot be read is none, as in Consul 1.21, whatever key it is given with", () => {
  assert.equal(certificateProblem(ec.Certificate, ec.PrivateKey), undefined);
  for (const { PrivateKey } of [ec, rsa]) {
    const problem = certificateProblem(withUnreadableKey(ec.Certificate), PrivateKey);
    assert.match(String(problem), /^failed to parse certificate: /);
  }
});

test("a key counts in each form that Go takes, and with no other label", () => {
  const { key } = keyPair();
  const forms = { "PRIVATE KEY": "pkcs8", "EC PRIVATE KEY": "sec1" } as const;
  for (const [label, type] of Object.entries(forms)) {
    const der = createPrivateKey(ec.PrivateKey).export({ format: "der", type });
    for (const labelled of [label, "ANY PRIVATE KEY"]) {
      assert.equal(certificateProblem(ec.Certificate, pem(labelled, der)), undefined, labelled);
    }
    assert.equal(certificateProblem(ec.Certificate, pem("SOMETHING", der)), "tls: failed to parse private key");
  }
  assert.equal(certificateProblem(ec.Certificate, key), "tls: private key does not match public key");
  const sealed = createPrivateKey(ec.PrivateKey).export({
    format: "pem",
    type: "pkcs8",
    cipher: "aes-256-cbc",
    passphrase: "x",
  });
  assert.equal(certificateProblem(ec.Certificate, String(sealed)), "tls: failed to parse private key");
});

function keyPair() {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { key: String(privateKey.export({ format: "pem", type: "pkcs8" })) };
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
}

describe("texts that are nearly a certificate, or many of them", () => {
  const begin = "-----BEGIN CERTIFICATE-----\n";
  const end = "-----END CERTIFICATE-----\n";
  const shapes: Readonly<Record<string, (size: number) => string>> = {
    "beginnings without an end": (size) => begin.repeat(size),
    "beginnings with one end": (size) => begin.repeat(size) + end,
    "ends of one beginning": (size) => begin + end.repeat(size),
    "empty blocks": (size) => (begin + end).repeat(size),
    "labels of other blocks": (size) => (begin + end.replace("CERTIFICATE", "KEY")).repeat(size),
    "headers without an end": (size) => begin + "a: b\n".repeat(size),
  };
  it("are judged in a time that grows with their length", () =>
    assertLinear<string>({
      size: 2_000,
      prepare: async () => "",
      steps: Object.fromEntries(
        Object.entries(shapes).flatMap(([name, text]) => [
          [
            `${name} in place of a certificate`,
            (_: string, size: number) => certificateProblem(text(size), ec.PrivateKey),
          ],
          [`${name} in place of a key`, (_: string, size: number) => certificateProblem(ec.Certificate, text(size))],
        ]),
      ),
    }));
});
