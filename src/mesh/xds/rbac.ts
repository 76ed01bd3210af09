import type { Intention, IntentionHeader, IntentionHttp, IntentionPermission } from "../../config/intentions.js";
import type { TrustBundle } from "../../peering/peering.js";
import {
  type HeaderMatcherSchema,
  type PermissionSchema,
  type PrincipalSchema,
  RBAC_Action,
  type RBACSchema,
  type StringMatcherSchema,
} from "../../wire/envoy.js";
import type { MessageFields } from "../../wire/schema.js";
import { ANY_IDENTITY, CARRIED_HEADER, carriedPattern } from "../identity/carried.js";

type Principal = MessageFields<typeof PrincipalSchema>;
type Permission = MessageFields<typeof PermissionSchema>;
type Rules = MessageFields<typeof RBACSchema>;
type HeaderMatcher = MessageFields<typeof HeaderMatcherSchema>;
type StringMatch = MessageFields<typeof StringMatcherSchema>;

export interface RbacInput {
  /** In the order in which they count. */
  readonly intentions: readonly Intention[];
  readonly allowsByDefault: boolean;
  readonly trustDomain: string;
  /** Of the peers whose callers may come. An intention of any other peer says nothing. */
  readonly bundles: readonly TrustBundle[];
  /** Whether requests are looked at, and not connections alone. */
  readonly http: boolean;
  /** Destinations whose callers must show tokens: those are not looked at here, so intentions for them allow nothing. */
  readonly asksForTokens: ReadonlySet<string>;
}

/** Who calls, from here or from the cluster of a peer. */
interface Source {
  readonly name: string;
  /** `""`: from here. */
  readonly peer: string;
  readonly trustDomain: string;
  readonly partition: string;
}

type Decision = "allow" | "deny" | "requests";

interface Rule {
  readonly source: Source;
  readonly decision: Decision;
  readonly permissions: readonly IntentionPermission[];
  /** Callers that an earlier rule decides about. */
  not: Source[];
}

/** Rules for Envoy of which callers may call a service: every intention has its part in them, and none is passed over silently. */
export function rbacRules(input: RbacInput): Rules {
  const { allowsByDefault } = input;
  const byDefault: Decision = allowsByDefault ? "allow" : "deny";
  const rules = withoutPrecedence(rulesOf(input), byDefault);
  const isPeered = ({ source }: Rule): boolean => source.peer !== "";
  // Requests of peers come through a gateway of ours, which tells in a header who called it.
  const throughGateway = input.http && input.bundles.length > 0 && rulesOf(input).some(isPeered);
  const policies: [string, { permissions: Permission[]; principals: Principal[] }][] = [];
  const connections: Principal[] = [];
  for (const [index, rule] of rules.entries()) {
    const principal = principalOf(rule, input.trustDomain, throughGateway && isPeered(rule));
    if (rule.decision !== "requests") {
      connections.push(principal);
      continue;
    }
    const permissions = requestsOf(rule.permissions, byDefault);
    if (permissions.length > 0)
      policies.push([`consul-intentions-layer7-${index}`, { permissions, principals: [principal] }]);
  }
  // A caller that cannot be told by the header would be no caller that a rule denies.
  if (throughGateway && allowsByDefault) {
    connections.push(allOf([authenticated(gatewayPattern(input.trustDomain)), negated(carrying(ANY_IDENTITY))]));
  }
  if (connections.length > 0) {
    policies.push([
      "consul-intentions-layer4",
      { permissions: [{ rule: { case: "any", value: true } }], principals: connections },
    ]);
  }
  return {
    action: allowsByDefault ? RBAC_Action.DENY : RBAC_Action.ALLOW,
    // Map fields are written in the order of their keys here.
    policies: Object.fromEntries(policies.sort(([left], [right]) => (left < right ? -1 : 1))),
  };
}

function rulesOf({ intentions, trustDomain, bundles, http, asksForTokens }: RbacInput): readonly Rule[] {
  const seen = new Set<string>();
  const rules: Rule[] = [];
  for (const { destination, source } of intentions) {
    const { name, peer = "", permissions, action } = source;
    const key = `${peer}\0${name}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const bundle = bundles.find(({ peerName }) => peerName === peer);
    if (peer !== "" && bundle === undefined) continue;
    const from: Source =
      bundle === undefined
        ? { name, peer, trustDomain, partition: "" }
        : { name, peer, trustDomain: bundle.trustDomain, partition: bundle.exportedPartition };
    // An intention for this service and every caller goes before one for every service and this caller. Consul's rules let the later one in (D-68).
    if (rules.some((earlier) => covers(earlier.source, from))) continue;
    rules.push({
      source: from,
      decision: decisionOf(action, permissions, http, asksForTokens.has(destination)),
      permissions: permissions ?? [],
      not: [],
    });
  }
  return rules;
}

function decisionOf(
  action: "allow" | "deny" | undefined,
  permissions: readonly IntentionPermission[] | undefined,
  http: boolean,
  asksForTokens: boolean,
): Decision {
  if (permissions !== undefined) return http && !asksForTokens ? "requests" : "deny";
  return action === "allow" && !asksForTokens ? "allow" : "deny";
}

/**
 * Envoy knows no order among rules: an earlier one that says otherwise about some callers of a later one becomes an exception of that. What
 * says the same as the default is left out.
 */
function withoutPrecedence(rules: readonly Rule[], byDefault: Decision): readonly Rule[] {
  for (const [index, rule] of rules.entries()) {
    for (const later of rules.slice(index + 1)) if (covers(later.source, rule.source)) later.not.push(rule.source);
  }
  const kept = rules.filter(({ decision }) => decision !== byDefault);
  for (const rule of kept) {
    rule.not = rule.not.filter((one) => !rule.not.some((other) => other !== one && covers(other, one)));
  }
  return kept;
}

/** Whether all callers of `narrow` are callers of `wide`, too, and not the other way round. Other peers are other callers. */
function covers(wide: Source, narrow: Source): boolean {
  return wide.name === "*" && narrow.name !== "*" && wide.peer === narrow.peer && wide.partition === narrow.partition;
}

function principalOf({ source, not }: Rule, trustDomain: string, throughGateway: boolean): Principal {
  if (!throughGateway) return allOf([certified(source), ...not.map((each) => negated(certified(each)))]);
  const calling = allOf([forwarded(source), ...not.map((each) => negated(forwarded(each)))]);
  return allOf([authenticated(gatewayPattern(trustDomain)), calling]);
}

function allOf(ids: readonly Principal[]): Principal {
  const [only] = ids;
  if (ids.length === 1 && only !== undefined) return only;
  return { identifier: { case: "andIds", value: { ids: [...ids] } } };
}

function negated(principal: Principal): Principal {
  return { identifier: { case: "notId", value: principal } };
}

function authenticated(regex: string): Principal {
  return { identifier: { case: "authenticated", value: { principalName: matching(regex) } } };
}

function certified(source: Source): Principal {
  return authenticated(`^${identityPattern(source)}$`);
}

/** The first element alone: it is what our gateway says of its caller, and the gateway drops what that caller says itself. */
function forwarded(source: Source): Principal {
  return carrying(identityPattern(source));
}

/** @param identity - a pattern. */
function carrying(identity: string): Principal {
  const stringMatch = matching(carriedPattern(identity));
  return {
    identifier: {
      case: "header",
      value: { name: CARRIED_HEADER, headerMatchSpecifier: { case: "stringMatch", value: stringMatch } },
    },
  };
}

function identityPattern({ name, trustDomain, partition }: Source): string {
  const lower = partition.toLowerCase();
  const scope = lower === "" || lower === "default" ? "" : `/ap/${literal(lower)}`;
  return `spiffe://${literal(trustDomain)}${scope}/ns/default/dc/[^/]+/svc/${name === "*" ? "[^/]+" : literal(name)}`;
}

function gatewayPattern(trustDomain: string): string {
  return `^spiffe://${literal(trustDomain)}/gateway/mesh/dc/[^/]+$`;
}

function matching(regex: string): StringMatch {
  return { matchPattern: { case: "safeRegex", value: { regex } } };
}

/** A text as a pattern that matches nothing else. */
function literal(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/** The requests that are decided otherwise than by default: the first permission that fits a request decides about it. */
function requestsOf(permissions: readonly IntentionPermission[], byDefault: Decision): Permission[] {
  const found: Permission[] = [];
  const before: Permission[] = [];
  for (const { action, http, jwt } of permissions) {
    const own = requestOf(http);
    // A token that is asked for is not looked at: what it would allow is not allowed.
    const decided = (jwt?.providers ?? []).length > 0 ? "deny" : action;
    if (decided !== byDefault) {
      const exceptions = before.map((rule): Permission => ({ rule: { case: "notRule", value: rule } }));
      found.push(everyOf([own, ...exceptions]));
    }
    before.push(own);
  }
  return found;
}

function everyOf(rules: readonly Permission[]): Permission {
  if (rules.length === 0) return { rule: { case: "any", value: true } };
  const [only] = rules;
  if (rules.length === 1 && only !== undefined) return only;
  return { rule: { case: "andRules", value: { rules: [...rules] } } };
}

function requestOf({ pathExact, pathPrefix, pathRegex, header = [], methods = [] }: IntentionHttp): Permission {
  const rules: Permission[] = [];
  const addPath = (path: StringMatch): void => {
    rules.push({ rule: { case: "urlPath", value: { rule: { case: "path", value: path } } } });
  };
  // Empty ones say nothing.
  if (pathExact) addPath({ matchPattern: { case: "exact", value: pathExact } });
  if (pathPrefix) addPath({ matchPattern: { case: "prefix", value: pathPrefix } });
  if (pathRegex) addPath(matching(pathRegex));
  for (const one of header) rules.push({ rule: { case: "header", value: headerMatcher(one) } });
  const called = methods.map(
    (method): Permission => ({ rule: { case: "header", value: headerMatcher({ name: ":method", exact: method }) } }),
  );
  const [only] = called;
  if (called.length > 1) rules.push({ rule: { case: "orRules", value: { rules: called } } });
  else if (only !== undefined) rules.push(only);
  return everyOf(rules);
}

function headerMatcher({
  name,
  present,
  exact,
  prefix,
  suffix,
  contains,
  regex,
  invert,
  ignoreCase,
}: IntentionHeader): HeaderMatcher {
  const said: StringMatch | undefined =
    exact !== undefined
      ? { matchPattern: { case: "exact", value: exact } }
      : prefix !== undefined
        ? { matchPattern: { case: "prefix", value: prefix } }
        : suffix !== undefined
          ? { matchPattern: { case: "suffix", value: suffix } }
          : contains !== undefined
            ? { matchPattern: { case: "contains", value: contains } }
            : regex !== undefined
              ? matching(regex)
              : undefined;
  return {
    name,
    invertMatch: invert === true,
    headerMatchSpecifier:
      said === undefined
        ? { case: "presentMatch", value: present !== false }
        : { case: "stringMatch", value: { ...said, ignoreCase: ignoreCase === true } },
  };
}
