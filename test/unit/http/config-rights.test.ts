import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { readGolden } from "../../golden/read.js";
import { secretFor, tokensFor } from "../../support/acl.js";
import { HttpPair } from "../../support/http-pair.js";

const { ec } = JSON.parse(readGolden("config-entries/certificates.json"));

/** The rights that suffice to read, and to write, an entry of the kind named `x` (Consul 1.21). */
const needs: Readonly<Record<string, { readonly read: readonly string[]; readonly fields: object }>> = {
  "api-gateway": { read: ["x"], fields: { Listeners: [{ Name: "a", Port: 1, Protocol: "http" }] } },
  "file-system-certificate": { read: ["mesh"], fields: {} },
  "http-route": { read: ["mesh"], fields: {} },
  "ingress-gateway": { read: ["x"], fields: {} },
  "inline-certificate": { read: ["mesh"], fields: ec },
  "jwt-provider": {
    read: ["mesh", "any service"],
    fields: { JSONWebKeySet: { Local: { Filename: "/k" } } },
  },
  "tcp-route": { read: ["mesh"], fields: {} },
};

const tokens = {
  nothing: 'peering = "read"',
  mesh: 'mesh = "read"',
  "mesh write": 'mesh = "write"',
  x: 'service "x" { policy = "read" }',
  "any service": 'service "other" { policy = "write" }',
} as const;

describe("rights on config entries", { timeout: 60_000 }, () => {
  for (const [kind, { read, fields }] of Object.entries(needs)) {
    it(`on ${kind} are Consul's`, async () => {
      await using pair = await HttpPair.start(10, { authorizer: tokensFor(Object.values(tokens)) });
      const ask = async (as: keyof typeof tokens, method: string, path: string, body?: object): Promise<string> => {
        const headers = { "X-Consul-Token": secretFor(tokens[as]) };
        const sent = body === undefined ? {} : { body: JSON.stringify(body) };
        const { status, text } = await pair.a.ask(method, path, { headers, ...sent });
        return `${status} ${text}`;
      };
      const entry = { Kind: kind, Name: "x", ...fields };
      for (const as of ["nothing", "mesh", "x", "any service"] as const) {
        assert.match(await ask(as, "PUT", "/v1/config", entry), /^403 /, `${as} writes`);
        assert.match(await ask(as, "DELETE", `/v1/config/${kind}/x`), /^403 /, `${as} deletes`);
      }
      assert.equal(await ask("mesh write", "PUT", "/v1/config", entry), "200 true");
      for (const as of ["nothing", "mesh", "x", "any service"] as const) {
        const allowed = read.includes(as);
        const one = await ask(as, "GET", `/v1/config/${kind}/x`);
        const all = await ask(as, "GET", `/v1/config/${kind}`);
        assert.match(one, allowed ? /^200 / : /^403 /, `${as} reads`);
        assert.equal(all === "200 []", !allowed, `${as} lists: ${all}`);
        if (!allowed) assert.ok(!`${one}${all}`.includes("PRIVATE KEY"));
      }
    });
  }

  it("let no caller write entries that only Consul's controller writes", async () => {
    await using pair = await HttpPair.start();
    const { status, text } = await pair.a.ask("DELETE", "/v1/config/bound-api-gateway/x");
    assert.deepEqual([status, text], [403, "Permission denied: only writeable by controller"]);
  });
});
