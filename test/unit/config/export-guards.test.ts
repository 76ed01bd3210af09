import assert from "node:assert/strict";
import { test } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { doAll } from "../../../src/base/steps.js";
import { type ConfigEntryInput, parseConfigEntry } from "../../../src/config/config-entry.js";
import { ConfigEntrySet } from "../../../src/config/config-entry-set.js";
import { checkEntryGuards } from "../../../src/config/export-guards.js";
import { entrySet, exporting } from "./export-fixtures.js";

function write(before: ConfigEntrySet, input: ConfigEntryInput): ConfigEntrySet {
  const entry = parseConfigEntry(input);
  const after = before.with(entry);
  doAll(checkEntryGuards(before, after, entry.kind, entry.name, "dc1"));
  return after;
}

function refusedWrite(before: ConfigEntrySet, input: ConfigEntryInput, message: string | RegExp): void {
  assert.throws(
    () => write(before, input),
    (error) => {
      assert.ok(error instanceof PeeringError);
      assert.equal(error.code, "invalid-entry");
      if (typeof message === "string") assert.equal(error.message, message);
      else assert.match(error.message, message);
      return true;
    },
  );
}

const resolver = (fields: Partial<Extract<ConfigEntryInput, { kind: "service-resolver" }>>): ConfigEntryInput => ({
  kind: "service-resolver",
  name: "web",
  ...fields,
});
const httpWeb: ConfigEntryInput = { kind: "proxy-defaults", config: { protocol: "http" } };

test("a redirect of an exported TCP service to another one is refused, of an HTTP one accepted (ch4 case 25)", () => {
  const redirect = resolver({ redirect: { service: "other" } });
  refusedWrite(
    entrySet(exporting(["web", "b"])),
    redirect,
    'peer exported service "web" uses protocol="tcp" and cannot introduce new discovery chain targets like "other.default.default.dc1"',
  );
  write(entrySet(exporting(["web", "b"]), httpWeb), redirect);
  // Not exported yet: no peer relies on its identity.
  write(entrySet(), redirect);
  write(entrySet(redirect), exporting(["web", "b"]));
});

test("failover of an exported TCP service to another one is accepted", () => {
  write(entrySet(exporting(["web", "b"])), resolver({ failover: { "*": { service: "other" } } }));
  write(entrySet(exporting(["*", "b"])), resolver({ failover: { "*": { targets: [{ peer: "p" }] } } }));
});

const unsafe: readonly (readonly [ConfigEntryInput, string])[] = [
  [
    resolver({ redirect: { datacenter: "dc2" } }),
    'peer exported service "web" contains cross-datacenter resolver redirect',
  ],
  [
    resolver({ redirect: { service: "web", peer: "p" } }),
    'peer exported service "web" contains cross-peer resolver redirect',
  ],
  [
    resolver({ failover: { "*": { datacenters: ["dc2"] } } }),
    'peer exported service "web" contains cross-datacenter failover',
  ],
  [
    resolver({ failover: { "*": { targets: [{ datacenter: "dc2" }] } } }),
    'peer exported service "web" contains cross-datacenter failover',
  ],
];
for (const [entry, message] of unsafe) {
  test(`${message}, whichever is written first (ch4 case 26)`, () => {
    refusedWrite(entrySet(exporting(["web", "b"])), entry, message);
    refusedWrite(entrySet(exporting(["*", "b"])), entry, message);
    refusedWrite(entrySet(entry), exporting(["web", "b"]), message);
    refusedWrite(entrySet(entry), exporting(["*", "b"]), message);
    // Exported to no peer, or another one exported: fine.
    write(entrySet(entry), exporting(["api", "b"]));
    write(entrySet(entry), { kind: "exported-services", services: [{ name: "web", consumers: [{}] }] });
  });
}

test("an unsafe resolver behind a redirect counts too", () => {
  const before = entrySet(httpWeb, exporting(["web", "b"]), resolver({ redirect: { service: "api" } }));
  refusedWrite(
    before,
    { kind: "service-resolver", name: "api", redirect: { datacenter: "dc2" } },
    'peer exported service "web" contains cross-datacenter resolver redirect',
  );
});

test("routers and splitters need an HTTP-like protocol, also after the protocol changes", () => {
  const router: ConfigEntryInput = { kind: "service-router", name: "web", routes: [] };
  const message =
    'discovery chain "web" uses a protocol "tcp" that does not permit advanced routing or splitting behavior';
  refusedWrite(entrySet(), router, message);
  const before = entrySet(httpWeb, router);
  refusedWrite(before, { kind: "proxy-defaults", config: {} }, message);
  assert.throws(() =>
    doAll(checkEntryGuards(before, before.without("proxy-defaults", "global"), "proxy-defaults", "global", "dc1")),
  );
});

test("redirects in a circle and inconsistent protocols are refused", () => {
  refusedWrite(
    entrySet({ kind: "service-resolver", name: "api", redirect: { service: "web" } }),
    resolver({ redirect: { service: "api" } }),
    /circular/,
  );
  refusedWrite(
    entrySet({ kind: "service-defaults", name: "api", protocol: "http" }),
    resolver({ redirect: { service: "api" } }),
    /inconsistent protocols/,
  );
});

test("an older fault fails a write that touches it, and no other write, as in Consul", () => {
  const broken = entrySet(exporting(["web", "b"]), resolver({ redirect: { datacenter: "dc2" } }), {
    kind: "service-router",
    name: "api",
    routes: [],
  });
  write(broken, { kind: "service-defaults", name: "db", protocol: "tcp" });
  refusedWrite(broken, { kind: "service-defaults", name: "api", protocol: "tcp" }, /does not permit advanced routing/);
  refusedWrite(
    broken,
    { kind: "service-defaults", name: "web", protocol: "tcp" },
    /cross-datacenter resolver redirect/,
  );
  refusedWrite(broken, exporting(["web", "b"], ["db", "b"]), /cross-datacenter resolver redirect/);
  const mended = broken.without("service-router", "api");
  doAll(checkEntryGuards(broken, mended, "service-router", "api", "dc1"));
});

/** How often the judging of `proxy-defaults` lets others go on, with so many services that have a router. */
function steps(routers: number): number {
  const before = ConfigEntrySet.of(
    Array.from({ length: routers }, (_, index) => parseConfigEntry({ kind: "service-router", name: `web${index}` })),
  );
  const defaults = parseConfigEntry({ kind: "proxy-defaults", name: "global", config: { protocol: "http" } });
  const judging = checkEntryGuards(before, before.with(defaults), "proxy-defaults", "global", "dc1");
  let count = 1;
  while (judging.next().done !== true) count++;
  return count;
}

test("chains that a write may change are compiled in steps, of which there are more where there are more chains", () => {
  assert.equal(steps(10), 1);
  assert.ok(steps(4_000) >= 10, String(steps(4_000)));
  assert.ok(steps(8_000) >= 1.9 * steps(4_000));
});
