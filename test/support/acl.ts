import { createHash } from "node:crypto";
import type { Authorizer } from "../../src/access/authorizer.js";
import { parseAclPolicies, policyAuthorizer } from "../../src/access/policies.js";

/** The secret of the token that has these rules. */
export function secretFor(rules: string): string {
  return createHash("sha256").update(`secret ${rules}`).digest("hex");
}

/** The built-in authorizer from a file that has a token for each of these texts of rules; the anonymous may do nothing. */
export function tokensFor(texts: Iterable<string>, defaultPolicy: "allow" | "deny" = "deny"): Authorizer {
  const tokens = [...new Set(texts)].map(
    (rules, index) => `token "token-${index}" {\n  secret = "${secretFor(rules)}"\n  rules {\n${rules}\n  }\n}\n`,
  );
  return policyAuthorizer(parseAclPolicies(`default_policy = "${defaultPolicy}"\n${tokens.join("")}`));
}
