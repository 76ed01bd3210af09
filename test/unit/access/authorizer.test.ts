import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Access, allowAll } from "../../../src/access/authorizer.js";
import { secretFor, tokensFor } from "../../support/acl.js";

async function sees(rules: string, byDefault: "allow" | "deny"): Promise<readonly string[]> {
  const access = await Access.of(tokensFor([rules], byDefault), secretFor(rules));
  const { service, node } = access.readable("peer");
  return [...(service("any") ? ["services"] : []), ...(node("any") ? ["nodes"] : [])];
}

describe("the readable data of a peer (2.10)", () => {
  it("is for who was granted to write a service, or may read all there are (RPC8)", async () => {
    assert.deepEqual(await sees("", "deny"), []);
    assert.deepEqual(await sees('service "any" { policy = "read" } node "any" { policy = "read" }', "deny"), []);
    assert.deepEqual(await sees('service "x" { policy = "write" }', "deny"), ["services", "nodes"]);
    assert.deepEqual(await sees('service_prefix "" { policy = "read" }', "deny"), ["services"]);
    assert.deepEqual(await sees('node_prefix "" { policy = "read" }', "deny"), ["nodes"]);
  });

  it("is hidden from who may not read something of ours, also where the default is to allow", async () => {
    assert.deepEqual(await sees("", "allow"), ["services", "nodes"]);
    assert.deepEqual(await sees('service "x" { policy = "deny" }', "allow"), ["nodes"]);
    assert.deepEqual(await sees('node "x" { policy = "deny" }', "allow"), ["services"]);
    assert.deepEqual(await sees('service "x" { policy = "deny" } service "y" { policy = "write" }', "allow"), [
      "services",
      "nodes",
    ]);
  });

  it("is everything where everything is allowed", async () => {
    const access = await Access.of(allowAll, "whatever");
    assert.ok(access.readable("peer").service("x") && access.readable("").node("x"));
    access.require({ resource: "acl", access: "write" });
  });
});
