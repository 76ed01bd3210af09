/** Consul's HTTP API of a host, for a server of `node:http`. */
export {
  type AclResource,
  type Authorizer,
  allowAll,
  type Identity,
  type Right,
} from "../access/authorizer.js";
export {
  type AclGrant,
  type AclPolicies,
  type AclToken,
  type PolicyAuthorizer,
  parseAclPolicies,
  policyAuthorizer,
} from "../access/policies.js";
export { type AclRule, parseAclRules, type RulePolicy } from "../access/rules.js";
export type { AgentControl } from "./call.js";
export { CallLimits, type CallLimitsOptions } from "./call-limits.js";
export { FOLLOWED_VERSION, type HttpHandlerOptions, httpHandler } from "./handler.js";
export type { RequestGuardOptions } from "./request-guard.js";
