import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PeeringError } from "../../../src/base/errors.js";
import { doAll } from "../../../src/base/steps.js";
import { parseConfigEntry } from "../../../src/config/config-entry.js";
import { ConfigEntrySet } from "../../../src/config/config-entry-set.js";
import { checkEntryGuards } from "../../../src/config/export-guards.js";
import { type IntentionSource, intentionFor } from "../../../src/config/intentions.js";

function entry(sources: unknown, name = "web"): unknown {
  return { kind: "service-intentions", name, sources };
}

function sourcesOf(sources: unknown, name = "web"): readonly IntentionSource[] {
  const parsed = parseConfigEntry(entry(sources, name));
  assert.ok(parsed.kind === "service-intentions");
  return parsed.sources;
}

function invalid(action: () => unknown, message: string): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof PeeringError);
    assert.deepEqual([error.code, error.message], ["invalid-entry", message]);
    return true;
  });
}

const allow = { name: "api", action: "allow" } as const;

function permission(http: unknown, action = "allow"): unknown {
  return [{ name: "api", permissions: [{ action, http }] }];
}

// Asked of Consul 1.21.4.
const refusals: readonly (readonly [string, unknown, string])[] = [
  ["no name", entry([allow], ""), "Name is required"],
  [
    "a partial wildcard as name",
    entry([allow], "we*"),
    "Name: wildcard character '*' cannot be used with partial values",
  ],
  ["no source", entry([]), "At least one source is required"],
  ["absent sources", entry(undefined), "At least one source is required"],
  ["a source without name", entry([{ action: "allow" }]), "Sources[0].Name is required"],
  [
    "a partial wildcard as source",
    entry([{ ...allow, name: "ap*" }]),
    "Sources[0].Name: wildcard character '*' cannot be used with partial values",
  ],
  ["every peer", entry([{ ...allow, peer: "*" }]), "Sources[0].Peer: cannot use wildcard '*' in peer"],
  [
    "a peer and a partition",
    entry([{ ...allow, peer: "p", partition: "x" }]),
    "Sources[0].Peer: cannot set Peer and Partition at the same time.",
  ],
  [
    "a sameness group",
    entry([{ ...allow, samenessGroup: "g" }]),
    "Sources[0].SamenessGroup: Sameness groups are a Consul Enterprise feature. ",
  ],
  ["another type", entry([{ ...allow, type: "foo" }]), "Sources[0].Type must be set to 'consul'"],
  [
    "a long description",
    entry([allow, { ...allow, name: "b", description: "d".repeat(513) }]),
    "Sources[1].Description exceeds maximum length 512",
  ],
  ["no action", entry([allow, { name: "b" }]), "Sources[1].Action must be set to 'allow' or 'deny'"],
  ["another action", entry([{ name: "b", action: "ALLOW" }]), "Sources[0].Action must be set to 'allow' or 'deny'"],
  ["a source twice", entry([allow, { ...allow, action: "deny" }]), 'Sources[1] defines "api" more than once'],
  [
    "a source of a peer twice",
    entry([
      { ...allow, peer: "p" },
      { ...allow, peer: "p" },
    ]),
    'Sources[1] defines peer("p") "api" more than once',
  ],
  [
    "an action and permissions",
    entry([{ ...allow, permissions: [{ action: "allow", http: { pathExact: "/x" } }] }]),
    "Sources[0].Action must be omitted if Permissions are specified",
  ],
  [
    "permissions for every destination",
    entry(permission({ pathExact: "/x" }), "*"),
    "Sources[0].Permissions cannot be specified on intentions with wildcarded destinations",
  ],
  [
    "a permission without action",
    entry(permission({ pathExact: "/x" }, "")),
    "Sources[0].Permissions[0].Action must be set to 'allow' or 'deny'",
  ],
  ["a permission for nothing", entry(permission(undefined)), "Sources[0].Permissions[0].HTTP is required"],
  ["a permission for an empty request", entry(permission({})), "Sources[0].Permissions[0].HTTP should not be empty"],
  [
    "a path without its slash",
    entry(permission({ pathPrefix: "x" })),
    "Sources[0].Permissions[0].HTTP.PathPrefix doesn't start with '/': \"x\"",
  ],
  [
    "two paths",
    entry(permission({ pathExact: "/x", pathRegex: "y" })),
    "Sources[0].Permissions[0].HTTP should only contain at most one of PathExact, PathPrefix, or PathRegex",
  ],
  [
    "a header without name",
    entry(permission({ header: [{ present: true }] })),
    "Sources[0].Permissions[0].HTTP.Header[0] missing required Name field",
  ],
  [
    "a header without a way to look at it",
    entry(permission({ header: [{ name: "x", invert: true }] })),
    "Sources[0].Permissions[0].HTTP.Header[0] should only contain one of Present, Exact, Prefix, Suffix, Contains, or Regex",
  ],
  [
    "a method twice",
    entry(permission({ methods: ["get", "GET"] })),
    'Sources[0].Permissions[0].HTTP.Methods contains "GET" more than once',
  ],
  [
    "another method",
    entry(permission({ methods: ["nope"] })),
    'Sources[0].Permissions[0].HTTP.Methods contains an invalid method "NOPE"',
  ],
  [
    "a header that ignores the case of a regular expression",
    entry(permission({ header: [{ name: "x", regex: "a", ignoreCase: true }] })),
    "Sources[0].Permissions[0].HTTP.Header[0] should set one of Exact, Prefix, Suffix, or Contains when using IgnoreCase",
  ],
  [
    "a JWT provider without a name",
    { ...Object(entry([allow])), jwt: { providers: [{}] } },
    "1 error occurred:\n\t* JWT provider name is required\n\n",
  ],
  [
    "an unknown key before all else",
    entry([{ nope: 1, namespace: "default" }]),
    '2 errors occurred:\n\t* invalid config key "sources[0].nope"\n' +
      '\t* invalid config key "sources[0].namespace", namespaces are a consul enterprise feature\n\n',
  ],
];

describe("intentions", () => {
  for (const [what, input, message] of refusals) {
    it(`${what} is refused (ch4 case 86)`, () => {
      invalid(() => parseConfigEntry(input), message);
    });
  }

  it("are kept by precedence, each with its own", () => {
    const sources = sourcesOf([
      { name: "*", action: "deny" },
      { name: "api", peer: "p", action: "allow", precedence: 3, description: "d" },
      { name: "*", peer: "p", action: "deny", type: "consul" },
      { name: "api", action: "allow" },
    ]);
    assert.deepEqual(sources, [
      { name: "api", peer: "p", action: "allow", precedence: 9, description: "d" },
      { name: "api", action: "allow", precedence: 9 },
      { name: "*", action: "deny", precedence: 8 },
      { name: "*", peer: "p", action: "deny", precedence: 8 },
    ]);
    assert.deepEqual(
      sourcesOf([{ name: "*", action: "deny" }, allow], "*").map(({ precedence }) => precedence),
      [6, 5],
    );
    // Stored entries read back unchanged.
    assert.deepEqual(sourcesOf(sources), sources);
  });

  it("decide by name before wildcard, and by `*` for one peer or for local callers alone", () => {
    const all = new Map([
      ["web", sourcesOf([{ name: "*", action: "deny" }, allow, { name: "api", peer: "p", action: "deny" }])],
      ["*", sourcesOf([{ name: "*", peer: "q", action: "allow" }], "*")],
    ]);
    const action = (source: string, peer: string, destination = "web"): string | undefined =>
      intentionFor({ source, peer, destination }, (name) => all.get(name) ?? [])?.action;
    assert.equal(action("api", ""), "allow");
    assert.equal(action("other", ""), "deny");
    assert.equal(action("api", "p"), "deny");
    assert.equal(action("other", "p"), undefined);
    assert.equal(action("api", "q"), "allow");
    assert.equal(action("api", "Q"), undefined);
    assert.equal(action("api", "", "db"), undefined);
  });

  it("with permissions need a protocol that has requests, whichever is written last", () => {
    const intentions = parseConfigEntry(entry(permission({ methods: ["GET"] })));
    const http = parseConfigEntry({ kind: "service-defaults", name: "web", protocol: "http" });
    const tcp = parseConfigEntry({ kind: "service-defaults", name: "web" });
    const text = 'service "web" has protocol "tcp", which is incompatible with L7 intentions permissions';
    const none = ConfigEntrySet.of([]);
    invalid(() => doAll(checkEntryGuards(none, none.with(intentions), "service-intentions", "web", "dc1")), text);
    const with7 = none.with(http).with(intentions);
    doAll(checkEntryGuards(none.with(http), with7, "service-intentions", "web", "dc1"));
    invalid(() => doAll(checkEntryGuards(with7, with7.with(tcp), "service-defaults", "web", "dc1")), text);
    invalid(
      () => doAll(checkEntryGuards(with7, with7.without("service-defaults", "web"), "service-defaults", "web", "dc1")),
      text,
    );
  });
});
