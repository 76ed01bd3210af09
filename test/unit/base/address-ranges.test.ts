import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AddressRanges } from "../../../src/base/address-ranges.js";
import { defaultForbiddenAddresses } from "../../../src/host/dial-rule.js";

describe("AddressRanges", () => {
  it("holds the addresses of its ranges, however they are written", () => {
    const ranges = new AddressRanges(["169.254.0.0/16", "10.1.2.3", "fe80::/10", "fd00:ec2::254"]);
    for (const address of [
      "169.254.0.0",
      "169.254.255.255",
      "10.1.2.3",
      "::ffff:169.254.169.254",
      "::FFFF:a9fe:a9fe",
      "0:0:0:0:0:ffff:169.254.169.254",
      "::169.254.169.254",
      "::ffff:0:169.254.169.254",
      "64:ff9b::a9fe:a9fe",
      "64:ff9b::169.254.169.254",
      "2002:a9fe:a9fe::1",
      "::ffff:10.1.2.3",
      "fe80::1",
      "FE80::1%eth0",
      "febf:ffff::1",
      "fd00:0ec2:0:0::254",
    ]) {
      assert.ok(ranges.leadsInto(address), address);
    }
    for (const address of [
      "169.253.255.255",
      "10.1.2.4",
      "::1",
      "::",
      "fec0::1",
      "2001:db8::a9fe:a9fe",
      "2003:a9fe:a9fe::1",
      "fd00:ec2::255",
      "localhost",
      "",
      "2852039166",
      "169.254.169",
    ]) {
      assert.ok(!ranges.leadsInto(address), address);
    }
  });

  it("includes no address of IPv6 for the IPv4 address that its packets are brought to, where it is another one", () => {
    const ranges = new AddressRanges(["10.0.0.0/8", "fe80::/10"], { needsLength: true });
    for (const address of ["10.1.2.3", "::ffff:10.1.2.3", "::FFFF:a01:203", "fe80::1%eth0"]) {
      assert.ok(ranges.includes(address), address);
    }
    for (const address of [
      "2002:a01:203::1",
      "64:ff9b::a01:203",
      "::10.1.2.3",
      "::ffff:0:10.1.2.3",
      "11.0.0.1",
      "x",
      "",
    ]) {
      assert.ok(!ranges.includes(address), address);
    }
  });

  it("refuses an invalid range", () => {
    for (const range of [
      "",
      "x",
      "10.0.0.0/33",
      "fe80::/129",
      "10.0.0.0/",
      "10.0.0.0/-1",
      "10.0.0/8",
      "fe80::1%eth0",
    ]) {
      assert.throws(() => new AddressRanges([range]), TypeError, range);
    }
    for (const range of ["10.0.0.1", "::1"]) {
      assert.throws(() => new AddressRanges([range], { needsLength: true }), TypeError, range);
    }
    assert.ok(!new AddressRanges([]).leadsInto("0.0.0.0"));
  });

  it("the default forbids addresses of nobody, and leaves loopback, private and public ones", () => {
    const ranges = new AddressRanges(defaultForbiddenAddresses);
    for (const address of [
      "0.0.0.0",
      "::",
      "169.254.169.254",
      "fe80::1",
      "fd00:ec2::254",
      "100.100.100.200",
      "239.0.0.1",
    ]) {
      assert.ok(ranges.leadsInto(address), address);
    }
    for (const address of [
      "127.0.0.1",
      "::1",
      "10.0.0.1",
      "192.168.0.1",
      "172.16.0.1",
      "fd00::1",
      "100.64.0.1",
      "8.8.8.8",
    ]) {
      assert.ok(!ranges.leadsInto(address), address);
    }
  });
});
