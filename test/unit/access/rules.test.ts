import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { AclResource, Right } from "../../../src/access/authorizer.js";
import { Access } from "../../../src/access/authorizer.js";
import { parseAclPolicies, policyAuthorizer } from "../../../src/access/policies.js";
import { type AclRule, parseAclRules, type RulePolicy, RuleSet } from "../../../src/access/rules.js";

const parsed: readonly (readonly [string, string, readonly AclRule[]])[] = [
  ["nothing", "# nobody may do anything", []],
  ["what has no name", 'peering = "write"', [{ resource: "peering", policy: "write" }]],
  [
    "every resource without names",
    'acl = "read" keyring = "read" mesh = "read" operator = "deny"',
    [
      { resource: "acl", policy: "read" },
      { resource: "keyring", policy: "read" },
      { resource: "mesh", policy: "read" },
      { resource: "operator", policy: "deny" },
    ],
  ],
  ["a name", 'service "web" { policy = "read" }', [{ resource: "service", policy: "read", names: { exact: "web" } }]],
  [
    "a prefix, also of no length",
    'node_prefix "" { policy = "write" }',
    [{ resource: "node", policy: "write", names: { prefix: "" } }],
  ],
  [
    "intentions",
    'service_prefix "w" { policy = "read" intentions = "write" }',
    [
      { resource: "service", policy: "read", names: { prefix: "w" } },
      { resource: "intention", policy: "write", names: { prefix: "w" } },
    ],
  ],
  [
    "lists of keys",
    'key_prefix "a" { policy = "list" }',
    [{ resource: "key", policy: "list", names: { prefix: "a" } }],
  ],
  [
    "identities, whose intentions are no service's",
    'identity "a" { policy = "read" intentions = "write" }',
    [{ resource: "identity", policy: "read", names: { exact: "a" } }],
  ],
  [
    "the others with names",
    'agent "a" { policy = "read" } event "a" { policy = "read" } query "a" { policy = "read" } session "a" { policy = "read" }',
    (["agent", "event", "query", "session"] as const).map((resource) => ({
      resource,
      policy: "read",
      names: { exact: "a" },
    })),
  ],
  [
    "names as an object",
    'service = { web = { policy = "read" } }',
    [{ resource: "service", policy: "read", names: { exact: "web" } }],
  ],
  [
    "JSON",
    '{"peering": "read", "service": {"web": {"policy": "read"}}, "node_prefix": [{"": {"policy": "deny"}}]}',
    [
      { resource: "peering", policy: "read" },
      { resource: "service", policy: "read", names: { exact: "web" } },
      { resource: "node", policy: "deny", names: { prefix: "" } },
    ],
  ],
  ["any case", 'Service "Web" { Policy = "Read" }', [{ resource: "service", policy: "read", names: { exact: "Web" } }]],
];

const refused: readonly (readonly [string, string, string])[] = [
  ["a rule nobody knows", '\nfoo = "bar"', 'At line 2: unknown rule "foo"'],
  ["rules of Enterprise", 'namespace "x" { policy = "read" }', 'At line 1: unknown rule "namespace"'],
  [
    "a prefix of what has no names",
    'peering_prefix "" { policy = "read" }',
    'At line 1: unknown rule "peering_prefix"',
  ],
  ["a block for what has no names", 'peering { policy = "read" }', "At line 1: peering takes a policy, and no block"],
  ["an invalid policy", 'peering = "list"', 'At line 1: peering is none of "deny", "read", "write"'],
  ["a policy that is no text", "mesh = 1", 'At line 1: mesh is none of "deny", "read", "write"'],
  ["an assignment given twice", 'mesh = "read"\nmesh = "deny"', "At line 2: mesh is given twice"],
  ["a block without a policy", 'service "web" {\n intentions = "read" }', 'At line 1: service "web" has no policy'],
  [
    "lists under a key that takes none",
    'node "n" { policy = "list" }',
    'At line 1: policy of node "n" is none of "deny", "read", "write"',
  ],
  [
    "a bad policy of a key",
    'key "n" {\n policy = "x" }',
    'At line 2: policy of key "n" is none of "deny", "read", "list", "write"',
  ],
  ["a key nobody knows", 'service "w" { policy = "read"\n foo = "x" }', 'At line 2: unknown key "foo" in service "w"'],
  [
    "intentions of nodes",
    'node_prefix "" { policy = "read" intentions = "read" }',
    'At line 1: unknown key "intentions" in node_prefix ""',
  ],
  ["a policy given twice", 'node "n" { policy = "read" policy = "deny" }', 'At line 1: node "n" says something twice'],
  ["two names", 'service "web" "x" { policy = "read" }', "At line 1: service takes one name and a block"],
  ["no name", 'service { policy = "read" }', "At line 1: service takes one name and a block"],
  ["a name alone", 'service = "web"', "At line 1: service takes one name and a block"],
  [
    "a bad rule in JSON",
    '{\n"service": {\n"web": {"policy": 1}}}',
    'At line 3: policy of service "web" is none of "deny", "read", "write"',
  ],
  ["invalid HCL", 'service "web" }', "At 1:15: a key needs '=' or '{', got \"}\""],
  ["half of it", 'service "web" {', "At 1:16: object expected closing RBRACE got: EOF"],
];

describe("ACL rules", () => {
  for (const [what, text, rules] of parsed) {
    it(`reads ${what}`, () => assert.deepEqual(parseAclRules(text), rules));
  }
  for (const [what, text, message] of refused) {
    it(`refuses ${what}, with its line`, () => {
      assert.throws(() => parseAclRules(text), { name: "PeeringError", code: "invalid-argument", message });
    });
  }
});

const right = (resource: AclResource, access: Right["access"], about: Pick<Right, "name" | "scope"> = {}): Right => ({
  resource,
  access,
  ...about,
});

/** The rights that a text of rules gives, as `resource:access name`. */
function allowed(text: string, rights: readonly Right[], byDefault: "allow" | "deny" = "deny"): readonly string[] {
  const set = new RuleSet(parseAclRules(text), byDefault);
  return rights
    .filter((each) => set.allows(each))
    .map(({ resource, access, name, scope }) => [`${resource}:${access}`, name ?? scope ?? ""].join(" ").trim());
}

describe("what rules come to (2.10)", () => {
  const both = (resource: AclResource, about: Pick<Right, "name" | "scope"> = {}): readonly Right[] => [
    right(resource, "read", about),
    right(resource, "write", about),
  ];

  it("write implies read, and so does list", () => {
    assert.deepEqual(allowed('peering = "write"', both("peering")), ["peering:read", "peering:write"]);
    assert.deepEqual(allowed('peering = "read"', both("peering")), ["peering:read"]);
    assert.deepEqual(allowed('key "a" { policy = "list" }', both("key", { name: "a" })), ["key:read a"]);
  });

  it("peering and mesh without a rule follow operator, and with one do not", () => {
    const rights = [...both("peering"), ...both("mesh"), ...both("operator"), ...both("keyring")];
    assert.deepEqual(allowed('operator = "write" mesh = "deny"', rights), [
      "peering:read",
      "peering:write",
      "operator:read",
      "operator:write",
    ]);
    assert.deepEqual(allowed('operator = "deny" peering = "read"', rights, "allow"), [
      "peering:read",
      "keyring:read",
      "keyring:write",
    ]);
  });

  it("the rule of the name comes before that of the longest prefix", () => {
    const rules = `service_prefix "" { policy = "read" } service_prefix "we" { policy = "deny" }
      service_prefix "web-" { policy = "write" } service "web-x" { policy = "read" } service "w" { policy = "deny" }`;
    const names = ["db", "w", "wa", "web", "web-a", "web-x", "web-xy"];
    const rights = names.map((name) => right("service", "read", { name }));
    assert.deepEqual(
      allowed(rules, rights).map((each) => each.split(" ")[1]),
      ["db", "wa", "web-a", "web-x", "web-xy"],
    );
    const writes = names.map((name) => right("service", "write", { name }));
    assert.deepEqual(
      allowed(rules, writes).map((each) => each.split(" ")[1]),
      ["web-a", "web-xy"],
    );
  });

  it("of rules about the same, deny comes before write, and write before read", () => {
    const name = { name: "web" };
    const rule = (policy: string): string => `service "web" { policy = "${policy}" }\n`;
    assert.deepEqual(allowed(rule("read") + rule("write"), both("service", name)), [
      "service:read web",
      "service:write web",
    ]);
    assert.deepEqual(allowed(rule("deny") + rule("write"), both("service", name)), []);
    assert.deepEqual(allowed(rule("write") + rule("deny") + rule("read"), both("service", name)), []);
  });

  it("intentions follow the service, unless they have a rule", () => {
    const name = { name: "web" };
    assert.deepEqual(allowed('service "web" { policy = "write" }', both("intention", name)), ["intention:read web"]);
    assert.deepEqual(allowed('service "web" { policy = "deny" }', both("intention", name), "allow"), []);
    assert.deepEqual(allowed('service "web" { policy = "deny" intentions = "write" }', both("intention", name)), [
      "intention:read web",
      "intention:write web",
    ]);
    // Implied rights follow from all rules of a name together.
    assert.deepEqual(
      allowed(
        'service "web" { policy = "deny" } service "web" { policy = "read" intentions = "read" }',
        both("intention", name),
      ),
      ["intention:read web"],
    );
  });

  it("granted takes a rule that allows one name, whatever the default is", () => {
    const granted = [right("service", "write", { scope: "granted" })];
    for (const byDefault of ["allow", "deny"] as const) {
      assert.deepEqual(allowed("", granted, byDefault), []);
      assert.deepEqual(allowed('service_prefix "" { policy = "read" }', granted, byDefault), []);
      assert.deepEqual(allowed('service "x" { policy = "write" }', granted, byDefault), ["service:write granted"]);
    }
  });

  it("any takes one name that is allowed, all takes every one", () => {
    const scopes = [right("service", "write", { scope: "any" }), right("service", "read", { scope: "all" })];
    const one = 'service "x" { policy = "read" }';
    assert.deepEqual(allowed(one, scopes), []);
    assert.deepEqual(allowed('service "x" { policy = "write" }', scopes), ["service:write any"]);
    assert.deepEqual(allowed('service_prefix "" { policy = "read" }', scopes), ["service:read all"]);
    assert.deepEqual(allowed('service_prefix "" { policy = "read" } service "x" { policy = "deny" }', scopes), []);
    assert.deepEqual(allowed("", scopes, "allow"), ["service:write any", "service:read all"]);
    assert.deepEqual(allowed('service_prefix "" { policy = "deny" }', scopes, "allow"), []);
    assert.deepEqual(allowed('service "x" { policy = "deny" }', scopes, "allow"), ["service:write any"]);
  });
});

const STRENGTH: readonly RulePolicy[] = ["read", "list", "write", "deny"];
const name = fc.constantFrom("", "a", "ab", "abc", "b", "bc");
const policy = fc.constantFrom<RulePolicy>("read", "write", "deny");
const rule = fc
  .tuple(fc.constantFrom<AclResource>("service", "node"), policy, name, fc.boolean())
  .map(([resource, policy, text, isPrefix]): AclRule => {
    return { resource, policy, names: isPrefix ? { prefix: text } : { exact: text } };
  });
const rules = fc.array(rule, { maxLength: 8 });
const byDefault = fc.constantFrom<"allow" | "deny">("allow", "deny");
const access = fc.constantFrom<Right["access"]>("read", "write");

/** The same, said the long way. */
function expected(
  given: readonly AclRule[],
  byDefault: "allow" | "deny",
  { resource, access, name = "" }: Right,
): boolean {
  const about = given.filter((each) => each.resource === resource);
  const exact = about.filter(({ names }) => names !== undefined && "exact" in names && names.exact === name);
  const length = ({ names }: AclRule): number =>
    names !== undefined && "prefix" in names && name.startsWith(names.prefix) ? names.prefix.length : -1;
  const longest = Math.max(-1, ...about.map(length));
  const counting = exact.length > 0 ? exact : about.filter((each) => longest >= 0 && length(each) === longest);
  const strongest = counting.map((each) => STRENGTH.indexOf(each.policy)).sort((left, right) => right - left)[0];
  if (strongest === undefined) return byDefault === "allow";
  const policy = STRENGTH[strongest];
  return policy === "write" || (policy === "read" && access === "read");
}

describe("precedence of rules", () => {
  it("is that of the name, then of the longest prefix, then of the strongest, whatever their order", () => {
    fc.assert(
      fc.property(rules, byDefault, access, name, (given, otherwise, access, name) => {
        const asked = right("service", access, { name });
        const decision = new RuleSet(given, otherwise).allows(asked);
        assert.equal(decision, expected(given, otherwise, asked));
        assert.equal(new RuleSet([...given].reverse(), otherwise).allows(asked), decision);
      }),
    );
  });

  it("never grants write without read", () => {
    fc.assert(
      fc.property(rules, byDefault, name, (given, otherwise, name) => {
        const set = new RuleSet(given, otherwise);
        for (const about of [{ name }, { scope: "any" }, { scope: "all" }] as const) {
          for (const resource of ["service", "node", "intention", "peering"] as const) {
            assert.ok(!set.allows(right(resource, "write", about)) || set.allows(right(resource, "read", about)));
          }
        }
      }),
    );
  });

  it("all implies each name, and a name implies any", () => {
    fc.assert(
      fc.property(rules, byDefault, access, name, (given, otherwise, access, name) => {
        const set = new RuleSet(given, otherwise);
        const one = set.allows(right("service", access, { name }));
        assert.ok(!set.allows(right("service", access, { scope: "all" })) || one);
        assert.ok(!one || set.allows(right("service", access, { scope: "any" })));
        // A rule that names neither which nor how many covers all.
        assert.equal(set.allows(right("service", access)), set.allows(right("service", access, { scope: "all" })));
      }),
    );
  });

  it("is the same for rules in HCL and in JSON", () => {
    const kind = ({ resource, names }: AclRule): string =>
      names !== undefined && "prefix" in names ? `${resource}_prefix` : resource;
    const label = ({ names }: AclRule): string =>
      JSON.stringify(names === undefined ? "" : "prefix" in names ? names.prefix : names.exact);
    fc.assert(
      fc.property(rules, (given) => {
        const hcl = given.map((each) => `${kind(each)} ${label(each)} { policy = "${each.policy}" }`).join("\n");
        const json = given.map((each) => `"${kind(each)}": {${label(each)}: {"policy": "${each.policy}"}}`).join(",\n");
        assert.deepEqual(parseAclRules(hcl), given);
        assert.deepEqual(parseAclRules(`{${json}}`), given);
      }),
    );
  });
});

describe("intentions of all services", () => {
  /** Whether the anonymous token may write intentions of `*` under these rules, where nothing else is allowed. */
  async function mayWriteAll(rules: string): Promise<boolean> {
    const text = `default_policy = "deny"\nanonymous { rules { ${rules} } }`;
    const access = await Access.of(policyAuthorizer(parseAclPolicies(text)), "");
    return access.may({ resource: "intention", access: "write", name: "*" });
  }

  it("take the right on every service, and none that names a few, or `*` itself", async () => {
    const write = '{ policy = "write" intentions = "write" }';
    assert.equal(await mayWriteAll(`service_prefix "" ${write}`), true);
    for (const rules of [`service "web" ${write}`, `service_prefix "w" ${write}`, `service "*" ${write}`]) {
      assert.equal(await mayWriteAll(rules), false, rules);
    }
    const denied = 'service "db" { policy = "write" intentions = "deny" }';
    assert.equal(await mayWriteAll(`service_prefix "" ${write} ${denied}`), false);
  });
});
