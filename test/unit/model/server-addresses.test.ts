import assert from "node:assert/strict";
import { test } from "node:test";
import { serverAddressesToSend } from "../../../src/model/server-addresses.js";
import { gateway, node } from "../config/export-fixtures.js";

const servers = ["198.18.0.1:8503"];

test("sends the servers' addresses, or those of the gateways, best first (ch4 case 42, ch1 case 91)", () => {
  const first = gateway("a", "n1", 443, { taggedAddresses: { wan: { address: "154.238.12.252", port: 8443 } } });
  const second = { ...gateway("b", "n2", 443), node: node("n2", { taggedAddresses: { wan: "172.217.22.15" } }) };
  const third = gateway("c", "n3", 443, { address: "fd00::1" });
  const fourth = gateway("d", "n4", 443);
  const gateways = [first, second, third, fourth];
  assert.deepEqual(serverAddressesToSend(servers, gateways, false), servers);
  assert.deepEqual(serverAddressesToSend(servers, gateways, true), [
    "154.238.12.252:8443",
    "172.217.22.15:443",
    "[fd00::1]:443",
    "10.0.0.1:443",
  ]);
});

test("an empty list is never sent (ch4 case 42)", () => {
  assert.equal(serverAddressesToSend(servers, [], true), undefined);
  assert.equal(serverAddressesToSend([], [], false), undefined);
});
