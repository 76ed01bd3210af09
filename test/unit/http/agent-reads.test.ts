import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Authorizer } from "../../../src/access/authorizer.js";
import { registerServer } from "../../../src/cli/agent-server.js";
import { HttpPair, type ServedHost } from "../../support/http-pair.js";

async function get(served: ServedHost, path: string): Promise<unknown> {
  const answer = await served.ask("GET", path);
  assert.equal(answer.status, 200, answer.text);
  return JSON.parse(answer.text);
}

const SERVER = { node: "n0", advertised: ["127.0.0.11:8503"], nodeId: undefined, nodeMeta: {} };

describe("an agent's answers about itself", () => {
  let pair: HttpPair;
  before(async () => {
    pair = await HttpPair.start(10, {}, "n0");
    const { a } = pair;
    const put = async (body: unknown): Promise<void> => {
      const answer = await a.ask("PUT", "/v1/agent/service/register", { body: JSON.stringify(body) });
      assert.equal(answer.status, 200, answer.text);
    };
    await put({ Name: "web", Port: 80, Meta: { a: "b" }, Check: { TTL: "1h", Status: "passing" } });
    await put({ Name: "db", ID: "db-1", Tags: ["main"] });
    // Which is not among them.
    await registerServer(a.host, SERVER);
    await a.host.catalog.register({ node: "other", address: "10.0.0.9", service: { name: "far" } });
  });
  after(() => pair[Symbol.asyncDispose]());

  it("is one member, in the one segment there is", async () => {
    const members = (await get(pair.a, "/v1/agent/members?segment=_all")) as readonly Record<string, unknown>[];
    assert.deepEqual(
      members.map(({ Name, Addr, Port, Status }) => [Name, Addr, Port, Status]),
      [["n0", "127.0.0.11", 8503, 1]],
    );
    const self = (await get(pair.a, "/v1/agent/self")) as { readonly Member: unknown };
    assert.deepEqual(self.Member, members[0]);
    const refused = await pair.a.ask("GET", "/v1/agent/members?segment=x");
    assert.deepEqual(
      [refused.status, refused.text],
      [500, "Network segments are not supported in this version of Consul"],
    );
  });

  it("is found by a filter over the fields of a member, and refuses a filter over others", async () => {
    for (const [filter, found] of [
      ['Name == "n0"', 1],
      ['Name == "n1"', 0],
      ['Addr == "127.0.0.11" and Port == 8503 and Status == 1 and Tags.role == "consul"', 1],
      ['"dc" in Tags and Tags.dc != "dc1"', 0],
      ["ProtocolCur == 2 and DelegateMax == 5", 1],
    ] as const) {
      const members = await get(pair.a, `/v1/agent/members?filter=${encodeURIComponent(filter)}`);
      assert.equal((members as readonly unknown[]).length, found, filter);
    }
    const refused = await pair.a.ask("GET", `/v1/agent/members?filter=${encodeURIComponent('Nope == "x"')}`);
    assert.equal(refused.status, 500);
    assert.match(refused.text, /Nope/);
  });

  it("is known to other datacenters by its name and its own", async () => {
    const members = (await get(pair.a, "/v1/agent/members?wan=1")) as readonly { readonly Name: string }[];
    assert.deepEqual(
      members.map(({ Name }) => Name),
      ["n0.dc1"],
    );
    for (const path of ["/v1/status/leader", "/v1/status/peers"]) {
      const elsewhere = await pair.a.ask("GET", `${path}?dc=nodc`);
      assert.deepEqual([elsewhere.status, elsewhere.text], [500, "No path to datacenter"]);
      assert.equal((await pair.a.ask("GET", `${path}?dc=dc1`)).status, 200);
    }
  });

  it("has an id, addresses by family and metadata, which the agent tells of itself", async () => {
    const node = pair.a.host.catalog.node("n0")?.node;
    assert.match(node?.id ?? "", /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    const address = "127.0.0.11";
    assert.deepEqual(node?.taggedAddresses, { lan: address, lan_ipv4: address, wan: address, wan_ipv4: address });
    const self = (await get(pair.a, "/v1/agent/self")) as {
      readonly Config: { readonly NodeID: string };
      readonly Stats: { readonly consul: Readonly<Record<string, string>> };
      readonly Meta: unknown;
    };
    assert.equal(self.Config.NodeID, node.id);
    assert.deepEqual(self.Meta, { "consul-network-segment": "", "consul-version": "1.21.4" });
    const { leader, leader_addr } = self.Stats.consul;
    assert.deepEqual([leader, leader_addr], ["true", "127.0.0.11:8503"]);
    const { Servers } = (await get(pair.a, "/v1/operator/raft/configuration")) as {
      readonly Servers: readonly Readonly<Record<string, unknown>>[];
    };
    assert.deepEqual(
      Servers.map(({ ID, Node, Address, Leader, Voter }) => [ID, Node, Address, Leader, Voter]),
      [[node.id, "n0", "127.0.0.11:8503", true, true]],
    );
    // The same after a restart.
    await registerServer(pair.a.host, SERVER);
    assert.equal(pair.a.host.catalog.node("n0")?.node.id, node.id);
  });

  it("answers at its root, tells its version and machine, and says that nothing is cached", async () => {
    assert.equal((await pair.a.ask("GET", "/")).status, 200);
    const version = (await get(pair.a, "/v1/agent/version")) as { readonly HumanVersion: string };
    assert.equal(version.HumanVersion, "1.21.4");
    const machine = (await get(pair.a, "/v1/agent/host")) as { readonly Memory: { readonly total: number } };
    assert.ok(machine.Memory.total > 0);
    const header = async (path: string): Promise<string | undefined> =>
      (await pair.a.ask("GET", path)).headers["x-cache"];
    assert.equal(await header("/v1/health/service/web?cached"), "MISS");
    assert.equal(await header("/v1/health/service/web"), undefined);
    assert.equal(await header("/v1/agent/connect/ca/roots"), "MISS");
  });

  it("its own services by id, as Consul 1.21 shows them", async () => {
    assert.deepEqual(await get(pair.a, "/v1/agent/services"), {
      "db-1": {
        ID: "db-1",
        Service: "db",
        Tags: ["main"],
        Meta: {},
        Port: 0,
        Address: "",
        Weights: { Passing: 1, Warning: 1 },
        EnableTagOverride: false,
        Datacenter: "dc1",
      },
      web: {
        ID: "web",
        Service: "web",
        Tags: [],
        Meta: { a: "b" },
        Port: 80,
        Address: "",
        Weights: { Passing: 1, Warning: 1 },
        EnableTagOverride: false,
        Datacenter: "dc1",
      },
    });
    const filter = encodeURIComponent('"main" in Tags');
    assert.deepEqual(Object.keys((await get(pair.a, `/v1/agent/services?filter=${filter}`)) as object), ["db-1"]);
  });

  it("its own checks by id", async () => {
    const checks = (await get(pair.a, "/v1/agent/checks")) as Record<string, Record<string, unknown>>;
    assert.deepEqual(Object.keys(checks), ["service:web"]);
    const { Node, Status, ServiceID, Type } = checks["service:web"] ?? {};
    assert.deepEqual([Node, Status, ServiceID, Type], ["n0", "passing", "web", "ttl"]);
    const filter = encodeURIComponent("Status == critical");
    assert.deepEqual(await get(pair.a, `/v1/agent/checks?filter=${filter}`), {});
  });

  it("nothing that the caller may not read", async () => {
    const authorizer: Authorizer = {
      defaultPolicy: "deny",
      resolve: async () => ({ accessorId: undefined }),
      allowed: (_, { resource, access }) => resource === "service" && access === "write",
    };
    await using hidden = await HttpPair.start(10, { authorizer }, "n0");
    const put = await hidden.a.ask("PUT", "/v1/agent/service/register", {
      body: '{"Name":"web","Check":{"TTL":"1s"}}',
    });
    assert.equal(put.status, 200, put.text);
    assert.deepEqual(await get(hidden.a, "/v1/agent/members"), []);
    assert.deepEqual(await get(hidden.a, "/v1/agent/services"), {});
    assert.deepEqual(await get(hidden.a, "/v1/agent/checks"), {});
  });
});
