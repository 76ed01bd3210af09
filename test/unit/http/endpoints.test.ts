import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { describe, it, mock } from "node:test";
import { setImmediate } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import { machineryOf } from "../../../src/host/host.js";
import type { Authorizer } from "../../../src/http/index.js";
import { eventually, HttpPair, type ServedHost } from "../../support/http-pair.js";

async function answered(served: ServedHost, method: string, path: string, body?: unknown): Promise<[number, string]> {
  const sent = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
  const { status, text } = await served.ask(method, path, sent);
  return [status, text];
}

async function json(served: ServedHost, path: string): Promise<unknown> {
  const { status, text } = await served.ask("GET", path);
  assert.equal(status, 200, text);
  return JSON.parse(text);
}

describe("peering endpoints", { timeout: 60_000 }, () => {
  it("bodies of token and establish are refused with Consul's texts (HT1)", async () => {
    await using pair = await HttpPair.start();
    for (const what of ["token", "establish"]) {
      const path = `/v1/peering/${what}`;
      assert.deepEqual(await answered(pair.a, "POST", path, ""), [400, "Body decoding failed: EOF"]);
      assert.deepEqual(await answered(pair.a, "POST", path, "abc"), [
        400,
        "Body decoding failed: invalid character 'a' looking for beginning of value",
      ]);
      assert.equal((await answered(pair.a, "POST", path, "{}"))[0], 400);
      assert.deepEqual(await answered(pair.a, "POST", path, { Bar: 1 }), [
        400,
        'Body decoding failed: json: unknown field "Bar"',
      ]);
    }
    assert.equal((await answered(pair.a, "POST", "/v1/peering/token", '{"peername":"foo"} trailing'))[0], 200);
  });

  it("the partition of a query is refused in every spelling, that of a body unless it is default (HT2)", async () => {
    await using pair = await HttpPair.start();
    const why = "Partitions are a Consul Enterprise feature";
    assert.deepEqual(await answered(pair.a, "GET", "/v1/peerings?partition=default"), [
      400,
      `Invalid query parameter: "partition" - ${why}`,
    ]);
    const inHeader = await pair.a.ask("GET", "/v1/peerings", { headers: { "X-Consul-Partition": "x" } });
    assert.equal(inHeader.text, `Invalid header: "X-Consul-Partition" - ${why}`);
    assert.deepEqual(await answered(pair.a, "POST", "/v1/peering/token", { PeerName: "x", Partition: "zzz" }), [
      500,
      why,
    ]);
    assert.equal(
      (await answered(pair.a, "POST", "/v1/peering/token", { PeerName: "x", Partition: "DeFaUlT" }))[0],
      200,
    );
  });

  it("unused tokens are listed and revoked: a revoked one establishes nothing, and the record stays", async () => {
    await using pair = await HttpPair.start();
    const { a, b } = pair;
    const path = "/v1/peerage/peering-tokens";
    assert.deepEqual(await json(a, path), []);
    const token = await a.host.peerings.generateToken({ peerName: "east" });
    await a.host.peerings.generateToken({ peerName: "west" });
    const names = async (): Promise<unknown> =>
      Array.from((await json(a, path)) as readonly { readonly Name: string }[], ({ Name }) => Name);
    assert.deepEqual(await names(), ["east", "west"]);
    assert.deepEqual(await answered(a, "DELETE", `${path}/EAST`), [200, "true"]);
    const [status, text] = await answered(a, "DELETE", `${path}/east`);
    assert.deepEqual([status, text], [404, 'There is no unused peering token for "east"']);
    assert.equal((await answered(a, "DELETE", `${path}/nobody`))[0], 404);
    await assert.rejects(b.host.peerings.establish({ peerName: "a", token }), { code: "permission-denied" });
    assert.equal(a.host.peerings.read("east")?.state, "pending");
    const [west] = a.host.peerings.outstandingTokens();
    assert.equal(west?.name, "west");
    const other = await a.host.peerings.generateToken({ peerName: "east" });
    await b.host.peerings.delete("a");
    await eventually(() => b.host.peerings.read("a") === undefined, AbortSignal.timeout(20_000));
    await b.host.peerings.establish({ peerName: "a", token: other });
    assert.deepEqual(await names(), ["west"], "a token that was used is not outstanding");
  });

  it("a read waits until its own record changes, and no longer than it was told (HT5)", async () => {
    await using pair = await HttpPair.start(50);
    const { a } = pair;
    await a.host.peerings.generateToken({ peerName: "foo" });
    const first = await a.ask("GET", "/v1/peering/foo");
    const { ModifyIndex } = JSON.parse(first.text);
    assert.equal(first.headers["x-consul-index"], String(ModifyIndex));

    const over = await a.ask("GET", `/v1/peering/foo?index=${ModifyIndex}&wait=1s`);
    assert.equal(over.headers["x-consul-index"], String(ModifyIndex));

    // Within an hour's wait: what comes back came by the write.
    const waiting = a.ask("GET", `/v1/peering/foo?index=${ModifyIndex}&wait=10m`);
    await a.host.peerings.generateToken({ peerName: "other" });
    await a.host.peerings.generateToken({ peerName: "foo" });
    const changed = await waiting;
    assert.ok(Number(changed.headers["x-consul-index"]) > ModifyIndex);
    assert.equal(JSON.parse(changed.text).ModifyIndex, Number(changed.headers["x-consul-index"]));
  });

  it("a waiting read looks again after the changes of its own record alone", async () => {
    await using pair = await HttpPair.start(50);
    const { a } = pair;
    await a.host.peerings.generateToken({ peerName: "foo" });
    const index = (await a.ask("GET", "/v1/peering/foo")).headers["x-consul-index"];
    const reads = mock.method(a.host.peerings, "read");
    const waiting = a.ask("GET", `/v1/peering/foo?index=${index}&wait=10m`);
    await eventually(() => reads.mock.callCount() === 1, AbortSignal.timeout(20_000));
    for (const peerName of ["b", "c", "d"]) await a.host.peerings.generateToken({ peerName });
    // Whatever it has woken is done before the list of now is answered.
    assert.equal(JSON.parse((await a.ask("GET", "/v1/peerings")).text).length, 4);
    assert.equal(reads.mock.callCount(), 1);
    await a.host.peerings.generateToken({ peerName: "foo" });
    assert.equal((await waiting).status, 200);
    assert.equal(reads.mock.callCount(), 2);
    reads.mock.restore();
  });

  it("a wait for a missing peering is not ended by other writes (HT6)", async () => {
    await using pair = await HttpPair.start(50);
    const { a } = pair;
    await a.host.peerings.generateToken({ peerName: "foo" });
    const list = await a.ask("GET", "/v1/peerings");
    const waiting = a.ask("GET", `/v1/peering/nope?index=${list.headers["x-consul-index"]}&wait=20s`);
    await a.host.peerings.generateToken({ peerName: "other" });
    const { status, text } = await waiting;
    assert.deepEqual([status, text], [404, 'Peering not found for "nope"']);

    const hoped = a.ask(
      "GET",
      `/v1/peering/late?index=${(await a.ask("GET", "/v1/peerings")).headers["x-consul-index"]}&wait=10m`,
    );
    await a.host.peerings.generateToken({ peerName: "late" });
    assert.equal((await hoped).status, 200);
  });

  it("a list is woken by each write, and misses none", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const names = Array.from({ length: 30 }, (_, number) => `peer-${number}`);
    const follow = async (): Promise<void> => {
      for (let index = "1", seen = 0; seen < names.length; ) {
        const { headers, text } = await a.ask("GET", `/v1/peerings?index=${index}&wait=10m`);
        index = headers["x-consul-index"] ?? "";
        const found: unknown[] = JSON.parse(text);
        assert.ok(found.length > seen, "woken without news");
        seen = found.length;
      }
    };
    const followers = Array.from({ length: 5 }, follow);
    for (const peerName of names) await a.host.peerings.generateToken({ peerName });
    await Promise.all(followers);
  });

  it("a bad parameter is answered with its error alone (HT7, D-34)", async () => {
    await using pair = await HttpPair.start();
    for (const [query, why] of [
      ["index=-1", "Invalid index"],
      ["index=18446744073709551616", "Invalid index"],
      ["wait=10", "Invalid wait time"],
      ["max_stale=x", 'Invalid max_stale value "x"'],
      ["cached&consistent", "Cannot specify ?cached with ?consistent, conflicting semantics."],
    ]) {
      assert.deepEqual(await answered(pair.a, "GET", `/v1/peerings?${query}`), [400, why]);
    }
    const { text } = await pair.a.ask("GET", "/v1/peerings", { headers: { "Cache-Control": "max-age=x" } });
    assert.equal(text, "Invalid Cache-Control header.");
    assert.equal((await answered(pair.a, "GET", "/v1/peerings?index=&wait=1h30m1.5s&stale"))[0], 200);
  });

  it("an unanswered exchange is a 503 that names every attempt (HT13)", async () => {
    await using pair = await HttpPair.start(100);
    const token = await pair.a.host.peerings.generateToken({
      peerName: "x",
      serverExternalAddresses: ["127.0.0.99:1"],
    });
    const [status, text] = await answered(pair.b, "POST", "/v1/peering/establish", {
      PeerName: "y",
      PeeringToken: token,
    });
    assert.equal(status, 503, text);
    assert.match(
      text,
      /^\d+ errors? occurred:\n(\t\* failed to exchange peering secret through address "127\.0\.0\.99:1": .+\n)+\n$/,
    );
    assert.equal(pair.b.host.peerings.read("y")?.state, "pending");
  });

  it("a client that goes away ends its wait", async (context) => {
    await using pair = await HttpPair.start();
    const client = new AbortController();
    const { records } = machineryOf(pair.a.host);
    let listeners = 0;
    const { onChange } = records;
    records.onChange = (listener) => {
      listeners++;
      const forget = onChange.call(records, listener);
      return () => {
        listeners--;
        return forget();
      };
    };
    const waiting = pair.a.ask("GET", "/v1/peerings?index=99&wait=10m", { signal: client.signal });
    waiting.catch(() => {});
    await eventually(() => listeners === 1, context.signal);
    client.abort();
    await assert.rejects(waiting, { name: "AbortError" });
    await eventually(() => listeners === 0, context.signal);
  });
});

describe("configuration endpoints", { timeout: 60_000 }, () => {
  it("config entries: spelling, unknown keys and cas are judged as by Consul (HT9)", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const entry = {
      Kind: "exported-services",
      Name: "default",
      services: { name: "web", consumers: { peer_name: "b" } },
    };
    assert.deepEqual(await answered(a, "PUT", "/v1/config", entry), [200, "true"]);
    const stored = await a.ask("GET", "/v1/config/exported-services/default");
    const index = stored.headers["x-consul-index"];
    assert.equal(
      stored.text,
      `{"Kind":"exported-services","Name":"default","Services":[{"Name":"web","Consumers":[{"Peer":"b"}]}],` +
        `"CreateIndex":${index},"ModifyIndex":${index}}`,
    );
    assert.deepEqual(await answered(a, "PUT", "/v1/config?cas=99999", entry), [200, "true"], "equal content");
    const other = { Kind: "exported-services", Name: "default" };
    assert.deepEqual(await answered(a, "PUT", "/v1/config?cas=0", other), [200, "false"]);
    assert.deepEqual(await answered(a, "PUT", "/v1/config?cas=99999", other), [200, "false"]);
    assert.deepEqual(await answered(a, "PUT", "/v1/config?cas=x", other), [
      500,
      'strconv.ParseUint: parsing "x": invalid syntax',
    ]);
    assert.deepEqual(await answered(a, "DELETE", "/v1/config/exported-services/default?cas=99999"), [200, "false"]);
    assert.deepEqual(await answered(a, "PUT", `/v1/config?cas=${index}`, other), [200, "true"]);
    assert.deepEqual(await answered(a, "PUT", "/v1/config", { Kind: "mesh", Name: "mesh", Namespace: "x" }), [
      400,
      "Request decoding failed: 2 errors occurred:\n" +
        '\t* invalid config key "Name"\n' +
        '\t* invalid config key "Namespace", namespaces are a consul enterprise feature\n\n',
    ]);
  });

  it("kinds that are not served, and paths that say too little", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    assert.deepEqual(await answered(a, "GET", "/v1/config/foo/bar"), [500, "invalid config entry kind: foo"]);
    assert.deepEqual(await answered(a, "GET", "/v1/config/foo"), [500, "invalid config entry kind: foo"]);
    assert.deepEqual(await answered(a, "DELETE", "/v1/config/foo/bar"), [400, "invalid config entry kind: foo"]);
    assert.deepEqual(await answered(a, "DELETE", "/v1/config/mesh"), [
      404,
      "Must provide both a kind and name to delete",
    ]);
    assert.deepEqual(await answered(a, "GET", "/v1/config/mesh?filter=x"), [
      500,
      "filtering not supported for config entry kind=mesh",
    ]);
    for (const [body, why] of [
      ["[]", "'' expected a map, got 'slice'"],
      ["{}", "Payload does not contain a kind/Kind key at the top level"],
      ['{"kind":1}', "Kind value in payload is not a string"],
      ['{"kind":"foo"}', "invalid config entry kind: foo"],
      ["", "EOF"],
    ]) {
      assert.deepEqual(await answered(a, "PUT", "/v1/config", body), [400, `Request decoding failed: ${why}`]);
    }
    assert.deepEqual(await answered(a, "GET", "/v1/config/mesh/mesh?ns=x"), [
      400,
      'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature',
    ]);
  });

  it("every kind is read as it was written", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const proxy = { TransparentProxy: {}, MeshGateway: { Mode: "local" }, Expose: {} };
    const entries: readonly (readonly [string, Readonly<Record<string, unknown>>])[] = [
      [
        "mesh/mesh",
        { Kind: "mesh", TransparentProxy: { MeshDestinationsOnly: true }, Peering: { PeerThroughMeshGateways: true } },
      ],
      [
        "proxy-defaults/global",
        { Kind: "proxy-defaults", Name: "global", Config: { protocol: "http" }, ...proxy, AccessLogs: {} },
      ],
      ["service-defaults/web", { Kind: "service-defaults", Name: "web", Protocol: "http", ...proxy, Meta: { a: "b" } }],
      [
        "service-resolver/web",
        {
          Kind: "service-resolver",
          Name: "web",
          DefaultSubset: "v1",
          Subsets: { v1: { Filter: "x == y", OnlyPassing: true } },
          Failover: { "*": { Targets: [{ Service: "web", Peer: "other" }] } },
          ConnectTimeout: "1m30s",
        },
      ],
      [
        "service-router/web",
        {
          Kind: "service-router",
          Name: "web",
          Routes: [{ Match: { HTTP: { PathPrefix: "/x" } }, Destination: { Service: "api", NumRetries: 3 } }],
        },
      ],
      ["service-splitter/api", { Kind: "service-splitter", Name: "api", Splits: [{ Weight: 100, Service: "api" }] }],
      [
        "terminating-gateway/tgw",
        { Kind: "terminating-gateway", Name: "tgw", Services: [{ Name: "db", SNI: "db.example" }] },
      ],
    ];
    for (const [path, entry] of entries) {
      assert.deepEqual(await answered(a, "PUT", "/v1/config", entry), [200, "true"], path);
      const { CreateIndex, ModifyIndex, ...read } = (await json(a, `/v1/config/${path}`)) as Record<string, unknown>;
      assert.deepEqual(read, entry);
      assert.equal(CreateIndex, ModifyIndex);
    }
    const all = (await json(a, "/v1/config/")) as readonly { readonly Kind: string }[];
    assert.equal(all.length, entries.length);
  });

  it("service-defaults are filtered on request", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    await a.host.configEntries.set({ kind: "service-defaults", name: "web", protocol: "http", meta: { team: "x" } });
    await a.host.configEntries.set({ kind: "service-defaults", name: "db" });
    for (const [filter, names] of [
      ["Protocol == http", ["web"]],
      ["Meta.team == x or Name == db", ["db", "web"]],
    ] as const) {
      const found = await json(a, `/v1/config/service-defaults?filter=${encodeURIComponent(filter)}`);
      assert.deepEqual(
        (found as readonly { readonly Name: string }[]).map(({ Name }) => Name),
        names,
      );
    }
    const [status, text] = await answered(a, "GET", "/v1/config/service-defaults?filter=Nope==x");
    assert.equal(status, 500);
    assert.match(text, /^Failed to create boolean expression evaluator: Selector "Nope" is not valid/);
  });

  it("a wait for an entry is ended by that entry alone", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    const written = await a.ask("PUT", "/v1/config", {
      body: '{"Kind":"service-defaults","Name":"web","Protocol":"tcp"}',
    });
    assert.equal(written.text, "true");
    const index = (await a.ask("GET", "/v1/config/service-defaults/web")).headers["x-consul-index"];
    const waiting = a.ask("GET", `/v1/config/service-defaults/web?index=${index}&wait=10m`);
    for (const [name, protocol] of [
      ["other", "http"],
      ["web", "grpc"],
    ]) {
      const body = JSON.stringify({ Kind: "service-defaults", Name: name, Protocol: protocol });
      await a.ask("PUT", "/v1/config", { body });
    }
    assert.equal(JSON.parse((await waiting).text).Protocol, "grpc");
  });

  it("exported services, by name, by wildcard, and woken by the catalog (HT10)", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    assert.deepEqual(await json(a, "/v1/exported-services"), []);
    await a.host.exports.set({
      services: [
        { name: "*", consumers: [{ peer: "b" }] },
        { name: "nobody", consumers: [{}] },
      ],
    });
    const before = await a.ask("GET", "/v1/exported-services");
    assert.equal(before.text, '[{"Service":"nobody","Consumers":{}}]');
    const waiting = a.ask("GET", `/v1/exported-services?index=${before.headers["x-consul-index"]}&wait=10m`);
    for (const name of ["consul", "web"]) {
      await a.host.catalog.register({ node: "n", address: "10.0.0.1", service: { name, port: 1 } });
    }
    await waiting;
    assert.deepEqual(await json(a, "/v1/exported-services"), [
      { Service: "nobody", Consumers: {} },
      { Service: "web", Consumers: { Peers: ["b"] } },
    ]);
  });
});

describe("system endpoints", { timeout: 60_000 }, () => {
  it("tell who and where this cluster is", async () => {
    await using pair = await HttpPair.start();
    assert.equal(await json(pair.a, "/v1/status/leader"), "127.0.0.11:8503");
    assert.deepEqual(await json(pair.a, "/v1/status/peers"), ["127.0.0.11:8503"]);
    assert.deepEqual(await json(pair.a, "/v1/catalog/datacenters"), ["dc1"]);
    const self = (await json(pair.a, "/v1/agent/self")) as {
      readonly Config: { readonly Datacenter: string };
      readonly Member: { readonly Addr: string };
    };
    assert.equal(self.Config.Datacenter, "dc1");
    assert.equal(self.Member.Addr, "127.0.0.11");
    const roots = (await json(pair.a, "/v1/connect/ca/roots")) as {
      readonly ActiveRootID: string;
      readonly TrustDomain: string;
      readonly Roots: readonly {
        readonly ID: string;
        readonly PrivateKeyBits: number;
        readonly SigningKeyID: string;
      }[];
    };
    assert.equal(roots.TrustDomain, pair.a.host.trustDomain);
    const [root, ...others] = roots.Roots;
    assert.deepEqual(others, []);
    assert.equal(root?.ID, roots.ActiveRootID);
    assert.equal(root?.PrivateKeyBits, 256);
    assert.match(String(root?.SigningKeyID), /^([0-9a-f]{2}:){31}[0-9a-f]{2}$/);
  });

  it("the OpenAPI document has every route, with its answers", async () => {
    await using pair = await HttpPair.start();
    await pair.a.host.peerings.generateToken({ peerName: "foo", meta: { a: "b" } });
    type Schema = {
      readonly properties?: Record<string, Schema>;
      readonly required?: readonly string[];
      readonly items?: Schema;
    };
    const document = (await json(pair.a, "/v1/openapi.json")) as {
      readonly paths: Record<
        string,
        Record<string, { responses: Record<string, { content?: Record<string, { schema: Schema }> }> }>
      >;
    };
    const ids = Object.values(document.paths).flatMap((item) => Object.values(item));
    assert.ok(ids.length > 10);
    for (const [path, item] of Object.entries(document.paths)) {
      const asked = path.replace(/\{(\w+)\}/g, (_, name: string) => (name === "kind" ? "mesh" : "foo"));
      const { allow = "" } = (await pair.a.ask("OPTIONS", asked)).headers;
      for (const method of Object.keys(item)) {
        assert.ok(allow.split(",").includes(method.toUpperCase()), `${method} ${path}`);
      }
    }
    const { get: reading } = document.paths["/v1/peering/{name}"] ?? {};
    const schema = reading?.responses["200"]?.content?.["application/json"]?.schema;
    const peering = (await json(pair.a, "/v1/peering/foo")) as Record<string, unknown>;
    assert.ok(schema?.required?.every((name) => name in peering));
    assert.ok(Object.keys(peering).every((name) => schema?.properties?.[name] !== undefined));
  });
});

describe("access", { timeout: 60_000 }, () => {
  /** Knows one token, which may read peerings. */
  const readers: Authorizer = {
    defaultPolicy: "deny",
    resolve: async (token) => {
      if (token === "") return { accessorId: undefined };
      return token === "reader" ? { accessorId: "11111111-2222-3333-4444-555555555555" } : undefined;
    },
    allowed: ({ accessorId }, { resource, access }) =>
      accessorId !== undefined && resource === "peering" && access === "read",
  };

  it("tokens of the query, the header and bearer are equal; an unknown one is refused (HT8)", async () => {
    await using pair = await HttpPair.start(10, { authorizer: readers });
    const { a } = pair;
    for (const [path, headers] of [
      ["/v1/peerings?token=reader", {}],
      ["/v1/peerings", { "X-Consul-Token": "reader" }],
      ["/v1/peerings", { Authorization: "bEaReR reader" }],
      ["/v1/peerings?token=reader", { "X-Consul-Token": "unknown" }],
    ] as const) {
      const answer = await a.ask("GET", path, { headers });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers["x-consul-default-acl-policy"], "deny");
    }
    const unknown = await a.ask("GET", "/v1/peerings", { headers: { "X-Consul-Token": "unknown" } });
    assert.deepEqual([unknown.status, unknown.text], [403, "ACL not found"]);
  });

  it("a refusal names the missing right (RPC6)", async () => {
    await using pair = await HttpPair.start(10, { authorizer: readers });
    const { a } = pair;
    assert.deepEqual(await answered(a, "GET", "/v1/peerings"), [
      403,
      "Permission denied: anonymous token lacks permission 'peering:read'. The anonymous token is used implicitly when " +
        "a request does not specify a token.",
    ]);
    const denied = "Permission denied: token with AccessorID '11111111-2222-3333-4444-555555555555' lacks permission";
    for (const [method, path, right, body] of [
      ["POST", "/v1/peering/token?token=reader", "'peering:write'", { PeerName: "x" }],
      ["DELETE", "/v1/peering/x?token=reader", "'peering:write'", undefined],
      ["GET", "/v1/exported-services?token=reader", "'mesh:read'", undefined],
      ["GET", "/v1/config/exported-services/default?token=reader", "'mesh:read'", undefined],
      ["GET", "/v1/config/service-defaults/web?token=reader", "'service:read' on \"web\"", undefined],
      ["PUT", "/v1/config?token=reader", "'mesh:write'", { Kind: "mesh" }],
      ["PUT", "/v1/config?token=reader", "'service:write' on \"web\"", { Kind: "service-defaults", Name: "web" }],
    ] as const) {
      assert.deepEqual(await answered(a, method, path, body), [403, `${denied} ${right}`]);
    }
    assert.equal((await answered(a, "GET", "/v1/config/mesh/mesh?token=reader"))[0], 404);
    await a.host.configEntries.set({ kind: "service-defaults", name: "web" });
    const list = await a.ask("GET", "/v1/config/service-defaults?token=reader");
    assert.deepEqual([list.text, list.headers["x-consul-results-filtered-by-acls"]], ["[]", "true"]);
  });
});

describe("failures", { timeout: 60_000 }, () => {
  it("an authorizer that fails is a 500, and the next request is served", async () => {
    let fails = true;
    const authorizer: Authorizer = {
      defaultPolicy: "allow",
      resolve: async () => {
        if (fails) throw new Error("no policies at hand");
        return { accessorId: undefined };
      },
      allowed: () => true,
    };
    await using pair = await HttpPair.start(10, { authorizer });
    assert.deepEqual(await answered(pair.a, "GET", "/v1/peerings"), [500, "no policies at hand"]);
    fails = false;
    assert.deepEqual(await answered(pair.a, "GET", "/v1/peerings"), [200, "[]"]);
  });

  it("a client that does not read its answer is disconnected", async () => {
    await using pair = await HttpPair.start(100, { writeTimeoutMs: 2_000 });
    // More than what sockets take in passing.
    const meta = Object.fromEntries(Array.from({ length: 64 }, (_, key) => [`key-${key}`, "x".repeat(512)]));
    for (let number = 0; number < 400; number++) {
      await pair.a.host.peerings.generateToken({ peerName: `peer-${number}`, meta });
    }
    const accepted = once(pair.a.server, "connection");
    const socket = connect(pair.a.port, "127.0.0.1");
    await Promise.all([accepted, once(socket, "connect")]);
    socket.pause();
    socket.write("GET /v1/peerings HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const connections = (): Promise<number> =>
      new Promise((resolve, reject) => {
        pair.a.server.getConnections((error, count) => (error === null ? resolve(count) : reject(error)));
      });
    // The limit of the test ends a wait in vain.
    while ((await connections()) > 0) await setImmediate();
    socket.destroy();
  });
});

describe("requests as such", { timeout: 60_000 }, () => {
  it("paths are cleaned by a redirect, and unknown ones answered as such", async () => {
    await using pair = await HttpPair.start();
    const { a } = pair;
    for (const [path, location] of [
      ["/v1//peerings", "/v1/peerings"],
      ["/v1/peering/../peerings?pretty", "/v1/peerings?pretty"],
      ["/v1/./peering/x/", "/v1/peering/x/"],
      ["//evil.example/v1/peerings", "/evil.example/v1/peerings"],
      ["/v1/peering/a%2f%2Fb%22", "/v1/peering/a/b%22"],
      ["/v1/config", undefined],
    ] as const) {
      const answer = await a.ask("GET", path);
      const { location: told } = answer.headers;
      assert.equal(told, location, path);
      assert.equal(answer.status, location === undefined ? 405 : 307);
    }
    assert.deepEqual(await answered(a, "GET", "/v1/peering/a%2Fb"), [404, 'Peering not found for "a/b"']);
    assert.deepEqual(await answered(a, "GET", "/v1/peering/%ff"), [400, "400 Bad Request"]);
    assert.deepEqual(await answered(a, "GET", "/x"), [
      404,
      "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'\n",
    ]);
    assert.equal((await answered(a, "GET", "/v1/imported-services"))[0], 404);
  });

  it("long answers are compressed for those who accept it", async () => {
    await using pair = await HttpPair.start();
    const path = "/v1/openapi.json";
    const plain = await pair.a.ask("GET", path);
    assert.equal(plain.headers["content-encoding"], undefined);
    const packed = await pair.a.ask("GET", path, { headers: { "Accept-Encoding": "br, gzip;q=0.5" } });
    assert.equal(packed.headers["content-encoding"], "gzip");
    assert.equal(gunzipSync(packed.bytes).toString(), plain.text);
    const refused = await pair.a.ask("GET", path, { headers: { "Accept-Encoding": "gzip;q=0" } });
    assert.equal(refused.headers["content-encoding"], undefined);
    const short = await pair.a.ask("GET", "/v1/peerings", { headers: { "Accept-Encoding": "gzip" } });
    assert.equal(short.headers["content-encoding"], undefined);
  });

  it("a body that is too long is refused, whether or not its length is told", async () => {
    await using pair = await HttpPair.start(10, { maxBodyBytes: 100 });
    const [status, text] = await answered(pair.a, "POST", "/v1/peering/token", { PeerName: "x".repeat(200) });
    assert.deepEqual([status, text], [413, "Request body too large, max size: 100 bytes."]);
    const chunked = await exchange(
      pair.a,
      `POST /v1/peering/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nc8\r\n${" ".repeat(200)}\r\n`,
    );
    assert.match(chunked, /^HTTP\/1\.1 413 /);
  });

  it("a body that does not come is not waited for", async () => {
    await using pair = await HttpPair.start(100, { bodyTimeoutMs: 5_000 });
    const answer = await exchange(
      pair.a,
      "POST /v1/peering/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{",
    );
    assert.match(answer, /^HTTP\/1\.1 408 .*The request body did not arrive in time\.$/s);
  });
});

/** Everything that is answered to these bytes, until the connection ends. */
async function exchange(served: ServedHost, bytes: string): Promise<string> {
  const socket = connect(served.port, "127.0.0.1");
  await once(socket, "connect");
  socket.write(bytes);
  let received = "";
  for await (const chunk of socket) received += String(chunk);
  return received;
}
