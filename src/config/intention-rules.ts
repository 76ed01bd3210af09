import { RegularExpression } from "../syntax/regular-expression.js";
import {
  type IntendedCall,
  type IntentionAction,
  type IntentionHeader,
  type IntentionHttp,
  type IntentionJwt,
  type IntentionPermission,
  type IntentionSource,
  intentionFor,
} from "./intentions.js";

/** The sources of one destination, with what all of them ask for. */
export interface IntentionsOfDestination {
  readonly sources: readonly IntentionSource[];
  readonly jwt?: IntentionJwt;
}

/** A request as permissions look at it. */
export interface IntendedRequest {
  readonly method: string;
  /** Normalised, without its query. */
  readonly path: string;
  /** The value of a header by its lower-cased name, several joined by commas; undefined where it is missing. */
  readonly header: (name: string) => string | undefined;
}

/** Whether a call may go on, and why. */
export interface IntentionVerdict {
  readonly allowed: boolean;
  readonly reason: string;
}

/**
 * Decides about connections and requests as Consul's RBAC rules for Envoy do (1.21): the source with the highest precedence, of its
 * permissions the first that matches, and the default where none does. Tokens are not verified here, so what asks for one is
 * refused.
 */
export class IntentionRules {
  readonly #entry: (destination: string) => IntentionsOfDestination | undefined;
  readonly #byDefault: IntentionAction;
  /** Compiled once. They go with the permission or header that they stand in. */
  readonly #patterns = new WeakMap<object, RegularExpression>();

  /** @param entry - the stored intentions of a destination, or of `*`. */
  constructor(
    entry: (destination: string) => IntentionsOfDestination | undefined,
    { byDefault }: { readonly byDefault: IntentionAction },
  ) {
    this.#entry = entry;
    this.#byDefault = byDefault;
  }

  /** Of a connection as a whole: sources with permissions for requests deny it. */
  connection(call: IntendedCall): IntentionVerdict {
    return this.#judge(call, (source) => {
      if (source.action !== undefined) return verdictOf(source.action, `its source ${shown(source)}`);
      return {
        allowed: false,
        reason: `the source ${shown(source)} has permissions for HTTP, and this is a connection`,
      };
    });
  }

  /** Of one request. */
  request(call: IntendedCall, request: IntendedRequest): IntentionVerdict {
    return this.#judge(call, (source) => {
      if (source.action !== undefined) return verdictOf(source.action, `its source ${shown(source)}`);
      const permissions = source.permissions ?? [];
      for (const [index, permission] of permissions.entries()) {
        const verdict = this.#permission(permission, request, `permission ${index + 1} of the source ${shown(source)}`);
        if (verdict !== undefined) return verdict;
      }
      return this.#default(`no permission of the source ${shown(source)} matches`);
    });
  }

  #judge(call: IntendedCall, decide: (source: IntentionSource) => IntentionVerdict): IntentionVerdict {
    const source = intentionFor(call, (destination) => this.#entry(destination)?.sources ?? []);
    if (source === undefined) return this.#default("no intention matches");
    const entries = [this.#entry(call.destination), this.#entry("*")];
    const own = entries.find((entry) => entry?.sources.includes(source));
    if (asksForToken(own?.jwt)) return unverifiable(`the source ${shown(source)}`);
    return decide(source);
  }

  #default(why: string): IntentionVerdict {
    return verdictOf(this.#byDefault, `the default, since ${why}`);
  }

  /** Undefined: it does not match. */
  #permission(
    { http, action, jwt }: IntentionPermission,
    request: IntendedRequest,
    what: string,
  ): IntentionVerdict | undefined {
    let matches: boolean;
    try {
      matches = this.#matches(http, request);
    } catch {
      return { allowed: false, reason: `a pattern of ${what} cannot be matched` };
    }
    if (!matches) return undefined;
    if (action === "allow" && asksForToken(jwt)) return unverifiable(what);
    return verdictOf(action, what);
  }

  #matches(http: IntentionHttp, { method, path, header }: IntendedRequest): boolean {
    const { pathExact, pathPrefix, pathRegex, methods = [], header: headers = [] } = http;
    if (methods.length > 0 && !methods.includes(method)) return false;
    if (isGiven(pathExact) && path !== pathExact) return false;
    if (isGiven(pathPrefix) && !path.startsWith(pathPrefix)) return false;
    if (isGiven(pathRegex) && !this.#pattern(http, pathRegex).test(path)) return false;
    return headers.every((rule) => this.#headerMatches(rule, header(rule.name.toLowerCase())));
  }

  /** As Envoy: of a header that is missing, nothing is true but that it is not present. */
  #headerMatches(rule: IntentionHeader, value: string | undefined): boolean {
    const { invert = false } = rule;
    if (rule.present === true) return (value !== undefined) !== invert;
    return value !== undefined && this.#valueMatches(rule, value) !== invert;
  }

  #valueMatches(rule: IntentionHeader, given: string): boolean {
    const fold = (text: string): string => (rule.ignoreCase === true ? text.toLowerCase() : text);
    const { exact, prefix, suffix, contains, regex } = rule;
    const value = fold(given);
    if (exact !== undefined) return value === fold(exact);
    if (prefix !== undefined) return value.startsWith(fold(prefix));
    if (suffix !== undefined) return value.endsWith(fold(suffix));
    if (contains !== undefined) return value.includes(fold(contains));
    return regex !== undefined && this.#pattern(rule, regex).test(given);
  }

  /** Of the whole text. */
  #pattern(owner: object, pattern: string): RegularExpression {
    const compiled = this.#patterns.get(owner) ?? wholeText(pattern);
    this.#patterns.set(owner, compiled);
    return compiled;
  }
}

/** @throws {SyntaxError} also for a pattern that is one only between the parentheses that it gets here, such as `a)|(b`. */
function wholeText(pattern: string): RegularExpression {
  new RegularExpression(pattern);
  return new RegularExpression(`^(?:${pattern})$`);
}

function isGiven(text: string | undefined): text is string {
  return text !== undefined && text !== "";
}

function asksForToken(jwt: IntentionJwt | undefined): boolean {
  return (jwt?.providers ?? []).length > 0;
}

function unverifiable(what: string): IntentionVerdict {
  return { allowed: false, reason: `${what} asks for a token (JWT), and tokens are not verified here` };
}

function verdictOf(action: IntentionAction, by: string): IntentionVerdict {
  return { allowed: action === "allow", reason: `${action === "allow" ? "allowed" : "denied"} by ${by}` };
}

function shown({ name, peer }: IntentionSource): string {
  return peer === undefined ? JSON.stringify(name) : `${JSON.stringify(name)} of peer ${JSON.stringify(peer)}`;
}
