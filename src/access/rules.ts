import { PeeringError } from "../base/errors.js";
import { doAll, StepMeter, type Steps } from "../base/steps.js";
import { HclBody, HclError, type HclItem, type HclValue, hclBodySteps, isHclList } from "../syntax/hcl.js";
import type { AclResource, Right } from "./authorizer.js";

/** `write` implies `list`, which implies `read`. */
export type RulePolicy = "deny" | "read" | "list" | "write";

/** One rule of a policy (Consul 1.13 to 1.22). */
export interface AclRule {
  readonly resource: AclResource;
  readonly policy: RulePolicy;
  /** The names it covers, for resources with names: one name, or all that begin with a prefix. Without it: all names. */
  readonly names?: { readonly exact: string } | { readonly prefix: string };
}

/** Resources without names; each is one assignment. */
const SCALARS: ReadonlySet<string> = new Set<AclResource>(["acl", "keyring", "mesh", "operator", "peering"]);
/** Resources with names; each is a block, and another one with `_prefix`. */
const NAMED: ReadonlySet<string> = new Set<AclResource>([
  "agent",
  "event",
  "identity",
  "key",
  "node",
  "query",
  "service",
  "session",
]);
const POLICIES: ReadonlySet<string> = new Set<RulePolicy>(["deny", "read", "list", "write"]);

function isScalar(kind: string): kind is AclResource {
  return SCALARS.has(kind);
}

function isNamed(kind: string): kind is AclResource {
  return NAMED.has(kind);
}

/**
 * Reads rules as Consul writes them, in HCL 1 or JSON: `peering = "read"`, `service_prefix "" { policy = "write" }`. Keys
 * and policies are taken in any case, as there. Unknown rules and keys, which Consul ignores, are refused (D-61).
 * @throws {PeeringError} `invalid-argument`: `At line 3: reason` or `At 3:7: reason`.
 */
export function parseAclRules(text: string): readonly AclRule[] {
  return doAll(readHclSteps(text, rulesOf));
}

/**
 * Reads HCL 1 or JSON that may hold secrets, in steps: the text is not quoted where it is malformed.
 * @throws {PeeringError} `invalid-argument`: `At line 3: reason` or `At 3:7: reason`.
 */
export function* readHclSteps<Value>(text: string, read: (body: HclBody) => Steps<Value>): Steps<Value> {
  try {
    return yield* read(yield* hclBodySteps(text, { secret: true }));
  } catch (error) {
    if (error instanceof HclError) throw new PeeringError("invalid-argument", error.message);
    throw error;
  }
}

/** Weight of a rule in a step. */
const RULE_SIZE = 20;

/** The rules between two braces, or in a file, in steps. @throws {HclError} */
export function* rulesOf({ items }: HclBody): Steps<readonly AclRule[]> {
  const scalars = new Set<string>();
  const rules: AclRule[] = [];
  const meter = new StepMeter();
  for (const item of items) {
    if (meter.isOver(RULE_SIZE)) yield;
    const [key, ...labels] = item.keys;
    const kind = key.toLowerCase();
    if (isScalar(kind)) {
      if (labels.length > 0 || item.value instanceof HclBody)
        throw problem(item, `${kind} takes a policy, and no block`);
      if (scalars.has(kind)) throw problem(item, `${kind} is given twice`);
      scalars.add(kind);
      rules.push({ resource: kind, policy: policyOf(item, kind, false) });
      continue;
    }
    const resource = kind.replace(/_prefix$/, "");
    if (!isNamed(resource)) throw problem(item, `unknown rule${shown(key)}`);
    // JSON has all names in one item.
    for (const block of labelled(item)) {
      if (meter.isOver(RULE_SIZE)) yield;
      rules.push(...namedRules(block, resource, kind !== resource));
    }
  }
  return rules;
}

function namedRules({ label, body, line }: LabelledBlock, resource: AclResource, prefix: boolean): readonly AclRule[] {
  const names = prefix ? { prefix: label } : { exact: label };
  const what = `${resource}${prefix ? "_prefix" : ""} ${JSON.stringify(label)}`;
  const rules = body.items.map((item): AclRule => {
    const key = item.keys[0].toLowerCase();
    // Intentions are a resource of their own, whose rules stand inside of those of services.
    const governed =
      key === "intentions" && (resource === "service" || resource === "identity") ? "intention" : resource;
    if (item.keys.length > 1 || (key !== "policy" && governed === resource)) {
      throw problem(item, `unknown key${shown(item.keys[0])} in ${what}`);
    }
    return { resource: governed, policy: policyOf(item, `${key} of ${what}`, resource === "key"), names };
  });
  const given = rules.map((rule) => rule.resource);
  if (new Set(given).size < given.length) throw problem({ line }, `${what} says something twice`);
  if (!given.includes(resource)) throw problem({ line }, `${what} has no policy`);
  // A block of an identity grants no intentions.
  return resource === "identity" ? rules.filter((rule) => rule.resource === resource) : rules;
}

function policyOf(item: HclItem, what: string, list: boolean): RulePolicy {
  const policy = typeof item.value === "string" ? item.value.toLowerCase() : "";
  if (isPolicy(policy) && (policy !== "list" || list)) return policy;
  const allowed = `"deny", "read", ${list ? '"list", ' : ""}"write"`;
  throw problem(item, `${what} is none of ${allowed}`);
}

function isPolicy(text: string): text is RulePolicy {
  return POLICIES.has(text);
}

/** A block with a label: `service "web" { … }`, or in JSON `"service": {"web": { … }}`. */
export interface LabelledBlock {
  readonly label: string;
  readonly body: HclBody;
  readonly line: number;
}

/** The blocks of an item, which has a label each. @throws {HclError} */
export function labelled(item: HclItem): readonly LabelledBlock[] {
  const [key, label, ...more] = item.keys;
  const { value, line } = item;
  if (label !== undefined) {
    if (more.length === 0 && value instanceof HclBody) return [{ label, body: value, line }];
  } else if (value instanceof HclBody) {
    return value.items.flatMap((inner) => {
      const [name, ...others] = inner.keys;
      return labelled({ ...inner, keys: [key, name, ...others] });
    });
  } else if (isHclList(value)) {
    // JSON may give a list of what HCL gives as blocks in a row.
    return value.flatMap((each: HclValue) => labelled({ ...item, value: each }));
  }
  throw problem(item, `${key} takes one name and a block`);
}

/** An unknown key, with a space before it; nothing where it could be a secret that was put in the wrong place. */
export function shown(key: string): string {
  return /^[a-z_]{1,30}$/i.test(key) ? ` "${key}"` : "";
}

/** That something is wrong with an item. */
export function problem({ line }: Pick<HclItem, "line">, text: string): HclError {
  return new HclError(`At line ${line}: ${text}`);
}

/** How much a rule says against another one about the same: the greater wins (Consul 1.13 to 1.22). */
const STRENGTH: Readonly<Record<RulePolicy, number>> = { read: 0, list: 1, write: 2, deny: 3 };

/** The rules about one resource with names; of several about the same names the strongest. */
class NamedRules {
  readonly exact = new Map<string, RulePolicy>();
  readonly prefixes = new Map<string, RulePolicy>();

  /** That of the name itself, else of the longest prefix. */
  of(name: string): RulePolicy | undefined {
    const exact = this.exact.get(name);
    if (exact !== undefined) return exact;
    for (let length = name.length; length >= 0; length--) {
      const policy = this.prefixes.get(name.slice(0, length));
      if (policy !== undefined) return policy;
    }
    return undefined;
  }

  *all(): Iterable<RulePolicy> {
    yield* this.exact.values();
    yield* this.prefixes.values();
  }
}

const NONE = new NamedRules();

/** The rules of all policies of a token, combined. */
export class RuleSet {
  readonly #scalars = new Map<AclResource, RulePolicy>();
  readonly #named = new Map<AclResource, NamedRules>();
  readonly #default: boolean;

  /** @param defaultPolicy - applies where no rule does. */
  constructor(rules: Iterable<AclRule>, defaultPolicy: "allow" | "deny") {
    this.#default = defaultPolicy === "allow";
    for (const { resource, policy, names } of rules) {
      if (names === undefined) {
        strengthen(this.#scalars, resource, policy);
        continue;
      }
      const named = this.#named.get(resource) ?? new NamedRules();
      this.#named.set(resource, named);
      if ("exact" in names) strengthen(named.exact, names.exact, policy);
      else strengthen(named.prefixes, names.prefix, policy);
    }
    this.#implyIntentions();
  }

  /** If a service's rules do not mention intentions, reading the service includes reading its intentions. */
  #implyIntentions(): void {
    const services = this.#named.get("service");
    if (services === undefined) return;
    const intentions = this.#named.get("intention") ?? new NamedRules();
    this.#named.set("intention", intentions);
    for (const part of ["exact", "prefixes"] as const) {
      for (const [name, policy] of services[part]) {
        if (!intentions[part].has(name)) intentions[part].set(name, policy === "deny" ? "deny" : "read");
      }
    }
  }

  /** A right on a resource with names that says neither which nor how many is taken for all of them. */
  allows({ resource, access, name, scope }: Right): boolean {
    if (isScalar(resource)) return this.#allowsScalar(resource, access);
    // Intentions of `*` hold for every service, so writing them takes the right for each (Consul 1.13 to 1.22).
    if (resource === "intention" && name === "*") {
      return this.allows({ resource, access, scope: access === "read" ? "any" : "all" });
    }
    const rules = this.#named.get(resource) ?? NONE;
    if (name !== undefined) return enforce(rules.of(name), access) ?? this.#default;
    const byAll = enforce(rules.prefixes.get(""), access);
    const each = [...rules.all()].map((policy) => enforce(policy, access) === true);
    if (scope === "granted") return each.includes(true);
    if (scope === "any") return each.includes(true) || (byAll ?? this.#default);
    return each.every((allowed) => allowed) && (byAll ?? this.#default);
  }

  #allowsScalar(resource: AclResource, access: Right["access"]): boolean {
    const policy = this.#scalars.get(resource);
    if (policy === undefined && (resource === "mesh" || resource === "peering"))
      return this.#allowsScalar("operator", access);
    return enforce(policy, access) ?? this.#default;
  }
}

function strengthen<Key>(policies: Map<Key, RulePolicy>, key: Key, policy: RulePolicy): void {
  const present = policies.get(key);
  if (present === undefined || STRENGTH[policy] > STRENGTH[present]) policies.set(key, policy);
}

/** Undefined: no rule speaks. */
function enforce(policy: RulePolicy | undefined, access: Right["access"]): boolean | undefined {
  if (policy === undefined) return undefined;
  return policy === "write" || (access === "read" && policy !== "deny");
}
