import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ServiceInstance } from "../../../src/model/instance.js";
import { nodeTable, serviceTable } from "../../../src/model/records.js";
import { metaProblem } from "../../../src/model/registration.js";
import { encodeServicePayload } from "../../../src/payload/exported-payload.js";
import { validatePeeringMeta } from "../../../src/peering/names.js";

type Meta = Readonly<Record<string, string>>;

function messageOf(call: () => unknown): string | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function exported(meta: Meta): string | undefined {
  const node = { ...nodeTable.empty, name: "n1", datacenter: "dc1" };
  const service = { ...serviceTable.empty, id: "web", name: "web", meta };
  const instance: ServiceInstance = { node, service, checks: [] };
  return messageOf(() => encodeServicePayload("web", [instance]));
}

const pairs = (count: number): Meta => Object.fromEntries(Array.from({ length: count }, (_, at) => [`k${at}`, ""]));

const cases: readonly (readonly [what: string, meta: Meta, reason: RegExp | undefined])[] = [
  ["nothing", {}, undefined],
  ["64 pairs", pairs(64), undefined],
  ["65 pairs", pairs(65), /metadata cannot contain more than 64 key\/value pairs/],
  ["an empty key", { "": "v" }, /Key cannot be blank/],
  ["other characters", { "a.b": "v" }, /Key contains invalid characters/],
  ["letters of other alphabets", { ä: "v" }, /Key contains invalid characters/],
  ["a key of 128", { ["k".repeat(128)]: "v" }, undefined],
  ["a key of 129", { ["k".repeat(129)]: "v" }, /Key is too long \(limit: 128 characters\)/],
  ["a reserved key", { "consul-x": "v" }, /Key prefix 'consul-' is reserved for internal use/],
  ["512 bytes", { k: "é".repeat(256) }, undefined],
  ["513 bytes", { k: `${"é".repeat(256)}e` }, /Value is too long \(limit: 512 characters\)/],
  ["170 characters of three bytes, and one more byte", { k: `${"€".repeat(170)}abc` }, /Value is too long/],
  ["the second pair", { a: "b", "c d": "e" }, /'?c d'?.*Key contains invalid characters/],
];

describe("metadata of services, of peerings and of exports has the same rules", () => {
  for (const [what, meta, reason] of cases) {
    it(`for ${what}`, () => {
      for (const problem of [metaProblem(meta, ""), messageOf(() => validatePeeringMeta(meta)), exported(meta)]) {
        if (reason === undefined) assert.equal(problem, undefined);
        else assert.match(problem ?? "", reason);
      }
    });
  }

  it("but for the mark of mesh gateways that join datacenters, which no importer takes, and for queries", () => {
    const federation = { "consul-wan-federation": "1" };
    assert.equal(metaProblem(federation, "mesh-gateway"), undefined);
    assert.match(metaProblem(federation, "") ?? "", /reserved/);
    assert.match(exported(federation) ?? "", /reserved/);
    assert.match(metaProblem({ "consul-other": "1" }, "mesh-gateway") ?? "", /reserved/);
    assert.equal(metaProblem({ "consul-other": "1" }, "query"), undefined);
  });
});
