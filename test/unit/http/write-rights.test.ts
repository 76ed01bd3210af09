import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import fc from "fast-check";
import type { Authorizer } from "../../../src/access/authorizer.js";
import { createHost, type PeeringHost } from "../../../src/host/host.js";
import { operations } from "../../../src/http/routes.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { secretFor, tokensFor } from "../../support/acl.js";
import { type RawAnswer, type ServedHost, serve } from "../../support/http-pair.js";

// Random requests with random rights to every route that writes: whatever differs afterwards, the token must have had the
// right for it. What differs is found by reading everything before and after; the rights are worked out here from the rules
// alone, by code that shares nothing with what is tested.

type Kind = "service" | "node" | "query" | "intention";

interface Rule {
  readonly kind: Kind;
  readonly match: "exact" | "prefix";
  readonly name: string;
  readonly policy: "deny" | "read" | "write";
}

interface Rules {
  readonly named: readonly Rule[];
  readonly mesh: boolean;
  readonly peering: boolean;
  /** Counts for the mesh and for peerings, too, where no rule speaks of them. */
  readonly operator: boolean;
}

/** One request, and the route it goes to. */
interface Attempt {
  readonly route: string;
  readonly path: string;
  /** Of a host as it is, for operations that must name an index. */
  readonly body?: (host: PeeringHost) => unknown;
}

// Few names, some of them equal but for their case, so that requests often meet what is there.
const SERVICES = ["web", "db", "WEB", "side"] as const;
const IDS = ["web-1", "db-1", "WEB-1", "side-1", "own", "own-sidecar-proxy", "new"] as const;
const NODES = ["n1", "n2", "N1", "peerage", "new-node"] as const;
const NODE_IDS = ["", "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"] as const;
const CHECKS = ["web-check", "db-check", "node-check", "WEB-CHECK", "own-check", "new-check"] as const;
const QUERIES = ["kept", "gone", "KEPT", "more"] as const;
const ADDRESSES = ["10.0.0.1", "10.0.0.2"] as const;
/** A service that no rule names: what holds for all services holds for it. */
const ANY_OTHER = "some-other";

function grants({ named }: Rules, kind: Kind, name: string): boolean {
  const fitting = named.filter(
    (rule) => rule.kind === kind && (rule.match === "exact" ? rule.name === name : name.startsWith(rule.name)),
  );
  const exact = fitting.filter(({ match }) => match === "exact");
  const longest = Math.max(...fitting.map((rule) => rule.name.length));
  const counting = exact.length > 0 ? exact : fitting.filter((rule) => rule.name.length === longest);
  return (
    counting.length > 0 &&
    counting.every(({ policy }) => policy !== "deny") &&
    counting.some(({ policy }) => policy === "write")
  );
}

/** Intentions of `*` are those of every service. */
function grantsIntention(rules: Rules, name: string): boolean {
  const names = name === "*" ? [...SERVICES, ANY_OTHER] : [name];
  return names.every((each) => grants(rules, "intention", each));
}

function textOf({ named, mesh, peering, operator }: Rules): string {
  // Rules for intentions stand in those for services.
  const lines = new Map<string, string>();
  for (const { kind, match, name, policy } of named) {
    const block = `${kind === "intention" ? "service" : kind}${match === "prefix" ? "_prefix" : ""} "${name}"`;
    const line = kind === "intention" ? `intentions = "${policy}"` : `policy = "${policy}"`;
    lines.set(block, `${lines.get(block) ?? ""}${line}\n`);
  }
  const blocks = [...lines].map(
    ([block, body]) => `${block} {\n${/^policy/m.test(body) ? "" : 'policy = "deny"\n'}${body}}\n`,
  );
  const scalars = Object.entries({ mesh, peering, operator }).filter(([, granted]) => granted);
  return `${blocks.join("")}${scalars.map(([name]) => `${name} = "write"\n`).join("")}`;
}

const NAMES: Readonly<Record<Kind, readonly string[]>> = {
  service: [...SERVICES, "own"],
  node: NODES,
  query: QUERIES,
  intention: [...SERVICES, "*"],
};

/** For each name a rule or none, and now and then one for a prefix. */
const rulesArbitrary: fc.Arbitrary<Rules> = fc.record({
  named: fc
    .tuple(
      ...Object.entries(NAMES).flatMap(([kind, names]) =>
        [...names, "", "w"].map((name) =>
          fc
            .constantFrom<Rule["policy"] | undefined>("write", "write", "write", undefined, undefined, "read", "deny")
            .map((policy) => ({ kind: kind as Kind, name, policy })),
        ),
      ),
    )
    .map((rules) =>
      rules.flatMap(({ kind, name, policy }): Rule[] => {
        const prefix = name === "" || name === "w";
        if (policy === undefined) return [];
        return [{ kind, match: prefix ? "prefix" : "exact", name, policy }];
      }),
    ),
  mesh: fc.boolean(),
  operator: fc.boolean(),
  peering: fc.boolean(),
});

/** Mostly not: what is asked for at once must all be possible. */
const maybe = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: 2, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
const serviceName = fc.constantFrom(...SERVICES);

const serviceBody = fc
  .record({
    ID: maybe(fc.constantFrom(...IDS)),
    Service: fc.constantFrom(...SERVICES, "own"),
    Port: fc.constantFrom(1, 2),
    Tags: fc.constantFrom<string[]>([], ["t"]),
    destination: maybe(serviceName),
  })
  .map(({ destination, ...body }) => ({
    ...body,
    ...(destination !== undefined && { Kind: "connect-proxy", Proxy: { DestinationServiceName: destination } }),
  }));
const checkBody = fc.record({
  Node: maybe(fc.constantFrom(...NODES)),
  CheckID: fc.constantFrom(...CHECKS),
  Name: fc.constant("c"),
  Status: fc.constantFrom("passing", "critical"),
  ServiceID: fc.constantFrom("", ...IDS),
  ServiceName: fc.constantFrom("", ...SERVICES),
});
const withoutNode = ({
  Node: _,
  ...check
}: {
  readonly Node: string | undefined;
  readonly [field: string]: unknown;
}): unknown => check;
const nodeBody = fc.record({
  ID: fc.constantFrom(...NODE_IDS),
  Node: fc.constantFrom(...NODES),
  Address: fc.constantFrom(...ADDRESSES),
  Meta: fc.constantFrom({}, { m: "1" }),
  Locality: maybe(fc.constant({ Region: "r", Zone: "z" })),
});
const verb = fc.constantFrom("set", "cas", "delete", "delete-cas", "get");
/** One operation of a transaction; the index is the one that the object has, so that `cas` may succeed. */
const operation: fc.Arbitrary<(host: PeeringHost) => unknown> = fc.oneof(
  fc.tuple(verb, nodeBody).map(([Verb, node]) => ({ catalog }: PeeringHost) => {
    const ModifyIndex = Number(catalog.node(node.Node)?.node.modifyIndex ?? 0n);
    return { Node: { Verb, Node: { ...node, ModifyIndex } } };
  }),
  fc.tuple(verb, fc.constantFrom(...NODES), serviceBody).map(([Verb, Node, service]) => ({ catalog }: PeeringHost) => {
    const id = (service.ID ?? service.Service).toLowerCase();
    const found = catalog.node(Node)?.services.find((each) => each.id.toLowerCase() === id);
    return { Service: { Verb, Node, Service: { ...service, ModifyIndex: Number(found?.modifyIndex ?? 0n) } } };
  }),
  fc.tuple(verb, checkBody).map(([Verb, check]) => ({ catalog }: PeeringHost) => {
    const id = check.CheckID.toLowerCase();
    const found = catalog.node(check.Node ?? "")?.checks.find((each) => each.checkId.toLowerCase() === id);
    return { Check: { Verb, Check: { ...check, ModifyIndex: Number(found?.modifyIndex ?? 0n) } } };
  }),
);
const agentCheck = fc.record({
  CheckID: fc.constantFrom("", ...CHECKS),
  Name: fc.constant("c"),
  Status: fc.constant("passing"),
  TTL: fc.constant("1m"),
});
const queryBody = fc.record({ Name: fc.constantFrom(...QUERIES), Service: fc.record({ Service: serviceName }) });
const chained = fc.oneof(
  fc.record({ Kind: fc.constant("service-defaults"), Name: serviceName, Protocol: fc.constantFrom("http", "tcp") }),
  fc.record({
    Kind: fc.constant("service-resolver"),
    Name: serviceName,
    Redirect: fc.record({ Service: serviceName }),
  }),
  fc.record({
    Kind: fc.constant("service-intentions"),
    Name: fc.constantFrom(...SERVICES, "*"),
    Sources: fc.tuple(fc.record({ Name: serviceName, Action: fc.constantFrom("allow", "deny") })),
  }),
  fc.record({ Kind: fc.constant("mesh"), Meta: fc.constantFrom({}, { m: "1" }) }),
  fc.record({
    Kind: fc.constant("proxy-defaults"),
    Name: fc.constant("global"),
    Meta: fc.constantFrom({}, { m: "1" }),
  }),
  fc.record({
    Kind: fc.constant("exported-services"),
    Name: fc.constant("default"),
    Services: fc.tuple(fc.record({ Name: serviceName, Consumers: fc.constant([{ Peer: "peer" }]) })),
  }),
  fc.record({
    Kind: fc.constant("terminating-gateway"),
    Name: fc.constant("gateway"),
    Services: fc.tuple(fc.record({ Name: serviceName })),
  }),
);

function flattened<T>(arbitrary: fc.Arbitrary<T>, path: string): fc.Arbitrary<Omit<Attempt, "route">> {
  return arbitrary.map((body) => ({ path, body: () => body }));
}

/** Of an intention from `web` to `db`. */
const LEGACY_ID = "6f1c7a5e-0000-4000-8000-000000000001";
const intentionEnds = { SourceName: serviceName, DestinationName: fc.constantFrom(...SERVICES, "*") };
const intentionAction = fc.constantFrom("allow", "deny");
const exactIntention = fc
  .record(intentionEnds)
  .map(({ SourceName, DestinationName }) => `?source=${SourceName}&destination=${DestinationName}`);

/** Requests to each route that writes. A query is named by `<name>`, which becomes its id. */
const attempts: Readonly<Record<string, fc.Arbitrary<Omit<Attempt, "route">>>> = {
  "PUT /v1/catalog/register": flattened(
    fc.record({
      ID: fc.constantFrom(...NODE_IDS),
      Node: fc.constantFrom(...NODES),
      Address: fc.constantFrom(...ADDRESSES),
      NodeMeta: fc.constantFrom({}, { m: "1" }),
      Locality: maybe(fc.constant({ Region: "r", Zone: "z" })),
      SkipNodeUpdate: fc.boolean(),
      Service: maybe(serviceBody),
      Check: maybe(checkBody.map(withoutNode)),
      Checks: maybe(fc.array(checkBody.map(withoutNode), { minLength: 1, maxLength: 2 })),
    }),
    "",
  ),
  "PUT /v1/catalog/deregister": flattened(
    fc.record({
      Node: fc.constantFrom(...NODES),
      ServiceID: fc.constantFrom("", ...IDS),
      CheckID: fc.constantFrom("", ...CHECKS),
    }),
    "",
  ),
  "PUT /v1/txn": fc
    .array(operation, { minLength: 1, maxLength: 4 })
    .map((made) => ({ path: "", body: (host) => made.map((each) => each(host)) })),
  "PUT /v1/agent/service/register": fc
    .record({
      query: fc.constantFrom("", "?replace-existing-checks"),
      service: serviceBody,
      checks: maybe(fc.array(agentCheck, { minLength: 1, maxLength: 2 })),
      sidecar: maybe(
        fc.record({ Name: fc.constantFrom("", ...SERVICES), Checks: fc.array(agentCheck, { maxLength: 1 }) }),
      ),
    })
    .map(({ query, service: { Service, ...service }, checks, sidecar }) => ({
      path: query,
      body: () => ({
        ...service,
        Name: Service,
        Checks: checks,
        ...(sidecar !== undefined && { Connect: { SidecarService: sidecar } }),
      }),
    })),
  "PUT /v1/agent/service/deregister/": fc.constantFrom(...IDS).map((path) => ({ path })),
  "PUT /v1/agent/check/register": flattened(
    fc.record({
      ID: fc.constantFrom("", ...CHECKS),
      Name: fc.constantFrom("c", ...CHECKS),
      TTL: fc.constant("1m"),
      Status: fc.constantFrom("passing", "critical"),
      ServiceID: fc.constantFrom("", ...IDS),
    }),
    "",
  ),
  "PUT /v1/agent/check/deregister/": fc.constantFrom(...CHECKS).map((path) => ({ path })),
  "PUT /v1/agent/check/pass/": fc.constantFrom(...CHECKS).map((path) => ({ path })),
  "PUT /v1/agent/check/warn/": fc.constantFrom(...CHECKS).map((path) => ({ path })),
  "PUT /v1/agent/check/fail/": fc.constantFrom(...CHECKS).map((path) => ({ path })),
  "PUT /v1/agent/check/update/": fc
    .constantFrom(...CHECKS)
    .map((path) => ({ path, body: () => ({ Status: "warning", Output: "o" }) })),
  "PUT /v1/agent/reload": fc.constant({ path: "" }),
  "PUT /v1/agent/leave": fc.constant({ path: "" }),
  "PUT /v1/agent/maintenance": fc.constantFrom("true", "false").map((enable) => ({ path: `?enable=${enable}` })),
  "PUT /v1/agent/service/maintenance/": fc
    .tuple(fc.constantFrom(...IDS), fc.constantFrom("true", "false"))
    .map(([id, enable]) => ({ path: `${id}?enable=${enable}` })),
  "PUT /v1/config": flattened(chained, ""),
  "DELETE /v1/config/": fc
    .constantFrom(
      ...["service-defaults/web", "service-defaults/WEB", "service-intentions/web", "service-intentions/Web"],
      ...["service-intentions/*", "service-resolver/db", "mesh/mesh", "proxy-defaults/global"],
      ...["exported-services/default", "terminating-gateway/gateway"],
    )
    .map((path) => ({ path })),
  "POST /v1/query": flattened(queryBody, ""),
  "PUT /v1/query/": fc
    .tuple(fc.constantFrom("<kept>", "<gone>"), queryBody)
    .map(([path, body]) => ({ path, body: () => body })),
  "DELETE /v1/query/": fc.constantFrom("<kept>", "<gone>").map((path) => ({ path })),
  "PUT /v1/internal/service-virtual-ip": flattened(
    fc.record({ Service: fc.constantFrom("own", "web"), ManualVIPs: fc.constantFrom<string[]>([], ["1.2.3.4"]) }),
    "",
  ),
  "POST /v1/peering/token": flattened(fc.record({ PeerName: fc.constantFrom("peer", "other") }), ""),
  "POST /v1/peering/establish": flattened(
    fc.record({ PeerName: fc.constantFrom("peer", "other"), PeeringToken: fc.constant("<token>") }),
    "",
  ),
  "DELETE /v1/peering/": fc.constantFrom("peer", "other").map((path) => ({ path })),
  "DELETE /v1/peerage/peering-tokens/": fc.constantFrom("peer", "other").map((path) => ({ path })),
  "POST /v1/connect/intentions": flattened(fc.record({ ...intentionEnds, Action: intentionAction }), ""),
  "PUT /v1/connect/intentions/exact": exactIntention.chain((path) =>
    flattened(fc.record({ Action: intentionAction }), path),
  ),
  "DELETE /v1/connect/intentions/exact": exactIntention.map((path) => ({ path })),
  "PUT /v1/connect/intentions/": flattened(fc.record({ ...intentionEnds, Action: intentionAction }), LEGACY_ID),
  "DELETE /v1/connect/intentions/": fc.constant({ path: LEGACY_ID }),
  "PUT /v1/connect/ca/configuration": flattened(
    fc.record({
      Provider: fc.constant("consul"),
      Config: fc.record({ LeafCertTTL: fc.constantFrom("50h", "60h") }),
    }),
    "",
  ),
};

const attempt: fc.Arbitrary<Attempt> = fc.oneof(
  ...Object.entries(attempts).map(([route, arbitrary]) => ({
    // Most of what can go wrong goes wrong in the catalog.
    weight: /catalog|txn|agent/.test(route) ? 5 : 1,
    arbitrary: arbitrary.map((each): Attempt => ({ route, ...each })),
  })),
);

/** Everything that a request may change, by a key of its own. */
type Snapshot = ReadonlyMap<string, Entry>;
type Entry =
  | { readonly type: "node"; readonly name: string; readonly value: string }
  | {
      readonly type: "instance";
      readonly node: string;
      readonly name: string;
      readonly destination: string;
      readonly value: string;
    }
  | { readonly type: "check"; readonly node: string; readonly service: string | undefined; readonly value: string }
  | { readonly type: "config"; readonly kind: string; readonly name: string; readonly value: string }
  | { readonly type: "query"; readonly name: string; readonly value: string }
  | { readonly type: "address" | "peering" | "authority"; readonly value: string };

function snapshot({ catalog, configEntries, queries, peerings, builtInAuthority }: PeeringHost): Snapshot {
  const entries = new Map<string, Entry>();
  const value = (record: unknown): string =>
    JSON.stringify(record, (key, member: unknown) => (/^(create|modify)Index$/.test(key) ? undefined : member));
  for (const { name } of catalog.nodes()) {
    const found = catalog.node(name);
    if (found === undefined) continue;
    const key = name.toLowerCase();
    entries.set(`node ${key}`, { type: "node", name, value: value(found.node) });
    const names = new Map<string, string>();
    for (const { taggedAddresses, ...service } of found.services) {
      names.set(service.id.toLowerCase(), service.name);
      const destination = service.proxy?.destinationServiceName ?? "";
      entries.set(`instance ${key} ${service.id.toLowerCase()}`, {
        type: "instance",
        node: name,
        name: service.name,
        destination,
        value: value(service),
      });
    }
    for (const check of found.checks) {
      // Name and tags of the service are copied when a check is written.
      const { serviceName: _, serviceTags: __, ...own } = check;
      entries.set(`check ${key} ${check.checkId.toLowerCase()}`, {
        type: "check",
        node: name,
        service: check.serviceId === "" ? undefined : names.get(check.serviceId.toLowerCase()),
        value: value(own),
      });
    }
  }
  for (const { entry } of configEntries.list()) {
    entries.set(`config ${entry.kind} ${entry.name.toLowerCase()}`, {
      type: "config",
      kind: entry.kind,
      name: entry.name,
      value: value(entry),
    });
  }
  for (const { query } of queries.list()) {
    entries.set(`query ${query.id}`, { type: "query", name: query.name, value: value(query) });
  }
  entries.set("authority", { type: "authority", value: value(builtInAuthority?.configuration().config) });
  for (const name of ["own", "web"]) {
    entries.set(`address ${name}`, { type: "address", value: value(catalog.manualVirtualIps(name)) });
  }
  for (const { name, state } of peerings.list()) {
    // Whether a stream is up is no matter of a request.
    const stored = state === "deleting" || state === "terminated" ? state : "there";
    entries.set(`peering ${name}`, { type: "peering", value: stored });
  }
  return entries;
}

/** Why the rules do not allow what changed, one line for each change; none: they do. */
function violations(rules: Rules, request: Attempt, old: Snapshot, now: Snapshot): readonly string[] {
  const found: string[] = [];
  const service = (name: string): boolean => grants(rules, "service", name);
  const node = (name: string): boolean => grants(rules, "node", name);
  // Names compare without case: who adds to a service that is there needs a right on the name that it has.
  const joins = (name: string): boolean => {
    const known = [...old.values()].flatMap((each) => (each.type === "instance" ? [each.name] : []));
    const same = known.filter((each) => each.toLowerCase() === name.toLowerCase());
    return service(name) && (same.length === 0 || same.some(service));
  };
  for (const key of new Set([...old.keys(), ...now.keys()])) {
    const [was, is] = [old.get(key), now.get(key)];
    if (was?.value === is?.value && (was?.type !== "check" || (is?.type === "check" && was.service === is.service)))
      continue;
    if (!allowed(was, is)) found.push(`${key}: ${was?.value ?? "nothing"} became ${is?.value ?? "nothing"}`);
  }
  return found;

  function allowed(was: Entry | undefined, is: Entry | undefined): boolean {
    const type = (is ?? was)?.type;
    switch (type) {
      case "node":
        // The agent's own node comes with the first service that is registered at it.
        if (
          was === undefined &&
          request.route.startsWith("PUT /v1/agent/") &&
          is?.type === "node" &&
          is.name === "peerage"
        )
          return true;
        return [was, is].every((each) => each?.type !== "node" || node(each.name));
      case "instance": {
        if (is === undefined) return was?.type === "instance" && (node(was.node) || service(was.name));
        if (is.type !== "instance" || !joins(is.name) || (is.destination !== "" && !joins(is.destination)))
          return false;
        return was?.type !== "instance" || service(was.name);
      }
      case "check": {
        const may = (each: Entry | undefined, removed: boolean): boolean => {
          if (each?.type !== "check") return true;
          if (each.service === undefined) return node(each.node);
          return service(each.service) || (removed && node(each.node));
        };
        // The name of the service may have changed with the service, which is judged by itself.
        const moved = was?.type === "check" && is?.type === "check" && was.value === is.value;
        return (
          moved ||
          (may(was, is === undefined || (is.type === "check" && was?.type === "check" && was.service !== is.service)) &&
            may(is, false))
        );
      }
      case "config": {
        const kind = is?.type === "config" ? is.kind : was?.type === "config" ? was.kind : "";
        if (!kind.startsWith("service-")) return rules.mesh || rules.operator;
        return [was, is].every(
          (each) =>
            each?.type !== "config" ||
            (kind === "service-intentions" ? grantsIntention(rules, each.name) : service(each.name)),
        );
      }
      case "query":
        return [was, is].every((each) => each?.type !== "query" || grants(rules, "query", each.name));
      case "address":
        // An address may be lost with the service that had it.
        return rules.mesh || rules.operator || is === undefined || is.value === "[]";
      case "peering":
        return rules.peering || rules.operator;
      case "authority":
        return rules.operator;
      default:
        return false;
    }
  }
}

describe("every write takes the right for each thing that it changes", { timeout: 60_000 }, () => {
  let served: ServedHost;
  let other: PeeringHost;
  let token = "";
  let authorizer: Authorizer;
  const ids = new Map<string, string>();

  before(async () => {
    const network = memoryNetwork();
    other = await createHost({
      datacenter: "dc2",
      storage: memoryStorage(),
      transport: network.transport({ listen: "127.0.0.12:8503" }),
    });
    token = await other.peerings.generateToken({ peerName: "somebody" });
    const host = await createHost({
      datacenter: "dc1",
      storage: memoryStorage(),
      transport: network.transport({ listen: "127.0.0.11:8503" }),
    });
    served = await serve(host, {
      authorizer: {
        defaultPolicy: "deny",
        resolve: (secret) => authorizer.resolve(secret),
        allowed: (identity, right) => authorizer.allowed(identity, right),
      },
    });
  });
  after(async () => {
    await served[Symbol.asyncDispose]();
    await other[Symbol.asyncDispose]();
  });

  async function reset(): Promise<void> {
    const { catalog, configEntries, queries } = served.host;
    for (const { name } of catalog.nodes()) await catalog.deregister({ node: name });
    for (const { entry } of configEntries.list().toReversed()) await configEntries.delete(entry.kind, entry.name);
    for (const { query } of queries.list()) await queries.delete(query.id);
    const n1 = { node: "n1", id: NODE_IDS[1], address: "10.0.0.1" };
    const n2 = { node: "n2", id: NODE_IDS[2], address: "10.0.0.2" };
    const check = (checkId: string, serviceId = "") => ({ checkId, name: "c", serviceId, status: "passing" });
    await catalog.registerAll([
      { ...n1, check: check("node-check") },
      { ...n1, service: { id: "web-1", name: "web", port: 1 }, check: check("web-check", "web-1") },
      { ...n1, service: { id: "db-1", name: "db", port: 1 }, check: check("db-check", "db-1") },
      { ...n2, service: { id: "web-1", name: "db", port: 1 }, check: check("web-check", "web-1") },
      { node: "peerage", address: "127.0.0.1", check: check("node-check") },
      {
        node: "peerage",
        address: "127.0.0.1",
        service: { id: "own", name: "own", port: 1 },
        check: check("own-check", "own"),
      },
      {
        node: "peerage",
        address: "127.0.0.1",
        service: { id: "web-1", name: "web", port: 1 },
        check: check("web-check", "web-1"),
      },
      {
        node: "peerage",
        address: "127.0.0.1",
        service: {
          kind: "connect-proxy",
          id: "own-sidecar-proxy",
          name: "side",
          port: 2,
          proxy: { destinationServiceName: "own", destinationServiceId: "own" },
        },
      },
    ]);
    await configEntries.set({ kind: "service-defaults", name: "web", protocol: "http" });
    await configEntries.set({ kind: "service-intentions", name: "web", sources: [{ name: "db", action: "allow" }] });
    await configEntries.set({
      kind: "service-intentions",
      name: "db",
      sources: [{ name: "web", action: "allow", legacyID: LEGACY_ID }],
    });
    await configEntries.set({ kind: "service-intentions", name: "*", sources: [{ name: "db", action: "deny" }] });
    for (const name of ["kept", "gone"]) {
      ids.set(`<${name}>`, await queries.create({ name, service: { name: "web" } }));
    }
  }

  async function send(
    rules: Rules,
    { route, path, body: bodyOf }: Attempt,
  ): Promise<{ readonly answer: RawAnswer; readonly body: string | undefined }> {
    authorizer = tokensFor([textOf(rules)]);
    const [method = "", pattern = ""] = route.split(" ");
    const body = bodyOf && JSON.stringify(bodyOf(served.host)).replace("<token>", token);
    const answer = await served.ask(method, `${pattern}${ids.get(path) ?? path}`, {
      headers: { "X-Consul-Token": secretFor(textOf(rules)) },
      ...(body !== undefined && { body }),
    });
    return { answer, body };
  }

  it("takes the right for what changes although the request does not name it", async () => {
    const on = (kind: Kind, name: string): Rule => ({ kind, match: "exact", name, policy: "write" });
    const byId = { ID: NODE_IDS[2], Node: "new-node", Address: "10.0.0.1" };
    const check = { Node: "n1", CheckID: "db-check", Name: "c", ServiceID: "web-1", Status: "passing" };
    const address = { Node: "n1", ID: NODE_IDS[1], Address: "10.0.0.2" };
    const register = (body: object): Attempt => ({ route: "PUT /v1/catalog/register", path: "", body: () => body });
    const transaction = (...made: readonly object[]): Attempt => ({ route: "PUT /v1/txn", path: "", body: () => made });
    const cases: readonly (readonly [named: Rule, changed: Rule, request: Attempt])[] = [
      [
        on("service", "web"),
        on("node", "n1"),
        register({ ...address, Service: { ID: "web-1", Service: "web", Port: 1 } }),
      ],
      [on("node", "new-node"), on("node", "n2"), register(byId)],
      [on("service", "web"), on("service", "db"), register({ ...address, Address: "10.0.0.1", Check: check })],
      [on("node", "new-node"), on("node", "n2"), transaction({ Node: { Verb: "set", Node: byId } })],
      [on("service", "web"), on("service", "db"), transaction({ Check: { Verb: "set", Check: check } })],
    ];
    for (const [named, changed, request] of cases) {
      const others = { mesh: false, peering: false, operator: false };
      await reset();
      const old = JSON.stringify([...snapshot(served.host)]);
      const refusal = await send({ ...others, named: [named] }, request);
      assert.match(refusal.answer.text, /lacks permission/, refusal.body);
      assert.equal(JSON.stringify([...snapshot(served.host)]), old, refusal.body);
      const { answer, body } = await send({ ...others, named: [named, changed] }, request);
      assert.equal(answer.status, 200, `${body}: ${answer.text}`);
      assert.notEqual(JSON.stringify([...snapshot(served.host)]), old, body);
    }
  });

  it("knows every route that writes", () => {
    const writing = operations
      .filter(({ method, unserved }) => method !== "GET" && unserved !== true)
      // Their bodies say what to tell.
      .filter(({ pattern }) => pattern !== "/v1/discovery-chain/" && pattern !== "/v1/agent/connect/authorize")
      .map(({ method, pattern }) => `${method} ${pattern}`);
    assert.deepEqual(Object.keys(attempts).sort(), writing.sort());
  });

  it("changes nothing that its token has no right for", async () => {
    let changed = 0;
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(rulesArbitrary, fc.array(attempt, { minLength: 1, maxLength: 4 }), async (rules, requests) => {
        await reset();
        for (const request of requests) {
          const old = snapshot(served.host);
          const { answer, body } = await send(rules, request);
          const now = snapshot(served.host);
          const wrong = violations(rules, request, old, now);
          assert.deepEqual(
            wrong,
            [],
            `${request.route} ${request.path} ${body}: ${answer.status} ${answer.text}\n${textOf(rules)}`,
          );
          if (JSON.stringify([...old]) !== JSON.stringify([...now])) changed++;
          if (/lacks permission/.test(answer.text)) refused++;
        }
      }),
      { numRuns: 500 },
    );
    assert.ok(changed > 100, `${changed} requests changed something`);
    assert.ok(refused > 100, `${refused} requests were refused`);
  });
});
