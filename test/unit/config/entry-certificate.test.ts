import assert from "node:assert/strict";
import { test } from "node:test";
import { certificateProblem } from "../../../src/config/entry-certificate.js";
import { readGolden } from "../../golden/read.js";
import { withUnreadableKey } from "../../support/unreadable-key.js";

const { ec, rsa } = JSON.parse(readGolden("config-entries/certificates.json"));

test("a certificate whose key cannot be read is none, as in Consul 1.21, whatever key it is given with", () => {
  assert.equal(certificateProblem(ec.Certificate, ec.PrivateKey), undefined);
  for (const { PrivateKey } of [ec, rsa]) {
    const problem = certificateProblem(withUnreadableKey(ec.Certificate), PrivateKey);
    assert.match(String(problem), /^failed to parse certificate: /);
  }
});
