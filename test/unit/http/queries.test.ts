import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { hostSource } from "../../../src/dns/index.js";
import { permittedSource } from "../../../src/dns/source.js";
import type { Authorizer } from "../../../src/http/index.js";
import { secretFor, tokensFor } from "../../support/acl.js";
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
  it("fall back to the second target, and come home when there is something (ch4 case 65)", async () => {
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
    const overDns = await hostSource(b.host).query("Q1", "10.9.9.9");
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
    assert.equal((await hostSource(b.host).query("q1", "10.9.9.9"))?.peer, "");
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
              NearestN: 0,
              Datacenters: null,
              Targets: [
                { Peer: "nobody", Datacenter: "" },
                { Peer: "cluster-a", Datacenter: "" },
              ],
            },
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

  it("are refused with an index that is not one", async () => {
    await using pair = await HttpPair.start();
    for (const index of [[], {}, "1", -1, 1.5]) {
      const query = { Name: "q", Service: { Service: "web" }, CreateIndex: index };
      const [status, text] = await ask(pair.a, "POST", "/v1/query", query);
      assert.equal(status, 400, String(text));
      assert.match(String(text), /^Request decode failed: json: cannot unmarshal \S+ .*of type uint64$/);
    }
    assert.match(
      await create(pair.a, { Name: "q", Service: { Service: "web" }, CreateIndex: 3, ModifyIndex: null }),
      /-/,
    );
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
    // Only a fork of Consul knows the last two.
    for (const [body, field] of [
      [{ Nope: 1 }, "Nope"],
      [{ Service: { ...w, IncludeAll: true } }, "IncludeAll"],
      [{ Service: { ...w, Failover: { SkipLocalDatacenter: true } } }, "SkipLocalDatacenter"],
    ] as const) {
      const why = `Request decode failed: json: unknown field "${field}"`;
      assert.deepEqual(await ask(a, "POST", "/v1/query", body), [400, why]);
    }
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

  it("take query:read and query:write on their names, and show only readable records", async () => {
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

  // All that Consul's Go client can say in a PreparedQueryDefinition, but for what Consul itself refuses.
  const name = fc
    .string({ unit: "grapheme-ascii", minLength: 1, maxLength: 12 })
    .map((text) => text.replace(/\$/g, "-"));
  const names = fc.option(fc.array(name, { maxLength: 3 }), { nil: null });
  const metaKey = fc.stringMatching(/^[a-zA-Z0-9_-]{1,12}$/).filter((key) => key !== "__proto__");
  const nodeMeta = fc.option(fc.dictionary(metaKey, name, { maxKeys: 3, noNullPrototype: true }), { nil: null });
  const fallback = fc.oneof(
    fc.record({ NearestN: fc.nat(5), Datacenters: names, Targets: fc.constant(null) }),
    fc.record({
      NearestN: fc.constant(0),
      Datacenters: fc.constantFrom(null, []),
      Targets: fc.option(fc.array(fc.record({ Peer: fc.oneof(fc.constant(""), name), Datacenter: name })), {
        nil: null,
      }),
    }),
  );
  const definition = fc.record({
    Name: name,
    Session: fc.constant(""),
    Token: fc.oneof(fc.constant(""), fc.uuid()),
    Template: fc.oneof(
      fc.record({ Type: fc.constant(""), Regexp: name, RemoveEmptyTags: fc.boolean() }),
      fc.record({
        Type: fc.constant("name_prefix_match"),
        Regexp: fc.constantFrom("", "^(.*)-(.*)$"),
        RemoveEmptyTags: fc.boolean(),
      }),
    ),
    Service: fc.record({
      Service: name,
      SamenessGroup: fc.constant(""),
      Failover: fallback,
      OnlyPassing: fc.boolean(),
      IgnoreCheckIDs: names,
      Near: fc.oneof(fc.constantFrom("", "_agent", "_ip"), name),
      Tags: names,
      NodeMeta: nodeMeta,
      ServiceMeta: nodeMeta,
      Connect: fc.boolean(),
      Peer: fc.oneof(fc.constant(""), name),
    }),
    DNS: fc.record({ TTL: fc.constantFrom("", "0s", "10s", "1m30s", "1h") }),
  });

  it("come back as they were given, whatever of them is given", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const read = async (id: string): Promise<Readonly<Record<string, unknown>>> => {
      const [, [told]] = (await ask(a, "GET", `/v1/query/${id}`)) as [number, readonly Record<string, unknown>[]];
      return told ?? {};
    };
    await fc.assert(
      fc.asyncProperty(definition, async (value) => {
        // Without the prototypes of what fast-check makes.
        const given: Readonly<Record<string, unknown>> = JSON.parse(JSON.stringify(value));
        const id = await create(a, given);
        try {
          const told = await read(id);
          const { CreateIndex, ModifyIndex, ID, ...rest } = told;
          assert.deepEqual([rest, ID, typeof CreateIndex], [given, id, "number"]);
          // The answer is written back and read again, as Terraform does.
          assert.deepEqual(await ask(a, "PUT", `/v1/query/${id}`, { ...rest, ID }), [200, ""]);
          assert.deepEqual({ ...(await read(id)), ModifyIndex }, told);
        } finally {
          await ask(a, "DELETE", `/v1/query/${id}`);
        }
      }),
      { numRuns: 150 },
    );
  });

  it("order instances by nearness, over HTTP and DNS", async () => {
    await using pair = await HttpPair.start(10, {}, "n3");
    const { a } = pair;
    for (const [index, address] of ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::4"].entries()) {
      await a.host.catalog.register({ node: `n${index + 1}`, address, service: { name: "web", port: 80 } });
    }
    await create(a, { Name: "agent", Service: { Service: "web", Near: "_agent" } });
    await create(a, { Name: "ip", Service: { Service: "web", Near: "_ip" } });
    await create(a, { Name: "node", Service: { Service: "web", Near: "N2" } });
    await create(a, { Name: "none", Service: { Service: "web", Near: "nobody" } });
    const first = async (path: string, from?: string): Promise<string> => {
      const headers: Readonly<Record<string, string>> = from === undefined ? {} : { "X-Forwarded-For": from };
      const { text } = await a.ask("GET", path, { headers });
      return JSON.parse(text).Nodes[0].Node.Node;
    };
    // More often than chance would have it.
    for (let count = 0; count < 8; count++) {
      assert.equal(await first("/v1/query/agent/execute"), "n3");
      assert.equal(await first("/v1/query/node/execute"), "n2");
      assert.equal(await first("/v1/query/node/execute?near=n1"), "n1");
      assert.equal(await first("/v1/query/node/execute?near=_agent"), "n3");
      assert.equal(await first("/v1/query/ip/execute", "10.0.0.1, 10.0.0.2"), "n1");
      assert.equal(await first("/v1/query/none/execute?near=_ip", "fd00::4"), "n4");
    }
    const chance = new Set<string>();
    while (chance.size < 4) chance.add(await first("/v1/query/ip/execute", "10.9.9.9"));
    const source = hostSource(a.host);
    assert.equal((await source.query("ip", "10.0.0.2"))?.near, "n2");
    assert.equal((await source.query("ip", "10.9.9.9"))?.near, "");
    assert.equal((await source.query("agent", "10.0.0.2"))?.near, "n3");
  });

  it("are found with the rights of their token, which is shown to those who may write ACLs", async () => {
    const [reader, writer, owner] = [
      'service_prefix "" { policy = "read" }\nnode_prefix "" { policy = "read" }',
      'query_prefix "" { policy = "write" }',
      'query_prefix "" { policy = "write" }\nacl = "write"',
    ];
    await using pair = await HttpPair.start(10, { authorizer: tokensFor([reader, writer, owner]) });
    const { a } = pair;
    await a.host.catalog.register({ node: "n1", address: "10.0.0.1", service: { name: "web", port: 80 } });
    const asked = async (rules: string, method: string, path: string, body?: unknown): Promise<unknown> => {
      const sent = body === undefined ? {} : { body: JSON.stringify(body) };
      const { text } = await a.ask(method, path, { ...sent, headers: { "X-Consul-Token": secretFor(rules) } });
      return text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : text;
    };
    const query = { Name: "q", Service: { Service: "web" } };
    await asked(writer, "POST", "/v1/query", { ...query, Token: secretFor(reader) });
    await asked(writer, "POST", "/v1/query", { ...query, Name: "bare" });
    await asked(writer, "POST", "/v1/query", { ...query, Name: "wrong", Token: "no-such-token" });
    const found = async (name: string): Promise<unknown> => {
      const { text } = await a.ask("GET", `/v1/query/${name}/execute`);
      return text.startsWith("{") ? JSON.parse(text).Nodes.length : text;
    };
    assert.deepEqual([await found("q"), await found("bare"), await found("wrong")], [1, 0, "ACL not found"]);
    const tokens = async (rules: string): Promise<ReadonlySet<string>> => {
      const list = (await asked(rules, "GET", "/v1/query")) as readonly { readonly Token: string }[];
      return new Set(list.map(({ Token }) => Token));
    };
    assert.deepEqual(await tokens(writer), new Set(["", "<hidden>"]));
    assert.deepEqual(await tokens(owner), new Set(["", "no-such-token", secretFor(reader)]));
    assert.equal(Object(await asked(writer, "GET", "/v1/query/q/explain")).Query.Token, "<hidden>");
    const dns = permittedSource(hostSource(a.host), tokensFor([reader, writer, owner]));
    assert.deepEqual(
      [(await dns.query("q", ""))?.instances.length, (await dns.query("bare", ""))?.instances.length],
      [1, 0],
    );
  });

  it("that are templates take the right on their name, which is the right on all names for the one without", async () => {
    const [web, all] = ['query_prefix "web" { policy = "write" }', 'query_prefix "" { policy = "write" }'];
    await using pair = await HttpPair.start(10, { authorizer: tokensFor([web, all]) });
    const { a } = pair;
    const status = async (rules: string, method: string, path: string, body?: unknown): Promise<number> => {
      const sent = body === undefined ? {} : { body: JSON.stringify(body) };
      return (await a.ask(method, path, { ...sent, headers: { "X-Consul-Token": secretFor(rules) } })).status;
    };
    const template = (name: string): unknown => ({
      Name: name,
      Template: { Type: "name_prefix_match" },
      Service: { Service: "x" },
    });
    assert.equal(await status(web, "POST", "/v1/query", template("")), 403);
    assert.equal(await status(all, "POST", "/v1/query", template("")), 200);
    assert.equal(await status(web, "POST", "/v1/query", template("web-")), 200);
    // The template is explained, so the caller must be allowed to read it, whatever name it answers to.
    assert.equal(await status(web, "GET", "/v1/query/web-1/explain"), 200);
    assert.equal(await status(web, "GET", "/v1/query/other/explain"), 403);
    assert.equal(await status(all, "GET", "/v1/query/other/explain"), 200);
  });
});
