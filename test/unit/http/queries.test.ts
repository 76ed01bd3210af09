import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hostSource } from "../../../src/dns/index.js";
import type { Authorizer } from "../../../src/http/index.js";
import { eventually, HttpPair, type ServedHost } from "../../support/http-pair.js";

async function ask(served: ServedHost, method: string, path: string, body?: unknown): Promise<[number, unknown]> {
  const sent = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
  const { status, text, headers } = await served.ask(method, path, sent);
  return [status, headers["content-type"] === "application/json" && text !== "" ? JSON.parse(text) : text];
}

async function create(served: ServedHost, body: unknown): Promise<string> {
  const [status, answer] = await ask(served, "POST", "/v1/query", body);
  assert.equal(status, 200, String(answer));
  return Object(answer).ID;
}

async function peered(options: { readonly authorizer?: Authorizer } = {}): Promise<HttpPair> {
  const pair = await HttpPair.start(10, options);
  const { a, b } = pair;
  await a.host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80, tags: ["x"] } });
  await a.host.exports.set({ services: [{ name: "web", consumers: [{ peer: "cluster-b" }] }] });
  const token = await a.host.peerings.generateToken({ peerName: "cluster-b" });
  await b.host.peerings.establish({ peerName: "cluster-a", token });
  await eventually(() => b.host.imports.count({ peer: "cluster-a" }).instances === 1, AbortSignal.timeout(20_000));
  return pair;
}

const failover = { Failover: { Targets: [{ Peer: "nobody" }, { Peer: "cluster-a" }] } };

describe("prepared queries over HTTP, as Consul 1.21.4 answered", { timeout: 60_000 }, () => {
  it("ch4 case 65: fall back to the second target, and come home when there is something", async () => {
    await using pair = await peered();
    const { b } = pair;
    await create(b, { Name: "q1", Service: { Service: "web", ...failover }, DNS: { TTL: "4s" } });
    const read = {
      Index: 1,
      LastContact: 0,
      KnownLeader: true,
      ConsistencyLevel: "leader",
      NotModified: false,
      Backend: 0,
      ResultsFilteredByACLs: false,
    };
    const executed = await b.ask("GET", "/v1/query/q1/execute");
    assert.equal(executed.headers["x-consul-effective-consistency"], "leader");
    const { Nodes: [away] = [], ...rest } = JSON.parse(executed.text);
    assert.deepEqual(rest, {
      Service: "web",
      DNS: { TTL: "4s" },
      Datacenter: "",
      PeerName: "cluster-a",
      Failovers: 2,
      ...read,
    });
    assert.deepEqual(
      [away.Node.PeerName, away.Service.PeerName, away.Service.Tags, away.Checks],
      ["cluster-a", "cluster-a", ["x"], null],
    );
    const overDns = await hostSource(b.host).query("Q1");
    assert.deepEqual([overDns?.peer, overDns?.instances.length, overDns?.ttl], ["cluster-a", 1, 4]);
    await b.host.catalog.register({ node: "l1", address: "10.0.0.9", service: { name: "web", port: 81 } });
    const [, home] = await ask(b, "GET", "/v1/query/q1/execute");
    const { Nodes: [local] = [], ...atHome } = Object(home);
    assert.deepEqual(atHome, {
      Service: "web",
      DNS: { TTL: "4s" },
      Datacenter: "dc2",
      PeerName: "",
      Failovers: 0,
      ...read,
    });
    assert.deepEqual([local.Node.Node, local.Service.Tags], ["l1", null]);
    assert.equal((await hostSource(b.host).query("q1"))?.peer, "");
  });

  it("are kept as they were given, listed, replaced and deleted", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const service = { Service: "web", Tags: ["a", "!b"], OnlyPassing: true, NodeMeta: { x: "y" }, ...failover };
    const id = await create(a, { Name: "q1", Service: service, DNS: { TTL: "4s" } });
    const [status, list] = await ask(a, "GET", "/v1/query");
    const [query] = list as readonly Record<string, unknown>[];
    assert.deepEqual(
      [status, query],
      [
        200,
        {
          ID: id,
          Name: "q1",
          Session: "",
          Token: "",
          Template: { Type: "", Regexp: "", RemoveEmptyTags: false },
          Service: {
            Service: "web",
            SamenessGroup: "",
            Failover: {
              SkipLocalDatacenter: false,
              NearestN: 0,
              Datacenters: null,
              Targets: [
                { Peer: "nobody", Datacenter: "" },
                { Peer: "cluster-a", Datacenter: "" },
              ],
            },
            IncludeAll: false,
            OnlyPassing: true,
            IgnoreCheckIDs: null,
            Near: "",
            Tags: ["a", "!b"],
            NodeMeta: { x: "y" },
            ServiceMeta: null,
            Connect: false,
            Peer: "",
          },
          DNS: { TTL: "4s" },
          CreateIndex: query?.["CreateIndex"],
          ModifyIndex: query?.["ModifyIndex"],
        },
      ],
    );
    assert.deepEqual(await ask(a, "GET", `/v1/query/${id}`), [200, list]);
    const [, explained] = await ask(a, "GET", "/v1/query/Q1/explain");
    assert.deepEqual(Object(explained).Query, query);
    assert.deepEqual(await ask(a, "PUT", `/v1/query/${id}`, { Name: "q2", Service: { Service: "db" } }), [200, ""]);
    const [, [replaced]] = (await ask(a, "GET", `/v1/query/${id}`)) as [number, readonly unknown[]];
    assert.deepEqual([Object(replaced).Name, Object(replaced).Service.Tags], ["q2", null]);
    assert.deepEqual(await ask(a, "DELETE", `/v1/query/${id}`), [200, ""]);
    assert.deepEqual(await ask(a, "GET", "/v1/query"), [200, []]);
    const gone = `Cannot modify non-existent prepared query: '${id}'`;
    assert.deepEqual(await ask(a, "DELETE", `/v1/query/${id}`), [500, gone]);
    assert.deepEqual(await ask(a, "PUT", `/v1/query/${id}`, { Name: "q2", Service: { Service: "db" } }), [500, gone]);
    assert.deepEqual(await ask(a, "GET", `/v1/query/${id}`), [404, "Query not found"]);
    assert.deepEqual(await ask(a, "GET", "/v1/query/q2/execute"), [404, "Query not found"]);
    assert.deepEqual(await ask(a, "GET", "/v1/query/q2"), [
      500,
      "failed prepared query lookup: index error: UUID must be 36 characters",
    ]);
  });

  it("are refused with the reason", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    await create(a, { Name: "q1", Service: { Service: "web" } });
    const w = { Service: "w" };
    for (const [body, why] of [
      [
        { Name: "q", Service: { ...w, Failover: { NearestN: 1, Targets: [{ Peer: "a" }] } } },
        "Targets cannot be populated with NearestN or Datacenters",
      ],
      [
        { Name: "q", Service: { ...w, Failover: { Datacenters: ["x"], Targets: [{ Peer: "a" }] } } },
        "Targets cannot be populated with NearestN or Datacenters",
      ],
      [{ Name: "q", Service: { ...w, Failover: { NearestN: -1 } } }, "Bad NearestN '-1', must be >= 0"],
      [{ Name: "q", Service: {} }, "Must provide a Service name to query"],
      [{}, "Must be bound to a session"],
      [{ Name: "q", Service: w, DNS: { TTL: "x" } }, "Bad DNS TTL 'x': time: invalid duration \"x\""],
      [{ Name: "q", Service: w, DNS: { TTL: "-1s" } }, "DNS TTL '-1000000000', must be >=0"],
      [{ Name: "q", Service: w, Template: { Type: "name_prefix_match" } }, "templates are not supported"],
      [{ Name: "q", Service: w, Session: "s" }, "sessions are not supported"],
      [{ Name: "q", Service: w, Token: "t" }, "a token of its own is not supported"],
    ] as const) {
      assert.deepEqual(await ask(a, "POST", "/v1/query", body), [500, `Invalid prepared query: ${why}`]);
    }
    assert.deepEqual(await ask(a, "POST", "/v1/query", { Name: "Q1", Service: w }), [
      500,
      "raft apply failed: name 'Q1' aliases an existing query name",
    ]);
    assert.deepEqual(await ask(a, "POST", "/v1/query", { ID: "x", Name: "q", Service: w }), [
      500,
      "ID must be empty when creating a new prepared query",
    ]);
    assert.deepEqual(await ask(a, "POST", "/v1/query", { Nope: 1 }), [
      400,
      'Request decode failed: json: unknown field "Nope"',
    ]);
    assert.deepEqual(await ask(a, "GET", "/v1/query/q1/execute?limit=x"), [
      500,
      'Bad limit: strconv.Atoi: parsing "x": invalid syntax',
    ]);
  });

  it("give so many instances as are asked for, and proxies of a mesh service", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    for (const id of ["w1", "w2", "w3"]) {
      await a.host.catalog.register({ node: "n1", address: "10.0.0.1", service: { id, name: "web", port: 80 } });
    }
    await a.host.catalog.register({
      node: "n1",
      address: "10.0.0.1",
      service: { kind: "connect-proxy", name: "proxy", port: 81, proxy: { destinationServiceName: "web" } },
    });
    await create(a, { Name: "q1", Service: { Service: "web" } });
    await create(a, { Name: "mesh", Service: { Service: "web", Connect: true } });
    const ids = async (path: string): Promise<readonly string[]> => {
      const [, { Nodes }] = (await ask(a, "GET", path)) as [number, { Nodes: readonly { Service: { ID: string } }[] }];
      return Nodes.map(({ Service }) => Service.ID).sort();
    };
    assert.deepEqual(await ids("/v1/query/q1/execute"), ["w1", "w2", "w3"]);
    assert.equal((await ids("/v1/query/q1/execute?limit=2")).length, 2);
    assert.deepEqual(await ids("/v1/query/mesh/execute"), ["proxy"]);
  });

  it("take query:read and query:write on their names, and show what may be read", async () => {
    const authorizer: Authorizer = {
      defaultPolicy: "deny",
      resolve: async () => ({ accessorId: "id" }),
      allowed: (_, { resource, access, name }) => resource === "query" && (name === "mine" || access === "read"),
    };
    await using pair = await peered({ authorizer });
    const { b } = pair;
    const denied = "Permission denied: token with AccessorID 'id' lacks permission 'query:write' on";
    const id = await create(b, { Name: "mine", Service: { Service: "web", Peer: "cluster-a" } });
    assert.deepEqual(await ask(b, "POST", "/v1/query", { Name: "other", Service: { Service: "web" } }), [
      403,
      `${denied} "other"`,
    ]);
    assert.deepEqual(await ask(b, "PUT", `/v1/query/${id}`, { Name: "other", Service: { Service: "web" } }), [
      403,
      `${denied} "other"`,
    ]);
    const other = await b.host.queries.create({ name: "other", service: { name: "web" } });
    assert.deepEqual(await ask(b, "DELETE", `/v1/query/${other}`), [403, `${denied} "other"`]);
    assert.equal((await ask(b, "GET", `/v1/query/${other}`))[0], 200);
    const [, found] = await ask(b, "GET", "/v1/query/mine/execute");
    assert.deepEqual([Object(found).Nodes, Object(found).ResultsFilteredByACLs], [[], true]);
  });
});
