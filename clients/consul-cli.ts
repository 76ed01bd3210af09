import assert from "node:assert/strict";
import { Checks } from "./checks.js";
import type { Client } from "./client.js";
import type { CommandResult, Installation } from "./installation.js";
import type { Side } from "./side.js";

/** Consul's own command line, from CONSUL_BIN, at either side. */
export const consulCli: Client = {
  name: "consul-cli",
  packages: ["the program that CONSUL_BIN names"],
  async missing() {
    return (process.env["CONSUL_BIN"] ?? "") === "" ? "CONSUL_BIN names no program" : undefined;
  },
  async install() {},
  async run(installation, side) {
    const checks = new Checks();
    for (const [name, args, expected, code = 0] of commands(side)) {
      await checks.check(name, async () => {
        const result = await consul(installation, side, args);
        assert.match(result.output, expected);
        assert.equal(result.code, code);
      });
    }
    return checks.outcomes;
  },
  differences: [],
};

function consul(installation: Installation, side: Side, args: readonly string[]): Promise<CommandResult> {
  const env = { CONSUL_HTTP_ADDR: side.alpha.http };
  return installation.run(process.env["CONSUL_BIN"] ?? "", args, { env, limitMs: 20_000 });
}

type CommandCheck = readonly [name: string, args: readonly string[], output: RegExp, code?: number];

function commands({ beta }: Side): readonly CommandCheck[] {
  return [
    ["members", ["members"], /^Node\s+Address\s+Status.*\n\S+\s+127\.0\.0\.1:\d+\s+alive\s+server/],
    ["info", ["info"], /^agent:\n[\s\S]*\bleader = true/m],
    ["operator raft list-peers", ["operator", "raft", "list-peers"], /^Node\s+ID\s+Address[\s\S]*leader/],
    ["catalog datacenters", ["catalog", "datacenters"], /^dc1\n$/],
    ["catalog nodes", ["catalog", "nodes"], /^Node\s+ID\s+Address\s+DC\n(?:.*\n)*node-0 .*10\.0\.0\.1\s+dc1\n/],
    ["catalog services", ["catalog", "services", "-tags"], /^web\s+i0,i1,v1$/m],
    ["catalog nodes of a service", ["catalog", "nodes", "-service", "web"], /node-0[\s\S]*node-1/],
    ["peering list", ["peering", "list"], /^Name\s+State.*\nbeta\s+ACTIVE\s+1\s/],
    ["peering read", ["peering", "read", "-name", beta.name], /^Name:\s+beta\n[\s\S]*State:\s+ACTIVE/],
    ["peering exported-services", ["peering", "exported-services", "-name", beta.name], /^web$/m],
    ["services exported-services", ["services", "exported-services"], /web/],
    [
      "services register",
      ["services", "register", "-name", "by-hand", "-port", "7"],
      /^Registered service: by-hand\n$/,
    ],
    ["services deregister", ["services", "deregister", "-id", "by-hand"], /^Deregistered service: by-hand\n$/],
    ["config list", ["config", "list", "-kind", "exported-services"], /^default\n$/],
    [
      "config read",
      ["config", "read", "-kind", "exported-services", "-name", "default"],
      /"Kind": "exported-services"/,
    ],
    [
      "config read of none",
      ["config", "read", "-kind", "service-defaults", "-name", "none"],
      /Config entry not found/,
      1,
    ],
    ["intention check", ["intention", "check", "web", "api"], /^Allowed\n$/],
    ["watch", ["watch", "-type", "service", "-service", "web"], /"ServiceID": "web-0"|"ID": "web-0"/],
    ["watch of all services", ["watch", "-type", "services"], /"web"/],
    ["kv get of none", ["kv", "get", "none"], /Error! No key exists at: none/, 1],
    ["keygen", ["keygen"], /^[A-Za-z0-9+/]{43}=\n$/],
    ["connect ca get-config", ["connect", "ca", "get-config"], /"Provider": "consul"/],
  ];
}
