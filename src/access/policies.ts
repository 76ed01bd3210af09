import { createHash, timingSafeEqual } from "node:crypto";
import { PeeringError } from "../base/errors.js";
import { doAll, StepMeter, type Steps } from "../base/steps.js";
import { HclBody, type HclItem, isHclList } from "../syntax/hcl.js";
import type { Authorizer, Identity } from "./authorizer.js";
import { type AclRule, labelled, problem, RuleSet, readHclSteps, rulesOf, shown } from "./rules.js";

/** The rights of an identity: the sum of named policies and of its own rules. */
export interface AclGrant {
  /** Names in {@link AclPolicies.policies}. Default: none. */
  readonly policies?: readonly string[];
  /** As {@link parseAclRules} reads them. Default: none. */
  readonly rules?: readonly AclRule[];
}

export interface AclToken extends AclGrant {
  /** Public id; refusals name it. */
  readonly accessorId: string;
  /** SHA-256 of the secret that requests bear, 32 bytes: the secret itself need not be known here. */
  readonly secretSha256: Uint8Array;
}

/** All identities and their rights. */
export interface AclPolicies {
  /** The policy where no rule applies. Default `"deny"`. */
  readonly defaultPolicy?: "allow" | "deny";
  /** Policies by name. Default: none. */
  readonly policies?: ReadonlyMap<string, readonly AclRule[]>;
  /** Default: none. */
  readonly tokens?: readonly AclToken[];
  /** The rights of requests without a token, and of DNS. Default: none but by the default policy. */
  readonly anonymous?: AclGrant;
}

/** Consul's name of the anonymous token. It may be given instead of a token. */
const ANONYMOUS = "anonymous";

/** An authorizer whose policies can be replaced while it is in use. */
export interface PolicyAuthorizer extends Authorizer {
  /**
   * Applies these policies from now on, also to identities that are known already: a token that is still there has its new
   * rights, and one that is gone is refused like an unknown one.
   * @throws {TypeError} as {@link policyAuthorizer}; the policies of before stay then.
   */
  replace(policies: AclPolicies): void;
}

/**
 * An authorizer that follows rules as Consul 1.13 to 1.22 does: the rule of the very name counts before that of the longest
 * prefix; of several rules about the same, `deny` counts before `write` and that before `read`; `write` implies `read`;
 * where no rule speaks of `peering` or `mesh`, that of `operator` counts. Secrets are compared in constant time.
 * @throws {TypeError} for a policy that does not exist, two tokens of one id or one secret, or an invalid digest.
 */
export function policyAuthorizer(policies: AclPolicies): PolicyAuthorizer {
  let grants = new Grants(policies);
  let revision = 0;
  /** Digests of all secrets that have resolved to an identity; `""`: without one. */
  const secrets = new WeakMap<Identity, string>();
  let identities = new Map<string, Identity>();
  const known = (accessorId: string | undefined, secret: string): Identity => {
    const identity = identities.get(secret) ?? { accessorId };
    identities.set(secret, identity);
    secrets.set(identity, secret);
    return identity;
  };
  return {
    get defaultPolicy() {
      return grants.defaultPolicy;
    },
    get revision() {
      return revision;
    },
    resolve: async (token) => {
      if (token === "" || token === ANONYMOUS) return known(undefined, "");
      const digest = digestOf(token);
      let found: Identity | undefined;
      // All of them are looked at, so that time says nothing of where one was found.
      for (const { secretSha256, accessorId } of grants.tokens) {
        if (timingSafeEqual(secretSha256, digest)) found = known(accessorId, hexOf(secretSha256));
      }
      return found;
    },
    allowed: (identity, right) => {
      const secret = secrets.get(identity);
      if (secret === undefined) return false;
      const rules = grants.rules.get(secret);
      if (rules === undefined) throw new PeeringError("permission-denied", "ACL not found");
      return rules.allows(right);
    },
    replace: (next) => {
      grants = new Grants(next);
      revision++;
      identities = new Map();
    },
  };
}

/** Policies as they are looked up. */
class Grants {
  readonly defaultPolicy: "allow" | "deny";
  readonly tokens: readonly AclToken[];
  /** The rights of each identity, by the digest of its secret; `""`: those without one. */
  readonly rules: ReadonlyMap<string, RuleSet>;

  /** @throws {TypeError} */
  constructor({ defaultPolicy = "deny", tokens = [], anonymous = {}, policies }: AclPolicies) {
    checkTokens(tokens);
    // Many tokens of the same policies share one set, for policies may be long.
    const shared = new Map<string, RuleSet>();
    const ruleSet = (grant: AclGrant): RuleSet => {
      const { policies: names = [], rules = [] } = grant;
      if (rules.length > 0) return setOf(grant);
      const key = JSON.stringify(names);
      const known = shared.get(key) ?? setOf(grant);
      shared.set(key, known);
      return known;
    };
    const setOf = ({ policies: names = [], rules = [] }: AclGrant): RuleSet => {
      const named = names.flatMap((name) => {
        const found = policies?.get(name);
        if (found === undefined) throw new TypeError(`there is no policy ${JSON.stringify(name)}`);
        return found;
      });
      return new RuleSet([...named, ...rules], defaultPolicy);
    };
    this.defaultPolicy = defaultPolicy;
    this.tokens = tokens;
    this.rules = new Map([
      ["", ruleSet(anonymous)],
      ...tokens.map((token) => [hexOf(token.secretSha256), ruleSet(token)] as const),
    ]);
  }
}

function hexOf(digest: Uint8Array): string {
  return Buffer.from(digest).toString("hex");
}

/** The stored form of a secret. */
export function digestOf(secret: string): Uint8Array {
  return createHash("sha256").update(secret).digest();
}

function checkTokens(tokens: readonly AclToken[]): void {
  const ids = new Set<string>();
  const secrets = new Set<string>();
  for (const { accessorId, secretSha256 } of tokens) {
    if (secretSha256.length !== 32) throw new TypeError(`the digest of token ${accessorId} is not 32 bytes long`);
    if (ids.has(accessorId)) throw new TypeError(`there are two tokens ${accessorId}`);
    ids.add(accessorId);
    const hex = hexOf(secretSha256);
    if (secrets.has(hex)) throw new TypeError(`token ${accessorId} has the secret of another one`);
    secrets.add(hex);
  }
}

/**
 * Reads a file of policies, in HCL 1 or JSON:
 *
 * ```hcl
 * default_policy = "deny"               # or "allow"; "deny" is the default
 *
 * policy "reader" {                     # rules, as Consul writes them
 *   service_prefix "" { policy = "read" }
 *   node_prefix ""    { policy = "read" }
 * }
 *
 * token "ci" {                          # its accessor id, which is no secret
 *   secret   = "4a3c…"                  # or secret_sha256, in hexadecimal digits
 *   policies = ["reader"]
 *   rules {                             # beside those of the policies
 *     peering = "write"
 *   }
 * }
 *
 * anonymous {                           # who has no token; DNS, too
 *   policies = ["reader"]
 * }
 * ```
 *
 * In JSON, names are keys: `{"policy": {"reader": {"service_prefix": {"": {"policy": "read"}}}}}`.
 * @throws {PeeringError} `invalid-argument`, `At line 3: reason` or `At 3:7: reason`; no secret is in it.
 */
export function parseAclPolicies(text: string): AclPolicies {
  return doAll(aclPoliciesSteps(text));
}

/** As {@link parseAclPolicies}, in steps. */
export function aclPoliciesSteps(text: string): Steps<AclPolicies> {
  return readHclSteps(text, policiesOf);
}

/** Weight of a policy or a token in a step, without its rules. */
const GRANT_SIZE = 50;

function* policiesOf({ items }: HclBody): Steps<AclPolicies> {
  const meter = new StepMeter();
  const policies = new Map<string, readonly AclRule[]>();
  const tokens = new Map<string, AclToken>();
  const secrets = new Set<string>();
  let defaultPolicy: "allow" | "deny" | undefined;
  let anonymous: AclGrant | undefined;
  // Policies first: grants may stand before the policies that they name.
  for (const item of items.filter(({ keys: [key] }) => key === "policy")) {
    for (const { label, body, line } of labelled(item)) {
      if (meter.isOver(GRANT_SIZE)) yield;
      if (policies.has(label)) throw problem({ line }, `policy ${JSON.stringify(label)} is given twice`);
      policies.set(label, yield* rulesOf(body));
    }
  }
  for (const item of items) {
    const [key, ...labels] = item.keys;
    switch (key) {
      case "policy":
        break;
      case "default_policy":
        if (defaultPolicy !== undefined) throw problem(item, "default_policy is given twice");
        if (item.value !== "allow" && item.value !== "deny") throw problem(item, 'default_policy is "allow" or "deny"');
        defaultPolicy = item.value;
        break;
      case "token":
        for (const { label, body, line } of labelled(item)) {
          if (meter.isOver(GRANT_SIZE)) yield;
          const what = `token ${JSON.stringify(label)}`;
          if (label === "") throw problem({ line }, "a token needs its accessor id");
          if (tokens.has(label)) throw problem({ line }, `${what} is given twice`);
          const secretSha256 = secretOf(body, what, line);
          const hex = hexOf(secretSha256);
          if (secrets.has(hex)) throw problem({ line }, `${what} has the secret of another one`);
          secrets.add(hex);
          const own = body.items.filter(({ keys }) => !SECRETS.includes(keys[0]));
          tokens.set(label, { accessorId: label, secretSha256, ...(yield* grantOf(own, what, policies)) });
        }
        break;
      case "anonymous":
        if (anonymous !== undefined) throw problem(item, "anonymous is given twice");
        if (labels.length > 0 || !(item.value instanceof HclBody)) throw problem(item, "anonymous takes a block");
        anonymous = yield* grantOf(item.value.items, "anonymous", policies);
        break;
      default:
        throw problem(item, `unknown key${shown(key)}`);
    }
  }
  return {
    policies,
    tokens: [...tokens.values()],
    ...(defaultPolicy !== undefined && { defaultPolicy }),
    ...(anonymous !== undefined && { anonymous }),
  };
}

const SECRETS: readonly string[] = ["secret", "secret_sha256"];

function secretOf({ items }: HclBody, what: string, line: number): Uint8Array {
  const [item, another] = items.filter(({ keys }) => SECRETS.includes(keys[0]));
  if (item === undefined) throw problem({ line }, `${what} has neither secret nor secret_sha256`);
  if (another !== undefined) throw problem(another, `${what} has more than one secret`);
  const { keys, value } = item;
  if (keys.length > 1 || typeof value !== "string") throw problem(item, `${keys[0]} of ${what} is no text`);
  if (keys[0] === "secret_sha256") {
    if (!/^[0-9a-fA-F]{64}$/.test(value)) throw problem(item, `secret_sha256 of ${what} is not 64 hexadecimal digits`);
    return Buffer.from(value, "hex");
  }
  if (value === "" || value === ANONYMOUS) throw problem(item, `the secret of ${what} is none`);
  return digestOf(value);
}

function* grantOf(items: readonly HclItem[], what: string, known: ReadonlyMap<string, unknown>): Steps<AclGrant> {
  const given = new Set<string>();
  const policies: string[] = [];
  const rules: AclRule[] = [];
  for (const item of items) {
    const { keys, value } = item;
    const [key, ...labels] = keys;
    if (labels.length > 0 || (key !== "policies" && key !== "rules")) {
      throw problem(item, `unknown key${shown(key)} in ${what}`);
    }
    if (given.has(key)) throw problem(item, `${key} of ${what} is given twice`);
    given.add(key);
    if (key === "rules") {
      if (!(value instanceof HclBody)) throw problem(item, `rules of ${what} is no block`);
      for (const rule of yield* rulesOf(value)) rules.push(rule);
      continue;
    }
    if (!isHclList(value)) throw problem(item, `policies of ${what} is no list`);
    for (const name of value) {
      if (typeof name !== "string") throw problem(item, `policies of ${what} names something that is no text`);
      if (!known.has(name)) throw problem(item, `${what} names a policy that does not exist: ${JSON.stringify(name)}`);
      policies.push(name);
    }
  }
  return { policies, rules };
}
