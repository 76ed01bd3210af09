// Long files of policies are read, and taken, in proportion to their length.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseAclPolicies, policyAuthorizer } from "../../../src/access/policies.js";
import { assertLinear } from "../../support/growth.js";

const lines = (count: number, line: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => line(index)).join("\n");

const rules = (count: number): string => lines(count, (index) => `service "s${index}" { policy = "read" }`);

describe("a long file of policies", () => {
  it("costs the sum of its policies and its tokens", () =>
    assertLinear<string>({
      size: 500,
      prepare: async (size) =>
        `policy "many" {\n${rules(size)}\n}\n${lines(size, (index) => `token "t${index}" { secret = "x${index}" policies = ["many"] }`)}`,
      steps: {
        "when it is taken": async (text, size) => {
          const authorizer = policyAuthorizer(parseAclPolicies(text));
          const identity = await authorizer.resolve(`x${size - 1}`);
          assert.ok(identity !== undefined);
          const right = { resource: "service", access: "read" } as const;
          assert.equal(authorizer.allowed(identity, { ...right, name: "s0" }), true);
          assert.equal(authorizer.allowed(identity, { ...right, name: "none" }), false);
        },
      },
    }));

  it("costs no more where all of it is on one line", () =>
    assertLinear<string>({
      size: 8_000,
      prepare: async (size) => {
        const names = Array.from({ length: size }, (_, index) => `s${index}`);
        const service = Object.fromEntries(names.map((name) => [name, { policy: "read" }]));
        return JSON.stringify({ policy: { all: { service } } });
      },
      steps: {
        "when it is read": (text, size) => assert.equal(parseAclPolicies(text).policies?.get("all")?.length, size),
      },
    }));

  it("may have any number of rules of one token", () => {
    const count = 130_000;
    const { tokens = [] } = parseAclPolicies(`token "t" {\nsecret = "x"\nrules {\n${rules(count)}\n}\n}`);
    assert.equal(tokens[0]?.rules?.length, count);
  });

  it("gives tokens of the same policies their own rules beside them", async () => {
    const authorizer = policyAuthorizer(
      parseAclPolicies(
        `policy "p" { ${rules(1)} }
        token "plain" { secret = "1" policies = ["p"] }
        token "more" { secret = "2" policies = ["p"] rules { ${'service "own" { policy = "read" }'} } }
        token "other" { secret = "3" }`,
      ),
    );
    const may = async (secret: string, name: string): Promise<boolean> => {
      const identity = await authorizer.resolve(secret);
      assert.ok(identity !== undefined);
      return authorizer.allowed(identity, { resource: "service", access: "read", name });
    };
    const found = ["1", "2", "3"].map(async (secret) => [await may(secret, "s0"), await may(secret, "own")]);
    assert.deepEqual(await Promise.all(found), [
      [true, false],
      [true, true],
      [false, false],
    ]);
  });
});
