import { agentCheckOperations } from "./agent-checks.js";
import { agentReadOperations } from "./agent-reads.js";
import { agentServiceOperations } from "./agent-services.js";
import { authorizeOperations } from "./authorize.js";
import type { Answer, Call } from "./call.js";
import { catalogOperations } from "./catalog.js";
import { configOperations } from "./config.js";
import { connectCaOperations } from "./connect-ca.js";
import { discoveryChainOperations } from "./discovery-chain.js";
import { gatewayPageOperations } from "./gateway-pages.js";
import { gatewayOperations } from "./gateways.js";
import { healthOperations } from "./health.js";
import { intentionOperations } from "./intentions.js";
import { metricsOperations } from "./metrics.js";
import { peeringOperations } from "./peering.js";
import { queryOperations } from "./queries.js";
import { systemOperations } from "./system.js";
import { txnOperations } from "./txn.js";
import { uiOperations } from "./ui.js";
import { unservedOperations } from "./unserved.js";
import { virtualIpOperations } from "./virtual-ips.js";

export type Method = "GET" | "POST" | "PUT" | "DELETE";

/** A parameter as the OpenAPI document tells of it. */
export interface ParameterDoc {
  readonly name: string;
  readonly in: "query" | "header";
  readonly description: string;
}

/** One path of the OpenAPI document that an operation answers. */
export interface OperationDoc {
  /** Path parameters in braces: `/v1/config/{kind}/{name}`. */
  readonly path: string;
  readonly id: string;
  readonly summary: string;
  /** Those of {@link readParameters} and the like. */
  readonly parameters?: readonly ParameterDoc[];
  /** JSON schema of the body, for operations that take one. */
  readonly body?: JsonSchema;
  /** JSON schema of the answer's body; absent: the body is empty. */
  readonly answer?: JsonSchema;
  /** Media type of the text that a parameter can ask for instead. */
  readonly textAnswer?: string;
}

export type JsonSchema = {
  readonly [key: string]: JsonSchema | string | boolean | number | readonly (JsonSchema | string)[];
};

/** One line of the route table: an operation and its documentation. */
export interface Operation {
  readonly method: Method;
  /** An exact path, or a prefix when it ends in `/`, or prefix and end with a `*` between; the longest match serves a request. */
  readonly pattern: string;
  readonly run: (call: Call) => Promise<Answer>;
  /** Answers for something that is not served: there is nothing to read, and nothing to change. */
  readonly unserved?: true;
  /** Consul can answer it from a cache, and tells so who asks for that. Nothing is cached here. */
  readonly cacheable?: true;
  readonly docs: readonly OperationDoc[];
}

/** All operations under one pattern, in the order in which `Allow` names their methods. */
export interface Route {
  readonly pattern: string;
  readonly operations: ReadonlyMap<string, Operation>;
}

/** What a path leads to. */
export type RouteMatch =
  | { readonly type: "route"; readonly route: Route; readonly rest: string }
  | { readonly type: "redirect"; readonly path: string }
  | { readonly type: "none" };

/** Matches paths to operations as Consul's request multiplexer does. */
export class RouteTable {
  readonly operations: readonly Operation[];
  readonly #exact = new Map<string, Route>();
  readonly #ends: readonly Route[];
  readonly #prefixes: readonly Route[];

  constructor(operations: readonly Operation[]) {
    this.operations = operations;
    const byPattern = new Map<string, Map<string, Operation>>();
    for (const operation of operations) {
      const methods = byPattern.get(operation.pattern) ?? new Map<string, Operation>();
      methods.set(operation.method, operation);
      byPattern.set(operation.pattern, methods);
    }
    const prefixes: Route[] = [];
    const ends: Route[] = [];
    for (const [pattern, methods] of byPattern) {
      const route = { pattern, operations: methods };
      if (pattern.includes("*")) ends.push(route);
      else if (pattern.endsWith("/")) prefixes.push(route);
      else this.#exact.set(pattern, route);
    }
    this.#ends = ends;
    this.#prefixes = prefixes.sort((left, right) => right.pattern.length - left.pattern.length);
  }

  /** @param path - percent-decoded. */
  match(path: string): RouteMatch {
    const clean = cleanPath(path);
    if (clean !== path) return { type: "redirect", path: clean };
    const exact = this.#exact.get(path);
    if (exact !== undefined) return { type: "route", route: exact, rest: "" };
    for (const route of this.#ends) {
      const [prefix = "", end = ""] = route.pattern.split("*");
      if (path.length > prefix.length + end.length && path.startsWith(prefix) && path.endsWith(end)) {
        return { type: "route", route, rest: path.slice(prefix.length, -end.length) };
      }
    }
    for (const route of this.#prefixes) {
      if (path.startsWith(route.pattern)) return { type: "route", route, rest: path.slice(route.pattern.length) };
      if (`${path}/` === route.pattern) return { type: "redirect", path: route.pattern };
    }
    return { type: "none" };
  }
}

/** Without doubled slashes, `.` and `..`; a slash at the end stays. */
export function cleanPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  const clean = `/${parts.join("/")}`;
  return clean !== "/" && /\/(?:\.{1,2})?$/.test(path) && path.endsWith("/") ? `${clean}/` : clean;
}

/** Everything that is served, the OpenAPI document aside, which tells of it. */
export const operations: readonly Operation[] = [
  ...peeringOperations,
  ...configOperations,
  ...intentionOperations,
  ...discoveryChainOperations,
  ...catalogOperations,
  ...gatewayPageOperations,
  ...gatewayOperations,
  ...healthOperations,
  ...queryOperations,
  ...txnOperations,
  ...agentServiceOperations,
  ...agentCheckOperations,
  ...agentReadOperations,
  ...systemOperations,
  ...connectCaOperations,
  ...authorizeOperations,
  ...metricsOperations,
  ...uiOperations,
  ...virtualIpOperations,
  ...unservedOperations,
];
