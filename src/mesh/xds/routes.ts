import type { ChainNode, CompiledChain } from "../../config/chain.js";
import type { JsonValue } from "../../model/instance.js";
import { listMember, member } from "../../model/kept-members.js";
import type {
  HeaderMatcherSchema,
  RouteActionSchema,
  RouteConfigurationSchema,
  RouteMatchSchema,
  RouteSchema,
  StringMatcherSchema,
} from "../../wire/envoy.js";
import type { MessageFields } from "../../wire/schema.js";
import { opaque, opaqueCount, opaqueDuration, opaqueFlag, opaqueObject, opaqueText } from "../snapshot/opaque.js";
import { duration } from "./values.js";

export type RouteInit = MessageFields<typeof RouteConfigurationSchema>;
type Route = MessageFields<typeof RouteSchema>;
type RouteMatch = MessageFields<typeof RouteMatchSchema>;
type RouteAction = MessageFields<typeof RouteActionSchema>;
type HeaderMatcher = MessageFields<typeof HeaderMatcherSchema>;
type StringMatch = MessageFields<typeof StringMatcherSchema>;

/** All requests go to one cluster. */
export function plainRoute(
  name: string,
  virtualHost: string,
  cluster: string,
  terms: {
    readonly timeoutMs?: number | undefined;
    readonly idleTimeoutMs?: number | undefined;
    /** The one path that is served; default: all. */
    readonly path?: string;
  } = {},
): RouteInit {
  const { timeoutMs, idleTimeoutMs, path } = terms;
  const match: RouteMatch = path === undefined ? everyPath() : { pathSpecifier: { case: "path", value: path } };
  const action: RouteAction = {
    clusterSpecifier: { case: "cluster", value: cluster },
    ...(timeoutMs !== undefined && { timeout: duration(timeoutMs) }),
    ...(idleTimeoutMs !== undefined && { idleTimeout: duration(idleTimeoutMs) }),
  };
  return {
    name,
    virtualHosts: [
      { name: virtualHost, domains: ["*"], routes: [{ match, action: { case: "route", value: action } }] },
    ],
  };
}

/**
 * The routes of a chain with requests: of its router, splitters and resolvers. Places that are not known are left out; undefined: none is
 * left.
 * @param clusterOf - Envoy's name for what a resolver leads to; undefined: it is not known.
 */
export function chainRoutes(
  name: string,
  chain: CompiledChain,
  clusterOf: (resolver: Extract<ChainNode, { type: "resolver" }>) => string | undefined,
  validatesClusters: boolean,
): RouteInit | undefined {
  const start = chain.nodes.get(chain.start);
  const routes: Route[] = [];
  const push = (match: RouteMatch, definition: JsonValue | undefined, node: ChainNode | undefined): void => {
    const action = actionOf(chain, node, clusterOf);
    if (action === undefined) return;
    const destination = destinationAction(definition);
    routes.push({
      match,
      action: { case: "route", value: { ...action, ...destination } },
      ...headerChanges(definition),
    });
  };
  if (start?.type === "router") {
    for (const { definition, next } of start.routes) {
      push(matchOf(member(definition.match, "HTTP")), definition.destination?.extra, chain.nodes.get(next));
    }
  } else push(everyPath(), undefined, start);
  if (routes.length === 0) return undefined;
  return {
    name,
    virtualHosts: [{ name, domains: ["*"], routes }],
    ...(validatesClusters && { validateClusters: true }),
  };
}

function everyPath(): RouteMatch {
  return { pathSpecifier: { case: "prefix", value: "/" } };
}

function actionOf(
  chain: CompiledChain,
  node: ChainNode | undefined,
  clusterOf: (resolver: Extract<ChainNode, { type: "resolver" }>) => string | undefined,
): RouteAction | undefined {
  if (node?.type === "resolver") {
    const cluster = clusterOf(node);
    if (cluster === undefined) return undefined;
    return {
      clusterSpecifier: { case: "cluster", value: cluster },
      ...(node.requestTimeoutMs > 0 && { timeout: duration(node.requestTimeoutMs) }),
      hashPolicy: hashPolicies(node.loadBalancer),
    };
  }
  if (node?.type !== "splitter") return undefined;
  const clusters = node.splits.flatMap(({ weight, next, definition }) => {
    const resolver = chain.nodes.get(next);
    const cluster = resolver?.type === "resolver" ? clusterOf(resolver) : undefined;
    if (cluster === undefined) return [];
    return [{ name: cluster, weight: Math.round(weight * 100), ...headerChanges(definition.extra) }];
  });
  // Without any part that carries weight there is nowhere to go.
  if (!clusters.some(({ weight }) => weight > 0)) return undefined;
  return {
    clusterSpecifier: { case: "weightedClusters", value: { clusters } },
    hashPolicy: hashPolicies(node.loadBalancer),
  };
}

type HashPolicy = NonNullable<RouteAction["hashPolicy"]>[number];

/** The parts of a request by which endpoints are chosen, with the load balancers that do so. */
function hashPolicies(loadBalancer: JsonValue | undefined): HashPolicy[] {
  const policy = opaqueText(loadBalancer, "Policy");
  if (policy !== "ring_hash" && policy !== "maglev") return [];
  return listMember(loadBalancer, "HashPolicies").flatMap((given): HashPolicy[] => {
    const policySpecifier = hashedBy(given);
    return policySpecifier === undefined ? [] : [{ policySpecifier, terminal: opaqueFlag(given, "Terminal") }];
  });
}

function hashedBy(given: JsonValue): HashPolicy["policySpecifier"] {
  if (opaqueFlag(given, "SourceIP")) return { case: "connectionProperties", value: { sourceIp: true } };
  const name = opaqueText(given, "FieldValue");
  switch (opaqueText(given, "Field")) {
    case "header":
      return { case: "header", value: { headerName: name } };
    case "query_parameter":
      return { case: "queryParameter", value: { name } };
    case "cookie": {
      const config = opaque(given, "CookieConfig");
      // Envoy makes a cookie for the session where it lives for no time.
      const ttl = opaqueFlag(config, "Session") ? 0 : opaqueDuration(config, "TTL");
      const path = opaqueText(config, "Path");
      return { case: "cookie", value: { name, path, ...(ttl !== undefined && { ttl: duration(ttl) }) } };
    }
    default:
      return undefined;
  }
}

function matchOf(http: JsonValue | undefined): RouteMatch {
  const exact = opaqueText(http, "PathExact");
  const prefix = opaqueText(http, "PathPrefix");
  const regex = opaqueText(http, "PathRegex");
  const headers: HeaderMatcher[] = listMember(http, "Header").map(headerOf);
  const methods = listMember(http, "Methods").filter((method): method is string => typeof method === "string");
  if (methods.length > 0) {
    const pattern = methods.map((method) => method.toUpperCase()).join("|");
    headers.push({ name: ":method", headerMatchSpecifier: { case: "stringMatch", value: regexMatch(pattern) } });
  }
  const queryParameters = listMember(http, "QueryParam").map((parameter) => {
    const name = opaqueText(parameter, "Name");
    const value = textMatch(parameter);
    return {
      name,
      queryParameterMatchSpecifier:
        value === undefined ? { case: "presentMatch" as const, value: true } : { case: "stringMatch" as const, value },
    };
  });
  return {
    pathSpecifier:
      exact !== ""
        ? { case: "path", value: exact }
        : regex !== ""
          ? { case: "safeRegex", value: { regex } }
          : { case: "prefix", value: prefix || "/" },
    ...(opaqueFlag(http, "CaseInsensitive") && { caseSensitive: false }),
    headers,
    queryParameters,
  };
}

function headerOf(header: JsonValue): HeaderMatcher {
  const said = textMatch(header);
  return {
    name: opaqueText(header, "Name"),
    invertMatch: opaqueFlag(header, "Invert"),
    headerMatchSpecifier:
      said === undefined ? { case: "presentMatch", value: true } : { case: "stringMatch", value: said },
  };
}

function textMatch(from: JsonValue): StringMatch | undefined {
  for (const [name, kind] of [
    ["Exact", "exact"],
    ["Prefix", "prefix"],
    ["Suffix", "suffix"],
  ] as const) {
    const value = opaqueText(from, name);
    if (value !== "") return { matchPattern: { case: kind, value } };
  }
  const regex = opaqueText(from, "Regex");
  return regex === "" ? undefined : regexMatch(regex);
}

function regexMatch(regex: string): StringMatch {
  return { matchPattern: { case: "safeRegex", value: { regex } } };
}

function destinationAction(destination: JsonValue | undefined): RouteAction {
  const timeout = opaqueDuration(destination, "RequestTimeout");
  const idle = opaqueDuration(destination, "IdleTimeout");
  const rewrite = opaqueText(destination, "PrefixRewrite");
  const retryPolicy = retries(destination);
  return {
    ...(rewrite !== "" && { prefixRewrite: rewrite }),
    ...(timeout !== undefined && { timeout: duration(timeout) }),
    ...(idle !== undefined && { idleTimeout: duration(idle) }),
    ...(retryPolicy && { retryPolicy }),
  };
}

function retries(destination: JsonValue | undefined): RouteAction["retryPolicy"] | undefined {
  const numRetries = opaqueCount(destination, "NumRetries") ?? 0;
  const codes = listMember(destination, "RetryOnStatusCodes").filter(
    (code): code is number => typeof code === "number",
  );
  const on = listMember(destination, "RetryOn").filter((name): name is string => typeof name === "string");
  const connects = opaqueFlag(destination, "RetryOnConnectFailure");
  if (numRetries === 0 && codes.length === 0 && on.length === 0 && !connects) return undefined;
  const names = [
    ...on,
    ...(connects ? ["connect-failure"] : []),
    ...(codes.length > 0 ? ["retriable-status-codes"] : []),
  ];
  return {
    retryOn: [...new Set(names)].join(","),
    ...(numRetries > 0 && { numRetries }),
    retriableStatusCodes: codes,
  };
}

/** Headers that a route or a split adds, replaces or removes. */
function headerChanges(
  from: JsonValue | undefined,
): Pick<Route, "requestHeadersToAdd" | "requestHeadersToRemove" | "responseHeadersToAdd" | "responseHeadersToRemove"> {
  const request = opaque(from, "RequestHeaders");
  const response = opaque(from, "ResponseHeaders");
  return {
    requestHeadersToAdd: addedHeaders(request),
    requestHeadersToRemove: removedHeaders(request),
    responseHeadersToAdd: addedHeaders(response),
    responseHeadersToRemove: removedHeaders(response),
  };
}

const APPEND = 0;
const OVERWRITE = 2;

function addedHeaders(modifiers: JsonValue | undefined): NonNullable<Route["requestHeadersToAdd"]> {
  const of = (name: string, appendAction: number) => {
    const headers = opaqueObject(modifiers, name);
    return Object.keys(headers)
      .sort()
      .map((key) => ({ header: { key, value: opaqueText(headers, key) }, appendAction }));
  };
  return [...of("Add", APPEND), ...of("Set", OVERWRITE)];
}

function removedHeaders(modifiers: JsonValue | undefined): string[] {
  return listMember(modifiers, "Remove").filter((name): name is string => typeof name === "string");
}
