import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { Authorizer, Right } from "../../../src/access/authorizer.js";
import { Access } from "../../../src/access/authorizer.js";
import { type AclPolicies, parseAclPolicies, policyAuthorizer } from "../../../src/access/policies.js";
import { parseAclRules } from "../../../src/access/rules.js";
import { PeeringError } from "../../../src/base/errors.js";

const SECRET = "2a5d5c0e-5b40-4a54-9f8e-1f4a8ddc4d1c";
const DIGEST = createHash("sha256").update(SECRET).digest("hex");

const FILE = `
default_policy = "deny"

token "ci" {
  secret   = "${SECRET}"
  policies = ["reader", "peerings"]
  rules {
    mesh = "write"
  }
}
policy "reader" {
  service_prefix "" { policy = "read" }
}
policy "peerings" {
  peering = "read"
}
anonymous {
  policies = ["reader"]
}
`;

const IN_JSON = JSON.stringify({
  default_policy: "deny",
  policy: { reader: { service_prefix: { "": { policy: "read" } } }, peerings: { peering: "read" } },
  token: { ci: { secret_sha256: DIGEST.toUpperCase(), policies: ["reader", "peerings"], rules: { mesh: "write" } } },
  anonymous: { policies: ["reader"] },
});

const rights: readonly Right[] = [
  { resource: "peering", access: "read" },
  { resource: "peering", access: "write" },
  { resource: "mesh", access: "write" },
  { resource: "service", access: "read", name: "web" },
  { resource: "service", access: "write", name: "web" },
  { resource: "node", access: "read", name: "n1" },
];

async function granted(authorizer: Authorizer, token: string): Promise<readonly string[]> {
  const access = await Access.of(authorizer, token);
  return rights.filter((right) => access.may(right)).map(({ resource, access: kind }) => `${resource}:${kind}`);
}

describe("policies from a file", () => {
  for (const [form, text] of [
    ["HCL", FILE],
    ["JSON", IN_JSON],
  ] as const) {
    it(`grants what policies and rules say, in ${form}`, async () => {
      const authorizer = policyAuthorizer(parseAclPolicies(text));
      assert.equal(authorizer.defaultPolicy, "deny");
      assert.deepEqual(await granted(authorizer, SECRET), ["peering:read", "mesh:write", "service:read"]);
      assert.deepEqual(await granted(authorizer, ""), ["service:read"]);
      assert.deepEqual(await granted(authorizer, "anonymous"), ["service:read"]);
      await assert.rejects(granted(authorizer, "another"), { code: "permission-denied", message: "ACL not found" });
      // A digest opens nothing.
      await assert.rejects(granted(authorizer, DIGEST), { message: "ACL not found" });
    });
  }

  it("reads the file that the README shows", async () => {
    const [, example = ""] = /^```hcl\n(.*?)^```$/ms.exec(readFileSync("README.md", "utf8")) ?? [];
    const authorizer = policyAuthorizer(parseAclPolicies(example));
    assert.deepEqual(await granted(authorizer, "test"), [
      "peering:read",
      "peering:write",
      "service:read",
      "service:write",
      "node:read",
    ]);
    assert.deepEqual(await granted(authorizer, ""), ["service:read", "node:read"]);
  });

  it("denies where nothing is said, or allows", async () => {
    assert.deepEqual(await granted(policyAuthorizer(parseAclPolicies("")), ""), []);
    const open = policyAuthorizer(
      parseAclPolicies('default_policy = "allow"\nanonymous { rules { peering = "read" } }'),
    );
    assert.equal(open.defaultPolicy, "allow");
    assert.deepEqual(await granted(open, ""), [
      "peering:read",
      "mesh:write",
      "service:read",
      "service:write",
      "node:read",
    ]);
  });

  it("refusals name the accessor, or the anonymous token", async () => {
    const authorizer = policyAuthorizer(parseAclPolicies(FILE));
    const [, write] = rights;
    assert.ok(write !== undefined);
    const [ci, nobody] = [await Access.of(authorizer, SECRET), await Access.of(authorizer, "")];
    assert.throws(() => ci.require(write), {
      message: "Permission denied: token with AccessorID 'ci' lacks permission 'peering:write'",
    });
    assert.throws(() => nobody.require({ resource: "node", access: "read", name: "n1" }), {
      message:
        "Permission denied: anonymous token lacks permission 'node:read' on \"n1\". The anonymous token is used implicitly " +
        "when a request does not specify a token.",
    });
  });

  it("knows identities of its own only", async () => {
    const authorizer = policyAuthorizer({ defaultPolicy: "allow" });
    assert.equal(authorizer.allowed({ accessorId: undefined }, { resource: "peering", access: "read" }), false);
  });

  const token = (inner: string): string => `token "t" {\n  ${inner}\n}`;
  const refused: readonly (readonly [string, string, string])[] = [
    ["an unknown key", 'policys "a" {}', 'At line 1: unknown key "policys"'],
    ["an invalid default", '\n\ndefault_policy = "maybe"', 'At line 3: default_policy is "allow" or "deny"'],
    ["two defaults", 'default_policy = "deny"\ndefault_policy = "allow"', "At line 2: default_policy is given twice"],
    ["a policy given twice", 'policy "a" {}\npolicy "a" {}', 'At line 2: policy "a" is given twice'],
    ["a policy without a name", 'policy {\n peering = "read" }', "At line 2: policy takes one name and a block"],
    ["a bad rule", 'policy "a" {\n  peering = "read"\n  servcie "web" {}\n}', 'At line 3: unknown rule "servcie"'],
    ["a token without a name", 'token "" {}', "At line 1: a token needs its accessor id"],
    [
      "a token given twice",
      `${token('secret = "a"')}\n${token('secret = "b"')}`,
      'At line 4: token "t" is given twice',
    ],
    ["a token without a secret", token("policies = []"), 'At line 1: token "t" has neither secret nor secret_sha256'],
    [
      "two secrets",
      token(`secret = "a"\nsecret_sha256 = "${DIGEST}"`),
      'At line 3: token "t" has more than one secret',
    ],
    ["a secret that is no text", token("secret = 5"), 'At line 2: secret of token "t" is no text'],
    ["an empty secret", token('secret = ""'), 'At line 2: the secret of token "t" is none'],
    ["the secret of nobody", token('secret = "anonymous"'), 'At line 2: the secret of token "t" is none'],
    [
      "an invalid digest",
      token('secret_sha256 = "abc"'),
      'At line 2: secret_sha256 of token "t" is not 64 hexadecimal digits',
    ],
    [
      "a secret of two tokens",
      `${token(`secret = "${SECRET}"`)}\ntoken "u" { secret_sha256 = "${DIGEST}" }`,
      'At line 4: token "u" has the secret of another one',
    ],
    [
      "an unknown policy",
      token('secret = "a"\n  policies = ["nope"]'),
      'At line 3: token "t" names a policy that does not exist: "nope"',
    ],
    ["policies that are no list", 'anonymous { policies = "a" }', "At line 1: policies of anonymous is no list"],
    [
      "a policy that is no text",
      "anonymous { policies = [1] }",
      "At line 1: policies of anonymous names something that is no text",
    ],
    ["rules that are no block", 'anonymous { rules = "x" }', "At line 1: rules of anonymous is no block"],
    ["rules given twice", "anonymous {\n rules {}\n rules {}\n}", "At line 3: rules of anonymous is given twice"],
    ["an unknown key of a token", token('secret = "a"\n  rule {}'), 'At line 3: unknown key "rule" in token "t"'],
    ["two of nobody", "anonymous {}\nanonymous {}", "At line 2: anonymous is given twice"],
    ["a name of nobody", 'anonymous "a" {}', "At line 1: anonymous takes a block"],
    [
      "a bad rule of a token",
      token('secret = "a"\n  rules {\n peering = "x" }'),
      'At line 4: peering is none of "deny", "read", "write"',
    ],
    ["invalid HCL", 'default_policy = "deny"\ntoken "t" {', "At 2:12: object expected closing RBRACE got: EOF"],
    [
      "invalid JSON",
      '{"token": {"t": {"secret": "a"},}}',
      "At 1:33: invalid character '}' looking for beginning of object key string",
    ],
  ];
  for (const [what, text, message] of refused) {
    it(`refuses ${what}, with its line`, () => {
      assert.throws(() => parseAclPolicies(text), { name: "PeeringError", code: "invalid-argument", message });
    });
  }

  it("whatever is wrong with a file, no secret is told", () => {
    const secret = "S3CRET";
    const texts = [FILE.replace(SECRET, secret), IN_JSON.replace(DIGEST.toUpperCase(), secret)];
    const fragment = fc.constantFrom("{", "}", '"', "=", ",", "[", "]", "\n", " ", "x", "<<E\n", "\\", "token", "5");
    let wrong = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(...texts),
        fc.nat(),
        fc.nat({ max: 12 }),
        fc.array(fragment),
        (text, at, cut, put) => {
          const start = at % text.length;
          const mutated = text.slice(0, start) + put.join("") + text.slice(start + cut);
          try {
            parseAclPolicies(mutated);
          } catch (error) {
            wrong++;
            assert.ok(error instanceof PeeringError && error.code === "invalid-argument", String(error));
            assert.doesNotMatch(JSON.stringify([error.message, error.stack, error.cause]), /S3CRET|3CRET|S3CRE/);
          }
        },
      ),
      { numRuns: 2_000 },
    );
    assert.ok(wrong > 0);
  });
});

describe("policies from a program", () => {
  const digest = createHash("sha256").update(SECRET).digest();

  it("grants what rules say", async () => {
    const authorizer = policyAuthorizer({
      policies: new Map([["reader", parseAclRules('service_prefix "" { policy = "read" }')]]),
      tokens: [
        { accessorId: "ci", secretSha256: digest, policies: ["reader"], rules: parseAclRules('peering = "read"') },
      ],
    });
    assert.deepEqual(await granted(authorizer, SECRET), ["peering:read", "service:read"]);
    assert.deepEqual(await granted(authorizer, ""), []);
  });

  it("applies policies that replace others, also to identities that are known already", async () => {
    const other = createHash("sha256").update("another").digest();
    const peering = parseAclRules('peering = "read"');
    const service = parseAclRules('service_prefix "" { policy = "read" }');
    const authorizer = policyAuthorizer({
      tokens: [
        { accessorId: "ci", secretSha256: digest, rules: peering },
        { accessorId: "gone", secretSha256: other, rules: peering },
      ],
    });
    const [ci, gone, nobody] = await Promise.all([SECRET, "another", ""].map((token) => authorizer.resolve(token)));
    assert.ok(ci !== undefined && gone !== undefined && nobody !== undefined);
    const read = { resource: "peering", access: "read" } as const;
    const web = { resource: "service", access: "read", name: "web" } as const;
    assert.deepEqual([authorizer.allowed(ci, read), authorizer.allowed(ci, web)], [true, false]);
    assert.throws(() => authorizer.replace({ anonymous: { policies: ["x"] } }), TypeError);
    assert.deepEqual([authorizer.allowed(ci, read), authorizer.allowed(gone, read)], [true, true]);

    authorizer.replace({
      defaultPolicy: "deny",
      tokens: [{ accessorId: "ci", secretSha256: digest, rules: service }],
      anonymous: { rules: peering },
    });
    assert.deepEqual([authorizer.allowed(ci, read), authorizer.allowed(ci, web)], [false, true]);
    assert.equal(authorizer.allowed(nobody, read), true);
    assert.throws(() => authorizer.allowed(gone, read), { code: "permission-denied", message: "ACL not found" });
    assert.equal(await authorizer.resolve("another"), undefined);
    authorizer.replace({ defaultPolicy: "allow" });
    assert.equal(authorizer.defaultPolicy, "allow");
    assert.equal(authorizer.allowed(nobody, web), true);
  });

  const wrong: readonly (readonly [string, AclPolicies, string])[] = [
    ["a policy that does not exist", { anonymous: { policies: ["x"] } }, 'there is no policy "x"'],
    [
      "an invalid digest",
      { tokens: [{ accessorId: "a", secretSha256: Buffer.from("x") }] },
      "the digest of token a is not 32 bytes long",
    ],
    [
      "two of one id",
      { tokens: ["a", "a"].map((accessorId) => ({ accessorId, secretSha256: digest })) },
      "there are two tokens a",
    ],
    [
      "two of one secret",
      { tokens: ["a", "b"].map((accessorId) => ({ accessorId, secretSha256: digest })) },
      "token b has the secret of another one",
    ],
  ];
  for (const [what, policies, message] of wrong) {
    it(`refuses ${what}`, () => assert.throws(() => policyAuthorizer(policies), { name: "TypeError", message }));
  }
});
