import { PeeringError } from "../base/errors.js";
import { type CheckGroup, groupsOf, healthOf } from "../model/check-groups.js";
import { isCritical } from "../model/health.js";
import type { Check, Node, Service, StringMap } from "../model/instance.js";
import { metaProblem } from "../model/registration.js";
import { lowerCase } from "../syntax/names.js";

/** Where a query looks when it finds nothing. A target that names a datacenter is skipped: no other can be reached from here. */
export interface QueryTarget {
  /** Our name of a peering: its imports under the same service name. */
  readonly peer?: string;
  readonly datacenter?: string;
}

/** The service that a query looks for. */
export interface QueriedService {
  readonly name: string;
  /** Our name of the peering to look at first; absent: local instances. */
  readonly peer?: string;
  /** Tried in order while nothing is found. */
  readonly targets?: readonly QueryTarget[];
  /** Stored and returned, and not used: no other datacenter can be reached from here. */
  readonly datacenters?: readonly string[];
  /** Kept likewise. Default 0. */
  readonly nearestDatacenters?: number;
  /**
   * The node whose instances come first, of local instances: a name, `_agent` for the node of this host, or `_ip` for
   * the node with the caller's address.
   */
  readonly near?: string;
  /** Wants every check to pass. Default false: none may be critical. */
  readonly onlyPassing?: boolean;
  /** Checks that are not looked at, by id. */
  readonly ignoreCheckIds?: readonly string[];
  /** All of them, in any case; `!tag`: not this one. */
  readonly tags?: readonly string[];
  readonly nodeMeta?: StringMap;
  readonly serviceMeta?: StringMap;
  /** Looks for the proxies of the service. Default false. */
  readonly connect?: boolean;
}

/** Makes a query answer to all names that begin with its own, which may be `""`. */
export interface QueryTemplate {
  /** `name_prefix_match`; `""`: the query is no template, whatever else is said here. */
  readonly type: string;
  /** Of RE2; the text of its groups is `${match(n)}`. */
  readonly regexp?: string;
  /** Leaves out tags that come out as `""`. Default false. */
  readonly removeEmptyTags?: boolean;
}

/** A prepared query, for HTTP and DNS. */
export interface PreparedQuery {
  readonly id: string;
  /** Unique, compared without case. */
  readonly name: string;
  readonly template?: QueryTemplate;
  /** The token whose rights limit the results; absent: those of the caller. A secret. */
  readonly token?: string;
  readonly service: QueriedService;
  /** How long DNS answers may be kept, and how that was written; absent: as answers about the service. */
  readonly ttl?: { readonly seconds: number; readonly text: string };
}

/** The facts about an instance that selection needs. */
export interface QueriedInstance {
  readonly node: Pick<Node, "meta">;
  readonly service: Pick<Service, "tags" | "meta">;
  readonly checks: readonly QueriedCheck[];
}

type QueriedCheck = Pick<Check, "checkId" | "status">;

function hasAll(meta: StringMap, wanted: StringMap = {}): boolean {
  return Object.entries(wanted).every(([key, value]) => Object.hasOwn(meta, key) && meta[key] === value);
}

/** Whether the checks of an instance let it be found. Checks that instances share are looked at once. */
function healthTest(onlyPassing: boolean, ignored: readonly string[]): (instance: QueriedInstance) => boolean {
  if (ignored.length === 0) {
    return (instance) => {
      const { total, passing, critical } = healthOf(instance);
      return onlyPassing ? passing === total : critical === 0;
    };
  }
  const ids = new Set(ignored);
  const areFine = (checks: readonly QueriedCheck[]): boolean =>
    checks.every(
      ({ checkId, status }) => ids.has(checkId) || (onlyPassing ? status === "passing" : !isCritical(status)),
    );
  const known = new Map<CheckGroup<QueriedCheck>, boolean>();
  const isFine = (group: CheckGroup<QueriedCheck>): boolean => {
    const fine = known.get(group) ?? areFine(group.list);
    known.set(group, fine);
    return fine;
  };
  return (instance) => {
    const groups = groupsOf(instance);
    return groups === undefined ? areFine(instance.checks) : isFine(groups.ofNode) && areFine(groups.own.list);
  };
}

/** Those of `instances` that a query answers with, health included. */
export function selectedInstances<Instance extends QueriedInstance>(
  service: QueriedService,
  instances: readonly Instance[],
): readonly Instance[] {
  const { onlyPassing = false, ignoreCheckIds = [], tags = [], nodeMeta, serviceMeta } = service;
  const unwanted = tags.filter((tag) => tag.startsWith("!")).map((tag) => lowerCase(tag.slice(1)));
  const wanted = tags.filter((tag) => !tag.startsWith("!")).map(lowerCase);
  const isHealthy = healthTest(onlyPassing, ignoreCheckIds);
  return instances.filter((instance) => {
    const has = new Set(instance.service.tags.map(lowerCase));
    return (
      wanted.every((tag) => has.has(tag)) &&
      !unwanted.some((tag) => has.has(tag)) &&
      hasAll(instance.node.meta, nodeMeta) &&
      hasAll(instance.service.meta, serviceMeta) &&
      isHealthy(instance)
    );
  });
}

/** A query as a caller gives it to be stored, without its id. */
export type PreparedQueryInput = Omit<PreparedQuery, "id">;

export function isTemplate({ template }: Pick<PreparedQuery, "template">): boolean {
  return template !== undefined && template.type !== "";
}

/** Shown in place of a token that the caller may not see. */
export const HIDDEN_TOKEN = "<hidden>";

/** @throws {PeeringError} `invalid-argument` with the text of Consul 1.21. */
export function checkPreparedQuery(query: PreparedQueryInput): void {
  const { name, token, service } = query;
  const refuse = (why: string): PeeringError => new PeeringError("invalid-argument", `Invalid prepared query: ${why}`);
  // Nothing here is bound to a session, so that it must have a name to be found by.
  if (name === "" && !isTemplate(query)) throw refuse("Must be bound to a session");
  if (token === HIDDEN_TOKEN) {
    throw refuse(`Bad Token '${HIDDEN_TOKEN}', it looks like a query definition with a redacted token was submitted`);
  }
  if (service.name === "") throw refuse("Must provide a Service name to query");
  const { nearestDatacenters = 0, datacenters = [], targets = [], nodeMeta = {} } = service;
  if (nearestDatacenters < 0) throw refuse(`Bad NearestN '${nearestDatacenters}', must be >= 0`);
  if (targets.length > 0 && (nearestDatacenters !== 0 || datacenters.length > 0)) {
    throw refuse("Targets cannot be populated with NearestN or Datacenters");
  }
  const problem = metaProblem(nodeMeta, "query");
  if (problem !== undefined) throw refuse(problem);
}

/** Those of `node` before all others, which stay in their order. */
export function nearFirst<Instance extends { readonly node: Pick<Node, "name"> }>(
  instances: readonly Instance[],
  node: string,
): readonly Instance[] {
  if (node === "") return instances;
  const key = lowerCase(node);
  const isNear = (instance: Instance): boolean => lowerCase(instance.node.name) === key;
  return [...instances.filter(isNear), ...instances.filter((instance) => !isNear(instance))];
}
