import assert from "node:assert/strict";
import { test } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { joinHostPort } from "../../../src/base/host-port.js";
import { parseAddress } from "../../../src/transport/address.js";

test("host and port, IPv6 in brackets", () => {
  assert.deepEqual(parseAddress("10.0.0.1:8503"), { host: "10.0.0.1", port: 8503 });
  assert.deepEqual(parseAddress("[::1]:0"), { host: "::1", port: 0 });
  assert.deepEqual(parseAddress(":8503"), { host: "", port: 8503 });
  assert.equal(joinHostPort("::1", 1), "[::1]:1");
  assert.equal(joinHostPort("a.b", 1), "a.b:1");
});

test("an invalid address says so in the words of Go, and is UNAVAILABLE", () => {
  const expected = {
    bad: "address bad: missing port in address",
    "[::1]": "address [::1]: missing port in address",
    "::1": "address ::1: too many colons in address",
    "::1:8503": "address ::1:8503: too many colons in address",
    "[::1:8503": "address [::1:8503: missing ']' in address",
    "[::1]x:1": "address [::1]x:1: too many colons in address",
    "a:b": 'address a:b: invalid port "b"',
    "a:": 'address a:: invalid port ""',
    "a:65536": 'address a:65536: invalid port "65536"',
  };
  for (const [address, message] of Object.entries(expected)) {
    assert.throws(
      () => parseAddress(address),
      (error) => {
        assert.ok(error instanceof PeeringError);
        assert.deepEqual([error.code, error.status, error.message], ["invalid-argument", 14, message]);
        return true;
      },
    );
  }
});
