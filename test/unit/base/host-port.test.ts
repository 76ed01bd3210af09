import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  hostOf,
  joinHostPort,
  splitHostPort,
  splitPushedAddress,
  withoutBrackets,
} from "../../../src/base/host-port.js";

describe("splitHostPort", () => {
  const good: readonly [address: string, host: string, port: number][] = [
    ["host:80", "host", 80],
    [":80", "", 80],
    ["[::1]:80", "::1", 80],
    ["[fe80::1%eth0]:8503", "fe80::1%eth0", 8503],
    ["1.2.3.4:65535", "1.2.3.4", 65_535],
    ["a:0080", "a", 80],
  ];
  for (const [address, host, port] of good) {
    it(`splits ${address}`, () => assert.deepEqual(splitHostPort(address), { host, port }));
  }

  const bad = [
    "",
    "80",
    "1.2.3.4",
    "a:0",
    "a:65536",
    "a:99999",
    "a:http",
    "a:",
    "a: 80",
    "a:+80",
    "a:-1",
    "a:1e3",
    "a:8x",
  ];
  for (const address of [
    ...bad,
    "::1:80",
    "[::1]",
    "[::1]80",
    "[::1:80",
    "::1]:80",
    "[a]b:80",
    "a[b]:80",
    "[[a]]:80",
  ]) {
    it(`refuses ${JSON.stringify(address)}`, () => assert.equal(splitHostPort(address), undefined));
  }

  it("gives back what joinHostPort joined", () => {
    const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain(), fc.constant(""));
    fc.assert(
      fc.property(host, fc.integer({ min: 1, max: 65_535 }), (host, port) => {
        assert.deepEqual(splitHostPort(joinHostPort(host, port)), { host, port });
        assert.deepEqual(splitPushedAddress(joinHostPort(host, port)), { host, port });
      }),
    );
  });
});

describe("splitPushedAddress", () => {
  it("splits an IPv6 address without brackets at the last colon", () => {
    assert.deepEqual(splitPushedAddress("fd00::1:8503"), { host: "fd00::1", port: 8503 });
    assert.deepEqual(splitPushedAddress("::ffff:10.0.0.1:8503"), { host: "::ffff:10.0.0.1", port: 8503 });
    assert.deepEqual(splitPushedAddress("fe80::1%eth0:8503"), { host: "fe80::1%eth0", port: 8503 });
    assert.deepEqual(splitPushedAddress("fd00:1::2:8503"), { host: "fd00:1::2", port: 8503 });
  });

  for (const address of [
    "",
    "a",
    "80",
    "a:b:80",
    "fd00::1x:80",
    "fd00::1%:80",
    "fd00::1:0",
    "fd00::1:http",
    "[fd00::1:80",
  ]) {
    it(`refuses ${JSON.stringify(address)}`, () => assert.equal(splitPushedAddress(address), undefined));
  }
});

describe("hostOf", () => {
  for (const [address, host] of [
    ["1.2.3.4:80", "1.2.3.4"],
    ["[::1]:80", "::1"],
    ["[fe80::1%eth0]:80", "fe80::1%eth0"],
    ["name:0", "name"],
    ["name:", "name"],
    ["name", "name"],
    ["", ""],
  ] as const) {
    it(`of ${JSON.stringify(address)}`, () => assert.equal(hostOf(address), host));
  }

  it("leaves a host without brackets as it is", () => {
    assert.equal(withoutBrackets("[::1]"), "::1");
    assert.equal(withoutBrackets("::1"), "::1");
    assert.equal(withoutBrackets("[::1"), "[::1");
  });
});
