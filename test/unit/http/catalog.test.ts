import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";
import type { Authorizer, Right } from "../../../src/access/authorizer.js";
import { createHost } from "../../../src/host/host.js";
import { memoryStorage } from "../../../src/storage/memory.js";
import { memoryNetwork } from "../../../src/transport/memory.js";
import { fastClock, HttpPair, type RawAnswer, type ServedHost, serve } from "../../support/http-pair.js";

async function alone(options: Parameters<typeof serve>[1] = {}): Promise<ServedHost> {
  const transport = memoryNetwork().transport({ listen: "127.0.0.1:8503" });
  const host = await createHost({ datacenter: "dc1", storage: memoryStorage(), transport, nodeName: "n0" });
  return serve(host, options);
}

function put(served: ServedHost, path: string, body: unknown, headers = {}): Promise<RawAnswer> {
  return served.ask("PUT", path, { body: typeof body === "string" ? body : JSON.stringify(body), headers });
}

async function get(served: ServedHost, path: string): Promise<unknown> {
  const answer = await served.ask("GET", path);
  assert.equal(answer.status, 200, answer.text);
  return JSON.parse(answer.text);
}

const web = { Node: "n1", Address: "10.0.0.1", Service: { ID: "web-1", Service: "web", Port: 80 } };

describe("registering and deregistering over HTTP", () => {
  let served: ServedHost;
  before(async () => {
    served = await alone();
  });
  after(async () => {
    await served[Symbol.asyncDispose]();
  });

  const peerName = "cannot register requests with PeerName in them";
  const refusals: readonly (readonly [string, unknown, number, string])[] = [
    ["a PeerName on the request (ch4 case 1)", { ...web, PeerName: "p" }, 500, peerName],
    ["a PeerName on the service (ch4 case 1)", { ...web, Service: { Service: "web", PeerName: "p" } }, 500, peerName],
    ["a PeerName on the check (ch4 case 1)", { ...web, Check: { Name: "c", PeerName: "p" } }, 500, peerName],
    [
      "a PeerName on one of several checks (ch4 case 1)",
      { ...web, Checks: [{ Name: "c" }, { Name: "d", PeerName: "p" }] },
      500,
      peerName,
    ],
    ["no node", { Address: "10.0.0.1" }, 500, "Must provide node"],
    ["no address", { Node: "n1" }, 500, "Must provide address if SkipNodeUpdate is not set"],
    ["a bad id", { ...web, ID: "x" }, 500, "Bad node ID: uuid string is wrong length"],
    ["another datacenter", { ...web, Datacenter: "dc9" }, 500, "No path to datacenter"],
    [
      "a check of an unknown service (ch4 case 7)",
      { ...web, Check: { Name: "c", ServiceID: "nope" } },
      500,
      "Unknown service ID 'nope' for check ID 'c'",
    ],
    [
      "a proxy without port and destination (ch4 case 8)",
      { ...web, Service: { Kind: "connect-proxy", Service: "p" } },
      500,
      "2 errors occurred:\n\t* Port or SocketPath must be set for a connect-proxy\n\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services\n\n",
    ],
    ["an unknown key", { ...web, Nope: 1 }, 400, 'Request decode failed: json: unknown field "Nope"'],
    [
      "a namespace",
      { ...web, Namespace: "x" },
      400,
      'Request decode failed: json: unknown field "Namespace" - Namespaces are a Consul Enterprise feature',
    ],
    [
      "a partition",
      { ...web, Service: { Service: "web", Partition: "x" } },
      400,
      'Request decode failed: json: unknown field "Partition"',
    ],
    ["nothing", "", 400, "Request decode failed: EOF"],
    ["half of it", '{"Node":', 400, "Request decode failed: unexpected EOF"],
  ];
  for (const [name, body, status, text] of refusals) {
    it(`refuses ${name}`, async () => {
      const answer = await put(served, "/v1/catalog/register", body);
      assert.deepEqual([answer.status, answer.text], [status, text]);
      assert.equal(answer.headers["content-type"], "text/plain; charset=utf-8");
      assert.deepEqual(await get(served, "/v1/catalog/nodes"), []);
    });
  }

  it("tells which methods there are", async () => {
    const answer = await served.ask("GET", "/v1/catalog/register");
    assert.deepEqual([answer.status, answer.text], [405, "method GET not allowed"]);
    assert.equal(answer.headers["allow"], "OPTIONS,PUT");
  });

  it("a missing target is deregistered with success, and no index moves (ch4 case 9)", async () => {
    const before = (await served.ask("GET", "/v1/catalog/nodes")).headers["x-consul-index"];
    for (const target of [{ Node: "x" }, { Node: "x", ServiceID: "y" }, { Node: "x", CheckID: "y" }]) {
      assert.equal((await put(served, "/v1/catalog/deregister", target)).text, "true");
    }
    assert.equal((await served.ask("GET", "/v1/catalog/nodes")).headers["x-consul-index"], before);
    const refused = await put(served, "/v1/catalog/deregister", {});
    assert.deepEqual([refused.status, refused.text], [500, "Must provide node"]);
  });

  it("keeps all fields of a registration", async () => {
    const service = {
      Kind: "connect-proxy",
      ID: "p-1",
      Service: "p",
      Tags: ["v1"],
      Address: "10.0.0.2",
      TaggedAddresses: { wan: { Address: "1.2.3.4", Port: 81 } },
      Meta: { a: "<b>" },
      Port: 80,
      Weights: { Passing: 3, Warning: 2 },
      EnableTagOverride: true,
      Proxy: {
        DestinationServiceName: "web",
        Mode: "",
        Config: { b: 1, a: { d: [true], c: null } },
        Upstreams: [
          { DestinationType: "", DestinationName: "db", Datacenter: "", LocalBindPort: 9191, MeshGateway: {} },
        ],
        MeshGateway: { Mode: "local" },
        Expose: {},
      },
      Connect: {},
    };
    const answer = await put(served, "/v1/catalog/register", {
      Node: "n1",
      Address: "10.0.0.1",
      NodeMeta: { rack: "r1" },
      Service: service,
      Check: { CheckID: "c", Name: "alive", Status: "passing", ServiceID: "p-1", Definition: { Interval: "10s" } },
    });
    assert.equal(answer.text, "true");
    const [instance] = (await get(served, "/v1/health/service/p")) as [{ Service: object; Checks: object[] }];
    const { CreateIndex: _c, ModifyIndex: _m, PeerName: peer, ...rest } = instance.Service as Record<string, unknown>;
    // A service of the mesh gets its virtual address besides (4.8).
    const virtual = { Address: "240.0.0.1", Port: 80 };
    const addresses = { ...service.TaggedAddresses, "consul-virtual": virtual };
    assert.deepEqual([rest, peer], [{ ...service, TaggedAddresses: addresses }, ""]);
    assert.deepEqual(
      Object.entries(instance.Checks[0] ?? {}).filter(([key]) => ["Status", "ServiceName", "Definition"].includes(key)),
      [
        ["Status", "passing"],
        ["ServiceName", "p"],
        ["Definition", { Interval: "10s" }],
      ],
    );
    const connect = (await get(served, "/v1/catalog/connect/web")) as { ServiceID: string }[];
    assert.deepEqual(
      connect.map(({ ServiceID }) => ServiceID),
      ["p-1"],
    );
    const found = (await get(
      served,
      `/v1/health/service/p?filter=${encodeURIComponent('Service.Proxy.Upstreams.LocalBindPort == 9191 and Checks.Status == passing and Node.Meta["rack"] == r1')}`,
    )) as unknown[];
    assert.equal(found.length, 1);
  });

  it("shows a node with its services by id, and as a list", async () => {
    const node = (await get(served, "/v1/catalog/node/N1")) as { Node: { Node: string }; Services: object };
    assert.deepEqual([node.Node.Node, Object.keys(node.Services)], ["n1", ["p-1"]]);
    const list = (await get(served, "/v1/catalog/node-services/n1")) as { Services: { ID: string }[] };
    assert.deepEqual(
      list.Services.map(({ ID }) => ID),
      ["p-1"],
    );
    assert.deepEqual(await get(served, "/v1/catalog/services"), { p: ["v1"] });
    assert.deepEqual(await get(served, "/v1/catalog/services?node-meta=rack:r2"), {});
    assert.deepEqual(await get(served, "/v1/catalog/services?filter=ServiceKind+==+%22connect-proxy%22"), {
      p: ["v1"],
    });
  });

  const bad: readonly (readonly [string, number, string])[] = [
    ["/v1/health/service/", 400, "Missing service name"],
    ["/v1/health/connect/", 400, "Missing service name"],
    ["/v1/health/node/", 400, "Missing node name"],
    ["/v1/health/state/", 400, "Missing check state"],
    ["/v1/catalog/service/", 400, "Missing service name"],
    ["/v1/catalog/node/", 400, "Missing node name"],
    ["/v1/health/service/p?passing=foo", 400, "Invalid value for ?passing"],
    ["/v1/health/service/p?peer=x&sg=y", 400, "peer-name and sameness-group are mutually exclusive"],
    ["/v1/health/service/p?peer=x&sameness-group=y", 400, "peer-name and sameness-group are mutually exclusive"],
    ["/v1/health/service/p?dc=dc9&peer=x", 500, "No path to datacenter"],
    ["/v1/health/service/p?index=x", 400, "Invalid index"],
    [
      "/v1/health/service/p?filter=Nope+==+x",
      500,
      'Failed to create boolean expression evaluator: Selector "Nope" is not valid',
    ],
    [
      "/v1/catalog/service/p?filter=Service.Port+==+1",
      500,
      'Failed to create boolean expression evaluator: Selector "Service" is not valid',
    ],
  ];
  for (const [path, status, text] of bad) {
    it(`${path} is refused (HT11, ch4 case 61)`, async () => {
      const answer = await served.ask("GET", path);
      assert.deepEqual([answer.status, answer.text], [status, text]);
    });
  }
});

describe("passing (ch4 case 62)", () => {
  it("leaves only instances whose checks are all passing, or that have none", async () => {
    await using served = await alone();
    for (const status of ["maintenance", "warning", "critical", "passing", undefined]) {
      await served.host.catalog.register({
        node: "n1",
        address: "10.0.0.1",
        service: { id: `web-${status ?? "none"}`, name: "web", port: 80 },
        checks: status === undefined ? [] : [{ checkId: `c-${status}`, status, serviceId: `web-${status}` }],
      });
    }
    for (const [query, expected] of [
      ["?passing", ["web-none", "web-passing"]],
      ["?passing=1", ["web-none", "web-passing"]],
      ["?passing=false", ["web-critical", "web-maintenance", "web-none", "web-passing", "web-warning"]],
    ] as const) {
      const instances = (await get(served, `/v1/health/service/web${query}`)) as { Service: { ID: string } }[];
      assert.deepEqual(
        instances.map(({ Service }) => Service.ID),
        expected,
      );
    }
    const critical = (await get(served, "/v1/health/state/critical")) as { CheckID: string }[];
    assert.deepEqual(
      critical.map(({ CheckID }) => CheckID),
      ["c-critical"],
    );
  });
});

describe("transactions", () => {
  let served: ServedHost;
  beforeEach(async () => {
    await served?.[Symbol.asyncDispose]();
    served = await alone();
  });
  after(async () => {
    await served[Symbol.asyncDispose]();
  });

  const setNode = { Node: { Verb: "set", Node: { Node: "n1", Address: "10.0.0.1" } } };
  const setService = { Service: { Verb: "set", Node: "n1", Service: { ID: "w", Service: "web", Port: 80 } } };
  const setCheck = { Check: { Verb: "set", Check: { Node: "n1", CheckID: "c", ServiceID: "w", Status: "passing" } } };

  it("writes all and returns the written records, without the headers of a read", async () => {
    const answer = await put(served, "/v1/txn", [setNode, setService, setCheck]);
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.headers["x-consul-index"], undefined);
    const { Results: results, Errors: errors, ...rest } = JSON.parse(answer.text);
    assert.deepEqual([errors, rest], [null, {}]);
    assert.deepEqual(
      results.map((result: object) => Object.keys(result)),
      [["Node"], ["Service"], ["Check"]],
    );
    assert.equal(results[1].Service.Service, "web");
  });

  it("writes nothing when the second operation fails (ch4 case 10)", async () => {
    const missing = { Service: { Verb: "get", Node: "n1", Service: { ID: "x", Service: "x" } } };
    const answer = await put(served, "/v1/txn", [setNode, missing]);
    assert.equal(answer.status, 409);
    assert.deepEqual(JSON.parse(answer.text), {
      Results: null,
      Errors: [{ OpIndex: 1, What: 'service "x" on node "n1" doesn\'t exist' }],
    });
    assert.deepEqual(await get(served, "/v1/catalog/nodes"), []);
  });

  it("only reads: tells the index as well", async () => {
    const answer = await put(served, "/v1/txn", []);
    assert.equal(answer.status, 200);
    assert.equal(
      answer.text,
      '{"Results":[],"Errors":null,"Index":1,"LastContact":0,"KnownLeader":true,"ConsistencyLevel":"","NotModified":false,"Backend":0,"ResultsFilteredByACLs":false}',
    );
  });

  it("compares and sets by the index an answer showed", async () => {
    await put(served, "/v1/txn", [setNode]);
    const [node] = (await get(served, "/v1/catalog/nodes")) as [{ ModifyIndex: number }];
    const cas = (index: number): object => ({
      Node: { Verb: "cas", Node: { Node: "n1", Address: "10.0.0.2", ModifyIndex: index } },
    });
    const stale = await put(served, "/v1/txn", [cas(node.ModifyIndex + 7)]);
    assert.deepEqual(
      [stale.status, JSON.parse(stale.text).Errors[0].What],
      [409, 'failed to set node "n1", index is stale'],
    );
    assert.equal((await put(served, "/v1/txn", [cas(node.ModifyIndex)])).status, 200);
  });

  const refusals: readonly (readonly [string, unknown, number, RegExp])[] = [
    ["129 operations", Array(129).fill(setNode), 413, /^Transaction contains too many operations \(129 > 128\)$/],
    ["no JSON", "nope", 400, /^Failed to parse body: invalid character 'o' in literal null \(expecting 'u'\)$/],
    ["an unknown verb", [{ Node: { Verb: "nope", Node: { Node: "n" } } }], 409, /"unknown node operation: nope"/],
    [
      "a PeerName (D-35)",
      [{ Node: { Verb: "set", Node: { Node: "n", Address: "a", PeerName: "p" } } }],
      409,
      /"cannot register requests with PeerName in them"/,
    ],
    ["what no catalog holds", [{ KV: { Verb: "set", Key: "k" } }], 409, /only node, service and check operations/],
  ];
  for (const [name, body, status, text] of refusals) {
    it(`refuses ${name}`, async () => {
      const answer = await put(served, "/v1/txn", body);
      assert.equal(answer.status, status);
      assert.match(answer.text, text);
    });
  }
});

describe("services of the host's own node", () => {
  let served: ServedHost;
  before(async () => {
    served = await alone();
  });
  after(async () => {
    await served[Symbol.asyncDispose]();
  });

  it("registers a service with its checks and its sidecar, and takes them away together", async () => {
    const answer = await put(served, "/v1/agent/service/register", {
      Name: "web",
      Port: 80,
      Tags: ["v1"],
      Meta: { a: "b" },
      Check: { TTL: "10s", Status: "passing" },
      Connect: { SidecarService: {} },
    });
    assert.deepEqual([answer.status, answer.text], [200, ""]);
    const [instance] = (await get(served, "/v1/health/service/web?passing")) as [
      { Node: { Node: string }; Checks: { CheckID: string; Name: string; Type: string }[] },
    ];
    assert.equal(instance.Node.Node, "n0");
    assert.deepEqual(
      instance.Checks.map(({ CheckID, Name, Type }) => [CheckID, Name, Type]),
      [["service:web", "Service 'web' check", "ttl"]],
    );
    const [sidecar] = (await get(served, "/v1/health/connect/web")) as [{ Service: Record<string, unknown> }];
    const { ID: id, Kind: kind, Tags: tags, Meta: meta, Port: port } = sidecar.Service;
    assert.deepEqual([id, kind, tags, meta, port], ["web-sidecar-proxy", "connect-proxy", ["v1"], { a: "b" }, 21_000]);
    assert.equal((await put(served, "/v1/agent/service/deregister/web", "")).status, 200);
    assert.deepEqual(await get(served, "/v1/catalog/services"), {});
  });

  it("adds addresses by family to a service that has one of its own, as an agent of Consul does", async () => {
    const addresses = async (fields: object): Promise<unknown> => {
      const answer = await put(served, "/v1/agent/service/register", { Name: "addressed", Port: 80, ...fields });
      assert.equal(answer.status, 200, answer.text);
      const [{ Service }] = (await get(served, "/v1/health/service/addressed")) as [
        { Service: { TaggedAddresses: unknown } },
      ];
      return Service.TaggedAddresses;
    };
    const four = { Address: "10.0.0.7", Port: 80 };
    assert.deepEqual(await addresses({ Address: "10.0.0.7" }), { lan_ipv4: four, wan_ipv4: four });
    const given = { Address: "192.0.2.1", Port: 443 };
    assert.deepEqual(await addresses({ Address: "10.0.0.7", TaggedAddresses: { wan_ipv4: given } }), {
      ...{ lan_ipv4: four, wan_ipv4: given },
    });
    const six = { Address: "2001:db8::7", Port: 80 };
    assert.deepEqual(await addresses({ Address: "2001:db8::7" }), { lan_ipv6: six, wan_ipv6: six });
    const Ports = [{ Name: "http", Port: 8_080, Default: true }];
    const named = { Address: "10.0.0.7", Port: 8_080 };
    assert.deepEqual(await addresses({ Address: "10.0.0.7", Port: 0, Ports }), { lan_ipv4: named, wan_ipv4: named });
    assert.equal(await addresses({ Address: "db.example.com" }), undefined);
    assert.equal((await put(served, "/v1/agent/service/deregister/addressed", "")).status, 200);
  });

  it("replaces checks when asked to", async () => {
    const checks = async (): Promise<unknown> =>
      ((await get(served, "/v1/health/checks/db")) as { CheckID: string }[]).map(({ CheckID }) => CheckID);
    await put(served, "/v1/agent/service/register", {
      Name: "db",
      Checks: [
        { CheckID: "a", TTL: "1m" },
        { CheckID: "b", TTL: "1m" },
      ],
    });
    assert.deepEqual(await checks(), ["a", "b"]);
    await put(served, "/v1/agent/service/register", { Name: "db", Check: { CheckID: "a", TTL: "1m" } });
    assert.deepEqual(await checks(), ["a", "b"]);
    await put(served, "/v1/agent/service/register?replace-existing-checks", {
      Name: "db",
      Check: { CheckID: "a", TTL: "1m" },
    });
    assert.deepEqual(await checks(), ["a"]);
  });

  const refusals: readonly (readonly [unknown, string])[] = [
    [{}, "Missing service name"],
    [{ Name: "x", Address: "0.0.0.0" }, "Invalid service address"],
    [{ Name: "x", Weights: { Passing: 0 } }, "Invalid Weights: Passing must be greater than 0"],
    [
      { Name: "x", Check: { TTL: "1m", Status: "maintenance" } },
      "Status for checks must 'passing', 'warning', 'critical'",
    ],
    [{ Name: "x", PeerName: "p" }, 'Request decode failed: json: unknown field "PeerName"'],
    [
      { Name: "x", Meta: { "consul-x": "1" } },
      "Invalid Service Meta: Couldn't load metadata pair ('consul-x', '1'): Key prefix 'consul-' is reserved for internal use",
    ],
    [
      { Name: "x", Kind: "mesh-gateway" },
      "Validation failed: 1 error occurred:\n\t* Port must be non-zero for a mesh-gateway\n\n",
    ],
  ];
  for (const [body, text] of refusals) {
    it(`refuses ${JSON.stringify(body)}`, async () => {
      const answer = await put(served, "/v1/agent/service/register", body);
      assert.deepEqual([answer.status, answer.text], [400, text]);
    });
  }

  it("refuses unknown fields", async () => {
    const answer = await put(served, "/v1/agent/service/deregister/nope", "");
    assert.deepEqual(
      [answer.status, answer.text],
      [404, 'Unknown service ID "nope". Ensure that the service ID is passed, not the service name.'],
    );
  });
});

describe("the records that callers may see and write", () => {
  const allowed = new Set<string>();
  const authorizer: Authorizer = {
    defaultPolicy: "deny",
    resolve: async (token) => ({ accessorId: token === "" ? undefined : token }),
    allowed: (_, { resource, access, name, scope }: Right) =>
      allowed.has([resource, access, name ?? scope ?? ""].join(" ")),
  };
  let pair: HttpPair;
  before(async () => {
    pair = await HttpPair.start(10, { authorizer, clock: fastClock(10) });
    for (const name of ["web", "db"]) {
      await pair.b.host.catalog.register({ node: `n-${name}`, address: "10.0.0.1", service: { name, port: 1 } });
    }
  });
  beforeEach(() => allowed.clear());
  after(async () => {
    await pair[Symbol.asyncDispose]();
  });

  it("hides local records one by one, and says so to those with a token", async () => {
    const read = (token: string): Promise<RawAnswer> =>
      pair.b.ask("GET", "/v1/catalog/services", { headers: { "X-Consul-Token": token } });
    assert.equal((await read("")).text, "{}");
    assert.equal((await read("")).headers["x-consul-results-filtered-by-acls"], undefined);
    allowed.add("service read web");
    // An instance takes both rights, and a service that has none to be seen is not listed.
    assert.equal((await read("me")).text, "{}");
    assert.equal((await pair.b.ask("GET", "/v1/health/service/web")).text, "[]");
    allowed.add("node read n-web");
    const answer = await read("me");
    assert.equal(answer.text, '{"web":[]}');
    assert.equal(answer.headers["x-consul-results-filtered-by-acls"], "true");
    assert.match((await pair.b.ask("GET", "/v1/health/service/web")).text, /"Service":"web"/);
    assert.equal((await pair.b.ask("GET", "/v1/health/service/db")).text, "[]");
  });

  it("refuses writes without the right, and the mesh of a service that may not be read", async () => {
    const body = JSON.stringify({ Node: "n-web", Address: "10.0.0.1", Service: { Service: "web", Port: 2 } });
    const register = (): Promise<RawAnswer> => pair.b.ask("PUT", "/v1/catalog/register", { body });
    assert.match((await register()).text, /lacks permission 'service:write' on "web"/);
    allowed.add("service write web");
    assert.equal((await register()).text, "true");
    const other = JSON.stringify({ Node: "n-new", Address: "10.0.0.1", Service: { Service: "web" } });
    const refused = await pair.b.ask("PUT", "/v1/catalog/register", { body: other });
    assert.equal(refused.status, 403);
    assert.match(refused.text, /lacks permission 'node:write' on "n-new"/);
    assert.equal((await pair.b.ask("GET", "/v1/health/connect/db")).status, 403);
    assert.equal((await pair.b.ask("GET", "/v1/catalog/connect/db")).text, "[]");
  });
});
